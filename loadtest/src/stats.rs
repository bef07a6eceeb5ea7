//! What workers count. Each worker has its own [`GroupStats`] and they are merged at the end, so
//! the loop takes no lock; only the few numbers of the progress line are shared, as atomics.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use hdrhistogram::{Counter, Histogram};

use crate::check::Counts;
use crate::hls::times::HlsStats;

/// Longest time a histogram tells apart, microseconds. What is longer counts as this.
const TIME_MAX_US: u64 = 120_000_000;

/// A histogram of times in microseconds, three significant digits.
pub fn times() -> Histogram<u64> {
    Histogram::new_with_bounds(1, TIME_MAX_US, 3).expect("constant bounds are valid")
}

fn coarse_times() -> Histogram<u32> {
    Histogram::new_with_bounds(1, TIME_MAX_US, 2).expect("constant bounds are valid")
}

/// Records nanoseconds as microseconds, rounded up so that nothing takes no time.
pub fn record<C: Counter>(histogram: &mut Histogram<C>, ns: u64) {
    histogram.saturating_record(ns.div_ceil(1000).clamp(1, TIME_MAX_US));
}

/// Why a connection that should have gone on did not. The list is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// The TCP connection was not made: errno.
    Connect(i32),
    /// Neither connected nor refused within ten seconds.
    ConnectTimeout,
    /// Connected, but play or publish was neither accepted nor refused within ten seconds.
    HandshakeTimeout,
    /// The server closed before play or publish started.
    ClosedInHandshake,
    /// The server closed in mid-play or mid-publish.
    Closed,
    /// The connection broke: errno.
    Broken(i32),
    /// The server said no: RTMP error status or HTTP status that is not 200.
    Refused,
    /// What the server sent breaks the protocol.
    Protocol,
    /// A publisher's backlog outgrew its limit: the server does not read.
    NotRead,
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let os = |errno: &i32| std::io::Error::from_raw_os_error(*errno).to_string();
        match self {
            Reason::Connect(errno) => write!(f, "connect: {}", os(errno)),
            Reason::ConnectTimeout => write!(f, "connect: no answer"),
            Reason::HandshakeTimeout => write!(f, "handshake: no answer"),
            Reason::ClosedInHandshake => write!(f, "closed by the server in the handshake"),
            Reason::Closed => write!(f, "closed by the server"),
            Reason::Broken(errno) => write!(f, "broken: {}", os(errno)),
            Reason::Refused => write!(f, "refused by the server"),
            Reason::Protocol => write!(f, "protocol error"),
            Reason::NotRead => write!(f, "server does not read"),
        }
    }
}

/// One second of a group.
#[derive(Clone, Debug, Default)]
pub struct Slice {
    /// Players that have got media, or publishers that send, at the end of the second.
    pub playing: u64,
    /// Media bytes received or sent (as on the wire, without TCP and IP).
    pub bytes: u64,
    /// Connections made.
    pub connects: u64,
    /// Disconnects.
    pub disconnects: u64,
    /// Skips seen.
    pub skips: u64,
    /// Errors seen.
    pub errors: u64,
    /// Added latency of the messages of this second.
    pub latency: Option<Histogram<u32>>,
}

