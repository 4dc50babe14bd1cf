//! The document and its two readers, all served from the binary: a page makes
//! no request to another host, which its policy enforces.

use aide::redoc::Redoc;
use axum::{
    Router,
    extract::Request,
    http::{HeaderValue, header},
    middleware::{self, Next},
    response::{Html, Response},
    routing::get,
};
use bytes::Bytes;
use utoipa::openapi::OpenApi;
use utoipa_swagger_ui::{Config, SwaggerUi};

use crate::api::AppState;

const DOCUMENT: &str = "/api/openapi.json";
/// Both readers style and start themselves inline; nothing may come from or go
/// to anywhere else.
const POLICY: &str = "default-src 'self'; script-src 'self' 'unsafe-inline'; \
    style-src 'self' 'unsafe-inline'; img-src 'self' data:; worker-src 'self' blob:; \
    frame-ancestors 'none'; base-uri 'none'; form-action 'none'";

pub(super) fn router(document: &OpenApi) -> Router<AppState> {
    let json = Bytes::from(document.to_json().expect("a document serializes"));
    let redoc = Bytes::from(Redoc::new(DOCUMENT).with_title("Tollgate API").html());
    let swagger = SwaggerUi::new("/api/docs").config(
        Config::from(DOCUMENT)
            .validator_url("none")
            .persist_authorization(true)
            .try_it_out_enabled(true)
            .display_request_duration(true),
    );
    Router::from(swagger)
        .route("/api/redoc", get(async move || Html(redoc)))
        .route(DOCUMENT, get(async move || ([(header::CONTENT_TYPE, "application/json")], json)))
        .layer(middleware::from_fn(policy))
}

async fn policy(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    response
        .headers_mut()
        .insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    response
}
