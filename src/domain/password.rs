//! What a password may be.
//!
//! Length and a list of common ones, no rules of composition and no silent
//! truncation (NIST SP 800-63B 3.1.1.2, OWASP ASVS 6.2).

use std::{borrow::Cow, collections::HashSet, sync::LazyLock};

use unicode_normalization::{UnicodeNormalization, is_nfc};

/// Fewest characters of a password; the configuration may ask for more.
pub const MIN_CHARS: usize = 8;
/// Most characters of a password. Enough for any passphrase; a bound, because
/// every byte of it is hashed.
pub const MAX_CHARS: usize = 128;

/// Why a password is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PasswordRefusal {
    #[error("must have at least {0} characters")]
    TooShort(usize),
    #[error("must have at most {MAX_CHARS} characters")]
    TooLong,
    #[error("is one of the most common passwords")]
    Common,
}

/// The form that is hashed: NFC, so that the same password typed on another
/// keyboard or system is the same bytes.
pub fn normalise(password: &str) -> Cow<'_, str> {
    if is_nfc(password) { Cow::Borrowed(password) } else { Cow::Owned(password.nfc().collect()) }
}

/// Whether a new password may be used. Existing ones are never checked again.
pub fn check(password: &str, min_chars: usize) -> Result<(), PasswordRefusal> {
    let password = normalise(password);
    let chars = password.chars().count();
    if chars < min_chars {
        return Err(PasswordRefusal::TooShort(min_chars));
    }
    if chars > MAX_CHARS {
        return Err(PasswordRefusal::TooLong);
    }
    if COMMON.contains(password.to_lowercase().as_str()) {
        return Err(PasswordRefusal::Common);
    }
    Ok(())
}

static COMMON: LazyLock<HashSet<&str>> = LazyLock::new(|| {
    const HEADER_LINES: usize = 3;
    include_str!("common_passwords.txt").lines().skip(HEADER_LINES).collect()
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_length_and_the_list() {
        let table = [
            ("1234567", Err(PasswordRefusal::TooShort(8))),
            ("PassWord", Err(PasswordRefusal::Common)),
            ("123456789", Err(PasswordRefusal::Common)),
            ("correct horse battery", Ok(())),
            ("ааааааа1", Ok(())),
            ("🦀🦀🦀🦀🦀🦀🦀", Err(PasswordRefusal::TooShort(8))),
        ];
        for (password, expected) in table {
            assert_eq!(check(password, 8), expected, "{password}");
        }
        assert_eq!(check(&"x".repeat(MAX_CHARS), 8), Ok(()));
        assert_eq!(check(&"x".repeat(MAX_CHARS + 1), 8), Err(PasswordRefusal::TooLong));
        // 128 characters of four bytes each are still accepted whole.
        assert_eq!(check(&"🦀".repeat(MAX_CHARS), 8), Ok(()));
    }

    #[test]
    fn composed_and_decomposed_are_one_password() {
        assert_eq!(normalise("e\u{301}tudiant"), normalise("étudiant"));
    }
}
