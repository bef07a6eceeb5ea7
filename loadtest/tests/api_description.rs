//! The API's own description against its real answers: schemathesis makes up requests by the
//! description and looks whether each answer is one that it allows.

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use common::media::{self, Media};
use common::process::Process;
use common::server::Server;

/// What is installed; the version is fixed so that a new one is looked at before it counts.
const PACKAGE: &str = "schemathesis==4.32.5";

/// The program, installed into a folder of its own below the build's if it is not there yet.
fn schemathesis() -> Result<PathBuf, String> {
    if let Some(named) = std::env::var_os("RINGCAST_SCHEMATHESIS") {
        return Ok(named.into());
    }
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("schemathesis");
    let program = folder.join("bin/schemathesis");
    // Written last: what was interrupted is made anew.
    let complete = folder.join(PACKAGE);
    if complete.exists() {
        return Ok(program);
    }
    let run = |mut command: Command, seconds| {
        let done = Process::start("installing schemathesis", &mut command)
            .finish(Duration::from_secs(seconds));
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
    command.args(["--timeout", "15", "--retries", "1", "--only-binary", ":all:", PACKAGE]);
    run(command, 180)?;
    std::fs::write(complete, "").map_err(|why| why.to_string())?;
    Ok(program)
}

#[test]
fn every_answer_is_one_that_the_description_allows() {
    let program = match schemathesis() {
        Ok(program) => program,
        // On a desk without a network the other tests are worth running all the same.
        Err(why) if std::env::var_os("RINGCAST_CI").is_none() => {
            eprintln!("SKIPPED, nothing was compared: schemathesis cannot be installed: {why}");
            return;
        }
        Err(why) => panic!("schemathesis cannot be installed from PyPI: {why}"),
    };
    let mut server = Server::start(&[
        "http_api.raw_api.enabled=true",
        "http_api.auth.token=secret",
        "vhost.publish.hold=0",
    ]);
    let mut command = media::ffmpeg();
    command.args(["-re", "-stream_loop", "-1", "-i"]).arg(Media::AvcBFramesAac.file());
    command.args(["-c", "copy", "-f", "flv"]).arg(server.rtmp("live/cam"));
    let publisher = Process::start("ffmpeg (publisher)", &mut command);
    let api = server.api_addr();
    let mut command = Command::new(program);
    command.arg("run").arg(format!("http://{api}/api/v1/openapi.json"));
    command.args(["--header", "Authorization: Bearer secret"]);
    // Not: that bad parameters are refused, and what is gone not found, by a status of their own.
    // SRS answers with status 200 and a code, and so does this server. Events never end, so they
    // have their own test.
    command.args(["--exclude-checks"]);
    command.arg("negative_data_rejection,positive_data_acceptance,use_after_free");
    command.args(["--exclude-path", "/api/v1/events"]);
    command.args(["--max-examples", "20", "--seed", "1", "--workers", "2", "--no-color"]);
    command.args(["--request-timeout", "10", "--generation-database", "none"]);
    let done = Process::start("schemathesis", &mut command).finish(Duration::from_secs(240));
    assert!(done.status.success(), "{}\n{}", done.stdout.join("\n"), done.stderr.join("\n"));
    assert!(server.process_mut().is_running());
    drop(publisher);
    server.stop();
}
