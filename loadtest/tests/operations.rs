//! What an operator does to a running server: new configurations, SRS's own files, a service
//! manager that starts it, listens for it and watches it, root that is given up, logs that are
//! rotated, an end that waits for players.

mod common;

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::{FdFlags, fcntl_setfd};
use rustix::process::Signal;

use common::media::{self, Media};
use common::packets;
use common::process::Process;
use common::server::{self, Server};
use loadtest::plan::{Expect, PlayGroup, PublishGroup};
use loadtest::{Plan, run, table};

/// Players leave when nothing arrives for this long (microseconds).
const READ_TIMEOUT: [&str; 2] = ["-rw_timeout", "4000000"];
const SOON: Duration = Duration::from_secs(20);

/// A path for a file of this test program.
fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{}-{name}", std::process::id()))
}

fn write(name: &str, text: &str) -> PathBuf {
    let path = path(name);
    fs::write(&path, text).expect("a file in the folder for test files");
    path
}

fn has_cors(server: &Server) -> bool {
    let host = server.http_addr();
    let ask = format!("GET /x HTTP/1.0\r\nHost: {host}\r\nOrigin: http://a.test\r\n\r\n");
    server.request(&ask).0.to_ascii_lowercase().contains("access-control-allow-origin")
}

fn reload(server: &mut Server, expected: &str) {
    server.process_mut().signal(Signal::HUP);
    server.process_mut().wait_for_line(expected, SOON).unwrap_or_else(|why| panic!("{why}"));
}

/// What ffprobe gets of a vhost: nothing when it is refused.
fn plays(server: &Server, vhost: &str) -> bool {
    let url = format!("{}?vhost={vhost}", server.rtmp("live/e2e"));
    let mut args = READ_TIMEOUT.to_vec();
    args.extend(["-read_intervals", "%+#5"]);
    !packets::finish(packets::list(&args, &url), Duration::from_secs(30)).is_empty()
}

#[test]
fn a_reload_reaches_what_runs_and_ends_nobody() {
    let file = write("reload.toml", "[vhost.\"a.test\"]\nchunk_size = 4096\n");
    let mut server = Server::start_with_file(&file, &["shards=2", "vhost.publish.hold=0"]);
    let medium = Media::AvcAac.file();
    let published = packets::of_file(&media::as_published(&medium));
    let publisher = media::publish(&medium, &server.rtmp("live/e2e"));
    server.wait_for_stream("live/e2e");
    let players: Vec<_> = [server.rtmp("live/e2e"), server.flv("live/e2e")]
        .iter()
        .map(|url| packets::list(&READ_TIMEOUT, url))
        .collect();
    thread::sleep(Duration::from_millis(700));
    assert!(has_cors(&server));

    let new = "listen = 1\n[http_server]\ncrossdomain = false\n[vhost]\nchunk_size = 300\n\
        [vhost.play]\ngop_cache = false\n[vhost.\"a.test\"]\nenabled = false\n";
    fs::write(&file, new).expect("written");
    reload(&mut server, "configuration reloaded");
    assert!(!has_cors(&server), "the new setting is not in force");
    let log = server.process_mut().lines().join("\n");
    for line in [
        "http_server.crossdomain = false (was true)",
        "vhost.chunk_size = 300 (was 60000)",
        "vhost.play.gop_cache = false (was true)",
        "vhost.\"a.test\".enabled = false (was true)",
    ] {
        assert!(log.contains(line), "{line:?} is not in the log:\n{log}");
    }
    assert!(!plays(&server, "a.test"), "a vhost that is switched off is served");

    fs::write(&file, "[http_server]\ncrossdomain = true\n[vhost.play]\ngop_cach = 1\n").expect("");
    reload(&mut server, "not reloaded");
    let log = server.process_mut().lines().join("\n");
    assert!(log.contains("reload.toml:4: unknown setting vhost.play.gop_cach"), "{log}");
    assert!(!has_cors(&server), "half of a wrong configuration is in force");

    publisher.finish(Duration::from_secs(30)).expect_success("the publisher");
    for (index, player) in players.into_iter().enumerate() {
        let got = packets::finish(player, Duration::from_secs(30));
        packets::assert_is_tail(&format!("player {index}"), &got, &published);
    }
    server.stop();
}

