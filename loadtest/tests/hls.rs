//! HTTP Live Streaming with the real server: what players load piece by piece is what was
//! published, playlists keep the rules, and who waits is answered in time.

mod common;

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use common::admission::{avc_header, picture};
use common::hook_server::{Behaviour, HookServer};
use common::http::{self, Answer};
use common::media::{self, Media};
use common::process::{Process, descriptors, resident_kb};
use common::scratch;
use common::server::Server;
use common::units::{self, AAC, Container, H264, Source};
use loadtest::client::RtmpPublisher;
use ringcast::media::Kind;
use ringcast::proto::hls::check::{Checker, Playlist};

const STREAM: &str = "live/cut";
const LIMIT: Duration = Duration::from_secs(5);

fn get(addr: SocketAddr, path: &str) -> Answer {
    http::request(addr, "GET", path, &[])
}

fn serve(settings: &[&str]) -> Server {
    let own = ["shards=2", "vhost.hls.enabled=true", "vhost.hls.hls_fragment=1"];
    Server::start(&[&own, settings].concat())
}

/// The path of the viewer's own playlist, from the master playlist.
fn enter(addr: SocketAddr, stream: &str) -> (String, String) {
    let answer = get(addr, &format!("/{stream}.m3u8"));
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.header("content-type"), Some("application/vnd.apple.mpegurl"));
    let text = answer.text();
    assert!(text.starts_with("#EXTM3U\n") && text.contains("#EXT-X-STREAM-INF:"), "{text}");
    let path = text.lines().last().expect("an address").to_owned();
    assert!(path.starts_with(&format!("/{stream}.m3u8?hls_ctx=")), "{text}");
    (path, text)
}

/// What a player has loaded.
#[derive(Default)]
struct Loaded {
    master: String,
    /// Initialisation segments by address, in the order of their first use.
    inits: Vec<(String, Vec<u8>)>,
    /// Segments by number: address of the initialisation segment, bytes.
    segments: BTreeMap<u64, (Option<String>, Vec<u8>)>,
    checker: Checker,
    discontinuities: usize,
}

impl Loaded {
    /// All segments behind the first initialisation segment, as one file.
    fn file(&self) -> Vec<u8> {
        let mut out = self.inits.first().map_or_else(Vec::new, |(_, bytes)| bytes.clone());
        self.segments.values().for_each(|(_, bytes)| out.extend_from_slice(bytes));
        out
    }
}

/// Plays until it is told to stop and there has been nothing new for a second: loads the playlist
/// some times a second, checks it, and loads every segment.
fn play(addr: SocketAddr, stream: &str, published: Arc<AtomicBool>) -> JoinHandle<Loaded> {
    let stream = stream.to_owned();
    thread::spawn(move || {
        let mut loaded = Loaded::default();
        let (path, master) = enter(addr, &stream);
        loaded.master = master;
        let start = Instant::now();
        let mut ended_at = None;
        loop {
            let answer = get(addr, &path);
            assert_eq!(answer.status, 200, "{answer:?}");
            let now = start.elapsed().as_secs_f64();
            let is_published = published.load(Ordering::Acquire);
            let text = answer.text();
            let list = loaded.checker.load(now, is_published, &text);
            let list = list.unwrap_or_else(|why| panic!("{why} in\n{text}"));
            take(addr, &stream, &list, &mut loaded);
            if !is_published && now - *ended_at.get_or_insert(now) > 1.0 {
                break;
            }
            thread::sleep(Duration::from_millis(150));
        }
        let all = loaded.checker.segments().values();
        loaded.discontinuities = all.filter(|segment| segment.discontinuity).count();
        loaded
    })
}

/// The path of an address in a playlist of this stream.
fn resolve(stream: &str, uri: &str) -> String {
    if uri.starts_with('/') {
        return uri.to_owned();
    }
    let (app, _) = stream.rsplit_once('/').expect("app/name");
    format!("/{app}/{uri}")
}

fn take(addr: SocketAddr, stream: &str, list: &Playlist, loaded: &mut Loaded) {
    for segment in &list.segments {
        if let Some(map) = &segment.map
            && !loaded.inits.iter().any(|(uri, _)| uri == map)
        {
            let answer = get(addr, &resolve(stream, map));
            assert_eq!(answer.status, 200, "{map}");
            loaded.inits.push((map.clone(), answer.body));
        }
        if loaded.segments.contains_key(&segment.number) {
            continue;
        }
        let answer = get(addr, &resolve(stream, &segment.uri));
        assert_eq!(answer.status, 200, "{}", segment.uri);
        let length: usize = answer.header("content-length").expect("a length").parse().expect("n");
        assert_eq!(answer.body.len(), length, "{}", segment.uri);
        loaded.segments.insert(segment.number, (segment.map.clone(), answer.body));
    }
}

fn decodes(who: &str, input: &str, more: &[&str]) {
    let mut command = Command::new("ffmpeg");
    command.args(["-hide_banner", "-nostdin", "-v", "error", "-xerror", "-i", input]);
    command.args(more).args(["-f", "null", "-"]);
    let finished = Process::start("ffmpeg", &mut command).finish(Duration::from_secs(90));
    assert!(finished.stderr.is_empty(), "{who}: decoding: {:#?}", finished.stderr);
    finished.expect_success(who);
}

