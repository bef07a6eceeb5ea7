//! The console and the player page in Chromium: what they show, what they do, and that names which
//! a publisher chose do nothing there.

mod common;

use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use common::browser::Browser;
use common::http;
use common::media::{self, Media};
use common::process::Process;
use common::server::Server;
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(30);

/// Publishes again and again until it is dropped; players tell the server where they come from.
fn publish(url: &str, page: &str) -> Process {
    let mut command = media::ffmpeg();
    command.args(["-re", "-stream_loop", "-1", "-i"]).arg(Media::AvcAac.file());
    command.args(["-c", "copy", "-f", "flv", "-rtmp_pageurl", page]).arg(url);
    Process::start("ffmpeg (publisher)", &mut command)
}

fn play(url: &str) -> Process {
    let mut command = media::ffmpeg();
    command.args(["-i", url, "-c", "copy", "-f", "null", "-"]);
    Process::start("ffmpeg (player)", &mut command)
}

fn open_console(browser: &Browser, server: &Server) {
    // The HTTP port does not have what the console needs and says who does.
    browser.open(&server.http("/console/"));
    let place = browser.run("return location.host");
    assert_eq!(place, server.api_addr().to_string(), "the console is at the API");
}

fn sees(browser: &Browser, text: &str) {
    let text_json = Value::from(text);
    let script = format!("return document.body.innerText.includes({text_json})");
    browser.wait_until(&format!("shows {text:?}"), &script, LIMIT);
}

fn clients(server: &Server) -> Vec<Value> {
    let answer = http::get(server.api_addr(), "/api/v1/clients/?count=100");
    answer["clients"].as_array().expect("a list").clone()
}

fn wait_for_clients(server: &Server, count: usize) {
    let deadline = Instant::now() + LIMIT;
    while clients(server).len() != count {
        assert!(Instant::now() < deadline, "{count} clients do not come about");
        thread::sleep(Duration::from_millis(50));
    }
}

fn quiet(browser: &Browser) {
    // A broken security policy, a missing file or an error of the page would be there.
    let log = browser.log();
    assert!(log.is_empty(), "the console of the browser has {log:?}");
}

