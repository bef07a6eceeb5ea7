//! The process and the machine in figures, as SRS's API has them. Read from /proc every few
//! seconds by the control thread; what cannot be read is 0.

use std::fs;
use std::net::Ipv4Addr;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use serde_json::{Map, Value, json};

use crate::control::serve::Handle;
use crate::control::wall_ms;
use crate::version;

/// Ticks a second of the times in /proc (USER_HZ, the same on every Linux).
const TICKS: f64 = 100.0;
/// Bytes of a page in `rss`.
const PAGE_KB: u64 = 4;

/// Figures, and what is needed for rates.
#[derive(Debug)]
pub struct System {
    state: Mutex<Sample>,
    started: Instant,
    arguments: String,
}

/// What was read at one time.
#[derive(Clone, Debug, Default)]
struct Sample {
    at_ms: i64,
    /// Fields of /proc/self/stat behind the name, from the state on.
    own: Vec<i64>,
    name: String,
    state: String,
    /// user, nice, sys, idle, iowait, irq, softirq, steal, guest of all processors, ticks.
    machine: [u64; 9],
    /// Parts of 1: this process of all processors' time, and all processes.
    own_share: f64,
    machine_share: f64,
    memory: Memory,
    /// Received and sent by devices towards the world, then by inner ones, bytes.
    net: [u64; 4],
    /// Of all disks that are looked at.
    disk: Disk,
    /// kB read and written a second, and the busy part of the time, of 1.
    disk_rates: [f64; 3],
    /// Over 1, 5 and 15 minutes.
    loads: [f64; 3],
    /// Since the machine's start, and of that idle, all processors together, s.
    uptime: [f64; 2],
    /// TCP, established, TIME-WAIT, UDP.
    sockets: [u64; 4],
    cpus: usize,
    folder: String,
    /// Largest resident set, kB.
    resident_max_kb: u64,
    /// Read from and written to storage by this process, bytes.
    storage: [u64; 2],
    /// Context switches, voluntary and not.
    switches: [u64; 2],
    /// Received and sent by this server, bytes.
    served: [u64; 2],
}

/// Of /proc/diskstats.
#[derive(Clone, Copy, Debug, Default)]
struct Disk {
    read_kb: u64,
    written_kb: u64,
    busy_ms: u64,
}

/// Of /proc/meminfo, kB.
#[derive(Clone, Copy, Debug, Default)]
struct Memory {
    active: u64,
    total: u64,
    free: u64,
    buffers: u64,
    cached: u64,
    swap_total: u64,
    swap_free: u64,
}

impl Memory {
    fn in_use(&self) -> u64 {
        self.total.saturating_sub(self.not_in_use())
    }

    fn not_in_use(&self) -> u64 {
        self.free + self.buffers + self.cached
    }

    fn share_ram(&self) -> f64 {
        share(self.in_use(), self.total)
    }

    fn share_swap(&self) -> f64 {
        share(self.swap_total.saturating_sub(self.swap_free), self.swap_total)
    }
}

fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

impl System {
    /// Nothing read yet.
    pub(super) fn new() -> System {
        let arguments = fs::read("/proc/self/cmdline").unwrap_or_default();
        let arguments: Vec<_> = arguments
            .split(|byte| *byte == 0)
            .filter(|argument| !argument.is_empty())
            .map(String::from_utf8_lossy)
            .collect();
        let arguments = arguments.join(" ");
        System { state: Mutex::default(), started: Instant::now(), arguments }
    }

    /// Reads everything anew.
    pub(super) fn sample(&self, handle: &Handle) {
        let config = handle.config();
        if !config.stats.enabled {
            return;
        }
        let mut sample = Sample { at_ms: wall_ms(), ..Sample::default() };
        sample.read_own(&read("/proc/self/stat"));
        sample.machine = machine_times(&read("/proc/stat"));
        sample.memory = memory(&read("/proc/meminfo"));
        let inner = inner_devices(&read("/proc/net/route"), &read("/proc/net/if_inet6"));
        sample.net = net(&read("/proc/net/dev"), &inner);
        if !config.stats.disk.is_empty() {
            sample.disk = disk(&read("/proc/diskstats"), &config.stats.disk);
        }
        sample.loads = floats(&read("/proc/loadavg"));
        sample.uptime = floats(&read("/proc/uptime"));
        sample.sockets = sockets(&read("/proc/net/sockstat"), &read("/proc/net/snmp"));
        sample.cpus = std::thread::available_parallelism().map_or(1, usize::from);
        sample.folder = std::env::current_dir().unwrap_or_default().display().to_string();
        sample.read_usage();
        for counters in &handle.counters {
            sample.served[0] += counters.bytes_received.load(Relaxed);
            sample.served[1] += counters.bytes_sent.load(Relaxed);
        }
        let mut state = self.state();
        let seconds = (sample.at_ms - state.at_ms) as f64 / 1000.0;
        if state.at_ms > 0 && seconds > 0.0 {
            let ticks = sample.cpu_ticks() - state.cpu_ticks();
            sample.own_share = (ticks as f64 / TICKS / seconds).max(0.0);
            let all: u64 = sample.machine.iter().sum();
            let all = all.saturating_sub(state.machine.iter().sum());
            let idle = sample.machine[3].saturating_sub(state.machine[3]);
            sample.machine_share = 1.0 - share(idle.min(all), all.max(1));
            sample.disk_rates = sample.disk.rates(state.disk, seconds);
        }
        *state = sample;
    }

