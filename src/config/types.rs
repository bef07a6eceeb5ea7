//! The value types of settings that are more than a number, a switch or a text.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

/// One address to listen on, as written in a `listen` setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ListenAddr {
    /// Only a port: every address of the machine, IPv6 and IPv4.
    Port(u16),
    /// One address and port.
    Addr(SocketAddr),
}

impl ListenAddr {
    /// The addresses to try, best first: a bare port means one dual-stack IPv6 socket, and an
    /// IPv4 socket on machines without IPv6. Only the first that binds is used.
    pub fn candidates(&self) -> Vec<SocketAddr> {
        match *self {
            Self::Port(port) => vec![
                SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)),
                SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)),
            ],
            Self::Addr(addr) => vec![addr],
        }
    }

    /// True when the socket of the first candidate must also take IPv4 (IPV6_V6ONLY off).
    pub fn dual_stack(&self) -> bool {
        matches!(self, Self::Port(_))
    }

    /// The port; 0 lets the kernel choose one.
    pub fn port(&self) -> u16 {
        match self {
            Self::Port(port) => *port,
            Self::Addr(addr) => addr.port(),
        }
    }

    /// True when both cannot be bound at the same time.
    pub fn overlaps(&self, other: &Self) -> bool {
        if self.port() == 0 || self.port() != other.port() {
            return false;
        }
        match (self, other) {
            (Self::Addr(a), Self::Addr(b)) => {
                let wild = |x: &SocketAddr| x.ip().is_unspecified();
                a.ip() == b.ip() || (a.is_ipv4() == b.is_ipv4() && (wild(a) || wild(b)))
            }
            _ => true,
        }
    }
}

impl FromStr for ListenAddr {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(port) = text.parse::<u16>() {
            return Ok(Self::Port(port));
        }
        text.parse::<SocketAddr>().map(Self::Addr).map_err(|_| {
            format!("{text:?} is not a port, ip:port or [ip6]:port, for example \"[::]:1935\"")
        })
    }
}

impl fmt::Display for ListenAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Port(port) => write!(f, "{port}"),
            Self::Addr(addr) => write!(f, "{addr}"),
        }
    }
}

/// The merged-write window of a player: how long messages are gathered before a send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MwLatency {
    /// Zero while the shard is idle enough, growing to `mw_latency_max` as it fills.
    Adaptive,
    /// Always this long, as in SRS.
    Fixed(Duration),
}

/// The budget of registered media memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MediaMemory {
    /// A quarter of the machine's (or container's) memory, at most 4 GiB.
    Auto,
    /// This many bytes.
    Bytes(u64),
}

/// A field type that is one of a few words.
pub(super) trait Words: Copy + Sized + 'static {
    /// Each word with the value it stands for.
    const WORDS: &'static [(&'static str, Self)];
}

macro_rules! words {
    (
        $(#[doc = $doc:literal])+
        $name:ident { $($(#[doc = $vdoc:literal])+ $var:ident = $word:literal,)+ }
    ) => {
        $(#[doc = $doc])+
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name {
            $($(#[doc = $vdoc])+ $var,)+
        }

        impl $name {
            /// The words as written in a configuration.
            pub const ALL: &'static [&'static str] = &[$($word),+];
        }

        impl Words for $name {
            const WORDS: &'static [(&'static str, Self)] = &[$(($word, Self::$var)),+];
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $(Self::$var => $word),+ })
            }
        }
    };
}

words! {
    /// A kernel feature that is used when it helps, always, or never.
    Switch {
        /// Decide by what the kernel reports.
        Auto = "auto",
        /// Use it, and say so when that is not possible.
        On = "on",
        /// Do not use it.
        Off = "off",
    }
}

words! {
    /// Whose timeline a player sees.
    TimeJitter {
        /// The stream's own timeline, shared by all players.
        Off = "off",
        /// A timeline per player that starts at zero and never jumps or goes back.
        Full = "full",
        /// A timeline per player that starts at zero and is otherwise the stream's.
        Zero = "zero",
    }
}

words! {
    /// How a stream's recording is cut into files.
    DvrPlan {
        /// A file for each publish.
        Session = "session",
        /// A file for every so many seconds.
        Segment = "segment",
        /// One file per stream, to which each publish is added.
        Append = "append",
    }
}

words! {
    /// What a frame does that cannot be packed.
    OnError {
        /// Ends what it was to be packed for.
        Ignore = "ignore",
        /// Ends the publish.
        Disconnect = "disconnect",
        /// Is left out.
        Continue = "continue",
    }
}

words! {
    /// Where log lines go.
    LogTank {
        /// Standard error.
        Console = "console",
        /// The file of `log.file`.
        File = "file",
    }
}

words! {
    /// How much is logged; each level includes those after it.
    LogLevel {
        /// Every protocol message.
        Trace = "trace",
        /// Decisions inside a session.
        Debug = "debug",
        /// Connects, publishes, plays, stops.
        Info = "info",
        /// What works but should not be so.
        Warn = "warn",
        /// What failed.
        Error = "error",
    }
}

/// Reads a size such as `65536`, `"512KB"`, `"64 MiB"` or `"1GiB"` (KB is 1000, KiB 1024 bytes).
pub(super) fn parse_bytes(text: &str) -> Option<u64> {
    let (digits, unit) = split_number(text)?;
    let scale: f64 = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1.0,
        "k" | "kb" => 1e3,
        "m" | "mb" => 1e6,
        "g" | "gb" => 1e9,
        "t" | "tb" => 1e12,
        "ki" | "kib" => 1024.0,
        "mi" | "mib" => 1024.0 * 1024.0,
        "gi" | "gib" => 1024.0 * 1024.0 * 1024.0,
        "ti" | "tib" => 1024.0 * 1024.0 * 1024.0 * 1024.0,
        _ => return None,
    };
    let bytes = digits * scale;
    (bytes.fract() == 0.0 && bytes < 9e15).then_some(bytes as u64)
}

