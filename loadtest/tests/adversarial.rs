//! What peers can do wrong, end to end: each test states what the attack must come to, and that
//! the server lives on, that its descriptors and memory come back, that a counter says why, that
//! the log is not flooded, and that a publisher with ten verified players notices nothing.

mod common;

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::Path;
use std::sync::{Arc, Barrier};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use common::process::{descriptors, resident_kb};
use common::server::Server;
use loadtest::client::{ClientError, FlvPlayer, Received, RtmpPlayer, RtmpPublisher};
use loadtest::plan::{Expect, PlayGroup, PublishGroup};
use loadtest::{Plan, Report, run, table};
use ringcast::limits;
use ringcast::media::Kind;
use ringcast::proto::amf0::put;
use ringcast::proto::rtmp::chunk::{message_head, write_message};
use ringcast::proto::rtmp::client::{Client, ClientOptions, Event, HandshakeKind, Role};
use ringcast::proto::rtmp::server::PublishKind;
use ringcast::proto::ws;
use rustix::net::sockopt::set_socket_linger;

const CANARY: &str = "live/canary";

/// A server with a canary on it.
struct Trial {
    server: Server,
    canary: Option<JoinHandle<Report>>,
    descriptors: usize,
    resident_kb: u64,
}

impl Trial {
    /// `seconds` is how long the canary plays, and so how long the attack may take.
    fn start(seconds: f64, settings: &[&str]) -> Trial {
        Trial::on(seconds, Server::start, settings)
    }

    fn on(seconds: f64, start: impl Fn(&[&str]) -> Server, settings: &[&str]) -> Trial {
        let mut all = vec!["shards=2", "summary_interval=1"];
        all.extend(settings);
        let mut server = start(&all);
        let pid = server.process_mut().id();
        let plan = canary_plan(&server, seconds);
        let canary = Some(thread::spawn(move || run(plan).expect("a run")));
        server.wait_for_stream(CANARY);
        thread::sleep(Duration::from_millis(1500));
        let (descriptors, resident_kb) = (descriptors(pid), resident_kb(pid));
        Trial { server, canary, descriptors, resident_kb }
    }

    fn pid(&mut self) -> u32 {
        self.server.process_mut().id()
    }

    /// How often something happened, by the last summary line.
    fn count(&mut self, reason: &str) -> u64 {
        let lines = self.server.process_mut().lines();
        let last = lines.iter().rev().find(|line| line.contains("reasons=\""));
        let reasons = last.and_then(|line| line.split("reasons=\"").nth(1)).unwrap_or_default();
        let mut pairs = reasons.split(['"', ' ']).filter_map(|pair| pair.split_once('='));
        pairs.find(|(name, _)| *name == reason).map_or(0, |(_, n)| n.parse().expect("a number"))
    }

    fn wait_for_count(&mut self, reason: &str, at_least: u64) {
        self.wait_for_counts(&[reason], at_least);
    }

    /// Waits until the reasons have come up so often all together.
    fn wait_for_counts(&mut self, reasons: &[&str], at_least: u64) {
        let deadline = Instant::now() + Duration::from_secs(6);
        loop {
            let count: u64 = reasons.iter().map(|reason| self.count(reason)).sum();
            if count >= at_least {
                return;
            }
            assert!(Instant::now() < deadline, "{reasons:?} is {count}, not {at_least}");
            thread::sleep(Duration::from_millis(100));
        }
    }

    /// Lines of the log about one reason.
    fn lines_about(&mut self, reason: &str) -> usize {
        let text = format!("reason={reason}");
        self.server.process_mut().lines().iter().filter(|line| line.contains(&text)).count()
    }

    /// The pass conditions that all attacks have in common.
    fn finish(mut self) {
        let pid = self.pid();
        let deadline = Instant::now() + Duration::from_secs(20);
        while descriptors(pid) > self.descriptors {
            let (now, before) = (descriptors(pid), self.descriptors);
            assert!(Instant::now() < deadline, "{now} descriptors, {before} before the attack");
            thread::sleep(Duration::from_millis(200));
        }
        for reason in ["malformed", "misbehaved", "over_limit", "bad_request", "stream_name"] {
            let (lines, most) = (self.lines_about(reason), limits::LOG_LINES_PER_PEER as usize);
            assert!(lines <= most, "{lines} lines about {reason}");
        }
        assert_eq!(self.count("bug"), 0, "a session's code panicked");
        let report = self.canary.take().expect("one canary").join().expect("a report");
        assert!(report.violations.is_empty(), "the canary: {}", table::render(&report));
        assert!(self.server.process_mut().is_running());
        // Twenty megabytes are what allocators keep, not what two thousand connections leave.
        let (now, before) = (resident_kb(pid), self.resident_kb);
        assert!(now < before + before / 2 + 20_000, "{now} kB resident, {before} kB before");
        self.server.stop();
    }
}

fn canary_plan(server: &Server, seconds: f64) -> Plan {
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
            min_checked: Some((seconds - 2.0) as u64 * 10 * 50),
            ..Expect::all_well()
        },
        quiet: true,
        ..Plan::default()
    }
}

fn connect(addr: SocketAddr) -> TcpStream {
    let socket = TcpStream::connect_timeout(&addr, Duration::from_secs(5)).expect("connect");
    socket.set_read_timeout(Some(Duration::from_secs(5))).expect("timeout");
    socket.set_write_timeout(Some(Duration::from_secs(5))).expect("timeout");
    socket
}

