//! The command line of the load tester.

#![forbid(unsafe_code)]

use std::io::Write;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use loadtest::ask::AskPlan;
use loadtest::plan::{PlayGroup, PublishGroup, parse_rate, parse_share, parse_time};
use loadtest::{Plan, Report, html, run, table};

#[derive(Parser)]
#[command(
    version,
    about = "Load tester for RTMP, HTTP-FLV, WebSocket-FLV and HLS servers",
    after_help = "Examples:\n  \
        loadtest publish --url rtmp://127.0.0.1/live/s --generate --kbps 1000 --seconds 120 &\n  \
        loadtest play --url http://127.0.0.1:8080/live/s.flv --clients 3000 --verify 5%\n  \
        loadtest play --url http://127.0.0.1:8080/live/s.m3u8 --clients 5000 --verify 1%\n  \
        loadtest run loadtest/scenarios/live-3000.toml --server-pid $(pidof ringcast)\n\n\
        Exit status: 0, or 1 when an expectation of the scenario does not hold, 2 when the run\n\
        could not be made."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Plays a stream with many clients.
    Play(Play),
    /// Publishes many streams.
    Publish(Publish),
    /// Runs a scenario file.
    Run(RunFile),
    /// Asks an HTTP API at a steady rate.
    Ask(Ask),
}

/// What all commands take.
#[derive(Args)]
struct Common {
    /// Length of the run (10s, 2m).
    #[arg(long, value_parser = parse_time)]
    seconds: Option<f64>,
    /// Worker threads, one io_uring each.
    #[arg(long)]
    threads: Option<u32>,
    /// Cores to pin the workers to, in order.
    #[arg(long, value_delimiter = ',')]
    cpu: Vec<usize>,
    /// Processes to sample CPU and memory of.
    #[arg(long, value_delimiter = ',')]
    server_pid: Vec<u32>,
    /// Start of the CPU measurement; by default two seconds after the ramps.
    #[arg(long, value_parser = parse_time)]
    measure_from: Option<f64>,
    /// Writes the report as JSON (- for standard output).
    #[arg(long)]
    json: Option<PathBuf>,
    /// Writes the report as one HTML page.
    #[arg(long)]
    html: Option<PathBuf>,
    /// No progress and no table.
    #[arg(long)]
    quiet: bool,
}

#[derive(Args)]
struct Play {
    /// rtmp://host/app/stream, http://host/app/stream.flv, ws://host/app/stream.flv or
    /// http://host/app/stream.m3u8; {n} is the client's number.
    #[arg(long, required_unless_present = "place")]
    url: Option<String>,
    /// The same without its name.
    #[arg(value_name = "URL", conflicts_with = "url")]
    place: Option<String>,
    /// Number of players.
    #[arg(long, visible_alias = "players", default_value_t = 1)]
    clients: u32,
    /// Connections per second, or all at once (500/s, all).
    #[arg(long, default_value = "500/s", value_parser = parse_rate)]
    ramp: f64,
    /// Share of players that parse and check everything (5%, all, none).
    #[arg(long, default_value = "5%", value_parser = parse_share)]
    verify: f64,
    /// FLV file whose messages the verified players must see.
    #[arg(long)]
    reference: Option<PathBuf>,
    /// Local addresses to connect from, in turn.
    #[arg(long, value_delimiter = ',')]
    source: Vec<IpAddr>,
    /// HLS: parts and held requests, where the server has them; --low-latency=false for segments.
    #[arg(long, default_value_t = true, num_args = 0..=1, default_missing_value = "true",
          action = clap::ArgAction::Set)]
    low_latency: bool,
    /// HLS: asks for the part that is hinted at together with the playlist; --hints=false when the
    /// playlist names it.
    #[arg(long, default_value_t = true, num_args = 0..=1, default_missing_value = "true",
          action = clap::ArgAction::Set)]
    hints: bool,
    /// HLS: playlists without what the viewer knows, where offered; --deltas=false for whole ones.
    #[arg(long, default_value_t = true, num_args = 0..=1, default_missing_value = "true",
          action = clap::ArgAction::Set)]
    deltas: bool,
    #[command(flatten)]
    common: Common,
}

#[derive(Args)]
struct Publish {
    /// rtmp://host/app/stream; {n} is the publisher's number.
    #[arg(long)]
    url: String,
    /// Number of publishers.
    #[arg(long, default_value_t = 1)]
    clients: u32,
    /// Connections per second, or all at once (500/s, all).
    #[arg(long, default_value = "500/s", value_parser = parse_rate)]
    ramp: f64,
    /// FLV file to publish in a loop.
    #[arg(long, conflicts_with = "generate")]
    file: Option<PathBuf>,
    /// Publishes a generated stream (the default without --file).
    #[arg(long)]
    generate: bool,
    /// Generated video bitrate, kbit/s.
    #[arg(long, default_value_t = 600.0)]
    kbps: f64,
    /// Generated frames per second.
    #[arg(long, default_value_t = 30.0)]
    fps: f64,
    /// Generated keyframe distance.
    #[arg(long, default_value = "2s", value_parser = parse_time)]
    gop: f64,
    /// With generated audio (43 messages a second); --audio=false for video only.
    #[arg(long, default_value_t = true, num_args = 0..=1, default_missing_value = "true",
          action = clap::ArgAction::Set)]
    audio: bool,
    /// Local addresses to connect from, in turn.
    #[arg(long, value_delimiter = ',')]
    source: Vec<IpAddr>,
    #[command(flatten)]
    common: Common,
}

