//! A request is delivered at most once, and its end is never faked.

use std::{
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    time::{Duration, Instant},
};

use super::{address, in_front_of, in_front_of_url, recorded};
use crate::support::{
    raw::Raw,
    recorder::{Recorder, Reply, ok},
};

const PUBLIC: (&str, &str) = ("UPSTREAM_AUTH", "public");

#[tokio::test]
async fn a_post_whose_connection_dies_is_delivered_once() {
    // Every third request dies after it was read, so that new connections and
    // pooled ones are both met. Were it half of them, the breaker would open.
    let turn = AtomicUsize::new(0);
    let recorder = Recorder::start(move |delivery| {
        if turn.fetch_add(1, Relaxed).is_multiple_of(3) { Reply::Reset } else { ok(delivery) }
    })
    .await;
    let app = in_front_of(&recorder, &[PUBLIC]).await;
    let mut client = Raw::connect(address(&app)).await;
    for trial in 0..400 {
        let body = format!("{trial:04}");
        client
            .send(format!("POST /{trial} HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n{body}"))
            .await;
        let answer = client.answer().await.unwrap();
        let expected = if trial % 3 == 0 { 502 } else { 200 };
        assert_eq!(answer.status, expected, "trial {trial}");
        let seen = recorder.take();
        assert_eq!(seen.len(), 1, "trial {trial} was delivered {} times", seen.len());
        assert_eq!(seen[0].body, body.as_bytes());
    }
}

#[tokio::test]
async fn a_pooled_connection_that_died_meanwhile_is_replaced() {
    let recorder = Recorder::start(|_| {
        Reply::SendThenClose(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok".to_vec())
    })
    .await;
    let app = in_front_of(&recorder, &[PUBLIC]).await;
    for trial in 0..100 {
        let request = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx";
        let answer = Raw::exchange(address(&app), request).await;
        assert_eq!(answer.status, 200, "trial {trial}");
        // The close has arrived by the next request.
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert_eq!((recorder.deliveries().len(), recorder.connections()), (100, 100));
}

#[tokio::test]
async fn connections_to_the_upstream_are_used_again() {
    let recorder = Recorder::start(ok).await;
    let app = in_front_of(&recorder, &[PUBLIC]).await;
    let mut client = Raw::connect(address(&app)).await;
    for _ in 0..20 {
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert_eq!(client.answer().await.unwrap().status, 200);
    }
    assert_eq!(recorder.connections(), 1);
}

/// However the upstream frames its answer, dying within it must show.
#[tokio::test]
async fn an_answer_that_breaks_off_looks_broken() {
    for (head, version) in [
        ("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n", "1.1"),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n64\r\n", "1.1"),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n", "1.1"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n", "1.0"),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n", "1.0"),
    ] {
        let sent = format!("{head}first");
        let recorder =
            Recorder::start(move |_| Reply::SendThenClose(sent.clone().into_bytes())).await;
        let app = in_front_of(&recorder, &[PUBLIC]).await;
        let request = format!("GET / HTTP/{version}\r\nHost: a\r\n\r\n");
        let mut client = Raw::connect(address(&app)).await;
        client.send(request).await;
        if let Some(answer) = client.answer().await {
            assert!(!answer.complete, "{head:?} over HTTP/{version} looked whole: {answer:?}");
        }
        let record = &recorded(&app, 1).await[0];
        assert_eq!((&record["outcome"], &record["status"]), (&"failed".into(), &200.into()));
    }
}

#[tokio::test]
async fn an_unreachable_upstream_is_a_502_that_names_nothing() {
    let closed = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap()
    };
    for url in [
        format!("http://{closed}"),
        "http://upstream.invalid:8080".to_owned(),
        format!("https://{closed}"),
    ] {
        let app = in_front_of_url(&url, &[PUBLIC]).await;
        let begin = Instant::now();
        let answer = Raw::exchange(address(&app), "GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert!(matches!(answer.status, 502 | 504), "{url}: {}", answer.status);
        assert!(begin.elapsed() < Duration::from_millis(2500), "{url}: {:?}", begin.elapsed());
        let text = answer.text().to_lowercase() + &answer.head.to_lowercase();
        for inner in
            ["upstream.invalid", "127.0.0.1", &closed.port().to_string(), "os error", "dns"]
        {
            assert!(!text.contains(inner), "{inner} in {text}");
        }
        assert_eq!(recorded(&app, 1).await[0]["outcome"], "failed");
    }
}

/// An upstream that does not speak TLS, and answers that are not HTTP.
#[tokio::test]
async fn nonsense_from_the_upstream_is_a_502() {
    for nonsense in [
        "SSH-2.0-OpenSSH\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\nraw",
        "HTTP/1.1 999999 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nbad header\r\n\r\n",
        "",
    ] {
        let recorder =
            Recorder::start(move |_| Reply::SendThenClose(nonsense.as_bytes().to_vec())).await;
        let app = in_front_of(&recorder, &[PUBLIC]).await;
        let answer = Raw::exchange(address(&app), "GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert_eq!(answer.status, 502, "{nonsense:?}");
        assert_eq!(answer.json()["code"], "upstream_failed");
        assert_eq!(recorder.take().len(), 1, "{nonsense:?}");
    }
    let plain = Recorder::start(ok).await;
    let app = in_front_of_url(&plain.url().replace("http:", "https:"), &[PUBLIC]).await;
    let answer = Raw::exchange(address(&app), "GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(matches!(answer.status, 502 | 504), "{}", answer.status);
}
