//! `/chat/message`, `/chat/stream`: a visitor says something, and reads the
//! answer as it comes.

use axum::{
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::routes;
use validator::Validate;

use super::{
    stream::{self, Usage},
    visitor::Visitor,
};
use crate::{
    api::{
        ApiRouter, AppState,
        error::{ApiError, ApiResult, FieldProblem, Problem},
        extract::{Json, Path},
        validate,
    },
    domain::id::ChatMessageId,
    gateway::rate_headers,
    services::chat::{Follower, Say, Step},
};

pub(super) fn router() -> ApiRouter {
    ApiRouter::new()
        .routes(routes!(send_chat_message))
        .routes(routes!(stream_chat_message))
        .routes(routes!(resume_chat_message))
}

#[derive(Debug, Deserialize, ToSchema, Validate)]
#[serde(deny_unknown_fields)]
pub struct ChatMessageRequest {
    /// Text; line feeds and tabs are its only control characters.
    #[schema(example = "Do you have these in red?", min_length = 1)]
    message: String,
    /// Where the visitor is now; told to the workflow.
    #[schema(example = "https://shop.example.com/shoes", max_length = 2048)]
    #[validate(custom(function = validate::page_url))]
    page_url: Option<String>,
    /// What the page calls the message: sent again with the same, it is not
    /// said again, and the answer is the first one's.
    #[schema(example = "m-17", min_length = 1, max_length = 128)]
    #[validate(custom(function = validate::client_message_id))]
    client_message_id: Option<String>,
}

/// An answer in one piece.
#[derive(Serialize, ToSchema)]
pub struct ChatAnswer {
    #[schema(value_type = uuid::Uuid)]
    message_id: ChatMessageId,
    #[schema(example = "Yes, in all sizes.")]
    content: String,
    usage: Usage,
}

/// Say something, and read the answer.
///
/// As events: `start` with `message_id`, `item` with `content` as it comes, then
/// `end` with `message_id` and `usage`, or `error` with a problem. Every event
/// has an `id`; where the connection breaks, go on at `GET /chat/stream/{id}`. The answer goes on whoever leaves. With `Accept:
/// application/json` there is one answer when it is whole.
#[utoipa::path(
    post,
    path = "/chat/message",
    tag = "chat",
    security(("chat_session" = [])),
    request_body = ChatMessageRequest,
    responses(
        (status = OK, content(
            (ChatAnswer = "application/json"),
            (String = "text/event-stream", example = "id: 0\nevent: start\ndata: {\"message_id\":\"0198c0ff-ee00-7008-8000-0000000000aa\"}\n\nid: 3\nevent: item\ndata: {\"content\":\"Yes\"}\n\nid: 4\nevent: end\ndata: {\"message_id\":\"0198c0ff-ee00-7008-8000-0000000000aa\",\"usage\":{\"output_bytes\":3,\"duration_ms\":120}}\n\n"),
        )),
        (status = NOT_FOUND, body = Problem, description = "There are no chats here"),
        (status = CONFLICT, body = Problem,
            description = "Another message was sent with this `client_message_id`, or \
                `conversation_full`"),
        (status = BAD_GATEWAY, body = Problem, description = "`upstream_failed`, as JSON only"),
        (status = GATEWAY_TIMEOUT, body = Problem, description = "`upstream_timeout`, as JSON only"),
    ),
)]
async fn send_chat_message(
    state: State<AppState>,
    visitor: Visitor,
    request: Json<ChatMessageRequest>,
) -> ApiResult<Response> {
    say(state, visitor, request, "/chat/message").await
}

/// The same as `POST /chat/message`.
#[utoipa::path(
    post,
    path = "/chat/stream",
    tag = "chat",
    security(("chat_session" = [])),
    request_body = ChatMessageRequest,
    responses(
        (status = OK, content(
            (ChatAnswer = "application/json"),
            (String = "text/event-stream"),
        )),
        (status = NOT_FOUND, body = Problem, description = "There are no chats here"),
        (status = CONFLICT, body = Problem,
            description = "Another message was sent with this `client_message_id`, or \
                `conversation_full`"),
        (status = BAD_GATEWAY, body = Problem, description = "`upstream_failed`, as JSON only"),
        (status = GATEWAY_TIMEOUT, body = Problem, description = "`upstream_timeout`, as JSON only"),
    ),
)]
async fn stream_chat_message(
    state: State<AppState>,
    visitor: Visitor,
    request: Json<ChatMessageRequest>,
) -> ApiResult<Response> {
    say(state, visitor, request, "/chat/stream").await
}

