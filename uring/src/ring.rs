//! [`Ring`]: the driver on a real io_uring.
//!
//! One thread owns it. Operations are queued as they are issued and submitted together by
//! [`Driver::turn`], which then turns completions into events. Everything the kernel may touch is
//! owned here by type: descriptors and ordinary sends by the connection, zero-copy sends by the
//! table of holds, receive buffers by the buffer ring and its guards.

mod accept;
mod connection;
mod files;
mod receive;
mod send;
mod setup;
mod teardown;
mod wake;

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::ptr::NonNull;
use std::rc::Rc;
use std::time::Duration;

use io_uring::{cqueue, opcode, squeue};
use rustix::time::{ClockId, clock_gettime};

use crate::driver::*;
use crate::hold::{Holds, Pool};
use crate::links::{Links, Mode, Sending};
use crate::net;
use crate::opens::Opens;
use crate::ops::{Op, Token};
use crate::queue::{Queue, Wait};
use crate::recv::{BufferRing, Scheme};
use crate::registration::{Registration, Slabs};
use crate::splice::{Pipes, Stage};
use crate::wake::Waker;

use accept::Doors;
pub use setup::RingOptions;

/// The group of the one buffer ring.
const BUFFER_GROUP: u16 = 0;
/// More connections than that without a buffer at a time, and more buffers are put to use. A few
/// that send much are better held back until the owner has seen what is there.
const STARVED_MAX: usize = 8;
/// A turn stops asking for more when it has this many events, so that the owner gets to work.
const EVENTS_PER_TURN: usize = 4096;

/// A driver on io_uring. Belongs to the thread that made it.
pub struct Ring {
    // Declared first, so dropped first: closing the ring ends what `drop` could not.
    queue: Queue,
    clock: u64,
    links: Links,
    doors: Doors,
    holds: Holds,
    /// Zero-copy sends that are done and whose memory the kernel still holds.
    unnotified: u32,
    pool: Pool,
    pipes: Pipes,
    opens: Opens,
    slabs: Slabs,
    buffers: Rc<BufferRing>,
    /// Connections that found no receive buffer.
    starved: Vec<Conn>,
    /// Events that arose outside of `turn`.
    ready: Vec<Event>,
    waker: Waker,
    ring_messages: bool,
    /// Drivers woken so far: a wake that fails is delivered by its eventfd.
    targets: Vec<Waker>,
    /// Where the kernel puts the eventfd's counter. Freed when no read is in flight.
    wake_count: NonNull<u64>,
    wake_armed: bool,
    /// The ring is being dropped: nothing is armed again.
    ending: bool,
    stats: DriverStats,
    napi: Result<bool, Errno>,
    shard: u32,
}

impl Ring {
    /// How zero-copy sends are done now, and why not better.
    pub fn registration(&self) -> Registration {
        self.slabs.status()
    }

    /// True when receive buffers are used up piece by piece.
    pub fn incremental_buffers(&self) -> bool {
        self.buffers.scheme() == Scheme::Pieces
    }

    /// Whether network devices are polled before a sleep. It costs CPU time to save latency, and
    /// only sockets whose packets come from a device with NAPI have any of it (not loopback).
    ///
    /// # Errors
    /// It was asked for, and the kernel refused. The ring works without.
    pub fn napi_busy_poll(&self) -> Result<bool, Errno> {
        self.napi
    }

    /// Number of the shard this ring was made for.
    pub fn shard(&self) -> u32 {
        self.shard
    }

    /// Connections, closing ones included.
    pub fn connections(&self) -> usize {
        self.links.live().count()
    }

    /// Zero-copy sends whose memory the kernel still holds.
    pub fn holds(&self) -> usize {
        self.holds.live()
    }

    /// Asks the kernel to end an operation; its own completion tells how that went.
    fn cancel(&mut self, token: u64) {
        let entry = opcode::AsyncCancel::new(token)
            .build()
            .flags(squeue::Flags::SKIP_SUCCESS)
            .user_data(Token::new(Op::Cancel, 0, 0).pack());
        // SAFETY: a cancel names no memory and no descriptor.
        unsafe { self.queue.push(&entry) };
    }

    /// What has to be done before waiting.
    fn prepare(&mut self, now: u64) {
        if self.starved.len() > STARVED_MAX {
            self.buffers.grow();
        }
        if !self.starved.is_empty() && self.buffers.available() > 0 {
            self.feed_starved();
        }
        self.doors_due(now);
        self.slabs.trim(&self.queue);
    }

