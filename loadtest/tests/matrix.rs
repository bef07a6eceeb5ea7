//! Every codec with every other, published to one server at once: whatever the server makes of
//! them, ffmpeg finds the published packets in it, with the published times, and nothing is wrong.

mod common;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use common::http;
use common::process::Process;
use common::server::Server;
use common::ts;
use common::units::{self, Container, Frame, Frames, Size, Source};
use loadtest::client::{Received, RtmpPublisher, flv_messages};
use loadtest::media::{Kind, is_sequence_header};
use ringcast::proto::hls::check::{Checker, Playlist};

const SIZE: Size = Size { pixels: "192x108", seconds: 8 };
/// The server's vhosts, by what is asked of each. A stream is published to all of them.
const VHOSTS: [&str; 4] = ["ts.test", "mp4.test", "ll.test", "flv.test"];

/// A stream of the matrix.
struct Stream {
    name: String,
    source: Source,
    /// It has a place in MPEG-TS.
    in_ts: bool,
    /// ffmpeg 5.1 reads it in FLV.
    in_flv: bool,
    /// What ffmpeg has to find, by container.
    as_is: Frames,
    as_ts: Frames,
}

fn video(name: &str) -> Source {
    let x264 = |b: &'static str| {
        vec!["-c:v", "libx264", "-preset", "ultrafast", "-bf", b, "-g", "25", "-keyint_min", "25"]
    };
    let x265 = |params: &'static str| {
        let more = ["-tag:v", "hvc1", "-x265-params", params];
        [&["-c:v", "libx265", "-preset", "ultrafast"][..], &more].concat()
    };
    let vp9 = ["-c:v", "libvpx-vp9", "-g", "25", "-b:v", "200k"];
    let arguments = match name {
        "h264" => x264("0"),
        "h264b" => x264("2"),
        "h265" => x265("keyint=25:min-keyint=25:scenecut=0:bframes=0:log-level=error"),
        "h265b" => x265("keyint=25:min-keyint=25:scenecut=0:bframes=3:open-gop=0:log-level=error"),
        "av1" => {
            let realtime = ["-usage", "realtime", "-cpu-used", "8", "-g", "25", "-b:v", "200k"];
            [&["-c:v", "libaom-av1"][..], &realtime].concat()
        }
        // Pictures that are shown later than others that are decoded later: hidden in one unit.
        "av1b" => vec!["-c:v", "libsvtav1", "-preset", "12", "-g", "25", "-b:v", "200k"],
        "vp9" => [&vp9[..], &["-deadline", "realtime", "-cpu-used", "8"]].concat(),
        _ => {
            let hidden = ["-deadline", "good", "-cpu-used", "5", "-auto-alt-ref", "1"];
            [&vp9[..], &hidden, &["-lag-in-frames", "16"]].concat()
        }
    };
    Source::make_sized(&format!("matrix-{name}"), SIZE, &arguments, &[])
}

fn audio(name: &str) -> Source {
    let arguments: &[&str] = match name {
        "aac" => &["-c:a", "aac", "-b:a", "64k", "-ac", "2"],
        // Without bit reservoir, so that every frame can be decoded by itself.
        "mp3" => &["-c:a", "libmp3lame", "-b:a", "64k", "-reservoir", "0", "-ar", "44100"],
        "aac51" => &["-c:a", "aac", "-b:a", "192k", "-ac", "6"],
        "heaac" => &["-c:a", "aac", "-b:a", "48k", "-ac", "2", "-ar", "24000"],
        "heaac2" => &["-c:a", "aac", "-b:a", "32k", "-ac", "1", "-ar", "24000"],
        "ac3" => &["-c:a", "ac3", "-b:a", "192k", "-ac", "6"],
        "flac" => &["-c:a", "flac", "-ar", "44100", "-ac", "2"],
        _ => &["-c:a", "libopus", "-b:a", "48k"],
    };
    let source = Source::make_sized(&format!("matrix-{name}"), SIZE, &[], arguments);
    // There is no free encoder of HE-AAC at hand. What matters here is what its configuration says
    // of rate, length of frames and channels; decoders do without the data that is missing.
    match name {
        // 24 kHz, stereo; the extension says that the output has 48 kHz.
        "heaac" => source.with_audio_config(&[0x13, 0x10, 0x56, 0xe5, 0x98]),
        // Parametric stereo, 24 kHz, mono, output 48 kHz, LC.
        "heaac2" => source.with_audio_config(&[0xeb, 0x09, 0x88, 0x00]),
        _ => source,
    }
}

