//! Bearer credentials: shown once in clear, stored only as a digest.
//!
//! An API key is `tg_`, 43 base62 characters (256 random bits) and 6 base62
//! characters of CRC-32 over everything before them. The checksum is not a
//! secret: it lets a typing error, a truncated copy or a leaked-key scanner be
//! answered without a look-up (the form GitHub's tokens introduced).
//!
//! The text of a time pass is `tga_` and 64 characters of URL-safe base64: 44
//! random bytes and 4 of CRC-32 over them, for the same reason.

use std::{fmt, str::FromStr};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use rand::Rng;
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};

const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const API_KEY_PREFIX: &str = "tg_";
const REFRESH_PREFIX: &str = "tgr_";
const TICKET_PREFIX: &str = "tgt_";
const PASS_PREFIX: &str = "tga_";
const CHAT_PREFIX: &str = "tgc_";
/// In base64.
const PASS_SECRET_LEN: usize = 64;
const PASS_BYTES: usize = 48;
/// Of them random: 352 bits.
const PASS_RANDOM: usize = 44;
/// 62^43 > 2^256.
const SECRET_LEN: usize = 43;
/// 62^6 > 2^32.
const CHECK_LEN: usize = 6;
/// Characters of an API key that may be shown for recognition: `tg_` and five
/// of the secret, which leaves more than 226 bits unknown.
const DISPLAY_LEN: usize = 8;

/// A freshly made credential in clear text.
///
/// It is not `Clone` and its `Debug` hides the value, so the only way to leak
/// it is to call [`PlainToken::expose`] on purpose.
pub struct PlainToken(SecretString);

impl PlainToken {
    /// A new API key, `tg_…`.
    pub fn api_key(rng: &mut impl Rng) -> Self {
        Self::generate(API_KEY_PREFIX, rng)
    }

    /// A new refresh token, `tgr_…`, of the same strength.
    pub fn refresh(rng: &mut impl Rng) -> Self {
        Self::generate(REFRESH_PREFIX, rng)
    }

    /// A new ticket, `tgt_…`, of the same strength.
    pub fn ticket(rng: &mut impl Rng) -> Self {
        Self::generate(TICKET_PREFIX, rng)
    }

    /// What a new chat session is known by, `tgc_…`, of the same strength.
    pub fn chat(rng: &mut impl Rng) -> Self {
        Self::generate(CHAT_PREFIX, rng)
    }

    /// A new time pass, `tga_…`.
    pub fn pass(rng: &mut impl Rng) -> Self {
        let mut bits = [0u8; PASS_BYTES];
        let (random, check) = bits.split_at_mut(PASS_RANDOM);
        rng.fill_bytes(random);
        check.copy_from_slice(&crc32fast::hash(random).to_be_bytes());
        Self(format!("{PASS_PREFIX}{}", URL_SAFE_NO_PAD.encode(bits)).into())
    }

    /// A text that was a token before: unsealed, or of a form of its own.
    pub(crate) fn from_text(text: impl Into<SecretString>) -> Self {
        Self(text.into())
    }

    fn generate(prefix: &str, rng: &mut impl Rng) -> Self {
        let mut bits = [0u8; 32];
        rng.fill_bytes(&mut bits);
        let mut text = String::with_capacity(prefix.len() + SECRET_LEN + CHECK_LEN);
        text.push_str(prefix);
        push_base62(&mut text, bits);
        push_checksum(&mut text);
        Self(text.into())
    }

    pub fn hash(&self) -> TokenHash {
        TokenHash::digest(self.expose())
    }

    /// The leading characters, fit to be shown in a list.
    pub fn display_prefix(&self) -> String {
        self.expose().chars().take(DISPLAY_LEN).collect()
    }

    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

impl fmt::Debug for PlainToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PlainToken(***)")
    }
}

/// The SHA-256 of a token; the only form that reaches database, cache or log.
///
/// The token carries 256 random bits, so a fast hash is enough here; a
/// password needs argon2 instead.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TokenHash([u8; 32]);

impl TokenHash {
    /// The digest of a well-formed API key; `None` for anything else, so that
    /// a random header never costs a look-up.
    pub fn of_api_key(presented: &str) -> Option<Self> {
        Self::of(API_KEY_PREFIX, presented)
    }

    /// The digest of a well-formed refresh token; `None` for anything else.
    pub fn of_refresh(presented: &str) -> Option<Self> {
        Self::of(REFRESH_PREFIX, presented)
    }

    /// The digest of a well-formed ticket; `None` for anything else.
    pub fn of_ticket(presented: &str) -> Option<Self> {
        Self::of(TICKET_PREFIX, presented)
    }

    /// The digest of what a chat session is known by; `None` for anything else.
    pub fn of_chat(presented: &str) -> Option<Self> {
        Self::of(CHAT_PREFIX, presented)
    }

    /// The digest of a well-formed time pass; `None` for anything else.
    pub fn of_pass(presented: &str) -> Option<Self> {
        let secret = presented.strip_prefix(PASS_PREFIX)?;
        if secret.len() != PASS_SECRET_LEN {
            return None;
        }
        let mut bits = [0u8; PASS_BYTES];
        URL_SAFE_NO_PAD.decode_slice(secret, &mut bits).ok()?;
        let (random, check) = bits.split_at(PASS_RANDOM);
        (crc32fast::hash(random).to_be_bytes() == check).then(|| Self::digest(presented))
    }

