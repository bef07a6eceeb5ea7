//! `ringcast doctor`: does this machine let the server do its work?
//!
//! Each check is a function of what was read from the system, and says what it found, what that
//! means, and the command that mends it. Nothing is changed and nothing stays open.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::time::{Duration, SystemTime};

use rustix::process::{Resource, getrlimit};
use uring::{Probe, Unavailable};

use crate::config::{self, Config, ListenAddr, LogTank, Memory, Switch};
use crate::limits::{DESCRIPTORS_RESERVED, TLS_CONNECTIONS_MAX};

mod network;
mod tls;

/// Shortest queue of waiting connections that a burst of players does not overflow.
const BACKLOG_WANTED: u64 = 4096;
/// Bytes that the rings of one shard lock beside media memory, roughly.
const RING_BYTES: u64 = 2 << 20;
/// The clock of a machine that runs this program shows a later time, in seconds since 1970.
const CLOCK_MIN: u64 = 1_735_689_600;
/// CAP_IPC_LOCK, as a bit of `CapEff`: who has it is not bound by RLIMIT_MEMLOCK.
const CAP_IPC_LOCK: u64 = 1 << 14;

/// How a check went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Status {
    /// Nothing to do.
    Ok,
    /// The server runs, but not as well as it could.
    Warn,
    /// The server does not start, not with this configuration, or lets nobody in.
    Fail,
}

/// The outcome of one check.
#[derive(Clone, Debug)]
pub struct Finding {
    /// What was checked.
    pub check: &'static str,
    /// How it went.
    pub status: Status,
    /// What was found.
    pub found: String,
    /// What it means; empty when all is well.
    pub meaning: String,
    /// The command or setting that mends it; empty when there is nothing to mend.
    pub fix: String,
}

/// Runs every check for `config`; `announced` is the name or address that clients are told to use,
/// if it is known. Other machines have some seconds to answer.
pub fn examine(config: &Config, announced: Option<&str>) -> Vec<Finding> {
    let memory = Memory::read();
    let budget = config.media_memory.bytes(memory);
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get() as u64);
    let shards = if config.shards == 0 { cores } else { config.shards.into() };
    let mut findings = io_uring(uring::probe());
    findings.extend([
        memory_lock(
            getrlimit(Resource::Memlock).current,
            may_lock(&read("/proc/self/status")),
            budget + shards * RING_BYTES,
        ),
        open_files(
            getrlimit(Resource::Nofile).maximum,
            config.max_connections,
            config.serves_https(),
        ),
        huge_pages(config.huge_pages, &read("/proc/meminfo"), budget),
        media_memory(budget, memory),
        backlog(number("/proc/sys/net/core/somaxconn")),
    ]);
    let listeners = [
        ("listen", true, &config.listen),
        ("http_server.listen", config.http_server.enabled, &config.http_server.listen),
        (
            "http_api.listen",
            config.http_api.enabled && !config.shares_http_port(),
            &config.http_api.listen,
        ),
        ("http_server.https.listen", config.serves_https(), &config.http_server.https.listen),
        (
            "http_api.https.listen",
            config.serves_api_https() && !config.shares_https_port(),
            &config.http_api.https.listen,
        ),
        ("exporter.listen", config.exporter.enabled, &config.exporter.listen),
    ];
    for (setting, _, list) in listeners.iter().filter(|(_, enabled, _)| *enabled) {
        findings.extend(list.iter().map(|addr| port(setting, *addr)));
    }
    let source = read("/sys/devices/system/clocksource/clocksource0/current_clocksource");
    findings.push(clock(source.trim(), SystemTime::now(), uring::clock_is_synchronised()));
    findings.extend(files(config));
    let local = network::local_addresses();
    findings.push(network::addresses(&local, config));
    findings.extend(announced.map(|name| network::announced(name, &local, config)));
    findings.extend(network::calls(config));
    findings.extend(tls::files(config, SystemTime::now()));
    findings
}

/// The worst status among the findings.
pub fn worst(findings: &[Finding]) -> Status {
    findings.iter().map(|finding| finding.status).max().unwrap_or(Status::Ok)
}

