//! What is known of the server at one moment. Members that a server does not have are empty, so
//! that SRS's own API can be looked at as well.

use std::collections::BTreeMap;
use std::time::Instant;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

/// All that was answered at one look.
#[derive(Clone, Debug)]
pub(super) struct Snapshot {
    /// Where it was asked.
    pub url: String,
    /// When.
    pub at: Instant,
    /// Figures of process and machine.
    pub summaries: Summaries,
    /// Streams, at most some thousands.
    pub streams: Vec<Stream>,
    /// Clients, as far as they were asked for.
    pub clients: Vec<Client>,
    /// Shards.
    pub shards: Vec<Shard>,
    /// Alerts now.
    pub alerts: Vec<Alert>,
    /// The same as it came.
    pub raw: Map<String, Value>,
}

impl Snapshot {
    /// Sent and received since the start, bytes.
    pub fn bytes(&self) -> Option<[u64; 2]> {
        let sum = |of: fn(&Shard) -> u64| self.shards.iter().map(of).sum();
        (!self.shards.is_empty()).then(|| [sum(|s| s.send_bytes), sum(|s| s.recv_bytes)])
    }

    /// Sent and received over the last 30 s, kbit/s, by what the streams say.
    pub fn kbps(&self) -> [f64; 2] {
        let sum = |of: fn(&Kbps) -> u64| self.streams.iter().map(|s| of(&s.kbps)).sum::<u64>();
        [sum(|k| k.send_30s) as f64, sum(|k| k.recv_30s) as f64]
    }

    /// Sent and received since `before`, kbit/s.
    pub fn kbps_since(&self, before: &Snapshot) -> Option<[f64; 2]> {
        let (now, then) = (self.bytes()?, before.bytes()?);
        let seconds = self.at.duration_since(before.at).as_secs_f64();
        let rate = |i: usize| now[i].saturating_sub(then[i]) as f64 * 8.0 / 1000.0 / seconds;
        (seconds > 0.1).then(|| [rate(0), rate(1)])
    }

    /// Players, and publishers.
    pub fn clients(&self) -> [u64; 2] {
        let live = self.streams.iter().filter(|s| s.publish.active).count() as u64;
        let all: u64 = self.streams.iter().map(|s| s.clients).sum();
        [all.saturating_sub(live), live]
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Summaries {
    #[serde(rename = "self")]
    pub own: Own,
    pub system: System,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Own {
    pub version: String,
    pub pid: u64,
    pub mem_kbyte: u64,
    pub cpu_percent: f64,
    pub srs_uptime: u64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct System {
    pub cpu_percent: f64,
    pub mem_ram_percent: f64,
    pub load_1m: f64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Kbps {
    pub recv_30s: u64,
    pub send_30s: u64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Publish {
    pub active: bool,
    pub cid: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Stream {
    pub id: String,
    pub url: String,
    pub clients: u64,
    pub kbps: Kbps,
    pub publish: Publish,
    pub video: Option<Video>,
    pub audio: Option<Audio>,
    pub ringcast: StreamDetail,
}

impl Stream {
    /// Its players.
    pub fn players(&self) -> u64 {
        self.clients.saturating_sub(u64::from(self.publish.active))
    }

    /// Codec and size, or nothing.
    pub fn video_text(&self) -> String {
        match &self.video {
            None => "-".into(),
            Some(video) if video.width == 0 => video.codec.clone(),
            Some(video) => format!("{} {}x{}", video.codec, video.width, video.height),
        }
    }

    /// Codec, or nothing.
    pub fn audio_text(&self) -> &str {
        self.audio.as_ref().map_or("-", |audio| &audio.codec)
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Video {
    pub codec: String,
    pub width: u64,
    pub height: u64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Audio {
    pub codec: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct StreamDetail {
    pub published_ms: i64,
    pub gop_ms: u64,
    pub fps: f64,
    pub dropped: BTreeMap<String, u64>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Client {
    pub id: String,
    pub stream: String,
    pub ip: String,
    pub url: String,
    #[serde(rename = "type")]
    pub kind: String,
    pub publish: bool,
    pub alive: f64,
    pub send_bytes: u64,
    pub recv_bytes: u64,
    pub kbps: Kbps,
    pub ringcast: ClientDetail,
}

impl Client {
    /// Address and port, as far as known.
    pub fn address(&self) -> String {
        match (self.ringcast.port, self.ip.contains(':')) {
            (0, _) => self.ip.clone(),
            (port, true) => format!("[{}]:{port}", self.ip),
            (port, false) => format!("{}:{port}", self.ip),
        }
    }

    /// The rate of what it publishes or plays, kbit/s.
    pub fn rate(&self) -> u64 {
        if self.publish { self.kbps.recv_30s } else { self.kbps.send_30s }
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ClientDetail {
    pub port: u16,
    pub lag_ms: u64,
    pub skips: u64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Shard {
    pub send_bytes: u64,
    pub recv_bytes: u64,
    pub busy_permille: u64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Alert {
    pub alert: String,
    pub stream: String,
    pub url: String,
    pub detail: String,
}

/// A member of an answer, as far as it is what it should be.
pub(super) fn member<T: DeserializeOwned + Default>(raw: &Map<String, Value>, name: &str) -> T {
    let value = raw.get(name).cloned();
    value.and_then(|value| serde_json::from_value(value).ok()).unwrap_or_default()
}

/// A list whose broken entries are left out.
pub(super) fn list<T: DeserializeOwned>(raw: &Map<String, Value>, name: &str) -> Vec<T> {
    let values = raw.get(name).and_then(Value::as_array).into_iter().flatten();
    values.filter_map(|value| serde_json::from_value(value.clone()).ok()).collect()
}
