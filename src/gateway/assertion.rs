//! The signed identity for upstreams that want one.
//!
//! Signing costs more than everything else about a request, so one assertion
//! serves a principal for a third of its life, on each worker.

use std::{cell::RefCell, sync::Arc};

use chrono::{DateTime, TimeDelta, Utc};
use http::{HeaderMap, HeaderName, HeaderValue};
use uuid::Uuid;

use super::memo::Memo;
use crate::{
    domain::principal::{Account, Credential, Principal},
    services::{Keyring, assertion::assertion},
};

pub const X_TOLLGATE_ASSERTION: HeaderName = HeaderName::from_static("x-tollgate-assertion");

/// How long one is used.
const USED: TimeDelta = TimeDelta::seconds(20);

/// For whom and when an assertion was made.
struct Made {
    account: Arc<Account>,
    credential: Uuid,
    upstream: &'static str,
    at: DateTime<Utc>,
}

thread_local! {
    static MADE: RefCell<Memo<Made, HeaderValue>> = const { RefCell::new(Memo::new()) };
}

/// Sets the field of a proven identity.
pub fn set(
    headers: &mut HeaderMap,
    keyring: &Keyring,
    principal: &Principal,
    upstream: &'static str,
    now: DateTime<Utc>,
) {
    let account = &principal.account;
    let credential = credential_id(principal);
    let is_it = |made: &Made| {
        made.credential == credential
            && made.upstream == upstream
            && (Arc::ptr_eq(&made.account, account) || made.account == *account)
            && (made.at..made.at + USED).contains(&now)
    };
    let make = || {
        let text = assertion(keyring, principal, upstream, now);
        let mut value = HeaderValue::try_from(text).expect("a compact token is ASCII");
        value.set_sensitive(true);
        (Made { account: Arc::clone(account), credential, upstream, at: now }, value)
    };
    // Its last byte is random in every version of ours.
    let place = credential.as_bytes()[15];
    let value = MADE.with_borrow_mut(|memo| memo.get(place, is_it, make));
    headers.insert(X_TOLLGATE_ASSERTION, value);
}

fn credential_id(principal: &Principal) -> Uuid {
    match &principal.credential {
        Credential::Login(session) => session.as_uuid(),
        Credential::ApiKey(key) => key.id.as_uuid(),
        Credential::Pass(pass) => pass.id.as_uuid(),
    }
}
