//! What a run does: groups of publishers and players, and what is expected of the server.
//!
//! A scenario file is this tree in TOML. Times are `"10s"`, `"250ms"`, `"2m"` or plain seconds;
//! rates are `"500/s"` or `"all"` (all at once); shares are `"5%"`, `"all"` or `"none"`.

use std::net::IpAddr;
use std::path::PathBuf;

use serde::{Deserialize, Deserializer};

use crate::media::GenerateOptions;
use crate::target::{Scheme, Target, TargetError, expand};

/// A whole run.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Plan {
    /// Shown in reports.
    pub name: String,
    /// Length of the run, seconds.
    #[serde(deserialize_with = "time")]
    pub seconds: f64,
    /// Worker threads, one ring each.
    pub threads: u32,
    /// Cores to pin the workers to, in order; empty leaves it to the kernel.
    pub cpus: Vec<usize>,
    /// Processes whose CPU and memory are sampled each second.
    pub server_pids: Vec<u32>,
    /// When the measurement of the server's CPU starts, seconds; `None`: when all groups that
    /// start in the first half of the run have ramped up, and two seconds more.
    #[serde(deserialize_with = "some_time")]
    pub measure_from: Option<f64>,
    /// Publishers.
    pub publish: Vec<PublishGroup>,
    /// Players.
    pub play: Vec<PlayGroup>,
    /// What must hold over all groups.
    pub expect: Expect,
    /// No progress on the terminal.
    #[serde(skip)]
    pub quiet: bool,
    /// End the run early once every churning player has done its cycles.
    pub end_when_cycles_done: bool,
}

impl Default for Plan {
    fn default() -> Self {
        Plan {
            name: String::new(),
            seconds: 60.0,
            threads: 1,
            cpus: Vec::new(),
            server_pids: Vec::new(),
            measure_from: None,
            publish: Vec::new(),
            play: Vec::new(),
            expect: Expect::default(),
            quiet: false,
            end_when_cycles_done: false,
        }
    }
}

/// Publishers that do the same.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PublishGroup {
    /// Shown in reports; `publish-1` and so on when empty.
    pub name: String,
    /// `rtmp://host/app/s{n}`; `{n}` is the publisher's number, from zero.
    pub url: String,
    /// How many.
    pub clients: u32,
    /// When the first connects, seconds from the start of the run.
    #[serde(deserialize_with = "time")]
    pub start: f64,
    /// When all leave; `None`: at the end of the run.
    #[serde(deserialize_with = "some_time")]
    pub stop: Option<f64>,
    /// Connections per second; zero: all at once.
    #[serde(deserialize_with = "rate")]
    pub ramp: f64,
    /// FLV file to loop; without one the stream is generated.
    pub file: Option<PathBuf>,
    /// Generated video, kbit/s (600).
    pub kbps: f64,
    /// Generated frames per second (30).
    pub fps: f64,
    /// Generated keyframe distance, seconds (2).
    #[serde(deserialize_with = "time")]
    pub gop: f64,
    /// Generated audio (yes).
    pub audio: bool,
    /// First timestamp of every life of a publisher, milliseconds.
    pub first_timestamp: u32,
    /// Kills and restarts each publisher.
    pub restart: Option<Restart>,
    /// Local addresses to connect from, in turn.
    pub sources: Vec<IpAddr>,
}

impl Default for PublishGroup {
    fn default() -> Self {
        let generated = GenerateOptions::default();
        PublishGroup {
            name: String::new(),
            url: String::new(),
            clients: 1,
            start: 0.0,
            stop: None,
            ramp: 0.0,
            file: None,
            kbps: generated.kbps,
            fps: generated.fps,
            gop: generated.gop,
            audio: generated.audio,
            first_timestamp: generated.first_timestamp,
            restart: None,
            sources: Vec::new(),
        }
    }
}

