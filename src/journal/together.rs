//! Records of one thread that are written by one call.
//!
//! A worker has many answers end in one turn of its loop, and a `write` for each
//! record would cost as much as all the rest of the journal. So it may say that
//! it writes later ([`begin`]): then it must hold back what follows a record, the
//! end of an answer above all, until [`Journal::write_own`] was called. What is
//! taken but not written is lost with the process, and so is the answer.

use std::cell::Cell;

use super::Journal;

thread_local! {
    static OWN: Own = const { Own { later: Cell::new(false), unwritten: Cell::new(false) } };
}

struct Own {
    later: Cell<bool>,
    unwritten: Cell<bool>,
}

/// From now on this thread writes its records later.
pub fn begin() {
    OWN.with(|own| own.later.set(true));
}

/// Whether records of this thread may still have to be written.
pub fn has_unwritten() -> bool {
    OWN.with(|own| own.unwritten.get())
}

/// Notes that there is one to be written later; `false` if not here.
pub(super) fn put_off() -> bool {
    OWN.with(|own| {
        let later = own.later.get();
        if later {
            own.unwritten.set(true);
        }
        later
    })
}

impl Journal {
    /// Writes what this thread put off.
    pub fn write_own(&self) {
        OWN.with(|own| own.unwritten.set(false));
        self.0.write_out(self.0.lane());
    }
}
