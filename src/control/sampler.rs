//! Rates: what the shards have counted, looked at every few seconds by the control thread.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::hub::StreamId;
use crate::hub::clients::Place;
use crate::limits;
use crate::remux::{Clients, Registry, Stream};

/// What was counted at some times of the last half minute.
#[derive(Debug, Default)]
struct Rates {
    /// Time in ms, then bytes received, bytes sent, pictures.
    samples: VecDeque<(i64, [u64; 3])>,
}

/// Samples of 3 s that make half a minute.
const SAMPLES: usize = 11;
/// Sums of vhosts are made this often at the most, ms.
const VHOSTS_MS: i64 = 200;
/// Nothing is said about less than this, ms.
const SPAN_MS_MIN: i64 = 1_000;

impl Rates {
    fn add(&mut self, now_ms: i64, counts: [u64; 3]) {
        self.samples.push_back((now_ms, counts));
        if self.samples.len() > SAMPLES {
            self.samples.pop_front();
        }
    }

    /// By second since the oldest sample, of what is `counts` now.
    fn per_second(&self, now_ms: i64, counts: [u64; 3]) -> [f64; 3] {
        let Some(&(since, before)) = self.samples.front() else { return [0.0; 3] };
        let ms = now_ms - since;
        if ms < SPAN_MS_MIN {
            return [0.0; 3];
        }
        std::array::from_fn(|i| counts[i].saturating_sub(before[i]) as f64 * 1000.0 / ms as f64)
    }
}

fn kbps(bytes_per_second: f64) -> u64 {
    (bytes_per_second * 8.0 / 1000.0).round() as u64
}

/// Rates of streams and vhosts.
#[derive(Debug)]
pub struct Sampler {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    streams: HashMap<StreamId, Sampled>,
    vhosts: BTreeMap<String, VhostState>,
    /// How far the players of each stream were behind at the last look.
    lags: HashMap<StreamId, Lag>,
    clients_at: Option<Instant>,
    /// What was answered last, and when.
    vhosts_at: Option<(i64, Vec<Vhost>)>,
}

#[derive(Debug)]
struct Sampled {
    vhost: String,
    rates: Rates,
    last: [u64; 3],
    seen: bool,
}

#[derive(Debug, Default)]
struct VhostState {
    /// Of streams that are gone.
    gone: [u64; 3],
    rates: Rates,
}

/// How far a stream's players are behind, ms of stream time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lag {
    /// The one that is furthest behind.
    pub max_ms: u32,
    sum_ms: u64,
    players: u32,
}

impl Lag {
    fn add(&mut self, ms: u32) {
        self.max_ms = self.max_ms.max(ms);
        self.sum_ms += u64::from(ms);
        self.players += 1;
    }

    /// The mean.
    pub fn mean_ms(self) -> u32 {
        (self.sum_ms / u64::from(self.players.max(1))) as u32
    }
}

/// One vhost, as the API shows it.
#[derive(Clone, Debug, Default)]
pub struct Vhost {
    /// Its name.
    pub name: String,
    /// Players and publishers.
    pub clients: u64,
    /// Streams with a publisher or players.
    pub streams: u64,
    /// Media bytes received.
    pub bytes_received: u64,
    /// Bytes sent to players.
    pub bytes_sent: u64,
    /// Received and sent, kbit/s over 30 s.
    pub kbps: [u64; 2],
}

fn counts(stream: &Stream) -> [u64; 3] {
    let stats = &stream.stats;
    [&stats.bytes, &stats.bytes_sent, &stats.video_messages].map(|count| count.load(Relaxed))
}

impl Sampler {
    /// Nothing seen yet.
    pub fn new() -> Sampler {
        Sampler { state: Mutex::default() }
    }

