//! Recordings: what is in the files is what was published, whatever happens to disk and server.

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use common::faulty_disk::{Fault, FaultyDisk};
use common::hook_server::{Behaviour, HookServer};
use common::process::Process;
use common::server::{Server, binary};
use common::units::{self, AAC, Container, Frame, H264, Source};
use common::{http, media};
use loadtest::client::{BlockingPlayer, Received, RtmpPublisher, flv_messages};
use loadtest::media::Kind;
use ringcast::proto::mpeg::Event;
use ringcast::proto::ts::demux::Demux;
use rustix::process::Signal;

const STREAM: &str = "live/dvr";

fn source() -> Source {
    Source::make("dvr-h264-aac", H264, AAC)
}

/// A folder for recordings, empty and gone at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let name = format!("dvr-{name}-{}", std::process::id());
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).expect("a folder");
        Folder(path)
    }

    /// All files below, by name.
    fn files(&self) -> Vec<PathBuf> {
        let (mut files, mut folders) = (Vec::new(), vec![self.0.clone()]);
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).expect("a folder") {
                let path = entry.expect("an entry").path();
                if path.is_dir() { folders.push(path) } else { files.push(path) }
            }
        }
        files.sort();
        files
    }

    /// The settings that record into it, with this end of the path and these settings more.
    fn settings(&self, path: &str, more: &[&str]) -> Vec<String> {
        let dvr = ["enabled=true".to_owned(), format!("dvr_path={}/{path}", self.0.display())];
        let mut all = vec!["shards=2".to_owned(), "vhost.publish.hold=0".to_owned()];
        all.extend(dvr.iter().map(|setting| format!("vhost.dvr.{setting}")));
        all.extend(more.iter().map(|setting| (*setting).to_owned()));
        all
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn start(settings: &[String]) -> Server {
    Server::start(&settings.iter().map(String::as_str).collect::<Vec<_>>())
}

/// Publishes the source in real time.
fn publish(server: &Server, source: &Source) {
    let (headers, frames) = source.messages();
    let mut publisher = RtmpPublisher::connect(&server.rtmp(STREAM)).expect("publish");
    for message in &headers {
        publisher.send(message.kind, message.timestamp, &message.payload).expect("send");
    }
    publisher.send_paced(&frames, 1.0).expect("send");
    thread::sleep(Duration::from_millis(300));
}

/// Waits until there are so many files, and none that is being written.
fn wait_for_files(folder: &Folder, count: usize) -> Vec<PathBuf> {
    let until = Instant::now() + Duration::from_secs(15);
    loop {
        let files = folder.files();
        let open = files.iter().any(|path| path.to_string_lossy().ends_with(".tmp"));
        if files.len() >= count && !open {
            return files;
        }
        assert!(Instant::now() < until, "{count} files wanted: {files:#?}");
        thread::sleep(Duration::from_millis(50));
    }
}

/// Decoding everything has to work without a word.
fn decodes(path: &Path) {
    let mut command = Command::new("ffmpeg");
    command.args(["-hide_banner", "-nostdin", "-v", "error", "-xerror", "-i"]).arg(path);
    command.args(["-f", "null", "-"]);
    let finished = Process::start("ffmpeg", &mut command).finish(Duration::from_secs(90));
    assert!(finished.stderr.is_empty(), "{path:?}: decoding: {:#?}", finished.stderr);
    finished.expect_success("decoding");
}

fn frames_of(source: &Source, path: &Path, container: Container) -> units::Frames {
    let who = path.display().to_string();
    units::finish(&who, units::read(source, path.to_str().expect("UTF-8"), container, false))
}

fn content(frames: &[Frame]) -> Vec<(usize, &str)> {
    frames.iter().map(|frame| (frame.size, frame.hash.as_str())).collect()
}

/// A number that ffprobe finds in a file.
fn probe(path: &Path, entry: &str) -> f64 {
    let mut command = Command::new("ffprobe");
    command.args(["-v", "error", "-show_entries", entry, "-of", "csv=p=0"]).arg(path);
    let out = Process::start("ffprobe", &mut command).finish(Duration::from_secs(30)).stdout;
    let first = out.first().and_then(|line| line.trim_end_matches(',').parse().ok());
    first.unwrap_or_else(|| panic!("{entry} of {path:?}: {out:?}"))
}

/// The recording of the stream, as the API tells of it.
fn state(server: &Server) -> serde_json::Value {
    let list = http::get(server.api_addr(), "/api/v1/dvrs/");
    list["dvrs"][0].clone()
}

fn wait_for_state(server: &Server, wanted: &str) -> serde_json::Value {
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        let now = state(server);
        if now["state"] == wanted {
            return now;
        }
        assert!(Instant::now() < until, "state {wanted} wanted: {now:#}");
        thread::sleep(Duration::from_millis(50));
    }
}

