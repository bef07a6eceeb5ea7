//! The client's end of a connection: edge pull, forward, load tests.
//!
//! ```text
//!   handshake -> connect -> createStream -> publish or play -> running -> closed -> createStream
//! ..
//! ```
//!
//! It takes what servers in use send, in whatever order they send it: a status before or after a
//! result, media before the status that announces it, other message stream ids than 1, results in
//! AMF3 framing, chunk sizes below 128.

use super::command::{self, Answer, Builder, Info};
use super::error::Error;
use super::handshake::ClientHandshake;
use super::link::Link;
use super::message::{Message, type_id, user_control};
use super::metadata::{self, SET_DATA_FRAME};
use super::server::PublishKind;
use super::{MESSAGE_STREAM_ID, csid};
use crate::media::Kind;
use crate::proto::amf0::put;

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
    options: ClientOptions,
    handshake: Option<Box<ClientHandshake>>,
    link: Link,
    state: State,
    /// The last transaction.
    tid: f64,
    /// The transaction of createStream while its result is awaited.
    creating: f64,
    message_stream_id: u32,
    /// Media that came before the server said that it plays.
    held: Option<(Kind, u32)>,
    held_payload: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Connecting,
    Creating,
    /// publish or play is out.
    Starting,
    Running,
    /// Refused, or stopped by this end.
    Closed,
}

/// What a message means, without its content.
enum Step {
    Started,
    /// Media that came before `Playing` was reported, which comes first now.
    StartedByMedia(Kind),
    Media(Kind),
    Metadata(usize),
    StreamEof,
    Status(Info),
    Refused(Info),
}

const CONNECT_TID: f64 = 1.0;

/// Bytes after which the server shall acknowledge.
const WINDOW: u32 = 2_500_000;

/// Milliseconds of buffer that a player claims to have.
const BUFFER_MS: u32 = 1000;

impl Client {
    /// Opens: the first bytes are in the output.
    pub fn new(options: ClientOptions) -> Client {
        let mut link = Link::new(1, 0);
        let complex = options.handshake == HandshakeKind::Complex;
        let handshake = ClientHandshake::new(complex, options.seed, &mut link.output);
        Client {
            options,
            handshake: Some(Box::new(handshake)),
            link,
            state: State::Connecting,
            tid: CONNECT_TID,
            creating: 0.0,
            message_stream_id: MESSAGE_STREAM_ID,
            held: None,
            held_payload: Vec::new(),
        }
    }

