//! Response heads: written for players, read back by the load tester and the tests.

use std::io::Write as _;

use super::request::head_error;
use super::{BodyFraming, HttpError, Request, date, head_range};
use crate::limits::HTTP_HEADERS_MAX;

/// A response head under construction. Whatever it is given, it stays one head: control characters
/// in values are left out, so nothing that a peer sent can begin a new line.
#[derive(Debug, Clone)]
pub struct ResponseHead {
    bytes: Vec<u8>,
}

impl ResponseHead {
    /// Begins an HTTP/1.1 head.
    pub fn new(status: u16) -> ResponseHead {
        ResponseHead::with_version(1, status)
    }

    /// Begins an HTTP/1.`minor` head. 1.0 is for bodies that end with the connection.
    pub fn with_version(minor: u8, status: u16) -> ResponseHead {
        let version = if minor == 0 { "HTTP/1.0" } else { "HTTP/1.1" };
        let status = status.clamp(100, 999);
        let mut bytes = Vec::with_capacity(HEAD_BYTES_USUAL);
        // Writing to memory cannot fail.
        let _ = write!(bytes, "{version} {status} {}\r\nServer: ringcast\r\n", reason(status));
        ResponseHead { bytes }
    }

    /// Adds a header line.
    pub fn header(mut self, name: &'static str, value: &str) -> ResponseHead {
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.extend_from_slice(b": ");
        let plain = |byte: &u8| *byte >= b' ' && *byte != 0x7f;
        if value.as_bytes().iter().all(plain) {
            self.bytes.extend_from_slice(value.as_bytes());
        } else {
            self.bytes.extend(value.bytes().filter(plain));
        }
        self.bytes.extend_from_slice(b"\r\n");
        self
    }

    /// Adds `Content-Length`.
    pub fn content_length(self, length: u64) -> ResponseHead {
        self.header("Content-Length", &length.to_string())
    }

    /// Adds `Date`: RFC 9110 6.6.1 asks for it wherever there is a clock, and caches reckon the age
    /// of what they keep from it. `wall_ms` is since 1970.
    pub fn date(self, wall_ms: i64) -> ResponseHead {
        self.header("Date", &date::write(wall_ms.div_euclid(1_000)))
    }

    /// Adds the CORS headers that the vhost setting `crossdomain` asks for. SRS: any origin, any
    /// method, any header, no credentials; the private network header has the name that SRS gives
    /// it, beside the one that browsers read. Other than SRS, who does not come from a page (has no
    /// `Origin`) is told that pages may read it, too: a cache in front may give them this answer.
    pub fn cors(self, request: &Request) -> ResponseHead {
        let head = self
            .header("Access-Control-Allow-Origin", "*")
            .header("Access-Control-Expose-Headers", "*");
        if request.header("origin").is_none() {
            return head;
        }
        let mut head = head
            .header("Access-Control-Allow-Methods", "*")
            .header("Access-Control-Allow-Headers", "*")
            .header("Access-Control-Allow-Credentials", "false")
            .header("Access-Control-Request-Private-Network", "true");
        if request.header("access-control-request-private-network").is_some() {
            head = head.header("Access-Control-Allow-Private-Network", "true");
        }
        if request.method == super::Method::Options {
            head = head.header("Access-Control-Max-Age", "86400");
        }
        head
    }

    /// The finished head, with the empty line behind it.
    pub fn finish(mut self) -> Vec<u8> {
        self.bytes.extend_from_slice(b"\r\n");
        self.bytes
    }

    /// The finished head with a body behind it. Adds `Content-Length`.
    pub fn body(self, body: &[u8]) -> Vec<u8> {
        let mut bytes = self.content_length(body.len() as u64).finish();
        bytes.extend_from_slice(body);
        bytes
    }
}

/// Few heads are longer.
const HEAD_BYTES_USUAL: usize = 384;

/// A whole answer of one plain text line that closes the connection: for errors before and after
/// routing, at `wall_ms` since 1970.
pub fn plain(status: u16, wall_ms: i64) -> Vec<u8> {
    let body = format!("{} {}\n", status, reason(status));
    ResponseHead::new(status)
        .header("Content-Type", "text/plain; charset=utf-8")
        .header("X-Content-Type-Options", "nosniff")
        .header("Connection", "close")
        .date(wall_ms)
        .body(body.as_bytes())
}

/// The answer to a request that could not be read, at `wall_ms` since 1970.
pub fn error(error: HttpError, wall_ms: i64) -> Vec<u8> {
    plain(error.status(), wall_ms)
}

/// The reason phrase of a status code.
pub fn reason(status: u16) -> &'static str {
    match status {
        100 => "Continue",
        101 => "Switching Protocols",
        200 => "OK",
        201 => "Created",
        204 => "No Content",
        206 => "Partial Content",
        301 => "Moved Permanently",
        302 => "Found",
        304 => "Not Modified",
        307 => "Temporary Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        409 => "Conflict",
        411 => "Length Required",
        412 => "Precondition Failed",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        416 => "Range Not Satisfiable",
        426 => "Upgrade Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        505 => "HTTP Version Not Supported",
        _ => "Unknown",
    }
}

/// A response head, owned. For clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// The minor version: 0 or 1.
    pub minor_version: u8,
    /// The length of the body, if the head states one.
    pub content_length: Option<u64>,
    /// Whether the body is chunked.
    pub chunked: bool,
    /// All header lines in order, names in lower case.
    pub headers: Vec<(String, String)>,
}

