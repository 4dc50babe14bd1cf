//! What became of a request's body, as whoever waits for the answer is told it.
//!
//! An answer may end before the body that it answers does. Whatever says that the
//! request is under way, and how much it used, is kept here until then.

use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{
            AtomicBool, AtomicU8, AtomicU64,
            Ordering::{Acquire, Relaxed, Release},
        },
    },
    task::{Context, Poll},
    time::Duration,
};

use http::StatusCode;
use tokio::time::Instant;

use super::metered::CLIENT_CLOSED_REQUEST;
use crate::{
    domain::{kill::KillReason, stream::Passed},
    services::streams::StreamHandle,
};

/// Why a request's body was not taken to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UploadFault {
    #[error("the request body is larger than allowed")]
    TooLarge,
    #[error("the request body stopped coming")]
    Stalled,
    #[error("the client broke off")]
    ClientGone,
    /// It took longer than the credential that opened the door is good for.
    #[error("the credential's time is over")]
    Expired,
    /// What opened the door counts no more.
    #[error("the credential was revoked")]
    Revoked,
    /// By an operator.
    #[error("the request was ended by an operator")]
    Cut,
}

impl UploadFault {
    /// Whether we end it, and neither side.
    pub fn is_cut(self) -> bool {
        matches!(self, Self::Expired | Self::Revoked | Self::Cut)
    }

    /// For the metric.
    fn code(self) -> &'static str {
        match self {
            Self::TooLarge => "too_large",
            Self::Stalled => "idle",
            Self::ClientGone => "aborted",
            Self::Expired => KillReason::Expired.code(),
            Self::Revoked => KillReason::Revoked.code(),
            Self::Cut => KillReason::Cut.code(),
        }
    }

    pub fn status(self) -> StatusCode {
        match self {
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Stalled => StatusCode::REQUEST_TIMEOUT,
            Self::Expired | Self::Revoked => StatusCode::UNAUTHORIZED,
            Self::Cut => StatusCode::FORBIDDEN,
            Self::ClientGone => {
                StatusCode::from_u16(CLIENT_CLOSED_REQUEST).expect("a status of three digits")
            }
        }
    }
}

impl From<KillReason> for UploadFault {
    fn from(reason: KillReason) -> Self {
        match reason {
            KillReason::Expired => Self::Expired,
            KillReason::Cut => Self::Cut,
            KillReason::Revoked | KillReason::Limit | KillReason::GoingAway => Self::Revoked,
        }
    }
}

/// What became of a request body so far; shared between the body and whoever
/// waits for the answer.
pub struct Progress {
    started: Instant,
    bytes: AtomicU64,
    /// Milliseconds after `started`.
    last_move: AtomicU64,
    fault: AtomicU8,
    finished: AtomicBool,
    gone: AtomicBool,
    /// What is over with the body.
    kept: Mutex<Vec<Box<dyn Send>>>,
    /// The place in the registry of one that takes long.
    place: Mutex<Option<StreamHandle>>,
    is_placed: AtomicBool,
}

impl Progress {
    pub(super) fn new(started: Instant) -> Arc<Self> {
        let zero = AtomicU64::new(0);
        Arc::new(Self {
            started,
            bytes: zero,
            last_move: AtomicU64::new(0),
            fault: AtomicU8::new(0),
            finished: AtomicBool::new(false),
            gone: AtomicBool::new(false),
            kept: Mutex::default(),
            place: Mutex::default(),
            is_placed: AtomicBool::new(false),
        })
    }

