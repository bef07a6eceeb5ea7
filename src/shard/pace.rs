//! Pace: how long messages are gathered before they are sent to the players of a stream.
//!
//! A send costs the same whether it carries one message or twenty, so the number of sends decides
//! what a shard can do. While there is time to spare nothing is gathered; as the shard fills,
//! the window grows, first to a latency nobody notices, and to the configured bound only when
//! the shard is nearly full.

use std::time::Duration;

use crate::config::MergedWrite;

/// Above this share of a core the window begins to grow.
const BUSY: f64 = 0.22;
/// Below this share it shrinks.
const IDLE: f64 = 0.12;
/// Above this share latency gives way to capacity.
const FULL: f64 = 0.70;
/// Window up to which growing is cheap, ns.
const COMFORTABLE_NS: u64 = 110_000_000;
/// Smallest window worth having, ns: below it sends are hardly ever merged.
const STEP_NS: u64 = 8_000_000;
/// Time between two looks at the load, ns: at least, and half of the most.
const SAMPLE_NS: u64 = 100_000_000;
const SAMPLE_NS_MAX: u64 = 400_000_000;

/// Completions worth waiting for while messages are gathered anyway.
pub const GATHER_EVENTS: u32 = 256;
/// Longest wait for them, ns: what publishers send is noticed later by that much.
const GATHER_NS_MAX: u64 = 40_000_000;
/// The same while there are no players, ns.
const GATHER_NS_ALONE: u64 = 10_000_000;
/// The same while somebody else waits: newcomers, or shards with a window of their own, ns.
pub const GATHER_NS_BRIEF: u64 = 2_000_000;

/// How long a shard may sleep on after the first completion until there are [`GATHER_EVENTS`], ns:
/// many small arrivals then cost one turn. `shortest` is the shortest window of the feeds that are
/// followed here: what arrives within a quarter of it is sent at the same time anyway, for a flush
/// that is due ends the sleep.
pub fn gather_ns(shortest: Option<Duration>) -> u64 {
    match shortest {
        Some(window) => (window.as_nanos() as u64 / 4).min(GATHER_NS_MAX),
        None => GATHER_NS_ALONE,
    }
}

/// The adaptive window of one shard.
#[derive(Debug)]
pub struct Pace {
    window_ns: u64,
    load: f64,
    sampled_at: u64,
    cpu_at: u64,
}

impl Pace {
    /// Starts with an idle shard.
    pub fn new(now: u64, cpu: u64) -> Pace {
        Pace { window_ns: 0, load: 0.0, sampled_at: now, cpu_at: cpu }
    }

    /// True when it is time to call [`Pace::sample`].
    pub fn wants_sample(&self, now: u64) -> bool {
        // Load comes in bursts, one in a window: too short a look sees either none or too much.
        now.saturating_sub(self.sampled_at) >= SAMPLE_NS.max(2 * self.window_ns.min(SAMPLE_NS_MAX))
    }

    /// Takes the CPU time the shard's thread has used so far, ns. `newcomers`: some had to wait for
    /// their turn, so that the shard was as busy as it could be, whatever its players cost.
    pub fn sample(&mut self, now: u64, cpu: u64, newcomers: bool) {
        let wall = now.saturating_sub(self.sampled_at).max(1);
        let load = (cpu.saturating_sub(self.cpu_at) as f64 / wall as f64).min(1.0);
        self.sampled_at = now;
        self.cpu_at = cpu;
        // Half old, half new: a single keyframe must not swing the window.
        self.load = (self.load + load) / 2.0;
        // What newcomers cost is over in a moment and does not shrink with a longer window.
        let full = self.load > FULL && !newcomers;
        if full || (self.load > BUSY && self.window_ns < COMFORTABLE_NS) {
            let bound = if full { u64::MAX } else { COMFORTABLE_NS };
            self.window_ns = (self.window_ns + self.window_ns / 2).max(STEP_NS).min(bound);
        } else if self.load < IDLE || (self.load < FULL / 2.0 && self.window_ns > COMFORTABLE_NS) {
            self.window_ns = self.window_ns / 4 * 3;
            if self.window_ns < STEP_NS {
                self.window_ns = 0;
            }
        }
        // Whatever a vhost's bound is, growing beyond it by much would only delay shrinking.
        self.window_ns = self.window_ns.min(10_000_000_000);
    }

