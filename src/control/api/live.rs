//! Vhosts, streams and clients as JSON: SRS's members, and in `ringcast` what SRS has not.

use std::sync::atomic::Ordering::Relaxed;

use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::config::Hls;
use crate::control::sampler::{Sampler, Vhost};
use crate::hub::{Counters, Reason};
use crate::media::codec::{AudioCodec, VideoCodec};
use crate::media::track::{AudioTrack, Level, VideoTrack};
use crate::remux::{Client, Stream};
use crate::version::id_of;

pub(super) fn vhost_json(vhost: &Vhost, hls: &Hls) -> Value {
    let hls = match hls.enabled {
        true => json!({ "enabled": true, "fragment": hls.hls_fragment.as_secs_f64() }),
        false => json!({ "enabled": false }),
    };
    json!({
        "id": id_of(&vhost.name),
        "name": vhost.name,
        "enabled": true,
        "clients": vhost.clients,
        "streams": vhost.streams,
        "send_bytes": vhost.bytes_sent,
        "recv_bytes": vhost.bytes_received,
        "kbps": { "recv_30s": vhost.kbps[0], "send_30s": vhost.kbps[1] },
        "hls": hls,
    })
}

pub(super) fn stream_json(stream: &Stream, sampler: &Sampler, now_ms: i64) -> StreamJson {
    let stats = &stream.stats;
    let holder = stream.holder();
    let tracks = stream.tracks();
    let video = tracks.as_ref().and_then(|tracks| tracks.video_track.as_ref());
    let audio = tracks.as_ref().and_then(|tracks| tracks.audio_track.as_ref());
    let [recv_30s, send_30s] = sampler.stream_kbps(stream, now_ms);
    let lag = sampler.stream_lag(stream);
    let frames = stats.video_messages.load(Relaxed);
    let messages = stats.messages.load(Relaxed);
    let name = &stream.name;
    let url = name.url();
    let since = stats.published_since_ms.load(Relaxed);
    let health = &stats.health;
    StreamJson {
        id: id_of(stream.name.key()),
        name: url.rsplit('/').next().unwrap_or(url).to_owned(),
        vhost: id_of(name.vhost()),
        app: name.app().to_owned(),
        tc_url: stream.tc_url().unwrap_or_default(),
        url: url.to_owned(),
        live_ms: now_ms,
        clients: stream.players() + u32::from(holder.is_some()),
        frames,
        audio_frames: messages.saturating_sub(frames),
        video_frames: frames,
        send_bytes: stats.bytes_sent.load(Relaxed),
        recv_bytes: stats.bytes.load(Relaxed),
        kbps: Kbps { recv_30s, send_30s },
        publish: Publish { active: holder.is_some(), cid: holder },
        video: video.map(video_json),
        audio: audio.map(audio_json),
        ringcast: StreamDetail {
            vhost_name: name.vhost().to_owned(),
            players: stream.players(),
            published_ms: if since > 0 { now_ms - since } else { 0 },
            resumed: stats.resumed.load(Relaxed),
            skips: stats.skips.load(Relaxed),
            lag_ms_max: lag.max_ms,
            lag_ms_mean: lag.mean_ms(),
            keyframes: stats.keyframes.load(Relaxed),
            gop_ms: health.gop_ms.load(Relaxed),
            b_frames: health.reordered.load(Relaxed),
            timestamps_backward: health.backward.load(Relaxed),
            timestamp_jumps: health.jumps.load(Relaxed),
            fps: sampler.stream_fps(stream),
            video: video.map(ToString::to_string),
            audio: audio.map(ToString::to_string),
            dropped: counts(stats.dropped.counts().map(|(r, n)| (r.name(), n))),
            dvr: dvr_json(stream, now_ms),
        },
    }
}

/// A stream's recording.
pub(super) fn dvr_json(stream: &Stream, now_ms: i64) -> Option<Value> {
    let recording = stream.recording()?;
    let detail = recording.detail();
    Some(json!({
        "stream": id_of(stream.name.key()),
        "url": stream.name.url(),
        "state": recording.state().name(),
        "file": recording.file(),
        "since_ms": (now_ms - recording.since_ms.load(Relaxed)).max(0),
        "bytes": recording.bytes.load(Relaxed),
        "files": recording.files.load(Relaxed),
        "gaps": recording.gaps.load(Relaxed),
        "lost_ms": recording.lost_ms.load(Relaxed),
        "detail": if detail.is_empty() { Value::Null } else { detail.into() },
    }))
}

