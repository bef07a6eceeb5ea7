//! The player page plays H.264 and AV1 by every protocol that carries them, in Chromium, and how
//! late that is: the pictures say when they were sent.

mod common;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use common::browser::{Browser, Window};
use common::clocked::{Clocked, NUMBER, Publishing};
use common::server::Server;
use common::units::{AAC, Size, Source};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(20);

/// A way to play a stream.
struct Way {
    /// The page's name of the protocol.
    protocol: &'static str,
    scheme: &'static str,
    /// What follows the stream's name.
    ending: &'static str,
    /// The most that the median picture may be late, ms. Twice what is usual, because tests share
    /// their machine.
    late_max: u32,
}

const fn way(
    protocol: &'static str,
    scheme: &'static str,
    ending: &'static str,
    late_max: u32,
) -> Way {
    Way { protocol, scheme, ending, late_max }
}

/// Leads to the vhost with plain segments of MPEG-TS; the other has fragmented MP4 with parts.
const TS: &str = "?vhost=ts";
const H264: &[Way] = &[
    way("http-flv", "http", ".flv", 3_000),
    way("ws-flv", "ws", ".flv", 3_000),
    way("http-ts", "http", ".ts", 3_000),
    way("ws-ts", "ws", ".ts", 3_000),
    way("http-mp4", "http", ".mp4", 3_000),
    way("ws-mp4", "ws", ".mp4", 3_000),
    way("ll-hls", "http", ".m3u8", 2_000),
    way("hls", "http", ".m3u8?vhost=ts", 8_000),
    way("dash", "http", ".mpd", 12_000),
];
const AV1: &[Way] = &[
    way("http-flv", "http", ".flv", 3_000),
    way("ws-flv", "ws", ".flv", 3_000),
    way("http-mp4", "http", ".mp4", 3_000),
    way("ll-hls", "http", ".m3u8", 2_000),
    way("hls", "http", ".m3u8", 8_000),
    way("dash", "http", ".mpd", 12_000),
];

const ONLY_AAC: &[Way] = &[way("http-aac", "http", ".aac", 0)];
const ONLY_MP3: &[Way] = &[way("http-mp3", "http", ".mp3", 0)];
const OPUS: &[Way] = &[
    way("http-mp4", "http", ".mp4", 0),
    way("ll-hls", "http", ".m3u8", 0),
    way("dash", "http", ".mpd", 0),
];

/// What was seen of a player.
struct Player {
    way: &'static Way,
    window: Window,
    /// Ages of the pictures that were seen, ms.
    ages: Vec<u32>,
    first: Option<Seen>,
    last: Option<Seen>,
}

#[derive(Clone, Debug)]
struct Seen {
    at: Instant,
    time: f64,
    decoded: u64,
    dropped: u64,
    stalls: u64,
    behind: String,
}

/// A server and a browser that nothing plays beside.
struct Stage {
    server: Server,
    browser: Browser,
    _alone: MutexGuard<'static, ()>,
}

/// The server, a name for each player, and a browser that knows them. Browsers have six connections
/// to a host at most, and each player needs one or two. Two browsers at a time would drop pictures.
fn begin() -> Stage {
    static ALONE: Mutex<()> = Mutex::new(());
    // A test that failed has ended its browser.
    let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let server = Server::start(&[
        "shards=2",
        "vhost.hls.enabled=true",
        "vhost.hls.hls_use_fmp4=true",
        "vhost.hls.hls_fragment=1",
        "vhost.hls.hls_window=12",
        "vhost.hls.hls_part=0.2",
        "vhost.dash.enabled=true",
        "vhost.dash.dash_fragment=1",
        "vhost.\"ts\".hls.hls_use_fmp4=false",
        "vhost.\"ts\".hls.hls_part=0",
    ]);
    let rules = format!("--host-resolver-rules=MAP *.test {}", server.http_addr().ip());
    let more = [
        rules,
        // Windows behind others play on.
        "--disable-backgrounding-occluded-windows".to_owned(),
        "--disable-renderer-backgrounding".to_owned(),
        "--disable-background-timer-throttling".to_owned(),
        "--disable-background-media-suspend".to_owned(),
    ];
    Stage { server, browser: Browser::start_with(900, 700, &more), _alone: alone }
}

