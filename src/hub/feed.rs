//! A feed: one encoding of one stream as a log of numbered blocks.
//!
//! ```text
//!        first                     last
//!          v                         v
//!  ... | block 7 | block 8 | block 9 |        a ring of slots, indexed by number
//!            ^ join.start (the newest keyframe that is still kept)
//! ```
//! [`FeedWriter`] is the only writer and belongs to the shard of the publisher. [`Feed`] is what
//! everybody shares: the slots, the numbers of the oldest and newest block, and how to join.
//! Readers never follow a pointer from block to block: a reader that holds an old block holds
//! that block alone, so a player that stalls costs one block and not the rest of the stream.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64};

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use uring::{Arena, ArenaFull, Block, BlockWriter};

use crate::limits;
use crate::media::Kind;

/// The encodings a stream can be followed in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// RTMP chunk stream; always open while a stream is published: it is the GOP cache.
    Rtmp,
    /// FLV tags, nothing around them (HTTP/1.0, the connection's end is the end).
    Flv,
    /// FLV tags, each one HTTP/1.1 chunk.
    FlvChunked,
    /// FLV tags, each one binary WebSocket frame.
    FlvWebSocket,
    /// MPEG transport stream, nothing around it.
    Ts,
    /// MPEG transport stream in HTTP/1.1 chunks.
    TsChunked,
    /// MPEG transport stream in binary WebSocket frames.
    TsWebSocket,
    /// Fragmented MP4, nothing around it.
    Fmp4,
    /// Fragmented MP4 in HTTP/1.1 chunks.
    Fmp4Chunked,
    /// Fragmented MP4 in binary WebSocket frames.
    Fmp4WebSocket,
    /// AAC frames with ADTS headers, nothing around them.
    Aac,
    /// AAC frames with ADTS headers in HTTP/1.1 chunks.
    AacChunked,
    /// AAC frames with ADTS headers in binary WebSocket frames.
    AacWebSocket,
    /// MPEG audio frames, nothing around them.
    Mp3,
    /// MPEG audio frames in HTTP/1.1 chunks.
    Mp3Chunked,
    /// MPEG audio frames in binary WebSocket frames.
    Mp3WebSocket,
}

/// What a stream is packed in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Container {
    /// RTMP messages.
    Rtmp,
    /// FLV tags, which have the bodies of RTMP messages.
    Flv,
    /// MPEG transport stream.
    Ts,
    /// Fragmented MP4.
    Fmp4,
    /// The AAC track alone.
    Aac,
    /// The MPEG audio track alone.
    Mp3,
}

impl Container {
    /// How many there are.
    pub const COUNT: usize = 6;
    /// Those that go over HTTP.
    pub const OVER_HTTP: [Container; 5] =
        [Container::Flv, Container::Ts, Container::Fmp4, Container::Aac, Container::Mp3];

    /// Index for tables.
    pub fn index(self) -> usize {
        self as usize
    }

    /// The suffix of URLs and files.
    pub fn suffix(self) -> &'static str {
        match self {
            Container::Rtmp => "",
            Container::Flv => "flv",
            Container::Ts => "ts",
            Container::Fmp4 => "mp4",
            Container::Aac => "aac",
            Container::Mp3 => "mp3",
        }
    }

    /// The media type, as SRS states it.
    pub fn content_type(self) -> &'static str {
        match self {
            Container::Rtmp => "",
            Container::Flv => "video/x-flv",
            Container::Ts => "video/MP2T",
            Container::Fmp4 => "video/mp4",
            Container::Aac => "audio/x-aac",
            Container::Mp3 => "audio/mpeg",
        }
    }

    /// True where messages go in as they are, and not as units of a track.
    pub fn is_verbatim(self) -> bool {
        matches!(self, Container::Rtmp | Container::Flv)
    }

    /// The formats that have it: plain, in HTTP chunks, in WebSocket frames.
    pub fn formats(self) -> &'static [Format] {
        use Format::*;
        match self {
            Container::Rtmp => &[Rtmp],
            Container::Flv => &[Flv, FlvChunked, FlvWebSocket],
            Container::Ts => &[Ts, TsChunked, TsWebSocket],
            Container::Fmp4 => &[Fmp4, Fmp4Chunked, Fmp4WebSocket],
            Container::Aac => &[Aac, AacChunked, AacWebSocket],
            Container::Mp3 => &[Mp3, Mp3Chunked, Mp3WebSocket],
        }
    }
}

