//! The network between drivers and peers: when bytes, acknowledgements, FIN and RST arrive.
//!
//! Everything that happens later is an [`Action`] in one queue ordered by virtual time. What has
//! to stay in order (all that travels to one end of one connection) gets rising times; the rest
//! is ordered by drawn delays and, at equal times, by lot.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::net::SocketAddr;
use std::sync::atomic::Ordering;

use super::faults::Faults;
use super::link::{Fin, Link, Owner};
use super::random::Random;
use super::shard::{ConnState, Receive, Shard, Stage};
use super::trace::Trace;
use crate::driver::{Conn, Ended, Errno, Event};
use crate::{Arena, Received};

/// Something that happens at a time of its own. `to` is the side of the link it happens at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Action {
    /// SYN at the listening side.
    Arrive {
        link: u64,
    },
    /// SYN-ACK at the connecting side.
    Established {
        link: u64,
    },
    /// Bytes.
    Data {
        link: u64,
        to: usize,
        bytes: usize,
    },
    /// The other side's kernel has the bytes.
    Ack {
        link: u64,
        to: usize,
        bytes: usize,
    },
    /// The other side has read: there is room again.
    Window {
        link: u64,
        to: usize,
    },
    Fin {
        link: u64,
        to: usize,
    },
    Reset {
        link: u64,
        to: usize,
    },
    /// A connection in the accept queue is tried again.
    Accept {
        link: u64,
    },
    /// A receive that had no buffers is tried again.
    Rearm {
        shard: u32,
        conn: Conn,
    },
    /// The memory of a zero-copy send is free.
    Release {
        shard: u32,
        notice: u64,
    },
    /// A closed connection whose peer acknowledges nothing is given up.
    Linger {
        link: u64,
        to: usize,
    },
}

/// A client of the test.
pub(super) struct PeerState {
    pub(super) link: u64,
    pub(super) side: usize,
    pub(super) reading: bool,
    pub(super) arrived: Vec<u8>,
    pub(super) read: u64,
    pub(super) written: u64,
    pub(super) ended: Option<Ended>,
    pub(super) closed: bool,
}

impl PeerState {
    pub(super) fn new(link: u64, side: usize) -> PeerState {
        PeerState {
            link,
            side,
            reading: true,
            arrived: Vec::new(),
            read: 0,
            written: 0,
            ended: None,
            closed: false,
        }
    }
}

pub(super) struct PeerListenerState {
    pub(super) addr: SocketAddr,
    pub(super) queue: VecDeque<u32>,
    pub(super) open: bool,
}

pub(super) struct World {
    pub(super) now: u64,
    pub(super) random: Random,
    pub(super) faults: Faults,
    queue: BinaryHeap<Reverse<(u64, u64, u64, Action)>>,
    serial: u64,
    pub(super) shards: BTreeMap<u32, Shard>,
    pub(super) links: BTreeMap<u64, Link>,
    pub(super) links_made: u64,
    pub(super) peers: Vec<PeerState>,
    pub(super) peer_listeners: Vec<PeerListenerState>,
    pub(super) trace: Trace,
    /// See [`super::SimWorld::lend_arena`].
    pub(super) arena: Option<Arena>,
}

/// ECONNREFUSED and the like, as the driver reports them.
const ECONNREFUSED: i32 = libc::ECONNREFUSED;

/// How long the peer of a closed connection may keep zero-copy memory by not reading: the real
/// driver sets TCP_USER_TIMEOUT for that.
const LINGER_NS: u64 = 10_000_000_000;

/// Most bytes that travel as one unit.
const SEGMENT_MAX: usize = 64 << 10;

/// One wake in that many is lost by the planted bug.
const LOSE_WAKE: f64 = 1.0 / 8.0;

impl World {
    pub(super) fn new(seed: u64, faults: Faults) -> World {
        World {
            now: 0,
            random: Random::new(seed),
            faults,
            queue: BinaryHeap::new(),
            serial: 0,
            shards: BTreeMap::new(),
            links: BTreeMap::new(),
            links_made: 0,
            peers: Vec::new(),
            peer_listeners: Vec::new(),
            trace: Trace::default(),
            arena: None,
        }
    }

    // Time.

    pub(super) fn next_action(&self) -> Option<u64> {
        self.queue.peek().map(|Reverse((at, ..))| *at)
    }

    /// Runs the earliest action; false when there is none up to `until`.
    pub(super) fn step(&mut self, until: u64) -> bool {
        self.poll_wakers();
        match self.next_action() {
            Some(at) if at <= until => {
                let Some(Reverse((at, _, _, action))) = self.queue.pop() else { return false };
                self.now = self.now.max(at);
                self.run(action);
                true
            }
            _ => false,
        }
    }

