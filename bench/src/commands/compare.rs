//! The same schedule against the floor, ringcast, nginx-rtmp and others, in turns.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Instant;

use clap::Args;
use serde_json::{Value, json};

use bench::cost::{Cost, measure};
use bench::page;
use bench::process::Scratch;
use bench::quantity::{median, range, spread};
use bench::schedule::{Case, Protocol, Window};
use bench::server::{Error, Kind, Setup};
use bench::tester::Place;

/// What is compared.
#[derive(Args, Debug)]
pub struct Options {
    /// A short schedule that ends within three minutes.
    #[arg(long)]
    quick: bool,
    /// Numbers of players.
    #[arg(long, value_delimiter = ',', default_values_t = [500, 1000, 3000])]
    players: Vec<u32>,
    /// Video bitrates, kbit/s.
    #[arg(long, value_delimiter = ',', default_values_t = [600.0, 2000.0])]
    kbps: Vec<f64>,
    /// Windows: milliseconds or "adaptive".
    #[arg(long, value_delimiter = ',', default_value = "0,100,350,adaptive", value_parser = window)]
    windows: Vec<Window>,
    /// What players speak: rtmp, flv.
    #[arg(long, value_delimiter = ',', default_value = "rtmp,flv", value_parser = protocol)]
    protocols: Vec<Protocol>,
    /// Keyframe distance, seconds.
    #[arg(long, default_value_t = 2.0)]
    gop: f64,
    /// Rounds; in each, every server takes its turn.
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// Measured seconds of each turn.
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// Servers left out: floor, ringcast, nginx.
    #[arg(long, value_delimiter = ',')]
    without: Vec<String>,
    /// Another server that runs already, pinned by its owner: name=rtmp://url,pid. Repeatable.
    #[arg(long, value_parser = peer)]
    peer: Vec<Kind>,
    /// Further settings of ringcast.
    #[arg(long)]
    set: Vec<String>,
    /// Writes the outcome as one HTML page.
    #[arg(long)]
    html: Option<PathBuf>,
}

impl Options {
    /// True when nginx takes part.
    pub fn needs_nginx(&self) -> bool {
        !self.without.iter().any(|name| Kind::Nginx.name().starts_with(name.as_str()))
    }

    /// True when a server takes part that runs already, outside of any namespace of ours.
    pub fn has_peer(&self) -> bool {
        !self.peer.is_empty()
    }
}

/// Reads a window: milliseconds or "adaptive".
pub fn window(text: &str) -> Result<Window, String> {
    match text {
        "adaptive" => Ok(Window::Adaptive),
        ms => ms.parse().map(Window::Fixed).map_err(|_| "milliseconds or adaptive".into()),
    }
}

fn protocol(text: &str) -> Result<Protocol, String> {
    match text {
        "rtmp" => Ok(Protocol::Rtmp),
        "flv" => Ok(Protocol::Flv),
        _ => Err("rtmp or flv".into()),
    }
}

fn peer(text: &str) -> Result<Kind, String> {
    let form = "name=rtmp://host/app/stream,pid";
    let (name, rest) = text.split_once('=').ok_or(form)?;
    let (url, pid) = rest.rsplit_once(',').ok_or(form)?;
    let pid = pid.parse().map_err(|_| form)?;
    Ok(Kind::Peer { name: name.into(), url: url.into(), pid })
}

/// No turn of the quick schedule begins later than this, seconds.
const QUICK_SECONDS: f64 = 162.0;

/// Runs of one case, by server.
type Runs = BTreeMap<String, Vec<Cost>>;

