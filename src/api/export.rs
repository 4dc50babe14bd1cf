//! `/usage/export`: usage as a file, streamed.

use std::{mem, sync::Arc};

use axum::{body::Body, extract::State, http::StatusCode, response::Response};
use bytes::Bytes;
use chrono::{DateTime, SecondsFormat, Utc};
use futures_util::stream;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::routes;
use validator::Validate;

use super::{
    ApiRouter, csv,
    error::ApiResult,
    extract::{Admin, Query},
    requests::RequestResponse,
    usage::{GroupOfAllName, IntervalName, UsageItemResponse, span},
};
use crate::{
    api::AppState,
    services::{
        sheet::{Sheet, text},
        usage::{Export, ExportOf, ExportPage, Grain, StoreError, UsageService},
    },
};

pub(super) fn router() -> ApiRouter {
    ApiRouter::new().routes(routes!(export_usage))
}

/// What the file is.
#[derive(Clone, Copy, Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum FormatName {
    #[default]
    Csv,
    /// A JSON object per line.
    Ndjson,
}

/// What is in it.
#[derive(Clone, Copy, Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum KindName {
    /// A row per bucket of time that has usage, or per group within it.
    #[default]
    Usage,
    /// The request log, in the order in which requests ended.
    Requests,
}

#[derive(Debug, Deserialize, IntoParams, Validate)]
#[into_params(parameter_in = Query)]
pub struct ExportQuery {
    /// Default: csv.
    #[param(inline)]
    pub format: Option<FormatName>,
    /// Default: usage.
    #[param(inline)]
    pub kind: Option<KindName>,
    /// Default: 30 days before `to`. Sums are counted from the full hour.
    #[param(example = "2026-01-01T00:00:00Z")]
    pub from: Option<DateTime<Utc>>,
    /// Default: now.
    #[param(example = "2026-01-31T00:00:00Z")]
    pub to: Option<DateTime<Utc>>,
    /// Of sums. Default: day.
    #[param(inline)]
    pub interval: Option<IntervalName>,
    /// Of sums.
    #[param(inline)]
    pub group_by: Option<GroupOfAllName>,
}

/// Everybody's usage as a file. Needs the role admin.
///
/// Rows come as they are read. If that fails half-way the answer breaks off
/// without its end, which any client takes for an error: what ends properly is
/// whole. A cell of CSV that a spreadsheet would take for a formula begins with
/// an apostrophe.
#[utoipa::path(
    get,
    path = "/usage/export",
    tag = "usage",
    security(("jwt" = [])),
    params(ExportQuery),
    responses((status = OK, content(
        (String = "text/csv"),
        (String = "application/x-ndjson"),
    ))),
)]
async fn export_usage(
    State(state): State<AppState>,
    _: Admin,
    Query(query): Query<ExportQuery>,
) -> ApiResult<Response> {
    let mut file = ExportFile::new(&state.services.usage, &query, state.services.clock.now())?;
    let (name, media_type) = (file.name(), file.format.media_type());
    // What fails at once is told as usual.
    let beginning = file.next().await?;
    let body = stream::try_unfold((beginning, file), move |(beginning, mut file)| async move {
        if let Some(beginning) = beginning {
            return Ok(Some((Bytes::from(beginning), (None, file))));
        }
        match file.next().await {
            Ok(rows) => Ok(rows.map(|rows| (Bytes::from(rows), (None, file)))),
            Err(error) => {
                let shown = &error as &dyn std::error::Error;
                tracing::warn!(error = shown, "an export of usage was broken off");
                Err(error)
            }
        }
    });
    Ok(csv::file(StatusCode::OK, media_type, &name, Body::from_stream(body)))
}

/// The file as it is made, piece by piece: the same over HTTP and by a command.
pub struct ExportFile {
    format: FormatName,
    kind: KindName,
    from: DateTime<Utc>,
    to: DateTime<Utc>,
    export: Export,
    begun: bool,
}

impl ExportFile {
    /// Nothing is read yet. An error is about the span.
    pub fn new(
        usage: &Arc<UsageService>,
        query: &ExportQuery,
        now: DateTime<Utc>,
    ) -> ApiResult<Self> {
        let ExportQuery { format, kind, from, to, interval, group_by } = *query;
        let (format, kind) = (format.unwrap_or_default(), kind.unwrap_or_default());
        let interval = interval.map_or(Grain::Day, Grain::from);
        let checked = matches!(kind, KindName::Usage).then_some(interval);
        let (from, to) = span(from, to, checked, now)?;
        let of = match kind {
            KindName::Usage => ExportOf::Sums { interval, group: group_by.map(Into::into) },
            KindName::Requests => ExportOf::Requests,
        };
        let export = usage.export(of, from, to);
        Ok(Self { format, kind, from, to, export, begun: false })
    }