    /// Looks at all streams, at `now_ms`. Called every few seconds.
    pub fn sample_streams(&self, streams: &Registry, now_ms: i64) {
        let mut state = self.state();
        let State { streams: known, vhosts, .. } = &mut *state;
        let mut sums: HashMap<String, [u64; 3]> = HashMap::new();
        for stream in all(streams) {
            let counts = counts(&stream);
            let sampled = known.entry(stream.id).or_insert_with(|| Sampled {
                vhost: stream.name.vhost().to_owned(),
                rates: Rates::default(),
                last: [0; 3],
                seen: true,
            });
            sampled.rates.add(now_ms, counts);
            sampled.last = counts;
            sampled.seen = true;
            add(sums.entry(sampled.vhost.clone()).or_default(), counts);
        }
        known.retain(|_, sampled| {
            let there = std::mem::take(&mut sampled.seen);
            if !there {
                add(&mut vhosts.entry(sampled.vhost.clone()).or_default().gone, sampled.last);
            }
            there
        });
        for name in
            sums.keys().filter(|name| !vhosts.contains_key(*name)).cloned().collect::<Vec<_>>()
        {
            vhosts.insert(name, VhostState::default());
        }
        for (name, vhost) in vhosts.iter_mut() {
            let mut sum = vhost.gone;
            add(&mut sum, sums.get(name).copied().unwrap_or_default());
            vhost.rates.add(now_ms, sum);
        }
    }

    /// Looks at all clients, in pieces, so that others get their turn in between.
    pub async fn sample_clients(&self, clients: &Clients) {
        let elapsed = self.state().clients_at.replace(Instant::now()).map(|at| at.elapsed());
        let elapsed_ms = elapsed.map_or(0, |elapsed| elapsed.as_millis() as u64);
        let mut place = Place::default();
        let mut lags: HashMap<StreamId, Lag> = HashMap::new();
        loop {
            let some = clients.read(&mut place);
            if some.is_empty() {
                self.state().lags = lags;
                return;
            }
            let now_ms = super::wall_ms();
            for client in &some {
                client.sample(now_ms, elapsed_ms);
                if !client.kind.publishes() {
                    lags.entry(client.stream.id).or_default().add(client.lag_ms());
                }
            }
            tokio::task::yield_now().await;
        }
    }

    /// Received and sent by a stream, kbit/s over 30 s.
    pub fn stream_kbps(&self, stream: &Stream, now_ms: i64) -> [u64; 2] {
        let state = self.state();
        let Some(sampled) = state.streams.get(&stream.id) else { return [0; 2] };
        let [received, sent, _] = sampled.rates.per_second(now_ms, counts(stream));
        [kbps(received), kbps(sent)]
    }

    /// How far a stream's players were behind at the last look, some seconds ago.
    pub fn stream_lag(&self, stream: &Stream) -> Lag {
        self.state().lags.get(&stream.id).copied().unwrap_or_default()
    }

    /// Pictures per second of a stream over 30 s, in steps of 1/100.
    pub fn stream_fps(&self, stream: &Stream) -> f64 {
        let state = self.state();
        let Some(sampled) = state.streams.get(&stream.id) else { return 0.0 };
        let [_, _, pictures] = sampled.rates.per_second(super::wall_ms(), counts(stream));
        (pictures * 100.0).round() / 100.0
    }

