//! Own timestamps for one player (`time_jitter` other than off): the shared bytes of a feed with
//! message headers of its own between them.
//!
//! The stream's timeline is monotonic already, so a player's time is the stream's minus that of
//! the message it began with. Only headers are written per player; payload bytes stay shared.

use bytes::Bytes;
use uring::{Gather, Piece, Range};

use super::{flv, rtmp, wrap};
use crate::hub::{Flags, Format, Mirror, Position};
use crate::limits;
use crate::proto::rtmp::chunk;

/// A player's own time base, and how far it is inside a message.
#[derive(Debug, Default)]
pub struct State {
    base: i64,
    /// Time of the last message as the player has it, ms.
    last: Option<i64>,
    /// Bytes of the current message that were sent already.
    done: u32,
    /// What was gathered last: where each message begins, its length and where it is over.
    layout: Vec<(Position, u32, Position)>,
}

/// Most messages of one gather send.
const MESSAGES_MAX: usize = 48;
/// Most bytes of headers of one gather send; keeps their storage small.
const HEAD_BYTES_MAX: usize = 4096;

impl State {
    /// The player begins at this stream time, ms; at the beginning of another log its own time
    /// goes on where it was.
    pub fn begin(&mut self, time: i64) {
        self.base = self.last.map_or(time, |last| time - last - limits::TIMELINE_STEP_MS);
        self.done = 0;
        self.layout.clear();
    }

    /// A stream time as this player has it, ms.
    pub fn time(&self, time: i64) -> i64 {
        (time - self.base).max(0)
    }

    /// True when part of a message has been sent.
    pub fn inside_message(&self) -> bool {
        self.done > 0
    }

    /// Fills a gather with messages from `at` on. False when there is none.
    pub fn gather(
        &mut self,
        mirror: &Mirror,
        at: Position,
        format: Format,
        chunk_size: u32,
        gather: &mut Gather,
    ) -> bool {
        self.layout.clear();
        let mut at = at;
        let mut skip = self.done as usize;
        while self.layout.len() < MESSAGES_MAX && gather.head.len() < HEAD_BYTES_MAX {
            let Some(message) = Message::at(mirror, at, format) else { break };
            // A message is cut in few pieces; one that needs more than are left waits.
            if gather.pieces.len() + message.pieces_max(chunk_size) > Gather::PIECES_MAX
                && !self.layout.is_empty()
            {
                break;
            }
            let time = self.time(message.time);
            self.last = Some(time);
            let mut writer = PieceWriter { gather, skip, len: 0, full: false };
            message.write(mirror, format, chunk_size, time, &mut writer);
            let (len, full) = (writer.len, writer.full);
            skip = skip.saturating_sub(len as usize);
            self.layout.push((message.at, len, message.next));
            at = message.next;
            if full {
                break;
            }
        }
        !gather.pieces.is_empty()
    }

    /// Notes that `bytes` of the gather were sent; returns the new place.
    pub fn sent(&mut self, _mirror: &Mirror, at: Position, bytes: u32) -> Position {
        let mut at = at;
        let mut done = self.done + bytes;
        for &(start, len, next) in &self.layout {
            if done < len {
                // The end of a block is not yet the beginning of the message in the next one, and
                // where a player is is compared with where the newest GOP begins.
                if done > 0 {
                    at = start;
                }
                break;
            }
            done -= len;
            at = next;
        }
        self.done = done;
        self.layout.clear();
        at
    }