#[test]
fn console_shows_streams_and_disconnects_a_player() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("console-recordings");
    let _ = std::fs::remove_dir_all(&folder);
    let path = format!("vhost.dvr.dvr_path={}/[stream].[timestamp].flv", folder.display());
    let server = Server::start(&["shards=2", &path]);
    let publisher = publish(&server.rtmp("live/cam"), "");
    server.wait_for_stream("live/cam");
    let mut rtmp = play(&server.rtmp("live/cam"));
    let mut flv = play(&server.flv("live/cam"));
    wait_for_clients(&server, 3);

    let browser = Browser::start(1280, 900);
    browser.prefer("light");
    open_console(&browser, &server);
    sees(&browser, "live/cam");
    sees(&browser, "H264 640×360");
    // Rates come with the second look, and those over 30 s after some seconds.
    let rates = "const values = [...document.querySelectorAll('.tile-value')];
        const cells = [...document.querySelectorAll('td.number')].map((cell) => cell.innerText);
        return cells.filter((text) => /[1-9].*bit/.test(text)).length >= 2
          && values.some((value) => /[1-9].*bit/.test(value.innerText))";
    browser.wait_until("rates", rates, LIMIT);
    browser.picture().save("console-light.png");
    let colour = || browser.run("return getComputedStyle(document.body).backgroundColor");
    let light = colour();
    browser.prefer("dark");
    assert_ne!(colour(), light, "dark looks the same");
    browser.picture().save("console-dark.png");
    // The switch goes from the system's choice to light.
    browser.click("button[aria-label^='Colours']");
    browser.wait_until(
        "light by the switch",
        &format!("return getComputedStyle(document.body).backgroundColor === {light}"),
        LIMIT,
    );

    // One stream: details, addresses, its clients.
    browser.click(".stream-name a");
    sees(&browser, "Kick publisher");
    sees(&browser, &server.rtmp("live/cam"));
    sees(&browser, &server.flv("live/cam"));
    sees(&browser, "Keyframe every");
    sees(&browser, "http-flv");
    browser.picture().save("console-stream.png");

    // Kick: first a question, which escape answers with no.
    browser.run("location.hash = '#/clients'");
    let field = "return !!document.querySelector('input[aria-label=\"Search this page\"]')";
    browser.wait_until("the list of clients", field, LIMIT);
    let button = "[...document.querySelectorAll('tbody tr')]
        .find((row) => row.innerText.includes('http-flv'))?.querySelector('button')";
    browser.wait_until("the player's row", &format!("return {button} !== undefined"), LIMIT);
    browser.run(&format!("{button}.click()"));
    sees(&browser, "Disconnect this player?");
    browser.click(".dialog-buttons button:first-child");
    browser.wait_until("no question", "return !document.querySelector('dialog')", LIMIT);
    assert_eq!(clients(&server).len(), 3);
    browser.run(&format!("{button}.click()"));
    browser.click(".dialog-buttons .danger");
    sees(&browser, "was disconnected");
    wait_for_clients(&server, 2);
    assert!(!clients(&server).iter().any(|client| client["type"] == "flv-play"));
    assert!(rtmp.is_running());
    let deadline = Instant::now() + LIMIT;
    while flv.is_running() {
        assert!(Instant::now() < deadline, "the player goes on");
        thread::sleep(Duration::from_millis(50));
    }
    browser.run("location.hash = '#/events'");
    sees(&browser, "stopped playing");
    sees(&browser, "kicked");
    // Recordings: begun and ended.
    browser.run("location.hash = '#/recordings'");
    sees(&browser, "not recorded");
    for (button, then) in [("Record", "is written"), ("Stop", "not recorded")] {
        let row = format!(
            "[...document.querySelectorAll('tbody button')].find((b) => b.innerText === '{button}')"
        );
        browser.wait_until(button, &format!("return {row} !== undefined"), LIMIT);
        browser.run(&format!("{row}.click()"));
        browser.click(".dialog-buttons .danger");
        sees(&browser, then);
        browser.picture().save(&format!("console-recordings-{}.png", button.to_lowercase()));
    }
    let files = std::fs::read_dir(&folder).expect("a folder of recordings").count();
    assert_eq!(files, 1);
    browser.run("location.hash = '#/server'");
    sees(&browser, "Shard");
    sees(&browser, "Media memory");
    // Not allowed by the configuration.
    let reload = "return [...document.querySelectorAll('button')]
        .find((button) => button.innerText.includes('Reload')).disabled";
    assert_eq!(browser.run(reload), true);
    quiet(&browser);
    drop((publisher, rtmp, flv));
    server.stop();
}

#[test]
fn console_fits_a_phone() {
    let server = Server::start(&["shards=1"]);
    let long = format!("live/{}", "x".repeat(60));
    let publisher = publish(&server.rtmp(&long), "");
    server.wait_for_stream(&long);
    let player = play(&server.rtmp(&long));
    wait_for_clients(&server, 2);
    let browser = Browser::start(800, 900);
    browser.phone(360, 740);
    open_console(&browser, &server);
    sees(&browser, "xxx");
    let fits = |what: &str| {
        thread::sleep(Duration::from_millis(300));
        let script = "const root = document.documentElement;
            return [root.scrollWidth, root.clientWidth]";
        let widths = browser.run(script);
        assert_eq!(widths[0], widths[1], "{what} is wider than the screen");
        assert_eq!(widths[1], 360);
    };
    fits("overview");
    browser.picture().save("console-phone.png");
    for view in ["streams", "clients", "events", "server"] {
        browser.run(&format!("location.hash = '#/{view}'"));
        browser.wait_until(view, "return document.querySelector('h1') !== null", LIMIT);
        fits(view);
    }
    browser.run("location.hash = '#/streams'");
    browser.wait_until("a row", "return document.querySelector('.stream-name a') !== null", LIMIT);
    browser.click(".stream-name a");
    sees(&browser, "Kick publisher");
    fits("one stream");
    browser.picture().save("console-phone-stream.png");

    browser.open(&server.http(&format!("/players/?stream={long}")));
    sees(&browser, "Live now");
    fits("player page");
    browser.picture().save("players-phone.png");
    drop((publisher, player));
    server.stop();
}