/// Records a session and compares every frame.
fn records(name: &str, end: &str, source: &Source, more: &[&str]) {
    let folder = Folder::new(name);
    let server = start(&folder.settings(&format!("[app]/[stream].[timestamp].{end}"), more));
    publish(&server, source);
    let files = wait_for_files(&folder, 1);
    assert_eq!(files.len(), 1, "{files:?}");
    let container = Container::of(end);
    let got = frames_of(source, &files[0], container);
    let published = units::published(source, container);
    assert_eq!(units::assert_is_tail(name, source, &got, &published), 0, "{name}");
    decodes(&files[0]);
    let duration = probe(&files[0], "format=duration");
    assert!((5.8..6.3).contains(&duration), "{name}: {duration} s");
    if end != "ts" {
        let begins = probe(&files[0], "format=start_time");
        assert!((0.0..0.1).contains(&begins), "{name}: begins at {begins} s");
    }
    server.stop();
}

#[test]
fn flv() {
    records("flv", "flv", &source(), &[]);
}

#[test]
fn ts() {
    records("ts", "ts", &source(), &[]);
}

#[test]
fn mp4() {
    records("mp4", "mp4", &source(), &[]);
}

#[test]
fn fragmented_mp4() {
    records("fmp4", "mp4", &source(), &["vhost.dvr.fragmented=true"]);
}

#[test]
fn h265_and_audio_alone() {
    let x265 = "keyint=25:min-keyint=25:scenecut=0:bframes=2:open-gop=0:log-level=error";
    let video = ["-c:v", "libx265", "-preset", "ultrafast", "-tag:v", "hvc1", "-x265-params", x265];
    records("hevc", "mp4", &Source::make("dvr-h265-aac", &video, AAC), &[]);
    let audio = Source::make("dvr-aac", &[], AAC);
    for end in ["flv", "mp4", "ts"] {
        records(&format!("audio-{end}"), end, &audio, &[]);
    }
}

/// The other codecs, in every container that has a place for them.
#[test]
fn other_codecs() {
    let opus = ["-c:a", "libopus", "-b:a", "64k"];
    let mp3 = ["-c:a", "libmp3lame", "-b:a", "96k", "-ac", "2"];
    let av1 = ["-c:v", "libsvtav1", "-preset", "12", "-g", "25", "-b:v", "200k"];
    let vp9 = ["-c:v", "libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8", "-g", "25"];
    let whole = &[][..];
    let fragmented = &["vhost.dvr.fragmented=true"][..];
    let av1 = Source::make("dvr-av1-opus", &av1, &opus);
    let vp9 = Source::make("dvr-vp9-opus", &vp9, &opus);
    let h264 = Source::make("dvr-h264-mp3", H264, &mp3);
    let (opus, mp3) = (Source::make("dvr-opus", &[], &opus), Source::make("dvr-mp3", &[], &mp3));
    let all = [
        ("av1", &av1, "mp4", whole),
        ("av1", &av1, "mp4", fragmented),
        ("vp9", &vp9, "mp4", whole),
        ("vp9", &vp9, "mp4", fragmented),
        ("h264-mp3", &h264, "flv", whole),
        ("h264-mp3", &h264, "mp4", fragmented),
        ("h264-mp3", &h264, "ts", whole),
        ("opus", &opus, "mp4", whole),
        ("opus", &opus, "mp4", fragmented),
        ("opus", &opus, "ts", whole),
        ("mp3", &mp3, "flv", whole),
        ("mp3", &mp3, "mp4", whole),
        ("mp3", &mp3, "ts", whole),
    ];
    thread::scope(|scope| {
        for (name, source, end, more) in all {
            let name = format!("{name}-{end}-{}", more.len());
            scope.spawn(move || records(&name, end, source, more));
        }
    });
}

/// Files of about two seconds, each of which begins with a keyframe; together they are the stream.
#[test]
fn segments() {
    let source = source();
    for end in ["flv", "ts", "mp4"] {
        let folder = Folder::new(&format!("segments-{end}"));
        let more = ["vhost.dvr.dvr_plan=segment", "vhost.dvr.dvr_duration=2"];
        let server = start(&folder.settings(&format!("[app]/[stream].[timestamp].{end}"), &more));
        publish(&server, &source);
        let files = wait_for_files(&folder, 3);
        assert_eq!(files.len(), 3, "{files:?}");
        let container = Container::of(end);
        let (mut video, mut audio) = (Vec::new(), Vec::new());
        for file in &files {
            decodes(file);
            let frames = frames_of(&source, file, container);
            assert!((45..=55).contains(&frames.video.len()), "{file:?}: {}", frames.video.len());
            let duration = probe(file, "format=duration");
            assert!((1.8..2.4).contains(&duration), "{file:?}: {duration} s");
            let mut command = Command::new("ffprobe");
            command.args(["-v", "error", "-select_streams", "v", "-read_intervals", "%+#1"]);
            command.args(["-show_entries", "packet=flags", "-of", "csv=p=0"]).arg(file);
            let out = Process::start("ffprobe", &mut command).finish(Duration::from_secs(30));
            assert!(out.stdout[0].starts_with('K'), "{file:?}: {:?}", out.stdout);
            video.extend(frames.video);
            audio.extend(frames.audio);
        }
        let published = units::published(&source, container);
        assert_eq!(content(&video), content(&published.video), "{end}");
        assert_eq!(content(&audio), content(&published.audio), "{end}");
        server.stop();
    }
}

