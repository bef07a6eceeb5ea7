//! Every codec in every container that can carry it, read by ffmpeg: the published frames, byte for
//! byte, with the published distances in time, and without a complaint.

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::Duration;

use common::media::{self, Media};
use common::process::Process;
use common::server::Server;
use common::units::{self, AAC, Container, H264, Source};
use common::web_socket;
use loadtest::client::RtmpPublisher;

const STREAM: &str = "live/packed";

/// Publishes the source; players of these containers come before it and in its middle.
fn through(source: &Source, suffixes: &[&str]) {
    // Without hold, so that players end with the publisher.
    let server = Server::start(&["shards=2", "vhost.publish.hold=0"]);
    let url = |suffix: &str| server.http(&format!("/{STREAM}.{suffix}"));
    let mut early = Vec::new();
    for suffix in suffixes {
        let path = format!("/{STREAM}.{suffix}");
        let (http, sockets) = (server.http_addr(), server.http_addr());
        let who = format!("{suffix}, from the beginning");
        let plain = thread::spawn({
            let path = path.clone();
            move || plain_body(http, &path)
        });
        early.push((*suffix, format!("{who}, HTTP/1.0"), plain));
        let messages = thread::spawn(move || web_socket::body(&mut connect(sockets), &path));
        early.push((*suffix, format!("{who}, WebSocket"), messages));
    }
    // Requests have to be there before the stream is.
    thread::sleep(Duration::from_millis(500));
    let (headers, frames) = source.messages();
    let mut publisher = RtmpPublisher::connect(&server.rtmp(STREAM)).expect("publish");
    let publishing = thread::spawn(move || {
        for message in &headers {
            publisher.send(message.kind, message.timestamp, &message.payload).expect("send");
        }
        publisher.send_paced(&frames, 1.0).expect("send");
        thread::sleep(Duration::from_millis(200));
    });
    server.wait_for_stream(STREAM);
    thread::sleep(Duration::from_millis(2200));
    let late: Vec<_> = suffixes
        .iter()
        .map(|suffix| (*suffix, units::read(source, &url(suffix), Container::of(suffix), false)))
        .collect();
    publishing.join().expect("the publisher");
    for (suffix, process) in late {
        let who = format!("{suffix}, in the middle, HTTP/1.1");
        let container = Container::of(suffix);
        let got = units::finish(&who, process);
        let start = units::assert_is_tail(&who, source, &got, &units::published(source, container));
        assert!(start > 0, "{who}: came in the middle and got everything");
    }
    for (suffix, who, body) in early {
        let body = body.join().unwrap_or_else(|_| panic!("{who}: no body"));
        let file = scratch(&who, suffix);
        std::fs::write(&file, &body).expect("a scratch file");
        let path = file.to_str().expect("UTF-8 path");
        let container = Container::of(suffix);
        let got = units::finish(&who, units::read(source, path, container, false));
        let start = units::assert_is_tail(&who, source, &got, &units::published(source, container));
        // Audio that comes before the second track is known is not waited for.
        let most = if source.has_video() { 0 } else { 30 };
        assert!(start <= most, "{who}: starts at {start}");
        decodes(&who, path);
        let _ = std::fs::remove_file(file);
    }
    server.stop();
}

fn scratch(who: &str, suffix: &str) -> PathBuf {
    let name: String = who.chars().filter(char::is_ascii_alphanumeric).collect();
    let thread = format!("{:?}", thread::current().id());
    let thread: String = thread.chars().filter(char::is_ascii_digit).collect();
    let name = format!("{}-{thread}-{name}.{suffix}", std::process::id());
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name)
}

/// Decoding everything has to work without a word.
fn decodes(who: &str, path: &str) {
    let mut command = Command::new("ffmpeg");
    command.args(["-hide_banner", "-nostdin", "-v", "error", "-xerror", "-i", path]);
    command.args(["-f", "null", "-"]);
    let finished = Process::start("ffmpeg", &mut command).finish(Duration::from_secs(90));
    assert!(finished.stderr.is_empty(), "{who}: decoding: {:#?}", finished.stderr);
    finished.expect_success(who);
}

