//! Sends of every kind against real sockets: what was taken, what arrives, what is let go when.

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use common::*;
use uring::{Conn, Driver, Errno, Event, Payload, Piece, Range, SendMode, ZeroCopy};

/// Sends until the socket is full and a send stays in flight. Returns what was taken.
fn fill(bench: &mut Bench, conn: Conn) -> Vec<u8> {
    let bytes = Bytes::from(pattern(200, 1 << 20));
    let mut taken = Vec::new();
    loop {
        bench.ring.send(conn, Payload::Bytes(bytes.clone()), SendMode::Copy);
        bench.idle(Duration::from_millis(20));
        if bench.ring.send_in_flight(conn) {
            return taken;
        }
        let count = bench.sent(conn).expect("connected") as usize;
        taken.extend_from_slice(&bytes[..count]);
    }
}

/// Reads everything on another thread, slowly, until the end of the stream.
fn slow_reader(mut peer: TcpStream, pause: Duration) -> std::thread::JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let (mut all, mut piece) = (Vec::new(), vec![0; 50_000]);
        loop {
            match peer.read(&mut piece).expect("connected") {
                0 => return all,
                count => all.extend_from_slice(&piece[..count]),
            }
            std::thread::sleep(pause);
        }
    })
}

#[test]
fn full_socket_takes_a_part() {
    let mut bench = Bench::new();
    let (conn, mut peer) = bench.pair();
    let bytes = pattern(1, 32 << 20);
    bench.ring.send(conn, Payload::Bytes(Bytes::from(bytes.clone())), SendMode::Copy);
    let taken = bench.sent(conn).expect("connected") as usize;
    assert!(taken > 0 && taken < bytes.len(), "{taken}");
    assert_eq!(bench.ring.stats().sends_short, 1);
    assert!(read_exactly(&mut peer, taken) == bytes[..taken]);
}

#[test]
fn cancelled_send_took_nothing_and_the_stream_goes_on() {
    let mut bench = Bench::new();
    let (conn, mut peer) = bench.pair();
    let mut expected = fill(&mut bench, conn);
    bench.ring.cancel_send(conn);
    assert_eq!(bench.sent(conn), Err(Errno(libc::ECANCELED)));
    assert!(!bench.ring.send_in_flight(conn));
    bench.ring.send(conn, Payload::Bytes(Bytes::from_static(b"after")), SendMode::Copy);
    let arrived = read_exactly(&mut peer, expected.len());
    assert_eq!(bench.sent(conn), Ok(5));
    expected.extend_from_slice(b"after");
    let rest = read_exactly(&mut peer, 5);
    assert!([arrived, rest].concat() == expected);
}

#[test]
fn close_ends_a_send_that_waits() {
    let mut bench = Bench::new();
    let (conn, peer) = bench.pair();
    let taken = fill(&mut bench, conn);
    bench.ring.close(conn);
    bench.closed(conn);
    assert!(bench.events.is_empty(), "{:?}", bench.events);
    let arrived = slow_reader(peer, Duration::ZERO).join().expect("no panic");
    assert!(arrived == taken);
}

#[test]
#[should_panic(expected = "one send at a time")]
fn two_sends_at_once_are_a_bug() {
    let mut bench = Bench::new();
    let (conn, _peer) = bench.pair();
    for _ in 0..2 {
        bench.ring.send(conn, Payload::Bytes(Bytes::from_static(b"x")), SendMode::Copy);
    }
}

#[test]
fn send_to_a_peer_that_is_gone_is_an_error() {
    let mut bench = Bench::new();
    let (conn, peer) = bench.pair();
    drop(peer);
    let end = Instant::now() + PATIENCE;
    loop {
        assert!(Instant::now() < end);
        bench.ring.send(conn, Payload::Bytes(Bytes::from_static(b"x")), SendMode::Copy);
        if let Err(errno) = bench.sent(conn) {
            assert!(matches!(errno.0, libc::EPIPE | libc::ECONNRESET), "{errno}");
            return;
        }
    }
}

