//! Viewers of HLS: what serving them costs while they watch.

use std::thread::sleep;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::Value;

use crate::process::{self, Cpu, Scratch};
use crate::schedule::{Case, Protocol, Window};
use crate::server::{self, Error, Kind, Running, Setup};
use crate::tester::{self, Place, Seen};

/// A server that cuts one stream into segments, and its publisher.
#[derive(Debug)]
pub struct Cut {
    /// The server.
    pub server: Running,
    /// Its playlist.
    pub playlist: String,
    _publisher: tester::Tester,
}

/// Starts a server with these settings of HLS, and a publisher with a keyframe every `gop` seconds.
///
/// # Errors
/// One of them cannot be started.
pub fn cut(
    set: &[String],
    (kbps, gop): (f64, f64),
    place: &Place,
    scratch: &Scratch,
) -> Result<Cut, Error> {
    // Of the protocol only the address matters.
    let case = Case { protocol: Protocol::Flv, players: 0, kbps, gop, window: Window::Adaptive };
    let mut all = vec!["vhost.hls.enabled=true".to_owned()];
    all.extend(set.iter().cloned());
    let setup = Setup { set: all, ..Setup::default() };
    let server = server::start(&Kind::Ringcast, &case, &setup, scratch)?;
    let _publisher = tester::publish(place, &server.publish_url, 1, &case, scratch)?;
    let playlist = server.play_url.replace(".flv", ".m3u8");
    Ok(Cut { server, playlist, _publisher })
}

/// How many watch, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct Audience {
    /// Viewers.
    pub viewers: u32,
    /// How many come in a second.
    pub ramp: u32,
    /// Share of them that checks everything.
    pub verify: &'static str,
    /// Seconds from the last one's coming to the measurement.
    pub settle: f64,
    /// Measured seconds.
    pub seconds: f64,
}

/// What a turn cost and what was seen.
#[derive(Clone, Debug, Serialize)]
pub struct Turn {
    /// CPU of each process in the window, percent of a core, in the order they were given.
    pub cpu_percent: Vec<f64>,
    /// Of the first in user space (by clock ticks, so coarse).
    pub user_percent: f64,
    /// CPU of the first process per viewer, microseconds per second.
    pub us_per_viewer: f64,
    /// Resident memory of the first process each second from before the first viewer on, MB.
    pub resident_mb: Vec<f64>,
    /// How many of these values are before the window.
    pub before: usize,
    /// Kernel memory in TCP buffers of the machine at the end, MB.
    pub socket_mb: f64,
    /// What the viewers saw.
    pub seen: Seen,
    /// What the load tester says of viewers.
    pub hls: Value,
}

impl Turn {
    /// How much resident memory grew in the window, MB: the mean of its last third against that of
    /// its first.
    pub fn grown_mb(&self) -> f64 {
        let window = &self.resident_mb[self.before.min(self.resident_mb.len())..];
        let third = window.len() / 3;
        if third == 0 {
            return 0.0;
        }
        let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
        mean(&window[window.len() - third..]) - mean(&window[..third])
    }

    /// Of the whole: a number of what the load tester says of viewers.
    pub fn number(&self, path: &str) -> f64 {
        self.hls.pointer(path).and_then(Value::as_f64).unwrap_or(0.0)
    }
}

/// Lets an audience watch, and measures what these processes use. `meanwhile` runs in the window.
///
/// # Errors
/// The load tester failed.
pub fn watch(
    pids: &[u32],
    url: &str,
    audience: &Audience,
    more: &[&str],
    place: &Place,
    scratch: &Scratch,
    meanwhile: &mut dyn FnMut() -> Result<(), Error>,
) -> Result<Turn, Error> {
    let Audience { viewers, ramp, verify, settle, seconds } = *audience;
    let from = f64::from(viewers) / f64::from(ramp) + settle;
    let to = from + seconds;
    let first = pids.first().copied().unwrap_or_default();
    let resident = || process::resident(first) as f64 / 1_048_576.0;
    let mut resident_mb = vec![resident()];
    let began = Instant::now();
    let time = (from, to + 0.7);
    let tester = tester::view(place, url, (viewers, ramp, verify), time, more, scratch)?;
    let mut wait = |until: f64| {
        loop {
            let left = until - began.elapsed().as_secs_f64();
            if left <= 0.0 {
                break;
            }
            sleep(Duration::from_secs_f64(left.min(1.0)));
            resident_mb.push(resident());
        }
        resident_mb.len()
    };
    let before = wait(from);
    let (used, at): (Vec<Cpu>, _) =
        (pids.iter().map(|pid| Cpu::of(*pid)).collect(), Instant::now());
    meanwhile()?;
    wait(to);
    let span = at.elapsed().as_secs_f64();
    let used: Vec<Cpu> =
        pids.iter().zip(&used).map(|(pid, was)| Cpu::of(*pid).since(was)).collect();
    let socket_mb = process::socket_buffers() as f64 / 1_048_576.0;
    let (seen, hls) = tester.viewed(from, to)?;
    let percent = |cpu: f64| cpu / span * 100.0;
    let mine = used.first().cloned().unwrap_or_default();
    Ok(Turn {
        cpu_percent: used.iter().map(|cpu| percent(cpu.total)).collect(),
        user_percent: percent(mine.user),
        us_per_viewer: mine.total / span / f64::from(viewers.max(1)) * 1e6,
        resident_mb,
        before,
        socket_mb,
        seen,
        hls,
    })
}
