//! Extractors. Each fails with [`ApiError`], so handlers never see a rejection.
//!
//! Who may call a route is written in its signature: [`Caller`] is any valid
//! credential but an access token, [`LoginUser`] a login, [`Moderator`] and [`Admin`] a login with
//! that role. A handler that forgot the check lacks the user it needs.

use std::time::Duration;

use axum::{
    body::Body,
    extract::{FromRequest, FromRequestParts, Request},
    http::{HeaderMap, header, request::Parts},
};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde::de::DeserializeOwned;
use validator::Validate;

use super::{
    error::{ApiError, ErrorCode, FieldProblem},
    middleware::Identity,
};
use crate::{
    api::AppState,
    domain::{
        id::{SessionId, UserId},
        principal::{Credential, Principal},
        user::Role,
    },
    server::ClientInfo,
    services::api_keys::Owner,
};

/// Most bytes of a JSON or form body (RELIABILITY, defaults).
const MAX_BODY: usize = 256 * 1024;
/// How long such a body may take to arrive whole.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// Deepest nesting of a JSON body.
const MAX_DEPTH: usize = 64;

/// A valid JSON body: parsed, then checked field by field.
pub struct Json<T>(pub T);

/// The same, from JSON or from a form.
pub struct JsonOrForm<T>(pub T);

/// The same, from a form alone.
pub struct Form<T>(pub T);

/// A JSON body that may be left out.
pub struct OptionalJson<T>(pub Option<T>);

/// Query parameters.
pub struct Query<T>(pub T);

/// Path parameters. One that cannot be parsed names nothing that exists: 404.
pub struct Path<T>(pub T);

/// A login or an API key. An access token opens the upstream: what it tells
/// about itself is `GET /tokens/status`, and nothing else here is its business.
pub struct Caller(pub Principal);

/// Any valid credential, an access token too.
pub struct Holder(pub Principal);

/// A person, proven by a login; API keys are refused, so that a leaked key
/// cannot make more keys.
pub struct LoginUser {
    pub principal: Principal,
    pub session: SessionId,
}

/// A login with the role `admin`.
pub struct Admin;

/// A login with the role `moderator` or `admin`: reads, changes nothing.
pub struct Moderator;

impl LoginUser {
    pub fn id(&self) -> UserId {
        self.principal.user_id()
    }

    pub fn is_admin(&self) -> bool {
        self.principal.has(Role::Admin)
    }

    /// Whose keys this user may change.
    pub fn owner(&self) -> Owner {
        if self.is_admin() { Owner::Anyone } else { Owner::User(self.id()) }
    }

    /// Whose keys this user may see.
    pub fn reader(&self) -> Owner {
        if self.principal.has(Role::Moderator) { Owner::Anyone } else { self.owner() }
    }
}

impl<T: DeserializeOwned + Validate, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        if media_type(request.headers()) != Media::Json {
            return Err(unsupported("application/json"));
        }
        let bytes = read(request.into_body()).await?;
        valid(from_json(&bytes)?).map(Self)
    }
}

impl<T: DeserializeOwned + Validate, S: Send + Sync> FromRequest<S> for JsonOrForm<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        let media = media_type(request.headers());
        let bytes = match media {
            Media::Json | Media::Form => read(request.into_body()).await?,
            Media::Other => {
                return Err(unsupported("application/json or application/x-www-form-urlencoded"));
            }
        };
        let value = match media {
            Media::Form => from_form(&bytes)?,
            Media::Json | Media::Other => from_json(&bytes)?,
        };
        valid(value).map(Self)
    }
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Form<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        if media_type(request.headers()) != Media::Form {
            return Err(unsupported("application/x-www-form-urlencoded"));
        }
        from_form(&read(request.into_body()).await?).map(Self)
    }
}

impl<T: DeserializeOwned + Validate, S: Send + Sync> FromRequest<S> for OptionalJson<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        let media = media_type(request.headers());
        let bytes = read(request.into_body()).await?;
        match media {
            _ if bytes.is_empty() => Ok(Self(None)),
            Media::Json if bytes.trim_ascii() == b"null" => Ok(Self(None)),
            Media::Json => from_json(&bytes).and_then(valid).map(Some).map(Self),
            Media::Form | Media::Other => Err(unsupported("application/json")),
        }
    }
}

impl<T: DeserializeOwned + Validate, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let query = parts.uri.query().unwrap_or_default();
        valid(from_form(query.as_bytes())?).map(Self)
    }
}

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let path = axum::extract::Path::<T>::from_request_parts(parts, state).await;
        path.map(|axum::extract::Path(value)| Self(value)).map_err(|_| ErrorCode::NotFound.into())
    }
}

/// Who asks, if anybody does.
pub(super) fn identity(parts: &Parts) -> Result<Principal, ApiError> {
    let identity = parts.extensions.get::<Identity>();
    identity
        .and_then(|Identity(principal)| principal.clone())
        .ok_or_else(|| ApiError::new(ErrorCode::Unauthenticated, "a credential is needed"))
}

impl FromRequestParts<AppState> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &AppState) -> Result<Self, ApiError> {
        let principal = identity(parts)?;
        if principal.pass().is_some() {
            return Err(login_required("an access token opens the upstream and nothing here"));
        }
        Ok(Self(principal))
    }
}

impl FromRequestParts<AppState> for Holder {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &AppState) -> Result<Self, ApiError> {
        identity(parts).map(Self)
    }
}

impl FromRequestParts<AppState> for LoginUser {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        let Caller(principal) = Caller::from_request_parts(parts, state).await?;
        match principal.credential {
            Credential::Login(session) => Ok(Self { principal, session }),
            Credential::ApiKey(_) | Credential::Pass(_) => {
                Err(login_required("this needs a login; an API key may not do it"))
            }
        }
    }
}