/// Read an answer from where it broke off.
///
/// `Last-Event-ID` is the `id` of the last event that was seen; from the
/// beginning without one. It may still come, or be complete; on any instance.
/// 204 where all of it was seen.
#[utoipa::path(
    get,
    path = "/chat/stream/{id}",
    tag = "chat",
    security(("chat_session" = [])),
    params(
        ("id" = uuid::Uuid, Path, description = "The `message_id` of the event `start`"),
        ("Last-Event-ID" = Option<u64>, Header, example = 3),
    ),
    responses(
        (status = OK, content_type = "text/event-stream", body = String),
        (status = NO_CONTENT, description = "The end was seen"),
        (status = NOT_FOUND, body = Problem),
    ),
)]
async fn resume_chat_message(
    State(state): State<AppState>,
    visitor: Visitor,
    Path(id): Path<ChatMessageId>,
) -> ApiResult<Response> {
    let last = visitor.guest.headers.get("last-event-id").filter(|value| !value.is_empty());
    let last = last.map(|value| {
        let text = value.to_str().ok().filter(|text| text.bytes().all(|b| b.is_ascii_digit()));
        text.and_then(|text| text.parse::<u32>().ok()).ok_or_else(|| {
            ApiError::invalid_fields(vec![FieldProblem {
                field: "Last-Event-ID".to_owned(),
                code: "number".to_owned(),
                message: "must be the id of an event of this answer".to_owned(),
            }])
        })
    });
    let last = last.transpose()?;
    let at = last.map_or(0, |last| usize::try_from(last).unwrap_or(usize::MAX));
    let answer = state.services.chat.follow(&visitor.visit, id, at).await?;
    let Some(follower) = answer else { return Ok(StatusCode::NO_CONTENT.into_response()) };
    let place = stream::enter(&state, &visitor, &format!("/chat/stream/{id}"))?;
    Ok(stream::events(&state, visitor, follower, last.is_none(), place))
}

async fn say(
    State(state): State<AppState>,
    visitor: Visitor,
    Json(request): Json<ChatMessageRequest>,
    path: &str,
) -> ApiResult<Response> {
    let ChatMessageRequest { message, page_url, client_message_id } = request;
    let say = Say {
        text: message,
        page_url,
        client_id: client_message_id,
        address: visitor.guest.uncharged(),
        request_id: visitor.guest.client.request_id.to_string(),
    };
    let whole = wants_json(&visitor.guest.headers);
    // Before anything is said: who cannot read the answer is told so.
    let place = if whole { None } else { Some(stream::enter(&state, &visitor, path)?) };
    let (follower, limit) = state.services.chat.say(&visitor.visit, say).await?;
    let mut response = match place {
        None => in_one_piece(follower).await?,
        Some(place) => stream::events(&state, visitor, follower, true, place),
    };
    if let Some(limit) = limit {
        rate_headers::set(response.headers_mut(), &limit, state.services.clock.now());
    }
    Ok(response)
}

/// Whether it asks for JSON and not for events.
fn wants_json(headers: &HeaderMap) -> bool {
    let accepts = |media: &str| {
        let values = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|value| value.split(',')).any(|one| {
            let essence = one.split(';').next().unwrap_or_default().trim();
            essence.eq_ignore_ascii_case(media)
        })
    };
    accepts("application/json") && !accepts("text/event-stream")
}

async fn in_one_piece(mut follower: Follower) -> ApiResult<Response> {
    let (message_id, mut content) = (follower.id, String::new());
    while let Some(step) = follower.next().await {
        match step {
            Step::Text { text, .. } => content.push_str(&text),
            Step::Failed { failure, .. } => return Err(failure.into()),
            Step::Gone => return Err(crate::services::chat::ChatError::NotFound.into()),
            Step::Complete(ended) => {
                let answer = ChatAnswer { message_id, content, usage: Usage::of(&ended) };
                return Ok(axum::Json(answer).into_response());
            }
        }
    }
    Err(crate::services::chat::ChatError::NotFound.into())
}
