//! Asks an HTTP API again and again at a steady rate, as monitoring and consoles do.
//!
//! Cheap on purpose, so that the server is the bottleneck: one thread, connections that do not
//! block, one request at a time on each. A request is timed from when it was due, so a server
//! that stands still for a while is seen to.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::thread;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;

use crate::report::Quantiles;

/// What to ask, and how often.
#[derive(Clone, Debug)]
pub struct AskPlan {
    /// `http://host:port/path`, in turn. All are asked of the first one's host.
    pub urls: Vec<String>,
    /// Requests per second.
    pub rate: f64,
    /// Connections that are kept, or with `close` the most at a time.
    pub connections: usize,
    /// Length, seconds.
    pub seconds: f64,
    /// A connection for each request, as a client of SRS has to.
    pub close: bool,
}

/// How it went.
#[derive(Clone, Debug, Serialize)]
pub struct AskReport {
    /// 1; rises when a field changes its meaning or goes away.
    pub schema: u32,
    /// Length, seconds.
    pub seconds: f64,
    /// Requests per second that were wanted.
    pub rate: f64,
    /// Whether each request had a connection of its own.
    pub close: bool,
    /// Requests sent.
    pub asked: u64,
    /// Answers received.
    pub answered: u64,
    /// Answers per second.
    pub answered_per_second: f64,
    /// Answers by status.
    pub statuses: BTreeMap<u16, u64>,
    /// Connections that broke, by what the system said.
    pub errors: BTreeMap<String, u64>,
    /// Bytes of all answers.
    pub bytes: u64,
    /// From when a request was due to its answer, ms.
    pub latency_ms: Quantiles,
    /// CPU of the asking thread, percent of one core.
    pub cpu_percent: f64,
}

/// Why nothing could be asked.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// A URL is not one of HTTP.
    #[error("{0} is no http:// URL with a host")]
    Url(String),
    /// The host has no address.
    #[error("{0}: {1}")]
    Host(String, std::io::Error),
}

struct Line {
    socket: Option<TcpStream>,
    /// When the request on the way was due.
    due: Option<Instant>,
    answer: Vec<u8>,
}

/// Asks until the time is over, then waits a little for what is on its way.
///
/// # Errors
/// The URLs cannot be used. What goes wrong later is in the report.
pub fn ask(plan: &AskPlan) -> Result<AskReport, AskError> {
    let (addr, requests) = requests(plan)?;
    let mut asker = Asker {
        addr,
        requests,
        close: plan.close,
        lines: Vec::new(),
        latency: Histogram::new_with_bounds(1, 60_000_000, 3).expect("valid bounds"),
        report: AskReport {
            schema: 1,
            seconds: plan.seconds,
            rate: plan.rate,
            close: plan.close,
            asked: 0,
            answered: 0,
            answered_per_second: 0.0,
            statuses: BTreeMap::new(),
            errors: BTreeMap::new(),
            bytes: 0,
            latency_ms: Quantiles::default(),
            cpu_percent: 0.0,
        },
    };
    asker.lines.resize_with(plan.connections.max(1), || Line {
        socket: None,
        due: None,
        answer: Vec::new(),
    });
    let cpu_before = cpu();
    let began = Instant::now();
    let end = began + Duration::from_secs_f64(plan.seconds);
    let mut next_tick = began;
    while next_tick < end {
        let now = Instant::now();
        let wanted = ((now - began).as_secs_f64() * plan.rate) as u64;
        asker.send(wanted, began, plan.rate);
        asker.receive();
        next_tick = (next_tick + TICK).max(now);
        thread::sleep(next_tick.saturating_duration_since(Instant::now()));
    }
    let elapsed = began.elapsed().as_secs_f64();
    let answered = asker.report.answered;
    let patience = Instant::now() + PATIENCE;
    while asker.lines.iter().any(|line| line.due.is_some()) && Instant::now() < patience {
        asker.receive();
        thread::sleep(TICK);
    }
    let mut report = asker.report;
    report.seconds = elapsed;
    report.answered_per_second = answered as f64 / elapsed;
    report.latency_ms = Quantiles::of(&asker.latency, 1000.0);
    report.cpu_percent = (cpu() - cpu_before).as_secs_f64() * 100.0 / began.elapsed().as_secs_f64();
    Ok(report)
}

fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

fn requests(plan: &AskPlan) -> Result<(SocketAddr, Vec<Vec<u8>>), AskError> {
    let mut addr = None;
    let mut requests = Vec::new();
    for url in &plan.urls {
        let wrong = || AskError::Url(url.clone());
        let rest = url.strip_prefix("http://").ok_or_else(wrong)?;
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        if addr.is_none() {
            let with_port = if host.contains(':') { host.to_owned() } else { format!("{host}:80") };
            let mut found =
                with_port.to_socket_addrs().map_err(|why| AskError::Host(host.to_owned(), why))?;
            addr = found.next();
        }
        let last = if plan.close { "Connection: close\r\n" } else { "" };
        let text = format!("GET /{path} HTTP/1.1\r\nHost: {host}\r\n{last}\r\n");
        requests.push(text.into_bytes());
    }
    let addr = addr.ok_or_else(|| AskError::Url(String::new()))?;
    Ok((addr, requests))
}

