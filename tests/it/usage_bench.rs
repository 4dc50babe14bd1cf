//! How long reports take where a hundred million requests were summed up in a
//! year: `make bench-usage`; `docs/usage-queries.md` has what it said.

use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::json;
use tollgate::{domain::clock::FakeClock, repositories::Repositories as _};
use uuid::Uuid;

use crate::support::{Client, Options, PASSWORD, TestApp, TestDatabase, UNLIMITED};

/// With two keys each.
const USERS: u32 = 100;
const KEYS: u32 = 2 * USERS;
const UPSTREAMS: u32 = 5;
const ROUTES: u32 = 3;
const DAYS: u32 = 365;
/// Of a key, an upstream and a route in a day: of 1.1 million such days, 91.
const REQUESTS: u32 = 100_000_000 / (DAYS * KEYS * UPSTREAMS * ROUTES);
/// The key that asks, and its user's number.
const ASKING: u32 = 7;

fn began() -> DateTime<Utc> {
    "2025-01-01T00:00:00Z".parse().unwrap()
}

/// Rows of one table and detail, for units of time `from..to` since the year began.
struct Rows<'a> {
    postgres: bool,
    table: &'a str,
    unit: &'a str,
    detail: u32,
    units: std::ops::Range<u32>,
    /// Requests of one row, all classes of status together.
    requests: u32,
    /// The user and the key that ask.
    asking: (Uuid, Uuid),
}

impl Rows<'_> {
    fn id(&self, number: &str, real: Uuid) -> String {
        // ASCII digits are bytes like any.
        let (made, real) = if self.postgres {
            let text = format!("lpad(({number})::text, 16, '0')");
            (format!("encode(convert_to({text}, 'UTF8'), 'hex')::uuid"), format!("'{real}'::uuid"))
        } else {
            (format!("CAST(printf('%016d', {number}) AS blob)"), format!("x'{}'", real.simple()))
        };
        format!("CASE WHEN ({number}) = {ASKING} THEN {real} ELSE {made} END")
    }

    fn start(&self) -> String {
        let Self { unit, .. } = self;
        if self.postgres {
            format!("(timestamp '2025-01-01' + t.n * interval '1 {unit}') AT TIME ZONE 'UTC'")
        } else {
            format!("strftime('%Y-%m-%dT%H:00:00+00:00', '2025-01-01', '+' || t.n || ' {unit}s')")
        }
    }

    fn sql(&self) -> String {
        let Self { postgres, table, detail, units, requests, asking, .. } = self;
        let (first, last) = (units.start, units.end - 1);
        let nil = Uuid::nil();
        let nil = if *postgres { format!("'{nil}'::uuid") } else { format!("x'{}'", nil.simple()) };
        let (who, what) = (*detail != 2, *detail != 1);
        let user = if who { self.id(&format!("k.n % {USERS}"), asking.0) } else { nil.clone() };
        let key = if who { self.id("k.n", asking.1) } else { nil.clone() };
        let upstream = if what { "'upstream-' || u.n" } else { "''" };
        let route = if what { "'/v1/route-' || r.n || '/*'" } else { "''" };
        let count = |many, all: u32| if many { all - 1 } else { 0 };
        let (keys, upstreams, routes) =
            (count(who, KEYS), count(what, UPSTREAMS), count(what, ROUTES));
        let numbers = |name: &str, first: u32, last: u32| {
            format!(
                "{name}(n) AS (SELECT {first} UNION ALL SELECT n + 1 FROM {name} WHERE n < {last})"
            )
        };
        let lists = [
            numbers("t", first, last),
            numbers("k", 0, keys),
            numbers("u", 0, upstreams),
            numbers("r", 0, routes),
        ];
        // A twentieth fails. Latencies lie in about as many buckets as they would.
        let buckets = (requests / 4).clamp(2, 16);
        let latency: Vec<_> = (0..buckets)
            .map(|bucket| format!("'\"{}\":' || (s.requests / {buckets} + 1)", 30 + bucket))
            .collect();
        let latency = latency.join(" || ',' || ");
        format!(
            "INSERT INTO {table} WITH RECURSIVE {}, s(class, requests) AS (
                 SELECT 2, {requests} - {requests} / 20 UNION ALL SELECT 4, {requests} / 20)
             SELECT {detail}, {}, {user}, {key}, {nil}, {upstream}, {route}, s.class, s.requests,
                 0, 0, s.requests * 1000, s.requests * 5000, s.requests * 40000, 0, s.requests,
                 '{{' || {latency} || '}}'
             FROM t CROSS JOIN k CROSS JOIN u CROSS JOIN r CROSS JOIN s",
            lists.join(", "),
            self.start(),
        )
    }
}