/// How many lines of the server's log so far hold this.
fn said(server: &mut Server, text: &str) -> usize {
    server.process_mut().lines().iter().filter(|line| line.contains(text)).count()
}

fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + SOON;
    while !is_so() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn five_hundred_players_feel_no_reload() {
    const STREAM: &str = "live/many";
    let file = write("many.toml", "");
    let mut server = Server::start_with_file(&file, &["shards=2"]);
    let flv = server.flv(STREAM);
    let urls = [server.rtmp(STREAM), flv.clone(), flv.replacen("http://", "ws://", 1)];
    let play = urls.into_iter().zip([200, 150, 150]).map(|(url, clients)| PlayGroup {
        url,
        clients,
        start: 1.0,
        ramp: 250.0,
        verify: 1.0,
        generated: true,
        expect: Expect { min_playing: Some(clients.into()), ..Expect::default() },
        ..PlayGroup::default()
    });
    let plan = Plan {
        seconds: 14.0,
        server_pids: vec![server.process_mut().id()],
        publish: vec![PublishGroup { url: server.rtmp(STREAM), ..PublishGroup::default() }],
        play: play.collect(),
        // 500 players, 73 messages a second, ten seconds at the least.
        expect: Expect { min_checked: Some(500 * 73 * 10), ..Expect::all_well() },
        quiet: true,
        ..Plan::default()
    };
    let run = thread::spawn(move || run(plan).expect("a run"));
    thread::sleep(Duration::from_secs(5));
    let good = [
        "[vhost]\nchunk_size = 4096\n[vhost.play]\nqueue_length = 20\n",
        "max_connections = 1000\n[vhost.\"a.test\"]\nenabled = false\n",
        "media_memory = \"64MiB\"\n[vhost.play]\nmw_latency = 20\ntime_jitter = \"full\"\n",
        "[log]\nlevel = \"debug\"\n[vhost.http_remux]\nmount = \"/x/[app]/[stream].flv\"\n",
    ];
    for (round, text) in good.iter().enumerate() {
        fs::write(&file, text).expect("written");
        server.process_mut().signal(Signal::HUP);
        wait_until("a reload", || said(&mut server, "configuration reloaded") > round);
        // In between comes one that is wrong.
        fs::write(&file, "[vhost.play]\nqueue_length = \"long\"\n").expect("written");
        server.process_mut().signal(Signal::HUP);
        wait_until("a refusal", || said(&mut server, "configuration not reloaded") > round);
    }
    let restart = "[config_needs_restart] configuration: media_memory differs from the file";
    assert_eq!(said(&mut server, restart), 1);
    let refused = "[config_invalid] configuration not reloaded";
    assert_eq!(said(&mut server, refused), good.len());
    let report = run.join().expect("the players' thread");
    assert!(report.violations.is_empty(), "{}", table::render(&report));
    server.stop();
}

#[test]
fn a_graceful_end_waits_for_players() {
    for (signal, settings) in [(Signal::QUIT, &[][..]), (Signal::TERM, &["force_grace_quit=true"])]
    {
        let waits = ["grace_start_wait=200", "grace_final_wait=200", "vhost.publish.hold=0"];
        let settings: Vec<&str> = waits.iter().chain(settings).copied().collect();
        let mut server = Server::start(&settings);
        let medium = Media::AvcAac.file();
        let published = packets::of_file(&media::as_published(&medium));
        let publisher = media::publish(&medium, &server.rtmp("live/e2e"));
        server.wait_for_stream("live/e2e");
        let players: Vec<_> = [server.rtmp("live/e2e"), server.flv("live/e2e")]
            .iter()
            .map(|url| packets::list(&READ_TIMEOUT, url))
            .collect();
        thread::sleep(Duration::from_millis(1000));
        server.process_mut().signal(signal);
        let closed = server.process_mut().wait_for_line("listeners closed", SOON);
        closed.unwrap_or_else(|why| panic!("{why}"));
        wait_until("listeners are closed", || TcpStream::connect(server.rtmp_addr()).is_err());
        publisher.finish(Duration::from_secs(30)).expect_success("the publisher");
        for (index, player) in players.into_iter().enumerate() {
            let got = packets::finish(player, Duration::from_secs(30));
            packets::assert_is_tail(&format!("player {index}"), &got, &published);
        }
        // Nobody is left, so it ends by itself.
        server.ended(SOON).expect_success("ringcast");
    }
}

