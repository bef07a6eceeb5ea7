//! The one clock of the load tester: CLOCK_MONOTONIC, which all processes of a machine share, so
//! that a send time written by one process can be subtracted in another.

use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds on CLOCK_MONOTONIC.
pub fn now() -> u64 {
    let t = clock_gettime(ClockId::Monotonic);
    t.tv_sec as u64 * 1_000_000_000 + t.tv_nsec as u64
}

/// CPU time of the calling thread, nanoseconds: tells whether the tester itself is the bottleneck.
pub fn thread_cpu() -> u64 {
    let t = clock_gettime(ClockId::ThreadCPUTime);
    t.tv_sec as u64 * 1_000_000_000 + t.tv_nsec as u64
}

/// Nanoseconds of a number of seconds.
pub fn seconds(s: f64) -> u64 {
    (s.max(0.0) * 1e9) as u64
}
