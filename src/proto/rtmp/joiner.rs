//! The chunk layer, receiving side: joining chunks to messages.
//!
//! A message that lies in one chunk, wholly in the caller's bytes, is lent from there: no copy, no
//! allocation. All others are assembled in buffers that grow with the bytes that arrive, never with
//! the length a header declares, and that are given back when they have become large.
//!
//! What peers do in practice and this end accepts (each has a test below): a chunk stream that
//! opens with type 1; extended timestamps that are not repeated in type 3 chunks, or are; extended
//! timestamps in type 1 and 2 chunks that are absolute instead of a difference; headers of type 1
//! and 2 inside a message; messages without content, which are dropped.

use super::chunk::{CHUNK_SIZE_INITIAL, EXTENDED_TIMESTAMP};
use super::error::{Error, Limit, Misbehaved};
use super::message::type_id;
use crate::limits::{
    RTMP_CHUNK_STREAMS_MAX, RTMP_COMMAND_MAX, RTMP_DATA_MAX, RTMP_KEPT_BUFFER_MAX, RTMP_PARTIAL_MAX,
};

/// A whole message with what its chunk headers said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Joined<'a> {
    /// Chunk stream it came on, 2..=65,599.
    pub csid: u32,
    /// Message type id.
    pub type_id: u8,
    /// Milliseconds, masked to 31 bits.
    pub timestamp: u32,
    /// Message stream it belongs to.
    pub message_stream_id: u32,
    /// Where the content is; never empty.
    pub payload: Payload<'a>,
}

/// Where the content of a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Payload<'a> {
    /// In the caller's bytes.
    Borrowed(&'a [u8]),
    /// In the joiner, until its next call: [`Joiner::assembled`].
    Assembled,
}

/// Joins the chunks of one direction of a connection.
#[derive(Debug)]
pub struct Joiner {
    chunk_size: u32,
    keep_media: bool,
    streams: Vec<ChunkStream>,
    /// Index of the chunk stream whose chunk is being read.
    current: usize,
    /// Bytes that the chunk being read still lacks; 0: a header comes next.
    chunk_left: usize,
    /// The first bytes of a header that is not complete, or bytes read ahead to tell an extended
    /// timestamp from content. They come before the caller's.
    stash: [u8; HEADER_MAX],
    stash_len: usize,
    /// Bytes in the buffers of all chunk streams.
    partial: usize,
    finished: Vec<u8>,
    /// Emptied buffers for the next messages, while media is kept.
    spares: Vec<Vec<u8>>,
}

/// Kept for as long as the connection, since a later header may refer to it.
#[derive(Debug)]
struct ChunkStream {
    csid: u32,
    type_id: u8,
    open: bool,
    discard: bool,
    timestamp: u32,
    /// What a type 3 chunk that opens a message adds.
    delta: u32,
    /// The extended timestamp of the last header that had one to have, as it was on the wire.
    extended: Option<u32>,
    message_stream_id: u32,
    len: u32,
    /// Bytes of the message so far; together with `open` the place in it.
    received: u32,
    buffer: Vec<u8>,
}

/// A chunk header as it was on the wire.
#[derive(Debug, Clone, Copy)]
struct Header {
    fmt: u8,
    csid: u32,
    /// Index of the chunk stream, when it was used before.
    known: Option<usize>,
    /// Timestamp or difference; [`EXTENDED_TIMESTAMP`] when it is in `extended`.
    time: u32,
    extended: Option<u32>,
    len: u32,
    type_id: u8,
    message_stream_id: u32,
}

/// Three bytes of basic header, eleven of message header, four of extended timestamp.
const HEADER_MAX: usize = 18;

/// Buffers kept for the next messages: one for each of audio and video that interleave.
const SPARES_MAX: usize = 2;

const TIMESTAMP_MASK: u32 = 0x7FFF_FFFF;

/// An extended value of a type 1, 2 or 3 header this close to the last timestamp is a timestamp,
/// not a difference: a difference has at least 4.6 hours.
const NEAR_MS: u32 = 10 * 60 * 1000;

impl Default for Joiner {
    fn default() -> Joiner {
        Joiner::new()
    }
}

