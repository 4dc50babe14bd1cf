//! Whether a proven caller may use an upstream from where it is, and what
//! begins when it does.

use chrono::{DateTime, Utc};
use http::{HeaderMap, header};

use super::GatewayError;
use crate::{
    config::UpstreamConfig,
    domain::{
        pass::Pass,
        policy::Policy,
        principal::{Principal, Proof},
    },
    server::client::ClientInfo,
    services::{
        Services,
        access::AccessError,
        door::{self, DoorRefusal},
    },
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

/// Begins the time of a pass; when it will be over.
pub async fn activate(
    services: &Services,
    principal: &Principal,
    pass: &Pass,
) -> Result<DateTime<Utc>, GatewayError> {
    let Proof::Pass(hash) = &principal.proof else { return Err(AccessError::Invalid.into()) };
    let begun = services.passes.activate(hash, pass.id).await?;
    // `None`: it was ended since we looked.
    Ok(begun.and_then(|pass| pass.expires_at()).ok_or(AccessError::Invalid)?)
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
