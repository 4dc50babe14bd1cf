//! What `deploy/` and the Makefile have beside the program.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::{Command, Output},
    time::Duration,
};

use tempfile::TempDir;
use tollgate::domain::clock::{Clock as _, SystemClock};

use super::{PROGRAM, Setup};
use crate::support::{TestDatabase, promtool};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn said(output: &Output) -> String {
    [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes)).concat()
}

#[test]
fn the_alert_rules_are_sound_and_pass_their_tests() {
    for arguments in [["check", "rules"], ["test", "rules"]] {
        let Some(mut command) = promtool() else { return };
        let file = if arguments[0] == "check" { "tollgate.rules.yml" } else { "tollgate.test.yml" };
        command.current_dir(root().join("deploy/prometheus")).args(arguments).arg(file);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", said(&output));
    }
}

/// Every alert has a line in the table of what to do.
#[test]
fn every_alert_is_explained() {
    let rules = fs::read_to_string(root().join("deploy/prometheus/tollgate.rules.yml")).unwrap();
    let manual = fs::read_to_string(root().join("docs/operating.md")).unwrap();
    let (_, table) = manual.split_once("| alert |").unwrap();
    let alerts: Vec<_> =
        rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: Tollgate")).collect();
    assert!(alerts.len() > 20);
    let unexplained: Vec<_> = alerts.into_iter().filter(|name| !table.contains(*name)).collect();
    assert!(unexplained.is_empty(), "{unexplained:?}");
}

/// Runs a script of `deploy/` as a timer would.
fn script(setup: &Setup, name: &str, arguments: &[&str], notes: &Path) -> Output {
    Command::new(root().join("deploy").join(name))
        .args(arguments)
        .current_dir(setup.path())
        .env_clear()
        .envs(&setup.environment)
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("TOLLGATE", PROGRAM)
        .env("TEXTFILE_DIR", notes)
        .output()
        .unwrap()
}

/// The values in a file of the textfile collector, by name.
fn noted(folder: &Path, file: &str) -> Vec<(String, u64)> {
    let path = folder.join(file);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o644, "others read it");
    let text = fs::read_to_string(path).unwrap();
    let pair = |line: &str| {
        let (name, value) = line.split_once(' ').unwrap();
        (name.to_owned(), value.parse().unwrap())
    };
    text.lines().map(pair).collect()
}

fn is_now(seconds: u64) -> bool {
    SystemClock.now().timestamp().cast_unsigned().abs_diff(seconds) < 600
}

#[tokio::test]
async fn the_daily_audit_leaves_what_it_found_where_prometheus_looks() {
    let (setup, notes) = (Setup::shared().await, TempDir::new().unwrap());
    let mut process = setup.serve().await;
    process.admin().await;
    process.stop(Duration::from_secs(3)).await;
    let check = || script(&setup, "audit-check", &[], notes.path());
    let output = check();
    assert!(output.status.success(), "{}", said(&output));
    let found = noted(notes.path(), "tollgate_audit.prom");
    assert_eq!(found[0], ("tollgate_audit_verified".to_owned(), 1));
    assert_eq!(found[1].0, "tollgate_audit_verified_timestamp_seconds");
    assert!(is_now(found[1].1));

    // What could not be looked at says nothing: what was noted grows old.
    let lost = setup.clone().set("DATABASE_URL", "postgres://nobody@127.0.0.1:9/none");
    let output = script(&lost, "audit-check", &[], notes.path());
    assert!(!output.status.success(), "{}", said(&output));
    assert_eq!(noted(notes.path(), "tollgate_audit.prom"), found);

    let database = setup.database.as_ref().unwrap();
    let allow = match **database {
        TestDatabase::Postgres { .. } => "ALTER TABLE audit_log DISABLE TRIGGER USER",
        TestDatabase::Sqlite(_) => "DROP TRIGGER audit_log_not_updated",
    };
    database.execute(allow).await;
    database.execute("UPDATE audit_log SET actor_name = 'mallory' WHERE seq = 2").await;
    let output = check();
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    let found = noted(notes.path(), "tollgate_audit.prom");
    assert_eq!(found[0], ("tollgate_audit_verified".to_owned(), 0));
    let left: Vec<_> = fs::read_dir(notes.path()).unwrap().collect();
    assert_eq!(left.len(), 1, "{left:?}");
}

