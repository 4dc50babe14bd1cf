//! What an upstream is: the values, checked.

use std::{sync::Arc, time::Duration};

use secrecy::{ExposeSecret as _, SecretString};

use super::{Mount, Preset, rewrite::RewriteConfig};
use crate::domain::{
    policy::{Demand, PathPattern, Policy},
    rates::{OwnRates, Rates},
    route::{self, RoutePattern},
};

/// One backend. Made by the settings `UPSTREAM_*` or by a table of
/// `[[upstreams]]`; shared, since every worker and request looks at it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamConfig {
    /// What keys, passes, records and metrics know it by.
    pub name: &'static str,
    pub mount: Mount,
    /// How answers are rewritten for the mount's prefix.
    pub rewrite: RewriteConfig,
    /// Its servers. Empty: the built-in echo.
    pub targets: Vec<TargetConfig>,
    pub preset: Option<Preset>,
    pub policy: Policy,
    /// Parts with a policy of their own; the first that matches holds.
    pub paths: Vec<PathPolicy>,
    /// What usage is told apart by; the first that matches counts.
    pub routes: Vec<RoutePattern>,
    /// Origins whose pages may open `WebSocket`s with a cookie, besides its own.
    pub origins: Vec<String>,
    pub tls: TlsConfig,
    /// Whether a prefix is taken off the path. If not, the upstream is to know
    /// it, and nothing is mapped.
    pub strip_prefix: bool,
    /// Longest `Cookie` field that it takes; cookies beyond it are left out.
    pub max_cookie_bytes: Option<usize>,
    /// Whether it is sent a signed `X-Tollgate-Assertion`.
    pub assertion: bool,
    pub basic_auth: Option<BasicAuth>,
    pub host: HostHeader,
    pub request_headers: HeaderChanges,
    pub response_headers: HeaderChanges,
    /// Whether a host *name* may resolve to a private or loopback address.
    pub private_addresses: bool,
    pub connect_timeout: Duration,
    pub first_byte_timeout: Duration,
    /// For the whole exchange, unless the answer is a stream.
    pub total_timeout: Duration,
    /// A stream on which nothing moves for this long is cut.
    pub idle_timeout: Duration,
    /// Longest life of a stream.
    pub stream_life: Duration,
    /// Idle connections are dropped after this long; below the upstream's own.
    pub pool_idle: Duration,
    /// Largest request body, bytes.
    pub max_body_bytes: u64,
    /// Most connections of this instance to one target.
    pub max_connections: usize,
    /// Most requests that wait for one of them.
    pub max_pending: usize,
    pub health: Option<HealthCheck>,
    pub websocket: WebSocketConfig,
    pub limits: UpstreamLimits,
}

/// How much may go to an upstream, over all who use it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UpstreamLimits {
    /// What is not said is as for every upstream.
    pub all: OwnRates,
    /// Per user.
    pub user: Rates,
    /// Requests at once, on one instance; 0: any number.
    pub max_concurrent: Option<u32>,
}

/// What an upstream asks of us.
#[derive(Clone, Debug)]
pub struct BasicAuth {
    pub user: String,
    pub password: SecretString,
}

/// One server of an upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetConfig {
    /// `http://` or `https://` with a host, without a path.
    pub url: String,
    /// Its share of the requests among the others', 1..=1000.
    pub weight: u32,
}

/// A part of an upstream with a policy of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathPolicy {
    /// Below the mount.
    pub path: PathPattern,
    pub policy: Policy,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsConfig {
    /// Whether a certificate is checked.
    pub verify: bool,
    /// Trusted instead of the public authorities; PEM, checked.
    pub ca: Option<String>,
    /// Whether HTTP/2 is spoken where the server offers it.
    pub http2: bool,
}

/// Which `Host` an upstream is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostHeader {
    /// The target's own.
    Target,
    /// What the client asked for.
    Client,
    Fixed(String),
}

/// Fields that are set or taken away. None of those that are ours to set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderChanges {
    pub remove: Vec<http::HeaderName>,
    pub set: Vec<(http::HeaderName, http::HeaderValue)>,
}

/// Asks each target from time to time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    pub path: String,
    pub interval: Duration,
    pub timeout: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WebSocketConfig {
    pub enabled: bool,
    /// From the client; a larger one ends the socket.
    pub max_message_bytes: u64,
    pub max_frame_bytes: u64,
    /// Most sockets at once of one credential, on one instance.
    pub per_credential: usize,
}

impl UpstreamConfig {
    /// Which part a path below the mount belongs to; `None` if to none that has
    /// a policy of its own.
    pub fn part_of(&self, path: &str) -> Option<usize> {
        self.paths.iter().position(|part| part.path.matches(path))
    }

    /// The policy of a part.
    pub fn policy_at(&self, part: Option<usize>) -> &Policy {
        part.and_then(|at| self.paths.get(at)).map_or(&self.policy, |part| &part.policy)
    }

    /// The pattern of the route that a path below the mount belongs to.
    pub fn route_of(&self, path: &str) -> &'static str {
        route::route_of(&self.routes, path)
    }

    /// Whether `WebSocket`s are let through.
    pub fn takes_sockets(&self) -> bool {
        self.websocket.enabled && !self.is_echo()
    }

    /// The built-in echo where an upstream would be.
    pub fn is_echo(&self) -> bool {
        self.targets.is_empty()
    }
}

impl PartialEq for BasicAuth {
    fn eq(&self, other: &Self) -> bool {
        let Self { user, password } = self;
        *user == other.user && password.expose_secret() == other.password.expose_secret()
    }
}

impl Eq for BasicAuth {}

/// Every upstream, the default one first.
pub type Upstreams = Vec<Arc<UpstreamConfig>>;

impl From<Demand> for Policy {
    fn from(demand: Demand) -> Self {
        Self { demand, ..Self::default() }
    }
}
