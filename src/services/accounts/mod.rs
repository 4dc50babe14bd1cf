//! Accounts: made, read, changed, exported, deleted.

mod export;

use std::{net::IpAddr, sync::Arc};

use secrecy::SecretString;
use serde_json::json;

pub use self::export::AccountExport;
use super::{
    AuditService, CredentialCache, Passwords, audit::Refused, gifts::Gifts,
    login_throttle::LoginThrottle, passwords::PasswordError,
};
/// What accounts can be listed by.
pub use crate::repositories::UserFilter;
use crate::{
    config::{AuthConfig, Registration},
    domain::{
        audit::{Action, Actor, Event, Origin, access_state, account_state},
        clock::SharedClock,
        id::{SessionId, UserId},
        limit::TierState,
        page::{Page, PageRequest},
        password::{self, PasswordRefusal},
        text::fold,
        user::{NewUser, Role, Roles, User},
    },
    repositories::{Database, Repositories as _, StoreError},
};

#[derive(Debug, thiserror::Error)]
pub enum AccountError {
    #[error("registration is closed")]
    RegistrationClosed,
    #[error("this username is taken")]
    UsernameTaken,
    #[error("this e-mail address is taken")]
    EmailTaken,
    #[error("the password {0}")]
    Password(#[from] PasswordRefusal),
    #[error("the current password is wrong")]
    WrongPassword,
    #[error("too many wrong passwords")]
    Throttled(TierState),
    #[error("this is the last admin")]
    LastAdmin,
    #[error("no such user")]
    NotFound,
    #[error(transparent)]
    Hashing(#[from] PasswordError),
    #[error(transparent)]
    Store(StoreError),
}

impl From<StoreError> for AccountError {
    fn from(error: StoreError) -> Self {
        if error.violates("users_username_key") {
            Self::UsernameTaken
        } else if error.violates("users_email_key") {
            Self::EmailTaken
        } else {
            Self::Store(error)
        }
    }
}

/// A change of one's own profile; `None` leaves a field as it is.
#[derive(Clone, Debug, Default)]
pub struct ProfileChange {
    pub email: Option<String>,
    /// `Some(None)` removes the name.
    pub full_name: Option<Option<String>>,
}

/// A change of what an account may do; `None` leaves a field as it is.
#[derive(Clone, Copy, Debug, Default)]
pub struct AccessChange {
    pub roles: Option<Roles>,
    /// A disabled account's credentials do not work.
    pub is_active: Option<bool>,
}

/// Who changes the set of admins waits here for whoever else does: two that
/// each leave the other in charge would leave nobody.
const ADMINS: &str = "admins";

pub struct AccountService {
    db: Database,
    clock: SharedClock,
    cache: CredentialCache,
    passwords: Arc<Passwords>,
    throttle: LoginThrottle,
    gifts: Gifts,
    audit: Arc<AuditService>,
    registration: Registration,
    password_min: usize,
}

/// What an [`AccountService`] is built from.
pub struct Parts<'a> {
    pub db: Database,
    pub clock: SharedClock,
    pub cache: CredentialCache,
    pub passwords: Arc<Passwords>,
    pub throttle: LoginThrottle,
    pub gifts: Gifts,
    pub audit: Arc<AuditService>,
    pub config: &'a AuthConfig,
}

impl AccountService {
    pub fn new(parts: Parts<'_>) -> Self {
        let Parts { db, clock, cache, passwords, throttle, gifts, audit, config } = parts;
        let (registration, password_min) = (config.registration, config.password_min_length);
        Self { db, clock, cache, passwords, throttle, gifts, audit, registration, password_min }
    }

    pub(super) fn audit(&self) -> &AuditService {
        &self.audit
    }

    /// Makes an account for whoever asks, where registration is open, with what
    /// new accounts begin with.
    pub async fn register(
        &self,
        origin: Origin,
        new: NewUser,
        password: &SecretString,
    ) -> Result<User, AccountError> {
        if self.registration == Registration::Closed {
            return Err(AccountError::RegistrationClosed);
        }
        let (user, hash) = self.prepare(new, password).await?;
        let mut tx = self.db.begin().await?;
        tx.users().insert(&user, &hash).await?;
        self.gifts.give(&mut tx, user.id, user.created_at).await?;
        let by = Actor::user(user.id, &user.username, origin);
        self.audit.commit(tx, &by, made(Action::AccountRegistered, &user)).await?;
        Ok(user)
    }