/// The findings as text for people.
pub fn to_text(findings: &[Finding]) -> String {
    let mut out = String::new();
    for finding in findings {
        let _ =
            writeln!(out, "{:<5}{:<20} {}", finding.status.word(), finding.check, finding.found);
        for (label, text) in [("", &finding.meaning), ("fix: ", &finding.fix)] {
            if !text.is_empty() {
                let _ = writeln!(out, "     {label}{text}");
            }
        }
    }
    let count = |status| findings.iter().filter(|finding| finding.status == status).count();
    let _ = writeln!(
        out,
        "\n{} ok, {} to improve, {} to mend before serving",
        count(Status::Ok),
        count(Status::Warn),
        count(Status::Fail)
    );
    out
}

/// The findings as JSON for tools.
pub fn to_json(findings: &[Finding]) -> String {
    let checks: Vec<_> = findings
        .iter()
        .map(|finding| {
            serde_json::json!({
                "check": finding.check,
                "status": finding.status.word(),
                "found": finding.found,
                "meaning": finding.meaning,
                "fix": finding.fix,
            })
        })
        .collect();
    let whole = serde_json::json!({ "status": worst(findings).word(), "checks": checks });
    format!("{whole:#}\n")
}

impl Status {
    fn word(self) -> &'static str {
        match self {
            Status::Ok => "ok",
            Status::Warn => "warn",
            Status::Fail => "fail",
        }
    }
}

impl Finding {
    fn ok(check: &'static str, found: impl Into<String>) -> Self {
        let (meaning, fix) = Default::default();
        Self { check, status: Status::Ok, found: found.into(), meaning, fix }
    }

    fn bad(
        check: &'static str,
        status: Status,
        found: impl Into<String>,
        meaning: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Self { check, status, found: found.into(), meaning: meaning.into(), fix: fix.into() }
    }
}

fn io_uring(outcome: Result<Probe, Unavailable>) -> Vec<Finding> {
    let probe = match outcome {
        Ok(probe) => probe,
        Err(why) => {
            let check = match why {
                Unavailable::KernelTooOld { .. } => "kernel",
                _ => "io_uring",
            };
            let meaning = "the server does not start: everything it does goes through io_uring";
            return vec![Finding::bad(check, Status::Fail, why.to_string(), meaning, why.fix())];
        }
    };
    let features = [
        (probe.receive_bundles, "receive bundles"),
        (probe.incremental_buffers, "incremental buffers"),
        (probe.vectored_send, "vectored send"),
        (probe.vectored_fixed_send, "vectored zero-copy send"),
        (probe.min_wait, "min-wait"),
        (probe.napi, "busy polling"),
        (probe.ring_messages, "ring messages"),
    ];
    let with = |wanted| {
        let names: Vec<_> =
            features.iter().filter(|(has, _)| *has == wanted).map(|(_, name)| *name).collect();
        names.join(", ")
    };
    let found = match (with(true), with(false)) {
        (has, lacks) if lacks.is_empty() => format!("works, with {has}"),
        (has, lacks) if has.is_empty() => format!("works; a newer kernel adds {lacks}"),
        (has, lacks) => format!("works, with {has}; a newer kernel adds {lacks}"),
    };
    vec![Finding::ok("kernel", format!("Linux {}", probe.release)), Finding::ok("io_uring", found)]
}

fn may_lock(status: &str) -> bool {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let bits = line.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
    bits.is_some_and(|bits| bits & CAP_IPC_LOCK != 0)
}

fn memory_lock(limit: Option<u64>, privileged: bool, wanted: u64) -> Finding {
    let check = "locked memory";
    match limit {
        _ if privileged => Finding::ok(check, "not limited: the process may lock memory"),
        None => Finding::ok(check, "not limited"),
        Some(limit) if limit >= wanted => Finding::ok(check, format!("limit {}", mib(limit))),
        Some(limit) => Finding::bad(
            check,
            Status::Warn,
            format!("limit {}, the server would use {}", mib(limit), mib(wanted)),
            "media memory beyond the limit is not registered: the kernel looks up its pages for \
             every send, and there is no zero copy",
            "ulimit -l unlimited, LimitMEMLOCK=infinity in a systemd unit, or docker run \
             --ulimit memlock=-1",
        ),
    }
}

