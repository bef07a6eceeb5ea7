//! The load tester as a child process on a core of its own, and what it saw.

use std::fs;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

use crate::process::{self, Process, Rank, Scratch};
use crate::quantity::median;
use crate::server::{Error, tail, through};

/// Where and how testers run.
#[derive(Clone, Debug)]
pub struct Place {
    /// Cores of the testers.
    pub cpus: String,
    /// Network namespace of the players.
    pub inside: Option<String>,
    /// Which players go first.
    pub rank: Rank,
}

impl Default for Place {
    fn default() -> Place {
        Place { cpus: "1".into(), inside: None, rank: Rank::Players }
    }
}

/// What the players of one run saw in its steady window.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Seen {
    /// Players with media, at most.
    pub playing: u64,
    /// Mbit/s that arrived at all players together.
    pub mbps: f64,
    /// Median over the window's seconds of the median added latency, ms.
    pub p50_ms: f64,
    /// Median over the window's seconds of the 99th percentile, ms.
    pub p99_ms: f64,
    /// Worst second's 99th percentile, ms.
    pub p99_worst_ms: f64,
    /// Connections lost, messages missing, repeated or altered.
    pub faults: u64,
    /// Skips to a later keyframe.
    pub skips: u64,
    /// CPU of the tester, percent of a core.
    pub tester_percent: f64,
}

/// A tester that runs.
#[derive(Debug)]
pub struct Tester {
    process: Process,
    report: std::path::PathBuf,
    log: std::path::PathBuf,
}

/// Publishes generated streams until dropped.
///
/// # Errors
/// The tester cannot be started.
pub fn publish(
    place: &Place,
    url: &str,
    clients: u32,
    case: &crate::schedule::Case,
    scratch: &Scratch,
) -> Result<Tester, Error> {
    let args = [
        "publish".into(),
        format!("--url={url}"),
        format!("--clients={clients}"),
        "--ramp=200/s".into(),
        format!("--kbps={}", case.kbps),
        format!("--gop={}", case.gop),
        "--seconds=600".into(),
        "--quiet".into(),
    ];
    start("publish", place, Rank::Publisher, args.to_vec(), scratch)
}

/// Plays with the given number of clients for some seconds.
///
/// # Errors
/// The tester cannot be started.
pub fn play(
    name: &str,
    place: &Place,
    url: &str,
    players: (u32, u32, &str),
    seconds: f64,
    scratch: &Scratch,
) -> Result<Tester, Error> {
    let (clients, ramp, verify) = players;
    let args = [
        "play".into(),
        format!("--url={url}"),
        format!("--clients={clients}"),
        format!("--ramp={ramp}/s"),
        format!("--verify={verify}"),
        format!("--seconds={seconds}s"),
        "--quiet".into(),
    ];
    start(name, place, place.rank, args.to_vec(), scratch)
}

/// Watches a playlist with many viewers; times count from `from` on, seconds after the start.
///
/// # Errors
/// The tester cannot be started.
pub fn view(
    place: &Place,
    url: &str,
    viewers: (u32, u32, &str),
    (from, seconds): (f64, f64),
    more: &[&str],
    scratch: &Scratch,
) -> Result<Tester, Error> {
    let (clients, ramp, verify) = viewers;
    let mut args = vec![
        "play".into(),
        format!("--url={url}"),
        format!("--clients={clients}"),
        format!("--ramp={ramp}/s"),
        format!("--verify={verify}"),
        format!("--measure-from={from}s"),
        format!("--seconds={seconds}s"),
        "--quiet".into(),
    ];
    args.extend(more.iter().map(|arg| (*arg).to_owned()));
    start("view", place, place.rank, args, scratch)
}

fn start(
    name: &str,
    place: &Place,
    rank: Rank,
    mut args: Vec<String>,
    scratch: &Scratch,
) -> Result<Tester, Error> {
    let report = scratch.file(&format!("{name}.json"));
    let log = scratch.file(&format!("{name}.log"));
    let _ = fs::remove_file(&report);
    args.push(format!("--json={}", report.display()));
    args.push("--threads=1".into());
    let program = process::sibling("loadtest");
    let (program, args) = through(place.inside.as_deref(), &program, args);
    let process = Process::start(&place.cpus, rank, &program, &args, &log)
        .map_err(Error::during("the load tester"))?;
    Ok(Tester { process, report, log })
}

impl Tester {
    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Waits for the end and reads what was seen from `from` to `to`, seconds after its start.
    ///
    /// # Errors
    /// The tester failed.
    pub fn seen(self, from: f64, to: f64) -> Result<Seen, Error> {
        Ok(read(&self.report(to)?, from, to))
    }

    /// The same, and what viewers of HLS saw.
    ///
    /// # Errors
    /// The tester failed.
    pub fn viewed(self, from: f64, to: f64) -> Result<(Seen, Value), Error> {
        let report = self.report(to)?;
        let mut hls = report["groups"][0]["hls"].clone();
        hls["latency_ms"] = report["groups"][0]["latency_ms"].clone();
        Ok((read(&report, from, to), hls))
    }

    fn report(mut self, to: f64) -> Result<Value, Error> {
        let ended = self.process.wait(Duration::from_secs_f64(to + 60.0));
        let text = fs::read_to_string(&self.report).unwrap_or_default();
        serde_json::from_str::<Value>(&text).map_err(|_| {
            let why = ended.map_or_else(|e| e.to_string(), |_| tail(&self.log));
            Error::Tool(format!("the load tester: {why}"))
        })
    }
}

fn read(report: &Value, from: f64, to: f64) -> Seen {
    let number = |v: &Value| v.as_f64().unwrap_or(0.0);
    let series = report["series"].as_array().cloned().unwrap_or_default();
    let steady: Vec<&Value> =
        series.iter().filter(|s| number(&s["t"]) - 1.0 >= from && number(&s["t"]) <= to).collect();
    let column =
        |key: &str| -> Vec<f64> { steady.iter().filter_map(|s| s[key].as_f64()).collect() };
    let groups = report["groups"].as_array().cloned().unwrap_or_default();
    let sum = |f: &dyn Fn(&Value) -> f64| groups.iter().map(f).sum::<f64>();
    let tester = report["tester"]["cpu_percent"].as_array().cloned().unwrap_or_default();
    Seen {
        playing: sum(&|g| number(&g["playing_max"])) as u64,
        // The mean: with a long window a second has two flushes or three.
        mbps: column("mbps").iter().sum::<f64>() / steady.len().max(1) as f64,
        p50_ms: median(&column("p50_ms")),
        p99_ms: median(&column("p99_ms")),
        p99_worst_ms: column("p99_ms").into_iter().fold(0.0, f64::max),
        faults: sum(&|g| number(&g["disconnects"]) + number(&g["errors"])) as u64,
        skips: sum(&|g| number(&g["checked"]["skips"])) as u64,
        tester_percent: tester.iter().map(number).fold(0.0, f64::max),
    }
}
