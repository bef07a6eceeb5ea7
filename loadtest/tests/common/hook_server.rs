//! A small HTTP server that hooks are sent to. How it behaves is up to the test, request by
//! request.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ServerConfig, ServerConnection, StreamOwned, crypto};

/// What the server does with a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Behaviour {
    /// Answers with this status and body.
    Answer(u16, String),
    /// The same after a while.
    After(Duration, String),
    /// Answers nothing and keeps the connection.
    Hang,
    /// Answers a byte a second.
    Drip,
    /// Answers with a body of that many bytes.
    Big(usize),
    /// Answers with a redirect.
    Redirect(String),
    /// Closes the connection.
    Close,
}

impl Behaviour {
    /// What lets a client in.
    pub fn ok() -> Behaviour {
        Behaviour::Answer(200, "{\"code\":0}".into())
    }
}

/// A request as it arrived.
#[derive(Clone, Debug)]
pub struct HookRequest {
    /// When it was there.
    pub at: Instant,
    /// The method.
    pub method: String,
    /// The path with its query.
    pub path: String,
    /// Header lines, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body as it came.
    pub text: String,
    /// The body as JSON.
    pub body: Value,
}

impl HookRequest {
    /// A field of the body that is a text; empty when it is not there.
    pub fn text_of(&self, field: &str) -> &str {
        self.body[field].as_str().unwrap_or_default()
    }

    /// The names of the body's fields in their order. Bodies are flat.
    pub fn fields(&self) -> Vec<String> {
        let object = self.body.as_object().expect("an object");
        let mut names: Vec<_> = object.keys().cloned().collect();
        names.sort_by_key(|name| self.text.find(&format!("\"{name}\":")).expect("the name"));
        names
    }
}

type Rule = Box<dyn Fn(&HookRequest) -> Behaviour + Send + Sync>;

/// The server. It ends with the test.
pub struct HookServer {
    addr: SocketAddr,
    scheme: &'static str,
    shared: Arc<Shared>,
}

struct Shared {
    requests: Mutex<Vec<HookRequest>>,
    rule: Rule,
    over: AtomicBool,
}

impl HookServer {
    /// Starts a server that behaves by this rule.
    pub fn start(rule: impl Fn(&HookRequest) -> Behaviour + Send + Sync + 'static) -> HookServer {
        HookServer::start_at("127.0.0.1:0".parse().expect("an address"), rule)
    }

    /// The same at an address where nobody listens.
    pub fn start_at(
        addr: SocketAddr,
        rule: impl Fn(&HookRequest) -> Behaviour + Send + Sync + 'static,
    ) -> HookServer {
        HookServer::run(addr, None, Box::new(rule))
    }

    /// The same over TLS, with a certificate and its key in PEM files.
    pub fn start_tls(
        (cert, key): (&Path, &Path),
        rule: impl Fn(&HookRequest) -> Behaviour + Send + Sync + 'static,
    ) -> HookServer {
        let certs: Result<Vec<_>, _> =
            CertificateDer::pem_file_iter(cert).expect("a certificate").collect();
        let key = PrivateKeyDer::from_pem_file(key).expect("a key");
        let provider = Arc::new(crypto::aws_lc_rs::default_provider());
        let tls = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(certs.expect("certificates"), key)
            .expect("a certificate and its key");
        let addr = "127.0.0.1:0".parse().expect("an address");
        HookServer::run(addr, Some(Arc::new(tls)), Box::new(rule))
    }