impl PublishGroup {
    /// Settings of the generated stream.
    pub fn generate_options(&self) -> GenerateOptions {
        GenerateOptions {
            kbps: self.kbps,
            fps: self.fps,
            gop: self.gop,
            audio: self.audio,
            first_timestamp: self.first_timestamp,
        }
    }
}

/// A publisher that is killed (its connection is closed without a word) and comes back.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Restart {
    /// How long each life is, seconds.
    #[serde(deserialize_with = "time")]
    pub every: f64,
    /// How long it is away, seconds.
    #[serde(deserialize_with = "time")]
    pub away: f64,
    /// How often; zero: until the end.
    #[serde(default)]
    pub times: u32,
}

/// Players that do the same.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PlayGroup {
    /// Shown in reports; `play-1` and so on when empty.
    pub name: String,
    /// `rtmp://host/app/s`, `http://host/app/s.flv`, `ws://host/app/s.flv` or
    /// `http://host/app/s.m3u8`; `{n}` is the player's number modulo `names`.
    pub url: String,
    /// How many.
    pub clients: u32,
    /// How many values `{n}` takes; zero: as many as clients.
    pub names: u32,
    /// When the first connects, seconds from the start of the run.
    #[serde(deserialize_with = "time")]
    pub start: f64,
    /// When all leave; `None`: at the end of the run.
    #[serde(deserialize_with = "some_time")]
    pub stop: Option<f64>,
    /// Connections per second; zero: all at once.
    #[serde(deserialize_with = "rate")]
    pub ramp: f64,
    /// Which share parses and checks everything, 0 to 1; the others drain.
    #[serde(deserialize_with = "share")]
    pub verify: f64,
    /// FLV file whose messages the verified players must see.
    pub reference: Option<PathBuf>,
    /// Take a message without a record as an error: the stream is a generated one.
    pub generated: bool,
    /// Number of the generated stream that `{n}` = 0 plays; -1: any.
    pub stream: i64,
    /// Players that stop reading.
    pub stall: Option<Stall>,
    /// Players that leave and come back.
    pub churn: Option<Churn>,
    /// Reconnect this many seconds after a disconnect; `None`: stay away.
    #[serde(deserialize_with = "some_time")]
    pub reconnect: Option<f64>,
    /// Local addresses to connect from, in turn; by default 127.0.0.x when the server is on
    /// loopback and the players are many.
    pub sources: Vec<IpAddr>,
    /// SO_RCVBUF, bytes; zero: kernel autotuning.
    pub receive_buffer: u32,
    /// HLS: parts and held requests, where the server has them (yes).
    pub low_latency: bool,
    /// HLS: asks for the part that is hinted at together with the playlist, and not when the
    /// playlist names it (yes).
    pub hints: bool,
    /// HLS: playlists without what the viewer knows, where the server offers them (yes).
    pub deltas: bool,
    /// What must hold for this group.
    pub expect: Expect,
}

impl Default for PlayGroup {
    fn default() -> Self {
        PlayGroup {
            name: String::new(),
            url: String::new(),
            clients: 1,
            names: 0,
            start: 0.0,
            stop: None,
            ramp: 500.0,
            verify: 0.05,
            reference: None,
            generated: false,
            stream: -1,
            stall: None,
            churn: None,
            reconnect: None,
            sources: Vec::new(),
            receive_buffer: 0,
            low_latency: true,
            hints: true,
            deltas: true,
            expect: Expect::default(),
        }
    }
}

/// Readers that stop reading and go on later.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stall {
    /// Stop reading, seconds from the start of the run.
    #[serde(deserialize_with = "time")]
    pub from: f64,
    /// Read again; `None`: never.
    #[serde(default, deserialize_with = "some_time")]
    pub to: Option<f64>,
}

/// Players that stay for a while, leave and come back.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Churn {
    /// How long each visit is, seconds.
    #[serde(deserialize_with = "time")]
    pub lifetime: f64,
    /// How long each absence is, seconds.
    #[serde(default, deserialize_with = "time")]
    pub pause: f64,
    /// Visits of the whole group; zero: until the end.
    #[serde(default)]
    pub cycles: u64,
}

