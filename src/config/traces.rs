//! Reads the settings of traces. They are called as the OpenTelemetry
//! specification calls them, and mean what it says.

use std::{sync::Arc, time::Duration};

use http::{HeaderName, HeaderValue, header};
use ipnet::IpNet;

use super::{
    Mount, TargetConfig, UpstreamConfig, addresses,
    reader::{Parsed, Reader},
    upstreams, values,
    values::{list, number, truth},
};

/// What is appended to the endpoint for traces.
const SIGNAL: &str = "/v1/traces";

/// Where spans go, and which.
#[derive(Clone, Debug)]
pub struct TracesConfig {
    /// The collector, to be reached like an upstream.
    pub collector: Arc<UpstreamConfig>,
    pub path: String,
    /// Sent with every export; marked as secrets.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// For one export.
    pub timeout: Duration,
    pub service: String,
    /// What else is said of this process.
    pub resource: Vec<(String, String)>,
    pub sampler: Sampler,
    /// Whose decision about a trace counts.
    pub trusted: Vec<IpNet>,
    /// Spans that may wait.
    pub max_queue: usize,
    /// How long spans are gathered.
    pub delay: Duration,
}

/// Which traces are kept.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampler {
    /// Whether a trace that others began is kept as they say.
    pub by_parent: bool,
    /// The part of the others, 0 to 1.
    pub ratio: f64,
}

pub(super) fn traces(reader: &mut Reader, proxies: &[IpNet]) -> Option<TracesConfig> {
    let endpoint = reader.optional("OTEL_EXPORTER_OTLP_ENDPOINT", addresses::webhook);
    let timeout = millis(reader.required("OTEL_EXPORTER_OTLP_TIMEOUT", number(1..=600_000)));
    let headers = reader.optional("OTEL_EXPORTER_OTLP_HEADERS", list(header_field));
    let service = reader.required("OTEL_SERVICE_NAME", values::line(255));
    let resource = reader.optional("OTEL_RESOURCE_ATTRIBUTES", list(attribute));
    let ratio = reader.required("OTEL_TRACES_SAMPLER_ARG", ratio);
    let sampler = reader.required("OTEL_TRACES_SAMPLER", |text| sampler(text, ratio));
    let shown = proxies.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let proxies = (proxies.to_vec(), shown);
    let trusted = reader.or("OTEL_TRACES_TRUSTED_PARENTS", proxies, list(addresses::network));
    let max_queue = reader.required("OTEL_BSP_MAX_QUEUE_SIZE", number(1..=100_000));
    let delay = millis(reader.required("OTEL_BSP_SCHEDULE_DELAY", number(1..=600_000)));
    let disabled = reader.required("OTEL_SDK_DISABLED", truth);
    let (url, path) = endpoint.filter(|_| !disabled)?;
    // It may be said for other programs, and must not lead to silence here.
    reader.required("OTEL_EXPORTER_OTLP_PROTOCOL", protocol);
    let collector = UpstreamConfig {
        // The operator says where it is, usually on the same machine.
        private_addresses: true,
        first_byte_timeout: timeout,
        ..upstreams::with_defaults(
            upstreams::intern("otlp"),
            Mount::Root,
            vec![TargetConfig { url, weight: 1 }],
            None,
        )
    };
    Some(TracesConfig {
        collector: Arc::new(collector),
        path: format!("{}{SIGNAL}", path.trim_end_matches('/')),
        headers: headers.unwrap_or_default(),
        timeout,
        service,
        resource: resource.unwrap_or_default(),
        sampler,
        trusted,
        max_queue,
        delay,
    })
}

fn millis(number: u64) -> Duration {
    Duration::from_millis(number)
}

fn protocol(text: &str) -> Parsed<()> {
    if text == "http/protobuf" {
        return Ok(());
    }
    Err("expected http/protobuf, which collectors take on port 4318".to_owned())
}

fn ratio(text: &str) -> Parsed<f64> {
    let ratio = text.parse().ok().filter(|ratio| (0.0..=1.0).contains(ratio));
    ratio.ok_or_else(|| "expected a number from 0 to 1".to_owned())
}

fn sampler(text: &str, ratio: f64) -> Parsed<Sampler> {
    let (by_parent, root) = match text.strip_prefix("parentbased_") {
        Some(root) => (true, root),
        None => (false, text),
    };
    let ratio = match root {
        "always_on" => 1.0,
        "always_off" => 0.0,
        "traceidratio" => ratio,
        _ => {
            return Err("expected always_on, always_off or traceidratio, or one of them behind \
                        parentbased_"
                .to_owned());
        }
    };
    Ok(Sampler { by_parent, ratio })
}

/// `name=value`, the value percent-encoded.
fn pair(text: &str) -> Parsed<(&str, Vec<u8>)> {
    let expected = || "expected name=value, the value percent-encoded".to_owned();
    let (name, value) = text.split_once('=').ok_or_else(expected)?;
    Ok((name.trim(), decoded(value.trim().as_bytes()).ok_or_else(expected)?))
}

fn decoded(text: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.iter();
    while let Some(&byte) = rest.next() {
        bytes.push(if byte == b'%' {
            let mut one = [0];
            hex::decode_to_slice([*rest.next()?, *rest.next()?], &mut one).ok()?;
            one[0]
        } else {
            byte
        });
    }
    Some(bytes)
}

fn header_field(text: &str) -> Parsed<(HeaderName, HeaderValue)> {
    let (name, value) = pair(text)?;
    let name = values::header_name(name)?;
    if matches!(name, header::HOST | header::CONTENT_LENGTH | header::CONTENT_TYPE) {
        return Err("expected a header field that is not Tollgate's to set".to_owned());
    }
    let mut value = HeaderValue::from_bytes(&value)
        .map_err(|_| "expected a value that a header field can have".to_owned())?;
    value.set_sensitive(true);
    Ok((name, value))
}

fn attribute(text: &str) -> Parsed<(String, String)> {
    let (name, value) = pair(text)?;
    let value = String::from_utf8(value).ok().filter(|_| !name.is_empty());
    let value = value.ok_or_else(|| "expected name=value, the value percent-encoded".to_owned())?;
    Ok((name.to_owned(), value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sampler_is_called_as_the_specification_does() {
        for (text, by_parent, part) in [
            ("always_on", false, 1.0),
            ("always_off", false, 0.0),
            ("traceidratio", false, 0.25),
            ("parentbased_always_on", true, 1.0),
            ("parentbased_always_off", true, 0.0),
            ("parentbased_traceidratio", true, 0.25),
        ] {
            assert_eq!(sampler(text, 0.25), Ok(Sampler { by_parent, ratio: part }), "{text}");
        }
        for text in ["", "jaeger_remote", "parentbased_", "ALWAYS_ON"] {
            assert!(sampler(text, 1.0).is_err(), "{text}");
        }
    }

    #[test]
    fn values_are_decoded_and_header_values_are_marked() {
        let (name, value) = header_field(" authorization = Bearer%20a%2Cb= ").unwrap();
        assert_eq!((name.as_str(), value.as_bytes()), ("authorization", &b"Bearer a,b="[..]));
        assert_eq!(format!("{value:?}"), "Sensitive");
        assert_eq!(attribute("a.b=c%2Cd"), Ok(("a.b".to_owned(), "c,d".to_owned())));
        for text in ["x", "x=%", "x=%4", "x=%zz", "a b=c", "x=%0a", "host=a", "connection=close"] {
            assert!(header_field(text).is_err(), "{text}");
        }
    }
}
