use std::{sync::mpsc, time::Duration};

use chrono::DateTime;
use futures_util::{StreamExt, stream};
use http_body_util::{BodyExt, Empty, Full, StreamBody};

use super::*;
use crate::{
    domain::{
        id::{LogPlace, RecordId},
        kill::KillReason,
    },
    gateway::upload::{UploadLimits, limited},
};

impl Sink for mpsc::Sender<UsageRecord> {
    fn record(self, record: UsageRecord, _messages: u64) {
        self.send(record).unwrap();
    }
}

fn meter() -> (Meter<mpsc::Sender<UsageRecord>>, mpsc::Receiver<UsageRecord>) {
    let (sender, receiver) = mpsc::channel();
    let at = DateTime::from_timestamp(1_700_000_000, 0).unwrap();
    let record = UsageRecord {
        id: RecordId::new(at),
        request_id: "r".to_owned(),
        at,
        method: "GET".into(),
        path: "/".to_owned(),
        status: CLIENT_CLOSED_REQUEST,
        outcome: Outcome::Aborted,
        duration_us: 0,
        bytes_in: 0,
        bytes_out: 0,
        user_id: None,
        key_id: None,
        pass_id: None,
        upstream: "default".into(),
        route: "/**".into(),
        is_stream: false,
        messages: 0,
        place: LogPlace::NIL,
    };
    (Meter::new(sender, record, Instant::now(), None), receiver)
}

/// What is recorded of an answer says how much came in all, so it waits for that.
#[tokio::test]
async fn a_body_that_outlives_its_answer_is_recorded_whole() {
    type Chunks = mpsc::Receiver<UsageRecord>;
    let limits = UploadLimits { max_bytes: 100, idle: Duration::from_secs(30) };
    let sent = |fault: Option<UploadFault>| async move {
        let chunks = (0..4).map(|_| Ok::<_, ()>(Frame::data(Bytes::from_static(b"12345"))));
        let body = StreamBody::new(stream::iter(chunks));
        let (mut body, progress) =
            limited(&http::HeaderMap::new(), body, limits, Instant::now()).unwrap();
        let (mut meter, receiver): (_, Chunks) = self::meter();
        if let Some(open) = &mut meter.0 {
            open.upload.clone_from(&progress);
        }
        body.frame().await.unwrap().unwrap();
        let answer = Metered::new(Full::new(Bytes::from_static(b"hello")), meter, timer());
        assert_eq!(answer.collect().await.unwrap().to_bytes(), "hello");
        assert_eq!(seen(&receiver), [], "more comes");
        body.frame().await.unwrap().unwrap();
        if let Some(fault) = fault {
            progress.unwrap().failed(fault);
        }
        drop(body);
        let records: Vec<_> = receiver.try_iter().collect();
        assert_eq!(records.len(), 1);
        assert_eq!((records[0].bytes_in, records[0].bytes_out), (10, 5));
        records[0].outcome
    };
    for (fault, outcome) in [
        (None, Outcome::Completed),
        (Some(UploadFault::ClientGone), Outcome::Completed),
        (Some(UploadFault::Revoked), Outcome::Cut),
    ] {
        assert_eq!(sent(fault).await, outcome, "{fault:?}");
    }
}

fn timer() -> StallTimer {
    StallTimer::new(Duration::from_mins(5), None)
}

fn seen(receiver: &mpsc::Receiver<UsageRecord>) -> Vec<(Outcome, u64)> {
    receiver.try_iter().map(|record| (record.outcome, record.bytes_out)).collect()
}

#[tokio::test]
async fn every_end_is_reported_exactly_once() {
    let (meter, receiver) = self::meter();
    drop(Metered::new(Empty::<Bytes>::new(), meter, timer()));
    assert_eq!(seen(&receiver), [(Outcome::Completed, 0)]);

    let (meter, receiver) = self::meter();
    let mut body = Metered::new(Full::new(Bytes::from_static(b"hello")), meter, timer());
    // Only the one frame is taken, as a server does with a known length.
    body.frame().await.unwrap().unwrap();
    assert_eq!(seen(&receiver), [(Outcome::Completed, 5)]);
    drop(body);
    assert_eq!(seen(&receiver), []);
}

