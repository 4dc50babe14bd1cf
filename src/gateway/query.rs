//! What may not stand in a URL.
//!
//! Path and query are forwarded as they came. They also end up in histories,
//! logs and `Referer` fields of others, so a request that carries one of our
//! credentials there is refused before anything else looks at it
//! (OWASP ASVS 14.2.1).

use std::borrow::Cow;

use http::{Uri, uri::PathAndQuery};

use crate::domain::token::TokenHash;

/// Characters that the secret part of a credential has at least; shorter
/// values that happen to begin alike (`?table=tg_users`) are left alone.
const SECRET_LEN: usize = 40;

/// How keys, tokens and tickets begin.
const PREFIXES: [&str; 4] = ["tg_", "tga_", "tgr_", "tgt_"];

/// How the headers of login tokens and login cookies begin, `{"typ":"at+jwt` and
/// `{"typ":"tgc+jwt`: an upstream's own tokens are its own affair.
const LOGIN_TOKENS: [&str; 2] = ["eyJ0eXAiOiJhdCtqd3Qi", "eyJ0eXAiOiJ0Z2Mrand0"];

/// Whether something in the query has the shape of an API key (`tg_…`), an access
/// or refresh token (`tga_…`, `tgr_…`), a ticket (`tgt_…`) or a login token, also
/// when parts of it are percent-encoded, once or twice.
pub fn holds_credential(query: &str) -> bool {
    may_hold_credential(query) && contains_credential(query)
}

/// What the query of a request for a WebSocket may hold of ours, since a
/// browser's script can set no field there: an access token as `token`, or a
/// ticket as `ticket`. Other values of these names are the upstream's.
#[derive(Debug, Default)]
pub struct SocketQuery {
    pub access_token: Option<String>,
    pub ticket: Option<String>,
}

impl SocketQuery {
    /// Takes ours out of the query; the rest stays as it was written. Of a name
    /// that stands twice the first counts, and neither goes on.
    pub fn take(uri: &mut Uri) -> Self {
        let Some(query) = uri.query() else { return Self::default() };
        let (found, rest) = Self::split(query);
        if found.access_token.is_some() || found.ticket.is_some() {
            let mut text = uri.path().to_owned();
            if !rest.is_empty() {
                text.push('?');
                text.push_str(&rest);
            }
            *uri = PathAndQuery::try_from(text).expect("parts of a good one").into();
        }
        found
    }

    fn split(query: &str) -> (Self, String) {
        let mut found = Self::default();
        let mut rest = vec![];
        for pair in query.split('&') {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = decoded(value);
            match name {
                "token" if TokenHash::of_pass(&value).is_some() => {
                    found.access_token.get_or_insert_with(|| value.into_owned());
                }
                "ticket" if TokenHash::of_ticket(&value).is_some() => {
                    found.ticket.get_or_insert_with(|| value.into_owned());
                }
                _ => rest.push(pair),
            }
        }
        (found, rest.join("&"))
    }
}

impl SocketQuery {
    /// What of ours is in a query that somebody else passes on.
    pub fn of(query: &str) -> Self {
        Self::split(query).0
    }
}

/// As [`holds_credential`], for a request for a WebSocket.
pub fn holds_credential_elsewhere(query: &str) -> bool {
    holds_credential(query) && holds_credential(&SocketQuery::split(query).1)
}

/// The same for the segments of a path.
pub fn path_holds_credential(path: &str) -> bool {
    may_hold_credential(path) && contains_credential(path)
}

/// Cheap, for every request: the length first, since few URLs have it; then
/// every spelling needs either the letters or an escape.
fn may_hold_credential(text: &str) -> bool {
    text.len() >= SECRET_LEN && (text.contains("tg") || text.contains('%') || text.contains("eyJ"))
}

/// A path that was refused, fit to be shown and logged.
pub fn without_credentials(path: &str) -> Cow<'_, str> {
    if !path_holds_credential(path) {
        return Cow::Borrowed(path);
    }
    let shown = |segment| if contains_credential(segment) { "***" } else { segment };
    Cow::Owned(path.split('/').map(shown).collect::<Vec<_>>().join("/"))
}

fn contains_credential(text: &str) -> bool {
    let once = decoded(text);
    begins_credential(&once) || (once.contains('%') && begins_credential(&decoded(&once)))
}

/// Whether one begins anywhere in it, but not within a word.
fn begins_credential(text: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let bytes = text.as_bytes();
    PREFIXES.iter().chain(&LOGIN_TOKENS).any(|prefix| {
        text.match_indices(prefix).any(|(at, _)| {
            let before = at.checked_sub(1).map(|before| bytes[before]);
            let secret = &bytes[at + prefix.len()..];
            !before.is_some_and(is_word)
                && secret.len() >= SECRET_LEN
                && secret[..SECRET_LEN].iter().all(|byte| is_word(*byte))
        })
    })
}

