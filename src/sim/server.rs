//! A whole server in one thread: its shards, what they share, and the world around them.

use std::cell::Cell;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use uring::sim::{Faults, SimDriver, SimWaker, SimWorld};
use uring::{Arena, ArenaOptions, Driver, ListenOptions};

use crate::config::{Config, Current, DEFAULT_VHOST};
use crate::hub::{Counters, Reason};
use crate::media::name::StreamName;
use crate::remux::{Clients, Registry};
use crate::session::admission::Admission;
use crate::shard::gate::Gate;
use crate::shard::run::Flow;
use crate::shard::{Clocks, Letter, Post, Service, Shard, Shared};

thread_local! {
    /// What the shards' CPU clocks say; set before each turn, so that load follows a script.
    static CPU_NS: Cell<u64> = const { Cell::new(0) };
}

pub const RTMP: ([u8; 4], u16) = ([127, 0, 0, 1], 1935);
pub const HTTP: ([u8; 4], u16) = ([127, 0, 0, 1], 8080);

/// How busy the shards seem, in 1/1000 of virtual time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Load {
    Idle,
    /// Enough for the adaptive window to open.
    Half,
    /// Enough for it to open to its bound.
    Full,
}

pub struct Server {
    pub world: SimWorld,
    pub arena: Arena,
    pub streams: Arc<Registry>,
    pub counters: Vec<Arc<Counters>>,
    pub load: Load,
    pub admission: Arc<Admission>,
    pub post: Post<SimWaker>,
    gate: Arc<Gate>,
    shards: Vec<Shard<SimDriver>>,
    finished: Vec<bool>,
    /// By shard: turns since the last one that had an event.
    idle_turns: Vec<u32>,
}

/// Turns a shard may make one after the other without any event. Ticks and samples need 14 in a
/// second, and no run is longer than two minutes.
const IDLE_TURNS_MAX: u32 = 5_000;

impl Server {
    pub fn new(
        seed: u64,
        faults: Faults,
        config: Config,
        shards: usize,
        media_memory: usize,
    ) -> Server {
        // The run before in this thread has left its own time there.
        CPU_NS.set(0);
        let world = SimWorld::new(seed, faults);
        let arena = Arena::new(ArenaOptions { limit: media_memory, huge_pages: false })
            .expect("address space");
        world.lend_arena(&arena);
        let post = Post::new(shards);
        let current = Arc::new(Current::fixed(Config { max_connections: 10_000, ..config }));
        let shared = Shared {
            config: current.load(),
            current,
            streams: Arc::new(Registry::default()),
            arena: arena.clone(),
            clients: Arc::new(Clients::new(shards)),
            gate: Arc::new(Gate::default()),
            admission: Arc::default(),
            quiet: Arc::default(),
            host: None,
            relayed: None,
            post: post.clone(),
        };
        let clocks = Clocks { wall_ms: || 1_700_000_000_000, thread_cpu_ns: || CPU_NS.get() };
        let counters: Vec<Arc<Counters>> = (0..shards).map(|_| Arc::default()).collect();
        let shards: Vec<_> = (0..shards)
            .map(|index| {
                let mut driver = world.driver(index as u32);
                let options = ListenOptions {
                    backlog: 128,
                    reuse_port: true,
                    nodelay: true,
                    notsent_lowat: 0,
                    send_buffer: 0,
                    receive_buffer: 0,
                };
                let rtmp = driver.listen(SocketAddr::from(RTMP), &options).expect("a free address");
                let http = driver.listen(SocketAddr::from(HTTP), &options).expect("a free address");
                let (shared, counters) = (shared.clone(), counters[index].clone());
                let seed = seed.wrapping_add(index as u64 * 7919);
                let mut shard = Shard::new(index, driver, shared, counters, clocks, seed);
                shard.serve(rtmp, Service::Rtmp);
                shard.serve(http, Service::Http);
                shard
            })
            .collect();
        Server {
            world,
            arena,
            streams: shared.streams,
            counters,
            load: Load::Idle,
            gate: shared.gate,
            admission: shared.admission,
            post,
            finished: vec![false; shards.len()],
            idle_turns: vec![0; shards.len()],
            shards,
        }
    }