/// Runs the comparison.
pub fn run(options: &Options) -> Result<Value, Error> {
    let (cases, rounds, seconds) = plan(options);
    let mut kinds = vec![Kind::Floor, Kind::Ringcast, Kind::Nginx];
    kinds.retain(|k| !options.without.iter().any(|w| k.name().starts_with(w.as_str())));
    kinds.extend(options.peer.iter().cloned());
    let scratch = Scratch::new().map_err(Error::during("a folder for logs"))?;
    let setup = Setup { set: options.set.clone(), ..Setup::default() };
    let place = Place::default();
    let head = super::head("compare");
    let mut all: Vec<(Case, Runs)> = cases.iter().map(|c| (*c, Runs::new())).collect();
    let began = Instant::now();
    let turns =
        cases.iter().map(|case| kinds.iter().filter(|k| k.can(case)).count()).sum::<usize>();
    let turns = turns * rounds as usize;
    let mut turn = 0;
    for round in 1..=rounds {
        for (case, runs) in &mut all {
            let mut able: Vec<&Kind> = kinds.iter().filter(|k| k.can(case)).collect();
            // Who was first is last in the next round, so that a drift of the machine evens out.
            if round % 2 == 0 {
                able.reverse();
            }
            for kind in able {
                let elapsed = began.elapsed().as_secs_f64();
                if options.quick && elapsed > QUICK_SECONDS {
                    break;
                }
                let left = elapsed / f64::from(turn.max(1)) * (turns as f64 - f64::from(turn));
                turn += 1;
                let cost = measure(kind, case, seconds, &setup, &place, &scratch)?;
                eprintln!(
                    "[{turn}/{turns}, {left:.0} s left] {case}  {:<10} {:6.1} us/player  \
                     {:5.1} %  p50 {:.1} p99 {:.1} ms  {:.0} Mbit/s{}",
                    kind.name(),
                    cost.us_per_player,
                    cost.cpu_percent,
                    cost.seen.p50_ms,
                    cost.seen.p99_ms,
                    cost.seen.mbps,
                    remarks(case, &cost),
                );
                runs.entry(kind.name().to_owned()).or_default().push(cost);
            }
        }
    }
    let rows: Vec<Value> = all.iter().map(|(case, runs)| row(case, runs, &all)).collect();
    let report = super::with(head, json!({"rounds": rounds, "seconds": seconds, "rows": rows}));
    print!("{}", table(&report));
    if let Some(path) = &options.html {
        std::fs::write(path, page::render(&report)).map_err(Error::during("writing the HTML"))?;
    }
    Ok(report)
}

fn plan(options: &Options) -> (Vec<Case>, u32, f64) {
    let gop = options.gop;
    if options.quick {
        let case = |protocol, window| Case { protocol, players: 1000, kbps: 600.0, gop, window };
        let cases = vec![
            case(Protocol::Rtmp, Window::Fixed(0)),
            case(Protocol::Rtmp, Window::Fixed(100)),
            case(Protocol::Rtmp, Window::Adaptive),
            case(Protocol::Flv, Window::Fixed(0)),
        ];
        return (cases, 2, 4.0);
    }
    let mut cases = Vec::new();
    for &protocol in &options.protocols {
        for &kbps in &options.kbps {
            for &players in &options.players {
                for &window in &options.windows {
                    cases.push(Case { protocol, players, kbps, gop, window });
                }
            }
        }
    }
    (cases, options.rounds, options.seconds)
}

/// What makes a run's figures doubtful.
fn remarks(case: &Case, cost: &Cost) -> String {
    let mut out = String::new();
    let expected = expected_mbps(case);
    if !delivers(case, cost) {
        out += &format!("  [{:.0} % delivered]", cost.seen.mbps / expected * 100.0);
    }
    if cost.seen.faults + cost.seen.skips > 0 {
        out += &format!("  [{} faults, {} skips]", cost.seen.faults, cost.seen.skips);
    }
    if cost.cpu_percent > 95.0 {
        out += "  [server saturated]";
    }
    if cost.seen.tester_percent > 90.0 {
        out += "  [tester saturated]";
    }
    out
}

/// Whether the players got the stream, as far as a few seconds can tell.
fn delivers(case: &Case, cost: &Cost) -> bool {
    cost.seen.mbps > 0.9 * expected_mbps(case)
}

/// Payload of the generated stream: video, and audio of 43 messages of 300 bytes.
fn expected_mbps(case: &Case) -> f64 {
    (case.kbps + 43.0 * 0.3 * 8.0) * f64::from(case.players) / 1000.0
}