/// Audio tracks of the matrix.
const AUDIO: [&str; 3] = ["aac", "mp3", "opus"];
/// What else is published, with H.264 without B-frames.
const MORE_AUDIO: [&str; 5] = ["aac51", "heaac", "heaac2", "ac3", "flac"];

/// Does something for each of these, some at once, and gives the results in order.
fn each<T: Send, R: Send>(all: Vec<T>, at_once: usize, work: impl Fn(T) -> R + Sync) -> Vec<R> {
    let count = all.len();
    let todo = Mutex::new(all.into_iter().enumerate());
    let done: Mutex<BTreeMap<usize, R>> = Mutex::default();
    thread::scope(|scope| {
        for _ in 0..at_once {
            scope.spawn(|| {
                loop {
                    let Some((index, one)) = todo.lock().expect("lock").next() else { return };
                    let result = work(one);
                    done.lock().expect("lock").insert(index, result);
                }
            });
        }
    });
    let done = done.into_inner().expect("lock");
    assert_eq!(done.len(), count);
    done.into_values().collect()
}

/// All streams: four codecs of pictures with three of sound and with none, and sound alone.
fn streams() -> Vec<Stream> {
    let names = ["h264", "h264b", "h265", "h265b", "av1", "av1b", "vp9", "vp9b"];
    let videos = names.map(|name| (name, true)).into_iter();
    let audios = AUDIO.into_iter().chain(MORE_AUDIO).map(|name| (name, false));
    let tracks = each(videos.chain(audios).collect(), 2, |(name, is_video)| {
        let source = if is_video { video(name) } else { audio(name) };
        let in_ts = !name.starts_with("av1") && !name.starts_with("vp9") && name != "flac";
        let as_is = units::published(&source, Container::AsIs);
        let as_ts =
            if in_ts { units::published(&source, Container::Ts) } else { Frames::default() };
        let in_flv = name.starts_with("h264") || name.contains("aac") || name == "mp3";
        Stream { name: name.to_owned(), source, in_ts, in_flv, as_is, as_ts }
    });
    let track = |name: &str| tracks.iter().find(|track| track.name == name).expect("a track");
    let frames = |a: &Frames, b: &Frames| Frames {
        video: [&a.video[..], &b.video].concat(),
        audio: [&a.audio[..], &b.audio].concat(),
    };
    let both = |a: &Stream, b: &Stream| Stream {
        name: format!("{}-{}", a.name, b.name),
        source: a.source.with(&b.source),
        in_ts: a.in_ts && b.in_ts,
        in_flv: a.in_flv && b.in_flv,
        as_is: frames(&a.as_is, &b.as_is),
        as_ts: frames(&a.as_ts, &b.as_ts),
    };
    let alone = |a: &Stream| Stream {
        name: a.name.clone(),
        source: a.source.clone(),
        in_ts: a.in_ts,
        in_flv: a.in_flv,
        as_is: a.as_is.clone(),
        as_ts: a.as_ts.clone(),
    };
    let mut all = Vec::new();
    for codec in ["h264", "h265", "av1", "vp9"] {
        let with_b = format!("{codec}b");
        all.push(both(track(&with_b), track("aac")));
        all.push(both(track(codec), track("mp3")));
        all.push(both(track(&with_b), track("opus")));
        all.push(alone(track(codec)));
    }
    all.extend(MORE_AUDIO.map(|name| both(track("h264"), track(name))));
    all.extend(AUDIO.map(|name| alone(track(name))));
    all
}

/// A folder that is gone at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let name = format!("{name}-{}", std::process::id());
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).expect("a folder");
        Folder(path)
    }

    fn names(&self, below: &str) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(self.0.join(below)) else { return Vec::new() };
        entries.map(|e| e.expect("an entry").file_name().to_string_lossy().into_owned()).collect()
    }

    /// The one recording of a stream.
    fn recording(&self, vhost: &str, stream: &str) -> PathBuf {
        let start = format!("{stream}.");
        let mut names = self.names(vhost);
        names.retain(|name| name.starts_with(&start));
        assert_eq!(names.len(), 1, "{vhost}: recordings of {stream}: {names:?}");
        self.0.join(vhost).join(&names[0])
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What is wrong can be looked at.
        if !thread::panicking() {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }
}

