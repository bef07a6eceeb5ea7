//! What operators should look at: streams that players will have trouble with.
//!
//! Looked at every few seconds from what the publisher's shard has noted. An alert begins when its
//! condition holds and ends when it has not held for two looks; both are events.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Mutex, PoisonError};

use serde_json::{Value, json};

use super::api::events::Journal;
use super::sampler::Sampler;
use super::upload::Summary;
use crate::hub::StreamId;
use crate::limits::ALERT_STREAMS_MAX;
use crate::remux::{Registry, Stream};
use crate::version::id_of;

/// What is wrong with a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AlertKind {
    /// It has B-frames, which WebRTC players cannot show and which cost latency elsewhere.
    BFrames,
    /// Its keyframes are far apart: joining takes long or starts far back.
    LongGop,
    /// It sends clearly more or less than its metadata says.
    Bitrate,
    /// It has clearly fewer or more pictures a second than its metadata says.
    FrameRate,
    /// Audio and video are apart.
    AvSkew,
    /// Timestamps go back or jump.
    Timestamps,
    /// Messages had to be dropped.
    Dropped,
    /// It is not recorded although it should be, or its recording has a gap.
    Recording,
    /// What should be uploaded waits on disk, because the store does not take it. Of a vhost.
    Upload,
}

impl AlertKind {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            AlertKind::BFrames => "b_frames",
            AlertKind::LongGop => "long_gop",
            AlertKind::Bitrate => "bitrate",
            AlertKind::FrameRate => "frame_rate",
            AlertKind::AvSkew => "av_skew",
            AlertKind::Timestamps => "timestamps",
            AlertKind::Dropped => "dropped",
            AlertKind::Recording => "recording",
            AlertKind::Upload => "upload",
        }
    }
}

/// Keyframes further apart than this are a long GOP, ms.
const GOP_MS_MAX: u32 = 10_000;
/// Audio and video further apart than this are skewed, ms.
const SKEW_MS_MAX: i64 = 1_000;
/// Part of the stated rate by which the real one may differ.
const RATE_SLACK: f64 = 0.3;
/// A stream has to be this old before its rates are judged, ms.
const AGE_MS_MIN: i64 = 10_000;
/// Looks without the condition after which an alert ends.
const LOOKS_CLEAR: u32 = 2;

/// Alerts now.
#[derive(Debug, Default)]
pub struct Alerts {
    state: Mutex<BTreeMap<Subject, Watched>>,
}

/// What an alert is about.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Subject {
    Vhost(String),
    Stream(StreamId),
}

#[derive(Debug, Default)]
struct Watched {
    id: String,
    url: String,
    vhost: String,
    alerts: BTreeMap<AlertKind, Alert>,
    /// Counts at the last look: B-frames, backward timestamps and jumps, drops.
    before: [u64; 4],
    seen: bool,
}

#[derive(Debug)]
struct Alert {
    since_ms: i64,
    detail: String,
    clear: u32,
}

impl Alerts {
    /// Looks at all streams, and at the uploads of all vhosts.
    pub fn look(
        &self,
        streams: &Registry,
        uploads: &[Summary],
        sampler: &Sampler,
        journal: &Journal,
    ) {
        let now_ms = super::wall_ms();
        let mut state = self.state();
        for stream in streams.page(0, ALERT_STREAMS_MAX, Stream::is_published) {
            let subject = Subject::Stream(stream.id);
            let is_new = !state.contains_key(&subject);
            let watched = state.entry(subject).or_default();
            watched.seen = true;
            if is_new {
                watched.id = id_of(stream.name.key());
                stream.name.url().clone_into(&mut watched.url);
                stream.name.vhost().clone_into(&mut watched.vhost);
                watched.before = counts(&stream);
                continue;
            }
            let found = conditions(&stream, sampler, &mut watched.before, now_ms);
            watched.update(&found, now_ms, journal);
        }
        for upload in uploads {
            let watched = state.entry(Subject::Vhost(upload.vhost.clone())).or_default();
            watched.seen = true;
            // What is shown where streams have their address.
            watched.url.clone_from(&upload.vhost);
            watched.vhost.clone_from(&upload.vhost);
            let mut found = BTreeMap::new();
            if upload.is_failure() {
                let text = format!("{} files wait on disk: {}", upload.waiting, upload.detail);
                found.insert(AlertKind::Upload, text);
            }
            watched.update(&found, now_ms, journal);
        }
        state.retain(|_, watched| {
            let there = std::mem::take(&mut watched.seen);
            if !there {
                for (kind, alert) in &watched.alerts {
                    journal.add("alert_end", &watched.json(*kind, alert));
                }
            }
            there
        });
    }

