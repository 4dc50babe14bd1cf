//! API keys and the rules that decide whether one may be used.

use std::net::IpAddr;

use chrono::{DateTime, Utc};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{
    id::{ApiKeyId, UserId},
    rates::NamedLimit,
};

/// Most named limits of a key.
pub const MAX_LIMITS: usize = 8;

/// A key, without its text: that exists only as a digest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ApiKey {
    pub id: ApiKeyId,
    pub user_id: UserId,
    pub name: String,
    /// The first characters of the current text, for recognition.
    pub prefix: String,
    /// Empty: every scope.
    pub scopes: Vec<String>,
    /// Names of the upstreams it opens. Empty: all.
    pub upstreams: Vec<String>,
    /// Networks it may be used from. Empty: anywhere.
    pub allowed_ips: Vec<IpNet>,
    /// Origins a browser may use it from. Empty: any, and no `Origin` at all.
    pub allowed_origins: Vec<String>,
    /// Requests per rolling hour. `None`: the configured default for keys.
    pub rate_limit: Option<u32>,
    /// Requests per rolling minute. `None`: the configured default for keys.
    pub rate_limit_per_minute: Option<u32>,
    /// Requests per calendar month, UTC. `None`: the configured default for keys.
    pub monthly_quota: Option<u64>,
    /// Further limits, by names of their own; at most [`MAX_LIMITS`].
    pub limits: Vec<NamedLimit>,
    /// Requests under way at once. `None`: the configured default for keys; 0:
    /// any number.
    pub max_concurrent: Option<u32>,
    /// The owner's own notes; a JSON object, never interpreted.
    pub metadata: serde_json::Map<String, serde_json::Value>,
    pub is_active: bool,
    pub expires_at: Option<DateTime<Utc>>,
    pub last_used_at: Option<DateTime<Utc>>,
    pub created_at: DateTime<Utc>,
    pub rotated_at: Option<DateTime<Utc>>,
    /// Grows with every change that a cached copy must not miss.
    pub version: i64,
}

/// Why a key that exists does not open the door.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyRefusal {
    Disabled,
    Expired,
    Address,
    Origin,
    Upstream,
    Scope,
}

impl ApiKey {
    /// Whether the key itself is good at `now`. It is dead *at* its expiry
    /// instant, not one tick after it.
    pub fn check_alive(&self, now: DateTime<Utc>) -> Result<(), KeyRefusal> {
        if !self.is_active {
            return Err(KeyRefusal::Disabled);
        }
        if self.expires_at.is_some_and(|at| at <= now) {
            return Err(KeyRefusal::Expired);
        }
        Ok(())
    }

    /// Whether it may be used from this address and origin.
    ///
    /// A key with an origin list is meant for browsers: a request without an
    /// `Origin` is refused, since any program could leave it out.
    pub fn check_place(&self, address: IpAddr, origin: Option<&str>) -> Result<(), KeyRefusal> {
        if !self.allowed_ips.is_empty()
            && !self.allowed_ips.iter().any(|net| net.contains(&address))
        {
            return Err(KeyRefusal::Address);
        }
        if !self.allowed_origins.is_empty()
            && !origin.is_some_and(|origin| self.allowed_origins.iter().any(|o| o == origin))
        {
            return Err(KeyRefusal::Origin);
        }
        Ok(())
    }

    pub fn check_upstream(&self, upstream: &str) -> Result<(), KeyRefusal> {
        if self.upstreams.is_empty() || self.upstreams.iter().any(|name| name == upstream) {
            Ok(())
        } else {
            Err(KeyRefusal::Upstream)
        }
    }

    pub fn check_scope(&self, scope: &str) -> Result<(), KeyRefusal> {
        if self.scopes.is_empty() || self.scopes.iter().any(|held| held == scope) {
            Ok(())
        } else {
            Err(KeyRefusal::Scope)
        }
    }
}
