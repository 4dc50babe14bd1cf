//! The certificate that the main listener shows.

use std::path::PathBuf;

use super::reader::Reader;
use crate::server::check_certificate;

/// Where certificate and key are. Both are read again when they change, so what
/// is kept is the paths.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    pub cert: PathBuf,
    pub key: PathBuf,
}

/// `None` without TLS, and where something is wrong with it.
pub(super) fn files(reader: &mut Reader) -> Option<TlsFiles> {
    let path = |text: &str| Ok(PathBuf::from(text));
    let cert = reader.optional("SERVER_TLS_CERT", path);
    let key = reader.optional("SERVER_TLS_KEY", path);
    let files = match (cert, key) {
        (Some(cert), Some(key)) => TlsFiles { cert, key },
        (None, None) => return None,
        (Some(_), None) => {
            reader.refuse("SERVER_TLS_CERT", "expected SERVER_TLS_KEY with it");
            return None;
        }
        (None, Some(_)) => {
            reader.refuse("SERVER_TLS_KEY", "expected SERVER_TLS_CERT with it");
            return None;
        }
    };
    if let Err(error) = check_certificate(&files) {
        let name = if error.is_of_certificate() { "SERVER_TLS_CERT" } else { "SERVER_TLS_KEY" };
        reader.refuse(name, error.to_string());
        return None;
    }
    Some(files)
}
