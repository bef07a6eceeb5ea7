//! Blocks: append-only ranges of the arena, written by one, read by many.
//!
//! ```text
//! | bytes 0 .. len ->                      <- entries n-1 .. 0 |
//! ```
//! Bytes grow from the start, 16-byte entries from the end; the block is full when they meet.
//! `len` and the number of entries are published together with one Release store and read with
//! Acquire, so a reader on any thread sees only finished bytes, and never an entry without them.

use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::arena::{Arena, Inner, Place, SLAB_SIZE};

pub use crate::arena::BLOCK_SIZES;

/// One record of a block's index. What the fields mean is the caller's business.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Entry {
    /// Where the record starts in the block's bytes.
    pub offset: u32,
    /// Caller's flags.
    pub flags: u32,
    /// Caller's time.
    pub time: i64,
}

const ENTRY_SIZE: u32 = size_of::<Entry>() as u32;
const _: () = assert!(ENTRY_SIZE == 16);

/// A shared handle to a block. Its memory is reused only after the last handle (and the writer,
/// and every send the kernel has not let go of) is gone.
#[derive(Clone)]
pub struct Block {
    core: Arc<Core>,
}

/// The block's memory. Dropping it gives the memory back to the arena.
struct Core {
    arena: Arc<Inner>,
    start: NonNull<u8>,
    capacity: u32,
    place: Place,
    /// Number of entries in the high half, number of bytes in the low half.
    published: AtomicU64,
}

// SAFETY: the memory behind `start` belongs to this value alone (`Arena::writer`). The one
// `BlockWriter` writes only bytes beyond what is published, readers read only what is published,
// and `published` orders the two with Release and Acquire.
unsafe impl Send for Core {}
// SAFETY: as above.
unsafe impl Sync for Core {}

impl Drop for Core {
    fn drop(&mut self) {
        self.arena.give_back(self.place);
    }
}

impl std::fmt::Debug for Block {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (len, entries) = self.published();
        write!(f, "Block({len} of {} bytes, {entries} entries)", self.capacity())
    }
}

impl Block {
    /// Bytes published so far.
    pub fn len(&self) -> u32 {
        self.published().0
    }

    /// True while no byte is published.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes and entries published so far, as one consistent pair.
    pub fn published(&self) -> (u32, u32) {
        let published = self.core.published.load(Ordering::Acquire);
        (published as u32, (published >> 32) as u32)
    }

    /// The published bytes `start .. end`.
    ///
    /// # Panics
    /// When the range is not within [`Block::len`].
    pub fn bytes(&self, start: u32, end: u32) -> &[u8] {
        let len = self.len();
        assert!(start <= end && end <= len, "range {start}..{end} of {len} published bytes");
        // SAFETY: bytes below `len` are initialized (mapped memory, then written), lie inside the
        // block, and are never written again while a handle exists; the slice borrows the handle.
        unsafe {
            let first = self.core.start.as_ptr().add(start as usize);
            std::slice::from_raw_parts(first, (end - start) as usize)
        }
    }

    /// Number of entries published so far.
    pub fn entry_count(&self) -> u32 {
        self.published().1
    }

    /// The entry with this index; 0 is the one pushed first.
    ///
    /// # Panics
    /// When `index` is not below [`Block::entry_count`].
    pub fn entry(&self, index: u32) -> Entry {
        let count = self.entry_count();
        assert!(index < count, "entry {index} of {count}");
        self.entry_unchecked(index)
    }

    /// All published entries in the order they were pushed.
    pub fn entries(&self) -> impl ExactSizeIterator<Item = Entry> + DoubleEndedIterator + '_ {
        (0..self.entry_count() as usize).map(|index| self.entry_unchecked(index as u32))
    }

    /// Index of the first entry whose offset is at least `offset` (entries are in rising order).
    pub fn first_entry_at_or_after(&self, offset: u32) -> Option<u32> {
        let count = self.entry_count();
        let (mut low, mut high) = (0, count);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.entry_unchecked(middle).offset < offset {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        (low < count).then_some(low)
    }

    /// Size of the block in bytes, shared by bytes and entries.
    pub fn capacity(&self) -> u32 {
        self.core.capacity
    }

    /// True when both handles name the same block.
    pub fn same(&self, other: &Block) -> bool {
        Arc::ptr_eq(&self.core, &other.core)
    }

    /// The caller has checked `index` against a published count.
    fn entry_unchecked(&self, index: u32) -> Entry {
        debug_assert!(index < self.entry_count());
        let offset = self.core.capacity - ENTRY_SIZE * (index + 1);
        // SAFETY: a published entry lies inside the block, is 16-byte aligned (blocks are aligned
        // to their size), was fully written before it was published and is not written again.
        unsafe { self.core.start.add(offset as usize).cast::<Entry>().read() }
    }

    #[cfg(test)]
    fn start(&self) -> *const u8 {
        self.core.start.as_ptr()
    }

    /// The slab the block lies in, when it is one of `arena`'s.
    pub(crate) fn slab(&self, arena: &Arena) -> Option<u32> {
        arena.owns(&self.core.arena).then_some(self.core.place.slab)
    }
}