fn start(folder: &Folder) -> Server {
    let mut text = String::new();
    for vhost in VHOSTS {
        let (suffix, more_hls, more_dvr) = match vhost {
            "ts.test" => ("ts", "", ""),
            "mp4.test" => ("mp4", "hls_use_fmp4 = true\n", ""),
            "ll.test" => ("mp4", "hls_use_fmp4 = true\nhls_part = 0.3\n", "fragmented = true\n"),
            _ => ("flv", "enabled = false\n", ""),
        };
        let enabled = if vhost == "flv.test" { "" } else { "enabled = true\n" };
        write!(
            text,
            "[vhost.\"{vhost}\".hls]\n{enabled}hls_fragment = 1\n\
             hls_window = 60\nhls_ctx = false\nhls_ts_ctx = false\n{more_hls}\
             [vhost.\"{vhost}\".dvr]\nenabled = true\n\
             dvr_path = \"{}/{vhost}/[stream].[timestamp].{suffix}\"\n{more_dvr}",
            folder.0.display()
        )
        .expect("text");
    }
    text += "[vhost.\"mp4.test\".dash]\nenabled = true\ndash_fragment = 1\n\
             dash_window_size = 60\ndash_ctx = false\n";
    let file = folder.0.join("ringcast.toml");
    std::fs::write(&file, text).expect("a configuration");
    Server::start_with_file(&file, &["shards=2", "vhost.publish.hold=0"])
}

/// Publishes in real time; the first timestamp is later by `later`.
fn publish(url: &str, source: &Source, later: u32) {
    let (headers, frames) = (source.messages().0, source.frames_later(later));
    let mut publisher = RtmpPublisher::connect(url).expect("publish");
    // As encoders do: it says which tracks there are, so that nobody waits for another.
    publisher.send(Kind::Data, 0, &metadata(source)).expect("send");
    for message in &headers {
        publisher.send(message.kind, message.timestamp, &message.payload).expect("send");
    }
    publisher.send_paced(&frames, 1.0).expect("send");
    thread::sleep(Duration::from_millis(300));
}

/// An onMetaData with what the server looks for.
fn metadata(source: &Source) -> Vec<u8> {
    let mut out = b"\x02\0\x0aonMetaData\x08\0\0\0\0".to_vec();
    for (kind, key) in [(Kind::Video, "videocodecid"), (Kind::Audio, "audiocodecid")] {
        if !source.codec(kind).is_empty() {
            out.extend_from_slice(&(key.len() as u16).to_be_bytes());
            out.extend_from_slice(key.as_bytes());
            out.push(0);
            out.extend_from_slice(&7f64.to_be_bytes());
        }
    }
    out.extend_from_slice(&[0, 0, 9]);
    out
}

/// Status and body of what an HTTP/1.0 player gets until the connection ends.
fn body(addr: SocketAddr, path: &str) -> (u16, Vec<u8>) {
    let mut socket = TcpStream::connect(addr).expect("connect");
    socket.set_read_timeout(Some(Duration::from_secs(40))).expect("a timeout");
    write!(socket, "GET {path} HTTP/1.0\r\n\r\n").expect("send");
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).expect("an answer that ends");
    let answer = http::parse(&answer);
    (answer.status, answer.body)
}

fn get(addr: SocketAddr, path: &str) -> http::Answer {
    http::request(addr, "GET", path, &[])
}

