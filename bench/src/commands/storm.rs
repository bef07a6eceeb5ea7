//! A join storm: what players who watch already feel when very many join within a second.

use std::thread::sleep;
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use bench::process::Scratch;
use bench::schedule::{Case, Protocol, Window};
use bench::server::{self, Error, Kind, Setup};
use bench::tester::{self, Place};

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
    /// A fixed window instead of the adaptive one, ms: tells what of the rise is the window.
    #[arg(long)]
    window: Option<u32>,
}

/// Seconds of peace before the storm.
const PEACE: f64 = 12.0;
/// Seconds looked at from its start.
const STORM: f64 = 4.0;

/// Measures the latency of those who watch, before and during.
pub fn run(options: &Options) -> Result<Value, Error> {
    let head = super::head("storm");
    let scratch = Scratch::new().map_err(Error::during("a folder for logs"))?;
    let case = Case {
        protocol: Protocol::Rtmp,
        players: options.steady,
        kbps: options.kbps,
        gop: 2.0,
        window: options.window.map_or(Window::Adaptive, Window::Fixed),
    };
    let place = Place::default();
    let server = server::start(&Kind::Ringcast, &case, &Setup::default(), &scratch)?;
    let _publisher = tester::publish(&place, &server.publish_url, 1, &case, &scratch)?;
    sleep(Duration::from_secs(1));
    let watching = (options.steady, 1_000, "10%");
    let total = PEACE + STORM + 4.0;
    let steady = tester::play("steady", &place, &server.play_url, watching, total, &scratch)?;
    sleep(Duration::from_secs_f64(PEACE));
    let joining = (options.joining, options.joining, "none");
    let url = &server.play_url;
    let storm = tester::play("storm", &place, url, joining, STORM + 2.0, &scratch)?;
    let joined = storm.seen(0.0, STORM)?;
    let report = std::fs::read_to_string(scratch.file("storm.json")).unwrap_or_default();
    let report: Value = serde_json::from_str(&report).unwrap_or_default();
    let first_frame = report["groups"][0]["first_frame_ms"].clone();
    let steady_seen = steady.seen(4.0, PEACE)?;
    let text = std::fs::read_to_string(scratch.file("steady.json")).unwrap_or_default();
    let all: Value = serde_json::from_str(&text).unwrap_or_default();
    let during = all["series"].as_array().into_iter().flatten().filter(|s| {
        let t = s["t"].as_f64().unwrap_or(0.0);
        t > PEACE && t <= PEACE + STORM
    });
    let worst = during.filter_map(|s| s["p99_ms"].as_f64()).fold(0.0, f64::max);
    let rise = worst - steady_seen.p99_ms;
    println!(
        "{} watch: p99 {:.1} ms before, {worst:.1} ms in the worst second while {} join: \
         {rise:+.1} ms",
        options.steady, steady_seen.p99_ms, options.joining
    );
    println!("tester: {:.0} % of its core while they join", joined.tester_percent);
    Ok(super::with(
        head,
        json!({"steady": options.steady, "joining": options.joining, "kbps": options.kbps,
               "before": steady_seen, "p99_worst_second_ms": worst, "rise_ms": rise,
               "joined": joined, "first_frame_ms": first_frame}),
    ))
}
