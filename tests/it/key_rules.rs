//! When a key opens the door, and what it may not leave behind.

use chrono::{SecondsFormat, TimeDelta};
use futures_util::future::join_all;
use serde_json::json;
use tollgate::domain::audit::SYSTEM;
use tollgate::{
    domain::{clock::Clock as _, id::ApiKeyId, token::PlainToken},
    services::{access::Presented, api_keys::Owner, key_input::KeyChange},
};

use crate::support::{Client, TestApp};

const HELLO: &str = "/api/v1/proxy/hello";

fn path(id: &str) -> String {
    format!("/api/v1/keys/{id}")
}

async fn opens(key: &Client) {
    key.get(HELLO).await.expect(200);
}

async fn refused(key: &Client) {
    key.get(HELLO).await.expect_problem(401, "invalid_credential");
}

fn unknown_key() -> PlainToken {
    PlainToken::api_key(&mut rand::rng())
}

#[tokio::test]
async fn a_key_that_is_stopped_is_refused_at_once() {
    let (app, clock) = TestApp::with_clock().await;
    let user = app.user("ada").await;
    let (id, key) = app.key(&user, json!({ "name": "k" })).await;
    opens(&key).await;
    user.patch(&path(&id), json!({ "is_active": false })).await.expect(200);
    refused(&key).await;
    user.patch(&path(&id), json!({ "is_active": true })).await.expect(200);
    opens(&key).await;

    // Dead at its expiry, alive until then (G-59).
    let end = clock.now() + TimeDelta::seconds(3);
    let end = end.to_rfc3339_opts(SecondsFormat::Micros, true);
    user.patch(&path(&id), json!({ "expires_at": end })).await.expect(200);
    clock.advance(TimeDelta::microseconds(2_999_999));
    opens(&key).await;
    clock.advance(TimeDelta::microseconds(1));
    refused(&key).await;
    user.patch(&path(&id), json!({ "expires_at": null })).await.expect(200);
    opens(&key).await;

    user.delete(&path(&id)).await.expect(204);
    refused(&key).await;
    user.get(&path(&id)).await.expect_problem(404, "not_found");
    user.delete(&path(&id)).await.expect_problem(404, "not_found");
}

#[tokio::test]
async fn a_key_stops_with_its_owners_account() {
    let app = TestApp::start().await;
    let (admin, user) = (app.admin().await, app.user("ada").await);
    let (id, key) = app.key(&user, json!({ "name": "k" })).await;
    let owner = user.get(&path(&id)).await.text("user_id").to_owned();
    opens(&key).await;
    let account = format!("/api/v1/admin/users/{owner}");
    admin.patch(&account, json!({ "is_active": false })).await.expect(200);
    refused(&key).await;
    admin.patch(&account, json!({ "is_active": true })).await.expect(200);
    opens(&key).await;
    let body = json!({ "password": crate::support::PASSWORD });
    user.json(http::Method::DELETE, "/api/v1/users/me", &body).await.expect(204);
    refused(&key).await;
}

