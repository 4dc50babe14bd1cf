//! `/admin/upstreams` and `/admin/reload`: what stands behind the gateway.

use axum::{Json as JsonBody, extract::State};
use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::routes;

use crate::{
    api::{
        ApiRouter, AppState,
        actor::By,
        error::{ApiError, ApiResult, ErrorCode, Problem},
        extract::{Admin, Moderator},
        idempotency::to_the_end,
    },
    config::Mount,
    services::{
        reload::Reloaded,
        upstreams::{BreakerState, TargetStatus, UpstreamState},
    },
};

pub(super) fn router() -> ApiRouter {
    ApiRouter::new().routes(routes!(list_upstreams)).routes(routes!(reload_settings))
}

#[derive(Debug, Serialize, ToSchema)]
pub struct ListUpstreamsResponse {
    items: Vec<UpstreamResponse>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct UpstreamResponse {
    #[schema(example = "comfy")]
    name: &'static str,
    /// A path prefix, a host name, or `/`.
    #[schema(example = "/comfy")]
    mount: String,
    /// Connections that were tried a second time since the start.
    retries: u64,
    /// None: the built-in echo answers.
    targets: Vec<TargetResponse>,
}

/// One server, as this instance sees it.
#[derive(Debug, Serialize, ToSchema)]
pub struct TargetResponse {
    #[schema(example = "http://10.0.0.7:8188")]
    url: String,
    #[schema(minimum = 1, maximum = 1000)]
    weight: u32,
    /// What the active checks say; true without any.
    healthy: bool,
    #[schema(inline)]
    breaker: BreakerResponse,
    /// Exchanges under way.
    in_flight: usize,
    /// Open connections, idle ones among them.
    connections: usize,
    /// Requests that wait for one.
    pending: usize,
    /// How an exchange last failed: `unreachable`, `address_refused`, `tls`,
    /// `connect_timeout`, `timeout`, `broken`, `bad_answer` or `status`.
    #[schema(example = "connect_timeout")]
    last_error: Option<&'static str>,
    last_error_at: Option<DateTime<Utc>>,
}

#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum BreakerResponse {
    Closed,
    Open,
    HalfOpen,
}

/// What a reload came to. Names only.
#[derive(Debug, Serialize, ToSchema)]
pub struct ReloadResponse {
    /// Settings and upstreams that are in force now and were not before.
    #[schema(example = json!(["RATE_LIMIT_PER_MINUTE", "upstreams.comfy"]))]
    changed: Vec<String>,
    /// Settings that are not as they were at the start, and need a restart.
    #[schema(example = json!(["SERVER_PORT"]))]
    restart_needed: Vec<String>,
}

impl From<&UpstreamState> for UpstreamResponse {
    fn from(state: &UpstreamState) -> Self {
        let mount = match &state.config.mount {
            Mount::Root => "/".to_owned(),
            Mount::Prefix(prefix) => prefix.clone(),
            Mount::Host(host) => host.clone(),
        };
        let targets = state.targets.iter().map(|target| target.status().into()).collect();
        Self { name: state.config.name, mount, retries: state.retried(), targets }
    }
}

impl From<TargetStatus> for TargetResponse {
    fn from(status: TargetStatus) -> Self {
        let TargetStatus {
            url,
            weight,
            healthy,
            breaker,
            in_flight,
            connections,
            pending,
            last_failure,
        } = status;
        let breaker = match breaker {
            BreakerState::Closed => BreakerResponse::Closed,
            BreakerState::Open => BreakerResponse::Open,
            BreakerState::HalfOpen => BreakerResponse::HalfOpen,
        };
        Self {
            url,
            weight,
            healthy,
            breaker,
            in_flight,
            connections,
            pending,
            last_error: last_failure.map(|(kind, _)| kind.as_str()),
            last_error_at: last_failure.map(|(_, at)| at),
        }
    }
}

/// List the upstreams and how their targets fare, as the instance that answers
/// sees them. Needs the role admin or moderator.
#[utoipa::path(
    get,
    path = "/admin/upstreams",
    tag = "admin",
    security(("jwt" = [])),
    responses((status = OK, body = ListUpstreamsResponse)),
)]
async fn list_upstreams(
    State(state): State<AppState>,
    _: Moderator,
) -> JsonBody<ListUpstreamsResponse> {
    let directory = state.services.upstreams.current();
    let items = directory.upstreams.iter().map(|upstream| (&**upstream).into()).collect();
    JsonBody(ListUpstreamsResponse { items })
}

/// Read the settings again and put in force what of them can change while the
/// process runs: upstreams, signing keys, limits. As SIGHUP does, on the
/// instance that answers. What is under way is not cut. Needs the role admin.
#[utoipa::path(
    post,
    path = "/admin/reload",
    tag = "admin",
    security(("jwt" = [])),
    responses(
        (status = OK, body = ReloadResponse),
        (
            status = UNPROCESSABLE_ENTITY,
            body = Problem,
            description = "`invalid_configuration`: nothing has changed; `errors` has the names",
        ),
    ),
)]
async fn reload_settings(
    State(state): State<AppState>,
    _: Admin,
    By(by): By,
) -> ApiResult<JsonBody<ReloadResponse>> {
    let services = state.services.clone();
    let reload = async move {
        let reading = services.clone();
        // It reads files.
        let done = tokio::task::spawn_blocking(move || reading.reload.reload()).await;
        let done = done.map_err(|error| ApiError::hidden(ErrorCode::Internal, &error))??;
        services.reload.note(&by, &done).await?;
        Ok::<_, ApiError>(done)
    };
    let Reloaded { changed, restart_needed } = to_the_end(reload).await?;
    Ok(JsonBody(ReloadResponse { changed, restart_needed }))
}
