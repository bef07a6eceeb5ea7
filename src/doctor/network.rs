//! What surrounds the server: the addresses that clients reach it by, and the servers it calls.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, ToSocketAddrs as _};
use std::rc::Rc;
use std::sync::mpsc;
use std::time::Duration;

use super::{Finding, Status};
use crate::config::Config;
use crate::control::client::{Call, CallError, HttpClient};

/// Longest wait for one answer from elsewhere.
const WAIT: Duration = Duration::from_secs(3);
/// Most servers that are tried; the others are counted.
const SERVERS_MAX: usize = 64;
/// Bytes of an answer that are read; more are as good.
const ANSWER_MAX: usize = 64 << 10;

/// Who can reach an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reach {
    /// This machine only.
    Machine,
    /// The same network segment only.
    Link,
    /// The networks of one owner.
    Private,
    /// Customers of one provider, behind its NAT.
    Provider,
    /// Everybody.
    Public,
}

impl Reach {
    fn of(addr: IpAddr) -> Reach {
        match addr.to_canonical() {
            addr if addr.is_loopback() || addr.is_unspecified() => Reach::Machine,
            IpAddr::V4(v4) if v4.is_link_local() => Reach::Link,
            IpAddr::V4(v4) if v4.is_private() => Reach::Private,
            IpAddr::V4(v4) if v4.octets()[0] == 100 && v4.octets()[1] & 0xc0 == 64 => {
                Reach::Provider
            }
            IpAddr::V6(v6) if v6.is_unicast_link_local() => Reach::Link,
            IpAddr::V6(v6) if v6.is_unique_local() => Reach::Private,
            _ => Reach::Public,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Reach::Machine => "this machine only",
            Reach::Link => "link-local",
            Reach::Private => "private",
            Reach::Provider => "behind the provider's NAT",
            Reach::Public => "public",
        }
    }
}

/// The addresses of this machine's interfaces, without loopback and link-local ones.
pub(super) fn local_addresses() -> Vec<IpAddr> {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let mut all = v4_addresses(&read("/proc/net/fib_trie"));
    all.extend(v6_addresses(&read("/proc/net/if_inet6")));
    all.retain(|addr| !matches!(Reach::of(*addr), Reach::Machine | Reach::Link));
    all
}

/// The addresses that the routing table has as local: an address, then a line that says so.
fn v4_addresses(trie: &str) -> Vec<IpAddr> {
    let mut found = Vec::new();
    let mut last: Option<Ipv4Addr> = None;
    for line in trie.lines() {
        let line = line.trim_start_matches([' ', '|', '+', '-']);
        if let Some(addr) = line.split_whitespace().next().and_then(|word| word.parse().ok()) {
            last = Some(addr);
        } else if line.starts_with("/32 host LOCAL")
            && let Some(addr) = last.map(IpAddr::from)
            && !found.contains(&addr)
        {
            found.push(addr);
        }
    }
    found
}

fn v6_addresses(list: &str) -> Vec<IpAddr> {
    let address = |line: &str| {
        let bits = u128::from_str_radix(line.split_whitespace().next()?, 16).ok()?;
        Some(IpAddr::V6(Ipv6Addr::from(bits)))
    };
    list.lines().filter_map(address).collect()
}

/// Which addresses clients can use, and whether that is all of them.
pub(super) fn addresses(local: &[IpAddr], config: &Config) -> Finding {
    let check = "addresses";
    let shown: Vec<_> =
        local.iter().map(|addr| format!("{addr} ({})", Reach::of(*addr).word())).collect();
    let found = match shown.is_empty() {
        true => "none but loopback".into(),
        false => shown.join(", "),
    };
    let mut finding = Finding::ok(check, found);
    if !local.iter().any(|addr| Reach::of(*addr) == Reach::Public) {
        finding.meaning = format!(
            "clients from the internet reach it only when the router or cloud in front forwards \
             port {}; `ringcast doctor --address NAME` tries a name or address from outside",
            ports(config)
        );
    }
    finding
}

fn ports(config: &Config) -> String {
    let http = config.http_server.listen.iter().filter(|_| config.http_server.enabled);
    let https = config.http_server.https.listen.iter().filter(|_| config.serves_https());
    let all = config.listen.iter().chain(http).chain(https).map(|addr| addr.port());
    let mut ports: Vec<String> = all.filter(|port| *port != 0).map(|p| p.to_string()).collect();
    ports.dedup();
    ports.join(", ")
}

