//! `/auth`: accounts begin and logins come and go here.

use axum::{Json as JsonBody, extract::State, http::StatusCode};
use secrecy::ExposeSecret as _;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::routes;
use validator::Validate;

use super::{
    ApiRouter,
    actor::{By, Source},
    error::{ApiError, ApiResult, Problem},
    extract::{Client, Json, JsonOrForm, LoginUser},
    idempotency::to_the_end,
    secret::Secret,
    users::UserResponse,
    validate,
};
use crate::{
    api::AppState,
    domain::{
        id::UserId,
        user::{NewUser, Roles},
    },
    services::{
        accounts::AccountError,
        logins::{Device, TokenPair},
    },
};

/// Routes that need no credential.
pub(super) fn public() -> ApiRouter {
    ApiRouter::new()
        .routes(routes!(register))
        .routes(routes!(login))
        .routes(routes!(refresh_tokens))
}

/// Routes for somebody who is logged in.
pub(super) fn router() -> ApiRouter {
    ApiRouter::new()
        .routes(routes!(logout))
        .routes(routes!(logout_all))
        .routes(routes!(change_password))
}

#[derive(Debug, Deserialize, ToSchema, Validate)]
#[serde(deny_unknown_fields)]
pub struct RegisterRequest {
    #[schema(format = "email", example = "ada@example.com", min_length = 3, max_length = 254)]
    #[validate(custom(function = validate::email))]
    email: String,
    /// Letters, digits, `.`, `_` and `-`; unique without regard to case.
    #[schema(example = "ada", min_length = 3, max_length = 64, pattern = "^[A-Za-z0-9._-]+$")]
    #[validate(custom(function = validate::username))]
    username: String,
    /// Not one of the common ones.
    #[schema(value_type = String, format = "password", example = "correct horse battery",
        min_length = 8, max_length = 128)]
    #[validate(custom(function = validate::new_password))]
    password: Secret,
    #[schema(example = "Ada Lovelace", max_length = 200)]
    #[validate(custom(function = validate::person_name))]
    full_name: Option<String>,
}

#[derive(Debug, Deserialize, ToSchema, Validate)]
pub struct LoginRequest {
    /// Username or e-mail address.
    #[schema(example = "ada", max_length = 254)]
    #[validate(
        length(max = 254, message = "must have at most 254 characters"),
        custom(function = validate::no_nul)
    )]
    username: String,
    #[schema(value_type = String, format = "password", example = "correct horse battery",
        max_length = 1024)]
    #[validate(custom(function = validate::presented_password))]
    password: Secret,
}

#[derive(Debug, Deserialize, ToSchema, Validate)]
#[serde(deny_unknown_fields)]
pub struct RefreshRequest {
    #[schema(value_type = String, example = "tgr_0dPtW1…")]
    refresh_token: Secret,
}

#[derive(Debug, Deserialize, ToSchema, Validate)]
#[serde(deny_unknown_fields)]
pub struct ChangePasswordRequest {
    #[schema(value_type = String, format = "password", example = "correct horse battery",
        max_length = 1024)]
    #[validate(custom(function = validate::presented_password))]
    current_password: Secret,
    #[schema(value_type = String, format = "password", example = "staple battery horse",
        min_length = 8, max_length = 128)]
    #[validate(custom(function = validate::new_password))]
    new_password: Secret,
}

#[derive(Serialize, ToSchema)]
pub struct TokenResponse {
    /// The JWT, to be sent as `Authorization: Bearer`.
    #[schema(example = "eyJ0eXAiOiJhdCtqd3QiLCJhbGciOiJIUzI1NiJ9…")]
    access_token: String,
    /// The same as `access_token`, for clients of the older contract.
    #[schema(example = "eyJ0eXAiOiJhdCtqd3QiLCJhbGciOiJIUzI1NiJ9…")]
    token: String,
    #[schema(example = "Bearer")]
    token_type: &'static str,
    /// Seconds until the access token expires.
    #[schema(example = 3600)]
    expires_in: u64,
    /// Good for one exchange at `/auth/refresh`.
    #[schema(example = "tgr_0dPtW1…")]
    refresh_token: String,
    #[schema(value_type = uuid::Uuid)]
    user_id: UserId,
    user: UserResponse,
}

impl From<TokenPair> for TokenResponse {
    fn from(pair: TokenPair) -> Self {
        let TokenPair { access_token, expires_in, refresh_token, user } = pair;
        Self {
            token: access_token.clone(),
            access_token,
            token_type: "Bearer",
            expires_in,
            refresh_token: refresh_token.expose().to_owned(),
            user_id: user.id,
            user: user.into(),
        }
    }
}

