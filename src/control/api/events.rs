//! What happened lately: a bounded journal with numbers, and those who read it, as server-sent
//! events.
//!
//! A reader that was away names the last number it knows and gets what came after, or is told how
//! many it has missed. It costs a place in the journal, not a queue of its own.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;
use tokio::time::Sleep;

use crate::hub::{ClientChange, ClientEvent};
use crate::limits::{EVENT_STREAMS_MAX, EVENTS_KEPT};
use crate::version::id_of;

/// The journal.
#[derive(Debug)]
pub struct Journal {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    kept: Mutex<Kept>,
    news: Arc<Notify>,
    followers: AtomicUsize,
}

#[derive(Debug)]
struct Kept {
    /// As they go over the wire.
    events: VecDeque<Bytes>,
    /// Number of the one after the last.
    next: u64,
}

/// One who reads along.
#[derive(Debug)]
pub struct Follower {
    shared: Arc<Shared>,
    /// Number of the event it gets next.
    next: u64,
    news: Pin<Box<OwnedNotified>>,
    /// When silence has lasted long enough.
    silence: Pin<Box<Sleep>>,
    greeted: bool,
}

impl Journal {
    /// An empty journal. Numbers begin at 1.
    pub fn new() -> Journal {
        let kept = Mutex::new(Kept { events: VecDeque::new(), next: 1 });
        let news = Arc::new(Notify::new());
        let followers = AtomicUsize::new(0);
        Journal { shared: Arc::new(Shared { kept, news, followers }) }
    }

    /// Adds an event of a kind.
    pub fn add(&self, kind: &str, data: &Value) {
        let mut kept = self.shared.kept();
        let id = kept.next;
        kept.next += 1;
        // JSON has no line breaks, so one line of data is enough.
        kept.events.push_back(Bytes::from(format!("id: {id}\nevent: {kind}\ndata: {data}\n\n")));
        if kept.events.len() > EVENTS_KEPT {
            kept.events.pop_front();
        }
        drop(kept);
        self.shared.news.notify_waiters();
    }

    /// Adds the begin or end of a client.
    pub fn add_change<W>(&self, event: &ClientEvent<W>) {
        let (kind, reason) = match event.change {
            ClientChange::Publish => ("publish", None),
            ClientChange::Unpublish(reason) => ("unpublish", Some(reason)),
            ClientChange::Play => ("play", None),
            ClientChange::Stop(reason) => ("stop", Some(reason)),
        };
        let client = &event.client;
        let mut data = json!({
            "at_ms": event.at_ms,
            "client": client.id.as_str(),
            "ip": client.ip().to_string(),
            "type": client.kind.srs_name(),
            "protocol": client.kind.protocol(),
            "vhost": client.stream.name.vhost(),
            "stream": id_of(client.stream.name.key()),
            "url": client.stream.name.url(),
        });
        if let Some(reason) = reason {
            data["reason"] = reason.name().into();
            data["recv_bytes"] = client.bytes_in().into();
            data["send_bytes"] = client.bytes_out().into();
            data["skips"] = client.skips().into();
            data["alive_ms"] = (event.at_ms - client.opened_ms).max(0).into();
        }
        self.add(kind, &data);
    }

    /// Says that so many changes came too fast to be noted.
    pub fn note_lost(&self, count: u64) {
        if count > 0 {
            self.add("lost", &json!({ "events": count }));
        }
    }

    /// Reads along: from behind the event `last` on, or from now on and the `recent` ones before.
    /// `None` when too many do.
    pub fn follow(&self, last: Option<u64>, recent: Option<u64>) -> Option<Follower> {
        let followers = &self.shared.followers;
        if followers.fetch_add(1, Relaxed) >= EVENT_STREAMS_MAX {
            followers.fetch_sub(1, Relaxed);
            return None;
        }
        let (start, end) = {
            let kept = self.shared.kept();
            // What is not kept any more was not asked for by its number, so it is not missing.
            (kept.next - kept.events.len() as u64, kept.next)
        };
        let recent = end.saturating_sub(recent.unwrap_or(0)).max(start);
        // A number that was never given comes from another run of the server.
        let next = last.map_or(recent, |last| last.saturating_add(1));
        Some(Follower {
            shared: self.shared.clone(),
            next: if next > end { 1 } else { next.max(1) },
            news: Box::pin(self.shared.news.clone().notified_owned()),
            silence: Box::pin(tokio::time::sleep(SILENCE)),
            greeted: false,
        })
    }
}

impl Default for Journal {
    fn default() -> Self {
        Journal::new()
    }
}

