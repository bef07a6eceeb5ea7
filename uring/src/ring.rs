//! [`Ring`]: the driver on a real io_uring.
//!
//! One thread owns it. Operations are queued as they are issued and submitted together by
//! [`Driver::turn`], which then turns completions into events. Everything the kernel may touch is
//! owned here by type: descriptors and ordinary sends by the connection, zero-copy sends by the
//! table of holds, receive buffers by the buffer ring and its guards.

mod accept;
mod receive;
mod send;

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::rc::Rc;
use std::time::Duration;

use io_uring::{IoUring, cqueue, opcode, squeue, types};
use rustix::time::{ClockId, clock_gettime};

use crate::arena::Arena;
use crate::driver::*;
use crate::hold::{Holds, Pool};
use crate::links::{Links, Mode, Sending};
use crate::net;
use crate::ops::{Op, Token};
use crate::probe::{self, Unavailable};
use crate::queue::{Queue, Wait};
use crate::recv::{BufferRing, Scheme};
use crate::registration::{Registration, Slabs, ZeroCopy};
use crate::splice::{Pipes, Stage};
use crate::wake::Waker;

use accept::Doors;

/// The group of the one buffer ring.
const BUFFER_GROUP: u16 = 0;
/// Ordinary buffers that lie together as one where buffers are used up piece by piece.
const JOINED_BUFFERS: u16 = 4;
/// More connections than that without a buffer at a time, and more buffers are put to use. A few
/// that send much are better held back until the owner has seen what is there.
const STARVED_MAX: usize = 8;
/// A turn stops asking for more when it has this many events, so that the owner gets to work.
const EVENTS_PER_TURN: usize = 4096;
/// Kernel worker threads of one ring for blocking work (file sends): on files, on the rest.
const WORKERS_MAX: [u32; 2] = [4, 16];
/// How long unacknowledged zero-copy data may keep its memory after the close.
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(10);
/// How long dropping a ring waits for operations, and for zero-copy notifications.
const DROP_WAIT: Duration = Duration::from_secs(2);
const DROP_WAIT_NOTIFICATIONS: Duration = Duration::from_millis(200);

/// How to make a [`Ring`].
#[derive(Clone, Debug)]
pub struct RingOptions {
    /// Number of the shard, for messages.
    pub shard: u32,
    /// Submission queue entries; a fuller queue is submitted in between.
    pub entries: u32,
    /// Completion queue entries; what does not fit is kept by the kernel at some cost.
    pub cq_entries: u32,
    /// Receive buffers, shared by all connections (rounded up to a power of two).
    pub receive_buffers: u16,
    /// Bytes of a receive buffer: most of one [`Event::Received`].
    pub receive_buffer_size: u32,
    /// Use receive buffers up piece by piece where the kernel can (6.12). Four of them then lie
    /// together as one, in the same memory.
    pub incremental_buffers: bool,
    /// Longest busy polling of network devices before a sleep, in microseconds (kernel 6.9);
    /// 0 is off. See [`Ring::napi_busy_poll`].
    pub napi_busy_poll_us: u32,
    /// How zero-copy sends are done.
    pub zero_copy: ZeroCopy,
    /// The arena whose slabs are registered for zero-copy sends.
    pub arena: Option<Arena>,
}

impl Default for RingOptions {
    fn default() -> Self {
        RingOptions {
            shard: 0,
            entries: 4096,
            cq_entries: 65536,
            receive_buffers: 256,
            receive_buffer_size: 16 << 10,
            incremental_buffers: true,
            napi_busy_poll_us: 0,
            zero_copy: ZeroCopy::Registered,
            arena: None,
        }
    }
}

/// A driver on io_uring. Belongs to the thread that made it.
pub struct Ring {
    // Declared first, so dropped first: closing the ring ends what `drop` could not.
    queue: Queue,
    clock: u64,
    links: Links,
    doors: Doors,
    holds: Holds,
    pool: Pool,
    pipes: Pipes,
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
    /// Sets up a ring for the calling thread.
    ///
    /// # Errors
    /// The reason why io_uring cannot be used, with its remedy.
    pub fn new(options: RingOptions) -> Result<Ring, Unavailable> {
        let kernel = probe::kernel()?;
        let ring = set_up(options.entries, options.cq_entries)?;
        probe::operations(&ring)?;
        let failed = |what| move |error: io::Error| Unavailable::from_setup(what, &error);
        // A cap on worker threads is a saving only; old kernels go without.
        let _ = ring.submitter().register_iowq_max_workers(&mut WORKERS_MAX.clone());
        let buffers = receive_buffers(&ring, &options).map_err(failed("receive buffers"))?;
        // SAFETY: the descriptor is borrowed for this call only and `ring` is open.
        let fd = unsafe { BorrowedFd::borrow_raw(ring.as_raw_fd()) };
        let waker = Waker::new(fd).map_err(failed("eventfd"))?;
        let napi = register_napi(&ring, options.napi_busy_poll_us);
        let vectored = kernel >= probe::VECTORED_FIXED_SEND;
        let mut ring = Ring {
            queue: Queue::new(ring),
            clock: clock(),
            links: Links::default(),
            doors: Doors::new(),
            holds: Holds::default(),
            pool: Pool::default(),
            pipes: Pipes::default(),
            slabs: Slabs::new(options.arena, options.zero_copy, vectored),
            buffers,
            starved: Vec::new(),
            ready: Vec::new(),
            waker,
            ring_messages: kernel >= probe::RING_MESSAGES,
            targets: Vec::new(),
            wake_count: NonNull::from(Box::leak(Box::new(0))),
            wake_armed: false,
            ending: false,
            stats: DriverStats::default(),
            napi,
            shard: options.shard,
        };
        ring.arm_wake();
        Ok(ring)
    }

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

