//! Reading an answer, from any byte of it, while it comes and afterwards.
//!
//! An answer of this instance is read from memory as it comes; any other from
//! the database, which has it half a second later. Positions are bytes of the
//! text, so it does not matter how it was cut before.

use std::{sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
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
        chat::{AnswerFailure, ChatMessage, MessageState, Speaker},
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
    Stored { due: Instant, pause: Duration, failures: u32 },
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
        let source = match service.desk.find(id) {
            Some(live) => Source::Here { begun: live.begun, state: live.follow() },
            None => Source::Stored { due: Instant::now(), pause: POLL.0, failures: 0 },
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
            Source::Stored { .. } => self.stored().await,
        };
        match &step {
            Step::Text { upto, .. } => self.at = *upto,
            Step::Complete(_) | Step::Failed { .. } | Step::Gone => self.over = true,
        }
        Some(step)
    }

    async fn stored(&mut self) -> Step {
        loop {
            let Source::Stored { due, pause, failures } = &mut self.source else {
                return Step::Gone;
            };
            // At an instant, since whoever waits may look up meanwhile.
            sleep_until(*due).await;
            let read = Box::pin(read(&self.service, self.id, self.at)).await;
            *due = Instant::now() + *pause;
            *pause = (*pause * 5 / 4).min(POLL.1);
            match read {
                Ok(Some(step)) => {
                    (*pause, *failures) = (POLL.0, 0);
                    return step;
                }
                Ok(None) => *failures = 0,
                Err(error) if *failures < FAILURES => {
                    *failures += 1;
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
        let Some((first, last)) = pieces.first().zip(pieces.last()) else {
            if lease_until <= service.clock.now() {
                service.end_abandoned_one(id).await?;
            }
            return Ok(None);
        };
        let upto = usize::try_from(last.number).unwrap_or(usize::MAX);
        let from = usize::try_from(first.number).unwrap_or(usize::MAX) - first.content.len();
        let text: String = pieces.into_iter().map(|piece| piece.content).collect();
        let text = &text[text.floor_char_boundary(at.saturating_sub(from))..];
        return Ok(Some(Step::Text { text: text.to_owned(), upto }));
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
