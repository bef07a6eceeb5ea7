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
//! The replies follow what SRS sends, in its order and on its chunk streams, because encoders have
//! been made to work with exactly that. Whether a stream may be published or played is not known
//! here, nor is any error sent for it: the caller closes.

use std::net::{IpAddr, Ipv4Addr};
use std::ops::Range;

use super::chunk::{Payload, write_control};
use super::command::{self, Builder, Call, CallKind};
use super::error::{Error, Limit, Malformed};
use super::handshake::ServerHandshake;
use super::link::Link;
use super::message::{Message, MessageKind, type_id, user_control};
use super::metadata;
use super::{MESSAGE_STREAM_ID, csid};
use crate::limits::{CHUNK_SIZE_MIN, RTMP_CREATE_STREAMS_MAX, RTMP_REPLIES_MAX};
use crate::proto::amf0::{Object, put};

/// The version of the server software that Flash clients know.
macro_rules! fms_version {
    () => {
        "3,5,3,888"
    };
}

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
    options: ServerOptions,
    /// Gone when it is over.
    handshake: Option<Box<ServerHandshake>>,
    link: Link,
    state: State,
    connect: Option<Box<Connect>>,
    proxied_ip: Option<Ipv4Addr>,
    buffer_ms: Option<u32>,
    aggregate: Aggregate,
}

#[derive(Debug)]
enum State {
    /// Nothing but `connect` counts.
    Connect,
    /// It has to become clear what the client wants.
    Identify(Identify),
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
    Media(MessageKind),
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
            aggregate: Aggregate::default(),
            options,
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
            if let Some(part) = self.aggregate.next()? {
                let payload = &self.aggregate.bytes[part.payload];
                let message = Message { kind: part.kind, timestamp: part.timestamp, payload };
                return Ok(Some(Event::Message(message)));
            }
            let Some(joined) = self.link.next(input)? else { return Ok(None) };
            let media = match joined.type_id {
                // A player's or newcomer's media was not even stored.
                type_id::AUDIO => Some(Step::Media(MessageKind::Audio)),
                type_id::VIDEO => Some(Step::Media(MessageKind::Video)),
                type_id::DATA_AMF0 | type_id::DATA_AMF3 => {
                    find_metadata(joined.type_id, self.link.payload(joined.payload))
                        .map(Step::Metadata)
                }
                type_id::AGGREGATE => {
                    let bytes = self.link.payload(joined.payload);
                    self.aggregate.start(bytes, joined.timestamp);
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
        self.stream_control(user_control::STREAM_BEGIN);
        for (code, description) in [
            ("NetStream.Play.Reset", "Playing and resetting stream."),
            ("NetStream.Play.Start", "Started playing stream."),
        ] {
            let status = Builder::new("onStatus", 0.0).null().texts(&[
                ("level", "status"),
                ("code", code),
                ("description", description),
                ("details", "stream"),
                ("clientid", CLIENT_ID),
            ]);
            self.command_out(csid::STREAM, MESSAGE_STREAM_ID, &status);
        }
        let mut access = Vec::new();
        put::string(&mut access, "|RtmpSampleAccess");
        put::boolean(&mut access, true);
        put::boolean(&mut access, true);
        self.link.write(csid::STREAM, type_id::DATA_AMF0, MESSAGE_STREAM_ID, 0, &access);
    }

    /// Sends the client elsewhere (SRS: RTMP 302) instead of accepting; then wait a moment for it
    /// to go, and close. `url` names the stream, `tc_url` its app.
    pub fn redirect(&mut self, url: &str, tc_url: &str) {
        let mut ex = Vec::new();
        put::object(&mut ex);
        for (key, text) in [
            ("level", "error"),
            ("code", "NetConnection.Connect.Rejected"),
            ("description", "RTMP 302 Redirect"),
        ] {
            put::key(&mut ex, key);
            put::string(&mut ex, text);
        }
        put::key(&mut ex, "ex");
        put::object(&mut ex);
        put::key(&mut ex, "code");
        put::number(&mut ex, 302.0);
        put::key(&mut ex, "redirect");
        put::string(&mut ex, tc_url);
        put::key(&mut ex, "redirect2");
        put::string(&mut ex, url);
        put::end(&mut ex);
        put::end(&mut ex);
        let status = Builder::new("onStatus", 0.0).null().raw(&ex);
        self.command_out(csid::STREAM, MESSAGE_STREAM_ID, &status);
    }

    /// What the client said with `connect`.
    pub fn connect(&self) -> Option<&Connect> {
        self.connect.as_deref()
    }

    /// The client's address as a proxy in front states it; for logs only, since anyone may claim it.
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
        self.reply_to_connect(connect.object_encoding);
        self.connect = Some(connect);
        self.state = State::Identify(Identify::default());
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
        self.state = State::Identify(Identify::default());
        self.link.joiner.set_keep_media(false);
        self.aggregate.clear();
    }

