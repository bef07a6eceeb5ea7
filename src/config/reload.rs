//! The configuration in force, and how a new one takes its place: read and checked in full first,
//! then exchanged as a whole, or not at all.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;

use super::{
    Config, ConfigErrors, Loaded, Reload, Row, Sources, Vhost, fit_connections,
    fit_tls_connections, load, rows,
};

/// The configuration in force. Readers take the whole of it and never wait.
#[derive(Debug)]
pub struct Current {
    config: ArcSwap<Config>,
    sources: Sources,
    /// The files that were read; absolute, because the process may change its directory.
    files: ArcSwap<Vec<PathBuf>>,
    /// What `max_connections` is lowered to.
    open_files: u64,
    /// Held while a new configuration is read, so that two reloads come one after the other.
    reloading: Mutex<()>,
}

/// What a reload did.
#[derive(Clone, Debug, Default)]
pub struct Reloaded {
    /// What differs, in the order of the settings table.
    pub changes: Vec<Change>,
    /// What an operator should know, as at start.
    pub warnings: Vec<String>,
}

/// A setting that differs between two configurations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Its path; one of a vhost with a name is written `vhost."its.name".play.gop_cache`.
    pub path: String,
    /// The value before, as TOML text; empty when there was none.
    pub before: String,
    /// The value after, as TOML text; empty when there is none.
    pub after: String,
    /// Whether it is in force now or takes a restart.
    pub reload: Reload,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.before.as_str(), self.after.as_str()) {
            ("", after) => write!(f, "{} = {after} (new)", self.path),
            (before, "") => write!(f, "{} is gone (was {before})", self.path),
            (before, after) => write!(f, "{} = {after} (was {before})", self.path),
        }
    }
}

impl Reloaded {
    /// The paths of changes that take a restart.
    pub fn need_restart(&self) -> impl Iterator<Item = &str> {
        let waiting = self.changes.iter().filter(|change| change.reload == Reload::Restart);
        waiting.map(|change| change.path.as_str())
    }

    /// The changes that are in force.
    pub fn applied(&self) -> impl Iterator<Item = &Change> {
        self.changes.iter().filter(|change| change.reload == Reload::Live)
    }
}

impl Current {
    /// A configuration that was read from `sources`, on a machine with this open-file limit.
    /// Call it before the process changes its directory.
    pub fn new(mut loaded: Loaded, mut sources: Sources, open_files: u64) -> Current {
        let files = loaded.files.iter().map(|file| absolute(file)).collect();
        sources.resolve(absolute);
        // The warning about it is the caller's; here the number counts.
        let https = loaded.config.serves_https();
        let (fit, _) = fit_connections(loaded.config.max_connections, open_files, https);
        loaded.config.max_connections = fit;
        Current {
            config: ArcSwap::from_pointee(loaded.config),
            sources,
            files: ArcSwap::from_pointee(files),
            open_files,
            reloading: Mutex::default(),
        }
    }

    /// A configuration without sources, which never changes by a reload; for tests.
    pub fn fixed(config: Config) -> Current {
        let loaded = Loaded { config, file: None, files: Vec::new(), warnings: Vec::new() };
        Current::new(loaded, Sources::default(), u64::MAX)
    }

    /// The configuration in force now. Hold it for as long as one thing is handled.
    pub fn load(&self) -> Arc<Config> {
        self.config.load_full()
    }

    /// Connections through TLS that there may be.
    pub fn tls_connections_max(&self) -> u32 {
        fit_tls_connections(self.open_files).min(self.load().max_connections)
    }

    /// The files it is read from, the main one first.
    pub fn files(&self) -> Arc<Vec<PathBuf>> {
        self.files.load_full()
    }

    /// Reads the sources anew and puts what they say in force. Settings that take a restart keep
    /// their values. Whoever keeps parts of the configuration has to be told afterwards.
    ///
    /// # Errors
    /// The new configuration is wrong; the one in force stays.
    pub fn reload(&self) -> Result<Reloaded, ConfigErrors> {
        let _turn = self.reloading.lock().unwrap_or_else(PoisonError::into_inner);
        let Loaded { mut config, warnings, files, .. } = self.read()?;
        self.files.store(Arc::new(files));
        let old = self.config.load();
        // Whether there is HTTPS takes a restart to change.
        let https = old.serves_https();
        let (fit, note) = fit_connections(config.max_connections, self.open_files, https);
        config.max_connections = fit;
        let changes = changes(&old, &config);
        keep_what_takes_a_restart(&old, &mut config);
        self.config.store(Arc::new(config));
        let warnings = warnings.into_iter().chain(note).collect();
        Ok(Reloaded { changes, warnings })
    }

    /// Reads and checks the sources without putting anything in force.
    ///
    /// # Errors
    /// As [`load`].
    pub fn read(&self) -> Result<Loaded, ConfigErrors> {
        load(&self.sources)
    }

    /// Puts a configuration in force as it is, whatever the sources say; for tests.
    pub fn replace(&self, config: Config) {
        self.config.store(Arc::new(config));
    }
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.into())
}

