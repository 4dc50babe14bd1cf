//! `/admin/chat`: the conversations of all visitors.

use axum::{Json as JsonBody, extract::State, http::StatusCode};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::routes;
use validator::Validate;

use crate::{
    api::{
        ApiRouter, AppState,
        actor::By,
        error::{ApiResult, ErrorCode, Problem},
        extract::{Admin, Moderator, Path, Query},
        idempotency::to_the_end,
        page::{PageQuery, PageResponse},
        validate,
    },
    domain::{
        chat::ChatSession,
        id::{ChatSessionId, UserId},
    },
    services::chat::{ChatError, ChatFilter},
};

pub(super) fn router() -> ApiRouter {
    ApiRouter::new()
        .routes(routes!(list_chat_sessions))
        .routes(routes!(get_chat_session, end_anyones_chat_session))
}

#[derive(Debug, Deserialize, IntoParams, Validate)]
#[into_params(parameter_in = Query)]
pub struct ListChatSessionsQuery {
    /// The host of the page, exactly.
    #[param(example = "shop.example.com")]
    #[validate(
        length(max = 253, message = "must have at most 253 characters"),
        custom(function = validate::no_nul)
    )]
    origin_domain: Option<String>,
    #[param(value_type = Option<uuid::Uuid>)]
    user_id: Option<UserId>,
    /// Only those that go on, or only those that are over.
    is_active: Option<bool>,
}

/// A visitor's session, as operators see it.
#[derive(Serialize, ToSchema)]
pub struct AdminChatSession {
    #[schema(value_type = uuid::Uuid)]
    session_id: ChatSessionId,
    #[schema(example = "https://shop.example.com")]
    origin: String,
    #[schema(example = "shop.example.com")]
    origin_domain: String,
    page_url: Option<String>,
    /// Who was logged in where it began.
    #[schema(value_type = Option<uuid::Uuid>)]
    user_id: Option<UserId>,
    /// Of both sides.
    #[schema(example = 4)]
    messages: i64,
    is_active: bool,
    created_at: DateTime<Utc>,
    expires_at: DateTime<Utc>,
    ended_at: Option<DateTime<Utc>>,
}

impl AdminChatSession {
    fn of(session: ChatSession, now: DateTime<Utc>) -> Self {
        Self {
            is_active: session.is_live(now),
            session_id: session.id,
            origin: session.origin,
            origin_domain: session.origin_domain,
            page_url: session.page_url,
            user_id: session.user_id,
            messages: session.messages,
            created_at: session.created_at,
            expires_at: session.expires_at,
            ended_at: session.ended_at,
        }
    }
}

/// List chat sessions, newest first. Needs the role admin or moderator.
///
/// What was said in one is at `GET /chat/history/{id}`.
#[utoipa::path(
    get,
    path = "/admin/chat/sessions",
    tag = "admin",
    security(("jwt" = [])),
    params(ListChatSessionsQuery, PageQuery),
    responses((status = OK, body = PageResponse<AdminChatSession>)),
)]
async fn list_chat_sessions(
    State(state): State<AppState>,
    _: Moderator,
    Query(query): Query<ListChatSessionsQuery>,
    Query(page): Query<PageQuery>,
) -> ApiResult<JsonBody<PageResponse<AdminChatSession>>> {
    let ListChatSessionsQuery { origin_domain, user_id, is_active } = query;
    let now = state.services.clock.now();
    let live = is_active.map(|live| (live, now));
    let filter = ChatFilter { origin_domain, user_id, live };
    let page = state.services.chat.sessions(&filter, page.request()?).await?;
    Ok(JsonBody(PageResponse::of(page, |session| AdminChatSession::of(session, now))))
}

/// Read one chat session. Needs the role admin or moderator.
#[utoipa::path(
    get,
    path = "/admin/chat/sessions/{id}",
    tag = "admin",
    security(("jwt" = [])),
    params(("id" = uuid::Uuid, Path)),
    responses((status = OK, body = AdminChatSession), (status = NOT_FOUND, body = Problem)),
)]
async fn get_chat_session(
    State(state): State<AppState>,
    _: Moderator,
    Path(id): Path<ChatSessionId>,
) -> ApiResult<JsonBody<AdminChatSession>> {
    let session = state.services.chat.session(id).await?;
    Ok(JsonBody(AdminChatSession::of(session, state.services.clock.now())))
}

/// End a chat session. Needs the role admin.
#[utoipa::path(
    delete,
    path = "/admin/chat/sessions/{id}",
    tag = "admin",
    security(("jwt" = [])),
    params(("id" = uuid::Uuid, Path)),
    responses((status = NO_CONTENT), (status = NOT_FOUND, body = Problem)),
)]
async fn end_anyones_chat_session(
    State(state): State<AppState>,
    _: Admin,
    By(by): By,
    Path(id): Path<ChatSessionId>,
) -> ApiResult<StatusCode> {
    let chat = state.services.chat.clone();
    let ended = to_the_end(async move {
        // Its visitor's cookie counts no more, whether or not there are chats now.
        chat.end_session(&by, id).await.map_err(ChatError::from)
    });
    if ended.await? { Ok(StatusCode::NO_CONTENT) } else { Err(ErrorCode::NotFound.into()) }
}
