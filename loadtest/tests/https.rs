//! HTTPS for HTTP streaming, against the real binary: what is played is what was published, the
//! server knows whose a connection is, certificates are exchanged while players play, and clients
//! that misbehave cost themselves only.

mod common;

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use common::admission::{assert_canary_noticed_nothing, canary, publish};
use common::certificate::Certificate;
use common::hook_server::{Behaviour, HookServer};
use common::http;
use common::media::{self, Media};
use common::packets;
use common::process::{Process, descriptors, resident_kb};
use common::server::Server;
use common::units::{self, Container, Source};
use common::wait::{LONG, wait_for};
use common::web_socket;
use rustix::net::{AddressFamily, SocketType, sockopt};
use rustix::process::Signal;
use serde_json::Value;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned, crypto};

const STREAM: &str = "live/tls";

/// A server with HTTPS, and where it has it.
struct Secure {
    server: Server,
    addr: SocketAddr,
    pair: Certificate,
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("bound").port()
}

/// Publishes again and again until it is dropped.
fn publish_on(url: &str) -> Process {
    let mut command = media::ffmpeg();
    command.args(["-re", "-stream_loop", "-1", "-i"]).arg(Media::AvcAac.file());
    command.args(["-c", "copy", "-f", "flv"]).arg(url);
    Process::start("ffmpeg (publisher)", &mut command)
}

impl Secure {
    /// HTTPS is on all addresses with a port of its own: the server's own is not known before.
    fn start(name: &str, settings: &[&str]) -> Secure {
        let (pair, port) = (Certificate::make(name), free_port());
        let own = [
            "http_server.https.enabled=true".to_owned(),
            format!("http_server.https.listen=0.0.0.0:{port}"),
            format!("http_server.https.key={}", pair.key.display()),
            format!("http_server.https.cert={}", pair.cert.display()),
            "exporter.enabled=true".to_owned(),
            "exporter.listen=127.0.0.1:0".to_owned(),
        ];
        let all: Vec<_> = own.iter().map(String::as_str).chain(settings.iter().copied()).collect();
        let server = Server::start(&all);
        let addr = SocketAddr::new(server.http_addr().ip(), port);
        Secure { server, addr, pair }
    }

    fn url(&self, path: &str) -> String {
        format!("https://{}{path}", self.addr)
    }

    fn connect(&self) -> Tls {
        connect(self.addr, None, &self.pair.cert).expect("a TLS connection")
    }

    /// A connection that has asked for something.
    fn ask(&self, request: &str) -> Tls {
        let mut tls = self.connect();
        tls.write_all(request.as_bytes()).expect("a request");
        tls
    }

    /// What the server answers to a request until it ends the connection.
    fn answer(&self, method: &str, path: &str) -> http::Answer {
        let request = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        http::parse(&read_all(&mut self.ask(&request)))
    }

    fn metric(&self, name: &str) -> u64 {
        let answer = http::request(self.server.api_addr(), "GET", "/metrics", &[]);
        let text = answer.text();
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name} ")));
        let value = line.unwrap_or_else(|| panic!("no {name} in {text}"));
        value.parse::<f64>().expect("a number") as u64
    }

    fn refused(&self, why: &str) -> u64 {
        self.metric(&format!("ringcast_tls_refused_total{{reason=\"{why}\"}}"))
    }

    fn stop(self) {
        self.server.stop();
    }
}

type Tls = StreamOwned<ClientConnection, TcpStream>;

/// Connects over TLS, from a local address where one is given; the certificate has to be this one.
fn connect(addr: SocketAddr, from: Option<IpAddr>, cert: &Path) -> std::io::Result<Tls> {
    let socket = tcp(addr, from, 0)?;
    tls(socket, cert)
}