/// Create an account.
#[utoipa::path(
    post,
    path = "/auth/register",
    tag = "auth",
    security(()),
    request_body = RegisterRequest,
    responses(
        (status = CREATED, body = UserResponse),
        (status = FORBIDDEN, body = Problem, description = "`registration_closed`"),
        (status = CONFLICT, body = Problem, description = "`username_taken`, `email_taken`"),
    ),
)]
async fn register(
    State(state): State<AppState>,
    Source(origin): Source,
    Json(request): Json<RegisterRequest>,
) -> ApiResult<(StatusCode, JsonBody<UserResponse>)> {
    let RegisterRequest { email, username, password, full_name } = request;
    let new = NewUser { username, email, full_name, roles: Roles::USER, is_active: true };
    let user = state.services.accounts.register(origin, new, &password.0).await?;
    Ok((StatusCode::CREATED, JsonBody(user.into())))
}

/// Log in with username or e-mail address.
///
/// As JSON or as a form. Wrong passwords are limited per account and address.
#[utoipa::path(
    post,
    path = "/auth/login",
    tag = "auth",
    security(()),
    request_body(content(
        (LoginRequest = "application/json"),
        (LoginRequest = "application/x-www-form-urlencoded"),
    )),
    responses(
        (status = OK, body = TokenResponse),
        (status = UNAUTHORIZED, body = Problem, description = "`invalid_login`"),
    ),
)]
async fn login(
    State(state): State<AppState>,
    device: Device,
    JsonOrForm(request): JsonOrForm<LoginRequest>,
) -> ApiResult<JsonBody<TokenResponse>> {
    let LoginRequest { username, password } = request;
    let pair = state.services.logins.login(&username, &password.0, &device).await?;
    Ok(JsonBody(pair.into()))
}

/// Exchange a refresh token for a new pair.
///
/// The old one is spent. Using it again ends the whole login session, unless
/// the new one was never used: then its answer is taken to be lost.
#[utoipa::path(
    post,
    path = "/auth/refresh",
    tag = "auth",
    security(()),
    request_body = RefreshRequest,
    responses(
        (status = OK, body = TokenResponse),
        (status = UNAUTHORIZED, body = Problem, description = "`invalid_refresh_token`"),
    ),
)]
async fn refresh_tokens(
    State(state): State<AppState>,
    device: Device,
    Json(request): Json<RefreshRequest>,
) -> ApiResult<JsonBody<TokenResponse>> {
    let presented = request.refresh_token.0.expose_secret();
    let pair = state.services.logins.refresh(presented, &device).await?;
    Ok(JsonBody(pair.into()))
}

/// End this login session, on every instance.
#[utoipa::path(
    post,
    path = "/auth/logout",
    tag = "auth",
    security(("jwt" = [])),
    responses((status = NO_CONTENT)),
)]
async fn logout(
    State(state): State<AppState>,
    user: LoginUser,
    By(by): By,
) -> ApiResult<StatusCode> {
    let logins = state.services.logins;
    to_the_end(async move { logins.log_out(&by, user.id(), user.session).await }).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// End all of my login sessions.
#[utoipa::path(
    post,
    path = "/auth/logout-all",
    tag = "auth",
    security(("jwt" = [])),
    responses((status = NO_CONTENT)),
)]
async fn logout_all(
    State(state): State<AppState>,
    user: LoginUser,
    By(by): By,
) -> ApiResult<StatusCode> {
    let logins = state.services.logins;
    to_the_end(async move { logins.end_all(&by, user.id()).await }).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Change my password; my other login sessions end.
#[utoipa::path(
    post,
    path = "/auth/password",
    tag = "auth",
    security(("jwt" = [])),
    request_body = ChangePasswordRequest,
    responses(
        (status = NO_CONTENT),
        (status = FORBIDDEN, body = Problem, description = "`wrong_password`"),
    ),
)]
async fn change_password(
    State(state): State<AppState>,
    user: LoginUser,
    By(by): By,
    Client(client): Client,
    Json(request): Json<ChangePasswordRequest>,
) -> ApiResult<StatusCode> {
    let ChangePasswordRequest { current_password: Secret(current), new_password: Secret(new) } =
        request;
    let accounts = state.services.accounts;
    to_the_end(async move {
        let (id, session, address) = (user.id(), user.session, client.address);
        let changed = accounts.change_password(&by, id, session, address, &current, &new).await;
        changed.map_err(|error| match error {
            AccountError::Password(refusal) => ApiError::password("new_password", refusal),
            error => error.into(),
        })
    })
    .await?;
    Ok(StatusCode::NO_CONTENT)
}
