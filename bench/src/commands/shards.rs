//! CPU per player on one shard and on two, in turns.

use clap::Args;
use serde_json::{Value, json};

use bench::cost::measure;
use bench::process::Scratch;
use bench::quantity::{median, range};
use bench::schedule::{Case, Window};
use bench::server::{Error, Kind, Setup};
use bench::tester::Place;

/// What is measured.
#[derive(Args, Debug)]
pub struct Options {
    /// Number of players.
    #[arg(long, default_value_t = 1_000)]
    players: u32,
    /// Window, ms.
    #[arg(long, default_value_t = 100)]
    window: u32,
    /// Rounds.
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// Measured seconds of each turn.
    #[arg(long, default_value_t = 8.0)]
    seconds: f64,
    /// Cores of the server in both cases; shards are threads, so one core will do where there
    /// are only two.
    #[arg(long, default_value = "0")]
    cpus: String,
}

/// Measures one shard and two.
pub fn run(options: &Options) -> Result<Value, Error> {
    let head = super::head("shards");
    let scratch = Scratch::new().map_err(Error::during("a folder for logs"))?;
    let case = Case::rtmp(options.players, 600.0, Window::Fixed(options.window));
    let mut runs = [Vec::new(), Vec::new()];
    for round in 1..=options.rounds {
        for shards in 1..=2 {
            let setup = Setup { shards, cpus: options.cpus.clone(), ..Setup::default() };
            let place = Place::default();
            let cost = measure(&Kind::Ringcast, &case, options.seconds, &setup, &place, &scratch)?;
            eprintln!("round {round}  {shards} shards  {:.1} us/player", cost.us_per_player);
            runs[shards as usize - 1].push(cost);
        }
    }
    let ratios: Vec<f64> = runs[1]
        .iter()
        .zip(&runs[0])
        .map(|(two, one)| two.us_per_player / one.us_per_player)
        .collect();
    println!("two shards / one shard, CPU per player: {:.2}", median(&ratios));
    Ok(super::with(
        head,
        json!({"case": case, "ratio": {"median": median(&ratios), "range": range(&ratios)},
               "one": runs[0], "two": runs[1]}),
    ))
}
