//! MPEG-DASH with the real server: what players load track by track is what was published, and
//! manifests keep the rules from one load to the next.

mod common;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use common::hook_server::{Behaviour, HookServer};
use common::http::{self, Answer};
use common::process::Process;
use common::scratch;
use common::server::Server;
use common::units::{self, AAC, Container, Frame, H264, Source};
use ringcast::proto::dash::check::{Checker, Manifest};

const STREAM: &str = "live/cut";

/// By what name players reach the server: without that they are not told where their manifest is.
const OUTWARD: &str = "X-Forwarded-Host: tv.test";

fn get(addr: SocketAddr, path: &str) -> Answer {
    http::request(addr, "GET", path, &[OUTWARD])
}

fn serve(settings: &[&str]) -> Server {
    let own = [
        "shards=2",
        "vhost.dash.enabled=true",
        "vhost.dash.dash_fragment=1",
        "vhost.dash.dash_window_size=30",
    ];
    Server::start(&[&own, settings].concat())
}

fn now_ms() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a time after 1970");
    i64::try_from(now.as_millis()).expect("a time")
}

/// The path of an address in the manifest of a stream.
fn resolve(uri: &str) -> String {
    let whole = uri.strip_prefix("http://tv.test");
    whole.map_or_else(|| format!("/live/{uri}"), str::to_owned)
}

/// What a player has loaded.
#[derive(Default)]
struct Loaded {
    checker: Checker,
    /// Of the last load.
    manifest: Manifest,
    /// By Period and track: the initialisation segment.
    inits: BTreeMap<(String, String), Vec<u8>>,
    /// By Period, track and number.
    segments: BTreeMap<(String, String, u64), Vec<u8>>,
    periods: usize,
}

impl Loaded {
    /// A track of a Period as one file.
    fn file(&self, period: &str, track: &str) -> Vec<u8> {
        let place = (period.to_owned(), track.to_owned());
        let mut out = self.inits.get(&place).cloned().unwrap_or_default();
        let of_it = self.segments.iter().filter(|((p, t, _), _)| p == period && t == track);
        of_it.for_each(|(_, bytes)| out.extend_from_slice(bytes));
        out
    }

    fn has(&self, track: &str) -> bool {
        self.inits.keys().any(|(_, own)| own == track)
    }
}

/// Loads the manifest, checks it, and loads what is new in it. Gives where to look next.
fn load(addr: SocketAddr, path: &str, loaded: &mut Loaded) -> String {
    let answer = get(addr, path);
    assert_eq!(answer.status, 200, "{path}: {answer:?}");
    assert_eq!(answer.header("content-type"), Some("application/dash+xml"));
    let text = answer.text();
    let manifest = loaded.checker.load(now_ms(), &text);
    let manifest = manifest.unwrap_or_else(|why| panic!("{why} in\n{text}"));
    for period in &manifest.periods {
        for one in &period.representations {
            let place = (period.id.clone(), one.id.clone());
            loaded.inits.entry(place).or_insert_with(|| {
                let answer = get(addr, &resolve(&one.init));
                assert_eq!(answer.status, 200, "{}", one.init);
                answer.body
            });
            for segment in &one.segments {
                let place = (period.id.clone(), one.id.clone(), segment.number);
                loaded.segments.entry(place).or_insert_with(|| {
                    let answer = get(addr, &resolve(&segment.uri));
                    assert_eq!(answer.status, 200, "{}", segment.uri);
                    assert_eq!(
                        answer.header("content-type"),
                        Some(format!("{}/mp4", one.content).as_str())
                    );
                    answer.body
                });
            }
        }
    }
    loaded.periods = loaded.inits.keys().map(|(period, _)| period).collect::<Vec<_>>().len();
    let next = manifest.location.clone().map_or(path.to_owned(), |uri| resolve(&uri));
    loaded.manifest = manifest;
    next
}

/// Plays until it is told to stop and there has been nothing new for a second.
fn play(addr: SocketAddr, published: Arc<AtomicBool>) -> JoinHandle<Loaded> {
    thread::spawn(move || {
        let mut loaded = Loaded::default();
        let mut path = format!("/{STREAM}.mpd");
        let mut ended_at: Option<Instant> = None;
        loop {
            path = load(addr, &path, &mut loaded);
            assert!(path.contains("dash_ctx="), "{path}");
            if !published.load(Ordering::Acquire)
                && ended_at.get_or_insert_with(Instant::now).elapsed() > Duration::from_secs(1)
            {
                return loaded;
            }
            thread::sleep(Duration::from_millis(200));
        }
    })
}

