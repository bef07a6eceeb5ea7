//! The HTTP API against the real binary, with real publishers and players: every route member by
//! member, rights, kicks, events, the shared port, HTTPS, metrics, and clients that misbehave.

mod common;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use common::certificate::Certificate;
use common::http::{self, check_shape};
use common::media::{self, Media};
use common::process::Process;
use common::server::Server;
use common::wait::wait_for;
use serde_json::{Value, json};

/// What every answer of success has.
const ENVELOPE: &str = "code:i server:s service:s pid:s";

/// Publishes a medium again and again until it is dropped.
fn publish(medium: Media, url: &str) -> Process {
    let mut command = media::ffmpeg();
    command.args(["-re", "-stream_loop", "-1", "-i"]).arg(medium.file());
    command.args(["-c", "copy", "-f", "flv"]).arg(url);
    Process::start("ffmpeg (publisher)", &mut command)
}

/// Plays until it is dropped or the server ends it.
fn play(url: &str) -> Process {
    let mut command = media::ffmpeg();
    command.args(["-i", url, "-c", "copy", "-f", "null", "-"]);
    Process::start("ffmpeg (player)", &mut command)
}

fn clients(api: SocketAddr) -> Vec<Value> {
    let answer = http::get(api, "/api/v1/clients/?count=100");
    answer["clients"].as_array().expect("a list").clone()
}

fn wait_for_clients(api: SocketAddr, count: usize) -> Vec<Value> {
    wait_for(&format!("{count} clients"), || Some(clients(api)).filter(|c| c.len() == count))
}

fn of_type<'a>(clients: &'a [Value], kind: &str) -> &'a Value {
    let found = clients.iter().find(|client| client["type"] == kind);
    found.unwrap_or_else(|| panic!("no {kind} in {clients:?}"))
}

fn code(answer: &Value) -> i64 {
    answer["code"].as_i64().expect("a code")
}

