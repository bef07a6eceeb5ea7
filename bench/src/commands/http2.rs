//! Held playlists over HTTP/2: through nginx in front, set up as the configuration in `conf/` says,
//! against the server itself over HTTP/1.1.
//!
//! `h2load` (Debian: nghttp2-client) asks for one playlist after the other that has the part coming
//! next. Everybody asks for the same, so the earliest answer says when the part was there.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use clap::Args;
use ringcast::proto::hls::check::Playlist;
use serde_json::{Value, json};

use bench::process::{self, Cpu, Process, Rank, Scratch};
use bench::quantity::median;
use bench::server::{Error, tail};
use bench::tester::Place;
use bench::viewers::{self, Cut};

/// Who asks.
#[derive(Args, Debug)]
pub struct Options {
    /// A few clients for a few seconds: that it runs, not what it says.
    #[arg(long)]
    quick: bool,
    /// Clients, each with a connection.
    #[arg(long, default_value_t = 500)]
    clients: u32,
    /// Seconds each way.
    #[arg(long, default_value_t = 10)]
    seconds: u32,
    /// nginx's configuration.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/../conf/nginx-http2.conf"))]
    conf: std::path::PathBuf,
}

/// Parts in a second, and so in a segment.
const PARTS: u32 = 5;
/// Clients beside those measured that tell when a part was there.
const WITNESSES: u32 = 3;

/// Installs h2load with apt where it is missing.
///
/// # Errors
/// apt cannot do that.
pub fn install_h2load() -> Result<(), Error> {
    let found = Command::new("h2load").arg("--version").stdout(Stdio::null()).status();
    if found.is_ok_and(|status| status.success()) {
        return Ok(());
    }
    eprintln!("installing nghttp2-client");
    let status = Command::new("apt-get")
        .args(["install", "-y", "-qq", "--no-install-recommends", "nghttp2-client"])
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdout(Stdio::null())
        .status()
        .map_err(Error::during("apt-get"))?;
    match status.success() {
        true => Ok(()),
        false => Err(Error::Tool("apt-get cannot install nghttp2-client".into())),
    }
}

/// Asks both ways.
pub fn run(options: &Options) -> Result<Value, Error> {
    let head = super::head("http2");
    let scratch = Scratch::new().map_err(Error::during("a folder for logs"))?;
    let (clients, seconds) = if options.quick {
        (options.clients.min(20), 3)
    } else {
        (options.clients, options.seconds)
    };
    let set = [
        "vhost.hls.hls_use_fmp4=true",
        "vhost.hls.hls_fragment=1",
        "vhost.hls.hls_window=12",
        "vhost.hls.hls_part=0.2",
        // Everybody asks for the same address.
        "vhost.hls.hls_ctx=false",
    ];
    let set = set.map(str::to_owned);
    let cut = viewers::cut(&set, (600.0, 1.0), &Place::default(), &scratch)?;
    let authority = cut.playlist.split('/').nth(2).unwrap_or_default().to_owned();
    let (proxy, https) = start_proxy(options, &authority, &scratch)?;
    sleep(Duration::from_secs(if options.quick { 4 } else { 8 }));
    let ways = [("direct", "http/1.1", &authority, false), ("nginx", "h2", &https, true)];
    let mut found = serde_json::Map::new();
    for (name, protocol, at, proxied) in ways {
        let mut pids = vec![cut.server.pid];
        if proxied {
            pids.extend(process::children(proxy.pid()));
        }
        let before: Vec<Cpu> = pids.iter().map(|pid| Cpu::of(*pid)).collect();
        let scheme = if proxied { "https" } else { "http" };
        let list = addresses(&cut, &authority, &format!("{scheme}://{at}"), seconds)?;
        let asks = ask(name, &list, clients, seconds, !proxied, &authority, &scratch)?;
        let used: Vec<f64> =
            pids.iter().zip(&before).map(|(pid, was)| Cpu::of(*pid).since(was).total).collect();
        let count = asks.late_ms.len() as f64;
        let at = |quantile: f64| asks.late_ms[((count - 1.0) * quantile) as usize];
        let (server_us, proxy_us) =
            (used[0] * 1e6 / count, used[1..].iter().fold(0.0, |sum, cpu| sum + cpu) * 1e6 / count);
        println!(
            "{name:<7} {protocol:<9} {clients} clients, {count} held playlists, {} failed: after \
             the first answer p50 {:.1}, p99 {:.1}, most {:.1} ms; CPU a request: server \
             {server_us:.0} us, proxy {proxy_us:.0} us",
            asks.failed,
            at(0.5),
            at(0.99),
            at(1.0)
        );
        let row = json!({
            "protocol": protocol,
            "answers": count,
            "failed": asks.failed,
            "after_first_ms": {"p50": at(0.5), "p99": at(0.99), "max": at(1.0)},
            "held_ms": median(&asks.held_ms),
            "server_us_per_request": server_us,
            "proxy_us_per_request": proxy_us,
        });
        found.insert(name.to_owned(), row);
    }
    Ok(super::with(head, json!({"clients": clients, "seconds": seconds, "ways": found})))
}

