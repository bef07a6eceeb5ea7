//! Names of connections for who needs some without a network behind them.

use std::net::SocketAddr;

use super::{Faults, SimWorld};
use crate::driver::{Driver, Event, ListenOptions, Listener};

/// Names of listeners and of connections that have been accepted by them, `counts` for each, and
/// the events that say so. Only drivers can make such names, so a simulated one is asked.
///
/// # Panics
/// When the simulation refuses, which it has no reason to.
pub fn accepted(counts: &[usize]) -> (Vec<Listener>, Vec<Event>) {
    let world = SimWorld::new(1, Faults::none());
    let mut driver = world.driver(0);
    let options = ListenOptions {
        backlog: i32::MAX,
        reuse_port: false,
        nodelay: true,
        notsent_lowat: 0,
        send_buffer: 0,
        receive_buffer: 0,
    };
    let mut listeners = Vec::new();
    let mut peers = Vec::new();
    for (index, count) in counts.iter().enumerate() {
        let addr: SocketAddr = format!("127.0.0.1:{}", 1000 + index).parse().expect("an address");
        listeners.push(driver.listen(addr, &options).expect("a simulated listener"));
        peers.extend((0..*count).map(|_| world.connect(addr)));
    }
    let mut events = Vec::new();
    while events.len() < peers.len() {
        world.advance_to(world.now() + 1_000_000_000);
        let due = driver.now();
        driver.turn(Some(due), &mut events).expect("the simulation goes on");
    }
    (listeners, events)
}
