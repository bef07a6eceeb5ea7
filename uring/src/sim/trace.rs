//! What happened in a run, folded into one number: two runs are the same run when it is equal.

use super::random::mix;
use crate::driver::{Ended, Event};

/// Hash and count of everything that drivers and peers have seen.
#[derive(Debug, Default)]
pub(super) struct Trace {
    hash: u64,
    pub(super) events: u64,
    pub(super) print: bool,
}

impl Trace {
    pub(super) fn hash(&self) -> u64 {
        self.hash
    }

    fn fold(&mut self, value: u64) {
        self.hash = mix(self.hash.rotate_left(23) ^ value.wrapping_add(0x9e37_79b9_7f4a_7c15));
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.fold(bytes.len() as u64);
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.fold(u64::from_le_bytes(word));
        }
    }

    /// A driver reports an event to its owner.
    pub(super) fn event(&mut self, now: u64, shard: u32, event: &Event) {
        self.events += 1;
        if self.print {
            eprintln!("{:>12.6} ms shard {shard}: {}", now as f64 / 1e6, describe(event));
        }
        self.fold(now);
        self.fold(u64::from(shard));
        let conn = super::shard::conn_of(event);
        self.fold(conn.map_or(0, |c| (u64::from(c.slot) << 32) | u64::from(c.generation)));
        match event {
            Event::Accepted { peer, .. } => {
                self.fold(1);
                self.fold(u64::from(peer.port()));
            }
            Event::AcceptFailed { errno, .. } => self.fold(0x200 | errno.0 as u64),
            Event::Connected { result, .. } => {
                self.fold(0x300 | result.err().map_or(0, |errno| errno.0 as u64));
            }
            Event::Received { data, .. } => {
                self.fold(4);
                self.bytes(data);
            }
            Event::Discarded { bytes, .. } => self.fold((5 << 32) | u64::from(*bytes)),
            Event::ReceiveEnded { ended: Ended::Eof, .. } => self.fold(6),
            Event::ReceiveEnded { ended: Ended::Error(errno), .. } => {
                self.fold(0x700 | errno.0 as u64);
            }
            Event::Sent { result: Ok(bytes), .. } => self.fold((8 << 32) | u64::from(*bytes)),
            Event::Sent { result: Err(errno), .. } => self.fold(0x900 | errno.0 as u64),
            Event::Released { copied, .. } => self.fold(0xa00 | u64::from(*copied)),
            Event::Closed { .. } => self.fold(11),
            Event::Woken => self.fold(12),
            // The simulator hands nothing over.
            Event::HandedOver { .. } => self.fold(14),
            Event::Opened { result: Ok(opened), .. } => self.fold((15 << 48) | opened.len),
            Event::Opened { result: Err(errno), .. } => self.fold(0x1000 | errno.0 as u64),
        }
    }

    /// A peer has read bytes.
    pub(super) fn peer(&mut self, now: u64, peer: u32, bytes: &[u8]) {
        self.events += 1;
        if self.print {
            eprintln!("{:>12.6} ms peer {peer}: read {} bytes", now as f64 / 1e6, bytes.len());
        }
        self.fold(now);
        self.fold((13 << 32) | u64::from(peer));
        self.bytes(bytes);
    }
}

/// Like `Debug`, with a byte count in place of the bytes.
fn describe(event: &Event) -> String {
    match event {
        Event::Received { conn, data } => format!("Received {conn:?} {} bytes", data.len()),
        other => format!("{other:?}"),
    }
}
