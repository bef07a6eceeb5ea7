//! How players reach the server, where an address has to be whole.

use std::net::IpAddr;

use super::Request;
use crate::proto::http::url;

/// Scheme and authority as the client at `peer` knows them; `secure` says that it came by HTTPS.
/// `None` where that cannot be known: a proxy is between that does not say, or may be, because the
/// request comes from this machine or names what only machines near it know.
pub(super) fn origin(request: &Request, secure: bool, peer: IpAddr) -> Option<String> {
    let first = |name| request.header(name)?.split(',').next().map(str::trim);
    let scheme = if secure { "https" } else { "http" };
    if let Some(host) = first("x-forwarded-host") {
        let scheme = first("x-forwarded-proto").unwrap_or(scheme);
        let known = matches!(scheme, "http" | "https") && url::valid_host(host);
        return known.then(|| format!("{scheme}://{host}"));
    }
    let passed_on = ["via", "forwarded", "x-forwarded-for", "x-real-ip"];
    // nginx asks by HTTP/1.0 where nothing else is set.
    if request.minor_version == 0 || passed_on.iter().any(|name| request.header(name).is_some()) {
        return None;
    }
    let host = request.host.as_deref().filter(|host| url::valid_host(host))?;
    let name = url::host_name(host);
    let is_near = match name.parse::<IpAddr>() {
        Ok(ip) => ip.is_loopback() || ip.is_unspecified(),
        // The name of an upstream or of a container.
        Err(_) => !name.contains('.'),
    };
    (!is_near && !peer.is_loopback()).then(|| format!("{scheme}://{host}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::http::parse_request;

    #[test]
    fn what_a_client_knows() {
        let from = |lines: &str, peer: &str| {
            let version = if lines.contains("Old:") { "1.0" } else { "1.1" };
            let text = format!("GET /live/s.mpd HTTP/{version}\r\n{lines}\r\n");
            let (request, _) = parse_request(text.as_bytes()).unwrap().unwrap();
            origin(&request, false, peer.parse().unwrap())
        };
        let far = |lines: &str| from(lines, "203.0.113.9");
        let known = |text: &str| Some(text.to_owned());
        assert_eq!(far("Host: tv.example:8080\r\n"), known("http://tv.example:8080"));
        assert_eq!(far("Host: [2001:db8::1]\r\n"), known("http://[2001:db8::1]"));
        assert_eq!(from("Host: 192.0.2.1\r\n", "192.0.2.7"), known("http://192.0.2.1"));
        // A proxy that says what it was asked for, and one that does not.
        let told = "Host: 127.0.0.1:8080\r\nX-Forwarded-Host: tv.example, x\r\n";
        assert_eq!(from(told, "127.0.0.1"), known("http://tv.example"));
        let told = format!("{told}X-Forwarded-Proto: https\r\n");
        assert_eq!(from(&told, "127.0.0.1"), known("https://tv.example"));
        for hidden in [
            "Host: tv.example\r\nX-Forwarded-For: 203.0.113.5\r\n",
            "Host: tv.example\r\nVia: 1.1 cache\r\n",
            "Host: tv.example\r\nOld: yes\r\n",
            "Host: 127.0.0.1:8080\r\n",
            "Host: [::1]:8080\r\n",
            "Host: ringcast:8080\r\n",
            "Host: localhost\r\n",
        ] {
            assert_eq!(far(hidden), None, "{hidden}");
        }
        assert_eq!(from("Host: tv.example\r\n", "127.0.0.1"), None);
        assert_eq!(far("Host: x.y\r\nX-Forwarded-Host: a b\"\r\n"), None);
        let odd = "Host: x.y\r\nX-Forwarded-Host: a.b\r\nX-Forwarded-Proto: file\r\n";
        assert_eq!(far(odd), None);
    }
}
