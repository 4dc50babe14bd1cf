//! `/auth/verify`: what other proxies ask before they let a request through.
//!
//! Any method, since Envoy asks with the original's. The route limits and
//! identifies itself, as the gateway does, and is in no CORS layer: that answers
//! every `OPTIONS` with 200, which here would mean "let it through".

use axum::{
    Router,
    extract::{Request, State},
    http::{HeaderName, HeaderValue, StatusCode, request::Parts},
    middleware::{from_fn, from_fn_with_state},
    response::{IntoResponse as _, Response},
    routing::any,
};
use tokio::time::Instant;
use utoipa::OpenApi as _;

use super::{
    error::{ApiError, ApiResult, ErrorCode, Problem},
    extract::Client,
    middleware, pages,
};
use crate::{
    api::AppState,
    domain::principal::Principal,
    gateway::{
        GatewayError, Seen,
        forward::{Asking, Original, Unclear},
        path::below,
        rate_headers,
    },
    server::Caller,
};

/// The status that a refusal would have, where it is shown as another.
const X_TOLLGATE_STATUS: HeaderName = HeaderName::from_static("x-tollgate-status");
/// Envoy takes the fields that this lists from the client's request.
const TO_REMOVE: HeaderName = HeaderName::from_static("x-envoy-auth-headers-to-remove");
/// Everything that tells an upstream who asks.
const IDENTITY: [&str; 6] =
    ["x-user-id", "x-username", "x-roles", "x-key-id", "x-token-id", "x-tollgate-assertion"];

/// Where it is; the last one is ours on every host.
const PLACES: [&str; 3] = ["/api/v1/auth", "/api/auth", "/.tollgate/auth"];

#[derive(utoipa::OpenApi)]
#[openapi(paths(verify_request))]
struct Described;

pub(super) fn describe(document: &mut utoipa::openapi::OpenApi) {
    document.merge(Described::openapi());
}

pub(super) fn router(state: &AppState) -> Router<AppState> {
    let mut router = Router::new();
    for place in PLACES {
        for path in ["verify", "verify/", "verify/{*original}", "verify-for/{*name}"] {
            router = router.route(&format!("{place}/{path}"), any(verify_request));
        }
    }
    router
        .route_layer(from_fn_with_state(state.clone(), middleware::ready))
        .route_layer(from_fn(middleware::no_store))
}

/// How the proxy wants to be answered.
#[derive(Debug, Default, PartialEq, Eq)]
struct Options {
    upstream: Option<String>,
    /// A person without a login is sent to the login page.
    redirect: bool,
    /// Every refusal but 401 is 403: nginx understands no other.
    as_forbidden: bool,
}

/// Whether a proxy may let a request through.
///
/// For `auth_request` of nginx, `ForwardAuth` of Traefik, `forward_auth` of Caddy
/// and the HTTP service of Envoy's `ext_authz`. The original request is named by
/// `X-Original-URI` and `X-Original-Method`, or by `X-Forwarded-Uri` and
/// `X-Forwarded-Method`, or is appended to the path; otherwise it is this one.
/// Every method is answered alike. It is charged and recorded like a request
/// through the gateway.
#[utoipa::path(
    get,
    path = "/api/v1/auth/verify",
    tag = "proxy",
    security(("access_token" = []), ("api_key" = []), ("jwt" = [])),
    params(
        ("upstream" = Option<String>, Query, description = "Whose policy holds; else the first's"),
        ("redirect" = Option<String>, Query, description = "`1`: a person is sent to the login \
            page", pattern = "^1$"),
        ("status" = Option<String>, Query, description = "`403`: every refusal but 401 is a 403; \
            `X-Tollgate-Status` has the other", pattern = "^403$"),
    ),
    responses(
        (status = OK, description = "Let it through", headers(
            ("X-User-Id" = String), ("X-Username" = String), ("X-Roles" = String),
            ("X-Key-Id" = String), ("X-Token-Id" = String),
        )),
        (status = SEE_OTHER, description = "To the login page"),
        (status = NOT_FOUND, body = Problem, description = "No upstream has this name"),
    ),
)]
async fn verify_request(
    State(state): State<AppState>,
    Client(client): Client,
    request: Request,
) -> Response {
    let started = Instant::now();
    let (parts, _) = request.into_parts();
    let question = match Question::of(&parts) {
        Ok(question) => question,
        Err(error) => {
            // Whoever wrote them, they only decide how it looks.
            let options = Options::read(parts.uri.query(), None).unwrap_or_default();
            return refused(error, &options);
        }
    };
    let Question { original, options, appended } = question;
    let directory = state.services.upstreams.current();
    let mut upstreams = directory.upstreams.iter();
    let upstream = match &options.upstream {
        Some(name) => upstreams.find(|upstream| upstream.config.name == name),
        None => upstreams.next(),
    };
    let Some(upstream) = upstream else {
        let error = ApiError::new(ErrorCode::NotFound, "no upstream has this name");
        return refused(error, &options);
    };
    let asking = Asking {
        services: &state.services,
        config: &upstream.config,
        headers: &parts.headers,
        client: &client,
        started,
    };
    let mut seen = Seen::default();
    let mut response = match asking.admit(&original, &mut seen).await {
        Ok(fields) => {
            let mut response = (StatusCode::OK, fields).into_response();
            if appended {
                let absent =
                    IDENTITY.iter().filter(|name| !response.headers().contains_key(**name));
                let list = absent.copied().collect::<Vec<_>>().join(",");
                response
                    .headers_mut()
                    .extend(HeaderValue::try_from(list).map(|it| (TO_REMOVE, it)));
            }
            response
        }
        Err(error) => {
            let page = match error {
                GatewayError::CredentialRequired if options.redirect => {
                    original.sign_in(&parts.headers, &client)
                }
                _ => None,
            };
            match page {
                Some(page) => pages::see_other(&page),
                None => refused(error.into(), &options),
            }
        }
    };
    if let Some(limit) = &seen.limit {
        let now = state.services.clock.now();
        rate_headers::set(response.headers_mut(), limit, now);
    }
    let principal = seen.principal.as_ref();
    // For the access log.
    response.extensions_mut().insert(Caller {
        user_id: principal.map(Principal::user_id),
        key_id: principal.and_then(Principal::key_id),
    });
    response
}

