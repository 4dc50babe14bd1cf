//! The signed identity: what an upstream can check by our key set alone.

use std::sync::Arc;

use chrono::TimeDelta;
use jsonwebtoken::{
    DecodingKey, Validation, decode,
    jwk::{Jwk, JwkSet},
};
use serde_json::{Value, json};
use tollgate::{
    config::{Config, Sources},
    domain::clock::FakeClock,
};

use super::{APP, Browser, tokens::header};
use crate::support::{Client, Options, PASSWORD, TestApp, epoch};

const FIELD: &str = "x-tollgate-assertion";

fn settings(algorithm: &str) -> Vec<(&'static str, String)> {
    let mut all = vec![
        ("UPSTREAM_ASSERTION", "true".to_owned()),
        ("UPSTREAM_AUTH", "optional".to_owned()),
        ("AUTH_ALGORITHM", algorithm.to_owned()),
    ];
    if algorithm == "RS256" {
        all.push(("AUTH_PRIVATE_KEY", include_str!("../jwt/keys/retiring.pem").to_owned()));
    }
    all
}

async fn instance(algorithm: &str) -> (TestApp, Arc<FakeClock>) {
    let clock = FakeClock::starting_at(epoch());
    let options =
        Options { clock: clock.clone(), settings: settings(algorithm), ..Options::default() };
    (TestApp::with(options).await, clock)
}

/// What the upstream, here the echo, was sent.
async fn sent(client: &Client) -> Option<String> {
    let answer = client.get(APP).await.expect(200);
    Some(answer.json["headers"].get(FIELD)?.as_str().unwrap().to_owned())
}

/// What an upstream's own library makes of it with our key set.
async fn verified(app: &TestApp, token: &str) -> Value {
    let set = app.anonymous().get("/.well-known/jwks.json").await.expect(200).json;
    let set: JwkSet = serde_json::from_value(set).unwrap();
    let jwk: &Jwk = set.find(header(token)["kid"].as_str().unwrap()).unwrap();
    let mut validation = Validation::new(header(token)["alg"].as_str().unwrap().parse().unwrap());
    validation.set_audience(&["echo"]);
    validation.set_issuer(&["tollgate"]);
    // Its clock is the test's.
    validation.validate_exp = false;
    decode::<Value>(token, &DecodingKey::from_jwk(jwk).unwrap(), &validation).unwrap().claims
}

#[tokio::test]
async fn an_upstream_can_check_who_asks_by_our_key_set() {
    for algorithm in ["EdDSA", "RS256"] {
        let (app, _clock) = instance(algorithm).await;
        app.register("ada").await;
        let pair = app.login("ada", PASSWORD).await.expect(200);
        let ada = app.anonymous().with_bearer(pair.text("access_token"));
        let hour = json!({ "duration_hours": 1 });
        let pass = ada.post("/api/v1/tokens/purchase", hour).await.expect(201);
        let (key_id, key) = app.key(&ada, json!({ "name": "k" })).await;
        let browser = Browser::new(&app);
        browser.sign_in("ada").await;
        let sid = browser.cookie("sid").unwrap();
        let session = |token: &str| crate::jwt::part(token, 1)["sid"].clone();
        let people = [
            (ada.clone(), "sid", session(pair.text("access_token"))),
            (app.anonymous().with("cookie", &format!("tollgate_sid={sid}")), "sid", session(&sid)),
            (key, "key_id", json!(key_id)),
            (
                app.anonymous().with("x-access-token", pass.text("token")),
                "token_id",
                pass.json["token_id"].clone(),
            ),
        ];
        let mut ids = vec![];
        for (client, by, id) in people {
            let token = sent(&client).await.unwrap();
            assert_eq!(header(&token)["typ"], "tga+jwt");
            assert_eq!(header(&token)["alg"], algorithm);
            let mut claims = verified(&app, &token).await;
            let jti = claims.as_object_mut().unwrap().remove("jti").unwrap();
            ids.push(jti.as_str().unwrap().to_owned());
            let now = epoch().timestamp();
            let mut expected = json!({
                "sub": pair.json["user_id"], "username": "ada", "roles": ["user"],
                "iat": now, "nbf": now, "exp": now + 60, "iss": "tollgate", "aud": "echo",
            });
            expected[by] = id;
            assert_eq!(claims, expected);
        }
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), 4);
        assert_eq!(sent(&app.anonymous()).await, None, "nobody has no identity");
    }
}

