//! Active checks.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU16, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use serde_json::Value;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tollgate::jobs::watch_upstreams;

use super::{get, public, start, targets};
use crate::support::{
    LATE, TestApp,
    recorder::{Delivery, Recorder, Reply, ok},
};

/// Answers checks with a status that can be changed; 0: not at all.
async fn checked() -> (Recorder, Arc<AtomicU16>) {
    let status = Arc::new(AtomicU16::new(200));
    let answer = status.clone();
    let recorder = Recorder::start(move |delivery: &Delivery| {
        if !delivery.request_line().contains(" /well ") {
            return ok(delivery);
        }
        match answer.load(SeqCst) {
            0 => Reply::Hang,
            status => Reply::Send(
                format!("HTTP/1.1 {status} X\r\nLocation: /\r\nContent-Length: 0\r\n\r\n").into(),
            ),
        }
    })
    .await;
    (recorder, status)
}

fn watch(app: &TestApp) -> AbortOnDropHandle<()> {
    let upstreams = app.app.services.upstreams.clone();
    AbortOnDropHandle::new(tokio::spawn(watch_upstreams(upstreams, CancellationToken::new())))
}

async fn until(app: &TestApp, what: &str, so: impl Fn(&[Value]) -> bool) {
    for _ in 0..3000 {
        if so(&targets(app).await) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("not {what}: {:?}", targets(app).await);
}

async fn condition(app: &TestApp) -> String {
    let health = app.anonymous().get("/health").await.expect(200);
    health.json["services"]["upstreams"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_target_that_fails_its_checks_gets_no_requests_until_it_is_well() {
    let ((one, status), (other, _)) = (checked().await, checked().await);
    let health = "health={ path='/well', interval_seconds=0.1, timeout_seconds=1 }";
    let urls = format!("targets=['{}','{}']\n{health}", one.url(), other.url());
    let app = start(&public(&urls)).await;
    let _watch = watch(&app);
    let plain = |recorder: &Recorder| {
        recorder.take().iter().filter(|d| !d.request_line().contains("/well")).count()
    };
    for bad in [503, 404, 0, 500, 401] {
        status.store(bad, SeqCst);
        until(&app, "ill", |targets| targets[0]["healthy"] == false).await;
        assert_eq!(condition(&app).await, "degraded");
        plain(&one);
        for _ in 0..20 {
            assert_eq!(get(&app, "/").await.status, 200);
        }
        assert_eq!(plain(&one), 0, "{bad}");
        // A redirect is a good answer, and is not followed.
        status.store(if bad == 404 { 302 } else { 204 }, SeqCst);
        until(&app, "well", |targets| targets[0]["healthy"] == true).await;
        assert_eq!(condition(&app).await, "healthy");
    }
    for _ in 0..50 {
        get(&app, "/").await;
    }
    assert!(plain(&one) > 5);
}

#[tokio::test]
async fn a_check_is_asked_as_requests_are_and_carries_nobody() {
    let (recorder, _) = checked().await;
    let app = start(&public(&format!(
        "url='{}'\nhost='inner.example'\nbasic_auth_user='u'\nbasic_auth_password='p'\n\
         health={{ path='/well', interval_seconds=60 }}",
        recorder.url()
    )))
    .await;
    let _watch = watch(&app);
    let seen = loop {
        match recorder.take().pop() {
            Some(seen) => break seen,
            None => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    };
    assert_eq!(seen.request_line(), "GET /well HTTP/1.1");
    assert_eq!(seen.all("host"), ["inner.example"]);
    assert_eq!(seen.all("authorization"), ["Basic dTpw"]);
    assert!(seen.names().iter().all(|name| !name.starts_with("x-")), "{:?}", seen.names());
}

/// A check may be wrong about what it asks for: traffic is the better witness.
#[tokio::test]
async fn where_all_are_ill_they_are_asked_all_the_same() {
    let (recorder, status) = checked().await;
    status.store(404, SeqCst);
    let health = "health={ path='/well', interval_seconds=0.1 }";
    let app = start(&public(&format!("url='{}'\n{health}", recorder.url()))).await;
    let _watch = watch(&app);
    until(&app, "ill", |targets| targets[0]["healthy"] == false).await;
    assert_eq!(condition(&app).await, "unhealthy");
    assert_eq!(get(&app, "/").await.status, 200);
    // Without its check nothing is known to be ill, and nobody asks any more.
    app.sources.lock().unwrap().file = Some(public(&format!("url='{}'", recorder.url())));
    app.admin().await.post_empty("/api/v1/admin/reload").await.expect(200);
    assert_eq!(targets(&app).await[0]["healthy"], true);
    // But for a check that was under way.
    let begun = Instant::now();
    loop {
        recorder.take();
        tokio::time::sleep(Duration::from_millis(400)).await;
        if recorder.take().is_empty() {
            break;
        }
        assert!(begun.elapsed() < LATE, "it is asked again and again");
    }
}
