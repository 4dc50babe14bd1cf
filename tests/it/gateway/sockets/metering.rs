//! Every message is counted and charged, once (RELIABILITY G-125).

use serde_json::{Value, json};

use super::{PATH, app};
use crate::{
    gateway::recorded,
    streams::address,
    support::{
        Client, Options, TestApp,
        raw::Raw,
        some_address, unique,
        websocket::{BINARY, CLOSE, PING, PONG, TEXT, Upstream, Wire, frame},
    },
};

const MESSAGES: usize = 10_000;

/// A key with these fields: its id, and the field that it is sent in.
async fn key(admin: &Client, fields: Value) -> (String, String) {
    let issued = admin.post("/api/v1/keys", fields).await.expect(201);
    (issued.text("id").to_owned(), format!("X-API-Key: {}\r\n", issued.text("key")))
}

async fn requests(admin: &Client, id: &str) -> Value {
    let path = format!("/api/v1/keys/{id}");
    let key = admin.get(&path).await.expect(200);
    key.json["usage"]["totals"]["requests"].clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_messages_are_counted_to_the_last() {
    let upstream = Upstream::start().await;
    let app = app(&upstream, "").await;
    let admin = app.admin().await;
    // The socket itself is the first.
    let quota = MESSAGES as u64 + 2;
    let (id, field) = key(&admin, json!({ "name": "k", "monthly_quota": quota })).await;
    let mut wire = Wire::open(address(&app), PATH, &field).await;
    let (mut sent, mut told) = (0, 0);
    // Of every length and kind, many at once and in fragments; what is no message
    // is not charged.
    for at in 0..MESSAGES {
        let payload = vec![b'x'; at % 300];
        let mut bytes = match at % 4 {
            0 => frame(TEXT, true, &payload),
            1 => frame(BINARY, true, &payload),
            2 => [frame(0x01, true, &payload), frame(0x80, true, b"end")].concat(),
            _ => [frame(0x02, true, b"y"), frame(0x80, true, &payload)].concat(),
        };
        told += if at % 4 < 2 { 1 } else { 2 };
        if at == 77 {
            bytes.extend(frame(PING, true, b"p"));
            told += 1;
        }
        sent += bytes.len();
        wire.send(bytes).await;
        while at % 50 == 49 && told > 0 {
            wire.next().await.unwrap();
            told -= 1;
        }
    }
    assert_eq!(upstream.messages(), MESSAGES);
    let close = frame(CLOSE, true, &1000u16.to_be_bytes());
    sent += close.len();
    wire.send(close).await;
    while wire.next().await.is_some() {}
    let heard = wire.heard;
    drop(wire);
    let record = recorded(&app, 1).await.remove(0);
    assert_eq!(record["outcome"], "completed", "{record}");
    assert_eq!((&record["bytes_in"], &record["bytes_out"]), (&json!(sent), &json!(heard)));
    assert_eq!(upstream.bytes(), sent);
    assert_eq!(requests(&admin, &id).await, MESSAGES + 1);
    // Each came back.
    let totals = admin.get(&format!("/api/v1/keys/{id}")).await.expect(200);
    let totals = &totals.json["usage"]["totals"];
    assert_eq!(totals["messages"], 2 * MESSAGES, "{totals}");
    assert!(totals["stream_seconds"].as_f64().unwrap() > 0.0, "{totals}");
    // And by the limiter: one is left.
    let left = format!("GET {PATH} HTTP/1.1\r\nHost: a\r\n{field}\r\n");
    assert_eq!(Raw::exchange(address(&app), &left).await.status, 200);
    assert_eq!(Raw::exchange(address(&app), &left).await.status, 429);
}

#[tokio::test]
async fn a_message_over_the_limit_is_not_delivered() {
    for (fields, burst) in [
        (json!({ "name": "k", "rate_limit": 50 }), false),
        (json!({ "name": "k", "monthly_quota": 50 }), true),
    ] {
        let upstream = Upstream::start().await;
        let app = app(&upstream, "").await;
        let admin = app.admin().await;
        let (id, field) = key(&admin, fields).await;
        let mut wire = Wire::open(address(&app), PATH, &field).await;
        let mut delivered = 0;
        if burst {
            wire.send(frame(TEXT, true, b"x").repeat(80)).await;
        }
        let told = loop {
            if !burst {
                wire.say("x").await;
            }
            match wire.next().await.unwrap() {
                (CLOSE, payload) => break payload,
                (first, _) => delivered += usize::from(first == TEXT),
            }
            assert!(delivered < 100, "it is never told");
        };
        assert_eq!(told, [&1008u16.to_be_bytes()[..], b"limit"].concat());
        wire.rest().await;
        upstream.until_open(0).await;
        assert_eq!((upstream.messages(), upstream.closes()), (49, vec![1001]));
        // An answer that was under way may be lost with the end.
        assert!(delivered <= 49);
        let record = recorded(&app, 1).await.remove(0);
        assert_eq!((&record["outcome"], &record["status"]), (&json!("cut"), &json!(101)));
        assert_eq!(requests(&admin, &id).await, 50);
    }
}

/// The tiers of users and of addresses, which requests share, end sockets too.
#[tokio::test]
async fn every_tier_counts_messages() {
    let upstream = Upstream::start().await;
    for (tier, auth) in [
        ("RATE_LIMIT_USER_PER_MINUTE", "required"),
        ("RATE_LIMIT_USER_PER_HOUR", "required"),
        ("RATE_LIMIT_PER_MINUTE", "public"),
        ("RATE_LIMIT_PER_HOUR", "public"),
        ("RATE_LIMIT_PER_MINUTE", "optional"),
        ("RATE_LIMIT_TOKEN_PER_MINUTE", "a pass"),
    ] {
        let free = crate::streams::FREE.into_iter().filter(|(name, _)| *name != tier);
        let settings = free.chain([(tier, "20")]);
        let settings = settings.map(|(name, value)| (name, value.to_owned())).collect();
        let app = TestApp::with(Options { settings, ..Options::default() }).await;
        let auth_setting = if auth == "a pass" { "required" } else { auth };
        let settings = format!("{}\nauth = '{auth_setting}'", super::MANY);
        crate::streams::put_in_front(&app, &upstream.url(), &settings);
        let address_field = format!("X-Forwarded-For: {}\r\n", some_address());
        let name = unique("ada");
        let field = match auth {
            "required" | "a pass" => {
                // From elsewhere, and asking nothing that counts.
                app.register(&name).await;
                let pair = app.login(&name, crate::support::PASSWORD).await.expect(200);
                let bearer = pair.text("access_token").to_owned();
                if auth == "a pass" {
                    let day = json!({ "duration_hours": 24 });
                    let login = app.anonymous().with_bearer(&bearer);
                    let bought = login.post("/api/v1/tokens/purchase", day).await.expect(201);
                    format!("X-Access-Token: {}\r\n", bought.text("token"))
                } else {
                    format!("Authorization: Bearer {bearer}\r\n")
                }
            }
            _ => String::new(),
        };
        let fields = format!("{address_field}{field}");
        let (messages, case) = (upstream.messages(), format!("{tier} {auth}"));
        let mut wire = Wire::open(address(&app), PATH, &fields).await;
        wire.send(frame(TEXT, true, b"x").repeat(40)).await;
        assert_eq!(wire.closed().await, (1008, "limit".to_owned()), "{case}");
        drop(wire);
        upstream.until_open(0).await;
        assert_eq!((upstream.messages() - messages, upstream.closes()), (19, vec![1001]), "{case}");
        // It is the same limit that requests have.
        let request = format!("GET {PATH} HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
        assert_eq!(Raw::exchange(address(&app), request).await.status, 429, "{case}");
        let record = recorded(&app, 1).await.into_iter().find(|record| record["status"] == 101);
        assert_eq!(record.unwrap()["outcome"], "cut", "{case}");
    }
}

/// Pings and Pongs are no messages.
#[tokio::test]
async fn frames_that_say_nothing_are_not_charged() {
    let upstream = Upstream::start().await;
    let app = app(&upstream, "").await;
    let (id, field) = key(&app.admin().await, json!({ "name": "k", "rate_limit": 2 })).await;
    let mut wire = Wire::open(address(&app), PATH, &field).await;
    for _ in 0..20 {
        wire.send(frame(PING, true, b"p")).await;
        assert_eq!(wire.next().await, Some((PONG, b"p".to_vec())));
        wire.send(frame(PONG, true, b"p")).await;
    }
    wire.echoes("one").await;
    wire.say("two").await;
    assert_eq!(wire.closed().await, (1008, "limit".to_owned()));
    drop(wire);
    recorded(&app, 1).await;
    assert_eq!(requests(&app.admin().await, &id).await, 2);
}

/// Sockets of one key share its limit, on every instance.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sockets_of_one_key_share_its_limit() {
    let apps = match TestApp::instances(3, &crate::streams::FREE).await {
        Some(apps) => apps,
        None => vec![TestApp::configured(crate::streams::FREE).await],
    };
    let upstream = Upstream::start().await;
    for app in &apps {
        crate::streams::put_in_front(app, &upstream.url(), super::MANY);
    }
    let admin = apps[0].admin().await;
    let (_, field) = key(&admin, json!({ "name": "k", "rate_limit": 60 })).await;
    let mut open = vec![];
    for at in 0..3 {
        open.push(Wire::open(address(&apps[at % apps.len()]), PATH, &field).await);
    }
    for wire in &mut open {
        wire.send(frame(TEXT, true, b"x").repeat(60)).await;
    }
    for wire in &mut open {
        assert_eq!(wire.closed().await, (1008, "limit".to_owned()));
    }
    upstream.until_open(0).await;
    assert_eq!(upstream.messages(), 57);
}
