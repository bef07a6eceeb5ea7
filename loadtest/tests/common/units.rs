//! Media of every codec as messages to publish, and as the frames that ffmpeg finds again in
//! whatever a server made of them.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use loadtest::client::{Received, RtmpPublisher};
use loadtest::media::Kind;

use super::media::ffmpeg;
use super::process::Process;

/// Encoding with a keyframe each second and B-frames.
pub const H264: &[&str] = &[
    "-c:v",
    "libx264",
    "-preset",
    "veryfast",
    "-bf",
    "2",
    "-g",
    "25",
    "-keyint_min",
    "25",
    "-sc_threshold",
    "0",
    "-b:v",
    "300k",
];
/// Stereo.
pub const AAC: &[&str] = &["-c:a", "aac", "-b:a", "96k", "-ac", "2"];

const LIMIT: Duration = Duration::from_secs(90);
/// Published times are the file's and this much, because they cannot be negative.
pub const SHIFT_MS: i64 = 1_000;

/// One of each kind of track at most, from one file or from one file each.
#[derive(Clone, Debug)]
pub struct Source {
    /// The files.
    paths: Vec<PathBuf>,
    tracks: Vec<Arc<Track>>,
}

/// Pictures across and down, and how long a medium is.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// As ffmpeg has it, such as `320x180`.
    pub pixels: &'static str,
    /// Seconds.
    pub seconds: u32,
}

/// What most tests publish.
const USUAL: Size = Size { pixels: "320x180", seconds: 6 };

#[derive(Debug)]
struct Track {
    kind: Kind,
    /// ffmpeg's name of the codec.
    codec: String,
    config: Vec<u8>,
    packets: Vec<Packet>,
}

#[derive(Clone, Debug)]
struct Packet {
    pts: f64,
    dts: f64,
    key: bool,
    data: Vec<u8>,
}

impl Source {
    /// Six seconds made with these ffmpeg arguments behind the inputs, as an MP4 file of that name;
    /// made at the first call.
    pub fn make(name: &str, video: &[&str], audio: &[&str]) -> Source {
        Source::make_sized(name, USUAL, video, audio)
    }

    /// The same of another size.
    pub fn make_sized(name: &str, size: Size, video: &[&str], audio: &[&str]) -> Source {
        static MAKING: Mutex<()> = Mutex::new(());
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.mp4"));
        // A test that failed while it held the lock left no half file behind, so go on.
        let _one_at_a_time = MAKING.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if !path.exists() {
            let half = path.with_extension(format!("{}.mp4", std::process::id()));
            let mut command = ffmpeg();
            if !video.is_empty() {
                let pictures = format!("testsrc2=size={}:rate=25", size.pixels);
                command.args(["-f", "lavfi", "-i", &pictures]);
            }
            if !audio.is_empty() {
                command.args(["-f", "lavfi", "-i", "sine=frequency=440:sample_rate=48000"]);
            }
            command.args(video).args(audio).args(["-pix_fmt", "yuv420p"]);
            command.args(["-t", &size.seconds.to_string()]);
            command.args(["-strict", "-2"]).arg(&half);
            let made = Process::start("ffmpeg", &mut command).finish(LIMIT);
            made.expect_success("ffmpeg makes a test medium");
            std::fs::rename(&half, &path).expect("rename in the folder for test files");
        }
        Source::open(path)
    }

