//! The end of an account.

use std::net::IpAddr;

use secrecy::SecretString;

use super::{AccountError, AccountService};
use crate::{
    domain::{
        audit::{Action, Actor, Event, account_state},
        id::UserId,
        user::Role,
    },
    repositories::Repositories as _,
};

impl AccountService {
    /// Deletes the account with its keys, passes and logins. Usage and ledger stay,
    /// under an id that leads nowhere. The last admin cannot go.
    pub async fn delete(
        &self,
        by: &Actor,
        id: UserId,
        address: IpAddr,
        password: &SecretString,
    ) -> Result<(), AccountError> {
        self.confirm(id, address, password).await?;
        self.end(by, id).await
    }

    /// The same on an operator's word; not his own account, for which he would be
    /// asked for his password.
    pub async fn remove(&self, by: &Actor, id: UserId) -> Result<(), AccountError> {
        if by.id == Some(id) {
            return Err(AccountError::OwnAccount);
        }
        self.end(by, id).await
    }

    async fn end(&self, by: &Actor, id: UserId) -> Result<(), AccountError> {
        let now = self.clock.now();
        let mut tx = self.db.begin().await?;
        self.lock_admins(&mut tx).await?;
        if by.id != Some(id) {
            Self::check_actor(&mut tx, by).await?;
        }
        let user = tx.users().find(id).await?.ok_or(AccountError::NotFound)?;
        let sessions = tx.login_sessions().end_all(id, None, now).await?;
        let keys = tx.api_keys().secrets_of_user(id).await?;
        let passes = tx.passes().hashes_of_user(id).await?;
        let version = tx.users().delete(id).await?.ok_or(AccountError::NotFound)?;
        if user.roles.has(Role::Admin) {
            Self::check_admins(&mut tx).await?;
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
}
