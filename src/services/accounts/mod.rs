//! Accounts: made, read, changed, exported, deleted.

mod access;
mod export;
mod removal;

use std::{net::IpAddr, sync::Arc};

use secrecy::SecretString;
use serde_json::json;

pub use self::{access::AccessChange, export::AccountExport};
use super::{
    AuditService, CredentialCache, Passwords, audit::Refused, bootstrap::generate_password,
    gifts::Gifts, login_throttle::LoginThrottle, passwords::PasswordError,
};
/// What accounts can be listed by.
pub use crate::repositories::UserFilter;
use crate::{
    config::{AuthConfig, Registration},
    domain::{
        audit::{Action, Actor, Event, Origin, account_state},
        clock::SharedClock,
        id::{SessionId, UserId},
        limit::TierState,
        page::{Page, PageRequest},
        password::{self, PasswordRefusal},
        text::fold,
        user::{NewUser, User},
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
    #[error("your account is no admin's any more")]
    NotAdmin,
    #[error("this is the last admin")]
    LastAdmin,
    #[error("this is your own account: DELETE /users/me, with your password, deletes it")]
    OwnAccount,
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
        self.lock_admins(&mut tx).await?;
        Self::check_actor(&mut tx, by).await?;
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
        let NewUser { username, email, full_name, roles, is_active } = new;
        let user = User {
            id: UserId::new(now),
            username,
            email,
            full_name,
            roles,
            is_active,
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

    /// A password that is to be shown once, as long as the settings ask for.
    pub fn generate_password(&self) -> SecretString {
        generate_password(self.password_min)
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
