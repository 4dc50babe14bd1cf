//! Lines for machines: one flat JSON object per event.
//!
//! `timestamp` (RFC 3339, UTC), `level`, `logger`, `message`, `module` and `line`
//! of the source, then the fields of the enclosing spans from the outermost
//! inwards, then the event's own. Of two fields of the same name the innermost
//! stands. A dot in a name is written as `_`. A field called like one of the
//! first gets a `_` behind it.

use std::{borrow::Cow, fmt, io::Write};

use serde::Serializer;
use serde_json::Value;
use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
    span::{Attributes, Id, Record},
};
use tracing_subscriber::{
    Layer,
    fmt::{
        MakeWriter,
        format::Writer,
        time::{FormatTime, SystemTime},
    },
    layer::Context,
    registry::{LookupSpan, Scope},
};

use super::text::{Controls, one_line};

pub struct JsonLines<W> {
    output: W,
}

impl<W> JsonLines<W> {
    pub fn to(output: W) -> Self {
        Self { output }
    }
}

impl<S, W> Layer<S> for JsonLines<W>
where
    S: Subscriber + for<'l> LookupSpan<'l>,
    W: for<'w> MakeWriter<'w> + 'static,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, ctx: Context<'_, S>) {
        let Some(span) = ctx.span(id) else { return };
        let mut extensions = span.extensions_mut();
        // Outputs of the same kind share them; there is no place for two.
        if extensions.get_mut::<Fields>().is_none() {
            let mut fields = Fields::default();
            attributes.record(&mut fields);
            extensions.insert(fields);
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, ctx: Context<'_, S>) {
        if let Some(span) = ctx.span(id)
            && let Some(fields) = span.extensions_mut().get_mut::<Fields>()
        {
            values.record(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, ctx: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut Own(&mut fields, "message"));
        let metadata = event.metadata();
        if let Some(module) = metadata.module_path() {
            fields.set("module".into(), module.into());
        }
        if let Some(line) = metadata.line() {
            fields.set("line".into(), line.into());
        }
        for span in ctx.event_scope(event).into_iter().flat_map(Scope::from_root) {
            if let Some(outer) = span.extensions().get::<Fields>() {
                for (name, value) in &outer.0 {
                    fields.set(name.clone(), value.clone());
                }
            }
        }
        event.record(&mut fields);
        let Ok(mut line) = line(event, &fields) else { return };
        line.push(b'\n');
        // There is nowhere to report that the log cannot be written.
        _ = self.output.make_writer_for(event.metadata()).write_all(&line);
    }
}

fn line(event: &Event<'_>, fields: &Fields) -> Result<Vec<u8>, serde_json::Error> {
    let mut timestamp = String::new();
    // A clock that cannot be formatted is no reason to lose the event.
    _ = SystemTime.format_time(&mut Writer::new(&mut timestamp));
    // A record of the `log` crate keeps its target in a field.
    let target = fields.text("log.target").unwrap_or(event.metadata().target());
    let head = [
        (Cow::Borrowed("timestamp"), Value::from(timestamp)),
        (Cow::Borrowed("level"), Value::from(event.metadata().level().as_str())),
        (Cow::Borrowed("logger"), Value::from(target)),
    ];
    let body = fields.0.iter().filter(|(name, _)| !name.starts_with("log."));
    let mut line = Vec::with_capacity(512);
    let all = head.iter().chain(body).map(|(name, value)| (name, value));
    serde_json::Serializer::new(&mut line).collect_map(all)?;
    Ok(line)
}

/// Few enough that looking through them beats hashing.
#[derive(Default)]
struct Fields(Vec<(Cow<'static, str>, Value)>);

impl Fields {
    fn set(&mut self, name: Cow<'static, str>, value: Value) {
        match self.0.iter_mut().find(|(known, _)| *known == name) {
            Some((_, known)) => *known = value,
            None => self.0.push((name, value)),
        }
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).and_then(|(_, value)| value.as_str())
    }

    fn put(&mut self, field: &Field, value: impl Into<Value>) {
        let name = match field.name() {
            name @ ("timestamp" | "level" | "logger" | "module" | "line") => {
                Cow::Owned(format!("{name}_"))
            }
            "upstream.name" => Cow::Borrowed("upstream"),
            // Those of a record of the `log` crate.
            name if name.contains('.') && !name.starts_with("log.") => {
                Cow::Owned(name.replace('.', "_"))
            }
            name => Cow::Borrowed(name),
        };
        self.set(name, value.into());
    }
}

impl Visit for Fields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, one_line(format_args!("{value}"), Controls::AboveAscii));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, one_line(format_args!("{value:?}"), Controls::AboveAscii));
    }
}

/// Takes one field only: the message stands before the fields of the spans.
struct Own<'f>(&'f mut Fields, &'static str);

impl Visit for Own<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == self.1 {
            self.0.record_debug(field, value);
        }
    }
}
