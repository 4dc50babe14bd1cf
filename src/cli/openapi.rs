//! `tollgate openapi`: the document on standard output.

use super::{Exit, output};
use crate::api;

pub fn run() -> anyhow::Result<Exit> {
    let mut text = api::document().to_pretty_json()?;
    text.push('\n');
    output::write(text.as_bytes())?;
    Ok(Exit::Done)
}
