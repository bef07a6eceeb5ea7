//! Sockets: making them, setting them up, asking for their addresses. Plain system calls, none
//! of them on the per-frame path.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Duration;

use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, Type};

use crate::driver::{ConnectOptions, ListenOptions};

/// A bound, listening socket, for [`crate::Driver::listen_on`].
///
/// # Errors
/// What the kernel says.
pub fn listen(addr: SocketAddr, options: &ListenOptions) -> io::Result<OwnedFd> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(options.reuse_port)?;
    if addr.is_ipv6() {
        // One socket per family, so that `[::]` and `0.0.0.0` can both be configured.
        socket.set_only_v6(true)?;
    }
    buffers(&socket, options.send_buffer, options.receive_buffer)?;
    socket.set_tcp_nodelay(options.nodelay)?;
    if options.notsent_lowat > 0 {
        socket.set_tcp_notsent_lowat(options.notsent_lowat)?;
    }
    socket.bind(&addr.into())?;
    socket.listen(options.backlog)?;
    Ok(socket.into())
}

/// A socket ready to connect. Non-blocking like accepted ones: the ring's operations wait all the
/// same, and a splice, which runs on a worker thread, does not.
pub(crate) fn dial(addr: SocketAddr, options: &ConnectOptions) -> io::Result<OwnedFd> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    buffers(&socket, options.send_buffer, options.receive_buffer)?;
    socket.set_tcp_nodelay(options.nodelay)?;
    if let Some(source) = options.source {
        if source.port() == 0 {
            // The port is chosen at connect time, per destination, instead of being reserved now:
            // otherwise one source address is good for 28,000 connections in all.
            bind_address_no_port(&socket);
        }
        socket.bind(&source.into())?;
    }
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// IP_BIND_ADDRESS_NO_PORT works at the IP level for both families. Only a saving.
fn bind_address_no_port(socket: &Socket) {
    let on: libc::c_int = 1;
    // SAFETY: the socket is open; the option takes an int, which outlives the call.
    unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IP,
            libc::IP_BIND_ADDRESS_NO_PORT,
            (&raw const on).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
}

fn buffers(socket: &Socket, send: u32, receive: u32) -> io::Result<()> {
    if send > 0 {
        socket.set_send_buffer_size(send as usize)?;
    }
    if receive > 0 {
        socket.set_recv_buffer_size(receive as usize)?;
    }
    Ok(())
}

/// Both addresses of a connection: the peer's and ours.
///
/// # Errors
/// When the peer is gone already.
pub(crate) fn addresses(socket: &OwnedFd) -> io::Result<(SocketAddr, SocketAddr)> {
    let socket = SockRef::from(socket);
    Ok((internet(&socket.peer_addr()?), internet(&socket.local_addr()?)))
}

/// A caller may pass any listener: IPv4 peers of a dual-stack socket are given their IPv4 address,
/// sockets of other families have no internet address.
fn internet(addr: &SockAddr) -> SocketAddr {
    let addr = addr.as_socket().unwrap_or_else(|| (Ipv4Addr::UNSPECIFIED, 0).into());
    match addr.ip().to_canonical() {
        IpAddr::V4(ip) => (ip, addr.port()).into(),
        IpAddr::V6(_) => addr,
    }
}

/// Ends both directions. An error means that they are ended already.
pub(crate) fn shut_down(socket: &OwnedFd) {
    let _ = SockRef::from(socket).shutdown(std::net::Shutdown::Both);
}

/// Sends small segments at once, or gathers them; a socket that is closing does not care.
pub(crate) fn set_nodelay(socket: &OwnedFd, on: bool) {
    let _ = SockRef::from(socket).set_tcp_nodelay(on);
}

/// Bounds how long data that the peer does not take keeps memory after the close.
pub(crate) fn bound_unacknowledged(socket: &OwnedFd, time: Duration) {
    let _ = SockRef::from(socket).set_tcp_user_timeout(Some(time));
}

/// Accepts and closes up to `limit` waiting connections, so that their peers learn it now, and
/// says how many there were. The listener is non-blocking.
pub(crate) fn turn_away(listener: &OwnedFd, limit: u32) -> u32 {
    for turned_away in 0..limit {
        match rustix::net::accept_with(listener.as_fd(), rustix::net::SocketFlags::CLOEXEC) {
            Ok(socket) => drop(socket),
            Err(_) => return turned_away,
        }
    }
    limit
}
