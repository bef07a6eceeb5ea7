//! From what clients send to what they mean: schema, host, port, vhost, app, stream, parameters.
//!
//! Encoders put the same stream name in many ways: parameters after the app or after the stream,
//! the vhost as a parameter, as a host, or behind `...vhost...`, everything in the tcUrl and no
//! stream name, `_definst_` where another server wants an instance. All forms end as one [`Url`].
//!
//! Which vhosts exist and which names are allowed is not known here: the configuration resolves the
//! vhost, and [`Url::name`] applies the name grammar.

use crate::media::name::{DEFAULT_VHOST, NameError, StreamName};

/// The port of `rtmp` URLs that name none.
pub const DEFAULT_PORT: u16 = 1935;

/// The app of URLs that name none.
pub const DEFAULT_APP: &str = "__defaultApp__";

/// A stream as its client means it. Nothing is checked yet but that it can be taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url {
    /// Lower case, for example `rtmp`.
    pub schema: String,
    /// Host name or address; IPv6 without brackets.
    pub host: String,
    /// The port named, or the schema's.
    pub port: u16,
    /// The vhost asked for: by parameter, else the host.
    pub vhost: String,
    /// One or more levels, separated by `/`, never empty.
    pub app: String,
    /// The stream name without parameters; empty when the client named none.
    pub stream: String,
    /// The parameters with their `?`, or nothing.
    pub param: String,
}

/// Why a URL cannot be taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// Nothing before `://`.
    #[error("URL without a schema")]
    NoSchema,
    /// Nothing between `://` and the path.
    #[error("URL without a host")]
    NoHost,
    /// A port that is no number of 1..=65535.
    #[error("URL with an impossible port")]
    Port,
}

impl Url {
    /// Takes the tcUrl of `connect` and the stream name of `publish` or `play`, which may carry
    /// parameters or be empty.
    ///
    /// # Errors
    /// [`UrlError`] when the tcUrl has no schema, host or usable port.
    pub fn parse(tc_url: &str, stream: &str) -> Result<Url, UrlError> {
        let tc_url = tc_url.replace(LEGACY_VHOST, "?vhost=");
        let stream = stream.replace(LEGACY_VHOST, "?vhost=");
        let (schema, rest) = tc_url.split_once("://").ok_or(UrlError::NoSchema)?;
        let schema = strip_all(schema).to_ascii_lowercase();
        if schema.is_empty() {
            return Err(UrlError::NoSchema);
        }
        let (rest, url_query) = split_query(rest);
        let (authority, url_path) = rest.split_once('/').unwrap_or((rest, ""));
        let (host, port) = split_authority(authority, &schema)?;

        // The stream name continues the path, and its parameters come before those of the tcUrl:
        // `app?a=1` and `stream?b=2` mean `app/stream?b=2&a=1`. The two halves are known apart
        // here, so a slash within a parameter (base64 tokens) never counts as part of the path.
        let (stream_path, stream_query) = split_query(&stream);
        let path = format!("/{url_path}/{stream_path}").replace("/_definst_", "");
        let (app, name) = path.rsplit_once('/').unwrap_or(("", &path));
        let param = join_queries(stream_query, url_query);

        let mut url = Url {
            vhost: vhost_of(&param).unwrap_or(&host).to_owned(),
            schema,
            host,
            port,
            app: strip_path(app),
            stream: strip_path(name),
            param,
        };
        url.guess_stream();
        url.finish_param();
        if url.app.is_empty() {
            DEFAULT_APP.clone_into(&mut url.app);
        }
        Ok(url)
    }

    /// The name of the stream on a vhost that the configuration has resolved [`Url::vhost`] to.
    ///
    /// # Errors
    /// What the grammar of names has against it.
    pub fn name(&self, vhost: &str) -> Result<StreamName, NameError> {
        StreamName::new(vhost, &self.app, &self.stream)
    }

