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

/// Fails if the address cannot be listened on, because somebody does or because
/// it is not ours. Nobody can connect yet.
pub fn is_free(address: SocketAddr) -> io::Result<()> {
    bound(address, false).map(drop)
}

/// From here on the kernel does not answer who begins to connect, as if the
/// network had lost it; what it has begun to accept goes on.
#[cfg(target_os = "linux")]
pub fn let_nobody_in(listener: &impl std::os::fd::AsFd) {
    use socket2::{SockFilter, SockRef};

    // Classic BPF over the segment: drop it if of SYN and ACK only SYN is set.
    const FLAGS: u32 = 13;
    const SYN: u32 = 0x02;
    const ACK: u32 = 0x10;
    let program = [
        SockFilter::new(0x30, 0, 0, FLAGS),
        SockFilter::new(0x54, 0, 0, SYN | ACK),
        SockFilter::new(0x15, 0, 1, SYN),
        SockFilter::new(0x06, 0, 0, 0),
        SockFilter::new(0x06, 0, 0, u32::MAX),
    ];
    // Where that is forbidden, connections of the last moment may be reset.
    let _ = SockRef::from(listener).attach_filter(&program);
}

#[cfg(not(target_os = "linux"))]
pub fn let_nobody_in(_: &impl std::os::fd::AsFd) {}

fn listener(address: SocketAddr, shared: bool) -> io::Result<TcpListener> {
    let socket = bound(address, shared)?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn bound(address: SocketAddr, shared: bool) -> io::Result<Socket> {
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
    Ok(socket)
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

    #[test]
    fn whether_an_address_is_free_is_known_without_listening() {
        let first = bind("127.0.0.1:0".parse().unwrap(), 2).unwrap();
        let address = first[0].local_addr().unwrap();
        assert_eq!(is_free(address).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(first);
        is_free(address).unwrap();
        is_free(address).unwrap();
    }

    /// What the kernel has accepted by then stays.
    #[cfg(target_os = "linux")]
    #[test]
    fn who_comes_too_late_is_not_answered() {
        use std::{net::TcpStream, time::Duration};

        let listener = bind("127.0.0.1:0".parse().unwrap(), 1).unwrap().remove(0);
        let address = listener.local_addr().unwrap();
        let early = TcpStream::connect(address).unwrap();
        let_nobody_in(&listener);
        let late = TcpStream::connect_timeout(&address, Duration::from_millis(200));
        assert_eq!(late.unwrap_err().kind(), io::ErrorKind::TimedOut);
        let (_, peer) = listener.accept().unwrap();
        assert_eq!(peer, early.local_addr().unwrap());
        drop(listener);
        let refused = TcpStream::connect(address).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    }
}
