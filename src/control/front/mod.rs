//! The front: HTTPS for HTTP streaming. It ends TLS on threads of its own and brings what it
//! decrypts to the server's HTTP port, where a shard takes the connection for the client's own.
//!
//! Shards stay free of cryptography: a handshake costs a millisecond, as much as hundreds of
//! sends, and the kernels that could encrypt for them (kTLS) are not everywhere. What a client can
//! cost is bounded here: connections and handshakes in all and per address, the time for a
//! handshake, two buffers each way. All other rules are the shard's, which knows the true peer by
//! `shard::relayed`.

mod relay;
pub mod stats;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;

use super::serve::ServeError;
use super::tls::Identity;
use crate::config::Current;
use crate::fault::Fault;
use crate::hub::Reason;
use crate::limits;
use crate::shard::gate::Gate;
use crate::shard::relayed::{Announced, Relayed};
use stats::{FrontStats, Refusal};

/// How much later than the shards the front gets its turn on a busy machine: what it passes on
/// has to be sent first.
const NICE: i32 = 3;

/// Time between two warnings that accepting fails.
const WARNING: Duration = Duration::from_secs(10);

/// What the front is made of; bound before the server gives up root.
#[derive(Debug)]
pub struct Sockets {
    /// By thread: the sockets it accepts at.
    pub threads: Vec<Vec<OwnedFd>>,
    /// Where it listens, for people.
    pub addresses: Vec<SocketAddr>,
    /// The server's HTTP port.
    pub to: SocketAddr,
    /// As whom it answers.
    pub identity: Arc<Identity>,
}

/// Whether the front takes connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Open,
    Closed,
}

/// The front of a process.
#[derive(Debug)]
pub struct Front {
    /// What it did and refused.
    pub stats: FrontStats,
    /// Who is at the other end of the connections it brings.
    pub relayed: Arc<Relayed>,
    to: SocketAddr,
    identity: Arc<Identity>,
    config: Arc<Current>,
    connections: Gate,
    connections_max: u32,
    handshakes: Gate,
    phase: watch::Sender<Phase>,
    /// Counts connections, to spread them over source addresses.
    turn: AtomicU32,
}

/// A place in a gate, given back when it is dropped.
struct Place<'a> {
    gate: &'a Gate,
    ip: IpAddr,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.gate.leave(self.ip);
    }
}

fn enter(gate: &Gate, ip: IpAddr, all: u32, per_address: u32) -> Result<Place<'_>, Reason> {
    gate.enter(ip, all, per_address)?;
    Ok(Place { gate, ip })
}

impl Front {
    /// A front that brings connections to the HTTP port `to` (an unspecified address means this
    /// machine's own) and answers with this identity.
    pub fn new(to: SocketAddr, identity: Arc<Identity>, config: Arc<Current>) -> Arc<Front> {
        let most = config.tls_connections_max();
        Arc::new(Front {
            stats: FrontStats::default(),
            relayed: Arc::new(Relayed::new(most as usize)),
            to: SocketAddr::new(reachable(to.ip()), to.port()),
            identity,
            config,
            connections: Gate::default(),
            connections_max: most,
            handshakes: Gate::default(),
            phase: watch::Sender::new(Phase::Open),
            turn: AtomicU32::new(0),
        })
    }

    /// Starts its threads; each accepts at its own sockets.
    ///
    /// # Errors
    /// A thread cannot be started.
    pub fn start(self: &Arc<Front>, threads: Vec<Vec<OwnedFd>>) -> Result<(), ServeError> {
        for (index, sockets) in threads.into_iter().enumerate() {
            let failed = |why| ServeError::System("cannot start the front of HTTPS", why);
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.map_err(failed)?;
            let front = self.clone();
            let thread = std::thread::Builder::new().name(format!("tls-{index}"));
            let run = move || {
                let _ = rustix::process::nice(NICE);
                runtime.block_on(async {
                    for socket in sockets {
                        tokio::spawn(front.clone().listen(socket));
                    }
                    // It ends with the process: who is connected is served until then.
                    std::future::pending::<()>().await;
                });
            };
            thread.spawn(run).map_err(failed)?;
        }
        Ok(())
    }

    /// Takes no more connections; those there are go on.
    pub fn close(&self) {
        self.phase.send_replace(Phase::Closed);
    }

