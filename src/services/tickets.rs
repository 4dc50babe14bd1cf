//! Tickets for sockets: issued to whoever has a credential, used once.
//!
//! A browser's script can send no header field with a WebSocket, and what stands
//! in a URL ends up in logs. A ticket may stand there: it is good for one use,
//! for half a minute and for one path, and stands for the credential it was asked
//! for with, no more: that is proven again when the ticket is used.

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};

use super::{AccessService, access::AccessError};
use crate::{
    domain::{
        clock::SharedClock,
        principal::Principal,
        ticket::{MAX_OPEN, StreamTicket, TICKET_LIFE},
        token::{PlainToken, TokenHash},
    },
    repositories::{Database, Repositories as _, StoreError},
};

/// A ticket together with the one chance to read its text.
#[derive(Debug)]
pub struct IssuedTicket {
    pub token: PlainToken,
    pub expires_at: DateTime<Utc>,
}

#[derive(Debug, thiserror::Error)]
pub enum TicketError {
    /// The account was deleted meanwhile.
    #[error("the credential is unknown, expired or revoked")]
    NoUser,
    #[error("too many tickets are unused")]
    TooMany { retry_after: TimeDelta },
    #[error(transparent)]
    Store(#[from] StoreError),
}

pub struct TicketService {
    db: Database,
    clock: SharedClock,
    access: Arc<AccessService>,
}

impl TicketService {
    pub fn new(db: Database, clock: SharedClock, access: Arc<AccessService>) -> Self {
        Self { db, clock, access }
    }

    /// A ticket for `principal` that opens the canonical path.
    ///
    /// The bound on unused tickets is against piling up: callers that race may
    /// pass it by as many as they are.
    pub async fn issue(
        &self,
        principal: &Principal,
        path: String,
    ) -> Result<IssuedTicket, TicketError> {
        let now = self.clock.now();
        let token = PlainToken::ticket(&mut rand::rng());
        let expires_at = now + TICKET_LIFE;
        let (hash, user_id) = (token.hash(), principal.user_id());
        let proof = principal.proof;
        let ticket = StreamTicket { hash, user_id, proof, path, expires_at };

        let mut tx = self.db.begin().await?;
        let open = tx.stream_tickets().open(&proof, now, MAX_OPEN).await?;
        if let (Some(first), true) = (open.first(), open.len() >= MAX_OPEN as usize) {
            return Err(TicketError::TooMany { retry_after: *first - now });
        }
        if !tx.stream_tickets().insert(&ticket).await? {
            return Err(TicketError::NoUser);
        }
        tx.commit().await?;
        Ok(IssuedTicket { token, expires_at })
    }

    /// Uses a ticket for the canonical path; who it stands for. Presented at the wrong path it is used up, too: it
    /// was not its owner who did that.
    pub async fn redeem(&self, text: &str, path: &str) -> Result<Principal, AccessError> {
        let hash = TokenHash::of_ticket(text).ok_or(AccessError::Invalid)?;
        let mut tx = self.db.begin().await?;
        let taken = tx.stream_tickets().take(&hash).await?;
        tx.commit().await?;
        let now = self.clock.now();
        let ticket = taken.filter(|ticket| ticket.opens(path, now)).ok_or(AccessError::Invalid)?;
        let principal = self.access.prove_again(&ticket.proof).await?.principal;
        if principal.user_id() != ticket.user_id {
            return Err(AccessError::Invalid);
        }
        Ok(principal)
    }

    /// Forgets what was not used in time.
    pub async fn prune(&self) -> Result<(), StoreError> {
        const AT_ONCE: u32 = 5000;

        loop {
            let mut tx = self.db.begin().await?;
            let dropped = tx.stream_tickets().prune(self.clock.now(), AT_ONCE).await?;
            tx.commit().await?;
            if dropped == 0 {
                return Ok(());
            }
        }
    }
}
