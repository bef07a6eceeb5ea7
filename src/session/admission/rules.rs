//! The rules that a shard applies by itself: addresses, pages, the default for publishers.

use std::net::IpAddr;

use crate::config::{Action, Refer, Security, Vhost};
use crate::hub::Reason;

/// `vhost.security`, in SRS's order: without any rule nobody passes; a matching `deny` refuses;
/// then, if there is any `allow` at all, one has to match.
pub(super) fn by_address(
    security: &Security,
    action: Action,
    peer: IpAddr,
) -> Result<(), &'static str> {
    if !security.enabled {
        return Ok(());
    }
    if security.allow.is_empty() && security.deny.is_empty() {
        return Err("vhost.security has no rule, so nobody may");
    }
    if security.deny.matches(action, peer) {
        return Err("denied by vhost.security.deny");
    }
    // SRS: an allow rule of either action closes both to whom no rule of their own lets in.
    let allowed = security.allow.is_empty() || security.allow.matches(action, peer);
    if allowed { Ok(()) } else { Err("not allowed by vhost.security.allow") }
}

/// `vhost.refer`: the page that holds the player or publisher has to be on a listed domain.
pub(super) fn by_page(refer: &Refer, action: Action, page: &str) -> Result<(), &'static str> {
    if !refer.enabled {
        return Ok(());
    }
    let own = match action {
        Action::Publish => &refer.publish,
        Action::Play => &refer.play,
    };
    for list in [&refer.all, own] {
        if !list.is_empty() && !list.iter().any(|domain| is_on(page, domain)) {
            return Err("the page is not on a domain of vhost.refer");
        }
    }
    Ok(())
}

/// True when the host of a page's URL is the domain or below it.
fn is_on(page: &str, domain: &str) -> bool {
    let rest = page.split_once("://").map_or(page, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    // What stands before an @ is a user name, which anybody can choose to look like a host.
    let host_port = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let host = match host_port.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host_port.split(':').next().unwrap_or_default(),
    };
    let (host, domain) = (host.as_bytes(), domain.trim_start_matches('.').as_bytes());
    let Some(at) = host.len().checked_sub(domain.len()) else { return false };
    !domain.is_empty()
        && host[at..].eq_ignore_ascii_case(domain)
        && (at == 0 || host[at - 1] == b'.')
}

/// Who may publish where nothing was said about it: programs of this machine and its networks.
pub fn is_near(addr: IpAddr) -> bool {
    match addr.to_canonical() {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_private() || v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unique_local() || v6.is_unicast_link_local(),
    }
}

/// True when a vhost says in any way who may publish; then the default does not apply.
pub fn has_publish_rule(vhost: &Vhost) -> bool {
    let security = &vhost.security;
    // Rules that only deny to play say nothing about publishers.
    let by_address = security.enabled
        && !(security.allow.is_empty()
            && security.deny.is_about(Action::Play)
            && !security.deny.is_about(Action::Publish));
    vhost.publish.open
        || by_address
        || vhost.token.publish
        || (vhost.http_hooks.enabled && !vhost.http_hooks.on_publish.is_empty())
}

/// The default for publishers.
pub(super) fn by_default(vhost: &Vhost, action: Action, peer: IpAddr) -> Result<(), &'static str> {
    if action == Action::Play || has_publish_rule(vhost) || is_near(peer) {
        return Ok(());
    }
    Err("no rule says who may publish, so only loopback and private addresses may: see \
         vhost.publish.open")
}

