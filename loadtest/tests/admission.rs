//! Who may publish and play, against the real binary: what `hooks.rs` does not ask. Rules over a
//! public address, pages, load, hook servers that are away for a while, and what all of it costs
//! those who are watching something else.

mod common;

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use common::admission::*;
use common::certificate::Certificate;
use common::hook_server::{Behaviour, HookServer};
use common::process::Process;
use common::server::Server;
use loadtest::client::{FlvPlayer, RtmpPlayer, RtmpPublisher};
use loadtest::plan::Rise;
use loadtest::{run, table};
use ringcast::media::Kind;
use ringcast::proto::rtmp::client::Role;

/// All URLs of a hook are asked, one after the other; the first no is the answer.
#[test]
fn urls_of_a_hook_are_asked_in_their_order() {
    let hooks = HookServer::start(|request| match request.path.as_str() {
        "/second" if request.text_of("stream") == "no" => Behaviour::Answer(200, "1".into()),
        "/first" => Behaviour::After(Duration::from_millis(200), "0".into()),
        _ => Behaviour::ok(),
    });
    let urls = ["/first", "/second", "/third"].map(|path| hooks.url(path)).join(" ");
    let settings = ["on_connect", "on_publish", "on_play"]
        .map(|name| format!("vhost.http_hooks.{name}={urls}"));
    let mut all = vec!["shards=1", "summary_interval=1", "vhost.http_hooks.enabled=true"];
    all.extend(settings.iter().map(String::as_str));
    let mut server = serve(&all);
    let asked = |stream: &str| -> Vec<String> {
        let all = hooks.requests();
        let of = all.iter().filter(|r| r.text_of("stream") == stream);
        of.map(|r| format!("{}{}", r.text_of("action"), r.path)).collect()
    };
    assert!(is_let_in(&server, "yes", Role::Publish, None));
    let each = |action: &str| ["/first", "/second", "/third"].map(|path| format!("{action}{path}"));
    assert_eq!(asked("yes"), [each("on_connect"), each("on_publish")].concat());
    assert!(!is_let_in(&server, "no", Role::Play, None));
    assert_eq!(asked("no"), ["on_connect/first", "on_connect/second"]);
    wait_for_count(&mut server, "hook_refused", 1);
    server.stop();
}

/// Hooks over HTTPS: an unknown certificate refuses and the log says what to do; with
/// `tls_verify` off, as in SRS, or when the certificate is known, clients are let in.
#[test]
fn hooks_over_https() {
    let certificate = Certificate::make("hooks");
    let (cert, key) = (&certificate.cert, &certificate.key);
    let hooks = HookServer::start_tls((cert, key), |_| Behaviour::ok());
    let url = format!("vhost.http_hooks.on_publish={}", hooks.url("/publish"));
    for (settings, trusted, let_in) in [
        (&[][..], false, false),
        (&["vhost.http_hooks.tls_verify=false"], false, true),
        (&[], true, true),
    ] {
        let mut all = vec!["shards=1", "summary_interval=1", "vhost.http_hooks.enabled=true", &url];
        all.extend(settings);
        let mut command = Command::new(common::server::binary());
        if trusted {
            command.env("SSL_CERT_FILE", cert);
        }
        let mut server = Server::run(command, &all);
        let before = hooks.requests().len();
        assert_eq!(is_let_in(&server, "a", Role::Publish, None), let_in, "{settings:?} {trusted}");
        assert_eq!(hooks.requests().len() - before, usize::from(let_in));
        if !let_in {
            wait_for_count(&mut server, "hook_failed", 1);
            let line = server.process_mut().wait_for_line("tls_verify", LONG);
            println!("{}", line.expect("a line that says what to do"));
        }
        server.stop();
    }
    // A name that is not the certificate's.
    let other = url.replace("127.0.0.1", "localhost");
    let mut command = Command::new(common::server::binary());
    command.env("SSL_CERT_FILE", cert);
    let all = ["shards=1", "summary_interval=1", "vhost.http_hooks.enabled=true", &other];
    let server = Server::run(command, &all);
    assert!(!is_let_in(&server, "a", Role::Publish, None));
    server.stop();
}

