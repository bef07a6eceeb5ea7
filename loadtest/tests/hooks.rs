//! Hooks, address rules, tokens and limits against the real binary, with a real HTTP server that
//! answers, hangs, fails, is slow, sends too much and redirects. What is refused is refused
//! visibly, and other streams notice nothing: their frames are compared.

mod common;

use std::io::Write;
use std::net::IpAddr;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use common::admission::*;
use common::hook_server::{Behaviour, HookRequest, HookServer};
use common::server::Server;
use loadtest::client::{ClientError, FlvPlayer, Received, RtmpPlayer, RtmpPublisher};
use ringcast::config::Action;
use ringcast::media::Kind;
use ringcast::media::name::{DEFAULT_VHOST, StreamName};
use ringcast::proto::rtmp::chunk::write_message;
use ringcast::session::admission::sign;
use serde_json::{Value, json};

/// Each hook's body, field by field, in order, for RTMP and HTTP clients.
#[test]
fn each_hook_has_the_fields_of_srs() {
    let hooks = HookServer::start(|_| Behaviour::ok());
    let server = start(&hook_settings(&hooks, ALL_HOOKS), &["vhost.publish.hold=0"]);
    let publisher = publish(&(server.rtmp("live/fields") + "?token=a/b&x=%20"), 30);
    let mut player = RtmpPlayer::connect(&(server.rtmp("live/fields") + "?p=1")).expect("play");
    player.frames(3).expect("frames");
    let flv = server.flv("live/fields") + "?q=2";
    let mut http = FlvPlayer::connect(&flv).expect("play");
    http.frames(3).expect("frames");
    drop((player, http));
    hooks.wait_for(2, LONG, |r| r.text_of("action") == "on_stop");
    drop(publisher);
    let all = hooks.wait_for(10, LONG, |_| true);

    let common = ["server_id", "service_id", "action", "client_id", "ip", "vhost", "app"];
    let rest: &[(&str, &[&str])] = &[
        ("on_connect", &["stream", "param", "tcUrl", "pageUrl"]),
        ("on_close", &["send_bytes", "recv_bytes"]),
        ("on_publish", &["tcUrl", "stream", "param", "stream_url", "stream_id"]),
        ("on_unpublish", &["tcUrl", "stream", "param", "stream_url", "stream_id"]),
        ("on_play", &["stream", "tcUrl", "param", "pageUrl", "stream_url", "stream_id"]),
        ("on_stop", &["tcUrl", "stream", "param", "stream_url", "stream_id"]),
    ];
    let versions: Value =
        serde_json::from_slice(&server.get("/api/v1/versions").1).expect("versions");
    for request in &all {
        let action = request.text_of("action").to_owned();
        let own = rest.iter().find(|(name, _)| *name == action).expect("a known action").1;
        let wanted: Vec<&str> = common.iter().chain(own).copied().collect();
        assert_eq!(request.fields(), wanted, "{action}");
        assert_eq!(request.method, "POST");
        assert_eq!(request.path, action.replace("on_", "/"));
        let header = |name: &str| {
            let found = request.headers.iter().find(|(n, _)| n == name);
            found.map(|(_, value)| value.as_str()).unwrap_or_default()
        };
        assert!(header("content-type").starts_with("application/json"), "{:?}", request.headers);
        assert!(header("user-agent").starts_with("ringcast/"), "{:?}", request.headers);
        for field in wanted {
            match field {
                "send_bytes" | "recv_bytes" => {
                    assert!(request.body[field].as_u64().is_some_and(|n| n > 3000), "{request:?}");
                }
                _ => assert!(request.body[field].is_string(), "{action}: {field}"),
            }
        }
        assert_eq!(request.body["server_id"], versions["server"], "{action}");
        assert_eq!(request.body["service_id"], versions["service"], "{action}");
        assert_eq!(request.text_of("client_id").len(), 8);
        assert_eq!(request.text_of("ip"), "127.0.0.1");
        assert_eq!(request.text_of("vhost"), DEFAULT_VHOST);
        assert_eq!(request.text_of("app"), "live");
        if action != "on_close" {
            assert_eq!(request.text_of("stream"), "fields");
        }
        if !["on_close", "on_connect"].contains(&action.as_str()) {
            assert_eq!(request.text_of("stream_url"), "/live/fields");
            let id = request.text_of("stream_id");
            assert!(id.starts_with("vid-") && id.len() == 11, "{id}");
            assert_eq!(
                id,
                all.iter()
                    .find(|r| r.body["stream_id"].is_string())
                    .expect("one")
                    .text_of("stream_id"),
                "one stream, one id"
            );
        }
    }
    let of = |action: &str, param: &str| {
        let fits = |r: &&HookRequest| r.text_of("action") == action && r.text_of("param") == param;
        let found: Vec<_> = all.iter().filter(fits).collect();
        assert_eq!(found.len(), 1, "{action} {param}");
        found[0]
    };
    let rtmp = format!("rtmp://{}/live", server.rtmp_addr());
    for action in ["on_connect", "on_publish", "on_unpublish"] {
        assert_eq!(of(action, "?token=a/b&x=%20").text_of("tcUrl"), rtmp);
    }
    for action in ["on_connect", "on_play", "on_stop"] {
        assert_eq!(of(action, "?p=1").text_of("tcUrl"), rtmp);
    }
    for action in ["on_play", "on_stop"] {
        let tc_url = format!("http://{}/live", server.http_addr());
        assert_eq!(of(action, "?q=2").text_of("tcUrl"), tc_url);
    }
    assert!(
        all.iter().all(|r| r.text_of("action") != "on_connect" || r.text_of("param") != "?q=2")
    );
    // Each client's hooks come in their order.
    let client = of("on_publish", "?token=a/b&x=%20").text_of("client_id").to_owned();
    let order: Vec<_> = all
        .iter()
        .filter(|r| r.text_of("client_id") == client)
        .map(|r| r.text_of("action").to_owned())
        .collect();
    assert_eq!(order, ["on_connect", "on_publish", "on_unpublish", "on_close"]);
    server.stop();
}

