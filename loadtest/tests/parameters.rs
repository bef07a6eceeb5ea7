//! What the server reads of decoder configurations and first frames is what ffprobe says of the
//! same file: size, profile, level, frame rate, colours, reorder depth, rates and channels.

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use common::media::ffmpeg;
use common::process::Process;
use common::units::Source;
use loadtest::media::Kind;
use ringcast::media::codec::{AudioCodec, VideoCodec};
use ringcast::media::tag;
use ringcast::media::track::{AudioTrack, VideoTrack};
use ringcast::media::unit::{self, AudioConfig, Content, VideoConfig};

const LIMIT: Duration = Duration::from_secs(60);

/// Twelve pictures, or a moment of sound, made with these arguments behind the input.
fn make(input: &str, arguments: &[&str]) -> PathBuf {
    let name: String = format!("{input} {}", arguments.join(" "))
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .collect();
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.mp4"));
    if !path.exists() {
        let half = path.with_extension(format!("{}.mp4", std::process::id()));
        let mut command = ffmpeg();
        command.args(["-f", "lavfi", "-i", input]).args(arguments);
        command.args(["-strict", "-2"]).arg(&half);
        let made = Process::start("ffmpeg", &mut command).finish(LIMIT);
        made.expect_success(&name);
        std::fs::rename(&half, &path).expect("rename in the folder for test files");
    }
    path
}

fn probe(path: &Path) -> serde_json::Value {
    let mut command = Command::new("ffprobe");
    command.args(["-v", "error", "-show_streams", "-of", "json"]).arg(path);
    let text = Process::start("ffprobe", &mut command).finish(LIMIT).stdout.join("\n");
    let all: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    all["streams"][0].clone()
}

/// Code points by ffprobe's names (ITU-T H.273); 2 is "not stated".
fn code(name: &serde_json::Value) -> u8 {
    match name.as_str() {
        Some("bt709") => 1,
        Some("bt470bg") => 5,
        Some("smpte170m") => 6,
        Some("bt2020" | "bt2020nc") => 9,
        Some("smpte2084") => 16,
        Some("arib-std-b67") => 18,
        _ => 2,
    }
}

fn check_video(input: &str, arguments: &[&str]) {
    let input = format!("testsrc2={input}");
    let all = [&["-frames:v", "12"], arguments].concat();
    let path = make(&input, &all);
    let (source, truth) = (Source::open(path.clone()), probe(&path));
    let who = format!("{input} {arguments:?}");
    let (headers, frames) = source.messages();
    let mut track = None;
    for message in headers.iter().chain(&frames) {
        let tag = tag::video(&message.payload).expect("a tag");
        let track = track.get_or_insert_with(|| VideoTrack::new(tag.codec));
        track.learn(&tag, &message.payload).expect("something that can be read");
    }
    let track = track.expect("a track");
    let number = |key: &str| truth[key].as_u64().unwrap_or_else(|| panic!("{who}: {truth}"));
    let size = (number("width") as u32, number("height") as u32);
    assert_eq!(track.size, Some(size), "{who}");
    let profile = truth["profile"].as_str().unwrap_or_default();
    let same = match profile {
        "Rext" => track.profile == "Range Extensions",
        // Ours is shorter.
        _ => !track.profile.is_empty() && profile.starts_with(track.profile),
    };
    assert!(same, "{who}: profile {profile}, read {}", track.profile);
    let level = track.level.map(|level| (u64::from(level.major), u64::from(level.minor)));
    match (track.codec, level) {
        (VideoCodec::H264, Some((major, minor))) => {
            assert_eq!(major * 10 + minor, number("level"), "{who}");
        }
        (VideoCodec::H265, Some((major, minor))) => {
            assert_eq!(major * 30 + minor * 3, number("level"), "{who}");
        }
        (VideoCodec::Av1, Some((major, minor))) => {
            assert_eq!((major - 2) * 4 + minor, number("level"), "{who}");
        }
        // ffprobe does not tell it of VP9.
        (VideoCodec::Vp9, Some(_)) => {}
        other => panic!("{who}: {other:?}"),
    }

    let config = VideoConfig::read(track.codec, source.config(Kind::Video)).expect("a record");
    let rate = truth["r_frame_rate"].as_str().expect("a rate");
    let (frames, seconds) = rate.split_once('/').expect("a fraction");
    let rate = frames.parse::<f64>().expect("n") / seconds.parse::<f64>().expect("n");
    match config.fps {
        Some(fps) => assert!((fps.value() - rate).abs() < 0.01, "{who}: {fps:?}, not {rate}"),
        // AV1 need not state it, VP9 cannot.
        None => assert!(!matches!(track.codec, VideoCodec::H264 | VideoCodec::H265), "{who}"),
    }
    let format = truth["pix_fmt"].as_str().expect("a format");
    let depth = if format.contains("10le") { 10 } else { 8 };
    let chroma = match format {
        _ if format.contains("444") => 3,
        _ if format.contains("422") => 2,
        _ => 1,
    };
    assert_eq!((config.bit_depth, config.chroma), (Some(depth), Some(chroma)), "{who}");
    if matches!(track.codec, VideoCodec::H264 | VideoCodec::H265) {
        let reorder = config.reorder.map(u64::from);
        assert_eq!(reorder, Some(number("has_b_frames")), "{who}: reorder depth");
    }
    let colour = config.colour.map_or((2, 2, 2), |c| (c.primaries, c.transfer, c.matrix));
    let names = ["color_primaries", "color_transfer", "color_space"].map(|key| code(&truth[key]));
    assert_eq!(colour, (names[0], names[1], names[2]), "{who}: colours");
    survives(track.codec, source.config(Kind::Video));
}

