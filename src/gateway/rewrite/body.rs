//! The answer's body, rewritten as it passes.
//!
//! Works by pieces: what comes in is decoded, edited and encoded at most
//! [`PIECE`] bytes at a time, and what is ready is handed on before more is
//! done, so that memory stays flat and the client sets the pace. When nothing
//! more is there to be read for now, everything that can be is flushed: a page
//! that its upstream sends bit by bit is shown bit by bit. A little that decodes
//! to much gives others their turn in between.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Buf, Bytes};
use http_body::{Body, Frame, SizeHint};

use super::{
    budget::{Overloaded, Share},
    coding::{BadCoding, Coding, Decoder, Encoder},
    editor::Editor,
};

/// Bytes of text that are worked on at once.
const PIECE: usize = 32 * 1024;
/// Bytes of text after which the worker's other work has its turn.
const TURN: usize = 8 * PIECE;

/// Why a rewritten answer ended before its end.
#[derive(Debug, thiserror::Error)]
pub enum RewriteError<E> {
    #[error("the upstream broke off within its answer")]
    Upstream(#[source] E),
    #[error(transparent)]
    Coding(#[from] BadCoding),
    #[error("the answer decodes to more than is allowed")]
    Bomb,
    #[error(transparent)]
    Overloaded(#[from] Overloaded),
}

/// What a body of a coding holds at least.
pub fn least(coding: Coding) -> usize {
    2 * PIECE + coding.state()
}

/// An answer's body: as it came, or rewritten.
pub enum Rewritten<B> {
    Untouched(B),
    Edited(Box<Edited<B>>),
}

/// A body under work.
pub struct Edited<B> {
    inner: B,
    decoder: Decoder,
    editor: Editor,
    /// `None` once the end is out, or it broke.
    encoder: Option<Encoder>,
    /// Not yet decoded.
    input: Bytes,
    /// The decoder may have more to give for what it has taken.
    pending: bool,
    /// Written to the encoder and not flushed.
    unflushed: bool,
    caps: Caps,
    share: Share,
    coding: Coding,
    window: usize,
    piece: Vec<u8>,
    text: Vec<u8>,
}

/// How much may come of how little.
pub struct Caps {
    floor: u64,
    ratio: u64,
    read: u64,
    decoded: u64,
}

impl Caps {
    pub fn new(floor: u64, ratio: u32) -> Self {
        Self { floor, ratio: u64::from(ratio), read: 0, decoded: 0 }
    }

    /// Small bodies may be as dense as they like, and long ones as long.
    fn is_bomb(&self) -> bool {
        self.decoded > self.floor && self.decoded > self.read.saturating_mul(self.ratio)
    }
}

impl<B> Edited<B> {
    pub fn new(
        inner: B,
        coding: Coding,
        editor: Editor,
        caps: Caps,
        share: Share,
    ) -> Result<Self, B> {
        let (Ok(decoder), Ok(encoder)) = (Decoder::new(coding), Encoder::new(coding)) else {
            return Err(inner);
        };
        Ok(Self {
            inner,
            decoder,
            editor,
            encoder: Some(encoder),
            input: Bytes::new(),
            pending: false,
            unflushed: false,
            caps,
            share,
            coding,
            window: 0,
            piece: vec![],
            text: vec![],
        })
    }

    /// Whether all that came is worked on, and there is more to come.
    #[cfg(test)]
    pub fn waits(&self) -> bool {
        !self.pending && self.input.is_empty() && self.caps.read > 0 && self.encoder.is_some()
    }

    /// Works on what has come until there is enough to hand on, or until the
    /// turn is over: `done` counts the bytes of that.
    fn work(&mut self, done: &mut usize) -> Result<Worked, BrokenBy> {
        let Some(encoder) = &mut self.encoder else { return Ok(Worked::All) };
        while self.pending || self.input.has_remaining() {
            if *done >= TURN {
                return Ok(Worked::Turn);
            }
            self.piece.resize(PIECE, 0);
            let step = self.decoder.step(&self.input, &mut self.piece)?;
            if self.caps.read == 0 && step.read > 0 {
                self.window = self.coding.window(self.input[0]);
            }
            self.input.advance(step.read);
            self.caps.read += step.read as u64;
            self.caps.decoded += step.written as u64;
            if self.caps.is_bomb() {
                return Err(BrokenBy::Bomb);
            }
            self.pending = step.written == PIECE;
            if step.read == 0 && step.written == 0 && self.input.has_remaining() {
                return Err(BrokenBy::Coding(BadCoding));
            }
            self.editor.push(&self.piece[..step.written], &mut self.text);
            *done += step.read + step.written;
            // Of a window only what was written is in memory.
            let window = usize::try_from(self.caps.decoded).unwrap_or(usize::MAX).min(self.window);
            self.share.hold(least(self.coding) + window + self.editor.held())?;
            if let Some(ready) = encode(encoder, &mut self.text, &mut self.unflushed)? {
                return Ok(Worked::Ready(ready));
            }
        }
        // Of no use until the next piece, which may be long in coming.
        self.piece = vec![];
        Ok(Worked::All)
    }

    /// What is out of the way before there is a wait.
    fn flush(&mut self) -> Result<Option<Bytes>, BrokenBy> {
        let Some(encoder) = &mut self.encoder else { return Ok(None) };
        if std::mem::take(&mut self.unflushed) {
            encoder.flush().map_err(|_| BadCoding)?;
        }
        let ready = encoder.take();
        Ok((!ready.is_empty()).then(|| ready.into()))
    }

    /// The upstream is done.
    fn end(&mut self) -> Result<Bytes, BrokenBy> {
        let Some(mut encoder) = self.encoder.take() else { return Ok(Bytes::new()) };
        if !self.decoder.is_complete() {
            return Err(BrokenBy::Coding(BadCoding));
        }
        self.editor.end(&mut self.text);
        encode(&mut encoder, &mut self.text, &mut self.unflushed).and_then(|ready| {
            let rest = encoder.finish().map_err(|_| BadCoding)?;
            Ok(match ready {
                Some(ready) => [ready.as_ref(), &rest].concat().into(),
                None => rest.into(),
            })
        })
    }
}

/// How far work got.
enum Worked {
    /// There is something to hand on.
    Ready(Bytes),
    /// Nothing more is there to work on.
    All,
    /// There is, but others wait.
    Turn,
}

/// Why work cannot go on.
enum BrokenBy {
    Coding(BadCoding),
    Bomb,
    Overloaded(Overloaded),
}

impl From<Overloaded> for BrokenBy {
    fn from(overloaded: Overloaded) -> Self {
        Self::Overloaded(overloaded)
    }
}

impl From<BadCoding> for BrokenBy {
    fn from(bad: BadCoding) -> Self {
        Self::Coding(bad)
    }
}

impl<E> From<BrokenBy> for RewriteError<E> {
    fn from(broken: BrokenBy) -> Self {
        match broken {
            BrokenBy::Coding(bad) => Self::Coding(bad),
            BrokenBy::Bomb => Self::Bomb,
            BrokenBy::Overloaded(overloaded) => Self::Overloaded(overloaded),
        }
    }
}

/// Encodes the text; what is ready if it is worth a frame.
fn encode(
    encoder: &mut Encoder,
    text: &mut Vec<u8>,
    unflushed: &mut bool,
) -> Result<Option<Bytes>, BrokenBy> {
    if !text.is_empty() {
        encoder.write(text).map_err(|_| BadCoding)?;
        *unflushed = true;
        text.clear();
    }
    Ok((encoder.ready_len() >= PIECE).then(|| encoder.take().into()))
}

impl<B: Body<Data = Bytes> + Unpin> Edited<B> {
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, RewriteError<B::Error>>>> {
        let mut done = 0;
        loop {
            if self.encoder.is_none() {
                return Poll::Ready(None);
            }
            match self.work(&mut done)? {
                Worked::Ready(ready) => return Poll::Ready(Some(Ok(ready))),
                Worked::Turn => {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Worked::All => {}
            }
            match Pin::new(&mut self.inner).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    // Trailers would be about the body as it was.
                    if let Ok(data) = frame.into_data() {
                        self.input = data;
                    }
                }
                Poll::Ready(Some(Err(error))) => {
                    return Poll::Ready(Some(Err(RewriteError::Upstream(error))));
                }
                Poll::Ready(None) => {
                    let last = self.end()?;
                    return Poll::Ready((!last.is_empty()).then_some(Ok(last)));
                }
                Poll::Pending => {
                    return match self.flush()? {
                        Some(ready) => Poll::Ready(Some(Ok(ready))),
                        None => Poll::Pending,
                    };
                }
            }
        }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Rewritten<B> {
    type Data = Bytes;
    type Error = RewriteError<B::Error>;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match self.get_mut() {
            Self::Untouched(body) => Pin::new(body)
                .poll_frame(cx)
                .map(|next| next.map(|frame| frame.map_err(RewriteError::Upstream))),
            Self::Edited(edited) => {
                let next = edited.poll(cx);
                if let Poll::Ready(Some(Err(_))) = &next {
                    edited.encoder = None;
                }
                next.map(|next| next.map(|data| data.map(Frame::data)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Untouched(body) => body.is_end_stream(),
            Self::Edited(edited) => edited.encoder.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Untouched(body) => body.size_hint(),
            Self::Edited(_) => SizeHint::default(),
        }
    }
}

impl<B> fmt::Debug for Rewritten<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Untouched(_) => "Untouched",
            Self::Edited(_) => "Edited",
        })
    }
}
