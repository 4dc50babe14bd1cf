use proptest::prelude::*;

use super::{
    frame::{Fault, Header, Opcode, Parser, Side, Sizes, write_control},
    test_support::{Frame, bytes_of, chunks, cuts, frames, messages_in},
};

const SMALL: Sizes = Sizes { frame: 1000, message: 2000 };

/// Reads a stream that comes in chunks, as a relay does: what is incomplete is
/// kept and read again.
fn read<'a>(
    parser: &mut Parser,
    chunks: impl Iterator<Item = &'a [u8]>,
) -> Result<Vec<Header>, Fault> {
    let mut seen = vec![];
    let mut kept: Vec<u8> = vec![];
    for chunk in chunks {
        kept.extend_from_slice(chunk);
        loop {
            let taken = if !parser.at_boundary() {
                parser.payload(kept.len())
            } else if let Some(header) = parser.peek(&kept)? {
                parser.begin(&header);
                seen.push(header);
                header.size
            } else {
                break;
            };
            kept.drain(..taken);
            if kept.is_empty() {
                break;
            }
        }
        assert!(kept.len() < super::frame::MAX_HEADER, "more than a header is kept");
    }
    assert!(kept.is_empty());
    Ok(seen)
}

fn side() -> impl Strategy<Value = Side> {
    prop_oneof![Just(Side::Client), Just(Side::Upstream)]
}

proptest! {
    #[test]
    fn frames_are_found_however_the_stream_is_cut(
        frames in frames(), cuts in cuts(), side in side(),
    ) {
        let bytes = bytes_of(&frames, side);
        let mut parser = Parser::new(side, Sizes::UNLIMITED);
        let seen = read(&mut parser, chunks(&bytes, &cuts)).unwrap();
        let seen: Vec<_> = seen.iter().map(|h| (h.opcode, h.fin, h.length)).collect();
        let expected: Vec<_> =
            frames.iter().map(|f| (f.opcode, f.fin, f.payload.len() as u64)).collect();
        prop_assert_eq!(seen, expected);
        prop_assert!(parser.at_boundary());
        prop_assert_eq!(parser.messages(), messages_in(&frames));
        let controls = frames.iter().filter(|frame| frame.opcode.is_control()).count();
        prop_assert_eq!(parser.controls(), controls as u64);
    }

    /// Whatever comes, it is read to its end or refused, and never panics.
    #[test]
    fn noise_is_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200), side in side()) {
        let mut parser = Parser::new(side, SMALL);
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let taken = if parser.at_boundary() {
                let Ok(Some(header)) = parser.peek(rest) else { break };
                parser.begin(&header);
                header.size
            } else {
                parser.payload(rest.len())
            };
            prop_assert!(taken > 0 && taken <= rest.len());
            rest = &rest[taken..];
        }
    }
}

#[test]
fn what_is_wrong_is_told_from_as_few_bytes_as_show_it() {
    use Fault::*;
    use Side::{Client, Upstream};
    let open = |side| {
        let mut parser = Parser::new(side, SMALL);
        let start = Frame::fragment(Opcode::Text, &[b'x'; 900]).bytes(side);
        read(&mut parser, std::iter::once(&start[..])).unwrap();
        parser
    };
    let idle = |side| Parser::new(side, SMALL);
    for (parser, bytes, fault) in [
        (idle(Client), &[0x81, 0x05][..], Unmasked),
        (idle(Client), &[0x89, 0x00], Unmasked),
        (idle(Upstream), &[0x81, 0x85], Masked),
        (idle(Client), &[0x83], ReservedOpcode),
        (idle(Client), &[0x87], ReservedOpcode),
        (idle(Upstream), &[0x8b], ReservedOpcode),
        (idle(Upstream), &[0x0f], ReservedOpcode),
        (idle(Client), &[0x89, 0xfe], LongControl),
        (idle(Client), &[0x8a, 0xff], LongControl),
        (idle(Upstream), &[0x88, 0x7e], LongControl),
        (idle(Client), &[0x09], FragmentedControl),
        (open(Client), &[0x08], FragmentedControl),
        (idle(Client), &[0x80], NothingToContinue),
        (idle(Upstream), &[0x00], NothingToContinue),
        (open(Client), &[0x81], Interrupted),
        (open(Upstream), &[0x02], Interrupted),
        (idle(Client), &[0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0], LengthOverflow),
        (
            idle(Upstream),
            &[0x82, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
            LengthOverflow,
        ),
        (idle(Client), &[0x82, 0xfe, 0x03, 0xe9], FrameTooBig),
        (idle(Client), &[0x82, 0xff, 0, 0, 0, 0, 1, 0, 0, 0], FrameTooBig),
        (idle(Client), &[0x82, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], FrameTooBig),
    ] {
        assert_eq!(parser.peek(bytes), Err(fault), "{bytes:02x?}");
        for cut in 0..bytes.len() {
            assert_eq!(parser.peek(&bytes[..cut]), Ok(None), "{:02x?}", &bytes[..cut]);
        }
    }
}

#[test]
fn the_fragments_of_a_message_are_measured_together() {
    let part = |opcode, length| Frame::fragment(opcode, &vec![0; length]);
    let ping = Frame::new(Opcode::Ping, &[0; 125]);
    let last = |length| Frame::new(Opcode::Continuation, &vec![0; length]);
    for (frames, expected) in [
        (vec![part(Opcode::Text, 1000), ping.clone(), last(1000)], Ok(1)),
        (vec![part(Opcode::Text, 1000), part(Opcode::Continuation, 1000), last(0)], Ok(1)),
        (vec![part(Opcode::Text, 1000), ping, last(1001)], Err(Fault::FrameTooBig)),
        (
            vec![part(Opcode::Text, 1000), part(Opcode::Continuation, 600), last(401)],
            Err(Fault::MessageTooBig),
        ),
        // A new message begins anew.
        (vec![part(Opcode::Text, 1000), last(1000), part(Opcode::Binary, 1000), last(1000)], Ok(2)),
    ] {
        let mut parser = Parser::new(Side::Client, SMALL);
        let bytes = bytes_of(&frames, Side::Client);
        let read = read(&mut parser, std::iter::once(&bytes[..]));
        assert_eq!(read.map(|_| parser.messages()), expected);
    }
}

#[test]
fn frames_of_our_own_are_as_the_rfc_writes_them() {
    let written = |opcode, payload: &[u8], mask| {
        let mut bytes = vec![];
        write_control(opcode, payload, mask, &mut bytes);
        bytes
    };
    // RFC 6455, 5.7.
    assert_eq!(written(Opcode::Ping, b"Hello", None), b"\x89\x05Hello");
    let pong = [0x8a, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
    assert_eq!(written(Opcode::Pong, b"Hello", Some([0x37, 0xfa, 0x21, 0x3d])), pong);
    for (from, mask) in [(Side::Client, Some([1, 2, 3, 4])), (Side::Upstream, None)] {
        let bytes = written(Opcode::Close, &[3, 0xe9], mask);
        let mut parser = Parser::new(from, SMALL);
        read(&mut parser, std::iter::once(&bytes[..])).unwrap();
        assert!(parser.is_closed());
    }
}