fn connect(address: std::net::SocketAddr) -> TcpStream {
    let socket = TcpStream::connect(address).expect("connect");
    socket.set_read_timeout(Some(Duration::from_secs(30))).expect("a timeout");
    socket
}

/// What an HTTP/1.0 player gets until the connection ends.
fn plain_body(address: std::net::SocketAddr, path: &str) -> Vec<u8> {
    let mut socket = connect(address);
    write!(socket, "GET {path} HTTP/1.0\r\n\r\n").expect("send");
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).expect("an answer that ends");
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").expect("a whole head");
    assert!(answer.starts_with(b"HTTP/1.1 200") || answer.starts_with(b"HTTP/1.0 200"));
    answer.split_off(end + 4)
}

#[test]
fn h264_with_b_frames_and_aac() {
    through(&Source::make("h264-aac", H264, AAC), &["ts", "mp4", "flv"]);
}

#[test]
fn the_audio_track_alone() {
    through(&Source::make("aac", &[], AAC), &["aac", "ts", "mp4"]);
}

#[test]
fn mp3_alone_and_in_everything() {
    // Without bit reservoir, so that every frame can be decoded by itself.
    let mp3 = ["-c:a", "libmp3lame", "-b:a", "96k", "-reservoir", "0"];
    through(&Source::make("mp3", &[], &mp3), &["mp3", "ts", "mp4"]);
}

#[test]
fn h264_alone() {
    through(&Source::make("h264", H264, &[]), &["ts", "mp4"]);
}

#[test]
fn h265_and_surround_aac() {
    let x265 = "keyint=25:min-keyint=25:scenecut=0:bframes=2:open-gop=0:log-level=error";
    let video = ["-c:v", "libx265", "-preset", "ultrafast", "-tag:v", "hvc1", "-x265-params", x265];
    let audio = ["-c:a", "aac", "-b:a", "256k", "-ac", "6"];
    through(&Source::make("h265-aac6", &video, &audio), &["ts", "mp4"]);
}

#[test]
fn h264_and_opus() {
    let audio = ["-c:a", "libopus", "-b:a", "64k"];
    through(&Source::make("h264-opus", H264, &audio), &["ts", "mp4"]);
}

#[test]
fn h264_and_ac3() {
    let audio = ["-c:a", "ac3", "-b:a", "192k", "-ac", "6"];
    through(&Source::make("h264-ac3", H264, &audio), &["ts", "mp4"]);
}

#[test]
fn h264_and_enhanced_ac3() {
    let audio = ["-c:a", "eac3", "-b:a", "192k", "-ac", "2"];
    through(&Source::make("h264-eac3", H264, &audio), &["ts", "mp4"]);
}

#[test]
fn av1_and_opus() {
    let video = ["-c:v", "libsvtav1", "-preset", "12", "-g", "25", "-b:v", "200k"];
    let audio = ["-c:a", "libopus", "-b:a", "64k"];
    through(&Source::make("av1-opus", &video, &audio), &["mp4"]);
}

#[test]
fn vp9_and_flac() {
    let video = ["-c:v", "libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8", "-g", "25"];
    through(&Source::make("vp9-flac", &video, &["-c:a", "flac"]), &["mp4"]);
}

