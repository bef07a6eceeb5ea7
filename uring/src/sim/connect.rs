//! Connecting: from the SYN to `Accepted` and `Connected`.

use std::net::SocketAddr;

use super::link::{End, Link, Owner};
use super::shard::ConnState;
use super::world::{Action, PeerState, World};
use crate::driver::{Conn, Errno, Event, Listener};

impl World {
    /// A new connection on its way to `target`; side 0 belongs to `owner`.
    pub(super) fn new_link(
        &mut self,
        owner: Owner,
        source: Option<SocketAddr>,
        target: SocketAddr,
    ) -> u64 {
        self.links_made += 1;
        let id = self.links_made;
        let port = 10_000 + (id % 50_000) as u16;
        let source = match source {
            Some(addr) if addr.port() != 0 => addr,
            Some(addr) => SocketAddr::new(addr.ip(), port),
            // A different address of 127.0.0.0/8 for each, so that limits per address can be met.
            None => {
                SocketAddr::from(([127, 1 + (id >> 16) as u8, (id >> 8) as u8, id as u8], port))
            }
        };
        let ends = [End::new(owner, source), End::new(Owner::Nobody, target)];
        self.links.insert(id, Link { ends });
        id
    }

    /// Sends the SYN.
    pub(super) fn dial(&mut self, link: u64) {
        self.travel(link, 1, Action::Arrive { link });
    }

    pub(super) fn arrive(&mut self, id: u64) {
        let Some(link) = self.links.get(&id) else { return };
        if link.ends[0].broken || link.ends[0].closed {
            self.links.remove(&id);
            return;
        }
        let target = link.ends[1].addr;
        let owner = match self.answer(target) {
            Some(owner) => owner,
            None => {
                self.travel(id, 0, Action::Reset { link: id, to: 0 });
                return;
            }
        };
        let link = self.links.get_mut(&id).expect("checked above");
        link.ends[1].owner = owner;
        link.ends[1].up = true;
        self.travel(id, 0, Action::Established { link: id });
        match owner {
            Owner::Queued(..) => self.accept(id),
            _ => {
                let peer = self.peers.len() as u32;
                self.peers.push(PeerState::new(id, 1));
                let link = self.links.get_mut(&id).expect("checked above");
                link.ends[1].owner = Owner::Peer(peer);
                let listener = self.peer_listeners.iter_mut().find(|l| l.open && l.addr == target);
                listener.expect("answer found it").queue.push_back(peer);
            }
        }
    }

    /// Who takes a connection to that address: with SO_REUSEPORT, one of the listeners by lot.
    pub(super) fn answer(&mut self, target: SocketAddr) -> Option<Owner> {
        if self.peer_listeners.iter().any(|listener| listener.open && listener.addr == target) {
            return Some(Owner::Nobody);
        }
        let wildcard = |addr: SocketAddr| {
            addr.ip().is_unspecified()
                && addr.port() == target.port()
                && addr.is_ipv4() == target.is_ipv4()
        };
        let find = |wanted: &dyn Fn(SocketAddr) -> bool| -> Vec<Owner> {
            let mut found = Vec::new();
            for (&shard, state) in &self.shards {
                for (index, listener) in state.listeners.iter().enumerate() {
                    if listener.as_ref().is_some_and(|listener| wanted(listener.addr)) {
                        found.push(Owner::Queued(shard, Listener(index as u32)));
                    }
                }
            }
            found
        };
        let mut found = find(&|addr| addr == target);
        if found.is_empty() {
            found = find(&wildcard);
        }
        self.random.pick(&found).copied()
    }

    pub(super) fn accept(&mut self, id: u64) {
        let Some(link) = self.links.get(&id) else { return };
        let Owner::Queued(shard, listener) = link.ends[1].owner else { return };
        let (peer, local) = (link.ends[0].addr, link.ends[1].addr);
        if !self.shards.get(&shard).is_some_and(|state| state.listening(listener)) {
            self.abort(id, 1);
            self.close_end(id, 1);
            return;
        }
        if self.random.chance(self.faults.accept_failure) {
            let errno = Errno(libc::EMFILE);
            self.complete(shard, Event::AcceptFailed { listener, errno, turned_away: 0 }, None);
            if let Some(state) = self.shards.get_mut(&shard) {
                state.stats.accept_errors += 1;
            }
            // The spare descriptor takes and closes it at once, or it waits in the queue.
            if self.random.below(2) == 0 {
                self.close_end(id, 1);
            } else {
                let pause = self.faults.rearm.draw(&mut self.random);
                self.schedule(self.now + pause, Action::Accept { link: id });
            }
            return;
        }
        let state = self.shards.get_mut(&shard).expect("it listens");
        let conn = state.insert(ConnState::new(id, 1));
        self.links.get_mut(&id).expect("checked above").ends[1].owner = Owner::Conn(shard, conn);
        self.complete(shard, Event::Accepted { listener, conn, peer, local }, None);
    }

    pub(super) fn established(&mut self, id: u64) {
        let Some(link) = self.links.get_mut(&id) else { return };
        let end = &mut link.ends[0];
        if end.broken {
            return;
        }
        end.up = true;
        if let Owner::Conn(shard, conn) = end.owner {
            self.connected(shard, conn, Ok(()));
        }
        self.transmit(id, 0);
    }

    pub(super) fn connected(&mut self, shard: u32, conn: Conn, result: Result<(), Errno>) {
        if let Some(state) = self.conn_mut(shard, conn)
            && state.connecting
            && !state.closing
        {
            state.connecting = false;
            self.complete(shard, Event::Connected { conn, result }, None);
        }
    }
}
