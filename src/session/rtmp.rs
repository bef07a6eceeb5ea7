//! RTMP sessions: publishers and players.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use bytes::Bytes;

use crate::config::{Action, Config, DEFAULT_VHOST};
use crate::hub::{ClientKind, Format, Reason, Urls};
use crate::media::name::StreamName;
use crate::proto::amf0;
use crate::proto::rtmp::metadata;
use crate::proto::rtmp::server::{
    Event, PlayRequest, PublishKind, PublishRequest, Server, ServerOptions,
};
use crate::proto::rtmp::url::Url;
use crate::{limits, version};

use super::admission::{self, Case, Entry, Note, Stay, Verdict, Visitor};
use super::names::Names;
use super::publish::Publisher;
use super::{Closing, Env, Play, SessionId, Wish, rtmp_reason};

/// One RTMP connection.
#[derive(Debug)]
pub struct RtmpSession {
    server: Server,
    id: SessionId,
    role: Role,
    names: Names,
    ended: bool,
    /// Why it may play or publish, where that has to be given back or told.
    stay: Option<Box<Stay>>,
    /// What hooks know of the connection.
    known: Option<Arc<Case>>,
}

#[derive(Debug)]
enum Role {
    /// Handshake, connect, or between two publishes or plays.
    Undecided,
    /// It asked for something and waits for the verdict in its `stay`.
    Waiting(Box<Waiting>),
    Publisher(Box<Publisher>),
    Player,
}

/// What happens when the verdict is there.
#[derive(Debug)]
struct Waiting {
    name: StreamName,
    urls: Urls,
    request: Request,
    /// What arrived meanwhile.
    input: Vec<u8>,
    paused: bool,
}

#[derive(Debug)]
enum Request {
    Publish(ClientKind),
    Play { duration_ms: Option<f64> },
}

impl RtmpSession {
    /// A connection that has just been accepted.
    pub fn new(config: &Config, now: u64, id: SessionId, local: IpAddr, seed: u64) -> RtmpSession {
        let vhost = config.vhost(DEFAULT_VHOST);
        let server = Server::new(ServerOptions {
            chunk_size: vhost.chunk_size,
            out_ack_size: vhost.out_ack_size,
            in_ack_size: vhost.in_ack_size,
            server_ip: local,
            session_id: id.to_string(),
            pid: std::process::id(),
            epoch_ms: (now / 1_000_000) as u32,
            seed,
        });
        RtmpSession {
            server,
            id,
            role: Role::Undecided,
            names: Names::default(),
            ended: false,
            stay: None,
            known: None,
        }
    }

    /// True when [`RtmpSession::tick`] is due: publishers are looked at once a second, and who
    /// waits as soon as it is decided.
    pub fn wants_tick(&self, now: u64) -> bool {
        match self.role {
            Role::Publisher(ref publisher) => publisher.wants_tick(now),
            Role::Waiting(_) => self.is_decided(),
            _ => false,
        }
    }

    fn is_decided(&self) -> bool {
        self.stay.as_ref().is_some_and(|stay| stay.verdict().is_some())
    }

    /// Handles received bytes.
    pub fn receive(&mut self, out: &mut Vec<u8>, env: &mut Env<'_>, data: &[u8]) {
        let mut input = data;
        let mut wrote = false;
        if let Role::Publisher(publisher) = &mut self.role {
            publisher.note_wall_clock(env.wall_ms);
        }
        while !self.ended {
            if matches!(self.role, Role::Waiting(_)) {
                self.keep(env, input);
                break;
            }
            let event = match self.server.poll(&mut input) {
                Ok(Some(event)) => event,
                Ok(None) => break,
                Err(error) => {
                    self.close(env, Closing::because(rtmp_reason(&error), error));
                    break;
                }
            };
            // Media first: it is nearly all there is.
            let outcome = match event {
                Event::Message(message) => {
                    if let Role::Publisher(publisher) = &mut self.role {
                        wrote = true;
                        publisher.message(env, message.kind, message.timestamp, message.payload)
                    } else {
                        env.counters.count(Reason::MessageIgnored);
                        Ok(())
                    }
                }
                Event::Metadata { timestamp, payload } => {
                    if let Role::Publisher(publisher) = &mut self.role {
                        wrote = true;
                        take_metadata(publisher, env, timestamp, payload);
                    }
                    Ok(())
                }
                Event::Connect(connect) => {
                    // Debug form: a peer must not be able to write lines of its own.
                    // Parameters may hold tokens, which are nobody's business.
                    let tc_url = connect.tc_url.split('?').next().unwrap_or_default();
                    tracing::info!(id = %self.id, tc_url, "connect");
                    // A vhost that is named with the stream only is not known yet.
                    if let Ok(url) = Url::parse(&connect.tc_url, "") {
                        let vhost = env.config.vhost(&url.vhost);
                        self.server.use_windows(vhost.in_ack_size, vhost.out_ack_size);
                    }
                    Ok(())
                }
                Event::Publish(request) => self.publish(env, &request),
                Event::Play(request) => self.play(env, &request),
                Event::Pause(pause) => {
                    env.wishes.push(Wish::Pause(pause));
                    Ok(())
                }
                Event::Unpublish => {
                    self.stop(env);
                    Ok(())
                }
                Event::CloseStream => {
                    self.stop(env);
                    Ok(())
                }
            };
            if let Err(closing) = outcome {
                self.close(env, closing);
            }
        }
        if wrote && let Role::Publisher(publisher) = &self.role {
            env.touched.push(publisher.stream().clone());
        }
        // The buffer goes with the bytes: one of the handshake's size must not stay behind with
        // each of thousands of players.
        let mut output = std::mem::take(self.server.output());
        if out.is_empty() {
            *out = output;
        } else {
            out.append(&mut output);
        }
    }