/// Rows as a year of it leaves them. Hours that tell everything apart only of the
/// first and the last days: a report reads no others.
async fn fill(database: &TestDatabase, asking: (Uuid, Uuid)) {
    let postgres = matches!(database, TestDatabase::Postgres { .. });
    let day = KEYS * UPSTREAMS * ROUTES * REQUESTS;
    let months = (0..12).map(|at| at..at + 1).collect::<Vec<_>>();
    let days = (0..DAYS).step_by(31).map(|at| at..(at + 31).min(DAYS)).collect::<Vec<_>>();
    let hours = (0..24 * DAYS).step_by(720).map(|at| at..(at + 720).min(24 * DAYS));
    let hours = hours.collect::<Vec<_>>();
    let edges = [0..48, 24 * DAYS - 48..24 * DAYS];
    for (table, unit, detail, spans, requests) in [
        ("usage_hourly", "hour", 0, &edges[..], REQUESTS / 24),
        ("usage_hourly", "hour", 1, &hours[..], day / 24 / KEYS),
        ("usage_hourly", "hour", 2, &hours[..], day / 24 / UPSTREAMS / ROUTES),
        ("usage_daily", "day", 0, &days[..], REQUESTS),
        ("usage_daily", "day", 1, &days[..], day / KEYS),
        ("usage_daily", "day", 2, &days[..], day / UPSTREAMS / ROUTES),
        ("usage_monthly", "month", 1, &months[..], 30 * day / KEYS),
        ("usage_monthly", "month", 2, &months[..], 30 * day / UPSTREAMS / ROUTES),
    ] {
        for units in spans.iter().cloned() {
            let rows = Rows { postgres, table, unit, detail, units, requests, asking };
            database.execute(rows.sql()).await;
        }
    }
    if postgres {
        database.execute("ANALYZE").await;
    }
}

/// The median of several.
async fn time(client: &Client, path: &str) -> (Duration, usize) {
    let mut times = vec![];
    let mut length = 0;
    for _ in 0..7 {
        let started = Instant::now();
        let answer = client.get(path).await.expect(200);
        times.push(started.elapsed());
        length = answer.json["items"].as_array().unwrap().len();
    }
    times.sort_unstable();
    (times[times.len() / 2], length)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reports_on_a_year_of_a_hundred_million_requests() {
    if std::env::var_os("TOLLGATE_BENCH_USAGE").is_none() {
        return;
    }
    // In the last hours, so that a span has edges.
    let now = began() + TimeDelta::days(364) + TimeDelta::minutes(22 * 60 + 30);
    let clock = FakeClock::starting_at(now);
    let settings = UNLIMITED.map(|(name, value)| (name, value.to_owned())).to_vec();
    let app = TestApp::with(Options { clock, settings, ..Options::default() }).await;
    let mut tx = app.app.db.begin().await.unwrap();
    for days in (0..DAYS).step_by(28) {
        tx.usage().add_month(began() + TimeDelta::days(days.into())).await.unwrap();
    }
    tx.commit().await.unwrap();
    let user = app.user("ada").await;
    let id = user.get("/api/v1/users/me").await.expect(200).text("id").parse().unwrap();
    let (key_id, key) = app.key(&user, json!({ "name": "k" })).await;
    let started = Instant::now();
    fill(&app.database, (id, key_id.parse().unwrap())).await;
    println!("filled in {:.0?}", started.elapsed());

    let admin = app.log_in("admin", PASSWORD).await;
    let year = "from=2025-01-01T05:00:00Z";
    let mut slowest = Duration::ZERO;
    let mut measure = async |who: &str, client: &Client, path: String| {
        let (took, items) = time(client, &format!("/api/v1{path}")).await;
        slowest = slowest.max(took);
        println!("| {who} | `{path}` | {items} | {:.0} ms |", took.as_secs_f64() * 1000.0);
    };
    for query in [
        "",
        "&interval=hour&from=2025-12-01T00:00:00Z",
        "&group_by=user",
        "&group_by=key",
        "&group_by=token",
        "&group_by=upstream",
        "&group_by=route",
    ] {
        let year = if query.contains("from") { "" } else { year };
        let path = format!("/usage/all?{year}{query}").replace("?&", "?");
        measure("everybody", &admin, path).await;
    }
    for group in ["user", "key", "route"] {
        measure("everybody", &admin, format!("/usage/all?group_by={group}")).await;
    }
    for (who, client) in [("a key", &key), ("a user of two keys", &user)] {
        for group in [
            "",
            "&group_by=key",
            "&group_by=token",
            "&group_by=upstream",
            "&group_by=route",
            "&group_by=status",
        ] {
            measure(who, client, format!("/usage?{year}{group}")).await;
        }
    }
    println!("slowest: {slowest:.0?}");
    let all = admin.get(&format!("/api/v1/usage/all?{year}")).await.expect(200);
    let requests = all.json["totals"]["requests"].as_u64().unwrap();
    assert!((98_000_000..=100_000_000).contains(&requests), "{requests}");
}
