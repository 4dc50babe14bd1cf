//! Spans as OTLP has them: the protocol buffers of `ExportTraceServiceRequest`,
//! and what of its answer matters.
//!
//! Written by hand, since it is five kinds of message that never change, and
//! a library would bring its own queue, thread and HTTP client along, none of
//! which counts what it drops.

use super::span::{Kind, Span, Value};

// Numbers of fields, by opentelemetry-proto 1.x.
const RESOURCE_SPANS: u32 = 1;
const RESOURCE: u32 = 1;
const SCOPE_SPANS: u32 = 2;
const ATTRIBUTES_OF_RESOURCE: u32 = 1;
const SCOPE: u32 = 1;
const SPANS: u32 = 2;
const NAME_OF_SCOPE: u32 = 1;
const VERSION_OF_SCOPE: u32 = 2;

const STATUS_ERROR: u64 = 2;
/// In a span's flags, above those of the context.
const HAS_IS_REMOTE: u32 = 1 << 8;
const IS_REMOTE: u32 = 1 << 9;
const SAMPLED: u32 = 1;

/// What the process says of itself, as it stands in every export.
#[derive(Clone, Debug)]
pub struct Resource(Vec<u8>);

impl Resource {
    pub fn new<'a>(attributes: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let mut message = Message::default();
        for (name, value) in attributes {
            message.message(ATTRIBUTES_OF_RESOURCE, &pair(name, &value.to_owned().into()));
        }
        Self(message.0)
    }
}

/// One export of these spans.
pub fn request(resource: &Resource, spans: &[Span]) -> Vec<u8> {
    let mut scope = Message::default();
    scope.bytes(NAME_OF_SCOPE, b"tollgate");
    scope.bytes(VERSION_OF_SCOPE, env!("CARGO_PKG_VERSION").as_bytes());
    let mut of_scope = Message(Vec::with_capacity(spans.len() * 400));
    of_scope.message(SCOPE, &scope);
    for one in spans {
        of_scope.message(SPANS, &span(one));
    }
    let mut of_resource = Message(Vec::with_capacity(of_scope.0.len() + 256));
    of_resource.bytes(RESOURCE, &resource.0);
    of_resource.message(SCOPE_SPANS, &of_scope);
    let mut request = Message(Vec::with_capacity(of_resource.0.len() + 16));
    request.message(RESOURCE_SPANS, &of_resource);
    request.0
}

fn span(span: &Span) -> Message {
    let mut message = Message::default();
    message.bytes(1, &span.trace.0);
    message.bytes(2, &span.id.0);
    if let Some(parent) = span.parent {
        message.bytes(4, &parent.0);
    }
    message.bytes(5, span.name.as_bytes());
    message.number(
        6,
        match span.kind {
            Kind::Server => 2,
            Kind::Client => 3,
        },
    );
    message.fixed64(7, span.started);
    message.fixed64(8, span.ended);
    for (name, value) in &span.attributes {
        message.message(9, &pair(name, value));
    }
    if span.failed {
        let mut status = Message::default();
        status.number(3, STATUS_ERROR);
        message.message(15, &status);
    }
    let remote = if span.is_parent_remote { IS_REMOTE } else { 0 };
    message.fixed32(16, SAMPLED | HAS_IS_REMOTE | remote);
    message
}

fn pair(name: &str, value: &Value) -> Message {
    let mut any = Message::default();
    match value {
        Value::Text(text) => any.bytes(1, text.as_bytes()),
        Value::Number(number) => any.number(3, number.cast_unsigned()),
    }
    let mut pair = Message::default();
    pair.bytes(1, name.as_bytes());
    pair.message(2, &any);
    pair
}

/// A message under way.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn tag(&mut self, field: u32, wire: u32) {
        self.varint((field << 3 | wire).into());
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value.to_le_bytes()[0] | 0x80);
            value >>= 7;
        }
        self.0.push(value.to_le_bytes()[0]);
    }

    fn number(&mut self, field: u32, value: u64) {
        self.tag(field, 0);
        self.varint(value);
    }

    fn fixed64(&mut self, field: u32, value: u64) {
        self.tag(field, 1);
        self.0.extend(value.to_le_bytes());
    }

    fn fixed32(&mut self, field: u32, value: u32) {
        self.tag(field, 5);
        self.0.extend(value.to_le_bytes());
    }

    fn bytes(&mut self, field: u32, bytes: &[u8]) {
        self.tag(field, 2);
        self.varint(bytes.len() as u64);
        self.0.extend(bytes);
    }

    fn message(&mut self, field: u32, inner: &Self) {
        self.bytes(field, &inner.0);
    }
}

/// How many of the spans the collector did not want, as it says in an answer
/// that is otherwise a good one. What cannot be read says nothing.
pub fn rejected(answer: &[u8]) -> u64 {
    let partial = fields(answer).find_map(|(field, value)| match (field, value) {
        (1, Read::Bytes(bytes)) => Some(bytes),
        _ => None,
    });
    let count = fields(partial.unwrap_or_default()).find_map(|(field, value)| match value {
        Read::Number(number) if field == 1 => Some(number),
        _ => None,
    });
    count.unwrap_or_default()
}

enum Read<'m> {
    Number(u64),
    Bytes(&'m [u8]),
    Other,
}

/// Up to the first that is not well formed.
fn fields(mut rest: &[u8]) -> impl Iterator<Item = (u64, Read<'_>)> {
    std::iter::from_fn(move || {
        let tag = varint(&mut rest)?;
        let mut take = |length: usize| {
            let (bytes, behind) = rest.split_at_checked(length)?;
            rest = behind;
            Some(bytes)
        };
        let value = match tag & 7 {
            0 => Read::Number(varint(&mut rest)?),
            1 => take(8).map(|_| Read::Other)?,
            5 => take(4).map(|_| Read::Other)?,
            2 => {
                let length = usize::try_from(varint(&mut rest)?).ok()?;
                let (bytes, behind) = rest.split_at_checked(length)?;
                rest = behind;
                Read::Bytes(bytes)
            }
            _ => return None,
        };
        Some((tag >> 3, value))
    })
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (&byte, behind) = rest.split_first()?;
        *rest = behind;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_says_how_many_were_not_wanted() {
        let mut partial = Message::default();
        partial.number(1, 300);
        partial.bytes(2, b"too old");
        let mut answer = Message::default();
        answer.fixed64(7, 1);
        answer.message(1, &partial);
        assert_eq!(rejected(&answer.0), 300);
        let whole = answer.0.clone();
        for cut in 0..whole.len() {
            _ = rejected(&whole[..cut]);
        }
        for nothing in [&b""[..], b"\xff\xff\xff", b"{\"partialSuccess\":{}}", &[0xff; 20]] {
            assert_eq!(rejected(nothing), 0);
        }
    }
}