/// The keyframes that the metadata of an FLV file names are where it says.
/// As in SRS: players are kept for whoever comes back, the file is not.
#[test]
fn each_publish_has_a_file() {
    let (folder, source) = (Folder::new("publishes"), source());
    let path = "[app]/[stream].[timestamp].flv";
    let server = start(&folder.settings(path, &["vhost.publish.hold=60"]));
    for count in 1..=2 {
        publish(&server, &source);
        assert_eq!(wait_for_files(&folder, count).len(), count);
    }
    for (index, file) in folder.files().iter().enumerate() {
        let got = frames_of(&source, file, Container::AsIs);
        let published = units::published(&source, Container::AsIs);
        let name = format!("file {index}");
        assert_eq!(units::assert_is_tail(&name, &source, &got, &published), 0, "{name}");
        decodes(file);
        let begins = probe(file, "format=start_time");
        assert!((0.0..0.1).contains(&begins), "{name}: begins at {begins} s");
    }
    server.stop();
}

#[test]
fn flv_has_an_index() {
    let (folder, source) = (Folder::new("index"), source());
    let server = start(&folder.settings("[stream].[timestamp].flv", &[]));
    publish(&server, &source);
    let file = wait_for_files(&folder, 1).remove(0);
    server.stop();
    let bytes = std::fs::read(&file).expect("the file");
    let list = |key: &[u8]| -> Vec<f64> {
        let at = bytes.windows(key.len()).position(|window| window == key).expect("the key");
        let rest = &bytes[at + key.len()..];
        assert_eq!(rest[0], 0x0a, "a strict array");
        let count = u32::from_be_bytes(rest[1..5].try_into().expect("four")) as usize;
        let number = |n: usize| rest[5 + n * 9 + 1..5 + n * 9 + 9].try_into().expect("eight");
        (0..count).map(|n| f64::from_be_bytes(number(n))).collect()
    };
    let (places, times) = (list(b"\0\x0dfilepositions"), list(b"\0\x05times"));
    assert_eq!((places.len(), times.len()), (6, 6));
    for (place, time) in places.iter().zip(&times) {
        let tag = &bytes[*place as usize..];
        let ms = u32::from_be_bytes([tag[7], tag[4], tag[5], tag[6]]);
        assert_eq!((tag[0], tag[11]), (9, 0x17), "a keyframe");
        assert_eq!(f64::from(ms), (time * 1000.0).round());
    }
    // And ffmpeg goes there.
    let mut command = Command::new("ffmpeg");
    command.args(["-hide_banner", "-nostdin", "-v", "error", "-xerror", "-ss", "3"]);
    command.arg("-i").arg(&file).args(["-f", "null", "-"]);
    let finished = Process::start("ffmpeg", &mut command).finish(Duration::from_secs(60));
    assert!(finished.stderr.is_empty(), "{:?}", finished.stderr);
}

/// Two publishes are one file.
#[test]
fn append() {
    let source = source();
    for end in ["flv", "ts"] {
        let folder = Folder::new(&format!("append-{end}"));
        let more = ["vhost.dvr.dvr_plan=append"];
        let server = start(&folder.settings(&format!("[app]-[stream].{end}"), &more));
        for round in 1..=2 {
            publish(&server, &source);
            let until = Instant::now() + Duration::from_secs(10);
            while !state(&server).is_null() && Instant::now() < until {
                thread::sleep(Duration::from_millis(50));
            }
            assert_eq!(folder.files().len(), 1, "round {round}");
        }
        let file = wait_for_files(&folder, 1).remove(0);
        assert!(file.ends_with(format!("live-dvr.{end}")));
        server.stop();
        let container = Container::of(end);
        if end == "flv" {
            decodes(&file);
            let duration = probe(&file, "format=duration");
            assert!((11.6..12.6).contains(&duration), "{duration} s");
            let got = frames_of(&source, &file, container);
            let published = units::published(&source, container);
            let twice = [content(&published.video), content(&published.video)].concat();
            assert_eq!(content(&got.video), twice);
        } else {
            assert!(std::fs::metadata(&file).expect("the file").len().is_multiple_of(188));
        }
    }
}