/// The only writer of one block. Dropping it leaves what is published readable.
pub struct BlockWriter {
    block: Block,
    len: u32,
    entries: u32,
}

impl std::fmt::Debug for BlockWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "BlockWriter({} bytes, {:?})", self.len, self.block)
    }
}

impl BlockWriter {
    /// # Safety
    /// `start .. start + capacity` is committed memory of `arena` that nobody else uses until
    /// `arena.give_back(place)`, aligned to 16 bytes, and lies within one slab.
    pub(crate) unsafe fn new(
        arena: Arc<Inner>,
        place: Place,
        start: NonNull<u8>,
        capacity: u32,
    ) -> BlockWriter {
        debug_assert!(capacity as usize <= SLAB_SIZE && start.align_offset(16) == 0);
        let core = Core { arena, start, capacity, place, published: AtomicU64::new(0) };
        BlockWriter { block: Block { core: Arc::new(core) }, len: 0, entries: 0 }
    }

    /// The shared handle; clone it for readers.
    pub fn block(&self) -> &Block {
        &self.block
    }

    /// Bytes that still fit beside one more entry.
    pub fn room(&self) -> usize {
        let taken = self.len + ENTRY_SIZE * (self.entries + 1);
        self.block.core.capacity.saturating_sub(taken) as usize
    }

    /// Appends bytes. Readers see them after [`BlockWriter::publish`].
    ///
    /// # Panics
    /// When they do not fit beside the entries.
    pub fn push(&mut self, bytes: &[u8]) {
        let free = (self.block.core.capacity - self.len - ENTRY_SIZE * self.entries) as usize;
        assert!(bytes.len() <= free, "{} bytes do not fit in {free}", bytes.len());
        // SAFETY: the target lies inside the block, below the entries, and beyond what is
        // published, so no reader has a slice of it; the source cannot overlap it, because nobody
        // can borrow unpublished bytes.
        unsafe {
            let target = self.block.core.start.as_ptr().add(self.len as usize);
            target.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
        }
        self.len += bytes.len() as u32;
    }

    /// Adds an entry at the current end. Readers see it after [`BlockWriter::publish`].
    ///
    /// # Panics
    /// When it does not fit beside the bytes.
    pub fn entry(&mut self, flags: u32, time: i64) {
        let taken = self.len + ENTRY_SIZE * (self.entries + 1);
        assert!(taken <= self.block.core.capacity, "no room for an entry");
        self.entries += 1;
        let offset = self.block.core.capacity - ENTRY_SIZE * self.entries;
        let entry = Entry { offset: self.len, flags, time };
        // SAFETY: the target lies inside the block, above the bytes, aligned to 16, and its index
        // is beyond what is published, so no reader reads it.
        unsafe { self.block.core.start.add(offset as usize).cast::<Entry>().write(entry) };
    }

    /// Makes everything pushed so far visible to readers.
    pub fn publish(&mut self) {
        let published = u64::from(self.entries) << 32 | u64::from(self.len);
        self.block.core.published.store(published, Ordering::Release);
    }

