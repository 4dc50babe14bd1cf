//! Over what a limit counts.

use std::hash::{Hash, Hasher};

use chrono::{DateTime, Datelike, TimeDelta, TimeZone, Utc};

/// What limits are given per.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Per {
    Second,
    Minute,
    Hour,
    Day,
    /// The calendar month in UTC; the others slide.
    Month,
}

impl Per {
    pub const ALL: [Self; 5] = [Self::Second, Self::Minute, Self::Hour, Self::Day, Self::Month];

    pub fn as_str(self) -> &'static str {
        self.window().name()
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|per| per.as_str() == text)
    }

    pub fn window(self) -> Window {
        match self {
            Self::Second => Window::SECOND,
            Self::Minute => Window::MINUTE,
            Self::Hour => Window::HOUR,
            Self::Day => Window::DAY,
            Self::Month => Window::Month,
        }
    }
}

/// Over what a limit counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Window {
    /// The last so many seconds, at every instant.
    Sliding { seconds: u32 },
    /// The calendar month in UTC.
    Month,
    /// One period of so many seconds after the other, from an instant on.
    Anchored { since: Anchor, seconds: u32 },
}

/// When the first of several periods begins, microseconds since 1970; `None`
/// before it has. It does not tell counters apart: their subject does, and all
/// that is counted before it is known belongs to the first.
#[derive(Clone, Copy, Debug)]
pub struct Anchor(Option<i64>);

impl PartialEq for Anchor {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Anchor {}

impl Hash for Anchor {
    fn hash<H: Hasher>(&self, _: &mut H) {}
}

impl From<Option<DateTime<Utc>>> for Anchor {
    fn from(at: Option<DateTime<Utc>>) -> Self {
        Self(at.map(|at| at.timestamp_micros()))
    }
}

/// The one of the periods of a window that an instant lies in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Period {
    /// Another for every period of a window.
    pub number: i64,
    pub begins: DateTime<Utc>,
    pub ends: DateTime<Utc>,
}

impl Period {
    /// Microseconds from `now` until it ends.
    pub fn left_us(&self, now: DateTime<Utc>) -> u64 {
        (self.ends - now).num_microseconds().unwrap_or(i64::MAX).max(0).unsigned_abs()
    }
}

impl Window {
    pub const SECOND: Self = Self::Sliding { seconds: 1 };
    pub const MINUTE: Self = Self::Sliding { seconds: 60 };
    pub const HOUR: Self = Self::Sliding { seconds: 3600 };
    pub const DAY: Self = Self::Sliding { seconds: 86_400 };

    /// The window's length for the `w` parameter of `RateLimit-Policy`. A
    /// month counts as 31 days there.
    pub fn seconds(self) -> u32 {
        match self {
            Self::Sliding { seconds } | Self::Anchored { seconds, .. } => seconds,
            Self::Month => 31 * 86_400,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::SECOND => "second",
            Self::MINUTE => "minute",
            Self::HOUR => "hour",
            Self::DAY => "day",
            Self::Month => "month",
            Self::Anchored { seconds: 86_400, .. } => "own-day",
            Self::Anchored { .. } => "total",
            Self::Sliding { .. } => "window",
        }
    }

    /// Whether it slides; if not, it is counted period by period.
    pub fn slides(self) -> bool {
        matches!(self, Self::Sliding { .. })
    }

    /// The period that `now` lies in; `None` for a window that slides.
    pub fn period(self, now: DateTime<Utc>) -> Option<Period> {
        match self {
            Self::Sliding { .. } => None,
            Self::Month => Some(Period {
                number: i64::from(now.year()) * 12 + i64::from(now.month0()),
                begins: month_start(now),
                ends: month_end(now),
            }),
            Self::Anchored { since, seconds } => {
                let length = i64::from(seconds.max(1)) * 1_000_000;
                // An instance whose clock is behind is in the first one.
                let since = since.0.and_then(DateTime::from_timestamp_micros).unwrap_or(now);
                let passed = (now - since).num_microseconds().unwrap_or(i64::MAX).max(0);
                let number = passed / length;
                let begins = since + TimeDelta::microseconds(number * length);
                Some(Period { number, begins, ends: begins + TimeDelta::microseconds(length) })
            }
        }
    }
}

/// The first instant of the month that `now` lies in, UTC.
pub fn month_start(now: DateTime<Utc>) -> DateTime<Utc> {
    Utc.with_ymd_and_hms(now.year(), now.month(), 1, 0, 0, 0).single().expect("a first of a month")
}

/// The first instant of the month after the one that `now` lies in, UTC.
pub fn month_end(now: DateTime<Utc>) -> DateTime<Utc> {
    let (year, month) =
        if now.month() == 12 { (now.year() + 1, 1) } else { (now.year(), now.month() + 1) };
    Utc.with_ymd_and_hms(year, month, 1, 0, 0, 0).single().expect("a first of a month")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_limits_are_given_per_is_read_as_it_is_written() {
        for per in Per::ALL {
            assert_eq!(Per::parse(per.as_str()), Some(per));
        }
        assert_eq!(Per::parse("Minute"), None);
        assert_eq!(Per::parse("window"), None);
    }

    #[test]
    fn before_the_anchor_is_known_it_is_the_first_period() {
        let at = |seconds| DateTime::from_timestamp(1_767_225_600 + seconds, 7000).unwrap();
        let of = |since: Option<i64>, now| {
            let window = Window::Anchored { since: since.map(at).into(), seconds: 86_400 };
            window.period(at(now)).unwrap()
        };
        let day = 86_400;
        assert_eq!(of(None, 5), Period { number: 0, begins: at(5), ends: at(5 + day) });
        for (now, number) in [(4, 0), (5, 0), (4 + day, 0), (5 + day, 1), (5 + 9 * day, 9)] {
            let period = of(Some(5), now);
            assert_eq!((period.number, period.begins), (number, at(5 + number * day)), "{now}");
            assert_eq!(period.ends, at(5 + (number + 1) * day), "{now}");
        }
        assert_eq!(of(Some(5), 4 + day).left_us(at(4 + day)), 1_000_000);
        assert_eq!(of(Some(5), 5).left_us(at(5 + 2 * day)), 0);
    }

    proptest! {
        #[test]
        fn months_have_no_gap_and_no_overlap(at in 0i64..7_258_118_400) {
            let now = DateTime::from_timestamp(at, 0).unwrap();
            prop_assert!(month_start(now) <= now && now < month_end(now));
            prop_assert_eq!(month_start(month_end(now)), month_end(now));
            prop_assert_eq!(month_end(month_start(now)), month_end(now));
            let next = Window::Month.period(month_end(now)).unwrap();
            prop_assert_eq!(next.number, Window::Month.period(now).unwrap().number + 1);
        }
    }
}
