//! Many publishers and no players, against a loop that receives the same bytes and drops them.

use std::thread::sleep;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::{Value, json};

use bench::process::{Cpu, Scratch, resident};
use bench::quantity::{median, range};
use bench::schedule::{Case, Window};
use bench::server::{self, Error, Kind, Setup};
use bench::tester::{self, Place};

/// How many publishers.
#[derive(Args, Debug)]
pub struct Options {
    /// Publishers, one stream each.
    #[arg(long, default_value_t = 1_000)]
    publishers: u32,
    /// Video bitrate of each, kbit/s.
    #[arg(long, default_value_t = 600.0)]
    kbps: f64,
    /// Rounds.
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// Measured seconds of each turn.
    #[arg(long, default_value_t = 8.0)]
    seconds: f64,
}

/// Measures both in turns.
pub fn run(options: &Options) -> Result<Value, Error> {
    let head = super::head("ingest");
    let scratch = Scratch::new().map_err(Error::during("a folder for logs"))?;
    // A long window keeps the floor's own stream, to which nobody listens, out of the figure.
    let case = Case::rtmp(0, options.kbps, Window::Fixed(1_000));
    let place = Place::default();
    let mut runs = [Vec::new(), Vec::new()];
    for round in 1..=options.rounds {
        for (index, kind) in [Kind::Floor, Kind::Ringcast].iter().enumerate() {
            let server = server::start(kind, &case, &Setup::default(), &scratch)?;
            let url = format!("{}{{n}}", server.publish_url);
            let tester = tester::publish(&place, &url, options.publishers, &case, &scratch)?;
            sleep(Duration::from_secs_f64(f64::from(options.publishers) / 200.0 + 3.0));
            let (before, sent, at) = (Cpu::of(server.pid), Cpu::of(tester.pid()), Instant::now());
            sleep(Duration::from_secs_f64(options.seconds));
            let span = at.elapsed().as_secs_f64();
            let used = Cpu::of(server.pid).since(&before).total / span;
            let tester_used = Cpu::of(tester.pid()).since(&sent).total / span;
            let each = used / f64::from(options.publishers) * 1e6;
            eprintln!(
                "round {round}  {:<9} {each:.1} us/publisher, {:.1} %, tester {:.0} %",
                kind.name(),
                used * 100.0,
                tester_used * 100.0
            );
            runs[index].push(json!({"us_per_publisher": each, "cpu_percent": used * 100.0,
                "tester_percent": tester_used * 100.0, "resident_bytes": resident(server.pid)}));
        }
    }
    let cost = |v: &Value| v["us_per_publisher"].as_f64().unwrap_or(0.0);
    let ratios: Vec<f64> = runs[1].iter().zip(&runs[0]).map(|(r, f)| cost(r) / cost(f)).collect();
    println!("ringcast / receive loop, CPU per publisher: {:.2}", median(&ratios));
    Ok(super::with(
        head,
        json!({"publishers": options.publishers, "kbps": options.kbps,
               "ratio": {"median": median(&ratios), "range": range(&ratios)},
               "loop": runs[0], "ringcast": runs[1]}),
    ))
}
