//! `tollgate healthcheck`: for containers, which have no curl.

use std::{net::IpAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, StatusCode, Uri, header::HOST};
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

use super::{Exit, HealthcheckArgs};
use crate::{
    config::{Config, TlsConfig},
    gateway::client_config,
};

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
        let scheme = if config.server.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{host}:{}", config.server.port)
    });
    let uri: Uri = format!("{}/health/ready", base.trim_end_matches('/')).parse()?;
    let host = match (&args.url, config.server.trusted_hosts.first()) {
        // The loopback's address is usually not among the names that are answered.
        (None, Some(host)) => host.clone(),
        _ => uri.authority().map_or_else(String::new, ToString::to_string),
    };
    let request = Request::get(uri.path()).header(HOST, host).body(Empty::new())?;
    Ok(match tokio::time::timeout(PATIENCE, ask(&uri, request)).await {
        Ok(Ok(status)) if status.is_success() => Exit::Done,
        Ok(Ok(_)) => Exit::Refused,
        Ok(Err(_)) | Err(_) => Exit::Unreachable,
    })
}

async fn ask(uri: &Uri, request: Request<Empty<Bytes>>) -> anyhow::Result<StatusCode> {
    let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    let secure = uri.scheme_str() == Some("https");
    let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
    let socket = TcpStream::connect((host, port)).await?;
    if !secure {
        return answer(socket, request).await;
    }
    // It is asked by address, which certificates are not of; and nothing but a
    // status is told and believed.
    let any = TlsConfig { verify: false, ca: None, http2: false };
    let connector = TlsConnector::from(Arc::new(client_config(&any, false)));
    let name = ServerName::try_from(host.to_owned())?;
    answer(connector.connect(name, socket).await?, request).await
}

async fn answer<S>(socket: S, request: Request<Empty<Bytes>>) -> anyhow::Result<StatusCode>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(socket)).await?;
    tokio::spawn(connection);
    Ok(sender.send_request(request).await?.status())
}
