//! Who a request acts for is ours to say, and our credentials stay with us.

use super::{
    address, admin_key,
    forgeries::{LISTED, THEIRS_TOO, Told, assert_ours_are_there, forgeries},
    in_front_of,
};
use crate::support::{
    raw::Raw,
    recorder::{Recorder, ok},
};

#[tokio::test]
async fn no_client_can_say_who_it_is() {
    let recorder = Recorder::start(ok).await;
    let forgeries = forgeries();
    assert!(forgeries.len() >= 500, "{}", forgeries.len());
    for (demand, counts) in [("optional", [false, true]), ("public", [false, false])] {
        let app = in_front_of(&recorder, &[("UPSTREAM_AUTH", demand)]).await;
        let (key, admin) = Told::of_admin(&app).await;
        let (mut passed, mut refused) = (0, 0);
        for forgery in &forgeries {
            let credentials = [String::new(), format!("X-API-Key: {key}\r\n")];
            for (credential, counts) in credentials.into_iter().zip(counts) {
                let request =
                    format!("POST /x HTTP/1.1\r\nHost: a.example\r\n{credential}{forgery}\r\n");
                let answer = Raw::exchange(address(&app), &request).await;
                let seen = recorder.take();
                if answer.status == 400 {
                    assert!(seen.is_empty(), "{forgery:?}");
                    refused += 1;
                    continue;
                }
                assert_eq!((answer.status, seen.len()), (200, 1), "{forgery:?}");
                passed += 1;
                let told = if counts { &admin } else { &admin.nobody() };
                told.assert_all_of(&seen[0], forgery);
                for hop in ["connection", "upgrade"] {
                    assert!(seen[0].all(hop).is_empty(), "{hop} after {forgery:?}");
                }
            }
        }
        // Both ways of being safe were really taken.
        assert!(passed > 300 && refused > 300, "{passed} {refused}");
    }
}

/// What `Connection` lists is taken away, whatever it is; ours are set after.
/// The sockets' turn is in `sockets/forged.rs`.
#[tokio::test]
async fn a_list_of_fields_to_drop_drops_none_of_ours() {
    let recorder = Recorder::start(ok).await;
    let app = in_front_of(&recorder, &THEIRS_TOO).await;
    let (key, admin) = Told::of_admin(&app).await;
    for (listed, dropped) in LISTED {
        let request = format!(
            "POST /x HTTP/1.1\r\nHost: a.example\r\nX-API-Key: {key}\r\n{listed}\
             Authorization: Basic dTpw\r\nCookie: a=1\r\nX-Mine: 1\r\nX-Other: 2\r\n\
             Accept: c\r\nContent-Length: 3\r\n\r\nabc"
        );
        let answer = Raw::exchange(address(&app), &request).await;
        let seen = recorder.take();
        assert_eq!((answer.status, seen.len()), (200, 1), "{listed:?}");
        assert_ours_are_there(&seen[0], &admin, listed, dropped);
        assert_eq!(seen[0].body, b"abc", "{listed:?}");
        let framing = [seen[0].all("content-length"), seen[0].all("transfer-encoding")].concat();
        assert_eq!(framing.len(), 1, "{listed:?}: {}", seen[0].head);
        assert!(seen[0].all("connection").is_empty(), "{listed:?}");
    }
}

#[tokio::test]
async fn our_credentials_never_reach_the_upstream() {
    let recorder = Recorder::start(ok).await;
    let app = in_front_of(&recorder, &[]).await;
    let key = admin_key(&app).await;
    let login = app.login("admin", crate::support::PASSWORD).await.expect(200);
    let jwt = login.text("access_token").to_owned();
    let ours = |secret: &str, head: &str| head.contains(&secret[..12]);
    for fields in [
        format!("X-API-Key: {key}\r\n"),
        format!("x-api-key:{key}\r\n"),
        format!("Authorization: Bearer {key}\r\n"),
        format!("authorization: bEARER {jwt}\r\n"),
        format!("Authorization: Bearer {jwt}\r\nX-API-Key: {key}\r\n"),
        format!("Authorization: Bearer {key}\r\nX-API-Key: {key}\r\n"),
        format!(
            "X-API-Key: {key}\r\nCookie: a=1; __Host-tollgate={jwt}; tollgate_t={key}; b=2\r\n"
        ),
    ] {
        let request = format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
        let answer = Raw::exchange(address(&app), request).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let seen = recorder.take();
        assert_eq!(seen.len(), 1);
        assert!(!ours(&key, &seen[0].head) && !ours(&jwt, &seen[0].head), "{}", seen[0].head);
        assert!(seen[0].all("authorization").is_empty() && seen[0].all("x-api-key").is_empty());
        if fields.contains("Cookie") {
            assert_eq!(seen[0].all("cookie"), ["a=1; b=2"]);
        }
    }
    // Another scheme is the upstream's own.
    let request = format!(
        "GET / HTTP/1.1\r\nHost: a\r\nX-API-Key: {key}\r\nAuthorization: Basic dTpw\r\n\r\n"
    );
    assert_eq!(Raw::exchange(address(&app), request).await.status, 200);
    assert_eq!(recorder.take()[0].all("authorization"), ["Basic dTpw"]);
}