fn open_files(limit: Option<u64>, connections: u32, https: bool) -> Finding {
    let check = "open files";
    let Some(limit) = limit else { return Finding::ok(check, "not limited") };
    let (fits, note) = config::fit_connections(connections, limit, https);
    // What HTTPS needs beside it grows with the limit, up to this.
    let front = if https { 2 * TLS_CONNECTIONS_MAX.min(connections) } else { 0 };
    let wanted = u64::from(connections) + u64::from(DESCRIPTORS_RESERVED + front);
    match note {
        None => Finding::ok(check, format!("limit {limit}")),
        Some(_) => Finding::bad(
            check,
            Status::Warn,
            format!("limit {limit}, max_connections {connections} needs {wanted}"),
            format!("the server lowers max_connections to {fits}"),
            format!(
                "ulimit -Hn {wanted}, LimitNOFILE={wanted} in a systemd unit, docker run \
                 --ulimit nofile={wanted}, or set max_connections lower"
            ),
        ),
    }
}

fn huge_pages(switch: Switch, meminfo: &str, budget: u64) -> Finding {
    let check = "huge pages";
    let field = |name: &str| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_ascii_whitespace().next()?.parse::<u64>().ok()
    };
    let size = field("Hugepagesize:").unwrap_or(2048) * 1024;
    let free = field("HugePages_Free:").unwrap_or(0);
    let wanted = budget.div_ceil(size);
    let found = format!("{free} free of {}", mib(size));
    match switch {
        Switch::Off => Finding::ok(check, "not used: huge_pages is \"off\""),
        _ if free >= wanted => Finding::ok(check, found),
        _ => Finding::bad(
            check,
            Status::Warn,
            format!("{found}, media_memory is {wanted} of them"),
            "media memory beyond them comes from ordinary pages, which costs a little CPU when \
             many streams are live",
            format!(
                "sysctl -w vm.nr_hugepages={wanted} (takes {} from other programs for good), or \
                 set huge_pages to \"off\"",
                mib(wanted * size)
            ),
        ),
    }
}

fn media_memory(budget: u64, memory: Memory) -> Finding {
    let check = "memory";
    let place = if memory.cgroup.is_some() { "container" } else { "machine" };
    let found = format!("media_memory {} of {} ({place})", mib(budget), mib(memory.usable()));
    let fix = format!("set media_memory to \"{}MiB\" or less", memory.usable() >> 21);
    if memory.total == 0 {
        let meaning = "the size of the memory cannot be read, so the budget is a guess";
        Finding::bad(check, Status::Warn, found, meaning, "mount /proc, or set media_memory")
    } else if budget > memory.usable() {
        let meaning = "the server would be ended by the kernel before it reaches its own limit";
        Finding::bad(check, Status::Fail, found, meaning, fix)
    } else if budget > memory.usable() / 4 * 3 {
        let meaning = "little is left for connections: each costs kernel memory beside it";
        Finding::bad(check, Status::Warn, found, meaning, fix)
    } else {
        Finding::ok(check, found)
    }
}

fn backlog(somaxconn: Option<u64>) -> Finding {
    let check = "connection backlog";
    match somaxconn {
        None => Finding::ok(check, "net.core.somaxconn is not visible here"),
        Some(length) if length >= BACKLOG_WANTED => {
            Finding::ok(check, format!("net.core.somaxconn {length}"))
        }
        Some(length) => Finding::bad(
            check,
            Status::Warn,
            format!("net.core.somaxconn {length}"),
            "when many players come at once, some wait a second or more for their connection",
            format!("sysctl -w net.core.somaxconn={BACKLOG_WANTED}"),
        ),
    }
}

/// Binds as the server would: the first candidate that works is the listener.
fn port(setting: &str, addr: ListenAddr) -> Finding {
    let candidates = addr.candidates();
    let outcome = candidates.iter().map(|candidate| bind(*candidate)).reduce(|first, next| {
        // Without IPv6 the next candidate decides; a port in use is an answer.
        match &first {
            Err(why) if no_such_address(why) => next,
            _ => first,
        }
    });
    let check = "port";
    let found = format!("{setting} {addr}");
    let why = match outcome.expect("there is always a candidate") {
        Ok(()) => return Finding::ok(check, format!("{found} is free")),
        Err(why) => why,
    };
    let bad = |meaning: &str, fix: String| {
        Finding::bad(check, Status::Fail, format!("{found}: {why}"), meaning, fix)
    };
    match why.kind() {
        io::ErrorKind::AddrInUse => bad(
            "another program listens there; when that is this server, all is well",
            format!("`ss -ltnp 'sport = :{}'` names it; stop it or change {setting}", addr.port()),
        ),
        io::ErrorKind::PermissionDenied => bad(
            "ports below net.ipv4.ip_unprivileged_port_start are for privileged programs",
            format!(
                "sysctl -w net.ipv4.ip_unprivileged_port_start={}, or setcap \
                 cap_net_bind_service=+ep on the program",
                addr.port()
            ),
        ),
        io::ErrorKind::AddrNotAvailable => bad(
            "this machine does not have the address",
            format!("`ip address` lists its addresses; change {setting}"),
        ),
        _ => bad("the server could not listen there", format!("change {setting}")),
    }
}

