//! How long reports take where a hundred million requests were summed up in a
//! year: `make bench-usage`; `docs/usage-queries.md` has what it said. A small
//! one is run with all tests.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::json;
use tollgate::{
    domain::{
        clock::FakeClock,
        id::{ApiKeyId, PassId, UserId},
    },
    repositories::{Repositories as _, UsageOf},
};
use uuid::Uuid;

use crate::support::{Client, Options, PASSWORD, TestApp, TestDatabase, UNLIMITED};

/// Of a hundred million requests. With two keys each.
const USERS: u32 = 100;
pub const YEAR: Year = Year { users: USERS, first_day: 0 };
const UPSTREAMS: u32 = 5;
const ROUTES: u32 = 3;
const DAYS: u32 = 365;
/// Of a key, an upstream and a route in a day: of 1.1 million such days, 91.
const REQUESTS: u32 = 100_000_000 / (DAYS * 2 * USERS * UPSTREAMS * ROUTES);
/// The key that asks, and its user's number.
const ASKING: u32 = 1;

pub fn began() -> DateTime<Utc> {
    "2025-01-01T00:00:00Z".parse().unwrap()
}

/// In the last hours of the year, so that a span has edges.
pub fn now() -> DateTime<Utc> {
    began() + TimeDelta::days(364) + TimeDelta::minutes(22 * 60 + 30)
}

/// The hour before this one, and not the one that has just ended.
fn rolled_until() -> DateTime<Utc> {
    began() + TimeDelta::days(364) + TimeDelta::hours(21)
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
    users: u32,
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
        let Self { postgres, table, detail, units, requests, users, asking, .. } = self;
        let (first, last) = (units.start, units.end - 1);
        let nil = Uuid::nil();
        let nil = if *postgres { format!("'{nil}'::uuid") } else { format!("x'{}'", nil.simple()) };
        let (who, what) = (matches!(detail, 0 | 1), matches!(detail, 0 | 2));
        let user = if who { self.id(&format!("k.n % {users}"), asking.0) } else { nil.clone() };
        let key = if who { self.id("k.n", asking.1) } else { nil.clone() };
        let upstream = if what { "'upstream-' || u.n" } else { "''" };
        let route = if what { "'/v1/route-' || r.n || '/*'" } else { "''" };
        let count = |many, all: u32| if many { all - 1 } else { 0 };
        let (keys, upstreams, routes) =
            (count(who, 2 * users), count(what, UPSTREAMS), count(what, ROUTES));
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
                 SELECT 2, CAST({requests} - {requests} / 20 AS bigint)
                 UNION ALL SELECT 4, {requests} / 20)
             SELECT {detail}, {}, {user}, {key}, {nil}, {upstream}, {route}, s.class, s.requests,
                 0, 0, s.requests * 1000, s.requests * 5000, s.requests * 40000, 0, s.requests,
                 {latency}
             FROM t CROSS JOIN k CROSS JOIN u CROSS JOIN r CROSS JOIN s",
            lists.join(", "),
            self.start(),
        )
    }
}

