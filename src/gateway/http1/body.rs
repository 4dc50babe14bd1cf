//! Where an answer's body ends, and what of it is there.

use bytes::BytesMut;

use super::{
    Fault,
    chunked::{Chunked, Part},
};

/// How the end of a body is known.
#[derive(Debug)]
pub(super) enum Decoder {
    /// So much is missing; 0: nothing.
    Length(u64),
    Chunked(Chunked),
    /// By the end of the connection.
    Closing,
}

impl Decoder {
    pub const NOTHING: Self = Self::Length(0);

    /// Whether all of it was handed on.
    pub fn is_over(&self) -> bool {
        match self {
            Self::Length(left) => *left == 0,
            Self::Chunked(chunked) => chunked.is_over(),
            Self::Closing => false,
        }
    }

    /// How much may still come at most.
    pub fn left(&self) -> u64 {
        if let Self::Length(left) = self { *left } else { u64::MAX }
    }

    /// Of how much it is known that it will come.
    pub fn exact(&self) -> Option<u64> {
        match self {
            Self::Length(left) => Some(*left),
            Self::Chunked(chunked) if chunked.is_over() => Some(0),
            Self::Chunked(_) | Self::Closing => None,
        }
    }

    /// The next part that there is, taken off `input`. `None`: it is over, or more
    /// must be read.
    pub fn next(&mut self, input: &mut BytesMut) -> Result<Option<Part>, Fault> {
        let data = match self {
            Self::Chunked(chunked) => return chunked.next(input),
            Self::Length(left) => {
                let most = usize::try_from(*left).unwrap_or(usize::MAX).min(input.len());
                *left -= most as u64;
                input.split_to(most)
            }
            Self::Closing => input.split(),
        };
        Ok((!data.is_empty()).then(|| Part::Data(data.freeze())))
    }

    /// The connection has ended, and nothing is left of what came before.
    pub fn end(&mut self) -> Result<(), Fault> {
        match self {
            Self::Closing => {
                *self = Self::NOTHING;
                Ok(())
            }
            Self::Length(_) | Self::Chunked(_) => Err(Fault::Closed),
        }
    }
}