/// A hook server that is away while clients leave: nobody new is let in meanwhile, those who
/// watch notice nothing, and when it is back it is told each end once, in each client's order.
#[test]
fn ends_are_told_when_the_hook_server_is_back() {
    const CLIENTS: usize = 20;
    let first = HookServer::start(|_| Behaviour::ok());
    let addr = first.addr();
    let mut server = start(&hook_settings(&first, ALL_HOOKS), &["vhost.http_hooks.timeout=2"]);
    let canary = canary(&server, 12.0);
    let publishers: Vec<_> =
        (0..CLIENTS).map(|n| publish(&server.rtmp(&format!("live/p{n}")), 20)).collect();
    let players: Vec<_> = (0..CLIENTS)
        .map(|n| {
            let name = format!("live/p{n}");
            let mut rtmp = RtmpPlayer::connect(&server.rtmp(&name)).expect("play");
            let mut flv = FlvPlayer::connect(&server.flv(&name)).expect("play");
            rtmp.frames(1).expect("a frame");
            flv.frames(1).expect("a frame");
            (rtmp, flv)
        })
        .collect();
    // All ten who watch the canary have to be in before nobody is let in any more.
    first.wait_for(10, LONG, |r| {
        r.text_of("action") == "on_play" && r.text_of("stream").contains("canary")
    });
    drop(first);
    let refused = RtmpPublisher::connect(&server.rtmp("live/new"));
    assert!(was_closed(&refused), "{refused:?}");
    drop((players, publishers));
    wait_for_count(&mut server, "hook_retried", CLIENTS as u64);

    let back = HookServer::start_at(addr, |_| Behaviour::ok());
    let of_clients = |action: &'static str| {
        move |r: &common::hook_server::HookRequest| {
            r.text_of("action") == action && !r.text_of("stream").contains("canary")
        }
    };
    back.wait_for(2 * CLIENTS, LONG, of_clients("on_stop"));
    back.wait_for(CLIENTS, LONG, of_clients("on_unpublish"));
    // Of each publisher and each RTMP player.
    back.wait_for(2 * CLIENTS, LONG, of_clients("on_close"));
    assert_canary_noticed_nothing(canary);
    thread::sleep(Duration::from_secs(2));
    let told = back.requests();
    let mut clients: Vec<&str> = told.iter().map(|r| r.text_of("client_id")).collect();
    clients.sort_unstable();
    clients.dedup();
    let mut only_closed = 0;
    for client in clients {
        let of: Vec<_> = told.iter().filter(|r| r.text_of("client_id") == client).collect();
        let actions: Vec<_> = of.iter().map(|r| r.text_of("action")).collect();
        if actions == ["on_close"] {
            only_closed += 1;
            continue;
        }
        let known = [&["on_stop", "on_close"][..], &["on_unpublish", "on_close"], &["on_stop"]];
        assert!(known.contains(&&actions[..]), "{client}: {actions:?}");
    }
    // The publisher that was refused: the first server may have answered its on_connect yet.
    assert!(only_closed <= 1, "{only_closed} clients of which only the close was told");
    assert_eq!(told.iter().filter(|r| of_clients("on_stop")(r)).count(), 2 * CLIENTS);
    assert_eq!(told.iter().filter(|r| of_clients("on_unpublish")(r)).count(), CLIENTS);
    server.stop();
}

/// What hooks that hang cost others: latency before and while four hundred clients wait.
#[test]
fn a_hook_server_that_hangs_adds_no_latency_to_other_streams() {
    let hooks = HookServer::start(|request| match request.text_of("stream") {
        "hang" => Behaviour::Hang,
        _ => Behaviour::ok(),
    });
    let settings = hook_settings(&hooks, &["on_publish", "on_play", "on_stop"]);
    let mut server = start(&settings, &["vhost.http_hooks.timeout=6"]);
    let mut plan = canary_plan(&server, 14.0);
    // A machine that does other things has its own spikes; hooks that were in the way would be
    // seconds.
    plan.expect.p99_rise = Some(Rise { before: [2.0, 6.0], during: [7.0, 12.0], max_ms: 50.0 });
    let canary = thread::spawn(move || run(plan).expect("a run"));
    server.wait_for_stream(CANARY);
    thread::sleep(Duration::from_secs(6));
    thread::scope(|scope| {
        let server = &server;
        for n in 0..400 {
            scope.spawn(move || match n % 4 {
                0 => assert!(was_closed(&RtmpPublisher::connect(&server.rtmp("live/hang")))),
                1 => assert!(was_closed(&RtmpPlayer::connect(&server.rtmp("live/hang")))),
                _ => assert_eq!(http_status(server, "/live/hang.flv", "").0, 503),
            });
        }
    });
    let report = canary.join().expect("a report");
    assert!(report.violations.is_empty(), "the canary: {}", table::render(&report));
    println!("{}", table::render(&report));
    wait_for_count(&mut server, "hook_timeout", 400);
    server.stop();
}

const OWN_NETWORK: &str = "RINGCAST_TEST_OWN_NETWORK";
const PUBLIC: &str = "203.0.113.7";

