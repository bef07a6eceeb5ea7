//! Files over HTTP with the real server: content, ranges, conditions, recordings from the midst,
//! and nothing outside of the configured folders (row 24: traversal and symbolic links).

mod common;

use std::io::{Read, Seek, SeekFrom, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use common::http::{self, Answer};
use common::media::{Media, ffmpeg};
use common::process::Process;
use common::server::Server;

/// A folder with files to serve, and a secret beside it; gone at the end.
struct Site(PathBuf);

impl Site {
    fn new(name: &str) -> Site {
        let name = format!("files-{name}-{}", std::process::id());
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(path.join("root/sub")).expect("a folder");
        std::fs::write(path.join("secret.txt"), b"secret").expect("a file");
        Site(path)
    }

    fn root(&self) -> PathBuf {
        self.0.join("root")
    }

    fn put(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.root().join(name);
        std::fs::write(&path, bytes).expect("a file");
        path
    }

    fn serve(&self, more: &[&str]) -> Server {
        let dir = format!("http_server.dir={}", self.root().display());
        Server::start(&[&["shards=2", dir.as_str()], more].concat())
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

fn get(addr: SocketAddr, path: &str) -> Answer {
    http::request(addr, "GET", path, &[])
}

fn ask(addr: SocketAddr, path: &str, header: &str) -> Answer {
    http::request(addr, "GET", path, &[header])
}

/// Sends this and reads the answer; nothing here is checked or rewritten by a client library.
fn raw(addr: SocketAddr, target: &str) -> Answer {
    let text = format!("GET {target} HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n\r\n");
    http::parse(&http::raw(addr, text.as_bytes()))
}

#[test]
fn content_ranges_and_conditions() {
    let site = Site::new("content");
    let bytes = pattern(3_000_001);
    site.put("a b.bin", &bytes);
    site.put("sub/index.html", b"<p>here</p>");
    site.put("empty.txt", b"");
    let server = site.serve(&[]);
    let addr = server.http_addr();

    let whole = get(addr, "/a%20b.bin");
    assert_eq!(whole.status, 200);
    assert!(whole.body == bytes, "{} of {} bytes", whole.body.len(), bytes.len());
    assert_eq!(whole.header("content-type"), Some("application/octet-stream"));
    assert_eq!(whole.header("accept-ranges"), Some("bytes"));
    assert_eq!(whole.header("cache-control"), Some("no-cache"));
    // Also who is no page: a cache in front may give it to one.
    assert_eq!(whole.header("access-control-allow-origin"), Some("*"));
    assert!(whole.header("date").is_some_and(|date| date.ends_with(" GMT")));
    let etag = whole.header("etag").expect("a tag").to_owned();
    let date = whole.header("last-modified").expect("a date").to_owned();
    let cors = ask(addr, "/a%20b.bin", "Origin: http://x.example");
    assert_eq!(cors.header("access-control-allow-origin"), Some("*"));

    for (range, from, to) in [
        ("0-0", 0, 1),
        ("5-1000004", 5, 1_000_005),
        ("2999990-", 2_999_990, bytes.len()),
        ("2999990-9999999", 2_999_990, bytes.len()),
        ("-7", bytes.len() - 7, bytes.len()),
    ] {
        let answer = ask(addr, "/a%20b.bin", &format!("Range: bytes={range}"));
        assert_eq!(answer.status, 206, "{range}");
        assert!(answer.body == bytes[from..to], "{range}: {} bytes", answer.body.len());
        let expected = format!("bytes {from}-{}/{}", to - 1, bytes.len());
        assert_eq!(answer.header("content-range"), Some(expected.as_str()));
    }
    let beyond = ask(addr, "/a%20b.bin", "Range: bytes=3000001-");
    assert_eq!(beyond.status, 416);
    assert_eq!(beyond.header("content-range"), Some("bytes */3000001"));
    // Several ranges are answered with the whole.
    assert_eq!(ask(addr, "/a%20b.bin", "Range: bytes=0-1,5-6").status, 200);
    for (header, status) in [
        (format!("If-None-Match: {etag}"), 304),
        (format!("If-None-Match: W/{etag}"), 304),
        ("If-None-Match: \"other\"".to_owned(), 200),
        (format!("If-Modified-Since: {date}"), 304),
        ("If-Modified-Since: Thu, 01 Jan 1970 00:00:00 GMT".to_owned(), 200),
        ("If-Match: \"other\"".to_owned(), 412),
        (format!("Range: bytes=1-2\r\nIf-Range: {etag}"), 206),
        ("Range: bytes=1-2\r\nIf-Range: \"other\"".to_owned(), 200),
    ] {
        let answer = ask(addr, "/a%20b.bin", &header);
        assert_eq!(answer.status, status, "{header}");
        assert_eq!(answer.header("etag"), Some(etag.as_str()), "{header}");
        assert_eq!(answer.body.is_empty(), status == 304, "{header}");
    }
    let head = http::request(addr, "HEAD", "/a%20b.bin", &[]);
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert_eq!(head.header("content-length"), Some("3000001"));
    let empty = get(addr, "/empty.txt");
    assert_eq!((empty.status, empty.body.len()), (200, 0));
    assert_eq!(empty.header("content-length"), Some("0"));

    let index = get(addr, "/sub/");
    assert_eq!((index.status, index.text().as_str()), (200, "<p>here</p>"));
    assert_eq!(index.header("content-type"), Some("text/html; charset=utf-8"));
    let moved = get(addr, "/sub?a=b");
    assert_eq!((moved.status, moved.header("location")), (301, Some("./sub/?a=b")));
    // What the server has itself goes before files.
    site.put("index.html", b"mine");
    std::thread::sleep(Duration::from_millis(1_100));
    assert!(get(addr, "/").text().contains("ringcast"));
    server.stop();
}

/// Row 24 of the adversarial table: files, segments and recordings are below their folders, and
/// nothing else can be had, however it is written.
#[test]
fn nothing_outside_can_be_had() {
    let site = Site::new("outside");
    let (root, secret) = (site.root(), site.0.join("secret.txt"));
    site.put("plain.txt", b"plain");
    site.put(".hidden", b"hidden");
    site.put("half.flv.tmp", b"half");
    symlink("../secret.txt", root.join("link.txt")).expect("a link");
    symlink(&secret, root.join("absolute.txt")).expect("a link");
    symlink("..", root.join("up")).expect("a link");
    symlink("plain.txt", root.join("good.txt")).expect("a link");
    symlink("/proc/self/environ", root.join("environ")).expect("a link");
    let status = Command::new("mkfifo").arg(root.join("fifo")).status().expect("mkfifo");
    assert!(status.success());
    // The same folder with segments and recordings, and for another host.
    let hls = format!("vhost.hls.hls_path={}", root.display());
    let dvr = format!("vhost.dvr.dvr_path={}/[app]/[stream].flv", root.display());
    let own = format!("vhost.\"own.example\".http_static.dir={}", root.join("sub").display());
    let more = [
        "vhost.hls.enabled=true",
        hls.as_str(),
        dvr.as_str(),
        "vhost.\"own.example\".http_static.enabled=true",
        "vhost.\"own.example\".http_static.mount=[vhost]/files/",
        own.as_str(),
    ];
    site.put("sub/own.txt", b"own");
    let server = site.serve(&more);
    let addr = server.http_addr();
    assert_eq!(get(addr, "/plain.txt").text(), "plain");
    assert_eq!(get(addr, "/good.txt").text(), "plain");
    assert_eq!(get(addr, "/files/own.txt?vhost=own.example").text(), "own");

    let long = format!("/{}", "a".repeat(300));
    let deep = "/a".repeat(2_000);
    let mut targets: Vec<String> = [
        "/../secret.txt",
        "/sub/../../secret.txt",
        "/%2e%2e/secret.txt",
        "/%2e%2e%2fsecret.txt",
        "/..%2fsecret.txt",
        "/%252e%252e%252fsecret.txt",
        "/..%252fsecret.txt",
        "/..%5csecret.txt",
        "/..\\secret.txt",
        "/%c0%ae%c0%ae/secret.txt",
        "/plain.txt%00",
        "/link.txt",
        "/absolute.txt",
        "/up/secret.txt",
        "/environ",
        "/fifo",
        "/.hidden",
        "/half.flv.tmp",
        "//plain.txt",
        "//etc/passwd",
        "/sub//own.txt",
        "/up/",
        // Segments, playlists and recordings.
        "/live/../../secret.txt",
        "/live/..%2f..%2fsecret.ts",
        "/live/%2e%2e/%2e%2e/secret.ts",
        "/live/%252e%252e%252fsecret-1.ts",
        "/../live/x-1.ts",
        "/live/..%5c..%5cx-1.ts",
        "/live/x.m3u8/../../secret.txt",
        "/live/%2e%2e%2f%2e%2e%2fsecret.flv",
        "/files/..%2fplain.txt?vhost=own.example",
        "/files/../plain.txt?vhost=own.example",
        "/plain.txt?vhost=own.example/../..",
        "/own.txt?vhost=../sub",
    ]
    .map(str::to_owned)
    .to_vec();
    targets.extend([long, deep]);
    for target in &targets {
        let answer = raw(addr, target);
        let body = String::from_utf8_lossy(&answer.body);
        let known = target.starts_with("/plain.txt?vhost");
        let fine = matches!(answer.status, 400 | 404) || (known && body == "plain");
        assert!(fine, "{target}: {answer:?}");
        assert!(!body.contains("secret") || body.starts_with("40"), "{target}: {body}");
    }
    // A segment and a stream's recording whose names are links that lead out.
    std::fs::create_dir_all(root.join("live")).expect("a folder");
    symlink(&secret, root.join("live/cut-1.ts")).expect("a link");
    symlink("../../secret.txt", root.join("live/cut-2.ts")).expect("a link");
    symlink(&secret, root.join("live/dvr.mp4")).expect("a link");
    symlink("../..", root.join("live/out")).expect("a link");
    for path in ["/live/cut-1.ts", "/live/cut-2.ts", "/live/out/secret.txt", "/live/out/x-1.ts"] {
        assert_eq!(raw(addr, path).status, 404, "{path}");
    }
    // The recording's path is a live mount, so who asks waits for the stream instead.
    let mut waits = TcpStream::connect(addr).expect("connect");
    let text = format!("GET /live/dvr.mp4 HTTP/1.0\r\nHost: {addr}\r\n\r\n");
    waits.write_all(text.as_bytes()).expect("send");
    waits.set_read_timeout(Some(Duration::from_millis(700))).expect("timeout");
    let mut got = Vec::new();
    let _ = waits.read_to_end(&mut got);
    assert!(!String::from_utf8_lossy(&got).contains("secret"), "{got:?}");
    // A segment of a stream that is gone is served from its folder.
    std::fs::write(root.join("live/cut-3.ts"), b"segment").expect("a file");
    let segment = get(addr, "/live/cut-3.ts");
    assert_eq!((segment.status, segment.text().as_str()), (200, "segment"));
    assert_eq!(segment.header("content-type"), Some("video/MP2T"));
    server.stop();
}

/// Without a folder there are no files; where players need a token, recordings are not for all.
#[test]
fn what_is_not_served() {
    let site = Site::new("none");
    let nowhere = format!("http_server.dir={}", site.0.join("nowhere").display());
    let server = Server::start(&["shards=1", &nowhere]);
    for path in ["/x.txt", "/sub/", "/secret.txt"] {
        let answer = get(server.http_addr(), path);
        assert_eq!(answer.status, 404, "{path}");
        assert_eq!(answer.text(), "404 nothing is mounted here\n");
    }
    server.stop();

    site.put("page.txt", b"page");
    site.put("sub/s.flv", b"recording");
    let server = site.serve(&["vhost.token.play=true", "vhost.token.keys=k1"]);
    let addr = server.http_addr();
    assert_eq!(get(addr, "/page.txt").text(), "page");
    assert_eq!(get(addr, "/sub/s.flv").status, 403);
    server.stop();
}

#[test]
fn many_requests_on_one_connection() {
    let site = Site::new("pipe");
    let files: Vec<(String, Vec<u8>)> = (0..20)
        .map(|number| (format!("f{number}.bin"), pattern(number * 40_000 + number)))
        .collect();
    for (name, bytes) in &files {
        site.put(name, bytes);
    }
    let server = site.serve(&[]);
    let addr = server.http_addr();
    let mut stream = TcpStream::connect(addr).expect("connect");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("timeout");
    let mut text = String::new();
    let mut expected = Vec::new();
    for number in 0..100 {
        let (name, bytes) = &files[number * 7 % files.len()];
        let last = if number == 99 { "Connection: close\r\n" } else { "" };
        let method = if number % 5 == 3 { "HEAD" } else { "GET" };
        text += &format!("{method} /{name} HTTP/1.1\r\nHost: {addr}\r\n{last}\r\n");
        expected.push((method, bytes));
    }
    stream.write_all(text.as_bytes()).expect("send");
    let mut all = Vec::new();
    stream.read_to_end(&mut all).expect("100 answers");
    let mut rest = &all[..];
    for (number, (method, bytes)) in expected.into_iter().enumerate() {
        let end = rest.windows(4).position(|four| four == b"\r\n\r\n").expect("a head") + 4;
        let answer = http::parse(&rest[..end]);
        assert_eq!(answer.status, 200, "{number}");
        assert_eq!(answer.header("content-length"), Some(bytes.len().to_string().as_str()));
        rest = &rest[end..];
        if method == "GET" {
            assert!(rest[..bytes.len()] == bytes[..], "{number}");
            rest = &rest[bytes.len()..];
        }
    }
    assert!(rest.is_empty(), "{} bytes more", rest.len());
    server.stop();
}

/// Beyond 4 GiB, in a file that takes no room; and one that becomes shorter while it is sent.
#[test]
fn large_and_changing_files() {
    let site = Site::new("large");
    let path = site.put("large.bin", b"");
    let len = (5u64 << 30) + 17;
    let marks = [(0u64, "begin"), ((4 << 30) - 2, "midst"), (len - 5, "end!!")];
    let mut file = std::fs::OpenOptions::new().write(true).open(&path).expect("the file");
    file.set_len(len).expect("a sparse file");
    for (at, mark) in marks {
        file.seek(SeekFrom::Start(at)).expect("seek");
        file.write_all(mark.as_bytes()).expect("write");
    }
    let mut server = site.serve(&[]);
    let addr = server.http_addr();
    for (at, mark) in marks {
        let answer = ask(addr, "/large.bin", &format!("Range: bytes={at}-{}", at + 4));
        assert_eq!((answer.status, answer.text().as_str()), (206, mark));
        let expected = format!("bytes {at}-{}/{len}", at + 4);
        assert_eq!(answer.header("content-range"), Some(expected.as_str()));
    }
    let across = ask(addr, "/large.bin", &format!("Range: bytes={}-{}", len - 9_000_000, len - 1));
    assert_eq!(across.body.len(), 9_000_000);
    assert!(across.body.ends_with(b"end!!") && across.body[..8_999_995].iter().all(|b| *b == 0));
    let head = http::request(addr, "HEAD", "/large.bin", &[]);
    assert_eq!(head.header("content-length"), Some(len.to_string().as_str()));

    let path = site.put("shrinks.bin", &pattern(64 << 20));
    let mut stream = TcpStream::connect(addr).expect("connect");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("timeout");
    let text = format!("GET /shrinks.bin HTTP/1.1\r\nHost: {addr}\r\n\r\n");
    stream.write_all(text.as_bytes()).expect("send");
    let mut first = [0; 1_000];
    stream.read_exact(&mut first).expect("the beginning");
    let file = std::fs::OpenOptions::new().write(true).open(path).expect("the file");
    file.set_len(1_000).expect("shorter");
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest);
    assert!(rest.len() < 60 << 20, "{} bytes came", rest.len());
    let told = server.process_mut().wait_for_line("reason=file_changed", Duration::from_secs(10));
    assert!(told.is_ok(), "{told:?}");
    server.stop();
}

/// Time of the first packet of a stream, s, and whether it is a keyframe.
fn first_packet(url: &str, stream: &str) -> (f64, bool) {
    let mut command = Command::new("ffprobe");
    command.args(["-v", "error", "-select_streams", stream, "-read_intervals", "%+#1"]);
    command.args(["-show_entries", "packet=pts_time,flags", "-of", "csv=p=0", url]);
    let out = Process::start("ffprobe", &mut command).finish(Duration::from_secs(30));
    let line = out.stdout.first().unwrap_or_else(|| panic!("{url}: {:?}", out.stderr));
    let (time, flags) = line.split_once(',').expect("two columns");
    (time.parse().expect("a time"), flags.starts_with('K'))
}

/// Every packet that is left, by its hash.
fn hashes(url: &str, stream: &str) -> Vec<String> {
    let mut command = ffmpeg();
    command.args(["-xerror", "-i", url, "-map", &format!("0:{stream}"), "-c", "copy"]);
    command.args(["-f", "framehash", "-hash", "md5", "-"]);
    let out =
        Process::start("ffmpeg", &mut command).finish(Duration::from_secs(60)).expect_success(url);
    let lines = out.stdout.iter().filter(|line| !line.starts_with('#'));
    // Behind the hash there may be one of how many samples of it are to be skipped.
    lines.filter_map(|line| line.split(',').nth(5)).map(|hash| hash.trim().to_owned()).collect()
}

fn decodes(url: &str) {
    let mut command = ffmpeg();
    command.args(["-xerror", "-i", url, "-f", "null", "-"]);
    let out = Process::start("ffmpeg", &mut command).finish(Duration::from_secs(60));
    let out = out.expect_success(url);
    assert!(out.stderr.is_empty(), "{url}: {:?}", out.stderr);
}

/// The places of video tags with keyframes in an FLV file.
fn keyframe_places(bytes: &[u8]) -> Vec<usize> {
    let (mut at, mut places) = (13, Vec::new());
    while at + 11 < bytes.len() {
        let len = u32::from_be_bytes([0, bytes[at + 1], bytes[at + 2], bytes[at + 3]]) as usize;
        if bytes[at] == 9 && bytes[at + 11] == 0x17 && bytes[at + 12] == 1 {
            places.push(at);
        }
        at += len + 15;
    }
    places
}

#[test]
fn recordings_from_the_midst() {
    let site = Site::new("vod");
    let flv = Media::AvcBFramesAac.file();
    let bytes = std::fs::read(&flv).expect("the medium");
    site.put("sub/a.flv", &bytes);
    let make = |name: &str, flags: &[&str]| {
        let mut command = ffmpeg();
        command.arg("-i").arg(&flv).args(["-c", "copy"]).args(flags).arg(site.root().join(name));
        Process::start("ffmpeg", &mut command)
            .finish(Duration::from_secs(30))
            .expect_success("ffmpeg makes an MP4");
    };
    make("sub/end.mp4", &[]);
    make("sub/begin.mp4", &["-movflags", "+faststart"]);
    make("sub/fragments.mp4", &["-movflags", "+frag_keyframe+empty_moov+default_base_moof"]);
    site.put("sub/bad.mp4", b"\0\0\0\x10ftypisom\0\0\0\0\0\0\0\x09moov!");
    site.put("sub/bad.flv", &pattern(100_000));
    let server = site.serve(&[]);
    let addr = server.http_addr();
    let url = |path: &str| server.http(path);

    // As it is, although the path is that of a live stream that nobody publishes.
    assert!(get(addr, "/sub/a.flv").body == bytes);
    let places = keyframe_places(&bytes);
    assert!(places.len() >= 5, "{places:?}");
    let all = [hashes(&url("/sub/a.flv"), "v:0"), hashes(&url("/sub/a.flv"), "a:0")];
    for place in [places[1], places[4]] {
        let path = format!("/sub/a.flv?start={place}");
        let answer = get(addr, &path);
        assert_eq!(answer.status, 200);
        assert!(answer.body.starts_with(b"FLV\x01\x05") && answer.body.ends_with(&bytes[place..]));
        assert!(first_packet(&url(&path), "v").1);
        let video = hashes(&url(&path), "v:0");
        assert!(video.len() > 20 && all[0].ends_with(&video), "{} frames", video.len());
        assert!(all[1].ends_with(&hashes(&url(&path), "a:0")));
        decodes(&url(&path));
    }
    let near = format!("/sub/a.flv?start={}", places[1] + 1);
    assert_eq!(get(addr, &near).status, 400);
    assert_eq!(get(addr, "/sub/bad.flv?start=5000").status, 400);
    assert_eq!(get(addr, "/sub/bad.mp4?start=1").status, 415);
    assert_eq!(get(addr, "/sub/bad.mp4").status, 200);

    for name in ["end", "begin"] {
        let whole = [format!("/sub/{name}.mp4"), format!("/sub/{name}.mp4?start=0")];
        let [mut video, mut audio] = [0, 0];
        for path in &whole {
            video = hashes(&url(path), "v:0").len();
            audio = hashes(&url(path), "a:0").len();
        }
        for (seconds, left) in [("1.5", 125), ("3.5", 75), ("4.99", 50)] {
            let path = format!("/sub/{name}.mp4?start={seconds}");
            let got = hashes(&url(&path), "v:0");
            assert_eq!(got.len(), left, "{path} of {video}");
            assert!(hashes(&url(&whole[0]), "v:0").ends_with(&got), "{path}");
            let sound = hashes(&url(&path), "a:0");
            assert!(hashes(&url(&whole[0]), "a:0").ends_with(&sound), "{path}");
            let expected = audio * left / video;
            assert!(sound.len().abs_diff(expected) <= 4, "{path}: {} {expected}", sound.len());
            let (time, key) = first_packet(&url(&path), "v");
            assert!(key && (-0.05..0.05).contains(&time), "{path}: {time}");
            let (time, _) = first_packet(&url(&path), "a");
            assert!((-0.05..0.05).contains(&time), "{path}: {time}");
            decodes(&url(&path));
        }
    }
    let path = "/sub/fragments.mp4?start=3.2";
    let (time, key) = first_packet(&url(path), "v");
    assert!(key && (2.9..3.2).contains(&time), "{time}");
    assert!(hashes(&url("/sub/fragments.mp4"), "v:0").ends_with(&hashes(&url(path), "v:0")));

    // Ranges, by header and as SRS has them, of the file and of what is made of it.
    let mp4 = std::fs::read(site.root().join("sub/begin.mp4")).expect("the file");
    for path in ["/sub/begin.mp4?range=100-199", "/sub/begin.mp4?bytes=100-199"] {
        let answer = get(addr, path);
        assert_eq!((answer.status, answer.body.len()), (206, 100), "{path}");
        assert!(answer.body == mp4[100..200]);
        let expected = format!("bytes 100-199/{}", mp4.len());
        assert_eq!(answer.header("content-range"), Some(expected.as_str()));
    }
    let made = get(addr, "/sub/begin.mp4?start=3").body;
    let part = ask(addr, "/sub/begin.mp4?start=3", "Range: bytes=10-99999");
    assert_eq!(part.status, 206);
    assert!(part.body == made[10..100_000]);
    server.stop();
}
