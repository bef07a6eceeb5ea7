//! What the simulated kernel keeps for one driver: connections, listeners, completions.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::link::Hold;
use crate::driver::{Conn, DriverStats, Event, Gather, Listener, Open, Opening, Payload};

/// The part of a waker that both sides see.
#[derive(Debug)]
pub(super) struct WakeCell {
    pub(super) shard: u32,
    pub(super) flag: AtomicBool,
}

/// Requests wait here until the next turn submits them, as in a ring.
pub(super) enum Op {
    Receive(Conn),
    Discard(Conn),
    Pause(Conn),
    Send(Conn),
    Cancel(Conn),
    Close(Conn),
    Connect(Conn),
    Wake(Arc<WakeCell>),
    Open(Opening, Open),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Receive {
    Off,
    On,
    Discard,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// The owner has called `send`; the kernel has not seen it.
    Issued,
    /// With the kernel.
    Pending,
    /// `Event::Sent` is in the completion queue.
    Done,
}

/// The send in flight of a connection.
pub(super) struct Sending {
    pub(super) stage: Stage,
    /// Held here for plain sends, in the notice's hold for zero-copy ones.
    pub(super) payload: Option<Payload>,
    pub(super) zero_copy: bool,
    pub(super) notice: Option<u64>,
    pub(super) total: u32,
    pub(super) taken: u32,
}

/// A zero-copy send whose memory is not released yet.
pub(super) struct Notice {
    pub(super) conn: Conn,
    pub(super) hold: Rc<Hold>,
    /// Bytes the network still refers to.
    pub(super) outstanding: usize,
    pub(super) copied: bool,
    /// The result is in the completion queue: no more bytes will be taken.
    pub(super) complete: bool,
    pub(super) scheduled: bool,
}

impl Notice {
    pub(super) fn new(conn: Conn, hold: Rc<Hold>, copied: bool) -> Notice {
        Notice { conn, hold, outstanding: 0, copied, complete: false, scheduled: false }
    }
}

pub(super) struct ConnState {
    pub(super) link: u64,
    pub(super) side: usize,
    pub(super) connecting: bool,
    /// The owner has called `close`.
    pub(super) closing: bool,
    /// Its `Accepted` was never reported, so its `Closed` is not either.
    pub(super) unannounced: bool,
    pub(super) receive: Receive,
    /// ENOBUFS: waits for its next try.
    pub(super) starved: bool,
    pub(super) send: Option<Sending>,
    /// The end of the stream has been reported; receiving again reports nothing.
    pub(super) ended: bool,
    /// When the latest completion becomes visible: later ones may not overtake it.
    pub(super) latest: u64,
}

impl ConnState {
    pub(super) fn new(link: u64, side: usize) -> ConnState {
        ConnState {
            link,
            side,
            connecting: false,
            closing: false,
            unannounced: false,
            receive: Receive::Off,
            starved: false,
            send: None,
            ended: false,
            latest: 0,
        }
    }
}

#[derive(Default)]
struct Slot {
    generation: u32,
    state: Option<ConnState>,
}

/// An event the driver will see at `at`.
pub(super) struct Completion {
    pub(super) at: u64,
    tie: u64,
    serial: u64,
    pub(super) event: Event,
    /// The zero-copy send an `Event::Released` is about.
    pub(super) notice: Option<u64>,
}

impl Completion {
    fn key(&self) -> (u64, u64, u64) {
        (self.at, self.tie, self.serial)
    }
}

impl PartialEq for Completion {
    fn eq(&self, other: &Completion) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Completion {}

impl PartialOrd for Completion {
    fn partial_cmp(&self, other: &Completion) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Completion {
    /// Reversed: the heap gives the greatest, the world wants the earliest.
    fn cmp(&self, other: &Completion) -> Ordering {
        other.key().cmp(&self.key())
    }
}

pub(super) struct ListenerState {
    pub(super) addr: SocketAddr,
    pub(super) reuse_port: bool,
}

pub(super) struct Shard {
    pub(super) waker: Arc<WakeCell>,
    slots: Vec<Slot>,
    free: VecDeque<u32>,
    pub(super) listeners: Vec<Option<ListenerState>>,
    pub(super) submit: VecDeque<Op>,
    completions: BinaryHeap<Completion>,
    serial: u64,
    /// Zero-copy sends by number. They outlive their connections.
    pub(super) notices: BTreeMap<u64, Notice>,
    pub(super) notices_made: u64,
    pub(super) opens_made: u32,
    #[allow(clippy::vec_box, reason = "the boxes are reused: a payload owns one")]
    pub(super) gathers: Vec<Box<Gather>>,
    pub(super) buffers_used: u32,
    pub(super) woken_queued: bool,
    pub(super) stats: DriverStats,
    /// What the last turn asked for.
    pub(super) deadline: Option<u64>,
    /// The last turn found nothing and its deadline has not passed: a real driver sleeps.
    pub(super) asleep: bool,
    /// Before this time the shard is busy with its last turn.
    pub(super) ready_at: u64,
    /// The clock as of the last turn.
    pub(super) turned_at: u64,
    /// The clock as last read during a turn.
    pub(super) exact: u64,
}

impl Shard {
    pub(super) fn new(id: u32, now: u64) -> Shard {
        Shard {
            waker: Arc::new(WakeCell { shard: id, flag: AtomicBool::new(false) }),
            slots: Vec::new(),
            free: VecDeque::new(),
            listeners: Vec::new(),
            submit: VecDeque::new(),
            completions: BinaryHeap::new(),
            serial: 0,
            notices: BTreeMap::new(),
            notices_made: 0,
            opens_made: 0,
            gathers: Vec::new(),
            buffers_used: 0,
            woken_queued: false,
            stats: DriverStats::default(),
            deadline: None,
            asleep: false,
            ready_at: now,
            turned_at: now,
            exact: now,
        }
    }