/// A server with its log in a file, and where it serves RTMP.
fn with_log_file(log: &Path, json: bool) -> (Process, SocketAddr) {
    let free = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("its address");
    let mut command = Command::new(server::binary());
    for set in [
        format!("listen={free}"),
        format!("log.file={}", log.display()),
        format!("log.json={json}"),
        "log.tank=file".into(),
        "http_server.enabled=false".into(),
        "http_api.enabled=false".into(),
        "shards=1".into(),
    ] {
        command.args(["--set", &set]);
    }
    let process = Process::start("ringcast", &mut command);
    wait_until("the log says that it serves", || {
        fs::read_to_string(log).is_ok_and(|text| text.contains("serving"))
    });
    (process, free)
}

/// Connects and leaves, and waits for the line about it.
fn visit(addr: SocketAddr, log: &Path, lines: usize) {
    drop(TcpStream::connect(addr).expect("connect"));
    wait_until("a line about a visit", || {
        let text = fs::read_to_string(log).unwrap_or_default();
        text.lines().filter(|line| line.contains("connection stopped")).count() == lines
    });
}

/// The session that a line is about; fails unless the line has SRS's form.
fn session_of(line: &str, pid: u32) -> String {
    let parts: Vec<&str> = line.splitn(5, ['[', ']']).collect();
    let time = parts[1];
    let digits = time.chars().map(|c| if c.is_ascii_digit() { '0' } else { c });
    assert_eq!(digits.collect::<String>(), "0000-00-00 00:00:00.000", "{line}");
    let rest: Vec<&str> = line.split("][").collect();
    assert!(["INFO", "WARN", "ERROR"].contains(&rest[1]), "{line}");
    assert_eq!(rest[2], pid.to_string(), "{line}");
    rest[3].split(']').next().expect("an id").into()
}

#[test]
fn logs_are_rotated_and_lines_have_the_id_of_their_session() {
    let (log, old) = (path("rotated.log"), path("rotated.log.1"));
    let (process, addr) = with_log_file(&log, false);
    visit(addr, &log, 1);
    visit(addr, &log, 2);
    fs::rename(&log, &old).expect("renamed");
    visit(addr, &old, 3);
    process.signal(Signal::USR1);
    wait_until("a new file", || log.exists());
    visit(addr, &log, 1);
    let pid = process.id();
    process.signal(Signal::TERM);
    process.finish(SOON).expect_success("ringcast");
    let text = |path: &Path| fs::read_to_string(path).expect("a log");
    let (first, second) = (text(&old), text(&log));
    assert!(first.contains("serving") && second.contains("stopped\n"), "{first}\n{second}");
    let mut sessions = Vec::new();
    for line in first.lines().chain(second.lines()) {
        let id = session_of(line, pid);
        if line.contains("connection stopped") {
            assert!(id.len() == 8 && line.contains(" reason=peer_closed"), "{line}");
            sessions.push(id);
        }
    }
    sessions.sort();
    sessions.dedup();
    assert_eq!(sessions.len(), 4, "{first}\n{second}");
}

#[test]
fn logs_can_be_json() {
    let log = path("json.log");
    let (process, addr) = with_log_file(&log, true);
    visit(addr, &log, 1);
    process.signal(Signal::TERM);
    process.finish(SOON).expect_success("ringcast");
    let text = fs::read_to_string(&log).expect("a log");
    let lines: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let visit = lines.iter().find(|line| line["message"] == "connection stopped").expect("it");
    assert_eq!(visit["reason"], "peer_closed");
    assert!(visit["id"].as_str().is_some_and(|id| id.len() == 8), "{visit}");
    assert!(lines.iter().all(|line| line["level"].is_string() && line["time"].is_string()));
}

