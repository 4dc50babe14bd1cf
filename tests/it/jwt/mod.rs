//! Login tokens: what is in them, what is refused, and how keys are changed.
//!
//! The RSA keys in `keys/` were made for these tests and are used nowhere else.

mod bad_tokens;
mod corpus;
mod key_rotation;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use chrono::TimeDelta;
use jsonwebtoken::{Algorithm, EncodingKey, crypto};
use serde_json::{Value, json};
use tollgate::domain::clock::FakeClock;

use crate::support::{Options, PASSWORD, TestApp, UNLIMITED, epoch};

/// What instances of these tests sign with.
const SECRET: &str = "a key of Zebras that sign, 0123456789!";

/// One part of a compact token, decoded: 0 is the header, 1 the claims.
pub(super) fn part(token: &str, at: usize) -> Value {
    let part = token.split('.').nth(at).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

fn encode(text: &str) -> String {
    URL_SAFE_NO_PAD.encode(text)
}

/// A token of these texts, JSON or not, signed with HMAC.
fn sign(header: &str, claims: &str, key: &[u8], algorithm: Algorithm) -> String {
    let message = format!("{}.{}", encode(header), encode(claims));
    let key = EncodingKey::from_secret(key);
    let signature = crypto::sign(message.as_bytes(), &key, algorithm).unwrap();
    format!("{message}.{signature}")
}

/// An instance that signs with [`SECRET`].
async fn instance() -> TestApp {
    let [minute, hour] = UNLIMITED;
    TestApp::configured([minute, hour, ("AUTH_SECRET_KEY", SECRET)]).await
}

async fn accepts(app: &TestApp, token: &str) -> bool {
    let client = app.anonymous().with_bearer(token);
    let (ours, proxied) =
        (client.get("/api/v1/users/me").await, client.get("/api/v1/proxy/x").await);
    assert_eq!(ours.status, proxied.status, "{token}");
    match ours.status.as_u16() {
        200 => true,
        401 => false,
        _ => panic!("{ours:?}"),
    }
}

/// RELIABILITY G-102: 30 s in each direction, no second more.
#[tokio::test]
async fn clocks_may_differ_by_thirty_seconds() {
    let clock = FakeClock::starting_at(epoch());
    let settings = UNLIMITED.into_iter().chain([("AUTH_SECRET_KEY", SECRET)]);
    let settings = settings.map(|(name, value)| (name, value.to_owned())).collect();
    let app = TestApp::with(Options { clock: clock.clone(), settings, ..Options::default() }).await;
    app.register("ada").await;
    let pair = app.login("ada", PASSWORD).await.expect(200);
    let token = pair.text("access_token");
    let (header, claims) = (part(token, 0).to_string(), part(token, 1));

    let now = epoch().timestamp();
    for (claim, at, good) in [
        ("nbf", now + 30, true),
        ("nbf", now + 31, false),
        ("iat", now + 30, true),
        ("iat", now + 31, false),
        ("exp", now - 29, true),
        ("exp", now - 30, false),
    ] {
        let mut claims = claims.clone();
        claims[claim] = json!(at);
        let token = sign(&header, &claims.to_string(), SECRET.as_bytes(), Algorithm::HS256);
        assert_eq!(accepts(&app, &token).await, good, "{claim} {}", at - now);
    }

    clock.advance(TimeDelta::seconds(3600 + 29));
    assert!(accepts(&app, token).await);
    clock.advance(TimeDelta::milliseconds(999));
    assert!(accepts(&app, token).await);
    clock.advance(TimeDelta::milliseconds(1));
    assert!(!accepts(&app, token).await);
}

#[tokio::test]
async fn the_life_of_a_token_is_configured() {
    let app = TestApp::configured([("AUTH_TOKEN_EXPIRY_MINUTES", "5")]).await;
    app.register("ada").await;
    let pair = app.login("ada", PASSWORD).await.expect(200);
    assert_eq!(pair.json["expires_in"], 300);
    let claims = part(pair.text("access_token"), 1);
    assert_eq!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(), 300);
}

#[tokio::test]
async fn a_shared_secret_is_in_no_key_set() {
    let app = instance().await;
    let answer = app.anonymous().get("/.well-known/jwks.json").await.expect(200);
    assert_eq!(answer.json, json!({ "keys": [] }));
}

/// The corpus is only worth something if its parts make a good token.
#[tokio::test]
async fn a_token_put_together_from_the_same_parts_is_good() {
    let app = instance().await;
    app.register("ada").await;
    let pair = app.login("ada", PASSWORD).await.expect(200);
    let token = pair.text("access_token");
    let again = sign(
        &part(token, 0).to_string(),
        &part(token, 1).to_string(),
        SECRET.as_bytes(),
        Algorithm::HS256,
    );
    assert!(accepts(&app, &again).await);
}