/// No cut and no flipped bit of a record does more harm than an error or another size.
fn survives(codec: VideoCodec, record: &[u8]) {
    for end in 0..record.len() {
        let _ = VideoConfig::read(codec, &record[..end]);
    }
    for bit in 0..record.len() * 8 {
        let mut bad = record.to_vec();
        bad[bit / 8] ^= 0x80 >> (bit % 8);
        if let Ok(config) = VideoConfig::read(codec, &bad) {
            let sane = |side: u32| (1..=65_536).contains(&side);
            assert!(config.size.is_none_or(|(w, h)| sane(w) && sane(h)), "{:?}", config.size);
            assert!(config.reorder.is_none_or(|reorder| reorder <= 16));
            assert!(config.parameter_sets.len() <= 2 * record.len() + 64);
        }
    }
}

const BT709: [&str; 6] =
    ["-colorspace", "bt709", "-color_primaries", "bt709", "-color_trc", "bt709"];

#[test]
fn h264() {
    fn x264<'a>(more: &[&'a str]) -> Vec<&'a str> {
        [&["-c:v", "libx264", "-preset", "veryfast"], more].concat()
    }
    let usual = x264(&["-pix_fmt", "yuv420p", "-bf", "2"]);
    check_video("size=320x180:rate=25", &usual);
    check_video("size=178x98:rate=30000/1001", &[&usual[..], &BT709].concat());
    let baseline = ["-pix_fmt", "yuv420p", "-profile:v", "baseline", "-level", "3.1"];
    check_video("size=176x144:rate=15", &x264(&baseline));
    let interlaced = ["-pix_fmt", "yuv420p", "-flags", "+ilme+ildct", "-bf", "0"];
    check_video("size=320x192:rate=25", &x264(&interlaced));
    for format in ["yuv422p", "yuv444p", "yuv420p10le", "yuv422p10le"] {
        check_video("size=322x182:rate=50", &x264(&["-pix_fmt", format, "-bf", "3"]));
    }
}

#[test]
fn h265() {
    let x265 = |more: &[&str], params: &str| {
        let params = format!("log-level=error:{params}");
        let head = ["-c:v", "libx265", "-preset", "ultrafast", "-tag:v", "hvc1"];
        let all: Vec<String> = head.iter().chain(more).map(ToString::to_string).collect();
        [all, vec!["-x265-params".into(), params]].concat()
    };
    let hdr = "colorprim=bt2020:transfer=smpte2084:colormatrix=bt2020nc";
    for (input, format, params) in [
        ("size=320x180:rate=25", "yuv420p", "bframes=3"),
        ("size=178x98:rate=30000/1001", "yuv420p", "bframes=0"),
        ("size=322x182:rate=50", "yuv420p10le", hdr),
        ("size=320x180:rate=60", "yuv422p10le", "bframes=4:b-pyramid=1"),
        ("size=320x180:rate=24", "yuv444p", "scaling-list=default"),
        ("size=640x360:rate=24", "yuv420p", "hrd=1:vbv-maxrate=500:vbv-bufsize=500:bitrate=300"),
    ] {
        let arguments = x265(&["-pix_fmt", format], params);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        check_video(input, &arguments);
    }
}

