//! The arena: one budget of memory per process, carved into blocks.
//!
//! ```text
//! reservation (address space only)
//! | slab 2 MiB | slab | slab | not touched yet ...
//!   each slab holds blocks of one class: 128 x 16K, 32 x 64K, 8 x 256K or 2 x 1M
//! ```
//! A slab is what rings register for zero-copy sends, so it never moves. When its last block
//! comes back it is empty and serves any class again; empty slabs beyond one spare give their
//! pages back to the system. A slab that a ring has registered cannot do that (the ring would go
//! on sending the old pages), so the arena asks the rings to unregister it first.
//!
//! Locks: one mutex, held for a few hundred nanoseconds when a block is taken or returned. That
//! happens once per block, never per frame.

use std::collections::BTreeSet;
use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use crate::block::BlockWriter;
use crate::map::{self, Mapping};

/// Size classes of blocks in bytes, smallest first.
pub const BLOCK_SIZES: [usize; 4] = [16 << 10, 64 << 10, 256 << 10, 1 << 20];

/// Bytes of a slab: a huge page, and the unit of registration with a ring.
pub const SLAB_SIZE: usize = 2 << 20;

/// Empty slabs that keep their pages, so that a stream at the edge of a slab does not hand the
/// same pages back and forth.
const EMPTY_SLABS_KEPT: usize = 1;

const _: () = assert!(SLAB_SIZE / BLOCK_SIZES[0] <= u128::BITS as usize);
const _: () = assert!(SLAB_SIZE.is_multiple_of(BLOCK_SIZES[3]));

/// How to make an [`Arena`].
#[derive(Clone, Copy, Debug)]
pub struct ArenaOptions {
    /// The budget in bytes, rounded up to whole slabs of 2 MiB (at least one).
    pub limit: usize,
    /// Use huge pages of `vm.nr_hugepages` while there are any. Without them the arena falls back
    /// to ordinary pages and [`ArenaStats::huge_pages`] tells so.
    pub huge_pages: bool,
}

/// The budget is used up (or the request is larger than the largest block).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArenaFull;

impl std::fmt::Display for ArenaFull {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("media memory is used up")
    }
}

impl std::error::Error for ArenaFull {}

/// What an arena holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ArenaStats {
    /// The budget in bytes.
    pub limit: usize,
    /// Bytes of slabs that have pages (an upper bound of the arena's resident memory).
    pub reserved: usize,
    /// Bytes of blocks in use, whole blocks counted.
    pub used: usize,
    /// Blocks in use.
    pub blocks: usize,
    /// Blocks in use per class of [`BLOCK_SIZES`].
    pub blocks_by_class: [usize; 4],
    /// True when huge pages were asked for and every slab so far got one.
    pub huge_pages: bool,
    /// Requests refused because the budget was used up, since the start.
    pub refused: u64,
}

/// A process-wide pool of blocks. Clones share it.
#[derive(Clone, Debug)]
pub struct Arena {
    inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    /// Unmapped when the last clone and the last block are gone.
    _memory: Mapping,
    /// Start of slab 0: the mapping's start rounded up to a whole slab.
    base: NonNull<u8>,
    /// Goes up whenever a registered slab became idle; rings compare it once per turn.
    idle_epoch: AtomicU64,
    state: Mutex<State>,
}

// SAFETY: `base` points into `_memory`, which the same value owns. Who may write which bytes is
// decided by `State` under its mutex: a block belongs to exactly one `Core` at a time.
unsafe impl Send for Inner {}
// SAFETY: as above; all shared state is atomic or behind the mutex.
unsafe impl Sync for Inner {}

#[derive(Debug)]
struct State {
    slabs: Vec<Slab>,
    /// Slabs with pages and without blocks.
    empty: Vec<u32>,
    /// Slabs without pages. Lowest first, so that the resident part stays compact.
    bare: BTreeSet<u32>,
    /// Slabs of each class with a free block. Lowest first for the same reason.
    partial: [BTreeSet<u32>; 4],
    blocks: [usize; 4],
    refused: u64,
    huge_wanted: bool,
    huge_failed: bool,
}

