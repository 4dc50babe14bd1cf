//! Storage of tickets. Taking one is deleting it.

use chrono::{DateTime, Utc};

use super::{DbConn, StoreError, StoreResult, connection::on_conn, row::token_hash};
use crate::domain::{id::UserId, principal::Proof, ticket::StreamTicket, token::TokenHash};

pub struct StreamTickets<'c> {
    conn: DbConn<'c>,
}

#[derive(sqlx::FromRow)]
struct StreamTicketRow {
    hash: Vec<u8>,
    user_id: UserId,
    credential_kind: String,
    credential: Vec<u8>,
    path: String,
    expires_at: DateTime<Utc>,
}

impl TryFrom<StreamTicketRow> for StreamTicket {
    type Error = StoreError;

    fn try_from(row: StreamTicketRow) -> StoreResult<Self> {
        let StreamTicketRow { hash, user_id, credential_kind, credential, path, expires_at } = row;
        let proof = match credential_kind.as_str() {
            "login" => {
                let id = uuid::Uuid::from_slice(&credential);
                let id = id.map_err(|error| StoreError::corrupt("credential", error))?;
                // What the ticket opens may last as long as the login does.
                let until = DateTime::<Utc>::MAX_UTC;
                Proof::Login { session: id.into(), user: user_id, until }
            }
            "key" => Proof::ApiKey(token_hash(&credential)?),
            "pass" => Proof::Pass(token_hash(&credential)?),
            _ => return Err(StoreError::corrupt("credential_kind", "none of ours")),
        };
        Ok(Self { hash: token_hash(&hash)?, user_id, proof, path, expires_at })
    }
}

/// A credential as it is stored.
fn stored(proof: &Proof) -> (&'static str, Vec<u8>) {
    match proof {
        Proof::Login { session, .. } => ("login", session.as_uuid().as_bytes().to_vec()),
        Proof::ApiKey(hash) => ("key", hash.as_bytes().to_vec()),
        Proof::Pass(hash) => ("pass", hash.as_bytes().to_vec()),
    }
}

impl<'c> StreamTickets<'c> {
    pub(super) fn new(conn: DbConn<'c>) -> Self {
        Self { conn }
    }

    /// `false` when its user is not there any more.
    pub async fn insert(&mut self, ticket: &StreamTicket) -> StoreResult<bool> {
        const SQL: &str = "
            INSERT INTO stream_tickets
                (hash, user_id, credential_kind, credential, path, expires_at)
            SELECT $1, id, $3, $4, $5, $6 FROM users WHERE id = $2";

        let (kind, credential) = stored(&ticket.proof);
        on_conn!(self.conn, |conn| sqlx::query(SQL)
            .bind(ticket.hash.as_bytes())
            .bind(ticket.user_id)
            .bind(kind)
            .bind(&credential)
            .bind(&ticket.path)
            .bind(ticket.expires_at)
            .execute(conn)
            .await
            .map(|done| done.rows_affected() == 1))
    }

    /// When the unused tickets of a credential end, the next one first; `most`
    /// of them at most.
    pub async fn open(
        &mut self,
        proof: &Proof,
        now: DateTime<Utc>,
        most: u32,
    ) -> StoreResult<Vec<DateTime<Utc>>> {
        const SQL: &str = "
            SELECT expires_at FROM stream_tickets
            WHERE credential = $1 AND expires_at > $2
            ORDER BY expires_at LIMIT $3";

        let (_, credential) = stored(proof);
        on_conn!(self.conn, |conn| sqlx::query_scalar(SQL)
            .bind(&credential)
            .bind(now)
            .bind(i64::from(most))
            .fetch_all(conn)
            .await)
    }

    /// Takes a ticket, in whatever state; of callers that race, one gets it.
    pub async fn take(&mut self, hash: &TokenHash) -> StoreResult<Option<StreamTicket>> {
        const SQL: &str = "
            DELETE FROM stream_tickets WHERE hash = $1
            RETURNING hash, user_id, credential_kind, credential, path, expires_at";

        let row: Option<StreamTicketRow> = on_conn!(self.conn, |conn| sqlx::query_as(SQL)
            .bind(hash.as_bytes())
            .fetch_optional(conn)
            .await)?;
        row.map(StreamTicket::try_from).transpose()
    }

    /// Forgets up to `most` tickets that ended by `now`; how many.
    pub async fn prune(&mut self, now: DateTime<Utc>, most: u32) -> StoreResult<u64> {
        const SQL: &str = "
            DELETE FROM stream_tickets WHERE hash IN (
                SELECT hash FROM stream_tickets WHERE expires_at <= $1
                ORDER BY expires_at LIMIT $2)";

        on_conn!(self.conn, |conn| sqlx::query(SQL)
            .bind(now)
            .bind(i64::from(most))
            .execute(conn)
            .await
            .map(|done| done.rows_affected()))
    }
}
