//! The rules of `http_remux`, vhost by vhost on one server: where streams are served, in which
//! containers, with which tracks, and how much of the past.

mod common;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::thread;
use std::time::Duration;

use common::http;
use common::server::Server;
use common::units::{Size, Source};
use loadtest::client::RtmpPublisher;
use loadtest::media::Kind;

const SIZE: Size = Size { pixels: "192x108", seconds: 8 };
const CONFIG: &str = r#"
# A path that is the same for every host, and one suffix only.
[vhost."one.test".http_remux]
mount = "/hot/[app]/x/[stream].live.ts"
formats = []

[vhost."off.test".http_remux]
enabled = false

# Players are told that there are no pictures, and get none.
[vhost."dropped.test".http_remux]
guess_has_av = false
has_video = false

# Players are told so and get them all the same.
[vhost."passed.test".http_remux]
guess_has_av = false
has_video = false
drop_if_not_match = false

# What is there is found out, whatever is said.
[vhost."guessed.test".http_remux]
has_audio = false
has_video = false

[vhost."cached.test".http_remux]
fast_cache = 3

[vhost."plain.test".http_remux]
"#;

fn source(audio: &[&str], name: &str) -> Source {
    let video =
        ["-c:v", "libx264", "-preset", "ultrafast", "-bf", "0", "-g", "25", "-keyint_min", "25"];
    Source::make_sized(name, SIZE, &video, audio)
}

/// Publishes what comes before `until_ms` at once, and stays.
fn publish(server: &Server, stream: &str, source: &Source, until_ms: u32) -> RtmpPublisher {
    let (headers, frames) = source.messages();
    let url = server.rtmp(&format!("live/{stream}"));
    let mut publisher = RtmpPublisher::connect(&url).expect("publish");
    let first = frames[0].timestamp;
    let begin = frames.iter().take_while(|frame| frame.timestamp < first + until_ms);
    for message in headers.iter().chain(begin) {
        publisher.send(message.kind, message.timestamp, &message.payload).expect("send");
    }
    publisher
}

/// What comes within a second of asking: status and body. The head comes with the first media:
/// without any there is neither.
fn look(addr: SocketAddr, path: &str) -> (u16, Vec<u8>) {
    let mut socket = TcpStream::connect(addr).expect("connect");
    socket.set_read_timeout(Some(Duration::from_millis(700))).expect("a timeout");
    write!(socket, "GET {path} HTTP/1.0\r\n\r\n").expect("send");
    let (mut answer, mut buffer) = (Vec::new(), vec![0; 64 << 10]);
    while let Ok(read @ 1..) = socket.read(&mut buffer) {
        answer.extend_from_slice(&buffer[..read]);
    }
    if answer.is_empty() {
        return (0, answer);
    }
    let answer = http::parse(&answer);
    (answer.status, answer.body)
}

/// The kinds of the tags of an FLV stream, and its flags.
fn flv(bytes: &[u8]) -> (u8, Vec<u8>) {
    assert_eq!(bytes[..4], *b"FLV\x01");
    let (mut kinds, mut rest) = (Vec::new(), &bytes[13..]);
    while let [kind, a, b, c, ..] = rest {
        let len = 15 + usize::from(*c) + (usize::from(*b) << 8) + (usize::from(*a) << 16);
        let Some(behind) = rest.get(len..) else { break };
        kinds.push(*kind);
        rest = behind;
    }
    (bytes[4], kinds)
}