/// Sends ranges of all blocks to all modes; the receiver is slow, so that sends are short, wait,
/// and zero-copy memory stays referenced for long.
fn ranges_arrive(mode: SendMode, zero_copy: ZeroCopy) {
    let mut bench = Bench::with(|options| options.zero_copy = zero_copy);
    let (conn, peer) = bench.pair();
    let reader = slow_reader(peer, Duration::from_micros(300));
    let mut expected = Vec::new();
    for seed in 0..120u8 {
        let len = 1000 + usize::from(seed) * 1500;
        let range = bench.range(seed, len);
        let skipped = len / 7;
        expected.extend_from_slice(&pattern(seed, len)[skipped..]);
        bench.send_all(conn, Range { start: skipped as u32, ..range }, mode);
        // The range and its writer are gone: the block's memory would be reused at once, were it
        // not held until the kernel lets go.
    }
    let stats = bench.ring.stats();
    match (mode, zero_copy) {
        (SendMode::ZeroCopy, ZeroCopy::Registered | ZeroCopy::Unregistered) => {
            assert_eq!(stats.sends_zero_copy, stats.sends);
            for _ in 0..stats.sends_zero_copy {
                bench.released(conn);
            }
            let registered = zero_copy == ZeroCopy::Registered;
            assert_eq!(bench.ring.registration().slabs > 0, registered);
            // Loopback copies, and says so.
            assert_eq!(bench.ring.stats().zero_copy_copied, stats.sends_zero_copy);
        }
        _ => assert_eq!(stats.sends_zero_copy, 0),
    }
    assert_eq!(bench.ring.holds(), 0);
    assert_eq!(bench.arena.stats().blocks, 0);
    bench.ring.close(conn);
    bench.closed(conn);
    assert!(reader.join().expect("no panic") == expected, "bytes differ");
    assert_eq!(bench.ring.registration().diagnostic, None);
}

#[test]
fn ranges_arrive_by_copy() {
    ranges_arrive(SendMode::Copy, ZeroCopy::Registered);
}

#[test]
fn ranges_arrive_from_registered_memory() {
    ranges_arrive(SendMode::ZeroCopy, ZeroCopy::Registered);
}

#[test]
fn ranges_arrive_from_unregistered_memory() {
    ranges_arrive(SendMode::ZeroCopy, ZeroCopy::Unregistered);
}

#[test]
fn ranges_arrive_when_zero_copy_is_off() {
    ranges_arrive(SendMode::ZeroCopy, ZeroCopy::Off);
}

#[test]
fn result_comes_before_the_release_and_memory_waits_for_it() {
    let mut bench = Bench::new();
    let (conn, mut peer) = bench.pair();
    let range = bench.range(9, 600_000);
    bench.ring.send(conn, Payload::Range(range), SendMode::ZeroCopy);
    let taken = bench.sent(conn).expect("connected") as usize;
    // The peer has not read: some of it may not even have left.
    assert_eq!(bench.arena.stats().blocks, bench.ring.holds());
    let arrived = read_exactly(&mut peer, taken);
    bench.released(conn);
    assert_eq!((bench.ring.holds(), bench.arena.stats().blocks), (0, 0));
    assert!(arrived == pattern(9, 600_000)[..taken]);
}

#[test]
fn gathers_arrive_in_every_mode() {
    for zero_copy in [ZeroCopy::Registered, ZeroCopy::Unregistered, ZeroCopy::Off] {
        let mut bench = Bench::with(|options| options.zero_copy = zero_copy);
        let (conn, mut peer) = bench.pair();
        for mode in [SendMode::Copy, SendMode::ZeroCopy] {
            for heads in [true, false] {
                let mut gather = bench.ring.take_gather();
                let mut expected = Vec::new();
                for seed in 0..10u8 {
                    if heads {
                        let start = gather.head.len() as u32;
                        gather.head.extend_from_slice(&[seed; 12]);
                        gather.pieces.push(Piece::Head(start..start + 12));
                        expected.extend_from_slice(&[seed; 12]);
                    }
                    // All in one slab, so that a registered vectored send is possible.
                    gather.pieces.push(Piece::Block(bench.range(seed, 3000)));
                    expected.extend_from_slice(&pattern(seed, 3000));
                }
                bench.ring.send(conn, Payload::Gather(gather), mode);
                assert_eq!(bench.sent(conn), Ok(expected.len() as u32));
                assert!(read_exactly(&mut peer, expected.len()) == expected);
                if mode == SendMode::ZeroCopy && zero_copy != ZeroCopy::Off {
                    bench.released(conn);
                }
                assert_eq!(bench.arena.stats().blocks, 0, "{mode:?} {heads}");
            }
        }
        assert_eq!(bench.ring.registration().diagnostic, None);
        // Recycled, empty.
        let gather = bench.ring.take_gather();
        assert!(gather.head.capacity() > 0 && gather.head.is_empty() && gather.pieces.is_empty());
    }
}

