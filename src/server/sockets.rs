//! Listening sockets that share one port.

use std::{
    io,
    net::{SocketAddr, TcpListener},
};

use socket2::{Domain, Protocol, Socket, Type};

/// Connections that may wait to be accepted, per listener.
const BACKLOG: i32 = 4096;

/// Binds `count` listeners on one address. Port 0 is chosen once, for all.
///
/// A second server of the same user could silently share the port, so the first
/// attempt is made without sharing and fails if anyone listens there.
pub fn bind(address: SocketAddr, count: usize) -> io::Result<Vec<TcpListener>> {
    let alone = listener(address, false)?;
    if count == 1 {
        return Ok(vec![alone]);
    }
    let address = SocketAddr::new(address.ip(), alone.local_addr()?.port());
    drop(alone);
    (0..count).map(|_| listener(address, true)).collect()
}

fn listener(address: SocketAddr, shared: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // Connections of a predecessor in TIME_WAIT must not prevent a restart.
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    if address.is_ipv6() {
        // `::` takes IPv4 too, whatever the system's default.
        socket.set_only_v6(false)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_listeners_share_the_port_that_the_first_got() {
        let listeners = bind("127.0.0.1:0".parse().unwrap(), 3).unwrap();
        let port = |listener: &TcpListener| listener.local_addr().unwrap().port();
        assert_eq!(listeners.len(), 3);
        assert!(listeners.iter().all(|l| port(l) == port(&listeners[0]) && port(l) != 0));
    }

    #[test]
    fn a_port_in_use_is_refused_even_if_it_could_be_shared() {
        for held in [1, 2] {
            let first = bind("127.0.0.1:0".parse().unwrap(), held).unwrap();
            let address = first[0].local_addr().unwrap();
            for wanted in [1, 2] {
                let kind = bind(address, wanted).unwrap_err().kind();
                assert_eq!(kind, io::ErrorKind::AddrInUse);
            }
        }
    }
}
