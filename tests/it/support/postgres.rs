//! A Postgres of one test's own, which it may kill and freeze. The shared one
//! that `TEST_DATABASE_URL` names is in [`super::database`].

use std::{
    ffi::OsStr,
    fs,
    net::{Ipv4Addr, TcpListener},
    os::unix::fs::{MetadataExt as _, chown},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use tempfile::TempDir;

/// Longest wait for the server to start, recovery after a crash included.
const START: Duration = Duration::from_mins(1);

/// A cluster, running or not; gone when dropped.
pub struct Server {
    bin: PathBuf,
    port: u16,
    account: Option<Account>,
    child: Option<Child>,
    folder: TempDir,
}

/// Whom the server runs as: it refuses to be root.
struct Account {
    user: String,
    group: String,
}

impl Server {
    /// A new cluster that does not run yet; `None`, with a note, where no server
    /// is installed.
    pub fn install() -> Option<Self> {
        let Some(bin) = bin() else {
            eprintln!("skipped: no Postgres server, and TEST_POSTGRES_BIN names none");
            return None;
        };
        // Not under TMPDIR: the path of a socket may not be long, and the account
        // must be able to reach it.
        let folder = tempfile::Builder::new().prefix("tollgate-pg.").tempdir_in("/tmp").unwrap();
        let is_root = fs::metadata(folder.path()).unwrap().uid() == 0;
        let account = is_root.then(account);
        if let Some(Account { user, group }) = &account {
            let (user, group) = (user.parse().unwrap(), group.parse().unwrap());
            chown(folder.path(), Some(user), Some(group)).unwrap();
        }
        let port = free_port();
        let server = Self { bin, port, account, child: None, folder };
        let made = server
            .command("initdb")
            .arg("-D")
            .arg(server.data())
            .args(["-U", "postgres", "--auth=trust", "-E", "UTF8", "--no-locale", "--no-sync"])
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        Some(server)
    }

    /// Of this database on it.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port)
    }

    /// Starts it and waits until it accepts connections.
    pub async fn start(&mut self) {
        assert!(self.child.is_none(), "it runs already");
        let mut command = self.command("postgres");
        command.arg("-D").arg(self.data()).args(["-p", &self.port.to_string(), "-k"]);
        command.arg(self.folder.path()).args(["-c", "listen_addresses=127.0.0.1"]);
        // What must survive here is a crash of the server, not of the machine.
        let log = fs::File::create(self.folder.path().join("log")).unwrap();
        command.args(["-c", "fsync=off"]).stdout(Stdio::null()).stderr(log);
        self.child = Some(command.spawn().unwrap());
        let (status, start) = (self.data().join("postmaster.pid"), Instant::now());
        let pid = self.pid().to_string();
        let accepts = || {
            let text = fs::read_to_string(&status).unwrap_or_default();
            text.lines().next() == Some(&*pid) && text.lines().any(|line| line.trim() == "ready")
        };
        while !accepts() {
            let log = || fs::read_to_string(self.folder.path().join("log")).unwrap();
            assert!(start.elapsed() < START, "Postgres does not start:\n{}", log());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// SIGKILL to every process of it.
    pub fn kill(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        // So that it starts nothing while its processes are looked for.
        signal("-STOP", &[child.id()]);
        let mut all = children_of(child.id());
        all.push(child.id());
        signal("-KILL", &all);
        child.wait().unwrap();
        let start = Instant::now();
        // Shared memory stays taken until the last of them is gone.
        while all.iter().any(|pid| is_running(*pid)) {
            assert!(start.elapsed() < START, "Postgres does not die");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// SIGSTOP to every process: it accepts connections and says nothing.
    pub fn freeze(&self) {
        signal("-STOP", &[self.pid()]);
        signal("-STOP", &children_of(self.pid()));
    }

    /// SIGCONT to every process.
    pub fn thaw(&self) {
        signal("-CONT", &children_of(self.pid()));
        signal("-CONT", &[self.pid()]);
    }

    fn pid(&self) -> u32 {
        self.child.as_ref().expect("it runs").id()
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn command(&self, program: &str) -> Command {
        let program = self.bin.join(program);
        let mut command = match &self.account {
            None => Command::new(program),
            Some(Account { user, group }) => {
                let mut command = Command::new("setpriv");
                command.args(["--reuid", user, "--regid", group, "--clear-groups"]).arg(program);
                command
            }
        };
        // The account may not be allowed into the current folder.
        command.current_dir("/").stdin(Stdio::null());
        command
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

fn bin() -> Option<PathBuf> {
    let is_bin = |folder: &Path| ["postgres", "initdb"].iter().all(|p| folder.join(p).is_file());
    if let Some(named) = std::env::var_os("TEST_POSTGRES_BIN") {
        return Some(named.into());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places: Vec<PathBuf> = std::env::split_paths(&path).collect();
    if let Ok(versions) = fs::read_dir("/usr/lib/postgresql") {
        places.extend(versions.flatten().map(|version| version.path().join("bin")));
    }
    places.into_iter().find(|folder| is_bin(folder))
}

/// Below the range of outgoing connections, one of which could take it while the
/// server is down.
fn free_port() -> u16 {
    let free = |port: &u16| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok();
    let tried = std::iter::repeat_with(|| rand::random_range(15_000..30_000)).take(100);
    tried.into_iter().find(free).expect("a free port")
}

fn account() -> Account {
    let id = |what: &str, name: &str| {
        let found = Command::new("id").args([what, name]).output().unwrap();
        let text = String::from_utf8(found.stdout).unwrap().trim().to_owned();
        (!text.is_empty()).then_some(text)
    };
    let known = ["postgres", "nobody"]
        .into_iter()
        .find_map(|name| Some(Account { user: id("-u", name)?, group: id("-g", name)? }));
    known.expect("one of the accounts exists")
}

fn signal(signal: &str, pids: &[u32]) {
    let pids = pids.iter().map(ToString::to_string);
    // A process that has ended meanwhile is as good.
    let _ = Command::new("kill").arg(signal).args(pids).stderr(Stdio::null()).status().unwrap();
}

/// State and parent, from `/proc/<pid>/stat`.
fn stat(pid: &OsStr) -> Option<(char, u32)> {
    let text = fs::read_to_string(Path::new("/proc").join(pid).join("stat")).ok()?;
    // The name in parentheses may contain anything.
    let mut fields = text.rsplit_once(')')?.1.split_whitespace();
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}

fn children_of(parent: u32) -> Vec<u32> {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let names = processes.map(|entry| entry.file_name());
    let of_parent = names.filter(|pid| stat(pid).is_some_and(|(_, found)| found == parent));
    of_parent.filter_map(|pid| pid.to_str()?.parse().ok()).collect()
}

fn is_running(pid: u32) -> bool {
    stat(OsStr::new(&pid.to_string())).is_some_and(|(state, _)| state != 'Z')
}
