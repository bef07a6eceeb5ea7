//! The recorder's place in a feed: whole messages, by reference to the feed's blocks.

use std::sync::Arc;

use bytes::Bytes;
use uring::Block;

use crate::hub::feed::RECORDER;
use crate::hub::{Entrance, Feed, Flags, Mirror, Position};

/// A part of a message: bytes of a block, which is kept.
#[derive(Clone, Debug)]
pub struct Part {
    block: Block,
    start: u32,
    end: u32,
}

impl Part {
    fn bytes(&self) -> &[u8] {
        self.block.bytes(self.start, self.end)
    }
}

impl AsRef<[u8]> for Part {
    fn as_ref(&self) -> &[u8] {
        self.bytes()
    }
}

/// One message of a feed.
#[derive(Debug)]
pub struct Message {
    /// What it is.
    pub flags: Flags,
    /// Stream time, ms.
    pub time: i64,
    /// Bytes of it.
    pub len: usize,
    parts: Vec<Part>,
}

impl Message {
    /// True for pictures and audio frames, and not for what describes them.
    pub fn is_frame(&self) -> bool {
        !self.flags.has(Flags::SEQUENCE_HEADER) && !self.flags.has(Flags::DATA)
    }

    /// Its beginning, as far as it lies in one block: all of it, unless it is larger than a block.
    pub fn head(&self) -> &[u8] {
        self.parts.first().map_or(&[], Part::bytes)
    }
}

/// What is to be written, in its order: bytes of the feed by reference, and own ones.
#[derive(Debug, Default)]
pub struct Pieces {
    pieces: Vec<Piece>,
    len: usize,
}

#[derive(Debug)]
enum Piece {
    Own(Vec<u8>),
    Shared(Part),
}

impl Pieces {
    /// Bytes of all.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Adds own bytes.
    pub fn own(&mut self, bytes: &[u8]) {
        self.len += bytes.len();
        match self.pieces.last_mut() {
            Some(Piece::Own(last)) => last.extend_from_slice(bytes),
            _ => self.pieces.push(Piece::Own(bytes.to_vec())),
        }
    }

    /// Adds a message without its first `skip` bytes.
    pub fn shared(&mut self, message: &Message, mut skip: usize) {
        self.len += message.len.saturating_sub(skip);
        for part in &message.parts {
            let len = (part.end - part.start) as usize;
            if skip >= len {
                skip -= len;
                continue;
            }
            let start = part.start + skip as u32;
            skip = 0;
            match self.pieces.last_mut() {
                // What lies side by side is written at once.
                Some(Piece::Shared(last)) if last.end == start && last.block.same(&part.block) => {
                    last.end = part.end;
                }
                _ => self.pieces.push(Piece::Shared(Part { start, ..part.clone() })),
            }
        }
    }

    /// For the disk. The blocks are kept until it is done with them.
    pub fn into_bytes(self) -> Vec<Bytes> {
        let bytes = |piece| match piece {
            Piece::Own(bytes) => Bytes::from(bytes),
            Piece::Shared(part) => Bytes::from_owner(part),
        };
        self.pieces.into_iter().map(bytes).collect()
    }
}

/// A place in a feed.
#[derive(Debug)]
pub struct Follower {
    mirror: Mirror,
    block: u64,
    /// Entries of that block that were read.
    entry: u32,
}

/// The blocks that come next are not there any more.
#[derive(Debug, PartialEq, Eq)]
pub struct Gone;

impl Follower {
    /// Follows a feed from its beginning if all of it is still there, or from the newest keyframe
    /// that is. `None` while it cannot be joined, or when it is being closed.
    pub fn new(feed: &Arc<Feed>) -> Option<(Follower, Entrance)> {
        if !feed.follow() {
            return None;
        }
        let mirror = Mirror::of_shard(feed.clone(), RECORDER);
        let mut follower = Follower { mirror, block: 0, entry: 0 };
        let entrance = follower.mirror.entrance()?;
        if follower.mirror.block(0).is_none() {
            follower.go_to(entrance.at);
        }
        Some((follower, entrance))
    }

    /// The feed.
    pub fn feed(&self) -> &Arc<Feed> {
        self.mirror.feed()
    }

