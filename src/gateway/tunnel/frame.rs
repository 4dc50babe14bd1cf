//! Where the frames of a WebSocket stream begin and end (RFC 6455, 5.2).
//!
//! Nothing of a payload is kept or looked at, and nothing is allocated. The
//! stream may be cut anywhere: what an incomplete header has so far stays in the
//! caller's buffer and is read again with what follows, so a header is passed on
//! whole or not at all, and between two calls the stream stands either at a
//! frame's boundary or within a payload.
//!
//! RSV bits pass, since extensions are negotiated between the two ends; so does
//! text that is not UTF-8, which may be compressed. A length may be written in
//! more bytes than it needs: that has one meaning only.

/// The longest header: 2 bytes, 8 of length, 4 of mask.
pub const MAX_HEADER: usize = 14;
/// The longest payload of a control frame.
pub const MAX_CONTROL: usize = 125;

/// Whose frames these are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Client,
    Upstream,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opcode {
    Continuation,
    Text,
    Binary,
    Close,
    Ping,
    Pong,
}

impl Opcode {
    pub fn is_control(self) -> bool {
        matches!(self, Self::Close | Self::Ping | Self::Pong)
    }

    fn read(bits: u8) -> Result<Self, Fault> {
        Ok(match bits {
            0 => Self::Continuation,
            1 => Self::Text,
            2 => Self::Binary,
            8 => Self::Close,
            9 => Self::Ping,
            10 => Self::Pong,
            _ => return Err(Fault::ReservedOpcode),
        })
    }

    /// As it stands in a frame.
    pub fn bits(self) -> u8 {
        match self {
            Self::Continuation => 0,
            Self::Text => 1,
            Self::Binary => 2,
            Self::Close => 8,
            Self::Ping => 9,
            Self::Pong => 10,
        }
    }
}

/// What is wrong with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error("a frame of the client is not masked")]
    Unmasked,
    #[error("a frame of the server is masked")]
    Masked,
    #[error("a reserved opcode")]
    ReservedOpcode,
    #[error("a control frame is too long")]
    LongControl,
    #[error("a control frame is in fragments")]
    FragmentedControl,
    #[error("a length beyond 63 bits")]
    LengthOverflow,
    #[error("a continuation of nothing")]
    NothingToContinue,
    #[error("a new message within another one")]
    Interrupted,
    #[error("the frame is too big")]
    FrameTooBig,
    #[error("the message is too big")]
    MessageTooBig,
}

impl Fault {
    /// Whether it is a matter of size and not of the protocol.
    pub fn is_size(self) -> bool {
        matches!(self, Self::FrameTooBig | Self::MessageTooBig)
    }
}

/// Most bytes of payload that one side may send at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    pub frame: u64,
    /// Of all fragments together.
    pub message: u64,
}

impl Sizes {
    /// For a side that is trusted, and streamed.
    pub const UNLIMITED: Self = Self { frame: u64::MAX, message: u64::MAX };
}

/// The header of one frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    pub opcode: Opcode,
    pub fin: bool,
    /// Bytes of payload.
    pub length: u64,
    /// Bytes of the header itself.
    pub size: usize,
}

impl Header {
    /// Whether a message begins with it.
    pub fn begins_message(&self) -> bool {
        matches!(self.opcode, Opcode::Text | Opcode::Binary)
    }

    /// Whether it brings the ends nothing new: a control frame, or a fragment
    /// without a byte. A stream of these alone costs work and no limit.
    pub fn is_chatter(&self) -> bool {
        self.opcode.is_control() || (self.length == 0 && !(self.begins_message() && self.fin))
    }
}

/// One direction's frames.
#[derive(Clone, Debug)]
pub struct Parser {
    side: Side,
    sizes: Sizes,
    /// Payload of the current frame that is still to come.
    left: u64,
    current: Option<Header>,
    /// Between the first and the last fragment of a message.
    in_message: bool,
    /// Bytes of the message's fragments so far.
    message: u64,
    messages: u64,
    controls: u64,
    closed: bool,
}

impl Parser {
    pub fn new(side: Side, sizes: Sizes) -> Self {
        Self {
            side,
            sizes,
            left: 0,
            current: None,
            in_message: false,
            message: 0,
            messages: 0,
            controls: 0,
            closed: false,
        }
    }

    /// Whether the next byte is the first of a frame.
    pub fn at_boundary(&self) -> bool {
        self.current.is_none()
    }