/// Loads a stream part by part as a player of Low-Latency HLS does, until nobody publishes any
/// more. Gives all parts as one file, and how many there are.
fn load_parts(addr: SocketAddr, stream: &str) -> (Vec<u8>, usize) {
    let path = format!("/live/{stream}.m3u8?vhost=ll.test");
    let file = |uri: &str| {
        let answer = get(addr, &format!("/live/{uri}"));
        assert_eq!(answer.status, 200, "{stream}: {uri}");
        answer.body
    };
    let begun = Instant::now();
    let first = loop {
        let answer = get(addr, &path);
        if answer.status == 200 {
            break answer;
        }
        assert!(begun.elapsed() < Duration::from_secs(15), "{stream}: {answer:?}");
        thread::sleep(Duration::from_millis(100));
    };
    let mut checker = Checker::default();
    let mut parts: BTreeMap<(u64, usize), Vec<u8>> = BTreeMap::new();
    let mut init: Option<(String, Vec<u8>)> = None;
    let (mut text, mut published) = (first.text(), true);
    loop {
        let list = checker.load(begun.elapsed().as_secs_f64(), published, &text);
        let list = list.unwrap_or_else(|why| panic!("{stream}: {why} in\n{text}"));
        for segment in list.segments.iter().chain([&list.open]) {
            if segment.parts.is_empty() {
                continue;
            }
            let map = segment.map.clone().expect("an initialisation segment");
            let (uri, _) = init.get_or_insert_with(|| (map.clone(), file(&map)));
            assert_eq!(*uri, map, "{stream}: another initialisation segment");
            for (index, (uri, ..)) in segment.parts.iter().enumerate() {
                parts.entry((segment.number, index)).or_insert_with(|| file(uri));
            }
        }
        if !published {
            break;
        }
        let (number, part) = (list.open.number, list.open.parts.len());
        let answer = get(addr, &format!("{path}&_HLS_msn={number}&_HLS_part={part}"));
        published = answer.status == 200;
        text = if published {
            answer.text()
        } else {
            // The last segment is closed when its publisher has gone.
            assert_eq!(answer.status, 503, "{stream}: {answer:?}");
            thread::sleep(Duration::from_millis(500));
            get(addr, &path).text()
        };
    }
    let count = parts.len();
    let (_, mut all) = init.expect("an initialisation segment");
    parts.into_values().for_each(|bytes| all.extend_from_slice(&bytes));
    (all, count)
}

/// A playlist of the server with an end, so that ffmpeg reads all of it and no more.
fn whole_playlist(addr: SocketAddr, vhost: &str, stream: &str, folder: &Folder) -> PathBuf {
    let answer = get(addr, &format!("/live/{stream}.m3u8?vhost={vhost}"));
    assert_eq!(answer.status, 200, "{vhost}: {stream}");
    let text = answer.text();
    let list = Playlist::parse(&text).unwrap_or_else(|why| panic!("{why} in\n{text}"));
    assert_eq!((list.first, list.discontinuities), (0, 0), "{vhost}: {stream}");
    // Sound alone makes segments of `hls_aof_ratio` fragments, which are two.
    assert!(list.segments.len() >= 4, "{vhost}: {stream} has {} segments", list.segments.len());
    let mut out = String::new();
    for line in text.lines() {
        let absolute = |uri: &str| format!("http://{addr}/live/{uri}");
        if let Some(rest) = line.strip_prefix("#EXT-X-MAP:URI=\"") {
            let (uri, rest) = rest.split_once('"').expect("quotes");
            writeln!(out, "#EXT-X-MAP:URI=\"{}\"{rest}", absolute(uri)).expect("text");
        } else if line.starts_with("#EXT-X-PART:") || line.starts_with("#EXT-X-PRELOAD-HINT:") {
            // ffmpeg does not know them.
        } else if line.starts_with('#') || line.is_empty() {
            out += &format!("{line}\n");
        } else {
            out += &format!("{}\n", absolute(line));
        }
    }
    out += "#EXT-X-ENDLIST\n";
    let file = folder.0.join(format!("{vhost}-{stream}.m3u8"));
    std::fs::write(&file, out).expect("a playlist");
    file
}

/// Something for ffmpeg to read.
struct Job<'a> {
    who: String,
    stream: &'a Stream,
    args: &'static [&'static str],
    input: PathBuf,
    container: Container,
    /// Frames of audio before the first picture that may be missing.
    audio_lost: usize,
    /// Frames of audio behind the last picture that ffmpeg does not read.
    audio_unread: usize,
}

const NO_ARGS: &[&str] = &[];
const OF_PLAYLISTS: &[&str] =
    &["-allowed_extensions", "ALL", "-protocol_whitelist", "file,http,tcp"];