#[test]
fn av1() {
    let svt = ["-c:v", "libsvtav1", "-preset", "12", "-b:v", "200k", "-pix_fmt"];
    let aom = ["-c:v", "libaom-av1", "-cpu-used", "8", "-b:v", "200k", "-pix_fmt"];
    for (input, arguments) in [
        ("size=320x180:rate=25", [&svt[..], &["yuv420p"]].concat()),
        ("size=322x182:rate=50", [&svt[..], &["yuv420p10le"]].concat()),
        ("size=178x98:rate=30", [&aom[..], &["yuv420p"], &BT709].concat()),
        ("size=178x98:rate=30", [&aom[..], &["yuv444p"]].concat()),
    ] {
        check_video(input, &arguments);
    }
}

#[test]
fn vp9() {
    for (input, format) in [
        ("size=320x180:rate=25", "yuv420p"),
        ("size=178x98:rate=30", "yuv444p"),
        ("size=322x182:rate=50", "yuv420p10le"),
    ] {
        let vp9 = ["-c:v", "libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8", "-pix_fmt"];
        check_video(input, &[&vp9[..], &[format]].concat());
    }
}

#[test]
fn sound() {
    let mut checked = 0;
    for (codec, rates, channels) in [
        ("aac", &[8_000, 22_050, 44_100, 48_000, 96_000][..], &[1, 2, 3, 6, 8][..]),
        ("libmp3lame", &[8_000, 11_025, 16_000, 24_000, 32_000, 44_100, 48_000], &[1, 2]),
        ("libopus", &[48_000], &[1, 2, 6]),
        ("flac", &[44_100, 48_000, 96_000], &[1, 2, 6]),
        ("ac3", &[32_000, 44_100, 48_000], &[1, 2, 6]),
        ("eac3", &[48_000], &[2, 6]),
    ] {
        for (n, rate) in rates.iter().enumerate() {
            // Not each with each: every rate once, every layout once.
            let layouts = if n == 0 { channels } else { &channels[..1] };
            for count in layouts {
                check_sound(codec, *rate, *count);
                checked += 1;
            }
        }
    }
    assert_eq!(checked, 32);
}

fn check_sound(codec: &str, rate: u32, channels: u32) {
    let who = format!("{codec} {rate} {channels}");
    let (rate_text, channel_text) = (rate.to_string(), channels.to_string());
    let mut arguments = vec!["-t", "0.3", "-c:a", codec, "-ar", &rate_text, "-ac", &channel_text];
    if codec == "libopus" && channels > 2 {
        arguments.extend(["-mapping_family", "1"]);
    }
    let path = make("sine=frequency=440:sample_rate=48000", &arguments);
    let (source, truth) = (Source::open(path.clone()), probe(&path));
    let (headers, frames) = source.messages();
    let mut track = None;
    let mut config: Option<AudioConfig> = None;
    let mut samples = 0;
    for message in headers.iter().chain(&frames) {
        let tag = tag::audio(&message.payload).expect("a tag");
        let track = track.get_or_insert_with(|| AudioTrack::new(tag.codec));
        track.learn(&tag, &message.payload).expect("something that can be read");
        match unit::read(Kind::Audio, 0, &message.payload).expect("a message") {
            Content::AudioHeader(codec, data) => {
                config = Some(AudioConfig::read(codec, data).expect("a header"));
                for end in 0..data.len() {
                    let _ = AudioConfig::read(codec, &data[..end]);
                }
            }
            Content::Audio(codec, unit) => {
                if let Some(own) = AudioConfig::of_frame(codec, unit.data).expect("a frame") {
                    config.get_or_insert(own);
                }
                samples += config.as_ref().expect("a configuration").samples(unit.data);
            }
            other => panic!("{who}: {other:?}"),
        }
    }
    let (track, config) = (track.expect("a track"), config.expect("a configuration"));
    let truth_rate: u32 = truth["sample_rate"].as_str().and_then(|r| r.parse().ok()).expect("Hz");
    let truth_channels = truth["channels"].as_u64().expect("channels") as u8;
    assert_eq!((config.rate_hz, config.channels), (truth_rate, truth_channels), "{who}");
    assert_eq!((track.rate_hz, track.channels), (Some(truth_rate), Some(truth_channels)), "{who}");
    if config.codec == AudioCodec::Aac {
        assert_eq!(track.profile, "LC", "{who}");
    }
    // Frames have as many samples as were encoded, and what an encoder adds at either end.
    let encoded = f64::from(truth_rate) * 0.3;
    let more = f64::from(samples) - encoded;
    assert!((-1.0..5_000.0).contains(&more), "{who}: {samples} samples of {encoded}");
}
