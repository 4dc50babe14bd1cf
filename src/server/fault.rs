//! Requests that are refused before anything looks at what they want.

use http::StatusCode;

use crate::gateway::path::AmbiguousPath;

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// None or several, malformed, or at odds with the request line.
    #[error("the request must name exactly one host")]
    Host,
    #[error("this host is not served here")]
    UntrustedHost,
    /// Where the body ends can be read in two ways.
    #[error("the length of the request body is not clear")]
    Framing,
    #[error("header field names may consist of letters, digits and hyphens")]
    HeaderName,
    #[error(transparent)]
    Path(#[from] AmbiguousPath),
    #[error("a credential must not be part of a URL")]
    CredentialInUrl,
    /// `CONNECT` and `TRACE`.
    #[error("this method is not supported")]
    Method,
    #[error("the URL is too long")]
    UriTooLong,
    /// A bug of ours; the cause is in the log.
    #[error("the request could not be processed")]
    Panicked,
    /// More is under way than can be served.
    #[error("too many requests at once; try again later")]
    Overloaded,
}

impl Fault {
    pub fn status(self) -> StatusCode {
        match self {
            Self::Host
            | Self::UntrustedHost
            | Self::Framing
            | Self::HeaderName
            | Self::Path(_)
            | Self::CredentialInUrl => StatusCode::BAD_REQUEST,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::UriTooLong => StatusCode::URI_TOO_LONG,
            Self::Panicked => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Overloaded => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// Whether the rest of the connection cannot be relied on either.
    pub fn is_about_framing(self) -> bool {
        matches!(self, Self::Host | Self::Framing | Self::HeaderName | Self::Method)
    }
}