/// Limits; a run that violates one ends with exit status 1. What is not given is not checked.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Expect {
    /// Connections the server ended or refused, and failed connects.
    pub max_disconnects: Option<u64>,
    /// Errors of any kind in what verified players saw.
    pub max_errors: Option<u64>,
    /// Gaps inside a GOP.
    pub max_gaps: Option<u64>,
    /// Skips to a keyframe.
    pub max_skips: Option<u64>,
    /// At least so many skips (stalled readers must have some).
    pub min_skips: Option<u64>,
    /// Players that got nothing for five seconds in mid-play.
    pub max_stalls: Option<u64>,
    /// Players that never got media.
    pub max_without_media: Option<u64>,
    /// Most players at the same time, at least.
    pub min_playing: Option<u64>,
    /// Messages whose content was checked, at least.
    pub min_checked: Option<u64>,
    /// Connections made in the whole run, at least (churn).
    pub min_connects: Option<u64>,
    /// Added latency, median, milliseconds.
    pub p50_ms: Option<f64>,
    /// Added latency, 99th percentile, milliseconds.
    pub p99_ms: Option<f64>,
    /// Added latency, 99.9th percentile, milliseconds.
    pub p999_ms: Option<f64>,
    /// Added latency, worst, milliseconds.
    pub latency_max_ms: Option<f64>,
    /// Connect time, 99th percentile, milliseconds.
    pub connect_p99_ms: Option<f64>,
    /// First-frame time (from connect to first media bytes), 99th percentile, milliseconds.
    pub first_frame_p99_ms: Option<f64>,
    /// HLS: segments that viewers could not have any more.
    pub max_missed: Option<u64>,
    /// HLS: segments and parts that came after their turn.
    pub max_late: Option<u64>,
    /// HLS: from the end of a part at its publisher to the answer that names it, 99th percentile,
    /// milliseconds.
    pub reload_p99_ms: Option<f64>,
    /// Highest resident memory of the server, MB (needs the server's pid).
    pub server_rss_max_mb: Option<f64>,
    /// Growth of resident memory from the start of the measurement to its end, MB.
    pub server_rss_growth_mb: Option<f64>,
    /// Server CPU in the measurement window, percent of one core.
    pub server_cpu_percent: Option<f64>,
    /// Latency (p99) may rise by so much in a span of the run compared with an earlier one.
    pub p99_rise: Option<Rise>,
}

impl Expect {
    /// Nobody is refused, disconnected, left without media or out of step.
    pub fn all_well() -> Expect {
        Expect {
            max_disconnects: Some(0),
            max_errors: Some(0),
            max_skips: Some(0),
            max_stalls: Some(0),
            max_without_media: Some(0),
            ..Expect::default()
        }
    }
}

/// Compares the p99 latency of two spans of the run.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rise {
    /// Seconds from and to.
    pub before: [f64; 2],
    /// Seconds from and to.
    pub during: [f64; 2],
    /// Most that the later may be above the earlier, milliseconds.
    pub max_ms: f64,
}

/// Why a plan cannot be run. The scenario's author must mend it.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// The file cannot be read.
    #[error("cannot read {0}: {1}")]
    Read(String, std::io::Error),
    /// It is not valid TOML of this shape.
    #[error("{0}: {1}")]
    Syntax(String, Box<toml::de::Error>),
    /// A URL is unusable.
    #[error("group '{0}': {1}")]
    Url(String, TargetError),
    /// A publisher's URL is not RTMP.
    #[error("group '{0}': publishing is supported over rtmp:// only")]
    PublishScheme(String),
    /// A media file is unusable.
    #[error("group '{0}': {1}")]
    File(String, crate::media::FileError),
    /// A number makes no sense.
    #[error("group '{0}': {1}")]
    Value(String, &'static str),
    /// The host has no address.
    #[error("group '{0}': {1}")]
    Resolve(String, std::io::Error),
    /// Nothing to do.
    #[error("the plan has neither publishers nor players")]
    Empty,
}

