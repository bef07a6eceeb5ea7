//! A route on which zero-copy is real, on one machine.
//!
//! Two network namespaces are joined by a veth pair: the server sits in one, the players in the
//! other. The players connect and ask for the stream with their own stack; then a BPF program on
//! their interface takes all payload, and from then on the server pays for sending only, as with a
//! network card.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::network::{CONGESTION_CONTROL, ip};
use crate::process::{Process, Rank, Scratch};
use crate::server::Error;

/// Namespace of the server.
pub const SERVER: &str = "ringcast-bench-a";
/// Namespace of the players.
pub const PLAYERS: &str = "ringcast-bench-b";
/// The server's address.
pub const ADDRESS: &str = "10.79.0.1";

/// What takes the media.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Sink {
    /// Drops it untouched; a program on the players' core acknowledges (`sink/drop.c`, `acker.c`).
    Drop,
    /// Turns each segment into its acknowledgement, which makes the kernel copy the payload in the
    /// sender's time (`sink/reflect.c`).
    Reflect,
}

impl Sink {
    /// As on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Sink::Drop => "drop",
            Sink::Reflect => "reflect",
        }
    }
}

/// A sink's programs, compiled.
#[derive(Debug)]
pub struct Programs {
    object: PathBuf,
    acker: Option<PathBuf>,
}

impl Programs {
    /// Compiles a sink for BPF with clang, and the program that acknowledges for it with cc.
    ///
    /// # Errors
    /// A compiler is missing or refuses.
    pub fn compile(sink: Sink, scratch: &Scratch) -> Result<Programs, Error> {
        let source =
            |name: &str| -> PathBuf { [env!("CARGO_MANIFEST_DIR"), "sink", name].iter().collect() };
        let object = scratch.file("sink.o");
        let include = format!("-I/usr/include/{}-linux-gnu", std::env::consts::ARCH);
        let bpf = ["-O2", "-g", "-target", "bpf", &include, "-c"];
        build("clang", &bpf, &source(&format!("{}.c", sink.name())), &object)?;
        let acker = (sink == Sink::Drop).then(|| scratch.file("acker"));
        if let Some(acker) = &acker {
            build("cc", &["-O2"], &source("acker.c"), acker)?;
        }
        Ok(Programs { object, acker })
    }
}

fn build(compiler: &str, args: &[&str], source: &Path, output: &Path) -> Result<(), Error> {
    let mut command = Command::new(compiler);
    command.args(args).arg(source).arg("-o").arg(output);
    match command.status().map_err(Error::during(compiler))?.success() {
        true => Ok(()),
        false => Err(Error::Tool(format!("{compiler} cannot compile {}", source.display()))),
    }
}

/// Installs the compilers with apt where they are missing.
pub fn install_compilers() {
    let missing = |program: &str| {
        Command::new(program).arg("--version").stdout(Stdio::null()).status().is_err()
    };
    if !missing("clang") && !missing("cc") {
        return;
    }
    eprintln!("installing clang and gcc");
    let install = ["install", "-y", "-qq", "--no-install-recommends", "clang", "gcc", "libc6-dev"];
    let _ = Command::new("apt-get").args(["update", "-qq"]).status();
    let _ = Command::new("apt-get").args(install).stdout(Stdio::null()).status();
}

/// Both namespaces and what joins them; gone when dropped.
#[derive(Debug)]
pub struct Route {
    acker: Option<Process>,
}

impl Route {
    /// Sets both up, without a sink.
    ///
    /// # Errors
    /// `ip` is missing or refuses.
    pub fn new() -> Result<Route, Error> {
        let route = Route { acker: None };
        remove();
        let inside = |namespace: &'static str, args: &str| ip(&format!("-n {namespace} {args}"));
        ip(&format!("netns add {SERVER}"))?;
        ip(&format!("netns add {PLAYERS}"))?;
        ip(&format!("link add rc0 netns {SERVER} type veth peer name rc1 netns {PLAYERS}"))?;
        for (namespace, device, own) in [(SERVER, "rc0", ADDRESS), (PLAYERS, "rc1", "10.79.0.2")] {
            inside(namespace, "link set lo up")?;
            inside(namespace, &format!("addr add {own}/16 dev {device}"))?;
            inside(namespace, &format!("link set {device} up"))?;
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
        Ok(route)
    }

    /// From now on the sink takes what the server sends.
    ///
    /// # Errors
    /// `tc` refuses the program, or the one that acknowledges cannot be started.
    pub fn take_media(&mut self, programs: &Programs, scratch: &Scratch) -> Result<(), Error> {
        let object = programs.object.display();
        ip(&format!("netns exec {PLAYERS} tc qdisc add dev rc1 clsact"))?;
        let attach = format!("tc filter add dev rc1 ingress bpf da obj {object} sec tc");
        ip(&format!("netns exec {PLAYERS} {attach}"))?;
        if let Some(acker) = &programs.acker {
            let args = ["netns", "exec", PLAYERS, &acker.display().to_string(), "rc1"];
            let args = args.map(String::from);
            let log = scratch.file("acker.log");
            let started = Process::start("1", Rank::Publisher, Path::new("ip"), &args, &log);
            self.acker = Some(started.map_err(Error::during("the acker"))?);
        }
        Ok(())
    }

    /// Bytes the server's side has sent so far.
    pub fn bytes(&self) -> u64 {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", SERVER, "cat", "/sys/class/net/rc0/statistics/tx_bytes"]);
        let output = command.output().map(|o| o.stdout).unwrap_or_default();
        String::from_utf8_lossy(&output).trim().parse().unwrap_or(0)
    }
}

impl Drop for Route {
    fn drop(&mut self) {
        self.acker = None;
        remove();
    }
}

fn remove() {
    for namespace in [SERVER, PLAYERS] {
        let mut command = Command::new("ip");
        let _ = command.args(["netns", "del", namespace]).stderr(Stdio::null()).status();
    }
}
