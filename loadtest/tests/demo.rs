//! `ringcast demo` and the index page, looked at in Chromium.

mod common;

use std::thread;
use std::time::Duration;

use common::browser::Browser;
use common::packets;
use common::server::Server;

/// The page picks the demo stream by itself and plays it: a picture that is lit, has the colours
/// of the test picture, and moves.
#[test]
fn index_page_plays_the_demo_stream() {
    let server = Server::demo(&[]);
    let browser = Browser::start(1280, 900);
    browser.open(&server.http("/"));
    watch(&browser, "HTTP-FLV", "index-page-http-flv");
    server.stop();
}

/// The same over WebSocket, by a link that names the stream.
#[test]
fn index_page_plays_by_websocket_from_a_link() {
    let server = Server::demo(&["shards=1"]);
    let browser = Browser::start(420, 800);
    browser.open(&server.http("/?stream=live/demo&protocol=ws&autoplay=1"));
    watch(&browser, "WebSocket-FLV", "index-page-websocket");
    server.stop();
}

fn watch(browser: &Browser, way: &str, name: &str) {
    let playing = format!(
        "return document.getElementById('status').textContent === 'playing by {way}' \
         && document.getElementById('cover').hidden"
    );
    browser.wait_until("playing", &playing, Duration::from_secs(30));
    // Let the start-up, with its jump to the live edge, pass.
    thread::sleep(Duration::from_secs(2));

    let time = || browser.run("return document.getElementById('video').currentTime");
    let (start, clock) = (time().as_f64().expect("a time"), std::time::Instant::now());
    let mut pictures = Vec::new();
    for _ in 0..4 {
        pictures.push(browser.picture_of("#video"));
        thread::sleep(Duration::from_millis(400));
    }
    let played = time().as_f64().expect("a time") - start;
    let passed = clock.elapsed().as_secs_f64();
    let page = browser.picture();
    page.save(&format!("{name}.png"));

    for (index, picture) in pictures.iter().enumerate() {
        picture.save(&format!("{name}-{index}.png"));
        assert!(picture.lit() > 0.6, "picture {index} is {:.3} lit", picture.lit());
        assert!(picture.colours() >= 5, "picture {index} has {} colours", picture.colours());
    }
    for (index, pair) in pictures.windows(2).enumerate() {
        let changed = pair[0].changed(&pair[1]);
        assert!(changed > 0.002, "{changed:.4} of picture {index} moved");
    }
    assert!(played > passed * 0.5, "{played:.1} s of the stream in {passed:.1} s");

    let listed = browser.run("return document.getElementById('streams').textContent");
    assert!(listed.as_str().expect("text").contains("live/demo"), "the list says {listed}");
    // A broken security policy or a missing file would be in the console.
    let log = browser.log();
    assert!(log.is_empty(), "the console has {log:?}");
}

/// The demo's clip starts again every 10.24 s, and no player can tell from its timestamps.
#[test]
fn the_demo_loop_has_no_gap() {
    let server = Server::demo(&["shards=2"]);
    server.wait_for_stream("live/demo");
    let url = server.flv("live/demo");
    // Longer than the clip, so that the loop point lies within wherever the list starts.
    let list = packets::list(&["-read_intervals", "%+12"], &url);
    let packets = packets::finish(list, Duration::from_secs(40));
    for (kind, step) in [("video", 40..=40), ("audio", 23..=24)] {
        let times: Vec<i64> =
            packets.iter().filter(|p| p.kind == kind).map(|p| p.dts.expect("dts")).collect();
        let span = times.last().expect("packets") - times[0];
        assert!(span >= 10_500, "{kind}: {span} ms do not hold the loop point");
        for pair in times.windows(2) {
            let gap = pair[1] - pair[0];
            assert!(step.contains(&gap), "{kind}: {gap} ms between {} and {}", pair[0], pair[1]);
        }
    }
    let video: Vec<_> = packets.iter().filter(|packet| packet.kind == "video").collect();
    assert!(video[0].key, "starts with {:?}", video[0]);
    let again = video.iter().skip(1).find(|packet| packet.hash == video[0].hash);
    let again = again.expect("the picture that came first comes again");
    assert_eq!(again.dts.expect("dts") - video[0].dts.expect("dts"), 10_240);
    server.stop();
}

/// The page's files are there, with the policy that keeps foreign scripts out.
#[test]
fn index_page_is_served_with_its_policy() {
    let server = Server::start(&["shards=1"]);
    let (head, body) = server.get("/");
    assert!(head.starts_with("HTTP/1.") && head.contains(" 200 "), "{head}");
    let lower = head.to_lowercase();
    assert!(lower.contains("content-type: text/html"), "{head}");
    assert!(lower.contains("content-security-policy: default-src 'none'"), "{head}");
    assert!(String::from_utf8_lossy(&body).contains("<video"));

    let (head, body) = server.get("/page/mpegts.js");
    assert!(head.contains(" 200 ") && body.len() > 200_000, "{head} and {} bytes", body.len());

    let (head, body) = server.get("/streams.json");
    assert!(head.contains(" 200 "), "{head}");
    let list: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
    assert_eq!(list["streams"], serde_json::json!([]));

    for missing in ["/nothing", "/live/nobody.webm", "/page/"] {
        let (head, _) = server.get(missing);
        assert!(head.contains(" 404 "), "{missing}: {head}");
    }
    // A path that climbs is no path at all.
    let (head, _) = server.get("/page/../Cargo.toml");
    assert!(head.contains(" 400 "), "{head}");
    server.stop();
}
