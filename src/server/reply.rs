//! An answer on its way to the client, and those that refuse.

use axum::response::IntoResponse as _;
use http::{
    HeaderMap, HeaderValue, Response, StatusCode, Version,
    header::{ALLOW, CONNECTION, SEC_WEBSOCKET_VERSION},
};

use super::fault::Fault;
use crate::{
    api::error::ApiError,
    gateway::{
        self, GatewayError,
        tunnel::handshake::{self, BadRequest},
    },
};

/// Methods that are served; the answer to the others must list them.
const METHODS: HeaderValue =
    HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");
/// An answer before what all answers have in common.
#[expect(clippy::large_enum_variant, reason = "the gateway's is on the hot path")]
pub enum Answer {
    Api(axum::response::Response),
    Proxied(Response<gateway::Body>),
}

impl Answer {
    /// Ends the connection after a request that asked for a WebSocket and got
    /// none: what follows is no request.
    pub fn end_if(&mut self, asked: bool) {
        let status = match self {
            Self::Api(response) => response.status(),
            Self::Proxied(response) => response.status(),
        };
        if asked && status != StatusCode::SWITCHING_PROTOCOLS {
            self.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
    }

    pub fn headers_mut(&mut self) -> &mut HeaderMap {
        match self {
            Self::Api(response) => response.headers_mut(),
            Self::Proxied(response) => response.headers_mut(),
        }
    }
}

pub fn explained(error: GatewayError) -> axum::response::Response {
    let field = match &error {
        GatewayError::MethodNotAllowed { allow } => {
            HeaderValue::from_str(allow).ok().map(|allow| (ALLOW, allow))
        }
        // RFC 6455, 4.4.
        GatewayError::Handshake(BadRequest::Version) => {
            Some((SEC_WEBSOCKET_VERSION, HeaderValue::from_static(handshake::VERSION)))
        }
        _ => None,
    };
    let mut response = error.into_response();
    response.headers_mut().extend(field);
    response
}

pub fn refuse(fault: Fault, version: Version) -> Answer {
    let mut response = ApiError::from(fault).into_response();
    if fault == Fault::Method {
        response.headers_mut().insert(ALLOW, METHODS);
    }
    // What follows on a connection whose framing is in doubt may be a second,
    // smuggled request.
    if fault.is_about_framing() && version < Version::HTTP_2 {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    Answer::Api(response)
}
