//! Vouchers: codes that an admin makes and somebody redeems.
//!
//! Passed on by hand and read out over telephones, so the alphabet has no two
//! characters that look alike (Crockford's base 32) and neither case nor dashes
//! matter. 80 random bits cannot be guessed at the rate that is allowed.

use chrono::{DateTime, Utc};
use rand::Rng;

use super::{
    id::{BatchId, UserId, VoucherId},
    token::{PlainToken, TokenHash},
};

/// Crockford's: without I, L, O and U.
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
/// Characters without dashes: 80 bits.
const CODE_LEN: usize = 16;
/// Characters between dashes.
const GROUP: usize = 4;

/// A voucher, without its code: that exists only as a digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Voucher {
    pub id: VoucherId,
    /// The first group of the code, for recognition.
    pub prefix: String,
    /// Vouchers that were made together.
    pub batch_id: BatchId,
    pub note: Option<String>,
    pub gift: Gift,
    /// It cannot be redeemed from this instant on.
    pub expires_at: Option<DateTime<Utc>>,
    pub max_uses: u32,
    pub max_uses_per_user: u32,
    pub uses: u32,
    /// The admin; `None`: from the command line.
    pub created_by: Option<UserId>,
    pub created_at: DateTime<Utc>,
    pub revoked_at: Option<DateTime<Utc>>,
}

/// What a voucher gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Gift {
    /// Minor units for the wallet.
    Balance(i64),
    Pass {
        duration_hours: u32,
        upstream: Option<String>,
    },
}

/// A new code, `XXXX-XXXX-XXXX-XXXX`.
pub fn generate_code(rng: &mut impl Rng) -> PlainToken {
    let mut bits = [0u8; 10];
    rng.fill_bytes(&mut bits);
    let mut number = bits.iter().fold(0u128, |number, byte| number << 8 | u128::from(*byte));
    let mut text = String::with_capacity(CODE_LEN + CODE_LEN / GROUP);
    for at in 0..CODE_LEN {
        if at > 0 && at % GROUP == 0 {
            text.push('-');
        }
        text.push(char::from(ALPHABET[(number % 32) as usize]));
        number /= 32;
    }
    PlainToken::from_text(text)
}

/// The digest by which a code is looked up, however it was typed; `None` for
/// what cannot be a code.
pub fn hash_code(typed: &str) -> Option<TokenHash> {
    let mut code = String::with_capacity(CODE_LEN);
    for c in typed.chars().filter(|c| *c != '-' && !c.is_whitespace()) {
        let c = match c.to_ascii_uppercase() {
            'O' => '0',
            'I' | 'L' => '1',
            other => other,
        };
        let known = u8::try_from(c).is_ok_and(|byte| ALPHABET.contains(&byte));
        if !known || code.len() == CODE_LEN {
            return None;
        }
        code.push(c);
    }
    (code.len() == CODE_LEN).then(|| TokenHash::of_voucher(&code))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_found_however_it_is_typed() {
        for _ in 0..200 {
            let code = generate_code(&mut rand::rng());
            let text = code.expose();
            assert_eq!(text.len(), 19, "{text}");
            let hash = hash_code(text);
            assert!(hash.is_some(), "{text}");
            for typed in [
                text.to_lowercase(),
                text.replace('-', ""),
                text.replace('-', " "),
                format!("  {text}\n"),
                text.replace('0', "o").replace('1', "l"),
                text.replace('1', "I"),
            ] {
                assert_eq!(hash_code(&typed), hash, "{typed}");
            }
        }
    }

    #[test]
    fn what_cannot_be_a_code_is_told_without_a_look_up() {
        for text in
            ["", "ABCD", "ABCD-EFGH-JKMN-PQR", "ABCD-EFGH-JKMN-PQRS-T", "ABCD-EFGH-JKMN-PQR!"]
        {
            assert!(hash_code(text).is_none(), "{text}");
        }
        assert!(hash_code(&"é".repeat(16)).is_none());
        assert!(hash_code("ABCD-EFGH-JKMN-PQRU").is_none());
    }
}