/// What differs between two configurations.
fn changes(old: &Config, new: &Config) -> Vec<Change> {
    let mut found = Vec::new();
    let mut compare = |path: String, row: &Row, before: String, after: String| {
        if before != after {
            let shown = |value: String| if row.is_secret() { "***".into() } else { value };
            let (before, after) = (shown(before), shown(after));
            found.push(Change { path, before, after, reload: row.reload });
        }
    };
    for row in rows() {
        compare(row.path.into(), row, row.toml(old), row.toml(new));
    }
    for (name, vhost) in new.vhosts.iter() {
        let before = old.vhosts.get(name).unwrap_or_else(|| old.vhost(name));
        for row in rows() {
            let pair = row.vhost_toml(before).zip(row.vhost_toml(vhost));
            let Some((before, after)) = pair else { continue };
            // What every vhost got from the defaults has been said once.
            let inherited = before == row.toml(old) && after == row.toml(new);
            if !inherited {
                let inside = &row.path["vhost.".len()..];
                compare(format!("vhost.\"{name}\".{inside}"), row, before, after);
            }
        }
    }
    let names = |config: &Config, name: &str| config.vhosts.get(name).is_some();
    let whole = |name: &str| format!("vhost.\"{name}\"");
    for (name, _) in new.vhosts.iter().filter(|(name, _)| !names(old, name)) {
        let (path, after) = (whole(name), "{}".into());
        found.push(Change { path, before: String::new(), after, reload: Reload::Live });
    }
    for (name, _) in old.vhosts.iter().filter(|(name, _)| !names(new, name)) {
        let (path, before) = (whole(name), "{}".into());
        found.push(Change { path, before, after: String::new(), reload: Reload::Live });
    }
    found
}

/// Gives `new` the old values of settings that a running server does not take.
fn keep_what_takes_a_restart(old: &Config, new: &mut Config) {
    for row in rows().filter(|row| row.reload == Reload::Restart) {
        (row.apply)(new, (row.show)(old));
        let Some(of) = row.of_vhost else { continue };
        let names: Vec<String> = new.vhosts.iter().map(|(name, _)| name.into()).collect();
        for name in names {
            let value = (of.show)(old.vhost(&name));
            let template = Vhost::default();
            if let Ok(vhost) = new.vhosts.named(&name, &template) {
                (of.apply)(vhost, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load_text;

    fn config(text: &str) -> Config {
        load_text("x.toml", text).unwrap_or_else(|errors| panic!("{errors}")).config
    }

    fn shown(old: &str, new: &str) -> Vec<String> {
        changes(&config(old), &config(new)).iter().map(Change::to_string).collect()
    }

    #[test]
    fn differences_are_named() {
        assert!(shown("", "").is_empty());
        assert_eq!(
            shown("listen = 1935", "listen = 1936\n[vhost.play]\ngop_cache = false"),
            ["listen = [\"1936\"] (was [\"1935\"])", "vhost.play.gop_cache = false (was true)"]
        );
        assert_eq!(
            shown("[vhost.\"a.com\"]\nchunk_size = 4096", "[vhost.\"b.com\"]\nenabled = false"),
            [
                "vhost.\"b.com\".enabled = false (was true)",
                "vhost.\"b.com\" = {} (new)",
                "vhost.\"a.com\" is gone (was {})"
            ]
        );
        // A default that vhosts inherit changes once, not once for each of them.
        assert_eq!(
            shown("[vhost.\"a.com\"]", "[vhost.\"a.com\"]\n[vhost]\nchunk_size = 4096"),
            ["vhost.chunk_size = 4096 (was 60000)"]
        );
        assert_eq!(
            shown("http_api.auth.password = \"x\"", "http_api.auth.password = \"y\""),
            ["http_api.auth.password = *** (was ***)"]
        );
    }

    fn file(name: &str, text: &str) -> PathBuf {
        let path = format!("ringcast-reload-{}-{name}.toml", std::process::id());
        let path = std::env::temp_dir().join(path);
        std::fs::write(&path, text).unwrap();
        path
    }

    fn current(path: &Path) -> Current {
        let sources = Sources { file: Some(path.into()), ..Sources::default() };
        Current::new(load(&sources).unwrap(), sources, 1128)
    }

    #[test]
    fn all_of_a_new_configuration_is_applied_or_nothing() {
        let path = file("all", "listen = 1935\nmax_connections = 10\n");
        let current = current(&path);
        let before = current.load();
        std::fs::write(&path, "max_connections = 20\n[vhost.play]\ngop_cach = false\n").unwrap();
        let errors = current.reload().unwrap_err().to_string();
        assert!(errors.contains(".toml:3: unknown setting"), "{errors}");
        assert!(Arc::ptr_eq(&before, &current.load()));

        let new = "listen = 1936\nmax_connections = 20\n[vhost.\"a.com\"]\nenabled = false\n";
        std::fs::write(&path, new).unwrap();
        let reloaded = current.reload().unwrap();
        assert_eq!(reloaded.need_restart().collect::<Vec<_>>(), ["listen"]);
        assert_eq!(reloaded.applied().count(), 3);
        let config = current.load();
        assert_eq!(config.max_connections, 20);
        assert_eq!(config.listen[0].port(), 1935);
        assert!(!config.vhost("a.com").enabled);
        // The listener still differs from the file, the rest does not.
        assert_eq!(current.reload().unwrap().changes.len(), 1);
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn connections_fit_the_machine_after_a_reload_too() {
        let path = file("fit", "");
        let current = current(&path);
        assert_eq!(current.load().max_connections, 1000);
        std::fs::write(&path, "max_connections = 2000\n").unwrap();
        let reloaded = current.reload().unwrap();
        assert!(reloaded.changes.is_empty());
        assert!(reloaded.warnings[0].contains("1000 instead of 2000"));
        std::fs::remove_file(path).unwrap();
    }
}
