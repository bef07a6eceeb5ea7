//! Where this server may call out to. One rule for every outgoing HTTP request: hooks, key sets,
//! heartbeat.
//!
//! What the operator wrote is called, on loopback and private networks, too: hooks usually live
//! there. Never called are link-local addresses and the addresses under which clouds hand out
//! credentials, whether a URL names them or a name resolves to them; redirects are not followed at
//! all, so no other server can choose the target.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// An address that is never called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} is {1}, which is never called")]
pub struct Forbidden(IpAddr, &'static str);

/// Metadata services that are not on link-local addresses.
const METADATA_V4: &[Ipv4Addr] =
    &[Ipv4Addr::new(100, 100, 100, 200), Ipv4Addr::new(192, 0, 0, 192)];
const METADATA_V6: &[Ipv6Addr] = &[
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254),
    Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254),
];

/// Sees whether an address may be called.
///
/// # Errors
/// It may not, and why.
pub fn check(addr: IpAddr) -> Result<(), Forbidden> {
    let why = match addr {
        IpAddr::V4(v4) => forbidden_v4(v4),
        IpAddr::V6(v6) => match inner_v4(v6) {
            Some(v4) => forbidden_v4(v4),
            None => forbidden_v6(v6),
        },
    };
    why.map_or(Ok(()), |why| Err(Forbidden(addr, why)))
}

fn forbidden_v4(addr: Ipv4Addr) -> Option<&'static str> {
    if addr.is_link_local() {
        Some("link-local")
    } else if METADATA_V4.contains(&addr) {
        Some("a metadata service")
    } else if addr.is_unspecified() || addr.octets()[0] == 0 {
        Some("no address of a server")
    } else if addr.is_multicast() || addr.is_broadcast() {
        Some("more than one server")
    } else {
        None
    }
}

fn forbidden_v6(addr: Ipv6Addr) -> Option<&'static str> {
    if addr.is_unicast_link_local() {
        Some("link-local")
    } else if METADATA_V6.contains(&addr) {
        Some("a metadata service")
    } else if addr.is_unspecified() {
        Some("no address of a server")
    } else if addr.is_multicast() {
        Some("more than one server")
    } else {
        None
    }
}

/// The IPv4 address that an IPv6 address leads to: mapped, compatible, NAT64, 6to4.
fn inner_v4(addr: Ipv6Addr) -> Option<Ipv4Addr> {
    let segments = addr.segments();
    let join = |high: u16, low: u16| Ipv4Addr::from(u32::from(high) << 16 | u32::from(low));
    match segments {
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => None,
        [0, 0, 0, 0, 0, 0xffff | 0, high, low] => Some(join(high, low)),
        [0x64, 0xff9b, 0 | 1, _, _, _, high, low] => Some(join(high, low)),
        [0x2002, high, low, ..] => Some(join(high, low)),
        _ => None,
    }
}

/// Resolves names to the addresses that may be called.
#[derive(Debug)]
pub struct Resolver;

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let name = name.as_str().to_string();
        Box::pin(async move {
            let mut why = None;
            let mut good: Vec<SocketAddr> = Vec::new();
            for addr in tokio::net::lookup_host((name.as_str(), 0)).await? {
                match check(addr.ip()) {
                    Ok(()) => good.push(addr),
                    Err(forbidden) => why = Some(forbidden),
                }
            }
            match (good.is_empty(), why) {
                (true, Some(forbidden)) => Err(forbidden.into()),
                _ => Ok(Box::new(good.into_iter()) as Addrs),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_never_called() {
        for bad in [
            "169.254.169.254",
            "169.254.0.1",
            "::ffff:169.254.169.254",
            "::169.254.169.254",
            "64:ff9b::a9fe:a9fe",
            "2002:a9fe:a9fe::1",
            "100.100.100.200",
            "192.0.0.192",
            "fe80::1",
            "fd00:ec2::254",
            "fd20:ce::254",
            "0.0.0.0",
            "0.1.2.3",
            "::",
            "224.0.0.1",
            "255.255.255.255",
            "ff02::1",
        ] {
            assert!(check(bad.parse().unwrap()).is_err(), "{bad}");
        }
        for good in [
            "127.0.0.1",
            "10.0.0.1",
            "192.168.1.1",
            "172.17.0.2",
            "8.8.8.8",
            "::1",
            "fd00::1",
            "2001:db8::1",
            "::ffff:10.0.0.1",
            "100.64.0.1",
        ] {
            assert!(check(good.parse().unwrap()).is_ok(), "{good}");
        }
    }
}
