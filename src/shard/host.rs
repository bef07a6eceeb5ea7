//! Connections that turn out to be somebody else's: the HTTP API on the port of HTTP streaming.
//!
//! A shard reads the request, sees that it is not for it, and gives socket and bytes away. The
//! driver joins what is in flight first, so that not a byte is lost or read twice.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use bytes::Bytes;

use super::relayed::Passage;

/// A connection that leaves its shard.
#[derive(Debug)]
pub struct Guest {
    /// The socket.
    pub socket: OwnedFd,
    /// Whose it is.
    pub peer: SocketAddr,
    /// What was read of it and is not answered.
    pub read: Bytes,
    /// For a connection that comes through TLS: to be kept until it ends.
    pub passage: Option<Passage>,
}

/// Who takes them. Must not wait.
#[derive(Clone)]
pub struct Host(Arc<dyn Fn(Guest) + Send + Sync>);

impl Host {
    /// Takes guests by calling this.
    pub fn new(take: impl Fn(Guest) + Send + Sync + 'static) -> Host {
        Host(Arc::new(take))
    }

    /// Gives a guest away.
    pub fn take(&self, guest: Guest) {
        (self.0)(guest);
    }
}

impl std::fmt::Debug for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Host")
    }
}
