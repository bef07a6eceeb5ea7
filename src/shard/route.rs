//! Routes: whether zero-copy sends pay on the way to a peer.
//!
//! On loopback and on simple virtual links the kernel copies a zero-copy send after all and the
//! notification comes on top; on a network card zero-copy halves the cost of large sends. The
//! kernel's usage report says which, but not reliably, so a route that is not plainly local is
//! decided by cost: alternate both ways, measure CPU time per byte, keep the cheaper one.

use std::collections::HashMap;
use std::net::IpAddr;

use uring::SendMode;

use crate::config::Switch;

/// Sends below this never use zero-copy: pinning and notification cost more than the copy.
const BYTES_MIN: u32 = 4096;
/// Usage reports that settle a route as copying when all of them say so.
const REPORTS: u32 = 16;
/// Length of one measured interval, ns.
const INTERVAL_NS: u64 = 400_000_000;
/// Time after a change of the way until it is measured, ns: completions and notifications of what
/// was sent the other way still come in.
const SETTLE_NS: u64 = 100_000_000;
/// Pairs of intervals measured before a decision.
const PAIRS: u32 = 6;
/// Bytes an interval must have carried to say anything.
const INTERVAL_BYTES_MIN: u64 = 4 << 20;
/// Zero-copy has to be at least this much cheaper.
const GAIN: f64 = 0.95;
/// Time until a decision is looked at again, ns.
const RETRY_NS: u64 = 300_000_000_000;
/// Most routes kept; further local addresses share the last one.
const ROUTES_MAX: usize = 64;

/// What is known of a route.
#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    /// Asking the kernel with single sends.
    Asking { sent: u32, reports: u32, copied: u32 },
    /// Measuring: which way this interval goes, and whether it has begun to count.
    Measuring { zero_copy: bool, settled: bool },
    /// Decided, until looked at again.
    Decided { zero_copy: bool, at: u64 },
}

#[derive(Debug)]
struct Route {
    loopback: bool,
    state: State,
    bytes: u64,
    began: (u64, u64),
    /// CPU ns and bytes, without and with zero-copy.
    cost: [(u64, u64); 2],
    intervals: u32,
    /// How many of how many usage reports said that the kernel copied; for the log.
    reported: (u32, u32),
}

/// All routes of one shard.
#[derive(Debug)]
pub struct Routes {
    policy: Switch,
    by_address: HashMap<IpAddr, u16>,
    routes: Vec<Route>,
}

impl Routes {
    /// No route yet. `Off` never, `On` always (above the smallest useful size), `Auto` decides.
    pub fn new(policy: Switch) -> Routes {
        Routes { policy, by_address: HashMap::new(), routes: Vec::new() }
    }

    /// The route of connections that arrived on this local address from this peer.
    pub fn of(&mut self, local: IpAddr, peer: IpAddr) -> u16 {
        if let Some(&index) = self.by_address.get(&local) {
            return index;
        }
        if self.routes.len() >= ROUTES_MAX {
            return (self.routes.len() - 1) as u16;
        }
        let index = self.routes.len() as u16;
        self.routes.push(Route {
            loopback: peer.to_canonical().is_loopback(),
            state: State::Asking { sent: 0, reports: 0, copied: 0 },
            bytes: 0,
            began: (0, 0),
            cost: [(0, 0); 2],
            intervals: 0,
            reported: (0, 0),
        });
        self.by_address.insert(local, index);
        index
    }

    /// How to send a contiguous range of that many bytes.
    pub fn mode(&mut self, route: u16, bytes: u32) -> SendMode {
        let Some(route) = self.routes.get_mut(usize::from(route)) else { return SendMode::Copy };
        route.bytes += u64::from(bytes);
        if bytes < BYTES_MIN {
            return SendMode::Copy;
        }
        let zero_copy = match self.policy {
            Switch::Off => false,
            Switch::On => true,
            Switch::Auto => match &mut route.state {
                State::Asking { sent, .. } if *sent < REPORTS => {
                    *sent += 1;
                    true
                }
                State::Asking { .. } => false,
                State::Measuring { zero_copy, .. } | State::Decided { zero_copy, .. } => *zero_copy,
            },
        };
        if zero_copy { SendMode::ZeroCopy } else { SendMode::Copy }
    }

    /// How to send two ranges of different blocks: a zero-copy send takes one registered buffer
    /// only, so these are copied unless they are large.
    pub fn mode_across_blocks(&mut self, route: u16, bytes: u32) -> SendMode {
        match self.mode(route, bytes) {
            SendMode::ZeroCopy if bytes >= 4 * BYTES_MIN => SendMode::ZeroCopy,
            _ => SendMode::Copy,
        }
    }

    /// The kernel's usage report for a send on a route.
    pub fn report(&mut self, route: u16, copied: bool) {
        let Some(route) = self.routes.get_mut(usize::from(route)) else { return };
        if let State::Asking { reports, copied: count, .. } = &mut route.state {
            *reports += 1;
            *count += u32::from(copied);
        }
    }