    fn state(&self) -> MutexGuard<'_, Sample> {
        // Replaced as a whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// CPU time of this process in percent of one processor.
    pub(crate) fn cpu_percent(&self) -> f64 {
        self.state().own_share * 100.0
    }

    /// Resident memory, kB.
    pub(crate) fn resident_kb(&self) -> u64 {
        self.state().resident_kb()
    }

    pub(super) fn summaries(&self, handle: &Handle) -> Value {
        let s = self.state().clone();
        json!({
            "ok": s.at_ms > 0,
            "now_ms": wall_ms(),
            "self": {
                "version": version::VERSION,
                "pid": std::process::id(),
                "ppid": s.field(1),
                "argv": self.arguments,
                "cwd": s.folder,
                "mem_kbyte": s.resident_kb(),
                "mem_percent": share(s.resident_kb(), s.memory.total),
                "cpu_percent": s.own_share,
                "srs_uptime": self.started.elapsed().as_secs(),
            },
            "system": {
                "cpu_percent": s.machine_share,
                "disk_read_KBps": s.disk_rates[0].round() as u64,
                "disk_write_KBps": s.disk_rates[1].round() as u64,
                "disk_busy_percent": s.disk_rates[2],
                "mem_ram_kbyte": s.memory.total,
                "mem_ram_percent": s.memory.share_ram(),
                "mem_swap_kbyte": s.memory.swap_total,
                "mem_swap_percent": s.memory.share_swap(),
                "cpus": s.cpus,
                "cpus_online": s.cpus,
                "uptime": s.uptime[0],
                // SRS spells it so.
                "ilde_time": s.uptime[1],
                "load_1m": s.loads[0],
                "load_5m": s.loads[1],
                "load_15m": s.loads[2],
                "net_sample_time": s.at_ms,
                "net_recv_bytes": s.net[0],
                "net_send_bytes": s.net[1],
                "net_recvi_bytes": s.net[2],
                "net_sendi_bytes": s.net[3],
                "srs_sample_time": s.at_ms,
                "srs_recv_bytes": s.served[0],
                "srs_send_bytes": s.served[1],
                "conn_sys": s.sockets[0],
                "conn_sys_et": s.sockets[1],
                "conn_sys_tw": s.sockets[2],
                "conn_sys_udp": s.sockets[3],
                "conn_srs": handle.gate.connections(),
            },
        })
    }

    pub(super) fn rusages(&self) -> Value {
        let s = self.state().clone();
        json!({
            "ok": s.at_ms > 0,
            "sample_time": s.at_ms,
            "ru_utime": s.field(11) / TICKS as i64,
            "ru_stime": s.field(12) / TICKS as i64,
            "ru_maxrss": s.resident_max_kb,
            "ru_ixrss": 0, "ru_idrss": 0, "ru_isrss": 0,
            "ru_minflt": s.field(7),
            "ru_majflt": s.field(9),
            "ru_nswap": 0,
            "ru_inblock": s.storage[0] / 512,
            "ru_oublock": s.storage[1] / 512,
            "ru_msgsnd": 0, "ru_msgrcv": 0, "ru_nsignals": 0,
            "ru_nvcsw": s.switches[0],
            "ru_nivcsw": s.switches[1],
        })
    }

    pub(super) fn self_proc_stats(&self) -> Value {
        let s = self.state().clone();
        let mut data = Map::new();
        data.insert("ok".into(), (s.at_ms > 0).into());
        data.insert("sample_time".into(), s.at_ms.into());
        data.insert("percent".into(), s.own_share.into());
        data.insert("pid".into(), std::process::id().into());
        data.insert("comm".into(), s.name.clone().into());
        data.insert("state".into(), s.state.clone().into());
        for (index, name) in OWN_FIELDS.iter().enumerate() {
            data.insert((*name).into(), s.field(index + 1).into());
        }
        Value::Object(data)
    }

