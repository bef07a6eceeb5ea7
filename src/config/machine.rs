//! What this machine gives to the process: memory and descriptors.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::types::MediaMemory;
use crate::limits::{
    DESCRIPTORS_RESERVED, MEDIA_MEMORY_AUTO_MAX, MEDIA_MEMORY_MIN, TLS_CONNECTIONS_MAX,
};

/// Memory in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// Of the machine.
    pub total: u64,
    /// The tightest control-group limit above the process, if there is one.
    pub cgroup: Option<u64>,
}

impl Memory {
    /// Reads `/proc/meminfo` and the control groups of this process.
    pub fn read() -> Self {
        let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        Self {
            total: meminfo_bytes(&meminfo, "MemTotal:").unwrap_or(0),
            cgroup: cgroup_limit(&groups, Path::new("/sys/fs/cgroup")),
        }
    }

    /// What the process may use at most.
    pub fn usable(&self) -> u64 {
        self.cgroup.map_or(self.total, |limit| limit.min(self.total))
    }
}

impl MediaMemory {
    /// The budget in bytes on a machine with this memory.
    pub fn bytes(&self, memory: Memory) -> u64 {
        match *self {
            Self::Bytes(bytes) => bytes,
            Self::Auto => (memory.usable() / 4).clamp(MEDIA_MEMORY_MIN, MEDIA_MEMORY_AUTO_MAX),
        }
    }
}

/// Raises the soft open-file limit to the hard one and returns it; `u64::MAX` is no limit.
pub fn raise_open_files() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
        // Not being allowed to is no error: the limit in force is read back below.
        let _ = setrlimit(Resource::Nofile, raised);
    }
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// How many connections through TLS an open-file limit allows, at most. Each of them takes two
/// descriptors beside the one of its shard, and half of all are left to others.
pub fn fit_tls_connections(open_files: u64) -> u32 {
    let room = open_files.saturating_sub(u64::from(DESCRIPTORS_RESERVED)) / 4;
    room.clamp(1, u64::from(TLS_CONNECTIONS_MAX)) as u32
}

/// Fits `max_connections` into an open-file limit: the number to use and, when it is lower than
/// what was asked for, the line that says so. With HTTPS (`https`) some are kept for its front.
pub fn fit_connections(wanted: u32, open_files: u64, https: bool) -> (u32, Option<String>) {
    let front = if https { 2 * fit_tls_connections(open_files) } else { 0 };
    let reserved = u64::from(DESCRIPTORS_RESERVED + front);
    let room = open_files.saturating_sub(reserved).max(1);
    if u64::from(wanted) <= room {
        return (wanted, None);
    }
    let line = format!(
        "max_connections is {room} instead of {wanted}, because the open-file limit is \
         {open_files}; raise it with `ulimit -Hn {0}` or LimitNOFILE={0} to serve more",
        u64::from(wanted) + reserved
    );
    (room as u32, Some(line))
}

/// True when the process runs in a container, by the marks that container engines leave.
pub(super) fn in_container() -> bool {
    ["/.dockerenv", "/run/.containerenv"].iter().any(|mark| Path::new(mark).exists())
        || std::env::var_os("KUBERNETES_SERVICE_HOST").is_some()
}

/// A `kB` line of `/proc/meminfo`, in bytes.
fn meminfo_bytes(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}

/// The lowest `memory.max` from the process's group up to the root (version 2), or the group's
/// `memory.limit_in_bytes` (version 1).
fn cgroup_limit(groups: &str, root: &Path) -> Option<u64> {
    let number = |path: PathBuf| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    groups
        .lines()
        .filter_map(|line| {
            let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
            let path = path.trim_start_matches('/');
            if controllers.is_empty() {
                let group = root.join(path);
                let up = group.ancestors().take_while(|dir| dir.starts_with(root));
                up.filter_map(|dir| number(dir.join("memory.max"))).min()
            } else if controllers.split(',').any(|name| name == "memory") {
                let root = root.join("memory");
                // Inside a container the path is the host's and the limit sits at the root.
                number(root.join(path).join("memory.limit_in_bytes"))
                    .or_else(|| number(root.join("memory.limit_in_bytes")))
            } else {
                None
            }
        })
        // Version 1 writes "no limit" as a huge number.
        .filter(|limit| *limit < 1 << 60)
        .min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auto_budget_is_a_quarter_within_bounds() {
        let of = |total, cgroup| MediaMemory::Auto.bytes(Memory { total, cgroup });
        assert_eq!(of(8 << 30, None), 2 << 30);
        assert_eq!(of(64 << 30, None), 4 << 30);
        assert_eq!(of(64 << 30, Some(1 << 30)), 256 << 20);
        assert_eq!(of(0, None), MEDIA_MEMORY_MIN);
        assert!(Memory::read().total > 0);
    }

    #[test]
    fn connections_fit_the_open_file_limit() {
        assert_eq!(fit_connections(1000, 1 << 20, false), (1000, None));
        let (fit, line) = fit_connections(100_000, 1024, false);
        assert_eq!(fit, 896);
        assert!(line.unwrap().contains("LimitNOFILE=100128"));
        // One descriptor for each connection, and two more for each through TLS.
        let (fit, _) = fit_connections(100_000, 1024, true);
        assert_eq!((fit, fit_tls_connections(1024)), (448, 224));
        assert_eq!(fit_connections(1000, 1 << 20, true), (1000, None));
        assert_eq!(fit_tls_connections(u64::MAX), TLS_CONNECTIONS_MAX);
        assert_eq!(fit_tls_connections(0), 1);
    }

    #[test]
    fn cgroup_limits_of_both_versions() {
        let root = std::env::temp_dir().join(format!("ringcast-cgroup-{}", std::process::id()));
        fs::create_dir_all(root.join("a/b")).unwrap();
        fs::create_dir_all(root.join("memory")).unwrap();
        fs::write(root.join("a/memory.max"), "1000000\n").unwrap();
        fs::write(root.join("a/b/memory.max"), "max\n").unwrap();
        assert_eq!(cgroup_limit("0::/a/b\n", &root), Some(1_000_000));
        fs::write(root.join("memory/memory.limit_in_bytes"), "9223372036854771712\n").unwrap();
        assert_eq!(cgroup_limit("5:cpu,memory:/docker/x\n", &root), None);
        fs::write(root.join("memory/memory.limit_in_bytes"), "5000\n").unwrap();
        assert_eq!(cgroup_limit("5:cpu,memory:/docker/x\n", &root), Some(5000));
        fs::remove_dir_all(root).unwrap();
    }
}