    pub(super) fn schedule(&mut self, at: u64, action: Action) {
        let tie = self.random.bits();
        self.serial += 1;
        self.queue.push(Reverse((at.max(self.now), tie, self.serial, action)));
    }

    /// Sends something through the network to one end; arrivals there keep their order.
    pub(super) fn travel(&mut self, link: u64, to: usize, action: Action) {
        let latency = self.faults.latency.draw(&mut self.random);
        let Some(state) = self.links.get_mut(&link) else { return };
        let end = &mut state.ends[to];
        end.latest = (self.now + latency).max(end.latest + 1);
        let at = end.latest;
        self.schedule(at, action);
    }

    fn run(&mut self, action: Action) {
        match action {
            Action::Arrive { link } => self.arrive(link),
            Action::Established { link } => self.established(link),
            Action::Data { link, to, bytes } => self.data(link, to, bytes),
            Action::Ack { link, to, bytes } => self.ack(link, to, bytes),
            Action::Window { link, to } => self.transmit(link, to),
            Action::Fin { link, to } => self.fin(link, to),
            Action::Reset { link, to } => self.reset_arrives(link, to),
            Action::Accept { link } => self.accept(link),
            Action::Rearm { shard, conn } => {
                if let Some(state) = self.conn_mut(shard, conn) {
                    state.starved = false;
                    self.pump_receive(shard, conn);
                }
            }
            Action::Release { shard, notice } => self.release(shard, notice),
            Action::Linger { link, to } => {
                self.abort(link, to);
                self.sweep(link);
            }
        }
    }

    // Bytes on the way.

    /// Puts on the wire what the other end's window takes, then the FIN if it is due.
    pub(super) fn transmit(&mut self, id: u64, side: usize) {
        loop {
            let window = self.faults.receive_window as usize;
            let Some(link) = self.links.get_mut(&id) else { return };
            let (me, other) = link.pair(side);
            if !me.up || me.broken {
                return;
            }
            let room = window.saturating_sub(other.inbox.len() + me.flying_bytes());
            let bytes = me.fly(room.min(SEGMENT_MAX));
            let to = 1 - side;
            if bytes > 0 {
                self.travel(id, to, Action::Data { link: id, to, bytes });
                continue;
            }
            if me.all_sent() && me.fin == Fin::Wanted {
                me.fin = Fin::Sent;
                self.travel(id, to, Action::Fin { link: id, to });
            }
            return;
        }
    }

    fn data(&mut self, id: u64, to: usize, bytes: usize) {
        let Some(link) = self.links.get_mut(&id) else { return };
        let (me, sender) = link.pair(to);
        let bytes = sender.land(bytes);
        if me.broken || bytes.is_empty() {
            return;
        }
        if me.closed {
            // Nobody will ever read this: the kernel says so.
            self.abort(id, to);
            self.sweep(id);
            return;
        }
        me.inbox.extend(&bytes);
        let from = 1 - to;
        self.travel(id, from, Action::Ack { link: id, to: from, bytes: bytes.len() });
        self.readable(id, to);
    }

    /// Tells the owner of an end that bytes, the end of the stream or an error are there.
    fn readable(&mut self, id: u64, side: usize) {
        let Some(link) = self.links.get(&id) else { return };
        match link.ends[side].owner {
            Owner::Peer(peer) => self.pump_peer(peer),
            Owner::Conn(shard, conn) => self.pump_receive(shard, conn),
            Owner::Queued(..) | Owner::Orphan(_) | Owner::Nobody => {}
        }
    }

    pub(super) fn pump_peer(&mut self, peer: u32) {
        let state = &mut self.peers[peer as usize];
        let (id, side) = (state.link, state.side);
        let Some(link) = self.links.get_mut(&id) else { return };
        let end = &mut link.ends[side];
        if !state.reading || state.closed {
            return;
        }
        let taken = end.inbox.len();
        if taken > 0 {
            let bytes = end.inbox.make_contiguous();
            self.trace.peer(self.now, peer, bytes);
            state.arrived.extend_from_slice(bytes);
            state.read += taken as u64;
            end.inbox.clear();
        }
        if state.ended.is_none() {
            if let Some(errno) = end.error.take() {
                state.ended = Some(Ended::Error(Errno(errno)));
            } else if end.eof {
                state.ended = Some(Ended::Eof);
            }
        }
        if taken > 0 {
            self.window_opens(id, side);
        }
    }

