//! `/admin/users`: everybody's accounts.

use axum::{Json as JsonBody, extract::State};
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
        users::UserResponse,
        validate,
    },
    domain::{id::UserId, user::Role},
    services::accounts::{AccessChange, UserFilter},
};

pub(super) fn router() -> ApiRouter {
    ApiRouter::new().routes(routes!(list_users)).routes(routes!(get_user, update_user))
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