/// Publishes the source; what a player loads is what was published, and ffmpeg plays it, too.
fn through(source: &Source, settings: &[&str], suffix: &str, codecs: &str) -> Loaded {
    let server = serve(&[&["vhost.hls.hls_window=30"], settings].concat());
    let publishing = source.publish(&server.rtmp(STREAM));
    server.wait_for_stream(STREAM);
    let published = Arc::new(AtomicBool::new(true));
    let player = play(server.http_addr(), STREAM, published.clone());
    let url = server.http(&format!("/{STREAM}.m3u8"));
    let watching = thread::spawn(move || decodes("ffmpeg live", &url, &["-t", "3"]));
    publishing.join().expect("the publisher");
    published.store(false, Ordering::Release);
    watching.join().expect("ffmpeg");
    let loaded = player.join().expect("the player");
    assert!(loaded.segments.len() >= 5, "{} segments", loaded.segments.len());
    assert!(loaded.master.contains(&format!("CODECS=\"{codecs}")), "{}", loaded.master);
    let file = scratch::path(&format!("hls-{codecs}.{suffix}"));
    std::fs::write(&file, loaded.file()).expect("a scratch file");
    let path = file.to_str().expect("UTF-8 path");
    let container = Container::of(suffix);
    let got = units::finish(codecs, units::read(source, path, container, false));
    units::assert_is_tail(codecs, source, &got, &units::published(source, container));
    let all = if source.has_video() { got.video.len() } else { got.audio.len() };
    assert!(all >= 6 * 25 - 30, "{codecs}: {all} of 150 pictures");
    decodes(codecs, path, &[]);
    let _ = std::fs::remove_file(file);
    server.stop();
    loaded
}

#[test]
fn h264_and_aac_in_ts() {
    let source = Source::make("h264-aac", H264, AAC);
    let loaded = through(&source, &[], "ts", "avc1.");
    assert!(loaded.master.contains("RESOLUTION=320x180,FRAME-RATE=25.000"), "{}", loaded.master);
    assert!(loaded.master.contains(",mp4a.40.2\""), "{}", loaded.master);
    assert_eq!(loaded.discontinuities, 0);
    assert!(loaded.segments.values().all(|(_, bytes)| bytes.len() % 188 == 0));
}

#[test]
fn h264_and_aac_in_mp4() {
    let source = Source::make("h264-aac", H264, AAC);
    let loaded = through(&source, &["vhost.hls.hls_use_fmp4=true"], "mp4", "avc1.");
    assert_eq!(loaded.inits.len(), 1);
    assert!(loaded.inits[0].0.starts_with("cut/init.mp4?hls_ctx="), "{}", loaded.inits[0].0);
}

#[test]
fn the_audio_track_alone() {
    // Audio cuts at `hls_aof_ratio`.
    let source = Source::make("aac", &[], AAC);
    let settings = ["vhost.hls.hls_aof_ratio=1.0"];
    let loaded = through(&source, &settings, "ts", "mp4a.40.2");
    assert!(!loaded.master.contains("RESOLUTION"), "{}", loaded.master);
}

#[test]
fn h265_and_aac_in_both() {
    let x265 = "keyint=25:min-keyint=25:scenecut=0:bframes=2:open-gop=0:log-level=error";
    let video = ["-c:v", "libx265", "-preset", "ultrafast", "-tag:v", "hvc1", "-x265-params", x265];
    let audio = ["-c:a", "aac", "-b:a", "256k", "-ac", "6"];
    let source = Source::make("h265-aac6", &video, &audio);
    through(&source, &[], "ts", "hvc1.");
    through(&source, &["vhost.hls.hls_use_fmp4=true"], "mp4", "hvc1.");
}

/// MPEG-TS has no place for AV1, so segments are MP4 whatever was asked for.
#[test]
fn av1_and_opus_fall_back_to_mp4() {
    let video = ["-c:v", "libsvtav1", "-preset", "12", "-g", "25", "-b:v", "200k"];
    let source = Source::make("av1-opus", &video, &["-c:a", "libopus", "-b:a", "64k"]);
    through(&source, &[], "mp4", "av01.");
}

#[test]
fn vp9_and_flac_in_mp4() {
    let video = ["-c:v", "libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8", "-g", "25"];
    let source = Source::make("vp9-flac", &video, &["-c:a", "flac"]);
    through(&source, &["vhost.hls.hls_use_fmp4=true"], "mp4", "vp09.");
}

/// A publisher that comes back: within the hold, and after it.
#[test]
fn publishing_again_is_a_discontinuity() {
    for hold in ["10", "0"] {
        let server = serve(&[
            &format!("vhost.publish.hold={hold}"),
            "vhost.hls.hls_window=4",
            "vhost.idle_close=1",
        ]);
        let source = Source::make("h264-aac", H264, AAC);
        let publishing = source.publish(&server.rtmp(STREAM));
        server.wait_for_stream(STREAM);
        let published = Arc::new(AtomicBool::new(true));
        let player = play(server.http_addr(), STREAM, published.clone());
        publishing.join().expect("the first publisher");
        source.publish(&server.rtmp(STREAM)).join().expect("the second publisher");
        published.store(false, Ordering::Release);
        let loaded = player.join().expect("the player");
        assert_eq!(loaded.discontinuities, 1, "hold {hold}");
        assert!(loaded.segments.len() >= 10, "{} segments", loaded.segments.len());
        let once = units::published(&source, Container::Ts);
        let hashes = |frames: &[units::Frame]| -> Vec<String> {
            frames.iter().map(|frame| frame.hash.clone()).collect()
        };
        // What comes behind a discontinuity is a file of its own.
        let all = loaded.checker.segments().values();
        let second = all.clone().find(|s| s.discontinuity).expect("a discontinuity").number;
        for first_half in [true, false] {
            let segments = loaded.segments.iter().filter(|(n, _)| (**n < second) == first_half);
            let bytes: Vec<u8> = segments.flat_map(|(_, (_, bytes))| bytes.clone()).collect();
            let file = scratch::path(&format!("hls-again-{hold}-{first_half}.ts"));
            std::fs::write(&file, bytes).expect("a scratch file");
            let path = file.to_str().expect("UTF-8 path");
            let frames = units::finish("again", units::read(&source, path, Container::Ts, false));
            assert_eq!(hashes(&frames.video), hashes(&once.video), "hold {hold}, {first_half}");
            let _ = std::fs::remove_file(file);
        }
        server.stop();
    }
}

