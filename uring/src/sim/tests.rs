//! The simulator checked by an echo server that uses every kind of payload.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::ops::Range as Span;
use std::rc::Rc;

use bytes::Bytes;

use super::{Faults, Peer, SimDriver, SimWorld};
use crate::driver::{
    Conn, ConnectOptions, Driver, Ended, Errno, Event, ListenOptions, Listener, Payload, Piece,
    Range, SendMode, Wake,
};
use crate::{Arena, ArenaOptions, Block};

const MS: u64 = 1_000_000;
const SECOND: u64 = 1_000 * MS;

fn address() -> SocketAddr {
    "127.0.0.1:1935".parse().unwrap()
}

fn options() -> ListenOptions {
    ListenOptions {
        backlog: 128,
        reuse_port: true,
        nodelay: true,
        notsent_lowat: 0,
        send_buffer: 0,
        receive_buffer: 0,
    }
}

fn arena() -> Arena {
    Arena::new(ArenaOptions { limit: 16 << 20, huge_pages: false }).expect("address space")
}

/// Bytes `span` of the stream that peer `id` writes: every offset and peer looks different.
fn pattern(id: u32, span: Span<u64>) -> Vec<u8> {
    span.map(|at| (super::random::mix(at ^ (u64::from(id) << 40)) >> 11) as u8).collect()
}

fn block(arena: &Arena, bytes: &[u8]) -> Block {
    let mut writer = arena.writer(bytes.len().max(1) + 64).expect("room");
    writer.push(bytes);
    writer.publish();
    writer.block().clone()
}

fn whole(block: &Block) -> Range {
    Range { block: Rc::new(block.clone()), start: 0, end: block.len() }
}

/// A reply that is not sent completely.
enum Reply {
    Heap(Bytes),
    Shared(Block, Span<u32>),
    /// Bytes before the block, the block, how much is sent.
    Mixed(Vec<u8>, Block, u32),
}

impl Reply {
    fn payload(&self, driver: &mut SimDriver) -> Payload {
        match self {
            Reply::Heap(bytes) => Payload::Bytes(bytes.clone()),
            Reply::Shared(block, span) => Payload::Range(Range {
                block: Rc::new(block.clone()),
                start: span.start,
                end: span.end,
            }),
            Reply::Mixed(head, block, sent) => {
                let mut gather = driver.take_gather();
                assert!(gather.pieces.is_empty() && gather.head.is_empty());
                gather.head.extend_from_slice(head);
                let len = head.len() as u32;
                if *sent < len {
                    gather.pieces.push(Piece::Head(*sent..len));
                }
                let block = Rc::new(block.clone());
                let range = Range { start: sent.saturating_sub(len), end: block.len(), block };
                gather.pieces.push(Piece::Block(range));
                Payload::Gather(gather)
            }
        }
    }

    /// True when all is sent now.
    fn advance(&mut self, bytes: u32) -> bool {
        match self {
            Reply::Heap(rest) => {
                let _ = rest.split_to(bytes as usize);
                rest.is_empty()
            }
            Reply::Shared(_, span) => {
                span.start += bytes;
                span.start == span.end
            }
            Reply::Mixed(head, block, sent) => {
                *sent += bytes;
                *sent == head.len() as u32 + block.len()
            }
        }
    }
}

#[derive(Default)]
struct Session {
    replies: VecDeque<Reply>,
    /// Not `Driver::send_in_flight`: that is false as soon as `Sent` is in the batch, which may
    /// be before this code has come to it.
    sending: bool,
    eof: bool,
    failed: bool,
}

struct Echo {
    world: SimWorld,
    driver: SimDriver,
    arena: Arena,
    sessions: BTreeMap<Conn, Session>,
    accepted: u32,
    released: u64,
    modes: u64,
}

impl Echo {
    fn new(world: &SimWorld, shard: u32, arena: &Arena) -> Echo {
        let mut driver = world.driver(shard);
        driver.listen(address(), &options()).expect("free address");
        Echo {
            world: world.clone(),
            driver,
            arena: arena.clone(),
            sessions: BTreeMap::new(),
            accepted: 0,
            released: 0,
            modes: 3,
        }
    }

