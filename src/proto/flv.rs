//! FLV (Video File Format 10.1, annex E): file header and tags, both directions, and the three ways in
//! which a tag goes over HTTP.
//!
//! A tag is complete in itself: its framing, its header, its body and its size behind it. So a player
//! may start at any tag of a feed, after the file header. What is in the body is `media::tag`'s matter.

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

/// The header of a tag: `timestamp` in milliseconds, `len` the bytes of its body, of which the format
/// holds the low 24 bits.
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

/// Why FLV bytes could not be read. All of these end the reading: there is no way to find the next tag.
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

    /// Takes bytes off the front of `input` and gives the next tag, or `None` when all of `input` is
    /// taken and the tag is not complete yet. After an error every further call gives it again.
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