/// Low latency: parts are pieces of segments, and who asks for what comes next waits for it.
#[test]
fn parts_and_waiting() {
    let server = serve(&[
        "vhost.hls.hls_use_fmp4=true",
        "vhost.hls.hls_part=0.2",
        "vhost.hls.hls_window=30",
    ]);
    let addr = server.http_addr();
    let source = Source::make("h264-aac", H264, AAC);
    let publishing = source.publish(&server.rtmp(STREAM));
    server.wait_for_stream(STREAM);
    let (path, _) = enter(addr, STREAM);
    let start = Instant::now();
    let mut checker = Checker::default();
    let mut load = |query: &str| {
        let answer = get(addr, &format!("{path}{query}"));
        assert_eq!(answer.status, 200, "{query}: {}", answer.text());
        let text = answer.text();
        let list = checker.load(start.elapsed().as_secs_f64(), true, &text);
        list.unwrap_or_else(|why| panic!("{why} in\n{text}"))
    };
    let mut list = load("");
    let mut parts: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    let mut waits = Vec::new();
    while start.elapsed() < Duration::from_secs(3) {
        // The next part, by its number.
        let (number, part) = (list.open.number, list.open.parts.len());
        let asked = Instant::now();
        let hint = list.hint.clone().expect("a hint");
        let hinted = thread::spawn(move || get(addr, &resolve(STREAM, &hint)));
        let next = load(&format!("&_HLS_msn={number}&_HLS_part={part}"));
        waits.push(asked.elapsed());
        let came = (next.open.number, next.open.parts.len()) > (number, part);
        assert!(came, "asked for {number}.{part}: {:?}", next.open);
        let hinted = hinted.join().expect("the part that was hinted at");
        assert_eq!(hinted.status, 200, "{number}.{part}");
        list = next;
        for segment in list.segments.iter().rev().take(2).chain([&list.open]) {
            for (uri, ..) in &segment.parts {
                parts.entry(uri.clone()).or_insert_with(|| {
                    let answer = get(addr, &resolve(STREAM, uri));
                    assert_eq!(answer.status, 200, "{uri}");
                    answer.body
                });
            }
        }
    }
    assert!((8..=30).contains(&waits.len()), "{} parts in 3 s", waits.len());
    let held = waits.iter().filter(|wait| **wait > Duration::from_millis(60)).count();
    assert!(held * 2 > waits.len(), "not held: {waits:?}");
    assert!(waits.iter().all(|wait| *wait < Duration::from_millis(800)), "late: {waits:?}");
    // A segment is its parts.
    let segment = list.segments.iter().rev().find(|s| s.parts.len() >= 4).expect("a whole segment");
    let whole = get(addr, &resolve(STREAM, &segment.uri)).body;
    let joined: Vec<u8> = segment.parts.iter().flat_map(|part| parts[&part.0].clone()).collect();
    assert_eq!(whole, joined);
    assert!(segment.parts[0].2, "begins with a keyframe");
    // What cannot be waited for.
    let far = list.open.number + 9;
    for bad in ["_HLS_part=1", &format!("_HLS_msn={far}"), "_HLS_msn=x"] {
        assert_eq!(get(addr, &format!("{path}&{bad}")).status, 400, "{bad}");
    }
    // A whole segment is waited for by its number.
    let number = list.open.number;
    let whole = load(&format!("&_HLS_msn={number}"));
    assert!(whole.segments.iter().any(|segment| segment.number == number));
    publishing.join().expect("the publisher");
    // Nobody publishes: who waits is told so.
    thread::sleep(Duration::from_millis(300));
    let text = get(addr, &path).text();
    let last = Playlist::parse(&text).expect("a playlist");
    let packed = |accepts: &str| {
        http::request(addr, "GET", &path, &[&format!("Accept-Encoding: {accepts}")])
    };
    for accepts in ["gzip", "br, *", "deflate, gzip;q=0.5"] {
        let answer = packed(accepts);
        assert_eq!(answer.header("content-encoding"), Some("gzip"), "{accepts}");
        assert_eq!(answer.header("vary"), Some("Accept-Encoding"));
        assert!(answer.body.len() * 2 < text.len());
        assert_eq!(http::unpacked(&answer.body), text.as_bytes(), "{accepts}");
    }
    // Another viewer has the same text, but for its id.
    let other = http::request(addr, "GET", &enter(addr, STREAM).0, &["Accept-Encoding: gzip"]);
    let (other, id) = (http::unpacked(&other.body), path.split("hls_ctx=").nth(1).unwrap());
    let other = String::from_utf8(other).expect("a playlist");
    assert!(other.len() == text.len() && !other.contains(id));
    for accepts in ["gzip;q=0, *", "identity", "br"] {
        assert_eq!(packed(accepts).text(), text, "{accepts}");
    }
    let asked = Instant::now();
    let answer = get(addr, &format!("{path}&_HLS_msn={}", last.open.number));
    assert_eq!(answer.status, 503, "{}", answer.text());
    assert!(asked.elapsed() < Duration::from_secs(8), "{:?}", asked.elapsed());
    server.stop();
}

