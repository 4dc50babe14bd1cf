//! Keeps two servers off one SQLite file.
//!
//! Their caches and counters would contradict each other: embedded mode is one
//! process. Commands that only use the database briefly need no lock, SQLite's
//! own is enough for them.

use std::{fs::TryLockError, path::PathBuf};

use secrecy::ExposeSecret;

use super::database::{make_parent, private_file, sqlite_options};
use crate::config::DatabaseConfig;

#[derive(Debug, thiserror::Error)]
pub enum LockError {
    #[error(
        "another Tollgate is running on this SQLite database (it holds {}); \
         stop it, or use Postgres for several instances",
        path.display()
    )]
    Held { path: PathBuf },
    #[error("cannot lock {}", path.display())]
    Io {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("the database URL is not understood")]
    Url(#[source] sqlx::Error),
}

/// The right to serve from an SQLite file: an advisory lock on `<file>.lock`,
/// which the operating system drops with the process, however that ends.
#[derive(Debug)]
pub struct InstanceLock {
    _file: std::fs::File,
}

impl InstanceLock {
    /// Takes the lock without waiting; `None` on Postgres, which needs none.
    /// Call it before [`Database::open`](super::Database::open).
    pub async fn acquire(config: &DatabaseConfig) -> Result<Option<Self>, LockError> {
        let url = config.url.expose_secret();
        let Some(options) = sqlite_options(url).map_err(LockError::Url)? else { return Ok(None) };
        let mut path = options.get_filename().as_os_str().to_owned();
        path.push(".lock");
        let path = PathBuf::from(path);

        let opened = async {
            make_parent(&path).await?;
            Ok(private_file().open(&path).await?.into_std().await)
        };
        match opened.await.map(|file| (file.try_lock(), file)) {
            Ok((Ok(()), file)) => Ok(Some(Self { _file: file })),
            Ok((Err(TryLockError::WouldBlock), _)) => Err(LockError::Held { path }),
            Ok((Err(TryLockError::Error(source)), _)) | Err(source) => {
                Err(LockError::Io { path, source })
            }
        }
    }
}
