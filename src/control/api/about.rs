//! `/api/v1/server`: what the console and `ringcast top` want to know of the server itself.

use std::sync::atomic::Ordering::Relaxed;

use serde_json::{Map, Value, json};

use super::stats::ApiStats;
use crate::config::{Config, ListenAddr};
use crate::control::serve::Handle;
use crate::version;

/// Ports, what may be done, limits, and counters that no shard has.
pub(super) fn server(handle: &Handle, stats: &ApiStats) -> Value {
    let config = handle.config();
    let arena = handle.arena.stats();
    let raw = &config.http_api.raw_api;
    let hooks = &handle.hook_stats;
    let calls: u64 = hooks.buckets().iter().sum();
    let count = |(name, n): (&'static str, u64)| (n > 0).then(|| (name.to_owned(), n.into()));
    let refused: Map<String, Value> = stats.refused().filter_map(count).collect();
    json!({
        "version": version::VERSION,
        "ports": ports(&config),
        "mounts": mounts(&config),
        "may_reload": raw.enabled && raw.allow_reload,
        "connections": handle.gate.connections(),
        "max_connections": config.max_connections,
        "media_memory": { "used": arena.used, "limit": arena.limit },
        "hooks": {
            "calls": calls,
            "failed": hooks.failed(),
            "mean_ms": hooks.total().as_millis() as u64 / calls.max(1),
        },
        "api": { "connections": stats.connections.load(Relaxed), "refused": refused },
    })
}

/// The first port of each; 0 where nothing listens.
fn ports(config: &Config) -> Value {
    let first = |listen: &[ListenAddr]| listen.first().map_or(0, ListenAddr::port);
    let port = |secure| config.http_origin(secure).map_or(0, |(_, port)| port);
    json!({
        "rtmp": first(&config.listen),
        "http": port(false),
        "https": if config.serves_https() { port(true) } else { 0 },
        "api": first(&config.http_api.listen),
    })
}

/// Under which path a vhost's streams are played over HTTP; `*` is for those without an own one.
fn mounts(config: &Config) -> Value {
    let served = |vhost: &crate::config::Vhost| match vhost.http_remux.enabled {
        true => Value::from(vhost.http_remux.mount.as_str()),
        false => Value::Null,
    };
    let own = config.vhosts.iter().map(|(name, vhost)| (name.to_string(), served(vhost)));
    let all: Map<String, Value> = own.chain([("*".to_owned(), served(&config.vhost))]).collect();
    Value::Object(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load_text;

    #[test]
    fn ports_and_mounts_as_configured() {
        let text = "listen = [1936, 1937]\n[http_server]\nenabled = false\n\
            [vhost.\"a.com\".http_remux]\nmount = \"[vhost]/x/[app]/[stream].flv\"\n\
            [vhost.\"b.com\".http_remux]\nenabled = false\n";
        let config = load_text("x.toml", text).unwrap().config;
        assert_eq!(ports(&config), json!({"rtmp": 1936, "http": 0, "https": 0, "api": 1985}));
        let text = "[http_server.https]\nenabled = true\nlisten = [\"127.0.0.1:4443\"]\n";
        let https = load_text("x.toml", text).unwrap().config;
        assert_eq!(ports(&https)["https"], 4443);
        let expected = json!({"*": "[vhost]/[app]/[stream].flv", "b.com": null,
            "a.com": "[vhost]/x/[app]/[stream].flv"});
        assert_eq!(mounts(&config), expected);
    }
}
