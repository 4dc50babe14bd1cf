//! What a request shows of a visitor, and the visitor's cookie.

use std::{net::IpAddr, sync::Arc};

use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, HeaderValue, header, request::Parts},
};
use chrono::TimeDelta;
use secrecy::ExposeSecret as _;

use crate::{
    api::{AppState, error::ApiError, extract::Client, middleware::Identity},
    config::{SameSite, VisitorConfig},
    server::{ClientInfo, Scheme},
    services::chat::{ChatError, Issued, Seen, Visit},
};

/// Whoever asks, with a session or without. Refused where there are no chats.
pub struct Guest {
    pub headers: HeaderMap,
    pub client: ClientInfo,
    /// All of the name that is ours.
    cookies: Vec<String>,
    has_login: bool,
}

/// Somebody with a session, on a page that may say so.
pub struct Visitor {
    pub visit: Arc<Visit>,
    pub guest: Guest,
}

impl Guest {
    pub fn seen(&self) -> Seen<'_> {
        let field = |name| self.headers.get(name).map_or(&b""[..], HeaderValue::as_bytes);
        Seen {
            cookies: &self.cookies,
            origin: self.origin(),
            user_agent: field(header::USER_AGENT),
            language: field(header::ACCEPT_LANGUAGE),
            address: self.client.address,
        }
    }

    pub fn has_cookie(&self) -> bool {
        !self.cookies.is_empty()
    }

    /// One that cannot be read is none that is allowed.
    pub fn origin(&self) -> Option<&str> {
        self.headers.get(header::ORIGIN).map(|value| value.to_str().unwrap_or("null"))
    }

    /// The address, where a login came along: then only its account was charged. Who
    /// talks is a visitor all the same.
    pub fn uncharged(&self) -> Option<IpAddr> {
        self.has_login.then_some(self.client.address)
    }

    /// A page of another site cannot make a request without it.
    pub fn needs_origin(&self) -> Result<(), ChatError> {
        self.origin().map(drop).ok_or(ChatError::OriginNotAllowed)
    }
}

impl FromRequestParts<AppState> for Guest {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        state.services.chat.visitors()?;
        let Client(client) = Client::from_request_parts(parts, state).await?;
        let cookies = read(&parts.headers, &state.visitors.cookie_name);
        let has_login = parts.extensions.get::<Identity>().is_some_and(|it| it.0.is_some());
        Ok(Self { headers: parts.headers.clone(), client, cookies, has_login })
    }
}

impl FromRequestParts<AppState> for Visitor {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        let guest = Guest::from_request_parts(parts, state).await?;
        if !parts.method.is_safe() && guest.has_cookie() {
            guest.needs_origin()?;
        }
        let visit = state.services.chat.visitors()?.open(guest.seen()).await?;
        Ok(Self { visit, guest })
    }
}

fn read(headers: &HeaderMap, name: &str) -> Vec<String> {
    let pairs = headers.get_all(header::COOKIE).iter();
    let pairs = pairs.flat_map(|value| value.as_bytes().split(|byte| *byte == b';'));
    let values = pairs
        .filter_map(|pair| pair.trim_ascii().strip_prefix(name.as_bytes())?.strip_prefix(b"="));
    values.map(|value| String::from_utf8_lossy(value.trim_ascii()).into_owned()).collect()
}

/// Has the browser keep the cookie.
pub fn set(issued: &Issued, config: &VisitorConfig, client: &ClientInfo) -> HeaderValue {
    field(issued.value.expose_secret(), issued.life, config, client)
}

/// Has the browser forget it.
pub fn clear(config: &VisitorConfig, client: &ClientInfo) -> HeaderValue {
    field("", TimeDelta::zero(), config, client)
}

fn field(value: &str, life: TimeDelta, config: &VisitorConfig, client: &ClientInfo) -> HeaderValue {
    let VisitorConfig { cookie_name, same_site, secure, .. } = config;
    let secure = secure.unwrap_or(client.browser_scheme == Scheme::Https);
    let site = match same_site {
        SameSite::Strict => "; SameSite=Strict",
        SameSite::Lax => "; SameSite=Lax",
        // Of its own for each site that shows the widget (CHIPS).
        SameSite::None => "; SameSite=None; Partitioned",
    };
    let text = format!(
        "{cookie_name}={value}; Path=/; Max-Age={}; HttpOnly{site}{}",
        life.num_seconds().max(0),
        if secure { "; Secure" } else { "" },
    );
    let mut field = HeaderValue::try_from(text).expect("letters, digits, full stops and _");
    field.set_sensitive(true);
    field
}
