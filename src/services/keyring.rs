//! The keys that sign and verify our JWTs, and nothing about sessions.
//!
//! The header and the claims are parsed here, strictly, before any signature
//! is computed: the algorithm and the key come from configuration and `kid`,
//! never from what a token says about itself (RFC 8725).

use arc_swap::ArcSwap;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use chrono::{DateTime, TimeDelta, Utc};
use jsonwebtoken::{
    Algorithm as Alg, DecodingKey, EncodingKey, crypto,
    jwk::{Jwk, JwkSet, PublicKeyUse, ThumbprintHash},
};
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::claims::{Kind, Presentable, Registered, Signed};
use crate::config::{Algorithm, AuthConfig};

/// How far clocks may differ (RELIABILITY G-102).
pub const LEEWAY: TimeDelta = TimeDelta::seconds(30);
/// A token of ours is below 1 KiB.
const MAX_LEN: usize = 4096;

/// Only what we write ourselves: `jwk`, `jku`, `x5u`, `crit` and the like are
/// refused by being unknown.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    typ: String,
    alg: String,
    kid: String,
}

#[derive(Debug, thiserror::Error)]
pub enum KeyringError {
    #[error("{key}: {reason}")]
    BadKey { key: &'static str, reason: String },
}

/// A token that is not ours, not now, or not whole. Deliberately without a
/// reason: the caller learns nothing from it.
#[derive(Debug, thiserror::Error)]
#[error("the token is not valid")]
pub struct InvalidToken;

/// One signing key and any number of verifying ones, told apart by `kid`. They
/// can be exchanged while others sign and verify.
pub struct Keyring {
    issuer: String,
    audience: String,
    keys: ArcSwap<Keys>,
}

struct Keys {
    algorithm: Algorithm,
    signer: EncodingKey,
    /// The encoded header of each kind, in the order of [`Kind::ALL`].
    headers: [String; Kind::ALL.len()],
    verifiers: Vec<Verifier>,
}

struct Verifier {
    kid: String,
    key: DecodingKey,
    public: Option<Jwk>,
}

impl Keyring {
    /// `material` is the HS256 secret or the PEM private key.
    ///
    /// # Errors
    /// A PEM that is not a key of the configured algorithm, naming the setting.
    pub fn new(config: &AuthConfig, material: &SecretString) -> Result<Self, KeyringError> {
        Ok(Self {
            issuer: config.issuer.clone(),
            audience: config.audience.clone(),
            keys: ArcSwap::from_pointee(Keys::new(config, material)?),
        })
    }

    /// Signs and verifies with these keys from now on. A token whose key is no
    /// longer among them is refused at once.
    ///
    /// # Errors
    /// As [`Keyring::new`]; nothing has changed then.
    pub fn replace(
        &self,
        config: &AuthConfig,
        material: &SecretString,
    ) -> Result<(), KeyringError> {
        self.keys.store(Keys::new(config, material)?.into());
        Ok(())
    }

    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    pub fn audience(&self) -> &str {
        &self.audience
    }

    /// The compact form of `claims`, signed with the current key.
    pub fn sign<C: Signed>(&self, claims: &C) -> String {
        let keys = self.keys.load();
        let mut token = keys.headers[C::KIND as usize].clone();
        token.push('.');
        token.push_str(&encode(claims));
        let signature = crypto::sign(token.as_bytes(), &keys.signer, alg(keys.algorithm))
            .expect("the key was used once when it was read");
        token.push('.');
        token.push_str(&signature);
        token
    }

    /// The claims of a token that is ours, of the kind that is asked for, and
    /// valid at `now`, give or take [`LEEWAY`]. Whether its session still lives
    /// is not known here.
    pub fn verify<C: Presentable>(
        &self,
        token: &str,
        now: DateTime<Utc>,
    ) -> Result<C, InvalidToken> {
        if token.len() > MAX_LEN {
            return Err(InvalidToken);
        }
        let (message, signature) = token.rsplit_once('.').ok_or(InvalidToken)?;
        let (header, payload) = message.split_once('.').ok_or(InvalidToken)?;
        let header: Header = decode(header)?;
        let keys = self.keys.load();
        if header.typ != C::KIND.name() || header.alg != name(keys.algorithm) {
            return Err(InvalidToken);
        }
        let verifier = keys
            .verifiers
            .iter()
            .find(|verifier| verifier.kid == header.kid)
            .ok_or(InvalidToken)?;
        let genuine =
            crypto::verify(signature, message.as_bytes(), &verifier.key, alg(keys.algorithm));
        if !matches!(genuine, Ok(true)) {
            return Err(InvalidToken);
        }
        let claims: C = decode(payload)?;
        let Registered { issued_at, not_before, expires_at, issuer, audience } =
            claims.registered();
        let now = now.timestamp();
        let leeway = LEEWAY.num_seconds();
        let in_time = expires_at.saturating_add(leeway) > now
            && not_before <= now.saturating_add(leeway)
            && issued_at <= now.saturating_add(leeway);
        if !in_time || issuer != self.issuer || audience != self.audience {
            return Err(InvalidToken);
        }
        Ok(claims)
    }

