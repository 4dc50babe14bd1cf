//! What a request shows of a visitor, and the visitor's cookie.

use std::{net::IpAddr, sync::Arc};

use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, HeaderValue, header, request::Parts},
};
use chrono::TimeDelta;
use secrecy::ExposeSecret as _;
use sha2::{Digest as _, Sha256};

use crate::{
    api::{AppState, error::ApiError, extract::Client, middleware::Identity},
    config::{SameSite, VisitorConfig},
    gateway::browser,
    server::{ClientInfo, Scheme},
    services::chat::{ChatError, Cookie, Issued, Jar, Seen, Visit},
};

/// Whoever asks, with a session or without. Refused where there are no chats.
pub struct Guest {
    pub headers: HeaderMap,
    pub client: ClientInfo,
    /// Of the page.
    origin: Option<String>,
    /// All of the names that are ours.
    cookies: Vec<Cookie>,
    has_login: bool,
}

/// Somebody with a session, on a page that may say so.
pub struct Visitor {
    pub visit: Arc<Visit>,
    pub guest: Guest,
    /// Where the session's cookie is kept.
    pub jar: Jar,
}

impl Guest {
    pub fn seen(&self) -> Seen<'_> {
        let field = |name| self.headers.get(name).map_or(&b""[..], HeaderValue::as_bytes);
        Seen {
            cookies: &self.cookies,
            origin: self.origin.as_deref(),
            user_agent: field(header::USER_AGENT),
            language: field(header::ACCEPT_LANGUAGE),
            address: self.client.address,
        }
    }

    /// The address, where a login came along: then only its account was charged. Who
    /// talks is a visitor all the same.
    pub fn uncharged(&self) -> Option<IpAddr> {
        self.has_login.then_some(self.client.address)
    }

    /// A page of another site cannot make a request without it.
    pub fn needs_origin(&self) -> Result<(), ChatError> {
        let named = self.headers.get(header::ORIGIN);
        named.map(drop).ok_or(ChatError::OriginNotAllowed)
    }

    /// Has the browser keep the cookie.
    pub fn set(&self, issued: &Issued, config: &VisitorConfig) -> HeaderValue {
        self.field(issued.jar, issued.value.expose_secret(), issued.life, config)
    }

    /// Has the browser forget it.
    pub fn clear(&self, jar: Jar, config: &VisitorConfig) -> HeaderValue {
        self.field(jar, "", TimeDelta::zero(), config)
    }

    fn field(&self, jar: Jar, value: &str, life: TimeDelta, config: &VisitorConfig) -> HeaderValue {
        let VisitorConfig { cookie_name, same_site, secure, .. } = config;
        let secure = secure.unwrap_or(self.client.browser_scheme == Scheme::Https);
        let site = match same_site {
            SameSite::Strict => "; SameSite=Strict",
            SameSite::Lax => "; SameSite=Lax",
            // Of its own for each site that shows the widget (CHIPS).
            SameSite::None => "; SameSite=None; Partitioned",
        };
        let origin = self.origin.as_deref().filter(|_| jar == Jar::Own);
        let name = origin.map_or_else(|| cookie_name.clone(), |it| own_name(cookie_name, it));
        let text = format!(
            "{name}={value}; Path=/; Max-Age={}; HttpOnly{site}{}",
            life.num_seconds().max(0),
            if secure { "; Secure" } else { "" },
        );
        let mut field = HeaderValue::try_from(text).expect("letters, digits, full stops and _");
        field.set_sensitive(true);
        field
    }
}

impl FromRequestParts<AppState> for Guest {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        let visitors = state.services.chat.visitors()?;
        let Client(client) = Client::from_request_parts(parts, state).await?;
        // One that cannot be read is none that is allowed.
        let named = parts.headers.get(header::ORIGIN);
        let origin = named.map(|value| value.to_str().unwrap_or("null").to_owned()).or_else(|| {
            let own = browser::own_origin(&parts.headers, &client);
            // Behind a proxy we may not know by which name we are asked.
            own.filter(|own| parts.method.is_safe() && visitors.allows(own))
        });
        let cookies = read(&parts.headers, &state.visitors.cookie_name, origin.as_deref());
        let has_login = parts.extensions.get::<Identity>().is_some_and(|it| it.0.is_some());
        Ok(Self { headers: parts.headers.clone(), client, origin, cookies, has_login })
    }
}

impl FromRequestParts<AppState> for Visitor {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        let guest = Guest::from_request_parts(parts, state).await?;
        if !parts.method.is_safe() && !guest.cookies.is_empty() {
            guest.needs_origin()?;
        }
        let (visit, jar) = state.services.chat.visitors()?.open(guest.seen()).await?;
        Ok(Self { visit, guest, jar })
    }
}

/// The name of an origin's own cookie.
fn own_name(name: &str, origin: &str) -> String {
    format!("{name}_{}", hex::encode(&Sha256::digest(origin)[..8]))
}

/// Those of the origin's own name first: they were made for it.
fn read(headers: &HeaderMap, name: &str, origin: Option<&str>) -> Vec<Cookie> {
    let own = origin.map(|origin| own_name(name, origin));
    let names = own.as_deref().map(|own| (own, Jar::Own)).into_iter().chain([(name, Jar::Common)]);
    let of = |(name, jar): (&str, Jar)| {
        let pairs = headers.get_all(header::COOKIE).iter();
        let pairs = pairs.flat_map(|value| value.as_bytes().split(|byte| *byte == b';'));
        let values = pairs
            .filter_map(|pair| pair.trim_ascii().strip_prefix(name.as_bytes())?.strip_prefix(b"="));
        let text = |value: &[u8]| String::from_utf8_lossy(value.trim_ascii()).into_owned();
        values.map(|value| Cookie { jar, value: text(value) }).collect::<Vec<_>>()
    };
    names.flat_map(of).collect()
}
