//! Rewritten answers over real sockets: framing and fields of every coding, and
//! what stays as the upstream sent it (RELIABILITY G-132, G-133). Bombs are in
//! `process::bombs`, since they are measured.

mod matrix;
mod untouched;

use std::io::{Read as _, Write as _};

use crate::support::{Options, TestApp, recorder::Recorder};

pub const PAGE: &str = "<!doctype html><html><head><meta charset=utf-8></head><body>\
    <a href=\"/x\">caf\u{e9}</a><style>a{b:url(/y)}</style></body></html>";

/// What is about the bytes of a body, and what is not.
pub const FIELDS: [(&str, &str); 8] = [
    ("etag", "\"v1\""),
    ("accept-ranges", "bytes"),
    ("digest", "sha-256=x"),
    ("content-digest", "sha-256=:x:"),
    ("repr-digest", "sha-256=:x:"),
    ("content-md5", "x"),
    ("last-modified", "Sun, 22 Nov 2026 10:00:00 GMT"),
    ("x-kept", "as it is"),
];

/// The same upstream at `/on`, rewritten, and at `/off`.
pub async fn both(recorder: &Recorder) -> TestApp {
    let upstream = |mount: &str, rewrite: &str| {
        let url = recorder.url();
        format!(
            "[[upstreams]]\nname='{mount}'\nmount='/{mount}'\nurl='{url}'\nauth='public'\n\
             rewrite={rewrite}\n"
        )
    };
    let file = upstream("on", "{ script = false }") + &upstream("off", "false");
    let settings = [("FILE", &*file), ("RATE_LIMIT_PER_MINUTE", "0"), ("RATE_LIMIT_PER_HOUR", "0")];
    let settings = settings.map(|(name, value)| (name, value.to_owned())).to_vec();
    TestApp::with(Options { settings, ..Options::default() }).await
}

pub fn encode(coding: &str, text: &[u8]) -> Vec<u8> {
    match coding {
        "" | "identity" => text.to_vec(),
        // Nobody here can undo it.
        "unknown" => text.iter().map(|byte| !byte).collect(),
        "gzip" => {
            let mut writer = flate2::write::GzEncoder::new(vec![], flate2::Compression::default());
            writer.write_all(text).unwrap();
            writer.finish().unwrap()
        }
        "deflate" => {
            let mut writer =
                flate2::write::ZlibEncoder::new(vec![], flate2::Compression::default());
            writer.write_all(text).unwrap();
            writer.finish().unwrap()
        }
        "br" => {
            let mut writer = brotli::CompressorWriter::new(vec![], 4096, 5, 22);
            writer.write_all(text).unwrap();
            writer.into_inner()
        }
        "zstd" => zstd::encode_all(text, 3).unwrap(),
        other => panic!("{other}"),
    }
}

/// Strict: the body must be whole, and nothing may follow it.
pub fn decode(coding: &str, body: &[u8]) -> Vec<u8> {
    let mut text = vec![];
    match coding {
        "gzip" => {
            let mut reader = flate2::bufread::GzDecoder::new(body);
            reader.read_to_end(&mut text).unwrap();
            assert!(reader.into_inner().is_empty(), "something after the end");
        }
        "deflate" => {
            let mut reader = flate2::bufread::ZlibDecoder::new(body);
            reader.read_to_end(&mut text).unwrap();
            assert!(reader.into_inner().is_empty(), "something after the end");
        }
        "br" => {
            let mut rest = body;
            brotli::Decompressor::new(&mut rest, 1).read_to_end(&mut text).unwrap();
            assert!(rest.is_empty(), "something after the end");
        }
        "zstd" => text = zstd::decode_all(body).unwrap(),
        other => text = encode(other, body),
    }
    text
}

/// An answer with these fields, its body in chunks of so many bytes, or with its
/// length.
pub fn answer(head: &str, body: &[u8], chunk: Option<usize>) -> Vec<u8> {
    let mut bytes = head.as_bytes().to_vec();
    let Some(size) = chunk else {
        bytes.extend(format!("Content-Length: {}\r\n\r\n", body.len()).as_bytes());
        bytes.extend(body);
        return bytes;
    };
    bytes.extend(b"Transfer-Encoding: chunked\r\n\r\n");
    for piece in body.chunks(size) {
        bytes.extend(format!("{:x}\r\n", piece.len()).as_bytes());
        bytes.extend(piece);
        bytes.extend(b"\r\n");
    }
    bytes.extend(b"0\r\n\r\n");
    bytes
}