    pub(super) fn system_proc_stats(&self) -> Value {
        let s = self.state().clone();
        let mut data = Map::new();
        data.insert("ok".into(), (s.at_ms > 0).into());
        data.insert("sample_time".into(), s.at_ms.into());
        data.insert("percent".into(), s.machine_share.into());
        for (name, ticks) in MACHINE_FIELDS.iter().zip(s.machine) {
            data.insert((*name).into(), ticks.into());
        }
        Value::Object(data)
    }

    pub(super) fn meminfos(&self) -> Value {
        let s = self.state().clone();
        let m = s.memory;
        json!({
            "ok": s.at_ms > 0,
            "sample_time": s.at_ms,
            "percent_ram": m.share_ram(),
            "percent_swap": m.share_swap(),
            "MemActive": m.active,
            "RealInUse": m.in_use(),
            "NotInUse": m.not_in_use(),
            "MemTotal": m.total,
            "MemFree": m.free,
            "Buffers": m.buffers,
            "Cached": m.cached,
            "SwapTotal": m.swap_total,
            "SwapFree": m.swap_free,
        })
    }
}

impl Sample {
    fn read_own(&mut self, stat: &str) {
        // The name stands in brackets and may contain some itself.
        let (Some(open), Some(close)) = (stat.find('('), stat.rfind(')')) else { return };
        self.name = stat[open + 1..close].to_owned();
        let rest = stat.get(close + 2..).unwrap_or_default();
        self.state = rest.split_whitespace().next().unwrap_or_default().to_owned();
        // Addresses and limits may be over what an i64 holds; they are cut to it.
        let number =
            |text: &str| text.parse::<i128>().unwrap_or(0).min(i128::from(i64::MAX)) as i64;
        self.own = rest.split_whitespace().map(number).collect();
    }

    fn read_usage(&mut self) {
        self.resident_max_kb = named(&read("/proc/self/status"), "VmHWM:");
        let io = read("/proc/self/io");
        self.storage = ["read_bytes:", "write_bytes:"].map(|name| named(&io, name));
        for task in fs::read_dir("/proc/self/task").into_iter().flatten().flatten() {
            let status = fs::read_to_string(task.path().join("status")).unwrap_or_default();
            self.switches[0] += named(&status, "voluntary_ctxt_switches:");
            self.switches[1] += named(&status, "nonvoluntary_ctxt_switches:");
        }
    }

    /// A field of /proc/self/stat, counted from the state on (0).
    fn field(&self, index: usize) -> i64 {
        self.own.get(index).copied().unwrap_or(0)
    }

    fn cpu_ticks(&self) -> i64 {
        self.field(11) + self.field(12)
    }

    fn resident_kb(&self) -> u64 {
        self.field(21).max(0) as u64 * PAGE_KB
    }
}

/// Names of the fields behind the state (proc(5)).
const OWN_FIELDS: [&str; 41] = [
    "ppid",
    "pgrp",
    "session",
    "tty_nr",
    "tpgid",
    "flags",
    "minflt",
    "cminflt",
    "majflt",
    "cmajflt",
    "utime",
    "stime",
    "cutime",
    "cstime",
    "priority",
    "nice",
    "num_threads",
    "itrealvalue",
    "starttime",
    "vsize",
    "rss",
    "rsslim",
    "startcode",
    "endcode",
    "startstack",
    "kstkesp",
    "kstkeip",
    "signal",
    "blocked",
    "sigignore",
    "sigcatch",
    "wchan",
    "nswap",
    "cnswap",
    "exit_signal",
    "processor",
    "rt_priority",
    "policy",
    "delayacct_blkio_ticks",
    "guest_time",
    "cguest_time",
];

const MACHINE_FIELDS: [&str; 9] =
    ["user", "nice", "sys", "idle", "iowait", "irq", "softirq", "steal", "guest"];

fn machine_times(stat: &str) -> [u64; 9] {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu "));
    let mut numbers = line.unwrap_or_default().split_whitespace();
    std::array::from_fn(|_| numbers.next().and_then(|text| text.parse().ok()).unwrap_or(0))
}

fn memory(text: &str) -> Memory {
    let of = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let value = line.and_then(|line| line.split_whitespace().next());
        value.and_then(|value| value.parse().ok()).unwrap_or(0)
    };
    Memory {
        active: of("Active"),
        total: of("MemTotal"),
        free: of("MemFree"),
        buffers: of("Buffers"),
        cached: of("Cached"),
        swap_total: of("SwapTotal"),
        swap_free: of("SwapFree"),
    }
}

