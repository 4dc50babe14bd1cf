//! What an upstream is told of who asks, behind a proxy that is trusted and
//! before a client that is not (RELIABILITY G-118).

use http::{Request, Version};
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

use super::{address, in_front_of, in_front_of_url};
use crate::support::{
    TestApp,
    raw::{Raw, headers},
    recorder::{Recorder, ok},
    websocket::{Upstream, Wire},
};

const OPEN: (&str, &str) = ("UPSTREAM_AUTH", "public");
/// The test itself is a proxy, and so are these.
const BEHIND: (&str, &str) =
    ("SERVER_TRUSTED_PROXIES", "127.0.0.0/8, 10.0.0.0/8, 2001:db8:ffff::/48");

/// `X-Forwarded-For` as it comes, line by line, and who is the client then.
const CHAINS: [(&[&str], &str); 30] = [
    (&[], "127.0.0.1"),
    (&["203.0.113.7"], "203.0.113.7"),
    (&["1.1.1.1, 203.0.113.7"], "203.0.113.7"),
    (&["1.1.1.1", "203.0.113.7"], "203.0.113.7"),
    (&["203.0.113.7", "10.0.0.2,10.0.0.3"], "203.0.113.7"),
    (&["1.1.1.1,203.0.113.7,\t10.9.9.9 "], "203.0.113.7"),
    (&["1.1.1.1, 127.0.0.1", "203.0.113.7", "127.8.8.8"], "203.0.113.7"),
    (&["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
    (&["203.0.113.7:4711"], "203.0.113.7"),
    (&["[2001:db8::7]:443"], "2001:db8::7"),
    (&["[2001:db8::7]"], "2001:db8::7"),
    (&["2001:db8::7"], "2001:db8::7"),
    (&["2001:DB8:0:0::7"], "2001:db8::7"),
    (&["203.0.113.7, 2001:db8:ffff::1"], "203.0.113.7"),
    (&["::ffff:203.0.113.7"], "203.0.113.7"),
    (&["203.0.113.7, ::ffff:10.0.0.1"], "203.0.113.7"),
    // Garbage ends the walk at the hop that reported it.
    (&["unknown"], "127.0.0.1"),
    (&["203.0.113.7, "], "127.0.0.1"),
    (&[""], "127.0.0.1"),
    (&["203.0.113.7", ""], "127.0.0.1"),
    (&["203.0.113.7, unknown, 10.0.0.2"], "10.0.0.2"),
    (&["203.0.113.007"], "127.0.0.1"),
    (&["203.0.113.7/24"], "127.0.0.1"),
    (&["fe80::1%eth0"], "127.0.0.1"),
    (&["\"203.0.113.7\""], "127.0.0.1"),
    (&["[203.0.113.7]"], "127.0.0.1"),
    (&["\u{e9}"], "127.0.0.1"),
    (&["203.0.113.7;x"], "127.0.0.1"),
    (&["for=203.0.113.7"], "127.0.0.1"),
    (&["0xcb007107"], "127.0.0.1"),
];

/// Other words for the same, none of which counts.
const OTHERS: &str = "Forwarded: for=6.6.6.6;host=forged.example;proto=https\r\n\
    X-Real-IP: 6.6.6.6\r\nX-Client-IP: 6.6.6.6\r\nTrue-Client-IP: 6.6.6.6\r\n\
    X-Forwarded-Port: 666\r\nX-Forwarded-Server: forged.example\r\nX-Forwarded-By: 6.6.6.6\r\n\
    X-Forwarded-Prefix: /forged\r\nX-Forwarded-Proto-Version: h6\r\nX-Forwarded: 6.6.6.6\r\n";

fn lines(chain: &[&str]) -> String {
    chain.iter().map(|value| ["X-Forwarded-For: ", value, "\r\n"].concat()).collect()
}

/// What the upstream is told, all of it: address, scheme and host.
#[track_caller]
fn told(head: &str, expected: [&str; 3], case: &str) {
    let all = |name| headers(head, name).collect::<Vec<_>>();
    let [address, scheme, host] = expected;
    assert_eq!(all("x-forwarded-for"), [address], "{case}");
    assert_eq!(all("x-forwarded-proto"), [scheme], "{case}");
    assert_eq!(all("x-forwarded-host"), [host], "{case}");
    let mut names = head.lines().skip(1).filter_map(|line| line.split_once(':'));
    let ours = ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host"];
    let other = names.find(|(name, _)| {
        let name = name.to_ascii_lowercase();
        let is_about =
            name.starts_with("x-forwarded-") || name == "forwarded" || name == "x-real-ip";
        is_about && !ours.contains(&&*name)
    });
    assert_eq!(other, None, "{case}");
}

async fn behind(recorder: &Recorder) -> TestApp {
    in_front_of(recorder, &[OPEN, BEHIND]).await
}

#[tokio::test]
async fn the_right_most_hop_that_is_not_trusted_is_the_client() {
    let recorder = Recorder::start(ok).await;
    let (app, alone) = (behind(&recorder).await, in_front_of(&recorder, &[OPEN]).await);
    for (chain, client) in CHAINS {
        let request = format!("GET / HTTP/1.1\r\nHost: a.example\r\n{}{OTHERS}\r\n", lines(chain));
        assert_eq!(Raw::exchange(address(&app), &request).await.status, 200, "{chain:?}");
        told(&recorder.take()[0].head, [client, "http", "a.example"], &format!("{chain:?}"));
        // A stranger may claim what it likes.
        assert_eq!(Raw::exchange(address(&alone), &request).await.status, 200, "{chain:?}");
        told(&recorder.take()[0].head, ["127.0.0.1", "http", "a.example"], &format!("{chain:?}"));
    }
}

#[tokio::test]
async fn scheme_and_host_are_the_nearest_proxys_word() {
    let recorder = Recorder::start(ok).await;
    let (app, alone) = (behind(&recorder).await, in_front_of(&recorder, &[OPEN]).await);
    for (fields, scheme, host) in [
        ("", "http", "a.example"),
        ("X-Forwarded-Proto: https", "https", "a.example"),
        ("X-Forwarded-Proto: HTTPS", "https", "a.example"),
        ("X-Forwarded-Proto: http, https", "https", "a.example"),
        ("X-Forwarded-Proto: https, http", "http", "a.example"),
        ("X-Forwarded-Proto: http\r\nX-Forwarded-Proto: https", "https", "a.example"),
        ("X-Forwarded-Proto: https\r\nX-Forwarded-Proto: http", "http", "a.example"),
        ("X-Forwarded-Proto: wss", "http", "a.example"),
        ("X-Forwarded-Proto: https\"", "http", "a.example"),
        ("X-Forwarded-Proto:", "http", "a.example"),
        (
            "X-Forwarded-Scheme: https\r\nX-Forwarded-Ssl: on\r\nFront-End-Https: on",
            "http",
            "a.example",
        ),
        ("X-Forwarded-Host: b.example", "http", "b.example"),
        ("X-Forwarded-Host: c.example, b.example:8443", "http", "b.example:8443"),
        ("X-Forwarded-Host: c.example\r\nX-Forwarded-Host: b.example", "http", "b.example"),
        ("X-Forwarded-Host: b/example", "http", "a.example"),
        ("X-Forwarded-Host: b.example:x", "http", "a.example"),
        ("X-Forwarded-Host: u@b.example", "http", "a.example"),
        ("X-Forwarded-Host: b.example,", "http", "a.example"),
        ("X-Forwarded-Host:", "http", "a.example"),
    ] {
        let fields = if fields.is_empty() { String::new() } else { format!("{fields}\r\n") };
        let request = format!("GET / HTTP/1.1\r\nHost: a.example\r\n{fields}{OTHERS}\r\n");
        assert_eq!(Raw::exchange(address(&app), &request).await.status, 200, "{fields:?}");
        let seen = recorder.take().remove(0).head;
        told(&seen, ["127.0.0.1", scheme, host], &fields);
        assert_eq!(Raw::exchange(address(&alone), &request).await.status, 200, "{fields:?}");
        let seen = recorder.take().remove(0).head;
        told(&seen, ["127.0.0.1", "http", "a.example"], &fields);
    }
}

/// The same way for what is not a plain request over HTTP/1.1.
#[tokio::test]
async fn sockets_and_http2_are_told_alike() {
    let upstream = Upstream::start().await;
    let app = in_front_of_url(&upstream.url(), &[OPEN, BEHIND]).await;
    let recorder = Recorder::start(ok).await;
    let over_h2 = behind(&recorder).await;
    let socket = TokioIo::new(TcpStream::connect(address(&over_h2)).await.unwrap());
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), socket).await.unwrap();
    let connection = tokio::spawn(connection);
    for (chain, client) in CHAINS {
        // Not everything that a line can hold is a value to a library.
        if !chain.iter().all(|value| value.is_ascii()) {
            continue;
        }
        let fields = format!("{}X-Forwarded-Proto: https\r\n{OTHERS}", lines(chain));
        drop(Wire::open(address(&app), "/ws", &fields).await);
        told(&upstream.heads()[0], [client, "https", "a"], &format!("{chain:?} by a socket"));

        let mut request = Request::get("http://b.example/x").version(Version::HTTP_2);
        for line in fields.lines() {
            let (name, value) = line.split_once(':').unwrap();
            request = request.header(name, value.trim_matches(' '));
        }
        let request = request.body(Empty::<&[u8]>::new()).unwrap();
        let answer = sender.send_request(request).await.unwrap();
        assert_eq!(answer.status(), 200, "{chain:?}");
        drop(answer.into_body().collect().await.unwrap());
        told(&recorder.take()[0].head, [client, "https", "b.example"], &format!("{chain:?} by h2"));
    }
    connection.abort();
}
