//! `/admin/users`: everybody's accounts.

use axum::{Json as JsonBody, extract::State, http::StatusCode};
use secrecy::ExposeSecret as _;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::routes;
use validator::Validate;

use crate::{
    api::AppState,
    api::{
        ApiRouter,
        actor::By,
        error::{ApiResult, Problem},
        extract::{Admin, Json, Moderator, Path, Query},
        idempotency::to_the_end,
        page::{PageQuery, PageResponse},
        secret::Secret,
        users::UserResponse,
        validate,
    },
    domain::{
        id::UserId,
        user::{NewUser, Role, Roles},
    },
    services::accounts::{AccessChange, AccountError, UserFilter},
};

pub(super) fn router() -> ApiRouter {
    ApiRouter::new().routes(routes!(list_users, create_user)).routes(routes!(
        get_user,
        update_user,
        remove_user
    ))
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RoleName {
    User,
    Moderator,
    Admin,
}

impl From<RoleName> for Role {
    fn from(name: RoleName) -> Self {
        match name {
            RoleName::User => Self::User,
            RoleName::Moderator => Self::Moderator,
            RoleName::Admin => Self::Admin,
        }
    }
}

#[derive(Debug, Deserialize, IntoParams, Validate)]
#[into_params(parameter_in = Query)]
pub struct ListUsersQuery {
    /// Part of the username or e-mail address, without regard to case.
    #[param(example = "ada")]
    #[validate(
        length(max = 100, message = "must have at most 100 characters"),
        custom(function = validate::no_nul)
    )]
    q: Option<String>,
    #[param(inline)]
    role: Option<RoleName>,
    is_active: Option<bool>,
}

#[derive(Debug, Deserialize, ToSchema, Validate)]
#[serde(deny_unknown_fields)]
pub struct UpdateUserRequest {
    /// All roles that the account is to have.
    #[schema(inline, example = json!(["user", "moderator"]), max_items = 3)]
    #[validate(length(max = 3, message = "must have at most 3 roles"))]
    roles: Option<Vec<RoleName>>,
    /// False stops all of the account's credentials until it is set to true.
    is_active: Option<bool>,
}

#[derive(Debug, Deserialize, ToSchema, Validate)]
#[serde(deny_unknown_fields)]
pub struct CreateUserRequest {
    #[schema(format = "email", example = "ada@example.com", min_length = 3, max_length = 254)]
    #[validate(custom(function = validate::email))]
    email: String,
    /// Letters, digits, `.`, `_` and `-`; unique without regard to case.
    #[schema(example = "ada", min_length = 3, max_length = 64, pattern = "^[A-Za-z0-9._-]+$")]
    #[validate(custom(function = validate::username))]
    username: String,
    /// Left out, one is generated and shown in the answer, there alone.
    #[schema(value_type = Option<String>, format = "password", example = "correct horse battery",
        min_length = 8, max_length = 128)]
    #[validate(custom(function = validate::new_password))]
    password: Option<Secret>,
    #[schema(example = "Ada Lovelace", max_length = 200)]
    #[validate(custom(function = validate::person_name))]
    full_name: Option<String>,
    /// All roles that the account is to have. Default: `user`.
    #[schema(inline, example = json!(["user"]), max_items = 3)]
    #[validate(length(max = 3, message = "must have at most 3 roles"))]
    roles: Option<Vec<RoleName>>,
    /// False: nobody can log in to it until it is set to true. Default: true.
    #[schema(example = true)]
    is_active: Option<bool>,
}

/// An account that was just made.
#[derive(Serialize, ToSchema)]
pub struct CreatedUserResponse {
    #[serde(flatten)]
    user: UserResponse,
    /// The one that was generated, shown here once; null where one was given.
    #[schema(required = true, example = "kXw7mPq2Zt9RbN4cVh6YsD3f")]
    password: Option<String>,
}

impl From<ListUsersQuery> for UserFilter {
    fn from(query: ListUsersQuery) -> Self {
        let ListUsersQuery { q, role, is_active } = query;
        Self { q, role: role.map(Role::from), is_active }
    }
}

/// List accounts, newest first. Needs the role admin or moderator.
#[utoipa::path(
    get,
    path = "/admin/users",
    tag = "admin",
    security(("jwt" = [])),
    params(ListUsersQuery, PageQuery),
    responses((status = OK, body = PageResponse<UserResponse>)),
)]
async fn list_users(
    State(state): State<AppState>,
    _: Moderator,
    Query(query): Query<ListUsersQuery>,
    Query(page): Query<PageQuery>,
) -> ApiResult<JsonBody<PageResponse<UserResponse>>> {
    let page = state.services.accounts.list(&query.into(), page.request()?).await?;
    Ok(JsonBody(PageResponse::of(page, UserResponse::from)))
}

