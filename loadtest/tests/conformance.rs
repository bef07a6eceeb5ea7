//! Minutes of live HLS, with segments of MPEG-TS and with parts of MP4 at once, and a publisher
//! that goes and comes back: every playlist keeps the rules of RFC 8216bis, every segment is whole,
//! and who waits for a part is answered when it is there.

mod common;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use common::http;
use common::server::Server;
use common::ts;
use common::units::{Size, Source};
use loadtest::client::{Received, RtmpPublisher};
use ringcast::proto::hls::check::{Checker, Playlist};

const SIZE: Size = Size { pixels: "192x108", seconds: 8 };
const SEGMENT: Duration = Duration::from_secs(2);
const CONFIG: &str = r#"
[vhost."ts.test".hls]
enabled = true
hls_fragment = 2
hls_window = 20
hls_ctx = false

[vhost."ll.test".hls]
enabled = true
hls_fragment = 2
hls_window = 20
hls_ctx = false
hls_use_fmp4 = true
hls_part = 0.25
"#;

fn source() -> Source {
    let video =
        ["-c:v", "libx264", "-preset", "ultrafast", "-bf", "2", "-g", "50", "-keyint_min", "50"];
    let audio = ["-c:a", "aac", "-b:a", "64k", "-ac", "2"];
    Source::make_sized("conformance", SIZE, &video, &audio)
}

/// Publishes the source over and over for so long.
fn publish(url: &str, source: &Source, lasts: Duration) {
    let (headers, frames) = source.messages();
    let mut publisher = RtmpPublisher::connect(url).expect("publish");
    for message in &headers {
        publisher.send(message.kind, message.timestamp, &message.payload).expect("send");
    }
    let round_ms = SIZE.seconds * 1_000;
    let rounds = (0..).flat_map(|n| {
        frames.iter().map(move |f| Received { timestamp: f.timestamp + n * round_ms, ..f.clone() })
    });
    let begin = Instant::now();
    let first = frames[0].timestamp;
    for message in rounds {
        let at = Duration::from_millis(u64::from(message.timestamp - first));
        if at >= lasts {
            return;
        }
        thread::sleep((begin + at).saturating_duration_since(Instant::now()));
        publisher.send(message.kind, message.timestamp, &message.payload).expect("send");
    }
}

/// What a player saw.
#[derive(Default)]
struct Seen {
    violations: Vec<String>,
    checker: Checker,
    /// Segments, by number, with a flag for those behind a discontinuity.
    segments: BTreeMap<u64, (bool, Vec<u8>)>,
    parts: usize,
    /// Blocking reloads: how long they were held, and how old the newest part was at their end.
    held: Vec<f64>,
    late: Vec<f64>,
}

impl Seen {
    fn take(&mut self, now: f64, published: bool, text: &str) -> Option<Playlist> {
        match self.checker.load(now, published, text) {
            Ok(list) => Some(list),
            Err(why) => {
                self.violations.push(format!("at {now:.1} s: {why}"));
                Playlist::parse(text).ok()
            }
        }
    }

    fn load(&mut self, addr: SocketAddr, list: &Playlist) {
        for segment in &list.segments {
            if self.segments.contains_key(&segment.number) {
                continue;
            }
            let answer = get(addr, &format!("/live/{}", segment.uri));
            if answer.status != 200 || answer.body.is_empty() {
                self.violations.push(format!("{}: status {}", segment.uri, answer.status));
            }
            self.segments.insert(segment.number, (segment.discontinuity, answer.body));
        }
    }

    fn discontinuities(&self) -> usize {
        self.checker.segments().values().filter(|segment| segment.discontinuity).count()
    }
}

fn get(addr: SocketAddr, path: &str) -> http::Answer {
    http::request(addr, "GET", path, &[])
}

/// Milliseconds of the day.
fn time_of_day() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    (now.as_millis() % 86_400_000) as i64
}

/// The same of a date such as `2026-11-22T10:11:12.345Z`.
fn time_of(date: &str) -> Option<i64> {
    let (_, time) = date.split_once('T')?;
    let time: Vec<f64> =
        time.get(..12)?.split(':').map(|n| n.parse().ok()).collect::<Option<_>>()?;
    let [hours, minutes, seconds] = time[..] else { return None };
    Some((((hours * 60.0 + minutes) * 60.0 + seconds) * 1000.0).round() as i64)
}

