//! A log file that grows to a size and then begins anew.
//!
//! `tollgate.log` is written; `tollgate.log.1.gz` is the one before it, and so on
//! up to the number that is kept. A line is in one file as a whole. Packing is
//! done by a thread of its own, so that lines wait for it only where the next file
//! is full before the last one is packed.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufReader, Read as _, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
    thread::{self, JoinHandle},
};

use flate2::{Compression, write::GzEncoder};

use super::queue::Output;
use crate::config::LogFile;

pub struct Rotating {
    path: PathBuf,
    max_bytes: u64,
    /// The one that is written among them.
    max_files: usize,
    file: File,
    size: u64,
    /// The size at which the next one is begun.
    due: u64,
    packing: Option<JoinHandle<()>>,
}

impl Rotating {
    /// Goes on with the file that is there.
    pub fn open(config: &LogFile) -> io::Result<Self> {
        let LogFile { path, max_bytes, max_files } = config.clone();
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            fs::create_dir_all(folder)?;
        }
        // One that a process was killed over.
        let packing = path_of(&path, 1, "").exists().then(|| start_packing(&path)).flatten();
        let (file, size) = open(&path)?;
        Ok(Self { path, max_bytes, max_files, file, size, due: max_bytes, packing })
    }

    fn rotate(&mut self) -> io::Result<()> {
        self.wait();
        let kept = self.max_files.saturating_sub(1);
        // Somebody else may have moved or removed it.
        if kept == 0 {
            remove(&self.path)?;
        } else {
            let plain = path_of(&self.path, 1, "");
            if plain.exists() && pack(&self.path).is_err() {
                // Nothing is moved over it. This file grows on meanwhile.
                self.due = self.size + self.max_bytes;
                return Ok(());
            }
            remove(&path_of(&self.path, kept, ".gz"))?;
            for number in (1..kept).rev() {
                let (from, to) = (number, number + 1);
                rename(&path_of(&self.path, from, ".gz"), &path_of(&self.path, to, ".gz"))?;
            }
            rename(&self.path, &plain)?;
        }
        (self.file, self.size) = open(&self.path)?;
        self.due = self.max_bytes;
        if kept > 0 {
            self.packing = start_packing(&self.path);
        }
        Ok(())
    }

    fn wait(&mut self) {
        if let Some(packing) = self.packing.take() {
            // What it could not pack stays as it is, for the next time.
            _ = packing.join();
        }
    }
}

impl Output for Rotating {
    fn write_line(&mut self, line: &[u8]) -> io::Result<()> {
        let length = line.len() as u64;
        if self.size > 0 && self.size + length > self.due {
            self.rotate()?;
        }
        if let Err(error) = self.file.write_all(line) {
            // On a full disk a part of it may be there.
            _ = self.file.set_len(self.size);
            return Err(error);
        }
        self.size += length;
        Ok(())
    }
}

impl Drop for Rotating {
    fn drop(&mut self) {
        self.wait();
    }
}

/// The file and its size. It ends with a whole line: a killed process may have
/// left a part of one.
fn open(path: &Path) -> io::Result<(File, u64)> {
    let mut options = OpenOptions::new();
    options.read(true).append(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    let mut size = file.seek(SeekFrom::End(0))?;
    if size > 0 {
        let mut last = [0];
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)?;
        if last != *b"\n" {
            file.write_all(b"\n")?;
            size += 1;
        }
    }
    Ok((file, size))
}

fn path_of(path: &Path, number: usize, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}{end}"));
    name.into()
}

/// `None` where no thread can be made: it is packed before the next one then.
fn start_packing(path: &Path) -> Option<JoinHandle<()>> {
    let path = path.to_owned();
    let packing = thread::Builder::new().name("pack-log".to_owned());
    // There is nowhere to tell that it failed; the plain one stays then.
    packing.spawn(move || drop(pack(&path))).ok()
}

fn pack(path: &Path) -> io::Result<()> {
    let plain = &path_of(path, 1, "");
    let (packed, unfinished) = (&path_of(path, 1, ".gz"), &path_of(path, 1, ".gz.part"));
    // It was packed as a whole before the process was killed.
    if !packed.exists() {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut encoder = GzEncoder::new(options.open(unfinished)?, Compression::fast());
        io::copy(&mut BufReader::new(File::open(plain)?), &mut encoder)?;
        encoder.finish()?.sync_all()?;
        fs::rename(unfinished, packed)?;
    }
    fs::remove_file(plain)
}

fn remove(path: &Path) -> io::Result<()> {
    ignore_missing(fs::remove_file(path))
}

fn rename(from: &Path, to: &Path) -> io::Result<()> {
    ignore_missing(fs::rename(from, to))
}

fn ignore_missing(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

#[cfg(test)]
#[path = "rotate_tests.rs"]
mod tests;
