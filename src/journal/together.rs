//! Records of one thread that are written by one call.
//!
//! A worker has many answers end in one turn of its loop, and a `write` for each
//! record would cost as much as all the rest of the journal. So it may say that
//! it writes later ([`begin`]): then it must hold back what follows a record, the
//! end of an answer above all, until [`Journal::write_own`] was called. What is
//! taken but not written is lost with the process, and so is the answer.

use std::{cell::Cell, task::Waker};

use super::Journal;

thread_local! {
    static OWN: Own = const { Own { writer: Cell::new(None), unwritten: Cell::new(false) } };
}

struct Own {
    /// Of the task that writes; none where each record is written at once.
    writer: Cell<Option<Waker>>,
    unwritten: Cell<bool>,
}

/// From now on this thread writes its records later: in a task with this waker,
/// which is woken as soon as there is one.
pub fn begin(writer: &Waker) {
    OWN.with(|own| own.writer.set(Some(writer.clone())));
}

/// Whether records of this thread may still have to be written.
pub fn has_unwritten() -> bool {
    OWN.with(|own| own.unwritten.get())
}

/// Notes that there is one to be written later; `false` if not here.
pub(super) fn put_off() -> bool {
    OWN.with(|own| {
        let Some(writer) = own.writer.take() else { return false };
        if !own.unwritten.replace(true) {
            writer.wake_by_ref();
        }
        own.writer.set(Some(writer));
        true
    })
}

impl Journal {
    /// Writes what this thread put off.
    pub fn write_own(&self) {
        OWN.with(|own| own.unwritten.set(false));
        self.0.write_out(self.0.lane());
    }
}