/// What a name may hold by the server's own rules is harmless; the console does not rely on them.
#[test]
fn hostile_names_are_text() {
    let server = Server::start(&["shards=1"]);
    let markup = "\"><img src=x onerror=window.hacked=1><script>window.hacked=1</script>";
    let publisher = publish(&server.rtmp("live/javascript:alert(1)"), markup);
    server.wait_for_stream("live/javascript:alert(1)");
    let browser = Browser::start(1280, 900);
    open_console(&browser, &server);
    sees(&browser, "live/javascript:alert(1)");
    // As if the server let anything through.
    browser.run(
        "const real = window.fetch;
         const name = '<img src=x onerror=window.hacked=1><script>window.hacked=1</script>';
         window.fetch = async (...all) => {
           const answer = await real(...all);
           if (!/streams|clients|alerts/.test(String(all[0]))) return answer;
           const body = await answer.json();
           for (const one of body.streams ?? body.clients ?? []) {
             one.url = one.name = one.app = one.ip = name;
             one.ringcast.video = one.ringcast.vhost_name = one.ringcast.protocol = name;
           }
           if (body.alerts) {
             body.alerts = [{ alert: name, stream: name, url: name, detail: name, since_ms: 1 }];
           }
           return new Response(JSON.stringify(body), { status: 200 });
         };",
    );
    sees(&browser, "<img src=x onerror=window.hacked=1>");
    browser.click(".stream-name a");
    sees(&browser, "Kick publisher");
    browser.run("location.hash = '#/clients'");
    sees(&browser, "publishes");
    let state = browser.run(
        "return [window.hacked === undefined, document.querySelectorAll('main img').length,
          [...document.querySelectorAll('a')].filter((a) => !/^https?:/.test(a.href)).length]",
    );
    assert_eq!(state, serde_json::json!([true, 0, 0]));
    quiet(&browser);
    drop(publisher);
    server.stop();
}

#[test]
fn console_asks_for_a_password() {
    let server = Server::start(&[
        "shards=1",
        "http_api.auth.enabled=true",
        "http_api.auth.username=admin",
        "http_api.auth.password=geheim, ü",
        "http_api.auth.token=tok.en",
        "http_api.raw_api.enabled=true",
        "http_api.raw_api.allow_reload=true",
    ]);
    let browser = Browser::start(1000, 800);
    open_console(&browser, &server);
    sees(&browser, "This server asks who uses its API.");
    browser.picture().save("console-sign-in.png");
    let fill = |fields: &[(&str, &str)]| {
        for (name, value) in fields {
            let (name, value) = (Value::from(*name), Value::from(*value));
            browser
                .run(&format!("document.querySelector(`input[name=${{{name}}}]`).value = {value}"));
        }
        browser.click("form button[type=submit]");
    };
    fill(&[("name", "admin"), ("password", "wrong")]);
    sees(&browser, "The server does not accept that.");
    fill(&[("name", "admin"), ("password", "geheim, ü")]);
    sees(&browser, "Nothing is live yet");
    browser.click("button[aria-label='Sign out']");
    sees(&browser, "This server asks who uses its API.");
    browser.click(".sign-in-buttons button:nth-child(2)");
    browser.wait_until(
        "a field for a token",
        "return document.querySelector('input[name=token]') !== null",
        LIMIT,
    );
    fill(&[("token", "tok.en")]);
    sees(&browser, "Nothing is live yet");
    // Whoever may, can have the configuration read anew.
    browser.run("location.hash = '#/server'");
    let button = "[...document.querySelectorAll('button')]
        .find((button) => button.innerText.includes('Reload'))";
    browser.wait_until("it is allowed", &format!("return {button}?.disabled === false"), LIMIT);
    browser.run(&format!("{button}.click()"));
    browser.click(".dialog-buttons .danger");
    sees(&browser, "The configuration was read anew.");
    server.stop();
}

