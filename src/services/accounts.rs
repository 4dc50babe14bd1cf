//! Accounts: made, read, changed, exported, deleted.

use std::{net::IpAddr, sync::Arc};

use secrecy::SecretString;

use super::{
    CredentialCache, Passwords, gifts::Gifts, login_throttle::LoginThrottle,
    passwords::PasswordError,
};
/// What accounts can be listed by.
pub use crate::repositories::UserFilter;
use crate::{
    config::{AuthConfig, Registration},
    domain::{
        api_key::ApiKey,
        clock::SharedClock,
        id::{SessionId, UserId},
        ledger::Transaction,
        limit::TierState,
        login::LoginSession,
        page::{Page, PageRequest},
        pass::Pass,
        password::{self, PasswordRefusal},
        text::fold,
        user::{NewUser, Role, Roles, User},
    },
    repositories::{Database, KeyFilter, PassFilter, Repositories as _, StoreError},
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

/// All that is stored about one person.
#[derive(Debug)]
pub struct AccountExport {
    pub user: User,
    pub sessions: Vec<LoginSession>,
    pub api_keys: Vec<ApiKey>,
    pub balance_minor: i64,
    pub transactions: Vec<Transaction>,
    /// Without their texts.
    pub passes: Vec<Pass>,
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
    registration: Registration,
    password_min: usize,
}

impl AccountService {
    pub fn new(
        db: Database,
        clock: SharedClock,
        cache: CredentialCache,
        passwords: Arc<Passwords>,
        throttle: LoginThrottle,
        gifts: Gifts,
        config: &AuthConfig,
    ) -> Self {
        let (registration, password_min) = (config.registration, config.password_min_length);
        Self { db, clock, cache, passwords, throttle, gifts, registration, password_min }
    }

    /// Makes an account for whoever asks, where registration is open, with what
    /// new accounts begin with.
    pub async fn register(
        &self,
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
        tx.commit().await?;
        Ok(user)
    }

    /// Makes an account on an operator's word.
    pub async fn create(
        &self,
        new: NewUser,
        password: &SecretString,
    ) -> Result<User, AccountError> {
        let (user, hash) = self.prepare(new, password).await?;
        let mut tx = self.db.begin().await?;
        tx.users().insert(&user, &hash).await?;
        tx.commit().await?;
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

    pub async fn update(&self, id: UserId, change: ProfileChange) -> Result<User, AccountError> {
        let now = self.clock.now();
        let mut tx = self.db.begin().await?;
        let user = tx.users().find(id).await?.ok_or(AccountError::NotFound)?;
        let email = change.email.unwrap_or(user.email);
        let full_name = change.full_name.unwrap_or(user.full_name);
        let updated = tx.users().update_profile(id, full_name.as_deref(), &email, now).await?;
        let updated = updated.ok_or(AccountError::NotFound)?;
        tx.commit().await?;
        self.cache.account_changed(id, updated.version).await;
        Ok(updated)
    }

    /// Changes the password and ends every login but `keep`.
    pub async fn change_password(
        &self,
        id: UserId,
        keep: SessionId,
        address: IpAddr,
        current: &SecretString,
        new: &SecretString,
    ) -> Result<(), AccountError> {
        self.confirm(id, address, current).await?;
        self.store_password(id, Some(keep), new).await
    }

    /// Sets a password on an operator's word and ends every login.
    pub async fn set_password(&self, id: UserId, new: &SecretString) -> Result<(), AccountError> {
        self.store_password(id, None, new).await
    }

    async fn store_password(
        &self,
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
        tx.commit().await?;
        self.cache.account_changed(id, version).await;
        self.cache.sessions_ended(&ended).await;
        Ok(())
    }

    /// Adds a role; adding it twice changes nothing.
    pub async fn grant_role(&self, id: UserId, role: Role) -> Result<Roles, AccountError> {
        let now = self.clock.now();
        let mut tx = self.db.begin().await?;
        let user = tx.users().find(id).await?.ok_or(AccountError::NotFound)?;
        let roles = user.roles.with(role);
        let version = tx.users().set_roles(id, roles, now).await?.ok_or(AccountError::NotFound)?;
        tx.commit().await?;
        self.cache.account_changed(id, version).await;
        Ok(roles)
    }

    /// Changes roles, or disables or enables an account, whose credentials stop
    /// or start working with it. One active admin always stays.
    pub async fn change_access(
        &self,
        id: UserId,
        change: AccessChange,
    ) -> Result<User, AccountError> {
        let now = self.clock.now();
        let mut tx = self.db.begin().await?;
        tx.settings().lock(ADMINS, now).await?;
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
        tx.commit().await?;
        self.cache.account_changed(id, user.version).await;
        Ok(user)
    }

    /// Everything stored about the account but its usage, which
    /// `GET /usage` gives.
    pub async fn export(&self, id: UserId) -> Result<AccountExport, AccountError> {
        // One snapshot: the balance is that of the transactions.
        let mut session = self.db.snapshot().await?;
        let user = session.users().find(id).await?.ok_or(AccountError::NotFound)?;
        let sessions = session.login_sessions().list_live(id, self.clock.now()).await?;
        let filter = KeyFilter { user_id: Some(id), ..KeyFilter::default() };
        let (mut api_keys, mut transactions, mut passes) = (vec![], vec![], vec![]);
        let mut next = Some(PageRequest::FIRST);
        while let Some(page) = next {
            let part = session.api_keys().list(&filter, page).await?;
            next = page.followed_by(part.next);
            api_keys.extend(part.items);
        }
        let balance_minor = session.ledger().balance(id).await?.unwrap_or(0);
        next = Some(PageRequest::FIRST);
        while let Some(page) = next {
            let part = session.ledger().list(id, page).await?;
            next = page.followed_by(part.next);
            transactions.extend(part.items);
        }
        let filter = PassFilter { user_id: Some(id), ..PassFilter::default() };
        next = Some(PageRequest::FIRST);
        while let Some(page) = next {
            let part = session.passes().list(&filter, self.clock.now(), page).await?;
            next = page.followed_by(part.next);
            passes.extend(part.items.into_iter().map(|(pass, _)| pass));
        }
        Ok(AccountExport { user, sessions, api_keys, balance_minor, transactions, passes })
    }

    /// Deletes the account with its keys, passes and logins. Usage stays, under an id
    /// that leads nowhere. The last admin cannot go.
    pub async fn delete(
        &self,
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
        tx.commit().await?;
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
        let attempt =
            self.throttle.charge_owner(id, address).await.map_err(AccountError::Throttled)?;
        let hash = self.db.session().await?.users().password_hash(id).await?;
        let verdict = self.passwords.verify(password, hash.as_deref()).await?;
        if !verdict.matches {
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