/// Row 11: a server that nobody has set up, on a public address. The test runs itself in a network
/// of its own, which has such an address.
#[test]
fn strangers_cannot_publish_by_default() {
    if std::env::var_os(OWN_NETWORK).is_none() {
        let script = format!(
            "ip link set lo up && ip addr add {PUBLIC}/32 dev lo && \
             exec \"$0\" --exact strangers_cannot_publish_by_default --nocapture"
        );
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--net", "sh", "-c", &script]);
        command.arg(std::env::current_exe().expect("a path")).env(OWN_NETWORK, "1");
        let process = Process::start("unshare", &mut command);
        process.finish(Duration::from_secs(60)).expect_success("in a network of its own");
        return;
    }
    let url = |ip: &str| format!("rtmp://{ip}:1935/live/a");
    for (settings, far_may) in [
        (&[][..], false),
        (&["vhost.publish.open=true"][..], true),
        (&["vhost.security.enabled=true", "vhost.security.allow=publish 203.0.113.0/24"], true),
        (&["vhost.token.publish=true", "vhost.token.keys=0123456789abcdef"], false),
    ] {
        let mut all = vec!["shards=1", "summary_interval=1", "listen=1935"];
        all.extend(settings);
        let mut server = serve(&all);
        let far = RtmpPublisher::connect(&url(PUBLIC));
        assert_eq!(far.is_ok(), far_may, "{settings:?}: {far:?}");
        drop(far);
        if settings.is_empty() {
            let mut near = RtmpPublisher::connect(&url("127.0.0.1")).expect("from this machine");
            near.send(Kind::Video, 0, &avc_header()).expect("send");
            near.send(Kind::Video, 40, &picture(0, 100)).expect("send");
            let mut player = RtmpPlayer::connect(&url(PUBLIC)).expect("everybody may play");
            player.frames(1).expect("a frame");
            wait_for_count(&mut server, "publish_closed", 1);
        }
        let lines = server.process_mut().lines();
        let said = lines.iter().filter(|l| l.contains("Set vhost.publish.open")).count();
        assert_eq!(said, usize::from(settings.is_empty()), "said once, at start: {lines:#?}");
        server.stop();
    }
}

/// While a shard has no time left no more players are let in; those who watch go on.
#[test]
fn under_load_no_more_players_are_let_in() {
    let mut server = serve(&[
        "shards=1",
        "summary_interval=1",
        "circuit_breaker.high_threshold=1",
        "circuit_breaker.critical_threshold=1",
        "circuit_breaker.dying_threshold=1",
        "circuit_breaker.dying_pulse=2",
    ]);
    let mut publisher = publish(&server.rtmp("live/load"), 20);
    let mut player = RtmpPlayer::connect(&server.rtmp("live/load")).expect("play");
    player.frames(1).expect("a frame");
    let over = Arc::new(AtomicBool::new(false));
    let own = over.clone();
    let load = thread::spawn(move || {
        let mut number = 20;
        while !own.load(Relaxed) {
            publisher.send(Kind::Video, number * 40, &picture(number, 60_000)).expect("send");
            number += 1;
            thread::sleep(Duration::from_millis(1));
        }
        publisher
    });
    let reader = thread::spawn(move || {
        let frames = player.frames(1000).expect("who watches goes on");
        assert!(frames.iter().all(|frame| frame.kind == Kind::Video));
    });
    let deadline = Instant::now() + LONG;
    while http_status(&server, "/live/load.flv", "").0 != 503 {
        assert!(Instant::now() < deadline, "nobody is turned away");
        thread::sleep(Duration::from_millis(300));
    }
    assert!(!is_let_in(&server, "load", Role::Play, None));
    assert!(is_let_in(&server, "other", Role::Publish, None), "publishers are let in");
    wait_for_count(&mut server, "overload", 2);
    reader.join().expect("the player");
    over.store(true, Relaxed);
    let _publisher = load.join().expect("the publisher");
    let deadline = Instant::now() + LONG;
    while !is_let_in(&server, "load", Role::Play, None) {
        assert!(Instant::now() < deadline, "still turned away");
        thread::sleep(Duration::from_millis(300));
    }
    let lines = server.process_mut().lines();
    assert!(lines.iter().any(|line| line.contains("the load rises")), "{lines:#?}");
    server.stop();
}

/// The page an RTMP client says it is on.
#[test]
fn pages_of_rtmp_clients_are_checked() {
    let mut server = serve(&[
        "shards=1",
        "summary_interval=1",
        "vhost.refer.enabled=true",
        "vhost.refer.all=example.com example.org",
        "vhost.refer.publish=studio.example.com",
    ]);
    let publish = |page| is_let_in(&server, "a", Role::Publish, page);
    let play = |page| is_let_in(&server, "a", Role::Play, page);
    assert!(publish(Some("https://studio.example.com/live")));
    assert!(play(Some("https://www.example.org:8443/watch?x=1")));
    for bad in [None, Some("https://example.com.evil.net/"), Some("https://notexample.com/")] {
        assert!(!publish(bad) && !play(bad), "{bad:?}");
    }
    assert!(!publish(Some("https://www.example.com/")), "good for players only");
    wait_for_count(&mut server, "refer_denied", 7);
    server.stop();
}

