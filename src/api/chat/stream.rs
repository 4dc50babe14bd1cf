//! An answer as server-sent events.
//!
//! The id of an event is the byte of the text up to which it goes, so that any
//! instance can go on from it; that of the end is one more.

use std::{convert::Infallible, future::poll_fn, sync::Arc, task::Poll, time::Duration};

use axum::{
    body::Body,
    http::{HeaderName, HeaderValue, header},
    response::{IntoResponse as _, Response},
};
use bytes::Bytes;
use futures_util::{FutureExt as _, future::BoxFuture, stream::unfold};
use serde::Serialize;
use serde_json::json;
use tokio::time::{Instant, sleep_until};
use utoipa::ToSchema;

use super::visitor::Visitor;
use crate::{
    api::{
        AppState,
        error::{ApiError, ErrorCode},
    },
    domain::{
        id::StreamId,
        kill::KillReason,
        stream::{Passed, StreamKind},
    },
    services::{
        chat::{ChatService, Follower, Step, Visit, follow::Ended},
        streams::{Opening, StreamHandle},
    },
};

/// RELIABILITY, defaults.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// How often it is looked whether the session goes on.
const LOOK: Duration = Duration::from_secs(1);

/// What an answer took.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
pub struct Usage {
    /// Of its text, UTF-8.
    #[schema(example = 18)]
    output_bytes: usize,
    #[schema(example = 1250)]
    duration_ms: i64,
}

impl Usage {
    pub fn of(ended: &Ended) -> Self {
        let duration_ms = (ended.at - ended.begun).num_milliseconds().max(0);
        Self { output_bytes: ended.upto, duration_ms }
    }
}

struct Feed {
    follower: Follower,
    chat: Arc<ChatService>,
    visit: Arc<Visit>,
    handle: Option<StreamHandle>,
    start: bool,
    over: bool,
    look_at: Instant,
    /// Whether the session goes on, while that is being asked: what comes does not
    /// wait for it.
    looking: Option<BoxFuture<'static, bool>>,
    beat_at: Instant,
    request_id: String,
    path: String,
    passed: Passed,
}

/// A place among what is open, and the name that it has there.
pub struct Place {
    /// `None` where nobody is to see it, for lack of an upstream's name.
    handle: Option<StreamHandle>,
    path: String,
}

/// Takes a place for a stream that is to begin.
///
/// # Errors
/// As many streams as may be are open.
pub fn enter(state: &AppState, visitor: &Visitor, path: &str) -> Result<Place, ApiError> {
    let now = state.services.clock.now();
    let opening = state.services.chat.upstream().map(|upstream| Opening {
        id: StreamId::new(now),
        kind: StreamKind::Sse,
        principal: None,
        upstream: Arc::clone(upstream),
        part: None,
        path: path.to_owned(),
        address: visitor.guest.client.address,
        origin: None,
        opened_at: now,
    });
    let handle = opening.map(|opening| state.services.streams.enter(opening)).transpose();
    let handle = handle
        .map_err(|full| ApiError::new(ErrorCode::Overloaded, full.to_string()).retry_after(1))?;
    Ok(Place { handle, path: format!("/api/v1{path}") })
}

/// The answer to whoever follows; `start`: it is told from its beginning.
pub fn events(
    state: &AppState,
    visitor: Visitor,
    follower: Follower,
    start: bool,
    place: Place,
) -> Response {
    let Visitor { visit, guest, .. } = visitor;
    let Place { handle, path } = place;
    let begun = Instant::now();
    let feed = Feed {
        follower,
        chat: state.services.chat.clone(),
        visit,
        handle,
        start,
        over: false,
        look_at: begun + LOOK,
        looking: None,
        beat_at: begun + HEARTBEAT,
        request_id: guest.client.request_id.to_string(),
        path,
        passed: Passed::default(),
    };
    let body = unfold(feed, |mut feed| async move {
        let text = feed.next().await?;
        feed.passed.bytes_out += text.len() as u64;
        feed.passed.messages_out += u64::from(!text.starts_with(':'));
        if let Some(handle) = &feed.handle {
            handle.set_passed(feed.passed);
        }
        Some((Ok::<_, Infallible>(Bytes::from(text)), feed))
    });
    let fields = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        // nginx would gather it otherwise.
        (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no")),
    ];
    (fields, Body::from_stream(body)).into_response()
}

