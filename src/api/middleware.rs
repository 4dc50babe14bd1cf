//! What happens around every route of ours.

use axum::{
    Extension,
    extract::{MatchedPath, Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    middleware::Next,
    response::{IntoResponse as _, Response},
};

use super::error::{ApiError, ErrorCode};
use crate::{
    api::AppState,
    domain::principal::Principal,
    gateway::{credentials, rate_headers},
    server::{Caller, ClientInfo},
    services::health::Phase,
};

/// Who the request acts for, if anybody.
#[derive(Clone)]
pub struct Identity(pub Option<Principal>);

/// The router's bare answer to a wrong method, as a problem. Traces are told of
/// which route a request was.
pub async fn around(request: Request, next: Next) -> Response {
    let client = request.extensions().get::<ClientInfo>();
    let traced = client.and_then(|client| client.trace.as_ref()).filter(|it| it.is_sampled());
    let matched = traced.and_then(|_| request.extensions().get::<MatchedPath>().cloned());
    let mut response = next.run(request).await;
    if let Some(matched) = matched {
        response.extensions_mut().insert(matched);
    }
    if response.status() == StatusCode::METHOD_NOT_ALLOWED {
        let error = ApiError::new(ErrorCode::MethodNotAllowed, "this path has other methods");
        response.extensions_mut().insert(error);
    }
    response
}

/// Before the schema is there nothing can be answered but health.
pub async fn ready(State(state): State<AppState>, request: Request, next: Next) -> Response {
    if state.services.health.phase() == Phase::Starting {
        let error = ApiError::new(ErrorCode::Unavailable, "starting: the database is not ready");
        return error.retry_after(1).into_response();
    }
    next.run(request).await
}

/// Finds out who is calling. A credential that is present but not valid is an
/// answer of its own, also where none would have been needed.
pub async fn identify(
    State(state): State<AppState>,
    Extension(client): Extension<ClientInfo>,
    mut request: Request,
    next: Next,
) -> Response {
    match authenticate(&state, &client, request.headers()).await {
        Ok(principal) => {
            let caller = Caller {
                user_id: principal.as_ref().map(Principal::user_id),
                key_id: principal.as_ref().and_then(Principal::key_id),
            };
            request.extensions_mut().insert(Identity(principal));
            let mut response = limited(State(state), Extension(client), request, next).await;
            // For the access log.
            response.extensions_mut().insert(caller);
            response
        }
        Err(error) => error.into_response(),
    }
}

/// The credentials' owner, from where and for what they may be used.
async fn authenticate(
    state: &AppState,
    client: &ClientInfo,
    headers: &HeaderMap,
) -> Result<Option<Principal>, ApiError> {
    let presented = credentials::read(headers)?;
    let principal = presented.prove(&state.services.access).await?;
    if let Some(key) = principal.as_ref().and_then(Principal::key) {
        let origin = headers.get(header::ORIGIN).and_then(|value| value.to_str().ok());
        key.check_place(client.address, origin)?;
    }
    Ok(principal)
}

/// Charges the limits that hold for our own routes: the address's for
/// strangers, the user's for everybody else. A key's limits are about what it
/// opens, so reading its usage costs it nothing.
pub async fn limited(
    State(state): State<AppState>,
    Extension(client): Extension<ClientInfo>,
    request: Request,
    next: Next,
) -> Response {
    let principal = request.extensions().get::<Identity>().and_then(|id| id.0.as_ref());
    let admitted = state.services.limits.admit_api(principal, client.address).await;
    match admitted {
        Ok(limit) => {
            let mut response = next.run(request).await;
            // A refusal below carries the state of the limit that refused.
            if let Some(limit) = limit
                && response.extensions().get::<ApiError>().is_none()
                && !rate_headers::are_set(response.headers())
            {
                let now = state.services.clock.now();
                rate_headers::set(response.headers_mut(), &limit, now);
            }
            response
        }
        Err(error) => ApiError::from(error).into_response(),
    }
}

/// Answers about people and keys are nobody's to store.
pub async fn no_store(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    response
        .headers_mut()
        .entry(header::CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
    response
}