impl Format {
    /// How many formats there are.
    pub const COUNT: usize = 16;
    /// All of them, by index.
    pub const ALL: [Format; Self::COUNT] = [
        Format::Rtmp,
        Format::Flv,
        Format::FlvChunked,
        Format::FlvWebSocket,
        Format::Ts,
        Format::TsChunked,
        Format::TsWebSocket,
        Format::Fmp4,
        Format::Fmp4Chunked,
        Format::Fmp4WebSocket,
        Format::Aac,
        Format::AacChunked,
        Format::AacWebSocket,
        Format::Mp3,
        Format::Mp3Chunked,
        Format::Mp3WebSocket,
    ];
    /// Those that carry every message as it came.
    pub const VERBATIM: [Format; 4] =
        [Format::Rtmp, Format::Flv, Format::FlvChunked, Format::FlvWebSocket];

    /// What the stream is packed in.
    pub fn container(self) -> Container {
        match self {
            Format::Rtmp => Container::Rtmp,
            Format::Flv | Format::FlvChunked | Format::FlvWebSocket => Container::Flv,
            Format::Ts | Format::TsChunked | Format::TsWebSocket => Container::Ts,
            Format::Fmp4 | Format::Fmp4Chunked | Format::Fmp4WebSocket => Container::Fmp4,
            Format::Aac | Format::AacChunked | Format::AacWebSocket => Container::Aac,
            Format::Mp3 | Format::Mp3Chunked | Format::Mp3WebSocket => Container::Mp3,
        }
    }

    /// The protocol of players, for people.
    pub fn protocol(self) -> &'static str {
        match self {
            Format::Rtmp => "rtmp",
            Format::FlvWebSocket => "ws-flv",
            Format::TsWebSocket => "ws-ts",
            Format::Fmp4WebSocket => "ws-fmp4",
            Format::AacWebSocket => "ws-aac",
            Format::Mp3WebSocket => "ws-mp3",
            Format::Flv | Format::FlvChunked => "http-flv",
            Format::Ts | Format::TsChunked => "http-ts",
            Format::Fmp4 | Format::Fmp4Chunked => "http-fmp4",
            Format::Aac | Format::AacChunked => "http-aac",
            Format::Mp3 | Format::Mp3Chunked => "http-mp3",
        }
    }

    /// Index for tables.
    pub fn index(self) -> usize {
        self as usize
    }

    /// Name for logs and counters.
    pub fn name(self) -> &'static str {
        match self {
            Format::Rtmp => "rtmp",
            Format::Flv => "flv",
            Format::FlvChunked => "flv-chunked",
            Format::FlvWebSocket => "flv-ws",
            Format::Ts => "ts",
            Format::TsChunked => "ts-chunked",
            Format::TsWebSocket => "ts-ws",
            Format::Fmp4 => "fmp4",
            Format::Fmp4Chunked => "fmp4-chunked",
            Format::Fmp4WebSocket => "fmp4-ws",
            Format::Aac => "aac",
            Format::AacChunked => "aac-chunked",
            Format::AacWebSocket => "aac-ws",
            Format::Mp3 => "mp3",
            Format::Mp3Chunked => "mp3-chunked",
            Format::Mp3WebSocket => "mp3-ws",
        }
    }
}

/// What an index entry says of its message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Flags(pub u32);