impl Joiner {
    /// Starts with the protocol's chunk size of 128 bytes, keeping every message.
    pub fn new() -> Joiner {
        Joiner {
            chunk_size: CHUNK_SIZE_INITIAL,
            keep_media: true,
            streams: Vec::new(),
            current: 0,
            chunk_left: 0,
            stash: [0; HEADER_MAX],
            stash_len: 0,
            partial: 0,
            finished: Vec::new(),
            spares: Vec::new(),
        }
    }

    /// The peer's chunk size from its next chunk on, in bytes, at least 1.
    pub fn set_chunk_size(&mut self, chunk_size: u32) {
        debug_assert!(chunk_size > 0);
        self.chunk_size = chunk_size;
    }

    /// Whether audio, video, data and aggregate messages that begin from here on are kept. Where
    /// nobody wants them they pass without being stored, and no buffers are kept for the few other
    /// messages that come: most connections without media to send are players, and there are many.
    pub fn set_keep_media(&mut self, keep: bool) {
        self.keep_media = keep;
        if !keep {
            self.spares = Vec::new();
        }
    }

    /// Forgets the unfinished message of a chunk stream (RTMP 5.4.2).
    pub fn abort(&mut self, csid: u32) {
        if let Some(stream) = self.streams.iter_mut().find(|stream| stream.csid == csid) {
            self.partial -= stream.buffer.len();
            stream.open = false;
            stream.received = 0;
            stream.buffer = Vec::new();
        }
    }

    /// The content of the message that the last call of [`Joiner::next`] returned as assembled.
    pub fn assembled(&self) -> &[u8] {
        &self.finished
    }

