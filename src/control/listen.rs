//! Listening sockets: bound before any thread starts, so that a mistake is reported at once and
//! root can be given up; or handed over by a service manager that has bound them already.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::net::{AddressFamily, SocketType, getsockname, sockopt};
use uring::ListenOptions;

use crate::config::{Config, DEFAULT_VHOST, ListenAddr};
use crate::limits;
use crate::shard::Service;

use super::api::Port;
use super::api::server::Door;
use super::front;
use super::serve::{ServeError, shard_count};
use super::tls::{File, Identity};

/// Every socket of the server.
#[derive(Debug)]
pub struct Listeners {
    /// By shard: its sockets with what is spoken there.
    pub shards: Vec<Vec<(OwnedFd, Service)>>,
    /// The API's and the exporter's.
    pub doors: Vec<Door>,
    /// Those of HTTPS for HTTP streaming.
    pub front: Option<front::Sockets>,
    /// Where the shards listen, for people.
    pub addresses: Vec<(SocketAddr, Service)>,
}

impl Listeners {
    /// Binds what the configuration names, as the first thing that is done.
    /// A port that a service manager has bound is taken from it.
    ///
    /// # Errors
    /// An address cannot be bound; a socket was handed over that no setting names.
    pub fn bind(config: &Config) -> Result<Listeners, ServeError> {
        Listeners::bind_for(config, shard_count(config))
    }

    fn bind_for(config: &Config, shards: usize) -> Result<Listeners, ServeError> {
        let mut inherited = inherited(uring::take_inherited())?;
        let mut out = Listeners {
            shards: (0..shards).map(|_| Vec::new()).collect(),
            doors: Vec::new(),
            front: None,
            addresses: Vec::new(),
        };
        let options = listen_options(config);
        let http: &[ListenAddr] =
            if config.http_server.enabled { &config.http_server.listen } else { &[] };
        let rtmp = &config.listen[..];
        for (setting, service, list) in
            [("listen", Service::Rtmp, rtmp), ("http_server.listen", Service::Http, http)]
        {
            for listen in list {
                let handed = take(&mut inherited, listen);
                if handed.is_empty() {
                    out.bind_for_shards(listen, setting, service, &options)?;
                }
                for (addr, socket) in handed {
                    out.share(socket, addr, service)?;
                }
            }
        }
        if config.serves_https() {
            out.bind_front(config, &mut inherited, &options)?;
        }
        out.bind_doors(config, &mut inherited)?;
        match inherited.first() {
            Some((addr, _)) => Err(ServeError::Inherited(*addr)),
            None => Ok(out),
        }
    }

    /// The ports of the API. Where it shares one with HTTP streaming it needs none of its own.
    fn bind_doors(
        &mut self,
        config: &Config,
        inherited: &mut Vec<(SocketAddr, OwnedFd)>,
    ) -> Result<(), ServeError> {
        let (api, exporter) = (&config.http_api, &config.exporter);
        // Where it shares the port of HTTPS, the front is there already.
        let https = config.serves_api_https() && !config.shares_https_port();
        let cert = File::new(&api.https.cert, "http_api.https.cert");
        let key = File::new(&api.https.key, "http_api.https.key");
        let tls = https.then(|| Identity::load(cert, key)).transpose()?.map(Arc::new);
        let own = api.enabled && !config.shares_http_port();
        for (setting, enabled, list, port, tls) in [
            ("http_api.listen", own, &api.listen, Port::Api, None),
            ("http_api.https.listen", https, &api.https.listen, Port::Api, tls),
            ("exporter.listen", exporter.enabled, &exporter.listen, Port::Exporter, None),
        ] {
            for listen in list.iter().filter(|_| enabled) {
                let handed = take(inherited, listen);
                let mut sockets: Vec<_> =
                    handed.into_iter().map(|(_, socket)| TcpListener::from(socket)).collect();
                if sockets.is_empty() {
                    sockets.push(bind_door(listen, setting)?);
                }
                for listener in sockets {
                    let failed = |why| ServeError::System("sockets", why);
                    listener.set_nonblocking(true).map_err(failed)?;
                    self.doors.push(Door { port, listener, tls: tls.clone() });
                }
            }
        }
        Ok(())
    }