    /// Makes an account on an operator's word.
    pub async fn create(
        &self,
        by: &Actor,
        new: NewUser,
        password: &SecretString,
    ) -> Result<User, AccountError> {
        let (user, hash) = self.prepare(new, password).await?;
        let mut tx = self.db.begin().await?;
        tx.users().insert(&user, &hash).await?;
        self.audit.commit(tx, by, made(Action::AccountCreated, &user)).await?;
        Ok(user)
    }

    /// Checks the password, hashes it and fills in what a new account has.
    pub(super) async fn prepare(
        &self,
        new: NewUser,
        password: &SecretString,
    ) -> Result<(User, String), AccountError> {
        self.check_password(password)?;
        let hash = self.passwords.hash(password).await?;
        let now = self.clock.now();
        let NewUser { username, email, full_name, roles } = new;
        let user = User {
            id: UserId::new(now),
            username,
            email,
            full_name,
            roles,
            is_active: true,
            version: 1,
            created_at: now,
            updated_at: now,
        };
        Ok((user, hash))
    }

    pub async fn get(&self, id: UserId) -> Result<User, AccountError> {
        self.db.session().await?.users().find(id).await?.ok_or(AccountError::NotFound)
    }

    /// By username or e-mail address.
    pub async fn find(&self, login: &str) -> Result<User, AccountError> {
        let found = self.db.session().await?.users().find_by_login(&fold(login)).await?;
        found.map(|(user, _)| user).ok_or(AccountError::NotFound)
    }

    pub async fn list(
        &self,
        filter: &UserFilter,
        page: PageRequest,
    ) -> Result<Page<User>, AccountError> {
        Ok(self.db.session().await?.users().list(filter, page).await?)
    }

    pub async fn update(
        &self,
        by: &Actor,
        id: UserId,
        change: ProfileChange,
    ) -> Result<User, AccountError> {
        let now = self.clock.now();
        let mut tx = self.db.begin().await?;
        let user = tx.users().find(id).await?.ok_or(AccountError::NotFound)?;
        let before = account_state(&user);
        let email = change.email.unwrap_or(user.email);
        let full_name = change.full_name.unwrap_or(user.full_name);
        let updated = tx.users().update_profile(id, full_name.as_deref(), &email, now).await?;
        let updated = updated.ok_or(AccountError::NotFound)?;
        let event = Event::new(Action::AccountUpdated, "account", id);
        self.audit.commit(tx, by, event.changed(before, account_state(&updated))).await?;
        self.cache.account_changed(id, updated.version).await;
        Ok(updated)
    }

    /// Changes the password and ends every login but `keep`.
    pub async fn change_password(
        &self,
        by: &Actor,
        id: UserId,
        keep: SessionId,
        address: IpAddr,
        current: &SecretString,
        new: &SecretString,
    ) -> Result<(), AccountError> {
        self.confirm(id, address, current).await?;
        self.store_password(by, Action::PasswordChanged, id, Some(keep), new).await
    }

    /// Sets a password on an operator's word and ends every login.
    pub async fn set_password(
        &self,
        by: &Actor,
        id: UserId,
        new: &SecretString,
    ) -> Result<(), AccountError> {
        self.store_password(by, Action::PasswordSet, id, None, new).await
    }

    async fn store_password(
        &self,
        by: &Actor,
        action: Action,
        id: UserId,
        keep: Option<SessionId>,
        new: &SecretString,
    ) -> Result<(), AccountError> {
        self.check_password(new)?;
        let hash = self.passwords.hash(new).await?;
        let now = self.clock.now();
        let mut tx = self.db.begin().await?;
        let version =
            tx.users().set_password(id, &hash, now).await?.ok_or(AccountError::NotFound)?;
        let ended = tx.login_sessions().end_all(id, keep, now).await?;
        let event = Event::new(action, "account", id);
        self.audit.commit(tx, by, event.after(json!({ "ended_sessions": ended.len() }))).await?;
        self.cache.account_changed(id, version).await;
        self.cache.sessions_ended(&ended).await;
        Ok(())
    }