impl Plan {
    /// Reads a scenario file. `file` and `reference` paths are taken relative to it.
    pub fn load(path: &std::path::Path) -> Result<Plan, PlanError> {
        let name = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|e| PlanError::Read(name.clone(), e))?;
        let mut plan: Plan =
            toml::from_str(&text).map_err(|e| PlanError::Syntax(name, Box::new(e)))?;
        if plan.name.is_empty() {
            plan.name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        }
        let folder = path.parent().unwrap_or(std::path::Path::new("."));
        let relative = |p: &mut Option<PathBuf>| {
            if let Some(p) = p {
                *p = folder.join(&*p);
            }
        };
        plan.publish.iter_mut().for_each(|g| relative(&mut g.file));
        plan.play.iter_mut().for_each(|g| relative(&mut g.reference));
        Ok(plan)
    }

    /// Fills in names and checks what can be checked without a network.
    pub fn checked(mut self) -> Result<Plan, PlanError> {
        if self.publish.is_empty() && self.play.is_empty() {
            return Err(PlanError::Empty);
        }
        self.threads = self.threads.max(1);
        for (i, g) in self.publish.iter_mut().enumerate() {
            if g.name.is_empty() {
                g.name = format!("publish-{}", i + 1);
            }
            let target =
                Target::parse(&expand(&g.url, 0)).map_err(|e| PlanError::Url(g.name.clone(), e))?;
            if target.scheme != Scheme::Rtmp {
                return Err(PlanError::PublishScheme(g.name.clone()));
            }
            if !(g.fps > 0.0 && g.kbps > 0.0 && g.gop > 0.0) {
                return Err(PlanError::Value(g.name.clone(), "fps, kbps and gop must be above 0"));
            }
        }
        for (i, g) in self.play.iter_mut().enumerate() {
            if g.name.is_empty() {
                g.name = format!("play-{}", i + 1);
            }
            Target::parse(&expand(&g.url, 0)).map_err(|e| PlanError::Url(g.name.clone(), e))?;
        }
        Ok(self)
    }

    /// Replaces `from` by `to` at the start of every URL's authority: lets tests run a committed
    /// scenario against a server on other ports.
    pub fn redirect(&mut self, from: &str, to: &str) {
        let urls = self.publish.iter_mut().map(|g| &mut g.url);
        for url in urls.chain(self.play.iter_mut().map(|g| &mut g.url)) {
            *url = url.replacen(from, to, 1);
        }
    }

    /// When the measurement of the server's CPU starts, seconds.
    pub fn measure_start(&self) -> f64 {
        let ramped = |start: f64, clients: u32, ramp: f64| {
            start + if ramp > 0.0 { f64::from(clients) / ramp } else { 0.0 }
        };
        let half = self.seconds / 2.0;
        let all = self.publish.iter().map(|g| (g.start, ramped(g.start, g.clients, g.ramp)));
        let all =
            all.chain(self.play.iter().map(|g| (g.start, ramped(g.start, g.clients, g.ramp))));
        let last = all.filter(|(start, _)| *start < half).map(|(_, end)| end).fold(0.0, f64::max);
        self.measure_from.unwrap_or((last + 2.0).min(self.seconds * 0.8))
    }
}

/// `"10s"`, `"250ms"`, `"2m"`, `"1h"` or plain seconds.
pub fn parse_time(text: &str) -> Result<f64, String> {
    let text = text.trim();
    let end = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let value: f64 = number.trim().parse().map_err(|_| format!("'{text}' is not a time"))?;
    let factor = match unit {
        "" | "s" => 1.0,
        "ms" => 0.001,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        _ => return Err(format!("'{text}': unknown unit '{unit}' (ms, s, m, h)")),
    };
    Ok(value * factor)
}

