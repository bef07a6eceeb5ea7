//! The environment overlay: SRS's variables with SRS's rules, and ringcast's own.
//!
//! A non-empty variable beats the configuration file; an empty one counts as not set. A variable
//! that asks for a feature of SRS which does not exist here yet is an error, as in a file; one that
//! belongs to a feature that is off is passed over, so that a working container description can be
//! moved over as it is.

use super::directives::{self, Form};
use super::load::Draft;
use super::row::{Kind, Raw, Row};
use super::suggest::nearest;
use super::{Config, ConfigError, rows, srs};

/// Set to anything, it means `-e`.
pub(super) const ENV_ONLY: &str = "SRS_ENV_ONLY";
/// Replaces the argument of `-c`.
pub(super) const CONFIG_FILE: &str = "SRS_CONFIG_FILE";
/// Prefix of ringcast's internal marks, which are not settings.
const INTERNAL: &str = "RINGCAST_INTERNAL_";

/// The variables of a process that may concern the configuration.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    vars: Vec<(String, String)>,
}

impl Environment {
    /// Takes the `SRS_*` and `RINGCAST_*` variables that are not empty.
    pub fn new(vars: impl IntoIterator<Item = (String, String)>) -> Self {
        let ours = |name: &str| {
            (name.starts_with("SRS_") || name.starts_with("RINGCAST_"))
                && !name.starts_with(INTERNAL)
        };
        let mut vars: Vec<_> =
            vars.into_iter().filter(|(name, value)| ours(name) && !value.is_empty()).collect();
        vars.sort();
        Self { vars }
    }

    /// The environment of this process.
    pub fn of_process() -> Self {
        Self::new(std::env::vars_os().filter_map(|(name, value)| {
            // What is not UTF-8 cannot be the value of any setting that has a variable.
            Some((name.into_string().ok()?, value.into_string().ok()?))
        }))
    }