#[test]
fn players_play_by_each_protocol() {
    let server = Server::start(&["shards=2"]);
    let publisher = publish(&server.rtmp("live/cam"), "");
    server.wait_for_stream("live/cam");
    let browser = Browser::start(1280, 950);
    browser.open(&server.http("/players/?stream=live/cam"));
    sees(&browser, "Playing by HTTP-FLV");
    let moves = |what: &str| {
        let script = "const video = document.querySelector('video');
            return video.currentTime > 1 && video.videoWidth === 640";
        browser.wait_until(what, script, LIMIT);
        thread::sleep(Duration::from_millis(500));
        let before = browser.picture_of("video");
        thread::sleep(Duration::from_millis(700));
        let after = browser.picture_of("video");
        assert!(before.lit() > 0.5 && before.changed(&after) > 0.002, "{what}: a still picture");
    };
    moves("HTTP-FLV");
    let figures = browser.run(
        "return Object.fromEntries([...document.querySelectorAll('.figures > div')].map((pair) =>
          [pair.firstChild.textContent, pair.lastChild.textContent]))",
    );
    assert_eq!(figures["Picture"], "640 × 360", "{figures}");
    for label in ["Behind live", "Received", "First picture after"] {
        assert!(figures[label].as_str().is_some_and(|text| text != "–"), "{label} in {figures}");
    }
    assert!(figures["Dropped pictures"].as_str().is_some_and(|t| t.contains('%')), "{figures}");
    browser.picture().save("players-light.png");
    browser.click("input[value=ws-flv]");
    sees(&browser, "Playing by WebSocket-FLV");
    moves("WebSocket-FLV");
    browser.click(".live-stream");
    sees(&browser, "Playing by WebSocket-FLV");
    quiet(&browser);

    // Pages of SRS, with its parameters, at both ports.
    let query = "app=live&stream=cam.flv&autostart=true&vhost=127.0.0.1";
    browser.open(&server.http(&format!("/players/srs_player.html?{query}")));
    sees(&browser, "Playing by HTTP-FLV");
    let api = format!("http://{}/players/srs_player.html?{query}", server.api_addr());
    browser.open(&api);
    sees(&browser, "Playing by HTTP-FLV");
    assert_eq!(browser.run("return location.host"), server.http_addr().to_string());

    // What no browser plays is said, not tried.
    browser.open(&server.http("/players/?url=rtmp://127.0.0.1/live/cam"));
    sees(&browser, "Browsers do not play RTMP");
    drop(publisher);
    server.stop();
}

#[test]
fn one_port_serves_everything() {
    let probe = Server::start(&[]);
    let http = probe.http_addr();
    // Its control thread runs, so it also hears the signal that stops it.
    http::get(probe.api_addr(), "/api/v1/versions");
    probe.stop();
    let (one, other) = (format!("http_server.listen={http}"), format!("http_api.listen={http}"));
    let server = Server::start(&["shards=1", &one, &other]);
    let publisher = publish(&server.rtmp("live/cam"), "");
    let browser = Browser::start(1000, 800);
    browser.open(&format!("http://{http}/console"));
    sees(&browser, "live/cam");
    assert_eq!(browser.run("return location.pathname"), "/console/");
    assert_eq!(browser.run("return location.host"), http.to_string());
    sees(&browser, "H264");
    browser.open(&format!("http://{http}/players/?stream=live/cam"));
    sees(&browser, "Playing by HTTP-FLV");
    quiet(&browser);
    drop(publisher);
    server.stop();
}

// -- ringcast top ---------------------------------------------------------------------------------

