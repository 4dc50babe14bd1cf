//! What came over a connection and is not yet understood.

use std::{
    io, mem,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::BytesMut;
use tokio::io::AsyncRead;
use tokio_util::io::poll_read_buf;

use super::Fault;

/// What a first read may take; most answers are within it.
const FIRST: usize = 8 * 1024;
/// Bytes that one read of an answer may take, and with them the longest head.
/// While what was read is on its way to the client, the next read needs another
/// buffer: a long answer costs this a few times over, whatever its length.
pub(super) const READ_AT_MOST: usize = 128 * 1024;

/// The parts that are taken off it share its memory, which is used again once
/// all of them are gone.
pub(super) struct Input {
    pub bytes: BytesMut,
    /// What the next read may take: more as long as reads fill it.
    next: usize,
    /// The last read was so small that one more like it makes the next smaller.
    dwindles: bool,
    /// It was given more memory than an idle connection may keep.
    is_large: bool,
}

impl Input {
    pub fn new() -> Self {
        Self { bytes: BytesMut::new(), next: FIRST, dwindles: false, is_large: false }
    }

    /// Reads more of a head; 0: there is no more. A head that has taken all that
    /// it may is at fault.
    pub fn poll_head<S>(&mut self, cx: &mut Context<'_>, from: &mut S) -> Poll<Result<usize, Fault>>
    where
        S: AsyncRead + Unpin,
    {
        if self.bytes.len() >= READ_AT_MOST {
            return Poll::Ready(Err(Fault::TooLong));
        }
        let read = ready!(self.poll_read(cx, from, FIRST))?;
        Poll::Ready(Ok(read))
    }

    /// Reads more of a body of which no more than `left` can come; 0: there is no
    /// more.
    pub fn poll_body<S>(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut S,
        left: u64,
    ) -> Poll<io::Result<usize>>
    where
        S: AsyncRead + Unpin,
    {
        // A read that is not filled says that nothing more is there.
        let left = usize::try_from(left).unwrap_or(usize::MAX).saturating_add(1);
        let read = ready!(self.poll_read(cx, from, self.next.min(left)))?;
        self.learn(read);
        Poll::Ready(Ok(read))
    }

    /// Gives memory back that no idle connection needs.
    pub fn rest(&mut self) {
        if mem::take(&mut self.is_large) {
            self.bytes = BytesMut::new();
        }
    }

    fn poll_read<S>(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut S,
        most: usize,
    ) -> Poll<io::Result<usize>>
    where
        S: AsyncRead + Unpin,
    {
        if self.bytes.capacity() - self.bytes.len() < most {
            self.bytes.reserve(most);
            self.is_large |= self.bytes.capacity() > FIRST;
        }
        poll_read_buf(Pin::new(from), cx, &mut self.bytes)
    }

    fn learn(&mut self, read: usize) {
        if read >= self.next {
            self.next = (self.next * 2).min(READ_AT_MOST);
            self.dwindles = false;
        } else if read >= self.next / 2 || self.next == FIRST {
            self.dwindles = false;
        } else if mem::replace(&mut self.dwindles, true) {
            self.next /= 2;
            self.dwindles = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    fn read(input: &mut Input, mut from: &[u8], left: u64) -> usize {
        let mut cx = Context::from_waker(Waker::noop());
        match input.poll_body(&mut cx, &mut from, left) {
            Poll::Ready(Ok(read)) => read,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn reads_grow_while_they_are_filled_and_shrink_when_two_are_not() {
        let mut input = Input::new();
        let much = vec![0; 4 * READ_AT_MOST];
        let mut sizes = vec![];
        for _ in 0..7 {
            sizes.push(read(&mut input, &much, u64::MAX));
            input.bytes.clear();
        }
        assert!(sizes.is_sorted() && sizes[0] == FIRST, "{sizes:?}");
        assert_eq!(input.next, READ_AT_MOST);
        for size in [128, 64, 64, 32, 32, 16, 16, 8, 8, 8] {
            assert_eq!(read(&mut input, b"little", u64::MAX), 6);
            input.bytes.clear();
            assert_eq!(input.next, size * 1024);
        }
    }

    #[test]
    fn an_idle_connection_keeps_no_large_buffer() {
        let mut input = Input::new();
        assert_eq!(read(&mut input, b"little", u64::MAX), 6);
        input.bytes.clear();
        input.rest();
        assert!(input.bytes.capacity() > 0, "it is used again");
        let much = vec![0; 4 * READ_AT_MOST];
        for _ in 0..3 {
            read(&mut input, &much, u64::MAX);
            input.bytes.clear();
        }
        input.rest();
        assert_eq!(input.bytes.capacity(), 0);
    }

    #[test]
    fn no_more_memory_is_taken_than_the_rest_of_a_body_needs() {
        let mut input = Input::new();
        input.next = READ_AT_MOST;
        read(&mut input, b"rest", 4);
        assert!(input.bytes.capacity() < 1024, "{}", input.bytes.capacity());
    }
}
