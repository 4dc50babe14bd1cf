use std::{
    collections::BTreeMap,
    fs,
    io::Read as _,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use flate2::read::GzDecoder;
use tempfile::TempDir;

use super::{Output as _, Rotating, path_of};
use crate::{
    config::{LogConfig, LogFile},
    telemetry::{Logs, subscriber_to},
};

fn config(folder: &TempDir, max_bytes: u64, max_files: usize) -> LogFile {
    LogFile { path: folder.path().join("logs/tollgate.log"), max_bytes, max_files }
}

/// The texts by their numbers; 0 is the one that is written.
fn texts(path: &Path) -> BTreeMap<usize, String> {
    let mut texts = BTreeMap::from([(0, fs::read_to_string(path).unwrap())]);
    for number in 1..1000 {
        let Ok(packed) = fs::File::open(path_of(path, number, ".gz")) else { break };
        let mut text = String::new();
        GzDecoder::new(packed).read_to_string(&mut text).unwrap();
        texts.insert(number, text);
    }
    texts
}

#[test]
fn it_keeps_to_its_size_and_number_and_cuts_no_line() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(&folder, 1000, 4);
    let mut file = Rotating::open(&config).unwrap();
    for n in 0..200 {
        file.write_line(format!("{n:099}\n").as_bytes()).unwrap();
    }
    drop(file);
    let texts = texts(&config.path);
    assert_eq!(texts.len(), 4, "{texts:?}");
    let oldest_first: String = texts.values().rev().map(String::as_str).collect();
    let expected = (160..200).map(|n| format!("{n:099}\n")).collect::<Vec<_>>().concat();
    assert_eq!(oldest_first, expected);
    let names = fs::read_dir(config.path.parent().unwrap()).unwrap().count();
    assert_eq!(names, 4, "nothing else is left");

    // One line that is longer than a file stands alone.
    let mut file = Rotating::open(&config).unwrap();
    for line in ["a".repeat(5000), "b".to_owned()] {
        file.write_line(format!("{line}\n").as_bytes()).unwrap();
    }
    drop(file);
    assert_eq!(self::texts(&config.path)[&0], "b\n");
    assert_eq!(self::texts(&config.path)[&1].len(), 5001);
}

#[test]
fn what_a_killed_process_left_is_gone_on_with() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(&folder, 1000, 4);
    drop(Rotating::open(&config).unwrap());
    fs::write(&config.path, "whole\nhal").unwrap();
    fs::write(path_of(&config.path, 1, ""), "earlier\n").unwrap();
    fs::write(path_of(&config.path, 1, ".gz.part"), "rubbish").unwrap();
    let mut file = Rotating::open(&config).unwrap();
    file.write_line(b"next\n").unwrap();
    drop(file);
    let texts = texts(&config.path);
    assert_eq!(texts[&0], "whole\nhal\nnext\n");
    assert_eq!(texts[&1], "earlier\n");
}

#[cfg(unix)]
#[test]
fn nobody_else_may_read_it() {
    use std::os::unix::fs::PermissionsExt as _;

    let folder = tempfile::tempdir().unwrap();
    let config = config(&folder, 10, 3);
    let mut file = Rotating::open(&config).unwrap();
    for _ in 0..3 {
        file.write_line(b"eight...\n").unwrap();
    }
    drop(file);
    for entry in fs::read_dir(config.path.parent().unwrap()).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{entry:?}");
    }
}

/// 5,000 lines a second from several threads, over many files.
#[test]
fn a_busy_log_loses_no_line_between_files() {
    const THREADS: usize = 4;
    const STEPS: usize = 40;
    const LINES: usize = 62;
    let folder = tempfile::tempdir().unwrap();
    let file = config(&folder, 200_000, 200);
    let config = LogConfig { level: "info".to_owned(), json: Some(true), file: Some(file.clone()) };
    let logs = Logs::open(&config, false, std::io::sink()).unwrap();
    let dispatch = tracing::Dispatch::new(subscriber_to(&logs));
    let start = Instant::now();
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let dispatch = &dispatch;
            scope.spawn(move || {
                tracing::dispatcher::with_default(dispatch, || {
                    for step in 0..STEPS {
                        for line in 0..LINES {
                            tracing::info!(thread, step, line_ = line, "a line like others");
                        }
                        // What was missed is made up for: the rate is over all.
                        let due = Duration::from_millis(50) * u32::try_from(step + 1).unwrap();
                        thread::sleep(due.saturating_sub(start.elapsed()));
                    }
                });
            });
        }
    });
    assert!(logs.flush(Duration::from_mins(1)));
    drop((dispatch, logs));
    let deadline = Instant::now() + Duration::from_mins(1);
    while path_of(&file.path, 1, "").exists() {
        assert!(Instant::now() < deadline, "the last one is not packed");
        thread::sleep(Duration::from_millis(5));
    }
    let texts = texts(&file.path);
    assert!(texts.len() > 3, "{} files", texts.len());
    assert!(texts.values().all(|text| text.len() <= 200_000 && text.ends_with('\n')));
    let mut last = [None; THREADS];
    let mut lines = 0;
    for line in texts.values().rev().flat_map(|text| text.lines()) {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        let number = |name: &str| usize::try_from(line[name].as_u64().unwrap()).unwrap();
        let place = Some(number("step") * LINES + number("line_"));
        let last = &mut last[number("thread")];
        assert!(place == last.map_or(Some(0), |last| Some(last + 1)), "{line} after {last:?}");
        *last = place;
        lines += 1;
    }
    assert_eq!(lines, THREADS * STEPS * LINES);
}
