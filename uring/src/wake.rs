//! Waking a driver: by its ring from another ring, by an eventfd from anywhere else.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::driver::Wake;

/// Wakes one [`crate::Ring`]. Wakes between two turns of the target are one wake.
#[derive(Clone, Debug)]
pub struct Waker {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// True from a wake until the target has noticed it.
    pending: AtomicBool,
    event: OwnedFd,
    /// A duplicate of the target's ring, so that its number is not reused while we hold it.
    ring: OwnedFd,
}

impl Waker {
    pub(crate) fn new(ring: BorrowedFd<'_>) -> io::Result<Waker> {
        use rustix::event::{EventfdFlags, eventfd};
        let event = eventfd(0, EventfdFlags::CLOEXEC)?;
        let ring = ring.try_clone_to_owned()?;
        Ok(Waker { inner: Arc::new(Inner { pending: AtomicBool::new(false), event, ring }) })
    }

    /// True when the caller has to deliver the wake: nobody else has since the last turn.
    ///
    /// What the caller wrote before this is visible to the target after [`Waker::noticed`].
    pub(crate) fn claim(&self) -> bool {
        !self.inner.pending.swap(true, Ordering::AcqRel)
    }

    /// The target has noticed; the next wake is delivered again.
    pub(crate) fn noticed(&self) {
        self.inner.pending.swap(false, Ordering::AcqRel);
    }

    /// Delivers a wake by system call, whether claimed or not.
    pub(crate) fn ring_bell(&self) {
        // The counter cannot overflow, as wakes are claimed, so this neither blocks nor fails.
        let _ = rustix::io::write(self.inner.event.as_fd(), &1u64.to_ne_bytes());
    }

    pub(crate) fn event(&self) -> RawFd {
        self.inner.event.as_raw_fd()
    }

    pub(crate) fn ring(&self) -> RawFd {
        self.inner.ring.as_raw_fd()
    }

    pub(crate) fn same(&self, other: &Waker) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }
}

impl Wake for Waker {
    fn wake(&self) {
        if self.claim() {
            self.ring_bell();
        }
    }
}
