//! The servers under comparison: how each is started, and what it can be asked.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::process::{self, Process, Rank, Scratch};
use crate::schedule::{Case, Protocol, Window};

/// Which server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The floor program: makes the stream itself.
    Floor,
    /// This project's server.
    Ringcast,
    /// nginx with the rtmp module, one worker.
    Nginx,
    /// Any other server that runs already.
    Peer {
        /// What it is called in the tables.
        name: String,
        /// Stream URL; publishers and RTMP players use it.
        url: String,
        /// Its process.
        pid: u32,
    },
}

impl Kind {
    /// Name in tables.
    pub fn name(&self) -> &str {
        match self {
            Kind::Floor => "floor",
            Kind::Ringcast => "ringcast",
            Kind::Nginx => "nginx-rtmp",
            Kind::Peer { name, .. } => name,
        }
    }

    /// True when the server makes the stream itself.
    pub fn makes_stream(&self) -> bool {
        *self == Kind::Floor
    }

    /// True when the server can do what the case asks for. nginx-rtmp sends each message and has
    /// no HTTP-FLV; the floor has no adaptive window.
    pub fn can(&self, case: &Case) -> bool {
        match self {
            Kind::Floor => case.window != Window::Adaptive,
            Kind::Ringcast => true,
            Kind::Nginx => case.protocol == Protocol::Rtmp && case.window == Window::Fixed(0),
            Kind::Peer { .. } => case.protocol == Protocol::Rtmp && case.window == Window::Adaptive,
        }
    }
}

/// A server that serves.
#[derive(Debug)]
pub struct Running {
    /// Kept for its drop.
    _process: Option<Process>,
    /// The process whose cost counts.
    pub pid: u32,
    /// Where publishers publish.
    pub publish_url: String,
    /// Where players play.
    pub play_url: String,
}

/// What went wrong before anything could be measured.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A system call or program failed.
    #[error("{0}: {1}")]
    System(String, io::Error),
    /// A server did not come up; the end of its output.
    #[error("{0} does not serve: {1}")]
    NoService(String, String),
    /// A tool could not do its part.
    #[error("{0}")]
    Tool(String),
}

impl Error {
    /// Names what was being done when the system refused.
    pub fn during(what: &str) -> impl Fn(io::Error) -> Error {
        let what = what.to_owned();
        move |why| Error::System(what.clone(), why)
    }
}

/// How ringcast is started beside the case's own settings.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Core of the server, or cores.
    pub cpus: String,
    /// More `--set` of ringcast.
    pub set: Vec<String>,
    /// Shards of ringcast.
    pub shards: u32,
    /// Address to serve on instead of loopback, when the tester sits elsewhere.
    pub address: Option<std::net::IpAddr>,
    /// Program that everything is started through (a network namespace).
    pub inside: Option<String>,
}

impl Default for Setup {
    fn default() -> Setup {
        Setup { cpus: "0".into(), set: Vec::new(), shards: 1, address: None, inside: None }
    }
}