/// Row 39: the hook server hangs, drips, fails, sends 100 MB, redirects, closes. The clients it is
/// asked about are refused; others do not notice.
#[test]
fn bad_hook_servers_cost_their_own_clients_only() {
    let rule = |request: &HookRequest| {
        let stream = request.text_of("stream").to_owned();
        match stream.split('-').next().unwrap_or_default() {
            "hang" => Behaviour::Hang,
            "drip" => Behaviour::Drip,
            "fail" => Behaviour::Answer(500, "0".into()),
            "big" => Behaviour::Big(100 << 20),
            "redirect" => Behaviour::Redirect("http://169.254.169.254/latest/meta-data/".into()),
            "away" => Behaviour::Redirect(format!(
                "http://{}/play",
                request.headers.iter().find(|(name, _)| name == "host").expect("a host").1
            )),
            "close" => Behaviour::Close,
            "no" => Behaviour::Answer(200, "{\"code\":7}".into()),
            "text" => Behaviour::Answer(200, "ok".into()),
            "empty" => Behaviour::Answer(200, String::new()),
            "forbidden" => Behaviour::Answer(403, "0".into()),
            "created" => Behaviour::Answer(201, "0".into()),
            _ => Behaviour::ok(),
        }
    };
    let hooks = HookServer::start(rule);
    let settings = hook_settings(&hooks, &["on_publish", "on_play", "on_stop"]);
    let mut server = start(&settings, &["vhost.http_hooks.timeout=2"]);
    let canary = canary(&server, 16.0);
    let bad = [
        ("hang", "hook_timeout", 503),
        ("drip", "hook_timeout", 503),
        ("fail", "hook_failed", 503),
        ("big", "hook_failed", 503),
        ("redirect", "hook_failed", 503),
        ("away", "hook_failed", 503),
        ("close", "hook_failed", 503),
        ("no", "hook_refused", 403),
        ("text", "hook_refused", 403),
        ("empty", "hook_refused", 403),
        ("forbidden", "hook_refused", 403),
    ];
    // The log tells the first failure of a kind and counts the others, so this one comes alone.
    assert_eq!(http_status(&server, "/live/redirect-0.flv", "").0, 503);
    let began = Instant::now();
    thread::scope(|scope| {
        for (kind, _, status) in bad {
            let server = &server;
            scope.spawn(move || {
                let name = format!("live/{kind}-1");
                let publisher = RtmpPublisher::connect(&server.rtmp(&name));
                assert!(was_closed(&publisher), "{kind}: {publisher:?}");
            });
            scope.spawn(move || {
                let player = RtmpPlayer::connect(&server.rtmp(&format!("live/{kind}-2")));
                assert!(was_closed(&player), "{kind}: {player:?}");
            });
            for more in ["", UPGRADE] {
                scope.spawn(move || {
                    let path = format!("/live/{kind}-3.flv");
                    let (got, after) = http_status(server, &path, more);
                    assert_eq!(got, status, "{kind}");
                    assert!(after < Duration::from_secs(6), "{kind}: after {after:?}");
                });
            }
        }
        // A crowd that waits for a hook that hangs.
        for n in 0..100 {
            let server = &server;
            scope.spawn(move || {
                let path = format!("/live/hang-{n}.flv");
                assert_eq!(http_status(server, &path, "").0, 503);
            });
        }
    });
    assert!(began.elapsed() < Duration::from_secs(12), "{:?}", began.elapsed());
    // Status 201 and a bare 0 let a client in.
    let _publisher = publish(&server.rtmp("live/created-1"), 30);
    let mut player = RtmpPlayer::connect(&server.rtmp("live/created-1")).expect("play");
    player.frames(3).expect("frames");
    wait_for_count(&mut server, "hook_timeout", 2 * 4 + 100);
    wait_for_count(&mut server, "hook_failed", 5 * 4 + 1);
    wait_for_count(&mut server, "hook_refused", 4 * 4);
    // The redirects were not followed: nothing asked a second time, and the log says why.
    let asked = hooks.requests();
    let away = asked.iter().filter(|r| r.text_of("stream").starts_with("away-")).count();
    assert_eq!(away, 4);
    let lines = server.process_mut().lines();
    let of = |text: &str| lines.iter().filter(|line| line.contains(text)).count();
    assert!(of("redirects are not followed") >= 1);
    assert!(of("WARN") < 60, "the log is not flooded");
    assert_eq!(count(&mut server, "bug"), 0);
    assert_canary_noticed_nothing(canary);
    server.stop();
}

