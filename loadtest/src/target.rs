//! Where a peer connects to: a URL split into what the protocols need.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};

/// How a peer talks to the server. A new protocol is one more variant here, one in
/// [`crate::player::Player`], and nothing in the worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// `rtmp://host[:1935]/app/stream`
    Rtmp,
    /// `http://host[:80]/app/stream.flv`
    HttpFlv,
    /// `ws://host[:80]/app/stream.flv`
    WsFlv,
    /// `http://host[:80]/app/stream.m3u8`
    Hls,
}

impl Scheme {
    /// The name used in reports.
    pub fn name(self) -> &'static str {
        match self {
            Scheme::Rtmp => "rtmp",
            Scheme::HttpFlv => "http-flv",
            Scheme::WsFlv => "ws-flv",
            Scheme::Hls => "hls",
        }
    }
}

/// Why a URL cannot be used. All are the operator's to fix.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum TargetError {
    /// Not `scheme://host/path`.
    #[error("'{0}' is not a URL of the form scheme://host[:port]/app/stream")]
    Malformed(String),
    /// The tester has no such peer.
    #[error("'{url}': scheme '{scheme}' is not supported (rtmp, http, ws are)")]
    Scheme {
        /// The whole URL.
        url: String,
        /// Its scheme.
        scheme: String,
    },
    /// HTTP peers speak FLV and HLS only.
    #[error("'{0}': only paths ending in .flv (http, ws) and .m3u8 (http) can be played")]
    NotPlayable(String),
    /// RTMP needs an app and a stream.
    #[error("'{0}': an RTMP URL needs an app and a stream name")]
    NoStream(String),
}

/// A parsed URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Protocol.
    pub scheme: Scheme,
    /// Host name or address, without brackets.
    pub host: String,
    /// Port, the scheme's default filled in.
    pub port: u16,
    /// `host[:port]` as written, for Host headers and tcUrl.
    pub authority: String,
    /// Path with query, starting with a slash.
    pub path: String,
}

impl Target {
    /// Parses a URL.
    pub fn parse(url: &str) -> Result<Target, TargetError> {
        let malformed = || TargetError::Malformed(url.to_owned());
        let (scheme, rest) = url.split_once("://").ok_or_else(malformed)?;
        let (scheme, default_port) = match scheme {
            "rtmp" => (Scheme::Rtmp, 1935),
            "http" => (Scheme::HttpFlv, 80),
            "ws" => (Scheme::WsFlv, 80),
            other => {
                return Err(TargetError::Scheme { url: url.to_owned(), scheme: other.to_owned() });
            }
        };
        let (authority, path) = rest.split_once('/').ok_or_else(malformed)?;
        let (host, port) = split_port(authority, default_port).ok_or_else(malformed)?;
        let is_playlist = path.split('?').next().unwrap_or_default().ends_with(".m3u8");
        let scheme = if scheme == Scheme::HttpFlv && is_playlist { Scheme::Hls } else { scheme };
        let target = Target {
            scheme,
            host: host.to_owned(),
            port,
            authority: authority.to_owned(),
            path: format!("/{path}"),
        };
        match scheme {
            Scheme::Rtmp if target.app().is_empty() || target.stream().is_empty() => {
                Err(TargetError::NoStream(url.to_owned()))
            }
            Scheme::HttpFlv | Scheme::WsFlv if !target.path_only().ends_with(".flv") => {
                Err(TargetError::NotPlayable(url.to_owned()))
            }
            _ => Ok(target),
        }
    }

    /// The path without its query.
    fn path_only(&self) -> &str {
        self.path.split('?').next().unwrap_or_default()
    }

    /// RTMP app: everything between the host and the last slash of the path.
    pub fn app(&self) -> &str {
        let path = self.path_only();
        let end = path.rfind('/').unwrap_or(0);
        path.get(1..end).unwrap_or_default()
    }

    /// RTMP stream: the last part of the path with its query.
    pub fn stream(&self) -> &str {
        let start = self.path_only().rfind('/').map_or(0, |i| i + 1);
        &self.path[start..]
    }

    /// The tcUrl an RTMP client announces.
    pub fn tc_url(&self) -> String {
        format!("rtmp://{}/{}", self.authority, self.app())
    }

    /// The address to connect to; blocks on DNS for names.
    pub fn resolve(&self) -> io::Result<SocketAddr> {
        (self.host.as_str(), self.port).to_socket_addrs()?.next().ok_or_else(|| {
            io::Error::new(io::ErrorKind::NotFound, format!("{} has no address", self.host))
        })
    }
}

/// Replaces `{n}` in a URL by a peer's number.
pub fn expand(template: &str, n: u32) -> String {
    template.replace("{n}", &n.to_string())
}

fn split_port(authority: &str, default: u16) -> Option<(&str, u16)> {
    if let Some(rest) = authority.strip_prefix('[') {
        let (host, port) = rest.split_once(']')?;
        return match port.strip_prefix(':') {
            Some(p) => Some((host, p.parse().ok()?)),
            None => port.is_empty().then_some((host, default)),
        };
    }
    let (host, port) = match authority.split_once(':') {
        Some((host, port)) => (host, port.parse().ok()?),
        None => (authority, default),
    };
    (!host.is_empty()).then_some((host, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rtmp_urls_split_at_the_last_slash() {
        let t = Target::parse("rtmp://127.0.0.1/live/s?vhost=a/b").unwrap();
        assert_eq!((t.app(), t.stream(), t.port), ("live", "s?vhost=a/b", 1935));
        assert_eq!(t.tc_url(), "rtmp://127.0.0.1/live");
        let t = Target::parse("rtmp://[::1]:1936/a/b/c").unwrap();
        assert_eq!((t.host.as_str(), t.port, t.app(), t.stream()), ("::1", 1936, "a/b", "c"));
    }

    #[test]
    fn http_urls_keep_the_whole_path() {
        let t = Target::parse("http://h:8080/live/s.flv?x=1").unwrap();
        assert_eq!((t.path.as_str(), t.port), ("/live/s.flv?x=1", 8080));
        assert_eq!(Target::parse("ws://h/live/s.flv").unwrap().scheme, Scheme::WsFlv);
        assert_eq!(Target::parse("http://h/live/s.m3u8?a=b").unwrap().scheme, Scheme::Hls);
    }

    #[test]
    fn what_cannot_be_used_says_why() {
        for (url, word) in [
            ("nothing", "form"),
            ("srt://h/x", "srt"),
            ("http://h/live/s.mpd", ".m3u8"),
            ("ws://h/live/s.m3u8", ".flv"),
            ("rtmp://h/live", "stream name"),
            ("rtmp://h:notaport/a/b", "form"),
        ] {
            let text = Target::parse(url).unwrap_err().to_string();
            assert!(text.contains(word), "{text}");
        }
    }

    #[test]
    fn numbers_are_filled_in() {
        assert_eq!(expand("rtmp://h/live/s{n}", 12), "rtmp://h/live/s12");
    }
}
