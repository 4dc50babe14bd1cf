//! What many bodies, or dense ones, may take from others.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::Wake,
};

use super::{
    super::{Overloaded, budget::Budget},
    *,
};

const MIB: usize = 1 << 20;

struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// An answer that stays open after these bytes.
fn answer(
    budget: &'static Budget,
    coding: &str,
    wire: Vec<u8>,
) -> Result<Rewritten<Frames>, Overloaded> {
    let mut names = names_at("/app", None);
    Arc::get_mut(&mut names.site).unwrap().budget = budget;
    let answer = Response::builder()
        .header("content-type", "text/html")
        .header("content-encoding", coding)
        .body(Frames { frames: [wire.into(), Bytes::new()].into(), sized: false });
    let (mut parts, body) = answer.unwrap().into_parts();
    Plan::for_request(names, &Method::GET, "/", &mut HeaderMap::new()).apply(&mut parts, body)
}

/// All that comes before there is a wait.
fn held_open(body: &mut Rewritten<Frames>) -> Result<(), RewriteError<Infallible>> {
    while !matches!(body, Rewritten::Edited(edited) if edited.waits()) {
        if let Poll::Ready(Some(Err(error))) = poll(body) {
            return Err(error);
        }
    }
    Ok(())
}

/// What a compressed stream says so far, and not its end.
fn unended(coding: &str, text: &[u8]) -> Vec<u8> {
    let mut wire = encode(coding, text);
    wire.truncate(wire.len() - 9);
    wire
}

#[test]
fn a_body_that_there_is_no_room_for_is_not_begun() {
    static BUDGET: Budget = Budget::new(MIB);
    let begin = || answer(&BUDGET, "gzip", encode("gzip", b"<p>x"));
    let open: Vec<_> = std::iter::from_fn(|| begin().ok()).take(100).collect();
    assert!((1..10).contains(&open.len()), "{}", open.len());
    assert!(matches!(begin(), Err(Overloaded)));
    drop(open);
    assert!(begin().is_ok());
}

/// A few bytes that stand for a window, or for an element without an end.
#[test]
fn bodies_that_are_held_open_are_broken_off_when_all_of_them_are_too_much() {
    static BUDGET: Budget = Budget::new(12 * MIB);
    let mut seed = 7_u64;
    let mut letter = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        b'a' + (seed >> 60) as u8
    };
    let noise: Vec<u8> = (0..900_000).map(|_| letter()).collect();
    let window = [b"<p>".as_slice(), &noise].concat();
    let attributes = format!("<!doctype html><p {}", "a ".repeat(45_000)).into_bytes();
    let cases = [("br", &window), ("zstd", &window), ("gzip", &attributes)];
    for (coding, text) in cases {
        let mut open = vec![];
        let broken = loop {
            let Ok(mut body) = answer(&BUDGET, coding, unended(coding, text)) else { break None };
            match held_open(&mut body) {
                Ok(()) => open.push(body),
                Err(error) => break Some(error),
            }
            assert!(open.len() <= 5, "{coding}");
        };
        assert!(matches!(broken, None | Some(RewriteError::Overloaded(_))), "{coding}");
        assert!(open.len() >= 2, "{coding}");
        drop(open);
        let mut body = answer(&BUDGET, coding, unended(coding, text)).unwrap();
        held_open(&mut body).unwrap();
    }
}

/// A page of a few hundred bytes that decodes to megabytes is worked on in turns.
#[test]
fn a_dense_body_leaves_others_their_turn() {
    static BUDGET: Budget = Budget::new(12 * MIB);
    let wire = encode("gzip", &vec![b' '; 2 * MIB - 1]);
    let mut body = answer(&BUDGET, "gzip", wire).unwrap();
    let woken = Arc::new(Woken(AtomicUsize::new(0)));
    let waker = Waker::from(Arc::clone(&woken));
    let first = Pin::new(&mut body).poll_frame(&mut Context::from_waker(&waker));
    assert!(first.is_pending());
    assert_eq!(woken.0.load(Ordering::Relaxed), 1, "it goes on by itself");
    read(body).unwrap();
}