    /// The frame that is under way.
    pub fn current(&self) -> Option<&Header> {
        self.current.as_ref()
    }

    /// Whether a close frame has passed whole. Nothing may follow it.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// Data messages that have passed to their last byte.
    pub fn messages(&self) -> u64 {
        self.messages
    }

    /// Control frames that have passed to their last byte.
    pub fn controls(&self) -> u64 {
        self.controls
    }

    /// The header that `bytes` begin with, at a boundary; `None` while it is
    /// incomplete. Faults are told as soon as they can be seen. Changes nothing.
    pub fn peek(&self, bytes: &[u8]) -> Result<Option<Header>, Fault> {
        let Some(&first) = bytes.first() else { return Ok(None) };
        let opcode = Opcode::read(first & 0x0f)?;
        let fin = first & 0x80 != 0;
        match opcode {
            Opcode::Continuation if !self.in_message => return Err(Fault::NothingToContinue),
            Opcode::Text | Opcode::Binary if self.in_message => return Err(Fault::Interrupted),
            _ if opcode.is_control() && !fin => return Err(Fault::FragmentedControl),
            _ => {}
        }
        let Some(&second) = bytes.get(1) else { return Ok(None) };
        let masked = second & 0x80 != 0;
        match self.side {
            Side::Client if !masked => return Err(Fault::Unmasked),
            Side::Upstream if masked => return Err(Fault::Masked),
            _ => {}
        }
        let short = second & 0x7f;
        if opcode.is_control() && usize::from(short) > MAX_CONTROL {
            return Err(Fault::LongControl);
        }
        let extended = match short {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let Some(digits) = bytes.get(2..2 + extended) else { return Ok(None) };
        let length = if extended == 0 {
            u64::from(short)
        } else {
            digits.iter().fold(0, |length, byte| length << 8 | u64::from(*byte))
        };
        if length >> 63 != 0 {
            return Err(Fault::LengthOverflow);
        }
        if !opcode.is_control() {
            self.check_size(opcode, length)?;
        }
        let size = 2 + extended + if masked { 4 } else { 0 };
        Ok((bytes.len() >= size).then_some(Header { opcode, fin, length, size }))
    }

    fn check_size(&self, opcode: Opcode, length: u64) -> Result<(), Fault> {
        let before = if opcode == Opcode::Continuation { self.message } else { 0 };
        if length > self.sizes.frame {
            Err(Fault::FrameTooBig)
        } else if before.saturating_add(length) > self.sizes.message {
            Err(Fault::MessageTooBig)
        } else {
            Ok(())
        }
    }

    /// Passes the header that [`Self::peek`] saw.
    pub fn begin(&mut self, header: &Header) {
        debug_assert!(self.at_boundary());
        if header.begins_message() {
            self.message = 0;
        }
        if !header.opcode.is_control() {
            self.in_message = !header.fin;
            self.message = self.message.saturating_add(header.length);
        }
        self.current = Some(*header);
        self.left = header.length;
        self.end_if_done();
    }

    /// Passes payload of the current frame: as many of the `available` bytes as
    /// belong to it.
    pub fn payload(&mut self, available: usize) -> usize {
        // On any platform: what does not fit is more than what is there.
        let taken = usize::try_from(self.left).unwrap_or(usize::MAX).min(available);
        self.left -= taken as u64;
        self.end_if_done();
        taken
    }

    fn end_if_done(&mut self) {
        if self.left > 0 {
            return;
        }
        let Some(header) = self.current.take() else { return };
        if header.opcode.is_control() {
            self.controls += 1;
            self.closed |= header.opcode == Opcode::Close;
        } else if header.fin {
            self.messages += 1;
        }
    }
}

/// A frame of our own, whole: control frames with short payloads only. `mask` is
/// for what an upstream is sent.
pub fn write_control(opcode: Opcode, payload: &[u8], mask: Option<[u8; 4]>, into: &mut Vec<u8>) {
    debug_assert!(opcode.is_control() && payload.len() <= MAX_CONTROL);
    let payload = &payload[..payload.len().min(MAX_CONTROL)];
    let length = u8::try_from(payload.len()).expect("at most 125");
    into.push(0x80 | opcode.bits());
    into.push(length | if mask.is_some() { 0x80 } else { 0 });
    let mask = mask.inspect(|mask| into.extend_from_slice(mask)).unwrap_or_default();
    into.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
}
