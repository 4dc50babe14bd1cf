//! Answers under way on this instance.
//!
//! All who follow one share its text; each knows up to which byte it has read.
//! So a slow reader costs no memory, and whoever leaves holds up nobody.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use chrono::{DateTime, Utc};
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};

use crate::domain::{chat::AnswerFailure, id::ChatMessageId};

/// How an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct End {
    pub failure: Option<AnswerFailure>,
    pub at: DateTime<Utc>,
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub text: String,
    /// How it ended and since when that waits for the database.
    pub ending: Option<(End, Instant)>,
    /// The same once it may be told.
    pub ended: Option<End>,
    /// Up to where it is in the database.
    pub kept: usize,
}

/// One answer.
#[derive(Debug)]
pub(super) struct Live {
    pub id: ChatMessageId,
    pub begun: DateTime<Utc>,
    state: watch::Sender<State>,
}

impl Live {
    pub fn new(id: ChatMessageId, begun: DateTime<Utc>) -> Arc<Self> {
        Arc::new(Self { id, begun, state: watch::Sender::default() })
    }

    pub fn follow(&self) -> watch::Receiver<State> {
        self.state.subscribe()
    }

    pub fn look<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.state.borrow())
    }

    /// Hands on what has come.
    pub fn say(&self, text: &str) {
        self.state.send_modify(|state| state.text.push_str(text));
    }

    /// Nothing more comes; the first end counts. Told when it is written down.
    pub fn end(&self, end: End) {
        self.state.send_if_modified(|state| {
            state.ending.get_or_insert((end, Instant::now()));
            false
        });
    }

    /// Those who follow may know; whether they did not yet.
    pub fn tell(&self, end: End) -> bool {
        self.state.send_if_modified(|state| {
            let first = state.ended.is_none();
            state.ended.get_or_insert(end);
            first
        })
    }

    pub fn kept(&self, bytes: usize) {
        self.state.send_if_modified(|state| {
            state.kept = state.kept.max(bytes);
            false
        });
    }
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Desk {
    lives: Mutex<HashMap<ChatMessageId, Arc<Live>>>,
    /// Something ended.
    pub ended: Notify,
    emptied: Notify,
}

impl Desk {
    pub fn add(&self, live: &Arc<Live>) {
        self.lives().insert(live.id, Arc::clone(live));
    }

    pub fn find(&self, id: ChatMessageId) -> Option<Arc<Live>> {
        self.lives().get(&id).cloned()
    }

    pub fn remove(&self, id: ChatMessageId) {
        let mut lives = self.lives();
        lives.remove(&id);
        if lives.is_empty() {
            self.emptied.notify_waiters();
        }
    }

    pub fn all(&self) -> Vec<Arc<Live>> {
        self.lives().values().cloned().collect()
    }

    /// Ready when there are none.
    pub async fn emptied(&self) {
        loop {
            let emptied = self.emptied.notified();
            if self.lives().is_empty() {
                return;
            }
            emptied.await;
        }
    }

    fn lives(&self) -> MutexGuard<'_, HashMap<ChatMessageId, Arc<Live>>> {
        self.lives.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
