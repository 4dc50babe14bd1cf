//! `/usage`: what was used, by me or by everybody.

use axum::{Json as JsonBody, extract::State};
use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::routes;
use validator::Validate;

use super::{
    ApiRouter,
    error::{ApiError, ApiResult, FieldProblem},
    extract::{Caller, Moderator, Query},
};
use crate::{
    api::AppState,
    domain::{
        id::{ApiKeyId, UserId},
        principal::{Credential, Principal},
    },
    services::usage::{Grain, Report, ReportItem, ReportQuery, Totals, UsageFilter, UsageGroup},
};

/// Buckets in one answer at the most: 13 months by the hour.
const MAX_BUCKETS: i64 = 10_000;

pub(super) fn router() -> ApiRouter {
    ApiRouter::new().routes(routes!(get_usage)).routes(routes!(get_usage_of_all))
}

/// The width of a bucket.
#[derive(Clone, Copy, Debug, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum IntervalName {
    Hour,
    Day,
}

#[derive(Clone, Copy, Debug, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum GroupName {
    Key,
    /// Time passes; requests without one are in a group of their own.
    Token,
    Upstream,
    /// The upstream's name and one of the patterns that it lists under `routes`;
    /// `/**` for all other paths.
    Route,
    /// 2 for 200 to 299 and so on.
    Status,
}

#[derive(Clone, Copy, Debug, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum GroupOfAllName {
    User,
    Key,
    /// Time passes; requests without one are in a group of their own.
    Token,
    Upstream,
    /// The upstream's name and one of the patterns that it lists under `routes`.
    Route,
}

/// By what the groups are ordered, largest first.
#[derive(Clone, Copy, Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SortName {
    #[default]
    Requests,
    Rejected,
    ServerErrors,
    BytesIn,
    BytesOut,
}

#[derive(Debug, Deserialize, IntoParams, Validate)]
#[into_params(parameter_in = Query)]
pub struct UsageQuery {
    /// Default: 30 days before `to`. Counted from the full hour.
    #[param(example = "2026-01-01T00:00:00Z")]
    from: Option<DateTime<Utc>>,
    /// Default: now.
    #[param(example = "2026-01-31T00:00:00Z")]
    to: Option<DateTime<Utc>>,
    /// Default: day.
    #[param(inline)]
    interval: Option<IntervalName>,
    #[param(inline)]
    group_by: Option<GroupName>,
}

#[derive(Debug, Deserialize, IntoParams, Validate)]
#[into_params(parameter_in = Query)]
pub struct UsageOfAllQuery {
    /// Default: 30 days before `to`. Counted from the full hour.
    #[param(example = "2026-01-01T00:00:00Z")]
    from: Option<DateTime<Utc>>,
    /// Default: now.
    #[param(example = "2026-01-31T00:00:00Z")]
    to: Option<DateTime<Utc>>,
    /// Default: day without `group_by`, the whole span with it.
    #[param(inline)]
    interval: Option<IntervalName>,
    #[param(inline)]
    group_by: Option<GroupOfAllName>,
    /// With `group_by` over the whole span: which groups come first.
    #[param(inline)]
    sort: Option<SortName>,
    /// With `group_by` over the whole span: how many groups.
    #[param(minimum = 1, maximum = 200, default = 50)]
    #[validate(range(min = 1, max = 200, message = "must be 1 to 200"))]
    limit: Option<u32>,
}

/// Sums over a span.
#[derive(Debug, Serialize, ToSchema)]
pub struct TotalsResponse {
    /// Let through to the upstream.
    #[schema(example = 1042)]
    pub(super) requests: u64,
    /// Refused by a limit; not part of `requests`.
    #[schema(example = 7)]
    pub(super) rejected: u64,
    #[schema(example = 1030)]
    pub(super) succeeded: u64,
    #[schema(example = 10)]
    pub(super) client_errors: u64,
    #[schema(example = 2)]
    pub(super) server_errors: u64,
    /// Of `requests`: the client left before the end.
    #[schema(example = 1)]
    pub(super) aborted: u64,
    /// Bytes of request bodies.
    pub(super) bytes_in: u64,
    /// Bytes of response bodies that were handed over.
    pub(super) bytes_out: u64,
    /// How long `WebSocket`s and event streams were open.
    #[schema(example = 12.5)]
    pub(super) stream_seconds: f64,
    /// Messages of `WebSocket`s, both ways, and events of event streams that are not
    /// compressed.
    #[schema(example = 42)]
    pub(super) messages: u64,
    pub(super) duration_ms: DurationResponse,
}

