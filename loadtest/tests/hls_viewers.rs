//! Many viewers of HLS, by the load tester: every frame at every viewer is the published one, in
//! order, nothing comes late, and playlists keep the rules.

mod common;

use common::server::Server;
use loadtest::plan::{Expect, PlayGroup, PublishGroup};
use loadtest::report::GroupReport;
use loadtest::{Plan, html, run, table};

const STREAM: &str = "live/viewed";

/// Thirty viewers for some seconds; their report.
fn view(settings: &[&str], group: PlayGroup, expect: Expect) -> GroupReport {
    let own = ["shards=2", "vhost.hls.enabled=true", "vhost.hls.hls_fragment=1"];
    let server = Server::start(&[&own, settings].concat());
    let plan = Plan {
        seconds: 11.0,
        publish: vec![PublishGroup {
            url: server.rtmp(STREAM),
            gop: 1.0,
            ..PublishGroup::default()
        }],
        play: vec![PlayGroup {
            name: "viewers".to_owned(),
            url: server.http(&format!("/{STREAM}.m3u8")),
            clients: 30,
            start: 3.0,
            ramp: 30.0,
            verify: 0.5,
            ..group
        }],
        expect: Expect {
            min_playing: Some(30),
            // 15 viewers, 73 messages a second, five seconds at the least.
            min_checked: Some(15 * 73 * 5),
            max_missed: Some(0),
            ..expect
        },
        quiet: true,
        ..Plan::default()
    };
    let mut report = run(plan).expect("a run");
    let text = table::render(&report);
    assert!(report.violations.is_empty(), "{text}");
    assert!(text.contains("requests: ") && html::render(&report).contains("\"reload_ms\""));
    server.stop();
    println!("{text}");
    report.groups.remove(1)
}

#[test]
fn segments_of_mpeg_ts() {
    let group = view(&[], PlayGroup::default(), Expect::all_well());
    let hls = group.hls.expect("what viewers saw");
    assert_eq!((group.protocol, hls.parts, hls.inits), ("hls", 0, 0));
    // Three at the begin and one each second.
    assert!((30 * 8..=30 * 13).contains(&hls.segments), "{hls:?}");
    assert!(hls.playlists >= 30 * 7 && hls.playlist_ms.p99 < 1_000.0, "{hls:?}");
    assert!(hls.refused.is_empty() && hls.segment_ms.n > 30 * 3, "{hls:?}");
    assert!(group.latency_ms.n > 0 && group.latency_ms.p50 < 3_000.0, "{:?}", group.latency_ms);
}

const PARTS: &[&str] =
    &["vhost.hls.hls_use_fmp4=true", "vhost.hls.hls_part=0.2", "vhost.hls.hls_window=12"];

#[test]
fn parts_that_are_hinted_at() {
    let expect = Expect { reload_p99_ms: Some(500.0), ..Expect::all_well() };
    let group = view(PARTS, PlayGroup::default(), expect);
    let hls = group.hls.expect("what viewers saw");
    // Five a second.
    assert!(hls.parts > 30 * 5 * 5 && hls.segments <= 30 * 2, "{hls:?}");
    assert!(hls.reload_ms.n > 30 * 5 * 3 && hls.reload_after_first_ms.n >= hls.reload_ms.n);
    assert!(hls.refused.is_empty() && hls.inits == 30, "{hls:?}");
    // A part, and the time it takes.
    assert!(group.latency_ms.p50 < 400.0, "{:?}", group.latency_ms);
}

#[test]
fn parts_when_the_playlist_names_them() {
    let habits = PlayGroup { hints: false, deltas: false, ..PlayGroup::default() };
    let group = view(PARTS, habits, Expect::all_well());
    let hls = group.hls.expect("what viewers saw");
    assert!(hls.parts > 30 * 5 * 5 && hls.deltas == 0, "{hls:?}");
    let habits = PlayGroup { low_latency: false, ..PlayGroup::default() };
    let group = view(PARTS, habits, Expect::all_well());
    let hls = group.hls.expect("what viewers saw");
    assert!(hls.parts == 0 && hls.segments > 30 * 5 && hls.inits == 30, "{hls:?}");
}
