//! The real ring: waking another shard, and what a send costs by size and mechanism.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::rc::Rc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

use uring::{
    Arena, ArenaOptions, Conn, Driver, Event, Payload, Piece, Range, Ring, RingOptions, SendMode,
};

fn small_ring(arena: Option<Arena>) -> Ring {
    let options = RingOptions { entries: 256, cq_entries: 1_024, arena, ..Default::default() };
    Ring::new(options).expect("these benches need io_uring")
}

fn turn(ring: &mut Ring, events: &mut Vec<Event>) {
    let deadline = ring.now_exact() + 1_000_000_000;
    ring.turn(Some(deadline), events).expect("the ring works");
}

/// There and back between two rings on two threads: two wakes.
fn wake(c: &mut Criterion) {
    let mut here = small_ring(None);
    let (say, hear) = mpsc::channel();
    let back = here.waker();
    let thread = std::thread::spawn(move || {
        let mut there = small_ring(None);
        say.send(there.waker()).expect("the bench waits");
        let mut events = Vec::new();
        // Nobody wakes it for two seconds: the bench is over.
        let mut heard = Instant::now();
        while heard.elapsed() < Duration::from_secs(2) {
            turn(&mut there, &mut events);
            if !events.is_empty() {
                events.clear();
                heard = Instant::now();
                there.wake(&back);
            }
        }
    });
    let there = hear.recv().expect("the thread starts");
    let mut events = Vec::new();
    c.bench_function("wake/there and back", |b| {
        b.iter(|| {
            here.wake(&there);
            events.clear();
            while events.is_empty() {
                turn(&mut here, &mut events);
            }
        });
    });
    let _ = thread.join();
}

/// A connection of the ring over loopback whose peer throws everything away.
fn drained(ring: &mut Ring) -> Conn {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let addr = listener.local_addr().expect("bound");
    ring.listen_on(listener.into()).expect("a listener");
    let peer = TcpStream::connect(addr).expect("the backlog has room");
    std::thread::spawn(move || {
        let mut buffer = vec![0; 1 << 20];
        while matches!(std::io::Read::read(&mut &peer, &mut buffer), Ok(n) if n > 0) {}
    });
    let mut events = Vec::new();
    loop {
        turn(ring, &mut events);
        for event in events.drain(..) {
            if let Event::Accepted { conn, .. } = event {
                return conn;
            }
        }
    }
}

fn sends(c: &mut Criterion) {
    let options = ArenaOptions { limit: 8 << 20, huge_pages: false };
    let arena = Arena::new(options).expect("8 MiB of address space");
    let mut writer = arena.writer(256 << 10).expect("room");
    writer.push(&vec![7; 128 << 10]);
    writer.publish();
    let block = Rc::new(writer.block().clone());
    let mut ring = small_ring(Some(arena));
    let conn = drained(&mut ring);
    let mut group = c.benchmark_group("send");
    group.sample_size(20);
    for size in [1u32 << 10, 4 << 10, 16 << 10, 64 << 10] {
        group.throughput(Throughput::Bytes(u64::from(size)));
        for name in ["send", "sendmsg", "send_zc"] {
            let zero_copy = name == "send_zc";
            let mode = if zero_copy { SendMode::ZeroCopy } else { SendMode::Copy };
            let mut events = Vec::new();
            group.bench_function(BenchmarkId::new(name, size), |b| {
                b.iter(|| {
                    let mut at = 0;
                    // A full socket takes a part; the rest follows.
                    while at < size {
                        let range = |start, end| Range { block: block.clone(), start, end };
                        let payload = if name == "sendmsg" {
                            let middle = at + (size - at) / 2;
                            let mut gather = ring.take_gather();
                            gather.pieces.push(Piece::Block(range(at, middle)));
                            gather.pieces.push(Piece::Block(range(middle, size)));
                            Payload::Gather(gather)
                        } else {
                            Payload::Range(range(at, size))
                        };
                        ring.send(conn, payload, mode);
                        at += sent(&mut ring, &mut events, zero_copy);
                    }
                });
            });
        }
    }
    group.finish();
}

/// Waits for the result of the send, and for its memory where it was lent.
fn sent(ring: &mut Ring, events: &mut Vec<Event>, zero_copy: bool) -> u32 {
    let (mut taken, mut released) = (None, !zero_copy);
    loop {
        turn(ring, events);
        for event in events.drain(..) {
            match event {
                Event::Sent { result, .. } => taken = Some(result.expect("the peer reads")),
                Event::Released { .. } => released = true,
                _ => {}
            }
        }
        if let (Some(taken), true) = (taken, released) {
            return taken;
        }
    }
}

criterion_group!(benches, wake, sends);
criterion_main!(benches);