#[test]
fn failures_have_the_exit_status_of_srs_and_a_name_to_look_up() {
    let pid_file = path("held.pid");
    let pid = format!("pid={}", pid_file.display());
    let mut server = Server::start(&[&pid]);
    assert_eq!(
        fs::read_to_string(&pid_file).expect("").trim(),
        server.process_mut().id().to_string()
    );
    let listen = format!("listen={}", server.rtmp_addr());
    let off = ["http_server.enabled=false", "http_api.enabled=false", "listen=127.0.0.1:0"];
    let start = |settings: &[&str]| {
        let mut command = Command::new(server::binary());
        for set in off.iter().chain(settings) {
            command.args(["--set", set]);
        }
        command.output().expect("it runs")
    };
    for (settings, status, name) in [
        (&[pid.as_str()][..], 11, "pid_held"),
        (&[listen.as_str()][..], 234, "listen_failed"),
        (&["shards=many"][..], 255, "config_invalid"),
        (&["work_dir=/nonexistent"][..], 1, "work_dir_unusable"),
    ] {
        let output = start(settings);
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(status), "{settings:?}: {text}");
        assert!(text.contains(&format!("ringcast explain {name}")), "{settings:?}: {text}");
        let explained = Command::new(server::binary()).args(["explain", name]).output().expect("");
        assert!(explained.status.success() && explained.stdout.starts_with(name.as_bytes()));
    }
    let (head, body) = server.get("/errors/");
    assert!(head.starts_with("HTTP/1.1 200") && head.contains("text/html"), "{head}");
    assert!(String::from_utf8_lossy(&body).contains("<dt id=\"stream_busy\">"));
    server.stop();
    assert!(!pid_file.exists());
}

#[test]
fn a_changed_file_is_read_by_itself() {
    let file = write("watch.toml", "config_watch = true\n");
    let mut server = Server::start_with_file(&file, &["shards=1"]);
    thread::sleep(Duration::from_millis(1500));
    fs::write(&file, "config_watch = true\n[http_server]\ncrossdomain = false\n").expect("");
    let process = server.process_mut();
    process.wait_for_line("crossdomain = false", SOON).unwrap_or_else(|why| panic!("{why}"));
    assert!(!has_cors(&server));
    server.stop();
}

#[test]
fn an_srs_configuration_with_vhosts_serves_each_as_it_says() {
    let included = write("vhost.conf", "play { gop_cache on; queue_length 10; }\n");
    let text = format!(
        "listen 1935;\nmax_connections 100;\ndaemon off;\nsrs_log_tank console;\npid '{}';\n\
         http_server {{ enabled on; listen 8080; }}\nhttp_api {{ enabled off; }}\n\
         vhost a.test {{\n include {};\n http_remux {{ enabled on; }}\n chunk_size 2000;\n \
         hls {{ enabled off; }}\n}}\n\
         vhost b.test {{ enabled off; }}\n",
        path("srs.pid").display(),
        included.display()
    );
    let file = write("two.conf", &text);
    let server = Server::start_with_file(&file, &["shards=1"]);
    let medium = Media::AvcAac.file();
    let url = format!("{}?vhost=a.test", server.rtmp("live/e2e"));
    let publisher = media::publish(&medium, &url);
    server.wait_for_stream("live/e2e");
    assert!(plays(&server, "a.test"));
    assert!(!plays(&server, "b.test") && !plays(&server, "unlisted.test"));
    let flv = format!("{}?vhost=a.test", server.flv("live/e2e"));
    let mut args = READ_TIMEOUT.to_vec();
    args.extend(["-read_intervals", "%+#5"]);
    assert!(!packets::finish(packets::list(&args, &flv), SOON).is_empty());
    let (head, _) = server.get("/live/e2e.flv?vhost=unlisted.test");
    assert!(head.starts_with("HTTP/1.1 404"), "{head}");
    drop(publisher);
    server.stop();
    assert!(!path("srs.pid").exists());
}

