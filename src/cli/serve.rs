//! `tollgate serve`: the start-up and the end of the process, top to bottom.

use std::{io::Write as _, net::SocketAddr, sync::Arc, time::Duration};

use secrecy::ExposeSecret as _;
use tokio::{
    signal::unix::Signal,
    time::{Instant, sleep, sleep_until, timeout},
};

use super::Exit;
use crate::{
    api,
    app::{App, AppBuilder},
    config::{AuthConfig, Config, Mount, Sources},
    domain::audit::SYSTEM,
    jobs,
    repositories::InstanceLock,
    server::{self, Stopped, Tls},
    services::{health::Phase, reload::Reloaded},
    shutdown::{Shutdown, hangups},
    telemetry,
};

/// What the usage of requests that were cut may still take to be written.
const LAST_WRITES: Duration = Duration::from_millis(700);
/// Chat answers end so long before the grace period does, or in this part of it.
const LAST_ANSWERS: Duration = Duration::from_secs(2);
const LAST_OF_GRACE: f64 = 0.25;
/// What the last spans may take of it.
const LAST_SPANS: Duration = Duration::from_secs(2);
/// What each of the other last steps may take where no grace is left.
const LAST_STEP: Duration = Duration::from_millis(100);
/// Where all is well it is ready before this is over, and so before anybody can
/// connect: a balancer goes elsewhere, instead of being told that it is starting.
const LISTEN_AFTER: Duration = Duration::from_secs(1);

/// Serves until a signal ends it. `read` reads the settings again.
pub async fn run(
    config: Config,
    read: impl Fn() -> Sources + Send + Sync + 'static,
) -> anyhow::Result<Exit> {
    // Held to the end: the last lines are written when it is dropped.
    let (_logs, level) = telemetry::init(&config.log)?;
    let shutdown = Shutdown::new();
    shutdown.follow_signals()?;
    let hangups = hangups()?;
    let _lock = InstanceLock::acquire(&config.database).await?;
    server::is_free(&config)?;
    let app = Arc::new(AppBuilder::new(config).reading(read).log_level(level).build().await?);
    app.services.usage.journal().open()?;
    measure(&app)?;
    let metrics = match app.config.metrics.port {
        Some(port) => {
            let address = SocketAddr::new(app.config.server.host, port);
            let (router, clock) = (api::metrics_router(&app.state), app.services.clock.clone());
            Some(server::start_side(address, router, clock)?)
        }
        None => None,
    };
    jobs::start(&app, &shutdown);

    // Dropped before it stops: what a half-way attempt holds, the last writes need.
    let mut preparing = Box::pin(jobs::prepare(&app, jobs::print_password));
    let prepared = tokio::select! {
        biased;
        () = shutdown.soft().cancelled() => {
            drop(preparing);
            return Ok(stop(&app, &shutdown, None).await);
        }
        prepared = &mut preparing => Some(prepared),
        () = sleep(LISTEN_AFTER) => None,
    };
    if let Some(Err(error)) = prepared {
        stop(&app, &shutdown, None).await;
        return Err(error);
    }
    // Before it is ready where that takes long, so that /health/live answers while
    // a database is waited for.
    let server = server::start(&app.config, &app.server_parts())?;
    tokio::spawn(reload(app.clone(), server.tls().cloned(), hangups));
    welcome(&app, &server, metrics.as_ref());

    let failed = tokio::select! {
        biased;
        () = shutdown.soft().cancelled() => None,
        prepared = &mut preparing, if prepared.is_none() => prepared.err(),
    };
    drop(preparing);
    if failed.is_none() {
        shutdown.soft().cancelled().await;
    }
    let exit = stop(&app, &shutdown, Some(server)).await;
    match failed {
        Some(error) => Err(error),
        None => Ok(exit),
    }
}

/// With `TOLLGATE_BENCH=unmetered` in the environment nothing is recorded, so that
/// `bench/run` can tell what recording costs. It is no setting, since an operator
/// has no use for it, and holds only where nobody else can reach the process.
fn measure(app: &App) -> anyhow::Result<()> {
    let Some(what) = std::env::var_os("TOLLGATE_BENCH") else { return Ok(()) };
    let is_known = what == "unmetered" && app.config.server.host.is_loopback();
    anyhow::ensure!(is_known, "TOLLGATE_BENCH is only for bench/run, on the loopback address");
    app.services.usage.journal().switch_off();
    tracing::warn!("no usage is recorded: this process is only to be measured");
    Ok(())
}

