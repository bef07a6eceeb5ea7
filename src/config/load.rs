//! From sources to one checked [`Config`]: defaults, file, environment, `--set`, in this order.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use super::env::{CONFIG_FILE, ENV_ONLY};
use super::places::Places;
use super::row::{Raw, Row};
use super::vhosts::{Key, classify};
use super::{Config, Environment, check, file, machine, places, rows, srs, to_short_toml};
use crate::limits::CONFIG_ERRORS_SHOWN;

/// Where a configuration comes from.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// `-c FILE`.
    pub file: Option<PathBuf>,
    /// `-e`: read the environment.
    pub env: bool,
    /// `--set key=value`, in order; the last of a key counts.
    pub set: Vec<String>,
    /// The environment variables, read with `-e` and with a file in SRS's grammar.
    pub environment: Environment,
    /// Where files that are included by others are looked for; by default the directory the
    /// process is in.
    pub directory: Option<PathBuf>,
}

impl Sources {
    /// The file they name.
    fn file(&self) -> Option<PathBuf> {
        self.environment.var(CONFIG_FILE).map(PathBuf::from).or_else(|| self.file.clone())
    }

    /// Rewrites paths, so that everything can be found from another directory.
    pub(super) fn resolve(&mut self, absolute: impl Fn(&Path) -> PathBuf) {
        let directory = self.directory.take().unwrap_or_else(|| ".".into());
        self.directory = Some(absolute(&directory));
        if let Some(file) = self.file() {
            self.file = Some(absolute(&file));
            self.environment.forget(CONFIG_FILE);
        }
    }
}

/// A configuration that passed every check.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// The file it was read from.
    pub file: Option<PathBuf>,
    /// That file and those it includes, as far as they could be found.
    pub files: Vec<PathBuf>,
    /// What an operator should know although the server can run; one line each.
    pub warnings: Vec<String>,
}

/// What is wrong with a configuration. All of it is the operator's to mend.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {file}: {why}; check the path given to -c")]
    Read {
        /// The file.
        file: String,
        /// What the system said.
        why: io::Error,
    },
    /// The file is over the limit.
    #[error(
        "{file} is longer than {max} bytes, which no configuration needs; is it the right file?"
    )]
    TooLong {
        /// The file.
        file: String,
        /// The limit in bytes.
        max: u64,
    },
    /// A line of the file is wrong.
    #[error("{file}:{line}: {why}")]
    File {
        /// The file.
        file: String,
        /// The line, from 1.
        line: usize,
        /// What is wrong.
        why: String,
    },
    /// An environment variable is wrong.
    #[error("{name}: {why}")]
    Env {
        /// The variable.
        name: String,
        /// What is wrong.
        why: String,
    },
    /// A `--set` is wrong.
    #[error("--set {text}: {why}")]
    Set {
        /// As it was given.
        text: String,
        /// What is wrong.
        why: String,
    },
    /// Settings that do not fit together.
    #[error("{0}")]
    Together(String),
}

/// All that is wrong with a configuration, one line each.
#[derive(Debug)]
pub struct ConfigErrors(pub Vec<ConfigError>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, error) in self.0.iter().take(CONFIG_ERRORS_SHOWN).enumerate() {
            write!(f, "{}{error}", if i == 0 { "" } else { "\n" })?;
        }
        match self.0.len().saturating_sub(CONFIG_ERRORS_SHOWN) {
            0 => Ok(()),
            more => write!(f, "\nand {more} more"),
        }
    }
}

impl std::error::Error for ConfigErrors {}

/// A configuration while its sources are read, one after the other.
#[derive(Debug, Default)]
pub(super) struct Draft {
    pub config: Config,
    pub warnings: Vec<String>,
    pub errors: Vec<ConfigError>,
    /// Files that were read.
    pub files: Vec<PathBuf>,
    /// Where settings were given.
    pub places: Places,
    /// What the sources say about containers.
    pub container: srs::Container,
}

impl Draft {
    /// Puts a written value where it belongs: into one vhost when it is named, else into what
    /// stands at the row's path.
    pub fn set(&mut self, row: &Row, vhost: Option<&str>, raw: &Raw) -> Result<(), String> {
        let value = row.value(raw)?;
        match (vhost, row.of_vhost) {
            (Some(name), Some(of)) => {
                let Config { vhost, vhosts, .. } = &mut self.config;
                let named = vhosts.named(name, vhost);
                (of.apply)(named.map_err(|why| format!("vhost {name:?} {why}"))?, value);
            }
            _ => (row.apply)(&mut self.config, value),
        }
        Ok(())
    }

    /// Remembers where a setting is given, for errors that are found later.
    pub fn note(&mut self, row: &Row, vhost: Option<&str>, place: String) {
        let vhost = vhost.filter(|_| row.of_vhost.is_some());
        self.places.insert((vhost.map(String::from), row.path), place);
    }