/// A TCP connection from a local address, with a receive buffer of that size unless it is 0.
fn tcp(addr: SocketAddr, from: Option<IpAddr>, buffer: usize) -> std::io::Result<TcpStream> {
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None)?;
    if buffer > 0 {
        sockopt::set_socket_recv_buffer_size(&socket, buffer)?;
    }
    if let Some(from) = from {
        rustix::net::bind(&socket, &SocketAddr::new(from, 0))?;
    }
    rustix::net::connect(&socket, &addr)?;
    let socket = TcpStream::from(socket);
    socket.set_read_timeout(Some(LONG))?;
    socket.set_write_timeout(Some(LONG))?;
    Ok(socket)
}

fn tls(socket: TcpStream, cert: &Path) -> std::io::Result<Tls> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(cert).expect("a certificate")).expect("a root");
    let provider = Arc::new(crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("tls.test").expect("a name");
    let connection = ClientConnection::new(Arc::new(config), name).expect("a client");
    let mut tls = StreamOwned::new(connection, socket);
    while tls.conn.is_handshaking() {
        tls.conn.complete_io(&mut tls.sock)?;
    }
    Ok(tls)
}

/// Everything until the server says in good order that this is all.
fn read_all(tls: &mut Tls) -> Vec<u8> {
    let mut all = Vec::new();
    // An end without close_notify is an error of rustls, and so of the test.
    tls.read_to_end(&mut all).expect("an end in good order");
    all
}

/// Reads the head of an answer; what comes behind it may have been read as well.
fn read_head(tls: &mut Tls) -> (String, Vec<u8>) {
    let mut all = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        if let Some(end) = all.windows(4).position(|four| four == b"\r\n\r\n") {
            let rest = all.split_off(end + 4);
            return (String::from_utf8(all).expect("text"), rest);
        }
        let read = tls.read(&mut buffer).expect("a head");
        assert!(read > 0, "the connection ended in the head");
        all.extend_from_slice(&buffer[..read]);
    }
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n")
}

fn clients(server: &Server) -> Vec<Value> {
    let answer = http::get(server.api_addr(), "/api/v1/clients/?count=1000");
    answer["clients"].as_array().expect("a list").clone()
}

/// FLV, MPEG-TS and WebSockets over TLS: every packet that a player gets is the published one.
#[test]
fn players_get_what_was_published() {
    let secure = Secure::start("play", &["shards=2", "vhost.publish.hold=0"]);
    // FLV by ffprobe, packet by packet, before the stream is there and in its middle.
    let file = Media::AvcBFramesAac.file();
    let published = packets::of_file(&media::as_published(&file));
    let flv = secure.url(&format!("/{STREAM}.flv"));
    let early = packets::list(&[], &flv);
    thread::sleep(Duration::from_millis(700));
    let publisher = media::publish(&file, &secure.server.rtmp(STREAM));
    secure.server.wait_for_stream(STREAM);
    thread::sleep(Duration::from_millis(2500));
    let late: Vec<_> = (0..3).map(|_| packets::list(&[], &flv)).collect();
    publisher.finish(Duration::from_secs(30)).expect_success("the publisher");
    let got = packets::finish(early, LONG);
    let start = packets::assert_is_tail("early HTTPS-FLV player", &got, &published);
    let first_key = published.iter().position(|packet| packet.key && packet.kind == "video");
    assert!(Some(start) <= first_key, "it starts with packet {start}");
    for player in late {
        let got = packets::finish(player, LONG);
        assert!(packets::assert_is_tail("late HTTPS-FLV player", &got, &published) > 0);
    }

    // MPEG-TS by ffmpeg, frame by frame, and over a WebSocket.
    let video = ["-c:v", "libx264", "-preset", "veryfast", "-bf", "2", "-g", "25"];
    let fixed = ["-keyint_min", "25", "-sc_threshold", "0", "-b:v", "300k"];
    let audio = ["-c:a", "aac", "-b:a", "96k", "-ac", "2"];
    let source = Source::make("h264-aac", &[&video[..], &fixed].concat(), &audio);
    let path = format!("/{STREAM}.ts");
    let mut socket = secure.connect();
    let messages = thread::spawn({
        let path = path.clone();
        move || web_socket::body(&mut socket, &path)
    });
    thread::sleep(Duration::from_millis(500));
    let publishing = source.publish(&secure.server.rtmp(STREAM));
    secure.server.wait_for_stream(STREAM);
    thread::sleep(Duration::from_millis(2200));
    let late = units::read(&source, &secure.url(&path), Container::Ts, false);
    publishing.join().expect("the publisher");
    let published = units::published(&source, Container::Ts);
    let got = units::finish("HTTPS-TS, in the middle", late);
    assert!(units::assert_is_tail("HTTPS-TS, in the middle", &source, &got, &published) > 0);
    let body = messages.join().expect("a body");
    let name = format!("https-ws-{}.ts", std::process::id());
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&file, &body).expect("a scratch file");
    let input = file.to_str().expect("UTF-8 path");
    let got = units::finish("wss", units::read(&source, input, Container::Ts, false));
    assert_eq!(units::assert_is_tail("wss", &source, &got, &published), 0);
    let _ = std::fs::remove_file(file);
    secure.stop();
}

