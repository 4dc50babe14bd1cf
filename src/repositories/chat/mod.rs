//! Storage of conversations: sessions here and in [`sessions`], messages and the
//! pieces of answers in [`messages`], and what keeps them few in [`retention`].

mod messages;
mod retention;
mod rows;
mod sessions;

pub use self::{messages::Opened, sessions::ChatFilter};
use super::DbConn;

pub struct Chat<'c> {
    conn: DbConn<'c>,
}

impl<'c> Chat<'c> {
    pub(super) fn new(conn: DbConn<'c>) -> Self {
        Self { conn }
    }
}
