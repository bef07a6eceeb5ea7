//! Everything the table of the README needs, one command after the other, in a bounded time.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;
use serde_json::{Value, json};

use bench::page;
use bench::server::Error;

/// How thoroughly, and where to.
#[derive(Args, Debug)]
pub struct Options {
    /// Rounds of everything that is repeated.
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// Folder for report.json, report.html and report.txt; written anew after each step.
    #[arg(long, default_value = "bench-report")]
    out: PathBuf,
    /// Only the steps whose command contains one of these words.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
}

/// One command of this program, and about how long it takes: once, and each round, seconds.
struct Step {
    command: &'static str,
    once: f64,
    round: f64,
}

const STEPS: &[Step] = &[
    Step { command: "instructions", once: 15.0, round: 0.0 },
    Step {
        command: "--players 500,1000 --kbps 600 --protocols rtmp --seconds 6",
        once: 0.0,
        round: 180.0,
    },
    Step {
        command: "--players 3000 --kbps 600 --protocols rtmp --windows 100,350,adaptive \
                  --without nginx --seconds 6",
        once: 0.0,
        round: 70.0,
    },
    Step {
        command: "--players 1000 --kbps 600 --protocols flv --windows 0,100,350 --without nginx \
                  --seconds 6",
        once: 0.0,
        round: 68.0,
    },
    Step {
        command: "--players 3000 --kbps 600 --protocols flv --windows 100,350 --without nginx \
                  --seconds 6",
        once: 0.0,
        round: 56.0,
    },
    Step {
        command: "--players 1000 --kbps 2000 --protocols rtmp --windows 0,100,350 --without nginx \
                  --seconds 6",
        once: 0.0,
        round: 70.0,
    },
    Step { command: "shards", once: 0.0, round: 30.0 },
    Step { command: "storm", once: 0.0, round: 28.0 },
    Step { command: "ingest", once: 0.0, round: 42.0 },
    Step { command: "memory", once: 32.0, round: 0.0 },
    Step { command: "hls", once: 12.0, round: 34.0 },
    Step { command: "ll-hls", once: 50.0, round: 0.0 },
    Step { command: "http2", once: 20.0, round: 0.0 },
    Step { command: "zero-copy", once: 0.0, round: 125.0 },
    Step { command: "profile", once: 22.0, round: 0.0 },
];

impl Step {
    fn has_rounds(&self) -> bool {
        self.round > 0.0
    }

    fn seconds(&self, rounds: u32) -> f64 {
        self.once + self.round * f64::from(rounds)
    }

    fn args(&self, rounds: u32) -> String {
        match self.has_rounds() {
            true => format!("{} --rounds {rounds}", self.command),
            false => self.command.into(),
        }
    }
}

/// Runs every step through `run`, which takes a command line of this program. A step that fails is
/// reported and the others go on.
///
/// # Errors
/// The report cannot be written.
pub fn run(options: &Options, run: &dyn Fn(&str) -> Result<Value, Error>) -> Result<Value, Error> {
    let head = super::head("all");
    std::fs::create_dir_all(&options.out).map_err(Error::during("the folder of the report"))?;
    let chosen = |step: &&Step| {
        options.only.is_empty() || options.only.iter().any(|word| step.command.contains(word))
    };
    let steps: Vec<&Step> = STEPS.iter().filter(chosen).collect();
    let expected: f64 = steps.iter().map(|step| step.seconds(options.rounds)).sum();
    eprintln!("{} steps, about {:.0} minutes", steps.len(), expected / 60.0);
    let began = Instant::now();
    let mut done = 0.0;
    let mut outcomes = Vec::new();
    let mut report = head.clone();
    for (index, step) in steps.iter().enumerate() {
        let args = step.args(options.rounds);
        let elapsed = began.elapsed().as_secs_f64();
        // Once something has been done, how long it really took tells more.
        let pace = if done > 60.0 { elapsed / done } else { 1.0 };
        eprintln!(
            "[{}/{}] compare {args}   ({:.0} min gone, about {:.0} min left)",
            index + 1,
            steps.len(),
            elapsed / 60.0,
            (expected - done) * pace / 60.0
        );
        let at = Instant::now();
        let outcome = run(&args);
        let seconds = at.elapsed().as_secs_f64();
        done += step.seconds(options.rounds);
        let command = format!("compare {args}");
        outcomes.push(match outcome {
            Ok(report) => json!({"command": command, "seconds": seconds, "report": report}),
            Err(why) => {
                eprintln!("  failed: {why}");
                json!({"command": command, "seconds": seconds, "error": why.to_string()})
            }
        });
        report = super::with(
            head.clone(),
            json!({"rounds": options.rounds, "minutes": began.elapsed().as_secs_f64() / 60.0,
                   "targets": targets(&outcomes), "steps": outcomes}),
        );
        save(&report, &options.out)?;
    }
    print!("{}", text(&report));
    eprintln!("{} has report.json, report.html and report.txt", options.out.display());
    Ok(report)
}