/// From the request's arrival to the end of its body. Percentiles come from a
/// histogram and are at most 25 % too high; null without requests.
#[derive(Debug, Serialize, ToSchema)]
pub struct DurationResponse {
    #[schema(required = true, example = 12.5)]
    pub(super) mean: Option<f64>,
    #[schema(required = true, example = 10.24)]
    pub(super) p50: Option<f64>,
    #[schema(required = true, example = 40.96)]
    pub(super) p95: Option<f64>,
    #[schema(required = true, example = 81.92)]
    pub(super) p99: Option<f64>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct UsageItemResponse {
    /// The beginning of the bucket.
    pub(super) start: DateTime<Utc>,
    /// What the item is grouped by; null where there is none.
    #[schema(required = true, example = "default")]
    pub(super) group: Option<String>,
    #[serde(flatten)]
    pub(super) totals: TotalsResponse,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct UsageResponse {
    from: DateTime<Utc>,
    to: DateTime<Utc>,
    totals: TotalsResponse,
    /// Buckets that have any usage, oldest first.
    items: Vec<UsageItemResponse>,
}

impl From<Totals> for TotalsResponse {
    fn from(totals: Totals) -> Self {
        let quantile = |q| totals.sum.latency.quantile_ms(q);
        let duration_ms = DurationResponse {
            mean: totals.sum.mean_ms(),
            p50: quantile(0.5),
            p95: quantile(0.95),
            p99: quantile(0.99),
        };
        Self {
            requests: totals.sum.requests,
            rejected: totals.sum.rejected,
            succeeded: totals.succeeded,
            client_errors: totals.client_errors,
            server_errors: totals.server_errors,
            aborted: totals.sum.aborted,
            bytes_in: totals.sum.bytes_in,
            bytes_out: totals.sum.bytes_out,
            stream_seconds: totals.sum.stream_seconds(),
            messages: totals.sum.messages,
            duration_ms,
        }
    }
}

impl From<ReportItem> for UsageItemResponse {
    fn from(item: ReportItem) -> Self {
        let ReportItem { start, group, totals } = item;
        Self { start, group, totals: totals.into() }
    }
}

impl From<Report> for UsageResponse {
    fn from(report: Report) -> Self {
        let Report { from, to, totals, items } = report;
        let items = items.into_iter().map(UsageItemResponse::from).collect();
        Self { from, to, totals: totals.into(), items }
    }
}

impl From<GroupOfAllName> for UsageGroup {
    fn from(name: GroupOfAllName) -> Self {
        match name {
            GroupOfAllName::User => Self::User,
            GroupOfAllName::Key => Self::Key,
            GroupOfAllName::Token => Self::Pass,
            GroupOfAllName::Upstream => Self::Upstream,
            GroupOfAllName::Route => Self::Route,
        }
    }
}

impl From<IntervalName> for Grain {
    fn from(name: IntervalName) -> Self {
        match name {
            IntervalName::Hour => Self::Hour,
            IntervalName::Day => Self::Day,
        }
    }
}

impl SortName {
    fn rank(self, totals: &Totals) -> u64 {
        match self {
            Self::Requests => totals.sum.requests,
            Self::Rejected => totals.sum.rejected,
            Self::ServerErrors => totals.server_errors,
            Self::BytesIn => totals.sum.bytes_in,
            Self::BytesOut => totals.sum.bytes_out,
        }
    }
}

/// My usage: the calling key's, or with a login all of mine.
///
/// A request is counted within a second of its end.
#[utoipa::path(
    get,
    path = "/usage",
    tag = "usage",
    security(("jwt" = []), ("api_key" = [])),
    params(UsageQuery),
    responses((status = OK, body = UsageResponse)),
)]
async fn get_usage(
    State(state): State<AppState>,
    Caller(principal): Caller,
    Query(query): Query<UsageQuery>,
) -> ApiResult<JsonBody<UsageResponse>> {
    let UsageQuery { from, to, interval, group_by } = query;
    let interval = Some(interval.map_or(Grain::Day, Grain::from));
    let (from, to) = span(from, to, interval, state.services.clock.now())?;
    let (user_id, key_id) = own(&principal);
    let group = group_by.map(|name| match name {
        GroupName::Key => UsageGroup::Key,
        GroupName::Upstream => UsageGroup::Upstream,
        GroupName::Route => UsageGroup::Route,
        GroupName::Status => UsageGroup::Status,
        GroupName::Token => UsageGroup::Pass,
    });
    let filter = UsageFilter { user_id, key_id, upstream: None, from, to };
    let report = state.services.usage.report(&ReportQuery { filter, interval, group }).await?;
    Ok(JsonBody(report.into()))
}

