//! Complaints about the operator's servers: one line each from time to time, however many clients
//! are concerned.

use std::cell::RefCell;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// Time between two lines about one server.
const PAUSE: Duration = Duration::from_secs(10);
/// Servers that are told apart; they come from the configuration, so there are few.
const SERVERS_MAX: usize = 1_000;

/// When what was last said, and how often it would have been said since.
#[derive(Debug, Default)]
pub struct Grumble(RefCell<HashMap<String, (Instant, u64)>>);

impl Grumble {
    /// Says something about a server, unless that was done a moment ago. `line` is told how many
    /// lines were held back before.
    pub fn say(&self, about: &str, line: impl FnOnce(u64)) {
        let mut said = self.0.borrow_mut();
        if said.len() > SERVERS_MAX {
            said.clear();
        }
        match said.get_mut(about) {
            Some((at, held)) if at.elapsed() < PAUSE => *held += 1,
            Some((at, held)) => {
                line(std::mem::take(held));
                *at = Instant::now();
            }
            None => {
                line(0);
                said.insert(about.to_string(), (Instant::now(), 0));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_per_server_and_pause() {
        let grumble = Grumble::default();
        let mut lines = 0;
        for about in ["a", "a", "b", "a"] {
            grumble.say(about, |_| lines += 1);
        }
        assert_eq!(lines, 2);
        grumble.0.borrow_mut().get_mut("a").unwrap().0 -= PAUSE;
        let mut held = 0;
        grumble.say("a", |more| held = more);
        assert_eq!(held, 2);
    }
}
