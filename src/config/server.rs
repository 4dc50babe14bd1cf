//! The listener: where, for whom, and how much at once.

use std::{net::IpAddr, thread, time::Duration};

use ipnet::IpNet;

use super::{
    addresses,
    reader::Reader,
    tls::{self, TlsFiles},
    values,
    values::{list, number, seconds},
};

#[derive(Clone, Debug)]
pub struct ServerConfig {
    pub host: IpAddr,
    pub port: u16,
    /// `None`: what the listener speaks is not encrypted.
    pub tls: Option<TlsFiles>,
    /// Threads that serve connections; one single-threaded runtime each.
    pub workers: usize,
    /// Peers whose `X-Forwarded-*` fields count.
    pub trusted_proxies: Vec<IpNet>,
    /// `Host` values that are answered, lower case without port. Empty: any.
    pub trusted_hosts: Vec<String>,
    /// Scheme and authority that links are made with; no trailing slash.
    pub public_url: Option<String>,
    /// What the pages of ours are headed with.
    pub site_name: String,
    pub site_color: Rgb,
    /// For how long browsers that came over https are told to come by nothing else,
    /// seconds; 0: nothing is told.
    pub hsts_seconds: u32,
    /// Most connections at once.
    pub max_connections: usize,
    /// Of these, most of one client address; 0: all.
    pub max_connections_per_address: usize,
    /// Most proxied requests under way at once, streams not among them.
    pub max_in_flight: usize,
    /// Most sockets, event streams and other long exchanges at once.
    pub max_streams: usize,
    /// How late the tasks of a worker may be for long; zero: any time.
    pub max_lag: Duration,
    pub memory_limit: MemoryLimit,
    /// A request's whole head must arrive within this time.
    pub header_timeout: Duration,
    /// A peer that neither sends nor takes a byte for this long is cut off.
    pub io_timeout: Duration,
    /// How long `/health/ready` answers 503 before the listener closes.
    pub shutdown_delay: Duration,
    /// How long requests under way may take after that.
    pub shutdown_grace: Duration,
}

/// What bounds the memory of the process, near which it refuses requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryLimit {
    /// That of its control group, if there is one.
    Group,
    /// So many bytes that belong to no file.
    Own(u64),
    /// Nothing.
    None,
}

/// A colour of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rgb(pub [u8; 3]);

pub(super) fn server(reader: &mut Reader) -> ServerConfig {
    let cores = thread::available_parallelism().map_or(1, |cores| cores.get().min(1024));
    let max_connections = reader.required("SERVER_MAX_CONNECTIONS", number(1..=1_000_000));
    // The rest of the connections is for routes of ours.
    let most = (max_connections - max_connections / 5, number(1..=1_000_000));
    let max_in_flight = reader.or("SERVER_MAX_IN_FLIGHT", (most.0, most.0.to_string()), most.1);
    ServerConfig {
        host: reader.required("SERVER_HOST", addresses::listen_address),
        port: reader.required("SERVER_PORT", number(0..=u16::MAX)),
        tls: tls::files(reader),
        workers: reader.or("SERVER_WORKERS", (cores, cores.to_string()), number(1..=1024)),
        trusted_proxies: reader
            .optional("SERVER_TRUSTED_PROXIES", list(addresses::network))
            .unwrap_or_default(),
        trusted_hosts: reader
            .optional("SERVER_TRUSTED_HOSTS", list(addresses::host))
            .unwrap_or_default(),
        public_url: reader.optional("SERVER_PUBLIC_URL", addresses::origin),
        site_name: reader.required("SERVER_SITE_NAME", values::line(64)),
        site_color: reader.required("SERVER_SITE_COLOR", values::color),
        hsts_seconds: reader.required("SERVER_HSTS_SECONDS", number(0..=63_072_000)),
        max_connections,
        max_connections_per_address: reader
            .required("SERVER_MAX_CONNECTIONS_PER_ADDRESS", number(0..=1_000_000)),
        max_in_flight,
        max_streams: reader.or(
            "SERVER_MAX_STREAMS",
            (max_in_flight, max_in_flight.to_string()),
            number(1..=1_000_000),
        ),
        max_lag: reader.required("SERVER_MAX_LAG_SECONDS", seconds(0.0..=10.0)),
        memory_limit: match reader.optional("SERVER_MAX_MEMORY_BYTES", number(0..=1_u64 << 50)) {
            None => MemoryLimit::Group,
            Some(0) => MemoryLimit::None,
            Some(most) => MemoryLimit::Own(most),
        },
        header_timeout: reader.required("SERVER_HEADER_TIMEOUT_SECONDS", seconds(0.1..=300.0)),
        io_timeout: reader.required("SERVER_IO_TIMEOUT_SECONDS", seconds(0.1..=3600.0)),
        shutdown_delay: reader.required("SERVER_SHUTDOWN_DELAY_SECONDS", seconds(0.0..=300.0)),
        shutdown_grace: reader.required("SERVER_SHUTDOWN_GRACE_SECONDS", seconds(0.0..=3600.0)),
    }
}
