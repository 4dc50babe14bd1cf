//! One direction of a tunnel.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::Instant,
};

use super::{
    Cause, Passed,
    buffer::Buffer,
    frame::{Header, Opcode, Parser, Side, Sizes},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Passing,
    /// Nothing more is passed on after the frame that is under way.
    Ending,
    /// All is written that ever will be; what comes is read and dropped.
    Over,
    /// The same, since nothing can be written any more.
    Dead,
}

/// What a pipe has to tell of one turn.
#[derive(Clone, Copy, Debug, Default)]
pub struct News {
    /// Bytes came.
    pub heard: bool,
    /// Something else than a Pong passed.
    pub active: bool,
}

/// Frames from one side to the other, and frames of our own between them.
pub struct Pipe {
    from: Side,
    parser: Parser,
    buffer: Buffer,
    /// A frame of ours, to be written at the next boundary.
    ours: Vec<u8>,
    /// How much of it is written.
    ours_written: usize,
    phase: Phase,
    /// There is nothing more to read.
    eof: bool,
    /// Written, but not flushed.
    dirty: bool,
    /// A whole header is there and may not pass yet.
    waiting: bool,
    news: News,
    /// Since when a write is pending.
    pub stuck_since: Option<Instant>,
    bytes: u64,
    /// The parser's count when this was over.
    messages: Option<u64>,
}

impl Pipe {
    pub fn new(from: Side, sizes: Sizes) -> Self {
        Self {
            from,
            parser: Parser::new(from, sizes),
            buffer: Buffer::default(),
            ours: Vec::new(),
            ours_written: 0,
            phase: Phase::Passing,
            eof: false,
            dirty: false,
            waiting: false,
            news: News::default(),
            stuck_since: None,
            bytes: 0,
            messages: None,
        }
    }

    pub fn passed(&self) -> Passed {
        let messages = self.messages.unwrap_or_else(|| self.parser.messages());
        Passed { messages, bytes: self.bytes }
    }

    /// Whether the reading side has said that it closes.
    pub fn is_closed(&self) -> bool {
        self.parser.is_closed()
    }

    /// Whether all that may be written is.
    pub fn is_through(&self) -> bool {
        let nothing = self.buffer.cleared().is_empty() && self.ours.is_empty();
        nothing && !self.dirty && !self.waiting
    }

    /// Whether nothing more is read until something was written or let through.
    pub fn is_blocked(&self) -> bool {
        self.waiting || self.buffer.is_full()
    }

