//! Receives against real sockets: few buffers, pauses, discarding, tiny queues.

mod common;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use bytes::Bytes;
use common::*;
use uring::{Conn, Driver, Ended, Event, Payload, SendMode};

fn received(bench: &mut Bench, conn: Conn) -> Vec<Event> {
    let mut taken = Vec::new();
    for event in std::mem::take(&mut bench.events) {
        match &event {
            Event::Received { conn: other, .. } if *other == conn => taken.push(event),
            _ => bench.events.push(event),
        }
    }
    taken
}

fn bytes_of(events: &[Event]) -> Vec<u8> {
    let data = events.iter().filter_map(|event| match event {
        Event::Received { data, .. } => Some(&data[..]),
        _ => None,
    });
    data.collect::<Vec<_>>().concat()
}

/// Runs a test with either way of using up buffers; older kernels know only one.
fn either_way(test: impl Fn(bool)) {
    test(false);
    if uring::probe().expect("the tests need io_uring").incremental_buffers {
        test(true);
    }
}

#[test]
fn empty_buffer_ring_is_waited_for() {
    either_way(empty_buffer_ring);
}

fn empty_buffer_ring(incremental: bool) {
    let mut bench = Bench::with(|options| {
        options.receive_buffers = 4;
        options.receive_buffer_size = 4096;
        options.incremental_buffers = incremental;
    });
    assert_eq!(bench.ring.incremental_buffers(), incremental);
    let (conn, mut peer) = bench.pair();
    let bytes = pattern(1, 100_000);
    bench.ring.receive(conn);
    peer.write_all(&bytes).expect("the socket holds it");
    bench.idle(Duration::from_millis(50));
    // All buffers are with us now, and so nothing more arrives.
    let held = received(&mut bench, conn);
    assert_eq!(bytes_of(&held).len(), 4 * 4096);
    assert!(bench.ring.stats().receive_no_buffers > 0);
    let enters = bench.ring.stats().enters;
    bench.idle(Duration::from_millis(50));
    assert!(received(&mut bench, conn).is_empty());
    assert!(bench.ring.stats().enters < enters + 10, "waiting is not spinning");
    let mut arrived = bytes_of(&held);
    drop(held);
    while arrived.len() < bytes.len() {
        arrived.extend(bench.receive(conn, 1));
    }
    assert!(arrived == bytes);
    peer.shutdown(Shutdown::Write).expect("connected");
    assert_eq!(bench.ended(conn), Ended::Eof);
}

#[test]
fn starved_connections_all_get_their_turn() {
    either_way(starved_connections);
}

fn starved_connections(incremental: bool) {
    let mut bench = Bench::with(|options| {
        options.receive_buffers = 2;
        options.receive_buffer_size = 1024;
        options.incremental_buffers = incremental;
    });
    let (_, addr) = bench.listen();
    let mut pairs: Vec<_> = (0..20).map(|_| bench.accept(addr)).collect();
    for (number, (conn, peer)) in pairs.iter_mut().enumerate() {
        bench.ring.receive(*conn);
        peer.write_all(&pattern(number as u8, 10_000)).expect("the socket holds it");
    }
    // One of them is closed while it waits.
    let (gone, _) = pairs.pop().expect("twenty");
    bench.idle(Duration::from_millis(5));
    bench.ring.close(gone);
    let mut arrived = vec![Vec::new(); 20];
    let end = std::time::Instant::now() + PATIENCE;
    while arrived[..19].iter().any(|bytes| bytes.len() < 10_000) {
        assert!(std::time::Instant::now() < end);
        bench.turn(Duration::from_millis(100));
        for event in bench.events.drain(..) {
            if let Event::Received { conn, data } = event {
                let number = pairs.iter().position(|(other, _)| *other == conn);
                arrived[number.unwrap_or(19)].extend_from_slice(&data);
            }
        }
    }
    for (number, bytes) in arrived[..19].iter().enumerate() {
        assert!(*bytes == pattern(number as u8, 10_000), "connection {number}");
    }
    assert!(bench.ring.stats().receive_no_buffers > 0);
}

