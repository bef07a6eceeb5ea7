//! Connections from accept to close, against a real kernel.

mod common;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use bytes::Bytes;
use common::*;
use uring::{
    ConnectOptions, Driver, Ended, Errno, Event, Payload, Ring, RingOptions, SendMode, Wake,
};

#[test]
fn bytes_go_both_ways() {
    let mut bench = Bench::new();
    let (conn, mut peer) = bench.pair();
    bench.ring.receive(conn);
    peer.write_all(b"ping").expect("connected");
    assert_eq!(bench.receive(conn, 4), b"ping");
    bench.ring.send(conn, Payload::Bytes(Bytes::from_static(b"pong")), SendMode::Copy);
    assert!(bench.ring.send_in_flight(conn));
    assert_eq!(bench.sent(conn), Ok(4));
    assert!(!bench.ring.send_in_flight(conn));
    assert_eq!(read_exactly(&mut peer, 4), b"pong");
    peer.shutdown(Shutdown::Write).expect("connected");
    assert_eq!(bench.ended(conn), Ended::Eof);
    bench.ring.close(conn);
    bench.closed(conn);
    assert_eq!(peer.read(&mut [0; 8]).expect("closed"), 0);
    assert_eq!(bench.ring.connections(), 0);
}

#[test]
fn a_connection_is_handed_over_with_nothing_lost() {
    let mut bench = Bench::new();
    for round in 0..20_u32 {
        let (conn, mut peer) = bench.pair();
        // Armed or not, with bytes on the way or not.
        if round % 2 == 0 {
            bench.ring.receive(conn);
            bench.turn(Duration::from_millis(1));
        }
        let sent: Vec<u8> = (0..round * 700).map(|n| n as u8).collect();
        let (first, second) = sent.split_at(sent.len() / 2);
        peer.write_all(first).expect("connected");
        bench.ring.hand_over(conn);
        bench.ring.hand_over(conn);
        peer.write_all(second).expect("connected");
        let socket = bench.until("handed over", |event| match event {
            Event::HandedOver { conn: other, socket } if *other == conn => {
                Some(socket.try_clone().expect("a descriptor"))
            }
            _ => None,
        });
        // What the driver has read, then what it has left.
        let mut got = Vec::new();
        bench.events.retain(|event| match event {
            Event::Received { conn: other, data } if *other == conn => {
                got.extend_from_slice(data);
                false
            }
            _ => true,
        });
        let mut stream = TcpStream::from(socket);
        stream.set_nonblocking(false).expect("a socket");
        let mut rest = vec![0; sent.len() - got.len()];
        stream.read_exact(&mut rest).expect("the rest");
        got.append(&mut rest);
        assert_eq!(got, sent, "round {round}");
        stream.write_all(b"hello").expect("still connected");
        assert_eq!(read_exactly(&mut peer, 5), b"hello");
        // Whoever still asks the driver about it is not heard.
        bench.ring.receive(conn);
        bench.ring.close(conn);
        bench.turn(Duration::from_millis(1));
        assert!(bench.events.is_empty(), "{:?}", bench.events);
    }
    assert_eq!(bench.ring.connections(), 0);
    // A close that comes first wins.
    let (conn, _peer) = bench.pair();
    bench.ring.receive(conn);
    bench.turn(Duration::from_millis(1));
    bench.ring.hand_over(conn);
    bench.ring.close(conn);
    bench.closed(conn);
}

#[test]
fn connect_reaches_a_listener_and_reports_a_refusal() {
    let mut bench = Bench::new();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let addr = listener.local_addr().expect("bound");
    let source = Some((Ipv4Addr::new(127, 0, 0, 77), 0).into());
    let options = ConnectOptions { source, nodelay: true, ..ConnectOptions::default() };
    let conn = bench.ring.connect(addr, &options).expect("a socket");
    let result = bench.until("connected", |event| match event {
        Event::Connected { conn: other, result } if *other == conn => Some(*result),
        _ => None,
    });
    assert_eq!(result, Ok(()));
    let (mut peer, from) = listener.accept().expect("connected");
    assert_eq!(from.ip(), Ipv4Addr::new(127, 0, 0, 77));
    bench.ring.receive(conn);
    peer.write_all(b"hello").expect("connected");
    assert_eq!(bench.receive(conn, 5), b"hello");

    drop((listener, peer));
    let refused = bench.ring.connect(addr, &ConnectOptions::default()).expect("a socket");
    let result = bench.until("connected", |event| match event {
        Event::Connected { conn: other, result } if *other == refused => Some(*result),
        _ => None,
    });
    assert_eq!(result, Err(Errno(libc::ECONNREFUSED)));
    bench.ring.close(refused);
    bench.closed(refused);
}

