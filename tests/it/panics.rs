//! A panic is one request's alone (RELIABILITY G-07).

use axum::{Router, routing::get};
use tollgate::server;

use crate::{
    problems::check,
    support::{Client, PASSWORD, TestApp},
};

/// There is no way to make a real route panic, so one is added that does.
#[tokio::test]
async fn a_panic_is_one_requests_alone() {
    let app = TestApp::unlimited().await;
    let db = app.app.db.clone();
    let router = Router::new()
        .route("/panics", get(async || -> String { panic!("secret of the panic") }))
        .route(
            "/holds",
            get(async move || -> String {
                let _held = db.begin().await.unwrap();
                panic!("while holding a transaction")
            }),
        )
        .route("/fine", get(async || "fine"));
    let mut parts = app.app.server_parts();
    parts.router = router;
    let running = server::start(&app.app.config, &parts).unwrap();
    let client = Client::new(&format!("http://{}", running.address()));
    for round in 0..200 {
        let path = if round % 2 == 0 { "/panics" } else { "/holds" };
        let answer = client.get(path).await.expect_problem(500, "internal");
        check(&answer, path);
        assert!(!answer.text("detail").contains("secret"));
        if round % 20 == 0 {
            assert_eq!(client.get("/fine").await.expect(200).body, "fine");
        }
    }
    // The database's connections came back, and the first server serves on.
    app.register("ada").await;
    app.login("ada", PASSWORD).await.expect(200);
    assert_eq!(client.get("/fine").await.expect(200).body, "fine");
    drop(running);
}
