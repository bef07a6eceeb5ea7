//! Request heads: parsing and the questions that the routes ask.

use super::url::{decode_path, parse_query, valid_host};
use super::{BodyFraming, HttpError, head_range};
use crate::limits::{HTTP_HEADERS_MAX, HTTP_TARGET_BYTES_MAX};

/// The request method.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Method {
    /// GET.
    Get,
    /// HEAD.
    Head,
    /// POST.
    Post,
    /// PUT.
    Put,
    /// DELETE.
    Delete,
    /// PATCH.
    Patch,
    /// OPTIONS.
    Options,
}

impl Method {
    /// The method as it stands in a request line.
    pub fn name(self) -> &'static str {
        match self {
            Method::Get => "GET",
            Method::Head => "HEAD",
            Method::Post => "POST",
            Method::Put => "PUT",
            Method::Delete => "DELETE",
            Method::Patch => "PATCH",
            Method::Options => "OPTIONS",
        }
    }

    fn parse(name: &str) -> Result<Method, HttpError> {
        // RFC 9110 9.1: methods are case-sensitive.
        Ok(match name {
            "GET" => Method::Get,
            "HEAD" => Method::Head,
            "POST" => Method::Post,
            "PUT" => Method::Put,
            "DELETE" => Method::Delete,
            "PATCH" => Method::Patch,
            "OPTIONS" => Method::Options,
            _ => return Err(HttpError::NotImplemented("method")),
        })
    }
}

/// A request head, owned, as small as the head it came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The method.
    pub method: Method,
    /// The path, percent-decoded once and checked (see `url::decode_path`); `*` for `OPTIONS *`.
    pub path: String,
    /// The query as written, without the question mark; empty when there is none.
    pub query: String,
    /// The query's parameters, decoded, in order.
    pub params: Vec<(String, String)>,
    /// The minor version: 0 or 1.
    pub minor_version: u8,
    /// The host and port that the client means: of an absolute target, else the `Host` header.
    pub host: Option<String>,
    /// The length of the body, if the head states one.
    pub content_length: Option<u64>,
    /// Whether the body is chunked.
    pub chunked: bool,
    /// All header lines in order, names in lower case. Values are cut to valid UTF-8.
    pub headers: Vec<(String, String)>,
}

