//! What stands behind an upstream: targets, their health and limits, how they
//! are reached, and who may ask for which of their paths.

mod addresses;
mod admin;
mod balance;
mod docs;
mod fields;
mod health;
mod hosts;
mod http2;
mod limits;
mod malformed;
mod policy;
mod reload;
pub mod resolver;
pub mod tls;
mod urls;

use std::net::SocketAddr;

use serde_json::Value;

use crate::support::{Options, TestApp, raw};

/// An instance with this `tollgate.toml`, without limits by address.
async fn start(file: &str) -> TestApp {
    with(file, Options::default()).await
}

pub async fn with(file: &str, options: Options) -> TestApp {
    let mut settings = options.settings;
    let base = [("FILE", file), ("RATE_LIMIT_PER_MINUTE", "0"), ("RATE_LIMIT_PER_HOUR", "0")];
    settings.extend(base.map(|(name, value)| (name, value.to_owned())));
    TestApp::with(Options { settings, ..options }).await
}

/// One upstream at the root that anybody may ask, and what else it says.
fn public(rest: &str) -> String {
    format!("[[upstreams]]\nname='app'\nmount='/'\nauth='public'\n{rest}\n")
}

fn address(app: &TestApp) -> SocketAddr {
    app.running.as_ref().unwrap().address()
}

/// `GET path` on a connection of its own.
async fn get(app: &TestApp, path: &str) -> raw::Answer {
    raw::Raw::exchange(address(app), format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")).await
}

/// `POST path` with a body of four bytes.
async fn post(app: &TestApp, path: &str) -> raw::Answer {
    let head = format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody");
    raw::Raw::exchange(address(app), head).await
}

/// The targets of the first upstream, as an admin sees them.
pub async fn targets(app: &TestApp) -> Vec<Value> {
    let answer = app.admin().await.get("/api/v1/admin/upstreams").await.expect(200);
    answer.json["items"][0]["targets"].as_array().unwrap().clone()
}

/// Where nothing listens.
fn closed() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}