#[tokio::test]
async fn leaving_early_counts_what_was_taken() {
    let (meter, receiver) = self::meter();
    let endless = stream::repeat(()).map(|()| Ok::<_, ()>(Frame::data(Bytes::from_static(b"abc"))));
    let mut body = Metered::new(StreamBody::new(endless), meter, timer());
    body.frame().await.unwrap().unwrap();
    body.frame().await.unwrap().unwrap();
    drop(body);
    assert_eq!(seen(&receiver), [(Outcome::Aborted, 6)]);

    let (meter, receiver) = self::meter();
    drop(meter);
    let record = receiver.try_recv().unwrap();
    assert_eq!((record.outcome, record.status), (Outcome::Aborted, CLIENT_CLOSED_REQUEST));
}

#[tokio::test]
async fn an_upstream_that_breaks_off_is_an_error() {
    let (meter, receiver) = self::meter();
    let frames = [Ok(Frame::data(Bytes::from_static(b"ab"))), Err("reset")];
    let body = Metered::new(StreamBody::new(stream::iter(frames)), meter, timer());
    assert!(body.collect().await.is_err());
    assert_eq!(seen(&receiver), [(Outcome::Failed, 2)]);
}

#[tokio::test]
async fn silence_ends_an_answer() {
    let (meter, receiver) = self::meter();
    let first = stream::iter([Ok::<_, ()>(Frame::data(Bytes::from_static(b"x")))]);
    let body = StreamBody::new(first.chain(stream::pending()));
    let timer = StallTimer::new(Duration::from_millis(20), None);
    let error = Metered::new(body, meter, timer).collect().await.unwrap_err();
    assert!(matches!(error, AnswerBroken::Idle), "{error:?}");
    assert_eq!(seen(&receiver), [(Outcome::Failed, 1)]);
}

#[tokio::test]
async fn the_deadline_ends_an_answer_that_still_moves() {
    let (meter, receiver) = self::meter();
    let ticks = Box::pin(stream::unfold((), |()| async {
        tokio::time::sleep(Duration::from_millis(2)).await;
        Some((Ok::<_, ()>(Frame::data(Bytes::from_static(b"x"))), ()))
    }));
    let deadline = Instant::now() + Duration::from_millis(40);
    let timer = StallTimer::new(Duration::from_mins(1), Some(deadline));
    let body = Metered::new(StreamBody::new(ticks), meter, timer);
    let error = body.collect().await.unwrap_err();
    assert!(matches!(error, AnswerBroken::Deadline), "{error:?}");
    assert!(Instant::now() >= deadline);
    assert_eq!(seen(&receiver)[0].0, Outcome::Failed);
}

/// Whether its bytes are always ready or never come.
#[tokio::test]
async fn nothing_is_handed_on_once_the_credentials_time_is_over() {
    let chunk = || Ok::<_, ()>(Frame::data(Bytes::from_static(b"abc")));
    let ready = stream::repeat(()).map(move |()| chunk()).boxed();
    let silent = stream::iter([chunk()]).chain(stream::pending()).boxed();
    for (name, frames) in [("ready", ready), ("silent", silent)] {
        let (meter, receiver) = self::meter();
        let until = Instant::now() + Duration::from_millis(40);
        let timer = StallTimer::new(Duration::from_mins(1), Some(until));
        let expired = End::Killed(KillReason::Expired);
        let body = Metered::new(StreamBody::new(frames), meter, timer);
        let mut body = body.until((until, expired));
        let mut taken = 0;
        let error = loop {
            assert!(until.elapsed() < Duration::from_secs(2), "{name} goes on");
            match body.frame().await.unwrap() {
                Ok(frame) => taken += frame.into_data().unwrap().len() as u64,
                Err(error) => break error,
            }
        };
        let late = Instant::now().saturating_duration_since(until);
        assert!(matches!(error, AnswerBroken::Ended(end) if end == expired), "{name}: {error:?}");
        assert!(Instant::now() >= until && late < Duration::from_secs(2), "{name}: {late:?}");
        assert_eq!(seen(&receiver), [(Outcome::Cut, taken)], "{name}");
    }
}

#[test]
fn a_panic_is_recorded_as_ours() {
    let (meter, receiver) = meter();
    let handle = std::thread::spawn(move || {
        let _meter = meter;
        panic!("on purpose");
    });
    assert!(handle.join().is_err());
    let record = receiver.try_recv().unwrap();
    assert_eq!((record.outcome, record.status), (Outcome::Failed, 500));
}
