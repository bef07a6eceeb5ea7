//! What a seed means: faults, configuration, publishers and players.

use std::time::Duration;

use uring::sim::{Faults, Random};

use super::media::{AudioKind, Link, VideoKind};
use super::player::{Leaving, Manner, Rules, Script};
use super::publisher::{Ending, Stay};
use super::server::Load;
use crate::config::{Config, MwLatency, Switch, TimeJitter};
use crate::hub::Format;

const MS: u64 = 1_000_000;
/// About how many bytes per second of a stream are large frames, at most.
const LARGE_RATE_MAX: u64 = 1_000_000;

/// One publisher: its stream, and its stays.
pub type Publishes = (usize, Vec<Stay>);

#[derive(Debug)]
pub struct Plan {
    pub faults: Faults,
    pub config: Config,
    pub shards: usize,
    pub media_memory: usize,
    pub load: Load,
    /// Length of the run before everybody is let go, ms.
    pub length_ms: u64,
    pub streams: usize,
    pub publishers: Vec<Publishes>,
    pub players: Vec<(usize, Script)>,
    pub rules: Rules,
    /// Most bytes of blocks that may be in use at any time.
    pub memory_max: Option<usize>,
}

impl Plan {
    pub fn new(seed: u64) -> Plan {
        let mut random = Random::new(seed.wrapping_mul(0x2545_f491_4f6c_dd1d) ^ 0x5eed);
        let r = &mut random;
        let faults = match r.below(4) {
            0 => Faults::none(),
            1 => Faults::rough(),
            _ => Faults::seeded(seed),
        };
        let mut config = Config::default();
        let memory_short = r.below(12) == 0;
        let vhost = &mut config.vhost;
        vhost.publish.hold = Duration::from_millis(pick(r, &[0, 800, 3_000, 3_000]));
        vhost.publish.normal_timeout = Duration::from_millis(1_500);
        vhost.idle_close = Duration::from_millis(pick(r, &[500, 1_000]));
        vhost.play.queue_length = Duration::from_millis(pick(r, &[700, 1_500, 4_000, 30_000]));
        vhost.play.mw_latency = match r.below(6) {
            0 => MwLatency::Fixed(Duration::from_millis(pick(r, &[42, 350]))),
            1 => MwLatency::Fixed(Duration::ZERO),
            _ => MwLatency::Adaptive,
        };
        vhost.play.gop_cache = r.below(6) > 0;
        let short_gops = r.below(8) == 0;
        if short_gops {
            vhost.play.gop_cache_max_frames = 20;
        }
        vhost.play.reduce_sequence_header = r.below(3) == 0;
        vhost.play.time_jitter = match r.below(6) {
            0 => TimeJitter::Full,
            1 => TimeJitter::Zero,
            _ => TimeJitter::Off,
        };
        vhost.chunk_size = pick(r, &[128, 4_096, 60_000, 60_000]) as u32;
        config.zero_copy = [Switch::Auto, Switch::On, Switch::On, Switch::Off][r.below(4) as usize];
        let load = [Load::Idle, Load::Idle, Load::Half, Load::Full][r.below(4) as usize];

        let mut round_trip = 2 * faults.latency.max + faults.completion.max + faults.turn.max;
        // The turn that sees the completion and issues the next send, and the one that submits it.
        round_trip += (2.0 * faults.stalled_turn * faults.stall.max as f64) as u64;
        let window = u64::from(faults.send_buffer.min(faults.receive_window));
        let per_second = window * 1_000 * MS / round_trip.max(1);
        let ample = per_second >= 5_000_000;
        // What a publisher gets through: where receives run out of buffers, a large frame holds up
        // seconds of the stream, and players that read fast are behind by as much at once.
        let split = if faults.split_receive > 0.0 { 2 } else { 1 };
        let receive = u64::from(faults.receive_buffer) / split * 1_000 * MS;
        let pause = (faults.no_buffers * faults.rearm.max as f64) as u64;
        let roomy = ample && receive / pause.max(1) >= 5_000_000;
        let streams = 1 + r.below(2) as usize;
        let length_ms = 14_000 + r.below(8_000);
        let mut publishers = Vec::new();
        for stream in 0..streams {
            publishers.push((stream, stays(r, length_ms, ample, roomy)));
            if r.below(4) == 0 {
                // A rival: who comes second has to wait.
                publishers.push((stream, stays(r, length_ms / 2, ample, roomy)));
            }
        }
        let mut players = Vec::new();
        for _ in 0..2 + r.below(9) {
            let stream = r.below(streams as u64) as usize;
            players.push((stream, script(r, length_ms)));
        }
        // Players look every 5 ms.
        let mut delay = 15 * MS;
        delay += 20
            * (faults.latency.max
                + faults.completion.max
                + faults.turn.max
                + faults.wake.max
                + if faults.no_buffers > 0.0 { faults.rearm.max } else { 0 });
        if faults.stalled_turn > 0.0 {
            delay += 4 * faults.stall.max;
        }
        delay += match vhost.play.mw_latency {
            MwLatency::Fixed(window) => window.as_nanos() as u64,
            MwLatency::Adaptive if load == Load::Idle => 0,
            MwLatency::Adaptive => 350 * MS,
        };
        let rules = Rules {
            ample,
            resets: faults.reset > 0.0,
            refusals: faults.accept_failure > 0.0,
            link: Link { delay, rate: (per_second / 2).clamp(1, 1 << 30) },
            rebased: vhost.play.time_jitter != TimeJitter::Off,
            queue_ms: vhost.play.queue_length.as_millis() as i64,
            memory_short,
            keyframe_starts: vhost.play.gop_cache && !memory_short && !short_gops,
        };
        Plan {
            faults,
            config,
            shards: 1 + r.below(4) as usize,
            media_memory: if memory_short { 2 << 20 } else { 512 << 20 },
            load,
            length_ms,
            streams,
            publishers,
            players,
            rules,
            memory_max: None,
        }
    }
}

