//! Our own routes. HTTP in, HTTP out: handlers translate, they do not decide.
//!
//! To add a route: a handler in the file of its resource, `#[utoipa::path]`
//! with the function's name as operation id, its type in the document, one
//! call of one service. Then accept the new document with `make openapi`.

mod actor;
mod admin;
mod auth;
mod chat;
mod csv;
mod docs;
mod double_option;
pub mod error;
mod error_map;
mod error_map_money;
mod export;
mod extract;
mod forward_auth;
mod health;
mod idempotency;
mod jwks;
mod keys;
mod limit_problem;
mod metrics;
mod middleware;
mod openapi;
mod page;
mod pages;
mod proxy;
mod requests;
mod secret;
mod sessions;
mod state;
mod tickets;
mod tokens;
mod usage;
mod users;
mod validate;
mod wallet;

use axum::{
    Router,
    middleware::{from_fn, from_fn_with_state},
};
use tower_http::cors::CorsLayer;
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;

use self::error::{ApiError, ErrorCode};
/// Usage as a file, for whoever writes it elsewhere.
pub mod usage_file {
    pub use super::{
        export::{ExportFile, ExportQuery, FormatName, KindName},
        usage::{GroupOfAllName, IntervalName},
    };
}

pub use self::{
    chat::ChatPages,
    pages::Site,
    state::{AppState, MetricsState},
};

type ApiRouter = OpenApiRouter<AppState>;

/// The canonical prefix, and the one that older clients know.
const PREFIXES: [&str; 2] = ["/api/v1", "/api"];

/// Everything the gateway does not handle.
pub fn router(state: &AppState) -> Router {
    let (operations, _) = operations(!state.metrics.apart).split_for_parts();
    let mut router = Router::new().merge(operations).merge(docs::router(&document()));
    for prefix in PREFIXES {
        let (public, _) = public().split_for_parts();
        let (private, _) = private().split_for_parts();
        let public = public.layer(from_fn_with_state(state.clone(), middleware::limited));
        let private = private.layer(from_fn_with_state(state.clone(), middleware::identify));
        let (verify, _) = keys::public().split_for_parts();
        let both = public
            .merge(private)
            // Limits itself: a good key must pass however many others ask.
            .merge(verify)
            .layer(from_fn_with_state(state.clone(), middleware::ready))
            .layer(from_fn(middleware::no_store));
        router = router.nest(prefix, both);
    }
    let api = router
        .fallback(nothing_here)
        // Outside of everything that can fail, so that its answers are
        // readable for scripts of other origins too.
        .layer(cors(&state.allowed_origins));
    // Visitors are known by a cookie, so their scripts' origins are granted that.
    let api = api.merge(chats(state));
    // Pages are for people, never for scripts of other origins.
    // So are answers to proxies; and CORS would answer every `OPTIONS`, also one
    // that a proxy asks about.
    api.merge(pages::router(state))
        .merge(forward_auth::router(state))
        .layer(from_fn(middleware::around))
        .with_state(state.clone())
}

/// What visitors of other sites' pages use.
fn chats(state: &AppState) -> Router<AppState> {
    let mut router = Router::new();
    for prefix in PREFIXES {
        let (chat, _) = chat::router().split_for_parts();
        let chat = chat
            .layer(from_fn_with_state(state.clone(), middleware::identify))
            .layer(from_fn_with_state(state.clone(), middleware::ready))
            .layer(from_fn(middleware::no_store));
        router = router.nest(prefix, chat);
    }
    let router = router.merge(chat::pages(&PREFIXES));
    let cors = cors(&state.chat_origins).allow_credentials(true);
    router.layer(cors)
}

/// `/metrics` alone, for a listener of its own.
pub fn metrics_router(state: &AppState) -> Router {
    let (metrics, _) = metrics::router().split_for_parts();
    metrics.fallback(nothing_here).layer(from_fn(middleware::around)).with_state(state.clone())
}

async fn nothing_here() -> ApiError {
    ApiError::new(ErrorCode::NotFound, "there is nothing at this path")
}