    /// Share of time the shard is busy, 0 to 1.
    pub fn load(&self) -> f64 {
        self.load
    }

    /// The window in force for a vhost's rule.
    pub fn window(&self, rule: &MergedWrite) -> Duration {
        if rule.adaptive {
            rule.window.min(Duration::from_nanos(self.window_ns))
        } else {
            rule.window
        }
    }

    /// The adaptive window before any vhost's bound.
    pub fn adaptive(&self) -> Duration {
        Duration::from_nanos(self.window_ns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs the controller against a shard whose load at window 0 is `demand` and falls as
    /// sends merge (`1 / (1 + window / 14 ms)`, about what the floor program measures).
    fn settle(demand: f64) -> (f64, Duration) {
        let mut pace = Pace::new(0, 0);
        let (mut now, mut cpu) = (0, 0.0);
        let rule = MergedWrite { adaptive: true, window: Duration::from_millis(350), messages: 0 };
        for _ in 0..400 {
            let window = pace.window(&rule).as_secs_f64();
            let load = (demand / (1.0 + window / 0.014)).min(1.0);
            now += SAMPLE_NS;
            cpu += load * SAMPLE_NS as f64;
            pace.sample(now, cpu as u64, false);
        }
        (pace.load(), pace.window(&rule))
    }

    #[test]
    fn an_idle_shard_sends_at_once() {
        assert_eq!(settle(0.1).1, Duration::ZERO);
    }

    #[test]
    fn a_half_loaded_shard_merges_within_a_latency_nobody_notices() {
        for demand in [0.5, 1.0, 2.0] {
            let (load, window) = settle(demand);
            assert!(load < 0.35, "demand {demand}: load {load}");
            assert!(window >= Duration::from_millis(8), "demand {demand}: {window:?}");
            assert!(window <= Duration::from_millis(120), "demand {demand}: {window:?}");
        }
    }

    #[test]
    fn an_overloaded_shard_uses_the_whole_window() {
        assert_eq!(settle(30.0).1, Duration::from_millis(350));
    }

    #[test]
    fn completions_are_gathered_for_a_part_of_the_window() {
        assert_eq!(gather_ns(Some(Duration::ZERO)), 0);
        assert_eq!(gather_ns(Some(Duration::from_millis(8))), 2_000_000);
        assert_eq!(gather_ns(Some(Duration::from_millis(100))), 25_000_000);
        assert_eq!(gather_ns(Some(Duration::from_secs(10))), GATHER_NS_MAX);
        assert_eq!(gather_ns(None), GATHER_NS_ALONE);
    }

    #[test]
    fn newcomers_do_not_make_others_wait_longer() {
        let mut pace = Pace::new(0, 0);
        for step in 1..60 {
            pace.sample(step * SAMPLE_NS, step * SAMPLE_NS, true);
        }
        assert_eq!(pace.adaptive(), Duration::from_nanos(COMFORTABLE_NS));
        pace.sample(60 * SAMPLE_NS, 60 * SAMPLE_NS, false);
        assert!(pace.adaptive() > Duration::from_nanos(COMFORTABLE_NS));
    }

    #[test]
    fn a_fixed_window_is_not_touched() {
        let mut pace = Pace::new(0, 0);
        pace.sample(SAMPLE_NS, SAMPLE_NS, false);
        let rule = MergedWrite { adaptive: false, window: Duration::from_millis(42), messages: 8 };
        assert_eq!(pace.window(&rule), Duration::from_millis(42));
    }
}