    /// The public keys, for `/.well-known/jwks.json`; empty with HS256.
    pub fn jwks(&self) -> JwkSet {
        let keys = self.keys.load();
        let public = keys.verifiers.iter().filter_map(|verifier| verifier.public.clone());
        JwkSet { keys: public.collect() }
    }
}

impl Keys {
    fn new(config: &AuthConfig, material: &SecretString) -> Result<Self, KeyringError> {
        let (signer, current) = match config.algorithm {
            Algorithm::Hs256 => {
                let secret = material.expose_secret().as_bytes();
                (EncodingKey::from_secret(secret), Verifier::secret(secret))
            }
            Algorithm::Rs256 | Algorithm::EdDsa => private(config.algorithm, material)?,
        };
        let mut verifiers = vec![current];
        match config.algorithm {
            Algorithm::Hs256 => verifiers.extend(
                config
                    .previous_secret_keys
                    .iter()
                    .map(|secret| Verifier::secret(secret.expose_secret().as_bytes())),
            ),
            Algorithm::Rs256 | Algorithm::EdDsa => {
                for pem in &config.previous_public_keys {
                    verifiers.push(Verifier::public(config.algorithm, pem)?);
                }
            }
        }
        let headers = Kind::ALL.map(|kind| {
            encode(&Header {
                typ: kind.name().to_owned(),
                alg: name(config.algorithm).to_owned(),
                kid: verifiers[0].kid.clone(),
            })
        });
        Ok(Self { algorithm: config.algorithm, signer, headers, verifiers })
    }
}

impl Verifier {
    fn secret(secret: &[u8]) -> Self {
        let mut digest = Sha256::new_with_prefix(b"tollgate kid ");
        digest.update(secret);
        let kid = URL_SAFE_NO_PAD.encode(&digest.finalize()[..12]);
        Self { kid, key: DecodingKey::from_secret(secret), public: None }
    }

    fn public(algorithm: Algorithm, pem: &str) -> Result<Self, KeyringError> {
        let bad =
            |reason: String| KeyringError::BadKey { key: "AUTH_PREVIOUS_PUBLIC_KEYS", reason };
        let key = match algorithm {
            Algorithm::Rs256 => DecodingKey::from_rsa_pem(pem.as_bytes()),
            _ => DecodingKey::from_ed_pem(pem.as_bytes()),
        }
        .map_err(|error| bad(error.to_string()))?;
        let jwk = Jwk::from_decoding_key(&key, Some(alg(algorithm)))
            .map_err(|error| bad(error.to_string()))?;
        Ok(Self::from_jwk(jwk, key))
    }

    /// `kid` is the key's thumbprint (RFC 7638), so it follows the key and not
    /// its place in the configuration.
    fn from_jwk(mut jwk: Jwk, key: DecodingKey) -> Self {
        let kid = jwk.thumbprint(ThumbprintHash::SHA256).expect("an RSA or Ed25519 key has one");
        jwk.common.key_id = Some(kid.clone());
        jwk.common.public_key_use = Some(PublicKeyUse::Signature);
        Self { kid, key, public: Some(jwk) }
    }
}

fn private(
    algorithm: Algorithm,
    material: &SecretString,
) -> Result<(EncodingKey, Verifier), KeyringError> {
    let bad = |error: jsonwebtoken::errors::Error| KeyringError::BadKey {
        key: "AUTH_PRIVATE_KEY",
        reason: error.to_string(),
    };
    let pem = material.expose_secret().as_bytes();
    let signer = match algorithm {
        Algorithm::Rs256 => EncodingKey::from_rsa_pem(pem),
        _ => EncodingKey::from_ed_pem(pem),
    }
    .map_err(bad)?;
    let jwk = Jwk::from_encoding_key(&signer, alg(algorithm)).map_err(bad)?;
    let key = DecodingKey::from_jwk(&jwk).map_err(bad)?;
    // A key that cannot sign must be found at the start, not at a login.
    crypto::sign(b"probe", &signer, alg(algorithm)).map_err(bad)?;
    Ok((signer, Verifier::from_jwk(jwk, key)))
}

/// A fresh Ed25519 private key as PEM: PKCS#8 (RFC 8410, 7) around 32 random
/// bytes.
pub fn generate_ed25519_pem(seed: [u8; 32]) -> String {
    const PREFIX: [u8; 16] = [
        0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04,
        0x20,
    ];
    let der = [PREFIX.as_slice(), &seed].concat();
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    format!("-----BEGIN PRIVATE KEY-----\n{text}\n-----END PRIVATE KEY-----\n")
}

fn name(algorithm: Algorithm) -> &'static str {
    match algorithm {
        Algorithm::Hs256 => "HS256",
        Algorithm::Rs256 => "RS256",
        Algorithm::EdDsa => "EdDSA",
    }
}

fn alg(algorithm: Algorithm) -> Alg {
    match algorithm {
        Algorithm::Hs256 => Alg::HS256,
        Algorithm::Rs256 => Alg::RS256,
        Algorithm::EdDsa => Alg::EdDSA,
    }
}

fn encode(value: &impl Serialize) -> String {
    URL_SAFE_NO_PAD.encode(serde_json::to_vec(value).expect("plain fields serialize"))
}

fn decode<T: for<'de> Deserialize<'de>>(part: &str) -> Result<T, InvalidToken> {
    let bytes = URL_SAFE_NO_PAD.decode(part).map_err(|_| InvalidToken)?;
    serde_json::from_slice(&bytes).map_err(|_| InvalidToken)
}