/// Starts a server for a case.
///
/// # Errors
/// It cannot be started or does not serve.
pub fn start(kind: &Kind, case: &Case, setup: &Setup, scratch: &Scratch) -> Result<Running, Error> {
    let free = || -> Result<SocketAddr, Error> {
        let mut addr = process::free_address().map_err(Error::during("a free port"))?;
        addr.set_ip(setup.address.unwrap_or(addr.ip()));
        Ok(addr)
    };
    let (rtmp, http) = (free()?, free()?);
    let output = scratch.file(&format!("{}.log", kind.name()));
    let (program, args) = match kind {
        Kind::Floor => (process::sibling("floor"), floor_args(case, setup, rtmp)),
        Kind::Ringcast => (process::sibling("ringcast"), ringcast_args(case, setup, rtmp, http)),
        Kind::Nginx => {
            install_nginx(true)?;
            let config = scratch.file("nginx.conf");
            fs::write(&config, nginx_config(rtmp, scratch)).map_err(Error::during("nginx.conf"))?;
            let args = vec!["-c".into(), config.display().to_string()];
            ("/usr/sbin/nginx".into(), args)
        }
        Kind::Peer { url, pid, .. } => {
            let (publish_url, play_url) = (url.clone(), url.clone());
            return Ok(Running { _process: None, pid: *pid, publish_url, play_url });
        }
    };
    let (program, args) = through(setup.inside.as_deref(), &program, args);
    let mut process = Process::start(&setup.cpus, Rank::Server, &program, &args, &output)
        .map_err(Error::during(kind.name()))?;
    let serves = match setup.inside {
        // From here its addresses cannot be reached; it is there when it has written something
        // or has had time to.
        Some(_) => {
            std::thread::sleep(Duration::from_millis(700));
            process.runs()
        }
        None => process::wait_for(rtmp, Duration::from_secs(10)) && process.runs(),
    };
    if !serves {
        return Err(Error::NoService(kind.name().into(), tail(&output)));
    }
    let pid = match kind {
        Kind::Nginx => worker_of(process.pid()),
        _ => process.pid(),
    };
    let stream = format!("rtmp://{rtmp}/live/s");
    let play_url = match (case.protocol, kind) {
        (Protocol::Rtmp, _) => stream.clone(),
        (Protocol::Flv, Kind::Floor) => format!("http://{rtmp}/live/s.flv"),
        (Protocol::Flv, _) => format!("http://{http}/live/s.flv"),
    };
    Ok(Running { _process: Some(process), pid, publish_url: stream, play_url })
}

/// A command line that runs in the given namespace.
pub fn through(
    inside: Option<&str>,
    program: &Path,
    args: Vec<String>,
) -> (std::path::PathBuf, Vec<String>) {
    let Some(namespace) = inside else { return (program.to_owned(), args) };
    let mut all: Vec<String> = ["netns", "exec", namespace].map(String::from).to_vec();
    all.push(program.display().to_string());
    all.extend(args);
    ("ip".into(), all)
}

fn floor_args(case: &Case, setup: &Setup, addr: SocketAddr) -> Vec<String> {
    let Window::Fixed(window) = case.window else { return Vec::new() };
    let protocol = match case.protocol {
        Protocol::Rtmp => "rtmp",
        Protocol::Flv => "flv",
    };
    let mut args = vec![
        format!("--listen={addr}"),
        format!("--protocol={protocol}"),
        format!("--kbps={}", case.kbps),
        format!("--gop={}", case.gop),
        format!("--window={window}"),
    ];
    if setup.set.iter().any(|s| s == "zero_copy=on") {
        args.push("--zero-copy".into());
    }
    if setup.set.iter().any(|s| s == "huge_pages=on") {
        args.push("--huge-pages".into());
    }
    args
}

fn ringcast_args(case: &Case, setup: &Setup, rtmp: SocketAddr, http: SocketAddr) -> Vec<String> {
    let window = match case.window {
        Window::Fixed(ms) => ms.to_string(),
        Window::Adaptive => "\"adaptive\"".into(),
    };
    let mut set = vec![
        format!("listen=\"{rtmp}\""),
        format!("http_server.listen=\"{http}\""),
        "http_api.enabled=false".into(),
        format!("shards={}", setup.shards),
        format!("vhost.play.mw_latency={window}"),
        "vhost.play.mw_msgs=0".into(),
        "log.level=\"warn\"".into(),
    ];
    set.extend(setup.set.iter().cloned());
    set.into_iter().flat_map(|s| ["--set".into(), s]).collect()
}

