//! MPEG transport stream (ISO 13818-1): packets, tables, and access units as packets of them.
//!
//! ```text
//! packet   [47][start:1 pid:13][adaptation:2 counter:4] {adaptation field} payload    188 bytes
//! PES      [00 00 01][stream][length:16][flags][header length][PTS]{DTS} access unit
//! ```
//! [`Mux`] turns units into runs of whole packets. A run that begins with a keyframe begins with
//! the tables too, so a player can start at it with nothing before it. [`demux::Demux`] goes the
//! other way.

pub mod demux;
mod mux;
mod psi;

pub use mux::{Mux, PCR_LEAD};
pub use psi::{PID_AUDIO, PID_PMT, PID_VIDEO};

use crate::media::codec::{AudioCodec, VideoCodec};
use crate::proto::mpeg::pes::TIME_MASK;

/// Bytes of a packet.
pub const PACKET_BYTES: usize = 188;

/// A track that a container has no place for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// There is no agreed way to carry this codec.
    #[error("{0} video has no place in this container")]
    Video(VideoCodec),
    /// There is no agreed way to carry this codec, or not in this form of it.
    #[error("{0} audio of this kind has no place in this container")]
    Audio(AudioCodec),
    /// The container holds one track of audio, and there is none.
    #[error("the stream has no audio")]
    NoAudio,
}

const SYNC: u8 = 0x47;
const PAYLOAD_BYTES: usize = PACKET_BYTES - 4;

/// What the first packet of a unit says beside its payload.
#[derive(Debug, Clone, Copy, Default)]
struct First {
    /// The stream's clock, ticks of 90 kHz.
    clock: Option<i64>,
    /// Decoding can start here.
    random_access: bool,
}

/// Cuts `payload` into packets. Counts the continuity counter on.
fn packets(out: &mut Vec<u8>, pid: u16, counter: &mut u8, payload: &[u8], first: First) {
    let mut rest = payload;
    let mut start = true;
    while !rest.is_empty() {
        let says = if start { first } else { First::default() };
        let mut field = match says {
            First { clock: Some(_), .. } => 8,
            First { random_access: true, .. } => 2,
            First { .. } => 0,
        };
        let room = PAYLOAD_BYTES - field;
        let take = rest.len().min(room);
        // What the payload does not fill is stuffing, which lies in the adaptation field.
        field += room - take;
        let [high, low] = pid.to_be_bytes();
        let control = if field > 0 { 0x30 } else { 0x10 };
        out.extend_from_slice(&[SYNC, u8::from(start) << 6 | high, low, control | *counter]);
        *counter = (*counter + 1) & 15;
        adaptation(out, field, says);
        out.extend_from_slice(&rest[..take]);
        rest = &rest[take..];
        start = false;
    }
}

/// A packet that carries the clock and nothing else. It does not count.
fn clock_packet(out: &mut Vec<u8>, pid: u16, next_counter: u8, clock: i64) {
    let [high, low] = pid.to_be_bytes();
    out.extend_from_slice(&[SYNC, high, low, 0x20 | (next_counter.wrapping_sub(1) & 15)]);
    adaptation(out, PAYLOAD_BYTES, First { clock: Some(clock), random_access: false });
}

/// An adaptation field of `len` bytes, its own length included (2.4.3.4).
fn adaptation(out: &mut Vec<u8>, len: usize, says: First) {
    let Some(behind) = len.checked_sub(1) else { return };
    let end = out.len() + len;
    out.push(behind as u8);
    if behind > 0 {
        let clock = u8::from(says.clock.is_some()) << 4;
        out.push(u8::from(says.random_access) << 6 | clock);
    }
    if let Some(clock) = says.clock {
        let base = (clock as u64) & TIME_MASK;
        let [.., b4, b3, b2, b1] = (base >> 1).to_be_bytes();
        // Six reserved bits and an extension of 0: the clock is in whole ticks.
        out.extend_from_slice(&[b4, b3, b2, b1, ((base & 1) as u8) << 7 | 0x7e, 0]);
    }
    out.resize(end, 0xff);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_fills_its_packets() {
        for len in 1..600usize {
            for first in [
                First::default(),
                First { clock: None, random_access: true },
                First { clock: Some(5), random_access: true },
            ] {
                let payload: Vec<u8> = (0..len).map(|n| n as u8).collect();
                let (mut out, mut counter) = (Vec::new(), 14);
                packets(&mut out, 256, &mut counter, &payload, first);
                assert_eq!(out.len() % PACKET_BYTES, 0);
                let mut found = Vec::new();
                for (index, packet) in out.chunks(PACKET_BYTES).enumerate() {
                    assert_eq!(packet[0], SYNC);
                    assert_eq!(packet[1] >> 6 & 1 == 1, index == 0);
                    assert_eq!(usize::from(packet[3] & 15), (14 + index) & 15);
                    let field = if packet[3] & 0x20 != 0 { 1 + usize::from(packet[4]) } else { 0 };
                    found.extend_from_slice(&packet[4 + field..]);
                }
                assert_eq!(found, payload);
            }
        }
    }

    #[test]
    fn the_clock_has_33_bits() {
        let mut out = Vec::new();
        clock_packet(&mut out, 0x100, 0, (1 << 33) + 3);
        assert_eq!(out.len(), PACKET_BYTES);
        assert_eq!(out[..12], [0x47, 1, 0, 0x2f, 183, 0x10, 0, 0, 0, 1, 0xfe, 0]);
        assert!(out[12..].iter().all(|byte| *byte == 0xff));
    }
}
