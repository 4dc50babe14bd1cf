//! One question to one target: is it well?
//!
//! On a connection of its own, which does not count among those of requests:
//! a target whose connections are all in use is busy, not ill.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, StatusCode, Uri, header, uri::PathAndQuery};
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use super::{
    connect::{Connector, Network, Offer},
    upstream::Upstream,
};
use crate::{
    config::HealthCheck,
    services::upstreams::{TargetState, UpstreamState},
};

/// How a target is asked.
pub struct Checkup {
    target: Arc<TargetState>,
    connector: Connector,
    request: Request<Empty<Bytes>>,
    limit: Duration,
}

impl Checkup {
    pub fn new(
        upstream: &Arc<UpstreamState>,
        target: &Arc<TargetState>,
        check: &HealthCheck,
    ) -> Self {
        let url: Uri = target.config.url.parse().expect("the configuration checked it");
        let connector = Connector::new(&Network::new(upstream), &url);
        let mut request = Request::new(Empty::new());
        let path = PathAndQuery::try_from(check.path.as_str()).expect("a path, checked");
        *request.uri_mut() = path.into();
        let headers = request.headers_mut();
        headers.insert(header::HOST, Upstream::own_host(&upstream.config, &url));
        headers.insert(header::USER_AGENT, header::HeaderValue::from_static("tollgate"));
        headers.insert(header::CONNECTION, header::HeaderValue::from_static("close"));
        headers
            .extend(Upstream::basic(&upstream.config).map(|value| (header::AUTHORIZATION, value)));
        Self { target: Arc::clone(target), connector, request, limit: check.timeout }
    }

    /// Asks, and lets the target's state know. A redirect is a good answer too:
    /// it is not followed.
    pub async fn run(&self) {
        let status = timeout(self.limit, self.ask()).await.ok().flatten();
        let well = |status: StatusCode| status.is_success() || status.is_redirection();
        self.target.checked(status.is_some_and(well));
    }

    async fn ask(&self) -> Option<StatusCode> {
        let stream = self.connector.connect(Offer::Http1, self.limit, None).await.ok()?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.ok()?;
        // The answer's body is of no interest; the connection goes with it.
        let _connection = AbortOnDropHandle::new(tokio::spawn(connection));
        Some(sender.send_request(self.request.clone()).await.ok()?.status())
    }
}