fn save(report: &Value, folder: &Path) -> Result<(), Error> {
    let write = |name: &str, text: String| {
        std::fs::write(folder.join(name), text).map_err(Error::during("writing the report"))
    };
    write("report.json", format!("{report:#}\n"))?;
    write("report.html", page::render(report))?;
    write("report.txt", text(report))
}

/// The table of targets as text.
fn text(report: &Value) -> String {
    let word = |key: &str| report[key].as_str().unwrap_or_default().to_owned();
    let mut out = format!(
        "{}, {}, kernel {}, {}, {} rounds, load before {}\n\n{:<66} {:>10} {:>10}  {}\n",
        word("date"),
        word("cpu"),
        word("kernel"),
        word("congestion_control"),
        report["rounds"],
        word("load_before"),
        "what",
        "target",
        "reached",
        "rounds",
    );
    for row in report["targets"].as_array().into_iter().flatten() {
        let number = |value: &Value| value.as_f64().unwrap_or(f64::NAN);
        let [least, most] = [0, 1].map(|i| number(&row["range"][i]));
        let target = number(&row["target"]);
        let (target, met) = match target.is_nan() {
            true => (String::new(), ""),
            false if row["met"] == true => (format!("<= {target}"), ""),
            false => (format!("<= {target}"), "  MISSED"),
        };
        let range = match least.is_nan() || least == most {
            true => String::new(),
            false => format!("{least:.2} - {most:.2}"),
        };
        let what = row["what"].as_str().unwrap_or_default();
        let reached = number(&row["reached"]);
        let _ = writeln!(out, "{what:<66} {target:>10} {reached:>10.2}  {range}{met}");
    }
    for step in report["steps"].as_array().into_iter().flatten() {
        if let Some(why) = step["error"].as_str() {
            let _ = writeln!(out, "{} failed: {why}", step["command"].as_str().unwrap_or_default());
        }
    }
    out
}

/// What the steps say about the targets.
fn targets(steps: &[Value]) -> Vec<Value> {
    let mut rows = Vec::new();
    for step in steps {
        let (report, command) = (&step["report"], &step["command"]);
        let mut push = |what: String, target: f64, value: &Value| {
            let one = value.as_f64().map(|_| value);
            let Some(reached) = one.or(value.get("median")).and_then(Value::as_f64) else { return };
            rows.push(json!({"what": what, "target": target, "reached": reached,
                "range": value.get("range"), "met": reached <= target, "command": command}));
        };
        match report["command"].as_str().unwrap_or_default() {
            "compare" => {
                for row in report["rows"].as_array().into_iter().flatten() {
                    of_case(row, report, &mut push);
                }
            }
            "memory" => {
                let each = "resident memory per additional player, bytes";
                push(each.into(), 2048.0, &report["bytes_per_additional_player"]);
                let all = "resident memory with 10,000 players, MB";
                push(all.into(), 60.0, &report["resident_mb"]);
            }
            "shards" => push("two shards / one, CPU per player".into(), 1.05, &report["ratio"]),
            "storm" => {
                let what = "join storm: others' p99 in the worst second rises by, ms";
                push(what.into(), 20.0, &report["rise_ms"]);
            }
            "ingest" => {
                let what = "ingest, CPU per publisher / receive loop's";
                push(what.into(), 1.5, &report["ratio"]);
            }
            "zero-copy" => {
                for row in report["rows"].as_array().into_iter().flatten() {
                    let window = &row["window_ms"];
                    let target = if window == 100 { 0.6 } else { 0.45 };
                    let what = format!("zero-copy / copy, 4 Mbit/s, {window} ms, chosen by itself");
                    push(what, target, &row["ratio"]);
                }
            }
            "hls" => {
                let what = "HLS segments: ringcast / nginx, CPU per viewer";
                push(what.into(), f64::NAN, &report["ratio"]);
            }
            "ll-hls" => {
                let grown = "LL-HLS viewers: memory grows while they watch by, MB";
                push(grown.into(), 4.0, &report["grown_mb"]);
                let each = "LL-HLS: CPU per viewer, us a second";
                push(each.into(), f64::NAN, &report["us_per_viewer"]);
                let what = "LL-HLS: held playlists, p99 from the part's end, ms";
                push(what.into(), f64::NAN, &report["hls"]["reload_ms"]["p99"]);
            }
            "instructions" => {
                let what = "instructions per delivered message in user space";
                push(what.into(), f64::NAN, &report["per_message"]);
            }
            _ => {}
        }
    }
    rows
}

