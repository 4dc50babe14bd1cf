use std::sync::Arc;

use chrono::{DateTime, Utc};

use super::*;
use crate::{
    domain::{
        id::{SessionId, UserId},
        principal::{Account, Credential, Proof},
        user::{Role, Roles},
    },
    gateway::identity::{X_KEY_ID, X_ROLES, X_USER_ID, X_USERNAME},
    server::client::{RequestId, Scheme},
};

fn client() -> ClientInfo {
    ClientInfo {
        address: "203.0.113.7".parse().unwrap(),
        peer: "10.0.0.1".parse().unwrap(),
        scheme: Scheme::Https,
        browser_scheme: Scheme::Https,
        host: Some(HeaderValue::from_static("a.example")),
        public_host: None,
        trace: None,
        request_id: RequestId::new(DateTime::from_timestamp(1_700_000_000, 0).unwrap()),
    }
}

fn alice(username: &str) -> Principal {
    let id = UserId::new(DateTime::from_timestamp(1_700_000_000, 0).unwrap());
    let account = Account {
        id,
        username: username.to_owned(),
        roles: Roles::USER,
        is_active: true,
        version: 1,
    };
    let proof = Proof::Login { session: SessionId::NIL, user: id, until: DateTime::<Utc>::MAX_UTC };
    Principal { account: Arc::new(account), credential: Credential::Login(SessionId::NIL), proof }
}

fn rewritten(headers: &HeaderMap, principal: Option<&Principal>) -> HeaderMap {
    let mut headers = headers.clone();
    let ours = Ours {
        client: &client(),
        principal,
        prefix: None,
        host: &HeaderValue::from_static("upstream.example:8080"),
        authorization: None,
        version: Version::HTTP_11,
        onward: None,
        changes: &HeaderChanges::default(),
    };
    rewrite_request(&mut headers, ours);
    headers
}

/// A name with every hyphen replaced by each other character that a field name
/// may have.
fn spellings(name: &str) -> Vec<String> {
    let others = "!#$%&'*+.^_`|~".chars();
    let all_at_once = others.clone().map(|c| name.replace('-', &c.to_string()));
    let one_at_a_time = name.match_indices('-').flat_map(|(at, _)| {
        others.clone().map(move |c| format!("{}{c}{}", &name[..at], &name[at + 1..]))
    });
    all_at_once.chain(one_at_a_time).chain([name.to_owned()]).collect()
}

#[test]
fn no_spelling_of_a_reserved_name_gets_through() {
    let names = RESERVED.iter().copied().chain([
        "x-forwarded-for",
        "x-forwarded-user",
        "x-forwarded-",
        "x-tollgate-anything",
    ]);
    let mut tried = 0;
    for name in names.flat_map(spellings) {
        let mut headers = HeaderMap::new();
        for value in ["forged", "", "forged, again"] {
            let name = HeaderName::from_bytes(name.to_uppercase().as_bytes()).unwrap();
            headers.append(name, HeaderValue::from_static(value));
        }
        for principal in [None, Some(&alice("alice"))] {
            let sent = rewritten(&headers, principal);
            for value in sent.values() {
                assert!(!value.as_bytes().starts_with(b"forged"), "{name}");
            }
            assert_eq!(sent.contains_key(X_USER_ID), principal.is_some(), "{name}");
            tried += 1;
        }
    }
    assert!(tried >= 500, "{tried}");
}

#[test]
fn names_that_only_look_alike_pass() {
    for name in ["x-user", "x-user-identity", "x-userid", "x-forward", "x-tollgate", "forwarded-x"]
    {
        let mut headers = HeaderMap::new();
        headers.insert(name, HeaderValue::from_static("v"));
        assert!(rewritten(&headers, None).contains_key(name), "{name}");
    }
}

