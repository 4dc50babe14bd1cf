//! What a request is counted by.

use http::{HeaderMap, StatusCode, header};

use super::Arrival;
use crate::{
    domain::{origin::OriginHost, principal::Principal},
    services::{
        Services,
        limits::{Crowded, Scope},
    },
};

pub fn scope_of<'a>(
    principal: Option<&'a Principal>,
    arrival: &Arrival<'a>,
    origin: Option<OriginHost>,
) -> Scope<'a> {
    let upstream = &arrival.route.upstream.config;
    Scope { principal, address: arrival.client.address, upstream, origin }
}

/// The page that sends it; `None` where none is named clearly or counted.
pub fn page_of(services: &Services, headers: &HeaderMap) -> Option<OriginHost> {
    let mut origins = headers.get_all(header::ORIGIN).iter();
    let (origin, second) = (origins.next()?, origins.next());
    if second.is_some() { None } else { services.limits.origin_of(origin.as_bytes()) }
}

impl Crowded {
    /// Too many for the upstream is nobody's fault who is refused.
    pub fn status(&self) -> StatusCode {
        if self.of == "upstream" {
            StatusCode::SERVICE_UNAVAILABLE
        } else {
            StatusCode::TOO_MANY_REQUESTS
        }
    }
}
