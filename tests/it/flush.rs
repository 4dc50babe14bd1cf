//! Writing usage: bounded work for any load, and nothing lost.

use chrono::TimeDelta;
use tollgate::domain::{
    id::{LogPlace, RecordId, UserId},
    page::PageRequest,
    usage::{Outcome, UsageRecord},
};
use tollgate::services::usage::RequestFilter;

use crate::support::{TestApp, epoch};

fn record(user: UserId, number: i64) -> UsageRecord {
    let at = epoch() + TimeDelta::milliseconds(number);
    UsageRecord {
        id: RecordId::new(at),
        request_id: number.to_string(),
        at,
        method: "GET".into(),
        path: "/".to_owned(),
        status: 200,
        outcome: Outcome::Completed,
        duration_us: 1000,
        bytes_in: 1,
        bytes_out: 2,
        user_id: Some(user),
        key_id: None,
        pass_id: None,
        upstream: "default".into(),
        route: "/**".into(),
        is_stream: false,
        messages: 0,
        place: LogPlace::NIL,
    }
}

/// A row of the log costs as much as a proxied request, so a burst is logged in
/// part; the sums are of everything.
#[tokio::test]
async fn a_burst_is_summed_whole_and_logged_in_part() {
    let (app, _clock) = TestApp::with_clock().await;
    let usage = &app.app.services.usage;
    let user = UserId::new(epoch());
    for number in 0..5_000 {
        usage.record_unreserved(record(user, number));
    }
    assert_eq!(usage.flush().await.unwrap(), 5_000);
    assert_eq!(usage.pending(), 0);

    let admin = app.admin().await;
    let all = admin.get("/api/v1/usage/all?from=2025-12-31T00:00:00Z&to=2026-01-02T00:00:00Z");
    let all = all.await.expect(200);
    assert_eq!(all.json["totals"]["requests"], 5_000);
    assert_eq!(all.json["totals"]["bytes_out"], 10_000);

    let filter = RequestFilter { user_id: Some(user), key_id: None };
    let newest = usage.requests(&filter, PageRequest { limit: 1, after: None }).await.unwrap();
    assert_eq!(newest.items[0].request_id, "4999");
    let mut logged = 0;
    let mut page = PageRequest::FIRST;
    loop {
        let found = usage.requests(&filter, page).await.unwrap();
        logged += found.items.len();
        let Some(cursor) = found.next else { break };
        page.after = Some(cursor);
    }
    // Every eighth and the last, as many as are written without a remainder.
    assert_eq!(logged, 576);
}

#[tokio::test]
async fn the_log_is_cut_to_its_bound_as_it_grows() {
    let app = TestApp::configured([("USAGE_REQUEST_LOG_MAX", "1000")]).await;
    let usage = &app.app.services.usage;
    let user = UserId::new(epoch());
    for round in 0..3 {
        for number in 0..700 {
            usage.record_unreserved(record(user, round * 700 + number));
        }
        usage.flush().await.unwrap();
        usage.trim().await.unwrap();
    }
    let filter = RequestFilter::default();
    let mut page = PageRequest::FIRST;
    let mut ids = vec![];
    loop {
        let found = usage.requests(&filter, page).await.unwrap();
        ids.extend(found.items.into_iter().map(|record| record.request_id));
        let Some(cursor) = found.next else { break };
        page.after = Some(cursor);
    }
    // Cut after the second round, when 1,400 were there, to the newest 1,000.
    assert_eq!(ids.len(), 1_700);
    assert_eq!((ids[0].as_str(), ids[1_699].as_str()), ("2099", "400"));
}
