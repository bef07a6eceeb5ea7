//! The index page: its files, served from the binary.
//!
//! This module knows bytes and their types only. Whoever speaks HTTP asks [`asset`] for a path and
//! adds [`HEADERS`]. What the page needs from the server besides these files: `GET /streams.json`
//! (the live streams) and the play URLs of the streams.

use std::fmt::Write;
use std::sync::LazyLock;

use sha2::{Digest, Sha256};

/// One file of the page.
#[derive(Clone, Copy, Debug)]
pub struct Asset {
    /// Value of `Content-Type`.
    pub content_type: &'static str,
    /// The body.
    pub body: &'static [u8],
    /// Value of `ETag`, quotes included. It changes with the body, so a client that revalidates
    /// (see [`HEADERS`]) never mixes files of two versions.
    pub etag: &'static str,
}

/// Header fields that go with every file of the page.
///
/// The policy allows no inline script and no other host. `blob:` is there because a browser plays
/// Media Source Extensions from such a URL.
pub const HEADERS: &[(&str, &str)] = &[
    ("Content-Security-Policy", CONTENT_SECURITY_POLICY),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    ("Cache-Control", "no-cache"),
];

const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
     img-src 'self'; connect-src 'self'; media-src 'self' blob:; base-uri 'none'; \
     form-action 'none'; frame-ancestors 'self'";

/// The file of the page at an absolute URL path without query, if there is one.
pub fn asset(path: &str) -> Option<Asset> {
    let path = if path == "/" { "/index.html" } else { path };
    let index = FILES.iter().position(|file| file.path == path)?;
    let File { content_type, body, .. } = FILES[index];
    Some(Asset { content_type, body, etag: &ETAGS[index] })
}

struct File {
    path: &'static str,
    content_type: &'static str,
    body: &'static [u8],
}

/// All but the page itself lie under `/page/`, to keep out of the way of apps and static files.
static FILES: [File; 8] = [
    File {
        path: "/index.html",
        content_type: "text/html; charset=utf-8",
        body: include_bytes!("page/index.html"),
    },
    File {
        path: "/errors/",
        content_type: "text/html; charset=utf-8",
        body: include_bytes!("page/errors.html"),
    },
    File {
        path: "/page/errors.css",
        content_type: "text/css; charset=utf-8",
        body: include_bytes!("page/errors.css"),
    },
    File {
        path: "/page/app.js",
        content_type: "text/javascript; charset=utf-8",
        body: include_bytes!("page/app.js"),
    },
    File {
        path: "/page/style.css",
        content_type: "text/css; charset=utf-8",
        body: include_bytes!("page/style.css"),
    },
    File {
        path: "/page/favicon.svg",
        content_type: "image/svg+xml",
        body: include_bytes!("page/favicon.svg"),
    },
    File {
        path: "/page/mpegts.js",
        content_type: "text/javascript; charset=utf-8",
        body: include_bytes!("page/vendor/mpegts.js"),
    },
    File {
        path: "/page/mpegts.LICENSE.txt",
        content_type: "text/plain; charset=utf-8",
        body: include_bytes!("page/vendor/mpegts.LICENSE.txt"),
    },
];

static ETAGS: LazyLock<[String; FILES.len()]> =
    LazyLock::new(|| std::array::from_fn(|index| etag_of(FILES[index].body)));

/// 64 bits of a SHA-256 are plenty to tell versions of a file apart.
fn etag_of(body: &[u8]) -> String {
    let mut etag = String::from("\"");
    for byte in &Sha256::digest(body)[..8] {
        write!(etag, "{byte:02x}").expect("writing to a String cannot fail");
    }
    etag.push('"');
    etag
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::SESSION_OUTPUT_MAX;

    fn text(path: &str) -> &'static str {
        std::str::from_utf8(asset(path).expect(path).body).expect("text")
    }

    #[test]
    fn root_is_the_index_page() {
        let root = asset("/").expect("root");
        assert_eq!(root.content_type, "text/html; charset=utf-8");
        assert_eq!(root.body, asset("/index.html").expect("index").body);
        assert!(text("/").contains("<video"));
    }

    #[test]
    fn every_file_fits_in_a_reply_with_room_for_its_head() {
        for file in &FILES {
            let head = 4 << 10;
            assert!(file.body.len() + head <= SESSION_OUTPUT_MAX, "{}", file.path);
        }
    }

    #[test]
    fn unknown_and_relative_paths_are_not_found() {
        for path in ["", "/page", "/page/", "/page/../page/app.js", "/live/demo.flv", "app.js"] {
            assert!(asset(path).is_none(), "{path:?}");
        }
    }

    #[test]
    fn every_file_the_page_names_is_there() {
        let mut found = 0;
        for attribute in ["src=\"", "href=\""] {
            for rest in text("/").split(attribute).skip(1) {
                let target = rest.split('"').next().expect("closing quote");
                if target.starts_with('/') {
                    assert!(asset(target).is_some(), "{target}");
                    found += 1;
                } else {
                    assert!(target.starts_with('#'), "{target} is on another host");
                }
            }
        }
        assert_eq!(found, 6);
    }

    #[test]
    fn etags_differ_and_are_quoted() {
        let mut etags: Vec<_> = FILES.iter().map(|f| asset(f.path).expect(f.path).etag).collect();
        assert!(etags.iter().all(|e| e.len() == 18 && e.starts_with('"') && e.ends_with('"')));
        etags.sort_unstable();
        etags.dedup();
        assert_eq!(etags.len(), FILES.len());
    }

    #[test]
    fn own_files_keep_the_security_policy() {
        let html = text("/");
        // No inline script, no inline style, no event attribute.
        assert!(!html.contains("<style") && !html.contains("style="));
        assert!(!html.split_whitespace().any(|word| word.starts_with("on") && word.contains('=')));
        assert!(html.split("<script").skip(1).all(|tag| {
            tag.split('>').next().expect("tag").contains("src=\"/page/")
                && tag.split('>').nth(1).expect("body").starts_with("</script")
        }));
        // Names of streams reach the document as text only.
        let script = text("/page/app.js");
        for banned in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("] {
            assert!(!script.contains(banned), "{banned}");
        }
        for own in [html, script, text("/page/style.css")] {
            assert!(!own.contains("http://") && !own.contains("https://"));
        }
    }
}
