//! Which subjects anybody can make up, and how subjects are spread.

use std::net::IpAddr;

use super::memory::SHARDS;
use crate::domain::{
    id::{ChatSessionId, UserId},
    limit::Subject,
    origin::OriginHost,
};

/// What anybody can make up is held in bounded room.
pub(super) fn is_transient(subject: &Subject) -> bool {
    !matches!(
        subject,
        Subject::User(_)
            | Subject::Key { .. }
            | Subject::Pass { .. }
            | Subject::Upstream(_)
            | Subject::UserAt { .. }
    )
}

/// Stands for all subjects of one kind that found no place of their own.
pub(super) fn overflow_of(subject: &Subject) -> Subject {
    const NOBODY: IpAddr = IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED);
    match subject {
        Subject::LoginPair { .. } => Subject::LoginPair { account: 0, address: NOBODY },
        Subject::LoginAddress(_) => Subject::LoginAddress(NOBODY),
        Subject::LoginAccount(_) => Subject::LoginAccount(0),
        Subject::Redeem(_) => Subject::Redeem(UserId::NIL),
        Subject::RedeemAddress(_) => Subject::RedeemAddress(NOBODY),
        Subject::Origin(_) => Subject::Origin(OriginHost::NONE),
        Subject::Chat(_) => Subject::Chat(ChatSessionId::NIL),
        Subject::Address(_)
        | Subject::User(_)
        | Subject::Key { .. }
        | Subject::Pass { .. }
        | Subject::Upstream(_)
        | Subject::UserAt { .. } => Subject::Address(NOBODY),
    }
}

/// From bits that differ between subjects; choosing them well only makes an
/// attacker wait for himself.
pub(in crate::cache) fn shard_of(subject: &Subject) -> usize {
    let of_uuid = |id: uuid::Uuid| id.as_bytes()[15];
    let of_address = |address: &IpAddr| match address {
        IpAddr::V4(v4) => v4.octets().into_iter().fold(0, |all, byte| all ^ byte),
        IpAddr::V6(v6) => v6.octets().into_iter().fold(0, |all, byte| all ^ byte),
    };
    let of_name = |name: &str| name.bytes().fold(0, |all: u8, b| all.rotate_left(3) ^ b);
    let bits = match subject {
        Subject::Address(address)
        | Subject::LoginAddress(address)
        | Subject::RedeemAddress(address) => of_address(address),
        Subject::User(id) | Subject::Redeem(id) => of_uuid(id.as_uuid()),
        Subject::Pass { id, .. } => of_uuid(id.as_uuid()),
        Subject::Key { id, .. } => of_uuid(id.as_uuid()),
        Subject::Chat(id) => of_uuid(id.as_uuid()),
        Subject::Upstream(name) => of_name(name),
        Subject::UserAt { user, upstream } => of_uuid(user.as_uuid()) ^ of_name(upstream),
        Subject::Origin(host) => host.digest().to_le_bytes()[0],
        Subject::LoginPair { account, address } => account.to_le_bytes()[0] ^ of_address(address),
        Subject::LoginAccount(account) => account.to_le_bytes()[0],
    };
    usize::from(bits ^ bits >> 4) % SHARDS
}
