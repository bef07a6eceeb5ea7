//! The command that compares servers, and one command for each further number of the README.

#![forbid(unsafe_code)]

mod commands;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use serde_json::Value;

use bench::network;
use bench::server::{self, Error};

#[derive(Parser)]
#[command(
    about = "Compares what a live server costs with the floor and with other servers",
    after_help = "Examples:\n  \
        cargo run --release -p bench --bin compare -- --quick\n  \
        cargo run --release -p bench --bin compare -- --players 1000,3000 --html compare.html\n  \
        cargo run --release -p bench --bin compare -- memory --json -\n  \
        cargo run --release -p bench --bin compare -- all\n\n\
        The server runs on core 0 and the players on core 1. Figures of different runs do not\n\
        compare; ratios inside one run do."
)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    compare: commands::compare::Options,
    /// Writes the outcome as JSON (- for standard output).
    #[arg(long, global = true)]
    json: Option<std::path::PathBuf>,
    /// Uses the programs that are there instead of building them first.
    #[arg(long, global = true)]
    no_build: bool,
    /// Measures in the machine's own network, with its congestion control, and not in a namespace
    /// with cubic. Always so with --peer.
    #[arg(long, global = true)]
    here: bool,
}

#[derive(Subcommand)]
enum Command {
    /// Everything the README's table needs, in about half an hour.
    All(commands::all::Options),
    /// Resident memory: per additional player, and with many.
    Memory(commands::memory::Options),
    /// CPU per player on one shard and on two.
    Shards(commands::shards::Options),
    /// What players feel when very many join at once.
    Storm(commands::storm::Options),
    /// Files over HTTP, against nginx.
    Files(commands::files::Options),
    /// Publishers without players, against a loop that only receives.
    Ingest(commands::ingest::Options),
    /// Viewers of HLS segments, against nginx that serves the same files.
    Hls(commands::hls::Options),
    /// Viewers of Low-Latency HLS: CPU, memory over time, times of held playlists.
    LlHls(commands::ll_hls::Options),
    /// Held playlists over HTTP/2 through nginx, against the same without it.
    Http2(commands::http2::Options),
    /// CPU per player with zero-copy and without, on a route that does not copy.
    ZeroCopy(commands::zero_copy::Options),
    /// What sends by page reference would win over plain ones on loopback.
    PageReference(commands::page_reference::Options),
    /// Instructions per delivered message in user space, by callgrind.
    Instructions(commands::instructions::Options),
    /// Where the server's time goes, by perf.
    Profile(commands::profile::Options),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    ringcast::config::raise_open_files();
    if let Err(error) = prepare(&cli) {
        eprintln!("compare: {error}");
        return ExitCode::from(2);
    }
    let outcome = run(&cli).and_then(|report| write(&report, cli.json.as_deref()));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("compare: {error}");
            ExitCode::from(2)
        }
    }
}

/// Builds and installs what is needed, while there is a network to get it from; then leaves it.
fn prepare(cli: &Cli) -> Result<(), Error> {
    if network::is_inside() {
        return network::set_up();
    }
    if !cli.no_build {
        commands::build()?;
    }
    let compares = cli.command.is_none() && cli.compare.needs_nginx();
    let files =
        matches!(cli.command, Some(Command::Hls(_) | Command::Http2(_) | Command::Files(_)));
    let all = matches!(cli.command, Some(Command::All(_)));
    if compares || files || all {
        server::install_nginx(compares || all)?;
    }
    if all || matches!(cli.command, Some(Command::Http2(_))) {
        commands::http2::install_h2load()?;
    }
    if matches!(cli.command, Some(Command::All(_) | Command::ZeroCopy(_))) {
        bench::sink::install_compilers();
    }
    if cli.here || cli.compare.has_peer() || matches!(cli.command, Some(Command::Instructions(_))) {
        return Ok(());
    }
    let why = network::enter();
    eprintln!(
        "compare: {why}; measuring in the machine's own network, with {}",
        network::congestion_control()
    );
    Ok(())
}

fn run(cli: &Cli) -> Result<Value, Error> {
    match &cli.command {
        None => commands::compare::run(&cli.compare),
        Some(Command::All(options)) => commands::all::run(options, &|args| {
            let words = std::iter::once("compare").chain(args.split_whitespace());
            let step = Cli::try_parse_from(words).map_err(|why| Error::Tool(why.to_string()))?;
            run(&step)
        }),
        Some(Command::Memory(options)) => commands::memory::run(options),
        Some(Command::Shards(options)) => commands::shards::run(options),
        Some(Command::Storm(options)) => commands::storm::run(options),
        Some(Command::Files(options)) => commands::files::run(options),
        Some(Command::Ingest(options)) => commands::ingest::run(options),
        Some(Command::Hls(options)) => commands::hls::run(options),
        Some(Command::LlHls(options)) => commands::ll_hls::run(options),
        Some(Command::Http2(options)) => commands::http2::run(options),
        Some(Command::ZeroCopy(options)) => commands::zero_copy::run(options),
        Some(Command::PageReference(options)) => commands::page_reference::run(options),
        Some(Command::Instructions(options)) => commands::instructions::run(options),
        Some(Command::Profile(options)) => commands::profile::run(options),
    }
}

fn write(report: &Value, path: Option<&std::path::Path>) -> Result<(), Error> {
    let Some(path) = path else { return Ok(()) };
    let text = format!("{report:#}\n");
    if path.as_os_str() == "-" {
        print!("{text}");
        return Ok(());
    }
    std::fs::write(path, text).map_err(Error::during("writing the JSON"))
}