/// Texts from several rotations each end at their own instant, also when they
/// are served from memory.
#[tokio::test]
async fn a_rotated_text_works_until_its_grace_ends() {
    let (app, clock) = TestApp::with_clock().await;
    let user = app.user("ada").await;
    let (id, first) = app.key(&user, json!({ "name": "k" })).await;
    let rotate = async |grace: serde_json::Value| {
        let answer = user.post(&format!("{}/rotate", path(&id)), grace).await.expect(200);
        assert_eq!(answer.text("id"), id);
        assert_eq!(answer.text("prefix"), &answer.text("key")[..8]);
        assert!(answer.json["rotated_at"].is_string());
        app.anonymous().with_key(answer.text("key"))
    };
    opens(&first).await;
    let second = rotate(json!({ "grace_period_seconds": 10 })).await;
    opens(&first).await;
    opens(&second).await;
    clock.advance(TimeDelta::seconds(4));
    let third = rotate(json!({ "grace_period_seconds": 20 })).await;
    for key in [&first, &second, &third] {
        opens(key).await;
    }
    // Not prolonged by the second rotation: t = 10.
    clock.advance(TimeDelta::microseconds(5_999_999));
    opens(&first).await;
    clock.advance(TimeDelta::microseconds(1));
    refused(&first).await;
    opens(&second).await;
    // t = 24.
    clock.advance(TimeDelta::microseconds(13_999_999));
    opens(&second).await;
    clock.advance(TimeDelta::microseconds(1));
    refused(&second).await;
    opens(&third).await;
    // A shorter grace shortens: the fourth rotation ends all at once.
    let fourth = rotate(json!({ "grace_period_seconds": 1000 })).await;
    opens(&third).await;
    let fifth = rotate(json!({})).await;
    for key in [&first, &second, &third, &fourth] {
        refused(key).await;
    }
    opens(&fifth).await;
    app.app.services.api_keys.prune().await.unwrap();
    opens(&fifth).await;
    for grace in [json!(2_592_001), json!(-1), json!("10")] {
        let body = json!({ "grace_period_seconds": grace });
        let answer = user.post(&format!("{}/rotate", path(&id)), body).await;
        answer.expect_problem(422, "validation_failed");
    }
    opens(&fifth).await;
}

#[tokio::test]
async fn a_key_works_from_its_networks_only() {
    let app = TestApp::start().await;
    let user = app.user("ada").await;
    let (id, _) = app.key(&user, json!({ "name": "k" })).await;
    let rotated = user.post_empty(&format!("{}/rotate", path(&id))).await.expect(200);
    let text = rotated.text("key");
    for (allowed, address, fits) in [
        ("192.0.2.7", "192.0.2.7", true),
        ("192.0.2.7", "192.0.2.8", false),
        ("192.0.2.0/24", "192.0.2.255", true),
        ("192.0.2.0/24", "::ffff:192.0.2.9", true),
        ("192.0.2.0/24", "192.0.3.0", false),
        ("0.0.0.0/0", "203.0.113.1", true),
        ("0.0.0.0/0", "2001:db8::1", false),
        ("2001:db8::/48", "2001:db8:0:ffff::1", true),
        ("2001:db8::/48", "2001:db8:1::1", false),
        ("2001:DB8:0::1", "2001:db8::1", true),
        ("::/0", "192.0.2.1", false),
        ("::ffff:192.0.2.7", "192.0.2.7", true),
        ("::ffff:192.0.2.0/120", "192.0.2.9", true),
        ("::ffff:192.0.2.0/120", "192.0.3.9", false),
    ] {
        let change = json!({ "allowed_ips": ["198.51.100.1", allowed] });
        user.patch(&path(&id), change).await.expect(200);
        let client = Client::new(&app.base).with("x-forwarded-for", address).with_key(text);
        for route in [HELLO, "/api/v1/usage"] {
            let answer = client.get(route).await;
            if fits {
                answer.expect(200);
            } else {
                answer.expect_problem(403, "address_not_allowed");
            }
        }
    }
}

#[tokio::test]
async fn a_key_works_from_its_origins_and_for_its_upstreams_only() {
    let app = TestApp::start().await;
    let user = app.user("ada").await;
    let (id, key) = app.key(&user, json!({ "name": "k" })).await;
    let origins = json!({ "allowed_origins": ["https://a.example", "http://b.example:81"] });
    user.patch(&path(&id), origins).await.expect(200);
    for (origin, fits) in [
        (Some("https://a.example"), true),
        (Some("http://b.example:81"), true),
        (Some("http://a.example"), false),
        (Some("https://a.example:443"), false),
        (Some("https://a.example.evil.example"), false),
        (Some("https://A.example"), false),
        (Some("null"), false),
        (None, false),
    ] {
        let client = origin.map_or_else(|| key.clone(), |origin| key.with("origin", origin));
        let answer = client.get(HELLO).await;
        if fits {
            answer.expect(200);
        } else {
            answer.expect_problem(403, "origin_not_allowed");
        }
    }
    user.patch(&path(&id), json!({ "allowed_origins": null })).await.expect(200);
    for (upstreams, fits) in
        [(json!(["echo"]), true), (json!(["other", "echo"]), true), (json!(["other"]), false)]
    {
        user.patch(&path(&id), json!({ "upstreams": upstreams })).await.expect(200);
        let answer = key.get(HELLO).await;
        if fits {
            answer.expect(200);
        } else {
            answer.expect_problem(403, "upstream_not_allowed");
        }
        // Its own usage is nobody's upstream.
        key.get("/api/v1/usage").await.expect(200);
    }
}

