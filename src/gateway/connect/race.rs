//! The first of several addresses that takes a connection (RFC 8305).

use std::{io, net::SocketAddr, time::Duration};

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use tokio::{net::TcpStream, time::sleep};

/// How long an address is alone before the next is tried beside it.
const AHEAD: Duration = Duration::from_millis(250);

/// Tries them one after the other, each next one when the last failed or has
/// taken [`AHEAD`] long. The error is the last one's.
pub async fn connect(addresses: Vec<SocketAddr>) -> io::Result<TcpStream> {
    let mut waiting = interleaved(addresses).into_iter();
    let mut trying = FuturesUnordered::new();
    let mut last = io::Error::other("no address");
    trying.extend(waiting.next().map(TcpStream::connect));
    loop {
        let more = waiting.len() > 0;
        tokio::select! {
            biased;
            tried = trying.next() => match tried {
                Some(Ok(stream)) => return Ok(stream),
                Some(Err(error)) => {
                    last = error;
                    trying.extend(waiting.next().map(TcpStream::connect));
                }
                None => return Err(last),
            },
            () = sleep(AHEAD), if more => trying.extend(waiting.next().map(TcpStream::connect)),
        }
    }
}

/// The families in turn, beginning with that of the first: where one of them
/// leads nowhere, the other is not behind all of it.
fn interleaved(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let first_is_v6 = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (mut one, mut other): (Vec<_>, Vec<_>) =
        addresses.into_iter().partition(|address| address.is_ipv6() == first_is_v6);
    let mut turns = Vec::with_capacity(one.len() + other.len());
    one.reverse();
    other.reverse();
    while !(one.is_empty() && other.is_empty()) {
        turns.extend(one.pop());
        turns.extend(other.pop());
    }
    turns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_families_take_turns() {
        let addresses = ["[::1]:1", "[::2]:1", "[::3]:1", "1.1.1.1:1"].map(|a| a.parse().unwrap());
        let turns = interleaved(addresses.to_vec()).into_iter().map(|a| a.to_string());
        assert_eq!(turns.collect::<Vec<_>>(), ["[::1]:1", "1.1.1.1:1", "[::2]:1", "[::3]:1"]);
        assert!(interleaved(vec![]).is_empty());
    }

    #[tokio::test]
    async fn a_refusal_leads_to_the_next_at_once_and_silence_soon() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let good = listener.local_addr().unwrap();
        let refusing = std::net::TcpListener::bind("127.0.0.2:0").unwrap().local_addr().unwrap();
        // Full: the kernel answers no further connection.
        let full =
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        full.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
        full.listen(0).unwrap();
        let silent = full.local_addr().unwrap().as_socket().unwrap();
        let _fill: Vec<_> = (0..4)
            .map(|_| {
                let socket =
                    socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)
                        .unwrap();
                socket.set_nonblocking(true).unwrap();
                _ = socket.connect(&silent.into());
                socket
            })
            .collect();
        for (first, most) in [(refusing, AHEAD), (silent, AHEAD * 3)] {
            let begun = std::time::Instant::now();
            let stream = connect(vec![first, good]).await.unwrap();
            assert_eq!(stream.peer_addr().unwrap(), good);
            assert!(begun.elapsed() < most, "{first}: {:?}", begun.elapsed());
        }
        assert!(connect(vec![refusing]).await.is_err());
        assert!(connect(vec![]).await.is_err());
    }
}
