//! Histograms as they are stored: `"30":5,"31":2`, the number of a bucket and how
//! many requests fell into it.
//!
//! Adding to a stored one is putting the new one behind it, which costs the
//! database next to nothing; only one that has grown long is rewritten with each
//! bucket once. In braces it is JSON, which is how the engines do that.

use crate::{
    domain::usage::Histogram,
    repositories::{DbConn, StoreError, StoreResult},
};

/// Of the latencies of an hour that is being written: from here on they are
/// merged with what comes. Longer than all that most requests need, so that is
/// once in ten or twenty times.
pub(super) const LONGEST: u32 = 768;

pub(super) fn to_text(histogram: &Histogram) -> String {
    let buckets = histogram.buckets();
    let entries: Vec<_> = buckets.map(|(bucket, count)| format!("\"{bucket}\":{count}")).collect();
    entries.join(",")
}

/// Adds what is stored to `histogram`.
pub(super) fn add(text: &str, histogram: &mut Histogram) -> StoreResult<()> {
    // A report reads millions of entries, of few buckets.
    let mut counts = [0u64; Histogram::BUCKETS];
    for entry in text.split(',').filter(|entry| !entry.is_empty()) {
        let parts = entry.strip_prefix('"').and_then(|entry| entry.split_once("\":"));
        let numbers = parts.and_then(|(bucket, count)| {
            Some((bucket.parse::<i16>().ok()?, count.parse::<u64>().ok()?))
        });
        let Some((bucket, count)) = numbers else {
            return Err(StoreError::corrupt("latency", "not a bucket and a count"));
        };
        match usize::try_from(bucket).ok().and_then(|at| counts.get_mut(at)) {
            Some(sum) => *sum += count,
            None => histogram.add(bucket, count),
        }
    }
    let found = (0i16..).zip(counts).filter(|(_, count)| *count > 0);
    found.for_each(|(bucket, count)| histogram.add(bucket, count));
    Ok(())
}

/// SQL for the latencies `latency` with each bucket once.
pub(super) fn merged(conn: &DbConn<'_>, latency: &str) -> String {
    match conn {
        DbConn::Postgres(_) => format!("usage_merge({latency})"),
        DbConn::Sqlite(_) => format!(
            "(SELECT COALESCE(group_concat('\"' || key || '\":' || count), '') FROM (
                SELECT key, SUM(value) AS count FROM json_each('{{' || {latency} || '}}')
                GROUP BY key))"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stored_is_what_is_read_also_one_behind_the_other() {
        let one: Histogram = [(0, 1), (30, 5), (119, u64::from(u32::MAX))].into_iter().collect();
        let text = to_text(&one);
        assert_eq!(text, r#""0":1,"30":5,"119":4294967295"#);
        let mut read = Histogram::default();
        add(&text, &mut read).unwrap();
        assert_eq!(read, one);
        add(&format!("{text},{text}"), &mut read).unwrap();
        assert_eq!(read.buckets().map(|(_, count)| count).next(), Some(3));
        add("", &mut read).unwrap();
        for damaged in ["30:5", "\"30\":", "\"a\":1", "\"1\":1;"] {
            add(damaged, &mut read).unwrap_err();
        }
    }
}
