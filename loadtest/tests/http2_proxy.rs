//! HTTP/2 for Low-Latency HLS, with nginx in front as `conf/nginx-http2.conf` sets it up: what
//! waits at the server is answered in time, and two requests wait on one connection.

mod common;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use common::http;
use common::process::Process;
use common::server::Server;
use loadtest::plan::PublishGroup;
use loadtest::{Plan, run};
use ringcast::proto::hls::check::{Checker, Playlist};

const STREAM: &str = "live/two";
const LONG: Duration = Duration::from_secs(20);

/// nginx, and where it has HTTP/2.
struct Proxy {
    _process: Process,
    addr: SocketAddr,
    folder: PathBuf,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

impl Proxy {
    /// The committed configuration, with other addresses and files. `None` where there is no nginx.
    fn start(server: &Server) -> Option<Proxy> {
        let nginx = Path::new("/usr/sbin/nginx");
        if !nginx.exists() {
            assert!(std::env::var_os("RINGCAST_CI").is_none(), "CI has nginx");
            eprintln!("nothing was tested: nginx is not installed");
            return None;
        }
        let addr = SocketAddr::new(server.http_addr().ip(), 18443);
        let name = format!("{}-http2", std::process::id());
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::create_dir_all(&folder).expect("a folder");
        let file = |name: &str| folder.join(name).display().to_string();
        let mut command = Command::new("openssl");
        command.args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]);
        command.args(["-subj", "/CN=two", "-keyout", &file("key.pem"), "-out", &file("cert.pem")]);
        let made = Process::start("openssl", &mut command).finish(LONG);
        made.expect_success("openssl makes a certificate");
        let conf = concat!(env!("CARGO_MANIFEST_DIR"), "/../conf/nginx-http2.conf");
        let mut text = std::fs::read_to_string(conf).expect("the configuration");
        for (from, to) in [
            ("127.0.0.1:8080", server.http_addr().to_string()),
            ("listen 443 ", format!("listen {addr} ")),
            ("/etc/ringcast/cert.pem", file("cert.pem")),
            ("/etc/ringcast/key.pem", file("key.pem")),
            // A few connections are enough, and need no limit raised.
            ("worker_rlimit_nofile 65536;", String::new()),
            ("worker_connections 32768;", "worker_connections 256;".to_owned()),
        ] {
            assert_eq!(text.matches(from).count(), 1, "{from} in {conf}");
            text = text.replace(from, &to);
        }
        std::fs::write(folder.join("nginx.conf"), text).expect("a configuration");
        let own = format!("daemon off; pid {}; error_log stderr warn;", file("pid"));
        let mut command = Command::new(nginx);
        command.args(["-c", &file("nginx.conf"), "-g", &own]);
        let mut process = Process::start("nginx", &mut command);
        let began = Instant::now();
        while std::net::TcpStream::connect(addr).is_err() {
            let lines = process.lines();
            assert!(process.is_running() && began.elapsed() < LONG, "{lines:#?}");
            thread::sleep(Duration::from_millis(50));
        }
        Some(Proxy { _process: process, addr, folder })
    }

    /// Asks for these at once over one HTTP/2 connection: status, seconds and body of each.
    fn get(&self, paths: &[&str]) -> Vec<(u16, f64, Vec<u8>)> {
        let mut command = Command::new("curl");
        command.args(["-sS", "--http2", "--insecure", "--max-time", "15"]);
        // A second stream waits for the connection that the first one makes.
        command.args(["--parallel", "--parallel-max", "8"]);
        let said = "%{filename_effective} %{http_version} %{http_code} %{time_total}\\n";
        command.args(["-w", said]);
        let outputs: Vec<PathBuf> =
            (0..paths.len()).map(|n| self.folder.join(format!("body-{n}"))).collect();
        for (path, output) in paths.iter().zip(&outputs) {
            command.arg("-o").arg(output).arg(format!("https://{}{path}", self.addr));
        }
        let finished = Process::start("curl", &mut command).finish(LONG).expect_success("curl");
        let answer = |output: &PathBuf| {
            let name = output.display().to_string();
            let mut lines = finished.stdout.iter().map(|line| line.split(' '));
            let words = lines.find(|words| words.clone().next() == Some(&name));
            let words: Vec<&str> = words.expect("a line for each answer").collect();
            assert_eq!(words[1], "2", "HTTP/2: {words:?}");
            let body = std::fs::read(output).unwrap_or_default();
            (words[2].parse().expect("a status"), words[3].parse().expect("a time"), body)
        };
        outputs.iter().map(answer).collect()
    }

    fn text(&self, path: &str) -> (u16, f64, String) {
        let (status, seconds, body) = self.get(&[path]).remove(0);
        (status, seconds, String::from_utf8(body).expect("text"))
    }
}

