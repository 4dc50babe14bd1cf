//! Storage of messages, and of answers while they come.
//!
//! Whoever begins an answer holds it by a lease. All that is written of it says
//! whose it is, so that one who was given up as dead writes nothing any more.

use chrono::{DateTime, Utc};
use sqlx::QueryBuilder;

use super::{
    super::{StoreResult, connection::on_conn, row::limit},
    Chat,
    rows::{MessageRow, PieceRow},
};
use crate::domain::{
    chat::{AnswerFailure, ChatMessage, MessageState, Piece},
    id::{ChatMessageId, ChatSessionId, ChatWriterId},
    page::{Cursor, Page, PageRequest},
};

/// What became of an attempt to say something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Opened {
    /// Both messages are there: whoever commits this is to see to the answer.
    New { question: ChatMessage, answer: ChatMessage },
    /// It was said before.
    Before { question: ChatMessage, answer: ChatMessage },
    /// The session has ended meanwhile.
    NoSession,
    /// It has as many messages as it may have.
    Full,
}

/// Rows of one statement.
const AT_ONCE: usize = 1000;

/// A literal, for `concat!`.
macro_rules! columns {
    () => {
        "id, session_id, position, role, status, client_id, content, page_url, failure, writer, \
         lease_until, created_at, finished_at"
    };
}

/// Positions, and how many bytes each has.
const SIZES: &str = "SELECT position, CAST(octet_length(content) AS bigint) FROM chat_messages
    WHERE session_id = ";

/// The first of these positions that together have no more than `bytes`; one at
/// least.
fn fitting(sizes: &[(i64, i64)], most: u32, bytes: usize) -> &[(i64, i64)] {
    let mut left = i64::try_from(bytes).unwrap_or(i64::MAX);
    let fit = sizes.iter().take(most as usize).enumerate().take_while(|(at, (_, size))| {
        left = left.saturating_sub(*size);
        *at == 0 || left >= 0
    });
    &sizes[..fit.count()]
}

