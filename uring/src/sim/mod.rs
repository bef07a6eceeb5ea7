//! A simulated kernel and network behind the [`Driver`](crate::Driver) interface.
//!
//! One [`SimWorld`] holds the clock, the network and any number of drivers; everything in it runs
//! on one thread and follows from one seed. A test owns the shards and the peers and asks the
//! world who is next:
//!
//! ```text
//! let world = SimWorld::new(seed, Faults::seeded(seed));
//! let mut shards = [Shard::new(world.driver(0)), Shard::new(world.driver(1))];
//! let peer = world.connect(addr);
//! while let Some(shard) = world.next_turn(until) {
//!     shards[shard as usize].turn();          // calls driver.turn(deadline, &mut events)
//!     ... look at peers, write, read, reset ...
//! }
//! world.assert_quiet();
//! ```
//!
//! A shard's turn begins with `driver.turn`, which never waits. When it reported nothing and its
//! deadline lies ahead, the shard counts as asleep and [`SimWorld::next_turn`] names it again at
//! its deadline, its next event or its wake; otherwise right after its turn, as a loop would.
//!
//! What the model knows: send buffers and receive windows, latency in each direction, short and
//! pending sends, zero-copy memory that is *read when it is delivered* (so memory reused too early
//! arrives as wrong bytes), late notifications, ENOBUFS, FIN, RST (also the one a kernel sends
//! when a socket is closed with unread bytes), accept queues, SO_REUSEPORT. What it deliberately
//! does not know: loss and congestion (TCP hides them as latency), socket options, UDP.

mod accepted;
mod connect;
mod driver;
mod faults;
mod files;
mod link;
mod peer;
mod random;
mod send;
mod shard;
#[cfg(test)]
mod tests;
mod trace;
mod world;

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;

use crate::Arena;
use crate::driver::Event;

pub use accepted::accepted;
pub use driver::{SimDriver, SimWaker};
pub use faults::{Faults, Span};
pub use peer::{Peer, PeerListener};
pub use random::Random;

use link::Owner;
use shard::Notice;
use world::{PeerListenerState, PeerState, World};

/// A simulated machine room: clock, network, drivers. Cheap to clone; all clones are one world.
#[derive(Clone)]
pub struct SimWorld {
    inner: Rc<RefCell<World>>,
}

impl SimWorld {
    /// A world at time zero in which everything follows from the seed.
    pub fn new(seed: u64, faults: Faults) -> SimWorld {
        SimWorld { inner: Rc::new(RefCell::new(World::new(seed, faults))) }
    }

    /// The driver of a shard. Numbers need not be dense.
    ///
    /// # Panics
    /// When that shard's driver exists and has not been dropped.
    pub fn driver(&self, shard: u32) -> SimDriver {
        SimDriver::new(self, shard)
    }

    /// Virtual time, nanoseconds.
    pub fn now(&self) -> u64 {
        self.inner.borrow().now
    }

    /// A number below `bound` for the test's own choices, so that they follow from the seed too.
    pub fn draw(&self, bound: u64) -> u64 {
        self.inner.borrow_mut().random.below(bound)
    }

    /// The faults in force.
    pub fn faults(&self) -> Faults {
        self.inner.borrow().faults
    }

    /// Changes the faults for what happens from now on: for example none while a run winds down.
    pub fn set_faults(&self, faults: Faults) {
        self.inner.borrow_mut().faults = faults;
    }

    /// Keeps an arena's address space for as long as the world exists. Only runs with
    /// [`Faults::planted_release_early`] need it; no other thread may write to that arena then.
    pub fn lend_arena(&self, arena: &Arena) {
        self.inner.borrow_mut().arena = Some(arena.clone());
    }

    /// Connects a new peer, from an address of 127.0.0.0/8 that no other connection has.
    pub fn connect(&self, target: SocketAddr) -> Peer {
        self.dial(None, target)
    }

    /// Connects a new peer from that address; port 0 means any.
    pub fn connect_from(&self, source: SocketAddr, target: SocketAddr) -> Peer {
        self.dial(Some(source), target)
    }

    fn dial(&self, source: Option<SocketAddr>, target: SocketAddr) -> Peer {
        let mut world = self.inner.borrow_mut();
        let id = world.peers.len() as u32;
        let link = world.new_link(Owner::Peer(id), source, target);
        world.peers.push(PeerState::new(link, 0));
        world.dial(link);
        drop(world);
        Peer { world: self.clone(), id }
    }

