//! Limits and their fields on proxied answers.

use serde_json::json;

use super::{address, in_front_of, recorded};
use crate::support::{
    raw::{Answer, Raw},
    recorder::{Recorder, ok},
};

#[tokio::test]
async fn the_request_over_the_limit_is_refused_and_not_forwarded() {
    let recorder = Recorder::start(ok).await;
    let app = in_front_of(&recorder, &[]).await;
    let fields = json!({ "name": "k", "rate_limit_per_minute": 3 });
    let issued = app.admin().await.post("/api/v1/keys", fields).await.expect(201);
    let request =
        format!("GET /a HTTP/1.1\r\nHost: a\r\nX-API-Key: {}\r\n\r\n", issued.text("key"));
    let number = |answer: &Answer, name: &str| answer.header(name).unwrap().parse::<u64>().unwrap();
    for left in [2, 1, 0] {
        let answer = Raw::exchange(address(&app), &request).await;
        assert_eq!(answer.status, 200);
        assert_eq!(number(&answer, "x-ratelimit-limit"), 3);
        assert_eq!(number(&answer, "x-ratelimit-remaining"), left);
        assert_eq!(answer.header("ratelimit-policy"), Some("\"minute\";q=3;w=60"));
        let state = answer.header("ratelimit").unwrap();
        assert!(state.starts_with(&format!("\"minute\";r={left};t=")), "{state}");
    }
    assert_eq!(recorder.take().len(), 3);
    let answer = Raw::exchange(address(&app), &request).await;
    assert_eq!((answer.status, &answer.json()["code"]), (429, &"rate_limited".into()));
    assert_eq!(number(&answer, "x-ratelimit-remaining"), 0);
    assert!((1..=60).contains(&number(&answer, "retry-after")));
    assert!(recorder.take().is_empty());
    let outcomes: Vec<_> =
        recorded(&app, 4).await.iter().map(|r| r["outcome"].as_str().unwrap().to_owned()).collect();
    assert_eq!(outcomes.iter().filter(|o| *o == "rejected").count(), 1);
    assert_eq!(outcomes.iter().filter(|o| *o == "completed").count(), 3);
}

#[tokio::test]
async fn a_key_opens_only_what_it_is_for() {
    let recorder = Recorder::start(ok).await;
    let app = in_front_of(&recorder, &[]).await;
    let admin = app.admin().await;
    for (fields, origin, code) in [
        (json!({ "name": "a", "upstreams": ["other"] }), "", "upstream_not_allowed"),
        (json!({ "name": "b", "allowed_ips": ["192.0.2.0/24"] }), "", "address_not_allowed"),
        (
            json!({ "name": "c", "allowed_origins": ["https://a.example"] }),
            "",
            "origin_not_allowed",
        ),
        (
            json!({ "name": "d", "allowed_origins": ["https://a.example"] }),
            "Origin: https://b.example\r\n",
            "origin_not_allowed",
        ),
    ] {
        let issued = admin.post("/api/v1/keys", fields).await.expect(201);
        let key = issued.text("key");
        let request = format!("GET / HTTP/1.1\r\nHost: a\r\nX-API-Key: {key}\r\n{origin}\r\n");
        let answer = Raw::exchange(address(&app), request).await;
        assert_eq!((answer.status, &answer.json()["code"]), (403, &code.into()));
    }
    assert!(recorder.take().is_empty());
}
