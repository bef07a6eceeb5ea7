//! CPU per player with zero-copy and without, on a route that does not copy (`bench::sink`).
//!
//! The players connect and ask for the stream with their own stack; then the sink takes the media,
//! and the stream begins. The floor is told how to send; whether the server uses zero-copy is its
//! own choice (`zero_copy = "auto"`), which it makes by measuring both ways.

use std::thread::sleep;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::{Value, json};

use bench::process::{Cpu, Scratch};
use bench::quantity::{median, range};
use bench::schedule::{Case, Window};
use bench::server::{self, Error, Kind, Setup};
use bench::sink::{self, PLAYERS, Programs, Route, SERVER, Sink};
use bench::tester::{self, Place};

/// What is measured.
#[derive(Args, Debug)]
pub struct Options {
    /// Number of players.
    #[arg(long, default_value_t = 1_000)]
    players: u32,
    /// Video bitrate, kbit/s.
    #[arg(long, default_value_t = 4_000.0)]
    kbps: f64,
    /// Windows, ms.
    #[arg(long, value_delimiter = ',', default_values_t = [100, 350])]
    windows: Vec<u32>,
    /// What takes the media: drop does so untouched; reflect makes the kernel copy it.
    #[arg(long, value_enum, default_values_t = [Sink::Drop])]
    sink: Vec<Sink>,
    /// Keep the media in huge pages, of which 256 are reserved for the time of the run.
    #[arg(long)]
    huge_pages: bool,
    /// Rounds.
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// Measured seconds of each turn.
    #[arg(long, default_value_t = 6.0)]
    seconds: f64,
}

/// Long enough for the server to try both ways and to decide.
const DECIDE: Duration = Duration::from_secs(10);
/// Long enough for congestion windows to have grown.
const SETTLE: Duration = Duration::from_secs(3);

/// Who sends, and the setting of `zero_copy`.
const TURNS: [(Kind, &str); 4] =
    [(Kind::Floor, "off"), (Kind::Floor, "on"), (Kind::Ringcast, "off"), (Kind::Ringcast, "auto")];

/// Pages of 2 MiB that the kernel holds ready; given back on drop.
#[derive(Debug)]
struct HugePages {
    before: String,
}

impl HugePages {
    const FILE: &str = "/proc/sys/vm/nr_hugepages";

    fn reserve() -> Result<HugePages, Error> {
        let failed = Error::during("reserving huge pages");
        let before = std::fs::read_to_string(Self::FILE).map_err(&failed)?;
        std::fs::write(Self::FILE, "256").map_err(&failed)?;
        Ok(HugePages { before })
    }
}

impl Drop for HugePages {
    fn drop(&mut self) {
        let _ = std::fs::write(Self::FILE, &self.before);
    }
}

/// Measures floor and server with zero-copy and without, in turns.
pub fn run(options: &Options) -> Result<Value, Error> {
    let head = super::head("zero-copy");
    let scratch = Scratch::new().map_err(Error::during("a folder for logs"))?;
    sink::install_compilers();
    let _reserved = options.huge_pages.then(HugePages::reserve).transpose()?;
    let mut rows = Vec::new();
    for &sink in &options.sink {
        let programs = Programs::compile(sink, &scratch)?;
        for &window in &options.windows {
            rows.push(row(options, sink, window, &programs, &scratch)?);
        }
    }
    Ok(super::with(
        head,
        json!({"players": options.players, "kbps": options.kbps,
        "huge_pages": options.huge_pages, "rows": rows}),
    ))
}