impl Job<'_> {
    fn run(&self) -> Result<(), String> {
        let path = self.input.to_str().expect("UTF-8 path");
        let process = units::read_and_decode(&self.stream.source, self.args, path, self.container);
        let got = units::finish(&self.who, process);
        let published = match self.container {
            Container::Ts => &self.stream.as_ts,
            _ => &self.stream.as_is,
        };
        same(&got, published, (self.audio_lost, self.audio_unread), self.container)
    }
}

/// Compares packets and times. `lost`: frames of audio that may be missing at the beginning, and at
/// the end.
fn same(
    got: &Frames,
    published: &Frames,
    lost: (usize, usize),
    container: Container,
) -> Result<(), String> {
    let mut shifts: Vec<(f64, String)> = Vec::new();
    let kinds =
        [("picture", &got.video, &published.video), ("sound", &got.audio, &published.audio)];
    for (kind, got, published) in kinds {
        let lost = if kind == "sound" { lost } else { (0, 0) };
        let first = got.first().map(|first| &first.hash);
        let start = published.iter().position(|own| Some(&own.hash) == first).unwrap_or(0);
        let missing = published.len() as i64 - (start + got.len()) as i64;
        if start > lost.0 || !(0..=lost.1 as i64).contains(&missing) {
            let of = published.len();
            return Err(format!("{} of {of} of {kind}, from {start} on", got.len()));
        }
        let published = &published[start..start + got.len()];
        for (n, (got, own)) in got.iter().zip(published).enumerate() {
            if (got.size, &got.hash) != (own.size, &own.hash) {
                return Err(format!("{kind} {n} is not what was published: {got:?}, {own:?}"));
            }
            shifts.push((got.pts - own.pts, format!("{kind} {n} is shown")));
            shifts.push((got.dts - own.dts, format!("{kind} {n} is decoded")));
        }
        let lasts = |frames: &[Frame]| frames.last().map_or(0.0, |frame| frame.duration);
        // A transport stream does not say how long a unit lasts, and of a fragment with one unit
        // ffmpeg does not always read it.
        let off = (lasts(got) - lasts(published)).abs();
        if container != Container::Ts && lasts(got) > 0.0 && off > longest(published) {
            return Err(format!("the last {kind} lasts {} s", lasts(got)));
        }
    }
    let by_shift = |a: &&(f64, String), b: &&(f64, String)| a.0.total_cmp(&b.0);
    let least = shifts.iter().min_by(by_shift).ok_or("nothing at all")?;
    let most = shifts.iter().max_by(by_shift).ok_or("nothing at all")?;
    // Publishers round to milliseconds, and the server lays audio frames end to end.
    if most.0 - least.0 > 0.003 {
        return Err(format!("times are not the published ones: {least:?}, {most:?}"));
    }
    Ok(())
}

/// The longest of these frames, seconds.
fn longest(frames: &[Frame]) -> f64 {
    frames.iter().map(|frame| frame.duration).fold(0.0, f64::max)
}

/// From the beginning of the first frame to the end of the last one, seconds.
fn lasts(frames: &Frames) -> f64 {
    let all = || frames.video.iter().chain(&frames.audio);
    let begin = all().map(|frame| frame.pts).fold(f64::INFINITY, f64::min);
    let end = all().map(|frame| frame.pts + frame.duration).fold(0.0, f64::max);
    end - begin
}

/// Where a file begins and how long it is, as it says itself.
fn extent(path: &Path) -> (f64, f64) {
    let mut command = Command::new("ffprobe");
    command.args(["-v", "error", "-show_entries", "format=start_time,duration"]);
    command.args(["-of", "csv=p=0"]).arg(path);
    let out = Process::start("ffprobe", &mut command).finish(Duration::from_secs(30)).stdout;
    let both = out.first().and_then(|line| line.split_once(','));
    let number = |text: &str| text.parse().unwrap_or_else(|_| panic!("{path:?}: {out:?}"));
    both.map(|(begin, length)| (number(begin), number(length))).expect("two numbers")
}

