//! The interface between a shard and the kernel (or the simulator that stands in for it).
//!
//! A driver owns connections, listeners and every piece of memory the kernel may still touch.
//! The owner of a [`Conn`] follows three steps, always in this order:
//!
//! 1. *terminate*: [`Driver::close`] shuts the socket down and cancels what is pending;
//! 2. *join*: the driver waits until no operation of the connection is in flight;
//! 3. *close*: the descriptor is closed, the slot is freed and [`Event::Closed`] is reported.
//!
//! After [`Driver::close`] no other event of that connection is reported but `Closed`, exactly
//! once. Events of a connection whose slot has been reused never reach the new owner: the
//! generation in the token differs and the driver drops them.

use std::ffi::CString;
use std::io;
use std::net::SocketAddr;
use std::ops::Deref;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;

use crate::{Block, Received};

/// Names one connection of one driver: a slot and the generation of its use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Conn {
    pub(crate) slot: u32,
    pub(crate) generation: u32,
}

impl Conn {
    /// Names no connection of any driver.
    pub const NONE: Conn = Conn { slot: u32::MAX, generation: u32::MAX };

    /// Index for the owner's own table of sessions. Dense and reused; compare the whole `Conn`
    /// (generation included) before believing that an entry is still the same connection.
    pub fn index(self) -> usize {
        self.slot as usize
    }
}

/// Names one listener of one driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Listener(pub(crate) u32);

/// Names one opening of a file by one driver, until its [`Event::Opened`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Opening {
    pub(crate) slot: u32,
    pub(crate) generation: u32,
}

/// What is to be opened.
#[derive(Clone, Debug)]
pub enum Open {
    /// A folder by its path, which is trusted: to look for files below it. The descriptor is for
    /// nothing else.
    Root(CString),
    /// A file below a folder, for reading. Neither `..` nor a symbolic link leads out of the folder
    /// (`openat2`, RESOLVE_BENEATH), and nothing that is opened makes anybody wait (a FIFO).
    Below(Arc<OwnedFd>, CString),
}

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// A regular file.
    Regular,
    /// A folder.
    Folder,
    /// Anything else.
    Other,
}

/// A file that was opened, as it was then.
#[derive(Debug)]
pub struct Opened {
    /// Its descriptor.
    pub file: OwnedFd,
    /// What it is.
    pub kind: FileKind,
    /// Bytes in it.
    pub len: u64,
    /// Its number on its device.
    pub inode: u64,
    /// When its content was last changed: seconds since 1970, and nanoseconds.
    pub modified: (i64, u32),
}

/// An errno as the kernel returned it (positive), decoded once per operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Errno(pub i32);

impl Errno {
    /// The same error as a `std::io::Error`, for messages to people.
    pub fn to_io(self) -> io::Error {
        io::Error::from_raw_os_error(self.0)
    }
}

impl std::fmt::Display for Errno {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.to_io().fmt(f)
    }
}

/// Socket options of a listener; accepted connections inherit them.
#[derive(Clone, Debug)]
pub struct ListenOptions {
    /// `listen(2)` backlog, connections.
    pub backlog: i32,
    /// Several shards bind the same address; the kernel spreads connections over them.
    pub reuse_port: bool,
    /// TCP_NODELAY.
    pub nodelay: bool,
    /// TCP_NOTSENT_LOWAT in bytes (0: kernel default): keeps the unsent backlog out of the kernel,
    /// so that a drop decision is taken late and memory stays flat.
    pub notsent_lowat: u32,
    /// SO_SNDBUF in bytes (0: kernel autotuning).
    pub send_buffer: u32,
    /// SO_RCVBUF in bytes (0: kernel autotuning).
    pub receive_buffer: u32,
}

/// Socket options of an outgoing connection.
#[derive(Clone, Debug, Default)]
pub struct ConnectOptions {
    /// Local address to bind before connecting (port 0: any).
    pub source: Option<SocketAddr>,
    /// TCP_NODELAY.
    pub nodelay: bool,
    /// SO_SNDBUF in bytes (0: kernel autotuning).
    pub send_buffer: u32,
    /// SO_RCVBUF in bytes (0: kernel autotuning).
    pub receive_buffer: u32,
}

/// A range of a block's published bytes. The block is kept until the kernel is done with it.
#[derive(Clone, Debug)]
pub struct Range {
    /// The block; shard-local count, so that a send costs no atomic operation.
    pub block: Rc<Block>,
    /// First byte.
    pub start: u32,
    /// One past the last byte; at most the block's published length.
    pub end: u32,
}

/// One piece of a gather send.
#[derive(Clone, Debug)]
pub enum Piece {
    /// `head[start..end]` of the [`Gather`] it belongs to: bytes written for one player.
    Head(std::ops::Range<u32>),
    /// Shared bytes.
    Block(Range),
}

/// A vectored send: private header bytes and shared ranges, in order. Empty it with
/// [`Gather::clear`] and reuse it through [`Driver::take_gather`].
#[derive(Clone, Debug, Default)]
pub struct Gather {
    /// Storage of all `Piece::Head` bytes.
    pub head: Vec<u8>,
    /// The pieces in wire order; at most [`Gather::PIECES_MAX`].
    pub pieces: Vec<Piece>,
}