/// One identity, no guessing (G-82, G-108, G-143).
#[tokio::test]
async fn every_credential_that_is_presented_must_be_good() {
    let app = TestApp::start().await;
    let (ada, bob) = (app.user("ada").await, app.user("bob").await);
    let text = ada.post("/api/v1/keys", json!({ "name": "k" })).await.text("key").to_owned();
    let other = bob.post("/api/v1/keys", json!({ "name": "k" })).await.text("key").to_owned();
    let (bad, anonymous) = (unknown_key(), app.anonymous());
    let bad = bad.expose();
    let key = anonymous.with_key(&text);
    for (client, expected) in [
        (key.clone(), Ok("ada")),
        (anonymous.with_bearer(&text), Ok("ada")),
        (anonymous.with("X-API-KEY", &text), Ok("ada")),
        (key.with_bearer(&text), Ok("ada")),
        (key.with_bearer(&other), Ok("ada")),
        (bob.with_key(&text), Ok("ada")),
        (key.with_bearer(bad), Err((401, "invalid_credential"))),
        (anonymous.with_key(bad).with_bearer(&text), Err((401, "invalid_credential"))),
        (bob.with_key(bad), Err((401, "invalid_credential"))),
        (key.with_bearer("a.b.c"), Err((401, "invalid_credential"))),
        (key.with("x-access-token", "tga_x"), Err((401, "invalid_credential"))),
        (anonymous.with_key(""), Err((401, "invalid_credential"))),
        (anonymous.with_key(&format!("{text}x")), Err((401, "invalid_credential"))),
        (anonymous.with_key(&text.to_lowercase()), Err((401, "invalid_credential"))),
        (key.with_key(&text), Err((400, "duplicate_credential"))),
        (key.with("X-Api-Key", bad), Err((400, "duplicate_credential"))),
        (ada.with_bearer(&text), Err((400, "duplicate_credential"))),
        (anonymous.clone(), Err((401, "unauthenticated"))),
    ] {
        let proxied = client.get(HELLO).await;
        let own = client.get("/api/v1/usage").await;
        match expected {
            Ok(name) => {
                assert_eq!(proxied.expect(200).json["headers"]["x-username"], name);
                own.expect(200);
            }
            Err((status, code)) => {
                for answer in [proxied, own] {
                    let answer = answer.expect_problem(status, code);
                    assert_eq!(answer.headers.contains_key("www-authenticate"), status == 401);
                }
            }
        }
    }
    let hidden = text.replacen('_', "%5F", 1);
    for query in [format!("key={text}"), format!("a=1&x={hidden}"), format!("x={bad}")] {
        for route in [HELLO, "/api/v1/usage", "/api/v1/keys/verify"] {
            let answer = key.get(&format!("{route}?{query}")).await;
            let answer = answer.expect_problem(400, "credential_in_url");
            assert!(!String::from_utf8_lossy(&answer.body).contains(&text[8..]));
        }
    }
}

#[tokio::test]
async fn the_database_holds_no_text_of_a_key() {
    let app = TestApp::start().await;
    let user = app.user("ada").await;
    let issued = user.post("/api/v1/keys", json!({ "name": "k" })).await.expect(201);
    let rotate = format!("{}/rotate", path(issued.text("id")));
    let grace = json!({ "grace_period_seconds": 60 });
    let rotated = user.post(&rotate, grace).await.expect(200);
    let texts = [issued.text("key"), rotated.text("key")];
    for text in texts {
        opens(&app.anonymous().with_key(text)).await;
        let body = json!({ "key": text });
        app.anonymous().post("/api/v1/keys/verify", body).await.expect(200);
    }
    app.flush().await;
    let dump = app.database.dump().await;
    assert!(dump.contains("ada@example.com") && dump.contains(&texts[1][..8]), "{dump}");
    for text in texts {
        // All of it, without its prefix, and what the shown part leaves over.
        for part in [text, &text[3..], &text[8..46]] {
            assert!(!dump.contains(part));
            assert!(!dump.to_lowercase().contains(&hex::encode(part)));
        }
    }
}

