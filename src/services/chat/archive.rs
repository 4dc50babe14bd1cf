//! Reading, exporting and forgetting conversations.

use serde_json::json;

use super::{ChatError, ChatFilter, ChatService};
use crate::{
    domain::{
        audit::{Action, Actor, Event},
        chat::{ChatMessage, ChatSession, MessageState, Speaker},
        id::ChatSessionId,
        page::{Page, PageRequest},
    },
    repositories::{Repositories as _, StoreError},
};

impl ChatService {
    /// What was said, newest first. Of an answer under way as much as is known.
    pub async fn history(
        &self,
        id: ChatSessionId,
        page: PageRequest,
    ) -> Result<Page<ChatMessage>, ChatError> {
        let mut session = self.db.session().await?;
        session.chat().session(id).await?.ok_or(ChatError::NotFound)?;
        let mut page = session.chat().messages(id, page).await?;
        for message in &mut page.items {
            if message.speaker == Speaker::User
                || !matches!(message.state, MessageState::Streaming { .. })
            {
                continue;
            }
            if let Some(live) = self.desk.find(message.id) {
                message.content = live.look(|state| state.text.clone());
            } else {
                let pieces = session.chat().pieces(message.id, 0).await?;
                message.content = pieces.into_iter().map(|piece| piece.content).collect();
            }
        }
        Ok(page)
    }

    /// Ends a visitor's session everywhere; whether there was one to end.
    pub async fn end_session(&self, by: &Actor, id: ChatSessionId) -> Result<bool, StoreError> {
        let mut tx = self.db.begin().await?;
        let Some(session) = tx.chat().session(id).await? else { return Ok(false) };
        let version = tx.chat().end_session(id, self.clock.now()).await?;
        let Some(version) = version else { return Ok(false) };
        self.audit.commit(tx, by, event(Action::ChatSessionEnded, &session)).await?;
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

    /// Everything that is kept of a conversation, oldest first.
    pub async fn export(
        &self,
        id: ChatSessionId,
    ) -> Result<(ChatSession, Vec<ChatMessage>), ChatError> {
        let session = self.session(id).await?;
        let (mut all, mut page) = (vec![], Some(PageRequest::FIRST));
        while let Some(request) = page {
            let Page { items, next } = self.history(id, request).await?;
            all.extend(items);
            page = request.followed_by(next);
        }
        all.reverse();
        Ok((session, all))
    }

    /// Deletes a conversation with all that was said, and ends its session. Where
    /// it is not the visitor's own wish, it is on record who did it.
    pub async fn delete(&self, id: ChatSessionId, by: Option<&Actor>) -> Result<(), ChatError> {
        let mut tx = self.db.begin().await?;
        let session = tx.chat().session(id).await?.ok_or(ChatError::NotFound)?;
        let version = tx.chat().delete_session(id).await?.ok_or(ChatError::NotFound)?;
        match by {
            Some(by) => self.audit.commit(tx, by, event(Action::ChatDeleted, &session)).await?,
            None => tx.commit().await?,
        }
        self.visitors.forget(&session, version + 1).await;
        Ok(())
    }

    /// Forgets what is past its retention.
    pub async fn prune(&self) -> Result<(), StoreError> {
        const AT_ONCE: u32 = 500;

        let before = self.clock.now() - self.config.retention;
        loop {
            let mut tx = self.db.begin().await?;
            let dropped = tx.chat().prune_sessions(before, AT_ONCE).await?;
            tx.commit().await?;
            if dropped == 0 {
                return Ok(());
            }
        }
    }
}

fn event(action: Action, session: &ChatSession) -> Event {
    let ChatSession { origin, user_id, messages, .. } = session;
    let state = json!({ "origin": origin, "user_id": user_id, "messages": messages });
    Event::new(action, "chat_session", session.id).before(state)
}
