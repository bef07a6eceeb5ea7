//! FLV (Video File Format 10.1, annex E): file header and tags, both directions, and the three ways
//! in which a tag goes over HTTP.
//!
//! A tag is complete in itself: its framing, its header, its body and its size behind it. So a
//! player may start at any tag of a feed, after the file header. What is in the body is
//! `media::tag`'s matter.

use crate::limits::{FLV_HEADER_BYTES_MAX, FLV_TAG_BYTES_MAX};
use crate::media::Kind;

/// Bytes of a tag header.
pub const TAG_HEAD_BYTES: usize = 11;
/// Bytes of the size field behind each tag.
pub const TAG_TAIL_BYTES: usize = 4;
/// Bytes of the file header with the first size field.
pub const FILE_HEADER_BYTES: usize = 13;
/// Bytes that the longest framing head needs.
pub const FRAMING_HEAD_BYTES_MAX: usize = 16;

/// The file header and the size field (0) before the first tag.
pub fn file_header(has_audio: bool, has_video: bool) -> [u8; FILE_HEADER_BYTES] {
    let flags = u8::from(has_audio) << 2 | u8::from(has_video);
    [b'F', b'L', b'V', 1, flags, 0, 0, 0, 9, 0, 0, 0, 0]
}

/// The header of a tag: `timestamp` in milliseconds, `len` the bytes of its body, of which the
/// format holds the low 24 bits.
pub fn tag_head(kind: Kind, timestamp: u32, len: u32) -> [u8; TAG_HEAD_BYTES] {
    let [_, l0, l1, l2] = len.to_be_bytes();
    // FLV E.4.1: the eighth to fifteenth bits of time come first, its top eight bits last.
    let [high, t0, t1, t2] = timestamp.to_be_bytes();
    [kind.type_id(), l0, l1, l2, t0, t1, t2, high, 0, 0, 0]
}

/// The size field behind a tag with a body of `len` bytes.
pub fn previous_tag_size(len: u32) -> [u8; TAG_TAIL_BYTES] {
    len.wrapping_add(TAG_HEAD_BYTES as u32).to_be_bytes()
}

/// Appends a whole tag, header to size field.
pub fn write_tag(out: &mut Vec<u8>, kind: Kind, timestamp: u32, body: &[u8]) {
    let len = body.len() as u32;
    out.extend_from_slice(&tag_head(kind, timestamp, len));
    out.extend_from_slice(body);
    out.extend_from_slice(&previous_tag_size(len));
}

/// How a run of FLV bytes is wrapped on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Framing {
    /// Not at all: the connection's end is the body's end (HTTP/1.0).
    Plain,
    /// One chunk of an HTTP/1.1 chunked body.
    Chunked,
    /// One binary WebSocket frame.
    WebSocket,
}

impl Framing {
    /// What follows the run.
    pub fn suffix(self) -> &'static [u8] {
        match self {
            Framing::Chunked => b"\r\n",
            Framing::Plain | Framing::WebSocket => b"",
        }
    }

    /// What ends the whole body in good order, if the framing has such a thing. The end of a
    /// WebSocket is a close frame (`ws::close_frame`), which also says why.
    pub fn end(self) -> &'static [u8] {
        match self {
            Framing::Chunked => b"0\r\n\r\n",
            Framing::Plain | Framing::WebSocket => b"",
        }
    }
}

/// Writes what precedes a run of `len` bytes, and returns how many bytes of `out` it took. `len`
/// counts all that is wrapped: for a tag its header, body and size field. A run of no bytes has no
/// head, because an empty chunk would end the body.
pub fn framing_head(framing: Framing, len: usize, out: &mut [u8; FRAMING_HEAD_BYTES_MAX]) -> usize {
    if len == 0 {
        return 0;
    }
    match framing {
        Framing::Plain => 0,
        Framing::Chunked => {
            // 14 digits and the line end fill the head; a run never comes near 2^56 bytes.
            let len = (len as u64).min((1 << 56) - 1);
            let digits = (67 - len.leading_zeros() as usize) / 4;
            for (index, out) in out[..digits].iter_mut().enumerate() {
                let digit = len >> (4 * (digits - 1 - index)) & 15;
                *out = b"0123456789abcdef"[digit as usize];
            }
            out[digits..digits + 2].copy_from_slice(b"\r\n");
            digits + 2
        }
        Framing::WebSocket => super::ws::server_head(super::ws::Opcode::Binary, len as u64, out),
    }
}

