//! `/session`: a visitor's session begins, goes on and ends.

use axum::{
    Extension, Json as JsonBody,
    extract::State,
    http::{HeaderMap, StatusCode, header},
};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::routes;
use validator::Validate;

use super::visitor::{Guest, Visitor};
use crate::{
    api::{
        ApiRouter, AppState,
        error::{ApiError, ApiResult, FieldProblem, Problem},
        extract::Json,
        idempotency::to_the_end,
        middleware::Identity,
        validate,
    },
    domain::{id::ChatSessionId, principal::Principal},
    services::chat::{ChatError, visitors::domain_of},
};

pub(super) fn router() -> ApiRouter {
    ApiRouter::new()
        .routes(routes!(create_chat_session))
        .routes(routes!(validate_chat_session))
        .routes(routes!(end_chat_session))
}

#[derive(Debug, Deserialize, ToSchema, Validate)]
#[serde(deny_unknown_fields)]
pub struct ChatSessionRequest {
    /// The host of the page's origin.
    #[schema(example = "shop.example.com", max_length = 253)]
    #[validate(length(min = 1, max = 253, message = "must have 1 to 253 characters"))]
    origin_domain: String,
    /// Where the visitor is; told to the workflow.
    #[schema(example = "https://shop.example.com/shoes", max_length = 2048)]
    #[validate(custom(function = validate::page_url))]
    page_url: Option<String>,
}

#[derive(Serialize, ToSchema)]
pub struct ChatSessionResponse {
    #[schema(value_type = uuid::Uuid)]
    session_id: ChatSessionId,
    expires_at: DateTime<Utc>,
}

#[derive(Serialize, ToSchema)]
pub struct ChatSessionState {
    valid: bool,
    /// Null, as what follows, unless it is valid.
    #[schema(value_type = Option<uuid::Uuid>)]
    session_id: Option<ChatSessionId>,
    #[schema(example = "shop.example.com")]
    origin_domain: Option<String>,
    expires_at: Option<DateTime<Utc>>,
}

/// Begin a chat session.
///
/// Sets the cookie that the other operations ask for; it is bound to the page's
/// origin and to the browser. The `Origin` must be one of `ALLOWED_ORIGINS`. With
/// a login's token in `Authorization`, the session knows its user.
#[utoipa::path(
    post,
    path = "/session/create",
    tag = "chat",
    security(()),
    request_body = ChatSessionRequest,
    responses(
        (status = CREATED, body = ChatSessionResponse,
            headers(("Set-Cookie" = String, description = "The session's cookie, `HttpOnly`"))),
        (status = FORBIDDEN, body = Problem, description = "`origin_not_allowed`"),
        (status = NOT_FOUND, body = Problem, description = "There are no chats here"),
    ),
)]
async fn create_chat_session(
    State(state): State<AppState>,
    guest: Guest,
    identity: Option<Extension<Identity>>,
    Json(request): Json<ChatSessionRequest>,
) -> ApiResult<(StatusCode, HeaderMap, JsonBody<ChatSessionResponse>)> {
    let ChatSessionRequest { origin_domain, page_url } = request;
    guest.needs_origin()?;
    let visitors = state.services.chat.visitors()?;
    let origin = visitors.origin(guest.seen())?;
    if !domain_of(origin).eq_ignore_ascii_case(&origin_domain) {
        return Err(ApiError::invalid_fields(vec![FieldProblem {
            field: "origin_domain".to_owned(),
            code: "origin".to_owned(),
            message: "must be the host of the page that asks".to_owned(),
        }]));
    }
    if let Some(address) = guest.uncharged() {
        state.services.limits.admit_address(address).await?;
    }
    let user = identity.and_then(|Extension(Identity(principal))| principal);
    let user = user.as_ref().map(Principal::user_id);
    let (visit, issued) = visitors.create(guest.seen(), page_url, user).await?;
    let cookie = guest.set(&issued, &state.visitors);
    let headers = HeaderMap::from_iter([(header::SET_COOKIE, cookie)]);
    let body = ChatSessionResponse { session_id: visit.id, expires_at: visit.expires_at };
    Ok((StatusCode::CREATED, headers, JsonBody(body)))
}

/// Ask whether the session goes on.
///
/// Past half its life it is renewed, with another cookie. One of a page of another
/// origin is not valid here, and is left alone.
#[utoipa::path(
    get,
    path = "/session/validate",
    tag = "chat",
    security(()),
    responses(
        (status = OK, body = ChatSessionState),
        (status = FORBIDDEN, body = Problem, description = "`origin_not_allowed`"),
        (status = NOT_FOUND, body = Problem, description = "There are no chats here"),
    ),
)]
async fn validate_chat_session(
    State(state): State<AppState>,
    guest: Guest,
) -> ApiResult<(HeaderMap, JsonBody<ChatSessionState>)> {
    let mut headers = HeaderMap::new();
    let visitors = state.services.chat.visitors()?;
    let (visit, issued) = match visitors.validate(guest.seen()).await {
        Ok(validated) => validated,
        Err(ChatError::NoSession | ChatError::InvalidSession | ChatError::OtherOrigin) => {
            for jar in visitors.stale_jars(guest.seen()).await {
                headers.append(header::SET_COOKIE, guest.clear(jar, &state.visitors));
            }
            let none = ChatSessionState {
                valid: false,
                session_id: None,
                origin_domain: None,
                expires_at: None,
            };
            return Ok((headers, JsonBody(none)));
        }
        Err(error) => return Err(error.into()),
    };
    if let Some(issued) = issued {
        headers.insert(header::SET_COOKIE, guest.set(&issued, &state.visitors));
    }
    let body = ChatSessionState {
        valid: true,
        session_id: Some(visit.id),
        origin_domain: Some(visit.origin_domain.clone()),
        expires_at: Some(visit.expires_at),
    };
    Ok((headers, JsonBody(body)))
}

/// End the session. What was said is kept for a while.
#[utoipa::path(
    delete,
    path = "/session",
    tag = "chat",
    security(("chat_session" = [])),
    responses(
        (status = NO_CONTENT),
        (status = NOT_FOUND, body = Problem, description = "There are no chats here"),
    ),
)]
async fn end_chat_session(
    State(state): State<AppState>,
    Visitor { visit, guest, jar }: Visitor,
) -> ApiResult<(StatusCode, HeaderMap)> {
    let chat = state.services.chat.clone();
    to_the_end(async move { chat.visitors()?.end(visit.id).await.map_err(ChatError::from) })
        .await?;
    let cookie = guest.clear(jar, &state.visitors);
    Ok((StatusCode::NO_CONTENT, HeaderMap::from_iter([(header::SET_COOKIE, cookie)])))
}
