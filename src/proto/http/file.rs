//! What a request for a file asks for (RFC 9110 13 and 14), and what a file's name says of it.

use super::{Request, date};

/// A file as it is now.
#[derive(Clone, Copy, Debug)]
pub struct Version<'a> {
    /// Its entity tag, with quotes. A strong one.
    pub etag: &'a str,
    /// When it was last changed, seconds since 1970.
    pub modified: i64,
    /// Bytes in it.
    pub len: u64,
}

/// What is to be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// All of it (200).
    Whole,
    /// So many bytes from there (206).
    Part(u64, u64),
    /// The client has it (304).
    Unchanged,
    /// The client wants another version (412).
    Changed,
    /// There is nothing of what it wants (416).
    NoSuchRange,
}

/// Reads the conditions in the order of RFC 9110 13.2.2, then the range. `asked` is a range that
/// stands for the header. Several ranges are answered with the whole file, as 14.2 allows.
pub fn answer(request: &Request, version: Version<'_>, asked: Option<&str>) -> Answer {
    let date = |name: &str| request.header(name).and_then(date::read);
    match request.header("if-match") {
        Some(tags) if !names(tags, version.etag, false) => return Answer::Changed,
        Some(_) => {}
        None if date("if-unmodified-since").is_some_and(|since| version.modified > since) => {
            return Answer::Changed;
        }
        None => {}
    }
    match request.header("if-none-match") {
        Some(tags) if names(tags, version.etag, true) => return Answer::Unchanged,
        Some(_) => {}
        None if date("if-modified-since").is_some_and(|since| version.modified <= since) => {
            return Answer::Unchanged;
        }
        None => {}
    }
    let is_same = |condition: &str| match condition.trim().starts_with(['"', 'W']) {
        true => condition.trim() == version.etag,
        // 13.1.5: exactly that date.
        false => date::read(condition) == Some(version.modified),
    };
    let header = request.header("range").filter(|_| request.header("if-range").is_none_or(is_same));
    match asked.or(header).and_then(|text| range(text, version.len)) {
        None => Answer::Whole,
        Some(Ok((start, len))) => Answer::Part(start, len),
        Some(Err(())) => Answer::NoSuchRange,
    }
}

/// True when a list of entity tags has this one. `weak`: a weak one of the same text counts.
fn names(list: &str, etag: &str, weak: bool) -> bool {
    list.split(',').map(str::trim).any(|tag| {
        let tag = if weak { tag.strip_prefix("W/").unwrap_or(tag) } else { tag };
        tag == "*" || tag == etag
    })
}

/// First byte and length of what a `Range` header asks for; `None` if it is to be ignored (several
/// ranges, other units), an error if there is nothing of it.
pub fn range(header: &str, total: u64) -> Option<Result<(u64, u64), ()>> {
    let (first, last) = header.trim().strip_prefix("bytes=")?.split_once('-')?;
    let number = |text: &str| text.trim().parse::<u64>().ok();
    Some(match (first.trim(), last.trim()) {
        ("", "") => return None,
        ("", last) => match number(last)?.min(total) {
            0 => Err(()),
            len => Ok((total - len, len)),
        },
        (first, last) => {
            let first = number(first)?;
            let last = if last.is_empty() { u64::MAX } else { number(last)? };
            if last < first {
                return None;
            }
            match first < total {
                true => Ok((first, last.min(total - 1) - first + 1)),
                false => Err(()),
            }
        }
    })
}

/// The media type of a file, by its suffix.
pub fn content_type(path: &str) -> &'static str {
    let suffix = path.rsplit('/').next().unwrap_or_default().rsplit_once('.');
    let suffix = suffix.map_or(String::new(), |(_, suffix)| suffix.to_ascii_lowercase());
    match suffix.as_str() {
        "flv" => "video/x-flv",
        "mp4" | "m4v" | "cmfv" => "video/mp4",
        "m4a" | "cmfa" => "audio/mp4",
        "m4s" => "video/iso.segment",
        "ts" | "m2ts" => "video/MP2T",
        "m3u8" => "application/vnd.apple.mpegurl",
        "mpd" => "application/dash+xml",
        "mkv" => "video/x-matroska",
        "webm" => "video/webm",
        "mov" => "video/quicktime",
        "aac" => "audio/aac",
        "mp3" => "audio/mpeg",
        "ogg" | "oga" | "opus" => "audio/ogg",
        "wav" => "audio/wav",
        "flac" => "audio/flac",
        "html" | "htm" => "text/html; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "json" | "map" => "application/json",
        "xml" => "text/xml",
        "txt" | "log" | "md" => "text/plain; charset=utf-8",
        "csv" => "text/csv; charset=utf-8",
        "vtt" => "text/vtt; charset=utf-8",
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "gif" => "image/gif",
        "webp" => "image/webp",
        "avif" => "image/avif",
        "svg" => "image/svg+xml",
        "ico" => "image/x-icon",
        "wasm" => "application/wasm",
        "swf" => "application/x-shockwave-flash",
        "pdf" => "application/pdf",
        "zip" => "application/zip",
        "woff" => "font/woff",
        "woff2" => "font/woff2",
        _ => "application/octet-stream",
    }
}

