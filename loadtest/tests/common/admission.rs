//! What tests about who may publish and play share: clients, pictures that say which one they are,
//! a canary whose every frame is compared.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use loadtest::client::{ClientError, Received, RtmpPublisher};
use loadtest::plan::{Expect, PlayGroup, PublishGroup};
use loadtest::{Plan, Report, run, table};
use ringcast::media::Kind;
use ringcast::proto::rtmp::client::{Client, ClientOptions, Event, HandshakeKind, Role};
use ringcast::proto::rtmp::server::PublishKind;

use super::hook_server::HookServer;
use super::server::Server;

/// The stream that must not notice anything.
pub const CANARY: &str = "live/canary";
/// Longer than anything takes.
pub const LONG: Duration = Duration::from_secs(15);

/// How often something happened, by the last summary line.
pub fn count(server: &mut Server, reason: &str) -> u64 {
    let lines = server.process_mut().lines();
    let last = lines.iter().rev().find(|line| line.contains("reasons=\""));
    let reasons = last.and_then(|line| line.split("reasons=\"").nth(1)).unwrap_or_default();
    let mut pairs = reasons.split(['"', ' ']).filter_map(|pair| pair.split_once('='));
    pairs.find(|(name, _)| *name == reason).map_or(0, |(_, n)| n.parse().expect("a number"))
}

/// Waits until something has happened so often.
pub fn wait_for_count(server: &mut Server, reason: &str, at_least: u64) {
    let deadline = Instant::now() + LONG;
    while count(server, reason) < at_least {
        let count = count(server, reason);
        assert!(Instant::now() < deadline, "{reason} is {count}, not {at_least}");
        thread::sleep(Duration::from_millis(100));
    }
}

/// A publisher with ten players whose every frame is compared.
pub fn canary_plan(server: &Server, seconds: f64) -> Plan {
    let flv = server.flv(CANARY);
    let ws = flv.replacen("http://", "ws://", 1);
    let play = [(server.rtmp(CANARY), 4), (flv, 3), (ws, 3)].map(|(url, clients)| PlayGroup {
        url,
        clients,
        start: 0.5,
        ramp: 0.0,
        verify: 1.0,
        ..PlayGroup::default()
    });
    Plan {
        seconds,
        publish: vec![PublishGroup {
            url: server.rtmp(CANARY),
            kbps: 500.0,
            ..PublishGroup::default()
        }],
        play: play.into(),
        expect: Expect {
            min_checked: Some((seconds - 3.0) as u64 * 10 * 50),
            ..Expect::all_well()
        },
        quiet: true,
        ..Plan::default()
    }
}

/// Runs a canary while something else goes on.
pub fn canary(server: &Server, seconds: f64) -> JoinHandle<Report> {
    let plan = canary_plan(server, seconds);
    let canary = thread::spawn(move || run(plan).expect("a run"));
    server.wait_for_stream(CANARY);
    canary
}

/// Waits for the canary and sees that it is well.
pub fn assert_canary_noticed_nothing(canary: JoinHandle<Report>) {
    let report = canary.join().expect("a report");
    assert!(report.violations.is_empty(), "the canary: {}", table::render(&report));
}

/// Two shards, and these hooks.
pub fn hook_settings(hooks: &HookServer, names: &[&str]) -> Vec<String> {
    let mut settings = vec!["shards=2".into(), "summary_interval=1".into()];
    settings.push("vhost.http_hooks.enabled=true".into());
    settings.extend(names.iter().map(|name| {
        let path = name.replace("on_", "/");
        format!("vhost.http_hooks.{name}={}", hooks.url(&path))
    }));
    settings
}

/// Every hook there is.
pub const ALL_HOOKS: &[&str] =
    &["on_connect", "on_close", "on_publish", "on_unpublish", "on_play", "on_stop"];

/// A server with hooks.
pub fn start(settings: &[String], more: &[&str]) -> Server {
    let all: Vec<&str> = settings.iter().map(String::as_str).chain(more.iter().copied()).collect();
    serve(&all)
}

/// A server whose publishers may be silent for as long as a slow machine takes.
pub fn serve(settings: &[&str]) -> Server {
    let mut all = vec!["vhost.publish.normal_timeout=120000"];
    all.extend(settings);
    Server::start(&all)
}

/// Publishes as soon as the one before has left.
pub fn publish_when_free(url: &str) -> RtmpPublisher {
    let deadline = Instant::now() + LONG;
    loop {
        match RtmpPublisher::connect(url) {
            Ok(publisher) => return publisher,
            Err(why) => assert!(Instant::now() < deadline, "{url}: {why}"),
        }
        thread::sleep(Duration::from_millis(50));
    }
}

/// True when the server ended it.
pub fn was_closed<T>(result: &Result<T, ClientError>) -> bool {
    matches!(result, Err(ClientError::Closed | ClientError::Io(_) | ClientError::Failure(_)))
}

