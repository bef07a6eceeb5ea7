//! The pages: index, players and console, and their files, served from the binary.
//!
//! This module knows bytes and their types only. Whoever speaks HTTP asks [`asset`] for a path and
//! adds [`HEADERS`] and the asset's policy; for a path that is none it asks [`alias`]. What the
//! pages need from the server besides these files: `GET /streams.json` (the live streams) and the
//! play URLs of the streams for index and players, `/api/v1/` for the console. A port that does not
//! have these sends the browser to the one that does, see [`home`] and [`elsewhere`].
//!
//! The files below `page/built` are made from `src/console` by `ci/console.sh`.

use std::fmt::Write;
use std::sync::LazyLock;

use sha2::{Digest, Sha256};

/// One file of the pages.
#[derive(Clone, Copy, Debug)]
pub struct Asset {
    /// Value of `Content-Type`.
    pub content_type: &'static str,
    /// Value of `Content-Security-Policy`.
    pub policy: &'static str,
    /// The body.
    pub body: &'static [u8],
    /// Value of `Content-Encoding`. Large libraries are there compressed only: every browser takes
    /// that, and nobody else needs them.
    pub encoding: Option<&'static str>,
    /// Value of `ETag`, quotes included. It changes with the body, so a client that revalidates
    /// (see [`HEADERS`]) never mixes files of two versions.
    pub etag: &'static str,
}

/// Header fields that go with every file, beside its policy.
pub const HEADERS: &[(&str, &str)] = &[
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
    ("cache-control", "no-cache"),
];

/// No inline script and no other host. `blob:` is there because a browser plays Media Source
/// Extensions from such a URL.
const OWN_HOST: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
     connect-src 'self'; media-src 'self' blob:; base-uri 'none'; form-action 'none'; \
     frame-ancestors 'self'";

/// The player page plays any address that it is given; scripts come from here all the same.
const ANY_MEDIA: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
     connect-src 'self' http: https: ws: wss:; media-src 'self' blob: http: https:; \
     base-uri 'none'; form-action 'none'; frame-ancestors 'self'";

/// The file at an absolute URL path without query, if there is one.
pub fn asset(path: &str) -> Option<Asset> {
    let path = match path {
        "/" => "/index.html",
        "/console/" => "/console/index.html",
        "/players/" => "/players/index.html",
        path => path,
    };
    let index = FILES.iter().position(|file| file.path == path)?;
    let File { path, content_type, body, encoding } = FILES[index];
    let policy = if path.starts_with("/players/") { ANY_MEDIA } else { OWN_HOST };
    Some(Asset { content_type, policy, body, encoding, etag: &ETAGS[index] })
}

/// Where a path that is no file leads to, relative to it: the names of SRS's pages, and names
/// without their slash. What is in the query goes along.
pub fn alias(path: &str) -> Option<&'static str> {
    match path {
        "/console" => Some("console/"),
        "/players" => Some("players/"),
        "/console/ng_index.html" | "/console/en_index.html" => Some("./"),
        "/players/srs_player.html" | "/players/rtc_player.html" | "/players/whep.html" => {
            Some("./")
        }
        // These publish. The index page says how to.
        "/players/rtc_publisher.html" | "/players/whip.html" | "/players/srs_gb28181.html" => {
            Some("../#publish")
        }
        _ => None,
    }
}

/// A path of [`alias`] with a query, which stands before the `#`.
pub fn with_query(alias: &str, query: &str) -> String {
    let mark = if query.is_empty() { "" } else { "?" };
    match alias.split_once('#') {
        None => format!("{alias}{mark}{query}"),
        Some((path, place)) => format!("{path}{mark}{query}#{place}"),
    }
}

/// Which port has what a page needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Home {
    /// The one of HTTP streaming.
    Http,
    /// The one of the API.
    Api,
}

/// Where the page of a path is at home; files of pages are at home everywhere.
pub fn home(path: &str) -> Option<Home> {
    let below = |name: &str| path.strip_prefix(name).is_some_and(|rest| rest.starts_with('/'));
    if below("/console") || path == "/console" {
        return Some(Home::Api);
    }
    (below("/players") || path == "/players").then_some(Home::Http)
}

