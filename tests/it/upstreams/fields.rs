//! Fields that an operator sets or takes away, and which `Host` is sent.

use serde_json::json;
use tollgate::config::{Config, Sources};

use super::{address, public, start};
use crate::support::{
    raw::{Raw, headers},
    recorder::{Delivery, Recorder, Reply},
};

#[tokio::test]
async fn fields_are_set_and_taken_away_in_both_directions() {
    let recorder = Recorder::start(|_| {
        Reply::Send(
            b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nServer: inner/1.2\r\nX-Powered-By: a\r\n\
              X-Powered-By: b\r\nX-Keep: 1\r\nCache-Control: public\r\n\r\n"
                .to_vec(),
        )
    })
    .await;
    let app = start(&public(&format!(
        "url='{}'\n\
         request_headers={{ remove=['origin','x-two'], set={{ X-Api-Key='inner key', Accept='x/y', \
         Authorization='Bearer inner', X-New='new' }} }}\n\
         response_headers={{ remove=['server','X-POWERED-BY'], set={{ Cache-Control='no-store', \
         X-Frame-Options='DENY' }} }}",
        recorder.url()
    )))
    .await;
    let request = "GET / HTTP/1.1\r\nHost: a.example\r\nOrigin: http://b\r\nX-Two: 1\r\nX-Two: 2\r\n\
                   Accept: text/html\r\nAccept: a/b\r\nX-New: forged\r\nX-Stay: 1\r\n\
                   Authorization: Basic dTpw\r\n\r\n";
    let answer = Raw::exchange(address(&app), request).await;
    let all = |name| headers(&answer.head, name).collect::<Vec<_>>();
    assert!(all("server").is_empty() && all("x-powered-by").is_empty());
    assert_eq!(all("cache-control"), ["no-store"]);
    assert_eq!((all("x-frame-options"), all("x-keep")), (vec!["DENY"], vec!["1"]));
    let seen = recorder.take().remove(0);
    assert!(seen.all("origin").is_empty() && seen.all("x-two").is_empty());
    assert_eq!((seen.all("accept"), seen.all("x-new")), (vec!["x/y"], vec!["new"]));
    assert_eq!(seen.all("x-api-key"), ["inner key"]);
    assert_eq!(seen.all("authorization"), ["Bearer inner"]);
    assert_eq!(seen.all("x-stay"), ["1"]);
}

#[tokio::test]
async fn the_host_that_is_sent_is_the_targets_the_clients_or_a_fixed_one() {
    let recorder = Recorder::start(crate::support::recorder::ok).await;
    let own = recorder.address.to_string();
    for (rest, expected) in [
        ("", &*own),
        ("host='target'", &own),
        ("host='client'", "asked.example:81"),
        ("host='Fixed.example:8080'", "fixed.example:8080"),
    ] {
        let app = start(&public(&format!("url='{}'\n{rest}", recorder.url()))).await;
        let request = "GET / HTTP/1.1\r\nHost: asked.example:81\r\n\r\n";
        assert_eq!(Raw::exchange(address(&app), request).await.status, 200);
        let seen = recorder.take().remove(0);
        assert_eq!(seen.all("host"), [expected], "{rest}");
        assert_eq!(seen.all("x-forwarded-host"), ["asked.example:81"], "{rest}");
    }
}

/// The upstream's own, whatever the client brings: once, on every kind of
/// request, and never in an answer.
#[tokio::test]
async fn the_upstreams_own_credential_is_sent_and_the_clients_is_not() {
    let recorder = Recorder::start(|delivery: &Delivery| {
        let told = delivery.all("x-own").join(",");
        let head = format!("HTTP/1.1 401 No\r\nX-Own: {told}\r\nContent-Length: 0\r\n\r\n");
        Reply::Send(head.into_bytes())
    })
    .await;
    let rest = "basic_auth_user='us\u{e9}r'\nbasic_auth_password='p:w \u{e9}'";
    let app = start(&format!(
        "[[upstreams]]\nname='app'\nmount='/'\nauth='optional'\nurl='{}'\n{rest}\n",
        recorder.url()
    ))
    .await;
    // printf 'us\xc3\xa9r:p:w \xc3\xa9' | base64
    let own = "Basic dXPDqXI6cDp3IMOp";
    let issued = app.admin().await.post("/api/v1/keys", json!({ "name": "k" })).await.expect(201);
    let key = issued.text("key").to_owned();
    let socket = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                  Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    for (method, fields) in [
        ("GET", String::new()),
        ("POST", "Content-Length: 0\r\n".to_owned()),
        ("GET", "Authorization: Basic Zm9yZ2Vk\r\n".to_owned()),
        ("GET", "authorization: Digest x\r\nProxy-Authorization: Basic Zm9yZ2Vk\r\n".to_owned()),
        ("GET", format!("Authorization: Bearer {key}\r\n")),
        ("GET", format!("X-API-Key: {key}\r\nAuthorization: Basic Zm9yZ2Vk\r\n")),
        ("GET", "Connection: Authorization\r\nAuthorization: Basic Zm9yZ2Vk\r\n".to_owned()),
        ("GET", format!("{socket}X-API-Key: {key}\r\nAuthorization: Basic Zm9yZ2Vk\r\n")),
    ] {
        let request = format!("{method} / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
        let answer = Raw::exchange(address(&app), request).await;
        assert_eq!(answer.status, 401, "{fields}");
        let seen = recorder.take().remove(0);
        assert_eq!(seen.all("authorization"), [own], "{fields}");
        assert!(!seen.head.contains("Zm9yZ2Vk") && !seen.head.contains(&key), "{}", seen.head);
        assert!(!answer.head.contains("dXPDqXI6"), "{}", answer.head);
    }
}

/// Who asks is not the operator's to say either, in any spelling: an upstream
/// that believes these fields must be able to.
#[test]
fn reserved_fields_are_refused_in_the_configuration() {
    let names = [
        "X-User-Id",
        "x_user_id",
        "X.User.Id",
        "X-Username",
        "X-Roles",
        "x~roles",
        "X-Token-Id",
        "X-Key-Id",
        "X-Request-Id",
        "X-Real-IP",
        "Forwarded",
        "X-Forwarded-For",
        "x_forwarded_for",
        "X-Forwarded-Host",
        "X-Forwarded-Anything",
        "X-Tollgate-Assertion",
        "X-Tollgate-Anything",
        "Host",
        "Connection",
        "Keep-Alive",
        "Proxy-Connection",
        "TE",
        "Trailer",
        "Transfer-Encoding",
        "Upgrade",
        "Content-Length",
        "Expect",
        "Via",
        "HTTP2-Settings",
        "a b",
        "",
    ];
    for name in names {
        for table in ["request_headers", "response_headers"] {
            for change in
                [format!("remove=['{name}']"), format!("set={{ '{name}'='a secret value' }}")]
            {
                let rest = format!("url='http://10.0.0.1'\n{table}={{ {change} }}");
                let sources = Sources { file: Some(public(&rest)), ..Sources::default() };
                let error = Config::load(&sources).err().unwrap_or_else(|| panic!("{rest}"));
                let error = error.to_string();
                assert!(error.contains(&format!("upstreams.app.{table}.")), "{name}: {error}");
                assert!(!error.contains("a secret value"), "{error}");
            }
        }
    }
}
