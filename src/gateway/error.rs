//! Why a proxied request was not answered by its upstream.
//!
//! Typed, without texts of other programs: an upstream's address, a resolver's
//! or a TLS library's message must never reach a client. Causes stay reachable
//! through `source` for the log.

use std::time::Duration;

use http::StatusCode;

use super::{
    browser::CrossSite, connect::ConnectError, cookies::RepeatedCookie, credentials::RepeatedField,
    rewrite::Overloaded, tunnel::handshake, upload::UploadFault,
};
use crate::{
    domain::{api_key::KeyRefusal, policy::PolicyRefusal, usage::Outcome},
    services::{
        StoreError,
        access::AccessError,
        limits::{Crowded, Exceeded, LimitError},
        streams::Full,
        upstreams::FailureKind,
        usage::Saturated,
    },
};

#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    #[error(transparent)]
    RepeatedField(#[from] RepeatedField),
    #[error(transparent)]
    RepeatedCookie(#[from] RepeatedCookie),
    /// A person is to sign in at this path first.
    #[error("a login is required")]
    SignIn(Box<str>),
    #[error(transparent)]
    CrossSite(#[from] CrossSite),
    /// Nothing was presented where something is required.
    #[error("a credential is required")]
    CredentialRequired,
    #[error(transparent)]
    Access(#[from] AccessError),
    #[error(transparent)]
    Handshake(#[from] handshake::BadRequest),
    /// The connection cannot be taken over, as over HTTP/2.
    #[error("this connection cannot become a WebSocket")]
    NoUpgrade,
    #[error("too many WebSockets are open with this credential")]
    TooManySockets,
    /// Two readings of the path fall under different policies.
    #[error("the path may be read as another one, to which another policy applies")]
    AmbiguousPath,
    #[error("this method is not let through here")]
    MethodNotAllowed {
        /// Those that are, as `Allow` lists them.
        allow: String,
    },
    #[error(transparent)]
    Policy(#[from] PolicyRefusal),
    /// The key is good but not for this place or upstream.
    #[error("the API key may not be used here")]
    KeyRefused(KeyRefusal),
    /// The pass is good but bound to another upstream.
    #[error("the access token does not open this upstream")]
    PassRefused,
    #[error("too many requests")]
    Limited(Box<Exceeded>),
    #[error(transparent)]
    Crowded(#[from] Crowded),
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The schema is not there yet.
    #[error("starting: the database is not ready")]
    Starting,
    /// Usage could not be recorded, so nothing may be used.
    #[error("too many requests await recording")]
    Saturated,
    #[error(transparent)]
    Rewriting(#[from] Overloaded),
    #[error(transparent)]
    TooManyStreams(#[from] Full),
    #[error(transparent)]
    Upload(#[from] UploadFault),
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
}

/// What went wrong on the far side.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    /// Refused, no route, no such name, TLS failure.
    #[error("the upstream could not be reached")]
    Unreachable(#[source] ConnectError),
    #[error("the upstream could not be reached in time")]
    ConnectTimeout,
    /// No head of an answer within the time allowed.
    #[error("the upstream did not answer in time")]
    Timeout,
    /// The connection broke before an answer, or the answer was not HTTP.
    #[error("the upstream broke off")]
    Broken(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// It switched protocols without having been asked to.
    #[error("the upstream gave an answer that cannot be passed on")]
    BadAnswer,
    /// It failed so often of late that it is not asked for so long.
    #[error("the upstream is not available; try again later")]
    Unavailable(Duration),
    /// No connection came free in time, or too many wait for one already.
    #[error("the upstream has no free connection; try again later")]
    Overloaded,
}

impl From<ConnectError> for UpstreamError {
    fn from(error: ConnectError) -> Self {
        match error {
            ConnectError::TimedOut => Self::ConnectTimeout,
            error => Self::Unreachable(error),
        }
    }
}

impl UpstreamError {
    /// What it says about the target; `None`: nothing.
    pub fn kind(&self) -> Option<FailureKind> {
        Some(match self {
            Self::Unreachable(error) => error.kind(),
            Self::ConnectTimeout => FailureKind::ConnectTimeout,
            Self::Timeout => FailureKind::Timeout,
            Self::Broken(_) => FailureKind::Broken,
            Self::BadAnswer => FailureKind::BadAnswer,
            Self::Unavailable(_) | Self::Overloaded => return None,
        })
    }

    /// What went wrong, in a word.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Unavailable(_) => "unavailable",
            Self::Overloaded => "overloaded",
            error => error.kind().map_or("_OTHER", FailureKind::as_str),
        }
    }

    pub fn status(&self) -> StatusCode {
        match self {
            Self::Unreachable(_) | Self::Broken(_) | Self::BadAnswer => StatusCode::BAD_GATEWAY,
            Self::ConnectTimeout | Self::Timeout => StatusCode::GATEWAY_TIMEOUT,
            Self::Unavailable(_) | Self::Overloaded => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

/// Why sending came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    #[error(transparent)]
    Upload(#[from] UploadFault),
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
}

impl SendError {
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Upload(fault) => fault.status(),
            Self::Upstream(error) => error.status(),
        }
    }

    /// How it is recorded.
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::Upload(UploadFault::Revoked | UploadFault::Cut) => Outcome::Cut,
            Self::Upload(_) | Self::Upstream(_) => Outcome::Failed,
        }
    }
}

impl From<SendError> for GatewayError {
    fn from(error: SendError) -> Self {
        match error {
            SendError::Upload(fault) => Self::Upload(fault),
            SendError::Upstream(error) => Self::Upstream(error),
        }
    }
}

impl From<LimitError> for GatewayError {
    fn from(error: LimitError) -> Self {
        match error {
            LimitError::Exceeded(exceeded) => Self::Limited(exceeded),
            LimitError::Store(error) => Self::Store(error),
        }
    }
}

impl From<Saturated> for GatewayError {
    fn from(_: Saturated) -> Self {
        Self::Saturated
    }
}