/// Reads until the server closes; true when it did within `limit`.
fn closed_within(socket: &mut TcpStream, limit: Duration) -> bool {
    let deadline = Instant::now() + limit;
    let mut buffer = [0; 4096];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return false;
        }
        socket.set_read_timeout(Some(left)).expect("timeout");
        match socket.read(&mut buffer) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(why) if why.kind() == std::io::ErrorKind::WouldBlock => return false,
            Err(_) => return true,
        }
    }
}

/// A connection that has shaken hands and sent nothing yet.
fn shaken_hands(server: &Server) -> TcpStream {
    let mut socket = connect(server.rtmp_addr());
    let mut hello = vec![7; 1 + 1536 + 1536];
    hello[0] = 3;
    hello[5..9].fill(0);
    socket.write_all(&hello).expect("send");
    let mut answer = vec![0; 1 + 1536 + 1536];
    socket.read_exact(&mut answer).expect("a handshake");
    socket
}

/// Says hello, connect, createStream and publish or play with these names. True when the server
/// lets it happen, false when it closes.
fn admitted(server: &Server, app: &str, stream: &str, role: Role) -> bool {
    let mut socket = connect(server.rtmp_addr());
    let mut client = Client::new(ClientOptions {
        tc_url: format!("rtmp://{}/{app}", server.rtmp_addr()),
        app: app.into(),
        stream: stream.into(),
        role,
        chunk_size: 60_000,
        flash_ver: "test".into(),
        page_url: None,
        handshake: HandshakeKind::Simple,
        publish_sequence: PublishKind::Fmle,
        seed: 1,
    });
    let mut buffer = [0; 16 * 1024];
    loop {
        if socket.write_all(&std::mem::take(client.output())).is_err() {
            return false;
        }
        let len = match socket.read(&mut buffer) {
            Ok(0) => return false,
            Ok(len) => len,
            Err(why) if why.kind() == std::io::ErrorKind::ConnectionReset => return false,
            Err(why) => panic!("neither admitted nor closed: {why}"),
        };
        let mut input = &buffer[..len];
        while let Some(event) = client.poll(&mut input).expect("a server that speaks RTMP") {
            match event {
                Event::Publishing | Event::Playing => return true,
                Event::Refused { .. } => return false,
                _ => {}
            }
        }
    }
}

/// Sends bytes to the HTTP port and reads what comes back until the server closes.
fn http_answer(server: &Server, request: &[u8]) -> String {
    let mut socket = connect(server.http_addr());
    // The server may have refused before everything is sent.
    let _ = socket.write_all(request);
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(len) = socket.read(&mut buffer) {
        if len == 0 {
            break;
        }
        answer.extend_from_slice(&buffer[..len]);
    }
    String::from_utf8_lossy(&answer).into_owned()
}

// H.264 of 1280x720 as in an FLV file; `level` makes one SPS differ from another.
fn avc_header(level: u8) -> Vec<u8> {
    let mut header = vec![0x17, 0, 0, 0, 0, 1, 0x64, 0, level, 0xff, 0xe1, 0, 24];
    header.extend([0x67, 0x64, 0, level, 0xac, 0xd9, 0x40, 0x50, 0x05, 0xbb, 0x01, 0x6c, 0x80, 0]);
    header.extend([0, 3, 0, 0x80, 0, 0, 0x1e, 0x07, 0x8c, 0x18, 0xcb, 1, 0, 4]);
    header.extend([0x68, 0xef, 0xbc, 0xb0]);
    header
}

/// A picture whose body says who made it and which one it is.
fn picture(key: bool, mark: u32, number: u32, len: usize) -> Vec<u8> {
    let mut body = vec![if key { 0x17 } else { 0x27 }, 1, 0, 0, 0];
    body.extend((len as u32 + 9).to_be_bytes());
    body.push(if key { 0x65 } else { 0x41 });
    body.extend(mark.to_be_bytes());
    body.extend(number.to_be_bytes());
    body.resize(body.len() + len, mark as u8);
    body
}

fn mark_of(message: &Received) -> (u32, u32) {
    let word = |at: usize| u32::from_be_bytes(message.payload[at..at + 4].try_into().expect("4"));
    (word(10), word(14))
}

fn pictures(messages: &[Received]) -> Vec<&Received> {
    messages.iter().filter(|m| m.kind == Kind::Video && m.is_frame()).collect()
}

/// Rows 7 to 10, 15, 16, 19, 22: bytes that are wrong.
#[test]
fn wrong_bytes_cost_their_sender_and_nobody_else() {
    let mut trial = Trial::start(24.0, &[]);
    chunk_rules(&mut trial);
    declared_sizes(&mut trial);
    amf_bombs(&mut trial);
    names(&mut trial);
    media_rubbish(&mut trial);
    http_smuggling(&mut trial);
    websocket_frames(&mut trial);
    trial.finish();
}

