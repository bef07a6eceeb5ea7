//! What the API has answered and refused, for metrics.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

use bytes::Bytes;

use crate::limits::{API_ANSWER_BYTES_SHORT, API_ANSWERS_BYTES_MAX};

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
    /// Too many long answers are not taken by those who asked.
    Answers,
}

impl Refusal {
    /// Every one with its name in metrics, in the order of the numbers.
    pub const ALL: [(Refusal, &'static str); 10] = [
        (Refusal::Connections, "connections"),
        (Refusal::Address, "address"),
        (Refusal::HandedOver, "handed_over"),
        (Refusal::Tls, "tls"),
        (Refusal::Request, "request"),
        (Refusal::TooLong, "too_long"),
        (Refusal::Unauthorized, "unauthorized"),
        (Refusal::CrossSite, "cross_site"),
        (Refusal::EventReaders, "event_readers"),
        (Refusal::Answers, "answers"),
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
    /// Bytes of long answers on their way.
    waiting: AtomicUsize,
}

/// A long answer that is counted until nobody needs it any more.
#[derive(Debug)]
struct Counted {
    body: Vec<u8>,
    stats: Arc<ApiStats>,
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.body
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.stats.waiting.fetch_sub(self.body.len(), Relaxed);
    }
}

impl ApiStats {
    /// Counts a refusal.
    pub fn refuse(&self, why: Refusal) {
        self.refused[why as usize].fetch_add(1, Relaxed);
    }

    /// Takes the body of an answer that is to be sent. `None` when too much is on its way.
    pub fn admit(self: &Arc<Self>, body: Vec<u8>) -> Option<Bytes> {
        if body.len() <= API_ANSWER_BYTES_SHORT {
            return Some(Bytes::from(body));
        }
        let before = self.waiting.fetch_add(body.len(), Relaxed);
        let body = Counted { body, stats: self.clone() };
        (before + body.body.len() <= API_ANSWERS_BYTES_MAX).then(|| Bytes::from_owner(body))
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
        let of = move |(why, name): (Refusal, _)| (name, self.refused[why as usize].load(Relaxed));
        Refusal::ALL.into_iter().map(of)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_answers_are_bounded_together() {
        let stats = Arc::new(ApiStats::default());
        let long = || vec![b'x'; API_ANSWERS_BYTES_MAX / 2];
        let (first, second) = (stats.admit(long()), stats.admit(long()));
        assert!(first.is_some() && second.is_some() && stats.admit(long()).is_none());
        assert!(stats.admit(vec![b'x'; API_ANSWER_BYTES_SHORT]).is_some());
        // What a client has taken a part of counts until the rest is taken.
        let mut rest = first.expect("admitted");
        let part = rest.split_to(10);
        drop(rest);
        assert!(stats.admit(long()).is_none());
        drop(part);
        assert!(stats.admit(long()).is_some());
        drop(second);
        assert_eq!(stats.waiting.load(Relaxed), 0);
    }

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
