//! A request on its way to the upstream: its head, and its body as it comes.

use std::{
    io::{self, IoSlice, Write as _},
    mem,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf as _, Bytes};
use http::{
    HeaderMap, Method, Uri,
    header::{CONTENT_LENGTH, TRANSFER_ENCODING},
};
use http_body::Body;
use tokio::io::AsyncWrite;

use super::Fault;

/// Data up to this size are copied behind what frames them: one buffer costs the
/// kernel less than two.
const COPIED: usize = 1024;

/// How the upstream is told the end of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    Chunked,
    /// So much is to come.
    Length(u64),
}

/// What is still to be written of a request.
pub(super) struct Outgoing<B> {
    /// The head, or what frames the data; `written` bytes of it are.
    frame: Vec<u8>,
    written: usize,
    data: Bytes,
    /// What frames the end of the data.
    tail: &'static [u8],
    framing: Framing,
    /// `None`: all of it was taken.
    body: Option<B>,
    /// The first data may still leave together with the head.
    beside_head: bool,
    /// The head is not held back for data any more.
    waited: bool,
    /// Bytes written so far.
    told: u64,
}

impl<B: Body<Data = Bytes> + Unpin> Outgoing<B> {
    /// Of a request whose URI is only path and query. `memory` holds nothing that
    /// is needed; no field of the connection may be among `fields`, and those of
    /// the body's length are set here.
    pub fn new(
        mut memory: Vec<u8>,
        method: &Method,
        uri: &Uri,
        fields: &HeaderMap,
        body: Option<B>,
    ) -> Self {
        memory.clear();
        let length = body.as_ref().map_or(Some(0), |body| body.size_hint().exact());
        let framing = length.map_or(Framing::Chunked, Framing::Length);
        let mut says_length = body.is_some();
        let frame = &mut memory;
        frame.extend_from_slice(method.as_str().as_bytes());
        frame.push(b' ');
        frame.extend_from_slice(uri.path().as_bytes());
        if let Some(query) = uri.query() {
            frame.push(b'?');
            frame.extend_from_slice(query.as_bytes());
        }
        frame.extend_from_slice(b" HTTP/1.1\r\n");
        for (name, value) in fields {
            if *name == CONTENT_LENGTH {
                says_length = true;
            } else if *name != TRANSFER_ENCODING {
                frame.extend_from_slice(name.as_str().as_bytes());
                frame.extend_from_slice(b": ");
                frame.extend_from_slice(value.as_bytes());
                frame.extend_from_slice(b"\r\n");
            }
        }
        match framing {
            Framing::Chunked => frame.extend_from_slice(b"transfer-encoding: chunked\r\n"),
            Framing::Length(length) if says_length => {
                _ = write!(frame, "content-length: {length}\r\n");
            }
            Framing::Length(_) => {}
        }
        frame.extend_from_slice(b"\r\n");
        Self {
            frame: memory,
            written: 0,
            data: Bytes::new(),
            tail: b"",
            framing,
            body,
            beside_head: true,
            waited: false,
            told: 0,
        }
    }

    /// The memory that it was given.
    pub fn into_memory(self) -> Vec<u8> {
        self.frame
    }

    /// Bytes written so far.
    pub fn told(&self) -> u64 {
        self.told
    }

