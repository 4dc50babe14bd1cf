//! Reading, exporting and forgetting conversations. Whatever is long is read and
//! deleted a part at a time.

use std::{collections::VecDeque, sync::Arc};

use chrono::{DateTime, Utc};
use metrics::counter;
use serde_json::json;

use super::{ChatError, ChatFilter, ChatService, visitors::SESSIONS};
use crate::{
    domain::{
        audit::{Action, Actor, Event},
        chat::{ChatMessage, ChatSession, Speaker, joined},
        id::{ChatSessionId, UserId},
        page::{Cursor, Page, PageRequest},
    },
    repositories::{Repositories as _, Session, StoreError},
};

/// Messages that are read at once of what is taken away.
const READ_AT_ONCE: u32 = 16;
/// Of text that is read at once; a single message may have more.
pub const PAGE_BYTES: usize = 4 * 1024 * 1024;
/// Messages that go in one transaction.
const MESSAGES_AT_ONCE: u32 = 500;
/// Sessions without messages that do.
const SESSIONS_AT_ONCE: u32 = 500;

/// Conversations to take away, part by part, on a connection for each: whoever
/// reads slowly holds some messages in memory and nothing of the database.
pub struct Takeout {
    service: Arc<ChatService>,
    sessions: VecDeque<ChatSession>,
    /// More of them.
    of: Option<(UserId, PageRequest)>,
    /// What is being read, and up to which position it was.
    current: Option<(ChatSessionId, i64)>,
}

/// What is taken away next.
#[derive(Debug)]
pub enum Part {
    Begin(Box<ChatSession>),
    /// Oldest first.
    Messages(Vec<ChatMessage>),
    End,
}

impl ChatService {
    /// What was said, newest first: of long messages fewer on a page. Of an answer
    /// under way as much as is known.
    pub async fn history(
        &self,
        id: ChatSessionId,
        page: PageRequest,
    ) -> Result<Page<ChatMessage>, ChatError> {
        let mut session = self.db.session().await?;
        session.chat().session(id).await?.ok_or(ChatError::NotFound)?;
        let mut page = session.chat().messages(id, page, PAGE_BYTES).await?;
        if self.complete(&mut session, &mut page.items).await? {
            page.next = page.items.last().map(|last| Cursor(last.id.as_uuid()));
        }
        Ok(page)
    }

