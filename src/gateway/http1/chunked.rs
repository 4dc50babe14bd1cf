//! A body in chunks (RFC 9112, 7.1), read as strictly as it may be: a line ends in
//! CR LF, and extensions and trailers are bounded.

use bytes::{Buf as _, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::{Fault, head::MOST_FIELDS};

/// Bytes of all extensions and of all trailers of one body.
const MOST_ASIDE: usize = 16 * 1024;
const TOO_LONG: Fault = Fault::Malformed("the trailers are too long");
/// What follows the last data of nearly every body.
const END: &[u8] = b"\r\n0\r\n\r\n";

#[derive(Debug, Default)]
pub(super) struct Chunked {
    state: State,
    /// Of the chunk.
    left: u64,
    extensions: usize,
    /// Boxed: hardly an answer has any.
    trailers: Option<Box<Trailers>>,
}

#[derive(Debug, Default)]
struct Trailers {
    text: Vec<u8>,
    /// Of the lines; a line that ends otherwise is one too many.
    count: usize,
}

/// What is expected next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// The first digit of a size.
    #[default]
    Start,
    Size,
    /// After a size that blanks follow.
    Blank,
    Extension,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    /// A line of the trailers, or the empty one after them.
    Line,
    Trailer,
    TrailerLf,
    EndLf,
    End,
}

/// A part of a body.
#[derive(Debug)]
pub(super) enum Part {
    Data(Bytes),
    Trailers(HeaderMap),
}

impl Chunked {
    pub fn is_over(&self) -> bool {
        self.state == State::End
    }

    /// The next part that there is, taken off `input`. `None`: it is over, or more
    /// must be read.
    pub fn next(&mut self, input: &mut BytesMut) -> Result<Option<Part>, Fault> {
        while !self.is_over() {
            if self.state == State::Data {
                return Ok(self.data(input).map(Part::Data));
            }
            let Some(byte) = input.first() else { return Ok(None) };
            self.state = self.step(*byte)?;
            input.advance(1);
            if self.is_over()
                && let Some(trailers) = self.trailers.take()
            {
                return trailers.parsed().map(|fields| Some(Part::Trailers(fields)));
            }
        }
        Ok(None)
    }

    fn data(&mut self, input: &mut BytesMut) -> Option<Bytes> {
        if input.is_empty() {
            return None;
        }
        let most = usize::try_from(self.left).unwrap_or(usize::MAX);
        let data = input.split_to(most.min(input.len())).freeze();
        self.left -= data.len() as u64;
        if self.left == 0 {
            self.state = State::DataCr;
            // Known with the last data, so that both leave us together.
            if input.starts_with(END) {
                input.advance(END.len());
                self.state = State::End;
            }
        }
        Some(data)
    }

    fn step(&mut self, byte: u8) -> Result<State, Fault> {
        use State::{
            Blank, Data, DataCr, DataLf, End, EndLf, Extension, Line, Size, SizeLf, Start, Trailer,
            TrailerLf,
        };
        let next = match (self.state, byte) {
            (Start | Size, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                let digit = char::from(byte).to_digit(16).unwrap_or_default();
                let left =
                    self.left.checked_mul(16).and_then(|left| left.checked_add(digit.into()));
                self.left = left.ok_or(Fault::Malformed("a chunk is too large"))?;
                Size
            }
            (Size | Blank, b' ' | b'\t') => Blank,
            (Size | Blank, b';') => Extension,
            (Size | Blank | Extension, b'\r') => SizeLf,
            (Extension, byte) if byte != b'\n' => {
                self.extensions += 1;
                if self.extensions >= MOST_ASIDE {
                    return Err(Fault::Malformed("the extensions of chunks are too long"));
                }
                Extension
            }
            (SizeLf, b'\n') if self.left == 0 => Line,
            (SizeLf, b'\n') => Data,
            (DataCr, b'\r') => DataLf,
            (DataLf, b'\n') => Start,
            (Line, b'\r') => {
                self.keep(byte)?;
                EndLf
            }
            (Line, byte) => {
                self.trailers.get_or_insert_default().push(byte)?;
                Trailer
            }
            (Trailer, byte) => {
                self.keep(byte)?;
                if byte == b'\r' { TrailerLf } else { Trailer }
            }
            (TrailerLf, b'\n') => {
                self.keep(byte)?;
                self.trailers.as_mut().map_or(Ok(()), |trailers| trailers.end_line())?;
                Line
            }
            (EndLf, b'\n') => {
                self.keep(byte)?;
                End
            }
            _ => return Err(Fault::Malformed("its chunks are none")),
        };
        Ok(next)
    }

    /// Keeps a byte of the trailers, where there are any.
    fn keep(&mut self, byte: u8) -> Result<(), Fault> {
        self.trailers.as_mut().map_or(Ok(()), |trailers| trailers.push(byte))
    }
}

impl Trailers {
    fn push(&mut self, byte: u8) -> Result<(), Fault> {
        self.text.push(byte);
        if self.text.len() < MOST_ASIDE { Ok(()) } else { Err(TOO_LONG) }
    }

    fn end_line(&mut self) -> Result<(), Fault> {
        self.count += 1;
        if self.count <= MOST_FIELDS { Ok(()) } else { Err(TOO_LONG) }
    }

    fn parsed(&self) -> Result<HeaderMap, Fault> {
        const WRONG: Fault = Fault::Malformed("the trailers are none");
        let mut fields = vec![httparse::EMPTY_HEADER; self.count];
        let (_, fields) = match httparse::parse_headers(&self.text, &mut fields)? {
            httparse::Status::Complete(parsed) => parsed,
            httparse::Status::Partial => return Err(WRONG),
        };
        let mut trailers = HeaderMap::new();
        for field in fields {
            let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| WRONG)?;
            let value = HeaderValue::from_bytes(field.value).map_err(|_| WRONG)?;
            trailers.append(name, value);
        }
        Ok(trailers)
    }
}

#[cfg(test)]
#[path = "chunked_tests.rs"]
mod tests;
