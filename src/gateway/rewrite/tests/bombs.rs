//! Bodies that decode to far more than they are.

use std::{
    collections::VecDeque,
    fmt::Write as _,
    time::{Duration, Instant},
};

use super::*;

/// Spaces, compressed; what 10 GiB of them would be is not waited for.
const TEXT: usize = 16 << 20;

fn bomb(coding: &str) -> Vec<u8> {
    encode(coding, &vec![b' '; TEXT])
}

/// The most bytes handed on at once, and all of them.
fn most<B: Body<Data = Bytes> + Unpin>(mut body: Rewritten<B>) -> (usize, usize, bool) {
    let (mut most, mut all) = (0, 0);
    loop {
        match poll(&mut body) {
            Poll::Ready(Some(Ok(data))) => {
                most = most.max(data.len());
                all += data.len();
            }
            Poll::Ready(Some(Err(error))) => {
                return (most, all, matches!(error, RewriteError::Bomb));
            }
            Poll::Ready(None) => return (most, all, false),
            Poll::Pending => {}
        }
    }
}

fn answer(kind: &str, coding: &str, frames: VecDeque<Bytes>) -> Rewritten<Frames> {
    let answer = Response::builder()
        .header("content-type", kind)
        .header("content-encoding", coding)
        .body(Frames { frames, sized: false });
    let (mut parts, body) = answer.unwrap().into_parts();
    let rules = "[[rules]]\ntypes = ['json']\nfind = 'x'\nreplace = 'y'";
    let names = names_at("/app", Some(toml::from_str(rules).unwrap()));
    Plan::for_request(names, &Method::GET, "/", &mut HeaderMap::new())
        .apply(&mut parts, body)
        .unwrap()
}

/// G-134. Held to a piece at a time, and ended soon after the limit.
#[test]
fn a_bomb_of_any_coding_is_broken_off() {
    for coding in ["gzip", "deflate", "br", "zstd"] {
        let wire = Bytes::from(bomb(coding));
        assert!(wire.len() * 500 < TEXT, "{coding} is no bomb: {}", wire.len());
        for kind in ["text/html", "text/css", "application/json"] {
            let begun = Instant::now();
            let (most, all, is_bomb) = most(answer(kind, coding, [wire.clone()].into()));
            assert!(is_bomb, "{coding} {kind}");
            assert!(most <= 64 << 10 && all <= 64 << 10, "{coding} {kind}: {most} of {all}");
            let time = begun.elapsed();
            assert!(time < Duration::from_secs(10), "{coding} {kind}: {time:?}");
        }
    }
}

/// A bomb in a bomb is one coding in another, which is not undone at all.
#[test]
fn nested_codings_are_not_opened() {
    let wire = encode("gzip", &bomb("gzip"));
    let frames: VecDeque<_> = [Bytes::from(wire.clone())].into();
    let body = answer("text/html", "gzip, gzip", frames);
    assert!(matches!(body, Rewritten::Untouched(_)));
    assert_eq!(read(body).unwrap(), wire);
}

#[test]
fn what_is_dense_but_small_or_long_but_thin_is_no_bomb() {
    let row = "<tr><td>x</td></tr>\n";
    let dense = row.repeat(60_000);
    assert!(dense.len() < 2 << 20);
    let mut seed = 7_u64;
    let mut thin = String::new();
    for _ in 0..400_000 {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        write!(thin, "{:x} ", seed >> 40).unwrap();
    }
    assert!(thin.len() > 2 << 20);
    for coding in ["gzip", "deflate", "br", "zstd"] {
        for page in [&dense, &thin] {
            let wire = encode(coding, page.as_bytes());
            let frames = wire.chunks(10_000).map(Bytes::copy_from_slice).collect();
            let body = read(answer("text/html", coding, frames)).unwrap();
            assert!(decode(coding, &body) == page.as_bytes(), "{coding}");
        }
    }
}

/// zstd may ask its reader for gigabytes of window; HTTP allows 8 MiB.
#[test]
fn a_window_beyond_what_http_allows_is_refused() {
    let mut encoder = zstd::stream::write::Encoder::new(vec![], 1).unwrap();
    encoder.window_log(27).unwrap();
    encoder.long_distance_matching(true).unwrap();
    encoder.write_all(&vec![b' '; 1000]).unwrap();
    let wire = encoder.finish().unwrap();
    let body = read(answer("text/html", "zstd", [Bytes::from(wire)].into()));
    assert!(matches!(body, Err(RewriteError::Coding(_))), "{body:?}");
}