    fn user_control(&mut self, payload: Payload<'_>) {
        let payload = self.link.payload(payload);
        if let Some(fields) = payload.strip_prefix(&user_control::SET_BUFFER_LENGTH.to_be_bytes())
            && let Some(ms) = fields.get(4..8).and_then(|bytes| bytes.first_chunk::<4>())
        {
            self.buffer_ms = Some(u32::from_be_bytes(*ms));
        }
    }

    /// SRS: window, bandwidth and chunk size come before the result; OBS depends on the latter.
    fn reply_to_connect(&mut self, object_encoding: f64) {
        if self.options.out_ack_size > 0 {
            self.link.write_window(self.options.out_ack_size);
        }
        let [a, b, c, d] = PEER_BANDWIDTH.to_be_bytes();
        let bandwidth = [a, b, c, d, DYNAMIC];
        write_control(&mut self.link.output, type_id::SET_PEER_BANDWIDTH, &bandwidth);
        self.link.set_chunk_size(self.options.chunk_size);

        let mut objects = Vec::with_capacity(512);
        let out = &mut objects;
        put::object(out);
        put::key(out, "fmsVer");
        put::string(out, concat!("FMS/", fms_version!()));
        put::key(out, "capabilities");
        put::number(out, 127.0);
        put::key(out, "mode");
        put::number(out, 1.0);
        put::end(out);

        put::object(out);
        put::key(out, "level");
        put::string(out, "status");
        put::key(out, "code");
        put::string(out, "NetConnection.Connect.Success");
        put::key(out, "description");
        put::string(out, "Connection succeeded");
        put::key(out, "objectEncoding");
        put::number(out, object_encoding);
        put::key(out, "data");
        self.options.put_server_data(out);
        put::end(out);
        // SRS: the result carries transaction 1, whatever the call said.
        let result = Builder::new("_result", 1.0).raw(&objects);
        self.command_out(csid::COMMAND, 0, &result);
        self.command_out(csid::COMMAND, 0, &Builder::new("onBWDone", 0.0).null());
    }

    fn created(&mut self, tid: f64) {
        let result = Builder::new("_result", tid).null().number(f64::from(MESSAGE_STREAM_ID));
        self.command_out(csid::COMMAND, 0, &result);
    }

    fn result_undefined(&mut self, tid: f64, message_stream_id: u32) {
        let result = Builder::new("_result", tid).null().undefined();
        self.command_out(csid::COMMAND, message_stream_id, &result);
    }

    fn result_null(&mut self, tid: f64) {
        self.command_out(csid::COMMAND, 0, &Builder::new("_result", tid).null().null());
    }

    /// `onFCPublish` and `onFCUnpublish`, which have no level.
    fn fc_event(&mut self, name: &str, code: &str, description: &str) {
        let info = [("code", code), ("description", description)];
        let event = Builder::new(name, 0.0).null().texts(&info);
        self.command_out(csid::STREAM, MESSAGE_STREAM_ID, &event);
    }

    fn on_status(&mut self, code: &str, description: &str, client_id: bool) {
        let info = [
            ("level", "status"),
            ("code", code),
            ("description", description),
            ("clientid", CLIENT_ID),
        ];
        let info = if client_id { &info[..] } else { &info[..3] };
        let status = Builder::new("onStatus", 0.0).null().texts(info);
        self.command_out(csid::STREAM, MESSAGE_STREAM_ID, &status);
    }

