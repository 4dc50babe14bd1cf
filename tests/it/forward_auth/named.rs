//! Which request is asked about, and what is no answer to that.

use super::{Ada, VERIFY, ask, ask_with, guard, send};

/// Each way to say it comes to the same request.
#[tokio::test]
async fn every_proxys_way_to_name_a_request_is_understood() {
    let app = guard().await;
    let ada = Ada::new(&app).await;
    let nginx = |method: &str, uri: &str| {
        ada.key.with("x-original-method", method).with("x-original-uri", uri)
    };
    let traefik = |method: &str, uri: &str| {
        ada.key.with("x-forwarded-method", method).with("X-Forwarded-Uri", uri)
    };
    for (client, method, place, seen) in [
        (nginx("POST", "/a/b?c=d&upstream=open"), "GET", VERIFY, ("POST", "/a/b", "app")),
        (nginx("GET", "/%61?x"), "POST", "/api/auth/verify", ("GET", "/a", "app")),
        (nginx("PURGE", "/"), "GET", "/.tollgate/auth/verify", ("PURGE", "/", "app")),
        (nginx("GET", "/a"), "GET", "/api/auth/verify?upstream=other", ("GET", "/a", "other")),
        (nginx("GET", "/a"), "GET", "/api/v1/auth/verify-for/other", ("GET", "/a", "other")),
        (traefik("PUT", "/a/b"), "GET", VERIFY, ("PUT", "/a/b", "app")),
        (traefik("PUT", "/a"), "GET", "/api/v1/auth/verify?", ("PUT", "/a", "app")),
        // Envoy: the query is the original's and holds no options.
        (
            ada.key.clone(),
            "DELETE",
            "/api/v1/auth/verify/a/b?upstream=open",
            ("DELETE", "/a/b", "app"),
        ),
        (ada.key.clone(), "GET", "/api/auth/verify/", ("GET", "/", "app")),
        (ada.key.clone(), "OPTIONS", "/.tollgate/auth/verify/%41", ("OPTIONS", "/A", "app")),
        (ada.key.clone(), "PATCH", "/api/v1/auth/verify-for/other/a/b", ("PATCH", "/a/b", "other")),
        (ada.key.clone(), "GET", "/api/v1/auth/verify-for/app/", ("GET", "/", "app")),
        // Nobody says anything: the request itself.
        (ada.key.clone(), "GET", "/api/auth/verify", ("GET", "/api/auth/verify", "app")),
    ] {
        let answer = send(&client, method, place).await.expect(200);
        assert_eq!(answer.header("cache-control"), "no-store");
        assert!(answer.body.is_empty());
        let log = ada.log(&app).await;
        let text = |field: &str| log[0][field].as_str().unwrap().to_owned();
        let found = (text("method"), text("path"), text("upstream"));
        assert_eq!((&*found.0, &*found.1, &*found.2), seen, "{method} {place}");
        assert_eq!(answer.header("x-user-id"), ada.id);
    }
}

