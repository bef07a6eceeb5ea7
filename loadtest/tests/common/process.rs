//! Child processes that cannot outlive or outlast their test.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// A running child whose output is collected line by line. Dropping it ends it.
pub struct Process {
    name: String,
    child: Child,
    output: Arc<Output>,
}

#[derive(Default)]
struct Output {
    lines: Mutex<Lines>,
    changed: Condvar,
}

#[derive(Default)]
struct Lines {
    stdout: Vec<String>,
    stderr: Vec<String>,
    open_pipes: u32,
}

/// How a process ended and what it wrote.
pub struct Finished {
    /// Its exit status.
    pub status: ExitStatus,
    /// Lines of standard output.
    pub stdout: Vec<String>,
    /// Lines of standard error.
    pub stderr: Vec<String>,
}

impl Process {
    /// Starts the command.
    pub fn start(name: &str, command: &mut Command) -> Process {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{name} does not start: {error}: {command:?}"));
        let output = Arc::new(Output::default());
        output.lines.lock().expect("lock").open_pipes = 2;
        collect(child.stdout.take().expect("piped"), &output, |lines| &mut lines.stdout);
        collect(child.stderr.take().expect("piped"), &output, |lines| &mut lines.stderr);
        Process { name: name.to_owned(), child, output }
    }

    /// Waits until a line of either output contains `text`, and returns that line.
    pub fn wait_for_line(&mut self, text: &str, limit: Duration) -> Result<String, String> {
        let deadline = Instant::now() + limit;
        let mut lines = self.output.lines.lock().expect("lock");
        loop {
            let found = lines.stdout.iter().chain(&lines.stderr).find(|line| line.contains(text));
            if let Some(line) = found {
                return Ok(line.clone());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || lines.open_pipes == 0 {
                let why = if left.is_zero() { "in time" } else { "before it ended" };
                return Err(format!("{} wrote no line with {text:?} {why}", self.name));
            }
            lines = self.output.changed.wait_timeout(lines, left).expect("lock").0;
        }
    }

    /// Everything written so far, standard output first.
    pub fn lines(&self) -> Vec<String> {
        let lines = self.output.lines.lock().expect("lock");
        lines.stdout.iter().chain(&lines.stderr).cloned().collect()
    }

    /// True while the process has not ended.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("wait").is_none()
    }

    /// Process id, for looking at `/proc`.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        // The process may have ended by itself, and then there is nothing to do.
        let _ = kill_process(pid, signal);
    }

    /// Waits for the end. After `limit` the process is killed and the test fails.
    pub fn finish(mut self, limit: Duration) -> Finished {
        let deadline = Instant::now() + limit;
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("wait") {
                break status;
            }
            if Instant::now() > deadline {
                let lines = self.lines();
                let tail = lines[lines.len().saturating_sub(20)..].join("\n");
                panic!("{} has not ended after {limit:?}; its last lines:\n{tail}", self.name);
            }
            thread::sleep(Duration::from_millis(20));
        };
        let mut lines = self.output.lines.lock().expect("lock");
        while lines.open_pipes > 0 {
            let (next, timeout) =
                self.output.changed.wait_timeout(lines, Duration::from_secs(5)).expect("lock");
            lines = next;
            assert!(!timeout.timed_out(), "{}: a pipe stays open after its end", self.name);
        }
        let stdout = std::mem::take(&mut lines.stdout);
        let stderr = std::mem::take(&mut lines.stderr);
        Finished { status, stdout, stderr }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.is_running() {
            // A polite end first: a browser driver takes its browsers with it.
            self.signal(Signal::TERM);
            let deadline = Instant::now() + Duration::from_secs(3);
            while self.is_running() && Instant::now() < deadline {
                thread::sleep(Duration::from_millis(20));
            }
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

impl Finished {
    /// Fails the test, with what the process wrote, unless it ended well.
    pub fn expect_success(self, name: &str) -> Finished {
        assert!(self.status.success(), "{name}: {}\n{}", self.status, self.stderr.join("\n"));
        self
    }
}

fn collect(
    pipe: impl Read + Send + 'static,
    output: &Arc<Output>,
    select: fn(&mut Lines) -> &mut Vec<String>,
) {
    let output = Arc::clone(output);
    thread::spawn(move || {
        let mut reader = BufReader::new(pipe);
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            line.clear();
            select(&mut output.lines.lock().expect("lock")).push(text);
            output.changed.notify_all();
        }
        output.lines.lock().expect("lock").open_pipes -= 1;
        output.changed.notify_all();
    });
}

/// File descriptors that a process has.
pub fn descriptors(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).expect("the process runs").count()
}

/// Memory that a process has of its own and shares, KiB.
pub fn resident_kb(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the process runs");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a line");
    line.split_whitespace().nth(1).and_then(|kb| kb.parse().ok()).expect("a number")
}
