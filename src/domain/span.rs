//! Hours, days and months of UTC, and how a span is covered by as few of them as
//! possible.
//!
//! UTC has no summer time, and its clock no leap seconds that anybody here would
//! see, so an hour has 3600 seconds and a day 24 hours (RELIABILITY G-60).

use chrono::{DateTime, Datelike as _, NaiveDate, TimeDelta, Utc};

/// How long what is added up lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Grain {
    Hour,
    Day,
    Month,
}

impl Grain {
    pub const ALL: [Self; 3] = [Self::Hour, Self::Day, Self::Month];

    /// The beginning of the one that `at` lies in.
    pub fn floor(self, at: DateTime<Utc>) -> DateTime<Utc> {
        // chrono's own truncation counts in nanoseconds and ends in 2262.
        let down_to = |seconds: i64| {
            let start = at.timestamp() - at.timestamp().rem_euclid(seconds);
            DateTime::from_timestamp(start, 0).expect("not before any instant of chrono's")
        };
        match self {
            Self::Hour => down_to(3600),
            Self::Day => down_to(86_400),
            Self::Month => first_of(at.year(), at.month()),
        }
    }

    /// The beginning of the one after that which `at` lies in.
    pub fn next(self, at: DateTime<Utc>) -> DateTime<Utc> {
        let start = self.floor(at);
        match self {
            Self::Hour => start + TimeDelta::hours(1),
            Self::Day => start + TimeDelta::days(1),
            Self::Month if start.month() == 12 => first_of(start.year() + 1, 1),
            Self::Month => first_of(start.year(), start.month() + 1),
        }
    }

    /// The first beginning of one that is not before `at`.
    pub fn ceil(self, at: DateTime<Utc>) -> DateTime<Utc> {
        let start = self.floor(at);
        if start == at { start } else { self.next(at) }
    }
}

fn first_of(year: i32, month: u32) -> DateTime<Utc> {
    let day = NaiveDate::from_ymd_opt(year, month, 1).expect("a month of chrono's years");
    day.and_time(chrono::NaiveTime::MIN).and_utc()
}

/// A part of a span, made of whole hours, days or months.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    pub grain: Grain,
    pub from: DateTime<Utc>,
    /// Excluded.
    pub to: DateTime<Utc>,
}

/// `from..to`, widened to full hours, in parts as coarse as fit and no coarser
/// than `coarsest`; in order, without those that are empty.
pub fn cover(from: DateTime<Utc>, to: DateTime<Utc>, coarsest: Grain) -> Vec<Part> {
    let (from, to) = (Grain::Hour.floor(from), Grain::Hour.ceil(to));
    let mut parts = vec![];
    split(from, to, coarsest, &mut parts);
    parts
}

