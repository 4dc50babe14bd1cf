//! The upstream's answer on its way to the client.

use std::sync::Arc;

use http::{
    HeaderMap, HeaderName, HeaderValue, Response, StatusCode, Version, header,
    header::{CONNECTION, UPGRADE},
};
use http_body::Body as _;
use http_body_util::Full;
use tokio::time::Instant;

use super::{
    AnswerBody, Arrival, Body, GatewayError, headers,
    metered::{Meter, Metered},
    rewrite::Plan,
    stream::{End, Opener, Stream},
    timer::StallTimer,
    upload::Progress,
};
use crate::{
    domain::{kill::KillReason, stream::StreamKind, usage::Outcome},
    services::{StreamService, room::Place, usage::Slot},
};

/// An answer of known length above this counts as a stream: it has no total
/// time limit, since it may take as long as the client's line needs. Bytes.
const LONG_ANSWER: u64 = 1024 * 1024;
/// Keeps proxies before us (nginx) from collecting what is sent piece by piece.
const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// What an answer needs to know of its request.
#[derive(Clone, Copy)]
pub struct Known<'a> {
    pub opener: Opener<'a>,
    /// When the time of the pass that opened the door is over.
    pub ends: Option<Instant>,
    pub upload: Option<&'a Arc<Progress>>,
}

/// Makes it the client's: fields rewritten, the body counted and watched. The
/// place goes with a stream. An error: more is being rewritten than there is
/// memory for, or too many event streams are open.
pub fn pass_on(
    answer: Response<AnswerBody>,
    plan: Plan,
    mut meter: Meter<Slot>,
    arrival: &Arrival<'_>,
    known: Known<'_>,
    streams: &Arc<StreamService>,
    place: &mut Option<Place>,
) -> Result<Response<Body>, GatewayError> {
    let config = &arrival.route.upstream.config;
    let (mut parts, body) = answer.into_parts();
    meter.set_status(parts.status);
    let kind = stream_kind(&parts.headers, &body);
    let has_length = body.size_hint().exact().is_some();
    let body = plan.apply(&mut parts, body).inspect_err(|_| {
        meter.unanswered(StatusCode::SERVICE_UNAVAILABLE, "no_room");
        meter.finish(Outcome::Failed);
    })?;
    // Ours cannot be added to what is compressed.
    let open_ended =
        body.size_hint().exact().is_none() && !parts.headers.contains_key(header::CONTENT_ENCODING);
    let authenticated = known.opener.principal.is_some();
    let changes = &config.response_headers;
    headers::rewrite_response(&mut parts.headers, arrival.client, authenticated, changes);
    match kind {
        Some(StreamKind::Sse) => {
            parts.headers.insert(X_ACCEL_BUFFERING, HeaderValue::from_static("no"));
        }
        // It may be sent piece by piece; the upstream may know better.
        Some(_) if !has_length => {
            let own = parts.headers.entry(X_ACCEL_BUFFERING);
            own.or_insert(HeaderValue::from_static("no"));
        }
        _ => {}
    }
    parts.version = Version::HTTP_11;

    let Some(kind) = kind else {
        let begin = known.upload.map_or(arrival.started, |upload| upload.last_move());
        let timer = StallTimer::new(config.idle_timeout, Some(begin + config.total_timeout));
        // A short answer to a request that was let in is given whole.
        return Ok(Response::from_parts(parts, Metered::new(body, meter, timer)));
    };
    let life = (Instant::now() + config.stream_life, End::TooOld);
    let credential = known.ends.map(|at| (at, End::Killed(KillReason::Expired)));
    let until = credential.filter(|(at, _)| *at <= life.0).unwrap_or(life);
    let timer = StallTimer::new(config.idle_timeout, Some(until.0));
    let mut metered = Metered::new(body, meter, timer).until(until);
    let Some(record) = metered.record() else {
        return Ok(Response::from_parts(parts, metered));
    };
    let stream = Stream::new(streams, kind, known, arrival, record, open_ended, place)
        .inspect_err(|_| metered.refuse(StatusCode::SERVICE_UNAVAILABLE))?;
    Ok(Response::from_parts(parts, metered.stream(stream)))
}

/// The 101 that opens a socket; what is in it was checked.
pub fn switching(answer: Response<()>, plan: Plan, arrival: &Arrival<'_>) -> Response<Body> {
    let (mut parts, ()) = answer.into_parts();
    let config = &arrival.route.upstream.config;
    let body = AnswerBody::Made(Full::default());
    // An empty one needs no memory.
    let body = plan.apply(&mut parts, body).expect("it has no body to rewrite");
    let changes = &config.response_headers;
    headers::rewrite_response(&mut parts.headers, arrival.client, true, changes);
    parts.headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    parts.headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    let timer = StallTimer::new(config.idle_timeout, None);
    Response::from_parts(parts, Metered::new(body, Meter::over(), timer))
}

/// Whether an answer may go on for as long as something moves: an event stream,
/// one of unknown length, or a long one.
fn stream_kind(headers: &HeaderMap, body: &AnswerBody) -> Option<StreamKind> {
    if body.is_end_stream() {
        return None;
    }
    if headers.get(header::CONTENT_TYPE).is_some_and(is_event_stream) {
        return Some(StreamKind::Sse);
    }
    let long = body.size_hint().exact().is_none_or(|length| length > LONG_ANSWER);
    long.then_some(StreamKind::Download)
}

fn is_event_stream(kind: &HeaderValue) -> bool {
    let essence = kind.as_bytes().split(|byte| *byte == b';').next().unwrap_or_default();
    essence.trim_ascii().eq_ignore_ascii_case(b"text/event-stream")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_stream_is_known_by_its_media_type() {
        for (kind, is) in [
            ("text/event-stream", true),
            ("Text/Event-Stream ; charset=utf-8", true),
            ("text/event-streams", false),
            ("text/plain; text/event-stream", false),
            ("", false),
        ] {
            assert_eq!(is_event_stream(&HeaderValue::from_static(kind)), is, "{kind}");
        }
    }
}