    /// The owner of that end has read: tells the other one when it is waiting for room.
    fn window_opens(&mut self, id: u64, side: usize) {
        let to = 1 - side;
        let waits = self.links.get(&id).is_some_and(|link| !link.ends[to].all_sent());
        if waits {
            self.travel(id, to, Action::Window { link: id, to });
        }
    }

    fn ack(&mut self, id: u64, side: usize, bytes: usize) {
        let Some(link) = self.links.get_mut(&id) else { return };
        let end = &mut link.ends[side];
        let owner = end.owner;
        let notices = end.acknowledge(bytes);
        self.transmit(id, side);
        if let Owner::Conn(shard, _) | Owner::Orphan(shard) = owner {
            self.acknowledged(shard, &notices);
        }
        if let Owner::Conn(shard, conn) = owner {
            self.take(shard, conn, true);
        }
        self.sweep(id);
    }

    fn fin(&mut self, id: u64, to: usize) {
        let Some(link) = self.links.get_mut(&id) else { return };
        link.ends[to].eof = true;
        self.readable(id, to);
        self.sweep(id);
    }

    // Endings.

    /// The network breaks the connection: both ends learn it.
    pub(super) fn break_link(&mut self, id: u64) {
        for to in 0..2 {
            self.travel(id, to, Action::Reset { link: id, to });
        }
    }

    /// That end is broken from its own side; the other one gets a RST.
    pub(super) fn abort(&mut self, id: u64, side: usize) {
        if self.break_end(id, side, None) {
            let to = 1 - side;
            self.travel(id, to, Action::Reset { link: id, to });
        }
    }

    fn reset_arrives(&mut self, id: u64, to: usize) {
        let Some(link) = self.links.get(&id) else { return };
        let errno = if link.ends[to].up { libc::ECONNRESET } else { ECONNREFUSED };
        if self.break_end(id, to, Some(errno)) {
            // The other end of a refused connection never existed.
            if errno == ECONNREFUSED
                && let Some(link) = self.links.get_mut(&id)
            {
                link.ends[1 - to].broken = true;
                link.ends[1 - to].closed = true;
            }
            self.readable(id, to);
        }
        self.sweep(id);
    }

    /// False when it was broken already.
    fn break_end(&mut self, id: u64, side: usize, error: Option<i32>) -> bool {
        let Some(link) = self.links.get_mut(&id) else { return false };
        let end = &mut link.ends[side];
        if end.broken {
            return false;
        }
        end.broken = true;
        end.error = error;
        let owner = end.owner;
        let notices = end.abandon();
        if let Owner::Conn(shard, _) | Owner::Orphan(shard) = owner {
            self.acknowledged(shard, &notices);
        }
        if let Owner::Conn(shard, conn) = owner {
            if let Some(errno) = error {
                self.connected(shard, conn, Err(Errno(errno)));
            }
            // Which of a pending send and a receive meets the error first is open.
            if self.random.below(2) == 0 {
                self.pump_receive(shard, conn);
            }
            self.take(shard, conn, true);
        }
        true
    }

    /// No more bytes will be written at that end.
    pub(super) fn shut_end(&mut self, id: u64, side: usize) {
        if let Some(link) = self.links.get_mut(&id) {
            let end = &mut link.ends[side];
            if end.fin == Fin::Open {
                end.fin = Fin::Wanted;
            }
            self.transmit(id, side);
        }
    }

    /// Closes the descriptor: unread bytes turn the FIN into a RST, as in the kernel.
    pub(super) fn close_end(&mut self, id: u64, side: usize) {
        self.shut_end(id, side);
        let Some(link) = self.links.get_mut(&id) else { return };
        let end = &mut link.ends[side];
        end.closed = true;
        end.owner = match end.owner {
            Owner::Conn(shard, _) => Owner::Orphan(shard),
            _ => Owner::Nobody,
        };
        let unread = !end.inbox.is_empty();
        end.inbox.clear();
        if unread || !end.up {
            self.abort(id, side);
        }
        self.sweep(id);
    }

    /// Forgets a connection that is over on both sides. Acknowledgements on their way to closed
    /// ends count as arrived.
    fn sweep(&mut self, id: u64) {
        if !self.links.get(&id).is_some_and(Link::is_over) {
            return;
        }
        let Some(mut link) = self.links.remove(&id) else { return };
        for end in &mut link.ends {
            if let Owner::Orphan(shard) = end.owner {
                let notices = end.abandon();
                self.acknowledged(shard, &notices);
            }
        }
    }

    // Receiving.

