//! A fixed amount of fan-out, for tools that count instructions: `walk PLAYERS MESSAGES`.

#![forbid(unsafe_code)]

use bench::schedule::Protocol;
use bench::walk::Walk;
use ringcast::config::TimeJitter;

fn main() {
    let mut numbers = std::env::args().skip(1).filter_map(|n| n.parse::<u64>().ok());
    let players = numbers.next().unwrap_or(1_000);
    let messages = numbers.next().unwrap_or(200);
    let mut walk = Walk::new(players as usize, Protocol::Rtmp, TimeJitter::Off);
    for _ in 0..messages {
        walk.publish();
        walk.deliver();
    }
    println!("{}", messages * players);
}
