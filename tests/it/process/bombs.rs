//! Bodies that decode to gigabytes, before a real process (RELIABILITY G-134).
//!
//! A bomb is found when its head is on its way, so there is no 502: the client
//! sees framing that breaks off, or nothing at all where the head was not out
//! yet, and never a body that merely looks short.

use std::{io::Write as _, net::SocketAddr, sync::Arc};

use flate2::{Compress, Compression, FlushCompress};

use super::{Process, Setup, alone, streams::memory};
use crate::support::{
    raw::{Answer, Raw},
    recorder::{Recorder, Reply},
};

/// What a bomb decodes to.
const DECODED: u64 = 10 << 30;
/// How much of it one repeated piece is.
const PIECE: usize = 4 << 20;
/// `max_body_bytes`, above which a body may be a bomb.
const CAP: usize = 2 << 20;
/// Of memory for the tables of a coding, which any page needs.
const TABLES: usize = 1 << 20;

/// Spaces without end: a beginning, and what is repeated.
struct Bomb {
    begin: Vec<u8>,
    piece: Vec<u8>,
}

impl Bomb {
    fn new(coding: &str) -> Self {
        let spaces = vec![b' '; PIECE];
        match coding {
            // After a full flush, deflate knows nothing of what was before.
            "deflate" => {
                let mut begin = vec![];
                let mut state = Compress::new(Compression::default(), true);
                deflated(&mut state, &spaces, &mut begin);
                let mut piece = vec![];
                deflated(&mut state, &spaces, &mut piece);
                Self { begin, piece }
            }
            // Members and frames may follow each other.
            "gzip" => {
                let mut writer = flate2::write::GzEncoder::new(vec![], Compression::default());
                writer.write_all(&spaces).unwrap();
                Self { begin: vec![], piece: writer.finish().unwrap() }
            }
            "zstd" => Self { begin: vec![], piece: zstd::encode_all(&*spaces, 3).unwrap() },
            // Flushed to a byte; from the second piece on each is in the state
            // that the one before it left.
            "br" => {
                let mut writer = brotli::CompressorWriter::new(vec![], 4096, 5, 22);
                let mut ends = [0; 3];
                for end in &mut ends {
                    writer.write_all(&spaces).unwrap();
                    writer.flush().unwrap();
                    *end = writer.get_ref().len();
                }
                let all = writer.into_inner();
                Self { begin: all[..ends[1]].to_vec(), piece: all[ends[1]..ends[2]].to_vec() }
            }
            other => panic!("{other}"),
        }
    }

    /// All of it.
    fn bytes(&self) -> Vec<u8> {
        let times = usize::try_from(DECODED / PIECE as u64).unwrap();
        [self.begin.clone(), self.piece.repeat(times)].concat()
    }
}

fn deflated(state: &mut Compress, input: &[u8], output: &mut Vec<u8>) {
    output.reserve(1 << 20);
    state.compress_vec(input, output, FlushCompress::Full).unwrap();
    assert!(output.len() < output.capacity(), "no room was left to flush");
}

/// What a decoder must remember by the format, whatever it is of; the bombs here
/// ask for as much as such encoders do. HTTP allows 16 MiB to Brotli and 8 to zstd.
fn window(coding: &str) -> usize {
    match coding {
        "br" => 4 << 20,
        "zstd" => 2 << 20,
        _ => 32 << 10,
    }
}

/// Processor time so far, in ticks of 10 ms.
fn ticks(process: &Process) -> u64 {
    let path = format!("/proc/{}/stat", process.child.id());
    let stat = std::fs::read_to_string(path).unwrap();
    let fields: Vec<_> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

/// The most memory since it was last asked to forget.
fn peak(process: &Process) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.child.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
}

fn forget_peak(process: &Process) {
    std::fs::write(format!("/proc/{}/clear_refs", process.child.id()), "5").unwrap();
}

