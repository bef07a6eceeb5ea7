//! Runs that are written down and not drawn: each shows one thing that the mix of the seeds shows
//! only now and then.

use std::time::Duration;

use uring::sim::{Faults, Span};

use super::media::{AudioKind, Link, VideoKind};
use super::plan::Plan;
use super::player::{Leaving, Manner, Rules, Script};
use super::publisher::{Ending, Stay};
use super::server::Load;
use crate::config::{Config, MwLatency, Switch};
use crate::hub::Format;

const MS: u64 = 1_000_000;

/// One stream of `seconds` in a kind world, with nobody to play it yet.
fn one_stream(seconds: u64, faults: Faults) -> Plan {
    let stay = Stay {
        after_ms: 0,
        for_ms: seconds * 1_000,
        video: Some(VideoKind::Avc),
        audio: Some(AudioKind::Aac),
        fps: 25,
        gop: 25,
        sizes: (20_000, 3_000),
        large: None,
        wire: 0,
        change_headers: None,
        repeat_headers: None,
        burst_ms: 1,
        chunk_size: 4_096,
        ending: Ending::Close,
        metadata: true,
    };
    let mut config = Config::default();
    config.vhost.publish.hold = Duration::from_secs(1);
    Plan {
        faults,
        config,
        shards: 2,
        media_memory: 512 << 20,
        load: Load::Idle,
        length_ms: seconds * 1_000,
        streams: 1,
        publishers: vec![(0, vec![stay])],
        players: Vec::new(),
        rules: Rules {
            ample: true,
            resets: false,
            refusals: false,
            // Players look every 5 ms.
            link: Link { delay: 10 * MS, rate: 10 << 20 },
            rebased: false,
            // Nobody who reads misses anything, however long the GOPs.
            queue_ms: i64::MAX,
            memory_short: false,
            keyframe_starts: true,
        },
        memory_max: None,
    }
}

impl Plan {
    fn stay(&mut self) -> &mut Stay {
        &mut self.publishers[0].1[0]
    }

    fn add(&mut self, format: Format, manner: Manner) {
        let leaving = Leaving::Close;
        self.players.push((0, Script { format, manner, join_ms: 100, stay_ms: None, leaving }));
    }

    /// A minute, 24 MB in its four formats, before players that read it and players of every kind
    /// that do not.
    pub fn stalled_players() -> Plan {
        let small = Faults { send_buffer: 16 << 10, receive_window: 16 << 10, ..Faults::none() };
        let mut plan = one_stream(60, small);
        plan.config.vhost.play.queue_length = Duration::from_secs(1);
        for format in Format::VERBATIM {
            plan.add(format, Manner::Healthy);
            plan.add(format, Manner::Stalls { at_ms: 2_000, for_ms: 50_000 });
        }
        plan.add(Format::Rtmp, Manner::Pauses { at_ms: 2_000, for_ms: 50_000 });
        // Per format the GOP and what `queue_length` asks for, in blocks of half a second; a block
        // for each player that stalls.
        plan.memory_max = Some(4 << 20);
        plan
    }

    /// Sound alone, a message every 93 ms: who is not told of one has it with the next at the
    /// earliest, and nothing else hides that. A little noise keeps turns and messages out of step.
    pub fn far_players() -> Plan {
        let noise = Faults {
            latency: Span::micros(20, 900),
            completion: Span::micros(0, 300),
            spurious_wake: 0.2,
            ..Faults::none()
        };
        let mut plan = one_stream(20, noise);
        plan.shards = 4;
        plan.stay().video = None;
        for format in [Format::VERBATIM; 4].into_iter().flatten() {
            plan.add(format, Manner::Healthy);
        }
        plan
    }

    /// Zero-copy sends to players that stop reading for some seconds. Their sockets take the whole
    /// of a send, so the log moves on and its blocks are used again while the network has yet to
    /// read what it was given.
    pub fn unread_zero_copy() -> Plan {
        let deep = Faults { send_buffer: 1 << 20, receive_window: 8 << 10, ..Faults::none() };
        let mut plan = one_stream(30, deep);
        plan.config.zero_copy = Switch::On;
        // Small sends are copied anyway.
        plan.config.vhost.play.mw_latency = MwLatency::Fixed(Duration::from_millis(200));
        plan.rules.link.delay += 200 * MS;
        // Blocks of half a second have 64 KiB, and the feed keeps four of them.
        plan.stay().sizes = (25_000, 3_500);
        for format in Format::VERBATIM {
            plan.add(format, Manner::Healthy);
            plan.add(format, Manner::Stalls { at_ms: 1_500, for_ms: 7_000 });
            plan.add(format, Manner::Stalls { at_ms: 3_100, for_ms: 5_000 });
        }
        plan
    }

    /// A window of 350 ms before blocks of half a second: most sends cross the end of a block.
    pub fn merged_sends() -> Plan {
        let mut plan = one_stream(20, Faults::none());
        plan.config.vhost.play.mw_latency = MwLatency::Fixed(Duration::from_millis(350));
        plan.rules.link.delay += 350 * MS;
        for format in Format::VERBATIM {
            plan.add(format, Manner::Healthy);
            plan.add(format, Manner::Slow { on_ms: 30, off_ms: 300 });
        }
        plan
    }

    /// Small messages of many sizes fill small blocks: among some hundred ends of blocks are those
    /// that a message just fits, and those where it is one byte too long.
    pub fn full_blocks() -> Plan {
        let mut plan = one_stream(40, Faults::none());
        let stay = plan.stay();
        (stay.fps, stay.gop, stay.sizes) = (500, 500, (200, 40));
        for format in Format::VERBATIM {
            plan.add(format, Manner::Healthy);
        }
        plan
    }

    /// Players that fall behind again and again with a send on its way: small sockets, and a queue
    /// of more blocks than the feed keeps for others.
    pub fn lagging_players() -> Plan {
        let small = Faults { send_buffer: 8 << 10, receive_window: 4 << 10, ..Faults::none() };
        let mut plan = one_stream(60, small);
        plan.config.vhost.play.queue_length = Duration::from_secs(6);
        for format in Format::VERBATIM {
            plan.add(format, Manner::Healthy);
            plan.add(format, Manner::Stalls { at_ms: 400, for_ms: 9_000 });
            plan.add(format, Manner::Stalls { at_ms: 1_100, for_ms: 7_700 });
        }
        plan
    }

    /// Players too slow for the stream, which fall behind in every GOP. Sends stay pending until
    /// all of them is taken, so the one in which a player is found to be behind often ends within
    /// the keyframe that it would go on at.
    pub fn slow_players() -> Plan {
        let slow = Faults {
            latency: Span::millis(2, 2),
            send_buffer: 8 << 10,
            receive_window: 4 << 10,
            held_send: 1.0,
            ..Faults::none()
        };
        let mut plan = one_stream(40, slow);
        plan.config.vhost.play.queue_length = Duration::from_millis(500);
        plan.stay().sizes = (40_000, 500);
        plan.rules.link = Link { delay: 40 * MS, rate: 500_000 };
        for (index, format) in Format::VERBATIM.into_iter().enumerate() {
            plan.add(format, Manner::Healthy);
            for off_ms in [300, 450, 600, 750] {
                plan.add(format, Manner::Slow { on_ms: 20, off_ms: off_ms + 31 * index as u64 });
            }
        }
        plan
    }
}