/// nginx with the committed configuration, and a certificate of its own. Its address, too.
fn start_proxy(
    options: &Options,
    authority: &str,
    scratch: &Scratch,
) -> Result<(Process, String), Error> {
    let addr = process::free_address().map_err(Error::during("a free port"))?;
    let (cert, key) = (scratch.file("cert.pem"), scratch.file("key.pem"));
    let status = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=bench"])
        .args(["-keyout".as_ref(), key.as_os_str(), "-out".as_ref(), cert.as_os_str()])
        .stderr(Stdio::null())
        .status();
    if !status.map_err(Error::during("openssl"))?.success() {
        return Err(Error::Tool("openssl makes no certificate".into()));
    }
    let text = fs::read_to_string(&options.conf).map_err(Error::during("nginx-http2.conf"))?;
    let text = text
        .replace("127.0.0.1:8080", authority)
        .replace("listen 443 ", &format!("listen {addr} "))
        .replace("/etc/ringcast/cert.pem", &cert.display().to_string())
        .replace("/etc/ringcast/key.pem", &key.display().to_string());
    let config = scratch.file("nginx-http2.conf");
    fs::write(&config, text).map_err(Error::during("nginx-http2.conf"))?;
    let own = format!(
        "user root; daemon off; pid {}; error_log stderr warn;",
        scratch.file("nginx-http2.pid").display()
    );
    let args = ["-c".into(), config.display().to_string(), "-g".into(), own];
    let output = scratch.file("nginx-http2.log");
    let nginx = Path::new("/usr/sbin/nginx");
    let mut process =
        Process::start("0", Rank::Server, nginx, &args, &output).map_err(Error::during("nginx"))?;
    if !process::wait_for(addr, Duration::from_secs(10)) || !process.runs() {
        return Err(Error::NoService("nginx".into(), tail(&output)));
    }
    Ok((process, addr.to_string()))
}

/// The addresses of playlists that have each of the parts to come, from the next segment on.
fn addresses(cut: &Cut, authority: &str, base: &str, seconds: u32) -> Result<Vec<String>, Error> {
    let path = cut.playlist.split_once(authority).map_or("", |(_, path)| path);
    let ask = || -> std::io::Result<String> {
        let mut socket = TcpStream::connect(authority)?;
        socket.set_read_timeout(Some(Duration::from_secs(10)))?;
        write!(socket, "GET {path} HTTP/1.0\r\nHost: x\r\n\r\n")?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer)?;
        Ok(answer)
    };
    let answer = ask().map_err(Error::during("the playlist"))?;
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    let list = Playlist::parse(body).map_err(|why| Error::Tool(format!("the playlist: {why}")))?;
    let first = list.open.number + 1;
    let each = |n: u32| {
        let (number, part) = (first + u64::from(n / PARTS), n % PARTS);
        format!("{base}{path}?_HLS_msn={number}&_HLS_part={part}")
    };
    Ok((0..seconds * PARTS).map(each).collect())
}

