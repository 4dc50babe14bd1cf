//! What is recorded of a request before its answer is known.

use std::borrow::Cow;

use chrono::{DateTime, Utc};
use http::Method;
use tokio::time::Instant;

use super::{Arrival, CLIENT_CLOSED_REQUEST};
use crate::{
    domain::{
        id::{LogPlace, RecordId},
        principal::Principal,
        text,
        usage::{Outcome, UsageRecord},
    },
    server::client::{ClientInfo, new_uuid},
};

/// Characters of a path that are recorded.
const RECORDED_PATH: usize = 512;

/// What is known before the answer; as it stands, the record of a request
/// whose client left.
pub fn record(
    principal: Option<&Principal>,
    arrival: &Arrival<'_>,
    method: &Method,
) -> UsageRecord {
    let Arrival { client, path, route, at, .. } = *arrival;
    let config = &route.upstream.config;
    let place = (config.name, config.route_of(route.path));
    record_of(principal, client, at, method, path, place)
}

/// The same of a request that is not passed on here. The last are the upstream
/// and the pattern of its route.
pub fn record_of(
    principal: Option<&Principal>,
    client: &ClientInfo,
    at: DateTime<Utc>,
    method: &Method,
    path: &str,
    (upstream, route): (&'static str, &'static str),
) -> UsageRecord {
    let request_id = &client.request_id;
    UsageRecord {
        // One that a client made up is not used: it may come twice.
        id: RecordId::from(request_id.uuid().unwrap_or_else(|| new_uuid(at))),
        request_id: (**request_id).to_owned(),
        at,
        method: name_of(method),
        path: text::clean(path, RECORDED_PATH),
        status: CLIENT_CLOSED_REQUEST,
        outcome: Outcome::Aborted,
        duration_us: 0,
        bytes_in: 0,
        bytes_out: 0,
        user_id: principal.map(Principal::user_id),
        key_id: principal.and_then(Principal::key_id),
        pass_id: principal.and_then(Principal::pass_id),
        upstream: Cow::Borrowed(upstream),
        route: Cow::Borrowed(route),
        is_stream: false,
        messages: 0,
        place: LogPlace::NIL,
    }
}

/// The usual ones need no allocation.
fn name_of(method: &Method) -> Cow<'static, str> {
    const USUAL: [&str; 7] = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"];
    let name = method.as_str();
    let usual = USUAL.into_iter().find(|usual| *usual == name);
    usual.map_or_else(|| Cow::Owned(name.to_owned()), Cow::Borrowed)
}

pub fn elapsed_us(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX)
}