impl Flags {
    /// Video message.
    pub const VIDEO: Flags = Flags(1);
    /// Audio message.
    pub const AUDIO: Flags = Flags(2);
    /// Data message (metadata).
    pub const DATA: Flags = Flags(4);
    /// A picture a decoder can start at.
    pub const KEYFRAME: Flags = Flags(8);
    /// Decoder configuration.
    pub const SEQUENCE_HEADER: Flags = Flags(16);
    /// The message continues in the next block: the end of this block is not a boundary.
    pub const SPANS: Flags = Flags(32);
    /// No message: marks where a message that spanned blocks has ended.
    pub const BOUNDARY: Flags = Flags(64);

    /// True when every bit of `other` is set.
    pub fn has(self, other: Flags) -> bool {
        self.0 & other.0 == other.0
    }

    /// What the message carries.
    pub fn kind(self) -> Kind {
        if self.has(Flags::VIDEO) {
            Kind::Video
        } else if self.has(Flags::AUDIO) {
            Kind::Audio
        } else {
            Kind::Data
        }
    }
}

impl std::ops::BitOr for Flags {
    type Output = Flags;
    fn bitor(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }
}

/// A place in a feed: block number and byte offset in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Position {
    /// Block number, counted from 0 over the life of the feed.
    pub block: u64,
    /// Byte offset in the block.
    pub offset: u32,
}

/// How a newcomer starts; replaced as a whole so that its parts always fit together.
#[derive(Clone, Debug)]
pub struct Join {
    /// Metadata and sequence headers in the feed's encoding, stamped with `time`.
    pub prologue: Bytes,
    /// The newest keyframe that is still kept; `None`: start at the live end.
    pub start: Option<Position>,
    /// Stream time of the start, ms.
    pub time: i64,
    /// Where in `prologue` the messages begin: a player that is moved on within a stream gets
    /// them again, but not the file header before them.
    pub messages_at: usize,
    /// Goes up whenever a header in the prologue changes: who was sent others needs these.
    pub headers: u32,
}

/// A block and its number.
#[derive(Debug)]
pub struct Numbered {
    /// The number.
    pub number: u64,
    /// The block.
    pub block: Block,
}

/// The shared side of a feed.
pub struct Feed {
    format: Format,
    slots: Box<[ArcSwapOption<Numbered>]>,
    /// Oldest block still offered.
    first: AtomicU64,
    /// One past the newest block.
    end: AtomicU64,
    /// Stream time of the newest message, ms.
    time: AtomicI64,
    join: ArcSwapOption<Join>,
    ended: AtomicBool,
    refused: AtomicBool,
    players: AtomicU32,
    /// Shards that follow, or `CLOSED`.
    followers: AtomicU32,
    /// By reader: number of the first block it has not taken up yet; `u64::MAX`: it does not
    /// follow.
    taken: [AtomicU64; READERS],
}

/// Who says how far it has taken up a feed: shards, and the recorder.
const READERS: usize = limits::SHARDS_MAX as usize + 1;
/// The recorder's place among them.
pub const RECORDER: usize = limits::SHARDS_MAX as usize;

const CLOSED: u32 = u32::MAX;

impl Feed {
    /// The encoding.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Number of the oldest block still offered.
    pub fn first(&self) -> u64 {
        self.first.load(Acquire)
    }

    /// One past the number of the newest block.
    pub fn end(&self) -> u64 {
        self.end.load(Acquire)
    }

    /// Stream time of the newest message, ms.
    pub fn time(&self) -> i64 {
        self.time.load(Relaxed)
    }

    /// How to join now; `None` while the stream's tracks are not known yet.
    pub fn join(&self) -> Option<Arc<Join>> {
        self.join.load_full()
    }

    /// The block of that number, while the feed offers it.
    pub fn block(&self, number: u64) -> Option<Block> {
        let slot = &self.slots[(number % self.slots.len() as u64) as usize];
        let held = slot.load();
        held.as_ref().filter(|n| n.number == number).map(|n| n.block.clone())
    }

