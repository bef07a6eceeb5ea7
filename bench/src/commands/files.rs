//! Files of the size of segments: requests a second on one core, against nginx with sendfile and
//! one worker, which serves the same files.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::sleep;
use std::time::{Duration, Instant};

use clap::Args;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use serde_json::{Value, json};

use bench::process::{self, Cpu, Process, Rank, Scratch};
use bench::quantity::{median, range};
use bench::schedule::{Case, Protocol, Window};
use bench::server::{self, Error, Kind, Setup};

/// What is asked for, and for how long.
#[derive(Args, Debug)]
pub struct Options {
    /// Sizes of files, KiB.
    #[arg(long, value_delimiter = ',', default_value = "100,1024")]
    sizes: Vec<u64>,
    /// Connections that ask again and again.
    #[arg(long, default_value_t = 32)]
    connections: usize,
    /// Files that are asked for in turns.
    #[arg(long, default_value_t = 64)]
    files: usize,
    /// Rounds.
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// Measured seconds of each turn.
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// One short round: shows that everything works.
    #[arg(long)]
    quick: bool,
}

/// One turn of one server.
struct Turn {
    per_second: f64,
    cpu_percent: f64,
    cpu_us: f64,
    faults: u64,
}

/// Measures both in turns.
pub fn run(options: &Options) -> Result<Value, Error> {
    let head = super::head("files");
    let (rounds, seconds) = match options.quick {
        true => (1, 1.0),
        false => (options.rounds, options.seconds),
    };
    let scratch = Scratch::new().map_err(Error::during("a folder for files"))?;
    let site = scratch.file("site");
    fs::create_dir_all(&site).map_err(Error::during("a folder for files"))?;
    let mut cases = Vec::new();
    for &size in &options.sizes {
        for number in 0..options.files {
            let path = site.join(format!("{size}-{number}.ts"));
            let bytes = vec![number as u8; (size << 10) as usize];
            fs::write(path, bytes).map_err(Error::during("a file"))?;
        }
        let mut turns: [Vec<Turn>; 2] = [Vec::new(), Vec::new()];
        for round in 1..=rounds {
            for (index, name) in ["ringcast", "nginx"].into_iter().enumerate() {
                let served = start(name, &site, &scratch)?;
                let turn = measure(&served, size, options, seconds)?;
                eprintln!(
                    "round {round}  {size} KiB  {name:<8} {:.0} requests/s, {:.0} % of a core, \
                     {:.1} us each, {} faults",
                    turn.per_second, turn.cpu_percent, turn.cpu_us, turn.faults
                );
                turns[index].push(turn);
            }
        }
        let rates = |turns: &[Turn]| turns.iter().map(|t| t.per_second).collect::<Vec<f64>>();
        let costs = |turns: &[Turn]| turns.iter().map(|t| t.cpu_us).collect::<Vec<f64>>();
        let pairs = turns[0].iter().zip(&turns[1]);
        let ratios: Vec<f64> = pairs.map(|(own, other)| own.cpu_us / other.cpu_us).collect();
        println!(
            "{size} KiB: ringcast {:.0} requests/s, nginx {:.0}; CPU per request ringcast / nginx: \
             {:.2}",
            median(&rates(&turns[0])),
            median(&rates(&turns[1])),
            median(&ratios)
        );
        let of = |turns: &[Turn]| {
            let faults: u64 = turns.iter().map(|turn| turn.faults).sum();
            json!({
                "requests_per_second": {"median": median(&rates(turns)),
                                        "range": range(&rates(turns))},
                "cpu_us_per_request": {"median": median(&costs(turns)),
                                       "range": range(&costs(turns))},
                "cpu_percent": median(&turns.iter().map(|t| t.cpu_percent).collect::<Vec<_>>()),
                "faults": faults,
            })
        };
        cases.push(json!({"kib": size, "ringcast": of(&turns[0]), "nginx": of(&turns[1]),
            "cpu_ratio": {"median": median(&ratios), "range": range(&ratios)}}));
    }
    Ok(super::with(
        head,
        json!({"connections": options.connections, "files": options.files, "rounds": rounds,
               "seconds": seconds, "sizes": cases}),
    ))
}

/// A server with the files.
struct Served {
    addr: SocketAddr,
    pid: u32,
    /// Kept for their drop.
    _ringcast: Option<server::Running>,
    _nginx: Option<Process>,
}

