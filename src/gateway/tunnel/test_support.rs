//! Frames and ends to test tunnels with.

use std::sync::Arc;

use proptest::prelude::*;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex},
    task::JoinHandle,
};

use super::{
    Ended, Gate, Open, Policy,
    frame::{Opcode, Side},
    relay,
};
use crate::domain::kill::KillSwitch;

pub const MASK: [u8; 4] = [0x5a, 0xa5, 0x0f, 0xf0];

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub fin: bool,
    pub opcode: Opcode,
    pub payload: Vec<u8>,
}

impl Frame {
    pub fn new(opcode: Opcode, payload: &[u8]) -> Self {
        Self { fin: true, opcode, payload: payload.to_vec() }
    }

    pub fn close(code: u16, reason: &str) -> Self {
        Self::new(Opcode::Close, &[&code.to_be_bytes(), reason.as_bytes()].concat())
    }

    pub fn fragment(opcode: Opcode, payload: &[u8]) -> Self {
        Self { fin: false, ..Self::new(opcode, payload) }
    }

    pub fn bytes(&self, from: Side) -> Vec<u8> {
        let mut bytes = vec![u8::from(self.fin) << 7 | self.opcode.bits()];
        let masked = if from == Side::Client { 0x80 } else { 0 };
        match self.payload.len() {
            short @ 0..126 => bytes.push(masked | u8::try_from(short).unwrap()),
            long => {
                if let Ok(long) = u16::try_from(long) {
                    bytes.push(masked | 0x7e);
                    bytes.extend(long.to_be_bytes());
                } else {
                    bytes.push(masked | 0x7f);
                    bytes.extend((long as u64).to_be_bytes());
                }
            }
        }
        if from == Side::Client {
            bytes.extend(MASK);
            bytes.extend(self.payload.iter().zip(MASK.iter().cycle()).map(|(a, b)| a ^ b));
        } else {
            bytes.extend(&self.payload);
        }
        bytes
    }
}

pub fn text(payload: &str) -> Frame {
    Frame::new(Opcode::Text, payload.as_bytes())
}

pub fn bytes_of(frames: &[Frame], from: Side) -> Vec<u8> {
    frames.iter().flat_map(|frame| frame.bytes(from)).collect()
}

pub fn messages_in(frames: &[Frame]) -> u64 {
    frames.iter().filter(|frame| frame.fin && !frame.opcode.is_control()).count() as u64
}

/// A fragment's payload, and the control frames after it.
type Part = (Vec<u8>, Vec<Frame>);

/// Whole messages in fragments, with control frames between these.
pub fn frames() -> impl Strategy<Value = Vec<Frame>> {
    let length = prop_oneof![
        8 => 0usize..300,
        2 => prop::sample::select(vec![0, 125, 126, 127, 65535, 65536]),
        1 => 300usize..40_000,
    ];
    let payload = (length, any::<u8>()).prop_map(|(length, seed)| {
        (0..length).map(|n| seed.wrapping_add(u8::try_from(n % 251).unwrap())).collect()
    });
    let control = prop_oneof![Just(Opcode::Ping), Just(Opcode::Pong)];
    let control = (control, prop::collection::vec(any::<u8>(), 0..=125))
        .prop_map(|(opcode, payload)| Frame { fin: true, opcode, payload });
    let part = (payload, prop::collection::vec(control, 0..2));
    let message = (any::<bool>(), prop::collection::vec(part, 1..4)).prop_map(
        |(is_text, parts): (bool, Vec<Part>)| {
            let last = parts.len() - 1;
            let first = if is_text { Opcode::Text } else { Opcode::Binary };
            let mut frames = vec![];
            for (at, (payload, controls)) in parts.into_iter().enumerate() {
                let opcode = if at == 0 { first } else { Opcode::Continuation };
                frames.push(Frame { fin: at == last, opcode, payload });
                frames.extend(controls);
            }
            frames
        },
    );
    prop::collection::vec(message, 0..6).prop_map(|messages| messages.concat())
}

/// Lengths to cut a stream into, used again and again.
pub fn cuts() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(prop_oneof![3 => 1usize..20, 1 => 20usize..20_000], 1..12)
}

pub fn chunks<'a>(bytes: &'a [u8], cuts: &'a [usize]) -> impl Iterator<Item = &'a [u8]> {
    let mut rest = bytes;
    cuts.iter().cycle().map_while(move |cut| {
        let (chunk, more) = rest.split_at((*cut).min(rest.len()));
        rest = more;
        (!chunk.is_empty()).then_some(chunk)
    })
}

/// A tunnel with both of its ends in hand.
pub struct Rig {
    pub client: DuplexStream,
    pub upstream: DuplexStream,
    pub kill: Arc<KillSwitch>,
    pub relay: JoinHandle<Ended>,
}

impl Rig {
    pub fn new(policy: Policy) -> Self {
        Self::with(policy, 64 * 1024, Open)
    }

    /// `capacity`: bytes between an end and the tunnel.
    pub fn with(policy: Policy, capacity: usize, mut gate: impl Gate + Send + 'static) -> Self {
        let (client, client_side) = duplex(capacity);
        let (upstream, upstream_side) = duplex(capacity);
        let kill = Arc::new(KillSwitch::new());
        let switch = Arc::clone(&kill);
        let relay = tokio::spawn(async move {
            relay(client_side, upstream_side, &policy, &mut gate, &switch).await
        });
        Self { client, upstream, kill, relay }
    }

    pub async fn client_says(&mut self, frame: &Frame) {
        self.client.write_all(&frame.bytes(Side::Client)).await.unwrap();
    }

    pub async fn upstream_says(&mut self, frame: &Frame) {
        self.upstream.write_all(&frame.bytes(Side::Upstream)).await.unwrap();
    }

    pub async fn at_client(&mut self) -> Option<Frame> {
        read_frame(&mut self.client, Side::Upstream).await
    }

    pub async fn at_upstream(&mut self) -> Option<Frame> {
        read_frame(&mut self.upstream, Side::Client).await
    }

    pub async fn ended(self) -> Ended {
        self.relay.await.unwrap()
    }
}

/// The next frame; `None` when the stream ends before or within it.
pub async fn read_frame(stream: &mut DuplexStream, from: Side) -> Option<Frame> {
    let mut head = [0; 2];
    stream.read_exact(&mut head).await.ok()?;
    let opcode = match head[0] & 0x0f {
        0 => Opcode::Continuation,
        1 => Opcode::Text,
        2 => Opcode::Binary,
        8 => Opcode::Close,
        9 => Opcode::Ping,
        10 => Opcode::Pong,
        other => panic!("opcode {other}"),
    };
    assert_eq!(head[1] & 0x80 != 0, from == Side::Client, "masked or not");
    let length = match head[1] & 0x7f {
        126 => u64::from(stream.read_u16().await.ok()?),
        127 => stream.read_u64().await.ok()?,
        short => u64::from(short),
    };
    let mut mask = [0; 4];
    if from == Side::Client {
        stream.read_exact(&mut mask).await.ok()?;
    }
    let mut payload = vec![0; usize::try_from(length).unwrap()];
    stream.read_exact(&mut payload).await.ok()?;
    for (byte, mask) in payload.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= mask;
    }
    Some(Frame { fin: head[0] & 0x80 != 0, opcode, payload })
}
