//! What somebody who runs SRS sees who comes here with a configuration of theirs: two vhosts, one
//! with rules by address, one whose callbacks decide; the API over HTTPS with a password; ffmpeg on
//! both ends.

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;

use common::certificate::Certificate;
use common::hook_server::{Behaviour, HookRequest, HookServer};
use common::media::{self, Media};
use common::packets;
use common::process::Process;
use common::scratch;
use common::server::Server;
use common::wait::{LONG, wait_for};
use loadtest::client::RtmpPlayer;
use serde_json::Value;

/// Players leave when nothing arrives for this long (microseconds).
const READ_TIMEOUT: [&str; 2] = ["-rw_timeout", "4000000"];

/// The callback server: in `paid.test` everybody needs the right token.
fn decide(request: &HookRequest) -> Behaviour {
    match request.text_of("action") {
        "on_publish" | "on_play" if !request.text_of("param").contains("token=good") => {
            Behaviour::Answer(200, "{\"code\":403}".into())
        }
        _ => Behaviour::ok(),
    }
}

/// The API as an operator asks it, over HTTPS.
struct Api {
    root: String,
    cert: PathBuf,
}

impl Api {
    fn curl(&self, args: &[&str], path: &str) -> Vec<String> {
        let mut command = Command::new("curl");
        command.args(["--silent", "--show-error", "--max-time", "10", "--cacert"]);
        command.arg(&self.cert).args(args).arg(format!("{}{path}", self.root));
        Process::start("curl", &mut command).finish(LONG).expect_success("curl").stdout
    }

    fn get(&self, path: &str) -> Value {
        let text = self.curl(&["--user", "admin:secret word"], path).join("\n");
        serde_json::from_str(&text).unwrap_or_else(|why| panic!("{path}: {why}: {text}"))
    }

    fn list(&self, name: &str) -> Vec<Value> {
        let answer = self.get(&format!("/api/v1/{name}/?count=100"));
        assert_eq!(answer["code"], 0, "{answer}");
        answer[name].as_array().expect("a list").clone()
    }
}

/// Publishes six seconds in fifteen, so that there is time to look around.
fn publish_slowly(file: &Path, url: &str) -> Process {
    let mut command = media::ffmpeg();
    command.args(["-readrate", "0.4", "-copyts", "-i"]).arg(file);
    command.args(["-c", "copy", "-f", "flv"]).arg(url);
    Process::start("ffmpeg (publisher)", &mut command)
}

