//! Which secrets are refused as too weak. Cheap rules that catch samples,
//! typing and repetition; they cannot prove that a secret is random.

use jsonwebtoken::{Algorithm as Jwt, DecodingKey, EncodingKey};

use super::{Algorithm, reader::Parsed};

/// RFC 7518, 3.2: a key of HS256 is at least as long as the hash.
const SECRET_BYTES: usize = 32;
/// 32 random hexadecimal digits show fewer than 8 different ones about once in
/// 10^6 times; typing does it often.
const DISTINCT_BYTES: usize = 8;
/// Longest password that is hashed, bytes.
const PASSWORD_BYTES: usize = 1024;
const METRICS_TOKEN_BYTES: usize = 16;

/// Words of samples in documentation, tutorials and templates. By chance none
/// of them turns up in a random secret.
const SAMPLES: [&str; 18] = [
    "-bit-secret",
    "change-me",
    "change_me",
    "changeit",
    "changeme",
    "do-not-use",
    "example",
    "insecure",
    "my-secret",
    "my_secret",
    "mysecret",
    "password",
    "placeholder",
    "replace",
    "secret-key",
    "secret_key",
    "string-secret",
    "supersecret",
];

/// First guesses of whoever tries an admin's password, without what people put
/// behind to please a rule.
const GUESSED: [&str; 16] = [
    "admin",
    "administrator",
    "changeit",
    "changeme",
    "default",
    "iloveyou",
    "letmein",
    "passw0rd",
    "password",
    "passwort",
    "qwerty",
    "qwertz",
    "root",
    "secret",
    "tollgate",
    "welcome",
];

/// A secret that signs login tokens.
pub(super) fn signing_secret(text: &str) -> Parsed<()> {
    if text.len() < SECRET_BYTES {
        return Err(format!("expected at least {SECRET_BYTES} bytes; try openssl rand -base64 48"));
    }
    let lower = text.to_ascii_lowercase();
    let words = ["secret", "your-", "your_"];
    if SAMPLES.iter().any(|word| lower.contains(word)) || words.iter().any(|w| lower.starts_with(w))
    {
        return Err("expected random bytes, not a sample; try openssl rand -base64 48".to_owned());
    }
    if distinct(text.as_bytes()) < DISTINCT_BYTES || is_pattern(text.as_bytes()) {
        return Err("expected random bytes, not a pattern; try openssl rand -base64 48".to_owned());
    }
    Ok(())
}

/// The first admin's password. The rules for everybody else's are with the
/// accounts; this one must also not be what is guessed first.
pub(super) fn admin_password(least: usize) -> impl Fn(&str) -> Parsed<()> {
    move |text| {
        if text.chars().count() < least || text.len() > PASSWORD_BYTES {
            return Err(format!("expected {least} characters to {PASSWORD_BYTES} bytes"));
        }
        let lower = text.to_lowercase().replace(['-', '_', ' '], "");
        let word = lower.trim_matches(|c: char| !c.is_alphabetic());
        if word.is_empty() || GUESSED.contains(&word) || distinct(text.as_bytes()) < 4 {
            return Err("expected a password that is not among the first guesses".to_owned());
        }
        Ok(())
    }
}

pub(super) fn metrics_token(text: &str) -> Parsed<()> {
    let visible = text.bytes().all(|b| b.is_ascii_graphic());
    (visible && text.len() >= METRICS_TOKEN_BYTES && distinct(text.as_bytes()) >= 4)
        .then_some(())
        .ok_or_else(|| format!("expected {METRICS_TOKEN_BYTES} or more visible ASCII characters"))
}

/// Signs with the key, so that a key of the wrong kind or a damaged one stops
/// the start and not the first login.
pub(super) fn private_key(pem: &str, algorithm: Algorithm) -> Parsed<()> {
    let (key, jwt, expected) = match algorithm {
        Algorithm::Rs256 => (EncodingKey::from_rsa_pem(pem.as_bytes()), Jwt::RS256, "RSA"),
        _ => (EncodingKey::from_ed_pem(pem.as_bytes()), Jwt::EdDSA, "Ed25519"),
    };
    key.and_then(|key| jsonwebtoken::crypto::sign(b"", &key, jwt))
        .map(drop)
        .map_err(|_| format!("expected an {expected} private key, PEM (PKCS#8)"))
}

