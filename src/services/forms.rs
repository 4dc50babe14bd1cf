//! Proof that a form which is sent came from a page of ours, to this browser, a
//! short while ago (RELIABILITY G-97).
//!
//! The page sets a random cookie and puts into the form an HMAC over it, over
//! what the form is for and over the time until which it may be sent. Another
//! site can have a form sent, but knows neither.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use chrono::{DateTime, TimeDelta, Utc};
use rand::Rng as _;
use ring::hmac;

use super::Sealer;
use crate::domain::clock::SharedClock;

/// How long a page may stand open before its form must be asked for again.
const LIFE: TimeDelta = TimeDelta::hours(4);
/// Of a cookie: 144 bits.
const RANDOM: usize = 18;

/// What a form does; proof for one is none for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    SignIn,
    SignOut,
}

impl Purpose {
    fn label(self) -> &'static str {
        match self {
            Self::SignIn => "sign in",
            Self::SignOut => "sign out",
        }
    }
}

/// Too old, of another browser, for another purpose, or made up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the form has expired or was not made here")]
pub struct StaleForm;

/// Makes and checks the proofs. Instances with the same secret take each
/// other's.
pub struct Forms {
    key: hmac::Key,
    clock: SharedClock,
}

impl Forms {
    pub fn new(sealer: &Sealer, clock: SharedClock) -> Self {
        Self { key: sealer.derive("tollgate forms 1"), clock }
    }

    /// A new value for a browser's cookie.
    pub fn cookie() -> String {
        let mut random = [0; RANDOM];
        rand::rng().fill_bytes(&mut random);
        URL_SAFE_NO_PAD.encode(random)
    }

    /// Whether a cookie may have been made here: the right length and letters.
    pub fn is_cookie(text: &str) -> bool {
        URL_SAFE_NO_PAD.decode(text).is_ok_and(|bytes| bytes.len() == RANDOM)
    }

    /// The proof for a form that is given to the browser with this cookie.
    pub fn token(&self, purpose: Purpose, cookie: &str) -> String {
        let until = (self.clock.now() + LIFE).timestamp();
        let tag = hmac::sign(&self.key, message(purpose, cookie, until).as_bytes());
        format!("{until}.{}", URL_SAFE_NO_PAD.encode(tag))
    }

    /// Checks what came back.
    pub fn check(&self, purpose: Purpose, cookie: &str, token: &str) -> Result<(), StaleForm> {
        let (until, tag) = token.split_once('.').ok_or(StaleForm)?;
        let until: i64 = until.parse().map_err(|_| StaleForm)?;
        let end = DateTime::<Utc>::from_timestamp(until, 0).ok_or(StaleForm)?;
        let tag = URL_SAFE_NO_PAD.decode(tag).map_err(|_| StaleForm)?;
        let genuine =
            hmac::verify(&self.key, message(purpose, cookie, until).as_bytes(), &tag).is_ok();
        if genuine && Self::is_cookie(cookie) && self.clock.now() < end {
            Ok(())
        } else {
            Err(StaleForm)
        }
    }
}

fn message(purpose: Purpose, cookie: &str, until: i64) -> String {
    format!("{}\n{cookie}\n{until}", purpose.label())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::clock::FakeClock;

    #[test]
    fn a_proof_is_for_one_browser_one_purpose_and_a_while() {
        let clock = FakeClock::starting_at(DateTime::from_timestamp(1_767_225_600, 0).unwrap());
        let sealer = |secret: &str| Sealer::new(&secret.into(), &[]);
        let forms = Forms::new(&sealer("a secret of forty bytes or more, really"), clock.clone());
        let (mine, yours) = (Forms::cookie(), Forms::cookie());
        let token = forms.token(Purpose::SignIn, &mine);
        assert_eq!(forms.check(Purpose::SignIn, &mine, &token), Ok(()));

        let bad = |purpose, cookie: &str, token: &str| {
            assert_eq!(forms.check(purpose, cookie, token), Err(StaleForm), "{cookie} {token}");
        };
        bad(Purpose::SignOut, &mine, &token);
        bad(Purpose::SignIn, &yours, &token);
        bad(Purpose::SignIn, "", &forms.token(Purpose::SignIn, ""));
        let (until, tag) = token.split_once('.').unwrap();
        let later = until.parse::<i64>().unwrap() + 1;
        for token in ["", ".", "1", until, tag, &format!("{later}.{tag}"), &format!("{until}.")] {
            bad(Purpose::SignIn, &mine, token);
        }
        let other = Forms::new(&sealer("another one of forty bytes or even more"), clock.clone());
        bad(Purpose::SignIn, &mine, &other.token(Purpose::SignIn, &mine));

        clock.advance(LIFE - TimeDelta::seconds(1));
        assert_eq!(forms.check(Purpose::SignIn, &mine, &token), Ok(()));
        clock.advance(TimeDelta::seconds(1));
        bad(Purpose::SignIn, &mine, &token);
    }
}