#[test]
fn each_vhost_has_its_rules() {
    let file =
        Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("mounts-{}.toml", std::process::id()));
    std::fs::write(&file, CONFIG).expect("a configuration");
    let server = Server::start_with_file(&file, &["shards=2"]);
    let addr = server.http_addr();
    let aac = source(&["-c:a", "aac", "-b:a", "64k", "-ac", "2"], "mounts-aac");
    let mp3 = source(&["-c:a", "libmp3lame", "-b:a", "64k"], "mounts-mp3");
    let vhosts = ["one", "off", "dropped", "passed", "guessed", "cached", "plain"]
        .map(|v| format!("{v}.test"));
    let mut publishers = Vec::new();
    for vhost in &vhosts {
        publishers.push(publish(&server, &format!("a?vhost={vhost}"), &aac, 6_000));
        publishers.push(publish(&server, &format!("m?vhost={vhost}"), &mp3, 6_000));
    }
    thread::sleep(Duration::from_millis(500));
    let ask = |path: &str, vhost: &str| look(addr, &format!("{path}?vhost={vhost}.test"));

    let (status, bytes) = ask("/hot/live/x/a.live.ts", "one");
    assert!(status == 200 && bytes[0] == 0x47 && bytes.len().is_multiple_of(188));
    for path in ["/hot/live/x/a.live.flv", "/live/a.ts", "/live/a.flv", "/hot/live/a.live.ts"] {
        assert_eq!(ask(path, "one").0, 404, "{path}");
    }
    assert_eq!(ask("/live/a.flv", "off").0, 404);

    // Tag kinds: 8 is audio, 9 is video, 18 is data. Header flags: 4 is audio, 1 is video.
    let (flags, kinds) = flv(&ask("/live/a.flv", "dropped").1);
    assert_eq!(flags, 4);
    assert!(kinds.contains(&8) && !kinds.contains(&9), "{kinds:?}");
    let (flags, kinds) = flv(&ask("/live/a.flv", "passed").1);
    assert_eq!(flags, 4);
    assert!(kinds.contains(&8) && kinds.contains(&9), "{kinds:?}");
    let (flags, kinds) = flv(&ask("/live/a.flv", "guessed").1);
    assert_eq!(flags, 5);
    assert!(kinds.contains(&8) && kinds.contains(&9), "{kinds:?}");
    // The same holds for MPEG-TS, whose tables name the tracks.
    for (vhost, with_video) in [("dropped", false), ("guessed", true)] {
        let (_, bytes) = ask("/live/a.ts", vhost);
        let facts = common::ts::check(&bytes).unwrap_or_else(|why| panic!("{vhost}: {why}"));
        assert_eq!(facts.tracks.len(), 1 + usize::from(with_video), "{vhost}");
    }

    // 64 kbit/s are 8,000 bytes a second. The oldest place to start may be 0.2 s too old.
    for (path, wrong) in [("/live/a.aac", "/live/a.mp3"), ("/live/m.mp3", "/live/m.aac")] {
        let (status, bytes) = ask(path, "cached");
        assert_eq!(status, 200, "{path}");
        assert!((19_000..30_000).contains(&bytes.len()), "{path}: {} bytes", bytes.len());
        assert_eq!(bytes[0], 0xff, "{path} begins with a frame");
        // Without a past there is nothing before the next frame.
        let (status, bytes) = ask(path, "plain");
        assert!(matches!(status, 0 | 200) && bytes.len() < 1_000, "{path}: {} bytes", bytes.len());
        assert_eq!(ask(wrong, "cached").0, 415, "{wrong}");
    }
    drop(publishers);
    let _ = std::fs::remove_file(file);
    server.stop();
}

/// Who asks before anybody publishes waits, in every container, and gets all of it.
#[test]
fn players_may_come_first() {
    let server = Server::start(&["shards=2", "vhost.publish.hold=0"]);
    let addr = server.http_addr();
    let source = source(&["-c:a", "aac", "-b:a", "64k", "-ac", "2"], "mounts-aac");
    let (headers, frames) = source.messages();
    let players: Vec<_> = ["flv", "ts", "mp4", "aac"]
        .map(|suffix| {
            let path = format!("/live/first.{suffix}");
            (suffix, thread::spawn(move || http::raw(addr, get_1_0(&path).as_bytes())))
        })
        .into();
    thread::sleep(Duration::from_millis(300));
    let mut publisher = RtmpPublisher::connect(&server.rtmp("live/first")).expect("publish");
    for message in &headers {
        publisher.send(message.kind, message.timestamp, &message.payload).expect("send");
    }
    publisher.send_paced(&frames[..150], 1.0).expect("send");
    thread::sleep(Duration::from_millis(300));
    drop(publisher);
    let pictures = frames[..150].iter().filter(|frame| frame.kind == Kind::Video).count();
    let sounds = 150 - pictures;
    for (suffix, player) in players {
        let answer = http::parse(&player.join().expect("an answer"));
        assert_eq!(answer.status, 200, "{suffix}");
        let bytes = answer.body;
        let found = |name: &[u8]| bytes.windows(name.len()).filter(|at| *at == name).count();
        match suffix {
            "flv" => {
                let (flags, kinds) = flv(&bytes);
                assert_eq!(flags, 5);
                let count = |kind| kinds.iter().filter(|found| **found == kind).count();
                // With the sequence headers. Sound before the first picture is not waited for.
                assert_eq!(count(9), pictures + 1);
                assert!(count(8) + 2 >= sounds, "{} of {sounds}", count(8));
            }
            "ts" => {
                let facts = common::ts::check(&bytes).expect("a stream that keeps the rules");
                assert_eq!(facts.units[&0x100], pictures);
                assert!(facts.units[&0x101] + 3 >= sounds, "{facts:?} of {sounds}");
            }
            "mp4" => assert!(found(b"moof") + 3 >= 150, "{} of 150", found(b"moof")),
            _ => assert!(bytes.starts_with(&[0xff, 0xf1]) && bytes.len() > 8_000),
        }
    }
    server.stop();
}

fn get_1_0(path: &str) -> String {
    format!("GET {path} HTTP/1.0\r\n\r\n")
}