#[test]
fn held_playlists_and_hinted_parts_over_http2() {
    let server = Server::start(&[
        "shards=2",
        "vhost.hls.enabled=true",
        "vhost.hls.hls_fragment=1",
        "vhost.hls.hls_window=12",
        "vhost.hls.hls_use_fmp4=true",
        "vhost.hls.hls_part=0.2",
    ]);
    let Some(proxy) = Proxy::start(&server) else { return };
    let publish = PublishGroup { url: server.rtmp(STREAM), gop: 1.0, ..PublishGroup::default() };
    let plan = Plan { seconds: 12.0, publish: vec![publish], quiet: true, ..Plan::default() };
    let publishing = thread::spawn(move || run(plan).expect("a publisher"));
    server.wait_for_stream(STREAM);
    // The master playlist waits for the first segment, then names the viewer's own.
    let (status, _, master) = proxy.text(&format!("/{STREAM}.m3u8"));
    assert_eq!(status, 200, "{master}");
    let path = master.lines().last().expect("an address").to_owned();
    assert!(path.contains("hls_ctx="), "{master}");
    thread::sleep(Duration::from_secs(2));
    let (mut checker, start) = (Checker::default(), Instant::now());
    let mut load = |text: &str| {
        let list = checker.load(start.elapsed().as_secs_f64(), true, text);
        list.unwrap_or_else(|why| panic!("{why} in\n{text}"))
    };
    let mut list: Playlist = load(&proxy.text(&path).2);
    let mut held = Vec::new();
    for _ in 0..12 {
        let (number, part) = (list.open.number, list.open.parts.len());
        let hint = format!("/live/{}", list.hint.as_deref().expect("a hint"));
        let reload = format!("{path}&_HLS_msn={number}&_HLS_part={part}");
        let answers = proxy.get(&[&reload, &hint]);
        let (status, seconds, text) = &answers[0];
        assert_eq!(*status, 200, "{reload}");
        held.push(*seconds);
        list = load(std::str::from_utf8(text).expect("text"));
        let came = (list.open.number, list.open.parts.len()) > (number, part);
        assert!(came, "{number}.{part} was asked for: {:?}", list.open);
        // The part is the very bytes that the server itself gives.
        let (status, seconds, body) = &answers[1];
        assert_eq!((*status, &body[4..8] == b"moof" || &body[4..8] == b"prft"), (200, true));
        assert!(*seconds < 1.0, "{hint} took {seconds} s");
        assert!(*body == http::request(server.http_addr(), "GET", &hint, &[]).body, "{hint}");
    }
    // A part is 0.2 s; each round takes that, less what was gone of it, and not a time of nginx's.
    assert!(held.iter().all(|seconds| *seconds < 0.8), "{held:?}");
    assert!(held.iter().filter(|seconds| **seconds > 0.03).count() >= 6, "not held: {held:?}");
    let (number, span) = (list.segments.last().expect("a segment").number, start.elapsed());
    assert!(span < Duration::from_secs(8), "{span:?} for twelve parts, at segment {number}");
    // Another viewer, over the proxy's kept connections.
    assert_eq!(proxy.get(&[&path, &format!("/{STREAM}.m3u8")])[1].0, 200);
    publishing.join().expect("the publisher");
    server.stop();
}