pub(super) fn client_json(client: &Client, sampler: &Sampler, now_ms: i64) -> ClientJson {
    let name = &client.stream.name;
    let lag_ms = client.lag_ms();
    let skips = client.skips();
    // A kbit/s is a bit per ms.
    let lag_bytes = match lag_ms {
        0 => 0,
        _ => u64::from(lag_ms) * sampler.stream_kbps(&client.stream, now_ms)[0] / 8,
    };
    let url = name.url();
    let [recv_30s, send_30s] = client.kbps(now_ms);
    ClientJson {
        id: client.id.to_string(),
        vhost: id_of(name.vhost()),
        stream: id_of(name.key()),
        ip: client.ip().to_string(),
        page_url: client.urls.page_url().to_owned(),
        swf_url: client.urls.swf_url().to_owned(),
        tc_url: client.urls.tc_url().to_owned(),
        url: url.to_owned(),
        name: url.rsplit('/').next().unwrap_or(url).to_owned(),
        kind: client.kind.srs_name(),
        publish: client.kind.publishes(),
        alive: (now_ms - client.opened_ms).max(0) as f64 / 1000.0,
        send_bytes: client.bytes_out(),
        recv_bytes: client.bytes_in(),
        kbps: Kbps { recv_30s: recv_30s.into(), send_30s: send_30s.into() },
        ringcast: ClientDetail {
            port: client.peer().port(),
            protocol: client.kind.protocol(),
            lag_ms,
            lag_bytes,
            skips,
            // That is the only reason for which a player is moved on instead of being closed.
            dropped: counts([(Reason::SkipLag.name(), u64::from(skips))].into_iter()),
        },
    }
}

/// SRS: streams with neither publisher nor client are not listed.
pub(super) fn is_listed(stream: &Stream) -> bool {
    stream.is_active() || stream.players() > 0
}

/// What one shard does and what it refused, closed or dropped, by reason.
pub(super) fn shard_json(counters: &Counters) -> Value {
    json!({
        "accepted": counters.accepted.load(Relaxed),
        "connections": counters.connections.load(Relaxed),
        "players": counters.players.load(Relaxed),
        "publishers": counters.publishers.load(Relaxed),
        "recv_bytes": counters.bytes_received.load(Relaxed),
        "send_bytes": counters.bytes_sent.load(Relaxed),
        "messages": counters.messages_received.load(Relaxed),
        "sends": counters.sends.load(Relaxed),
        "turns": counters.turns.load(Relaxed),
        "busy_permille": counters.busy_permille.load(Relaxed),
        "window_us": counters.window_us.load(Relaxed),
        "reasons": counts(counters.reasons()),
    })
}

