//! Requests over HTTP/2 in frames of our own, which no usual client would send.

use std::net::SocketAddr;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Types of frames (RFC 9113, 6), and flags of [`HEADERS`] and [`DATA`].
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Http2 {
    Ok,
    Refused,
}

/// Fields as they are written.
pub type Fields<'f> = [(&'f str, &'f str)];

/// Asks with these fields, pseudo-fields among them, on a connection of its own.
/// Where there are trailers, a body of one byte comes before them.
pub async fn over_http2(to: SocketAddr, fields: &Fields<'_>, trailers: &Fields<'_>) -> Http2 {
    let mut bytes = PREFACE.to_vec();
    bytes.extend(frame(SETTINGS, 0, 0, &[]));
    if trailers.is_empty() {
        bytes.extend(frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(fields)));
    } else {
        bytes.extend(frame(HEADERS, END_HEADERS, 1, &block(fields)));
        bytes.extend(frame(DATA, 0, 1, b"x"));
        bytes.extend(frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(trailers)));
    }
    let mut socket = TcpStream::connect(to).await.unwrap();
    socket.write_all(&bytes).await.unwrap();
    loop {
        let mut head = [0; 9];
        if socket.read_exact(&mut head).await.is_err() {
            return Http2::Refused;
        }
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let mut payload = vec![0; length];
        socket.read_exact(&mut payload).await.unwrap();
        match head[3] {
            // `:status: 200` (RFC 7541, appendix A).
            HEADERS if payload[0] == 0x88 => return Http2::Ok,
            HEADERS | RST_STREAM | GOAWAY => return Http2::Refused,
            _ => {}
        }
    }
}

fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = length[1..].to_vec();
    bytes.extend([kind, flags, 0, 0, 0, stream]);
    bytes.extend(payload);
    bytes
}

/// Literals that are not indexed, without Huffman's code (RFC 7541, 6.2.2).
fn block(fields: &Fields<'_>) -> Vec<u8> {
    let mut block = vec![];
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            let length = u8::try_from(text.len()).unwrap();
            assert!(length < 0x7f, "{text} is too long for one byte");
            block.push(length);
            block.extend(text.as_bytes());
        }
    }
    block
}
