//! Row 20 of the tests against abuse with as many viewers as the machine lets in:
//!
//!     cargo test --release -p loadtest --test storm -- --ignored --nocapture
//!
//! Each comes by HTTPS and stays. `RINGCAST_VIEWERS` says how many (30,000 if nothing is said; each
//! takes three descriptors of the server's, so that is an open-file limit of 125,000 or more).
//! With a lower limit it is as many as fit, and the first line says so.

mod common;

use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use common::admission::{assert_canary_noticed_nothing, avc_header, canary, picture};
use common::certificate::Certificate;
use common::http;
use common::process::{descriptors, resident_kb};
use common::server::{Server, binary};
use common::wait::wait_for;
use loadtest::client::RtmpPublisher;
use ringcast::media::Kind;
use ringcast::proto::hls::check::Playlist;
use rustix::process::{Resource, getrlimit};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto};

const STREAM: &str = "live/storm";
/// Handshakes at a time: what the server takes of one address.
const HANDSHAKES: usize = 200;
/// Longer than a playlist may be held.
const ANSWERED: Duration = Duration::from_secs(60);

type Tls = TlsStream<TcpStream>;

/// What all viewers do now.
#[derive(Clone, Debug)]
enum Order {
    Wait,
    /// Ask for the playlist with this behind its address; the status has to be this.
    Ask(String, u16),
    Leave,
}

/// What came of it.
#[derive(Default)]
struct Seen {
    entered: AtomicUsize,
    answered: AtomicUsize,
    /// When each was answered, ms since the order.
    after: Mutex<Vec<u64>>,
}

async fn answer(tls: &mut Tls) -> (u16, String) {
    let (mut all, mut buffer) = (Vec::new(), vec![0; 8 << 10]);
    loop {
        let read = tls.read(&mut buffer).await.expect("an answer");
        assert!(read > 0, "the connection ended");
        all.extend_from_slice(&buffer[..read]);
        let Some((response, len)) = ringcast::proto::http::parse_response(&all).expect("a head")
        else {
            continue;
        };
        let body = response.header("content-length").and_then(|len| len.parse::<usize>().ok());
        if all.len() >= len + body.expect("a length") {
            return (response.status, String::from_utf8(all.split_off(len)).expect("text"));
        }
    }
}

async fn ask(tls: &mut Tls, path: &str) -> (u16, String) {
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
    tls.write_all(request.as_bytes()).await.expect("a request");
    answer(tls).await
}

struct Crowd {
    addr: SocketAddr,
    connector: TlsConnector,
    handshakes: Semaphore,
    seen: Seen,
}

impl Crowd {
    async fn view(self: Arc<Crowd>, number: usize, mut orders: watch::Receiver<Order>) {
        let permit = self.handshakes.acquire().await.expect("a permit");
        let socket = TcpSocket::new_v4().expect("a socket");
        // Each address has some ten thousands of ports.
        let from = Ipv4Addr::new(127, 3, (number / 250 % 250) as u8, (number % 250 + 1) as u8);
        socket.bind(SocketAddr::new(from.into(), 0)).expect("an address");
        let socket = socket.connect(self.addr).await.expect("a connection");
        let name = ServerName::try_from("tls.test").expect("a name");
        let mut tls = self.connector.connect(name, socket).await.expect("a handshake");
        let (status, master) = ask(&mut tls, &format!("/{STREAM}.m3u8")).await;
        drop(permit);
        assert_eq!(status, 200, "{master}");
        let path = master.lines().last().expect("an address").to_owned();
        self.seen.entered.fetch_add(1, Relaxed);
        loop {
            orders.changed().await.expect("an order");
            let order = orders.borrow_and_update().clone();
            match order {
                Order::Wait => {}
                Order::Leave => return,
                Order::Ask(query, wanted) => {
                    let asked = Instant::now();
                    let path = path.clone() + &query;
                    let answer = tokio::time::timeout(ANSWERED, ask(&mut tls, &path));
                    let (status, text) = answer.await.expect("an answer in time");
                    assert_eq!(status, wanted, "{text}");
                    let after = asked.elapsed().as_millis() as u64;
                    self.seen.after.lock().expect("lock").push(after);
                    self.seen.answered.fetch_add(1, Relaxed);
                }
            }
        }
    }
}

