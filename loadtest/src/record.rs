//! The record that a generated stream carries inside every media message.
//!
//! It lets a player that knows nothing else check the whole way from publisher to player: that no
//! message is missing, repeated, reordered, altered or from another stream, and how long it took.
//!
//! ```text
//! | codec header | magic 8 | stream 4 | epoch 4 | seq 4 | time 4 | flags 4 | sent 8 | hash 8 |
//! ```
//! All numbers are little endian. The hash covers the whole payload except the hash field itself.

use crate::media::Kind;

/// First bytes of a record. Not a valid prefix of any codec's headers, hence found by search.
pub const MAGIC: [u8; 8] = *b"\xf5rcload\xa1";

/// Bytes of a record.
pub const LEN: usize = 44;

/// A record must start within this many bytes of the payload: codec headers are short.
const SEARCH_MAX: usize = 64;

/// Offset of the hash field in the record.
const HASH_AT: usize = LEN - 8;

/// What a record says about its message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// Which stream: the publisher's number within its group, plus the group's base.
    pub stream: u32,
    /// Which life of the publisher: changes when it is restarted.
    pub epoch: u32,
    /// Number of the message in this epoch, audio and video counted together.
    pub seq: u32,
    /// Timestamp the publisher gave, milliseconds.
    pub timestamp: u32,
    /// True when players can start here.
    pub keyframe: bool,
    /// Audio or video.
    pub kind: Kind,
    /// Send time, nanoseconds on CLOCK_MONOTONIC.
    pub sent: u64,
}

/// What a payload holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// No record: a sequence header, metadata or somebody else's stream.
    None,
    /// A record, and the payload is what the publisher sent.
    Good(Record),
    /// A record, but the payload was altered.
    Altered(Record),
}

impl Record {
    /// Writes the record at `payload[at..at + LEN]`, hash included. Everything else in the payload
    /// must be final.
    pub fn write(&self, payload: &mut [u8], at: usize) {
        let flags = u32::from(self.keyframe) | u32::from(self.kind as u8) << 8;
        let field = &mut payload[at..at + LEN];
        field[..8].copy_from_slice(&MAGIC);
        field[8..12].copy_from_slice(&self.stream.to_le_bytes());
        field[12..16].copy_from_slice(&self.epoch.to_le_bytes());
        field[16..20].copy_from_slice(&self.seq.to_le_bytes());
        field[20..24].copy_from_slice(&self.timestamp.to_le_bytes());
        field[24..28].copy_from_slice(&flags.to_le_bytes());
        field[28..36].copy_from_slice(&self.sent.to_le_bytes());
        let hash = hash_around(payload, at + HASH_AT);
        payload[at + HASH_AT..at + LEN].copy_from_slice(&hash.to_le_bytes());
    }

    /// Finds and checks the record of a payload.
    pub fn find(payload: &[u8]) -> Found {
        let head = &payload[..payload.len().min(SEARCH_MAX + MAGIC.len())];
        let Some(at) = memchr::memmem::find(head, &MAGIC) else { return Found::None };
        let Some(field) = payload.get(at..at + LEN) else { return Found::None };
        let u32_at = |i: usize| u32::from_le_bytes(field[i..i + 4].try_into().expect("4 bytes"));
        let u64_at = |i: usize| u64::from_le_bytes(field[i..i + 8].try_into().expect("8 bytes"));
        let flags = u32_at(24);
        let kind = match (flags >> 8) as u8 {
            8 => Kind::Audio,
            9 => Kind::Video,
            _ => Kind::Data,
        };
        let record = Record {
            stream: u32_at(8),
            epoch: u32_at(12),
            seq: u32_at(16),
            timestamp: u32_at(20),
            keyframe: flags & 1 != 0,
            kind,
            sent: u64_at(28),
        };
        if hash_around(payload, at + HASH_AT) == u64_at(HASH_AT) {
            Found::Good(record)
        } else {
            Found::Altered(record)
        }
    }
}

/// Hash of the payload without the 8 bytes at `at`.
fn hash_around(payload: &[u8], at: usize) -> u64 {
    hash(hash(payload.len() as u64, &payload[..at]), &payload[at + 8..])
}

/// A 64-bit hash against accidents, not against malice: four lanes of multiply and rotate, so that
/// checking costs far less than receiving.
pub fn hash(seed: u64, bytes: &[u8]) -> u64 {
    const K: [u64; 4] = [
        0x9e37_79b9_7f4a_7c15,
        0xd6e8_feb8_6659_fd93,
        0xa076_1d64_78bd_642f,
        0xe703_7ed1_a0b4_28db,
    ];
    let word = |b: &[u8]| u64::from_le_bytes(b.try_into().expect("8 bytes"));
    let mut lane = [seed ^ K[0], seed ^ K[1], seed ^ K[2], seed ^ K[3]];
    let blocks = bytes.chunks_exact(32);
    let rest = blocks.remainder();
    for block in blocks {
        for i in 0..4 {
            let mixed = lane[i] ^ word(&block[i * 8..i * 8 + 8]);
            lane[i] = mixed.wrapping_mul(K[i]).rotate_left(29);
        }
    }
    let mut h = (bytes.len() as u64).wrapping_mul(K[0]);
    for (i, l) in lane.iter().enumerate() {
        h = (h ^ l).wrapping_mul(K[i]);
        h ^= h >> 31;
    }
    let words = rest.chunks_exact(8);
    let tail = words.remainder();
    for w in words {
        h = (h ^ word(w)).wrapping_mul(K[1]).rotate_left(31);
    }
    for &b in tail {
        h = (h ^ u64::from(b)).wrapping_mul(K[2]).rotate_left(23);
    }
    h ^= h >> 32;
    h = h.wrapping_mul(K[3]);
    h ^ (h >> 29)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        Record {
            stream: 7,
            epoch: 3,
            seq: 99,
            timestamp: 123_456,
            keyframe: true,
            kind: Kind::Video,
            sent: 42_000_000_000,
        }
    }

    #[test]
    fn a_record_is_found_where_it_was_written() {
        for (at, len) in [(2, 46), (10, 300), (64, 5000)] {
            let mut payload: Vec<u8> = (0..len.max(at + LEN)).map(|i| i as u8).collect();
            record().write(&mut payload, at);
            assert_eq!(Record::find(&payload), Found::Good(record()), "at {at}");
        }
    }

    #[test]
    fn every_altered_bit_is_seen() {
        let mut payload: Vec<u8> = (0..203).map(|i| i as u8).collect();
        record().write(&mut payload, 10);
        for byte in 0..payload.len() {
            for bit in 0..8 {
                payload[byte] ^= 1 << bit;
                assert!(!matches!(Record::find(&payload), Found::Good(_)), "byte {byte} bit {bit}");
                payload[byte] ^= 1 << bit;
            }
        }
        payload.push(0);
        assert!(matches!(Record::find(&payload), Found::Altered(_)), "one byte longer");
    }

    #[test]
    fn a_payload_without_a_record_is_none() {
        assert_eq!(Record::find(b""), Found::None);
        assert_eq!(Record::find(&[0x17, 0, 0, 0, 0, 1]), Found::None);
        let mut cut = vec![0u8; 100];
        record().write(&mut cut, 10);
        assert_eq!(Record::find(&cut[..40]), Found::None, "cut inside the record");
    }
}