    /// The tracks of a file.
    pub fn open(path: PathBuf) -> Source {
        let mut command = Command::new("ffprobe");
        command
            .args(["-v", "error", "-show_data"])
            .args([
                "-show_entries",
                "stream=index,codec_type,codec_name,extradata:\
                packet=stream_index,pts_time,dts_time,size,flags",
            ])
            .args(["-of", "json"])
            .arg(&path);
        let text = Process::start("ffprobe", &mut command).finish(LIMIT).stdout.join("\n");
        let list: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        let mut tracks = Vec::new();
        for stream in list["streams"].as_array().expect("streams") {
            let index = stream["index"].as_u64().expect("an index");
            let kind = match stream["codec_type"].as_str() {
                Some("video") => Kind::Video,
                _ => Kind::Audio,
            };
            let mut bytes = &raw(&path, index)[..];
            let time = |value: &serde_json::Value| -> f64 {
                value.as_str().and_then(|text| text.parse().ok()).expect("a time")
            };
            let mut packets = Vec::new();
            let all = list["packets"].as_array().expect("packets");
            for packet in all.iter().filter(|packet| packet["stream_index"] == index) {
                let size = packet["size"].as_str().and_then(|size| size.parse().ok());
                let (data, rest) = bytes.split_at(size.expect("a size"));
                bytes = rest;
                packets.push(Packet {
                    pts: time(&packet["pts_time"]),
                    dts: time(&packet["dts_time"]),
                    key: packet["flags"].as_str().expect("flags").starts_with('K'),
                    data: data.to_vec(),
                });
            }
            assert!(bytes.is_empty() && !packets.is_empty(), "{path:?}: packets and data differ");
            let codec = stream["codec_name"].as_str().expect("a codec").to_owned();
            let config = match codec.as_str() {
                "vp9" => vp9_config(&path),
                _ => hex_dump(stream["extradata"].as_str().unwrap_or_default()),
            };
            tracks.push(Arc::new(Track { kind, codec, config, packets }));
        }
        Source { paths: vec![path], tracks }
    }

    /// The file, or the first of them.
    pub fn path(&self) -> &Path {
        &self.paths[0]
    }

    /// The tracks of both.
    pub fn with(&self, other: &Source) -> Source {
        Source {
            paths: [&self.paths[..], &other.paths].concat(),
            tracks: [&self.tracks[..], &other.tracks].concat(),
        }
    }

    /// Another decoder configuration for the audio track than the file has.
    pub fn with_audio_config(mut self, config: &[u8]) -> Source {
        for track in self.tracks.iter_mut().filter(|track| track.kind == Kind::Audio) {
            let Track { kind, codec, packets, .. } = &**track;
            let (kind, codec, packets) = (*kind, codec.clone(), packets.clone());
            *track = Arc::new(Track { kind, codec, config: config.to_vec(), packets });
        }
        self
    }

    /// True when there are pictures.
    pub fn has_video(&self) -> bool {
        self.tracks.iter().any(|track| track.kind == Kind::Video)
    }

    /// Sequence headers, and frames in the order of their decoding times.
    pub fn messages(&self) -> (Vec<Received>, Vec<Received>) {
        let ms = |seconds: f64| (seconds * 1000.0).round() as i64 + SHIFT_MS;
        let (mut headers, mut frames) = (Vec::new(), Vec::new());
        for track in &self.tracks {
            if let Some(payload) = track.header() {
                headers.push(Received { kind: track.kind, timestamp: 0, payload });
            }
            for packet in &track.packets {
                let composition = ms(packet.pts) - ms(packet.dts);
                let payload = [&track.head(packet.key, composition)[..], &packet.data].concat();
                let timestamp = u32::try_from(ms(packet.dts)).expect("a time");
                frames.push(Received { kind: track.kind, timestamp, payload });
            }
        }
        frames.sort_by_key(|frame| frame.timestamp);
        (headers, frames)
    }

    /// The frames later by this much, ms, on a clock of 32 bits.
    pub fn frames_later(&self, ms: u32) -> Vec<Received> {
        let (_, mut frames) = self.messages();
        frames.iter_mut().for_each(|frame| frame.timestamp = frame.timestamp.wrapping_add(ms));
        frames
    }

    /// Places of the keyframes among the pictures.
    fn keyframes(&self) -> Vec<usize> {
        let video = self.tracks.iter().find(|track| track.kind == Kind::Video);
        let packets = video.map_or(&[][..], |track| &track.packets[..]);
        (0..packets.len()).filter(|index| packets[*index].key).collect()
    }

