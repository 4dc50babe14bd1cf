//! `/admin/audit`: who did what.

use axum::{Json as JsonBody, extract::State};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::routes;
use validator::Validate;

use crate::{
    api::{
        ApiRouter, AppState,
        error::ApiResult,
        extract::{Moderator, Query},
        page::{PageQuery, PageResponse},
        validate,
    },
    domain::audit::AuditRow,
    services::audit::AuditFilter,
};

pub(super) fn router() -> ApiRouter {
    ApiRouter::new().routes(routes!(list_audit))
}

#[derive(Debug, Deserialize, IntoParams, Validate)]
#[into_params(parameter_in = Query)]
pub struct ListAuditQuery {
    /// The id of an account, or its name as it was then; for a command the name
    /// of the operating system's user.
    #[param(example = "ada", max_length = 128)]
    #[validate(
        length(max = 128, message = "must have at most 128 characters"),
        custom(function = validate::no_nul)
    )]
    actor: Option<String>,
    /// `key.created`, or `key` for all that begin so.
    #[param(example = "key.created", max_length = 64)]
    #[validate(
        length(max = 64, message = "must have at most 64 characters"),
        custom(function = validate::no_nul)
    )]
    action: Option<String>,
    /// The id of what something was done to.
    #[param(example = "01890a5d-ac96-774b-bcce-b302099a8057", max_length = 128)]
    #[validate(
        length(max = 128, message = "must have at most 128 characters"),
        custom(function = validate::no_nul)
    )]
    target: Option<String>,
    /// From this instant on.
    #[param(example = "2026-01-31T12:00:00Z")]
    #[validate(custom(function = validate::instant))]
    from: Option<DateTime<Utc>>,
    /// Before this instant.
    #[param(example = "2026-02-28T12:00:00Z")]
    #[validate(custom(function = validate::instant))]
    to: Option<DateTime<Utc>>,
}

impl From<ListAuditQuery> for AuditFilter {
    fn from(query: ListAuditQuery) -> Self {
        let ListAuditQuery { actor, action, target, from, to } = query;
        Self { actor, action, target, from, to }
    }
}

/// One thing that was done.
#[derive(Debug, Serialize, ToSchema)]
pub struct AuditResponse {
    /// From 1, without gaps.
    #[schema(example = 4711, minimum = 1)]
    seq: i64,
    at: DateTime<Utc>,
    /// `user`, `command` (the command line) or `system` (the program by itself).
    #[schema(example = "user")]
    actor_kind: String,
    /// The account, of a user.
    #[schema(required = true)]
    actor_id: Option<uuid::Uuid>,
    /// As it was then.
    #[schema(example = "ada")]
    actor_name: String,
    #[schema(required = true, example = "192.0.2.7")]
    address: Option<String>,
    /// Cut to 256 characters.
    #[schema(required = true, example = "curl/8.5.0")]
    user_agent: Option<String>,
    #[schema(required = true, example = "01890a5d-ac96-774b-bcce-b302099a8057")]
    request_id: Option<String>,
    #[schema(example = "key.created")]
    action: String,
    /// What it was done to.
    #[schema(example = "key")]
    target_kind: String,
    #[schema(required = true, example = "01890a5d-ac96-774b-bcce-b302099a8057")]
    target_id: Option<String>,
    /// What was before, where something was; of a change only what changed. Never
    /// a secret.
    #[schema(value_type = Option<Object>, required = true, example = json!(null))]
    before: Option<serde_json::Value>,
    /// What was afterwards.
    #[schema(value_type = Option<Object>, required = true, example = json!({ "name": "ci" }))]
    after: Option<serde_json::Value>,
    /// Of this row and all before it: `tollgate audit verify --anchor <seq>:<hash>`.
    #[schema(example = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08")]
    hash: String,
}

impl From<AuditRow> for AuditResponse {
    fn from(row: AuditRow) -> Self {
        let AuditRow { seq, at, actor_kind, actor_id, actor_name, address, .. } = row;
        let AuditRow { user_agent, request_id, action, target_kind, target_id, .. } = row;
        // Whoever meddled with it may have left what is no JSON.
        let state = |text: Option<String>| {
            text.map(|text| serde_json::from_str(&text).unwrap_or_else(|_| text.into()))
        };
        Self {
            seq,
            at,
            actor_kind,
            actor_id,
            actor_name,
            address,
            user_agent,
            request_id,
            action,
            target_kind,
            target_id,
            before: state(row.before),
            after: state(row.after),
            hash: hex::encode(row.hash),
        }
    }
}

/// Search what was done, newest first. Needs the role admin or moderator.
#[utoipa::path(
    get,
    path = "/admin/audit",
    tag = "admin",
    security(("jwt" = [])),
    params(ListAuditQuery, PageQuery),
    responses((status = OK, body = PageResponse<AuditResponse>)),
)]
async fn list_audit(
    State(state): State<AppState>,
    _: Moderator,
    Query(query): Query<ListAuditQuery>,
    Query(page): Query<PageQuery>,
) -> ApiResult<JsonBody<PageResponse<AuditResponse>>> {
    let page = state.services.audit.list(&query.into(), page.request()?).await?;
    Ok(JsonBody(PageResponse::of(page, AuditResponse::from)))
}
