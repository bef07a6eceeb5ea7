//! Request targets: percent-decoding, paths and query parameters.
//!
//! A path is decoded once and then checked; nothing behind this module decodes again.

use std::borrow::Cow;

use super::{HttpError, Pairs};
use crate::limits::HTTP_QUERY_PARAMS_MAX;

/// Decodes `%XX`; with `plus` also `+` as a space, as forms write it. `None` if a `%` is not
/// followed by two hex digits.
pub fn percent_decode(text: &[u8], plus: bool) -> Option<Vec<u8>> {
    if memchr::memchr2(b'%', b'+', text).is_none() {
        return Some(text.to_vec());
    }
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [first, tail @ ..] = rest {
        rest = tail;
        match (first, tail) {
            (b'%', [high, low, tail @ ..]) => {
                let high = char::from(*high).to_digit(16)?;
                let low = char::from(*low).to_digit(16)?;
                out.push((high << 4 | low) as u8);
                rest = tail;
            }
            (b'%', _) => return None,
            (b'+', _) if plus => out.push(b' '),
            (byte, _) => out.push(*byte),
        }
    }
    Some(out)
}

/// Decodes and checks a path: it begins with `/`, is UTF-8 without control characters and
/// backslashes, has no `.` or `..` segment, and no slash that was hidden as `%2f`.
pub fn decode_path(raw: &str) -> Result<String, HttpError> {
    if !raw.starts_with('/') {
        return Err(HttpError::Malformed("request target"));
    }
    let slashes = memchr::memchr_iter(b'/', raw.as_bytes()).count();
    let path = percent_decode(raw.as_bytes(), false).ok_or(HttpError::Malformed("percent code"))?;
    let path = String::from_utf8(path).map_err(|_| HttpError::Malformed("path is not UTF-8"))?;
    if path.chars().any(|c| c.is_control() || c == '\\') {
        return Err(HttpError::Malformed("control character in path"));
    }
    if memchr::memchr_iter(b'/', path.as_bytes()).count() != slashes {
        return Err(HttpError::Malformed("encoded slash in path"));
    }
    if path.split('/').any(|segment| segment == "." || segment == "..") {
        return Err(HttpError::Malformed("dot segment in path"));
    }
    Ok(path)
}

/// Splits and decodes a query: `a=1&b` gives (a, 1) and (b, ""). A value whose percent codes or
/// UTF-8 are broken is kept as it was written, because tokens come in all shapes.
pub fn parse_query(raw: &str) -> Result<Pairs, HttpError> {
    if raw.is_empty() {
        return Ok(Pairs::default());
    }
    let mut out = Pairs::with_capacity(4, raw.len());
    for pair in raw.split('&').filter(|pair| !pair.is_empty()) {
        if out.len() == HTTP_QUERY_PARAMS_MAX {
            return Err(HttpError::Malformed("too many query parameters"));
        }
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        out.push(&decode_text(name), &decode_text(value));
    }
    Ok(out)
}

fn decode_text(raw: &str) -> Cow<'_, str> {
    if memchr::memchr2(b'%', b'+', raw.as_bytes()).is_none() {
        return Cow::Borrowed(raw);
    }
    let decoded = percent_decode(raw.as_bytes(), true);
    let text = decoded.and_then(|bytes| String::from_utf8(bytes).ok());
    text.map_or(Cow::Borrowed(raw), Cow::Owned)
}

/// A path with everything but its slashes encoded where that is needed.
pub fn encode_path(path: &str) -> String {
    path.split('/').map(percent_encode).collect::<Vec<_>>().join("/")
}

/// Writes text so that it can stand in a path or a query: all but letters, digits and `-._~`
/// encoded.
pub fn percent_encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push('%');
            for digit in [byte >> 4, byte & 15] {
                out.push(char::from(b"0123456789ABCDEF"[usize::from(digit)]));
            }
        }
    }
    out
}

/// Whether this is a host as a `Host` header has it (RFC 9110 7.2): a name, an IPv4 address or an
/// IPv6 address in brackets, with an optional port.
pub fn valid_host(host: &str) -> bool {
    let (name, port) = match host.strip_prefix('[') {
        Some(rest) => {
            let Some((address, port)) = rest.split_once(']') else { return false };
            if address.parse::<std::net::Ipv6Addr>().is_err() {
                return false;
            }
            (None, port)
        }
        None => {
            let colon = host.find(':').unwrap_or(host.len());
            (Some(&host[..colon]), &host[colon..])
        }
    };
    let name_ok = name.is_none_or(|name| {
        (1..=255).contains(&name.len())
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte))
    });
    // A colon without digits behind it is an empty port, which RFC 3986 allows.
    let port_ok = match port.strip_prefix(':') {
        Some("") => true,
        Some(digits) => {
            digits.bytes().all(|byte| byte.is_ascii_digit()) && digits.parse::<u16>().is_ok()
        }
        None => port.is_empty(),
    };
    name_ok && port_ok
}

/// The host without its port and brackets, in lower case: what picks a vhost.
pub fn host_name(host: &str) -> String {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or(""),
        None => host.split(':').next().unwrap_or(""),
    };
    name.to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        assert_eq!(decode_path("/live/stream.flv").unwrap(), "/live/stream.flv");
        assert_eq!(decode_path("/a%20b/%C3%A9+").unwrap(), "/a b/é+");
        // Decoded once: what is left is text, not another code.
        assert_eq!(decode_path("/%2541").unwrap(), "/%41");
        for bad in [
            "",
            "live",
            "/a/../b",
            "/..",
            "/%2e%2e/x",
            "/.%2E",
            "/.",
            "/a%2fb",
            "/a%5cb",
            "/a\\b",
            "/%00",
            "/a%0d%0ab",
            "/%7f",
            "/%",
            "/%4",
            "/%zz",
            "/%c0%ae",
            "/%ff",
            "/%c2%85",
        ] {
            assert!(decode_path(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn queries() {
        let pairs = parse_query("vhost=a.b&token=x%3Dy%26z+1&flag&&=v&bad=%zz%").unwrap();
        let expected =
            [("vhost", "a.b"), ("token", "x=y&z 1"), ("flag", ""), ("", "v"), ("bad", "%zz%")];
        assert_eq!(pairs.iter().collect::<Vec<_>>(), expected);
        assert!(parse_query("").unwrap().is_empty());
        assert!(parse_query(&"a&".repeat(HTTP_QUERY_PARAMS_MAX)).is_ok());
        assert!(parse_query(&"a&".repeat(HTTP_QUERY_PARAMS_MAX + 1)).is_err());
    }

    #[test]
    fn encoding_comes_back() {
        let text = "a b/é?&=%\r\n~";
        let encoded = percent_encode(text);
        assert_eq!(encoded, "a%20b%2F%C3%A9%3F%26%3D%25%0D%0A~");
        assert_eq!(percent_decode(encoded.as_bytes(), false).unwrap(), text.as_bytes());
    }

    #[test]
    fn hosts() {
        for good in ["a.b", "a.b:80", "127.0.0.1:8080", "[::1]", "[::1]:8080", "a_b-c", "a:"] {
            assert!(valid_host(good), "{good}");
        }
        for bad in [
            "", ":80", "a b", "a/b", "a@b", "a:b", "a:1:2", "a:99999", "a:+1", "[::1", "[x]", "[]",
            "[::1]x", "a\0", "é",
        ] {
            assert!(!valid_host(bad), "{bad}");
        }
        assert_eq!(host_name("LIVE.Example:8080"), "live.example");
        assert_eq!(host_name("[::1]:80"), "::1");
    }
}
