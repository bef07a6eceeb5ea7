//! How many may publish and play at a time: seats per stream and per vhost, counted only where a
//! limit is set.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::config::{Action, Limits};
use crate::hub::Reason;
use crate::media::name::StreamName;

/// Seats that are taken, of all shards. Looked at when somebody comes or leaves.
#[derive(Debug, Default)]
pub struct Quotas {
    counts: Mutex<HashMap<Key, u32>>,
}

/// What is counted.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Key {
    Vhost(Action, Box<str>),
    /// Players of a stream.
    Stream(StreamName),
}

/// A taken seat; dropping it gives it back.
#[derive(Debug)]
pub struct Seat {
    quotas: Arc<Quotas>,
    keys: Vec<Key>,
}

impl Quotas {
    /// Takes a seat; `None` when no limit is set for it.
    ///
    /// # Errors
    /// The limit that is reached.
    pub(super) fn take(
        self: &Arc<Self>,
        limits: &Limits,
        action: Action,
        name: &StreamName,
    ) -> Result<Option<Seat>, Reason> {
        let of_vhost = match action {
            Action::Publish => limits.publishers,
            Action::Play => limits.players,
        };
        let of_stream = match action {
            Action::Publish => 0,
            Action::Play => limits.players_per_stream,
        };
        let mut keys = Vec::new();
        let mut counts = self.lock();
        let vhost = || Key::Vhost(action, name.vhost().into());
        let stream = || Key::Stream(name.clone());
        let wanted: [(u32, Reason, &dyn Fn() -> Key); 2] = [
            (of_vhost, Reason::VhostLimit, &vhost),
            (of_stream, Reason::StreamPlayersLimit, &stream),
        ];
        for (limit, reason, key) in wanted.into_iter().filter(|(limit, ..)| *limit > 0) {
            let key = key();
            if counts.get(&key).copied().unwrap_or(0) >= limit {
                return Err(reason);
            }
            keys.push(key);
        }
        for key in &keys {
            *counts.entry(key.clone()).or_insert(0) += 1;
        }
        drop(counts);
        Ok((!keys.is_empty()).then(|| Seat { quotas: self.clone(), keys }))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, u32>> {
        // Each change under the lock is a single one.
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut counts = self.quotas.lock();
        for key in self.keys.drain(..) {
            if let Some(count) = counts.get_mut(&key) {
                *count -= 1;
                if *count == 0 {
                    counts.remove(&key);
                }
            }
        }
        if counts.is_empty() {
            counts.shrink_to_fit();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seats_are_counted_and_given_back() {
        let quotas = Arc::new(Quotas::default());
        let name = |stream| StreamName::new("v", "live", stream).unwrap();
        let limits = Limits { players: 3, players_per_stream: 2, publishers: 1, ..limits() };
        let play = |stream| quotas.take(&limits, Action::Play, &name(stream));
        let (a, b) = (play("a").unwrap(), play("a").unwrap());
        assert!(a.is_some() && b.is_some());
        assert_eq!(play("a.flv").unwrap_err(), Reason::StreamPlayersLimit);
        let c = play("b").unwrap();
        assert_eq!(play("c").unwrap_err(), Reason::VhostLimit);
        let other = StreamName::new("w", "live", "a").unwrap();
        assert!(quotas.take(&limits, Action::Play, &other).is_ok());
        let publisher = quotas.take(&limits, Action::Publish, &name("a")).unwrap();
        let second = quotas.take(&limits, Action::Publish, &name("b"));
        assert_eq!(second.unwrap_err(), Reason::VhostLimit);
        drop(a);
        assert!(play("a").is_ok_and(|seat| seat.is_some()));
        drop((b, c, publisher));
        assert_eq!(quotas.lock().len(), 0, "nothing is left behind");
    }

    #[test]
    fn without_a_limit_nothing_is_counted() {
        let quotas = Arc::new(Quotas::default());
        let name = StreamName::new("v", "live", "a").unwrap();
        assert!(quotas.take(&limits(), Action::Play, &name).unwrap().is_none());
        assert_eq!(quotas.lock().capacity(), 0);
    }

    fn limits() -> Limits {
        Limits::default()
    }
}