    /// Writes all that there is; ready when that was all of it.
    ///
    /// What a client sent with its head is known one turn later than that: the
    /// head waits for it so long, so that both leave in one write.
    pub fn poll<S>(&mut self, cx: &mut Context<'_>, to: &mut S) -> Poll<Result<(), Fault>>
    where
        S: AsyncWrite + Unpin,
    {
        let mut waits = false;
        loop {
            if !waits && self.body.is_some() && self.takes_more() {
                waits = self.load(cx)?.is_pending();
                self.beside_head &= waits && !self.waited;
            }
            if waits && !mem::replace(&mut self.waited, true) {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            self.waited = true;
            if self.is_loaded() {
                ready!(self.poll_write(cx, to))?;
            } else if self.body.is_none() {
                return Pin::new(to).poll_flush(cx).map_err(Fault::Io);
            } else if waits {
                ready!(Pin::new(to).poll_flush(cx))?;
                return Poll::Pending;
            }
        }
    }

    /// Not before all is written: an upstream that reads slowly slows its client
    /// down (RELIABILITY G-39). Only beside the head there is room for a little.
    fn takes_more(&self) -> bool {
        let is_free = self.data.is_empty() && self.tail.is_empty();
        let is_written = self.written == self.frame.len();
        is_free && (self.beside_head || is_written)
    }

    fn is_loaded(&self) -> bool {
        self.written < self.frame.len() || !self.data.is_empty() || !self.tail.is_empty()
    }

    /// Takes the next data of the body, and frames them.
    fn load(&mut self, cx: &mut Context<'_>) -> Result<Poll<()>, Fault> {
        if self.written == self.frame.len() {
            self.frame.clear();
            self.written = 0;
        }
        let Some(body) = &mut self.body else { return Ok(Poll::Ready(())) };
        let data = match Pin::new(&mut *body).poll_frame(cx) {
            Poll::Pending => return Ok(Poll::Pending),
            Poll::Ready(None) => None,
            Poll::Ready(Some(Err(_))) => return Err(Fault::Upload),
            // There are no trailers ([`crate::gateway::upload`]).
            Poll::Ready(Some(Ok(frame))) => frame.into_data().ok(),
        };
        let is_last = data.is_none() || body.is_end_stream();
        if is_last {
            self.body = None;
        }
        self.frame(data.unwrap_or_default(), is_last)?;
        Ok(Poll::Ready(()))
    }

    fn frame(&mut self, data: Bytes, is_last: bool) -> Result<(), Fault> {
        match &mut self.framing {
            Framing::Length(left) => {
                *left = left.checked_sub(data.len() as u64).ok_or(Fault::Upload)?;
                if is_last && *left > 0 {
                    return Err(Fault::Upload);
                }
            }
            Framing::Chunked => {
                // An empty chunk would be the end.
                let is_chunk = !data.is_empty();
                if is_chunk {
                    _ = write!(self.frame, "{:x}\r\n", data.len());
                }
                self.tail = match (is_chunk, is_last) {
                    (true, true) => b"\r\n0\r\n\r\n",
                    (true, false) => b"\r\n",
                    (false, true) => b"0\r\n\r\n",
                    (false, false) => b"",
                };
            }
        }
        if data.len() <= COPIED {
            self.frame.extend_from_slice(&data);
            self.frame.extend_from_slice(mem::take(&mut self.tail));
        } else {
            self.data = data;
        }
        Ok(())
    }

    /// Writes what is loaded.
    fn poll_write<S>(&mut self, cx: &mut Context<'_>, to: &mut S) -> Poll<io::Result<()>>
    where
        S: AsyncWrite + Unpin,
    {
        while self.is_loaded() {
            let frame = &self.frame[self.written..];
            let parts = [frame, &self.data, self.tail];
            let begin = usize::from(frame.is_empty());
            let end = if self.data.is_empty() && self.tail.is_empty() { 1 } else { 3 };
            let to = Pin::new(&mut *to);
            // `send` costs the kernel less than `writev`.
            let wrote = ready!(if (begin, end) == (0, 1) {
                to.poll_write(cx, frame)
            } else {
                to.poll_write_vectored(cx, &parts.map(IoSlice::new)[begin..end])
            })?;
            if wrote == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.advance(wrote);
        }
        Poll::Ready(Ok(()))
    }

    fn advance(&mut self, wrote: usize) {
        self.told += wrote as u64;
        let of_frame = wrote.min(self.frame.len() - self.written);
        self.written += of_frame;
        let of_data = (wrote - of_frame).min(self.data.len());
        self.data.advance(of_data);
        if self.data.is_empty() {
            // Even of nothing it would keep the memory.
            self.data = Bytes::new();
        }
        self.tail = &self.tail[wrote - of_frame - of_data..];
    }
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;