/// Row 7.
fn chunk_rules(trial: &mut Trial) {
    let sizes = [0_u32, 1, 127, 16_777_217, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff];
    for size in sizes {
        let mut socket = shaken_hands(&trial.server);
        let mut bytes = Vec::new();
        write_message(&mut bytes, 128, 2, 1, 0, 0, &size.to_be_bytes());
        socket.write_all(&bytes).expect("send");
        let closed = closed_within(&mut socket, Duration::from_secs(3));
        assert!(closed, "chunk size {size:#x}: not closed");
    }
    // Abort in the middle of a message, then go on with another: legal, the message is gone.
    let url = trial.server.rtmp("live/aborted");
    let publisher = RtmpPublisher::connect(&url).expect("publish");
    let mut bytes = message_head(6, 9, 0, 500_000, 1).as_bytes().to_vec();
    bytes.extend([0x17; 1000]);
    let mut socket = publisher.socket();
    socket.write_all(&bytes).expect("send");
    let mut abort = Vec::new();
    write_message(&mut abort, 128, 2, 2, 0, 0, &6_u32.to_be_bytes());
    // It arrives as content of the unfinished chunk: whatever it becomes, it is the sender's.
    let _ = socket.write_all(&abort);
    drop(publisher);
    trial.wait_for_count("misbehaved", sizes.len() as u64);
}

/// Row 8: memory grows with what arrives, not with what is declared.
fn declared_sizes(trial: &mut Trial) {
    let pid = trial.pid();
    let before = resident_kb(pid);
    let sockets: Vec<_> = (0..64)
        .map(|n| {
            let url = trial.server.rtmp(&format!("live/declared{n}"));
            let publisher = RtmpPublisher::connect(&url).expect("publish");
            let mut bytes = Vec::new();
            // Two bytes of basic header each: chunk streams 64 and up.
            for csid in 0..60_u8 {
                bytes.extend([0, csid, 0, 0, 0, 0xff, 0xff, 0xff, 9, 1, 0, 0, 0]);
                bytes.extend([csid; 200]);
            }
            let mut socket = publisher.socket();
            // A chunk of 200 bytes: 60 chunk streams, each with 16 MB to come.
            let mut smaller = Vec::new();
            write_message(&mut smaller, 60_000, 2, 1, 0, 0, &200_u32.to_be_bytes());
            let _ = socket.write_all(&smaller);
            let _ = socket.write_all(&bytes);
            publisher
        })
        .collect();
    thread::sleep(Duration::from_millis(500));
    let grown = resident_kb(pid).saturating_sub(before);
    // 64 publishers with 60 messages of 16 MB are 64 GB by what they say.
    assert!(grown < 40_000, "{grown} kB more for 64 peers that declared and did not send");
    drop(sockets);
    // More chunk streams than one peer needs.
    let mut socket = shaken_hands(&trial.server);
    let mut bytes = Vec::new();
    for csid in 0..=255_u8 {
        bytes.extend([0, csid, 0, 0, 0, 0, 1, 0, 20, 0, 0, 0, 0]);
        bytes.extend([0; 128]);
    }
    let _ = socket.write_all(&bytes);
    assert!(closed_within(&mut socket, Duration::from_secs(3)), "256 chunk streams");
    trial.wait_for_count("over_limit", 1);
}

/// Row 9.
fn amf_bombs(trial: &mut Trial) {
    let nested = [3, 0, 1, b'a'].repeat(10_000);
    let arrays = [10, 0xff, 0xff, 0xff, 0xff].repeat(10_000);
    let wrong_length = vec![2, 0xff, 0xff, b'x'];
    let reference = vec![3, 0, 1, b'a', 7, 0, 0, 0, 0, 9];
    for argument in [nested, arrays, wrong_length, reference] {
        let mut call = Vec::new();
        put::string(&mut call, "connect");
        put::number(&mut call, 1.0);
        call.extend_from_slice(&argument);
        let mut bytes = Vec::new();
        write_message(&mut bytes, 128, 3, 20, 0, 0, &call);
        let mut socket = shaken_hands(&trial.server);
        let _ = socket.write_all(&bytes);
        let closed = closed_within(&mut socket, Duration::from_secs(3));
        assert!(closed, "connect with {:02x?}", &argument[..4]);
    }
    trial.wait_for_count("malformed", 1);
}

/// Row 10: one grammar for all protocols.
fn names(trial: &mut Trial) {
    let long = "x".repeat(64 << 10);
    let bad = [
        long.as_str(),
        "a\0b",
        "..",
        "../../etc/passwd",
        "a%00b",
        "%2e%2e",
        "<script>",
        "\u{202e}a",
        "-rf",
        ".hidden",
        "a\u{ff0f}b",
    ];
    for name in bad {
        for role in [Role::Publish, Role::Play] {
            assert!(!admitted(&trial.server, "live", name, role), "{role:?} {name:.40?}");
        }
        let path: String = name.bytes().take(7000).map(|byte| format!("%{byte:02X}")).collect();
        let path = if name.len() > 1000 { "x".repeat(300) } else { path };
        let request = format!("GET /live/{path}.flv HTTP/1.0\r\nHost: h\r\n\r\n");
        let answer = http_answer(&trial.server, request.as_bytes());
        let status = answer.split(' ').nth(1).unwrap_or_default();
        assert!(["400", "404", "414"].contains(&status), "{name:.40?}: {answer:.80}");
        assert!(!answer.contains("<script>"), "{answer}");
    }
    assert!(!admitted(&trial.server, "../live", "ok", Role::Play));
    // White space is taken out of RTMP names, as SRS does, before they mean anything.
    assert!(admitted(&trial.server, "live", "a\r\n b", Role::Publish));
    // Overlong UTF-8 of a slash in a path.
    let overlong = b"GET /live/a%c0%afb.flv HTTP/1.0\r\nHost: h\r\n\r\n";
    let answer = http_answer(&trial.server, overlong);
    assert!(answer.starts_with("HTTP/1.0 4") || answer.starts_with("HTTP/1.1 4"), "{answer}");
    assert!(admitted(&trial.server, "live", "fine", Role::Play), "a good name");
    trial.wait_for_count("stream_name", 10);
    // No name gets into the log as it is.
    for line in trial.server.process_mut().lines() {
        let raw = line.contains('\u{202e}') || line.contains('\0');
        assert!(!raw && line.len() < 12_000, "{line:.200}");
    }
}