/// Splits concatenated PEM blocks; each must be an RSA or Ed25519 public key.
pub(super) fn public_keys(text: &str) -> Parsed<Vec<String>> {
    const BEGIN: &str = "-----BEGIN PUBLIC KEY-----";
    const END: &str = "-----END PUBLIC KEY-----";
    let mut keys = vec![];
    let mut rest = text;
    while let Some(at) = rest.find(BEGIN) {
        let end = rest[at..].find(END).map(|end| at + end + END.len());
        let Some(end) = end else { break };
        keys.push(format!("{}\n", &rest[at..end]));
        rest = &rest[end..];
    }
    let is_key = |pem: &String| {
        DecodingKey::from_rsa_pem(pem.as_bytes()).is_ok()
            || DecodingKey::from_ed_pem(pem.as_bytes()).is_ok()
    };
    let all_read = !keys.is_empty() && !rest.contains("-----");
    (all_read && keys.iter().all(is_key))
        .then_some(keys)
        .ok_or_else(|| "expected RSA or Ed25519 public keys, PEM, one after the other".to_owned())
}

fn distinct(bytes: &[u8]) -> usize {
    let mut seen = [false; 256];
    for byte in bytes {
        seen[usize::from(*byte)] = true;
    }
    seen.iter().filter(|seen| **seen).count()
}

/// The same piece over and over, or mostly neighbours of the alphabet and runs
/// of one character: so are 32 random hexadecimal digits about twice in 10^6 times.
fn is_pattern(bytes: &[u8]) -> bool {
    let repeats = |unit: usize| bytes.iter().zip(&bytes[unit..]).all(|(a, b)| a == b);
    let steps = bytes.windows(2).filter(|pair| pair[0].abs_diff(pair[1]) <= 1).count();
    (1..=bytes.len() / 2).any(repeats) || steps * 2 > bytes.len()
}

#[cfg(test)]
mod tests {
    use sha2::{Digest as _, Sha256};

    use super::*;

    #[test]
    fn weak_secrets_are_refused() {
        for text in [
            "",
            "short",
            "0123456789abcdef0123456789abcde",
            "changeme-changeme-changeme-changeme",
            "your-secret-key-here-make-it-long-enough",
            "a-string-secret-at-least-256-bits-long",
            "your-256-bit-secret-your-256-bit-secret",
            "dev-secret-key-change-in-production",
            "secretsecretsecretsecretsecretsecret",
            "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
            "0123456789abcdef0123456789abcdef",
            "abcdefghijklmnopqrstuvwxyz0123456789",
            "aaaaaaaabbbbbbbbccccccccddddddddeeeeeeeeffffffffgggggggghhhhhhhh",
            "1212121234123412341234123412341212",
            "abcdefgh12345678ijklmnop87654321",
        ] {
            assert!(signing_secret(text).is_err(), "{text}");
        }
    }

    #[test]
    fn random_secrets_are_accepted() {
        // The same in each run: a few in a million are refused after all.
        for number in 0..2000_u32 {
            let text = hex::encode(Sha256::digest(number.to_be_bytes()));
            assert_eq!(signing_secret(&text), Ok(()), "{text}");
            assert_eq!(signing_secret(&text[..32]), Ok(()), "{text}");
        }
    }

    #[test]
    fn first_guesses_are_refused_for_the_admin() {
        let check = admin_password(8);
        for text in
            ["admin123", "Password1!", "change-me", "12345678", "short", "Tollgate2024", "abababab"]
        {
            assert!(check(text).is_err(), "{text}");
        }
        for text in ["correct horse battery", "zK8#mmv2q", "ünïcödé-pâss"] {
            assert_eq!(check(text), Ok(()), "{text}");
        }
        assert!(check(&"aB3x".repeat(257)).is_err());
    }
}
