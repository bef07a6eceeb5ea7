//! Where the server's time goes while it serves many players, by perf's samples.

use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use bench::process::Scratch;
use bench::schedule::{Case, Window};
use bench::server::{self, Error, Kind, Setup};
use bench::tester::{self, Place};

/// Under which load.
#[derive(Args, Debug)]
pub struct Options {
    /// Number of players.
    #[arg(long, default_value_t = 1_000)]
    players: u32,
    /// Window, ms.
    #[arg(long, default_value_t = 0)]
    window: u32,
    /// Sampled seconds.
    #[arg(long, default_value_t = 10)]
    seconds: u32,
    /// Looks at the floor program instead.
    #[arg(long)]
    floor: bool,
    /// Lines shown.
    #[arg(long, default_value_t = 40)]
    lines: usize,
}

/// Samples the server and prints what it was found doing.
pub fn run(options: &Options) -> Result<Value, Error> {
    let head = super::head("profile");
    let scratch = Scratch::new().map_err(Error::during("a folder for logs"))?;
    let case = Case::rtmp(options.players, 600.0, Window::Fixed(options.window));
    let kind = if options.floor { Kind::Floor } else { Kind::Ringcast };
    let place = Place::default();
    let server = server::start(&kind, &case, &Setup::default(), &scratch)?;
    let _publisher = match kind.makes_stream() {
        true => None,
        false => Some(tester::publish(&place, &server.publish_url, 1, &case, &scratch)?),
    };
    sleep(Duration::from_secs(1));
    let settle = f64::from(options.players) / 1000.0 + 2.0;
    let seconds = settle + f64::from(options.seconds) + 2.0;
    let players = (options.players, 1_000, "none");
    let _players = tester::play("play", &place, &server.play_url, players, seconds, &scratch)?;
    sleep(Duration::from_secs_f64(settle));
    let found = sample(server.pid, options.seconds, options.lines, &scratch)?;
    Ok(super::with(super::with(head, json!({"case": case, "server": kind.name()})), found))
}

/// Samples a process for some seconds; prints and returns what it was found doing.
///
/// # Errors
/// perf is missing or fails.
pub fn sample(pid: u32, seconds: u32, lines: usize, scratch: &Scratch) -> Result<Value, Error> {
    let data = scratch.file("perf.data");
    let perf = |args: &[&str]| {
        let output = Command::new("perf").args(args).output();
        output.map_err(Error::during("perf (apt-get install linux-perf)"))
    };
    let (file, pid) = (data.display().to_string(), pid.to_string());
    let time = seconds.to_string();
    perf(&[
        "record",
        "-q",
        "-F",
        "999",
        "-e",
        "cpu-clock",
        "-o",
        &file,
        "-p",
        &pid,
        "--",
        "sleep",
        &time,
    ])?;
    let report = perf(&[
        "report",
        "-i",
        &file,
        "--stdio",
        "-q",
        "--no-children",
        "--sort",
        "dso,symbol",
        "-g",
        "none",
    ])?;
    let report = String::from_utf8_lossy(&report.stdout).into_owned();
    let rows: Vec<(f64, String, String)> = report.lines().filter_map(parse).collect();
    let kernel: f64 = rows.iter().filter(|(_, dso, _)| dso.starts_with('[')).map(|(p, ..)| p).sum();
    println!("kernel {kernel:.1} %, user space {:.1} %", 100.0 - kernel);
    for (percent, dso, symbol) in rows.iter().take(lines) {
        println!("{percent:6.2} %  {dso:<20} {symbol}");
    }
    println!("user space:");
    let user = rows.iter().filter(|(_, dso, _)| !dso.starts_with('['));
    for (percent, dso, symbol) in user.clone().take(lines) {
        println!("{percent:6.2} %  {dso:<20} {symbol}");
    }
    let list = |rows: &mut dyn Iterator<Item = &(f64, String, String)>| -> Vec<Value> {
        rows.take(lines)
            .map(|(percent, dso, symbol)| json!({"percent": percent, "dso": dso, "symbol": symbol}))
            .collect()
    };
    Ok(json!({"kernel_percent": kernel, "top": list(&mut rows.iter()),
              "user": list(&mut user.into_iter())}))
}

/// `12.34%  [kernel.kallsyms]  [k] tcp_sendmsg`
fn parse(line: &str) -> Option<(f64, String, String)> {
    let (percent, rest) = line.trim().split_once('%')?;
    let mut words = rest.split_whitespace();
    let dso = words.next()?.to_owned();
    let symbol: Vec<&str> = words.filter(|w| !matches!(*w, "[k]" | "[.]")).collect();
    Some((percent.parse().ok()?, dso, symbol.join(" ")))
}
