//! What people read about the settings, written from the table: the commented configuration
//! file, the reference page and a JSON form for tools.

use std::fmt::Write as _;

use super::row::{Reload, Row};
use super::{Config, SECTIONS, directives, rows};

/// Longest line of a comment.
const COLUMNS: usize = 100;

/// The whole configuration as a commented TOML file. Where a value is not the default, the
/// default is named above it.
pub fn to_toml(config: &Config) -> String {
    let mut out = String::from(
        "# Every setting of ringcast. `ringcast config` prints this file; it is read with \
         `-c`.\n# A file needs only what differs from the defaults.\n",
    );
    let defaults = Config::default();
    for section in SECTIONS {
        out.push('\n');
        for line in section.doc {
            let _ = writeln!(out, "#{line}");
        }
        if !section.path.is_empty() {
            let _ = writeln!(out, "[{}]", section.path);
        }
        for row in section.rows {
            out.push('\n');
            for line in row.doc {
                let _ = writeln!(out, "#{line}");
            }
            wrap(&mut out, &format!("{}.", capital(&row.kind.expected())));
            wrap(&mut out, &format!("Environment: {}", row.env.join(", ")));
            let value = row.toml(config);
            if value != row.toml(&defaults) {
                let _ = writeln!(out, "# Default: {}", row.default);
            }
            let _ = writeln!(out, "{} = {value}", key(row));
        }
    }
    named_vhosts(&mut out, config);
    out
}

/// What differs from the defaults, as a TOML file without comments.
pub fn to_short_toml(config: &Config) -> String {
    let mut out = String::new();
    let defaults = Config::default();
    for section in SECTIONS {
        let rows = section.rows.iter().map(|row| (row, row.toml(config)));
        let differing = rows.filter(|(row, value)| *value != row.toml(&defaults));
        table(&mut out, section.path, differing);
    }
    named_vhosts(&mut out, config);
    out
}

/// The vhosts with names: of each what differs from what it inherits.
fn named_vhosts(out: &mut String, config: &Config) {
    for (name, vhost) in config.vhosts.iter() {
        let head = format!("vhost.{}", toml::Value::String(name.into()));
        let _ = writeln!(out, "{}[{head}]", if out.is_empty() { "" } else { "\n" });
        for section in SECTIONS.iter().filter(|section| section.path.starts_with("vhost")) {
            let own = section.rows.iter().filter_map(|row| {
                let value = row.vhost_toml(vhost)?;
                (value != row.toml(config)).then_some((row, value))
            });
            match section.path.strip_prefix("vhost.") {
                None => entries(out, own),
                Some(inside) => table(out, &format!("{head}.{inside}"), own),
            }
        }
    }
}

fn table<'r>(out: &mut String, path: &str, rows: impl Iterator<Item = (&'r Row, String)>) {
    let mut rows = rows.peekable();
    if rows.peek().is_some() {
        if !path.is_empty() {
            let _ = writeln!(out, "{}[{path}]", if out.is_empty() { "" } else { "\n" });
        }
        entries(out, rows);
    }
}

fn entries<'r>(out: &mut String, rows: impl Iterator<Item = (&'r Row, String)>) {
    for (row, value) in rows {
        let _ = writeln!(out, "{} = {value}", key(row));
    }
}

/// The reference page in Markdown.
pub fn reference() -> String {
    let mut out = String::from(
        "# Settings\n\nWritten from the settings table by `ringcast config --reference`; do not \
         edit. Sources in order, later ones\nwin: defaults, `-c FILE`, the environment (with \
         `-e` or a file in SRS's grammar), `--set key=value`. With\n`-e` and with such a file the \
         defaults of `http_server.enabled`, `http_api.enabled` and\n`vhost.http_remux.enabled` are \
         false, as in SRS.\n\nSettings below `vhost` can be given for one vhost: \
         `[vhost.\"its.name\".play]`, or\n`--set 'vhost.\"its.name\".play.gop_cache=false'`. The \
         environment stands over all vhosts.\n\nTimes are \
         numbers in the unit given or texts such as `\"250ms\"`, `\"30s\"`, `\"2m\"`; sizes are \
         numbers of bytes or\ntexts such as `\"512MB\"` (1000) and `\"64MiB\"` (1024). \
         \"live\" settings take effect on reload for what starts\nafter it, the others at the \
         next start.\n",
    );
    for section in SECTIONS {
        let title = if section.path.is_empty() { "top level" } else { section.path };
        let _ = writeln!(out, "\n## {title}\n\n{}\n", joined(section.doc));
        out.push_str(
            "| setting | type | default | directive of SRS | environment | takes effect | \
             meaning |\n|---|---|---|---|---|---|---|\n",
        );
        for row in section.rows {
            let _ = writeln!(
                out,
                "| `{}` | {} | `{}` | {} | {} | {} | {} |",
                row.path,
                row.kind.expected().replace('|', "\\|"),
                row.default,
                code(directives::of_setting(row.path)),
                code(row.env.iter().copied()),
                effect(row),
                joined(row.doc).replace('|', "\\|"),
            );
        }
    }
    out
}

/// Every setting with its value in `config`, as JSON. A setting of vhosts has in `vhosts` the
/// values that differ for vhosts of their own.
pub fn to_json(config: &Config) -> String {
    let list: Vec<_> = rows()
        .map(|row| {
            let own = config.vhosts.iter().filter_map(|(name, vhost)| {
                let value = row.vhost_toml(vhost)?;
                (value != row.toml(config)).then(|| (name.to_string(), json(&value)))
            });
            let vhosts: serde_json::Map<_, _> = own.collect();
            serde_json::json!({
                "vhosts": vhosts,
                "path": row.path,
                "value": json(&row.toml(config)),
                "default": json(row.default),
                "type": row.kind.name(),
                "unit": row.kind.unit(),
                "expects": row.kind.expected(),
                "directives": directives::of_setting(row.path).collect::<Vec<_>>(),
                "environment": row.env,
                "takes_effect": effect(row),
                "doc": joined(row.doc),
            })
        })
        .collect();
    let mut text = serde_json::to_string_pretty(&list).expect("plain values are always JSON");
    text.push('\n');
    text
}

