//! A process that panics over what it is told, and one that makes up its first
//! password.

use serde_json::json;

use super::{Answers, Outside, PERSON, Planted, STOP, sinks::Files, talkative};
use crate::process::Setup;

/// Handlers of the main runtime, with what they hold.
#[tokio::test]
async fn a_panic_tells_no_secret() {
    let outside = Outside::start().await;
    let setup = outside.set(talkative(Setup::bare()));
    let setup = setup.set("TOLLGATE_FAILPOINT", "panic:purchase.claimed");
    let mut setup = setup.set("ADMIN_PASSWORD", "");
    setup.environment.remove("ADMIN_PASSWORD");
    let mut process = setup.serve().await;
    let (mut planted, mut answers) = (Planted::fixed(), Answers::default());
    let made_up = process.password().unwrap();
    planted.add("made-up password", &made_up);
    let client = process.client();
    planted.add("login token", &process.token("admin", &made_up).await);
    let person = json!({ "username": "person", "email": "person@example.com", "password": PERSON });
    client.post("/api/v1/auth/register", person).await.expect(201);
    let token = process.token("person", PERSON).await;
    planted.add("login token", &token);
    let person = client.with_bearer(&token).with("cookie", &format!("sid={}", super::COOKIE));
    let key = person.post("/api/v1/keys", json!({ "name": "k" })).await.expect(201);
    planted.add("key", key.text("key"));
    let path = format!("/api/v1/tokens/purchase?q={}", super::QUERY);
    for _ in 0..3 {
        let answer = person.post(&path, json!({ "duration_hours": 24 })).await;
        answers.keep(&answer.expect_problem(500, "internal"));
    }
    let mut files = Files::of(setup.path());
    process.stop(STOP).await;
    files.read();
    let errors = process.stderr.so_far();
    assert!(errors.contains("failpoint"), "it did not panic: {errors}");
    assert_eq!(errors.matches(&made_up).count(), 1, "said once, to whoever started it");
    let mut found = planted.found_in("the answers", answers.bytes());
    found.extend(planted.found_in("standard output", process.stdout.so_far().as_bytes()));
    let rest = errors.replace(&made_up, "");
    found.extend(planted.found_in("standard error", rest.as_bytes()));
    found.extend(files.search(&planted));
    found.extend(outside.told(&planted));
    assert!(found.is_empty(), "{} places:\n{}", found.len(), found.join("\n"));
}
