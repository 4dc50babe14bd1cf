//! The files of one lane: each holds what lies between two positions.
//!
//! A position counts the bytes that a lane ever held. A file is named after its
//! lane and the position that it begins at, so what there is and in which order
//! is known from the names alone.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

/// A file of a lane.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Segment {
    pub lane: u16,
    /// The position of its first byte.
    pub base: u64,
}

impl Segment {
    pub fn path(&self, folder: &Path) -> PathBuf {
        folder.join(format!("{:04}-{:016x}.seg", self.lane, self.base))
    }

    fn parse(name: &str) -> Option<Self> {
        let (lane, base) = name.strip_suffix(".seg")?.split_once('-')?;
        Some(Self { lane: lane.parse().ok()?, base: u64::from_str_radix(base, 16).ok()? })
    }

    /// All that lie in `folder`, by lane and position.
    pub fn all(folder: &Path) -> io::Result<Vec<Self>> {
        let mut found = vec![];
        for entry in fs::read_dir(folder)? {
            found.extend(entry?.file_name().to_str().and_then(Self::parse));
        }
        found.sort_unstable();
        Ok(found)
    }
}

/// The bytes of `segment` from position `from` up to `to`, at most `most` of
/// them. What the file lacks is read as zeros, which are no record: it is lost,
/// and must not hold up what comes after it.
pub(super) fn read(
    folder: &Path,
    segment: &Segment,
    from: u64,
    to: u64,
    most: usize,
) -> io::Result<Vec<u8>> {
    let file = File::open(segment.path(folder))?;
    let wanted = usize::try_from(to.saturating_sub(from)).unwrap_or(most).min(most);
    let mut bytes = vec![0; wanted];
    let mut filled = 0;
    while filled < wanted {
        let at = from - segment.base + filled as u64;
        match file.read_at(&mut bytes[filled..], at) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(bytes)
}
