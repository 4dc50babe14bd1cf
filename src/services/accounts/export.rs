//! All of an account, for its owner.

use super::{AccountError, AccountService};
use crate::{
    domain::{
        api_key::ApiKey,
        audit::{Action, Actor, Event},
        id::UserId,
        ledger::Transaction,
        login::LoginSession,
        page::PageRequest,
        pass::Pass,
        user::User,
    },
    repositories::{KeyFilter, PassFilter, Repositories as _},
};

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

impl AccountService {
    /// Everything stored about the account but its usage, which
    /// `GET /usage` gives.
    pub async fn export(&self, by: &Actor, id: UserId) -> Result<AccountExport, AccountError> {
        // One snapshot: the balance is that of the transactions.
        let mut session = self.db.snapshot().await?;
        let user = session.users().find(id).await?.ok_or(AccountError::NotFound)?;
        let filter = KeyFilter { user_id: Some(id), ..KeyFilter::default() };
        let (mut sessions, mut api_keys) = (vec![], vec![]);
        let (mut transactions, mut passes) = (vec![], vec![]);
        let mut next = Some(PageRequest::FIRST);
        while let Some(page) = next {
            let part = session.login_sessions().list_live(id, self.clock.now(), page).await?;
            next = page.followed_by(part.next);
            sessions.extend(part.items);
        }
        next = Some(PageRequest::FIRST);
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
        drop(session);
        self.audit.note(by, Event::new(Action::AccountExported, "account", id)).await?;
        Ok(AccountExport { user, sessions, api_keys, balance_minor, transactions, passes })
    }
}
