//! A whole shard on the [`NullDriver`]: one publisher, any number of players, message by message.

use std::sync::Arc;

use loadtest::media::{GenerateOptions, Generated, Item, Script, Source};
use loadtest::player::{Flow, Player, Step};
use loadtest::target::Target;
use ringcast::config::{Config, Current, TimeJitter};
use ringcast::shard::{Clocks, Post, Service, Shard, Shared};
use uring::sim::accepted;
use uring::{Arena, ArenaOptions, Conn, Event, Received};

use crate::null::NullDriver;
use crate::schedule::Protocol;

/// The shard, its publisher and its players.
pub struct Walk {
    shard: Shard<NullDriver>,
    publisher: (Conn, Player),
    players: u64,
    script: Script,
    item: Item,
    payload: Vec<u8>,
}

/// Time between two messages of the generated stream, ns: 30 pictures and 43 audio frames a second.
const MESSAGE_NS: u64 = 1_000_000_000 / 73;

impl Walk {
    /// Sets everything up; players have joined.
    ///
    /// # Panics
    /// When the shard does not serve them: that is a bug.
    pub fn new(players: usize, protocol: Protocol, time_jitter: TimeJitter) -> Walk {
        let mut config = Config::default();
        config.vhost.play.time_jitter = time_jitter;
        config.max_connections = players as u32 + 1;
        let current = Arc::new(Current::fixed(config));
        let arena = Arena::new(ArenaOptions { limit: 64 << 20, huge_pages: false });
        let shared = Shared {
            config: current.load(),
            current,
            streams: Arc::default(),
            arena: arena.expect("64 MiB of address space"),
            clients: Arc::new(ringcast::remux::Clients::new(1)),
            gate: Arc::default(),
            admission: Arc::default(),
            quiet: Arc::default(),
            host: None,
            relayed: None,
            post: Post::new(1),
        };
        let (listeners, events) = accepted(&[1, players]);
        let mut driver = NullDriver::default();
        driver.time = 1_000_000_000;
        let clocks = Clocks { wall_ms: || 0, thread_cpu_ns: || 0 };
        let mut shard = Shard::new(0, driver, shared, Arc::default(), clocks, 1);
        let (service, url) = match protocol {
            Protocol::Rtmp => (Service::Rtmp, "rtmp://127.0.0.1/live/s"),
            Protocol::Flv => (Service::Http, "http://127.0.0.1/live/s.flv"),
        };
        shard.serve(listeners[0], Service::Rtmp);
        shard.serve(listeners[1], service);
        let mut conns = Vec::new();
        for event in events {
            if let Event::Accepted { conn, listener, .. } = &event {
                // The publisher goes first, in whatever order they came.
                let at = if *listener == listeners[0] { 0 } else { conns.len() };
                conns.insert(at, *conn);
                shard.driver().captured.insert(*conn, Vec::new());
            }
            shard.driver().pending.push(event);
        }
        // The lobby lets only so many in at a turn.
        for _ in 0..conns.len() {
            turn(&mut shard);
        }

        let publish_url = Target::parse("rtmp://127.0.0.1/live/s").expect("a URL");
        let mut publisher = (conns[0], Player::publish(&publish_url, 1));
        shake_hands(&mut shard, publisher.0, &mut publisher.1);
        let source = Source::Generated(Arc::new(Generated::new(GenerateOptions::default())));
        for (kind, payload) in source.headers() {
            publisher.1.write_message(*kind, 0, payload);
        }
        let mut script = Script::new(&source, 0, 1, 0);
        let item = script.next_item();
        let payload = Vec::new();
        let mut walk = Walk { shard, publisher, players: players as u64, script, item, payload };
        for _ in 0..4 {
            walk.publish();
            walk.deliver();
        }
        let play_url = Target::parse(url).expect("a URL");
        for (index, conn) in conns[1..].iter().enumerate() {
            let mut player = Player::play(&play_url, index as u64);
            shake_hands(&mut walk.shard, *conn, &mut player);
        }
        walk.shard.driver().captured.clear();
        // Everybody reaches the live end.
        for _ in 0..8 {
            walk.publish();
            walk.deliver();
        }
        let sends = walk.shard.driver().sends;
        walk.publish();
        walk.deliver();
        let sends = walk.shard.driver().sends - sends;
        assert_eq!(sends, players as u64, "each player gets the message");
        walk
    }

    /// Players that get each message.
    pub fn players(&self) -> u64 {
        self.players
    }

    /// Puts the next message of the publisher on the way.
    pub fn publish(&mut self) {
        let (conn, publisher) = &mut self.publisher;
        self.script.payload(&self.item, 0, &mut self.payload);
        publisher.write_message(self.item.kind, self.item.timestamp, &self.payload);
        self.item = self.script.next_item();
        let bytes = std::mem::take(publisher.output());
        let driver = self.shard.driver();
        driver.time += MESSAGE_NS;
        driver.pending.push(Event::Received { conn: *conn, data: Received::owned(bytes) });
    }

    /// The shard takes the message, sends it to everybody and hears that it was sent. Not inlined,
    /// so that its name is there for tools that count instructions.
    #[inline(never)]
    pub fn deliver(&mut self) {
        turn(&mut self.shard);
        turn(&mut self.shard);
    }
}

fn turn(shard: &mut Shard<NullDriver>) {
    shard.turn().expect("this driver does not fail");
}

/// Passes bytes between a client and the shard until the shard has accepted.
fn shake_hands(shard: &mut Shard<NullDriver>, conn: Conn, client: &mut Player) {
    for _ in 0..20 {
        let bytes = std::mem::take(client.output());
        if !bytes.is_empty() {
            let event = Event::Received { conn, data: Received::owned(bytes) };
            shard.driver().pending.push(event);
        }
        turn(shard);
        let mut started = false;
        let answer = shard.driver().captured.get_mut(&conn).map(std::mem::take);
        client
            .input(&answer.unwrap_or_default(), &mut |step| {
                started |= matches!(step, Step::Started);
                Flow::Continue
            })
            .expect("the shard keeps to the protocol");
        if started {
            return;
        }
    }
    panic!("the shard does not accept");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_player_gets_every_message() {
        for protocol in [Protocol::Rtmp, Protocol::Flv] {
            let mut walk = Walk::new(5, protocol, TimeJitter::Off);
            let (sends, bytes) = (walk.shard.driver().sends, walk.shard.driver().bytes);
            for _ in 0..200 {
                walk.publish();
                walk.deliver();
            }
            let driver = walk.shard.driver();
            assert_eq!(driver.sends - sends, 1000);
            // 200 messages of about 1,200 bytes for each of five.
            assert!(driver.bytes - bytes > 1_000_000, "{} bytes", driver.bytes - bytes);
        }
    }
}
