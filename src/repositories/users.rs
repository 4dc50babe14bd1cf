//! Storage of accounts.
//!
//! Names and e-mail addresses are compared in their folded form
//! ([`fold`]), kept beside what the user wrote.

use chrono::{DateTime, Utc};
use sqlx::QueryBuilder;

use super::{DbConn, StoreResult, connection::on_conn, row};
use crate::domain::{
    id::UserId,
    page::{Page, PageRequest},
    principal::Account,
    text::fold,
    user::{Role, Roles, User},
};

pub struct Users<'c> {
    conn: DbConn<'c>,
}

/// Which accounts a list shows; all by default.
#[derive(Clone, Debug, Default)]
pub struct UserFilter {
    /// Part of the username or e-mail address, in any case.
    pub q: Option<String>,
    pub role: Option<Role>,
    pub is_active: Option<bool>,
}

#[derive(sqlx::FromRow)]
struct UserRow {
    id: UserId,
    username: String,
    email: String,
    full_name: Option<String>,
    roles: Roles,
    is_active: bool,
    version: i64,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

impl From<UserRow> for User {
    fn from(row: UserRow) -> Self {
        let UserRow {
            id,
            username,
            email,
            full_name,
            roles,
            is_active,
            version,
            created_at,
            updated_at,
        } = row;
        Self { id, username, email, full_name, roles, is_active, version, created_at, updated_at }
    }
}

#[derive(sqlx::FromRow)]
struct LoginRow {
    #[sqlx(flatten)]
    user: UserRow,
    password_hash: String,
}

#[derive(sqlx::FromRow)]
struct AccountRow {
    id: UserId,
    username: String,
    roles: Roles,
    is_active: bool,
    version: i64,
}

impl From<AccountRow> for Account {
    fn from(row: AccountRow) -> Self {
        let AccountRow { id, username, roles, is_active, version } = row;
        Self { version, id, username, roles, is_active }
    }
}

impl<'c> Users<'c> {
    pub(super) fn new(conn: DbConn<'c>) -> Self {
        Self { conn }
    }

    /// Violates `users_username_key` or `users_email_key` when taken.
    pub async fn insert(&mut self, user: &User, password_hash: &str) -> StoreResult<()> {
        const SQL: &str = "
            INSERT INTO users
                (id, username, username_key, email, email_key, full_name, password_hash, roles,
                 is_active, version, created_at, updated_at)
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)";

        on_conn!(self.conn, |conn| sqlx::query(SQL)
            .bind(user.id)
            .bind(&user.username)
            .bind(fold(&user.username))
            .bind(&user.email)
            .bind(fold(&user.email))
            .bind(&user.full_name)
            .bind(password_hash)
            .bind(user.roles)
            .bind(user.is_active)
            .bind(user.version)
            .bind(user.created_at)
            .bind(user.updated_at)
            .execute(conn)
            .await
            .map(drop))
    }

    pub async fn find(&mut self, id: UserId) -> StoreResult<Option<User>> {
        const SQL: &str = "
            SELECT id, username, email, full_name, roles, is_active, version, created_at,
                   updated_at
            FROM users
            WHERE id = $1";

        let row: Option<UserRow> =
            on_conn!(self.conn, |conn| sqlx::query_as(SQL).bind(id).fetch_optional(conn).await)?;
        Ok(row.map(User::from))
    }

    /// The account whose name or e-mail address folds to `folded`, with its
    /// password hash. Should one account's name be another's address, the name
    /// wins.
    pub async fn find_by_login(&mut self, folded: &str) -> StoreResult<Option<(User, String)>> {
        const SQL: &str = "
            SELECT id, username, email, full_name, roles, is_active, version, created_at,
                   updated_at, password_hash
            FROM users
            WHERE username_key = $1 OR email_key = $1
            ORDER BY username_key = $1 DESC
            LIMIT 1";

        let row: Option<LoginRow> = on_conn!(self.conn, |conn| sqlx::query_as(SQL)
            .bind(folded)
            .fetch_optional(conn)
            .await)?;
        Ok(row.map(|row| (row.user.into(), row.password_hash)))
    }

    pub async fn password_hash(&mut self, id: UserId) -> StoreResult<Option<String>> {
        const SQL: &str = "SELECT password_hash FROM users WHERE id = $1";

        on_conn!(self.conn, |conn| sqlx::query_scalar(SQL).bind(id).fetch_optional(conn).await)
    }

    /// What every request needs of an account.
    pub async fn account(&mut self, id: UserId) -> StoreResult<Option<Account>> {
        const SQL: &str = "SELECT id, username, roles, is_active, version FROM users WHERE id = $1";

        let row: Option<AccountRow> =
            on_conn!(self.conn, |conn| sqlx::query_as(SQL).bind(id).fetch_optional(conn).await)?;
        Ok(row.map(Account::from))
    }

    /// Sets name and address and returns the account as it is then. The
    /// version stays: nothing of this is in an [`Account`]. Violates
    /// `users_email_key` when the address is taken.
    pub async fn update_profile(
        &mut self,
        id: UserId,
        full_name: Option<&str>,
        email: &str,
        at: DateTime<Utc>,
    ) -> StoreResult<Option<User>> {
        const SQL: &str = "
            UPDATE users SET full_name = $2, email = $3, email_key = $4, updated_at = $5
            WHERE id = $1
            RETURNING id, username, email, full_name, roles, is_active, version, created_at,
                      updated_at";

        let row: Option<UserRow> = on_conn!(self.conn, |conn| sqlx::query_as(SQL)
            .bind(id)
            .bind(full_name)
            .bind(email)
            .bind(fold(email))
            .bind(at)
            .fetch_optional(conn)
            .await)?;
        Ok(row.map(User::from))
    }