/// After kill -9 in the middle everything up to the last second is there, and `ringcast recover`
/// makes the files whole.
#[test]
fn killed() {
    let source = source();
    for (end, more) in
        [("flv", &[][..]), ("ts", &[]), ("mp4", &[]), ("mp4", &["vhost.dvr.fragmented=true"])]
    {
        let folder = Folder::new(&format!("killed-{end}{}", more.len()));
        let mut server = start(&folder.settings(&format!("[stream].[timestamp].{end}"), more));
        let (headers, frames) = source.messages();
        let mut publisher = RtmpPublisher::connect(&server.rtmp(STREAM)).expect("publish");
        for message in &headers {
            publisher.send(message.kind, message.timestamp, &message.payload).expect("send");
        }
        let until = frames.iter().position(|f| f.timestamp > 5_000).expect("four seconds");
        publisher.send_paced(&frames[..until], 1.0).expect("send");
        let pictures = frames[..until].iter().filter(|f| f.kind == Kind::Video).count();
        server.process_mut().signal(Signal::KILL);
        while server.process_mut().is_running() {
            thread::sleep(Duration::from_millis(20));
        }
        let file = folder.files().remove(0);
        assert!(file.to_string_lossy().ends_with(&format!(".{end}.tmp")), "{file:?}");
        let container = Container::of(end);
        let published = units::published(&source, container);
        let check = |who: &str, file: &Path| {
            let got = frames_of(&source, file, container);
            let least = pictures - 25;
            assert!(got.video.len() >= least, "{who}: {} of {pictures}", got.video.len());
            let wanted = &published.video[..got.video.len()];
            assert_eq!(content(&got.video), content(wanted), "{who}");
            assert_eq!(content(&got.audio), content(&published.audio[..got.audio.len()]), "{who}");
        };
        // As it is.
        check(&format!("{end}, killed"), &file);
        // Made whole, also with a part of a frame at its end.
        let len = std::fs::metadata(&file).expect("the file").len();
        let open = std::fs::OpenOptions::new().write(true).open(&file).expect("the file");
        open.set_len(len - 7).expect("cut");
        let mut command = Command::new(binary());
        command.arg("recover").arg(&file);
        let done = Process::start("recover", &mut command).finish(Duration::from_secs(20));
        let done = done.expect_success("recover");
        assert!(done.stdout[0].contains("were cut off"), "{:?}", done.stdout);
        let whole = folder.files().remove(0);
        assert_eq!(whole, file.with_extension(""), "{:?}", done.stdout);
        check(&format!("{end}, recovered"), &whole);
        decodes(&whole);
        let duration = probe(&whole, "format=duration");
        assert!((3.0..4.5).contains(&duration), "{end}: {duration} s");
    }
}

/// A disk that is full costs players nothing, is told, and is used again when there is room.
#[test]
fn disk_full() {
    let (folder, source) = (Folder::new("full"), source());
    let disk = folder.0.join("disk");
    std::fs::create_dir(&disk).expect("a folder");
    let mut mount = Command::new("mount");
    mount.args(["-t", "tmpfs", "-o", "size=1200k", "tmpfs"]).arg(&disk);
    let mounted = Process::start("mount", &mut mount).finish(Duration::from_secs(5));
    if !mounted.status.success() && std::env::var_os("RINGCAST_CI").is_none() {
        eprintln!("SKIPPED, nothing was tested: no disk can be mounted: {:?}", mounted.stderr);
        return;
    }
    mounted.expect_success("this test mounts a small disk, for which it has to run as root");
    struct Unmount(PathBuf);
    impl Drop for Unmount {
        fn drop(&mut self) {
            let _ = Command::new("umount").arg("-l").arg(&self.0).status();
        }
    }
    let _unmount = Unmount(disk.clone());
    // Room for a second of the stream beside this.
    std::fs::write(disk.join("filler"), vec![1; 1_080_000]).expect("a filler");
    for end in ["flv", "mp4"] {
        if end == "mp4" {
            std::fs::write(disk.join("filler"), vec![1; 900_000]).expect("a filler");
        }
        let path = format!("disk/[stream].[timestamp].{end}");
        let server = start(&folder.settings(&path, &["vhost.publish.hold=5"]));
        let (headers, frames) = source.messages();
        let mut publisher = RtmpPublisher::connect(&server.rtmp(STREAM)).expect("publish");
        for message in &headers {
            publisher.send(message.kind, message.timestamp, &message.payload).expect("send");
        }
        let sent: Vec<Received> = frames.to_vec();
        server.wait_for_stream(STREAM);
        let mut player = BlockingPlayer::connect(&server.rtmp(STREAM)).expect("play");
        let publishing = thread::spawn(move || {
            publisher.send_paced(&sent, 1.0).expect("send");
            // Once more, so that there is something to record when there is room.
            let last = sent.last().expect("frames").timestamp;
            let again: Vec<Received> = sent
                .iter()
                .map(|f| Received { timestamp: f.timestamp + last, ..f.clone() })
                .collect();
            publisher.send_paced(&again, 1.0).expect("send");
            publisher
        });
        let playing = thread::spawn(move || {
            player.frames(2 * frames.len()).map(|got| (got, frames)).expect("every frame")
        });
        let full = wait_for_state(&server, "disk_full");
        assert_eq!(full["detail"], "the disk is full");
        let alerts = || http::get(server.api_addr(), "/api/v1/alerts")["alerts"].to_string();
        let until = Instant::now() + Duration::from_secs(5);
        while end == "flv" && !alerts().contains("\"recording\"") {
            assert!(Instant::now() < until, "no alert: {}", alerts());
            thread::sleep(Duration::from_millis(100));
        }
        thread::sleep(Duration::from_millis(500));
        std::fs::remove_file(disk.join("filler")).expect("the filler");
        let writing = wait_for_state(&server, "writing");
        assert!(writing["gaps"].as_u64() >= Some(1), "{writing:#}");
        assert!(writing["lost_ms"].as_u64() >= Some(500), "{writing:#}");
        let (got, frames) = playing.join().expect("the player");
        for (index, (got, sent)) in got.iter().zip(frames.iter().chain(&frames)).enumerate() {
            assert!(got.payload == sent.payload, "{end}: frame {index} of the player");
        }
        drop(publishing.join().expect("the publisher"));
        server.stop();
        let mut kept = 0;
        for file in folder.files() {
            if file.extension().is_some_and(|found| found == end) {
                decodes(&file);
                kept += frames_of(&source, &file, Container::AsIs).video.len();
                std::fs::remove_file(&file).expect("a recording");
            }
        }
        assert!(kept > 100, "{end}: {kept} pictures");
        assert!(folder.files().is_empty(), "{end}: {:?}", folder.files());
    }
}