    /// Hands out events that arose between turns.
    fn report_ready(&mut self, events: &mut Vec<Event>) {
        for event in self.ready.drain(..) {
            match &event {
                Event::Closed { conn } | Event::HandedOver { conn, .. } => {
                    self.links.reported(*conn);
                }
                Event::Sent { conn, .. } if self.links.open(*conn).is_none() => continue,
                _ => {}
            }
            events.push(event);
        }
    }

    /// Handles everything the kernel has completed.
    fn reap(&mut self, first: usize, events: &mut Vec<Event>) -> io::Result<()> {
        loop {
            let taken = self.queue.collect();
            while let Some(completion) = self.queue.next() {
                self.complete(&completion, events);
            }
            // An enter runs about twenty pieces of deferred work. The flag that says there is
            // more can be stale, so progress is the second test.
            let full = events.len() - first >= EVENTS_PER_TURN;
            if taken == 0 || full || !self.queue.more() {
                return Ok(());
            }
            self.queue.enter(Wait::No)?;
        }
    }

    fn complete(&mut self, completion: &cqueue::Entry, events: &mut Vec<Event>) {
        let (result, flags) = (completion.result(), completion.flags());
        let Some(token) = Token::unpack(completion.user_data()) else {
            self.stats.stale_completions += 1;
            return;
        };
        let conn = Conn { slot: token.slot, generation: token.generation };
        match token.op {
            Op::Cancel => {}
            Op::Wake => self.woken(events),
            Op::WakeRead => {
                self.wake_armed = false;
                self.woken(events);
                self.arm_wake();
            }
            Op::WakeFailed => self.targets[token.slot as usize].ring_bell(),
            Op::Accept => self.complete_accept(token.slot, result, flags, events),
            Op::Connect => self.complete_connect(conn, result, events),
            Op::Receive => self.complete_receive(conn, Mode::Deliver, result, flags, events),
            Op::Discard => self.complete_receive(conn, Mode::Discard, result, flags, events),
            Op::Send => self.complete_send(conn, result, events),
            Op::SendZeroCopy => self.complete_zero_copy(token, result, flags, events),
            Op::FileRead | Op::FileWrite | Op::FilePoll => {
                self.complete_file(conn, result, events);
            }
            Op::Open | Op::Stat => self.complete_open(token, result, events),
        }
    }

    /// Operations the kernel has not finished, notifications not counted.
    fn outstanding(&self) -> usize {
        self.links.ops() + self.doors.armed() + self.opens.live() + usize::from(self.wake_armed)
    }
}

impl Driver for Ring {
    type Waker = Waker;

    fn now(&self) -> u64 {
        self.clock
    }

    fn now_exact(&self) -> u64 {
        clock()
    }

    fn waker(&self) -> Waker {
        self.waker.clone()
    }

    fn wake(&mut self, target: &Waker) {
        self.wake_target(target);
    }

    fn listen(&mut self, addr: SocketAddr, options: &ListenOptions) -> io::Result<Listener> {
        self.listen_on(net::listen(addr, options)?)
    }

    fn listen_on(&mut self, socket: OwnedFd) -> io::Result<Listener> {
        Ok(self.open_door(socket))
    }

    fn stop_listening(&mut self, listener: Listener) {
        self.shut_door(listener);
    }

    fn connect(&mut self, addr: SocketAddr, options: &ConnectOptions) -> io::Result<Conn> {
        self.dial(addr, options)
    }

    fn receive(&mut self, conn: Conn) {
        self.want(conn, Some(Mode::Deliver));
    }

    fn receive_discard(&mut self, conn: Conn) {
        self.want(conn, Some(Mode::Discard));
    }

    fn receive_pause(&mut self, conn: Conn) {
        self.want(conn, None);
    }

    fn set_nodelay(&mut self, conn: Conn, on: bool) {
        if let Some(link) = self.links.open(conn) {
            net::set_nodelay(link.fd(), on);
        }
    }

    fn send(&mut self, conn: Conn, payload: Payload, mode: SendMode) {
        self.issue_send(conn, payload, mode);
    }

    fn send_in_flight(&self, conn: Conn) -> bool {
        self.links.get(conn).is_some_and(|link| !matches!(link.send, Sending::Idle))
    }

    fn cancel_send(&mut self, conn: Conn) {
        let Some(link) = self.links.get_mut(conn) else { return };
        let token = match &mut link.send {
            Sending::Idle => return,
            Sending::Copy { .. } => conn.token(Op::Send),
            Sending::ZeroCopy { hold, generation } => {
                Token::new(Op::SendZeroCopy, *hold, *generation).pack()
            }
            Sending::File(file) => {
                file.cancelled = true;
                conn.token(file_op(file.stage))
            }
        };
        self.cancel(token);
    }

    fn take_gather(&mut self) -> Box<Gather> {
        self.pool.take_gather()
    }

