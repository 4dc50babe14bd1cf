//! Background work: each job idempotent, bounded and stoppable, and safe to
//! run on every instance at once.

mod changes;
mod ledger;
mod startup;
mod streams;
mod upstreams;

use std::{path::PathBuf, sync::Arc, time::Duration};

use rand::RngExt as _;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

pub use self::{
    changes::run as follow_changes,
    ledger::reconcile,
    startup::{prepare, print_password},
    streams::run as watch_streams,
    upstreams::watch_upstreams,
};
use crate::{
    app::App,
    services::{ChatService, Services, health::Phase, limits::LimitService, usage::DrainError},
    shutdown::Shutdown,
    telemetry::metrics_handle,
};

/// How often finished requests are written.
const FLUSH_EVERY: Duration = Duration::from_millis(500);
/// How often it is looked for usage that a killed process left.
const ADOPT_EVERY: Duration = Duration::from_secs(5);
/// How soon it is looked whether the process has started.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// How often counters that count nothing are freed, and samples of durations
/// are folded together.
const SWEEP_EVERY: Duration = Duration::from_secs(30);
/// How often places among what is under way are renewed: they are lent for three
/// times as long.
const RENEW_EVERY: Duration = Duration::from_secs(1);
/// How often it is looked for hours whose usage is to be rolled up.
const ROLL_UP_EVERY: Duration = Duration::from_mins(1);
/// How often what is past its retention is dropped.
const PRUNE_EVERY: Duration = Duration::from_mins(10);
/// How often refused logins are noted.
const NOTE_EVERY: Duration = Duration::from_mins(1);
/// How often it is looked whether the ledger is to be verified, and what the
/// last verification said.
const RECONCILE_EVERY: Duration = Duration::from_secs(10);

/// How often it is looked for chat answers whose instance is gone.
const ABANDONED_EVERY: Duration = Duration::from_secs(5);

/// Starts every job. They end with the soft token, or where requests that are
/// still under way need them, when those have ended; what usage still waits is
/// written by [`drain`] afterwards.
pub fn start(app: &App, shutdown: &Shutdown) {
    let tasks = shutdown.tasks();
    let stop = || shutdown.soft().clone();

    let (hub, token) = (app.hub.clone(), shutdown.served().clone());
    tasks.spawn(async move { hub.run(token).await });

    tasks.spawn(watch_streams(app.services.streams.clone(), shutdown.served().clone()));

    let (services, served) = (app.services.clone(), shutdown.served().clone());
    tasks.spawn(async move {
        started(&services, &served).await;
        Box::pin(follow_changes(services.changes.clone(), served)).await;
    });

    let journal = app.services.usage.journal().clone();
    let served = shutdown.served().clone();
    tasks.spawn(async move {
        served.run_until_cancelled(journal.keep_synced()).await;
    });

    tasks.spawn(adopt(app.services.clone(), stop()));

    let (usage, health) = (app.services.usage.clone(), app.services.health.clone());
    tasks.spawn(every(FLUSH_EVERY, stop(), async move || {
        if health.phase() == Phase::Starting {
            return;
        }
        let written = async {
            usage.flush().await?;
            usage.trim().await.map_err(DrainError::from)
        };
        if let Err(error) = written.await {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                pending = usage.pending(),
                "usage could not be written; it is kept and tried again"
            );
        }
    }));

    // Beside the flush, which waits for a database that hangs.
    let usage = app.services.usage.clone();
    tasks.spawn(every(FLUSH_EVERY, stop(), async move || usage.look_for_room().await));

    let (services, token) = (app.services.clone(), stop());
    tasks.spawn(every(ROLL_UP_EVERY, stop(), async move || {
        if services.health.phase() == Phase::Starting {
            return;
        }
        // After an upgrade there may be as many hours as a year has.
        let work = Box::pin(services.usage.roll_up());
        let Some(done) = token.run_until_cancelled(work).await else { return };
        if let Err(error) = done {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, "usage could not be rolled up; tried again later");
        }
    }));

    tasks.spawn(keep_places(app.services.limits.clone(), shutdown.served().clone()));
    tasks.spawn(watch_upstreams(app.services.upstreams.clone(), stop()));

    tasks.spawn(keep_chats(app.services.chat.clone(), shutdown.served().clone()));
    tasks.spawn(end_abandoned(app.services.clone(), stop()));

    let (limiter, metrics) = (app.limiter.clone(), metrics_handle());
    tasks.spawn(every(SWEEP_EVERY, stop(), async move || {
        limiter.sweep();
        metrics.run_upkeep();
    }));

    let services = app.services.clone();
    tasks.spawn(every(PRUNE_EVERY, stop(), async move || {
        if services.health.phase() == Phase::Starting {
            return;
        }
        // What fails keeps nothing else from being tidied up.
        for pruned in [
            services.usage.prepare().await,
            services.usage.prune().await,
            services.logins.prune().await,
            services.wallet.prune_keys().await,
            services.tickets.prune().await,
            services.changes.prune().await,
            services.audit.prune().await,
            services.chat.prune().await,
            services.api_keys.prune().await,
        ] {
            if let Err(error) = pruned {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, "old records could not be dropped; tried again later");
            }
        }
    }));

    tasks.spawn(keep_anchor(app.services.clone(), app.config.data_dir.clone(), stop()));

    tasks.spawn(note_attempts(app.services.clone(), stop()));

    let (services, token) = (app.services.clone(), stop());
    tasks.spawn(every(RECONCILE_EVERY, stop(), async move || {
        if services.health.phase() == Phase::Starting {
            return;
        }
        // A long ledger is not to hold up the end of the process.
        let work = Box::pin(reconcile(&services));
        let Some(done) = token.run_until_cancelled(work).await else { return };
        if let Err(error) = done {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, "the ledger could not be verified");
        }
    }));
}

