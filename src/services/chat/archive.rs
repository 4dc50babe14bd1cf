//! Reading, exporting and forgetting conversations.

use super::{ChatError, ChatFilter, ChatService};
use crate::{
    domain::{
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

    /// Ends a session everywhere; whether there was one to end.
    pub async fn end_session(&self, id: ChatSessionId) -> Result<bool, StoreError> {
        self.visitors.end(id).await
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

    /// Deletes a conversation with all that was said, and ends its session.
    pub async fn delete(&self, id: ChatSessionId) -> Result<(), ChatError> {
        let mut tx = self.db.begin().await?;
        let session = tx.chat().session(id).await?.ok_or(ChatError::NotFound)?;
        let version = tx.chat().delete_session(id).await?.ok_or(ChatError::NotFound)?;
        tx.commit().await?;
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
