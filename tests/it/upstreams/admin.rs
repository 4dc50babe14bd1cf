//! What operators see of upstreams.

use serde_json::json;

use super::{closed, get, public, start};
use crate::support::recorder::{Recorder, ok};

#[tokio::test]
async fn upstreams_are_listed_with_how_their_targets_fare() {
    let recorder = Recorder::start(ok).await;
    let dead = closed();
    let file = public(&format!(
        "targets=[{{ url='{}', weight=3 }}]\nbasic_auth_user='u'\nbasic_auth_password='pa55word'",
        recorder.url()
    )) + &format!(
        "[[upstreams]]\nname='b'\nmount='/b'\nauth='public'\nurl='http://{dead}'\n\
         request_headers={{ set={{ Authorization='Bearer hidden' }} }}\n\
         [[upstreams]]\nname='c'\nmount='C.example.com'\nurl='http://10.0.0.1'\n"
    );
    let app = start(&file).await;
    assert_eq!(get(&app, "/").await.status, 200);
    assert_eq!(get(&app, "/b/").await.status, 502);
    let listed = app.admin().await.get("/api/v1/admin/upstreams").await.expect(200);
    let text = String::from_utf8(listed.body.to_vec()).unwrap();
    assert!(!text.contains("pa55word") && !text.contains("hidden"), "{text}");
    let items = &listed.json["items"];
    assert_eq!(
        items[0],
        json!({ "name": "app", "mount": "/", "retries": 0, "targets": [{
            "url": recorder.url(), "weight": 3, "healthy": true, "breaker": "closed",
            "in_flight": 0, "connections": 1, "pending": 0, "last_error": null,
            "last_error_at": null,
        }] })
    );
    let b = &items[1]["targets"][0];
    assert_eq!((&b["last_error"], &b["connections"]), (&json!("unreachable"), &json!(0)));
    assert!(b["last_error_at"].is_string());
    assert_eq!(items[1]["retries"], 1);
    assert_eq!((&items[2]["name"], &items[2]["mount"]), (&json!("c"), &json!("c.example.com")));

    let metrics = app.anonymous().get("/metrics").await.expect(200);
    let metrics = String::from_utf8(metrics.body.to_vec()).unwrap();
    let labels = format!("{{upstream=\"b\",target=\"http://{dead}\"");
    for line in [
        format!("tollgate_upstream_failures_total{labels},reason=\"unreachable\"}} 2"),
        format!("tollgate_upstream_available{labels}}} 1"),
        format!(
            "tollgate_upstream_connections{{upstream=\"app\",target=\"{}\"}} 1",
            recorder.url()
        ),
    ] {
        assert!(metrics.contains(&line), "no {line} in {metrics}");
    }
}

#[tokio::test]
async fn the_echo_has_no_targets_and_is_well() {
    let app = crate::support::TestApp::start().await;
    let listed = app.admin().await.get("/api/v1/admin/upstreams").await.expect(200);
    let echo = json!({ "name": "echo", "mount": "/api/v1/proxy", "retries": 0, "targets": [] });
    assert_eq!(listed.json["items"], json!([echo]));
    let health = app.anonymous().get("/health").await.expect(200);
    assert_eq!(health.json["services"]["upstreams"], "healthy");
}
