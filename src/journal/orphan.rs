//! What a process left behind that was killed.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use uuid::Uuid;

use super::{
    Chunk, LOCK,
    segments::{self, Segment},
};

/// The folder of a process that is no more. Nobody else takes it while this
/// lives.
#[derive(Debug)]
pub struct Orphan {
    pub id: Uuid,
    folder: PathBuf,
    segments: Vec<Segment>,
    lock: Option<File>,
}

/// Those in `folder` whose process has ended. None where there is no folder.
/// One without a lock is a copy that somebody made: only [`Orphan::take`] does.
pub fn orphans(folder: &Path) -> io::Result<Vec<Orphan>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(vec![]),
        Err(error) => return Err(error),
    };
    let mut found = vec![];
    for entry in entries {
        let path = entry?.path();
        let orphan = match Orphan::take(&path) {
            Ok(Some(orphan)) => orphan,
            Ok(None) => continue,
            // It must not hold up the others.
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                let folder = path.display().to_string();
                tracing::warn!(error, folder, "the journal of a killed process cannot be read");
                continue;
            }
        };
        if orphan.lock.is_some() {
            found.push(orphan);
        } else {
            // What a kill left of the removal; it says no if anything is in there.
            let _ = fs::remove_dir(&orphan.folder);
        }
    }
    found.sort_unstable_by_key(|orphan| orphan.id);
    Ok(found)
}

/// The lock goes last: what is left of the folder when that is cut short is to be
/// found again.
pub(super) fn remove_folder(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.file_name().is_some_and(|name| name != LOCK) {
            fs::remove_file(path)?;
        }
    }
    fs::remove_file(folder.join(LOCK))?;
    fs::remove_dir(folder)
}

impl Orphan {
    /// The journal in `folder`; `None` where there is none, or it is in use.
    pub fn take(folder: &Path) -> io::Result<Option<Self>> {
        let name = folder.file_name().and_then(|name| name.to_str());
        let Some(id) = name.and_then(|name| Uuid::try_parse(name).ok()) else { return Ok(None) };
        let lock = match File::options().read(true).write(true).open(folder.join(LOCK)) {
            Ok(lock) => match lock.try_lock() {
                Ok(()) => Some(lock),
                Err(fs::TryLockError::WouldBlock) => return Ok(None),
                Err(fs::TryLockError::Error(error)) => return Err(error),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let segments = match Segment::all(folder) {
            Ok(segments) => segments,
            // Another one was faster.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        Ok(Some(Self { id, folder: folder.to_owned(), segments, lock }))
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Which lanes it has.
    pub fn lanes(&self) -> Vec<u16> {
        let mut lanes: Vec<_> = self.segments.iter().map(|segment| segment.lane).collect();
        lanes.dedup();
        lanes
    }

    /// What a lane holds from position `from` on, at most `most` bytes; `None` at
    /// its end. A part that no file has is passed over.
    pub fn read(&self, lane: u16, from: u64, most: usize) -> io::Result<Option<Chunk>> {
        let mut own = self.segments.iter().filter(|segment| segment.lane == lane).peekable();
        while let Some(segment) = own.next() {
            let length = fs::metadata(segment.path(&self.folder))?.len();
            let next = own.peek().map(|next| next.base);
            let end = (segment.base + length).min(next.unwrap_or(u64::MAX));
            if from >= end {
                continue;
            }
            let (mark, from) = (from, from.max(segment.base));
            let bytes = segments::read(&self.folder, segment, from, end, most)?;
            let whole = from + bytes.len() as u64 >= end;
            return Ok(Some(Chunk { lane, mark, from, bytes, whole }));
        }
        Ok(None)
    }

    /// Everything in it is in the database.
    pub fn remove(self) -> io::Result<()> {
        remove_folder(&self.folder)
    }
}
