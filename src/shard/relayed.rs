//! Connections that come through the front, which ends TLS (`control::front`): who is at their
//! other end.
//!
//! The front reaches a shard as everybody does, by a connection to its port, from a loopback
//! address that it has bound before. It announces that address with the true peer here, and the
//! shard that accepts the connection takes the entry out. Three rules make that safe:
//!
//! - Nobody else can have the address while the front's socket is bound to it, and the entry is
//!   there for no longer than that.
//! - An entry is good for one connection.
//! - Not a byte of the client goes to the shard before the entry was taken. A connection that is
//!   accepted after its announcement is gone can therefore not ask for anything.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU8, Ordering::AcqRel, Ordering::Acquire};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// Connections of the front that no shard has taken yet, by their loopback address.
#[derive(Debug)]
pub struct Relayed {
    waiting: Mutex<HashMap<SocketAddr, Arc<Line>>>,
    most: usize,
}

/// What both ends of one connection know of each other.
#[derive(Debug)]
struct Line {
    peer: SocketAddr,
    state: AtomicU8,
    changed: Notify,
}

/// The shard knows whose the connection is.
const TAKEN: u8 = 1;
/// The shard, or who took the connection over from it, is done with it.
const OVER: u8 = 2;

impl Line {
    fn reach(&self, state: u8) {
        self.state.fetch_max(state, AcqRel);
        self.changed.notify_one();
    }

    async fn reached(&self, state: u8) {
        while self.state.load(Acquire) < state {
            self.changed.notified().await;
        }
    }
}

impl Relayed {
    /// Nobody yet; `most` can wait at a time.
    pub fn new(most: usize) -> Relayed {
        Relayed { waiting: Mutex::default(), most }
    }

    /// Enters the true peer of a connection that will come from `from`, an address that the caller
    /// has bound and keeps bound for longer than what this returns. `None` when too many wait, or
    /// when the address is not one of this machine alone.
    pub fn announce(self: &Arc<Self>, from: SocketAddr, peer: SocketAddr) -> Option<Announced> {
        if !from.ip().is_loopback() {
            return None;
        }
        let mut waiting = self.lock();
        if waiting.len() >= self.most || waiting.contains_key(&from) {
            return None;
        }
        let line = Arc::new(Line { peer, state: AtomicU8::new(0), changed: Notify::new() });
        waiting.insert(from, line.clone());
        Some(Announced { relayed: self.clone(), from, line })
    }

    /// Takes out what is known of a connection that was accepted from this address.
    pub fn take(&self, from: SocketAddr) -> Option<Passage> {
        // A socket for both families has IPv4 addresses in IPv6 clothes.
        let from = SocketAddr::new(from.ip().to_canonical(), from.port());
        if !from.ip().is_loopback() {
            return None;
        }
        let line = self.lock().remove(&from)?;
        line.reach(TAKEN);
        Some(Passage { line })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SocketAddr, Arc<Line>>> {
        // Each change is one call, so a panic leaves it whole.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The front's end of a connection. Dropping it takes the entry out where nobody has.
#[derive(Debug)]
pub struct Announced {
    relayed: Arc<Relayed>,
    from: SocketAddr,
    line: Arc<Line>,
}

impl Announced {
    /// Waits until a shard knows whose the connection is. One task may wait at a time.
    pub async fn taken(&self) {
        self.line.reached(TAKEN).await;
    }

    /// True when a shard knows whose the connection is.
    pub fn is_taken(&self) -> bool {
        self.line.state.load(Acquire) >= TAKEN
    }

    /// Waits until the server is done with the connection: what it has not sent, it will not send.
    pub async fn over(&self) {
        self.line.reached(OVER).await;
    }
}

impl Drop for Announced {
    fn drop(&mut self) {
        let mut waiting = self.relayed.lock();
        if waiting.get(&self.from).is_some_and(|line| Arc::ptr_eq(line, &self.line)) {
            waiting.remove(&self.from);
        }
    }
}

/// The server's end of a connection. Dropping it tells the front that the server is done.
#[derive(Debug)]
pub struct Passage {
    line: Arc<Line>,
}

impl Passage {
    /// Who is at the other end.
    pub fn peer(&self) -> SocketAddr {
        self.line.peer
    }
}

impl Drop for Passage {
    fn drop(&mut self) {
        self.line.reach(OVER);
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::task::{Context, Waker};

    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn is_ready(future: impl Future<Output = ()>) -> bool {
        std::pin::pin!(future).poll(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    #[test]
    fn an_entry_is_good_for_one_connection() {
        let relayed = Arc::new(Relayed::new(10));
        let (from, peer) = (address("127.0.0.5:4000"), address("203.0.113.7:50000"));
        let announced = relayed.announce(from, peer).unwrap();
        assert!(relayed.announce(from, address("203.0.113.8:1")).is_none(), "it is taken");
        assert!(!is_ready(announced.taken()));
        assert!(relayed.take(address("127.0.0.5:4001")).is_none());
        assert!(relayed.take(address("127.0.0.6:4000")).is_none());
        // As a socket for both families says it.
        let passage = relayed.take(address("[::ffff:127.0.0.5]:4000")).unwrap();
        assert_eq!(passage.peer(), peer);
        assert!(relayed.take(from).is_none());
        assert!(is_ready(announced.taken()) && !is_ready(announced.over()));
        drop(passage);
        assert!(is_ready(announced.over()));
    }

    #[test]
    fn only_loopback_addresses_are_believed() {
        let relayed = Arc::new(Relayed::new(10));
        let (outside, peer) = (address("203.0.113.7:4000"), address("10.0.0.1:1"));
        assert!(relayed.announce(outside, peer).is_none());
        assert!(relayed.take(outside).is_none());
        let six = relayed.announce(address("[::1]:4000"), peer);
        assert!(six.is_some() && relayed.take(address("[::1]:4000")).is_some());
    }

    #[test]
    fn who_gives_up_leaves_nothing_behind() {
        let relayed = Arc::new(Relayed::new(2));
        let peer = address("203.0.113.7:50000");
        let first = relayed.announce(address("127.0.0.1:1"), peer).unwrap();
        let second = relayed.announce(address("127.0.0.1:2"), peer).unwrap();
        assert!(relayed.announce(address("127.0.0.1:3"), peer).is_none(), "no room for a third");
        drop(first);
        assert!(relayed.take(address("127.0.0.1:1")).is_none());
        // Taken, and its address used again: the entry of the second is not the first's to remove.
        let passage = relayed.take(address("127.0.0.1:2")).unwrap();
        let third = relayed.announce(address("127.0.0.1:2"), peer).unwrap();
        drop(second);
        assert!(relayed.take(address("127.0.0.1:2")).is_some());
        drop((passage, third));
        assert!(relayed.lock().is_empty());
    }
}