/// True for what is a recording, a segment or a list of them.
pub fn is_media(content_type: &str) -> bool {
    let lists = ["application/vnd.apple.mpegurl", "application/dash+xml"];
    content_type.starts_with("video/")
        || content_type.starts_with("audio/")
        || lists.contains(&content_type)
}

/// True for what is another one in a moment: lists of segments.
pub fn is_list(content_type: &str) -> bool {
    is_media(content_type) && content_type.starts_with("application/")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::http::parse_request;

    fn ask(lines: &str, asked: Option<&str>) -> Answer {
        let text = format!("GET /a HTTP/1.1\r\nHost: a\r\n{lines}\r\n");
        let (request, _) = parse_request(text.as_bytes()).unwrap().unwrap();
        let version = Version { etag: "\"a-1\"", modified: 784_111_777, len: 100 };
        answer(&request, version, asked)
    }

    #[test]
    fn conditions_have_their_order() {
        let (now, before) = ("Sun, 06 Nov 1994 08:49:37 GMT", "Sun, 06 Nov 1994 08:49:36 GMT");
        for (lines, expected) in [
            ("", Answer::Whole),
            ("If-None-Match: \"a-1\"\r\n", Answer::Unchanged),
            ("If-None-Match: \"b\", W/\"a-1\"\r\n", Answer::Unchanged),
            ("If-None-Match: *\r\n", Answer::Unchanged),
            ("If-None-Match: \"b\"\r\n", Answer::Whole),
            (&format!("If-Modified-Since: {now}\r\n"), Answer::Unchanged),
            (&format!("If-Modified-Since: {before}\r\n"), Answer::Whole),
            ("If-Modified-Since: yesterday\r\n", Answer::Whole),
            // The tag counts, not the date.
            (&format!("If-None-Match: \"b\"\r\nIf-Modified-Since: {now}\r\n"), Answer::Whole),
            ("If-Match: \"b\"\r\n", Answer::Changed),
            ("If-Match: W/\"a-1\"\r\n", Answer::Changed),
            ("If-Match: \"b\", \"a-1\"\r\n", Answer::Whole),
            (&format!("If-Unmodified-Since: {before}\r\n"), Answer::Changed),
            (&format!("If-Unmodified-Since: {now}\r\n"), Answer::Whole),
            ("Range: bytes=5-9\r\n", Answer::Part(5, 5)),
            ("Range: bytes=5-9\r\nIf-Range: \"a-1\"\r\n", Answer::Part(5, 5)),
            ("Range: bytes=5-9\r\nIf-Range: W/\"a-1\"\r\n", Answer::Whole),
            ("Range: bytes=5-9\r\nIf-Range: \"b\"\r\n", Answer::Whole),
            (&format!("Range: bytes=5-9\r\nIf-Range: {now}\r\n"), Answer::Part(5, 5)),
            (&format!("Range: bytes=5-9\r\nIf-Range: {before}\r\n"), Answer::Whole),
            ("Range: bytes=100-\r\n", Answer::NoSuchRange),
            ("Range: bytes=0-1,5-6\r\n", Answer::Whole),
        ] {
            assert_eq!(ask(lines, None), expected, "{lines}");
        }
        assert_eq!(ask("Range: bytes=5-9\r\n", Some("bytes=7-7")), Answer::Part(7, 1));
    }

    #[test]
    fn suffixes_say_what_files_are() {
        assert_eq!(content_type("/a/b.FLV"), "video/x-flv");
        assert_eq!(content_type("/a.flv/b"), "application/octet-stream");
        assert_eq!(content_type("/index.html"), "text/html; charset=utf-8");
        assert!(is_media(content_type("x.m3u8")) && is_list(content_type("x.m3u8")));
        assert!(is_media(content_type("x.ts")) && !is_list(content_type("x.ts")));
        assert!(!is_media(content_type("x.json")) && !is_list(content_type("x.json")));
    }

    #[test]
    fn ranges() {
        for (header, expected) in [
            ("bytes=0-", Some(Ok((0, 100)))),
            ("bytes=10-19", Some(Ok((10, 10)))),
            ("bytes=90-200", Some(Ok((90, 10)))),
            ("bytes=-30", Some(Ok((70, 30)))),
            ("bytes=-300", Some(Ok((0, 100)))),
            ("bytes=100-", Some(Err(()))),
            ("bytes=-0", Some(Err(()))),
            ("bytes=5-4", None),
            ("bytes=0-1,3-4", None),
            ("lines=0-1", None),
            ("bytes=-", None),
            ("bytes=a-", None),
        ] {
            assert_eq!(range(header, 100), expected, "{header}");
        }
    }
}
