//! What a workflow answers, understood as it comes.
//!
//! A [`Reader`] takes the bytes of an answer in whatever parts they arrive and
//! hands out [`Said`]: the same whatever the parts. It understands
//!
//! | form | for instance |
//! |---|---|
//! | objects of a stream, one after the other, with or without newlines | `{"type":"item","content":"Hel"}{"type":"end"}` |
//! | server-sent events, whose data is one of the other forms | `data: {"type":"item","content":"Hel"}` |
//! | one JSON value: text, an object with `output`, `text` or `message`, an array of them | `[{"output":"Hello"}]` |
//! | anything else, as text | `Hello` |
//!
//! No I/O and no time here. It keeps at most one JSON value or event of the
//! answer, and never more than [`Bounds`] allow; text is handed out at once.

mod events;
mod text;
mod value;
mod values;

use self::{events::Events, text::Text, value::Meaning, values::Values};

/// What an answer says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// A piece of the text; never empty, never with a NUL.
    Text(String),
    /// The workflow failed. What it says about that is not for visitors.
    Failed,
}

/// Why an answer is not understood any further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    #[error("the answer is too large")]
    TooLarge,
    #[error("the answer is nested too deeply")]
    TooDeep,
    #[error("the answer is not JSON where it should be")]
    Malformed,
    #[error("the answer has none of the fields that hold text")]
    NoText,
    #[error("the answer broke off")]
    Cut,
}

/// How much of an answer is taken.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Bytes on the wire, all in all; so also the longest value.
    pub bytes: usize,
    /// Brackets within brackets.
    pub depth: usize,
}

impl Bounds {
    /// Deeper than any workflow nests what it answers.
    pub const DEPTH: usize = 32;
}

/// Reads one answer.
#[derive(Debug)]
pub struct Reader {
    bounds: Bounds,
    taken: usize,
    form: Form,
    /// Of a stream of objects: where it stands.
    stream: Stream,
    /// Nothing after a failure counts.
    over: bool,
}

#[derive(Debug)]
enum Form {
    /// Not known yet: what has come is white space or the beginning of a field's
    /// name.
    Unknown(Vec<u8>),
    Values(Values),
    Events(Events),
    Text(Text),
}

/// Where a stream of `begin`, `item` and `end` stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stream {
    /// None of them came.
    #[default]
    None,
    /// Something is to come still.
    Begun,
    /// Items came that nothing had announced.
    Unannounced,
    Ended,
}

impl Reader {
    /// `content_type` is the field of this name, if there is one.
    pub fn new(content_type: Option<&str>, bounds: Bounds) -> Self {
        let essence = content_type.unwrap_or_default().split(';').next().unwrap_or_default();
        let form = match essence.trim().to_ascii_lowercase().as_str() {
            "text/event-stream" => Form::Events(Events::default()),
            "text/plain" | "text/html" | "text/markdown" => Form::Text(Text::default()),
            _ => Form::Unknown(vec![]),
        };
        Self { bounds, taken: 0, form, stream: Stream::None, over: false }
    }

    /// Takes the next bytes and says what they say.
    ///
    /// # Errors
    /// The answer is not understood any further; what was said before counts.
    pub fn push(&mut self, bytes: &[u8], say: &mut impl FnMut(Said)) -> Result<(), Unreadable> {
        if self.over {
            return Ok(());
        }
        self.taken = self.taken.saturating_add(bytes.len());
        if self.taken > self.bounds.bytes {
            return Err(Unreadable::TooLarge);
        }
        let Form::Unknown(kept) = &mut self.form else { return self.pass(bytes, false, say) };
        kept.extend_from_slice(bytes);
        match recognise(kept) {
            None => Ok(()),
            Some(form) => self.begin(form, say),
        }
    }

    /// The answer is over, and came whole.
    ///
    /// # Errors
    /// It ended within something.
    pub fn finish(mut self, say: &mut impl FnMut(Said)) -> Result<(), Unreadable> {
        if self.over {
            return Ok(());
        }
        if let Form::Unknown(kept) = &self.form {
            // White space is no answer, and the beginning of a name is a text.
            let form = if kept.iter().all(u8::is_ascii_whitespace) {
                Form::Values(Values::default())
            } else {
                Form::Text(Text::default())
            };
            self.begin(form, say)?;
        }
        self.pass(&[], true, say)?;
        match self.stream {
            Stream::Begun if !self.over => Err(Unreadable::Cut),
            _ => Ok(()),
        }
    }

    fn begin(&mut self, form: Form, say: &mut impl FnMut(Said)) -> Result<(), Unreadable> {
        let Form::Unknown(kept) = std::mem::replace(&mut self.form, form) else { return Ok(()) };
        self.pass(&kept, false, say)
    }

    fn pass(
        &mut self,
        bytes: &[u8],
        last: bool,
        say: &mut impl FnMut(Said),
    ) -> Result<(), Unreadable> {
        let Self { form, stream, over, bounds, .. } = self;
        match form {
            Form::Unknown(_) => Ok(()),
            Form::Text(text) => {
                text.push(bytes, last, say);
                Ok(())
            }
            Form::Values(values) => {
                let mut rest = bytes;
                while let Some(value) = values.next(&mut rest, bounds.depth)? {
                    hear(value::meaning(&value)?, stream, over, say);
                    if *over {
                        return Ok(());
                    }
                }
                if last && !values.is_between() { Err(Unreadable::Malformed) } else { Ok(()) }
            }
            Form::Events(events) => {
                let mut rest = bytes;
                while let Some(event) = events.next(&mut rest, last) {
                    hear(value::of_event(event, bounds.depth)?, stream, over, say);
                    if *over {
                        return Ok(());
                    }
                }
                Ok(())
            }
        }
    }
}

fn hear(meaning: Meaning, stream: &mut Stream, over: &mut bool, say: &mut impl FnMut(Said)) {
    match meaning {
        Meaning::Begin => *stream = Stream::Begun,
        Meaning::End => *stream = Stream::Ended,
        Meaning::Nothing => {}
        Meaning::Item(text) => {
            *stream = match stream {
                Stream::None | Stream::Unannounced => Stream::Unannounced,
                Stream::Begun | Stream::Ended => Stream::Begun,
            };
            tell(text, say);
        }
        Meaning::Whole(text) => tell(text, say),
        Meaning::Failed => {
            *over = true;
            say(Said::Failed);
        }
    }
}

fn tell(text: String, say: &mut impl FnMut(Said)) {
    if text.is_empty() {
        return;
    }
    // Postgres keeps none, and no reader shows it.
    let text = if text.contains('\0') { text.replace('\0', "\u{fffd}") } else { text };
    say(Said::Text(text));
}

/// Which form these bytes begin; `None`: more are needed.
fn recognise(bytes: &[u8]) -> Option<Form> {
    const MARK: &[u8] = b"\xef\xbb\xbf";
    const FIELDS: [&[u8]; 4] = [b"data:", b"event:", b"id:", b"retry:"];
    if bytes.len() < MARK.len() && MARK.starts_with(bytes) {
        return None;
    }
    let start = bytes.strip_prefix(MARK).unwrap_or(bytes).trim_ascii_start();
    match start.first()? {
        b'{' | b'[' | b'"' => return Some(Form::Values(Values::default())),
        b':' => return Some(Form::Events(Events::default())),
        _ => {}
    }
    if FIELDS.iter().any(|field| start.starts_with(field)) {
        return Some(Form::Events(Events::default()));
    }
    let undecided = FIELDS.iter().any(|field| field.starts_with(start));
    (!undecided).then(|| Form::Text(Text::default()))
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
