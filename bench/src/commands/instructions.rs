//! Instructions per delivered message in user space, counted by callgrind on a fixed scenario.
//!
//! The scenario is run twice with different numbers of messages; the difference is free of the
//! set-up. What was counted last is kept in `instructions.json`, so that a change is seen.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

use clap::Args;
use serde_json::{Value, json};

use bench::process::{Scratch, sibling};
use bench::server::Error;

/// What is counted.
#[derive(Args, Debug)]
pub struct Options {
    /// Players.
    #[arg(long, default_value_t = 500)]
    players: u32,
    /// Keeps the count for later comparisons.
    #[arg(long)]
    record: bool,
}

/// Counts differ between builds with checks and without, so they are kept apart.
const BUILD: &str = if cfg!(debug_assertions) { "checked" } else { "release" };

/// Counts and compares with what was kept. A change is reported, never an error.
pub fn run(options: &Options) -> Result<Value, Error> {
    let head = super::head("instructions");
    let scratch = Scratch::new().map_err(Error::during("a folder for logs"))?;
    let (few, many) = (20, 120);
    let least = count(options.players, few, &scratch)?;
    let most = count(options.players, many, &scratch)?;
    let messages = f64::from(many - few) * f64::from(options.players);
    let each = (most - least) / messages;
    let path: PathBuf = [env!("CARGO_MANIFEST_DIR"), "instructions.json"].iter().collect();
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    let mut kept: BTreeMap<String, f64> = serde_json::from_str(&kept).unwrap_or_default();
    let before = kept.get(BUILD).copied();
    println!("instructions per delivered message ({BUILD} build): {each:.1}");
    if let Some(before) = before {
        println!("recorded: {before:.1}, change {:+.1} %", (each / before - 1.0) * 100.0);
    }
    if options.record {
        kept.insert(BUILD.into(), (each * 10.0).round() / 10.0);
        let text = serde_json::to_string_pretty(&kept).unwrap_or_default();
        std::fs::write(&path, text + "\n").map_err(Error::during("writing instructions.json"))?;
    }
    Ok(super::with(
        head,
        json!({"players": options.players, "build": BUILD, "per_message": each,
               "recorded": before}),
    ))
}

fn count(players: u32, messages: u32, scratch: &Scratch) -> Result<f64, Error> {
    let out = scratch.file("callgrind.out");
    let status = Command::new("valgrind")
        .args(["--tool=callgrind", "--quiet"])
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(sibling("walk"))
        .args([players.to_string(), messages.to_string()])
        .stdout(std::process::Stdio::null())
        .status()
        .map_err(Error::during("valgrind (apt-get install valgrind)"))?;
    let text = std::fs::read_to_string(&out).unwrap_or_default();
    let total = text
        .lines()
        .find_map(|l| l.strip_prefix("totals: ").or_else(|| l.strip_prefix("summary: ")))
        .and_then(|n| n.trim().parse().ok());
    match total {
        Some(total) if status.success() => Ok(total),
        _ => Err(Error::Tool("callgrind did not count".into())),
    }
}
