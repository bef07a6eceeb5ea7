//! What is compared: one stream, a number of players, a window.

use serde::Serialize;

/// What players speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// RTMP.
    Rtmp,
    /// HTTP-FLV.
    Flv,
}

/// How long messages are gathered before they are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Window {
    /// Milliseconds; 0 sends each message at once.
    Fixed(u32),
    /// As the server decides; for servers without windows their default.
    Adaptive,
}

impl std::fmt::Display for Window {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Window::Fixed(ms) => write!(f, "{ms} ms"),
            Window::Adaptive => f.write_str("adaptive"),
        }
    }
}

/// One row of the comparison.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd, Serialize)]
pub struct Case {
    /// What players speak.
    pub protocol: Protocol,
    /// Number of players.
    pub players: u32,
    /// Video bitrate, kbit/s (audio adds about 100).
    pub kbps: f64,
    /// Keyframe distance, seconds.
    pub gop: f64,
    /// The window.
    pub window: Window,
}

impl Case {
    /// RTMP players of a stream with a keyframe every two seconds.
    pub fn rtmp(players: u32, kbps: f64, window: Window) -> Case {
        Case { protocol: Protocol::Rtmp, players, kbps, gop: 2.0, window }
    }
}

impl std::fmt::Display for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let protocol = match self.protocol {
            Protocol::Rtmp => "rtmp",
            Protocol::Flv => "http-flv",
        };
        write!(f, "{protocol} {} x {} kbit/s, {}", self.players, self.kbps, self.window)
    }
}
