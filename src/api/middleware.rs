//! What happens around every route of ours.

use axum::{
    Extension,
    body::Body,
    extract::{Request, State},
    http::{HeaderValue, Method, StatusCode, header},
    middleware::Next,
    response::{IntoResponse as _, Response},
};

use super::error::{ApiError, ErrorCode};
use crate::{
    app::AppState,
    domain::principal::Principal,
    gateway::{credentials, rate_headers},
    server::ClientInfo,
};

/// Who the request acts for, if anybody.
#[derive(Clone)]
pub struct Identity(pub Option<Principal>);

/// Turns [`ApiError`]s, also those of unknown routes and wrong methods, into
/// problem documents. The outermost layer, so that it sees every answer.
pub async fn render_problems(
    State(state): State<AppState>,
    Extension(client): Extension<ClientInfo>,
    request: Request,
    next: Next,
) -> Response {
    let path = request.uri().path().to_owned();
    let head = request.method() == Method::HEAD;
    let response = next.run(request).await;
    let error = match response.extensions().get::<ApiError>() {
        Some(error) => error.clone(),
        None if response.status() == StatusCode::METHOD_NOT_ALLOWED => {
            let allow = response.headers().get(header::ALLOW).cloned();
            ApiError::new(ErrorCode::MethodNotAllowed, "this path has other methods").allowing(allow)
        }
        None => return response,
    };
    let now = state.services.clock.now();
    let rendered = error.render(&client.request_id, &path, now).map(Body::new);
    if head { rendered.map(|_| Body::empty()) } else { rendered }
}

/// Finds out who is calling. A credential that is present but not valid is an
/// answer of its own, also where none would have been needed.
pub async fn identify(
    State(state): State<AppState>,
    Extension(client): Extension<ClientInfo>,
    mut request: Request,
    next: Next,
) -> Response {
    match authenticate(&state, &client, &request).await {
        Ok(principal) => {
            request.extensions_mut().insert(Identity(principal));
            limited(state, client, request, next).await
        }
        Err(error) => error.into_response(),
    }
}

async fn authenticate(
    state: &AppState,
    client: &ClientInfo,
    request: &Request,
) -> Result<Option<Principal>, ApiError> {
    let presented = credentials::read(request.headers())?.presented();
    let principal = state.services.access.authenticate(presented).await?;
    if let Some(key) = principal.as_ref().and_then(Principal::key) {
        let origin = request.headers().get(header::ORIGIN).and_then(|value| value.to_str().ok());
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