    /// The same as [`Draft::set`] for a source that stands over the file: what it says about vhosts
    /// holds for all of them, whatever the file says about each.
    pub fn set_everywhere(&mut self, row: &Row, raw: &Raw, place: String) -> Result<(), String> {
        self.places.retain(|(_, path), _| *path != row.path);
        self.note(row, None, place);
        let value = row.value(raw)?;
        if let Some(of) = row.of_vhost {
            for vhost in self.config.vhosts.values_mut() {
                (of.apply)(vhost, value.clone());
            }
        }
        (row.apply)(&mut self.config, value);
        Ok(())
    }

    /// Makes a vhost of this name with the values that hold for vhosts so far.
    pub fn name_vhost(&mut self, name: &str) -> Result<(), String> {
        let Config { vhost, vhosts, .. } = &mut self.config;
        vhosts.named(name, vhost).map(drop).map_err(|why| format!("vhost {name:?} {why}"))
    }

    fn finish(mut self, file: Option<PathBuf>) -> Result<Loaded, ConfigErrors> {
        // Rules across settings only mean something when each of them could be read.
        if self.errors.is_empty() {
            let told = self.warnings.len();
            check::check(&self.config, &mut self.warnings, &mut self.errors);
            let places = &self.places;
            for warning in &mut self.warnings[told..] {
                places::point_out(warning, places);
            }
            for error in &mut self.errors {
                if let ConfigError::Together(why) = error {
                    places::point_out(why, places);
                }
            }
        }
        match self.errors.is_empty() {
            true => {
                let Draft { config, warnings, files, .. } = self;
                Ok(Loaded { config, file, files, warnings })
            }
            false => Err(ConfigErrors(self.errors)),
        }
    }
}

/// Reads and checks a configuration.
///
/// # Errors
/// Everything that is wrong with it, so that one run shows all there is to mend.
pub fn load(sources: &Sources) -> Result<Loaded, ConfigErrors> {
    let mut draft = Draft::default();
    let environment = &sources.environment;
    let file = sources.file();
    let srs = file.as_deref().is_some_and(srs::is_srs);
    if srs {
        srs::defaults(&mut draft.config);
    }
    let only_env = sources.env || environment.var(ENV_ONLY).is_some();
    if only_env {
        Environment::defaults(&mut draft.config);
    }
    // SRS's rule for its own files: the environment always stands over them.
    let env = only_env || srs;
    if let Some(file) = &file {
        draft.files.push(file.clone());
        match file::read(file) {
            Ok(text) if srs => {
                draft.container.inside = machine::in_container();
                let directory = sources.directory.as_deref().unwrap_or(Path::new(""));
                srs::apply(&file.display().to_string(), &text, Some(directory), &mut draft);
            }
            Ok(text) => file::apply_text(&file.display().to_string(), &text, &mut draft),
            Err(error) => draft.errors.push(error),
        }
    }
    if env {
        environment.apply(&mut draft);
    } else {
        draft.warnings.extend(environment.unread());
    }
    if srs {
        srs::fit_container(&mut draft);
    }
    for text in &sources.set {
        if let Err(why) = set(text, &mut draft) {
            draft.errors.push(ConfigError::Set { text: text.clone(), why });
        }
    }
    if let (true, false, Some(file)) = (srs, only_env, &file) {
        require_listen(&file.display().to_string(), &mut draft);
    }
    draft.finish(file)
}

/// SRS takes no configuration that does not say where to listen.
fn require_listen(file: &str, draft: &mut Draft) {
    let is_said = draft.places.contains_key(&(None, "listen"));
    // With other mistakes it may be said where nothing could be read.
    if !is_said && draft.errors.is_empty() {
        let why = "no listen says where RTMP is served; write for example listen 1935;".into();
        draft.errors.push(ConfigError::File { file: file.into(), line: 1, why });
    }
}

/// Reads and checks the text of a file on top of the defaults; `name` is the file's name in errors
/// and says which grammar it is in. Nothing can be included.
///
/// # Errors
/// As [`load`].
pub fn load_text(name: &str, text: &str) -> Result<Loaded, ConfigErrors> {
    let mut draft = Draft::default();
    if srs::is_srs(Path::new(name)) {
        srs::defaults(&mut draft.config);
        srs::apply(name, text, None, &mut draft);
        srs::fit_container(&mut draft);
        require_listen(name, &mut draft);
    } else {
        file::apply_text(name, text, &mut draft);
    }
    draft.finish(None)
}

/// A configuration in SRS's grammar as TOML: what differs from ringcast's defaults, with what has
/// no effect as comments. The environment does not count.
///
/// # Errors
/// As [`load`].
pub fn import(file: &Path) -> Result<String, ConfigErrors> {
    let sources = Sources { file: Some(file.into()), ..Sources::default() };
    let loaded = load(&sources)?;
    let mut out = format!("# From {}, by `ringcast import`.\n", file.display());
    if machine::in_container() {
        out.push_str("# Made in a container: `daemon` and `config_watch` are as there.\n");
    }
    for warning in &loaded.warnings {
        out.push_str(&format!("# {warning}\n"));
    }
    out.push('\n');
    out.push_str(&to_short_toml(&loaded.config));
    Ok(out)
}