/// A disk that fails in the middle (EIO), becomes read-only, or takes two seconds for a sync:
/// players notice nothing, the API says what is wrong, the recording goes on by itself, and of what
/// was there before at most a second is missing.
#[test]
fn a_disk_that_fails() {
    let source = source();
    thread::scope(|scope| {
        for fault in [Fault::Io, Fault::ReadOnly, Fault::SlowSync] {
            for end in ["flv", "mp4"] {
                let source = &source;
                scope.spawn(move || survives(source, fault, end));
            }
        }
    });
}

fn survives(source: &Source, fault: Fault, end: &str) {
    let who = format!("{fault:?}, {end}");
    let folder = Folder::new(&format!("faulty-{fault:?}-{end}"));
    let Some(disk) = FaultyDisk::mount(&folder.0.join("disk")) else { return };
    let slow = fault == Fault::SlowSync;
    // A sync comes with the end of each file.
    let plan: &[&str] = match slow {
        true => &["vhost.dvr.dvr_plan=segment", "vhost.dvr.dvr_duration=2"],
        false => &[],
    };
    let more = [plan, &["vhost.dvr.fragmented=true"]].concat();
    let server = start(&folder.settings(&format!("disk/[stream].[timestamp].{end}"), &more));
    let (headers, frames) = source.messages();
    let mut publisher = RtmpPublisher::connect(&server.rtmp(STREAM)).expect("publish");
    for message in &headers {
        publisher.send(message.kind, message.timestamp, &message.payload).expect("send");
    }
    // The source twice, nearly without a pause.
    let last = frames.last().expect("frames").timestamp + 200 - units::SHIFT_MS as u32;
    let again = frames.iter().map(|f| Received { timestamp: f.timestamp + last, ..f.clone() });
    let all: Vec<Received> = frames.iter().cloned().chain(again).collect();
    let sent = all.clone();
    server.wait_for_stream(STREAM);
    let mut player = BlockingPlayer::connect(&server.rtmp(STREAM)).expect("play");
    let began = Instant::now();
    let publishing = thread::spawn(move || {
        publisher.send_paced(&sent, 1.0).expect("send");
        publisher
    });
    let count = all.len();
    let playing = thread::spawn(move || {
        let (mut got, mut gap, mut before) = (Vec::new(), Duration::ZERO, Instant::now());
        while got.len() < count {
            let message = player.next_message().expect("every frame");
            if message.is_frame() {
                gap = gap.max(before.elapsed());
                before = Instant::now();
                got.push(message);
            }
        }
        (got, gap)
    });
    wait_for_state(&server, "writing");
    thread::sleep(Duration::from_secs(3).saturating_sub(began.elapsed()));
    disk.set(fault);
    let before = began.elapsed();
    let said = wait_for_state(&server, if slow { "slow" } else { "disk_failed" });
    if !slow {
        let detail = said["detail"].as_str().unwrap_or_default();
        let expected = if fault == Fault::Io { "os error 5" } else { "os error 30" };
        assert!(detail.contains(expected), "{who}: {said:#}");
    }
    thread::sleep(Duration::from_secs(1));
    disk.set(Fault::None);
    assert!(disk.faults() > 0, "{who}");
    let writing = wait_for_state(&server, "writing");
    let (got, gap) = playing.join().expect("the player");
    assert!(got.iter().zip(&all).all(|(got, sent)| got.payload == sent.payload), "{who}");
    assert!(gap < Duration::from_millis(800), "{who}: the player waited for {gap:?}");
    let gaps = writing["gaps"].as_u64().expect("a number");
    assert_eq!(gaps > 0, !slow, "{who}: {writing:#}");
    drop(publishing.join().expect("the publisher"));
    let until = Instant::now() + Duration::from_secs(10);
    while !state(&server).is_null() && Instant::now() < until {
        thread::sleep(Duration::from_millis(50));
    }
    server.stop();
    let kept = folder.0.join("kept");
    std::fs::create_dir(&kept).expect("a folder");
    let mut files = disk.copy_to(&kept);
    files.retain(|file| !file.to_string_lossy().contains("probe"));
    files.sort();
    let mut pictures = 0;
    for (index, file) in files.iter().enumerate() {
        let unfinished = file.extension().is_some_and(|end| end == "tmp");
        let got = frames_of(source, file, Container::AsIs).video.len();
        if index == 0 && !slow {
            let there = before.as_secs_f64() * 25.0;
            assert!(got as f64 > there - 25.0, "{who}: {got} pictures of {there}");
        }
        if !unfinished {
            decodes(file);
        }
        pictures += got;
    }
    match slow {
        true => assert_eq!(pictures, 300, "{who}: nothing is lost: {files:?}"),
        false => assert!((150..300).contains(&pictures), "{who}: {pictures} pictures: {files:?}"),
    }
}