/// All of them. The error is what to count and what to say.
pub(super) fn check(
    vhost: &Vhost,
    action: Action,
    peer: IpAddr,
    page: &str,
) -> Result<(), (Reason, &'static str)> {
    by_page(&vhost.refer, action, page).map_err(|why| (Reason::ReferDenied, why))?;
    by_address(&vhost.security, action, peer).map_err(|why| (Reason::AddressDenied, why))?;
    by_default(vhost, action, peer).map_err(|why| (Reason::PublishClosed, why))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::AddressRules;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn security(allow: &[&str], deny: &[&str]) -> Security {
        let (allow, deny) = (AddressRules::read(allow), AddressRules::read(deny));
        Security { enabled: true, allow, deny }
    }

    #[test]
    fn the_order_of_address_rules_is_that_of_srs() {
        use Action::{Play, Publish};
        let off = Security { enabled: false, ..security(&[], &["play all"]) };
        assert!(by_address(&off, Play, ip("8.8.8.8")).is_ok());
        let none = security(&[], &[]);
        assert!(by_address(&none, Play, ip("127.0.0.1")).is_err());
        let deny = security(&[], &["publish all", "play 10.0.0.0/8"]);
        assert!(by_address(&deny, Publish, ip("127.0.0.1")).is_err());
        assert!(by_address(&deny, Play, ip("10.1.1.1")).is_err());
        assert!(by_address(&deny, Play, ip("11.1.1.1")).is_ok(), "only deny rules: the rest may");
        let both = security(&["publish 10.0.0.0/8", "play all"], &["publish 10.6.6.6"]);
        assert!(by_address(&both, Publish, ip("10.1.1.1")).is_ok());
        assert!(by_address(&both, Publish, ip("10.6.6.6")).is_err(), "deny goes before allow");
        assert!(by_address(&both, Publish, ip("11.1.1.1")).is_err());
        assert!(by_address(&both, Play, ip("11.1.1.1")).is_ok());
        // SRS: an allow rule for one action closes the other one as well.
        let one = security(&["play all"], &[]);
        assert!(by_address(&one, Publish, ip("127.0.0.1")).is_err());
    }

    #[test]
    fn pages_count_by_their_host() {
        for (page, domain, on) in [
            ("http://example.com/x", "example.com", true),
            ("https://www.EXAMPLE.com:8080/x?y#z", "example.com", true),
            ("example.com", "example.com", true),
            ("http://example.com", ".example.com", true),
            ("http://evilexample.com/", "example.com", false),
            ("http://example.com.evil.net/", "example.com", false),
            ("http://evil.net/example.com", "example.com", false),
            ("http://evil.net?example.com", "example.com", false),
            ("http://example.com@evil.net/", "example.com", false),
            ("http://[::1]:80/x", "::1", true),
            ("", "example.com", false),
            ("http://example.com/", "", false),
        ] {
            assert_eq!(is_on(page, domain), on, "{page} on {domain}");
        }
        let list = |domains: &[&str]| domains.iter().map(|d| d.to_string()).collect();
        let refer = Refer {
            enabled: true,
            all: list(&["a.com", "b.com"]),
            publish: list(&["a.com"]),
            play: list(&[]),
        };
        assert!(by_page(&refer, Action::Publish, "http://a.com/").is_ok());
        assert!(by_page(&refer, Action::Publish, "http://b.com/").is_err());
        assert!(by_page(&refer, Action::Play, "http://b.com/").is_ok());
        assert!(by_page(&refer, Action::Play, "http://c.com/").is_err());
        assert!(by_page(&refer, Action::Play, "").is_err());
        let off = Refer { enabled: false, ..refer };
        assert!(by_page(&off, Action::Play, "").is_ok());
    }

    #[test]
    fn strangers_publish_only_where_a_rule_says_so() {
        let mut vhost = Vhost::default();
        for near in [
            "127.0.0.1",
            "10.0.0.1",
            "172.16.0.1",
            "192.168.0.1",
            "::1",
            "fd00::1",
            "fe80::1",
            "169.254.3.4",
            "::ffff:10.0.0.1",
        ] {
            assert!(by_default(&vhost, Action::Publish, ip(near)).is_ok(), "{near}");
        }
        for far in ["8.8.8.8", "172.32.0.1", "2001:db8::1", "::ffff:8.8.8.8", "100.64.0.1"] {
            assert!(by_default(&vhost, Action::Publish, ip(far)).is_err(), "{far}");
            assert!(by_default(&vhost, Action::Play, ip(far)).is_ok(), "{far}");
        }
        vhost.publish.open = true;
        assert!(by_default(&vhost, Action::Publish, ip("8.8.8.8")).is_ok());
        vhost.publish.open = false;
        // A hook for something else does not guard publishers.
        vhost.http_hooks.enabled = true;
        vhost.http_hooks.on_play = vec!["http://127.0.0.1/".into()];
        assert!(!has_publish_rule(&vhost));
        vhost.http_hooks.on_publish = vec!["http://127.0.0.1/".into()];
        assert!(has_publish_rule(&vhost));
        vhost.http_hooks.enabled = false;
        assert!(!has_publish_rule(&vhost));
        vhost.token.publish = true;
        assert!(has_publish_rule(&vhost));
        vhost.token.publish = false;
        vhost.security = security(&[], &["play 10.0.0.0/8"]);
        assert!(!has_publish_rule(&vhost), "nothing is said about publishers");
        vhost.security = security(&[], &["publish 10.0.0.0/8"]);
        assert!(has_publish_rule(&vhost));
        vhost.security = security(&["play all"], &[]);
        assert!(has_publish_rule(&vhost));
    }
}
