//! A question, and the answer to it.
//!
//! Question and answer are entered in one transaction, and whoever commits it
//! asks the workflow: of those who send the same message at once, also to several
//! instances, that is one. From there on the answer is a task of its own, which
//! does not care who listens.

use std::{
    net::IpAddr,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use futures_util::StreamExt as _;
use metrics::counter;
use tokio::{
    sync::OwnedSemaphorePermit,
    time::{Instant, sleep, timeout},
};

use super::{
    Answer, Call, ChatError, ChatService, Follower, Visit, Webhook, WebhookError,
    live::{End, Live},
    webhook::Asked,
};
use crate::{
    domain::{
        answer::{Bounds, Reader, Said, Unreadable},
        chat::{AnswerFailure, ChatMessage, LEASE, MessageState, Speaker, message_text},
        clock::SharedClock,
        id::{ChatMessageId, LogPlace, RecordId, UserId},
        limit::TierState,
        route,
        usage::{Outcome, UsageRecord},
    },
    repositories::{Opened, Repositories as _, StoreError},
    services::usage::Slot,
    telemetry::trace::inherited,
};

/// On the wire an answer is larger than its text: fields' names, escapes.
const WIRE: usize = 4;
/// Messages of visitors: asked for, or sent again.
const MESSAGES: &str = "tollgate_chat_messages_total";
/// How long whoever says something waits until it is clear whether it was said.
const PATIENCE: Duration = Duration::from_secs(10);
/// How soon the database is asked again.
const ASK_AGAIN: Duration = Duration::from_millis(250);

/// What a visitor says.
#[derive(Clone, Debug)]
pub struct Say {
    pub text: String,
    pub page_url: Option<String>,
    /// What the page calls it, so that it may be sent again.
    pub client_id: Option<String>,
    /// Whence it comes, where nobody has counted that yet.
    pub address: Option<IpAddr>,
    /// Names the request in the record.
    pub request_id: String,
}

/// Records an answer, and gives its place back, however its task ends.
struct Account {
    live: Arc<Live>,
    clock: SharedClock,
    slot: Option<Slot>,
    record: UsageRecord,
    started: Instant,
    /// How the answer ended; as failed until it is known.
    end: Option<AnswerFailure>,
    wake: Arc<ChatService>,
    _place: OwnedSemaphorePermit,
}

impl Drop for Account {
    fn drop(&mut self) {
        self.live.end(End { failure: self.end, at: self.clock.now() });
        self.wake.desk.ended.notify_one();
        let Some(slot) = self.slot.take() else { return };
        let mut record = self.record.clone();
        record.bytes_out = self.live.look(|state| state.text.len() as u64);
        record.duration_us = u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX);
        (record.status, record.outcome) = match self.end {
            None => (200, Outcome::Completed),
            Some(AnswerFailure::Failed) => (502, Outcome::Failed),
            Some(AnswerFailure::TimedOut) => (504, Outcome::Failed),
            Some(AnswerFailure::Unavailable) => (503, Outcome::Failed),
            Some(AnswerFailure::Interrupted) => (503, Outcome::Cut),
        };
        let how = self.end.map_or("complete", AnswerFailure::as_str);
        counter!("tollgate_chat_answers_total", "end" => how).increment(1);
        slot.record(record, 0);
    }
}

impl ChatService {
    /// Takes a message and sees to its answer; what comes can be followed. A
    /// message that was sent before is not sent again: its answer is followed.
    pub async fn say(
        self: &Arc<Self>,
        visit: &Visit,
        say: Say,
    ) -> Result<(Follower, Option<TierState>), ChatError> {
        let webhook = self.webhook.clone().ok_or(ChatError::Off)?;
        let text = message_text(&say.text, self.config.message_max_chars)?;
        let limit = self.limits.admit_chat(visit.id, &visit.origin, say.address).await?;
        let say = Say { text, ..say };
        // To the end, whoever leaves: what is committed must be asked for.
        let (this, visit) = (Arc::clone(self), visit.clone());
        let opening = async move { this.open_answer(webhook, &visit, say).await };
        let opening = tokio::spawn(inherited(opening));
        let opened = timeout(PATIENCE, opening).await.map_err(|_| StoreError::timed_out())?;
        let follower = opened.map_err(|_| ChatError::Overloaded)??;
        Ok((follower, limit))
    }

