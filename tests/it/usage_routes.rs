//! Usage told apart by route and pass, and what streams used.

use serde_json::{Value, json};
use tollgate::{
    domain::{audit::SYSTEM, id::UserId},
    services::passes::Order,
};

use crate::support::{
    Client, TestApp,
    recorder::{Recorder, Reply, ok},
};

async fn groups(client: &Client, group: &str) -> Vec<(Value, Value)> {
    let path = format!("/api/v1/usage?group_by={group}");
    let report = client.get(&path).await.expect(200);
    let items = report.json["items"].as_array().unwrap();
    items.iter().map(|item| (item["group"].clone(), item["requests"].clone())).collect()
}

/// However many paths clients think of, there are as many routes as were listed,
/// and one for the rest (RELIABILITY G-87).
#[tokio::test]
async fn routes_are_the_operators_and_never_the_clients() {
    let upstream = Recorder::start(ok).await;
    let file = format!(
        "[[upstreams]]\nname='llm'\nmount='/llm'\nurl='{}'\n\
         routes=['/v1/chat/*', '/v1/**', '/']\n",
        upstream.url()
    );
    let app = TestApp::configured([("FILE", &file)]).await;
    let admin = app.admin().await;
    let (_, key) = app.key(&admin, json!({ "name": "k" })).await;
    for path in ["/v1/chat/a", "/v1/chat/b?c=/v1/chat/d", "/v1/models", "/v1", "/", "/elsewhere"] {
        key.get(&format!("/llm{path}")).await.expect(200);
    }
    for number in 0..20 {
        key.get(&format!("/llm/made-up/{number}")).await.expect(200);
    }
    app.flush().await;
    let expected = [("llm/", 1), ("llm/**", 21), ("llm/v1/**", 2), ("llm/v1/chat/*", 2)];
    let expected = expected.map(|(route, requests)| (json!(route), json!(requests)));
    assert_eq!(groups(&key, "route").await, expected);
    let all = admin.get("/api/v1/usage/all?group_by=route&limit=1").await.expect(200);
    assert_eq!(all.json["items"][0]["group"], "llm/**");
    let log = key.get("/api/v1/usage/requests?limit=26").await.expect(200);
    assert_eq!(log.json["items"][25]["route"], "/v1/chat/*");
}

#[tokio::test]
async fn the_default_upstream_has_routes_as_well() {
    let app = TestApp::configured([("UPSTREAM_ROUTES", "/hello/*,/hello")]).await;
    let (_, key) = app.key(&app.admin().await, json!({ "name": "k" })).await;
    key.get("/api/v1/proxy/hello").await.expect(200);
    app.flush().await;
    assert_eq!(groups(&key, "route").await, [(json!("echo/hello"), json!(1))]);
}

#[tokio::test]
async fn usage_is_told_apart_by_pass() {
    let app = TestApp::start().await;
    let ada = app.user("ada").await;
    let owner: UserId = ada.get("/api/v1/users/me").await.expect(200).text("id").parse().unwrap();
    let mut expected = vec![];
    for times in [2, 3] {
        let order = Order { duration_hours: 1, upstream: None };
        let given = app.app.services.passes.grant(&SYSTEM, owner, order, None).await.unwrap();
        let text = given.token.unwrap().expose().to_owned();
        let bearer = app.anonymous().with("x-access-token", &text);
        for _ in 0..times {
            bearer.get("/api/v1/proxy/hello").await.expect(200);
        }
        expected.push((json!(given.pass.id.to_string()), json!(times)));
    }
    ada.get("/api/v1/proxy/hello").await.expect(200);
    app.flush().await;
    let mut found = groups(&ada, "token").await;
    assert_eq!(found.remove(0), (Value::Null, json!(1)));
    found.sort_by_key(|(_, requests)| requests.as_u64());
    assert_eq!(found, expected);
    let log = ada.get("/api/v1/usage/requests").await.expect(200);
    assert_eq!(log.json["items"][0]["token_id"], Value::Null);
    assert_eq!(log.json["items"][1]["token_id"], expected[1].0);
}

#[tokio::test]
async fn events_are_counted_and_streams_by_their_time() {
    let upstream = Recorder::start(|delivery| {
        let events = delivery.request_line().contains("/events");
        let kind = if events { "text/event-stream" } else { "text/plain" };
        let head = format!("HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\nconnection: close\r\n\r\n");
        let body = ": hello\n\ndata: a\n\ndata: b\r\n\r\nid: 3\ndata: c\n\ndata: half";
        Reply::SendThenClose([head.as_bytes(), body.as_bytes()].concat())
    })
    .await;
    let app = TestApp::configured([("UPSTREAM_URL", upstream.url().as_str())]).await;
    let (_, key) = app.key(&app.admin().await, json!({ "name": "k" })).await;
    let totals = async || {
        app.flush().await;
        let report = key.get("/api/v1/usage").await.expect(200);
        let totals = &report.json["totals"];
        let seconds = totals["stream_seconds"].as_f64().unwrap();
        (totals["messages"].as_u64().unwrap(), seconds, totals["duration_ms"]["mean"].clone())
    };
    key.get("/api/v1/proxy/text").await.expect(200);
    let (messages, seconds, _) = totals().await;
    assert_eq!((messages, seconds.to_bits()), (0, 0f64.to_bits()));
    key.get("/api/v1/proxy/events").await.expect(200);
    let (messages, seconds, mean) = totals().await;
    assert_eq!(messages, 3);
    // It is one of two requests, and its time is among theirs.
    assert!(seconds > 0.0 && seconds * 1000.0 <= 2.0 * mean.as_f64().unwrap() + 0.01);
}
