//! `Idempotency-Key`, and work that goes on when its client leaves.

use axum::{
    extract::FromRequestParts,
    http::{HeaderName, request::Parts},
};
use tokio::task;
use tracing::Instrument as _;
use utoipa::{
    IntoParams,
    openapi::{
        ObjectBuilder, Required, Type,
        path::{Parameter, ParameterBuilder, ParameterIn},
    },
};

use super::error::{ApiError, ApiResult, ErrorCode};
use crate::domain::idempotency::{IdempotencyKey, MAX_KEY};

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// The request's `Idempotency-Key`, where it has one.
pub struct OptionalKey(pub Option<IdempotencyKey>);

/// The request's `Idempotency-Key`; without one it is refused with 400
/// (draft-ietf-httpapi-idempotency-key-header, 2.7).
pub struct RequiredKey(pub IdempotencyKey);

impl<S: Send + Sync> FromRequestParts<S> for OptionalKey {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let mut values = parts.headers.get_all(IDEMPOTENCY_KEY).iter();
        let Some(value) = values.next() else { return Ok(Self(None)) };
        if values.next().is_some() {
            return Err(refused("Idempotency-Key may stand once"));
        }
        let key = IdempotencyKey::parse(value.to_str().unwrap_or_default());
        key.map(|key| Self(Some(key)))
            .map_err(|error| refused(&format!("Idempotency-Key: {error}")))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for RequiredKey {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let OptionalKey(key) = OptionalKey::from_request_parts(parts, state).await?;
        key.map(Self).ok_or_else(|| refused("this needs the field Idempotency-Key"))
    }
}

impl IntoParams for OptionalKey {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        vec![described(Required::False)]
    }
}

impl IntoParams for RequiredKey {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        vec![described(Required::True)]
    }
}

fn described(required: Required) -> Parameter {
    let schema = ObjectBuilder::new()
        .schema_type(Type::String)
        .min_length(Some(1))
        .max_length(Some(MAX_KEY))
        .pattern(Some("^[!-~]+$"));
    let description = "A name of your own for this request: repeated with it, the request \
        has no further effect and is answered as it was first.";
    ParameterBuilder::new()
        .name("Idempotency-Key")
        .parameter_in(ParameterIn::Header)
        .required(required)
        .description(Some(description))
        .schema(Some(schema))
        .example(Some("8e03978e-40d5-43dd-bc93-6894a57f9324".into()))
        .build()
}

fn refused(detail: &str) -> ApiError {
    ApiError::new(ErrorCode::InvalidIdempotencyKey, detail)
}

/// Runs `work` to its end, also when the client leaves meanwhile: what follows
/// a commit, such as telling the caches, must not be left out.
pub async fn to_the_end<T, E>(
    work: impl Future<Output = Result<T, E>> + Send + 'static,
) -> ApiResult<T>
where
    T: Send + 'static,
    E: Into<ApiError> + Send + 'static,
{
    match task::spawn(work.in_current_span()).await {
        Ok(done) => done.map_err(Into::into),
        Err(failed) => match failed.try_into_panic() {
            // Reported where panics of handlers are.
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(ErrorCode::Unavailable.into()),
        },
    }
}