    fn reply(&self, data: &[u8]) -> Reply {
        match self.world.draw(self.modes) {
            0 => Reply::Shared(block(&self.arena, data), 0..data.len() as u32),
            1 => {
                let (head, rest) = data.split_at(data.len() / 3);
                Reply::Mixed(head.to_vec(), block(&self.arena, rest), 0)
            }
            _ => Reply::Heap(Bytes::copy_from_slice(data)),
        }
    }

    fn turn(&mut self) {
        let mut events = Vec::new();
        self.driver.turn(None, &mut events).expect("the simulator does not fail");
        for event in events {
            self.react(event);
        }
    }

    fn react(&mut self, event: Event) {
        let conn = super::shard::conn_of(&event);
        if let Event::Accepted { conn, .. } = event {
            self.sessions.insert(conn, Session::default());
            self.accepted += 1;
            self.driver.receive(conn);
            return;
        }
        let Some(conn) = conn else { return };
        if matches!(event, Event::Closed { .. }) {
            self.sessions.remove(&conn).expect("closed once");
            return;
        }
        let replies = match &event {
            Event::Received { data, .. } => Some(self.reply(data)),
            _ => None,
        };
        let session = self.sessions.get_mut(&conn).expect("events only while open");
        if session.failed {
            return; // The rest of a batch after our close.
        }
        match event {
            Event::Received { .. } => session.replies.extend(replies),
            Event::ReceiveEnded { ended: Ended::Eof, .. } => session.eof = true,
            Event::ReceiveEnded { .. } | Event::Sent { result: Err(_), .. } => {
                session.failed = true;
            }
            Event::Sent { result: Ok(bytes), .. } => {
                session.sending = false;
                if session.replies.front_mut().expect("was sent").advance(bytes) {
                    session.replies.pop_front();
                }
            }
            Event::Released { .. } => self.released += 1,
            other => panic!("unexpected {other:?}"),
        }
        let idle = !session.sending;
        if session.failed || (session.eof && idle && session.replies.is_empty()) {
            session.failed = true;
            self.driver.close(conn);
        } else if idle && let Some(reply) = session.replies.front() {
            session.sending = true;
            let payload = reply.payload(&mut self.driver);
            self.driver.send(conn, payload, SendMode::ZeroCopy);
        }
    }
}

/// A peer that writes its pattern and checks what comes back.
struct Client {
    peer: Peer,
    goal: u64,
    checked: u64,
    wrong: bool,
}

impl Client {
    fn check(&mut self) {
        let bytes = self.peer.read();
        let expected = pattern(self.peer.id(), self.checked..self.checked + bytes.len() as u64);
        self.wrong |= bytes != expected;
        self.checked += bytes.len() as u64;
    }
}

struct Outcome {
    hash: u64,
    events: u64,
    wrong: usize,
    whole: usize,
    broken: usize,
    accepted: Vec<u32>,
    released: u64,
}

