//! The console on the API's port, and the files of the pages. What is in them is `crate::page`'s.

use hyper::Method;

use super::reply::Reply;
use super::{Port, Request};
use crate::config::Config;
use crate::page::{self, Home};

/// What a path gives of the pages, if it is one's. On the shared port a shard has answered before.
pub(super) fn find(config: &Config, path: &str, request: &Request<'_>) -> Option<Reply> {
    let reads = matches!(request.method, Method::GET | Method::HEAD);
    let (asset, alias) = (page::asset(path), page::alias(path));
    if request.ask.port != Port::Api || !reads || (asset.is_none() && alias.is_none()) {
        return None;
    }
    // SRS: `/` is the root document. The index page needs what only the other port has.
    if path == "/" || path == "/index.html" {
        return None;
    }
    if page::home(path) == Some(Home::Http) {
        let origin = config.http_origin(request.ask.secure)?;
        let to = page::elsewhere(origin, request.header("host")?, path, request.ask.query);
        return Some(Reply::redirect(302, &to));
    }
    let Some(asset) = asset else {
        return Some(Reply::redirect(302, &page::with_query(alias?, request.ask.query)));
    };
    if request.header("if-none-match") == Some(asset.etag) {
        return Some(Reply::empty(304).header("etag", asset.etag));
    }
    let mut reply = Reply::file(asset.content_type, asset.body)
        .header("content-security-policy", asset.policy)
        .header("etag", asset.etag);
    if let Some(encoding) = asset.encoding {
        reply = reply.header("content-encoding", encoding);
    }
    for (name, value) in page::HEADERS {
        reply = reply.header(name, value);
    }
    Some(reply)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use hyper::HeaderMap;

    use super::super::Ask;
    use super::*;

    fn get(
        config: &Config,
        port: Port,
        path: &str,
        headers: &[(&'static str, &str)],
    ) -> Option<Reply> {
        let mut map = HeaderMap::new();
        for (name, value) in headers.iter().chain(&[("host", "h.example:1985")]) {
            map.insert(*name, value.parse().unwrap());
        }
        let ask = Ask {
            port,
            peer: ([127, 0, 0, 1], 1).into(),
            secure: false,
            method: &Method::GET,
            path,
            query: "a=b",
            headers: &map,
        };
        find(
            config,
            path,
            &Request {
                ask: &ask,
                method: Method::GET,
                params: crate::proto::http::Pairs::default(),
            },
        )
    }

    #[test]
    fn the_console_is_here_and_players_are_elsewhere() {
        let mut config = Config::default();
        let page = get(&config, Port::Api, "/console/", &[]).unwrap();
        assert!(page.body().starts_with(b"<!doctype html>"));
        let http = page.into_http(&Arc::default());
        let policy = http.headers()["content-security-policy"].to_str().unwrap();
        assert!(policy.starts_with("default-src 'none'"), "{policy}");
        assert_eq!(http.headers()["cache-control"], "no-cache");
        let etag = http.headers()["etag"].to_str().unwrap();
        let again = get(&config, Port::Api, "/console/", &[("if-none-match", etag)]).unwrap();
        assert_eq!((again.status(), again.body().len()), (304, 0));
        assert_eq!(get(&config, Port::Api, "/page/console.js", &[]).unwrap().status(), 200);

        let to = |reply: Option<Reply>| {
            let http = reply.unwrap().into_http(&Arc::default());
            assert_eq!(http.status(), 302);
            http.headers()["location"].to_str().unwrap().to_owned()
        };
        assert_eq!(to(get(&config, Port::Api, "/console", &[])), "console/?a=b");
        assert_eq!(to(get(&config, Port::Api, "/console/ng_index.html", &[])), "./?a=b");
        let players = get(&config, Port::Api, "/players/srs_player.html", &[]);
        assert_eq!(to(players), "http://h.example:8080/players/srs_player.html?a=b");
        config.http_server.enabled = false;
        assert!(get(&config, Port::Api, "/players/", &[]).is_none());
        for path in ["/", "/index.html", "/api/v1/", "/console/x", "/live/a.flv"] {
            assert!(get(&config, Port::Api, path, &[]).is_none(), "{path}");
        }
        assert!(get(&config, Port::Exporter, "/console/", &[]).is_none());
    }
}
