//! What the handlers work with.

use std::sync::Arc;

use axum::http::HeaderValue;
use secrecy::SecretString;

use super::{chat::ChatPages, pages::Site};
use crate::{config::VisitorConfig, services::Services};

/// What a request handler can reach.
#[derive(Clone)]
pub struct AppState {
    pub services: Services,
    pub metrics: MetricsState,
    /// How the pages look.
    pub site: Arc<Site>,
    /// The widget, and the page that shows it.
    pub chat_pages: Arc<ChatPages>,
    /// How cookies of visitors look.
    pub visitors: Arc<VisitorConfig>,
    /// Origins whose pages may show the chat.
    pub chat_origins: Arc<[HeaderValue]>,
    /// Origins that scripts may call the API from.
    pub allowed_origins: Arc<[HeaderValue]>,
}

/// What `/metrics` needs.
#[derive(Clone)]
pub struct MetricsState {
    /// Demanded as a bearer token where set.
    pub token: Option<SecretString>,
    /// Served on a port of its own and not beside the API.
    pub apart: bool,
}
