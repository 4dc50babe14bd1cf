//! Forward-auth: whether another proxy may let a request through.
//!
//! The verdict is that on a proxied request, reached in the same order by the
//! same checks, charged and recorded alike; only nothing is passed on. Which
//! request it is about is read from what the proxy says of it, and where that is
//! not clear there is no verdict: two readings of it would be two policies.

use std::pin::pin;

use http::{
    HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header, request::Parts,
    uri::PathAndQuery,
};
use tokio::time::Instant;

use super::{
    GatewayError, Seen,
    admission::{activate, check_method, check_policy, part_of},
    assertion, browser,
    browser::is_navigation,
    identity,
    path::{self, AmbiguousPath},
    proof::{Shown, check_visitor, prove},
    query::{self, SocketQuery},
    record::{elapsed_us, record_of},
    scope::page_of,
};
use crate::{
    config::UpstreamConfig,
    domain::{policy::Demand, principal::Principal, usage::Outcome},
    server::client::ClientInfo,
    services::{
        Services,
        browser::Issued,
        limits::{LimitError, Scope},
    },
};

/// nginx has no name for it that all use; this one is usual in examples.
const X_ORIGINAL_URI: HeaderName = HeaderName::from_static("x-original-uri");
const X_ORIGINAL_METHOD: HeaderName = HeaderName::from_static("x-original-method");
/// Traefik's and Caddy's.
const X_FORWARDED_URI: HeaderName = HeaderName::from_static("x-forwarded-uri");
const X_FORWARDED_METHOD: HeaderName = HeaderName::from_static("x-forwarded-method");

/// Longest path and query, as of any request.
const MAX_URI: usize = 8 * 1024;

/// The request that the proxy asks about.
#[derive(Debug)]
pub struct Original {
    pub method: Method,
    /// Its path in the canonical form, and the query as it came.
    uri: Uri,
    /// It stands for the request that asks, which nobody else wrote.
    is_itself: bool,
    /// `None` where it asks for no WebSocket.
    socket: Option<SocketQuery>,
    /// It may ask for one, although the field that says so did not come along:
    /// some proxies take it off.
    may_be_socket: bool,
}

/// Why there is no saying which request is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unclear {
    #[error("the original request is named more than once")]
    Twice,
    #[error("the original request needs both a path and a method")]
    Half,
    #[error("the field that names the original request holds no path or method")]
    Malformed,
    #[error("the path and query of the original request are too long")]
    TooLong,
    #[error(transparent)]
    Path(#[from] AmbiguousPath),
    #[error("the URL of the original request holds a credential")]
    CredentialInUrl,
}

impl Original {
    /// As the fields of `parts` name it, or `appended` to the path that we are
    /// asked at (Envoy). Without either it is the request itself.
    ///
    /// A proxy that names one thing of it in a field must name the other too:
    /// nginx asks about everything with `GET`, which may do most.
    pub fn of(parts: &Parts, appended: Option<&str>) -> Result<Self, Unclear> {
        let headers = &parts.headers;
        let uri = only(headers, [&X_ORIGINAL_URI, &X_FORWARDED_URI])?;
        let method = only(headers, [&X_ORIGINAL_METHOD, &X_FORWARDED_METHOD])?;
        let (path, query, method) = match (uri, method, appended) {
            (Some(uri), Some(method), None) => {
                let uri = uri.to_str().map_err(|_| Unclear::Malformed)?;
                let (path, query) = match uri.split_once('?') {
                    Some((path, query)) => (path, Some(query)),
                    None => (uri, None),
                };
                let method = Method::from_bytes(method.as_bytes());
                (path, query, method.map_err(|_| Unclear::Malformed)?)
            }
            (None, None, appended) => {
                let path = appended.unwrap_or(parts.uri.path());
                (path, parts.uri.query(), parts.method.clone())
            }
            (Some(_), Some(_), Some(_)) => return Err(Unclear::Twice),
            (Some(_), None, _) | (None, Some(_), _) => return Err(Unclear::Half),
        };
        let is_socket = method == Method::GET
            && headers
                .get(header::UPGRADE)
                .is_some_and(|to| to.as_bytes().eq_ignore_ascii_case(b"websocket"));
        let is_itself = uri.is_none() && appended.is_none();
        let may_be_socket = is_socket || resembles_handshake(headers);
        let this = Self::checked(method, path, query, is_socket)?;
        Ok(Self { is_itself, may_be_socket, ..this })
    }

    fn checked(
        method: Method,
        path: &str,
        query: Option<&str>,
        is_socket: bool,
    ) -> Result<Self, Unclear> {
        let mut text = path::canonical(path)?.into_owned();
        let in_query =
            if is_socket { query::holds_credential_elsewhere } else { query::holds_credential };
        if query::path_holds_credential(&text) || query.is_some_and(in_query) {
            return Err(Unclear::CredentialInUrl);
        }
        if let Some(query) = query {
            text.push('?');
            text.push_str(query);
        }
        if text.len() > MAX_URI {
            return Err(Unclear::TooLong);
        }
        let uri = PathAndQuery::try_from(text).map_err(|_| Unclear::Malformed)?;
        let uri = Uri::from(uri);
        let socket = is_socket.then(|| SocketQuery::of(uri.query().unwrap_or_default()));
        Ok(Self { method, uri, is_itself: false, socket, may_be_socket: is_socket })
    }

