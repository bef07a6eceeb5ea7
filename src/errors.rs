//! The error index: every name that the log, the counters and the command line give to what goes
//! wrong, what it means and what to do. From here come `ringcast explain`, the page `/errors/`
//! and `conf/errors.md`.

use std::fmt::Write as _;

use crate::fault::Fault;
use crate::hub::Reason;

/// One error.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// Its name.
    pub name: &'static str,
    /// The number that SRS has for it, where it has one.
    pub srs: Option<u16>,
    /// What it means.
    pub meaning: &'static str,
    /// What to do about it.
    pub remedy: &'static str,
}

/// What concerns the program as a whole.
pub fn of_program() -> impl Iterator<Item = Entry> {
    Fault::ALL.iter().map(|fault| Entry {
        name: fault.name(),
        srs: fault.srs(),
        meaning: fault.meaning(),
        remedy: fault.remedy(),
    })
}

/// What concerns single clients and streams; the same names count in the metrics.
pub fn of_clients() -> impl Iterator<Item = Entry> {
    Reason::ALL.iter().map(|reason| {
        let remedy = REMEDIES.iter().find(|(name, ..)| *name == reason.name());
        let (srs, remedy) = remedy.map_or((None, ""), |(_, srs, remedy)| (*srs, *remedy));
        Entry { name: reason.name(), srs, meaning: reason.meaning(), remedy }
    })
}

/// The errors that a name or a number of SRS stands for.
pub fn find(wanted: &str) -> Vec<Entry> {
    let number = wanted.parse().ok();
    let all = of_program().chain(of_clients());
    all.filter(|entry| entry.name == wanted || (number.is_some() && entry.srs == number)).collect()
}

/// What `ringcast explain` prints about one error.
pub fn explain(entry: &Entry) -> String {
    let number = entry.srs.map_or(String::new(), |srs| format!(" (SRS: {srs})"));
    format!("{}{number}\n  {}\n  {}\n", entry.name, entry.meaning.trim(), entry.remedy)
}

/// A line for each error, for `ringcast explain` without a name.
pub fn list() -> String {
    let mut out = String::new();
    for (title, entries) in groups() {
        let _ = writeln!(out, "{title}:");
        for entry in entries {
            let _ = writeln!(out, "  {:<32}{}", entry.name, entry.meaning.trim());
        }
    }
    out
}