    /// True when the publisher is gone for good; a later publisher opens a new feed.
    pub fn ended(&self) -> bool {
        self.ended.load(Acquire)
    }

    /// True when the stream cannot be had in this format, as long as its tracks are what they are.
    pub fn refused(&self) -> bool {
        self.refused.load(Acquire)
    }

    /// Players on all shards; larger blocks pay only when somebody reads them.
    pub fn players(&self) -> u32 {
        self.players.load(Relaxed)
    }

    /// Counts a shard in. False when the feed has been closed because nobody followed it.
    pub fn follow(&self) -> bool {
        let joined = |n| if n == CLOSED { None } else { Some(n + 1) };
        self.followers.fetch_update(AcqRel, Acquire, joined).is_ok()
    }

    /// Counts a shard out.
    pub fn unfollow(&self) {
        self.followers.fetch_sub(1, AcqRel);
    }

    /// True when a shard follows.
    pub fn is_followed(&self) -> bool {
        self.followers.load(Acquire) != 0
    }

    /// Closes the feed to followers if nobody follows it; the writer may then drop it.
    pub fn close_if_unfollowed(&self) -> bool {
        self.followers.compare_exchange(0, CLOSED, AcqRel, Acquire).is_ok()
    }

    /// A shard has taken up all blocks before `block`; `u64::MAX`: it follows no more.
    pub(super) fn note_taken(&self, shard: usize, block: u64) {
        self.taken[shard].store(block, Release);
    }

    /// The oldest block that some shard has not taken up yet.
    fn first_not_taken(&self) -> u64 {
        self.taken.iter().map(|taken| taken.load(Acquire)).min().unwrap_or(u64::MAX)
    }

    /// Counts a player in (`1`) or out (`-1`).
    pub fn count_players(&self, delta: i32) {
        if delta >= 0 {
            self.players.fetch_add(delta as u32, Relaxed);
        } else {
            self.players.fetch_sub(delta.unsigned_abs(), Relaxed);
        }
    }
}

impl std::fmt::Debug for Feed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Feed")
            .field("format", &self.format)
            .field("first", &self.first())
            .field("end", &self.end())
            .field("ended", &self.ended())
            .finish_non_exhaustive()
    }
}

/// How much of the past a feed keeps for newcomers.
#[derive(Clone, Copy, Debug)]
pub struct GopLimits {
    /// Keep the newest GOP at all (`gop_cache`).
    pub enabled: bool,
    /// Most messages of a kept GOP (`gop_cache_max_frames`).
    pub messages: u32,
    /// Most bytes of a kept GOP (`gop_cache_max_bytes`).
    pub bytes: u64,
}

/// The writing side of a feed. Dropping it ends the feed.
pub struct FeedWriter {
    feed: Arc<Feed>,
    arena: Arena,
    gop: GopLimits,
    current: Option<BlockWriter>,
    /// Number of `current`; one less than `feed.end` while there is one.
    number: u64,
    /// Stream time of the first message in `current`, ms.
    opened_at: i64,
    /// Size the next block is asked for, bytes.
    block_size: usize,
    start: Option<Position>,
    /// Stream time at `start`, ms.
    start_time: i64,
    gop_messages: u32,
    gop_bytes: u64,
    /// Blocks that somebody beside the feed's readers needs, while somebody does.
    recorded: Option<VecDeque<(u64, Block)>>,
    /// Looks at the feed as a reader on another thread could, right before each message.
    #[cfg(test)]
    pub(crate) before_append: Option<BeforeAppend>,
}

#[cfg(test)]
type BeforeAppend = Box<dyn FnMut(&Arc<Feed>) + Send>;

impl FeedWriter {
    /// How much is kept for newcomers from the next keyframe on.
    pub fn set_gop(&mut self, gop: GopLimits) {
        self.gop = gop;
    }

