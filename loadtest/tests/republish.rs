//! A publisher that is killed and comes back, again and again, while its players stay: all play on
//! after each return, and time never goes back.

mod common;

use common::server::Server;
use loadtest::plan::{Expect, PlayGroup, PublishGroup, Restart};
use loadtest::{Plan, run, table};

const STREAM: &str = "live/republish";
const PLAYERS: u32 = 200;
const TIMES: u32 = 20;
const GOP: f64 = 0.5;

#[test]
fn two_hundred_players_survive_twenty_restarts() {
    let server = Server::start(&["shards=2"]);
    let restart = Restart { every: 1.0, away: 0.3, times: TIMES };
    let flv = server.flv(STREAM);
    let ws = flv.replacen("http://", "ws://", 1);
    let group = |name: &str, url: String, clients| PlayGroup {
        name: name.to_owned(),
        url,
        clients,
        start: 0.3,
        ramp: 0.0,
        verify: 1.0,
        expect: Expect { min_playing: Some(u64::from(clients)), ..Expect::default() },
        ..PlayGroup::default()
    };
    let plan = Plan {
        // Twenty lives and absences, and a rest.
        seconds: f64::from(TIMES) * (restart.every + restart.away) + 4.0,
        publish: vec![PublishGroup {
            url: server.rtmp(STREAM),
            kbps: 400.0,
            gop: GOP,
            restart: Some(restart),
            ..PublishGroup::default()
        }],
        play: vec![
            group("rtmp", server.rtmp(STREAM), PLAYERS / 2),
            group("flv", flv, PLAYERS / 4),
            group("ws", ws, PLAYERS / 4),
        ],
        expect: Expect {
            max_disconnects: Some(0),
            // Among them timestamps that go back, and gaps inside a GOP.
            max_errors: Some(0),
            max_skips: Some(0),
            max_without_media: Some(0),
            ..Expect::default()
        },
        quiet: true,
        ..Plan::default()
    };
    let report = run(plan).expect("a run");
    let text = table::render(&report);
    assert!(report.violations.is_empty(), "{text}");
    let players = &report.groups[1..];
    let republished: u64 = players.iter().map(|g| g.checked.republished).sum();
    assert_eq!(republished, u64::from(PLAYERS * TIMES), "each player saw each return\n{text}");
    // Away, the handshake, at most a GOP, and time for a busy machine.
    let limit_ms = (restart.away + GOP + 1.0) * 1000.0;
    for g in players {
        assert!(g.silence_ms.max < limit_ms, "{}: silent for {} ms", g.name, g.silence_ms.max);
    }
    server.stop();
}