/// What proxies and players do with HTTP.
#[test]
fn requests_of_all_kinds() {
    let server = serve(&[]);
    let addr = server.http_addr();
    assert_eq!(get(addr, &format!("/{STREAM}.m3u8")).status, 404);
    let source = Source::make("h264-aac", H264, AAC);
    let publishing = source.publish(&server.rtmp(STREAM));
    server.wait_for_stream(STREAM);
    let (path, _) = enter(addr, STREAM);
    thread::sleep(Duration::from_secs(2));
    let list = Playlist::parse(&get(addr, &path).text()).expect("a playlist");
    let uris: Vec<String> = list.segments.iter().map(|s| resolve(STREAM, &s.uri)).collect();
    let whole = get(addr, &uris[0]);
    let etag = whole.header("etag").expect("an ETag").to_owned();
    assert_eq!(whole.header("content-type"), Some("video/MP2T"));
    assert_eq!(whole.header("accept-ranges"), Some("bytes"));
    // A cache may keep it, and give it to a page.
    assert_eq!(whole.header("access-control-allow-origin"), Some("*"));
    assert!(whole.header("date").is_some());
    let ask = |method: &str, lines: &[&str]| http::request(addr, method, &uris[0], lines);
    let again = ask("GET", &[&format!("If-None-Match: {etag}")]);
    assert_eq!((again.status, again.body.len()), (304, 0));
    let head = ask("HEAD", &["Origin: http://x"]);
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert_eq!(head.header("content-length"), Some(whole.body.len().to_string().as_str()));
    assert_eq!(head.header("access-control-allow-origin"), Some("*"));
    let some = ask("GET", &["Range: bytes=188-375"]);
    assert_eq!((some.status, &some.body[..]), (206, &whole.body[188..376]));
    let range = format!("bytes 188-375/{}", whole.body.len());
    assert_eq!(some.header("content-range"), Some(range.as_str()));
    let tail = ask("GET", &["Range: bytes=-188"]);
    assert_eq!((tail.status, &tail.body[..]), (206, &whole.body[whole.body.len() - 188..]));
    assert_eq!(ask("GET", &["Range: bytes=99999999-"]).status, 416);
    assert_eq!(ask("POST", &[]).status, 405);
    assert_eq!(get(addr, "/live/cut-9999.ts").status, 404);

    // Several requests at once on one connection, answers in order; then one more.
    let mut socket = TcpStream::connect(addr).expect("connect");
    socket.set_read_timeout(Some(Duration::from_secs(10))).expect("timeout");
    let mut requests = String::new();
    for uri in [&uris[0], &uris[1], &path, &uris[0]] {
        requests += &format!("GET {uri} HTTP/1.1\r\nHost: x\r\n\r\n");
    }
    socket.write_all(requests.as_bytes()).expect("send");
    let second = get(addr, &uris[1]).body;
    let mut rest = Vec::new();
    let bodies: Vec<Vec<u8>> = (0..4).map(|_| next_body(&mut socket, &mut rest)).collect();
    assert!(bodies[0] == whole.body && bodies[1] == second && bodies[3] == whole.body);
    assert!(bodies[2].starts_with(b"#EXTM3U"));
    socket.write_all(format!("GET {} HTTP/1.1\r\nHost: x\r\n\r\n", uris[0]).as_bytes()).unwrap();
    assert_eq!(next_body(&mut socket, &mut rest), whole.body);
    publishing.join().expect("the publisher");
    server.stop();
}

/// One answer of a connection that stays open.
fn next_body(socket: &mut TcpStream, rest: &mut Vec<u8>) -> Vec<u8> {
    let mut buffer = vec![0; 64 << 10];
    loop {
        if let Some(end) = rest.windows(4).position(|four| four == b"\r\n\r\n") {
            let answer = http::parse(&rest[..end + 4]);
            assert_eq!(answer.status, 200);
            let length: usize = answer.header("content-length").expect("a length").parse().unwrap();
            if rest.len() >= end + 4 + length {
                let body = rest[end + 4..end + 4 + length].to_vec();
                rest.drain(..end + 4 + length);
                return body;
            }
        }
        let read = socket.read(&mut buffer).expect("an answer");
        assert!(read > 0, "the connection ended");
        rest.extend_from_slice(&buffer[..read]);
    }
}