fn row(case: &Case, runs: &Runs, all: &[(Case, Runs)]) -> Value {
    let servers: BTreeMap<&str, Value> =
        runs.iter().map(|(name, runs)| (name.as_str(), summary(runs))).collect();
    let mut ratios = BTreeMap::new();
    let mine = runs.get("ringcast").map_or(&[][..], Vec::as_slice);
    // Servers without windows are measured once and compared with every window.
    let others = all.iter().filter(|(other, _)| Case { window: case.window, ..*other } == *case);
    for (other, runs) in others {
        for (name, theirs) in runs {
            let same = other.window == case.window;
            if name == "ringcast" || (name == "floor" && !same) {
                continue;
            }
            // Who delivers less than the stream costs less, which proves nothing.
            let whole = |(m, t): &(&Cost, &Cost)| delivers(case, m) && delivers(other, t);
            let pairs = mine.iter().zip(theirs).filter(whole);
            let each: Vec<f64> = pairs.map(|(m, t)| m.us_per_player / t.us_per_player).collect();
            if !each.is_empty() {
                let ratio = json!({"median": median(&each), "range": range(&each)});
                ratios.insert(name.clone(), ratio);
            }
        }
    }
    json!({"case": case, "name": case.to_string(), "servers": servers, "ratios": ratios,
           "expected_mbps": expected_mbps(case)})
}

fn summary(runs: &[Cost]) -> Value {
    let column = |f: &dyn Fn(&Cost) -> f64| runs.iter().map(f).collect::<Vec<f64>>();
    let middle = |f: &dyn Fn(&Cost) -> f64| median(&column(f));
    let cost = column(&|c| c.us_per_player);
    json!({
        "us_per_player": median(&cost),
        "spread_percent": spread(&cost),
        "cpu_percent": middle(&|c| c.cpu_percent),
        "user_percent": middle(&|c| c.user_percent),
        "p50_ms": middle(&|c| c.seen.p50_ms),
        "p99_ms": middle(&|c| c.seen.p99_ms),
        "p99_worst_ms": middle(&|c| c.seen.p99_worst_ms),
        "mbps": middle(&|c| c.seen.mbps),
        "rss_mb": middle(&|c| c.rss_mb),
        "socket_mb": middle(&|c| c.socket_mb),
        "faults": runs.iter().map(|c| c.seen.faults + c.seen.skips).sum::<u64>(),
        "runs": runs,
    })
}

/// The report as text.
fn table(report: &Value) -> String {
    let mut out = format!(
        "\n{:<38} {:<10} {:>9} {:>7} {:>7} {:>8} {:>8} {:>7} {:>7}  {}\n",
        "case",
        "server",
        "us/player",
        "spread",
        "cpu %",
        "p50 ms",
        "p99 ms",
        "rss MB",
        "sock MB",
        "ringcast / it"
    );
    for row in report["rows"].as_array().into_iter().flatten() {
        let mut name = row["name"].as_str().unwrap_or_default().to_owned();
        for (server, s) in row["servers"].as_object().into_iter().flatten() {
            let n = |key: &str| s[key].as_f64().unwrap_or(0.0);
            out += &format!(
                "{:<38} {:<10} {:>9.1} {:>5.0} % {:>7.1} {:>8.1} {:>8.1} {:>7.1} {:>7.1}  {}\n",
                std::mem::take(&mut name),
                server,
                n("us_per_player"),
                n("spread_percent"),
                n("cpu_percent"),
                n("p50_ms"),
                n("p99_ms"),
                n("rss_mb"),
                n("socket_mb"),
                ratio(&row["ratios"][server]),
            );
        }
        for (server, value) in row["ratios"].as_object().into_iter().flatten() {
            if row["servers"].get(server).is_none() {
                out += &format!("{:<38} ringcast / {server}: {}\n", "", ratio(value));
            }
        }
    }
    out
}

fn ratio(value: &Value) -> String {
    match value["median"].as_f64() {
        Some(middle) => {
            let at = |i: usize| value["range"][i].as_f64().unwrap_or(0.0);
            format!("{middle:.2} ({:.2} - {:.2})", at(0), at(1))
        }
        None => String::new(),
    }
}