fn json(toml: &str) -> serde_json::Value {
    let value: toml::Value = toml.parse().expect("the table writes valid TOML");
    serde_json::to_value(value).expect("settings have no values that JSON lacks")
}

fn key(row: &Row) -> &str {
    row.path.rsplit('.').next().unwrap_or(row.path)
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    let first = chars.next().map(|c| c.to_ascii_uppercase());
    first.into_iter().chain(chars).collect()
}

/// Appends a comment, broken between words.
fn wrap(out: &mut String, text: &str) {
    let mut column = usize::MAX;
    for word in text.split(' ') {
        if column.saturating_add(1 + word.len()) > COLUMNS {
            let newline = if column == usize::MAX { "" } else { "\n" };
            let _ = write!(out, "{newline}#");
            column = 1;
        }
        let _ = write!(out, " {word}");
        column += 1 + word.len();
    }
    out.push('\n');
}

fn code<'n>(names: impl Iterator<Item = &'n str>) -> String {
    names.map(|name| format!("`{name}`")).collect::<Vec<_>>().join(" ")
}

fn effect(row: &Row) -> &'static str {
    match row.reload {
        Reload::Live => "live",
        Reload::Restart => "restart",
    }
}

fn joined(doc: &[&str]) -> String {
    doc.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::{Path, PathBuf};

    use super::*;
    use crate::config::{Sources, load, load_text};

    fn conf() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("conf")
    }

    #[test]
    fn generated_files_are_fresh() {
        for (name, text, command) in [
            ("full.toml", to_toml(&Config::default()), "ringcast config"),
            ("reference.md", reference(), "ringcast config --reference"),
        ] {
            // RINGCAST_WRITE=1 cargo test --lib generated_files
            if std::env::var_os("RINGCAST_WRITE").is_some() {
                fs::write(conf().join(name), &text).unwrap();
            }
            let found = fs::read_to_string(conf().join(name)).unwrap_or_default();
            assert!(found == text, "conf/{name} is stale: run `{command} > conf/{name}`");
        }
    }

    #[test]
    fn every_preset_loads_and_the_full_one_is_the_defaults() {
        let mut presets = 0;
        for entry in fs::read_dir(conf()).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_none_or(|ext| ext != "toml") {
                continue;
            }
            presets += 1;
            let sources = Sources { file: Some(path.clone()), ..Sources::default() };
            let loaded = load(&sources).unwrap_or_else(|errors| panic!("{errors}"));
            assert!(loaded.warnings.is_empty(), "{}: {:?}", path.display(), loaded.warnings);
            let full = path.ends_with("full.toml");
            assert_eq!(loaded.config == Config::default(), full, "{}", path.display());
        }
        assert!(presets >= 4);
    }

    #[test]
    fn any_configuration_survives_being_written_and_read() {
        let set = ["shards=3", "vhost.play.mw_latency=20", "log.file='a \"b\".log'", "pid=x\\y"];
        let set = set.iter().map(|s| s.to_string()).collect();
        let config = load(&Sources { set, ..Sources::default() }).unwrap().config;
        let text = to_toml(&config);
        assert!(text.contains("# Default: \"adaptive\"\nmw_latency = 20\n"));
        let path = std::env::temp_dir().join(format!("ringcast-doc-{}.toml", std::process::id()));
        fs::write(&path, text).unwrap();
        let read = load(&Sources { file: Some(path.clone()), ..Sources::default() });
        fs::remove_file(path).unwrap();
        assert_eq!(read.unwrap().config, config);
    }

    #[test]
    fn named_vhosts_survive_being_written_and_read() {
        let text = "[vhost]\nchunk_size = 5000\n[vhost.\"a.com\"]\nchunk_size = 60000\n\
            [vhost.\"a.com\".play]\ntime_jitter = \"zero\"\n[vhost.localhost]\n";
        let config = load_text("x.toml", text).unwrap().config;
        for printed in [to_toml(&config), to_short_toml(&config)] {
            let again = load_text("printed.toml", &printed).unwrap_or_else(|e| panic!("{e}"));
            assert_eq!(again.config, config, "{printed}");
        }
        assert_eq!(
            to_short_toml(&config),
            "[vhost]\nchunk_size = 5000\n\n[vhost.\"a.com\"]\nchunk_size = 60000\n\n\
             [vhost.\"a.com\".play]\ntime_jitter = \"zero\"\n\n[vhost.\"localhost\"]\n"
        );
        let parsed: serde_json::Value = serde_json::from_str(&to_json(&config)).unwrap();
        let list = parsed.as_array().unwrap();
        let size = list.iter().find(|row| row["path"] == "vhost.chunk_size").unwrap();
        assert_eq!(size["value"], 5000);
        assert_eq!(size["vhosts"], serde_json::json!({"a.com": 60000}));
    }

    #[test]
    fn json_lists_every_setting() {
        let parsed: serde_json::Value = serde_json::from_str(&to_json(&Config::default())).unwrap();
        let list = parsed.as_array().unwrap();
        assert_eq!(list.len(), rows().count());
        let listen = list.iter().find(|row| row["path"] == "listen").unwrap();
        assert_eq!(listen["value"], serde_json::json!(["1935"]));
        assert!(list.iter().all(|row| row["value"] == row["default"]));
    }
}
