//! Where events of an event stream begin and end, and the last one of ours.
//!
//! Nothing of a stream is held back, so it may have to end where the upstream
//! is within an event. There is nothing to be said there: a blank line would
//! give the half event to the page as a whole one (and make half an `id` the one
//! to go on from), and without it our fields would become part of it. By the
//! standard (HTML, 9.2.6) an event without its blank line is dropped at the end,
//! so there the stream just breaks off.

/// Follows an event stream byte by byte.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Events {
    line: Line,
    /// Fields of an event went by, its blank line did not yet.
    begun: bool,
    /// A line feed now belongs to the line that is over.
    after_return: bool,
    passed: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Line {
    #[default]
    Start,
    Comment,
    Field,
}

impl Events {
    pub fn pass(&mut self, bytes: &[u8]) {
        for byte in bytes {
            let after_return = std::mem::take(&mut self.after_return);
            match byte {
                b'\n' if after_return => {}
                b'\n' | b'\r' => {
                    self.end_line();
                    self.after_return = *byte == b'\r';
                }
                b':' if self.line == Line::Start => self.line = Line::Comment,
                _ if self.line == Line::Start => self.line = Line::Field,
                _ => {}
            }
        }
    }

    fn end_line(&mut self) {
        match std::mem::take(&mut self.line) {
            Line::Start if self.begun => {
                self.begun = false;
                self.passed += 1;
            }
            Line::Start | Line::Comment => {}
            Line::Field => self.begun = true,
        }
    }

    /// Whole events so far.
    pub fn passed(&self) -> u64 {
        self.passed
    }

    /// An event of ours that tells why there will be no more; `None` within one
    /// of the upstream's.
    pub fn last(&self, code: &str) -> Option<String> {
        let before = match self.line {
            _ if self.begun => return None,
            Line::Field => return None,
            Line::Comment => "\n",
            Line::Start => "",
        };
        Some(format!("{before}event: tollgate.end\ndata: {{\"code\":\"{code}\"}}\n\n"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn after(text: &str) -> Events {
        let mut events = Events::default();
        events.pass(text.as_bytes());
        events
    }

    #[test]
    fn ours_stands_between_events_only() {
        for (text, events, between) in [
            ("", 0, Some("")),
            ("data: a\n\n", 1, Some("")),
            ("data: a\r\n\r\n", 1, Some("")),
            ("data: a\r\n\r", 1, Some("")),
            ("data: a\r\r", 1, Some("")),
            ("data: a\n\r\n", 1, Some("")),
            ("data: a\n\ndata: b\n\n\n", 2, Some("")),
            (": hello\n", 0, Some("")),
            (": hello", 0, Some("\n")),
            ("data: a\n\n:", 1, Some("\n")),
            ("\n\n\n", 0, Some("")),
            ("d", 0, None),
            ("data: a", 0, None),
            ("data: a\n", 0, None),
            ("data: a\r\n", 0, None),
            ("data: a\n: comment\n", 0, None),
            ("data: a\n: comment", 0, None),
            ("data: a\n\nid: 12", 1, None),
        ] {
            let seen = after(text);
            assert_eq!(seen.passed(), events, "{text:?}");
            let expected = between
                .map(|b| format!("{b}event: tollgate.end\ndata: {{\"code\":\"revoked\"}}\n\n"));
            assert_eq!(seen.last("revoked"), expected, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn it_does_not_matter_how_the_bytes_come(
            text in "[a:\r\n]{0,40}",
            cut in 0usize..40,
        ) {
            let mut parts = Events::default();
            let (one, two) = text.split_at(cut.min(text.len()));
            parts.pass(one.as_bytes());
            parts.pass(two.as_bytes());
            prop_assert_eq!(parts, after(&text));
        }
    }
}