fn row(
    options: &Options,
    sink: Sink,
    window: u32,
    programs: &Programs,
    scratch: &Scratch,
) -> Result<Value, Error> {
    let name = sink.name();
    let mut runs: [Vec<f64>; 4] = Default::default();
    let mut choices = Vec::new();
    for round in 1..=options.rounds {
        for ((kind, policy), runs) in TURNS.iter().zip(&mut runs) {
            let (used, said) = turn(options, window, (kind, policy), programs, scratch)?;
            let each = used / f64::from(options.players) * 1e6;
            eprintln!(
                "round {round}  {name} {window} ms  {:<8} zero_copy={policy:<4} {each:7.1} \
                 us/player/s {:5.1} %",
                kind.name(),
                used * 100.0
            );
            runs.push(each);
            if *policy == "auto" {
                let said = said.unwrap_or_else(|| "undecided".into());
                eprintln!("  the server: {said}");
                choices.push(said);
            }
        }
    }
    let ratio = |over: usize, under: usize| -> Value {
        let ratios: Vec<f64> = runs[over].iter().zip(&runs[under]).map(|(a, b)| a / b).collect();
        json!({"median": median(&ratios), "range": range(&ratios)})
    };
    let (floor, server) = (ratio(1, 0), ratio(3, 2));
    println!(
        "{name} {window} ms: with zero-copy / without: floor {:.2}, server {:.2}; the server: {}",
        floor["median"].as_f64().unwrap_or(0.0),
        server["median"].as_f64().unwrap_or(0.0),
        choices.last().map_or("-", String::as_str)
    );
    Ok(json!({"sink": name, "window_ms": window, "floor_off_us": runs[0], "floor_on_us": runs[1],
        "off_us": runs[2], "auto_us": runs[3], "floor_ratio": floor, "ratio": server,
        "chosen": choices}))
}

/// CPU of the server, seconds a second, and what it said of zero-copy.
fn turn(
    options: &Options,
    window: u32,
    (kind, policy): (&Kind, &str),
    programs: &Programs,
    scratch: &Scratch,
) -> Result<(f64, Option<String>), Error> {
    let mut route = Route::new()?;
    let case = Case::rtmp(options.players, options.kbps, Window::Fixed(window));
    let huge = if options.huge_pages { "on" } else { "off" };
    let set = match kind {
        // The floor's switches are words.
        Kind::Floor => vec![format!("zero_copy={policy}"), format!("huge_pages={huge}")],
        _ => vec![
            format!("zero_copy=\"{policy}\""),
            format!("huge_pages=\"{huge}\""),
            "media_memory=\"256MiB\"".into(),
            "log.level=\"info\"".into(),
        ],
    };
    let setup = Setup {
        set,
        address: sink::ADDRESS.parse().ok(),
        inside: Some(SERVER.into()),
        ..Setup::default()
    };
    let server = server::start(kind, &case, &setup, scratch)?;
    let there = Place { inside: Some(PLAYERS.into()), ..Place::default() };
    let here = Place { inside: Some(SERVER.into()), ..Place::default() };
    let players = (options.players, 500, "none");
    let _players = tester::play("play", &there, &server.play_url, players, 60.0, scratch)?;
    sleep(Duration::from_secs_f64(f64::from(options.players) / 500.0 + 1.5));
    route.take_media(programs, scratch)?;
    let _publisher = match kind.makes_stream() {
        true => None,
        false => Some(tester::publish(&here, &server.publish_url, 1, &case, scratch)?),
    };
    sleep(if policy == "auto" { DECIDE } else { SETTLE });
    let (before, sent, at) = (Cpu::of(server.pid), route.bytes(), Instant::now());
    sleep(Duration::from_secs_f64(options.seconds));
    let span = at.elapsed().as_secs_f64();
    let used = Cpu::of(server.pid).since(&before).total / span;
    let mbps = (route.bytes() - sent) as f64 * 8.0 / 1e6 / span;
    let expected = options.kbps * f64::from(options.players) / 1e3;
    if mbps < 0.9 * expected {
        return Err(Error::Tool(format!("{mbps:.0} Mbit/s were sent instead of {expected:.0}")));
    }
    let log = std::fs::read_to_string(scratch.file(&format!("{}.log", kind.name())));
    let log = log.unwrap_or_default();
    let said = log.lines().rfind(|l| l.contains("zero-copy sends measured"));
    let said = said.map(|l| l.split("INFO").last().unwrap_or(l).trim().to_owned());
    Ok((used, said))
}
