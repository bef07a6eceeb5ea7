//! A store that speaks S3 (moto, from PyPI), and a gate in front of it that can make trouble.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use super::http::{Answer, request};
use super::process::Process;
use super::venv;

/// The bucket that is there.
pub const BUCKET: &str = "recordings";
/// What makes a request one of somebody; the store does not check more.
const SIGNED: &str = "Authorization: AWS4-HMAC-SHA256 \
    Credential=test/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0";
const PACKAGES: &[&str] = &["moto[s3]==5.2.5", "flask==3.1.3", "flask-cors==6.0.5"];

/// A running store. What is in it ends with it.
pub struct Store {
    addr: SocketAddr,
    gate: Arc<Gate>,
    gate_addr: SocketAddr,
    _process: Process,
}

/// What the gate does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Mood {
    /// Passes everything on.
    Open,
    /// Closes connections at once.
    Closed,
    /// Answers 500 to everything.
    Broken,
    /// Answers 403 to everything, with the access key in the body as stores do.
    Denied,
    /// Closes connections after some bytes of the request.
    Cuts,
}

#[derive(Default)]
struct Gate {
    mood: AtomicU8,
    requests: AtomicU32,
}

impl Store {
    /// Starts one, with its bucket. `None`: it cannot be had here.
    pub fn start() -> Option<Store> {
        let program = venv::program("moto_server", PACKAGES)?;
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let id = std::process::id().wrapping_mul(16).wrapping_add(COUNT.fetch_add(1, Relaxed));
        let ip = Ipv4Addr::from(u32::from(Ipv4Addr::new(127, 128, 0, 0)) | id & 0x3f_ffff);
        let addr = SocketAddr::from((ip, 15_000));
        let mut command = Command::new(program);
        command.args(["-H", &ip.to_string(), "-p", "15000"]);
        // What it writes into answers is fast enough without compiling its own code first.
        command.env("PYTHONDONTWRITEBYTECODE", "1");
        let process = Process::start("moto", &mut command);
        let until = Instant::now() + Duration::from_secs(30);
        while TcpStream::connect(addr).is_err() {
            assert!(Instant::now() < until, "moto: {:?}", process.lines());
            thread::sleep(Duration::from_millis(50));
        }
        let made = request(addr, "PUT", &format!("/{BUCKET}"), &[SIGNED, "Content-Length: 0"]);
        assert_eq!(made.status, 200, "{:?}", made.text());
        let gate = Arc::new(Gate::default());
        let listener = TcpListener::bind((ip, 0)).expect("bind");
        let gate_addr = listener.local_addr().expect("an address");
        let to = gate.clone();
        thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                let gate = to.clone();
                thread::spawn(move || serve(&gate, socket, addr));
            }
        });
        Some(Store { addr, gate, gate_addr, _process: process })
    }

    /// Its URL, through the gate.
    pub fn url(&self) -> String {
        format!("http://{}", self.gate_addr)
    }

    /// Lets the gate do something else.
    pub fn set(&self, mood: Mood) {
        self.gate.mood.store(mood as u8, Relaxed);
    }

    /// Connections that came to the gate.
    pub fn connections(&self) -> u32 {
        self.gate.requests.load(Relaxed)
    }

    /// What is in the bucket under a name.
    pub fn get(&self, key: &str) -> Answer {
        request(self.addr, "GET", &format!("/{BUCKET}/{key}"), &[SIGNED])
    }

    /// The names of what is in the bucket.
    pub fn keys(&self) -> Vec<String> {
        let text = request(self.addr, "GET", &format!("/{BUCKET}?list-type=2"), &[SIGNED]).text();
        let keys = text.split("<Key>").skip(1).filter_map(|rest| rest.split("</Key>").next());
        keys.map(str::to_owned).collect()
    }

    /// Waits until there are so many objects.
    pub fn wait_for_keys(&self, count: usize, limit: Duration) -> Vec<String> {
        let until = Instant::now() + limit;
        loop {
            let keys = self.keys();
            if keys.len() >= count {
                return keys;
            }
            assert!(Instant::now() < until, "{count} objects wanted: {keys:?}");
            thread::sleep(Duration::from_millis(100));
        }
    }
}

fn serve(gate: &Gate, mut socket: TcpStream, to: SocketAddr) {
    gate.requests.fetch_add(1, Relaxed);
    let mood = gate.mood.load(Relaxed);
    let answer = |socket: &mut TcpStream, status: &str, body: &str| {
        let _ = socket.set_read_timeout(Some(Duration::from_secs(1)));
        let mut head = [0; 4096];
        let _ = socket.read(&mut head);
        let text = format!(
            "HTTP/1.1 {status}\r\nContent-Type: application/xml\r\nContent-Length: {}\r\n\
             Connection: close\r\n\r\n{body}",
            body.len()
        );
        let _ = socket.write_all(text.as_bytes());
        // What the client still sends is read, so that no reset takes the answer from it.
        let _ = socket.shutdown(Shutdown::Write);
        while socket.read(&mut head).is_ok_and(|len| len > 0) {}
    };
    if mood == Mood::Closed as u8 {
        return;
    } else if mood == Mood::Broken as u8 {
        let body = "<Error><Code>InternalError</Code><Message>broken</Message></Error>";
        return answer(&mut socket, "500 Internal Server Error", body);
    } else if mood == Mood::Denied as u8 {
        let body = "<Error><Code>InvalidAccessKeyId</Code><AWSAccessKeyId>AKIDSECRET\
                    </AWSAccessKeyId></Error>";
        return answer(&mut socket, "403 Forbidden", body);
    }
    let Ok(mut store) = TcpStream::connect(to) else { return };
    let (Ok(mut from_store), Ok(mut to_client)) = (store.try_clone(), socket.try_clone()) else {
        return;
    };
    let back = thread::spawn(move || {
        let _ = std::io::copy(&mut from_store, &mut to_client);
        let _ = to_client.shutdown(Shutdown::Both);
    });
    let most = if mood == Mood::Cuts as u8 { 50_000 } else { u64::MAX };
    let _ = std::io::copy(&mut (&mut socket).take(most), &mut store);
    let _ = store.shutdown(Shutdown::Both);
    let _ = socket.shutdown(Shutdown::Both);
    let _ = back.join();
}
