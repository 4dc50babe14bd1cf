//! What came in by one door and went out again: requests by status, their
//! durations and the bytes of their bodies.
//!
//! Handles are kept, so counting a request is a few atomic additions.

use std::sync::Arc;

use metrics::{Counter, Histogram, counter, histogram};

/// One request that is over.
#[derive(Clone, Copy, Debug)]
pub struct Exchange {
    pub status: u16,
    pub seconds: f64,
    /// Of the bodies.
    pub bytes_in: u64,
    pub bytes_out: u64,
}

/// The counters of one door: the API, or one upstream.
#[derive(Debug)]
pub struct Traffic {
    /// By status class, 1xx first.
    requests: [Counter; 5],
    duration: Histogram,
    bytes_in: Counter,
    bytes_out: Counter,
}

impl Traffic {
    /// That of our own routes.
    pub fn of_api() -> Arc<Self> {
        Self::new("api", "")
    }

    /// That of the upstream of this name.
    pub fn of_upstream(name: &'static str) -> Arc<Self> {
        Self::new("gateway", name)
    }

    /// To be made after the recorder of metrics is installed.
    fn new(surface: &'static str, upstream: &'static str) -> Arc<Self> {
        let labels = [("surface", surface), ("upstream", upstream)];
        let requests = ["1xx", "2xx", "3xx", "4xx", "5xx"].map(|class| {
            let labels = [("surface", surface), ("upstream", upstream), ("status", class)];
            counter!("tollgate_http_requests_total", &labels)
        });
        Arc::new(Self {
            requests,
            duration: histogram!("tollgate_http_request_duration_seconds", &labels),
            bytes_in: counter!("tollgate_http_request_bytes_total", &labels),
            bytes_out: counter!("tollgate_http_response_bytes_total", &labels),
        })
    }

    pub fn count(&self, exchange: Exchange) {
        let Exchange { status, seconds, bytes_in, bytes_out } = exchange;
        let class = usize::from(status / 100).clamp(1, 5);
        self.requests[class - 1].increment(1);
        self.duration.record(seconds);
        if bytes_in > 0 {
            self.bytes_in.increment(bytes_in);
        }
        if bytes_out > 0 {
            self.bytes_out.increment(bytes_out);
        }
    }
}