    /// Lets shards turn until `until` (ns), and calls `each` after every turn.
    ///
    /// # Panics
    /// When a shard turns again and again and nothing happens: it spins.
    pub fn run(&mut self, until: u64, mut each: impl FnMut(&Server)) {
        while let Some(shard) = self.world.next_turn(until) {
            let permille = match self.load {
                Load::Idle => 50,
                Load::Half => 400,
                Load::Full => 900,
            };
            CPU_NS.set(self.world.now() / 1000 * permille);
            let index = shard as usize;
            let events = self.world.trace_events();
            if self.shards[index].turn().expect("a simulated ring") == Flow::Finished {
                self.finished[index] = true;
            }
            let idle = &mut self.idle_turns[index];
            *idle = if self.world.trace_events() == events { *idle + 1 } else { 0 };
            let spins = *idle > IDLE_TURNS_MAX;
            assert!(!spins, "shard {shard} spins at {} ns", self.world.now());
            each(self);
        }
    }

    /// Identity of a stream, how many messages its publishers' sessions have read, and how often
    /// one took it over.
    pub fn stream(&self, name: &str) -> Option<(u64, u64, u64)> {
        let name = StreamName::new(DEFAULT_VHOST, "live", name).expect("a good name");
        let stream = self.streams.find(&name)?;
        let stats = &stream.stats;
        Some((stream.id.0, stats.messages.load(Relaxed), stats.resumed.load(Relaxed)))
    }

    pub fn count(&self, reason: Reason) -> u64 {
        self.counters.iter().map(|c| c.of(reason)).sum()
    }

    /// Everything that was counted, for messages about failures.
    pub fn reasons(&self) -> String {
        let mut lines = Vec::new();
        for (shard, counters) in self.counters.iter().enumerate() {
            for (name, count) in counters.reasons() {
                lines.push(format!("shard {shard}: {name} {count}"));
            }
        }
        lines.join("\n")
    }

    fn gauge(&self, of: impl Fn(&Counters) -> u64) -> u64 {
        self.counters.iter().map(|c| of(c)).sum()
    }

    /// Nobody is connected and every idle time has passed: nothing may be left.
    pub fn check_empty(&self) {
        let stats = self.arena.stats();
        let connections: usize = self.shards.iter().map(Shard::connections).sum();
        let follows: usize = self.shards.iter().map(Shard::follows).sum();
        assert_eq!(connections, 0, "sessions are left");
        assert_eq!(follows, 0, "followed feeds are left");
        assert_eq!(self.gauge(|c| c.connections.load(Relaxed)), 0, "connections are counted");
        assert_eq!(self.gauge(|c| c.players.load(Relaxed)), 0, "players are counted");
        assert_eq!(self.gauge(|c| c.publishers.load(Relaxed)), 0, "publishers are counted");
        assert_eq!(self.gate.connections(), 0, "the gate counts connections");
        let names: Vec<String> =
            self.streams.list(100).iter().map(|stream| format!("{stream:?}")).collect();
        assert!(names.is_empty(), "streams are left: {names:#?}");
        assert_eq!(stats.blocks, 0, "blocks are left: {stats:?}");
    }

    /// Stops the server and sees that every shard ends with nothing left behind.
    pub fn stop(mut self) {
        self.post.tell_all(&Letter::Stop);
        let until = self.world.now() + 5_000_000_000;
        while !self.finished.iter().all(|f| *f) {
            let Some(shard) = self.world.next_turn(until) else { break };
            let index = shard as usize;
            if self.shards[index].turn().expect("a simulated ring") == Flow::Finished {
                self.finished[index] = true;
            }
        }
        assert!(self.finished.iter().all(|f| *f), "a shard does not end: {:?}", self.finished);
        self.world.assert_quiet();
    }
}
