//! The server's end of a connection.

use std::net::{IpAddr, Ipv4Addr};

use super::error::Error;
use super::message::Message;
use crate::proto::amf0::Object;

/// What a server end is told when its connection is accepted.
#[derive(Debug, Clone)]
pub struct ServerOptions {
    /// Chunk size in bytes that is announced and used for sending.
    pub chunk_size: u32,
    /// The window that the peer is asked to acknowledge by, in bytes; 0 asks for nothing.
    pub out_ack_size: u32,
    /// Acknowledge by this window in bytes until the peer asks for another; 0 waits for the peer.
    pub in_ack_size: u32,
    /// Local address of the connection, told to the client.
    pub server_ip: IpAddr,
    /// Id of the session, told to the client.
    pub session_id: String,
    /// Process id, told to the client.
    pub pid: u32,
    /// Milliseconds of any clock, for the handshake.
    pub epoch_ms: u32,
    /// Seed of the handshake's filling.
    pub seed: u64,
}

/// What a client said with `connect`.
#[derive(Debug, Clone, PartialEq)]
pub struct Connect {
    /// The URL of the app; with parameters as the client wrote it.
    pub tc_url: String,
    /// The page that holds the player, where there is one.
    pub page_url: Option<String>,
    /// The player itself, where it is a file.
    pub swf_url: Option<String>,
    /// Name and version of the client.
    pub flash_ver: Option<String>,
    /// 0 for AMF0, 3 for AMF3.
    pub object_encoding: f64,
    /// The argument after the command object; edges say who they are with it.
    pub args: Option<Object>,
}

/// How a publisher introduces itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PublishKind {
    /// releaseStream, FCPublish, createStream, publish.
    Fmle,
    /// createStream, publish.
    Flash,
    /// createStream, FCPublish, publish.
    Haivision,
}

/// A client asks to publish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublishRequest {
    /// Stream name as sent, with its parameters.
    pub stream: String,
    /// The sequence of commands it used.
    pub kind: PublishKind,
}

/// A client asks to play.
#[derive(Debug, Clone, PartialEq)]
pub struct PlayRequest {
    /// Stream name as sent, with its parameters.
    pub stream: String,
    /// Where to start; live streams have no choice and ignore it.
    pub start: f64,
    /// Milliseconds of media after which the player wants to be closed.
    pub duration_ms: Option<f64>,
    /// Whether earlier plays of a playlist end; ignored.
    pub reset: bool,
}

/// What a client did.
#[derive(Debug, Clone, PartialEq)]
pub enum Event<'a> {
    /// It connected; the reply is queued.
    Connect(&'a Connect),
    /// It asks to publish: call [`Server::accept_publish`] or close.
    Publish(PublishRequest),
    /// It asks to play: call [`Server::accept_play`] or close.
    Play(PlayRequest),
    /// Media of a publisher; aggregates are split, data messages come as `Metadata`.
    Message(Message<'a>),
    /// Metadata of a publisher, from the AMF0 string `onMetaData` on.
    Metadata {
        /// Milliseconds as on the wire, masked to 31 bits.
        timestamp: u32,
        /// `onMetaData` and what follows.
        payload: &'a [u8],
    },
    /// The publisher stopped; replies are queued. It may publish or play next.
    Unpublish,
    /// The player pauses (true) or goes on (false); replies are queued.
    Pause(bool),
    /// The player stopped. It may play or publish next.
    CloseStream,
}

/// The server's end of a connection.
#[derive(Debug)]
pub struct Server {
    output: Vec<u8>,
    connect: Option<Connect>,
}

impl Server {
    /// Waits for a handshake.
    pub fn new(_options: ServerOptions) -> Server {
        Server { output: Vec::new(), connect: None }
    }

    /// Consumes from `input` up to the next event. `Ok(None)`: all of it is consumed, more is
    /// needed.
    pub fn poll<'a>(&'a mut self, input: &mut &'a [u8]) -> Result<Option<Event<'a>>, Error> {
        *input = &[];
        Ok(None)
    }

    /// Bytes to send; the caller takes them. While playing they may only be sent between messages.
    pub fn output(&mut self) -> &mut Vec<u8> {
        &mut self.output
    }

    /// Tells the client that it publishes. Only after [`Event::Publish`].
    pub fn accept_publish(&mut self) {}

    /// Tells the client that it plays. Only after [`Event::Play`].
    pub fn accept_play(&mut self) {}

    /// What the client said with `connect`.
    pub fn connect(&self) -> Option<&Connect> {
        self.connect.as_ref()
    }

    /// The client's address as a proxy in front states it; for logs only, since anyone may claim it.
    pub fn proxied_ip(&self) -> Option<Ipv4Addr> {
        None
    }
}