/// An FLV file has the published messages, byte for byte, and their times but for a constant.
fn same_messages(path: &Path, source: &Source) -> Result<(), String> {
    let got = flv_messages(path).map_err(|why| why.to_string())?;
    let (_, sent) = source.messages();
    let mut shift = None;
    for kind in [Kind::Video, Kind::Audio] {
        let own: Vec<&Received> = sent.iter().filter(|m| m.kind == kind).collect();
        let is_frame = |m: &&Received| m.kind == kind && !is_sequence_header(kind, &m.payload);
        let got: Vec<&Received> = got.iter().filter(is_frame).collect();
        let may_miss = if kind == Kind::Audio && source.has_video() { 6 } else { 0 };
        let missing = own.len() as i64 - got.len() as i64;
        if !(0..=may_miss).contains(&missing) {
            return Err(format!("{} of {} {kind:?} messages", got.len(), own.len()));
        }
        for (n, (got, own)) in got.iter().zip(&own[missing as usize..]).enumerate() {
            if got.payload != own.payload {
                return Err(format!("{kind:?} message {n} is another"));
            }
            let apart = own.timestamp.wrapping_sub(got.timestamp);
            if *shift.get_or_insert(apart) != apart {
                return Err(format!("{kind:?} message {n} comes at {}", got.timestamp));
            }
        }
    }
    Ok(())
}

/// The state of every recording of a vhost's streams that is not being written.
fn refused(api: SocketAddr) -> BTreeMap<String, String> {
    let list = http::get(api, "/api/v1/dvrs/?count=1000");
    let all = list["dvrs"].as_array().expect("recordings");
    let refused = all.iter().filter(|one| one["state"] == "refused");
    refused
        .map(|one| {
            let text = |key: &str| one[key].as_str().unwrap_or_default().to_owned();
            (text("url"), text("detail"))
        })
        .collect()
}