/// Rows 15 and 16: what fuzzing keeps, as media of publishers.
fn media_rubbish(trial: &mut Trial) {
    let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/../ci/fuzz/corpus");
    let mut number = 0;
    for target in ["tags", "codecs"] {
        for file in std::fs::read_dir(format!("{corpus}/{target}")).expect("a corpus") {
            let bytes = std::fs::read(file.expect("an entry").path()).expect("a file");
            number += 1;
            let url = trial.server.rtmp(&format!("live/rubbish{number}"));
            let mut publisher = RtmpPublisher::connect(&url).expect("publish");
            for (kind, front) in [
                (Kind::Video, &[0x17, 0, 0, 0, 0][..]),
                (Kind::Video, &[0x1c, 0, 0, 0, 0]),
                (Kind::Audio, &[0xaf, 0]),
                (Kind::Video, &[]),
                (Kind::Audio, &[]),
            ] {
                let cut = bytes.len().min(if target == "tags" { 2 } else { 1 });
                let payload = [front, &bytes[cut..]].concat();
                // Codecs that are not carried end the publish: then there is nothing to send.
                if publisher.send(kind, 40, &payload).is_err() {
                    break;
                }
            }
            let _ = publisher.socket().shutdown(Shutdown::Write);
        }
    }
    assert!(number > 10);
    trial.wait_for_count("message_dropped_malformed", 1);
}

/// Row 19.
fn http_smuggling(trial: &mut Trial) {
    let host = "Host: h\r\n";
    let big = format!("X: {}\r\n", "y".repeat(1 << 20));
    let many = "A: b\r\n".repeat(1000);
    let long = format!("GET /{} HTTP/1.1\r\n{host}\r\n", "z".repeat(1 << 20));
    let bad = [
        format!("POST / HTTP/1.1\r\n{host}Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n"),
        format!("GET / HTTP/1.1\r\n{host}Content-Length: -1\r\n\r\n"),
        format!("GET / HTTP/1.1\r\n{host}Content-Length: 1\r\nContent-Length: 2\r\n\r\nxx"),
        format!("GET / HTTP/1.1\r\n{host}Content-Length: 99999999999999999999\r\n\r\n"),
        format!("GET / HTTP/1.1\r\n{host}Transfer-Encoding: chunked, identity\r\n\r\n"),
        format!("GET / HTTP/1.1\r\n{host}Transfer-Encoding: xchunked\r\n\r\n"),
        format!("GET / HTTP/1.1\r\n{host}Transfer-Encoding : chunked\r\n\r\n"),
        format!("GET / HTTP/1.1\r\n{host} folded: x\r\n\r\n"),
        format!("GET / HTTP/1.1\r\n{host}{host}\r\n"),
        "GET / HTTP/1.1\r\n\r\n".to_owned(),
        format!("GET / HTTP/9.9\r\n{host}\r\n"),
        format!("GET  / HTTP/1.1\r\n{host}\r\n"),
        format!("GET / HTTP/1.1\r\n{host}{big}\r\n"),
        format!("GET / HTTP/1.1\r\n{host}{many}\r\n"),
        long,
        "\u{16}\u{3}\u{1}\u{2}\0\u{1}\0\u{1}\u{fc}\u{3}\u{3}hello\r\n\r\n".to_owned(),
    ];
    for request in &bad {
        // A second request behind it must never be answered.
        let pair = format!("{request}GET /smuggled HTTP/1.1\r\n{host}\r\n");
        let answer = http_answer(&trial.server, pair.as_bytes());
        let answers = answer.matches("HTTP/1.").count();
        let status = answer.split(' ').nth(1).unwrap_or_default();
        // A 1 MB request may end in a reset before its answer is read.
        let reset = answer.is_empty() && request.len() > 100_000;
        let refused = status.starts_with('4') || status == "501" || status == "505";
        assert!(reset || (refused && answers == 1), "{request:.90?}: {answer:.200}");
    }
    trial.wait_for_count("bad_request", bad.len() as u64 - 4);
}

/// Row 22.
fn websocket_frames(trial: &mut Trial) {
    let upgrade = ws::client_request("h", &format!("/{CANARY}.flv"), [7; 16]);
    let mut text = Vec::new();
    ws::client_frame(ws::Opcode::Text, &[0xff, 0xfe], [1, 2, 3, 4], &mut text);
    let cases: [(&[u8], u16); 6] = [
        // A gigabyte to come.
        (&[0x82, 0xff, 0, 0, 0, 0, 0x40, 0, 0, 0, 1, 2, 3, 4, 0, 0], 1009),
        // Not masked.
        (&[0x82, 0x02, 1, 2], 1002),
        // A reserved bit, a reserved opcode, a fragmented ping.
        (&[0xc2, 0x82, 0, 0, 0, 0, 1, 2], 1002),
        (&[0x83, 0x82, 0, 0, 0, 0, 1, 2], 1002),
        (&[0x09, 0x82, 0, 0, 0, 0, 1, 2], 1002),
        (&text, 1007),
    ];
    for (frame, code) in cases {
        let mut socket = connect(trial.server.http_addr());
        socket.write_all(&upgrade).expect("send");
        let mut head = [0; 1];
        let mut seen = Vec::new();
        while !seen.ends_with(b"\r\n\r\n") {
            socket.read_exact(&mut head).expect("the answer to the upgrade");
            seen.push(head[0]);
        }
        socket.write_all(frame).expect("send");
        let mut media = Vec::new();
        let _ = socket.read_to_end(&mut media);
        let close = [0x88, 2, (code >> 8) as u8, code as u8];
        // Where the server was inside a message it can only close.
        let ends_well = media.ends_with(&close) || !media.windows(2).any(|two| two == [0x88, 2]);
        assert!(ends_well, "{frame:02x?}: not closed with {code}");
    }
    trial.wait_for_count("misbehaved", 6);
}