    /// True when the feed's beginning is still to come.
    pub fn is_at_beginning(&self) -> bool {
        self.block == 0 && self.entry == 0
    }

    /// Takes up what has come.
    pub fn refresh(&mut self) {
        self.mirror.refresh();
        self.mirror.trim(self.block);
    }

    /// Goes to where newcomers begin: `None` while there is no such place. What lies between is not
    /// read.
    pub fn skip(&mut self) -> Option<Entrance> {
        let entrance = self.mirror.entrance()?;
        if entrance.at >= self.position() {
            self.go_to(entrance.at);
        }
        Some(entrance)
    }

    /// Lets go of everything that is there.
    pub fn drop_all(&mut self) {
        self.mirror.refresh();
        self.go_to(self.mirror.live_end());
        self.mirror.trim(self.block);
    }

    /// Bytes that are kept for this reader alone, and stream time that it has still to read, ms.
    pub fn backlog(&self) -> (u64, i64) {
        let first_offered = self.feed().first();
        let own = |number: u64| self.mirror.block(number).map_or(0, |block| u64::from(block.len()));
        let bytes = (self.block..first_offered).map(own).sum();
        let time = self.mirror.time_at(self.position());
        (bytes, self.feed().time() - time)
    }

    /// The next message, if all of it is there.
    ///
    /// # Errors
    /// It is not there any more.
    pub fn next(&mut self) -> Result<Option<Message>, Gone> {
        loop {
            let at = Position { block: self.block, offset: 0 };
            if self.mirror.has_lost(at) {
                return Err(Gone);
            }
            let Some(block) = self.mirror.block(self.block) else { return Ok(None) };
            let (len, count) = block.published();
            if self.entry >= count {
                let next = self.mirror.block(self.block + 1);
                // A block that has a successor gets no more messages.
                if next.is_none() || block.published() != (len, count) {
                    return Ok(None);
                }
                (self.block, self.entry) = (self.block + 1, 0);
                continue;
            }
            let entry = block.entry(self.entry);
            let flags = Flags(entry.flags);
            if flags.has(Flags::BOUNDARY) {
                self.entry += 1;
                continue;
            }
            let last = self.entry + 1 == count;
            let end = if last { len } else { block.entry(self.entry + 1).offset };
            let first = Part { block: Block::clone(block), start: entry.offset, end };
            if flags.has(Flags::SPANS) {
                return Ok(self.spanning(flags, entry.time, first));
            }
            self.entry += 1;
            let len = (end - entry.offset) as usize;
            return Ok(Some(Message { flags, time: entry.time, len, parts: vec![first] }));
        }
    }

    /// A message that goes on in the blocks behind; it ends where one of them says so.
    fn spanning(&mut self, flags: Flags, time: i64, first: Part) -> Option<Message> {
        let mut len = (first.end - first.start) as usize;
        let mut parts = vec![first];
        let mut number = self.block + 1;
        loop {
            let block = self.mirror.block(number)?;
            let (published, count) = block.published();
            let end = if count > 0 { block.entry(0).offset } else { published };
            len += end as usize;
            parts.push(Part { block: Block::clone(block), start: 0, end });
            if count > 0 {
                (self.block, self.entry) = (number, 1);
                return Some(Message { flags, time, len, parts });
            }
            number += 1;
        }
    }

    fn position(&self) -> Position {
        let block = self.mirror.block(self.block);
        let offset = block.map_or(0, |block| {
            let (len, count) = block.published();
            if self.entry < count { block.entry(self.entry).offset } else { len }
        });
        Position { block: self.block, offset }
    }

