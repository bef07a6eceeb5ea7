//! The API's own description against its real answers: schemathesis makes up requests by the
//! description and looks whether each answer is one that it allows.

mod common;

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use common::media::{self, Media};
use common::process::Process;
use common::server::Server;
use common::venv;

/// What is installed; the version is fixed so that a new one is looked at before it counts.
const PACKAGE: &str = "schemathesis==4.32.5";

/// The program, or the one that is named.
fn schemathesis() -> Option<PathBuf> {
    let named = std::env::var_os("RINGCAST_SCHEMATHESIS");
    named.map(PathBuf::from).or_else(|| venv::program("schemathesis", &[PACKAGE]))
}

#[test]
fn every_answer_is_one_that_the_description_allows() {
    let Some(program) = schemathesis() else { return };
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