/// A link that leads out of the folder is not followed, and the server says so.
#[test]
fn no_way_out_of_the_folder() {
    let folder = Folder::new("out");
    let (inside, outside) = (folder.0.join("in"), folder.0.join("out"));
    for path in [&inside, &outside] {
        std::fs::create_dir(path).expect("a folder");
    }
    std::os::unix::fs::symlink("../out", inside.join("live")).expect("a link");
    let server = start(&folder.settings("in/[app]/[stream].[timestamp].flv", &[]));
    let (headers, frames) = source().messages();
    let mut publisher = RtmpPublisher::connect(&server.rtmp(STREAM)).expect("publish");
    for message in &headers {
        publisher.send(message.kind, message.timestamp, &message.payload).expect("send");
    }
    publisher.send_paced(&frames[..150], 1.0).expect("send");
    let failed = wait_for_state(&server, "disk_failed");
    assert!(failed["detail"].as_str().is_some_and(|why| why.contains("root")), "{failed:#}");
    drop(publisher);
    server.stop();
    assert!(folder.files().is_empty(), "{:?}", folder.files());
}

/// A keyframe that is larger than any block, and a stream with one keyframe only.
#[test]
fn large_keyframes_and_long_gops() {
    let folder = Folder::new("large");
    let server = start(&folder.settings("[stream].[timestamp].flv", &[]));
    let mut publisher = RtmpPublisher::connect(&server.rtmp(STREAM)).expect("publish");
    let (headers, frames) = source().messages();
    let pictures: Vec<Received> = frames.into_iter().filter(|f| f.kind == Kind::Video).collect();
    let header = headers.into_iter().find(|h| h.kind == Kind::Video).expect("a header");
    let mut sent = vec![header];
    for (index, mut picture) in pictures.into_iter().take(60).enumerate() {
        if index > 0 && picture.payload[0] == 0x17 {
            picture.payload[0] = 0x27;
        }
        if index == 0 || index == 30 {
            picture.payload.resize(5 << 20, index as u8);
        }
        sent.push(picture);
    }
    publisher.send_paced(&sent, 1.0).expect("send");
    thread::sleep(Duration::from_millis(300));
    let now = state(&server);
    assert_eq!(now["state"], "writing", "{now:#}");
    drop(publisher);
    let file = wait_for_files(&folder, 1).remove(0);
    server.stop();
    let got = flv_messages(&file).expect("an FLV file");
    let got: Vec<&Received> = got.iter().filter(|m| m.kind == Kind::Video).collect();
    assert_eq!(got.len(), sent.len());
    assert!(got.iter().zip(&sent).all(|(got, sent)| got.payload == sent.payload));
}

/// Only what is listed, and what operators want by the API; hooks are told of files.
#[test]
fn by_list_by_api_and_told_to_hooks() {
    let folder = Folder::new("api");
    let hooks = HookServer::start(|_| Behaviour::ok());
    let url = format!("vhost.http_hooks.on_dvr={}", hooks.url("/dvrs"));
    let more = ["vhost.dvr.dvr_apply=live/other", "vhost.http_hooks.enabled=true", &url];
    let server = start(&folder.settings("[app]/[stream].[timestamp].flv", &more));
    let (headers, frames) = source().messages();
    let mut publisher = RtmpPublisher::connect(&server.rtmp(STREAM)).expect("publish");
    for message in &headers {
        publisher.send(message.kind, message.timestamp, &message.payload).expect("send");
    }
    let publishing = thread::spawn(move || {
        publisher.send_paced(&frames, 1.0).expect("send");
        publisher
    });
    server.wait_for_stream(STREAM);
    thread::sleep(Duration::from_millis(500));
    assert!(state(&server).is_null() && folder.files().is_empty(), "not listed");
    let streams = http::get(server.api_addr(), "/api/v1/streams/");
    let id = streams["streams"][0]["id"].as_str().expect("an id").to_owned();
    let path = format!("/api/v1/dvrs/{id}");
    let ask = |method: &str| http::request(server.api_addr(), method, &path, &[]).json();
    assert!(ask("GET")["dvr"].is_null());
    assert_eq!(ask("POST")["code"], 0);
    let writing = wait_for_state(&server, "writing");
    assert_eq!((&writing["stream"], &writing["gaps"]), (&id.clone().into(), &0.into()));
    let detail = http::get(server.api_addr(), &format!("/api/v1/streams/{id}"));
    assert_eq!(detail["stream"]["ringcast"]["dvr"]["state"], "writing");
    thread::sleep(Duration::from_millis(1500));
    assert_eq!(ask("DELETE")["code"], 0);
    let file = wait_for_files(&folder, 1).remove(0);
    let told = hooks.wait_for(1, Duration::from_secs(10), |request| request.path == "/dvrs");
    let told = &told[0];
    assert_eq!(told.text_of("action"), "on_dvr");
    assert_eq!((told.text_of("app"), told.text_of("stream")), ("live", "dvr"));
    assert_eq!(Path::new(told.text_of("file")), file);
    assert_eq!(told.text_of("stream_url"), "/live/dvr");
    let fields = "server_id service_id action client_id ip vhost app tcUrl stream param cwd file \
        stream_url stream_id";
    assert_eq!(told.fields().join(" "), fields);
    assert_eq!(told.text_of("client_id").len(), 8);
    decodes(&file);
    drop(publishing.join().expect("the publisher"));
    assert_eq!(folder.files().len(), 1, "it has not begun again");
    server.stop();
}

