//! The first admin.
//!
//! Made once in the life of a database: the claim and the account are one
//! transaction, so of two instances that start together one wins and the
//! other's password never existed (RELIABILITY G-150). An admin deleted later
//! does not come back.

use rand::seq::IndexedRandom as _;
use secrecy::SecretString;

use super::accounts::{self, AccountError, AccountService};
use crate::{
    config::AdminConfig,
    domain::{
        audit::{Action, SYSTEM},
        clock::SharedClock,
        user::{NewUser, Role, Roles},
    },
    repositories::{Database, Repositories as _},
};

const CLAIM: &str = "first_admin";

/// The admin that was just made.
pub struct FirstAdmin {
    pub username: String,
    /// To be shown once; `None` when it was configured.
    pub generated_password: Option<SecretString>,
}

/// Makes the first admin unless one was ever made or an admin exists; `None`
/// then. Safe to call from any number of instances at once.
pub async fn first_admin(
    db: &Database,
    accounts: &AccountService,
    config: &AdminConfig,
    clock: &SharedClock,
) -> Result<Option<FirstAdmin>, AccountError> {
    {
        let mut session = db.session().await?;
        if session.settings().get(CLAIM).await?.is_some() || session.users().any_admin().await? {
            return Ok(None);
        }
    }
    let generated = config.password.is_none().then(|| accounts.generate_password());
    let password = config.password.as_ref().or(generated.as_ref()).expect("one of the two is set");
    let new = NewUser {
        username: config.username.clone(),
        email: config.email.clone(),
        full_name: None,
        roles: Roles::USER.with(Role::Admin),
        is_active: true,
    };
    // Hashed before the transaction: it must not be held open meanwhile.
    let (user, hash) = accounts.prepare(new, password).await?;

    let mut tx = db.begin().await?;
    if !tx.settings().claim(CLAIM, &user.id.to_string(), clock.now()).await? {
        return Ok(None);
    }
    tx.users().insert(&user, &hash).await?;
    let made = accounts::made(Action::AccountCreated, &user);
    accounts.audit().commit(tx, &SYSTEM, made).await?;
    Ok(Some(FirstAdmin { username: user.username, generated_password: generated }))
}

/// 24 characters, or `least` where that is more, without those that look alike:
/// 137 bits.
pub fn generate_password(least: usize) -> SecretString {
    const CHARS: usize = 24;
    const ALPHABET: &[u8] = b"23456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnpqrstuvwxyz";
    let mut rng = rand::rng();
    let text: String = (0..least.max(CHARS))
        .map(|_| char::from(*ALPHABET.choose(&mut rng).expect("the alphabet is not empty")))
        .collect();
    text.into()
}
