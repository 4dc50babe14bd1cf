//! Who a request acts for.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::{
    api_key::ApiKey,
    id::{ApiKeyId, PassId, SessionId, UserId},
    pass::Pass,
    token::TokenHash,
    user::{Role, Roles},
};

/// What of an account every request needs; cached by its id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// First, as the copies in Redis have it.
    pub version: i64,
    pub id: UserId,
    pub username: String,
    pub roles: Roles,
    pub is_active: bool,
}

/// A proven identity. Exists only after every check on the credential passed.
#[derive(Clone, Debug)]
pub struct Principal {
    pub account: Arc<Account>,
    pub credential: Credential,
    pub proof: Proof,
}

/// By what the principal was proven.
#[derive(Clone, Debug)]
pub enum Credential {
    /// A login's JWT.
    Login(SessionId),
    ApiKey(Arc<ApiKey>),
    /// A time pass, unused or active.
    Pass(Arc<Pass>),
}

/// What was shown, so that it can be proven again later without it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Proof {
    Login {
        session: SessionId,
        user: UserId,
        /// When what was shown of the login is over by itself.
        until: DateTime<Utc>,
    },
    /// The digest of the very text: after a rotation an old one ends alone.
    ApiKey(TokenHash),
    Pass(TokenHash),
}

impl Principal {
    pub fn user_id(&self) -> UserId {
        self.account.id
    }

    pub fn key(&self) -> Option<&Arc<ApiKey>> {
        match &self.credential {
            Credential::ApiKey(key) => Some(key),
            Credential::Login(_) | Credential::Pass(_) => None,
        }
    }

    pub fn key_id(&self) -> Option<ApiKeyId> {
        self.key().map(|key| key.id)
    }

    pub fn pass(&self) -> Option<&Arc<Pass>> {
        match &self.credential {
            Credential::Pass(pass) => Some(pass),
            Credential::Login(_) | Credential::ApiKey(_) => None,
        }
    }

    pub fn pass_id(&self) -> Option<PassId> {
        self.pass().map(|pass| pass.id)
    }

    pub fn session_id(&self) -> Option<SessionId> {
        match self.credential {
            Credential::Login(session) => Some(session),
            Credential::ApiKey(_) | Credential::Pass(_) => None,
        }
    }

    pub fn has(&self, role: Role) -> bool {
        self.account.roles.has(role)
    }
}