fn nginx_config(rtmp: SocketAddr, scratch: &Scratch) -> String {
    let folder = scratch.file("");
    let folder = folder.display();
    format!(
        "load_module /usr/lib/nginx/modules/ngx_rtmp_module.so;\n\
         user root;\n\
         daemon off;\n\
         worker_processes 1;\n\
         worker_rlimit_nofile 65536;\n\
         error_log {folder}/nginx-error.log warn;\n\
         pid {folder}/nginx.pid;\n\
         events {{ worker_connections 32768; }}\n\
         rtmp {{\n\
         \x20 access_log off;\n\
         \x20 server {{ listen {rtmp}; application live {{ live on; }} }}\n\
         }}\n"
    )
}

/// nginx with one worker that serves the files of a folder, as one would set it up for HLS.
///
/// # Errors
/// It cannot be started or does not serve.
pub fn start_files(folder: &Path, cpus: &str, scratch: &Scratch) -> Result<Running, Error> {
    install_nginx(false)?;
    let addr = process::free_address().map_err(Error::during("a free port"))?;
    let config = scratch.file("nginx-files.conf");
    let own = scratch.file("");
    let text = format!(
        "user root;\n\
         daemon off;\n\
         worker_processes 1;\n\
         worker_rlimit_nofile 65536;\n\
         error_log {own}/nginx-files-error.log warn;\n\
         pid {own}/nginx-files.pid;\n\
         events {{ worker_connections 32768; }}\n\
         http {{\n\
         \x20 types {{ application/vnd.apple.mpegurl m3u8; video/mp2t ts; }}\n\
         \x20 default_type video/iso.segment;\n\
         \x20 access_log off;\n\
         \x20 sendfile on;\n\
         \x20 tcp_nopush on;\n\
         \x20 tcp_nodelay on;\n\
         \x20 keepalive_timeout 75s;\n\
         \x20 keepalive_requests 1000000;\n\
         \x20 open_file_cache max=1000 inactive=30s;\n\
         \x20 open_file_cache_valid 1s;\n\
         \x20 server {{ listen {addr} backlog=4096; root {root}; }}\n\
         }}\n",
        own = own.display(),
        root = folder.display(),
    );
    fs::write(&config, text).map_err(Error::during("nginx-files.conf"))?;
    let output = scratch.file("nginx-files.log");
    let args = ["-c".into(), config.display().to_string()];
    let mut process =
        Process::start(cpus, Rank::Server, Path::new("/usr/sbin/nginx"), &args, &output)
            .map_err(Error::during("nginx"))?;
    if !process::wait_for(addr, Duration::from_secs(10)) || !process.runs() {
        return Err(Error::NoService("nginx".into(), tail(&output)));
    }
    let (pid, url) = (worker_of(process.pid()), format!("http://{addr}"));
    Ok(Running { _process: Some(process), pid, publish_url: String::new(), play_url: url })
}

/// Installs nginx, and its rtmp module if wanted, with apt where they are missing.
///
/// # Errors
/// apt cannot do that.
pub fn install_nginx(rtmp: bool) -> Result<(), Error> {
    let module = Path::new("/usr/lib/nginx/modules/ngx_rtmp_module.so");
    if (module.exists() || !rtmp) && Path::new("/usr/sbin/nginx").exists() {
        return Ok(());
    }
    eprintln!("installing nginx-light and libnginx-mod-rtmp");
    for args in [
        &["update", "-qq"][..],
        &["install", "-y", "-qq", "--no-install-recommends", "nginx-light", "libnginx-mod-rtmp"],
    ] {
        let status = Command::new("apt-get")
            .args(args)
            .env("DEBIAN_FRONTEND", "noninteractive")
            .stdout(std::process::Stdio::null())
            .status()
            .map_err(Error::during("apt-get"))?;
        if !status.success() {
            return Err(Error::Tool("apt-get cannot install nginx; use --without nginx".into()));
        }
    }
    Ok(())
}

/// nginx's one worker.
pub fn worker_of(master: u32) -> u32 {
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(3) {
        if let Some(&worker) = process::children(master).first() {
            return worker;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    master
}

/// The last lines of a file.
pub fn tail(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    let lines: Vec<&str> = text.lines().rev().take(6).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join(" | ")
}
