use uuid::Uuid;

use super::*;
use crate::domain::id::{LogPlace, RecordId};

fn frame(number: u64) -> Frame<'static> {
    Frame {
        id: RecordId::from(Uuid::nil()),
        at_us: 1_700_000_000_000_000 + i64::try_from(number).unwrap(),
        status: 200,
        outcome: Outcome::Completed,
        duration_us: 100,
        bytes_in: 1,
        bytes_out: 2,
        user_id: None,
        key_id: None,
        pass_id: None,
        requests: 1,
        messages: 0,
        is_stream: false,
        passed: 0,
        place: LogPlace::at(number, Uuid::nil()),
        method: "GET",
        upstream: "default",
        request_id: "r",
        path: "/",
        route: "/**",
    }
}

#[test]
fn the_log_has_all_of_few_requests_and_an_even_sample_of_many() {
    let logged = |count: usize, most| {
        let mut sample = Sample::default();
        // Of two threads, the second behind the first.
        let half = count as u64 / 2;
        (half..count as u64).chain(0..half).for_each(|number| sample.offer(frame(number)));
        let logged = sample.newest(most);
        let places: Vec<_> = logged.iter().map(|record| record.place).collect();
        assert!(places.is_sorted(), "{count}");
        let number = |record: &UsageRecord| {
            usize::try_from(record.at.timestamp_micros() - 1_700_000_000_000_000).unwrap()
        };
        logged.iter().map(number).collect::<Vec<_>>()
    };
    for count in [0, 1, 63, 64, 255, LOGGED_AT_ONCE] {
        assert_eq!(logged(count, usize::MAX), (0..count).collect::<Vec<_>>());
        assert_eq!(logged(count, 3), (count.saturating_sub(3)..count).collect::<Vec<_>>());
    }
    for count in [LOGGED_AT_ONCE + 1, 4_500, 100_000] {
        let numbers = logged(count, usize::MAX);
        assert!(numbers.len() <= LOGGED_AT_ONCE && numbers.len() >= LOGGED_AT_ONCE / 4, "{count}");
        assert_eq!(numbers.len() % LOGGED_TOGETHER, 0, "{count}");
        let most = numbers.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap();
        assert!(most <= 3 * count / LOGGED_AT_ONCE + 2, "{count}: a gap of {most}");
        assert_eq!(logged(count, 10), numbers[numbers.len() - 10..]);
        assert!(logged(count, 0).is_empty());
    }
}

#[test]
fn each_record_is_in_the_sum_of_its_kind_whoever_came_between() {
    let (one, other) = (ApiKeyId::from(Uuid::from_u128(1)), ApiKeyId::from(Uuid::from_u128(2)));
    let mut sums = Sums::default();
    for number in 0..30_u64 {
        let key_id = [Some(one), Some(other), None][usize::try_from(number % 3).unwrap()];
        sums.add(&Frame { key_id, ..frame(number) });
    }
    sums.add(&Frame { key_id: Some(one), outcome: Outcome::Rejected, ..frame(99) });
    sums.add(&Frame { key_id: Some(one), status: 500, messages: 5, ..frame(50) });
    let mut last_used = sums.last_used();
    last_used.sort_unstable();
    let at = |number: i64| DateTime::from_timestamp_micros(1_700_000_000_000_000 + number).unwrap();
    assert_eq!(last_used, [(one, at(50)), (other, at(28))]);
    let rollups = sums.into_rollups();
    let seen: Vec<_> = rollups
        .iter()
        .map(|(key, sum)| (key.key_id, key.status_class, sum.requests, sum.rejected))
        .collect();
    let expected =
        [(None, 2, 10, 0), (Some(one), 2, 10, 1), (Some(one), 5, 6, 0), (Some(other), 2, 10, 0)];
    assert_eq!(seen, expected);
}
