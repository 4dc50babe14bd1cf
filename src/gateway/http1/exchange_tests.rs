//! Exchanges whose halves overlap, break off or are dropped.

use std::{future::pending, time::Duration};

use futures_util::{StreamExt as _, stream};
use http::Request;
use http_body_util::{Full, StreamBody};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex},
    sync::mpsc,
    time::timeout,
};

use super::*;

type Connected = Box<Connection<DuplexStream>>;
type Chunks = mpsc::UnboundedSender<Result<Bytes, ()>>;

const PATIENCE: Duration = Duration::from_secs(10);

/// Longer than any test takes.
fn patience() -> Patience {
    Patience { idle: 6 * PATIENCE, progress: None }
}

fn parts(method: &str) -> Parts {
    let request = Request::builder().method(method).uri("/x").header("host", "a");
    request.body(()).unwrap().into_parts().0
}

/// A connection that buffers little, and its other end.
fn connected() -> (Connected, DuplexStream) {
    let (ours, theirs) = duplex(1024);
    (Box::new(Connection::new(ours)), theirs)
}

/// An upload that comes from here.
fn upload() -> (Chunks, impl Body<Data = Bytes, Error = ()> + Unpin + Send + 'static) {
    let (sender, mut receiver) = mpsc::unbounded_channel::<Result<Bytes, ()>>();
    let frames = stream::poll_fn(move |cx| receiver.poll_recv(cx));
    (sender, StreamBody::new(frames.map(|chunk| chunk.map(Frame::data)).boxed()))
}

async fn read_until(from: &mut DuplexStream, end: &[u8]) -> Vec<u8> {
    let mut read = vec![];
    while !read.ends_with(end) {
        let more = timeout(PATIENCE, from.read_buf(&mut read)).await;
        assert!(more.expect("nothing comes").unwrap() > 0, "it ended after {read:?}");
    }
    read
}

async fn rest(receiving: &mut Receiving, connection: &mut Connected) -> Result<Vec<u8>, Fault> {
    let mut read = vec![];
    loop {
        let next = poll_fn(|cx| receiving.poll_frame(cx, connection));
        match timeout(PATIENCE, next).await.expect("nothing comes") {
            Some(frame) => read.extend_from_slice(&frame?.into_data().unwrap()),
            None => return Ok(read),
        }
    }
}

#[tokio::test]
async fn one_exchange_after_the_other_over_one_connection() {
    let (mut connection, mut upstream) = connected();
    for number in 0..3 {
        let body = format!("body {number}");
        let answering = async {
            read_until(&mut upstream, body.as_bytes()).await;
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nbody {number}");
            upstream.write_all(answer.as_bytes()).await.unwrap();
        };
        let full = Full::new(Bytes::from(body.clone()));
        let mut parts = parts("POST");
        let (answer, ()) =
            tokio::join!(connection.send(&mut parts, Some(full), patience), answering);
        let mut receiving = answer.unwrap().into_body();
        assert_eq!(rest(&mut receiving, &mut connection).await.unwrap(), body.as_bytes());
        connection = receiving.into_idle(connection).expect("a connection to be used again");
    }
}

