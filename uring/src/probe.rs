//! What the kernel can do, and why it cannot when it cannot.

use std::fmt;
use std::io;
use std::os::fd::AsRawFd;

use io_uring::{IoUring, opcode, register, types};

use crate::recv::{BufferRing, Scheme};

/// The oldest kernel this crate works on: the first with SENDMSG_ZC and DEFER_TASKRUN.
pub const KERNEL_MIN: (u32, u32) = (6, 1);

/// Why io_uring cannot be used. [`Unavailable::fix`] says what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unavailable {
    /// The kernel is older than [`KERNEL_MIN`].
    KernelTooOld {
        /// Release as the kernel states it.
        release: String,
    },
    /// `kernel.io_uring_disabled` forbids it (1: for ordinary users, 2: for all).
    DisabledBySysctl {
        /// The sysctl's value.
        value: u32,
    },
    /// A system call filter (a container's, systemd's) forbids it.
    Filtered {
        /// What the call returned: EPERM or ENOSYS.
        errno: i32,
    },
    /// RLIMIT_MEMLOCK is too small for the queues.
    LockedMemory,
    /// RLIMIT_NOFILE is used up.
    Descriptors,
    /// The kernel lacks an operation that every kernel of this age should have.
    MissingOperation {
        /// Its name.
        name: &'static str,
    },
    /// Anything else.
    Other {
        /// What was tried.
        what: &'static str,
        /// What the call returned.
        errno: i32,
    },
}

impl Unavailable {
    /// One line that says what to do.
    pub fn fix(&self) -> String {
        match self {
            Unavailable::KernelTooOld { .. } => {
                format!("run Linux {}.{} or newer", KERNEL_MIN.0, KERNEL_MIN.1)
            }
            Unavailable::DisabledBySysctl { .. } => {
                "run `sysctl -w kernel.io_uring_disabled=0` on the host, and put it into \
                 /etc/sysctl.d to keep it"
                    .to_owned()
            }
            Unavailable::Filtered { .. } => {
                "allow io_uring_setup, io_uring_enter and io_uring_register in the seccomp \
                 profile (containers: --security-opt seccomp=PROFILE; systemd: \
                 SystemCallFilter=@io-uring)"
                    .to_owned()
            }
            Unavailable::LockedMemory => {
                "raise RLIMIT_MEMLOCK (`ulimit -l`, systemd: LimitMEMLOCK=infinity) or start \
                 fewer shards"
                    .to_owned()
            }
            Unavailable::Descriptors => {
                "raise RLIMIT_NOFILE (`ulimit -n`, systemd: LimitNOFILE=)".to_owned()
            }
            Unavailable::MissingOperation { .. } | Unavailable::Other { .. } => {
                "run a distribution kernel with CONFIG_IO_URING".to_owned()
            }
        }
    }

    /// Finds the reason behind a failed set-up call.
    pub(crate) fn from_setup(what: &'static str, error: &io::Error) -> Unavailable {
        let errno = error.raw_os_error().unwrap_or(libc::EIO);
        let disabled = disabled_sysctl().unwrap_or(0);
        match errno {
            libc::EPERM if disabled > 0 => Unavailable::DisabledBySysctl { value: disabled },
            libc::EPERM | libc::ENOSYS | libc::EACCES => Unavailable::Filtered { errno },
            libc::ENOMEM => Unavailable::LockedMemory,
            libc::EMFILE | libc::ENFILE => Unavailable::Descriptors,
            errno => Unavailable::Other { what, errno },
        }
    }
}

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("io_uring cannot be used: ")?;
        match self {
            Unavailable::KernelTooOld { release } => write!(f, "kernel {release} is too old"),
            Unavailable::DisabledBySysctl { value } => {
                write!(f, "the sysctl kernel.io_uring_disabled is {value}")
            }
            Unavailable::Filtered { errno } => {
                let error = io::Error::from_raw_os_error(*errno);
                write!(f, "a system call filter (seccomp) forbids it ({error})")
            }
            Unavailable::LockedMemory => f.write_str("RLIMIT_MEMLOCK is too small"),
            Unavailable::Descriptors => f.write_str("no file descriptors are left"),
            Unavailable::MissingOperation { name } => write!(f, "the kernel lacks {name}"),
            Unavailable::Other { what, errno } => {
                write!(f, "{what}: {}", io::Error::from_raw_os_error(*errno))
            }
        }
    }
}

