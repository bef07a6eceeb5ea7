//! Looks at the server from outside: CPU per thread, resident memory, socket memory.

use std::collections::BTreeMap;
use std::fs;

use serde::Serialize;

/// CPU time of one thread since it started, seconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct ThreadCpu {
    /// Name as the process set it.
    pub name: String,
    /// In user space.
    pub user: f64,
    /// In the kernel.
    pub system: f64,
}

/// One look.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Sample {
    /// Seconds since the start of the run.
    pub t: f64,
    /// CPU seconds of the processes since they started, ended threads included.
    pub user: f64,
    /// CPU seconds in the kernel.
    pub system: f64,
    /// Resident memory, bytes.
    pub rss: u64,
    /// Proportional share of it (pages shared with other processes counted in part), bytes.
    pub pss: u64,
    /// Kernel memory of TCP sockets of the whole machine, bytes.
    pub socket_memory: u64,
    /// TCP sockets in use on the whole machine.
    pub sockets: u64,
    /// Open descriptors.
    pub descriptors: u64,
    /// Threads by id.
    #[serde(skip)]
    pub threads: BTreeMap<u32, ThreadCpu>,
}

/// Looks at processes now. A process that is gone contributes nothing.
pub fn sample(pids: &[u32], t: f64) -> Sample {
    let mut s = Sample { t, ..Sample::default() };
    (s.sockets, s.socket_memory) = sockstat();
    for &pid in pids {
        let Some(whole) = thread_cpu(&format!("/proc/{pid}/stat")) else { continue };
        s.user += whole.user;
        s.system += whole.system;
        if let Ok(text) = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")) {
            s.rss += kilobytes(&text, "Rss:");
            s.pss += kilobytes(&text, "Pss:");
        }
        s.descriptors += count(&format!("/proc/{pid}/fd"));
        for entry in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
            let tid = entry.file_name().to_string_lossy().parse().unwrap_or(0);
            if let Some(cpu) = thread_cpu(&format!("/proc/{pid}/task/{tid}/stat")) {
                s.threads.insert(tid, cpu);
            }
        }
    }
    s
}

fn count(folder: &str) -> u64 {
    fs::read_dir(folder).map_or(0, |d| d.count() as u64)
}

/// proc(5): the name is in parentheses and may hold anything; utime and stime are fields 14 and 15.
fn thread_cpu(path: &str) -> Option<ThreadCpu> {
    let text = fs::read_to_string(path).ok()?;
    let (open, close) = (text.find('(')?, text.rfind(')')?);
    let ticks = rustix::param::clock_ticks_per_second() as f64;
    let mut fields = text[close + 1..].split_ascii_whitespace().skip(11);
    let mut next = || fields.next()?.parse::<f64>().ok();
    Some(ThreadCpu {
        name: text[open + 1..close].to_owned(),
        user: next()? / ticks,
        system: next()? / ticks,
    })
}

fn kilobytes(text: &str, key: &str) -> u64 {
    let line = text.lines().find(|l| l.starts_with(key)).unwrap_or_default();
    line.split_ascii_whitespace().nth(1).and_then(|n| n.parse::<u64>().ok()).unwrap_or(0) * 1024
}

/// TCP sockets in use and the pages they hold, in bytes.
fn sockstat() -> (u64, u64) {
    let text = fs::read_to_string("/proc/net/sockstat").unwrap_or_default();
    let line = text.lines().find(|l| l.starts_with("TCP:")).unwrap_or_default();
    let words: Vec<&str> = line.split_ascii_whitespace().collect();
    let after = |key: &str| {
        let at = words.iter().position(|w| *w == key)?;
        words.get(at + 1)?.parse::<u64>().ok()
    };
    let pages = after("mem").unwrap_or(0);
    (after("inuse").unwrap_or(0), pages * rustix::param::page_size() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_threads_memory_and_descriptors() {
        let s = sample(&[std::process::id()], 0.0);
        assert!(s.rss > 1_000_000 && s.pss > 0 && s.descriptors > 2, "{s:?}");
        assert!(!s.threads.is_empty());
        assert_eq!(sample(&[u32::MAX], 0.0).rss, 0);
    }
}
