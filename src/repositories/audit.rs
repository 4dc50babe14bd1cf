//! Storage of the audit log and of the two ends of its chain.

use chrono::{DateTime, Utc};
use sqlx::QueryBuilder;
use uuid::Uuid;

use super::{
    DbConn, StoreError, StoreResult,
    connection::{LONG_DEADLINE, on_conn},
    row,
};
use crate::domain::{
    audit::{AuditRow, Hash},
    page::{Page, PageRequest},
};

pub struct Audit<'c> {
    conn: DbConn<'c>,
}

/// What rows can be listed by.
#[derive(Clone, Debug, Default)]
pub struct AuditFilter {
    /// The id of an account, or a name as it was.
    pub actor: Option<String>,
    /// A whole name, or what stands before its dot.
    pub action: Option<String>,
    /// The id of what something was done to.
    pub target: Option<String>,
    /// From this instant on.
    pub from: Option<DateTime<Utc>>,
    /// Before this instant.
    pub to: Option<DateTime<Utc>>,
}

/// One end of the chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    /// 0: nothing was appended, or dropped.
    pub seq: i64,
    pub hash: Hash,
    /// The key that made `seal`.
    pub key: String,
    pub seal: Vec<u8>,
}

/// Both ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ends {
    /// The last row.
    pub head: End,
    /// The last row that was dropped.
    pub dropped: End,
}

#[derive(sqlx::FromRow)]
struct EndsRow {
    seq: i64,
    hash: Vec<u8>,
    key_id: String,
    seal: Vec<u8>,
    dropped_seq: i64,
    dropped_hash: Vec<u8>,
    dropped_key_id: String,
    dropped_seal: Vec<u8>,
}

impl TryFrom<EndsRow> for Ends {
    type Error = StoreError;

    fn try_from(row: EndsRow) -> StoreResult<Self> {
        let EndsRow { seq, hash, key_id, seal, .. } = row;
        let head = End { seq, hash: digest(&hash)?, key: key_id, seal };
        let dropped = End {
            seq: row.dropped_seq,
            hash: digest(&row.dropped_hash)?,
            key: row.dropped_key_id,
            seal: row.dropped_seal,
        };
        Ok(Self { head, dropped })
    }
}

#[derive(sqlx::FromRow)]
struct LogRow {
    seq: i64,
    at: DateTime<Utc>,
    actor_kind: String,
    actor_id: Option<Uuid>,
    actor_name: String,
    address: Option<String>,
    user_agent: Option<String>,
    request_id: Option<String>,
    action: String,
    target_kind: String,
    target_id: Option<String>,
    before_state: Option<String>,
    after_state: Option<String>,
    previous_hash: Vec<u8>,
    hash: Vec<u8>,
    key_id: String,
    seal: Vec<u8>,
}

impl TryFrom<LogRow> for AuditRow {
    type Error = StoreError;

    fn try_from(row: LogRow) -> StoreResult<Self> {
        Ok(Self {
            seq: row.seq,
            at: row.at,
            actor_kind: row.actor_kind,
            actor_id: row.actor_id,
            actor_name: row.actor_name,
            address: row.address,
            user_agent: row.user_agent,
            request_id: row.request_id,
            action: row.action,
            target_kind: row.target_kind,
            target_id: row.target_id,
            before: row.before_state,
            after: row.after_state,
            previous: digest(&row.previous_hash)?,
            hash: digest(&row.hash)?,
            key: row.key_id,
            seal: digest(&row.seal)?,
        })
    }
}

const COLUMNS: &str = "
    SELECT seq, at, actor_kind, actor_id, actor_name, address, user_agent, request_id, action,
           target_kind, target_id, before_state, after_state, previous_hash, hash, key_id, seal
    FROM audit_log ";

impl<'c> Audit<'c> {
    pub(super) fn new(conn: DbConn<'c>) -> Self {
        Self { conn }
    }

