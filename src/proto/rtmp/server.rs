//! The server's end of a connection.
//!
//! ```text
//!   handshake -> connect -> identify <-------------------------------+
//!                             |  publish             play            |
//!                             v                        v             |
//!                           asked: the caller accepts or closes      |
//!                             v                        v             |
//!                         publishing               playing           |
//!                             |  FCUnpublish           | closeStream |
//!                             +------------------------+-------------+
//! ```
//!
//! Whether a stream may be published or played is not known
//! here, nor is any error sent for it: the caller closes.

use std::net::{IpAddr, Ipv4Addr};

use super::MESSAGE_STREAM_ID;
use super::aggregate::{Aggregate, AggregatePart};
use super::chunk::Payload;
use super::command::{self, Call, CallKind};
use super::error::{Error, Limit};
use super::handshake::ServerHandshake;
use super::link::Link;
use super::message::{Message, type_id, user_control};
use super::metadata;
use crate::limits::{CHUNK_SIZE_MIN, RTMP_CREATE_STREAMS_MAX, RTMP_REPLIES_MAX};
use crate::media::Kind;
use crate::proto::amf0::{Object, Reader};

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
    /// What it said of enhanced RTMP.
    pub enhanced: Enhanced,
}

/// Which properties of enhanced RTMP a client's `connect` had (E-RTMP v2, "Enhancing NetConnection
/// connect Command"). Which codecs it names is of no use here: what is published is passed on as it
/// is, to players that know it and those that do not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Enhanced {
    /// `fourCcList`, the form of v1.
    pub fourcc_list: bool,
    /// `videoFourCcInfoMap` or `audioFourCcInfoMap`, the form of v2.
    pub info_maps: bool,
    /// `capsEx`, a set of flags.
    pub caps_ex: Option<u32>,
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
    /// Gone when `connect` was answered.
    options: Option<Box<ServerOptions>>,
    in_ack_size: u32,
    out_ack_size: u32,
    /// Gone when it is over.
    handshake: Option<Box<ServerHandshake>>,
    pub(super) link: Link,
    state: State,
    connect: Option<Box<Connect>>,
    proxied_ip: Option<Ipv4Addr>,
    buffer_ms: Option<u32>,
    /// There while one is being taken apart.
    aggregate: Option<Box<Aggregate>>,
}

#[derive(Debug)]
enum State {
    /// Nothing but `connect` counts.
    Connect,
    /// It has to become clear what the client wants.
    Identify(Box<Identify>),
    /// The caller has to accept or to close.
    Asked(Asked),
    Publishing(PublishKind),
    Playing,
}

#[derive(Debug, Clone, Copy)]
enum Asked {
    Publish(PublishKind),
    Play,
}

/// What has been said since `connect` or since the last stream ended.
#[derive(Debug, Default)]
struct Identify {
    /// Fmle or Haivision, once releaseStream or FCPublish has come.
    kind: Option<PublishKind>,
    /// The name that came with it, which counts more than the one of `publish`.
    stream: Option<String>,
    create_streams: u32,
}

/// What a message means, without its content.
enum Step {
    Connect,
    Publish(PublishRequest),
    Play(PlayRequest),
    Media(Kind),
    /// The name `onMetaData` begins at this byte.
    Metadata(usize),
    Unpublish,
    Pause(bool),
    CloseStream,
}

impl Server {
    /// Waits for a handshake.
    pub fn new(options: ServerOptions) -> Server {
        let handshake = ServerHandshake::new(options.epoch_ms, options.seed);
        let mut link = Link::new(CHUNK_SIZE_MIN, options.in_ack_size);
        link.joiner.set_keep_media(false);
        Server {
            handshake: Some(Box::new(handshake)),
            link,
            state: State::Connect,
            connect: None,
            proxied_ip: None,
            buffer_ms: None,
            aggregate: None,
            in_ack_size: options.in_ack_size,
            out_ack_size: options.out_ack_size,
            options: Some(Box::new(options)),
        }
    }