fn pick(r: &mut Random, of: &[u64]) -> u64 {
    *r.pick(of).expect("there are some")
}

fn stays(r: &mut Random, length_ms: u64, ample: bool, roomy: bool) -> Vec<Stay> {
    let mut stays = Vec::new();
    let mut at = 0;
    loop {
        let after_ms =
            if stays.is_empty() { r.below(1_500) } else { pick(r, &[0, 1, 20, 300, 1_000, 5_000]) };
        let for_ms = pick(r, &[400, 2_000, 5_000, 20_000]) + r.below(500);
        at += after_ms;
        if at + 500 > length_ms {
            return stays;
        }
        let for_ms = for_ms.min(length_ms - at);
        at += for_ms;
        let video = match r.below(8) {
            0 => None,
            1 => Some(VideoKind::Hevc),
            _ => Some(VideoKind::Avc),
        };
        let audio = match r.below(6) {
            0 if video.is_some() => None,
            1 => Some(AudioKind::Mp3),
            _ => Some(AudioKind::Aac),
        };
        let big = pick(r, &[1_000, 4_000, 20_000]) as usize;
        let large = [1 << 20, (1 << 20) + 77, 2_500_000, 70_000];
        let every = 1 + r.below(4);
        let fps = pick(r, &[10, 25, 30]);
        let gop = pick(r, &[1, 5, 20, 50]);
        let large = (ample && r.below(5) == 0).then(|| pick(r, &large)).filter(|_| roomy);
        // All formats and players of a run together would take minutes for more.
        let large = large.map(|len| (every.max(len * fps / gop / LARGE_RATE_MAX), len as usize));
        stays.push(Stay {
            after_ms,
            for_ms,
            video,
            audio,
            fps,
            gop,
            sizes: (if ample { big } else { big / 4 }, 200 + r.below(1_500) as usize),
            large,
            wire: [0, 0, 5_000, 0x00ff_f000, 0x7fff_f000, 0xffff_f000][r.below(6) as usize],
            change_headers: (r.below(4) == 0).then(|| 20 + r.below(60)),
            repeat_headers: (r.below(4) == 0).then(|| 10 + r.below(60)),
            burst_ms: pick(r, &[1, 1, 1, 40, 500]),
            chunk_size: pick(r, &[128, 4_096, 60_000]) as u32,
            ending: [
                Ending::Unpublish,
                Ending::UnpublishAndClose,
                Ending::Close,
                Ending::Close,
                Ending::Reset,
                Ending::Silence,
            ][r.below(6) as usize],
            metadata: r.below(3) > 0,
        });
    }
}

fn script(r: &mut Random, length_ms: u64) -> Script {
    let format = Format::VERBATIM[r.below(4) as usize];
    let manner = match r.below(12) {
        0..6 => Manner::Healthy,
        6 | 7 => Manner::Slow { on_ms: 1 + r.below(60), off_ms: 20 + r.below(600) },
        8 | 9 => Manner::Stalls { at_ms: 300 + r.below(4_000), for_ms: 200 + r.below(length_ms) },
        10 => Manner::Pauses { at_ms: 300 + r.below(3_000), for_ms: 100 + r.below(6_000) },
        _ => Manner::Replays { every_ms: 50 + r.below(3_000) },
    };
    let rtmp = matches!(manner, Manner::Pauses { .. } | Manner::Replays { .. });
    Script {
        format: if rtmp { Format::Rtmp } else { format },
        manner,
        join_ms: if r.below(2) == 0 { 0 } else { r.below(length_ms) },
        stay_ms: (r.below(3) == 0).then(|| 20 + r.below(5_000)),
        leaving: [Leaving::Close, Leaving::Reset, Leaving::HalfClose][r.below(3) as usize],
    }
}
