//! Streams that are variants of one (`vhost.group`).

use std::sync::Arc;

use super::Env;
use crate::config::Vhost;
use crate::hub::SegmentList;
use crate::media::name::StreamName;
use crate::remux::Stream;

/// A variant that can be played now.
pub struct Variant {
    /// The stream.
    pub stream: Arc<Stream>,
    /// Its segments.
    pub list: Arc<SegmentList>,
}

/// The group that a stream of that name belongs to.
pub fn of<'n>(vhost: &Vhost, name: &'n str) -> Option<&'n str> {
    let group = &vhost.group;
    if !group.enabled {
        return None;
    }
    group.labels.iter().find_map(|label| {
        let with_label = group.pattern.replace("[label]", label);
        let (before, after) = with_label.split_once("[group]")?;
        let group = name.strip_prefix(before)?.strip_suffix(after)?;
        Some(group).filter(|group| !group.is_empty())
    })
}

/// The variants of a group that there are now, in the order of their labels.
pub fn variants(env: &Env<'_>, name: &StreamName) -> Vec<Variant> {
    let group = &env.config.vhost(name.vhost()).group;
    if !group.enabled {
        return Vec::new();
    }
    let all = group.labels.iter().filter_map(|label| {
        let own = group.pattern.replace("[label]", label).replace("[group]", name.stream());
        let own = StreamName::new(name.vhost(), name.app(), &own).ok()?;
        let stream = env.streams.find(&own).filter(|stream| stream.is_active())?;
        let list = stream.segments()?.list();
        list.has_begun().then_some(Variant { stream, list })
    });
    all.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_variants() {
        let mut vhost = Vhost::default();
        vhost.group.enabled = true;
        vhost.group.labels = vec!["1080p".into(), "p".into()];
        assert_eq!(of(&vhost, "tv_1080p"), Some("tv"));
        assert_eq!(of(&vhost, "a_b_p"), Some("a_b"));
        for other in ["tv", "tv_720p", "_p", "tv_1080px"] {
            assert_eq!(of(&vhost, other), None, "{other}");
        }
        vhost.group.pattern = "v-[label]-of-[group]".into();
        assert_eq!(of(&vhost, "v-p-of-x"), Some("x"));
        vhost.group.enabled = false;
        assert_eq!(of(&vhost, "v-p-of-x"), None);
    }
}
