//! A shard: one thread, one ring, and all it owns. `run` shows the loop, [`Letter`] what others
//! can tell a shard, `fanout` how players are served.
//!
//! A shard is generic over its driver: the same code runs on io_uring and, many shards in one
//! thread with virtual time, on the simulator.

pub mod fanout;
mod files;
pub mod gate;
pub mod host;
pub mod letter;
pub mod lobby;
pub mod pace;
pub mod relayed;
pub mod route;
pub mod run;

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Weak};

use uring::{Arena, Conn, Driver, Event, Listener};

use crate::config::{Config, Current};
use crate::hub::{ClientKind, Counters, Format, NewClient, Reason, StreamId, Urls};
use crate::limits;
use crate::remux::{Client, Clients, Registry, Stream};
use crate::session::admission::Admission;
use crate::session::body::Part;
use crate::session::http::HttpSession;
use crate::session::quiet::Quiet;
use crate::session::rtmp::RtmpSession;
use crate::session::{Closing, Env, Play, Protocol, Publish, Session, SessionId, Wish};

use fanout::{Follow, Player, Pump, Pumped};
use gate::Gate;
pub use host::{Guest, Host};
pub use letter::{Kick, Letter, Mailbox, Post};
use lobby::{Lobby, Wanted};
use pace::Pace;
use relayed::{Passage, Relayed};
use route::Routes;

/// What a listener's connections speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// RTMP.
    Rtmp,
    /// HTTP: live streams and the index page.
    Http,
}

/// What all shards of a process share.
#[derive(Debug)]
pub struct Shared<W> {
    /// The configuration that a shard goes by; each has its own handle.
    pub config: Arc<Config>,
    /// The configuration in force. Shards are told by a letter when it has been exchanged.
    pub current: Arc<Current>,
    /// The table of streams.
    pub streams: Arc<Registry>,
    /// Media memory.
    pub arena: Arena,
    /// Who publishes and plays.
    pub clients: Arc<Clients>,
    /// Connection limits.
    pub gate: Arc<Gate>,
    /// Who may publish and play.
    pub admission: Arc<Admission>,
    /// Which lines about peers' faults are written.
    pub quiet: Arc<Quiet>,
    /// Who takes connections that are not for a shard, where somebody does.
    pub host: Option<Host>,
    /// Who is at the other end of connections that come through TLS, where there is any.
    pub relayed: Option<Arc<Relayed>>,
    /// Letters.
    pub post: Post<W>,
}

impl<W: Clone> Clone for Shared<W> {
    fn clone(&self) -> Self {
        Shared {
            config: self.config.clone(),
            current: self.current.clone(),
            streams: self.streams.clone(),
            arena: self.arena.clone(),
            clients: self.clients.clone(),
            gate: self.gate.clone(),
            admission: self.admission.clone(),
            quiet: self.quiet.clone(),
            host: self.host.clone(),
            relayed: self.relayed.clone(),
            post: self.post.clone(),
        }
    }
}

/// Clocks that a driver does not have.
#[derive(Clone, Copy, Debug)]
pub struct Clocks {
    /// Wall clock, ms since the epoch; for people.
    pub wall_ms: fn() -> i64,
    /// CPU time of the calling thread, ns; what the pace is set by.
    pub thread_cpu_ns: fn() -> u64,
}

/// Where a connection's player is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Link {
    follow: u32,
    player: u32,
}

impl Link {
    const NONE: Link = Link { follow: u32::MAX, player: u32::MAX };
}