    /// The ends of the chain, which are nobody else's to move until this
    /// transaction ends. To be the last lock that it takes: every append waits
    /// for it.
    pub async fn lock_ends(&mut self) -> StoreResult<Ends> {
        const POSTGRES: &str = "
            SELECT seq, hash, key_id, seal, dropped_seq, dropped_hash, dropped_key_id, dropped_seal
            FROM audit_head WHERE id = 1 FOR UPDATE";

        match &mut self.conn {
            DbConn::Sqlite(_) => self.ends().await?,
            DbConn::Postgres(_) => {
                let row: Option<EndsRow> = on_conn!(self.conn, |conn| sqlx::query_as(POSTGRES)
                    .fetch_optional(conn)
                    .await)?;
                row.map(Ends::try_from).transpose()?
            }
        }
        .ok_or_else(|| StoreError::inconsistent("the head of the audit log is missing"))
    }

    /// The ends of the chain, as they are now.
    pub async fn ends(&mut self) -> StoreResult<Option<Ends>> {
        const SQL: &str = "
            SELECT seq, hash, key_id, seal, dropped_seq, dropped_hash, dropped_key_id, dropped_seal
            FROM audit_head WHERE id = 1";

        let row: Option<EndsRow> =
            on_conn!(self.conn, |conn| sqlx::query_as(SQL).fetch_optional(conn).await)?;
        row.map(Ends::try_from).transpose()
    }