/// Whether the answer is taken meanwhile or not.
#[tokio::test]
async fn an_upload_goes_on_beside_an_answer_that_began_early() {
    for is_taken in [false, true] {
        let (mut connection, mut upstream) = connected();
        let (chunks, body) = upload();
        chunks.send(Ok(Bytes::from_static(b"first"))).unwrap();
        let answering = async {
            read_until(&mut upstream, b"first\r\n").await;
            let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
            upstream.write_all(head).await.unwrap();
        };
        let mut parts = parts("POST");
        let (answer, ()) =
            tokio::join!(connection.send(&mut parts, Some(body), patience), answering);
        let mut receiving = answer.unwrap().into_body();
        assert!(receiving.upload.is_some());
        // More than there is room for on the way.
        for _ in 0..20 {
            chunks.send(Ok(Bytes::from(vec![b'x'; 2000]))).unwrap();
        }
        let upstream = tokio::spawn(async move {
            let read = read_until(&mut upstream, b"\r\nend\r\n0\r\n\r\n").await;
            let chunk = format!("7d0\r\n{}\r\n", "x".repeat(2000));
            let expected = chunk.repeat(20) + "3\r\nend\r\n0\r\n\r\n";
            assert!(read == expected.as_bytes(), "{} bytes", read.len());
            upstream.write_all(b"4\r\ndone\r\n0\r\n\r\n").await.unwrap();
            upstream
        });
        chunks.send(Ok(Bytes::from_static(b"end"))).unwrap();
        drop(chunks);
        if is_taken {
            assert_eq!(rest(&mut receiving, &mut connection).await.unwrap(), b"done");
            let _upstream = upstream.await.unwrap();
        } else {
            let _upstream = timeout(PATIENCE, upstream).await.expect("it stands still").unwrap();
            assert_eq!(rest(&mut receiving, &mut connection).await.unwrap(), b"done");
        }
        assert!(receiving.into_idle(connection).is_some());
    }
}

#[tokio::test]
async fn an_answer_that_ends_first_leaves_the_upload_to_its_end() {
    let (mut connection, mut upstream) = connected();
    let (chunks, body) = upload();
    chunks.send(Ok(Bytes::from_static(b"first"))).unwrap();
    let answering = async {
        read_until(&mut upstream, b"first\r\n").await;
        upstream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.unwrap();
    };
    let mut parts = parts("POST");
    let (answer, ()) = tokio::join!(connection.send(&mut parts, Some(body), patience), answering);
    let receiving = answer.unwrap().into_body();
    assert!(receiving.is_over());
    assert!(receiving.into_idle(connection).is_none(), "it is still in use");
    chunks.send(Ok(Bytes::from_static(b"last"))).unwrap();
    drop(chunks);
    read_until(&mut upstream, b"4\r\nlast\r\n0\r\n\r\n").await;
    // And then it is closed.
    assert_eq!(timeout(PATIENCE, upstream.read(&mut [0])).await.unwrap().unwrap(), 0);
}

/// Whether its answer is over or not.
#[tokio::test]
async fn an_upload_that_an_upstream_stops_taking_is_given_up() {
    for is_over in [false, true] {
        let (mut connection, mut upstream) = connected();
        let (chunks, body) = upload();
        chunks.send(Ok(Bytes::from_static(b"first"))).unwrap();
        let answering = async {
            read_until(&mut upstream, b"first\r\n").await;
            upstream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n").await.unwrap();
        };
        let brief = || Patience { idle: Duration::from_millis(50), progress: None };
        let mut parts = parts("POST");
        let (answer, ()) = tokio::join!(connection.send(&mut parts, Some(body), brief), answering);
        let mut receiving = answer.unwrap().into_body();
        // More than there is room for on the way.
        chunks.send(Ok(Bytes::from(vec![b'x'; 20_000]))).unwrap();
        if is_over {
            upstream.write_all(b"done").await.unwrap();
            assert_eq!(rest(&mut receiving, &mut connection).await.unwrap(), b"done");
            assert!(receiving.into_idle(connection).is_none());
            timeout(PATIENCE, chunks.closed()).await.expect("the upload is kept");
        } else {
            timeout(PATIENCE, chunks.closed()).await.expect("the upload is kept");
            upstream.write_all(b"done").await.unwrap();
            assert_eq!(rest(&mut receiving, &mut connection).await.unwrap(), b"done");
            assert!(receiving.into_idle(connection).is_none(), "half a request was sent");
        }
    }
}