/// `"500/s"`, `"500"` or `"all"` (zero: all at once).
pub fn parse_rate(text: &str) -> Result<f64, String> {
    if text == "all" {
        return Ok(0.0);
    }
    let number = text.trim().trim_end_matches("/s");
    number.parse().map_err(|_| format!("'{text}' is not a rate such as 500/s"))
}

/// `"5%"`, `"all"`, `"none"` or a number from 0 to 1.
pub fn parse_share(text: &str) -> Result<f64, String> {
    let value = match text {
        "all" => 1.0,
        "none" => 0.0,
        _ => match text.strip_suffix('%') {
            Some(p) => p.parse::<f64>().map(|p| p / 100.0),
            None => text.parse::<f64>(),
        }
        .map_err(|_| format!("'{text}' is not a share such as 5%, all or none"))?,
    };
    if (0.0..=1.0).contains(&value) { Ok(value) } else { Err(format!("'{text}' is beyond 100%")) }
}

/// A number, or text that `parse` understands.
#[derive(Deserialize)]
#[serde(untagged)]
enum NumberOrText {
    Integer(i64),
    Number(f64),
    Text(String),
}

fn number_or<'de, D: Deserializer<'de>>(
    d: D,
    parse: fn(&str) -> Result<f64, String>,
) -> Result<f64, D::Error> {
    match NumberOrText::deserialize(d)? {
        NumberOrText::Integer(i) => Ok(i as f64),
        NumberOrText::Number(n) => Ok(n),
        NumberOrText::Text(t) => parse(&t).map_err(serde::de::Error::custom),
    }
}

fn time<'de, D: Deserializer<'de>>(d: D) -> Result<f64, D::Error> {
    number_or(d, parse_time)
}

fn some_time<'de, D: Deserializer<'de>>(d: D) -> Result<Option<f64>, D::Error> {
    number_or(d, parse_time).map(Some)
}

fn rate<'de, D: Deserializer<'de>>(d: D) -> Result<f64, D::Error> {
    number_or(d, parse_rate)
}

fn share<'de, D: Deserializer<'de>>(d: D) -> Result<f64, D::Error> {
    number_or(d, parse_share)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_a_scenario_are_understood() {
        assert_eq!(parse_time("250ms"), Ok(0.25));
        assert_eq!(parse_time("2m"), Ok(120.0));
        assert_eq!(parse_time("7"), Ok(7.0));
        assert!(parse_time("7 parsecs").is_err());
        assert_eq!(parse_rate("500/s"), Ok(500.0));
        assert_eq!(parse_rate("all"), Ok(0.0));
        assert_eq!(parse_share("5%"), Ok(0.05));
        assert_eq!(parse_share("none"), Ok(0.0));
        assert!(parse_share("200%").is_err());
    }

    #[test]
    fn a_scenario_is_read_and_unknown_keys_are_refused() {
        let text = r#"
            seconds = "30s"
            [[publish]]
            url = "rtmp://127.0.0.1/live/s"
            kbps = 1000
            [[play]]
            url = "http://127.0.0.1:8080/live/s.flv"
            clients = 100
            ramp = "50/s"
            start = "2s"
            verify = "all"
            stall = { from = "10s", to = 20 }
            [play.expect]
            max_disconnects = 0
        "#;
        let plan: Plan = toml::from_str(text).unwrap();
        let plan = plan.checked().unwrap();
        assert_eq!((plan.play[0].ramp, plan.play[0].verify), (50.0, 1.0));
        assert_eq!(plan.play[0].stall.unwrap().to, Some(20.0));
        assert_eq!(plan.play[0].name, "play-1");
        assert_eq!(plan.measure_start(), 6.0);
        assert!(toml::from_str::<Plan>("secnds = 3").is_err());
    }

    #[test]
    fn committed_scenarios_are_valid() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
        let mut seen = 0;
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            Plan::load(&path).and_then(Plan::checked).unwrap_or_else(|e| panic!("{e}"));
            seen += 1;
        }
        assert!(seen >= 6, "{seen} scenarios");
    }
}
