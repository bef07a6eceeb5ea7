//! Request heads: parsing and the questions that the routes ask.

use super::url::{decode_path, parse_query, valid_host};
use super::{BodyFraming, HttpError, Pairs, head_range};
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
    pub params: Pairs,
    /// The minor version: 0 or 1.
    pub minor_version: u8,
    /// The host and port that the client means: of an absolute target, else the `Host` header.
    pub host: Option<String>,
    /// The length of the body, if the head states one.
    pub content_length: Option<u64>,
    /// Whether the body is chunked.
    pub chunked: bool,
    /// All header lines in order, names in lower case. Values are cut to valid UTF-8.
    pub headers: Pairs,
}

impl Request {
    /// The first header with this name, which must be in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)
    }

    /// True when the answer may be in gzip (RFC 9110 12.5.3).
    pub fn accepts_gzip(&self) -> bool {
        let mut any = false;
        for part in self.header("accept-encoding").unwrap_or_default().split(',') {
            let (coding, rest) = part.split_once(';').unwrap_or((part, ""));
            let weight = rest.split(';').find_map(|weight| weight.trim().strip_prefix("q="));
            let wanted =
                weight.is_none_or(|weight| weight.trim().parse::<f32>().is_ok_and(|q| q > 0.0));
            match coding.trim() {
                name if name.eq_ignore_ascii_case("gzip") => return wanted,
                name if name.eq_ignore_ascii_case("x-gzip") => return wanted,
                "*" => any = wanted,
                _ => {}
            }
        }
        any
    }

    /// The first query parameter with this name.
    pub fn param(&self, name: &str) -> Option<&str> {
        self.params.get(name)
    }

    /// Whether the comma-separated header `name` (lower case) holds `token`, in any case.
    pub fn header_has(&self, name: &str, token: &str) -> bool {
        self.headers
            .all(name)
            .flat_map(|value| value.split(','))
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

/// Reads a request head from the front of `buf`. `None`: more bytes are needed. Otherwise the
/// request and how many bytes its head takes; a body begins there. An error is final for the
/// connection.
pub fn parse_request(buf: &[u8]) -> Result<Option<(Request, usize)>, HttpError> {
    let Some(range) = head_range(buf)? else { return Ok(None) };
    let (start, consumed) = (range.start, range.end);
    let mut lines = [httparse::EMPTY_HEADER; HTTP_HEADERS_MAX];
    let mut parsed = httparse::Request::new(&mut lines);
    match parsed.parse(&buf[range]) {
        Ok(httparse::Status::Complete(_)) => {}
        // The head ends in an empty line, so there is nothing to wait for.
        Ok(httparse::Status::Partial) => return Err(HttpError::Malformed("request head")),
        Err(httparse::Error::Version) if !has_version(&buf[start..]) => {
            return Err(HttpError::Malformed("request line"));
        }
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
    let mut headers = Pairs::with_capacity(parsed.headers.len(), consumed - start);
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
        headers.push_lower(line.name, &String::from_utf8_lossy(line.value));
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

/// Whether a request line ends in an HTTP version at all, so that 505 is the right answer.
fn has_version(head: &[u8]) -> bool {
    let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let mut words = line.split(|byte| *byte == b' ').skip(2);
    let version = words.next().and_then(|word| word.strip_prefix(b"HTTP/"));
    matches!(version, Some([major, b'.', minor])
        if major.is_ascii_digit() && minor.is_ascii_digit() && words.next().is_none())
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::HTTP_HEAD_BYTES_MAX;

    fn parse(text: &str) -> Result<Request, HttpError> {
        let result = parse_request(text.as_bytes());
        // No shorter input may be taken for a whole request, or for a bad one that is good.
        if let Ok(Some((_, consumed))) = &result {
            for end in 0..*consumed {
                assert_eq!(parse_request(&text.as_bytes()[..end]), Ok(None), "{end}");
            }
        }
        result.map(|parsed| parsed.expect("a complete head").0)
    }

    #[test]
    fn a_player() {
        let text = "GET /live/s%20t.flv?vhost=v&token=a%2Bb HTTP/1.1\r\nHost: Example.com:8080\r\n\
            User-Agent:  Lavf/60 \r\nX-Empty:\r\nConnection: close, x\r\n\r\nrest";
        let request = parse(text).unwrap();
        assert_eq!(request.method, Method::Get);
        assert_eq!(request.path, "/live/s t.flv");
        assert_eq!(request.query, "vhost=v&token=a%2Bb");
        assert_eq!((request.param("vhost"), request.param("token")), (Some("v"), Some("a+b")));
        assert_eq!(request.param("none"), None);
        assert_eq!(request.host.as_deref(), Some("Example.com:8080"));
        assert_eq!(request.header("user-agent"), Some("Lavf/60"));
        assert_eq!(request.header("x-empty"), Some(""));
        assert!(!request.keep_alive() && !request.has_body() && !request.wants_websocket());
        let (_, consumed) = parse_request(text.as_bytes()).unwrap().unwrap();
        assert_eq!(&text[consumed..], "rest");
    }

    #[test]
    fn versions_and_keep_alive() {
        let old = parse("GET / HTTP/1.0\r\n\r\n").unwrap();
        assert_eq!((old.minor_version, old.host.as_deref(), old.keep_alive()), (0, None, false));
        assert!(parse("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n").unwrap().keep_alive());
        assert!(parse("GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap().keep_alive());
        assert_eq!(parse("GET / HTTP/2.0\r\nHost: a\r\n\r\n"), Err(HttpError::Version));
        let early = parse("\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        assert_eq!(early.path, "/");
    }

    #[test]
    fn target_forms() {
        let host = |target: &str| {
            parse(&format!("GET {target} HTTP/1.1\r\nHost: other\r\n\r\n"))
                .map(|request| (request.host.unwrap(), request.path, request.query))
        };
        let is = |a: &str, b: &str, c: &str| Ok((a.to_owned(), b.to_owned(), c.to_owned()));
        assert_eq!(host("http://a.b:80/x?y"), is("a.b:80", "/x", "y"));
        assert_eq!(host("HTTPS://a.b"), is("a.b", "/", ""));
        assert_eq!(host("http://a?q"), is("a", "/", "q"));
        assert_eq!(host("/x?http://y"), is("other", "/x", "http://y"));
        for bad in ["http://", "http:///x", "http://u@a/x", "ftp://a/x", "a.b:80", "*", "/x#y"] {
            assert_eq!(host(bad).unwrap_err().status(), 400, "{bad}");
        }
        let star = parse("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        assert_eq!((star.method, star.path.as_str()), (Method::Options, "*"));
        assert_eq!(parse("CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n").unwrap_err().status(), 501);
        assert_eq!(parse("get / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap_err().status(), 501);
    }

    #[test]
    fn bodies() {
        let post = |lines: &str| parse(&format!("POST / HTTP/1.1\r\nHost: a\r\n{lines}\r\n"));
        let length = post("Content-Length: 12\r\n").unwrap();
        assert_eq!((length.content_length, length.has_body()), (Some(12), true));
        assert!(!post("Content-Length: 0\r\n").unwrap().has_body());
        assert!(post("Transfer-Encoding: Chunked\r\n").unwrap().chunked);
    }

    #[test]
    fn smuggling_is_refused() {
        let heads = [
            "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: chunked\r\nContent-Length: 1\r\n",
            "Content-Length: 1\r\nContent-Length: 1\r\n",
            "Content-Length: 1\r\ncontent-length: 2\r\n",
            "Content-Length: 1, 1\r\n",
            "Content-Length: -1\r\n",
            "Content-Length: +1\r\n",
            "Content-Length: 0x10\r\n",
            "Content-Length: 1 1\r\n",
            "Content-Length:\r\n",
            "Content-Length: 18446744073709551616\r\n",
            "Content-Length : 1\r\n",
            " Content-Length: 1\r\n",
            "X: 1\r\n folded: 2\r\n",
            "X: 1\r\n\tfolded\r\n",
            "X: 1\nY: 2\r\n",
            "X: 1\rY: 2\r\n",
            "X: \0\r\n",
            "X: a\x01b\r\n",
            "X\0: 1\r\n",
            ": 1\r\n",
            "no colon\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            "Host: b\r\n",
            "H\u{f6}st: b\r\n",
        ];
        for lines in heads {
            let error = parse(&format!("POST / HTTP/1.1\r\nHost: a\r\n{lines}\r\n")).unwrap_err();
            assert_eq!(error.status(), 400, "{lines:?}: {error}");
        }
        for coding in ["gzip, chunked", "identity", "chunked, chunked", "xchunked", "\x0bchunked"] {
            let text = format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: {coding}\r\n\r\n");
            let status = parse(&text).unwrap_err().status();
            assert!(status == 501 || status == 400, "{coding}");
        }
        for head in [
            "GET / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n",
            "GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
            "GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET / x HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1 \r\nHost: a\r\n\r\n",
            "GET /\r\nHost: a\r\n\r\n",
            "GET /../x HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /%00 HTTP/1.1\r\nHost: a\r\n\r\n",
            "\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "\x16\x03\x01\x02\0\x01\0\x01\r\n\r\n",
        ] {
            assert_eq!(parse(head).unwrap_err().status(), 400, "{head:?}");
        }
    }

    #[test]
    fn bare_line_feeds_are_refused_at_once() {
        // Before the head is complete, so that nobody waits for an end that cannot come.
        assert_eq!(parse_request(b"GET / HTTP/1.0\n\n").unwrap_err().status(), 400);
        assert_eq!(parse_request(b"GET / HTTP/1.0\r\n\r"), Ok(None));
        assert_eq!(parse_request(b"GET / HTTP/1.0\rX").unwrap_err().status(), 400);
        assert_eq!(parse_request(b""), Ok(None));
    }

    #[test]
    fn sizes_are_bounded() {
        let endless = vec![b'a'; HTTP_HEAD_BYTES_MAX + 1];
        assert_eq!(parse_request(&endless), Err(HttpError::HeadTooLarge));
        assert_eq!(parse_request(&endless[1..]), Ok(None));
        let lines = |count: usize| {
            parse(&format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(count)))
        };
        assert!(lines(HTTP_HEADERS_MAX - 1).is_ok());
        assert_eq!(lines(HTTP_HEADERS_MAX), Err(HttpError::HeadTooLarge));
        let target = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(9_000));
        assert_eq!(parse(&target), Err(HttpError::TargetTooLong));
        // A long body behind a good head is none of the head's business.
        let mut long = b"POST / HTTP/1.0\r\n\r\n".to_vec();
        long.extend(vec![b'\n'; 100_000]);
        assert_eq!(parse_request(&long).unwrap().unwrap().1, 19);
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_survived(bytes: Vec<u8>, text in "[ -~\r\n]{0,80}") {
            let _ = parse_request(&bytes);
            for target in [text.as_str(), &text.replace(' ', "")] {
                let head = format!("GET /{target} HTTP/1.1\r\nHost: a\r\n\r\n");
                if let Ok(Some((request, consumed))) = parse_request(head.as_bytes()) {
                    proptest::prop_assert!(consumed <= head.len());
                    proptest::prop_assert!(request.path.starts_with('/'));
                    proptest::prop_assert!(!request.path.chars().any(char::is_control));
                }
            }
        }
    }
}
