//! What the tests of this module share.

use std::sync::Arc;

use http::HeaderValue;

use super::{Names, Site};
use crate::{config::rewrite::RewriteConfig, server::client::Scheme};

/// `http://up.example:8188` as `/app` of `https://gate.example`.
pub fn names() -> Names {
    names_at("/app", None)
}

pub fn names_at(prefix: &str, config: Option<RewriteConfig>) -> Names {
    let site = Site::new(config.unwrap_or_default(), prefix, &["http://up.example:8188"]);
    Names {
        site: Arc::new(site),
        host: Some(HeaderValue::from_static("gate.example")),
        scheme: Scheme::Https,
    }
}