#[tokio::test]
async fn every_credential_that_is_present_must_be_good() {
    let recorder = Recorder::start(ok).await;
    let app = in_front_of(&recorder, &[("UPSTREAM_AUTH", "optional")]).await;
    let key = admin_key(&app).await;
    let last = if key.ends_with('x') { 'y' } else { 'x' };
    let bad = format!("{}{last}", &key[..key.len() - 1]);
    let field = |name: &str, value: &str| format!("{name}: {value}\r\n");
    let good = field("X-API-Key", &key);
    for (fields, status, code) in [
        (field("X-API-Key", &bad), 401, "invalid_credential"),
        (field("X-API-Key", ""), 401, "invalid_credential"),
        (field("Authorization", "Bearer"), 401, "invalid_credential"),
        (field("Authorization", "Bearer a.b.c"), 401, "invalid_credential"),
        (
            good.clone() + &field("Authorization", &format!("Bearer {bad}")),
            401,
            "invalid_credential",
        ),
        (good.clone() + &field("Authorization", "Bearer a.b.c"), 401, "invalid_credential"),
        (good.clone() + &field("X-Access-Token", "tga_x"), 401, "invalid_credential"),
        (good.clone() + &good, 400, "duplicate_credential"),
        (
            field("Authorization", "Basic a") + &field("Authorization", "Basic b"),
            400,
            "duplicate_credential",
        ),
    ] {
        let answer =
            Raw::exchange(address(&app), format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n"))
                .await;
        assert_eq!(answer.status, status, "{fields}: {}", answer.text());
        assert_eq!(answer.json()["code"], code, "{fields}");
        assert_eq!(answer.header("content-type"), Some("application/problem+json"));
        assert_eq!(answer.header("www-authenticate").is_some(), status == 401);
        assert_eq!(answer.header("x-request-id"), answer.json()["request_id"].as_str());
    }
    assert!(recorder.take().is_empty());
    for path in ["?key=", "?a=1&api_key=", "?"] {
        let request = format!("GET /{path}{key} HTTP/1.1\r\nHost: a\r\n\r\n");
        let answer = Raw::exchange(address(&app), request).await;
        assert_eq!((answer.status, &answer.json()["code"]), (400, &"credential_in_url".into()));
        assert!(!answer.text().contains(&key[..12]));
    }
    assert!(recorder.take().is_empty());
}

#[tokio::test]
async fn without_a_credential_a_required_upstream_stays_closed() {
    let recorder = Recorder::start(ok).await;
    let app = in_front_of(&recorder, &[]).await;
    let answer = Raw::exchange(address(&app), "GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!((answer.status, &answer.json()["code"]), (401, &"unauthenticated".into()));
    assert!(recorder.take().is_empty());
}

/// Other than the fields that are named as ours or hop-by-hop, a request passes
/// as it is, and so does its answer.
#[tokio::test]
async fn everything_else_passes_unchanged() {
    let recorder = Recorder::start(|_| {
        crate::support::recorder::Reply::Send(
            b"HTTP/1.1 418 Short And Stout\r\nContent-Length: 3\r\nX-Own: 1\r\nX-Own: 2\r\n\
              Connection: x-hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\nSet-Cookie: a=1\r\n\
              Set-Cookie: __Host-tollgate-sid=evil\r\nX-Request-Id: theirs\r\n\r\ntea"
                .to_vec(),
        )
    })
    .await;
    let app = in_front_of(&recorder, &[]).await;
    let key = admin_key(&app).await;
    let request = format!(
        "PROPFIND /a%20b?x=%2F&&y HTTP/1.1\r\nHost: a.example:81\r\nX-API-Key: {key}\r\n\
         Accept-Encoding: gzip\r\nX-Two: 1\r\nX-Two: 2\r\nX-Request-Id: mine\r\nDepth: 1\r\n\
         Content-Length: 3\r\n\r\nabc"
    );
    let answer = Raw::exchange(address(&app), request).await;
    assert!(answer.head.starts_with("HTTP/1.1 418 Short And Stout\r\n"), "{}", answer.head);
    assert_eq!((answer.text(), answer.header("x-request-id")), ("tea", Some("mine")));
    assert_eq!(answer.header("cache-control"), Some("private"));
    assert_eq!(answer.header("via"), Some("1.1 tollgate"));
    let all = |name| crate::support::raw::headers(&answer.head, name).collect::<Vec<_>>();
    assert_eq!((all("x-own"), all("set-cookie")), (vec!["1", "2"], vec!["a=1"]));
    assert!(all("x-hop").is_empty() && all("keep-alive").is_empty());

    let seen = recorder.take().remove(0);
    assert_eq!(seen.request_line(), "PROPFIND /a%20b?x=%2F&&y HTTP/1.1");
    assert_eq!(seen.body, b"abc");
    assert_eq!(seen.all("x-two"), ["1", "2"]);
    assert_eq!(seen.all("host"), [recorder.address.to_string()]);
    assert_eq!(seen.all("x-forwarded-host"), ["a.example:81"]);
    assert_eq!(seen.all("x-request-id"), ["mine"]);
    let mut names = seen.names();
    names.sort();
    assert_eq!(
        names,
        [
            "accept-encoding",
            "content-length",
            "depth",
            "host",
            "via",
            "x-forwarded-for",
            "x-forwarded-host",
            "x-forwarded-proto",
            "x-key-id",
            "x-request-id",
            "x-roles",
            "x-two",
            "x-two",
            "x-user-id",
            "x-username",
        ]
    );
}
