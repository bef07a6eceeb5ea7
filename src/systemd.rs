//! What a service manager is told: that the server serves, reloads, stops, and is alive
//! (sd_notify). Without one, nothing happens.

use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// What the manager can be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The server serves, or has finished reloading.
    Ready,
    /// The configuration is being exchanged; `Ready` follows.
    Reloading,
    /// The server ends.
    Stopping,
    /// The server is alive.
    Alive,
}

/// Tells the manager, if there is one that listens. Its not listening is its own affair.
pub fn notify(state: State) {
    let Some(to) = std::env::var_os("NOTIFY_SOCKET") else { return };
    let text = match state {
        State::Ready => "READY=1".to_string(),
        State::Reloading => {
            let now = clock_gettime(ClockId::Monotonic);
            let micros = now.tv_sec * 1_000_000 + now.tv_nsec / 1000;
            format!("RELOADING=1\nMONOTONIC_USEC={micros}")
        }
        State::Stopping => "STOPPING=1".to_string(),
        State::Alive => "WATCHDOG=1".to_string(),
    };
    if let Err(why) = send(to.as_encoded_bytes(), text.as_bytes()) {
        tracing::debug!("the service manager cannot be told {text:?}: {why}");
    }
}

fn send(to: &[u8], text: &[u8]) -> io::Result<()> {
    use std::os::unix::ffi::OsStrExt as _;
    let addr = match to.strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(to))?,
    };
    let socket = UnixDatagram::unbound()?;
    // A manager that does not read must not hold up the server.
    socket.set_nonblocking(true)?;
    socket.send_to_addr(text, &addr).map(drop)
}

/// How often the manager wants to hear [`State::Alive`]: half of the time after which it gives
/// the process up. `None` when it does not ask for it.
pub fn watchdog() -> Option<Duration> {
    let variable = |name: &str| std::env::var(name).ok();
    watchdog_of(variable("WATCHDOG_USEC"), variable("WATCHDOG_PID"), std::process::id())
}

fn watchdog_of(usec: Option<String>, pid: Option<String>, own: u32) -> Option<Duration> {
    let meant = pid.is_none_or(|pid| pid.trim() == own.to_string());
    let usec = usec?.trim().parse::<u64>().ok().filter(|usec| *usec > 0)?;
    meant.then(|| Duration::from_micros(usec / 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datagrams_arrive_by_path_and_by_name() {
        let path = std::env::temp_dir().join(format!("ringcast-notify-{}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let manager = UnixDatagram::bind(&path).unwrap();
        send(path.to_str().unwrap().as_bytes(), b"READY=1").unwrap();
        let mut buffer = [0; 64];
        let length = manager.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"READY=1");
        std::fs::remove_file(&path).unwrap();
        assert!(send(path.to_str().unwrap().as_bytes(), b"x").is_err());

        let name = format!("ringcast-notify-{}", std::process::id());
        let addr = SocketAddr::from_abstract_name(name.as_bytes()).unwrap();
        let manager = UnixDatagram::bind_addr(&addr).unwrap();
        send(format!("@{name}").as_bytes(), b"STOPPING=1").unwrap();
        let length = manager.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"STOPPING=1");
    }

    #[test]
    fn the_watchdog_is_fed_in_half_its_time() {
        let of = |usec: &str, pid: Option<&str>| {
            watchdog_of(Some(usec.into()), pid.map(String::from), 7)
        };
        assert_eq!(of("10000000", None), Some(Duration::from_secs(5)));
        assert_eq!(of("10000000", Some("7")), Some(Duration::from_secs(5)));
        assert_eq!(of("10000000", Some("8")), None);
        assert_eq!(of("0", None), None);
        assert_eq!(of("x", None), None);
        assert_eq!(watchdog_of(None, None, 7), None);
    }
}