/// G-89: what is not even the shape of a key costs nothing, a random one a
/// single look-up for as long as "unknown" is remembered.
#[tokio::test]
async fn a_flood_of_unknown_keys_is_cheap() {
    let (app, _clock) = TestApp::with_clock().await;
    let user = app.user("ada").await;
    let (_, key) = app.key(&user, json!({ "name": "k" })).await;
    opens(&key).await;

    let before = app.app.db.acquired();
    let good = unknown_key();
    let good = good.expose();
    let last = if good.ends_with('0') { "1" } else { "0" };
    let refresh = PlainToken::refresh(&mut rand::rng());
    for bad in [
        format!("{}{last}", &good[..51]),
        good[..51].to_owned(),
        good.replacen("tg_", "tgx", 1),
        refresh.expose().to_owned(),
        "tg_".to_owned(),
        format!("tg_{}", "A".repeat(49)),
    ] {
        refused(&app.anonymous().with_key(&bad)).await;
        refused(&app.anonymous().with_bearer(&bad)).await;
        let answer = app.anonymous().post("/api/v1/keys/verify", json!({ "key": bad })).await;
        assert_eq!(answer.expect(200).json["code"], "not_found");
    }
    assert_eq!(app.app.db.acquired(), before);

    let access = &app.app.services.access;
    let flood: Vec<_> = (0..2000).map(|_| unknown_key()).collect();
    for _ in 0..2 {
        for token in &flood {
            let presented = Presented { api_key: Some(token.expose()), ..Presented::default() };
            assert!(access.authenticate(presented).await.is_err());
        }
        assert_eq!(app.app.db.acquired(), before + 2000);
    }
    refused(&app.anonymous().with_key(flood[0].expose())).await;
    opens(&key).await;
    assert_eq!(app.app.db.acquired(), before + 2000);
}

/// Many requests miss at once: one look-up of the key, one of its owner (G-90).
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_hot_key_that_expires_in_memory_is_loaded_once() {
    let (app, clock) = TestApp::with_clock().await;
    let (_, key) = app.key(&app.user("ada").await, json!({ "name": "k" })).await;
    opens(&key).await;
    clock.advance(TimeDelta::seconds(60));
    let before = app.app.db.acquired();
    join_all((0..40).map(|_| opens(&key))).await;
    // None where Redis answers by its own clock.
    assert!(app.app.db.acquired() - before <= 2);
}

/// A load that read the key before it was stopped and ends after must not
/// bring it back (G-86).
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_load_under_way_never_revives_a_stopped_key() {
    let app = TestApp::start().await;
    let user = app.user("ada").await;
    let issued = user.post("/api/v1/keys", json!({ "name": "k" })).await.expect(201);
    let id: ApiKeyId = issued.text("id").parse().unwrap();
    let text: std::sync::Arc<str> = issued.text("key").into();
    let services = &app.app.services;
    let check = || {
        let (access, text) = (services.access.clone(), text.clone());
        async move {
            let presented = Presented { api_key: Some(&text), ..Presented::default() };
            access.authenticate(presented).await.is_ok()
        }
    };
    let switch = async |active| {
        let change = KeyChange { is_active: Some(active), ..KeyChange::default() };
        services.api_keys.update(&SYSTEM, Owner::Anyone, id, change).await.unwrap();
    };
    for round in 0..150 {
        // Not in memory now: the readers below have to load.
        switch(true).await;
        let readers: Vec<_> = (0..4).map(|_| tokio::spawn(check())).collect();
        switch(false).await;
        assert!(!check().await, "round {round}");
        join_all(readers).await;
        assert!(!check().await, "round {round}, after the readers");
    }
}
