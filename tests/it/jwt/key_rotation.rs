//! Keys are exchanged without logging anybody out (RELIABILITY G-67), and
//! others can verify what we signed.

use std::sync::Arc;

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use ring::signature::{
    ED25519, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents, UnparsedPublicKey,
};
use serde_json::Value;
use tollgate::services::keyring::generate_ed25519_pem;

use super::{accepts, part};
use crate::support::{Options, PASSWORD, TestApp, TestDatabase, UNLIMITED};

const RETIRING: &str = include_str!("keys/retiring.pem");
const RETIRING_PUBLIC: &str = include_str!("keys/retiring.pub.pem");
const CURRENT: &str = include_str!("keys/current.pem");

async fn instance(database: &Arc<TestDatabase>, settings: &[(&'static str, &str)]) -> TestApp {
    let settings = UNLIMITED.iter().chain(settings);
    let settings = settings.map(|(name, value)| (*name, (*value).to_owned())).collect();
    TestApp::with(Options { database: Some(database.clone()), settings, ..Options::default() })
        .await
}

async fn key_set(app: &TestApp) -> Vec<Value> {
    let answer = app.anonymous().get("/.well-known/jwks.json").await.expect(200);
    let keys = answer.json["keys"].as_array().unwrap().clone();
    for key in &keys {
        for private in ["d", "p", "q", "dp", "dq", "qi", "k"] {
            assert!(key.get(private).is_none(), "{private} is published");
        }
        assert_eq!(key["use"], "sig");
    }
    keys
}

fn bytes(value: &Value) -> Vec<u8> {
    URL_SAFE_NO_PAD.decode(value.as_str().unwrap()).unwrap()
}

/// An Ed25519 public key as PEM (RFC 8410, 4).
fn public_pem(jwk: &Value) -> String {
    const PREFIX: [u8; 12] =
        [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
    let der = [PREFIX.as_slice(), &bytes(&jwk["x"])].concat();
    format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", STANDARD.encode(der))
}

/// The way from an old key over both to the new one alone.
async fn rotate(
    old: &[(&'static str, &str)],
    both: &[(&'static str, &str)],
    new: &[(&'static str, &str)],
) {
    let database = Arc::new(TestDatabase::fresh().await);
    let first = instance(&database, old).await;
    first.register("ada").await;
    let before = first.login("ada", PASSWORD).await.expect(200);
    assert!(accepts(&first, before.text("access_token")).await);
    drop(first);

    let during = instance(&database, both).await;
    assert!(accepts(&during, before.text("access_token")).await, "the old key verifies still");
    let after = during.login("ada", PASSWORD).await.expect(200);
    assert!(accepts(&during, after.text("access_token")).await);
    let [old_kid, new_kid] =
        [&before, &after].map(|pair| part(pair.text("access_token"), 0)["kid"].clone());
    assert_ne!(old_kid, new_kid, "the new key signs");
    drop(during);

    let last = instance(&database, new).await;
    assert!(accepts(&last, after.text("access_token")).await);
    assert!(!accepts(&last, before.text("access_token")).await, "a retired key is gone");
    let body = serde_json::json!({ "refresh_token": before.text("refresh_token") });
    let renewed = last.anonymous().post("/api/v1/auth/refresh", body).await.expect(200);
    assert!(accepts(&last, renewed.text("access_token")).await, "but its session is not");
    assert_eq!(part(renewed.text("access_token"), 0)["kid"], new_kid);
}

#[tokio::test]
async fn a_shared_secret_is_exchanged_without_a_logout() {
    const OLD: &str = "the old key of Zebras 0123456789 and some more";
    const NEW: &str = "the new key of Quaggas 9876543210 and some more";
    rotate(
        &[("AUTH_SECRET_KEY", OLD)],
        &[("AUTH_SECRET_KEY", NEW), ("AUTH_PREVIOUS_SECRET_KEYS", OLD)],
        &[("AUTH_SECRET_KEY", NEW)],
    )
    .await;
}

#[tokio::test]
async fn an_rsa_key_is_exchanged_without_a_logout() {
    let algorithm = ("AUTH_ALGORITHM", "RS256");
    rotate(
        &[algorithm, ("AUTH_PRIVATE_KEY", RETIRING)],
        &[algorithm, ("AUTH_PRIVATE_KEY", CURRENT), ("AUTH_PREVIOUS_PUBLIC_KEYS", RETIRING_PUBLIC)],
        &[algorithm, ("AUTH_PRIVATE_KEY", CURRENT)],
    )
    .await;
}

#[tokio::test]
async fn an_ed25519_key_is_exchanged_without_a_logout() {
    let (old, new) = (generate_ed25519_pem([7; 32]), generate_ed25519_pem([9; 32]));
    let algorithm = ("AUTH_ALGORITHM", "EdDSA");
    let app = TestApp::configured([algorithm, ("AUTH_PRIVATE_KEY", &old)]).await;
    let public = public_pem(&key_set(&app).await[0]);
    rotate(
        &[algorithm, ("AUTH_PRIVATE_KEY", &old)],
        &[algorithm, ("AUTH_PRIVATE_KEY", &new), ("AUTH_PREVIOUS_PUBLIC_KEYS", &public)],
        &[algorithm, ("AUTH_PRIVATE_KEY", &new)],
    )
    .await;
}

/// The key set names all keys that verify, the signing one first.
#[tokio::test]
async fn the_key_set_follows_a_rotation() {
    let algorithm = ("AUTH_ALGORITHM", "RS256");
    let old = TestApp::configured([algorithm, ("AUTH_PRIVATE_KEY", RETIRING)]).await;
    let old = key_set(&old).await;
    assert_eq!(old.len(), 1);
    let both = TestApp::configured([
        algorithm,
        ("AUTH_PRIVATE_KEY", CURRENT),
        ("AUTH_PREVIOUS_PUBLIC_KEYS", RETIRING_PUBLIC),
    ])
    .await;
    let both = key_set(&both).await;
    assert_eq!(both.len(), 2);
    assert_eq!(both[1], old[0]);
    assert_ne!(both[0]["kid"], both[1]["kid"]);
}

/// By another implementation, knowing nothing but the published key.
#[tokio::test]
async fn others_can_verify_with_the_published_key() {
    for (algorithm, pem) in [("EdDSA", None), ("RS256", Some(CURRENT))] {
        let mut settings = vec![("AUTH_ALGORITHM", algorithm.to_owned())];
        settings.extend(pem.map(|pem| ("AUTH_PRIVATE_KEY", pem.to_owned())));
        let app = TestApp::with(Options { settings, ..Options::default() }).await;
        app.register("ada").await;
        let pair = app.login("ada", PASSWORD).await.expect(200);
        let token = pair.text("access_token");
        let keys = key_set(&app).await;
        let jwk = keys.iter().find(|key| key["kid"] == part(token, 0)["kid"]).unwrap();
        assert_eq!(jwk["alg"], algorithm);

        let (message, signature) = token.rsplit_once('.').unwrap();
        let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
        let holds = |message: &[u8]| {
            if algorithm == "EdDSA" {
                assert_eq!((&jwk["kty"], &jwk["crv"]), (&"OKP".into(), &"Ed25519".into()));
                let key = UnparsedPublicKey::new(&ED25519, bytes(&jwk["x"]));
                key.verify(message, &signature).is_ok()
            } else {
                assert_eq!(jwk["kty"], "RSA");
                let key = RsaPublicKeyComponents { n: bytes(&jwk["n"]), e: bytes(&jwk["e"]) };
                key.verify(&RSA_PKCS1_2048_8192_SHA256, message, &signature).is_ok()
            }
        };
        assert!(holds(message.as_bytes()), "{algorithm}");
        assert!(!holds(&message.as_bytes()[1..]), "{algorithm}");
    }
}
