//! Makes connections to upstreams: a look-up, TCP, and TLS where the scheme asks
//! for it, all within one time limit.
//!
//! Every address is judged after the look-up and connected to as it was judged:
//! nothing looks the name up a second time. A name that means another host by
//! then, or had two answers ready, leads nowhere that it may not (RELIABILITY
//! G-40).

mod race;
mod stream;
mod tls;

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use http::{Uri, uri::Scheme};
use rustls::pki_types::ServerName;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use self::stream::Wire;
pub use self::{
    stream::Stream,
    tls::{client_config, trusted},
};
use crate::{
    config::UpstreamConfig,
    domain::destination::is_allowed,
    services::upstreams::{Connected, FailureKind, UpstreamState, resolver::SharedResolver},
};

/// Why there is no connection. What other programs say of it is only in the
/// sources, for the log.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("connecting took too long")]
    TimedOut,
    #[error("the name has no address")]
    NoAddress(#[source] io::Error),
    #[error("none of the addresses may be connected to")]
    AddressRefused,
    #[error("no address took the connection")]
    Refused(#[source] io::Error),
    #[error("TLS could not be agreed on")]
    Tls(#[source] io::Error),
    #[error("HTTP/2 could not be begun")]
    Http2(#[source] hyper::Error),
}

impl ConnectError {
    pub fn kind(&self) -> FailureKind {
        match self {
            Self::TimedOut => FailureKind::ConnectTimeout,
            Self::AddressRefused => FailureKind::AddressRefused,
            Self::Tls(_) => FailureKind::Tls,
            Self::NoAddress(_) | Self::Refused(_) | Self::Http2(_) => FailureKind::Unreachable,
        }
    }
}

/// How the targets of an upstream are connected to.
#[derive(Clone)]
pub struct Network {
    resolver: SharedResolver,
    /// Whether names may stand for hosts within.
    private: bool,
    /// Both `None` where no target asks for TLS.
    any: Option<TlsConnector>,
    http1: Option<TlsConnector>,
}

/// Connects to one target.
#[derive(Clone)]
pub struct Connector {
    network: Network,
    host: Host,
    port: u16,
    /// The name that the certificate must be of.
    tls: Option<ServerName<'static>>,
}

#[derive(Clone)]
enum Host {
    /// As the operator wrote it down.
    Address(IpAddr),
    Name(Arc<str>),
}

/// Which protocols are offered where TLS can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offer {
    Any,
    Http1,
}

impl Network {
    pub fn new(state: &UpstreamState) -> Self {
        let UpstreamConfig { tls, private_addresses, .. } = &*state.config;
        let secure = state.targets.iter().any(|target| target.config.url.starts_with("https:"));
        let connector = |h2| secure.then(|| Arc::new(tls::client_config(tls, h2)).into());
        Self {
            resolver: state.resolver.clone(),
            private: *private_addresses,
            any: connector(true),
            http1: connector(false),
        }
    }
}

impl Connector {
    /// `url` names scheme, host and perhaps a port.
    pub fn new(network: &Network, url: &Uri) -> Self {
        let host = url.host().expect("the configuration checked it");
        let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
        let secure = url.scheme() == Some(&Scheme::HTTPS);
        // A certificate's names have no dot at their end.
        let named = bare.strip_suffix('.').unwrap_or(bare);
        let tls = secure.then(|| {
            ServerName::try_from(named.to_owned()).expect("a name that the configuration checked")
        });
        Self {
            network: network.clone(),
            host: bare.parse().map_or_else(|_| Host::Name(bare.into()), Host::Address),
            port: url.port_u16().unwrap_or(if secure { 443 } else { 80 }),
            tls,
        }
    }

    /// Whether HTTP/2 may come of it.
    pub fn may_be_http2(&self) -> bool {
        self.tls.is_some()
    }

    /// An open connection, made within `limit`.
    pub async fn connect(
        &self,
        offer: Offer,
        limit: Duration,
        connected: Option<Connected>,
    ) -> Result<Stream, ConnectError> {
        let wire =
            timeout(limit, self.reach(offer)).await.map_err(|_| ConnectError::TimedOut)??;
        Ok(Stream::new(wire, connected))
    }

    async fn reach(&self, offer: Offer) -> Result<Wire, ConnectError> {
        let addresses = self.addresses().await?;
        let tcp = race::connect(addresses).await.map_err(ConnectError::Refused)?;
        // Without it the last part of a request may wait for an acknowledgement.
        _ = tcp.set_nodelay(true);
        let Some(name) = &self.tls else { return Ok(Wire::Plain(tcp)) };
        let Network { any, http1, .. } = &self.network;
        let tls = if offer == Offer::Any { any } else { http1 };
        let tls = tls.as_ref().expect("made where a target asks for it");
        let stream = tls.connect(name.clone(), tcp).await.map_err(ConnectError::Tls)?;
        Ok(Wire::Tls(Box::new(stream)))
    }

    /// Those that may be connected to, in the order of the answer.
    async fn addresses(&self) -> Result<Vec<SocketAddr>, ConnectError> {
        let (found, named) = match &self.host {
            Host::Address(address) => (vec![SocketAddr::new(*address, self.port)], false),
            Host::Name(name) => {
                let found = self.network.resolver.resolve(name, self.port).await;
                (found.map_err(ConnectError::NoAddress)?, true)
            }
        };
        if found.is_empty() {
            let nothing = io::Error::other("no records");
            return Err(ConnectError::NoAddress(nothing));
        }
        let allowed = |address: &SocketAddr| is_allowed(address.ip(), named, self.network.private);
        let addresses: Vec<_> = found.into_iter().filter(allowed).collect();
        if addresses.is_empty() { Err(ConnectError::AddressRefused) } else { Ok(addresses) }
    }
}
