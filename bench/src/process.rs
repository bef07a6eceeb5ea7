//! Child processes pinned to a core, and what a process has cost so far.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// A child that is killed and reaped when this is dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
}

/// Who goes first on a core where real-time priority is allowed, the rest of the machine last. What
/// else the machine does then takes no time from what is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rank {
    /// Players that come in a storm: they must not keep those waiting who are measured.
    Crowd = 1,
    /// Players.
    Players = 2,
    /// Servers.
    Server = 3,
    /// Publishers: what they send late counts as the server's latency.
    Publisher = 4,
}

/// True when programs are started with real-time priority.
pub fn is_real_time() -> bool {
    static ALLOWED: OnceLock<bool> = OnceLock::new();
    *ALLOWED.get_or_init(|| {
        let mut command = Command::new("chrt");
        command.args(["--rr", "1", "true"]).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    })
}

impl Process {
    /// Starts a program on one core (`taskset`), with its output in a file.
    ///
    /// # Errors
    /// `taskset` or `chrt` cannot be started.
    pub fn start(
        cpus: &str,
        rank: Rank,
        program: &Path,
        args: &[String],
        output: &Path,
    ) -> io::Result<Process> {
        let log = fs::File::create(output)?;
        let mut command = if is_real_time() {
            let mut command = Command::new("chrt");
            command.args(["--rr", &(rank as u8).to_string(), "taskset"]);
            command
        } else {
            Command::new("taskset")
        };
        let child = command
            .args(["-c", cpus])
            .arg(program)
            .args(args)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        Ok(Process { child })
    }

    /// Its process id: `chrt` and `taskset` replace themselves by the program.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for its end; true when it succeeded.
    ///
    /// # Errors
    /// Waiting failed, or it took longer than `limit`; then it is killed.
    pub fn wait(&mut self, limit: Duration) -> io::Result<bool> {
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status.success());
            }
            if began.elapsed() > limit {
                self.child.kill()?;
                return Err(io::Error::new(io::ErrorKind::TimedOut, "the program does not end"));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// True while it runs.
    pub fn runs(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        if self.wait(Duration::from_secs(3)).is_err() {
            let _ = self.child.wait();
        }
    }
}

/// CPU time of a process so far, seconds.
#[derive(Clone, Debug, Default)]
pub struct Cpu {
    /// All of it, exact (the scheduler's account).
    pub total: f64,
    /// In user space, by clock ticks.
    pub user: f64,
    /// In the kernel, by clock ticks.
    pub system: f64,
    /// Exact, by thread name (summed where names repeat).
    pub threads: BTreeMap<String, f64>,
}

impl Cpu {
    /// What a process has used so far; zero for one that is gone.
    pub fn of(pid: u32) -> Cpu {
        let mut cpu = Cpu::default();
        let ticks = rustix::param::clock_ticks_per_second() as f64;
        for entry in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
            let read = |name: &str| fs::read_to_string(entry.path().join(name)).unwrap_or_default();
            // proc(5): time on a processor in ns is the first field.
            let run = read("schedstat");
            let ns: f64 = run.split(' ').next().and_then(|n| n.parse().ok()).unwrap_or(0.0);
            cpu.total += ns / 1e9;
            let name = read("comm").trim().to_owned();
            *cpu.threads.entry(name).or_default() += ns / 1e9;
            // The name is in parentheses and may hold anything; utime and stime are 14 and 15.
            let stat = read("stat");
            let rest = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
            let mut fields = rest.split_ascii_whitespace().skip(11);
            let mut next = || fields.next().and_then(|n| n.parse::<f64>().ok()).unwrap_or(0.0);
            cpu.user += next() / ticks;
            cpu.system += next() / ticks;
        }
        cpu
    }

    /// What was used between `before` and this.
    pub fn since(&self, before: &Cpu) -> Cpu {
        let mut threads = self.threads.clone();
        for (name, seconds) in &mut threads {
            *seconds -= before.threads.get(name).unwrap_or(&0.0);
        }
        Cpu {
            total: self.total - before.total,
            user: self.user - before.user,
            system: self.system - before.system,
            threads,
        }
    }
}

/// Resident memory of a process that is its own (shared file pages left out), bytes.
pub fn resident(pid: u32) -> u64 {
    kilobytes(&format!("/proc/{pid}/smaps_rollup"), "Rss:") * 1024
}

/// Resident anonymous memory: heap, stacks and media memory, without the program's own text.
pub fn resident_anonymous(pid: u32) -> u64 {
    kilobytes(&format!("/proc/{pid}/smaps_rollup"), "Anonymous:") * 1024
}

/// Kernel memory of all TCP sockets of the machine (buffers), bytes.
pub fn socket_buffers() -> u64 {
    let text = fs::read_to_string("/proc/net/sockstat").unwrap_or_default();
    let line = text.lines().find(|l| l.starts_with("TCP:")).unwrap_or_default();
    let words: Vec<&str> = line.split_ascii_whitespace().collect();
    let at = words.iter().position(|w| *w == "mem").map_or(0, |at| at + 1);
    let pages: u64 = words.get(at).and_then(|n| n.parse().ok()).unwrap_or(0);
    pages * rustix::param::page_size() as u64
}

/// Kernel slab memory of the machine (sockets, inodes, files), bytes.
pub fn kernel_slab() -> u64 {
    kilobytes("/proc/meminfo", "Slab:") * 1024
}

fn kilobytes(path: &str, key: &str) -> u64 {
    let text = fs::read_to_string(path).unwrap_or_default();
    let line = text.lines().find(|l| l.starts_with(key)).unwrap_or_default();
    line.split_ascii_whitespace().nth(1).and_then(|n| n.parse().ok()).unwrap_or(0)
}

/// An address of this machine on which nothing listens.
///
/// # Errors
/// No port is free.
pub fn free_address() -> io::Result<SocketAddr> {
    TcpListener::bind("127.0.0.1:0")?.local_addr()
}

/// Waits until something accepts connections on an address.
pub fn wait_for(addr: SocketAddr, limit: Duration) -> bool {
    let began = Instant::now();
    while began.elapsed() < limit {
        if TcpStream::connect_timeout(&addr, Duration::from_millis(200)).is_ok() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    false
}

/// The child processes of a process.
pub fn children(pid: u32) -> Vec<u32> {
    let path = format!("/proc/{pid}/task/{pid}/children");
    let text = fs::read_to_string(path).unwrap_or_default();
    text.split_ascii_whitespace().filter_map(|n| n.parse().ok()).collect()
}

/// A program built together with this one.
pub fn sibling(name: &str) -> PathBuf {
    let me = std::env::current_exe().unwrap_or_default();
    let mut folder = me.parent().unwrap_or(Path::new(".")).to_owned();
    // Benches and tests live one folder deeper.
    if folder.ends_with("deps") {
        folder.pop();
    }
    folder.join(name)
}

/// A folder of our own for configurations and logs, removed with what is in it on drop.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
}

impl Scratch {
    /// A new, empty folder.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn new() -> io::Result<Scratch> {
        let path = std::env::temp_dir().join(format!("ringcast-bench-{}", std::process::id()));
        fs::create_dir_all(&path)?;
        Ok(Scratch { path })
    }

    /// A file in it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}
