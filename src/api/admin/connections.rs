//! `/admin/connections`: what is open for long, on all instances.

use std::net::IpAddr;

use axum::{Json as JsonBody, extract::State, http::StatusCode};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::routes;
use validator::Validate;

use crate::{
    api::AppState,
    api::{
        ApiRouter,
        actor::By,
        error::{ApiError, ApiResult, ErrorCode, Problem},
        extract::{Admin, Moderator, Path, Query},
        idempotency::to_the_end,
        page::{PageQuery, PageResponse},
    },
    domain::{
        id::{ApiKeyId, PassId, SessionId, StreamId, UserId},
        stream::{Passed, StreamInfo, StreamKind},
    },
    services::streams::{CutError, StreamFilter},
};

pub(super) fn router() -> ApiRouter {
    ApiRouter::new().routes(routes!(list_connections)).routes(routes!(cut_connection))
}

#[derive(Debug, Deserialize, IntoParams, Validate)]
#[into_params(parameter_in = Query)]
pub struct ListConnectionsQuery {
    /// Connections of this user.
    #[param(value_type = Option<uuid::Uuid>)]
    user_id: Option<UserId>,
    /// Connections to this upstream.
    upstream: Option<String>,
    #[param(inline)]
    kind: Option<ConnectionKind>,
}

/// `sse` is an event stream, `download` any other answer that is long or of
/// unknown length, `upload` a request's body that is still coming.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ConnectionKind {
    Sse,
    Websocket,
    Download,
    Upload,
}

impl From<StreamKind> for ConnectionKind {
    fn from(kind: StreamKind) -> Self {
        match kind {
            StreamKind::Sse => Self::Sse,
            StreamKind::Websocket => Self::Websocket,
            StreamKind::Download => Self::Download,
            StreamKind::Upload => Self::Upload,
        }
    }
}

impl From<ConnectionKind> for StreamKind {
    fn from(kind: ConnectionKind) -> Self {
        match kind {
            ConnectionKind::Sse => Self::Sse,
            ConnectionKind::Websocket => Self::Websocket,
            ConnectionKind::Download => Self::Download,
            ConnectionKind::Upload => Self::Upload,
        }
    }
}

impl From<ListConnectionsQuery> for StreamFilter {
    fn from(query: ListConnectionsQuery) -> Self {
        let ListConnectionsQuery { user_id, upstream, kind } = query;
        Self { user_id, upstream, kind: kind.map(StreamKind::from) }
    }
}

/// One stream through the gateway.
#[derive(Debug, Serialize, ToSchema)]
pub struct ConnectionResponse {
    /// Also of the request in `/usage/requests`, once it is over.
    #[schema(value_type = uuid::Uuid)]
    id: StreamId,
    /// Where it is open.
    #[schema(example = "9f86d081884c7d65")]
    instance: String,
    #[schema(inline)]
    kind: ConnectionKind,
    /// Null where no credential was needed.
    #[schema(value_type = Option<uuid::Uuid>, required = true)]
    user_id: Option<UserId>,
    #[schema(required = true, example = "ada")]
    username: Option<String>,
    #[schema(value_type = Option<uuid::Uuid>, required = true)]
    key_id: Option<ApiKeyId>,
    /// Of the access token.
    #[schema(value_type = Option<uuid::Uuid>, required = true)]
    token_id: Option<PassId>,
    /// Of the login.
    #[schema(value_type = Option<uuid::Uuid>, required = true)]
    session_id: Option<SessionId>,
    #[schema(example = "default")]
    upstream: String,
    /// Without the query.
    #[schema(example = "/api/v1/proxy/events")]
    path: String,
    #[schema(value_type = String, example = "203.0.113.7")]
    address: IpAddr,
    opened_at: DateTime<Utc>,
    age_seconds: u64,
    bytes_in: u64,
    bytes_out: u64,
    messages_in: u64,
    /// Messages of a socket, events of an event stream.
    messages_out: u64,
}

impl ConnectionResponse {
    fn new(info: StreamInfo, now: DateTime<Utc>) -> Self {
        let Passed { bytes_in, bytes_out, messages_in, messages_out } = info.passed;
        Self {
            id: info.id,
            instance: info.instance,
            kind: info.kind.into(),
            user_id: info.user_id,
            username: info.username,
            key_id: info.key_id,
            token_id: info.token_id,
            session_id: info.session_id,
            upstream: info.upstream,
            path: info.path,
            address: info.address,
            opened_at: info.opened_at,
            age_seconds: (now - info.opened_at).num_seconds().try_into().unwrap_or(0),
            bytes_in,
            bytes_out,
            messages_in,
            messages_out,
        }
    }
}

/// List the open streams of all instances, newest first: event streams, sockets,
/// long downloads. Needs the role admin or moderator.
///
/// What other instances have is up to two seconds old, the 1000 newest of each;
/// without Redis, or while it is away, this instance's are listed alone.
#[utoipa::path(
    get,
    path = "/admin/connections",
    tag = "admin",
    security(("jwt" = [])),
    params(ListConnectionsQuery, PageQuery),
    responses((status = OK, body = PageResponse<ConnectionResponse>)),
)]
async fn list_connections(
    State(state): State<AppState>,
    _: Moderator,
    Query(query): Query<ListConnectionsQuery>,
    Query(page): Query<PageQuery>,
) -> ApiResult<JsonBody<PageResponse<ConnectionResponse>>> {
    let page = state.services.streams.list(&query.into(), page.request()?).await;
    let now = state.services.clock.now();
    Ok(JsonBody(PageResponse::of(page, |info| ConnectionResponse::new(info, now))))
}

/// Cut one open stream, whichever instance it is on. An event stream gets a last
/// event `tollgate.end` with the code `cut`. Needs the role admin.
#[utoipa::path(
    delete,
    path = "/admin/connections/{id}",
    tag = "admin",
    security(("jwt" = [])),
    params(("id" = uuid::Uuid, Path)),
    responses(
        (status = NO_CONTENT),
        (status = NOT_FOUND, body = Problem),
        (status = SERVICE_UNAVAILABLE, body = Problem,
            description = "it is not on this instance, and the others cannot be asked"),
    ),
)]
async fn cut_connection(
    State(state): State<AppState>,
    _: Admin,
    By(by): By,
    Path(id): Path<StreamId>,
) -> ApiResult<StatusCode> {
    // Who leaves at once must not keep it from being noted.
    let streams = state.services.streams;
    if to_the_end(async move { streams.cut(&by, id).await }).await? {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(ApiError::new(ErrorCode::NotFound, "no open stream has this id"))
    }
}

impl From<CutError> for ApiError {
    fn from(error: CutError) -> Self {
        let detail = error.to_string();
        match error {
            CutError::InstancesAway => Self::new(ErrorCode::Unavailable, detail).retry_after(1),
            CutError::Store(store) => store.into(),
        }
    }
}
