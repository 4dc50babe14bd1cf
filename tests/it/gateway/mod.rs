//! The proxied request over real sockets: a client that sends raw bytes on one
//! side, an upstream that keeps raw bytes on the other.

mod delivery;
mod faults;
pub mod forgeries;
mod forwarded;
mod framing;
mod hosts;
mod http2;
mod identity;
mod limits;
mod origins;
mod paths;
mod replay;
mod sockets;
mod streaming;
mod timing;

use std::{net::SocketAddr, time::Duration};

use serde_json::{Value, json};
use tollgate::{
    domain::{page::PageRequest, usage::UsageRecord},
    services::usage::RequestFilter,
};

use crate::support::{Options, TestApp, recorder::Recorder};

/// An instance in front of `recorder`, mounted at `/`, without limits, that
/// trusts no proxy.
async fn in_front_of(recorder: &Recorder, settings: &[(&'static str, &str)]) -> TestApp {
    in_front_of_url(&recorder.url(), settings).await
}

async fn in_front_of_url(url: &str, settings: &[(&'static str, &str)]) -> TestApp {
    let base = [
        ("UPSTREAM_URL", url),
        ("UPSTREAM_MOUNT", "/"),
        ("SERVER_TRUSTED_PROXIES", ""),
        ("RATE_LIMIT_PER_MINUTE", "0"),
        ("RATE_LIMIT_PER_HOUR", "0"),
        ("RATE_LIMIT_USER_PER_MINUTE", "0"),
        ("RATE_LIMIT_USER_PER_HOUR", "0"),
        ("RATE_LIMIT_KEY_PER_MINUTE", "0"),
        ("RATE_LIMIT_KEY_PER_HOUR", "0"),
    ];
    let settings = base.iter().chain(settings).map(|(n, v)| (*n, (*v).to_owned())).collect();
    TestApp::with(Options { settings, ..Options::default() }).await
}

fn address(app: &TestApp) -> SocketAddr {
    app.running.as_ref().unwrap().address()
}

/// A key of the admin, and the text of `GET {path}` with it.
pub async fn admin_key(app: &TestApp) -> String {
    let admin = app.admin().await;
    let issued = admin.post("/api/v1/keys", json!({ "name": "test" })).await.expect(201);
    issued.text("key").to_owned()
}

/// The recorded requests, newest first, once there are at least `count`.
pub async fn recorded(app: &TestApp, count: usize) -> Vec<Value> {
    let usage = &app.app.services.usage;
    for _ in 0..3000 {
        app.flush().await;
        let page = PageRequest { limit: 200, after: None };
        let found = usage.requests(&RequestFilter::default(), page).await.unwrap().items;
        if found.len() >= count {
            return found.iter().map(shown).collect();
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("fewer than {count} requests were recorded");
}

/// All that were recorded, once there are at least `count`.
pub async fn all_recorded(app: &TestApp, count: usize) -> Vec<UsageRecord> {
    for _ in 0..3000 {
        app.flush().await;
        let records = every_page(app).await;
        if records.len() >= count {
            return records;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("fewer than {count} requests were recorded");
}

async fn every_page(app: &TestApp) -> Vec<UsageRecord> {
    let (mut page, mut records) = (PageRequest::FIRST, vec![]);
    loop {
        let found = app.app.services.usage.requests(&RequestFilter::default(), page).await;
        let found = found.unwrap();
        records.extend(found.items);
        let Some(next) = page.followed_by(found.next) else { return records };
        page = next;
    }
}

fn shown(record: &UsageRecord) -> Value {
    let UsageRecord { path, status, outcome, bytes_in, bytes_out, key_id, .. } = record;
    json!({
        "path": path, "status": status, "outcome": outcome, "bytes_in": bytes_in,
        "bytes_out": bytes_out, "key_id": key_id,
    })
}