    /// Consumes from `input` up to the end of the next message. `Ok(None)`: all of it is consumed.
    ///
    /// # Errors
    /// What the peer does against the chunk rules, or beyond the limits. The joiner is of no use
    /// afterwards.
    pub fn next<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<Joined<'a>>, Error> {
        self.recycle();
        loop {
            if self.chunk_left == 0 {
                let Some(header) = self.read_header(input)? else { return Ok(None) };
                self.open_chunk(header)?;
                let stream = &mut self.streams[self.current];
                if self.chunk_left == 0 {
                    stream.open = false;
                    continue;
                }
                let len = stream.len as usize;
                let whole = stream.received == 0 && self.chunk_left == len;
                if whole && !stream.discard && self.stash_len == 0 && input.len() >= len {
                    let (payload, rest) = input.split_at(len);
                    *input = rest;
                    self.chunk_left = 0;
                    stream.open = false;
                    return Ok(Some(stream.joined(Payload::Borrowed(payload))));
                }
            }
            if !self.read_content(input)? {
                return Ok(None);
            }
            let stream = &mut self.streams[self.current];
            if stream.received < stream.len {
                continue;
            }
            stream.open = false;
            stream.received = 0;
            if !stream.discard {
                self.partial -= stream.buffer.len();
                self.finished = std::mem::take(&mut stream.buffer);
                return Ok(Some(stream.joined(Payload::Assembled)));
            }
        }
    }

    /// Bytes of memory that messages take: unfinished ones, the last one, buffers kept for more.
    pub fn memory(&self) -> usize {
        let streams = self.streams.iter().map(|stream| &stream.buffer);
        let buffers = streams.chain(&self.spares).chain([&self.finished]);
        buffers.map(Vec::capacity).sum()
    }

    fn recycle(&mut self) {
        if self.finished.capacity() == 0 {
            return;
        }
        let mut buffer = std::mem::take(&mut self.finished);
        let small = buffer.capacity() <= RTMP_KEPT_BUFFER_MAX;
        if self.keep_media && small && self.spares.len() < SPARES_MAX {
            buffer.clear();
            self.spares.push(buffer);
        }
    }

    /// Reads a header from the stash and the input, as far as they go.
    fn read_header(&mut self, input: &mut &[u8]) -> Result<Option<Header>, Error> {
        if self.stash_len == 0 {
            if let Some((header, len)) = self.parse(input)? {
                *input = &input[len..];
                return Ok(Some(header));
            }
            // No header is longer than the stash, so what is left of the input fits.
            self.stash[..input.len()].copy_from_slice(input);
            self.stash_len = input.len();
            *input = &[];
            return Ok(None);
        }
        let stashed = self.stash_len;
        let added = input.len().min(HEADER_MAX - stashed);
        let mut bytes = self.stash;
        bytes[stashed..stashed + added].copy_from_slice(&input[..added]);
        let Some((header, len)) = self.parse(&bytes[..stashed + added])? else {
            self.stash = bytes;
            self.stash_len += added;
            *input = &input[added..];
            return Ok(None);
        };
        if len >= stashed {
            *input = &input[len - stashed..];
            self.stash_len = 0;
        } else {
            // Bytes that could have been a repeated timestamp are content after all.
            self.stash.copy_within(len..stashed, 0);
            self.stash_len -= len;
        }
        Ok(Some(header))
    }

    /// Reads a header and its length, or nothing when bytes are missing (RTMP 5.3.1).
    fn parse(&self, bytes: &[u8]) -> Result<Option<(Header, usize)>, Error> {
        let Some(&first) = bytes.first() else { return Ok(None) };
        let fmt = first >> 6;
        let (csid, basic_len) = match (first & 0x3F, bytes) {
            (0, [_, a, ..]) => (64 + u32::from(*a), 2),
            (1, [_, a, b, ..]) => (64 + u32::from(*a) + 256 * u32::from(*b), 3),
            (0 | 1, _) => return Ok(None),
            (csid, _) => (u32::from(csid), 1),
        };
        let known = self.find(csid);
        if known.is_none() && fmt >= 2 {
            return Err(Misbehaved::FirstChunk(csid, fmt).into());
        }
        let mut header = Header {
            fmt,
            csid,
            known,
            time: 0,
            extended: None,
            len: 0,
            type_id: 0,
            message_stream_id: 0,
        };
        let fields = &bytes[basic_len..];
        let fields_len = [11, 7, 3, 0][usize::from(fmt)];
        if fields.len() < fields_len {
            return Ok(None);
        }
        if fmt <= 2 {
            header.time = u24(fields);
        }
        if fmt <= 1 {
            header.len = u24(&fields[3..]);
            header.type_id = fields[6];
        }
        if fmt == 0 {
            header.message_stream_id =
                u32::from_le_bytes([fields[7], fields[8], fields[9], fields[10]]);
        }
        let rest = &fields[fields_len..];
        let len = basic_len + fields_len;
        let repeated = known.filter(|_| fmt == 3).map(|index| &self.streams[index]);
        match repeated {
            None if header.time < EXTENDED_TIMESTAMP => return Ok(Some((header, len))),
            None => {}
            Some(stream) => match stream.extended {
                None => return Ok(Some((header, len))),
                // Adobe repeats an extended timestamp in each chunk, others do not: it is one only
                // if it is the one expected here.
                Some(extended) if stream.open => {
                    let candidates = [extended.to_be_bytes(), stream.timestamp.to_be_bytes()];
                    let seen = &rest[..rest.len().min(4)];
                    if !candidates.iter().any(|candidate| candidate.starts_with(seen)) {
                        return Ok(Some((header, len)));
                    }
                }
                Some(_) => {}
            },
        }
        let Some(extended) = rest.first_chunk::<4>() else { return Ok(None) };
        header.extended = Some(u32::from_be_bytes(*extended));
        Ok(Some((header, len + 4)))
    }

    fn find(&self, csid: u32) -> Option<usize> {
        match self.streams.get(self.current) {
            Some(stream) if stream.csid == csid => Some(self.current),
            _ => self.streams.iter().position(|stream| stream.csid == csid),
        }
    }

    /// Takes a header for what it means: a further chunk of a message, or the first of a new one.
    fn open_chunk(&mut self, header: Header) -> Result<(), Error> {
        self.current = match header.known {
            Some(index) => index,
            None if self.streams.len() == RTMP_CHUNK_STREAMS_MAX => {
                return Err(Limit::ChunkStreams.into());
            }
            None => {
                // Peers use three or four of them.
                self.streams.reserve_exact(1);
                self.streams.push(ChunkStream::new(header.csid));
                self.streams.len() - 1
            }
        };
        let keep_media = self.keep_media;
        let stream = &mut self.streams[self.current];
        if stream.open {
            if header.fmt == 0 {
                return Err(Misbehaved::Interrupted(header.csid).into());
            }
            if header.fmt == 1 && header.len != stream.len {
                let (was, is) = (stream.len, header.len);
                return Err(Misbehaved::LengthChanged(header.csid, was, is).into());
            }
        } else {
            stream.start(header);
            let (type_id, len) = (stream.type_id, stream.len);
            let (media, max) = match type_id {
                type_id::AUDIO | type_id::VIDEO | type_id::AGGREGATE => (true, u32::MAX),
                type_id::DATA_AMF0 | type_id::DATA_AMF3 => (true, RTMP_DATA_MAX),
                _ => (false, RTMP_COMMAND_MAX),
            };
            stream.discard = media && !keep_media;
            if len > max && !stream.discard {
                return Err(Limit::Message(type_id, len).into());
            }
        }
        self.chunk_left = (stream.len - stream.received).min(self.chunk_size) as usize;
        Ok(())
    }

    /// Reads content up to the end of the chunk; false when bytes are missing.
    fn read_content(&mut self, input: &mut &[u8]) -> Result<bool, Error> {
        if self.stash_len > 0 {
            let len = self.stash_len.min(self.chunk_left);
            let stash = self.stash;
            self.append(&stash[..len])?;
            self.stash.copy_within(len..self.stash_len, 0);
            self.stash_len -= len;
        }
        let (content, rest) = input.split_at(input.len().min(self.chunk_left));
        *input = rest;
        self.append(content)?;
        Ok(self.chunk_left == 0)
    }

    fn append(&mut self, content: &[u8]) -> Result<(), Error> {
        let stream = &mut self.streams[self.current];
        stream.received += content.len() as u32;
        self.chunk_left -= content.len();
        if stream.discard || content.is_empty() {
            return Ok(());
        }
        self.partial += content.len();
        if self.partial > RTMP_PARTIAL_MAX {
            return Err(Limit::Partial.into());
        }
        if stream.buffer.capacity() == 0 {
            stream.buffer = self.spares.pop().unwrap_or_default();
        }
        stream.buffer.extend_from_slice(content);
        Ok(())
    }
}

