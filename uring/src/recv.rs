//! Receive buffers: a ring of buffers that the kernel fills and [`Received`] gives back.
//!
//! The buffers are shared by all connections of a driver, so an idle connection holds none. Where
//! the kernel can, a buffer is used up piece by piece, by as many receives of as many connections
//! as fit, so that a small arrival does not occupy a whole one. It goes back to the kernel when
//! the kernel is done with it and the last piece is dropped.

use std::cell::Cell;
use std::fmt;
use std::io;
use std::ops::Deref;
use std::rc::Rc;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::BufRingEntry;

use crate::map::Mapping;

/// Bytes that arrived. Dropping it gives the buffer back to the driver, so keep it short: a
/// shard that holds all buffers receives nothing.
pub struct Received {
    storage: Storage,
}

enum Storage {
    /// `len` bytes at `start` of a buffer.
    Ring {
        buffers: Rc<BufferRing>,
        id: u16,
        start: u32,
        len: u32,
    },
    Owned(Vec<u8>),
}

impl Received {
    /// Bytes that do not live in a driver's buffer ring.
    pub fn owned(bytes: Vec<u8>) -> Received {
        Received { storage: Storage::Owned(bytes) }
    }
}

impl Deref for Received {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.storage {
            Storage::Ring { buffers, id, start, len } => buffers.filled(*id, *start, *len),
            Storage::Owned(bytes) => bytes,
        }
    }
}

impl Drop for Received {
    fn drop(&mut self) {
        if let Storage::Ring { buffers, id, .. } = &self.storage {
            buffers.let_go(*id);
        }
    }
}

impl fmt::Debug for Received {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Received({} bytes)", self.len())
    }
}

/// How the kernel uses up buffers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scheme {
    /// Every receive takes a buffer, however little arrived.
    Whole,
    /// A receive takes what it needs; the next one goes on behind it (kernel 6.12).
    Pieces,
}

impl Scheme {
    /// IOU_PBUF_RING_INC for the registration.
    pub(crate) fn flags(self) -> u16 {
        match self {
            Scheme::Whole => 0,
            Scheme::Pieces => 2,
        }
    }
}

/// What became of a buffer since it was last given to the kernel.
#[derive(Default)]
struct Usage {
    /// Bytes filled, all of them named by completions.
    filled: Cell<u32>,
    /// [`Received`] values that name a part of it.
    pieces: Cell<u32>,
    /// The kernel fills no more of it.
    done: Cell<bool>,
}

/// The memory of a provided-buffer ring: the table shared with the kernel, and the buffers.
pub(crate) struct BufferRing {
    table: Mapping,
    buffers: Mapping,
    scheme: Scheme,
    size: u32,
    usage: Box<[Usage]>,
    /// Buffers that were given to the kernel at least once: those above it have no pages.
    begun: Cell<u16>,
    /// Next free place in the table; the kernel sees it through the table's own tail.
    tail: Cell<u16>,
    /// Buffers the kernel may fill now.
    available: Cell<u16>,
}

impl BufferRing {
    /// Makes `count` buffers (rounded up to a power of two, at most 32768) of `size` bytes.
    /// Pages of a buffer are taken when the kernel first fills it.
    pub(crate) fn new(count: u16, size: u32, scheme: Scheme) -> io::Result<Rc<BufferRing>> {
        let count = count.clamp(1, 1 << 15).next_power_of_two();
        let table = Mapping::zeroed(usize::from(count) * size_of::<BufRingEntry>())?;
        let buffers = Mapping::zeroed(usize::from(count) * size as usize)?;
        let ring = BufferRing {
            table,
            buffers,
            scheme,
            size,
            usage: (0..count).map(|_| Usage::default()).collect(),
            begun: Cell::new(0),
            tail: Cell::new(0),
            available: Cell::new(0),
        };
        // The kernel goes round all buffers it has, and pieces fill every page of them: fewer
        // buffers stay in the cache and in fewer pages.
        let first = if scheme == Scheme::Pieces { count.div_ceil(4) } else { count };
        ring.begin(first);
        Ok(Rc::new(ring))
    }

    /// Gives buffers to the kernel that it never had, up to that many.
    fn begin(&self, more: u16) {
        let begun = self.begun.get();
        let end = begun.saturating_add(more).min(self.count());
        (begun..end).for_each(|id| self.give(id));
        self.begun.set(end);
    }

    /// Doubles the number of buffers in use, up to all.
    pub(crate) fn grow(&self) {
        self.begin(self.begun.get());
    }

    /// Address of the table for registration.
    pub(crate) fn table(&self) -> u64 {
        self.table.start().as_ptr() as u64
    }

    pub(crate) fn count(&self) -> u16 {
        self.usage.len() as u16
    }

    pub(crate) fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// Buffers the kernel may fill now.
    pub(crate) fn available(&self) -> u16 {
        self.available.get()
    }

    /// Takes what a completion says was received: `len` bytes of buffer `id`, and whether the
    /// kernel goes on filling that buffer. To be called in the order of completions: where in
    /// the buffer the bytes lie follows from it alone.
    pub(crate) fn take(self: &Rc<Self>, id: u16, len: u32, more: bool) -> Option<Received> {
        let usage = &self.usage[usize::from(id)];
        let start = usage.filled.get();
        // With pieces, a completion without bytes uses up nothing, and kernels before 7.0 lack
        // the flag on it.
        if len == 0 && self.scheme == Scheme::Pieces {
            return None;
        }
        assert!(len <= self.size - start, "completion names a buffer of this ring");
        usage.filled.set(start + len);
        usage.pieces.set(usage.pieces.get() + 1);
        if !more {
            // Anything else means that a completion was lost, and with it who owns which bytes.
            let whole = self.scheme == Scheme::Whole || start + len == self.size;
            assert!(whole && !usage.done.get(), "a buffer ends when it is full");
            usage.done.set(true);
            self.available.set(self.available.get() - 1);
        }
        Some(Received { storage: Storage::Ring { buffers: Rc::clone(self), id, start, len } })
    }

