//! The typed configuration that the rest of the server reads.
//!
//! One table (`settings`) has a row per setting; from it come the typed tree [`Config`], the
//! defaults, parsing with line numbers, the environment overlay, `--set`, the commented default
//! file and the reference page. Nothing here opens a socket or knows what a setting does.

use std::path::{Path, PathBuf};
use std::time::Duration;

mod access;
mod check;
pub mod command;
mod directives;
mod doc;
mod env;
mod file;
mod load;
mod machine;
mod places;
mod reload;
mod row;
mod settings;
mod srs;
mod suggest;
mod types;
mod vhosts;

pub use access::{Action, AddressRule, AddressRules, Network};
pub use command::{CommandLine, CommandLines};
pub use doc::{reference, to_json, to_short_toml, to_toml};
pub use env::Environment;
pub use load::{ConfigError, ConfigErrors, Loaded, Sources, import, load, load_text};

pub use machine::{Memory, fit_connections, fit_tls_connections, raise_open_files};
pub use reload::{Change, Current, Reloaded};
pub use row::{Kind, Reload, Row, Section, TimeUnit};
pub use settings::{
    CircuitBreaker, Config, Dash, Dvr, Exec, Exporter, Group, Heartbeat, Hls, HttpApi, HttpApiAuth,
    HttpApiHttps, HttpApiRaw, HttpHooks, HttpRemux, HttpServer, HttpServerHttps, HttpStatic,
    Limits, Log, Play, Publish, Refer, SECTIONS, Security, Stats, Token, Upload, Vhost,
};
pub use types::{
    DvrPlan, ListenAddr, LogLevel, LogTank, MediaMemory, MwLatency, OnError, Switch, TimeJitter,
};
pub use vhosts::{DEFAULT_VHOST, Vhosts};

impl Config {
    /// True when the API is served on the port of HTTP streaming.
    pub fn shares_http_port(&self) -> bool {
        self.http_api.enabled
            && self.http_server.enabled
            && self.http_api.listen == self.http_server.listen
    }

    /// True when HTTP streaming is served over HTTPS.
    pub fn serves_https(&self) -> bool {
        self.http_server.enabled && self.http_server.https.enabled
    }

    /// True when the API is served over HTTPS.
    pub fn serves_api_https(&self) -> bool {
        self.http_api.enabled && self.http_api.https.enabled
    }

    /// True when one HTTPS port serves both.
    pub fn shares_https_port(&self) -> bool {
        self.serves_https()
            && self.serves_api_https()
            && self.http_api.https.listen == self.http_server.https.listen
    }

    /// Scheme and port of HTTP streaming for who came by HTTPS (or did not), where it is served.
    pub fn http_origin(&self, secure: bool) -> Option<(&'static str, u16)> {
        if !self.http_server.enabled {
            return None;
        }
        match secure && self.serves_https() {
            true => Some(("https", self.http_server.https.listen.first()?.port())),
            false => Some(("http", self.http_server.listen.first()?.port())),
        }
    }

    /// The same for the API.
    pub fn api_origin(&self, secure: bool) -> Option<(&'static str, u16)> {
        if !self.http_api.enabled {
            return None;
        }
        match secure && self.serves_api_https() {
            true => Some(("https", self.http_api.https.listen.first()?.port())),
            false => Some(("http", self.http_api.listen.first()?.port())),
        }
    }
}

/// The merged-write rule of a vhost's players, with `min_latency` taken into account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MergedWrite {
    /// True when the window follows the load, between 0 and `window`; false when it is fixed.
    pub adaptive: bool,
    /// Longest (adaptive) or only (fixed) time that messages are gathered.
    pub window: Duration,
    /// Fewest messages worth a send while a fixed window is open.
    pub messages: u32,
}

impl Vhost {
    /// How messages are gathered before a send.
    pub fn merged_write(&self) -> MergedWrite {
        match self.play.mw_latency {
            _ if self.min_latency => {
                MergedWrite { adaptive: false, window: Duration::ZERO, messages: 0 }
            }
            MwLatency::Adaptive => {
                MergedWrite { adaptive: true, window: self.play.mw_latency_max, messages: 0 }
            }
            MwLatency::Fixed(window) => {
                MergedWrite { adaptive: false, window, messages: self.play.mw_msgs }
            }
        }
    }
}