fn open(browser: &Browser, server: &Server, stream: &str, ways: &'static [Way]) -> Vec<Player> {
    let port = server.http_addr().port();
    let open = |(index, way): (usize, &'static Way)| {
        let window = browser.open_window();
        let host = format!("p{index}.test:{port}");
        let url = format!("{}://{host}/live/{stream}{}", way.scheme, way.ending);
        let url = url.replace('?', "%3F").replace('=', "%3D");
        browser.open(&format!("http://{host}/players/?protocol={}&url={url}", way.protocol));
        Player { way, window, ages: Vec::new(), first: None, last: None }
    };
    ways.iter().enumerate().map(open).collect()
}

/// Looks at a player. True when it plays.
fn look(browser: &Browser, player: &mut Player, publishing: &[Publishing; 2]) -> bool {
    browser.go_to(&player.window);
    let script = format!(
        "const video = document.querySelector('video');
         const quality = video.getVideoPlaybackQuality();
         const facts = Object.fromEntries([...document.querySelectorAll('.figures > div')].map(
           (pair) => [pair.firstChild.textContent, pair.lastChild.textContent]));
         const status = document.querySelector('#status');
         const plays = status.classList.contains('playing');
         return {{ number: plays ? {NUMBER} : null, text: status.innerText, plays,
           time: video.currentTime, decoded: quality.totalVideoFrames,
           dropped: quality.droppedVideoFrames, facts, hidden: document.hidden }}"
    );
    let seen = browser.run(&script);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis() as u64;
    let who = player.way.protocol;
    if seen["plays"] == false {
        assert!(player.first.is_none(), "{who} does not play any more: {seen}");
        return false;
    }
    // Just after it began there may be no picture yet.
    let Some(number) = seen["number"].as_u64() else {
        assert!(player.first.is_none(), "{who} shows something else: {seen}");
        return false;
    };
    let text = |label: &str| seen["facts"][label].as_str().unwrap_or_default().to_owned();
    let found = Seen {
        at: Instant::now(),
        time: seen["time"].as_f64().expect("a time"),
        decoded: seen["decoded"].as_u64().expect("a number"),
        dropped: seen["dropped"].as_u64().expect("a number"),
        stalls: text("Stalls").parse().unwrap_or(0),
        behind: text("Behind live"),
    };
    let publishing = &publishing[usize::from(player.way.ending.ends_with(TS))];
    player.ages.push(publishing.age_ms(number as u32, now));
    player.first.get_or_insert_with(|| found.clone());
    player.last = Some(found);
    true
}

/// Plays by all these ways at once, and looks at each for `span`.
fn play(
    browser: &Browser,
    server: &Server,
    codec: Clocked,
    ways: &'static [Way],
    span: Duration,
) -> Vec<String> {
    let stream = format!("{codec:?}").to_lowercase();
    let publishing = ["", TS].map(|query| {
        let url = server.rtmp(&format!("live/{stream}{query}"));
        codec.publish(&url)
    });
    // Segments and a GOP to begin with.
    thread::sleep(Duration::from_secs(3));
    let home = browser.window();
    let mut players = open(browser, server, &stream, ways);
    for player in &mut players {
        let deadline = Instant::now() + LIMIT;
        while !look(browser, player, &publishing) {
            let text = browser.run("return document.querySelector('#main').innerText");
            assert!(Instant::now() < deadline, "{codec:?} by {}: {text}", player.way.protocol);
            thread::sleep(Duration::from_millis(100));
        }
    }
    // What happens while the others begin is not looked at.
    players.iter_mut().for_each(|player| {
        player.ages.clear();
        player.first = None;
    });
    let end = Instant::now() + span;
    while Instant::now() < end {
        for player in &mut players {
            look(browser, player, &publishing);
        }
        thread::sleep(Duration::from_millis(100));
    }
    let lines = players.iter_mut().map(|player| judge(codec, player, ways.len() == 1)).collect();
    for player in &players {
        browser.go_to(&player.window);
        let mut log = browser.log();
        // mpegts.js prints what it finds in AV1.
        log.retain(|line| !line.contains("/page/mpegts.js"));
        browser.close_window();
        browser.go_to(&home);
        assert!(log.is_empty(), "{codec:?} by {}: the console has {log:?}", player.way.protocol);
    }
    lines
}