#[test]
fn connect_that_nobody_answers_can_be_closed() {
    let mut bench = Bench::new();
    // A listener with a full backlog answers no further SYN.
    let listener =
        socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    listener.bind(&std::net::SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).expect("a port");
    listener.listen(0).expect("bound");
    let addr = listener.local_addr().expect("bound").as_socket().expect("internet");
    let conns: Vec<_> = (0..8)
        .map(|_| bench.ring.connect(addr, &ConnectOptions::default()).expect("a socket"))
        .collect();
    bench.idle(Duration::from_millis(100));
    for conn in &conns {
        bench.ring.close(*conn);
    }
    for conn in conns {
        bench.closed(conn);
    }
    assert_eq!(bench.ring.connections(), 0);
}

#[test]
fn shutdown_ends_an_armed_receive_and_only_closed_is_reported() {
    let mut bench = Bench::new();
    let (conn, mut peer) = bench.pair();
    bench.ring.receive(conn);
    bench.turn(Duration::ZERO);
    peer.write_all(b"late").expect("connected");
    // The receive is armed and a completion may be waiting already.
    bench.ring.close(conn);
    bench.ring.close(conn);
    bench.closed(conn);
    bench.idle(Duration::from_millis(50));
    assert!(bench.events.is_empty(), "{:?}", bench.events);
    // Unread bytes make it a reset rather than an end.
    let mut rest = Vec::new();
    let _ = peer.read_to_end(&mut rest);
    assert!(rest.is_empty());
    // Use after close is harmless.
    bench.ring.receive(conn);
    bench.ring.send(conn, Payload::Bytes(Bytes::from_static(b"x")), SendMode::Copy);
    bench.ring.cancel_send(conn);
    bench.idle(Duration::from_millis(20));
    assert!(bench.events.is_empty());
}

#[test]
fn peer_reset_is_an_error() {
    let mut bench = Bench::new();
    let (conn, peer) = bench.pair();
    bench.ring.receive(conn);
    bench.turn(Duration::ZERO);
    let peer = socket2::Socket::from(peer);
    peer.set_linger(Some(Duration::ZERO)).expect("a socket");
    drop(peer);
    assert_eq!(bench.ended(conn), Ended::Error(Errno(libc::ECONNRESET)));
    bench.ring.close(conn);
    bench.closed(conn);
}

#[test]
fn slot_is_reused_with_a_new_generation() {
    let mut bench = Bench::new();
    let (_, addr) = bench.listen();
    let (first, _peer) = bench.accept(addr);
    bench.ring.close(first);
    bench.closed(first);
    bench.turn(Duration::ZERO);
    let (second, mut peer) = bench.accept(addr);
    assert_eq!(second.index(), first.index());
    assert_ne!(second, first);
    // The old name does nothing to the new connection.
    bench.ring.close(first);
    bench.ring.receive(second);
    peer.write_all(b"still here").expect("connected");
    assert_eq!(bench.receive(second, 10), b"still here");
}

#[test]
fn many_connections_come_and_go_without_a_trace() {
    let mut bench = Bench::new();
    let (_, addr) = bench.listen();
    let descriptors = || std::fs::read_dir("/proc/self/fd").expect("proc").count();
    let warm = bench.accept(addr);
    bench.ring.close(warm.0);
    bench.closed(warm.0);
    drop(warm);
    let mut most = 0;
    let before = descriptors();
    for round in 0..100 {
        let pairs: Vec<_> = (0..10).map(|_| bench.accept(addr)).collect();
        for (conn, peer) in &pairs {
            most = most.max(conn.index());
            if round % 2 == 0 {
                bench.ring.receive(*conn);
            }
            if round % 3 == 0 {
                bench.ring.send(
                    *conn,
                    Payload::Bytes(Bytes::from(vec![7; 100_000])),
                    SendMode::Copy,
                );
            }
            if round % 5 == 0 {
                peer.shutdown(Shutdown::Both).expect("connected");
            }
        }
        for (conn, _) in &pairs {
            bench.ring.close(*conn);
        }
        for (conn, _) in &pairs {
            bench.closed(*conn);
        }
        bench.events.clear();
    }
    assert!(most <= 32, "slots are reused: {most}");
    assert_eq!(bench.ring.connections(), 0);
    // Other tests of this process open and close descriptors too.
    assert!(descriptors() < before + 200);
    assert_eq!(bench.ring.stats().stale_completions, 0);
}

#[test]
fn stop_listening_closes_the_port() {
    let mut bench = Bench::new();
    let (listener, addr) = bench.listen();
    bench.accept(addr);
    bench.ring.stop_listening(listener);
    let end = Instant::now() + PATIENCE;
    while TcpStream::connect(addr).is_ok() {
        assert!(Instant::now() < end);
        bench.turn(Duration::from_millis(5));
    }
}

#[test]
fn listen_binds_with_options() {
    let mut bench = Bench::new();
    let options = uring::ListenOptions {
        reuse_port: true,
        notsent_lowat: 16384,
        send_buffer: 100_000,
        ..LISTEN
    };
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|l| l.local_addr());
    let addr = port.expect("a port");
    bench.ring.listen(addr, &options).expect("free");
    bench.ring.listen(addr, &options).expect("shared");
    bench.accept(addr);
    let error = bench.ring.listen(addr, &LISTEN).expect_err("taken");
    assert_eq!(error.raw_os_error(), Some(libc::EADDRINUSE));
}