impl Gather {
    /// Most pieces of one send (the kernel's UIO_MAXIOV is 1024; a shorter table stays in cache).
    pub const PIECES_MAX: usize = 256;

    /// Empties the gather and keeps its storage.
    pub fn clear(&mut self) {
        self.head.clear();
        self.pieces.clear();
    }
}

/// What to send. Owned by the driver until the kernel (or the simulator) has let go of it.
#[derive(Clone, Debug)]
pub enum Payload {
    /// One contiguous range of a block: the path nearly every send takes.
    Range(Range),
    /// Several pieces (a block boundary, or private headers).
    Gather(Box<Gather>),
    /// Heap bytes: handshakes, replies, prologues.
    Bytes(Bytes),
    /// `len` bytes of a file from `offset`, moved by splice through a pipe of the driver's.
    File {
        /// The file; a regular file.
        file: Arc<OwnedFd>,
        /// First byte.
        offset: u64,
        /// Number of bytes.
        len: u32,
    },
}

/// How to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendMode {
    /// The kernel copies.
    Copy,
    /// MSG_ZEROCOPY through io_uring, from the registered buffer when the block lies in one.
    /// Applies to `Range` and `Gather` payloads; others are copied.
    ZeroCopy,
}

/// Why a receive ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The peer closed its sending side.
    Eof,
    /// The connection failed.
    Error(Errno),
}

/// Everything that can happen to a shard from outside. The list is closed.
#[derive(Debug)]
pub enum Event {
    /// A listener accepted a connection. Nothing is armed on it yet.
    Accepted {
        /// The listener.
        listener: Listener,
        /// The new connection.
        conn: Conn,
        /// The peer's address.
        peer: SocketAddr,
        /// Our address.
        local: SocketAddr,
    },
    /// Accepting failed (EMFILE, ENFILE, ENOMEM ...). The driver re-arms after a pause; a spare
    /// descriptor lets it take and close the waiting connection politely.
    AcceptFailed {
        /// The listener.
        listener: Listener,
        /// Why.
        errno: Errno,
        /// Connections that were taken and closed because no descriptor was left for them.
        turned_away: u32,
    },
    /// An outgoing connection is up, or failed (then the owner still has to `close` it).
    Connected {
        /// The connection.
        conn: Conn,
        /// Outcome.
        result: Result<(), Errno>,
    },
    /// Bytes arrived. Dropping the [`Received`] gives its buffer back to the ring.
    Received {
        /// The connection.
        conn: Conn,
        /// The bytes.
        data: Received,
    },
    /// Bytes arrived on a connection in discard mode and were thrown away by the kernel.
    Discarded {
        /// The connection.
        conn: Conn,
        /// How many.
        bytes: u32,
    },
    /// No more bytes will arrive.
    ReceiveEnded {
        /// The connection.
        conn: Conn,
        /// Why.
        ended: Ended,
    },
    /// The send in flight is done: that many bytes were taken (possibly fewer than given).
    /// The next send may be issued. With zero-copy the memory may still be referenced.
    Sent {
        /// The connection.
        conn: Conn,
        /// Bytes taken, or the error.
        result: Result<u32, Errno>,
    },
    /// The kernel let go of the memory of an earlier zero-copy send.
    Released {
        /// The connection.
        conn: Conn,
        /// The kernel's usage report: true when it copied after all.
        copied: bool,
    },
    /// A connection given to [`Driver::hand_over`] is the owner's now, and gone from the driver.
    HandedOver {
        /// The connection.
        conn: Conn,
        /// Its socket.
        socket: OwnedFd,
    },
    /// A connection given to [`Driver::close`] is gone.
    Closed {
        /// The connection.
        conn: Conn,
    },
    /// A file that was asked for by [`Driver::open_file`] is open, or cannot be opened.
    Opened {
        /// Which.
        opening: Opening,
        /// The file.
        result: Result<Opened, Errno>,
    },
    /// Somebody used this driver's [`Driver::Waker`].
    Woken,
}

/// Wakes a driver from any thread. Cheap to clone; wakes are idempotent until the target turns.
pub trait Wake: Clone + Send + Sync + 'static {
    /// Wakes the target by a system call; for threads that have no ring of their own.
    fn wake(&self);
}

/// Counters of a driver since its start, for the summary line and the API.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DriverStats {
    /// `io_uring_enter` calls.
    pub enters: u64,
    /// Completions seen.
    pub completions: u64,
    /// Sends issued.
    pub sends: u64,
    /// Sends that were taken only in part.
    pub sends_short: u64,
    /// Zero-copy sends issued.
    pub sends_zero_copy: u64,
    /// Zero-copy sends the kernel copied after all.
    pub zero_copy_copied: u64,
    /// Receives that ended because the buffer ring was empty, re-armed later.
    pub receive_no_buffers: u64,
    /// Times the completion queue overflowed.
    pub cq_overflows: u64,
    /// Completions of slots that had been reused, dropped.
    pub stale_completions: u64,
    /// Accept errors.
    pub accept_errors: u64,
}

