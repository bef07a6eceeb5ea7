//! Programs from PyPI, each installed into a folder of its own below the build's.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::Duration;

use super::process::Process;

/// The program of these packages (with their versions, so that a new one is looked at before it
/// counts), installed if it is not there yet. `None`, said loudly: it cannot be had, and this is no
/// CI, where the test fails.
pub fn program(name: &str, packages: &[&str]) -> Option<PathBuf> {
    match install(name, packages) {
        Ok(program) => Some(program),
        // On a desk without a network the other tests are worth running all the same.
        Err(why) if std::env::var_os("RINGCAST_CI").is_none() => {
            eprintln!("SKIPPED, nothing was tested: {name} cannot be installed: {why}");
            None
        }
        Err(why) => panic!("{name} cannot be installed from PyPI: {why}"),
    }
}

fn install(name: &str, packages: &[&str]) -> Result<PathBuf, String> {
    static INSTALLING: Mutex<()> = Mutex::new(());
    let _one_at_a_time = INSTALLING.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let program = folder.join("bin").join(name);
    // Written last: what was interrupted is made anew.
    let complete = folder.join(packages.join("+").replace('/', "_"));
    if complete.exists() {
        return Ok(program);
    }
    let run = |mut command: Command, seconds| {
        let done =
            Process::start("an installation", &mut command).finish(Duration::from_secs(seconds));
        match done.status.success() {
            true => Ok(()),
            false => Err(format!("{command:?}: {}", done.stderr.join("\n"))),
        }
    };
    let mut command = Command::new("python3");
    command.args(["-m", "venv", "--clear"]).arg(&folder);
    run(command, 60)?;
    let mut command = Command::new(folder.join("bin/pip"));
    command.args(["install", "--quiet", "--disable-pip-version-check", "--no-input"]);
    command.args(["--timeout", "15", "--retries", "1", "--only-binary", ":all:"]).args(packages);
    run(command, 180)?;
    std::fs::write(complete, "").map_err(|why| why.to_string())?;
    Ok(program)
}
