//! The built-in upstream: answers with the request as it would have been sent.
//!
//! With it a fresh installation can be tried, and integrations be checked,
//! before any backend is configured.

use std::collections::BTreeMap;

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Method, Response, header, request};
use http_body_util::{BodyExt, Full};
use serde::Serialize;

use super::upload::{RequestBody, UploadFault};

/// Bytes of a body that are shown; the rest is read and counted.
const SHOWN: usize = 64 * 1024;

#[derive(Debug, Serialize)]
struct Echo<'r> {
    method: &'r str,
    path: &'r str,
    query: Option<&'r str>,
    /// Values of a repeated field are joined by `, `.
    headers: BTreeMap<&'r str, String>,
    /// The first 64 KiB, if they are text.
    body: Option<&'r str>,
    /// The first 64 KiB in base64, if they are not.
    #[serde(skip_serializing_if = "Option::is_none")]
    body_base64: Option<String>,
    /// All of the body.
    body_bytes: u64,
}

pub async fn answer(
    parts: &request::Parts,
    mut body: RequestBody,
) -> Result<Response<Full<Bytes>>, UploadFault> {
    let mut shown = BytesMut::new();
    let mut body_bytes = 0;
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        body_bytes += data.len() as u64;
        shown.extend_from_slice(&data[..data.len().min(SHOWN - shown.len())]);
    }
    let text = text_of(&shown, body_bytes);
    let echo = Echo {
        method: parts.method.as_str(),
        path: parts.uri.path(),
        query: parts.uri.query(),
        headers: joined(&parts.headers),
        body: text,
        body_base64: text.is_none().then(|| BASE64_STANDARD.encode(&shown)),
        body_bytes,
    };
    let json = serde_json::to_vec(&echo).expect("strings and numbers serialise");
    // An answer to HEAD has no body to be delivered.
    let json = if parts.method == Method::HEAD { Bytes::new() } else { Bytes::from(json) };
    let mut response = Response::new(Full::new(json));
    let kind = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    Ok(response)
}

/// The shown part as text. A character that was cut in two at its end does not
/// make it binary.
fn text_of(shown: &[u8], body_bytes: u64) -> Option<&str> {
    match str::from_utf8(shown) {
        Ok(text) => Some(text),
        Err(error) if error.error_len().is_none() && body_bytes > shown.len() as u64 => {
            str::from_utf8(&shown[..error.valid_up_to()]).ok()
        }
        Err(_) => None,
    }
}

fn joined(headers: &HeaderMap) -> BTreeMap<&str, String> {
    let mut all = BTreeMap::<&str, String>::new();
    for (name, value) in headers {
        let value = String::from_utf8_lossy(value.as_bytes());
        all.entry(name.as_str())
            .and_modify(|known| {
                known.push_str(", ");
                known.push_str(&value);
            })
            .or_insert_with(|| value.into_owned());
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_cut_within_a_character_is_still_text() {
        let text = "é".as_bytes();
        assert_eq!(text_of(&text[..1], 2), Some(""));
        assert_eq!(text_of(&text[..1], 1), None);
        assert_eq!(text_of(&[0xff], 9), None);
        assert_eq!(text_of(text, 2), Some("é"));
    }
}