    pub fn path(&self) -> &str {
        self.uri.path()
    }

    pub fn is_itself(&self) -> bool {
        self.is_itself
    }

    pub fn query(&self) -> Option<&str> {
        self.uri.query()
    }

    /// The login page of the host that a person asks, which leads back; `None`
    /// where no person waits for a page, or the host is not known.
    ///
    /// Whole, since Traefik would complete a path with our own address. On the
    /// host that was asked, since its cookie counts on no other: where there is a
    /// public URL, the operator must know that host (RELIABILITY G-117).
    pub fn sign_in(&self, headers: &HeaderMap, client: &ClientInfo) -> Option<String> {
        if !is_navigation(&self.method, headers) {
            return None;
        }
        let host = client.asked_host()?;
        let page = browser::sign_in_page(browser::SIGN_IN_RESERVED, self.path(), self.query());
        Some(format!("{}://{host}{page}", client.browser_scheme.as_str()))
    }
}

/// Who asks about it, and when.
#[derive(Clone, Copy)]
pub struct Asking<'a> {
    pub services: &'a Services,
    pub config: &'a UpstreamConfig,
    pub headers: &'a HeaderMap,
    pub client: &'a ClientInfo,
    pub started: Instant,
}

impl Asking<'_> {
    /// The fields of the answer to a proxy that may let the request through.
    pub async fn admit(
        &self,
        original: &Original,
        seen: &mut Seen,
    ) -> Result<HeaderMap, GatewayError> {
        let Self { services, config, headers, client, started } = *self;
        let policy = config.policy_at(part_of(config, original.path())?);
        let tunnels = matches!(original.method, Method::CONNECT | Method::TRACE);
        if tunnels {
            return Err(GatewayError::MethodNotAllowed { allow: policy.methods.join(", ") });
        }
        check_method(policy, &original.method, headers)?;
        let socket = original.socket.as_ref().filter(|_| config.websocket.enabled);
        let shown = Shown {
            method: &original.method,
            headers,
            client,
            path: original.path(),
            // Also where ours are off: the other proxy's may not be.
            is_socket: original.may_be_socket,
            query: socket,
        };
        let visitor = pin!(prove(services, policy, &shown, &mut seen.principal)).await?;
        let principal = seen.principal.as_ref();
        if principal.is_none() && policy.demand == Demand::Required {
            return Err(GatewayError::CredentialRequired);
        }
        check_policy(config, policy, principal, client, headers)?;
        let renewed = match &visitor {
            Some(visitor) => check_visitor(services, visitor, config, &shown)?,
            None => None,
        };
        let slot = services.usage.journal().reserve()?;
        let at = services.clock.now();
        let path = original.path();
        let place = (config.name, config.route_of(path));
        let mut record = record_of(principal, client, at, &original.method, path, place);
        let origin = page_of(services, headers);
        let scope = Scope { principal, address: client.address, upstream: config, origin };
        seen.limit = match services.limits.admit(scope, 1).await {
            Ok(limit) => limit,
            Err(LimitError::Exceeded(exceeded)) => {
                seen.limit = Some(exceeded.state.clone());
                record.status = StatusCode::TOO_MANY_REQUESTS.as_u16();
                record.outcome = Outcome::Rejected;
                record.duration_us = elapsed_us(started);
                slot.record(record, 0);
                return Err(GatewayError::Limited(exceeded));
            }
            Err(error) => return Err(error.into()),
        };
        // Only now: what is refused must not begin the time that was paid for.
        if let Some((principal, pass)) = principal.and_then(|it| Some((it, it.pass()?)))
            && pass.expires_at().is_none()
        {
            activate(services, principal, pass).await?;
        }
        record.status = StatusCode::OK.as_u16();
        record.outcome = Outcome::Completed;
        record.duration_us = elapsed_us(started);
        slot.record(record, 0);
        Ok(self.answer(principal, renewed.as_deref()))
    }

    fn answer(&self, principal: Option<&Principal>, renewed: Option<&Issued>) -> HeaderMap {
        let Self { services, config, client, .. } = *self;
        let mut fields = HeaderMap::new();
        fields.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(principal) = principal {
            identity::set(&mut fields, principal);
            if config.assertion {
                let now = services.clock.now();
                assertion::set(&mut fields, &services.keyring, principal, config.name, now);
            }
        }
        if let Some(issued) = renewed {
            browser::renew(&mut fields, issued, client);
        }
        fields
    }
}

/// Whether anything in it belongs to the handshake of a WebSocket.
fn resembles_handshake(headers: &HeaderMap) -> bool {
    let names_it = |to: &HeaderValue| {
        to.to_str().is_ok_and(|to| {
            to.split(',').any(|to| to.trim_ascii().eq_ignore_ascii_case("websocket"))
        })
    };
    headers.get_all(header::UPGRADE).iter().any(names_it)
        || headers.get_all("sec-fetch-mode").iter().any(names_it)
        || headers.keys().any(|name| name.as_str().starts_with("sec-websocket-"))
}

/// The one value of all these fields.
fn only<'h>(
    headers: &'h HeaderMap,
    names: [&HeaderName; 2],
) -> Result<Option<&'h HeaderValue>, Unclear> {
    let mut values = names.into_iter().flat_map(|name| headers.get_all(name));
    let first = values.next();
    if values.next().is_some() { Err(Unclear::Twice) } else { Ok(first) }
}
