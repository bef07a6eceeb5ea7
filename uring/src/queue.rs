//! The two queues shared with the kernel: submit, wait, collect.
//!
//! Knows nothing of connections. Every oddity of `io_uring_enter` is handled here: a full
//! submission queue, interrupted and busy calls, overflowed completions, deferred task work.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

use io_uring::{IoUring, Submitter, cqueue, squeue};

const ENTER_GETEVENTS: u32 = 1 << 0;
const ENTER_EXT_ARG: u32 = 1 << 3;
const ENTER_REGISTERED_RING: u32 = 1 << 4;
const REGISTER_RING_FDS: u32 = 20;
const UNREGISTER_RING_FDS: u32 = 21;

/// `struct io_uring_getevents_arg`.
#[repr(C)]
struct WaitArgument {
    sigmask: u64,
    sigmask_size: u32,
    min_wait_us: u32,
    timespec: u64,
}

/// `struct __kernel_timespec`.
#[repr(C)]
struct KernelTimespec {
    seconds: i64,
    nanoseconds: i64,
}

/// `struct io_uring_rsrc_update`.
#[repr(C)]
struct ResourceUpdate {
    offset: u32,
    reserved: u32,
    data: u64,
}

/// How long an enter may sleep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    /// Not at all.
    No,
    /// Until a completion is there or the time is over.
    AtMost(Duration),
    /// Until a completion is there.
    Forever,
}

pub(crate) struct Queue {
    ring: IoUring,
    /// Index of the ring in this thread's registered rings: saves looking up the descriptor.
    registered: Option<u32>,
    /// Completions taken from the kernel's queue and not yet handled.
    pending: VecDeque<cqueue::Entry>,
    broken: Option<io::Error>,
    /// Completions to sleep for, and how long (microseconds) before one is enough.
    gather: (u32, u32),
    /// Completions that will come and need not wake anybody while others are gathered.
    expected: u32,
    pub(crate) enters: u64,
    pub(crate) completions: u64,
    pub(crate) overflows: u64,
}

impl Queue {
    pub(crate) fn new(ring: IoUring) -> Queue {
        let registered = register_ring(ring.as_raw_fd());
        Queue {
            ring,
            registered,
            pending: VecDeque::with_capacity(256),
            broken: None,
            gather: (1, 0),
            expected: 0,
            enters: 0,
            completions: 0,
            overflows: 0,
        }
    }