#[test]
fn gather_of_a_full_socket_is_taken_in_part() {
    let mut bench = Bench::new();
    let (conn, mut peer) = bench.pair();
    let mut gather = bench.ring.take_gather();
    let mut expected = Vec::new();
    for seed in 0..20 {
        gather.pieces.push(Piece::Block(bench.range(seed, 1_000_000)));
        expected.extend(pattern(seed, 1_000_000));
    }
    bench.ring.send(conn, Payload::Gather(gather), SendMode::Copy);
    let taken = bench.sent(conn).expect("connected") as usize;
    assert!(taken < expected.len());
    assert_eq!(bench.ring.stats().sends_short, 1);
    assert!(read_exactly(&mut peer, taken) == expected[..taken]);
    assert_eq!(bench.arena.stats().blocks, 0);
}

#[test]
fn connection_closes_before_its_notifications_and_memory_follows() {
    let mut bench = Bench::new();
    let (conn, peer) = bench.pair();
    // Until the receiver's window is closed and bytes wait in our socket.
    loop {
        let range = bench.range(3, 900_000);
        bench.ring.send(conn, Payload::Range(range), SendMode::ZeroCopy);
        bench.idle(Duration::from_millis(20));
        if bench.ring.send_in_flight(conn) {
            break;
        }
    }
    bench.events.clear();
    bench.ring.close(conn);
    bench.closed(conn);
    assert!(bench.events.is_empty(), "{:?}", bench.events);
    // On loopback the kernel has copied and let go already or does so when the peer is gone; on
    // any route nothing may be left after that.
    drop(peer);
    let end = Instant::now() + PATIENCE;
    while bench.ring.holds() > 0 {
        assert!(Instant::now() < end, "{} holds", bench.ring.holds());
        bench.turn(Duration::from_millis(50));
    }
    assert_eq!(bench.arena.stats().blocks, 0);
    assert!(bench.events.is_empty(), "{:?}", bench.events);
}

#[test]
fn slabs_are_let_go_when_streams_end() {
    let mut bench = Bench::new();
    let (conn, peer) = bench.pair();
    let reader = slow_reader(peer, Duration::ZERO);
    let ranges: Vec<_> = (0..10).map(|seed| bench.range(seed, 1_000_000)).collect();
    for range in &ranges {
        bench.send_all(conn, range.clone(), SendMode::ZeroCopy);
    }
    let sends = bench.ring.stats().sends_zero_copy;
    for _ in 0..sends {
        bench.released(conn);
    }
    assert_eq!(bench.ring.registration().slabs, 5);
    drop(ranges);
    bench.turn(Duration::ZERO);
    assert!(bench.ring.registration().slabs <= 1);
    assert!(bench.arena.stats().reserved <= 2 << 20);
    // And taken again when there is something to send.
    let range = bench.range(77, 1_000_000);
    bench.send_all(conn, range, SendMode::ZeroCopy);
    bench.ring.close(conn);
    bench.closed(conn);
    let arrived = reader.join().expect("no panic");
    let expected = (0..10).chain([77]).flat_map(|seed| pattern(seed, 1_000_000));
    assert!(arrived == expected.collect::<Vec<u8>>());
}

fn file(bytes: &[u8]) -> Arc<OwnedFd> {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let name = format!("uring-test-{}-{number}", std::process::id());
    let path = std::env::temp_dir().join(name);
    std::fs::File::create(&path).and_then(|mut f| f.write_all(bytes)).expect("a temporary file");
    let file = std::fs::File::open(&path).expect("just written");
    std::fs::remove_file(path).expect("just written");
    Arc::new(file.into())
}

fn part(file: &Arc<OwnedFd>, offset: u64, len: usize) -> Payload {
    Payload::File { file: Arc::clone(file), offset, len: len as u32 }
}

