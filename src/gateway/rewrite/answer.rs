//! Whether an answer's body is rewritten, and what its fields must then say.

use encoding_rs::Encoding;
use http::{
    HeaderMap, HeaderName, HeaderValue, StatusCode,
    header::{
        ACCEPT_RANGES, CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_ENCODING, CONTENT_LENGTH,
        CONTENT_RANGE, CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY_REPORT_ONLY, CONTENT_TYPE,
        ETAG, LAST_MODIFIED, VARY,
    },
    response,
};
use http_body::Body;

use super::{
    Plan,
    coding::Coding,
    csp::{self, Strictness},
    etag, fields,
};
use crate::config::rewrite::BodyKind;

/// Fields that are about the bytes of the body.
const DIGESTS: [HeaderName; 4] = [
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("repr-digest"),
    HeaderName::from_static("digest"),
    HeaderName::from_static("content-md5"),
];

/// What is to be done to a body.
#[derive(Debug)]
pub struct Job {
    pub kind: BodyKind,
    pub coding: Coding,
    /// Numbers of the rules that apply.
    pub rules: Vec<u8>,
    /// It is run as a worker, and gets our script before it.
    pub worker: bool,
}

/// `None`: the body stays as it is. See the module's doc for what does.
pub fn decide<B: Body>(plan: &Plan, parts: &response::Parts, body: &B) -> Option<Job> {
    let config = &plan.names.site.config;
    let headers = &parts.headers;
    let bodiless = parts.status.is_informational()
        || matches!(
            parts.status,
            StatusCode::NO_CONTENT
                | StatusCode::RESET_CONTENT
                | StatusCode::PARTIAL_CONTENT
                | StatusCode::NOT_MODIFIED
        );
    if !config.enabled || bodiless || headers.contains_key(CONTENT_RANGE) {
        return None;
    }
    let kind = kind_of(headers.get(CONTENT_TYPE)?)?;
    let listed = |name: &HeaderName, word: &str| {
        let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
        values
            .flat_map(|text| text.split([',', ';']))
            .any(|item| item.trim().eq_ignore_ascii_case(word))
    };
    if listed(&CACHE_CONTROL, "no-transform") || listed(&CONTENT_DISPOSITION, "attachment") {
        return None;
    }
    let coding = coding_of(headers)?;
    if length(headers, body).is_some_and(|length| length > config.max_body_bytes) {
        return None;
    }
    let numbered = (0_u8..).zip(&config.rules);
    let rules: Vec<u8> = numbered
        .filter(|(number, rule)| plan.rules >> number & 1 == 1 && rule.types.contains(&kind))
        .map(|(number, _)| number)
        .collect();
    let worker =
        kind == BodyKind::Javascript && plan.wanted.worker && !plan.names.site.worker.is_empty();
    let always = matches!(kind, BodyKind::Html | BodyKind::Css);
    (always || worker || !rules.is_empty()).then_some(Job { kind, coding, rules, worker })
}

/// The kind of a body by its type. `None`: one that nothing is known about, or
/// in a charset that is not ASCII's.
fn kind_of(value: &HeaderValue) -> Option<BodyKind> {
    let text = value.to_str().ok()?;
    let mut parts = text.split(';');
    let media = parts.next()?.trim().to_ascii_lowercase();
    let charset = parts.find_map(|part| {
        let (name, value) = part.split_once('=')?;
        name.trim().eq_ignore_ascii_case("charset").then(|| value.trim().trim_matches('"'))
    });
    let known = charset.and_then(|label| Encoding::for_label(label.as_bytes()));
    if known.is_some_and(|encoding| !encoding.is_ascii_compatible())
        || charset.is_some_and(|label| label.to_ascii_lowercase().starts_with("utf-32"))
    {
        return None;
    }
    match media.as_str() {
        "text/html" => Some(BodyKind::Html),
        "text/css" => Some(BodyKind::Css),
        "text/javascript"
        | "application/javascript"
        | "application/x-javascript"
        | "text/ecmascript"
        | "application/ecmascript" => Some(BodyKind::Javascript),
        "application/json" => Some(BodyKind::Json),
        "text/event-stream" => None,
        "application/xml" | "application/xhtml+xml" | "image/svg+xml" => Some(BodyKind::Text),
        media if media.ends_with("+json") => Some(BodyKind::Json),
        media if media.starts_with("text/") || media.ends_with("+xml") => Some(BodyKind::Text),
        _ => None,
    }
}

/// The one coding of a body. `None`: unknown, or several.
fn coding_of(headers: &HeaderMap) -> Option<Coding> {
    let mut values = headers.get_all(CONTENT_ENCODING).iter();
    let coding =
        values.next().map_or(Some(Coding::Identity), |value| Coding::named(value.as_bytes()));
    coding.filter(|_| values.next().is_none())
}

fn length<B: Body>(headers: &HeaderMap, body: &B) -> Option<u64> {
    let said = || headers.get(CONTENT_LENGTH)?.to_str().ok()?.trim().parse().ok();
    body.size_hint().exact().filter(|length| *length > 0).or_else(said)
}

/// Makes the fields true of the body that will be sent. What the page's own
/// policies mean for it.
pub fn adjust(plan: &Plan, job: &Job, headers: &mut HeaderMap) -> Strictness {
    headers.remove(CONTENT_LENGTH);
    headers.remove(ACCEPT_RANGES);
    for name in &DIGESTS {
        headers.remove(name);
    }
    mark(plan, headers);
    if job.worker {
        // The same script without ours is another answer.
        headers.append(VARY, HeaderValue::from_static("sec-fetch-dest"));
    }
    if job.kind != BodyKind::Html {
        return Strictness::default();
    }
    let policies = headers.get_all(CONTENT_SECURITY_POLICY).iter();
    let policies = policies.filter_map(|value| value.to_str().ok());
    let strictness = policies.fold(Strictness::default(), Strictness::and);
    let hashes = plan.names.site.hashes();
    for name in [CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY_REPORT_ONLY] {
        fields::change(headers, &name, |text| Some(csp::amend(&plan.names, text, &hashes)));
    }
    strictness
}

/// Marks the tag of a rewritten body, see [`etag`].
fn mark(plan: &Plan, headers: &mut HeaderMap) {
    let own = headers.get(ETAG).map(|tag| tag.to_str().unwrap_or_default().to_owned());
    if own.is_none() && !headers.contains_key(LAST_MODIFIED) {
        return;
    }
    let marked = etag::marked(own.as_deref(), &plan.names.site.mark);
    match marked.and_then(|tag| HeaderValue::try_from(tag).ok()) {
        Some(tag) => {
            headers.insert(ETAG, tag);
        }
        None => {
            headers.remove(ETAG);
        }
    }
}

/// "Not modified" is about the copy that the client has: its tag is ours if the
/// copy's was.
pub fn confirm(plan: &Plan, parts: &mut response::Parts) {
    if parts.status == StatusCode::NOT_MODIFIED && plan.marked {
        mark(plan, &mut parts.headers);
    }
}
