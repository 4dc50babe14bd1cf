//! Whether a proven caller may go through to an upstream, from where it is.

use std::net::IpAddr;

use crate::{
    config::UpstreamConfig,
    domain::{
        api_key::KeyRefusal,
        policy::{Policy, PolicyRefusal},
        principal::Principal,
    },
};

/// Why a good credential does not open this door.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DoorRefusal {
    #[error(transparent)]
    Policy(#[from] PolicyRefusal),
    /// The pass is bound to another upstream.
    #[error("the access token does not open this upstream")]
    Pass,
    /// The key is not for this place or upstream.
    #[error("the API key may not be used here")]
    Key(KeyRefusal),
}

/// `policy` is that of the upstream, or of the part of it that is asked for.
pub fn check(
    upstream: &UpstreamConfig,
    policy: &Policy,
    principal: &Principal,
    address: IpAddr,
    origin: Option<&str>,
) -> Result<(), DoorRefusal> {
    policy.check(principal)?;
    if principal.pass().is_some_and(|pass| !pass.opens(upstream.name)) {
        return Err(DoorRefusal::Pass);
    }
    let Some(key) = principal.key() else { return Ok(()) };
    key.check_place(address, origin)
        .and_then(|()| key.check_upstream(upstream.name))
        .map_err(DoorRefusal::Key)
}
