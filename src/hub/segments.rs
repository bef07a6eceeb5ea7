//! Segments of a stream: ranges of a feed that are kept for players who ask for them one by one.
//!
//! The stream's writer cuts its feed and tells of it by exchanging the [`SegmentList`] as a whole;
//! players on any shard read what is there. A range holds its blocks, so nothing is copied, and
//! what all streams of a process hold is counted against one budget ([`SegmentMemory`]).

use std::collections::VecDeque;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicU64, fence};
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use bytes::Bytes;
use uring::Block;

use super::feed::{Container, Position};

/// A range of a block.
#[derive(Clone, Debug)]
pub struct Piece {
    /// The block.
    pub block: Block,
    /// First byte.
    pub start: u32,
    /// One past the last byte.
    pub end: u32,
}

/// The ranges of `blocks` (numbered, in order) from one place to another.
pub fn pieces(blocks: &VecDeque<(u64, Block)>, start: Position, end: Position) -> Vec<Piece> {
    let mut out = Vec::new();
    for (number, block) in blocks {
        if !(start.block..=end.block).contains(number) {
            continue;
        }
        let from = if *number == start.block { start.offset } else { 0 };
        let to = if *number == end.block { end.offset } else { block.len() };
        if from < to {
            out.push(Piece { block: block.clone(), start: from, end: to });
        }
    }
    out
}

/// Bytes of these ranges.
pub fn bytes_of(pieces: &[Piece]) -> u64 {
    pieces.iter().map(|piece| u64::from(piece.end - piece.start)).sum()
}

/// What all segments of a process may hold.
#[derive(Debug)]
pub struct SegmentMemory {
    limit: AtomicU64,
    used: AtomicU64,
}

impl Default for SegmentMemory {
    fn default() -> Self {
        SegmentMemory { limit: AtomicU64::new(u64::MAX), used: AtomicU64::new(0) }
    }
}

impl SegmentMemory {
    /// Says how much it is, bytes.
    pub fn set_limit(&self, bytes: u64) {
        self.limit.store(bytes, Relaxed);
    }

    /// The limit, bytes.
    pub fn limit(&self) -> u64 {
        self.limit.load(Relaxed)
    }

    /// Bytes that segments hold now.
    pub fn used(&self) -> u64 {
        self.used.load(Relaxed)
    }

    /// True when segments hold more than they may: streams let go of old ones.
    pub fn is_over(&self) -> bool {
        self.used() > self.limit()
    }
}

/// Memory that is counted until this is dropped.
#[derive(Debug)]
struct Space {
    memory: Arc<SegmentMemory>,
    bytes: u64,
}

impl Drop for Space {
    fn drop(&mut self) {
        self.memory.used.fetch_sub(self.bytes, Relaxed);
    }
}

/// What a segment has to be read with (MP4).
#[derive(Debug, PartialEq, Eq)]
pub struct Init {
    /// Its name: a path without leading slash.
    pub name: String,
    /// Its address in playlists.
    pub uri: String,
    /// The bytes.
    pub bytes: Bytes,
}

/// What segments are encrypted with (AES-128).
#[derive(Debug)]
pub struct Key {
    /// Its name.
    pub name: String,
    /// Its address in playlists.
    pub uri: String,
    /// The key.
    pub bytes: [u8; 16],
    /// The initialisation vector.
    pub iv: [u8; 16],
}

/// A piece of a segment that players may have before the rest.
#[derive(Debug)]
pub struct Part {
    /// Its name.
    pub name: String,
    /// Its address in playlists.
    pub uri: String,
    /// How long it is, ms.
    pub duration_ms: i64,
    /// Decoding can start in it.
    pub independent: bool,
    /// Its bytes.
    pub pieces: Vec<Piece>,
}

/// The description of one track (MP4), and what manifests say of it.
#[derive(Debug, PartialEq)]
pub struct TrackInit {
    /// Its name.
    pub name: String,
    /// Its address in manifests.
    pub uri: String,
    /// The initialisation segment.
    pub bytes: Bytes,
    /// Its codec by its RFC 6381 name; empty if it has none.
    pub codecs: String,
    /// Ticks a second.
    pub timescale: u32,
    /// Pixels across and down.
    pub size: Option<(u32, u32)>,
    /// Pictures a second.
    pub fps: Option<f64>,
    /// Samples a second and channels.
    pub audio: Option<(u32, u8)>,
}

/// Segments whose times and descriptions belong together (DASH).
#[derive(Debug)]
pub struct Period {
    /// Its number.
    pub number: u64,
    /// When it began, ms since 1970.
    pub wall_ms: i64,
    /// Media time at its begin, 1/90000 s.
    pub offset: i64,
    /// The tracks: pictures, audio.
    pub tracks: [Option<Arc<TrackInit>>; 2],
}