/// The true address counts: for rules, limits, records and hooks; and URLs say https.
#[test]
fn the_server_knows_who_is_there() {
    let hooks = HookServer::start(|_| Behaviour::ok());
    let on_play = format!("vhost.http_hooks.on_play={}", hooks.url("/play"));
    let secure = Secure::start(
        "address",
        &[
            "shards=2",
            "vhost.security.enabled=true",
            "vhost.security.allow=[\"play all\", \"publish all\"]",
            "vhost.security.deny=[\"play 127.0.0.9\"]",
            "vhost.http_hooks.enabled=true",
            "max_connections_per_address=6",
            &on_play,
        ],
    );
    let _publisher = publish(&secure.server.rtmp(STREAM), 20);
    secure.server.wait_for_stream(STREAM);
    let flv = get(&format!("/{STREAM}.flv"));
    let from = |ip: [u8; 4]| {
        let tls = connect(secure.addr, Some(ip.into()), &secure.pair.cert);
        let mut tls = tls.expect("a TLS connection");
        tls.write_all(flv.as_bytes()).expect("a request");
        tls
    };
    let mut denied = from([127, 0, 0, 9]);
    let (head, _) = read_head(&mut denied);
    assert!(head.starts_with("HTTP/1.1 403 "), "{head}");
    read_all(&mut denied);
    let mut players: Vec<_> = (0..3).map(|n| from([127, 0, 0, 20 + n])).collect();
    for player in &mut players {
        let (head, _) = read_head(player);
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    }
    let all = clients(&secure.server);
    let mut ips: Vec<_> = all.iter().filter(|c| c["publish"] == false).collect();
    ips.sort_by_key(|client| client["ip"].as_str().map(str::to_owned));
    let of = |field: &str| ips.iter().map(|client| client[field].clone()).collect::<Vec<_>>();
    assert_eq!(of("ip"), ["127.0.0.20", "127.0.0.21", "127.0.0.22"]);
    assert_eq!(of("tcUrl"), ["https://x/live"; 3]);
    // What hooks were told: the same, and nothing of who was denied.
    let told = hooks.requests();
    let mut told: Vec<_> = told.iter().map(|r| (r.text_of("ip"), r.text_of("tcUrl"))).collect();
    told.sort_unstable();
    let expected = ["127.0.0.20", "127.0.0.21", "127.0.0.22"].map(|ip| (ip, "https://x/live"));
    assert_eq!(told, expected);
    // A plain player from the same address is the same client to limits.
    let mut of_one: Vec<_> = (0..5).map(|_| from([127, 0, 0, 20])).collect();
    for player in &mut of_one {
        assert!(read_head(player).0.starts_with("HTTP/1.1 200 "));
    }
    let plain = secure.server.http_addr();
    let mut seventh = tcp(plain, Some([127, 0, 0, 20].into()), 0).expect("a connection");
    let _ = seventh.write_all(flv.as_bytes());
    assert!(matches!(seventh.read(&mut [0; 16]), Ok(0) | Err(_)), "one more than the limit");
    // The front closes it before its handshake.
    let seventh = connect(secure.addr, Some([127, 0, 0, 20].into()), &secure.pair.cert);
    assert!(seventh.is_err(), "one more than the limit, over TLS");
    assert_eq!(secure.refused("address"), 1);
    drop((players, of_one));
    wait_for("an end of all players", || (clients(&secure.server).len() == 1).then_some(()));
    wait_for("an empty front", || (secure.metric("ringcast_tls_connections") == 0).then_some(()));
    secure.stop();
}

