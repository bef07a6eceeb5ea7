//! Accepting without descriptors. One test in its own process, because the limit is the process's.

mod common;

use std::fs::File;
use std::io::Read;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use common::*;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use uring::{Driver, Errno, Event};

#[test]
fn accept_survives_running_out_of_descriptors() {
    let mut bench = Bench::new();
    let (first, _first_peer) = bench.pair();
    let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let addr = socket.local_addr().expect("bound");
    let mut waiting: Vec<_> =
        (0..5).map(|_| TcpStream::connect(addr).expect("the backlog has room")).collect();

    // No number is free below the limit. The kernel reads the limit when an accept is armed.
    bench.idle(Duration::from_millis(10));
    let limit = getrlimit(Resource::Nofile);
    let lowest_free = File::open("/dev/null").expect("still allowed").as_raw_fd();
    let none = Rlimit { current: Some(lowest_free as u64), ..limit };
    setrlimit(Resource::Nofile, none).expect("lowering is allowed");
    assert!(File::open("/dev/null").is_err());
    let listener = bench.ring.listen_on(socket.into()).expect("no descriptor is needed");

    let failed = bench.until("accept error", |event| match event {
        Event::AcceptFailed { listener: other, errno, turned_away } if *other == listener => {
            Some((*errno, *turned_away))
        }
        _ => None,
    });
    assert_eq!(failed, (Errno(libc::EMFILE), 5));
    // Those that waited learn it at once.
    for peer in &mut waiting {
        peer.set_read_timeout(Some(PATIENCE)).expect("a socket");
        assert_eq!(peer.read(&mut [0; 1]).ok().unwrap_or(0), 0);
    }
    // The listener rests; nothing spins, and the connections that exist live on.
    let before = bench.ring.stats();
    bench.idle(Duration::from_millis(350));
    let after = bench.ring.stats();
    assert!(after.enters - before.enters < 20, "{}", after.enters - before.enters);
    assert!(bench.ring.connections() == 1);
    bench.ring.receive(first);

    // Descriptors come back, and so do connections.
    setrlimit(Resource::Nofile, limit).expect("back to what it was");
    let started = Instant::now();
    bench.accept(addr);
    assert!(started.elapsed() < Duration::from_secs(5));
    assert!(bench.ring.stats().accept_errors >= 1);
}
