//! Whole servers in one thread, from one seed: shards on the simulated driver, publishers and
//! players made of the protocols' client halves, faults, and checks of everything that arrives.
//!
//! ```text
//! RINGCAST_SIM_SEEDS=2000 cargo test --lib sim::            more seeds than the usual 200
//! RINGCAST_SIM_SEED=17 cargo test --lib sim::seeds_a        one seed, with a log of its peers
//! RINGCAST_SIM_TRACE=1 ...                                  and every event of every driver
//! ```
//! A failure names its seed. What a seed means is drawn in `plan`; `scenes` has runs that are
//! written down; what players may see is decided by the ledger in `media` and checked in
//! `player`. `ci/planted.sh` shows which bugs this catches.

mod admission;
mod media;
mod plan;
mod player;
mod publisher;
mod run;
mod scenes;
mod server;

use plan::Plan;
use run::{run_plan, run_seed};

use crate::config::TimeJitter;

/// Seeds of a usual run.
const SEEDS: u64 = 200;
/// The seeds are shared out to that many tests, so that they run side by side.
const LANES: u64 = 4;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

/// Names the seed when its run fails.
struct Replay(u64);

impl Drop for Replay {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let seed = self.0;
            eprintln!(
                "simulation seed {seed} failed; again with a trace: \
                 RINGCAST_SIM_SEED={seed} cargo test --lib sim::seeds_a -- --nocapture"
            );
        }
    }
}

fn run_lane(lane: u64) {
    if let Some(seed) = number("RINGCAST_SIM_SEED") {
        if lane == 0 {
            let _replay = Replay(seed);
            run_seed(seed, true);
        }
        return;
    }
    let first = number("RINGCAST_SIM_FIRST").unwrap_or(0);
    let seeds = number("RINGCAST_SIM_SEEDS").unwrap_or(SEEDS);
    for seed in (first..first + seeds).filter(|seed| seed % LANES == lane) {
        let _replay = Replay(seed);
        run_seed(seed, false);
    }
}

#[test]
fn seeds_a() {
    run_lane(0);
}

#[test]
fn seeds_b() {
    run_lane(1);
}

#[test]
fn seeds_c() {
    run_lane(2);
}

#[test]
fn seeds_d() {
    run_lane(3);
}

#[test]
fn players_that_stall_cost_a_block_each() {
    run_plan(1, Plan::stalled_players(), false);
}

#[test]
fn messages_reach_players_of_other_shards_at_once() {
    run_plan(2, Plan::far_players(), false);
}

#[test]
fn memory_waits_for_those_who_have_not_read_it() {
    run_plan(3, Plan::unread_zero_copy(), false);
}

#[test]
fn sends_go_on_behind_the_end_of_a_block() {
    run_plan(4, Plan::merged_sends(), false);
}

#[test]
fn blocks_are_filled_to_their_end() {
    run_plan(5, Plan::full_blocks(), false);
}

#[test]
fn players_that_fall_behind_finish_their_message() {
    run_plan(6, Plan::lagging_players(), false);
}

#[test]
fn players_that_fall_behind_never_go_back() {
    for jitter in [TimeJitter::Off, TimeJitter::Full] {
        let mut plan = Plan::slow_players();
        plan.config.vhost.play.time_jitter = jitter;
        plan.rules.rebased = jitter != TimeJitter::Off;
        run_plan(7, plan, false);
    }
}

#[test]
fn a_seed_means_one_run() {
    for seed in [3, 14] {
        let _replay = Replay(seed);
        assert_eq!(run_seed(seed, false), run_seed(seed, false));
    }
}
