//! The upstream's answer on its way to the client.

use http::{HeaderMap, Response, Version, header};
use http_body::Body as _;
use tokio::time::Instant;

use super::{
    AnswerBody, Arrival, Body, headers,
    metered::{Meter, Metered},
    rewrite::Plan,
    timer::StallTimer,
    upload::Progress,
};
use crate::services::usage::Slot;

/// An answer of known length above this counts as a stream: it has no total
/// time limit, since it may take as long as the client's line needs. Bytes.
const LONG_ANSWER: u64 = 1024 * 1024;
/// What an answer needs to know of who asked.
#[derive(Clone, Copy)]
pub struct Known {
    pub authenticated: bool,
    /// When the time of the pass that opened the door is over.
    pub ends: Option<Instant>,
}

/// Makes it the client's: fields rewritten, the body counted and watched.
pub fn pass_on(
    answer: Response<AnswerBody>,
    plan: Plan,
    mut meter: Meter<Slot>,
    arrival: &Arrival<'_>,
    known: Known,
    upload: Option<&Progress>,
) -> Response<Body> {
    let config = &arrival.route.upstream.config;
    let (mut parts, body) = answer.into_parts();
    meter.set_status(parts.status);
    let stream = is_stream(&parts.headers, &body);
    let deadline = (!stream).then(|| {
        let begin = upload.map_or(arrival.started, Progress::last_move);
        begin + config.total_timeout
    });
    // A short answer to a request that was let in is given whole.
    let ends = known.ends.filter(|_| stream);
    let body = plan.apply(&mut parts, body);
    headers::rewrite_response(&mut parts.headers, arrival.client, known.authenticated);
    headers::change(&mut parts.headers, &config.response_headers);
    parts.version = Version::HTTP_11;
    let timer = StallTimer::new(config.idle_timeout, deadline.or(ends));
    Response::from_parts(parts, Metered::new(body, meter, timer).until(ends))
}

/// Whether an answer may go on for as long as something moves: an event stream,
/// one of unknown length, or a long one.
fn is_stream(headers: &HeaderMap, body: &AnswerBody) -> bool {
    let events = headers
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"));
    events || body.size_hint().exact().is_none_or(|length| length > LONG_ANSWER)
}
