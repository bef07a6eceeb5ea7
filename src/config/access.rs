//! Who may do what from where: address ranges and the rules of `vhost.security`.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// A range of addresses: `10.0.0.0/8`, `2001:db8::/32`, or one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    /// The address as written; bits behind the prefix do not count.
    addr: IpAddr,
    prefix: u8,
}

impl Network {
    /// True when the address lies in the range. An IPv4 address that comes in IPv6 clothes is the
    /// IPv4 address.
    pub fn contains(&self, addr: IpAddr) -> bool {
        match (self.addr, addr.to_canonical()) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                let shift = 32 - u32::from(self.prefix);
                let top = |v: u32| v.checked_shr(shift).unwrap_or(0);
                top(own.to_bits()) == top(other.to_bits())
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                let shift = 128 - u32::from(self.prefix);
                let top = |v: u128| v.checked_shr(shift).unwrap_or(0);
                top(own.to_bits()) == top(other.to_bits())
            }
            _ => false,
        }
    }
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (addr, prefix) = match text.split_once('/') {
            Some((addr, prefix)) => (addr, Some(prefix)),
            None => (text, None),
        };
        let wrong = || format!("{text:?} is not an address or range such as \"10.0.0.0/8\"");
        let addr: IpAddr = addr.parse().map_err(|_| wrong())?;
        let most = if addr.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            // A sign would pass the parser of numbers.
            Some(prefix) if prefix.bytes().all(|b| b.is_ascii_digit()) => {
                prefix.parse().ok().filter(|p| *p <= most).ok_or_else(wrong)?
            }
            Some(_) => return Err(wrong()),
            None => most,
        };
        Ok(Network { addr, prefix })
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let most = if self.addr.is_ipv4() { 32 } else { 128 };
        match self.prefix == most {
            true => write!(f, "{}", self.addr),
            false => write!(f, "{}/{}", self.addr, self.prefix),
        }
    }
}

/// What a client wants to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Publish a stream.
    Publish,
    /// Play a stream.
    Play,
}

impl Action {
    /// The word for it in configurations, tokens and logs.
    pub fn name(self) -> &'static str {
        match self {
            Action::Publish => "publish",
            Action::Play => "play",
        }
    }
}

/// One entry of `security.allow` or `security.deny`: `publish 10.0.0.0/8`, `play all`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressRule {
    /// What it is about.
    pub action: Action,
    /// From where; `None` is `all`.
    pub from: Option<Network>,
}

impl AddressRule {
    /// True when the rule is about this action from this address.
    pub fn matches(&self, action: Action, addr: IpAddr) -> bool {
        self.action == action && self.from.is_none_or(|network| network.contains(addr))
    }
}

impl FromStr for AddressRule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut words = text.split_ascii_whitespace();
        let (action, from) = match (words.next(), words.next(), words.next()) {
            (Some(action), Some(from), None) => (action, from),
            _ => return Err(format!("{text:?} is not a rule such as \"publish 10.0.0.0/8\"")),
        };
        let action = match action {
            "publish" => Action::Publish,
            "play" => Action::Play,
            other => return Err(format!("{other:?} in {text:?} is neither publish nor play")),
        };
        let from = match from {
            "all" => None,
            network => Some(network.parse()?),
        };
        Ok(AddressRule { action, from })
    }
}

impl fmt::Display for AddressRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.from {
            None => write!(f, "{} all", self.action.name()),
            Some(network) => write!(f, "{} {network}", self.action.name()),
        }
    }
}

/// The rules of one setting, in their order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AddressRules {
    rules: Vec<AddressRule>,
    /// What could not be read; a configuration with any is refused.
    wrong: Vec<(String, String)>,
}

impl AddressRules {
    /// Reads rules, one per text.
    pub fn read<T: AsRef<str>>(texts: impl IntoIterator<Item = T>) -> AddressRules {
        let mut out = AddressRules::default();
        for text in texts {
            match text.as_ref().parse() {
                Ok(rule) => out.rules.push(rule),
                Err(why) => out.wrong.push((text.as_ref().to_string(), why)),
            }
        }
        out
    }

    /// True when there is no rule.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// True when there is a rule about this action.
    pub fn is_about(&self, action: Action) -> bool {
        self.rules.iter().any(|rule| rule.action == action)
    }

    /// True when a rule is about this action from this address.
    pub fn matches(&self, action: Action, addr: IpAddr) -> bool {
        self.rules.iter().any(|rule| rule.matches(action, addr))
    }

    /// The first thing that is wrong.
    pub(super) fn error(&self) -> Option<&str> {
        self.wrong.first().map(|(_, why)| why.as_str())
    }

    pub(super) fn texts(&self) -> Vec<String> {
        let wrong = self.wrong.iter().map(|(text, _)| text.clone());
        self.rules.iter().map(ToString::to_string).chain(wrong).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_contain_what_their_prefix_says() {
        let contains = |network: &str, addr: &str| {
            network.parse::<Network>().unwrap().contains(addr.parse().unwrap())
        };
        assert!(contains("10.0.0.0/8", "10.255.1.2"));
        assert!(!contains("10.0.0.0/8", "11.0.0.0"));
        assert!(contains("10.1.2.3/8", "10.9.9.9"), "bits behind the prefix do not count");
        assert!(contains("0.0.0.0/0", "8.8.8.8"));
        assert!(!contains("0.0.0.0/0", "::1"));
        assert!(contains("192.168.1.7", "192.168.1.7"));
        assert!(!contains("192.168.1.7", "192.168.1.8"));
        assert!(contains("127.0.0.1/32", "::ffff:127.0.0.1"));
        assert!(contains("2001:db8::/32", "2001:db8:1::9"));
        assert!(!contains("2001:db8::/32", "2001:db9::"));
        assert!(contains("::/0", "fe80::1"));
        assert!(contains("192.168.1.128/25", "192.168.1.200"));
        assert!(!contains("192.168.1.128/25", "192.168.1.100"));
    }

    #[test]
    fn rules_read_and_write_alike() {
        for text in ["publish all", "play 10.0.0.0/8", "publish 127.0.0.1", "play 2001:db8::/32"] {
            assert_eq!(text.parse::<AddressRule>().unwrap().to_string(), text);
        }
        for bad in [
            "",
            "publish",
            "all",
            "record all",
            "publish all now",
            "publish 10.0.0/8",
            "publish 10.0.0.0/33",
            "publish 10.0.0.0/-1",
            "publish 10.0.0.0/+8",
            "publish 10.0.0.0/",
            "publish example.com",
        ] {
            assert!(bad.parse::<AddressRule>().is_err(), "{bad}");
        }
        let rules = AddressRules::read(["play all", "publish everybody"]);
        assert!(rules.error().is_some_and(|why| why.contains("everybody")));
        assert_eq!(rules.texts(), ["play all", "publish everybody"]);
    }
}