    /// Alerts now, as JSON.
    pub(super) fn list(&self) -> Value {
        let state = self.state();
        let all = state.values().flat_map(|watched| {
            watched.alerts.iter().map(|(kind, alert)| watched.json(*kind, alert))
        });
        all.collect()
    }

    /// How many there are of each kind.
    pub fn counts(&self) -> BTreeMap<&'static str, u64> {
        let mut counts = BTreeMap::new();
        for kind in self.state().values().flat_map(|watched| watched.alerts.keys()) {
            *counts.entry(kind.name()).or_default() += 1;
        }
        counts
    }

    fn state(&self) -> std::sync::MutexGuard<'_, BTreeMap<Subject, Watched>> {
        // Used by one thread; a panic leaves at worst an alert out.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watched {
    fn update(&mut self, found: &BTreeMap<AlertKind, String>, now_ms: i64, journal: &Journal) {
        let mut begun = Vec::new();
        for (&kind, detail) in found {
            match self.alerts.get_mut(&kind) {
                Some(alert) => {
                    alert.clear = 0;
                    detail.clone_into(&mut alert.detail);
                }
                None => {
                    let alert = Alert { since_ms: now_ms, detail: detail.clone(), clear: 0 };
                    self.alerts.insert(kind, alert);
                    begun.push(kind);
                }
            }
        }
        for kind in begun {
            journal.add("alert", &self.json(kind, &self.alerts[&kind]));
        }
        let mut ended = Vec::new();
        for (&kind, alert) in &mut self.alerts {
            if !found.contains_key(&kind) {
                alert.clear += 1;
                if alert.clear >= LOOKS_CLEAR {
                    ended.push(kind);
                }
            }
        }
        for kind in ended {
            if let Some(alert) = self.alerts.remove(&kind) {
                journal.add("alert_end", &self.json(kind, &alert));
            }
        }
    }

    fn json(&self, kind: AlertKind, alert: &Alert) -> Value {
        json!({
            "alert": kind.name(),
            "stream": self.id,
            "vhost": self.vhost,
            "url": self.url,
            "since_ms": alert.since_ms,
            "detail": alert.detail,
        })
    }
}

fn counts(stream: &Stream) -> [u64; 4] {
    let health = &stream.stats.health;
    let dropped = stream.stats.dropped.counts().map(|(_, count)| count).sum();
    let backward = health.backward.load(Relaxed) + health.jumps.load(Relaxed);
    let gaps = stream.recording().map_or(0, |recording| recording.gaps.load(Relaxed));
    [health.reordered.load(Relaxed), backward, dropped, gaps]
}

fn conditions(
    stream: &Stream,
    sampler: &Sampler,
    before: &mut [u64; 4],
    now_ms: i64,
) -> BTreeMap<AlertKind, String> {
    let mut found = BTreeMap::new();
    let health = &stream.stats.health;
    let now = counts(stream);
    let new: [u64; 4] = std::array::from_fn(|i| now[i].saturating_sub(before[i]));
    *before = now;
    if new[0] > 0 {
        found.insert(AlertKind::BFrames, format!("{} pictures out of order", new[0]));
    }
    if new[1] > 0 {
        found.insert(AlertKind::Timestamps, format!("{} timestamps went back or jumped", new[1]));
    }
    if new[2] > 0 {
        found.insert(AlertKind::Dropped, format!("{} messages dropped", new[2]));
    }
    if let Some(recording) = stream.recording() {
        let state = recording.state();
        if state.is_failure() {
            let why = recording.detail();
            found.insert(AlertKind::Recording, format!("{}: {why}", state.name()));
        } else if new[3] > 0 {
            let lost_ms = recording.lost_ms.load(Relaxed);
            let text = format!("{} gaps, {lost_ms} ms are missing in all", new[3]);
            found.insert(AlertKind::Recording, text);
        }
    }
    let video_ms = health.video_ms.load(Relaxed);
    let open_gop = video_ms - health.keyframe_ms.load(Relaxed);
    let gop = i64::from(health.gop_ms.load(Relaxed)).max(open_gop);
    if stream.stats.keyframes.load(Relaxed) > 0 && gop > i64::from(GOP_MS_MAX) {
        found.insert(AlertKind::LongGop, format!("{gop} ms between keyframes"));
    }
    let since = stream.stats.published_since_ms.load(Relaxed);
    let none = stream.stats.keyframes.load(Relaxed) == 0;
    let pictures = stream.stats.video_messages.load(Relaxed) > 0;
    if none && pictures && since > 0 && now_ms - since > i64::from(GOP_MS_MAX) {
        found.insert(AlertKind::LongGop, "no keyframe since it began".into());
    }
    let audio_ms = health.audio_ms.load(Relaxed);
    let skew = video_ms - audio_ms;
    if video_ms > 0 && audio_ms > 0 && skew.abs() > SKEW_MS_MAX {
        let ahead = if skew > 0 { "video" } else { "audio" };
        found.insert(AlertKind::AvSkew, format!("{ahead} is {} ms ahead", skew.abs()));
    }
    if since > 0 && now_ms - since >= AGE_MS_MIN {
        let stated = f64::from(health.stated_kbps.load(Relaxed));
        let real = sampler.stream_kbps(stream, now_ms)[0] as f64;
        if is_off(real, stated) {
            let text = format!("{real} kbit/s, the metadata says {stated}");
            found.insert(AlertKind::Bitrate, text);
        }
        let stated = f64::from(health.stated_fps.load(Relaxed)) / 1000.0;
        let real = sampler.stream_fps(stream);
        if is_off(real, stated) {
            let text = format!("{real} pictures a second, the metadata says {stated}");
            found.insert(AlertKind::FrameRate, text);
        }
    }
    found
}

