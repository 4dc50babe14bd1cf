//! What a trace is told of the questions that upstreams are asked.

use http::HeaderValue;

use super::Arrival;
use crate::{
    domain::usage::{Outcome, UsageRecord},
    telemetry::trace::{Asking, Onward},
};

use super::CLIENT_CLOSED_REQUEST;

/// A question to an upstream that `host` stands for, if the request is of a trace:
/// what is told of it, if anything, and what the upstream is told.
pub fn ask(
    arrival: &Arrival<'_>,
    method: &http::Method,
    host: &HeaderValue,
) -> (Option<Box<Asking>>, Option<Onward>) {
    let Some(trace) = &arrival.client.trace else { return (None, None) };
    let mut asking = trace.ask(method.as_str().to_owned());
    if let Some(asking) = &mut asking {
        asking.say("http.request.method", method.as_str().to_owned());
        say_host(asking, host);
        asking.say("tollgate.upstream", arrival.route.upstream.config.name);
    }
    let onward = trace.onward(asking.as_deref());
    (asking, Some(onward))
}

/// The server that is asked.
pub fn say_host(asking: &mut Asking, host: &HeaderValue) {
    let Some(authority) = host.to_str().ok() else { return };
    let port_at = authority.rfind(':').filter(|at| !authority[*at..].contains(']'));
    let (name, port) = authority.split_at(port_at.unwrap_or(authority.len()));
    asking.say("server.address", name.to_owned());
    if let Some(port) = port.strip_prefix(':').and_then(|port| port.parse::<u16>().ok()) {
        asking.say("server.port", port);
    }
}

/// It is over, and was recorded like this.
pub fn finish(mut asking: Asking, record: &UsageRecord) {
    // Where none came, the status is ours.
    let answered = !asking.has_failed() && record.status != CLIENT_CLOSED_REQUEST;
    if answered {
        asking.say("http.response.status_code", record.status);
        asking.say("http.response.body.size", record.bytes_out);
    }
    match record.outcome {
        Outcome::Aborted => asking.fail("cancelled"),
        Outcome::Cut => asking.fail("cut"),
        Outcome::Rejected => asking.fail("rejected"),
        Outcome::Failed if record.status < 400 => asking.fail("broken"),
        _ if record.status >= 400 => asking.fail(record.status.to_string()),
        _ => {}
    }
    asking.finish();
}
