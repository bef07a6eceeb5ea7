//! What the control thread does once a second: the load for the circuit breaker, and which vhosts
//! send more than they may.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use crate::config::Config;
use crate::fault::Fault;
use crate::hub::{Counters, StreamId};
use crate::remux::Registry;
use crate::session::admission::Admission;
use crate::session::breaker::Levels;

/// Time between two looks.
pub const PERIOD: Duration = Duration::from_secs(1);
/// Share of the newest second in a vhost's rate.
const WEIGHT: f64 = 0.3;

/// What was seen before.
pub struct Load {
    levels: Levels,
    at: Instant,
    /// Bytes sent of each stream so far.
    streams: HashMap<StreamId, u64>,
    /// Mean rate of each vhost, kbit/s.
    rates: HashMap<Box<str>, f64>,
}

impl Load {
    /// Nothing was seen before.
    pub fn new() -> Load {
        Load {
            levels: Levels::default(),
            at: Instant::now(),
            streams: HashMap::new(),
            rates: HashMap::new(),
        }
    }

    /// Looks.
    pub fn beat(
        &mut self,
        config: &Config,
        shards: &[Arc<Counters>],
        streams: &Registry,
        admission: &Admission,
    ) {
        let busiest = shards.iter().map(|c| c.busy_permille.load(Relaxed)).max().unwrap_or(0);
        let percent = busiest as f64 / 10.0;
        let level = self.levels.sample(&config.circuit_breaker, percent);
        let before = admission.breaker.level();
        if level != before {
            admission.breaker.set(level);
            if level > before {
                let reason = Fault::LoadHigh.name();
                tracing::warn!(reason, level = level.name(), percent, "the load rises");
            } else {
                tracing::info!(level = level.name(), percent, "the load falls");
            }
        }
        self.look_at_rates(config, streams, admission);
    }

    fn look_at_rates(&mut self, config: &Config, streams: &Registry, admission: &Admission) {
        let seconds = self.at.elapsed().as_secs_f64().max(0.001);
        self.at = Instant::now();
        if !has_cap(config) {
            if !self.streams.is_empty() {
                (self.streams, self.rates) = Default::default();
                admission.over_bandwidth.store(Arc::default());
            }
            return;
        }
        let mut sent: HashMap<Box<str>, u64> = HashMap::new();
        let mut now = HashMap::new();
        for stream in streams.list(usize::MAX) {
            let bytes = stream.stats.bytes_sent.load(Relaxed);
            let before = self.streams.get(&stream.id).copied().unwrap_or(0);
            now.insert(stream.id, bytes);
            let vhost = stream.name.vhost();
            match sent.get_mut(vhost) {
                Some(sum) => *sum += bytes.saturating_sub(before),
                None => _ = sent.insert(vhost.into(), bytes.saturating_sub(before)),
            }
        }
        self.streams = now;
        self.rates.retain(|vhost, _| sent.contains_key(vhost));
        let mut over = Vec::new();
        for (vhost, bytes) in sent {
            let kbps = bytes as f64 * 8.0 / 1000.0 / seconds;
            let cap = config.vhost(&vhost).limits.kbps;
            let rate = self.rates.entry(vhost.clone()).or_insert(kbps);
            *rate += (kbps - *rate) * WEIGHT;
            if cap > 0 && *rate > f64::from(cap) {
                over.push(vhost);
            }
        }
        if **admission.over_bandwidth.load() != over {
            admission.over_bandwidth.store(Arc::new(over));
        }
    }
}

impl Default for Load {
    fn default() -> Self {
        Load::new()
    }
}

fn has_cap(config: &Config) -> bool {
    config.all_vhosts().any(|(_, vhost)| vhost.limits.kbps > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::name::StreamName;

    #[test]
    fn a_vhost_over_its_cap_is_named_until_it_falls_below() {
        let mut config = Config::default();
        config.vhost.limits.kbps = 800;
        let (streams, admission) = (Registry::default(), Admission::default());
        let name = StreamName::new(crate::config::DEFAULT_VHOST, "live", "a").unwrap();
        let stream = streams.open(&name).unwrap();
        let mut load = Load::new();
        let mut second = |bytes: u64| {
            stream.stats.bytes_sent.fetch_add(bytes, Relaxed);
            load.at = Instant::now() - Duration::from_secs(1);
            load.beat(&config, &[], &streams, &admission);
            admission.over_bandwidth.load().len()
        };
        assert_eq!(second(50_000), 0, "400 kbit/s");
        assert_eq!(second(150_000), 0, "one second of 1,200 is not a mean of 800");
        assert_eq!((0..5).map(|_| second(150_000)).last(), Some(1));
        assert_eq!((0..5).map(|_| second(10_000)).last(), Some(0));
        let counters = [Arc::new(Counters::default())];
        counters[0].busy_permille.store(1000, Relaxed);
        for _ in 0..5 {
            load.beat(&config, &counters, &streams, &admission);
        }
        assert!(admission.breaker.refuses_players());
        config.vhost.limits.kbps = 0;
        load.beat(&config, &[], &streams, &admission);
        assert!(!admission.breaker.refuses_players() && load.streams.is_empty());
    }
}
