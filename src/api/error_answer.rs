//! How a failure looks on the wire.

use axum::http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use bytes::Bytes;
use chrono::{DateTime, Utc};

use super::{ApiError, ErrorCode, Inner, LimitProblem, Problem};
use crate::gateway::rate_headers;

impl ApiError {
    /// Turns `response`, which carries this error as an extension, into the
    /// finished answer. `now` is what the reset time is counted from.
    pub fn complete<B: From<Bytes>>(
        self,
        response: &mut Response<B>,
        request_id: &str,
        instance: &str,
        now: DateTime<Utc>,
    ) {
        let problem = self.problem(request_id, instance);
        let body = serde_json::to_vec(&problem).expect("strings and numbers serialize");
        *response.body_mut() = Bytes::from(body).into();
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        let problem_json = HeaderValue::from_static("application/problem+json");
        headers.insert(header::CONTENT_TYPE, problem_json);
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.remove(header::CONTENT_LENGTH);
        self.put_fields(headers, now);
    }

    /// What is told of it.
    pub fn problem(&self, request_id: &str, instance: &str) -> Problem {
        let Inner { code, detail, errors, limit, other_limits, shortfall, .. } = &*self.0;
        let status = self.status();
        Problem {
            kind: format!("https://tollgate.example/problems/{}", code.as_str().replace('_', "-")),
            title: status.canonical_reason().unwrap_or_default().to_owned(),
            status: status.as_u16(),
            code: *code,
            detail: detail.clone(),
            instance: instance.to_owned(),
            request_id: request_id.to_owned(),
            errors: errors.clone(),
            limit: limit.as_ref().map(LimitProblem::from),
            other_limits: other_limits.iter().map(LimitProblem::from).collect(),
            missing_minor: shortfall.map(|shortfall| shortfall.missing),
            balance_minor: shortfall.map(|shortfall| shortfall.balance),
        }
    }

    /// The fields that belong to the failure, in whatever form it is told.
    pub fn put_fields(&self, headers: &mut HeaderMap, now: DateTime<Utc>) {
        let Inner { code, limit, other_limits, retry_after_seconds, .. } = &*self.0;
        if code.status() == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, challenge(*code));
        }
        if let Some(state) = limit {
            rate_headers::set(headers, state, now);
            rate_headers::list(headers, other_limits);
            headers.insert(header::RETRY_AFTER, rate_headers::retry_after(state));
        }
        if let Some(seconds) = retry_after_seconds {
            headers.insert(header::RETRY_AFTER, (*seconds).into());
        }
    }
}

/// RFC 6750, 3: no error code where no credential was presented.
fn challenge(code: ErrorCode) -> HeaderValue {
    match code {
        ErrorCode::InvalidCredential => {
            HeaderValue::from_static("Bearer realm=\"tollgate\", error=\"invalid_token\"")
        }
        _ => HeaderValue::from_static("Bearer realm=\"tollgate\""),
    }
}
