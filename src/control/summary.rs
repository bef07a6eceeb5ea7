//! One line in the log from time to time: what the server does and what it refused.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use super::serve::Handle;

/// Rates need to know what was counted before.
pub struct Summary {
    at: Instant,
    received: u64,
    sent: u64,
}

impl Summary {
    /// Starts counting now.
    pub fn new(handle: &Handle) -> Summary {
        let (received, sent) = totals(handle);
        Summary { at: Instant::now(), received, sent }
    }

    /// Writes the line.
    pub fn log(&mut self, handle: &Handle) {
        let (received, sent) = totals(handle);
        let seconds = self.at.elapsed().as_secs_f64().max(0.001);
        let kbps = |now: u64, before: u64| ((now - before) as f64 * 8.0 / 1000.0 / seconds) as u64;
        let sum = |pick: fn(&crate::hub::Counters) -> u64| -> u64 {
            handle.counters.iter().map(|c| pick(c)).sum()
        };
        let arena = handle.arena.stats();
        let busy: Vec<String> = handle
            .counters
            .iter()
            .map(|c| format!("{}%", c.busy_permille.load(Relaxed) / 10))
            .collect();
        let window_ms =
            handle.counters.iter().map(|c| c.window_us.load(Relaxed)).max().unwrap_or(0) / 1000;
        tracing::info!(
            streams = handle.streams.len(),
            publishers = sum(|c| c.publishers.load(Relaxed)),
            players = sum(|c| c.players.load(Relaxed)),
            connections = handle.gate.connections(),
            accepted = sum(|c| c.accepted.load(Relaxed)),
            kbps_in = kbps(received, self.received),
            kbps_out = kbps(sent, self.sent),
            messages = sum(|c| c.messages_received.load(Relaxed)),
            sends = sum(|c| c.sends.load(Relaxed)),
            media_memory_used = arena.used,
            media_memory_resident = arena.reserved,
            blocks = arena.blocks,
            window_ms,
            busy = busy.join(","),
            reasons = reasons(handle),
            "summary"
        );
        (self.at, self.received, self.sent) = (Instant::now(), received, sent);
    }
}

fn totals(handle: &Handle) -> (u64, u64) {
    handle.counters.iter().fold((0, 0), |(received, sent), c| {
        (received + c.bytes_received.load(Relaxed), sent + c.bytes_sent.load(Relaxed))
    })
}

/// `name=count` of everything that was closed, refused, dropped or skipped so far.
fn reasons(handle: &Handle) -> String {
    let mut text = String::new();
    for &reason in crate::hub::Reason::ALL {
        let count: u64 = handle.all_counters().map(|c| c.of(reason)).sum();
        if count > 0 {
            if !text.is_empty() {
                text.push(' ');
            }
            text.push_str(reason.name());
            text.push('=');
            text.push_str(&count.to_string());
        }
    }
    text
}
