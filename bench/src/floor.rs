//! The floor: the smallest server that does what a live server must do, and nothing else.
//!
//! It makes the load tester's stream itself, on schedule, frames it once, and sends it from one
//! shared log to every player, with one send in flight for each. There is no publisher, no second
//! stream, no lag rule, no statistics: a server can be compared with it, but cannot beat it by
//! more than it does better in the kernel.
//!
//! Messages are stamped with the time at which they were due, so that the latency the players
//! see contains the window and everything after it, as a publisher's stamp would.

#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use clap::Parser;

use loadtest::media::{GenerateOptions, Generated, Item, Kind, Script, Source};
use ringcast::hub::Flags;
use ringcast::proto::flv::Framing;
use ringcast::proto::http::response::ResponseHead;
use ringcast::proto::rtmp::server::{Event as Said, Server, ServerOptions};
use ringcast::remux::{flv, rtmp};
use uring::{
    Arena, ArenaOptions, Block, BlockWriter, Conn, Driver, Event, ListenOptions, Payload, Range,
    Ring, RingOptions, SendMode,
};

#[derive(Parser)]
#[command(about = "The smallest fan-out server; what a real one costs is compared with this")]
struct Options {
    /// Address to serve on.
    #[arg(long)]
    listen: SocketAddr,
    /// What players speak: rtmp or flv (HTTP/1.1, chunked).
    #[arg(long, default_value = "rtmp")]
    protocol: String,
    /// Video bitrate, kbit/s.
    #[arg(long, default_value_t = 600.0)]
    kbps: f64,
    /// Keyframe distance, seconds.
    #[arg(long, default_value_t = 2.0)]
    gop: f64,
    /// Time for which messages are gathered before they are sent, ms; 0 sends each at once.
    #[arg(long, default_value_t = 0)]
    window: u64,
    /// Send without copying, from the registered log.
    #[arg(long)]
    zero_copy: bool,
    /// Keep the log in huge pages.
    #[arg(long)]
    huge_pages: bool,
    /// RTMP chunk size towards players, bytes.
    #[arg(long, default_value_t = 60_000)]
    chunk_size: u32,
}

/// Bytes of the log that slow players can still read, in blocks of 1 MiB.
const BLOCKS_KEPT: usize = 8;

/// The shared log: numbered blocks, contiguous bytes.
struct Log {
    arena: Arena,
    writer: BlockWriter,
    first: u64,
    blocks: VecDeque<Rc<Block>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Place {
    block: u64,
    offset: u32,
}

impl Log {
    fn new(arena: Arena) -> Log {
        let writer = arena.writer(1 << 20).expect("the arena was made large enough");
        let blocks = VecDeque::from([Rc::new(writer.block().clone())]);
        Log { arena, writer, first: 0, blocks }
    }

    fn append(&mut self, bytes: &[u8]) {
        if self.writer.room() < bytes.len() {
            self.writer = self.arena.writer(1 << 20).expect("old blocks have been let go");
            self.blocks.push_back(Rc::new(self.writer.block().clone()));
            if self.blocks.len() > BLOCKS_KEPT {
                self.blocks.pop_front();
                self.first += 1;
            }
        }
        self.writer.push(bytes);
        self.writer.publish();
    }

    fn end(&self) -> Place {
        let block = self.first + self.blocks.len() as u64 - 1;
        Place { block, offset: self.writer.written() }
    }

