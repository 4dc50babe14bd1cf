use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::HeaderMap;
use http_body::{Body, Frame};
use http_body_util::{BodyExt as _, StreamBody};
use tokio::time::sleep;

use super::*;
use crate::gateway::upload::{Progress, RequestBody, UploadLimits, limited};

const IDLE: Duration = Duration::from_millis(50);

/// One that gives a part and then waits.
fn body() -> (RequestBody<impl Body<Data = Bytes, Error = ()> + Unpin>, Arc<Progress>) {
    let limits = UploadLimits { max_bytes: 100, idle: IDLE };
    let part = stream::iter([Ok(Frame::data(Bytes::from_static(b"x")))]);
    let inner = StreamBody::new(part.chain(stream::pending()));
    let now = tokio::time::Instant::now();
    let (mut body, progress) = limited(&HeaderMap::new(), inner, limits, now).unwrap();
    body.is_carried();
    (body, progress.unwrap())
}

/// Takes a part of the body, and then waits for ever for its upstream.
async fn stuck<B: Body + Unpin>(mut body: B) {
    let _ = body.frame().await;
    std::future::pending::<()>().await;
}

async fn gone(progress: &Progress) {
    let start = Instant::now();
    while !progress.is_gone() {
        assert!(start.elapsed() < Duration::from_secs(10), "it is never given up");
        sleep(Duration::from_millis(1)).await;
    }
}

/// Whether the body is asked before there is a task, or by that.
#[tokio::test]
async fn what_is_not_taken_is_given_up_some_time_after_the_answer() {
    for before in [false, true] {
        let (mut body, progress) = body();
        if before {
            let asked = body.frame().await;
            assert!(asked.is_some_and(|asked| asked.is_ok()));
            Carrier.execute(async move {
                std::future::pending::<()>().await;
                drop(body);
            });
        } else {
            Carrier.execute(stuck(body));
        }
        sleep(4 * IDLE).await;
        assert!(!progress.is_gone(), "its answer has limits of its own");
        assert!(progress.keep(()).is_none());
        gone(&progress).await;
    }
}

#[tokio::test]
async fn what_carries_no_body_is_left_alone() {
    let (mut gone, _) = body();
    gone.frame().await.unwrap().unwrap();
    drop(gone);
    let (tell, told) = tokio::sync::oneshot::channel();
    Carrier.execute(async move {
        sleep(4 * IDLE).await;
        tell.send(()).unwrap();
    });
    told.await.unwrap();
}