    /// Clients that put all in the tcUrl send no stream name: the last level of the app is it, or
    /// what follows the first slash in the parameters.
    fn guess_stream(&mut self) {
        if !self.stream.is_empty() {
            return;
        }
        if let Some((app, stream)) = self.app.rsplit_once('/') {
            self.stream = stream.to_owned();
            self.app = strip_path(app);
        } else if let Some((param, stream)) = self.param.split_once('/') {
            self.stream = strip_path(stream);
            self.param = param.to_owned();
        }
        // The vhost may have swallowed the stream that stood behind it.
        if let Some(vhost) = vhost_of(&self.param) {
            vhost.clone_into(&mut self.vhost);
        }
    }

    fn finish_param(&mut self) {
        self.vhost = strip_host(&self.vhost);
        let query = self.param.strip_prefix('?').unwrap_or(&self.param);
        let only_default = query.strip_prefix("vhost=").or(query.strip_prefix("domain="));
        if query.is_empty() || only_default == Some(DEFAULT_VHOST) {
            self.param.clear();
        }
    }
}

/// How Flash encoders, which keep no `?` in a tcUrl, name a vhost.
const LEGACY_VHOST: &str = "...vhost...";

/// Splits before the first `?` or `#`.
fn split_query(text: &str) -> (&str, &str) {
    text.split_at(text.find(['?', '#']).unwrap_or(text.len()))
}

/// Joins two queries, each with its `?` or empty.
fn join_queries(first: &str, second: &str) -> String {
    match (first.len() > 1, second.strip_prefix('?').unwrap_or(second)) {
        (true, "") => first.to_owned(),
        (true, second) if second.starts_with('#') => format!("{first}{second}"),
        (true, second) => format!("{first}&{second}"),
        (false, "") => String::new(),
        (false, second) if second.starts_with('#') => second.to_owned(),
        (false, second) => format!("?{second}"),
    }
}

/// The vhost that the parameters ask for, unless it is the default one.
fn vhost_of(param: &str) -> Option<&str> {
    let query = param.strip_prefix('?')?;
    let query = query.split('#').next().unwrap_or(query);
    let value = |key: &str| {
        let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        pairs.find(|(name, value)| *name == key && !value.is_empty()).map(|(_, value)| value)
    };
    value("vhost").or_else(|| value("domain")).filter(|vhost| *vhost != DEFAULT_VHOST)
}

fn split_authority(authority: &str, schema: &str) -> Result<(String, u16), UrlError> {
    let host_port = authority.rsplit_once('@').map_or(authority, |(_, host_port)| host_port);
    let (host, port) = match host_port.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, port)) => (host, port.strip_prefix(':')),
        None => match host_port.split_once(':') {
            // More than one colon without brackets: an IPv6 address and no port.
            Some((_, rest)) if rest.contains(':') => (host_port, None),
            Some((host, port)) => (host, Some(port)),
            None => (host_port, None),
        },
    };
    let port = match port.map(str::trim).filter(|port| !port.is_empty()) {
        Some(port) => port.parse().ok().filter(|port| *port > 0).ok_or(UrlError::Port)?,
        None => match schema {
            "rtmp" => DEFAULT_PORT,
            "https" | "rtmps" => 443,
            _ => 80,
        },
    };
    let host = strip_host(host);
    if host.is_empty() { Err(UrlError::NoHost) } else { Ok((host, port)) }
}

fn strip_host(text: &str) -> String {
    text.chars().filter(|c| !matches!(c, '/' | ' ' | '\n' | '\r' | '\t')).collect()
}

fn strip_all(text: &str) -> String {
    text.chars().filter(|c| !matches!(c, ' ' | '\n' | '\r' | '\t')).collect()
}