/// A run of echo servers and clients until all is over.
fn run(seed: u64, faults: Faults, shards: u32, clients: usize, goal: u64) -> Outcome {
    let world = SimWorld::new(seed, faults);
    let arena = arena();
    world.lend_arena(&arena);
    let mut echoes: Vec<Echo> = (0..shards).map(|id| Echo::new(&world, id, &arena)).collect();
    let mut clients: Vec<Client> = (0..clients)
        .map(|_| Client { peer: world.connect(address()), goal, checked: 0, wrong: false })
        .collect();

    while world.now() < 400 * SECOND {
        let until = world.now() + world.draw(MS);
        while let Some(shard) = world.next_turn(until) {
            echoes[shard as usize].turn();
        }
        let mut over = true;
        for client in &mut clients {
            client.check();
            let peer = &client.peer;
            if peer.is_closed() {
                peer.close();
                continue;
            }
            over = false;
            if world.draw(4) == 0 {
                let written = peer.bytes_written();
                let len = (1 + world.draw(9_000)).min(client.goal - written);
                if len > 0 {
                    peer.write(pattern(peer.id(), written..written + len));
                }
                if written + len == client.goal {
                    peer.half_close();
                }
            }
            match world.draw(64) {
                0 => peer.set_reading(false),
                1..8 => peer.set_reading(true),
                _ => {}
            }
        }
        if over && echoes.iter().all(|echo| echo.sessions.is_empty()) {
            break;
        }
    }
    // Late notifications, the last FINs, memory of connections whose peer stopped reading.
    let until = world.now() + 12 * SECOND;
    while let Some(shard) = world.next_turn(until) {
        echoes[shard as usize].turn();
    }
    for client in &clients {
        assert!(client.peer.is_closed(), "seed {seed}: peer {} never ended", client.peer.id());
    }
    world.assert_quiet();
    assert_eq!(arena.stats().blocks, 0, "seed {seed}: blocks are still held");
    let count = |test: &dyn Fn(&Client) -> bool| clients.iter().filter(|c| test(c)).count();
    Outcome {
        hash: world.trace_hash(),
        events: world.trace_events(),
        wrong: count(&|client| client.wrong),
        whole: count(&|client| client.checked == goal && client.peer.ended() == Some(Ended::Eof)),
        broken: count(&|client| matches!(client.peer.ended(), Some(Ended::Error(_)))),
        accepted: echoes.iter().map(|echo| echo.accepted).collect(),
        released: echoes.iter().map(|echo| echo.released).sum(),
    }
}

#[test]
fn echo_comes_back_whole_in_a_kind_world() {
    let outcome = run(1, Faults::none(), 2, 20, 100_000);
    assert_eq!((outcome.wrong, outcome.whole, outcome.broken), (0, 20, 0));
    assert!(outcome.accepted.iter().all(|&n| n >= 4), "spread {:?}", outcome.accepted);
    assert!(outcome.released > 0);
}

#[test]
fn echo_comes_back_whole_in_a_rough_world() {
    let faults = Faults { accept_failure: 0.0, ..Faults::rough() };
    for seed in 0..20 {
        let outcome = run(seed, faults, 3, 10, 60_000);
        assert_eq!((outcome.wrong, outcome.whole, outcome.broken), (0, 10, 0), "seed {seed}");
    }
}

#[test]
fn two_hundred_seeds_are_deterministic_and_never_wrong() {
    let mut hashes = std::collections::HashSet::new();
    let (mut broken, mut whole) = (0, 0);
    for seed in 0..200 {
        let faults = Faults::seeded(seed);
        let first = run(seed, faults, 2, 6, 20_000);
        let second = run(seed, faults, 2, 6, 20_000);
        assert_eq!((first.hash, first.events), (second.hash, second.events), "seed {seed}");
        assert_eq!(first.wrong, 0, "seed {seed}");
        broken += first.broken;
        whole += first.whole;
        hashes.insert(first.hash);
    }
    assert_eq!(hashes.len(), 200, "each seed is a run of its own");
    assert!(broken > 20 && whole > 600, "{broken} connections reset, {whole} whole");
}

#[test]
fn memory_released_too_early_is_seen_as_wrong_bytes() {
    let caught = |planted: bool| {
        (0..20)
            .filter(|&seed| {
                let faults = Faults {
                    accept_failure: 0.0,
                    zero_copy_copied: 0.0,
                    planted_release_early: planted,
                    ..Faults::rough()
                };
                run(seed, faults, 2, 8, 40_000).wrong > 0
            })
            .count()
    };
    assert_eq!(caught(false), 0);
    assert!(caught(true) >= 15);
}