/// Rows 1 and 2: two thousand connections that say nothing, and some that say a byte at a time.
#[test]
fn silent_and_slow_connections_end_at_the_deadline() {
    let mut trial = Trial::start(20.0, &[]);
    let began = Instant::now();
    let mut silent: Vec<_> = (0..2000)
        .map(|n| {
            let http = n % 2 == 0;
            let addr = if http { trial.server.http_addr() } else { trial.server.rtmp_addr() };
            connect(addr)
        })
        .collect();
    let mut slow: Vec<_> = (0..40)
        .map(|n| {
            let (rtmp, http) = (trial.server.rtmp_addr(), trial.server.http_addr());
            connect(if n % 2 == 0 { http } else { rtmp })
        })
        .collect();
    let deadline = Duration::from_millis(limits::HANDSHAKE_MS_MAX);
    for second in 0..4 {
        for (n, socket) in slow.iter_mut().enumerate() {
            let _ = socket.write_all(if n % 2 == 0 { &b"GET /"[second..=second] } else { &[3] });
        }
        // Others come and go meanwhile.
        assert!(trial.server.get("/streams.json").0.contains("200"));
        thread::sleep(Duration::from_secs(1));
    }
    assert!(began.elapsed() < deadline, "the machine is too slow for this test");
    for socket in silent.iter_mut().chain(&mut slow) {
        let left = (began + deadline + Duration::from_secs(4)).duration_since(Instant::now());
        assert!(closed_within(socket, left), "not closed by {:?}", began.elapsed());
    }
    trial.wait_for_count("handshake_timeout", 2040);
    let lines = trial.lines_about("handshake_timeout");
    assert!((1..=limits::LOG_LINES_PER_PEER as usize).contains(&lines), "{lines} lines");
    trial.finish();
}

/// Row 3: more connections than there are descriptors for.
#[test]
fn a_burst_beyond_the_open_files_is_refused_and_passes() {
    let mut trial = Trial::on(12.0, |settings| Server::start_with_open_files(260, settings), &[]);
    let mut burst: Vec<_> = (0..600).map(|_| connect(trial.server.rtmp_addr())).collect();
    // Most by the limit; those that come while descriptors are still being closed, at the door.
    trial.wait_for_counts(&["connections_limit", "turned_away"], 400);
    // Refused at once, not left waiting.
    let refused = burst.iter_mut().rev().take(50);
    let closed = refused.filter_map(|s| closed_within(s, Duration::from_secs(1)).then_some(()));
    assert_eq!(closed.count(), 50);
    drop(burst);
    let deadline = Instant::now() + Duration::from_secs(5);
    while !admitted(&trial.server, "live", "newcomer", Role::Play) {
        assert!(Instant::now() < deadline, "no newcomer is served");
        thread::sleep(Duration::from_millis(200));
    }
    trial.finish();
}

/// Row 6: resets while sends are in flight.
#[test]
fn resets_in_the_middle_of_sends_hurt_nobody() {
    let mut trial = Trial::start(12.0, &[]);
    let flv = trial.server.flv(CANARY);
    let attackers: Vec<_> = (0..4)
        .map(|n| {
            let (flv, rtmp) = (flv.clone(), trial.server.rtmp(CANARY));
            thread::spawn(move || {
                for round in 0..60 {
                    let url = if (n + round) % 2 == 0 { &flv } else { &rtmp };
                    let mut player = FlvPlayer::connect(url).expect("play");
                    let _ = player.next_message();
                    thread::sleep(Duration::from_millis((round % 7) * 5));
                    // A reset instead of an end, with bytes unread.
                    let _ = set_socket_linger(player.socket(), Some(Duration::ZERO));
                }
            })
        })
        .collect();
    for attacker in attackers {
        attacker.join().expect("an attacker that gets its turn");
    }
    trial.wait_for_count("connection_error", 100);
    trial.finish();
}