impl Shared {
    fn kept(&self) -> std::sync::MutexGuard<'_, Kept> {
        // Each change leaves the journal valid.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Follower {
    /// The next piece of text; there is always one to come.
    pub fn poll_text(&mut self, context: &mut Context<'_>) -> Poll<Bytes> {
        if !std::mem::replace(&mut self.greeted, true) {
            // The head goes out with the first bytes.
            return Poll::Ready(Bytes::from(format!("retry: {RETRY_MS}\n\n")));
        }
        loop {
            // Asked to be woken first: what is added after the look below is not missed.
            let woken = self.news.as_mut().poll(context).is_ready();
            if let Some(text) = self.take() {
                self.silence.as_mut().reset(tokio::time::Instant::now() + SILENCE);
                return Poll::Ready(text);
            }
            if !woken {
                break;
            }
            self.news = Box::pin(self.shared.news.clone().notified_owned());
        }
        if self.silence.as_mut().poll(context).is_ready() {
            self.silence.as_mut().reset(tokio::time::Instant::now() + SILENCE);
            // A comment: it keeps connections alive and finds out those that are dead.
            return Poll::Ready(Bytes::from_static(b": still here\n\n"));
        }
        Poll::Pending
    }

    /// What there is from its place on, at most some dozens of events.
    fn take(&mut self) -> Option<Bytes> {
        let kept = self.shared.kept();
        let first = kept.next - kept.events.len() as u64;
        let mut text = Vec::new();
        if self.next < first {
            let missed = first - self.next;
            text.extend(format!("event: lost\ndata: {{\"events\":{missed}}}\n\n").into_bytes());
            self.next = first;
        }
        let from = (self.next - first) as usize;
        for event in kept.events.range(from.min(kept.events.len())..).take(EVENTS_PER_PIECE) {
            text.extend_from_slice(event);
            self.next += 1;
        }
        (!text.is_empty()).then(|| Bytes::from(text))
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.shared.followers.fetch_sub(1, Relaxed);
    }
}

/// Longest time without a byte.
const SILENCE: Duration = Duration::from_secs(15);
/// What readers are told to wait before they connect again, ms.
const RETRY_MS: u32 = 2_000;
const EVENTS_PER_PIECE: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    async fn next(follower: &mut Follower) -> String {
        let text = std::future::poll_fn(|context| follower.poll_text(context)).await;
        String::from_utf8(text.to_vec()).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_gets_what_comes() {
        let journal = Journal::new();
        journal.add("old", &json!({}));
        let mut follower = journal.follow(None, None).unwrap();
        assert_eq!(next(&mut follower).await, "retry: 2000\n\n");
        // Nothing comes for a while.
        assert_eq!(next(&mut follower).await, ": still here\n\n");
        let adding = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            journal.add("publish", &json!({"url": "/live/a\nb"}));
            journal.add("play", &json!({}));
        };
        let (text, ()) = tokio::join!(next(&mut follower), adding);
        let both = text
            + &if journal.shared.kept().next == follower.next {
                String::new()
            } else {
                next(&mut follower).await
            };
        let expected = "id: 2\nevent: publish\ndata: {\"url\":\"/live/a\\nb\"}\n\n\
                        id: 3\nevent: play\ndata: {}\n\n";
        assert_eq!(both, expected);
        assert_eq!(next(&mut follower).await, ": still here\n\n");
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_comes_back_misses_nothing_or_is_told() {
        let journal = Journal::new();
        for _ in 0..EVENTS_KEPT + 10 {
            journal.add("x", &json!({}));
        }
        let last = (EVENTS_KEPT + 10) as u64;
        let mut follower = journal.follow(Some(last - 2), None).unwrap();
        next(&mut follower).await;
        let text = next(&mut follower).await;
        assert!(text.starts_with(&format!("id: {}\n", last - 1)), "{text}");
        assert_eq!(text.matches("id: ").count(), 2);

        let mut late = journal.follow(Some(3), None).unwrap();
        next(&mut late).await;
        let text = next(&mut late).await;
        assert!(text.starts_with("event: lost\ndata: {\"events\":7}\n\nid: 11\n"), "{text}");

        // Who was not there before may want to know what happened lately.
        let mut recent = journal.follow(None, Some(2)).unwrap();
        next(&mut recent).await;
        assert!(next(&mut recent).await.starts_with(&format!("id: {}\n", last - 1)));
        let mut all = journal.follow(None, Some(u64::MAX)).unwrap();
        next(&mut all).await;
        assert!(next(&mut all).await.starts_with("id: 11\n"), "and nothing is missing");

        // Of a run before: everything that is kept.
        let mut other_run = journal.follow(Some(u64::MAX), None).unwrap();
        next(&mut other_run).await;
        assert!(next(&mut other_run).await.contains("id: 11\n"));
    }

    #[tokio::test]
    async fn readers_are_bounded() {
        let journal = Journal::new();
        let all: Vec<_> =
            (0..EVENT_STREAMS_MAX).map(|_| journal.follow(None, None).unwrap()).collect();
        assert!(journal.follow(None, None).is_none());
        drop(all);
        assert!(journal.follow(None, None).is_some());
    }
}