/// The name or address that clients are told to use: does it lead here?
pub(super) fn announced(name: &str, local: &[IpAddr], config: &Config) -> Finding {
    let check = "announced address";
    let warn = |found: String, meaning: &str, fix: String| {
        Finding::bad(check, Status::Warn, found, meaning, fix)
    };
    let resolved = match resolve(name) {
        Ok(resolved) => resolved,
        Err(why) => {
            return Finding::bad(
                check,
                Status::Fail,
                format!("{name} cannot be resolved: {why}"),
                "no client finds the server by this name",
                "set its DNS record, or give an address",
            );
        }
    };
    let shown: Vec<_> =
        resolved.iter().map(|addr| format!("{addr} ({})", Reach::of(*addr).word())).collect();
    let found = match name.parse::<IpAddr>().is_ok() {
        true => shown.join(", "),
        false => format!("{name} is {}", shown.join(", ")),
    };
    let is_here = |addr: &&IpAddr| local.contains(addr) || addr.is_loopback();
    if let Some(near) = resolved.iter().find(|addr| Reach::of(**addr) != Reach::Public) {
        let meaning = format!("clients elsewhere cannot reach {near}");
        return warn(
            found,
            &meaning,
            "announce a public address, or serve this network only".into(),
        );
    }
    if resolved.iter().all(|addr| is_here(&addr)) {
        return Finding::ok(check, format!("{found}, of this machine"));
    }
    let port = config.listen.first().map_or(1935, |addr| addr.port());
    let tried = resolved.iter().find(|addr| !is_here(addr)).copied();
    let tried = tried.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    match TcpStream::connect_timeout(&SocketAddr::new(tried, port), WAIT) {
        Ok(_) => Finding::ok(check, format!("{found}, behind NAT; port {port} answers")),
        Err(why) => warn(
            format!("{found}, behind NAT; port {port}: {why}"),
            "nothing answers there from here: the server does not run, its port is not forwarded, \
             or the router does not lead its own network back in",
            format!("forward port {} to this machine, then try from elsewhere", ports(config)),
        ),
    }
}

/// The addresses of a name, in bounded time: the system's resolver has its own idea of it.
fn resolve(name: &str) -> Result<Vec<IpAddr>, String> {
    let (tell, told) = mpsc::channel();
    let name = name.trim_matches(['[', ']']).to_string();
    std::thread::spawn(move || {
        let found = (name.as_str(), 0).to_socket_addrs();
        let _ = tell.send(found.map(|all| all.map(|addr| addr.ip()).collect::<Vec<_>>()));
    });
    match told.recv_timeout(WAIT) {
        Ok(Ok(found)) if found.is_empty() => Err("it has no address".into()),
        Ok(found) => found.map_err(|why| why.to_string()),
        Err(_) => Err(format!("no answer within {WAIT:?}")),
    }
}

/// A server that is called, and what for.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Server {
    /// `https://host:port/`: a call to it means nothing to anybody.
    origin: String,
    tls_verify: bool,
}

/// The servers that the configuration has called, with the setting that names each first.
fn servers(config: &Config) -> BTreeMap<Server, String> {
    let mut found = BTreeMap::new();
    let mut add = |setting: String, url: &str, tls_verify: bool| {
        let Some((scheme, rest)) = url.split_once("://") else { return };
        let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
        // Names and passwords in a URL are not for a look around.
        let host = host.rsplit('@').next().unwrap_or_default();
        let origin = format!("{scheme}://{host}/");
        found.entry(Server { origin, tls_verify }).or_insert(setting);
    };
    for (name, vhost) in config.all_vhosts() {
        let hooks = &vhost.http_hooks;
        let lists = [
            ("on_connect", &hooks.on_connect),
            ("on_close", &hooks.on_close),
            ("on_publish", &hooks.on_publish),
            ("on_unpublish", &hooks.on_unpublish),
            ("on_play", &hooks.on_play),
            ("on_stop", &hooks.on_stop),
        ];
        for (hook, urls) in lists.iter().filter(|_| vhost.enabled && hooks.enabled) {
            for url in urls.iter() {
                add(format!("{name}: http_hooks.{hook}"), url, hooks.tls_verify);
            }
        }
        if (vhost.token.publish || vhost.token.play) && vhost.enabled {
            add(format!("{name}: token.jwks_url"), &vhost.token.jwks_url, true);
        }
    }
    if config.heartbeat.enabled {
        add("heartbeat.url".into(), &config.heartbeat.url, true);
    }
    found
}

/// Tries every server that would be called, all at once, by asking for its root.
pub(super) fn calls(config: &Config) -> Vec<Finding> {
    let servers = servers(config);
    if servers.is_empty() {
        return Vec::new();
    }
    let more = servers.len().saturating_sub(SERVERS_MAX);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(why) => {
            let found = format!("cannot be tried: {why}");
            return vec![Finding::bad("calls", Status::Warn, found, "", "")];
        }
    };
    let tasks = tokio::task::LocalSet::new();
    let mut findings: Vec<Finding> = tasks.block_on(&runtime, async {
        let client = Rc::new(HttpClient::default());
        let mut running = Vec::new();
        for (server, setting) in servers.into_iter().take(SERVERS_MAX) {
            let client = client.clone();
            running.push(tokio::task::spawn_local(async move {
                let call = Call {
                    url: &server.origin,
                    json: None,
                    timeout: WAIT,
                    answer_max: ANSWER_MAX,
                    tls_verify: server.tls_verify,
                };
                let outcome = client.call(call).await.map(|answer| answer.status);
                called(&server.origin, &setting, outcome)
            }));
        }
        let mut findings = Vec::new();
        for task in running {
            findings.extend(task.await.ok());
        }
        findings
    });
    if more > 0 {
        let found = format!("{more} more servers were not tried");
        findings.push(Finding::bad("calls", Status::Warn, found, "", ""));
    }
    findings
}