    /// The digest of a voucher's code in its one spelling; see
    /// [`super::voucher::hash_code`].
    pub(super) fn of_voucher(code: &str) -> Self {
        Self::digest(code)
    }

    fn of(prefix: &str, presented: &str) -> Option<Self> {
        is_well_formed(prefix, presented).then(|| Self::digest(presented))
    }

    fn digest(plain: &str) -> Self {
        Self(Sha256::digest(plain.as_bytes()).into())
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// `None` unless `bytes` are exactly 32.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }
}

/// Lower-case hexadecimal, for cache keys.
impl fmt::Display for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl FromStr for TokenHash {
    type Err = MalformedHash;

    /// The inverse of `Display`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes).map_err(|_| MalformedHash)?;
        Ok(Self(bytes))
    }
}

/// Not 64 hexadecimal digits.
#[derive(Debug, thiserror::Error)]
#[error("not a token hash")]
pub struct MalformedHash;

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenHash(…)")
    }
}

/// Whether the text has the shape of an API key, good or bad: used to tell an
/// API key from a JWT in an `Authorization` field.
pub fn looks_like_api_key(presented: &str) -> bool {
    presented.starts_with(API_KEY_PREFIX)
}

fn is_well_formed(prefix: &str, presented: &str) -> bool {
    let Some(rest) = presented.strip_prefix(prefix) else { return false };
    if rest.len() != SECRET_LEN + CHECK_LEN || !rest.bytes().all(|b| b.is_ascii_alphanumeric()) {
        return false;
    }
    let (body, check) = presented.split_at(presented.len() - CHECK_LEN);
    checksum(body) == check.as_bytes()
}

/// Big-endian base conversion by repeated division; 43 digits always suffice.
fn push_base62(text: &mut String, mut number: [u8; 32]) {
    for _ in 0..SECRET_LEN {
        let mut remainder = 0u32;
        for byte in &mut number {
            let value = remainder << 8 | u32::from(*byte);
            *byte = u8::try_from(value / 62).expect("quotient of a digit by digit division");
            remainder = value % 62;
        }
        text.push(char::from(ALPHABET[remainder as usize]));
    }
}

fn push_checksum(text: &mut String) {
    let check = checksum(text);
    text.extend(check.map(char::from));
}

fn checksum(body: &str) -> [u8; CHECK_LEN] {
    let mut crc = crc32fast::hash(body.as_bytes());
    let mut digits = [b'0'; CHECK_LEN];
    for digit in digits.iter_mut().rev() {
        *digit = ALPHABET[(crc % 62) as usize];
        crc /= 62;
    }
    digits
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fresh() -> PlainToken {
        PlainToken::api_key(&mut rand::rng())
    }

    #[test]
    fn debug_output_never_shows_the_secret() {
        let token = fresh();
        let shown = format!("{token:?} {:?}", token.hash());
        assert!(!shown.contains(token.expose()));
        assert!(!shown.contains(&token.hash().to_string()));
    }

    #[test]
    fn a_fresh_key_is_recognised() {
        for _ in 0..1000 {
            let token = fresh();
            assert_eq!(token.expose().len(), 3 + 43 + 6);
            assert_eq!(TokenHash::of_api_key(token.expose()), Some(token.hash()));
        }
    }

    #[test]
    fn every_single_character_error_is_caught_before_hashing() {
        let token = fresh();
        for at in 0..token.expose().len() {
            let mut text = token.expose().as_bytes().to_vec();
            text[at] = if text[at] == b'x' { b'y' } else { b'x' };
            assert_eq!(TokenHash::of_api_key(std::str::from_utf8(&text).unwrap()), None);
        }
    }

    #[test]
    fn a_pass_is_64_characters_of_a_url_and_a_wrong_one_costs_no_look_up() {
        let token = PlainToken::pass(&mut rand::rng());
        assert_eq!(token.expose().len(), 4 + 64);
        assert_eq!(TokenHash::of_pass(token.expose()), Some(token.hash()));
        for text in [
            "",
            "tga_",
            &token.expose()[..67],
            &format!("{}A", token.expose()),
            &token.expose().replacen("tga_", "tgb_", 1),
            &format!("tga_{}", "+".repeat(64)),
            &format!("tga_{}", "x".repeat(64)),
            fresh().expose(),
        ] {
            assert_eq!(TokenHash::of_pass(text), None, "{text}");
        }
        for at in 4..68 {
            let mut text = token.expose().as_bytes().to_vec();
            text[at] = if text[at] == b'x' { b'y' } else { b'x' };
            assert_eq!(TokenHash::of_pass(std::str::from_utf8(&text).unwrap()), None);
        }
    }

    #[test]
    fn other_shapes_are_refused() {
        let token = fresh();
        let refresh = PlainToken::refresh(&mut rand::rng());
        for text in [
            "",
            "tg_",
            "sk_live_something",
            refresh.expose(),
            &token.expose()[..40],
            &format!("{} ", token.expose()),
            &format!("tg_{}", "é".repeat(25)),
        ] {
            assert_eq!(TokenHash::of_api_key(text), None, "{text}");
        }
    }
}