/// Read one account. Needs the role admin or moderator.
#[utoipa::path(
    get,
    path = "/admin/users/{id}",
    tag = "admin",
    security(("jwt" = [])),
    params(("id" = uuid::Uuid, Path)),
    responses((status = OK, body = UserResponse), (status = NOT_FOUND, body = Problem)),
)]
async fn get_user(
    State(state): State<AppState>,
    _: Moderator,
    Path(id): Path<UserId>,
) -> ApiResult<JsonBody<UserResponse>> {
    let user = state.services.accounts.get(id).await?;
    Ok(JsonBody(user.into()))
}

/// Change an account's roles, or disable or enable it. Needs the role admin.
#[utoipa::path(
    patch,
    path = "/admin/users/{id}",
    tag = "admin",
    security(("jwt" = [])),
    params(("id" = uuid::Uuid, Path)),
    request_body = UpdateUserRequest,
    responses(
        (status = OK, body = UserResponse),
        (status = NOT_FOUND, body = Problem),
        (status = CONFLICT, body = Problem, description = "`last_admin`"),
    ),
)]
async fn update_user(
    State(state): State<AppState>,
    _: Admin,
    By(by): By,
    Path(id): Path<UserId>,
    Json(request): Json<UpdateUserRequest>,
) -> ApiResult<JsonBody<UserResponse>> {
    let UpdateUserRequest { roles, is_active } = request;
    let roles = roles.map(|roles| roles.into_iter().map(Role::from).collect());
    let change = AccessChange { roles, is_active };
    let accounts = state.services.accounts.clone();
    let user = to_the_end(async move { accounts.change_access(&by, id, change).await }).await?;
    Ok(JsonBody(user.into()))
}

/// Make an account, whether or not registration is open. Needs the role admin.
///
/// It begins with nothing: what is given to those who register is not given here.
#[utoipa::path(
    post,
    path = "/admin/users",
    tag = "admin",
    security(("jwt" = [])),
    request_body = CreateUserRequest,
    responses(
        (status = CREATED, body = CreatedUserResponse),
        (status = CONFLICT, body = Problem, description = "`username_taken`, `email_taken`"),
    ),
)]
async fn create_user(
    State(state): State<AppState>,
    _: Admin,
    By(by): By,
    Json(request): Json<CreateUserRequest>,
) -> ApiResult<(StatusCode, JsonBody<CreatedUserResponse>)> {
    let CreateUserRequest { email, username, password, full_name, roles, is_active } = request;
    let roles = roles.map_or(Roles::USER, |roles| roles.into_iter().map(Role::from).collect());
    let new = NewUser { username, email, full_name, roles, is_active: is_active.unwrap_or(true) };
    let accounts = state.services.accounts.clone();
    let shown = password.is_none();
    let password = password.map_or_else(|| accounts.generate_password(), |given| given.0);
    let text = password.clone();
    let user = to_the_end(async move { accounts.create(&by, new, &password).await }).await?;
    let password = shown.then(|| text.expose_secret().to_owned());
    Ok((StatusCode::CREATED, JsonBody(CreatedUserResponse { user: user.into(), password })))
}

/// Delete an account with its keys, access tokens, logins and chats; all of them
/// stop working on every instance. Cannot be undone. Needs the role admin.
///
/// What was used and paid stays on record under its id.
#[utoipa::path(
    delete,
    path = "/admin/users/{id}",
    tag = "admin",
    security(("jwt" = [])),
    params(("id" = uuid::Uuid, Path)),
    responses(
        (status = NO_CONTENT),
        (status = NOT_FOUND, body = Problem),
        (
            status = CONFLICT,
            body = Problem,
            description = "`own_account`: `DELETE /users/me` does that; `last_admin`",
        ),
    ),
)]
async fn remove_user(
    State(state): State<AppState>,
    _: Admin,
    By(by): By,
    Path(id): Path<UserId>,
) -> ApiResult<StatusCode> {
    let services = state.services.clone();
    to_the_end(async move {
        services.accounts.remove(&by, id).await?;
        // With the account its conversations were condemned.
        services.chat.bury().await;
        Ok::<_, AccountError>(())
    })
    .await?;
    Ok(StatusCode::NO_CONTENT)
}