/// Row 12: publishers that race for one name. One wins; its messages are all there is.
#[test]
fn of_publishers_that_race_one_wins() {
    const RACERS: u32 = 8;
    let server = Server::start(&["shards=2", "summary_interval=1"]);
    for round in 0..8 {
        let name = format!("live/race{round}");
        let mut player = RtmpPlayer::connect(&server.rtmp(&name)).expect("play");
        let start = Arc::new(Barrier::new(RACERS as usize));
        let racers: Vec<_> = (0..RACERS)
            .map(|mark| {
                let (url, start) = (server.rtmp(&name), start.clone());
                thread::spawn(move || {
                    start.wait();
                    let mut publisher = match RtmpPublisher::connect(&url) {
                        Ok(publisher) => publisher,
                        Err(ClientError::Closed | ClientError::Failure(_)) => return None,
                        Err(ClientError::Io(_)) => return None,
                        Err(other) => panic!("no defined end for a loser: {other}"),
                    };
                    publisher.send(Kind::Video, 0, &avc_header(31)).ok()?;
                    for number in 0..20 {
                        let body = picture(number % 10 == 0, mark, number, 500);
                        publisher.send(Kind::Video, number * 40, &body).ok()?;
                    }
                    Some((mark, publisher))
                })
            })
            .collect();
        let ends: Vec<_> = racers.into_iter().map(|racer| racer.join().expect("join")).collect();
        let winners: Vec<u32> = ends.iter().flatten().map(|(mark, _)| *mark).collect();
        assert_eq!(winners.len(), 1, "round {round}: {winners:?} win");
        let mut seen = Vec::new();
        while seen.last().is_none_or(|&(_, number)| number < 19) {
            seen.push(mark_of(&player.frames(1).expect("what the winner sent")[0]));
        }
        // A player that is told late begins at the newest keyframe.
        let first = if seen.len() == 20 { 0 } else { 10 };
        let sent: Vec<_> = (first..20).map(|number| (winners[0], number)).collect();
        assert_eq!(seen, sent, "round {round}");
    }
    let mut trial = Trial { server, canary: None, descriptors: 0, resident_kb: 0 };
    trial.wait_for_count("stream_busy", 8 * u64::from(RACERS - 1));
    let lines = trial.lines_about("stream_busy");
    assert!((1..=limits::LOG_LINES_PER_PEER as usize).contains(&lines), "{lines} lines");
    trial.server.stop();
}

/// Row 13: a publisher's clock that jumps.
#[test]
fn timestamps_that_jump_come_out_in_order() {
    let server = Server::start(&["shards=2", "summary_interval=1"]);
    let mut publisher = RtmpPublisher::connect(&server.rtmp("live/jump")).expect("publish");
    let mut rtmp = RtmpPlayer::connect(&server.rtmp("live/jump")).expect("play");
    let mut sent = 0;
    let mut send = |publisher: &mut RtmpPublisher, time: u32| {
        let body = picture(sent % 10 == 0, 1, sent, 100);
        publisher.send(Kind::Video, time, &body).expect("send");
        sent += 1;
    };
    publisher.send(Kind::Video, 1000, &avc_header(31)).expect("send");
    // FLV players wait half a second of video for a second track.
    (0..20).for_each(|n| send(&mut publisher, 1000 + n * 40));
    let mut flv = FlvPlayer::connect(&server.flv("live/jump")).expect("play");
    let day = 24 * 3600 * 1000;
    (0..10).for_each(|n| send(&mut publisher, day + n * 40));
    (0..10).for_each(|n| send(&mut publisher, day - 3_600_000 + n * 40));
    // Over the end of 31 and of 32 bits.
    (0..10).for_each(|n| send(&mut publisher, 0x7fff_ffff - 200 + n * 40));
    (0..10).for_each(|n| send(&mut publisher, 0_u32.wrapping_sub(200).wrapping_add(n * 40)));
    (0..10).for_each(|_| send(&mut publisher, 0));
    for (player, who) in [(&mut rtmp, "RTMP"), (&mut flv, "FLV")] {
        let mut frames = player.frames(1).expect("a picture");
        let first = mark_of(&frames[0]).1;
        assert!(first.is_multiple_of(10) && first <= 20, "{who} begins with picture {first}");
        frames.extend(player.frames(69 - first as usize).expect("all pictures"));
        let numbers: Vec<_> = frames.iter().map(|frame| mark_of(frame).1).collect();
        assert_eq!(numbers, (first..70).collect::<Vec<_>>(), "{who}");
        for two in frames.windows(2) {
            let step = i64::from(two[1].timestamp) - i64::from(two[0].timestamp);
            assert!((0..=1000).contains(&step), "{who}: a step of {step} ms");
        }
    }
    let mut trial = Trial { server, canary: None, descriptors: 0, resident_kb: 0 };
    trial.wait_for_count("timestamp_jump", 3);
    trial.server.stop();
}

