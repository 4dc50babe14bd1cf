//! Amounts of money: whole minor units (cents) of the one currency.
//!
//! Never a fraction, never a float. The bounds keep every sum that the ledger
//! makes far below the largest 64-bit integer, so no addition can wrap.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// Most that one transaction moves: ten thousand million whole units of a
/// currency with two decimals.
pub const MAX_AMOUNT: i64 = 1_000_000_000_000;
/// Most that a wallet holds; the schema has the same bound.
pub const MAX_BALANCE: i64 = 1_000_000_000_000_000;

/// A positive amount of minor units, at most [`MAX_AMOUNT`].
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, sqlx::Type,
)]
#[serde(try_from = "i64")]
#[sqlx(transparent)]
pub struct Amount(i64);

/// The number is not an amount of money.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a whole number of minor units from 1 to {MAX_AMOUNT}")]
pub struct NoAmount;

impl Amount {
    /// `None` outside `1..=MAX_AMOUNT`.
    pub const fn new(minor: i64) -> Option<Self> {
        if 0 < minor && minor <= MAX_AMOUNT { Some(Self(minor)) } else { None }
    }

    /// Minor units.
    pub const fn minor(self) -> i64 {
        self.0
    }
}

impl TryFrom<i64> for Amount {
    type Error = NoAmount;

    fn try_from(minor: i64) -> Result<Self, NoAmount> {
        Self::new(minor).ok_or(NoAmount)
    }
}

impl FromStr for Amount {
    type Err = NoAmount;

    fn from_str(text: &str) -> Result<Self, NoAmount> {
        text.parse().ok().and_then(Self::new).ok_or(NoAmount)
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// The code of a currency (ISO 4217): three capital letters. Whether it exists
/// is the operator's business.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Currency([u8; 3]);

/// Not three letters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected the three letters of a currency, such as EUR")]
pub struct NoCurrency;

impl Currency {
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("three letters of ASCII")
    }
}

impl FromStr for Currency {
    type Err = NoCurrency;

    fn from_str(text: &str) -> Result<Self, NoCurrency> {
        let letters: [u8; 3] = text.as_bytes().try_into().map_err(|_| NoCurrency)?;
        if letters.iter().all(u8::is_ascii_alphabetic) {
            Ok(Self(letters.map(|letter| letter.to_ascii_uppercase())))
        } else {
            Err(NoCurrency)
        }
    }
}

impl fmt::Debug for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_amount_is_positive_whole_and_bounded() {
        for minor in [1, 1250, MAX_AMOUNT] {
            assert_eq!(Amount::try_from(minor).unwrap().minor(), minor);
        }
        for minor in [0, -1, MAX_AMOUNT + 1, i64::MAX, i64::MIN] {
            assert_eq!(Amount::try_from(minor), Err(NoAmount));
        }
        for text in ["1.5", "1e3", "\"5\"", "1e309", "9223372036854775808", "true", "null", "-3"] {
            assert!(serde_json::from_str::<Amount>(text).is_err(), "{text}");
        }
        assert_eq!(serde_json::from_str::<Amount>("7").unwrap().minor(), 7);
    }

    #[test]
    fn a_currency_is_three_letters() {
        assert_eq!("eur".parse::<Currency>().unwrap().as_str(), "EUR");
        for text in ["", "EU", "EURO", "€", "E1R", "E R"] {
            assert_eq!(text.parse::<Currency>(), Err(NoCurrency), "{text}");
        }
    }
}