    /// Moves the decisions on; called about every 100 ms with the thread's CPU time (ns).
    pub fn tick(&mut self, now: u64, cpu: u64) {
        if self.policy != Switch::Auto {
            return;
        }
        // One route is measured at a time: the thread's CPU time cannot be told apart.
        let busy = self.routes.iter().any(|r| matches!(r.state, State::Measuring { .. }));
        for route in &mut self.routes {
            route.tick(now, cpu, busy);
        }
    }

    /// Local addresses on which zero-copy is in use, for the log.
    pub fn zero_copy_addresses(&self) -> Vec<IpAddr> {
        let in_use = |index: &u16| {
            let state = self.routes[usize::from(*index)].state;
            matches!(state, State::Decided { zero_copy: true, .. })
        };
        self.by_address.iter().filter(|(_, i)| in_use(i)).map(|(a, _)| *a).collect()
    }
}

impl Route {
    fn tick(&mut self, now: u64, cpu: u64, other_measures: bool) {
        match self.state {
            State::Asking { reports, copied, .. } if reports >= REPORTS => {
                if copied == reports && self.loopback {
                    // Loopback hands the pages to the receiver, so it has to copy: settled.
                    self.state = State::Decided { zero_copy: false, at: u64::MAX };
                } else if !other_measures {
                    self.begin(now, cpu, false);
                    self.reported = (copied, reports);
                    self.cost = [(0, 0); 2];
                    self.intervals = 0;
                }
            }
            State::Asking { .. } => {}
            State::Measuring { zero_copy, settled: false } => {
                if now - self.began.0 >= SETTLE_NS {
                    self.begin(now, cpu, zero_copy);
                    self.state = State::Measuring { zero_copy, settled: true };
                }
            }
            State::Measuring { zero_copy, .. } => {
                if now - self.began.0 < INTERVAL_NS {
                    return;
                }
                if self.bytes >= INTERVAL_BYTES_MIN {
                    let cost = &mut self.cost[usize::from(zero_copy)];
                    cost.0 += cpu - self.began.1;
                    cost.1 += self.bytes;
                    self.intervals += 1;
                }
                if self.intervals < 2 * PAIRS {
                    // Too quiet to measure: the same way again.
                    let next =
                        if self.bytes >= INTERVAL_BYTES_MIN { !zero_copy } else { zero_copy };
                    self.begin(now, cpu, next);
                    return;
                }
                let per_byte = |(ns, bytes): (u64, u64)| ns as f64 / bytes.max(1) as f64;
                let wins = per_byte(self.cost[1]) < GAIN * per_byte(self.cost[0]);
                tracing::info!(
                    copy_ns_per_kib = per_byte(self.cost[0]) * 1024.0,
                    zero_copy_ns_per_kib = per_byte(self.cost[1]) * 1024.0,
                    reports = self.reported.1,
                    reported_as_copied = self.reported.0,
                    "zero-copy sends measured: {}",
                    if wins { "used from now on" } else { "not used" }
                );
                self.state = State::Decided { zero_copy: wins, at: now };
            }
            State::Decided { at, .. } if at != u64::MAX && now.saturating_sub(at) > RETRY_NS => {
                self.state = State::Asking { sent: 0, reports: 0, copied: 0 };
            }
            State::Decided { .. } => {}
        }
    }

    fn begin(&mut self, now: u64, cpu: u64, zero_copy: bool) {
        self.state = State::Measuring { zero_copy, settled: false };
        self.began = (now, cpu);
        self.bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(peer: &str) -> (Routes, u16) {
        let mut routes = Routes::new(Switch::Auto);
        let route = routes.of("10.0.0.1".parse().unwrap(), peer.parse().unwrap());
        for _ in 0..REPORTS {
            assert_eq!(routes.mode(route, 65536), SendMode::ZeroCopy);
            routes.report(route, true);
        }
        assert_eq!(routes.mode(route, 65536), SendMode::Copy);
        (routes, route)
    }

    /// Runs the measurement with the given cost of a MiB each way.
    fn measured(copy: u64, zero_copy: u64) -> SendMode {
        let (mut routes, route) = asked("10.0.0.2");
        let (mut now, mut cpu) = (0, 0);
        for _ in 0..60 {
            routes.tick(now, cpu);
            for _ in 0..16 {
                cpu += match routes.mode(route, 1 << 20) {
                    SendMode::Copy => copy,
                    SendMode::ZeroCopy => zero_copy,
                };
            }
            now += INTERVAL_NS;
        }
        routes.mode(route, 65536)
    }

    #[test]
    fn loopback_settles_on_plain_sends() {
        let (mut routes, route) = asked("127.0.0.1");
        for now in 0..100 {
            routes.tick(now * INTERVAL_NS, now);
            assert_eq!(routes.mode(route, 1 << 20), SendMode::Copy);
        }
    }

    #[test]
    fn other_routes_are_decided_by_cost() {
        assert_eq!(measured(100, 40), SendMode::ZeroCopy);
        assert_eq!(measured(100, 120), SendMode::Copy);
        assert_eq!(measured(100, 99), SendMode::Copy);
    }

    #[test]
    fn small_sends_are_copied() {
        let mut routes = Routes::new(Switch::On);
        let route = routes.of("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap());
        assert_eq!(routes.mode(route, BYTES_MIN - 1), SendMode::Copy);
        assert_eq!(routes.mode(route, BYTES_MIN), SendMode::ZeroCopy);
    }
}