/// Targets that are never called, whatever the configuration says, and hosts that do not resolve.
#[test]
fn forbidden_and_unknown_targets_refuse() {
    for (target, why) in [
        ("http://169.254.169.254/latest/", "never called"),
        ("http://0xa9fea9fe/", "never called"),
        ("http://[::ffff:169.254.169.254]/", "never called"),
        ("http://[fe80::1]/", "never called"),
        ("http://host.that.does.not.exist.invalid/", "on_publish"),
        // Nobody listens there.
        ("http://127.0.0.1:9/", "on_publish"),
        ("https://127.0.0.1:9/", "on_publish"),
    ] {
        let hook = format!("vhost.http_hooks.on_publish={target}");
        let all = [
            "shards=1",
            "summary_interval=1",
            "vhost.http_hooks.enabled=true",
            "vhost.http_hooks.timeout=3",
            &hook,
        ];
        let mut server = serve(&all);
        let publisher = RtmpPublisher::connect(&server.rtmp("live/x"));
        assert!(was_closed(&publisher), "{target}");
        let line = server.process_mut().wait_for_line(why, LONG);
        line.unwrap_or_else(|error| panic!("{target}: {error}"));
        server.stop();
    }
    // Fail-open is there for who wants it.
    let all = [
        "shards=1",
        "summary_interval=1",
        "vhost.http_hooks.enabled=true",
        "vhost.http_hooks.on_publish=http://127.0.0.1:9/",
        "vhost.http_hooks.accept_on_failure=true",
    ];
    let mut server = serve(&all);
    let publisher = RtmpPublisher::connect(&server.rtmp("live/x")).expect("publish");
    wait_for_count(&mut server, "hook_accepted", 1);
    drop(publisher);
    server.stop();
}

/// The first message about media that comes within a time. What the server itself says when a play
/// begins is none.
fn media_within(player: &mut RtmpPlayer, limit: Duration) -> Option<Received> {
    let until = Instant::now() + limit;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        match player.next_message_within(left.max(Duration::from_millis(1))) {
            Ok(message) if message.payload[3..].starts_with(b"|RtmpSampleAccess") => {}
            Ok(message) => return Some(message),
            Err(ClientError::Timeout(_)) => return None,
            Err(why) => panic!("{why}"),
        }
    }
}

/// The pictures up to this one. A player that waited begins with the newest keyframe there is when
/// its shard looks; from there on none may be missing.
fn frames_until(player: &mut RtmpPlayer, last: u32) -> Vec<Received> {
    let mut frames = player.frames(1).expect("a frame");
    while number_of(&frames[frames.len() - 1]) < last {
        frames.extend(player.frames(1).expect("the next frame"));
    }
    assert!(frames[0].is_keyframe(), "it begins with picture {}", number_of(&frames[0]));
    for pair in frames.windows(2) {
        assert_eq!(number_of(&pair[1]), number_of(&pair[0]) + 1, "a picture is missing");
    }
    frames
}