/// `None`: the connection ends before an answer begins.
async fn get(process: &Process, path: &str) -> Option<Answer> {
    let address: SocketAddr = process.base.trim_start_matches("http://").parse().unwrap();
    let mut client = Raw::connect(address).await;
    client.send(format!("GET /up{path} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
    client.answer().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_gibibytes_of_nothing_are_broken_off_at_little_cost() {
    let _alone = alone().await;
    let codings = ["gzip", "deflate", "br", "zstd"];
    let bombs: Vec<_> = codings.iter().map(|coding| Arc::new(Bomb::new(coding).bytes())).collect();
    for (coding, bomb) in codings.iter().zip(&bombs) {
        println!("{coding}: {} bytes stand for {DECODED}", bomb.len());
        assert!(bomb.len() as u64 * 500 < DECODED, "{coding}: {}", bomb.len());
    }
    let mut wide = zstd::stream::write::Encoder::new(vec![], 1).unwrap();
    wide.window_log(27).unwrap();
    wide.long_distance_matching(true).unwrap();
    wide.write_all(&vec![b' '; 1 << 20]).unwrap();
    let wide = wide.finish().unwrap();
    let nested = crate::rewriting::encode("gzip", &bombs[0]);
    let (within, broad) = (nested.clone(), wide.clone());
    // `/coding/type/framing`.
    let recorder = Recorder::start(move |delivery| {
        let path = delivery.request_line().split(' ').nth(1).unwrap();
        let mut parts = path.split('/').skip(1);
        let coding = parts.next().unwrap();
        let kind = if parts.next() == Some("json") { "application/json" } else { "text/html" };
        let chunk = (parts.next() == Some("chunked")).then_some(64 << 10);
        let small = coding.strip_prefix("small-").unwrap_or("gzip");
        let page = crate::rewriting::encode(small, b"<a href='/x'>x</a>");
        let (coding, body) = match coding {
            _ if coding.starts_with("small-") => (small, &page),
            "nested" => ("gzip, gzip", &within),
            "window" => ("zstd", &broad),
            coding => (coding, &*bombs[codings.iter().position(|one| *one == coding).unwrap()]),
        };
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Encoding: {coding}\r\n\
             Connection: close\r\n"
        );
        Reply::SendThenClose(crate::rewriting::answer(&head, body, chunk))
    })
    .await;
    let setup = Setup::sqlite().set("SERVER_WORKERS", "1");
    let url = recorder.url();
    setup.write(
        "tollgate.toml",
        &format!(
            "[[upstreams]]\nname='up'\nmount='/up'\nurl='{url}'\nauth='public'\n\
             [[upstreams.rewrite.rules]]\ntypes=['json']\nfind='x'\nreplace='y'\n"
        ),
    );
    let process = setup.serve().await;
    // What the first of its kind needs is no bomb's.
    for coding in codings.into_iter().cycle().take(20) {
        for kind in ["html", "json"] {
            let page = get(&process, &format!("/small-{coding}/{kind}/chunked")).await.unwrap();
            assert!((page.status, page.complete) == (200, true), "{}", page.head);
        }
    }
    let mut cases = vec![];
    for coding in codings {
        cases.extend([format!("/{coding}/html/chunked"), format!("/{coding}/json/chunked")]);
    }
    // Small enough on the wire to be taken for a page.
    cases.extend(["br", "zstd"].map(|coding| format!("/{coding}/html/length")));
    cases.push("/window/html/chunked".to_owned());
    for case in cases {
        forget_peak(&process);
        let (before, spent) = (memory(&process), ticks(&process));
        let answer = get(&process, &case).await;
        let (more, spent) = (peak(&process).saturating_sub(before), ticks(&process) - spent);
        let relayed = answer.as_ref().map_or(0, |answer| answer.body.len());
        println!(
            "{case}: {more} bytes, {spent}0 ms, {} begun, {relayed} sent on",
            answer.is_some()
        );
        if let Some(answer) = answer {
            assert_eq!((answer.status, answer.complete), (200, false), "{case}: {}", answer.head);
        }
        assert!(relayed <= 128 << 10, "{case}: {relayed} bytes");
        let coding = case.split('/').nth(1).unwrap();
        assert!(more <= 2 * CAP + TABLES + window(coding), "{case}: {more} bytes of memory");
        assert!(spent <= 100, "{case}: {spent} ticks");
    }
    // One coding in another is not opened.
    let answer = get(&process, "/nested/html/chunked").await.unwrap();
    assert_eq!((answer.status, answer.complete), (200, true));
    assert!(answer.body == nested);
    // And it still works.
    assert!(get(&process, "/small-br/html/chunked").await.unwrap().complete);
    assert!(process.log().iter().all(|line| line["level"] != "ERROR"), "{process:?}");
}
