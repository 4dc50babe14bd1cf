//! One effect per request, whatever gets lost on the way.
//!
//! Every change of money claims an idempotency key in its own transaction: the
//! client's, or one made for it. When the answer to a commit is lost nobody
//! knows whether it happened, so the whole transaction is tried again: its
//! claim waits for the first one to end on the server and then either finds
//! that it was done, or does it (RELIABILITY G-24). Deadlocks and serialization
//! failures are tried again the same way (G-25).

use std::time::Duration;

use rand::RngExt as _;
use tokio::time::{Instant, sleep};

use super::StoreError;
use crate::{
    domain::{
        id::UserId,
        idempotency::{Claim, IdempotencyKey, RequestHash},
    },
    repositories::ClaimOutcome,
};

/// How often a transaction is tried again.
const RETRIES: u32 = 3;
/// What took longer than this is not tried again: a database that is away is
/// to be told within 3 s (G-20).
const PATIENCE: Duration = Duration::from_secs(2);
/// Longest first pause.
const PAUSE: Duration = Duration::from_millis(30);

/// Whose keys those of the command line are: nobody's account, so that no user
/// can take one before the operator does.
pub(super) const COMMAND_LINE: UserId = UserId::NIL;

/// An error that may mean that nothing is wrong with the request.
pub(super) trait Passing {
    fn store(&self) -> Option<&StoreError>;
}

/// The key was used for another request.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("this Idempotency-Key was used for another request")]
pub struct KeyReused;

/// The claim of a request that came with `key` or without one.
pub(super) fn claim(user_id: UserId, key: Option<IdempotencyKey>, request: RequestHash) -> Claim {
    Claim { user_id, key: key.unwrap_or_else(IdempotencyKey::fresh), request }
}

/// What came of the claim before; `None` if it is ours to do now.
pub(super) fn done_before<T: From<uuid::Uuid>>(
    outcome: ClaimOutcome,
) -> Result<Option<T>, KeyReused> {
    match outcome {
        ClaimOutcome::Won => Ok(None),
        ClaimOutcome::Done(result) => Ok(Some(result.into())),
        ClaimOutcome::Mismatch => Err(KeyReused),
    }
}

/// Runs one transaction until its outcome is known. `attempt` must claim the
/// same key every time.
// Not an `AsyncFn`: of its futures nobody could say that they are `Send`, and
// handlers run this on a task of its own.
pub(super) async fn settle<T, E, F>(attempt: impl Fn() -> F) -> Result<T, E>
where
    E: Passing,
    F: Future<Output = Result<T, E>>,
{
    let began = Instant::now();
    let mut tries = 0;
    loop {
        let result = attempt().await;
        let passing = match &result {
            Err(error) => matches!(error.store(), Some(StoreError::Unavailable(_))),
            Ok(_) => false,
        };
        if !passing || tries == RETRIES || began.elapsed() > PATIENCE {
            return result;
        }
        // Those that deadlocked with each other must not meet again.
        let jitter = rand::rng().random_range(0.1..1.0);
        sleep((PAUSE * 2u32.pow(tries)).mul_f64(jitter)).await;
        tries += 1;
    }
}