#[test]
fn streams_clients_and_vhosts_as_in_srs() {
    let server = Server::start(&["shards=2"]);
    let api = server.api_addr();
    let publisher = publish(Media::AvcBFramesAac, &server.rtmp("live/cam?token=1"));
    server.wait_for_stream("live/cam");
    let player = play(&server.rtmp("live/cam"));
    let flv = play(&server.flv("live/cam"));
    let all = wait_for_clients(api, 3);
    // Codec details and a keyframe or two.
    thread::sleep(Duration::from_millis(4500));

    let streams = http::get(api, "/api/v1/streams/");
    check_shape("streams", &streams, &format!("{ENVELOPE} streams:a"));
    let stream = &streams["streams"][0];
    check_shape(
        "stream",
        stream,
        "id:s name:s vhost:s app:s tcUrl:s url:s live_ms:i clients:i frames:i audio_frames:i \
         video_frames:i send_bytes:i recv_bytes:i kbps:o publish:o video:o audio:o ringcast:o",
    );
    assert_eq!((&stream["name"], &stream["app"]), (&json!("cam"), &json!("live")));
    assert_eq!(stream["url"], "/live/cam");
    assert_eq!(stream["tcUrl"], format!("rtmp://{}/live", server.rtmp_addr()));
    assert_eq!(stream["clients"], 3);
    check_shape("kbps", &stream["kbps"], "recv_30s:i send_30s:i");
    let publishing = of_type(&all, "fmle-publish");
    assert_eq!(stream["publish"], json!({"active": true, "cid": publishing["id"]}));
    let video = json!({"codec": "H264", "profile": "High", "level": "3", "width": 640,
        "height": 360});
    assert_eq!(stream["video"], video);
    let audio = json!({"codec": "AAC", "sample_rate": 44100, "channel": 2, "profile": "LC"});
    assert_eq!(stream["audio"], audio);
    let (received, sent) = (stream["recv_bytes"].as_u64(), stream["send_bytes"].as_u64());
    assert!(received > Some(100_000) && sent > received, "{stream}");
    assert!(stream["frames"].as_u64() > Some(60), "{stream}");
    // 600 kbit/s and 96 kbit/s, played twice.
    let kbps = &stream["kbps"];
    assert!((400..1200).contains(&kbps["recv_30s"].as_u64().unwrap()), "{kbps}");
    assert!(kbps["send_30s"].as_u64() > kbps["recv_30s"].as_u64(), "{kbps}");
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_millis() as i64;
    assert!((stream["live_ms"].as_i64().unwrap() - now).abs() < 60_000);
    let detail = &stream["ringcast"];
    assert!(detail["b_frames"].as_u64() > Some(0) && detail["gop_ms"] == 1000, "{detail}");

    let id = stream["id"].as_str().unwrap();
    let one = http::get(api, &format!("/api/v1/streams/{id}"));
    check_shape("one stream", &one, &format!("{ENVELOPE} stream:o"));
    assert_eq!(one["stream"]["url"], "/live/cam");
    assert_eq!(code(&http::get(api, "/api/v1/streams/vid-0000000")), 2048);
    assert_eq!(code(&http::get(api, "/api/v1/streams/x")), 2048);

    let all = clients(api);
    for client in &all {
        check_shape(
            "client",
            client,
            "id:s vhost:s stream:s ip:s pageUrl:s swfUrl:s tcUrl:s url:s name:s type:s publish:b \
             alive:f send_bytes:i recv_bytes:i kbps:o ringcast:o",
        );
        check_shape("kbps", &client["kbps"], "recv_30s:i send_30s:i");
        assert_eq!((&client["stream"], &client["vhost"]), (&stream["id"], &stream["vhost"]));
        assert_eq!((&client["name"], &client["url"]), (&json!("cam"), &json!("/live/cam")));
        assert!(client["alive"].as_f64() > Some(4.0), "{client}");
        assert!(client["ip"].as_str().unwrap().starts_with("127."), "{client}");
    }
    let publishing = of_type(&all, "fmle-publish");
    assert_eq!(publishing["publish"], true);
    assert!(publishing["recv_bytes"].as_u64() > Some(100_000), "{publishing}");
    for kind in ["rtmp-play", "flv-play"] {
        let client = of_type(&all, kind);
        assert_eq!(client["publish"], false);
        assert!(client["send_bytes"].as_u64() > Some(100_000), "{client}");
        assert!(client["ringcast"]["lag_ms"].as_u64() < Some(2_000), "{client}");
    }
    let http_url = format!("http://{}/live", server.http_addr());
    assert_eq!(of_type(&all, "flv-play")["tcUrl"], http_url);
    let id = publishing["id"].as_str().unwrap();
    let one = http::get(api, &format!("/api/v1/clients/{id}"));
    check_shape("one client", &one, &format!("{ENVELOPE} client:o"));
    assert_eq!(one["client"]["type"], "fmle-publish");
    assert_eq!(code(&http::get(api, "/api/v1/clients/abcdefgh")), 2049);
    let page = http::get(api, "/api/v1/clients/?start=1&count=1");
    assert_eq!(page["clients"].as_array().unwrap().len(), 1);
    assert_eq!(page["clients"][0]["id"], all[1]["id"]);
    assert_eq!(code(&http::get(api, "/api/v1/clients/?start=x")), 3008);

    let vhosts = http::get(api, "/api/v1/vhosts/");
    check_shape("vhosts", &vhosts, &format!("{ENVELOPE} vhosts:a"));
    let vhost = &vhosts["vhosts"][0];
    let shape = "id:s name:s enabled:b clients:i streams:i send_bytes:i recv_bytes:i kbps:o hls:o";
    check_shape("vhost", vhost, shape);
    assert_eq!((&vhost["name"], &vhost["id"]), (&json!("__defaultVhost__"), &stream["vhost"]));
    assert_eq!((&vhost["clients"], &vhost["streams"]), (&json!(3), &json!(1)));
    assert_eq!(vhost["hls"], json!({"enabled": false}));
    let id = vhost["id"].as_str().unwrap();
    let one = http::get(api, &format!("/api/v1/vhosts/{id}"));
    check_shape("one vhost", &one, &format!("{ENVELOPE} vhost:o"));
    assert_eq!(code(&http::get(api, "/api/v1/vhosts/vid-0000000")), 2014);

    let shards = http::get(api, "/api/v1/shards");
    let players: u64 =
        shards["shards"].as_array().unwrap().iter().map(|s| s["players"].as_u64().unwrap()).sum();
    assert_eq!(players, 2);
    let alerts = wait_for("an alert", || {
        let alerts = http::get(api, "/api/v1/alerts")["alerts"].clone();
        alerts.as_array().is_some_and(|a| !a.is_empty()).then_some(alerts)
    });
    check_shape("alert", &alerts[0], "alert:s stream:s vhost:s url:s since_ms:i detail:s");
    assert_eq!(alerts[0]["alert"], "b_frames");

    drop((publisher, player, flv));
    wait_for_clients(api, 0);
    server.stop();
}