#[test]
fn everything_that_goes_in_comes_out() {
    let all = streams();
    let folder = Folder::new("matrix");
    let server = start(&folder);
    let (addr, api) = (server.http_addr(), server.api_addr());
    let published_at = Instant::now();
    let mut live: Vec<(String, (u16, Vec<u8>))> = Vec::new();
    let mut parts: Vec<(Vec<u8>, usize)> = Vec::new();
    let mut not_recorded = BTreeMap::new();
    thread::scope(|scope| {
        let mut early = Vec::new();
        for stream in &all {
            for (suffix, vhost) in [("ts", "ts.test"), ("mp4", "mp4.test")] {
                let path = format!("/live/{}.{suffix}?vhost={vhost}", stream.name);
                let who = format!("{}.{suffix}", stream.name);
                early.push((who, scope.spawn(move || body(addr, &path))));
            }
        }
        // Requests have to be there before the streams are.
        thread::sleep(Duration::from_millis(500));
        let mut publishers = Vec::new();
        for stream in &all {
            for vhost in VHOSTS {
                let url = server.rtmp(&format!("live/{}?vhost={vhost}", stream.name));
                publishers.push(scope.spawn(move || publish(&url, &stream.source, 0)));
            }
        }
        let loading: Vec<_> =
            all.iter().map(|stream| scope.spawn(move || load_parts(addr, &stream.name))).collect();
        thread::sleep(Duration::from_secs(5));
        not_recorded = refused(api);
        publishers.into_iter().for_each(|one| one.join().expect("a publisher"));
        for (who, player) in early {
            let got = player.join().unwrap_or_else(|_| panic!("{who}: no answer that ends"));
            live.push((who, got));
        }
        parts.extend(loading.into_iter().map(|one| one.join().expect("parts")));
    });
    println!("published and played in {:.1} s", published_at.elapsed().as_secs_f64());
    let until = Instant::now() + Duration::from_secs(15);
    while VHOSTS.iter().flat_map(|vhost| folder.names(vhost)).any(|name| name.ends_with(".tmp")) {
        assert!(Instant::now() < until, "recordings are not finished");
        thread::sleep(Duration::from_millis(50));
    }

    let mut jobs = Vec::new();
    let (wrong, checked_ts) = (RefCell::new(Vec::new()), Cell::new(0));
    let mut live = live.into_iter();
    for (stream, (in_parts, count)) in all.iter().zip(parts) {
        let name = &stream.name;
        let save = |what: &str, bytes: &[u8]| {
            let file = folder.0.join(format!("{name}-{what}"));
            std::fs::write(&file, bytes).expect("a scratch file");
            file
        };
        let with_video = stream.source.has_video();
        let lost = if with_video { 6 } else { 0 };
        let mut job = |what: &str, args, input, container, audio_lost| {
            let who = format!("{name}, {what}");
            // Its reader of DASH ends with the first track that does.
            let audio_unread = if what == "DASH" && with_video { 2 } else { 0 };
            jobs.push(Job { who, stream, args, input, container, audio_lost, audio_unread });
        };
        let hold = |what: &str, result: Result<(), String>| {
            wrong.borrow_mut().extend(result.err().map(|why| format!("{name}, {what}: {why}")));
        };
        let check_ts = |what: &str, bytes: &[u8]| match ts::check(bytes) {
            Ok(facts) => {
                checked_ts.set(checked_ts.get() + 1);
                let enough = facts.starts >= 7 || !with_video;
                hold(what, enough.then_some(()).ok_or(format!("few places to start: {facts:?}")));
            }
            Err(why) => hold(what, Err(why)),
        };

        let (_, (status, bytes)) = live.next().expect("HTTP-TS");
        if stream.in_ts {
            assert_eq!(status, 200, "{name}: HTTP-TS");
            check_ts("HTTP-TS", &bytes);
            job("HTTP-TS", NO_ARGS, save("live.ts", &bytes), Container::Ts, lost);
        } else {
            assert_eq!(status, 415, "{name}: HTTP-TS");
        }
        let (_, (status, bytes)) = live.next().expect("HTTP-fMP4");
        assert_eq!(status, 200, "{name}: HTTP-fMP4");
        job("HTTP-fMP4", NO_ARGS, save("live.mp4", &bytes), Container::AsIs, lost);

        let in_ts = if stream.in_ts { Container::Ts } else { Container::AsIs };
        for (vhost, container) in
            [("ts.test", in_ts), ("mp4.test", Container::AsIs), ("ll.test", Container::AsIs)]
        {
            let list = whole_playlist(addr, vhost, name, &folder);
            let text = std::fs::read_to_string(&list).expect("the playlist");
            // What has no place in MPEG-TS is served as MP4 whatever was asked for.
            assert_eq!(
                text.contains("#EXT-X-MAP"),
                container == Container::AsIs,
                "{vhost}: {name}"
            );
            if container == Container::Ts {
                let uris = text.lines().filter(|line| line.starts_with("http"));
                let paths = uris.map(|uri| &uri[uri.find("/live").expect("a path")..]);
                let bytes: Vec<u8> = paths.flat_map(|path| get(addr, path).body).collect();
                check_ts("HLS TS", &bytes);
            }
            job(&format!("HLS of {vhost}"), OF_PLAYLISTS, list, container, lost);
        }
        // A stream that has ended is a manifest that ffmpeg reads from its beginning to its end.
        let manifest = server.http(&format!("/live/{name}.mpd?vhost=mp4.test"));
        job("DASH", NO_ARGS, manifest.into(), Container::AsIs, lost);
        let least = SIZE.seconds as usize * 1000 / 300 - 4;
        assert!(count >= least, "{name}: {count} parts");
        job("LL-HLS in parts", NO_ARGS, save("parts.mp4", &in_parts), Container::AsIs, lost);

        for vhost in VHOSTS {
            if vhost == "ts.test" && !stream.in_ts {
                let detail = not_recorded.remove(&format!("{vhost}/live/{name}"));
                let detail = detail
                    .unwrap_or_else(|| panic!("{vhost}: {name} is not refused: {not_recorded:?}"));
                assert!(detail.contains("no place"), "{name}: {detail}");
                continue;
            }
            let file = folder.recording(vhost, name);
            let what = format!("recording of {vhost}");
            match vhost {
                "ts.test" => {
                    check_ts(&what, &std::fs::read(&file).expect("a recording"));
                    job(&what, NO_ARGS, file, Container::Ts, lost);
                }
                "flv.test" => {
                    hold(&what, same_messages(&file, &stream.source));
                    if stream.in_flv {
                        job(&what, NO_ARGS, file, Container::AsIs, lost);
                    }
                }
                _ => {
                    let ((begin, said), own) = (extent(&file), lasts(&stream.as_is));
                    // Fragments say decoding times, and pictures are shown later. A file with an
                    // index says when it begins.
                    let end = if vhost == "ll.test" { said - begin } else { said };
                    let latest = if vhost == "ll.test" { 0.2 } else { 0.001 };
                    let frame = longest(&stream.as_is.video).max(longest(&stream.as_is.audio));
                    let near = (end - own).abs() <= frame + 0.003 && (0.0..latest).contains(&begin);
                    let why = format!("{said} s from {begin} on, published were {own} s");
                    hold(&what, near.then_some(()).ok_or(why));
                    job(&what, NO_ARGS, file, Container::AsIs, lost);
                }
            }
        }
    }
    assert!(not_recorded.is_empty(), "refused to record: {not_recorded:?}");
    let (count, mut wrong) = (jobs.len(), wrong.into_inner());
    let reading = Instant::now();
    let results = each(jobs, 3, |job| {
        // A panic of one reading must not hide what the others find.
        let result = std::panic::catch_unwind(|| job.run());
        let result = result.unwrap_or_else(|why| {
            Err(why.downcast_ref::<String>().cloned().unwrap_or_else(|| "a panic".into()))
        });
        result.err().map(|why| format!("{}: {why}", job.who))
    });
    wrong.extend(results.into_iter().flatten());
    println!(
        "{count} readings by ffmpeg in {:.1} s, {} transport streams keep their rules",
        reading.elapsed().as_secs_f64(),
        checked_ts.get()
    );
    assert!(wrong.is_empty(), "{} are wrong:\n{}", wrong.len(), wrong.join("\n"));
    server.stop();
}

