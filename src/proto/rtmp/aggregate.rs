//! Aggregate messages: several audio and video messages in one (RTMP 7.1.6).

use std::ops::Range;

use super::error::{Error, Malformed};
use super::message::type_id;
use crate::media::Kind;

/// An aggregate message being taken apart (SRS: the timestamps in it count from its first part).
#[derive(Debug)]
pub(super) struct Aggregate {
    /// A copy: the parts are handed out one by one, and the caller's bytes are gone by then.
    pub(super) bytes: Vec<u8>,
    at: usize,
    timestamp: u32,
    /// What to add to the timestamps of the parts.
    delta: Option<u32>,
}

/// One audio or video message of an aggregate.
#[derive(Debug)]
pub(super) struct AggregatePart {
    pub(super) kind: Kind,
    pub(super) timestamp: u32,
    /// Where in the bytes of the aggregate.
    pub(super) payload: Range<usize>,
}

impl Aggregate {
    const HEAD: usize = 11;
    const TAIL: usize = 4;

    pub(super) fn new(bytes: &[u8], timestamp: u32) -> Aggregate {
        Aggregate { bytes: bytes.to_vec(), at: 0, timestamp, delta: None }
    }

    /// The next audio or video message in it; nothing at its end.
    pub(super) fn next(&mut self) -> Result<Option<AggregatePart>, Error> {
        while self.at < self.bytes.len() {
            let rest = &self.bytes[self.at..];
            let head = rest.get(..Self::HEAD).ok_or(Malformed::Aggregate)?;
            let len = u32::from_be_bytes([0, head[1], head[2], head[3]]) as usize;
            // The high byte of the timestamp comes last, as in FLV tags.
            let time = u32::from_be_bytes([head[7], head[4], head[5], head[6]]);
            if rest.len() < Self::HEAD + len + Self::TAIL {
                return Err(Malformed::Aggregate.into());
            }
            let start = self.at + Self::HEAD;
            self.at = start + len + Self::TAIL;
            let delta = *self.delta.get_or_insert(self.timestamp.wrapping_sub(time));
            let kind = match head[0] {
                type_id::AUDIO => Kind::Audio,
                type_id::VIDEO => Kind::Video,
                _ => continue,
            };
            if len > 0 {
                let timestamp = time.wrapping_add(delta) & 0x7FFF_FFFF;
                let payload = start..start + len;
                return Ok(Some(AggregatePart { kind, timestamp, payload }));
            }
        }
        Ok(None)
    }
}
