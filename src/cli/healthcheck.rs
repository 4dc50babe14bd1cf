//! `tollgate healthcheck`: for containers, which have no curl.

use std::{net::IpAddr, time::Duration};

use bytes::Bytes;
use http::{Request, header::HOST};
use http_body_util::Empty;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};

use super::{Exit, HealthcheckArgs};
use crate::config::Config;

const PATIENCE: Duration = Duration::from_secs(4);

/// 0 when the instance is ready, 1 when it says that it is not, 3 when it does
/// not answer.
pub async fn run(config: &Config, args: HealthcheckArgs) -> anyhow::Result<Exit> {
    let base = args.url.clone().unwrap_or_else(|| {
        let host = match config.server.host {
            // Where "every address" is listened on, the loopback is one of them.
            IpAddr::V4(ip) if ip.is_unspecified() => "127.0.0.1".to_owned(),
            IpAddr::V6(ip) if ip.is_unspecified() => "[::1]".to_owned(),
            IpAddr::V4(ip) => ip.to_string(),
            IpAddr::V6(ip) => format!("[{ip}]"),
        };
        format!("http://{host}:{}", config.server.port)
    });
    let uri: http::Uri = format!("{}/health/ready", base.trim_end_matches('/')).parse()?;
    let mut request = Request::get(uri);
    // The loopback's address is usually not among the names that are answered.
    if let (None, Some(host)) = (&args.url, config.server.trusted_hosts.first()) {
        request = request.header(HOST, host);
    }
    let client: Client<_, Empty<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    match tokio::time::timeout(PATIENCE, client.request(request.body(Empty::new())?)).await {
        Ok(Ok(response)) if response.status().is_success() => Ok(Exit::Done),
        Ok(Ok(_)) => Ok(Exit::Refused),
        Ok(Err(_)) | Err(_) => Ok(Exit::Unreachable),
    }
}
