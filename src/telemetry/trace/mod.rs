//! Which trace a request is of, and what took how long in it.
//!
//! Nothing of this exists where no collector is configured. Where one is, each
//! request has a [`Trace`]: begun here, or gone on with as its `traceparent` says,
//! and told to whoever is asked on its behalf. Of one that is sampled, what is
//! done becomes [`Span`]s, which go into a bounded queue when they are over
//! ([`export`]); nobody waits for that.
//!
//! **Whose word counts.** Everybody may say which trace a request is of. Whether
//! that is kept costs, so only those decide it who are trusted to
//! (`OTEL_TRACES_TRUSTED_PARENTS`); for all others, who may choose their ids as
//! well, it is drawn anew.

mod context;
pub mod export;
pub mod otlp;
mod span;

use std::{borrow::Cow, net::IpAddr, sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use http::{HeaderMap, HeaderValue};
use ipnet::IpNet;
use rand::Rng as _;
use tokio::time::Instant;

use self::{context::is_below, export::Queue};
pub use self::{
    context::{Parent, SpanId, TRACEPARENT, TRACESTATE, TraceId},
    export::{Collector, Reply},
    span::{Kind, Span, Value},
};
use crate::config::{Sampler, TracesConfig};

tokio::task_local! {
    /// Of the request that this task works for.
    static CURRENT: Arc<Trace>;
}

/// Begins traces, and takes what is told of them.
pub struct Tracer {
    sampler: Sampler,
    trusted: Vec<IpNet>,
    queue: Queue,
}

/// A request that comes in.
#[derive(Clone, Copy, Debug)]
pub struct Arriving {
    pub at: DateTime<Utc>,
    pub started: Instant,
    /// The other end of the connection.
    pub peer: IpAddr,
    /// Asked every few seconds for ever: it begins no trace that is kept.
    pub is_probe: bool,
}

/// The place of one request in its trace.
pub struct Trace {
    tracer: Arc<Tracer>,
    id: TraceId,
    /// Of the request itself.
    span: SpanId,
    parent: Option<SpanId>,
    sampled: bool,
    keeps_state: bool,
    /// Nanoseconds since 1970 at `started`.
    at: u64,
    started: Instant,
}

impl Tracer {
    /// Spans go to this collector. To be called within the runtime that is to send
    /// them.
    pub fn start(config: &TracesConfig, collector: impl Collector) -> Arc<Self> {
        Arc::new(Self {
            sampler: config.sampler,
            trusted: config.trusted.clone(),
            queue: Queue::start(config, collector),
        })
    }

    /// The trace that a request is of.
    pub fn begin(self: &Arc<Self>, headers: &HeaderMap, arriving: &Arriving) -> Arc<Trace> {
        let Arriving { at, started, peer, is_probe } = *arriving;
        let parent = Parent::of(headers);
        let id = parent.map_or_else(TraceId::random, |parent| parent.trace);
        let Sampler { by_parent, ratio } = self.sampler;
        let trusted = || self.trusted.iter().any(|network| network.contains(&peer));
        let sampled = match parent {
            Some(parent) if by_parent && trusted() => parent.sampled,
            _ if is_probe => false,
            // Its id was chosen by somebody else, perhaps so that it is kept.
            Some(_) if !trusted() => is_below(rand::rng().next_u64(), ratio),
            _ => id.is_within(ratio),
        };
        Arc::new(Trace {
            tracer: Arc::clone(self),
            id,
            span: SpanId::random(),
            parent: parent.map(|parent| parent.span),
            sampled,
            keeps_state: parent.is_some() && context::is_state_valid(headers),
            at: at.timestamp_nanos_opt().and_then(|at| u64::try_from(at).ok()).unwrap_or_default(),
            started,
        })
    }

    /// Waits until all spans so far were sent or given up, but not for longer;
    /// whether they were.
    pub async fn flush(&self, patience: Duration) -> bool {
        self.queue.flush(patience).await
    }
}

impl Trace {
    pub fn id(&self) -> TraceId {
        self.id
    }

    pub fn is_sampled(&self) -> bool {
        self.sampled
    }

    /// A question that is asked of somebody else on behalf of the request.
    /// `None` where it is not sampled.
    pub fn ask(self: &Arc<Self>, name: impl Into<Cow<'static, str>>) -> Option<Box<Asking>> {
        self.sampled.then(|| {
            let mut name = name.into();
            if let Cow::Owned(name) = &mut name {
                span::cut(name);
            }
            Box::new(Asking {
                trace: Arc::clone(self),
                id: SpanId::random(),
                started: Instant::now(),
                name,
                attributes: Vec::with_capacity(8),
                failed: false,
            })
        })
    }

    /// What whoever is asked is told: that the question is its parent.
    pub fn onward(&self, asking: Option<&Asking>) -> Onward {
        let span = asking.map_or(self.span, |asking| asking.id);
        let parent = Parent { trace: self.id, span, sampled: self.sampled };
        Onward { traceparent: parent.header(), keeps_state: self.keeps_state }
    }

    /// Tells of the request itself, which is over. To be called once, and only
    /// where it is sampled.
    pub fn finish(
        &self,
        mut name: String,
        attributes: Vec<(&'static str, Value)>,
        failed: bool,
        ended: Instant,
    ) {
        // A method may be as long as a head.
        span::cut(&mut name);
        self.tracer.queue.push(Span {
            trace: self.id,
            id: self.span,
            parent: self.parent,
            is_parent_remote: self.parent.is_some(),
            name: name.into(),
            kind: Kind::Server,
            started: self.at,
            ended: self.nanos(ended),
            attributes,
            failed,
        });
    }

    fn nanos(&self, at: Instant) -> u64 {
        let since = at.saturating_duration_since(self.started).as_nanos();
        self.at.saturating_add(u64::try_from(since).unwrap_or(u64::MAX))
    }
}

/// The fields that go with a request that is passed on.
#[derive(Clone, Debug)]
pub struct Onward {
    pub traceparent: HeaderValue,
    pub keeps_state: bool,
}

impl Onward {
    /// In place of what the client said.
    pub fn set(self, headers: &mut HeaderMap) {
        headers.insert(TRACEPARENT, self.traceparent);
        if !self.keeps_state {
            headers.remove(TRACESTATE);
        }
    }
}

/// A question under way. Dropping it tells of it, as of one that was given up
/// unless [`Asking::finish`] has been called.
pub struct Asking {
    trace: Arc<Trace>,
    id: SpanId,
    started: Instant,
    name: Cow<'static, str>,
    attributes: Vec<(&'static str, Value)>,
    failed: bool,
}

impl Asking {
    pub fn say(&mut self, name: &'static str, value: impl Into<Value>) {
        self.attributes.push((name, value.into()));
    }

    /// It came to nothing. The first reason stands.
    pub fn fail(&mut self, why: impl Into<Value>) {
        if !self.failed {
            self.failed = true;
            self.say("error.type", why);
        }
    }

    pub fn has_failed(&self) -> bool {
        self.failed
    }

    /// It is over now.
    pub fn finish(mut self) {
        self.tell();
    }

    fn tell(&mut self) {
        let Self { trace, id, started, name, attributes, failed } = self;
        // An id is never nil: that of one that was told of.
        if *id == SpanId([0; 8]) {
            return;
        }
        trace.tracer.queue.push(Span {
            trace: trace.id,
            id: std::mem::replace(id, SpanId([0; 8])),
            parent: Some(trace.span),
            is_parent_remote: false,
            name: std::mem::take(name),
            kind: Kind::Client,
            started: trace.nanos(*started),
            ended: trace.nanos(Instant::now()),
            attributes: std::mem::take(attributes),
            failed: *failed,
        });
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        if self.id != SpanId([0; 8]) {
            self.fail("cancelled");
            self.tell();
        }
    }
}

impl std::fmt::Debug for Asking {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Asking").field("name", &self.name).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Trace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Trace").field("id", &self.id).finish_non_exhaustive()
    }
}

/// The trace of the request that this task works for.
pub fn current() -> Option<Arc<Trace>> {
    CURRENT.try_with(Arc::clone).ok()
}

/// Does it as a part of this trace.
pub async fn within<F: Future>(trace: Arc<Trace>, work: F) -> F::Output {
    CURRENT.scope(trace, work).await
}

/// Spawns it as a part of the trace that this task is of, if it is of one.
pub fn inherited<F: Future>(work: F) -> impl Future<Output = F::Output> {
    let trace = current();
    async move {
        match trace {
            None => work.await,
            Some(trace) => CURRENT.scope(trace, work).await,
        }
    }
}

#[cfg(test)]
mod tests;