fn groups() -> [(&'static str, Vec<Entry>); 2] {
    [("The program", of_program().collect()), ("Clients and streams", of_clients().collect())]
}

/// The index as a Markdown page.
pub fn markdown() -> String {
    let mut out = String::from(
        "# Errors\n\nEvery name that the log (`reason=`, or the last brackets before a warning), \
         the counters and the\ncommand line give to what goes wrong. `ringcast explain NAME` and \
         the server's page `/errors/` say the\nsame. Written from the code; do not edit.\n",
    );
    for (title, entries) in groups() {
        let _ = writeln!(out, "\n## {title}\n");
        out.push_str("| name | SRS | what it means | what to do |\n|---|---|---|---|\n");
        for entry in entries {
            let srs = entry.srs.map_or(String::new(), |srs| srs.to_string());
            let meaning = entry.meaning.trim();
            let _ = writeln!(out, "| `{}` | {srs} | {meaning} | {} |", entry.name, entry.remedy);
        }
    }
    out
}

/// The index as the page `/errors/`.
pub fn html() -> String {
    let mut out = String::from(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>Errors - ringcast</title>\n\
         <link rel=\"icon\" href=\"/page/favicon.svg\">\n\
         <link rel=\"stylesheet\" href=\"/page/errors.css\">\n</head>\n<body>\n<main>\n\
         <h1>Errors</h1>\n\
         <p>Every name that the log, the counters and the command line give to what goes \
         wrong.</p>\n",
    );
    for (title, entries) in groups() {
        let _ = writeln!(out, "<h2>{title}</h2>\n<dl>");
        for entry in entries {
            let name = entry.name;
            let srs = entry.srs.map_or(String::new(), |srs| format!(" <span>SRS {srs}</span>"));
            let _ = writeln!(
                out,
                "<dt id=\"{name}\"><a href=\"#{name}\">{name}</a>{srs}</dt>\n\
                 <dd><p>{}</p>\n<p>{}</p></dd>",
                marked(entry.meaning.trim()),
                marked(entry.remedy)
            );
        }
        out.push_str("</dl>\n");
    }
    out.push_str("</main>\n</body>\n</html>\n");
    out
}

/// Text for HTML; what stands in backticks is code.
fn marked(text: &str) -> String {
    let escaped = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let mut out = String::new();
    for (index, part) in escaped.split('`').enumerate() {
        match index % 2 {
            0 => out.push_str(part),
            _ => out.push_str(&format!("<code>{part}</code>")),
        }
    }
    out
}

/// By the name of the reason: SRS's number where it has one, and what to do.
const REMEDIES: &[(&str, Option<u16>, &str)] = &[
    (
        "program_ended",
        None,
        "See what the program says when it is run by hand with the same words; it is started again \
         after a while.",
    ),
    (
        "unit_skipped",
        None,
        "The encoder sends frames that its codec does not allow; update it or change its settings.",
    ),
    ("peer_closed", Some(1004), "Nothing: that is how most connections end."),
    (
        "connection_error",
        Some(1007),
        "Many at a time mean trouble in the network between; single ones are usual.",
    ),
    (
        "handshake_timeout",
        Some(1011),
        "A scanner, a client of another protocol, or a network that loses packets. Check the port \
         that the client uses.",
    ),
    ("idle_timeout", Some(1011), "Nothing, unless a client of your own is meant to do more."),
    (
        "first_packet_timeout",
        Some(1011),
        "See why the encoder sends no media; `publish.firstpkt_timeout` is how long it may take.",
    ),
    (
        "publish_timeout",
        Some(1011),
        "See the encoder and its uplink; `publish.normal_timeout` is the silence that is borne.",
    ),
    (
        "connections_limit",
        Some(1074),
        "Raise `max_connections` and the open-file limit, or add a server.",
    ),
    ("address_limit", Some(1074), "Raise `max_connections_per_address` if many share an address."),
    (
        "stream_busy",
        Some(1028),
        "End the other publisher, or give this one another stream name. An encoder that lost its \
         connection is replaced after `publish.normal_timeout`.",
    ),
    (
        "publish_closed",
        Some(1054),
        "Write rules for publishers, ask for a token, or set `publish.open` to accept all.",
    ),
    ("stream_name", Some(2051), "Use letters, digits, `-`, `_` and `.` in app and stream names."),
    ("streams_limit", None, "End streams that nobody needs; the number is built in."),
    ("names_limit", None, "A client asks for many streams that are not there: see who it is."),
    (
        "vhost_unknown",
        Some(2014),
        "Add the vhost to the configuration, or use a name in the URL that is there. A vhost that \
         is switched off counts as unknown.",
    ),
    (
        "address_denied",
        Some(1053),
        "Change the rules of `vhost.security` if the address is meant to be let in.",
    ),
    ("refer_denied", Some(1052), "Add the domain of the page to `vhost.refer`."),
    (
        "token_refused",
        Some(1054),
        "Give out a new token; `detail` says whether it is missing, over or signed by another key.",
    ),
    (
        "token_keys_missing",
        None,
        "Check `token.jwks_url` from the server: `ringcast doctor` tries it.",
    ),
    ("hook_refused", None, "The server behind `http_hooks` said no: its log says why."),
    ("hook_failed", None, "Check the URL of the hook from the server: `ringcast doctor` tries it."),
    (
        "hook_timeout",
        None,
        "Make the hook's server answer sooner, or set `http_hooks.accept_on_failure`.",
    ),
    (
        "hook_backlog",
        None,
        "The hook's server is too slow for the clients that come: give it more.",
    ),
    ("hook_accepted", None, "Check the hook's server; clients are let in without it meanwhile."),
    ("hook_retried", None, "Check the hook's server; nothing is lost while this server lives."),
    (
        "program_ended",
        None,
        "See what the program itself says: `2>file` in its line keeps that. It is started again.",
    ),
    ("hook_end_refused", None, "Let the hook's server answer 0 about ends; they have happened."),
    (
        "record_disk_full",
        None,
        "Make room, or set `dvr.keep_hours` or `dvr.keep_bytes`; the recording goes on by itself.",
    ),
    (
        "record_disk_failed",
        None,
        "The line holds what the system said; the recording goes on by itself when the disk does.",
    ),
    ("record_skipped", None, "The disk is too slow for what is recorded: use a faster one."),
    (
        "record_refused",
        None,
        "`dvr.dvr_path` names a format that cannot hold the stream's codecs, or that the plan does \
         not know: use .mp4 or .flv.",
    ),
    ("record_removed", None, "Nothing: `dvr.keep_hours` and `dvr.keep_bytes` want it."),
    (
        "upload_failed",
        None,
        "The line says what the store said: check `upload.endpoint`, the bucket and the access \
         key. Nothing is lost while there is room on the disk.",
    ),
    (
        "upload_given_up",
        None,
        "Upload it by hand if it is still there; give the disk more room or the store a faster \
         line.",
    ),
    ("hook_given_up", None, "Check the hook's server; tell it by hand what it has missed."),
    ("vhost_limit", None, "Raise `limits.players` or `limits.publishers` of the vhost."),
    ("stream_players_limit", None, "Raise `limits.players_per_stream` of the vhost."),
    ("bandwidth_limit", None, "Raise `limits.kbps` of the vhost, or add a server."),
    ("overload", None, "Add cores (`shards`) or a server; `circuit_breaker` is what decides."),
    (
        "kicked_for_idle",
        Some(2056),
        "Nothing: `publish.kickoff_for_idle` wants it, and the encoder may come again.",
    ),
    ("codec_unsupported", None, "Let the encoder use one of the codecs in the README."),
    (
        "malformed",
        Some(1019),
        "The client speaks something else or is broken; `detail` in its log line says where.",
    ),
    ("misbehaved", Some(1019), "The client breaks the protocol; `detail` says which rule."),
    ("unsupported", None, "`detail` says what; use another way that the README lists."),
    ("over_limit", None, "`detail` says which limit. They are built in: no good client is near."),
    ("not_found", Some(3010), "Check the path against `http_remux.mount` and that HTTP is on."),
    ("bad_request", None, "Check what the client sends; `detail` says what is wrong."),
    ("duration_reached", None, "Nothing: the player asked for no more."),
    ("stream_ended", Some(4040), "Nothing, unless the publisher was meant to go on."),
    (
        "skip_lag",
        None,
        "The player's line is slower than the stream. Offer a smaller one, or raise \
         `play.queue_length`.",
    ),
    ("skip_gone", None, "As `skip_lag`; many of them mean that `media_memory` is short."),
    ("fell_behind", None, "The player's line is far too slow for the stream."),
    ("message_dropped_memory", None, "Raise `media_memory`, or lower `gop_cache_max_bytes`."),
    ("refused_memory", None, "Raise `media_memory`, or lower `gop_cache_max_bytes`."),
    ("message_dropped_until_keyframe", None, "See what was dropped before it."),
    ("message_dropped_malformed", None, "The encoder writes media that is wrong: update it."),
    ("unit_skipped", None, "The encoder writes frames that are wrong: update it."),
    ("message_dropped_track", None, "Nothing: one track of a kind is passed on."),
    (
        "segment_memory",
        None,
        "Raise `media_memory`, or lower `hls.hls_window`: segments of all streams may have half.",
    ),
    ("segment_not_told", None, "See the log: the server that `on_hls` names may be slow or gone."),
    (
        "segment_not_written",
        None,
        "See the log: the disk of `hls.hls_path` may be full, slow or not writable.",
    ),
    ("file_changed", None, "Replace files by renaming new ones over them, not in place."),
    ("file_failed", None, "Look at the disk below `http_server.dir`, and at the system's log."),
    ("file_slow", None, "The disk below `http_server.dir` is too slow for what is asked of it."),
    ("files_limit", None, "Use a faster disk, or a proxy with a cache before the server."),
    ("file_start", None, "`start` is the place of a tag (FLV) or a time in seconds (MP4)."),
    ("segment_timeout", None, "The publisher stopped or is late; players try again."),
    ("message_ignored", None, "Nothing."),
    ("timestamp_jump", None, "See the encoder's clock when it comes often; players see no jump."),
    ("shutdown", None, "Nothing: the server was stopped."),
    ("kicked", Some(9001), "Nothing: somebody with access to the API wanted it."),
    ("accept_failed", Some(1081), "Raise the open-file limit (LimitNOFILE)."),
    ("turned_away", Some(1081), "Raise the open-file limit (LimitNOFILE)."),
    ("letter_missed", None, "Nothing: shards looked at everything instead."),
    ("bug", None, "Please report it with the log around that time."),
];

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    #[test]
    fn every_error_says_what_it_means_and_what_to_do() {
        let mut seen = std::collections::BTreeSet::new();
        for entry in of_program().chain(of_clients()) {
            assert!(seen.insert(entry.name), "{} twice", entry.name);
            assert!(entry.meaning.trim().ends_with('.'), "{}: {:?}", entry.name, entry.meaning);
            assert!(entry.remedy.ends_with('.'), "{}: say what to do about it", entry.name);
            let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
            assert!(entry.name.chars().all(is_name), "{}", entry.name);
        }
        for (name, ..) in REMEDIES {
            assert!(Reason::ALL.iter().any(|r| r.name() == *name), "{name} is no reason any more");
        }
    }

    #[test]
    fn errors_are_found_by_name_and_by_number_of_srs() {
        assert_eq!(find("stream_busy")[0].srs, Some(1028));
        assert_eq!(find("1023")[0].name, "config_invalid");
        assert!(find("1011").len() > 2 && find("nothing").is_empty());
        let text = explain(&find("pid_held")[0]);
        assert!(text.starts_with("pid_held (SRS: 1035)\n  Another server"), "{text}");
        assert!(list().lines().count() > 50);
    }

    #[test]
    fn generated_files_are_fresh() {
        for (name, text) in [("conf/errors.md", markdown()), ("src/page/errors.html", html())] {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
            // RINGCAST_WRITE=1 cargo test --lib generated_files
            if std::env::var_os("RINGCAST_WRITE").is_some() {
                fs::write(&path, &text).unwrap();
            }
            let found = fs::read_to_string(&path).unwrap_or_default();
            assert!(found == text, "{name} is stale: RINGCAST_WRITE=1 cargo test generated_files");
        }
    }

    /// The numbers of lines of `src/` that warn without naming their reason.
    fn nameless(path: &Path, text: &str) -> Vec<String> {
        let mut found = Vec::new();
        for (index, _) in
            text.match_indices("tracing::warn!(").chain(text.match_indices("tracing::error!("))
        {
            let call = &text[index..];
            let mut depth = 0;
            let closes = |c: char| {
                depth += i32::from(c == '(') - i32::from(c == ')');
                c == ')' && depth == 0
            };
            let end = call.find(closes).unwrap_or(call.len());
            if !call[..end].contains("reason") {
                let line = 1 + text[..index].matches('\n').count();
                found.push(format!("{}:{line}", path.display()));
            }
        }
        found
    }

    #[test]
    fn every_warning_names_its_reason() {
        let mut found = Vec::new();
        let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|ext| ext == "rs") {
                    let text = fs::read_to_string(&path).unwrap();
                    let code = text.split("#[cfg(test)]").next().unwrap_or_default();
                    found.extend(nameless(&path, code));
                }
            }
        }
        assert!(found.is_empty(), "add reason = …name() to these lines: {found:#?}");
    }
}