    /// Everything from a place to the end of its block.
    fn from(&self, at: &mut Place) -> Option<Range> {
        loop {
            let block = self.blocks.get(at.block.checked_sub(self.first)? as usize)?;
            let end = block.len();
            if at.offset < end {
                return Some(Range { block: block.clone(), start: at.offset, end });
            }
            // The newest block may still grow.
            if *at == self.end() {
                return None;
            }
            *at = Place { block: at.block + 1, offset: 0 };
        }
    }
}

/// What a connection is doing.
enum State {
    Rtmp(Box<Server>),
    Http,
    Playing(Place),
    /// A publisher: what it sends is received and dropped, the plainest a server can do.
    Draining,
}

struct Peer {
    conn: Conn,
    state: State,
    /// Bytes to be sent before any of the log.
    out: Vec<u8>,
    sending: bool,
    /// The send in flight is of the log.
    media: bool,
}

struct Floor {
    ring: Ring,
    log: Log,
    mode: SendMode,
    options: Options,
    source: Source,
    peers: Vec<Option<Peer>>,
}

fn flags(item: &Item) -> Flags {
    match item.kind {
        Kind::Video if item.keyframe => Flags::VIDEO | Flags::KEYFRAME,
        Kind::Video => Flags::VIDEO,
        Kind::Audio => Flags::AUDIO,
        Kind::Data => Flags::DATA,
    }
}

impl Floor {
    fn frame(&self, out: &mut Vec<u8>, flags: Flags, time: i64, payload: &[u8]) {
        if self.options.protocol == "rtmp" {
            rtmp::write(out, self.options.chunk_size, flags, time, payload);
        } else {
            flv::write(out, Framing::Chunked, flags, time, payload);
        }
    }

    /// What a player is sent before the log: its protocol's answers are in `out` already.
    fn prologue(&self, out: &mut Vec<u8>, time: i64) {
        if self.options.protocol != "rtmp" {
            let head = ResponseHead::new(200)
                .header("Content-Type", "video/x-flv")
                .header("Transfer-Encoding", "chunked");
            out.extend_from_slice(&head.finish());
            flv::write_file_header(out, Framing::Chunked, true, true);
        }
        for (kind, payload) in self.source.headers() {
            let flags = match kind {
                Kind::Video => Flags::VIDEO | Flags::SEQUENCE_HEADER,
                Kind::Audio => Flags::AUDIO | Flags::SEQUENCE_HEADER,
                Kind::Data => Flags::DATA,
            };
            self.frame(out, flags, time, payload);
        }
    }

    fn react(&mut self, event: Event, time: i64) {
        match event {
            Event::Accepted { conn, local, .. } => self.accepted(conn, local.ip()),
            Event::Received { conn, data } => self.received(conn, &data, time),
            Event::Sent { conn, result } => {
                let Some(peer) = self.peers[conn.index()].as_mut().filter(|p| p.conn == conn)
                else {
                    return;
                };
                peer.sending = false;
                match (result, &mut peer.state) {
                    (Ok(bytes), State::Playing(at)) if peer.media => at.offset += bytes,
                    (Ok(bytes), _) => drop(peer.out.drain(..bytes as usize)),
                    (Err(_), _) => return self.close(conn),
                }
                self.pump(conn.index());
            }
            Event::ReceiveEnded { conn, .. } => self.close(conn),
            _ => {}
        }
    }

    fn accepted(&mut self, conn: Conn, server_ip: IpAddr) {
        let state = if self.options.protocol == "rtmp" {
            State::Rtmp(Box::new(Server::new(ServerOptions {
                chunk_size: self.options.chunk_size,
                out_ack_size: 2_500_000,
                in_ack_size: 0,
                server_ip,
                session_id: "floor".into(),
                pid: std::process::id(),
                epoch_ms: 0,
                seed: conn.index() as u64,
            })))
        } else {
            State::Http
        };
        if self.peers.len() <= conn.index() {
            self.peers.resize_with(conn.index() + 1, || None);
        }
        let peer = Peer { conn, state, out: Vec::new(), sending: false, media: false };
        self.peers[conn.index()] = Some(peer);
        self.ring.receive(conn);
    }

    fn received(&mut self, conn: Conn, mut data: &[u8], time: i64) {
        let Some(mut peer) = self.peers[conn.index()].take() else { return };
        let (mut plays, mut drains) = (false, false);
        match &mut peer.state {
            State::Rtmp(server) => loop {
                match server.poll(&mut data) {
                    Ok(Some(Said::Play(_))) => {
                        server.accept_play();
                        plays = true;
                    }
                    Ok(Some(Said::Publish(_))) => {
                        server.accept_publish();
                        drains = true;
                    }
                    Ok(Some(_)) => {}
                    Ok(None) | Err(_) => {
                        peer.out.append(server.output());
                        break;
                    }
                }
            },
            // A request of the load tester comes in one piece.
            State::Http => plays = data.ends_with(b"\r\n\r\n"),
            State::Playing(_) | State::Draining => {}
        }
        if plays {
            self.prologue(&mut peer.out, time);
            peer.state = State::Playing(self.log.end());
        }
        if drains {
            peer.state = State::Draining;
        }
        self.peers[conn.index()] = Some(peer);
        self.pump(conn.index());
    }

