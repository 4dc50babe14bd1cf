//! `tollgate serve`: the start-up and the end of the process, top to bottom.

use std::sync::Arc;

use super::Exit;
use crate::{
    app::{App, AppBuilder},
    config::Config,
    jobs,
    repositories::InstanceLock,
    server::{self, Stopped},
    services::health::Phase,
    shutdown::Shutdown,
    telemetry,
};

pub async fn run(config: Config) -> anyhow::Result<Exit> {
    telemetry::init(&config.log)?;
    let _lock = InstanceLock::acquire(&config.database).await?;
    let app = Arc::new(AppBuilder::new(config).build().await?);
    let shutdown = Shutdown::new();
    shutdown.follow_signals()?;

    // Listening before ready, so that /health/live answers while a database is
    // waited for.
    let server = server::start(&app.config, &app.server_parts())?;
    welcome(&app, &server);
    jobs::start(&app, &shutdown);
    let preparing = tokio::spawn({
        let app = app.clone();
        let shutdown = shutdown.clone();
        async move {
            let prepared = jobs::prepare(&app, jobs::print_password).await;
            if prepared.is_err() {
                shutdown.begin();
            }
            prepared
        }
    });

    shutdown.soft().cancelled().await;
    let failed = match preparing.is_finished() {
        true => preparing.await?.err(),
        false => {
            preparing.abort();
            None
        }
    };
    app.services.health.enter(Phase::Draining);
    tokio::time::sleep(app.config.server.shutdown_delay).await;
    let grace = app.config.server.shutdown_grace;
    let drained = server.stop(grace).await == Stopped::Drained;
    shutdown.finish(grace).await;
    let written = jobs::drain(&app, grace).await;
    if !written {
        tracing::error!("usage records were lost: the database did not take them");
    }
    app.db.close().await;
    tracing::info!(drained, "stopped");
    if let Some(error) = failed {
        return Err(error);
    }
    Ok(if written { Exit::Done } else { Exit::Refused })
}

/// For the person who has just started it.
fn welcome(app: &App, server: &server::Running) {
    let url = app
        .config
        .server
        .public_url
        .clone()
        .unwrap_or_else(|| format!("http://{}", server.address()));
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        address = %server.address(),
        upstream = app.config.upstream.url.as_deref().map_or("echo", |_| "default"),
        "listening"
    );
    println!(
        "\n  Tollgate {} listens on {url}\n\n    docs   {url}/api/docs\n    proxy  {url}{}\n",
        env!("CARGO_PKG_VERSION"),
        app.config.upstream.mount.prefix(),
    );
}