    pub(super) fn insert(&mut self, state: ConnState) -> Conn {
        // The slot freed last is used first: a stale handle then meets its successor soonest.
        let slot = self.free.pop_back().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            (self.slots.len() - 1) as u32
        });
        let entry = &mut self.slots[slot as usize];
        entry.generation += 1;
        entry.state = Some(state);
        Conn { slot, generation: entry.generation }
    }

    pub(super) fn remove(&mut self, conn: Conn) -> Option<ConnState> {
        let entry = self.slots.get_mut(conn.slot as usize)?;
        if entry.generation != conn.generation {
            return None;
        }
        let state = entry.state.take()?;
        self.free.push_back(conn.slot);
        Some(state)
    }

    pub(super) fn get(&self, conn: Conn) -> Option<&ConnState> {
        let entry = self.slots.get(conn.slot as usize)?;
        if entry.generation == conn.generation { entry.state.as_ref() } else { None }
    }

    pub(super) fn get_mut(&mut self, conn: Conn) -> Option<&mut ConnState> {
        let entry = self.slots.get_mut(conn.slot as usize)?;
        if entry.generation == conn.generation { entry.state.as_mut() } else { None }
    }

    /// True when this driver has handed out that handle at some time.
    pub(super) fn has_issued(&self, conn: Conn) -> bool {
        self.slots
            .get(conn.slot as usize)
            .is_some_and(|entry| (1..=entry.generation).contains(&conn.generation))
    }

    pub(super) fn conns(&self) -> impl Iterator<Item = (Conn, &ConnState)> {
        self.slots.iter().enumerate().filter_map(|(slot, entry)| {
            let conn = Conn { slot: slot as u32, generation: entry.generation };
            entry.state.as_ref().map(|state| (conn, state))
        })
    }

    /// Queues a completion; those of one connection stay in order whatever their delays.
    pub(super) fn complete(&mut self, at: u64, tie: u64, event: Event, notice: Option<u64>) {
        let mut at = at;
        if let Some(state) = conn_of(&event).and_then(|conn| self.get_mut(conn)) {
            at = at.max(state.latest + 1);
            state.latest = at;
        }
        self.serial += 1;
        self.completions.push(Completion { at, tie, serial: self.serial, event, notice });
    }

    pub(super) fn pop_due(&mut self, now: u64) -> Option<Completion> {
        if self.completions.peek()?.at > now { None } else { self.completions.pop() }
    }

    pub(super) fn completions(&self) -> impl Iterator<Item = &Completion> {
        self.completions.iter()
    }

    /// When this shard's thread runs next.
    pub(super) fn wake_time(&self, now: u64) -> Option<u64> {
        let wanted = if self.asleep && self.submit.is_empty() {
            let completion = self.completions.peek().map(|completion| completion.at);
            [self.deadline, completion].into_iter().flatten().min()?
        } else {
            now
        };
        Some(wanted.max(self.ready_at).max(now))
    }

    /// A connection and the zero-copy sends of all connections.
    pub(super) fn get_with_notices(
        &mut self,
        conn: Conn,
    ) -> Option<(&mut ConnState, &mut BTreeMap<u64, Notice>)> {
        let entry = self.slots.get_mut(conn.slot as usize)?;
        let state = entry.state.as_mut().filter(|_| entry.generation == conn.generation)?;
        Some((state, &mut self.notices))
    }

    /// Drops the hold on the memory of a zero-copy send.
    pub(super) fn forget_notice(&mut self, notice: u64) {
        let Some(entry) = self.notices.remove(&notice) else { return };
        self.stats.zero_copy_copied += u64::from(entry.copied);
        if let Some(payload) = entry.hold.release() {
            self.recycle(payload);
        }
    }

    /// Gives a payload's gather back to the pool; everything else is dropped.
    pub(super) fn recycle(&mut self, payload: Payload) {
        if let Payload::Gather(mut gather) = payload {
            gather.clear();
            self.gathers.push(gather);
        }
    }

    pub(super) fn listening(&self, listener: Listener) -> bool {
        self.listeners.get(listener.0 as usize).is_some_and(Option::is_some)
    }
}

/// The connection an event belongs to.
pub(super) fn conn_of(event: &Event) -> Option<Conn> {
    match event {
        Event::Accepted { conn, .. }
        | Event::Connected { conn, .. }
        | Event::Received { conn, .. }
        | Event::Discarded { conn, .. }
        | Event::ReceiveEnded { conn, .. }
        | Event::Sent { conn, .. }
        | Event::Released { conn, .. }
        | Event::HandedOver { conn, .. }
        | Event::Closed { conn } => Some(*conn),
        Event::AcceptFailed { .. } | Event::Opened { .. } | Event::Woken => None,
    }
}