/// The frames of one track of a Period.
fn frames(source: &Source, loaded: &Loaded, period: &str, track: &str) -> units::Frames {
    if !loaded.has(track) {
        return units::Frames::default();
    }
    let file = scratch::path(&format!("dash-{period}-{track}-{:?}.mp4", thread::current().id()));
    std::fs::write(&file, loaded.file(period, track)).expect("a scratch file");
    let path = file.to_str().expect("UTF-8 path");
    let frames = units::finish(track, units::read(source, path, Container::AsIs, false));
    let _ = std::fs::remove_file(file);
    frames
}

fn decodes(who: &str, input: &str, more: &[&str]) {
    let mut command = Command::new("ffmpeg");
    command.args(["-hide_banner", "-nostdin", "-v", "error", "-i", input]);
    command.args(more).args(["-f", "null", "-"]);
    let finished = Process::start("ffmpeg", &mut command).finish(Duration::from_secs(90));
    // Seen when a manifest with few segments grows: ffmpeg loads one of them a second time.
    let again = |line: &&String| line.contains("non monotonically increasing dts");
    let rest: Vec<&String> = finished.stderr.iter().filter(|line| !again(line)).collect();
    assert!(rest.is_empty(), "{who}: decoding: {rest:#?}");
    finished.expect_success(who);
}

/// Publishes the source; what a player loads is what was published, and ffmpeg plays it, too.
fn through(source: &Source, settings: &[&str], codecs: &[&str]) -> Loaded {
    let server = serve(settings);
    let publishing = source.publish(&server.rtmp(STREAM));
    server.wait_for_stream(STREAM);
    let published = Arc::new(AtomicBool::new(true));
    let player = play(server.http_addr(), published.clone());
    let url = server.http(&format!("/{STREAM}.mpd"));
    let watching = thread::spawn(move || decodes("ffmpeg live", &url, &["-t", "2"]));
    publishing.join().expect("the publisher");
    published.store(false, Ordering::Release);
    watching.join().expect("ffmpeg");
    let loaded = player.join().expect("the player");
    let period = loaded.manifest.periods.last().expect("a Period");
    let own: Vec<&str> =
        period.representations.iter().map(|one| one.attributes["codecs"].as_str()).collect();
    for (own, expected) in own.iter().zip(codecs) {
        assert!(own.starts_with(expected), "{own:?}");
    }
    assert_eq!(own.len(), codecs.len());
    let (video, audio) =
        (frames(source, &loaded, "0", "video"), frames(source, &loaded, "0", "audio"));
    let got = units::Frames { video: video.video, audio: audio.audio };
    let all = if source.has_video() { got.video.len() } else { got.audio.len() };
    assert!(all >= 6 * 25 - 30, "{codecs:?}: {all} of 150 pictures");
    units::assert_is_tail(codecs[0], source, &got, &units::published(source, Container::AsIs));
    server.stop();
    loaded
}

#[test]
fn h264_and_aac() {
    let source = Source::make("h264-aac", H264, AAC);
    let loaded = through(&source, &[], &["avc1.", "mp4a.40.2"]);
    let video = loaded.manifest.newest("video").expect("pictures");
    let attribute = |name: &str| video.attributes.get(name).map(String::as_str);
    assert_eq!(
        [attribute("width"), attribute("height"), attribute("frameRate")],
        [Some("320"), Some("180"), Some("25")]
    );
    // Whole seconds, one behind the other.
    assert!(video.segments.windows(2).all(|two| two[0].start + two[0].duration == two[1].start));
    assert!(video.segments[..4].iter().all(|segment| segment.duration == 90_000), "{video:?}");
    let audio = loaded.manifest.newest("audio").expect("audio");
    assert!(audio.segments.windows(2).all(|two| two[0].start + two[0].duration == two[1].start));
    assert_eq!(audio.attributes["audioSamplingRate"], "48000");
}

#[test]
fn one_track_alone() {
    let source = Source::make("aac", &[], AAC);
    let loaded = through(&source, &[], &["mp4a.40.2"]);
    assert!(!loaded.has("video"));
    let source = Source::make("h264", H264, &[]);
    let loaded = through(&source, &[], &["avc1."]);
    assert!(!loaded.has("audio"));
}