    /// The ports of HTTPS, which the front ends TLS at and brings to the HTTP port.
    fn bind_front(
        &mut self,
        config: &Config,
        inherited: &mut Vec<(SocketAddr, OwnedFd)>,
        options: &ListenOptions,
    ) -> Result<(), ServeError> {
        let https = &config.http_server.https;
        let cert = File::new(&https.cert, "http_server.https.cert");
        let key = File::new(&https.key, "http_server.https.key");
        let identity = Arc::new(Identity::load(cert, key)?);
        let http = self.addresses.iter().filter(|(_, service)| *service == Service::Http);
        // Any of them will do; connections over IPv4 can come from many loopback addresses.
        let to = http.map(|(addr, _)| *addr).min_by_key(SocketAddr::is_ipv6);
        // Without an HTTP address there is nothing to bring connections to.
        let Some(to) = to else { return Ok(()) };
        let count = self.shards.len().min(limits::TLS_THREADS_MAX);
        let mut threads: Vec<Vec<OwnedFd>> = (0..count).map(|_| Vec::new()).collect();
        let mut addresses = Vec::new();
        for listen in &https.listen {
            let handed = take(inherited, listen);
            for (addr, socket) in &handed {
                for thread in &mut threads {
                    let failed = |why| ServeError::System("sockets", why);
                    thread.push(socket.try_clone().map_err(failed)?);
                }
                addresses.push(*addr);
            }
            if handed.is_empty() {
                for (addr, sockets) in
                    bind_many(listen, "http_server.https.listen", count, options)?
                {
                    threads.iter_mut().zip(sockets).for_each(|(all, socket)| all.push(socket));
                    addresses.push(addr);
                }
            }
        }
        self.front = Some(front::Sockets { threads, addresses, to, identity });
        Ok(())
    }

    fn bind_for_shards(
        &mut self,
        listen: &ListenAddr,
        setting: &'static str,
        service: Service,
        options: &ListenOptions,
    ) -> Result<(), ServeError> {
        for (addr, sockets) in bind_many(listen, setting, self.shards.len(), options)? {
            let mine = self.shards.iter_mut().zip(sockets);
            mine.for_each(|(all, socket)| all.push((socket, service)));
            self.addresses.push((addr, service));
        }
        Ok(())
    }

    /// Gives every shard the same socket: one that was bound once cannot be one per shard.
    fn share(
        &mut self,
        socket: OwnedFd,
        addr: SocketAddr,
        service: Service,
    ) -> Result<(), ServeError> {
        let failed = |why| ServeError::System("sockets", why);
        rustix::io::ioctl_fionbio(&socket, true).map_err(|errno| failed(errno.into()))?;
        for sockets in &mut self.shards {
            sockets.push((socket.try_clone().map_err(failed)?, service));
        }
        self.addresses.push((addr, service));
        Ok(())
    }
}

/// Sockets that were handed over, with their addresses.
fn inherited(sockets: Vec<OwnedFd>) -> Result<Vec<(SocketAddr, OwnedFd)>, ServeError> {
    let addressed = |socket: OwnedFd| {
        let addr = getsockname(&socket).map_err(io::Error::from)?;
        Ok((SocketAddr::try_from(addr)?, socket))
    };
    let all: io::Result<_> = sockets.into_iter().map(addressed).collect();
    all.map_err(|why| ServeError::System("a socket of the service manager cannot be used", why))
}

/// Takes the sockets that are what a setting wants to listen on.
fn take(
    inherited: &mut Vec<(SocketAddr, OwnedFd)>,
    listen: &ListenAddr,
) -> Vec<(SocketAddr, OwnedFd)> {
    let fits = |addr: SocketAddr| match *listen {
        ListenAddr::Port(port) => addr.port() == port,
        ListenAddr::Addr(wanted) => addr == wanted,
    };
    inherited.extract_if(.., |(addr, _)| fits(*addr)).collect()
}