#[test]
fn figures_of_process_and_machine_as_in_srs() {
    let mut server = Server::start(&[]);
    let pid = server.process_mut().id();
    let api = server.api_addr();
    let data = |path: &str| {
        let answer = http::get(api, path);
        check_shape(path, &answer, &format!("{ENVELOPE} data:o"));
        assert_eq!(answer["pid"], pid.to_string());
        answer["data"].clone()
    };
    wait_for("figures", || (data("/api/v1/summaries")["ok"] == true).then_some(()));
    check_shape("versions", &data("/api/v1/versions"), "major:i minor:i revision:i version:s");
    let summaries = data("/api/v1/summaries");
    check_shape("summaries", &summaries, "ok:b now_ms:i self:o system:o");
    check_shape(
        "self",
        &summaries["self"],
        "version:s pid:i ppid:i argv:s cwd:s mem_kbyte:i mem_percent:f cpu_percent:f srs_uptime:i",
    );
    check_shape(
        "system",
        &summaries["system"],
        "cpu_percent:f disk_read_KBps:i disk_write_KBps:i disk_busy_percent:f mem_ram_kbyte:i \
         mem_ram_percent:f mem_swap_kbyte:i mem_swap_percent:f cpus:i cpus_online:i uptime:f \
         ilde_time:f load_1m:f load_5m:f load_15m:f net_sample_time:i net_recv_bytes:i \
         net_send_bytes:i net_recvi_bytes:i net_sendi_bytes:i srs_sample_time:i srs_recv_bytes:i \
         srs_send_bytes:i conn_sys:i conn_sys_et:i conn_sys_tw:i conn_sys_udp:i conn_srs:i",
    );
    assert_eq!(summaries["self"]["pid"], pid);
    assert!(summaries["self"]["mem_kbyte"].as_u64() > Some(1_000), "{summaries}");
    assert!(summaries["system"]["mem_ram_kbyte"].as_u64() > Some(100_000), "{summaries}");
    check_shape(
        "rusages",
        &data("/api/v1/rusages"),
        "ok:b sample_time:i ru_utime:i ru_stime:i ru_maxrss:i ru_ixrss:i ru_idrss:i ru_isrss:i \
         ru_minflt:i ru_majflt:i ru_nswap:i ru_inblock:i ru_oublock:i ru_msgsnd:i ru_msgrcv:i \
         ru_nsignals:i ru_nvcsw:i ru_nivcsw:i",
    );
    let own = data("/api/v1/self_proc_stats");
    check_shape(
        "self_proc_stats",
        &own,
        "ok:b sample_time:i percent:f pid:i comm:s state:s ppid:i pgrp:i session:i tty_nr:i \
         tpgid:i flags:i minflt:i cminflt:i majflt:i cmajflt:i utime:i stime:i cutime:i cstime:i \
         priority:i nice:i num_threads:i itrealvalue:i starttime:i vsize:i rss:i rsslim:i \
         startcode:i endcode:i startstack:i kstkesp:i kstkeip:i signal:i blocked:i sigignore:i \
         sigcatch:i wchan:i nswap:i cnswap:i exit_signal:i processor:i rt_priority:i policy:i \
         delayacct_blkio_ticks:i guest_time:i cguest_time:i",
    );
    assert_eq!(own["comm"], "ringcast");
    check_shape(
        "system_proc_stats",
        &data("/api/v1/system_proc_stats"),
        "ok:b sample_time:i percent:f user:i nice:i sys:i idle:i iowait:i irq:i softirq:i \
         steal:i guest:i",
    );
    check_shape(
        "meminfos",
        &data("/api/v1/meminfos"),
        "ok:b sample_time:i percent_ram:f percent_swap:f MemActive:i RealInUse:i NotInUse:i \
         MemTotal:i MemFree:i Buffers:i Cached:i SwapTotal:i SwapFree:i",
    );
    check_shape("authors", &data("/api/v1/authors"), "license:s contributors:s");
    let features = data("/api/v1/features");
    check_shape("features", &features, "options:s options2:s build:s build2:s features:o");
    check_shape(
        "features.features",
        &features["features"],
        "ssl:b hls:b hds:b callback:b api:b httpd:b dvr:b transcode:b ingest:b stat:b caster:b \
         complex_send:b tcp_nodelay:b so_sendbuf:b mr:b",
    );
    server.stop();
}

#[test]
fn small_routes_paths_and_methods() {
    let server = Server::start(&[]);
    let api = server.api_addr();
    let root = http::get(api, "/");
    check_shape("/", &root, &format!("{ENVELOPE} urls:o"));
    check_shape("urls", &root["urls"], "api:s rtc:o");
    assert_eq!(http::get(api, "/no/such/page")["urls"], root["urls"]);
    check_shape("/api/ urls", &http::get(api, "/api/")["urls"], "v1:s");
    let v1 = http::get(api, "/api/v1/unknown");
    check_shape("/api/v1/", &v1, &format!("{ENVELOPE} urls:o tests:o"));
    for name in "versions summaries rusages self_proc_stats system_proc_stats meminfos authors \
        features requests vhosts streams clients raw clusters perf tcmalloc valgrind signal"
        .split_whitespace()
    {
        assert!(v1["urls"][name].is_string(), "{name}");
    }
    for name in ["requests", "errors", "redirects", "[vhost]"] {
        assert!(!v1["tests"][name].is_null(), "{name}");
    }
    for path in ["/api", "/api/v1", "/api/v1/vhosts", "/api/v1/streams", "/api/v1/clients"] {
        let answer = http::request(api, "GET", &format!("{path}?a=b"), &[]);
        assert_eq!(answer.status, 302, "{path}");
        assert_eq!(answer.header("location"), Some(format!("{path}/?a=b").as_str()));
    }
    assert_eq!(http::get(api, "/api/v1/tests/errors"), json!({"code": 100}));
    let answer = http::request(api, "GET", "/api/v1/tests/redirects", &[]);
    assert_eq!((answer.status, answer.header("location")), (301, Some("/api/v1/tests/errors")));
    let echo = http::request(api, "POST", "/api/v1/tests/requests?a=b", &["Content-Length: 0"]);
    let echo = echo.json();
    check_shape("echo", &echo["data"], "uri:s path:s METHOD:s headers:o");
    check_shape("headers", &echo["data"]["headers"], "sigature:s version:s link:s time:i");
    assert_eq!(echo["data"]["METHOD"], "POST");
    assert_eq!(echo["data"]["path"], "/api/v1/tests/requests");
    let clusters = http::get(api, "/api/v1/clusters?vhost=v&ip=i&app=live&stream=s&coworker=c");
    let query = json!({"ip": "i", "vhost": "v", "app": "live", "stream": "s"});
    let expected = json!({"code": 0, "data": {"query": query, "origin": null}});
    assert_eq!(clusters, expected);
    assert_eq!(http::get(api, "/api/v1/raw?rpc=raw"), json!({"code": 1061}));
    assert_eq!(http::get(api, "/metrics"), json!({"code": 1090}));

    for (method, path) in [
        ("DELETE", "/api/v1/vhosts/"),
        ("PUT", "/api/v1/streams/"),
        ("POST", "/api/v1/clients/abcdefgh"),
        ("DELETE", "/api/v1/versions"),
        ("TRACE", "/api/v1/versions"),
    ] {
        let answer = http::request(api, method, path, &["Content-Length: 0"]);
        assert_eq!(answer.status, 405, "{method} {path}");
        assert!(answer.header("allow").is_some_and(|allow| allow.contains("GET")));
    }
    let head = http::request(api, "HEAD", "/api/v1/versions", &[]);
    assert_eq!((head.status, head.body.len()), (200, 0));
    let server_name = head.header("server").unwrap();
    assert!(server_name.starts_with("ringcast/"), "{server_name}");
    // SRS: the connection ends without an answer.
    for path in ["/api/../etc/passwd", "/api/%2e%2e/x", "/api/v1/streams/.."] {
        let text = format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
        assert!(http::raw(api, text.as_bytes()).is_empty(), "{path}");
    }
    assert_eq!(http::request(api, "GET", "/api/v1/%zz", &[]).status, 400);
    server.stop();
}

