//! Many players of all protocols on one stream: every message at every player is the published
//! one, in order, with its timestamp. Players are spread over shards by the kernel, so most of
//! them are on another shard than the publisher.

mod common;

use common::server::Server;
use loadtest::plan::{Expect, PlayGroup, PublishGroup};
use loadtest::{Plan, run, table};

const STREAM: &str = "live/fanout";

/// Groups of `clients` players each by RTMP, HTTP-FLV and WebSocket-FLV.
fn players(server: &Server, clients: u32) -> Vec<PlayGroup> {
    let flv = server.flv(STREAM);
    let ws = flv.replacen("http://", "ws://", 1);
    [("rtmp", server.rtmp(STREAM)), ("flv", flv), ("ws", ws)]
        .map(|(name, url)| PlayGroup {
            name: name.to_owned(),
            url,
            clients,
            start: 1.0,
            ramp: 200.0,
            verify: 1.0,
            expect: Expect { min_playing: Some(u64::from(clients)), ..Expect::default() },
            ..PlayGroup::default()
        })
        .into()
}

#[test]
fn three_hundred_mixed_players_get_every_message() {
    let mut server = Server::start(&["shards=2"]);
    let plan = Plan {
        seconds: 10.0,
        server_pids: vec![server.process_mut().id()],
        publish: vec![PublishGroup { url: server.rtmp(STREAM), ..PublishGroup::default() }],
        play: players(&server, 100),
        expect: Expect {
            // 300 players, 73 messages a second, eight seconds at the least.
            min_checked: Some(300 * 73 * 8),
            ..Expect::all_well()
        },
        quiet: true,
        ..Plan::default()
    };
    let report = run(plan).expect("a run");
    assert!(report.violations.is_empty(), "{}", table::render(&report));
    let server_report = report.server.expect("the server's pid was given");
    let busy = server_report.threads.iter().filter(|t| t.name.starts_with("shard"));
    let busy = busy.filter(|t| t.user_percent + t.system_percent > 0.0).count();
    assert_eq!(busy, 2, "players are on both shards: {:?}", server_report.threads);
    server.stop();
}

/// The committed scenario with 2,000 players, about two minutes:
/// `cargo test --release -p loadtest --test fanout -- --ignored --nocapture`
/// (with a release build of the server, or `RINGCAST_BIN`).
#[test]
#[ignore = "takes two minutes and a whole machine"]
fn two_thousand_mixed_players_and_five_hundred_that_stop_reading() {
    let mut server = Server::start(&["shards=2"]);
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/scenarios/mixed-2000.toml");
    let mut plan = Plan::load(path.as_ref()).expect("a scenario");
    plan.redirect("127.0.0.1:8080", &server.http_addr().to_string());
    plan.redirect("127.0.0.1/", &format!("{}/", server.rtmp_addr()));
    plan.server_pids = vec![server.process_mut().id()];
    let report = run(plan).expect("a run");
    println!("{}", table::render(&report));
    assert!(report.violations.is_empty(), "{:?}", report.violations);
    server.stop();
}