/// Old recordings go when there are too many; nothing else does.
#[test]
fn retention() {
    let folder = Folder::new("retention");
    std::fs::write(folder.0.join("index.html"), vec![0; 500_000]).expect("a page");
    let more =
        ["vhost.dvr.dvr_plan=segment", "vhost.dvr.dvr_duration=1", "vhost.dvr.keep_bytes=150000"];
    let server = start(&folder.settings("[stream].[timestamp].flv", &more));
    publish(&server, &source());
    thread::sleep(Duration::from_secs(3));
    server.stop();
    let files = folder.files();
    let bytes: u64 = files
        .iter()
        .filter(|path| path.extension().is_some_and(|end| end == "flv"))
        .map(|path| std::fs::metadata(path).expect("a file").len())
        .sum();
    assert!(bytes > 0 && bytes <= 150_000, "{bytes} bytes: {files:?}");
    assert!(files.iter().any(|path| path.ends_with("index.html")));
}

/// The tracks of a source, as they are, in a file of this format.
fn ffmpeg_makes(source: &Source, format: &str, options: &[&str], file: &Path) {
    let mut command = media::ffmpeg();
    command.arg("-i").arg(source.path()).args(["-map", "0", "-c", "copy"]).args(options);
    command.args(["-f", format]).arg(file);
    Process::start("ffmpeg", &mut command).finish(Duration::from_secs(30)).expect_success(format);
}

/// What `ringcast recover` says of a file, or complains of.
fn recover(file: &Path) -> Result<String, String> {
    let mut command = Command::new(binary());
    command.arg("recover").arg(file);
    let done = Process::start("recover", &mut command).finish(Duration::from_secs(20));
    if done.status.success() { Ok(done.stdout.join("\n")) } else { Err(done.stderr.join("\n")) }
}

/// The MP4 file that it makes of a program stream, which stays as it is.
fn recovered(file: &Path) -> PathBuf {
    let before = std::fs::read(file).expect("the file");
    let words = recover(file).unwrap_or_else(|why| panic!("{file:?}: {why}"));
    assert!(words.contains(": made from ") && words.contains(" pictures of H26"), "{words}");
    assert!(std::fs::read(file).expect("the file") == before, "{file:?} was changed");
    let name = file.to_str().expect("UTF-8");
    let made = Path::new(name.strip_suffix(".tmp").unwrap_or(name)).with_extension("mp4");
    assert!(made.exists(), "{words}");
    made
}

/// Units in the same form, whether of a byte stream or of MP4.
fn read_units(source: &Source, path: &Path, is_mp4: bool) -> units::Frames {
    let input = path.to_str().expect("UTF-8");
    units::finish(input, units::read(source, input, Container::Ts, is_mp4))
}

fn assert_is_the_same(source: &Source, file: &Path, made: &Path) {
    let (wanted, got) = (read_units(source, file, false), read_units(source, made, true));
    let begin = |frames: &units::Frames| frames.video[0].dts;
    for (wanted_track, got_track) in [(&wanted.video, &got.video), (&wanted.audio, &got.audio)] {
        assert!(wanted_track.len() > 100, "{file:?}");
        assert_eq!(content(got_track), content(wanted_track), "{file:?}");
        for (wanted_frame, got_frame) in wanted_track.iter().zip(got_track) {
            for (wanted_time, got_time) in
                [(wanted_frame.pts, got_frame.pts), (wanted_frame.dts, got_frame.dts)]
            {
                // Of pictures that share a packet ffmpeg knows the first one's times only.
                if wanted_time < 0.0 {
                    continue;
                }
                let apart = (wanted_time - begin(&wanted)) - (got_time - begin(&got));
                // Audio is laid end to end.
                assert!(apart.abs() < 0.002, "{file:?}: {apart} s at {got_time}");
            }
        }
    }
}