/// Viewers are clients: hooks, statistics, kicks, rules.
#[test]
fn viewers_are_clients() {
    let hooks = HookServer::start(|_| Behaviour::ok());
    let server = serve(&[
        "vhost.http_hooks.enabled=true",
        &format!("vhost.http_hooks.on_play={}", hooks.url("/on_play")),
        &format!("vhost.http_hooks.on_stop={}", hooks.url("/on_stop")),
        &format!("vhost.http_hooks.on_hls={}", hooks.url("/on_hls")),
    ]);
    let addr = server.http_addr();
    let source = Source::make("h264-aac", H264, AAC);
    let publishing = source.publish(&server.rtmp(STREAM));
    server.wait_for_stream(STREAM);
    let (path, _) = enter(addr, STREAM);
    let id = path.split("hls_ctx=").nth(1).expect("an id").split('&').next().unwrap().to_owned();
    let (other, _) = enter(addr, STREAM);
    assert_ne!(path, other);
    thread::sleep(Duration::from_millis(1_500));
    let list = Playlist::parse(&get(addr, &path).text()).expect("a playlist");
    let uri = resolve(STREAM, &list.segments[0].uri);
    assert!(uri.ends_with(&format!("?hls_ctx={id}")), "{uri}");
    let bytes = get(addr, &uri).body.len() as u64;
    // Segments are for viewers where not everybody may play.
    assert_eq!(get(addr, uri.split('?').next().unwrap()).status, 403);
    let api = server.api_addr();
    let clients = http::get(api, "/api/v1/clients/?count=100");
    let clients = clients["clients"].as_array().expect("clients");
    let mine = clients.iter().find(|client| client["id"] == id.as_str()).expect("my record");
    assert_eq!(mine["type"], "hls-play");
    assert!(mine["send_bytes"].as_u64().expect("bytes") >= bytes, "{mine}");
    let play = hooks.wait_for(2, LIMIT, |call| call.path == "/on_play");
    assert!(play.iter().any(|call| call.text_of("client_id") == id));
    let cut = hooks.wait_for(1, LIMIT, |call| call.path == "/on_hls");
    assert_eq!((cut[0].text_of("stream"), cut[0].text_of("action")), ("cut", "on_hls"));
    assert!(cut[0].text_of("url").ends_with(".ts"), "{:?}", cut[0].text_of("url"));
    // Sent away: neither playlist nor segments any more; others do not notice.
    let answer = http::request(api, "DELETE", &format!("/api/v1/clients/{id}"), &[]);
    assert_eq!(answer.status, 200);
    let gone = hooks.wait_for(1, LIMIT, |call| call.path == "/on_stop");
    assert_eq!(gone[0].text_of("client_id"), id);
    assert_eq!((get(addr, &path).status, get(addr, &uri).status), (404, 404));
    assert_eq!(get(addr, &other).status, 200);
    publishing.join().expect("the publisher");
    server.stop();
}

/// Who may not play gets neither playlist nor segments.
#[test]
fn tokens_are_asked_for() {
    let server = serve(&["vhost.token.play=true", "vhost.token.keys=[\"0123456789abcdef\"]"]);
    let addr = server.http_addr();
    let source = Source::make("h264-aac", H264, AAC);
    let publishing = source.publish(&server.rtmp(STREAM));
    server.wait_for_stream(STREAM);
    assert_eq!(get(addr, &format!("/{STREAM}.m3u8")).status, 403);
    assert_eq!(get(addr, &format!("/{STREAM}.m3u8?hls_ctx=abcdefgh")).status, 403);
    let answer = get(addr, &format!("/{STREAM}.m3u8?token=0123456789abcdef"));
    assert_eq!(answer.status, 200);
    let path = answer.text().lines().last().expect("an address").to_owned();
    let list = Playlist::parse(&get(addr, &path).text()).expect("a playlist");
    assert_eq!(get(addr, &resolve(STREAM, &list.segments[0].uri)).status, 200);
    assert_eq!(get(addr, "/live/cut-0.ts").status, 403);
    publishing.join().expect("the publisher");
    server.stop();
}

/// ffmpeg publishes, ffmpeg plays; names as somebody likes them.
#[test]
fn ffmpeg_on_both_ends_with_names_of_ones_own() {
    let file = Media::AvcBFramesAac.file();
    let server = serve(&[
        "vhost.hls.hls_m3u8_file=[app]/[stream]/list.m3u8",
        "vhost.hls.hls_ts_file=[app]/[stream]/[2006][01][02]/[seq]-[duration].ts",
        "vhost.hls.hls_ctx=false",
        "vhost.hls.hls_window=30",
    ]);
    let publisher = media::publish(&file, &server.rtmp(STREAM));
    server.wait_for_stream(STREAM);
    let url = server.http(&format!("/{STREAM}/list.m3u8"));
    decodes("ffmpeg", &url, &["-t", "3"]);
    let text = get(server.http_addr(), &format!("/{STREAM}/list.m3u8")).text();
    assert!(text.contains("-1000.ts\n"), "{text}");
    publisher.finish(Duration::from_secs(30)).expect_success("the publisher");
    server.stop();
}

