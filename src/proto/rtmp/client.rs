//! The client's end of a connection: edge pull, forward, load tests.

use super::error::Error;
use super::message::{Message, MessageKind};
use super::server::PublishKind;

/// What the client wants on the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Send a stream.
    Publish,
    /// Receive a stream.
    Play,
}

/// Which handshake to open with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HandshakeKind {
    /// Without digests.
    Simple,
    /// With digests, schema 1.
    Complex,
}

/// What a client end is told when its connection is made.
#[derive(Debug, Clone)]
pub struct ClientOptions {
    /// URL of the app, sent as it stands.
    pub tc_url: String,
    /// App name.
    pub app: String,
    /// Stream name with its parameters.
    pub stream: String,
    /// Publish or play.
    pub role: Role,
    /// Chunk size in bytes that is announced and used for sending.
    pub chunk_size: u32,
    /// Name and version to go by.
    pub flash_ver: String,
    /// Page to name as the origin of the request.
    pub page_url: Option<String>,
    /// Which handshake to open with.
    pub handshake: HandshakeKind,
    /// Which sequence to publish by.
    pub publish_sequence: PublishKind,
    /// Seed of the handshake's filling.
    pub seed: u64,
}

/// What the server did.
#[derive(Debug, Clone, PartialEq)]
pub enum Event<'a> {
    /// The server takes the stream: messages may be written.
    Publishing,
    /// The server plays: messages follow.
    Playing,
    /// Media, or a data message other than metadata.
    Message(Message<'a>),
    /// Metadata, from the AMF0 string `onMetaData` on.
    Metadata {
        /// Milliseconds as on the wire, masked to 31 bits.
        timestamp: u32,
        /// `onMetaData` and what follows.
        payload: &'a [u8],
    },
    /// A status that changes nothing for this end.
    Status {
        /// `status`, `warning` or `error`.
        level: String,
        /// For example `NetStream.Play.Reset`.
        code: String,
        /// For people.
        description: String,
    },
    /// The server will send no more of the stream (user control StreamEOF).
    StreamEof,
    /// The server wants the client to go elsewhere.
    Redirect {
        /// A full stream URL, or the tcUrl when the server names only that.
        url: String,
    },
    /// The server refuses to connect, publish or play.
    Refused {
        /// For example `NetStream.Publish.BadName`.
        code: String,
        /// For people.
        description: String,
    },
}

/// The client's end of a connection.
#[derive(Debug)]
pub struct Client {
    output: Vec<u8>,
}

impl Client {
    /// Opens: the first bytes are in the output.
    pub fn new(_options: ClientOptions) -> Client {
        Client { output: Vec::new() }
    }

    /// Consumes from `input` up to the next event. `Ok(None)`: all of it is consumed, more is
    /// needed.
    pub fn poll<'a>(&'a mut self, input: &mut &'a [u8]) -> Result<Option<Event<'a>>, Error> {
        *input = &[];
        Ok(None)
    }

    /// Bytes to send; the caller takes them.
    pub fn output(&mut self) -> &mut Vec<u8> {
        &mut self.output
    }

    /// Writes a message into the output. Only after [`Event::Publishing`].
    pub fn write_message(&mut self, _kind: MessageKind, _timestamp: u32, _payload: &[u8]) {}

    /// Writes metadata, which begins at the AMF0 string `onMetaData`, with `@setDataFrame` before.
    pub fn write_metadata(&mut self, _timestamp: u32, _payload: &[u8]) {}

    /// Writes a command on the message stream: name, transaction id 0, null, and `arguments`, which
    /// are encoded AMF0 values.
    pub fn write_command(&mut self, _name: &str, _arguments: &[u8]) {}

    /// Pauses or goes on playing.
    pub fn pause(&mut self, _pause: bool, _position_ms: f64) {}

    /// Stops playing; the connection stays.
    pub fn close_stream(&mut self) {}

    /// Stops publishing; the connection stays.
    pub fn unpublish(&mut self) {}
}