    fn stream_control(&mut self, event: u16) {
        self.link.write_user_control(event, &MESSAGE_STREAM_ID.to_be_bytes());
    }

    fn command_out(&mut self, csid: u8, message_stream_id: u32, command: &Builder) {
        self.link.write(csid, type_id::COMMAND_AMF0, message_stream_id, 0, command.bytes());
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

impl ServerOptions {
    /// Who serves. The keys are those of SRS, whose clients and edges show them in their logs.
    fn put_server_data(&self, out: &mut Vec<u8>) {
        put::ecma_array(out, 10);
        let ip = self.server_ip.to_string();
        for (key, text) in [
            ("version", fms_version!()),
            ("srs_sig", "SRS"),
            ("srs_server", concat!("ringcast/", env!("CARGO_PKG_VERSION"))),
            ("srs_license", "MIT"),
            ("srs_url", "https://github.com/ossrs/srs"),
            ("srs_version", env!("CARGO_PKG_VERSION")),
            ("srs_authors", "ringcast"),
            ("srs_server_ip", &ip),
        ] {
            put::key(out, key);
            put::string(out, text);
        }
        put::key(out, "srs_pid");
        put::number(out, f64::from(self.pid));
        put::key(out, "srs_id");
        put::string(out, &self.session_id);
        put::end(out);
    }
}

/// The `clientid` of every status (SRS).
const CLIENT_ID: &str = "ASAICiss";

/// Bytes a second that the client is told, which no client keeps to.
const PEER_BANDWIDTH: u32 = 2_500_000;

/// Limit type of SetPeerBandwidth.
const DYNAMIC: u8 = 2;

/// Where metadata begins in a data message, when it is that: at its name, with or without the
/// request to store it. Other data messages, and the four bytes that FFmpeg sends for a timecode
/// track, are nothing that players get.
pub(super) fn find_metadata(type_id: u8, payload: &[u8]) -> Option<usize> {
    let amf0 = command::amf0_of(type_id, payload);
    let mut reader = crate::proto::amf0::Reader::new(amf0);
    let mut start = payload.len() - amf0.len();
    let mut name = reader.raw_string().ok()?;
    if name == metadata::SET_DATA_FRAME.as_bytes() {
        start = payload.len() - reader.rest().len();
        name = reader.raw_string().ok()?;
    }
    (name == metadata::ON_METADATA.as_bytes()).then_some(start)
}

fn is_connect(payload: &[u8]) -> bool {
    crate::proto::amf0::Reader::new(payload).raw_string() == Ok(b"connect")
}

/// An aggregate message being taken apart (SRS: the timestamps in it count from its first part).
#[derive(Debug, Default)]
struct Aggregate {
    /// A copy: the parts are handed out one by one, and the caller's bytes are gone by then.
    bytes: Vec<u8>,
    at: usize,
    timestamp: u32,
    /// What to add to the timestamps of the parts.
    delta: Option<u32>,
}

#[derive(Debug)]
struct AggregatePart {
    kind: MessageKind,
    timestamp: u32,
    payload: Range<usize>,
}

impl Aggregate {
    const HEAD: usize = 11;
    const TAIL: usize = 4;

    fn start(&mut self, bytes: &[u8], timestamp: u32) {
        self.bytes.clear();
        self.bytes.extend_from_slice(bytes);
        self.at = 0;
        self.timestamp = timestamp;
        self.delta = None;
    }

    fn clear(&mut self) {
        *self = Aggregate::default();
    }

    /// The next audio or video message in it.
    fn next(&mut self) -> Result<Option<AggregatePart>, Error> {
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
                type_id::AUDIO => MessageKind::Audio,
                type_id::VIDEO => MessageKind::Video,
                _ => continue,
            };
            if len > 0 {
                let timestamp = time.wrapping_add(delta) & 0x7FFF_FFFF;
                let payload = start..start + len;
                return Ok(Some(AggregatePart { kind, timestamp, payload }));
            }
        }
        if self.bytes.capacity() > 0 {
            self.clear();
        }
        Ok(None)
    }
}
