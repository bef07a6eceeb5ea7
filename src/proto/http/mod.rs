//! HTTP/1.x as the data plane needs it: request heads in, response heads out, chunked bodies.
//!
//! Written for the public internet: whatever two HTTP parsers could read in two ways (RFC 9112
//! 11.2, request smuggling) is refused. It knows nothing of routes, files or streams. The client
//! half serves the load tester and the tests.

pub mod body;
pub mod date;
pub mod file;
pub mod pairs;
pub mod request;
pub mod response;
pub mod url;

pub use body::{ChunkedDecoder, Piece};
pub use pairs::Pairs;
pub use request::{Method, Request, parse_request};
pub use response::{Response, ResponseHead, parse_response};

/// Why a head or a body was refused. Each has the status to answer with before closing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HttpError {
    /// The peer's bytes are not HTTP, or could be read in more than one way.
    #[error("bad request: {0}")]
    Malformed(&'static str),
    /// The body is longer than the route takes.
    #[error("body too long")]
    BodyTooLong,
    /// The request target is longer than the limit.
    #[error("request target too long")]
    TargetTooLong,
    /// The head is longer, or has more lines, than the limit.
    #[error("request head too large")]
    HeadTooLarge,
    /// A method or a transfer coding that the server does not have.
    #[error("not implemented: {0}")]
    NotImplemented(&'static str),
    /// An HTTP version other than 1.0 and 1.1.
    #[error("HTTP version not supported")]
    Version,
}

impl HttpError {
    /// The status code to answer with.
    pub fn status(self) -> u16 {
        match self {
            HttpError::Malformed(_) => 400,
            HttpError::BodyTooLong => 413,
            HttpError::TargetTooLong => 414,
            HttpError::HeadTooLarge => 431,
            HttpError::NotImplemented(_) => 501,
            HttpError::Version => 505,
        }
    }
}

/// Reads the headers that frame a message (RFC 9112 6), the same for both directions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct BodyFraming {
    content_length: Option<u64>,
    chunked: bool,
}

impl BodyFraming {
    fn add(&mut self, name: &str, value: &[u8]) -> Result<(), HttpError> {
        if name.eq_ignore_ascii_case("content-length") {
            // Two lengths are refused even when they agree: whoever sends them is confused.
            if self.content_length.is_some() {
                return Err(HttpError::Malformed("two Content-Length"));
            }
            self.content_length = Some(digits(value)?);
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            if self.chunked {
                return Err(HttpError::Malformed("two Transfer-Encoding"));
            }
            if !value.trim_ascii().eq_ignore_ascii_case(b"chunked") {
                return Err(HttpError::NotImplemented("transfer coding"));
            }
            self.chunked = true;
        }
        if self.chunked && self.content_length.is_some() {
            // RFC 9112 6.3: an attempt at request smuggling until proven otherwise.
            return Err(HttpError::Malformed("Content-Length with Transfer-Encoding"));
        }
        Ok(())
    }
}

/// A Content-Length value: digits only, no sign, no list.
fn digits(value: &[u8]) -> Result<u64, HttpError> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return Err(HttpError::Malformed("Content-Length"));
    }
    value
        .iter()
        .try_fold(0u64, |sum, digit| sum.checked_mul(10)?.checked_add(u64::from(digit - b'0')))
        .ok_or(HttpError::Malformed("Content-Length"))
}

/// Finds the end of a head: the count of bytes before `start line`, and up to behind the empty
/// line.
///
/// Refuses what httparse lets pass: line feeds without carriage return and the other way round, and
/// NUL. `None`: the head is not complete yet.
fn head_range(buf: &[u8]) -> Result<Option<std::ops::Range<usize>>, HttpError> {
    // RFC 9112 2.2: an empty line before the request line is ignored. One, not a stream of them.
    let start = if buf.starts_with(b"\r\n") { 2 } else { 0 };
    let end = memchr::memmem::find(&buf[start..], b"\r\n\r\n").map(|at| start + at + 4);
    let seen = &buf[start..end.unwrap_or(buf.len())];
    if seen.len() > crate::limits::HTTP_HEAD_BYTES_MAX {
        return Err(HttpError::HeadTooLarge);
    }
    for at in memchr::memchr3_iter(b'\r', b'\n', 0, seen) {
        let fine = match seen[at] {
            b'\r' => seen.get(at + 1).is_none_or(|next| *next == b'\n'),
            b'\n' => at > 0 && seen[at - 1] == b'\r',
            _ => false,
        };
        if !fine {
            return Err(HttpError::Malformed("bare CR, bare LF or NUL"));
        }
    }
    if seen.starts_with(b"\r\n") {
        return Err(HttpError::Malformed("empty lines"));
    }
    Ok(end.map(|end| start..end))
}
