//! A join storm: what players who watch already feel when very many join within a second.

use std::thread::sleep;
use std::time::Duration;

use clap::Args;
use serde::Serialize;
use serde_json::{Value, json};

use bench::process::{Rank, Scratch};
use bench::quantity::{median, range};
use bench::schedule::{Case, Window};
use bench::server::{self, Error, Kind, Setup};
use bench::tester::{self, Place, Seen};

/// Who watches and who comes.
#[derive(Args, Debug)]
pub struct Options {
    /// Players that watch from the start.
    #[arg(long, default_value_t = 500)]
    steady: u32,
    /// Players that join within one second.
    #[arg(long, default_value_t = 3_000)]
    joining: u32,
    /// Video bitrate, kbit/s.
    #[arg(long, default_value_t = 600.0)]
    kbps: f64,
    /// Window, ms, or "adaptive". A fixed one, because the window of a larger audience is longer,
    /// storm or not.
    #[arg(long, default_value = "100", value_parser = super::compare::window)]
    window: Window,
    /// Rounds.
    #[arg(long, default_value_t = 3)]
    rounds: u32,
}

/// Seconds of peace before the storm.
const PEACE: f64 = 9.0;
/// Seconds looked at from its start.
const STORM: f64 = 4.0;
/// Seconds after it in which all stay: what so many cost without a storm.
const AFTER: f64 = 4.0;

/// What those who watch saw, and those who joined.
#[derive(Debug, Serialize)]
struct Round {
    before: Seen,
    p99_worst_second_ms: f64,
    /// Of the same players when the others have joined and stay.
    p99_after_ms: f64,
    joined: Seen,
    first_frame_ms: Value,
}

/// Measures the latency of those who watch, before and during.
pub fn run(options: &Options) -> Result<Value, Error> {
    let head = super::head("storm");
    let scratch = Scratch::new().map_err(Error::during("a folder for logs"))?;
    let mut rounds = Vec::new();
    for number in 1..=options.rounds {
        let round = storm(options, &scratch)?;
        eprintln!(
            "round {number}  {} watch: p99 {:.1} ms before, {:.1} ms in the worst second while {} \
             join, {:.1} ms after; first frame of those {} ms (p50), tester {:.0} %",
            options.steady,
            round.before.p99_ms,
            round.p99_worst_second_ms,
            options.joining,
            round.p99_after_ms,
            round.first_frame_ms["p50"],
            round.joined.tester_percent
        );
        rounds.push(round);
    }
    let rises: Vec<f64> =
        rounds.iter().map(|round| round.p99_worst_second_ms - round.before.p99_ms).collect();
    let beyond: Vec<f64> =
        rounds.iter().map(|round| round.p99_worst_second_ms - round.p99_after_ms).collect();
    println!(
        "others' p99 in the worst second of a join storm: {:+.1} ms; against the same players when \
         all have joined: {:+.1} ms",
        median(&rises),
        median(&beyond)
    );
    Ok(super::with(
        head,
        json!({"steady": options.steady, "joining": options.joining, "kbps": options.kbps,
               "window": options.window, "rounds": rounds,
               "rise_ms": {"median": median(&rises), "range": range(&rises)},
               "rise_over_after_ms": {"median": median(&beyond), "range": range(&beyond)}}),
    ))
}

fn storm(options: &Options, scratch: &Scratch) -> Result<Round, Error> {
    let case = Case::rtmp(options.steady, options.kbps, options.window);
    let place = Place::default();
    let server = server::start(&Kind::Ringcast, &case, &Setup::default(), scratch)?;
    let _publisher = tester::publish(&place, &server.publish_url, 1, &case, scratch)?;
    sleep(Duration::from_secs(1));
    let watching = (options.steady, 1_000, "10%");
    let total = PEACE + STORM + AFTER + 1.0;
    let steady = tester::play("steady", &place, &server.play_url, watching, total, scratch)?;
    sleep(Duration::from_secs_f64(PEACE));
    let joining = (options.joining, options.joining, "none");
    let crowd = Place { rank: Rank::Crowd, ..place };
    let storm = tester::play("storm", &crowd, &server.play_url, joining, STORM + AFTER, scratch)?;
    let joined = storm.seen(0.0, STORM)?;
    let report = read(scratch, "storm.json");
    let before = steady.seen(f64::from(options.steady) / 1_000.0 + 3.0, PEACE)?;
    let all = read(scratch, "steady.json");
    let p99s = |from: f64, to: f64| -> Vec<f64> {
        let series = all["series"].as_array().into_iter().flatten();
        let within = series.filter(|s| s["t"].as_f64().is_some_and(|t| t > from && t <= to));
        within.filter_map(|s| s["p99_ms"].as_f64()).collect()
    };
    let p99_worst_second_ms = p99s(PEACE, PEACE + STORM).into_iter().fold(0.0, f64::max);
    let p99_after_ms = median(&p99s(PEACE + STORM, PEACE + STORM + AFTER - 1.0));
    let first_frame_ms = report["groups"][0]["first_frame_ms"].clone();
    Ok(Round { before, p99_worst_second_ms, p99_after_ms, joined, first_frame_ms })
}

fn read(scratch: &Scratch, name: &str) -> Value {
    let text = std::fs::read_to_string(scratch.file(name)).unwrap_or_default();
    serde_json::from_str(&text).unwrap_or_default()
}
