//! Uploads to a real store that speaks S3: what is there is what is on disk, whatever the store
//! does meanwhile, and who publishes and plays does not notice.

mod common;

use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use common::admission::{avc_header, picture};
use common::http;
use common::server::Server;
use common::store::{BUCKET, Mood, Store};
use loadtest::client::{BlockingPlayer, RtmpPublisher};
use loadtest::media::Kind;
use serde_json::Value;

const STREAM: &str = "live/up";
/// Longer than anything takes.
const LONG: Duration = Duration::from_secs(20);

/// A folder, gone at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let name = format!("upload-{name}-{}", std::process::id());
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).expect("a folder");
        let keys = "aws_access_key_id = AKIDSECRET\naws_secret_access_key = TOPSECRET\n";
        std::fs::write(path.join("keys"), keys).expect("a file");
        Folder(path)
    }

    /// The files below `rec`, by their paths there.
    fn recordings(&self) -> Vec<PathBuf> {
        let root = self.0.join("rec");
        let (mut files, mut folders) = (Vec::new(), vec![root]);
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
                let path = entry.path();
                if path.is_dir() { folders.push(path) } else { files.push(path) }
            }
        }
        files.sort();
        files
    }

    fn settings(&self, store: &Store, more: &[&str]) -> Vec<String> {
        let root = self.0.display();
        let mut all = vec![
            "shards=2".to_owned(),
            "vhost.publish.hold=0".to_owned(),
            "vhost.dvr.enabled=true".to_owned(),
            format!("vhost.dvr.dvr_path={root}/rec/[app]/[stream].[timestamp].flv"),
            "vhost.upload.enabled=true".to_owned(),
            format!("vhost.upload.endpoint={}", store.url()),
            format!("vhost.upload.bucket={BUCKET}"),
            "vhost.upload.prefix=site/[vhost]".to_owned(),
            "vhost.upload.timeout=5".to_owned(),
            format!("vhost.upload.credentials_file={root}/keys"),
        ];
        all.extend(more.iter().map(|setting| (*setting).to_owned()));
        all
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

const PREFIX: &str = "site/__defaultVhost__/";

fn start(settings: &[String]) -> Server {
    Server::start(&settings.iter().map(String::as_str).collect::<Vec<_>>())
}

/// Publishes so many pictures of that size, and leaves.
fn publish(server: &Server, pictures: u32, bytes: usize) {
    let mut publisher = common::admission::publish_when_free(&server.rtmp(STREAM));
    publisher.send(Kind::Video, 0, &avc_header()).expect("send");
    for number in 0..pictures {
        publisher.send(Kind::Video, number * 40, &picture(number, bytes)).expect("send");
    }
    // A recording begins when half a second of the stream is there behind its newest keyframe.
    let until = Instant::now() + LONG;
    let dvr = || http::get(server.api_addr(), "/api/v1/dvrs/")["dvrs"][0]["state"].clone();
    for number in pictures.. {
        if dvr() == "writing" {
            break;
        }
        assert!(Instant::now() < until, "it is not recorded: {}", dvr());
        publisher.send(Kind::Video, number * 40, &picture(number, 1_000)).expect("send");
        thread::sleep(Duration::from_millis(40));
    }
}

fn uploads(server: &Server) -> Value {
    http::get(server.api_addr(), "/api/v1/uploads")["uploads"][0].clone()
}

fn wait_for(server: &Server, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    let until = Instant::now() + LONG;
    loop {
        let now = uploads(server);
        if is_so(&now) {
            return now;
        }
        assert!(Instant::now() < until, "{what} wanted: {now:#}");
        thread::sleep(Duration::from_millis(50));
    }
}

/// The object of a recording is the file.
fn assert_same(store: &Store, folder: &Folder, file: &Path) {
    let below = file.strip_prefix(folder.0.join("rec")).expect("below").display();
    let object = store.get(&format!("{PREFIX}{below}"));
    assert_eq!(object.status, 200, "{below}");
    assert_eq!(object.header("content-type"), Some("video/x-flv"));
    let bytes = std::fs::read(file).expect("the file");
    assert!(object.body == bytes, "{below}: {} of {} bytes", object.body.len(), bytes.len());
}

/// A small file in one request, a large one in parts; a gate that cuts connections off makes it
/// take longer. Uploaded files go, if that is wanted.
#[test]
fn recordings_are_uploaded() {
    let Some(store) = Store::start() else { return };
    let folder = Folder::new("files");
    let server = start(&folder.settings(&store, &[]));
    publish(&server, 50, 1_000);
    wait_for(&server, "a file", |now| now["files"] == 1 && now["state"] == "idle");
    store.set(Mood::Cuts);
    // 24 MB.
    publish(&server, 60, 400_000);
    let failing = wait_for(&server, "a failure", |now| now["state"] == "failing");
    assert_eq!((&failing["waiting"], &failing["files"]), (&1.into(), &1.into()), "{failing:#}");
    store.set(Mood::Open);
    let done = wait_for(&server, "two files", |now| now["files"] == 2);
    let files = folder.recordings();
    assert_eq!(files.len(), 2);
    let bytes: u64 = files.iter().map(|file| file.metadata().expect("a file").len()).sum();
    assert_eq!(done["bytes"], bytes, "{done:#}");
    for file in &files {
        assert_same(&store, &folder, file);
    }
    let metrics = server.get("/").0;
    assert!(!metrics.contains("SECRET"));
    let finished = server.stop();
    let log = [finished.stdout, finished.stderr].concat().join("\n");
    assert!(log.contains("upload_failed") && !log.contains("SECRET"), "{log}");

    // The same folder and another server: nothing is uploaded twice.
    let more = ["vhost.upload.delete_after_upload=true"];
    let server = start(&folder.settings(&store, &more));
    thread::sleep(Duration::from_millis(1_500));
    let now = uploads(&server);
    assert_eq!((&now["waiting"], &now["files"]), (&0.into(), &0.into()), "{now:#}");
    publish(&server, 20, 1_000);
    wait_for(&server, "a file", |now| now["files"] == 1 && now["waiting"] == 0);
    assert_eq!(folder.recordings(), files, "the third is gone");
    assert_eq!(store.keys().len(), 3);
    server.stop();
}

/// The store is away, refuses and fails; the server is killed meanwhile. A player of the stream
/// gets every frame, and in the end everything is in the store.
#[test]
fn what_is_not_uploaded_waits_on_disk() {
    let Some(store) = Store::start() else { return };
    let folder = Folder::new("waits");
    store.set(Mood::Closed);
    let plan = ["vhost.dvr.dvr_plan=segment", "vhost.dvr.dvr_duration=1", "exporter.enabled=true"];
    let mut server = start(&folder.settings(&store, &plan));
    let mut publisher = RtmpPublisher::connect(&server.rtmp(STREAM)).expect("publish");
    publisher.send(Kind::Video, 0, &avc_header()).expect("send");
    publisher.send(Kind::Video, 0, &picture(0, 2_000)).expect("send");
    server.wait_for_stream(STREAM);
    let mut player = BlockingPlayer::connect(&server.rtmp(STREAM)).expect("play");
    let playing = thread::spawn(move || player.frames(100).expect("every frame"));
    for number in 1..100 {
        publisher.send(Kind::Video, number * 40, &picture(number, 2_000)).expect("send");
        thread::sleep(Duration::from_millis(40));
        if number == 50 {
            store.set(Mood::Broken);
        }
    }
    let frames = playing.join().expect("the player");
    for (number, frame) in (0..).zip(&frames) {
        assert!(frame.payload == picture(number, 2_000), "frame {number} of the player");
    }
    let failing = wait_for(&server, "a store that fails", |now| {
        now["detail"].as_str().is_some_and(|why| why.contains("InternalError"))
    });
    assert_eq!(failing["state"], "failing");
    assert!(failing["waiting"].as_u64() >= Some(2), "{failing:#}");
    let api = server.api_addr();
    let until = Instant::now() + LONG;
    while !http::get(api, "/api/v1/alerts")["alerts"].to_string().contains("\"upload\"") {
        assert!(Instant::now() < until, "no alert");
        thread::sleep(Duration::from_millis(100));
    }
    let metrics = http::request(api, "GET", "/metrics", &[]).text();
    let line = "ringcast_uploads_failing{vhost=\"__defaultVhost__\"} 1";
    assert!(metrics.contains(line), "{metrics}");
    // It is killed while everything waits, and what it was writing is made whole by hand.
    server.process_mut().signal(rustix::process::Signal::KILL);
    drop(publisher);
    while server.process_mut().is_running() {
        thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(store.keys().len(), 0);
    store.set(Mood::Denied);
    let server = start(&folder.settings(&store, &plan));
    let denied = wait_for(&server, "a refusal", |now| now["state"] == "failing");
    assert!(denied["detail"].as_str().is_some_and(|w| w.contains("InvalidAccessKeyId")));
    assert!(!denied.to_string().contains("SECRET"), "{denied:#}");
    let before = store.connections();
    thread::sleep(Duration::from_secs(2));
    assert!(store.connections() - before <= 6, "attempts are further and further apart");
    store.set(Mood::Open);
    wait_for(&server, "an end", |now| now["waiting"] == 0 && now["state"] == "idle");
    let files: Vec<PathBuf> = folder.recordings();
    let whole: Vec<_> =
        files.iter().filter(|f| f.extension().is_some_and(|e| e == "flv")).collect();
    assert!(whole.len() >= 3, "{files:?}");
    for file in &whole {
        assert_same(&store, &folder, file);
    }
    assert_eq!(store.keys().len(), whole.len());
    let finished = server.stop();
    let log = [finished.stdout, finished.stderr].concat().join("\n");
    assert!(log.contains("uploads go on") && !log.contains("SECRET"), "{log}");
}

/// Segments go before the playlist that names them, are there as long as they are not uploaded, and
/// not longer.
#[test]
fn segments_and_playlists() {
    let Some(store) = Store::start() else { return };
    let folder = Folder::new("hls");
    let hls = format!("vhost.hls.hls_path={}/hls", folder.0.display());
    let more = [
        "vhost.dvr.enabled=false",
        "vhost.hls.enabled=true",
        "vhost.hls.hls_fragment=1",
        "vhost.hls.hls_window=3",
        "vhost.hls.hls_dispose=1",
        "vhost.upload.segments=true",
        &hls,
    ];
    let server = start(&folder.settings(&store, &more));
    let mut publisher = RtmpPublisher::connect(&server.rtmp(STREAM)).expect("publish");
    publisher.send(Kind::Video, 0, &avc_header()).expect("send");
    let named = |playlist: &str| -> Vec<String> {
        playlist.lines().filter(|line| line.ends_with(".ts")).map(str::to_owned).collect()
    };
    let (mut checked, mut sums) = (0, Vec::new());
    let segments_on_disk = |sums: &mut Vec<(String, Vec<u8>)>| {
        for entry in std::fs::read_dir(folder.0.join("hls/live")).into_iter().flatten().flatten() {
            let name = entry.file_name().into_string().expect("UTF-8");
            if name.ends_with(".ts") && !sums.iter().any(|(known, _)| *known == name) {
                // It may be gone already.
                let bytes = std::fs::read(entry.path()).unwrap_or_default();
                sums.push((name, bytes));
            }
        }
    };
    for number in 0..225u32 {
        publisher.send(Kind::Video, number * 40, &picture(number, 4_000)).expect("send");
        thread::sleep(Duration::from_millis(40));
        match number {
            60 => store.set(Mood::Closed),
            150 => store.set(Mood::Open),
            _ => {}
        }
        segments_on_disk(&mut sums);
        if number % 10 == 0 {
            let playlist = store.get(&format!("{PREFIX}live/up.m3u8"));
            if playlist.status == 200 {
                for segment in named(&playlist.text()) {
                    let segment = segment.rsplit('/').next().expect("a name");
                    let there = store.get(&format!("{PREFIX}live/{segment}")).status;
                    assert_eq!(there, 200, "the playlist names {segment}, which is not there");
                    checked += 1;
                }
            }
        }
    }
    drop(publisher);
    let disk = std::fs::read_dir(folder.0.join("hls/live")).map(|entries| entries.count());
    let now = uploads(&server);
    assert!(checked > 10, "{checked} of playlists; {:?}; {disk:?}; {now:#}", store.keys());
    // The stream is disposed of; nothing of it stays on disk, and all of it is in the store.
    let until = Instant::now() + LONG;
    let left = || std::fs::read_dir(folder.0.join("hls/live")).map_or(0, |entries| entries.count());
    while left() > 0 {
        assert!(Instant::now() < until, "{} files are left: {:#}", left(), uploads(&server));
        thread::sleep(Duration::from_millis(100));
    }
    let done = wait_for(&server, "an end", |now| now["waiting"] == 0);
    assert_eq!(done["given_up"], 0, "{done:#}");
    let keys = store.keys();
    assert!(sums.len() >= 5, "{} segments", sums.len());
    for (name, bytes) in sums.iter().filter(|(_, bytes)| !bytes.is_empty()) {
        assert!(keys.contains(&format!("{PREFIX}live/{name}")), "{name}: {keys:?}");
        assert!(store.get(&format!("{PREFIX}live/{name}")).body == *bytes, "{name}");
    }
    server.stop();
}

/// Where uploads may not go, and without an access key, the API says so, nobody is called, and
/// everything else works.
#[test]
fn targets_that_are_never_called() {
    let Some(store) = Store::start() else { return };
    let folder = Folder::new("never");
    for (setting, says) in [
        ("vhost.upload.endpoint=http://169.254.169.254", "never called"),
        ("vhost.upload.credentials_file=/nonexistent", "cannot be read"),
    ] {
        let server = start(&folder.settings(&store, &[setting]));
        publish(&server, 30, 1_000);
        let refused = wait_for(&server, "a refusal", |now| now["waiting"] == 1);
        assert_eq!(refused["state"], "refused", "{refused:#}");
        assert!(refused["detail"].as_str().is_some_and(|why| why.contains(says)), "{refused:#}");
        for file in folder.recordings() {
            std::fs::remove_file(file).expect("the recording");
        }
        server.stop();
    }
    assert_eq!(store.connections(), 0);
}