/// What ffmpeg itself publishes, joined over HTTP while it runs.
#[test]
fn ffmpeg_on_both_ends() {
    let file = Media::AvcBFramesAac.file();
    let server = Server::start(&["shards=2", "vhost.publish.hold=0"]);
    let publisher = media::publish(&file, &server.rtmp(STREAM));
    server.wait_for_stream(STREAM);
    let mut players = Vec::new();
    for suffix in ["ts", "mp4", "aac"] {
        let mut command = Command::new("ffmpeg");
        command.args(["-hide_banner", "-nostdin", "-v", "error", "-xerror"]);
        command.args(["-i", &server.http(&format!("/{STREAM}.{suffix}")), "-f", "null", "-"]);
        players.push((suffix, Process::start(&format!("ffmpeg {suffix}"), &mut command)));
    }
    publisher.finish(Duration::from_secs(30)).expect_success("the publisher");
    for (suffix, player) in players {
        let finished = player.finish(Duration::from_secs(60));
        assert!(finished.stderr.is_empty(), "{suffix}: {:#?}", finished.stderr);
        finished.expect_success(suffix);
    }
    server.stop();
}

/// What a container cannot carry is refused with a reason, also to who came before the stream.
#[test]
fn what_has_no_place_is_refused() {
    let source = Source::make("h264-aac", H264, AAC);
    let server = Server::start(&["shards=2", "vhost.publish.hold=0"]);
    let address = server.http_addr();
    let early = thread::spawn(move || {
        let mut socket = connect(address);
        write!(socket, "GET /{STREAM}.mp3 HTTP/1.1\r\nHost: x\r\n\r\n").expect("send");
        let mut answer = String::new();
        socket.read_to_string(&mut answer).expect("an answer that ends");
        answer
    });
    thread::sleep(Duration::from_millis(500));
    let (headers, frames) = source.messages();
    let mut publisher = RtmpPublisher::connect(&server.rtmp(STREAM)).expect("publish");
    for message in headers.iter().chain(&frames[..60]) {
        publisher.send(message.kind, message.timestamp, &message.payload).expect("send");
    }
    let answer = early.join().expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 415 "), "{answer}");
    let (head, _) = server.get(&format!("/{STREAM}.mp3"));
    assert!(head.contains(" 415 "), "{head}");
    server.stop();
}

/// Settings of `http_remux`: tracks that are not wanted, and the past of plain audio.
#[test]
fn settings_of_http_remux() {
    let source = Source::make("h264-aac", H264, AAC);
    let server = Server::start(&[
        "vhost.publish.hold=0",
        "vhost.http_remux.guess_has_av=false",
        "vhost.http_remux.has_video=false",
        "vhost.http_remux.fast_cache=2",
        "vhost.http_remux.formats=[\"aac\", \"ts\"]",
    ]);
    let (headers, frames) = source.messages();
    let mut publisher = RtmpPublisher::connect(&server.rtmp(STREAM)).expect("publish");
    for message in &headers {
        publisher.send(message.kind, message.timestamp, &message.payload).expect("send");
    }
    // Four seconds at once: what players get at once is what was kept.
    let sent = frames.iter().position(|f| f.timestamp > 5_000).expect("more than four seconds");
    for message in &frames[..sent] {
        publisher.send(message.kind, message.timestamp, &message.payload).expect("send");
    }
    server.wait_for_stream(STREAM);
    thread::sleep(Duration::from_millis(300));
    let address = server.http_addr();
    let path = |suffix: &str| format!("/{STREAM}.{suffix}");
    let (aac, flv, ts) = (path("aac"), path("flv"), path("ts"));
    let players = [aac, flv, ts].map(|path| thread::spawn(move || plain_body(address, &path)));
    thread::sleep(Duration::from_millis(500));
    drop(publisher);
    let [aac, flv, ts] = players.map(|player| player.join().expect("a body"));
    // 96 kbit/s are 12 kB a second, and the oldest place to start is at most 0.2 s too old.
    assert!((20_000..32_000).contains(&aac.len()), "{} bytes of AAC", aac.len());
    assert_eq!(flv[..5], *b"FLV\x01\x04");
    assert!(ts.is_empty() || ts.len() % 188 == 0);
    let (head, _) = server.get(&path("mp4"));
    assert!(head.contains(" 404 "), "{head}");
    server.stop();
}
