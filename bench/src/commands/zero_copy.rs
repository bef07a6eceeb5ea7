//! CPU per player with zero-copy and without, on a route that does not copy.
//!
//! Two network namespaces are joined by a veth pair: the server sits in one, the players in the
//! other. The players connect and ask for the stream with their own stack; then a BPF program on
//! their interface takes all payload and acknowledges it (`sink/sink.c`), and the publisher
//! starts. From then on the server pays for sending only, as with a network card. Whether it uses
//! zero-copy is its own choice (`zero_copy = "auto"`).

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::{Value, json};

use bench::network::{CONGESTION_CONTROL, ip};
use bench::process::{Cpu, Scratch};
use bench::quantity::{median, range};
use bench::schedule::{Case, Window};
use bench::server::{self, Error, Kind, Setup};
use bench::tester::{self, Place};

/// What is measured.
#[derive(Args, Debug)]
pub struct Options {
    /// Number of players.
    #[arg(long, default_value_t = 300)]
    players: u32,
    /// Video bitrate, kbit/s.
    #[arg(long, default_value_t = 4_000.0)]
    kbps: f64,
    /// Windows, ms.
    #[arg(long, value_delimiter = ',', default_values_t = [100, 350])]
    windows: Vec<u32>,
    /// Rounds.
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// Measured seconds of each turn.
    #[arg(long, default_value_t = 6.0)]
    seconds: f64,
}

const SERVER: &str = "ringcast-bench-a";
const PLAYERS: &str = "ringcast-bench-b";
/// Long enough for the server to try both ways and to decide.
const DECIDE: Duration = Duration::from_secs(9);

/// Measures `zero_copy` off and auto in turns.
pub fn run(options: &Options) -> Result<Value, Error> {
    let head = super::head("zero-copy");
    let scratch = Scratch::new().map_err(Error::during("a folder for logs"))?;
    let object = compile(&scratch)?;
    let mut rows = Vec::new();
    for &window in &options.windows {
        let mut runs = [Vec::new(), Vec::new()];
        for round in 1..=options.rounds {
            for (index, policy) in ["off", "auto"].iter().enumerate() {
                let used = turn(options, window, policy, &object, &scratch)?;
                let each = used / f64::from(options.players) * 1e6;
                eprintln!(
                    "round {round}  window {window} ms  zero_copy={policy:<4}  {each:.1} us/player \
                     {:.1} %",
                    used * 100.0
                );
                runs[index].push(each);
            }
        }
        let ratios: Vec<f64> = runs[1].iter().zip(&runs[0]).map(|(auto, off)| auto / off).collect();
        println!("window {window} ms: with zero-copy / without: {:.2}", median(&ratios));
        rows.push(json!({"window_ms": window, "off_us": runs[0], "auto_us": runs[1],
            "ratio": {"median": median(&ratios), "range": range(&ratios)}}));
    }
    Ok(super::with(head, json!({"players": options.players, "kbps": options.kbps, "rows": rows})))
}

/// CPU of the server, seconds a second.
fn turn(
    options: &Options,
    window: u32,
    policy: &str,
    object: &str,
    scratch: &Scratch,
) -> Result<f64, Error> {
    let route = Route::new()?;
    let case = Case::rtmp(options.players, options.kbps, Window::Fixed(window));
    let setup = Setup {
        set: vec![format!("zero_copy=\"{policy}\""), "log.level=\"info\"".into()],
        address: "10.79.0.1".parse().ok(),
        inside: Some(SERVER.into()),
        ..Setup::default()
    };
    let server = server::start(&Kind::Ringcast, &case, &setup, scratch)?;
    let there = Place { inside: Some(PLAYERS.into()), ..Place::default() };
    let here = Place { inside: Some(SERVER.into()), ..Place::default() };
    let players = (options.players, 500, "none");
    let _players = tester::play("play", &there, &server.play_url, players, 60.0, scratch)?;
    sleep(Duration::from_secs_f64(f64::from(options.players) / 500.0 + 1.5));
    route.take_media(object)?;
    let _publisher = tester::publish(&here, &server.publish_url, 1, &case, scratch)?;
    sleep(DECIDE);
    let (before, sent, at) = (Cpu::of(server.pid), route.bytes(), Instant::now());
    sleep(Duration::from_secs_f64(options.seconds));
    let span = at.elapsed().as_secs_f64();
    let used = Cpu::of(server.pid).since(&before).total / span;
    let mbps = (route.bytes() - sent) as f64 * 8.0 / 1e6 / span;
    let expected = options.kbps * f64::from(options.players) / 1e3;
    if mbps < 0.9 * expected {
        return Err(Error::Tool(format!("{mbps:.0} Mbit/s were sent instead of {expected:.0}")));
    }
    let log = std::fs::read_to_string(scratch.file("ringcast.log")).unwrap_or_default();
    for line in log.lines().filter(|l| l.contains("zero-copy")) {
        eprintln!("  {}", line.split("INFO").last().unwrap_or(line).trim());
    }
    Ok(used)
}

