//! Receive buffers: a ring of buffers that the kernel fills and [`Received`] gives back.
//!
//! The buffers are shared by all connections of a driver, so an idle connection holds none.

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
    Ring { buffers: Rc<BufferRing>, id: u16, len: u32 },
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
            Storage::Ring { buffers, id, len } => buffers.filled(*id, *len),
            Storage::Owned(bytes) => bytes,
        }
    }
}

impl Drop for Received {
    fn drop(&mut self) {
        if let Storage::Ring { buffers, id, .. } = &self.storage {
            buffers.give(*id);
        }
    }
}

impl fmt::Debug for Received {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Received({} bytes)", self.len())
    }
}

/// The memory of a provided-buffer ring: the table shared with the kernel, and the buffers.
pub(crate) struct BufferRing {
    table: Mapping,
    buffers: Mapping,
    count: u16,
    size: u32,
    /// Next free place in the table; the kernel sees it through the table's own tail.
    tail: Cell<u16>,
    /// Buffers the kernel may fill now.
    available: Cell<u16>,
}

impl BufferRing {
    /// Makes `count` buffers (rounded up to a power of two, at most 32768) of `size` bytes.
    /// Pages of a buffer are taken when the kernel first fills it.
    pub(crate) fn new(count: u16, size: u32) -> io::Result<Rc<BufferRing>> {
        let count = count.clamp(1, 1 << 15).next_power_of_two();
        let table = Mapping::zeroed(usize::from(count) * size_of::<BufRingEntry>())?;
        let buffers = Mapping::zeroed(usize::from(count) * size as usize)?;
        let ring =
            BufferRing { table, buffers, count, size, tail: Cell::new(0), available: Cell::new(0) };
        for id in 0..count {
            ring.give(id);
        }
        Ok(Rc::new(ring))
    }

    /// Address of the table for registration.
    pub(crate) fn table(&self) -> u64 {
        self.table.start().as_ptr() as u64
    }

    pub(crate) fn count(&self) -> u16 {
        self.count
    }

    /// Buffers the kernel may fill now.
    pub(crate) fn available(&self) -> u16 {
        self.available.get()
    }

    /// Takes the buffer that a completion names.
    pub(crate) fn take(self: &Rc<Self>, id: u16, len: u32) -> Received {
        assert!(id < self.count && len <= self.size, "completion names a buffer of this ring");
        self.available.set(self.available.get() - 1);
        Received { storage: Storage::Ring { buffers: Rc::clone(self), id, len } }
    }

    fn filled(&self, id: u16, len: u32) -> &[u8] {
        let offset = usize::from(id) * self.size as usize;
        // SAFETY: buffer `id` lies inside the mapping. While a `Received` names it, it is not in
        // the table, so the kernel does not write to it; `take` checked `len`.
        unsafe {
            let start = self.buffers.start().as_ptr().add(offset);
            std::slice::from_raw_parts(start, len as usize)
        }
    }

    /// Gives a buffer to the kernel.
    fn give(&self, id: u16) {
        let tail = self.tail.get();
        let place = usize::from(tail & (self.count - 1));
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
        let ring = BufferRing::new(3, 4096).expect("memory");
        assert_eq!((ring.count(), ring.available()), (4, 4));
        let first = ring.take(0, 10);
        let second = ring.take(3, 0);
        assert_eq!((first.len(), second.len(), ring.available()), (10, 0, 2));
        drop(first);
        drop(second);
        assert_eq!(ring.available(), 4);
        // More rounds than the table has places: the tail wraps.
        for round in 0..70_000u32 {
            drop(ring.take((round % 4) as u16, 1));
        }
        assert_eq!(ring.available(), 4);
    }
}
