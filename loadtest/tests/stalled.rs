//! Players that stop reading: the others see no gap, the server's memory stays flat, and those who
//! stopped go on at a keyframe.

mod common;

use common::server::Server;
use loadtest::plan::{Expect, PlayGroup, PublishGroup, Stall};
use loadtest::{Plan, run, table};

const STREAM: &str = "live/stalled";
const STALLED: u32 = 20;
const FROM: f64 = 4.0;
const TO: f64 = 14.0;

#[test]
fn stalled_players_skip_to_a_keyframe_and_cost_nothing() {
    let mut server = Server::start(&["shards=2", "vhost.play.queue_length=3"]);
    let group = |name: &str, clients, stall| PlayGroup {
        name: name.to_owned(),
        url: server.rtmp(STREAM),
        clients,
        start: 1.0,
        ramp: 100.0,
        verify: 1.0,
        // Small, so that the server feels a stall soon.
        receive_buffer: 32 * 1024,
        stall,
        ..PlayGroup::default()
    };
    let reading = PlayGroup {
        expect: Expect { max_skips: Some(0), max_stalls: Some(0), ..Expect::default() },
        ..group("reading", 40, None)
    };
    let stalled = PlayGroup {
        expect: Expect { min_skips: Some(u64::from(STALLED)), ..Expect::default() },
        ..group("stalled", STALLED, Some(Stall { from: FROM, to: Some(TO) }))
    };
    let plan = Plan {
        seconds: 20.0,
        measure_from: Some(FROM - 1.0),
        server_pids: vec![server.process_mut().id()],
        publish: vec![PublishGroup {
            url: server.rtmp(STREAM),
            kbps: 2000.0,
            gop: 1.0,
            ..PublishGroup::default()
        }],
        play: vec![reading, stalled],
        expect: Expect {
            max_disconnects: Some(0),
            max_errors: Some(0),
            max_without_media: Some(0),
            ..Expect::default()
        },
        quiet: true,
        ..Plan::default()
    };
    let report = run(plan).expect("a run");
    let text = table::render(&report);
    assert!(report.violations.is_empty(), "{text}");

    let stalled = &report.groups[2];
    assert_eq!(stalled.name, "stalled");
    // Each lost most of the ten seconds, at once: 103 messages a second, three seconds in the queue
    // and what was in the sockets' buffers excepted.
    let lost = stalled.checked.skipped_messages / u64::from(STALLED);
    assert!(lost > 2 * 73, "{lost} messages lost per stalled player\n{text}");
    assert_eq!(stalled.series.last().expect("seconds").playing, u64::from(STALLED), "{text}");

    // Ten seconds of 2 Mbit/s for twenty players are 50 MB that must not be kept.
    let samples = report.server.expect("the server's pid was given").samples;
    let rss = |t: f64| samples.iter().find(|s| s.t >= t).expect("a sample").rss as f64 / 1048576.0;
    let (before, at_end) = (rss(FROM - 1.0), rss(TO - 1.0));
    println!("resident: {before:.1} MB before the stall, {at_end:.1} MB at its end");
    assert!(at_end - before < 12.0, "{before:.1} MB became {at_end:.1} MB");
    server.stop();
}
