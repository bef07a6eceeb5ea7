//! Sessions: one peer each, one file per protocol. The only place where bytes meet the hub.
//!
//! A session gets bytes and answers with bytes ([`Session::out`]) and wishes ([`Wish`]) that its
//! shard carries out. It never touches a socket. A panic in here costs the session that raised
//! it and nothing else: the memory in flight belongs to the driver.

pub mod admission;
pub mod body;
pub mod breaker;
pub mod files;
pub mod group;
pub mod http;
pub mod listing;
pub mod mount;
pub mod names;
pub mod publish;
pub mod quiet;
pub mod rtmp;
pub mod viewers;
pub mod vod;

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;

use bytes::{Buf, Bytes};
use uring::{Arena, Conn};

use crate::config::Config;
pub use crate::hub::SessionId;
use crate::hub::{ClientKind, Counters, Format, Reason, StreamId, Urls};
use crate::remux::{Clients, Registry, Stream};
use crate::{limits, proto};

/// What a session may look at and touch while it handles an event.
pub struct Env<'a> {
    /// Monotonic time, ns.
    pub now: u64,
    /// Wall clock, ms since the epoch; for people.
    pub wall_ms: i64,
    /// Index of the shard.
    pub shard: usize,
    /// The configuration in force.
    pub config: &'a Config,
    /// The table of streams.
    pub streams: &'a Registry,
    /// Media memory.
    pub arena: &'a Arena,
    /// The shard's counters.
    pub counters: &'a Counters,
    /// Address of the session's peer.
    pub peer: IpAddr,
    /// Connection of the session.
    pub conn: Conn,
    /// Who publishes and plays.
    pub clients: &'a Clients,
    /// Who may publish and play.
    pub admission: &'a admission::Admission,
    /// Decides which lines about the peer's faults are written.
    pub quiet: &'a quiet::Quiet,
    /// Files that are open.
    pub files: &'a files::Files,
    /// Streams that got messages.
    pub touched: &'a mut Vec<Arc<Stream>>,
    /// What the session asks its shard to do, in order.
    pub wishes: &'a mut Vec<Wish>,
}

impl Env<'_> {
    /// True when a line about a fault of the peer may be written.
    pub fn may_say(&self) -> bool {
        self.quiet.may_say(self.peer, self.now)
    }
}

/// What a session asks of its shard.
#[derive(Debug)]
pub enum Wish {
    /// Follow a stream.
    Play(Play),
    /// Stop following, the connection goes on.
    StopPlaying,
    /// Stop or continue sending media.
    Pause(bool),
    /// The session waits for a verdict ([`admission`]).
    Await,
    /// Send this behind what was said so far; nothing more is said until it is sent.
    Serve(Box<body::Body>),
    /// Open this file; the session waits for it.
    Open(files::Place),
    /// The session waits for what a file is to be played with ([`vod`]).
    Prepare,
    /// The session waits for a change of the segments of a stream.
    Watch(StreamId),
    /// Read from the peer, or do not.
    Receive(bool),
    /// The session publishes a stream from now on.
    Published(Publish),
    /// The session published this stream; it may be held for another publisher.
    Unpublished(Arc<Stream>),
    /// Close when everything queued has been sent.
    Finish(Reason),
    /// Close now.
    Close(Closing),
}

/// What a session publishes.
#[derive(Debug)]
pub struct Publish {
    /// The stream.
    pub stream: Arc<Stream>,
    /// By which protocol.
    pub kind: ClientKind,
    /// What the client said of itself.
    pub urls: Urls,
}

/// How a session wants to follow a stream.
#[derive(Debug)]
pub struct Play {
    /// The stream.
    pub stream: Arc<Stream>,
    /// By which protocol.
    pub kind: ClientKind,
    /// What the client said of itself.
    pub urls: Urls,
    /// Its address as a proxy states it: for records, never for rights.
    pub forwarded: Option<IpAddr>,
    /// The encoding.
    pub format: Format,
    /// Sent right before the first bytes of the stream (an HTTP head).
    pub head: Bytes,
    /// Timestamps start at zero for this player (`time_jitter` other than off).
    pub rebase: bool,
    /// Stream time after which the player is closed, ms.
    pub duration_ms: Option<i64>,
}

/// Why a session ends.
#[derive(Debug, Clone)]
pub struct Closing {
    /// For the counters.
    pub reason: Reason,
    /// For the log; empty when the reason says it all.
    pub detail: String,
}

impl Closing {
    /// A reason that needs no detail.
    pub fn new(reason: Reason) -> Closing {
        Closing { reason, detail: String::new() }
    }

