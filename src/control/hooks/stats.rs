//! How long hooks take, for metrics.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Upper ends of the buckets of [`HookStats`], ms; one more bucket is for what took longer.
pub const BUCKETS_MS: [u64; 12] = [1, 2, 5, 10, 25, 50, 100, 250, 1_000, 2_500, 10_000, 30_000];

/// Counts of calls by duration.
#[derive(Debug, Default)]
pub struct HookStats {
    buckets: [AtomicU64; BUCKETS_MS.len() + 1],
    total_us: AtomicU64,
    failed: AtomicU64,
}

impl HookStats {
    /// Notes a call that took this long; `answered`: there was an answer, whatever it said.
    pub fn note(&self, took: Duration, answered: bool) {
        let ms = took.as_millis() as u64;
        let bucket = BUCKETS_MS.iter().position(|end| ms <= *end).unwrap_or(BUCKETS_MS.len());
        self.buckets[bucket].fetch_add(1, Relaxed);
        self.total_us.fetch_add(took.as_micros() as u64, Relaxed);
        if !answered {
            self.failed.fetch_add(1, Relaxed);
        }
    }

    /// Calls per bucket, the last one for those beyond all ends.
    pub fn buckets(&self) -> [u64; BUCKETS_MS.len() + 1] {
        std::array::from_fn(|index| self.buckets[index].load(Relaxed))
    }

    /// Time of all calls together.
    pub fn total(&self) -> Duration {
        Duration::from_micros(self.total_us.load(Relaxed))
    }

    /// Calls without an answer.
    pub fn failed(&self) -> u64 {
        self.failed.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_counted_by_their_time() {
        let stats = HookStats::default();
        for ms in [0, 1, 2, 30, 30_000, 30_001, 90_000] {
            stats.note(Duration::from_millis(ms), ms < 30_000);
        }
        let buckets = stats.buckets();
        assert_eq!((buckets[0], buckets[1], buckets[5], buckets[11], buckets[12]), (2, 1, 1, 1, 2));
        assert_eq!(buckets.iter().sum::<u64>(), 7);
        assert_eq!(stats.failed(), 3);
        assert_eq!(stats.total(), Duration::from_millis(150_034));
    }
}
