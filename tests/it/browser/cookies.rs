//! The cookies themselves: how they are set, which are read, where they count.

use http::{Method, header};
use serde_json::json;

use super::{APP, Browser, NAVIGATION, SetCookie, signed_in};
use crate::support::{
    PASSWORD, TestApp,
    raw::Raw,
    recorder::{Recorder, Reply},
};

/// RELIABILITY G-96, over every route that sets one; [`Browser`] itself holds
/// every cookie of every test to the same.
#[tokio::test]
async fn every_cookie_is_set_with_every_guard() {
    let app = TestApp::unlimited().await;
    let ada = app.user("ada").await;
    let token = ada.post("/api/v1/tokens/purchase", json!({ "duration_hours": 1 })).await;
    let token = token.expect(201).text("token").to_owned();
    for browser in [Browser::new(&app), Browser::https(&app)] {
        let https = browser.origin.starts_with("https");
        let mut seen = vec![];
        for (path, out) in [("/login", "/logout"), ("/.tollgate/login", "/.tollgate/logout")] {
            browser.set_cookie("sid", "bad");
            browser.set_cookie("pass", "bad");
            seen.push(browser.open(path).await.expect(200));
            let password = [("username", "ada"), ("password", PASSWORD)];
            for fields in [&password[..], &[("access_token", &token)], &[("access_token", "x")]] {
                seen.push(browser.fill_in(path, fields).await);
            }
            seen.push(browser.open(out).await.expect(200));
            seen.push(browser.fill_in(out, &[]).await.expect(303));
        }
        let fields = seen.iter().flat_map(|answer| answer.headers.get_all(header::SET_COOKIE));
        let cookies: Vec<_> =
            fields.map(|field| SetCookie::parse(field.to_str().unwrap())).collect();
        for cookie in &cookies {
            cookie.check(https);
        }
        for (short, life) in [("sid", 24 * 3600), ("pass", 30 * 24 * 3600), ("form", 12 * 3600)] {
            let of = |set: bool| {
                let name = browser.name(short);
                cookies.iter().filter(move |c| c.name == name && (c.max_age > 0) == set)
            };
            assert!(of(true).count() > 0 && of(false).count() > 0, "{short}");
            assert!(of(true).all(|cookie| (life - cookie.max_age).abs() <= 1), "{short}");
        }
    }
}

/// A browser behind a proxy that we do not know sees https all the same, and
/// would not send back what is not `Secure`.
#[tokio::test]
async fn the_public_url_says_what_the_browser_sees() {
    let app = TestApp::configured([
        ("SERVER_PUBLIC_URL", "https://gate.example"),
        ("SERVER_TRUSTED_PROXIES", ""),
    ])
    .await;
    let answer = app.anonymous().with("host", "gate.example").get("/login").await.expect(200);
    let cookie = SetCookie::parse(answer.header("set-cookie"));
    cookie.check(true);
    // A stranger's word for the scheme counts for nothing.
    let app = TestApp::configured([("SERVER_TRUSTED_PROXIES", "")]).await;
    let stranger = app.anonymous().with("x-forwarded-proto", "https");
    SetCookie::parse(stranger.get("/login").await.expect(200).header("set-cookie")).check(false);
}

/// Which of two cookies of one name is the browser's own nobody can tell.
#[tokio::test]
async fn a_cookie_that_stands_twice_is_refused() {
    let app = TestApp::unlimited().await;
    let browser = signed_in(&app, "ada").await;
    let sid = browser.cookie("sid").unwrap();
    let address = app.running.as_ref().unwrap().address();
    let ask = async |path: &str, cookies: &str| {
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: a\r\nAccept: text/html\r\nConnection: close\r\n{cookies}\r\n"
        );
        Raw::exchange(address, request).await
    };
    for cookies in [
        format!("Cookie: tollgate_sid={sid}; tollgate_sid={sid}\r\n"),
        format!("Cookie: tollgate_sid={sid}\r\nCookie: tollgate_sid={sid}\r\n"),
        format!("Cookie: tollgate_sid=x;tollgate_sid={sid}\r\n"),
        format!("Cookie: tollgate_sid={sid}; a=1; tollgate_sid=\r\n"),
        format!("Cookie: tollgate_sid ={sid}; tollgate_sid= {sid}\r\n"),
        format!("Cookie: tollgate_sid={sid}; tollgate_pass=x; tollgate_pass=x\r\n"),
    ] {
        for path in [APP, "/login", "/logout"] {
            let answer = ask(path, &cookies).await;
            assert_eq!(answer.status, 400, "{path} {cookies} {}", answer.text());
            assert!(answer.header("set-cookie").is_none());
        }
        assert_eq!(ask(APP, &cookies).await.json()["code"], "duplicate_credential", "{cookies}");
    }
    // Others may repeat theirs, and ours may stand beside them.
    let cookies = format!("Cookie: a=1; a=1; tollgate_sid={sid}\r\nCookie: a=1\r\n");
    assert_eq!(ask(APP, &cookies).await.status, 200);
}

