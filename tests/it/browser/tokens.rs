//! One key signs tokens of several kinds, and none is taken for another.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, crypto};
use serde_json::{Value, json};

use super::{APP, Browser, NAVIGATION};
use crate::support::{PASSWORD, TestApp, UNLIMITED};

const SECRET: &str = "a key of Zebras that sign, 0123456789!";

pub fn header(token: &str) -> Value {
    crate::jwt::part(token, 0)
}

pub fn claims(token: &str) -> Value {
    crate::jwt::part(token, 1)
}

fn sign(header: &Value, claims: &Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let message = format!("{}.{}", part(header), part(claims));
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    let signature = crypto::sign(message.as_bytes(), &key, Algorithm::HS256).unwrap();
    format!("{message}.{signature}")
}

/// Every kind of text of ours in every place where one is read: each opens its
/// own places and no other.
#[tokio::test]
async fn a_token_is_good_only_in_its_own_place() {
    let [minute, hour] = UNLIMITED;
    let app = TestApp::configured([minute, hour, ("AUTH_SECRET_KEY", SECRET)]).await;
    app.register("ada").await;
    let pair = app.login("ada", PASSWORD).await.expect(200);
    let ada = app.anonymous().with_bearer(pair.text("access_token"));
    let pass = ada.post("/api/v1/tokens/purchase", json!({ "duration_hours": 1 })).await;
    let key = ada.post("/api/v1/keys", json!({ "name": "k" })).await.expect(201);
    let browser = Browser::new(&app);
    browser.sign_in("ada").await;
    let (access, cookie) = (pair.text("access_token").to_owned(), browser.cookie("sid").unwrap());
    assert_eq!(header(&access)["typ"], "at+jwt");
    assert_eq!(header(&cookie)["typ"], "tgc+jwt");
    let again = sign(&header(&cookie), &claims(&cookie));

    // With all the claims that the other kind needs.
    let mut full = claims(&access);
    full["sid"] = claims(&cookie)["sid"].clone();
    let with_typ = |typ: &str| {
        let mut head = header(&access);
        head["typ"] = json!(typ);
        sign(&head, &full)
    };
    let texts = [
        ("access", access.clone()),
        ("cookie", cookie),
        ("a cookie of the same parts", again),
        ("assertion", with_typ("tga+jwt")),
        ("no kind", with_typ("JWT")),
        ("upper case", with_typ("TGC+JWT")),
        ("refresh", pair.text("refresh_token").to_owned()),
        ("pass", pass.expect(201).text("token").to_owned()),
        ("key", key.text("key").to_owned()),
    ];
    let places: [(&str, &str, &[&str]); 5] = [
        ("authorization", "Bearer ", &["access", "key"]),
        ("x-api-key", "", &["key"]),
        ("x-access-token", "", &["pass"]),
        ("cookie", "tollgate_sid=", &["cookie", "a cookie of the same parts"]),
        ("cookie", "tollgate_pass=", &["pass"]),
    ];
    for (field, before, opens) in places {
        for (kind, text) in &texts {
            let value = format!("{before}{text}");
            let answer = app.anonymous().with(field, &value).get(APP).await;
            let expected = if opens.contains(kind) { 200 } else { 401 };
            assert_eq!(answer.status, expected, "{kind} in {value:.20}");
        }
    }
}

