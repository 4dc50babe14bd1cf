//! A collector of traces, which reads what it is sent by the official
//! definitions.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest, common::v1::any_value, trace::v1 as proto,
};
use prost::Message as _;

use super::recorder::{Delivery, Recorder, Reply};

const PATIENCE: Duration = Duration::from_secs(30);

pub struct Receiver {
    recorder: Recorder,
    spans: Arc<Mutex<Vec<Span>>>,
}

/// One span, and what it says of its process.
#[derive(Clone, Debug)]
pub struct Span {
    pub name: String,
    pub kind: proto::span::SpanKind,
    pub trace: String,
    pub id: String,
    /// Empty: it has none.
    pub parent: String,
    pub remote: bool,
    pub started: u64,
    pub ended: u64,
    pub attributes: BTreeMap<String, String>,
    pub failed: bool,
    pub process: BTreeMap<String, String>,
}

impl Receiver {
    /// Takes everything.
    pub async fn start() -> Self {
        Self::saying(|_| Reply::Send(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".to_vec()))
            .await
    }

    pub async fn saying(behaviour: impl Fn(&Delivery) -> Reply + Send + Sync + 'static) -> Self {
        let spans: Arc<Mutex<Vec<Span>>> = Arc::default();
        let kept = Arc::clone(&spans);
        let recorder = Recorder::start(move |delivery| {
            kept.lock().unwrap().extend(read(delivery));
            behaviour(delivery)
        });
        Self { recorder: recorder.await, spans }
    }

    pub fn url(&self) -> String {
        self.recorder.url()
    }

    pub fn deliveries(&self) -> Vec<Delivery> {
        self.recorder.deliveries()
    }

    pub fn spans(&self) -> Vec<Span> {
        self.spans.lock().unwrap().clone()
    }

    /// Once there are so many that `wanted` is of.
    pub async fn until(&self, count: usize, wanted: impl Fn(&Span) -> bool) -> Vec<Span> {
        let start = Instant::now();
        loop {
            let found: Vec<_> = self.spans().into_iter().filter(&wanted).collect();
            if found.len() >= count {
                return found;
            }
            let all = self.spans();
            assert!(start.elapsed() < PATIENCE, "{} of {count}: {all:#?}", found.len());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

impl Span {
    /// An attribute, or `-`.
    pub fn says(&self, name: &str) -> &str {
        self.attributes.get(name).map_or("-", String::as_str)
    }

    pub fn is_server(&self) -> bool {
        self.kind == proto::span::SpanKind::Server
    }
}

fn read(delivery: &Delivery) -> Vec<Span> {
    assert_eq!(delivery.request_line(), "POST /v1/traces HTTP/1.1");
    assert_eq!(delivery.all("content-type"), ["application/x-protobuf"]);
    let request = ExportTraceServiceRequest::decode(&*delivery.body).unwrap();
    let mut all = vec![];
    for resource in request.resource_spans {
        let process = attributes(resource.resource.unwrap().attributes);
        for scope in resource.scope_spans {
            assert_eq!(scope.scope.unwrap().name, "tollgate");
            all.extend(scope.spans.into_iter().map(|span| of(span, &process)));
        }
    }
    all
}

fn of(span: proto::Span, process: &BTreeMap<String, String>) -> Span {
    assert_eq!((span.trace_id.len(), span.span_id.len()), (16, 8));
    assert!(span.start_time_unix_nano <= span.end_time_unix_nano);
    Span {
        kind: span.kind(),
        trace: hex::encode(span.trace_id),
        id: hex::encode(span.span_id),
        parent: hex::encode(span.parent_span_id),
        remote: span.flags & 0x200 != 0,
        started: span.start_time_unix_nano,
        ended: span.end_time_unix_nano,
        attributes: attributes(span.attributes),
        failed: span.status.is_some_and(|it| it.code() == proto::status::StatusCode::Error),
        process: process.clone(),
        name: span.name,
    }
}

fn attributes(
    pairs: Vec<opentelemetry_proto::tonic::common::v1::KeyValue>,
) -> BTreeMap<String, String> {
    let text = |value| match value {
        any_value::Value::StringValue(text) => text,
        any_value::Value::IntValue(number) => number.to_string(),
        other => panic!("{other:?}"),
    };
    let pair = |pair: opentelemetry_proto::tonic::common::v1::KeyValue| {
        (pair.key, text(pair.value.unwrap().value.unwrap()))
    };
    pairs.into_iter().map(pair).collect()
}