#[tokio::test]
async fn an_upload_that_breaks_off_ends_the_exchange() {
    // Before an answer.
    let (mut connection, mut upstream) = connected();
    let (chunks, body) = upload();
    chunks.send(Err(())).unwrap();
    let sent = connection.send(&mut parts("POST"), Some(body), patience).await;
    assert!(matches!(sent, Err(Fault::Upload)));
    drop(connection);
    let mut seen = vec![];
    upstream.read_to_end(&mut seen).await.unwrap();
    assert!(!seen.ends_with(b"0\r\n\r\n"));

    // Beside it.
    let (mut connection, mut upstream) = connected();
    let (chunks, body) = upload();
    let answering = async {
        read_until(&mut upstream, b"\r\n\r\n").await;
        upstream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf").await.unwrap();
    };
    let mut parts = parts("POST");
    let (answer, ()) = tokio::join!(connection.send(&mut parts, Some(body), patience), answering);
    let mut receiving = answer.unwrap().into_body();
    chunks.send(Err(())).unwrap();
    let received = rest(&mut receiving, &mut connection).await;
    assert!(matches!(received, Err(Fault::Upload)), "{received:?}");
}

/// It may take nothing of the upload.
#[tokio::test]
async fn what_is_dropped_within_an_exchange_is_closed() {
    for is_answered in [false, true] {
        let (mut connection, mut upstream) = connected();
        let (chunks, body) = upload();
        chunks.send(Ok(Bytes::from(vec![b'x'; 5000]))).unwrap();
        let mut parts = parts("POST");
        let mut sending = Box::pin(connection.send(&mut parts, Some(body), patience));
        let mut receiving = None;
        if is_answered {
            upstream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf").await.unwrap();
            receiving = Some(timeout(PATIENCE, &mut sending).await.unwrap().unwrap().into_body());
        } else {
            let early = timeout(Duration::from_millis(20), &mut sending).await;
            assert!(early.is_err(), "it was not answered");
        }
        drop(sending);
        assert_eq!(receiving.as_ref().is_some_and(|it| it.upload.is_some()), is_answered);
        drop((receiving, connection));
        let closed = timeout(PATIENCE, upstream.read_to_end(&mut vec![])).await;
        assert!(closed.is_ok(), "it stays open");
        assert!(chunks.send(Ok(Bytes::new())).is_err(), "the upload stays");
    }
}

/// An upstream that has heard enough says so, and closes.
#[tokio::test]
async fn an_answer_is_heard_although_the_upload_is_no_longer() {
    let (mut connection, mut upstream) = connected();
    let (chunks, body) = upload();
    for _ in 0..20 {
        chunks.send(Ok(Bytes::from(vec![b'x'; 2000]))).unwrap();
    }
    let answering = async move {
        let answer = b"HTTP/1.1 413 Too Large\r\nContent-Length: 4\r\n\r\nmuch";
        upstream.write_all(answer).await.unwrap();
        upstream.read_exact(&mut [0; 100]).await.unwrap();
    };
    let mut parts = parts("POST");
    let (answer, ()) = tokio::join!(connection.send(&mut parts, Some(body), patience), answering);
    let answer = answer.unwrap();
    assert_eq!(answer.status(), 413);
    let mut receiving = answer.into_body();
    assert_eq!(rest(&mut receiving, &mut connection).await.unwrap(), b"much");
    assert!(receiving.into_idle(connection).is_none());
}

#[tokio::test]
async fn an_upstream_that_closes_without_an_answer_is_a_fault_at_once() {
    for length in [0, 10, 100_000] {
        let (mut connection, mut upstream) = connected();
        let answering = async move {
            assert!(upstream.read(&mut [0; 500]).await.unwrap() > 0);
            // A part of a status line is no answer.
            upstream.write_all(&b"HTTP/1.1 2"[..length.min(10)]).await.unwrap();
        };
        let body = Full::new(Bytes::from(vec![b'x'; length]));
        let mut parts = parts("POST");
        let sending = async { connection.send(&mut parts, Some(body), patience).await.err() };
        let both = async { tokio::join!(sending, answering).0 };
        let fault = timeout(PATIENCE, both).await.expect("it waits on");
        assert!(matches!(fault, Some(Fault::Closed | Fault::Io(_))), "{length}: {fault:?}");
    }
}