    pub(crate) fn submitter(&self) -> Submitter<'_> {
        self.ring.submitter()
    }

    /// From now on a wait sleeps for `completions`, and for one only after `time`. Nothing changes
    /// on a kernel that cannot do that.
    pub(crate) fn gather(&mut self, completions: u32, time: Duration) {
        let time = u32::try_from(time.as_micros()).unwrap_or(u32::MAX);
        if completions <= 1 || time == 0 || !self.ring.params().is_feature_min_timeout() {
            self.gather = (1, 0);
            return;
        }
        self.gather = (completions, time);
    }

    /// So many completions are on their way that are no reason to end a gathering sleep.
    pub(crate) fn expect(&mut self, completions: u32) {
        self.expected = completions;
    }

    /// Queues an operation for the next [`Queue::enter`].
    ///
    /// # Safety
    /// Descriptors and memory named by the entry stay valid until its last completion was
    /// returned by [`Queue::next`].
    pub(crate) unsafe fn push(&mut self, entry: &squeue::Entry) {
        loop {
            // SAFETY: validity of what the entry names is the caller's promise.
            if unsafe { self.ring.submission().push(entry) }.is_ok() {
                return;
            }
            // The queue is full: submit what is there. Completions are set aside first, so that
            // the kernel has room for those of the entries it takes now.
            self.collect();
            if self.enter(Wait::No).is_err() {
                return; // kept in `broken`; the ring will not be used again
            }
        }
    }

    /// Submits what was queued, runs deferred work and waits as told.
    ///
    /// # Errors
    /// Only when the ring is unusable; it stays so.
    pub(crate) fn enter(&mut self, wait: Wait) -> io::Result<()> {
        if let Some(error) = &self.broken {
            return Err(io::Error::new(error.kind(), error.to_string()));
        }
        let queued = {
            let mut submission = self.ring.submission();
            submission.sync();
            submission.len() as u32
        };
        let timespec;
        let (mut want, mut min_wait_us) = self.gather;
        if min_wait_us > 0 {
            // A queue that is full before the wait is over would make it wait for nothing.
            want = (want + self.expected).min(self.ring.params().cq_entries() / 2);
        }
        let mut argument =
            WaitArgument { sigmask: 0, sigmask_size: 0, min_wait_us: 0, timespec: 0 };
        match wait {
            Wait::No => want = 0,
            Wait::Forever => {}
            Wait::AtMost(time) => {
                // The kernel looks at the time limit only when the least wait is over.
                min_wait_us = min_wait_us.min(u32::try_from(time.as_micros()).unwrap_or(u32::MAX));
                if min_wait_us == 0 {
                    want = 1;
                }
                timespec = KernelTimespec {
                    seconds: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
                    nanoseconds: i64::from(time.subsec_nanos()),
                };
                argument.timespec = (&raw const timespec) as u64;
            }
        }
        argument.min_wait_us = min_wait_us;
        self.enters += 1;
        // SAFETY: the ring is open; `argument` and the timespec it names outlive the call; what
        // the queued entries name is valid by the promise made to `push`.
        let result = unsafe {
            let (fd, flags) = match self.registered {
                Some(index) => (index as RawFd, ENTER_REGISTERED_RING),
                None => (self.ring.as_raw_fd(), 0),
            };
            libc::syscall(
                libc::SYS_io_uring_enter,
                fd,
                queued,
                want,
                flags | ENTER_GETEVENTS | ENTER_EXT_ARG,
                &raw const argument,
                size_of::<WaitArgument>(),
            )
        };
        if result >= 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            // The time is over, or a signal came: both are for the caller's clock to notice.
            Some(libc::ETIME | libc::EINTR) => Ok(()),
            // Out of memory for requests, or too many unread completions: make room and let the
            // caller come again. Without room to make, give the system a moment.
            Some(libc::EAGAIN | libc::EBUSY) => {
                if self.collect() == 0 {
                    std::thread::sleep(Duration::from_millis(1));
                }
                Ok(())
            }
            _ => {
                self.broken = Some(io::Error::from(error.kind()));
                Err(error)
            }
        }
    }

    /// Moves completions out of the kernel's queue; says how many.
    pub(crate) fn collect(&mut self) -> usize {
        let before = self.pending.len();
        self.pending.extend(self.ring.completion());
        let taken = self.pending.len() - before;
        self.completions += taken as u64;
        taken
    }

    /// The next completion.
    pub(crate) fn next(&mut self) -> Option<cqueue::Entry> {
        self.pending.pop_front()
    }

    /// True when completions wait to be handled.
    pub(crate) fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// True when another enter would bring more completions without waiting.
    pub(crate) fn more(&mut self) -> bool {
        let submission = self.ring.submission();
        let overflow = submission.cq_overflow();
        let task_work = submission.taskrun();
        drop(submission);
        self.overflows += u64::from(overflow);
        overflow || task_work
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        if let Some(index) = self.registered {
            let update = ResourceUpdate { offset: index, reserved: 0, data: 0 };
            // SAFETY: the ring is still open and `update` outlives the call. A failure leaves an
            // index that the thread's end frees.
            unsafe {
                libc::syscall(
                    libc::SYS_io_uring_register,
                    self.ring.as_raw_fd(),
                    UNREGISTER_RING_FDS,
                    &raw const update,
                    1,
                )
            };
        }
    }
}

/// Registers the ring's own descriptor with this thread. Only a saving, so failing is fine.
fn register_ring(fd: RawFd) -> Option<u32> {
    let mut update = ResourceUpdate { offset: u32::MAX, reserved: 0, data: fd as u64 };
    // SAFETY: `fd` is an open ring; the kernel reads and writes `update` during the call only.
    let result = unsafe {
        libc::syscall(libc::SYS_io_uring_register, fd, REGISTER_RING_FDS, &raw mut update, 1)
    };
    (result == 1).then_some(update.offset)
}