#[test]
fn pages_of_other_sites() {
    let server = Server::start(&[]);
    let api = server.api_addr();
    let plain = http::request(api, "GET", "/api/v1/versions", &[]);
    assert_eq!(plain.header("access-control-allow-origin"), None);
    let cors = http::request(api, "GET", "/api/v1/versions", &["Origin: http://a.com"]);
    for (name, value) in [
        ("access-control-allow-origin", "*"),
        ("access-control-allow-methods", "*"),
        ("access-control-allow-headers", "*"),
        ("access-control-expose-headers", "*"),
        ("access-control-allow-credentials", "false"),
        ("access-control-request-private-network", "true"),
    ] {
        assert_eq!(cors.header(name), Some(value), "{name}");
    }
    let options = http::request(api, "OPTIONS", "/api/v1/clients/x", &["Origin: http://a.com"]);
    assert_eq!((options.status, options.body.len()), (200, 0));
    assert_eq!(options.header("access-control-allow-origin"), Some("*"));

    let jsonp = http::request(api, "GET", "/api/v1/tests/errors?callback=jQuery1.a_b-c", &[]);
    assert_eq!(jsonp.text(), "jQuery1.a_b-c({\"code\":100})");
    assert_eq!(jsonp.header("content-type"), Some("text/javascript"));
    assert_eq!(jsonp.header("x-content-type-options"), Some("nosniff"));
    for bad in ["alert(1)//", "%3Cscript%3E", "a%20b", "", "a%0ab", "%E2%80%A8"] {
        let answer = http::request(api, "GET", &format!("/api/v1/versions?callback={bad}"), &[]);
        assert_eq!(answer.json(), json!({"code": 4058}), "{bad}");
        assert_eq!(answer.header("content-type"), Some("application/json"), "{bad}");
    }
    // The method can be replaced with JSONP, and only with it.
    let path = "/api/v1/clients/abcdefgh?method=DELETE&callback=f";
    assert_eq!(http::request(api, "GET", path, &[]).text(), "f({\"code\":2049})");
    let path = "/api/v1/vhosts/?method=DELETE";
    assert_eq!(http::request(api, "GET", path, &[]).status, 200);
    assert_eq!(http::request(api, "GET", &format!("{path}&callback=f"), &[]).status, 405);
    server.stop();

    let server = Server::start(&["http_server.crossdomain=false"]);
    let api = server.api_addr();
    let cors = http::request(api, "GET", "/api/v1/versions", &["Origin: http://a.com"]);
    assert_eq!(cors.header("access-control-allow-origin"), None);
    assert_eq!(http::request(api, "OPTIONS", "/api/v1/clients/x", &[]).status, 405);
    server.stop();
}

#[test]
fn who_may_ask() {
    let server = Server::start(&[
        "http_api.auth.enabled=true",
        "http_api.auth.username=admin",
        "http_api.auth.password=pass",
        "http_api.auth.token=0123456789abcdef",
        "exporter.enabled=true",
        &format!("exporter.listen=127.0.0.1:{}", free_port()),
    ]);
    let api = server.api_addr();
    let status = |header: &str| {
        let headers: &[&str] = if header.is_empty() { &[] } else { &[header] };
        http::request(api, "GET", "/api/v1/summaries", headers).status
    };
    assert_eq!(status("Authorization: Basic YWRtaW46cGFzcw=="), 200);
    assert_eq!(status("Authorization: Bearer 0123456789abcdef"), 200);
    for bad in [
        "",
        "Authorization: Basic YWRtaW46cGFzcwo=",
        "Authorization: Basic !!!",
        "Authorization: basic YWRtaW46cGFzcw==",
        "Authorization: Bearer 0123456789abcdee",
        "Authorization: Bearer",
        "Authorization: Digest YWRtaW46cGFzcw==",
    ] {
        assert_eq!(status(bad), 401, "{bad}");
    }
    let refused = http::request(api, "GET", "/api/v1/versions", &[]);
    let challenges: Vec<_> =
        refused.headers.iter().filter(|(name, _)| name == "www-authenticate").collect();
    assert_eq!(challenges.iter().map(|(_, v)| v.as_str()).collect::<Vec<_>>(), ["Basic", "Bearer"]);
    // Metrics and the root are open, and questions before a request are.
    assert_eq!(http::request(api, "GET", "/metrics", &[]).status, 200);
    assert_eq!(http::request(api, "GET", "/", &[]).status, 200);
    assert_eq!(http::request(api, "OPTIONS", "/api/v1/summaries", &["Origin: x"]).status, 200);
    server.stop();
}

