//! Answers that wait until their records are written.
//!
//! An answer must not end before its record is where a killed process cannot lose
//! it (RELIABILITY G-01). Where many end in one turn of a worker's loop, their
//! records are written together: what is sent behind a record is held back here
//! until all tasks that were ready had their turn, then there is one `write` for
//! the records, and the answers leave. Where there is nothing to be written, bytes
//! go straight to the socket.

use std::{
    cell::RefCell,
    future::poll_fn,
    io::{self, IoSlice},
    mem,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker, ready},
};

use tokio::{
    io::{AsyncRead as _, AsyncWrite as _, ReadBuf},
    net::TcpStream,
};
use tokio_util::task::AbortOnDropHandle;

use crate::services::usage::{Journal, together};

/// More than this is not held for one client, so that little is copied: the
/// records are written at once instead.
const MOST_HELD: usize = 16 * 1024;
/// Memory for what is held that a quiet connection keeps.
const KEPT: usize = 1024;

thread_local! {
    static OWN: Own =
        const { Own { journal: RefCell::new(None), held: RefCell::new(vec![]) } };
}

/// One worker's.
struct Own {
    journal: RefCell<Option<Journal>>,
    held: RefCell<Vec<Arc<Line>>>,
}

impl Own {
    /// The record that it waits for has woken the one who lets it go.
    fn hold(&self, line: &Arc<Line>) {
        self.held.borrow_mut().push(Arc::clone(line));
    }

    fn write_records(&self) {
        if together::has_unwritten()
            && let Some(journal) = &*self.journal.borrow()
        {
            journal.write_own();
        }
    }

    fn let_go(&self) {
        self.write_records();
        let mut held = self.held.take();
        held.drain(..).for_each(|line| line.let_go());
        // Its memory is used again.
        self.held.replace(held);
    }
}

/// Has the records of this thread written together until it is dropped: they, and
/// what waits for them, leave then at the latest.
#[derive(Debug)]
pub struct Outbox(AbortOnDropHandle<()>);

impl Outbox {
    /// To be opened by the worker itself.
    pub fn open(journal: Journal) -> Self {
        OWN.with(|own| own.journal.replace(Some(journal)));
        let sending = poll_fn(|cx| {
            together::begin(cx.waker());
            OWN.with(Own::let_go);
            Poll::<()>::Pending
        });
        Self(AbortOnDropHandle::new(tokio::spawn(sending)))
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        // Not to be begun anew by a task that has not ended yet.
        self.0.abort();
        together::end();
        OWN.with(Own::let_go);
    }
}

/// A client's socket, and what is held back from it.
#[derive(Debug)]
pub struct Line(Mutex<Out>);

#[derive(Debug)]
struct Out {
    socket: TcpStream,
    held: Vec<u8>,
    sent: usize,
    /// It is among those that are let go.
    listed: bool,
    /// Of the connection's task, for when the socket does not take what was held.
    task: Option<Waker>,
    fault: Option<io::Error>,
}

impl Line {
    pub fn new(socket: TcpStream) -> Arc<Self> {
        let out = Out { socket, held: vec![], sent: 0, listed: false, task: None, fault: None };
        Arc::new(Self(Mutex::new(out)))
    }

    /// Nobody else waits for it: all happens on one thread.
    fn lock(&self) -> MutexGuard<'_, Out> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn poll_read(&self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.lock().socket).poll_read(cx, buf)
    }

    /// Writes, or holds back what `answers`: the rest has nothing to do with any
    /// record, and may be written by a task that does not ask twice whether it left.
    pub fn poll_write(
        self: &Arc<Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
        answers: bool,
    ) -> Poll<io::Result<usize>> {
        let mut out = self.lock();
        if together::has_unwritten() && (answers || !out.held.is_empty()) {
            let length = parts.iter().map(|part| part.len()).sum();
            // What a socket has not taken is waited for, with a time limit.
            let is_free = out.listed || out.held.is_empty();
            if answers && is_free && out.held.len() + length <= MOST_HELD {
                for part in parts {
                    out.held.extend_from_slice(part);
                }
                if !mem::replace(&mut out.listed, true) {
                    out.call_back(cx);
                    OWN.with(|own| own.hold(self));
                }
                return Poll::Ready(Ok(length));
            }
            OWN.with(Own::write_records);
        }
        ready!(out.poll_held(cx))?;
        let socket = Pin::new(&mut out.socket);
        // `send` costs the kernel less than `writev`.
        match parts {
            [only] => socket.poll_write(cx, only),
            _ => socket.poll_write_vectored(cx, parts),
        }
    }

    /// What is held because of a record needs nobody to wait for it.
    pub fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut out = self.lock();
        if out.listed {
            return Poll::Ready(Ok(()));
        }
        ready!(out.poll_held(cx))?;
        Pin::new(&mut out.socket).poll_flush(cx)
    }

    pub fn poll_shutdown(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        OWN.with(Own::write_records);
        let mut out = self.lock();
        ready!(out.poll_held(cx))?;
        Pin::new(&mut out.socket).poll_shutdown(cx)
    }

    /// It is closed with a reset, and what is on its way is not to arrive.
    pub fn reset(&self) -> io::Result<()> {
        let mut out = self.lock();
        out.clear();
        out.socket.set_zero_linger()
    }

    /// The records are written. What the socket does not take at once is left to
    /// the connection's own task, which has a time limit for it.
    fn let_go(&self) {
        let mut out = self.lock();
        out.listed = false;
        while out.sent < out.held.len() {
            match out.socket.try_write(&out.held[out.sent..]) {
                Ok(0) => out.fault = Some(io::ErrorKind::WriteZero.into()),
                Ok(wrote) => out.sent += wrote,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => out.fault = Some(error),
            }
            if out.sent < out.held.len() {
                if let Some(task) = out.task.take() {
                    task.wake();
                }
                return;
            }
        }
        out.clear();
    }
}

impl Out {
    /// Has this task woken where the socket does not take what is held.
    fn call_back(&mut self, cx: &Context<'_>) {
        match &mut self.task {
            Some(task) => task.clone_from(cx.waker()),
            None => self.task = Some(cx.waker().clone()),
        }
    }

    /// Sends what was held back. Its records must be written.
    fn poll_held(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.sent < self.held.len() {
            if let Some(fault) = self.fault.take() {
                self.clear();
                return Poll::Ready(Err(fault));
            }
            let rest = &self.held[self.sent..];
            let wrote = ready!(Pin::new(&mut self.socket).poll_write(cx, rest))?;
            if wrote == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sent += wrote;
        }
        self.clear();
        Poll::Ready(Ok(()))
    }

    fn clear(&mut self) {
        self.sent = 0;
        if self.held.capacity() > KEPT {
            self.held = vec![];
        } else {
            self.held.clear();
        }
    }
}

#[cfg(test)]
#[path = "outbox_tests.rs"]
mod tests;
