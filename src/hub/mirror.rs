//! A shard's view of a feed: the blocks its players still need, counted locally.
//!
//! The feed keeps only what newcomers need. What players that are behind still have to read is
//! kept here, for at most `queue_length`; who falls further behind holds the rest of his current
//! message ([`Held`]) and nothing else.

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

use uring::{Block, Range};

use super::feed::{Feed, Flags, Position};

/// What a player at some position can be sent.
#[derive(Debug)]
pub enum Next {
    /// Nothing: it has everything.
    AtEnd,
    /// A contiguous range.
    One(Range),
    /// Two ranges: the rest of a block and the beginning of the next.
    Two(Range, Range),
    /// The block is not kept any more.
    Gone,
}

/// The unsent rest of a message, kept for a player that has fallen behind.
#[derive(Debug, Default)]
pub struct Held {
    ranges: VecDeque<Range>,
}

impl Held {
    /// The next contiguous range.
    pub fn front(&self) -> Option<&Range> {
        self.ranges.front()
    }

    /// Notes that `bytes` were sent.
    pub fn advance(&mut self, mut bytes: u32) {
        while let Some(range) = self.ranges.front_mut() {
            let len = range.end - range.start;
            if bytes < len {
                range.start += bytes;
                return;
            }
            bytes -= len;
            self.ranges.pop_front();
        }
    }

    /// True when the message is complete.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }
}

/// One shard's blocks of one feed.
#[derive(Debug)]
pub struct Mirror {
    feed: Arc<Feed>,
    /// The shard whose view this is; the feed keeps for it what it has not taken up.
    shard: Option<usize>,
    /// Number of `blocks[0]`.
    base: u64,
    blocks: VecDeque<Rc<Block>>,
}

impl Mirror {
    /// A view of everything the feed offers now, for a look at it.
    pub fn new(feed: Arc<Feed>) -> Mirror {
        Mirror::with(feed, None)
    }

    /// The view of a shard: nothing is let go before it has taken it up, within the limit of
    /// blocks that a feed offers.
    pub fn of_shard(feed: Arc<Feed>, shard: usize) -> Mirror {
        // Said before looking, so that the oldest block is still there when it is taken up.
        feed.note_taken(shard, 0);
        Mirror::with(feed, Some(shard))
    }

    fn with(feed: Arc<Feed>, shard: Option<usize>) -> Mirror {
        let base = feed.first();
        let mut mirror = Mirror { feed, shard, base, blocks: VecDeque::new() };
        mirror.refresh();
        mirror
    }

    /// The feed.
    pub fn feed(&self) -> &Arc<Feed> {
        &self.feed
    }

    /// Number of blocks held.
    pub fn len(&self) -> usize {
        self.blocks.len()
    }

    /// True when no block is held.
    pub fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    /// Takes up blocks that were added since the last time.
    pub fn refresh(&mut self) {
        let end = self.feed.end();
        let mut number = self.base + self.blocks.len() as u64;
        while number < end {
            match self.feed.block(number) {
                Some(block) => self.blocks.push_back(Rc::new(block)),
                None => {
                    // This shard slept through more than the feed keeps: begin anew with what is
                    // there. Its players find their blocks gone and are moved on.
                    self.blocks.clear();
                    self.base = self.feed.first().max(number + 1);
                    number = self.base;
                    continue;
                }
            }
            number += 1;
        }
        if let Some(shard) = self.shard {
            self.feed.note_taken(shard, number);
        }
    }

    /// True when every block of the feed has been taken up.
    pub fn is_current(&self) -> bool {
        self.base + self.blocks.len() as u64 == self.feed.end()
    }

    /// True when the block of that place is not kept any more.
    pub fn has_lost(&self, at: Position) -> bool {
        at.block < self.base
    }

    /// The newest place where a message ends.
    pub fn live_end(&self) -> Position {
        for (index, block) in self.blocks.iter().enumerate().rev() {
            let number = self.base + index as u64;
            let (len, count) = block.published();
            if count == 0 {
                continue;
            }
            let last = block.entry(count - 1);
            let offset = if Flags(last.flags).has(Flags::SPANS) { last.offset } else { len };
            return Position { block: number, offset };
        }
        Position { block: self.base + self.blocks.len() as u64, offset: 0 }
    }

