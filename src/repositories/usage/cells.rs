//! In which rows usage is summed up.
//!
//! The same usage is in several rows: per hour, day and month, and of each in up
//! to four details, so that a report reads about as many rows as it shows,
//! however long its span. All but the hours that tell everything apart are made
//! when an hour is over: a row of them is written once an hour, not twice a
//! second.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::{UsageFilter, UsageGroup};
use crate::domain::{
    id::{ApiKeyId, PassId, UserId},
    span::{Grain, cover},
    usage::{Rollup, RollupKey},
};

/// What the rows of a table tell apart, besides time and class of status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Detail {
    Everything,
    /// User, key and pass.
    Who,
    /// Upstream and route.
    What,
    /// Nothing at all.
    Nothing,
}

impl Detail {
    const ALL: [Self; 4] = [Self::Everything, Self::Who, Self::What, Self::Nothing];

    /// As it is stored.
    pub fn number(self) -> i16 {
        match self {
            Self::Everything => 0,
            Self::Who => 1,
            Self::What => 2,
            // 3 is of no use here: what was known of passes before.
            Self::Nothing => 4,
        }
    }

    /// The least that answers a question.
    pub fn for_question(filter: &UsageFilter, group: Option<UsageGroup>) -> Self {
        use UsageGroup::{Key, Pass, Route, Upstream, User};
        let who = filter.user_id.is_some()
            || filter.key_id.is_some()
            || matches!(group, Some(User | Key | Pass));
        let what = filter.upstream.is_some() || matches!(group, Some(Upstream | Route));
        match (who, what) {
            (true, true) => Self::Everything,
            (true, false) => Self::Who,
            (false, true) => Self::What,
            (false, false) => Self::Nothing,
        }
    }

    /// The longest grain that there are rows of.
    pub fn coarsest(self) -> Grain {
        match self {
            // As many rows as days have; nobody asks for it by the month.
            Self::Everything => Grain::Day,
            Self::Who | Self::What | Self::Nothing => Grain::Month,
        }
    }
}

/// The table of a grain.
pub(super) fn table(grain: Grain) -> &'static str {
    match grain {
        Grain::Hour => "usage_hourly",
        Grain::Day => "usage_daily",
        Grain::Month => "usage_monthly",
    }
}

/// Rows of one table that answer a part of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub grain: Grain,
    pub detail: Detail,
    pub from: DateTime<Utc>,
    /// Excluded.
    pub to: DateTime<Utc>,
}

/// From where to read the hours `from..to`: rows of `detail`, none longer than
/// `coarsest`, for what was rolled up before `until`, and for the rest the hours
/// that tell everything apart.
///
/// An `until` of a moment ago does as well: the rows of before it are there, and
/// the hours that are behind it stay.
pub(super) fn parts(
    (from, to): (DateTime<Utc>, DateTime<Utc>),
    until: DateTime<Utc>,
    coarsest: Grain,
    detail: Detail,
) -> Vec<Part> {
    let (from, to) = (Grain::Hour.floor(from), Grain::Hour.ceil(to));
    let coarsest = coarsest.min(detail.coarsest());
    let rolled_up = cover(from, to.min(until), coarsest).into_iter();
    let mut parts: Vec<_> = rolled_up
        .map(|part| Part { grain: part.grain, detail, from: part.from, to: part.to })
        .collect();
    let rest = from.max(until);
    if rest < to {
        parts.push(Part { grain: Grain::Hour, detail: Detail::Everything, from: rest, to });
    }
    parts
}

/// One row. Their order is that of the primary keys, the same on every instance:
/// two that add to the same rows wait for each other, never in a circle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Cell<'a> {
    pub grain: Grain,
    pub detail: Detail,
    pub start: DateTime<Utc>,
    pub user_id: Uuid,
    pub key_id: Uuid,
    pub pass_id: Uuid,
    pub upstream: &'a str,
    pub route: &'a str,
    pub status_class: i16,
}

impl<'a> Cell<'a> {
    fn of(key: &'a RollupKey, grain: Grain, detail: Detail) -> Self {
        let who = matches!(detail, Detail::Everything | Detail::Who);
        let what = matches!(detail, Detail::Everything | Detail::What);
        let id = |id: Option<Uuid>| id.filter(|_| who).unwrap_or_default();
        Self {
            grain,
            detail,
            start: grain.floor(key.hour),
            user_id: id(key.user_id.map(UserId::as_uuid)),
            key_id: id(key.key_id.map(ApiKeyId::as_uuid)),
            pass_id: id(key.pass_id.map(PassId::as_uuid)),
            upstream: if what { &key.upstream } else { "" },
            route: if what { &key.route } else { "" },
            status_class: key.status_class,
        }
    }
}

/// Whose it is, as it is stored.
pub(super) fn caller(key: &RollupKey) -> (Uuid, Uuid, Uuid) {
    let cell = Cell::of(key, Grain::Hour, Detail::Who);
    (cell.user_id, cell.key_id, cell.pass_id)
}

/// The rows of hours that tell everything apart, once and in order.
pub(super) fn base(rollups: &[(RollupKey, Rollup)]) -> BTreeMap<Cell<'_>, Rollup> {
    let mut cells: BTreeMap<Cell<'_>, Rollup> = BTreeMap::new();
    for (key, rollup) in rollups {
        let cell = Cell::of(key, Grain::Hour, Detail::Everything);
        cells.entry(cell).or_default().merge(rollup);
    }
    cells
}

/// All other rows that these add to, once and in order.
pub(super) fn derived<'a>(
    rollups: impl IntoIterator<Item = &'a (RollupKey, Rollup)>,
) -> BTreeMap<Cell<'a>, Rollup> {
    let mut cells: BTreeMap<Cell<'_>, Rollup> = BTreeMap::new();
    for (key, rollup) in rollups {
        for detail in Detail::ALL {
            for grain in Grain::ALL.into_iter().filter(|grain| *grain <= detail.coarsest()) {
                if (grain, detail) != (Grain::Hour, Detail::Everything) {
                    cells.entry(Cell::of(key, grain, detail)).or_default().merge(rollup);
                }
            }
        }
    }
    cells
}