    /// Consumes from `input` up to the next event. `Ok(None)`: all of it is consumed, more is
    /// needed.
    ///
    /// # Errors
    /// Any error ends the connection; nothing more may be polled.
    pub fn poll<'a, 'i: 'a>(
        &'a mut self,
        input: &mut &'i [u8],
    ) -> Result<Option<Event<'a>>, Error> {
        if self.handshake.is_some() && !self.shake_hands(input)? {
            return Ok(None);
        }
        if let Some((kind, timestamp)) = self.held.take() {
            let payload = &self.held_payload[..];
            return Ok(Some(Event::Message(Message { kind, timestamp, payload })));
        }
        self.held_payload = Vec::new();
        loop {
            let Some(joined) = self.link.next(input)? else { return Ok(None) };
            let payload = self.link.payload(joined.payload);
            let step = match joined.type_id {
                type_id::AUDIO => self.media(Kind::Audio),
                type_id::VIDEO => self.media(Kind::Video),
                type_id::DATA_AMF0 | type_id::DATA_AMF3 if self.receives() => {
                    match metadata::find(joined.type_id, payload) {
                        Some(start) => Some(Step::Metadata(start)),
                        None => Some(Step::Media(Kind::Data)),
                    }
                }
                type_id::COMMAND_AMF0 | type_id::COMMAND_AMF3 => {
                    let answer = command::decode_answer(command::amf0_of(joined.type_id, payload))?;
                    self.answer(answer)
                }
                type_id::USER_CONTROL => payload
                    .starts_with(&user_control::STREAM_EOF.to_be_bytes())
                    .then_some(Step::StreamEof),
                _ => None,
            };
            let timestamp = joined.timestamp;
            return Ok(Some(match step {
                None => continue,
                Some(Step::Media(kind)) => {
                    let payload = self.link.payload(joined.payload);
                    Event::Message(Message { kind, timestamp, payload })
                }
                Some(Step::Metadata(start)) => {
                    let payload = &self.link.payload(joined.payload)[start..];
                    Event::Metadata { timestamp, payload }
                }
                Some(Step::StartedByMedia(kind)) => {
                    self.state = State::Running;
                    self.held = Some((kind, timestamp));
                    self.held_payload = self.link.payload(joined.payload).to_vec();
                    Event::Playing
                }
                Some(Step::Started) => match self.options.role {
                    Role::Publish => Event::Publishing,
                    Role::Play => Event::Playing,
                },
                Some(Step::StreamEof) => Event::StreamEof,
                Some(Step::Status(info)) => Event::Status {
                    level: info.level,
                    code: info.code,
                    description: info.description,
                },
                Some(Step::Refused(info)) => {
                    self.state = State::Closed;
                    match info.redirect {
                        Some(url) => Event::Redirect { url },
                        None => Event::Refused { code: info.code, description: info.description },
                    }
                }
            }));
        }
    }

    /// Bytes to send; the caller takes them.
    pub fn output(&mut self) -> &mut Vec<u8> {
        &mut self.link.output
    }

    /// Writes a message into the output. Only after [`Event::Publishing`].
    pub fn write_message(&mut self, kind: Kind, timestamp: u32, payload: &[u8]) {
        self.link.write(csid::of(kind), kind.type_id(), self.message_stream_id, timestamp, payload);
    }

    /// Writes metadata, which begins at the AMF0 string `onMetaData`, with `@setDataFrame` before.
    pub fn write_metadata(&mut self, timestamp: u32, payload: &[u8]) {
        let mut data = Vec::with_capacity(payload.len() + 16);
        put::string(&mut data, SET_DATA_FRAME);
        data.extend_from_slice(payload);
        self.write_message(Kind::Data, timestamp, &data);
    }

    /// Writes a command on the message stream: name, transaction id 0, null, and `arguments`, which
    /// are encoded AMF0 values.
    pub fn write_command(&mut self, name: &str, arguments: &[u8]) {
        let command = Builder::new(name, 0.0).null().raw(arguments);
        self.stream_command(&command);
    }

    /// Pauses or goes on playing, at a position in milliseconds.
    pub fn pause(&mut self, pause: bool, position_ms: f64) {
        let command = Builder::new("pause", 0.0).null().boolean(pause).number(position_ms);
        self.stream_command(&command);
    }

    /// Stops playing; the connection stays.
    pub fn close_stream(&mut self) {
        self.state = State::Closed;
        self.stream_command(&Builder::new("closeStream", 0.0).null());
    }

    /// Stops publishing; the connection stays.
    pub fn unpublish(&mut self) {
        self.state = State::Closed;
        if self.options.publish_sequence == PublishKind::Flash {
            self.stream_command(&Builder::new("closeStream", 0.0).null());
            return;
        }
        let tid = self.next_tid();
        let command = Builder::new("FCUnpublish", tid).null().text(&self.options.stream);
        self.call(&command);
        let command = Builder::new("deleteStream", 0.0).null();
        self.call(&command.number(f64::from(self.message_stream_id)));
    }

    /// Publishes or plays another stream, or the same one again, on the same connection. Only after
    /// [`Client::unpublish`] or [`Client::close_stream`].
    pub fn reopen(&mut self, stream: &str) {
        debug_assert_eq!(self.state, State::Closed);
        stream.clone_into(&mut self.options.stream);
        self.create_stream();
    }

    /// Whether media may be written or is being received.
    pub fn is_running(&self) -> bool {
        self.state == State::Running
    }

    fn shake_hands(&mut self, input: &mut &[u8]) -> Result<bool, Error> {
        let Some(handshake) = &mut self.handshake else { return Ok(true) };
        let before = input.len();
        let done = handshake.step(input, &mut self.link.output)?;
        self.link.count(before - input.len());
        if done {
            self.handshake = None;
            self.write_connect();
        }
        Ok(done)
    }

    /// Whether data messages are of the stream that was asked for.
    fn receives(&self) -> bool {
        self.options.role == Role::Play && matches!(self.state, State::Starting | State::Running)
    }

    fn media(&self, kind: Kind) -> Option<Step> {
        match (self.options.role, self.state) {
            (Role::Play, State::Running) => Some(Step::Media(kind)),
            (Role::Play, State::Starting) => Some(Step::StartedByMedia(kind)),
            // What was on its way when this end stopped.
            _ => None,
        }
    }

    fn answer(&mut self, answer: Answer) -> Option<Step> {
        match answer {
            Answer::Result { tid, .. } if self.state == State::Connecting && tid == CONNECT_TID => {
                self.link.write_window(WINDOW);
                self.link.set_chunk_size(self.options.chunk_size);
                self.create_stream();
                None
            }
            Answer::Result { tid, number }
                if self.state == State::Creating && tid == self.creating =>
            {
                let id = number.filter(|id| (0.0..=f64::from(u32::MAX)).contains(id));
                self.message_stream_id = id.map_or(MESSAGE_STREAM_ID, |id| id as u32);
                self.start();
                None
            }
            Answer::Error { tid, info } => {
                let awaited = match self.state {
                    State::Connecting => tid == CONNECT_TID,
                    State::Creating => tid == self.creating,
                    _ => false,
                };
                // Servers that do not know releaseStream or FCPublish say so with an error.
                awaited.then_some(Step::Refused(info))
            }
            Answer::Status(info) => self.status(info),
            Answer::Result { .. } | Answer::Other => None,
        }
    }

    fn status(&mut self, info: Info) -> Option<Step> {
        let started = match self.options.role {
            Role::Publish => "NetStream.Publish.Start",
            Role::Play => "NetStream.Play.Start",
        };
        if self.state == State::Starting && info.code == started {
            self.state = State::Running;
            return Some(Step::Started);
        }
        let refused = info.level == "error" || info.redirect.is_some();
        match self.state {
            State::Running if info.redirect.is_some() => Some(Step::Refused(info)),
            State::Connecting | State::Creating | State::Starting if refused => {
                Some(Step::Refused(info))
            }
            _ => Some(Step::Status(info)),
        }
    }

    fn write_connect(&mut self) {
        let options = &self.options;
        let mut object = Vec::with_capacity(256);
        let out = &mut object;
        put::object(out);
        let mut text = |key: &str, text: &str| {
            put::key(out, key);
            put::string(out, text);
        };
        text("app", &options.app);
        if options.role == Role::Publish {
            text("type", "nonprivate");
        }
        text("flashVer", &options.flash_ver);
        text("tcUrl", &options.tc_url);
        if let Some(page_url) = &options.page_url {
            text("pageUrl", page_url);
        }
        if options.role == Role::Play {
            put::key(out, "fpad");
            put::boolean(out, false);
            // What Flash says when it can decode everything; some servers withhold media otherwise.
            for (key, number) in
                [("capabilities", 15.0), ("audioCodecs", 4071.0), ("videoCodecs", 252.0)]
            {
                put::key(out, key);
                put::number(out, number);
            }
            put::key(out, "videoFunction");
            put::number(out, 1.0);
        }
        put::key(out, "objectEncoding");
        put::number(out, 0.0);
        put::end(out);
        let command = Builder::new("connect", CONNECT_TID).raw(&object);
        self.call(&command);
    }

    fn create_stream(&mut self) {
        self.state = State::Creating;
        let fmle = self.options.publish_sequence == PublishKind::Fmle;
        if self.options.role == Role::Publish && fmle {
            for name in ["releaseStream", "FCPublish"] {
                let tid = self.next_tid();
                let command = Builder::new(name, tid).null().text(&self.options.stream);
                self.call(&command);
            }
        }
        self.creating = self.next_tid();
        let command = Builder::new("createStream", self.creating).null();
        self.call(&command);
    }

    fn start(&mut self) {
        self.state = State::Starting;
        if self.options.role == Role::Play {
            // RTMP 7.2.2.1: -2 tries a live stream first; in milliseconds like the others send it.
            let tid = self.next_tid();
            let command =
                Builder::new("play", tid).null().text(&self.options.stream).number(-2000.0);
            self.stream_command(&command);
            let mut fields = [0; 8];
            fields[..4].copy_from_slice(&self.message_stream_id.to_be_bytes());
            fields[4..].copy_from_slice(&BUFFER_MS.to_be_bytes());
            self.link.write_user_control(user_control::SET_BUFFER_LENGTH, &fields);
            return;
        }
        if self.options.publish_sequence == PublishKind::Haivision {
            let tid = self.next_tid();
            let command = Builder::new("FCPublish", tid).null().text(&self.options.stream);
            self.call(&command);
        }
        let tid = self.next_tid();
        let command = Builder::new("publish", tid).null().text(&self.options.stream).text("live");
        self.stream_command(&command);
    }

    fn next_tid(&mut self) -> f64 {
        self.tid += 1.0;
        self.tid
    }

    fn call(&mut self, command: &Builder) {
        self.link.write(csid::COMMAND, type_id::COMMAND_AMF0, 0, 0, command.bytes());
    }

    fn stream_command(&mut self, command: &Builder) {
        let id = self.message_stream_id;
        self.link.write(csid::STREAM, type_id::COMMAND_AMF0, id, 0, command.bytes());
    }
}