    /// Opens an empty feed.
    pub fn new(format: Format, arena: Arena, gop: GopLimits) -> FeedWriter {
        let slots = (0..limits::FEED_BLOCKS_MAX).map(|_| ArcSwapOption::empty()).collect();
        let feed = Feed {
            format,
            slots,
            first: AtomicU64::new(0),
            end: AtomicU64::new(0),
            time: AtomicI64::new(0),
            join: ArcSwapOption::empty(),
            ended: AtomicBool::new(false),
            refused: AtomicBool::new(false),
            players: AtomicU32::new(0),
            followers: AtomicU32::new(0),
            taken: std::array::from_fn(|_| AtomicU64::new(u64::MAX)),
        };
        FeedWriter {
            feed: Arc::new(feed),
            arena,
            gop,
            current: None,
            number: 0,
            opened_at: 0,
            block_size: uring::BLOCK_SIZES[0],
            start: None,
            start_time: 0,
            gop_messages: 0,
            gop_bytes: 0,
            recorded: None,
            #[cfg(test)]
            before_append: None,
        }
    }

    /// The shared side.
    pub fn feed(&self) -> &Arc<Feed> {
        &self.feed
    }

    /// Keeps the blocks from the newest on, whoever reads them, until
    /// [`FeedWriter::forget_before`].
    pub fn record(&mut self) {
        let newest = self.current.as_ref().map(|writer| (self.number, writer.block().clone()));
        self.recorded.get_or_insert_with(|| newest.into_iter().collect());
    }

    /// The blocks that are kept, by number.
    pub fn recorded(&self) -> Option<&VecDeque<(u64, Block)>> {
        self.recorded.as_ref()
    }

    /// Keeps the blocks before this number no more.
    pub fn forget_before(&mut self, block: u64) {
        let Some(recorded) = &mut self.recorded else { return };
        while recorded.len() > 1 && recorded.front().is_some_and(|(number, _)| *number < block) {
            recorded.pop_front();
        }
    }

    /// Says where the stream's clock stands, ms, before the first message of a feed that is opened
    /// later.
    pub fn set_time(&mut self, time: i64) {
        self.feed.time.store(time, Relaxed);
    }

    /// Where newcomers start, if a keyframe is kept.
    pub fn start(&self) -> Option<Position> {
        self.start
    }

    /// Stream time of the start, ms, if a keyframe is kept.
    pub fn start_time(&self) -> Option<i64> {
        self.start.map(|_| self.start_time)
    }

    /// The place where the next message will begin, unless it needs a new block.
    pub fn position(&self) -> Position {
        match &self.current {
            Some(writer) => Position { block: self.number, offset: writer.written() },
            None => Position { block: self.feed.end.load(Relaxed), offset: 0 },
        }
    }

    /// Appends one message given in pieces and makes it visible.
    ///
    /// A message never crosses a block's end unless it is larger than the largest block: a player
    /// that has to be moved on can then finish its message from the one block it holds.
    ///
    /// # Errors
    /// The arena's budget is used up; nothing was written.
    pub fn append(&mut self, parts: &[&[u8]], flags: Flags, time: i64) -> Result<(), ArenaFull> {
        #[cfg(test)]
        if let Some(look) = &mut self.before_append {
            look(&self.feed);
        }
        let len: usize = parts.iter().map(|p| p.len()).sum();
        if self.current.as_ref().is_none_or(|w| w.room() < len) {
            return self.append_in_new_block(parts, len, flags, time);
        }
        let at = self.position();
        let Some(writer) = self.current.as_mut() else { return Err(ArenaFull) };
        writer.entry(flags.0, time);
        for part in parts {
            writer.push(part);
        }
        self.note_message(at, len, flags, time);
        self.feed.time.store(time, Relaxed);
        if let Some(writer) = self.current.as_mut() {
            writer.publish();
        }
        Ok(())
    }

    /// Lets newcomers in, or tells them how from now on. The prologue is stamped with `time`, which
    /// is [`FeedWriter::start_time`] where there is one: players' clocks must not go back after it.
    pub fn set_join(&mut self, prologue: Bytes, messages_at: usize, time: i64, headers: u32) {
        let join = Join { prologue, start: self.start, time, messages_at, headers };
        self.feed.join.store(Some(Arc::new(join)));
    }