    /// The publisher, when the session is one.
    pub fn publisher(&mut self) -> Option<&mut Publisher> {
        match &mut self.role {
            Role::Publisher(publisher) => Some(publisher),
            _ => None,
        }
    }

    /// Publishing or playing is over: gives back what it took.
    fn stop(&mut self, env: &mut Env<'_>) {
        match std::mem::replace(&mut self.role, Role::Undecided) {
            Role::Publisher(publisher) => publisher.stop(env),
            Role::Player => env.wishes.push(Wish::StopPlaying),
            Role::Waiting(_) | Role::Undecided => {}
        }
        if let Some(stay) = self.stay.take() {
            stay.end(&env.admission.desk);
        }
    }

    /// The connection is over.
    pub fn end(&mut self, env: &mut Env<'_>, bytes_in: u64, bytes_out: u64) {
        self.stop(env);
        if let Some(case) = self.known.take() {
            env.admission.desk.put(Note::Closed { case, bytes_in, bytes_out });
        }
    }

    /// Keeps what arrives while the session waits. A client that goes on sending is not read any
    /// more; one that only waits is, so that its leaving is noticed.
    fn keep(&mut self, env: &mut Env<'_>, data: &[u8]) {
        let Role::Waiting(waiting) = &mut self.role else { return };
        waiting.input.extend_from_slice(data);
        if waiting.input.len() > limits::SESSION_INPUT_MAX {
            let why = "it sends media without waiting for the answer to publish";
            return self.close(env, Closing::because(Reason::OverLimit, why));
        }
        if waiting.input.len() > limits::SESSION_INPUT_PAUSE && !waiting.paused {
            waiting.paused = true;
            env.wishes.push(Wish::Receive(false));
        }
    }

    /// Goes on after the verdict it waited for.
    pub fn decided(&mut self, out: &mut Vec<u8>, env: &mut Env<'_>) {
        if self.ended || !matches!(self.role, Role::Waiting(_)) || !self.is_decided() {
            return;
        }
        let Role::Waiting(waiting) = std::mem::replace(&mut self.role, Role::Undecided) else {
            return;
        };
        let verdict = self.stay.as_ref().and_then(|stay| stay.verdict()).cloned();
        if let Some(Verdict::Refused { reason, detail }) = verdict {
            // Who was refused has not begun: there is no end to tell.
            self.stay = None;
            return self.close(env, Closing::because(reason, detail));
        }
        let Waiting { name, urls, request, input, paused } = *waiting;
        if let Err(closing) = self.begin(env, &name, urls, request) {
            return self.close(env, closing);
        }
        if paused {
            env.wishes.push(Wish::Receive(true));
        }
        self.receive(out, env, &input);
    }

    /// Timeouts, about once a second.
    pub fn tick(&mut self, env: &mut Env<'_>) {
        if let Role::Publisher(publisher) = &mut self.role {
            publisher.tick(env);
        }
    }

    fn close(&mut self, env: &mut Env<'_>, closing: Closing) {
        self.ended = true;
        env.wishes.push(Wish::Close(closing));
    }