/// Writes a size with the largest unit that keeps it whole.
pub(super) fn show_bytes(bytes: u64) -> String {
    for (scale, unit) in [(1u64 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")] {
        if bytes >= scale && bytes.is_multiple_of(scale) {
            return format!("{}{unit}", bytes / scale);
        }
    }
    bytes.to_string()
}

/// Reads a time with its unit: `"250ms"`, `"1.5s"`, `"2m"`, `"1h"`. A bare number is `None`:
/// its unit is the setting's.
pub(super) fn parse_time(text: &str) -> Option<Duration> {
    let (number, unit) = split_number(text)?;
    let scale = match unit {
        "ms" => 1e-3,
        "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        "d" => 86_400.0,
        _ => return None,
    };
    Duration::try_from_secs_f64(number * scale).ok()
}

/// Writes a time with its unit.
pub(super) fn show_time(time: Duration) -> String {
    if time.subsec_nanos() == 0 {
        format!("{}s", time.as_secs())
    } else {
        format!("{}ms", time.as_millis())
    }
}

fn split_number(text: &str) -> Option<(f64, &str)> {
    let text = text.trim();
    let end = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    let number = text[..end].parse().ok()?;
    Some((number, text[end..].trim_start()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listen_addresses_read_and_write_alike() {
        for text in ["1935", "127.0.0.1:1935", "[::1]:80", "0.0.0.0:0"] {
            assert_eq!(text.parse::<ListenAddr>().unwrap().to_string(), text);
        }
        for text in ["", "65536", "-1", "localhost:80", "::1:80", "1.2.3.4"] {
            assert!(text.parse::<ListenAddr>().is_err(), "{text}");
        }
        let port = ListenAddr::Port(1935);
        let shown: Vec<_> = port.candidates().iter().map(|a| a.to_string()).collect();
        assert_eq!(shown, ["[::]:1935", "0.0.0.0:1935"]);
    }

    #[test]
    fn listen_overlap_follows_bind() {
        let at = |s: &str| s.parse::<ListenAddr>().unwrap();
        assert!(at("80").overlaps(&at("127.0.0.1:80")));
        assert!(at("0.0.0.0:80").overlaps(&at("127.0.0.1:80")));
        assert!(!at("127.0.0.1:80").overlaps(&at("127.0.0.2:80")));
        assert!(!at("0.0.0.0:80").overlaps(&at("[::1]:80")));
        assert!(!at("80").overlaps(&at("81")));
        assert!(!at("0").overlaps(&at("0")));
    }

    #[test]
    fn sizes_and_times() {
        assert_eq!(parse_bytes("512MB"), Some(512_000_000));
        assert_eq!(parse_bytes("1GiB"), Some(1 << 30));
        assert_eq!(parse_bytes("1.5 KiB"), Some(1536));
        assert_eq!(parse_bytes("12"), Some(12));
        for bad in ["", "MB", "1.5", "-1", "1 XB", "1e3"] {
            assert_eq!(parse_bytes(bad), None, "{bad}");
        }
        for bytes in [0, 1, 1024, 1 << 20, 3 << 30, 1000] {
            assert_eq!(parse_bytes(&show_bytes(bytes)), Some(bytes));
        }
        assert_eq!(parse_time("250ms"), Some(Duration::from_millis(250)));
        assert_eq!(parse_time("1.5s"), Some(Duration::from_millis(1500)));
        assert_eq!(parse_time("2m"), Some(Duration::from_secs(120)));
        for bad in ["", "5", "s", "-1s", "1 week"] {
            assert_eq!(parse_time(bad), None, "{bad}");
        }
    }
}
