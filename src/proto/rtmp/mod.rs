//! RTMP: handshake, chunk streams, commands, and the two ends that speak them.
//!
//! A connection opens with a handshake of fixed size. After it both sides send messages, cut into
//! chunks that carry a chunk stream id, so that a large video message does not hold up audio.
//! Commands (AMF0) ask for a connection, a message stream, and then to publish or to play on it;
//! from there on audio, video and data messages flow with 32-bit millisecond timestamps.
//!
//! [`server::Server`] and [`client::Client`] are the two ends. Both keep the contract of
//! [`crate::proto`]: `poll` eats received bytes up to the next event, `output` holds the bytes to
//! send. They hold no media: an event borrows its payload from the caller's bytes where it can.

mod aggregate;
pub mod chunk;
pub mod client;
mod command;
mod error;
mod handshake;
mod joiner;
mod link;
pub mod message;
pub mod metadata;
mod reply;
pub mod server;
#[cfg(test)]
mod tests;
pub mod url;

pub use error::{Error, Limit, Malformed, Misbehaved, Unsupported};
pub use message::Message;

/// Chunk stream ids that this end writes on; the same for server and client.
pub mod csid {
    /// Protocol control and user control.
    pub const CONTROL: u8 = 2;
    /// Calls and their results.
    pub const COMMAND: u8 = 3;
    /// Metadata.
    pub const DATA: u8 = 4;
    /// Commands about a message stream (`publish`, `play`, `onStatus`).
    pub const STREAM: u8 = 5;
    /// Video.
    pub const VIDEO: u8 = 6;
    /// Audio.
    pub const AUDIO: u8 = 7;

    /// The one for media of a kind.
    pub const fn of(kind: crate::media::Kind) -> u8 {
        match kind {
            crate::media::Kind::Audio => AUDIO,
            crate::media::Kind::Video => VIDEO,
            crate::media::Kind::Data => DATA,
        }
    }
}

/// The message stream that every createStream of the server answers with.
pub const MESSAGE_STREAM_ID: u32 = 1;