#[test]
fn closing_connections() {
    let server = Server::start(&["shards=2", "vhost.publish.hold=0"]);
    let api = server.api_addr();
    let delete = |path: &str| http::request(api, "DELETE", path, &[]).json();
    let first = publish(Media::AvcAac, &server.rtmp("live/a"));
    let second = publish(Media::AvcAac, &server.rtmp("live/b"));
    server.wait_for_stream("live/a");
    server.wait_for_stream("live/b");
    let players = [
        play(&server.rtmp("live/a")),
        play(&server.flv("live/a")),
        play(&server.rtmp("live/b")),
        play(&server.flv("live/b")),
    ];
    let all = wait_for_clients(api, 6);
    let [rtmp_a, flv_a, rtmp_b, flv_b] = players;
    let of = |name: &str, kind: &str| -> String {
        let found = all.iter().find(|c| c["name"] == name && c["type"] == kind);
        found.and_then(|client| client["id"].as_str()).expect("that client").to_owned()
    };

    // By client.
    let id = of("a", "rtmp-play");
    let answer = delete(&format!("/api/v1/clients/{id}"));
    check_shape("kick", &answer, ENVELOPE);
    assert_eq!(code(&answer), 0);
    rtmp_a.finish(Duration::from_secs(10));
    wait_for_clients(api, 5);
    assert_eq!(code(&delete(&format!("/api/v1/clients/{id}"))), 2049);

    // By stream: its players, then its publisher.
    let streams = http::get(api, "/api/v1/streams/");
    let stream = streams["streams"].as_array().unwrap().iter().find(|s| s["name"] == "a");
    let stream = stream.and_then(|stream| stream["id"].as_str()).expect("the stream");
    assert_eq!(code(&delete(&format!("/api/v1/streams/{stream}?role=play"))), 0);
    flv_a.finish(Duration::from_secs(10));
    let left = wait_for_clients(api, 4);
    assert!(left.iter().any(|client| client["name"] == "a" && client["publish"] == true));
    assert_eq!(code(&delete(&format!("/api/v1/streams/{stream}?role=x"))), 3008);
    assert_eq!(code(&delete(&format!("/api/v1/streams/{stream}"))), 0);
    first.finish(Duration::from_secs(10));
    let left = wait_for_clients(api, 3);
    assert!(left.iter().all(|client| client["name"] == "b"), "{left:?}");

    // By address.
    assert_eq!(code(&delete("/api/v1/clients/")), 3008);
    assert_eq!(code(&delete("/api/v1/clients/?ip=localhost")), 3008);
    assert_eq!(code(&delete("/api/v1/clients/?ip=192.0.2.1")), 0);
    thread::sleep(Duration::from_millis(300));
    assert_eq!(clients(api).len(), 3);
    let ip = left[0]["ip"].as_str().unwrap();
    assert_eq!(code(&delete(&format!("/api/v1/clients/?ip={ip}"))), 0);
    for process in [second, rtmp_b, flv_b] {
        process.finish(Duration::from_secs(10));
    }
    wait_for_clients(api, 0);
    let shards = http::get(api, "/api/v1/shards");
    let kicked: u64 = shards["shards"]
        .as_array()
        .unwrap()
        .iter()
        .map(|shard| shard["reasons"]["kicked"].as_u64().unwrap_or(0))
        .sum();
    // A player whose publisher is kicked may be gone with the stream before its own kick comes.
    assert!((5..=6).contains(&kicked), "{kicked}");
    server.stop();
}

#[test]
fn addresses_as_proxies_state_them() {
    let server = Server::start(&[]);
    let api = server.api_addr();
    let publisher = publish(Media::AvcAac, &server.rtmp("live/cam"));
    server.wait_for_stream("live/cam");
    let ask = |header: &str| {
        let mut stream = TcpStream::connect(server.http_addr()).expect("connect");
        stream.set_read_timeout(Some(Duration::from_secs(10))).expect("timeout");
        let head = format!("GET /live/cam.flv HTTP/1.1\r\nHost: x\r\n{header}\r\n\r\n");
        stream.write_all(head.as_bytes()).expect("send");
        stream
    };
    let first = ask("X-Forwarded-For: 203.0.113.9, 10.0.0.1");
    let second = ask("X-Real-IP: 198.51.100.7:4711");
    let all = wait_for_clients(api, 3);
    let ips: Vec<_> = all.iter().filter(|c| c["publish"] == false).map(|c| &c["ip"]).collect();
    assert!(
        ips.contains(&&json!("203.0.113.9")) && ips.contains(&&json!("198.51.100.7")),
        "{ips:?}"
    );
    let kick = http::request(api, "DELETE", "/api/v1/clients/?ip=203.0.113.9", &[]);
    assert_eq!(code(&kick.json()), 0);
    let _ = (&mut &first).read_to_end(&mut Vec::new());
    let left = wait_for_clients(api, 2);
    assert_eq!(of_type(&left, "flv-play")["ip"], "198.51.100.7");
    drop((second, publisher));
    server.stop();
}