    fn publish(&mut self, env: &mut Env<'_>, request: &PublishRequest) -> Result<(), Closing> {
        let (name, param) = self.name(env.config, &request.stream)?;
        // A second publisher is not worth asking anybody about.
        if let Some(stream) = env.streams.find(&name).filter(|stream| stream.is_published()) {
            return Err(Closing::because(
                Reason::StreamBusy,
                format!("{} is published", stream.name),
            ));
        }
        let kind = match request.kind {
            PublishKind::Fmle => ClientKind::FmlePublish,
            PublishKind::Flash => ClientKind::FlashPublish,
            PublishKind::Haivision => ClientKind::HaivisionPublish,
        };
        let urls = self.urls(&param);
        self.enter(env, name, urls, Request::Publish(kind))
    }

    fn play(&mut self, env: &mut Env<'_>, request: &PlayRequest) -> Result<(), Closing> {
        let (name, param) = self.name(env.config, &request.stream)?;
        let urls = self.urls(&param);
        self.enter(env, name, urls, Request::Play { duration_ms: request.duration_ms })
    }

    /// Begins, or waits for the verdict.
    fn enter(
        &mut self,
        env: &mut Env<'_>,
        name: StreamName,
        urls: Urls,
        request: Request,
    ) -> Result<(), Closing> {
        let visitor = Visitor {
            id: self.id,
            name: &name,
            urls: &urls,
            bearer: None,
            forwarded: None,
            connects: true,
        };
        let action = match request {
            Request::Publish(_) => Action::Publish,
            Request::Play { .. } => Action::Play,
        };
        match admission::enter(env, &visitor, action)? {
            Entry::Granted(stay) => {
                self.know(stay);
                self.begin(env, &name, urls, request)
            }
            Entry::Undecided(stay) => {
                self.know(Some(stay));
                let waiting = Waiting { name, urls, request, input: Vec::new(), paused: false };
                self.role = Role::Waiting(Box::new(waiting));
                env.wishes.push(Wish::Await);
                Ok(())
            }
        }
    }

    fn know(&mut self, stay: Option<Box<Stay>>) {
        if let Some(case) = stay.as_ref().and_then(|stay| stay.case()) {
            self.known = Some(case.clone());
        }
        self.stay = stay;
    }

    fn begin(
        &mut self,
        env: &mut Env<'_>,
        name: &StreamName,
        urls: Urls,
        request: Request,
    ) -> Result<(), Closing> {
        match request {
            Request::Publish(kind) => {
                let client = (kind, urls);
                let opened = self.names.open(env, name);
                let started = opened
                    .and_then(|stream| Publisher::start(env, stream, self.id.as_str(), client));
                // SRS: who did not get the place has not published, so no end is told.
                let publisher = started.inspect_err(|_| self.stay = None)?;
                self.server.accept_publish();
                self.role = Role::Publisher(Box::new(publisher));
            }
            Request::Play { duration_ms } => {
                let stream = self.names.open(env, name)?;
                let vhost = env.config.vhost(name.vhost());
                self.server.use_chunk_size(stream.chunk_size(vhost.chunk_size));
                self.server.accept_play();
                self.role = Role::Player;
                let bravo_atc = stream.stats.health.bravo_atc.load(Relaxed);
                env.wishes.push(Wish::Play(Play {
                    stream: Arc::clone(&stream),
                    kind: ClientKind::RtmpPlay,
                    urls,
                    forwarded: None,
                    format: Format::Rtmp,
                    head: Bytes::new(),
                    rebase: vhost.play.rebases(bravo_atc),
                    duration_ms: duration_ms.filter(|d| *d > 0.0).map(|d| d as i64),
                }));
            }
        }
        Ok(())
    }

    /// What the client said of itself.
    fn urls(&self, param: &str) -> Urls {
        let Some(connect) = self.server.connect() else { return Urls::default() };
        let or_empty = |text: &Option<String>| text.clone().unwrap_or_default();
        let (page_url, swf_url) = (or_empty(&connect.page_url), or_empty(&connect.swf_url));
        Urls::new(&connect.tc_url, &page_url, &swf_url, param)
    }

    /// vhost, app and stream by SRS's rules, checked against the one name grammar.
    fn name(&self, config: &Config, stream: &str) -> Result<(StreamName, String), Closing> {
        let tc_url = self.server.connect().map_or("", |connect| connect.tc_url.as_str());
        let url = Url::parse(tc_url, stream)
            .map_err(|error| Closing::because(Reason::StreamName, error))?;
        if !config.vhost(&url.vhost).enabled {
            let detail = format!("no vhost serves {:?}", url.vhost);
            return Err(Closing::because(Reason::VhostUnknown, detail));
        }
        let name = url
            .name(config.vhost_name(&url.vhost))
            .map_err(|error| Closing::because(Reason::StreamName, error))?;
        Ok((name, url.param))
    }
}