/// Streams of one encoder are variants of one: cut at the same times and counted alike, whenever
/// they began.
#[test]
fn variants_of_a_group() {
    let server = serve(&[
        "vhost.group.enabled=true",
        "vhost.group.labels=[\"high\",\"low\",\"none\"]",
        "vhost.hls.hls_use_fmp4=true",
        "vhost.hls.hls_part=0.2",
        "vhost.hls.hls_window=30",
    ]);
    let addr = server.http_addr();
    let source = Source::make("h264-aac", H264, AAC);
    let (headers, frames) = source.messages();
    let start = |name: &str, from_ms: u32| {
        let mut publisher = RtmpPublisher::connect(&server.rtmp(name)).expect("publish");
        let (headers, frames) = (headers.clone(), frames.clone());
        thread::spawn(move || {
            thread::sleep(Duration::from_millis(from_ms.into()));
            let first = units::SHIFT_MS as u32 + from_ms;
            let rest: Vec<_> = frames.into_iter().filter(|f| f.timestamp >= first).collect();
            for message in &headers {
                publisher.send(message.kind, message.timestamp, &message.payload).expect("send");
            }
            publisher.send_paced(&rest, 1.0).expect("send");
            thread::sleep(Duration::from_millis(500));
        })
    };
    let publishing = [start("live/tv_low", 0), start("live/tv_high", 1_560)];
    assert_eq!(get(addr, "/live/tv.m3u8").status, 404);
    thread::sleep(Duration::from_millis(5_000));
    let text = get(addr, "/live/tv.m3u8?secret=1").text();
    let paths: Vec<String> =
        text.lines().filter(|line| line.starts_with('/')).map(str::to_owned).collect();
    assert_eq!(text.matches("#EXT-X-STREAM-INF:BANDWIDTH=").count(), 2, "{text}");
    assert_eq!(text.matches("RESOLUTION=320x180,FRAME-RATE=25.000").count(), 2, "{text}");
    assert!(paths[0].starts_with("/live/tv_high.m3u8?hls_ctx="), "{text}");
    assert!(paths[1].starts_with("/live/tv_low.m3u8?hls_ctx=") && paths[1].ends_with("&secret=1"));
    let texts: Vec<String> = paths.iter().map(|path| get(addr, path).text()).collect();
    for (text, other) in texts.iter().zip([&paths[1], &paths[0]]) {
        let report = format!("#EXT-X-RENDITION-REPORT:URI=\"{other}\",LAST-MSN=");
        assert!(text.contains(&report), "{report} in\n{text}");
    }
    let [high, low] = [0, 1].map(|n: usize| Playlist::parse(&texts[n]).expect("a playlist"));
    let bytes = |stream: &str, uri: &str| get(addr, &resolve(stream, uri)).body.len();
    let mut same = 0;
    // The first of the later one begins in the middle.
    for segment in high.segments.iter().skip(1) {
        let Some(other) = low.segments.iter().find(|low| low.number == segment.number) else {
            continue;
        };
        assert!((segment.duration - 1.0).abs() < 0.005 && (other.duration - 1.0).abs() < 0.005);
        let sizes = (bytes("live/tv", &segment.uri), bytes("live/tv", &other.uri));
        assert_eq!(sizes.0, sizes.1, "number {}", segment.number);
        same += 1;
    }
    assert!(same >= 1, "{texts:?}");
    // One id serves all variants, and each that is played has a viewer.
    let clients = http::get(server.api_addr(), "/api/v1/clients/?count=100");
    let clients = clients["clients"].as_array().expect("clients").clone();
    assert_eq!(clients.iter().filter(|client| client["type"] == "hls-play").count(), 2);
    for publishing in publishing {
        publishing.join().expect("a publisher");
    }
    server.stop();
}

/// A frame that cannot be packed: `hls_on_error`.
#[test]
fn what_cannot_be_packed() {
    let source = Source::make("h264-aac", H264, AAC);
    let (headers, frames) = source.messages();
    for on_error in ["continue", "ignore", "disconnect"] {
        let server = serve(&[&format!("vhost.hls.hls_on_error={on_error}")]);
        let addr = server.http_addr();
        let mut publisher = RtmpPublisher::connect(&server.rtmp(STREAM)).expect("publish");
        let mut failed = false;
        for message in &headers {
            publisher.send(message.kind, message.timestamp, &message.payload).expect("send");
        }
        for (index, frame) in frames.iter().enumerate() {
            failed |= publisher.send(frame.kind, frame.timestamp, &frame.payload).is_err();
            // A NAL unit that is longer than its frame.
            if index == 200 {
                let broken = [0x27, 1, 0, 0, 0, 0, 0, 0, 99, 1];
                let kind = headers[0].kind;
                failed |= publisher.send(kind, frame.timestamp, &broken).is_err();
            }
            if index % 50 == 0 {
                thread::sleep(Duration::from_millis(20));
            }
        }
        thread::sleep(Duration::from_millis(300));
        let streams = http::get(server.api_addr(), "/api/v1/streams/");
        let active = streams["streams"][0]["publish"]["active"].as_bool();
        let playlist = get(addr, &format!("/{STREAM}.m3u8")).status;
        match on_error {
            "continue" => assert_eq!((active, playlist, failed), (Some(true), 200, false)),
            "ignore" => assert_eq!((active, playlist, failed), (Some(true), 404, false)),
            _ => assert_ne!(active, Some(true), "{streams}"),
        }
        drop(publisher);
        server.stop();
    }
}

