//! The load tester tested on a small server with known faults: what is wrong must be reported, and
//! nothing else.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use loadtest::media::{GenerateOptions, Generated, Script, Source};
use loadtest::plan::{Expect, PlayGroup, Stall};
use loadtest::{Plan, Report, html, run, table};
use ringcast::proto::flv;

/// What the server does wrong.
#[derive(Clone, Copy, PartialEq)]
enum Fault {
    None,
    /// Leaves out ten messages inside a GOP.
    Gap,
    /// Jumps from the middle of a GOP to the next keyframe.
    Skip,
    /// Flips a bit.
    Flip,
    /// Closes after a second.
    Close,
    /// Answers 404.
    NotFound,
}

/// Serves a generated stream by HTTP-FLV to everybody, each player from its start.
fn serve(fault: Fault) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let options = GenerateOptions { gop: 0.5, kbps: 500.0, ..GenerateOptions::default() };
    let source = Source::Generated(Arc::new(Generated::new(options)));
    thread::spawn(move || {
        for socket in listener.incoming() {
            let (socket, source) = (socket.unwrap(), source.clone());
            thread::spawn(move || play(socket, &source, fault));
        }
    });
    address
}

/// Ends when the player is gone.
fn play(mut socket: TcpStream, source: &Source, fault: Fault) -> std::io::Result<()> {
    let mut request = [0; 2048];
    let _ = socket.read(&mut request)?;
    if fault == Fault::NotFound {
        return socket.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
    }
    let mut out = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n".to_vec();
    out.extend_from_slice(&flv::file_header(true, true));
    for (kind, payload) in source.headers() {
        flv::write_tag(&mut out, *kind, 0, payload);
    }
    socket.write_all(&out)?;
    let mut script = Script::new(source, 0, 1, 0);
    let start = Instant::now();
    let mut payload = Vec::new();
    for n in 0u64.. {
        let item = script.next_item();
        let due = Duration::from_nanos(item.due);
        thread::sleep(due.saturating_sub(start.elapsed()));
        if fault == Fault::Close && due > Duration::from_secs(1) {
            break;
        }
        script.payload(&item, loadtest::clock::now(), &mut payload);
        let dropped = match fault {
            Fault::Gap => (50..60).contains(&n),
            // From frame 20 to the keyframe that is frame 30.
            Fault::Skip => (20_000..30_000).contains(&(item.due * 30 / 1_000_000)),
            _ => false,
        };
        if dropped {
            continue;
        }
        if fault == Fault::Flip && n == 70 {
            payload[100] ^= 4;
        }
        out.clear();
        flv::write_tag(&mut out, item.kind, item.timestamp, &payload);
        socket.write_all(&out)?;
    }
    Ok(())
}

fn group(address: SocketAddr, clients: u32, verify: f64) -> PlayGroup {
    PlayGroup {
        url: format!("http://{address}/live/s.flv"),
        clients,
        ramp: 200.0,
        verify,
        generated: true,
        ..PlayGroup::default()
    }
}

fn play_for(seconds: f64, group: PlayGroup) -> Report {
    run(Plan { seconds, play: vec![group], quiet: true, threads: 2, ..Plan::default() }).unwrap()
}

#[test]
fn a_faultless_stream_has_no_findings() {
    let mut group = group(serve(Fault::None), 20, 0.5);
    group.expect = Expect {
        max_disconnects: Some(0),
        max_errors: Some(0),
        max_skips: Some(0),
        max_stalls: Some(0),
        min_playing: Some(20),
        p99_ms: Some(2000.0),
        ..Expect::default()
    };
    let report = play_for(4.0, group);
    assert_eq!(report.violations, Vec::<String>::new());
    let g = &report.groups[0];
    assert_eq!((g.connects, g.starts, g.with_media, g.verified, g.left), (20, 20, 20, 10, 20));
    // 73 messages a second, ten players for nearly four seconds.
    assert!((2000..3000).contains(&g.checked.checked), "{:?}", g.checked);
    // What was sent before the player knew that it plays is backlog, not latency.
    let measured = g.latency_ms.n;
    assert!((g.checked.checked - 40..=g.checked.checked).contains(&measured), "{measured}");
    // 480 kbit/s video and about 100 audio, for draining and parsing players alike.
    assert_eq!(g.bitrate_kbps.n, 20);
    let (least, most) = (g.bitrate_kbps.min, g.bitrate_kbps.max);
    assert!(least > 400.0 && most < 900.0, "{least} {most}");
    assert_eq!(report.series.len(), 4);
    assert_eq!(report.series[3].playing, 20);
    assert!(table::render(&report).contains("play-1"));
    assert!(html::render(&report).contains("play-1"));
}

#[test]
fn each_fault_is_named() {
    let faults = [Fault::Gap, Fault::Skip, Fault::Flip, Fault::Close, Fault::NotFound];
    let runs = faults.map(|fault| {
        thread::spawn(move || play_for(3.0, group(serve(fault), 3, 1.0)).groups.remove(0))
    });
    let [gap, skip, flip, close, refused] = runs.map(|run| run.join().unwrap());
    assert_eq!((gap.checked.gaps, gap.errors, gap.checked.skips), (3, 3, 0));
    assert_eq!((skip.checked.skips, skip.errors), (3, 0));
    // An altered message also is one that is missing.
    assert_eq!((flip.checked.altered, flip.checked.gaps, flip.errors), (3, 3, 6));
    assert_eq!((close.disconnects, close.with_media), (3, 3));
    assert!(close.disconnect_reasons.keys().any(|k| k == "closed by the server"));
    assert_eq!((refused.disconnects, refused.with_media), (3, 0));
    let reasons = format!("{:?}", refused.disconnect_reasons);
    assert!(reasons.contains("HTTP status 404"), "{reasons}");
}

#[test]
fn players_come_and_go_and_stop_reading() {
    let address = serve(Fault::None);
    let mut churn = group(address, 10, 0.3);
    churn.churn = Some(loadtest::plan::Churn { lifetime: 0.3, pause: 0.05, cycles: 60 });
    let mut stalled = group(address, 4, 0.5);
    stalled.stall = Some(Stall { from: 1.0, to: Some(2.0) });
    let plan = Plan { seconds: 6.0, play: vec![churn, stalled], quiet: true, ..Plan::default() };
    let report = run(plan).unwrap();
    let [churn, stalled] = &report.groups[..] else { panic!() };
    assert_eq!((churn.connects, churn.left, churn.disconnects), (60, 60, 0));
    assert_eq!((churn.errors, churn.checked.skips), (0, 0));
    assert_eq!((stalled.connects, stalled.disconnects, stalled.errors), (4, 0, 0));
    let pause = stalled.silence_ms.p50;
    assert!((0.0..900.0).contains(&pause), "not reading is not the server's silence: {pause}");
    let quiet = stalled.series[1].mbps;
    assert!(quiet < stalled.series[3].mbps / 3.0, "{:?}", stalled.series);
}

#[test]
fn nobody_there_is_reported_as_such() {
    let unused = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut group = group(unused, 5, 0.0);
    group.expect.max_disconnects = Some(0);
    let report = play_for(1.0, group);
    assert_eq!(report.groups[0].disconnects, 5);
    assert_eq!(report.violations.len(), 1, "{:?}", report.violations);
}
