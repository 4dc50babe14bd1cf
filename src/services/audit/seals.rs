//! Seals: what nobody can make who has the database and not its secret.
//!
//! HMAC-SHA-256 of a place, a number and a hash, with a key that follows from
//! `SECRETS_KEY`. A place is part of it, so that the seal of a row is not that of
//! the head: an older head cannot be made of the rows that are there.

use ring::hmac::{self, Context, Key};

use super::super::Sealer;
use crate::{
    domain::audit::{GENESIS, Hash},
    repositories::End,
};

const PURPOSE: &str = "tollgate audit 1";

/// What a seal is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Row,
    Head,
    Dropped,
}

impl Place {
    fn name(self) -> &'static [u8] {
        match self {
            Self::Row => b"row\n",
            Self::Head => b"head\n",
            Self::Dropped => b"dropped\n",
        }
    }
}

/// What became of looking at a seal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Looked {
    Good,
    Bad,
    /// Its key is not configured, or not any more.
    UnknownKey,
}

pub(super) struct Seals {
    /// With their ids, the current one first.
    keys: Vec<(String, Key)>,
}

impl Seals {
    pub fn new(sealer: &Sealer) -> Self {
        Self { keys: sealer.derive_all(PURPOSE) }
    }

    /// With the id of the key.
    pub fn seal(&self, place: Place, seq: i64, hash: &Hash) -> (String, Hash) {
        let (id, key) = &self.keys[0];
        let mut context = Context::with_key(key);
        context.update(&message(place, seq, hash));
        let seal = context.sign().as_ref().try_into().expect("SHA-256 has 32 bytes");
        (id.clone(), seal)
    }

    pub fn look(&self, place: Place, seq: i64, hash: &Hash, key: &str, seal: &[u8]) -> Looked {
        let Some((_, key)) = self.keys.iter().find(|(id, _)| id == key) else {
            return Looked::UnknownKey;
        };
        match hmac::verify(key, &message(place, seq, hash), seal) {
            Ok(()) => Looked::Good,
            Err(_) => Looked::Bad,
        }
    }

    pub fn look_at_end(&self, place: Place, end: &End) -> Looked {
        // The beginning needs none: nobody gains by it.
        if end.seq == 0 {
            return if end.hash == GENESIS { Looked::Good } else { Looked::Bad };
        }
        self.look(place, end.seq, &end.hash, &end.key, &end.seal)
    }

    pub fn is_good(&self, place: Place, end: &End) -> bool {
        self.look_at_end(place, end) == Looked::Good
    }

    pub fn seal_end(&self, place: Place, end: &mut End) {
        let (key, seal) = self.seal(place, end.seq, &end.hash);
        (end.key, end.seal) = (key, seal.to_vec());
    }
}

fn message(place: Place, seq: i64, hash: &Hash) -> Vec<u8> {
    [place.name(), &seq.to_be_bytes(), hash].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seal_is_good_for_its_place_number_and_hash_alone() {
        let of = |secret: &str| Seals::new(&Sealer::new(&secret.into(), &[]));
        let seals = of("a secret of forty bytes or even more ...");
        let (key, seal) = seals.seal(Place::Row, 7, &[1; 32]);
        let look = |place, seq, hash| seals.look(place, seq, &hash, &key, &seal);
        assert_eq!(look(Place::Row, 7, [1; 32]), Looked::Good);
        assert_eq!(look(Place::Head, 7, [1; 32]), Looked::Bad);
        assert_eq!(look(Place::Row, 8, [1; 32]), Looked::Bad);
        assert_eq!(look(Place::Row, 7, [2; 32]), Looked::Bad);
        let other = of("another secret of forty bytes or more ..");
        assert_eq!(other.look(Place::Row, 7, &[1; 32], &key, &seal), Looked::UnknownKey);
    }
}