    /// A reason and what exactly happened.
    pub fn because(reason: Reason, detail: impl std::fmt::Display) -> Closing {
        Closing { reason, detail: detail.to_string() }
    }
}

/// What the peer speaks.
#[derive(Debug)]
pub enum Protocol {
    /// RTMP.
    Rtmp(Box<rtmp::RtmpSession>),
    /// HTTP, HTTP-FLV, WebSocket-FLV.
    Http(Box<http::HttpSession>),
}

/// One peer.
#[derive(Debug)]
pub struct Session {
    /// Its connection.
    pub conn: Conn,
    /// Its id in the log.
    pub id: SessionId,
    /// Its address.
    pub peer: SocketAddr,
    /// Times it began to play or publish.
    pub starts: u32,
    /// Our address on its connection.
    pub local: IpAddr,
    /// When it connected, ns.
    pub opened_at: u64,
    /// When it has to have made progress, ns; `u64::MAX`: no deadline.
    pub deadline: u64,
    /// What `deadline` is for.
    pub deadline_reason: Reason,
    /// Bytes received.
    pub bytes_in: u64,
    /// Bytes sent.
    pub bytes_out: u64,
    /// Replies waiting to be sent.
    pub out: Vec<u8>,
    /// The reply that is being sent, what was taken of it cut off.
    pub reply: Bytes,
    /// A send of `reply` is in flight. The driver's own flag falls when the completion is
    /// reaped, which may be before this session has heard of it.
    pub sending: bool,
    /// What to play as soon as the play before has come to the end of a message.
    pub next_play: Option<Box<Play>>,
    /// Sent behind `out` and `reply`.
    pub body: Option<Box<body::Body>>,
    /// Close when `out` is sent.
    pub finish: Option<Reason>,
    /// The protocol.
    pub protocol: Protocol,
}

impl Session {
    /// A session of a connection that has just been accepted. It has to say what it wants in
    /// time, however slowly it sends.
    pub fn new(
        conn: Conn,
        id: SessionId,
        (peer, local): (SocketAddr, IpAddr),
        now: u64,
        protocol: Protocol,
    ) -> Session {
        Session {
            conn,
            id,
            peer,
            starts: 0,
            local,
            opened_at: now,
            deadline: now + limits::HANDSHAKE_MS_MAX * 1_000_000,
            deadline_reason: Reason::HandshakeTimeout,
            bytes_in: 0,
            bytes_out: 0,
            out: Vec::new(),
            reply: Bytes::new(),
            sending: false,
            next_play: None,
            body: None,
            finish: None,
            protocol,
        }
    }

    /// The next bytes to send for a session that does not play; they are in flight from here on.
    pub fn take_reply(&mut self) -> Option<Bytes> {
        if self.reply.is_empty() {
            self.reply = Bytes::from(std::mem::take(&mut self.out));
        }
        self.sending = !self.reply.is_empty();
        self.sending.then(|| self.reply.clone())
    }

    /// Notes that so much of the reply was sent.
    pub fn reply_sent(&mut self, bytes: u32) {
        self.bytes_out += u64::from(bytes);
        self.sending = false;
        let of_reply = (bytes as usize).min(self.reply.len());
        self.reply.advance(of_reply);
        if let Some(body) = &mut self.body {
            // At most what was given to send, which is less than 4 GiB.
            body.sent(bytes - of_reply as u32);
        }
        if self.reply.is_empty() {
            self.reply = Bytes::new();
        }
    }

    /// True once when a body has been sent to its end.
    pub fn take_served(&mut self) -> bool {
        let done = self.reply.is_empty() && self.body.as_ref().is_some_and(|body| body.is_empty());
        if done {
            self.body = None;
        }
        done
    }

    /// Goes on after a body was sent.
    pub fn served(&mut self, env: &mut Env<'_>) {
        self.expect_request(env.now);
        if let Protocol::Http(http) = &mut self.protocol {
            http.served(&mut self.out, env);
        }
    }

    /// The file that it waits for is open, or is not there.
    pub fn file_opened(
        &mut self,
        env: &mut Env<'_>,
        result: Result<Rc<files::OpenFile>, files::NoFile>,
    ) {
        if let Protocol::Http(http) = &mut self.protocol {
            http.file_opened(&mut self.out, env, result);
            if http.take_answered() {
                self.expect_request(env.now);
            }
        }
    }

    /// The segments it waits for have changed, or may have.
    pub fn segments_changed(&mut self, env: &mut Env<'_>) {
        if let Protocol::Http(http) = &mut self.protocol {
            http.segments_changed(&mut self.out, env);
            if http.take_answered() {
                self.expect_request(env.now);
            }
        }
    }