fn top(arguments: &[&str]) -> Process {
    let mut command = Command::new(common::server::binary());
    command.arg("top").args(arguments);
    for name in ["RINGCAST_API_USER", "RINGCAST_API_PASSWORD", "RINGCAST_API_TOKEN"] {
        command.env_remove(name);
    }
    Process::start("ringcast top", &mut command)
}

#[test]
fn top_prints_for_scripts() {
    let server = Server::start(&["shards=1", "http_api.auth.token=tok"]);
    let publisher = publish(&server.rtmp("live/cam"), "");
    server.wait_for_stream("live/cam");
    let player = play(&server.flv("live/cam"));
    let url = format!("http://{}", server.api_addr());

    // Who is asked and says nothing is told in one line.
    let refused = top(&["--url", &url, "--once"]).finish(LIMIT);
    assert_eq!(refused.status.code(), Some(1));
    assert_eq!((refused.stdout.len(), refused.stderr.len()), (0, 1), "{:?}", refused.stderr);
    assert!(refused.stderr[0].contains("--token"), "{:?}", refused.stderr);

    let deadline = Instant::now() + LIMIT;
    let all = loop {
        // Standard output is no terminal, so this ends by itself.
        let done = top(&["--url", &url, "--token", "tok"]).finish(LIMIT);
        assert!(done.status.success(), "{:?}", done.stderr);
        let all = done.stdout.join("\n");
        if all.contains("flv-play") && all.contains("H264 640x360") {
            break all;
        }
        assert!(Instant::now() < deadline, "top shows\n{all}");
        thread::sleep(Duration::from_millis(200));
    };
    for part in ["live/cam", "AAC", "fmle-publish", "streams 1, players 1, publishers 1"] {
        assert!(all.contains(part), "{part} is not in\n{all}");
    }

    let done = top(&["--url", &url, "--token", "tok", "--json"]).finish(LIMIT);
    let json: Value = serde_json::from_str(&done.stdout.join("\n")).expect("JSON");
    assert_eq!(json["streams"][0]["url"], "/live/cam");
    assert_eq!(json["clients"].as_array().map(Vec::len), Some(2));
    assert!(json["summaries"]["self"]["pid"].is_u64() && json["shards"].is_array());
    drop((publisher, player));
    server.stop();

    let gone = top(&["--url", &url, "--once"]).finish(LIMIT);
    assert_eq!(gone.status.code(), Some(1));
    assert_eq!(gone.stderr.len(), 1, "{:?}", gone.stderr);
    assert!(gone.stderr[0].contains("no server answers at http://127."), "{:?}", gone.stderr);
}

#[test]
fn top_draws_in_a_terminal_and_leaves_it_as_it_was() {
    let server = Server::start(&["shards=1"]);
    let publisher = publish(&server.rtmp("live/cam"), "");
    server.wait_for_stream("live/cam");
    // A terminal is what `script` gives; keys come one after the other from its input.
    let program = common::server::binary();
    let line = format!(
        "(sleep 2; printf '\\t'; sleep 1; printf 's?'; sleep 1; printf ' q'; sleep 2) | \
         script -qefc 'stty rows 30 cols 110; {} top --interval 1 --url http://{}' /dev/null",
        program.display(),
        server.api_addr()
    );
    let mut command = Command::new("sh");
    command.env("TERM", "xterm-256color").args(["-c", &line]);
    let done = Process::start("script", &mut command).finish(LIMIT);
    assert!(done.status.success(), "{:?} {:?}", done.status, done.stderr);
    let all = done.stdout.join("\n");
    for part in ["/live/cam", "PLAYERS", "fmle-publish", "Keys", "upside"] {
        assert!(all.contains(part), "{part} is not in {all:?}");
    }
    // The other screen was entered and left, and the cursor is back.
    for (enter, leave) in [("\u{1b}[?1049h", "\u{1b}[?1049l"), ("\u{1b}[?25l", "\u{1b}[?25h")] {
        let (enter, leave) = (all.rfind(enter), all.rfind(leave));
        assert!(enter.is_some() && leave > enter, "the terminal is not as it was: {all:?}");
    }
    drop(publisher);
    server.stop();
}
