//! Our own routes have room of their own, and take none from proxied requests.

use futures_util::future::join_all;
use tollgate::services::room::Class;

use super::{Upstream, address, app, asked, assert_overloaded, get, sent, under_way};
use crate::support::{PASSWORD, raw::Raw};

/// RELIABILITY G-46.
#[tokio::test]
async fn our_own_routes_are_reached_while_the_gateway_is_full() {
    let upstream = Upstream::start().await;
    let app = app(&upstream, &[("SERVER_MAX_IN_FLIGHT", "1")]).await;
    let _held = sent(&app, get("/up/hang")).await;
    under_way(&app, Class::Proxied, 1).await;
    for _ in 0..10 {
        assert_overloaded(&asked(&app, "/up/x").await);
        for path in ["/health", "/health/live", "/health/ready", "/metrics", "/login"] {
            assert_eq!(asked(&app, path).await.status, 200, "{path}");
        }
    }
    let admin = app.admin().await;
    admin.get("/api/v1/admin/users").await.expect(200);
}

#[tokio::test]
async fn a_flood_of_our_own_routes_takes_nothing_from_others() {
    let upstream = Upstream::start().await;
    let app = app(&upstream, &[("SERVER_MAX_IN_FLIGHT", "1")]).await;
    let most = app.app.services.room.most(Class::Ours);
    let half = "POST /api/v1/auth/login HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n\
        Content-Length: 100\r\n\r\n{";
    let held = join_all((0..most).map(|_| sent(&app, half))).await;
    under_way(&app, Class::Ours, most).await;
    for _ in 0..10 {
        assert_overloaded(&asked(&app, "/api/v1/users/me").await);
        assert_eq!(asked(&app, "/up/x").await.status, 200);
        for path in ["/health/ready", "/metrics"] {
            assert_eq!(asked(&app, path).await.status, 200, "{path}");
        }
    }
    held.into_iter().for_each(Raw::reset);
    under_way(&app, Class::Ours, 0).await;
    app.login("admin", PASSWORD).await.expect(200);
}

/// A fifth of the connections, so that whoever holds all the others keeps nobody
/// from looking what is the matter.
#[tokio::test]
async fn the_last_connections_are_for_our_own_routes() {
    let upstream = Upstream::start().await;
    let app = app(&upstream, &[("SERVER_MAX_CONNECTIONS", "10")]).await;
    let mut held = vec![];
    for _ in 0..8 {
        let mut raw = Raw::connect(address(&app)).await;
        raw.send(get("/up/x")).await;
        let answer = raw.answer().await.unwrap();
        assert_eq!((answer.status, answer.header("connection")), (200, None));
        held.push(raw);
    }
    for _ in 0..3 {
        for (path, status) in [("/up/x", 503), ("/health/live", 200), ("/login", 200)] {
            let answer = asked(&app, path).await;
            assert_eq!(answer.status, status, "{path}");
            // It is free for the next one.
            assert_eq!(answer.header("connection"), Some("close"), "{path}");
        }
    }
    for raw in &mut held {
        raw.send(get("/up/x")).await;
        assert_eq!(raw.answer().await.unwrap().status, 200);
    }
    drop(held.pop());
    let start = std::time::Instant::now();
    while asked(&app, "/up/x").await.status != 200 {
        assert!(start.elapsed() < std::time::Duration::from_secs(30), "it is not given back");
    }
}