fn start(name: &str, site: &Path, scratch: &Scratch) -> Result<Served, Error> {
    if name == "ringcast" {
        let window = Window::Adaptive;
        let case = Case { protocol: Protocol::Flv, ..Case::rtmp(0, 0.0, window) };
        let set = vec![format!("http_server.dir={:?}", site.display().to_string())];
        let setup = Setup { set, ..Setup::default() };
        let running = server::start(&Kind::Ringcast, &case, &setup, scratch)?;
        let addr = running.play_url.trim_start_matches("http://").split('/').next();
        let addr = addr.and_then(|addr| addr.parse().ok());
        let addr = addr.ok_or_else(|| Error::Tool("ringcast has no address".into()))?;
        if !process::wait_for(addr, Duration::from_secs(10)) {
            return Err(Error::NoService(name.into(), "no HTTP".into()));
        }
        return Ok(Served { addr, pid: running.pid, _ringcast: Some(running), _nginx: None });
    }
    let addr = process::free_address().map_err(Error::during("a free port"))?;
    let config = scratch.file("files.conf");
    let folder = scratch.file("");
    let (folder, site) = (folder.display(), site.display());
    let text = format!(
        "user root;\ndaemon off;\nworker_processes 1;\nworker_rlimit_nofile 65536;\n\
         error_log {folder}/files-error.log warn;\npid {folder}/files.pid;\n\
         events {{ worker_connections 4096; }}\n\
         http {{\n access_log off;\n sendfile on;\n tcp_nopush on;\n tcp_nodelay on;\n\
         \x20keepalive_requests 100000000;\n open_file_cache max=1000 inactive=20s;\n\
         \x20types {{ video/MP2T ts; }}\n\
         \x20server {{ listen {addr}; root {site}; }}\n}}\n"
    );
    fs::write(&config, text).map_err(Error::during("files.conf"))?;
    let args = ["-c".to_owned(), config.display().to_string()];
    let log = scratch.file("files-nginx.log");
    let nginx = Process::start("0", Rank::Server, Path::new("/usr/sbin/nginx"), &args, &log)
        .map_err(Error::during("nginx"))?;
    if !process::wait_for(addr, Duration::from_secs(10)) {
        return Err(Error::NoService(name.into(), server::tail(&log)));
    }
    let pid = server::worker_of(nginx.pid());
    Ok(Served { addr, pid, _ringcast: None, _nginx: Some(nginx) })
}

/// What clients count.
#[derive(Default)]
struct Seen {
    answers: AtomicU64,
    faults: AtomicU64,
    stop: AtomicBool,
}

fn measure(served: &Served, size: u64, options: &Options, seconds: f64) -> Result<Turn, Error> {
    let seen = Arc::new(Seen::default());
    let clients: Vec<_> = (0..options.connections)
        .map(|number| {
            let (seen, addr, files) = (seen.clone(), served.addr, options.files);
            std::thread::spawn(move || {
                // Beside the server, not in its way.
                let mut core = rustix::thread::CpuSet::new();
                core.set(1);
                let _ = rustix::thread::sched_setaffinity(None, &core);
                while !seen.stop.load(Relaxed) {
                    if client(addr, size, (number, files), &seen).is_err() {
                        seen.faults.fetch_add(1, Relaxed);
                        sleep(Duration::from_millis(10));
                    }
                }
            })
        })
        .collect();
    sleep(Duration::from_secs_f64(seconds / 4.0));
    let (before, count, at) = (Cpu::of(served.pid), seen.answers.load(Relaxed), Instant::now());
    sleep(Duration::from_secs_f64(seconds));
    let answers = (seen.answers.load(Relaxed) - count) as f64;
    let (span, used) = (at.elapsed().as_secs_f64(), Cpu::of(served.pid).since(&before).total);
    seen.stop.store(true, Relaxed);
    for client in clients {
        client.join().map_err(|_| Error::Tool("a client failed".into()))?;
    }
    if answers == 0.0 {
        return Err(Error::Tool(format!("{} answers nothing", served.addr)));
    }
    Ok(Turn {
        per_second: answers / span,
        cpu_percent: used / span * 100.0,
        cpu_us: used / answers * 1e6,
        faults: seen.faults.load(Relaxed),
    })
}

/// Asks for one file after the other on one connection. Bodies are counted, not copied.
fn client(
    addr: SocketAddr,
    size: u64,
    (first, files): (usize, usize),
    seen: &Seen,
) -> std::io::Result<()> {
    let stream = TcpStream::connect(addr)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let broken = || std::io::Error::from(std::io::ErrorKind::InvalidData);
    let mut number = first;
    let mut buffer = vec![0; 64 << 10];
    let mut head = Vec::new();
    while !seen.stop.load(Relaxed) {
        number += 1;
        let request = format!("GET /{size}-{}.ts HTTP/1.1\r\nHost: {addr}\r\n\r\n", number % files);
        send(&stream, request.as_bytes(), SendFlags::NOSIGNAL)?;
        head.clear();
        // The head, with what comes of the body behind it.
        let end = loop {
            let (got, _) = recv(&stream, &mut buffer[..4_096], RecvFlags::empty())?;
            if got == 0 {
                return Err(broken());
            }
            head.extend_from_slice(&buffer[..got]);
            if let Some(end) = head.windows(4).position(|four| four == b"\r\n\r\n") {
                break end + 4;
            }
        };
        if !head.starts_with(b"HTTP/1.1 200 ") {
            return Err(broken());
        }
        let mut left = (size << 10).checked_sub((head.len() - end) as u64).ok_or_else(broken)?;
        while left > 0 {
            let most = (buffer.len() as u64).min(left) as usize;
            // TRUNC: the kernel throws the bytes away and says how many there were.
            let (_, got) = recv(&stream, &mut buffer[..most], RecvFlags::TRUNC)?;
            if got == 0 {
                return Err(broken());
            }
            left -= got as u64;
        }
        seen.answers.fetch_add(1, Relaxed);
    }
    Ok(())
}
