//! Those beside upstreams that it speaks with: a collector of traces, which is a
//! place to look at, and a workflow of chats.

use http::Method;
use serde_json::json;

use super::{Answers, MARKER, OTLP, Planted, WORKFLOW};
use crate::{
    chat::{self, ORIGIN, begin_on},
    process::{Process, Setup},
    support::{
        Client,
        otlp::Receiver,
        recorder::{Recorder, Reply},
    },
};

pub struct Outside {
    collector: Receiver,
    workflow: Recorder,
}

impl Outside {
    pub async fn start() -> Self {
        let workflow = Recorder::start(|asked| {
            if String::from_utf8_lossy(&asked.body).contains("fail") {
                return Reply::Send(b"HTTP/1.1 500 X\r\ncontent-length: 0\r\n\r\n".to_vec());
            }
            chat::hello(asked)
        });
        Self { collector: Receiver::start().await, workflow: workflow.await }
    }

    pub fn set(&self, setup: Setup) -> Setup {
        setup
            .set("OTEL_EXPORTER_OTLP_ENDPOINT", &self.collector.url())
            .set("OTEL_BSP_SCHEDULE_DELAY", "100")
            .set("OTEL_BSP_MAX_QUEUE_SIZE", "100000")
            .set("CHAT_WEBHOOK_URL", &format!("{}/webhook/{MARKER}", self.workflow.url()))
    }

    /// What the workflow was shown is planted; what the collector was told is searched
    /// at the end.
    pub fn plant(&self, planted: &mut Planted) {
        for asked in self.workflow.deliveries() {
            assert_eq!(asked.all("x-api-key"), [WORKFLOW]);
            let bearer = asked.all("authorization")[0];
            planted.add("webhook token", bearer.trim_start_matches("Bearer "));
        }
        assert!(planted.all("webhook token").len() > 1, "the workflow was not asked");
    }

    /// Where something is found in what the collector was told.
    pub fn told(&self, planted: &Planted) -> Vec<String> {
        let exports = self.collector.deliveries();
        assert!(!exports.is_empty(), "it was told nothing");
        let found = exports.iter().map(|it| planted.found_in("the traces", &it.body));
        found.flatten().collect()
    }

    /// The same in all that others are sent. The collector's own secret belongs into the head
    /// of what it is sent, the workflow's into that of its questions.
    pub fn search(&self, planted: &Planted) -> Vec<String> {
        let exports = self.collector.deliveries();
        let spans = self.collector.spans();
        assert!(spans.iter().any(|span| span.says("url.path").contains("canary")), "{spans:#?}");
        assert!(spans.iter().any(|span| span.name.starts_with("database ")));
        assert!(exports.iter().all(|export| export.head.contains(OTLP)));
        let mut found = self.told(planted);
        let other = |own: &'static str, name: &'static str| {
            let kept =
                planted.0.iter().filter(move |(kind, secret)| secret != own && *kind != name);
            Planted(kept.cloned().collect())
        };
        let heads: String = exports.into_iter().map(|export| export.head).collect();
        found.extend(other(OTLP, "").found_in("the collector", heads.as_bytes()));
        let asked: Vec<u8> =
            self.workflow.deliveries().into_iter().flat_map(|it| it.wire).collect();
        found.extend(other(WORKFLOW, "webhook token").found_in("the workflow", &asked));
        found
    }
}

/// Visitors of pages, mistakes included.
pub async fn chats(process: &Process, planted: &mut Planted, answers: &mut Answers) {
    let visitor = begin_on(&process.base, "127.0.0.1", ORIGIN).await;
    let cookie = &visitor.cookie;
    planted.add("chat cookie", cookie);
    for message in ["hello", "fail"] {
        let answer = visitor.ask(json!({ "message": format!("{MARKER} {message}") })).await;
        let well = answer.status == 200 && message == "hello";
        // There may be no workflow.
        assert!(well || [502, 503].contains(&answer.status.as_u16()), "{answer:?}");
        answers.keep(&answer);
    }
    let history = format!("/api/v1/chat/history/{}", visitor.session);
    answers.keep(&visitor.client.get(&history).await.expect(200));
    let stranger = Client::new(&process.base).with("origin", ORIGIN);
    // Forged, misplaced, and in what cannot be read.
    for (name, value) in [
        ("cookie", format!("chat_session_id={cookie}x")),
        ("cookie", format!("tollgate_sid={cookie}")),
        ("authorization", format!("Bearer {cookie}")),
        ("x-api-key", cookie.clone()),
        ("last-event-id", cookie.clone()),
    ] {
        let answer = stranger.with(name, &value).get(&history).await;
        assert!(answer.status.is_client_error(), "{name}: {answer:?}");
        answers.keep(&answer);
    }
    answers.keep(&stranger.get(&format!("{history}?chat_session_id={cookie}")).await);
    answers.keep(&stranger.post("/api/v1/chat/message", json!({ "cookie": cookie })).await);
    let broken = format!("{{\"message\": \"{cookie}").into();
    let media = Some("application/json");
    let sent = visitor.client.send(Method::POST, "/api/v1/chat/message", media, broken).await;
    answers.keep(&sent.expect(400));
    let ended = visitor.client.delete(&format!("/api/v1/session/{}", visitor.session)).await;
    answers.keep(&ended);
    answers.keep(&visitor.client.get(&history).await);
}
