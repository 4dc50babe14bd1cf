//! Named limits over several instances.

use serde_json::json;

use super::HELLO;
use crate::{
    instances::{admitted, left_over},
    support::TestApp,
};

/// All tiers of a request are decided in one step, over all instances: the
/// smallest is used up exactly, and the others have lost no more than that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn instances_share_the_named_limits_of_a_key() {
    // Denying turns what Redis does not answer into a refusal.
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
        let issued = admin.post("/api/v1/keys", json!({ "name": "k", "limits": limits })).await;
        let (key, id) = (issued.text("key"), issued.text("id"));
        let passed = admitted(&apps, key, large).await.into_iter().sum::<usize>();
        assert!(passed <= small, "{passed} of {small}");
        let passed = passed + left_over(&apps, key).await;
        assert_eq!(passed, small);
        let limits = json!([{ "name": "large", "limit": large, "window": "hour" }]);
        admin.patch(&format!("/api/v1/keys/{id}"), json!({ "limits": limits })).await.expect(200);
        let left = apps[0].anonymous().with_key(key).get(HELLO).await.expect(200);
        let remaining: usize = left.header("x-ratelimit-remaining").parse().unwrap();
        assert_eq!(remaining, large - small - 1, "nothing was half consumed");
    }
}
