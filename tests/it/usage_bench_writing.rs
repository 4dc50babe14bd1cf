//! What it takes to sum requests up: `make bench-usage`; `docs/usage-queries.md`
//! has what it said.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use chrono::{DateTime, TimeDelta, Utc};
use tollgate::domain::{
    clock::{Clock as _, FakeClock},
    id::{ApiKeyId, LogPlace, RecordId, UserId},
    usage::{Outcome, UsageRecord},
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_it_takes_to_sum_a_thousand_requests_up() {
    const KEYS: u64 = 50;
    const BATCHES: usize = 60;
    const RECORDS: usize = 1000;
    if !is_wanted() {
        return;
    }
    let clock = FakeClock::starting_at(began());
    // Hardly a log: it is another matter.
    let settings = vec![("USAGE_REQUEST_LOG_MAX", "1".to_owned())];
    let app = TestApp::with(Options { clock: clock.clone(), settings, ..Options::default() }).await;
    let usage = &app.app.services.usage;
    let keys: Vec<_> = (0..KEYS).map(|_| (UserId::new(began()), ApiKeyId::new(began()))).collect();
    let (mut state, mut times, mut rows) = (1, vec![], vec![]);
    for _ in 0..BATCHES {
        let mut seen = HashSet::new();
        for _ in 0..RECORDS {
            let (user, key) = keys[usize::try_from(chance(&mut state) % KEYS).unwrap()];
            let (upstream, route) = (chance(&mut state) % 3, chance(&mut state) % 5);
            let status = if chance(&mut state).is_multiple_of(20) { 404 } else { 200 };
            seen.insert((key, upstream, route, status));
            let at = clock.now();
            usage.journal().reserve().unwrap().record(
                UsageRecord {
                    id: RecordId::new(at),
                    request_id: "r".to_owned(),
                    at,
                    method: "GET".into(),
                    path: "/".to_owned(),
                    status,
                    outcome: Outcome::Completed,
                    duration_us: 1 << (8 + chance(&mut state) % 8),
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
                },
                0,
            );
        }
        let started = Instant::now();
        usage.flush().await.unwrap();
        times.push(started.elapsed());
        rows.push(seen.len());
    }
    let total: Duration = times.iter().sum();
    times.sort_unstable();
    println!(
        "{RECORDS} records: median {:.1?}, mean {:.1?}, {} rows",
        times[BATCHES / 2],
        total / u32::try_from(BATCHES).unwrap(),
        rows.iter().sum::<usize>() / BATCHES,
    );
    clock.advance(TimeDelta::hours(2));
    let started = Instant::now();
    usage.roll_up().await.unwrap();
    println!("rolled the hour up in {:.1?}", started.elapsed());
}
