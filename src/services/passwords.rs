//! Hashing and checking passwords with argon2id, on threads of its own.
//!
//! A hash takes tens of milliseconds and 19 MiB, so it never runs on a thread
//! that serves requests, never more of them at once than there are permits,
//! and never waits in an unbounded queue: a flood of logins gets 503 while
//! everything else goes on (RELIABILITY G-43).

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
        mpsc::{self, Receiver, SyncSender, TrySendError},
    },
    thread,
    time::{Duration, Instant},
};

use argon2::{
    Algorithm, Argon2, Params, Version,
    password_hash::{PasswordHasher as _, PasswordVerifier as _, phc::PasswordHash},
};
use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};
use metrics::{Counter, Histogram, counter, histogram};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::sync::oneshot;

use crate::{config::AuthConfig, domain::password};

/// Jobs that may wait for a thread.
const QUEUE: usize = 64;
/// How long one waits before the caller is told to come back.
const PATIENCE: Duration = Duration::from_secs(2);

/// What checking a password found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    pub matches: bool,
    /// The hash was made with other parameters than today's: hash again.
    pub outdated: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum PasswordError {
    /// All threads are taken and the queue is full or slow.
    #[error("too many logins at once")]
    Busy,
    #[error("argon2: {0}")]
    Hash(argon2::password_hash::Error),
}

/// A small pool of hashing threads. Dropping the last handle ends them.
pub struct Passwords {
    jobs: SyncSender<Job>,
    waiting: Arc<AtomicUsize>,
    refused: Counter,
}

struct Job {
    work: Work,
    reply: oneshot::Sender<Result<Answer, argon2::password_hash::Error>>,
}

enum Work {
    Hash(SecretString),
    Verify { password: SecretString, hash: Option<String> },
}

enum Answer {
    Hash(String),
    Verdict(Verdict),
}

impl Passwords {
    /// Starts the threads: one per core, at least two.
    pub fn start(config: &AuthConfig) -> Self {
        let params =
            Params::new(config.argon2_memory_kib, config.argon2_passes, config.argon2_lanes, None)
                .expect("checked with the configuration");
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        let (jobs, queue) = mpsc::sync_channel(QUEUE);
        let queue = Arc::new(Mutex::new(queue));
        let dummy: Arc<str> = dummy(argon2.params()).into();
        let waiting = Arc::<AtomicUsize>::default();
        let permits = thread::available_parallelism().map_or(2, |cores| cores.get().max(2));
        for number in 0..permits {
            let worker = Worker {
                argon2: argon2.clone(),
                queue: queue.clone(),
                waiting: waiting.clone(),
                duration: histogram!("tollgate_argon2_duration_seconds"),
                dummy: dummy.clone(),
            };
            thread::Builder::new()
                .name(format!("argon2-{number}"))
                .spawn(move || worker.run())
                .expect("the system can start a thread");
        }
        Self { jobs, waiting, refused: counter!("tollgate_argon2_refused_total") }
    }

    /// How many wait for a thread.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Relaxed)
    }

    /// The PHC string of a new password.
    pub async fn hash(&self, password: &SecretString) -> Result<String, PasswordError> {
        match self.submit(Work::Hash(normalised(password))).await? {
            Answer::Hash(hash) => Ok(hash),
            Answer::Verdict(_) => unreachable!("a hash job answers with a hash"),
        }
    }

    /// Checks a password against a stored hash. With `None` it does the same
    /// work and says no.
    pub async fn verify(
        &self,
        password: &SecretString,
        hash: Option<&str>,
    ) -> Result<Verdict, PasswordError> {
        let hash = hash.map(str::to_owned);
        match self.submit(Work::Verify { password: normalised(password), hash }).await? {
            Answer::Verdict(verdict) => Ok(verdict),
            Answer::Hash(_) => unreachable!("a verify job answers with a verdict"),
        }
    }

    async fn submit(&self, work: Work) -> Result<Answer, PasswordError> {
        let answer = self.queue(work).await;
        if matches!(answer, Err(PasswordError::Busy)) {
            self.refused.increment(1);
        }
        answer
    }

    async fn queue(&self, work: Work) -> Result<Answer, PasswordError> {
        let (reply, answer) = oneshot::channel();
        // Before it can be taken, so that it is never counted down first.
        self.waiting.fetch_add(1, Relaxed);
        self.jobs.try_send(Job { work, reply }).map_err(|error| match error {
            TrySendError::Full(_) | TrySendError::Disconnected(_) => {
                self.waiting.fetch_sub(1, Relaxed);
                PasswordError::Busy
            }
        })?;
        // Giving up drops the receiver, and a thread skips a job nobody waits for.
        let answer =
            tokio::time::timeout(PATIENCE, answer).await.map_err(|_| PasswordError::Busy)?;
        answer.map_err(|_| PasswordError::Busy)?.map_err(PasswordError::Hash)
    }
}

struct Worker {
    argon2: Argon2<'static>,
    queue: Arc<Mutex<Receiver<Job>>>,
    waiting: Arc<AtomicUsize>,
    duration: Histogram,
    /// What an unknown name is checked against, so that it costs as much as a
    /// known one (RELIABILITY G-91).
    dummy: Arc<str>,
}

impl Worker {
    fn run(self) {
        loop {
            let job = {
                let queue = self.queue.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                queue.recv()
            };
            let Ok(Job { work, reply }) = job else { return };
            self.waiting.fetch_sub(1, Relaxed);
            if reply.is_closed() {
                continue;
            }
            let started = Instant::now();
            // The caller may have gone meanwhile; there is nobody to tell.
            let _gone = reply.send(self.perform(work));
            self.duration.record(started.elapsed().as_secs_f64());
        }
    }

    fn perform(&self, work: Work) -> Result<Answer, argon2::password_hash::Error> {
        match work {
            Work::Hash(password) => self.hash(password.expose_secret()).map(Answer::Hash),
            Work::Verify { password, hash } => {
                let known = hash.is_some();
                let hash = hash.as_deref().unwrap_or(&self.dummy);
                let verdict = self.verify(password.expose_secret(), hash)?;
                Ok(Answer::Verdict(Verdict { matches: known && verdict.matches, ..verdict }))
            }
        }
    }

    fn hash(&self, password: &str) -> Result<String, argon2::password_hash::Error> {
        self.argon2.hash_password(password.as_bytes()).map(|hash: PasswordHash| hash.to_string())
    }

    fn verify(&self, password: &str, hash: &str) -> Result<Verdict, argon2::password_hash::Error> {
        let parsed = PasswordHash::new(hash)?;
        let matches = self.argon2.verify_password(password.as_bytes(), &parsed).is_ok();
        let current = Params::try_from(&parsed).is_ok_and(|params| {
            let today = self.argon2.params();
            (params.m_cost(), params.t_cost(), params.p_cost())
                == (today.m_cost(), today.t_cost(), today.p_cost())
        });
        Ok(Verdict { matches, outdated: !current })
    }
}

/// A PHC string with these parameters that no password matches: the output is
/// random. Checking against it takes as long as against any other, making it
/// takes nothing.
fn dummy(params: &Params) -> String {
    let (salt, output) = (rand::random::<[u8; 16]>(), rand::random::<[u8; 32]>());
    let (m, t, p) = (params.m_cost(), params.t_cost(), params.p_cost());
    let (salt, output) = (STANDARD_NO_PAD.encode(salt), STANDARD_NO_PAD.encode(output));
    format!("$argon2id$v=19$m={m},t={t},p={p}${salt}${output}")
}

fn normalised(password: &SecretString) -> SecretString {
    password::normalise(password.expose_secret()).into_owned().into()
}