/// RELIABILITY G-95: what an account may do is not raised for a login that was
/// made without it, nor does a login that was made with it go on.
#[tokio::test]
async fn a_change_of_roles_asks_for_a_new_login() {
    let app = TestApp::unlimited().await;
    let admin = app.admin().await;
    let browser = crate::browser::signed_in(&app, "ada").await;
    let ada = app.log_in("ada", PASSWORD).await;
    let me = ada.get("/api/v1/users/me").await.expect(200);
    let account = format!("/api/v1/admin/users/{}", me.text("id"));
    let mut ids = vec![];
    for roles in [json!(["user", "moderator"]), json!(["user"])] {
        browser.open(APP).await.expect(200);
        let old = browser.cookie("sid").unwrap();
        ids.push(claims(&old)["sid"].clone());
        // The same again changes nothing.
        let same = claims(&old)["roles"].clone();
        admin.patch(&account, json!({ "roles": same })).await.expect(200);
        browser.open(APP).await.expect(200);
        admin.patch(&account, json!({ "roles": roles })).await.expect(200);
        let led = browser.open(APP).await.expect(303);
        assert!(led.header("location").starts_with("/login?next="), "{led:?}");
        let script = [("accept", "*/*"), ("sec-fetch-site", "same-origin")];
        browser.send(http::Method::GET, APP, &script, None).await.expect(401);
        // A program's login goes on, with the roles that it has now.
        let me = ada.get("/api/v1/users/me").await.expect(200);
        assert_eq!(me.json["roles"], roles);
        browser.set_cookie("sid", &old);
        browser.sign_in("ada").await;
        let new = browser.cookie("sid").unwrap();
        assert_eq!(claims(&new)["roles"], roles);
        assert!(!ids.contains(&claims(&new)["sid"]), "{ids:?}");
        browser.open(APP).await.expect(200);
        // The id from before is dead, also where the roles are as they were.
        let before = Browser::new(&app);
        before.set_cookie("sid", &old);
        before.open(APP).await.expect(303);
        admin.patch(&account, json!({ "roles": same })).await.expect(200);
        before.set_cookie("sid", &old);
        before.open(APP).await.expect(303);
        admin.patch(&account, json!({ "roles": roles })).await.expect(200);
    }
}

/// What is said in a cookie must hold, all of it.
#[tokio::test]
async fn a_cookie_that_was_changed_counts_as_none() {
    let [minute, hour] = UNLIMITED;
    let app = TestApp::configured([minute, hour, ("AUTH_SECRET_KEY", SECRET)]).await;
    for name in ["ada", "grace"] {
        app.register(name).await;
    }
    let (browser, grace) = (Browser::new(&app), Browser::new(&app));
    browser.sign_in("ada").await;
    grace.sign_in("grace").await;
    let good = browser.cookie("sid").unwrap();
    let (head, body) = (header(&good), claims(&good));
    let other = claims(&grace.cookie("sid").unwrap());
    let now = body["iat"].as_i64().unwrap();
    let changed = |name: &str, value: Value| {
        let mut body = body.clone();
        body[name] = value;
        sign(&head, &body)
    };
    let mut bad = vec![
        changed("sub", other["sub"].clone()),
        changed("sid", other["sid"].clone()),
        changed("sid", json!(uuid::Uuid::now_v7())),
        changed("roles", json!(["king"])),
        changed("exp", json!(now - 31)),
        changed("exp", json!("never")),
        changed("iat", json!(now + 3600)),
        changed("iss", json!("somebody")),
        changed("aud", json!("somebody")),
        changed("aud", json!(["tollgate"])),
    ];
    for name in ["sub", "roles", "sid", "iat", "exp", "iss", "aud"] {
        let mut body = body.clone();
        body.as_object_mut().unwrap().remove(name);
        bad.push(sign(&head, &body));
    }
    let (message, signature) = good.rsplit_once('.').unwrap();
    bad.extend([message.to_owned(), format!("{message}."), format!("{good}A"), format!(".{good}")]);
    bad.push(format!("{message}.{}", signature.chars().rev().collect::<String>()));
    bad.extend([String::new(), "x".repeat(5000), "é".to_owned(), format!("\"{good}\"")]);
    let sid = |value: &str| app.anonymous().with("cookie", &format!("tollgate_sid={value}"));
    sid(&good).get(APP).await.expect(200);
    for bad in &bad {
        let client = sid(bad);
        client.get(APP).await.expect_problem(401, "unauthenticated");
        let page = client.with(NAVIGATION[0].0, NAVIGATION[0].1);
        page.get(APP).await.expect(303);
        // The login page has the browser forget it.
        let cleared = page.get("/login").await.expect(200);
        let mut fields = cleared.headers.get_all("set-cookie").iter();
        assert!(fields.any(|f| f.to_str().unwrap().starts_with("tollgate_sid=; ")), "{bad}");
    }
    assert!(bad.len() > 20);
    let kept = sid(&good).get("/login").await.expect(200);
    assert_eq!(kept.headers.get_all("set-cookie").iter().count(), 1, "the form's alone");
}
