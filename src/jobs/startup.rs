//! From "the process runs" to "it is ready": the schema and the first admin.

use std::{io::Write as _, time::Duration};

use rand::RngExt as _;
use secrecy::ExposeSecret as _;

use crate::{
    app::App,
    repositories::{MigrateError, StoreError},
    services::{
        accounts::AccountError,
        bootstrap::{self, FirstAdmin},
        health::Phase,
        wallet::CurrencyError,
    },
};

const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// With what an attempt takes, and the jitter, less than the 5 s within which a
/// database that has come back is to be used (RELIABILITY G-08).
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Migrates and makes the first admin, trying until the database is there;
/// then the process is ready. The process answers `/health/live` meanwhile.
///
/// `announce` is told of the admin that was made, if any.
/// # Errors
/// What waiting will not mend: a schema that cannot be migrated, an admin
/// whose name is taken, a currency that is not the ledger's.
pub async fn prepare(app: &App, announce: impl FnOnce(&FirstAdmin)) -> anyhow::Result<()> {
    let mut pause = FIRST_PAUSE;
    let made = loop {
        match attempt(app).await {
            Ok(made) => break made,
            Err(error) if !is_temporary(&error) => return Err(error),
            Err(error) => {
                tracing::warn!(
                    error = format!("{error:#}"),
                    retry_in_ms = pause.as_millis(),
                    "not ready: the database cannot be prepared"
                );
                // Instances that lost the same database must not return in step.
                tokio::time::sleep(pause.mul_f64(rand::rng().random_range(0.75..1.25))).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    };
    if let Some(admin) = &made {
        tracing::info!(user.name = admin.username, "the first admin was made");
        announce(admin);
    }
    app.services.health.enter(Phase::Serving);
    tracing::info!("ready");
    Ok(())
}

fn is_temporary(error: &anyhow::Error) -> bool {
    let migrate = error.downcast_ref::<MigrateError>();
    if let Some(error) = migrate {
        return matches!(error, MigrateError::Unavailable(_) | MigrateError::Locked);
    }
    if let Some(error) = error.downcast_ref::<CurrencyError>() {
        return matches!(error, CurrencyError::Store(StoreError::Unavailable(_)));
    }
    if let Some(StoreError::Unavailable(_)) = error.downcast_ref::<StoreError>() {
        return true;
    }
    matches!(
        error.downcast_ref::<AccountError>(),
        Some(AccountError::Store(StoreError::Unavailable(_)) | AccountError::Hashing(_))
    )
}

async fn attempt(app: &App) -> anyhow::Result<Option<FirstAdmin>> {
    app.db.migrate().await?;
    let services = &app.services;
    services.usage.prepare().await?;
    services.wallet.settle_currency().await?;
    let made =
        bootstrap::first_admin(&app.db, &services.accounts, &app.config.admin, &services.clock);
    let made = made.await?;
    services.audit.begin().await?;
    Ok(made)
}

/// The one place where a generated password is shown: on standard error, since
/// standard output is the log.
pub fn print_password(admin: &FirstAdmin) {
    if let Some(password) = &admin.generated_password {
        // With nobody there to read it, `users set-password` makes another.
        _ = writeln!(
            std::io::stderr(),
            "\n  The first admin was made. This password is shown once:\n\
             \n    username  {}\n    password  {}\n",
            admin.username,
            password.expose_secret()
        );
    }
}