/// While on_publish is undecided nothing of the stream is delivered; then all of it is. While
/// on_play is undecided the player gets nothing.
#[test]
fn nothing_is_delivered_before_it_is_decided() {
    let pause = Duration::from_secs(3);
    let hooks = HookServer::start(move |request| {
        let (action, stream) = (request.text_of("action"), request.text_of("stream"));
        match (action, stream) {
            ("on_publish", "late" | "never") => {
                Behaviour::After(pause, if stream == "late" { "0".into() } else { "1".into() })
            }
            ("on_play", _) if request.text_of("param").contains("slow") => {
                Behaviour::After(pause, "0".into())
            }
            _ => Behaviour::ok(),
        }
    });
    let server = start(&hook_settings(&hooks, &["on_publish", "on_play"]), &[]);
    let canary = canary(&server, 14.0);
    for stream in ["late", "never"] {
        let name = format!("live/{stream}");
        let mut player = RtmpPlayer::connect(&server.rtmp(&name)).expect("play");
        let asked = Instant::now();
        let mut socket = impatient(&server, stream);
        let mut bytes = Vec::new();
        write_message(&mut bytes, 60_000, 6, 9, 0, 1, &avc_header());
        for number in 0..40 {
            write_message(&mut bytes, 60_000, 6, 9, number * 40, 1, &picture(number, 5_000));
        }
        socket.write_all(&bytes).expect("send");
        let early = media_within(&mut player, Duration::from_millis(1500));
        assert!(early.is_none(), "{stream}: {early:?}");
        if stream == "never" {
            let nothing = media_within(&mut player, Duration::from_secs(4));
            assert!(nothing.is_none(), "{nothing:?}");
            continue;
        }
        let frames = frames_until(&mut player, 39);
        assert!(asked.elapsed() >= pause, "delivered before it was decided");
        assert!(frames.iter().all(|f| f.payload == picture(number_of(f), 5_000)));
    }
    let _publisher = publish(&server.rtmp("live/waited"), 60);
    let began = Instant::now();
    let slow = server.rtmp("live/waited") + "?slow=1";
    let mut rtmp = RtmpPlayer::connect(&slow).expect("play");
    assert!(began.elapsed() >= pause - Duration::from_millis(200), "RTMP: {:?}", began.elapsed());
    rtmp.frames(5).expect("frames");
    let began = Instant::now();
    let slow = server.flv("live/waited") + "?slow=1";
    let mut flv = FlvPlayer::connect(&slow).expect("play");
    assert!(began.elapsed() >= pause - Duration::from_millis(200), "FLV: {:?}", began.elapsed());
    flv.frames(5).expect("frames");
    assert_canary_noticed_nothing(canary);
    server.stop();
}

/// A publisher that floods while it waits is not read any more, and loses nothing; one that leaves
/// is not begun.
#[test]
fn who_waits_is_bounded_and_may_leave() {
    let hooks = HookServer::start(|request| match request.text_of("action") {
        "on_publish" => Behaviour::After(Duration::from_secs(3), "0".into()),
        _ => Behaviour::ok(),
    });
    let mut server = start(&hook_settings(&hooks, &["on_publish", "on_unpublish"]), &[]);
    let mut socket = impatient(&server, "flood");
    let mut player = RtmpPlayer::connect(&server.rtmp("live/flood")).expect("play");
    let sender = thread::spawn(move || {
        let mut bytes = Vec::new();
        write_message(&mut bytes, 60_000, 6, 9, 0, 1, &avc_header());
        for number in 0..400 {
            write_message(&mut bytes, 60_000, 6, 9, number * 40, 1, &picture(number, 30_000));
        }
        socket.write_all(&bytes).expect("send");
        socket
    });
    let frames = frames_until(&mut player, 399);
    assert!(frames.iter().all(|f| f.payload == picture(number_of(f), 30_000)));
    let _socket = sender.join().expect("the sender");

    // Leaves before it is decided: the hook lets it in, and is told that it is gone.
    drop(impatient(&server, "gone"));
    let told = hooks.wait_for(2, LONG, |r| r.text_of("stream") == "gone");
    let actions: Vec<_> = told.iter().map(|r| r.text_of("action").to_owned()).collect();
    assert_eq!(actions, ["on_publish", "on_unpublish"]);
    // The place was never taken.
    let _publisher = publish(&server.rtmp("live/gone"), 1);
    assert_eq!(count(&mut server, "over_limit"), 0);
    server.stop();
}

