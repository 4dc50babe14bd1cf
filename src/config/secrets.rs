//! Secrets that nobody configured: made once, kept in the data directory.
//!
//! Any number of processes that start at once on the same directory agree on
//! one value. Whoever can read the directory can sign tokens, so it is made for
//! its owner alone. The file system must know hard links.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::Path,
};

use secrecy::SecretString;

/// The secret in `<data_dir>/secrets/<name>`, made and stored first if there is
/// none. Later calls, and calls at the same time, answer the same value; `make`
/// may have been called in vain. Line breaks at the end do not count.
///
/// Errors: the folder or the file cannot be read or written, or it is empty.
pub fn load_or_create(
    data_dir: &Path,
    name: &str,
    make: impl FnOnce() -> String,
) -> io::Result<SecretString> {
    let folder = data_dir.join("secrets");
    let path = folder.join(name);
    if let Some(secret) = read(&path)? {
        return Ok(secret);
    }
    DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
    let draft = folder.join(format!(".{name}.{:016x}", rand::random::<u64>()));
    let stored = store(&draft, &path, &make());
    // Also after a failure: a draft holds a secret.
    let removed = fs::remove_file(&draft);
    stored?;
    removed?;
    File::open(&folder)?.sync_all()?;
    read(&path)?.ok_or_else(|| io::ErrorKind::NotFound.into())
}

/// The whole text appears under `path` at once, or somebody else's is there
/// already: a link never replaces a file, a rename would.
fn store(draft: &Path, path: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(draft)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    match fs::hard_link(draft, path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        linked => linked,
    }
}

fn read(path: &Path) -> io::Result<Option<SecretString>> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mode = fs::metadata(path)?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        tracing::warn!(
            path = %path.display(),
            mode = format!("{mode:o}"),
            "a secret can be read by others than its owner; set its mode to 600"
        );
    }
    let text = text.trim_end_matches(['\n', '\r']);
    if text.is_empty() {
        let message = format!("{} is empty; remove it to have a new one made", path.display());
        return Err(io::Error::new(io::ErrorKind::InvalidData, message));
    }
    Ok(Some(text.into()))
}

#[cfg(test)]
mod tests {
    use std::{sync::Barrier, thread};

    use secrecy::ExposeSecret;

    use super::*;

    #[test]
    fn all_who_start_at_once_agree() {
        for _ in 0..20 {
            let folder = tempfile::tempdir().unwrap();
            let barrier = Barrier::new(20);
            let secrets: Vec<String> = thread::scope(|scope| {
                let start = |at: usize| {
                    let (folder, barrier) = (folder.path().join("data"), &barrier);
                    scope.spawn(move || {
                        barrier.wait();
                        load_or_create(&folder, "jwt", || format!("value {at}")).unwrap()
                    })
                };
                let threads: Vec<_> = (0..20).map(start).collect();
                let secret = |thread: thread::ScopedJoinHandle<SecretString>| {
                    thread.join().unwrap().expose_secret().to_owned()
                };
                threads.into_iter().map(secret).collect()
            });
            assert!(secrets.iter().all(|secret| *secret == secrets[0]), "{secrets:?}");
            let left = fs::read_dir(folder.path().join("data/secrets")).unwrap().count();
            assert_eq!(left, 1, "no draft stays behind");
        }
    }

    #[test]
    fn only_the_owner_can_read_it() {
        let folder = tempfile::tempdir().unwrap();
        load_or_create(folder.path(), "jwt", || "value".to_owned()).unwrap();
        let mode = |path: &str| {
            fs::metadata(folder.path().join(path)).unwrap().permissions().mode() & 0o777
        };
        assert_eq!((mode("secrets"), mode("secrets/jwt")), (0o700, 0o600));
    }

    #[test]
    fn an_existing_one_is_kept_and_an_empty_one_refused() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("secrets")).unwrap();
        fs::write(folder.path().join("secrets/own"), "mine\n").unwrap();
        fs::write(folder.path().join("secrets/empty"), "\n").unwrap();
        let load = |name| load_or_create(folder.path(), name, || "made".to_owned());
        assert_eq!(load("own").unwrap().expose_secret(), "mine");
        assert_eq!(load("empty").unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