fn login_required(detail: &str) -> ApiError {
    ApiError::new(ErrorCode::LoginRequired, detail)
}

impl FromRequestParts<AppState> for Admin {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        with_role(parts, state, &[Role::Admin]).await.map(|()| Self)
    }
}

impl FromRequestParts<AppState> for Moderator {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        with_role(parts, state, &[Role::Moderator, Role::Admin]).await.map(|()| Self)
    }
}

async fn with_role(parts: &mut Parts, state: &AppState, roles: &[Role]) -> Result<(), ApiError> {
    let user = LoginUser::from_request_parts(parts, state).await?;
    if roles.iter().any(|role| user.principal.has(*role)) {
        Ok(())
    } else {
        Err(ApiError::new(ErrorCode::RoleRequired, "this needs another role"))
    }
}

/// The client, as the server determined it.
pub struct Client(pub ClientInfo);

impl<S: Send + Sync> FromRequestParts<S> for Client {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let info = parts.extensions.get::<ClientInfo>().cloned();
        Ok(Self(info.expect("the server adds it to every request")))
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Media {
    Json,
    Form,
    Other,
}

fn media_type(headers: &HeaderMap) -> Media {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let essence = value.unwrap_or_default().split(';').next().unwrap_or_default().trim();
    if essence.eq_ignore_ascii_case("application/json") {
        Media::Json
    } else if essence.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
        Media::Form
    } else {
        Media::Other
    }
}

fn unsupported(expected: &str) -> ApiError {
    ApiError::new(ErrorCode::UnsupportedMediaType, format!("the body must be {expected}"))
}

async fn read(body: Body) -> Result<bytes::Bytes, ApiError> {
    let collected = tokio::time::timeout(BODY_TIMEOUT, Limited::new(body, MAX_BODY).collect());
    let Ok(collected) = collected.await else {
        return Err(ApiError::new(ErrorCode::InvalidRequest, "the body took too long"));
    };
    match collected {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(ApiError::new(
            ErrorCode::BodyTooLarge,
            format!("the body must have at most {MAX_BODY} bytes"),
        )),
        Err(_) => Err(ApiError::new(ErrorCode::InvalidRequest, "the body ended too early")),
    }
}

fn from_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    if depth(bytes) > MAX_DEPTH {
        return Err(ApiError::new(ErrorCode::InvalidJson, "the body is nested too deeply"));
    }
    // serde would take an array of the fields' values, too.
    if !matches!(bytes.trim_ascii_start().first(), Some(b'{')) {
        serde_json::from_slice::<serde::de::IgnoredAny>(bytes)
            .map_err(|error| malformed(&error))?;
        return Err(ApiError::invalid_fields(vec![FieldProblem {
            field: "body".to_owned(),
            code: "type".to_owned(),
            message: "must be an object".to_owned(),
        }]));
    }
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let path = error.path().to_string();
        let inner = error.into_inner();
        if inner.is_data() { wrong_field(&path, &inner) } else { malformed(&inner) }
    })?;
    reader.end().map_err(|error| malformed(&error))?;
    Ok(value)
}

fn from_form<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    let pairs = form_urlencoded::parse(bytes);
    let reader = serde_urlencoded::Deserializer::new(pairs);
    serde_path_to_error::deserialize(reader).map_err(|error| {
        let path = error.path().to_string();
        wrong_field(&path, &error.into_inner())
    })
}

fn malformed(error: &serde_json::Error) -> ApiError {
    let detail = format!("the body is not JSON: line {}, column {}", error.line(), error.column());
    ApiError::new(ErrorCode::InvalidJson, detail)
}

/// serde's texts name fields and types, and the value that was found where it
/// did not fit. That may be a secret, so only what was expected is passed on.
fn wrong_field(path: &str, error: &dyn std::fmt::Display) -> ApiError {
    let field = if path == "." { "body" } else { path };
    let message = error.to_string();
    let message = message.split(" at line ").next().unwrap_or_default();
    let shows_value = message.starts_with("invalid ") || message.starts_with("unknown variant ");
    let message = match message.rfind("expected ") {
        Some(at) if shows_value => &message[at..],
        _ => message,
    };
    ApiError::invalid_fields(vec![FieldProblem {
        field: field.to_owned(),
        code: "type".to_owned(),
        message: message.chars().take(200).collect(),
    }])
}

fn valid<T: Validate>(value: T) -> Result<T, ApiError> {
    let Err(errors) = value.validate() else { return Ok(value) };
    let mut fields: Vec<FieldProblem> = errors
        .field_errors()
        .into_iter()
        .flat_map(|(field, errors)| errors.iter().map(move |error| (field.to_string(), error)))
        .map(|(field, error)| FieldProblem {
            field,
            code: error.code.to_string(),
            message: error.message.as_deref().unwrap_or("is not valid").to_owned(),
        })
        .collect();
    fields.sort_by(|a, b| a.field.cmp(&b.field));
    Err(ApiError::invalid_fields(fields))
}

/// How deeply the brackets outside strings are nested. Looked at before
/// parsing, since a parser's own limit is a limit on its stack.
fn depth(json: &[u8]) -> usize {
    let (mut depth, mut deepest, mut in_string, mut escaped) = (0usize, 0, false, false);
    for byte in json {
        match (in_string, byte) {
            (true, _) if escaped => escaped = false,
            (true, b'\\') => escaped = true,
            (_, b'"') => in_string = !in_string,
            (false, b'[' | b'{') => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            (false, b']' | b'}') => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}