    fn go_to(&mut self, at: Position) {
        self.block = at.block;
        let block = self.mirror.block(at.block);
        self.entry = block.map_or(0, |block| {
            block.first_entry_at_or_after(at.offset).unwrap_or_else(|| block.entry_count())
        });
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.feed().unfollow();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::feed::{FeedWriter, Format, GopLimits};
    use uring::{Arena, ArenaOptions};

    const KEY: Flags = Flags(1 | 8);
    const VIDEO: Flags = Flags(1);

    fn writer() -> FeedWriter {
        let arena = Arena::new(ArenaOptions { limit: 32 << 20, huge_pages: false }).unwrap();
        let gop = GopLimits { enabled: true, messages: 1_000, bytes: 1 << 30 };
        FeedWriter::new(Format::Flv, arena, gop)
    }

    fn read_all(follower: &mut Follower) -> Vec<(i64, Vec<u8>)> {
        follower.refresh();
        let mut out = Vec::new();
        while let Some(message) = follower.next().unwrap() {
            let mut pieces = Pieces::default();
            pieces.shared(&message, 0);
            assert_eq!(pieces.len(), message.len);
            out.push((message.time, pieces.into_bytes().concat()));
        }
        out
    }

    #[test]
    fn every_message_is_read_once_and_whole() {
        let mut writer = writer();
        let sizes = [10, 20_000, 1, 300_000, 2_500_000, 5, 1_048_000, 7];
        let mut written = Vec::new();
        let mut add = |writer: &mut FeedWriter, n: usize| {
            let bytes = vec![n as u8; sizes[n % sizes.len()]];
            writer.append(&[&bytes], if n == 0 { KEY } else { VIDEO }, n as i64).unwrap();
            written.push((n as i64, bytes));
        };
        add(&mut writer, 0);
        assert!(Follower::new(writer.feed()).is_none(), "nobody knows how to join");
        writer.set_join(Bytes::new(), 0, 0, 1);
        let (mut follower, _) = Follower::new(writer.feed()).expect("it can be joined");
        assert!(follower.is_at_beginning());
        let mut read = read_all(&mut follower);
        for n in 1..sizes.len() * 2 {
            add(&mut writer, n);
            read.extend(read_all(&mut follower));
        }
        assert!(read == written, "{} of {}", read.len(), written.len());
        assert_eq!(follower.next().unwrap().map(|m| m.len), None);
        assert!(writer.feed().is_followed());
        drop(follower);
        assert!(!writer.feed().is_followed());
    }

    #[test]
    fn who_is_behind_goes_on_at_the_newest_keyframe() {
        let mut writer = writer();
        let big = vec![0; 50_000];
        writer.append(&[&big], KEY, 0).unwrap();
        writer.set_join(Bytes::new(), 0, 0, 1);
        let (mut follower, _) = Follower::new(writer.feed()).unwrap();
        for n in 1..360 {
            let flags = if n == 200 { KEY } else { VIDEO };
            writer.append(&[&big], flags, n * 40).unwrap();
            if n == 200 {
                writer.set_join(Bytes::new(), 0, n * 40, 1);
            }
            follower.refresh();
        }
        let (bytes, ms) = follower.backlog();
        assert!(bytes > 8_000_000 && ms == 359 * 40, "{bytes} bytes, {ms} ms");
        follower.skip().expect("a keyframe");
        follower.refresh();
        assert_eq!(follower.backlog().0, 0);
        let read = read_all(&mut follower);
        assert_eq!(read.first().map(|(time, _)| *time), Some(200 * 40));
        assert_eq!(read.len(), 160);
        // Not back again.
        follower.skip().expect("a keyframe");
        assert!(read_all(&mut follower).is_empty());
        writer.append(&[b"x"], VIDEO, 20_000).unwrap();
        follower.drop_all();
        assert!(read_all(&mut follower).is_empty());
    }

    #[test]
    fn neighbours_are_one_piece() {
        let mut writer = writer();
        for n in 0..100 {
            writer.append(&[b"0123456789"], KEY, n).unwrap();
        }
        writer.set_join(Bytes::new(), 0, 0, 1);
        let (mut follower, _) = Follower::new(writer.feed()).unwrap();
        let (mut whole, mut cut) = (Pieces::default(), Pieces::default());
        while let Some(message) = follower.next().unwrap() {
            whole.shared(&message, 0);
            cut.own(b"head");
            cut.shared(&message, 4);
        }
        assert_eq!((whole.len(), cut.len()), (1_000, 1_000));
        assert_eq!(whole.into_bytes().len(), 1);
        let cut = cut.into_bytes();
        assert_eq!((cut.len(), &cut[0][..], &cut[1][..]), (200, &b"head"[..], &b"456789"[..]));
    }
}