/// Why FLV bytes could not be read. All of these end the reading: there is no way to find the next
/// tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The bytes are not FLV.
    #[error("malformed FLV: {0}")]
    Malformed(&'static str),
    /// FLV, with something that the server does not read.
    #[error("FLV with {0} is not supported")]
    Unsupported(&'static str),
    /// A tag that is bigger than the reader was told to take.
    #[error("FLV tag of {0} bytes is over the limit")]
    TooBig(usize),
}

/// A tag as the reader hands it out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tag<'a> {
    /// What the body carries.
    pub kind: Kind,
    /// Milliseconds, as written in the tag.
    pub timestamp: u32,
    /// The body.
    pub body: &'a [u8],
}

/// Reads FLV piece by piece. Keeps at most one tag, and grows only by bytes that arrived.
#[derive(Debug, Clone)]
pub struct TagReader {
    state: State,
    /// The part that `state` waits for, as far as it has arrived.
    held: Vec<u8>,
    /// `held` is complete and dealt with; it stays until the next call because a tag borrows it.
    done: bool,
    tag_bytes_max: usize,
    flags: Option<u8>,
}

#[derive(Debug, Clone, Copy)]
enum State {
    FileHeader,
    /// The rest of a file header that is longer than nine bytes, and the first size field.
    Skip(usize),
    TagHead,
    /// Body and size field.
    TagBody {
        kind: Kind,
        timestamp: u32,
        len: usize,
    },
    Failed(Error),
}

impl Default for TagReader {
    fn default() -> Self {
        TagReader::new()
    }
}

impl TagReader {
    /// A reader at the start of a file, which takes tags of any size that FLV can state.
    pub fn new() -> TagReader {
        TagReader::with_limit(FLV_TAG_BYTES_MAX)
    }

    /// A reader at the start of a file, which takes tag bodies of up to `tag_bytes_max` bytes.
    pub fn with_limit(tag_bytes_max: usize) -> TagReader {
        TagReader {
            state: State::FileHeader,
            held: Vec::new(),
            done: false,
            tag_bytes_max,
            flags: None,
        }
    }

    /// What the file header says is in the file, as (audio, video); `None` before it was read.
    pub fn flags(&self) -> Option<(bool, bool)> {
        self.flags.map(|flags| (flags & 4 != 0, flags & 1 != 0))
    }

    /// Whether the input so far ends between two tags, where a file may end.
    pub fn at_boundary(&self) -> bool {
        matches!(self.state, State::TagHead) && (self.done || self.held.is_empty())
    }

    /// Takes bytes off the front of `input` and gives the next tag, or `None` when all of `input`
    /// is taken and the tag is not complete yet. After an error every further call gives it again.
    pub fn poll<'a>(&'a mut self, input: &mut &[u8]) -> Result<Option<Tag<'a>>, Error> {
        loop {
            let want = match self.state {
                State::FileHeader => 9,
                State::Skip(count) => count,
                State::TagHead => TAG_HEAD_BYTES,
                State::TagBody { len, .. } => len + TAG_TAIL_BYTES,
                State::Failed(error) => return Err(error),
            };
            if self.done {
                self.held.clear();
                self.done = false;
            }
            let count = (want - self.held.len()).min(input.len());
            self.held.extend_from_slice(&input[..count]);
            *input = &input[count..];
            if self.held.len() < want {
                return Ok(None);
            }
            self.done = true;
            match self.advance() {
                Ok(None) => {}
                Ok(Some((kind, timestamp, len))) => {
                    return Ok(Some(Tag { kind, timestamp, body: &self.held[..len] }));
                }
                Err(error) => {
                    self.held = Vec::new();
                    self.state = State::Failed(error);
                    return Err(error);
                }
            }
        }
    }

    /// Acts on the part that is complete in `held`; gives (kind, timestamp, body length) of a tag.
    fn advance(&mut self) -> Result<Option<(Kind, u32, usize)>, Error> {
        let held = self.held.as_slice();
        match self.state {
            State::FileHeader => {
                let [b'F', b'L', b'V', version, flags, offset @ ..] = held else {
                    return Err(Error::Malformed("no FLV signature"));
                };
                if *version != 1 {
                    return Err(Error::Unsupported("a version other than 1"));
                }
                let offset = be(offset);
                if !(9..=FLV_HEADER_BYTES_MAX).contains(&offset) {
                    return Err(Error::Malformed("file header size"));
                }
                self.flags = Some(*flags);
                self.state = State::Skip(offset - 9 + TAG_TAIL_BYTES);
                Ok(None)
            }
            State::Skip(_) => {
                self.state = State::TagHead;
                Ok(None)
            }
            State::TagHead => {
                let &[kind, l0, l1, l2, t0, t1, t2, high, ..] = held else {
                    return Err(Error::Malformed("tag header"));
                };
                if kind & 0x20 != 0 {
                    return Err(Error::Unsupported("encrypted tags"));
                }
                let kind = Kind::from_type(kind).ok_or(Error::Malformed("tag type"))?;
                let len = be(&[l0, l1, l2]);
                if len > self.tag_bytes_max {
                    return Err(Error::TooBig(len));
                }
                let timestamp = u32::from_be_bytes([high, t0, t1, t2]);
                self.state = State::TagBody { kind, timestamp, len };
                Ok(None)
            }
            State::TagBody { kind, timestamp, len } => {
                // Some writers leave this field 0; any other value means that the lengths lie.
                let size = be(&held[len..]);
                if size != 0 && size != len + TAG_HEAD_BYTES {
                    return Err(Error::Malformed("size behind a tag"));
                }
                self.state = State::TagHead;
                Ok(Some((kind, timestamp, len)))
            }
            State::Failed(error) => Err(error),
        }
    }
}

