use futures_util::{StreamExt, stream};
use http::HeaderValue;
use http_body_util::{BodyExt, Full, StreamBody};

use super::*;

const LIMITS: UploadLimits = UploadLimits { max_bytes: 10, idle: Duration::from_secs(30) };

fn chunks(sizes: &'static [usize]) -> impl Body<Data = Bytes, Error = std::io::Error> + Unpin {
    let frames = sizes.iter().map(|size| Ok(Frame::data(Bytes::from(vec![b'x'; *size]))));
    StreamBody::new(stream::iter(frames))
}

#[tokio::test]
async fn up_to_the_limit_and_not_a_byte_more() {
    let headers = HeaderMap::new();
    for (sizes, expected) in [(&[4, 6][..], Ok(10)), (&[4, 6, 1], Err(UploadFault::TooLarge))] {
        let (body, progress) = limited(&headers, chunks(sizes), LIMITS, Instant::now()).unwrap();
        let progress = progress.unwrap();
        let taken = body.collect().await.map(|all| all.to_bytes().len());
        assert_eq!(taken, expected);
        assert_eq!(progress.fault(), expected.err());
        assert_eq!(progress.bytes(), 10);
    }
}

#[tokio::test]
async fn a_declared_length_over_the_limit_is_refused_unread() {
    let headers = HeaderMap::from_iter([(CONTENT_LENGTH, HeaderValue::from_static("11"))]);
    let refused = limited(&headers, chunks(&[1]), LIMITS, Instant::now());
    assert_eq!(refused.err(), Some(UploadFault::TooLarge));
}

#[tokio::test]
async fn a_client_that_pauses_too_long_is_cut() {
    let limits = UploadLimits { idle: Duration::from_millis(20), ..LIMITS };
    let first = stream::iter([Ok::<_, ()>(Frame::data(Bytes::from_static(b"x")))]);
    let body = StreamBody::new(first.chain(stream::pending()));
    let (mut body, progress) = limited(&HeaderMap::new(), body, limits, Instant::now()).unwrap();
    assert!(body.frame().await.unwrap().is_ok());
    assert_eq!(body.frame().await.unwrap().err(), Some(UploadFault::Stalled));
    assert_eq!(progress.unwrap().fault(), Some(UploadFault::Stalled));
}

/// Whether its bytes are always ready or never come.
#[tokio::test]
async fn nothing_is_taken_once_the_credentials_time_is_over() {
    let chunk = || Ok::<_, ()>(Frame::data(Bytes::from_static(b"x")));
    let ready = stream::repeat(()).map(move |()| chunk()).boxed();
    let silent = stream::iter([chunk()]).chain(stream::pending()).boxed();
    for frames in [ready, silent] {
        let limits = UploadLimits { max_bytes: u64::MAX, ..LIMITS };
        let body = StreamBody::new(frames);
        let (mut body, progress) =
            limited(&HeaderMap::new(), body, limits, Instant::now()).unwrap();
        let until = Instant::now() + Duration::from_millis(40);
        body.end_at(Some(until));
        let fault = loop {
            assert!(until.elapsed() < Duration::from_secs(2), "it goes on");
            if let Err(fault) = body.frame().await.unwrap() {
                break fault;
            }
        };
        assert!(Instant::now() >= until);
        assert_eq!(fault, UploadFault::Expired);
        assert_eq!(progress.unwrap().fault(), Some(UploadFault::Expired));
    }
}

#[tokio::test]
async fn trailers_are_dropped() {
    let trailers = HeaderMap::from_iter([(
        http::HeaderName::from_static("x-user-id"),
        HeaderValue::from_static("forged"),
    )]);
    let inner = Full::new(Bytes::from_static(b"abc"))
        .with_trailers(async move { Some(Ok::<_, std::convert::Infallible>(trailers)) });
    let inner = Box::pin(inner);
    let (body, _) = limited(&HeaderMap::new(), inner, LIMITS, Instant::now()).unwrap();
    let collected = body.collect().await.unwrap();
    assert!(collected.trailers().is_none());
    assert_eq!(collected.to_bytes(), "abc");
}