/// Binds each address of a setting that many times, for as many threads.
fn bind_many(
    listen: &ListenAddr,
    setting: &'static str,
    count: usize,
    options: &ListenOptions,
) -> Result<Vec<(SocketAddr, Vec<OwnedFd>)>, ServeError> {
    let mut bound = Vec::new();
    let mut first_error = None;
    // A bare port is one socket per family; a machine may have one of them only.
    for addr in listen.candidates() {
        match probe(addr) {
            Ok(()) => {
                let sockets: io::Result<_> =
                    (0..count).map(|_| uring::listen(addr, options)).collect();
                bound.push((addr, sockets.map_err(|why| listen_error(addr, setting, why))?));
            }
            Err(why) if why.kind() == io::ErrorKind::AddrInUse => {
                return Err(listen_error(addr, setting, why));
            }
            Err(why) => first_error = first_error.or(Some((addr, why))),
        }
    }
    match first_error {
        Some((addr, why)) if bound.is_empty() => Err(listen_error(addr, setting, why)),
        _ => Ok(bound),
    }
}

fn bind_door(listen: &ListenAddr, setting: &'static str) -> Result<TcpListener, ServeError> {
    // The standard library makes a bare port one socket for both families where it can.
    let mut result = Err((SocketAddr::from(([0, 0, 0, 0], 0)), io::ErrorKind::NotFound.into()));
    for addr in listen.candidates() {
        result = TcpListener::bind(addr).map_err(|why| (addr, why));
        if result.is_ok() {
            break;
        }
    }
    result.map_err(|(addr, why)| listen_error(addr, setting, why))
}

/// Finds addresses that another process has, before they are bound in a way that would share them.
fn probe(addr: SocketAddr) -> io::Result<()> {
    let family = if addr.is_ipv6() { AddressFamily::INET6 } else { AddressFamily::INET };
    let socket = rustix::net::socket(family, SocketType::STREAM, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    if addr.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    rustix::net::bind(&socket, &addr)?;
    rustix::net::listen(&socket, 1)?;
    Ok(())
}

fn listen_options(config: &Config) -> ListenOptions {
    ListenOptions {
        backlog: limits::BACKLOG,
        reuse_port: true,
        nodelay: config.vhost(DEFAULT_VHOST).tcp_nodelay,
        notsent_lowat: limits::NOTSENT_LOWAT,
        send_buffer: 0,
        receive_buffer: 0,
    }
}

fn listen_error(addr: SocketAddr, setting: &'static str, why: io::Error) -> ServeError {
    let hint = match why.kind() {
        io::ErrorKind::AddrInUse => {
            "; another program has it: stop that one (`ss -ltnp` shows it) or change the setting"
        }
        io::ErrorKind::PermissionDenied => {
            "; ports below 1024 need CAP_NET_BIND_SERVICE: grant it or use a higher port"
        }
        io::ErrorKind::AddrNotAvailable => "; this machine does not have that address",
        _ => "",
    };
    ServeError::Listen { addr, setting, why, hint }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(listen: &str) -> Config {
        let listen = vec![listen.parse().unwrap()];
        let mut config = Config { listen, ..Config::default() };
        config.http_server.enabled = false;
        config.http_api.listen = vec!["127.0.0.1:0".parse().unwrap()];
        config
    }

    #[test]
    fn every_shard_has_a_socket_of_its_own() {
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let bound = Listeners::bind_for(&config(&free.to_string()), 3).unwrap();
        assert_eq!(bound.shards.len(), 3);
        assert!(bound.shards.iter().all(|sockets| sockets.len() == 1));
        assert_eq!(bound.addresses, [(free, Service::Rtmp)]);
        assert_eq!(bound.doors.len(), 1);
        // A second server is told, although the sockets could be shared.
        let again = Listeners::bind_for(&config(&free.to_string()), 1).unwrap_err().to_string();
        assert!(again.contains("another program has it"), "{again}");
    }

    #[test]
    fn sockets_of_a_manager_go_to_the_setting_with_their_port() {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = socket.local_addr().unwrap();
        let mut handed = inherited(vec![socket.into()]).unwrap();
        assert!(take(&mut handed, &ListenAddr::Port(addr.port() ^ 1)).is_empty());
        assert_eq!(take(&mut handed, &ListenAddr::Port(addr.port())).len(), 1);
        assert!(handed.is_empty());
    }
}
