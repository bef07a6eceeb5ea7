//! Mounts: which URL path is which stream, by a template such as `[vhost]/[app]/[stream].flv`.

use crate::config::{Config, HttpRemux, Vhost};
use crate::hub::Container;

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

/// What a path that is mounted names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mounted<'a> {
    /// The vhost.
    pub vhost: &'a str,
    /// The app.
    pub app: &'a str,
    /// The stream.
    pub stream: &'a str,
    /// What the stream is to be packed in.
    pub container: Container,
}

/// The container a template's suffix names. SRS: the suffix picks it.
fn container_of(template: &str) -> Option<Container> {
    let (_, suffix) = template.rsplit_once('.')?;
    Container::OVER_HTTP.into_iter().find(|container| container.suffix() == suffix)
}

/// App, stream and container of a path that a vhost serves: by its mount, or by its mount with the
/// suffix of another container that it serves as well.
fn serves<'p>(remux: &HttpRemux, path: &'p str) -> Option<(&'p str, &'p str, Container)> {
    let mount = Mount::parse(&remux.mount)?;
    let own = container_of(&remux.mount);
    let stem = match own {
        Some(_) => mount.after.rsplit_once('.').map_or("", |(stem, _)| stem),
        None => &mount.after,
    };
    let named = |suffix: &str| remux.formats.iter().any(|format| format == suffix);
    let others = Container::OVER_HTTP.into_iter().filter(|c| own != Some(*c) && named(c.suffix()));
    for container in others {
        let after = format!("{stem}.{}", container.suffix());
        if let Some((app, stream)) = (Mount { after, ..mount.clone() }).matches(path) {
            return Some((app, stream, container));
        }
    }
    let (app, stream) = mount.matches(path)?;
    Some((app, stream, own.unwrap_or(Container::Flv)))
}

/// Who serves `path` to who asks for the vhost `asked`: the vhost of that name, else one whose
/// mount is for every host (SRS: it begins with a slash).
pub fn find<'a>(config: &'a Config, asked: &str, path: &'a str) -> Option<Mounted<'a>> {
    let serves = |name: &'a str, vhost: &'a Vhost| {
        let live = vhost.enabled && vhost.http_remux.enabled;
        let (app, stream, container) = live.then(|| serves(&vhost.http_remux, path)).flatten()?;
        Some(Mounted { vhost: name, app, stream, container })
    };
    serves(config.vhost_name(asked), config.vhost(asked)).or_else(|| {
        let for_all = config.vhosts.iter().filter(|(_, v)| v.http_remux.mount.starts_with('/'));
        for_all.into_iter().find_map(|(name, vhost)| serves(name, vhost))
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
        let found = |asked, path| {
            let found = find(&config, asked, path)?;
            assert_eq!(found.container, Container::Flv);
            Some((found.vhost, found.app, found.stream))
        };
        assert_eq!(found("a.com", "/a/live/s.flv"), Some(("a.com", "live", "s")));
        assert_eq!(found("x.com", "/live/s.flv"), Some(("__defaultVhost__", "live", "s")));
        assert_eq!(found("c.com", "/live/s.flv"), None);
        // For every host, even one with a vhost of its own.
        assert_eq!(found("a.com", "/b/live/s.flv"), Some(("b.com", "live", "s")));
        assert_eq!(found("a.com", "/live/s.flv"), None);
    }

    #[test]
    fn suffixes_pick_containers() {
        let text = "[vhost.\"a.com\".http_remux]\nformats = []\n\
            [vhost.\"b.com\".http_remux]\nmount = \"[vhost]/[app]/[stream].live.ts\"\n\
            formats = [\"mp4\"]\n";
        let config = load_text("x.toml", text).unwrap().config;
        let found =
            |asked, path| find(&config, asked, path).map(|found| (found.stream, found.container));
        // As it comes, every container is served.
        for container in Container::OVER_HTTP {
            let path = format!("/live/s.{}", container.suffix());
            let found = find(&config, "x.com", &path).expect("mounted");
            assert_eq!((found.stream, found.container), ("s", container));
        }
        assert_eq!(found("a.com", "/live/s.flv"), Some(("s", Container::Flv)));
        assert_eq!(found("a.com", "/live/s.ts"), None);
        assert_eq!(found("b.com", "/live/s.live.ts"), Some(("s", Container::Ts)));
        assert_eq!(found("b.com", "/live/s.live.mp4"), Some(("s", Container::Fmp4)));
        assert_eq!(found("b.com", "/live/s.live.flv"), None);
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