#[derive(Args)]
struct Ask {
    /// http://host:port/path; with several they are asked in turn.
    #[arg(long, required = true)]
    url: Vec<String>,
    /// Requests per second.
    #[arg(long, default_value = "1000/s", value_parser = parse_rate)]
    rate: f64,
    /// Connections.
    #[arg(long, default_value_t = 32)]
    connections: usize,
    /// Length of the run (10s, 2m).
    #[arg(long, default_value = "30s", value_parser = parse_time)]
    seconds: f64,
    /// A connection for each request.
    #[arg(long)]
    close: bool,
}

#[derive(Args)]
struct RunFile {
    /// The scenario, TOML.
    scenario: PathBuf,
    /// Replaces the start of what follows '://' in URLs: --at 127.0.0.1=10.0.0.7. Repeatable.
    #[arg(long, value_parser = pair)]
    at: Vec<(String, String)>,
    #[command(flatten)]
    common: Common,
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (from, to) = text.split_once('=').ok_or("expected OLD=NEW")?;
    Ok((format!("://{from}"), format!("://{to}")))
}

fn main() -> ExitCode {
    let (plan, common) = match Cli::parse().command {
        Command::Play(c) => {
            let group = PlayGroup {
                name: "play".into(),
                url: c.url.or(c.place).unwrap_or_default(),
                clients: c.clients,
                ramp: c.ramp,
                verify: c.verify,
                reference: c.reference,
                sources: c.source,
                low_latency: c.low_latency,
                hints: c.hints,
                deltas: c.deltas,
                ..PlayGroup::default()
            };
            (Plan { name: "play".into(), play: vec![group], ..Plan::default() }, c.common)
        }
        Command::Publish(c) => {
            let group = PublishGroup {
                name: "publish".into(),
                url: c.url,
                clients: c.clients,
                ramp: c.ramp,
                file: c.file,
                kbps: c.kbps,
                fps: c.fps,
                gop: c.gop,
                audio: c.audio,
                sources: c.source,
                ..PublishGroup::default()
            };
            (Plan { name: "publish".into(), publish: vec![group], ..Plan::default() }, c.common)
        }
        Command::Run(c) => match Plan::load(&c.scenario) {
            Ok(mut plan) => {
                for (from, to) in &c.at {
                    plan.redirect(from, to);
                }
                (plan, c.common)
            }
            Err(e) => return failed(&e),
        },
        Command::Ask(c) => return ask(c),
    };
    let plan = with_common(plan, &common);
    let report = match run(plan) {
        Ok(report) => report,
        Err(e) => return failed(&e),
    };
    if let Err(e) = write(&report, &common) {
        return failed(&e);
    }
    if report.violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(1) }
}

/// Asks, and writes the report as JSON. Exit status 1 when an answer is missing or is no success.
fn ask(c: Ask) -> ExitCode {
    let Ask { url: urls, rate, connections, seconds, close } = c;
    let report = match loadtest::ask::ask(&AskPlan { urls, rate, connections, seconds, close }) {
        Ok(report) => report,
        Err(e) => return failed(&e),
    };
    match serde_json::to_string_pretty(&report) {
        Ok(json) => println!("{json}"),
        Err(e) => return failed(&e),
    }
    let fine = report.statuses.get(&200).copied().unwrap_or(0);
    if fine == report.asked { ExitCode::SUCCESS } else { ExitCode::from(1) }
}

fn failed(e: &dyn std::fmt::Display) -> ExitCode {
    eprintln!("loadtest: {e}");
    ExitCode::from(2)
}

fn with_common(mut plan: Plan, c: &Common) -> Plan {
    plan.seconds = c.seconds.unwrap_or(plan.seconds);
    plan.threads = c.threads.unwrap_or(plan.threads);
    plan.measure_from = c.measure_from.or(plan.measure_from);
    if !c.cpu.is_empty() {
        plan.cpus.clone_from(&c.cpu);
    }
    if !c.server_pid.is_empty() {
        plan.server_pids.clone_from(&c.server_pid);
    }
    plan.quiet = c.quiet;
    plan
}

fn write(report: &Report, c: &Common) -> std::io::Result<()> {
    let json_to_stdout = c.json.as_ref().is_some_and(|p| p.as_os_str() == "-");
    if let Some(path) = &c.json {
        let mut json = serde_json::to_string_pretty(report)?;
        json.push('\n');
        if json_to_stdout {
            std::io::stdout().write_all(json.as_bytes())?;
        } else {
            std::fs::write(path, json)?;
        }
    }
    if let Some(path) = &c.html {
        std::fs::write(path, html::render(report))?;
    }
    if !c.quiet {
        let text = table::render(report);
        // Standard output belongs to the JSON when it goes there.
        if json_to_stdout {
            std::io::stderr().write_all(text.as_bytes())?;
        } else {
            std::io::stdout().write_all(text.as_bytes())?;
        }
    }
    Ok(())
}