/// Fails when it did not play well; one line of a table otherwise.
fn judge(codec: Clocked, player: &mut Player, alone: bool) -> String {
    let who = format!("{codec:?} by {}", player.way.protocol);
    let first = player.first.clone().expect("looked at");
    let last = player.last.clone().expect("looked at");
    let seconds = (last.at - first.at).as_secs_f64();
    player.ages.sort_unstable();
    let at = |part: usize| player.ages[player.ages.len() * part / 100];
    let (median, most) = (at(50), at(99));
    let (stalls, dropped) = (last.stalls - first.stalls, last.dropped - first.dropped);
    let line = format!(
        "{:<6} {:<9} median {:>5} ms  p99 {:>5} ms  the page: {:<16} stalls {stalls}  \
         dropped {dropped} of {}",
        format!("{codec:?}"),
        player.way.protocol,
        median,
        most,
        last.behind,
        last.decoded - first.decoded,
    );
    println!("{line}");
    // Who is late plays up to 15 % faster.
    let played = last.time - first.time;
    assert!((0.9..1.2).contains(&(played / seconds)), "{who}: {played} s played in {seconds} s");
    let pictures = (last.decoded - first.decoded) as f64;
    assert!(pictures > seconds * 25.0 * 0.85, "{who}: {pictures} pictures in {seconds} s");
    assert!(median < player.way.late_max, "{line}");
    // dash.js plays to the end of its buffer now and then where nine players share two cores.
    let most = u64::from(!alone && player.way.protocol == "dash");
    assert!(stalls <= most, "{line}");
    line
}

#[test]
fn every_protocol_plays_h264_and_av1() {
    let Stage { server, browser, _alone } = begin();
    for (codec, ways) in [(Clocked::H264, H264), (Clocked::Av1, AV1)] {
        play(&browser, &server, codec, ways, Duration::from_secs(6));
    }
    drop(browser);
    server.stop();
}

/// For the table of latencies: each way alone, for a minute.
#[test]
#[ignore = "takes a quarter of an hour on a quiet machine"]
fn each_protocol_for_a_minute() {
    let Stage { server, browser, _alone } = begin();
    let mut lines = Vec::new();
    for (codec, ways) in [(Clocked::H264, H264), (Clocked::Av1, AV1)] {
        for index in 0..ways.len() {
            let one = &ways[index..=index];
            lines.extend(play(&browser, &server, codec, one, Duration::from_secs(60)));
        }
    }
    println!("\n{}", lines.join("\n"));
    drop(browser);
    server.stop();
}

/// Who stood still for longer than playing faster makes up for is where the playlist wants it soon.
#[test]
fn who_was_away_is_live_again() {
    let Stage { server, browser, _alone } = begin();
    let way: &'static [Way] = &H264[6..7];
    assert_eq!(way[0].protocol, "ll-hls");
    let publishing =
        ["", TS].map(|query| Clocked::H264.publish(&server.rtmp(&format!("live/h264{query}"))));
    server.wait_for_stream("live/h264");
    let mut players = open(&browser, &server, "h264", way);
    let player = &mut players[0];
    let deadline = Instant::now() + LIMIT;
    while !look(&browser, player, &publishing) {
        assert!(Instant::now() < deadline, "it does not begin");
        thread::sleep(Duration::from_millis(100));
    }
    browser.run("document.querySelector('video').pause()");
    thread::sleep(Duration::from_secs(6));
    browser.run("document.querySelector('video').play()");
    let deadline = Instant::now() + Duration::from_secs(12);
    loop {
        thread::sleep(Duration::from_millis(200));
        player.first = None;
        if look(&browser, player, &publishing)
            && player.ages.last().is_some_and(|age| *age < way[0].late_max)
        {
            break;
        }
        assert!(Instant::now() < deadline, "it stays behind: {:?}", player.ages);
    }
    drop(publishing);
    drop(browser);
    server.stop();
}