/// The same page by another scheme and port of the host that was asked (the value of `Host`).
pub fn elsewhere((scheme, port): (&str, u16), host: &str, path: &str, query: &str) -> String {
    // The port stands behind the last colon, unless that is inside an IPv6 address.
    let name = match host.rsplit_once(':') {
        Some((name, digits)) if digits.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    let mark = if query.is_empty() { "" } else { "?" };
    format!("{scheme}://{name}:{port}{path}{mark}{query}")
}

#[derive(Clone, Copy)]
struct File {
    path: &'static str,
    content_type: &'static str,
    body: &'static [u8],
    encoding: Option<&'static str>,
}

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";
const TEXT: &str = "text/plain; charset=utf-8";

/// A file of `page/`, at a URL path; with how it is compressed, if it is.
macro_rules! file {
    ($path:literal, $content_type:expr, $file:literal) => {
        file!($path, $content_type, $file, None)
    };
    ($path:literal, $content_type:expr, $file:literal, $encoding:expr) => {
        File {
            path: $path,
            content_type: $content_type,
            body: include_bytes!(concat!("page/", $file)),
            encoding: $encoding,
        }
    };
}

/// All but the pages themselves lie under `/page/`, to keep out of the way of apps and static
/// files.
static FILES: [File; 20] = [
    file!("/index.html", HTML, "index.html"),
    file!("/errors/", HTML, "errors.html"),
    file!("/page/errors.css", STYLE, "errors.css"),
    file!("/page/app.js", SCRIPT, "app.js"),
    file!("/page/style.css", STYLE, "style.css"),
    file!("/page/favicon.svg", "image/svg+xml", "favicon.svg"),
    file!("/page/mpegts.js", SCRIPT, "vendor/mpegts.js"),
    file!("/page/mpegts.LICENSE.txt", TEXT, "vendor/mpegts.LICENSE.txt"),
    file!("/console/index.html", HTML, "built/console/index.html"),
    file!("/players/index.html", HTML, "built/players/index.html"),
    file!("/page/console.js", SCRIPT, "built/page/console.js"),
    file!("/page/console.css", STYLE, "built/page/console.css"),
    file!("/page/players.js", SCRIPT, "built/page/players.js"),
    file!("/page/players.css", STYLE, "built/page/players.css"),
    file!("/page/shared.js", SCRIPT, "built/page/shared.js"),
    file!("/page/preact.LICENSE.txt", TEXT, "built/preact.LICENSE.txt"),
    file!("/page/hls.js", SCRIPT, "built/page/hls.js.gz", Some("gzip")),
    file!("/page/hls.LICENSE.txt", TEXT, "built/hls.LICENSE.txt"),
    file!("/page/dash.js", SCRIPT, "built/page/dash.js.gz", Some("gzip")),
    file!("/page/dash.LICENSE.txt", TEXT, "built/dash.LICENSE.txt"),
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
    use std::collections::BTreeMap;
    use std::fs;
    use std::path::{Path, PathBuf};

    use super::*;
    use crate::limits::SESSION_OUTPUT_MAX;

    fn text(path: &str) -> &'static str {
        std::str::from_utf8(asset(path).expect(path).body).expect("text")
    }

    const PAGES: [&str; 3] = ["/", "/console/", "/players/"];

    #[test]
    fn pages_are_at_their_folders() {
        for page in PAGES {
            let root = asset(page).expect(page);
            assert_eq!(root.content_type, "text/html; charset=utf-8");
            let index = asset(&format!("{page}index.html")).expect(page);
            assert_eq!((root.body, root.policy), (index.body, index.policy));
            assert!(text(page).starts_with("<!doctype html>"), "{page}");
        }
        assert!(text("/").contains("<video"));
        assert!(!asset("/console/").unwrap().policy.contains("http:"));
        assert!(asset("/players/").unwrap().policy.contains(" ws: "));
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
        let paths =
            "/page /page/ /page/../page/app.js /live/demo.flv app.js /console/x /console/..";
        for path in paths.split(' ').chain([""]) {
            assert!(asset(path).is_none() && alias(path).is_none(), "{path:?}");
        }
    }

    #[test]
    fn names_of_srs_lead_to_pages() {
        for path in ["/console", "/players", "/console/en_index.html", "/players/srs_player.html"] {
            // Relative, as a browser resolves it: what is behind the last slash is replaced.
            let (folder, _) = path.rsplit_once('/').unwrap();
            let target = format!("{folder}/{}", alias(path).expect(path).trim_start_matches("./"));
            assert!(asset(&target).is_some(), "{path} leads to {target}");
        }
        assert_eq!(alias("/players/whip.html"), Some("../#publish"));
        assert_eq!(with_query("../#publish", "a=b"), "../?a=b#publish");
        assert_eq!((with_query("./", "a"), with_query("./", "")), ("./?a".into(), "./".into()));
        assert!(text("/").contains("id=\"publish\""));
    }

    #[test]
    fn pages_are_at_home_where_their_data_is() {
        for path in ["/console", "/console/", "/console/x"] {
            assert_eq!(home(path), Some(Home::Api), "{path}");
        }
        assert_eq!(home("/players/srs_player.html"), Some(Home::Http));
        for path in ["/", "/consoles", "/page/console.js", "/live/players/s.flv", "/playersx/"] {
            assert_eq!(home(path), None, "{path}");
        }
        let (http, https) = (("http", 80), ("https", 1990));
        assert_eq!(elsewhere(https, "h:8080", "/console/", ""), "https://h:1990/console/");
        assert_eq!(elsewhere(http, "[::1]", "/players/", "a=b"), "http://[::1]:80/players/?a=b");
        assert_eq!(elsewhere(http, "[::1]:8080", "/players/", ""), "http://[::1]:80/players/");
    }

    #[test]
    fn every_file_the_pages_name_is_there() {
        for page in PAGES {
            let mut found = 0;
            for attribute in ["src=\"", "href=\""] {
                for rest in text(page).split(attribute).skip(1) {
                    let target = rest.split('"').next().expect("closing quote");
                    let absolute = match target.strip_prefix("../") {
                        Some(rest) => format!("/{rest}"),
                        None => target.to_owned(),
                    };
                    if absolute.starts_with("/api/") {
                        continue;
                    }
                    if absolute.starts_with('/') {
                        assert!(asset(&absolute).is_some(), "{target}");
                        found += 1;
                    } else {
                        assert!(target.starts_with('#'), "{target} is on another host");
                    }
                }
            }
            assert!(found >= 3, "{page} names {found} files");
        }
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
        for page in PAGES {
            let html = text(page);
            // No inline script, no inline style, no event attribute.
            assert!(!html.contains("<style") && !html.contains("style="));
            let mut words = html.split_whitespace();
            assert!(!words.any(|word| word.starts_with("on") && word.contains('=')), "{page}");
            assert!(html.split("<script").skip(1).all(|tag| {
                tag.split('>').next().expect("tag").contains("/page/")
                    && tag.split('>').nth(1).expect("body").starts_with("</script")
            }));
        }
        // Names of streams reach the document as text only.
        let mut sources = vec![text("/page/app.js").to_owned()];
        for path in source_files() {
            if path.extension().is_some_and(|suffix| suffix == "ts" || suffix == "tsx") {
                sources.push(fs::read_to_string(path).expect("a source"));
            }
        }
        assert!(sources.len() > 20, "the sources of the console are not found");
        for banned in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("] {
            assert!(!sources.iter().any(|source| source.contains(banned)), "{banned}");
        }
        for own in [text("/"), text("/page/app.js"), text("/page/style.css")] {
            assert!(!own.contains("http://") && !own.contains("https://"));
        }
        for style in ["/page/console.css", "/page/players.css"] {
            assert!(!text(style).contains("url("), "{style} loads something");
        }
    }

    fn here(path: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(path)
    }

    /// What the built files are made from.
    fn source_files() -> Vec<PathBuf> {
        let (mut open, mut found) = (vec![here("console")], Vec::new());
        while let Some(folder) = open.pop() {
            for entry in fs::read_dir(folder).expect("a folder") {
                let path = entry.expect("an entry").path();
                let name = path.file_name().and_then(|name| name.to_str()).expect("UTF-8");
                match path.is_dir() {
                    true if name != "node_modules" => open.push(path),
                    false if name != "README.md" => found.push(path),
                    _ => {}
                }
            }
        }
        found
    }

    /// The same as the first half of `ci/console.sh --check`, which needs no Node.
    #[test]
    fn the_built_files_are_those_of_the_sources() {
        let noted = fs::read_to_string(here("page/built/SOURCES.sha256")).expect("the sums");
        let lines = noted.lines().filter_map(|line| line.split_once("  ./"));
        let noted: BTreeMap<_, _> = lines.map(|(sum, path)| (path, sum)).collect();
        let files = source_files();
        assert_eq!(noted.len(), files.len(), "run ci/console.sh");
        for file in files {
            let name = file.strip_prefix(here("console")).expect("below").to_str().expect("UTF-8");
            let mut sum = String::new();
            for byte in Sha256::digest(fs::read(&file).expect("a source")) {
                write!(sum, "{byte:02x}").expect("writing to a String cannot fail");
            }
            assert_eq!(noted.get(name), Some(&sum.as_str()), "{name}: run ci/console.sh");
        }
    }

    #[test]
    fn every_built_file_is_served() {
        let mut count = 0;
        for folder in ["console", "players", "page"] {
            for entry in fs::read_dir(here("page/built").join(folder)).expect("a folder") {
                let name = entry.expect("an entry").file_name();
                let path = format!("/{folder}/{}", name.to_str().expect("UTF-8"));
                let encoding = path.ends_with(".gz").then_some("gzip");
                let found = asset(path.trim_end_matches(".gz"));
                let found = found.unwrap_or_else(|| panic!("{path} has no line in FILES"));
                assert_eq!(found.encoding, encoding, "{path}");
                // RFC 1952 2.3.1.
                assert_eq!(found.body.starts_with(b"\x1f\x8b"), encoding.is_some(), "{path}");
                count += 1;
            }
        }
        assert_eq!(count, 9);
    }
}
