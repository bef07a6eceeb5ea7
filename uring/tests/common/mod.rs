//! What the tests of the ring share: a ring with an arena, and a loop with a time limit.
#![allow(dead_code, reason = "each test file uses its part")]

use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::rc::Rc;
use std::time::{Duration, Instant};

use uring::{
    Arena, ArenaOptions, Conn, Driver, Ended, Errno, Event, ListenOptions, Listener, Payload,
    Range, Ring, RingOptions, SendMode,
};

/// Longer than anything here takes on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub const LISTEN: ListenOptions = ListenOptions {
    backlog: 512,
    reuse_port: false,
    nodelay: true,
    notsent_lowat: 0,
    send_buffer: 0,
    receive_buffer: 0,
};

pub fn arena() -> Arena {
    Arena::new(ArenaOptions { limit: 64 << 20, huge_pages: false }).expect("address space")
}

pub struct Bench {
    pub ring: Ring,
    pub arena: Arena,
    pub events: Vec<Event>,
}

impl Bench {
    pub fn new() -> Bench {
        Bench::with(|_| {})
    }

    pub fn with(change: impl FnOnce(&mut RingOptions)) -> Bench {
        let arena = arena();
        let mut options = RingOptions {
            entries: 256,
            cq_entries: 4096,
            arena: Some(arena.clone()),
            ..RingOptions::default()
        };
        change(&mut options);
        let ring = Ring::new(options).expect("the tests need io_uring");
        Bench { ring, arena, events: Vec::new() }
    }

    /// One turn of at most `time`; its events are appended.
    pub fn turn(&mut self, time: Duration) {
        let deadline = self.ring.now_exact() + time.as_nanos() as u64;
        self.ring.turn(Some(deadline), &mut self.events).expect("the ring works");
    }

    /// Turns until an event matches, which is taken out; all others stay.
    pub fn until<T>(&mut self, what: &str, mut pick: impl FnMut(&Event) -> Option<T>) -> T {
        let end = Instant::now() + PATIENCE;
        loop {
            let found = self.events.iter().enumerate().find_map(|(at, e)| Some((at, pick(e)?)));
            if let Some((at, picked)) = found {
                self.events.remove(at);
                return picked;
            }
            assert!(Instant::now() < end, "no {what}; events: {:?}", self.events);
            self.turn(Duration::from_millis(200));
        }
    }

    /// Turns for a while.
    pub fn idle(&mut self, time: Duration) {
        let end = Instant::now() + time;
        while Instant::now() < end {
            self.turn(end.saturating_duration_since(Instant::now()));
        }
    }

    pub fn listen(&mut self) -> (Listener, SocketAddr) {
        let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let addr = socket.local_addr().expect("bound");
        (self.ring.listen_on(socket.into()).expect("a listener"), addr)
    }

    /// A connection accepted by the ring, and its other end.
    pub fn pair(&mut self) -> (Conn, TcpStream) {
        let (listener, addr) = self.listen();
        let pair = self.accept(addr);
        self.ring.stop_listening(listener);
        pair
    }

    pub fn accept(&mut self, addr: SocketAddr) -> (Conn, TcpStream) {
        let peer = TcpStream::connect(addr).expect("the backlog has room");
        peer.set_read_timeout(Some(PATIENCE)).expect("a socket");
        let ours = peer.local_addr().expect("connected");
        let conn = self.until("accept", |event| match event {
            Event::Accepted { conn, peer, local, .. } if *peer == ours => {
                assert_eq!(*local, addr);
                Some(*conn)
            }
            _ => None,
        });
        (conn, peer)
    }

    pub fn sent(&mut self, conn: Conn) -> Result<u32, Errno> {
        self.until("sent", |event| match event {
            Event::Sent { conn: other, result } if *other == conn => Some(*result),
            _ => None,
        })
    }

    pub fn released(&mut self, conn: Conn) -> bool {
        self.until("released", |event| match event {
            Event::Released { conn: other, copied } if *other == conn => Some(*copied),
            _ => None,
        })
    }

    pub fn ended(&mut self, conn: Conn) -> Ended {
        self.until("end of receive", |event| match event {
            Event::ReceiveEnded { conn: other, ended } if *other == conn => Some(*ended),
            _ => None,
        })
    }

    pub fn closed(&mut self, conn: Conn) {
        self.until("closed", |event| match event {
            Event::Closed { conn: other } if *other == conn => Some(()),
            _ => None,
        });
    }

    /// Turns until `len` bytes have arrived on the connection.
    pub fn receive(&mut self, conn: Conn, len: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        while bytes.len() < len {
            let piece = self.until("bytes", |event| match event {
                Event::Received { conn: other, data } if *other == conn => Some(data.to_vec()),
                _ => None,
            });
            bytes.extend(piece);
        }
        bytes
    }

    /// Sends all of the range, as many sends as it takes; reading is up to somebody else.
    pub fn send_all(&mut self, conn: Conn, mut range: Range, mode: SendMode) {
        while range.start < range.end {
            self.ring.send(conn, Payload::Range(range.clone()), mode);
            range.start += self.sent(conn).expect("the peer reads");
        }
    }

    /// A block full of bytes that depend on the seed, as one range.
    pub fn range(&self, seed: u8, len: usize) -> Range {
        let mut writer = self.arena.writer(len + 16).expect("room");
        writer.push(&pattern(seed, len));
        writer.publish();
        Range { block: Rc::new(writer.block().clone()), start: 0, end: len as u32 }
    }
}

/// Bytes in which a shift or a swap of any piece shows.
pub fn pattern(seed: u8, len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64 ^ (u64::from(seed) << 32);
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

pub fn read_exactly(peer: &mut TcpStream, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    peer.read_exact(&mut bytes).expect("the bytes arrive");
    bytes
}