#[test]
fn av1_and_opus_and_vp9_and_flac() {
    let video = ["-c:v", "libsvtav1", "-preset", "12", "-g", "25", "-b:v", "200k"];
    let source = Source::make("av1-opus", &video, &["-c:a", "libopus", "-b:a", "64k"]);
    through(&source, &[], &["av01.", "opus"]);
    let video = ["-c:v", "libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8", "-g", "25"];
    let source = Source::make("vp9-flac", &video, &["-c:a", "flac"]);
    through(&source, &[], &["vp09.", "flac"]);
}

/// With HLS in fragmented MP4 of equal length both come from one cut; with parts, too.
#[test]
fn h265_beside_hls() {
    let x265 = "keyint=25:min-keyint=25:scenecut=0:bframes=2:open-gop=0:log-level=error";
    let video = ["-c:v", "libx265", "-preset", "ultrafast", "-tag:v", "hvc1", "-x265-params", x265];
    let source = Source::make("h265-aac6", &video, &["-c:a", "aac", "-b:a", "256k", "-ac", "6"]);
    let hls = [
        "vhost.hls.enabled=true",
        "vhost.hls.hls_fragment=1",
        "vhost.hls.hls_use_fmp4=true",
        "vhost.hls.hls_part=0.2",
    ];
    let loaded = through(&source, &hls, &["hvc1.", "mp4a.40.2"]);
    assert_eq!(loaded.manifest.periods.len(), 1);
}

/// A publisher that comes back begins another Period; when nobody does, the manifest has ended.
#[test]
fn publishing_again_is_a_period() {
    // MPEG-TS for HLS beside it: two cuts.
    let server = serve(&[
        "vhost.publish.hold=1",
        "vhost.idle_close=1",
        "vhost.dash.dash_dispose=4",
        "vhost.hls.enabled=true",
        "vhost.hls.hls_fragment=2",
    ]);
    let addr = server.http_addr();
    let source = Source::make("h264-aac", H264, AAC);
    let publishing = source.publish(&server.rtmp(STREAM));
    server.wait_for_stream(STREAM);
    let published = Arc::new(AtomicBool::new(true));
    let player = play(addr, published.clone());
    publishing.join().expect("the first publisher");
    thread::sleep(Duration::from_millis(300));
    source.publish(&server.rtmp(STREAM)).join().expect("the second publisher");
    published.store(false, Ordering::Release);
    let mut loaded = player.join().expect("the player");
    let ids: Vec<&str> = loaded.manifest.periods.iter().map(|p| p.id.as_str()).collect();
    assert_eq!(ids, ["0", "1"]);
    let once = units::published(&source, Container::AsIs);
    let hashes = |frames: &[Frame]| -> Vec<String> {
        frames.iter().map(|frame| frame.hash.clone()).collect()
    };
    for period in ["0", "1"] {
        let got = frames(&source, &loaded, period, "video");
        assert_eq!(hashes(&got.video), hashes(&once.video), "Period {period}");
    }
    // One description serves both.
    assert_eq!(
        loaded.inits[&("0".into(), "video".into())].len(),
        loaded.file("1", "none").len() + loaded.inits[&("1".into(), "video".into())].len()
    );
    thread::sleep(Duration::from_millis(1_200));
    let path = load(addr, &format!("/{STREAM}.mpd"), &mut loaded);
    assert!(!loaded.manifest.is_live && loaded.manifest.update.is_none());
    assert!(loaded.manifest.duration.is_some());
    let deadline = Instant::now() + Duration::from_secs(12);
    while get(addr, &path).status != 404 {
        assert!(Instant::now() < deadline, "still there");
        thread::sleep(Duration::from_millis(200));
    }
    server.stop();
}

