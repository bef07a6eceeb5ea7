//! The vhosts with names of their own, and which of them serves a name.

use std::collections::BTreeMap;

use super::suggest::nearest;
use super::{Config, SECTIONS, Vhost, directives, rows};
use crate::limits::{CONFIG_VHOSTS_MAX, NAME_VHOST_MAX};

/// The name of the vhost that serves every name without a vhost of its own.
pub const DEFAULT_VHOST: &str = "__defaultVhost__";

/// Vhosts by name, each with all its settings.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Vhosts(BTreeMap<String, Vhost>);

impl Vhosts {
    /// The vhost of exactly this name.
    pub fn get(&self, name: &str) -> Option<&Vhost> {
        self.0.get(name)
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Vhost)> {
        self.0.iter().map(|(name, vhost)| (name.as_str(), vhost))
    }

    pub(super) fn values_mut(&mut self) -> impl Iterator<Item = &mut Vhost> {
        self.0.values_mut()
    }

    /// The vhost of this name, made from `template` when there is none yet.
    ///
    /// # Errors
    /// The name cannot be one, or there are too many vhosts.
    pub(super) fn named(&mut self, name: &str, template: &Vhost) -> Result<&mut Vhost, String> {
        check_name(name)?;
        if self.0.len() >= CONFIG_VHOSTS_MAX && !self.0.contains_key(name) {
            return Err(format!("is one vhost more than {CONFIG_VHOSTS_MAX}"));
        }
        Ok(self.0.entry(name.into()).or_insert_with(|| template.clone()))
    }
}

impl Config {
    /// The vhost that serves `name`: the one of that name, else the default vhost.
    pub fn vhost(&self, name: &str) -> &Vhost {
        // Most configurations name none, and this is asked whenever media is sent.
        if self.vhosts.0.is_empty() {
            return &self.vhost;
        }
        let vhosts = &self.vhosts;
        vhosts.get(name).or_else(|| vhosts.get(DEFAULT_VHOST)).unwrap_or(&self.vhost)
    }

    /// The name of the vhost that serves `name`, a host name or `vhost=` parameter: itself when
    /// it has a vhost of its own, otherwise [`DEFAULT_VHOST`]. Streams are known under it.
    pub fn vhost_name(&self, name: &str) -> &str {
        self.vhosts.0.get_key_value(name).map_or(DEFAULT_VHOST, |(name, _)| name)
    }

    /// Every vhost with its name, the default one included.
    pub fn all_vhosts(&self) -> impl Iterator<Item = (&str, &Vhost)> {
        let default = self.vhosts.get(DEFAULT_VHOST).is_none();
        default.then_some((DEFAULT_VHOST, &self.vhost)).into_iter().chain(self.vhosts.iter())
    }
}

/// What a key of the table `vhost` is that is no setting of it.
pub(super) enum Key {
    /// The name of a vhost.
    Name,
    /// Something that looks too much like a setting to be a name.
    Mistake(String),
}

/// Tells the name of a vhost from a mistyped setting. What is `quoted` is meant to be a name.
pub(super) fn classify(key: &str, quoted: bool) -> Key {
    let path = format!("vhost.{key}");
    if directives::is_known(&path) {
        return Key::Mistake(super::file::unknown(&path));
    }
    if SECTIONS.iter().any(|section| section.path == path) || rows().any(|row| row.path == path) {
        return Key::Mistake(format!("{path} is a setting, and so no vhost can have that name"));
    }
    // Names of hosts have dots or colons; settings do not.
    if !quoted && !key.contains(['.', ':']) && key != DEFAULT_VHOST {
        let inside = SECTIONS.iter().map(|section| section.path).chain(rows().map(|row| row.path));
        let direct = inside.filter_map(|path| path.strip_prefix("vhost."));
        let direct = direct.filter(|path| !path.contains('.'));
        if let Some(near) = nearest(key, direct.chain(directives::of_vhost())) {
            let near = format!("vhost.{near}");
            return Key::Mistake(format!("unknown setting {path}; did you mean {near}?"));
        }
    }
    match check_name(key) {
        Ok(()) => Key::Name,
        Err(why) => Key::Mistake(format!("vhost {key:?} {why}")),
    }
}

/// Completes "vhost NAME …".
fn check_name(name: &str) -> Result<(), String> {
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
    if name.is_empty() || name.len() > NAME_VHOST_MAX {
        return Err(format!("must have a name of 1 to {NAME_VHOST_MAX} characters"));
    }
    if !name.chars().all(good) || name.starts_with(['.', '-']) {
        return Err(
            "must be a host name or an address, made of letters, digits, . - _ and :".into()
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load_text;

    const TEXT: &str = "[vhost]\nchunk_size = 5000\n[vhost.play]\ngop_cache = false\n\
        [vhost.\"a.com\"]\nchunk_size = 6000\n[vhost.\"a.com\".play]\nqueue_length = 3\n\
        [vhost.\"b.com\"]\nenabled = false\n";

    #[test]
    fn named_vhosts_inherit_and_override() {
        let config = load_text("x.toml", TEXT).unwrap().config;
        assert_eq!(config.vhost("a.com").chunk_size, 6000);
        assert_eq!(config.vhost("a.com").play.queue_length.as_secs(), 3);
        assert!(!config.vhost("a.com").play.gop_cache);
        assert_eq!(config.vhost("b.com").chunk_size, 5000);
        assert!(!config.vhost("b.com").enabled && config.vhost("c.com").enabled);
        assert_eq!(config.vhost("c.com").play.queue_length.as_secs(), 30);
        assert_eq!(config.vhost_name("a.com"), "a.com");
        assert_eq!(config.vhost_name("c.com"), DEFAULT_VHOST);
        let names: Vec<_> = config.all_vhosts().map(|(name, _)| name).collect();
        assert_eq!(names, [DEFAULT_VHOST, "a.com", "b.com"]);
    }

    #[test]
    fn the_default_vhost_can_differ_from_what_others_inherit() {
        let text = "[vhost.\"__defaultVhost__\"]\nenabled = false\n[vhost.localhost]\n";
        let config = load_text("x.toml", text).unwrap().config;
        assert!(config.vhost("localhost").enabled && !config.vhost("other").enabled);
        assert_eq!(config.vhost_name("other"), DEFAULT_VHOST);
        assert_eq!(config.all_vhosts().count(), 2);
    }

    #[test]
    fn names_are_told_from_mistakes() {
        let why = |text: &str| load_text("x.toml", text).unwrap_err().to_string();
        assert_eq!(
            why("[vhost.paly]\n"),
            "x.toml:1: unknown setting vhost.paly; did you mean vhost.play?"
        );
        assert!(why("[vhost.hds]\n[vhost.\"a.com\".hds]\nenabled = true").contains("x.toml:3: "));
        assert!(why("[vhost.\"a.com\"]\nchunk_siz = 1").contains("did you mean vhost.chunk_size?"));
        assert!(load_text("x.toml", "[vhost.\"paly\"]\n").is_ok());
        assert!(why("[vhost.\"a/b\"]\n").contains("must be a host name"));
        assert!(why("[vhost]\nwhatever = 3").contains("unknown setting vhost.whatever"));
        assert!(why("[vhost.\"a.com\".x]\ny = 3").contains("unknown setting"));
    }
}