/// One shard's way to the outside. Implemented by [`crate::Ring`] and [`crate::sim::SimDriver`].
pub trait Driver {
    /// Handle by which others wake this driver.
    type Waker: Wake;

    /// Monotonic time in nanoseconds, read once when [`Driver::turn`] returns.
    fn now(&self) -> u64;

    /// Reads the clock again, for measuring how long a turn's work took.
    fn now_exact(&self) -> u64;

    /// A handle that wakes this driver.
    fn waker(&self) -> Self::Waker;

    /// Wakes another driver through this one's ring, submitted with the next turn.
    fn wake(&mut self, target: &Self::Waker);

    /// Binds, listens and starts accepting.
    fn listen(&mut self, addr: SocketAddr, options: &ListenOptions) -> io::Result<Listener>;

    /// Takes over a socket that listens already (inherited, or bound by the caller so that an
    /// address in use is reported before shards start) and starts accepting.
    fn listen_on(&mut self, socket: OwnedFd) -> io::Result<Listener>;

    /// Stops accepting and closes the listener.
    fn stop_listening(&mut self, listener: Listener);

    /// Starts an outgoing connection; `Event::Connected` follows.
    fn connect(&mut self, addr: SocketAddr, options: &ConnectOptions) -> io::Result<Conn>;

    /// Sends small segments of this connection at once (TCP_NODELAY), or lets the kernel gather
    /// them. Only a preference: a connection that is gone has none.
    fn set_nodelay(&mut self, conn: Conn, on: bool) {
        let _ = (conn, on);
    }

    /// Starts receiving (multishot, from the driver's buffer ring). The driver re-arms by itself
    /// whenever the kernel ends the multishot without an end of the stream.
    fn receive(&mut self, conn: Conn);

    /// Starts receiving and throwing away (MSG_TRUNC): `Event::Discarded` counts the bytes.
    fn receive_discard(&mut self, conn: Conn);

    /// Stops receiving until the next `receive`: back-pressure on a peer. Bytes that were on the
    /// way may still be reported.
    fn receive_pause(&mut self, conn: Conn);

    /// Issues a send. One may be in flight per connection: issuing another before
    /// `Event::Sent` is a bug of the caller and panics.
    fn send(&mut self, conn: Conn, payload: Payload, mode: SendMode);

    /// True between `send` and its `Event::Sent`.
    fn send_in_flight(&self, conn: Conn) -> bool;

    /// Cancels the send in flight; `Event::Sent` follows with the bytes already taken
    /// (`Err(ECANCELED)` when none).
    fn cancel_send(&mut self, conn: Conn);

    /// An empty gather from the driver's pool.
    fn take_gather(&mut self) -> Box<Gather>;

    /// Opens a file and asks what it is, without ever waiting for a disk on this thread;
    /// `Event::Opened` follows. How many are on their way is for the owner to bound.
    ///
    /// # Panics
    /// In drivers that have no files.
    fn open_file(&mut self, what: Open) -> Opening {
        panic!("bug of the owner: {what:?} cannot be opened here");
    }

    /// Gives a connection's socket up, for somebody who is no driver. No send may be in flight.
    /// What is armed is ended first; bytes that come until then are still reported, then
    /// `Event::HandedOver` comes last. Idempotent; a `close` before that overrides it.
    ///
    /// # Panics
    /// In drivers that have no sockets, such as the simulator.
    fn hand_over(&mut self, conn: Conn) {
        panic!("bug of the owner: {conn:?} has no socket to hand over");
    }

    /// Terminates the connection; see the module text. Idempotent.
    fn close(&mut self, conn: Conn);

    /// Submits everything issued since the last turn, waits until an event is there or
    /// `deadline` (nanoseconds on the [`Driver::now`] clock) has passed, and appends what
    /// happened to `events`. A deadline that has passed already means: do not wait.
    ///
    /// # Errors
    /// Only when the ring itself is unusable; errors of connections are events.
    fn turn(&mut self, deadline: Option<u64>, events: &mut Vec<Event>) -> io::Result<()>;

    /// Trades latency for fewer turns: from the next `turn` on, waiting may go on for up to
    /// `wait_ns` after the first completion, until `events` completions are there. Never beyond
    /// the deadline of the turn. One event or no time switches it off, as at the start; a driver
    /// that cannot (kernels before 6.12, the simulator) goes on as before.
    fn gather_completions(&mut self, events: u32, wait_ns: u64) {
        let _ = (events, wait_ns);
    }

    /// Counters.
    fn stats(&self) -> DriverStats;

    /// Once after the driver began to do less than it was asked to (no locked memory for
    /// zero-copy sends): why, and the remedy, as one line for the log.
    fn take_diagnostic(&mut self) -> Option<String> {
        None
    }
}

const _: fn(&Received) -> &[u8] = <Received as Deref>::deref;
