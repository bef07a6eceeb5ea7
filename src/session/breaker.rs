//! The circuit breaker: how loaded the server is, in SRS's four levels, and what follows from it.
//!
//! The control thread samples the load once a second ([`Levels::sample`]); sessions only read the
//! level. As in SRS, high and critical are reached by one sample and stay for some quiet ones;
//! dying takes several samples in a row and passes with the first quiet one. The load is that of
//! the busiest shard in percent of its core, which for SRS's single thread is the same number.

use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

use crate::config::CircuitBreaker;

/// How loaded the server is. Each level includes those before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// There is time to spare.
    #[default]
    Normal,
    /// What is only nice to have is left out.
    High,
    /// What repairs is left out.
    Critical,
    /// No more players are let in, so that those who are there keep their stream.
    Dying,
}

impl Level {
    /// The name in logs and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Level::Normal => "normal",
            Level::High => "high",
            Level::Critical => "critical",
            Level::Dying => "dying",
        }
    }
}

/// The level in force, for all threads.
#[derive(Debug, Default)]
pub struct Breaker(AtomicU8);

impl Breaker {
    /// The level.
    pub fn level(&self) -> Level {
        match self.0.load(Relaxed) {
            0 => Level::Normal,
            1 => Level::High,
            2 => Level::Critical,
            _ => Level::Dying,
        }
    }

    /// Puts a level in force.
    pub fn set(&self, level: Level) {
        self.0.store(level as u8, Relaxed);
    }

    /// True when no more players are let in.
    pub fn refuses_players(&self) -> bool {
        self.level() == Level::Dying
    }
}

/// What the samples so far amount to.
#[derive(Debug, Default)]
pub struct Levels {
    /// Samples for which high goes on.
    high_for: u32,
    /// Samples for which critical goes on.
    critical_for: u32,
    /// Samples in a row over the dying mark.
    dying: u32,
}

impl Levels {
    /// Takes one sample, in percent of a core, and tells the level.
    pub fn sample(&mut self, rules: &CircuitBreaker, percent: f64) -> Level {
        if !rules.enabled {
            *self = Levels::default();
            return Level::Normal;
        }
        let over = |threshold: u32| percent > f64::from(threshold);
        let hold = |left: &mut u32, threshold: u32, pulse: u32| {
            *left = if over(threshold) { pulse.max(1) } else { left.saturating_sub(1) };
            *left > 0
        };
        let high = hold(&mut self.high_for, rules.high_threshold, rules.high_pulse);
        let critical = hold(&mut self.critical_for, rules.critical_threshold, rules.critical_pulse);
        self.dying = if over(rules.dying_threshold) { self.dying.saturating_add(1) } else { 0 };
        if self.dying >= rules.dying_pulse.max(1) {
            Level::Dying
        } else if critical {
            Level::Critical
        } else if high {
            Level::High
        } else {
            Level::Normal
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_come_and_go_as_in_srs() {
        use Level::{Critical, Dying, High, Normal};
        let rules = CircuitBreaker::default();
        let mut levels = Levels::default();
        let mut run = |samples: &[u32]| {
            let each = samples.iter().map(|s| levels.sample(&rules, f64::from(*s)));
            each.collect::<Vec<_>>()
        };
        assert_eq!(run(&[50, 90]), [Normal, Normal], "the mark itself is not over it");
        // High stays for one more quiet sample than it takes to count down its pulse of two.
        assert_eq!(run(&[91, 50, 50, 50]), [High, High, Normal, Normal]);
        assert_eq!(run(&[96, 50, 50]), [Critical, High, Normal]);
        assert_eq!(run(&[100; 6]), [Critical, Critical, Critical, Critical, Dying, Dying]);
        assert_eq!(run(&[50, 50]), [High, Normal], "dying passes with the first quiet sample");
        assert_eq!(run(&[100, 100, 50, 100, 100]).iter().max(), Some(&Critical));
        let off = CircuitBreaker { enabled: false, ..rules.clone() };
        assert_eq!(Levels::default().sample(&off, 100.0), Normal);
    }
}