    /// The next bytes; the first time there are some, or at least none. `None` at
    /// the end.
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>, StoreError> {
        let page = self.export.next().await?;
        if mem::replace(&mut self.begun, true) {
            return Ok(page.map(|page| self.format.rows(page)));
        }
        let mut beginning = self.format.heading(self.kind);
        beginning.extend(page.map(|page| self.format.rows(page)).unwrap_or_default());
        Ok(Some(beginning))
    }

    fn name(&self) -> String {
        let day = |at: DateTime<Utc>| at.format("%Y-%m-%d").to_string();
        let (name, extension) = (self.kind.name(), self.format.extension());
        format!("{name}-{}-{}.{extension}", day(self.from), day(self.to))
    }
}

impl KindName {
    fn name(self) -> &'static str {
        match self {
            Self::Usage => "usage",
            Self::Requests => "requests",
        }
    }
}

impl FormatName {
    fn extension(self) -> &'static str {
        match self {
            Self::Csv => "csv",
            Self::Ndjson => "ndjson",
        }
    }

    fn media_type(self) -> &'static str {
        match self {
            Self::Csv => csv::MEDIA_TYPE,
            Self::Ndjson => "application/x-ndjson",
        }
    }

    fn heading(self, kind: KindName) -> Vec<u8> {
        let mut sheet = Sheet::default();
        match (self, kind) {
            (Self::Ndjson, _) => return vec![],
            (Self::Csv, KindName::Usage) => sheet.row(SUMS),
            (Self::Csv, KindName::Requests) => sheet.row(REQUESTS),
        }
        sheet.into_bytes()
    }

    fn rows(self, page: ExportPage) -> Vec<u8> {
        match page {
            ExportPage::Sums(items) => {
                self.rows_of(items.into_iter().map(UsageItemResponse::from), sum_cells)
            }
            ExportPage::Requests(records) => {
                self.rows_of(records.into_iter().map(RequestResponse::from), request_cells)
            }
        }
    }

    fn rows_of<T: Serialize, const N: usize>(
        self,
        rows: impl Iterator<Item = T>,
        cells: impl Fn(&T) -> [String; N],
    ) -> Vec<u8> {
        match self {
            Self::Csv => {
                let mut sheet = Sheet::default();
                rows.for_each(|row| sheet.row(cells(&row)));
                sheet.into_bytes()
            }
            Self::Ndjson => {
                let mut lines = vec![];
                for row in rows {
                    serde_json::to_writer(&mut lines, &row).expect("plain values into memory");
                    lines.push(b'\n');
                }
                lines
            }
        }
    }
}

const SUMS: [&str; 16] = [
    "start",
    "group",
    "requests",
    "rejected",
    "succeeded",
    "client_errors",
    "server_errors",
    "aborted",
    "bytes_in",
    "bytes_out",
    "stream_seconds",
    "messages",
    "duration_ms_mean",
    "duration_ms_p50",
    "duration_ms_p95",
    "duration_ms_p99",
];

const REQUESTS: [&str; 16] = [
    "id",
    "request_id",
    "at",
    "method",
    "path",
    "status",
    "outcome",
    "duration_ms",
    "bytes_in",
    "bytes_out",
    "user_id",
    "key_id",
    "token_id",
    "upstream",
    "route",
    "messages",
];

fn time(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::AutoSi, true)
}

fn or_empty<T: ToString>(value: Option<T>) -> String {
    value.map(|value| value.to_string()).unwrap_or_default()
}

fn sum_cells(item: &UsageItemResponse) -> [String; 16] {
    let UsageItemResponse { start, group, totals } = item;
    [
        time(*start),
        text(group.as_deref().unwrap_or_default()).into_owned(),
        totals.requests.to_string(),
        totals.rejected.to_string(),
        totals.succeeded.to_string(),
        totals.client_errors.to_string(),
        totals.server_errors.to_string(),
        totals.aborted.to_string(),
        totals.bytes_in.to_string(),
        totals.bytes_out.to_string(),
        totals.stream_seconds.to_string(),
        totals.messages.to_string(),
        or_empty(totals.duration_ms.mean),
        or_empty(totals.duration_ms.p50),
        or_empty(totals.duration_ms.p95),
        or_empty(totals.duration_ms.p99),
    ]
}

/// Clients choose methods, paths and request ids.
fn request_cells(request: &RequestResponse) -> [String; 16] {
    [
        request.id.to_string(),
        text(&request.request_id).into_owned(),
        time(request.at),
        text(&request.method).into_owned(),
        text(&request.path).into_owned(),
        request.status.to_string(),
        request.outcome.as_str().to_owned(),
        request.duration_ms.to_string(),
        request.bytes_in.to_string(),
        request.bytes_out.to_string(),
        or_empty(request.user_id),
        or_empty(request.key_id),
        or_empty(request.token_id),
        text(&request.upstream).into_owned(),
        text(&request.route).into_owned(),
        request.messages.to_string(),
    ]
}
