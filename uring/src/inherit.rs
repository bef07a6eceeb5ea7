//! Sockets that the process was started with: what systemd's socket activation hands over.

use std::os::fd::{AsFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::io::{FdFlags, fcntl_getfd, fcntl_setfd};

/// The first descriptor that is handed over (sd_listen_fds: SD_LISTEN_FDS_START).
const FIRST: RawFd = 3;
/// More than that many are not taken.
const COUNT_MAX: RawFd = 64;

/// Takes the sockets that the service manager has opened for this process, by the variables
/// `LISTEN_PID` and `LISTEN_FDS`. They are handed out once; a second call gives none, and so does
/// a process that they were not meant for.
pub fn take_inherited() -> Vec<OwnedFd> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    let number = |name: &str| std::env::var(name).ok()?.trim().parse::<RawFd>().ok();
    let meant = number("LISTEN_PID").is_some_and(|pid| pid as u32 == std::process::id());
    let count = number("LISTEN_FDS").unwrap_or(0).clamp(0, COUNT_MAX);
    if !meant || count == 0 || TAKEN.swap(true, Ordering::Relaxed) {
        return Vec::new();
    }
    (FIRST..FIRST + count).filter_map(take).collect()
}

/// Makes an open descriptor number an owned one.
fn take(number: RawFd) -> Option<OwnedFd> {
    // SAFETY: the flags are asked for first, so what is wrapped for good below is open. The
    // service manager has put it there for this process, whose start-up code knows nothing of
    // it, and `take_inherited` runs once, so nobody else owns it.
    let fd = unsafe {
        let probe = std::mem::ManuallyDrop::new(OwnedFd::from_raw_fd(number));
        fcntl_getfd(probe.as_fd()).ok()?;
        std::mem::ManuallyDrop::into_inner(probe)
    };
    // What this process starts must not hold the port open.
    fcntl_setfd(&fd, FdFlags::CLOEXEC).ok()?;
    Some(fd)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn nothing_is_taken_that_was_not_handed_over() {
        // The test process has no such variables; its descriptor 3 is somebody's.
        if std::env::var_os("LISTEN_PID").is_none() {
            assert!(take_inherited().is_empty());
        }
    }

    #[test]
    fn open_descriptors_are_told_from_closed_ones() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let number = OwnedFd::from(socket.try_clone().expect("a duplicate"));
        let raw = number.as_raw_fd();
        std::mem::forget(number);
        assert_eq!(take(raw).expect("it is open").as_raw_fd(), raw);
        assert!(take(1 << 20).is_none());
    }
}