fn is_off(real: f64, stated: f64) -> bool {
    stated > 0.0 && (real - stated).abs() > stated * RATE_SLACK
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::name::StreamName;

    fn kinds(alerts: &Alerts) -> Vec<String> {
        let list = alerts.list();
        let names = list.as_array().unwrap().iter().map(|a| a["alert"].as_str().unwrap().into());
        names.collect()
    }

    #[test]
    fn an_alert_begins_and_ends() {
        let registry = Registry::default();
        let name = StreamName::new("a.com", "live", "s").unwrap();
        let stream = registry.open(&name).unwrap();
        assert!(stream.acquire("session", 0).is_ok());
        let (sampler, journal, alerts) = (Sampler::new(), Journal::new(), Alerts::default());
        let look = || alerts.look(&registry, &[], &sampler, &journal);
        let health = &stream.stats.health;
        health.reordered.store(1_000, Relaxed);
        look();
        look();
        assert!(kinds(&alerts).is_empty(), "only what is new counts");

        health.reordered.store(1_010, Relaxed);
        health.audio_ms.store(5_000, Relaxed);
        health.video_ms.store(6_500, Relaxed);
        look();
        assert_eq!(kinds(&alerts), ["b_frames", "av_skew"]);
        assert_eq!(alerts.counts(), BTreeMap::from([("av_skew", 1), ("b_frames", 1)]));
        let list = alerts.list();
        assert_eq!(list[1]["detail"], "video is 1500 ms ahead");
        assert_eq!((&list[1]["url"], &list[1]["vhost"]), (&json!("a.com/live/s"), &json!("a.com")));

        look();
        assert_eq!(kinds(&alerts), ["b_frames", "av_skew"], "one look is not enough to end it");
        look();
        assert_eq!(kinds(&alerts), ["av_skew"]);
        stream.release(None);
        look();
        assert!(kinds(&alerts).is_empty());
    }

    #[test]
    fn conditions_by_the_numbers() {
        let registry = Registry::default();
        let name = StreamName::new("a.com", "live", "s").unwrap();
        let stream = registry.open(&name).unwrap();
        let sampler = Sampler::new();
        let found = |now_ms| -> Vec<AlertKind> {
            conditions(&stream, &sampler, &mut [0; 4], now_ms).into_keys().collect()
        };
        let health = &stream.stats.health;
        stream.stats.keyframes.store(1, Relaxed);
        health.keyframe_ms.store(100, Relaxed);
        health.video_ms.store(10_100, Relaxed);
        assert!(found(0).is_empty());
        health.video_ms.store(10_101, Relaxed);
        assert_eq!(found(0), [AlertKind::LongGop]);
        health.video_ms.store(101, Relaxed);
        health.stated_fps.store(25_000, Relaxed);
        health.stated_kbps.store(1_000, Relaxed);
        stream.stats.published_since_ms.store(1_000, Relaxed);
        assert!(found(5_000).is_empty(), "too young to be judged");
        assert_eq!(found(20_000), [AlertKind::Bitrate, AlertKind::FrameRate]);
        stream.stats.keyframes.store(0, Relaxed);
        stream.stats.video_messages.store(1, Relaxed);
        assert!(!found(11_000).contains(&AlertKind::LongGop));
        assert!(found(11_001).contains(&AlertKind::LongGop), "no keyframe at all");
        assert!(is_off(60.0, 100.0) && !is_off(80.0, 100.0) && !is_off(5.0, 0.0));
    }
}