#[tokio::test]
async fn a_backup_leaves_its_time_where_prometheus_looks() {
    if Command::new("sqlite3").arg("--version").output().is_err() {
        eprintln!("skipped: no sqlite3");
        return;
    }
    let (setup, notes) = (Setup::sqlite(), TempDir::new().unwrap());
    let mut process = setup.serve().await;
    let data = setup.path().join("data");
    let output = script(&setup, "backup-sqlite", &[data.to_str().unwrap()], notes.path());
    assert!(output.status.success(), "{}", said(&output));
    process.stop(Duration::from_secs(3)).await;
    let found = noted(notes.path(), "tollgate_backup.prom");
    assert!(found[0].0 == "tollgate_backup_timestamp_seconds" && is_now(found[0].1), "{found:?}");
    let archive = PathBuf::from(String::from_utf8(output.stdout).unwrap().trim());
    assert!(archive.is_file(), "{}", archive.display());

    // A backup that fails leaves no time.
    fs::remove_file(notes.path().join("tollgate_backup.prom")).unwrap();
    let output = script(&setup, "backup-sqlite", &["/nowhere/at/all"], notes.path());
    assert!(!output.status.success());
    assert_eq!(fs::read_dir(notes.path()).unwrap().count(), 0);
}

/// The demonstration is for who has set nothing, and never over what somebody set.
#[test]
fn make_run_shows_the_chat_only_where_no_setting_is_about_it() {
    if Command::new("make").arg("--version").output().is_err() {
        eprintln!("skipped: no make");
        return;
    }
    let build = TempDir::new().unwrap();
    let release = build.path().join("release");
    fs::create_dir_all(&release).unwrap();
    // It tells what it would serve with.
    let stub = format!(
        "#!/bin/sh\ncase \"$*\" in *'config show') exec '{PROGRAM}' \"$@\" ;; esac\n\
         echo \"demo=${{CHAT_DEMO-}} arguments=$*\"\n"
    );
    let program = |path: PathBuf, text: &str| {
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    };
    program(release.join("tollgate"), &stub);
    program(build.path().join("cargo"), "#!/bin/sh\n");
    let path = format!("{}:{}", build.path().display(), std::env::var("PATH").unwrap());
    let (off, on) = ("[chat]\ndemo = false\n", "[chat]\ndemo = true\n");
    for (file, named, environment, arguments, demo) in [
        (None, None, None, "", "true"),
        (None, None, None, "--port 9000", "true"),
        (Some(off), None, None, "", ""),
        (Some(on), None, None, "", ""),
        (Some("[server]\nport = 1\n"), None, None, "", "true"),
        (None, Some(off), None, "--config named.toml", ""),
        (None, Some(off), None, "--config=named.toml --port 1", ""),
        (None, Some("[server]\nport = 1\n"), None, "--config named.toml", "true"),
        (None, None, Some("false"), "", "false"),
        (Some(on), None, Some("false"), "", "false"),
    ] {
        let folder = TempDir::new().unwrap();
        symlink(root().join("Makefile"), folder.path().join("Makefile")).unwrap();
        for (name, text) in [("tollgate.toml", file), ("named.toml", named)] {
            if let Some(text) = text {
                fs::write(folder.path().join(name), text).unwrap();
            }
        }
        let mut make = Command::new("make");
        make.current_dir(folder.path()).env_clear().env("PATH", &path);
        make.env("CARGO_TARGET_DIR", build.path());
        make.args(["run", &format!("ARGS={arguments}")]);
        if let Some(value) = environment {
            make.env("CHAT_DEMO", value);
        }
        let output = make.output().unwrap();
        let text = String::from_utf8(output.stdout.clone()).unwrap();
        let line = text.lines().last().unwrap_or_default().trim_end();
        let expected = format!("demo={demo} arguments=serve {arguments}");
        assert_eq!(line, expected.trim_end(), "{file:?} {named:?} {}", said(&output));
    }
}