#[test]
fn what_connection_lists_goes_and_ours_stays() {
    for lines in [
        &["x-user-id, X-Forwarded-For, x-custom"][..],
        &["", "x-custom", "X-USER-ID,x-request-id"],
        &[" , x-custom ,,", "close", "x-roles, x-username, x-forwarded-for, via, host"],
        &["keep-alive, x-custom, \"bad token\", x-user-id"],
    ] {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(header::CONNECTION, HeaderValue::from_static(line));
        }
        headers.insert("x-custom", HeaderValue::from_static("hop"));
        headers.insert("x-kept", HeaderValue::from_static("end"));
        let alice = alice("alice");
        let sent = rewritten(&headers, Some(&alice));
        assert!(!sent.contains_key(header::CONNECTION) && !sent.contains_key("x-custom"));
        assert_eq!(sent["x-kept"], "end");
        assert_eq!(sent[X_USER_ID], alice.user_id().to_string());
        assert_eq!(sent[X_USERNAME], "alice");
        assert_eq!(sent[X_ROLES], "user");
        assert_eq!(sent[X_FORWARDED_FOR], "203.0.113.7");
        assert_eq!(sent[X_FORWARDED_PROTO], "https");
        assert_eq!(sent[X_FORWARDED_HOST], "a.example");
        assert_eq!(sent[header::HOST], "upstream.example:8080");
        assert_eq!(sent[header::VIA], "1.1 tollgate");
        assert!(!sent.contains_key(X_KEY_ID));
    }
}

#[test]
fn hop_by_hop_fields_stay_on_their_hop() {
    let names = [
        "connection",
        "keep-alive",
        "proxy-connection",
        "proxy-authenticate",
        "proxy-authorization",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    ];
    let mut headers = HeaderMap::new();
    for name in names {
        headers.insert(name, HeaderValue::from_static("x"));
    }
    headers.insert("accept-encoding", HeaderValue::from_static("gzip"));
    let sent = rewritten(&headers, None);
    assert_eq!(sent["accept-encoding"], "gzip");
    let mut answer = headers.clone();
    rewrite_response(&mut answer, &client(), false, &HeaderChanges::default());
    for name in names {
        assert!(!sent.contains_key(name) && !answer.contains_key(name), "{name}");
    }
}

#[test]
fn answers_to_an_identity_are_private_unless_the_upstream_says_otherwise() {
    let mut headers = HeaderMap::new();
    headers.insert(X_REQUEST_ID, HeaderValue::from_static("upstream's"));
    let client = client();
    rewrite_response(&mut headers, &client, true, &HeaderChanges::default());
    assert_eq!(headers[header::CACHE_CONTROL], "private");
    assert_eq!(headers[X_REQUEST_ID], client.request_id.header());

    let mut headers = HeaderMap::new();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("public"));
    rewrite_response(&mut headers, &client, true, &HeaderChanges::default());
    assert_eq!(headers[header::CACHE_CONTROL], "public");

    let mut headers = HeaderMap::new();
    rewrite_response(&mut headers, &client, false, &HeaderChanges::default());
    assert!(!headers.contains_key(header::CACHE_CONTROL));
}

#[test]
fn any_username_fits_into_a_field() {
    for (username, value) in [
        ("alice.b-c_d", "alice.b-c_d"),
        ("jörg", "j%C3%B6rg"),
        ("a b%", "a%20b%25"),
        ("a\r\nx: y", "a%0D%0Ax:%20y"),
    ] {
        assert_eq!(rewritten(&HeaderMap::new(), Some(&alice(username)))[X_USERNAME], value);
    }
}

/// The same id, so the same place: values kept for one copy must not be sent for
/// another.
#[test]
fn a_renamed_account_is_told_by_its_new_name() {
    let mut alice = alice("alice");
    for (username, roles) in [("alice", Roles::USER), ("alicia", Roles::USER.with(Role::Admin))] {
        alice.account =
            Arc::new(Account { username: username.to_owned(), roles, ..(*alice.account).clone() });
        for _ in 0..2 {
            let sent = rewritten(&HeaderMap::new(), Some(&alice));
            assert_eq!(sent[X_USERNAME], username);
            assert_eq!(sent[X_ROLES], roles.to_string());
            assert_eq!(sent[X_USER_ID], alice.user_id().to_string());
        }
    }
}

#[test]
fn the_upstreams_own_credential_replaces_the_clients() {
    let mut headers = HeaderMap::new();
    headers.insert(header::AUTHORIZATION, HeaderValue::from_static("Basic client"));
    let basic = HeaderValue::from_static("Basic ours");
    let ours = Ours {
        client: &client(),
        principal: None,
        prefix: Some(&HeaderValue::from_static("/api/proxy")),
        host: &HeaderValue::from_static("u"),
        authorization: Some(&basic),
        version: Version::HTTP_2,
        onward: None,
        changes: &HeaderChanges::default(),
    };
    rewrite_request(&mut headers, ours);
    assert_eq!(headers.get_all(header::AUTHORIZATION).iter().collect::<Vec<_>>(), ["Basic ours"]);
    assert_eq!(headers[X_FORWARDED_PREFIX], "/api/proxy");
    assert_eq!(headers[header::VIA], "2 tollgate");
}
