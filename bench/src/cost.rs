//! One run: a server, a publisher, players; what it cost and what was seen.

use std::collections::BTreeMap;
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::process::{self, Cpu, Scratch};
use crate::schedule::Case;
use crate::server::{self, Error, Kind, Running, Setup};
use crate::tester::{self, Place, Seen};

/// Outcome of one run.
#[derive(Clone, Debug, Serialize)]
pub struct Cost {
    /// Length of the steady window, seconds.
    pub seconds: f64,
    /// CPU of the server in the window, percent of a core.
    pub cpu_percent: f64,
    /// Of it in user space (by clock ticks, so coarse).
    pub user_percent: f64,
    /// By thread name, percent of a core.
    pub threads: BTreeMap<String, f64>,
    /// CPU per player, microseconds per second.
    pub us_per_player: f64,
    /// Resident memory at the end, MB of 2^20 bytes.
    pub rss_mb: f64,
    /// Kernel memory in TCP buffers of the machine at the end, MB.
    pub socket_mb: f64,
    /// What the players saw.
    pub seen: Seen,
}

/// Connections per second while players join.
const RAMP: u32 = 1_000;
/// Seconds from the last join to the window.
const SETTLE: f64 = 2.0;

/// Runs one server under one case and measures `seconds` of it.
///
/// # Errors
/// Server or tester cannot be started.
pub fn measure(
    kind: &Kind,
    case: &Case,
    seconds: f64,
    setup: &Setup,
    place: &Place,
    scratch: &Scratch,
) -> Result<Cost, Error> {
    let server = server::start(kind, case, setup, scratch)?;
    let _publisher = match kind.makes_stream() {
        true => None,
        false => Some(tester::publish(place, &server.publish_url, 1, case, scratch)?),
    };
    // A keyframe has to be there when the first player comes.
    sleep(Duration::from_millis(800));
    play_and_measure(&server, case, seconds, place, scratch)
}

fn play_and_measure(
    server: &Running,
    case: &Case,
    seconds: f64,
    place: &Place,
    scratch: &Scratch,
) -> Result<Cost, Error> {
    let ramp = f64::from(case.players) / f64::from(RAMP);
    let (from, to) = (ramp + SETTLE, ramp + SETTLE + seconds);
    let clients = (case.players, RAMP, "2%");
    let began = Instant::now();
    let players = tester::play("play", place, &server.play_url, clients, to + 0.7, scratch)?;
    sleep(Duration::from_secs_f64(from).saturating_sub(began.elapsed()));
    let (before, at) = (Cpu::of(server.pid), Instant::now());
    sleep(Duration::from_secs_f64(seconds));
    let (used, span) = (Cpu::of(server.pid).since(&before), at.elapsed().as_secs_f64());
    let (rss, sockets) = (process::resident(server.pid), process::socket_buffers());
    let seen = players.seen(from, to + 0.1)?;
    let percent = |seconds: f64| seconds / span * 100.0;
    let threads = used.threads.iter().map(|(name, s)| (name.clone(), percent(*s)));
    Ok(Cost {
        seconds: span,
        cpu_percent: percent(used.total),
        user_percent: percent(used.user),
        threads: threads.collect(),
        us_per_player: used.total / span / f64::from(case.players.max(1)) * 1e6,
        rss_mb: rss as f64 / 1048576.0,
        socket_mb: sockets as f64 / 1048576.0,
        seen,
    })
}
