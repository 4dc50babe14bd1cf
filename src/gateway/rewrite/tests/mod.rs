//! The whole way of an answer: what is asked, what comes, what the client gets.

mod bombs;
mod framing;
mod load;
mod revalidation;

use std::{
    convert::Infallible,
    io::{Read, Write},
    pin::Pin,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use flate2::Compression;
use http::{HeaderMap, HeaderValue, Method, Response, header::HeaderName};
use http_body::{Body, Frame, SizeHint};

use super::{Plan, RewriteError, Rewritten, test_support::names_at};
use crate::config::rewrite::RewriteConfig;

pub const CODINGS: [&str; 6] = ["", "identity", "gzip", "deflate", "br", "zstd"];

/// A body of frames; an empty one stands for a wait.
#[derive(Debug)]
pub struct Frames {
    pub frames: std::collections::VecDeque<Bytes>,
    /// The length is known, as with `Content-Length`.
    pub sized: bool,
}

impl Body for Frames {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.frames.pop_front() {
            Some(data) if data.is_empty() => Poll::Pending,
            next => Poll::Ready(next.map(|data| Ok(Frame::data(data)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.frames.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        let length = self.frames.iter().map(|data| data.len() as u64).sum();
        if self.sized { SizeHint::with_exact(length) } else { SizeHint::default() }
    }
}

pub fn encode(coding: &str, text: &[u8]) -> Vec<u8> {
    match coding {
        "" | "identity" => text.to_vec(),
        "gzip" | "x-gzip" => {
            let mut writer = flate2::write::GzEncoder::new(vec![], Compression::default());
            writer.write_all(text).unwrap();
            writer.finish().unwrap()
        }
        "deflate" => {
            let mut writer = flate2::write::ZlibEncoder::new(vec![], Compression::default());
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

/// Strict: the body must be whole and nothing may follow it.
pub fn decode(coding: &str, body: &[u8]) -> Vec<u8> {
    let mut text = vec![];
    match coding {
        "" | "identity" => text.extend(body),
        "gzip" | "x-gzip" => {
            let mut reader = flate2::bufread::GzDecoder::new(body);
            reader.read_to_end(&mut text).unwrap();
            assert!(reader.into_inner().is_empty(), "something after the end");
        }
        "deflate" => {
            flate2::bufread::ZlibDecoder::new(body).read_to_end(&mut text).unwrap();
        }
        "br" => {
            brotli::Decompressor::new(body, 4096).read_to_end(&mut text).unwrap();
        }
        "zstd" => text = zstd::decode_all(body).unwrap(),
        other => panic!("{other}"),
    }
    text
}

/// One exchange.
pub struct Case<'c> {
    pub config: RewriteConfig,
    pub method: Method,
    pub path: &'c str,
    pub asked: &'c [(&'c str, &'c str)],
    pub status: u16,
    pub fields: &'c [(&'c str, &'c str)],
    pub coding: &'c str,
    pub body: Vec<u8>,
    /// Bytes to a frame; `None`: one frame, and the length is said.
    pub chunk: Option<usize>,
}

impl Default for Case<'_> {
    fn default() -> Self {
        Self {
            config: RewriteConfig::default(),
            method: Method::GET,
            path: "/",
            asked: &[],
            status: 200,
            fields: &[("content-type", "text/html; charset=utf-8")],
            coding: "",
            body: vec![],
            chunk: None,
        }
    }
}

/// What became of it.
pub struct Got {
    pub asked: HeaderMap,
    pub fields: HeaderMap,
    pub body: Result<Vec<u8>, RewriteError<Infallible>>,
    pub edited: bool,
}

impl Got {
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.get(name).map(|value| value.to_str().unwrap())
    }

    pub fn text(&self) -> String {
        let coding = self.field("content-encoding").unwrap_or_default();
        String::from_utf8(decode(coding, self.body.as_ref().unwrap())).unwrap()
    }
}

pub fn fields(pairs: &[(&str, &str)]) -> HeaderMap {
    let pair = |(name, value): &(&str, &str)| {
        (HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(value).unwrap())
    };
    pairs.iter().map(pair).collect()
}

impl Case<'_> {
    pub fn run(self) -> Got {
        let mut asked = fields(self.asked);
        let names = names_at("/app", Some(self.config));
        let plan = Plan::for_request(names, &self.method, self.path, &mut asked);
        let wire =
            if self.method == Method::HEAD { vec![] } else { encode(self.coding, &self.body) };
        let mut answer = Response::builder().status(self.status);
        *answer.headers_mut().unwrap() = fields(self.fields);
        if !self.coding.is_empty() {
            answer = answer.header("content-encoding", self.coding);
        }
        if self.chunk.is_none() {
            answer = answer.header("content-length", wire.len());
        }
        let size = self.chunk.unwrap_or(wire.len()).max(1);
        let frames = wire.chunks(size).map(Bytes::copy_from_slice).collect();
        let body = Frames { frames, sized: self.chunk.is_none() };
        let (mut parts, body) = answer.body(body).unwrap().into_parts();
        let body = plan.apply(&mut parts, body).unwrap();
        let edited = matches!(body, Rewritten::Edited(_));
        Got { asked, fields: parts.headers, body: read(body), edited }
    }
}

/// Reads a body to its end.
pub fn read<B: Body<Data = Bytes> + Unpin>(
    mut body: Rewritten<B>,
) -> Result<Vec<u8>, RewriteError<B::Error>> {
    let mut all = vec![];
    loop {
        match poll(&mut body) {
            Poll::Ready(Some(Ok(data))) => all.extend_from_slice(&data),
            Poll::Ready(Some(Err(error))) => {
                assert!(body.is_end_stream() || matches!(body, Rewritten::Untouched(_)));
                return Err(error);
            }
            Poll::Ready(None) => return Ok(all),
            Poll::Pending => {}
        }
    }
}

pub fn poll<B: Body<Data = Bytes> + Unpin>(
    body: &mut Rewritten<B>,
) -> Poll<Option<Result<Bytes, RewriteError<B::Error>>>> {
    let next = Pin::new(body).poll_frame(&mut Context::from_waker(Waker::noop()));
    next.map(|next| next.map(|frame| frame.map(|frame| frame.into_data().unwrap())))
}