/// What is served is on disk, too, and goes when it has had its time.
#[test]
fn segments_on_disk() {
    let folder = scratch::path("hls-disk");
    let _ = std::fs::remove_dir_all(&folder);
    let server = serve(&[
        &format!("vhost.hls.hls_path={}", folder.display()),
        "vhost.hls.hls_window=3",
        "vhost.hls.hls_dispose=3",
        "vhost.hls.hls_use_fmp4=true",
        "vhost.publish.hold=0",
        "vhost.idle_close=1",
    ]);
    let source = Source::make("h264-aac", H264, AAC);
    let publishing = source.publish(&server.rtmp(STREAM));
    server.wait_for_stream(STREAM);
    let (path, _) = enter(server.http_addr(), STREAM);
    publishing.join().expect("the publisher");
    thread::sleep(Duration::from_millis(800));
    let served = Playlist::parse(&get(server.http_addr(), &path).text()).expect("a playlist");
    let file = folder.join("live/cut.m3u8");
    let text = std::fs::read_to_string(&file).expect("a playlist on disk");
    let list = Playlist::parse(&text).expect("a playlist");
    assert_eq!((list.first, list.segments.len()), (served.first, served.segments.len()));
    for (segment, served) in list.segments.iter().zip(&served.segments) {
        let bytes = std::fs::read(folder.join("live").join(&segment.uri)).expect("a segment");
        let served = get(server.http_addr(), &resolve(STREAM, &served.uri)).body;
        assert!(bytes == served && !bytes.is_empty(), "{}", segment.uri);
    }
    // What the playlist does not name any more stays for a while; there is nothing unfinished.
    let names = || -> Vec<String> {
        let files = std::fs::read_dir(folder.join("live")).expect("a folder");
        files.map(|file| file.unwrap().file_name().to_string_lossy().into_owned()).collect()
    };
    let all = names();
    assert!(all.iter().all(|name| !name.ends_with(".tmp")), "{all:?}");
    let ended = format!("{}\n#EXT-X-ENDLIST\n", text.trim_end());
    let whole = folder.join("live/ended.m3u8");
    std::fs::write(&whole, ended).expect("a playlist");
    decodes("from disk", whole.to_str().expect("UTF-8 path"), &[]);
    std::fs::remove_file(whole).expect("remove");
    let deadline = Instant::now() + Duration::from_secs(15);
    while !names().iter().all(|name| name == "cut") {
        assert!(Instant::now() < deadline, "still there: {:?}", names());
        thread::sleep(Duration::from_millis(200));
    }
    assert_eq!(get(server.http_addr(), &path).status, 404);
    let _ = std::fs::remove_dir_all(folder);
    server.stop();
}

/// Encrypted segments: ffmpeg fetches the keys and plays.
#[test]
fn segments_under_keys() {
    let folder = scratch::path("hls-keys");
    let server = serve(&[
        "vhost.hls.hls_keys=true",
        "vhost.hls.hls_fragments_per_key=2",
        "vhost.hls.hls_window=30",
        "vhost.token.play=true",
        "vhost.token.keys=[\"0123456789abcdef\"]",
        &format!("vhost.hls.hls_path={}", folder.display()),
    ]);
    let addr = server.http_addr();
    let source = Source::make("h264-aac", H264, AAC);
    let publishing = source.publish(&server.rtmp(STREAM));
    server.wait_for_stream(STREAM);
    let path = format!("/{STREAM}.m3u8?token=0123456789abcdef");
    let url = server.http(&path);
    decodes("ffmpeg live", &url, &["-t", "3"]);
    let path = get(addr, &path).text().lines().last().expect("an address").to_owned();
    publishing.join().expect("the publisher");
    thread::sleep(Duration::from_millis(500));
    let text = get(addr, &path).text();
    let list = Playlist::parse(&text).expect("a playlist");
    let keys: Vec<&str> = text.lines().filter(|line| line.starts_with("#EXT-X-KEY:")).collect();
    assert_eq!(keys.len(), list.segments.len().div_ceil(2), "{text}");
    let uri = keys[0].split('"').nth(1).expect("an address");
    let key = get(addr, &resolve(STREAM, uri));
    assert_eq!((key.status, key.body.len()), (200, 16));
    // Not for who has not asked for the playlist.
    assert_eq!(get(addr, &resolve(STREAM, uri.split('?').next().unwrap())).status, 403);
    let sealed = get(addr, &resolve(STREAM, &list.segments[0].uri)).body;
    assert!(sealed.len().is_multiple_of(16) && (sealed[0] != 0x47 || sealed[188] != 0x47));
    assert_eq!(std::fs::read(folder.join("live/cut-0.key")).expect("a key on disk"), key.body);
    let whole = folder.join("live/ended.m3u8");
    let text = std::fs::read_to_string(folder.join("live/cut.m3u8")).expect("a playlist");
    std::fs::write(&whole, format!("{text}#EXT-X-ENDLIST\n")).expect("a playlist");
    let path = whole.to_str().expect("UTF-8 path");
    let mut command = Command::new("ffmpeg");
    command.args(["-hide_banner", "-nostdin", "-v", "error", "-xerror"]);
    command.args(["-allowed_extensions", "ALL", "-i", path, "-f", "null", "-"]);
    let finished = Process::start("ffmpeg", &mut command).finish(Duration::from_secs(60));
    assert!(finished.stderr.is_empty(), "{:#?}", finished.stderr);
    finished.expect_success("from disk");
    let _ = std::fs::remove_dir_all(folder);
    server.stop();
}

/// A viewer's connection that is kept.
struct Waiting(BufReader<TcpStream>);

impl Waiting {
    fn connect(addr: SocketAddr) -> Waiting {
        let socket = TcpStream::connect(addr).expect("connect");
        socket.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
        Waiting(BufReader::with_capacity(1024, socket))
    }

    fn ask(&mut self, path: &str) {
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
        self.0.get_mut().write_all(request.as_bytes()).expect("a request");
    }