    /// The unsent rest of the message at `at`, copied; empty at a boundary.
    pub fn rest_of_message(
        &mut self,
        mirror: &Mirror,
        at: Position,
        format: Format,
        chunk_size: u32,
    ) -> Bytes {
        let skip = std::mem::take(&mut self.done) as usize;
        if skip == 0 {
            return Bytes::new();
        }
        let Some(message) = Message::at(mirror, at, format) else { return Bytes::new() };
        let mut out = Vec::new();
        loop {
            let mut gather = Gather::default();
            let from = skip + out.len();
            let mut writer = PieceWriter { gather: &mut gather, skip: from, len: 0, full: false };
            message.write(mirror, format, chunk_size, self.time(message.time), &mut writer);
            let len = writer.len as usize;
            for piece in &gather.pieces {
                match piece {
                    Piece::Head(r) => {
                        out.extend_from_slice(&gather.head[r.start as usize..r.end as usize]);
                    }
                    Piece::Block(r) => out.extend_from_slice(r.block.bytes(r.start, r.end)),
                }
            }
            if gather.pieces.is_empty() || skip + out.len() >= len {
                break;
            }
        }
        Bytes::from(out)
    }
}

/// One message of a feed, found again from its bytes.
struct Message {
    at: Position,
    next: Position,
    flags: Flags,
    time: i64,
    /// Bytes before the payload, in the feed.
    head: usize,
    payload: usize,
    /// Extended timestamp in the feed's chunk headers (RTMP only).
    extended: bool,
}

impl Message {
    fn at(mirror: &Mirror, at: Position, format: Format) -> Option<Message> {
        let mut at = at;
        let (block, index, entry) = loop {
            let block = mirror.block(at.block)?;
            let Some(mut index) = block.first_entry_at_or_after(at.offset) else {
                at = Position { block: at.block + 1, offset: 0 };
                continue;
            };
            // The mark behind a spanning message is no message itself.
            let count = block.entry_count();
            while index < count && Flags(block.entry(index).flags).has(Flags::BOUNDARY) {
                index += 1;
            }
            if index == count {
                at = Position { block: at.block + 1, offset: 0 };
                continue;
            }
            break (block, index, block.entry(index));
        };
        at.offset = entry.offset;
        let first = block.bytes(entry.offset, block.len());
        let (head, payload, extended) = match flv::framing(format) {
            None => {
                let extended = first.get(1..4)? == [0xff, 0xff, 0xff];
                (if extended { 16 } else { 12 }, be24(first.get(4..7)?), extended)
            }
            Some(framing) => {
                let frame = wrap::head_len(framing, first)?;
                (frame + flv::TAG_HEAD, be24(first.get(frame + 1..frame + 4)?), false)
            }
        };
        let flags = Flags(entry.flags);
        let next = if flags.has(Flags::SPANS) {
            end_of_spanning(mirror, at.block)?
        } else if index + 1 < block.entry_count() {
            Position { block: at.block, offset: block.entry(index + 1).offset }
        } else {
            Position { block: at.block, offset: block.len() }
        };
        Some(Message { at, next, flags, time: entry.time, head, payload, extended })
    }

    fn pieces_max(&self, chunk_size: u32) -> usize {
        // Header and payload per chunk, and a cut at each block's end of a spanning message.
        2 * (self.payload / chunk_size.max(1) as usize + 1) + 4
    }

    /// Writes the message with the player's time.
    fn write(
        &self,
        mirror: &Mirror,
        format: Format,
        chunk_size: u32,
        time: i64,
        out: &mut PieceWriter<'_>,
    ) {
        let mut walk = Walk { mirror, at: self.at };
        let wire = rtmp::wire_time(self.flags, time);
        if let Some(framing) = flv::framing(format) {
            let mut head = walk.copy(self.head);
            let tag = self.head - flv::TAG_HEAD;
            // FLV E.4.1: three bytes of timestamp, then the upper eight bits.
            let [high, rest @ ..] = wire.to_be_bytes();
            head[tag + 4..tag + 7].copy_from_slice(&rest);
            head[tag + 7] = high;
            out.head(&head);
            walk.share(self.payload + flv::TAG_TAIL + framing.suffix().len(), out);
            return;
        }
        let (csid, type_id) = rtmp::ids(self.flags);
        let len = self.payload as u32;
        let head = chunk::message_head(csid, type_id, wire, len, rtmp::MESSAGE_STREAM_ID);
        out.head(head.as_bytes());
        walk.skip(self.head);
        let (next, next_len) = chunk::continuation_head(csid, wire);
        let mut left = self.payload;
        loop {
            let take = left.min(chunk_size as usize);
            walk.share(take, out);
            left -= take;
            if left == 0 {
                return;
            }
            out.head(&next[..next_len]);
            walk.skip(if self.extended { 5 } else { 1 });
        }
    }
}