/// Row 14: a publisher that is cut off, for less and for more than the hold.
#[test]
fn players_outlast_a_cut_publisher_within_the_hold() {
    let server = Server::start(&["shards=2", "vhost.publish.hold=5"]);
    let (url, flv_url) = (server.rtmp("live/cut"), server.flv("live/cut"));
    let publish = |mark: u32| {
        let mut publisher = RtmpPublisher::connect(&url).expect("publish");
        publisher.send(Kind::Video, 0, &avc_header(30 + mark as u8)).expect("send");
        for number in 0..25 {
            let body = picture(number == 0, mark, number, 300);
            publisher.send(Kind::Video, number * 40, &body).expect("send");
        }
        publisher
    };
    let first = publish(1);
    let mut flv = FlvPlayer::connect(&flv_url).expect("play");
    let mut rtmp = RtmpPlayer::connect(&url).expect("play");
    let mut before = Vec::new();
    for player in [&mut flv, &mut rtmp] {
        let frames = player.frames(25).expect("the first publisher");
        assert!(frames.iter().all(|frame| mark_of(frame).0 == 1));
        before.push(frames[24].timestamp);
    }
    // Cut, not ended.
    set_socket_linger(first.socket(), Some(Duration::ZERO)).expect("linger");
    drop(first);
    thread::sleep(Duration::from_secs(3));
    let second = publish(2);
    for (player, last) in [&mut flv, &mut rtmp].into_iter().zip(before) {
        let mut messages = Vec::new();
        while pictures(&messages).len() < 25 {
            messages.push(player.next_message().expect("the same connection goes on"));
        }
        let header = messages.iter().position(|m| m.payload == avc_header(32));
        let picture = messages.iter().position(Received::is_frame);
        assert!(header.is_some() && header < picture, "the new SPS comes before its pictures");
        let frames = pictures(&messages);
        assert!(frames.iter().enumerate().all(|(n, frame)| mark_of(frame) == (2, n as u32)));
        assert!(frames[0].is_keyframe());
        let gap = i64::from(frames[0].timestamp) - i64::from(last);
        assert!((2500..4500).contains(&gap), "one gap as long as the cut, not {gap} ms");
        assert!(frames.windows(2).all(|two| two[1].timestamp - two[0].timestamp == 40));
    }
    set_socket_linger(second.socket(), Some(Duration::ZERO)).expect("linger");
    drop(second);
    let cut = Instant::now();
    let rest = flv.collect_for(Duration::from_secs(12)).expect("a clean end");
    assert!(pictures(&rest).is_empty());
    let waited = cut.elapsed();
    assert!((4.0..9.0).contains(&waited.as_secs_f64()), "ended after {waited:?}");
    // RTMP players wait; the next publisher is a new beginning for them.
    let _third = publish(3);
    let frames = rtmp.frames(25).expect("the third publisher");
    assert!(frames.iter().enumerate().all(|(n, frame)| mark_of(frame) == (3, n as u32)));
    server.stop();
}

/// Row 17: huge pictures, and groups of pictures without end or beginning.
#[test]
fn huge_pictures_and_endless_groups_stay_bounded() {
    let settings = ["shards=2", "summary_interval=1", "vhost.play.gop_cache_max_frames=100"];
    let mut server = Server::start(&settings);
    let pid = server.process_mut().id();

    // 15 MB is a legal message and arrives as it was sent.
    let mut publisher = RtmpPublisher::connect(&server.rtmp("live/huge")).expect("publish");
    publisher.send(Kind::Video, 0, &avc_header(31)).expect("send");
    // FLV players wait half a second of video for a second track.
    for number in 100..120 {
        let body = picture(number == 100, 9, number, 100);
        publisher.send(Kind::Video, (number - 100) * 40, &body).expect("send");
    }
    let huge = picture(true, 9, 0, 15_000_000);
    let flv = server.flv("live/huge");
    let mut players = vec![
        RtmpPlayer::connect(&server.rtmp("live/huge")).expect("play"),
        FlvPlayer::connect(&flv).expect("play"),
        FlvPlayer::connect(&flv.replacen("http", "ws", 1)).expect("play"),
    ];
    publisher.send(Kind::Video, 840, &huge).expect("send");
    publisher.send(Kind::Video, 880, &picture(false, 9, 1, 100)).expect("send");
    for (number, player) in players.iter_mut().enumerate() {
        let mut frame = player.frames(1).expect("pictures").remove(0);
        while mark_of(&frame).1 >= 100 {
            frame = player.frames(1).expect("pictures").remove(0);
        }
        assert!(frame.payload == huge, "player {number}: the huge picture differs");
        let next = player.frames(1).expect("a picture").remove(0);
        assert_eq!(mark_of(&next), (9, 1), "player {number}");
    }
    drop((publisher, players));

    // 20 MB cannot be said: the length has 24 bits. Whoever sends it anyway is not understood
    // and is the only one who suffers.
    let publisher = RtmpPublisher::connect(&server.rtmp("live/over")).expect("publish");
    let mut socket = publisher.socket();
    let head = message_head(6, 9, 0, 20_000_000 & 0xff_ffff, 1);
    let _ = socket
        .write_all(head.as_bytes())
        .and_then(|()| (0..20).try_for_each(|_| socket.write_all(&[0x42; 1_000_000])));
    drop(publisher);

    // A group of pictures without end: newcomers start live when it is over the limit.
    let mut publisher = RtmpPublisher::connect(&server.rtmp("live/endless")).expect("publish");
    publisher.send(Kind::Video, 0, &avc_header(31)).expect("send");
    let before = resident_kb(pid);
    for number in 0..3000 {
        let body = picture(number == 0, 5, number, 10_000);
        publisher.send(Kind::Video, number * 40, &body).expect("send");
    }
    // What was sent has to arrive before anybody can come late.
    thread::sleep(Duration::from_secs(2));
    let grown = resident_kb(pid).saturating_sub(before);
    assert!(grown < 25_000, "{grown} kB kept of 30 MB without a keyframe");
    let mut late = RtmpPlayer::connect(&server.rtmp("live/endless")).expect("play");
    for number in 3000..3050 {
        let body = picture(false, 5, number, 100);
        publisher.send(Kind::Video, number * 40, &body).expect("send");
        thread::sleep(Duration::from_millis(10));
    }
    let first = mark_of(&late.frames(1).expect("a picture")[0]).1;
    assert!(first > 2890, "the newcomer began with picture {first}");

    // No keyframe at all.
    let mut publisher = RtmpPublisher::connect(&server.rtmp("live/none")).expect("publish");
    publisher.send(Kind::Video, 0, &avc_header(31)).expect("send");
    let mut send = |number: u32| {
        let body = picture(false, 6, number, 100);
        publisher.send(Kind::Video, number * 40, &body).expect("send");
        thread::sleep(Duration::from_millis(10));
    };
    (0..30).for_each(&mut send);
    let mut player = FlvPlayer::connect(&server.flv("live/none")).expect("play");
    (30..60).for_each(&mut send);
    let first = mark_of(&player.frames(5).expect("pictures, such as they are")[0]).1;
    assert!(first >= 29, "there is nothing to begin at, so it begins live, not with {first}");
    assert!(server.process_mut().is_running());
    server.stop();
}