/// Everything a worker knows about its part of a group.
#[derive(Clone, Debug)]
pub struct GroupStats {
    /// Connections tried.
    pub attempts: u64,
    /// Connections made.
    pub connects: u64,
    /// Plays or publishes that the server accepted.
    pub starts: u64,
    /// Visits that got media (players) or sent some (publishers).
    pub with_media: u64,
    /// Visits that ended without any media, although the server had accepted them.
    pub without_media: u64,
    /// Visits with full checking.
    pub verified: u64,
    /// Visits ended by ourselves, as planned.
    pub left: u64,
    /// Visits ended otherwise.
    pub disconnects: BTreeMap<Reason, u64>,
    /// First text of each reason, for people.
    pub details: BTreeMap<Reason, String>,
    /// Time to connect.
    pub connect: Histogram<u64>,
    /// Connect to first media bytes.
    pub first_frame: Histogram<u64>,
    /// Publisher to player, per message.
    pub latency: Histogram<u64>,
    /// Longest silence per visit.
    pub silence: Histogram<u64>,
    /// kbit/s per visit that lasted at least two seconds.
    pub bitrate: Histogram<u64>,
    /// Silences of five seconds or more.
    pub stalls: u64,
    /// What verified players saw.
    pub counts: Counts,
    /// Messages sent (publishers).
    pub sent_messages: u64,
    /// How late publishers were with their own schedule.
    pub late: Histogram<u64>,
    /// Media bytes.
    pub bytes: u64,
    /// What viewers of HLS count; `None` in other groups.
    pub hls: Option<Box<HlsStats>>,
    /// First rule that a playlist or a container broke, for people.
    pub rule: Option<String>,
    /// Seconds of the run.
    pub slices: Vec<Slice>,
}

impl Default for GroupStats {
    fn default() -> Self {
        GroupStats {
            attempts: 0,
            connects: 0,
            starts: 0,
            with_media: 0,
            without_media: 0,
            verified: 0,
            left: 0,
            disconnects: BTreeMap::new(),
            details: BTreeMap::new(),
            connect: times(),
            first_frame: times(),
            latency: times(),
            silence: times(),
            bitrate: Histogram::new_with_bounds(1, 10_000_000, 3).expect("constant bounds"),
            stalls: 0,
            counts: Counts::default(),
            sent_messages: 0,
            late: times(),
            bytes: 0,
            hls: None,
            rule: None,
            slices: Vec::new(),
        }
    }
}

impl GroupStats {
    /// The slice of a second.
    pub fn slice(&mut self, second: usize) -> &mut Slice {
        if self.slices.len() <= second {
            self.slices.resize_with(second + 1, Slice::default);
        }
        &mut self.slices[second]
    }

    /// Records the added latency of a message received in `second`.
    pub fn latency(&mut self, second: usize, ns: u64) {
        record(&mut self.latency, ns);
        record(self.slice(second).latency.get_or_insert_with(coarse_times), ns);
    }

    /// Records a disconnect.
    pub fn disconnect(&mut self, second: usize, reason: Reason, detail: impl FnOnce() -> String) {
        *self.disconnects.entry(reason).or_default() += 1;
        self.details.entry(reason).or_insert_with(detail);
        self.slice(second).disconnects += 1;
    }

    /// All disconnects.
    pub fn disconnect_sum(&self) -> u64 {
        self.disconnects.values().sum()
    }

    /// Adds another worker's part.
    pub fn merge(&mut self, o: GroupStats) {
        self.attempts += o.attempts;
        self.connects += o.connects;
        self.starts += o.starts;
        self.with_media += o.with_media;
        self.without_media += o.without_media;
        self.verified += o.verified;
        self.left += o.left;
        for (reason, n) in o.disconnects {
            *self.disconnects.entry(reason).or_default() += n;
        }
        for (reason, text) in o.details {
            self.details.entry(reason).or_insert(text);
        }
        let same = "histograms of equal bounds can be added";
        self.connect.add(&o.connect).expect(same);
        self.first_frame.add(&o.first_frame).expect(same);
        self.latency.add(&o.latency).expect(same);
        self.silence.add(&o.silence).expect(same);
        self.bitrate.add(&o.bitrate).expect(same);
        self.late.add(&o.late).expect(same);
        self.stalls += o.stalls;
        self.counts.add(&o.counts);
        self.sent_messages += o.sent_messages;
        self.bytes += o.bytes;
        self.rule = self.rule.take().or(o.rule);
        if let Some(theirs) = o.hls {
            self.hls.get_or_insert_default().merge(&theirs);
        }
        for (i, theirs) in o.slices.into_iter().enumerate() {
            let ours = self.slice(i);
            ours.playing += theirs.playing;
            ours.bytes += theirs.bytes;
            ours.connects += theirs.connects;
            ours.disconnects += theirs.disconnects;
            ours.skips += theirs.skips;
            ours.errors += theirs.errors;
            match (&mut ours.latency, theirs.latency) {
                (Some(a), Some(b)) => a.add(&b).expect(same),
                (a @ None, b) => *a = b,
                (Some(_), None) => {}
            }
        }
    }

