//! Records of one thread that are written by one call.
//!
//! A worker has many answers end in one turn of its loop, and a `write` for each
//! record would cost as much as all the rest of the journal. So it may say that
//! it writes later ([`begin`]): then it must hold back what follows a record, the
//! end of an answer above all, until [`Journal::write_own`] was called. What is
//! taken but not written is lost with the process, and so is the answer.

use std::{
    cell::{Cell, RefCell},
    task::Waker,
};

use super::Journal;

thread_local! {
    static OWN: Own =
        const { Own { writer: RefCell::new(None), unwritten: Cell::new(false) } };
}

struct Own {
    /// Of the task that writes; none where each record is written at once.
    writer: RefCell<Option<Waker>>,
    unwritten: Cell<bool>,
}

/// From now on this thread writes its records later: in a task with this waker,
/// which is woken as soon as there is one.
pub fn begin(writer: &Waker) {
    OWN.with(|own| {
        let mut known = own.writer.borrow_mut();
        match &mut *known {
            Some(known) => known.clone_from(writer),
            None => *known = Some(writer.clone()),
        }
    });
}

/// From now on this thread writes each record at once; what it put off is still
/// to be written.
pub fn end() {
    OWN.with(|own| own.writer.take());
}

/// Whether records of this thread may still have to be written.
pub fn has_unwritten() -> bool {
    OWN.with(|own| own.unwritten.get())
}

/// Notes that there is one to be written later; `false` if not here.
pub(super) fn put_off() -> bool {
    OWN.with(|own| {
        let writer = own.writer.borrow();
        let Some(writer) = &*writer else { return false };
        if !own.unwritten.replace(true) {
            writer.wake_by_ref();
        }
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