/// Where the message that fills `block` to its end is over.
fn end_of_spanning(mirror: &Mirror, block: u64) -> Option<Position> {
    let mut number = block + 1;
    loop {
        let next = mirror.block(number)?;
        if next.entry_count() > 0 {
            return Some(Position { block: number, offset: next.entry(0).offset });
        }
        number += 1;
    }
}

fn be24(bytes: &[u8]) -> usize {
    bytes.iter().fold(0, |n, &b| n << 8 | usize::from(b))
}

/// Walks over a feed's bytes across blocks.
struct Walk<'a> {
    mirror: &'a Mirror,
    at: Position,
}

impl Walk<'_> {
    fn take(&mut self, len: usize, mut each: impl FnMut(Range)) {
        let mut left = len as u32;
        while left > 0 {
            let Some(block) = self.mirror.block(self.at.block) else { return };
            let end = block.len().min(self.at.offset + left);
            if end > self.at.offset {
                each(Range { block: block.clone(), start: self.at.offset, end });
                left -= end - self.at.offset;
                self.at.offset = end;
            }
            if left > 0 {
                self.at = Position { block: self.at.block + 1, offset: 0 };
            }
        }
    }

    fn skip(&mut self, len: usize) {
        self.take(len, |_| {});
    }

    fn share(&mut self, len: usize, out: &mut PieceWriter<'_>) {
        self.take(len, |range| out.block(range));
    }

    fn copy(&mut self, len: usize) -> Vec<u8> {
        let mut out = Vec::with_capacity(len);
        self.take(len, |r| out.extend_from_slice(r.block.bytes(r.start, r.end)));
        out
    }
}

/// Collects pieces, leaving out the first `skip` bytes.
struct PieceWriter<'a> {
    gather: &'a mut Gather,
    skip: usize,
    /// Length of the message, left out bytes included.
    len: u32,
    /// The gather took no more; what is missing follows with the next one.
    full: bool,
}

impl PieceWriter<'_> {
    fn head(&mut self, bytes: &[u8]) {
        self.len += bytes.len() as u32;
        let cut = self.skip.min(bytes.len());
        self.skip -= cut;
        if cut < bytes.len() && self.has_room() {
            let start = self.gather.head.len() as u32;
            self.gather.head.extend_from_slice(&bytes[cut..]);
            self.gather.pieces.push(Piece::Head(start..self.gather.head.len() as u32));
        }
    }

    fn block(&mut self, mut range: Range) {
        let len = (range.end - range.start) as usize;
        self.len += len as u32;
        let cut = self.skip.min(len);
        self.skip -= cut;
        range.start += cut as u32;
        if range.start < range.end && self.has_room() {
            self.gather.pieces.push(Piece::Block(range));
        }
    }

    fn has_room(&mut self) -> bool {
        self.full |= self.gather.pieces.len() >= Gather::PIECES_MAX;
        !self.full
    }
}

