//! Waiting for something to come about.

use std::thread;
use std::time::{Duration, Instant};

/// Longer than anything takes.
pub const LONG: Duration = Duration::from_secs(20);

/// Looks until there is something.
///
/// # Panics
/// If that takes too long.
pub fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + LONG;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what} does not come about");
        thread::sleep(Duration::from_millis(50));
    }
}