    /// Publishes it in real time; ends some moments after the last frame.
    pub fn publish(&self, url: &str) -> JoinHandle<()> {
        let (headers, frames) = self.messages();
        let mut publisher = RtmpPublisher::connect(url).expect("publish");
        thread::spawn(move || {
            for message in &headers {
                publisher.send(message.kind, message.timestamp, &message.payload).expect("send");
            }
            publisher.send_paced(&frames, 1.0).expect("send");
            thread::sleep(Duration::from_millis(200));
        })
    }

    /// The decoder configuration of a track as the file has it; empty where there is none.
    pub fn config(&self, kind: Kind) -> &[u8] {
        self.tracks.iter().find(|t| t.kind == kind).map_or(&[], |track| &track.config)
    }

    /// ffmpeg's name of a track's codec; empty when there is no such track.
    pub fn codec(&self, kind: Kind) -> &str {
        self.tracks.iter().find(|t| t.kind == kind).map_or("", |track| &track.codec)
    }
}

impl Track {
    fn fourcc(&self) -> &'static [u8; 4] {
        match self.codec.as_str() {
            "h264" => b"avc1",
            "hevc" => b"hvc1",
            "av1" => b"av01",
            "vp9" => b"vp09",
            "aac" => b"mp4a",
            "mp3" => b".mp3",
            "opus" => b"Opus",
            "flac" => b"fLaC",
            "ac3" => b"ac-3",
            "eac3" => b"ec-3",
            other => panic!("no FourCC for {other}"),
        }
    }

    /// The message with the decoder configuration; legacy for H.264 and AAC, as all encoders do it.
    fn header(&self) -> Option<Vec<u8>> {
        let head: &[u8] = match self.codec.as_str() {
            "h264" => &[0x17, 0, 0, 0, 0],
            "aac" => &[0xaf, 0],
            "mp3" | "ac3" | "eac3" => return None,
            _ => &[&[0x90], &self.fourcc()[..]].concat(),
        };
        let config = match self.codec.as_str() {
            "flac" if self.config.len() == 34 => [b"fLaC\x80\0\0\x22", &self.config[..]].concat(),
            _ => self.config.clone(),
        };
        assert!(!config.is_empty(), "no configuration of {}", self.codec);
        Some([head, &config].concat())
    }

    /// What precedes a frame.
    fn head(&self, key: bool, composition: i64) -> Vec<u8> {
        let [_, composition @ ..] = (composition as i32).to_be_bytes();
        let frame = if key { 0x10 } else { 0x20 };
        match self.codec.as_str() {
            "h264" => [&[frame | 7, 1][..], &composition].concat(),
            "aac" => vec![0xaf, 1],
            "mp3" => vec![0x2f],
            "hevc" => [&[0x80 | frame | 1], &self.fourcc()[..], &composition].concat(),
            "av1" | "vp9" => [&[0x80 | frame | 1], &self.fourcc()[..]].concat(),
            _ => [&[0x91], &self.fourcc()[..]].concat(),
        }
    }
}

/// The content of an MP4 file's `vpcC`, with its version: ffmpeg does not give it.
fn vp9_config(path: &Path) -> Vec<u8> {
    let bytes = std::fs::read(path).expect("the file");
    let at = bytes.windows(4).position(|name| name == b"vpcC").expect("a vpcC");
    bytes[at + 4..at + 16].to_vec()
}

/// All packets of one track, one behind the other.
fn raw(path: &Path, index: u64) -> Vec<u8> {
    let out = path.with_extension(format!("{}.{index}.data", std::process::id()));
    let mut command = ffmpeg();
    command.arg("-copyts").arg("-i").arg(path).args(["-map", &format!("0:{index}")]);
    command.args(["-c", "copy", "-f", "data"]).arg(&out);
    Process::start("ffmpeg", &mut command).finish(LIMIT).expect_success("ffmpeg unpacks");
    let bytes = std::fs::read(&out).expect("what ffmpeg wrote");
    let _ = std::fs::remove_file(&out);
    bytes
}