/// Escapes of ASCII characters undone; anything else stays as it is, it is not
/// part of a credential.
fn decoded(value: &str) -> Cow<'_, str> {
    if !value.contains('%') {
        return Cow::Borrowed(value);
    }
    let mut text = String::with_capacity(value.len());
    let mut rest = value;
    while let Some((before, after)) = rest.split_once('%') {
        text.push_str(before);
        let byte = after.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok());
        if let Some(byte) = byte.filter(u8::is_ascii) {
            text.push(char::from(byte));
            rest = &after[2..];
        } else {
            text.push('%');
            rest = after;
        }
    }
    text.push_str(rest);
    Cow::Owned(text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::token::PlainToken;

    #[test]
    fn a_credential_in_a_path_is_found_and_not_shown() {
        let pass = PlainToken::pass(&mut rand::rng());
        let text = pass.expose();
        for path in [
            format!("/api/v1/tokens/{text}/revoke"),
            format!("/{text}"),
            format!("/a/%74g{}/b", &text[2..]),
            format!("/x;token={text}"),
            format!("/a=1,{text}"),
            format!("/%2574g{}", &text[2..]),
        ] {
            assert!(path_holds_credential(&path), "{path}");
            assert!(!without_credentials(&path).contains(&text[12..]), "{path}");
        }
        assert_eq!(without_credentials(&format!("/a/{text}/b")), "/a/***/b");
        for path in ["/", "/tg_users/1", "/downloads/tga_short", &format!("/{}", "x".repeat(99))] {
            assert!(!path_holds_credential(path), "{path}");
            assert_eq!(without_credentials(path), path);
        }
    }

    #[test]
    fn a_sockets_query_may_hold_a_token_or_a_ticket() {
        let pass = PlainToken::pass(&mut rand::rng());
        let ticket = PlainToken::ticket(&mut rand::rng());
        let (pass, ticket) = (pass.expose(), ticket.expose());
        let encoded = pass.replacen('t', "%74", 1);
        for (query, token, ticketed, rest) in [
            ("a=1&b".to_owned(), false, false, "/x?a=1&b"),
            ("token=theirs&ticket=2".to_owned(), false, false, "/x?token=theirs&ticket=2"),
            (format!("token={pass}"), true, false, "/x"),
            (format!("a=%20&token={encoded}&b=2"), true, false, "/x?a=%20&b=2"),
            (format!("ticket={ticket}&a=1"), false, true, "/x?a=1"),
            (format!("token={pass}&token={pass}&ticket={ticket}"), true, true, "/x"),
        ] {
            let mut uri: Uri = format!("/x?{query}").parse().unwrap();
            let found = SocketQuery::take(&mut uri);
            assert_eq!(found.access_token.as_deref(), token.then_some(pass), "{query}");
            assert_eq!(found.ticket.as_deref(), ticketed.then_some(ticket), "{query}");
            assert_eq!(uri.to_string(), rest);
            assert!(!holds_credential_elsewhere(&query), "{query}");
        }
        let apart = [format!("x={pass}"), format!("token={pass}&x={pass}"), pass.to_owned()];
        for query in [&apart[..], &[format!("x={ticket}"), format!("token={ticket}")]].concat() {
            assert!(holds_credential_elsewhere(&query), "{query}");
        }
    }

    #[test]
    fn our_credentials_are_found_in_every_place() {
        let key = PlainToken::api_key(&mut rand::rng());
        let key = key.expose();
        let token = format!("tga_{}", "aB3-_".repeat(13));
        let encoded = hex::encode(key)
            .as_bytes()
            .chunks(2)
            .fold(String::new(), |text, pair| text + "%" + str::from_utf8(pair).unwrap());
        let [refresh, ticket] = ["tgr_", "tgt_"].map(|prefix| token.replace("tga_", prefix));
        let rest = "LCJhbGciOiJIUzI1NiIsImtpZCI6InNvbWVib2R5In0.e30.c2ln";
        let [login, cookie] = LOGIN_TOKENS.map(|begin| format!("{begin}{rest}"));
        for secret in [
            key,
            &token,
            &refresh,
            &ticket,
            &login,
            &cookie,
            &encoded,
            &key.replace('_', "%5F"),
            &key.replace('t', "%74"),
            &key.replace('_', "%255F"),
            &format!("https://a.example/?token%3D{key}"),
            PlainToken::ticket(&mut rand::rng()).expose(),
        ] {
            for query in ["{}", "key={}", "a=1&key={}", "key={}&b=2", "a=1;k={}", "a={}#", "x=&={}"]
            {
                let query = query.replace("{}", secret);
                assert!(holds_credential(&query), "{query}");
            }
        }
    }

    #[test]
    fn other_values_pass() {
        for query in ["", "a=1", "table=tg_users", "tg_", "tga_x=1", "q=%74%67", "a=%&b=%zz"] {
            assert!(!holds_credential(query), "{query}");
        }
        assert!(!holds_credential(&format!("state={}", "a".repeat(64))));
        // Somebody else's token: {"alg":"HS256","typ":"JWT"}.
        let other = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl";
        assert!(!holds_credential(&format!("token={other}")));
    }

    proptest! {
        #[test]
        fn nothing_panics(query in "\\PC{0,200}") {
            holds_credential(&query);
        }
    }
}