impl Response {
    /// The first header with this name, which must be in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }
}

/// Reads a response head from the front of `buf`. `None`: more bytes are needed. Otherwise the
/// response and how many bytes its head takes.
pub fn parse_response(buf: &[u8]) -> Result<Option<(Response, usize)>, HttpError> {
    let Some(range) = head_range(buf)? else { return Ok(None) };
    let consumed = range.end;
    let mut lines = [httparse::EMPTY_HEADER; HTTP_HEADERS_MAX];
    let mut parsed = httparse::Response::new(&mut lines);
    match parsed.parse(&buf[range]) {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) => return Err(HttpError::Malformed("response head")),
        Err(error) => return Err(head_error(error)),
    }
    let (Some(status), Some(minor_version)) = (parsed.code, parsed.version) else {
        return Err(HttpError::Malformed("status line"));
    };
    let mut framing = BodyFraming::default();
    let mut headers = Vec::with_capacity(parsed.headers.len());
    for line in parsed.headers.iter() {
        framing.add(line.name, line.value)?;
        let value = String::from_utf8_lossy(line.value).into_owned();
        headers.push((line.name.to_ascii_lowercase(), value));
    }
    let response = Response {
        status,
        minor_version,
        content_length: framing.content_length,
        chunked: framing.chunked,
        headers,
    };
    Ok(Some((response, consumed)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::http::parse_request;

    #[test]
    fn heads_come_back() {
        let bytes = ResponseHead::new(200)
            .header("Content-Type", "video/x-flv")
            .header("Transfer-Encoding", "chunked")
            .finish();
        let (response, consumed) = parse_response(&bytes).unwrap().unwrap();
        assert_eq!(consumed, bytes.len());
        assert_eq!((response.status, response.minor_version), (200, 1));
        assert!(response.chunked && response.content_length.is_none());
        assert_eq!(response.header("content-type"), Some("video/x-flv"));
        assert_eq!(response.header("server"), Some("ringcast"));
        for end in 0..bytes.len() {
            assert_eq!(parse_response(&bytes[..end]), Ok(None));
        }
        let bytes = ResponseHead::with_version(0, 404).body(b"gone");
        let (response, consumed) = parse_response(&bytes).unwrap().unwrap();
        assert_eq!((response.status, response.minor_version), (404, 0));
        assert_eq!((response.content_length, &bytes[consumed..]), (Some(4), b"gone".as_slice()));
    }

    #[test]
    fn nothing_begins_a_new_line() {
        let value = "x\r\nSet-Cookie: a\0\x7f\n\ny";
        let bytes = ResponseHead::new(302).header("Location", value).finish();
        let (response, consumed) = parse_response(&bytes).unwrap().unwrap();
        assert_eq!((response.headers.len(), consumed), (2, bytes.len()));
        assert_eq!(response.header("location"), Some("xSet-Cookie: ay"));
    }

    #[test]
    fn errors_are_whole_answers() {
        for (error, status) in [
            (HttpError::Malformed("x"), 400),
            (HttpError::HeadTooLarge, 431),
            (HttpError::TargetTooLong, 414),
            (HttpError::BodyTooLong, 413),
            (HttpError::NotImplemented("x"), 501),
            (HttpError::Version, 505),
        ] {
            let bytes = super::error(error, 784_111_777_999);
            let (response, consumed) = parse_response(&bytes).unwrap().unwrap();
            assert_eq!(response.status, status);
            assert_eq!(response.content_length, Some((bytes.len() - consumed) as u64));
            assert_eq!(response.header("connection"), Some("close"));
            assert_eq!(response.header("date"), Some("Sun, 06 Nov 1994 08:49:37 GMT"));
            assert_ne!(reason(status), "Unknown");
        }
    }

    #[test]
    fn cors_is_for_pages_and_for_caches_before_them() {
        let request = |lines: &str| {
            let text = format!("OPTIONS /a HTTP/1.1\r\nHost: a\r\n{lines}\r\n");
            parse_request(text.as_bytes()).unwrap().unwrap().0
        };
        let names = |request: &Request| {
            let bytes = ResponseHead::new(200).cors(request).finish();
            let response = parse_response(&bytes).unwrap().unwrap().0;
            (
                response.header("access-control-allow-origin").map(str::to_owned),
                response.header("access-control-allow-private-network").map(str::to_owned),
                response.headers.len(),
            )
        };
        assert_eq!(names(&request("")), (Some("*".to_owned()), None, 3));
        let page = request("Origin: http://x\r\n");
        assert_eq!(names(&page), (Some("*".to_owned()), None, 8));
        let local = request("Origin: http://x\r\nAccess-Control-Request-Private-Network: true\r\n");
        assert_eq!(names(&local), (Some("*".to_owned()), Some("true".to_owned()), 9));
    }

    #[test]
    fn bad_responses() {
        for text in [
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 20 OK\r\n\r\n",
            "HTTP/1.1\r\n\r\n",
            "RTSP/1.0 200 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n",
            "HTTP/1.1 200 OK\nX: a\r\n\r\n",
        ] {
            assert!(parse_response(text.as_bytes()).is_err(), "{text:?}");
        }
    }
}