    async fn open_answer(
        self: Arc<Self>,
        webhook: Arc<dyn Webhook>,
        visit: &Visit,
        say: Say,
    ) -> Result<Follower, ChatError> {
        let now = self.clock.now();
        let (question, answer) = self.messages(visit, &say);
        let leaving = self.leaving.load(Relaxed);
        let place = Arc::clone(&self.places).try_acquire_owned();
        let slot = self.slot()?;
        let mut tx = self.db.begin().await?;
        let most = self.config.max_messages;
        let opened = tx.chat().open_exchange(&question, &answer, most, now).await?;
        let (question, answer) = match opened {
            Opened::NoSession => return Err(ChatError::InvalidSession),
            Opened::Full => return Err(ChatError::Full),
            Opened::Before { question, answer } => {
                drop(tx);
                if question.content != say.text {
                    return Err(ChatError::OtherText);
                }
                counter!(MESSAGES, "result" => "again").increment(1);
                return Ok(Follower::new(&self, answer.id, 0));
            }
            // Only now: an answer that is there can be followed in any case.
            Opened::New { .. } if leaving => return Err(ChatError::Stopping),
            Opened::New { question, answer } => (question, answer),
        };
        let place = place.map_err(|_| ChatError::Overloaded)?;
        if let Err(error) = tx.commit().await
            && !Box::pin(self.is_stored(&answer)).await
        {
            return Err(error.into());
        }
        counter!(MESSAGES, "result" => "asked").increment(1);
        // Behind the commit: the scribe takes what has no row for lost.
        let live = Live::new(answer.id, answer.created_at);
        self.desk.add(&live);
        let account = Account {
            live: Arc::clone(&live),
            clock: self.clock.clone(),
            slot: Some(slot),
            record: record(&question, &say, visit.user_id, &answer),
            started: Instant::now(),
            end: Some(AnswerFailure::Failed),
            wake: Arc::clone(&self),
            _place: place,
        };
        let asked = Asked {
            session: visit.id,
            message: answer.id,
            text: &question.content,
            page_url: question.page_url.as_deref(),
            origin_domain: &visit.origin_domain,
        };
        let call = self.signer.call(&asked, now);
        let follower = Follower::new(&self, answer.id, 0);
        self.tasks.spawn(inherited(Arc::clone(&self).see_to(webhook, call, account)));
        Ok(follower)
    }

