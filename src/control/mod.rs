//! The control thread: signals, counters, the demo's publisher, the HTTP API and
//! everything else that may wait. It runs on tokio-uring and is never on the way of a frame.

pub mod alerts;
pub mod api;
pub mod client;
pub mod demo;
pub mod disk;
pub mod front;
pub mod heartbeat;
pub mod hooks;
pub mod listen;
pub mod load;
pub mod metrics;
pub mod net;
pub mod programs;
pub mod pulse;
pub mod recorder;
pub mod reload;
pub mod sampler;
pub mod segments;
pub mod serve;
mod signals;
pub mod summary;
pub mod tls;
pub mod upload;
mod vod;

use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::time::{SystemTime, UNIX_EPOCH};

/// Wall clock, ms since the epoch.
pub(crate) fn wall_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as i64)
}

/// The address that this machine has towards the world; loopback when it has none.
pub(crate) fn local_ip() -> IpAddr {
    // Connecting a datagram socket sends nothing: it only asks the routing table.
    let ask = || -> std::io::Result<IpAddr> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9))?;
        Ok(socket.local_addr()?.ip())
    };
    ask().unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))
}