/// What a segment has of one track (MP4).
#[derive(Debug)]
pub struct TrackSegment {
    /// Its number; each track counts its own.
    pub number: u64,
    /// When the first of it is shown, ticks of the track.
    pub start: i64,
    /// How long it is, ticks of the track.
    pub duration: i64,
    /// Its bytes: the ranges of the fragments of this track.
    pub pieces: Vec<Piece>,
    /// How many they are.
    pub bytes: u64,
}

/// How a stream is to be had by DASH.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DashTerms {
    /// How much a manifest has, ms.
    pub window_ms: i64,
    /// When players look for a new one, ms.
    pub update_ms: i64,
    /// Where segments are: a path without leading slash.
    pub folder: String,
}

/// A complete segment.
#[derive(Debug)]
pub struct Segment {
    /// Its number; they are counted over the life of the stream.
    pub number: u64,
    /// Its name: a path without leading slash.
    pub name: String,
    /// Its address in playlists.
    pub uri: String,
    /// Stream time at its begin, ms.
    pub start_ms: i64,
    /// How long it is, ms.
    pub duration_ms: i64,
    /// When it began, ms since 1970; 0: not known.
    pub wall_ms: i64,
    /// What comes before does not fit it.
    pub discontinuity: bool,
    /// It begins where decoding can.
    pub independent: bool,
    /// What it has to be read with.
    pub init: Option<Arc<Init>>,
    /// What it is encrypted with.
    pub key: Option<Arc<Key>>,
    /// Its bytes.
    pub pieces: Vec<Piece>,
    /// How many they are.
    pub bytes: u64,
    /// Its parts.
    pub parts: Vec<Arc<Part>>,
    /// The same by track, where that is asked for: pictures, audio.
    pub tracks: [Option<TrackSegment>; 2],
    /// What the times of its tracks are counted from.
    pub period: Option<Arc<Period>>,
    space: OnceLock<Space>,
}

impl Segment {
    /// A segment of these ranges.
    pub fn new(number: u64, name: String, pieces: Vec<Piece>) -> Segment {
        Segment {
            number,
            name,
            uri: String::new(),
            start_ms: 0,
            duration_ms: 0,
            wall_ms: 0,
            discontinuity: false,
            independent: false,
            init: None,
            key: None,
            bytes: bytes_of(&pieces),
            pieces,
            parts: Vec::new(),
            tracks: [None, None],
            period: None,
            space: OnceLock::new(),
        }
    }

    /// Counts its bytes for as long as anybody has it.
    pub fn count_in(&self, memory: &Arc<SegmentMemory>) {
        self.space.get_or_init(|| {
            memory.used.fetch_add(self.bytes, Relaxed);
            Space { memory: memory.clone(), bytes: self.bytes }
        });
    }

    /// Bits a second.
    pub fn bit_rate(&self) -> u64 {
        self.bytes * 8_000 / self.duration_ms.max(1).unsigned_abs()
    }
}

/// The segment that is being written, as far as players are told.
#[derive(Clone, Debug)]
pub struct OpenSegment {
    /// Its number.
    pub number: u64,
    /// When it began, ms since 1970; 0: not known.
    pub wall_ms: i64,
    /// What comes before does not fit it.
    pub discontinuity: bool,
    /// What it has to be read with.
    pub init: Option<Arc<Init>>,
    /// Its parts so far.
    pub parts: Vec<Arc<Part>>,
    /// The name of the part that comes next.
    pub hint: String,
    /// Its address in playlists.
    pub hint_uri: String,
}

/// What is in the segments, for master playlists.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Content {
    /// Codecs by their RFC 6381 names, with commas; empty if one has none.
    pub codecs: String,
    /// Pixels across and down.
    pub size: Option<(u32, u32)>,
    /// Pictures a second.
    pub fps: Option<f64>,
}

/// A text, and the places in it where each player has a word of its own.
pub type Marked = (String, Vec<u32>);

/// A text that was compressed for all viewers of one kind, but for their ids.
#[derive(Debug)]
pub struct Squeezed {
    /// What viewers of this kind have in common: their words, with a placeholder for the id.
    pub shape: String,
    /// Bytes up to the end of the first id, which are not compressed.
    pub prefix: usize,
    /// Bytes of the text.
    pub len: usize,
    /// The rest of it, compressed.
    pub tail: Vec<u8>,
}

