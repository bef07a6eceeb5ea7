//! Reading a TOML file against the table: every unknown name, wrong type and value out of range
//! is an error with file and line, and all of them are reported at once.

use std::io::{self, Read as _};
use std::path::Path;

use toml::de::{DeTable, DeValue};

use super::directives::is_known;
use super::load::Draft;
use super::row::Raw;
use super::suggest::nearest;
use super::vhosts::{Key, classify};
use super::{ConfigError, SECTIONS, rows};
use crate::limits::CONFIG_FILE_BYTES_MAX;

/// Reads a configuration file as text.
pub(super) fn read(path: &Path) -> Result<String, ConfigError> {
    let file = path.display().to_string();
    let failed = |error: io::Error| ConfigError::Read { file: file.clone(), why: error };
    let mut text = Vec::new();
    // What is read counts, not what `stat` says: it may be a pipe.
    let opened = std::fs::File::open(path).map_err(failed)?;
    opened.take(CONFIG_FILE_BYTES_MAX + 1).read_to_end(&mut text).map_err(failed)?;
    if text.len() as u64 > CONFIG_FILE_BYTES_MAX {
        return Err(ConfigError::TooLong { file, max: CONFIG_FILE_BYTES_MAX });
    }
    String::from_utf8(text).map_err(|why| failed(io::Error::new(io::ErrorKind::InvalidData, why)))
}

/// Puts the settings of a TOML text into `draft`; `file` is its name in errors.
pub(super) fn apply_text(file: &str, text: &str, draft: &mut Draft) {
    let ends: Vec<usize> = text.match_indices('\n').map(|(offset, _)| offset).collect();
    let line = |offset: usize| 1 + ends.partition_point(|end| *end < offset);
    let fault = |offset, why| ConfigError::File { file: file.into(), line: line(offset), why };
    let table = match DeTable::parse(text) {
        Ok(table) => table.into_inner(),
        Err(error) => {
            let offset = error.span().map_or(0, |span| span.start);
            let why = error.message().trim().replace('\n', ", ");
            draft.errors.push(fault(offset, why));
            return;
        }
    };
    let place = |offset| format!("{file}:{}", line(offset));
    let mut walk = Walk { text, place: &place, draft, faults: Vec::new(), vhosts: Vec::new() };
    walk.table("", None, &table);
    // What the vhosts inherit is known only now, wherever in the file it stands.
    for (name, offset, inner) in std::mem::take(&mut walk.vhosts) {
        match walk.draft.name_vhost(&name) {
            Ok(()) => walk.table("vhost", Some(&name), inner),
            Err(why) => walk.faults.push((offset, why)),
        }
    }
    // The parser sorts keys; people read from the top.
    walk.faults.sort();
    let faults = walk.faults;
    draft.errors.extend(faults.into_iter().map(|(offset, why)| fault(offset, why)));
}

/// What is on the way through a file.
struct Walk<'d, 't> {
    text: &'t str,
    /// How the place of an offset is written.
    place: &'d dyn Fn(usize) -> String,
    draft: &'d mut Draft,
    /// Where in the text, and what.
    faults: Vec<(usize, String)>,
    /// Tables of named vhosts.
    vhosts: Vec<(String, usize, &'t DeTable<'t>)>,
}

impl<'t> Walk<'_, 't> {
    /// Takes a table at `prefix`, of a vhost of its own name if there is one.
    fn table(&mut self, prefix: &str, vhost: Option<&str>, table: &'t DeTable<'t>) {
        for (key, value) in table {
            let path = match prefix {
                "" => key.get_ref().to_string(),
                _ => format!("{prefix}.{}", key.get_ref()),
            };
            let at = key.span().start;
            let row = rows().find(|row| row.path == path);
            let section = SECTIONS.iter().any(|section| section.path == path);
            match (row, value.get_ref()) {
                (Some(row), read) => {
                    self.draft.note(row, vhost, (self.place)(at));
                    if let Err(why) = self.draft.set(row, vhost, &Raw::from_toml(read)) {
                        self.faults.push((value.span().start, why));
                    }
                }
                (None, DeValue::Table(inner)) if section => self.table(&path, vhost, inner),
                (None, _) if section => {
                    self.faults.push((at, format!("{path} is a table: write [{path}]")));
                }
                (None, DeValue::Table(inner)) if !inner.is_empty() && is_known(&path) => {
                    // Name the settings themselves: a whole table is not what is missing.
                    for key in inner.keys() {
                        let path = format!("{path}.{}", key.get_ref());
                        self.faults.push((key.span().start, unknown(&path)));
                    }
                }
                (None, DeValue::Table(inner)) if prefix == "vhost" && vhost.is_none() => {
                    let quoted = self.text[at..].starts_with(['"', '\'']);
                    match classify(key.get_ref(), quoted) {
                        Key::Name => self.vhosts.push((key.get_ref().to_string(), at, inner)),
                        Key::Mistake(why) => self.faults.push((at, why)),
                    }
                }
                (None, _) => self.faults.push((at, unknown(&path))),
            }
        }
    }
}

