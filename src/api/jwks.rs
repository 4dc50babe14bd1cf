//! `/.well-known/jwks.json`: the public keys of our JWTs (RFC 7517).

use axum::{Json as JsonBody, extract::State, http::header, response::IntoResponse};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::routes;

use super::ApiRouter;
use crate::api::AppState;

pub(super) fn router() -> ApiRouter {
    ApiRouter::new().routes(routes!(get_jwks))
}

/// A key set.
#[derive(Serialize, ToSchema)]
pub struct JwksResponse {
    /// Empty with HS256, which has no public keys.
    #[schema(value_type = Vec<Object>)]
    keys: Vec<jsonwebtoken::jwk::Jwk>,
}

/// The keys that JWTs can be verified with, the signing one first.
#[utoipa::path(
    get,
    path = "/.well-known/jwks.json",
    tag = "operations",
    security(()),
    responses((status = OK, body = JwksResponse)),
)]
async fn get_jwks(State(state): State<AppState>) -> impl IntoResponse {
    let keys = state.services.keyring.jwks().keys;
    // Verifiers may keep the set; a new key appears in it within this time.
    ([(header::CACHE_CONTROL, "public, max-age=300")], JsonBody(JwksResponse { keys }))
}