/// What clients got.
struct Asks {
    /// Answers after the earliest for the same part, sorted, ms.
    late_ms: Vec<f64>,
    /// How long they were held, ms.
    held_ms: Vec<f64>,
    failed: u64,
}

fn ask(
    name: &str,
    list: &[String],
    clients: u32,
    seconds: u32,
    plain: bool,
    authority: &str,
    scratch: &Scratch,
) -> Result<Asks, Error> {
    let base = list.first().and_then(|uri| uri.split("/live/").next()).unwrap_or_default();
    let direct: Vec<String> =
        list.iter().map(|uri| uri.replacen(base, &format!("http://{authority}"), 1)).collect();
    let run = |name: &str, list: &[String], clients: u32, plain: bool| {
        let file = |suffix: &str| scratch.file(&format!("h2load-{name}.{suffix}"));
        fs::write(file("txt"), list.join("\n") + "\n").map_err(Error::during("addresses"))?;
        let mut args = vec![
            format!("--clients={clients}"),
            "--max-concurrent-streams=1".into(),
            format!("--requests={}", clients as usize * list.len()),
            format!("--input-file={}", file("txt").display()),
            format!("--log-file={}", file("log").display()),
        ];
        args.extend(plain.then(|| "--h1".to_owned()));
        let program = Path::new("/usr/bin/h2load");
        let process = Process::start("1", Rank::Players, program, &args, &file("out"))
            .map_err(Error::during("h2load"))?;
        Ok::<_, Error>((process, file("log"), file("out")))
    };
    let (mut witness, witness_log, _) = run(&format!("{name}-witness"), &direct, WITNESSES, true)?;
    let (mut crowd, log, out) = run(name, list, clients, plain)?;
    let limit = Duration::from_secs(u64::from(seconds) + 30);
    let ended = crowd.wait(limit).map_err(Error::during("h2load"))?;
    witness.wait(limit).map_err(Error::during("h2load"))?;
    let (seen, failed) = read(&log);
    if !ended || seen.is_empty() {
        return Err(Error::Tool(format!("h2load: {}", tail(&out))));
    }
    let (witnessed, _) = read(&witness_log);
    let mut ends: Vec<f64> = witnessed.iter().chain(&seen).map(|(end, _)| *end).collect();
    ends.sort_by(f64::total_cmp);
    // Parts are further apart than the answers for one of them.
    let apart_ms = 1_000.0 / f64::from(PARTS) / 2.0;
    let mut firsts = vec![ends[0]];
    for end in ends {
        if end - firsts[firsts.len() - 1] > apart_ms {
            firsts.push(end);
        }
    }
    let mut late_ms: Vec<f64> = seen
        .iter()
        .map(|(end, _)| end - firsts[firsts.partition_point(|first| first <= end).max(1) - 1])
        .collect();
    late_ms.sort_by(f64::total_cmp);
    Ok(Asks { late_ms, held_ms: seen.iter().map(|(_, held)| *held).collect(), failed })
}

/// End and duration of every answer in a log of h2load, ms, and how many were no success. A line is
/// the start in microseconds, the status, and the duration in microseconds.
fn read(log: &Path) -> (Vec<(f64, f64)>, u64) {
    let text = fs::read_to_string(log).unwrap_or_default();
    let (mut seen, mut failed) = (Vec::new(), 0);
    for line in text.lines() {
        let mut fields = line.split('\t').map(|field| field.trim().parse::<f64>().unwrap_or(0.0));
        let mut next = || fields.next().unwrap_or(0.0);
        let (start, status, took) = (next(), next(), next());
        match status as u32 {
            200 => seen.push(((start + took) / 1e3, took / 1e3)),
            _ => failed += 1,
        }
    }
    (seen, failed)
}
