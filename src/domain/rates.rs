//! Limits as they are configured: how many of what, and what holds of them
//! while the shared counters cannot be reached.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::window::{Per, Window};

/// What holds of a limit when the shared counters cannot be reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum OnStoreLoss {
    /// Nothing is counted.
    Allow,
    /// Each instance holds the limit divided by the instances last seen.
    #[default]
    Share,
    /// Nothing is let through.
    Deny,
}

impl OnStoreLoss {
    pub const ALL: [Self; 3] = [Self::Share, Self::Deny, Self::Allow];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Share => "share",
            Self::Deny => "deny",
            Self::Allow => "allow",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|policy| policy.as_str() == text)
    }
}

/// How many requests per what; 0 is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rates {
    /// In the order of [`Per::ALL`].
    pub limits: [u64; Per::ALL.len()],
    pub on_loss: OnStoreLoss,
}

impl Rates {
    pub fn per(&self, per: Per) -> u64 {
        self.limits[per as usize]
    }

    /// Those that hold.
    pub fn iter(&self) -> impl Iterator<Item = (Per, u64)> + use<> {
        Per::ALL.into_iter().zip(self.limits).filter(|(_, limit)| *limit > 0)
    }

    /// Where the other says something, that.
    #[must_use]
    pub fn overridden(mut self, by: &OwnRates) -> Self {
        for (limit, own) in self.limits.iter_mut().zip(by.limits) {
            *limit = own.unwrap_or(*limit);
        }
        self.on_loss = by.on_loss.unwrap_or(self.on_loss);
        self
    }
}

/// The same where what is not said is as elsewhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OwnRates {
    pub limits: [Option<u64>; Per::ALL.len()],
    pub on_loss: Option<OnStoreLoss>,
}

/// What a limit is called by whoever set it: 1 to 64 of `a-z0-9_-`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct LimitName(Arc<str>);

/// Not the name of a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a limit's name has 1 to 64 lower-case letters, digits, `-` and `_`")]
pub struct NotALimitName;

impl LimitName {
    pub const LONGEST: usize = 64;

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for LimitName {
    type Error = NotALimitName;

    fn try_from(text: String) -> Result<Self, NotALimitName> {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_';
        let fits = (1..=Self::LONGEST).contains(&text.len()) && text.bytes().all(plain);
        if fits { Ok(Self(text.into())) } else { Err(NotALimitName) }
    }
}

impl From<LimitName> for String {
    fn from(name: LimitName) -> Self {
        (*name.0).to_owned()
    }
}

/// One of several limits of a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamedLimit {
    pub name: LimitName,
    /// At least 1.
    pub limit: u64,
    #[serde(with = "word")]
    pub window: Per,
    /// `None`: as is configured for keys.
    #[serde(default, with = "policy")]
    pub on_store_loss: Option<OnStoreLoss>,
}

impl NamedLimit {
    pub fn window(&self) -> Window {
        self.window.window()
    }
}

mod word {
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    use super::Per;

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
    pub fn serialize<S: Serializer>(per: &Per, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(per.as_str())
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Per, D::Error> {
        let text = String::deserialize(from)?;
        Per::parse(&text).ok_or_else(|| D::Error::custom("not a window"))
    }
}

mod policy {
    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer, de::Error as _};

    use super::OnStoreLoss;

    #[expect(clippy::ref_option, clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
    pub fn serialize<S: Serializer>(
        policy: &Option<OnStoreLoss>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        policy.map(OnStoreLoss::as_str).serialize(to)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<OnStoreLoss>, D::Error> {
        let Some(text) = Option::<String>::deserialize(from)? else { return Ok(None) };
        OnStoreLoss::parse(&text).map(Some).ok_or_else(|| D::Error::custom("not a policy"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_named_limit_survives_being_stored() {
        let name = LimitName::try_from("burst-1_a".to_owned()).unwrap();
        for on_store_loss in [None, Some(OnStoreLoss::Deny)] {
            for window in Per::ALL {
                let limit = NamedLimit { name: name.clone(), limit: 7, window, on_store_loss };
                let text = serde_json::to_string(&limit).unwrap();
                assert_eq!(serde_json::from_str::<NamedLimit>(&text).unwrap(), limit, "{text}");
            }
        }
        let bare = r#"{"name":"a","limit":1,"window":"day"}"#;
        assert_eq!(serde_json::from_str::<NamedLimit>(bare).unwrap().on_store_loss, None);
        for bad in ["", "A", "a b", "ü", &"a".repeat(65)] {
            assert!(LimitName::try_from(bad.to_owned()).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_not_said_is_as_elsewhere() {
        let all = Rates { limits: [1, 2, 3, 4, 5], on_loss: OnStoreLoss::Deny };
        let own = OwnRates { limits: [None, Some(0), Some(9), None, None], on_loss: None };
        let both = all.overridden(&own);
        assert_eq!(both, Rates { limits: [1, 0, 9, 4, 5], on_loss: OnStoreLoss::Deny });
        assert_eq!(
            both.iter().map(|(per, _)| per).collect::<Vec<_>>(),
            [Per::Second, Per::Hour, Per::Day, Per::Month]
        );
        assert_eq!(both.per(Per::Hour), 9);
    }
}
