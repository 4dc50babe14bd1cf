//! Writes down what comes of the answers under way, all of them in one
//! transaction: so many answers cost the database hardly more than one.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use chrono::{DateTime, Utc};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::{
    ChatService,
    live::{End, Live},
};
use crate::{
    domain::{
        chat::{AnswerFailure, ChatMessage, LEASE, MessageState, Piece, joined},
        id::ChatMessageId,
    },
    repositories::{Repositories as _, StoreError},
};

/// How often pieces are written.
const EVERY: Duration = Duration::from_millis(500);
/// How often leases are renewed where nothing is to be written.
const HOLD_EVERY: Duration = Duration::from_secs(5);
/// How long those who follow wait for an end that cannot be written.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long it is tried to write one.
const GIVE_UP: Duration = Duration::from_mins(2);
/// Abandoned answers that are ended in one go.
const AT_ONCE: u32 = 100;

struct Ending {
    live: Arc<Live>,
    end: End,
    text: String,
}

impl ChatService {
    /// Writes until `stop`, and what is left then.
    pub async fn write_down(&self, stop: CancellationToken) {
        let mut renewed = Instant::now();
        loop {
            tokio::select! {
                () = self.desk.ended.notified() => {}
                () = sleep(EVERY) => {}
                () = stop.cancelled() => {}
            }
            let lives = self.desk.all();
            if lives.is_empty() {
                if stop.is_cancelled() {
                    return;
                }
                continue;
            }
            let due = renewed.elapsed() >= HOLD_EVERY;
            match self.write_round(&lives, due).await {
                Ok(()) if due => renewed = Instant::now(),
                Ok(()) => {}
                Err(error) => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "chat answers could not be written; tried again"
                    );
                    self.lose_patience(&lives);
                    if stop.is_cancelled() {
                        return;
                    }
                    sleep(EVERY).await;
                }
            }
        }
    }

    /// Writes what there is to write; with `hold` every lease is renewed, else those
    /// of what is written.
    async fn write_round(&self, lives: &[Arc<Live>], hold: bool) -> Result<(), StoreError> {
        let (mut pieces, mut endings) = (vec![], vec![]);
        for live in lives {
            live.look(|state| match state.ending {
                Some((end, _)) => {
                    endings.push(Ending { live: live.clone(), end, text: state.text.clone() });
                }
                None if state.text.len() > state.kept => pieces.push(Piece {
                    message_id: live.id,
                    number: i64::try_from(state.text.len()).unwrap_or(i64::MAX),
                    content: state.text[state.kept..].to_owned(),
                }),
                None => {}
            });
        }
        if pieces.is_empty() && endings.is_empty() && !hold {
            return Ok(());
        }
        let now = self.clock.now();
        let ids: Vec<ChatMessageId> = if hold {
            lives.iter().map(|live| live.id).collect()
        } else {
            let pieces = pieces.iter().map(|piece| piece.message_id);
            pieces.chain(endings.iter().map(|ending| ending.live.id)).collect()
        };
        let mut tx = self.db.begin().await?;
        // Also takes their rows, so that none of them goes before the commit.
        let ours = tx.chat().hold_answers(self.writer, &ids, now + LEASE).await?;
        let ours: HashSet<ChatMessageId> = ours.into_iter().collect();
        pieces.retain(|piece| ours.contains(&piece.message_id));
        tx.chat().add_pieces(&pieces).await?;
        for Ending { live, end, text } in &endings {
            if ours.contains(&live.id) {
                let (id, writer) = (live.id, self.writer);
                tx.chat().close_answer(id, writer, text, end.failure, end.at).await?;
            }
        }
        // Closed by a round whose commit was not answered; or given up by others as
        // dead, or deleted.
        let mut over = HashMap::new();
        for id in ids.into_iter().filter(|id| !ours.contains(id)) {
            over.insert(id, end_of(tx.chat().message(id).await?, now));
        }
        tx.commit().await?;
        let kept: HashMap<_, _> =
            pieces.into_iter().map(|piece| (piece.message_id, piece.number)).collect();
        for Ending { live, end, .. } in endings {
            if ours.contains(&live.id) {
                live.tell(end);
                self.desk.remove(live.id);
            }
        }
        for live in lives {
            if let Some(number) = kept.get(&live.id) {
                live.kept(usize::try_from(*number).unwrap_or(usize::MAX));
            }
            if let Some(end) = over.get(&live.id) {
                // What still comes of it is nobody's.
                live.tell(*end);
                self.desk.remove(live.id);
            }
        }
        Ok(())
    }

    fn lose_patience(&self, lives: &[Arc<Live>]) {
        for live in lives {
            let Some((end, since)) = live.look(|state| state.ending) else { continue };
            if since.elapsed() >= PATIENCE && live.tell(end) {
                tracing::warn!(chat.message = %live.id, "an end is told that is not written yet");
            }
            if since.elapsed() >= GIVE_UP {
                self.desk.remove(live.id);
            }
        }
    }

    /// Marks answers as failed whose instance says nothing any more.
    pub async fn end_abandoned(&self) -> Result<(), StoreError> {
        let now = self.clock.now();
        let abandoned = self.db.background().await?.chat().abandoned(now, AT_ONCE).await?;
        for (id, writer) in abandoned {
            // One of ours whose lease ran out while the database was away.
            if writer != self.writer || self.desk.find(id).is_none() {
                self.end_abandoned_one(id).await?;
            }
        }
        Ok(())
    }

    pub(super) async fn end_abandoned_one(&self, id: ChatMessageId) -> Result<(), StoreError> {
        let now = self.clock.now();
        let mut tx = self.db.begin().await?;
        if !tx.chat().take_abandoned(id, self.writer, now).await? {
            return Ok(());
        }
        let pieces = tx.chat().pieces(id, 0).await?;
        let (text, _) = joined(&pieces, 0);
        let failure = Some(AnswerFailure::Interrupted);
        tx.chat().close_answer(id, self.writer, &text, failure, now).await?;
        tx.commit().await?;
        tracing::warn!(chat.message = %id, "the instance that had an answer is gone; it failed");
        Ok(())
    }
}

/// How an answer ended that is not ours any more, as it is written down.
fn end_of(message: Option<ChatMessage>, now: DateTime<Utc>) -> End {
    let lost = (Some(AnswerFailure::Interrupted), None);
    let (failure, at) = message.map_or(lost, |message| match message.state {
        MessageState::Complete => (None, message.finished_at),
        MessageState::Failed(failure) => (Some(failure), message.finished_at),
        MessageState::Streaming { .. } => lost,
    });
    End { failure, at: at.unwrap_or(now) }
}