    /// The newest published byte.
    pub fn end(&self) -> Position {
        match self.blocks.back() {
            Some(block) => {
                Position { block: self.base + self.blocks.len() as u64 - 1, offset: block.len() }
            }
            None => Position { block: self.base, offset: 0 },
        }
    }

    /// What can be sent from `at`, at most `limit` bytes.
    pub fn next(&self, at: Position, limit: u32) -> Next {
        if self.has_lost(at) {
            return Next::Gone;
        }
        let mut index = (at.block - self.base) as usize;
        let mut start = at.offset;
        loop {
            let Some(block) = self.blocks.get(index) else { return Next::AtEnd };
            let end = block.len();
            if start < end {
                let first = Range { block: block.clone(), start, end: end.min(start + limit) };
                let left = limit - (first.end - first.start);
                return match self.blocks.get(index + 1) {
                    Some(block) if first.end == end && left > 0 && !block.is_empty() => {
                        let end = block.len().min(left);
                        Next::Two(first, Range { block: block.clone(), start: 0, end })
                    }
                    _ => Next::One(first),
                };
            }
            index += 1;
            start = 0;
        }
    }

    /// The place `bytes` after `at`.
    pub fn advance(&self, at: Position, bytes: u32) -> Position {
        let mut at = at;
        let mut bytes = bytes;
        while let Some(block) = self.block(at.block) {
            let left = block.len() - at.offset;
            if bytes <= left {
                at.offset += bytes;
                return at;
            }
            bytes -= left;
            at = Position { block: at.block + 1, offset: 0 };
        }
        at
    }

    /// True when a message begins (or will begin) at `at`.
    pub fn is_boundary(&self, at: Position) -> bool {
        let Some(block) = self.block(at.block) else {
            // Not written yet: a boundary unless the block before it ends inside a message.
            return at.offset == 0
                && at.block.checked_sub(1).is_none_or(|n| self.block_ends_at_boundary(n));
        };
        if at.offset == block.len() {
            return self.block_ends_at_boundary(at.block);
        }
        block.first_entry_at_or_after(at.offset).is_some_and(|i| block.entry(i).offset == at.offset)
    }

    /// Stream time of the message at or after `at`, ms.
    pub fn time_at(&self, at: Position) -> i64 {
        let mut number = at.block;
        let mut offset = at.offset;
        while let Some(block) = self.block(number) {
            if let Some(index) = block.first_entry_at_or_after(offset) {
                return block.entry(index).time;
            }
            number += 1;
            offset = 0;
        }
        self.feed.time()
    }

    /// The rest of the message `at` is in; empty at a boundary.
    pub fn rest_of_message(&self, at: Position) -> Held {
        let mut held = Held::default();
        if self.is_boundary(at) {
            return held;
        }
        let mut number = at.block;
        let mut start = at.offset;
        while let Some(block) = self.block(number) {
            let stop = block.first_entry_at_or_after(start).map(|i| block.entry(i).offset);
            let end = stop.unwrap_or_else(|| block.len());
            if end > start {
                held.ranges.push_back(Range { block: block.clone(), start, end });
            }
            if stop.is_some() || self.block_ends_at_boundary(number) {
                break;
            }
            number += 1;
            start = 0;
        }
        held
    }

    /// Lets go of blocks before `block`, but not of those the feed offers to newcomers.
    pub fn trim(&mut self, block: u64) {
        let keep = block.min(self.feed.first());
        while self.base < keep && !self.blocks.is_empty() {
            self.blocks.pop_front();
            self.base += 1;
        }
    }

    /// The block of that number, while it is held here.
    pub fn block(&self, number: u64) -> Option<&Rc<Block>> {
        self.blocks.get(usize::try_from(number.checked_sub(self.base)?).ok()?)
    }

    fn block_ends_at_boundary(&self, number: u64) -> bool {
        let Some(block) = self.block(number) else { return false };
        let count = block.entry_count();
        count > 0 && !Flags(block.entry(count - 1).flags).has(Flags::SPANS)
    }
}

impl Drop for Mirror {
    fn drop(&mut self) {
        if let Some(shard) = self.shard {
            self.feed.note_taken(shard, u64::MAX);
        }
    }
}