/// A connection that comes from where the front's do, but not through it, is what it is.
#[test]
fn nobody_else_is_taken_for_a_client_of_the_front() {
    let settings = [
        "vhost.security.enabled=true",
        "vhost.security.allow=[\"publish all\", \"play 10.0.0.0/8\"]",
    ];
    let secure = Secure::start("front", &settings);
    let _publisher = publish(&secure.server.rtmp(STREAM), 10);
    secure.server.wait_for_stream(STREAM);
    for last in [1, 7, 250] {
        let from = IpAddr::from([127, 0, 1, last]);
        let mut plain = tcp(secure.server.http_addr(), Some(from), 0).expect("a connection");
        let request = format!("GET /{STREAM}.flv HTTP/1.0\r\nX-Forwarded-For: 10.0.0.1\r\n\r\n");
        plain.write_all(request.as_bytes()).expect("send");
        let mut answer = String::new();
        plain.read_to_string(&mut answer).expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
    }
    secure.stop();
}

/// Pages, requests one after the other, and the ends of connections.
#[test]
fn requests_pages_and_ends() {
    let secure = Secure::start("pages", &["shards=2"]);
    let page = secure.answer("GET", "/");
    assert_eq!(page.status, 200);
    assert!(page.text().contains("<!doctype html>"));
    assert_eq!(secure.answer("GET", "/no/such/file").status, 404);
    let console = secure.answer("GET", "/console/");
    // Without HTTPS of its own the API is where it is.
    assert_eq!(console.status, 302);
    let to = console.header("location").expect("a location").to_owned();
    assert_eq!(to, format!("http://x:{}/console/", secure.server.api_addr().port()));
    // Several requests on one connection, in pieces.
    let mut tls = secure.connect();
    for _ in 0..3 {
        for piece in ["GET /streams.json HT", "TP/1.1\r\nHo", "st: x\r\n\r\n"] {
            tls.write_all(piece.as_bytes()).expect("a piece");
            tls.flush().expect("sent");
        }
        let (head, body) = read_head(&mut tls);
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        assert!(body.is_empty() || body.starts_with(b"{\"rtmp_port\""));
        if body.is_empty() {
            assert!(tls.read(&mut [0; 4096]).expect("the body") > 10);
        }
    }
    // The client is done first, and waits for the server to be.
    tls.conn.send_close_notify();
    tls.flush().expect("sent");
    assert_eq!(read_all(&mut tls), b"");
    // ALPN: HTTP/1.1 is spoken, HTTP/2 alone is refused.
    let client = |alpn: &str| {
        let mut command = Command::new("openssl");
        command.args(["s_client", "-alpn", alpn, "-connect", &secure.addr.to_string()]);
        Process::start("openssl", &mut command).finish(LONG)
    };
    let text = client("h2,http/1.1").stdout.join("\n");
    assert!(text.contains("ALPN protocol: http/1.1"), "{text}");
    assert!(!client("h2").status.success());
    secure.stop();
}

