//! Which path is which route, by SRS's rules: exact, unless a pattern ends with a slash; then what
//! begins with it is meant, and the longest pattern wins.

use hyper::Method;

use super::Port;

/// What can be asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Route {
    Root,
    Api,
    V1,
    Versions,
    Summaries,
    Rusages,
    SelfProcStats,
    SystemProcStats,
    Meminfos,
    Authors,
    Features,
    /// All of them, or the one of an id; the same for the next two.
    Vhosts(Option<String>),
    Streams(Option<String>),
    Clients(Option<String>),
    /// Recordings, by the ids of their streams.
    Dvrs(Option<String>),
    Uploads,
    Raw,
    Clusters,
    TestRequests,
    TestErrors,
    TestRedirects,
    /// To the same path with a slash.
    Redirect(String),
    Alerts,
    Server,
    Shards,
    Events,
    OpenApi,
    Metrics,
    NotFound,
}

/// The route of a decoded path.
pub(super) fn find(path: &str, port: Port) -> Route {
    if port == Port::Exporter {
        return if path == "/metrics" { Route::Metrics } else { Route::NotFound };
    }
    if path == "/metrics" {
        return Route::Metrics;
    }
    let Some(rest) = path.strip_prefix("/api") else {
        // On the shared port everything else belongs to HTTP streaming.
        return if port == Port::Api { Route::Root } else { Route::NotFound };
    };
    match rest {
        "" => return Route::Redirect("/api/".into()),
        "/v1" => return Route::Redirect("/api/v1/".into()),
        _ if !rest.starts_with('/') => return Route::Root,
        _ => {}
    }
    let Some(rest) = rest.strip_prefix("/v1/") else { return Route::Api };
    match rest {
        "versions" => Route::Versions,
        "summaries" => Route::Summaries,
        "rusages" => Route::Rusages,
        "self_proc_stats" => Route::SelfProcStats,
        "system_proc_stats" => Route::SystemProcStats,
        "meminfos" => Route::Meminfos,
        "authors" => Route::Authors,
        "features" => Route::Features,
        "vhosts" | "streams" | "clients" | "dvrs" => Route::Redirect(format!("{path}/")),
        "uploads" => Route::Uploads,
        "raw" => Route::Raw,
        "clusters" => Route::Clusters,
        "tests/requests" => Route::TestRequests,
        "tests/errors" => Route::TestErrors,
        "tests/redirects" => Route::TestRedirects,
        "alerts" => Route::Alerts,
        "server" => Route::Server,
        "shards" => Route::Shards,
        "events" => Route::Events,
        "openapi.json" => Route::OpenApi,
        _ => {
            let id = |id: &str| Some(id.to_owned()).filter(|id| !id.is_empty());
            match rest.split_once('/') {
                Some(("vhosts", rest)) => Route::Vhosts(id(rest)),
                Some(("streams", rest)) => Route::Streams(id(rest)),
                Some(("clients", rest)) => Route::Clients(id(rest)),
                Some(("dvrs", rest)) => Route::Dvrs(id(rest)),
                _ => Route::V1,
            }
        }
    }
}

impl Route {
    /// The methods it takes, beside HEAD and OPTIONS.
    pub(super) fn methods(&self) -> &'static [&'static Method] {
        match self {
            Route::Clients(_) | Route::Streams(Some(_)) => &[&Method::GET, &Method::DELETE],
            Route::Dvrs(Some(_)) => &[&Method::GET, &Method::POST, &Method::DELETE],
            // SRS: whatever it is.
            Route::TestRequests | Route::TestErrors | Route::TestRedirects => {
                &[&Method::GET, &Method::POST, &Method::PUT, &Method::DELETE, &Method::PATCH]
            }
            _ => &[&Method::GET],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_srs() {
        let api = |path| find(path, Port::Api);
        assert_eq!(api("/"), Route::Root);
        assert_eq!(api("/anything/else"), Route::Root);
        assert_eq!(api("/apis"), Route::Root);
        assert_eq!(api("/api"), Route::Redirect("/api/".into()));
        assert_eq!(api("/api/"), Route::Api);
        assert_eq!(api("/api/v2/x"), Route::Api);
        assert_eq!(api("/api/v1"), Route::Redirect("/api/v1/".into()));
        assert_eq!(api("/api/v1/"), Route::V1);
        assert_eq!(api("/api/v1/unknown"), Route::V1);
        assert_eq!(api("/api/v1/versions"), Route::Versions);
        assert_eq!(api("/api/v1/versions/"), Route::V1);
        assert_eq!(api("/api/v1/streams"), Route::Redirect("/api/v1/streams/".into()));
        assert_eq!(api("/api/v1/streams/"), Route::Streams(None));
        assert_eq!(api("/api/v1/streams/vid-1"), Route::Streams(Some("vid-1".into())));
        assert_eq!(api("/api/v1/clients/a/b"), Route::Clients(Some("a/b".into())));
        assert_eq!(api("/api/v1/tests/errors"), Route::TestErrors);
        assert_eq!(api("/api/v1/dvrs/"), Route::Dvrs(None));
        assert_eq!(api("/api/v1/dvrs/vid-1"), Route::Dvrs(Some("vid-1".into())));
        assert_eq!(api("/api/v1/uploads"), Route::Uploads);
        assert_eq!(api("/metrics"), Route::Metrics);
    }

    #[test]
    fn other_ports() {
        assert_eq!(find("/", Port::Shared), Route::NotFound);
        assert_eq!(find("/api/v1/summaries", Port::Shared), Route::Summaries);
        assert_eq!(find("/metrics", Port::Exporter), Route::Metrics);
        assert_eq!(find("/api/v1/clients/", Port::Exporter), Route::NotFound);
    }
}
