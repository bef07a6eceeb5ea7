//! A shard's view of a feed: the blocks its players still need, counted locally.
//!
//! The feed keeps only what newcomers need. What players that are behind still have to read is
//! kept here, for at most `queue_length`; who falls further behind holds the rest of his current
//! message ([`Held`]) and nothing else.

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

use uring::{Block, Range};

use super::feed::{Feed, Flags, Join, Position};

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
    pub fn advance(&mut self, bytes: u32) {
        advance(&mut self.ranges, bytes);
    }

    /// True when the message is complete.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }
}

/// Takes `bytes` off the front of what is to be sent.
pub fn advance(ranges: &mut VecDeque<Range>, mut bytes: u32) {
    while let Some(range) = ranges.front_mut() {
        let len = range.end - range.start;
        if bytes < len {
            range.start += bytes;
            return;
        }
        bytes -= len;
        ranges.pop_front();
    }
}

/// Where a newcomer begins, and with what: parts that fit together.
#[derive(Debug)]
pub struct Entrance {
    /// What the newcomer is told first.
    pub join: Arc<Join>,
    /// Where it goes on in the log.
    pub at: Position,
    /// Stream time of the first message it gets, ms: where no keyframe is kept, that is now,
    /// however long ago the prologue was made.
    pub time: i64,
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

    /// Where a newcomer begins now. `None` while it cannot: the stream's tracks are not known yet,
    /// or the keyframe is between two places (the writer has let go of the old one and is about to
    /// tell of the new one, or this shard has not taken its block up yet), or the writer is just
    /// telling of another. The next message helps.
    pub fn entrance(&self) -> Option<Entrance> {
        self.entrance_between(|| {})
    }

    /// `meanwhile` stands for what the writer, on another thread, does between two looks at it.
    ///
    /// A start at the live end fits the prologue only if no header was appended between the two.
    /// The writer tells of a header before it appends it, so a join that is the same before and
    /// after the look at the log knows of every header up to there.
    fn entrance_between(&self, mut meanwhile: impl FnMut()) -> Option<Entrance> {
        let join = self.feed.join()?;
        meanwhile();
        let time = self.feed.time();
        let Some(start) = join.start else {
            let current = self.is_current();
            let at = self.live_end();
            meanwhile();
            let same = self.feed.join().is_some_and(|now| Arc::ptr_eq(&now, &join));
            let time = time.max(join.time);
            return (current && same).then_some(Entrance { join, at, time });
        };
        let time = join.time;
        self.block(start.block).is_some().then_some(Entrance { join, at: start, time })
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

    /// True when there are blocks that newcomers do not need: whether players do has to be asked.
    pub fn has_old_blocks(&self) -> bool {
        self.base < self.feed.first()
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::feed::{FeedWriter, Format, GopLimits};
    use bytes::Bytes;
    use uring::{Arena, ArenaOptions};

    fn writer(gop_cache: bool) -> FeedWriter {
        let arena = Arena::new(ArenaOptions { limit: 16 << 20, huge_pages: false }).unwrap();
        let gop = GopLimits { enabled: gop_cache, messages: 100, bytes: 1 << 30 };
        FeedWriter::new(Format::Rtmp, arena, gop)
    }

    const HEADER: Flags = Flags(2 | 16);
    const KEYFRAME: Flags = Flags(1 | 8);

    /// What a writer does when a sequence header changes, step by step as others can see it.
    fn step(writer: &mut FeedWriter, step: usize) {
        match step {
            0 => {
                let time = writer.start_time().unwrap_or(50);
                writer.set_join(Bytes::from_static(b"new"), 0, time, 2);
            }
            1 => writer.append(&[b"new"], HEADER, 50).unwrap(),
            2 => writer.append(&[b"frame"], KEYFRAME, 60).unwrap(),
            _ => {}
        }
    }

    #[test]
    fn no_newcomer_misses_a_header_however_its_looks_and_the_writer_alternate() {
        const STEPS: usize = 3;
        let mut came_in = 0;
        for gop_cache in [false, true] {
            for (first, second) in (0..=STEPS).flat_map(|a| (a..=STEPS).map(move |b| (a, b))) {
                let mut writer = writer(gop_cache);
                writer.append(&[b"frame"], KEYFRAME, 10).unwrap();
                writer.set_join(Bytes::from_static(b"old"), 0, 10, 1);
                let mut mirror = Mirror::new(writer.feed().clone());
                let mut done = 0;
                let mut looks = [first, second].into_iter();
                let entrance = mirror.entrance_between(|| {
                    let until = looks.next().unwrap_or(done);
                    (done..until).for_each(|n| step(&mut writer, n));
                    done = until;
                });
                (done..STEPS).for_each(|n| step(&mut writer, n));
                let Some(entrance) = entrance else { continue };
                came_in += 1;
                mirror.refresh();
                let mut read = Vec::new();
                let mut at = entrance.at;
                while let Next::One(range) = mirror.next(at, 1 << 20) {
                    read.extend_from_slice(range.block.bytes(range.start, range.end));
                    at = mirror.advance(at, range.end - range.start);
                }
                let all = [&entrance.join.prologue[..], &read].concat();
                let all = String::from_utf8(all).unwrap();
                // The second frame needs the new header; where it is past, the prologue has it.
                let needs = read.ends_with(b"frame");
                let case = format!("gop cache {gop_cache}, looks at {first} and {second}: {all}");
                assert!(!needs || all.contains("new"), "{case}");
                assert!(
                    entrance.time <= 60 && mirror.time_at(entrance.at) >= entrance.time,
                    "{case}"
                );
            }
        }
        assert!(came_in > 10, "{came_in} of 20 came in");
    }

    #[test]
    fn newcomers_begin_with_a_keyframe_of_many_blocks() {
        let mut writer = writer(true);
        writer.append(&[b"header"], HEADER, 0).unwrap();
        writer.append(&[&vec![7; 6 << 20]], KEYFRAME, 10).unwrap();
        writer.append(&[b"frame"], Flags(1), 50).unwrap();
        writer.set_join(Bytes::new(), 0, 10, 1);
        let mirror = Mirror::new(writer.feed().clone());
        let entrance = mirror.entrance().expect("its first block is there");
        assert_eq!((entrance.at, entrance.time), (Position { block: 1, offset: 0 }, 10));
    }

    #[test]
    fn without_a_way_to_join_nobody_comes_in() {
        let mut writer = writer(false);
        writer.append(&[b"frame"], KEYFRAME, 10).unwrap();
        let mut mirror = Mirror::new(writer.feed().clone());
        assert!(mirror.entrance().is_none());
        writer.set_join(Bytes::new(), 0, 10, 1);
        let entrance = mirror.entrance().expect("nothing is in the way");
        assert_eq!((entrance.at, entrance.time), (Position { block: 0, offset: 5 }, 10));
        // A block that was not taken up: the live end is not known.
        writer.append(&[&[7; 300_000]], KEYFRAME, 20).unwrap();
        assert!(mirror.entrance().is_none());
        mirror.refresh();
        let at = Position { block: 1, offset: 300_000 };
        assert_eq!(mirror.entrance().map(|entrance| (entrance.at, entrance.time)), Some((at, 20)));
    }
}
