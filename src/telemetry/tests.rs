use std::{
    io,
    sync::{Arc, Mutex},
};

use serde_json::Value;
use tracing_subscriber::fmt::MakeWriter;

use super::{Logs, metrics_handle, subscriber, subscriber_to, text::MOST_BYTES};
use crate::config::{LogConfig, LogFile};

#[derive(Clone, Default)]
struct Captured(Arc<Mutex<Vec<u8>>>);

impl io::Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'w> MakeWriter<'w> for Captured {
    type Writer = Self;

    fn make_writer(&'w self) -> Self {
        self.clone()
    }
}

/// What is written while `f` runs, at level TRACE.
fn logged(json: bool, colours: bool, f: impl FnOnce()) -> String {
    let captured = Captured::default();
    let config = LogConfig { level: "trace".to_owned(), json: Some(json), file: None };
    let subscriber = subscriber(&config, colours, captured.clone()).unwrap();
    tracing::subscriber::with_default(subscriber, f);
    String::from_utf8(std::mem::take(&mut captured.0.lock().unwrap())).unwrap()
}

/// The same hostile text everywhere that text can stand.
fn everywhere(text: &str) {
    let span =
        tracing::info_span!("request", first = text, second = %text, late = tracing::field::Empty);
    span.record("late", tracing::field::display(text));
    let _entered = span.enter();
    let error = io::Error::other(text.to_owned());
    let error: &dyn std::error::Error = &error;
    tracing::info!(a = text, b = %text, c = ?text, error, "{text}");
}

const HOSTILE: [&str; 8] = [
    "a\nINFO forged: line",
    "a\r\nb",
    "\x1b[2J\x1b[31mred",
    "\u{9b}31mred",
    "\u{7f}\u{8}\u{7}\0\x0b\x0c\t",
    "a\u{2028}b\u{2029}c",
    "\u{202e}desrever",
    "\"},{\"level\":\"ERROR\"",
];

#[test]
fn one_event_is_one_line_of_text_whatever_it_holds() {
    for text in HOSTILE {
        let log = logged(false, false, || everywhere(text));
        assert_eq!(log.matches('\n').count(), 1, "{log:?}");
        assert!(log.ends_with('\n'));
        let bare = log.trim_end_matches('\n');
        assert!(
            !bare.contains(|c: char| c.is_control() || "\u{2028}\u{2029}\u{202e}".contains(c)),
            "{log:?}"
        );
    }
}

#[test]
fn colours_are_ours_alone() {
    let escapes = |text| logged(false, true, || everywhere(text)).matches('\x1b').count();
    assert!(escapes("plain") > 0);
    assert_eq!(escapes("\x1b[2J\x1b[31m"), escapes("plain"));
}

#[test]
fn one_event_is_one_flat_object_that_keeps_its_text() {
    for text in HOSTILE {
        let log = logged(true, false, || everywhere(text));
        assert_eq!(log.matches('\n').count(), 1, "{log:?}");
        let bare = log.trim_end_matches('\n');
        assert!(
            !bare.contains(|c: char| c.is_control() || "\u{2028}\u{2029}\u{202e}".contains(c)),
            "{log:?}"
        );
        let object: Value = serde_json::from_str(&log).unwrap();
        assert_eq!(object["level"], "INFO");
        for name in ["message", "a", "b", "first", "second", "late", "error"] {
            assert_eq!(object[name], object["a"], "{name}");
        }
        if text.is_ascii() && !text.contains('\u{7f}') {
            assert_eq!(object["a"], text);
        }
    }
}

#[test]
fn a_value_of_a_mebibyte_is_cut() {
    let mebibyte = "ü".repeat(1 << 19);
    for json in [false, true] {
        let log = logged(json, false, || everywhere(&mebibyte));
        assert!(log.len() < 10 * MOST_BYTES, "{}", log.len());
        assert!(log.contains('…'));
        assert_eq!(log.matches('\n').count(), 1);
    }
}

