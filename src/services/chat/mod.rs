//! Conversations with a workflow, for visitors without an account.
//!
//! | file | promise |
//! |---|---|
//! | [`visitors`] | a session is opened only by its cookie, on its pages, and by whoever got it |
//! | [`exchange`] | a message goes to the workflow once, however often it is sent |
//! | [`live`] | what comes is handed on at once to all who follow, whoever leaves |
//! | [`scribe`] | what was handed on is in the database half a second later, an end before it is told |
//! | [`follow`] | an answer can be read from any byte of it on any instance, before and after its end |
//! | [`archive`] | reading, exporting and forgetting conversations, a page at a time |
//!
//! The database is the truth; nothing here needs Redis. An answer belongs to the
//! instance that asked the workflow, by a lease: where that instance is killed,
//! the answer is marked as failed and never asked for again, since the workflow
//! may have acted already.

pub mod archive;
pub mod exchange;
pub mod follow;
mod live;
mod scribe;
pub mod visitors;
pub mod webhook;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use secrecy::SecretString;
use tokio::{sync::Semaphore, time::timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use self::{
    archive::{Part, Takeout},
    exchange::Say,
    follow::{Follower, Step},
    visitors::{Cookie, Issued, Jar, Seen, Visit},
    webhook::{Answer, Call, Webhook, WebhookError},
};
use self::{live::Desk, visitors::Visitors};
/// Which sessions operators ask for.
pub use crate::repositories::ChatFilter;
use crate::{
    cache::CacheHub,
    config::{ChatConfig, UpstreamConfig},
    domain::{chat::TextRefusal, clock::SharedClock, id::ChatWriterId},
    repositories::{Database, StoreError},
    services::{
        AuditService, LimitService, UsageService,
        limits::LimitError,
        usage::{Saturated, Slot},
    },
};

/// How long an end may still take to be written after the last task ended.
const LAST_ENDS: Duration = Duration::from_secs(1);

#[derive(Debug, thiserror::Error)]
pub enum ChatError {
    #[error("there are no chats here")]
    Off,
    #[error("a chat session is needed")]
    NoSession,
    #[error("the chat session is unknown, over, or not of this browser")]
    InvalidSession,
    #[error("chats are not offered on pages of this origin")]
    OriginNotAllowed,
    /// Which may be live, and is not the asking page's.
    #[error("the chat session was begun on a page of another origin")]
    OtherOrigin,
    #[error("there is no such conversation or message")]
    NotFound,
    #[error("the message {0}")]
    Text(#[from] TextRefusal),
    /// The same `client_message_id` with another text.
    #[error("another message was sent with this client_message_id")]
    OtherText,
    #[error("this conversation has as many messages as one may have; begin another session")]
    Full,
    #[error("too many answers are under way; try again later")]
    Overloaded,
    #[error("this instance is about to stop; try again")]
    Stopping,
    #[error(transparent)]
    Limit(#[from] LimitError),
    #[error(transparent)]
    Saturated(#[from] Saturated),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What the service is built from.
pub struct Parts<'a> {
    pub config: &'a ChatConfig,
    /// Signs cookies, and tokens for the workflow.
    pub secret: &'a SecretString,
    pub allowed_origins: &'a [String],
    pub issuer: &'a str,
    pub webhook: Option<Arc<dyn Webhook>>,
    pub db: Database,
    pub clock: SharedClock,
    pub hub: &'a CacheHub,
    pub audit: Arc<AuditService>,
    pub limits: Arc<LimitService>,
    pub usage: Arc<UsageService>,
}

/// Cheap to share; built once.
pub struct ChatService {
    webhook: Option<Arc<dyn Webhook>>,
    upstream: Option<Arc<UpstreamConfig>>,
    visitors: Visitors,
    config: ChatConfig,
    db: Database,
    clock: SharedClock,
    audit: Arc<AuditService>,
    limits: Arc<LimitService>,
    usage: Arc<UsageService>,
    writer: ChatWriterId,
    desk: Desk,
    /// Places for answers under way.
    places: Arc<Semaphore>,
    tasks: TaskTracker,
    leaving: AtomicBool,
    /// Answers under way end now.
    cut: CancellationToken,
    signer: webhook::Signer,
}

impl ChatService {
    pub fn new(parts: Parts<'_>) -> Arc<Self> {
        let Parts { config, secret, allowed_origins, issuer, webhook, db, clock, .. } = parts;
        let of_webhook = config.webhook.as_ref();
        let audience = of_webhook.map_or("", |webhook| &webhook.audience);
        Arc::new(Self {
            webhook,
            upstream: of_webhook.map(|webhook| webhook.upstream.clone()),
            visitors: Visitors::new(visitors::Parts {
                db: db.clone(),
                clock: clock.clone(),
                hub: parts.hub,
                secret,
                config: &config.visitors,
                allowed_origins,
            }),
            writer: ChatWriterId::new(clock.now()),
            desk: Desk::default(),
            places: Arc::new(Semaphore::new(config.max_answers)),
            tasks: TaskTracker::new(),
            leaving: AtomicBool::new(false),
            cut: CancellationToken::new(),
            signer: webhook::Signer::new(secret, issuer, audience),
            config: config.clone(),
            db,
            clock,
            audit: parts.audit,
            limits: parts.limits,
            usage: parts.usage,
        })
    }

    /// The sessions of visitors.
    ///
    /// # Errors
    /// There are no chats.
    pub fn visitors(&self) -> Result<&Visitors, ChatError> {
        self.webhook.as_ref().map(|_| &self.visitors).ok_or(ChatError::Off)
    }

    /// Where the workflow is, for the list of what is open.
    pub fn upstream(&self) -> Option<&Arc<UpstreamConfig>> {
        self.upstream.as_ref()
    }

    /// As many answers may be under way on this instance.
    pub fn most(&self) -> usize {
        self.config.max_answers
    }

    /// Answers under way on this instance.
    pub fn under_way(&self) -> usize {
        self.config.max_answers - self.places.available_permits()
    }

    /// The process stops: nothing new begins, answers under way may go on until
    /// `over`, and then end as interrupted. Ready when all of them are written
    /// down, or shortly after `over`.
    pub async fn leave(&self, over: impl Future<Output = ()>) {
        self.leaving.store(true, Relaxed);
        self.tasks.close();
        tokio::select! {
            () = self.tasks.wait() => {}
            () = over => {}
        }
        self.cut.cancel();
        let ends = async {
            self.tasks.wait().await;
            self.desk.emptied().await;
        };
        if timeout(LAST_ENDS, ends).await.is_err() {
            tracing::warn!("ends of chat answers could not be written; they will count as failed");
        }
    }

    /// Leave to record a message.
    fn slot(&self) -> Result<Slot, ChatError> {
        Ok(self.usage.journal().reserve()?)
    }
}
