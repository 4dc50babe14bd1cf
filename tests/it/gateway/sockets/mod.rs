//! Every `WebSocket` row through the gateway, over real sockets (RELIABILITY P).

mod early;
mod ends;
mod forged;
mod frames;
mod metering;
mod origins;
mod presets;
mod query;
mod refused;
mod shown;
mod simple;
mod tls;
mod upgrades;

use crate::{
    streams::{FREE, put_in_front},
    support::{Options, TestApp, websocket::Upstream},
};

/// Where [`app`] has its upstream, and a path in it.
const PATH: &str = "/up/ws";
/// So that their number is no matter.
const MANY: &str = "websocket = { per_credential = 100000 }";

/// An instance without limits in front of `upstream`, with more of its settings.
async fn app(upstream: &Upstream, settings: &str) -> TestApp {
    let app = TestApp::configured(FREE).await;
    put_in_front(&app, &upstream.url(), &format!("{MANY}\n{settings}"));
    app
}

/// The same on one clock.
async fn app_with(upstream: &Upstream, settings: &str, options: Options) -> TestApp {
    let free = FREE.into_iter().map(|(name, value)| (name, value.to_owned()));
    let app = TestApp::with(Options { settings: free.collect(), ..options }).await;
    put_in_front(&app, &upstream.url(), &format!("{MANY}\n{settings}"));
    app
}