/// The number behind a name at the beginning of a line; 0 without one.
fn named(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let value = line.and_then(|line| line.split_whitespace().next());
    value.and_then(|value| value.parse().ok()).unwrap_or(0)
}

/// The first numbers of a text; 0 where there is none.
fn floats<const N: usize>(text: &str) -> [f64; N] {
    let mut words = text.split_whitespace();
    std::array::from_fn(|_| words.next().and_then(|word| word.parse().ok()).unwrap_or(0.0))
}

impl Disk {
    fn rates(self, before: Disk, seconds: f64) -> [f64; 3] {
        // Less than before: other disks are looked at now.
        let rate = |now: u64, before: u64| now.saturating_sub(before) as f64 / seconds;
        [
            rate(self.read_kb, before.read_kb),
            rate(self.written_kb, before.written_kb),
            rate(self.busy_ms, before.busy_ms) / 1000.0,
        ]
    }
}

/// The sums of these devices (Documentation/admin-guide/iostats.rst: sectors are 512 bytes).
fn disk(text: &str, names: &[String]) -> Disk {
    let mut sum = Disk::default();
    for line in text.lines() {
        let words: Vec<_> = line.split_whitespace().collect();
        let number = |n: usize| words.get(n).and_then(|word| word.parse::<u64>().ok()).unwrap_or(0);
        if words.get(2).is_some_and(|name| names.iter().any(|wanted| wanted == name)) {
            sum.read_kb += number(5) / 2;
            sum.written_kb += number(9) / 2;
            sum.busy_ms += number(12);
        }
    }
    sum
}

/// Loopback, and devices that have addresses of private networks only. SRS: `inner` ones.
fn inner_devices(route: &str, inet6: &str) -> Vec<String> {
    let mut inner = vec!["lo".to_owned()];
    let mut outer: Vec<&str> = Vec::new();
    for line in route.lines().skip(1) {
        let words: Vec<_> = line.split_whitespace().collect();
        let [device, destination, gateway, ..] = words[..] else { continue };
        // A network that the device is in: there is no gateway towards it.
        let network = u32::from_str_radix(destination, 16).ok().filter(|n| *n != 0);
        let Some(network) = network.filter(|_| gateway == "00000000") else { continue };
        // The kernel prints the number as it lies in memory.
        let address = Ipv4Addr::from(network.to_ne_bytes());
        if address.is_private() || address.is_link_local() || address.is_loopback() {
            inner.push(device.to_owned());
        } else if !address.is_multicast() {
            outer.push(device);
        }
    }
    for line in inet6.lines() {
        let words: Vec<_> = line.split_whitespace().collect();
        // 2000::/3 is what is routed in the world (RFC 4291 2.4).
        let is_global = words.first().is_some_and(|text| text.starts_with(['2', '3']));
        outer.extend(words.last().filter(|_| is_global));
    }
    inner.retain(|device| device == "lo" || !outer.contains(&device.as_str()));
    inner
}

/// Bytes received and sent by the devices towards the world, and by the inner ones.
fn net(text: &str, inner: &[String]) -> [u64; 4] {
    let mut sums = [0; 4];
    for line in text.lines() {
        let Some((device, numbers)) = line.split_once(':') else { continue };
        let numbers: Vec<u64> =
            numbers.split_whitespace().map(|text| text.parse().unwrap_or(0)).collect();
        let (Some(received), Some(sent)) = (numbers.first(), numbers.get(8)) else { continue };
        let at = if inner.iter().any(|inner| inner == device.trim()) { 2 } else { 0 };
        sums[at] += received;
        sums[at + 1] += sent;
    }
    sums
}

