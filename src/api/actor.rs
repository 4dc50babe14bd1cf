//! Who does what a request asks for, as the audit log has it.

use axum::{extract::FromRequestParts, http::request::Parts};

use super::{
    error::ApiError,
    extract::{self, Client},
};
use crate::{
    api::AppState,
    domain::audit::{Actor, Origin},
    services::logins::Device,
};

/// The caller of a route that needs a credential.
pub struct By(pub Actor);

/// From where a request comes whose caller is nobody yet.
pub struct Source(pub Origin);

impl FromRequestParts<AppState> for By {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        let Source(origin) = Source::from_request_parts(parts, state).await?;
        Ok(Self(Actor::of(&extract::identity(parts)?, origin)))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Source {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        Device::from_request_parts(parts, state).await.map(|device| Self(device.origin()))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Device {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Client(info) = Client::from_request_parts(parts, state).await?;
        let user_agent = parts.headers.get(axum::http::header::USER_AGENT);
        let user_agent = user_agent.map(|value| String::from_utf8_lossy(value.as_bytes()).into());
        let request_id = Some(info.request_id.to_string());
        Ok(Self { address: info.address, user_agent, request_id })
    }
}
