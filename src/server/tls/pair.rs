//! A certificate with its key, read from two PEM files.

use std::{fs, io, path::Path, sync::Arc};

use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};

use super::expiry;
use crate::config::TlsFiles;

/// By preference (RFC 7301).
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// What is shown to clients from now on.
pub struct Pair {
    pub config: Arc<ServerConfig>,
    /// Seconds since 1970; `None` where the certificate does not say it as usual.
    pub expires_at: Option<i64>,
}

/// Why a pair cannot be used. Nothing of the files' contents is in it.
#[derive(Debug, thiserror::Error)]
pub enum PairError {
    #[error("the certificate's file cannot be read: {0}")]
    CertificateFile(#[source] io::Error),
    #[error("expected a file of one or more certificates, PEM, the server's own first")]
    NoCertificate,
    #[error("the key's file cannot be read: {0}")]
    KeyFile(#[source] io::Error),
    #[error("expected a file with a private key, PEM, that is not encrypted")]
    NoKey,
    #[error("expected the key of the certificate: {0}")]
    Unfit(#[source] rustls::Error),
    #[error("the system has no random bytes: {0}")]
    Random(#[source] rustls::Error),
}

impl PairError {
    /// Whether it is about the certificate alone, and not about the key.
    pub fn is_of_certificate(&self) -> bool {
        matches!(self, Self::CertificateFile(_) | Self::NoCertificate)
    }
}

impl Pair {
    pub fn read(files: &TlsFiles) -> Result<Self, PairError> {
        let read = |path: &Path| fs::read(path);
        let pem = read(&files.cert).map_err(PairError::CertificateFile)?;
        let chain = CertificateDer::pem_slice_iter(&pem)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|_| PairError::NoCertificate)?;
        let expires_at = match chain.first() {
            Some(own) => expiry::of(own),
            None => return Err(PairError::NoCertificate),
        };
        let pem = read(&files.key).map_err(PairError::KeyFile)?;
        let key = PrivateKeyDer::from_pem_slice(&pem).map_err(|_| PairError::NoKey)?;

        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("the provider supports the default protocol versions")
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .map_err(PairError::Unfit)?;
        config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).into();
        // Sessions are kept by clients, so that workers share no lock for them.
        config.ticketer = ring::Ticketer::new().map_err(PairError::Random)?;
        Ok(Self { config: Arc::new(config), expires_at })
    }
}