struct Asker {
    addr: SocketAddr,
    requests: Vec<Vec<u8>>,
    close: bool,
    lines: Vec<Line>,
    latency: Histogram<u64>,
    report: AskReport,
}

impl Asker {
    /// Sends what is due, as far as there are idle connections.
    fn send(&mut self, wanted: u64, began: Instant, rate: f64) {
        let report = &mut self.report;
        for line in self.lines.iter_mut().filter(|line| line.due.is_none()) {
            if report.asked >= wanted {
                break;
            }
            let request = &self.requests[report.asked as usize % self.requests.len()];
            let sent = line.connected(self.addr).and_then(|socket| socket.write_all(request));
            line.due = Some(began + Duration::from_secs_f64(report.asked as f64 / rate));
            report.asked += 1;
            if let Err(why) = sent {
                line.broken(report, why.kind());
            }
        }
    }

    fn receive(&mut self) {
        let mut buffer = [0; 16 << 10];
        for line in self.lines.iter_mut().filter(|line| line.due.is_some()) {
            let Some(socket) = &mut line.socket else { continue };
            match socket.read(&mut buffer) {
                Ok(0) => line.broken(&mut self.report, ErrorKind::UnexpectedEof),
                Ok(len) => {
                    self.report.bytes += len as u64;
                    line.answer.extend_from_slice(&buffer[..len]);
                }
                Err(why) if why.kind() == ErrorKind::WouldBlock => continue,
                Err(why) => line.broken(&mut self.report, why.kind()),
            }
            let Some(status) = whole(&line.answer) else { continue };
            let Some(due) = line.due.take() else { continue };
            self.latency.saturating_record(due.elapsed().as_micros() as u64);
            self.report.answered += 1;
            *self.report.statuses.entry(status).or_default() += 1;
            line.answer.clear();
            if self.close {
                line.socket = None;
            }
        }
    }
}

impl Line {
    fn connected(&mut self, addr: SocketAddr) -> std::io::Result<&mut TcpStream> {
        if self.socket.is_none() {
            let socket = TcpStream::connect(addr)?;
            socket.set_nodelay(true)?;
            socket.set_nonblocking(true)?;
            self.socket = Some(socket);
        }
        self.socket.as_mut().ok_or_else(|| ErrorKind::NotConnected.into())
    }

    fn broken(&mut self, report: &mut AskReport, why: ErrorKind) {
        *report.errors.entry(why.to_string()).or_default() += 1;
        *self = Line { socket: None, due: None, answer: Vec::new() };
    }
}

/// The status of an answer that is there as a whole.
fn whole(answer: &[u8]) -> Option<u16> {
    let head = memchr::memmem::find(answer, b"\r\n\r\n")?;
    let text = std::str::from_utf8(&answer[..head]).ok()?;
    let mut lines = text.split("\r\n");
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let mut fields = lines.filter_map(|line| line.split_once(':'));
    let length = fields.find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    let length = length.and_then(|(_, value)| value.trim().parse().ok()).unwrap_or(0);
    (answer.len() >= head + 4 + length).then_some(status)
}

/// Time between two looks.
const TICK: Duration = Duration::from_millis(1);
/// Time for the last answers.
const PATIENCE: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn answers_are_whole_with_their_body() {
        let text = b"HTTP/1.1 302 Found\r\nA: b\r\nContent-Length: 3\r\n\r\nabc";
        assert_eq!(whole(text), Some(302));
        assert_eq!(whole(&text[..text.len() - 1]), None);
        assert_eq!(whole(b"HTTP/1.1 200 OK\r\n"), None);
        assert_eq!(whole(b"HTTP/1.1 204 No\r\n\r\n"), Some(204));
    }

    #[test]
    fn a_server_is_asked_at_the_rate() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        thread::spawn(move || {
            for socket in listener.incoming() {
                let mut socket = socket.unwrap();
                thread::spawn(move || {
                    let mut buffer = [0; 4096];
                    while socket.read(&mut buffer).is_ok_and(|len| len > 0) {
                        let _ = socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
                    }
                });
            }
        });
        for close in [false, true] {
            let plan = AskPlan {
                urls: vec![format!("http://{addr}/a"), format!("http://{addr}/b?c")],
                rate: 500.0,
                connections: 4,
                seconds: 0.5,
                close,
            };
            let report = ask(&plan).unwrap();
            assert!((200..=250).contains(&report.asked), "{report:?}");
            assert_eq!(report.statuses, BTreeMap::from([(200, report.asked)]));
            assert!(report.errors.is_empty() && report.latency_ms.n == report.asked);
        }
        let urls = vec!["https://x/".to_owned()];
        let plan = AskPlan { urls, rate: 1.0, connections: 1, seconds: 0.1, close: false };
        assert!(matches!(ask(&plan), Err(AskError::Url(_))));
    }
}