/// Everybody's usage. Needs the role admin or moderator.
#[utoipa::path(
    get,
    path = "/usage/all",
    tag = "usage",
    security(("jwt" = [])),
    params(UsageOfAllQuery),
    responses((status = OK, body = UsageResponse)),
)]
async fn get_usage_of_all(
    State(state): State<AppState>,
    _: Moderator,
    Query(query): Query<UsageOfAllQuery>,
) -> ApiResult<JsonBody<UsageResponse>> {
    let UsageOfAllQuery { from, to, interval, group_by, sort, limit } = query;
    let interval = match (interval, group_by) {
        (Some(name), _) => Some(name.into()),
        (None, None) => Some(Grain::Day),
        (None, Some(_)) => None,
    };
    let (from, to) = span(from, to, interval, state.services.clock.now())?;
    let group = group_by.map(UsageGroup::from);
    let filter = UsageFilter { user_id: None, key_id: None, upstream: None, from, to };
    let mut report = state.services.usage.report(&ReportQuery { filter, interval, group }).await?;
    if interval.is_none() {
        let sort = sort.unwrap_or_default();
        report.items.sort_by_key(|item| std::cmp::Reverse(sort.rank(&item.totals)));
        report.items.truncate(limit.unwrap_or(50) as usize);
    }
    Ok(JsonBody(report.into()))
}

/// Whose usage a caller sees: the calling key's, or otherwise all of mine.
pub(super) fn own(principal: &Principal) -> (Option<UserId>, Option<ApiKeyId>) {
    match &principal.credential {
        Credential::Login(_) | Credential::Pass(_) => (Some(principal.user_id()), None),
        Credential::ApiKey(key) => (None, Some(key.id)),
    }
}

pub(super) fn span(
    from: Option<DateTime<Utc>>,
    to: Option<DateTime<Utc>>,
    interval: Option<Grain>,
    now: DateTime<Utc>,
) -> ApiResult<(DateTime<Utc>, DateTime<Utc>)> {
    let wrong = |field: &str, message: &str| {
        ApiError::invalid_fields(vec![FieldProblem {
            field: field.to_owned(),
            code: "range".to_owned(),
            message: message.to_owned(),
        }])
    };
    let years = |at: &DateTime<Utc>| (1970..=9999).contains(&chrono::Datelike::year(at));
    let to = to.unwrap_or(now);
    if !years(&to) {
        return Err(wrong("to", "must lie between the years 1970 and 9999"));
    }
    let from = from.unwrap_or(to - TimeDelta::days(30));
    if !years(&from) || from > to {
        return Err(wrong("from", "must lie before `to` and not before 1970"));
    }
    let width = match interval {
        Some(Grain::Hour) => TimeDelta::hours(1),
        Some(Grain::Day | Grain::Month) | None => TimeDelta::days(1),
    };
    if interval.is_some() && (to - from).num_seconds() / width.num_seconds() > MAX_BUCKETS {
        return Err(wrong("from", "the span has too many buckets of this interval"));
    }
    Ok((from, to))
}