    /// All vhosts that had a stream, by name.
    pub fn vhosts(&self, streams: &Registry, now_ms: i64) -> Vec<Vhost> {
        let mut state = self.state();
        // All streams are looked at, which nobody may have done more often than makes sense.
        if let Some((at, vhosts)) = &state.vhosts_at
            && (*at..*at + VHOSTS_MS).contains(&now_ms)
        {
            return vhosts.clone();
        }
        let vhosts = state.sum_vhosts(streams, now_ms);
        state.vhosts_at = Some((now_ms, vhosts.clone()));
        vhosts
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Used by one thread; a panic leaves at worst a sample out.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn sum_vhosts(&self, streams: &Registry, now_ms: i64) -> Vec<Vhost> {
        let state = self;
        let mut found: BTreeMap<&str, (Vhost, [u64; 3])> = BTreeMap::new();
        for (name, vhost) in &state.vhosts {
            found.insert(name, (Vhost::default(), vhost.gone));
        }
        let streams = all(streams);
        for stream in &streams {
            let (vhost, sum) = found.entry(stream.name.vhost()).or_default();
            add(sum, counts(stream));
            let publishers = u64::from(stream.is_published());
            vhost.clients += u64::from(stream.players()) + publishers;
            vhost.streams += u64::from(stream.is_active() || stream.players() > 0);
        }
        // Gone since the last sample.
        let there: HashSet<StreamId> = streams.iter().map(|stream| stream.id).collect();
        for (_, sampled) in state.streams.iter().filter(|(id, _)| !there.contains(id)) {
            let (_, sum) = found.entry(&sampled.vhost).or_default();
            add(sum, sampled.last);
        }
        let vhosts = found.into_iter().map(|(name, (mut vhost, sum))| {
            name.clone_into(&mut vhost.name);
            [vhost.bytes_received, vhost.bytes_sent, _] = sum;
            if let Some(state) = state.vhosts.get(name) {
                let [received, sent, _] = state.rates.per_second(now_ms, sum);
                vhost.kbps = [kbps(received), kbps(sent)];
            }
            vhost
        });
        vhosts.collect()
    }
}

impl Default for Sampler {
    fn default() -> Self {
        Sampler::new()
    }
}

fn add(sum: &mut [u64; 3], counts: [u64; 3]) {
    for (sum, count) in sum.iter_mut().zip(counts) {
        *sum += count;
    }
}

fn all(streams: &Registry) -> Vec<Arc<Stream>> {
    streams.page(0, limits::STREAMS_MAX, |_| true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::name::StreamName;

    #[test]
    fn rates_over_half_a_minute() {
        let mut rates = Rates::default();
        assert_eq!(rates.per_second(0, [1, 1, 1]), [0.0; 3]);
        rates.add(1_000, [0; 3]);
        assert_eq!(rates.per_second(1_500, [9_000, 0, 0])[0], 0.0);
        for step in 1..=40_i64 {
            let count = step as u64 * 3;
            rates.add(1_000 + step * 3_000, [count * 1_000, count * 2_000, count * 25]);
        }
        assert_eq!(rates.samples.len(), SAMPLES);
        let now = rates.per_second(121_000, [120_000, 240_000, 3_000]);
        assert_eq!(now, [1_000.0, 2_000.0, 25.0]);
        assert_eq!(kbps(now[1]), 16);
    }

    #[test]
    fn lags_of_players() {
        let mut lag = Lag::default();
        assert_eq!((lag.max_ms, lag.mean_ms()), (0, 0));
        [40, 0, 200].into_iter().for_each(|ms| lag.add(ms));
        assert_eq!((lag.max_ms, lag.mean_ms()), (200, 80));
    }

    #[test]
    fn vhosts_keep_what_their_streams_have_sent() {
        let registry = Registry::default();
        let sampler = Sampler::new();
        let name = |vhost, stream| StreamName::new(vhost, "live", stream).unwrap();
        let a = registry.open(&name("a.com", "1")).unwrap();
        let b = registry.open(&name("b.com", "1")).unwrap();
        a.stats.bytes.store(1_000, Relaxed);
        a.stats.bytes_sent.store(5_000, Relaxed);
        sampler.sample_streams(&registry, 1_000);
        assert_eq!(sampler.stream_kbps(&a, 1_500), [0, 0]);
        a.stats.bytes.store(126_000, Relaxed);
        assert_eq!(sampler.stream_kbps(&a, 2_000), [1_000, 0]);
        let vhosts = sampler.vhosts(&registry, 2_000);
        let names: Vec<_> = vhosts.iter().map(|v| (v.name.as_str(), v.streams)).collect();
        // Nobody publishes or plays.
        assert_eq!(names, [("a.com", 0), ("b.com", 0)]);
        assert_eq!((vhosts[0].bytes_received, vhosts[0].kbps), (126_000, [1_000, 0]));

        sampler.sample_streams(&registry, 4_000);
        assert!(registry.forget_if_idle(&a));
        sampler.sample_streams(&registry, 7_000);
        let vhosts = sampler.vhosts(&registry, 7_000);
        assert_eq!((vhosts[0].bytes_received, vhosts[0].bytes_sent), (126_000, 5_000));
        drop(b);
    }
}