    /// Status and body of the next answer.
    fn answer(&mut self) -> (u16, String) {
        let (mut line, mut head, mut len) = (String::new(), Vec::new(), 0);
        while self.0.read_line(&mut line).expect("a head") > 2 {
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length: ") {
                len = value.trim().parse().expect("a length");
            }
            head.push(std::mem::take(&mut line));
        }
        let status = head[0].split(' ').nth(1).and_then(|status| status.parse().ok());
        let mut body = vec![0; len];
        self.0.read_exact(&mut body).expect("a body");
        (status.expect("a status"), String::from_utf8(body).expect("text"))
    }
}

/// Row 20 of the tests against abuse: thousands of viewers that wait for what comes next, and for
/// what is far from coming. Each costs little, all are answered in time, and when the stream stands
/// still nobody waits for ever.
#[test]
fn a_storm_of_viewers_that_wait() {
    const VIEWERS: usize = 2_500;
    let mut server = serve(&["vhost.hls.hls_part=0.2", "vhost.hls.hls_window=5"]);
    let (addr, api, pid) = (server.http_addr(), server.api_addr(), server.process_mut().id());
    let going = Arc::new(AtomicBool::new(true));
    let mut publisher = RtmpPublisher::connect(&server.rtmp(STREAM)).expect("publish");
    publisher.send(Kind::Video, 0, &avc_header()).expect("send");
    let publishing = thread::spawn({
        let going = going.clone();
        move || {
            let mut number = 0;
            while going.load(Ordering::Relaxed) {
                publisher.send(Kind::Video, number * 40, &picture(number, 2_000)).expect("send");
                number += 1;
                thread::sleep(Duration::from_millis(40));
            }
            publisher
        }
    });
    server.wait_for_stream(STREAM);
    let (path, _) = enter(addr, STREAM);
    thread::sleep(Duration::from_secs(2));
    let next = || Playlist::parse(&get(addr, &path).text()).expect("a playlist").open.number;
    let (memory, files) = (resident_kb(pid), descriptors(pid));
    let mut viewers: Vec<(Waiting, String)> = (0..VIEWERS)
        .map(|_| {
            let mut viewer = Waiting::connect(addr);
            viewer.ask(&format!("/{STREAM}.m3u8"));
            let (status, master) = viewer.answer();
            assert_eq!(status, 200, "{master}");
            (viewer, master.lines().last().expect("an address").to_owned())
        })
        .collect();
    for round in 0..3 {
        let number = next() + 1;
        let asked = Instant::now();
        for (viewer, path) in &mut viewers {
            viewer.ask(&format!("{path}&_HLS_msn={number}"));
        }
        let grown = resident_kb(pid).saturating_sub(memory);
        assert!(grown < VIEWERS as u64 * 24, "{grown} kB for {VIEWERS} viewers");
        for (viewer, _) in &mut viewers {
            let (status, text) = viewer.answer();
            assert_eq!(status, 200, "{text}");
            let list = Playlist::parse(&text).expect("a playlist");
            assert!(list.segments.iter().any(|segment| segment.number == number), "{text}");
        }
        assert!(asked.elapsed() < Duration::from_secs(6), "round {round}: {:?}", asked.elapsed());
    }
    let metrics = http::request(api, "GET", "/metrics", &[]).text();
    let count = metrics.lines().find_map(|line| line.strip_prefix("ringcast_hls_viewers "));
    let count: f64 = count.and_then(|count| count.parse().ok()).unwrap_or(VIEWERS as f64);
    assert!(count >= VIEWERS as f64, "{count} viewers");
    // What is far from coming is refused at once, to everybody.
    let asked = Instant::now();
    for (viewer, path) in &mut viewers {
        // Five ahead, so that it does not come meanwhile.
        viewer.ask(&format!("{path}&_HLS_msn={}", u64::MAX));
    }
    let far = next() + 5;
    for (index, (viewer, path)) in viewers.iter_mut().enumerate() {
        assert_eq!(viewer.answer().0, 400, "viewer {index}");
        if index % 10 == 0 {
            viewer.ask(&format!("{path}&_HLS_msn={far}&_HLS_part=0"));
            assert_eq!(viewer.answer().0, 400, "viewer {index}");
        }
    }
    assert!(asked.elapsed() < Duration::from_secs(4), "{:?}", asked.elapsed());
    // By how far: two behind the last whole segment are waited for, and no more.
    let list = Playlist::parse(&get(addr, &path).text()).expect("a playlist");
    let last = list.segments.last().expect("a segment").number;
    assert_eq!(get(addr, &format!("{path}&_HLS_msn={}", last + 4)).status, 400);
    // The stream stands still: who waits is told, after three target durations.
    going.store(false, Ordering::Relaxed);
    let publisher = publishing.join().expect("the publisher");
    thread::sleep(Duration::from_millis(300));
    let number = next() + 1;
    let asked = Instant::now();
    for (viewer, path) in &mut viewers {
        viewer.ask(&format!("{path}&_HLS_msn={number}"));
    }
    for (viewer, _) in &mut viewers {
        assert_eq!(viewer.answer().0, 503);
    }
    assert!(asked.elapsed() < Duration::from_secs(9), "{:?}", asked.elapsed());
    // Viewers that leave while they wait leave nothing behind.
    let number = next() + 1;
    for (viewer, path) in &mut viewers {
        viewer.ask(&format!("{path}&_HLS_msn={number}"));
    }
    drop(viewers);
    let until = Instant::now() + Duration::from_secs(10);
    while descriptors(pid) > files + 20 {
        assert!(Instant::now() < until, "{} descriptors, {files} before", descriptors(pid));
        thread::sleep(Duration::from_millis(100));
    }
    drop(publisher);
    server.stop();
}