/// Rows as a year of it leaves them. Hours that tell everything apart only of the
/// first and the last day: a report reads no others.
async fn fill(database: &TestDatabase, year: Year, asking: (Uuid, Uuid)) {
    let Year { users, first_day } = year;
    let keys = 2 * users;
    let postgres = matches!(database, TestDatabase::Postgres { .. });
    let day = keys * UPSTREAMS * ROUTES * REQUESTS;
    let months = (0..12).map(|at| at..at + 1).collect::<Vec<_>>();
    let days = (0..DAYS).step_by(31).map(|at| at..(at + 31).min(DAYS)).collect::<Vec<_>>();
    let hours = (0..24 * DAYS).step_by(720).map(|at| at..(at + 720).min(24 * DAYS));
    let hours = hours.collect::<Vec<_>>();
    let edges = [0..24, 24 * DAYS - 24..24 * DAYS];
    for (table, unit, detail, spans, requests) in [
        ("usage_hourly", "hour", 0, &edges[..], REQUESTS / 24),
        ("usage_hourly", "hour", 1, &hours[..], day / 24 / keys),
        ("usage_hourly", "hour", 2, &hours[..], day / 24 / UPSTREAMS / ROUTES),
        ("usage_hourly", "hour", 4, &hours[..], day / 24),
        ("usage_daily", "day", 0, &days[..], REQUESTS),
        ("usage_daily", "day", 1, &days[..], day / keys),
        ("usage_daily", "day", 2, &days[..], day / UPSTREAMS / ROUTES),
        ("usage_daily", "day", 4, &days[..], day),
        ("usage_monthly", "month", 1, &months[..], 30 * day / keys),
        ("usage_monthly", "month", 2, &months[..], 30 * day / UPSTREAMS / ROUTES),
        ("usage_monthly", "month", 4, &months[..], 30 * day),
    ] {
        let first = match unit {
            // A week of them is enough of a month.
            "hour" if first_day > 0 => 24 * (DAYS - 7),
            "hour" => 0,
            "day" => first_day,
            _ => first_day / 30,
        };
        for units in spans.iter().filter(|units| units.end > first).cloned() {
            let units = units.start.max(first)..units.end;
            let rows = Rows { postgres, table, unit, detail, units, requests, users, asking };
            database.execute(rows.sql()).await;
        }
    }
    let until = rolled_until().to_rfc3339();
    database.execute(format!("UPDATE usage_rolled_up SET until = '{until}'")).await;
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

/// How much of a year there is.
#[derive(Clone, Copy)]
pub struct Year {
    users: u32,
    first_day: u32,
}

pub fn is_wanted() -> bool {
    std::env::var_os("TOLLGATE_BENCH_USAGE").is_some()
}

/// An instance with such a year, and who asks: the user's id and the user, the
/// key's and the key.
pub struct Filled {
    pub app: TestApp,
    pub clock: Arc<FakeClock>,
    user: (UserId, Client),
    key: (ApiKeyId, Client),
}

impl Filled {
    pub async fn with(year: Year) -> Self {
        let clock = FakeClock::starting_at(now());
        let settings = UNLIMITED.map(|(name, value)| (name, value.to_owned())).to_vec();
        let app =
            TestApp::with(Options { clock: clock.clone(), settings, ..Options::default() }).await;
        let mut tx = app.app.db.begin().await.unwrap();
        for days in (0..DAYS).step_by(28) {
            tx.usage().add_month(began() + TimeDelta::days(days.into())).await.unwrap();
        }
        tx.commit().await.unwrap();
        let user = app.user("ada").await;
        let id: Uuid = user.get("/api/v1/users/me").await.expect(200).text("id").parse().unwrap();
        let (key_id, key) = app.key(&user, json!({ "name": "k" })).await;
        let key_id: Uuid = key_id.parse().unwrap();
        fill(&app.database, year, (id, key_id)).await;
        Self { app, clock, user: (id.into(), user), key: (key_id.into(), key) }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reports_on_a_year_of_a_hundred_million_requests() {
    if !is_wanted() {
        return;
    }
    let started = Instant::now();
    let filled = Filled::with(YEAR).await;
    let Filled { app, user: (user_id, user), key: (key_id, key), .. } = filled;
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
    let month = began() + TimeDelta::days(334);
    for of in [UsageOf::User(user_id), UsageOf::Key(key_id), UsageOf::Upstream("upstream-1")] {
        let (took, count) = time_of(&app, &of, month).await;
        println!("| a limit | `{of:?}` | {count} | {:.0} ms |", took.as_secs_f64() * 1000.0);
    }
    println!("slowest: {slowest:.0?}");
    let all = admin.get(&format!("/api/v1/usage/all?{year}")).await.expect(200);
    let requests = all.json["totals"]["requests"].as_u64().unwrap();
    assert!((98_000_000..=100_000_000).contains(&requests), "{requests}");
}

/// What a limit asks for when its counter was lost; the best of several.
async fn time_of(app: &TestApp, of: &UsageOf<'_>, from: DateTime<Utc>) -> (Duration, u64) {
    let mut best = (Duration::MAX, 0);
    for _ in 0..5 {
        let mut session = app.app.db.session().await.unwrap();
        let started = Instant::now();
        let count = session.usage().let_through(of, from, now()).await.unwrap();
        best = best.min((started.elapsed(), count));
    }
    best
}

/// What one key or user asks takes as long as its own usage is long, whatever
/// others use: a question that no longer finds its rows by an index reads all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_asks_takes_no_longer_where_there_are_many_others() {
    const DECEMBER: u32 = 334;
    let alone = Filled::with(Year { users: 2, first_day: DECEMBER }).await;
    let crowded = Filled::with(Year { users: 48, first_day: DECEMBER }).await;
    let span = "/api/v1/usage?from=2025-12-02T05:00:00Z&to=2025-12-31T22:00:00Z";
    let hours = span.replace("2025-12-02", "2025-12-26") + "&interval=hour";
    let reports = [format!("{span}&group_by=route"), hours];
    let month = began() + TimeDelta::days(DECEMBER.into());
    for question in 0..8 {
        let ask = async |filled: &Filled| {
            let Filled { app, user: (user_id, user), key: (key_id, key), .. } = filled;
            let of = match question {
                0..4 => {
                    let client = [user, key][question % 2];
                    return best_of_five(client, &reports[question / 2]).await;
                }
                4 => UsageOf::User(*user_id),
                5 => UsageOf::Key(*key_id),
                6 => UsageOf::Pass(PassId::new(now())),
                _ => UsageOf::UserAt(*user_id, "upstream-1"),
            };
            time_of(app, &of, month).await.0
        };
        // To read all takes 24 times as long. The machine may be busy for a while.
        let mut times = vec![];
        loop {
            let (few, many) = (ask(&alone).await, ask(&crowded).await);
            if many < 5 * few + Duration::from_millis(10) {
                break;
            }
            times.push((few, many));
            assert!(times.len() < 4, "question {question}: {times:?}");
        }
    }
}

async fn best_of_five(client: &Client, path: &str) -> Duration {
    let mut best = Duration::MAX;
    for _ in 0..5 {
        let started = Instant::now();
        client.get(path).await.expect(200);
        best = best.min(started.elapsed());
    }
    best
}
