//! Who may ask: HTTP Basic as in SRS, or a bearer token.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use sha2::{Digest, Sha256};

use super::reply::Reply;
use super::stats::Refusal;
use super::{Request, Route};
use crate::config::Config;

/// What a request is answered with that may not be answered. SRS: what has `/api/` in its path is
/// protected, metrics and pages are not.
pub(super) fn refusal(
    config: &Config,
    path: &str,
    request: &Request<'_>,
    route: &Route,
) -> Option<(Refusal, Reply)> {
    let auth = &config.http_api.auth;
    let basic = auth.enabled && !auth.password.is_empty();
    let bearer = !auth.token.is_empty();
    if !(auth.enabled || bearer) || !path.contains("/api/") {
        return None;
    }
    let given = request.header("authorization").and_then(|value| value.split_once(' '));
    let allowed = match given {
        Some(("Basic", text)) if basic => {
            let wanted = format!("{}:{}", auth.username, auth.password);
            let given = BASE64_STANDARD.decode(text.trim());
            given.is_ok_and(|given| same(&given, wanted.as_bytes()))
        }
        Some((scheme, token)) if bearer && scheme.eq_ignore_ascii_case("bearer") => {
            same(token.trim().as_bytes(), auth.token.as_bytes())
        }
        _ => false,
    };
    if !allowed {
        let challenges = [("Basic", basic), ("Bearer", bearer)];
        let challenges: Vec<_> = challenges.iter().filter(|c| c.1).map(|c| c.0).collect();
        return Some((Refusal::Unauthorized, Reply::unauthorized(&challenges)));
    }
    // A browser that knows the password sends it along whoever made the page. Other sites may
    // look (CORS decides what they see), but a script or form of theirs may not change anything.
    let cross_site = request.header("sec-fetch-site") == Some("cross-site");
    let explicit = request.header("sec-fetch-mode") == Some("cors");
    if cross_site && !explicit && request.changes_something(route) {
        let text = "403 Forbidden: this came from a page of another site\n";
        return Some((Refusal::CrossSite, Reply::text(403, text)));
    }
    None
}

/// Compares without telling by its time where a difference is, or how long the secret is.
fn same(given: &[u8], secret: &[u8]) -> bool {
    let (given, secret) = (Sha256::digest(given), Sha256::digest(secret));
    given.iter().zip(secret.iter()).fold(0, |differing, (a, b)| differing | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use hyper::{HeaderMap, Method};

    use super::super::{Ask, Port};
    use super::*;

    fn status(
        config: &Config,
        path: &str,
        method: Method,
        headers: &[(&'static str, &str)],
    ) -> u16 {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(*name, value.parse().unwrap());
        }
        let ask = Ask {
            port: Port::Api,
            peer: SocketAddr::from(([127, 0, 0, 1], 1)),
            secure: false,
            method: &method,
            path,
            query: "",
            headers: &map,
        };
        let request = Request {
            ask: &ask,
            method: method.clone(),
            params: crate::proto::http::Pairs::default(),
        };
        let route = super::super::route::find(path, Port::Api);
        refusal(config, path, &request, &route).map_or(200, |(_, reply)| reply.status())
    }

    #[test]
    fn comparing_secrets() {
        assert!(same(b"admin:admin", b"admin:admin"));
        assert!(!same(b"admin:admim", b"admin:admin"));
        assert!(!same(b"admin:admi", b"admin:admin"));
        assert!(!same(b"", b"x"));
    }

    #[test]
    fn basic_and_bearer() {
        let mut config = Config::default();
        let get = |config: &Config, value| {
            status(config, "/api/v1/streams/", Method::GET, &[("authorization", value)])
        };
        assert_eq!(get(&config, "x"), 200);
        config.http_api.auth.enabled = true;
        config.http_api.auth.username = "admin".into();
        config.http_api.auth.password = "pass:word".into();
        assert_eq!(get(&config, "Basic YWRtaW46cGFzczp3b3Jk"), 200);
        for bad in ["Basic YWRtaW46cGFzczp3b3J", "basic YWRtaW46cGFzczp3b3Jk", "Bearer ", "Basic"] {
            assert_eq!(get(&config, bad), 401, "{bad}");
        }
        assert_eq!(status(&config, "/api/v1/versions", Method::GET, &[]), 401);
        assert_eq!(status(&config, "/metrics", Method::GET, &[]), 200);
        config.http_api.auth.enabled = false;
        config.http_api.auth.token = "secret".into();
        assert_eq!(get(&config, "Bearer secret"), 200);
        assert_eq!(get(&config, "bearer secret"), 200);
        assert_eq!(get(&config, "Bearer secre"), 401);
        assert_eq!(get(&config, "Basic OnNlY3JldA=="), 401);
    }

    #[test]
    fn other_sites_change_nothing_with_a_password_of_the_browser() {
        let mut config = Config::default();
        config.http_api.auth.token = "secret".into();
        let with = |method, mode| {
            let headers = [
                ("authorization", "Bearer secret"),
                ("sec-fetch-site", "cross-site"),
                ("sec-fetch-mode", mode),
            ];
            status(&config, "/api/v1/clients/abcdefgh", method, &headers)
        };
        assert_eq!(with(Method::GET, "no-cors"), 200);
        assert_eq!(with(Method::DELETE, "no-cors"), 403);
        assert_eq!(with(Method::DELETE, "cors"), 200);
    }
}