    /// True while it waits for a change of segments.
    pub fn watches(&self) -> bool {
        matches!(&self.protocol, Protocol::Http(http) if http.watches())
    }

    fn expect_request(&mut self, now: u64) {
        self.deadline = now + limits::HTTP_IDLE_MS_MAX * 1_000_000;
        self.deadline_reason = Reason::IdleTimeout;
    }

    /// True when [`Session::tick`] would find something to do at `now` (ns).
    pub fn wants_tick(&self, now: u64) -> bool {
        now >= self.deadline
            || match &self.protocol {
                Protocol::Rtmp(rtmp) => rtmp.wants_tick(now),
                Protocol::Http(http) => http.wants_tick(now),
            }
    }

    /// Goes on after the verdict it waited for.
    pub fn decided(&mut self, env: &mut Env<'_>) {
        match &mut self.protocol {
            Protocol::Rtmp(rtmp) => rtmp.decided(&mut self.out, env),
            Protocol::Http(http) => {
                http.decided(&mut self.out, env);
                if http.take_answered() {
                    self.expect_request(env.now);
                }
            }
        }
    }

    /// The connection is over: gives back what the session holds.
    pub fn end(&mut self, env: &mut Env<'_>) {
        match &mut self.protocol {
            Protocol::Rtmp(rtmp) => rtmp.end(env, self.bytes_in, self.bytes_out),
            Protocol::Http(http) => http.end(env),
        }
    }

    /// Handles received bytes.
    pub fn receive(&mut self, env: &mut Env<'_>, data: &[u8]) {
        self.bytes_in += data.len() as u64;
        match &mut self.protocol {
            Protocol::Rtmp(rtmp) => rtmp.receive(&mut self.out, env, data),
            Protocol::Http(http) => {
                http.receive(&mut self.out, env, data);
                if http.take_answered() {
                    self.expect_request(env.now);
                }
            }
        }
        if self.out.len() > limits::SESSION_OUTPUT_MAX {
            env.wishes.push(Wish::Close(Closing::new(Reason::OverLimit)));
        }
    }

    /// Looks at the session's own clocks, about once a second.
    pub fn tick(&mut self, env: &mut Env<'_>) {
        if env.now >= self.deadline {
            self.deadline = u64::MAX;
            env.wishes.push(Wish::Close(Closing::new(self.deadline_reason)));
            return;
        }
        // The letter about a verdict may have found the mailbox full.
        self.decided(env);
        match &mut self.protocol {
            Protocol::Rtmp(rtmp) => rtmp.tick(env),
            Protocol::Http(_) => self.segments_changed(env),
        }
    }

    /// True when the connection is to go to somebody else, once its replies are sent.
    pub fn is_leaving(&self) -> bool {
        matches!(&self.protocol, Protocol::Http(http) if http.is_leaving())
    }

    /// What was received and is for somebody else.
    pub fn take_unanswered(&mut self) -> Bytes {
        match &mut self.protocol {
            Protocol::Http(http) => http.take_unanswered(),
            Protocol::Rtmp(_) => Bytes::new(),
        }
    }

    /// Sets or clears the time by which something must have happened.
    pub fn expect_by(&mut self, deadline: Option<(u64, Reason)>) {
        match deadline {
            Some((at, reason)) => {
                self.deadline = at;
                self.deadline_reason = reason;
            }
            None => self.deadline = u64::MAX,
        }
    }

    /// The stream this session publishes.
    pub fn publisher(&mut self) -> Option<&mut publish::Publisher> {
        match &mut self.protocol {
            Protocol::Rtmp(rtmp) => rtmp.publisher(),
            Protocol::Http(_) => None,
        }
    }

    /// Counts a begin of playing or publishing; true when it is worth a line in the log.
    pub fn starts_loudly(&mut self) -> bool {
        self.starts = self.starts.saturating_add(1);
        self.starts <= limits::LOG_STARTS_PER_SESSION
    }

    /// Name of the protocol in the log.
    pub fn protocol_name(&self) -> &'static str {
        match &self.protocol {
            Protocol::Rtmp(_) => "rtmp",
            Protocol::Http(http) => http.name(),
        }
    }
}

/// Which class of fault an RTMP error is, for the counters.
pub fn rtmp_reason(error: &proto::rtmp::Error) -> Reason {
    match error {
        proto::rtmp::Error::Malformed(_) => Reason::Malformed,
        proto::rtmp::Error::Misbehaved(_) => Reason::Misbehaved,
        proto::rtmp::Error::Unsupported(_) => Reason::Unsupported,
        proto::rtmp::Error::Limit(_) => Reason::OverLimit,
    }
}
