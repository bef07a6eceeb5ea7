//! Clients that come and go: afterwards the server has as many descriptors and as much memory as
//! before.

mod common;

use std::thread;
use std::time::Duration;

use common::server::Server;
use loadtest::plan::{Churn, Expect, PlayGroup, PublishGroup};
use loadtest::sample::sample;
use loadtest::{Plan, run, table};

/// `names` streams are published for a while, and players make `cycles` visits to them.
fn churn(server: &Server, app: &str, names: u32, cycles: u64, seconds: f64) {
    let stream = format!("{app}/s{{n}}");
    let flv = server.flv(&stream);
    let ws = flv.replacen("http://", "ws://", 1);
    let play = [server.rtmp(&stream), flv, ws].map(|url| PlayGroup {
        url,
        names,
        clients: 60,
        start: 1.0,
        ramp: 0.0,
        verify: 0.1,
        churn: Some(Churn { lifetime: 0.1, pause: 0.01, cycles: cycles / 3 }),
        ..PlayGroup::default()
    });
    let plan = Plan {
        seconds,
        end_when_cycles_done: true,
        publish: vec![PublishGroup {
            url: server.rtmp(&stream),
            clients: names,
            ramp: 1000.0,
            // Little: what counts is that they come and go.
            kbps: 60.0,
            fps: 5.0,
            gop: 0.4,
            audio: false,
            ..PublishGroup::default()
        }],
        play: play.into(),
        expect: Expect {
            max_disconnects: Some(0),
            max_errors: Some(0),
            min_connects: Some(cycles / 3 * 3),
            ..Expect::default()
        },
        quiet: true,
        ..Plan::default()
    };
    let report = run(plan).expect("a run");
    assert!(report.violations.is_empty(), "{}", table::render(&report));
    let publishers = &report.groups[0];
    assert_eq!((publishers.starts, publishers.disconnects), (u64::from(names), 0));
}

/// Blocks of media memory in use, by the last summary line.
fn blocks(server: &mut Server) -> u64 {
    let lines = server.process_mut().lines();
    let last = lines.iter().rev().find_map(|line| line.split(" blocks=").nth(1));
    let number = last.and_then(|rest| rest.split(' ').next()).expect("a summary line");
    number.parse().expect("a number")
}

/// Descriptors and resident megabytes when they have stopped to fall, after streams without
/// anybody have been let go (a few seconds).
fn settled(pid: u32) -> (u64, f64) {
    let look = || {
        let s = sample(&[pid], 0.0);
        (s.descriptors, s.rss as f64 / 1_048_576.0)
    };
    let mut last = look();
    let mut same = 0;
    for _ in 0..60 {
        thread::sleep(Duration::from_millis(500));
        let now = look();
        same = if now.0 == last.0 && now.1 > last.1 - 0.1 { same + 1 } else { 0 };
        last = now;
        if same == 16 {
            break;
        }
    }
    last
}

/// `warm` and `rounds` times `cycles` visits and `names` streams, each time with other names.
fn back_at_baseline(warm: u32, rounds: u32, names: u32, cycles: u64, growth_max: f64) {
    let mut server = Server::start(&["shards=2", "vhost.publish.hold=1", "summary_interval=1"]);
    let pid = server.process_mut().id();
    let seconds = 120.0;
    // Buffers and tables that the server keeps for good are made by the first clients, and the
    // allocator takes a while to find its level.
    for round in 0..warm {
        churn(&server, &format!("warm{round}"), names, cycles, seconds);
    }
    let (descriptors, rss) = settled(pid);
    let blocks_before = blocks(&mut server);
    for round in 0..rounds {
        churn(&server, &format!("r{round}"), names, cycles, seconds);
    }
    let (descriptors_after, rss_after) = settled(pid);
    let blocks_after = blocks(&mut server);
    println!(
        "{} cycles on {} names: descriptors {descriptors} -> {descriptors_after}, \
         blocks {blocks_before} -> {blocks_after}, resident {rss:.1} -> {rss_after:.1} MB",
        u64::from(rounds) * cycles,
        rounds * names
    );
    assert_eq!(descriptors_after, descriptors, "descriptors");
    assert_eq!((blocks_before, blocks_after), (0, 0), "blocks of streams that are gone");
    assert!(rss_after - rss < growth_max, "resident: {rss:.1} MB became {rss_after:.1} MB");
    server.stop();
}

#[test]
fn five_thousand_cycles_and_five_hundred_names_leave_nothing_behind() {
    back_at_baseline(1, 2, 250, 2500, 10.0);
}

/// 100,000 cycles and 10,000 names, about three minutes:
/// `cargo test --release -p loadtest --test churn -- --ignored --nocapture`
/// (with a release build of the server, or `RINGCAST_BIN`).
#[test]
#[ignore = "takes several minutes"]
fn a_hundred_thousand_cycles_and_ten_thousand_names_leave_nothing_behind() {
    back_at_baseline(5, 20, 500, 5000, 10.0);
}