/// What a sibling host or a page over http could plant is not looked at over
/// https.
#[tokio::test]
async fn only_the_name_that_fits_the_scheme_is_read() {
    let app = TestApp::unlimited().await;
    app.register("ada").await;
    let (plain, secure) = (Browser::new(&app), Browser::https(&app));
    plain.sign_in("ada").await;
    secure.sign_in("ada").await;
    let (plain, secure) = (plain.cookie("sid").unwrap(), secure.cookie("sid").unwrap());
    for (proto, name, value, opens) in [
        ("http", "tollgate_sid", &plain, true),
        ("https", "__Host-tollgate-sid", &secure, true),
        ("https", "tollgate_sid", &plain, false),
        ("http", "__Host-tollgate-sid", &secure, false),
        ("https", "__host-tollgate-sid", &secure, false),
        ("https", "__Host-Tollgate-Sid", &secure, false),
        ("https", "__Host-tollgate-sid2", &secure, false),
        ("https", "x__Host-tollgate-sid", &secure, false),
        ("http", "__Secure-tollgate_sid", &plain, false),
        ("http", "TOLLGATE_SID", &plain, false),
        ("http", "tollgate-sid", &plain, false),
    ] {
        let client = app.anonymous().with("x-forwarded-proto", proto);
        let answer = client.with("cookie", &format!("{name}={value}")).get(APP).await;
        let expected = if opens { 200 } else { 401 };
        assert_eq!(answer.status, expected, "{proto} {name}");
    }
    let client = app.anonymous();
    client.with("cookie", &plain).get(APP).await.expect(401);
    client.with("cookie", &format!("=tollgate_sid={plain}")).get(APP).await.expect(401);
}

/// A page of an upstream under a prefix is of the same origin as the API.
#[tokio::test]
async fn a_cookie_is_nothing_to_the_api() {
    let app = TestApp::unlimited().await;
    let ada = app.user("ada").await;
    let token = ada.post("/api/v1/tokens/purchase", json!({ "duration_hours": 1 })).await;
    let token = token.expect(201).text("token").to_owned();
    let (login, pass) = (Browser::https(&app), Browser::https(&app));
    login.sign_in("ada").await;
    pass.fill_in("/login", &[("access_token", &token)]).await.expect(303);
    let document = serde_json::to_value(tollgate::api::document()).unwrap();
    let mut asked = 0;
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let open = operation["security"].as_array().unwrap().iter().any(|s| s == &json!({}));
            // A question about a request to an upstream is like that request.
            if open || path.contains("/proxy/") || path.ends_with("/auth/verify") {
                continue;
            }
            let method: Method = method.to_uppercase().parse().unwrap();
            let path = path.replace("{id}", &uuid::Uuid::now_v7().to_string());
            for path in [path.clone(), path.replace("/api/v1/", "/api/")] {
                for browser in [&login, &pass] {
                    let own = [("sec-fetch-site", "same-origin"), NAVIGATION[0]];
                    let body = Some(("application/json", "{}".to_owned()));
                    let answer = browser.send(method.clone(), &path, &own, body).await;
                    // There are no chats here.
                    let of_chats = operation["security"].as_array().unwrap();
                    let of_chats = of_chats.iter().any(|s| s.get("chat_session").is_some());
                    let (status, code) =
                        if of_chats { (404, "not_found") } else { (401, "unauthenticated") };
                    answer.expect_problem(status, code);
                    asked += 1;
                }
            }
        }
    }
    assert!(asked > 100, "{asked}");
    login.open(APP).await.expect(200);
    pass.open(APP).await.expect(200);
}

#[tokio::test]
async fn our_cookies_and_the_upstreams_do_not_mix() {
    let recorder = Recorder::start(|_| {
        Reply::Send(
            b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nset-cookie: a=1\r\n\
              set-cookie: tollgate_sid=evil; Path=/\r\nset-cookie: __Host-tollgate-sid=evil\r\n\
              set-cookie: tollgate_pass=evil\r\nset-cookie: TOLLGATE_FORM=evil\r\n\r\nok"
                .to_vec(),
        )
    })
    .await;
    let app =
        TestApp::configured([("UPSTREAM_URL", &*recorder.url()), ("UPSTREAM_MOUNT", "/")]).await;
    let browser = signed_in(&app, "ada").await;
    let before = browser.cookies();
    browser.set_cookie("pass", "tga_bad");
    browser.jar.lock().unwrap().insert("theirs".to_owned(), "1".to_owned());
    let answer = browser.client.clone();
    let cookies = browser.cookies();
    let pairs: Vec<_> = cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let answer = answer.with("cookie", &pairs.join("; ")).get("/x").await.expect(200);
    let set: Vec<_> = answer.headers.get_all(header::SET_COOKIE).iter().collect();
    assert_eq!(set, ["a=1"]);
    let seen = recorder.take().remove(0);
    assert_eq!(seen.all("cookie"), ["theirs=1"]);
    assert_eq!(seen.all("x-username"), ["ada"]);
    assert!(before.values().all(|value| !seen.head.contains(value.as_str())));
}