#[tokio::test]
async fn what_is_not_clear_is_never_guessed() {
    let app = guard().await;
    let ada = Ada::new(&app).await;
    let invalid = "invalid_request";
    for uri in [
        "//a",
        "/a//b",
        "/a/../static/x",
        "/static/..%2fa",
        "/static/%2e%2e/a",
        "/a%00",
        "/a%5cb",
        "/a%252e",
        "/a;/../b",
        "/%",
        "a",
        "*",
        "",
        "http://a/b",
        "/a\\b",
        "/%ff",
        "/a#b",
        "?a",
    ] {
        ask(&ada.key, "GET", uri).await.expect_problem(400, "ambiguous_path");
        if uri.starts_with('/') && !uri.contains(['#', '\\']) {
            let path = format!("{VERIFY}{uri}");
            send(&ada.key, "GET", &path).await.expect_problem(400, "ambiguous_path");
        }
    }
    let pass = &ada.pass_text;
    for uri in [format!("/a?token={pass}"), format!("/{pass}"), format!("/a?x=%74{}", &pass[1..])] {
        ask(&ada.key, "GET", &uri).await.expect_problem(400, "credential_in_url");
    }
    let too_long = format!("/{}", "a".repeat(8 * 1024));
    for (fields, place) in [
        (&[("x-original-uri", "/a"), ("x-original-uri", "/a")][..], VERIFY),
        (&[("x-original-uri", "/a"), ("x-forwarded-uri", "/a")], VERIFY),
        (&[("x-forwarded-uri", "/a"), ("x-forwarded-uri", "/static/a")], VERIFY),
        (&[("x-original-uri", "/a")], VERIFY),
        (&[("x-forwarded-method", "GET")], VERIFY),
        (&[("x-original-uri", "/a"), ("x-original-method", "")], VERIFY),
        (&[("x-original-uri", "/a"), ("x-original-method", "G T")], VERIFY),
        (&[("x-original-uri", "/é"), ("x-original-method", "GET")], VERIFY),
        (&[("x-original-uri", "/a?\"\u{e9}"), ("x-original-method", "GET")], VERIFY),
        (&[("x-original-uri", &too_long), ("x-original-method", "GET")], VERIFY),
        // A client of Envoy would name another request than its own.
        (&[("x-original-uri", "/static/a")], "/api/v1/auth/verify/a"),
        (&[("x-forwarded-method", "GET")], "/api/v1/auth/verify/a"),
        (&[("x-original-uri", "/static/a"), ("x-original-method", "GET")], "/api/v1/auth/verify/a"),
        (&[("x-forwarded-uri", "/a"), ("x-forwarded-method", "GET")], "/api/auth/verify/"),
        (&[], "/api/v1/auth/verify?upstream=app&upstream=open"),
        (&[], "/api/v1/auth/verify-for/app?upstream=open"),
        (
            &[("x-original-uri", "/a"), ("x-original-method", "GET")],
            "/api/v1/auth/verify?redirect=yes",
        ),
        (&[("x-original-uri", "/a"), ("x-original-method", "GET")], "/api/v1/auth/verify?status=1"),
    ] {
        let mut client = ada.key.clone();
        for (name, value) in fields {
            client = client.with(name, value);
        }
        let answer = client.get(place).await.expect_problem(400, invalid);
        assert!(!answer.headers.contains_key("x-user-id"), "{fields:?} {place}");
    }
    for place in ["/api/v1/auth/verify?upstream=none", "/api/v1/auth/verify-for/none/a"] {
        ada.key.get(place).await.expect_problem(404, "not_found");
    }
    assert!(ada.log(&app).await.is_empty());
}

/// Caddy passes the client's query on where it is not told another.
#[tokio::test]
async fn a_query_that_may_be_the_clients_holds_no_options() {
    let app = guard().await;
    let nobody = app.anonymous();
    let copied = |query: &str| {
        let client = nobody.with("x-forwarded-method", "GET");
        let client = client.with("x-forwarded-uri", &format!("/a?{query}"));
        (client.with("accept", "text/html"), format!("{VERIFY}?{query}"))
    };
    let (client, place) = copied("upstream=open");
    client.get(&place).await.expect_problem(400, "invalid_request");
    for query in ["redirect=1", "status=open", "a=b"] {
        let (client, place) = copied(query);
        client.get(&place).await.expect_problem(401, "unauthenticated");
    }
    ask_with(&nobody, "?upstream=open", "GET", "/a").await.expect(200);
}

/// CORS would say 200 to each of them, and that means yes.
#[tokio::test]
async fn a_preflight_is_a_request_like_any_other() {
    let app = guard().await;
    let preflight = app
        .anonymous()
        .with("origin", "https://evil.example")
        .with("access-control-request-method", "DELETE");
    for place in [VERIFY, "/api/v1/auth/verify/a", "/api/auth/verify/a"] {
        send(&preflight, "OPTIONS", place).await.expect_problem(401, "unauthenticated");
    }
    send(&preflight, "OPTIONS", "/api/v1/auth/verify/static/a").await.expect(200);
}
