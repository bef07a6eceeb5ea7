//! Admission in the simulation: who may come in by default, and sessions that wait for verdicts
//! while the network does what it likes.

use std::collections::HashMap;
use std::net::SocketAddr;

use uring::sim::{Faults, Peer, Random};

use super::Replay;
use super::server::{RTMP, Server};
use crate::config::Config;
use crate::hub::Reason;
use crate::proto::rtmp::client::{Client, ClientOptions, Event, HandshakeKind, Role};
use crate::proto::rtmp::server::PublishKind;
use crate::session::SessionId;
use crate::session::admission::{Note, Verdict};
use crate::shard::Letter;

const MS: u64 = 1_000_000;
const MEMORY: usize = 64 << 20;

/// A client that wants one thing.
struct Visitor {
    peer: Peer,
    client: Client,
    /// When the server let it begin.
    began: Option<u64>,
}

impl Visitor {
    fn new(server: &Server, from: [u8; 4], stream: &str, role: Role) -> Visitor {
        let mut client = Client::new(ClientOptions {
            tc_url: "rtmp://127.0.0.1/live".into(),
            app: "live".into(),
            stream: stream.into(),
            role,
            chunk_size: 4096,
            flash_ver: "sim".into(),
            page_url: None,
            handshake: HandshakeKind::Simple,
            publish_sequence: PublishKind::Fmle,
            seed: 7,
        });
        let source = SocketAddr::from((from, 0));
        let peer = server.world.connect_from(source, SocketAddr::from(RTMP));
        peer.write(std::mem::take(client.output()));
        Visitor { peer, client, began: None }
    }

    fn act(&mut self, now: u64) {
        let bytes = self.peer.read();
        let mut input = &bytes[..];
        while let Some(event) = self.client.poll(&mut input).expect("a server that speaks RTMP") {
            if matches!(event, Event::Publishing | Event::Playing) {
                self.began = Some(now);
            }
        }
        let output = std::mem::take(self.client.output());
        if !output.is_empty() {
            self.peer.write(output);
        }
    }
}

/// Row 11: without a rule for publishers only those from near addresses may.
#[test]
fn strangers_do_not_publish_by_default() {
    let mut open = Config::default();
    open.vhost.publish.open = true;
    for (config, far_may) in [(Config::default(), false), (open, true)] {
        let mut server = Server::new(1, Faults::none(), config, 2, MEMORY);
        let mut far = Visitor::new(&server, [203, 0, 113, 9], "far", Role::Publish);
        let mut near = Visitor::new(&server, [192, 168, 1, 9], "near", Role::Publish);
        let mut player = Visitor::new(&server, [203, 0, 113, 9], "near", Role::Play);
        for step in 1..400 {
            server.run(step * 5 * MS, |_| {});
            for visitor in [&mut far, &mut near, &mut player] {
                visitor.act(step);
            }
        }
        assert_eq!(far.began.is_some(), far_may);
        assert_eq!(far.peer.is_closed(), !far_may);
        assert!(near.began.is_some() && player.began.is_some());
        assert_eq!(server.count(Reason::PublishClosed), u64::from(!far_may));
        for visitor in [far, near, player] {
            visitor.peer.close();
        }
        server.run(20_000 * MS, |_| {});
        server.check_empty();
        server.stop();
    }
}

/// Sessions that wait for verdicts: granted, refused, decided after the client has left, told by
/// letter or found by the tick. None begins before its verdict, and nothing is left behind.
#[test]
fn verdicts_come_late_and_in_any_order() {
    for seed in 0..40 {
        let _replay = Replay(seed);
        run(seed);
    }
}

fn run(seed: u64) {
    let mut random = Random::new(seed);
    let mut config = Config::default();
    let hooks = &mut config.vhost.http_hooks;
    hooks.enabled = true;
    let urls = || vec!["http://127.0.0.1/".to_string()];
    (hooks.on_publish, hooks.on_play, hooks.on_close) = (urls(), urls(), urls());
    config.vhost.publish.hold = std::time::Duration::ZERO;
    let mut server = Server::new(seed, Faults::seeded(seed), config, 2, MEMORY);
    let mut visitors: Vec<Visitor> = (0..16)
        .map(|n| {
            let role = if n % 2 == 0 { Role::Publish } else { Role::Play };
            Visitor::new(&server, [127, 0, 0, 1], &format!("s{n}"), role)
        })
        .collect();
    // When each stream's case was decided, and whether it was granted.
    let mut decided: HashMap<String, (u64, bool)> = HashMap::new();
    let mut pending = Vec::new();
    let (mut ended, mut closed): (Vec<String>, Vec<SessionId>) = Default::default();
    for step in 1..1600_u64 {
        let now = step * 5 * MS;
        server.run(now, |_| {});
        while let Some(note) = server.admission.desk.take() {
            match note {
                Note::Asked(case) => pending.push((now + random.below(1500) * MS, case)),
                Note::Ended(case) => ended.push(case.name.stream().to_string()),
                Note::Closed { case, .. } => closed.push(case.id),
            }
        }
        server.admission.desk.look();
        for (_, case) in pending.extract_if(.., |(at, _)| *at <= now) {
            let granted = random.below(4) > 0;
            case.decide(match granted {
                true => Verdict::Granted,
                false => Verdict::Refused { reason: Reason::HookRefused, detail: "".into() },
            });
            decided.insert(case.name.stream().to_string(), (now, granted));
            if random.below(4) > 0 {
                server.post.tell(case.shard, Letter::Decided(case.conn));
            }
        }
        for (n, visitor) in visitors.iter_mut().enumerate() {
            // Some do not have the patience.
            if n % 5 == 4 && step == 150 + n as u64 * 10 {
                visitor.peer.close();
            }
            if !visitor.peer.is_closed() {
                visitor.act(now);
            }
        }
        if step == 1200 {
            visitors.iter().for_each(|visitor| visitor.peer.close());
        }
    }
    for (n, visitor) in visitors.iter().enumerate() {
        let name = format!("s{n}");
        match (visitor.began, decided.get(&name)) {
            (Some(began), Some((at, true))) => assert!(began >= *at, "{name} began too early"),
            (Some(_), other) => panic!("{name} began with the verdict {other:?}"),
            (None, Some((_, true))) => {
                let ended = ended.iter().filter(|ended| **ended == name).count();
                assert_eq!(ended, 1, "{name} was let in, left, and its end is told once");
            }
            (None, _) => {}
        }
        let ends = ended.iter().filter(|ended| **ended == name).count();
        assert!(ends <= 1, "{name} ended {ends} times");
        if visitor.began.is_some() {
            assert_eq!(ends, 1, "{name} began, so its end is told");
        }
    }
    let connections = closed.len();
    closed.sort();
    closed.dedup();
    assert_eq!(closed.len(), connections, "each connection is closed once");
    drop(pending);
    // Until the last stream is forgotten.
    server.run(20_000 * MS, |_| {});
    assert_eq!(server.admission.desk.cases(), 0, "cases are left");
    server.check_empty();
    server.stop();
}