fn counts(counts: impl Iterator<Item = (&'static str, u64)>) -> Map<String, Value> {
    counts.filter(|(_, n)| *n > 0).map(|(name, n)| (name.to_owned(), n.into())).collect()
}

#[derive(Debug, Serialize)]
pub(super) struct Kbps {
    recv_30s: u64,
    send_30s: u64,
}

#[derive(Debug, Serialize)]
struct Publish {
    active: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    cid: Option<String>,
}

#[derive(Debug, Serialize)]
pub(super) struct StreamJson {
    id: String,
    name: String,
    vhost: String,
    app: String,
    #[serde(rename = "tcUrl")]
    tc_url: String,
    url: String,
    live_ms: i64,
    clients: u32,
    frames: u64,
    audio_frames: u64,
    video_frames: u64,
    send_bytes: u64,
    recv_bytes: u64,
    kbps: Kbps,
    publish: Publish,
    video: Option<Value>,
    audio: Option<Value>,
    ringcast: StreamDetail,
}

#[derive(Debug, Serialize)]
struct StreamDetail {
    vhost_name: String,
    players: u32,
    published_ms: i64,
    resumed: u64,
    skips: u64,
    lag_ms_max: u32,
    lag_ms_mean: u32,
    keyframes: u64,
    gop_ms: u32,
    b_frames: u64,
    timestamps_backward: u64,
    timestamp_jumps: u64,
    fps: f64,
    video: Option<String>,
    audio: Option<String>,
    dropped: Map<String, Value>,
    /// Its recording, while there is one.
    dvr: Option<Value>,
}

#[derive(Debug, Serialize)]
pub(super) struct ClientJson {
    id: String,
    vhost: String,
    stream: String,
    ip: String,
    #[serde(rename = "pageUrl")]
    page_url: String,
    #[serde(rename = "swfUrl")]
    swf_url: String,
    #[serde(rename = "tcUrl")]
    tc_url: String,
    url: String,
    name: String,
    #[serde(rename = "type")]
    kind: &'static str,
    publish: bool,
    alive: f64,
    send_bytes: u64,
    recv_bytes: u64,
    kbps: Kbps,
    ringcast: ClientDetail,
}

#[derive(Debug, Serialize)]
struct ClientDetail {
    port: u16,
    protocol: &'static str,
    lag_ms: u32,
    lag_bytes: u64,
    skips: u32,
    dropped: Map<String, Value>,
}

fn video_json(track: &VideoTrack) -> Value {
    let (codec, profile, levels): (_, _, &[&str]) = match track.codec {
        VideoCodec::H264 => ("H264", avc_profile(track.profile), AVC_LEVELS),
        VideoCodec::H265 => ("HEVC", hevc_profile(track.profile), HEVC_LEVELS),
        VideoCodec::Av1 => ("AV1", "Other", &[]),
        VideoCodec::Vp8 | VideoCodec::Vp9 => ("Other", "Other", &[]),
    };
    let level = track.level.map(level).unwrap_or_default();
    let level = if levels.contains(&level.as_str()) { &level } else { "Other" };
    let (width, height) = track.size.unwrap_or_default();
    json!({
        "codec": codec, "profile": profile, "level": level, "width": width, "height": height,
    })
}

fn audio_json(track: &AudioTrack) -> Value {
    let codec = match track.codec {
        AudioCodec::Aac => "AAC",
        AudioCodec::Mp3 => "MP3",
        AudioCodec::Opus => "Opus",
        _ => "Other",
    };
    // SRS: what the two bits of an FLV tag can say.
    let sample_rate = match track.rate_hz.unwrap_or(0) {
        44_100.. => 44_100,
        22_050.. => 22_050,
        11_025.. => 11_025,
        _ => 5_512,
    };
    let profile = match track.profile {
        known @ ("Main" | "LC" | "SSR" | "HE") => known,
        "HE v2" => "HEv2",
        _ => "Other",
    };
    let channel = track.channels.unwrap_or(1).clamp(1, 2);
    json!({
        "codec": codec, "sample_rate": sample_rate, "channel": channel, "profile": profile,
    })
}

/// SRS writes `4` and `3.1`.
fn level(level: Level) -> String {
    match level.minor {
        0 => level.major.to_string(),
        minor => format!("{}.{minor}", level.major),
    }
}

fn avc_profile(name: &str) -> &'static str {
    match name {
        "Constrained Baseline" => "Baseline(Constrained)",
        "Baseline" => "Baseline",
        "Main" => "Main",
        "Extended" => "Extended",
        "High" => "High",
        "High 10" => "High(10)",
        "High 4:2:2" => "High(422)",
        "High 4:4:4" => "High(444+Predictive)",
        "CAVLC 4:4:4" => "High(444+Intra)",
        _ => "Other",
    }
}

fn hevc_profile(name: &str) -> &'static str {
    match name {
        "Main" => "Main",
        "Main 10" => "Main10",
        "Main Still Picture" => "Main Still Picture",
        "Range Extensions" => "Rext",
        _ => "Other",
    }
}

const AVC_LEVELS: &[&str] =
    &["1", "1.1", "1.2", "1.3", "2", "2.1", "2.2", "3", "3.1", "3.2", "4", "4.1", "5", "5.1"];
