//! Whether a proven caller may use an upstream from where it is.

use http::{HeaderMap, header};

use super::GatewayError;
use crate::{
    config::UpstreamConfig,
    domain::{policy::Policy, principal::Principal},
    server::client::ClientInfo,
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
    policy.check(principal)?;
    if principal.pass().is_some_and(|pass| !pass.opens(config.name)) {
        return Err(GatewayError::PassRefused);
    }
    let Some(key) = principal.key() else { return Ok(()) };
    let origin = headers.get(header::ORIGIN).and_then(|origin| origin.to_str().ok());
    key.check_place(client.address, origin)
        .and_then(|()| key.check_upstream(config.name))
        .map_err(GatewayError::KeyRefused)
}