    /// Listens on behalf of the test, for drivers that connect out. Takes precedence over drivers
    /// listening on a wildcard address.
    ///
    /// # Panics
    /// When the address is in use.
    pub fn listen_peer(&self, addr: SocketAddr) -> PeerListener {
        let mut world = self.inner.borrow_mut();
        let drivers = world.shards.values().flat_map(|shard| shard.listeners.iter().flatten());
        let mut taken = drivers
            .map(|listener| listener.addr)
            .chain(world.peer_listeners.iter().filter(|listener| listener.open).map(|l| l.addr));
        assert!(!taken.any(|other| other == addr), "{addr} is in use");
        drop(taken);
        let index = world.peer_listeners.len();
        world.peer_listeners.push(PeerListenerState {
            addr,
            queue: Default::default(),
            open: true,
        });
        drop(world);
        PeerListener { world: self.clone(), index }
    }

    /// When the network does something next, nanoseconds; nothing on the way is `None`.
    pub fn next_event_time(&self) -> Option<u64> {
        self.inner.borrow().next_action()
    }

    /// When that shard has to turn next: its deadline, an event for it, a wake, or at once when
    /// it has operations to submit or the last turn did not end in sleep. `None`: never, unless
    /// the network or another shard does something first.
    pub fn wake_time(&self, shard: u32) -> Option<u64> {
        let mut world = self.inner.borrow_mut();
        world.poll_wakers();
        let now = world.now;
        world.shards.get(&shard)?.wake_time(now)
    }

    /// Moves the clock to the network's next event and lets it happen. False: there is none.
    pub fn step(&self) -> bool {
        self.inner.borrow_mut().step(u64::MAX)
    }

    /// Moves the clock to `time`, with everything the network does until then.
    pub fn advance_to(&self, time: u64) {
        let mut world = self.inner.borrow_mut();
        while world.step(time) {}
        world.now = world.now.max(time);
    }

    /// Moves the clock until some shard has to turn and names it; with several, one by lot. At
    /// `until` (nanoseconds), or when nothing will ever happen again, the answer is `None` and
    /// the clock stands at `until`.
    pub fn next_turn(&self, until: u64) -> Option<u32> {
        let mut world = self.inner.borrow_mut();
        loop {
            world.poll_wakers();
            let now = world.now;
            let mut due: Vec<u32> = Vec::new();
            let mut earliest = u64::MAX;
            for (&id, shard) in &world.shards {
                if let Some(at) = shard.wake_time(now) {
                    if at < earliest {
                        due.clear();
                        earliest = at;
                    }
                    if at == earliest {
                        due.push(id);
                    }
                }
            }
            if world.step(earliest.min(until)) {
                continue;
            }
            if due.is_empty() || earliest > until {
                world.now = now.max(until);
                return None;
            }
            world.now = now.max(earliest);
            return world.random.pick(&due).copied();
        }
    }

    /// Folds everything drivers and peers have seen so far, with its times, into one number:
    /// equal for equal runs.
    pub fn trace_hash(&self) -> u64 {
        self.inner.borrow().trace.hash()
    }

    /// Number of events drivers and peers have seen.
    pub fn trace_events(&self) -> u64 {
        self.inner.borrow().trace.events
    }

    /// Prints every event to stderr, for looking at one seed.
    pub fn print_trace(&self, print: bool) {
        self.inner.borrow_mut().trace.print = print;
    }

    /// What drivers still have: one line for each connection, operation, pending event and piece
    /// of memory. Empty when every connection has been closed and reported so.
    pub fn leftovers(&self) -> Vec<String> {
        let world = self.inner.borrow();
        let mut lines = Vec::new();
        for (id, shard) in &world.shards {
            for (conn, state) in shard.conns() {
                let phase = if state.closing { "closing" } else { "open" };
                lines.push(format!("shard {id}: {conn:?} is {phase}"));
                if let Some(send) = &state.send {
                    let (taken, total) = (send.taken, send.total);
                    lines.push(format!("shard {id}: {conn:?} sends {taken} of {total} bytes"));
                }
            }
            for Notice { conn, outstanding, .. } in shard.notices.values() {
                lines.push(format!("shard {id}: holds memory for {conn:?}, {outstanding} bytes"));
            }
            if !shard.submit.is_empty() {
                lines.push(format!("shard {id}: {} operations not submitted", shard.submit.len()));
            }
            // A file that nobody waits for any more is closed with its event.
            let ignored = |event: &Event| matches!(event, Event::Woken | Event::Opened { .. });
            let pending = shard.completions().filter(|done| !ignored(&done.event));
            lines.extend(pending.map(|done| format!("shard {id}: not seen: {:?}", done.event)));
        }
        lines
    }

    /// # Panics
    /// When [`SimWorld::leftovers`] are not empty, with the list.
    pub fn assert_quiet(&self) {
        let leftovers = self.leftovers();
        assert!(leftovers.is_empty(), "left behind:\n{}", leftovers.join("\n"));
    }
}
