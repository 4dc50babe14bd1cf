//! The services for one command, without serving anything.
//!
//! A change reaches running instances over Redis at once; without Redis they
//! see it when their copies expire, within 10 seconds.

use std::io::Read as _;

use secrecy::SecretString;

use super::{PasswordArgs, account};
use crate::{
    app::{App, AppBuilder},
    config::Config,
    domain::audit::Actor,
    services::Services,
};

pub struct Offline {
    pub app: App,
    /// Who runs the command.
    by: Actor,
}

impl Offline {
    pub async fn open(config: Config) -> anyhow::Result<Self> {
        let by = Actor::command(&account::name());
        Ok(Self { app: AppBuilder::new(config).build().await?, by })
    }

    /// With the schema brought up to date, which a first command may need.
    pub async fn ready(config: Config) -> anyhow::Result<Self> {
        let this = Self::open(config).await?;
        this.app.db.migrate().await?;
        if let Some(redis) = &this.app.redis {
            // So that the change is announced; without Redis it just takes longer.
            let connected = redis.available();
            let _late = tokio::time::timeout(std::time::Duration::from_secs(1), connected).await;
        }
        Ok(this)
    }

    pub fn by(&self) -> &Actor {
        &self.by
    }

    pub fn services(&self) -> &Services {
        &self.app.services
    }

    pub async fn close(self) {
        self.app.db.close().await;
    }
}

/// A password from standard input, or a generated one that is to be printed.
pub struct ChosenPassword {
    pub text: SecretString,
    pub generated: bool,
}

impl ChosenPassword {
    pub fn read(args: PasswordArgs, offline: &Offline) -> anyhow::Result<Self> {
        if !args.password_stdin {
            let text = offline.services().accounts.generate_password();
            return Ok(Self { text, generated: true });
        }
        Ok(Self { text: secret_from_stdin()?, generated: false })
    }
}

/// One secret on standard input, without the line break at its end.
pub fn secret_from_stdin() -> anyhow::Result<SecretString> {
    const MAX: u64 = 4096;
    let mut text = String::new();
    std::io::stdin().lock().take(MAX).read_to_string(&mut text)?;
    let text = text.trim_end_matches(['\r', '\n']);
    anyhow::ensure!(!text.is_empty(), "nothing was given on standard input");
    Ok(text.into())
}
