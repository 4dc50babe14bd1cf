//! Secrets stay where they belong (RELIABILITY G-142, G-143): every kind of
//! them is planted, used, and then looked for in everything that is written,
//! at the most talkative level of logging.

use std::{fs, time::Duration};

use base64::{Engine as _, engine::general_purpose};
use bytes::Bytes;
use http::{Method, Request, Version};
use http_body_util::Full;
use hyper_util::{client::legacy::Client as Pool, rt::TokioExecutor};
use serde_json::json;

use super::{Process, Setup, attempt, upstream::Slow};
use crate::support::{Answer, postgres};

const ADMIN: &str = "Canary-admin-Qm7vTz2";
const PERSON: &str = "Canary-person-8xKpWd4";
const WRONG: &str = "Canary-wrong-Lz3uRf9";
const CHANGED: &str = "Canary-changed-Hy6sNb1";
const SIGNING: &str = "Canary-signing-Jc5gVe8-of-40-Zebras-12";
const PREVIOUS: &str = "Canary-previous-Ua2hMo7-of-31-Okapis-9";
const BASIC: &str = "Canary-basic-Ti4qXs6";
const METRICS: &str = "Canary-metrics-Pg9wDk3";
const DATABASE: &str = "Canary-database-Fe1jYb5";
const COOKIE: &str = "Canary-cookie-Ro8zCl2";
const CLIENT_BASIC: &str = "Canary-client-Vn6tEa4";
const ENVIRONMENT: [&str; 8] = [ADMIN, PERSON, WRONG, CHANGED, SIGNING, PREVIOUS, BASIC, METRICS];