    fn filled(&self, id: u16, start: u32, len: u32) -> &[u8] {
        let offset = usize::from(id) * self.size as usize + start as usize;
        // SAFETY: the range lies inside the mapping, as `take` checked. The kernel writes only
        // behind what its completions have named, until the buffer is given to it again, which
        // `let_go` does when no `Received` names any part of it.
        unsafe {
            let start = self.buffers.start().as_ptr().add(offset);
            std::slice::from_raw_parts(start, len as usize)
        }
    }

    /// A piece of the buffer was dropped.
    fn let_go(&self, id: u16) {
        let usage = &self.usage[usize::from(id)];
        let left = usage.pieces.get() - 1;
        usage.pieces.set(left);
        if left == 0 && usage.done.get() {
            usage.done.set(false);
            usage.filled.set(0);
            self.give(id);
        }
    }

    /// Gives a buffer to the kernel.
    fn give(&self, id: u16) {
        let tail = self.tail.get();
        let place = usize::from(tail & (self.count() - 1));
        let first = self.table.start().as_ptr().cast::<BufRingEntry>();
        let address = self.buffers.start().as_ptr() as u64 + u64::from(id) * u64::from(self.size);
        // SAFETY: `place` is inside the table. The kernel reads entries only below the tail it
        // was shown, and there are never more than `count` buffers, so this place is ours. Fields
        // are written one by one because the first entry's reserved field is the tail itself.
        unsafe {
            let entry = &mut *first.add(place);
            entry.set_addr(address);
            entry.set_len(self.size);
            entry.set_bid(id);
        }
        let tail = tail.wrapping_add(1);
        self.tail.set(tail);
        self.available.set(self.available.get() + 1);
        // SAFETY: `first` is the page-aligned start of the table, where the tail's place is
        // defined; the field is 2-byte aligned and only accessed atomically by us.
        unsafe {
            let shared = BufRingEntry::tail(first).cast_mut();
            AtomicU16::from_ptr(shared).store(tail, Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owned_bytes_deref() {
        let received = Received::owned(vec![1, 2, 3]);
        assert_eq!(&*received, [1, 2, 3]);
        assert_eq!(format!("{received:?}"), "Received(3 bytes)");
    }

    #[test]
    fn buffers_come_back_on_drop() {
        let ring = BufferRing::new(3, 4096, Scheme::Whole).expect("memory");
        assert_eq!((ring.count(), ring.available()), (4, 4));
        let first = ring.take(0, 10, false).expect("a buffer");
        let second = ring.take(3, 0, false).expect("a buffer, to be given back");
        assert_eq!((first.len(), second.len(), ring.available()), (10, 0, 2));
        drop(first);
        drop(second);
        assert_eq!(ring.available(), 4);
        // More rounds than the table has places: the tail wraps.
        for round in 0..70_000u32 {
            drop(ring.take((round % 4) as u16, 1, false));
        }
        assert_eq!(ring.available(), 4);
    }

    fn places(ring: &BufferRing) -> Vec<u16> {
        let first = ring.table.start().as_ptr().cast::<BufRingEntry>();
        // SAFETY: all places lie in the table, and no kernel writes to it here.
        (0..ring.count()).map(|at| unsafe { (*first.add(usize::from(at))).bid() }).collect()
    }

    #[test]
    fn a_buffer_of_pieces_comes_back_after_its_last_piece() {
        let ring = BufferRing::new(8, 4096, Scheme::Pieces).expect("memory");
        assert_eq!((ring.count(), ring.available()), (8, 2));
        let start = ring.buffers.start().as_ptr() as usize;
        let first = ring.take(0, 1000, true).expect("bytes");
        assert!(ring.take(0, 0, false).is_none(), "an end uses up nothing, whatever its flag");
        let second = ring.take(0, 96, true).expect("bytes");
        assert_eq!((first.as_ptr() as usize, first.len()), (start, 1000));
        assert_eq!((second.as_ptr() as usize, second.len()), (start + 1000, 96));
        drop(first);
        let last = ring.take(0, 3000, false).expect("bytes");
        assert_eq!((last.as_ptr() as usize, ring.available()), (start + 1096, 1));
        drop(last);
        assert_eq!(ring.available(), 1, "the second piece is still there");
        drop(second);
        assert_eq!(ring.available(), 2);
        assert_eq!(places(&ring)[..3], [0, 1, 0]);
        // All pieces dropped before the kernel is done: nothing comes back early.
        drop(ring.take(1, 4000, true));
        assert_eq!(ring.available(), 2);
        drop(ring.take(1, 96, false));
        assert_eq!((ring.available(), places(&ring)[3]), (2, 1));
    }

    #[test]
    fn pieces_begin_with_few_buffers() {
        let ring = BufferRing::new(8, 4096, Scheme::Pieces).expect("memory");
        ring.grow();
        assert_eq!(ring.available(), 4);
        ring.grow();
        ring.grow();
        assert_eq!((ring.available(), places(&ring)), (8, (0..8).collect()));
    }

    #[test]
    #[should_panic(expected = "a buffer ends when it is full")]
    fn a_lost_completion_is_noticed() {
        let ring = BufferRing::new(8, 4096, Scheme::Pieces).expect("memory");
        drop(ring.take(0, 1000, true));
        drop(ring.take(0, 2000, false));
    }
}