    /// Bytes pushed so far, published or not.
    pub fn written(&self) -> u32 {
        self.len
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;
    use std::thread;

    use super::*;
    use crate::arena::ArenaOptions;

    fn arena() -> Arena {
        Arena::new(ArenaOptions { limit: 4 << 20, huge_pages: false }).expect("address space")
    }

    #[test]
    fn nothing_is_visible_before_publish() {
        let mut writer = arena().writer(16 << 10).expect("room");
        let block = writer.block().clone();
        writer.entry(7, -3);
        writer.push(b"hello");
        assert_eq!((block.len(), block.entry_count(), writer.written()), (0, 0, 5));
        writer.publish();
        assert_eq!(block.bytes(0, 5), b"hello");
        assert_eq!(block.bytes(5, 5), b"");
        assert_eq!(block.entry(0), Entry { offset: 0, flags: 7, time: -3 });
        drop(writer);
        assert_eq!(block.bytes(1, 4), b"ell");
    }

    #[test]
    #[should_panic(expected = "published bytes")]
    fn reading_beyond_the_end_panics() {
        let mut writer = arena().writer(1).expect("room");
        writer.push(b"abc");
        writer.block().bytes(0, 3);
    }

    #[test]
    fn bytes_and_entries_meet_exactly() {
        let mut writer = arena().writer(16 << 10).expect("room");
        let message = [9u8; 1000];
        let mut count = 0;
        while writer.room() >= message.len() {
            writer.entry(count, i64::from(count));
            writer.push(&message);
            count += 1;
        }
        let rest = writer.room();
        writer.entry(count, 0);
        writer.push(&vec![1; rest]);
        writer.publish();
        assert_eq!(writer.room(), 0);
        let block = writer.block();
        assert_eq!(block.len() + 16 * block.entry_count(), block.capacity());
        for (index, entry) in block.entries().enumerate() {
            assert_eq!(entry.offset, index as u32 * 1000);
            assert_eq!(entry.flags, index as u32);
        }
        assert_eq!(block.first_entry_at_or_after(0), Some(0));
        assert_eq!(block.first_entry_at_or_after(1), Some(1));
        assert_eq!(block.first_entry_at_or_after(1000), Some(1));
        assert_eq!(block.first_entry_at_or_after(count * 1000), Some(count));
        assert_eq!(block.first_entry_at_or_after(count * 1000 + 1), None);
    }

    #[test]
    #[should_panic(expected = "do not fit")]
    fn pushing_too_much_panics() {
        let mut writer = arena().writer(16 << 10).expect("room");
        writer.entry(0, 0);
        writer.push(&vec![0; (16 << 10) - 15]);
    }

    #[test]
    fn memory_is_reused_only_after_the_last_handle() {
        let arena =
            Arena::new(ArenaOptions { limit: 1, huge_pages: false }).expect("address space");
        let first = arena.writer(1 << 20).expect("room");
        let second = arena.writer(1 << 20).expect("room");
        let held = first.block().clone();
        let address = held.start();
        drop(first);
        assert!(arena.writer(1).is_err(), "a handle is left");
        let other = held.clone();
        drop(held);
        assert!(arena.writer(1).is_err(), "a handle is left");
        drop(other);
        assert_eq!(arena.writer(1 << 20).expect("room").block().start(), address);
        drop(second);
    }

    #[test]
    fn readers_on_other_threads_see_only_whole_messages() {
        let arena = arena();
        let stop = AtomicBool::new(false);
        for round in 0..20u32 {
            let mut writer = arena.writer(256 << 10).expect("room");
            thread::scope(|scope| {
                for _ in 0..3 {
                    let block = writer.block().clone();
                    let stop = &stop;
                    scope.spawn(move || {
                        let mut at = 0;
                        while !stop.load(Ordering::Relaxed) || at < block.entry_count() {
                            let (len, count) = block.published();
                            while at < count {
                                let entry = block.entry(at);
                                let end = match at + 1 < count {
                                    true => block.entry(at + 1).offset,
                                    false => len,
                                };
                                let bytes = block.bytes(entry.offset, end);
                                assert_eq!(bytes.len() as i64, entry.time);
                                let fill = (entry.flags ^ round) as u8;
                                assert!(bytes.iter().all(|&byte| byte == fill));
                                at += 1;
                            }
                        }
                    });
                }
                let mut number = 0u32;
                loop {
                    let size = 50 + (number as usize * 37) % 900;
                    if writer.room() < size {
                        break;
                    }
                    writer.entry(number, size as i64);
                    let message = vec![(number ^ round) as u8; size];
                    let (head, tail) = message.split_at(size / 3);
                    writer.push(head);
                    writer.push(tail);
                    writer.publish();
                    number += 1;
                }
                stop.store(true, Ordering::Relaxed);
            });
            stop.store(false, Ordering::Relaxed);
        }
        assert_eq!(arena.stats().blocks, 0);
    }

    #[test]
    fn blocks_move_between_threads_without_loss() {
        let arena = arena();
        thread::scope(|scope| {
            for seed in 0..4u8 {
                let arena = &arena;
                scope.spawn(move || {
                    let mut held = Vec::new();
                    for round in 0..500usize {
                        let size = BLOCK_SIZES[(round + usize::from(seed)) % 3];
                        if let Ok(mut writer) = arena.writer(size) {
                            writer.push(&[seed; 64]);
                            writer.publish();
                            held.push(writer.block().clone());
                        }
                        if held.len() > 3 {
                            let block: Block = held.swap_remove(round % 3);
                            assert_eq!(block.bytes(0, 64), [seed; 64]);
                        }
                    }
                });
            }
        });
        assert_eq!(arena.stats().blocks, 0);
    }
}
