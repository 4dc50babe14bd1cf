//! Who uses too much harms nobody else (RELIABILITY G-44).

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::json;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use super::{Upstream, app};
use crate::{process::upstream::Slow, streams::put_in_front};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_asks_for_far_too_much_at_once_harms_no_other() {
    const AT_ONCE: usize = 4;
    const FLOOD: usize = 100;
    let slow = Slow::start(Duration::from_millis(20)).await;
    let app = app(&Upstream::start().await, &[]).await;
    // No more than the two keys may have under way.
    let rest = format!("max_connections = {}\nmax_pending = 1", AT_ONCE + 1);
    put_in_front(&app, &slow.url(), &rest);
    let admin = app.admin().await;
    let fields = json!({ "name": "greedy", "max_concurrent": AT_ONCE });
    let (_, greedy) = app.key(&admin, fields).await;
    let (_, other) = app.key(&admin, json!({ "name": "other" })).await;
    let done = CancellationToken::new();
    let flood: Vec<_> = (0..FLOOD)
        .map(|_| {
            let (client, done) = (greedy.clone(), done.clone());
            AbortOnDropHandle::new(tokio::spawn(async move {
                let mut answers = [0; 2];
                while !done.is_cancelled() {
                    let answer = client.get("/up/x").await;
                    let admitted = answer.status == 200;
                    answers[usize::from(!admitted)] += 1;
                    if !admitted {
                        answer.expect_problem(429, "concurrency_limited");
                    }
                }
                answers
            }))
        })
        .collect();
    let (start, mut served) = (Instant::now(), 0);
    while start.elapsed() < Duration::from_secs(2) || served < 20 {
        other.get("/up/x").await.expect(200);
        served += 1;
    }
    done.cancel();
    let answers = join_all(flood).await.into_iter().map(Result::unwrap);
    let [admitted, refused] = answers.fold([0; 2], |[a, b], [c, d]| [a + c, b + d]);
    println!("{served} of the other; {admitted} let in and {refused} refused");
    assert!(admitted > 0 && refused > admitted, "{admitted} {refused}");
}