    /// The p99 latency of a span of seconds, milliseconds; `None` without messages.
    pub fn p99_ms(&self, from: f64, to: f64) -> Option<f64> {
        let mut all = coarse_times();
        for slice in self.slices.iter().take(to as usize).skip(from as usize) {
            if let Some(latency) = &slice.latency {
                all.add(latency).expect("histograms of equal bounds can be added");
            }
        }
        (!all.is_empty()).then(|| all.value_at_quantile(0.99) as f64 / 1000.0)
    }
}

/// The progress line's numbers of one worker. Read by the main thread while the worker runs.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct Live {
    /// Connections being made, and handshakes.
    pub connecting: AtomicU64,
    /// Players with media.
    pub playing: AtomicU64,
    /// Publishers that send.
    pub publishing: AtomicU64,
    /// Media bytes received in the last second.
    pub bytes: AtomicU64,
    /// Disconnects since the start.
    pub disconnects: AtomicU64,
    /// Skips since the start.
    pub skips: AtomicU64,
    /// Errors since the start.
    pub errors: AtomicU64,
    /// p99 latency of the last second, microseconds.
    pub p99_us: AtomicU64,
    /// CPU of the worker's thread in the last second, per mille.
    pub busy: AtomicU64,
}

/// Sum of the workers' live numbers.
#[derive(Clone, Copy, Debug, Default)]
pub struct LiveSum {
    /// See [`Live::connecting`].
    pub connecting: u64,
    /// See [`Live::playing`].
    pub playing: u64,
    /// See [`Live::publishing`].
    pub publishing: u64,
    /// See [`Live::bytes`].
    pub bytes: u64,
    /// See [`Live::disconnects`].
    pub disconnects: u64,
    /// See [`Live::skips`].
    pub skips: u64,
    /// See [`Live::errors`].
    pub errors: u64,
    /// Highest of the workers'.
    pub p99_us: u64,
    /// Highest of the workers'.
    pub busy: u64,
}

impl LiveSum {
    /// Reads all workers.
    pub fn read(workers: &[std::sync::Arc<Live>]) -> LiveSum {
        let mut s = LiveSum::default();
        for w in workers {
            s.connecting += w.connecting.load(Relaxed);
            s.playing += w.playing.load(Relaxed);
            s.publishing += w.publishing.load(Relaxed);
            s.bytes += w.bytes.load(Relaxed);
            s.disconnects += w.disconnects.load(Relaxed);
            s.skips += w.skips.load(Relaxed);
            s.errors += w.errors.load(Relaxed);
            s.p99_us = s.p99_us.max(w.p99_us.load(Relaxed));
            s.busy = s.busy.max(w.busy.load(Relaxed));
        }
        s
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_add_up() {
        let (mut a, mut b) = (GroupStats::default(), GroupStats::default());
        a.latency(0, 5_000_000);
        b.latency(2, 50_000_000);
        b.disconnect(2, Reason::Closed, || "gone".into());
        a.merge(b);
        assert_eq!((a.slices.len(), a.disconnect_sum(), a.latency.len()), (3, 1, 2));
        let p99 = a.p99_ms(2.0, 3.0).unwrap();
        assert!((49.0..51.5).contains(&p99), "{p99}");
        assert_eq!(a.p99_ms(1.0, 2.0), None);
    }
}
