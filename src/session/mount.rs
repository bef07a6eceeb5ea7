//! Mounts: which URL path is which stream, by a template such as `[vhost]/[app]/[stream].flv`.

use crate::config::{Config, Vhost};

/// A parsed template. `[vhost]` may only lead; the path begins at the first slash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Literal text before `[app]`, between `[app]` and `[stream]`, and after it.
    before: String,
    between: String,
    after: String,
}

impl Mount {
    /// Reads a template. `None` when it lacks `[app]` or `[stream]`, or has them in another order.
    pub fn parse(template: &str) -> Option<Mount> {
        let path = &template[template.find('/')?..];
        let (before, rest) = path.split_once("[app]")?;
        let (between, after) = rest.split_once("[stream]")?;
        let literal = |s: &str| !s.contains(['[', ']']);
        (literal(before) && between.starts_with('/') && literal(between) && literal(after))
            .then(|| Mount { before: before.into(), between: between.into(), after: after.into() })
    }

    /// App and stream of a path that the mount serves. The app may have several levels; the
    /// stream is what follows the last separator.
    pub fn matches<'p>(&self, path: &'p str) -> Option<(&'p str, &'p str)> {
        let middle = path.strip_prefix(&self.before)?.strip_suffix(self.after.as_str())?;
        let (app, stream) = middle.rsplit_once(self.between.as_str())?;
        (!app.is_empty() && !stream.is_empty()).then_some((app, stream))
    }
}

/// The vhost that serves `path` to who asks for the vhost `asked`, with app and stream: the one
/// of that name, else one whose mount is for every host (SRS: it begins with a slash).
pub fn find<'a>(
    config: &'a Config,
    asked: &str,
    path: &'a str,
) -> Option<(&'a str, &'a str, &'a str)> {
    let serves = |vhost: &'a Vhost| {
        let live = vhost.enabled && vhost.http_remux.enabled;
        live.then(|| Mount::parse(&vhost.http_remux.mount)?.matches(path)).flatten()
    };
    if let Some((app, stream)) = serves(config.vhost(asked)) {
        return Some((config.vhost_name(asked), app, stream));
    }
    let for_all = config.vhosts.iter().filter(|(_, v)| v.http_remux.mount.starts_with('/'));
    for_all.into_iter().find_map(|(name, vhost)| {
        let (app, stream) = serves(vhost)?;
        Some((name, app, stream))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load_text;

    #[test]
    fn vhosts_have_mounts_of_their_own() {
        let text = "[vhost.\"a.com\".http_remux]\nmount = \"[vhost]/a/[app]/[stream].flv\"\n\
            [vhost.\"b.com\".http_remux]\nmount = \"/b/[app]/[stream].flv\"\n\
            [vhost.\"c.com\"]\nenabled = false\n";
        let config = load_text("x.toml", text).unwrap().config;
        let found = |asked, path| find(&config, asked, path);
        assert_eq!(found("a.com", "/a/live/s.flv"), Some(("a.com", "live", "s")));
        assert_eq!(found("x.com", "/live/s.flv"), Some(("__defaultVhost__", "live", "s")));
        assert_eq!(found("c.com", "/live/s.flv"), None);
        // For every host, even one with a vhost of its own.
        assert_eq!(found("a.com", "/b/live/s.flv"), Some(("b.com", "live", "s")));
        assert_eq!(found("a.com", "/live/s.flv"), None);
    }

    #[test]
    fn templates() {
        let mount = Mount::parse("[vhost]/[app]/[stream].flv").unwrap();
        assert_eq!(mount.matches("/live/s.flv"), Some(("live", "s")));
        assert_eq!(mount.matches("/a/b/s.x.flv"), Some(("a/b", "s.x")));
        assert_eq!(mount.matches("/live/s.ts"), None);
        assert_eq!(mount.matches("/s.flv"), None);
        assert_eq!(mount.matches("/live/.flv"), None);
        let mount = Mount::parse("/x/[app]/y/[stream].live.flv").unwrap();
        assert_eq!(mount.matches("/x/live/y/s.live.flv"), Some(("live", "s")));
        assert_eq!(mount.matches("/live/s.live.flv"), None);
        for bad in ["", "[app]", "/[stream]/[app]", "/[app][stream]", "/[app]/[stream]/[x]"] {
            assert_eq!(Mount::parse(bad), None, "{bad}");
        }
    }
}