/// The letters that arrive too late when one shard writes to another and wakes it.
fn late_letters(seed: u64, faults: Faults) -> usize {
    let world = SimWorld::new(seed, faults);
    let (mut writer, mut reader) = (world.driver(0), world.driver(1));
    let target = reader.waker();
    let mailbox: RefCell<VecDeque<u64>> = RefCell::default();
    let (mut written, mut late) = (0, 0);
    let mut next = MS;
    while let Some(shard) = world.next_turn(2 * SECOND) {
        let mut events = Vec::new();
        if shard == 0 {
            writer.turn(Some(next), &mut events).unwrap();
            if writer.now() >= next && written < 100 {
                mailbox.borrow_mut().push_back(writer.now());
                match written % 2 {
                    0 => writer.wake(&target),
                    _ => target.wake(),
                }
                written += 1;
                next = writer.now() + 10 * MS;
            } else if written == 100 {
                next = u64::MAX;
            }
        } else {
            reader.turn(None, &mut events).unwrap();
            if events.iter().any(|event| matches!(event, Event::Woken)) {
                let now = reader.now();
                late += mailbox.borrow_mut().drain(..).filter(|at| now - at > 5 * MS).count();
            }
        }
    }
    assert_eq!(written, 100);
    late + mailbox.borrow().len()
}

#[test]
fn lost_wake_is_noticed() {
    let rough = Faults { spurious_wake: 0.0, stalled_turn: 0.0, ..Faults::rough() };
    let late = |faults: Faults| -> usize { (0..20).map(|seed| late_letters(seed, faults)).sum() };
    assert_eq!(late(rough), 0);
    let lost = late(Faults { planted_lose_wake: true, ..rough });
    assert!((150..400).contains(&lost), "{lost} of 2,000 letters came late");
}

/// A driver without a protocol, for tests that drive it by hand.
struct Bare {
    world: SimWorld,
    driver: SimDriver,
    listener: Listener,
    events: Vec<Event>,
}

impl Bare {
    fn new(faults: Faults) -> Bare {
        let world = SimWorld::new(3, faults);
        let mut driver = world.driver(7);
        let listener = driver.listen(address(), &options()).unwrap();
        Bare { world, driver, listener, events: Vec::new() }
    }

    /// Runs for that long.
    fn pass(&mut self, time: u64) {
        let until = self.world.now() + time;
        while let Some(shard) = self.world.next_turn(until) {
            assert_eq!(shard, 7);
            self.driver.turn(None, &mut self.events).unwrap();
        }
    }

