//! Who asks, as an upstream is told.

use std::{cell::RefCell, fmt::Write, net::IpAddr, sync::Arc};

use http::{HeaderMap, HeaderName, HeaderValue};
use uuid::Uuid;

use super::memo::Memo;
use crate::domain::{
    id::{ApiKeyId, PassId},
    principal::{Account, Principal},
    user::Roles,
};

pub const X_USER_ID: HeaderName = HeaderName::from_static("x-user-id");
pub const X_USERNAME: HeaderName = HeaderName::from_static("x-username");
pub const X_ROLES: HeaderName = HeaderName::from_static("x-roles");
pub const X_KEY_ID: HeaderName = HeaderName::from_static("x-key-id");
pub const X_TOKEN_ID: HeaderName = HeaderName::from_static("x-token-id");

/// An account's fields.
#[derive(Clone, Debug)]
struct AccountFields {
    id: HeaderValue,
    username: HeaderValue,
    roles: HeaderValue,
}

thread_local! {
    /// By the copy of the account that the fields were made of: a changed
    /// account is another copy.
    static ACCOUNTS: RefCell<Memo<Arc<Account>, AccountFields>> =
        const { RefCell::new(Memo::new()) };
    static KEYS: RefCell<Memo<ApiKeyId, HeaderValue>> = const { RefCell::new(Memo::new()) };
    static PASSES: RefCell<Memo<PassId, HeaderValue>> = const { RefCell::new(Memo::new()) };
    static ADDRESSES: RefCell<Memo<IpAddr, HeaderValue>> = const { RefCell::new(Memo::new()) };
}

/// Sets the fields of a proven identity.
pub fn set(headers: &mut HeaderMap, principal: &Principal) {
    let account = &principal.account;
    let AccountFields { id, username, roles } = ACCOUNTS.with_borrow_mut(|memo| {
        let make = || (Arc::clone(account), AccountFields::of(account));
        memo.get(place_of(account.id.as_uuid()), |held| Arc::ptr_eq(held, account), make)
    });
    headers.insert(X_USER_ID, id);
    headers.insert(X_USERNAME, username);
    headers.insert(X_ROLES, roles);
    if let Some(key) = principal.key_id() {
        let value = KEYS.with_borrow_mut(|memo| {
            let make = || (key, uuid_value(key.as_uuid()));
            memo.get(place_of(key.as_uuid()), |held| *held == key, make)
        });
        headers.insert(X_KEY_ID, value);
    }
    if let Some(pass) = principal.pass_id() {
        let value = PASSES.with_borrow_mut(|memo| {
            let make = || (pass, uuid_value(pass.as_uuid()));
            memo.get(place_of(pass.as_uuid()), |held| *held == pass, make)
        });
        headers.insert(X_TOKEN_ID, value);
    }
}

/// A client's address as a field's value.
pub fn address_value(address: IpAddr) -> HeaderValue {
    let place = match address {
        IpAddr::V4(v4) => v4.octets()[3],
        // The last byte of the network: one client has many of the others.
        IpAddr::V6(v6) => v6.octets()[7],
    };
    let make = || {
        let mut text = String::with_capacity(39);
        write!(text, "{address}").expect("writing to a string");
        (address, HeaderValue::try_from(text).expect("an address is ASCII"))
    };
    ADDRESSES.with_borrow_mut(|memo| memo.get(place, |held| *held == address, make))
}

impl AccountFields {
    fn of(account: &Account) -> Self {
        let Account { id, username, roles, .. } = account;
        Self {
            id: uuid_value(id.as_uuid()),
            username: username_value(username),
            roles: roles_value(*roles),
        }
    }
}

/// The last byte is random in every version of ours.
fn place_of(id: Uuid) -> u8 {
    id.as_bytes()[15]
}

fn roles_value(roles: Roles) -> HeaderValue {
    HeaderValue::try_from(roles.to_string()).expect("role names are ASCII")
}

fn uuid_value(id: Uuid) -> HeaderValue {
    let mut text = Uuid::encode_buffer();
    HeaderValue::from_str(id.hyphenated().encode_lower(&mut text)).expect("a UUID is ASCII")
}

/// A username as it is if it is visible ASCII without `%`; else in UTF-8 with
/// every other byte percent-encoded (RFC 3986, 2.1), so that undoing the
/// escapes gives the name back in every case.
fn username_value(username: &str) -> HeaderValue {
    let plain = |byte: &u8| byte.is_ascii_graphic() && *byte != b'%';
    if username.as_bytes().iter().all(plain) {
        return HeaderValue::from_str(username).expect("visible ASCII");
    }
    let mut text = String::with_capacity(username.len() * 3);
    for byte in username.bytes() {
        if plain(&byte) {
            text.push(char::from(byte));
        } else {
            write!(text, "%{byte:02X}").expect("writing to a string");
        }
    }
    HeaderValue::try_from(text).expect("visible ASCII")
}
