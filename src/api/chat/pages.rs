//! The widget that other sites' pages load, and a page of ours that shows it.
//!
//! Both are made once: the widget knows the operator's colour and how long a
//! message may be, the page admits the widget and nothing else. They exist only
//! where there are chats, below `/api` and at `/chat`.

use std::{
    io::{Result as IoResult, Write as _},
    sync::Arc,
};

use axum::{
    Router,
    extract::State,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
    routing::get,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use maud::{DOCTYPE, PreEscaped, html};
use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::{
    api::{
        AppState,
        error::{ApiError, ApiResult, ErrorCode},
    },
    config::{Config, Rgb},
};

const WIDGET: &str = "/chat/widget.js";
const DEMO: &str = "/chat/demo";
const SOURCE: &str = include_str!("assets/widget.js");
const STYLE: &str = include_str!("assets/demo.css");
/// The line of the source that the settings stand in, as far as it is fixed.
const SETTINGS: &str = "  const SETTINGS = ";
/// Pages ask again after this long, and are told at once where nothing changed.
const CACHING: HeaderValue = HeaderValue::from_static("public, max-age=600");

/// What is served; nothing of it where there are no chats.
pub struct ChatPages {
    widget: Option<Widget>,
    demo: Option<Demo>,
}

struct Widget {
    plain: Coded,
    gzip: Coded,
}

/// The script in one content coding.
struct Coded {
    bytes: Bytes,
    /// Of these bytes: another coding is another representation.
    tag: HeaderValue,
}

struct Demo {
    html: String,
    policy: HeaderValue,
}

impl ChatPages {
    pub fn new(config: &Config) -> Self {
        let chat = &config.chat;
        let Rgb(color) = config.server.site_color;
        let widget = || Widget::new(chat.message_max_chars, color);
        let is_there = chat.webhook.is_some();
        let demo = || Demo::new(&config.server.site_name);
        Self { widget: is_there.then(widget), demo: (is_there && chat.demo).then(demo) }
    }

    /// Whether one of them is at this path outside of the API.
    pub fn has(&self, path: &str) -> bool {
        (path == WIDGET && self.widget.is_some()) || (path == DEMO && self.demo.is_some())
    }
}

impl Widget {
    fn new(max_chars: usize, color: [u8; 3]) -> Self {
        let script = script(max_chars, color);
        let mut gzip = GzEncoder::new(vec![], Compression::best());
        let packed: IoResult<_> = gzip.write_all(script.as_bytes()).and_then(|()| gzip.finish());
        let packed = packed.expect("memory can be written to");
        Self { plain: Coded::new(script.into_bytes()), gzip: Coded::new(packed) }
    }
}

impl Coded {
    fn new(bytes: Vec<u8>) -> Self {
        let digest = hex::encode(&Sha256::digest(&bytes)[..16]);
        let tag = HeaderValue::try_from(format!("\"{digest}\"")).expect("digits in quotes");
        Self { bytes: bytes.into(), tag }
    }
}

impl Demo {
    fn new(site: &str) -> Self {
        let hash = STANDARD.encode(Sha256::digest(STYLE));
        let policy = format!(
            "default-src 'none'; script-src 'self'; connect-src 'self'; \
             style-src 'sha256-{hash}'; img-src data:; form-action 'none'; \
             frame-ancestors 'none'; base-uri 'none'; require-trusted-types-for 'script'"
        );
        let snippet = "<script src=\"https://gate.example.com/chat/widget.js\"\n        \
            data-title=\"Ask us\"\n        data-color=\"#1f5fa8\"></script>";
        let page = html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    title { "Chat – " (site) }
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    meta name="robots" content="noindex";
                    link rel="icon" href="data:,";
                    style { (PreEscaped(STYLE)) }
                    script src="widget.js" defer data-open="true" {}
                }
                body {
                    main {
                        p.site { (site) }
                        h1 { "A chat on your pages" }
                        p {
                            "This page has nothing but one script: the chat in its corner. Say \
                             something, watch the answer come, and load the page again: what was \
                             said is still there."
                        }
                        h2 { "On your own pages" }
                        pre tabindex="0" role="region" aria-label="Example" { code { (snippet) } }
                        ul {
                            li {
                                code { "CHAT_WEBHOOK_URL" }
                                " names the workflow that answers. Without one a built-in workflow \
                                 repeats what it is told."
                            }
                            li {
                                code { "ALLOWED_ORIGINS" }
                                " lists the origins of the pages that may show the chat."
                            }
                            li {
                                code { "SESSION_COOKIE_SAME_SITE=none" }
                                " is for pages on another site than this one."
                            }
                            li { code { "CHAT_DEMO=false" } " takes this page away." }
                        }
                    }
                }
            }
        };
        let policy = HeaderValue::try_from(policy).expect("base64 and words");
        Self { html: page.into_string(), policy }
    }
}