/// Ends are told until somebody takes them, in order, and in the end even while the server stops.
#[test]
fn ends_are_not_lost() {
    let failures = std::sync::atomic::AtomicU32::new(0);
    let hooks = HookServer::start(move |request| {
        use std::sync::atomic::Ordering::Relaxed;
        let ends = request.path == "/unpublish" && request.text_of("stream") == "kept";
        if ends && failures.fetch_add(1, Relaxed) < 2 {
            return Behaviour::Answer(500, String::new());
        }
        Behaviour::ok()
    });
    let names = ["on_connect", "on_close", "on_publish", "on_unpublish", "on_stop"];
    let settings = hook_settings(&hooks, &names);
    let second = hooks.url("/second");
    let both = format!("vhost.http_hooks.on_unpublish={} {second}", hooks.url("/unpublish"));
    let mut server = start(&settings, &[&both]);
    drop(publish(&server.rtmp("live/kept"), 5));
    hooks.wait_for(1, LONG, |r| r.text_of("action") == "on_close");
    let actions: Vec<_> =
        hooks.requests().iter().map(|r| (r.text_of("action").to_owned(), r.path.clone())).collect();
    let short: Vec<_> = actions.iter().map(|(a, p)| (a.as_str(), p.as_str())).collect();
    assert_eq!(
        short,
        [
            ("on_connect", "/connect"),
            ("on_publish", "/publish"),
            ("on_unpublish", "/unpublish"),
            ("on_unpublish", "/second"),
            ("on_unpublish", "/unpublish"),
            ("on_unpublish", "/unpublish"),
            ("on_close", "/close"),
        ],
        "each URL is told until it has taken it, and the close comes last"
    );
    wait_for_count(&mut server, "hook_retried", 2);

    // Without anything to ask, a player begins at once and its end is told all the same.
    let _publisher = publish(&server.rtmp("live/last"), 30);
    let mut player = FlvPlayer::connect(&server.flv("live/last")).expect("play");
    player.frames(3).expect("frames");
    server.stop();
    hooks.wait_for(1, LONG, |r| r.text_of("action") == "on_stop");
    hooks.wait_for(2, LONG, |r| {
        r.text_of("stream") == "last" && r.text_of("action") == "on_unpublish"
    });
}

/// `security` by address, for each protocol.
#[test]
fn addresses_are_let_in_by_rule() {
    let mut server = serve(&[
        "shards=2",
        "summary_interval=1",
        "vhost.security.enabled=true",
        "vhost.security.allow=[\"publish 127.0.0.1\", \"play 127.0.0.0/8\"]",
        "vhost.security.deny=[\"play 127.0.0.9\"]",
    ]);
    let _publisher = publish(&server.rtmp("live/s"), 60);
    let rtmp = server.rtmp("live/s");
    let flv = server.flv("live/s");
    let from = |ip: &str| -> Option<IpAddr> { Some(ip.parse().expect("an address")) };
    for url in [rtmp.clone(), flv.clone(), flv.replacen("http", "ws", 1)] {
        let mut player = RtmpPlayer::connect_from(&url, from("127.0.0.8")).expect("play");
        player.frames(1).expect("frames");
        let denied = RtmpPlayer::connect_from(&url, from("127.0.0.9"));
        assert!(was_closed(&denied), "{url}: {denied:?}");
    }
    wait_for_count(&mut server, "address_denied", 3);
    server.stop();

    let server = serve(&["shards=1", "vhost.security.enabled=true"]);
    assert!(was_closed(&RtmpPublisher::connect(&server.rtmp("live/s"))), "no rule, nobody");
    server.stop();
    let deny = ["shards=1", "vhost.security.enabled=true", "vhost.security.deny=publish all"];
    let server = serve(&deny);
    assert!(was_closed(&RtmpPublisher::connect(&server.rtmp("live/s"))), "denied");
    server.stop();
}

fn seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs()
}