/// One shard.
pub struct Shard<D: Driver> {
    index: usize,
    driver: D,
    shared: Shared<D::Waker>,
    clocks: Clocks,
    counters: Arc<Counters>,
    listeners: Vec<(Listener, Service)>,
    /// By connection index. Boxed, because the table doubles when it is full, and most of a session
    /// is of no interest while it plays.
    sessions: Vec<Option<Box<Session>>>,
    links: Vec<Link>,
    /// Of connections that come through TLS: the end that the front sees.
    passages: HashMap<Conn, Passage>,
    open_sessions: usize,
    /// Connections given to the driver to close that are not closed yet.
    closing: usize,
    /// Bytes sent since the counters were last brought up to date.
    bytes_sent: u64,
    follows: Vec<Option<Follow>>,
    /// The follows of each stream: one or two of the many formats there are.
    follow_of: HashMap<StreamId, Vec<(Format, u32)>>,
    /// Follows with news, or waiting for their window.
    due: Vec<u32>,
    /// Follows whose feed has ended and whose players are reading its end.
    ending: Vec<u32>,
    /// Sessions that publish, and their records.
    publishing: HashMap<StreamId, (Conn, Arc<Client>)>,
    /// Streams that got messages in this turn.
    touched: Vec<Arc<Stream>>,
    /// Files that are served.
    files: files::FileTable,
    /// Streams without publisher whose players are held, and until when, ns.
    holds: Vec<(u64, Arc<Stream>)>,
    /// Sessions that wait for a change of a stream's segments.
    watching: HashMap<StreamId, Vec<Conn>>,
    /// Those of them who were told of one and are to be answered.
    called: VecDeque<Conn>,
    /// Streams to be forgotten when they are still idle at that time, ns. Weak, because who only
    /// waits to forget a stream does not use it, and there may be several.
    lingering: Vec<(u64, Weak<Stream>)>,
    /// Shards to be woken at the end of the turn, one bit each.
    wakes: u64,
    /// Newcomers that wait for their turn.
    lobby: Lobby,
    routes: Routes,
    pace: Pace,
    /// What the driver was told about gathering completions, ns.
    gathering_ns: u64,
    /// When somebody who does not wait for a window last waited for this shard, ns.
    hurry_at: u64,
    random: u64,
    next_tick: u64,
    /// Ticks so far.
    ticks: u32,
    /// When a failed accept was last logged, ns.
    accept_warned_at: Option<u64>,
    draining: bool,
    stopping: bool,
    events: Vec<Event>,
    wishes: Vec<Wish>,
}

impl<D: Driver> Shard<D> {
    /// A shard without listeners.
    pub fn new(
        index: usize,
        driver: D,
        shared: Shared<D::Waker>,
        counters: Arc<Counters>,
        clocks: Clocks,
        seed: u64,
    ) -> Shard<D> {
        shared.post.mailbox(index).set_waker(driver.waker());
        let now = driver.now();
        let routes = Routes::new(shared.config.zero_copy);
        Shard {
            index,
            shared,
            clocks,
            counters,
            listeners: Vec::new(),
            sessions: Vec::new(),
            links: Vec::new(),
            passages: HashMap::new(),
            open_sessions: 0,
            closing: 0,
            bytes_sent: 0,
            follows: Vec::new(),
            follow_of: HashMap::new(),
            due: Vec::new(),
            ending: Vec::new(),
            publishing: HashMap::new(),
            touched: Vec::new(),
            files: files::FileTable::default(),
            holds: Vec::new(),
            watching: HashMap::new(),
            called: VecDeque::new(),
            lingering: Vec::new(),
            wakes: 0,
            lobby: Lobby::default(),
            routes,
            pace: Pace::new(now, (clocks.thread_cpu_ns)()),
            gathering_ns: 0,
            hurry_at: now,
            random: seed | 1,
            next_tick: now,
            ticks: 0,
            accept_warned_at: None,
            draining: false,
            stopping: false,
            events: Vec::new(),
            wishes: Vec::new(),
            driver,
        }
    }

    /// The driver, to open listeners with.
    pub fn driver(&mut self) -> &mut D {
        &mut self.driver
    }

    /// Says what the connections of a listener speak.
    pub fn serve(&mut self, listener: Listener, service: Service) {
        self.listeners.push((listener, service));
    }

    /// Connections now.
    pub fn connections(&self) -> usize {
        self.open_sessions
    }

    /// Streams followed now, for tests.
    pub fn follows(&self) -> usize {
        self.follow_of.values().map(Vec::len).sum()
    }