    /// Newcomers start no earlier than here from now on, with a message of that `time` (ms): what
    /// came before needs other sequence headers than the prologue has.
    pub fn restart_gop_here(&mut self, time: i64) {
        self.gop_messages = 0;
        self.gop_bytes = 0;
        self.start = self.gop.enabled.then(|| self.position());
        self.start_time = time;
        self.trim();
    }

    /// Newcomers start here from now on, with a message of that `time` (ms), which has to be in the
    /// log still: for formats that can be entered at any message.
    pub fn start_at(&mut self, start: Position, time: i64) {
        if start.block >= self.feed.first.load(Relaxed) {
            self.start = Some(start);
            self.start_time = time;
            self.trim();
        }
    }

    /// Ends the feed because the stream's tracks have no place in it.
    pub fn refuse(self) {
        self.feed.refused.store(true, Release);
    }

    /// Forgets the kept GOP (over a limit, or a message had to be dropped).
    pub fn forget_gop(&mut self) {
        self.start = None;
        self.gop_messages = 0;
        self.gop_bytes = 0;
        self.trim();
    }

    fn append_in_new_block(
        &mut self,
        parts: &[&[u8]],
        len: usize,
        flags: Flags,
        time: i64,
    ) -> Result<(), ArenaFull> {
        self.choose_block_size(time);
        let mut writer = self.arena.writer(
            self.block_size
                .max(len + limits::BLOCK_SLACK)
                .min(uring::BLOCK_SIZES[uring::BLOCK_SIZES.len() - 1]),
        )?;
        if writer.room() >= len {
            self.opened_at = time;
            writer.entry(flags.0, time);
            for part in parts {
                writer.push(part);
            }
            writer.publish();
            let at = Position { block: self.feed.end.load(Relaxed), offset: 0 };
            self.install(writer);
            self.note_message(at, len, flags, time);
            self.feed.time.store(time, Relaxed);
            return Ok(());
        }
        self.append_spanning(writer, parts, len, flags, time)
    }

    /// A message larger than the largest block. All its blocks are allocated before the first
    /// byte becomes visible, so that it is in the log as a whole or not at all.
    fn append_spanning(
        &mut self,
        first: BlockWriter,
        parts: &[&[u8]],
        len: usize,
        flags: Flags,
        time: i64,
    ) -> Result<(), ArenaFull> {
        let largest = uring::BLOCK_SIZES[uring::BLOCK_SIZES.len() - 1];
        let mut writers = vec![first];
        let mut room = writers[0].room();
        while room < len {
            let writer = self.arena.writer(largest)?;
            room += writer.room();
            writers.push(writer);
        }
        let at = Position { block: self.feed.end.load(Relaxed), offset: 0 };
        // Said before its blocks are put in: else the first of many would be let go as too old, and
        // nobody could begin with this picture.
        if flags.has(Flags::KEYFRAME) && self.gop.enabled {
            self.start = Some(at);
            self.start_time = time;
        }
        let mut rest = parts.iter().copied();
        let mut part: &[u8] = rest.next().unwrap_or_default();
        let last = writers.len() - 1;
        for (index, mut writer) in writers.into_iter().enumerate() {
            if index == 0 {
                writer.entry((flags | Flags::SPANS).0, time);
            }
            loop {
                let take = part.len().min(writer.room());
                writer.push(&part[..take]);
                part = &part[take..];
                if !part.is_empty() {
                    break;
                }
                match rest.next() {
                    Some(next) => part = next,
                    None => break,
                }
            }
            if index == last {
                writer.entry(Flags::BOUNDARY.0, time);
            }
            writer.publish();
            self.opened_at = time;
            self.install(writer);
        }
        self.note_message(at, len, flags, time);
        self.feed.time.store(time, Relaxed);
        Ok(())
    }

