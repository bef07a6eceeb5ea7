//! Blocks: append-only ranges of the arena, written by one, read by many.
//!
//! ```text
//! | bytes 0 .. len ->                      <- entries n-1 .. 0 |
//! ```
//! Bytes grow from the start, 16-byte entries from the end; the block is full when they meet.
//! `len` and the number of entries are published with Release and read with Acquire, so a reader
//! on any thread sees only finished bytes.

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

// API that the implementation must have:
//
// #[derive(Clone)] pub struct Arena;                       // process-wide, Send + Sync, cheap clone
// pub struct ArenaOptions { pub limit: usize, pub huge_pages: bool }
// pub struct ArenaFull;                                    // error: the budget is used up
// pub struct ArenaStats { limit, reserved, used, blocks, huge_pages: bool, refused: u64, .. }
// impl Arena {
//   pub fn new(options: ArenaOptions) -> io::Result<Arena>;
//   pub fn writer(&self, bytes: usize) -> Result<BlockWriter, ArenaFull>; // size class >= bytes
//   pub fn stats(&self) -> ArenaStats;
// }
// pub const BLOCK_SIZES: [usize; 4] = [16 KiB, 64 KiB, 256 KiB, 1 MiB];
// /// Unique writer of one block. Send, not Clone. Dropping it leaves the block readable.
// impl BlockWriter {
//   pub fn block(&self) -> &Block;                         // shared handle (clone it)
//   pub fn room(&self) -> usize;                           // bytes that fit beside one more entry
//   pub fn push(&mut self, bytes: &[u8]);                  // copies; not yet visible; panics if no room
//   pub fn entry(&mut self, flags: u32, time: i64);        // an entry at the current (unpublished) end
//   pub fn publish(&mut self);                             // all pushed so far becomes visible
//   pub fn written(&self) -> u32;                          // unpublished end
// }
// #[derive(Clone)] pub struct Block;                       // Send + Sync, reference counted
// impl Block {
//   pub fn len(&self) -> u32;                              // Acquire
//   pub fn bytes(&self, start: u32, end: u32) -> &[u8];    // within len, else panic
//   pub fn entries(&self) -> &[Entry]?                     // they grow downward: provide
//   pub fn entry_count(&self) -> u32;                      // Acquire
//   pub fn entry(&self, index: u32) -> Entry;              // 0 = first pushed
//   pub fn first_entry_at_or_after(&self, offset: u32) -> Option<u32>; // binary search: index
//   pub fn capacity(&self) -> u32;
// }