    /// Sets the password's hash and returns the new version.
    pub async fn set_password(
        &mut self,
        id: UserId,
        hash: &str,
        at: DateTime<Utc>,
    ) -> StoreResult<Option<i64>> {
        const SQL: &str = "
            UPDATE users SET password_hash = $2, version = version + 1, updated_at = $3
            WHERE id = $1
            RETURNING version";

        on_conn!(self.conn, |conn| sqlx::query_scalar(SQL)
            .bind(id)
            .bind(hash)
            .bind(at)
            .fetch_optional(conn)
            .await)
    }

    /// Replaces the hash of an unchanged password by a stronger one or by
    /// itself; `false` when the password was changed meanwhile. It cannot be
    /// until the transaction ends. The version stays.
    pub async fn replace_hash(&mut self, id: UserId, old: &str, new: &str) -> StoreResult<bool> {
        const SQL: &str =
            "UPDATE users SET password_hash = $3 WHERE id = $1 AND password_hash = $2";

        on_conn!(self.conn, |conn| sqlx::query(SQL)
            .bind(id)
            .bind(old)
            .bind(new)
            .execute(conn)
            .await
            .map(|done| done.rows_affected() == 1))
    }

    /// Enables or disables the account and returns the new version.
    pub async fn set_active(
        &mut self,
        id: UserId,
        is_active: bool,
        at: DateTime<Utc>,
    ) -> StoreResult<Option<i64>> {
        const SQL: &str = "
            UPDATE users SET is_active = $2, version = version + 1, updated_at = $3
            WHERE id = $1
            RETURNING version";

        on_conn!(self.conn, |conn| sqlx::query_scalar(SQL)
            .bind(id)
            .bind(is_active)
            .bind(at)
            .fetch_optional(conn)
            .await)
    }

    /// Sets all roles and returns the new version.
    pub async fn set_roles(
        &mut self,
        id: UserId,
        roles: Roles,
        at: DateTime<Utc>,
    ) -> StoreResult<Option<i64>> {
        const SQL: &str = "
            UPDATE users SET roles = $2, version = version + 1, updated_at = $3
            WHERE id = $1
            RETURNING version";

        on_conn!(self.conn, |conn| sqlx::query_scalar(SQL)
            .bind(id)
            .bind(roles)
            .bind(at)
            .fetch_optional(conn)
            .await)
    }

    /// Whether there is an account.
    pub async fn any(&mut self) -> StoreResult<bool> {
        const SQL: &str = "SELECT EXISTS (SELECT 1 FROM users)";

        on_conn!(self.conn, |conn| sqlx::query_scalar(SQL).fetch_one(conn).await)
    }

    /// Removes the account with its sessions and keys and returns its last
    /// version. Its usage stays.
    pub async fn delete(&mut self, id: UserId) -> StoreResult<Option<i64>> {
        const SQL: &str = "DELETE FROM users WHERE id = $1 RETURNING version";

        on_conn!(self.conn, |conn| sqlx::query_scalar(SQL).bind(id).fetch_optional(conn).await)
    }

    pub async fn list(
        &mut self,
        filter: &UserFilter,
        page: PageRequest,
    ) -> StoreResult<Page<User>> {
        const SQL: &str = "
            SELECT id, username, email, full_name, roles, is_active, version, created_at,
                   updated_at
            FROM users
            WHERE TRUE";

        let pattern = filter.q.as_deref().map(|q| row::contains(&fold(q)));
        let rows: Vec<UserRow> = on_conn!(self.conn, |conn| {
            let mut sql = QueryBuilder::new(SQL);
            if let Some(pattern) = &pattern {
                sql.push(" AND (username_key LIKE ").push_bind(pattern).push(r" ESCAPE '\'");
                sql.push(" OR email_key LIKE ").push_bind(pattern).push(r" ESCAPE '\')");
            }
            match filter.role {
                // As the index has it.
                Some(Role::Admin) => _ = sql.push(" AND (roles & 4) <> 0"),
                Some(role) => {
                    sql.push(" AND (roles & ").push_bind(Roles::from_iter([role])).push(") <> 0");
                }
                None => {}
            }
            if let Some(is_active) = filter.is_active {
                sql.push(" AND is_active = ").push_bind(is_active);
            }
            if let Some(after) = page.after {
                sql.push(" AND id < ").push_bind(after.0);
            }
            sql.push(" ORDER BY id DESC LIMIT ").push_bind(row::limit(page));
            sql.build_query_as().fetch_all(conn).await
        })?;
        Ok(Page::from_rows(rows, page.limit, |row| row.id.as_uuid()).map(User::from))
    }

    /// How many accounts that are not disabled have the role `admin`.
    pub async fn count_admins(&mut self) -> StoreResult<i64> {
        const SQL: &str = "SELECT COUNT(*) FROM users WHERE (roles & 4) <> 0 AND is_active";

        on_conn!(self.conn, |conn| sqlx::query_scalar(SQL).fetch_one(conn).await)
    }

    /// Whether any account has the role `admin`, disabled ones included.
    pub async fn any_admin(&mut self) -> StoreResult<bool> {
        const SQL: &str = "SELECT EXISTS (SELECT 1 FROM users WHERE (roles & 4) <> 0)";

        on_conn!(self.conn, |conn| sqlx::query_scalar(SQL).fetch_one(conn).await)
    }
}
