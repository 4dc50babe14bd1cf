//! Rules for single fields of requests, shared between them.

use std::borrow::Cow;

use chrono::{DateTime, Datelike as _, Utc};
use secrecy::ExposeSecret as _;
use validator::{ValidateEmail as _, ValidationError};

use super::{double_option::DoubleOption, secret::Secret};
use crate::{
    domain::{chat::CLIENT_ID_BYTES, ledger::is_reason, password, user::is_username},
    gateway::{path, query},
};

fn rule(holds: bool, code: &'static str, message: &'static str) -> Result<(), ValidationError> {
    if holds {
        return Ok(());
    }
    let mut error = ValidationError::new(code);
    error.message = Some(Cow::Borrowed(message));
    Err(error)
}

pub(super) fn email(text: &str) -> Result<(), ValidationError> {
    let holds = text.len() <= 254 && text.validate_email();
    rule(holds, "email", "must be an e-mail address")
}

pub(super) fn username(text: &str) -> Result<(), ValidationError> {
    let message = "must have 3 to 64 letters, digits, dots, dashes or underscores";
    rule(is_username(text), "username", message)
}

pub(super) fn person_name(text: &str) -> Result<(), ValidationError> {
    let holds = text.chars().count() <= 200 && !text.chars().any(char::is_control);
    rule(holds, "length", "must have at most 200 characters, none of them control characters")
}

/// Why something was done, in the ledger for good.
pub(super) fn reason(text: &str) -> Result<(), ValidationError> {
    let holds = is_reason(text);
    let message = "must have 1 to 500 characters, none of them control characters";
    rule(holds, "length", message)
}

/// Text that something is looked up by. Postgres has no NUL in texts, and would
/// call a question with one a fault.
pub(super) fn no_nul(text: &str) -> Result<(), ValidationError> {
    rule(!text.contains('\0'), "nul", "must not contain the character NUL")
}

/// An instant that both engines can compare.
pub(super) fn instant(at: &DateTime<Utc>) -> Result<(), ValidationError> {
    let holds = (1970..=9999).contains(&at.year());
    rule(holds, "range", "must lie between the years 1970 and 9999")
}

/// Of a log.
pub(super) fn log_level(text: &str) -> Result<(), ValidationError> {
    match crate::config::log_level(text) {
        Ok(_) => Ok(()),
        Err(expected) => Err(ValidationError::new("log_level").with_message(expected.into())),
    }
}

/// Where a page is, for a workflow to read.
pub(super) fn page_url(text: &str) -> Result<(), ValidationError> {
    let is_web = text.starts_with("https://") || text.starts_with("http://");
    let holds = is_web && text.len() <= 2048 && !text.contains(char::is_control);
    rule(holds, "url", "must be an http or https URL of at most 2048 bytes")
}

pub(super) fn client_message_id(text: &str) -> Result<(), ValidationError> {
    let holds = (1..=CLIENT_ID_BYTES).contains(&text.len());
    let holds = holds && text.bytes().all(|b| b.is_ascii_graphic());
    rule(holds, "client_message_id", "must be 1 to 128 visible ASCII characters")
}

/// The path of a URL, without a query, that we would forward.
pub(super) fn url_path(text: &str) -> Result<(), ValidationError> {
    let holds =
        text.len() <= 4096 && path::canonical(text).is_ok() && !query::path_holds_credential(text);
    rule(holds, "path", "must be an unambiguous path of at most 4096 bytes, without a query")
}

/// A password that is to be set, by the rules that hold in every
/// configuration: looked at here, so that it is named with the other bad fields.
pub(super) fn new_password(password: &Secret) -> Result<(), ValidationError> {
    password::check(password.0.expose_secret(), password::MIN_CHARS).map_err(|refusal| {
        let mut error = ValidationError::new("password");
        error.message = Some(Cow::Owned(refusal.to_string()));
        error
    })
}

/// A password that is checked, not set: bounded, since all of it is hashed.
pub(super) fn presented_password(password: &Secret) -> Result<(), ValidationError> {
    let holds = password.0.expose_secret().len() <= 1024;
    rule(holds, "length", "must have at most 1024 bytes")
}

#[expect(clippy::ref_option, reason = "what the derived validation calls it with")]
pub(super) fn optional_person_name(text: &DoubleOption<String>) -> Result<(), ValidationError> {
    text.iter().flatten().try_for_each(|text| person_name(text))
}