    fn open_file(&mut self, what: Open) -> Opening {
        self.begin_open(what)
    }

    fn hand_over(&mut self, conn: Conn) {
        self.hand_over_conn(conn);
    }

    fn close(&mut self, conn: Conn) {
        self.close_conn(conn);
    }

    fn turn(&mut self, deadline: Option<u64>, events: &mut Vec<Event>) -> io::Result<()> {
        let first = events.len();
        self.links.turn();
        self.report_ready(events);
        let mut now = clock();
        loop {
            self.prepare(now);
            let due = [deadline, self.doors.due()].into_iter().flatten().min();
            let wait = match due {
                _ if events.len() > first || self.queue.has_pending() => Wait::No,
                None => Wait::Forever,
                Some(due) if due <= now => Wait::No,
                Some(due) => Wait::AtMost(Duration::from_nanos(due - now)),
            };
            // Notifications come one by one and are never urgent: whoever gathers waits for all.
            self.queue.expect(self.unnotified);
            self.queue.enter(wait)?;
            self.reap(first, events)?;
            now = clock();
            if events.len() > first || deadline.is_some_and(|deadline| deadline <= now) {
                break;
            }
        }
        self.clock = now;
        Ok(())
    }

    fn gather_completions(&mut self, events: u32, wait_ns: u64) {
        self.queue.gather(events, Duration::from_nanos(wait_ns));
    }

    fn take_diagnostic(&mut self) -> Option<String> {
        self.slabs.take_news()
    }

    fn stats(&self) -> DriverStats {
        DriverStats {
            enters: self.queue.enters,
            completions: self.queue.completions,
            cq_overflows: self.queue.overflows,
            ..self.stats
        }
    }
}

fn file_op(stage: Stage) -> Op {
    match stage {
        Stage::Read => Op::FileRead,
        Stage::Write => Op::FileWrite,
        Stage::Poll => Op::FilePoll,
    }
}

/// CLOCK_MONOTONIC in nanoseconds.
fn clock() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener, TcpStream};

    use io_uring::types;

    use super::*;
    use crate::probe;

    /// Lets the kernel complete an operation under any number, as a late completion would.
    fn forge(ring: &mut Ring, user_data: u64) {
        let entry = opcode::Nop::new().build().user_data(user_data);
        // SAFETY: a no-op names nothing.
        unsafe { ring.queue.push(&entry) };
    }

    #[test]
    fn late_completions_of_a_reused_slot_are_dropped() {
        let options = RingOptions { entries: 64, cq_entries: 256, ..RingOptions::default() };
        let mut ring = Ring::new(options).expect("the tests need io_uring");
        let mut events = Vec::new();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let addr = listener.local_addr().expect("bound");
        ring.listen_on(listener.into()).expect("a listener");
        let _peer = TcpStream::connect(addr).expect("the backlog has room");
        let conn = loop {
            ring.turn(Some(clock() + 1_000_000_000), &mut events).expect("the ring works");
            if let Some(Event::Accepted { conn, .. }) = events.pop() {
                break conn;
            }
        };
        ring.receive(conn);
        let stale = Conn { generation: conn.generation.wrapping_sub(1), ..conn };
        let ops = [Op::Connect, Op::Receive, Op::Discard, Op::Send, Op::FileRead, Op::FilePoll];
        for op in ops {
            forge(&mut ring, stale.token(op));
        }
        forge(&mut ring, Token::new(Op::SendZeroCopy, 0, 5).pack());
        forge(&mut ring, Conn { slot: 1 << 20, generation: 0 }.token(Op::Send));
        forge(&mut ring, 0);
        ring.turn(Some(clock() + 20_000_000), &mut events).expect("the ring works");
        assert!(events.is_empty(), "{events:?}");
        assert_eq!(ring.stats().stale_completions, ops.len() as u64 + 3);
        assert_eq!(ring.outstanding(), 3, "accept, receive and wake are still armed");
    }

    #[test]
    fn busy_polling_is_as_asked_for() {
        let able = probe::probe().expect("the tests need io_uring").napi;
        for microseconds in [0, 70] {
            let options = RingOptions {
                entries: 64,
                cq_entries: 256,
                napi_busy_poll_us: microseconds,
                ..RingOptions::default()
            };
            let ring = Ring::new(options).expect("the tests need io_uring");
            match ring.napi_busy_poll() {
                Ok(on) => assert_eq!(on, microseconds > 0),
                Err(_) => assert!(microseconds > 0 && !able),
            }
            if able {
                // Ending it tells what it was.
                let mut was = types::Napi::new();
                ring.queue.submitter().unregister_napi(&mut was).expect("the kernel has it");
                assert_eq!(was.busy_poll_timeout(), microseconds);
            }
        }
    }
}