/// The API on the same ports, over both: requests come through with the true address.
#[test]
fn one_port_for_streams_and_api() {
    let pair = Certificate::make("one-port");
    let (port, own) = (free_port(), format!("127.0.0.1:{}", free_port()));
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let file = pair.cert.with_extension("toml");
    let https = format!(
        "enabled = true\nlisten = [\"{address}\"]\nkey = {:?}\ncert = {:?}\n",
        pair.key, pair.cert
    );
    let text = format!("[http_server.https]\n{https}[http_api.https]\n{https}");
    std::fs::write(&file, text).expect("written");
    let listen = [format!("http_server.listen={own}"), format!("http_api.listen={own}")];
    let server = Server::start_with_file(&file, &["shards=2", &listen[0], &listen[1]]);
    let ask = |path: &str| {
        let mut tls = connect(address, None, &pair.cert).expect("a TLS connection");
        tls.write_all(get(path).as_bytes()).expect("a request");
        http::parse(&read_all(&mut tls))
    };
    let answer = ask("/api/v1/summaries").json();
    assert_eq!(answer["code"], 0, "{answer}");
    assert_eq!(ask("/api/v1/clients/").json()["clients"], Value::Array(Vec::new()));
    assert_eq!(ask("/api/v1/server").json()["data"]["ports"]["https"], port);
    // A long answer comes through whole.
    let api = ask("/api/v1/openapi.json");
    assert!(api.body.len() > 100_000 && api.json()["openapi"].is_string());
    server.stop();
    std::fs::remove_file(file).expect("remove");
}

/// SIGHUP puts a new certificate in force for who comes; who is there plays on. Files that do not
/// belong together change nothing, and the log says so.
#[test]
fn certificates_are_exchanged_while_players_play() {
    let mut secure = Secure::start("swap", &["shards=1"]);
    let (old, new) = (Certificate::make("old"), Certificate::make("new"));
    old.become_like(&secure.pair);
    let _publisher = publish_on(&secure.server.rtmp(STREAM));
    secure.server.wait_for_stream(STREAM);
    let mut player = secure.ask(&get(&format!("/{STREAM}.flv")));
    read_head(&mut player);
    let connects_with = |pair: &Certificate| connect(secure.addr, None, &pair.cert).is_ok();
    assert!(connects_with(&old) && !connects_with(&new));

    // A key that is another certificate's.
    std::fs::copy(&new.cert, &secure.pair.cert).expect("copied");
    secure.server.process_mut().signal(Signal::HUP);
    let line = secure.server.process_mut().wait_for_line("certificate not reloaded", LONG);
    assert!(line.expect("a line").contains("tls_unusable"));
    let connects_with = |pair: &Certificate| connect(secure.addr, None, &pair.cert).is_ok();
    assert!(connects_with(&old) && !connects_with(&new));

    std::fs::copy(&new.key, &secure.pair.key).expect("copied");
    secure.server.process_mut().signal(Signal::HUP);
    let line = secure.server.process_mut().wait_for_line("reloaded", LONG);
    line.expect("a line");
    let connects_with = |pair: &Certificate| connect(secure.addr, None, &pair.cert).is_ok();
    wait_for("the new certificate", || connects_with(&new).then_some(()));
    assert!(!connects_with(&old));
    // It has played all the time.
    let mut buffer = vec![0; 16 << 10];
    let until = Instant::now() + Duration::from_secs(2);
    while Instant::now() < until {
        assert!(player.read(&mut buffer).expect("media") > 0);
    }
    drop(player);
    secure.stop();
}

