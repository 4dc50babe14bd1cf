//! `POST /admin/reload`: all or nothing (G-66).

use serde_json::json;
use tollgate::config::Sources;

use super::{address, get, public, start, targets};
use crate::support::{
    TestApp,
    raw::Raw,
    recorder::{Recorder, Reply, ok},
};

fn change(app: &TestApp, change: impl FnOnce(&mut Sources)) {
    change(&mut app.sources.lock().unwrap());
}

fn set(app: &TestApp, name: &str, value: &str) {
    change(app, |sources| _ = sources.environment.insert(name.to_owned(), value.to_owned()));
}

#[tokio::test]
async fn a_reload_says_what_it_changed_and_what_waits_for_a_restart() {
    let (one, other) = (Recorder::start(ok).await, Recorder::start(ok).await);
    let app = start(&public(&format!("url='{}'", one.url()))).await;
    let admin = app.admin().await;
    let reload = async || admin.post_empty("/api/v1/admin/reload").await.expect(200).json;
    assert_eq!(reload().await, json!({ "changed": [], "restart_needed": [] }));
    assert_eq!(get(&app, "/").await.status, 200);

    let two = public(&format!("url='{}'", other.url()))
        + &format!("[[upstreams]]\nname='b'\nmount='/b'\nauth='public'\nurl='{}'", one.url());
    change(&app, |sources| sources.file = Some(two));
    assert_eq!(
        reload().await,
        json!({ "changed": ["upstreams.app", "upstreams.b"], "restart_needed": [] })
    );
    assert_eq!((get(&app, "/").await.status, get(&app, "/b/x").await.status), (200, 200));
    assert_eq!((other.take().len(), one.take().len()), (1, 2));

    set(&app, "RATE_LIMIT_USER_PER_MINUTE", "7777");
    set(&app, "WALLET_STARTING_BALANCE", "5");
    set(&app, "RATE_LIMIT_ON_STORE_LOSS", "deny");
    let waiting = json!(["WALLET_STARTING_BALANCE"]);
    let answer = admin.post_empty("/api/v1/admin/reload").await.expect(200);
    let changed = json!(["RATE_LIMIT_ON_STORE_LOSS", "RATE_LIMIT_USER_PER_MINUTE"]);
    assert_eq!(answer.json["changed"], changed);
    assert_eq!(answer.json["restart_needed"], waiting);
    let limited = admin.get("/api/v1/users/me").await.expect(200);
    assert_eq!(limited.header("x-ratelimit-limit"), "7777");
    // Until it happens.
    assert_eq!(reload().await, json!({ "changed": [], "restart_needed": waiting }));
    set(&app, "WALLET_STARTING_BALANCE", "0");
    set(&app, "AUTH_SECRET_KEY", "quite another one: 93 Giraffes 5 Lemurs?");
    let changed = reload().await;
    assert_eq!(changed["changed"], json!(["AUTH_SECRET_KEY"]));
    // The key that signed the admin's login is gone.
    admin.get("/api/v1/users/me").await.expect_problem(401, "invalid_credential");
}

