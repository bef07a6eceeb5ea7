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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn heads_byte_by_byte() {
        assert_eq!(
            message_head(6, 9, 0x01_0203, 0x04_0506, 0x0102_0304).as_bytes(),
            [6, 1, 2, 3, 4, 5, 6, 9, 4, 3, 2, 1]
        );
        assert_eq!(
            message_head(7, 8, 0xFF_FFFF, 1, 1).as_bytes(),
            [7, 0xFF, 0xFF, 0xFF, 0, 0, 1, 8, 1, 0, 0, 0, 0, 0xFF, 0xFF, 0xFF]
        );
        assert_eq!(message_head(64, 8, 0xFF_FFFE, 1, 1).as_bytes()[..4], [2, 0xFF, 0xFF, 0xFE]);
        assert_eq!(message_head(1, 8, 0, 1, 1).as_bytes()[0], 2);
        assert_eq!(continuation_head(6, 0xFF_FFFE), ([0xC6, 0, 0, 0, 0], 1));
        assert_eq!(continuation_head(6, 0x0102_0304), ([0xC6, 1, 2, 3, 4], 5));
    }

    #[test]
    fn sizes_on_the_wire() {
        for (len, time, chunk_size) in [
            (0, 0, 128),
            (1, 0, 128),
            (128, 0, 128),
            (129, 0xFF_FFFE, 128),
            (129, 0xFF_FFFF, 128),
            (70_000, 0x7FFF_FFFF, 60_000),
            (5, 0xFF_FFFF, 1),
        ] {
            let mut out = Vec::new();
            write_message(&mut out, chunk_size, 6, 9, time, 1, &vec![0; len]);
            assert_eq!(out.len(), message_size_on_wire(len, time, chunk_size), "{len} {time}");
        }
    }

    #[derive(Debug, Clone)]
    struct Sent {
        csid: u32,
        type_id: u8,
        time: u32,
        msid: u32,
        payload: Vec<u8>,
        /// Which header type to use where it is possible.
        fmt: u8,
    }

    /// What a chunk stream remembers of its last message.
    #[derive(Default, Clone)]
    struct Last {
        used: bool,
        time: u32,
        delta: u32,
        extended: bool,
        len: usize,
        type_id: u8,
        msid: u32,
    }

    /// A sender that uses all header types, written from the specification and not from the joiner.
    struct Sender {
        out: Vec<u8>,
        last: std::collections::HashMap<u32, Last>,
        chunk_size: usize,
        /// Whether type 3 chunks repeat extended timestamps.
        repeat: bool,
    }

    impl Sender {
        fn basic(&mut self, fmt: u8, csid: u32) {
            let fmt = fmt << 6;
            match csid {
                2..=63 => self.out.push(fmt | csid as u8),
                64..=319 => self.out.extend_from_slice(&[fmt, (csid - 64) as u8]),
                _ => {
                    let [low, high] = ((csid - 64) as u16).to_le_bytes();
                    self.out.extend_from_slice(&[fmt | 1, low, high]);
                }
            }
        }

        /// Writes the first chunk; what its type 3 chunks have to repeat.
        fn first(&mut self, sent: &Sent) -> Option<u32> {
            let last = self.last.get(&sent.csid).cloned().unwrap_or_default();
            let delta = sent.time.wrapping_sub(last.time) & 0x7FFF_FFFF;
            let (len, type_id) = (sent.payload.len(), sent.type_id);
            let same_stream = last.used && last.msid == sent.msid && delta < EXTENDED_TIMESTAMP;
            let same_form = same_stream && last.len == len && last.type_id == type_id;
            let same_step = same_form && !last.extended && last.delta == delta;
            let possible = [true, same_stream, same_form, same_step];
            let fmt = (0..=sent.fmt).rev().find(|&fmt| possible[usize::from(fmt)]).unwrap();
            self.basic(fmt, sent.csid);
            let value = if fmt == 0 { sent.time } else { delta };
            let extended = value >= EXTENDED_TIMESTAMP;
            let field = value.min(EXTENDED_TIMESTAMP).to_be_bytes();
            if fmt <= 2 {
                self.out.extend_from_slice(&field[1..]);
            }
            if fmt <= 1 {
                self.out.extend_from_slice(&(len as u32).to_be_bytes()[1..]);
                self.out.push(type_id);
            }
            if fmt == 0 {
                self.out.extend_from_slice(&sent.msid.to_le_bytes());
            }
            if extended {
                self.out.extend_from_slice(&value.to_be_bytes());
            }
            let (time, msid) = (sent.time, sent.msid);
            let last = Last { used: true, time, delta: value, extended, len, type_id, msid };
            self.last.insert(sent.csid, last);
            extended.then_some(value)
        }
    }

    fn messages() -> impl Strategy<Value = Vec<Sent>> {
        let csid = prop_oneof![2u32..8, Just(63), Just(64), Just(319), Just(320), Just(65_599)];
        let time =
            prop_oneof![0u32..200, 0xFF_FF00u32..0x100_0100, 0u32..0x8000_0000, Just(0x7FFF_FFFF),];
        let len = prop_oneof![1usize..10, 100usize..400, 1usize..3000];
        let message = (csid, 8u8..10, time, 0u32..3, len, any::<u8>(), 0u8..4).prop_map(
            |(csid, type_id, time, msid, len, seed, fmt)| {
                let byte = |index: usize| (index as u8).wrapping_mul(37).wrapping_add(seed);
                Sent { csid, type_id, time, msid, payload: (0..len).map(byte).collect(), fmt }
            },
        );
        prop::collection::vec(message, 1..20)
    }

    proptest! {
        #[test]
        fn chunks_of_any_shape_are_joined(
            sent in messages(),
            chunk_size in prop_oneof![1usize..10, 100usize..300, 1usize..5000],
            repeat: bool,
            turns in prop::collection::vec(any::<prop::sample::Index>(), 50),
            pieces in prop::collection::vec(1usize..2000, 20),
        ) {
            let last = Default::default();
            let mut sender = Sender { out: Vec::new(), last, chunk_size, repeat };
            // At most one open message for each chunk stream; they take turns.
            let mut waiting: std::collections::VecDeque<&Sent> = sent.iter().collect();
            let mut open: Vec<(&Sent, usize, Option<u32>)> = Vec::new();
            let mut expected = Vec::new();
            let mut turn = 0;
            while !waiting.is_empty() || !open.is_empty() {
                turn += 1;
                let startable = waiting.front().is_some_and(|next| {
                    open.iter().all(|(other, ..)| other.csid != next.csid)
                });
                let index = turns[turn % turns.len()].index(open.len() + usize::from(startable));
                if index == open.len() {
                    let next = waiting.pop_front().unwrap();
                    let extended = sender.first(next);
                    open.push((next, 0, extended));
                } else {
                    let (next, _, extended) = open[index];
                    sender.basic(3, next.csid);
                    if let Some(value) = extended.filter(|_| sender.repeat) {
                        sender.out.extend_from_slice(&value.to_be_bytes());
                    }
                }
                let (message, at, _) = &mut open[index];
                let end = (*at + sender.chunk_size).min(message.payload.len());
                sender.out.extend_from_slice(&message.payload[*at..end]);
                *at = end;
                if end == message.payload.len() {
                    expected.push(open.remove(index).0);
                }
            }

            // The last few bytes may look like a repeated timestamp; what comes next settles that.
            let closing = Sent { csid: 62, type_id: 8, time: 0, msid: 0, payload: vec![0], fmt: 0 };
            sender.first(&closing);
            sender.out.push(0);
            expected.push(&closing);

            let mut joiner = Joiner::new();
            joiner.set_chunk_size(chunk_size as u32);
            let mut rest = &sender.out[..];
            let mut count = 0;
            let mut sizes = pieces.iter().cycle();
            while !rest.is_empty() {
                let (mut piece, after) = rest.split_at(rest.len().min(*sizes.next().unwrap()));
                rest = after;
                while let Some(joined) = joiner.next(&mut piece).unwrap() {
                    let sent = expected[count];
                    count += 1;
                    prop_assert_eq!(joined.csid, sent.csid);
                    prop_assert_eq!(joined.type_id, sent.type_id);
                    prop_assert_eq!(joined.timestamp, sent.time);
                    prop_assert_eq!(joined.message_stream_id, sent.msid);
                    let payload = match joined.payload {
                        Payload::Borrowed(bytes) => bytes,
                        Payload::Assembled => joiner.assembled(),
                    };
                    prop_assert_eq!(payload, &sent.payload[..]);
                }
            }
            prop_assert_eq!(count, expected.len());
        }

        #[test]
        fn messages_written_here_are_joined(
            csid in 2u8..64,
            time in 0u32..0x8000_0000,
            len in 1usize..200_000,
            chunk_size in 1u32..70_000,
        ) {
            let payload: Vec<u8> = (0..len).map(|index| (index % 251) as u8).collect();
            let mut out = Vec::new();
            write_message(&mut out, chunk_size, csid, 9, time, 1, &payload);
            let mut joiner = Joiner::new();
            joiner.set_chunk_size(chunk_size);
            let mut input = &out[..];
            let joined = joiner.next(&mut input).unwrap().unwrap();
            prop_assert_eq!(joined.timestamp, time);
            let joined = match joined.payload {
                Payload::Borrowed(bytes) => bytes,
                Payload::Assembled => joiner.assembled(),
            };
            prop_assert_eq!(joined, &payload[..]);
            prop_assert!(input.is_empty());
        }

        #[test]
        fn any_bytes_are_joined_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
            let run = |piece: usize| {
                let mut joiner = Joiner::new();
                let mut seen = Vec::new();
                for mut piece in bytes.chunks(piece) {
                    loop {
                        match joiner.next(&mut piece) {
                            Ok(Some(joined)) => seen.push((joined.csid, joined.timestamp)),
                            Ok(None) => break,
                            Err(error) => return (seen, Some(error)),
                        }
                    }
                }
                (seen, None)
            };
            prop_assert_eq!(run(usize::MAX), run(1));
        }
    }
}