/// What is no TLS, and what begins like it and goes no further.
#[test]
fn garbage_and_half_handshakes_cost_nothing() {
    const GARBAGE: usize = 200;
    const SILENT: usize = 300;
    let mut secure = Secure::start("garbage", &["shards=2"]);
    let pid = secure.server.process_mut().id();
    // All the time somebody plays over HTTPS, too.
    let canary = canary(&secure.server, 16.0);
    let mut player = secure.ask(&get("/live/canary.flv"));
    assert!(read_head(&mut player).0.starts_with("HTTP/1.1 200 "));
    let (before, memory) = (descriptors(pid), resident_kb(pid));
    for n in 0..GARBAGE {
        let mut socket = tcp(secure.addr, None, 0).expect("a connection");
        let bytes: Vec<u8> = match n % 4 {
            0 => b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
            1 => (0..2000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect(),
            // A record that says it is long, and one that is too long.
            2 => [&[0x16, 3, 1, 0x40, 0][..], &[1; 600]].concat(),
            _ => [&[0x16, 3, 1, 0xff, 0xff][..], &[0; 600]].concat(),
        };
        let _ = socket.write_all(&bytes);
    }
    // They say nothing, or the first bytes of a handshake, and stay. Beyond the limit of one
    // address they are closed at once.
    let mut silent: Vec<TcpStream> = Vec::new();
    for n in 0..SILENT {
        let mut socket = tcp(secure.addr, None, 0).expect("a connection");
        if n % 2 == 0 {
            let _ = socket.write_all(&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3]);
        }
        silent.push(socket);
    }
    wait_for("the limit of an address", || {
        (secure.refused("address_handshakes") >= (SILENT - 256) as u64).then_some(())
    });
    assert!(secure.metric("ringcast_tls_handshakes") <= 256);
    // From another address all is well.
    let elsewhere = connect(secure.addr, Some([127, 0, 0, 33].into()), &secure.pair.cert);
    assert!(elsewhere.is_ok());
    drop(elsewhere);
    // They have ten seconds.
    wait_for("an end of who is silent", || {
        (secure.metric("ringcast_tls_handshakes") == 0).then_some(())
    });
    assert!(secure.refused("slow") >= 200, "{} slow", secure.refused("slow"));
    assert!(secure.refused("handshake") >= 100, "{} failed", secure.refused("handshake"));
    for socket in &mut silent {
        let end = socket.read(&mut [0; 64]);
        assert!(!matches!(&end, Err(why) if why.kind() == ErrorKind::WouldBlock), "{end:?}");
    }
    let mut buffer = vec![0; 256 << 10];
    assert!(player.read(&mut buffer).expect("media") > 0);
    drop(player);
    wait_for("descriptors to come back", || (descriptors(pid) <= before).then_some(()));
    let grown = resident_kb(pid).saturating_sub(memory);
    assert!(grown < 30_000, "{grown} kB more than before");
    assert_canary_noticed_nothing(canary);
    let lines = secure.server.process_mut().lines();
    let about =
        lines.iter().filter(|line| line.contains("TLS") || line.contains("HTTPS on")).count();
    assert!(about < 20, "{about} lines about TLS");
    secure.stop();
}

