//! A request as its trace has it.

use http::Version;
use tokio::time::Instant;

use super::observe::Line;
use crate::telemetry::trace::{Trace, Value};

/// How a request ended.
#[derive(Clone, Copy, Debug)]
pub struct Ending {
    pub status: u16,
    pub bytes_in: u64,
    pub bytes_out: u64,
    /// Its answer broke off.
    pub broke: bool,
    pub at: Instant,
}

/// Tells of it by OpenTelemetry's names. The path has no query, and of the header
/// fields only the host is told.
pub fn tell(trace: &Trace, line: &Line, ending: &Ending) {
    let Ending { status, bytes_in, bytes_out, broke, at } = *ending;
    let method = line.method.as_str();
    let mut said: Vec<(&'static str, Value)> = Vec::with_capacity(16);
    said.push(("http.request.method", method.to_owned().into()));
    said.push(("url.path", line.path.clone().into()));
    said.push(("url.scheme", line.scheme.as_str().into()));
    said.push(("http.response.status_code", status.into()));
    said.push(("http.request.body.size", bytes_in.into()));
    said.push(("http.response.body.size", bytes_out.into()));
    said.push(("client.address", line.address.to_string().into()));
    said.push(("network.protocol.version", protocol(line.version).into()));
    said.push(("tollgate.request_id", (*line.request_id).to_owned().into()));
    if let Some(host) = line.host.as_ref().and_then(|host| host.to_str().ok()) {
        let port_at = host.rfind(':').filter(|at| !host[*at..].contains(']'));
        let (name, port) = host.split_at(port_at.unwrap_or(host.len()));
        said.push(("server.address", name.to_owned().into()));
        if let Some(port) = port.strip_prefix(':').and_then(|port| port.parse::<u16>().ok()) {
            said.push(("server.port", port.into()));
        }
    }
    if let Some(upstream) = line.upstream {
        said.push(("tollgate.upstream", upstream.into()));
    }
    if let Some(id) = line.caller.user_id {
        said.push(("user.id", id.to_string().into()));
    }
    if let Some(id) = line.caller.key_id {
        said.push(("tollgate.key.id", id.to_string().into()));
    }
    let failed = broke || status >= 500;
    if failed {
        let why = if broke { "broken".into() } else { status.to_string().into() };
        said.push(("error.type", why));
    }
    let name = match &line.route {
        Some(route) => {
            said.push(("http.route", route.clone().into()));
            format!("{method} {route}")
        }
        None => method.to_owned(),
    };
    trace.finish(name, said, failed, at);
}

fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_2 => "2",
        Version::HTTP_10 => "1.0",
        _ => "1.1",
    }
}
