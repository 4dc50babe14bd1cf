//! Texts that must be readable again, but not by whoever gets hold of the
//! database: sealed with AES-256-GCM (NIST SP 800-38D).
//!
//! Each key is derived from its configured secret by HKDF-SHA-256 (RFC 5869),
//! and so are keys for other purposes, see [`Sealer::derive`].
//! What is sealed is bound to its row: moved to another it does not open. A
//! nonce is random; with 2^32 texts per key the chance that two share one is
//! still below 2^-32, the bound of SP 800-38D.

use ring::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    hkdf::{HKDF_SHA256, Prk, Salt},
    hmac::{HMAC_SHA256, Key as MacKey},
};
use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};

use crate::domain::pass::Sealed;

const PURPOSE: &[u8] = b"tollgate sealing 1";
/// Hexadecimal digits of a key's id.
const ID_LEN: usize = 16;

/// Seals with one key and opens with that one and older ones.
pub struct Sealer {
    current: Key,
    previous: Vec<Key>,
}

struct Key {
    id: String,
    prk: Prk,
    aead: LessSafeKey,
}

/// The text does not open: its key is not configured, or it is not what was
/// sealed for this row.
#[derive(Clone, Debug, thiserror::Error)]
#[error("a sealed text does not open; it was sealed with key {key}")]
pub struct CannotOpen {
    /// The id of the key that is needed; not a secret.
    pub key: String,
}

impl Sealer {
    pub fn new(current: &SecretString, previous: &[SecretString]) -> Self {
        Self { current: Key::derive(current), previous: previous.iter().map(Key::derive).collect() }
    }

    /// The id of the key that seals; not a secret.
    pub fn key_id(&self) -> &str {
        &self.current.id
    }

    /// A key for HMAC-SHA-256 that follows from the current secret and is good for
    /// this purpose alone.
    pub fn derive(&self, purpose: &'static str) -> MacKey {
        let info = [purpose.as_bytes()];
        self.current.prk.expand(&info, HMAC_SHA256).expect("one block of output").into()
    }

    /// The same of every secret, the current one first, each with the id of its
    /// key.
    pub fn derive_all(&self, purpose: &'static str) -> Vec<(String, MacKey)> {
        let info = [purpose.as_bytes()];
        let derive = |key: &Key| {
            let mac = key.prk.expand(&info, HMAC_SHA256).expect("one block of output").into();
            (key.id.clone(), mac)
        };
        std::iter::once(&self.current).chain(&self.previous).map(derive).collect()
    }

    /// Seals `text` for the row called `row`.
    pub fn seal(&self, row: &[u8], text: &str) -> Sealed {
        let mut nonce = [0; NONCE_LEN];
        rand::Rng::fill_bytes(&mut rand::rng(), &mut nonce);
        let mut sealed = text.as_bytes().to_vec();
        self.current
            .aead
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(row),
                &mut sealed,
            )
            .expect("a short text fits");
        let bytes = [&nonce[..], &sealed].concat();
        Sealed { key: self.current.id.clone(), bytes }
    }

    /// The text that was sealed for this row.
    pub fn open(&self, row: &[u8], sealed: &Sealed) -> Result<SecretString, CannotOpen> {
        self.try_open(row, sealed).ok_or_else(|| CannotOpen { key: sealed.key.clone() })
    }

    fn try_open(&self, row: &[u8], sealed: &Sealed) -> Option<SecretString> {
        let mut keys = std::iter::once(&self.current).chain(&self.previous);
        let key = keys.find(|key| key.id == sealed.key)?;
        let (nonce, body) = sealed.bytes.split_at_checked(NONCE_LEN)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut body = body.to_vec();
        let text = key.aead.open_in_place(nonce, Aad::from(row), &mut body).ok()?;
        std::str::from_utf8(text).ok().map(SecretString::from)
    }
}

impl Key {
    fn derive(secret: &SecretString) -> Self {
        let prk = Salt::new(HKDF_SHA256, &[]).extract(secret.expose_secret().as_bytes());
        let okm = prk.expand(&[PURPOSE], &AES_256_GCM).expect("one block of output");
        let aead = LessSafeKey::new(UnboundKey::from(okm));
        // Of the secret itself, through a hash of its own: tells keys apart and
        // nothing about them.
        let mut digest = Sha256::new();
        digest.update(b"tollgate key id 1");
        digest.update(secret.expose_secret());
        let mut id = hex::encode(digest.finalize());
        id.truncate(ID_LEN);
        Self { id, prk, aead }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &str = "an old secret of forty bytes or even more";
    const NEW: &str = "the new secret of forty bytes or even more";

    #[test]
    fn what_was_sealed_opens_for_its_row_and_no_other() {
        let keys = Sealer::new(&NEW.into(), &[]);
        let sealed = keys.seal(b"row 1", "tga_text");
        assert_eq!(keys.open(b"row 1", &sealed).unwrap().expose_secret(), "tga_text");
        assert!(keys.open(b"row 2", &sealed).is_err());
        assert!(!sealed.bytes.windows(4).any(|window| window == b"tga_"));
        for at in 0..sealed.bytes.len() {
            let mut changed = sealed.clone();
            changed.bytes[at] ^= 1;
            assert!(keys.open(b"row 1", &changed).is_err(), "byte {at}");
        }
        let short = Sealed { bytes: vec![0; 3], ..sealed };
        assert!(keys.open(b"row 1", &short).is_err());
    }

    #[test]
    fn the_same_text_is_never_sealed_alike() {
        let sealer = Sealer::new(&NEW.into(), &[]);
        assert_ne!(sealer.seal(b"row", "text").bytes, sealer.seal(b"row", "text").bytes);
    }

    #[test]
    fn older_keys_still_open_and_no_longer_seal() {
        let before = Sealer::new(&OLD.into(), &[]);
        let sealed = before.seal(b"row", "text");
        let after = Sealer::new(&NEW.into(), &[OLD.into()]);
        assert_eq!(after.open(b"row", &sealed).unwrap().expose_secret(), "text");
        assert_ne!(after.seal(b"row", "text").key, sealed.key);
        let gone = Sealer::new(&NEW.into(), &[]);
        assert_eq!(gone.open(b"row", &sealed).unwrap_err().key, before.key_id());
    }
}
