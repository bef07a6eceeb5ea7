//! The process and the machine in figures, as SRS's API has them. Read from /proc every few
//! seconds by the control thread; what cannot be read is 0.

use std::fs;
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
    /// Received and sent by the network's devices, then by loopback, bytes.
    net: [u64; 4],
    /// Received and sent by this server, bytes.
    served: [u64; 2],
    clients: u64,
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
        System { state: Mutex::default(), started: Instant::now() }
    }

    /// Reads everything anew.
    pub(super) fn sample(&self, handle: &Handle) {
        let mut sample = Sample { at_ms: wall_ms(), ..Sample::default() };
        sample.read_own(&read("/proc/self/stat"));
        sample.machine = machine_times(&read("/proc/stat"));
        sample.memory = memory(&read("/proc/meminfo"));
        sample.net = net(&read("/proc/net/dev"));
        for counters in &handle.counters {
            sample.served[0] += counters.bytes_received.load(Relaxed);
            sample.served[1] += counters.bytes_sent.load(Relaxed);
        }
        sample.clients = handle.clients.len() as u64;
        let mut state = self.state();
        let seconds = (sample.at_ms - state.at_ms) as f64 / 1000.0;
        if state.at_ms > 0 && seconds > 0.0 {
            let ticks = sample.cpu_ticks() - state.cpu_ticks();
            sample.own_share = (ticks as f64 / TICKS / seconds).max(0.0);
            let all: u64 = sample.machine.iter().sum();
            let all = all.saturating_sub(state.machine.iter().sum());
            let idle = sample.machine[3].saturating_sub(state.machine[3]);
            sample.machine_share = 1.0 - share(idle.min(all), all.max(1));
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
        let arguments = fs::read("/proc/self/cmdline").unwrap_or_default();
        let arguments: Vec<_> = arguments
            .split(|byte| *byte == 0)
            .filter(|argument| !argument.is_empty())
            .map(String::from_utf8_lossy)
            .collect();
        let cwd = std::env::current_dir().unwrap_or_default();
        let loads = read("/proc/loadavg");
        let load = |n: usize| -> f64 {
            loads.split_whitespace().nth(n).and_then(|text| text.parse().ok()).unwrap_or(0.0)
        };
        let times = read("/proc/uptime");
        let time = |n: usize| -> f64 {
            times.split_whitespace().nth(n).and_then(|text| text.parse().ok()).unwrap_or(0.0)
        };
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        let sockets = sockets(&read("/proc/net/sockstat"), &read("/proc/net/snmp"));
        json!({
            "ok": s.at_ms > 0,
            "now_ms": wall_ms(),
            "self": {
                "version": version::VERSION,
                "pid": std::process::id(),
                "ppid": s.field(1),
                "argv": arguments.join(" "),
                "cwd": cwd.display().to_string(),
                "mem_kbyte": s.resident_kb(),
                "mem_percent": share(s.resident_kb(), s.memory.total),
                "cpu_percent": s.own_share,
                "srs_uptime": self.started.elapsed().as_secs(),
            },
            "system": {
                "cpu_percent": s.machine_share,
                "disk_read_KBps": 0,
                "disk_write_KBps": 0,
                "disk_busy_percent": 0.0,
                "mem_ram_kbyte": s.memory.total,
                "mem_ram_percent": s.memory.share_ram(),
                "mem_swap_kbyte": s.memory.swap_total,
                "mem_swap_percent": s.memory.share_swap(),
                "cpus": cpus,
                "cpus_online": cpus,
                "uptime": time(0),
                // SRS spells it so.
                "ilde_time": time(1),
                "load_1m": load(0),
                "load_5m": load(1),
                "load_15m": load(2),
                "net_sample_time": s.at_ms,
                "net_recv_bytes": s.net[0],
                "net_send_bytes": s.net[1],
                "net_recvi_bytes": s.net[2],
                "net_sendi_bytes": s.net[3],
                "srs_sample_time": s.at_ms,
                "srs_recv_bytes": s.served[0],
                "srs_send_bytes": s.served[1],
                "conn_sys": sockets[0],
                "conn_sys_et": sockets[1],
                "conn_sys_tw": sockets[2],
                "conn_sys_udp": sockets[3],
                "conn_srs": handle.gate.connections(),
            },
        })
    }

    pub(super) fn rusages(&self) -> Value {
        let s = self.state().clone();
        let status = read("/proc/self/status");
        let io = read("/proc/self/io");
        let of = |text: &str, name: &str| -> u64 {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            let value = line.and_then(|line| line.split_whitespace().next());
            value.and_then(|value| value.parse().ok()).unwrap_or(0)
        };
        let (mut voluntary, mut involuntary) = (0, 0);
        for task in fs::read_dir("/proc/self/task").into_iter().flatten().flatten() {
            let status = fs::read_to_string(task.path().join("status")).unwrap_or_default();
            voluntary += of(&status, "voluntary_ctxt_switches:");
            involuntary += of(&status, "nonvoluntary_ctxt_switches:");
        }
        json!({
            "ok": s.at_ms > 0,
            "sample_time": s.at_ms,
            "ru_utime": s.field(11) / TICKS as i64,
            "ru_stime": s.field(12) / TICKS as i64,
            "ru_maxrss": of(&status, "VmHWM:"),
            "ru_ixrss": 0, "ru_idrss": 0, "ru_isrss": 0,
            "ru_minflt": s.field(7),
            "ru_majflt": s.field(9),
            "ru_nswap": 0,
            "ru_inblock": of(&io, "read_bytes:") / 512,
            "ru_oublock": of(&io, "write_bytes:") / 512,
            "ru_msgsnd": 0, "ru_msgrcv": 0, "ru_nsignals": 0,
            "ru_nvcsw": voluntary,
            "ru_nivcsw": involuntary,
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

/// Bytes received and sent by all devices, and by the inner ones.
fn net(text: &str) -> [u64; 4] {
    let mut sums = [0; 4];
    for line in text.lines() {
        let Some((device, numbers)) = line.split_once(':') else { continue };
        let numbers: Vec<u64> =
            numbers.split_whitespace().map(|text| text.parse().unwrap_or(0)).collect();
        let (Some(received), Some(sent)) = (numbers.first(), numbers.get(8)) else { continue };
        let at = if device.trim() == "lo" { 2 } else { 0 };
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
        let system = System { state: Mutex::new(sample), started: Instant::now() };
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
        assert_eq!(net(dev), [101, 202, 5, 6]);
        let sockstat = "sockets: used 200\nTCP: inuse 9 orphan 0 tw 4 alloc 12 mem 1\n\
                        UDP: inuse 3 mem 0\n";
        let snmp = "Tcp: RtoAlgorithm CurrEstab InSegs\nTcp: 1 7 100\n";
        assert_eq!(sockets(sockstat, snmp), [13, 7, 4, 3]);
        assert_eq!(sockets("", ""), [0; 4]);
    }
}
