//! Messages: what a chunk stream carries once it is joined.

use crate::media::Kind;

/// One audio, video or data message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message<'a> {
    /// What `payload` holds.
    pub kind: Kind,
    /// Milliseconds as on the wire, masked to 31 bits. Rollover is the caller's business.
    pub timestamp: u32,
    /// The body, without any header.
    pub payload: &'a [u8],
}

/// Message type ids (RTMP 5.4 and 7.1).
pub mod type_id {
    /// Chunk size of the sender from here on.
    pub const SET_CHUNK_SIZE: u8 = 1;
    /// The rest of a message will not come.
    pub const ABORT: u8 = 2;
    /// Bytes received so far.
    pub const ACK: u8 = 3;
    /// Events of a stream, pings.
    pub const USER_CONTROL: u8 = 4;
    /// The receiver shall acknowledge every so many bytes.
    pub const WINDOW_ACK_SIZE: u8 = 5;
    /// The receiver shall limit what it has unacknowledged.
    pub const SET_PEER_BANDWIDTH: u8 = 6;
    /// Audio.
    pub const AUDIO: u8 = 8;
    /// Video.
    pub const VIDEO: u8 = 9;
    /// Data in AMF3.
    pub const DATA_AMF3: u8 = 15;
    /// A command in AMF3.
    pub const COMMAND_AMF3: u8 = 17;
    /// Data in AMF0.
    pub const DATA_AMF0: u8 = 18;
    /// A command in AMF0.
    pub const COMMAND_AMF0: u8 = 20;
    /// Several messages in one.
    pub const AGGREGATE: u8 = 22;
}

/// Event types of user control messages (RTMP 7.1.7).
pub mod user_control {
    /// The stream can be used.
    pub const STREAM_BEGIN: u16 = 0;
    /// Playback has ended.
    pub const STREAM_EOF: u16 = 1;
    /// Milliseconds that a player buffers.
    pub const SET_BUFFER_LENGTH: u16 = 3;
    /// Asks for a ping response with the same four bytes.
    pub const PING_REQUEST: u16 = 6;
    /// The answer to a ping request.
    pub const PING_RESPONSE: u16 = 7;
}