/// The units of a transport stream as a camera packs them; with stream type 0x90 a tone of G.711
/// takes the place of the audio.
fn camera(ts: &[u8], audio: u8) -> Vec<u8> {
    fn time(prefix: u8, ticks: i64) -> [u8; 5] {
        let t = ticks as u64;
        [
            prefix << 4 | (t >> 29) as u8 & 0x0e | 1,
            (t >> 22) as u8,
            (t >> 14) as u8 | 1,
            (t >> 7) as u8,
            (t << 1) as u8 | 1,
        ]
    }
    let pes = |id: u8, pts: i64, dts: i64, payload: &[u8]| {
        let len = (payload.len() + 13) as u16;
        let head = [0, 0, 1, id, (len >> 8) as u8, len as u8, 0x8c, 0xc0, 10];
        [&head[..], &time(3, pts), &time(1, dts), payload].concat()
    };
    let (mut out, mut heard) = (Vec::new(), 0);
    let mut tell = |event: Event<'_>| {
        let Event::Unit(unit) = event else { return };
        let (pts, dts) = (unit.pts.expect("a time"), unit.dts.expect("a time"));
        if unit.track == 0 {
            let clock = dts as u64;
            out.extend([
                0,
                0,
                1,
                0xba,
                0x44 | (clock >> 27) as u8 & 0x38 | (clock >> 28) as u8 & 3,
            ]);
            out.extend([
                (clock >> 20) as u8,
                (clock >> 12) as u8 & 0xf8 | 4 | (clock >> 13) as u8 & 3,
            ]);
            out.extend([(clock >> 5) as u8, (clock << 3) as u8 | 4, 1, 0, 0, 3, 0xf8]);
            if unit.keyframe {
                out.extend([0, 0, 1, 0xbc, 0, 18, 0xe0, 0xff, 0, 0, 0, 8]);
                out.extend([0x1b, 0xe0, 0, 0, audio, 0xc0, 0, 0, 0, 0, 0, 0]);
            }
            for part in unit.data.chunks(1_400) {
                out.extend(pes(0xe0, pts, dts, part));
            }
            if audio == 0x90 {
                let sound: Vec<u8> = (heard..heard + 320).map(tone).collect();
                heard += 320;
                out.extend(pes(0xc0, dts, dts, &sound));
            }
        } else if audio == 0x0f && !out.is_empty() {
            out.extend(pes(0xc0, pts, dts, unit.data));
        }
    };
    let mut demux = Demux::new();
    demux.push(ts, &mut tell);
    demux.finish(&mut tell);
    out
}

fn tone(sample: usize) -> u8 {
    (sample * 7 % 251) as u8
}

/// Program streams as ffmpeg and as cameras write them: the MP4 files that `ringcast recover` makes
/// of them have what ffmpeg reads in them, packet by packet.
#[test]
fn program_streams_become_mp4() {
    let folder = Folder::new("program-streams");
    let mp3 = ["-c:a", "libmp3lame", "-b:a", "96k", "-reservoir", "0"];
    // Pictures that do not fit into a packet of 2 KB, so that each one says its times.
    let x264 = ["-c:v", "libx264", "-preset", "ultrafast", "-bf", "2", "-g", "25", "-qp", "10"];
    let source = Source::make("ps-h264-mp3-large", &x264, &mp3);
    for (format, name) in
        [("mpeg", "a.mpg"), ("vob", "a.vob"), ("svcd", "s.mpeg"), ("dvd", "d.mpg.tmp")]
    {
        let file = folder.0.join(name);
        ffmpeg_makes(&source, format, &["-bsf:v", "h264_mp4toannexb"], &file);
        let made = recovered(&file);
        assert_is_the_same(&source, &file, &made);
        decodes(&made);
        let words = recover(&made.with_file_name(name));
        assert!(words.is_err_and(|why| why.contains("is there already")));
        std::fs::remove_file(made).expect("the file");
    }
    // H.265 with several pictures in a packet, of which only the first has a time.
    let x265 = ["-c:v", "libx265", "-preset", "ultrafast", "-x265-params", "log-level=error"];
    let source = Source::make("ps-h265", &x265, &[]);
    let file = folder.0.join("h265.dat");
    ffmpeg_makes(&source, "vob", &["-bsf:v", "hevc_mp4toannexb"], &file);
    let made = recovered(&file);
    assert_eq!(
        content(&read_units(&source, &made, true).video),
        content(&read_units(&source, &file, false).video)
    );
    // A camera, with a map and without one; damaged; and one that sends G.711.
    let source = Source::make("dvr-h264-aac", H264, AAC);
    let ts = folder.0.join("source.ts");
    ffmpeg_makes(&source, "mpegts", &[], &ts);
    let with_map = camera(&std::fs::read(&ts).expect("the file"), 0x0f);
    let file = folder.0.join("camera.ps");
    std::fs::write(&file, &with_map).expect("a file");
    let made = recovered(&file);
    assert_is_the_same(&source, &file, &made);
    decodes(&made);
    let whole = read_units(&source, &made, true);
    let mut damaged = with_map.clone();
    let middle = damaged.len() / 2;
    damaged.splice(middle..middle + 1_000, [0x5a; 300]);
    damaged.truncate(damaged.len() - 7);
    let file = folder.0.join("damaged.ps");
    std::fs::write(&file, &damaged).expect("a file");
    let made = recovered(&file);
    let found = read_units(&source, &made, true);
    for (found, whole) in [(found.video, whole.video), (found.audio, whole.audio)] {
        assert!(found.len() >= whole.len() - 6, "{} of {}", found.len(), whole.len());
        let whole = content(&whole);
        assert!(content(&found).iter().all(|frame| whole.contains(frame)), "a frame was made up");
    }
    let file = folder.0.join("g711.ps");
    std::fs::write(&file, camera(&std::fs::read(&ts).expect("the file"), 0x90)).expect("a file");
    let made = recovered(&file);
    let raw = folder.0.join("g711.al");
    let mut command = media::ffmpeg();
    command.arg("-i").arg(&made).args(["-vn", "-c", "copy", "-f", "alaw"]).arg(&raw);
    Process::start("ffmpeg", &mut command).finish(Duration::from_secs(30)).expect_success("alaw");
    let raw = std::fs::read(raw).expect("the file");
    assert!(raw.len() > 40_000 && raw.iter().enumerate().all(|(n, byte)| *byte == tone(n)));
}
