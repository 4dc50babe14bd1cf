//! The folder of a journal, and its files' permissions.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use uuid::Uuid;

use super::LOCK;

/// The folder, ours as long as the lock is.
pub(super) struct Home {
    pub folder: PathBuf,
    _lock: File,
}

impl Home {
    /// It has its name only once it is locked: one without would be taken for a
    /// dead process's.
    pub fn make(parent: &Path, id: Uuid) -> io::Result<Self> {
        let (hidden, folder) = (parent.join(format!(".{id}")), parent.join(id.to_string()));
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&hidden)?;
        let lock = private().open(hidden.join(LOCK))?;
        lock.try_lock()?;
        fs::rename(&hidden, &folder)?;
        Ok(Self { folder, _lock: lock })
    }
}

/// For files that only their owner may read: they tell who asked for what.
pub(super) fn private() -> OpenOptions {
    let mut options = File::options();
    options.create(true).read(true).write(true).truncate(true).mode(0o600);
    options
}

/// That it is gone is all that matters.
pub(super) fn remove(path: &Path) {
    if let Err(error) = fs::remove_file(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        let error = &error as &dyn std::error::Error;
        tracing::warn!(error, path = %path.display(), "a file of the journal could not be removed");
    }
}