/// Static keys, signed URLs and JWTs, the same for each protocol.
#[test]
fn tokens_are_the_same_for_every_protocol() {
    const KEY: &str = "a-static-key-of-some-length";
    const SECRET: &str = "a-secret-for-signing-urls";
    const JWT: &str = "0123456789abcdef0123456789abcdef";
    let jwks = HookServer::start(|_| Behaviour::Answer(200, JWKS.into()));
    let url = jwks.url("/keys");
    let mut server = serve(&[
        "shards=2",
        "summary_interval=1",
        "vhost.token.publish=true",
        "vhost.token.play=true",
        &format!("vhost.token.keys={KEY}"),
        &format!("vhost.token.sign_secrets={SECRET}"),
        &format!("vhost.token.jwt_secret={JWT}"),
        &format!("vhost.token.jwks_url={url}"),
    ]);
    let name = StreamName::new(DEFAULT_VHOST, "live", "t").expect("a name");
    let signed = |action, until: u64| {
        let until = until.to_string();
        format!("?expires={until}&sign={}", sign(SECRET, action, &name, &until))
    };
    let jwt = |claims: Value| {
        use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
        let key = EncodingKey::from_secret(JWT.as_bytes());
        format!("?token={}", encode(&Header::new(Algorithm::HS256), &claims, &key).expect("a JWT"))
    };
    let by_key_set = |kid: &str, claims: Value| {
        use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
        let key = EncodingKey::from_ed_pem(ED25519.as_bytes()).expect("a key");
        let header = Header { kid: Some(kid.into()), ..Header::new(Algorithm::EdDSA) };
        format!("?token={}", encode(&header, &claims, &key).expect("a JWT"))
    };
    let later = seconds() + 60;
    let may_play = json!({ "exp": later, "play": "live/*" });

    let rtmp = server.rtmp("live/t");
    for bad in [
        String::new(),
        "?token=wrong".into(),
        signed(Action::Play, later),
        signed(Action::Publish, seconds() - 10),
        jwt(may_play.clone()),
        by_key_set("ed", may_play.clone()),
    ] {
        assert!(was_closed(&RtmpPublisher::connect(&(rtmp.clone() + &bad))), "{bad}");
    }
    for good in [
        format!("?token={KEY}"),
        signed(Action::Publish, later),
        jwt(json!({ "exp": later, "publish": ["live/t"] })),
        by_key_set("ed", json!({ "exp": later, "publish": "*" })),
    ] {
        drop(publish_when_free(&(rtmp.clone() + &good)));
    }
    let _publisher = publish(&format!("{rtmp}?token={KEY}"), 60);
    let flv = server.flv("live/t");
    for url in [rtmp, flv.clone(), flv.replacen("http", "ws", 1)] {
        for good in [
            format!("?token={KEY}"),
            signed(Action::Play, later),
            jwt(may_play.clone()),
            by_key_set("ed", may_play.clone()),
        ] {
            let mut player = RtmpPlayer::connect(&(url.clone() + &good)).expect(&good);
            player.frames(1).expect("frames");
        }
        for bad in [
            String::new(),
            "?token=".into(),
            format!("?token={KEY}x"),
            signed(Action::Publish, later),
            signed(Action::Play, later).replace("sign=", "sign=0"),
            signed(Action::Play, seconds() - 10),
            jwt(json!({ "exp": later, "play": "other/*" })),
            jwt(json!({ "exp": seconds() - 60, "play": "*" })),
            by_key_set("another", may_play.clone()),
            by_key_set("rsa", may_play.clone()),
        ] {
            let player = RtmpPlayer::connect(&(url.clone() + &bad));
            assert!(was_closed(&player), "{url}{bad}: {player:?}");
        }
    }
    let bearer = format!("Authorization: Bearer {KEY}\r\n");
    assert_eq!(http_status(&server, "/live/t.flv", &bearer).0, 200);
    assert_eq!(http_status(&server, "/live/t.flv", "Authorization: Bearer x\r\n").0, 403);
    wait_for_count(&mut server, "token_refused", 20);
    // One fetch serves all; keys that are not there do not have it fetched for everybody.
    assert!(jwks.requests().len() <= 5, "{} fetches", jwks.requests().len());
    // Tokens are in no log line.
    let lines = server.process_mut().lines();
    let leaked = lines.iter().find(|line| line.contains(KEY) || line.contains(SECRET));
    assert!(leaked.is_none(), "{leaked:?}");
    server.stop();
}

const ED25519: &str = "-----BEGIN PRIVATE KEY-----\n\
    MC4CAQAwBQYDK2VwBCIEIMjRBcSKRMqpMYZsddjIV5EX9x3rXF9LOZZ/3x5DaUI/\n\
    -----END PRIVATE KEY-----";

const JWKS: &str = r#"{ "keys": [
    { "kty": "OKP", "crv": "Ed25519", "kid": "ed", "use": "sig", "alg": "EdDSA",
      "x": "rdYDq99r6HKTqUr0iA2AAADPdAYozdSxzJXUItAQ6uI" },
    { "kty": "OKP", "crv": "Ed25519", "kid": "rsa", "use": "enc",
      "x": "rdYDq99r6HKTqUr0iA2AAADPdAYozdSxzJXUItAQ6uI" } ] }"#;

/// Limits of a vhost and of a stream; seats are given back.
#[test]
fn limits_hold_and_seats_come_back() {
    let mut server = serve(&[
        "shards=2",
        "summary_interval=1",
        "vhost.limits.players=3",
        "vhost.limits.players_per_stream=2",
        "vhost.limits.publishers=2",
    ]);
    let _a = publish(&server.rtmp("live/a"), 60);
    let b = publish(&server.rtmp("live/b"), 60);
    assert!(was_closed(&RtmpPublisher::connect(&server.rtmp("live/c"))));
    let rtmp = RtmpPlayer::connect(&server.rtmp("live/a")).expect("play");
    let flv = FlvPlayer::connect(&server.flv("live/a")).expect("play");
    assert_eq!(http_status(&server, "/live/a.flv", "").0, 503, "two of the stream");
    let other = FlvPlayer::connect(&server.flv("live/b")).expect("play");
    assert!(was_closed(&RtmpPlayer::connect(&server.rtmp("live/b"))), "three of the vhost");
    wait_for_count(&mut server, "stream_players_limit", 1);
    wait_for_count(&mut server, "vhost_limit", 2);
    drop((rtmp, flv, other, b));
    let deadline = Instant::now() + LONG;
    let mut seats = Vec::new();
    while seats.len() < 2 {
        match RtmpPlayer::connect(&server.rtmp("live/a")) {
            Ok(player) => seats.push(player),
            Err(_) => assert!(Instant::now() < deadline, "the seats do not come back"),
        }
    }
    publish(&server.rtmp("live/c"), 1);
    server.stop();
}

