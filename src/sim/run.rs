//! One seed's run: everybody acts in small steps of virtual time, then leaves, and the server has
//! to be as it was before.

use uring::sim::Random;

use super::media::Ledger;
use super::plan::Plan;
use super::player::Player;
use super::publisher::Publisher;
use super::server::Server;
use crate::hub::Reason;

const MS: u64 = 1_000_000;
/// Peers act once in so much virtual time, ns.
const STEP: u64 = 5 * MS;

struct Run {
    plan: Plan,
    server: Server,
    random: Random,
    ledgers: Vec<Ledger>,
    names: Vec<String>,
    publishers: Vec<Publisher>,
    players: Vec<Player>,
    versions: u32,
}

/// Runs a seed; panics at the first thing that is wrong. The result is the same for every run of
/// the seed.
pub fn run_seed(seed: u64, log: bool) -> u64 {
    run_plan(seed, Plan::new(seed), log)
}

/// Runs a plan with the random numbers of a seed.
pub fn run_plan(seed: u64, plan: Plan, log: bool) -> u64 {
    if log {
        eprintln!("{plan:#?}");
    }
    let mut run = Run::new(seed, plan, log);
    run.go();
    run.wind_down();
    run.finish()
}

impl Run {
    fn new(seed: u64, plan: Plan, log: bool) -> Run {
        let server =
            Server::new(seed, plan.faults, plan.config.clone(), plan.shards, plan.media_memory);
        let names: Vec<String> = (0..plan.streams).map(|n| format!("s{n}")).collect();
        let publishers = plan
            .publishers
            .iter()
            .map(|(stream, stays)| {
                let mut p = Publisher::new(*stream, names[*stream].clone(), stays.clone());
                p.log = log;
                p
            })
            .collect();
        let players = plan
            .players
            .iter()
            .enumerate()
            .map(|(id, (stream, script))| {
                let name = names[*stream].clone();
                let mut p = Player::new(id, *stream, name, script.clone(), plan.rules.rebased);
                p.log = log;
                p
            })
            .collect();
        let mut server = server;
        server.load = plan.load;
        server.world.print_trace(log && std::env::var_os("RINGCAST_SIM_TRACE").is_some());
        Run {
            server,
            random: Random::new(seed ^ 0x7065_6572_7321),
            ledgers: (0..plan.streams).map(|_| Ledger::new(plan.rules.link)).collect(),
            names,
            publishers,
            players,
            versions: 0,
            plan,
        }
    }

    /// One step of virtual time.
    fn step(&mut self) {
        let until = self.server.world.now() + STEP;
        let (ledgers, names) = (&mut self.ledgers, &self.names);
        self.server.run(until, |server| {
            for (ledger, name) in ledgers.iter_mut().zip(names) {
                if let Some((id, count, _)) = server.stream(name) {
                    ledger.accept(id, count, server.world.now());
                }
            }
        });
        if let Some(max) = self.plan.memory_max {
            let stats = self.server.arena.stats();
            assert!(stats.used <= max, "{} bytes of blocks in use: {stats:?}", stats.used);
        }
        for publisher in &mut self.publishers {
            let (server, name) = (&self.server, &self.names[publisher.stream]);
            publisher.act(
                &server.world,
                &mut self.random,
                &mut self.ledgers[publisher.stream],
                &mut self.versions,
                || server.stream(name),
            );
        }
        for player in &mut self.players {
            let ledger = &mut self.ledgers[player.stream];
            player.act(&self.server.world, &mut self.random, ledger, &self.plan.rules);
        }
    }

    fn step_for(&mut self, ms: u64) {
        let until = self.server.world.now() + ms * MS;
        while self.server.world.now() < until {
            self.step();
        }
    }

    fn go(&mut self) {
        self.step_for(self.plan.length_ms);
    }

    /// Publishers go; whoever plays gets everything; then players go, and the server is empty.
    fn wind_down(&mut self) {
        for player in &mut self.players {
            player.settle();
        }
        // Publishers stop in the middle of what they do, connections stay open.
        let window = self.plan.rules.link.delay / MS;
        let mut publishers = std::mem::take(&mut self.publishers);
        self.step_for(500 + 2 * window);
        if self.plan.rules.ample && !self.plan.rules.memory_short {
            for player in self.players.iter().filter(|p| p.is_healthy() && p.is_playing()) {
                // What a slow publisher still has on the way arrives until the end.
                let now = self.server.world.now();
                let last_frame = self.ledgers[player.stream].last_frame(now);
                assert!(
                    player.last() >= last_frame,
                    "player {} has {:?} and not the last frame {last_frame:?}",
                    player.id,
                    player.last()
                );
            }
        }
        for publisher in &mut publishers {
            publisher.close();
        }
        let vhost = &self.plan.config.vhost;
        let hold = vhost.publish.hold.as_millis() as u64;
        let idle = vhost.idle_close.as_millis() as u64;
        // HTTP players are ended, RTMP players wait.
        self.step_for(hold + 7_000);
        for player in &mut self.players {
            player.close();
        }
        self.step_for(idle + 4_000);
        self.server.check_empty();
        assert_eq!(self.server.count(Reason::Bug), 0, "a session's code panicked");
    }

    fn finish(self) -> u64 {
        let gaps: u64 = self.players.iter().map(|p| p.gaps).sum();
        let skips = self.server.count(Reason::SkipLag) + self.server.count(Reason::SkipGone);
        if !self.plan.rules.memory_short {
            let reasons = self.server.reasons();
            assert!(gaps <= skips, "{gaps} gaps, {skips} skips counted\n{reasons}");
        }
        let mut result = self.server.world.trace_hash();
        for player in &self.players {
            result = result.wrapping_mul(31).wrapping_add(player.frames);
        }
        self.server.stop();
        result
    }
}