    fn take(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    fn accepted(&mut self) -> (Peer, Conn) {
        let peer = self.world.connect(address());
        self.pass(10 * MS);
        let conn = match self.take().as_slice() {
            [Event::Accepted { conn, listener, peer: from, local }] => {
                assert_eq!(*listener, self.listener);
                assert_eq!((Some(*from), *local), (peer.addr(), address()));
                *conn
            }
            other => panic!("{other:?}"),
        };
        assert!(peer.is_connected());
        (peer, conn)
    }

    fn close(&mut self, conn: Conn) {
        self.driver.close(conn);
        self.driver.close(conn);
        self.pass(2 * SECOND);
        let events = self.take();
        assert!(
            matches!(events.as_slice(), [Event::Closed { conn: closed }] if *closed == conn),
            "{events:?}"
        );
        self.world.assert_quiet();
    }
}

#[test]
fn stalled_reader_fills_window_then_buffer_then_sends_wait() {
    let faults = Faults { send_buffer: 20_000, receive_window: 10_000, ..Faults::none() };
    let mut bare = Bare::new(faults);
    let (peer, conn) = bare.accepted();
    peer.set_reading(false);
    let data = pattern(0, 0..100_000);
    let mut sent = 0;
    loop {
        let rest = Bytes::copy_from_slice(&data[sent..]);
        bare.driver.send(conn, Payload::Bytes(rest), SendMode::Copy);
        bare.pass(10 * MS);
        match bare.take().as_slice() {
            [Event::Sent { result: Ok(bytes), .. }] => sent += *bytes as usize,
            [] => break,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(sent, 30_000, "window and buffer are full");
    assert_eq!(peer.bytes_waiting(), 10_000);
    assert!(bare.driver.send_in_flight(conn));

    bare.driver.cancel_send(conn);
    bare.pass(10 * MS);
    let events = bare.take();
    assert!(
        matches!(events.as_slice(), [Event::Sent { result: Err(Errno(libc::ECANCELED)), .. }]),
        "{events:?}"
    );
    peer.set_reading(true);
    while sent < data.len() {
        let rest = Bytes::copy_from_slice(&data[sent..]);
        bare.driver.send(conn, Payload::Bytes(rest), SendMode::Copy);
        bare.pass(10 * MS);
        match bare.take().as_slice() {
            [Event::Sent { result: Ok(bytes), .. }] => sent += *bytes as usize,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(peer.read(), data);
    assert_eq!(peer.bytes_read(), 100_000);
    bare.close(conn);
    assert_eq!(peer.ended(), Some(Ended::Eof));
}

#[test]
fn cancel_reports_what_was_taken() {
    let faults =
        Faults { send_buffer: 20_000, receive_window: 10_000, held_send: 1.0, ..Faults::none() };
    let mut bare = Bare::new(faults);
    let (peer, conn) = bare.accepted();
    peer.set_reading(false);
    bare.driver.send(conn, Payload::Bytes(pattern(0, 0..100_000).into()), SendMode::Copy);
    bare.pass(10 * MS);
    assert!(bare.take().is_empty() && bare.driver.send_in_flight(conn));
    bare.driver.cancel_send(conn);
    bare.pass(10 * MS);
    let events = bare.take();
    let [Event::Sent { result: Ok(taken), .. }] = events.as_slice() else { panic!("{events:?}") };
    assert!(!bare.driver.send_in_flight(conn));
    peer.set_reading(true);
    bare.pass(10 * MS);
    assert_eq!(peer.read(), pattern(0, 0..u64::from(*taken)));
    bare.close(conn);
}

#[test]
fn zero_copy_memory_is_held_until_the_peer_has_it() {
    let faults = Faults { receive_window: 4_096, ..Faults::none() };
    let mut bare = Bare::new(faults);
    let arena = arena();
    let (peer, conn) = bare.accepted();
    peer.set_reading(false);
    let shared = block(&arena, &pattern(0, 0..10_000));
    bare.driver.send(conn, Payload::Range(whole(&shared)), SendMode::ZeroCopy);
    drop(shared);
    bare.pass(100 * MS);
    let events = bare.take();
    assert!(matches!(events.as_slice(), [Event::Sent { result: Ok(10_000), .. }]), "{events:?}");
    assert_eq!(arena.stats().blocks, 1, "the driver holds the block");
    peer.set_reading(true);
    bare.pass(100 * MS);
    let events = bare.take();
    assert!(matches!(events.as_slice(), [Event::Released { copied: false, .. }]), "{events:?}");
    assert_eq!(arena.stats().blocks, 0);
    assert_eq!(peer.read(), pattern(0, 0..10_000));

    // The memory outlives the connection, but a peer that never reads cannot keep it for ever.
    peer.set_reading(false);
    let shared = block(&arena, &pattern(0, 0..10_000));
    bare.driver.send(conn, Payload::Range(whole(&shared)), SendMode::ZeroCopy);
    drop(shared);
    bare.pass(100 * MS);
    bare.take();
    bare.driver.close(conn);
    bare.pass(SECOND);
    assert!(matches!(bare.take().as_slice(), [Event::Closed { .. }]));
    assert_eq!((arena.stats().blocks, bare.world.leftovers().len()), (1, 1));
    bare.pass(10 * SECOND);
    assert!(bare.take().is_empty());
    bare.world.assert_quiet();
    assert_eq!(arena.stats().blocks, 0);
}

#[test]
fn gather_and_file_arrive_as_given() {
    let mut bare = Bare::new(Faults::rough());
    let arena = arena();
    bare.world.set_faults(Faults { accept_failure: 0.0, spurious_wake: 0.0, ..Faults::rough() });
    let (peer, conn) = bare.accepted();
    let expected = pattern(9, 0..5_000);
    let file = {
        let path = std::env::temp_dir().join(format!("uring-sim-{}", std::process::id()));
        std::fs::write(&path, &expected).unwrap();
        let file = std::fs::File::open(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        std::sync::Arc::new(std::os::fd::OwnedFd::from(file))
    };
    // 1,000 bytes more than the file has: the send ends with what is there.
    let mut sent = 100;
    while sent < 5_000 {
        let payload = Payload::File { file: file.clone(), offset: sent, len: 6_000 - sent as u32 };
        bare.driver.send(conn, payload, SendMode::Copy);
        bare.pass(SECOND);
        match bare.take().as_slice() {
            [Event::Sent { result: Ok(bytes), .. }] => sent += u64::from(*bytes),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(peer.read(), expected[100..]);

    let shared = block(&arena, &expected);
    let mut sent = 0;
    while sent < 35 {
        let mut gather = bare.driver.take_gather();
        gather.head.extend_from_slice(b"0123456789");
        let range = |start, end| Range { block: Rc::new(shared.clone()), start, end };
        let pieces = [Piece::Head(0..3), Piece::Block(range(50, 70)), Piece::Head(3..3)];
        gather.pieces.extend(pieces);
        gather.pieces.extend([Piece::Block(range(0, 5)), Piece::Head(3..10)]);
        // The owner repeats the whole; only the first send counts here.
        bare.driver.send(conn, Payload::Gather(gather), SendMode::ZeroCopy);
        bare.pass(SECOND);
        for event in bare.take() {
            if let Event::Sent { result: Ok(bytes), .. } = event {
                let mut wanted = b"012".to_vec();
                wanted.extend_from_slice(&expected[50..70]);
                wanted.extend_from_slice(&expected[0..5]);
                wanted.extend_from_slice(b"3456789");
                assert_eq!(peer.read(), wanted[..bytes as usize]);
                sent = sent.max(bytes);
            }
        }
    }
    bare.close(conn);
}

#[test]
fn endings_look_as_in_a_kernel() {
    // FIN, then our close.
    let mut bare = Bare::new(Faults::none());
    let (peer, conn) = bare.accepted();
    bare.driver.receive(conn);
    peer.write(&b"last words"[..]);
    peer.half_close();
    assert!(!peer.write(&b"too late"[..]));
    bare.pass(10 * MS);
    let events = bare.take();
    let [Event::Received { data, .. }, Event::ReceiveEnded { ended: Ended::Eof, .. }] =
        events.as_slice()
    else {
        panic!("{events:?}")
    };
    assert_eq!(&data[..], b"last words");
    bare.close(conn);
    assert_eq!(peer.ended(), Some(Ended::Eof));

    // Closing with unread bytes resets, and what was not sent yet is lost.
    bare.world.set_faults(Faults { receive_window: 1_000, ..Faults::none() });
    let (peer, conn) = bare.accepted();
    peer.set_reading(false);
    bare.driver.send(conn, Payload::Bytes(pattern(0, 0..5_000).into()), SendMode::Copy);
    peer.write(&b"nobody reads this"[..]);
    bare.pass(10 * MS);
    assert!(matches!(bare.take().as_slice(), [Event::Sent { result: Ok(5_000), .. }]));
    bare.close(conn);
    peer.set_reading(true);
    bare.world.set_faults(Faults::none());
    assert_eq!(peer.read().len(), 1_000);
    assert_eq!(peer.ended(), Some(Ended::Error(Errno(libc::ECONNRESET))));

    // A reset ends the receive and fails the next send.
    let (peer, conn) = bare.accepted();
    bare.driver.receive(conn);
    peer.reset();
    bare.pass(10 * MS);
    let events = bare.take();
    assert!(
        matches!(
            events.as_slice(),
            [Event::ReceiveEnded { ended: Ended::Error(Errno(libc::ECONNRESET)), .. }]
        ),
        "{events:?}"
    );
    bare.driver.send(conn, Payload::Bytes(Bytes::from_static(b"x")), SendMode::Copy);
    bare.pass(10 * MS);
    let events = bare.take();
    assert!(
        matches!(events.as_slice(), [Event::Sent { result: Err(Errno(libc::EPIPE)), .. }]),
        "{events:?}"
    );
    bare.close(conn);

    // Nobody listens.
    bare.driver.stop_listening(bare.listener);
    let peer = bare.world.connect(address());
    bare.pass(10 * MS);
    assert_eq!(peer.ended(), Some(Ended::Error(Errno(libc::ECONNREFUSED))));
    assert!(bare.take().is_empty());
}

#[test]
fn paused_and_discarding_receives() {
    let mut bare = Bare::new(Faults { receive_window: 4_000, ..Faults::none() });
    let (peer, conn) = bare.accepted();
    peer.write(pattern(0, 0..10_000));
    bare.pass(10 * MS);
    assert!(bare.take().is_empty());
    assert_eq!(peer.bytes_unsent(), 6_000, "the window is the only thing that was filled");
    bare.driver.receive_discard(conn);
    bare.pass(10 * MS);
    let discarded: u32 = bare
        .take()
        .iter()
        .map(|event| match event {
            Event::Discarded { bytes, .. } => *bytes,
            other => panic!("{other:?}"),
        })
        .sum();
    assert_eq!(discarded, 10_000);
    bare.driver.receive_pause(conn);
    bare.pass(10 * MS);
    peer.write(&b"later"[..]);
    bare.pass(10 * MS);
    assert!(bare.take().is_empty());
    bare.driver.receive(conn);
    bare.pass(10 * MS);
    let events = bare.take();
    let [Event::Received { data, .. }] = events.as_slice() else { panic!("{events:?}") };
    assert_eq!(&data[..], b"later");
    bare.close(conn);
    drop(events);
}

#[test]
fn drivers_connect_out() {
    let mut bare = Bare::new(Faults::none());
    let upstream: SocketAddr = "127.0.0.9:1935".parse().unwrap();
    let listener = bare.world.listen_peer(upstream);
    let conn = bare.driver.connect(upstream, &ConnectOptions::default()).unwrap();
    bare.pass(10 * MS);
    assert!(matches!(bare.take().as_slice(), [Event::Connected { result: Ok(()), .. }]));
    let peer = listener.accept().expect("connected");
    bare.driver.send(conn, Payload::Bytes(Bytes::from_static(b"hello")), SendMode::Copy);
    bare.driver.receive(conn);
    peer.write(&b"welcome"[..]);
    bare.pass(10 * MS);
    assert_eq!(peer.read(), b"hello");
    let events = bare.take();
    assert!(
        events.iter().any(|e| matches!(e, Event::Received { data, .. } if **data == *b"welcome"))
    );
    drop(listener);
    bare.close(conn);

    // To itself: both halves are this driver's.
    let conn = bare.driver.connect(address(), &ConnectOptions::default()).unwrap();
    bare.pass(10 * MS);
    let events = bare.take();
    let accepted = events.iter().find_map(|event| match event {
        Event::Accepted { conn, .. } => Some(*conn),
        _ => None,
    });
    assert!(
        events
            .iter()
            .any(|e| matches!(e, Event::Connected { conn: c, result: Ok(()) } if *c == conn))
    );
    for conn in [conn, accepted.expect("accepted")] {
        bare.driver.close(conn);
    }
    bare.pass(SECOND);
    bare.take();
    bare.world.assert_quiet();

    // Refused, and given up before an answer.
    let conn = bare.driver.connect(upstream, &ConnectOptions::default()).unwrap();
    bare.pass(10 * MS);
    let events = bare.take();
    assert!(
        matches!(
            events.as_slice(),
            [Event::Connected { result: Err(Errno(libc::ECONNREFUSED)), .. }]
        ),
        "{events:?}"
    );
    bare.close(conn);
    let conn = bare.driver.connect(address(), &ConnectOptions::default()).unwrap();
    bare.close(conn);
}

#[test]
fn death_of_a_driver_resets_its_connections() {
    let mut bare = Bare::new(Faults::none());
    let (peer, _) = bare.accepted();
    let world = bare.world.clone();
    drop(bare);
    world.advance_to(SECOND);
    assert_eq!(peer.ended(), Some(Ended::Error(Errno(libc::ECONNRESET))));
    world.assert_quiet();
    let mut again = world.driver(7);
    again.listen(address(), &options()).expect("the address is free again");
}

#[test]
fn listening_respects_addresses() {
    let world = SimWorld::new(0, Faults::none());
    let (mut first, mut second) = (world.driver(0), world.driver(1));
    let alone = ListenOptions { reuse_port: false, ..options() };
    let any = "0.0.0.0:0".parse().unwrap();
    let listener = first.listen(any, &alone).unwrap();
    let addr = first.local_addr(listener).unwrap();
    assert_ne!(addr.port(), 0);
    let error = second.listen(addr, &alone).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse);
    let peer = world.connect(SocketAddr::from(([127, 0, 0, 5], addr.port())));
    world.advance_to(SECOND);
    assert!(peer.is_connected(), "the wildcard takes any local address");
    first.stop_listening(listener);
    world.advance_to(2 * SECOND);
    let mut events = Vec::new();
    first.turn(None, &mut events).unwrap();
    assert!(events.is_empty(), "accepted and stopped in one turn: {events:?}");
    while let Some(shard) = world.next_turn(3 * SECOND) {
        let driver = if shard == 0 { &mut first } else { &mut second };
        driver.turn(None, &mut events).unwrap();
    }
    assert!(events.is_empty() && peer.is_closed());
    world.assert_quiet();

    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = socket.local_addr().unwrap();
    let listener = second.listen_on(socket.into()).unwrap();
    assert_eq!(second.local_addr(listener), Some(addr));
}

#[test]
fn deadlines_and_wakes_decide_who_is_next() {
    let world = SimWorld::new(0, Faults::none());
    let mut driver = world.driver(4);
    assert_eq!(world.wake_time(4), Some(0), "a new driver turns at once");
    let mut events = Vec::new();
    driver.turn(Some(5 * MS), &mut events).unwrap();
    assert_eq!(world.wake_time(4), Some(5 * MS));
    assert_eq!(world.next_turn(MS), None);
    assert_eq!(world.now(), MS);
    driver.waker().wake();
    assert_eq!(world.next_turn(SECOND), Some(4));
    assert_eq!(world.now(), MS + 1_000);
    driver.turn(None, &mut events).unwrap();
    assert!(matches!(events.as_slice(), [Event::Woken]));
    assert_eq!(driver.now(), world.now());
    let exact = driver.now_exact();
    assert!(exact >= driver.now() && driver.now_exact() >= exact);
    assert_eq!(world.next_turn(SECOND), Some(4), "a turn that reported something is not asleep");
    driver.turn(None, &mut events).unwrap();
    assert_eq!(world.wake_time(4), None);
}

#[test]
#[should_panic(expected = "second send in flight")]
fn second_send_panics() {
    let mut bare = Bare::new(Faults::none());
    let (_peer, conn) = bare.accepted();
    for _ in 0..2 {
        bare.driver.send(conn, Payload::Bytes(Bytes::from_static(b"x")), SendMode::Copy);
    }
}

#[test]
#[should_panic(expected = "receive after close")]
fn use_after_close_panics() {
    let mut bare = Bare::new(Faults::none());
    let (_peer, conn) = bare.accepted();
    bare.driver.close(conn);
    bare.driver.receive(conn);
}

#[test]
#[should_panic(expected = "which is closed")]
fn use_of_an_old_generation_panics() {
    let mut bare = Bare::new(Faults::none());
    let (_peer, conn) = bare.accepted();
    bare.close(conn);
    let (_peer, next) = bare.accepted();
    assert_eq!(conn.index(), next.index());
    bare.driver.cancel_send(conn);
}

#[test]
#[should_panic(expected = "left behind")]
fn forgotten_connection_is_not_quiet() {
    let mut bare = Bare::new(Faults::none());
    let (peer, _conn) = bare.accepted();
    peer.close();
    bare.pass(SECOND);
    bare.world.assert_quiet();
}