/// Bytes from lines such as `00000000: 0164 001f  .d..`.
fn hex_dump(text: &str) -> Vec<u8> {
    let mut digits = Vec::new();
    for line in text.lines() {
        let Some((_, rest)) = line.split_once(": ") else { continue };
        let hex = rest.split("  ").next().unwrap_or_default();
        digits.extend(hex.chars().filter_map(|c| c.to_digit(16)).map(|digit| digit as u8));
    }
    digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

/// A container, by what has to be undone to find the published bytes again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Container {
    /// Frames as published: FLV, MP4.
    AsIs,
    /// H.264 and H.265 as byte streams with parameter sets, AAC with ADTS headers.
    Ts,
    /// AAC with ADTS headers, nothing else.
    Adts,
    /// MPEG audio, nothing else.
    Mp3,
}

impl Container {
    /// The container of a URL.
    pub fn of(suffix: &str) -> Container {
        match suffix {
            "ts" => Container::Ts,
            "aac" => Container::Adts,
            "mp3" => Container::Mp3,
            _ => Container::AsIs,
        }
    }
}

/// A frame as ffmpeg finds it.
#[derive(Clone, Debug, PartialEq)]
pub struct Frame {
    /// Seconds.
    pub pts: f64,
    /// Seconds.
    pub dts: f64,
    /// Seconds; 0 where the container does not tell.
    pub duration: f64,
    /// Bytes.
    pub size: usize,
    /// SHA-256, hexadecimal.
    pub hash: String,
}

/// The frames of a file or URL.
#[derive(Clone, Debug, Default)]
pub struct Frames {
    /// Pictures.
    pub video: Vec<Frame>,
    /// Audio frames.
    pub audio: Vec<Frame>,
}

/// Starts to read frames. What a transport stream adds is taken out again: delimiters, parameter
/// sets, ADTS headers, the other kind of start codes.
pub fn read(source: &Source, input: &str, container: Container, published: bool) -> Process {
    let mut command = reader(source, &[], input, container, published);
    Process::start(&format!("ffmpeg {input}"), &mut command)
}

/// The same and decodes everything, of an input with options; nothing of both may be wrong.
pub fn read_and_decode(source: &Source, args: &[&str], input: &str, as_is: Container) -> Process {
    let mut command = reader(source, args, input, as_is, false);
    command.args(["-map", "0", "-threads", "1", "-f", "null", "-"]);
    Process::start(&format!("ffmpeg {input}"), &mut command)
}

fn reader(
    source: &Source,
    args: &[&str],
    input: &str,
    container: Container,
    published: bool,
) -> Command {
    let sets = match source.codec(Kind::Video) {
        "h264" => "7-9",
        "hevc" => "32-35",
        _ => "",
    };
    let mut command = Command::new("ffmpeg");
    command.args(["-hide_banner", "-nostdin", "-v", "error", "-xerror", "-copyts"]);
    command.args(args).args(["-i", input, "-map", "0", "-c", "copy"]);
    if container == Container::Ts && !sets.is_empty() {
        let remove = format!("filter_units=remove_types={sets}");
        let to_byte_stream = format!("{}_mp4toannexb", source.codec(Kind::Video));
        let filters = if published { format!("{to_byte_stream},{remove}") } else { remove };
        command.args(["-bsf:v", &filters]);
    }
    let adts = matches!(container, Container::Ts | Container::Adts);
    if adts && !published && source.codec(Kind::Audio) == "aac" {
        command.args(["-bsf:a", "aac_adtstoasc"]);
    }
    if published && matches!(container, Container::Adts | Container::Mp3) {
        command.arg("-vn");
    }
    command.args(["-f", "framehash", "-hash", "sha256", "-"]);
    command
}