/// Players that stop reading are seen as slow by their shard, cost no memory, and go on at a
/// keyframe; one that is kicked while it stalls is let go.
#[test]
fn stalled_players_skip_and_cost_nothing() {
    const PLAYERS: usize = 20;
    let mut secure = Secure::start("stalled", &["shards=2", "vhost.play.queue_length=2"]);
    let pid = secure.server.process_mut().id();
    let plan = loadtest::Plan {
        seconds: 22.0,
        publish: vec![loadtest::plan::PublishGroup {
            url: secure.server.rtmp(STREAM),
            kbps: 3000.0,
            gop: 1.0,
            ..loadtest::plan::PublishGroup::default()
        }],
        quiet: true,
        ..loadtest::Plan::default()
    };
    let publisher = thread::spawn(move || loadtest::run(plan).expect("a run"));
    secure.server.wait_for_stream(STREAM);
    let mut stalled: Vec<_> = (0..PLAYERS)
        .map(|_| {
            let socket = tcp(secure.addr, None, 32 << 10).expect("a connection");
            let mut tls = tls(socket, &secure.pair.cert).expect("a TLS connection");
            tls.write_all(get(&format!("/{STREAM}.flv")).as_bytes()).expect("a request");
            read_head(&mut tls);
            tls
        })
        .collect();
    let mut reading = secure.ask(&get(&format!("/{STREAM}.flv")));
    read_head(&mut reading);
    let reader = thread::spawn(move || {
        let mut buffer = vec![0; 64 << 10];
        let mut total = 0;
        let until = Instant::now() + Duration::from_secs(12);
        let mut longest = Duration::ZERO;
        while Instant::now() < until {
            let asked = Instant::now();
            total += reading.read(&mut buffer).expect("media");
            longest = longest.max(asked.elapsed());
        }
        (total, longest)
    });
    thread::sleep(Duration::from_secs(4));
    let skips = |secure: &Secure| -> Vec<u64> {
        let of = |client: &Value| client["ringcast"]["skips"].as_u64().expect("skips");
        clients(&secure.server).iter().filter(|c| c["publish"] == false).map(of).collect()
    };
    let memory = resident_kb(pid);
    thread::sleep(Duration::from_secs(8));
    // Eight seconds of 3 Mbit/s for twenty players are 60 MB that must not be kept.
    let grown = resident_kb(pid).saturating_sub(memory);
    println!("{grown} kB more after eight seconds of a stall");
    assert!(grown < 8_000, "{grown} kB more after eight seconds of a stall");
    let (total, longest) = reader.join().expect("the reader");
    assert!(total > 2_500_000, "{total} bytes in 12 s for who reads");
    assert!(longest < Duration::from_millis(1500), "{longest:?} without media for who reads");
    // One is kicked, and does not read: what is left is not its for ever.
    let one = clients(&secure.server).into_iter().find(|client| client["publish"] == false);
    let id = one.expect("a player")["id"].as_str().expect("an id").to_owned();
    let path = format!("/api/v1/clients/{id}");
    assert_eq!(http::request(secure.server.api_addr(), "DELETE", &path, &[]).status, 200);
    // Those who read again get headers and go on.
    let reading_again = stalled.drain(..).map(|mut player| {
        thread::spawn(move || {
            let mut buffer = vec![0; 64 << 10];
            let until = Instant::now() + Duration::from_secs(4);
            while Instant::now() < until && player.read(&mut buffer).is_ok_and(|read| read > 0) {}
            player
        })
    });
    let reading_again: Vec<_> = reading_again.collect();
    wait_for("a skip of each", || {
        let skips = skips(&secure);
        println!("{skips:?}");
        (skips.iter().filter(|n| **n > 0).count() >= PLAYERS - 1).then_some(())
    });
    for player in reading_again {
        drop(player.join().expect("a player"));
    }
    wait_for("an empty front", || (secure.metric("ringcast_tls_connections") == 0).then_some(()));
    publisher.join().expect("the publisher");
    secure.stop();
}

