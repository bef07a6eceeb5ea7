//! Registering slabs with a ring, at the first zero-copy send from each.
//!
//! Registered pages are pinned: a slab is registered only when it is really sent from, and let
//! go of when the arena wants its pages back. When the system refuses, the ring sends without
//! registration, or without zero-copy, and keeps one message that says why.

use std::io;

use crate::arena::{Arena, SLAB_SIZE};
use crate::block::Block;
use crate::driver::{Gather, Payload, Piece};
use crate::queue::Queue;

/// Most registered buffers of a ring (IORING_MAX_REG_BUFFERS).
const TABLE_MAX: u32 = 1 << 14;

/// How a ring does zero-copy sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ZeroCopy {
    /// From registered slabs where the bytes lie in one, otherwise unregistered.
    Registered,
    /// Pages are pinned for each send.
    Unregistered,
    /// Not at all: every send copies.
    Off,
}

/// State of a ring's registration, for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    /// How zero-copy sends are done now.
    pub zero_copy: ZeroCopy,
    /// Slabs registered now, 2 MiB each.
    pub slabs: usize,
    /// Why the ring does less than it was asked to, with the remedy.
    pub diagnostic: Option<String>,
}

pub(crate) struct Slabs {
    arena: Option<Arena>,
    /// Registering has not failed yet.
    register: bool,
    /// Zero-copy from memory that is not registered has not failed yet.
    loose: bool,
    vectored: bool,
    /// One flag per slab; empty until the table exists.
    table: Vec<bool>,
    count: usize,
    epoch: u64,
    diagnostic: Option<String>,
    /// The diagnostic has not been asked for since it changed.
    news: bool,
}

impl Slabs {
    /// `vectored`: the kernel takes registered memory in SENDMSG_ZC.
    pub(crate) fn new(arena: Option<Arena>, zero_copy: ZeroCopy, vectored: bool) -> Slabs {
        Slabs {
            register: zero_copy == ZeroCopy::Registered && arena.is_some(),
            loose: zero_copy != ZeroCopy::Off,
            arena,
            vectored,
            table: Vec::new(),
            count: 0,
            epoch: 0,
            diagnostic: None,
            news: false,
        }
    }

    /// The diagnostic, once after it changed.
    pub(crate) fn take_news(&mut self) -> Option<String> {
        std::mem::take(&mut self.news).then(|| self.diagnostic.clone()).flatten()
    }

    pub(crate) fn status(&self) -> Registration {
        let zero_copy = match (self.register, self.loose) {
            (true, _) => ZeroCopy::Registered,
            (false, true) => ZeroCopy::Unregistered,
            (false, false) => ZeroCopy::Off,
        };
        Registration { zero_copy, slabs: self.count, diagnostic: self.diagnostic.clone() }
    }

    /// How to send this payload: Some(Some(index)) from a registered buffer, Some(None) from
    /// unregistered memory, None by copying.
    pub(crate) fn route(&mut self, queue: &Queue, payload: &Payload) -> Option<Option<u16>> {
        let fixed = match payload {
            Payload::Range(range) => self.index(queue, &range.block),
            Payload::Gather(gather) if self.vectored => self.common_index(queue, gather),
            Payload::Gather(_) => None,
            Payload::Bytes(_) | Payload::File { .. } => return None,
        };
        if fixed.is_none() && !self.loose {
            return None;
        }
        Some(fixed)
    }

    /// All pieces of a registered vectored send must lie in one registered buffer.
    fn common_index(&mut self, queue: &Queue, gather: &Gather) -> Option<u16> {
        let arena = self.arena.as_ref()?;
        let mut slab = None;
        for piece in &gather.pieces {
            let Piece::Block(range) = piece else { return None };
            let this = range.block.slab(arena)?;
            if *slab.get_or_insert(this) != this {
                return None;
            }
        }
        self.ensure(queue, slab?)
    }

