//! What the front does and refuses, for metrics.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::hub::Reason;

/// Why a connection of the front ended before it had to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Over the limit of connections in all.
    Connections,
    /// Over the limit of connections of one address.
    Address,
    /// Too many are in their handshakes.
    Handshakes,
    /// Too many of one address are.
    AddressHandshakes,
    /// The handshake failed.
    Handshake,
    /// It took too long.
    Slow,
    /// No shard took it.
    Unreached,
    /// The client did not take the end of what it was sent.
    Stalled,
}

impl Refusal {
    /// Every one with its name in metrics, in the order of the numbers.
    pub const ALL: [(Refusal, &'static str); 8] = [
        (Refusal::Connections, "connections"),
        (Refusal::Address, "address"),
        (Refusal::Handshakes, "handshakes"),
        (Refusal::AddressHandshakes, "address_handshakes"),
        (Refusal::Handshake, "handshake"),
        (Refusal::Slow, "slow"),
        (Refusal::Unreached, "unreached"),
        (Refusal::Stalled, "stalled"),
    ];

    /// Of connections, by what the gate says.
    pub(super) fn of_connections(reason: Reason) -> Refusal {
        match reason {
            Reason::AddressLimit => Refusal::Address,
            _ => Refusal::Connections,
        }
    }

    /// Of handshakes, by what the gate says.
    pub(super) fn of_handshakes(reason: Reason) -> Refusal {
        match reason {
            Reason::AddressLimit => Refusal::AddressHandshakes,
            _ => Refusal::Handshakes,
        }
    }
}

/// Counts since the start.
#[derive(Debug, Default)]
pub struct FrontStats {
    /// Connections that were accepted.
    pub accepted: AtomicU64,
    /// Bytes of clients that were passed on, decrypted.
    pub bytes_up: AtomicU64,
    /// Bytes for clients that were passed on, before they were encrypted.
    pub bytes_down: AtomicU64,
    refused: [AtomicU64; Refusal::ALL.len()],
}

impl FrontStats {
    /// Counts a refusal.
    pub fn refuse(&self, why: Refusal) {
        self.refused[why as usize].fetch_add(1, Relaxed);
    }

    /// Refusals by name.
    pub fn refused(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let of = move |(why, name): (Refusal, _)| (name, self.refused[why as usize].load(Relaxed));
        Refusal::ALL.into_iter().map(of)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_have_their_names() {
        for (index, (why, _)) in Refusal::ALL.into_iter().enumerate() {
            assert_eq!(why as usize, index);
        }
        let stats = FrontStats::default();
        stats.refuse(Refusal::Slow);
        let refused: Vec<_> = stats.refused().filter(|(_, n)| *n > 0).collect();
        assert_eq!(refused, [("slow", 1)]);
    }
}