/// The targets that a row of the comparison speaks about.
fn of_case(row: &Value, report: &Value, push: &mut dyn FnMut(String, f64, &Value)) {
    let name = row["name"].as_str().unwrap_or_default();
    let (case, ratios, servers) = (&row["case"], &row["ratios"], &row["servers"]);
    let rtmp = case["protocol"] == "rtmp";
    let floor = if rtmp { 1.15 } else { 1.10 };
    push(format!("{name}: ringcast / floor, CPU per player"), floor, &ratios["floor"]);
    let at_once = case["window"]["fixed"] == 0;
    let adaptive = case["window"] == "adaptive";
    if at_once {
        let what = format!("{name}: ringcast / nginx-rtmp, CPU per player");
        push(what, 0.75, &ratios["nginx-rtmp"]);
        let p99 = |server: &str| servers[server]["p99_ms"].as_f64();
        if let (Some(ours), Some(floor)) = (p99("ringcast"), p99("floor")) {
            push(format!("{name}: p99 beyond the floor's, ms"), 5.0, &json!(ours - floor));
        }
    }
    if adaptive {
        let what = format!("{name}: ringcast / nginx-rtmp sending at once");
        push(what, 0.35, &ratios["nginx-rtmp"]);
        push(format!("{name}: p99 added latency, ms"), 150.0, &servers["ringcast"]["p99_ms"]);
        let rows = report["rows"].as_array().into_iter().flatten();
        let fixed = rows.filter(|other| {
            other["case"]["window"]["fixed"] == 0
                && ["protocol", "players", "kbps"].iter().all(|k| other["case"][*k] == case[*k])
        });
        for other in fixed {
            let us = |row: &Value| row["servers"]["ringcast"]["us_per_player"].as_f64();
            if let (Some(adaptive), Some(at_once)) = (us(row), us(other)) {
                let what = format!("{name}: adaptive / window 0, CPU per player");
                push(what, 1.0, &json!(adaptive / at_once));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_is_a_command_of_this_program() {
        use clap::Parser as _;
        for step in STEPS {
            let args = step.args(2);
            let words = std::iter::once("compare").chain(args.split_whitespace());
            crate::Cli::try_parse_from(words).unwrap_or_else(|why| panic!("{args}: {why}"));
        }
    }

    #[test]
    fn targets_are_found_in_what_the_commands_report() {
        let rows = json!([{
            "name": "rtmp 1000 x 600 kbit/s, 0 ms",
            "case": {"protocol": "rtmp", "players": 1000, "kbps": 600.0, "window": {"fixed": 0}},
            "servers": {"ringcast": {"p99_ms": 9.0, "us_per_player": 400.0},
                        "floor": {"p99_ms": 7.0, "us_per_player": 380.0}},
            "ratios": {"floor": {"median": 1.05, "range": [1.0, 1.1]}},
        }, {
            "name": "rtmp 1000 x 600 kbit/s, adaptive",
            "case": {"protocol": "rtmp", "players": 1000, "kbps": 600.0, "window": "adaptive"},
            "servers": {"ringcast": {"p99_ms": 60.0, "us_per_player": 200.0}},
            "ratios": {"nginx-rtmp": {"median": 0.4, "range": [0.4, 0.4]}},
        }]);
        let steps = [
            json!({"command": "compare", "report": {"command": "compare", "rows": rows}}),
            json!({"command": "compare storm", "report": {"command": "storm",
                   "rise_ms": {"median": 4.0, "range": [3.0, 5.0]}}}),
            json!({"command": "compare ingest", "error": "no"}),
        ];
        let found = targets(&steps);
        let met: Vec<(f64, bool)> = found
            .iter()
            .map(|row| (row["reached"].as_f64().unwrap(), row["met"] == true))
            .collect();
        let expected = [(1.05, true), (2.0, true), (0.4, false), (60.0, true), (0.5, true)];
        assert_eq!(met[..5], expected);
        assert_eq!(met[5], (4.0, true));
        let report = json!({"targets": found, "steps": steps, "rounds": 1});
        let text = text(&report);
        assert_eq!(text.matches("MISSED").count(), 1, "{text}");
        assert!(text.contains("compare ingest failed: no"), "{text}");
    }
}