/// Reads events until one of these kinds has come; gives their data and the last id.
fn read_event(reader: &mut impl BufRead, kind: &str) -> (u64, Value) {
    let (mut id, mut event, mut data) = (0, String::new(), Value::Null);
    loop {
        let mut line = String::new();
        assert!(reader.read_line(&mut line).expect("events in time") > 0, "the events end");
        let line = line.trim_end();
        if let Some(text) = line.strip_prefix("id: ") {
            id = text.parse().expect("a number");
        } else if let Some(text) = line.strip_prefix("event: ") {
            event = text.to_owned();
        } else if let Some(text) = line.strip_prefix("data: ") {
            data = serde_json::from_str(text).expect("JSON");
        } else if line.is_empty() && event == kind {
            return (id, data);
        }
    }
}

fn follow_events(api: SocketAddr, header: &str) -> BufReader<TcpStream> {
    let mut stream = TcpStream::connect(api).expect("connect");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("timeout");
    let head = format!("GET /api/v1/events HTTP/1.0\r\n{header}\r\n");
    stream.write_all(head.as_bytes()).expect("send");
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    let mut is_events = false;
    while reader.read_line(&mut line).expect("a head") > 0 && line != "\r\n" {
        is_events |= line.to_lowercase().starts_with("content-type: text/event-stream");
        line.clear();
    }
    assert!(is_events);
    reader
}

#[test]
fn events_as_they_happen() {
    let server = Server::start(&["vhost.publish.hold=0"]);
    let api = server.api_addr();
    let mut events = follow_events(api, "");
    let publisher = publish(Media::AvcBFramesAac, &server.rtmp("live/cam"));
    let (first, data) = read_event(&mut events, "publish");
    assert_eq!((&data["url"], &data["type"]), (&json!("/live/cam"), &json!("fmle-publish")));
    let player = play(&server.flv("live/cam"));
    let (second, data) = read_event(&mut events, "play");
    assert_eq!((&data["type"], &data["protocol"]), (&json!("flv-play"), &json!("http-flv")));
    assert!(second > first);
    let client = data["client"].as_str().unwrap().to_owned();
    let (_, alert) = read_event(&mut events, "alert");
    assert_eq!(alert["url"], "/live/cam");
    http::request(api, "DELETE", &format!("/api/v1/clients/{client}"), &[]);
    let (stopped, data) = read_event(&mut events, "stop");
    assert_eq!((&data["client"], &data["reason"]), (&json!(client), &json!("kicked")));
    assert!(data["send_bytes"].as_u64() > Some(0), "{data}");
    player.finish(Duration::from_secs(10));
    drop(publisher);
    let (_, data) = read_event(&mut events, "unpublish");
    assert!(data["recv_bytes"].as_u64() > Some(10_000), "{data}");

    // Who comes back gets what it has missed, and no more.
    let mut again = follow_events(api, &format!("Last-Event-ID: {}\r\n", stopped - 1));
    let (id, _) = read_event(&mut again, "stop");
    assert_eq!(id, stopped);
    read_event(&mut again, "unpublish");
    drop((events, again));
    let bad = http::request(api, "GET", "/api/v1/events", &["Last-Event-ID: x"]);
    assert_eq!(bad.json(), json!({"code": 3008}));
    server.stop();
}

