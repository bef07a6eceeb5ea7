//! The real `ringcast` binary on a loopback address of its own.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use rustix::process::Signal;

use super::process::{Finished, Process};

/// RTMP port of every server; what differs is the address.
const RTMP_PORT: u16 = 19350;
/// HTTP port of every server.
const HTTP_PORT: u16 = 18080;
/// API port of every server.
const API_PORT: u16 = 11985;

/// A running server. Dropping it ends it, and prints the end of its log when the test fails.
pub struct Server {
    process: Option<Process>,
    ip: Ipv4Addr,
}

impl Server {
    /// `ringcast` with these settings, for example `shards=2`.
    pub fn start(settings: &[&str]) -> Server {
        Server::run(Command::new(binary()), settings)
    }

    /// The same with a configuration file, over which the addresses stand.
    pub fn start_with_file(file: &Path, settings: &[&str]) -> Server {
        let mut command = Command::new(binary());
        command.arg("-c").arg(file);
        Server::run(command, settings)
    }

    /// The same with a limit on open files.
    pub fn start_with_open_files(limit: u32, settings: &[&str]) -> Server {
        let mut command = Command::new("prlimit");
        command.arg(format!("--nofile={limit}:{limit}")).arg(binary());
        Server::run(command, settings)
    }

    /// `ringcast demo` with these settings.
    pub fn demo(settings: &[&str]) -> Server {
        let mut command = Command::new(binary());
        command.arg("demo");
        Server::run(command, settings)
    }

    /// A command that is `ringcast`, with these settings.
    pub fn run(mut command: Command, settings: &[&str]) -> Server {
        let ip = own_address();
        let own = [
            format!("listen={ip}:{RTMP_PORT}"),
            format!("http_server.listen={ip}:{HTTP_PORT}"),
            format!("http_api.listen={ip}:{API_PORT}"),
        ];
        for setting in own.iter().map(String::as_str).chain(settings.iter().copied()) {
            command.args(["--set", setting]);
        }
        let process = Process::start("ringcast", &mut command);
        let mut server = Server { process: Some(process), ip };
        let ready = server.process_mut().wait_for_line("serving", Duration::from_secs(20));
        ready.unwrap_or_else(|error| panic!("{error}"));
        server
    }

    /// The process, for its log and its signals.
    pub fn process_mut(&mut self) -> &mut Process {
        self.process.as_mut().expect("the server runs until stop")
    }

    /// Where RTMP is served.
    pub fn rtmp_addr(&self) -> SocketAddr {
        (self.ip, RTMP_PORT).into()
    }

    /// Where HTTP is served.
    pub fn http_addr(&self) -> SocketAddr {
        (self.ip, HTTP_PORT).into()
    }

    /// Where the API is served.
    pub fn api_addr(&self) -> SocketAddr {
        (self.ip, API_PORT).into()
    }

    /// RTMP URL of a stream given as `app/name`.
    pub fn rtmp(&self, stream: &str) -> String {
        format!("rtmp://{}/{stream}", self.rtmp_addr())
    }

    /// HTTP-FLV URL of a stream given as `app/name`.
    pub fn flv(&self, stream: &str) -> String {
        format!("http://{}/{stream}.flv", self.http_addr())
    }

    /// URL of a page or file.
    pub fn http(&self, path: &str) -> String {
        format!("http://{}{path}", self.http_addr())
    }

    /// Waits until the list of live streams names this stream.
    pub fn wait_for_stream(&self, stream: &str) {
        let (app, name) = stream.rsplit_once('/').expect("app/name");
        for _ in 0..200 {
            let (_, body) = self.get("/streams.json");
            let list: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
            let streams = list["streams"].as_array().expect("a list of streams");
            if streams.iter().any(|each| each["app"] == app && each["name"] == name) {
                return;
            }
            thread::sleep(Duration::from_millis(50));
        }
        panic!("{stream} is not in the list of live streams after 10 s");
    }

    /// A GET of something that ends; returns the head as text and the body.
    pub fn get(&self, path: &str) -> (String, Vec<u8>) {
        self.request(&format!("GET {path} HTTP/1.0\r\nHost: {}\r\n\r\n", self.http_addr()))
    }

    /// Sends bytes to the HTTP port and reads the answer to its end.
    pub fn request(&self, request: &str) -> (String, Vec<u8>) {
        let mut stream = TcpStream::connect(self.http_addr()).expect("connect");
        stream.set_read_timeout(Some(Duration::from_secs(10))).expect("timeout");
        stream.write_all(request.as_bytes()).expect("send");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).expect("an answer that ends within 10 s");
        let end = answer.windows(4).position(|four| four == b"\r\n\r\n").expect("a whole head");
        let body = answer.split_off(end + 4);
        (String::from_utf8(answer).expect("a head of text"), body)
    }

    /// Ends the server as an operator does, and fails if it does not end cleanly.
    pub fn stop(mut self) -> Finished {
        self.process_mut().signal(Signal::TERM);
        self.ended(Duration::from_secs(10))
    }

    /// Waits for the server to end by itself, and fails if it does not end cleanly.
    pub fn ended(mut self, limit: Duration) -> Finished {
        let finished = self.process.take().expect("the server runs until stop").finish(limit);
        let bad: Vec<_> = finished.stderr.iter().filter(|line| line.contains("panicked")).collect();
        assert!(bad.is_empty(), "the server's log has a panic: {bad:?}");
        finished.expect_success("ringcast")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let (true, Some(process)) = (thread::panicking(), &self.process) {
            let lines = process.lines();
            let tail = &lines[lines.len().saturating_sub(40)..];
            eprintln!("-- end of the server's log\n{}\n--", tail.join("\n"));
        }
    }
}

/// The binary that was built beside this test program, or the one that `RINGCAST_BIN` names.
pub fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("RINGCAST_BIN") {
        return path.into();
    }
    // The test program is target/PROFILE/deps/NAME-HASH.
    let test = std::env::current_exe().expect("a test program has a path");
    let folder = test.parent().and_then(|deps| deps.parent()).expect("two folders up");
    let path = folder.join("ringcast");
    let profile = folder.file_name().expect("a profile folder").to_string_lossy().into_owned();
    let profile = if profile == "debug" { "dev".to_owned() } else { profile };
    assert!(path.exists(), "no {path:?}: run `cargo build --profile {profile} -p ringcast` first");
    path
}

/// A loopback address that no other server of this machine's tests uses at the time: below
/// 127.64.0.0/10 there are 18 bits for the process id and 4 bits for the servers of one process.
fn own_address() -> Ipv4Addr {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let id = std::process::id().wrapping_mul(16).wrapping_add(count) & 0x3f_ffff;
    // Addresses that end in 0 or 255 are fine on loopback.
    Ipv4Addr::from(u32::from(Ipv4Addr::new(127, 64, 0, 0)) | id)
}