/// Connections in all and from one address.
#[test]
fn connections_are_limited_in_all_and_by_address() {
    let mut server = serve(&[
        "shards=2",
        "summary_interval=1",
        "max_connections=12",
        "max_connections_per_address=4",
    ]);
    let _publisher = publish(&server.rtmp("live/a"), 20);
    let from = |n: u8| Some(std::net::IpAddr::from([127, 0, 1, n]));
    let connect = |n| {
        let player = RtmpPlayer::connect_from(&server.rtmp("live/a"), from(n));
        player.and_then(|mut player| player.frames(1).map(|_| player))
    };
    let mut players = Vec::new();
    for address in 1..=2 {
        players.extend((0..4).map(|n| connect(address).unwrap_or_else(|why| panic!("{n}: {why}"))));
        assert!(connect(address).is_err(), "the fifth from one address");
    }
    // One publisher and eight players; three more places.
    players.extend((0..3).map(|n| connect(3).unwrap_or_else(|why| panic!("{n}: {why}"))));
    assert!(connect(4).is_err(), "the thirteenth of all");
    drop(players);
    let deadline = Instant::now() + LONG;
    while connect(1).is_err() {
        assert!(Instant::now() < deadline, "places do not come back");
        thread::sleep(Duration::from_millis(100));
    }
    wait_for_count(&mut server, "address_limit", 2);
    server.stop();
}

/// Programs of a stream: started with its names, again when they end, ended with it; no shell, no
/// open sockets, none of the server's secrets.
#[test]
fn programs_run_while_a_stream_is_published() {
    let folder =
        Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("programs-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let file = folder.join("srs.conf");
    let show = folder.join("show.sh");
    std::fs::write(
        &show,
        "for word in \"$@\"; do echo \"word $word\"; done\nls -l /proc/self/fd/\nenv\n\
         echo $$ >>\"$0.pids\"\nsleep 600 &\nwait\n",
    )
    .expect("write");
    let (dir, show) = (folder.display(), show.display());
    std::fs::write(
        &file,
        format!(
            "listen 1935; daemon off; srs_log_tank console; pid {dir}/pid;\n\
             vhost __defaultVhost__ {{ publish {{ normal_timeout 60000; }} exec {{ enabled on;\n\
             publish /bin/sh {show} [url] \"[app] [stream]\" [nothing] page=[pageUrl] [vhost] \
             >{dir}/[app]-[stream].log 2>&1.log;\n\
             publish /bin/sh -c \"echo once >>{dir}/once\"; publish {dir}/is-not-there; }} }}\n"
        ),
    )
    .expect("write");
    let mut command = Command::new(common::server::binary());
    command.arg("-c").arg(&file).env("SRS_HTTP_API_AUTH_PASSWORD", "secret-of-the-server");
    let mut server = Server::run(command, &["shards=1", "summary_interval=1"]);
    let publisher = publish(&(server.rtmp("live/a") + "?x='$(id)"), 10);
    let log = folder.join("live-a.log");
    let read = |path: &Path| std::fs::read_to_string(path).unwrap_or_default();
    let wait_for = |what: &str, is_there: &dyn Fn() -> bool| {
        let deadline = Instant::now() + LONG;
        while !is_there() {
            assert!(Instant::now() < deadline, "{what}: {}", read(&log));
            thread::sleep(Duration::from_millis(50));
        }
    };
    let pids = folder.join("show.sh.pids");
    wait_for("started", &|| !read(&pids).is_empty());
    let text = read(&log);
    let words: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("word ")).collect();
    let url = server.rtmp("live/a");
    assert_eq!(words, [&url, "live a", "[nothing]", "page=", "__defaultVhost__"]);
    assert!(!text.contains("socket:") && !text.contains("io_uring"), "{text}");
    assert!(!text.contains("secret-of-the-server"), "{text}");
    let pid: u32 = read(&pids).trim().parse().expect("one process");
    let is_there = move |pid: u32| Path::new(&format!("/proc/{pid}")).exists();
    assert!(is_there(pid));
    // What ends is started again after three seconds.
    let once = folder.join("once");
    wait_for("twice", &|| read(&once).lines().count() == 2);
    wait_for_count(&mut server, "program_ended", 3);
    drop(publisher);
    wait_for("ended with its stream", &|| !is_there(pid));
    let runs = read(&once).lines().count();
    // And with the server.
    let _publisher = publish(&server.rtmp("live/b"), 10);
    wait_for("started again", &|| read(&pids).lines().count() == 2);
    let second: u32 = read(&pids).lines().last().expect("a line").parse().expect("a number");
    server.stop();
    assert!(!is_there(second), "it outlives the server");
    assert!(read(&once).lines().count() <= runs + 1);
    let _ = std::fs::remove_dir_all(folder);
}
