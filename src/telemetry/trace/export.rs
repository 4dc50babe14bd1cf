//! Spans on their way to a collector that may be slow, or away.
//!
//! Whoever tells of a span never waits: it goes into a bounded queue, and one
//! that finds no place is dropped and counted. One task sends them, a batch at a
//! time. What a collector is not there for is tried again a few times and then
//! given up, so that what comes later has a place.

use std::{
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use metrics::{Counter, counter};
use tokio::{
    sync::{mpsc, oneshot},
    time::{sleep, timeout},
};

use super::{
    otlp::{self, Resource},
    span::Span,
};
use crate::config::TracesConfig;

/// Spans of one export, as elsewhere.
const BATCH: usize = 512;
/// How often one is sent.
const ATTEMPTS: u32 = 4;
/// Before the second attempt; doubled each time.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// However long a collector asks for.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
const BETWEEN_WARNINGS: Duration = Duration::from_mins(1);

/// What takes exports.
pub trait Collector: Send + Sync + 'static {
    /// Sends one; an error says in a word why it did not arrive.
    fn export(
        &self,
        body: Bytes,
    ) -> Pin<Box<dyn Future<Output = Result<Reply, &'static str>> + Send + '_>>;
}

/// What it says to one.
#[derive(Clone, Debug)]
pub struct Reply {
    pub status: u16,
    pub retry_after: Option<Duration>,
    pub body: Bytes,
}

/// The way to the task that sends.
pub(super) struct Queue {
    spans: mpsc::Sender<Span>,
    flushes: mpsc::Sender<oneshot::Sender<()>>,
    full: Counter,
}

impl Queue {
    pub fn start(config: &TracesConfig, collector: impl Collector) -> Self {
        let (spans, waiting) = mpsc::channel(config.max_queue);
        let (flushes, asked) = mpsc::channel(1);
        let own = [("service.name", &*config.service), VERSION];
        let given = config.resource.iter().map(|(name, value)| (&**name, &**value));
        // What is set by its own name holds.
        let given = given.filter(|(name, _)| own.iter().all(|(other, _)| other != name));
        let exporter = Exporter {
            collector: Arc::new(collector),
            resource: Resource::new(own.into_iter().chain(given)),
            timeout: config.timeout,
            delay: config.delay,
            waiting,
            asked,
            sent: counter!("tollgate_trace_spans_exported_total"),
            failed: dropped("failed"),
            rejected: dropped("rejected"),
            warned: None,
            lost: 0,
        };
        tokio::spawn(exporter.run());
        Self { spans, flushes, full: dropped("queue_full") }
    }

    pub fn push(&self, span: Span) {
        if self.spans.try_send(span).is_err() {
            self.full.increment(1);
        }
    }

    /// Spans that wait.
    #[cfg(test)]
    pub fn waiting(&self) -> usize {
        self.spans.max_capacity() - self.spans.capacity()
    }

    pub async fn flush(&self, patience: Duration) -> bool {
        let flushing = async {
            let (done, over) = oneshot::channel();
            self.flushes.send(done).await.is_ok() && over.await.is_ok()
        };
        timeout(patience, flushing).await.unwrap_or(false)
    }
}

const VERSION: (&str, &str) = ("service.version", env!("CARGO_PKG_VERSION"));

fn dropped(reason: &'static str) -> Counter {
    counter!("tollgate_trace_spans_dropped_total", "reason" => reason)
}

struct Exporter<C> {
    collector: Arc<C>,
    resource: Resource,
    timeout: Duration,
    delay: Duration,
    waiting: mpsc::Receiver<Span>,
    asked: mpsc::Receiver<oneshot::Sender<()>>,
    sent: Counter,
    failed: Counter,
    rejected: Counter,
    /// When the last warning was written.
    warned: Option<Instant>,
    /// Spans that were lost since.
    lost: usize,
}