    /// Consumes from `input` up to the next event. `Ok(None)`: all of it is consumed, more is
    /// needed. After [`Event::Publish`] and [`Event::Play`] nothing is consumed until the caller
    /// has accepted.
    ///
    /// # Errors
    /// Any error ends the connection; nothing more may be polled.
    pub fn poll<'a, 'i: 'a>(
        &'a mut self,
        input: &mut &'i [u8],
    ) -> Result<Option<Event<'a>>, Error> {
        if let State::Asked(_) = self.state {
            debug_assert!(false, "accept or close comes before the next poll");
            return Ok(None);
        }
        if self.handshake.is_some() && !self.shake_hands(input)? {
            return Ok(None);
        }
        loop {
            if let Some(part) = self.next_part()? {
                let bytes = self.aggregate.as_ref().map_or(&[][..], |aggregate| &aggregate.bytes);
                let payload = &bytes[part.payload];
                let message = Message { kind: part.kind, timestamp: part.timestamp, payload };
                return Ok(Some(Event::Message(message)));
            }
            let Some(joined) = self.link.next(input)? else { return Ok(None) };
            let media = match joined.type_id {
                // A player's or newcomer's media was not even stored.
                type_id::AUDIO => Some(Step::Media(Kind::Audio)),
                type_id::VIDEO => Some(Step::Media(Kind::Video)),
                type_id::DATA_AMF0 | type_id::DATA_AMF3 => {
                    metadata::find(joined.type_id, self.link.payload(joined.payload))
                        .map(Step::Metadata)
                }
                type_id::AGGREGATE => {
                    let bytes = self.link.payload(joined.payload);
                    self.aggregate = Some(Box::new(Aggregate::new(bytes, joined.timestamp)));
                    continue;
                }
                type_id::COMMAND_AMF0 | type_id::COMMAND_AMF3 => {
                    let payload = self.link.payload(joined.payload);
                    let call = self.decode(command::amf0_of(joined.type_id, payload))?;
                    let step = self.command(call)?;
                    if self.link.output.len() > RTMP_REPLIES_MAX {
                        return Err(Limit::Replies.into());
                    }
                    step
                }
                type_id::USER_CONTROL => {
                    self.user_control(joined.payload);
                    None
                }
                // Shared objects and what else there may be.
                _ => None,
            };
            let timestamp = joined.timestamp;
            return Ok(Some(match media {
                None => continue,
                Some(Step::Media(kind)) => {
                    let payload = self.link.payload(joined.payload);
                    Event::Message(Message { kind, timestamp, payload })
                }
                Some(Step::Metadata(start)) => {
                    let payload = &self.link.payload(joined.payload)[start..];
                    Event::Metadata { timestamp, payload }
                }
                Some(Step::Connect) => match &self.connect {
                    Some(connect) => Event::Connect(connect),
                    None => return Ok(None),
                },
                Some(Step::Publish(request)) => Event::Publish(request),
                Some(Step::Play(request)) => Event::Play(request),
                Some(Step::Unpublish) => Event::Unpublish,
                Some(Step::Pause(pause)) => Event::Pause(pause),
                Some(Step::CloseStream) => Event::CloseStream,
            }));
        }
    }

    /// Bytes to send; the caller takes them. While playing they may only be sent between messages.
    pub fn output(&mut self) -> &mut Vec<u8> {
        &mut self.link.output
    }

    /// Tells the client that it publishes. Only after [`Event::Publish`].
    pub fn accept_publish(&mut self) {
        let State::Asked(Asked::Publish(kind)) = self.state else {
            debug_assert!(false, "nobody asked to publish");
            return;
        };
        self.state = State::Publishing(kind);
        self.link.joiner.set_keep_media(true);
        self.on_status("NetStream.Publish.Start", "Started publishing stream.", true);
    }

    /// Tells the client that it plays. Only after [`Event::Play`].
    pub fn accept_play(&mut self) {
        let State::Asked(Asked::Play) = self.state else {
            debug_assert!(false, "nobody asked to play");
            return;
        };
        self.state = State::Playing;
        self.play_started();
    }

    /// Sends in chunks of that many bytes from here on, and says so when that is new. What plays a
    /// stream has to use the chunk size that the stream's log is written in.
    pub fn use_chunk_size(&mut self, bytes: u32) {
        if self.link.chunk_size() != bytes {
            self.link.set_chunk_size(bytes);
        }
    }

    /// Acknowledges by the window `in_ack_size` until the peer asks for another, and asks the peer
    /// to acknowledge by `out_ack_size`, when these differ from what the connection began with.
    pub fn use_windows(&mut self, in_ack_size: u32, out_ack_size: u32) {
        if self.in_ack_size != in_ack_size {
            self.in_ack_size = in_ack_size;
            self.link.set_ack_window(in_ack_size);
        }
        if self.out_ack_size != out_ack_size {
            self.out_ack_size = out_ack_size;
            if out_ack_size > 0 {
                self.link.write_window(out_ack_size);
            }
        }
    }

    /// Sends the client elsewhere (SRS: RTMP 302) instead of accepting; then wait a moment for it
    /// to go, and close. `url` names the stream, `tc_url` its app.
    pub fn redirect(&mut self, url: &str, tc_url: &str) {
        self.rejected(url, tc_url);
    }

    /// What the client said with `connect`.
    pub fn connect(&self) -> Option<&Connect> {
        self.connect.as_deref()
    }

    /// The client's address as a proxy in front states it; for logs only, since anyone may claim
    /// it.
    pub fn proxied_ip(&self) -> Option<Ipv4Addr> {
        self.proxied_ip
    }

    /// Milliseconds that the player says it buffers.
    pub fn buffer_ms(&self) -> Option<u32> {
        self.buffer_ms
    }

    /// Whether the handshake is over.
    pub fn shaken_hands(&self) -> bool {
        self.handshake.is_none()
    }

    fn next_part(&mut self) -> Result<Option<AggregatePart>, Error> {
        let Some(aggregate) = &mut self.aggregate else { return Ok(None) };
        let part = aggregate.next()?;
        if part.is_none() {
            self.aggregate = None;
        }
        Ok(part)
    }

    fn shake_hands(&mut self, input: &mut &[u8]) -> Result<bool, Error> {
        let Some(handshake) = &mut self.handshake else { return Ok(true) };
        let before = input.len();
        let done = handshake.step(input, &mut self.link.output)?;
        self.link.count(before - input.len());
        if done {
            self.proxied_ip = handshake.proxied_ip;
            self.handshake = None;
        }
        Ok(done)
    }

    /// Before `connect` no other command can be in the way, readable or not.
    fn decode(&self, payload: &[u8]) -> Result<Call, Error> {
        match (command::decode_call(payload), &self.state) {
            (Err(Error::Malformed(_)), State::Connect) if !is_connect(payload) => {
                Ok(Call { tid: 0.0, kind: CallKind::Other })
            }
            (call, _) => call,
        }
    }

    fn command(&mut self, call: Call) -> Result<Option<Step>, Error> {
        match self.state {
            State::Connect => Ok(self.connecting(call)),
            State::Identify(_) => self.identify(call),
            State::Publishing(kind) => self.publishing(kind, call),
            State::Playing => Ok(self.playing(&call)),
            State::Asked(_) => Ok(None),
        }
    }

    fn connecting(&mut self, call: Call) -> Option<Step> {
        let CallKind::Connect(connect) = call.kind else { return None };
        let options = self.options.take()?;
        self.reply_to_connect(&options, &connect);
        self.connect = Some(connect);
        self.state = State::Identify(Box::default());
        Some(Step::Connect)
    }

    fn identify(&mut self, call: Call) -> Result<Option<Step>, Error> {
        let tid = call.tid;
        let State::Identify(identify) = &mut self.state else { return Ok(None) };
        match call.kind {
            CallKind::CreateStream => {
                identify.create_streams += 1;
                if identify.create_streams > RTMP_CREATE_STREAMS_MAX {
                    return Err(Limit::CreateStream.into());
                }
                self.created(tid);
            }
            CallKind::ReleaseStream(stream) | CallKind::FcPublish(stream) => {
                identify.introduce(stream);
                self.result_undefined(tid, 0);
            }
            CallKind::FcUnpublish => self.result_undefined(tid, 0),
            CallKind::Publish(stream) => {
                let kind = identify.kind.unwrap_or(PublishKind::Flash);
                let stream = identify.stream.take().unwrap_or(stream);
                if kind != PublishKind::Flash {
                    self.fc_event(
                        "onFCPublish",
                        "NetStream.Publish.Start",
                        "Started publishing stream.",
                    );
                }
                self.state = State::Asked(Asked::Publish(kind));
                return Ok(Some(Step::Publish(PublishRequest { stream, kind })));
            }
            CallKind::Play(request) => {
                self.state = State::Asked(Asked::Play);
                return Ok(Some(Step::Play(request)));
            }
            CallKind::CloseStream | CallKind::DeleteStream => {
                // A client that tidies up before it begins anew has not called in a row.
                identify.create_streams = 0;
                self.result_null(tid);
            }
            CallKind::Connect(_) | CallKind::Pause(_) | CallKind::Other => self.result_null(tid),
        }
        Ok(None)
    }

    fn publishing(&mut self, kind: PublishKind, call: Call) -> Result<Option<Step>, Error> {
        let tid = call.tid;
        if kind == PublishKind::Flash {
            // SRS: any command ends the publish, but for those with which FMLE begins one.
            match call.kind {
                CallKind::ReleaseStream(_) | CallKind::FcPublish(_) => return Ok(None),
                _ => {}
            }
            self.identify_anew();
            match call.kind {
                CallKind::CreateStream => {
                    return self.identify(call).map(|_| Some(Step::Unpublish));
                }
                CallKind::FcUnpublish => self.result_undefined(tid, 0),
                CallKind::Other if tid > 0.0 => self.result_null(tid),
                _ => {}
            }
            return Ok(Some(Step::Unpublish));
        }
        let begins_anew = match call.kind {
            CallKind::ReleaseStream(stream) | CallKind::FcPublish(stream) => Some(stream),
            CallKind::FcUnpublish => None,
            _ => return Ok(None),
        };
        self.fc_event("onFCUnpublish", "NetStream.Unpublish.Success", "Stop publishing stream.");
        self.result_undefined(tid, MESSAGE_STREAM_ID);
        self.on_status("NetStream.Unpublish.Success", "Stream is now unpublished", true);
        self.identify_anew();
        if let (State::Identify(identify), Some(stream)) = (&mut self.state, begins_anew) {
            identify.introduce(stream);
        }
        Ok(Some(Step::Unpublish))
    }

    fn playing(&mut self, call: &Call) -> Option<Step> {
        match call.kind {
            CallKind::CloseStream => {
                self.identify_anew();
                return Some(Step::CloseStream);
            }
            CallKind::Pause(true) => {
                self.on_status("NetStream.Pause.Notify", "Paused stream.", false);
                self.stream_control(user_control::STREAM_EOF);
                return Some(Step::Pause(true));
            }
            CallKind::Pause(false) => {
                self.on_status("NetStream.Unpause.Notify", "Unpaused stream.", false);
                self.stream_control(user_control::STREAM_BEGIN);
                return Some(Step::Pause(false));
            }
            CallKind::CreateStream => self.created(call.tid),
            CallKind::Play(_) | CallKind::Publish(_) => {}
            _ if call.tid > 0.0 => self.result_null(call.tid),
            _ => {}
        }
        None
    }

    fn identify_anew(&mut self) {
        self.state = State::Identify(Box::default());
        self.link.joiner.set_keep_media(false);
        self.aggregate = None;
    }

    fn user_control(&mut self, payload: Payload<'_>) {
        let payload = self.link.payload(payload);
        if let Some(fields) = payload.strip_prefix(&user_control::SET_BUFFER_LENGTH.to_be_bytes())
            && let Some(ms) = fields.get(4..8).and_then(|bytes| bytes.first_chunk::<4>())
        {
            self.buffer_ms = Some(u32::from_be_bytes(*ms));
        }
    }
}

impl Identify {
    /// releaseStream or FCPublish: which of them, and whether a stream was created before, tells
    /// encoders apart.
    fn introduce(&mut self, stream: String) {
        let kind = if self.create_streams > 0 { PublishKind::Haivision } else { PublishKind::Fmle };
        self.kind.get_or_insert(kind);
        if self.stream.is_none() && !stream.is_empty() {
            self.stream = Some(stream);
        }
    }
}

fn is_connect(payload: &[u8]) -> bool {
    Reader::new(payload).raw_string() == Ok(b"connect")
}
