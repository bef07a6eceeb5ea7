//! The other side of the drivers' connections, in the hands of the test.

use std::net::SocketAddr;

use bytes::Bytes;

use super::SimWorld;
use super::link::{Fin, Segment};
use crate::driver::Ended;

/// One end of a simulated connection that a test reads and writes directly. Cheap to clone; all
/// clones are the same peer.
#[derive(Clone)]
pub struct Peer {
    pub(super) world: SimWorld,
    pub(super) id: u32,
}

impl Peer {
    /// Number of this peer in its world, in the order of making.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// This end's address.
    pub fn addr(&self) -> Option<SocketAddr> {
        let world = self.world.inner.borrow();
        let state = &world.peers[self.id as usize];
        world.links.get(&state.link).map(|link| link.ends[state.side].addr)
    }

    /// Writes bytes, in any amount: they wait in this end until the other one takes them. False
    /// when the connection can take none any more (closed, half closed or reset).
    pub fn write(&self, bytes: impl Into<Bytes>) -> bool {
        let bytes = bytes.into();
        let mut world = self.world.inner.borrow_mut();
        let state = &mut world.peers[self.id as usize];
        let (link, side) = (state.link, state.side);
        let closed = state.closed;
        let Some(entry) = world.links.get_mut(&link) else { return false };
        let end = &mut entry.ends[side];
        if closed || end.broken || end.fin != Fin::Open {
            return false;
        }
        if bytes.is_empty() {
            return true;
        }
        let len = bytes.len() as u64;
        end.push(Segment::Copied(bytes));
        world.peers[self.id as usize].written += len;
        world.transmit(link, side);
        true
    }

    /// What has arrived since the last call, in order. A peer that is not reading gets only what
    /// had arrived before it stopped.
    pub fn read(&self) -> Vec<u8> {
        std::mem::take(&mut self.world.inner.borrow_mut().peers[self.id as usize].arrived)
    }

    /// False stalls this reader: its window fills, then the sender's buffer, then sends wait.
    pub fn set_reading(&self, reading: bool) {
        let mut world = self.world.inner.borrow_mut();
        world.peers[self.id as usize].reading = reading;
        world.pump_peer(self.id);
    }

    /// Sends FIN after everything written; reading goes on.
    pub fn half_close(&self) {
        let mut world = self.world.inner.borrow_mut();
        let state = &world.peers[self.id as usize];
        let (link, side) = (state.link, state.side);
        world.shut_end(link, side);
    }

    /// Closes both directions. As in the kernel, what was written is still delivered, unless
    /// bytes arrive that nobody will read: they are answered by a reset.
    pub fn close(&self) {
        let mut world = self.world.inner.borrow_mut();
        let state = &mut world.peers[self.id as usize];
        let (link, side) = (state.link, state.side);
        if !std::mem::replace(&mut state.closed, true) {
            world.close_end(link, side);
        }
    }

    /// Resets the connection: what is on the way from here is lost.
    pub fn reset(&self) {
        let mut world = self.world.inner.borrow_mut();
        let state = &mut world.peers[self.id as usize];
        let (link, side) = (state.link, state.side);
        if !std::mem::replace(&mut state.closed, true) {
            world.abort(link, side);
            world.close_end(link, side);
        }
    }

    /// How the incoming direction ended, once all bytes before the end have been taken by a
    /// reading peer. ECONNREFUSED when nobody listened.
    pub fn ended(&self) -> Option<Ended> {
        self.world.inner.borrow().peers[self.id as usize].ended
    }

    /// True when nothing can arrive any more: ended by the other side, or closed from here.
    pub fn is_closed(&self) -> bool {
        let world = self.world.inner.borrow();
        let state = &world.peers[self.id as usize];
        state.closed || state.ended.is_some()
    }

    /// True once the handshake is done.
    pub fn is_connected(&self) -> bool {
        let world = self.world.inner.borrow();
        let state = &world.peers[self.id as usize];
        world.links.get(&state.link).is_some_and(|link| link.ends[state.side].up)
    }

    /// Bytes given to [`Peer::write`] so far.
    pub fn bytes_written(&self) -> u64 {
        self.world.inner.borrow().peers[self.id as usize].written
    }

    /// Bytes written that the other end's kernel has not acknowledged.
    pub fn bytes_unsent(&self) -> u64 {
        let world = self.world.inner.borrow();
        let state = &world.peers[self.id as usize];
        world.links.get(&state.link).map_or(0, |link| link.ends[state.side].held as u64)
    }

    /// Bytes this peer has taken from its kernel so far, whether [`Peer::read`] or not.
    pub fn bytes_read(&self) -> u64 {
        self.world.inner.borrow().peers[self.id as usize].read
    }

    /// Bytes that have arrived and wait in the window of a peer that is not reading.
    pub fn bytes_waiting(&self) -> u64 {
        let world = self.world.inner.borrow();
        let state = &world.peers[self.id as usize];
        world.links.get(&state.link).map_or(0, |link| link.ends[state.side].inbox.len() as u64)
    }
}

/// A listener in the hands of the test: what drivers `connect` to, other than drivers.
pub struct PeerListener {
    pub(super) world: SimWorld,
    pub(super) index: usize,
}

impl PeerListener {
    /// The next connection, established already.
    pub fn accept(&self) -> Option<Peer> {
        let mut world = self.world.inner.borrow_mut();
        let id = world.peer_listeners[self.index].queue.pop_front()?;
        Some(Peer { world: self.world.clone(), id })
    }

    /// The address it was made with.
    pub fn addr(&self) -> SocketAddr {
        self.world.inner.borrow().peer_listeners[self.index].addr
    }
}

impl Drop for PeerListener {
    fn drop(&mut self) {
        if let Ok(mut world) = self.world.inner.try_borrow_mut() {
            world.peer_listeners[self.index].open = false;
        }
    }
}
