//! Which target takes a request, and what becomes of it where that fails.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use chrono::TimeDelta;
use tollgate::domain::clock::FakeClock;

use super::{closed, get, post, public, start, targets, with};
use crate::{
    gateway::recorded,
    support::{
        LATE, Options, epoch,
        recorder::{Recorder, Reply, ok},
    },
};

#[tokio::test]
async fn requests_are_spread_by_weight() {
    let mut recorders = vec![];
    for _ in 0..3 {
        recorders.push(Recorder::start(ok).await);
    }
    let target = |(recorder, weight): (&Recorder, u32)| {
        format!("{{ url='{}', weight={weight} }}", recorder.url())
    };
    let targets: Vec<_> = recorders.iter().zip([1, 1, 4]).map(target).collect();
    let app = start(&public(&format!("targets=[{}]", targets.join(",")))).await;
    for _ in 0..600 {
        assert_eq!(get(&app, "/").await.status, 200);
    }
    let shares: Vec<_> = recorders.iter().map(|recorder| recorder.take().len()).collect();
    for (share, expected) in shares.iter().zip([100, 100, 400]) {
        assert!(share.abs_diff(expected) < 50, "{shares:?}");
    }
    assert_eq!(shares.iter().sum::<usize>(), 600);
}

/// Nothing was sent yet, so the other target is asked, as itself.
#[tokio::test]
async fn a_target_that_refuses_connections_costs_no_client_anything() {
    let recorder = Recorder::start(ok).await;
    let dead = closed();
    // Rarely chosen: retries are a fifth of the requests at most.
    let app = start(&public(&format!(
        "targets=[{{ url='{}', weight=100 }}, {{ url='http://{dead}' }}]",
        recorder.url()
    )))
    .await;
    for trial in 0..1_500 {
        assert_eq!(post(&app, &format!("/{trial}")).await.status, 200, "trial {trial}");
        let seen = recorder.take();
        assert_eq!(seen.len(), 1, "trial {trial}");
        assert_eq!(seen[0].all("host"), [recorder.address.to_string()]);
    }
    let targets = targets(&app).await;
    assert_eq!(targets[1]["breaker"], "open", "five connections in a row: {targets:?}");
    assert_eq!(targets[1]["last_error"], "unreachable");
    let listed = app.admin().await.get("/api/v1/admin/upstreams").await;
    assert_eq!(listed.json["items"][0]["retries"], 5);
}

#[tokio::test]
async fn what_was_sent_once_is_never_sent_to_another_target() {
    let one = Recorder::start(|_| Reply::Reset).await;
    let other = Recorder::start(|_| Reply::Reset).await;
    let app = start(&public(&format!("targets=['{}','{}']", one.url(), other.url()))).await;
    let mut broke = 0;
    for trial in 0..60 {
        let answer = post(&app, &format!("/{trial}")).await;
        let seen = one.take().len() + other.take().len();
        match answer.status {
            502 => assert_eq!(seen, 1, "trial {trial}"),
            503 => assert_eq!(seen, 0, "trial {trial}"),
            status => panic!("{status} in trial {trial}"),
        }
        broke += usize::from(answer.status == 502);
    }
    assert_eq!(broke, 40, "twenty of each open its breaker");
}

/// Retries must not double the load of an upstream that is down.
#[tokio::test]
async fn retries_have_a_budget() {
    let (one, other) = (closed(), closed());
    let app = start(&public(&format!("targets=['http://{one}','http://{other}']"))).await;
    let mut statuses = vec![];
    for _ in 0..20 {
        statuses.push(get(&app, "/").await.status);
    }
    let listed = app.admin().await.get("/api/v1/admin/upstreams").await;
    assert_eq!(listed.json["items"][0]["retries"], 3);
    // Ten connections in all: three requests tried twice, four once.
    let expected: Vec<u16> = (0..20).map(|at| if at < 7 { 502 } else { 503 }).collect();
    assert_eq!(statuses, expected);
}

#[tokio::test]
async fn a_target_that_takes_no_connection_leaves_time_for_another() {
    // Full: the kernel answers no further connection.
    let socket =
        |_| socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let full = socket(0);
    full.bind(&"127.0.0.1:0".parse::<std::net::SocketAddr>().unwrap().into()).unwrap();
    full.listen(0).unwrap();
    let silent = full.local_addr().unwrap().as_socket().unwrap();
    let clients: Vec<_> = (0..4).map(socket).collect();
    for socket in &clients {
        socket.set_nonblocking(true).unwrap();
        _ = socket.connect(&silent.into());
    }
    let recorder = Recorder::start(ok).await;
    let app = start(&public(&format!(
        "connect_timeout_seconds=5\ntargets=['http://{silent}','{}']",
        recorder.url()
    )))
    .await;
    let retries = async || {
        let listed = app.admin().await.get("/api/v1/admin/upstreams").await.expect(200);
        listed.json["items"][0]["retries"].as_u64().unwrap()
    };
    while retries().await < 2 {
        let begun = std::time::Instant::now();
        assert_eq!(get(&app, "/").await.status, 200);
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    }
    // Alone it has all of the time, and no more.
    let app = start(&public(&format!("connect_timeout_seconds=0.6\nurl='http://{silent}'"))).await;
    let begun = std::time::Instant::now();
    let answer = get(&app, "/").await;
    assert_eq!((answer.status, &answer.json()["code"]), (504, &"upstream_timeout".into()));
    let took = begun.elapsed();
    let limit = Duration::from_millis(600);
    assert!(took >= limit.mul_f64(0.9) && took < limit + LATE, "{took:?}");
    assert_eq!(targets(&app).await[0]["last_error"], "connect_timeout");
}

