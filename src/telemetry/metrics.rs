//! The recorder behind the `metrics` macros, rendered as Prometheus text.
//!
//! It opens no port: `/metrics` renders it. Names end in their unit
//! (`_seconds`, `_bytes`, `_total`), which also chooses the buckets.

use std::sync::OnceLock;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

use super::{catalog, process};

/// Upper bounds for durations, seconds: from a cache hit to the longest answer
/// that is not a stream.
const SECONDS: [f64; 16] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
    60.0,
];
/// Upper bounds for sizes, bytes: powers of four from 256 B to 64 MiB.
const BYTES: [f64; 10] = [
    256.0,
    1024.0,
    4096.0,
    16_384.0,
    65_536.0,
    262_144.0,
    1_048_576.0,
    4_194_304.0,
    16_777_216.0,
    67_108_864.0,
];

/// The recorder of this process; installed by the first call, the same one
/// afterwards.
///
/// Histograms gather samples until they are rendered or
/// [`PrometheusHandle::run_upkeep`] is called: a job has to do that every few
/// seconds, since nobody may ever ask for the metrics.
pub fn metrics_handle() -> PrometheusHandle {
    static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
    HANDLE.get_or_init(install).clone()
}

/// All there is now, as Prometheus reads it.
pub fn metrics_text() -> String {
    let mut text = metrics_handle().render();
    process::render(&mut text);
    text
}

fn install() -> PrometheusHandle {
    process::started();
    let buckets = |builder: PrometheusBuilder, suffix: &str, bounds: &[f64]| {
        builder
            .set_buckets_for_metric(Matcher::Suffix(suffix.to_owned()), bounds)
            .expect("there are bounds")
    };
    let builder = buckets(PrometheusBuilder::new(), "_seconds", &SECONDS);
    let handle = buckets(builder, "_bytes", &BYTES)
        .install_recorder()
        .expect("this is the only place that installs a recorder");
    catalog::describe();
    handle
}