/// Ends everything within the configured delay and grace and a second more; at
/// once with a second signal.
async fn stop(app: &App, shutdown: &Shutdown, server: Option<server::Running>) -> Exit {
    let was_serving = server.is_some() && app.services.health.phase() == Phase::Serving;
    app.services.health.enter(Phase::Draining);
    if was_serving {
        tokio::select! {
            () = sleep(app.config.server.shutdown_delay) => {}
            () = shutdown.hard().cancelled() => {}
        }
    }
    let deadline = Instant::now() + app.config.server.shutdown_grace;
    let over = async || {
        tokio::select! {
            () = sleep_until(deadline) => {}
            () = shutdown.hard().cancelled() => {}
        }
    };
    let rest = || deadline.saturating_duration_since(Instant::now()).max(LAST_STEP);

    // They would not end by themselves, and those who listen go elsewhere.
    app.services.streams.go_away();
    // Before the rest, so that those who follow an answer read its end.
    let before = app.config.server.shutdown_grace.mul_f64(LAST_OF_GRACE).min(LAST_ANSWERS);
    let chats = async {
        let over = async {
            tokio::select! {
                () = sleep_until(deadline - before) => {}
                () = shutdown.hard().cancelled() => {}
            }
        };
        app.services.chat.leave(over).await;
    };
    let serving = async {
        match server {
            Some(server) => server.stop_until(over()).await,
            None => Stopped::Drained,
        }
    };
    let (stopped, ()) = tokio::join!(serving, chats);
    let drained = stopped == Stopped::Drained;
    shutdown.begin();
    let too_late = async {
        over().await;
        sleep(LAST_WRITES).await;
    };
    let written = jobs::drain(app, too_late).await;
    if !written {
        let records = app.services.usage.pending();
        tracing::warn!(records, "the database did not take all usage; the next start adds it");
    }
    if shutdown.hard().is_cancelled() {
        shutdown.finish(LAST_STEP).await;
    } else {
        shutdown.finish(rest()).await;
    }
    if let Some(tracer) = &app.tracer
        && !tracer.flush(rest().min(LAST_SPANS)).await
    {
        tracing::warn!("the collector of traces did not take the last spans");
    }
    if timeout(rest(), app.db.close()).await.is_err() {
        tracing::warn!("the database did not let go of its connections");
    }
    tracing::info!(drained, "stopped");
    if written { Exit::Done } else { Exit::Refused }
}

/// Reads the settings again at every SIGHUP. Whatever is wrong with them leaves
/// those in force.
async fn reload(app: Arc<App>, tls: Option<Arc<Tls>>, mut hangups: Signal) {
    while hangups.recv().await.is_some() {
        let (services, tls) = (app.services.clone(), tls.clone());
        // It reads files.
        let reading = move || {
            tls.inspect(|tls| tls.reload());
            services.reload.reload()
        };
        let reloaded = tokio::task::spawn_blocking(reading).await;
        let reloaded = reloaded.map_err(anyhow::Error::from);
        match reloaded.and_then(|reloaded| reloaded.map_err(anyhow::Error::from)) {
            Ok(done) => {
                let Reloaded { changed, restart_needed } = &done;
                tracing::info!(
                    changed = changed.join(","),
                    restart_needed = restart_needed.join(","),
                    "the settings were read again"
                );
                if let Err(error) = app.services.reload.note(&SYSTEM, &done).await {
                    let error = &error as &dyn std::error::Error;
                    tracing::error!(error, "the audit log does not have that");
                }
            }
            Err(error) => tracing::error!(
                error = format!("{error:#}"),
                "the settings cannot be used; those in force stay"
            ),
        }
    }
}

/// Secrets that were made here are known here only, and others may run on the
/// same database.
fn warn_of_own_secrets(config: &Config) {
    if config.database.url.expose_secret().starts_with("sqlite:") {
        return;
    }
    let AuthConfig { secret_key, private_key, .. } = &config.auth;
    let own = [
        ("AUTH_SECRET_KEY", secret_key.is_none() && private_key.is_none()),
        ("SECRETS_KEY", config.secrets.key.is_none()),
        (
            "SESSION_SECRET_KEY",
            config.chat.webhook.is_some() && config.chat.visitors.secret_key.is_none(),
        ),
    ];
    for (name, _) in own.iter().filter(|(_, own)| *own) {
        tracing::warn!(
            setting = name,
            "not set: another instance on this database will not understand what this one signs \
             or seals"
        );
    }
}

/// For the person who has just started it: on standard error, since standard
/// output is the log.
fn welcome(app: &App, server: &server::Running, metrics: Option<&server::Side>) {
    let address = server.address();
    let url = app.config.server.public_url.clone().unwrap_or_else(|| {
        let scheme = if server.tls().is_some() { "https" } else { "http" };
        format!("{scheme}://{address}")
    });
    warn_of_own_secrets(&app.config);
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        address = %address,
        metrics = metrics.map(|side| tracing::field::display(side.address())),
        upstreams = app.config.upstreams.iter().map(|u| u.name).collect::<Vec<_>>().join(","),
        "listening"
    );
    let place = |mount: &Mount| match mount {
        Mount::Host(host) => format!("host {host}"),
        Mount::Prefix(_) | Mount::Root => format!("{url}{}", mount.prefix()),
    };
    let upstreams = app.config.upstreams.iter();
    let places: Vec<String> = upstreams.map(|upstream| place(&upstream.mount)).collect();
    let proxies = places.join("\n    proxy  ");
    let chat =
        if app.config.chat.demo { format!("\n    chat   {url}/chat/demo") } else { String::new() };
    // Nobody may be there to read it.
    _ = writeln!(
        std::io::stderr(),
        "\n  Tollgate {} listens on {url}\n\n    docs   {url}/api/docs\n    proxy  {proxies}{chat}\n",
        env!("CARGO_PKG_VERSION"),
    );
}