impl Chat<'_> {
    /// Enters a question and its answer, which is to come, at the end of their
    /// session; their positions are given here. Those who say the same at once
    /// wait in line: the row of the session is taken first. A session has at most
    /// `most` messages.
    pub async fn open_exchange(
        &mut self,
        question: &ChatMessage,
        answer: &ChatMessage,
        most: i64,
        now: DateTime<Utc>,
    ) -> StoreResult<Opened> {
        const TAKE: &str = "
            UPDATE chat_sessions SET messages = messages + 2
            WHERE id = $1 AND ended_at IS NULL AND expires_at > $2
            RETURNING messages";

        let taken: Option<i64> = on_conn!(self.conn, |conn| sqlx::query_scalar(TAKE)
            .bind(question.session_id)
            .bind(now)
            .fetch_optional(conn)
            .await)?;
        let Some(messages) = taken else { return Ok(Opened::NoSession) };
        if let Some(client_id) = &question.client_id
            && let Some(question) = self.said(question.session_id, client_id).await?
            && let Some(answer) =
                self.message_at(question.session_id, question.position + 1).await?
        {
            return Ok(Opened::Before { question, answer });
        }
        if messages > most {
            return Ok(Opened::Full);
        }
        let question = ChatMessage { position: messages - 1, ..question.clone() };
        let answer = ChatMessage { position: messages, ..answer.clone() };
        self.insert_message(&question).await?;
        self.insert_message(&answer).await?;
        Ok(Opened::New { question, answer })
    }

    async fn insert_message(&mut self, message: &ChatMessage) -> StoreResult<()> {
        const SQL: &str = concat!(
            "INSERT INTO chat_messages (",
            columns!(),
            ") VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)"
        );

        let (mut held, mut failure) = (None, None);
        match message.state {
            MessageState::Streaming { writer, lease_until } => held = Some((writer, lease_until)),
            MessageState::Complete => {}
            MessageState::Failed(how) => failure = Some(how.as_str()),
        }
        let (writer, lease_until) = held.unzip();
        on_conn!(self.conn, |conn| sqlx::query(SQL)
            .bind(message.id)
            .bind(message.session_id)
            .bind(message.position)
            .bind(message.speaker.as_str())
            .bind(message.state.as_str())
            .bind(&message.client_id)
            .bind(&message.content)
            .bind(&message.page_url)
            .bind(failure)
            .bind(writer)
            .bind(lease_until)
            .bind(message.created_at)
            .bind(message.finished_at)
            .execute(conn)
            .await
            .map(drop))
    }

    pub async fn message(&mut self, id: ChatMessageId) -> StoreResult<Option<ChatMessage>> {
        const SQL: &str = concat!("SELECT ", columns!(), " FROM chat_messages WHERE id = $1");

        let row: Option<MessageRow> =
            on_conn!(self.conn, |conn| sqlx::query_as(SQL).bind(id).fetch_optional(conn).await)?;
        row.map(ChatMessage::try_from).transpose()
    }

    async fn said(
        &mut self,
        session: ChatSessionId,
        client_id: &str,
    ) -> StoreResult<Option<ChatMessage>> {
        const SQL: &str = concat!(
            "SELECT ",
            columns!(),
            " FROM chat_messages WHERE session_id = $1 AND client_id = $2"
        );

        let row: Option<MessageRow> = on_conn!(self.conn, |conn| sqlx::query_as(SQL)
            .bind(session)
            .bind(client_id)
            .fetch_optional(conn)
            .await)?;
        row.map(ChatMessage::try_from).transpose()
    }

    async fn message_at(
        &mut self,
        session: ChatSessionId,
        position: i64,
    ) -> StoreResult<Option<ChatMessage>> {
        const SQL: &str = concat!(
            "SELECT ",
            columns!(),
            " FROM chat_messages WHERE session_id = $1 AND position = $2"
        );

        let row: Option<MessageRow> = on_conn!(self.conn, |conn| sqlx::query_as(SQL)
            .bind(session)
            .bind(position)
            .fetch_optional(conn)
            .await)?;
        row.map(ChatMessage::try_from).transpose()
    }

    /// Holds up those who say something in this session until the transaction is
    /// over, and waits for those who do.
    pub async fn hold_session(&mut self, id: ChatSessionId) -> StoreResult<()> {
        const SQL: &str = "UPDATE chat_sessions SET messages = messages WHERE id = $1";

        on_conn!(self.conn, |conn| sqlx::query(SQL).bind(id).execute(conn).await.map(drop))
    }

    /// Newest first. A page has no more than `bytes` of text, or one message.
    pub async fn messages(
        &mut self,
        session: ChatSessionId,
        page: PageRequest,
        bytes: usize,
    ) -> StoreResult<Page<ChatMessage>> {
        let sizes: Vec<(i64, i64)> = on_conn!(self.conn, |conn| {
            let mut sql = QueryBuilder::new(SIZES);
            sql.push_bind(session);
            if let Some(after) = page.after {
                sql.push(" AND position < (SELECT position FROM chat_messages WHERE id = ");
                sql.push_bind(after.0).push(")");
            }
            sql.push(" ORDER BY position DESC LIMIT ").push_bind(limit(page));
            sql.build_query_as().fetch_all(conn).await
        })?;
        let some = fitting(&sizes, page.limit, bytes);
        let mut items = self.messages_at(session, some).await?;
        items.reverse();
        let more = sizes.len() > some.len();
        let next = more.then(|| items.last().map(|last| Cursor(last.id.as_uuid()))).flatten();
        Ok(Page { items, next })
    }

    /// Those behind a position, oldest first: at most `most`, and no more than `bytes`
    /// of text, or one.
    pub async fn messages_behind(
        &mut self,
        session: ChatSessionId,
        position: i64,
        most: u32,
        bytes: usize,
    ) -> StoreResult<Vec<ChatMessage>> {
        let sizes: Vec<(i64, i64)> = on_conn!(self.conn, |conn| {
            let mut sql = QueryBuilder::new(SIZES);
            sql.push_bind(session).push(" AND position > ").push_bind(position);
            sql.push(" ORDER BY position LIMIT ").push_bind(i64::from(most));
            sql.build_query_as().fetch_all(conn).await
        })?;
        self.messages_at(session, fitting(&sizes, most, bytes)).await
    }

    /// Those from the first to the last of these positions, oldest first.
    async fn messages_at(
        &mut self,
        session: ChatSessionId,
        some: &[(i64, i64)],
    ) -> StoreResult<Vec<ChatMessage>> {
        const SQL: &str = concat!(
            "SELECT ",
            columns!(),
            " FROM chat_messages WHERE session_id = $1 AND position BETWEEN $2 AND $3 \
             ORDER BY position"
        );

        let (Some((first, _)), Some((last, _))) = (some.first(), some.last()) else {
            return Ok(vec![]);
        };
        let rows: Vec<MessageRow> = on_conn!(self.conn, |conn| sqlx::query_as(SQL)
            .bind(session)
            .bind(first.min(last))
            .bind(first.max(last))
            .fetch_all(conn)
            .await)?;
        rows.into_iter().map(ChatMessage::try_from).collect()
    }

    /// Keeps pieces of answers under way. They are in the order of their numbers
    /// for each message; a piece that is there already stays as it is.
    pub async fn add_pieces(&mut self, pieces: &[Piece]) -> StoreResult<()> {
        const INSERT: &str = "INSERT INTO chat_events (message_id, number, content) ";

        for some in pieces.chunks(AT_ONCE) {
            on_conn!(self.conn, |conn| {
                let mut sql = QueryBuilder::new(INSERT);
                sql.push_values(some, |mut row, piece| {
                    row.push_bind(piece.message_id);
                    row.push_bind(piece.number);
                    row.push_bind(piece.content.clone());
                });
                sql.push(" ON CONFLICT (message_id, number) DO NOTHING");
                sql.build().execute(conn).await.map(drop)
            })?;
        }
        Ok(())
    }

    /// What has come of an answer behind `number`, in order.
    pub async fn pieces(&mut self, id: ChatMessageId, number: i64) -> StoreResult<Vec<Piece>> {
        const SQL: &str = "
            SELECT message_id, number, content FROM chat_events
            WHERE message_id = $1 AND number > $2 ORDER BY number";

        let rows: Vec<PieceRow> = on_conn!(self.conn, |conn| sqlx::query_as(SQL)
            .bind(id)
            .bind(number)
            .fetch_all(conn)
            .await)?;
        Ok(rows.into_iter().map(Piece::from).collect())
    }

    /// Holds on to those of these answers that are still `writer`'s, until
    /// `lease_until`; which those are.
    pub async fn hold_answers(
        &mut self,
        writer: ChatWriterId,
        ids: &[ChatMessageId],
        lease_until: DateTime<Utc>,
    ) -> StoreResult<Vec<ChatMessageId>> {
        let mut held = Vec::with_capacity(ids.len());
        // Below the number of parameters that SQLite takes.
        for some in ids.chunks(AT_ONCE) {
            let part: Vec<ChatMessageId> = on_conn!(self.conn, |conn| {
                let mut sql = QueryBuilder::new("UPDATE chat_messages SET lease_until = ");
                sql.push_bind(lease_until).push(" WHERE writer = ").push_bind(writer);
                sql.push(" AND status = 'streaming' AND id IN (");
                let mut list = sql.separated(", ");
                for id in some {
                    list.push_bind(*id);
                }
                sql.push(") RETURNING id");
                // Of every length another one: none is worth keeping.
                sql.build_query_scalar().persistent(false).fetch_all(conn).await
            })?;
            held.extend(part);
        }
        Ok(held)
    }

    /// Writes an answer's end, if `writer` still holds it. Its pieces go.
    pub async fn close_answer(
        &mut self,
        id: ChatMessageId,
        writer: ChatWriterId,
        content: &str,
        failure: Option<AnswerFailure>,
        now: DateTime<Utc>,
    ) -> StoreResult<bool> {
        const SQL: &str = "
            UPDATE chat_messages
            SET status = $3, content = $4, failure = $5, finished_at = $6, lease_until = NULL
            WHERE id = $1 AND writer = $2 AND status = 'streaming'";
        const FORGET: &str = "DELETE FROM chat_events WHERE message_id = $1";

        let state = failure.map_or(MessageState::Complete, MessageState::Failed);
        let closed = on_conn!(self.conn, |conn| sqlx::query(SQL)
            .bind(id)
            .bind(writer)
            .bind(state.as_str())
            .bind(content)
            .bind(failure.map(AnswerFailure::as_str))
            .bind(now)
            .execute(conn)
            .await
            .map(|done| done.rows_affected() == 1))?;
        if closed {
            on_conn!(self.conn, |conn| sqlx::query(FORGET).bind(id).execute(conn).await.map(drop))?;
        }
        Ok(closed)
    }
}