    /// Reports what an armed receive finds.
    pub(super) fn pump_receive(&mut self, shard: u32, conn: Conn) {
        loop {
            let Some(driver) = self.shards.get_mut(&shard) else { return };
            let free = driver.buffers_used < self.faults.receive_buffers;
            let Some(state) = driver.get_mut(conn) else { return };
            if state.receive == Receive::Off || state.starved || state.ended {
                return;
            }
            let (id, side) = (state.link, state.side);
            let Some(link) = self.links.get_mut(&id) else { return };
            let end = &mut link.ends[side];
            if end.inbox.is_empty() {
                let ended = match end.error.take() {
                    Some(errno) => Ended::Error(Errno(errno)),
                    None if end.eof || end.broken => Ended::Eof,
                    None => return,
                };
                state.receive = Receive::Off;
                state.ended = true;
                self.complete(shard, Event::ReceiveEnded { conn, ended }, None);
                return;
            }
            let discard = state.receive == Receive::Discard;
            if !discard && (!free || self.random.chance(self.faults.no_buffers)) {
                state.starved = true;
                driver.stats.receive_no_buffers += 1;
                let pause = self.faults.rearm.draw(&mut self.random);
                self.schedule(self.now + pause, Action::Rearm { shard, conn });
                return;
            }
            let max = if discard { SEGMENT_MAX } else { self.faults.receive_buffer as usize };
            let mut len = end.inbox.len().min(max);
            if self.random.chance(self.faults.split_receive) {
                len = self.random.within(1, len as u64) as usize;
            }
            let bytes: Vec<u8> = end.inbox.drain(..len).collect();
            let event = if discard {
                Event::Discarded { conn, bytes: len as u32 }
            } else {
                driver.buffers_used += 1;
                Event::Received { conn, data: Received::owned(bytes) }
            };
            self.complete(shard, event, None);
            self.window_opens(id, side);
            if self.random.chance(self.faults.reset) {
                self.break_link(id);
            }
        }
    }

    // Drivers.

    pub(super) fn conn_mut(&mut self, shard: u32, conn: Conn) -> Option<&mut ConnState> {
        self.shards.get_mut(&shard)?.get_mut(conn)
    }

    /// Puts an event into a driver's completion queue.
    pub(super) fn complete(&mut self, shard: u32, event: Event, notice: Option<u64>) {
        let delay = self.faults.completion.draw(&mut self.random);
        self.complete_after(shard, delay, event, notice);
    }

    pub(super) fn complete_after(
        &mut self,
        shard: u32,
        delay: u64,
        event: Event,
        notice: Option<u64>,
    ) {
        let tie = self.random.bits();
        let at = self.now + delay;
        if let Some(driver) = self.shards.get_mut(&shard) {
            driver.complete(at, tie, event, notice);
        }
    }

    pub(super) fn wake_shard(&mut self, shard: u32) {
        if self.faults.planted_lose_wake && self.random.chance(LOSE_WAKE) {
            return;
        }
        let delay = self.faults.wake.draw(&mut self.random);
        if let Some(driver) = self.shards.get_mut(&shard)
            && !driver.woken_queued
        {
            driver.woken_queued = true;
            self.complete_after(shard, delay, Event::Woken, None);
        }
    }

    /// Takes over the wakes that were made without a ring.
    pub(super) fn poll_wakers(&mut self) {
        let woken: Vec<u32> = self
            .shards
            .iter()
            .filter(|(_, state)| state.waker.flag.swap(false, Ordering::Acquire))
            .map(|(&shard, _)| shard)
            .collect();
        for shard in woken {
            self.wake_shard(shard);
        }
    }

    /// Submits a close: shuts down, cancels what is pending and closes the descriptor. Memory
    /// that the network refers to stays held without it.
    pub(super) fn terminate(&mut self, shard: u32, conn: Conn) {
        let Some(driver) = self.shards.get_mut(&shard) else { return };
        let Some(state) = driver.get_mut(conn) else { return };
        state.receive = Receive::Off;
        let (id, side) = (state.link, state.side);
        if let Some(send) = &mut state.send {
            send.stage = Stage::Done;
        }
        let mut waiting = Vec::new();
        for (&number, notice) in driver.notices.iter_mut().filter(|(_, n)| n.conn == conn) {
            notice.complete = true;
            waiting.push(number);
        }
        for &notice in &waiting {
            self.settle(shard, notice);
        }
        self.close_end(id, side);
        if !waiting.is_empty() {
            self.schedule(self.now + LINGER_NS, Action::Linger { link: id, to: side });
        }
        let delay = self.faults.close.draw(&mut self.random);
        self.complete_after(shard, delay, Event::Closed { conn }, None);
    }
}