/// A player that asks again and again.
fn play_segments(addr: SocketAddr, published: &AtomicBool, over: &AtomicBool) -> Seen {
    let mut seen = Seen::default();
    let begin = Instant::now();
    let path = "/live/s.m3u8?vhost=ts.test";
    while !over.load(Ordering::Acquire) {
        let is_published = published.load(Ordering::Acquire);
        let answer = get(addr, path);
        if answer.status == 200
            && let Some(list) =
                seen.take(begin.elapsed().as_secs_f64(), is_published, &answer.text())
        {
            seen.load(addr, &list);
        } else if answer.status != 404 || begin.elapsed() > Duration::from_secs(8) {
            seen.violations.push(format!("the playlist: status {}", answer.status));
        }
        thread::sleep(Duration::from_millis(300));
    }
    seen
}

/// A player that waits for each part.
fn play_parts(addr: SocketAddr, published: &AtomicBool, over: &AtomicBool) -> Seen {
    let mut seen = Seen::default();
    let begin = Instant::now();
    let path = "/live/s.m3u8?vhost=ll.test";
    let mut known: Option<Playlist> = None;
    let mut pieces: BTreeMap<(u64, usize), Vec<u8>> = BTreeMap::new();
    let mut asked = 0u32;
    while !over.load(Ordering::Acquire) {
        let is_published = published.load(Ordering::Acquire);
        let mut query = String::new();
        let mut next = None;
        if let Some(list) = known.as_ref().filter(|_| is_published) {
            let (number, part) = (list.open.number, list.open.parts.len());
            query = format!("&_HLS_msn={number}&_HLS_part={part}");
            // What has not changed may be left out.
            if asked.is_multiple_of(3) {
                query += "&_HLS_skip=YES";
            }
            next = Some((number, part));
        }
        asked += 1;
        let hint = known.as_ref().and_then(|list| list.hint.clone()).filter(|_| next.is_some());
        let start = Instant::now();
        let (answer, hinted) = thread::scope(|scope| {
            let hinted = hint.map(|uri| scope.spawn(move || get(addr, &format!("/live/{uri}"))));
            let answer = get(addr, &format!("{path}{query}"));
            (answer, hinted.map(|hinted| hinted.join().expect("an answer")))
        });
        // Whoever waits while the publisher goes is sent away.
        let away = !is_published || !published.load(Ordering::Acquire);
        if answer.status != 200 {
            let fine = away || (answer.status == 404 && begin.elapsed() < Duration::from_secs(8));
            if !fine && answer.status != 503 {
                seen.violations.push(format!("{query}: status {}", answer.status));
            }
            known = None;
            thread::sleep(Duration::from_millis(200));
            continue;
        }
        let now = begin.elapsed().as_secs_f64();
        let Some(list) = seen.take(now, !away, &answer.text()) else { continue };
        if let Some((number, part)) = next {
            seen.held.push(start.elapsed().as_secs_f64() * 1000.0);
            if (list.open.number, list.open.parts.len()) <= (number, part) && !away {
                seen.violations.push(format!("asked for {number}.{part}: not there"));
            }
            let newest = match list.open.parts.is_empty() {
                true => list.segments.last(),
                false => Some(&list.open),
            };
            if let Some(at) = newest.and_then(|s| time_of(s.date.as_deref()?)) {
                let parts = &newest.expect("a segment").parts;
                let lasts: f64 = parts.iter().map(|part| part.1).sum();
                let age = (time_of_day() - at).rem_euclid(86_400_000) as f64 - lasts * 1000.0;
                seen.late.push(age);
            }
            if let Some(hinted) = hinted.filter(|_| !away) {
                match hinted.status {
                    200 => _ = pieces.insert((number, part), hinted.body),
                    status => seen.violations.push(format!("hint {number}.{part}: {status}")),
                }
            }
        }
        let skipped = list.skipped;
        seen.load(addr, &list);
        for segment in list.segments.iter().filter(|s| !s.parts.is_empty()) {
            let all = (0..segment.parts.len()).map(|n| pieces.remove(&(segment.number, n)));
            let Some(all) = all.collect::<Option<Vec<_>>>() else { continue };
            seen.parts += all.len();
            let whole = seen.segments.get(&segment.number).map(|(_, bytes)| bytes);
            if whole != Some(&all.concat()) {
                seen.violations.push(format!("{} is not its parts", segment.number));
            }
        }
        if skipped == 0 || known.is_some() {
            known = Some(list);
        }
        if next.is_none() && !is_published {
            thread::sleep(Duration::from_millis(100));
        }
    }
    seen
}

fn percentile(values: &mut [f64], percent: usize) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get((values.len().saturating_sub(1)) * percent / 100).copied().unwrap_or(f64::NAN)
}

