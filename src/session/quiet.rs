//! How much of the log one peer can fill: a few lines per address and minute, then a count.
//!
//! Everything a peer does wrong is counted and, at level debug, logged. At the usual level the
//! first lines say what is going on; the hundred thousand after them would only hide it.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};

use crate::limits::{LOG_ADDRESSES_MAX, LOG_LINES_PER_PEER, LOG_PEER_WINDOW_MS};

const WINDOW_NS: u64 = LOG_PEER_WINDOW_MS * 1_000_000;

/// Decides which lines about a peer's faults are written. One for all shards.
#[derive(Debug, Default)]
pub struct Quiet {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    peers: HashMap<IpAddr, Window>,
    /// All peers that did not fit the table.
    others: Window,
}

/// What was said about an address since `since` (ns).
#[derive(Debug, Default, Clone, Copy)]
struct Window {
    since: u64,
    lines: u32,
    held_back: u64,
}

/// Lines that were not written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeldBack {
    /// About whom; `None`: about peers that there was no room to tell apart.
    pub peer: Option<IpAddr>,
    /// How many.
    pub lines: u64,
}

impl Quiet {
    /// True when a line about a peer may be written at `now` (ns); otherwise it is counted.
    pub fn may_say(&self, peer: IpAddr, now: u64) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let peer = network(peer);
        let full = state.peers.len() >= LOG_ADDRESSES_MAX && !state.peers.contains_key(&peer);
        let window = match full {
            true => &mut state.others,
            false => state.peers.entry(peer).or_default(),
        };
        if window.lines == 0 {
            window.since = now;
        }
        if window.lines < LOG_LINES_PER_PEER {
            window.lines += 1;
            return true;
        }
        window.held_back += 1;
        false
    }

    /// Ends the windows that are over at `now` (ns), and tells what was held back in them.
    pub fn take_over(&self, now: u64) -> Vec<HeldBack> {
        let mut out = Vec::new();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let is_over = |window: &Window| now.saturating_sub(window.since) >= WINDOW_NS;
        state.peers.retain(|&peer, window| {
            if is_over(window) && window.held_back > 0 {
                out.push(HeldBack { peer: Some(peer), lines: window.held_back });
            }
            !is_over(window)
        });
        if state.peers.is_empty() {
            state.peers.shrink_to_fit();
        }
        if is_over(&state.others) {
            let others = std::mem::take(&mut state.others);
            if others.held_back > 0 {
                out.push(HeldBack { peer: None, lines: others.held_back });
            }
        }
        out
    }
}

/// What one owner of addresses can choose from: an IPv6 address is as good as its /64.
fn network(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v4(n: u32) -> IpAddr {
        IpAddr::V4((0x0a00_0000 + n).into())
    }

    #[test]
    fn a_peer_gets_some_lines_per_window_and_then_a_count() {
        let quiet = Quiet::default();
        let said = |peer, now| (0..100).filter(|_| quiet.may_say(peer, now)).count() as u32;
        assert_eq!(said(v4(1), 5), LOG_LINES_PER_PEER);
        assert_eq!(said(v4(2), 7), LOG_LINES_PER_PEER);
        assert_eq!(quiet.take_over(WINDOW_NS), []);
        let held_back = u64::from(100 - LOG_LINES_PER_PEER);
        let first = HeldBack { peer: Some(v4(1)), lines: held_back };
        assert_eq!(quiet.take_over(5 + WINDOW_NS), [first]);
        assert_eq!(said(v4(1), 6 + WINDOW_NS), LOG_LINES_PER_PEER);
        assert_eq!(said(v4(2), 6 + WINDOW_NS), 0);
    }

    #[test]
    fn a_quiet_peer_leaves_nothing_behind() {
        let quiet = Quiet::default();
        assert!(quiet.may_say(v4(1), 1));
        assert_eq!(quiet.take_over(1 + WINDOW_NS), []);
        assert_eq!(quiet.state.lock().unwrap().peers.len(), 0);
    }

    #[test]
    fn the_table_is_bounded() {
        let quiet = Quiet::default();
        let peers = LOG_ADDRESSES_MAX as u32 + 1000;
        let said = (0..peers).filter(|&n| quiet.may_say(v4(n), 9)).count();
        assert_eq!(said, LOG_ADDRESSES_MAX + LOG_LINES_PER_PEER as usize);
        let held_back = u64::from(1000 - LOG_LINES_PER_PEER);
        let others = HeldBack { peer: None, lines: held_back };
        assert_eq!(quiet.take_over(9 + WINDOW_NS), [others]);
        assert_eq!(quiet.state.lock().unwrap().peers.capacity(), 0);
    }

    #[test]
    fn an_ipv6_peer_is_its_network() {
        let quiet = Quiet::default();
        let of = |host: u16| IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0, 0, 0, host));
        let said = (0..100).filter(|&host| quiet.may_say(of(host), 1)).count();
        assert_eq!(said as u32, LOG_LINES_PER_PEER);
        let mapped = IpAddr::V6(std::net::Ipv4Addr::new(10, 0, 0, 1).to_ipv6_mapped());
        assert!(quiet.may_say(mapped, 1) && network(mapped) == v4(1));
    }
}