    pub(super) fn var(&self, name: &str) -> Option<&str> {
        self.vars.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    pub(super) fn forget(&mut self, name: &str) {
        self.vars.retain(|(n, _)| n != name);
    }

    /// What differs when the configuration comes from the environment: SRS serves RTMP only
    /// unless told otherwise, stays in the foreground and logs to the console.
    pub(super) fn defaults(config: &mut Config) {
        config.http_server.enabled = false;
        config.http_api.enabled = false;
        config.vhost.http_remux.enabled = false;
        config.daemon = false;
        config.log.tank = super::LogTank::Console;
    }

    /// Puts the variables into `draft`. What is set for vhosts is set for all of them.
    pub(super) fn apply(&self, draft: &mut Draft) {
        for row in rows() {
            let found = row.env.iter().find_map(|name| Some((*name, self.var(name)?)));
            let Some((name, text)) = found else { continue };
            let raw = read(row, name, text, &mut draft.warnings);
            if let Err(why) = draft.set_everywhere(row, &raw, name.into()) {
                draft.errors.push(ConfigError::Env { name: name.into(), why });
            }
        }
        for (name, text) in &self.vars {
            match self.without_row(name, text, draft) {
                Ok(remark) => draft.warnings.extend(remark),
                Err(why) => draft.errors.push(ConfigError::Env { name: name.clone(), why }),
            }
        }
    }

    /// What to say about a variable that no row reads. As in a file, one that asks for what this
    /// version does not have is an error.
    fn without_row(
        &self,
        name: &str,
        text: &str,
        draft: &mut Draft,
    ) -> Result<Option<String>, String> {
        let read = rows().any(|row| row.env.contains(&name));
        if read || [ENV_ONLY, CONFIG_FILE].contains(&name) || kubernetes(name) {
            return Ok(None);
        }
        let Some(directive) = directives::of_variable(name) else { return Ok(remark(name)) };
        let path = directive.path;
        if draft.container.take(path, Some(text)) {
            return Ok(None);
        }
        if directive.form == Form::Gone {
            return Ok(Some(format!("{name} has no effect: {path} was removed from SRS")));
        }
        if !directive.asks(text) {
            return Ok(None);
        }
        if let Some(why) = srs::moot(path) {
            return Ok(Some(format!("{name} has no effect: {why}")));
        }
        let is_on = |switch: &directives::Directive| {
            let words = switch.env_names().into_iter();
            let word = words.filter_map(|name| self.var(&name)).next();
            word.map_or(switch.form == Form::On, |word| switch.asks(word))
        };
        for switch in directive.switches() {
            let block = switch.path.trim_end_matches(".enabled");
            match (directives::has_rows(block), is_on(switch)) {
                (true, _) => {}
                // The switch has its own error.
                (false, true) => return Ok(None),
                (false, false) => {
                    return Ok(Some(format!("{name} has no effect: {block} is not switched on")));
                }
            }
        }
        let what = if path.ends_with(".enabled") { "feature" } else { "directive" };
        let thing = path.trim_end_matches(".enabled");
        Err(format!("{thing} is a {what} of SRS that this version does not have yet; unset it"))
    }

    /// One line when there are settings in an environment that is not read.
    pub(super) fn unread(&self) -> Option<String> {
        let of_rows = |name: &str| rows().any(|row| row.env.contains(&name));
        let mut names = self.vars.iter().map(|(name, _)| name).filter(|name| of_rows(name));
        let first = names.next()?;
        let more = match names.count() {
            0 => String::new(),
            n => format!(" and {n} more"),
        };
        Some(format!("{first}{more} in the environment: not read, start with -e to have it read"))
    }
}

/// The written value of a row from the variable `name`.
fn read(row: &Row, name: &str, text: &str, warnings: &mut Vec<String>) -> Raw {
    match row.kind {
        Kind::Bool { prefer } => {
            if !matches!(text, "on" | "off") {
                let means = if prefer { "on" } else { "off" };
                warnings.push(format!("{name}={text} means {means}, as in SRS; write on or off"));
            }
            Raw::Bool(if prefer { text != "off" } else { text == "on" })
        }
        Kind::Choice(_) if name.ends_with("_LOG_LEVEL") => Raw::Text(srs::old_level(text).into()),
        kind => kind.raw_from_text(text),
    }
}

/// What to say about a variable that is no directive.
fn remark(name: &str) -> Option<String> {
    if known().any(|known| known == name) {
        return Some(format!("{name} has no effect here"));
    }
    let candidates = rows().flat_map(|row| row.env.iter().copied()).chain(known());
    Some(match nearest(name, candidates) {
        Some(near) => format!("{name} is not a known variable; did you mean {near}?"),
        None => format!("{name} is not a known variable and has no effect"),
    })
}

/// Kubernetes describes a service named `srs` to every container by variables of its own.
fn kubernetes(name: &str) -> bool {
    let tail = name.trim_start_matches("SRS_").trim_start_matches("RINGCAST_");
    tail.contains("SERVICE_HOST")
        || tail.contains("SERVICE_PORT")
        || tail == "PORT"
        || tail.ends_with("_PORT")
        || (tail.contains("PORT_") && (tail.contains("_TCP") || tail.contains("_UDP")))
}

/// Names of SRS variables without a row.
fn known() -> impl Iterator<Item = &'static str> {
    directives::unread_variables().iter().map(String::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{LogLevel, LogTank, Sources, load};

    fn env(vars: &[(&str, &str)]) -> Sources {
        let vars = vars.iter().map(|(n, v)| (n.to_string(), v.to_string()));
        Sources { env: true, environment: Environment::new(vars), ..Sources::default() }
    }

    #[test]
    fn names_are_unique_and_follow_the_path() {
        let mut seen = std::collections::BTreeSet::new();
        for row in rows() {
            for name in row.env {
                assert!(seen.insert(*name), "{name} twice");
                assert!(!known().any(|k| k == *name), "{name} has a row");
            }
            let by_rule = format!("_{}", row.path.to_ascii_uppercase().replace('.', "_"));
            let fits = |name: &&str| name.ends_with(&by_rule);
            assert!(row.env.iter().any(fits) || row.path == "log.level", "{}", row.path);
        }
    }

    #[test]
    fn http_is_off_unless_switched_on() {
        let config = load(&env(&[])).unwrap().config;
        assert!(!config.http_server.enabled && !config.vhost.http_remux.enabled);
        assert!(!config.http_api.enabled && !config.daemon);
        assert_eq!(config.listen, Config::default().listen);
        let on = env(&[
            ("SRS_HTTP_SERVER_ENABLED", "on"),
            ("SRS_VHOST_HTTP_REMUX_ENABLED", "on"),
            ("SRS_HTTP_SERVER_LISTEN", "8081"),
            ("SRS_LISTEN", "1935 127.0.0.1:1936"),
            ("SRS_MAX_CONNECTIONS", "50"),
            ("SRS_LOG_TANK", "file"),
            ("SRS_PID", ""),
        ]);
        let loaded = load(&on).unwrap();
        let config = loaded.config;
        assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
        assert!(config.http_server.enabled && config.vhost.http_remux.enabled);
        assert_eq!(config.http_server.listen[0].to_string(), "8081");
        assert_eq!(config.listen.len(), 2);
        assert_eq!(config.max_connections, 50);
        assert_eq!(config.log.tank, LogTank::File);
        assert_eq!(config.pid, Config::default().pid);
    }

    #[test]
    fn switches_read_as_in_srs() {
        let loaded = load(&env(&[("SRS_DAEMON", "false"), ("SRS_LOG_TANK", "file")])).unwrap();
        assert!(loaded.config.daemon);
        assert!(loaded.warnings[0].contains("SRS_DAEMON=false means on"));
        let loaded = load(&env(&[("SRS_VHOST_MIN_LATENCY", "true")])).unwrap();
        assert!(!loaded.config.vhost.min_latency);
    }

    #[test]
    fn levels_have_two_spellings() {
        let old = load(&env(&[("SRS_LOG_LEVEL", "trace")])).unwrap().config;
        assert_eq!(old.log.level, LogLevel::Info);
        let both = env(&[("SRS_LOG_LEVEL", "trace"), ("SRS_LOG_LEVEL_V2", "warn")]);
        assert_eq!(load(&both).unwrap().config.log.level, LogLevel::Warn);
    }

    #[test]
    fn unknown_and_unfinished_names_are_remarked() {
        let loaded = load(&env(&[
            ("SRS_LISTN", "1"),
            ("SRS_VHOST_HLS_ENABLED", "off"),
            ("SRS_VHOST_HDS_HDS_FRAGMENT", "5"),
            ("SRS_UTC_TIME", "on"),
            ("SRS_IN_DOCKER", "on"),
            ("SRS_REGION", "cn"),
            ("SRS_TENCENTCLOUD_CLS_ENABLED", "on"),
            ("SRS_SERVICE_HOST", "10.0.0.1"),
            ("SRS_PORT_1935_TCP_ADDR", "10.0.0.1"),
            ("RINGCAST_SHARD", "2"),
        ]))
        .unwrap();
        assert_eq!(
            loaded.warnings,
            [
                "RINGCAST_SHARD is not a known variable; did you mean RINGCAST_SHARDS?",
                "SRS_LISTN is not a known variable; did you mean SRS_LISTEN?",
                "SRS_REGION has no effect here",
                "SRS_TENCENTCLOUD_CLS_ENABLED has no effect: tencentcloud_cls.enabled was removed \
                 from SRS",
                "SRS_UTC_TIME has no effect: the log is always in UTC",
                "SRS_VHOST_HDS_HDS_FRAGMENT has no effect: vhost.hds is not switched on",
            ]
        );
        let errors = load(&env(&[
            ("SRS_VHOST_HDS_ENABLED", "on"),
            ("SRS_VHOST_HDS_HDS_FRAGMENT", "5"),
            ("SRS_VHOST_PLAY_MIX_CORRECT", "on"),
        ]));
        let missing = "of SRS that this version does not have yet; unset it";
        assert_eq!(
            errors.unwrap_err().to_string(),
            format!(
                "SRS_VHOST_HDS_ENABLED: vhost.hds is a feature {missing}\n\
                 SRS_VHOST_PLAY_MIX_CORRECT: vhost.play.mix_correct is a directive {missing}"
            )
        );
    }

    #[test]
    fn a_wrong_value_names_the_variable() {
        let errors = load(&env(&[("SRS_MAX_CONNECTIONS", "many")])).unwrap_err();
        assert_eq!(
            errors.to_string(),
            "SRS_MAX_CONNECTIONS: max_connections must be a whole number from 1 to 4000000 \
             (connections), not \"many\""
        );
    }

    #[test]
    fn an_unread_environment_is_pointed_out() {
        let mut sources = env(&[("SRS_LISTEN", "1"), ("SRS_PID", "x")]);
        sources.env = false;
        let loaded = load(&sources).unwrap();
        assert_eq!(loaded.config, Config::default());
        assert!(loaded.warnings[0].starts_with("SRS_LISTEN and 1 more in the environment"));
        sources.environment.vars.push((ENV_ONLY.into(), "on".into()));
        assert_eq!(load(&sources).unwrap().config.listen[0].to_string(), "1");
    }
}