#[test]
fn one_port_for_streams_and_api() {
    // Both on the port of the HTTP server.
    let probe = Server::start(&[]);
    let http_addr = probe.http_addr();
    probe.stop();
    let server = Server::start(&[
        &format!("http_server.listen={http_addr}"),
        &format!("http_api.listen={http_addr}"),
        "exporter.enabled=true",
        &format!("exporter.listen=127.0.0.1:{}", free_port()),
    ]);
    let publisher = publish(Media::AvcAac, &server.rtmp("live/cam"));
    let all = wait_for_clients(http_addr, 1);
    let player = play(&format!("http://{http_addr}/live/cam.flv"));
    wait_for_clients(http_addr, 2);
    assert_eq!(http::get(http_addr, "/api/v1/summaries")["code"], 0);
    assert_eq!(http::get(http_addr, "/api/v1/versions")["code"], 0);
    assert!(http::request(http_addr, "GET", "/metrics", &[]).text().contains("srs_clients 2"));
    let page = http::request(http_addr, "GET", "/", &[]);
    assert!(page.header("content-type").unwrap().starts_with("text/html"));
    assert_eq!(http::request(http_addr, "GET", "/no/such/page", &[]).status, 404);

    // One connection that asks for both, in pieces. Behind an answer of the API it ends, because
    // what comes next could be for the streams.
    let mut stream = TcpStream::connect(http_addr).expect("connect");
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("timeout");
    let requests = "GET /streams.json HTTP/1.1\r\nHost: x\r\n\r\n\
                    GET /api/v1/clients/?count=1 HTTP/1.1\r\nHost: x\r\n\r\n";
    for piece in requests.as_bytes().chunks(17) {
        stream.write_all(piece).expect("send");
        thread::sleep(Duration::from_millis(5));
    }
    let mut answers = Vec::new();
    stream.read_to_end(&mut answers).expect("the connection ends");
    let text = String::from_utf8_lossy(&answers);
    assert_eq!(text.matches("HTTP/1.1 200 OK").count(), 2, "{text}");
    assert!(text.contains("connection: close"), "{text}");
    let order = ["\"streams\":[{", "\"clients\":[{"].map(|part| text.find(part));
    assert!(order.iter().all(Option::is_some) && order.is_sorted(), "{order:?} {text}");

    // A burst: what the data plane gives away must all be answered.
    let threads: Vec<_> = (0..8)
        .map(|_| {
            thread::spawn(move || {
                for _ in 0..50 {
                    assert_eq!(http::get(http_addr, "/api/v1/streams/")["code"], 0);
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().expect("every answer"));
    let id = all[0]["id"].as_str().unwrap();
    let kicked = http::request(http_addr, "DELETE", &format!("/api/v1/clients/{id}"), &[]);
    assert_eq!(kicked.json()["code"], 0);
    publisher.finish(Duration::from_secs(10));
    drop(player);
    server.stop();
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("bound").port()
}

#[test]
fn https() {
    let certificate = Certificate::make("api");
    let (cert, key) = (&certificate.cert, &certificate.key);
    let port = free_port();
    let server = Server::start(&[
        "http_api.https.enabled=true",
        &format!("http_api.https.listen=127.0.0.1:{port}"),
        &format!("http_api.https.key={}", key.display()),
        &format!("http_api.https.cert={}", cert.display()),
    ]);
    for version in ["-tls1_2", "-tls1_3"] {
        let request = "printf 'GET /api/v1/versions HTTP/1.1\\r\\nHost: x\\r\\n\
                       Connection: close\\r\\n\\r\\n'";
        let client = format!(
            "({request}; sleep 2) | openssl s_client -quiet {version} -verify_return_error \
             -CAfile {} -connect 127.0.0.1:{port} 2>/dev/null",
            cert.display()
        );
        let done = Process::start("openssl", Command::new("sh").args(["-c", &client]))
            .finish(Duration::from_secs(15));
        let text = done.stdout.join("\n");
        assert!(
            text.contains("HTTP/1.1 200 OK") && text.contains("\"major\":"),
            "{version} {text}"
        );
    }
    // A peer that speaks no TLS costs nothing but its own connection.
    let addr = SocketAddr::from(([127, 0, 0, 1], port));
    http::raw(addr, b"GET / HTTP/1.1\r\n\r\n");
    assert_eq!(http::get(server.api_addr(), "/api/v1/versions")["code"], 0);
    server.stop();
}

#[test]
fn metrics_by_srs_names_and_ours() {
    let port = free_port();
    let server = Server::start(&[
        "shards=2",
        "exporter.enabled=true",
        &format!("exporter.listen=127.0.0.1:{port}"),
        "exporter.label=cn-beijing",
        "exporter.tag=edge",
    ]);
    let publisher = publish(Media::AvcAac, &server.rtmp("live/cam"));
    server.wait_for_stream("live/cam");
    let player = play(&server.rtmp("live/cam"));
    wait_for_clients(server.api_addr(), 2);
    thread::sleep(Duration::from_secs(4));
    let exporter = SocketAddr::from(([127, 0, 0, 1], port));
    let answer = http::request(exporter, "GET", "/metrics", &[]);
    assert_eq!(answer.header("content-type"), Some("text/plain; charset=utf-8"));
    let text = answer.text();
    let value = |name: &str| -> f64 {
        let line = text.lines().find(|line| line.starts_with(&format!("{name} ")));
        let value = line.and_then(|line| line.rsplit(' ').next());
        value.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("{name} in {text}"))
    };
    let type_of = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("# TYPE {name} ")));
        line.unwrap_or_else(|| panic!("no type of {name}"))
    };
    for (name, kind) in [
        ("srs_node_uname_info", "gauge"),
        ("srs_build_info", "gauge"),
        ("srs_cpu_percent", "gauge"),
        ("srs_memory", "gauge"),
        ("srs_send_bytes_total", "counter"),
        ("srs_receive_bytes_total", "counter"),
        ("srs_streams", "gauge"),
        ("srs_clients", "gauge"),
        ("srs_clients_total", "counter"),
        ("srs_clients_errs_total", "counter"),
        ("ringcast_reasons_total", "counter"),
        ("ringcast_added_latency_seconds", "histogram"),
        ("ringcast_media_memory_used_bytes", "gauge"),
    ] {
        assert_eq!(type_of(name), kind, "{name}");
    }
    assert_eq!((value("srs_streams"), value("srs_clients")), (1.0, 2.0));
    assert_eq!((value("srs_clients_total"), value("srs_clients_errs_total")), (2.0, 0.0));
    assert!(value("srs_memory") > 1_000.0 && value("srs_receive_bytes_total") > 10_000.0);
    let build = text.lines().find(|line| line.starts_with("srs_build_info{")).unwrap();
    for part in ["server=\"vid-", "service=\"", "label=\"cn-beijing\"", "tag=\"edge\"", "} 1"] {
        assert!(build.contains(part), "{part} in {build}");
    }
    let count = text.lines().filter(|line| line.contains("_added_latency_seconds_count")).count();
    assert_eq!(count, 2, "one per shard");
    // The dashboard asks for nothing that does not exist.
    let dashboard = Path::new(env!("CARGO_MANIFEST_DIR")).join("../conf/grafana.json");
    let dashboard = std::fs::read_to_string(dashboard).expect("the dashboard");
    serde_json::from_str::<Value>(&dashboard).expect("JSON");
    let word = |c: char| !(c.is_ascii_alphanumeric() || c == '_');
    let asked =
        dashboard.split(word).filter(|w| w.starts_with("srs_") || w.starts_with("ringcast_"));
    for name in asked {
        let family = name.trim_end_matches("_bucket");
        assert!(text.contains(&format!("# TYPE {family} ")), "{name} is not among the metrics");
    }
    // The same on the API's port, and nothing but metrics on the exporter's.
    let on_api = http::request(server.api_addr(), "GET", "/metrics", &[]);
    assert!(on_api.text().contains("srs_clients 2\n"));
    assert_eq!(http::request(exporter, "GET", "/api/v1/clients/", &[]).status, 404);
    drop((publisher, player));
    server.stop();
}

