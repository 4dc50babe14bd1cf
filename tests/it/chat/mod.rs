//! Conversations of visitors with a workflow.

mod cookies;
mod faults;
mod forms;
mod kept;
mod once;
mod operators;
mod origins;
mod relay;
mod resume;
mod streaming;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::{Client as Pool, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::{Value, json};
use tokio::{
    sync::mpsc::{UnboundedSender, unbounded_channel},
    time::{Instant, sleep, timeout},
};

use crate::support::{
    Answer, Client, Options, TestApp,
    recorder::{Delivery, Recorder, Reply},
};

pub const ORIGIN: &str = "https://shop.example.com";
const OTHER: &str = "https://other.example.com:8443";
/// Nothing that is awaited takes so long.
pub const SOON: Duration = Duration::from_secs(20);

/// The settings of a chat with this workflow, without limits.
pub fn settings(url: &str) -> Vec<(&'static str, String)> {
    let path = format!("{url}/webhook/chat");
    [
        ("CHAT_WEBHOOK_URL", path.as_str()),
        ("SESSION_SECRET_KEY", "another key of Gnus, 9876543210?"),
        ("ALLOWED_ORIGINS", &format!("{ORIGIN},{OTHER}")),
        ("RATE_LIMIT_PER_MINUTE", "0"),
        ("RATE_LIMIT_PER_HOUR", "0"),
        ("RATE_LIMIT_SESSION_PER_MINUTE", "0"),
        ("RATE_LIMIT_SESSION_PER_HOUR", "0"),
    ]
    .map(|(name, value)| (name, value.to_owned()))
    .to_vec()
}

pub async fn chatting(recorder: &Recorder) -> TestApp {
    TestApp::with(Options { settings: settings(&recorder.url()), ..Options::default() }).await
}

/// Two instances on one database, with Redis and without; none without Postgres.
pub async fn two(recorder: &Recorder) -> Vec<Vec<TestApp>> {
    let settings = settings(&recorder.url());
    let settings: Vec<_> = settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let mut all = vec![];
    all.extend(TestApp::instances(2, &settings).await);
    all.extend(TestApp::without_redis(2, &settings).await);
    all
}

/// An answer of these parts, each a chunk of its own.
pub fn answer(kind: &str, text: &str) -> Vec<u8> {
    let length = text.len();
    format!("HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\n\r\n{text}")
        .into_bytes()
}

/// A workflow that says `Hello` at once.
pub fn hello(_: &Delivery) -> Reply {
    let text = r#"{"type":"begin"}{"type":"item","content":"Hel"}{"type":"item","content":"lo"}{"type":"end"}"#;
    Reply::Send(answer("application/json", text))
}

/// A workflow whose answers the test writes piece by piece, by the question.
#[derive(Clone, Default)]
pub struct Script(Arc<Mutex<HashMap<String, UnboundedSender<Vec<u8>>>>>);

impl Script {
    pub async fn start(&self) -> Recorder {
        let script = self.clone();
        Recorder::start(move |delivery| {
            let asked: Value = serde_json::from_slice(&delivery.body).unwrap();
            let (send, receive) = unbounded_channel();
            let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\
                transfer-encoding: chunked\r\n\r\n";
            send.send(head.as_bytes().to_vec()).unwrap();
            let question = asked["chatInput"].as_str().unwrap().to_owned();
            script.0.lock().unwrap().insert(question, send);
            Reply::Stream(receive)
        })
        .await
    }

    /// Writes to the answer to `question`, once that was asked.
    pub async fn write(&self, question: &str, text: &str) {
        let chunk = format!("{:x}\r\n{text}\r\n", text.len()).into_bytes();
        let begun = Instant::now();
        loop {
            if let Some(send) = self.0.lock().unwrap().get(question) {
                // Nobody may read it any more.
                let _ = send.send(chunk);
                return;
            }
            assert!(begun.elapsed() < SOON, "{question} was not asked");
            sleep(Duration::from_millis(5)).await;
        }
    }

    pub async fn item(&self, question: &str, content: &str) {
        self.write(question, &json!({ "type": "item", "content": content }).to_string()).await;
    }

    /// Ends the answer well.
    pub async fn end(&self, question: &str) {
        self.write(question, r#"{"type":"end"}"#).await;
        let send = self.0.lock().unwrap().remove(question).unwrap();
        send.send(b"0\r\n\r\n".to_vec()).unwrap();
    }
}

/// A browser on a page with a session.
#[derive(Clone)]
pub struct Visitor {
    pub client: Client,
    pub session: String,
    pub cookie: String,
    pub base: String,
    address: String,
}

/// The value of the session's cookie in an answer.
pub fn cookie_of(answer: &Answer) -> String {
    let field = answer.header("set-cookie");
    let (name, rest) = field.split_once('=').unwrap();
    assert_eq!(name, "chat_session_id");
    rest.split(';').next().unwrap().to_owned()
}

pub async fn begin(app: &TestApp) -> Visitor {
    begin_at(app, ORIGIN).await
}

pub async fn begin_at(app: &TestApp, origin: &str) -> Visitor {
    begin_on(&app.base, &app.address.to_string(), origin).await
}

/// At an instance, from an address, on a page.
pub async fn begin_on(base: &str, address: &str, origin: &str) -> Visitor {
    let client = Client::new(base).with("x-forwarded-for", address);
    let client = client.with("origin", origin).with("user-agent", "Browser/1");
    let domain = tollgate::services::chat::visitors::domain_of(origin);
    let body = json!({ "origin_domain": domain, "page_url": format!("{origin}/shoes") });
    let made = client.post("/api/v1/session/create", body).await.expect(201);
    let cookie = cookie_of(&made);
    Visitor {
        client: client.with("cookie", &format!("chat_session_id={cookie}")),
        session: made.text("session_id").to_owned(),
        cookie,
        base: base.to_owned(),
        address: address.to_owned(),
    }
}

impl Visitor {
    /// The same browser with the session that was just made.
    pub fn with_session(&self, made: &Answer) -> Self {
        let cookie = cookie_of(made);
        let client = Client::new(&self.base).with("x-forwarded-for", &self.address);
        let client = client.with("origin", ORIGIN).with("user-agent", "Browser/1");
        Self {
            client: client.with("cookie", &format!("chat_session_id={cookie}")),
            session: made.text("session_id").to_owned(),
            cookie,
            ..self.clone()
        }
    }