impl ChunkStream {
    fn new(csid: u32) -> ChunkStream {
        ChunkStream {
            csid,
            type_id: 0,
            open: false,
            discard: false,
            timestamp: 0,
            delta: 0,
            extended: None,
            message_stream_id: 0,
            len: 0,
            received: 0,
            buffer: Vec::new(),
        }
    }

    fn joined<'a>(&self, payload: Payload<'a>) -> Joined<'a> {
        Joined {
            csid: self.csid,
            type_id: self.type_id,
            timestamp: self.timestamp,
            message_stream_id: self.message_stream_id,
            payload,
        }
    }

    /// Opens a message with the header of its first chunk.
    fn start(&mut self, header: Header) {
        self.open = true;
        self.received = 0;
        if header.fmt == 0 {
            self.message_stream_id = header.message_stream_id;
        }
        if header.fmt <= 1 {
            self.len = header.len;
            self.type_id = header.type_id;
        }
        if header.fmt <= 2 {
            self.extended = header.extended;
        }
        match (header.fmt, header.extended) {
            (0, extended) => {
                self.timestamp = extended.unwrap_or(header.time) & TIMESTAMP_MASK;
                // RTMP 5.3.1.2.4: a type 3 chunk after a type 0 one repeats its timestamp as the
                // difference.
                self.delta = self.timestamp;
            }
            (_, Some(value)) if near(value & TIMESTAMP_MASK, self.timestamp) => {
                self.delta = (value.wrapping_sub(self.timestamp)) & TIMESTAMP_MASK;
                self.timestamp = value & TIMESTAMP_MASK;
            }
            (fmt, extended) => {
                if fmt <= 2 {
                    self.delta = header.time;
                }
                self.delta = extended.unwrap_or(self.delta);
                self.timestamp = self.timestamp.wrapping_add(self.delta) & TIMESTAMP_MASK;
            }
        }
    }
}

fn near(a: u32, b: u32) -> bool {
    a.abs_diff(b) < NEAR_MS
}

