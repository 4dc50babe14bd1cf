use std::{collections::VecDeque, convert::Infallible, task::Waker};

use http_body::{Frame, SizeHint};

use super::*;

/// A body of these frames; an empty one stands for a time when nothing is there.
struct Frames {
    frames: VecDeque<Bytes>,
    length: Option<u64>,
}

impl Body for Frames {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.frames.pop_front() {
            Some(frame) if frame.is_empty() => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            frame => Poll::Ready(frame.map(|frame| Ok(Frame::data(frame)))),
        }
    }

    fn size_hint(&self) -> SizeHint {
        self.length.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

/// Takes so many bytes of each write, and every other time none.
struct Narrow {
    width: usize,
    writes: Vec<Vec<u8>>,
    is_ready: bool,
}

impl AsyncWrite for Narrow {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let width = self.width;
        self.is_ready = width == usize::MAX || !self.is_ready;
        if !self.is_ready {
            return Poll::Pending;
        }
        let bytes = &bytes[..bytes.len().min(width)];
        self.writes.push(bytes.to_vec());
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let all: Vec<u8> = parts.iter().flat_map(|part| part.to_vec()).collect();
        self.poll_write(cx, &all)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

fn write(
    fields: &[(&'static str, &str)],
    body: Option<(Option<u64>, &[&str])>,
    width: usize,
) -> Result<Vec<Vec<u8>>, Fault> {
    let mut map = HeaderMap::new();
    for (name, value) in fields {
        map.append(*name, value.parse().unwrap());
    }
    let body = body.map(|(length, frames)| {
        let frames = frames.iter().map(|frame| Bytes::copy_from_slice(frame.as_bytes()));
        Frames { frames: frames.collect(), length }
    });
    let uri = "/a?b=c".parse().unwrap();
    let mut outgoing = Outgoing::new(b"old".to_vec(), &Method::POST, &uri, &map, body);
    let mut to = Narrow { width, writes: vec![], is_ready: false };
    let mut cx = Context::from_waker(Waker::noop());
    for _ in 0..100_000 {
        if let Poll::Ready(done) = outgoing.poll(&mut cx, &mut to) {
            return done.map(|()| to.writes);
        }
    }
    panic!("it does not end");
}

fn text(
    fields: &[(&'static str, &str)],
    body: Option<(Option<u64>, &[&str])>,
) -> Result<String, Fault> {
    write(fields, body, usize::MAX).map(|writes| String::from_utf8(writes.concat()).unwrap())
}

#[test]
fn a_length_is_said_once_and_is_that_of_the_body() {
    let head = |rest: &str| format!("POST /a?b=c HTTP/1.1\r\n{rest}\r\n");
    let none = text(&[("host", "a")], None).unwrap();
    assert_eq!(none, head("host: a\r\n"));
    // Whatever the fields say.
    for said in ["0", "7"] {
        let none = text(&[("content-length", said), ("x", "y")], None).unwrap();
        assert_eq!(none, head("x: y\r\ncontent-length: 0\r\n"));
        let lies = [("content-length", said), ("transfer-encoding", "gzip")];
        let sized = text(&lies, Some((Some(3), &["abc"]))).unwrap();
        assert_eq!(sized, head("content-length: 3\r\n") + "abc");
        let chunked = text(&lies, Some((None, &["abc"]))).unwrap();
        assert_eq!(chunked, head("transfer-encoding: chunked\r\n") + "3\r\nabc\r\n0\r\n\r\n");
    }
    assert_eq!(text(&[], Some((Some(0), &[]))).unwrap(), head("content-length: 0\r\n"));
    let empty = text(&[], Some((None, &[]))).unwrap();
    assert_eq!(empty, head("transfer-encoding: chunked\r\n") + "0\r\n\r\n");
}

#[test]
fn a_body_that_is_not_as_long_as_it_said_breaks_off() {
    for frames in [&[][..], &["ab"], &["ab", "cd"], &["abcd"]] {
        assert!(matches!(text(&[], Some((Some(3), frames))), Err(Fault::Upload)), "{frames:?}");
    }
}

#[test]
fn what_is_ready_leaves_in_one_write() {
    let large = "x".repeat(COPIED + 1);
    for (body, writes) in [
        (None, 1),
        (Some((Some(3), &["abc"][..])), 1),
        (Some((None, &["abc"])), 2),
        (Some((Some(1025), &[&*large])), 1),
        (Some((None, &[&*large])), 2),
        // What comes a turn after the head is waited for, and no longer.
        (Some((Some(3), &["", "abc"])), 1),
        (Some((Some(3), &["", "", "abc"])), 2),
    ] {
        let wrote = write(&[("host", "a")], body, usize::MAX).unwrap();
        assert_eq!(wrote.len(), writes, "{body:?}");
    }
}

#[test]
fn however_it_is_taken_it_is_the_same() {
    let large = "x".repeat(3 * COPIED);
    let frames = [&*large, "", "little", &large, "", "", "end"];
    for length in [None, Some(6 * COPIED as u64 + 9)] {
        let body = Some((length, &frames[..]));
        let expected = text(&[("host", "a")], body).unwrap();
        for width in [1, 2, 3, 7, 100, 1023, 5000] {
            let wrote = write(&[("host", "a")], body, width).unwrap().concat();
            assert_eq!(String::from_utf8(wrote).unwrap(), expected, "{width} {length:?}");
        }
    }
}

/// Takes nothing.
struct Stuck;

impl AsyncWrite for Stuck {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Pending
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// However small the pieces are (RELIABILITY G-39).
#[test]
fn an_upstream_that_takes_nothing_is_read_nothing_for() {
    for size in [1, 1024, 64 * 1024] {
        let frames = VecDeque::from(vec![Bytes::from(vec![b'x'; size]); 1000]);
        let body = Frames { frames, length: None };
        let fields = HeaderMap::new();
        let (method, uri) = (Method::POST, Uri::from_static("/"));
        let mut outgoing = Outgoing::new(vec![], &method, &uri, &fields, Some(body));
        let mut cx = Context::from_waker(Waker::noop());
        for _ in 0..1000 {
            assert!(outgoing.poll(&mut cx, &mut Stuck).is_pending());
        }
        let left = outgoing.body.as_ref().unwrap().frames.len();
        assert_eq!(left, 999, "only what leaves with the head was taken");
    }
}