impl std::error::Error for Unavailable {}

/// Optional features and the state of the machine, for reports and for choosing a path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Probe {
    /// Kernel release as the kernel states it.
    pub release: String,
    /// Major and minor version.
    pub kernel: (u32, u32),
    /// Several receive buffers in one completion (6.10). Not used. They save completions where an
    /// arrival is larger than a buffer, and pieces come from buffers of 64 KiB. The receiving
    /// thread's CPU time per GB, 200 connections of 1,400-byte writes over loopback on a busy
    /// machine, medians of four alternating rounds (s, lowest to highest): whole buffers 4.3
    /// (3.6 - 5.1), with bundles 4.2 (3.6 - 4.5); pieces 4.5 (4.1 - 5.0), with bundles 4.6
    /// (4.1 - 5.1). Besides, kernels before mid-2026 can lose the flag that says that a buffer
    /// is not used up yet when a bundle meets pieces, and then two owners share its memory.
    pub receive_bundles: bool,
    /// Receive buffers used up piece by piece (6.12).
    pub incremental_buffers: bool,
    /// Plain vectored send (6.17).
    pub vectored_send: bool,
    /// Vectored zero-copy send from registered memory (6.15).
    pub vectored_fixed_send: bool,
    /// Waiting for several completions with a bound (6.12).
    pub min_wait: bool,
    /// Busy polling of network devices (6.9).
    pub napi: bool,
    /// Rings can wake rings (with deferred task work: 6.6).
    pub ring_messages: bool,
    /// `kernel.io_uring_disabled`, when the kernel has it.
    pub disabled: Option<u32>,
    /// Huge pages of 2 MiB reserved by `vm.nr_hugepages`, and of these the free ones.
    pub huge_pages: (u64, u64),
}

/// Asks the kernel by trying things out on small rings. Takes a few milliseconds.
///
/// # Errors
/// The reason why io_uring cannot be used at all.
pub fn probe() -> Result<Probe, Unavailable> {
    let release = release();
    let kernel = version(&release)?;
    let ring = IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .build(8)
        .map_err(|error| Unavailable::from_setup("io_uring_setup", &error))?;
    operations(&ring)?;
    let incremental = BufferRing::new(8, 4096, Scheme::Pieces).is_ok_and(|buffers| {
        let (table, count) = (buffers.table(), buffers.count());
        let flags = buffers.scheme().flags();
        // SAFETY: the table outlives its registration, which ends in the next line; no receive
        // is issued on this ring.
        let result =
            unsafe { ring.submitter().register_buf_ring_with_flags(table, count, 0, flags) };
        result.is_ok() && ring.submitter().unregister_buf_ring(0).is_ok()
    });
    let napi = {
        let mut settings = types::Napi::new();
        ring.submitter().register_napi(&mut settings).is_ok()
            && ring.submitter().unregister_napi(&mut settings).is_ok()
    };
    Ok(Probe {
        receive_bundles: ring.params().is_feature_recvsend_bundle(),
        incremental_buffers: incremental,
        vectored_send: kernel >= (6, 17),
        vectored_fixed_send: kernel >= VECTORED_FIXED_SEND,
        min_wait: ring.params().is_feature_min_timeout(),
        napi,
        ring_messages: kernel >= RING_MESSAGES,
        disabled: disabled_sysctl(),
        huge_pages: (huge_pages("nr_hugepages"), huge_pages("free_hugepages")),
        release,
        kernel,
    })
}

