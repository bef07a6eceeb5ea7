//! Zero-copy under a small RLIMIT_MEMLOCK, as ordinary users have it. One test in its own
//! process, because the limit is the process's; the capability that lifts it is the thread's.

mod common;

use common::*;
use rustix::process::{Resource, getrlimit, setrlimit};
use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
use uring::{Driver, Payload, SendMode, ZeroCopy};

#[test]
fn refused_registration_falls_back_step_by_step() {
    let mut sets = capabilities(None).expect("capget");
    sets.effective.remove(CapabilitySet::IPC_LOCK);
    sets.permitted.remove(CapabilitySet::IPC_LOCK);
    set_capabilities(None, sets).expect("dropping is allowed");
    let mut limit = getrlimit(Resource::Memlock);
    limit.current = Some(1 << 20);
    setrlimit(Resource::Memlock, limit).expect("lowering is allowed");

    // The default queues need more than a megabyte; smaller ones are made instead.
    let mut bench = Bench::with(|options| {
        options.entries = 4096;
        options.cq_entries = 65536;
    });
    drop(bench);
    bench = Bench::new();
    assert_eq!(bench.ring.registration().zero_copy, ZeroCopy::Registered);
    let (conn, mut peer) = bench.pair();

    // 2 MiB cannot be registered; sends go on unregistered, and the reason is kept.
    let range = bench.range(1, 100_000);
    bench.ring.send(conn, Payload::Range(range), SendMode::ZeroCopy);
    assert_eq!(bench.sent(conn), Ok(100_000));
    assert!(read_exactly(&mut peer, 100_000) == pattern(1, 100_000));
    bench.released(conn);
    let status = bench.ring.registration();
    assert_eq!((status.zero_copy, status.slabs), (ZeroCopy::Unregistered, 0));
    let text = status.diagnostic.expect("a message");
    assert!(text.contains("RLIMIT_MEMLOCK"), "{text}");

    // More than the limit at once: copied instead, and copied from now on.
    let mut gather = bench.ring.take_gather();
    let mut expected = Vec::new();
    for seed in 0..3 {
        gather.pieces.push(uring::Piece::Block(bench.range(seed, 1_000_000)));
        expected.extend(pattern(seed, 1_000_000));
    }
    bench.ring.send(conn, Payload::Gather(gather), SendMode::ZeroCopy);
    let taken = bench.sent(conn).expect("copied instead") as usize;
    assert!(read_exactly(&mut peer, taken) == expected[..taken]);
    let status = bench.ring.registration();
    assert_eq!(status.zero_copy, ZeroCopy::Off);
    let sends = bench.ring.stats().sends_zero_copy;
    let range = bench.range(2, 50_000);
    bench.ring.send(conn, Payload::Range(range), SendMode::ZeroCopy);
    assert_eq!(bench.sent(conn), Ok(50_000));
    assert!(read_exactly(&mut peer, 50_000) == pattern(2, 50_000));
    assert_eq!(bench.ring.stats().sends_zero_copy, sends);
    bench.ring.close(conn);
    bench.closed(conn);
    assert_eq!(bench.arena.stats().blocks, 0);
}