/// While a vhost sends more than it may, players are turned away; who is there stays.
#[test]
fn a_vhost_over_its_bandwidth_takes_no_more_players() {
    let mut server = serve(&["shards=2", "summary_interval=1", "vhost.limits.kbps=1500"]);
    let canary = canary(&server, 12.0);
    // Ten players of half a megabit are five megabits.
    let deadline = Instant::now() + LONG;
    while http_status(&server, &format!("/{CANARY}.flv"), "").0 != 503 {
        assert!(Instant::now() < deadline, "nobody is turned away");
        thread::sleep(Duration::from_millis(300));
    }
    wait_for_count(&mut server, "bandwidth_limit", 1);
    assert_canary_noticed_nothing(canary);
    let _publisher = publish(&server.rtmp("live/later"), 30);
    let deadline = Instant::now() + LONG;
    while http_status(&server, "/live/later.flv", "").0 == 503 {
        assert!(Instant::now() < deadline, "still turned away");
        thread::sleep(Duration::from_millis(300));
    }
    server.stop();
}

/// Publishers that nobody plays are closed after a while; those with a player are not.
#[test]
fn publishers_without_players_are_closed() {
    let mut server = serve(&["shards=2", "summary_interval=1", "vhost.publish.kickoff_for_idle=2"]);
    let mut alone = RtmpPublisher::connect(&server.rtmp("live/alone")).expect("publish");
    let mut played = RtmpPublisher::connect(&server.rtmp("live/played")).expect("publish");
    let _player = RtmpPlayer::connect(&server.rtmp("live/played")).expect("play");
    let (mut closed, began) = (None, Instant::now());
    for number in 0..100 {
        let body = picture(number, 100);
        if closed.is_none() && alone.send(Kind::Video, number * 40, &body).is_err() {
            closed = Some(began.elapsed());
        }
        played.send(Kind::Video, number * 40, &body).expect("the one with a player stays");
        thread::sleep(Duration::from_millis(50));
    }
    let closed = closed.expect("closed");
    assert!((1.5..4.5).contains(&closed.as_secs_f64()), "after {closed:?}");
    wait_for_count(&mut server, "kicked_for_idle", 1);
    server.stop();
}

/// The heartbeat, and what else is asked of a page.
#[test]
fn heartbeat_and_refer() {
    let hooks = HookServer::start(|_| Behaviour::ok());
    let url = format!("heartbeat.url={}", hooks.url("/beat?x=1"));
    let mut server = serve(&[
        "shards=1",
        "summary_interval=1",
        "heartbeat.enabled=true",
        "heartbeat.interval=1",
        "heartbeat.device_id=box1",
        "heartbeat.ports=true",
        "heartbeat.summaries=true",
        &url,
        "vhost.refer.enabled=true",
        "vhost.refer.play=example.com",
    ]);
    let beats = hooks.wait_for(2, LONG, |r| r.path == "/beat");
    let rtmp = server.rtmp_addr().to_string();
    assert_eq!(beats[0].body["device_id"], "box1");
    assert_eq!(beats[0].body["rtmp"], json!([rtmp]));
    for field in ["ip", "server", "service", "pid"] {
        assert!(beats[0].body[field].is_string(), "{field}");
    }
    let summaries = &beats[1].body["summaries"];
    assert_eq!((&summaries["code"], &summaries["data"]["ok"]), (&json!(0), &json!(true)));
    assert_eq!(summaries["data"]["self"]["pid"], server.process_mut().id());
    let pid = server.process_mut().id().to_string();
    assert_eq!(beats[0].body["pid"], pid.as_str());
    let gap = beats[1].at - beats[0].at;
    assert!((0.5..3.0).contains(&gap.as_secs_f64()), "{gap:?}");

    let _publisher = publish(&server.rtmp("live/r"), 30);
    let status = |page: &str| http_status(&server, "/live/r.flv", page).0;
    assert_eq!(status("Referer: https://www.example.com/watch\r\n"), 200);
    assert_eq!(status("Referer: https://example.com.evil.net/\r\n"), 403);
    assert_eq!(status(""), 403);
    wait_for_count(&mut server, "refer_denied", 2);
    server.stop();
}

