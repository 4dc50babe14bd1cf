//! Whether a proven caller may use an upstream from where it is.

use http::{HeaderMap, header};

use super::GatewayError;
use crate::{
    config::UpstreamConfig,
    domain::{policy::Policy, principal::Principal},
    server::client::ClientInfo,
    services::door::{self, DoorRefusal},
};

/// Whether what was proven opens this upstream, and from here.
pub fn check_policy(
    config: &UpstreamConfig,
    policy: &Policy,
    principal: Option<&Principal>,
    client: &ClientInfo,
    headers: &HeaderMap,
) -> Result<(), GatewayError> {
    let Some(principal) = principal else { return Ok(()) };
    // Only a key asks for it.
    let origin = principal.key().and_then(|_| headers.get(header::ORIGIN)?.to_str().ok());
    door::check(config, policy, principal, client.address, origin).map_err(Into::into)
}

impl From<DoorRefusal> for GatewayError {
    fn from(refusal: DoorRefusal) -> Self {
        match refusal {
            DoorRefusal::Policy(refusal) => Self::Policy(refusal),
            DoorRefusal::Pass => Self::PassRefused,
            DoorRefusal::Key(refusal) => Self::KeyRefused(refusal),
        }
    }
}