    /// Puts a block at the end of the log and makes it visible.
    fn install(&mut self, writer: BlockWriter) {
        let number = self.feed.end.load(Relaxed);
        let slots = self.feed.slots.len() as u64;
        let slot = &self.feed.slots[(number % slots) as usize];
        // The ring of slots is a limit of its own: the block that had this slot is let go.
        if number >= slots && self.feed.first.load(Relaxed) <= number - slots {
            self.feed.first.store(number - slots + 1, Release);
            if self.start.is_some_and(|s| s.block <= number - slots) {
                self.start = None;
                self.forget_start();
            }
        }
        slot.store(Some(Arc::new(Numbered { number, block: writer.block().clone() })));
        if let Some(recorded) = &mut self.recorded {
            recorded.push_back((number, writer.block().clone()));
        }
        self.number = number;
        self.current = Some(writer);
        self.feed.end.store(number + 1, Release);
        self.trim();
    }

    /// Keeps the GOP's accounts, and starts a new one at a keyframe.
    fn note_message(&mut self, at: Position, len: usize, flags: Flags, time: i64) {
        if flags.has(Flags::KEYFRAME) {
            self.gop_messages = 0;
            self.gop_bytes = 0;
            if self.gop.enabled {
                self.start = Some(at);
                self.start_time = time;
            }
        }
        self.gop_messages += 1;
        self.gop_bytes += len as u64;
        let over = self.gop_messages > self.gop.messages || self.gop_bytes > self.gop.bytes;
        if over && self.start.is_some() {
            self.forget_gop();
            self.forget_start();
        }
    }

    /// Newcomers must not be sent to a start that is being let go.
    fn forget_start(&self) {
        if let Some(join) = self.feed.join.load_full() {
            self.feed.join.store(Some(Arc::new(Join { start: None, ..(*join).clone() })));
        }
    }

    /// Lets go of blocks nobody can start at any more. Shards keep what their players still
    /// read (see `mirror`), so what stays here is what newcomers need and what a shard has not
    /// taken up yet: one publisher's burst may fill many blocks before other shards turn.
    fn trim(&mut self) {
        let end = self.feed.end.load(Relaxed);
        let recent = end.saturating_sub(limits::FEED_BLOCKS_RECENT);
        let keep = self.start.map_or(recent, |s| s.block.min(recent));
        let keep = keep.min(self.feed.first_not_taken());
        let mut first = self.feed.first.load(Relaxed);
        if keep <= first {
            return;
        }
        self.feed.first.store(keep, Release);
        let slots = self.feed.slots.len() as u64;
        while first < keep {
            self.feed.slots[(first % slots) as usize].store(None);
            first += 1;
        }
    }

    /// Follows the bit rate: with players a block should last long enough that few sends cross
    /// its end; without, the kept GOP should not be rounded up by much.
    fn choose_block_size(&mut self, time: i64) {
        let Some(current) = &self.current else { return };
        let lasted = (time - self.opened_at).max(1);
        let wanted = if self.feed.players() >= limits::FEED_LARGE_BLOCK_PLAYERS {
            limits::FEED_LARGE_BLOCK_MS
        } else {
            limits::FEED_SMALL_BLOCK_MS
        };
        let bytes = u64::from(current.written()) * wanted as u64 / lasted as u64;
        let largest = limits::FEED_BLOCK_BYTES_MAX;
        self.block_size = uring::BLOCK_SIZES
            .into_iter()
            .find(|&size| size as u64 >= bytes || size >= largest)
            .unwrap_or(largest);
    }
}

impl std::fmt::Debug for FeedWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FeedWriter").field("feed", &self.feed).finish_non_exhaustive()
    }
}

impl Drop for FeedWriter {
    fn drop(&mut self) {
        self.feed.ended.store(true, Release);
        // The slots stay: players that are behind read the log to its end; the blocks go with
        // the last of them.
        self.feed.join.store(None);
    }
}