/// The sequence header of H.264 of 1280x720 as in an FLV file.
pub fn avc_header() -> Vec<u8> {
    let mut header = vec![0x17, 0, 0, 0, 0, 1, 0x64, 0, 31, 0xff, 0xe1, 0, 25];
    header.extend([0x67, 0x64, 0, 31, 0xac, 0xd9, 0x40, 0x50, 0x05, 0xbb, 0x01, 0x6c, 0x80, 0]);
    header.extend([0, 3, 0, 0x80, 0, 0, 0x1e, 0x07, 0x8c, 0x18, 0xcb, 1, 0, 4]);
    header.extend([0x68, 0xef, 0xbc, 0xb0]);
    header
}

/// A picture whose body says which one it is.
pub fn picture(number: u32, len: usize) -> Vec<u8> {
    let key = number.is_multiple_of(10);
    let mut body = vec![if key { 0x17 } else { 0x27 }, 1, 0, 0, 0];
    body.extend((len as u32 + 5).to_be_bytes());
    body.push(if key { 0x65 } else { 0x41 });
    body.extend(number.to_be_bytes());
    body.resize(body.len() + len, number as u8);
    body
}

/// Which picture it is.
pub fn number_of(frame: &Received) -> u32 {
    u32::from_be_bytes(frame.payload[10..14].try_into().expect("four bytes"))
}

/// Publishes some pictures.
pub fn publish(url: &str, pictures: u32) -> RtmpPublisher {
    let mut publisher = publish_when_free(url);
    publisher.send(Kind::Video, 0, &avc_header()).expect("send");
    for number in 0..pictures {
        publisher.send(Kind::Video, number * 40, &picture(number, 200)).expect("send");
    }
    publisher
}

/// The answer to a GET of a stream that does not begin, with its status.
pub fn http_status(server: &Server, path: &str, more: &str) -> (u16, Duration) {
    let began = Instant::now();
    let mut socket = TcpStream::connect(server.http_addr()).expect("connect");
    socket.set_read_timeout(Some(LONG)).expect("timeout");
    let request = format!("GET {path} HTTP/1.1\r\nHost: {}\r\n{more}\r\n", server.http_addr());
    socket.write_all(request.as_bytes()).expect("send");
    let mut line = [0; 12];
    socket.read_exact(&mut line).expect("a status line");
    let text = String::from_utf8_lossy(&line).into_owned();
    (text.split(' ').nth(1).and_then(|s| s.parse().ok()).expect("a status"), began.elapsed())
}

/// Header lines of a request for a WebSocket.
pub const UPGRADE: &str = "\
    Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n";

/// A publisher that does not wait for the answer to its publish, and sends more than the server
/// takes without one.
pub fn impatient(server: &Server, stream: &str) -> TcpStream {
    let mut socket = TcpStream::connect(server.rtmp_addr()).expect("connect");
    let mut client = rtmp_client(server, stream, Role::Publish, None);
    socket.set_read_timeout(Some(Duration::from_millis(400))).expect("timeout");
    let mut buffer = [0; 16 * 1024];
    // Until the server has nothing more to say: then it has been asked to publish.
    loop {
        socket.write_all(&std::mem::take(client.output())).expect("send");
        let Ok(len) = socket.read(&mut buffer) else { return socket };
        let mut input = &buffer[..len];
        while client.poll(&mut input).expect("a server that speaks RTMP").is_some() {}
    }
}

/// What an RTMP client says that is on a page.
pub fn rtmp_client(server: &Server, stream: &str, role: Role, page: Option<&str>) -> Client {
    Client::new(ClientOptions {
        tc_url: format!("rtmp://{}/live", server.rtmp_addr()),
        app: "live".into(),
        stream: stream.into(),
        role,
        chunk_size: 60_000,
        flash_ver: "test".into(),
        page_url: page.map(str::to_owned),
        handshake: HandshakeKind::Simple,
        publish_sequence: PublishKind::Flash,
        seed: 1,
    })
}

/// True when an RTMP client on this page is let in.
pub fn is_let_in(server: &Server, stream: &str, role: Role, page: Option<&str>) -> bool {
    let mut socket = TcpStream::connect(server.rtmp_addr()).expect("connect");
    socket.set_read_timeout(Some(LONG)).expect("timeout");
    let mut client = rtmp_client(server, stream, role, page);
    let mut buffer = [0; 16 * 1024];
    loop {
        if socket.write_all(&std::mem::take(client.output())).is_err() {
            return false;
        }
        let len = socket.read(&mut buffer).unwrap_or(0);
        let mut input = &buffer[..len];
        while let Some(event) = client.poll(&mut input).expect("a server that speaks RTMP") {
            if matches!(event, Event::Publishing | Event::Playing) {
                return true;
            }
        }
        if len == 0 {
            return false;
        }
    }
}
