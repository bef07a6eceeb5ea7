//! Why an RTMP connection has to end, sorted by whose fault it is.

use crate::proto::amf0;

/// An error ends the connection it came from; RTMP offers no way to resynchronise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Bytes that cannot be read as what they claim to be.
    #[error("malformed: {0}")]
    Malformed(#[from] Malformed),
    /// Readable bytes that the protocol forbids at this place.
    #[error("peer misbehaved: {0}")]
    Misbehaved(#[from] Misbehaved),
    /// Legal, but not spoken here.
    #[error("unsupported: {0}")]
    Unsupported(#[from] Unsupported),
    /// A bound of [`crate::limits`] was met.
    #[error("over a limit: {0}")]
    Limit(#[from] Limit),
}

/// Bytes that cannot be read as what they claim to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// AMF0 in a command.
    #[error("command: {0}")]
    Command(amf0::Error),
    /// AMF0 in a data message.
    #[error("metadata: {0}")]
    Metadata(amf0::Error),
    /// A protocol control message shorter than its fields.
    #[error("control message of type {0} is too short")]
    Control(u8),
    /// An aggregate message whose parts do not fit.
    #[error("aggregate message is cut short")]
    Aggregate,
}

/// Readable bytes that the protocol forbids at this place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Misbehaved {
    /// A chunk stream began with a header that refers to an earlier one.
    #[error("chunk stream {0} begins with a chunk of type {1}")]
    FirstChunk(u32, u8),
    /// A new message began inside an unfinished one of the same chunk stream.
    #[error("a new message inside an unfinished one on chunk stream {0}")]
    Interrupted(u32),
    /// The length of a message changed between its chunks.
    #[error("message length changed from {1} to {2} on chunk stream {0}")]
    LengthChanged(u32, u32, u32),
    /// SetChunkSize outside of the accepted range.
    #[error("chunk size of {0} bytes")]
    ChunkSize(u32),
    /// `connect` without a tcUrl.
    #[error("connect without tcUrl")]
    NoTcUrl,
    /// A server answered the handshake with another version.
    #[error("handshake version {0} from a server")]
    ServerVersion(u8),
}

/// Legal, but not spoken here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unsupported {
    /// The first byte is no RTMP version that can be served; often another protocol.
    #[error("handshake version {0}")]
    Version(u8),
}

/// A bound of [`crate::limits`] was met.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Limit {
    /// RTMP proxy prefix.
    #[error("proxy prefix of {0} bytes")]
    ProxyPrefix(u16),
    /// Chunk streams of one connection.
    #[error("too many chunk streams")]
    ChunkStreams,
    /// Unfinished messages of one connection.
    #[error("too many bytes in unfinished messages")]
    Partial,
    /// A command, control or data message; type id and length.
    #[error("message of type {0} with {1} bytes")]
    Message(u8, u32),
    /// A string of a command that would be kept.
    #[error("string of {0} bytes in a command")]
    String(usize),
    /// createStream without end.
    #[error("too many createStream calls")]
    CreateStream,
    /// Replies that the peer does not read.
    #[error("too many unread replies")]
    Replies,
}

impl Error {
    /// The label of the error in counters.
    pub fn reason(&self) -> &'static str {
        match self {
            Error::Malformed(Malformed::Command(_)) => "malformed_command",
            Error::Malformed(Malformed::Metadata(_)) => "malformed_metadata",
            Error::Malformed(Malformed::Control(_)) => "malformed_control",
            Error::Malformed(Malformed::Aggregate) => "malformed_aggregate",
            Error::Misbehaved(Misbehaved::FirstChunk(..)) => "misbehaved_first_chunk",
            Error::Misbehaved(Misbehaved::Interrupted(_)) => "misbehaved_interrupted",
            Error::Misbehaved(Misbehaved::LengthChanged(..)) => "misbehaved_length_changed",
            Error::Misbehaved(Misbehaved::ChunkSize(_)) => "misbehaved_chunk_size",
            Error::Misbehaved(Misbehaved::NoTcUrl) => "misbehaved_no_tc_url",
            Error::Misbehaved(Misbehaved::ServerVersion(_)) => "misbehaved_server_version",
            Error::Unsupported(Unsupported::Version(_)) => "unsupported_version",
            Error::Limit(Limit::ProxyPrefix(_)) => "limit_proxy_prefix",
            Error::Limit(Limit::ChunkStreams) => "limit_chunk_streams",
            Error::Limit(Limit::Partial) => "limit_partial",
            Error::Limit(Limit::Message(..)) => "limit_message",
            Error::Limit(Limit::String(_)) => "limit_string",
            Error::Limit(Limit::CreateStream) => "limit_create_stream",
            Error::Limit(Limit::Replies) => "limit_replies",
        }
    }
}