impl Feed {
    /// What is sent next; `None` after the last.
    async fn next(&mut self) -> Option<String> {
        if self.over {
            return None;
        }
        if std::mem::take(&mut self.start) {
            return Some(event(0, "start", &json!({ "message_id": self.follower.id })));
        }
        loop {
            let here = self.follower.is_here();
            let leaves = self.leaves_with(here);
            let Self { follower, handle, looking, look_at, .. } = self;
            let killed = poll_fn(|cx| match handle {
                Some(handle) => handle.kill().poll_tripped(cx),
                None => Poll::Pending,
            });
            let idle = looking.is_none();
            let looked = poll_fn(|cx| match looking {
                Some(looking) => looking.poll_unpin(cx),
                None => Poll::Pending,
            });
            tokio::select! {
                // What ends it first, so that an answer without pauses ends too.
                biased;
                reason = killed, if !leaves => {
                    if !(here && reason == KillReason::GoingAway) {
                        return self.killed(reason);
                    }
                }
                goes_on = looked => {
                    self.looking = None;
                    self.look_at = Instant::now() + LOOK;
                    if !goes_on {
                        return self.killed(KillReason::Revoked);
                    }
                }
                step = follower.next() => return Some(self.tell(step?)),
                () = sleep_until(*look_at), if idle => {
                    let (chat, visit) = (Arc::clone(&self.chat), Arc::clone(&self.visit));
                    self.looking = Some(Box::pin(async move {
                        match chat.visitors() {
                            Ok(visitors) => visitors.goes_on(&visit).await,
                            Err(_) => false,
                        }
                    }));
                    if self.beat_at <= Instant::now() {
                        self.beat_at = Instant::now() + HEARTBEAT;
                        return Some(": still there\n\n".to_owned());
                    }
                }
            }
        }
    }

    /// An answer of this instance comes to its own end when that stops.
    fn leaves_with(&self, here: bool) -> bool {
        let reason = self.handle.as_ref().and_then(|handle| handle.kill().reason());
        here && reason == Some(KillReason::GoingAway)
    }

    fn tell(&mut self, step: Step) -> String {
        let id = self.follower.id;
        self.beat_at = Instant::now() + HEARTBEAT;
        match step {
            Step::Text { text, upto } => event(upto, "item", &json!({ "content": text })),
            Step::Complete(ended) => {
                self.end("completed");
                let usage = Usage::of(&ended);
                event(ended.upto + 1, "end", &json!({ "message_id": id, "usage": usage }))
            }
            Step::Failed { failure, upto } => {
                self.end("failed");
                self.problem(upto + 1, &failure.into())
            }
            Step::Gone => {
                self.end("failed");
                let error = ApiError::new(ErrorCode::NotFound, "the answer is not there any more");
                self.problem(self.follower.at() + 1, &error)
            }
        }
    }

    fn killed(&mut self, reason: KillReason) -> Option<String> {
        self.end(reason.code());
        let (code, detail) = match reason {
            // It goes on at another instance, from the last event.
            KillReason::GoingAway => return None,
            KillReason::Revoked | KillReason::Expired => {
                (ErrorCode::InvalidCredential, "the chat session has ended")
            }
            KillReason::Limit | KillReason::Cut => {
                (ErrorCode::Forbidden, "the connection was cut by an operator")
            }
        };
        Some(self.problem(self.follower.at() + 1, &ApiError::new(code, detail)))
    }

    fn end(&mut self, why: &'static str) {
        self.over = true;
        if let Some(handle) = &self.handle {
            handle.ended(why);
        }
    }

    fn problem(&self, id: usize, error: &ApiError) -> String {
        event(id, "error", &error.problem(&self.request_id, &self.path))
    }
}

/// JSON has no line feeds of its own, so it is one line of data.
fn event(id: usize, name: &str, data: &impl Serialize) -> String {
    let data = serde_json::to_string(data).expect("texts and numbers are JSON");
    format!("id: {id}\nevent: {name}\ndata: {data}\n\n")
}
