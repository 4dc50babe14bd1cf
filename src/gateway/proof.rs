//! Who asks the gateway: by a field, as programs do, or by a cookie.

use std::pin::pin;

use http::{header, request::Parts};

use super::{
    Arrival, Gateway, GatewayError, browser,
    credentials::{self, RepeatedField},
    socket::Asked,
};
use crate::{
    config::Mount,
    domain::{
        policy::{Demand, Policy},
        principal::Principal,
    },
    server::client::ClientInfo,
    services::browser::{Issued, Visitor},
};

impl Gateway {
    /// Who is asking. Everything that is presented must be good, also where
    /// nothing would be required; a public upstream looks at nothing. Cookies
    /// count where no field has a credential, and who they prove is returned.
    pub(super) async fn prove(
        &self,
        policy: &Policy,
        parts: &Parts,
        arrival: &Arrival<'_>,
        asked: Option<&Asked>,
        principal: &mut Option<Principal>,
    ) -> Result<Option<Box<Visitor>>, GatewayError> {
        if policy.demand == Demand::Public {
            return Ok(None);
        }
        let mut found = credentials::read(&parts.headers)?;
        if let Some(token) = asked.and_then(|asked| asked.query.access_token.as_deref())
            && found.access_token.replace(token).is_some()
        {
            return Err(RepeatedField("X-Access-Token").into());
        }
        *principal = pin!(found.prove(&self.services.access)).await?;
        if principal.is_some() {
            return Ok(None);
        }
        if let Some(ticket) = asked.and_then(|asked| asked.query.ticket.as_deref()) {
            let redeeming = self.services.tickets.redeem(ticket, arrival.path);
            *principal = Some(Box::pin(redeeming).await?);
            return Ok(None);
        }
        if parts.headers.contains_key(header::COOKIE) {
            // Boxed, so that a program's way does not carry its size.
            let proving = browser::prove(&self.services, &parts.headers, arrival.client);
            if let Some(visitor) = Box::pin(proving).await? {
                *principal = Some(visitor.principal.clone());
                return Ok(Some(visitor));
            }
        }
        match policy.demand {
            Demand::Required if browser::is_navigation(&parts.method, &parts.headers) => {
                let page = match arrival.route.upstream.config.mount {
                    Mount::Host(_) => browser::SIGN_IN_RESERVED,
                    Mount::Prefix(_) | Mount::Root => browser::SIGN_IN,
                };
                let page = browser::sign_in_page(page, arrival.path, parts.uri.query());
                Err(GatewayError::SignIn(page.into()))
            }
            Demand::Required => Err(GatewayError::CredentialRequired),
            Demand::Optional | Demand::Public => Ok(None),
        }
    }

    /// Whether a cookie may do this, and the one that its browser gets instead.
    pub(super) fn check_visitor(
        &self,
        visitor: &Visitor,
        parts: &Parts,
        client: &ClientInfo,
    ) -> Result<Option<Box<Issued>>, GatewayError> {
        browser::check_site(&parts.method, &parts.headers, client)?;
        Ok(browser::renewed(&self.services, visitor, &parts.method, &parts.headers))
    }
}