    /// Bytes of the body that were taken in.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Relaxed)
    }

    /// Whether the upstream's connection took the body to its end.
    pub fn is_finished(&self) -> bool {
        self.finished.load(Relaxed)
    }

    /// Whether nothing more is taken of it, however it ended.
    pub fn is_gone(&self) -> bool {
        self.gone.load(Acquire)
    }

    /// When a part of the body was last taken over by the upstream's
    /// connection.
    pub fn last_move(&self) -> Instant {
        self.started + Duration::from_millis(self.last_move.load(Relaxed))
    }

    pub fn fault(&self) -> Option<UploadFault> {
        match self.fault.load(Relaxed) {
            0 => None,
            1 => Some(UploadFault::TooLarge),
            2 => Some(UploadFault::Stalled),
            3 => Some(UploadFault::Expired),
            4 => Some(UploadFault::Revoked),
            5 => Some(UploadFault::Cut),
            _ => Some(UploadFault::ClientGone),
        }
    }

    pub(super) fn moved(&self, bytes: usize) {
        self.bytes.fetch_add(bytes as u64, Relaxed);
        let elapsed = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_move.store(elapsed, Relaxed);
        self.tell();
    }

    fn tell(&self) {
        let passed = Passed { bytes_in: self.bytes(), ..Passed::default() };
        self.at_place(|handle| handle.set_passed(passed));
    }

    /// It takes long, and has this place in the registry until it is over.
    pub fn enter(&self, handle: StreamHandle) {
        *self.place() = Some(handle);
        self.is_placed.store(true, Relaxed);
        self.tell();
    }

    /// Why it is to end now, if it is.
    pub fn killed(&self) -> Option<UploadFault> {
        self.at_place(|handle| handle.kill().reason()).flatten().map(UploadFault::from)
    }

    /// The same, and the task is woken when it is.
    pub fn poll_killed(&self, cx: &mut Context<'_>) -> Poll<UploadFault> {
        let polled = self.at_place(|handle| handle.kill().poll_tripped(cx));
        polled.unwrap_or(Poll::Pending).map(UploadFault::from)
    }

    fn at_place<T>(&self, what: impl FnOnce(&StreamHandle) -> T) -> Option<T> {
        // Most take no time, and no lock.
        if !self.is_placed.load(Relaxed) {
            return None;
        }
        self.place().as_ref().map(what)
    }

    fn place(&self) -> MutexGuard<'_, Option<StreamHandle>> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps what is over with the body, and drops it then; gives it back if that
    /// is gone already.
    pub fn keep<T: Send + 'static>(&self, rest: T) -> Option<T> {
        // Most are, which costs no lock.
        if self.is_gone() {
            return Some(rest);
        }
        let mut kept = self.kept();
        if self.gone.load(Relaxed) {
            return Some(rest);
        }
        kept.push(Box::new(rest));
        None
    }

    /// Whether the answer has ended, and this has not.
    pub fn outlives_answer(&self) -> bool {
        !self.kept().is_empty()
    }

    fn kept(&self) -> MutexGuard<'_, Vec<Box<dyn Send>>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The upstream's connection took the body to its end.
    pub(super) fn finish(&self) {
        self.finished.store(true, Relaxed);
    }

    /// The body is gone.
    pub(super) fn leave(&self) {
        let handle = if self.is_placed.swap(false, Relaxed) { self.place().take() } else { None };
        if let Some(handle) = handle {
            if let Some(fault) = self.fault() {
                handle.ended(fault.code());
            } else if self.is_finished() {
                handle.ended("completed");
            }
        }
        let kept = {
            let mut kept = self.kept();
            self.gone.store(true, Release);
            std::mem::take(&mut *kept)
        };
        drop(kept);
    }

    pub fn failed(&self, fault: UploadFault) {
        let code = match fault {
            UploadFault::TooLarge => 1,
            UploadFault::Stalled => 2,
            UploadFault::Expired => 3,
            UploadFault::Revoked => 4,
            UploadFault::Cut => 5,
            UploadFault::ClientGone => 6,
        };
        self.fault.store(code, Relaxed);
    }
}

impl fmt::Debug for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (bytes, fault) = (self.bytes(), self.fault());
        f.debug_struct("Progress")
            .field("bytes", &bytes)
            .field("fault", &fault)
            .finish_non_exhaustive()
    }
}
