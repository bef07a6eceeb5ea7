//! SRS's small routes: what there is, who made it, the raw API, clusters, tests.

use serde_json::{Map, Value, json};

use super::reply::{Code, Reply};
use super::{Request, host_name};
use crate::config::{Config, ListenAddr};
use crate::control::serve::Handle;
use crate::media::name::StreamName;
use crate::version;

/// Where it says who made this.
const CONTRIBUTORS: &str = "file:README.md";

/// SRS's code of a configuration that is wrong.
const CONFIG_INVALID: i32 = 1023;

/// `/` on a port of the API's own.
pub(super) fn root_urls() -> Value {
    json!({
        "api": "the api root",
        "rtc": { "v1": {
            "play": "Play stream",
            "publish": "Publish stream",
            "nack": "Simulate the NACK",
        } },
    })
}

/// `/api/v1/`.
pub(super) fn v1() -> Reply {
    let urls = json!({
        "versions": "the version of ringcast",
        "summaries": "the summary(pid, argv, pwd, cpu, mem) of ringcast",
        "rusages": "the rusage of ringcast",
        "self_proc_stats": "the self process stats",
        "system_proc_stats": "the system process stats",
        "meminfos": "the meminfo of system",
        "authors": "the license and authors",
        "features": "the supported features",
        "requests": "the request itself, for http debug",
        "vhosts": "manage all vhosts or specified vhost",
        "streams": "manage all streams or specified stream; DELETE closes its connections",
        "clients": "manage all clients or specified client, default query top 10 clients, with \
                    ?stream= those of a stream; DELETE closes one, or with ?ip= all of an \
                    address",
        "dvrs": "what is recorded; POST to the id of a stream begins, DELETE ends a recording",
        "uploads": "what is uploaded to an object store, and what waits for it",
        "raw": "raw api, reload the configuration",
        "clusters": "origin cluster server API",
        "perf": "System performance stat",
        "tcmalloc": "tcmalloc api with params ?page=summary|api",
        "valgrind": "valgrind api with params ?check=full|added|changed|new|quick",
        "signal": "simulate signal api with params ?signo=SIGHUP|SIGUSR1",
        "alerts": "what operators should look at",
        "server": "ports, limits and what may be done, for consoles",
        "shards": "what each shard does and what it refused, by reason",
        "events": "server-sent events of publish, unpublish, play, stop and alerts",
        "openapi.json": "this API as OpenAPI 3.1",
    });
    let tests = json!({
        "requests": "show the request info",
        "errors": "always return an error 100",
        "redirects": "always redirect to /api/v1/test/errors",
        "[vhost]": {
            "requests": "http://error.srs.com:1985/api/v1/tests/errors",
        },
    });
    Reply::success(&[("urls", urls), ("tests", tests)])
}

/// `/api/v1/authors`.
pub(super) fn authors() -> Value {
    json!({ "license": "MIT", "contributors": CONTRIBUTORS })
}

/// `/api/v1/features`: what this build can do.
pub(super) fn features(config: &Config) -> Value {
    let options = "--https=on --callback=on --hls=off --hds=off --dvr=on --transcode=off \
                   --ingest=off --stat=on --stream-caster=off";
    json!({
        "options": options,
        "options2": "",
        "build": version::VERSION,
        "build2": env!("CARGO_PKG_RUST_VERSION"),
        "features": {
            "ssl": true,
            "hls": config.all_vhosts().any(|(_, vhost)| vhost.hls.enabled),
            "hds": false,
            "callback": true,
            "api": config.http_api.enabled,
            "httpd": config.http_server.enabled,
            "dvr": true,
            "transcode": false,
            "ingest": false,
            "stat": true,
            "caster": false,
            // What these switch in SRS is how this server always works.
            "complex_send": true,
            "tcp_nodelay": true,
            "so_sendbuf": true,
            "mr": true,
        },
    })
}