fn bind(addr: SocketAddr) -> io::Result<()> {
    TcpListener::bind(addr).map(drop)
}

fn no_such_address(why: &io::Error) -> bool {
    let errno = why.raw_os_error().map(rustix::io::Errno::from_raw_os_error);
    matches!(errno, Some(rustix::io::Errno::AFNOSUPPORT | rustix::io::Errno::ADDRNOTAVAIL))
}

fn clock(source: &str, now: SystemTime, synchronised: Option<bool>) -> Finding {
    let check = "clock";
    let seconds = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
    if seconds < CLOCK_MIN {
        return Finding::bad(
            check,
            Status::Warn,
            "the clock is years behind",
            "times in the log and in file names will be wrong",
            "timedatectl set-ntp true",
        );
    }
    if synchronised == Some(false) {
        return Finding::bad(
            check,
            Status::Warn,
            "no time source keeps it right",
            "it drifts: tokens expire at the wrong time, and logs of two machines do not fit",
            "timedatectl set-ntp true, or install chrony",
        );
    }
    let kept = synchronised.map_or("", |_| ", kept right by a time source");
    match source {
        "hpet" | "acpi_pm" | "jiffies" => Finding::bad(
            check,
            Status::Warn,
            format!("clock source {source}"),
            "reading the time is a slow system call with this source",
            "boot with tsc=reliable, or echo tsc > \
             /sys/devices/system/clocksource/clocksource0/current_clocksource",
        ),
        "" => Finding::ok(check, format!("set{kept}")),
        source => Finding::ok(check, format!("set{kept}, clock source {source}")),
    }
}