    /// Appends a row and moves the head to it. One round trip on Postgres,
    /// where others wait for the lock.
    pub async fn append(&mut self, row: &AuditRow, head_seal: &Hash) -> StoreResult<()> {
        const INSERT: &str = "
            INSERT INTO audit_log
                (seq, at, actor_kind, actor_id, actor_name, address, user_agent, request_id, action,
                 target_kind, target_id, before_state, after_state, previous_hash, hash, key_id, seal)
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)";
        const MOVE: &str = "
            UPDATE audit_head SET seq = $1, hash = $2, key_id = $3, seal = $4
            WHERE id = 1 AND seq = $1 - 1";
        const BOTH: &str = "
            WITH appended AS (
            INSERT INTO audit_log
                (seq, at, actor_kind, actor_id, actor_name, address, user_agent, request_id, action,
                 target_kind, target_id, before_state, after_state, previous_hash, hash, key_id, seal)
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17))
            UPDATE audit_head SET seq = $1, hash = $15, key_id = $16, seal = $18
            WHERE id = 1 AND seq = $1 - 1";

        let is_postgres = matches!(self.conn, DbConn::Postgres(_));
        let mut moved = on_conn!(self.conn, |conn| {
            let query = sqlx::query(if is_postgres { BOTH } else { INSERT })
                .bind(row.seq)
                .bind(row.at)
                .bind(&row.actor_kind)
                .bind(row.actor_id)
                .bind(&row.actor_name)
                .bind(&row.address)
                .bind(&row.user_agent)
                .bind(&row.request_id)
                .bind(&row.action)
                .bind(&row.target_kind)
                .bind(&row.target_id)
                .bind(&row.before)
                .bind(&row.after)
                .bind(&row.previous[..])
                .bind(&row.hash[..])
                .bind(&row.key)
                .bind(&row.seal[..]);
            let query = if is_postgres { query.bind(&head_seal[..]) } else { query };
            query.execute(conn).await.map(|done| done.rows_affected())
        })?;
        if !is_postgres {
            moved = on_conn!(self.conn, |conn| sqlx::query(MOVE)
                .bind(row.seq)
                .bind(&row.hash[..])
                .bind(&row.key)
                .bind(&head_seal[..])
                .execute(conn)
                .await
                .map(|done| done.rows_affected()))?;
        }
        if moved != 1 {
            return Err(StoreError::inconsistent("the head of the audit log moved under its lock"));
        }
        Ok(())
    }

    /// Newest first.
    pub async fn list(
        &mut self,
        filter: &AuditFilter,
        page: PageRequest,
    ) -> StoreResult<Page<AuditRow>> {
        let AuditFilter { actor, action, target, from, to } = filter;
        let rows: Vec<LogRow> = on_conn!(self.conn, within LONG_DEADLINE, |conn| {
            let mut sql = QueryBuilder::new(COLUMNS);
            sql.push("WHERE seq < ").push_bind(page.after.map_or(i64::MAX, seq_of));
            if let Some(actor) = actor {
                match Uuid::try_parse(actor) {
                    Ok(id) => sql.push(" AND actor_id = ").push_bind(id),
                    Err(_) => sql.push(" AND actor_name = ").push_bind(actor),
                };
            }
            match action {
                Some(whole) if whole.contains('.') => {
                    sql.push(" AND action = ").push_bind(whole);
                }
                Some(group) => {
                    let begin = format!("{group}.");
                    sql.push(" AND substr(action, 1, ")
                        .push_bind(i32::try_from(begin.chars().count()).unwrap_or(i32::MAX))
                        .push(") = ")
                        .push_bind(begin);
                }
                None => {}
            }
            if let Some(target) = target {
                sql.push(" AND target_id = ").push_bind(target);
            }
            if let Some(from) = from {
                sql.push(" AND at >= ").push_bind(from);
            }
            if let Some(to) = to {
                sql.push(" AND at < ").push_bind(to);
            }
            sql.push(" ORDER BY seq DESC LIMIT ").push_bind(row::limit(page));
            sql.build_query_as().fetch_all(conn).await
        })?;
        let page = Page::from_rows(rows, page.limit, |row| cursor(row.seq));
        let items = page.items.into_iter().map(AuditRow::try_from).collect::<StoreResult<_>>()?;
        Ok(Page { items, next: page.next })
    }

    /// Rows behind `seq` in their order.
    pub async fn after(&mut self, seq: i64, most: u32) -> StoreResult<Vec<AuditRow>> {
        let rows: Vec<LogRow> = on_conn!(self.conn, within LONG_DEADLINE, |conn| {
            let mut sql = QueryBuilder::new(COLUMNS);
            sql.push("WHERE seq > ").push_bind(seq);
            sql.push(" ORDER BY seq LIMIT ").push_bind(i64::from(most));
            sql.build_query_as().fetch_all(conn).await
        })?;
        rows.into_iter().map(AuditRow::try_from).collect()
    }

    /// Drops every row up to `end` and keeps it as the end of what was dropped.
    /// Under the lock of [`Self::lock_ends`].
    pub async fn drop_through(&mut self, end: &End) -> StoreResult<()> {
        const DELETE: &str = "DELETE FROM audit_log WHERE seq <= $1";

        // First: no row goes that is not marked.
        self.mark_dropped(end).await?;
        on_conn!(self.conn, within LONG_DEADLINE, |conn| sqlx::query(DELETE)
            .bind(end.seq)
            .execute(conn)
            .await
            .map(drop))
    }

    /// Writes the end of what was dropped, which may be the same with another
    /// seal.
    pub async fn mark_dropped(&mut self, end: &End) -> StoreResult<()> {
        const SQL: &str = "
            UPDATE audit_head
            SET dropped_seq = $1, dropped_hash = $2, dropped_key_id = $3, dropped_seal = $4
            WHERE id = 1";

        on_conn!(self.conn, |conn| sqlx::query(SQL)
            .bind(end.seq)
            .bind(&end.hash[..])
            .bind(&end.key)
            .bind(&end.seal)
            .execute(conn)
            .await
            .map(drop))
    }
}

/// Cursors are UUIDs; this one is a number.
fn cursor(seq: i64) -> Uuid {
    Uuid::from_u64_pair(0, seq.cast_unsigned())
}

fn seq_of(cursor: crate::domain::page::Cursor) -> i64 {
    cursor.0.as_u64_pair().1.cast_signed()
}

fn digest(bytes: &[u8]) -> StoreResult<Hash> {
    bytes.try_into().map_err(|_| StoreError::corrupt("hash", "not 32 bytes"))
}