/// All that players may ask for at a time; replaced as a whole.
#[derive(Debug)]
pub struct SegmentList {
    /// What segments are packed in.
    pub container: Container,
    /// The target duration, s; 0 before the first segment.
    pub target_s: u64,
    /// The longest part, ms, if there are parts.
    pub part_target_ms: Option<i64>,
    /// Segments, oldest first; the first ones are not in the playlist any more.
    pub segments: VecDeque<Arc<Segment>>,
    /// How many are not in the playlist any more.
    pub unlisted: usize,
    /// Discontinuities before the first segment of the playlist.
    pub discontinuities: u64,
    /// The segment that is being written, if players are told of its parts.
    pub open: Option<OpenSegment>,
    /// What is in them.
    pub content: Content,
    /// How it is to be had by DASH, if it is.
    pub dash: Option<Arc<DashTerms>>,
    /// When this was so, ms since 1970.
    pub wall_ms: i64,
    /// The playlist: whole, and without what players have already. Written by who asks first.
    pub texts: [OnceLock<Marked>; 2],
    /// The manifest: while more comes, and of all there was.
    pub manifests: [OnceLock<Marked>; 2],
    /// The same four texts for who takes gzip, where that pays.
    pub squeezed: [OnceLock<Option<Squeezed>>; 4],
}

impl SegmentList {
    /// Nothing yet.
    pub fn empty(container: Container) -> SegmentList {
        SegmentList {
            container,
            target_s: 0,
            part_target_ms: None,
            segments: VecDeque::new(),
            unlisted: 0,
            discontinuities: 0,
            open: None,
            content: Content::default(),
            dash: None,
            wall_ms: 0,
            texts: Default::default(),
            manifests: Default::default(),
            squeezed: Default::default(),
        }
    }

    /// The segments of the playlist.
    pub fn listed(&self) -> impl DoubleEndedIterator<Item = &Arc<Segment>> + Clone {
        self.segments.iter().skip(self.unlisted)
    }

    /// True when there is something to play.
    pub fn has_begun(&self) -> bool {
        self.segments.len() > self.unlisted
    }

    /// The number that the next segment has or will have.
    pub fn next_number(&self) -> u64 {
        self.segments.back().map_or(0, |last| last.number + 1)
    }

    /// True when the segment of that number is complete or past, or, if a part of it is asked for,
    /// that part.
    pub fn has(&self, number: u64, part: Option<u64>) -> bool {
        if number < self.next_number() {
            return true;
        }
        let open = self.open.as_ref().filter(|open| open.number == number);
        let parts = open.map_or(0, |open| open.parts.len() as u64);
        part.is_some_and(|part| part < parts)
    }

    /// The segment of that name. `number` is what the name says, if it does.
    pub fn segment(&self, name: &str, number: Option<u64>) -> Option<&Arc<Segment>> {
        let first = self.segments.front()?.number;
        let index = number.and_then(|number| usize::try_from(number.checked_sub(first)?).ok());
        let named = |segment: &&Arc<Segment>| segment.name == name;
        let quick = index.and_then(|index| self.segments.get(index)).filter(named);
        quick.or_else(|| self.segments.iter().rev().find(named))
    }

    /// What a track (0: pictures, 1: audio) has under a number.
    pub fn track(&self, track: usize, number: u64) -> Option<(&Arc<Segment>, &TrackSegment)> {
        let of_it = |segment: &'_ Arc<Segment>| segment.tracks[track].as_ref().map(|t| t.number);
        // Numbers go up, but not every segment has one.
        let at = self.segments.iter().rposition(|s| of_it(s).is_some_and(|n| n <= number))?;
        let segment = &self.segments[at];
        segment.tracks[track].as_ref().filter(|t| t.number == number).map(|t| (segment, t))
    }

    /// The description of a track with that name.
    pub fn track_init(&self, name: &str) -> Option<&Arc<TrackInit>> {
        let periods = self.segments.iter().rev().filter_map(|segment| segment.period.as_ref());
        periods.flat_map(|period| period.tracks.iter().flatten()).find(|init| init.name == name)
    }

    /// The part of that name.
    pub fn part(&self, name: &str) -> Option<&Arc<Part>> {
        let open = self.open.iter().flat_map(|open| &open.parts);
        let closed = self.segments.iter().rev().flat_map(|segment| &segment.parts);
        open.chain(closed).find(|part| part.name == name)
    }

    /// The key of that name.
    pub fn key(&self, name: &str) -> Option<&Arc<Key>> {
        self.segments.iter().rev().filter_map(|s| s.key.as_ref()).find(|key| key.name == name)
    }

    /// The initialisation segment of that name.
    pub fn init(&self, name: &str) -> Option<&Arc<Init>> {
        let open = self.open.iter().filter_map(|open| open.init.as_ref());
        let closed = self.segments.iter().rev().filter_map(|segment| segment.init.as_ref());
        open.chain(closed).find(|init| init.name == name)
    }
}

