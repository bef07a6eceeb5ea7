//! Sessions as a shard runs them, against streams, memory and counters.

use std::cell::RefCell;
use std::net::IpAddr;
use std::sync::Arc;

use ringcast::config::Config;
use ringcast::hub::Counters;
use ringcast::proto::rtmp::client::Role;
use ringcast::remux::Registry;
use ringcast::session::http::HttpSession;
use ringcast::session::quiet::Quiet;
use ringcast::session::rtmp::RtmpSession;
use ringcast::session::{Env, Protocol, Session, SessionId, Wish};
use uring::{Arena, ArenaOptions};

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

fn run(data: &[u8], arena: &Arena) {
    let mut data = data;
    let (mode, seed) = (byte(&mut data), byte(&mut data));
    let config = CONFIG.with(Arc::clone);
    let streams = Registry::default();
    let counters = Counters::default();
    let quiet = Quiet::default();
    let local = IpAddr::from([127, 0, 0, 1]);
    let id = SessionId::from_bits(1);
    let rtmp = mode & 1 == 0;
    let mut protocol = if rtmp {
        Protocol::Rtmp(Box::new(RtmpSession::new(&config, 0, id, local, 1)))
    } else {
        Protocol::Http(Box::new(HttpSession::new(id)))
    };
    let opening = opening(mode);
    let mut now = 0;
    let (mut touched, mut wishes, mut out) = (Vec::new(), Vec::new(), Vec::new());
    let mut closed = false;
    for piece in [&opening[..]].into_iter().chain(pieces(seed, data)) {
        now += 100_000_000;
        let mut env = Env {
            now,
            wall_ms: 0,
            shard: 0,
            config: &config,
            streams: &streams,
            arena,
            counters: &counters,
            peer: local,
            quiet: &quiet,
            touched: &mut touched,
            wishes: &mut wishes,
        };
        match &mut protocol {
            Protocol::Rtmp(session) => {
                session.receive(&mut out, &mut env, piece);
                if session.wants_tick(now) {
                    session.tick(&mut env);
                }
            }
            Protocol::Http(session) => {
                session.receive(&mut out, &mut env, piece);
                session.take_answered();
            }
        }
        closed = wishes.iter().any(|wish| matches!(wish, Wish::Close(_) | Wish::Finish(_)));
        wishes.clear();
        out.clear();
        if closed {
            break;
        }
    }
    if let Protocol::Rtmp(session) = &mut protocol {
        let mut env = Env {
            now,
            wall_ms: 0,
            shard: 0,
            config: &config,
            streams: &streams,
            arena,
            counters: &counters,
            peer: local,
            quiet: &quiet,
            touched: &mut touched,
            wishes: &mut wishes,
        };
        session.stop(&mut env);
    }
    // One connection publishes and plays one stream after the other; refused names leave none.
    assert!(streams.len() <= 1 + data.len());
    let _ = (closed, std::mem::size_of::<Session>());
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