#[test]
fn mistakes_have_a_line_and_srs_exit_status() {
    let file = write("wrong.conf", "listen 1935;\nvhost a.test {\n hds { enabled on; }\n}\n");
    let run = |args: &[&str]| Command::new(server::binary()).args(args).output().expect("it runs");
    let name = file.to_str().expect("a path of text");
    let output = run(&["-t", "-c", name]);
    assert_eq!(output.status.code(), Some(255));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("wrong.conf:3: vhost.hds is a feature of SRS"), "{text}");
    fs::write(&file, "listen 1935;\nvhost a.test { gop_cache off; }\n").expect("written");
    let output = run(&["import", name]);
    assert!(output.status.success());
    let toml = String::from_utf8(output.stdout).expect("text");
    assert!(toml.contains("[vhost.\"a.test\".play]\ngop_cache = false\n"), "{toml}");
    let import = write("import.toml", &toml);
    assert!(run(&["-t", "-c", import.to_str().expect("text")]).status.success());
}

#[test]
fn a_service_manager_is_told_what_happens() {
    let socket = path("notify");
    let _ = fs::remove_file(&socket);
    let manager = UnixDatagram::bind(&socket).expect("a socket");
    manager.set_read_timeout(Some(SOON)).expect("a time-out");
    let heard = || {
        let mut buffer = [0; 256];
        let length = manager.recv(&mut buffer).expect("a message in time");
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    };
    let mut command = Command::new(server::binary());
    command.env("NOTIFY_SOCKET", &socket).env("WATCHDOG_USEC", "2000000");
    let mut server = Server::run(command, &["shards=2"]);
    assert_eq!(heard(), "READY=1");
    assert_eq!(heard(), "WATCHDOG=1");
    assert_eq!(heard(), "WATCHDOG=1");
    server.process_mut().signal(Signal::HUP);
    let mut rest = std::iter::repeat_with(heard).filter(|text| text != "WATCHDOG=1");
    assert!(rest.next().is_some_and(|text| text.starts_with("RELOADING=1\nMONOTONIC_USEC=")));
    assert_eq!(rest.next().as_deref(), Some("READY=1"));
    server.process_mut().signal(Signal::TERM);
    assert_eq!(rest.next().as_deref(), Some("STOPPING=1"));
    server.stop();
}

#[test]
fn a_socket_that_is_handed_over_is_served() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = listener.local_addr().expect("its address");
    fcntl_setfd(&listener, FdFlags::empty()).expect("inherited");
    let number = listener.as_raw_fd();
    let mut command = Command::new("bash");
    let script = format!(
        "exec 3<&{number}; export LISTEN_PID=$$ LISTEN_FDS=1; exec {} --set listen={addr} \
         --set http_server.enabled=false --set http_api.enabled=false --set shards=2",
        server::binary().display()
    );
    let mut process = Process::start("ringcast", command.args(["-c", &script]));
    process.wait_for_line("serving", SOON).unwrap_or_else(|why| panic!("{why}"));
    let medium = Media::AvcAac.file();
    let url = format!("rtmp://{addr}/live/e2e");
    let publisher = media::publish(&medium, &url);
    let got = packets::finish(packets::list(&READ_TIMEOUT, &url), Duration::from_secs(40));
    assert!(got.len() > 50, "{} packets through an inherited socket", got.len());
    publisher.finish(SOON).expect_success("the publisher");
    process.signal(Signal::TERM);
    process.finish(SOON).expect_success("ringcast");
}

#[test]
fn root_is_given_up_by_every_thread() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let mut server = Server::start(&["shards=2", "user=nobody"]);
    let id = server.process_mut().id();
    let mut threads = 0;
    for task in fs::read_dir(format!("/proc/{id}/task")).expect("its threads") {
        let status = fs::read_to_string(task.expect("a thread").path().join("status")).expect("");
        let line = |name: &str| status.lines().find(|line| line.starts_with(name)).expect("a line");
        let ids: Vec<_> = line("Uid:").split_whitespace().skip(1).collect();
        assert!(ids.iter().all(|id| *id == "65534"), "{status}");
        assert_eq!(line("CapEff:").split_whitespace().nth(1), Some("0000000000000000"));
        threads += 1;
    }
    assert!(threads >= 4, "{threads} threads");
    let (head, _) = server.get("/streams.json");
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    server.stop();
}
