//! `/users/me`: my account.

use axum::{Json as JsonBody, extract::State, http::StatusCode, response::Response};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::routes;
use validator::Validate;

use super::{
    ApiRouter,
    actor::By,
    chat::{self, ChatExport},
    double_option::{self, DoubleOption},
    error::{ApiResult, Problem},
    extract::{Caller, Client, Json, LoginUser},
    idempotency::to_the_end,
    keys::KeyResponse,
    secret::Secret,
    sessions::SessionResponse,
    tokens::AccessTokenResponse,
    validate,
    wallet::{TransactionResponse, WalletResponse},
};
use crate::{
    api::AppState,
    domain::{
        id::{SessionId, UserId},
        money::Currency,
        user::{Role, User},
    },
    services::accounts::{AccountError, AccountExport, ProfileChange},
};

pub(super) fn router() -> ApiRouter {
    ApiRouter::new().routes(routes!(get_me, update_me, delete_me)).routes(routes!(export_me))
}

#[derive(Debug, Serialize, ToSchema)]
pub struct UserResponse {
    #[schema(value_type = uuid::Uuid)]
    id: UserId,
    #[schema(example = "ada")]
    username: String,
    #[schema(example = "ada@example.com")]
    email: String,
    #[schema(required = true, example = "Ada Lovelace")]
    full_name: Option<String>,
    #[schema(example = json!(["user"]))]
    roles: Vec<&'static str>,
    is_active: bool,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

impl From<User> for UserResponse {
    fn from(user: User) -> Self {
        let User {
            id,
            username,
            email,
            full_name,
            roles,
            is_active,
            version: _,
            created_at,
            updated_at,
        } = user;
        let roles = roles.iter().map(Role::as_str).collect();
        Self { id, username, email, full_name, roles, is_active, created_at, updated_at }
    }
}

#[derive(Debug, Deserialize, ToSchema, Validate)]
#[serde(deny_unknown_fields)]
pub struct UpdateMeRequest {
    #[schema(format = "email", example = "ada@example.com", min_length = 3, max_length = 254)]
    #[validate(custom(function = validate::email))]
    email: Option<String>,
    /// Null removes it.
    #[serde(default, deserialize_with = "double_option::some")]
    #[schema(value_type = Option<String>, example = "Ada King", max_length = 200)]
    #[validate(custom(function = validate::optional_person_name))]
    full_name: DoubleOption<String>,
}

#[derive(Debug, Deserialize, ToSchema, Validate)]
#[serde(deny_unknown_fields)]
pub struct DeleteMeRequest {
    #[schema(value_type = String, format = "password", example = "correct horse battery",
        max_length = 1024)]
    #[validate(custom(function = validate::presented_password))]
    password: Secret,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct ExportResponse {
    user: UserResponse,
    sessions: Vec<SessionResponse>,
    api_keys: Vec<KeyResponse>,
    wallet: WalletResponse,
    transactions: Vec<TransactionResponse>,
    /// Access tokens, without their texts.
    tokens: Vec<AccessTokenResponse>,
    /// Conversations that began while I was logged in. The last field: written as
    /// they are read.
    chats: Vec<ChatExport>,
}

impl ExportResponse {
    fn new(
        export: AccountExport,
        current: SessionId,
        currency: Currency,
        now: DateTime<Utc>,
    ) -> Self {
        let AccountExport { user, sessions, api_keys, balance_minor, transactions, passes } =
            export;
        let sessions =
            sessions.into_iter().map(|session| SessionResponse::new(session, current)).collect();
        let api_keys = api_keys.into_iter().map(KeyResponse::from).collect();
        Self {
            user: user.into(),
            sessions,
            api_keys,
            wallet: WalletResponse::new(balance_minor, currency),
            transactions: transactions.into_iter().map(TransactionResponse::from).collect(),
            tokens: passes.into_iter().map(|pass| AccessTokenResponse::new(pass, now)).collect(),
            chats: vec![],
        }
    }
}

/// Read my account.
#[utoipa::path(
    get,
    path = "/users/me",
    tag = "users",
    security(("jwt" = []), ("api_key" = [])),
    responses((status = OK, body = UserResponse)),
)]
async fn get_me(
    State(state): State<AppState>,
    Caller(principal): Caller,
) -> ApiResult<JsonBody<UserResponse>> {
    let user = state.services.accounts.get(principal.user_id()).await?;
    Ok(JsonBody(user.into()))
}

/// Change my e-mail address or name.
#[utoipa::path(
    patch,
    path = "/users/me",
    tag = "users",
    security(("jwt" = [])),
    request_body = UpdateMeRequest,
    responses(
        (status = OK, body = UserResponse),
        (status = CONFLICT, body = Problem, description = "`email_taken`"),
    ),
)]
async fn update_me(
    State(state): State<AppState>,
    user: LoginUser,
    By(by): By,
    Json(request): Json<UpdateMeRequest>,
) -> ApiResult<JsonBody<UserResponse>> {
    let UpdateMeRequest { email, full_name } = request;
    let change = ProfileChange { email, full_name };
    let user = state.services.accounts.update(&by, user.id(), change).await?;
    Ok(JsonBody(user.into()))
}

/// Everything stored about me, but my usage (`GET /usage`).
///
/// Sent as it is read: what ends properly is whole.
#[utoipa::path(
    get,
    path = "/users/me/export",
    tag = "users",
    security(("jwt" = [])),
    responses((status = OK, body = ExportResponse)),
)]
async fn export_me(
    State(state): State<AppState>,
    user: LoginUser,
    By(by): By,
) -> ApiResult<Response> {
    let export = state.services.accounts.export(&by, user.id()).await?;
    let (currency, now) = (state.services.wallet.currency(), state.services.clock.now());
    let account = ExportResponse::new(export, user.session, currency, now);
    let chats = state.services.chat.export_of(user.id());
    Ok(chat::file(chats, chat::Frame::around(&account)))
}

/// Delete my account with its keys, logins and chats. Cannot be undone.
#[utoipa::path(
    delete,
    path = "/users/me",
    tag = "users",
    security(("jwt" = [])),
    request_body = DeleteMeRequest,
    responses(
        (status = NO_CONTENT),
        (status = FORBIDDEN, body = Problem, description = "`wrong_password`"),
        (status = CONFLICT, body = Problem, description = "`last_admin`"),
    ),
)]
async fn delete_me(
    State(state): State<AppState>,
    user: LoginUser,
    By(by): By,
    Client(client): Client,
    Json(request): Json<DeleteMeRequest>,
) -> ApiResult<StatusCode> {
    let (services, id) = (state.services.clone(), user.id());
    // Who leaves at once must not keep what they had from ending.
    let password = request.password.0;
    to_the_end(async move {
        services.accounts.delete(&by, id, client.address, &password).await?;
        // With the account its conversations were condemned.
        services.chat.bury().await;
        Ok::<_, AccountError>(())
    })
    .await?;
    Ok(StatusCode::NO_CONTENT)
}
