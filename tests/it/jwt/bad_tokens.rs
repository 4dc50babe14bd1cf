//! RELIABILITY G-101: no bad token is accepted, and all are one answer.

use std::collections::BTreeSet;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::Algorithm;
use serde_json::{Value, json};

use super::{
    accepts,
    corpus::{Origin, corpus},
    instance, part, sign,
};
use crate::support::{Client, PASSWORD, TestApp, UNLIMITED};

async fn refusal(client: &Client, path: &str, label: &str) -> Value {
    let mut answer = client.get(path).await;
    assert_eq!(answer.status, 401, "{label}: {answer:?}");
    let challenge = answer.header("www-authenticate").to_owned();
    let id = answer.json.as_object_mut().unwrap().remove("request_id").unwrap();
    assert_eq!(answer.header("x-request-id"), id);
    answer.json["www-authenticate"] = json!(challenge);
    answer.json
}

#[tokio::test]
async fn every_bad_token_is_refused_with_the_same_words() {
    let app = instance().await;
    let mut pairs = vec![];
    for name in ["ada", "grace"] {
        app.register(name).await;
        pairs.push(app.login(name, PASSWORD).await.expect(200));
    }
    let token = pairs[0].text("access_token");
    let stranger = part(pairs[1].text("access_token"), 1);
    let origin = Origin {
        token,
        refresh_token: pairs[0].text("refresh_token"),
        stranger: (stranger["sub"].as_str().unwrap(), stranger["sid"].as_str().unwrap()),
    };
    let corpus = corpus(&origin);
    let distinct: BTreeSet<&str> = corpus.iter().map(|(_, token)| token.as_str()).collect();
    assert!(distinct.len() >= 200, "only {} tokens", distinct.len());
    assert!(!distinct.contains(token));

    for path in ["/api/v1/users/me", "/api/v1/proxy/x"] {
        let none = app.anonymous().with_bearer("x");
        let expected = refusal(&none, path, "x").await;
        assert_eq!(expected["code"], "invalid_credential");
        for (label, bad) in &corpus {
            let client = app.anonymous().with_bearer(bad);
            assert_eq!(refusal(&client, path, label).await, expected, "{label}");
        }
    }
    assert!(accepts(&app, token).await, "the good one is good still");
}

/// The public key is known to all, so nothing may be verified with it as if
/// it were a shared secret.
#[tokio::test]
async fn a_public_key_is_not_a_shared_secret() {
    for (algorithm, pem) in [("RS256", Some(include_str!("keys/retiring.pem"))), ("EdDSA", None)] {
        let [minute, hour] = UNLIMITED;
        let mut settings = vec![minute, hour, ("AUTH_ALGORITHM", algorithm)];
        settings.extend(pem.map(|pem| ("AUTH_PRIVATE_KEY", pem)));
        let settings = settings.into_iter().map(|(name, value)| (name, value.to_owned()));
        let options =
            crate::support::Options { settings: settings.collect(), ..Default::default() };
        let app = TestApp::with(options).await;
        app.register("ada").await;
        let pair = app.login("ada", PASSWORD).await.expect(200);
        let token = pair.text("access_token");
        assert!(accepts(&app, token).await);

        let (mut header, claims) = (part(token, 0), part(token, 1).to_string());
        assert_eq!(header["alg"], algorithm);
        let set = app.anonymous().get("/.well-known/jwks.json").await.expect(200);
        let jwk = &set.json["keys"][0];
        let field = |name: &str| jwk[name].as_str().unwrap_or_default().as_bytes().to_vec();
        let decoded = |name: &str| URL_SAFE_NO_PAD.decode(field(name)).unwrap();
        let public = include_str!("keys/retiring.pub.pem");
        let secrets = [
            vec![],
            public.as_bytes().to_vec(),
            public.trim_end().as_bytes().to_vec(),
            field("n"),
            field("x"),
            field("kid"),
            decoded("n"),
            decoded("x"),
            jwk.to_string().into_bytes(),
            set.body.to_vec(),
        ];
        for alg in ["HS256", "RS256", "EdDSA", "none"] {
            header["alg"] = json!(alg);
            for secret in &secrets {
                let bad = sign(&header.to_string(), &claims, secret, Algorithm::HS256);
                assert!(!accepts(&app, &bad).await, "{alg} {secret:?}");
                let (message, _) = bad.rsplit_once('.').unwrap();
                assert!(!accepts(&app, &format!("{message}.")).await);
            }
        }
        let (message, signature) = token.rsplit_once('.').unwrap();
        let mut bytes = URL_SAFE_NO_PAD.decode(signature).unwrap();
        for at in 0..bytes.len() {
            bytes[at] ^= 1 << (at % 8);
            let bad = format!("{message}.{}", URL_SAFE_NO_PAD.encode(&bytes));
            assert!(!accepts(&app, &bad).await, "bit {at}");
            bytes[at] ^= 1 << (at % 8);
        }
        let zeroes = URL_SAFE_NO_PAD.encode(vec![0; bytes.len()]);
        assert!(!accepts(&app, &format!("{message}.{zeroes}")).await);
    }
}

/// Signing in is one thing, being let through another: the roles in a token
/// are for readers, ours are in the database.
#[tokio::test]
async fn a_role_in_a_token_gives_nothing() {
    let app = instance().await;
    app.register("ada").await;
    let pair = app.login("ada", PASSWORD).await.expect(200);
    let token = pair.text("access_token");
    let mut claims = part(token, 1);
    claims["roles"] = json!(["user", "moderator", "admin"]);
    claims["username"] = json!("admin");
    let header = part(token, 0).to_string();
    let token = sign(&header, &claims.to_string(), super::SECRET.as_bytes(), Algorithm::HS256);
    let ada = app.anonymous().with_bearer(&token);
    ada.get("/api/v1/admin/users").await.expect_problem(403, "role_required");
    let echo = ada.get("/api/v1/proxy/x").await.expect(200);
    assert_eq!(echo.json["headers"]["x-username"], "ada");
    assert_eq!(echo.json["headers"]["x-roles"], "user");
}
