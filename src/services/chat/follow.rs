//! Reading an answer, from any byte of it, while it comes and afterwards.
//!
//! An answer of this instance is read from memory as it comes; any other from
//! the database, which has it half a second later. Positions are bytes of the
//! text, so it does not matter how it was cut before.

use std::{sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use futures_util::future::BoxFuture;
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

use super::{
    ChatError, ChatService, Visit,
    live::{End, State},
};
use crate::{
    domain::{
        chat::{AnswerFailure, ChatMessage, MessageState, Speaker, joined},
        id::ChatMessageId,
    },
    repositories::{Repositories as _, StoreError},
};

/// How soon the database is asked again, and how late at most where nothing
/// comes.
const POLL: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(2));
/// How often a database that is away is asked in a row.
const FAILURES: u32 = 10;

/// What comes next of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// More of the text, and the byte that it goes up to.
    Text {
        text: String,
        upto: usize,
    },
    Complete(Ended),
    Failed {
        failure: AnswerFailure,
        upto: usize,
    },
    /// The conversation was deleted, or cannot be read now.
    Gone,
}

/// What there is to say of an answer that is complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Bytes of its text.
    pub upto: usize,
    pub begun: DateTime<Utc>,
    pub at: DateTime<Utc>,
}

/// Reads one answer.
pub struct Follower {
    service: Arc<ChatService>,
    pub id: ChatMessageId,
    /// Up to where it was read.
    at: usize,
    source: Source,
    over: bool,
}

enum Source {
    Here { begun: DateTime<Utc>, state: watch::Receiver<State> },
    Stored(Stored),
}

/// What the database has of an answer of another instance.
struct Stored {
    due: Instant,
    pause: Duration,
    failures: u32,
    /// Under way. Kept here, so that whoever looks up meanwhile does not begin it
    /// anew each time.
    reading: Option<BoxFuture<'static, Result<Option<Step>, StoreError>>>,
}

impl ChatService {
    /// An answer in this conversation, from the byte `at` on; `None` where its end
    /// was seen.
    pub async fn follow(
        self: &Arc<Self>,
        visit: &Visit,
        id: ChatMessageId,
        at: usize,
    ) -> Result<Option<Follower>, ChatError> {
        let message = self.db.session().await?.chat().message(id).await?;
        let ours = |message: &ChatMessage| {
            message.session_id == visit.id && message.speaker == Speaker::Assistant
        };
        let message = message.filter(ours).ok_or(ChatError::NotFound)?;
        let seen = !message.state.is_open() && at > message.content.len();
        Ok((!seen).then(|| Follower::new(self, id, at)))
    }
}

impl Follower {
    pub(super) fn new(service: &Arc<ChatService>, id: ChatMessageId, at: usize) -> Self {
        let source = if let Some(live) = service.desk.find(id) {
            Source::Here { begun: live.begun, state: live.follow() }
        } else {
            let due = Instant::now();
            Source::Stored(Stored { due, pause: POLL.0, failures: 0, reading: None })
        };
        Self { service: Arc::clone(service), id, at, source, over: false }
    }

    /// Up to which byte it was read.
    pub fn at(&self) -> usize {
        self.at
    }

    /// Whether it ends by itself when this instance stops.
    pub fn is_here(&self) -> bool {
        matches!(self.source, Source::Here { .. })
    }

    /// Waits for what comes; `None` after the end. Dropping the future loses
    /// nothing.
    pub async fn next(&mut self) -> Option<Step> {
        if self.over {
            return None;
        }
        let step = match &mut self.source {
            Source::Here { begun, state } => here(*begun, state, self.at).await,
            Source::Stored(stored) => stored.next(&self.service, self.id, self.at).await,
        };
        match &step {
            Step::Text { upto, .. } => self.at = *upto,
            Step::Complete(_) | Step::Failed { .. } | Step::Gone => self.over = true,
        }
        Some(step)
    }
}

impl Stored {
    async fn next(&mut self, service: &Arc<ChatService>, id: ChatMessageId, at: usize) -> Step {
        loop {
            if self.reading.is_none() {
                // At an instant, since whoever waits may look up meanwhile.
                sleep_until(self.due).await;
            }
            let reading = self.reading.get_or_insert_with(|| {
                let service = Arc::clone(service);
                Box::pin(async move { read(&service, id, at).await })
            });
            let read = reading.await;
            self.reading = None;
            self.due = Instant::now() + self.pause;
            self.pause = (self.pause * 5 / 4).min(POLL.1);
            match read {
                Ok(Some(step)) => {
                    (self.pause, self.failures) = (POLL.0, 0);
                    return step;
                }
                Ok(None) => self.failures = 0,
                Err(error) if self.failures < FAILURES => {
                    self.failures += 1;
                    let error = &error as &dyn std::error::Error;
                    tracing::debug!(error, "a chat answer cannot be read now");
                }
                Err(_) => return Step::Gone,
            }
        }
    }
}

async fn here(begun: DateTime<Utc>, state: &mut watch::Receiver<State>, at: usize) -> Step {
    loop {
        {
            let state = state.borrow_and_update();
            if let Some(step) = rest(&state.text, at) {
                return step;
            }
            if let Some(end) = state.ended {
                return ended(end, begun, state.text.len());
            }
        }
        if state.changed().await.is_err() {
            return Step::Gone;
        }
    }
}

fn ended(End { failure, at }: End, begun: DateTime<Utc>, upto: usize) -> Step {
    match failure {
        None => Step::Complete(Ended { upto, begun, at }),
        Some(failure) => Step::Failed { failure, upto },
    }
}

/// What a text has behind `at`; from the beginning of the character where that
/// lies within one.
fn rest(text: &str, at: usize) -> Option<Step> {
    if at >= text.len() {
        return None;
    }
    let rest = &text[text.floor_char_boundary(at)..];
    Some(Step::Text { text: rest.to_owned(), upto: text.len() })
}

/// `None`: nothing has come since.
async fn read(
    service: &ChatService,
    id: ChatMessageId,
    at: usize,
) -> Result<Option<Step>, StoreError> {
    let mut session = service.db.session().await?;
    let Some(message) = session.chat().message(id).await? else { return Ok(Some(Step::Gone)) };
    if let MessageState::Streaming { lease_until, .. } = message.state {
        let behind = i64::try_from(at).unwrap_or(i64::MAX);
        let pieces = session.chat().pieces(id, behind).await?;
        drop(session);
        if pieces.is_empty() {
            if lease_until <= service.clock.now() {
                service.end_abandoned_one(id).await?;
            }
            return Ok(None);
        }
        let (text, upto) = joined(&pieces, at);
        return Ok(Some(Step::Text { text, upto }));
    }
    if let Some(step) = rest(&message.content, at) {
        return Ok(Some(step));
    }
    let failure = match message.state {
        MessageState::Failed(failure) => Some(failure),
        MessageState::Streaming { .. } | MessageState::Complete => None,
    };
    let end = End { failure, at: message.finished_at.unwrap_or(message.created_at) };
    Ok(Some(ended(end, message.created_at, message.content.len())))
}