#[test]
fn pause_holds_the_peer_back_and_loses_nothing() {
    either_way(pause_holds_back);
}

fn pause_holds_back(incremental: bool) {
    let mut bench = Bench::with(|options| options.incremental_buffers = incremental);
    let (conn, peer) = bench.pair();
    let bytes = pattern(2, 20_000_000);
    let expected = bytes.clone();
    let writer = std::thread::spawn(move || {
        let mut peer = peer;
        peer.write_all(&bytes).expect("connected");
        peer
    });
    bench.ring.receive(conn);
    let mut arrived = bench.receive(conn, 100_000);
    for _ in 0..5 {
        bench.ring.receive_pause(conn);
        // What was on the way still comes; then it is quiet.
        bench.idle(Duration::from_millis(20));
        arrived.extend(bytes_of(&received(&mut bench, conn)));
        bench.idle(Duration::from_millis(50));
        assert!(received(&mut bench, conn).is_empty());
        assert!(!writer.is_finished());
        bench.ring.receive(conn);
        // Off and on again before the first cancel is through.
        bench.ring.receive_pause(conn);
        bench.ring.receive(conn);
        arrived.extend(bench.receive(conn, 200_000));
    }
    while arrived.len() < expected.len() {
        arrived.extend(bench.receive(conn, 1));
    }
    assert!(arrived == expected);
    drop(writer.join().expect("no panic"));
    assert_eq!(bench.ended(conn), Ended::Eof);
}

#[test]
fn discard_counts_every_byte() {
    let mut bench = Bench::new();
    let (conn, mut peer) = bench.pair();
    let discarded = |bench: &mut Bench, len: u64| {
        let mut count = 0;
        while count < len {
            count += bench.until("discarded", |event| match event {
                Event::Discarded { conn: other, bytes } if *other == conn => {
                    Some(u64::from(*bytes))
                }
                _ => None,
            });
        }
        count
    };
    bench.ring.receive_discard(conn);
    for round in 1..10 {
        peer.write_all(&vec![1; round * 10_000]).expect("connected");
        assert_eq!(discarded(&mut bench, round as u64 * 10_000), round as u64 * 10_000);
    }
    // To buffers and back again.
    bench.ring.receive(conn);
    bench.idle(Duration::from_millis(10));
    peer.write_all(b"listen").expect("connected");
    assert_eq!(bench.receive(conn, 6), b"listen");
    bench.ring.receive_discard(conn);
    bench.idle(Duration::from_millis(10));
    peer.write_all(b"ignore").expect("connected");
    assert_eq!(discarded(&mut bench, 6), 6);
    drop(peer);
    assert_eq!(bench.ended(conn), Ended::Eof);
}

#[test]
fn tiny_queues_lose_nothing() {
    either_way(tiny_queues);
}