impl Request {
    /// The first header with this name, which must be in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// The first query parameter with this name.
    pub fn param(&self, name: &str) -> Option<&str> {
        self.params.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// Whether the comma-separated header `name` (lower case) holds `token`, in any case.
    pub fn header_has(&self, name: &str, token: &str) -> bool {
        self.headers
            .iter()
            .filter(|(n, _)| n == name)
            .flat_map(|(_, value)| value.split(','))
            .any(|item| item.trim().eq_ignore_ascii_case(token))
    }

    /// Whether the connection may carry another request after this one (RFC 9112 9.3).
    pub fn keep_alive(&self) -> bool {
        if self.header_has("connection", "close") {
            return false;
        }
        self.minor_version >= 1 || self.header_has("connection", "keep-alive")
    }

    /// Whether the client asks for WebSocket. Whether it asks correctly, `ws::accept` finds out.
    pub fn wants_websocket(&self) -> bool {
        self.header_has("upgrade", "websocket")
    }

    /// Whether a body follows the head.
    pub fn has_body(&self) -> bool {
        self.chunked || self.content_length.is_some_and(|length| length > 0)
    }
}

/// Reads a request head from the front of `buf`. `None`: more bytes are needed. Otherwise the request
/// and how many bytes its head takes; a body begins there. An error is final for the connection.
pub fn parse_request(buf: &[u8]) -> Result<Option<(Request, usize)>, HttpError> {
    let Some(range) = head_range(buf)? else { return Ok(None) };
    let consumed = range.end;
    let mut lines = [httparse::EMPTY_HEADER; HTTP_HEADERS_MAX];
    let mut parsed = httparse::Request::new(&mut lines);
    match parsed.parse(&buf[range]) {
        Ok(httparse::Status::Complete(_)) => {}
        // The head ends in an empty line, so there is nothing to wait for.
        Ok(httparse::Status::Partial) => return Err(HttpError::Malformed("request head")),
        Err(error) => return Err(head_error(error)),
    }
    let (Some(method), Some(target), Some(minor_version)) =
        (parsed.method, parsed.path, parsed.version)
    else {
        return Err(HttpError::Malformed("request line"));
    };
    if target.len() > HTTP_TARGET_BYTES_MAX {
        return Err(HttpError::TargetTooLong);
    }
    let method = Method::parse(method)?;
    let mut framing = BodyFraming::default();
    let mut host: Option<&str> = None;
    let mut headers = Vec::with_capacity(parsed.headers.len());
    for line in parsed.headers.iter() {
        framing.add(line.name, line.value)?;
        if line.name.eq_ignore_ascii_case("host") {
            if host.is_some() {
                return Err(HttpError::Malformed("two Host"));
            }
            let value = std::str::from_utf8(line.value).unwrap_or("\0").trim();
            // An empty Host is allowed for targets without one (RFC 9110 7.2) and names nobody.
            if !value.is_empty() && !valid_host(value) {
                return Err(HttpError::Malformed("Host"));
            }
            host = Some(value);
        }
        let value = String::from_utf8_lossy(line.value).into_owned();
        headers.push((line.name.to_ascii_lowercase(), value));
    }
    if host.is_none() && minor_version == 1 {
        return Err(HttpError::Malformed("no Host"));
    }
    if framing.chunked && minor_version == 0 {
        return Err(HttpError::Malformed("Transfer-Encoding in HTTP/1.0"));
    }
    let (authority, path, query) = split_target(method, target)?;
    let path = if path == "*" { path.to_owned() } else { decode_path(path)? };
    // RFC 9112 3.2.2: the host of an absolute target replaces the Host header.
    let host = authority.or(host).filter(|host| !host.is_empty());
    let request = Request {
        method,
        path,
        query: query.to_owned(),
        params: parse_query(query)?,
        minor_version,
        host: host.map(str::to_owned),
        content_length: framing.content_length,
        chunked: framing.chunked,
        headers,
    };
    Ok(Some((request, consumed)))
}

/// Splits a request target (RFC 9112 3.2) into host, path and query.
fn split_target(method: Method, target: &str) -> Result<(Option<&str>, &str, &str), HttpError> {
    if target == "*" && method == Method::Options {
        return Ok((None, "*", ""));
    }
    if target.contains('#') {
        return Err(HttpError::Malformed("fragment in request target"));
    }
    let (front, query) = target.split_once('?').unwrap_or((target, ""));
    if front.starts_with('/') {
        return Ok((None, front, query));
    }
    let lower = front.get(..8).unwrap_or(front).to_ascii_lowercase();
    let scheme = match () {
        () if lower.starts_with("http://") => 7,
        () if lower.starts_with("https://") => 8,
        () => return Err(HttpError::Malformed("request target")),
    };
    let rest = &front[scheme..];
    let slash = rest.find('/').unwrap_or(rest.len());
    let (host, path) = rest.split_at(slash);
    if !valid_host(host) {
        return Err(HttpError::Malformed("host in request target"));
    }
    Ok((Some(host), if path.is_empty() { "/" } else { path }, query))
}

pub(super) fn head_error(error: httparse::Error) -> HttpError {
    match error {
        httparse::Error::TooManyHeaders => HttpError::HeadTooLarge,
        httparse::Error::Version => HttpError::Version,
        httparse::Error::HeaderName => HttpError::Malformed("header name"),
        httparse::Error::HeaderValue => HttpError::Malformed("header value"),
        httparse::Error::NewLine => HttpError::Malformed("line end"),
        httparse::Error::Status => HttpError::Malformed("status"),
        httparse::Error::Token => HttpError::Malformed("request line"),
    }
}