/// Signing is dear: one assertion serves for a while, for this principal as it
/// is, and is never near its end.
#[tokio::test]
async fn one_assertion_serves_for_twenty_seconds() {
    let (app, clock) = instance("EdDSA").await;
    let ada = app.user("ada").await;
    let admin = app.admin().await;
    let id = ada.get("/api/v1/users/me").await.text("id").to_owned();
    let (_, key) = app.key(&ada, json!({ "name": "k" })).await;
    let first = sent(&key).await.unwrap();
    clock.advance(TimeDelta::milliseconds(19_999));
    assert_eq!(sent(&key).await.unwrap(), first);
    assert_ne!(sent(&ada).await.unwrap(), first, "another credential is another principal");
    clock.advance(TimeDelta::milliseconds(1));
    let second = sent(&key).await.unwrap();
    assert_ne!(second, first);

    let role = json!({ "roles": ["user", "moderator"] });
    admin.patch(&format!("/api/v1/admin/users/{id}"), role).await.expect(200);
    let third = sent(&key).await.unwrap();
    assert_eq!(verified(&app, &third).await["roles"], json!(["user", "moderator"]));
}

/// The field is ours, whether we send one or not.
#[tokio::test]
async fn a_client_cannot_bring_its_own() {
    let (on, _clock) = instance("EdDSA").await;
    let off = TestApp::configured([("UPSTREAM_AUTH", "optional")]).await;
    for app in [&on, &off] {
        let ada = app.user("ada").await;
        for name in ["X-Tollgate-Assertion", "x-tollgate-assertion", "X-TOLLGATE-ASSERTION"] {
            for client in [ada.with(name, "forged"), ada.with(name, "a").with(name, "forged")] {
                let found = sent(&client).await;
                assert_ne!(found.as_deref(), Some("forged"));
                assert_eq!(found.is_some(), std::ptr::eq(app, &raw const on));
            }
            assert_eq!(sent(&app.anonymous().with(name, "forged")).await, None);
        }
    }
}

#[tokio::test]
async fn an_assertion_opens_nothing_of_ours() {
    let (app, _clock) = instance("EdDSA").await;
    let ada = app.user("ada").await;
    let token = sent(&ada).await.unwrap();
    for path in ["/api/v1/users/me", APP] {
        for (name, before) in
            [("authorization", "Bearer "), ("x-api-key", ""), ("x-access-token", "")]
        {
            let client = app.anonymous().with(name, &format!("{before}{token}"));
            client.get(path).await.expect_problem(401, "invalid_credential");
        }
    }
    for name in ["tollgate_sid", "tollgate_pass"] {
        let client = app.anonymous().with("cookie", &format!("{name}={token}"));
        assert_eq!(sent(&client).await, None);
    }
    let client = app.anonymous().with("x-tollgate-assertion", &token);
    client.get("/api/v1/users/me").await.expect_problem(401, "unauthenticated");
}

/// A shared secret has no key set: whoever could check could also sign.
#[test]
fn a_shared_secret_cannot_assert() {
    for algorithm in ["HS256", "EdDSA"] {
        let environment = [("UPSTREAM_ASSERTION", "true"), ("AUTH_ALGORITHM", algorithm)];
        let own = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        let sources = Sources {
            environment: environment.into_iter().map(own).collect(),
            ..Sources::default()
        };
        let problems = Config::load(&sources).err().map(|error| error.to_string());
        let told = problems.is_some_and(|text| {
            text.contains("UPSTREAM_ASSERTION") && text.contains("EdDSA or RS256")
        });
        assert_eq!(told, algorithm == "HS256");
    }
}