/// Row 17 again, with everything on that keeps media: HLS with parts, recordings. Memory stays
/// within its budget, newcomers begin live, and what is wrong is said.
#[test]
fn endless_groups_with_hls_and_recordings() {
    let folder =
        Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("row17-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&folder);
    const BUDGET_MB: u64 = 64;
    let mut server = Server::start(&[
        "shards=2",
        "media_memory=67108864",
        "vhost.publish.hold=0",
        // Nothing is sent while a playlist is waited for.
        "vhost.publish.normal_timeout=60000",
        "vhost.play.gop_cache_max_frames=100",
        "vhost.hls.enabled=true",
        "vhost.hls.hls_fragment=1",
        "vhost.hls.hls_part=0.2",
        "vhost.dvr.enabled=true",
        &format!("vhost.dvr.dvr_path={}/[stream].[timestamp].flv", folder.display()),
    ]);
    let pid = server.process_mut().id();
    // The SPS has the length that the header says, so that it can be packed.
    let mut header = avc_header(31);
    header[12] += 1;
    let (endless, none) = (server.rtmp("live/endless"), server.rtmp("live/none"));
    let mut endless = RtmpPublisher::connect(&endless).expect("publish");
    let mut none = RtmpPublisher::connect(&none).expect("publish");
    for publisher in [&mut endless, &mut none] {
        publisher.send(Kind::Video, 0, &header).expect("send");
    }
    let began = Instant::now();
    let before = resident_kb(pid);
    let mut most = 0;
    // Six minutes of stream time and 180 MB in twelve seconds, one with a keyframe at its begin.
    for number in 0..9_000u32 {
        let time = number * 40;
        let body = picture(number == 0, 5, number, 10_000);
        endless.send(Kind::Video, time, &body).expect("send");
        none.send(Kind::Video, time, &picture(false, 6, number, 10_000)).expect("send");
        if number < 100 {
            // Slow enough for the recorder to be there before the keyframe is forgotten.
            thread::sleep(Duration::from_millis(10));
        }
        if number % 100 == 0 {
            most = most.max(resident_kb(pid).saturating_sub(before));
            thread::sleep(
                Duration::from_millis(u64::from(number) * 12_000 / 9_000)
                    .saturating_sub(began.elapsed()),
            );
        }
    }
    // Media memory, what recordings have on their way to the disk, and some room.
    assert!(most < (BUDGET_MB + 64) * 1024, "{most} kB more");
    let api = server.api_addr();
    let list = |path: &str| common::http::get(api, path);
    let deadline = Instant::now() + Duration::from_secs(15);
    loop {
        let alerts = list("/api/v1/alerts")["alerts"].clone();
        let alerts = alerts.as_array().expect("a list");
        let has =
            |stream: &str| alerts.iter().any(|a| a["alert"] == "long_gop" && a["url"] == stream);
        if has("/live/endless") && has("/live/none") {
            break;
        }
        assert!(Instant::now() < deadline, "{alerts:#?}");
        thread::sleep(Duration::from_millis(200));
    }
    let dvrs = list("/api/v1/dvrs/")["dvrs"].clone();
    let state_of = |stream: &str| {
        let all = dvrs.as_array().expect("a list");
        all.iter().find(|dvr| dvr["url"] == stream).expect("its recording")["state"].clone()
    };
    assert_eq!(state_of("/live/endless"), "writing", "{dvrs:#}");
    assert_eq!(state_of("/live/none"), "waiting", "{dvrs:#}");
    // Who comes now begins live, and HLS answers.
    let mut late = RtmpPlayer::connect(&server.rtmp("live/endless")).expect("play");
    for number in 9_000..9_050u32 {
        endless.send(Kind::Video, number * 40, &picture(false, 5, number, 100)).expect("send");
        thread::sleep(Duration::from_millis(10));
    }
    let first = mark_of(&late.frames(1).expect("a picture")[0]).1;
    assert!(first > 8_890, "the newcomer began with picture {first}");
    let answer = common::http::request(server.http_addr(), "GET", "/live/endless.m3u8", &[]);
    assert!(matches!(answer.status, 200 | 404 | 503), "{answer:?}");
    // A keyframe, and all is well again.
    for number in 9_050..9_150u32 {
        let body = picture(number % 25 == 0, 5, number, 1_000);
        endless.send(Kind::Video, number * 40, &body).expect("send");
        thread::sleep(Duration::from_millis(20));
    }
    let playlist = || {
        let master = common::http::request(server.http_addr(), "GET", "/live/endless.m3u8", &[]);
        let path = master.text().lines().last().unwrap_or_default().to_owned();
        common::http::request(server.http_addr(), "GET", &path, &[])
    };
    let answer = playlist();
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(answer.text().contains("#EXTINF:"), "{}", answer.text());
    drop((endless, none, late));
    assert!(server.process_mut().is_running());
    server.stop();
    let _ = std::fs::remove_dir_all(&folder);
}