/// Both namespaces and what joins them; gone when dropped.
struct Route;

impl Route {
    fn new() -> Result<Route, Error> {
        drop(Route);
        let inside = |namespace: &'static str, args: &str| ip(&format!("-n {namespace} {args}"));
        ip(&format!("netns add {SERVER}"))?;
        ip(&format!("netns add {PLAYERS}"))?;
        ip(&format!("link add rc0 netns {SERVER} type veth peer name rc1 netns {PLAYERS}"))?;
        for (namespace, device, address) in
            [(SERVER, "rc0", "10.79.0.1/16"), (PLAYERS, "rc1", "10.79.0.2/16")]
        {
            inside(namespace, "link set lo up")?;
            inside(namespace, &format!("addr add {address} dev {device}"))?;
            inside(namespace, &format!("link set {device} up"))?;
            let own = address.split('/').next().unwrap_or_default();
            inside(
                namespace,
                &format!(
                    "route change 10.79.0.0/16 dev {device} proto kernel scope link src {own} \
                     congctl {CONGESTION_CONTROL}"
                ),
            )?;
            // Acknowledgements from the sink carry no options.
            ip(&format!(
                "netns exec {namespace} sysctl -qw net.ipv4.tcp_timestamps=0 net.ipv4.tcp_sack=0 \
                 net.ipv4.tcp_ecn=0 net.ipv4.tcp_slow_start_after_idle=0 \
                 net.ipv4.tcp_no_metrics_save=1"
            ))?;
        }
        Ok(Route)
    }

    /// From now on the BPF program takes what the server sends.
    fn take_media(&self, object: &str) -> Result<(), Error> {
        ip(&format!("netns exec {PLAYERS} tc qdisc add dev rc1 clsact"))?;
        let attach = format!("tc filter add dev rc1 ingress bpf da obj {object} sec tc");
        ip(&format!("netns exec {PLAYERS} {attach}"))
    }

    /// Bytes the server's side has sent so far.
    fn bytes(&self) -> u64 {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", SERVER, "cat", "/sys/class/net/rc0/statistics/tx_bytes"]);
        let output = command.output().map(|o| o.stdout).unwrap_or_default();
        String::from_utf8_lossy(&output).trim().parse().unwrap_or(0)
    }
}

impl Drop for Route {
    fn drop(&mut self) {
        for namespace in [SERVER, PLAYERS] {
            let mut command = Command::new("ip");
            let _ = command.args(["netns", "del", namespace]).stderr(Stdio::null()).status();
        }
    }
}

/// Installs clang with apt where it is missing.
pub fn install_clang() {
    if Command::new("clang").arg("--version").stdout(Stdio::null()).status().is_ok() {
        return;
    }
    eprintln!("installing clang");
    let install = ["install", "-y", "-qq", "--no-install-recommends", "clang"];
    let _ = Command::new("apt-get").args(["update", "-qq"]).status();
    let _ = Command::new("apt-get").args(install).stdout(Stdio::null()).status();
}

/// Compiles the sink for BPF.
fn compile(scratch: &Scratch) -> Result<String, Error> {
    install_clang();
    let source: PathBuf = [env!("CARGO_MANIFEST_DIR"), "sink", "sink.c"].iter().collect();
    let object = scratch.file("sink.o");
    let include = format!("-I/usr/include/{}-linux-gnu", std::env::consts::ARCH);
    let status = Command::new("clang")
        .args(["-O2", "-g", "-target", "bpf", &include, "-c"])
        .arg(&source)
        .arg("-o")
        .arg(&object)
        .status()
        .map_err(Error::during("clang"))?;
    match status.success() {
        true => Ok(object.display().to_string()),
        false => Err(Error::Tool("clang cannot compile the sink".into())),
    }
}
