//! What both ends of a connection do alike after the handshake: chunks, acknowledgements, pings.

use super::chunk::{self, CHUNK_SIZE_INITIAL, Joined, Joiner, Payload};
use super::error::{Error, Malformed, Misbehaved};
use super::message::{type_id, user_control};
use crate::limits::{CHUNK_SIZE_MAX, RTMP_REPLIES_MAX};

/// The state of both directions.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) joiner: Joiner,
    pub(super) output: Vec<u8>,
    /// Chunk size in bytes that this end sends with.
    chunk_size: u32,
    /// Smallest chunk size in bytes that the peer may set.
    peer_chunk_size_min: u32,
    ack_window: u32,
    received: u64,
    acknowledged: u64,
    sequence: u32,
}

/// An acknowledgement beyond this begins anew (SRS: the same).
const SEQUENCE_MAX: u32 = 0xF000_0000;

impl Link {
    pub(super) fn new(peer_chunk_size_min: u32, ack_window: u32) -> Link {
        Link {
            joiner: Joiner::new(),
            output: Vec::new(),
            chunk_size: CHUNK_SIZE_INITIAL,
            peer_chunk_size_min,
            ack_window,
            received: 0,
            acknowledged: 0,
            sequence: 0,
        }
    }

    /// Counts bytes that came before the first chunk: acknowledgements cover the handshake.
    pub(super) fn count(&mut self, bytes: usize) {
        self.received += bytes as u64;
    }

    /// The next message that is not for the link itself.
    pub(super) fn next<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<Joined<'a>>, Error> {
        loop {
            let before = input.len();
            let joined = self.joiner.next(input)?;
            self.received += (before - input.len()) as u64;
            self.acknowledge();
            match joined {
                None => return Ok(None),
                Some(joined) if joined.type_id <= type_id::SET_PEER_BANDWIDTH => {
                    if !self.control(&joined)? {
                        return Ok(Some(joined));
                    }
                }
                Some(joined) => return Ok(Some(joined)),
            }
        }
    }

    /// The content of a message that [`Link::next`] has just returned.
    pub(super) fn payload<'a>(&'a self, payload: Payload<'a>) -> &'a [u8] {
        match payload {
            Payload::Borrowed(bytes) => bytes,
            Payload::Assembled => self.joiner.assembled(),
        }
    }

    /// Chunk size in bytes that this end sends with.
    pub(super) fn chunk_size(&self) -> u32 {
        self.chunk_size
    }

    /// Announces the chunk size and sends by it from here on.
    pub(super) fn set_chunk_size(&mut self, chunk_size: u32) {
        chunk::write_set_chunk_size(&mut self.output, chunk_size);
        self.chunk_size = chunk_size;
    }

    /// Acknowledges by this window in bytes until the peer asks for another.
    pub(super) fn set_ack_window(&mut self, window: u32) {
        self.ack_window = window;
    }

    /// Asks the peer to acknowledge every so many bytes.
    pub(super) fn write_window(&mut self, window: u32) {
        chunk::write_control(&mut self.output, type_id::WINDOW_ACK_SIZE, &window.to_be_bytes());
    }

    pub(super) fn write(&mut self, csid: u8, type_id: u8, msid: u32, time: u32, payload: &[u8]) {
        let out = &mut self.output;
        chunk::write_message(out, self.chunk_size, csid, type_id, time, msid, payload);
    }

    pub(super) fn write_user_control(&mut self, event: u16, fields: &[u8]) {
        let mut payload = [0; 10];
        payload[..2].copy_from_slice(&event.to_be_bytes());
        payload[2..2 + fields.len()].copy_from_slice(fields);
        let payload = &payload[..2 + fields.len()];
        chunk::write_control(&mut self.output, type_id::USER_CONTROL, payload);
    }

    /// Whether more replies may be queued for a peer that perhaps does not read them.
    fn has_room(&self) -> bool {
        self.output.len() <= RTMP_REPLIES_MAX
    }

    /// Handles a control message; false when it is for the caller.
    fn control(&mut self, joined: &Joined<'_>) -> Result<bool, Error> {
        let payload = self.payload(joined.payload);
        let short = Malformed::Control(joined.type_id);
        let first = payload.first_chunk::<4>().map(|bytes| u32::from_be_bytes(*bytes));
        match joined.type_id {
            type_id::SET_CHUNK_SIZE => {
                let chunk_size = first.ok_or(short)?;
                if !(self.peer_chunk_size_min..=CHUNK_SIZE_MAX).contains(&chunk_size) {
                    return Err(Misbehaved::ChunkSize(chunk_size).into());
                }
                self.joiner.set_chunk_size(chunk_size);
            }
            type_id::ABORT => self.joiner.abort(first.ok_or(short)?),
            type_id::WINDOW_ACK_SIZE => {
                let window = first.ok_or(short)?;
                if window > 0 {
                    self.ack_window = window;
                }
            }
            type_id::USER_CONTROL => {
                let (event, fields) = payload.split_first_chunk::<2>().ok_or(short)?;
                if u16::from_be_bytes(*event) != user_control::PING_REQUEST {
                    return Ok(false);
                }
                let fields = *fields.first_chunk::<4>().ok_or(short)?;
                if self.has_room() {
                    self.write_user_control(user_control::PING_RESPONSE, &fields);
                }
            }
            // Acknowledgements and SetPeerBandwidth say nothing that TCP does not know.
            _ => {}
        }
        Ok(true)
    }

    /// SRS: at half of the window; the number sent is the sum of what was acknowledged, and begins
    /// anew before it could overflow.
    fn acknowledge(&mut self) {
        let delta = self.received - self.acknowledged;
        if self.ack_window == 0 || delta < u64::from(self.ack_window / 2).max(1) || !self.has_room()
        {
            return;
        }
        self.acknowledged = self.received;
        let delta = u32::try_from(delta).unwrap_or(u32::MAX);
        self.sequence = match self.sequence.checked_add(delta) {
            Some(sequence) if sequence <= SEQUENCE_MAX => sequence,
            _ => delta,
        };
        chunk::write_control(&mut self.output, type_id::ACK, &self.sequence.to_be_bytes());
    }
}
