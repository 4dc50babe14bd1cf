//! Which traces are kept, and what becomes of spans that nobody takes.

use std::sync::{Arc, Mutex, atomic::AtomicUsize, atomic::Ordering::Relaxed};

use bytes::Bytes;
use http::HeaderMap;
use tokio::sync::Semaphore;

use super::*;
use crate::config::Config;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

/// Takes as many exports as it is let, and says so each time.
#[derive(Clone)]
struct Gate {
    open: Arc<Semaphore>,
    status: Arc<Mutex<Vec<u16>>>,
    asked: Arc<AtomicUsize>,
}

impl Gate {
    fn new(exports: usize) -> Self {
        let (status, asked) = (Arc::default(), Arc::default());
        Self { open: Arc::new(Semaphore::new(exports)), status, asked }
    }
}

impl Collector for Gate {
    fn export(
        &self,
        _: Bytes,
    ) -> std::pin::Pin<Box<dyn Future<Output = Result<Reply, &'static str>> + Send + '_>> {
        Box::pin(async {
            self.asked.fetch_add(1, Relaxed);
            self.open.acquire().await.unwrap().forget();
            let status = self.status.lock().unwrap().pop().unwrap_or(200);
            Ok(Reply { status, retry_after: None, body: Bytes::new() })
        })
    }
}

fn tracer(gate: &Gate, settings: &[(&str, &str)]) -> Arc<Tracer> {
    let mut sources = crate::config::Sources::default();
    let base = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318"),
        ("OTEL_TRACES_TRUSTED_PARENTS", "10.0.0.0/8"),
    ];
    for (name, value) in base.iter().chain(settings) {
        sources.environment.insert((*name).to_owned(), (*value).to_owned());
    }
    let config = Config::load(&sources).unwrap();
    Tracer::start(&config.traces.unwrap(), gate.clone())
}

fn arriving(peer: &str, is_probe: bool) -> Arriving {
    let at = DateTime::from_timestamp(1_700_000_000, 0).unwrap();
    Arriving { at, started: Instant::now(), peer: peer.parse().unwrap(), is_probe }
}

fn headers(traceparent: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    if !traceparent.is_empty() {
        headers.insert(TRACEPARENT, traceparent.parse().unwrap());
    }
    headers
}

#[tokio::test]
async fn who_asks_decides_only_where_it_is_trusted_to() {
    let (kept, left) = (format!("00-{TRACE}-00f067aa0ba902b7-01"), "00f067aa0ba902b7-00");
    let left = format!("00-{TRACE}-{left}");
    let (inside, outside) = ("10.1.2.3", "192.0.2.1");
    for (sampler, said, peer, is_probe, sampled) in [
        ("parentbased_always_on", "", outside, false, true),
        ("parentbased_always_on", "", outside, true, false),
        ("parentbased_always_on", &*left, inside, false, false),
        ("parentbased_always_on", &*left, outside, false, true),
        ("parentbased_always_off", "", inside, false, false),
        ("parentbased_always_off", &*kept, inside, false, true),
        ("parentbased_always_off", &*kept, inside, true, true),
        ("parentbased_always_off", &*kept, outside, false, false),
        ("always_on", &*left, inside, false, true),
        ("always_off", &*kept, inside, false, false),
    ] {
        let tracer = tracer(&Gate::new(0), &[("OTEL_TRACES_SAMPLER", sampler)]);
        let trace = tracer.begin(&headers(said), &arriving(peer, is_probe));
        let case = format!("{sampler} {said} {peer} {is_probe}");
        assert_eq!(trace.is_sampled(), sampled, "{case}");
        assert_eq!(trace.id().to_string() == TRACE, !said.is_empty(), "{case}");
        assert_eq!(trace.ask("x").is_some(), sampled, "{case}");
        let onward = trace.onward(None).traceparent;
        let flag = if sampled { "-01" } else { "-00" };
        assert!(onward.to_str().unwrap().ends_with(flag), "{case}: {onward:?}");
    }
}

/// Whoever sees that one id is kept must not be able to have all of theirs kept.
#[tokio::test]
async fn a_stranger_cannot_choose_an_id_that_is_kept() {
    let settings = [("OTEL_TRACES_SAMPLER", "traceidratio"), ("OTEL_TRACES_SAMPLER_ARG", "0.1")];
    let tracer = tracer(&Gate::new(0), &settings);
    let low = headers("00-4bf92f3577b34da60000000000000001-00f067aa0ba902b7-01");
    let kept = |peer: &str| {
        let kept = |_: &i32| tracer.begin(&low, &arriving(peer, false)).is_sampled();
        (0..1000).filter(kept).count()
    };
    assert!(kept("192.0.2.1") < 200);
    // Those who are trusted agree about each, as all programs with this ratio do.
    assert_eq!(kept("10.0.0.1"), 1000);
}

#[tokio::test]
async fn what_waits_is_bounded_and_nobody_waits_for_a_collector_that_hangs() {
    let gate = Gate::new(0);
    let tracer = tracer(
        &gate,
        &[
            ("OTEL_BSP_MAX_QUEUE_SIZE", "100"),
            ("OTEL_BSP_SCHEDULE_DELAY", "1"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "600000"),
        ],
    );
    let trace = tracer.begin(&headers(""), &arriving("192.0.2.1", false));
    let tell = |count| (0..count).for_each(|_| trace.ask("x").unwrap().finish());
    tell(1);
    while gate.asked.load(Relaxed) == 0 {
        tokio::task::yield_now().await;
    }
    let start = std::time::Instant::now();
    tell(10_000);
    assert!(start.elapsed() < Duration::from_secs(5));
    assert_eq!(tracer.queue.waiting(), 100);
    assert!(!tracer.flush(Duration::from_millis(50)).await, "it hangs");
    gate.open.add_permits(1000);
    assert!(tracer.flush(Duration::from_secs(30)).await);
    assert_eq!(tracer.queue.waiting(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_is_not_taken_now_is_tried_again_and_then_given_up() {
    for (statuses, asked) in
        [(vec![200], 1), (vec![503, 429, 200], 3), (vec![503; 9], 4), (vec![400, 200], 1)]
    {
        let gate = Gate::new(100);
        *gate.status.lock().unwrap() = statuses.iter().copied().rev().collect();
        let tracer = tracer(&gate, &[("OTEL_BSP_SCHEDULE_DELAY", "1")]);
        let trace = tracer.begin(&headers(""), &arriving("192.0.2.1", false));
        trace.ask("x").unwrap().finish();
        tokio::time::sleep(Duration::from_mins(1)).await;
        assert_eq!(gate.asked.load(Relaxed), asked, "{statuses:?}");
    }
}