/// What to say about a path without a row.
pub(super) fn unknown(path: &str) -> String {
    if is_known(path) {
        return format!("{path} is a setting of SRS that this version does not have yet");
    }
    let sections = SECTIONS.iter().map(|section| section.path).filter(|path| !path.is_empty());
    match nearest(path, rows().map(|row| row.path).chain(sections)) {
        Some(near) => format!("unknown setting {path}; did you mean {near}?"),
        None => format!("unknown setting {path}; `ringcast config` lists all of them"),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::{MediaMemory, MwLatency};

    fn errors(text: &str) -> Vec<String> {
        let mut draft = Draft::default();
        apply_text("x.toml", text, &mut draft);
        draft.errors.iter().map(|error| error.to_string()).collect()
    }

    #[test]
    fn values_arrive() {
        let text = r#"
            listen = [1935, "127.0.0.1:1936"]
            media_memory = "512MB"
            http_server.listen = 80
            [vhost]
            chunk_size = 4096
            play = { mw_latency = 350, queue_length = "1m" }
            [vhost.publish]
            hold = 0.5
        "#;
        let mut draft = Draft::default();
        apply_text("x.toml", text, &mut draft);
        assert!(draft.errors.is_empty(), "{:?}", draft.errors);
        let config = draft.config;
        assert_eq!(config.listen.len(), 2);
        assert_eq!(config.media_memory, MediaMemory::Bytes(512_000_000));
        assert_eq!(config.http_server.listen[0].port(), 80);
        assert_eq!(config.vhost.chunk_size, 4096);
        assert_eq!(config.vhost.play.mw_latency, MwLatency::Fixed(Duration::from_millis(350)));
        assert_eq!(config.vhost.play.queue_length, Duration::from_secs(60));
        assert_eq!(config.vhost.publish.hold, Duration::from_millis(500));
    }

    #[test]
    fn mistakes_have_a_line_and_a_hint() {
        let text = "shard = 1\n\n[vhost.play]\ngop_cach = true\nmw_latency = \"fast\"\n\
                    [vhost.hds]\nenabled = true\n[log]\nlevel = 3\n";
        assert_eq!(
            errors(text),
            [
                "x.toml:1: unknown setting shard; did you mean shards?",
                "x.toml:4: unknown setting vhost.play.gop_cach; did you mean \
                 vhost.play.gop_cache?",
                "x.toml:5: vhost.play.mw_latency must be \"adaptive\" or a number of \
                 milliseconds or a text such as \"250ms\" or \"30s\", at most a week, \
                 not \"fast\"",
                "x.toml:7: vhost.hds.enabled is a setting of SRS that this version does not \
                 have yet",
                "x.toml:9: log.level must be one of \"trace\", \"debug\", \"info\", \"warn\", \
                 \"error\", not 3",
            ]
        );
    }

    #[test]
    fn types_and_ranges_are_checked() {
        for (text, part) in [
            ("shards = 257", "from 0 to 64 (threads), not 257"),
            ("shards = -1", "not -1"),
            ("shards = \"2\"", "not \"2\""),
            ("daemon = 1", "true or false, not 1"),
            ("listen = []", "at least one"),
            ("listen = 70000", "no port 70000"),
            ("listen = [[1]]", "not a list"),
            ("listen = \"localhost:1\"", "localhost:1"),
            ("media_memory = \"1MB\"", "from 16MiB to 1024GiB"),
            ("summary_interval = -1", "not -1"),
            ("summary_interval = \"8d\"", "at most a week"),
            ("summary_interval = nan", "not NaN"),
            ("work_dir = 2024-01-01", "not a date"),
            ("vhost = 3", "write [vhost]"),
            ("shards = 99999999999999999999", "not a number this large"),
            ("shards = 1\nshards = 2", "x.toml:2: "),
            ("[log", "x.toml:1: "),
            ("log = { x = 1 }", "unknown setting log.x"),
        ] {
            let found = errors(text);
            assert!(found.len() == 1 && found[0].contains(part), "{text}: {found:?}");
        }
    }

    #[test]
    fn files_that_cannot_be_used_say_why() {
        let failed = |path: &str| read(Path::new(path)).unwrap_err().to_string();
        assert!(failed("/nonexistent.toml").contains("cannot read /nonexistent.toml"));
    }
}