fn called(origin: &str, setting: &str, outcome: Result<u16, CallError>) -> Finding {
    let check = "calls";
    let why = match outcome {
        // That it has no such page does not matter; it speaks HTTP.
        Ok(status) => {
            return Finding::ok(check, format!("{origin} answers ({status}; {setting})"));
        }
        Err(CallError::TooLong(_)) => {
            return Finding::ok(check, format!("{origin} answers ({setting})"));
        }
        Err(why) => why,
    };
    let (status, meaning) = match setting {
        "heartbeat.url" => (Status::Warn, "there are no heartbeats"),
        _ if setting.ends_with("jwks_url") => (Status::Fail, "clients with a JWT are refused"),
        _ => (Status::Fail, "clients are refused, unless http_hooks.accept_on_failure is set"),
    };
    let fix = match why {
        CallError::Forbidden(_) => {
            "link-local and metadata addresses are never called: use another"
        }
        _ => "start that server, or mend its address, port or certificate",
    };
    Finding::bad(check, status, format!("{origin}: {why} ({setting})"), meaning, fix)
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;

    use super::*;
    use crate::config::load_text;

    #[test]
    fn addresses_are_read_from_the_kernels_lists() {
        let trie = "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 0.0.0.0\n        /0 universe UNICAST\n\
            Local:\n     |-- 127.0.0.1\n        /32 host LOCAL\n     |-- 192.168.7.0\n        \
            /24 link UNICAST\n     |-- 192.168.7.20\n        /32 host LOCAL\n     \
            |-- 192.168.7.20\n        /32 host LOCAL\n";
        let want: Vec<IpAddr> = ["127.0.0.1", "192.168.7.20"].map(|a| a.parse().unwrap()).to_vec();
        assert_eq!(v4_addresses(trie), want);
        let list = "20010db8000000000000000000000001 02 40 00 80     eth0\nbroken\n";
        assert_eq!(v6_addresses(list), ["2001:db8::1".parse::<IpAddr>().unwrap()]);
    }

    #[test]
    fn addresses_have_a_reach() {
        for (addr, reach) in [
            ("127.0.0.1", Reach::Machine),
            ("169.254.1.1", Reach::Link),
            ("172.16.0.1", Reach::Private),
            ("100.64.0.1", Reach::Provider),
            ("100.128.0.1", Reach::Public),
            ("203.0.113.9", Reach::Public),
            ("fe80::1", Reach::Link),
            ("fd00::1", Reach::Private),
            ("::ffff:10.0.0.1", Reach::Private),
            ("2001:db8::1", Reach::Public),
        ] {
            assert_eq!(Reach::of(addr.parse().unwrap()), reach, "{addr}");
        }
    }

    #[test]
    fn a_machine_without_a_public_address_needs_a_forwarded_port() {
        let config = Config::default();
        let home = addresses(&["192.168.7.20".parse().unwrap()], &config);
        assert!(
            home.found.contains("(private)") && home.meaning.contains("1935, 8080"),
            "{home:?}"
        );
        let public: IpAddr = "203.0.113.9".parse().unwrap();
        assert!(addresses(&[public], &config).meaning.is_empty());
        let of = |name: &str| announced(name, &[public], &config);
        assert_eq!(of("203.0.113.9").status, Status::Ok);
        let private = of("10.1.2.3");
        assert!(private.status == Status::Warn && private.meaning.contains("10.1.2.3"));
        assert_eq!(of("no-such-name.invalid").status, Status::Fail);
    }

    #[test]
    fn every_server_that_is_called_is_tried_once() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let good = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming().take(1) {
                let mut stream = stream.unwrap();
                let mut head = [0; 512];
                let n = stream.read(&mut head).unwrap();
                assert!(head[..n].starts_with(b"GET / HTTP/1.1"));
                stream.write_all(b"HTTP/1.1 404 No\r\ncontent-length: 0\r\n\r\n").unwrap();
            }
        });
        let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let text = format!(
            "[vhost.http_hooks]\nenabled = true\non_play = [\"http://{good}/a?token=1\"]\n\
             on_stop = [\"http://{good}/b\", \"http://{closed}/c\"]\n\
             on_publish = [\"http://169.254.169.254/latest\"]\n"
        );
        let config = load_text("x.toml", &text).unwrap().config;
        let mut findings = calls(&config);
        findings.sort_by_key(|finding| finding.status);
        assert_eq!(findings.len(), 3, "{findings:?}");
        assert_eq!(findings[0].status, Status::Ok);
        assert!(findings[0].found.contains("answers (404; __defaultVhost__: http_hooks.on_play"));
        assert!(findings[1..].iter().all(|finding| finding.status == Status::Fail));
        assert!(findings[1..].iter().any(|finding| finding.fix.contains("never called")));
        assert!(findings.iter().all(|finding| !finding.found.contains("token")));
        assert!(calls(&Config::default()).is_empty());
    }
}