    /// Whether all was said that will be.
    pub fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Over | Phase::Dead)
    }

    /// Whether nothing can be written any more.
    pub fn is_dead(&self) -> bool {
        self.phase == Phase::Dead
    }

    /// Whether there is nothing more to read.
    pub fn is_at_eof(&self) -> bool {
        self.eof
    }

    pub fn take_news(&mut self) -> News {
        std::mem::take(&mut self.news)
    }

    /// A frame of our own for the next boundary. Tells whether it will be
    /// written: not while another one waits, nor after a Close.
    pub fn say(&mut self, frame: impl FnOnce(&mut Vec<u8>)) -> bool {
        let passing = self.phase == Phase::Passing && !self.is_closed();
        let free = self.ours.is_empty() && passing;
        if free {
            frame(&mut self.ours);
        }
        free
    }

    /// Passes nothing on after the frame under way, and then says this.
    pub fn end(&mut self, close: Option<impl FnOnce(&mut Vec<u8>)>) {
        if self.phase != Phase::Passing {
            return;
        }
        self.phase = Phase::Ending;
        // A Ping that has begun must be finished.
        if self.ours_written == 0 {
            self.ours.clear();
        }
        if let Some(close) = close {
            close(&mut self.ours);
        }
    }

    /// Reads, looks at what came, and writes. `check` decides about each frame
    /// before its first byte is passed on. Tells whether anything has changed.
    pub fn pump(
        &mut self,
        cx: &mut Context<'_>,
        now: Instant,
        (from, to): (&mut (impl AsyncRead + Unpin), &mut (impl AsyncWrite + Unpin)),
        check: &mut impl FnMut(&mut Context<'_>, &Header) -> Poll<Result<(), Cause>>,
    ) -> Result<bool, Cause> {
        let read = self.read(cx, from);
        let looked = self.look(cx, check);
        let wrote = self.write(cx, now, to);
        looked.map(|looked| looked || read || wrote)
    }

    fn read(&mut self, cx: &mut Context<'_>, from: &mut (impl AsyncRead + Unpin)) -> bool {
        if self.eof || self.buffer.is_full() {
            return false;
        }
        match self.buffer.poll_fill(cx, from) {
            Poll::Ready(Ok(1..)) => self.news.heard = true,
            // What was read before an error is still good.
            Poll::Ready(Ok(0) | Err(_)) => self.eof = true,
            Poll::Pending => return false,
        }
        true
    }

    fn look(
        &mut self,
        cx: &mut Context<'_>,
        check: &mut impl FnMut(&mut Context<'_>, &Header) -> Poll<Result<(), Cause>>,
    ) -> Result<bool, Cause> {
        let mut changed = false;
        self.waiting = false;
        loop {
            let unread = self.buffer.unread();
            if unread.is_empty() {
                return Ok(changed);
            }
            let taken = if self.parser.is_closed() {
                // Nothing may follow a Close.
                if !self.buffer.cleared().is_empty() {
                    return Ok(changed);
                }
                let rest = unread.len();
                self.buffer.skip(rest);
                changed = true;
                continue;
            } else if let Some(frame) = self.parser.current() {
                self.news.active |= frame.opcode != Opcode::Pong;
                self.parser.payload(unread.len())
            } else if self.is_over() {
                match self.parser.peek(unread) {
                    Ok(None) => return Ok(changed),
                    Ok(Some(header)) => {
                        self.parser.begin(&header);
                        header.size
                    }
                    // Dropped with the rest: it was told what it is told.
                    Err(_) => unread.len(),
                }
            } else if self.phase == Phase::Ending || !self.ours.is_empty() {
                self.waiting = self.phase == Phase::Passing;
                return Ok(changed);
            } else {
                let peeked = self.parser.peek(unread);
                let peeked = peeked.map_err(|fault| Cause::Fault(self.from, fault))?;
                let Some(header) = peeked else { return Ok(changed) };
                let Poll::Ready(verdict) = check(cx, &header) else {
                    self.waiting = true;
                    return Ok(changed);
                };
                verdict?;
                self.news.active |= header.opcode != Opcode::Pong;
                self.parser.begin(&header);
                header.size
            };
            if self.is_over() {
                self.buffer.skip(taken);
            } else {
                self.buffer.clear(taken);
            }
            changed = true;
        }
    }

    fn write(
        &mut self,
        cx: &mut Context<'_>,
        now: Instant,
        to: &mut (impl AsyncWrite + Unpin),
    ) -> bool {
        let mut changed = false;
        while !self.is_over() {
            if self.parser.is_closed() && self.ours_written == 0 {
                self.ours.clear();
            }
            let cleared = self.buffer.cleared();
            let ours = !self.ours.is_empty()
                && (self.ours_written > 0 || (cleared.is_empty() && self.parser.at_boundary()));
            let bytes = if ours { &self.ours[self.ours_written..] } else { cleared };
            let done = if bytes.is_empty() {
                if !self.dirty {
                    break;
                }
                Pin::new(&mut *to).poll_flush(cx).map_ok(|()| 0)
            } else {
                Pin::new(&mut *to).poll_write(cx, bytes)
            };
            match done {
                Poll::Ready(Ok(0)) if bytes.is_empty() => self.dirty = false,
                Poll::Ready(Ok(count @ 1..)) => {
                    self.dirty = true;
                    self.wrote(ours, count);
                }
                Poll::Ready(Ok(0) | Err(_)) => self.die(),
                Poll::Pending => {
                    self.stuck_since.get_or_insert(now);
                    return changed;
                }
            }
            self.stuck_since = None;
            changed = true;
        }
        // A frame whose rest never comes stays as it is.
        let cut = self.eof && self.buffer.unread().is_empty();
        if self.phase == Phase::Ending && (self.parser.at_boundary() || cut) {
            self.stop(Phase::Over);
            changed = true;
        }
        changed
    }

    fn wrote(&mut self, ours: bool, count: usize) {
        if !ours {
            self.buffer.written(count);
            self.bytes += count as u64;
            return;
        }
        self.ours_written += count;
        if self.ours_written == self.ours.len() {
            // Frees its memory: it may be the only one in hours.
            self.ours = Vec::new();
            self.ours_written = 0;
        }
    }

    fn die(&mut self) {
        self.dirty = false;
        self.buffer.forget_cleared();
        self.stop(Phase::Dead);
    }

    fn stop(&mut self, phase: Phase) {
        self.phase = phase;
        self.ours = Vec::new();
        self.messages = Some(self.parser.messages());
    }

    /// Whether it holds a buffer.
    #[cfg(test)]
    pub fn holds_memory(&self) -> bool {
        self.buffer.holds_memory()
    }
}
