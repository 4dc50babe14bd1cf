//! What is done with secrets, mistakes included.

use base64::{Engine as _, engine::general_purpose};
use bytes::Bytes;
use futures_util::future::join_all;
use http::{Method, Request, Version};
use http_body_util::Full;
use hyper_util::{client::legacy::Client as Pool, rt::TokioExecutor};
use serde_json::json;

use super::{
    ADMIN, Answers, CHANGED, CLIENT_BASIC, COOKIE, PERSON, Planted, QUERY, WRONG,
    money::{money, money_fails},
    outside::chats,
    sockets::{sockets, sockets_fail},
};
use crate::{
    browser::{self, SetCookie, hidden},
    process::{Process, attempt},
    support::Client,
};

/// Everything that a person and a program do, mistakes included. What an
/// endpoint exists to hand out is planted, not kept.
pub async fn tour(process: &Process, planted: &mut Planted, answers: &mut Answers) {
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
    let form_type = Some("application/x-www-form-urlencoded");
    let login = client.send(Method::POST, "/api/v1/auth/login", form_type, form.into()).await;
    let login = login.expect(200);
    browse(&client, planted, answers).await;
    planted.add("login token", login.text("access_token"));
    planted.add("refresh token", login.text("refresh_token"));
    let refresh = json!({ "refresh_token": login.text("refresh_token") });
    let pair = client.post("/api/v1/auth/refresh", refresh).await.expect(200);
    planted.add("login token", pair.text("access_token"));
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
    let token = process.token("admin", ADMIN).await;
    planted.add("login token", &token);
    let admin = client.with_bearer(&token);
    money(&client, &bearer, &admin, planted, answers).await;
    sockets(process, (&bearer, &admin), planted, answers).await;
    chats(process, planted, answers).await;
    for path in ["/api/v1/proxy/canary", "/health/live", "/api/v1/users/me", "/login", "/nothing"] {
        let keyed = client.with_key(rotated.text("key"));
        // The echo, where there is one, says it again.
        keyed.get(&format!("{path}?q={QUERY}&token={QUERY}")).await;
    }
    for kind in ["requests", "usage"] {
        let path = format!("/api/v1/usage/export?format=csv&kind={kind}");
        answers.keep(&bearer.get(&path).await);
        answers.keep(&admin.get(&format!("{path}&all=true")).await);
    }
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
    let pass = planted.all("access token")[0].to_owned();
    for (name, secret) in [("x-api-key", rotated.text("key")), ("x-access-token", &pass)] {
        let request = Request::get(format!("{}/api/v1/proxy/h2", process.base))
            .header("cookie", format!("sid={COOKIE}"))
            .header(name, secret)
            .body(Full::default());
        let over_h2 = pool.request(request.unwrap()).await.unwrap();
        assert_eq!(over_h2.version(), Version::HTTP_2);
    }
    // Without a valid name.
    let url = format!("{}/api/v1/proxy/x", process.base);
    let fields = [("x-api-key", rotated.text("key")), ("x_secret", COOKIE)];
    answers.keep(&attempt("GET", &url, &fields, "").await.unwrap().expect(400));
}

/// The person with a browser.
async fn browse(client: &Client, planted: &mut Planted, answers: &mut Answers) {
    let own = client.with("sec-fetch-site", "same-origin").with("accept", "text/html");
    let page = own.get("/login?next=/api/v1/proxy/page").await.expect(200);
    answers.keep(&page);
    let token = hidden(&page, "form").unwrap();
    let form = SetCookie::parse(page.header("set-cookie"));
    let own = own.with("cookie", &format!("{}={}", form.name, form.value));
    let send = async |name: &str, password: &str| {
        let fields = [("form", token.as_str()), ("username", name), ("password", password)];
        let media = Some("application/x-www-form-urlencoded");
        own.send(Method::POST, "/login", media, browser::form(&fields).into()).await
    };
    answers.keep(&send("stranger", WRONG).await.expect(401));
    let signed_in = send("person", PERSON).await.expect(303);
    let cookie = SetCookie::parse(signed_in.header("set-cookie"));
    planted.add("login cookie", &cookie.value);
    let with_it = own.with("cookie", &format!("{}={}", cookie.name, cookie.value));
    answers.keep(&with_it.get("/api/v1/proxy/page").await);
    answers.keep(&with_it.get("/logout").await.expect(200));
    answers.keep(&with_it.get("/api/v1/users/me").await.expect(401));
    let in_url = format!("/api/v1/proxy/x?cookie={}", cookie.value);
    answers.keep(&client.get(&in_url).await.expect_problem(400, "credential_in_url"));
}

/// The same people, while nothing answers.
pub async fn errors(process: &Process, planted: &Planted, answers: &mut Answers) {
    let login = json!({ "username": "person", "password": CHANGED });
    answers.keep(&process.client().post("/api/v1/auth/login", login).await.expect(503));
    // At once, since each waits for the database.
    let refused = join_all(planted.0.iter().map(async |(name, secret)| {
        let client = process.client();
        Some(match *name {
            "key" => client.with_key(secret).get("/api/v1/proxy/x").await,
            "login token" => client.with_bearer(secret).get("/api/v1/keys").await,
            "refresh token" => {
                client.post("/api/v1/auth/refresh", json!({ "refresh_token": secret })).await
            }
            "login cookie" => {
                let cookie = format!("tollgate_sid={secret}");
                client.with("cookie", &cookie).get("/api/v1/proxy/x").await
            }
            _ => return None,
        })
    }));
    for answer in refused.await.into_iter().flatten() {
        assert!(answer.status.as_u16() >= 400, "{answer:?}");
        answers.keep(&answer);
    }
    sockets_fail(process, planted, answers).await;
    money_fails(process, planted, answers).await;
    let health = process.client().get("/health").await.expect(503);
    answers.keep(&health);
}
