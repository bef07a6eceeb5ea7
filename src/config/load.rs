//! From sources to one checked [`Config`]: defaults, file, environment, `--set`, in this order.

use std::fmt;
use std::io;
use std::path::PathBuf;

use super::env::{CONFIG_FILE, ENV_ONLY};
use super::{Config, Environment, check, file, rows};
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
    /// The environment variables, read with `-e` only.
    pub environment: Environment,
}

/// A configuration that passed every check.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// The file it was read from.
    pub file: Option<PathBuf>,
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
    /// The file is not TOML by its name.
    #[error(
        "{file} does not end in .toml, and this version does not read SRS's own grammar yet; \
         write the settings as TOML (`ringcast config` prints all of them)"
    )]
    Grammar {
        /// The file.
        file: String,
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

/// Reads and checks a configuration.
///
/// # Errors
/// Everything that is wrong with it, so that one run shows all there is to mend.
pub fn load(sources: &Sources) -> Result<Loaded, ConfigErrors> {
    let mut config = Config::default();
    let mut warnings = Vec::new();
    let mut errors = Vec::new();
    let environment = &sources.environment;
    let env = sources.env || environment.var(ENV_ONLY).is_some();
    if env {
        Environment::defaults(&mut config);
    }
    let file = environment.var(CONFIG_FILE).map(PathBuf::from).or_else(|| sources.file.clone());
    if let Some(file) = &file {
        file::apply(file, &mut config, &mut errors);
    }
    if env {
        environment.apply(&mut config, &mut warnings, &mut errors);
    } else {
        warnings.extend(environment.unread());
    }
    for text in &sources.set {
        if let Err(why) = set(text, &mut config) {
            errors.push(ConfigError::Set { text: text.clone(), why });
        }
    }
    // Rules across settings only mean something when each of them could be read.
    if errors.is_empty() {
        check::check(&config, &mut warnings, &mut errors);
    }
    match errors.is_empty() {
        true => Ok(Loaded { config, file, warnings }),
        false => Err(ConfigErrors(errors)),
    }
}

/// Reads and checks the text of a TOML file on top of the defaults; `name` is the file's name in
/// errors.
///
/// # Errors
/// As [`load`].
pub fn load_text(name: &str, text: &str) -> Result<Loaded, ConfigErrors> {
    let mut config = Config::default();
    let mut warnings = Vec::new();
    let mut errors = Vec::new();
    file::apply_text(name, text, &mut config, &mut errors);
    if errors.is_empty() {
        check::check(&config, &mut warnings, &mut errors);
    }
    match errors.is_empty() {
        true => Ok(Loaded { config, file: None, warnings }),
        false => Err(ConfigErrors(errors)),
    }
}

fn set(text: &str, config: &mut Config) -> Result<(), String> {
    let Some((path, value)) = text.split_once('=') else {
        return Err("write it as key=value, for example --set shards=1".into());
    };
    let path = path.trim();
    let Some(row) = rows().find(|row| row.path == path) else {
        return Err(file::unknown(path));
    };
    row.set(config, &row.kind.raw_from_text(value))
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
