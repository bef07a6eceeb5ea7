//! The API under load does not delay those who watch: their added latency with 10,000 requests a
//! second, compared with that without any.

mod common;

use std::thread;

use common::server::Server;
use loadtest::ask::{AskPlan, AskReport, ask};
use loadtest::plan::{Expect, PlayGroup, PublishGroup};
use loadtest::{Plan, Report, run, table};

const STREAM: &str = "live/watched";
/// What consoles and exporters ask for.
const PATHS: [&str; 6] = [
    "/api/v1/streams/",
    "/api/v1/clients/?count=10",
    "/api/v1/summaries",
    "/api/v1/vhosts/",
    "/api/v1/versions",
    "/api/v1/self_proc_stats",
];

struct Load {
    players: u32,
    seconds: f64,
    rate: f64,
    close: bool,
}

/// Added latency of the players in ms: the 99th percentile.
fn p99(report: &Report) -> f64 {
    report.groups.iter().find(|g| g.name == "play").expect("the players").latency_ms.p99
}

/// Plays for a while; with a load, asks once all players are there.
fn watch(server: &mut Server, load: &Load, asking: bool) -> (Report, Option<AskReport>) {
    let warm_up = 2.0 + f64::from(load.players) / 250.0;
    let api = server.api_addr();
    let asker = asking.then(|| {
        let plan = AskPlan {
            urls: PATHS.map(|path| format!("http://{api}{path}")).into(),
            rate: load.rate,
            connections: 64,
            seconds: load.seconds,
            close: load.close,
        };
        thread::spawn(move || {
            thread::sleep(std::time::Duration::from_secs_f64(warm_up));
            ask(&plan).expect("URLs that can be used")
        })
    });
    let plan = Plan {
        seconds: warm_up + load.seconds,
        server_pids: vec![server.process_mut().id()],
        publish: vec![PublishGroup { url: server.rtmp(STREAM), ..PublishGroup::default() }],
        play: vec![PlayGroup {
            name: "play".into(),
            url: server.rtmp(STREAM),
            clients: load.players,
            start: 1.0,
            ramp: 250.0,
            verify: 0.05,
            ..PlayGroup::default()
        }],
        expect: Expect::all_well(),
        quiet: true,
        ..Plan::default()
    };
    let report = run(plan).expect("a run");
    assert!(report.violations.is_empty(), "{}", table::render(&report));
    (report, asker.map(|asker| asker.join().expect("it asked")))
}

fn compare(load: &Load) -> (f64, AskReport) {
    let mut server = Server::start(&["vhost.publish.hold=0"]);
    let (quiet, _) = watch(&mut server, load, false);
    let (busy, asked) = watch(&mut server, load, true);
    server.stop();
    let asked = asked.expect("it was asked");
    let result = serde_json::json!({
        "p99_ms_without": p99(&quiet),
        "p99_ms_with": p99(&busy),
        "server_cpu_percent_without": quiet.server.as_ref().map(|s| s.cpu_percent),
        "server_cpu_percent_with": busy.server.as_ref().map(|s| s.cpu_percent),
        "tester_cpu_percent": busy.tester.cpu_percent,
        "asked": asked,
    });
    println!("{}", serde_json::to_string_pretty(&result).expect("JSON"));
    assert!(asked.errors.is_empty(), "{asked:?}");
    assert_eq!(asked.statuses.get(&200), Some(&asked.asked), "{asked:?}");
    (p99(&busy) - p99(&quiet), asked)
}

#[test]
fn every_request_is_answered_while_some_watch() {
    for close in [false, true] {
        let load = Load { players: 50, seconds: 4.0, rate: 500.0, close };
        let (_, asked) = compare(&load);
        assert!(asked.asked >= 1_900, "{asked:?}");
    }
}

/// About a minute and a half, on a machine of its own, with release builds:
/// `cargo test --release -p loadtest --test api_load -- --ignored --nocapture`
/// (with a release build of the server, or `RINGCAST_BIN`).
#[test]
#[ignore = "takes a minute and a half and a whole machine"]
fn ten_thousand_requests_a_second_do_not_delay_a_thousand_players() {
    let load = Load { players: 1_000, seconds: 30.0, rate: 10_000.0, close: false };
    let (rise_ms, asked) = compare(&load);
    assert!(asked.answered_per_second > 9_900.0, "{asked:?}");
    assert!(rise_ms < 5.0, "the added latency rises by {rise_ms} ms");
}
