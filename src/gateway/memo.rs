//! Field values that were written lately, to be sent again.
//!
//! Most requests repeat what one shortly before them said: the same user, the
//! same address. Copying a ready value costs a tenth of writing it.

/// As many as a byte can number.
const PLACES: usize = 256;

/// One value for each of a few keys. A key's place is given by a byte of it, and
/// a new key takes the place of an old one, so this neither grows nor ages.
#[derive(Debug)]
pub struct Memo<K, V>(Vec<Option<(K, V)>>);

impl<K, V: Clone> Memo<K, V> {
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// The value of the key that `is_it` knows, or what `make` says for it.
    pub fn get(
        &mut self,
        place: u8,
        is_it: impl FnOnce(&K) -> bool,
        make: impl FnOnce() -> (K, V),
    ) -> V {
        if self.0.is_empty() {
            self.0.resize_with(PLACES, || None);
        }
        let held = &mut self.0[usize::from(place)];
        match held {
            Some((key, value)) if is_it(key) => value.clone(),
            _ => held.insert(make()).1.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_made_once_and_only_given_for_its_own_key() {
        let mut memo = Memo::new();
        let mut made = 0;
        let mut get = |key: u32| {
            let place = key.to_le_bytes()[0];
            memo.get(
                place,
                |held| *held == key,
                || {
                    made += 1;
                    (key, key.to_string())
                },
            )
        };
        // 1 and 257 share a place.
        for key in [1, 1, 2, 257, 1, 2] {
            assert_eq!(get(key), key.to_string());
        }
        assert_eq!(made, 4);
    }
}