    fn run(addr: SocketAddr, tls: Option<Arc<ServerConfig>>, rule: Rule) -> HookServer {
        let scheme = if tls.is_some() { "https" } else { "http" };
        let listener = TcpListener::bind(addr).expect("a port");
        let addr = listener.local_addr().expect("an address");
        let shared =
            Arc::new(Shared { requests: Mutex::default(), rule, over: AtomicBool::new(false) });
        let own = shared.clone();
        thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                if own.over.load(Ordering::Relaxed) {
                    return;
                }
                let (shared, tls) = (own.clone(), tls.clone());
                let pause = Some(Duration::from_millis(200));
                socket.set_read_timeout(pause).expect("timeout");
                thread::spawn(move || match tls {
                    None => serve(socket, &shared),
                    Some(tls) => {
                        let tls = ServerConnection::new(tls).expect("a connection");
                        serve(StreamOwned::new(tls, socket), &shared);
                    }
                });
            }
        });
        HookServer { addr, scheme, shared }
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// A URL of this server.
    pub fn url(&self, path: &str) -> String {
        format!("{}://{}{path}", self.scheme, self.addr)
    }

    /// The requests so far.
    pub fn requests(&self) -> Vec<HookRequest> {
        self.shared.requests.lock().expect("lock").clone()
    }

    /// Waits until a number of requests fit.
    pub fn wait_for(
        &self,
        count: usize,
        limit: Duration,
        fits: impl Fn(&HookRequest) -> bool,
    ) -> Vec<HookRequest> {
        let deadline = Instant::now() + limit;
        loop {
            let found: Vec<_> = self.requests().into_iter().filter(|r| fits(r)).collect();
            if found.len() >= count {
                return found;
            }
            if Instant::now() > deadline {
                let all: Vec<_> = self.requests().into_iter().map(|r| r.text).collect();
                panic!("{} of {count} hooks came; all there is: {all:#?}", found.len());
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for HookServer {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(self.addr);
    }
}

fn serve(mut socket: impl Read + Write, shared: &Shared) {
    let mut input = Vec::new();
    loop {
        let Some(request) = read_request(&mut socket, &mut input, shared) else { return };
        if shared.over.load(Ordering::Relaxed) {
            return;
        }
        let behaviour = (shared.rule)(&request);
        shared.requests.lock().expect("lock").push(request);
        if !answer(&mut socket, behaviour, shared) {
            return;
        }
    }
}

fn read_request(
    socket: &mut impl Read,
    input: &mut Vec<u8>,
    shared: &Shared,
) -> Option<HookRequest> {
    let mut buffer = [0; 4096];
    loop {
        if let Some(end) = input.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = String::from_utf8(input[..end].to_vec()).expect("a head of text");
            let mut lines = head.split("\r\n");
            let mut first = lines.next().expect("a request line").split(' ');
            let headers: Vec<(String, String)> = lines
                .filter_map(|line| line.split_once(": "))
                .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
                .collect();
            let length = headers.iter().find(|(name, _)| name == "content-length");
            let length: usize = length.map_or(0, |(_, n)| n.parse().expect("a number"));
            if input.len() >= end + 4 + length {
                let rest = input.split_off(end + 4 + length);
                let text = String::from_utf8(input.split_off(end + 4)).expect("a body of text");
                *input = rest;
                let body = serde_json::from_str(&text).unwrap_or(Value::Null);
                let mut word = || first.next().expect("a word").to_owned();
                let (method, path) = (word(), word());
                return Some(HookRequest { at: Instant::now(), method, path, headers, text, body });
            }
        }
        match socket.read(&mut buffer) {
            Ok(0) => return None,
            Ok(len) => input.extend_from_slice(&buffer[..len]),
            Err(why) if matches!(why.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                if shared.over.load(Ordering::Relaxed) {
                    return None;
                }
            }
            Err(_) => return None,
        }
    }
}

/// True when the connection goes on.
fn answer(socket: &mut (impl Read + Write), behaviour: Behaviour, shared: &Shared) -> bool {
    let over = || shared.over.load(Ordering::Relaxed);
    let head = |status: u16, length: usize, more: &str| {
        format!("HTTP/1.1 {status} Status\r\nContent-Length: {length}\r\n{more}\r\n")
    };
    match behaviour {
        Behaviour::Answer(status, body) => {
            let text = head(status, body.len(), "") + &body;
            socket.write_all(text.as_bytes()).is_ok()
        }
        Behaviour::After(pause, body) => {
            thread::sleep(pause);
            let text = head(200, body.len(), "") + &body;
            socket.write_all(text.as_bytes()).is_ok()
        }
        Behaviour::Hang => {
            while !over() && !matches!(socket.read(&mut [0; 1]), Ok(0)) {}
            false
        }
        Behaviour::Drip => {
            let text = head(200, 1, "") + "0";
            for byte in text.bytes() {
                if over() || socket.write_all(&[byte]).is_err() {
                    return false;
                }
                thread::sleep(Duration::from_secs(1));
            }
            true
        }
        Behaviour::Big(length) => {
            let _ = socket.write_all(head(200, length, "").as_bytes());
            let block = vec![b' '; 1 << 16];
            for _ in 0..length / block.len() {
                if socket.write_all(&block).is_err() {
                    return false;
                }
            }
            false
        }
        Behaviour::Redirect(to) => {
            let text = head(302, 0, &format!("Location: {to}\r\n"));
            socket.write_all(text.as_bytes()).is_ok()
        }
        Behaviour::Close => false,
    }
}
