//! Making a ring: queues, receive buffers, what is registered with the kernel.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;
use std::rc::Rc;

use io_uring::{IoUring, types};

use super::accept::Doors;
use super::{BUFFER_GROUP, Ring, clock};
use crate::arena::Arena;
use crate::driver::{DriverStats, Errno};
use crate::hold::{Holds, Pool};
use crate::links::Links;
use crate::opens::Opens;
use crate::probe::{self, Unavailable};
use crate::queue::Queue;
use crate::recv::{BufferRing, Scheme};
use crate::registration::{Slabs, ZeroCopy};
use crate::splice::Pipes;
use crate::wake::Waker;

/// Ordinary buffers that lie together as one where buffers are used up piece by piece.
const JOINED_BUFFERS: u16 = 4;
/// Kernel worker threads of one ring for blocking work (file sends): on files, on the rest.
const WORKERS_MAX: [u32; 2] = [4, 16];

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
    /// Bytes of a receive buffer: most of one [`Event::Received`](crate::Event::Received).
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
            unnotified: 0,
            pool: Pool::default(),
            pipes: Pipes::default(),
            opens: Opens::default(),
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