    fn close(&mut self, conn: Conn) {
        if self.peers[conn.index()].take_if(|p| p.conn == conn).is_some() {
            self.ring.close(conn);
        }
    }

    fn pump(&mut self, index: usize) {
        let Some(peer) = self.peers[index].as_mut() else { return };
        if peer.sending {
            return;
        }
        if !peer.out.is_empty() {
            peer.sending = true;
            peer.media = false;
            let bytes = Bytes::copy_from_slice(&peer.out);
            self.ring.send(peer.conn, Payload::Bytes(bytes), SendMode::Copy);
        } else if let State::Playing(at) = &mut peer.state {
            if at.block < self.log.first {
                let conn = peer.conn;
                return self.close(conn);
            }
            if let Some(range) = self.log.from(at) {
                peer.sending = true;
                peer.media = true;
                self.ring.send(peer.conn, Payload::Range(range), self.mode);
            }
        }
    }

    fn run(&mut self) -> io::Result<()> {
        let window = self.options.window * 1_000_000;
        let mut script = Script::new(&self.source, 0, 1, 0);
        let start = self.ring.now_exact();
        let mut item = script.next_item();
        if self.mode == SendMode::ZeroCopy {
            // Each notification would wake the thread for itself, and none is urgent.
            self.ring.gather_completions(1 << 12, window / 8);
        }
        let (mut payload, mut gathered) = (Vec::new(), Vec::new());
        let mut flush_at = start + window;
        let mut events = Vec::new();
        loop {
            let due = if window == 0 { start + item.due } else { flush_at };
            self.ring.turn(Some(due), &mut events)?;
            for event in events.drain(..) {
                self.react(event, i64::from(item.timestamp));
            }
            let now = self.ring.now();
            if now < due {
                continue;
            }
            while start + item.due <= now {
                script.payload(&item, start + item.due, &mut payload);
                self.frame(&mut gathered, flags(&item), i64::from(item.timestamp), &payload);
                item = script.next_item();
            }
            flush_at = (flush_at + window).max(now);
            self.log.append(&gathered);
            gathered.clear();
            for index in 0..self.peers.len() {
                self.pump(index);
            }
        }
    }
}

fn main() -> ExitCode {
    let options = Options::parse();
    let arena = Arena::new(ArenaOptions { limit: 64 << 20, huge_pages: options.huge_pages });
    let arena = arena.expect("64 MiB of address space");
    ringcast::config::raise_open_files();
    let ring = Ring::new(RingOptions { arena: Some(arena.clone()), ..RingOptions::default() });
    let mut ring = match ring {
        Ok(ring) => ring,
        Err(why) => {
            eprintln!("floor: {why}");
            return ExitCode::FAILURE;
        }
    };
    let listen = ListenOptions {
        backlog: 4096,
        reuse_port: false,
        nodelay: true,
        notsent_lowat: ringcast::limits::NOTSENT_LOWAT,
        send_buffer: 0,
        receive_buffer: 0,
    };
    if let Err(why) = ring.listen(options.listen, &listen) {
        eprintln!("floor: {}: {why}", options.listen);
        return ExitCode::FAILURE;
    }
    let generate = GenerateOptions { kbps: options.kbps, gop: options.gop, ..Default::default() };
    let source = Source::Generated(Arc::new(Generated::new(generate)));
    let mode = if options.zero_copy { SendMode::ZeroCopy } else { SendMode::Copy };
    let log = Log::new(arena);
    let mut floor = Floor { ring, log, mode, options, source, peers: Vec::new() };
    match floor.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("floor: {why}");
            ExitCode::FAILURE
        }
    }
}