/// Viewers are clients: hooks, statistics, kicks, rules; a clock; what a proxy may ask.
#[test]
fn viewers_are_clients() {
    let hooks = HookServer::start(|_| Behaviour::ok());
    let folder = scratch::path("dash-disk");
    let server = serve(&[
        "vhost.http_hooks.enabled=true",
        &format!("vhost.http_hooks.on_play={}", hooks.url("/on_play")),
        &format!("vhost.dash.dash_path={}", folder.display()),
    ]);
    let addr = server.http_addr();
    assert_eq!(get(addr, &format!("/{STREAM}.mpd")).status, 404);
    let source = Source::make("h264-aac", H264, AAC);
    let publishing = source.publish(&server.rtmp(STREAM));
    server.wait_for_stream(STREAM);
    let mut loaded = Loaded::default();
    let path = load(addr, &format!("/{STREAM}.mpd?secret=1"), &mut loaded);
    assert!(path.ends_with("&secret=1"), "{path}");
    let id = path.split("dash_ctx=").nth(1).expect("an id").split('&').next().unwrap().to_owned();
    // Who never takes its id is one viewer all the same; who does is not mixed up with others.
    let again = load(addr, &format!("/{STREAM}.mpd?secret=1"), &mut Loaded::default());
    assert_eq!(again, path);
    assert_eq!(load(addr, &path, &mut loaded), path);
    let other = load(addr, &format!("/{STREAM}.mpd?secret=1"), &mut Loaded::default());
    assert_ne!(other, path);
    // Who is not told where its manifest is finds it where it was, and is one viewer as well.
    let near = || http::request(addr, "GET", &format!("/{STREAM}.mpd?secret=1&near=1"), &[]).text();
    let ids = [near(), near()].map(|text| {
        assert!(text.contains("<MPD ") && !text.contains("<Location>"), "{text}");
        text.split("dash_ctx=").nth(1).expect("an id").split('"').next().unwrap().to_owned()
    });
    assert_eq!(ids[0], ids[1]);
    let plays = hooks.wait_for(2, Duration::from_secs(5), |call| call.path == "/on_play");
    assert_eq!(plays.iter().filter(|call| call.text_of("client_id") == id).count(), 1);
    let clients = http::get(server.api_addr(), "/api/v1/clients/?count=100");
    let clients = clients["clients"].as_array().expect("clients").clone();
    let mine = clients.iter().find(|client| client["id"] == id.as_str()).expect("my record");
    assert_eq!(mine["type"], "dash-play");
    assert!(mine["send_bytes"].as_u64().expect("bytes") > 10_000, "{mine}");
    let video = loaded.manifest.newest("video").expect("pictures").clone();
    let uri = resolve(&video.segments[0].uri);
    assert_eq!(get(addr, uri.split('?').next().unwrap()).status, 403);
    let some = http::request(addr, "GET", &uri, &["Range: bytes=10-99"]);
    let whole = get(addr, &uri).body;
    assert_eq!((some.status, &some.body[..]), (206, &whole[10..100]));
    assert_eq!(get(addr, &uri.replace("video-", "video-999")).status, 404);
    let (_, clock) = loaded.manifest.clock.clone().expect("a clock");
    let time = get(addr, &resolve(&clock));
    assert_eq!((time.status, time.text().len()), (200, "2026-11-22T19:04:05.678Z".len()));
    // What comes next is waited for.
    load(addr, &path, &mut loaded);
    let last = loaded.manifest.newest("video").expect("pictures").segments.last().unwrap().clone();
    let next = last.uri.replace(&format!("-{}.", last.number), &format!("-{}.", last.number + 1));
    assert_eq!(get(addr, &resolve(&next)).status, 200);
    let kicked = http::request(server.api_addr(), "DELETE", &format!("/api/v1/clients/{id}"), &[]);
    assert_eq!(kicked.status, 200);
    let deadline = Instant::now() + Duration::from_secs(5);
    while get(addr, &path).status != 404 {
        assert!(Instant::now() < deadline, "still there");
        thread::sleep(Duration::from_millis(50));
    }
    assert_eq!((get(addr, &uri).status, get(addr, &other).status), (404, 200));
    publishing.join().expect("the publisher");
    thread::sleep(Duration::from_millis(800));
    let plain = get(addr, &other);
    let packed = http::request(addr, "GET", &other, &[OUTWARD, "Accept-Encoding: gzip"]);
    assert_eq!(packed.header("content-encoding"), Some("gzip"));
    assert_eq!(http::unpacked(&packed.body), plain.body);
    // What is served is on disk, too.
    let file = folder.join("live/cut.mpd");
    let text = std::fs::read_to_string(&file).expect("a manifest on disk");
    let on_disk = Manifest::parse(&text).unwrap_or_else(|why| panic!("{why} in\n{text}"));
    let written = on_disk.newest("video").expect("pictures");
    assert!(written.segments.len() >= 5);
    for one in &on_disk.periods[0].representations {
        for uri in [&one.init].into_iter().chain(one.segments.iter().map(|s| &s.uri)) {
            assert!(folder.join("live").join(uri).exists(), "{uri}");
        }
    }
    let first = std::fs::read(folder.join("live").join(&written.segments[0].uri)).unwrap();
    assert!(first == whole);
    let _ = std::fs::remove_dir_all(folder);
    server.stop();
}