fn split(from: DateTime<Utc>, to: DateTime<Utc>, grain: Grain, parts: &mut Vec<Part>) {
    if from >= to {
        return;
    }
    let finer = match grain {
        Grain::Hour => return parts.push(Part { grain, from, to }),
        Grain::Day => Grain::Hour,
        Grain::Month => Grain::Day,
    };
    let (first, last) = (grain.ceil(from), grain.floor(to));
    if first >= last {
        return split(from, to, finer, parts);
    }
    split(from, first, finer, parts);
    parts.push(Part { grain, from: first, to: last });
    split(last, to, finer, parts);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Any instant from 1970 to 9999, month ends and leap days often.
    fn instants() -> impl Strategy<Value = DateTime<Utc>> {
        let any = (0i64..253_402_300_000, 0u32..1_000_000)
            .prop_map(|(second, us)| DateTime::from_timestamp(second, us * 1000).unwrap());
        let edges = (1971i32..9999, 1u32..=12, -2i64..=2)
            .prop_map(|(year, month, seconds)| first_of(year, month) + TimeDelta::seconds(seconds));
        let leap = (1970i32..9990, 0i64..86_400).prop_map(|(year, second)| {
            let leap =
                (year..year + 9).find(|y| NaiveDate::from_ymd_opt(*y, 2, 29).is_some()).unwrap();
            first_of(leap, 2) + TimeDelta::days(28) + TimeDelta::seconds(second)
        });
        prop_oneof![any, edges, leap]
    }

    proptest! {
        /// G-60: no gap and no overlap.
        #[test]
        fn each_instant_lies_in_one_hour_day_and_month(at in instants()) {
            for grain in Grain::ALL {
                let (start, next) = (grain.floor(at), grain.next(at));
                prop_assert!(start <= at && at < next, "{grain:?}");
                prop_assert_eq!(grain.floor(start), start);
                prop_assert_eq!(grain.floor(next), next);
                prop_assert_eq!(grain.floor(next - TimeDelta::microseconds(1)), start);
                prop_assert_eq!(grain.ceil(start), start);
                prop_assert_eq!(grain.ceil(start + TimeDelta::microseconds(1)), next);
            }
            // A day is 24 hours and a month whole days.
            prop_assert_eq!(Grain::Day.next(at) - Grain::Day.floor(at), TimeDelta::hours(24));
            let days = (Grain::Month.next(at) - Grain::Month.floor(at)).num_days();
            prop_assert!((28..=31).contains(&days));
            prop_assert_eq!(Grain::Day.floor(Grain::Month.floor(at)), Grain::Month.floor(at));
        }

        #[test]
        fn parts_cover_a_span_without_gap_or_overlap(
            a in instants(),
            hours in 0i64..20_000,
            coarsest in prop::sample::select(Grain::ALL.to_vec()),
        ) {
            let from = a;
            let Some(to) = from.checked_add_signed(TimeDelta::hours(hours)) else { return Ok(()) };
            prop_assume!(to.year() < 9999);
            let parts = cover(from, to, coarsest);
            let mut at = Grain::Hour.floor(from);
            for part in &parts {
                prop_assert_eq!(part.from, at);
                prop_assert!(part.from < part.to && part.grain <= coarsest);
                prop_assert_eq!(part.grain.floor(part.from), part.from);
                prop_assert_eq!(part.grain.floor(part.to), part.to);
                at = part.to;
            }
            prop_assert_eq!(at, Grain::Hour.ceil(to).max(Grain::Hour.floor(from)));
            // Long spans are cheap: what could be coarser is.
            for part in &parts {
                let coarser = match part.grain {
                    Grain::Hour => Grain::Day,
                    Grain::Day | Grain::Month => Grain::Month,
                };
                if part.grain < coarser && coarser <= coarsest {
                    prop_assert!(coarser.next(coarser.ceil(part.from)) > part.to, "{parts:?}");
                }
            }
        }
    }

    #[test]
    fn a_year_is_months_and_its_edges_days_and_hours() {
        let at = |text: &str| text.parse::<DateTime<Utc>>().unwrap();
        let parts = cover(at("2024-02-28T22:30:00Z"), at("2025-03-02T01:00:01Z"), Grain::Month);
        let found: Vec<_> = parts
            .iter()
            .map(|part| (part.grain, part.from.to_rfc3339(), part.to.to_rfc3339()))
            .collect();
        let expected = [
            (Grain::Hour, "2024-02-28T22:00:00+00:00", "2024-02-29T00:00:00+00:00"),
            (Grain::Day, "2024-02-29T00:00:00+00:00", "2024-03-01T00:00:00+00:00"),
            (Grain::Month, "2024-03-01T00:00:00+00:00", "2025-03-01T00:00:00+00:00"),
            (Grain::Day, "2025-03-01T00:00:00+00:00", "2025-03-02T00:00:00+00:00"),
            (Grain::Hour, "2025-03-02T00:00:00+00:00", "2025-03-02T02:00:00+00:00"),
        ];
        assert_eq!(found, expected.map(|(g, a, b)| (g, a.to_owned(), b.to_owned())));
        let short = cover(at("2024-02-28T22:30:00Z"), at("2024-02-29T05:00:00Z"), Grain::Month);
        assert_eq!(short.len(), 1);
        assert!(
            cover(at("2024-01-01T00:00:00Z"), at("2024-01-01T00:00:00Z"), Grain::Day).is_empty()
        );
    }
}