    /// Waits until nobody is connected, for a short time: the server ends.
    pub fn flush(&self) {
        let until = Instant::now() + Duration::from_millis(limits::TLS_STOP_MS_MAX);
        while self.connections.connections() > 0 && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Connections now, and how many there may be.
    pub fn connections(&self) -> (u32, u32) {
        (self.connections.connections(), self.connections_max)
    }

    /// Connections in their handshakes now.
    pub fn handshakes(&self) -> u32 {
        self.handshakes.connections()
    }

    async fn listen(self: Arc<Front>, socket: OwnedFd) {
        let socket = std::net::TcpListener::from(socket);
        let addr = socket.local_addr().ok();
        let listener = match socket.set_nonblocking(true).and(TcpListener::from_std(socket)) {
            Ok(listener) => listener,
            Err(why) => {
                return tracing::error!(
                    reason = Fault::PartFailed.name(),
                    ?addr,
                    "HTTPS cannot be served: {why}"
                );
            }
        };
        let mut phase = self.phase.subscribe();
        let mut warned: Option<Instant> = None;
        while *phase.borrow_and_update() == Phase::Open {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                _ = phase.changed() => continue,
            };
            match accepted {
                Ok((stream, peer)) => self.accepted(stream, peer),
                Err(why) => {
                    // Out of descriptors, or a peer that left again: others may come.
                    if warned.is_none_or(|at| at.elapsed() >= WARNING) {
                        warned = Some(Instant::now());
                        tracing::warn!(
                            reason = Reason::AcceptFailed.name(),
                            ?addr,
                            "accepting a connection of HTTPS failed: {why}"
                        );
                    }
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    fn accepted(self: &Arc<Front>, stream: TcpStream, peer: SocketAddr) {
        self.stats.accepted.fetch_add(1, Relaxed);
        // A socket for both families has IPv4 addresses in IPv6 clothes.
        let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
        let front = self.clone();
        tokio::spawn(async move {
            match front.serve(stream, peer).await {
                Ok(()) => {}
                Err((refusal, why)) => {
                    front.stats.refuse(refusal);
                    tracing::debug!(%peer, ?refusal, "HTTPS: {why}");
                }
            }
        });
    }

    /// One connection, from its first byte to its last.
    async fn serve(&self, stream: TcpStream, peer: SocketAddr) -> Result<(), (Refusal, String)> {
        let refused = |refusal, why: Reason| (refusal, why.name().to_owned());
        let per_address = self.config.load().max_connections_per_address;
        let _place = enter(&self.connections, peer.ip(), self.connections_max, per_address)
            .map_err(|why| refused(Refusal::of_connections(why), why))?;
        let handshaking = enter(
            &self.handshakes,
            peer.ip(),
            limits::TLS_HANDSHAKES_MAX,
            limits::TLS_HANDSHAKES_PER_ADDRESS_MAX,
        )
        .map_err(|why| refused(Refusal::of_handshakes(why), why))?;
        let _ = stream.set_nodelay(true);
        let time = Duration::from_millis(limits::TLS_HANDSHAKE_MS_MAX);
        let handshake = tokio::time::timeout(time, self.identity.acceptor().accept(stream));
        let mut client = match handshake.await {
            Ok(Ok(client)) => client,
            Ok(Err(why)) => return Err((Refusal::Handshake, why.to_string())),
            Err(_) => return Err((Refusal::Slow, "no handshake in time".into())),
        };
        drop(handshaking);
        client.get_mut().1.set_buffer_limit(Some(limits::RELAY_WAITING_BYTES));
        let time = Duration::from_millis(limits::TLS_INTRODUCTION_MS_MAX);
        let unreached = |why: io::Error| (Refusal::Unreached, why.to_string());
        let introduced = tokio::time::timeout(time, self.introduce(peer)).await;
        let introduced = introduced.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        // The announcement ends before its socket does, see `shard::relayed`.
        let (mut own, announced) = introduced.map_err(unreached)?;
        relay::run(client, &mut own, &announced, &self.stats).await;
        Ok(())
    }

    /// A connection to the server that a shard knows to be this peer's.
    async fn introduce(&self, peer: SocketAddr) -> io::Result<(TcpStream, Announced)> {
        let socket = match self.to {
            SocketAddr::V4(_) => TcpSocket::new_v4()?,
            SocketAddr::V6(_) => TcpSocket::new_v6()?,
        };
        socket.set_recv_buffer_size(limits::RELAY_WAITING_BYTES as u32)?;
        socket.set_nodelay(true)?;
        socket.bind(SocketAddr::new(self.source(), 0))?;
        // Held until the announcement is gone or somebody else holds the socket: the address must
        // not be free while there is an entry for it.
        let _kept = socket.as_fd().try_clone_to_owned()?;
        let announced = self.relayed.announce(socket.local_addr()?, peer);
        let announced = announced.ok_or(io::ErrorKind::QuotaExceeded)?;
        let own = socket.connect(self.to).await?;
        let mut nothing = [0];
        tokio::select! {
            () = announced.taken() => {}
            // A shard says nothing before it is asked: this is the end, or not a shard.
            said = own.peek(&mut nothing) => {
                said?;
                // Refused just after it was taken: the client gets to know by the end.
                if !announced.is_taken() {
                    return Err(io::ErrorKind::ConnectionRefused.into());
                }
            }
        }
        Ok((own, announced))
    }

    /// An address of this machine for a connection to it. One has 28,000 ports, and each is kept
    /// for a minute after its connection; so they take turns.
    fn source(&self) -> IpAddr {
        let turn = self.turn.fetch_add(1, Relaxed);
        match self.to {
            SocketAddr::V4(_) => Ipv4Addr::new(127, 0, 1, 1 + (turn % 250) as u8).into(),
            SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        }
    }
}

/// An address at which this machine reaches what it listens on.
fn reachable(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_port_is_reached_on_this_machine() {
        let to = |ip: &str| reachable(ip.parse().unwrap()).to_string();
        assert_eq!(to("0.0.0.0"), "127.0.0.1");
        assert_eq!(to("::"), "::1");
        assert_eq!(to("192.0.2.7"), "192.0.2.7");
    }

    #[test]
    fn places_are_given_back() {
        let gate = Gate::default();
        let ip = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let first = enter(&gate, ip, 2, 1).ok();
        assert!(first.is_some());
        assert_eq!(enter(&gate, ip, 2, 1).err(), Some(Reason::AddressLimit));
        let other = enter(&gate, [10, 0, 0, 1].into(), 2, 1).ok();
        assert!(other.is_some());
        let third = enter(&gate, [10, 0, 0, 2].into(), 2, 1);
        assert_eq!(third.err(), Some(Reason::ConnectionsLimit));
        drop((first, other));
        assert_eq!(gate.connections(), 0);
    }
}
