//! Operators see open sockets, what goes through them, and may cut one.

use serde_json::json;

use super::{PATH, app};
use crate::{
    streams::{address, listed, own_sockets},
    support::websocket::{TEXT, Upstream, Wire, frame},
};

#[tokio::test]
async fn an_admin_sees_what_goes_through_a_socket_and_cuts_it() {
    let upstream = Upstream::start().await;
    let app = app(&upstream, "").await;
    let admin = app.admin().await;
    let issued = admin.post("/api/v1/keys", json!({ "name": "k" })).await.expect(201);
    let field = format!("X-API-Key: {}\r\n", issued.text("key"));
    let mut wire = Wire::open(address(&app), &format!("{PATH}?secret=1"), &field).await;
    let mut other = Wire::open(address(&app), "/up/other", &field).await;
    for _ in 0..7 {
        wire.echoes("hello").await;
    }
    // A ping of its own counts as bytes, and as no message.
    let sent = frame(TEXT, true, b"hello").len() * 7;
    let mut all = listed(&admin, &own_sockets(&admin).await, 2).await;
    all.sort_by_key(|stream| stream["path"].as_str().unwrap().len());
    let (socket, beside) = (&all[0], &all[1]);
    assert_eq!((&socket["path"], &beside["path"]), (&json!(PATH), &json!("/up/other")));
    assert_eq!((&socket["kind"], &socket["upstream"]), (&json!("websocket"), &json!("default")));
    assert_eq!((&socket["username"], &socket["key_id"]), (&json!("admin"), &issued.json["id"]));
    assert_eq!((&socket["messages_in"], &socket["messages_out"]), (&json!(7), &json!(7)));
    assert_eq!((&socket["bytes_in"], &socket["bytes_out"]), (&json!(sent), &json!(wire.heard)));
    assert_eq!((&beside["messages_in"], &beside["bytes_in"]), (&json!(0), &json!(0)));
    let path = format!("/api/v1/admin/connections/{}", socket["id"].as_str().unwrap());
    admin.delete(&path).await.expect(204);
    assert_eq!(wire.closed().await, (1008, "cut".to_owned()));
    other.echoes("still").await;
    assert_eq!(listed(&admin, &own_sockets(&admin).await, 1).await[0]["path"], "/up/other");
    admin.delete(&path).await.expect_problem(404, "not_found");
    let metrics = app.anonymous().get("/metrics").await.expect(200);
    let text = String::from_utf8_lossy(&metrics.body).into_owned();
    assert!(text.contains("tollgate_streams_ended_total{kind=\"websocket\",reason=\"cut\"}"));
}