#[derive(Debug, Clone, Default)]
struct Slab {
    use_: Use,
    /// Bit n is set while block n is free.
    free: u128,
    /// Rings that have this slab registered.
    registered: u32,
    huge: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Use {
    #[default]
    Bare,
    Empty,
    Class(u8),
}

/// Where a block lies.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) slab: u32,
    pub(crate) index: u8,
    pub(crate) class: u8,
}

impl Arena {
    /// Reserves the budget's address space; memory is taken as blocks are.
    ///
    /// # Errors
    /// When the address space cannot be reserved.
    pub fn new(options: ArenaOptions) -> io::Result<Arena> {
        let slabs = options.limit.div_ceil(SLAB_SIZE).max(1);
        let slabs_u32 = u32::try_from(slabs)
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "media memory too large"))?;
        let memory = Mapping::reserve((slabs + 1) * SLAB_SIZE)?;
        let start = memory.start();
        let skip = start.align_offset(SLAB_SIZE);
        // SAFETY: the mapping is one slab longer than the slabs in it, and `skip` is less than a
        // slab, so the result and all slabs after it lie inside.
        let base = unsafe { start.add(skip) };
        debug_assert!(skip + slabs * SLAB_SIZE <= memory.len());
        let state = State {
            slabs: vec![Slab::default(); slabs],
            empty: Vec::new(),
            bare: (0..slabs_u32).collect(),
            partial: Default::default(),
            blocks: [0; 4],
            refused: 0,
            huge_wanted: options.huge_pages,
            huge_failed: false,
        };
        let inner = Inner {
            _memory: memory,
            base,
            idle_epoch: AtomicU64::new(0),
            state: Mutex::new(state),
        };
        if options.huge_pages {
            // Taken now, so that the owner can warn at the start and not in the middle of a stream.
            let mut state = inner.lock();
            if let Ok(slab) = inner.commit_next(&mut state) {
                state.empty.push(slab);
            }
        }
        Ok(Arena { inner: Arc::new(inner) })
    }

    /// Takes a block that holds at least `bytes` (index entries included) for writing.
    /// When its class is used up a larger block may be given.
    ///
    /// # Errors
    /// [`ArenaFull`] when the budget is used up or `bytes` is more than the largest class.
    pub fn writer(&self, bytes: usize) -> Result<BlockWriter, ArenaFull> {
        let mut state = self.inner.lock();
        let Some(place) = self.inner.take(&mut state, bytes) else {
            state.refused += 1;
            return Err(ArenaFull);
        };
        drop(state);
        let start = self.inner.block_start(place);
        let capacity = BLOCK_SIZES[usize::from(place.class)];
        // SAFETY: `take` marked the block as used, so this range of the committed slab belongs to
        // nobody else until the `Core` gives it back.
        Ok(unsafe { BlockWriter::new(Arc::clone(&self.inner), place, start, capacity as u32) })
    }

    /// What the arena holds now.
    pub fn stats(&self) -> ArenaStats {
        let state = self.inner.lock();
        let used = state.blocks.iter().zip(BLOCK_SIZES).map(|(n, size)| n * size).sum();
        ArenaStats {
            limit: state.slabs.len() * SLAB_SIZE,
            reserved: (state.slabs.len() - state.bare.len()) * SLAB_SIZE,
            used,
            blocks: state.blocks.iter().sum(),
            blocks_by_class: state.blocks,
            huge_pages: state.huge_wanted && !state.huge_failed,
            refused: state.refused,
        }
    }

    /// Number of slabs in the budget: the size of a ring's registration table.
    pub(crate) fn slabs(&self) -> u32 {
        self.inner.lock().slabs.len() as u32
    }

    /// True when `inner` is this arena's: blocks know only that.
    pub(crate) fn owns(&self, inner: &Arc<Inner>) -> bool {
        Arc::ptr_eq(&self.inner, inner)
    }

    /// The slab's memory for registration.
    pub(crate) fn slab_start(&self, slab: u32) -> NonNull<u8> {
        self.inner.slab_start(slab)
    }

    /// Notes that one more ring has the slab registered. The caller holds a block in it.
    pub(crate) fn slab_registered(&self, slab: u32) {
        self.inner.lock().slabs[slab as usize].registered += 1;
    }

    /// Notes that a ring has unregistered the slab.
    pub(crate) fn slab_unregistered(&self, slab: u32) {
        let mut state = self.inner.lock();
        let entry = &mut state.slabs[slab as usize];
        entry.registered -= 1;
        let idle = entry.registered == 0 && entry.use_ == Use::Empty;
        if idle && state.empty.len() > EMPTY_SLABS_KEPT {
            state.empty.retain(|&other| other != slab);
            self.inner.decommit(state, slab);
        }
    }

    /// Changes whenever a registered slab becomes idle: see [`Arena::idle_slabs`].
    pub(crate) fn idle_epoch(&self) -> u64 {
        self.inner.idle_epoch.load(Ordering::Relaxed)
    }

    /// Of `registered`, the slabs that would give their pages back if rings let go of them.
    pub(crate) fn idle_slabs(&self, registered: impl Iterator<Item = u32>) -> Vec<u32> {
        let state = self.inner.lock();
        if state.empty.len() <= EMPTY_SLABS_KEPT {
            return Vec::new();
        }
        registered.filter(|&slab| state.slabs[slab as usize].use_ == Use::Empty).collect()
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic while the lock is held is a broken invariant; going on would hand out memory
        // twice.
        self.state.lock().expect("arena state is consistent")
    }

    fn slab_start(&self, slab: u32) -> NonNull<u8> {
        // SAFETY: slab numbers come from `State::slabs`, all of which lie inside the mapping.
        unsafe { self.base.add(slab as usize * SLAB_SIZE) }
    }

    fn block_start(&self, place: Place) -> NonNull<u8> {
        let offset = usize::from(place.index) * BLOCK_SIZES[usize::from(place.class)];
        // SAFETY: index * size is less than the slab's size by construction of `Slab::free`.
        unsafe { self.slab_start(place.slab).add(offset) }
    }

    fn take(&self, state: &mut State, bytes: usize) -> Option<Place> {
        let smallest = BLOCK_SIZES.iter().position(|&size| size >= bytes)?;
        for class in smallest..BLOCK_SIZES.len() {
            let slab = match state.partial[class].first() {
                Some(&slab) => slab,
                None => match self.open(state, class) {
                    Some(slab) => slab,
                    None => continue,
                },
            };
            let entry = &mut state.slabs[slab as usize];
            let index = entry.free.trailing_zeros();
            entry.free &= entry.free - 1;
            if entry.free == 0 {
                state.partial[class].remove(&slab);
            }
            state.blocks[class] += 1;
            return Some(Place { slab, index: index as u8, class: class as u8 });
        }
        None
    }

    /// Gives a slab to a class.
    fn open(&self, state: &mut State, class: usize) -> Option<u32> {
        let slab = match state.empty.pop() {
            Some(slab) => slab,
            None => self.commit_next(state).ok()?,
        };
        let blocks = SLAB_SIZE / BLOCK_SIZES[class];
        let entry = &mut state.slabs[slab as usize];
        entry.use_ = Use::Class(class as u8);
        entry.free = u128::MAX >> (u128::BITS as usize - blocks);
        state.partial[class].insert(slab);
        Some(slab)
    }

    /// Gives pages to the lowest bare slab; the caller puts it in use.
    fn commit_next(&self, state: &mut State) -> io::Result<u32> {
        let Some(&slab) = state.bare.first() else {
            return Err(io::ErrorKind::OutOfMemory.into());
        };
        let start = self.slab_start(slab);
        let entry = &mut state.slabs[slab as usize];
        if state.huge_wanted && !state.huge_failed {
            match map::commit_huge(start, SLAB_SIZE) {
                Ok(()) => entry.huge = true,
                Err(_) => state.huge_failed = true,
            }
        }
        if !entry.huge {
            map::commit(start, SLAB_SIZE)?;
        }
        entry.use_ = Use::Empty;
        state.bare.remove(&slab);
        Ok(slab)
    }

    /// Takes a block back. Called once per `take`, when the last reference is gone.
    pub(crate) fn give_back(&self, place: Place) {
        let class = usize::from(place.class);
        let mut state = self.lock();
        state.blocks[class] -= 1;
        let all = u128::MAX >> (u128::BITS as usize - SLAB_SIZE / BLOCK_SIZES[class]);
        let entry = &mut state.slabs[place.slab as usize];
        debug_assert_eq!(entry.use_, Use::Class(place.class));
        debug_assert_eq!(entry.free & (1 << place.index), 0, "block given back twice");
        entry.free |= 1 << place.index;
        if entry.free != all {
            state.partial[class].insert(place.slab);
            return;
        }
        entry.use_ = Use::Empty;
        let (registered, huge) = (entry.registered, entry.huge);
        state.partial[class].remove(&place.slab);
        // Huge pages come from a pool that nobody else uses, so they are kept.
        if huge || state.empty.len() < EMPTY_SLABS_KEPT {
            state.empty.push(place.slab);
        } else if registered > 0 {
            state.empty.push(place.slab);
            drop(state);
            self.idle_epoch.fetch_add(1, Ordering::Relaxed);
        } else {
            self.decommit(state, place.slab);
        }
    }

    /// Drops the pages of a slab that is in no list, outside the lock.
    fn decommit(&self, state: MutexGuard<'_, State>, slab: u32) {
        drop(state);
        let released = map::decommit(self.slab_start(slab), SLAB_SIZE);
        let mut state = self.lock();
        if released.is_ok() {
            state.slabs[slab as usize].use_ = Use::Bare;
            state.bare.insert(slab);
        } else {
            state.empty.push(slab);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arena(slabs: usize) -> Arena {
        Arena::new(ArenaOptions { limit: slabs * SLAB_SIZE, huge_pages: false })
            .expect("address space")
    }

    #[test]
    fn smallest_class_that_fits_is_taken() {
        let arena = arena(4);
        for (bytes, size) in
            [(1, 16 << 10), (16 << 10, 16 << 10), ((16 << 10) + 1, 64 << 10), (300_000, 1 << 20)]
        {
            let writer = arena.writer(bytes).expect("room");
            assert_eq!(writer.block().capacity(), size);
        }
        assert_eq!(arena.writer((1 << 20) + 1).err(), Some(ArenaFull));
        assert_eq!(arena.stats().refused, 1);
    }

    #[test]
    fn budget_ends_and_comes_back() {
        let arena = arena(2);
        let mut blocks: Vec<_> = (0..4).map(|_| arena.writer(1 << 20).expect("room")).collect();
        assert_eq!(arena.writer(1).err(), Some(ArenaFull));
        assert_eq!(arena.stats().used, 4 << 20);
        assert_eq!(arena.stats().blocks_by_class, [0, 0, 0, 4]);
        blocks.pop();
        // No slab is empty, so a small request is served from the larger class.
        let small = arena.writer(1).expect("room");
        assert_eq!(small.block().capacity(), 1 << 20);
        drop((blocks, small));
        assert_eq!(arena.stats().blocks, 0);
        let all: Vec<_> = (0..256).map(|_| arena.writer(1000).expect("room")).collect();
        assert_eq!(arena.stats().used, 256 * (16 << 10));
        drop(all);
    }

    #[test]
    fn pages_go_back_when_slabs_are_empty() {
        let arena = arena(16);
        let blocks: Vec<_> = (0..32).map(|_| arena.writer(1 << 20).expect("room")).collect();
        assert_eq!(arena.stats().reserved, 16 * SLAB_SIZE);
        drop(blocks);
        assert_eq!(arena.stats().reserved, EMPTY_SLABS_KEPT * SLAB_SIZE);
    }

    #[test]
    fn registered_slab_keeps_its_pages_until_unregistered() {
        let arena = arena(4);
        let blocks: Vec<_> = (0..6).map(|_| arena.writer(1 << 20).expect("room")).collect();
        for slab in 0..3 {
            arena.slab_registered(slab);
        }
        let epoch = arena.idle_epoch();
        drop(blocks);
        assert_eq!(arena.stats().reserved, 3 * SLAB_SIZE);
        assert_ne!(arena.idle_epoch(), epoch);
        for slab in arena.idle_slabs(0..3) {
            arena.slab_unregistered(slab);
        }
        assert_eq!(arena.stats().reserved, EMPTY_SLABS_KEPT * SLAB_SIZE);
    }

    #[test]
    fn asking_for_huge_pages_works_with_and_without_them() {
        let arena = Arena::new(ArenaOptions { limit: 4 * SLAB_SIZE, huge_pages: true })
            .expect("address space");
        let mut writer = arena.writer(1000).expect("room");
        writer.push(b"touched");
        writer.publish();
        assert_eq!(writer.block().bytes(0, 7), b"touched");
    }
}
