//! Sessions as a shard runs them, against streams, memory and counters.

use std::cell::RefCell;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use ringcast::config::Config;
use ringcast::hub::Counters;
use ringcast::proto::rtmp::client::Role;
use ringcast::remux::{Clients, Registry, Stream};
use ringcast::session::admission::Admission;
use ringcast::session::files::Files;
use ringcast::session::http::HttpSession;
use ringcast::session::quiet::Quiet;
use ringcast::session::rtmp::RtmpSession;
use ringcast::session::{Env, Protocol, SessionId, Wish};
use uring::{Arena, ArenaOptions, Conn};

use super::rtmp::recorded_commands;
use super::{byte, pieces};

thread_local! {
    static ARENA: Arena = Arena::new(ArenaOptions { limit: 64 << 20, huge_pages: false })
        .expect("address space");
    static CONFIG: Arc<Config> = Arc::new(Config::default());
    static COMMANDS: RefCell<[Option<Vec<u8>>; 2]> = const { RefCell::new([None, None]) };
}

/// A connection: RTMP from the start, RTMP that publishes or plays, HTTP, WebSocket.
pub fn session(data: &[u8]) {
    let arena = ARENA.with(Clone::clone);
    run(data, &arena);
    assert_eq!(arena.stats().blocks, 0, "every block is given back");
}

/// What a shard has for its session.
struct Rig {
    config: Arc<Config>,
    streams: Registry,
    clients: Clients,
    arena: Arena,
    counters: Counters,
    admission: Admission,
    quiet: Quiet,
    files: Files,
    now: u64,
    touched: Vec<Arc<Stream>>,
    wishes: Vec<Wish>,
}

const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

impl Rig {
    fn env(&mut self) -> Env<'_> {
        Env {
            now: self.now,
            wall_ms: 0,
            shard: 0,
            config: &self.config,
            streams: &self.streams,
            clients: &self.clients,
            arena: &self.arena,
            counters: &self.counters,
            peer: LOCAL,
            conn: Conn::NONE,
            admission: &self.admission,
            quiet: &self.quiet,
            files: &self.files,
            touched: &mut self.touched,
            wishes: &mut self.wishes,
        }
    }
}

fn run(data: &[u8], arena: &Arena) {
    let mut data = data;
    let (mode, seed) = (byte(&mut data), byte(&mut data));
    let mut rig = Rig {
        config: CONFIG.with(Arc::clone),
        streams: Registry::default(),
        clients: Clients::new(1),
        arena: arena.clone(),
        counters: Counters::default(),
        admission: Admission::default(),
        quiet: Quiet::default(),
        files: Files::default(),
        now: 0,
        touched: Vec::new(),
        wishes: Vec::new(),
    };
    // Nobody opens files here; without the folder nobody has to.
    rig.files.note_root(rig.config.http_server.dir.clone(), None, u64::MAX / 2);
    let id = SessionId::from_bits(1);
    let mut protocol = if mode & 1 == 0 {
        Protocol::Rtmp(Box::new(RtmpSession::new(&rig.config, 0, id, LOCAL, 1)))
    } else {
        Protocol::Http(Box::new(HttpSession::new(id, mode & 64 != 0)))
    };
    let opening = opening(mode);
    let mut out = Vec::new();
    for piece in [&opening[..]].into_iter().chain(pieces(seed, data)) {
        rig.now += 100_000_000;
        let now = rig.now;
        match &mut protocol {
            Protocol::Rtmp(session) => {
                session.receive(&mut out, &mut rig.env(), piece);
                if session.wants_tick(now) {
                    session.tick(&mut rig.env());
                }
            }
            Protocol::Http(session) => {
                session.receive(&mut out, &mut rig.env(), piece);
                session.take_answered();
            }
        }
        out.clear();
        let mut wishes = rig.wishes.drain(..);
        if wishes.any(|wish| matches!(wish, Wish::Close(_) | Wish::Finish(_))) {
            break;
        }
    }
    if let Protocol::Rtmp(session) = &mut protocol {
        session.end(&mut rig.env(), 0, 0);
    }
    // One connection publishes and plays one stream after the other; refused names leave none.
    assert!(rig.streams.len() <= 1 + data.len());
}

fn opening(mode: u8) -> Vec<u8> {
    match mode & 7 {
        2 | 6 => with_commands(Role::Publish),
        4 => with_commands(Role::Play),
        3 => b"GET /live/fuzz.flv HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\
            Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
            Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
            .to_vec(),
        _ => Vec::new(),
    }
}

fn with_commands(role: Role) -> Vec<u8> {
    let mut bytes = vec![3; 1 + 1536 + 1536];
    bytes[5..9].fill(0);
    COMMANDS.with_borrow_mut(|known| {
        let slot = &mut known[usize::from(role == Role::Play)];
        bytes.extend_from_slice(slot.get_or_insert_with(|| recorded_commands(role)));
    });
    bytes
}
