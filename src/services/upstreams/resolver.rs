//! From names to addresses.

use std::{future::Future, io, net::SocketAddr, pin::Pin, sync::Arc};

/// The addresses of a name, while they are looked for.
pub type Lookup<'r> = Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>> + Send + 'r>>;

/// Looks names up. Whoever asks connects to what it was told and does not ask
/// a second time: the answer may have changed.
pub trait Resolver: Send + Sync {
    fn resolve<'r>(&'r self, host: &'r str, port: u16) -> Lookup<'r>;
}

pub type SharedResolver = Arc<dyn Resolver>;

/// As the system is configured.
pub struct SystemResolver;

impl Resolver for SystemResolver {
    fn resolve<'r>(&'r self, host: &'r str, port: u16) -> Lookup<'r> {
        Box::pin(async move { Ok(tokio::net::lookup_host((host, port)).await?.collect()) })
    }
}