/// The segments of a stream, as all shards share them.
#[derive(Debug)]
pub struct Segments {
    list: ArcSwap<SegmentList>,
    /// Shards with players that wait for the next change, one bit each.
    waiting: AtomicU64,
    /// The list has changed since the publisher's shard last looked.
    news: AtomicBool,
    /// When they are let go if nobody publishes the stream again, ns; 0: somebody publishes it.
    dispose_at: AtomicU64,
}

impl Segments {
    /// Nothing yet.
    pub fn new(container: Container) -> Segments {
        Segments {
            list: ArcSwap::from_pointee(SegmentList::empty(container)),
            waiting: AtomicU64::new(0),
            news: AtomicBool::new(false),
            dispose_at: AtomicU64::new(0),
        }
    }

    /// What there is now.
    pub fn list(&self) -> Arc<SegmentList> {
        self.list.load_full()
    }

    /// For the writer: this is what there is from now on.
    pub fn publish(&self, list: SegmentList) {
        self.list.store(Arc::new(list));
        self.news.store(true, Release);
        // Pairs with the fence in `wait`: either the writer sees who waits, or who waits sees this.
        fence(SeqCst);
    }

    /// A player on this shard waits for the next change. It has to look at the list again after
    /// this.
    pub fn wait(&self, shard: usize) {
        self.waiting.fetch_or(1 << shard, AcqRel);
        fence(SeqCst);
    }

    /// The shards that wait for a change, if there was one since this was last asked.
    pub fn take_waiting(&self) -> u64 {
        if !self.news.load(Acquire) || !self.news.swap(false, AcqRel) {
            return 0;
        }
        fence(SeqCst);
        self.waiting.swap(0, AcqRel)
    }

    /// Nobody publishes the stream any more: the segments go at that time, ns.
    pub fn dispose_at(&self, ns: u64) {
        self.dispose_at.store(ns.max(1), Relaxed);
    }

    /// Somebody publishes the stream again.
    pub fn keep(&self) {
        self.dispose_at.store(0, Relaxed);
    }

    /// When they go, ns, if nobody publishes the stream.
    pub fn disposes_at(&self) -> Option<u64> {
        Some(self.dispose_at.load(Relaxed)).filter(|at| *at > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uring::{Arena, ArenaOptions};

    fn block(bytes: &[u8]) -> Block {
        let arena = Arena::new(ArenaOptions { limit: 4 << 20, huge_pages: false }).unwrap();
        let mut writer = arena.writer(16 << 10).unwrap();
        writer.push(bytes);
        writer.publish();
        writer.block().clone()
    }

    #[test]
    fn ranges_go_over_blocks() {
        let blocks: VecDeque<_> = [(4, block(b"abc")), (5, block(b"")), (6, block(b"defg"))].into();
        let at = |block, offset| Position { block, offset };
        let text = |start, end| {
            let pieces = pieces(&blocks, start, end);
            let bytes: Vec<u8> =
                pieces.iter().flat_map(|p| p.block.bytes(p.start, p.end).to_vec()).collect();
            assert_eq!(bytes_of(&pieces), bytes.len() as u64);
            String::from_utf8(bytes).unwrap()
        };
        assert_eq!(text(at(4, 1), at(6, 2)), "bcde");
        assert_eq!(text(at(4, 3), at(6, 4)), "defg");
        assert_eq!(text(at(4, 0), at(4, 0)), "");
        assert_eq!(text(at(3, 0), at(9, 0)), "abcdefg");
    }

    #[test]
    fn who_waits_is_told_once() {
        let segments = Segments::new(Container::Ts);
        segments.wait(3);
        assert_eq!(segments.take_waiting(), 0);
        segments.publish(SegmentList::empty(Container::Ts));
        assert_eq!((segments.take_waiting(), segments.take_waiting()), (8, 0));
    }

    #[test]
    fn memory_is_counted_as_long_as_somebody_has_it() {
        let memory = Arc::new(SegmentMemory::default());
        memory.set_limit(4);
        let piece = Piece { block: block(b"hello"), start: 0, end: 5 };
        let segment = Arc::new(Segment::new(0, "s".into(), vec![piece]));
        segment.count_in(&memory);
        segment.count_in(&memory);
        let mut list = SegmentList::empty(Container::Ts);
        list.segments.push_back(segment.clone());
        assert!(memory.is_over() && memory.used() == 5);
        assert!(list.segment("s", Some(0)).is_some() && list.segment("s", Some(7)).is_some());
        assert!(list.segment("t", Some(0)).is_none());
        assert!(list.has(0, None) && !list.has(1, None) && !list.has(1, Some(0)));
        drop(list);
        assert_eq!(memory.used(), 5);
        drop(segment);
        assert_eq!(memory.used(), 0);
    }
}
