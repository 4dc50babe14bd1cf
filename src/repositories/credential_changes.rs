//! The feed of changed credentials; triggers write it.

use uuid::Uuid;

use super::{DbConn, StoreResult, connection::on_conn, row::token_hash};
use crate::domain::change::{ChangesSince, CredentialChange, Subject};

/// More at once are not told one by one.
const MOST: usize = 10_000;

pub struct CredentialChanges<'c> {
    conn: DbConn<'c>,
}

#[derive(sqlx::FromRow)]
struct FeedRow {
    horizon: i64,
    now_us: i64,
    id: Option<i64>,
    kind: Option<String>,
    subject: Option<Vec<u8>>,
    version: Option<i64>,
    changed_us: Option<i64>,
}

impl FeedRow {
    /// `None` for the row that only says where the feed ends.
    fn change(self) -> StoreResult<Option<CredentialChange>> {
        let Self { id, kind, subject, version, changed_us, .. } = self;
        let (Some(id), Some(kind), Some(subject)) = (id, kind, subject) else { return Ok(None) };
        let uuid = || Uuid::from_slice(&subject).ok();
        let subject = match kind.as_str() {
            "key" => Subject::Key(token_hash(&subject)?),
            "pass" => Subject::Pass(token_hash(&subject)?),
            "account" => uuid().map_or(Subject::Unknown, |id| Subject::Account(id.into())),
            "session" => uuid().map_or(Subject::Unknown, |id| Subject::Session(id.into())),
            "chat" => Subject::Chat(token_hash(&subject)?),
            "probe" => Subject::Probe,
            _ => Subject::Unknown,
        };
        let (version, changed_us) = (version.unwrap_or_default(), changed_us.unwrap_or_default());
        Ok(Some(CredentialChange { id, subject, version, changed_us }))
    }
}

impl<'c> CredentialChanges<'c> {
    pub(super) fn new(conn: DbConn<'c>) -> Self {
        Self { conn }
    }

    /// What was committed since `position` was told; without one, nothing but the
    /// position to begin with. None is left out; what a transaction wrote that
    /// overlapped with another that still runs may be told again.
    pub async fn since(&mut self, position: Option<i64>) -> StoreResult<ChangesSince> {
        const POSTGRES: &str = "
            SELECT f.horizon, f.now_us, c.id, c.kind, c.subject, c.version, c.changed_us
            FROM (SELECT
                pg_snapshot_xmin(pg_current_snapshot())::text::bigint AS horizon,
                CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS bigint) AS now_us) f
            LEFT JOIN credential_changes c ON c.position >= $1
            LIMIT $2";
        const SQLITE: &str = "
            SELECT f.horizon, f.now_us, c.id, c.kind, c.subject, c.version, c.changed_us
            FROM (SELECT
                1 + coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'credential_changes'), 0)
                    AS horizon,
                CAST(unixepoch('subsec') * 1000000 AS integer) AS now_us) f
            LEFT JOIN credential_changes c ON c.id >= $1
            LIMIT $2";

        let sql = match &self.conn {
            DbConn::Postgres(_) => POSTGRES,
            DbConn::Sqlite(_) => SQLITE,
        };
        let rows: Vec<FeedRow> = on_conn!(self.conn, |conn| sqlx::query_as(sql)
            .bind(position.unwrap_or(i64::MAX))
            .bind(i64::try_from(MOST + 1).unwrap_or(i64::MAX))
            .fetch_all(conn)
            .await)?;
        let (position, now_us) = rows.first().map_or((0, 0), |row| (row.horizon, row.now_us));
        let too_many = rows.len() > MOST;
        let changes: StoreResult<Vec<_>> =
            rows.into_iter().filter_map(|row| row.change().transpose()).collect();
        Ok(ChangesSince { position, now_us, changes: (!too_many).then_some(changes?) })
    }

    /// Writes a change of nothing, for everybody to measure when they hear of it.
    pub async fn probe(&mut self) -> StoreResult<()> {
        const SQL: &str =
            "INSERT INTO credential_changes (kind, subject, version) VALUES ('probe', $1, 0)";

        on_conn!(self.conn, |conn| sqlx::query(SQL).bind(&[0_u8][..]).execute(conn).await.map(drop))
    }

    /// Forgets at most 5000 changes of before `before_us`, microseconds since 1970 by
    /// the database's clock; how many.
    pub async fn prune(&mut self, before_us: i64) -> StoreResult<u64> {
        const SQL: &str = "
            DELETE FROM credential_changes WHERE id IN (
                SELECT id FROM credential_changes WHERE changed_us < $1
                ORDER BY changed_us LIMIT 5000)";

        on_conn!(self.conn, |conn| sqlx::query(SQL)
            .bind(before_us)
            .execute(conn)
            .await
            .map(|done| done.rows_affected()))
    }
}