/// The document of every route, the proxied ones included.
pub fn document() -> OpenApi {
    let router = OpenApiRouter::with_openapi(openapi::base())
        .merge(operations(true))
        .nest(PREFIXES[0], public().merge(private()).merge(keys::public()).merge(chat::router()));
    let mut document = router.into_openapi();
    proxy::describe(&mut document);
    forward_auth::describe(&mut document);
    openapi::add_common_errors(&mut document);
    document
}

/// Whether a canonical path is one of ours, for an upstream that is mounted at
/// the root and gets all others.
///
/// Only whole first segments count: an upstream's own `/api/prompt` is not
/// ours, `/api/keys` and everything below it is.
pub fn is_ours(path: &str) -> bool {
    const WHOLE: [&str; 6] = ["/health", "/metrics", "/console", "/login", "/logout", "/.tollgate"];
    const BELOW_API: [&str; 15] = [
        "v1",
        "auth",
        "users",
        "keys",
        "usage",
        "tokens",
        "wallet",
        "webhooks",
        "session",
        "chat",
        "admin",
        "docs",
        "redoc",
        "openapi.json",
        "proxy",
    ];
    if path == "/.well-known/jwks.json" {
        return true;
    }
    if let Some(rest) = path.strip_prefix("/api/") {
        let first = rest.split('/').next().unwrap_or_default();
        return BELOW_API.contains(&first);
    }
    WHOLE.iter().any(|prefix| {
        path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    })
}

fn operations(with_metrics: bool) -> ApiRouter {
    let router = ApiRouter::new().merge(health::router()).merge(jwks::router());
    if with_metrics { router.merge(metrics::router()) } else { router }
}

/// Routes that need no credential and ignore any.
fn public() -> ApiRouter {
    auth::public().merge(tokens::public())
}

/// Routes that need one.
fn private() -> ApiRouter {
    ApiRouter::new()
        .merge(auth::router())
        .merge(tickets::router())
        .merge(sessions::router())
        .merge(users::router())
        .merge(keys::router())
        .merge(tokens::router())
        .merge(usage::router())
        .merge(requests::router())
        .merge(export::router())
        .merge(wallet::router())
        .merge(admin::router())
}

/// Exact origins only: no wildcard, no reflection, `Vary: Origin` always.
/// Credentials are fields, never cookies, so none are allowed.
fn cors(allowed: &[axum::http::HeaderValue]) -> CorsLayer {
    use axum::http::{HeaderName, Method, header};
    let exposed = [
        "x-request-id",
        "x-ratelimit-limit",
        "x-ratelimit-remaining",
        "x-ratelimit-reset",
        "ratelimit",
        "ratelimit-policy",
        "retry-after",
    ];
    CorsLayer::new()
        .allow_origin(allowed.to_vec())
        .allow_methods([Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE])
        .allow_headers([
            header::AUTHORIZATION,
            header::CONTENT_TYPE,
            HeaderName::from_static("x-api-key"),
            HeaderName::from_static("x-access-token"),
            HeaderName::from_static("x-request-id"),
            HeaderName::from_static("idempotency-key"),
            HeaderName::from_static("last-event-id"),
        ])
        .expose_headers(exposed.map(HeaderName::from_static))
        .max_age(std::time::Duration::from_mins(10))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_documented_path_is_ours() {
        for path in document().paths.paths.keys() {
            assert!(is_ours(path), "{path}");
            if let Some(rest) = path.strip_prefix("/api/v1/") {
                assert!(is_ours(&format!("/api/{rest}")), "{path} without its version");
            }
        }
        for path in ["/api/docs", "/api/docs/index.css", "/api/redoc", "/api/openapi.json"] {
            assert!(is_ours(path), "{path}");
        }
        for path in ["/", "/api", "/api/", "/api/prompt", "/healthy", "/apis/keys", "/api/keysmith"]
        {
            assert!(!is_ours(path), "{path}");
        }
    }
}