#[tokio::test]
async fn what_is_wrong_anywhere_changes_nothing_and_is_named_without_its_value() {
    let recorder = Recorder::start(ok).await;
    let good = public(&format!("url='{}'", recorder.url()));
    let app = start(&good).await;
    let admin = app.admin().await;
    let before = admin.get("/api/v1/admin/upstreams").await.json;
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("ca.pem");
    std::fs::write(&ca, "hunter2 is no certificate").unwrap();
    let other = public("url='http://10.0.0.9'");
    for (file, setting, names) in [
        (format!("{other}ca_file={:?}", ca.to_str().unwrap()), "", &["upstreams.app.ca_file"][..]),
        (format!("{other}ca_file='/nowhere/hunter2'"), "", &["upstreams.app.ca_file"]),
        (format!("{other}max_connections='hunter2'"), "", &["upstreams.app.max_connections"]),
        (format!("{other}colour='hunter2'"), "", &["upstreams.app.colour"]),
        (public("url='http://user:hunter2@10.0.0.9'"), "", &["upstreams.app.url"]),
        (public("url='http://169.254.169.254'"), "", &["upstreams.app.url"]),
        (format!("{other}{other}"), "", &["upstreams.app.name", "upstreams.app.mount"]),
        (other.clone(), "hunter2", &["AUTH_SECRET_KEY"]),
        (format!("{other}= hunter2"), "", &["configuration file, line 6"]),
        (
            format!("{other}colour='hunter2'\nmax_pending=-1"),
            "hunter2",
            &["upstreams.app.max_pending", "upstreams.app.colour", "AUTH_SECRET_KEY"],
        ),
    ] {
        change(&app, |sources| sources.file = Some(file.clone()));
        set(&app, "AUTH_SECRET_KEY", setting);
        let answer = admin.post_empty("/api/v1/admin/reload").await;
        let answer = answer.expect_problem(422, "invalid_configuration");
        let text = String::from_utf8(answer.body.to_vec()).unwrap();
        assert!(!text.contains("hunter2") && !text.contains("169.254"), "{text}");
        let errors = answer.json["errors"].as_array().unwrap();
        let mut found: Vec<_> = errors.iter().map(|e| e["field"].as_str().unwrap()).collect();
        let mut names = names.to_vec();
        found.sort_unstable();
        names.sort_unstable();
        assert_eq!(found, names, "{file}");
        assert!(errors.iter().all(|e| e["message"].as_str().is_some_and(|m| m.len() > 5)));
        // The old one holds, whole.
        assert_eq!(admin.get("/api/v1/admin/upstreams").await.json["items"][0]["name"], "app");
        assert_eq!(get(&app, "/").await.status, 200, "{file}");
    }
    let targets = targets(&app).await;
    assert_eq!(targets[0]["url"], before["items"][0]["targets"][0]["url"]);
    change(&app, |sources| sources.file = Some(good));
    set(&app, "AUTH_SECRET_KEY", "");
    let healed = admin.post_empty("/api/v1/admin/reload").await.expect(200);
    assert_eq!(healed.json, json!({ "changed": [], "restart_needed": [] }));
}

/// What an upstream had stays with it: connections, and what is known of its
/// targets.
#[tokio::test]
async fn a_reload_that_changes_something_else_costs_an_upstream_nothing() {
    let (parts, stream) = tokio::sync::mpsc::unbounded_channel::<Vec<u8>>();
    let stream = std::sync::Mutex::new(Some(stream));
    let recorder = Recorder::start(move |delivery| {
        if delivery.request_line().contains("/stream") {
            Reply::Stream(stream.lock().unwrap().take().unwrap())
        } else {
            ok(delivery)
        }
    })
    .await;
    let app = start(&public(&format!("url='{}'", recorder.url()))).await;
    let mut client = Raw::connect(address(&app)).await;
    client.send("GET /stream HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    parts.send(format!("{head}4\r\nfrom\r\n").into()).unwrap();
    client.until(b"from").await;
    assert_eq!(get(&app, "/").await.status, 200);
    let admin = app.admin().await;
    for round in 0..20 {
        // First beside it, then itself: its stream goes on all the same.
        let rest = if round < 10 { String::new() } else { format!("max_pending={round}") };
        let beside = format!("[[upstreams]]\nname='b{round}'\nmount='/b'\nurl='http://10.0.0.1'\n");
        let file = public(&format!("url='{}'\n{rest}", recorder.url())) + &beside;
        change(&app, |sources| sources.file = Some(file));
        admin.post_empty("/api/v1/admin/reload").await.expect(200);
        assert_eq!(get(&app, "/").await.status, 200);
        if round < 10 {
            assert_eq!(recorder.connections(), 2, "round {round}");
        }
        let target = &targets(&app).await[0];
        assert_eq!(target["in_flight"], 1, "round {round}");
        parts.send(format!("2\r\n{round:02}\r\n").into()).unwrap();
        client.until(format!("{round:02}").as_bytes()).await;
    }
    parts.send(b"0\r\n\r\n".to_vec()).unwrap();
    let answer = client.answer().await.unwrap();
    assert!(answer.complete && answer.text().ends_with("19"), "{answer:?}");
}