    /// Whether an answer is there, and ours to see to, whose commit failed: perhaps
    /// only the word of it was lost. Nobody else asks for it, so this is looked
    /// into for as long as it is ours for certain.
    async fn is_stored(&self, answer: &ChatMessage) -> bool {
        let over = Instant::now() + LEASE.to_std().unwrap_or_default() / 2;
        while Instant::now() < over {
            match self.look_for(answer).await {
                Ok(found) => return found,
                Err(error) => tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "whether a chat message is stored is not known yet"
                ),
            }
            sleep(ASK_AGAIN).await;
        }
        false
    }

    async fn look_for(&self, answer: &ChatMessage) -> Result<bool, StoreError> {
        let mut tx = self.db.begin().await?;
        // Behind the transaction before, should that not be over yet.
        tx.chat().hold_session(answer.session_id).await?;
        let found = tx.chat().message(answer.id).await?;
        let writer = found.and_then(|found| match found.state {
            MessageState::Streaming { writer, .. } => Some(writer),
            MessageState::Complete | MessageState::Failed(_) => None,
        });
        Ok(writer == Some(self.writer))
    }

    fn messages(&self, visit: &Visit, say: &Say) -> (ChatMessage, ChatMessage) {
        let now = self.clock.now();
        let message = |speaker, state| ChatMessage {
            id: ChatMessageId::new(now),
            session_id: visit.id,
            position: 0,
            speaker,
            state,
            client_id: None,
            content: String::new(),
            page_url: None,
            created_at: now,
            finished_at: None,
        };
        let question = ChatMessage {
            client_id: say.client_id.clone(),
            content: say.text.clone(),
            page_url: say.page_url.clone(),
            finished_at: Some(now),
            ..message(Speaker::User, MessageState::Complete)
        };
        let held = MessageState::Streaming { writer: self.writer, lease_until: now + LEASE };
        (question, message(Speaker::Assistant, held))
    }

    async fn see_to(self: Arc<Self>, webhook: Arc<dyn Webhook>, call: Call, mut account: Account) {
        let live = Arc::clone(&account.live);
        let limit = self.config.webhook.as_ref().map_or(LEASE.to_std(), |w| Ok(w.timeout));
        let limit = limit.unwrap_or_default();
        let asking = timeout(limit, Box::pin(self.ask(&*webhook, call, &live)));
        let end = tokio::select! {
            biased;
            () = self.cut.cancelled() => Some(AnswerFailure::Interrupted),
            asked = asking => match asked {
                Ok(Ok(())) => None,
                Ok(Err(failure)) => Some(failure),
                Err(_) => Some(AnswerFailure::TimedOut),
            },
        };
        account.end = end;
    }

    async fn ask(
        &self,
        webhook: &dyn Webhook,
        call: Call,
        live: &Live,
    ) -> Result<(), AnswerFailure> {
        let id = call.message_id;
        let Answer { content_type, mut body } = webhook.call(call).await?;
        let most = self.config.answer_max_bytes;
        let bounds = Bounds { bytes: most.saturating_mul(WIRE), depth: Bounds::DEPTH };
        let mut reader = Reader::new(content_type.as_deref(), bounds);
        let (mut said, mut failed) = (0, false);
        let mut hear = |one: Said| match one {
            Said::Text(text) => {
                said += text.len();
                if said <= most {
                    live.say(&text);
                }
            }
            Said::Failed => failed = true,
        };
        let unreadable = |error: Unreadable| {
            tracing::warn!(chat.message = %id, %error, "the workflow's answer is not understood");
            AnswerFailure::Failed
        };
        while let Some(bytes) = body.next().await {
            let bytes: Result<_, WebhookError> = bytes;
            reader.push(&bytes?, &mut hear).map_err(unreadable)?;
            if live.look(|state| state.ended.is_some()) {
                return Err(AnswerFailure::Interrupted);
            }
        }
        reader.finish(&mut hear).map_err(unreadable)?;
        if said > most {
            return Err(unreadable(Unreadable::TooLarge));
        }
        if failed {
            tracing::warn!(chat.message = %id, "the workflow says that it failed");
            return Err(AnswerFailure::Failed);
        }
        Ok(())
    }
}

/// What is recorded of an answer, before it is there.
fn record(
    question: &ChatMessage,
    say: &Say,
    user_id: Option<UserId>,
    answer: &ChatMessage,
) -> UsageRecord {
    UsageRecord {
        id: RecordId::from(answer.id.as_uuid()),
        request_id: say.request_id.clone(),
        at: answer.created_at,
        method: "POST".into(),
        path: "/api/v1/chat/message".to_owned(),
        status: 502,
        outcome: Outcome::Failed,
        duration_us: 0,
        bytes_in: question.content.len() as u64,
        bytes_out: 0,
        user_id,
        key_id: None,
        pass_id: None,
        upstream: "chat".into(),
        route: route::OTHER.into(),
        is_stream: true,
        messages: 1,
        place: LogPlace::NIL,
    }
}
