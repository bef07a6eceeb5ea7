//! "Did you mean": the known name that is nearest to a mistyped one.

/// The candidate nearest to `name`, when there is one near enough to be meant. A candidate whose
/// last part is the name's last part wins over one that merely looks alike.
pub(super) fn nearest<'a>(
    name: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let last = |path: &str| path.rsplit('.').next().unwrap_or_default().to_string();
    let wanted = last(name);
    let score = |candidate: &str| {
        let whole = strsim::osa_distance(name, candidate);
        let part = strsim::osa_distance(&wanted, &last(candidate));
        let near = whole <= 1.max(name.len() / 5) || part <= 1.max(wanted.len() / 5);
        near.then_some((part.min(whole), whole))
    };
    let scored = candidates.into_iter().filter_map(|c| Some((score(c)?, c)));
    scored.min().map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn finds_what_was_meant() {
        let paths = ["listen", "http_server.listen", "vhost.play.gop_cache", "shards", "log.file"];
        let near = |name| nearest(name, paths);
        assert_eq!(near("shard"), Some("shards"));
        assert_eq!(near("gop_cache"), Some("vhost.play.gop_cache"));
        assert_eq!(near("vhost.gop_cahce"), Some("vhost.play.gop_cache"));
        assert_eq!(near("http_serve.listen"), Some("http_server.listen"));
        assert_eq!(near("lisen"), Some("listen"));
        assert_eq!(near("quite_something_else"), None);
        assert_eq!(near("http_server.lisen"), Some("http_server.listen"));
    }
}