/// Which tracks (audio, video) the metadata speaks of.
fn declared_tracks(payload: &[u8]) -> (bool, bool) {
    let mut reader = amf0::Reader::new(payload);
    let object = reader.string().ok().and_then(|_| reader.value().ok());
    let object = object.as_ref().and_then(amf0::Value::as_object);
    let has = |key: &str| object.is_some_and(|o| o.get(key).is_some());
    (has("audiocodecid"), has("videocodecid"))
}

/// Metadata goes to players rewritten; what cannot be read is dropped, the stream goes on.
fn take_metadata(publisher: &mut Publisher, env: &Env<'_>, timestamp: u32, payload: &[u8]) {
    match metadata::rewrite(payload, version::SERVER, version::VERSION) {
        Ok(rewritten) => {
            let declared = declared_tracks(&rewritten);
            publisher.metadata(timestamp, rewritten, declared);
        }
        Err(_) => env.counters.count(Reason::MessageDroppedMalformed),
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use uring::{Arena, ArenaOptions};

    use super::*;
    use crate::hub::Counters;
    use crate::limits::{SESSION_NAMES_MAX, SESSION_NAMES_WINDOW_MS};
    use crate::proto::rtmp::chunk;
    use crate::proto::rtmp::message::type_id;
    use crate::remux::Registry;
    use crate::session::quiet::Quiet;

    const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    fn command(out: &mut Vec<u8>, name: &str, arguments: &[amf0::Value]) {
        let mut payload = Vec::new();
        amf0::put::string(&mut payload, name);
        amf0::put::number(&mut payload, 1.0);
        arguments.iter().for_each(|argument| argument.put(&mut payload));
        chunk::write_message(out, 128, 3, type_id::COMMAND_AMF0, 0, 1, &payload);
    }

    fn text(text: impl Into<String>) -> amf0::Value {
        amf0::Value::String(text.into())
    }

    /// What a shard has for its sessions.
    struct Rig {
        config: Config,
        streams: Registry,
        arena: Arena,
        counters: Counters,
        quiet: Quiet,
        clients: crate::remux::Clients,
        admission: admission::Admission,
    }

    impl Rig {
        fn new() -> Rig {
            let arena = ArenaOptions { limit: 64 << 20, huge_pages: false };
            Rig {
                config: Config::default(),
                streams: Registry::default(),
                arena: Arena::new(arena).unwrap(),
                counters: Counters::default(),
                quiet: Quiet::default(),
                clients: crate::remux::Clients::new(1),
                admission: admission::Admission::default(),
            }
        }

        fn receive(&self, session: &mut RtmpSession, now: u64, bytes: &[u8]) -> Vec<Wish> {
            self.receive_from(LOCAL, session, now, bytes)
        }

        fn receive_from(
            &self,
            peer: IpAddr,
            session: &mut RtmpSession,
            now: u64,
            bytes: &[u8],
        ) -> Vec<Wish> {
            let (mut out, mut touched, mut wishes) = (Vec::new(), Vec::new(), Vec::new());
            let files = crate::session::files::Files::default();
            let mut env = Env {
                now,
                wall_ms: 0,
                shard: 0,
                config: &self.config,
                streams: &self.streams,
                arena: &self.arena,
                counters: &self.counters,
                peer,
                conn: uring::Conn::NONE,
                clients: &self.clients,
                admission: &self.admission,
                quiet: &self.quiet,
                files: &files,
                touched: &mut touched,
                wishes: &mut wishes,
            };
            session.receive(&mut out, &mut env, bytes);
            wishes
        }

        fn connected(&self) -> RtmpSession {
            let id = SessionId::from_bits(1);
            let mut session = RtmpSession::new(&self.config, 0, id, LOCAL, 1);
            let mut bytes = vec![3];
            bytes.resize(1 + 2 * 1536, 0);
            let properties = vec![("tcUrl".to_owned(), text("rtmp://h/live"))];
            command(&mut bytes, "connect", &[amf0::Value::Object(amf0::Object(properties))]);
            self.receive(&mut session, 0, &bytes);
            session
        }
    }

    fn closed_for(wishes: &[Wish]) -> Option<Reason> {
        wishes.iter().find_map(|wish| match wish {
            Wish::Close(closing) => Some(closing.reason),
            _ => None,
        })
    }

    /// Row 11 of the adversarial table: a server on a public address, set up by nobody.
    #[test]
    fn strangers_cannot_publish_by_default() {
        let publish = |rig: &Rig, peer: &str| {
            let mut session = rig.connected();
            let mut bytes = Vec::new();
            command(
                &mut bytes,
                "FCPublish",
                &[amf0::Value::Null, text(format!("by{}", peer.replace([':', '.'], "-")))],
            );
            command(&mut bytes, "publish", &[amf0::Value::Null]);
            let wishes = rig.receive_from(peer.parse().unwrap(), &mut session, 1, &bytes);
            let published = wishes.iter().any(|wish| matches!(wish, Wish::Published(_)));
            (closed_for(&wishes), published)
        };
        let mut rig = Rig::new();
        for stranger in ["203.0.113.7", "2001:db8::7", "::ffff:203.0.113.7", "100.64.0.1"] {
            assert_eq!(publish(&rig, stranger), (Some(Reason::PublishClosed), false), "{stranger}");
        }
        assert!(rig.streams.is_empty());
        for near in ["127.0.0.9", "10.1.2.3", "192.168.0.4", "::1", "fd00::1", "::ffff:10.0.0.1"] {
            assert_eq!(publish(&rig, near), (None, true), "{near}");
        }
        rig.config.vhost.publish.open = true;
        assert_eq!(publish(&rig, "203.0.113.7"), (None, true));
    }

    /// The end of everybody who was let in has room, because nobody else is let in without.
    #[test]
    fn who_finds_no_room_for_a_case_is_refused() {
        let mut rig = Rig::new();
        let hooks = &mut rig.config.vhost.http_hooks;
        (hooks.enabled, hooks.on_publish) = (true, vec!["http://127.0.0.1/".into()]);
        rig.admission.desk.leave_room_for(1);
        let publish = |name: &str| {
            let mut session = rig.connected();
            let mut bytes = Vec::new();
            command(&mut bytes, "FCPublish", &[amf0::Value::Null, text(name)]);
            command(&mut bytes, "publish", &[amf0::Value::Null]);
            let wishes = rig.receive(&mut session, 1, &bytes);
            let waits = wishes.iter().any(|wish| matches!(wish, Wish::Await));
            (session, closed_for(&wishes), waits)
        };
        let first = publish("one");
        assert_eq!((first.1, first.2), (None, true));
        for _ in 0..3 {
            let (_, closed, waits) = publish("two");
            assert_eq!((closed, waits), (Some(Reason::HookBacklog), false));
        }
        // The case goes with the last who holds it: the session, and the note at the desk.
        drop(first);
        assert!(rig.admission.desk.take().is_some_and(|note| note.case().name.stream() == "one"));
        assert!(publish("three").2);
    }

    #[test]
    fn one_connection_cannot_fill_the_table_of_streams() {
        let rig = Rig::new();
        let player = |now, stream: String, session: &mut RtmpSession| {
            let mut bytes = Vec::new();
            command(&mut bytes, "createStream", &[amf0::Value::Null]);
            command(&mut bytes, "play", &[amf0::Value::Null, text(stream)]);
            command(&mut bytes, "closeStream", &[amf0::Value::Null]);
            closed_for(&rig.receive(session, now, &bytes))
        };
        let publisher = |now, stream: String, session: &mut RtmpSession| {
            let mut bytes = Vec::new();
            command(&mut bytes, "FCPublish", &[amf0::Value::Null, text(stream)]);
            command(&mut bytes, "publish", &[amf0::Value::Null]);
            command(&mut bytes, "FCUnpublish", &[amf0::Value::Null]);
            closed_for(&rig.receive(session, now, &bytes))
        };
        let max = SESSION_NAMES_MAX as usize;
        type Loop<'a> = &'a dyn Fn(u64, String, &mut RtmpSession) -> Option<Reason>;
        for (what, open) in [("play", &player as Loop<'_>), ("publish", &publisher)] {
            let mut session = rig.connected();
            let before = rig.streams.len();
            let mut now = 1;
            for round in 0..2 {
                for n in 0..max {
                    assert_eq!(open(now, format!("{what}{round}-{n}"), &mut session), None);
                    // A name that is there already is free.
                    assert_eq!(open(now, format!("{what}{round}-0"), &mut session), None);
                }
                assert_eq!(rig.streams.len() - before, (round + 1) * max, "{what}");
                now += SESSION_NAMES_WINDOW_MS * 1_000_000;
            }
            for n in 0..max {
                assert_eq!(open(now, format!("{what}2-{n}"), &mut session), None);
            }
            let over = open(now, format!("{what} over"), &mut session);
            assert_eq!(over, Some(Reason::NamesLimit), "{what}");
            assert_eq!(rig.streams.len() - before, 3 * max, "{what}");
        }
    }
}
