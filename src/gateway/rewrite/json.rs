//! Text values at places of a JSON document, replaced where they stand.
//!
//! The document is not parsed into values and printed again: that would lose the
//! order of members, and the digits of numbers that fit no `f64`. Only the texts
//! that change do. A document that is broken is left alone as a whole.

use crate::config::rewrite::JsonPlace;

/// Deepest nesting that is followed.
const DEEPEST: usize = 128;

/// Where the walk is within an array or object.
enum Level {
    Array(usize),
    /// The member's name, while its value is read.
    Object(String),
}

struct Walk<'a, F> {
    text: &'a [u8],
    at: usize,
    place: &'a JsonPlace,
    change: F,
    out: Vec<u8>,
    kept: usize,
    path: Vec<Level>,
}

/// The document with every text at `place` as `change` makes it. `None`: nothing
/// to change, or not JSON.
pub fn replace(
    text: &[u8],
    place: &JsonPlace,
    change: impl FnMut(&str) -> Option<String>,
) -> Option<Vec<u8>> {
    let mut walk = Walk { text, at: 0, place, change, out: vec![], kept: 0, path: vec![] };
    walk.value()?;
    walk.skip_space();
    if walk.at < text.len() || walk.kept == 0 {
        return None;
    }
    walk.out.extend_from_slice(&text[walk.kept..]);
    Some(walk.out)
}

impl<F: FnMut(&str) -> Option<String>> Walk<'_, F> {
    fn skip_space(&mut self) {
        let space = |byte: &&u8| matches!(byte, b' ' | b'\t' | b'\n' | b'\r');
        self.at += self.text[self.at..].iter().take_while(space).count();
    }

    fn peek(&mut self) -> Option<u8> {
        self.skip_space();
        self.text.get(self.at).copied()
    }

    /// Whether the next sign is this one; it is taken if so.
    fn takes(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    /// Each step returns `None` where the text is not JSON.
    fn value(&mut self) -> Option<()> {
        match self.peek()? {
            b'"' => {
                let from = self.at;
                let text = self.string()?;
                if self.is_here()
                    && let Some(changed) = (self.change)(&text)
                {
                    self.out.extend_from_slice(&self.text[self.kept..from]);
                    self.out.extend_from_slice(&serde_json::to_vec(&changed).ok()?);
                    self.kept = self.at;
                }
                Some(())
            }
            b'[' => self.array(),
            b'{' => self.object(),
            _ => {
                let scalar =
                    |byte: &&u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'+' | b'.');
                let length = self.text[self.at..].iter().take_while(scalar).count();
                let scalar = &self.text[self.at..self.at + length];
                serde_json::from_slice::<serde::de::IgnoredAny>(scalar).ok()?;
                self.at += length;
                Some(())
            }
        }
    }

    fn string(&mut self) -> Option<String> {
        let from = self.at;
        let mut end = from + 1;
        loop {
            match self.text.get(end)? {
                b'"' => break,
                b'\\' => end += 2,
                _ => end += 1,
            }
        }
        self.at = end + 1;
        serde_json::from_slice(&self.text[from..=end]).ok()
    }

    fn array(&mut self) -> Option<()> {
        self.at += 1;
        if self.takes(b']') {
            return Some(());
        }
        self.enter(Level::Array(0))?;
        loop {
            self.value()?;
            if self.takes(b']') {
                self.path.pop();
                return Some(());
            }
            if !self.takes(b',') {
                return None;
            }
            if let Some(Level::Array(number)) = self.path.last_mut() {
                *number += 1;
            }
        }
    }

    fn object(&mut self) -> Option<()> {
        self.at += 1;
        if self.takes(b'}') {
            return Some(());
        }
        self.enter(Level::Object(String::new()))?;
        loop {
            if self.peek()? != b'"' {
                return None;
            }
            let name = self.string()?;
            if !self.takes(b':') {
                return None;
            }
            if let Some(level) = self.path.last_mut() {
                *level = Level::Object(name);
            }
            self.value()?;
            if self.takes(b'}') {
                self.path.pop();
                return Some(());
            }
            if !self.takes(b',') {
                return None;
            }
        }
    }

    fn enter(&mut self, level: Level) -> Option<()> {
        self.path.push(level);
        (self.path.len() <= DEEPEST).then_some(())
    }

    fn is_here(&self) -> bool {
        match self.place {
            JsonPlace::Key(key) => {
                matches!(self.path.last(), Some(Level::Object(name)) if name == key)
            }
            JsonPlace::Pointer(segments) => {
                let is = |(segment, level): (&Option<String>, &Level)| match (segment, level) {
                    (None, _) => true,
                    (Some(segment), Level::Object(name)) => segment == name,
                    (Some(segment), Level::Array(number)) => *segment == number.to_string(),
                };
                segments.len() == self.path.len() && segments.iter().zip(&self.path).all(is)
            }
        }
    }
}