    /// Waits on our eventfd, for threads that have no ring.
    fn arm_wake(&mut self) {
        if self.ending || self.wake_armed {
            return;
        }
        let (fd, to) = (types::Fd(self.waker.event()), self.wake_count.as_ptr().cast());
        let token = Token::new(Op::WakeRead, 0, 0).pack();
        let entry = opcode::Read::new(fd, to, 8).build().user_data(token);
        // SAFETY: the eventfd lives as long as `waker`; the counter is freed in `drop` only when
        // no read is in flight.
        unsafe { self.queue.push(&entry) };
        self.wake_armed = true;
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
                Event::Closed { conn } => self.links.reported(*conn),
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
        }
    }

    fn woken(&mut self, events: &mut Vec<Event>) {
        self.waker.noticed();
        events.push(Event::Woken);
    }

    fn complete_connect(&mut self, conn: Conn, result: i32, events: &mut Vec<Event>) {
        let Some(link) = self.links.get_mut(conn) else {
            self.stats.stale_completions += 1;
            return;
        };
        link.ops -= 1;
        link.connect = None;
        if link.closing {
            self.finish_if_idle(conn, events);
        } else {
            let result = if result < 0 { Err(Errno(-result)) } else { Ok(()) };
            events.push(Event::Connected { conn, result });
        }
    }

    /// The last step of a close, once nothing is in flight.
    fn finish_if_idle(&mut self, conn: Conn, events: &mut Vec<Event>) {
        let Some(link) = self.links.get(conn) else { return };
        if !link.closing || link.ops > 0 {
            return;
        }
        self.close_descriptor(conn);
        self.links.reported(conn);
        events.push(Event::Closed { conn });
    }

    fn close_descriptor(&mut self, conn: Conn) {
        let waiting = self.links.get(conn).is_some_and(|link| link.notifications > 0);
        let fd = self.links.remove(conn);
        if waiting {
            // A peer that is gone must not keep blocks for the many minutes TCP would try.
            net::bound_unacknowledged(&fd, UNACKNOWLEDGED_MAX);
        }
        drop(fd);
    }

    /// Operations the kernel has not finished, notifications not counted.
    fn outstanding(&self) -> usize {
        self.links.ops() + self.doors.armed() + usize::from(self.wake_armed)
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
        if !target.claim() {
            return;
        }
        if target.same(&self.waker) {
            self.waker.noticed();
            self.ready.push(Event::Woken);
            return;
        }
        if !self.ring_messages {
            target.ring_bell();
            return;
        }
        let known = self.targets.iter().position(|other| other.same(target));
        let index = known.unwrap_or_else(|| {
            self.targets.push(target.clone());
            self.targets.len() - 1
        });
        let theirs = Token::new(Op::Wake, 0, 0).pack();
        let entry = opcode::MsgRingData::new(types::Fd(target.ring()), 0, theirs, None)
            .build()
            .flags(squeue::Flags::SKIP_SUCCESS)
            .user_data(Token::new(Op::WakeFailed, index as u32, 0).pack());
        // SAFETY: `targets` keeps the waker, and with it the duplicate of the target's ring, for
        // as long as this ring lives.
        unsafe { self.queue.push(&entry) };
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
        let fd = net::dial(addr, options)?;
        let number = types::Fd(fd.as_raw_fd());
        let Some(conn) = self.links.insert(fd) else {
            return Err(io::Error::from_raw_os_error(libc::EMFILE));
        };
        let Some(link) = self.links.get_mut(conn) else {
            return Err(io::Error::from_raw_os_error(libc::EBADF));
        };
        let address = link.connect.insert(Box::new(addr.into()));
        let entry = opcode::Connect::new(number, address.as_ptr().cast(), address.len())
            .build()
            .user_data(conn.token(Op::Connect));
        link.ops += 1;
        // SAFETY: descriptor and boxed address are kept by the link until the completion.
        unsafe { self.queue.push(&entry) };
        Ok(conn)
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

    fn close(&mut self, conn: Conn) {
        let Some(link) = self.links.open(conn) else { return };
        link.closing = true;
        link.receive.want = None;
        net::shut_down(link.fd());
        if link.ops == 0 {
            self.close_descriptor(conn);
            self.ready.push(Event::Closed { conn });
            return;
        }
        // Most operations end by the shutdown; the cancels are for those that do not.
        let armed = link.receive.armed.map(Mode::op);
        let connecting = link.connect.is_some().then_some(Op::Connect);
        for op in armed.into_iter().chain(connecting) {
            self.cancel(conn.token(op));
        }
        self.cancel_send(conn);
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

impl Drop for Ring {
    /// Ends and drains every operation before any memory is freed. What does not end in time is
    /// leaked, never freed.
    fn drop(&mut self) {
        self.ending = true;
        let open: Vec<Conn> = self.links.live().collect();
        for conn in open {
            self.close(conn);
        }
        self.shut_doors();
        self.cancel(Token::new(Op::WakeRead, 0, 0).pack());
        let started = clock();
        let mut events = Vec::new();
        loop {
            let busy = self.outstanding() > 0;
            let limit = match busy {
                true => DROP_WAIT,
                false if self.holds.live() > 0 => DROP_WAIT_NOTIFICATIONS,
                false => break,
            };
            let waited = Duration::from_nanos(clock() - started);
            let Some(left) = limit.checked_sub(waited).filter(|left| !left.is_zero()) else {
                break;
            };
            if self.queue.enter(Wait::AtMost(left)).is_err() {
                break;
            }
            if self.reap(0, &mut events).is_err() {
                break;
            }
            events.clear();
        }
        // Cancels and wakes without a completion may still sit in the queue.
        let _ = self.queue.enter(Wait::No);
        self.holds.leak();
        self.slabs.release(&self.queue);
        let _ = self.queue.submitter().unregister_buf_ring(BUFFER_GROUP);
        if self.links.ops() > 0 {
            self.links.leak();
            std::mem::forget(Rc::clone(&self.buffers));
        }
        if !self.wake_armed {
            // SAFETY: made by `Box::leak` in `new`; no read into it is in flight.
            drop(unsafe { Box::from_raw(self.wake_count.as_ptr()) });
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

/// Makes the io_uring. Queues that do not fit RLIMIT_MEMLOCK are made smaller.
fn set_up(entries: u32, cq_entries: u32) -> Result<IoUring, Unavailable> {
    let (mut entries, mut cq_entries) = (entries.max(8), cq_entries.max(16));
    loop {
        let result = IoUring::builder()
            .setup_clamp()
            .setup_cqsize(cq_entries)
            .setup_submit_all()
            .setup_coop_taskrun()
            .setup_taskrun_flag()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .build(entries);
        match result {
            Ok(ring) => return Ok(ring),
            Err(error) if error.raw_os_error() == Some(libc::ENOMEM) && entries > 256 => {
                entries /= 2;
                cq_entries = (cq_entries / 2).max(2 * entries);
            }
            Err(error) => return Err(Unavailable::from_setup("io_uring_setup", &error)),
        }
    }
}

/// Makes and registers the receive buffers. An older kernel gets them as it can use them.
fn receive_buffers(ring: &IoUring, options: &RingOptions) -> io::Result<Rc<BufferRing>> {
    let (count, size) = (options.receive_buffers, options.receive_buffer_size);
    if options.incremental_buffers {
        let count = count.div_ceil(JOINED_BUFFERS);
        let size = size.saturating_mul(u32::from(JOINED_BUFFERS));
        let buffers = BufferRing::new(count, size, Scheme::Pieces)?;
        match register(ring, &buffers) {
            Ok(()) => return Ok(buffers),
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {}
            Err(error) => return Err(error),
        }
    }
    let buffers = BufferRing::new(count, size, Scheme::Whole)?;
    register(ring, &buffers)?;
    Ok(buffers)
}

fn register(ring: &IoUring, buffers: &BufferRing) -> io::Result<()> {
    let (table, count, flags) = (buffers.table(), buffers.count(), buffers.scheme().flags());
    // SAFETY: the table is unregistered in `drop` of the ring before `buffers` can be freed; a
    // failed registration leaves nothing behind.
    unsafe { ring.submitter().register_buf_ring_with_flags(table, count, BUFFER_GROUP, flags) }
}

/// Asks for busy polling. The devices are found by the kernel, from the sockets in use.
fn register_napi(ring: &IoUring, microseconds: u32) -> Result<bool, Errno> {
    if microseconds == 0 {
        return Ok(false);
    }
    let mut settings = types::Napi::new().set_busy_poll_timeout(microseconds);
    match ring.submitter().register_napi(&mut settings) {
        Ok(()) => Ok(true),
        Err(error) => Err(Errno(error.raw_os_error().unwrap_or(libc::EIO))),
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

    use super::*;

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
