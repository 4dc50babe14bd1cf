use chrono::DateTime;
use proptest::prelude::*;

use super::*;

fn entries() -> impl Strategy<Value = Vec<Entry>> {
    let entry = (
        (any::<u128>(), 0i64..4_000_000_000_000_000, any::<u16>(), 0..Outcome::ALL.len()),
        (any::<u64>(), any::<u64>(), any::<u64>(), any::<u64>(), any::<u64>()),
        (any::<Option<u128>>(), any::<Option<u128>>(), any::<Option<u128>>(), any::<u128>()),
        (".{0,8}", ".{0,20}", ".{0,40}", ".{0,600}", ".{0,20}"),
        (any::<bool>(), any::<u64>()),
    );
    let made = entry.prop_map(|(plain, numbers, ids, texts, stream)| Entry {
        record: UsageRecord {
            id: RecordId::from(Uuid::from_u128(plain.0)),
            request_id: texts.2,
            at: DateTime::from_timestamp_micros(plain.1).unwrap(),
            method: texts.0.into(),
            path: texts.3,
            status: plain.2,
            outcome: Outcome::ALL[plain.3],
            duration_us: numbers.0,
            bytes_in: numbers.1,
            bytes_out: numbers.2,
            user_id: ids.0.map(|id| UserId::from(Uuid::from_u128(id))),
            key_id: ids.1.map(|id| ApiKeyId::from(Uuid::from_u128(id))),
            pass_id: ids.2.map(|id| PassId::from(Uuid::from_u128(id))),
            upstream: texts.1.into(),
            route: texts.4.into(),
            is_stream: stream.0,
            messages: stream.1,
            place: LogPlace::from(Uuid::from_u128(ids.3)),
        },
        requests: numbers.3,
        messages: numbers.4,
    });
    proptest::collection::vec(made, 0..8)
}

/// The bytes, and where each record ends.
fn written(entries: &[Entry]) -> (Vec<u8>, Vec<usize>) {
    let mut bytes = vec![];
    let ends = entries.iter().map(|entry| {
        encode(entry, &mut bytes);
        bytes.len()
    });
    let ends = ends.collect();
    (bytes, ends)
}

/// What is read, and how many bytes of it were no record.
fn read(bytes: &[u8], whole: bool) -> (Vec<Entry>, usize, usize) {
    let mut frames = Frames::new(bytes, whole);
    let (mut entries, mut damaged) = (vec![], 0);
    for next in &mut frames {
        match next {
            Next::Record(frame) => entries.push(Entry {
                requests: frame.requests,
                messages: frame.messages,
                record: frame.to_record(),
            }),
            Next::Damaged(bytes) => damaged += bytes,
        }
    }
    (entries, damaged, frames.position())
}

proptest! {
    #[test]
    fn what_is_written_is_what_is_read(entries in entries()) {
        let (bytes, _) = written(&entries);
        prop_assert_eq!(read(&bytes, true), (entries, 0, bytes.len()));
    }

    #[test]
    fn of_a_file_that_is_cut_all_before_the_cut_is_read(
        entries in entries(),
        part in 0.0f64..1.0,
    ) {
        let (bytes, ends) = written(&entries);
        #[expect(
            clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss,
            reason = "a part of a few kilobytes"
        )]
        let cut = (bytes.len() as f64 * part) as usize;
        let whole = ends.iter().filter(|end| **end <= cut).count();
        let end = if whole == 0 { 0 } else { ends[whole - 1] };
        let (read_now, damaged, position) = read(&bytes[..cut], false);
        prop_assert_eq!((&read_now[..], damaged, position), (&entries[..whole], 0, end));
        // Where nothing can follow, it is told.
        let (read_at_last, damaged, position) = read(&bytes[..cut], true);
        prop_assert_eq!(
            (&read_at_last[..], damaged, position),
            (&entries[..whole], cut - end, cut)
        );
    }

    #[test]
    fn a_bit_that_flipped_costs_its_own_record(
        entries in entries(),
        at in any::<prop::sample::Index>(),
        bit in 0u8..8,
    ) {
        let (mut bytes, ends) = written(&entries);
        prop_assume!(!bytes.is_empty());
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        let hit = ends.iter().position(|end| at < *end).unwrap();
        let mut left = entries.clone();
        left.remove(hit);
        let (read, damaged, position) = read(&bytes, true);
        prop_assert_eq!(read, left);
        let start = if hit == 0 { 0 } else { ends[hit - 1] };
        prop_assert_eq!((damaged, position), (ends[hit] - start, bytes.len()));
    }

    #[test]
    fn any_bytes_are_read_to_their_end(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let (_, _, position) = read(&bytes, true);
        prop_assert_eq!(position, bytes.len());
    }
}

/// As it was written before there were routes and places.
fn encode_before(entry: &Entry) -> Vec<u8> {
    let Entry { record, requests, messages } = entry;
    let outcome = Outcome::ALL.iter().position(|known| *known == record.outcome).unwrap();
    let given = |bit, is: bool| if is { bit } else { 0 };
    let flags = given(HAS_USER, record.user_id.is_some())
        | given(HAS_KEY, record.key_id.is_some())
        | given(HAS_PASS, record.pass_id.is_some());
    let mut payload = vec![VERSION, flags, u8::try_from(outcome).unwrap()];
    payload.extend_from_slice(record.id.as_uuid().as_bytes());
    payload.extend_from_slice(&record.at.timestamp_micros().to_le_bytes());
    payload.extend_from_slice(&record.status.to_le_bytes());
    for number in [record.duration_us, record.bytes_in, record.bytes_out, *requests, *messages] {
        payload.extend_from_slice(&number.to_le_bytes());
    }
    for id in [record.user_id.map(UserId::as_uuid), record.key_id.map(ApiKeyId::as_uuid)] {
        payload.extend(id.into_iter().flat_map(Uuid::into_bytes));
    }
    for text in [&*record.method, &*record.upstream, &record.request_id, &record.path] {
        payload.extend_from_slice(&u16::try_from(text.len()).unwrap().to_le_bytes());
        payload.extend_from_slice(text.as_bytes());
    }
    payload.extend(record.pass_id.map(PassId::as_uuid).into_iter().flat_map(Uuid::into_bytes));
    let length = u16::try_from(payload.len()).unwrap();
    let checksum = checksum(length, &payload).to_le_bytes();
    [&MAGIC[..], &length.to_le_bytes(), &checksum, &payload].concat()
}

proptest! {
    /// What a process of the version before left is added by this one.
    #[test]
    fn records_of_the_version_before_are_read(entries in entries()) {
        let bytes: Vec<u8> = entries.iter().flat_map(encode_before).collect();
        let (read, damaged, _) = read(&bytes, true);
        prop_assert_eq!(damaged, 0);
        let known = entries.into_iter().map(|mut entry| {
            let record = &mut entry.record;
            record.is_stream = false;
            record.route = route::OTHER.into();
            record.messages = entry.messages;
            record.place = LogPlace::from(record.id.as_uuid());
            entry
        });
        prop_assert_eq!(read, known.collect::<Vec<_>>());
    }
}

#[test]
fn a_text_is_cut_within_a_character_s_bounds() {
    assert_eq!(cut("äöü", 3), "ä");
    assert_eq!(cut("äöü", 6), "äöü");
}
