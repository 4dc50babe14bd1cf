//! Text that comes in parts, which may end within a character.

use super::Said;

#[derive(Debug, Default)]
pub(super) struct Text {
    /// The beginning of a character; at most three bytes.
    begun: Vec<u8>,
    /// Something was said, so a mark at the beginning is none any more.
    said: bool,
}

impl Text {
    /// What is no UTF-8 becomes U+FFFD, as the standard has it (Unicode 3.9),
    /// which does not depend on the parts.
    pub fn push(&mut self, bytes: &[u8], last: bool, say: &mut impl FnMut(Said)) {
        let joined;
        let mut rest = if self.begun.is_empty() {
            bytes
        } else {
            joined = [&std::mem::take(&mut self.begun)[..], bytes].concat();
            &joined[..]
        };
        let mut text = String::with_capacity(rest.len());
        loop {
            match std::str::from_utf8(rest) {
                Ok(good) => {
                    text.push_str(good);
                    break;
                }
                Err(error) => {
                    let (good, bad) = rest.split_at(error.valid_up_to());
                    text.push_str(&String::from_utf8_lossy(good));
                    match error.error_len() {
                        Some(length) => {
                            text.push(char::REPLACEMENT_CHARACTER);
                            rest = &bad[length..];
                        }
                        None if last => {
                            text.push(char::REPLACEMENT_CHARACTER);
                            break;
                        }
                        None => {
                            self.begun = bad.to_vec();
                            break;
                        }
                    }
                }
            }
        }
        let text = if self.said { &text[..] } else { text.trim_start_matches('\u{feff}') };
        self.said |= !text.is_empty();
        super::tell(text.to_owned(), say);
    }
}