fn tiny_queues(incremental: bool) {
    let mut bench = Bench::with(|options| {
        options.entries = 8;
        options.cq_entries = 16;
        options.incremental_buffers = incremental;
    });
    let (_, addr) = bench.listen();
    let mut pairs: Vec<_> = (0..100).map(|_| bench.accept(addr)).collect();
    let mut sent = vec![0; pairs.len()];
    let mut arrived = vec![Vec::new(); pairs.len()];
    for (conn, _) in &pairs {
        bench.ring.receive(*conn);
    }
    let mut expected = Vec::new();
    for round in 0..20u8 {
        let bytes = pattern(round, 300);
        for (conn, peer) in &mut pairs {
            peer.write_all(&bytes).expect("connected");
            // More operations than the submission queue has room for.
            bench.ring.send(*conn, Payload::Bytes(Bytes::from(bytes.clone())), SendMode::Copy);
        }
        expected.extend(bytes);
        let end = std::time::Instant::now() + PATIENCE;
        loop {
            assert!(std::time::Instant::now() < end);
            bench.turn(Duration::from_millis(100));
            for event in bench.events.drain(..) {
                let number = |conn| pairs.iter().position(|(other, _)| *other == conn);
                match event {
                    Event::Received { conn, data } => {
                        arrived[number(conn).expect("ours")].extend_from_slice(&data);
                    }
                    Event::Sent { conn, result } => {
                        assert_eq!(result, Ok(300));
                        sent[number(conn).expect("ours")] += 300;
                    }
                    other => panic!("{other:?}"),
                }
            }
            let done = sent.iter().all(|&sent| sent == expected.len())
                && arrived.iter().all(|bytes| bytes.len() == expected.len());
            if done {
                break;
            }
        }
    }
    for (number, (_, peer)) in pairs.iter_mut().enumerate() {
        assert!(arrived[number] == expected, "connection {number}");
        assert!(read_exactly(peer, expected.len()) == expected, "connection {number}");
    }
    let stats = bench.ring.stats();
    assert!(stats.cq_overflows > 0, "{stats:?}");
    assert_eq!(stats.stale_completions, 0);
}

#[test]
fn a_turn_without_events_ends_at_its_deadline() {
    let mut bench = Bench::new();
    let (_conn, _peer): (Conn, TcpStream) = bench.pair();
    bench.idle(Duration::from_millis(5));
    let started = std::time::Instant::now();
    bench.turn(Duration::from_millis(60));
    let took = started.elapsed();
    assert!(took >= Duration::from_millis(60) && took < Duration::from_secs(2), "{took:?}");
    let started = std::time::Instant::now();
    bench.ring.turn(Some(0), &mut bench.events).expect("the ring works");
    assert!(started.elapsed() < Duration::from_millis(50));
    assert!(bench.events.is_empty());
    assert!(bench.ring.now() <= bench.ring.now_exact());
}

#[test]
fn end_is_reported_after_all_bytes() {
    let mut bench = Bench::new();
    let (conn, mut peer) = bench.pair();
    let bytes = pattern(3, 500_000);
    let copy = bytes.clone();
    let writer = std::thread::spawn(move || {
        peer.write_all(&copy).expect("connected");
        peer.shutdown(Shutdown::Write).expect("connected");
        let mut rest = Vec::new();
        peer.read_to_end(&mut rest).expect("connected");
        rest
    });
    bench.ring.receive(conn);
    let mut arrived = Vec::new();
    let mut ended = false;
    while !ended {
        bench.turn(Duration::from_secs(1));
        for event in bench.events.drain(..) {
            match event {
                Event::Received { data, .. } => arrived.extend_from_slice(&data),
                Event::ReceiveEnded { ended: how, .. } => {
                    assert_eq!(how, Ended::Eof);
                    ended = true;
                }
                other => panic!("{other:?}"),
            }
        }
    }
    assert!(arrived == bytes);
    // Our direction is still open.
    bench.ring.send(conn, Payload::Bytes(Bytes::from_static(b"bye")), SendMode::Copy);
    assert_eq!(bench.sent(conn), Ok(3));
    bench.ring.close(conn);
    assert_eq!(writer.join().expect("no panic"), b"bye");
}