    fn random(&mut self) -> u64 {
        // xorshift64*: ids need to differ, not to be secret.
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        self.random.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn session(&mut self, conn: Conn) -> Option<&mut Session> {
        self.sessions.get_mut(conn.index())?.as_deref_mut().filter(|s| s.conn == conn)
    }

    /// Runs `handle` on a session with everything it may touch, then carries out its wishes. A
    /// panic in it costs that session.
    fn with_session(&mut self, conn: Conn, handle: impl FnOnce(&mut Session, &mut Env<'_>)) {
        let Some(mut session) = self.take_session(conn) else { return };
        let mut wishes = std::mem::take(&mut self.wishes);
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            self.visit(&mut session, &mut wishes, handle);
        }));
        if outcome.is_err() {
            wishes.push(Wish::Close(Closing::new(Reason::Bug)));
        }
        self.sessions[conn.index()] = Some(session);
        for wish in wishes.drain(..) {
            self.carry_out(conn, wish);
        }
        if self.wishes.capacity() == 0 {
            self.wishes = wishes;
        }
        self.flush_replies(conn);
    }

    /// Lets `handle` at a session that was taken out of the table, and at what it may touch.
    fn visit(
        &mut self,
        session: &mut Session,
        wishes: &mut Vec<Wish>,
        handle: impl FnOnce(&mut Session, &mut Env<'_>),
    ) {
        let mut env = Env {
            now: self.driver.now(),
            wall_ms: (self.clocks.wall_ms)(),
            shard: self.index,
            config: &self.shared.config,
            streams: &self.shared.streams,
            arena: &self.shared.arena,
            counters: &self.counters,
            clients: &self.shared.clients,
            peer: session.peer.ip(),
            conn: session.conn,
            admission: &self.shared.admission,
            quiet: &self.shared.quiet,
            files: &self.files.known,
            touched: &mut self.touched,
            wishes,
        };
        handle(session, &mut env);
    }

    fn take_session(&mut self, conn: Conn) -> Option<Box<Session>> {
        let slot = self.sessions.get_mut(conn.index())?;
        if slot.as_ref().is_some_and(|s| s.conn == conn) { slot.take() } else { None }
    }

    fn carry_out(&mut self, conn: Conn, wish: Wish) {
        if self.session(conn).is_none() && !matches!(wish, Wish::Unpublished(_)) {
            // Asking for a stream made it; somebody has to look whether it is of use.
            if let Wish::Play(play) = wish {
                self.linger(&play.stream);
            }
            return;
        }
        match wish {
            Wish::Play(play) => self.play(conn, play),
            Wish::StopPlaying => {
                // A play that waited for its turn is over before it began.
                self.forget_next_play(conn);
                if let Some(player) = self.player(conn) {
                    player.leave();
                    self.pump(conn);
                }
                let idle = self.driver.now() + limits::RTMP_IDLE_MS_MAX * 1_000_000;
                if let Some(session) = self.session(conn) {
                    session.expect_by(Some((idle, Reason::IdleTimeout)));
                }
            }
            Wish::Pause(paused) => {
                if let Some(player) = self.player(conn) {
                    player.paused = paused;
                    self.pump(conn);
                }
            }
            Wish::Await => {
                let by = self.driver.now() + limits::ADMISSION_MS_MAX * 1_000_000;
                if let Some(session) = self.session(conn) {
                    session.expect_by(Some((by, Reason::HookTimeout)));
                }
            }
            Wish::Serve(body) => {
                let by = self.driver.now() + limits::REPLY_MS_MAX * 1_000_000;
                if let Some(session) = self.session(conn) {
                    session.body = Some(body);
                    session.expect_by(Some((by, Reason::FellBehind)));
                }
            }
            Wish::Open(place) => {
                let by = self.driver.now() + limits::FILE_OPEN_MS_MAX * 1_000_000;
                if let Some(session) = self.session(conn) {
                    session.expect_by(Some((by, Reason::FileSlow)));
                }
                self.open_file(conn, place);
            }
            Wish::Prepare => {
                let by = self.driver.now() + limits::FILE_OPEN_MS_MAX * 1_000_000;
                if let Some(session) = self.session(conn) {
                    session.expect_by(Some((by, Reason::FileSlow)));
                }
            }
            Wish::Watch(stream) => {
                if let Some(session) = self.session(conn) {
                    session.expect_by(None);
                }
                self.watching.entry(stream).or_default().push(conn);
            }
            Wish::Receive(true) => self.driver.receive(conn),
            Wish::Receive(false) => self.driver.receive_pause(conn),
            Wish::Published(publish) => self.published(conn, publish),
            Wish::Unpublished(stream) => self.unpublished(&stream, Reason::PeerClosed),
            Wish::Finish(reason) => {
                let reply_by = self.driver.now() + limits::REPLY_MS_MAX * 1_000_000;
                if !self.stop_playing_between_messages(conn, reason) {
                    return self.close(conn, &Closing::new(reason));
                }
                if let Some(session) = self.session(conn) {
                    session.finish = Some(reason);
                    session.expect_by(Some((reply_by, reason)));
                }
            }
            Wish::Close(closing) => self.close(conn, &closing),
        }
    }

    fn published(&mut self, conn: Conn, publish: Publish) {
        Counters::add(&self.counters.publishers, 1);
        let Publish { stream, kind, urls } = publish;
        let id = stream.id;
        let nodelay = self.shared.config.vhost(stream.name.vhost()).tcp_nodelay;
        self.driver.set_nodelay(conn, nodelay);
        let Some(session) = self.session(conn) else { return };
        session.expect_by(None);
        if session.starts_loudly() {
            tracing::info!(id = %session.id, peer = %session.peer,
                protocol = session.protocol_name(), stream = %stream.name, "publish");
        }
        if let Some(client) = self.join(conn, stream, kind, (urls, None)) {
            if let Some(publisher) = self.session(conn).and_then(Session::publisher) {
                publisher.set_client(client.clone());
            }
            self.publishing.insert(id, (conn, client));
        }
    }

    /// Makes the record of a session that begins to publish or play.
    fn join(
        &mut self,
        conn: Conn,
        stream: Arc<Stream>,
        kind: ClientKind,
        (urls, forwarded): (Urls, Option<IpAddr>),
    ) -> Option<Arc<Client>> {
        let (now, wall_ms) = (self.driver.now(), (self.clocks.wall_ms)());
        let session = self.session(conn)?;
        let age_ms = now.saturating_sub(session.opened_at) / 1_000_000;
        let new = NewClient {
            id: session.id,
            peer: SocketAddr::new(forwarded.unwrap_or(session.peer.ip()), session.peer.port()),
            kind,
            stream,
            urls,
            opened_ms: wall_ms - age_ms as i64,
            bytes_in: session.bytes_in,
            bytes_out: session.bytes_out,
        };
        Some(self.shared.clients.join((self.index, conn.index()), new, wall_ms))
    }

    fn leave(&self, client: &Arc<Client>, reason: Reason) {
        self.shared.clients.leave(client, reason, (self.clocks.wall_ms)());
    }

    /// Brings the record of a session that has received something up to date.
    fn note_received(&mut self, conn: Conn) {
        let Some(session) = self.session(conn) else { return };
        let (bytes_in, bytes_out) = (session.bytes_in, session.bytes_out);
        if let Some(publisher) = session.publisher() {
            publisher.note_bytes(bytes_in, bytes_out);
        } else if let Some(player) = self.player(conn) {
            player.client.set_bytes_in(bytes_in);
        }
    }

    fn unpublished(&mut self, stream: &Arc<Stream>, reason: Reason) {
        if let Some((_, client)) = self.publishing.remove(&stream.id) {
            self.leave(&client, reason);
        }
        Counters::sub(&self.counters.publishers, 1);
        let hold = self.shared.config.vhost(stream.name.vhost()).publish.hold;
        if !hold.is_zero() {
            let until = self.driver.now() + hold.as_nanos() as u64;
            self.holds.push((until, stream.clone()));
        }
        self.linger(stream);
    }

    /// Looks later whether a stream is still of use to anybody.
    fn linger(&mut self, stream: &Arc<Stream>) {
        let idle = self.shared.config.vhost(stream.name.vhost()).idle_close;
        self.lingering.push((self.driver.now() + idle.as_nanos() as u64, Arc::downgrade(stream)));
    }

    /// A stream that a session was about to play and is not: nobody else may look at it again.
    fn forget_next_play(&mut self, conn: Conn) {
        if let Some(play) = self.session(conn).and_then(|session| session.next_play.take()) {
            self.linger(&play.stream);
        }
    }

    fn play(&mut self, conn: Conn, play: Play) {
        let still_leaving = self.player(conn).is_some();
        let Some(session) = self.session(conn) else { return };
        if still_leaving {
            if let Some(never) = session.next_play.replace(Box::new(play)) {
                self.linger(&never.stream);
            }
            return;
        }
        session.expect_by(None);
        if session.starts_loudly() {
            tracing::info!(id = %session.id, peer = %session.peer,
                protocol = session.protocol_name(), stream = %play.stream.name, "play");
        }
        let (peer, local) = (session.peer, session.local);
        let has_out = !session.out.is_empty();
        let reply = std::mem::take(&mut session.reply);
        let in_flight = std::mem::take(&mut session.sending);
        let vhost = self.shared.config.vhost(play.stream.name.vhost());
        let chunk_size = play.stream.chunk_size(vhost.chunk_size);
        self.driver.set_nodelay(conn, vhost.tcp_nodelay);
        let route = match self.passages.contains_key(&conn) {
            // The way to the front, wherever it leads from there.
            true => self.routes.of(Ipv4Addr::LOCALHOST.into(), Ipv4Addr::LOCALHOST.into()),
            false => self.routes.of(local, peer.ip()),
        };
        let Play { stream, kind, urls, forwarded, format, head, rebase, duration_ms } = play;
        let Some(client) = self.join(conn, stream.clone(), kind, (urls, forwarded)) else { return };
        stream.player_joined(self.index);
        Counters::add(&self.counters.players, 1);
        let mine = self.follow_of.entry(stream.id).or_default();
        let index = match mine.iter().find(|(followed, _)| *followed == format) {
            Some(&(_, index)) => index,
            None => {
                let index = self.follows.iter().position(Option::is_none).unwrap_or_else(|| {
                    self.follows.push(None);
                    self.follows.len() - 1
                });
                self.follows[index] = Some(Follow::new(stream.clone(), format, chunk_size));
                mine.push((format, index as u32));
                index as u32
            }
        };
        let Some(follow) = self.follows[index as usize].as_mut() else { return };
        let mut player = Player::new(conn, client, head, rebase, duration_ms, route);
        player.has_out = has_out;
        if !reply.is_empty() || in_flight {
            player.take_over_reply(reply, in_flight);
        }
        self.links[conn.index()] = Link { follow: index, player: follow.players.len() as u32 };
        follow.players.push(player);
        if let Some(mirror) = &mut follow.mirror {
            mirror.feed().count_players(1);
            mirror.refresh();
        } else if !follow.take_up_feed(self.index) {
            self.ask_for_feed(index);
        }
        self.pump(conn);
    }

    /// Asks the publisher's shard for a feed that is not open; it may be this one.
    fn ask_for_feed(&mut self, index: u32) {
        let Some(follow) = &self.follows[index as usize] else { return };
        follow.stream.want(follow.format);
        let id = follow.stream.id;
        match follow.stream.home() {
            Some(home) if home == self.index => self.open_wanted(id),
            Some(home) => self.tell(home, Letter::Wanted(id)),
            // The next publisher opens what is wanted.
            None => {}
        }
    }

    /// Opens what players of a stream published here wait for.
    fn open_wanted(&mut self, id: StreamId) {
        let Some(&(conn, _)) = self.publishing.get(&id) else { return };
        let Some(publisher) = self.session(conn).and_then(Session::publisher) else { return };
        if publisher.open_wanted() {
            let stream = publisher.stream().clone();
            self.touched.push(stream);
        }
    }

    fn tell(&mut self, shard: usize, letter: Letter) {
        if !self.shared.post.mailbox(shard).put(letter) {
            self.counters.count(Reason::LetterMissed);
        }
        self.wakes |= 1 << shard;
    }

    fn player(&mut self, conn: Conn) -> Option<&mut Player> {
        let link = *self.links.get(conn.index())?;
        let follow = self.follows.get_mut(link.follow as usize)?.as_mut()?;
        follow.players.get_mut(link.player as usize).filter(|p| p.conn == conn)
    }

    /// Lets a player do what it can do next.
    fn pump(&mut self, conn: Conn) {
        let Some(&link) = self.links.get(conn.index()) else { return };
        if link != Link::NONE {
            self.pump_at(link);
        }
    }

    fn pump_at(&mut self, link: Link) {
        let Some(follow) = self.follows[link.follow as usize].as_mut() else { return };
        let Some(player) = follow.players.get_mut(link.player as usize) else { return };
        let conn = player.conn;
        let mut pump = Pump {
            driver: &mut self.driver,
            routes: &mut self.routes,
            mirror: follow.mirror.as_ref(),
            flushed: follow.flushed,
            format: follow.format,
            chunk_size: follow.chunk_size,
            sessions: &mut self.sessions,
        };
        match player.pump(&mut pump) {
            Pumped::Fine => {}
            Pumped::Begins => self.lobby.put(Wanted::Begin { conn }),
            Pumped::Skipped => {
                self.counters.count(Reason::SkipLag);
                player.client.count_skip();
                follow.stream.stats.skips.fetch_add(1, Relaxed);
                let id = self.sessions[conn.index()].as_ref().map(|s| s.id);
                tracing::info!(?id, stream = %follow.stream.name,
                    "player fell behind and goes on at the newest keyframe");
            }
            Pumped::Left => {
                self.stop_playing(conn, Reason::PeerClosed);
                match self.session(conn).and_then(|s| s.next_play.take()) {
                    Some(play) => self.play(conn, *play),
                    None => self.flush_replies(conn),
                }
            }
            Pumped::Close(closing) => self.close(conn, &closing),
        }
    }

    /// Sends waiting replies of a session that does not play; a player's go out between messages.
    fn flush_replies(&mut self, conn: Conn) {
        let has_out = match self.session(conn) {
            Some(session) => !session.out.is_empty(),
            None => return,
        };
        if let Some(player) = self.player(conn) {
            if has_out {
                player.has_out = true;
                self.pump(conn);
            }
            return;
        }
        let Some(session) = self.session(conn) else { return };
        if session.sending {
            return;
        }
        let reply = session.take_reply();
        // A head and the beginning of its body are one send, and so are many small ranges.
        let room = uring::Gather::PIECES_MAX - usize::from(reply.is_some());
        let part = session.body.as_ref().and_then(|body| body.front(limits::SEND_BYTES_MAX));
        let ranges = match (&part, &session.body) {
            (Some(Part::Block(_)), Some(body)) => body.fronts(room, limits::SEND_BYTES_MAX),
            _ => Vec::new(),
        };
        session.sending |= part.is_some();
        let (local, peer) = (session.local, session.peer.ip());
        let (payload, mode) = match (reply, part) {
            (None, None) => (None, uring::SendMode::Copy),
            (None, Some(Part::Block(range))) if ranges.len() == 1 => {
                let route = self.routes.of(local, peer);
                let mode = self.routes.mode(route, range.end - range.start);
                (Some(uring::Payload::Range(range)), mode)
            }
            (reply, Some(Part::Block(_))) => {
                let mut gather = self.driver.take_gather();
                if let Some(reply) = reply {
                    gather.head.extend_from_slice(&reply);
                    gather.pieces.push(uring::Piece::Head(0..reply.len() as u32));
                }
                gather.pieces.extend(ranges.into_iter().map(uring::Piece::Block));
                (Some(uring::Payload::Gather(gather)), uring::SendMode::Copy)
            }
            (Some(reply), _) => (Some(uring::Payload::Bytes(reply)), uring::SendMode::Copy),
            (None, Some(Part::Bytes(bytes))) => {
                (Some(uring::Payload::Bytes(bytes)), uring::SendMode::Copy)
            }
            (None, Some(Part::File(file, offset, len))) => {
                // At most what one send may have.
                let (file, len) = (file.file.clone(), len as u32);
                (Some(uring::Payload::File { file, offset, len }), uring::SendMode::Copy)
            }
        };
        let Some(session) = self.session(conn) else { return };
        if let Some(payload) = payload {
            self.driver.send(conn, payload, mode);
        } else if let Some(reason) = session.finish {
            self.close(conn, &Closing::new(reason));
        } else if session.is_leaving() {
            match self.shared.host {
                Some(_) => self.driver.hand_over(conn),
                None => self.close(conn, &Closing::new(Reason::Unsupported)),
            }
        }
    }

    /// A connection that is not for a shard has left the driver.
    fn handed_over(&mut self, conn: Conn, socket: OwnedFd) {
        let Some(mut session) = self.take_session(conn) else { return };
        self.shared.gate.leave(session.peer.ip());
        self.open_sessions -= 1;
        Counters::sub(&self.counters.connections, 1);
        let passage = self.passages.remove(&conn);
        if let Some(host) = &self.shared.host {
            let read = session.take_unanswered();
            host.take(Guest { socket, peer: session.peer, read, passage });
        }
    }

    /// Takes the player of a connection out of its feed; for the records, why.
    fn stop_playing(&mut self, conn: Conn, reason: Reason) {
        let Some(link) = self.links.get(conn.index()).copied() else { return };
        if link == Link::NONE {
            return;
        }
        self.links[conn.index()] = Link::NONE;
        let Some(follow) = self.follows[link.follow as usize].as_mut() else { return };
        let player = follow.players.swap_remove(link.player as usize);
        let client = player.client;
        if let Some(moved) = follow.players.get(link.player as usize) {
            self.links[moved.conn.index()].player = link.player;
        }
        if let Some(mirror) = &follow.mirror {
            mirror.feed().count_players(-1);
        }
        Counters::sub(&self.counters.players, 1);
        let stream = follow.stream.clone();
        let index = conn.index();
        if let Some(session) = self.sessions.get_mut(index).and_then(Option::as_deref_mut) {
            session.bytes_out = client.bytes_out();
        }
        self.leave(&client, reason);
        let Some(follow) = self.follows[link.follow as usize].as_mut() else { return };
        if follow.players.is_empty() {
            follow.note_sent();
            follow.let_go_of_feed();
            if let Some(mine) = self.follow_of.get_mut(&stream.id) {
                mine.retain(|(_, index)| *index != link.follow);
                if mine.is_empty() {
                    self.follow_of.remove(&stream.id);
                }
            }
            self.follows[link.follow as usize] = None;
            self.due.retain(|&i| i != link.follow);
            self.ending.retain(|&i| i != link.follow);
        }
        let last_here = !self.follow_of.contains_key(&stream.id);
        stream.player_left(self.index, last_here);
        if stream.players() == 0 {
            self.linger(&stream);
        }
    }

    /// Ends playing for a connection that has a last reply to send. False when it is in the
    /// middle of a message, where no reply can be sent.
    fn stop_playing_between_messages(&mut self, conn: Conn, reason: Reason) -> bool {
        let Some(&link) = self.links.get(conn.index()) else { return true };
        if link == Link::NONE {
            return true;
        }
        let Some(follow) = &self.follows[link.follow as usize] else { return true };
        let player = &follow.players[link.player as usize];
        if !player.is_between_messages(follow.mirror.as_ref()) {
            return false;
        }
        self.stop_playing(conn, reason);
        true
    }

    /// Terminates a session; its driver joins and closes. See `uring::driver`.
    fn close(&mut self, conn: Conn, closing: &Closing) {
        if self.session(conn).is_none() {
            return;
        }
        let was_player = self.links[conn.index()] != Link::NONE;
        let stream = self.player_stream(conn);
        self.stop_playing(conn, closing.reason);
        self.forget_next_play(conn);
        let Some(mut session) = self.take_session(conn) else { return };
        let published = session.publisher().map(|p| p.stream().name.clone());
        let mut wishes = Vec::new();
        self.visit(&mut session, &mut wishes, Session::end);
        for wish in wishes {
            if let Wish::Unpublished(stream) = wish {
                self.unpublished(&stream, closing.reason);
            }
        }
        self.counters.count(closing.reason);
        self.shared.gate.leave(session.peer.ip());
        self.open_sessions -= 1;
        Counters::sub(&self.counters.connections, 1);
        let role = match (&published, was_player) {
            (Some(_), _) => "publish",
            (None, true) => "play",
            (None, false) => "connection",
        };
        let name = published.map(|n| n.to_string()).or(stream).unwrap_or_default();
        let seconds = self.driver.now().saturating_sub(session.opened_at) as f64 / 1e9;
        // A connection that never got anywhere is as uninteresting in large numbers as a fault.
        let may_be_many = closing.reason.blames_peer()
            || (role == "connection" && closing.reason != Reason::Shutdown)
            || session.starts > limits::LOG_STARTS_PER_SESSION;
        let now = self.driver.now();
        macro_rules! stopped {
            ($level:ident) => {
                tracing::$level!(id = %session.id, peer = %session.peer,
                    protocol = session.protocol_name(), stream = name,
                    reason = closing.reason.name(), detail = closing.detail,
                    bytes_in = session.bytes_in, bytes_out = session.bytes_out,
                    seconds, "{role} stopped")
            };
        }
        if !may_be_many || self.shared.quiet.may_say(session.peer.ip(), now) {
            stopped!(info);
        } else {
            stopped!(debug);
        }
        self.closing += 1;
        self.driver.close(conn);
        self.passages.remove(&conn);
    }

    fn player_stream(&mut self, conn: Conn) -> Option<String> {
        let link = *self.links.get(conn.index())?;
        let follow = self.follows.get(link.follow as usize)?.as_ref()?;
        Some(follow.stream.name.to_string())
    }

    fn accepted(&mut self, listener: Listener, conn: Conn, peer: SocketAddr, local: SocketAddr) {
        let config = self.shared.config.clone();
        let service = self.listeners.iter().find(|(l, _)| *l == listener).map(|(_, s)| *s);
        // Who comes through the front has an address of its own; from here on it is the peer.
        let relayed = self.shared.relayed.as_ref().filter(|_| service == Some(Service::Http));
        let passage = relayed.and_then(|relayed| relayed.take(peer));
        let peer = passage.as_ref().map_or(peer, Passage::peer);
        let admitted = self.shared.gate.enter(
            peer.ip(),
            config.max_connections,
            config.max_connections_per_address,
        );
        if let Err(reason) = admitted {
            self.counters.count(reason);
            tracing::debug!(%peer, reason = reason.name(), "refused");
            self.closing += 1;
            self.driver.close(conn);
            return;
        }
        let (bits, seed) = (self.random(), self.random());
        let id = SessionId::from_bits(bits);
        let now = self.driver.now();
        let protocol = match service {
            Some(Service::Http) => {
                Protocol::Http(Box::new(HttpSession::new(id, passage.is_some())))
            }
            _ => {
                let rtmp = RtmpSession::new(&config, now, id, local.ip(), seed);
                Protocol::Rtmp(Box::new(rtmp))
            }
        };
        if self.sessions.len() <= conn.index() {
            self.sessions.resize_with(conn.index() + 1, || None);
            self.links.resize(conn.index() + 1, Link::NONE);
        }
        tracing::debug!(%id, %peer, %local, "connected");
        let session = Session::new(conn, id, (peer, local.ip()), now, protocol);
        self.sessions[conn.index()] = Some(Box::new(session));
        self.links[conn.index()] = Link::NONE;
        if let Some(passage) = passage {
            self.passages.insert(conn, passage);
        }
        self.open_sessions += 1;
        Counters::add(&self.counters.accepted, 1);
        Counters::add(&self.counters.connections, 1);
        self.driver.receive(conn);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a connection costs in tables and boxes, beside its strings. A player that follows a
    /// stream has all of these, so what is added to them is multiplied by thousands.
    #[test]
    fn a_player_is_small() {
        let sizes = [
            ("Session", size_of::<Session>(), 192),
            ("RtmpSession", size_of::<RtmpSession>(), 320),
            ("HttpSession", size_of::<HttpSession>(), 64),
            ("Player", size_of::<Player>(), 64),
            ("Client", size_of::<crate::remux::Client>(), 128),
            ("Connect", size_of::<crate::proto::rtmp::server::Connect>(), 144),
            ("Link", size_of::<Link>(), 8),
        ];
        for (what, size, most) in sizes {
            assert!(size <= most, "{what}: {size} bytes, at most {most} were planned");
        }
    }
}
