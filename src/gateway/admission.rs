//! Whether a proven caller may use an upstream from where it is, and what
//! begins when it does.

use chrono::{DateTime, Utc};
use http::{HeaderMap, Method, header};

use super::GatewayError;
use crate::{
    config::UpstreamConfig,
    domain::{
        pass::Pass,
        policy::{Policy, read_leniently},
        principal::{Principal, Proof},
    },
    server::client::ClientInfo,
    services::{
        Services,
        access::AccessError,
        door::{self, DoorRefusal},
    },
};

/// What some servers take for the method instead.
const OVERRIDES: [&str; 3] = ["x-http-method-override", "x-http-method", "x-method-override"];

/// Which part of an upstream a path belongs to. Where a server that undoes more
/// escapes, or cuts parameters off, would read a path to which another policy
/// applies, there is no saying.
pub fn part_of(config: &UpstreamConfig, path: &str) -> Result<Option<usize>, GatewayError> {
    if config.paths.is_empty() {
        return Ok(None);
    }
    let part = config.part_of(path);
    if let Some(other) = read_leniently(path)
        && config.policy_at(config.part_of(&other)) != config.policy_at(part)
    {
        return Err(GatewayError::AmbiguousPath);
    }
    Ok(part)
}

/// Whether the policy lets this method through, and whatever the upstream may
/// take for it.
pub fn check_method(
    policy: &Policy,
    method: &Method,
    headers: &HeaderMap,
) -> Result<(), GatewayError> {
    if policy.methods.is_empty() {
        return Ok(());
    }
    let overrides = OVERRIDES.iter().flat_map(|name| headers.get_all(*name));
    let mut all = overrides.map(|value| value.to_str().unwrap_or_default().to_ascii_uppercase());
    if policy.allows_method(method.as_str()) && all.all(|method| policy.allows_method(&method)) {
        return Ok(());
    }
    Err(GatewayError::MethodNotAllowed { allow: policy.methods.join(", ") })
}

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
