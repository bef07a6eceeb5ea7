//! Row 38 of what attackers try, the part of it that is the API's: questions, kicks and reloads at
//! once, a thousand a second, with bodies nobody asked for. Nothing hangs and nothing stays.

mod common;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use common::http;
use common::server::Server;
use loadtest::client::{RtmpPlayer, RtmpPublisher};

/// admin, pass
const RIGHT: &str = "Authorization: Basic YWRtaW46cGFzcw==";
const ASKERS: usize = 4;
/// Between two requests of one asker.
const STEP: Duration = Duration::from_millis(4);
const STORM: Duration = Duration::from_secs(5);

/// What the askers saw.
#[derive(Debug, Default)]
struct Seen {
    answers: AtomicUsize,
    kicks: AtomicUsize,
    reloads: AtomicUsize,
    /// No answer at all, or one that stands for a fault of the server.
    bad: AtomicUsize,
}

/// One request of the storm.
fn ask(api: SocketAddr, round: usize, seen: &Seen) {
    let ask = |method: &str, path: &str| {
        let answer = http::request(api, method, path, &[RIGHT]);
        seen.answers.fetch_add(1, Relaxed);
        if answer.status >= 500 && answer.status != 503 {
            seen.bad.fetch_add(1, Relaxed);
        }
        answer
    };
    match round % 8 {
        0 => {
            let list = ask("GET", "/api/v1/clients/?count=20");
            let Some(clients) = list.json()["clients"].as_array().cloned() else { return };
            for client in clients {
                let id = client["id"].as_str().expect("an id").to_owned();
                ask("DELETE", &format!("/api/v1/clients/{id}"));
                seen.kicks.fetch_add(1, Relaxed);
            }
        }
        1 => _ = ask("DELETE", "/api/v1/clients/nobody00"),
        2 if round % 32 == 2 => {
            ask("GET", "/api/v1/raw?rpc=reload");
            seen.reloads.fetch_add(1, Relaxed);
        }
        3 => _ = ask("GET", "/api/v1/raw?rpc=reload-fetch"),
        4 => _ = ask("GET", "/api/v1/vhosts/"),
        5 => _ = ask("GET", "/api/v1/summaries"),
        _ => _ = ask("GET", "/api/v1/streams/"),
    }
}

/// Publishers and players that come again whenever they are sent away.
fn come_and_go(url: &str, stop: &AtomicBool) {
    while !stop.load(Relaxed) {
        let publisher = RtmpPublisher::connect(url);
        let player = RtmpPlayer::connect(url);
        thread::sleep(Duration::from_millis(30));
        drop((publisher, player));
    }
}

fn storm(server: &Server, file: &Path, seen: &Seen) {
    let api = server.api_addr();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for n in 0..4 {
            let url = server.rtmp(&format!("live/storm{n}"));
            let stop = &stop;
            scope.spawn(move || come_and_go(&url, stop));
        }
        let askers: Vec<_> = (0..ASKERS)
            .map(|asker| {
                scope.spawn(move || {
                    let began = Instant::now();
                    let mut round = asker;
                    while began.elapsed() < STORM {
                        // As editors do it, so that no half of a file is ever read.
                        if asker == 0 && round % 16 == 0 {
                            write(file, round);
                        }
                        let next = Instant::now() + STEP;
                        ask(api, round, seen);
                        round += 1;
                        thread::sleep(next.saturating_duration_since(Instant::now()));
                    }
                })
            })
            .collect();
        askers.into_iter().for_each(|asker| asker.join().expect("an asker"));
        stop.store(true, Relaxed);
    });
}

fn write(file: &Path, round: usize) {
    let text = format!(
        "[http_api.auth]\nenabled = true\nusername = \"admin\"\npassword = \"pass\"\n\
         [http_api.raw_api]\nenabled = true\nallow_reload = true\n\
         [vhost.limits]\nplayers = {}\n",
        1_000 + round % 7
    );
    let new = file.with_extension("new");
    std::fs::write(&new, text).expect("write");
    std::fs::rename(&new, file).expect("rename");
}

/// Descriptors, and resident memory in MB.
fn held(pid: u32) -> (usize, f64) {
    let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("fds").count();
    let statm = std::fs::read_to_string(format!("/proc/{pid}/statm")).expect("statm");
    let pages: f64 = statm.split(' ').nth(1).and_then(|n| n.parse().ok()).expect("pages");
    (descriptors, pages * 4096.0 / 1e6)
}

#[test]
fn questions_kicks_and_reloads_at_once() {
    let file = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .join(format!("api-storm-{}.toml", std::process::id()));
    write(&file, 0);
    let mut server = Server::start_with_file(&file, &["shards=2", "vhost.publish.hold=0"]);
    let api = server.api_addr();
    let pid = server.process_mut().id();

    // Bodies that nobody asked for: refused by what they declare, or not looked at.
    let long = ["Content-Length: 10000000", RIGHT];
    assert_eq!(http::request(api, "POST", "/api/v1/raw?rpc=reload", &long).status, 413);
    let deep = "[".repeat(10_000);
    let request = format!(
        "POST /api/v1/clients/ HTTP/1.1\r\nHost: x\r\n{RIGHT}\r\nContent-Length: {}\r\n\r\n{deep}",
        deep.len()
    );
    let answer = http::parse(&http::raw(api, request.as_bytes()));
    assert!((400..500).contains(&answer.status), "{answer:?}");

    let seen = Seen::default();
    storm(&server, &file, &seen);
    thread::sleep(Duration::from_secs(1));
    let (descriptors, resident) = held(pid);
    storm(&server, &file, &seen);
    thread::sleep(Duration::from_secs(1));
    let (descriptors_after, resident_after) = held(pid);
    println!(
        "{seen:?}; descriptors {descriptors} -> {descriptors_after}, resident {resident:.1} -> \
         {resident_after:.1} MB"
    );
    assert_eq!(seen.bad.load(Relaxed), 0, "{seen:?}");
    assert!(seen.answers.load(Relaxed) > 2_000, "{seen:?}");
    assert!(seen.kicks.load(Relaxed) > 50 && seen.reloads.load(Relaxed) > 50, "{seen:?}");
    assert!(descriptors_after <= descriptors + 2, "{descriptors} -> {descriptors_after}");
    assert!(resident_after < resident + 8.0, "{resident:.1} MB -> {resident_after:.1} MB");
    assert_eq!(http::request(api, "GET", "/api/v1/versions", &[RIGHT]).json()["code"], 0);
    server.stop();
    let _ = std::fs::remove_file(file);
}
