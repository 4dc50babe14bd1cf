//! Named limits over several instances.

use futures_util::future::join_all;
use serde_json::json;

use super::HELLO;
use crate::support::TestApp;

/// All tiers of a request are decided in one step, over all instances: the
/// smallest is used up exactly, and the others have lost no more than that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn instances_share_the_named_limits_of_a_key() {
    let settings =
        [("RATE_LIMIT_ON_STORE_LOSS", "deny"), ("RATE_LIMIT_UPSTREAM_PER_DAY", "100000")];
    let Some(apps) = TestApp::instances(3, &settings).await else { return };
    let admin = apps[0].admin().await;
    for (small, large) in [(40, 45), (260, 300)] {
        let limits = json!([
            { "name": "large", "limit": large, "window": "hour" },
            { "name": "small", "limit": small, "window": "day" },
            { "name": "month", "limit": large, "window": "month" },
        ]);
        let (id, key) = apps[0].key(&admin, json!({ "name": "k", "limits": limits })).await;
        let tasks = apps.iter().flat_map(|app| {
            let client = key.at(&app.base);
            (0..large).map(move |_| {
                let client = client.clone();
                tokio::spawn(async move { client.get(HELLO).await.status.as_u16() })
            })
        });
        let answers = join_all(tasks).await;
        let got = answers.into_iter().filter(|status| *status.as_ref().unwrap() == 200).count();
        let late: u64 = apps.iter().map(|app| app.app.limiter.stats().unwrap().in_memory).sum();
        assert!(got <= small, "{got} of {small}");
        assert!(got + usize::try_from(late).unwrap() >= small, "{got} of {small}, {late} late");
        let limits = json!([{ "name": "large", "limit": large, "window": "hour" }]);
        admin.patch(&format!("/api/v1/keys/{id}"), json!({ "limits": limits })).await.expect(200);
        if late == 0 {
            let left = key.get(HELLO).await.expect(200);
            let remaining: usize = left.header("x-ratelimit-remaining").parse().unwrap();
            assert_eq!(remaining, large - small - 1, "nothing was half consumed");
        }
    }
}