#[test]
#[ignore = "takes minutes, both cores and some GB"]
fn viewers_by_https() {
    let wanted = std::env::var("RINGCAST_VIEWERS").ok().map_or(30_000, |n| n.parse().expect("n"));
    let files = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX) as usize;
    // As the server counts: half of its descriptors are left to others.
    let viewers = usize::min(wanted, files.saturating_sub(400) / 4);
    println!("{viewers} viewers ({wanted} wanted, open-file limit {files})");

    let certificate = Certificate::make("storm");
    let port = 18_444;
    let settings = [
        "shards=2".to_owned(),
        format!("max_connections={}", viewers + 1_000),
        "http_server.https.enabled=true".into(),
        format!("http_server.https.listen=0.0.0.0:{port}"),
        format!("http_server.https.key={}", certificate.key.display()),
        format!("http_server.https.cert={}", certificate.cert.display()),
        "vhost.hls.enabled=true".into(),
        "vhost.hls.hls_fragment=2".into(),
        "vhost.hls.hls_part=0.5".into(),
        "vhost.hls.hls_window=10".into(),
    ];
    let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
    let mut command = Command::new("prlimit");
    command.arg(format!("--nofile={files}:{files}")).arg(binary());
    let mut server = Server::run(command, &settings);
    let pid = server.process_mut().id();
    let addr = SocketAddr::new(server.http_addr().ip(), port);

    let going = Arc::new(AtomicBool::new(true));
    let mut publisher = RtmpPublisher::connect(&server.rtmp(STREAM)).expect("publish");
    publisher.send(Kind::Video, 0, &avc_header()).expect("send");
    let publishing = thread::spawn({
        let going = going.clone();
        move || {
            let mut number = 0;
            while going.load(Relaxed) {
                publisher.send(Kind::Video, number * 40, &picture(number, 2_000)).expect("send");
                number += 1;
                thread::sleep(Duration::from_millis(40));
            }
        }
    });
    server.wait_for_stream(STREAM);
    let playlist = {
        let master = http::request(server.http_addr(), "GET", &format!("/{STREAM}.m3u8"), &[]);
        master.text().lines().last().expect("an address").to_owned()
    };
    let next = || {
        let text = http::request(server.http_addr(), "GET", &playlist, &[]).text();
        Playlist::parse(&text).expect("a playlist").open.number
    };
    thread::sleep(Duration::from_secs(5));
    let (memory, files) = (resident_kb(pid), descriptors(pid));

    let mut roots = RootCertStore::empty();
    let own = CertificateDer::from_pem_file(&certificate.cert).expect("a certificate");
    roots.add(own).expect("a root");
    let provider = Arc::new(crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let crowd = Arc::new(Crowd {
        addr,
        connector: TlsConnector::from(Arc::new(config)),
        handshakes: Semaphore::new(HANDSHAKES),
        seen: Seen::default(),
    });
    let (orders, heard) = watch::channel(Order::Wait);
    let began = Instant::now();
    let all = thread::spawn({
        let crowd = crowd.clone();
        move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(async {
                let mut all = JoinSet::new();
                for number in 0..viewers {
                    all.spawn(crowd.clone().view(number, heard.clone()));
                }
                while let Some(viewer) = all.join_next().await {
                    viewer.expect("a viewer that leaves when it is told to");
                }
            });
        }
    });
    while crowd.seen.entered.load(Relaxed) < viewers {
        assert!(began.elapsed() < Duration::from_secs(600), "not all came");
        assert!(!all.is_finished(), "a viewer failed");
        thread::sleep(Duration::from_millis(100));
    }
    let entered = began.elapsed();
    let per_viewer = (resident_kb(pid) - memory) as f64 / viewers as f64;
    println!("all there after {entered:.1?}, {per_viewer:.1} kB of the server's for each");

    let order = |what: &str, query: String, status: u16| {
        crowd.seen.answered.store(0, Relaxed);
        crowd.seen.after.lock().expect("lock").clear();
        orders.send_replace(Order::Ask(query, status));
        thread::sleep(Duration::from_millis(500));
        let held = resident_kb(pid);
        let until = Instant::now() + ANSWERED;
        while crowd.seen.answered.load(Relaxed) < viewers {
            assert!(Instant::now() < until, "{what}: not all were answered");
            assert!(!all.is_finished(), "{what}: a viewer failed");
            thread::sleep(Duration::from_millis(20));
        }
        let mut after = crowd.seen.after.lock().expect("lock").clone();
        after.sort_unstable();
        let (first, last) = (after[0], after[after.len() - 1]);
        let grown = held.max(resident_kb(pid)).saturating_sub(memory) as f64 / viewers as f64;
        println!(
            "{what}: answered after {first} to {last} ms, p50 {} ms, {grown:.1} kB for each",
            after[after.len() / 2]
        );
        grown
    };
    let canary = canary(&server, 20.0);
    // What is far from coming is refused to everybody, again and again; what comes is waited for.
    let mut most: f64 = 0.0;
    for _ in 0..3 {
        most = most.max(order("far ahead", format!("&_HLS_msn={}", u64::MAX), 400));
        let number = next() + 1;
        most = most.max(order("next segment", format!("&_HLS_msn={number}"), 200));
    }
    assert_canary_noticed_nothing(canary);
    assert!(most < 120.0, "{most:.1} kB for each viewer");

    orders.send_replace(Order::Leave);
    all.join().expect("viewers that leave");
    wait_for("an end of all", || (descriptors(pid) <= files + 20).then_some(()));
    println!("gone: {} kB more than before they came", resident_kb(pid).saturating_sub(memory));
    going.store(false, Relaxed);
    publishing.join().expect("the publisher");
    server.stop();
}
