//! Content codings, taken off and put on again piece by piece.
//!
//! A decoder gives at most as much as its caller has room for, so that a few
//! bytes which stand for gigabytes cost one piece of memory.

use std::io::{self, Write};

use brotli::enc::StandardAlloc;
use brotli::{BrotliDecompressStream, BrotliResult, BrotliState, CompressorWriter};
use flate2::{
    Compression, Decompress, FlushDecompress, Status,
    write::{GzEncoder, ZlibEncoder},
};
use zstd::stream::raw::{DParameter, Operation};

/// The content codings that bodies can be rewritten in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    Identity,
    Gzip,
    Deflate,
    Brotli,
    Zstd,
}

/// A body that is not what its `Content-Encoding` says, or ends within.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the body is not of its content coding")]
pub struct BadCoding;

/// Windows of zstd that HTTP allows (RFC 9659): 8 MiB.
const ZSTD_WINDOW_LOG: u32 = 23;
/// Compression happens while a client waits, and for every answer again.
const GZIP_LEVEL: u32 = 5;
const BROTLI_QUALITY: u32 = 4;
const ZSTD_LEVEL: i32 = 3;
/// Windows of what we compress: pages are not large, many may be under way.
const WINDOW_LOG: u32 = 18;
const WINDOW_BITS: u8 = 15;

impl Coding {
    /// Whether to ask an upstream for it. Not for zstd, whose encoders take
    /// windows of megabytes as they please, where brotli does as well; what comes
    /// in it all the same is rewritten.
    pub fn is_asked_for(self) -> bool {
        self != Self::Zstd
    }

    /// By its name in `Content-Encoding`; `None` for any that cannot be undone.
    pub fn named(name: &[u8]) -> Option<Self> {
        let name = name.trim_ascii().to_ascii_lowercase();
        match name.as_slice() {
            b"" | b"identity" => Some(Self::Identity),
            b"gzip" | b"x-gzip" => Some(Self::Gzip),
            b"deflate" => Some(Self::Deflate),
            b"br" => Some(Self::Brotli),
            b"zstd" => Some(Self::Zstd),
            _ => None,
        }
    }
}

impl Coding {
    /// What taking it off and putting it on again holds, bytes, however long the
    /// body is.
    pub fn state(self) -> usize {
        match self {
            Self::Identity => 0,
            Self::Gzip | Self::Deflate => 384 << 10,
            Self::Brotli | Self::Zstd => 1536 << 10,
        }
    }

    /// The window that a body which begins so may fill, where that is not small.
    pub fn window(self, first: u8) -> usize {
        match self {
            Self::Identity | Self::Gzip | Self::Deflate => 0,
            // RFC 7932, 9.1.
            Self::Brotli => match (first & 1, first >> 1 & 7, first >> 4 & 7) {
                (0, ..) => 1 << 16,
                (_, 0, 0) => 1 << 17,
                (_, 0, small) => 1 << (8 + small),
                (_, large, _) => 1 << (17 + large),
            },
            Self::Zstd => 1 << ZSTD_WINDOW_LOG,
        }
    }
}

pub enum Decoder {
    Identity,
    Gzip(Decompress, Member),
    /// `None` until the first byte tells zlib's format from the bare one that
    /// some servers send.
    Deflate(Option<Decompress>, Member),
    Brotli(Box<BrotliState<StandardAlloc, StandardAlloc, StandardAlloc>>, Member),
    Zstd(zstd::stream::raw::Decoder<'static>, Member),
}

/// How far a compressed stream is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Member {
    Empty,
    Open,
    Ended,
}

/// What one step of decoding did.
pub struct Step {
    pub read: usize,
    pub written: usize,
}

impl Decoder {
    pub fn new(coding: Coding) -> Result<Self, BadCoding> {
        Ok(match coding {
            Coding::Identity => Self::Identity,
            Coding::Gzip => Self::Gzip(Decompress::new_gzip(WINDOW_BITS), Member::Empty),
            Coding::Deflate => Self::Deflate(None, Member::Empty),
            Coding::Brotli => {
                let alloc = StandardAlloc::default;
                // Strict: without the large windows that HTTP does not know.
                let state = BrotliState::new_strict(alloc(), alloc(), alloc());
                Self::Brotli(Box::new(state), Member::Empty)
            }
            Coding::Zstd => {
                let mut decoder = zstd::stream::raw::Decoder::new().map_err(|_| BadCoding)?;
                let limit = DParameter::WindowLogMax(ZSTD_WINDOW_LOG);
                decoder.set_parameter(limit).map_err(|_| BadCoding)?;
                Self::Zstd(decoder, Member::Empty)
            }
        })
    }