/// TCP sockets, established ones, ones in TIME-WAIT, UDP sockets.
fn sockets(sockstat: &str, snmp: &str) -> [u64; 4] {
    let of = |protocol: &str, name: &str| -> u64 {
        let line = sockstat.lines().find_map(|line| line.strip_prefix(protocol));
        let words: Vec<_> = line.unwrap_or_default().split_whitespace().collect();
        let value = words.chunks(2).find(|pair| pair[0] == name).and_then(|pair| pair.get(1));
        value.and_then(|value| value.parse().ok()).unwrap_or(0)
    };
    let mut tcp = snmp.lines().filter_map(|line| line.strip_prefix("Tcp: "));
    let (names, values) = (tcp.next().unwrap_or_default(), tcp.next().unwrap_or_default());
    let at = names.split_whitespace().position(|name| name == "CurrEstab");
    let established = at.and_then(|at| values.split_whitespace().nth(at)?.parse().ok());
    let waiting = of("TCP:", "tw");
    [of("TCP:", "inuse") + waiting, established.unwrap_or(0), waiting, of("UDP:", "inuse")]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_process() {
        let stat = "77 (a b) c) S 1 77 77 0 -1 4194560 100 5 2 6 250 130 7 8 20 0 4 0 9000 \
                    1000000 2500 18446744073709551615 1 2 3 4 5 6 7 8 9 10 11 12 17 1 0 0 3 0 0 \
                    1 2 3 4 5 6 7 0";
        let mut sample = Sample::default();
        sample.read_own(stat);
        assert_eq!((sample.name.as_str(), sample.state.as_str()), ("a b) c", "S"));
        assert_eq!((sample.field(1), sample.cpu_ticks()), (1, 380));
        assert_eq!(sample.resident_kb(), 10_000);
        assert_eq!(sample.field(22), i64::MAX);
        let system = System { state: Mutex::new(sample), ..System::new() };
        let data = system.self_proc_stats();
        assert_eq!((&data["num_threads"], &data["processor"]), (&json!(4), &json!(1)));
        assert_eq!((&data["exit_signal"], &data["cguest_time"]), (&json!(17), &json!(0)));
        assert_eq!(data.as_object().unwrap().len(), 6 + OWN_FIELDS.len());
    }

    #[test]
    fn the_machine() {
        let stat = "cpu  10 20 30 40 50 60 70 80 90 100\ncpu0 1 2 3 4 5 6 7 8 9 10\n";
        assert_eq!(machine_times(stat), [10, 20, 30, 40, 50, 60, 70, 80, 90]);
        assert_eq!(machine_times(""), [0; 9]);
        let m = memory("MemTotal: 1000 kB\nMemFree:  300 kB\nBuffers: 100 kB\nCached: 200 kB\n");
        assert_eq!((m.in_use(), m.not_in_use(), m.share_ram()), (400, 600, 0.4));
        assert_eq!(m.share_swap(), 0.0);
        let dev = "Inter-|   Receive\n face |bytes\n    lo: 5 0 0 0 0 0 0 0 6 0\n\
                   eth0: 100 1 0 0 0 0 0 0 200 3\n eth1:1 1 0 0 0 0 0 0 2 3\n";
        // eth1 has addresses of both kinds.
        let route = "Iface Destination Gateway Flags\neth0 00000000 0100000A 0003\n\
                     eth0 0000000A 00000000 0001\neth1 0000A8C0 00000000 0001\n";
        let inet6 = "20010db8000000000000000000000001 03 40 00 80     eth1\n\
                     fe800000000000000000000000000001 02 40 20 80     eth0\n";
        let inner = inner_devices(route, inet6);
        assert_eq!(inner, ["lo", "eth0"]);
        assert_eq!(net(dev, &inner), [1, 2, 105, 206]);
        assert_eq!(net(dev, &inner_devices("", "")), [101, 202, 5, 6]);
        let sockstat = "sockets: used 200\nTCP: inuse 9 orphan 0 tw 4 alloc 12 mem 1\n\
                        UDP: inuse 3 mem 0\n";
        let snmp = "Tcp: RtoAlgorithm CurrEstab InSegs\nTcp: 1 7 100\n";
        assert_eq!(sockets(sockstat, snmp), [13, 7, 4, 3]);
        assert_eq!(sockets("", ""), [0; 4]);
        assert_eq!(floats("0.50 0.25 x 1/2"), [0.5, 0.25, 0.0]);
        assert_eq!(named("VmHWM:\t  1234 kB\n", "VmHWM:"), 1234);
    }

    #[test]
    fn disks_that_are_named() {
        let text = "   8 0 sda 100 0 2000 30 50 0 400 60 0 700 90 0 0 0 0\n   \
                    8 1 sda1 90 0 1000 20 40 0 300 50 0 600 80\n 253 0 vda 1 2 3\n";
        let names = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        let sda = disk(text, &names(&["sda"]));
        assert_eq!((sda.read_kb, sda.written_kb, sda.busy_ms), (1_000, 200, 700));
        let both = disk(text, &names(&["sda", "sda1", "none"]));
        assert_eq!((both.read_kb, both.written_kb, both.busy_ms), (1_500, 350, 1_300));
        assert_eq!(sda.rates(Disk::default(), 2.0), [500.0, 100.0, 0.35]);
        assert_eq!(Disk::default().rates(sda, 2.0), [0.0; 3]);
    }
}
