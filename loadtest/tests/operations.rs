//! What an operator does to a running server: new configurations, SRS's own files, a service
//! manager that starts it, listens for it and watches it, root that is given up.

mod common;

use std::fs;
use std::net::TcpListener;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::Duration;

use rustix::io::{FdFlags, fcntl_setfd};
use rustix::process::Signal;

use common::media::{self, Media};
use common::packets;
use common::process::Process;
use common::server::{self, Server};

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