    /// Decodes some of `input` into `output`. Where neither is advanced, more
    /// input is needed. What follows the end of the stream is skipped, as
    /// browsers do, unless it is one more member.
    pub fn step(&mut self, input: &[u8], output: &mut [u8]) -> Result<Step, BadCoding> {
        match self {
            Self::Identity => {
                let length = input.len().min(output.len());
                output[..length].copy_from_slice(&input[..length]);
                Ok(Step { read: length, written: length })
            }
            Self::Gzip(state, member) => {
                if *member == Member::Ended {
                    // Zeroes are padding.
                    let at = input.iter().position(|byte| *byte != 0).unwrap_or(input.len());
                    if at > 0 || input.first() != Some(&0x1f) {
                        let read = if input.get(at) == Some(&0x1f) { at } else { input.len() };
                        return Ok(Step { read, written: 0 });
                    }
                    *state = Decompress::new_gzip(WINDOW_BITS);
                    *member = Member::Empty;
                }
                inflate(state, member, input, output)
            }
            Self::Deflate(state, member) => {
                let Some(first) = input.first() else {
                    return match state {
                        Some(state) => inflate(state, member, input, output),
                        None => Ok(Step { read: 0, written: 0 }),
                    };
                };
                // zlib's first byte says 8, deflate, with a window of up to 7;
                // a bare stream that began so would be of a reserved type.
                let state = state
                    .get_or_insert_with(|| Decompress::new(first & 0x0f == 8 && first >> 4 <= 7));
                inflate(state, member, input, output)
            }
            Self::Brotli(state, member) => {
                if *member == Member::Ended {
                    return Ok(Step { read: input.len(), written: 0 });
                }
                let (mut available, mut read) = (input.len(), 0);
                let (mut room, mut written, mut total) = (output.len(), 0, 0);
                let result = BrotliDecompressStream(
                    &mut available,
                    &mut read,
                    input,
                    &mut room,
                    &mut written,
                    output,
                    &mut total,
                    state,
                );
                *member = match result {
                    BrotliResult::ResultFailure => return Err(BadCoding),
                    BrotliResult::ResultSuccess => Member::Ended,
                    _ if read == 0 => *member,
                    _ => Member::Open,
                };
                Ok(Step { read, written })
            }
            Self::Zstd(state, member) => {
                let status = state.run_on_buffers(input, output).map_err(|_| BadCoding)?;
                *member = match status.remaining {
                    0 => Member::Ended,
                    _ if status.bytes_read == 0 && *member != Member::Open => *member,
                    _ => Member::Open,
                };
                Ok(Step { read: status.bytes_read, written: status.bytes_written })
            }
        }
    }

    /// Whether the body may end here.
    pub fn is_complete(&self) -> bool {
        match self {
            Self::Identity => true,
            Self::Gzip(_, member)
            | Self::Deflate(_, member)
            | Self::Brotli(_, member)
            | Self::Zstd(_, member) => *member != Member::Open,
        }
    }
}

fn inflate(
    state: &mut Decompress,
    member: &mut Member,
    input: &[u8],
    output: &mut [u8],
) -> Result<Step, BadCoding> {
    if *member == Member::Ended {
        return Ok(Step { read: input.len(), written: 0 });
    }
    let before = (state.total_in(), state.total_out());
    let status = state.decompress(input, output, FlushDecompress::None).map_err(|_| BadCoding)?;
    let size = |since: u64, now: u64| usize::try_from(now - since).map_err(|_| BadCoding);
    let step = Step {
        read: size(before.0, state.total_in())?,
        written: size(before.1, state.total_out())?,
    };
    *member = match status {
        Status::StreamEnd => Member::Ended,
        _ if step.read == 0 => *member,
        _ => Member::Open,
    };
    Ok(step)
}

/// Puts a coding on; what is ready is taken with [`Encoder::take`].
pub enum Encoder {
    Identity(Vec<u8>),
    Gzip(GzEncoder<Vec<u8>>),
    Deflate(ZlibEncoder<Vec<u8>>),
    Brotli(Box<CompressorWriter<Vec<u8>>>),
    Zstd(zstd::stream::write::Encoder<'static, Vec<u8>>),
}

impl Encoder {
    pub fn new(coding: Coding) -> io::Result<Self> {
        let level = Compression::new(GZIP_LEVEL);
        Ok(match coding {
            Coding::Identity => Self::Identity(vec![]),
            Coding::Gzip => Self::Gzip(GzEncoder::new(vec![], level)),
            Coding::Deflate => Self::Deflate(ZlibEncoder::new(vec![], level)),
            Coding::Brotli => {
                let writer = CompressorWriter::new(vec![], 4096, BROTLI_QUALITY, WINDOW_LOG);
                Self::Brotli(Box::new(writer))
            }
            Coding::Zstd => {
                let mut encoder = zstd::stream::write::Encoder::new(vec![], ZSTD_LEVEL)?;
                encoder.window_log(WINDOW_LOG)?;
                Self::Zstd(encoder)
            }
        })
    }

    fn writer(&mut self) -> &mut dyn Write {
        match self {
            Self::Identity(out) => out,
            Self::Gzip(writer) => writer,
            Self::Deflate(writer) => writer,
            Self::Brotli(writer) => writer,
            Self::Zstd(writer) => writer,
        }
    }

    fn ready(&mut self) -> &mut Vec<u8> {
        match self {
            Self::Identity(out) => out,
            Self::Gzip(writer) => writer.get_mut(),
            Self::Deflate(writer) => writer.get_mut(),
            Self::Brotli(writer) => writer.get_mut(),
            Self::Zstd(writer) => writer.get_mut(),
        }
    }

    pub fn write(&mut self, text: &[u8]) -> io::Result<()> {
        self.writer().write_all(text)
    }

    /// Makes everything written so far readable for the other side.
    pub fn flush(&mut self) -> io::Result<()> {
        self.writer().flush()
    }

    pub fn ready_len(&mut self) -> usize {
        self.ready().len()
    }

    pub fn take(&mut self) -> Vec<u8> {
        std::mem::take(self.ready())
    }

    /// What is left, with the end of the stream.
    pub fn finish(self) -> io::Result<Vec<u8>> {
        match self {
            Self::Identity(out) => Ok(out),
            Self::Gzip(writer) => writer.finish(),
            Self::Deflate(writer) => writer.finish(),
            Self::Brotli(writer) => Ok(writer.into_inner()),
            Self::Zstd(writer) => writer.finish(),
        }
    }
}