    fn index(&mut self, queue: &Queue, block: &Block) -> Option<u16> {
        let slab = block.slab(self.arena.as_ref()?)?;
        self.ensure(queue, slab)
    }

    fn ensure(&mut self, queue: &Queue, slab: u32) -> Option<u16> {
        if !self.register || slab >= TABLE_MAX {
            return None;
        }
        if self.table.get(slab as usize).copied().unwrap_or(false) {
            return Some(slab as u16);
        }
        match self.register(queue, slab) {
            Ok(()) => Some(slab as u16),
            Err(error) => {
                self.register = false;
                self.note(format!(
                    "media memory cannot be registered for zero-copy ({error}); zero-copy sends \
                     go on unregistered; raise RLIMIT_MEMLOCK (systemd: LimitMEMLOCK=infinity) \
                     or grant CAP_IPC_LOCK"
                ));
                None
            }
        }
    }

    fn register(&mut self, queue: &Queue, slab: u32) -> io::Result<()> {
        let Some(arena) = &self.arena else { return Err(io::ErrorKind::NotFound.into()) };
        if self.table.is_empty() {
            let slots = arena.slabs().min(TABLE_MAX);
            queue.submitter().register_buffers_sparse(slots)?;
            self.table = vec![false; slots as usize];
            self.epoch = arena.idle_epoch();
        }
        // Counted before, so that the arena cannot give the pages back in between.
        arena.slab_registered(slab);
        let start = arena.slab_start(slab).as_ptr().cast();
        let buffer = libc::iovec { iov_base: start, iov_len: SLAB_SIZE };
        // SAFETY: the slab is committed (the caller holds a block in it) and stays mapped: the
        // arena is kept by this value, which is dropped after the ring's last operation.
        let result = unsafe { queue.submitter().register_buffers_update(slab, &[buffer], None) };
        if let Err(error) = result {
            arena.slab_unregistered(slab);
            return Err(error);
        }
        self.table[slab as usize] = true;
        self.count += 1;
        Ok(())
    }

    /// Lets go of slabs that the arena wants to give back. One load when there is nothing to do.
    pub(crate) fn trim(&mut self, queue: &Queue) {
        let Some(arena) = &self.arena else { return };
        if self.count == 0 || arena.idle_epoch() == self.epoch {
            return;
        }
        self.epoch = arena.idle_epoch();
        let registered = self.table.iter().enumerate().filter(|&(_, &set)| set);
        for slab in arena.idle_slabs(registered.map(|(slab, _)| slab as u32)) {
            self.unregister(queue, slab);
        }
    }

    fn unregister(&mut self, queue: &Queue, slab: u32) {
        let Some(arena) = &self.arena else { return };
        let nothing = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
        // SAFETY: an empty buffer names no memory; it takes the place of the slab's entry.
        let result = unsafe { queue.submitter().register_buffers_update(slab, &[nothing], None) };
        // A refusal leaves it registered, which is safe: the pages stay.
        if result.is_ok() {
            self.table[slab as usize] = false;
            self.count -= 1;
            arena.slab_unregistered(slab);
        }
    }

    /// Lets go of everything; the ring is about to be closed.
    pub(crate) fn release(&mut self, queue: &Queue) {
        for slab in 0..self.table.len() {
            if self.table[slab] {
                self.unregister(queue, slab as u32);
            }
        }
    }

    /// The kernel had no memory (or no allowance) to pin unregistered pages.
    pub(crate) fn loose_failed(&mut self) {
        if self.loose {
            self.loose = false;
            let what = if self.register { "outside registered memory " } else { "" };
            self.note(format!(
                "zero-copy sends {what}ran into RLIMIT_MEMLOCK and are copied from now on; raise \
                 it (systemd: LimitMEMLOCK=infinity) or grant CAP_IPC_LOCK"
            ));
        }
    }

    fn note(&mut self, text: String) {
        self.diagnostic = Some(match self.diagnostic.take() {
            Some(earlier) => format!("{earlier}; {text}"),
            None => text,
        });
        self.news = true;
    }
}