#[test]
fn gathered_completions_come_together() {
    let mut bench = Bench::new();
    let (_, addr) = bench.listen();
    let mut pairs: Vec<_> = (0..20).map(|_| bench.accept(addr)).collect();
    pairs.iter().for_each(|(conn, _)| bench.ring.receive(*conn));
    bench.idle(Duration::from_millis(20));
    if !uring::probe().expect("the tests need io_uring").min_wait {
        return;
    }
    bench.ring.gather_completions(20, 200_000_000);
    let writer = std::thread::spawn(move || {
        for (_, peer) in &mut pairs {
            std::thread::sleep(Duration::from_millis(1));
            peer.write_all(b"piece").expect("connected");
        }
        pairs
    });
    let mut turns = 0;
    while bench.events.len() < 20 {
        bench.turn(PATIENCE);
        turns += 1;
    }
    assert!(turns <= 3, "{turns} turns");
    // Fewer than asked for: they come when the time is over.
    let mut pairs = writer.join().expect("no panic");
    bench.events.clear();
    pairs[3].1.write_all(b"alone").expect("connected");
    let started = std::time::Instant::now();
    bench.turn(PATIENCE);
    assert_eq!(bench.events.len(), 1);
    assert!(started.elapsed() < PATIENCE / 2);
    // The deadline ends a turn, however long the gathering may last, with events and without.
    bench.events.clear();
    bench.ring.gather_completions(20, 10_000_000_000);
    for text in ["", "soon"] {
        pairs[5].1.write_all(text.as_bytes()).expect("connected");
        let started = std::time::Instant::now();
        bench.turn(Duration::from_millis(20));
        let took = started.elapsed();
        assert!(took >= Duration::from_millis(20) && took < Duration::from_secs(5), "{took:?}");
    }
    assert_eq!(bench.events.len(), 1);
    // Off: one event ends a turn.
    bench.events.clear();
    bench.ring.gather_completions(20, 0);
    pairs[7].1.write_all(b"now").expect("connected");
    let started = std::time::Instant::now();
    bench.turn(PATIENCE);
    assert_eq!(bench.events.len(), 1);
    assert!(started.elapsed() < Duration::from_secs(5));
}

#[test]
fn small_arrivals_share_a_buffer() {
    if !uring::probe().expect("the tests need io_uring").incremental_buffers {
        return;
    }
    // One buffer of 64 KiB, and 100 connections whose first arrivals are all held.
    let mut bench = Bench::with(|options| options.receive_buffers = 4);
    let (_, addr) = bench.listen();
    let mut pairs: Vec<_> = (0..100).map(|_| bench.accept(addr)).collect();
    for (number, (conn, peer)) in pairs.iter_mut().enumerate() {
        bench.ring.receive(*conn);
        peer.write_all(&pattern(number as u8, 500 + number)).expect("connected");
    }
    let end = std::time::Instant::now() + PATIENCE;
    while bench.events.len() < 100 {
        assert!(std::time::Instant::now() < end);
        bench.turn(Duration::from_millis(100));
    }
    for (number, (conn, _)) in pairs.iter().enumerate() {
        let arrived = bytes_of(&received(&mut bench, *conn));
        assert!(arrived == pattern(number as u8, 500 + number), "connection {number}");
    }
    assert_eq!(bench.ring.stats().receive_no_buffers, 0);
}

#[test]
fn a_held_piece_stays_as_it_is() {
    if !uring::probe().expect("the tests need io_uring").incremental_buffers {
        return;
    }
    // Four buffers of 16 KiB, of which one is in use until many connections want more.
    let mut bench = Bench::with(|options| {
        options.receive_buffers = 16;
        options.receive_buffer_size = 4096;
    });
    let (conn, mut peer) = bench.pair();
    bench.ring.receive(conn);
    peer.write_all(&pattern(1, 700)).expect("connected");
    bench.idle(Duration::from_millis(20));
    let held = received(&mut bench, conn);
    // The rest of that buffer, and then nothing more for as long as the piece is held.
    peer.write_all(&pattern(2, 60_000)).expect("the socket holds it");
    bench.idle(Duration::from_millis(20));
    let mut arrived = bytes_of(&received(&mut bench, conn));
    assert_eq!(arrived.len(), 16_384 - 700);
    bench.idle(Duration::from_millis(20));
    assert!(received(&mut bench, conn).is_empty());
    assert!(bytes_of(&held) == pattern(1, 700));
    bench.ring.receive_pause(conn);
    // Many others that find no buffer: more are put to use, and the piece stays as it is.
    let (_, addr) = bench.listen();
    let mut others: Vec<_> = (0..20).map(|_| bench.accept(addr)).collect();
    for (number, (other, peer)) in others.iter_mut().enumerate() {
        bench.ring.receive(*other);
        peer.write_all(&pattern(number as u8, 1000)).expect("connected");
    }
    for (number, (other, _)) in others.iter().enumerate() {
        let bytes = bench.receive(*other, 1000);
        assert!(bytes == pattern(number as u8, 1000), "connection {number}");
    }
    for _ in 0..50 {
        others[0].1.write_all(&pattern(9, 5000)).expect("connected");
        assert!(bench.receive(others[0].0, 5000) == pattern(9, 5000));
    }
    assert!(bytes_of(&held) == pattern(1, 700));
    drop(held);
    bench.ring.receive(conn);
    while arrived.len() < 60_000 {
        arrived.extend(bench.receive(conn, 1));
    }
    assert!(arrived == pattern(2, 60_000));
}

