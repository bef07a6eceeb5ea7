//! What the API has answered and refused, for metrics.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

/// Why somebody was refused before or instead of an answer of a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Over the limit of connections in all.
    Connections,
    /// Over the limit of connections of one address.
    Address,
    /// A shard gave connections away faster than they are taken.
    HandedOver,
    /// TLS failed, or took too long.
    Tls,
    /// The request was no HTTP, its head too long, or not there in time.
    Request,
    /// The body or the target of the request is too long.
    TooLong,
    /// Name and password, or the token, are missing or wrong.
    Unauthorized,
    /// A page of another site wanted to change something.
    CrossSite,
    /// Over the limit of readers of events.
    EventReaders,
}

impl Refusal {
    /// Every one with its name in metrics, in the order of the numbers.
    pub const ALL: [(Refusal, &'static str); 9] = [
        (Refusal::Connections, "connections"),
        (Refusal::Address, "address"),
        (Refusal::HandedOver, "handed_over"),
        (Refusal::Tls, "tls"),
        (Refusal::Request, "request"),
        (Refusal::TooLong, "too_long"),
        (Refusal::Unauthorized, "unauthorized"),
        (Refusal::CrossSite, "cross_site"),
        (Refusal::EventReaders, "event_readers"),
    ];
}

/// Counts since the start.
#[derive(Debug, Default)]
pub struct ApiStats {
    /// Connections now.
    pub connections: AtomicUsize,
    /// Connections taken.
    pub accepted: AtomicU64,
    /// Answers by the first digit of their status.
    answers: [AtomicU64; 5],
    refused: [AtomicU64; Refusal::ALL.len()],
}

impl ApiStats {
    /// Counts a refusal.
    pub fn refuse(&self, why: Refusal) {
        self.refused[why as usize].fetch_add(1, Relaxed);
    }

    /// Counts an answer.
    pub fn answer(&self, status: u16) {
        let class = usize::from(status / 100).clamp(1, self.answers.len());
        self.answers[class - 1].fetch_add(1, Relaxed);
    }

    /// Answers by class, as in `2xx`.
    pub fn answers(&self) -> impl Iterator<Item = (String, u64)> {
        self.answers.iter().zip(1..).map(|(n, class)| (format!("{class}xx"), n.load(Relaxed)))
    }

    /// Refusals by name.
    pub fn refused(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let of = |(why, name): (Refusal, _)| (name, self.refused[why as usize].load(Relaxed));
        Refusal::ALL.into_iter().map(of)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_by_class_and_name() {
        let stats = ApiStats::default();
        for status in [200, 204, 302, 404, 503, 999] {
            stats.answer(status);
        }
        let answers: Vec<_> = stats.answers().map(|(_, n)| n).collect();
        assert_eq!(answers, [0, 2, 1, 1, 2]);
        for (index, (why, _)) in Refusal::ALL.into_iter().enumerate() {
            assert_eq!(why as usize, index);
        }
        stats.refuse(Refusal::Unauthorized);
        let refused: Vec<_> = stats.refused().filter(|(_, n)| *n > 0).collect();
        assert_eq!(refused, [("unauthorized", 1)]);
    }
}