fn strip_path(text: &str) -> String {
    strip_all(text).trim_matches('/').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// host, port, vhost, app, stream, param.
    fn parts(tc_url: &str, stream: &str) -> (String, u16, String, String, String, String) {
        let url = Url::parse(tc_url, stream).unwrap();
        (url.host, url.port, url.vhost, url.app, url.stream, url.param)
    }

    #[track_caller]
    fn check(tc_url: &str, stream: &str, expected: (&str, u16, &str, &str, &str, &str)) {
        let (host, port, vhost, app, name, param) = parts(tc_url, stream);
        assert_eq!((&*host, port, &*vhost, &*app, &*name, &*param), expected, "{tc_url} {stream}");
    }

    #[test]
    fn plain_urls() {
        check("rtmp://ip/live", "s", ("ip", 1935, "ip", "live", "s", ""));
        check("RTMP://ip:19350/live/", "s", ("ip", 19350, "ip", "live", "s", ""));
        check("rtmp://ip/a/b/c", "s", ("ip", 1935, "ip", "a/b/c", "s", ""));
        check("rtmp://ip/a", "b/s", ("ip", 1935, "ip", "a/b", "s", ""));
        check("rtmp://ip", "s", ("ip", 1935, "ip", "__defaultApp__", "s", ""));
        check("rtmp://ip/", "/s", ("ip", 1935, "ip", "__defaultApp__", "s", ""));
        check("http://ip/live", "s", ("ip", 80, "ip", "live", "s", ""));
        check("https://ip/live", "s", ("ip", 443, "ip", "live", "s", ""));
        check("rtmp://user:secret@ip/live", "s", ("ip", 1935, "ip", "live", "s", ""));
        assert_eq!(Url::parse("RTMP://ip/live", "s").unwrap().schema, "rtmp");
    }

    #[test]
    fn addresses() {
        check("rtmp://[::1]:1936/live", "s", ("::1", 1936, "::1", "live", "s", ""));
        check("rtmp://[fe80::1]/live", "s", ("fe80::1", 1935, "fe80::1", "live", "s", ""));
        check("rtmp://::1/live", "s", ("::1", 1935, "::1", "live", "s", ""));
        check("rtmp://127.0.0.1:1936/live", "s", ("127.0.0.1", 1936, "127.0.0.1", "live", "s", ""));
        check("rtmp://ip:/live", "s", ("ip", 1935, "ip", "live", "s", ""));
    }

    #[test]
    fn parameters_after_app_or_stream() {
        check("rtmp://ip/app?k=v", "s", ("ip", 1935, "ip", "app", "s", "?k=v"));
        check("rtmp://ip/app", "s?k=v", ("ip", 1935, "ip", "app", "s", "?k=v"));
        check("rtmp://ip/app?k=v", "s?x=y", ("ip", 1935, "ip", "app", "s", "?x=y&k=v"));
        check("rtmp://ip/a/b?k=v", "s", ("ip", 1935, "ip", "a/b", "s", "?k=v"));
        check("rtmp://ip/app", "s?t=a/b==", ("ip", 1935, "ip", "app", "s", "?t=a/b=="));
        check("rtmp://ip/app?t=a/b", "s", ("ip", 1935, "ip", "app", "s", "?t=a/b"));
        check("rtmp://ip/app#k=v", "s", ("ip", 1935, "ip", "app", "s", "#k=v"));
        check("rtmp://ip/app?k=v#f", "s", ("ip", 1935, "ip", "app", "s", "?k=v#f"));
        check("rtmp://ip/app?", "s?", ("ip", 1935, "ip", "app", "s", ""));
    }

    #[test]
    fn vhost_by_parameter() {
        check("rtmp://ip/app?vhost=v.com", "s", ("ip", 1935, "v.com", "app", "s", "?vhost=v.com"));
        check("rtmp://ip/app", "s?vhost=v.com", ("ip", 1935, "v.com", "app", "s", "?vhost=v.com"));
        check(
            "rtmp://ip/app",
            "s?domain=v.com",
            ("ip", 1935, "v.com", "app", "s", "?domain=v.com"),
        );
        let both = "s?domain=d.com&vhost=v.com&k=v";
        check("rtmp://ip/app", both, ("ip", 1935, "v.com", "app", "s", &both[1..]));
        check("rtmp://ip/app?vhost=", "s", ("ip", 1935, "ip", "app", "s", "?vhost="));
        check("rtmp://ip/app?xvhost=a", "s", ("ip", 1935, "ip", "app", "s", "?xvhost=a"));
    }

    #[test]
    fn the_default_vhost_by_parameter_is_no_parameter() {
        check("rtmp://ip/app?vhost=__defaultVhost__", "s", ("ip", 1935, "ip", "app", "s", ""));
        let two = "?vhost=__defaultVhost__&k=v";
        check(&format!("rtmp://ip/app{two}"), "s", ("ip", 1935, "ip", "app", "s", two));
    }

    #[test]
    fn legacy_vhost_and_instances() {
        check(
            "rtmp://ip/app...vhost...v.com",
            "s",
            ("ip", 1935, "v.com", "app", "s", "?vhost=v.com"),
        );
        check(
            "rtmp://ip/app",
            "s...vhost...v.com",
            ("ip", 1935, "v.com", "app", "s", "?vhost=v.com"),
        );
        check("rtmp://ip/app/_definst_", "s", ("ip", 1935, "ip", "app", "s", ""));
        check("rtmp://ip/app/_definst_?k=v", "s", ("ip", 1935, "ip", "app", "s", "?k=v"));
        check("rtmp://ip/app", "_definst_/s", ("ip", 1935, "ip", "app", "s", ""));
    }

    #[test]
    fn everything_in_the_tc_url() {
        check("rtmp://ip/app/s", "", ("ip", 1935, "ip", "app", "s", ""));
        check("rtmp://ip/a/b/s", "", ("ip", 1935, "ip", "a/b", "s", ""));
        check("rtmp://ip/app/s?k=v", "", ("ip", 1935, "ip", "app", "s", "?k=v"));
        check("rtmp://ip/app?k=v/s", "", ("ip", 1935, "ip", "app", "s", "?k=v"));
        check("rtmp://ip/app?vhost=v.com/s", "", ("ip", 1935, "v.com", "app", "s", "?vhost=v.com"));
        check(
            "rtmp://ip/app...vhost...v.com/s",
            "",
            ("ip", 1935, "v.com", "app", "s", "?vhost=v.com"),
        );
        check("rtmp://ip/app", "", ("ip", 1935, "ip", "app", "", ""));
        check("rtmp://ip", "", ("ip", 1935, "ip", "__defaultApp__", "", ""));
    }

    #[test]
    fn white_space_is_stripped() {
        check("rtmp://ip /app \r\n", " s\t", ("ip", 1935, "ip", "app", "s", ""));
        check(
            "rtmp://ip/app",
            "s?vhost=v.com\n",
            ("ip", 1935, "v.com", "app", "s", "?vhost=v.com\n"),
        );
    }

    #[test]
    fn what_is_no_url() {
        for (text, error) in [
            ("", UrlError::NoSchema),
            ("ip/live", UrlError::NoSchema),
            ("://ip/live", UrlError::NoSchema),
            ("rtmp://", UrlError::NoHost),
            ("rtmp:///live", UrlError::NoHost),
            ("rtmp://:1935/live", UrlError::NoHost),
            ("rtmp://ip:0/live", UrlError::Port),
            ("rtmp://ip:65536/live", UrlError::Port),
            ("rtmp://ip:x/live", UrlError::Port),
        ] {
            assert_eq!(Url::parse(text, "s"), Err(error), "{text}");
        }
    }

    #[test]
    fn names_pass_the_grammar() {
        let url = Url::parse("rtmp://ip/live?vhost=v", "s.flv").unwrap();
        assert_eq!(url.name("v").unwrap().url(), "v/live/s");
        assert!(Url::parse("rtmp://ip/live/../x", "s").unwrap().name("v").is_err());
        assert!(Url::parse("rtmp://ip/live", "<script>").unwrap().name("v").is_err());
        assert!(Url::parse("rtmp://ip/live", "").unwrap().name("v").is_err());
    }
}
