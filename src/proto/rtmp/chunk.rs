//! The chunk layer, sending side: cutting messages into chunks. [`Joiner`] is the other side.
//!
//! Every message opens with a chunk of type 0, which repeats nothing of earlier ones. That costs a
//! few bytes and makes each message stand on its own: a player can be given any message first.

use super::message::type_id;

pub use super::joiner::{Joined, Joiner, Payload};

/// Both directions start with this chunk size (RTMP 5.4.1).
pub const CHUNK_SIZE_INITIAL: u32 = 128;

/// Timestamps from here on are written in the extended field (RTMP 5.3.1.3).
pub const EXTENDED_TIMESTAMP: u32 = 0xFF_FFFF;

/// The header of a message's first chunk, always of type 0 so that it stands on its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkHead {
    bytes: [u8; 16],
    len: u8,
}

impl ChunkHead {
    /// The encoded header.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

impl AsRef<[u8]> for ChunkHead {
    fn as_ref(&self) -> &[u8] {
        self.as_bytes()
    }
}

/// The chunk header that opens a message (RTMP 5.3.1.2.1).
///
/// Only one-byte basic headers are written: a `csid` outside of 2..=63 is written as 2.
pub fn message_head(
    csid: u8,
    type_id: u8,
    timestamp: u32,
    len: u32,
    message_stream_id: u32,
) -> ChunkHead {
    debug_assert!(len <= 0xFF_FFFF, "a message length has 24 bits");
    let mut bytes = [0; 16];
    bytes[0] = basic(0, csid);
    bytes[1..4].copy_from_slice(&timestamp.min(EXTENDED_TIMESTAMP).to_be_bytes()[1..]);
    bytes[4..7].copy_from_slice(&len.to_be_bytes()[1..]);
    bytes[7] = type_id;
    // The only little-endian field of the protocol.
    bytes[8..12].copy_from_slice(&message_stream_id.to_le_bytes());
    if timestamp < EXTENDED_TIMESTAMP {
        return ChunkHead { bytes, len: 12 };
    }
    bytes[12..16].copy_from_slice(&timestamp.to_be_bytes());
    ChunkHead { bytes, len: 16 }
}

/// The header of every further chunk of a message (type 3), and its length.
///
/// `timestamp` is the message's; an extended one is repeated, as every receiver in use expects.
pub fn continuation_head(csid: u8, timestamp: u32) -> ([u8; 5], usize) {
    let mut bytes = [0; 5];
    bytes[0] = basic(3, csid);
    if timestamp < EXTENDED_TIMESTAMP {
        return (bytes, 1);
    }
    bytes[1..].copy_from_slice(&timestamp.to_be_bytes());
    (bytes, 5)
}

/// Bytes that [`write_message`] appends for a message.
pub fn message_size_on_wire(payload_len: usize, timestamp: u32, chunk_size: u32) -> usize {
    let extended = if timestamp < EXTENDED_TIMESTAMP { 0 } else { 4 };
    let chunks = payload_len.div_ceil(chunk_size as usize).max(1);
    12 + extended + (chunks - 1) * (1 + extended) + payload_len
}

/// Appends a whole message in chunks of `chunk_size`.
pub fn write_message(
    out: &mut Vec<u8>,
    chunk_size: u32,
    csid: u8,
    type_id: u8,
    timestamp: u32,
    message_stream_id: u32,
    payload: &[u8],
) {
    out.reserve(message_size_on_wire(payload.len(), timestamp, chunk_size));
    let head = message_head(csid, type_id, timestamp, payload.len() as u32, message_stream_id);
    out.extend_from_slice(head.as_bytes());
    let (first, rest) = payload.split_at(payload.len().min(chunk_size as usize));
    out.extend_from_slice(first);
    let (continuation, len) = continuation_head(csid, timestamp);
    for chunk in rest.chunks(chunk_size as usize) {
        out.extend_from_slice(&continuation[..len]);
        out.extend_from_slice(chunk);
    }
}

/// Appends a protocol control message; these are short enough for one chunk of any size.
pub(super) fn write_control(out: &mut Vec<u8>, type_id: u8, payload: &[u8]) {
    debug_assert!(payload.len() <= CHUNK_SIZE_INITIAL as usize);
    write_message(out, CHUNK_SIZE_INITIAL, super::csid::CONTROL, type_id, 0, 0, payload);
}

/// Appends SetChunkSize.
pub(super) fn write_set_chunk_size(out: &mut Vec<u8>, chunk_size: u32) {
    write_control(out, type_id::SET_CHUNK_SIZE, &chunk_size.to_be_bytes());
}

fn basic(fmt: u8, csid: u8) -> u8 {
    (fmt << 6) | if (2..=63).contains(&csid) { csid } else { 2 }
}
