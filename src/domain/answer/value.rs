//! What one value of an answer means.

use serde_json::{Map, Value};

use super::{Unreadable, events::Event, values::Values};

pub(super) enum Meaning {
    Begin,
    Item(String),
    End,
    /// Text that stands for itself, outside of any stream.
    Whole(String),
    Failed,
    Nothing,
}

/// Of a JSON value that was cut out of a stream.
pub(super) fn meaning(json: &[u8]) -> Result<Meaning, Unreadable> {
    of_value(&parse(json).ok_or(Unreadable::Malformed)?)
}

/// Of a server-sent event. Its name counts where its data says nothing itself.
pub(super) fn of_event(event: Event, depth: usize) -> Result<Meaning, Unreadable> {
    let Event { name, data } = event;
    if name == b"error" {
        return Ok(Meaning::Failed);
    }
    let is_json = matches!(data.trim_ascii_start().first(), Some(b'{' | b'['));
    if is_json {
        // Cut first: that looks at how deep it is.
        let (mut values, mut rest) = (Values::default(), data.trim_ascii());
        match values.next(&mut rest, depth) {
            Ok(Some(json)) if rest.is_empty() => {
                if let Some(value) = parse(&json) {
                    return match of_value(&value) {
                        // What a workflow tells beside its text.
                        Err(Unreadable::NoText) => Ok(Meaning::Nothing),
                        meaning => meaning,
                    };
                }
            }
            Err(Unreadable::TooDeep) => return Err(Unreadable::TooDeep),
            _ => {}
        }
    }
    match (name.as_slice(), data.trim_ascii()) {
        (_, b"[DONE]") | (b"end" | b"done", _) => Ok(Meaning::End),
        (b"begin" | b"start", _) => Ok(Meaning::Begin),
        _ => Ok(Meaning::Item(String::from_utf8_lossy(&data).into_owned())),
    }
}

fn of_value(value: &Value) -> Result<Meaning, Unreadable> {
    if let Value::Object(fields) = value
        && let Some(meaning) = of_stream(fields)
    {
        return Ok(meaning);
    }
    if let Value::Array(all) = value
        && all.is_empty()
    {
        return Ok(Meaning::Nothing);
    }
    match text_of(value, LEVELS) {
        Some(text) => Ok(Meaning::Whole(text)),
        None if is_error(value) => Ok(Meaning::Failed),
        None => Err(Unreadable::NoText),
    }
}

/// Of an object with a `type`, as streams have them.
fn of_stream(fields: &Map<String, Value>) -> Option<Meaning> {
    Some(match fields.get("type")?.as_str()? {
        "begin" => Meaning::Begin,
        "end" => Meaning::End,
        "error" => Meaning::Failed,
        "item" => match fields.get("content") {
            None | Some(Value::Null) => Meaning::Nothing,
            Some(content) => {
                Meaning::Item(text_of(content, LEVELS).unwrap_or_else(|| content.to_string()))
            }
        },
        // Of a later version, or of a tool that the workflow uses; one that has
        // text is read for it.
        _ if KNOWN.iter().all(|name| !fields.contains_key(*name)) => Meaning::Nothing,
        _ => return None,
    })
}

const KNOWN: [&str; 3] = ["output", "text", "message"];
/// Fields within fields that are looked into.
const LEVELS: usize = 4;

fn text_of(value: &Value, levels: usize) -> Option<String> {
    let levels = levels.checked_sub(1)?;
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(truth) => Some(truth.to_string()),
        Value::Null => None,
        Value::Array(all) => {
            let texts: Vec<_> = all.iter().filter_map(|one| text_of(one, levels)).collect();
            (!texts.is_empty()).then(|| texts.join("\n"))
        }
        Value::Object(fields) => {
            let within = KNOWN.iter().chain(&["content"]);
            within.filter_map(|name| fields.get(*name)).find_map(|one| text_of(one, levels))
        }
    }
}

fn is_error(value: &Value) -> bool {
    let of = |value: &Value| value.get("error").is_some_and(|error| !error.is_null());
    of(value) || value.as_array().is_some_and(|all| all.iter().any(of))
}

/// A workflow that cuts a text between the halves of a character of UTF-16 says
/// each half as an escape, which is JSON but no text: they become U+FFFD.
fn parse(json: &[u8]) -> Option<Value> {
    serde_json::from_slice(json).ok().or_else(|| serde_json::from_slice(&mended(json)?).ok())
}

fn mended(json: &[u8]) -> Option<Vec<u8>> {
    let unit = |at: usize| {
        let digits = json.get(at..at + 6)?.strip_prefix(b"\\u")?;
        u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
    };
    let (mut all, mut at, mut changed) = (Vec::with_capacity(json.len()), 0, false);
    while let Some(byte) = json.get(at) {
        let step = match unit(at) {
            Some(0xd800..=0xdbff) if matches!(unit(at + 6), Some(0xdc00..=0xdfff)) => 12,
            Some(0xd800..=0xdfff) => {
                all.extend_from_slice(b"\\ufffd");
                changed = true;
                at += 6;
                continue;
            }
            Some(_) => 6,
            None if *byte == b'\\' => 2,
            None => 1,
        };
        all.extend_from_slice(json.get(at..at + step)?);
        at += step;
    }
    changed.then_some(all)
}