impl Play {
    /// True when each player has a time base of its own; `bravo_atc` is what the stream's metadata
    /// asks for.
    pub fn rebases(&self, bravo_atc: bool) -> bool {
        let absolute = self.atc || (self.atc_auto && bravo_atc);
        self.time_jitter != TimeJitter::Off && !absolute
    }
}

/// A configured folder, where the word [vhost] stands for the vhost.
fn folder_of(path: &Path, vhost: &str) -> PathBuf {
    match path.to_str() {
        Some(text) => text.replace("[vhost]", vhost).into(),
        None => path.to_owned(),
    }
}

impl HttpStatic {
    /// The path that its files are below, without slash at its end; `None` if it is not enabled.
    pub fn path(&self) -> Option<&str> {
        let path = &self.mount[self.mount.find('/')?..];
        self.enabled.then(|| path.trim_end_matches('/'))
    }

    /// True when that path is for who asks for another vhost, too. SRS: it begins with a slash.
    pub fn is_for_all(&self) -> bool {
        self.mount.starts_with('/')
    }

    /// The folder with the files of a vhost.
    pub fn folder(&self, vhost: &str) -> PathBuf {
        folder_of(&self.dir, vhost)
    }
}

impl Hls {
    /// The folder that segments of a vhost are written to, if they are.
    pub fn folder(&self, vhost: &str) -> Option<PathBuf> {
        (!self.hls_path.as_os_str().is_empty()).then(|| folder_of(&self.hls_path, vhost))
    }

    /// The folder that its keys are written to.
    pub fn key_folder(&self, vhost: &str) -> Option<PathBuf> {
        match self.hls_key_file_path.as_os_str().is_empty() {
            true => self.folder(vhost),
            false => self.folder(vhost).map(|_| self.hls_key_file_path.clone()),
        }
    }
}

impl Dash {
    /// The folder that segments of a vhost are written to, if they are.
    pub fn folder(&self, vhost: &str) -> Option<PathBuf> {
        (!self.dash_path.as_os_str().is_empty()).then(|| folder_of(&self.dash_path, vhost))
    }
}

impl Dvr {
    /// True when streams of this app and name are to be recorded.
    pub fn records(&self, app: &str, stream: &str) -> bool {
        let applies = |rule: &String| {
            rule == "all" || rule.rsplit_once('/').is_some_and(|rule| rule == (app, stream))
        };
        self.enabled && self.dvr_apply.iter().any(applies)
    }
}

impl Token {
    /// True when there is something to check JWTs with.
    pub fn has_jwt(&self) -> bool {
        !self.jwt_secret.is_empty() || !self.jwks_url.is_empty()
    }

    /// True when there is anything that a token can be checked with.
    pub fn has_any(&self) -> bool {
        self.has_jwt() || !self.keys.is_empty() || !self.sign_secrets.is_empty()
    }
}

/// All rows of the table, in the order of the configuration file.
pub fn rows() -> impl Iterator<Item = &'static Row> {
    SECTIONS.iter().flat_map(|section| section.rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merged_write_follows_min_latency() {
        let mut vhost = Vhost::default();
        assert!(vhost.merged_write().adaptive);
        vhost.play.mw_latency = MwLatency::Fixed(Duration::from_millis(350));
        let fixed =
            MergedWrite { adaptive: false, window: Duration::from_millis(350), messages: 8 };
        assert_eq!(vhost.merged_write(), fixed);
        vhost.min_latency = true;
        assert_eq!(vhost.merged_write().window, Duration::ZERO);
    }

    #[test]
    fn absolute_timestamps_stand_above_jitter() {
        let mut play = Vhost::default().play;
        assert!(!play.rebases(false));
        play.time_jitter = TimeJitter::Full;
        assert!(play.rebases(false) && play.rebases(true));
        play.atc_auto = true;
        assert!(play.rebases(false) && !play.rebases(true));
        play.atc = true;
        assert!(!play.rebases(false));
    }

    #[test]
    fn every_row_gives_back_its_default() {
        let config = Config::default();
        for row in rows() {
            assert_eq!(row.toml(&config), row.default, "{}", row.path);
            assert!(!row.doc.is_empty());
        }
    }
}