/// What else browsers decode: sound without pictures, and Opus beside AV1.
#[test]
fn sound_and_opus_play() {
    let Stage { server, browser, _alone } = begin();
    let size = Size { pixels: "320x180", seconds: 20 };
    let av1 = ["-c:v", "libaom-av1", "-usage", "realtime", "-cpu-used", "8", "-g", "25"];
    let all = [
        ("page-aac", Source::make_sized("page-aac", size, &[], AAC), ONLY_AAC),
        ("page-mp3", Source::make_sized("page-mp3", size, &[], &["-c:a", "libmp3lame"]), ONLY_MP3),
        ("page-opus", Source::make_sized("page-opus", size, &av1, &["-c:a", "libopus"]), OPUS),
    ];
    let url = |name: &str| server.rtmp(&format!("live/{name}"));
    let publishing = all.each_ref().map(|(name, source, _)| source.publish(&url(name)));
    for (name, _, ways) in &all {
        server.wait_for_stream(&format!("live/{name}"));
        for player in open(&browser, &server, name, ways) {
            browser.go_to(&player.window);
            let plays = "return document.querySelector('#status.playing') !== null \
                         && document.querySelector('video').currentTime";
            let from = browser.wait_until(player.way.protocol, plays, LIMIT);
            let on = from.as_f64().expect("a time") + 1.0;
            let plays_on = format!("return document.querySelector('video').currentTime > {on}");
            browser.wait_until(&format!("{name}: more"), &plays_on, Duration::from_secs(4));
            if ways.len() > 1 {
                let facts = browser.run("return document.querySelector('.figures').innerText");
                let facts = facts.as_str().unwrap_or_default().to_lowercase();
                assert!(facts.contains("opus") && facts.contains("av01"), "{facts}");
            }
            assert!(browser.log().is_empty(), "{name}: {:?}", browser.log());
        }
    }
    for publishing in publishing {
        publishing.join().expect("the publisher");
    }
    drop(browser);
    server.stop();
}

#[test]
fn troubles_are_said_in_one_line() {
    let Stage { server, browser, _alone } = begin();
    let publishing = Clocked::Av1.publish(&server.rtmp("live/av1"));
    server.wait_for_stream("live/av1");
    let says = |query: &str, text: &str| {
        browser.open(&server.http(&format!("/players/?{query}")));
        let wanted = Value::from(text);
        let script =
            format!("return document.querySelector('#status').innerText.includes({wanted})");
        browser.wait_until(text, &script, LIMIT);
        let height = browser.run("return document.querySelector('#status').innerText.length");
        assert!(height.as_u64().is_some_and(|length| length < 200), "{text}");
    };
    says("protocol=http-ts&stream=live/av1", "AV1 does not go with TS in browsers. Play it by");
    says(
        "protocol=hls&stream=live/none",
        "Nothing is served at this address (404). Is it published",
    );
    says("url=rtmp://127.0.0.1/live/av1", "Browsers do not play RTMP. Take VLC");
    says("url=http://127.0.0.1:1/live/a.m3u8", "No answer: the address is wrong");
    says("url=http://127.0.0.1/live/a.ogg", "The address does not say how to play it");
    // SRS: the ending says how to play it.
    browser.open(&server.http("/players/srs_player.html?app=live&stream=av1.m3u8&autostart=true"));
    browser.wait_until(
        "HLS by SRS's page",
        "return document.querySelector('#status').innerText === 'Playing by HLS'",
        LIMIT,
    );
    drop(publishing);
    drop(browser);
    server.stop();
}