#[tokio::test]
async fn an_idle_connection_that_says_anything_is_not_used() {
    for said in [None, Some(&b"HTTP/1.1 408 Timeout\r\n\r\n"[..])] {
        let (mut connection, mut upstream) = connected();
        let is_quiet = async |connection: &mut Connected| {
            poll_fn(|cx| Poll::Ready(connection.is_quiet(cx))).await
        };
        assert!(is_quiet(&mut connection).await);
        match said {
            Some(said) => upstream.write_all(said).await.unwrap(),
            None => drop(upstream),
        }
        assert!(!is_quiet(&mut connection).await);
    }
}

#[tokio::test]
async fn the_task_that_looks_is_woken_when_an_idle_connection_ends() {
    let (mut connection, upstream) = connected();
    let watching =
        poll_fn(|cx| if connection.is_quiet(cx) { Poll::Pending } else { Poll::Ready(()) });
    let closing = async {
        tokio::task::yield_now().await;
        drop(upstream);
        pending::<()>().await;
    };
    let woken = async {
        tokio::select! { () = watching => {}, () = closing => {} }
    };
    timeout(PATIENCE, woken).await.expect("nobody was woken");
}

/// More than a head may have is not read, however it comes.
#[tokio::test]
async fn a_head_without_end_is_read_no_further_than_it_may_be_long() {
    for piece in ["X-A: b\r\n", "x", "HTTP/1.1 100 Continue\r\n\r\n"] {
        let (mut connection, mut upstream) = connected();
        let answering = async move {
            let mut wrote = 0;
            let mut begin = b"HTTP/1.1 200 OK\r\nX-Long: ".to_vec();
            begin.truncate(if piece.starts_with("HTTP") { 0 } else { begin.len() });
            upstream.write_all(&begin).await.unwrap();
            let piece = piece.repeat(100);
            while upstream.write_all(piece.as_bytes()).await.is_ok() {
                wrote += piece.len();
                if wrote > 64 * 1024 * 1024 {
                    break;
                }
            }
            wrote
        };
        let mut parts = parts("GET");
        let sending = async {
            let sent = connection.send(&mut parts, None::<Full<Bytes>>, patience).await;
            let held = connection.input.bytes.capacity();
            drop(connection);
            (sent.err(), held)
        };
        let ((fault, held), wrote) = tokio::join!(sending, answering);
        assert!(held <= 2 * input::READ_AT_MOST, "{held}");
        match fault {
            Some(Fault::TooLong | Fault::Unparsed(_)) => {
                assert!(wrote <= input::READ_AT_MOST + 16 * 1024, "{wrote}");
            }
            // Interim answers have no end either; the time limit is theirs.
            fault => assert!(piece.starts_with("HTTP"), "{fault:?}"),
        }
    }
}

/// Those of an answer that is on its way are the buffers there are.
#[tokio::test]
async fn a_long_body_is_handed_on_without_being_held() {
    const SIZE: usize = 4 * 1024 * 1024;
    let (ours, mut upstream) = duplex(1 << 20);
    let mut connection: Connected = Box::new(Connection::new(ours));
    let answering = tokio::spawn(async move {
        read_until(&mut upstream, b"\r\n\r\n").await;
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\n\r\n");
        upstream.write_all(head.as_bytes()).await.unwrap();
        upstream.write_all(&vec![7; SIZE]).await.unwrap();
        upstream
    });
    let sent = connection.send(&mut parts("GET"), None::<Full<Bytes>>, patience).await;
    let mut receiving = sent.unwrap().into_body();
    let mut read = 0;
    while read < SIZE {
        assert_eq!(receiving.size_hint().exact(), Some((SIZE - read) as u64));
        let next = poll_fn(|cx| receiving.poll_frame(cx, &mut connection)).await;
        let data = next.unwrap().unwrap().into_data().unwrap();
        assert!(data.len() <= 2 * input::READ_AT_MOST && data.iter().all(|byte| *byte == 7));
        assert!(connection.input.bytes.capacity() <= 2 * input::READ_AT_MOST);
        read += data.len();
    }
    let _upstream = answering.await.unwrap();
    let idle = receiving.into_idle(connection).unwrap();
    assert!(idle.input.bytes.capacity() <= KEPT && idle.memory.capacity() <= KEPT);
}
