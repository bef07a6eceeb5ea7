//! The commands, and what they share.

pub mod all;
pub mod compare;
pub mod files;
pub mod hls;
pub mod http2;
pub mod ingest;
pub mod instructions;
pub mod ll_hls;
pub mod memory;
pub mod page_reference;
pub mod profile;
pub mod shards;
pub mod storm;
pub mod zero_copy;

use std::process::Command;

use serde_json::{Value, json};

use bench::process;
use bench::server::Error;

/// Builds the programs that take part, beside this one.
pub fn build() -> Result<(), Error> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["build", "--quiet", "--release", "-p", "ringcast", "-p", "loadtest"]);
    command.args(["-p", "bench", "--bins"]);
    // Where this program lies is where the others have to be.
    if let Some(target) = process::sibling("").parent() {
        command.env("CARGO_TARGET_DIR", target);
    }
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml");
    command.args(["--manifest-path", manifest]);
    let status = command.status().map_err(Error::during("cargo build"))?;
    if status.success() { Ok(()) } else { Err(Error::Tool("cargo build failed".into())) }
}

/// When and on what: the same for every report.
pub fn head(name: &str) -> Value {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|l| l.strip_prefix("model name\t: ")).unwrap_or("unknown");
    let date = Command::new("date").arg("-I").output().map(|o| o.stdout).unwrap_or_default();
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    json!({
        "schema": 1,
        "command": name,
        "date": String::from_utf8_lossy(&date).trim(),
        "kernel": rustix::system::uname().release().to_string_lossy(),
        "cpu": model,
        "cores": std::thread::available_parallelism().map_or(0, usize::from),
        "congestion_control": bench::network::congestion_control(),
        "real_time_priority": process::is_real_time(),
        "load_before": load.split(' ').next().unwrap_or_default(),
    })
}

/// Puts the fields of `more` beside those of `report`.
pub fn with(mut report: Value, more: Value) -> Value {
    if let (Some(fields), Value::Object(more)) = (report.as_object_mut(), more) {
        fields.extend(more);
    }
    report
}