fn set(text: &str, draft: &mut Draft) -> Result<(), String> {
    let Some((path, value)) = text.split_once('=') else {
        return Err("write it as key=value, for example --set shards=1".into());
    };
    let path = path.trim();
    let place = format!("--set {path}");
    if let Some(row) = rows().find(|row| row.path == path) {
        return draft.set_everywhere(row, &row.kind.raw_from_text(value), place);
    }
    // vhost."a.com".play.gop_cache, with or without quotes around the name.
    let inside = path.strip_prefix("vhost.").unwrap_or_default();
    let of_vhosts = rows().filter(|row| row.of_vhost.is_some());
    let fits = of_vhosts.filter_map(|row| {
        let name = inside.strip_suffix(&row.path["vhost".len()..])?;
        let inner = name.strip_prefix('"').and_then(|name| name.strip_suffix('"'));
        let (quoted, name) = (inner.is_some(), inner.unwrap_or(name));
        matches!(classify(name, quoted), Key::Name).then_some((row, name))
    });
    // Names have dots: the shortest name is meant.
    match fits.min_by_key(|(_, name)| name.len()) {
        Some((row, name)) => {
            draft.note(row, Some(name), place);
            draft.set(row, Some(name), &row.kind.raw_from_text(value))
        }
        None => Err(file::unknown(path)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{LogLevel, TimeJitter};

    fn with(set: &[&str]) -> Result<Loaded, ConfigErrors> {
        let set = set.iter().map(|s| s.to_string()).collect();
        load(&Sources { set, ..Sources::default() })
    }

    #[test]
    fn no_source_gives_the_defaults() {
        let loaded = with(&[]).unwrap();
        assert_eq!(loaded.config, Config::default());
        assert!(loaded.warnings.is_empty());
    }

    #[test]
    fn set_takes_every_type() {
        let config = with(&[
            "shards=1",
            "shards = 2",
            "listen=127.0.0.1:0",
            "http_server.listen=[\"8080\", \"127.0.0.1:81\"]",
            "http_server.crossdomain=off",
            "vhost.play.time_jitter=full",
            "vhost.play.queue_length=500ms",
            "vhost.\"a.com\".play.queue_length=1",
            "vhost.b.com.chunk_size=4096",
            "log.level=\"warn\"",
            "work_dir=123",
            "pid=",
            "media_memory=1GiB",
        ])
        .unwrap()
        .config;
        assert_eq!(config.shards, 2);
        assert_eq!(config.listen[0].to_string(), "127.0.0.1:0");
        assert_eq!(config.http_server.listen.len(), 2);
        assert!(!config.http_server.crossdomain);
        assert_eq!(config.vhost.play.time_jitter, TimeJitter::Full);
        assert_eq!(config.vhost.play.queue_length.as_millis(), 500);
        assert_eq!(config.vhost("a.com").play.queue_length.as_millis(), 1000);
        assert_eq!(config.vhost("b.com").play.queue_length.as_millis(), 500);
        assert_eq!(config.vhost("b.com").chunk_size, 4096);
        assert_eq!(config.log.level, LogLevel::Warn);
        assert_eq!(config.work_dir, PathBuf::from("123"));
    }

    #[test]
    fn set_mistakes_are_explained() {
        let failed = |text| with(&[text]).unwrap_err().to_string();
        assert_eq!(failed("shard=1"), "--set shard=1: unknown setting shard; did you mean shards?");
        assert!(failed("shards").contains("write it as key=value"));
        assert!(failed("shards=many").contains("not \"many\""));
        assert!(failed("shards=").contains("not \"\""));
    }

    #[test]
    fn later_sources_win() {
        let dir = std::env::temp_dir().join(format!("ringcast-load-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.join("a.toml");
        std::fs::write(&path, "shards = 1\nmax_connections = 10\nlisten = 1\n").unwrap();
        let env = [("SRS_MAX_CONNECTIONS", "20"), ("SRS_LISTEN", "2")];
        let sources = Sources {
            file: Some(path.clone()),
            env: true,
            set: vec!["listen=3".into()],
            environment: Environment::new(env.map(|(n, v)| (n.to_string(), v.to_string()))),
            directory: None,
        };
        let config = load(&sources).unwrap().config;
        assert_eq!((config.shards, config.max_connections), (1, 20));
        assert_eq!(config.listen[0].port(), 3);
        let by_env = Sources {
            environment: Environment::new([(
                "SRS_CONFIG_FILE".to_string(),
                path.display().to_string(),
            )]),
            ..Sources::default()
        };
        assert_eq!(load(&by_env).unwrap().config.shards, 1);
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn many_errors_are_counted() {
        let set = vec!["nothing.like.it=1".to_string(); 25];
        let text = load(&Sources { set, ..Sources::default() }).unwrap_err().to_string();
        assert_eq!(text.lines().count(), 21);
        assert!(text.ends_with("and 5 more"));
    }
}
