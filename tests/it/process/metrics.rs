//! `/metrics`, and which hosts are answered.

use std::net::TcpListener;

use super::{PASSWORD, Setup, attempt};

const TOKEN: &str = "k3Jq0ZxW-metrics-81";

#[tokio::test]
async fn the_metrics_need_their_token_where_one_is_set() {
    let open = Setup::sqlite().serve().await;
    let metrics = open.client().get("/metrics").await.expect(200);
    let text = String::from_utf8(metrics.body.to_vec()).unwrap();
    assert!(text.contains("tollgate_http_requests_total{"), "{text}");
    assert!(metrics.header("content-type").starts_with("text/plain; version=0.0.4"));

    let closed = Setup::sqlite().set("METRICS_TOKEN", TOKEN).serve().await;
    let client = closed.client();
    client.with_bearer(TOKEN).get("/metrics").await.expect(200);
    let key = closed.key(&closed.admin().await).await.1;
    let login = closed.token("admin", PASSWORD).await;
    for wrong in ["", TOKEN.strip_suffix('1').unwrap(), &format!("{TOKEN}1"), &key, &login] {
        let refused = client.with_bearer(wrong).get("/metrics").await;
        let refused = refused.expect_problem(401, "invalid_credential");
        refused.header("www-authenticate");
    }
    client.get("/metrics").await.expect(401);
    client.with("authorization", &format!("Basic {TOKEN}")).get("/metrics").await.expect(401);
}

#[tokio::test]
async fn the_metrics_can_have_a_port_of_their_own() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let setup = Setup::sqlite()
        .set("METRICS_PORT", &port.to_string())
        .set("METRICS_TOKEN", TOKEN)
        .set("SERVER_TRUSTED_HOSTS", "gate.example.com");
    let process = setup.serve_as("gate.example.com").await;
    let bearer = format!("Bearer {TOKEN}");
    let own = format!("http://127.0.0.1:{port}");
    let get = async |url: String, bearer: &str| {
        let fields = [("authorization", bearer), ("x-request-id", "scrape-1")];
        attempt("GET", &url, &fields, "").await.unwrap()
    };
    let metrics = get(format!("{own}/metrics"), &bearer).await.expect(200);
    let text = String::from_utf8(metrics.body.to_vec()).unwrap();
    assert!(text.contains("tollgate_http_requests_total{"), "{text}");
    assert_eq!(metrics.header("x-request-id"), "scrape-1");
    let refused = get(format!("{own}/metrics"), "Bearer nonsense").await;
    let refused = refused.expect_problem(401, "invalid_credential");
    assert_eq!(refused.json["request_id"], "scrape-1");
    for path in ["/", "/health", "/api/v1/users/me", "/api/v1/proxy/x", "/api/docs"] {
        get(format!("{own}{path}"), &bearer).await.expect_problem(404, "not_found");
    }
    let wrong = attempt("POST", &format!("{own}/metrics"), &[], "").await.unwrap();
    wrong.expect_problem(405, "method_not_allowed");

    let host = [("host", "gate.example.com"), ("authorization", &*bearer)];
    let main = attempt("GET", &format!("{}/metrics", process.base), &host, "").await.unwrap();
    main.expect_problem(404, "not_found");
}

#[tokio::test]
async fn only_trusted_hosts_are_answered() {
    let setup = Setup::sqlite().set("SERVER_TRUSTED_HOSTS", "gate.example.com,[::1]");
    let process = setup.serve_as("gate.example.com").await;
    for path in ["/health/live", "/api/v1/users/me", "/api/v1/proxy/x", "/nothing"] {
        let url = format!("{}{path}", process.base);
        for host in ["gate.example.com", "GATE.example.com:8443", "[::1]:80"] {
            let answer = attempt("GET", &url, &[("host", host)], "").await.unwrap();
            assert_ne!(answer.json["code"], "invalid_host", "{host}: {answer:?}");
        }
        for host in ["127.0.0.1", "evil.example.com", "gate.example.com.evil.example"] {
            // What a stranger claims to have been asked for is no better.
            let fields = [("host", host), ("x-forwarded-host", "gate.example.com")];
            let answer = attempt("GET", &url, &fields, "").await.unwrap();
            answer.expect_problem(400, "invalid_host");
        }
    }
    // The container's own probe asks the loopback, which is not on the list.
    let port = process.base.rsplit(':').next().unwrap();
    let probe = setup.clone().set("SERVER_PORT", port);
    probe.run(&["healthcheck"], "").await.expect(0);
}
