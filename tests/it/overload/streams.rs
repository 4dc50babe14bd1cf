//! Streams have room of their own: they take none from what is over in moments.

use tollgate::{domain::stream::StreamKind, services::room::Class};

use super::{PUBLIC, Upstream, address, app, asked, assert_overloaded, get, sent, under_way};
use crate::{
    streams::put_in_front,
    support::{
        TestApp,
        raw::Raw,
        websocket::{self, Wire},
    },
};

const UPLOAD: &str =
    "POST /up/x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n";

async fn begun(app: &TestApp, path: &str) -> Raw {
    let mut raw = sent(app, get(path)).await;
    raw.until(b"hello").await;
    raw
}

async fn open(app: &TestApp, kind: StreamKind, count: usize) {
    let start = std::time::Instant::now();
    while app.app.services.streams.count(kind) != count {
        assert!(start.elapsed() < std::time::Duration::from_secs(30), "not {count} {kind:?}");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn what_becomes_a_stream_leaves_its_place_to_others() {
    let (upstream, sockets) = (Upstream::start().await, websocket::Upstream::start().await);
    let app = app(&upstream, &[("SERVER_MAX_IN_FLIGHT", "1"), ("SERVER_MAX_STREAMS", "9")]).await;
    let mut held = vec![];
    for (kind, path) in [(StreamKind::Sse, "/up/sse"), (StreamKind::Download, "/up/download")] {
        held.push(begun(&app, path).await);
        open(&app, kind, 1).await;
        under_way(&app, Class::Proxied, 0).await;
        assert_eq!(asked(&app, "/up/x").await.status, 200, "{kind:?}");
        under_way(&app, Class::Proxied, 0).await;
    }
    held.push(sent(&app, UPLOAD).await);
    open(&app, StreamKind::Upload, 1).await;
    under_way(&app, Class::Proxied, 0).await;
    assert_eq!(asked(&app, "/up/x").await.status, 200);
    put_in_front(&app, &sockets.url(), PUBLIC);
    let mut wire = Wire::open(address(&app), "/up/socket", "").await;
    wire.echoes("hello").await;
    under_way(&app, Class::Proxied, 0).await;
    put_in_front(&app, &upstream.recorder.url(), PUBLIC);
    assert_eq!(asked(&app, "/up/x").await.status, 200);
}

/// Endless ones are refused; what ends by itself stays among the plain requests.
#[tokio::test]
async fn streams_have_a_limit_of_their_own() {
    let (upstream, sockets) = (Upstream::start().await, websocket::Upstream::start().await);
    let app = app(&upstream, &[("SERVER_MAX_IN_FLIGHT", "3"), ("SERVER_MAX_STREAMS", "2")]).await;
    let first = begun(&app, "/up/sse").await;
    let _second = begun(&app, "/up/sse").await;
    assert_overloaded(&asked(&app, "/up/sse").await);
    under_way(&app, Class::Proxied, 0).await;
    let download = begun(&app, "/up/download").await;
    open(&app, StreamKind::Download, 1).await;
    under_way(&app, Class::Proxied, 1).await;
    let upload = sent(&app, UPLOAD).await;
    open(&app, StreamKind::Upload, 1).await;
    under_way(&app, Class::Proxied, 2).await;
    assert_eq!(asked(&app, "/up/x").await.status, 200);
    put_in_front(&app, &sockets.url(), PUBLIC);
    let refused = Wire::ask(address(&app), websocket::ask("/up/socket", "")).await;
    assert_eq!(refused.code().await, (503, "overloaded".to_owned()));
    assert_eq!(sockets.heads().len(), 0, "it was refused before the upstream heard of it");

    [download, upload, first].into_iter().for_each(Raw::reset);
    under_way(&app, Class::Proxied, 0).await;
    open(&app, StreamKind::Sse, 1).await;
    let mut wire = Wire::open(address(&app), "/up/socket", "").await;
    wire.echoes("hello").await;
    drop(upstream.open.lock().unwrap().pop());
}
