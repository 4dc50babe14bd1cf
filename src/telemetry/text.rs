//! Lines for people, and the escaping that both formats share.

use std::fmt::{self, Write};

use tracing::Subscriber;
use tracing_subscriber::{
    Layer,
    field::MakeExt,
    fmt::{MakeWriter, format},
    registry::LookupSpan,
};

/// Longest value in a log line, bytes; the rest is replaced by `…`.
pub const MOST_BYTES: usize = 4096;

/// `time LEVEL span{fields}: target: message field=value …`
pub fn layer<S, W>(output: W, colours: bool) -> impl Layer<S>
where
    S: Subscriber + for<'l> LookupSpan<'l>,
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let fields = format::debug_fn(|writer, field, value| {
        let value = one_line(format_args!("{value:?}"), Controls::All);
        match field.name() {
            "message" => writer.write_str(&value),
            // Where a `log` record came from; its target is in the line.
            name if name.starts_with("log.") => Ok(()),
            name => write!(writer, "{name}={value}"),
        }
    });
    tracing_subscriber::fmt::layer()
        .fmt_fields(fields.delimited(" "))
        .with_ansi(colours)
        .with_writer(output)
}

/// Which control characters are escaped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Controls {
    All,
    /// Not those below U+0020, which JSON escapes itself.
    AboveAscii,
}

/// The text, cut and with everything escaped that ends a line, moves the
/// cursor or changes the direction of reading.
pub fn one_line(value: fmt::Arguments<'_>, controls: Controls) -> String {
    let mut line = OneLine { text: String::new(), controls };
    // The only error is that it was cut, which stops the formatting early.
    if line.write_fmt(value).is_err() {
        line.text.push('…');
    }
    line.text
}

struct OneLine {
    text: String,
    controls: Controls,
}

impl OneLine {
    fn escapes(&self, c: char) -> bool {
        match c {
            '\0'..='\u{1f}' => self.controls == Controls::All,
            // The last two make a line read otherwise: bidirectional overrides.
            '\u{7f}'..='\u{9f}'
            | '\u{2028}'
            | '\u{2029}'
            | '\u{202a}'..='\u{202e}'
            | '\u{2066}'..='\u{2069}' => true,
            _ => false,
        }
    }
}

impl Write for OneLine {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.chars() {
            if self.text.len() >= MOST_BYTES {
                return Err(fmt::Error);
            }
            if self.escapes(c) {
                self.text.extend(c.escape_default());
            } else {
                self.text.push(c);
            }
        }
        Ok(())
    }
}