/// Tells those who wait for a chat answer that its instance is gone.
async fn end_abandoned(services: Services, stop: CancellationToken) {
    every(ABANDONED_EVERY, stop, async move || {
        if services.health.phase() == Phase::Starting {
            return;
        }
        if let Err(error) = services.chat.end_abandoned().await {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, "abandoned chat answers could not be looked for");
        }
    })
    .await;
}

/// Keeps the head of the audit log where the database's owner does not reach.
async fn keep_anchor(services: Services, folder: PathBuf, stop: CancellationToken) {
    every(PRUNE_EVERY, stop, async move || {
        if services.health.phase() == Phase::Starting {
            return;
        }
        if let Err(error) = services.audit.keep_anchor(&folder).await {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, "the head of the audit log could not be kept");
        }
    })
    .await;
}

/// Writes what usage is left once the server has stopped, before the process
/// ends; whether all was written before `over`. What was not is in the journal.
pub async fn drain(app: &App, over: impl Future<Output = ()>) -> bool {
    const PAUSE: Duration = Duration::from_millis(100);
    let usage = &app.services.usage;
    let written = async {
        while usage.flush().await.is_err() || !usage.journal().is_drained() {
            sleep(PAUSE).await;
        }
    };
    tokio::select! {
        biased;
        () = written => {
            usage.journal().close();
            true
        }
        () = over => false,
    }
}

/// Writes chat answers down until `served`, and what is left then.
pub async fn keep_chats(chat: Arc<ChatService>, served: CancellationToken) {
    chat.write_down(served).await;
}

/// Waits until the tables are there.
async fn started(services: &Services, stop: &CancellationToken) {
    while services.health.phase() == Phase::Starting && !stop.is_cancelled() {
        sleep(LOOK_AGAIN).await;
    }
}

/// Takes over the usage that killed processes left: soon after the start, and
/// again and again, since others may share the disk.
async fn adopt(services: Services, stop: CancellationToken) {
    started(&services, &stop).await;
    while !stop.is_cancelled() {
        if let Err(error) = services.usage.adopt().await {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, "the usage of a killed process could not be added yet");
        }
        stop.run_until_cancelled(sleep(ADOPT_EVERY)).await;
    }
}

/// Notes refused logins in the audit log now and then, and a last time when the
/// process stops.
async fn note_attempts(services: Services, stop: CancellationToken) {
    let own = services.clone();
    every(NOTE_EVERY, stop, async move || note_refused(&own).await).await;
    note_refused(&services).await;
}

async fn note_refused(services: &Services) {
    if services.health.phase() == Phase::Starting {
        return;
    }
    if let Err(error) = services.audit.note_attempts().await {
        let error = &error as &dyn std::error::Error;
        tracing::warn!(error, "refused logins could not be noted; tried again later");
    }
}

/// Renews what other instances lend of places among what is under way.
async fn keep_places(limits: Arc<LimitService>, stop: CancellationToken) {
    every(RENEW_EVERY, stop, async move || limits.renew().await).await;
}

/// Runs `work` at once and then again and again, with up to a tenth of the
/// pause more, so that instances started together do not work in step.
async fn every(pause: Duration, stop: CancellationToken, work: impl AsyncFn()) {
    loop {
        work().await;
        let jitter = rand::rng().random_range(0.0..0.1);
        tokio::select! {
            () = stop.cancelled() => return,
            () = sleep(pause.mul_f64(1.0 + jitter)) => {}
        }
    }
}