/// Live for so long, with a pause of the publisher in the middle.
fn conform(lasts: Duration) {
    let source = source();
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!(
        "conformance-{}-{}.toml",
        std::process::id(),
        lasts.as_secs()
    ));
    std::fs::write(&file, CONFIG).expect("a configuration");
    let server = Server::start_with_file(&file, &["shards=2", "vhost.publish.hold=10"]);
    let addr = server.http_addr();
    let (published, over) = (AtomicBool::new(true), AtomicBool::new(false));
    let pause = Duration::from_secs(2);
    let urls = ["ts.test", "ll.test"].map(|v| server.rtmp(&format!("live/s?vhost={v}")));
    let (segments, parts) = thread::scope(|scope| {
        let players = (
            scope.spawn(|| play_segments(addr, &published, &over)),
            scope.spawn(|| play_parts(addr, &published, &over)),
        );
        for round in 0..2 {
            thread::scope(|scope| {
                for url in &urls {
                    scope.spawn(|| publish(url, &source, lasts / 2 - pause / 2));
                }
                // Nothing is owed before the first segment of the new publisher is complete.
                thread::sleep(if round == 0 { Duration::ZERO } else { SEGMENT * 5 / 4 });
                published.store(true, Ordering::Release);
            });
            published.store(false, Ordering::Release);
            thread::sleep(if round == 0 { pause } else { Duration::ZERO });
        }
        thread::sleep(Duration::from_secs(1));
        over.store(true, Ordering::Release);
        (players.0.join().expect("a player"), players.1.join().expect("a player"))
    });
    let _ = std::fs::remove_file(file);
    let mut wrong = Vec::new();
    for (name, mut seen) in [("TS", segments), ("LL", parts)] {
        let numbers: Vec<u64> = seen.segments.keys().copied().collect();
        let gaps = numbers.windows(2).filter(|two| two[1] != two[0] + 1).count();
        println!(
            "{name}: {} playlists, {} segments ({gaps} numbers missing), {} parts, \
             {} discontinuities, {} violations",
            seen.checker.loads,
            numbers.len(),
            seen.parts,
            seen.discontinuities(),
            seen.violations.len()
        );
        if !seen.held.is_empty() {
            let (held, late) = (&mut seen.held, &mut seen.late);
            println!(
                "{name}: {} blocking reloads, held p50 {:.0} p99 {:.0} max {:.0} ms; newest part's \
                 end is p50 {:.0} p99 {:.0} max {:.0} ms ago",
                held.len(),
                percentile(held, 50),
                percentile(held, 99),
                percentile(held, 100),
                percentile(late, 50),
                percentile(late, 99),
                percentile(late, 100)
            );
        }
        wrong.extend(seen.violations.iter().map(|why| format!("{name}: {why}")));
        if gaps > 0 || seen.discontinuities() != 1 {
            wrong.push(format!("{name}: {gaps} gaps, {} discontinuities", seen.discontinuities()));
        }
        let expected = lasts.as_secs() as usize / 2;
        if numbers.len() + 3 < expected {
            wrong.push(format!("{name}: {} segments", numbers.len()));
        }
        if name == "TS" {
            // What lies behind a discontinuity is a stream of its own.
            let (mut runs, mut bytes) = (Vec::new(), Vec::new());
            for (discontinuity, segment) in seen.segments.into_values() {
                wrong.extend(ts::check(&segment).err().map(|why| format!("a segment: {why}")));
                if discontinuity {
                    runs.push(std::mem::take(&mut bytes));
                }
                bytes.extend_from_slice(&segment);
            }
            runs.push(bytes);
            for run in runs {
                match ts::check(&run) {
                    Ok(facts) => println!(
                        "TS: {} keyframes, clock every {} ms at least, tables every {} ms",
                        facts.starts,
                        facts.clock_gap / 90,
                        facts.table_gap / 90
                    ),
                    Err(why) => wrong.push(format!("a run of segments: {why}")),
                }
            }
        } else if seen.parts * 4 < lasts.as_secs() as usize * 8 {
            wrong.push(format!("LL: {} parts", seen.parts));
        }
    }
    let first = &wrong[..wrong.len().min(20)];
    assert!(wrong.is_empty(), "{} are wrong:\n{}", wrong.len(), first.join("\n"));
    server.stop();
}

#[test]
fn live_for_twenty_seconds() {
    conform(Duration::from_secs(20));
}

/// Run by hand: `cargo test -p loadtest --test conformance -- --ignored --nocapture`.
#[test]
#[ignore = "takes ten minutes"]
fn live_for_ten_minutes() {
    conform(Duration::from_secs(600));
}