/// What was planted, with its name.
struct Planted(Vec<(&'static str, String)>);

impl Planted {
    fn fixed() -> Self {
        let mut planted = vec![("database", DATABASE), ("cookie", COOKIE), ("basic", CLIENT_BASIC)];
        planted.extend(ENVIRONMENT.map(|secret| ("setting or password", secret)));
        Self(planted.into_iter().map(|(name, secret)| (name, secret.to_owned())).collect())
    }

    fn add(&mut self, name: &'static str, secret: &str) {
        self.0.push((name, secret.to_owned()));
    }

    /// Where a secret is found in any form, in words without it.
    fn found_in(&self, place: &str, bytes: &[u8]) -> Vec<String> {
        let mut found = vec![];
        for (name, secret) in &self.0 {
            for (form, needle) in forms(name, secret) {
                if let Some(at) = position(bytes, &needle) {
                    let from = bytes[..at].iter().rposition(|b| *b == b'\n').map_or(0, |n| n + 1);
                    let to = (at + needle.len() + 40).min(bytes.len());
                    let context =
                        String::from_utf8_lossy(&bytes[from.max(at.saturating_sub(300))..to]);
                    found.push(format!("{name} ({form}) in {place}: …{context}…"));
                }
            }
        }
        found
    }
}

/// The forms in which a secret may appear.
fn forms(name: &str, secret: &str) -> Vec<(&'static str, Vec<u8>)> {
    let encoded: String = form_urlencoded::byte_serialize(secret.as_bytes()).collect();
    let hex = hex::encode(secret);
    let mut forms = vec![
        ("raw", secret.as_bytes().to_vec()),
        ("URL-encoded", encoded.into_bytes()),
        ("hex", hex.to_uppercase().into_bytes()),
        ("hex", hex.into_bytes()),
    ];
    // Within something longer it begins at any of three places.
    for shift in 0..3 {
        let padded = [vec![b'.'; shift], secret.as_bytes().to_vec()].concat();
        for engine in [general_purpose::STANDARD, general_purpose::URL_SAFE] {
            let text = engine.encode(&padded);
            let whole = &text[4.min(shift * 4)..text.len() - 4];
            forms.push(("base64", whole.as_bytes().to_vec()));
        }
    }
    // A key's beginning is shown on purpose (its `prefix`), and a JWT's is its
    // header.
    if matches!(name, "key" | "access token") {
        let middle = secret.len() / 2;
        forms.push(("12 from its middle", secret.as_bytes()[middle..middle + 12].to_vec()));
    } else {
        forms.push(("first 12 characters", secret.as_bytes()[..12].to_vec()));
    }
    forms
}

fn position(bytes: &[u8], needle: &[u8]) -> Option<usize> {
    // Most bytes are not the first of the needle.
    let mut from = 0;
    while let Some(at) = bytes[from..].iter().position(|byte| *byte == needle[0]) {
        if bytes[from + at..].starts_with(needle) {
            return Some(from + at);
        }
        from += at + 1;
    }
    None
}

/// All answers that must not contain a secret.
#[derive(Default)]
struct Answers(Vec<u8>);

impl Answers {
    fn keep(&mut self, answer: &Answer) {
        self.0.extend(format!("{:?}\n", answer.headers).bytes());
        self.0.extend_from_slice(&answer.body);
        self.0.push(b'\n');
    }
}

#[test]
fn the_search_finds_every_form() {
    let planted = Planted(vec![("test", "Canary-test-0123?/x".to_owned())]);
    let basic = general_purpose::STANDARD.encode("user:Canary-test-0123?/x");
    for text in [
        "a Canary-test-0123?/x b",
        "Canary-test-",
        "q=Canary-test-0123%3F%2Fx",
        &hex::encode("Canary-test-0123?/x"),
        &basic,
        &general_purpose::STANDARD.encode("us:Canary-test-0123?/x."),
        &general_purpose::URL_SAFE.encode("u:Canary-test-0123?/x.."),
    ] {
        assert!(!planted.found_in("here", text.as_bytes()).is_empty(), "{text}");
    }
    assert!(planted.found_in("here", b"Canary-tes and nothing else").is_empty());
}

#[tokio::test]
async fn no_secret_is_written_anywhere_on_sqlite() {
    let slow = Slow::start(Duration::ZERO).await;
    let setup = talkative(Setup::bare()).set("UPSTREAM_URL", &slow.url());
    let mut process = setup.serve().await;
    let (mut planted, mut answers) = (Planted::fixed(), Answers::default());
    tour(&process, &mut planted, &mut answers).await;
    let metrics = process.client().with_bearer(METRICS).get("/metrics").await.expect(200);
    answers.keep(&metrics);
    let mut found = planted.found_in("the answers", &answers.0);
    // Before the stop, which folds the log into the file.
    for file in ["tollgate.db", "tollgate.db-wal"] {
        let bytes = fs::read(setup.path().join("data").join(file)).unwrap();
        found.extend(planted.found_in(file, &bytes));
    }
    process.stop(Duration::from_secs(10)).await;
    found.extend(output(&process, &planted));
    assert!(found.is_empty(), "{} places:\n{}", found.len(), found.join("\n"));
    assert!(process.stdout.so_far().contains("\"TRACE\""), "it was not talkative");
}

#[tokio::test]
async fn no_secret_is_written_when_nothing_answers() {
    let Some(mut database) = postgres::Server::install() else { return };
    database.start().await;
    let url = database.url("postgres").replace("postgres@", &format!("postgres:{DATABASE}@"));
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let setup = talkative(Setup::bare())
        .set("DATABASE_URL", &url)
        .set("REDIS_URL", &format!("redis://:{DATABASE}@{closed}"))
        .set("UPSTREAM_URL", &format!("http://{closed}"));
    let mut process = setup.serve().await;
    let (mut planted, mut answers) = (Planted::fixed(), Answers::default());
    tour(&process, &mut planted, &mut answers).await;
    database.kill();
    errors(&process, &planted, &mut answers).await;
    process.kill();
    let mut found = planted.found_in("the answers", &answers.0);
    found.extend(output(&process, &planted));
    let leak = format!("{closed}");
    assert!(position(&answers.0, leak.as_bytes()).is_none(), "an inner address in an answer");
    assert!(found.is_empty(), "{} places:\n{}", found.len(), found.join("\n"));

    // Nor by the commands.
    for command in [&["users", "list"], &["config", "show"], &["migrate", "up"]] {
        let ran = setup.run(command, "").await;
        let text = format!("{}{}", ran.stdout, ran.stderr);
        let found = planted.found_in("the output", text.as_bytes());
        assert!(found.is_empty(), "{command:?}: {found:?}");
    }
}

fn talkative(setup: Setup) -> Setup {
    setup
        .set("LOG_LEVEL", "TRACE")
        .set("ADMIN_PASSWORD", ADMIN)
        .set("AUTH_SECRET_KEY", SIGNING)
        .set("AUTH_PREVIOUS_SECRET_KEYS", PREVIOUS)
        .set("UPSTREAM_BASIC_AUTH_USER", "gate")
        .set("UPSTREAM_BASIC_AUTH_PASSWORD", BASIC)
        .set("METRICS_TOKEN", METRICS)
}

fn output(process: &Process, planted: &Planted) -> Vec<String> {
    let mut found = planted.found_in("standard output", process.stdout.so_far().as_bytes());
    found.extend(planted.found_in("standard error", process.stderr.so_far().as_bytes()));
    found
}

/// Everything that a person and a program do, mistakes included. What an
/// endpoint exists to hand out is planted, not kept.
async fn tour(process: &Process, planted: &mut Planted, answers: &mut Answers) {
    let client = process.client().with("cookie", &format!("sid={COOKIE}"));
    let person = json!({
        "username": "person", "email": "person@example.com", "password": PERSON,
    });
    answers.keep(&client.post("/api/v1/auth/register", person.clone()).await.expect(201));
    answers.keep(&client.post("/api/v1/auth/register", person).await.expect(409));
    for (name, password, status) in
        [("person", WRONG, 401), ("nobody", WRONG, 401), ("person", PERSON, 200)]
    {
        let body = json!({ "username": name, "password": password });
        let answer = client.post("/api/v1/auth/login", body).await.expect(status);
        if status == 401 {
            answers.keep(&answer);
        }
    }
    let form = format!("username=person&password={PERSON}");
    let login = client
        .send(
            Method::POST,
            "/api/v1/auth/login",
            Some("application/x-www-form-urlencoded"),
            form.into(),
        )
        .await
        .expect(200);
    planted.add("access token", login.text("access_token"));
    planted.add("refresh token", login.text("refresh_token"));
    let refresh = json!({ "refresh_token": login.text("refresh_token") });
    let pair = client.post("/api/v1/auth/refresh", refresh).await.expect(200);
    planted.add("access token", pair.text("access_token"));
    planted.add("refresh token", pair.text("refresh_token"));
    let bearer = client.with_bearer(pair.text("access_token"));
    let issued = bearer.post("/api/v1/keys", json!({ "name": "canary" })).await.expect(201);
    planted.add("key", issued.text("key"));
    let rotate = format!("/api/v1/keys/{}/rotate", issued.text("id"));
    let rotated = bearer.post(&rotate, json!({ "grace_period_seconds": 60 })).await.expect(200);
    planted.add("key", rotated.text("key"));
    for text in [issued.text("key"), rotated.text("key")] {
        let keyed = client.with_key(text);
        answers.keep(&keyed.get("/api/v1/proxy/a?b=c").await);
        answers.keep(&keyed.get("/api/v1/usage").await.expect(200));
        answers.keep(&client.post("/api/v1/keys/verify", json!({ "key": text })).await);
        for path in [format!("/api/v1/proxy/x?api_key={text}"), format!("/health?a={text}")] {
            answers.keep(&client.get(&path).await.expect_problem(400, "credential_in_url"));
        }
    }
    let jwt = pair.text("access_token").to_owned();
    answers.keep(&client.get(&format!("/api/v1/users/me?access_token={jwt}")).await.expect(400));
    answers.keep(&bearer.get("/api/v1/proxy/with-a-login").await);
    answers.keep(&client.with_bearer(WRONG).get("/api/v1/users/me").await.expect(401));
    let basic = general_purpose::STANDARD.encode(format!("somebody:{CLIENT_BASIC}"));
    let basic = client.with("authorization", &format!("Basic {basic}"));
    answers.keep(&basic.get("/api/v1/proxy/x").await);
    answers.keep(&client.with_bearer(WRONG).get("/metrics").await.expect(401));
    let change = |current| json!({ "current_password": current, "new_password": CHANGED });
    answers.keep(&bearer.post("/api/v1/auth/password", change(WRONG)).await);
    answers.keep(&bearer.post("/api/v1/auth/password", change(PERSON)).await.expect(204));
    let broken = format!("{{\"username\": \"person\", \"password\": \"{PERSON}\", ");
    let broken = client
        .send(Method::POST, "/api/v1/auth/login", Some("application/json"), broken.into())
        .await;
    answers.keep(&broken.expect(400));
    let extra = json!({ "username": "person", "password": PERSON, "passwort": PERSON });
    answers.keep(&client.post("/api/v1/auth/login", extra).await);
    let short = json!({ "username": "x", "email": "nowhere", "password": WRONG });
    answers.keep(&client.post("/api/v1/auth/register", short).await.expect(422));
    answers.keep(&bearer.get("/api/v1/users/me/export").await.expect(200));
    answers.keep(&bearer.get("/api/v1/auth/sessions").await.expect(200));
    answers.keep(&bearer.get("/api/v1/keys").await.expect(200));
    // The other version of the protocol has a code of its own for header fields.
    let pool: Pool<_, Full<Bytes>> =
        Pool::builder(TokioExecutor::new()).http2_only(true).build_http();
    let request = Request::get(format!("{}/api/v1/proxy/h2", process.base))
        .header("cookie", format!("sid={COOKIE}"))
        .header("x-api-key", rotated.text("key"))
        .body(Full::default());
    let over_h2 = pool.request(request.unwrap()).await.unwrap();
    assert_eq!(over_h2.version(), Version::HTTP_2);
    // Without a valid name.
    let url = format!("{}/api/v1/proxy/x", process.base);
    let fields = [("x-api-key", rotated.text("key")), ("x_secret", COOKIE)];
    answers.keep(&attempt("GET", &url, &fields, "").await.unwrap().expect(400));
    process.token("admin", ADMIN).await;
}

/// The same people, while nothing answers.
async fn errors(process: &Process, planted: &Planted, answers: &mut Answers) {
    let login = json!({ "username": "person", "password": CHANGED });
    answers.keep(&process.client().post("/api/v1/auth/login", login).await.expect(503));
    for (name, secret) in &planted.0 {
        let client = process.client();
        let answer = match *name {
            "key" => client.with_key(secret).get("/api/v1/proxy/x").await,
            "access token" => client.with_bearer(secret).get("/api/v1/keys").await,
            "refresh token" => {
                client.post("/api/v1/auth/refresh", json!({ "refresh_token": secret })).await
            }
            _ => continue,
        };
        assert!(answer.status.as_u16() >= 400, "{answer:?}");
        answers.keep(&answer);
    }
    let health = process.client().get("/health").await.expect(503);
    answers.keep(&health);
}
