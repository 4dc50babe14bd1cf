//! What accounts may do: roles, and whether they may do anything at all.
//!
//! One active admin always stays. Whoever changes roles or deletes an account
//! does so under one lock and looks at who is left before the commit, so of any
//! number that each would leave nobody one is refused.

use super::{AccountError, AccountService};
use crate::{
    domain::{
        audit::{Action, Actor, Event, access_state},
        id::UserId,
        user::{Role, Roles, User},
    },
    repositories::{Repositories as _, StoreError, Tx},
};

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

impl AccountService {
    /// Waits for whoever else changes who is an admin. First of all in a
    /// transaction: what was read before may have changed.
    pub(super) async fn lock_admins(&self, tx: &mut Tx) -> Result<(), StoreError> {
        tx.settings().lock(ADMINS, self.clock.now()).await
    }

    /// That who asks is an admin still: whoever waited may have been removed by the
    /// one before, or on another instance. With the lock of [`Self::lock_admins`].
    pub(super) async fn check_actor(tx: &mut Tx, by: &Actor) -> Result<(), AccountError> {
        // A command has no account.
        let Some(id) = by.id else { return Ok(()) };
        let user = tx.users().find(id).await?;
        let is_admin = |user: &User| user.is_active && user.roles.has(Role::Admin);
        if user.as_ref().is_some_and(is_admin) { Ok(()) } else { Err(AccountError::NotAdmin) }
    }

    /// That somebody is left in charge.
    pub(super) async fn check_admins(tx: &mut Tx) -> Result<(), AccountError> {
        if tx.users().count_admins().await? == 0 {
            return Err(AccountError::LastAdmin);
        }
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
        // All roles are written: one that is given meanwhile would be taken again.
        self.lock_admins(&mut tx).await?;
        Self::check_actor(&mut tx, by).await?;
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
        self.lock_admins(&mut tx).await?;
        Self::check_actor(&mut tx, by).await?;
        let old = tx.users().find(id).await?.ok_or(AccountError::NotFound)?;
        if let Some(roles) = change.roles {
            tx.users().set_roles(id, roles, now).await?;
        }
        if let Some(is_active) = change.is_active {
            tx.users().set_active(id, is_active, now).await?;
        }
        let user = tx.users().find(id).await?.ok_or(AccountError::NotFound)?;
        Self::check_admins(&mut tx).await?;
        let event = Event::new(Action::AccountAccessChanged, "account", id).changed(
            access_state(old.roles, old.is_active),
            access_state(user.roles, user.is_active),
        );
        self.audit.commit(tx, by, event).await?;
        self.cache.account_changed(id, user.version).await;
        Ok(user)
    }
}