fn be(bytes: &[u8]) -> usize {
    bytes.iter().fold(0, |value, byte| value << 8 | usize::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::http::{ChunkedDecoder, Piece};
    use crate::proto::ws;

    type Owned = (Kind, u32, Vec<u8>);

    fn sample() -> (Vec<u8>, Vec<Owned>) {
        let tags = vec![
            (Kind::Data, 0, b"\x02\0\x0aonMetaData".to_vec()),
            (Kind::Video, 0, vec![0x17, 0, 0, 0, 0]),
            (Kind::Audio, 0x00ff_ffff, vec![]),
            (Kind::Video, 0x0100_0000, vec![7; 700]),
            (Kind::Audio, 0xffff_fffe, vec![0xaf, 1, 9]),
        ];
        let mut bytes = file_header(true, true).to_vec();
        for (kind, timestamp, body) in &tags {
            write_tag(&mut bytes, *kind, *timestamp, body);
        }
        (bytes, tags)
    }

    fn drain(reader: &mut TagReader, mut input: &[u8], out: &mut Vec<Owned>) -> Result<(), Error> {
        while let Some(tag) = reader.poll(&mut input)? {
            out.push((tag.kind, tag.timestamp, tag.body.to_vec()));
        }
        assert!(input.is_empty());
        Ok(())
    }

    #[test]
    fn heads_as_the_format_has_them() {
        assert_eq!(file_header(true, false), *b"FLV\x01\x04\0\0\0\x09\0\0\0\0");
        assert_eq!(file_header(false, true)[4], 1);
        assert_eq!(
            tag_head(Kind::Video, 0x1234_5678, 0x00ab_cdef),
            [9, 0xab, 0xcd, 0xef, 0x34, 0x56, 0x78, 0x12, 0, 0, 0]
        );
        assert_eq!(previous_tag_size(5), [0, 0, 0, 16]);
    }

    #[test]
    fn split_at_every_byte() {
        let (bytes, tags) = sample();
        for split in 0..=bytes.len() {
            let mut reader = TagReader::new();
            let mut out = Vec::new();
            drain(&mut reader, &bytes[..split], &mut out).unwrap();
            drain(&mut reader, &bytes[split..], &mut out).unwrap();
            assert_eq!(out, tags, "{split}");
            assert!(reader.at_boundary());
            assert_eq!(reader.flags(), Some((true, true)));
        }
        let mut reader = TagReader::new();
        let mut out = Vec::new();
        for byte in &bytes {
            drain(&mut reader, &[*byte], &mut out).unwrap();
        }
        assert_eq!(out, tags);
    }

    #[test]
    fn longer_file_header_and_zero_sizes() {
        let mut bytes = b"FLV\x01\x05\0\0\0\x0cabc\0\0\0\0".to_vec();
        bytes.extend(tag_head(Kind::Audio, 7, 2));
        bytes.extend([0xaf, 1, 0, 0, 0, 0]);
        let mut out = Vec::new();
        drain(&mut TagReader::new(), &bytes, &mut out).unwrap();
        assert_eq!(out, [(Kind::Audio, 7, vec![0xaf, 1])]);
    }

    #[test]
    fn bad_files_end_the_reading() {
        let (good, _) = sample();
        let broken = |at: usize, value: u8| {
            let mut bytes = good.clone();
            bytes[at] = value;
            let mut reader = TagReader::with_limit(1_000);
            let error = drain(&mut reader, &bytes, &mut Vec::new()).unwrap_err();
            assert_eq!(reader.poll(&mut [0u8].as_slice()), Err(error));
            error
        };
        assert_eq!(broken(0, b'f'), Error::Malformed("no FLV signature"));
        assert_eq!(broken(3, 2), Error::Unsupported("a version other than 1"));
        assert_eq!(broken(8, 8), Error::Malformed("file header size"));
        assert_eq!(broken(5, 1), Error::Malformed("file header size"));
        assert_eq!(broken(13, 0), Error::Malformed("tag type"));
        assert_eq!(broken(13, 0x32), Error::Unsupported("encrypted tags"));
        assert_eq!(broken(14, 0x10), Error::TooBig(0x10_000d));
        assert_eq!(broken(13 + 11 + 13 + 3, 1), Error::Malformed("size behind a tag"));
    }

    #[test]
    fn a_declared_size_takes_no_memory() {
        let mut reader = TagReader::new();
        let mut bytes = file_header(true, true).to_vec();
        bytes.extend(tag_head(Kind::Video, 0, 0xff_ffff));
        bytes.extend([0; 100]);
        assert_eq!(reader.poll(&mut bytes.as_slice()), Ok(None));
        assert!(reader.held.capacity() < 4_096);
        assert!(!reader.at_boundary());
    }

    #[test]
    fn chunk_heads() {
        let mut out = [0; FRAMING_HEAD_BYTES_MAX];
        for (len, head) in [(1, "1\r\n"), (15, "f\r\n"), (16, "10\r\n"), (0xbeef, "beef\r\n")] {
            let count = framing_head(Framing::Chunked, len, &mut out);
            assert_eq!(&out[..count], head.as_bytes());
        }
        let count = framing_head(Framing::Chunked, usize::MAX, &mut out);
        assert_eq!(&out[..count], b"ffffffffffffff\r\n");
        for framing in [Framing::Plain, Framing::Chunked, Framing::WebSocket] {
            assert_eq!(framing_head(framing, 0, &mut out), 0);
        }
        assert_eq!(framing_head(Framing::Plain, 99, &mut out), 0);
    }

    /// What a player gets back after taking the framing off, for tags of all head sizes.
    #[test]
    fn framings_come_off_again() {
        for len in [1, 110, 111, 125, 126, 4_000, 65_535, 65_536, 70_000] {
            let run: Vec<u8> = (0..len).map(|index| index as u8).collect();
            let frame = |framing: Framing| {
                let mut head = [0; FRAMING_HEAD_BYTES_MAX];
                let count = framing_head(framing, run.len(), &mut head);
                [&head[..count], &run, framing.suffix(), framing.end()].concat()
            };
            assert_eq!(frame(Framing::Plain), run);
            let chunked = frame(Framing::Chunked);
            let (mut input, mut body) = (chunked.as_slice(), Vec::new());
            let mut decoder = ChunkedDecoder::new();
            while let Piece::Data(data) = decoder.decode(&mut input).unwrap() {
                body.extend_from_slice(data);
            }
            assert_eq!(decoder.decode(&mut input), Ok(Piece::End));
            assert_eq!((body, decoder.chunks(), input), (run.clone(), 1, [].as_slice()));
            let frame = frame(Framing::WebSocket);
            let mut reader = ws::Reader::new(ws::From::Server, 100_000);
            let event = reader.poll(&mut frame.as_slice()).unwrap();
            assert_eq!(event, Some(ws::Event::Message { text: false, data: &run }));
        }
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_in_any_pieces(
            bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..400),
            prefix in 0usize..40,
            piece in 1usize..50,
        ) {
            // A good beginning, so that the tag states are reached.
            let input = [&sample().0[..prefix], &bytes].concat();
            let mut whole = Vec::new();
            let result = drain(&mut TagReader::with_limit(300), &input, &mut whole);
            let mut pieces = Vec::new();
            let mut reader = TagReader::with_limit(300);
            let split = input
                .chunks(piece)
                .try_for_each(|piece| drain(&mut reader, piece, &mut pieces));
            proptest::prop_assert_eq!(result, split);
            proptest::prop_assert_eq!(whole, pieces);
        }
    }
}
