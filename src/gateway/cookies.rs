//! Our cookies in a request's and an answer's fields.
//!
//! Over https their names begin with `__Host-`: a browser takes such a cookie
//! only from https, for this host alone and for every path of it, so that no
//! sibling host can plant one. Over plain http a browser would not keep them,
//! and they have other names. Only the name that fits the request is read.

use chrono::TimeDelta;
use http::{
    HeaderMap, HeaderValue,
    header::{COOKIE, SET_COOKIE},
};
use secrecy::ExposeSecret as _;

use crate::{
    server::{ClientInfo, Scheme},
    services::browser::{Cookies, Issued},
};

/// The cookies that we set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cookie {
    /// Names a login session.
    Login,
    /// Holds the text of an access token.
    Pass,
    /// Ties a form to the browser that it was given to.
    Form,
}

/// A cookie stands more than once, and there is no saying which one counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the cookie {0} may stand once")]
pub struct RepeatedCookie(pub &'static str);

impl Cookie {
    pub const ALL: [Self; 3] = [Self::Login, Self::Pass, Self::Form];

    pub fn name(self, scheme: Scheme) -> &'static str {
        match (self, scheme) {
            (Self::Login, Scheme::Https) => "__Host-tollgate-sid",
            (Self::Login, Scheme::Http) => "tollgate_sid",
            (Self::Pass, Scheme::Https) => "__Host-tollgate-pass",
            (Self::Pass, Scheme::Http) => "tollgate_pass",
            (Self::Form, Scheme::Https) => "__Host-tollgate-form",
            (Self::Form, Scheme::Http) => "tollgate_form",
        }
    }

    /// The value in a request. `Some("")` is one that holds no text.
    pub fn read<'h>(
        self,
        headers: &'h HeaderMap,
        client: &ClientInfo,
    ) -> Result<Option<&'h str>, RepeatedCookie> {
        let name = self.name(client.browser_scheme);
        let mut found = None;
        for pair in headers.get_all(COOKIE).iter().flat_map(pairs) {
            let Some(value) = value_of(pair, name) else { continue };
            if found.is_some() {
                return Err(RepeatedCookie(name));
            }
            found = Some(str::from_utf8(value).unwrap_or_default());
        }
        Ok(found)
    }

    /// Has the browser keep it for so long.
    pub fn set(self, value: &str, life: TimeDelta, client: &ClientInfo) -> HeaderValue {
        let scheme = client.browser_scheme;
        let secure = if scheme == Scheme::Https { "; Secure" } else { "" };
        let text = format!(
            "{}={value}; Path=/; Max-Age={}; HttpOnly; SameSite=Lax{secure}",
            self.name(scheme),
            life.num_seconds().max(0),
        );
        let mut field = HeaderValue::try_from(text).expect("base64url and full stops");
        field.set_sensitive(true);
        field
    }

    /// Has the browser forget it.
    pub fn clear(self, client: &ClientInfo) -> HeaderValue {
        self.set("", TimeDelta::zero(), client)
    }
}

/// The cookies that prove somebody.
pub fn read<'h>(
    headers: &'h HeaderMap,
    client: &ClientInfo,
) -> Result<Cookies<'h>, RepeatedCookie> {
    Ok(Cookies {
        login: Cookie::Login.read(headers, client)?,
        pass: Cookie::Pass.read(headers, client)?,
    })
}

/// Adds a cookie to an answer's fields.
pub fn add(headers: &mut HeaderMap, cookie: Cookie, issued: &Issued, client: &ClientInfo) {
    let value = cookie.set(issued.value.expose_secret(), issued.life, client);
    headers.append(SET_COOKIE, value);
}

fn value_of<'p>(pair: &'p [u8], name: &str) -> Option<&'p [u8]> {
    let rest = pair.strip_prefix(name.as_bytes())?.trim_ascii_start();
    // A cookie without `=` has no name, whatever it looks like.
    rest.strip_prefix(b"=").map(<[u8]>::trim_ascii)
}

/// The parts of a `Cookie` field.
pub(super) fn pairs(value: &HeaderValue) -> impl Iterator<Item = &[u8]> {
    value
        .as_bytes()
        .split(|byte| *byte == b';')
        .map(<[u8]>::trim_ascii)
        .filter(|pair| !pair.is_empty())
}
