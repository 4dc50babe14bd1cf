//! The proxied routes, for the document only.
//!
//! Requests to the upstream never reach this router: the server hands them to
//! the gateway before it. They are described here, so that readers of the
//! document and its generated clients know them.

use utoipa::OpenApi as _;

use super::error::Problem;

#[derive(utoipa::OpenApi)]
#[openapi(paths(proxy_get, proxy_post))]
struct Described;

pub(super) fn describe(document: &mut utoipa::openapi::OpenApi) {
    document.merge(Described::openapi());
}

/// Send a request through to the upstream.
///
/// Any method and any path below the prefix. The upstream's answer is passed
/// through as it is, so every status is possible.
#[utoipa::path(
    get,
    path = "/api/v1/proxy/{path}",
    tag = "proxy",
    security(("access_token" = []), ("api_key" = []), ("jwt" = [])),
    params(("path" = String, Path, description = "The path at the upstream", example = "hello")),
    responses(
        (status = "default", description = "Whatever the upstream answers"),
        (status = BAD_GATEWAY, body = Problem, description = "`upstream_failed`"),
        (status = GATEWAY_TIMEOUT, body = Problem, description = "`upstream_timeout`"),
    ),
)]
#[expect(dead_code, reason = "carries the description")]
fn proxy_get() {}

/// Send a request with a body through to the upstream.
#[utoipa::path(
    post,
    path = "/api/v1/proxy/{path}",
    tag = "proxy",
    security(("access_token" = []), ("api_key" = []), ("jwt" = [])),
    params(("path" = String, Path, description = "The path at the upstream", example = "hello")),
    request_body(content = Option<String>, content_type = "*/*"),
    responses(
        (status = "default", description = "Whatever the upstream answers"),
        (status = BAD_GATEWAY, body = Problem, description = "`upstream_failed`"),
        (status = GATEWAY_TIMEOUT, body = Problem, description = "`upstream_timeout`"),
    ),
)]
#[expect(dead_code, reason = "carries the description")]
fn proxy_post() {}