/// First kernel whose SENDMSG_ZC takes registered memory.
pub(crate) const VECTORED_FIXED_SEND: (u32, u32) = (6, 15);
/// First long-term kernel whose MSG_RING is safe towards a DEFER_TASKRUN ring.
pub(crate) const RING_MESSAGES: (u32, u32) = (6, 6);

/// Version of the running kernel.
pub(crate) fn kernel() -> Result<(u32, u32), Unavailable> {
    version(&release())
}

fn release() -> String {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    release.trim().to_owned()
}

fn version(release: &str) -> Result<(u32, u32), Unavailable> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    let kernel = match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor),
        // Unreadable (no /proc): let the set-up calls speak for themselves.
        _ => return Ok(KERNEL_MIN),
    };
    if kernel < KERNEL_MIN {
        return Err(Unavailable::KernelTooOld { release: release.to_owned() });
    }
    Ok(kernel)
}

/// Checks that all operations a driver relies on are there.
pub(crate) fn operations(ring: &IoUring) -> Result<(), Unavailable> {
    let mut probe = register::Probe::new();
    ring.submitter()
        .register_probe(&mut probe)
        .map_err(|error| Unavailable::from_setup("io_uring_register", &error))?;
    let needed = [
        (opcode::Accept::CODE, "ACCEPT"),
        (opcode::Connect::CODE, "CONNECT"),
        (opcode::Recv::CODE, "RECV"),
        (opcode::Send::CODE, "SEND"),
        (opcode::SendMsg::CODE, "SENDMSG"),
        (opcode::SendZc::CODE, "SEND_ZC"),
        (opcode::SendMsgZc::CODE, "SENDMSG_ZC"),
        (opcode::Splice::CODE, "SPLICE"),
        (opcode::PollAdd::CODE, "POLL_ADD"),
        (opcode::AsyncCancel::CODE, "ASYNC_CANCEL"),
        (opcode::Read::CODE, "READ"),
        (opcode::OpenAt2::CODE, "OPENAT2"),
        (opcode::Statx::CODE, "STATX"),
    ];
    debug_assert!(ring.as_raw_fd() >= 0);
    match needed.into_iter().find(|&(code, _)| !probe.is_supported(code)) {
        Some((_, name)) => Err(Unavailable::MissingOperation { name }),
        None => Ok(()),
    }
}

fn disabled_sysctl() -> Option<u32> {
    let text = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").ok()?;
    text.trim().parse().ok()
}

fn huge_pages(what: &str) -> u64 {
    let path = format!("/sys/kernel/mm/hugepages/hugepages-2048kB/{what}");
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.trim().parse().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read() {
        assert_eq!(version("6.18.44-fc-v595"), Ok((6, 18)));
        assert_eq!(version("6.1-rc3"), Ok((6, 1)));
        assert_eq!(version(""), Ok(KERNEL_MIN));
        assert!(matches!(version("5.15.0-91"), Err(Unavailable::KernelTooOld { .. })));
    }

    #[test]
    fn every_reason_has_one_line_and_a_fix() {
        let reasons = [
            Unavailable::KernelTooOld { release: "5.10".into() },
            Unavailable::DisabledBySysctl { value: 2 },
            Unavailable::Filtered { errno: libc::EPERM },
            Unavailable::LockedMemory,
            Unavailable::Descriptors,
            Unavailable::MissingOperation { name: "SEND_ZC" },
            Unavailable::Other { what: "io_uring_setup", errno: libc::EINVAL },
        ];
        for reason in reasons {
            let text = format!("{reason}; {}", reason.fix());
            assert!(!text.contains('\n') && !text.contains("  "), "{text}");
        }
    }

    #[test]
    fn this_machine_is_probed() {
        let probe = probe().expect("the tests need io_uring");
        assert!(probe.kernel >= KERNEL_MIN);
        assert!(probe.huge_pages.1 <= probe.huge_pages.0);
    }
}