/// The places the configuration wants to write to.
fn files(config: &Config) -> Vec<Finding> {
    let work_dir = &config.work_dir;
    let mut findings = Vec::new();
    if !work_dir.is_dir() {
        findings.push(Finding::bad(
            "files",
            Status::Fail,
            format!("work_dir {} is no directory", work_dir.display()),
            "the server changes into it at start",
            format!("mkdir -p {}", work_dir.display()),
        ));
        return findings;
    }
    let log = (config.log.tank == LogTank::File).then_some(("log.file", &config.log.file));
    let pid = (!config.pid.as_os_str().is_empty()).then_some(("pid", &config.pid));
    for (setting, path) in log.into_iter().chain(pid) {
        let relative = path.is_relative();
        let path = work_dir.join(path);
        let mut dir = path.parent().unwrap_or(Path::new("/"));
        // A folder below the working directory is made at start.
        while relative && !dir.exists() && dir != work_dir {
            dir = dir.parent().unwrap_or(Path::new("/"));
        }
        let writable = rustix::fs::access(dir, rustix::fs::Access::WRITE_OK).is_ok();
        findings.push(if writable {
            Finding::ok("files", format!("{setting} {}", path.display()))
        } else {
            Finding::bad(
                "files",
                Status::Fail,
                format!("{setting} {}: its directory cannot be written", path.display()),
                "the server does not start without it",
                format!("create {0} or make it writable, or change {setting}", dir.display()),
            )
        });
    }
    findings
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn number(path: &str) -> Option<u64> {
    read(path).trim().parse().ok()
}

fn mib(bytes: u64) -> String {
    match bytes >> 20 {
        0 => format!("{} KiB", bytes >> 10),
        n => format!("{n} MiB"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_and_io_uring() {
        let works = Probe { release: "6.1.0-25".into(), min_wait: true, ..Probe::default() };
        let findings = io_uring(Ok(works));
        assert_eq!(worst(&findings), Status::Ok);
        assert!(findings[1].found.starts_with("works, with min-wait; a newer kernel adds"));
        for (why, check) in [
            (Unavailable::KernelTooOld { release: "5.15".into() }, "kernel"),
            (Unavailable::DisabledBySysctl { value: 2 }, "io_uring"),
            (Unavailable::Filtered { errno: 1 }, "io_uring"),
        ] {
            let findings = io_uring(Err(why));
            assert_eq!((findings[0].check, findings[0].status), (check, Status::Fail));
            assert!(!findings[0].fix.is_empty());
        }
    }

    #[test]
    fn limits_are_compared() {
        assert_eq!(memory_lock(Some(8 << 20), false, 1 << 30).status, Status::Warn);
        assert_eq!(memory_lock(Some(8 << 20), true, 1 << 30).status, Status::Ok);
        assert_eq!(memory_lock(None, false, 1 << 30).status, Status::Ok);
        assert!(may_lock("Name:\tx\nCapEff:\t000001ffffffffff\n"));
        assert!(!may_lock("CapEff:\t0000000000000000\n") && !may_lock(""));
        assert_eq!(open_files(Some(1 << 20), 100_000, true).status, Status::Ok);
        let short = open_files(Some(4096), 100_000, false);
        assert_eq!(short.status, Status::Warn);
        assert!(short.meaning.contains("3968") && short.fix.contains("LimitNOFILE=100128"));
        assert_eq!(backlog(Some(128)).status, Status::Warn);
        assert_eq!(backlog(Some(4096)).status, Status::Ok);
    }

    #[test]
    fn memory_and_huge_pages() {
        let of = |budget, total, cgroup| media_memory(budget, Memory { total, cgroup }).status;
        assert_eq!(of(1 << 30, 8 << 30, None), Status::Ok);
        assert_eq!(of(7 << 30, 8 << 30, None), Status::Warn);
        assert_eq!(of(1 << 30, 8 << 30, Some(1 << 29)), Status::Fail);
        let meminfo = "HugePages_Free:     512\nHugepagesize:       2048 kB\n";
        let pages = |switch, budget| huge_pages(switch, meminfo, budget).status;
        assert_eq!(pages(Switch::Auto, 1 << 30), Status::Ok);
        assert_eq!(pages(Switch::Auto, 2 << 30), Status::Warn);
        assert_eq!(pages(Switch::Off, 2 << 30), Status::Ok);
        let finding = huge_pages(Switch::On, "", 1 << 30);
        assert!(finding.fix.contains("vm.nr_hugepages=512 "), "{finding:?}");
    }

    #[test]
    fn a_port_in_use_is_found() {
        let held = TcpListener::bind("127.0.0.27:0").unwrap();
        let addr = ListenAddr::Addr(held.local_addr().unwrap());
        let finding = port("listen", addr);
        assert_eq!(finding.status, Status::Fail);
        assert!(finding.fix.contains("change listen"), "{finding:?}");
        drop(held);
        assert_eq!(port("listen", addr).status, Status::Ok);
        let elsewhere = port("listen", "203.0.113.1:1".parse().unwrap());
        assert!(elsewhere.meaning.contains("does not have the address"), "{elsewhere:?}");
    }

    #[test]
    fn clocks() {
        let now = SystemTime::now();
        assert_eq!(clock("tsc", now, Some(true)).status, Status::Ok);
        assert_eq!(clock("tsc", now, None).found, "set, clock source tsc");
        assert!(clock("tsc", now, Some(false)).meaning.contains("drifts"));
        assert_eq!(clock("hpet", now, None).status, Status::Warn);
        assert_eq!(clock("tsc", SystemTime::UNIX_EPOCH, None).status, Status::Warn);
    }

    #[test]
    fn places_to_write() {
        let mut config = Config::default();
        assert!(files(&config).is_empty());
        config.pid = "/nonexistent/x.pid".into();
        assert_eq!(files(&config)[0].status, Status::Fail);
        config.work_dir = "/nonexistent".into();
        assert!(files(&config)[0].found.contains("work_dir"));
    }

    #[test]
    fn reports_say_the_same() {
        let mut config =
            Config { listen: vec!["127.0.0.27:0".parse().unwrap()], ..Config::default() };
        config.http_server.enabled = false;
        config.http_api.enabled = false;
        let findings = examine(&config, None);
        let status = worst(&findings).word();
        let text = to_text(&findings);
        assert!(text.contains("port                 listen 127.0.0.27:0 is free"), "{text}");
        let json: serde_json::Value = serde_json::from_str(&to_json(&findings)).unwrap();
        assert_eq!(json["status"], status);
        assert_eq!(json["checks"].as_array().unwrap().len(), findings.len());
    }
}