/// What a proxy asks.
struct Question {
    original: Original,
    options: Options,
    /// The original's path follows ours.
    appended: bool,
}

impl Question {
    fn of(parts: &Parts) -> ApiResult<Self> {
        let (upstream, appended) = place(parts.uri.path());
        let original = Original::of(parts, appended)?;
        // Behind our own path the query is the client's.
        let query = if appended.is_some() { None } else { parts.uri.query() };
        let mut options = Options::read(query, original.query().filter(|_| !original.is_itself()))?;
        if let Some(name) = upstream
            && options.upstream.replace(name.to_owned()).is_some()
        {
            return Err(Unclear::Twice.into());
        }
        Ok(Self { original, options, appended: appended.is_some() })
    }
}

/// The upstream's name and the original's path in the path that we are asked at.
fn place(path: &str) -> (Option<&str>, Option<&str>) {
    let rest = PLACES.iter().find_map(|place| below(path, place)).unwrap_or_default();
    if let Some(rest) = rest.strip_prefix("/verify-for/") {
        return match rest.find('/') {
            Some(end) => (Some(&rest[..end]), Some(&rest[end..])),
            None => (Some(rest), None),
        };
    }
    (None, rest.strip_prefix("/verify").filter(|rest| !rest.is_empty()))
}

impl Options {
    /// Caddy passes the client's own query where it is told none. Then it holds
    /// no options, and one that would name an upstream is refused: there is no
    /// saying who wrote it.
    fn read(query: Option<&str>, original: Option<&str>) -> ApiResult<Self> {
        let Some(query) = query else { return Ok(Self::default()) };
        let may_be_clients = original.is_some_and(|original| original == query);
        let mut options = Self::default();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            match (&*name, &*value) {
                ("upstream", _) if options.upstream.is_some() => return Err(Unclear::Twice.into()),
                ("upstream", name) => options.upstream = Some(name.to_owned()),
                ("redirect", "1") => options.redirect = true,
                ("status", "403") => options.as_forbidden = true,
                ("redirect" | "status", _) if !may_be_clients => {
                    let detail = "`redirect` may be 1 and `status` may be 403";
                    return Err(ApiError::new(ErrorCode::InvalidRequest, detail));
                }
                _ => {}
            }
        }
        if may_be_clients {
            if options.upstream.is_some() {
                return Err(Unclear::Twice.into());
            }
            return Ok(Self::default());
        }
        Ok(options)
    }
}

fn refused(error: ApiError, options: &Options) -> Response {
    let status = error.code().status();
    let forbidden = status == StatusCode::METHOD_NOT_ALLOWED
        || (options.as_forbidden && status.is_client_error() && status != StatusCode::UNAUTHORIZED);
    if !forbidden {
        return error.into_response();
    }
    let mut response = error.shown_as(StatusCode::FORBIDDEN).into_response();
    response.headers_mut().insert(X_TOLLGATE_STATUS, status.as_u16().into());
    response
}

impl From<Unclear> for ApiError {
    fn from(unclear: Unclear) -> Self {
        let code = match unclear {
            Unclear::Path(_) => ErrorCode::AmbiguousPath,
            Unclear::CredentialInUrl => ErrorCode::CredentialInUrl,
            Unclear::Twice | Unclear::Half | Unclear::Malformed | Unclear::TooLong => {
                ErrorCode::InvalidRequest
            }
        };
        Self::new(code, unclear.to_string())
    }
}
