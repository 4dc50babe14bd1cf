//! Reads the settings of chats: the workflow, and the visitors' sessions.

use std::{sync::Arc, time::Duration};

use chrono::TimeDelta;
use secrecy::SecretString;

use super::{
    Mount, TargetConfig, UpstreamConfig, addresses,
    reader::{Parsed, Reader},
    strength, upstreams, values,
    values::{number, seconds, truth},
};
use crate::domain::chat::{Binding, Lifetimes};

/// Chats with a workflow.
#[derive(Clone, Debug)]
pub struct ChatConfig {
    /// `None`: there are none.
    pub webhook: Option<WebhookConfig>,
    /// Whether there is a page to try them, and a built-in workflow if no other.
    pub demo: bool,
    pub message_max_chars: usize,
    pub answer_max_bytes: usize,
    /// Of one session, of both sides.
    pub max_messages: i64,
    /// Answers under way at once, on one instance.
    pub max_answers: usize,
    pub retention: TimeDelta,
    pub visitors: VisitorConfig,
}

/// The workflow that answers.
#[derive(Clone, Debug)]
pub struct WebhookConfig {
    /// The server, to be reached like an upstream; none for the built-in workflow.
    pub upstream: Arc<UpstreamConfig>,
    pub path: String,
    pub api_key: Option<SecretString>,
    /// The `aud` of what it is sent.
    pub audience: String,
    /// For one answer.
    pub timeout: Duration,
}

/// How visitors are known again.
#[derive(Clone, Debug)]
pub struct VisitorConfig {
    /// At least 32 bytes. `None`: made once and kept in the data directory.
    pub secret_key: Option<SecretString>,
    pub cookie_name: String,
    pub same_site: SameSite,
    /// `None`: where the page comes by https.
    pub secure: Option<bool>,
    pub lifetimes: Lifetimes,
    pub binding: Binding,
}

/// To which requests a browser adds the cookie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SameSite {
    Strict,
    Lax,
    /// From every site; then kept apart for each site that shows the widget.
    None,
}

pub(super) fn chat(reader: &mut Reader) -> ChatConfig {
    let max_answers = reader.required("CHAT_MAX_ANSWERS", number(1..=100_000));
    let days: i64 = reader.required("CHAT_RETENTION_DAYS", number(1..=3650));
    let demo = reader.required("CHAT_DEMO", truth);
    ChatConfig {
        webhook: webhook(reader, max_answers, demo),
        demo,
        message_max_chars: reader.required("CHAT_MESSAGE_MAX_CHARS", number(1..=50_000)),
        answer_max_bytes: reader.required("CHAT_ANSWER_MAX_BYTES", number(1024..=16 * 1024 * 1024)),
        max_messages: reader.required("CHAT_SESSION_MAX_MESSAGES", number(2..=1_000_000)),
        max_answers,
        retention: TimeDelta::days(days),
        visitors: visitors(reader),
    }
}

fn webhook(reader: &mut Reader, max_answers: usize, demo: bool) -> Option<WebhookConfig> {
    const LONGEST: f64 = 3600.0;
    let timeout = reader.required("CHAT_WEBHOOK_TIMEOUT_SECONDS", seconds(1.0..=LONGEST));
    let audience = reader.required("CHAT_WEBHOOK_AUDIENCE", values::line(255));
    let api_key = reader.secret("CHAT_API_KEY", header_value);
    let (targets, path) = match reader.optional("CHAT_WEBHOOK_URL", addresses::webhook) {
        Some((url, path)) => (vec![TargetConfig { url, weight: 1 }], path),
        None if demo => (vec![], "/".to_owned()),
        None => return None,
    };
    let name = upstreams::intern("chat");
    let upstream = UpstreamConfig {
        // The operator says where it is, usually on the same machine.
        private_addresses: true,
        first_byte_timeout: timeout,
        max_connections: max_answers,
        max_pending: max_answers,
        ..upstreams::with_defaults(name, Mount::Root, targets, None)
    };
    Some(WebhookConfig { upstream: Arc::new(upstream), path, api_key, audience, timeout })
}

fn visitors(reader: &mut Reader) -> VisitorConfig {
    let secret_key = reader.secret("SESSION_SECRET_KEY", strength::signing_secret);
    // Whoever runs the workflow knows it.
    for other in ["AUTH_SECRET_KEY", "SECRETS_KEY"] {
        let text = |env| reader.given(env).map(|setting| setting.text.as_str());
        if text("SESSION_SECRET_KEY").is_some() && text("SESSION_SECRET_KEY") == text(other) {
            reader.refuse("SESSION_SECRET_KEY", format!("expected another secret than {other}"));
        }
    }
    let same_site = reader.required("SESSION_COOKIE_SAME_SITE", same_site);
    let secure = reader.optional("SESSION_COOKIE_SECURE", truth);
    if same_site == SameSite::None && secure == Some(false) {
        reader.refuse("SESSION_COOKIE_SECURE", "expected true with SESSION_COOKIE_SAME_SITE none");
    }
    let idle: i64 = reader.required("SESSION_COOKIE_MAX_AGE", number(60..=YEAR));
    let absolute: i64 = reader.required("SESSION_MAX_AGE", number(60..=YEAR));
    if absolute < idle {
        reader.refuse("SESSION_MAX_AGE", "expected at least SESSION_COOKIE_MAX_AGE");
    }
    VisitorConfig {
        secret_key,
        cookie_name: reader.required("SESSION_COOKIE_NAME", cookie_name),
        same_site,
        secure: if same_site == SameSite::None { Some(true) } else { secure },
        lifetimes: Lifetimes {
            idle: TimeDelta::seconds(idle),
            absolute: TimeDelta::seconds(absolute),
        },
        binding: reader.required("SESSION_BINDING", binding),
    }
}

/// Browsers keep no cookie for longer than 400 days.
const YEAR: i64 = 365 * 24 * 3600;

fn header_value(text: &str) -> Parsed<()> {
    let visible = !text.is_empty() && text.len() <= 4096;
    (visible && text.bytes().all(|b| b.is_ascii_graphic()))
        .then_some(())
        .ok_or_else(|| "expected visible ASCII characters".to_owned())
}

/// A token (RFC 6265, 4.1.1), and none of those that are ours otherwise.
fn cookie_name(text: &str) -> Parsed<String> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"_-.".contains(&b);
    let fits = (1..=64).contains(&text.len()) && text.bytes().all(plain);
    let ours = text.to_ascii_lowercase().contains("tollgate");
    (fits && !ours).then(|| text.to_owned()).ok_or_else(|| {
        "expected 1 to 64 letters, digits, _ - and ., without the word tollgate".to_owned()
    })
}

fn same_site(text: &str) -> Parsed<SameSite> {
    match text.to_ascii_lowercase().as_str() {
        "strict" => Ok(SameSite::Strict),
        "lax" => Ok(SameSite::Lax),
        "none" => Ok(SameSite::None),
        _ => Err("expected lax, strict or none".to_owned()),
    }
}

fn binding(text: &str) -> Parsed<Binding> {
    match text {
        "origin" => Ok(Binding::Origin),
        "browser" => Ok(Binding::Browser),
        "network" => Ok(Binding::Network),
        _ => Err("expected origin, browser or network".to_owned()),
    }
}