/// The frames when ffmpeg has ended, which it has to do without a word.
pub fn finish(who: &str, process: Process) -> Frames {
    let finished = process.finish(LIMIT);
    assert!(finished.stderr.is_empty(), "{who}: ffmpeg complains: {:#?}", finished.stderr);
    let finished = finished.expect_success(who);
    let mut bases: Vec<f64> = Vec::new();
    let mut kinds: Vec<String> = Vec::new();
    let mut frames = Frames::default();
    for line in &finished.stdout {
        if let Some(base) = line.strip_prefix("#tb ") {
            let (_, base) = base.split_once(": ").expect("a time base");
            let (one, ticks) = base.split_once('/').expect("a fraction");
            let number = |text: &str| text.trim().parse::<f64>().expect("a number");
            bases.push(number(one) / number(ticks));
        } else if let Some(kind) = line.strip_prefix("#media_type ") {
            kinds.push(kind.split_once(": ").expect("a kind").1.trim().to_owned());
        } else if !line.starts_with('#') {
            let fields: Vec<&str> = line.split(',').map(str::trim).collect();
            let stream: usize = fields[0].parse().expect("a stream");
            let time = |n: usize| fields[n].parse::<f64>().expect("a time") * bases[stream];
            let frame = Frame {
                pts: time(2),
                dts: time(1),
                duration: time(3),
                size: fields[4].parse().expect("a size"),
                hash: fields[5].to_owned(),
            };
            match kinds[stream].as_str() {
                "video" => frames.video.push(frame),
                _ => frames.audio.push(frame),
            }
        }
    }
    frames
}

/// What is to be found of a source in a container.
pub fn published(source: &Source, container: Container) -> Frames {
    let mut all = Frames::default();
    for path in &source.paths {
        let part = source.paths.len() > 1;
        let path = path.to_str().expect("UTF-8 path");
        // Each file of several has one track, and filters for the other would be too many.
        let own = part.then(|| Source::open(path.into()));
        let process = read(own.as_ref().unwrap_or(source), path, container, true);
        let frames = finish("the published file", process);
        all.video.extend(frames.video);
        all.audio.extend(frames.audio);
    }
    all
}

/// Fails unless `got` is what was published from some keyframe on to the end: nothing added, left
/// out, swapped or changed, and every time the published one but for a constant that both tracks
/// share. Returns how many pictures (audio frames, where there are no pictures) came before.
pub fn assert_is_tail(who: &str, source: &Source, got: &Frames, published: &Frames) -> usize {
    let mut shifts: Vec<f64> = Vec::new();
    let mut starts = Vec::new();
    for (kind, got, published) in
        [("pictures", &got.video, &published.video), ("audio frames", &got.audio, &published.audio)]
    {
        assert_eq!(got.is_empty(), published.is_empty(), "{who}: {kind}");
        let Some(start) = published.len().checked_sub(got.len()) else {
            panic!("{who}: {} {kind}, of {} published", got.len(), published.len());
        };
        for (index, (got, wanted)) in got.iter().zip(&published[start..]).enumerate() {
            let (got, wanted) = ((got.size, &got.hash), (wanted.size, &wanted.hash));
            assert_eq!(got, wanted, "{who}: {kind}, number {index} (published {})", start + index);
        }
        shifts.extend(got.iter().zip(&published[start..]).map(|(got, own)| got.pts - own.pts));
        if !got.is_empty() {
            starts.push(start);
        }
    }
    let least = shifts.iter().copied().fold(f64::INFINITY, f64::min);
    let most = shifts.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    assert!(most - least <= TIME_TOLERANCE, "{who}: times are off by {} s", most - least);
    let start = *starts.first().unwrap_or_else(|| panic!("{who}: no frame at all"));
    if !got.video.is_empty() {
        assert!(source.keyframes().contains(&start), "{who}: starts with picture {start}");
    }
    start
}

/// Publishers round to milliseconds, and the server lays audio frames end to end.
const TIME_TOLERANCE: f64 = 0.003;