    /// Adds to answers under way what has come of them, which the database did not
    /// count. Whether that was too much, and the last of the messages went for it.
    async fn complete(
        &self,
        session: &mut Session,
        messages: &mut Vec<ChatMessage>,
    ) -> Result<bool, StoreError> {
        let mut bytes = 0;
        for at in 0..messages.len() {
            let message = &mut messages[at];
            if message.speaker == Speaker::Assistant && message.state.is_open() {
                if let Some(live) = self.desk.find(message.id) {
                    message.content = live.look(|state| state.text.clone());
                } else {
                    let pieces = session.chat().pieces(message.id, 0).await?;
                    message.content = joined(&pieces, 0).0;
                }
            }
            bytes += message.content.len();
            if at > 0 && bytes > PAGE_BYTES {
                messages.truncate(at);
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Ends a visitor's session everywhere; whether there was one to end.
    pub async fn end_session(&self, by: &Actor, id: ChatSessionId) -> Result<bool, StoreError> {
        let mut tx = self.db.begin().await?;
        let Some(session) = tx.chat().session(id).await? else { return Ok(false) };
        let version = tx.chat().end_session(id, self.clock.now()).await?;
        let Some(version) = version else { return Ok(false) };
        self.audit.commit(tx, by, event(Action::ChatSessionEnded, &session)).await?;
        counter!(SESSIONS, "event" => "ended").increment(1);
        self.visitors.forget(&session, version).await;
        Ok(true)
    }

    pub async fn session(&self, id: ChatSessionId) -> Result<ChatSession, ChatError> {
        self.db.session().await?.chat().session(id).await?.ok_or(ChatError::NotFound)
    }

    /// Newest first.
    pub async fn sessions(
        &self,
        filter: &ChatFilter,
        page: PageRequest,
    ) -> Result<Page<ChatSession>, StoreError> {
        self.db.session().await?.chat().sessions(filter, page).await
    }

    /// Everything that is kept of a conversation. Where somebody else than its
    /// visitor takes it, that is on record before.
    pub async fn export(
        self: &Arc<Self>,
        id: ChatSessionId,
        by: Option<&Actor>,
    ) -> Result<Takeout, ChatError> {
        let session = self.session(id).await?;
        if let Some(by) = by {
            self.audit.note(by, event(Action::ChatExported, &session)).await?;
        }
        let sessions = VecDeque::from([session]);
        Ok(Takeout { service: Arc::clone(self), sessions, of: None, current: None })
    }

    /// Everything that is kept of the conversations of an account, the newest
    /// first.
    pub fn export_of(self: &Arc<Self>, user: UserId) -> Takeout {
        let of = Some((user, PageRequest::FIRST));
        Takeout { service: Arc::clone(self), sessions: VecDeque::new(), of, current: None }
    }

    /// Deletes a conversation with all that was said, and ends its session. Where
    /// it is not the visitor's own wish, it is on record who did it.
    pub async fn delete(&self, id: ChatSessionId, by: Option<&Actor>) -> Result<(), ChatError> {
        let mut tx = self.db.begin().await?;
        let session = tx.chat().session(id).await?.ok_or(ChatError::NotFound)?;
        let version = tx.chat().condemn_session(id, self.clock.now()).await?;
        let version = version.ok_or(ChatError::NotFound)?;
        match by {
            Some(by) => self.audit.commit(tx, by, event(Action::ChatDeleted, &session)).await?,
            None => tx.commit().await?,
        }
        counter!(SESSIONS, "event" => "deleted").increment(1);
        self.visitors.forget(&session, version).await;
        self.bury().await;
        Ok(())
    }

    /// Deletes what is condemned. It cannot be seen any more: where that fails,
    /// [`Self::prune`] does it.
    pub async fn bury(&self) {
        if let Err(error) = self.drop_until(ChatSession::CONDEMNED).await {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, "a conversation is not deleted yet; tried again later");
        }
    }

    /// Forgets what is past its retention.
    pub async fn prune(&self) -> Result<(), StoreError> {
        self.drop_until(self.clock.now() - self.config.retention).await
    }

    async fn drop_until(&self, before: DateTime<Utc>) -> Result<(), StoreError> {
        loop {
            let mut tx = self.db.begin().await?;
            let messages = tx.chat().prune_messages(before, MESSAGES_AT_ONCE).await?;
            let sessions = match messages {
                0 => tx.chat().prune_sessions(before, SESSIONS_AT_ONCE).await?,
                _ => 0,
            };
            tx.commit().await?;
            if messages + sessions == 0 {
                return Ok(());
            }
        }
    }
}

impl Takeout {
    /// `None` after the last.
    ///
    /// # Errors
    /// Also where a conversation was deleted before all of it was read: what ends
    /// well is whole.
    pub async fn next(&mut self) -> Result<Option<Part>, ChatError> {
        let mut session = self.service.db.session().await?;
        if let Some((id, position)) = self.current {
            let mut chat = session.chat();
            let mut messages = chat.messages_behind(id, position, READ_AT_ONCE, PAGE_BYTES).await?;
            self.service.complete(&mut session, &mut messages).await?;
            let Some(last) = messages.last() else {
                session.chat().session(id).await?.ok_or(ChatError::NotFound)?;
                self.current = None;
                return Ok(Some(Part::End));
            };
            self.current = Some((id, last.position));
            return Ok(Some(Part::Messages(messages)));
        }
        if self.sessions.is_empty()
            && let Some((user, page)) = self.of
        {
            let filter = ChatFilter { user_id: Some(user), ..ChatFilter::default() };
            let Page { items, next } = session.chat().sessions(&filter, page).await?;
            self.sessions = items.into();
            self.of = page.followed_by(next).map(|page| (user, page));
        }
        let Some(next) = self.sessions.pop_front() else { return Ok(None) };
        self.current = Some((next.id, 0));
        Ok(Some(Part::Begin(Box::new(next))))
    }
}

fn event(action: Action, session: &ChatSession) -> Event {
    let ChatSession { origin, user_id, messages, .. } = session;
    let state = json!({ "origin": origin, "user_id": user_id, "messages": messages });
    Event::new(action, "chat_session", session.id).before(state)
}
