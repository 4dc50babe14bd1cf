//! Server-sent events (HTML, 9.2.6): their lines, and what an event holds.

/// Lines end in CR, LF or both, at whatever byte they are cut.
#[derive(Debug, Default)]
pub(super) struct Events {
    line: Vec<u8>,
    /// A line feed now belongs to the line that is over.
    after_return: bool,
    begun: bool,
    event: Event,
    has_data: bool,
}

#[derive(Debug, Default)]
pub(super) struct Event {
    pub name: Vec<u8>,
    /// Its lines, joined by line feeds.
    pub data: Vec<u8>,
}

impl Events {
    /// The next event that ends within `bytes`, which are used up to there. By
    /// the standard one without its blank line is dropped at the end; workflows
    /// forget it, so here it counts.
    pub fn next(&mut self, bytes: &mut &[u8], last: bool) -> Option<Event> {
        while let Some((byte, rest)) = bytes.split_first() {
            *bytes = rest;
            let after_return = std::mem::take(&mut self.after_return);
            match byte {
                b'\n' if after_return => {}
                b'\n' | b'\r' => {
                    self.after_return = *byte == b'\r';
                    if let Some(event) = self.end_line() {
                        return Some(event);
                    }
                }
                _ => self.line.push(*byte),
            }
        }
        if !last {
            return None;
        }
        if !self.line.is_empty() {
            self.end_line();
        }
        self.dispatch()
    }

    fn end_line(&mut self) -> Option<Event> {
        let line = std::mem::take(&mut self.line);
        let mut line = &line[..];
        if !std::mem::replace(&mut self.begun, true) {
            line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line);
        }
        if line.is_empty() {
            return self.dispatch();
        }
        let colon = line.iter().position(|byte| *byte == b':');
        let (name, value) = colon.map_or((line, &b""[..]), |at| (&line[..at], &line[at + 1..]));
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match name {
            b"data" => {
                if self.has_data {
                    self.event.data.push(b'\n');
                }
                self.event.data.extend_from_slice(value);
                self.has_data = true;
            }
            b"event" => value.clone_into(&mut self.event.name),
            _ => {}
        }
        None
    }

    fn dispatch(&mut self) -> Option<Event> {
        let event = std::mem::take(&mut self.event);
        let said = std::mem::take(&mut self.has_data) || !event.name.is_empty();
        said.then_some(event)
    }
}
