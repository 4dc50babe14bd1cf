//! Where one JSON value of a stream of them ends and the next begins.
//!
//! Only brackets and quotes are looked at; whether it is JSON is seen when a
//! value is whole.

use super::Unreadable;

/// Cuts a stream of objects, arrays and texts into its values. White space,
/// commas and a mark at the beginning between them do not count.
#[derive(Debug, Default)]
pub(super) struct Values {
    /// Of the value that has begun.
    value: Vec<u8>,
    depth: usize,
    in_text: bool,
    escaped: bool,
}

impl Values {
    pub fn is_between(&self) -> bool {
        self.value.is_empty()
    }

    /// The next value that ends within `bytes`, which are used up to there; all
    /// of them where none does.
    pub fn next(&mut self, bytes: &mut &[u8], most: usize) -> Result<Option<Vec<u8>>, Unreadable> {
        let mut begin = 0;
        for (at, byte) in bytes.iter().enumerate() {
            if self.value.is_empty() && self.is_outside() {
                match byte {
                    b'{' | b'[' | b'"' => begin = at,
                    // The mark that some put before the first one.
                    b' ' | b'\t' | b'\n' | b'\r' | b',' | 0xef | 0xbb | 0xbf => {
                        begin = at + 1;
                        continue;
                    }
                    _ => return Err(Unreadable::Malformed),
                }
            }
            self.step(*byte);
            if self.depth > most {
                return Err(Unreadable::TooDeep);
            }
            if self.is_outside() {
                let mut value = std::mem::take(&mut self.value);
                value.extend_from_slice(&bytes[begin..=at]);
                *bytes = &bytes[at + 1..];
                return Ok(Some(value));
            }
        }
        self.value.extend_from_slice(&bytes[begin.min(bytes.len())..]);
        *bytes = &[];
        Ok(None)
    }

    fn is_outside(&self) -> bool {
        self.depth == 0 && !self.in_text
    }

    fn step(&mut self, byte: u8) {
        match byte {
            _ if self.escaped => self.escaped = false,
            b'\\' if self.in_text => self.escaped = true,
            b'"' => self.in_text = !self.in_text,
            _ if self.in_text => {}
            b'{' | b'[' => self.depth += 1,
            b'}' | b']' => self.depth = self.depth.saturating_sub(1),
            _ => {}
        }
    }
}