/// Row 12 with hooks: publishers race for a name while each of them waits for its verdict.
#[test]
fn of_publishers_that_were_all_let_in_one_wins() {
    let hooks = HookServer::start(|_| Behaviour::After(Duration::from_millis(300), "0".into()));
    let server = start(&hook_settings(&hooks, &["on_publish", "on_unpublish"]), &[]);
    let mut player = RtmpPlayer::connect(&server.rtmp("live/race")).expect("play");
    let racers: Vec<_> = (0..6)
        .map(|_| {
            let url = server.rtmp("live/race");
            thread::spawn(move || RtmpPublisher::connect(&url))
        })
        .collect();
    let ends: Vec<_> = racers.into_iter().map(|racer| racer.join().expect("join")).collect();
    let mut winners: Vec<_> = ends.into_iter().flatten().collect();
    assert_eq!(winners.len(), 1);
    let mut winner = winners.remove(0);
    winner.send(Kind::Video, 0, &avc_header()).expect("send");
    for number in 0..10 {
        winner.send(Kind::Video, number * 40, &picture(number, 100)).expect("send");
    }
    let frames = player.frames(10).expect("frames");
    assert!(frames.iter().enumerate().all(|(n, frame)| number_of(frame) == n as u32));
    // SRS: who did not get the place has not published, so one end is told.
    drop(winner);
    hooks.wait_for(1, LONG, |r| r.text_of("action") == "on_unpublish");
    thread::sleep(Duration::from_millis(500));
    let ends = hooks.requests().iter().filter(|r| r.text_of("action") == "on_unpublish").count();
    assert_eq!(ends, 1);
    server.stop();
}

/// Row 38, the part of it that is not the API's: the configuration is exchanged again and again
/// while clients come and go. None of them hangs, and each one that was let in is said goodbye to.
#[test]
fn reloads_while_clients_come_and_go() {
    const CLIENTS: usize = 6;
    const ROUNDS: usize = 12;
    let hooks = HookServer::start(|_| Behaviour::After(Duration::from_millis(20), "0".into()));
    let file = std::path::Path::new(env!("CARGO_TARGET_TMPDIR"))
        .join(format!("reloads-{}.toml", std::process::id()));
    let text = |round: usize| {
        let url = |path: &str| format!("[{:?}]", hooks.url(path));
        format!(
            "[vhost.http_hooks]\nenabled = true\ntimeout = {}\non_publish = {}\n\
             on_unpublish = {}\non_play = {}\non_stop = {}\n[vhost.limits]\nplayers = {}\n\
             [vhost.security]\nenabled = {}\nallow = [\"publish all\", \"play all\"]\n",
            5 + round % 3,
            url("/publish"),
            url("/unpublish"),
            url("/play"),
            url("/stop"),
            round % 2 * 1000,
            round.is_multiple_of(2)
        )
    };
    // As editors do it, so that no half of a file is ever read.
    let write = |round: usize| {
        let new = file.with_extension("new");
        std::fs::write(&new, text(round)).expect("write");
        std::fs::rename(&new, &file).expect("rename");
    };
    write(0);
    let mut command = std::process::Command::new(common::server::binary());
    command.arg("-c").arg(&file);
    let mut server = Server::run(
        command,
        &["shards=2", "summary_interval=1", "vhost.publish.normal_timeout=120000"],
    );
    let clients: Vec<_> = (0..CLIENTS)
        .map(|n| {
            let (rtmp, flv) =
                (server.rtmp(&format!("live/c{n}")), server.flv(&format!("live/c{n}")));
            thread::spawn(move || {
                for _ in 0..ROUNDS {
                    let publisher = publish(&rtmp, 20);
                    let mut rtmp_player = RtmpPlayer::connect(&rtmp).expect("play");
                    rtmp_player.frames(2).expect("frames");
                    let mut flv_player = FlvPlayer::connect(&flv).expect("play");
                    flv_player.frames(2).expect("frames");
                    drop((flv_player, rtmp_player, publisher));
                }
            })
        })
        .collect();
    let mut reloads = 0;
    while clients.iter().any(|client| !client.is_finished()) {
        reloads += 1;
        write(reloads);
        server.process_mut().signal(rustix::process::Signal::HUP);
        thread::sleep(Duration::from_millis(30));
    }
    for client in clients {
        client.join().expect("a client that never hangs");
    }
    assert!(reloads > 20, "{reloads} reloads");
    for (action, each) in [("on_publish", 1), ("on_unpublish", 1), ("on_play", 2), ("on_stop", 2)] {
        let wanted = CLIENTS * ROUNDS * each;
        hooks.wait_for(wanted, LONG, |r| r.text_of("action") == action);
        let all = hooks.requests().iter().filter(|r| r.text_of("action") == action).count();
        assert_eq!(all, wanted, "{action}");
    }
    assert_eq!(count(&mut server, "bug"), 0);
    server.stop();
    let _ = std::fs::remove_file(file);
}