    pub fn at(&self, app: &TestApp) -> Self {
        self.on(&app.base)
    }

    /// The same browser, sent to another instance.
    pub fn on(&self, base: &str) -> Self {
        Self { client: self.client.at(base), base: base.to_owned(), ..self.clone() }
    }

    /// Asks for an answer in one piece.
    pub async fn ask(&self, body: Value) -> Answer {
        self.client.with("accept", "application/json").post("/api/v1/chat/message", body).await
    }

    /// Asks, and reads what comes.
    pub async fn stream(&self, message: &str) -> Stream {
        self.stream_body(json!({ "message": message })).await
    }

    pub async fn stream_body(&self, body: Value) -> Stream {
        self.open("POST", "/api/v1/chat/message", &[], body.to_string()).await
    }

    pub async fn resume(&self, id: &str, last: Option<&str>) -> Stream {
        let last: Vec<_> = last.into_iter().map(|last| ("last-event-id", last)).collect();
        self.open("GET", &format!("/api/v1/chat/stream/{id}"), &last, String::new()).await
    }

    async fn open(
        &self,
        method: &str,
        path: &str,
        fields: &[(&str, &str)],
        body: String,
    ) -> Stream {
        let pool: Pool<HttpConnector, Full<Bytes>> =
            Pool::builder(TokioExecutor::new()).build_http();
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base))
            .header("x-forwarded-for", &self.address)
            .header(header::ORIGIN, ORIGIN)
            .header(header::USER_AGENT, "Browser/1")
            .header(header::ACCEPT, "text/event-stream")
            .header(header::COOKIE, format!("chat_session_id={}", self.cookie));
        if !body.is_empty() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let sent = pool.request(request.body(Full::from(body)).unwrap());
        let (parts, body) = timeout(SOON, sent).await.unwrap().unwrap().into_parts();
        Stream { status: parts.status, headers: parts.headers, body, text: String::new() }
    }

    pub async fn history(&self) -> Vec<Value> {
        let path = format!("/api/v1/chat/history/{}", self.session);
        self.client.get(&path).await.expect(200).json["items"].as_array().unwrap().clone()
    }
}

/// An answer as events.
pub struct Stream {
    pub status: StatusCode,
    pub headers: HeaderMap,
    body: Incoming,
    text: String,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    pub id: u64,
    pub name: String,
    pub data: Value,
}

impl Stream {
    /// The next event, without heartbeats; `None` at the end.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            while let Some((event, rest)) = self.text.split_once("\n\n") {
                let event = event.to_owned();
                self.text = String::from(rest);
                if !event.starts_with(':') {
                    return Some(parse(&event));
                }
            }
            let frame = timeout(SOON, self.body.frame()).await.expect("something comes");
            let data = frame?.unwrap().into_data().unwrap();
            self.text.push_str(std::str::from_utf8(&data).unwrap());
        }
    }

    /// The `message_id` of the event `start`, which comes now.
    pub async fn start(&mut self) -> String {
        assert_eq!(self.status, StatusCode::OK);
        let event = self.next().await.unwrap();
        assert_eq!((event.id, event.name.as_str()), (0, "start"));
        event.data["message_id"].as_str().unwrap().to_owned()
    }

    /// All that is left: the text, the id of the last of it, and the last event.
    pub async fn rest(&mut self) -> (String, u64, Event) {
        let (mut text, mut upto) = (String::new(), 0);
        loop {
            let event = self.next().await.expect("an end");
            if event.name != "item" {
                assert_eq!(self.next().await, None);
                return (text, upto, event);
            }
            text.push_str(event.data["content"].as_str().unwrap());
            upto = event.id;
        }
    }
}

fn parse(event: &str) -> Event {
    let fields: HashMap<_, _> = event.lines().map(|line| line.split_once(": ").unwrap()).collect();
    assert_eq!(fields.len(), 3, "{event}");
    Event {
        id: fields["id"].parse().unwrap(),
        name: fields["event"].to_owned(),
        data: serde_json::from_str(fields["data"]).unwrap(),
    }
}

/// Waits until this holds.
pub async fn until(what: &str, holds: impl AsyncFn() -> bool) {
    let begun = Instant::now();
    while !holds().await {
        assert!(begun.elapsed() < SOON, "never: {what}");
        sleep(Duration::from_millis(20)).await;
    }
}