/// What became of one attempt.
enum Attempt {
    Taken,
    /// It may do later.
    Again(&'static str, Option<Duration>),
    Refused(u16),
}

impl<C: Collector> Exporter<C> {
    async fn run(mut self) {
        let mut batch = vec![];
        loop {
            let flush = self.gather(&mut batch).await;
            let Some(flush) = flush else {
                self.export(&mut batch).await;
                if self.waiting.is_closed() && self.waiting.is_empty() {
                    return;
                }
                continue;
            };
            // All that waits now, which is no more than the queue holds.
            for _ in 0..=self.waiting.len() / BATCH {
                while batch.len() < BATCH
                    && let Ok(span) = self.waiting.try_recv()
                {
                    batch.push(span);
                }
                self.export(&mut batch).await;
            }
            // Whoever asked may have given up.
            _ = flush.send(());
        }
    }

    /// Until there is a batch, or the oldest has waited long enough; or until
    /// somebody asks for what there is.
    async fn gather(&mut self, batch: &mut Vec<Span>) -> Option<oneshot::Sender<()>> {
        tokio::select! {
            biased;
            Some(flush) = self.asked.recv() => return Some(flush),
            first = self.waiting.recv() => batch.push(first?),
        }
        let mut over = std::pin::pin!(sleep(self.delay));
        while batch.len() < BATCH {
            tokio::select! {
                biased;
                Some(flush) = self.asked.recv() => return Some(flush),
                next = self.waiting.recv() => batch.push(next?),
                () = &mut over => break,
            }
        }
        None
    }

    async fn export(&mut self, batch: &mut Vec<Span>) {
        if batch.is_empty() {
            return;
        }
        let body = Bytes::from(otlp::request(&self.resource, batch));
        let count = batch.len();
        // What a burst needed is not kept.
        *batch = vec![];
        let mut pause = FIRST_PAUSE;
        for attempt in 1..=ATTEMPTS {
            let (reason, wait) = match self.send(body.clone(), count).await {
                Attempt::Taken => return,
                Attempt::Again(reason, wait) => (reason, wait),
                Attempt::Refused(status) => return self.lose(count, "refused", Some(status)),
            };
            // At the end there is no later.
            if attempt == ATTEMPTS || self.waiting.is_closed() {
                return self.lose(count, reason, None);
            }
            let wait = wait.unwrap_or(pause).clamp(pause, LONGEST_PAUSE);
            pause *= 2;
            tokio::select! {
                () = sleep(wait) => {}
                // Somebody waits for the end: what is there is tried once.
                () = asked(&self.asked) => {}
            }
        }
    }

    async fn send(&self, body: Bytes, count: usize) -> Attempt {
        let sending = self.collector.export(body);
        let reply = match timeout(self.timeout, sending).await {
            Ok(Ok(reply)) => reply,
            Ok(Err(reason)) => return Attempt::Again(reason, None),
            Err(_) => return Attempt::Again("timeout", None),
        };
        match reply.status {
            200..=299 => {
                let rejected = otlp::rejected(&reply.body).min(count as u64);
                self.rejected.increment(rejected);
                self.sent.increment(count as u64 - rejected);
                Attempt::Taken
            }
            429 | 502..=504 => Attempt::Again("unavailable", reply.retry_after),
            status => Attempt::Refused(status),
        }
    }

    fn lose(&mut self, count: usize, reason: &'static str, status: Option<u16>) {
        self.failed.increment(count as u64);
        self.lost += count;
        if self.warned.is_none_or(|at| at.elapsed() >= BETWEEN_WARNINGS) {
            self.warned = Some(Instant::now());
            let spans = std::mem::take(&mut self.lost);
            tracing::warn!(spans, reason, status, "the collector of traces did not take spans");
        }
    }
}

/// Whether somebody asks for what there is; not before.
async fn asked(flushes: &mpsc::Receiver<oneshot::Sender<()>>) {
    const LOOK_AGAIN: Duration = Duration::from_millis(20);
    while flushes.is_empty() {
        sleep(LOOK_AGAIN).await;
    }
}