/// Gives every audio and video message of a prologue (without file header) another time. Metadata
/// stays where it is, at 0.
pub fn restamp(prologue: &[u8], format: Format, chunk_size: u32, time: i64) -> Bytes {
    if !format.container().is_verbatim() {
        // What is told there has no time of its own.
        return Bytes::copy_from_slice(prologue);
    }
    let mut out = Vec::with_capacity(prologue.len());
    match flv::framing(format) {
        Some(framing) => {
            out.extend_from_slice(prologue);
            let mut at = 0;
            while let Some(frame) = wrap::head_len(framing, &out[at..]) {
                let tag = at + frame;
                let Some(len) = out.get(tag + 1..tag + 4).map(be24) else { break };
                // FLV E.4.1: tag type 18 is data.
                let flags = if out[tag] == 18 { Flags::DATA } else { Flags::VIDEO };
                let [high, rest @ ..] = rtmp::wire_time(flags, time).to_be_bytes();
                out[tag + 4..tag + 7].copy_from_slice(&rest);
                out[tag + 7] = high;
                at = tag + flv::TAG_HEAD + len + flv::TAG_TAIL + framing.suffix().len();
                if at >= out.len() {
                    break;
                }
            }
        }
        None => {
            let mut rest = prologue;
            while rest.len() >= 12 {
                let extended = rest[1..4] == [0xff, 0xff, 0xff];
                let (head, next) = if extended { (16, 5) } else { (12, 1) };
                let len = be24(&rest[4..7]);
                let (csid, type_id) = (rest[0] & 0x3f, rest[7]);
                let chunks = len.div_ceil(chunk_size as usize).max(1);
                let framed = head + len + (chunks - 1) * next;
                let Some(body) = rest.get(head..framed) else { break };
                let mut payload = Vec::with_capacity(len);
                for piece in body.chunks(chunk_size as usize + next) {
                    payload.extend_from_slice(&piece[..piece.len().min(chunk_size as usize)]);
                }
                let flags = if type_id == 18 { Flags::DATA } else { Flags::VIDEO };
                let wire = rtmp::wire_time(flags, time);
                let msid = rtmp::MESSAGE_STREAM_ID;
                chunk::write_message(&mut out, chunk_size, csid, type_id, wire, msid, &payload);
                rest = &rest[framed..];
            }
        }
    }
    Bytes::from(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::FeedWriter;
    use crate::hub::feed::GopLimits;
    use crate::media::Kind;
    use crate::proto::flv::{Framing, TagReader};
    use crate::proto::rtmp::chunk::{Joiner, Payload};
    use uring::{Arena, ArenaOptions};

    const CHUNK_SIZE: u32 = 500;

    struct Random(u64);

    impl Random {
        fn below(&mut self, bound: u64) -> u64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            self.0 % bound
        }
    }

    fn payload(seed: u64, len: usize) -> Vec<u8> {
        (0..len as u64).map(|i| (i * 37 + seed * 11) as u8).collect()
    }

    /// What a player with its own time base receives when its sends are taken in random parts.
    fn received(format: Format, lens: &[usize], base: i64, random: &mut Random) -> Vec<u8> {
        let arena = Arena::new(ArenaOptions { limit: 64 << 20, huge_pages: false }).unwrap();
        let gop = GopLimits { enabled: true, messages: 10_000, bytes: 1 << 30 };
        let mut writer = FeedWriter::new(format, arena, gop);
        let mut mirror = Mirror::new(writer.feed().clone());
        let mut state = State::default();
        state.begin(base);
        let mut at = mirror.live_end();
        let mut out = Vec::new();
        for (i, &len) in lens.iter().enumerate() {
            let (flags, time) = (Flags::VIDEO, base + 40 * i as i64);
            let bytes = payload(i as u64, len);
            match flv::framing(format) {
                Some(framing) => flv::append(&mut writer, framing, flags, time, &bytes).unwrap(),
                None => rtmp::append(&mut writer, CHUNK_SIZE, flags, time, &bytes).unwrap(),
            }
            mirror.refresh();
            // Now and then the player is served, never all it could take.
            let serve_all = i + 1 == lens.len();
            while serve_all || random.below(2) == 0 {
                let mut gather = Gather::default();
                if !state.gather(&mirror, at, format, CHUNK_SIZE, &mut gather) {
                    break;
                }
                let mut bytes = Vec::new();
                for piece in &gather.pieces {
                    match piece {
                        Piece::Head(r) => {
                            bytes.extend(&gather.head[r.start as usize..r.end as usize]);
                        }
                        Piece::Block(r) => bytes.extend(r.block.bytes(r.start, r.end)),
                    }
                }
                let taken = 1 + random.below(bytes.len() as u64) as usize;
                out.extend(&bytes[..taken]);
                at = state.sent(&mirror, at, taken as u32);
                assert_eq!(state.inside_message(), state.done > 0);
            }
        }
        out
    }

    fn lens(random: &mut Random) -> Vec<usize> {
        (0..40)
            .map(|_| match random.below(12) {
                0 => 0,
                1 => 3_000_000,
                2 => 70_000,
                3 => CHUNK_SIZE as usize,
                n => random.below(400 * n) as usize,
            })
            .collect()
    }

    #[test]
    fn rtmp_players_get_every_message_at_their_own_time() {
        for seed in 1..12 {
            let mut random = Random(seed * 0x9e37_79b9);
            // Across the extended timestamp's threshold in the feed, below it for the player.
            let base = if seed % 2 == 0 { 0x00ff_ff00 } else { 5_000 };
            let lens: Vec<usize> = lens(&mut random).into_iter().map(|len| len.max(1)).collect();
            let bytes = received(Format::Rtmp, &lens, base, &mut random);
            let mut joiner = Joiner::new();
            joiner.set_chunk_size(CHUNK_SIZE);
            let mut input = &bytes[..];
            for (i, &len) in lens.iter().enumerate() {
                let message = joiner.next(&mut input).unwrap().expect("another message");
                assert_eq!(message.timestamp, 40 * i as u32, "seed {seed} message {i}");
                let bytes = match message.payload {
                    Payload::Borrowed(bytes) => bytes,
                    Payload::Assembled => joiner.assembled(),
                };
                assert!(bytes[..] == payload(i as u64, len), "seed {seed} message {i}");
            }
            assert!(input.is_empty());
        }
    }

    #[test]
    fn flv_players_get_every_message_at_their_own_time() {
        for seed in 1..12 {
            let mut random = Random(seed * 0x9e37_79b9);
            let lens = lens(&mut random);
            let bytes = received(Format::Flv, &lens, 7_777, &mut random);
            let mut file = crate::proto::flv::file_header(true, true).to_vec();
            file.extend(bytes);
            let mut reader = TagReader::new();
            let mut input = &file[..];
            for (i, &len) in lens.iter().enumerate() {
                let tag = reader.poll(&mut input).unwrap().expect("another tag");
                assert_eq!((tag.kind, tag.timestamp), (Kind::Video, 40 * i as u32));
                assert!(tag.body[..] == payload(i as u64, len), "seed {seed} tag {i}");
            }
            assert!(input.is_empty());
        }
    }

    #[test]
    fn framed_tags_differ_from_the_shared_ones_in_their_time_only() {
        for (format, framing) in
            [(Format::FlvChunked, Framing::Chunked), (Format::FlvWebSocket, Framing::WebSocket)]
        {
            let mut random = Random(99);
            let lens = [1, 100, 200_000, 40];
            let bytes = received(format, &lens, 1_000_000, &mut random);
            let mut expected = Vec::new();
            for (i, &len) in lens.iter().enumerate() {
                let bytes = payload(i as u64, len);
                flv::write(&mut expected, framing, Flags::VIDEO, 40 * i as i64, &bytes);
            }
            assert!(bytes == expected, "{format:?}");
        }
    }

    #[test]
    fn a_prologue_is_restamped_in_every_format() {
        for format in Format::VERBATIM {
            let (mut before, mut after) = (Vec::new(), Vec::new());
            for (out, time) in [(&mut before, 0x0123_4567), (&mut after, 40)] {
                for len in [10, 700, 1] {
                    let bytes = payload(len, len as usize);
                    match flv::framing(format) {
                        Some(framing) => flv::write(out, framing, Flags::AUDIO, time, &bytes),
                        None => rtmp::write(out, CHUNK_SIZE, Flags::AUDIO, time, &bytes),
                    }
                }
            }
            assert!(restamp(&before, format, CHUNK_SIZE, 40) == after, "{format:?}");
        }
    }
}
