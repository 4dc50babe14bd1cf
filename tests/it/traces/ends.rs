//! When spans end, and what a collector that is away costs.

use std::time::Duration;

use tokio::sync::mpsc::unbounded_channel;
use tollgate::telemetry::metrics_text;

use super::{PROXY, flush, gate, one, upstream};
use crate::support::{
    otlp::Receiver,
    raw::Raw,
    recorder::{Recorder, Reply},
    websocket::{Upstream, Wire},
};

#[tokio::test]
async fn an_answer_that_streams_ends_with_its_last_byte() {
    let receiver = Receiver::start().await;
    let (send, parts) = unbounded_channel::<Vec<u8>>();
    let parts = std::sync::Mutex::new(Some(parts));
    let head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\
        transfer-encoding: chunked\r\n\r\n6\r\ndata: \r\n";
    send.send(head.to_vec()).unwrap();
    let last = Recorder::start(move |_| Reply::Stream(parts.lock().unwrap().take().unwrap())).await;
    let app = gate(&receiver, &last.url(), &[]).await;
    let mut client = Raw::connect(app.base[7..].parse().unwrap()).await;
    client.send(format!("GET {PROXY}/x HTTP/1.1\r\nHost: a\r\n\r\n")).await;
    client.until(b"data: ").await;
    // Something else is told of meanwhile, so what was to come has come.
    app.anonymous().get("/api/v1/nothing").await.expect(404);
    receiver.until(1, |span| span.says("http.response.status_code") == "404").await;
    flush(&app).await;
    assert_eq!(receiver.spans().len(), 1, "{:#?}", receiver.spans());
    send.send(b"3\r\na\n\n\r\n0\r\n\r\n".to_vec()).unwrap();
    let spans = receiver.until(2, |span| span.says("http.response.status_code") == "200").await;
    let server = one(&spans, "server", |span| span.is_server());
    assert_eq!(server.says("http.response.body.size"), "9");
    assert!(spans.iter().all(|span| !span.failed), "{spans:#?}");
}

#[tokio::test]
async fn an_answer_that_breaks_off_has_failed() {
    let receiver = Receiver::start().await;
    let half = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf";
    let last = Recorder::start(move |_| Reply::SendThenClose(half.to_vec())).await;
    let app = gate(&receiver, &last.url(), &[]).await;
    let mut client = Raw::connect(app.base[7..].parse().unwrap()).await;
    client.send(format!("GET {PROXY}/x HTTP/1.1\r\nHost: a\r\n\r\n")).await;
    let spans = receiver.until(2, |_| true).await;
    for span in &spans {
        assert_eq!((span.says("error.type"), span.failed), ("broken", true), "{span:#?}");
    }
}

#[tokio::test]
async fn a_socket_is_told_of_when_it_opens_and_when_it_closes() {
    let (receiver, last) = (Receiver::start().await, Upstream::start().await);
    let app = gate(&receiver, &last.url(), &[]).await;
    let address = app.base[7..].parse().unwrap();
    let mut wire = Wire::open(address, &format!("{PROXY}/socket"), "").await;
    wire.echoes("hello").await;
    let server = receiver.until(1, |_| true).await.remove(0);
    assert_eq!(server.says("http.response.status_code"), "101");
    flush(&app).await;
    assert_eq!(receiver.spans().len(), 1, "it is open");
    let told = &last.heads()[0];
    drop(wire);
    let spans = receiver.until(2, |_| true).await;
    let call = one(&spans, "call", |span| !span.is_server());
    assert_eq!(call.parent, server.id);
    assert_eq!(call.says("http.response.status_code"), "101");
    assert!(told.contains(&format!("{}-{}-01", server.trace, call.id)), "{told}");
}

/// G-56 of traces: nobody waits, nothing grows, what is lost is counted.
#[tokio::test]
async fn a_collector_that_hangs_costs_no_request_anything() {
    const REQUESTS: usize = 300;
    let (receiver, last) = (Receiver::saying(|_| Reply::Hang).await, upstream().await);
    let settings = [("OTEL_BSP_MAX_QUEUE_SIZE", "20"), ("OTEL_BSP_SCHEDULE_DELAY", "1")];
    let app = gate(&receiver, &last.url(), &settings).await;
    let client = app.anonymous();
    client.get(&format!("{PROXY}/first")).await.expect(200);
    receiver.until(1, |_| true).await;
    let before = dropped();
    for _ in 0..REQUESTS {
        client.get(&format!("{PROXY}/x")).await.expect(200);
    }
    // Two spans each, of which 20 may wait, and another batch was on its way.
    let missed = dropped() - before;
    assert!(missed >= (2 * REQUESTS - 20 - 512).try_into().unwrap(), "{missed}");
    let tracer = app.app.tracer.as_ref().unwrap();
    assert!(!tracer.flush(Duration::from_millis(100)).await);
}

/// Of all instances of this process: other tests may add to it.
fn dropped() -> i64 {
    let name = "tollgate_trace_spans_dropped_total{reason=\"queue_full\"} ";
    let text = metrics_text();
    let value = text.lines().find_map(|line| line.strip_prefix(name));
    value.map_or(0, |value| value.parse().unwrap())
}