/// The source with the settings of this installation.
fn script(max_chars: usize, color: [u8; 3]) -> String {
    let color = format!("#{}", hex::encode(color));
    let settings = json!({ "color": color, "messageMaxChars": max_chars });
    let (before, rest) = SOURCE.split_once(SETTINGS).expect("the source has the line");
    let (_, after) = rest.split_once('\n').expect("the line ends");
    format!("{before}{SETTINGS}{settings};\n{after}")
}

pub fn router(prefixes: &[&str]) -> Router<AppState> {
    let everywhere = prefixes.iter().chain(&[""]);
    everywhere.fold(Router::new(), |router, prefix| {
        router
            .route(&format!("{prefix}{WIDGET}"), get(get_widget))
            .route(&format!("{prefix}{DEMO}"), get(show_demo))
    })
}

async fn get_widget(State(state): State<AppState>, headers: HeaderMap) -> ApiResult<Response> {
    let pages: Arc<ChatPages> = state.chat_pages;
    let widget = pages.widget.as_ref().ok_or_else(nothing_here)?;
    let packed = takes_gzip(&headers);
    let Coded { bytes, tag } = if packed { &widget.gzip } else { &widget.plain };
    let mut fields = HeaderMap::from_iter([
        (header::ETAG, tag.clone()),
        (header::CACHE_CONTROL, CACHING),
        (header::VARY, HeaderValue::from_static("accept-encoding")),
        // For pages that isolate themselves (COEP).
        (
            HeaderName::from_static("cross-origin-resource-policy"),
            HeaderValue::from_static("cross-origin"),
        ),
    ]);
    if is_known(&headers, tag) {
        return Ok((StatusCode::NOT_MODIFIED, fields).into_response());
    }
    let kind = HeaderValue::from_static("text/javascript; charset=utf-8");
    fields.insert(header::CONTENT_TYPE, kind);
    if packed {
        fields.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    Ok((fields, bytes.clone()).into_response())
}

async fn show_demo(State(state): State<AppState>) -> ApiResult<Response> {
    let pages: Arc<ChatPages> = state.chat_pages;
    let Demo { html, policy } = pages.demo.as_ref().ok_or_else(nothing_here)?;
    let fields = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8")),
        (header::CONTENT_SECURITY_POLICY, policy.clone()),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    Ok((fields, html.clone()).into_response())
}

fn nothing_here() -> ApiError {
    ApiError::new(ErrorCode::NotFound, "there are no chats here")
}

/// RFC 9110, 12.5.3, as far as there is a choice.
fn takes_gzip(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::ACCEPT_ENCODING).iter();
    let codings = values.filter_map(|value| value.to_str().ok()).flat_map(|text| text.split(','));
    codings
        .filter_map(|coding| coding.trim().split_once(';').map_or(Some((coding.trim(), "")), Some))
        .any(|(name, weight)| {
            let weight = weight.trim().strip_prefix("q=").unwrap_or("1");
            name.trim().eq_ignore_ascii_case("gzip") && weight.parse().is_ok_and(|q: f32| q > 0.0)
        })
}

/// RFC 9110, 13.1.2.
fn is_known(headers: &HeaderMap, tag: &HeaderValue) -> bool {
    let values = headers.get_all(header::IF_NONE_MATCH).iter();
    let tags = values.filter_map(|value| value.to_str().ok()).flat_map(|text| text.split(','));
    tags.map(str::trim).any(|known| {
        known == "*" || known.strip_prefix("W/").unwrap_or(known).as_bytes() == tag.as_bytes()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_script_has_the_settings_of_the_installation_and_nothing_that_runs_text() {
        let text = script(123, [1, 0xab, 0xff]);
        let settings = "  const SETTINGS = {\"color\":\"#01abff\",\"messageMaxChars\":123};\n";
        assert!(text.contains(settings));
        assert_eq!(SOURCE.matches(SETTINGS).count(), 1);
        for never in [
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
            "new Function",
            "javascript:",
            "localStorage",
        ] {
            assert!(!SOURCE.contains(never), "{never}");
        }
    }

    #[test]
    fn a_coding_is_chosen_and_a_copy_recognised() {
        let with = |name: header::HeaderName, value: &str| {
            HeaderMap::from_iter([(name, HeaderValue::from_str(value).unwrap())])
        };
        for (value, takes) in [
            ("gzip", true),
            ("br, GZIP;q=0.5", true),
            ("gzip;q=0", false),
            ("gzip; q=0.0", false),
            ("br", false),
            ("", false),
        ] {
            assert_eq!(takes_gzip(&with(header::ACCEPT_ENCODING, value)), takes, "{value}");
        }
        let tag = HeaderValue::from_static("\"a\"");
        for (value, known) in [
            ("\"a\"", true),
            ("W/\"a\"", true),
            ("\"b\", \"a\"", true),
            ("*", true),
            ("\"b\"", false),
        ] {
            assert_eq!(is_known(&with(header::IF_NONE_MATCH, value), &tag), known, "{value}");
        }
    }
}