#[test]
fn fields_are_flat_typed_and_the_innermost_stands() {
    let log = logged(true, false, || {
        let _outer = tracing::info_span!("outer", request.id = "r1", n = 1).entered();
        let _inner = tracing::info_span!("inner", n = 2).entered();
        tracing::warn!(ok = true, ms = 1.5, level = "mine", n = 3, "done");
    });
    let object: Value = serde_json::from_str(&log).unwrap();
    let expected = serde_json::json!({
        "timestamp": object["timestamp"], "level": "WARN", "logger": module_path!(),
        "message": "done", "module": module_path!(), "line": object["line"], "request_id": "r1", "n": 3, "ok": true, "ms": 1.5, "level_": "mine",
    });
    assert_eq!(object, expected);
    assert!(object["line"].is_u64());
    assert!(log.starts_with(r#"{"timestamp":"2"#), "{log}");
    assert!(object["timestamp"].as_str().unwrap().ends_with('Z'));
    assert_eq!(log.matches(r#""n":"#).count(), 1);
}

#[test]
fn the_level_is_obeyed() {
    let captured = Captured::default();
    let config = LogConfig { level: "warn,quiet=off".to_owned(), json: Some(true), file: None };
    let subscriber = subscriber(&config, false, captured.clone()).unwrap();
    tracing::subscriber::with_default(subscriber, || {
        tracing::info!("not this");
        tracing::error!(target: "quiet", "nor this");
        tracing::warn!("this");
    });
    let log = String::from_utf8(captured.0.lock().unwrap().clone()).unwrap();
    assert_eq!(log.lines().count(), 1, "{log}");
}

#[test]
fn metrics_are_rendered_with_buckets_and_installed_once() {
    metrics_handle();
    metrics::histogram!("telemetry_test_seconds").record(0.003);
    metrics::histogram!("telemetry_test_bytes").record(300.0);
    let text = metrics_handle().render();
    assert!(text.contains(r#"telemetry_test_seconds_bucket{le="0.0025"} 0"#), "{text}");
    assert!(text.contains(r#"telemetry_test_seconds_bucket{le="0.005"} 1"#), "{text}");
    assert!(text.contains(r#"telemetry_test_bytes_bucket{le="1024"} 1"#), "{text}");
}

/// Also where several write alike, so that one could take another's fields.
#[test]
fn every_output_has_the_fields_of_the_spans() {
    for (json, terminal) in [(Some(true), false), (Some(false), false), (None, true)] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.log");
        let file = LogFile { path: path.clone(), max_bytes: 1_000_000, max_files: 2 };
        let config = LogConfig { level: "trace".to_owned(), json, file: Some(file) };
        let captured = Captured::default();
        let logs = Logs::open(&config, terminal, captured.clone()).unwrap();
        tracing::subscriber::with_default(subscriber_to(&logs), || {
            let outer = tracing::info_span!("outer", a = 1, late = tracing::field::Empty);
            outer.record("late", "value");
            let _outer = outer.entered();
            let _inner = tracing::info_span!("inner", b = "2").entered();
            tracing::info!(c = 3, "event");
        });
        assert!(logs.flush(std::time::Duration::from_secs(30)));
        let stdout = String::from_utf8(captured.0.lock().unwrap().clone()).unwrap();
        for text in [stdout, std::fs::read_to_string(&path).unwrap()] {
            assert_eq!(text.lines().count(), 1, "{text}");
            if let Ok(line) = serde_json::from_str::<Value>(&text) {
                let fields = ["a", "b", "c", "late"].map(|name| line[name].to_string());
                assert_eq!(fields, ["1", "\"2\"", "3", "\"value\""], "{json:?}");
            } else {
                assert!(json != Some(true), "{text}");
                assert!(text.contains("value") && text.contains("event"), "{text:?}");
            }
        }
    }
}