#[test]
fn dropping_a_ring_with_everything_in_flight_ends_all_of_it() {
    let mut bench = Bench::new();
    let (_, addr) = bench.listen();
    let mut peers = Vec::new();
    for number in 0..6u8 {
        let (conn, peer) = bench.accept(addr);
        bench.ring.receive(conn);
        let mode = if number % 2 == 0 { SendMode::ZeroCopy } else { SendMode::Copy };
        for _ in 0..20 {
            let range = bench.range(number, 500_000);
            bench.ring.send(conn, Payload::Range(range), mode);
            bench.turn(Duration::from_millis(1));
            if bench.ring.send_in_flight(conn) {
                break;
            }
        }
        assert!(bench.ring.send_in_flight(conn), "the socket is full");
        peers.push(peer);
    }
    peers[0].write_all(b"unread").expect("connected");
    bench.idle(Duration::from_millis(10));
    let started = Instant::now();
    let Bench { ring, arena, mut events } = bench;
    drop(ring);
    events.clear();
    assert!(started.elapsed() < Duration::from_secs(3));
    assert!(TcpStream::connect(addr).is_err(), "the listener is closed");
    for mut peer in peers {
        // The peers get what was taken, then the end.
        let mut rest = Vec::new();
        let _ = peer.read_to_end(&mut rest);
    }
    // Copying sends gave their blocks back; what waits for a notification may be kept for ever.
    assert!(arena.stats().blocks <= 3 * 20);
}

#[test]
fn received_bytes_outlive_the_ring() {
    let mut bench = Bench::new();
    let (conn, mut peer) = bench.pair();
    bench.ring.receive(conn);
    peer.write_all(b"kept").expect("connected");
    let end = Instant::now() + PATIENCE;
    let data = loop {
        assert!(Instant::now() < end);
        bench.turn(Duration::from_millis(100));
        let received = |event| match event {
            Event::Received { data, .. } => Some(data),
            _ => None,
        };
        if let Some(data) = bench.events.drain(..).find_map(received) {
            break data;
        }
    };
    drop(bench);
    assert_eq!(&*data, b"kept");
}

#[test]
fn rings_wake_rings_and_threads_wake_rings() {
    let mut bench = Bench::new();
    let waker = bench.ring.waker();
    let woken = |event: &Event| matches!(event, Event::Woken).then_some(());

    // From a thread without a ring; many wakes are one.
    for _ in 0..100 {
        waker.wake();
    }
    bench.until("wake", woken);
    bench.idle(Duration::from_millis(20));
    assert!(bench.events.is_empty());

    // To itself.
    let own = bench.ring.waker();
    bench.ring.wake(&own);
    bench.ring.wake(&own);
    bench.until("wake", woken);

    // From another ring, while this one sleeps.
    let target = waker.clone();
    let other = std::thread::spawn(move || {
        let options = RingOptions { entries: 16, cq_entries: 64, ..RingOptions::default() };
        let mut ring = Ring::new(options).expect("io_uring");
        let mut events = Vec::new();
        for _ in 0..50 {
            std::thread::sleep(Duration::from_millis(2));
            ring.wake(&target);
            ring.wake(&target);
            let now = ring.now_exact();
            ring.turn(Some(now), &mut events).expect("the ring works");
        }
        assert!(events.is_empty(), "{events:?}");
        ring.stats()
    });
    let mut count = 0;
    let end = Instant::now() + PATIENCE;
    while !other.is_finished() {
        assert!(Instant::now() < end);
        bench.turn(Duration::from_millis(500));
        count += bench.events.drain(..).count();
    }
    other.join().expect("no panic");
    assert!((40..=51).contains(&count), "{count} wakes");
}

#[test]
fn no_wake_is_lost_between_threads() {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};
    const LETTERS: u64 = 20_000;
    let mut bench = Bench::new();
    let waker = bench.ring.waker();
    let letters = Arc::new(AtomicU64::new(0));
    let senders: Vec<_> = (0..2)
        .map(|sender| {
            let (waker, letters) = (waker.clone(), Arc::clone(&letters));
            std::thread::spawn(move || {
                let options = RingOptions { entries: 16, cq_entries: 64, ..RingOptions::default() };
                let mut ring = (sender == 0).then(|| Ring::new(options).expect("io_uring"));
                let mut events = Vec::new();
                for _ in 0..LETTERS {
                    letters.fetch_add(1, Ordering::Relaxed);
                    match &mut ring {
                        Some(ring) => {
                            ring.wake(&waker);
                            ring.turn(Some(0), &mut events).expect("the ring works");
                        }
                        None => waker.wake(),
                    }
                }
            })
        })
        .collect();
    let mut seen = 0;
    while seen < 2 * LETTERS {
        // Sleeps for long: a lost wake would show as a timeout.
        bench.turn(PATIENCE);
        assert!(!bench.events.is_empty(), "a wake was lost at {seen}");
        bench.events.clear();
        seen = letters.load(Ordering::Relaxed);
    }
    for sender in senders {
        sender.join().expect("no panic");
    }
}