#[test]
fn pieces_held_at_random_are_never_written_over() {
    either_way(held_at_random);
}

fn held_at_random(incremental: bool) {
    let mut bench = Bench::with(|options| {
        options.entries = 32;
        options.cq_entries = 64;
        options.receive_buffers = 32;
        options.receive_buffer_size = 2048;
        options.incremental_buffers = incremental;
    });
    let (_, addr) = bench.listen();
    let pairs: Vec<_> = (0..30).map(|_| bench.accept(addr)).collect();
    let conns: Vec<Conn> = pairs.iter().map(|(conn, _)| *conn).collect();
    conns.iter().for_each(|conn| bench.ring.receive(*conn));
    const LEN: usize = 200_000;
    let writer = std::thread::spawn(move || {
        let mut random = 7u64;
        let mut sent = vec![0; pairs.len()];
        let all: Vec<_> = (0..pairs.len()).map(|number| pattern(number as u8, LEN)).collect();
        while sent.iter().any(|&sent| sent < LEN) {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let number = (random >> 33) as usize % pairs.len();
            let len = ((random >> 20) as usize % 3000 + 1).min(LEN - sent[number]);
            let range = sent[number]..sent[number] + len;
            (&pairs[number].1).write_all(&all[number][range]).expect("connected");
            sent[number] += len;
        }
        pairs
    });
    let expected: Vec<_> = (0..conns.len()).map(|number| pattern(number as u8, LEN)).collect();
    let mut at = vec![0; conns.len()];
    let mut held = std::collections::VecDeque::new();
    let mut random = 11u64;
    let end = std::time::Instant::now() + PATIENCE;
    while at.iter().any(|&at| at < LEN) {
        assert!(std::time::Instant::now() < end, "{at:?} {:?}", bench.ring.stats());
        let before = bench.ring.stats().completions;
        bench.turn(Duration::from_millis(20));
        let quiet = bench.ring.stats().completions == before;
        for event in bench.events.drain(..) {
            let Event::Received { conn, data } = event else { panic!("{event:?}") };
            let number = conns.iter().position(|other| *other == conn).expect("ours");
            let start = at[number];
            at[number] += data.len();
            held.push_back((number, start, data));
        }
        // Looked at as late as possible, and in no order.
        while held.len() > 20 || (quiet && !held.is_empty()) {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let index = (random >> 33) as usize % held.len();
            let (number, start, data) = held.swap_remove_back(index).expect("in range");
            assert!(data[..] == expected[number][start..start + data.len()], "{number} {start}");
        }
    }
    for (number, start, data) in held {
        assert!(data[..] == expected[number][start..start + data.len()], "{number} {start}");
    }
    drop(writer.join().expect("no panic"));
    for conn in conns {
        assert_eq!(bench.ended(conn), Ended::Eof);
    }
}
