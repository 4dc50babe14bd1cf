//! What the operating system says of this process, under the names that every
//! Prometheus client uses for it.
//!
//! Read when it is asked for. What cannot be read is left out: it is Linux that
//! has `/proc`.

use std::{fmt::Write as _, fs, sync::OnceLock};

use rustix::time::{ClockId, clock_gettime};

use super::catalog::{Kind, METRICS};
use crate::domain::clock::{Clock as _, SystemClock};

/// Notes when the process started; the first call counts.
pub(super) fn started() -> f64 {
    static STARTED: OnceLock<f64> = OnceLock::new();
    #[expect(clippy::cast_precision_loss, reason = "milliseconds of this century fit")]
    *STARTED.get_or_init(|| SystemClock.now().timestamp_millis() as f64 / 1000.0)
}

/// Adds the figures to what the recorder has rendered. Not by way of it: its
/// counters are whole numbers, and processor time is not.
pub(super) fn render(text: &mut String) {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let kib = |name| number_after(&status, name).map(|kib| kib * 1024.0);
    for (name, value) in [
        ("process_cpu_seconds_total", Some(cpu_seconds())),
        ("process_resident_memory_bytes", kib("VmRSS:")),
        ("process_virtual_memory_bytes", kib("VmSize:")),
        ("process_threads", number_after(&status, "Threads:")),
        ("process_open_fds", open_files()),
        ("process_max_fds", number_after(&limits, "Max open files")),
        ("process_start_time_seconds", Some(started())),
    ] {
        let listed = METRICS.iter().find(|metric| metric.name == name);
        if let (Some(metric), Some(value)) = (listed, value) {
            let kind = if metric.kind == Kind::Counter { "counter" } else { "gauge" };
            let help = metric.help;
            // Writing to a string cannot fail.
            _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n");
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "a figure is a float")]
fn cpu_seconds() -> f64 {
    let cpu = clock_gettime(ClockId::ProcessCPUTime);
    cpu.tv_sec as f64 + cpu.tv_nsec as f64 / 1e9
}

fn open_files() -> Option<f64> {
    let open = fs::read_dir("/proc/self/fd").ok()?.count();
    // Not the one that reads this.
    Some(f64::from(u32::try_from(open.saturating_sub(1)).unwrap_or(u32::MAX)))
}

/// The number that follows at the beginning of a line of this name.
fn number_after(text: &str, name: &str) -> Option<f64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    rest.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::number_after;

    #[test]
    fn figures_are_found_by_their_names() {
        let status = "Name:\ttollgate\nVmRSS:\t  123 kB\nThreads:\t7\n";
        assert_eq!(number_after(status, "VmRSS:"), Some(123.0));
        assert_eq!(number_after(status, "Threads:"), Some(7.0));
        assert_eq!(number_after(status, "VmSwap:"), None);
        let limits = "Max open files            1024                 524288               files";
        assert_eq!(number_after(limits, "Max open files"), Some(1024.0));
        assert_eq!(number_after("Max open files unlimited", "Max open files"), None);
    }
}