#[test]
fn an_operator_of_srs_comes_here() {
    let hooks = HookServer::start(decide);
    let certificate = Certificate::make("story");
    let (cert, key) = (&certificate.cert, &certificate.key);
    let api_port = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.local_addr().expect("bound").port()
    };
    let callback = |name: &str| format!("on_{name} {};", hooks.url(&format!("/{name}")));
    let callbacks = ["connect", "close", "publish", "unpublish", "play", "stop"].map(callback);
    let remux = "http_remux { enabled on; mount [vhost]/[app]/[stream].flv; }";
    let text = format!(
        "listen 1935;\nmax_connections 1000;\ndaemon off;\nsrs_log_tank console;\npid '{}';\n\
         http_server {{ enabled on; listen 8080; }}\n\
         http_api {{\n enabled on;\n listen 1985;\n\
         auth {{ enabled on; username admin; password 'secret word'; }}\n\
         https {{ enabled on; listen 127.0.0.1:{api_port}; key '{}'; cert '{}'; }}\n}}\n\
         vhost open.test {{\n {remux}\n security {{ enabled on;\n allow publish 127.0.0.1;\n\
         allow play all;\n deny play 127.0.0.9;\n }}\n}}\n\
         vhost paid.test {{\n {remux}\n http_hooks {{ enabled on;\n {}\n }}\n}}\n",
        scratch::path("story.pid").display(),
        key.display(),
        cert.display(),
        callbacks.join("\n "),
    );
    let file = scratch::path("story.conf");
    std::fs::write(&file, text).expect("written");
    let server = Server::start_with_file(&file, &["shards=2", "vhost.publish.hold=0"]);
    let api = Api { root: format!("https://127.0.0.1:{api_port}"), cert: cert.clone() };

    // Who may not publish: nobody in a vhost that is not listed, nobody without the token.
    let medium = Media::AvcAac.file();
    let published = packets::of_file(&media::as_published(&medium));
    let url = |query: &str| format!("{}?{query}", server.rtmp("live/cam"));
    for bad in ["vhost=unlisted.test", "vhost=paid.test", "vhost=paid.test&token=bad"] {
        let end = media::publish(&medium, &url(bad)).finish(LONG);
        assert!(!end.status.success(), "{bad} was let in");
    }

    // Both vhosts have a stream of this name; each player gets its own, whole.
    let (open, paid) = (url("vhost=open.test"), url("vhost=paid.test&token=good"));
    let publishers = [publish_slowly(&medium, &open), publish_slowly(&medium, &paid)];
    wait_for("two streams", || Some(()).filter(|()| api.list("streams").len() == 2));
    let flv = |query: &str| format!("{}?{query}", server.flv("live/cam"));
    let urls =
        [open.clone(), flv("vhost=open.test"), paid.clone(), flv("vhost=paid.test&token=good")];
    let players: Vec<_> = urls.iter().map(|url| packets::list(&READ_TIMEOUT, url)).collect();
    let refused = RtmpPlayer::connect_from(&open, Some([127, 0, 0, 9].into()));
    assert!(refused.is_err(), "denied by address");
    let (head, _) = server.get("/live/cam.flv?vhost=paid.test&token=bad");
    assert!(head.starts_with("HTTP/1.1 403"), "{head}");

    // The API: not without the password; the same ids as in the callbacks.
    let status =
        api.curl(&["--output", "/dev/null", "--write-out", "%{http_code}"], "/api/v1/streams/");
    assert_eq!(status, ["401"]);
    let clients =
        wait_for("six clients", || Some(api.list("clients")).filter(|clients| clients.len() == 6));
    let streams = api.list("streams");
    let versions = api.get("/api/v1/versions");
    let vhosts = api.list("vhosts");
    assert!(vhosts.iter().any(|vhost| vhost["name"] == "open.test"), "{vhosts:?}");
    let in_paid = streams.iter().find(|s| s["url"] == "paid.test/live/cam").unwrap_or_else(|| {
        panic!("{streams:?}");
    });
    let said = |action: &'static str| {
        move |r: &HookRequest| r.text_of("action") == action && r.text_of("param").contains("good")
    };
    let begun =
        [hooks.wait_for(1, LONG, said("on_publish")), hooks.wait_for(2, LONG, said("on_play"))];
    for request in begun.concat() {
        assert_eq!(request.body["stream_id"], in_paid["id"]);
        assert_eq!(request.body["stream_url"], in_paid["url"]);
        assert_eq!(request.body["server_id"], versions["server"]);
        assert_eq!(request.body["service_id"], versions["service"]);
        let client = clients.iter().find(|client| client["id"] == request.body["client_id"]);
        let client = client.unwrap_or_else(|| panic!("no client of {request:?} in {clients:?}"));
        assert_eq!(client["stream"], in_paid["id"]);
        assert_eq!(client["ip"], request.body["ip"]);
        assert_eq!(client["tcUrl"], request.body["tcUrl"]);
        assert_eq!(client["publish"], request.text_of("action") == "on_publish");
    }

    // A kick ends a player, and the callbacks hear of it.
    let kicked = RtmpPlayer::connect(&paid).expect("one more player");
    let play = hooks.wait_for(3, LONG, said("on_play")).pop().expect("the newest");
    let id = play.text_of("client_id").to_owned();
    let args = ["--user", "admin:secret word", "--request", "DELETE"];
    let answer = api.curl(&args, &format!("/api/v1/clients/{id}")).join("");
    assert_eq!(serde_json::from_str::<Value>(&answer).expect("JSON")["code"], 0, "{answer}");
    let of_kicked = move |r: &HookRequest| r.text_of("client_id") == id;
    let told = hooks.wait_for(4, LONG, of_kicked);
    let actions: Vec<_> = told.iter().map(|r| r.text_of("action")).collect();
    assert_eq!(actions, ["on_connect", "on_play", "on_stop", "on_close"]);
    drop(kicked);

    for publisher in publishers {
        publisher.finish(LONG).expect_success("ffmpeg");
    }
    for (url, player) in urls.iter().zip(players) {
        packets::assert_is_tail(url, &packets::finish(player, LONG), &published);
    }
    hooks.wait_for(1, LONG, said("on_unpublish"));
    hooks.wait_for(3, LONG, said("on_stop"));
    server.stop();
    // Each beginning that was let in has its end, and each client of RTMP its close.
    let all = hooks.requests();
    let good = |action: &'static str| all.iter().filter(|r| said(action)(r)).count();
    assert_eq!((good("on_publish"), good("on_unpublish")), (1, 1));
    assert_eq!((good("on_play"), good("on_stop")), (3, 3));
    let count = |action: &str| all.iter().filter(|r| r.text_of("action") == action).count();
    // Three publishers, one of them let in; two players of RTMP.
    assert_eq!((count("on_connect"), count("on_close")), (5, 5));
    assert!(all.iter().all(|r| r.text_of("vhost") == "paid.test"), "hooks of one vhost only");
}
