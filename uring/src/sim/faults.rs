//! What the simulated kernel and network do to the code under test.

use super::random::Random;

/// A stretch of time to draw from, both ends included, nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Shortest.
    pub min: u64,
    /// Longest.
    pub max: u64,
}

impl Span {
    /// From `min` to `max` microseconds.
    pub const fn micros(min: u64, max: u64) -> Span {
        Span { min: min * 1_000, max: max * 1_000 }
    }

    /// From `min` to `max` milliseconds.
    pub const fn millis(min: u64, max: u64) -> Span {
        Span { min: min * 1_000_000, max: max * 1_000_000 }
    }

    pub(super) fn draw(self, random: &mut Random) -> u64 {
        random.within(self.min, self.max)
    }
}

/// Sizes, delays and probabilities (0.0 to 1.0) of one simulated world.
///
/// The two `planted_` switches put a bug into the simulator itself. They exist so that a test
/// suite can show that it would notice such a bug; nothing else may set them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Faults {
    /// One way through the network, drawn for every segment; order within a direction holds.
    pub latency: Span,
    /// From the kernel having a result to the driver seeing it.
    pub completion: Span,
    /// How long one turn of a shard takes.
    pub turn: Span,
    /// From a wake to `Event::Woken`.
    pub wake: Span,
    /// From the last operation of a closed connection to `Event::Closed`.
    pub close: Span,
    /// From the last acknowledged byte of a zero-copy send to its `Event::Released`.
    pub release: Span,
    /// Pause before a receive without buffers or a failed accept is tried again.
    pub rearm: Span,
    /// How long a stalled shard does not run; see [`Faults::stalled_turn`].
    pub stall: Span,

    /// Bytes a sending socket holds until the other end has acknowledged them.
    pub send_buffer: u32,
    /// Bytes a receiving socket holds until its owner takes them.
    pub receive_window: u32,
    /// Size of one buffer of the receive ring, bytes: most that one `Event::Received` carries.
    pub receive_buffer: u32,
    /// Buffers in a driver's receive ring; none left is ENOBUFS.
    pub receive_buffers: u32,

    /// A send takes only a part although there is room.
    pub short_send: f64,
    /// A send that was taken in part stays pending for the rest instead of completing short.
    pub held_send: f64,
    /// A receive reports only a part of what has arrived.
    pub split_receive: f64,
    /// A receive ends with ENOBUFS and is armed again later. Invisible to the owner but for time.
    pub no_buffers: f64,
    /// The network resets the connection, drawn for every send and receive.
    pub reset: f64,
    /// Accepting fails with EMFILE; the connection is taken later or turned away.
    pub accept_failure: f64,
    /// An outgoing connection fails although somebody listens.
    pub connect_failure: f64,
    /// A turn reports `Event::Woken` that nobody asked for.
    pub spurious_wake: f64,
    /// A zero-copy send is copied by the kernel after all, as on loopback.
    pub zero_copy_copied: f64,
    /// A shard is not scheduled for [`Faults::stall`] after a turn.
    pub stalled_turn: f64,

    /// Planted bug: the driver lets go of zero-copy memory at `Sent` instead of at `Released`, so
    /// that a block may be recycled while the network still reads it.
    pub planted_release_early: bool,
    /// Planted bug: one wake in eight never arrives.
    pub planted_lose_wake: bool,
}

impl Faults {
    /// A kind world: short delays, big buffers, nothing fails.
    pub const fn none() -> Faults {
        Faults {
            latency: Span::micros(50, 50),
            completion: Span::micros(0, 2),
            turn: Span::micros(2, 2),
            wake: Span::micros(1, 1),
            close: Span::micros(1, 1),
            release: Span::micros(1, 1),
            rearm: Span::micros(100, 100),
            stall: Span::millis(1, 1),
            send_buffer: 256 << 10,
            receive_window: 256 << 10,
            receive_buffer: 16 << 10,
            receive_buffers: 1024,
            short_send: 0.0,
            held_send: 0.0,
            split_receive: 0.0,
            no_buffers: 0.0,
            reset: 0.0,
            accept_failure: 0.0,
            connect_failure: 0.0,
            spurious_wake: 0.0,
            zero_copy_copied: 0.0,
            stalled_turn: 0.0,
            planted_release_early: false,
            planted_lose_wake: false,
        }
    }

    /// An unkind world in which every connection still survives: short and held sends, small
    /// buffers, late notifications, ENOBUFS, failed accepts, stalls; no resets.
    pub const fn rough() -> Faults {
        Faults {
            latency: Span::micros(20, 8_000),
            completion: Span::micros(0, 300),
            turn: Span::micros(1, 200),
            wake: Span::micros(1, 500),
            close: Span::micros(1, 5_000),
            release: Span::micros(1, 30_000),
            rearm: Span::micros(100, 3_000),
            stall: Span::millis(1, 30),
            send_buffer: 24 << 10,
            receive_window: 16 << 10,
            receive_buffer: 4 << 10,
            receive_buffers: 16,
            short_send: 0.2,
            held_send: 0.3,
            split_receive: 0.3,
            no_buffers: 0.05,
            reset: 0.0,
            accept_failure: 0.05,
            connect_failure: 0.0,
            spurious_wake: 0.05,
            zero_copy_copied: 0.2,
            stalled_turn: 0.01,
            planted_release_early: false,
            planted_lose_wake: false,
        }
    }

    /// A mix drawn from the seed: each fault is off, rare or frequent, each size small or large.
    /// Runs over many seeds then also meet worlds where one fault dominates, which an average mix
    /// never shows. Resets and failing connects are part of it.
    pub fn seeded(seed: u64) -> Faults {
        // Not the world's own generator: the faults must not shift the run's random numbers.
        let mut random = Random::new(seed ^ 0x6661_756c_7473_2121);
        let mut level = |rare: f64, frequent: f64| match random.below(4) {
            0 | 1 => 0.0,
            2 => rare,
            _ => frequent,
        };
        let mut faults = Faults {
            short_send: level(0.02, 0.5),
            held_send: level(0.1, 0.9),
            split_receive: level(0.05, 0.6),
            no_buffers: level(0.01, 0.3),
            reset: level(0.000_5, 0.005),
            accept_failure: level(0.02, 0.3),
            connect_failure: level(0.02, 0.3),
            spurious_wake: level(0.01, 0.3),
            zero_copy_copied: level(0.1, 1.0),
            stalled_turn: level(0.001, 0.02),
            ..Faults::none()
        };
        let rough = Faults::rough();
        if random.below(2) == 0 {
            faults.latency = rough.latency;
            faults.completion = rough.completion;
            faults.turn = rough.turn;
        }
        if random.below(2) == 0 {
            faults.wake = rough.wake;
            faults.close = rough.close;
            faults.release = rough.release;
            faults.rearm = rough.rearm;
            faults.stall = rough.stall;
        }
        // From buffers smaller than one message to buffers that never fill.
        faults.send_buffer = 1 << random.within(11, 20);
        faults.receive_window = 1 << random.within(11, 20);
        faults.receive_buffer = 1 << random.within(9, 16);
        faults.receive_buffers = 1 << random.within(2, 10);
        faults
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_means_one_mix_and_seeds_differ() {
        assert_eq!(Faults::seeded(5), Faults::seeded(5));
        let resets = (0..200).filter(|&seed| Faults::seeded(seed).reset > 0.0).count();
        assert!((60..140).contains(&resets), "{resets} of 200 mixes have resets");
        assert!((0..200).all(|seed| !Faults::seeded(seed).planted_release_early));
    }
}