/// Clocks that begin again: the publisher's of 32 bits, and that of MPEG-TS of 33 bits at 90 kHz.
#[test]
fn clocks_that_roll_over() {
    let (pictures, sound) = (video("h264b"), audio("aac"));
    let source = pictures.with(&sound);
    let published = |container| {
        let (video, audio) =
            (units::published(&pictures, container), units::published(&sound, container));
        Frames { video: video.video, audio: audio.audio }
    };
    let folder = Folder::new("roll-over");
    let server = start(&folder);
    let addr = server.http_addr();
    // Half of the medium comes before the clock begins again.
    let half = SIZE.seconds * 500 + units::SHIFT_MS as u32;
    let wire = 0u32.wrapping_sub(half);
    let of_ts = u32::try_from((1u64 << 33) / 90).expect("26 hours") - half;
    let all = [("wire", wire), ("ts", of_ts)];
    thread::scope(|scope| {
        let mut answers = Vec::new();
        for (name, _) in all {
            for (suffix, vhost) in [("ts", "ts.test"), ("mp4", "mp4.test")] {
                let path = format!("/live/{name}.{suffix}?vhost={vhost}");
                answers.push((name, suffix, scope.spawn(move || body(addr, &path))));
            }
        }
        thread::sleep(Duration::from_millis(300));
        for (name, later) in all {
            for vhost in ["ts.test", "mp4.test"] {
                let url = server.rtmp(&format!("live/{name}?vhost={vhost}"));
                let source = &source;
                scope.spawn(move || publish(&url, source, later));
            }
        }
        for (name, suffix, answer) in answers {
            let who = format!("{name}.{suffix}");
            let (status, bytes) = answer.join().unwrap_or_else(|_| panic!("{who}: no answer"));
            assert_eq!(status, 200, "{who}");
            if suffix == "ts" {
                let facts = ts::check(&bytes).unwrap_or_else(|why| panic!("{who}: {why}"));
                assert_eq!(facts.rolled_over, name == "ts", "{who}");
            }
            let file = folder.0.join(&who);
            std::fs::write(&file, &bytes).expect("a scratch file");
            let (path, container) = (file.to_str().expect("UTF-8 path"), Container::of(suffix));
            let got = units::read_and_decode(&source, NO_ARGS, path, container);
            let got = units::finish(&who, got);
            let result = same(&got, &published(container), (6, 0), container);
            result.unwrap_or_else(|why| panic!("{who}: {why}"));
        }
    });
    server.stop();
}