const HEVC_LEVELS: &[&str] =
    &["1", "2", "2.1", "3", "3.1", "4", "4.1", "5", "5.1", "5.2", "6", "6.1", "6.2"];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::{ClientKind, NewClient, SessionId, Urls};
    use crate::media::name::StreamName;
    use crate::media::track::Fps;
    use crate::remux::{Clients, Registry};

    fn keys(value: &impl Serialize) -> Vec<String> {
        let value = serde_json::to_value(value).unwrap();
        value.as_object().unwrap().keys().cloned().collect()
    }

    fn sorted(names: &str) -> Vec<String> {
        let mut names: Vec<_> = names.split_whitespace().map(String::from).collect();
        names.sort();
        names
    }

    #[test]
    fn members_are_those_of_srs_and_one_of_ours() {
        let registry = Registry::default();
        let clients = Clients::new(1);
        let name = StreamName::new("__defaultVhost__", "live/hd", "cam.flv").unwrap();
        let stream = registry.open(&name).unwrap();
        assert!(!is_listed(&stream));
        stream.player_joined(0);
        assert!(is_listed(&stream));
        let new = NewClient {
            id: SessionId::from_bits(5),
            peer: ([192, 0, 2, 7], 4000).into(),
            kind: ClientKind::FlvPlay,
            stream: stream.clone(),
            urls: Urls::new("http://h/live/hd", "http://page/", "", "?a=b"),
            opened_ms: 1_000,
            bytes_in: 300,
            bytes_out: 4_000,
        };
        let client = clients.join((0, 0), new, 1_000);
        let sampler = Sampler::new();
        client.count_skip();
        let json = client_json(&client, &sampler, 3_500);
        let expected = "id vhost stream ip pageUrl swfUrl tcUrl url name type publish alive \
            send_bytes recv_bytes kbps ringcast";
        let mut found = keys(&json);
        found.sort();
        assert_eq!(found, sorted(expected));
        let json = serde_json::to_value(&json).unwrap();
        assert_eq!((&json["url"], &json["name"]), (&json!("/live/hd/cam"), &json!("cam")));
        assert_eq!((&json["ip"], &json["type"]), (&json!("192.0.2.7"), &json!("flv-play")));
        assert_eq!((&json["alive"], &json["publish"]), (&json!(2.5), &json!(false)));
        assert_eq!(json["kbps"], json!({"recv_30s": 0, "send_30s": 12}));
        let detail = json!({"port": 4000, "protocol": "http-flv", "lag_ms": 0, "lag_bytes": 0,
            "skips": 1, "dropped": {"skip_lag": 1}});
        assert_eq!(json["ringcast"], detail);
        assert_eq!((&json["pageUrl"], &json["swfUrl"]), (&json!("http://page/"), &json!("")));

        let json = stream_json(&stream, &sampler, 3_500);
        let expected = "id name vhost app tcUrl url live_ms clients frames audio_frames \
            video_frames send_bytes recv_bytes kbps publish video audio ringcast";
        let mut found = keys(&json);
        found.sort();
        assert_eq!(found, sorted(expected));
        let json = serde_json::to_value(&json).unwrap();
        // No publisher: no cid, and nothing is known of the tracks.
        assert_eq!(json["publish"], json!({"active": false}));
        assert_eq!((&json["video"], &json["audio"]), (&Value::Null, &Value::Null));
        assert_eq!((&json["app"], &json["tcUrl"]), (&json!("live/hd"), &json!("http://h/live/hd")));
        assert_eq!((&json["clients"], &json["live_ms"]), (&json!(1), &json!(3_500)));
        assert_eq!(
            json["id"],
            serde_json::to_value(client_json(&client, &sampler, 0)).unwrap()["stream"]
        );

        assert!(stream.acquire("abcdefgh", 0).is_ok());
        let json = serde_json::to_value(stream_json(&stream, &sampler, 3_500)).unwrap();
        assert_eq!(json["publish"], json!({"active": true, "cid": "abcdefgh"}));
        assert_eq!(json["clients"], 2);

        let vhost = Vhost { name: "a.com".into(), clients: 3, ..Vhost::default() };
        let json = vhost_json(&vhost, &Hls::default());
        let expected = "id name enabled clients streams send_bytes recv_bytes kbps hls";
        let mut found = keys(&json);
        found.sort();
        assert_eq!(found, sorted(expected));
        assert_eq!((&json["name"], &json["clients"]), (&json!("a.com"), &json!(3)));
    }

    #[test]
    fn shards_tell_only_reasons_that_came_up() {
        let counters = Counters::default();
        counters.count(Reason::SkipLag);
        counters.count(Reason::SkipLag);
        counters.players.store(7, Relaxed);
        let json = shard_json(&counters);
        assert_eq!((&json["players"], &json["reasons"]), (&json!(7), &json!({"skip_lag": 2})));
    }

    #[test]
    fn tracks_in_the_words_of_srs() {
        let mut video = VideoTrack::new(VideoCodec::H264);
        video.profile = "Constrained Baseline";
        video.level = Some(Level { major: 4, minor: 0 });
        video.size = Some((1920, 1080));
        video.fps = Some(Fps(25_000));
        let expected = json!({"codec": "H264", "profile": "Baseline(Constrained)", "level": "4",
            "width": 1920, "height": 1080});
        assert_eq!(video_json(&video), expected);
        video.level = Some(Level { major: 5, minor: 2 });
        assert_eq!(video_json(&video)["level"], "Other");
        let mut hevc = VideoTrack { codec: VideoCodec::H265, ..video };
        hevc.profile = "Main 10";
        let hevc = video_json(&hevc);
        assert_eq!((&hevc["codec"], &hevc["profile"]), (&json!("HEVC"), &json!("Main10")));
        assert_eq!(hevc["level"], "5.2");

        let mut audio = AudioTrack::new(AudioCodec::Aac);
        (audio.profile, audio.rate_hz, audio.channels) = ("HE v2", Some(48_000), Some(6));
        let expected =
            json!({"codec": "AAC", "sample_rate": 44_100, "channel": 2, "profile": "HEv2"});
        assert_eq!(audio_json(&audio), expected);
        audio.rate_hz = Some(24_000);
        assert_eq!(audio_json(&audio)["sample_rate"], 22_050);
    }
}
