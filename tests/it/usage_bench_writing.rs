//! What it takes to sum requests up: `make bench-usage`; `docs/usage-queries.md`
//! has what it said.

use std::{collections::HashSet, time::Instant};

use chrono::{DateTime, TimeDelta, Utc};
use tollgate::{
    domain::{
        clock::FakeClock,
        id::{ApiKeyId, LogPlace, RecordId, UserId},
        usage::{Outcome, UsageRecord},
    },
    services::usage::UsageService,
};

use crate::{
    support::{Options, TestApp},
    usage_bench::is_wanted,
};

fn began() -> DateTime<Utc> {
    "2025-01-01T00:00:00Z".parse().unwrap()
}

/// Numbers as if by chance, the same each time.
fn chance(state: &mut u64) -> u64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
    *state >> 33
}

const KEYS: u64 = 50;
const BATCHES: usize = 60;
const RECORDS: usize = 1000;

/// Records a batch of the first hour; of how many rows it is.
fn record_batch(usage: &UsageService, keys: &[(UserId, ApiKeyId)], state: &mut u64) -> usize {
    let mut seen = HashSet::new();
    for _ in 0..RECORDS {
        let (user, key) = keys[usize::try_from(chance(state) % KEYS).unwrap()];
        let (upstream, route) = (chance(state) % 3, chance(state) % 5);
        let status = if chance(state).is_multiple_of(20) { 404 } else { 200 };
        seen.insert((key, upstream, route, status));
        let record = UsageRecord {
            id: RecordId::new(began()),
            request_id: "r".to_owned(),
            at: began(),
            method: "GET".into(),
            path: "/".to_owned(),
            status,
            outcome: Outcome::Completed,
            duration_us: 1 << (8 + chance(state) % 8),
            bytes_in: 1,
            bytes_out: 2,
            user_id: Some(user),
            key_id: Some(key),
            pass_id: None,
            upstream: format!("upstream-{upstream}").into(),
            route: format!("/v1/route-{route}/*").into(),
            is_stream: false,
            messages: 0,
            place: LogPlace::NIL,
        };
        usage.journal().reserve().unwrap().record(record, 0);
    }
    seen.len()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_it_takes_to_sum_a_thousand_requests_up() {
    if !is_wanted() {
        return;
    }
    let clock = FakeClock::starting_at(began());
    // Hardly a log: it is another matter.
    let settings = vec![("USAGE_REQUEST_LOG_MAX", "1".to_owned())];
    let app = TestApp::with(Options { clock: clock.clone(), settings, ..Options::default() }).await;
    let usage = &app.app.services.usage;
    let keys: Vec<_> = (0..KEYS).map(|_| (UserId::new(began()), ApiKeyId::new(began()))).collect();
    let mut state = 1;
    for what in ["of this hour", "of an hour that is rolled up"] {
        let (mut times, mut rows) = (vec![], 0);
        for _ in 0..BATCHES {
            rows += record_batch(usage, &keys, &mut state);
            let started = Instant::now();
            usage.flush().await.unwrap();
            times.push(started.elapsed());
        }
        times.sort_unstable();
        let (median, rows) = (times[BATCHES / 2], rows / BATCHES);
        println!("{RECORDS} records {what}, of {rows} rows in detail 0: {median:.1?}");
        clock.advance(TimeDelta::hours(2));
        let started = Instant::now();
        let hours = usage.roll_up().await.unwrap();
        println!("{hours} hour rolled up: {:.1?}", started.elapsed());
    }
}