    /// Adds a role; adding it twice changes nothing.
    pub async fn grant_role(
        &self,
        by: &Actor,
        id: UserId,
        role: Role,
    ) -> Result<Roles, AccountError> {
        let now = self.clock.now();
        let mut tx = self.db.begin().await?;
        let user = tx.users().find(id).await?.ok_or(AccountError::NotFound)?;
        let roles = user.roles.with(role);
        let version = tx.users().set_roles(id, roles, now).await?.ok_or(AccountError::NotFound)?;
        let active = user.is_active;
        let event = Event::new(Action::AccountAccessChanged, "account", id)
            .changed(access_state(user.roles, active), access_state(roles, active));
        self.audit.commit(tx, by, event).await?;
        self.cache.account_changed(id, version).await;
        Ok(roles)
    }

    /// Changes roles, or disables or enables an account, whose credentials stop
    /// or start working with it. One active admin always stays.
    pub async fn change_access(
        &self,
        by: &Actor,
        id: UserId,
        change: AccessChange,
    ) -> Result<User, AccountError> {
        let now = self.clock.now();
        let mut tx = self.db.begin().await?;
        tx.settings().lock(ADMINS, now).await?;
        let old = tx.users().find(id).await?.ok_or(AccountError::NotFound)?;
        if let Some(roles) = change.roles {
            tx.users().set_roles(id, roles, now).await?;
        }
        if let Some(is_active) = change.is_active {
            tx.users().set_active(id, is_active, now).await?;
        }
        let user = tx.users().find(id).await?.ok_or(AccountError::NotFound)?;
        if tx.users().count_admins().await? == 0 {
            return Err(AccountError::LastAdmin);
        }
        let event = Event::new(Action::AccountAccessChanged, "account", id).changed(
            access_state(old.roles, old.is_active),
            access_state(user.roles, user.is_active),
        );
        self.audit.commit(tx, by, event).await?;
        self.cache.account_changed(id, user.version).await;
        Ok(user)
    }

    /// Deletes the account with its keys, passes and logins. Usage stays, under an id
    /// that leads nowhere. The last admin cannot go.
    pub async fn delete(
        &self,
        by: &Actor,
        id: UserId,
        address: IpAddr,
        password: &SecretString,
    ) -> Result<(), AccountError> {
        self.confirm(id, address, password).await?;
        let now = self.clock.now();
        let mut tx = self.db.begin().await?;
        tx.settings().lock(ADMINS, now).await?;
        let user = tx.users().find(id).await?.ok_or(AccountError::NotFound)?;
        let sessions = tx.login_sessions().end_all(id, None, now).await?;
        let keys = tx.api_keys().secrets_of_user(id).await?;
        let passes = tx.passes().hashes_of_user(id).await?;
        let version = tx.users().delete(id).await?.ok_or(AccountError::NotFound)?;
        if user.roles.has(Role::Admin) && tx.users().count_admins().await? == 0 {
            return Err(AccountError::LastAdmin);
        }
        let event = Event::new(Action::AccountDeleted, "account", id);
        self.audit.commit(tx, by, event.before(account_state(&user))).await?;
        self.cache.account_changed(id, version + 1).await;
        self.cache.sessions_ended(&sessions).await;
        for (hash, version) in keys {
            self.cache.key_changed(&[hash], version + 1).await;
        }
        for (hash, version) in passes {
            self.cache.pass_changed(&hash, version + 1).await;
        }
        Ok(())
    }

    async fn confirm(
        &self,
        id: UserId,
        address: IpAddr,
        password: &SecretString,
    ) -> Result<(), AccountError> {
        let refused = |why| self.audit.attempts().count(why, Some(id), address);
        let charged = self.throttle.charge_owner(id, address).await;
        let attempt = charged.map_err(|state| {
            refused(Refused::Throttled);
            AccountError::Throttled(state)
        })?;
        let hash = self.db.session().await?.users().password_hash(id).await?;
        let verdict = self.passwords.verify(password, hash.as_deref()).await?;
        if !verdict.matches {
            refused(Refused::Wrong);
            return Err(AccountError::WrongPassword);
        }
        self.throttle.give_back(&attempt).await;
        Ok(())
    }

    fn check_password(&self, password: &SecretString) -> Result<(), PasswordRefusal> {
        use secrecy::ExposeSecret as _;
        password::check(password.expose_secret(), self.password_min)
    }
}

/// A new account, as the log has it.
pub(super) fn made(action: Action, user: &User) -> Event {
    Event::new(action, "account", user.id).after(account_state(user))
}