#[test]
fn the_configuration_read_anew() {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .join(format!("api-reload-{}.toml", std::process::id()));
    std::fs::write(&path, "[http_api.raw_api]\nenabled = true\nallow_reload = true\n").unwrap();
    let server = Server::start_with_file(&path, &[]);
    let api = server.api_addr();
    let raw = http::get(api, "/api/v1/raw?rpc=raw");
    check_shape("raw", &raw, "code:i http_api:o");
    check_shape("http_api", &raw["http_api"], "enabled:b listen:s crossdomain:b raw_api:o");
    let raw_api = json!({"enabled": true, "allow_reload": true, "allow_query": false,
        "allow_update": false});
    assert_eq!(raw["http_api"]["raw_api"], raw_api);
    let fetch = || http::get(api, "/api/v1/raw?rpc=reload-fetch")["data"].clone();
    assert_eq!(fetch(), json!({"err": 0, "msg": "", "state": 0, "rid": "0"}));
    assert_eq!(http::get(api, "/api/v1/raw?rpc=query"), json!({"code": 1060}));

    std::fs::write(&path, "[http_api.raw_api]\nenabled = true\nallow_relaod = true\n").unwrap();
    assert_eq!(http::get(api, "/api/v1/raw?rpc=reload"), json!({"code": 0}));
    let failed = fetch();
    assert_eq!(
        (&failed["err"], &failed["state"], &failed["rid"]),
        (&json!(1023), &json!(90), &json!("1"))
    );
    assert!(failed["msg"].as_str().unwrap().contains("allow_relaod"), "{failed}");

    std::fs::write(&path, "[http_api.raw_api]\nenabled = true\n").unwrap();
    assert_eq!(http::get(api, "/api/v1/raw?rpc=reload"), json!({"code": 0}));
    assert_eq!((&fetch()["err"], &fetch()["rid"]), (&json!(0), &json!("2")));
    // What is in force now forbids the next one.
    assert_eq!(http::get(api, "/api/v1/raw?rpc=reload"), json!({"code": 1060}));
    server.stop();
    std::fs::remove_file(path).expect("remove");
}

#[test]
fn clients_that_misbehave() {
    let mut server = Server::start(&[]);
    let api = server.api_addr();
    let pid = server.process_mut().id();
    let descriptors = || std::fs::read_dir(format!("/proc/{pid}/fd")).expect("fds").count();
    // An answer shows that the control thread has opened what it keeps open.
    assert_eq!(http::get(api, "/api/v1/versions")["code"], 0);
    let before = descriptors();

    let long = format!("GET /api/v1/versions HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(40_000));
    let answer = http::raw(api, long.as_bytes());
    assert!(answer.is_empty() || http::parse(&answer).status == 431, "{answer:?}");
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(500));
    assert_eq!(http::parse(&http::raw(api, many.as_bytes())).status, 431);
    let target = format!("/api/v1/versions?{}", "a".repeat(9_000));
    assert_eq!(http::request(api, "GET", &target, &[]).status, 414);
    let params = "a=b&".repeat(100);
    let answer = http::request(api, "GET", &format!("/api/v1/versions?{params}"), &[]);
    assert_eq!(answer.status, 400);
    let body = http::request(api, "POST", "/api/v1/tests/requests", &["Content-Length: 100000"]);
    assert_eq!(body.status, 413);
    assert_eq!(http::parse(&http::raw(api, b"\x16\x03\x01 rubbish\r\n\r\n")).status, 400);

    // Who says nothing is let go after 15 s; others are served meanwhile.
    let silent: Vec<_> =
        (0..200).map(|_| TcpStream::connect(api).expect("the backlog has room")).collect();
    for half in silent.iter().skip(100) {
        (&mut &*half).write_all(b"GET /api/v1/versi").expect("send");
    }
    assert_eq!(http::get(api, "/api/v1/versions")["code"], 0);
    let began = Instant::now();
    for stream in silent {
        stream.set_read_timeout(Some(Duration::from_secs(25))).expect("timeout");
        let mut rest = Vec::new();
        let _ = (&mut &stream).read_to_end(&mut rest);
    }
    assert!(began.elapsed() < Duration::from_secs(24), "{:?}", began.elapsed());
    wait_for("descriptors come back", || (descriptors() <= before + 2).then_some(()));
    server.stop();
}
