//! Who asks the gateway: by a field, as programs do, or by a cookie.

use std::pin::pin;

use http::{HeaderMap, Method, header, request::Parts};

use super::{
    Arrival, Gateway, GatewayError,
    admission::check_policy,
    browser,
    credentials::{self, RepeatedField},
    query::SocketQuery,
    socket::Asked,
};
use crate::{
    config::{Mount, UpstreamConfig},
    domain::{
        policy::{Demand, Policy},
        principal::Principal,
    },
    server::client::ClientInfo,
    services::{
        Services,
        browser::{Issued, Visitor},
    },
};

/// Where a request may hold credentials, and where it goes.
pub(super) struct Shown<'a> {
    pub method: &'a Method,
    pub headers: &'a HeaderMap,
    pub client: &'a ClientInfo,
    /// The canonical path, which a ticket is bound to.
    pub path: &'a str,
    /// Whether it asks for a WebSocket.
    pub is_socket: bool,
    /// What the query of such a request shows, where it may show anything.
    pub query: Option<&'a SocketQuery>,
}

impl<'a> Shown<'a> {
    pub fn of(parts: &'a Parts, arrival: &Arrival<'a>, asked: Option<&'a Asked>) -> Self {
        let Arrival { client, path, .. } = *arrival;
        Self {
            method: &parts.method,
            headers: &parts.headers,
            client,
            path,
            is_socket: asked.is_some(),
            query: asked.map(|asked| &asked.query),
        }
    }
}

/// Who is asking. Everything that is presented must be good, also where nothing
/// would be required; a public upstream looks at nothing. Cookies count where no
/// field has a credential, and who they prove is returned.
pub(super) async fn prove(
    services: &Services,
    policy: &Policy,
    shown: &Shown<'_>,
    principal: &mut Option<Principal>,
) -> Result<Option<Box<Visitor>>, GatewayError> {
    if policy.demand == Demand::Public {
        return Ok(None);
    }
    let mut found = credentials::read(shown.headers)?;
    if let Some(token) = shown.query.and_then(|query| query.access_token.as_deref())
        && found.access_token.replace(token).is_some()
    {
        return Err(RepeatedField("X-Access-Token").into());
    }
    *principal = pin!(found.prove(&services.access)).await?;
    if principal.is_some() {
        return Ok(None);
    }
    if let Some(ticket) = shown.query.and_then(|query| query.ticket.as_deref()) {
        let redeeming = services.tickets.redeem(ticket, shown.path);
        *principal = Some(Box::pin(redeeming).await?);
        return Ok(None);
    }
    if shown.headers.contains_key(header::COOKIE) {
        // Boxed, so that a program's way does not carry its size.
        let proving = browser::prove(services, shown.headers, shown.client);
        if let Some(visitor) = Box::pin(proving).await? {
            *principal = Some(visitor.principal.clone());
            return Ok(Some(visitor));
        }
    }
    Ok(None)
}

/// What becomes of a request that shows no credential.
fn check_demand(
    policy: &Policy,
    principal: Option<&Principal>,
    parts: &Parts,
    arrival: &Arrival<'_>,
) -> Result<(), GatewayError> {
    match policy.demand {
        _ if principal.is_some() => Ok(()),
        Demand::Required if browser::is_navigation(&parts.method, &parts.headers) => {
            let page = match arrival.route.upstream.config.mount {
                Mount::Host(_) => browser::SIGN_IN_RESERVED,
                Mount::Prefix(_) | Mount::Root => browser::SIGN_IN,
            };
            let page = browser::sign_in_page(page, arrival.path, parts.uri.query());
            Err(GatewayError::SignIn(page.into()))
        }
        Demand::Required => Err(GatewayError::CredentialRequired),
        Demand::Optional | Demand::Public => Ok(()),
    }
}

/// Whether a cookie may do this, and the one that its browser gets instead. A
/// socket's answer can bring none.
pub(super) fn check_visitor(
    services: &Services,
    visitor: &Visitor,
    config: &UpstreamConfig,
    shown: &Shown<'_>,
) -> Result<Option<Box<Issued>>, GatewayError> {
    let Shown { method, headers, client, is_socket, .. } = *shown;
    if is_socket {
        Asked::check_origin(headers, config, client)?;
        return Ok(None);
    }
    browser::check_site(method, headers, client)?;
    Ok(browser::renewed(services, visitor, method, headers))
}

impl Gateway {
    /// Who asks, if they may come in; the cookie that their browser gets anew.
    pub(super) async fn identify(
        &self,
        policy: &Policy,
        parts: &Parts,
        arrival: &Arrival<'_>,
        asked: Option<&Asked>,
        principal: &mut Option<Principal>,
    ) -> Result<Option<Box<Issued>>, GatewayError> {
        let Arrival { client, route, .. } = *arrival;
        let shown = Shown::of(parts, arrival, asked);
        let visitor = pin!(prove(&self.services, policy, &shown, principal)).await?;
        let principal = principal.as_ref();
        check_demand(policy, principal, parts, arrival)?;
        let config = &route.upstream.config;
        check_policy(config, policy, principal, client, &parts.headers)?;
        let Some(visitor) = visitor else { return Ok(None) };
        check_visitor(&self.services, &visitor, config, &shown)
    }
}
