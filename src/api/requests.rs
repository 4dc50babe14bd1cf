//! `/usage/requests`: the most recent requests.

use axum::{Json as JsonBody, extract::State};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::routes;
use validator::Validate;

use super::{
    ApiRouter,
    error::{ApiError, ApiResult, ErrorCode},
    extract::{Caller, Query},
    page::{PageQuery, PageResponse},
    usage::own,
};
use crate::{
    api::AppState,
    domain::{
        id::{ApiKeyId, PassId, RecordId, UserId},
        principal::Credential,
        usage::{Outcome, UsageRecord},
        user::Role,
    },
    services::usage::RequestFilter,
};

pub(super) fn router() -> ApiRouter {
    ApiRouter::new().routes(routes!(list_requests))
}

#[derive(Debug, Deserialize, IntoParams, Validate)]
#[into_params(parameter_in = Query)]
pub struct ListRequestsQuery {
    /// Everybody's requests; needs the role admin or moderator.
    #[serde(default)]
    all: Option<bool>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct RequestResponse {
    #[schema(value_type = uuid::Uuid)]
    pub(super) id: RecordId,
    pub(super) request_id: String,
    pub(super) at: DateTime<Utc>,
    #[schema(example = "GET")]
    pub(super) method: String,
    /// Without the query.
    #[schema(example = "/api/v1/proxy/hello")]
    pub(super) path: String,
    #[schema(example = 200)]
    pub(super) status: u16,
    #[schema(inline)]
    pub(super) outcome: OutcomeName,
    pub(super) duration_ms: f64,
    pub(super) bytes_in: u64,
    pub(super) bytes_out: u64,
    #[schema(value_type = Option<uuid::Uuid>, required = true)]
    pub(super) user_id: Option<UserId>,
    #[schema(value_type = Option<uuid::Uuid>, required = true)]
    pub(super) key_id: Option<ApiKeyId>,
    #[schema(value_type = Option<uuid::Uuid>, required = true)]
    pub(super) token_id: Option<PassId>,
    #[schema(example = "echo")]
    pub(super) upstream: String,
    /// One of the patterns that the upstream lists, or `/**`.
    #[schema(example = "/v1/chat/*")]
    pub(super) route: String,
    /// Of a WebSocket, both ways, or events of a stream.
    pub(super) messages: u64,
}

/// How a request ended.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum OutcomeName {
    Completed,
    Aborted,
    Failed,
    Cut,
    Rejected,
}

impl OutcomeName {
    pub(super) fn as_str(&self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Aborted => "aborted",
            Self::Failed => "failed",
            Self::Cut => "cut",
            Self::Rejected => "rejected",
        }
    }
}

impl From<Outcome> for OutcomeName {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Completed => Self::Completed,
            Outcome::Aborted => Self::Aborted,
            Outcome::Failed => Self::Failed,
            Outcome::Cut => Self::Cut,
            Outcome::Rejected => Self::Rejected,
        }
    }
}

impl From<UsageRecord> for RequestResponse {
    #[expect(clippy::cast_precision_loss, reason = "microseconds of a request, for people")]
    fn from(record: UsageRecord) -> Self {
        Self {
            id: record.id,
            request_id: record.request_id,
            at: record.at,
            method: record.method.into_owned(),
            path: record.path,
            status: record.status,
            outcome: record.outcome.into(),
            duration_ms: record.duration_us as f64 / 1000.0,
            bytes_in: record.bytes_in,
            bytes_out: record.bytes_out,
            user_id: record.user_id,
            key_id: record.key_id,
            token_id: record.pass_id,
            upstream: record.upstream.into_owned(),
            route: record.route.into_owned(),
            messages: record.messages,
        }
    }
}

/// The most recent requests, those that ended last first: the calling key's, or with a login
/// all of mine. Kept for a configured time and count.
#[utoipa::path(
    get,
    path = "/usage/requests",
    tag = "usage",
    security(("jwt" = []), ("api_key" = [])),
    params(ListRequestsQuery, PageQuery),
    responses((status = OK, body = PageResponse<RequestResponse>)),
)]
async fn list_requests(
    State(state): State<AppState>,
    Caller(principal): Caller,
    Query(query): Query<ListRequestsQuery>,
    Query(page): Query<PageQuery>,
) -> ApiResult<JsonBody<PageResponse<RequestResponse>>> {
    let filter = if query.all.unwrap_or(false) {
        let login = matches!(principal.credential, Credential::Login(_));
        if !login || !(principal.has(Role::Admin) || principal.has(Role::Moderator)) {
            return Err(ApiError::new(ErrorCode::RoleRequired, "`all` needs another role"));
        }
        RequestFilter { user_id: None, key_id: None }
    } else {
        let (user_id, key_id) = own(&principal);
        RequestFilter { user_id, key_id }
    };
    let page = state.services.usage.requests(&filter, page.request()?).await?;
    Ok(JsonBody(PageResponse::of(page, RequestResponse::from)))
}