/// G-37.
#[tokio::test]
async fn an_upstream_that_fails_is_left_alone_and_asked_again_later() {
    let failing = Arc::new(AtomicBool::new(true));
    let fails = failing.clone();
    let bad = b"HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nbusy";
    let recorder =
        Recorder::start(
            move |delivery| {
                if fails.load(Relaxed) { Reply::Send(bad.to_vec()) } else { ok(delivery) }
            },
        )
        .await;
    let other = Recorder::start(ok).await;
    let clock = FakeClock::starting_at(epoch());
    let file = public(&format!("url='{}'", recorder.url()))
        + &format!("[[upstreams]]\nname='b'\nmount='/b'\nauth='public'\nurl='{}'", other.url());
    let app = with(&file, Options { clock: clock.clone(), ..Options::default() }).await;
    for _ in 0..20 {
        let answer = get(&app, "/").await;
        assert_eq!((answer.status, answer.text()), (503, "busy"), "its own answer");
    }
    assert_eq!(recorder.take().len(), 20);
    for (after, retry_after) in [(0, "5"), (1, "4"), (2, "2")] {
        clock.advance(TimeDelta::seconds(after));
        let answer = get(&app, "/").await;
        assert_eq!((answer.status, &answer.json()["code"]), (503, &"upstream_unavailable".into()));
        assert_eq!(answer.header("retry-after"), Some(retry_after));
        assert_eq!(get(&app, "/b/").await.status, 200, "another is not concerned");
    }
    assert!(recorder.take().is_empty());
    let records = recorded(&app, 26).await;
    assert!(records.iter().any(|r| r["outcome"] == "failed" && r["status"] == 503), "{records:?}");
    let health = app.anonymous().get("/health").await.expect(200);
    assert_eq!(health.json["services"]["upstreams"], "unhealthy");

    // The one that sees how it does fails: another five seconds.
    clock.advance(TimeDelta::seconds(2));
    assert_eq!(get(&app, "/").await.text(), "busy");
    assert_eq!(get(&app, "/").await.header("retry-after"), Some("5"));
    failing.store(false, Relaxed);
    clock.advance(TimeDelta::seconds(5));
    for _ in 0..10 {
        assert_eq!(get(&app, "/").await.status, 200);
    }
    assert_eq!(recorder.take().len(), 11);
    assert_eq!(targets(&app).await[0]["breaker"], "closed");
    let health = app.anonymous().get("/health").await.expect(200);
    assert_eq!(health.json["services"]["upstreams"], "healthy");
}

/// What one caller can bring about with bad requests closes nobody's door.
#[tokio::test]
async fn answers_that_are_about_the_request_open_no_breaker() {
    for line in ["400 Bad", "404 Not Found", "429 Slow", "500 Oops", "501 No", "505 No", "507 Full"]
    {
        let answer = format!("HTTP/1.1 {line}\r\nContent-Length: 1\r\n\r\nx");
        let recorder = Recorder::start(move |_| Reply::Send(answer.clone().into_bytes())).await;
        let app = start(&public(&format!("url='{}'", recorder.url()))).await;
        for _ in 0..40 {
            assert_eq!(get(&app, "/").await.status.to_string(), line[..3]);
        }
        assert_eq!(recorder.take().len(), 40, "{line}");
    }
}

/// A client's own slowness or leaving says nothing about the target.
#[tokio::test]
async fn what_the_client_does_opens_no_breaker() {
    let recorder = Recorder::start(|delivery| {
        if delivery.request_line().contains("/hang") { Reply::Hang } else { ok(delivery) }
    })
    .await;
    let app = start(&public(&format!("max_body_bytes=10\nurl='{}'", recorder.url()))).await;
    for _ in 0..30 {
        let mut client = crate::support::raw::Raw::connect(super::address(&app)).await;
        client.send("GET /hang HTTP/1.1\r\nHost: a\r\n\r\n").await;
        while recorder.take().is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        client.reset();
        let chunked = "POST /big HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\
                       b\r\nhello world\r\n0\r\n\r\n";
        let answer = crate::support::raw::Raw::exchange(super::address(&app), chunked).await;
        assert_eq!(answer.status, 413);
    }
    assert_eq!(get(&app, "/").await.status, 200);
    let target = &targets(&app).await[0];
    assert_eq!((&target["breaker"], &target["last_error"]), (&"closed".into(), &().into()));
    // Nor does it stay counted as under way.
    assert_eq!(target["in_flight"], 0);
}