#[test]
fn file_arrives_at_a_slow_reader() {
    let mut bench = Bench::new();
    let (conn, peer) = bench.pair();
    let bytes = pattern(5, 6_000_000);
    let file = file(&bytes);
    let reader = slow_reader(peer, Duration::from_millis(1));
    let (offset, len) = (12_345, 5_500_000);
    bench.ring.send(conn, part(&file, offset, len), SendMode::Copy);
    assert_eq!(bench.sent(conn), Ok(len as u32));
    // Other sends of the connection work as before.
    bench.ring.send(conn, Payload::Bytes(Bytes::from_static(b"tail")), SendMode::Copy);
    assert_eq!(bench.sent(conn), Ok(4));
    bench.ring.close(conn);
    bench.closed(conn);
    let arrived = reader.join().expect("no panic");
    let offset = offset as usize;
    assert_eq!(arrived.len(), len + 4);
    assert!(arrived[..len] == bytes[offset..offset + len]);
    assert_eq!(&arrived[len..], b"tail");
    assert_eq!(Arc::strong_count(&file), 1);
}

#[test]
fn file_that_is_too_short_is_sent_as_far_as_it_goes() {
    let mut bench = Bench::new();
    let (conn, mut peer) = bench.pair();
    let bytes = pattern(6, 10_000);
    let file = file(&bytes);
    bench.ring.send(conn, part(&file, 4_000, 100_000), SendMode::Copy);
    assert_eq!(bench.sent(conn), Ok(6_000));
    assert!(read_exactly(&mut peer, 6_000) == bytes[4_000..]);
    bench.ring.send(conn, part(&file, 10_000, 1), SendMode::Copy);
    assert_eq!(bench.sent(conn), Err(Errno(libc::ENODATA)));
    bench.ring.send(conn, part(&file, 0, 0), SendMode::Copy);
    assert_eq!(bench.sent(conn), Ok(0));
}

#[test]
fn stalled_file_send_can_be_cancelled_and_closed() {
    let mut bench = Bench::new();
    let bytes = pattern(7, 20_000_000);
    let file = file(&bytes);
    let (conn, mut peer) = bench.pair();
    bench.ring.send(conn, part(&file, 0, bytes.len()), SendMode::Copy);
    bench.idle(Duration::from_millis(200));
    assert!(bench.ring.send_in_flight(conn), "nobody reads");
    bench.ring.cancel_send(conn);
    let taken = bench.sent(conn).expect("some was taken") as usize;
    assert!(taken > 0 && taken < bytes.len());
    bench.ring.send(conn, part(&file, taken as u64, 1_000_000), SendMode::Copy);
    assert!(read_exactly(&mut peer, taken) == bytes[..taken]);
    assert_eq!(bench.sent(conn), Ok(1_000_000));
    assert!(read_exactly(&mut peer, 1_000_000) == bytes[taken..taken + 1_000_000]);

    bench.ring.send(conn, part(&file, 0, bytes.len()), SendMode::Copy);
    bench.idle(Duration::from_millis(200));
    bench.ring.close(conn);
    let started = Instant::now();
    bench.closed(conn);
    assert!(started.elapsed() < Duration::from_secs(2));
    assert_eq!(Arc::strong_count(&file), 1);
    let closed = bench.events.iter().any(|event| matches!(event, Event::Sent { .. }));
    assert!(!closed, "{:?}", bench.events);
}

/// On a route that never acknowledges, the memory comes back all the same: the kernel gives up on
/// what a closed connection has not delivered.
#[test]
#[ignore = "takes eleven seconds"]
fn peer_that_never_reads_cannot_keep_memory_after_the_close() {
    let mut bench = Bench::new();
    let (conn, _peer) = bench.pair();
    loop {
        let range = bench.range(3, 900_000);
        bench.ring.send(conn, Payload::Range(range), SendMode::ZeroCopy);
        bench.idle(Duration::from_millis(20));
        if bench.ring.send_in_flight(conn) {
            break;
        }
    }
    bench.ring.close(conn);
    bench.closed(conn);
    assert!(bench.ring.holds() > 0);
    let end = Instant::now() + Duration::from_secs(30);
    while bench.ring.holds() > 0 {
        assert!(Instant::now() < end, "{} holds", bench.ring.holds());
        bench.turn(Duration::from_millis(100));
    }
    assert_eq!(bench.arena.stats().blocks, 0);
}