fn u24(bytes: &[u8]) -> u32 {
    u32::from_be_bytes([0, bytes[0], bytes[1], bytes[2]])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::rtmp::chunk;

    /// csid, type, timestamp, message stream, content.
    type Whole = (u32, u8, u32, u32, Vec<u8>);

    fn join_into(joiner: &mut Joiner, bytes: &[u8], piece: usize) -> Result<Vec<Whole>, Error> {
        let mut messages = Vec::new();
        for mut piece in bytes.chunks(piece) {
            while let Some(joined) = joiner.next(&mut piece)? {
                let payload = match joined.payload {
                    Payload::Borrowed(bytes) => bytes.to_vec(),
                    Payload::Assembled => joiner.assembled().to_vec(),
                };
                let id = joined.message_stream_id;
                messages.push((joined.csid, joined.type_id, joined.timestamp, id, payload));
            }
            assert!(piece.is_empty());
        }
        Ok(messages)
    }

    /// Joins in pieces of several sizes, which must not matter.
    #[track_caller]
    fn join(bytes: &[u8]) -> Result<Vec<Whole>, Error> {
        let whole = join_into(&mut Joiner::new(), bytes, usize::MAX);
        for piece in [1, 2, 3, 5, 17, 130] {
            assert_eq!(join_into(&mut Joiner::new(), bytes, piece), whole, "pieces of {piece}");
        }
        whole
    }

    fn times(bytes: &[u8]) -> Vec<u32> {
        join(bytes).unwrap().into_iter().map(|(_, _, time, _, _)| time).collect()
    }

    #[test]
    fn basic_headers_of_one_two_and_three_bytes() {
        let message = b"\0\0\x05\0\0\x02\x09\x01\0\0\0hi";
        let mut bytes = Vec::new();
        for basic in [&[2][..], &[63], &[0, 0], &[0, 255], &[1, 0, 1], &[1, 255, 255], &[1, 0, 0]] {
            bytes.extend_from_slice(basic);
            bytes.extend_from_slice(message);
        }
        let expected =
            [2, 63, 64, 319, 320, 65_599, 64].map(|csid| (csid, 9, 5, 1, b"hi".to_vec()));
        assert_eq!(join(&bytes).unwrap(), expected);
    }

    #[test]
    fn headers_of_all_types() {
        let mut bytes = b"\x03\0\x03\xe8\0\0\x02\x08\x01\0\0\0aa".to_vec();
        bytes.extend_from_slice(b"\x43\0\0\x14\0\0\x03\x09bbb");
        bytes.extend_from_slice(b"\x83\0\0\x0accc");
        bytes.extend_from_slice(b"\xc3ddd");
        let expected = vec![
            (3, 8, 1000, 1, b"aa".to_vec()),
            (3, 9, 1020, 1, b"bbb".to_vec()),
            (3, 9, 1030, 1, b"ccc".to_vec()),
            (3, 9, 1040, 1, b"ddd".to_vec()),
        ];
        assert_eq!(join(&bytes), Ok(expected));
    }

    #[test]
    fn type_3_after_type_0_adds_the_timestamp_again() {
        assert_eq!(times(b"\x03\0\0\x64\0\0\x01\x08\x01\0\0\0a\xc3b\xc3c"), [100, 200, 300]);
    }

    #[test]
    fn a_fresh_chunk_stream_may_open_with_type_1_but_not_2_or_3() {
        assert_eq!(join(b"\x42\0\0\x05\0\0\x01\x08a"), Ok(vec![(2, 8, 5, 0, b"a".to_vec())]));
        assert_eq!(join(b"\x82\0\0\x05"), Err(Misbehaved::FirstChunk(2, 2).into()));
        assert_eq!(join(b"\xc4"), Err(Misbehaved::FirstChunk(4, 3).into()));
        assert_eq!(join(b"\xc1\xff\xff"), Err(Misbehaved::FirstChunk(65_599, 3).into()));
    }

    #[test]
    fn no_message_begins_inside_another() {
        let mut bytes = chunk::message_head(6, 9, 0, 200, 1).as_bytes().to_vec();
        bytes.extend_from_slice(&[0; 128]);
        let with = |header: &[u8]| join(&[&bytes[..], header].concat());
        let again = chunk::message_head(6, 9, 0, 200, 1);
        assert_eq!(with(again.as_bytes()), Err(Misbehaved::Interrupted(6).into()));
        let changed = with(b"\x46\0\0\0\0\0\xc9\x09");
        assert_eq!(changed, Err(Misbehaved::LengthChanged(6, 200, 201).into()));
        // Types 1 and 2 with the same length go on with the message.
        for header in [&b"\x46\0\0\x05\0\0\xc8\x09"[..], b"\x86\0\0\x05"] {
            let expected = vec![(6, 9, 0, 1, vec![0; 200])];
            assert_eq!(with(&[header, &[0; 72]].concat()), Ok(expected));
        }
    }

    #[test]
    fn messages_of_several_chunk_streams_interleave() {
        let mut bytes = chunk::message_head(6, 9, 7, 200, 1).as_bytes().to_vec();
        bytes.extend_from_slice(&[1; 128]);
        chunk::write_message(&mut bytes, 128, 7, 8, 8, 1, &[2; 10]);
        bytes.extend_from_slice(chunk::message_head(4, 18, 9, 300, 1).as_bytes());
        bytes.extend_from_slice(&[3; 128]);
        bytes.push(0xC6);
        bytes.extend_from_slice(&[1; 72]);
        bytes.push(0xC4);
        bytes.extend_from_slice(&[3; 128]);
        bytes.push(0xC4);
        bytes.extend_from_slice(&[3; 44]);
        let expected = vec![
            (7, 8, 8, 1, vec![2; 10]),
            (6, 9, 7, 1, vec![1; 200]),
            (4, 18, 9, 1, vec![3; 300]),
        ];
        assert_eq!(join(&bytes), Ok(expected));
    }

    #[test]
    fn empty_messages_are_dropped_but_count_for_time() {
        let bytes = b"\x03\0\0\x64\0\0\0\x08\x01\0\0\0\x43\0\0\x01\0\0\x01\x08a";
        assert_eq!(join(bytes), Ok(vec![(3, 8, 101, 1, b"a".to_vec())]));
    }

    /// A message of 200 bytes with an extended timestamp, repeated or not in its second chunk.
    fn extended(time: u32, repeat: &[u8]) -> Vec<u8> {
        let mut bytes = chunk::message_head(6, 9, time, 200, 1).as_bytes().to_vec();
        bytes.extend_from_slice(&[5; 128]);
        bytes.push(0xC6);
        bytes.extend_from_slice(repeat);
        bytes.extend_from_slice(&[5; 72]);
        bytes
    }

    #[test]
    fn extended_timestamps_are_repeated_or_not() {
        for time in [0xFF_FFFFu32, 0x0100_0000, 0x0505_0506, 0x7FFF_FFFF] {
            let expected = vec![(6, 9, time, 1, vec![5; 200]); 2];
            // Twice, so that what follows the last chunk is seen to be a header.
            for repeat in [&time.to_be_bytes()[..], &[]] {
                assert_eq!(join(&extended(time, repeat).repeat(2)).as_ref(), Ok(&expected));
            }
        }
    }

    #[test]
    fn timestamps_have_31_bits() {
        let expected = Ok(vec![(6, 9, 5, 1, vec![5; 200])]);
        // The repeated one may be masked or not.
        assert_eq!(join(&extended(0x8000_0005, &0x8000_0005u32.to_be_bytes())), expected);
        assert_eq!(join(&extended(0x8000_0005, &5u32.to_be_bytes())), expected);
        let mut bytes = chunk::message_head(3, 8, 0x7FFF_FFF0, 1, 1).as_bytes().to_vec();
        bytes.extend_from_slice(b"a\x83\0\0\x20b");
        assert_eq!(times(&bytes), [0x7FFF_FFF0, 0x10]);
    }

    #[test]
    fn a_short_rest_is_not_taken_for_a_timestamp() {
        // One byte of content is left, and the next chunk's header follows it.
        for filling in [0, 1, 5] {
            let mut bytes = chunk::message_head(6, 9, 0x0100_0000, 129, 1).as_bytes().to_vec();
            bytes.extend_from_slice(&[filling; 128]);
            bytes.extend_from_slice(&[0xC6, filling]);
            chunk::write_message(&mut bytes, 128, 7, 8, 3, 1, b"next");
            let expected =
                vec![(6, 9, 0x0100_0000, 1, vec![filling; 129]), (7, 8, 3, 1, b"next".into())];
            assert_eq!(join(&bytes), Ok(expected));
        }
    }

    #[test]
    fn extended_differences() {
        let first = b"\x03\0\x03\xe8\0\0\x01\x08\x01\0\0\0a";
        // RTMP 5.3.1.3: a difference.
        let bytes = [&first[..], b"\x43\xff\xff\xff\0\0\x01\x08\x01\0\0\0b"].concat();
        assert_eq!(times(&bytes), [1000, 0x0100_03E8]);
        let bytes = [&bytes[..], b"\xc3\x01\0\0\0c"].concat();
        assert_eq!(times(&bytes)[2], 0x0100_0000, "near the last one: a timestamp");
        // Encoders that write the timestamp itself.
        let mut bytes = chunk::message_head(3, 8, 0x0123_0000, 1, 1).as_bytes().to_vec();
        bytes.extend_from_slice(b"a\x43\xff\xff\xff\0\0\x01\x08\x01\x23\0\x14b");
        bytes.extend_from_slice(b"\x83\xff\xff\xff\x01\x23\0\x28c\xc3\x01\x23\0\x3cd");
        assert_eq!(times(&bytes), [0x0123_0000, 0x0123_0014, 0x0123_0028, 0x0123_003C]);
        // Small differences after an extended timestamp.
        let mut bytes = chunk::message_head(3, 8, 0x0123_0000, 1, 1).as_bytes().to_vec();
        bytes.extend_from_slice(b"a\x83\0\0\x14b\xc3c");
        assert_eq!(times(&bytes), [0x0123_0000, 0x0123_0014, 0x0123_0028]);
    }

    #[test]
    fn a_chunk_size_counts_from_the_next_chunk() {
        let mut joiner = Joiner::new();
        let mut bytes = chunk::message_head(6, 9, 0, 1000, 1).as_bytes().to_vec();
        bytes.extend_from_slice(&[1; 128]);
        assert_eq!(join_into(&mut joiner, &bytes, 7), Ok(vec![]));
        joiner.set_chunk_size(5000);
        let bytes = [&[0xC6][..], &[1; 872]].concat();
        assert_eq!(join_into(&mut joiner, &bytes, 7), Ok(vec![(6, 9, 0, 1, vec![1; 1000])]));
        joiner.set_chunk_size(1);
        let mut bytes = Vec::new();
        chunk::write_message(&mut bytes, 1, 6, 9, 0xFF_FFFF, 1, b"abc");
        assert_eq!(
            join_into(&mut joiner, &bytes, 7),
            Ok(vec![(6, 9, 0xFF_FFFF, 1, b"abc".to_vec())])
        );
    }

    #[test]
    fn unwanted_media_passes_without_being_stored() {
        let mut joiner = Joiner::new();
        joiner.set_keep_media(false);
        let mut bytes = Vec::new();
        for type_id in [8, 9, 15, 18, 22] {
            chunk::write_message(&mut bytes, 128, 6, type_id, 0, 1, &[0; 5000]);
        }
        chunk::write_message(&mut bytes, 128, 3, 20, 0, 0, &[1; 500]);
        bytes.extend_from_slice(chunk::message_head(6, 9, 0, 300, 1).as_bytes());
        bytes.extend_from_slice(&[0; 128]);
        let expected = vec![(3, 20, 0, 0, vec![1; 500])];
        assert_eq!(join_into(&mut joiner, &bytes, 100), Ok(expected));
        // A message that began unwanted stays so.
        joiner.set_keep_media(true);
        let mut bytes = [&[0xC6][..], &[0; 128], &[0xC6], &[0; 44]].concat();
        chunk::write_message(&mut bytes, 128, 6, 9, 0, 1, b"kept");
        assert_eq!(join_into(&mut joiner, &bytes, 100), Ok(vec![(6, 9, 0, 1, b"kept".to_vec())]));
        assert!(joiner.memory() <= 2 * RTMP_KEPT_BUFFER_MAX);
    }

    #[test]
    fn buffers_follow_what_arrives() {
        let mut joiner = Joiner::new();
        joiner.set_chunk_size(0xFF_FFFF);
        let head = chunk::message_head(6, 9, 0, 0xFF_FFFF, 1);
        join_into(&mut joiner, head.as_bytes(), usize::MAX).unwrap();
        assert_eq!(joiner.memory(), 0);
        join_into(&mut joiner, &[0; 1000], 10).unwrap();
        assert!(joiner.memory() < 4096);
        joiner.abort(6);
        assert_eq!(joiner.memory(), 0);
    }
}