/// `/api/v1/raw`.
pub(super) fn raw(handle: &Handle, request: &Request<'_>) -> Reply {
    let config = handle.config();
    let raw = &config.http_api.raw_api;
    if !raw.enabled {
        return Reply::failure(Code::RawDisabled);
    }
    match request.param("rpc") {
        Some("raw") => {
            let listen = config.http_api.listen.first().map(ListenAddr::to_string);
            let http_api = json!({
                "enabled": config.http_api.enabled,
                "listen": listen.unwrap_or_default(),
                "crossdomain": config.http_server.crossdomain,
                "raw_api": {
                    "enabled": raw.enabled,
                    "allow_reload": raw.allow_reload,
                    "allow_query": false,
                    "allow_update": false,
                },
            });
            Reply::bare(&[("http_api", http_api)])
        }
        Some("reload") if raw.allow_reload => {
            // What is wrong has been logged, and is told by rpc=reload-fetch.
            let _ = handle.reloader.reload("the API");
            Reply::bare(&[])
        }
        Some("reload-fetch") => {
            let last = handle.reloader.last().clone();
            // SRS's states: 0 nothing yet, 90 done. It is never seen in between.
            let data = json!({
                "err": if last.error.is_empty() { 0 } else { CONFIG_INVALID },
                "msg": last.error,
                "state": if last.number == 0 { 0 } else { 90 },
                "rid": last.number.to_string(),
            });
            Reply::bare(&[("data", data)])
        }
        _ => Reply::failure(Code::RawNotAllowed),
    }
}

/// `/api/v1/clusters`: where a stream is published, for other origins.
pub(super) fn clusters(handle: &Handle, request: &Request<'_>) -> Reply {
    let config = handle.config();
    let text = |name| request.param(name).unwrap_or_default().to_owned();
    let (ip, vhost, app, stream) = (text("ip"), text("vhost"), text("app"), text("stream"));
    let coworker = text("coworker");
    let name = StreamName::new(config.vhost_name(&vhost), &app, &stream).ok();
    let published = name
        .and_then(|name| handle.streams.find(&name))
        .is_some_and(|stream| stream.is_published());
    let listen = config.listen.first();
    let origin = match (published, listen) {
        (true, Some(listen)) => {
            let own = match *listen {
                ListenAddr::Addr(addr) if !addr.ip().is_unspecified() => addr.ip().to_string(),
                _ if !coworker.is_empty() => host_name(&coworker),
                _ => super::super::local_ip().to_string(),
            };
            let api = config.http_api.listen.first().map_or(0, ListenAddr::port);
            let api = match own.contains(':') {
                true => format!("[{own}]:{api}"),
                false => format!("{own}:{api}"),
            };
            json!({
                "ip": own, "port": listen.port(), "vhost": vhost, "api": api, "routers": [api],
            })
        }
        _ => Value::Null,
    };
    let query = json!({ "ip": ip, "vhost": vhost, "app": app, "stream": stream });
    Reply::bare(&[("data", json!({ "query": query, "origin": origin }))])
}

/// `/api/v1/tests/requests`: the request itself.
pub(super) fn echo(request: &Request<'_>) -> Reply {
    let host = request.header("host").unwrap_or_default();
    let (path, query) = (request.ask.path, request.ask.query);
    let mark = if query.is_empty() { "" } else { "?" };
    // SRS: instead of the header fields, with the word spelt so. So none of their secrets shows.
    let mut headers = Map::new();
    headers.insert("sigature".into(), "ringcast".into());
    headers.insert("version".into(), version::VERSION.into());
    headers.insert("link".into(), CONTRIBUTORS.into());
    headers.insert("time".into(), super::super::wall_ms().into());
    let data = json!({
        "uri": format!("http://{host}{path}{mark}{query}"),
        "path": path,
        "METHOD": request.method.as_str(),
        "headers": headers,
    });
    Reply::success(&[("data", data)])
}