/// A configuration as SRS ships it for this.
#[test]
fn a_configuration_of_srs_starts() {
    let pair = Certificate::make("srs");
    let file = pair.cert.with_extension("conf");
    let (key, cert) = (pair.key.display(), pair.cert.display());
    let [api, streaming] = [(); 2].map(|()| SocketAddr::from(([127, 0, 0, 1], free_port())));
    let https = |port: u16| {
        format!("https {{ enabled on; listen 127.0.0.1:{port}; key {key}; cert {cert}; }}")
    };
    let text = format!(
        "listen 1935;\nmax_connections 1000;\ndaemon off;\nsrs_log_tank console;\n\
         http_api {{ enabled on; listen 1985; {} }}\n\
         http_server {{ enabled on; listen 8080; dir ./objs/nginx/html; {} }}\n\
         vhost __defaultVhost__ {{ http_remux {{ enabled on; \
         mount [vhost]/[app]/[stream].flv; }} }}\n",
        https(api.port()),
        https(streaming.port())
    );
    std::fs::write(&file, text).expect("written");
    let server = Server::start_with_file(&file, &["pid=", "shards=2"]);
    let publisher = media::publish(&Media::AvcAac.file(), &server.rtmp(STREAM));
    server.wait_for_stream(STREAM);
    let mut player = connect(streaming, None, &pair.cert).expect("a TLS connection");
    player.write_all(get(&format!("/{STREAM}.flv")).as_bytes()).expect("a request");
    assert!(read_head(&mut player).0.contains("video/x-flv"));
    let mut asking = connect(api, None, &pair.cert).expect("a TLS connection");
    let request = "GET /api/v1/clients/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    asking.write_all(request.as_bytes()).expect("a request");
    let answer = http::parse(&read_all(&mut asking)).json();
    assert_eq!(answer["clients"].as_array().map(Vec::len), Some(2), "{answer}");
    drop((player, publisher));
    server.stop();
    std::fs::remove_file(file).expect("remove");
}

/// Row 20 of the tests against abuse, by HTTPS: some hundreds of viewers that wait; `storm.rs` has
/// thousands.
#[test]
fn viewers_that_wait() {
    const VIEWERS: usize = 300;
    let settings = [
        "shards=2",
        "vhost.hls.enabled=true",
        "vhost.hls.hls_fragment=1",
        "vhost.hls.hls_part=0.2",
        "vhost.hls.hls_window=5",
    ];
    let mut secure = Secure::start("waiting", &settings);
    let pid = secure.server.process_mut().id();
    let _publisher = publish_on(&secure.server.rtmp(STREAM));
    secure.server.wait_for_stream(STREAM);
    let answer = |tls: &mut Tls| -> (String, String) {
        let (head, mut body) = read_head(tls);
        let len = head.lines().find_map(|line| {
            line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok()
        });
        let rest = len.map_or(0, |len: usize| len - body.len());
        let mut more = vec![0; rest];
        tls.read_exact(&mut more).expect("a body");
        body.append(&mut more);
        (head, String::from_utf8(body).expect("text"))
    };
    let before = resident_kb(pid);
    let mut viewers: Vec<(Tls, String)> = (0..VIEWERS)
        .map(|_| {
            let mut tls = secure.ask(&get(&format!("/{STREAM}.m3u8")));
            let (head, master) = answer(&mut tls);
            assert!(head.starts_with("HTTP/1.1 200"), "{head}");
            (tls, master.lines().last().expect("an address").to_owned())
        })
        .collect();
    let number_of = |text: &str| -> u64 {
        let line = text.lines().find_map(|line| line.strip_prefix("#EXT-X-MEDIA-SEQUENCE:"));
        let first: u64 = line.and_then(|first| first.parse().ok()).expect("a number");
        first + text.matches("#EXTINF:").count() as u64
    };
    let (tls, path) = &mut viewers[0];
    tls.write_all(get(path).as_bytes()).expect("a request");
    let next = number_of(&answer(tls).1);
    for (tls, path) in &mut viewers {
        tls.write_all(get(&format!("{path}&_HLS_msn={}", next + 1)).as_bytes()).expect("a request");
    }
    let grown = resident_kb(pid).saturating_sub(before);
    assert!(grown < VIEWERS as u64 * 120, "{grown} kB for {VIEWERS} viewers");
    for (tls, path) in &mut viewers {
        let (head, text) = answer(tls);
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        assert!(number_of(&text) > next + 1, "{next}: {text}");
        tls.write_all(get(&format!("{path}&_HLS_msn={}", next + 99)).as_bytes())
            .expect("a request");
    }
    for (tls, _) in &mut viewers {
        let (head, _) = answer(tls);
        assert!(head.starts_with("HTTP/1.1 400"), "{head}");
    }
    drop(viewers);
    secure.stop();
}
