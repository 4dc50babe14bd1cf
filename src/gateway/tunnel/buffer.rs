//! What was read and is not yet written, in memory that idle streams share.

use std::{
    cell::RefCell,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, ReadBuf};

/// Most bytes between one side and the other.
pub const SIZE: usize = 16 * 1024;
/// Memory kept for the next stream that has something to say, per thread.
const SPARE: usize = 16;

thread_local! {
    static POOL: RefCell<Vec<Box<[u8]>>> = const { RefCell::new(Vec::new()) };
}

/// Bytes in three parts: written, cleared to be written, not yet looked at. The
/// memory is there only while there are bytes.
#[derive(Debug, Default)]
pub struct Buffer {
    memory: Option<Box<[u8]>>,
    /// Of what is cleared.
    start: usize,
    /// Of what is not.
    cleared: usize,
    end: usize,
}

impl Buffer {
    /// Reads more. Must not be called while [`Self::is_full`].
    pub fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut (impl AsyncRead + Unpin),
    ) -> Poll<io::Result<usize>> {
        self.make_room();
        let memory = self.memory.get_or_insert_with(take);
        let mut room = ReadBuf::new(&mut memory[self.end..]);
        let read = Pin::new(from).poll_read(cx, &mut room);
        let count = room.filled().len();
        if self.start == self.end && count == 0 {
            self.give_back();
        }
        ready!(read)?;
        self.end += count;
        Poll::Ready(Ok(count))
    }

    pub fn is_full(&self) -> bool {
        self.end - self.start == SIZE || (self.end == SIZE && !self.may_compact())
    }

    /// What may be written.
    pub fn cleared(&self) -> &[u8] {
        self.memory.as_deref().map_or(&[], |memory| &memory[self.start..self.cleared])
    }

    /// What was not looked at.
    pub fn unread(&self) -> &[u8] {
        self.memory.as_deref().map_or(&[], |memory| &memory[self.cleared..self.end])
    }

    /// So many more bytes may be written.
    pub fn clear(&mut self, count: usize) {
        self.cleared += count;
        debug_assert!(self.cleared <= self.end);
    }

    pub fn written(&mut self, count: usize) {
        self.start += count;
        debug_assert!(self.start <= self.cleared);
        if self.start == self.end {
            self.give_back();
        }
    }

    /// So many bytes are dropped instead of being cleared; none may wait to be
    /// written.
    pub fn skip(&mut self, count: usize) {
        debug_assert_eq!(self.start, self.cleared);
        self.clear(count);
        self.written(count);
    }

    /// Drops what may be written.
    pub fn forget_cleared(&mut self) {
        self.written(self.cleared - self.start);
    }

    /// Copies only what is little, or after much was written.
    fn may_compact(&self) -> bool {
        self.start == self.cleared && self.start > 0 || self.start >= SIZE / 2
    }

    fn make_room(&mut self) {
        if self.end == SIZE
            && self.may_compact()
            && let Some(memory) = &mut self.memory
        {
            memory.copy_within(self.start..self.end, 0);
            self.cleared -= self.start;
            self.end -= self.start;
            self.start = 0;
        }
    }

    fn give_back(&mut self) {
        (self.start, self.cleared, self.end) = (0, 0, 0);
        let Some(memory) = self.memory.take() else { return };
        POOL.with_borrow_mut(|pool| {
            if pool.len() < SPARE {
                pool.push(memory);
            }
        });
    }

    /// Whether it holds memory.
    #[cfg(test)]
    pub fn holds_memory(&self) -> bool {
        self.memory.is_some()
    }
}

fn take() -> Box<[u8]> {
    POOL.with_borrow_mut(Vec::pop).unwrap_or_else(|| vec![0; SIZE].into_boxed_slice())
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    async fn fill(buffer: &mut Buffer, mut from: &[u8]) -> usize {
        poll_fn(|cx| buffer.poll_fill(cx, &mut from)).await.unwrap()
    }

    #[tokio::test]
    async fn bytes_leave_in_their_order_and_the_memory_with_the_last() {
        let mut buffer = Buffer::default();
        assert_eq!(fill(&mut buffer, b"hello world").await, 11);
        buffer.clear(5);
        assert_eq!((buffer.cleared(), buffer.unread()), (&b"hello"[..], &b" world"[..]));
        buffer.written(5);
        buffer.skip(1);
        assert_eq!((buffer.cleared(), buffer.unread()), (&b""[..], &b"world"[..]));
        assert!(buffer.holds_memory());
        buffer.clear(5);
        buffer.written(5);
        assert!(!buffer.holds_memory());
        assert_eq!(fill(&mut buffer, b"").await, 0);
        assert!(!buffer.holds_memory());
    }

    #[tokio::test]
    async fn it_takes_no_more_than_its_size_and_goes_on_after_an_incomplete_rest() {
        let mut buffer = Buffer::default();
        let bytes: Vec<u8> = (0..SIZE * 2).map(|n| u8::try_from(n % 251).unwrap()).collect();
        assert_eq!(fill(&mut buffer, &bytes).await, SIZE);
        assert!(buffer.is_full());
        // All but an incomplete header is written.
        buffer.clear(SIZE - 3);
        buffer.written(SIZE - 3);
        assert!(!buffer.is_full());
        assert_eq!(fill(&mut buffer, &bytes[SIZE..]).await, SIZE - 3);
        assert_eq!(buffer.unread(), &bytes[SIZE - 3..SIZE * 2 - 3]);
        // A little was written: not worth a copy.
        buffer.clear(SIZE);
        buffer.written(10);
        assert!(buffer.is_full());
    }
}
