//! What scripts and pipes get: the same figures as plain text, or all answers as JSON.

use std::fmt::Write as _;

use ratatui::text::Span;
use serde_json::Value;

use super::model::Snapshot;
use super::text::{harmless, lag, rate, size, span};

/// All that was answered.
pub(super) fn json(snapshot: &Snapshot) -> String {
    let mut raw = snapshot.raw.clone();
    raw.insert("url".into(), Value::String(snapshot.url.clone()));
    format!("{}\n", Value::Object(raw))
}

/// Tables for people, without colours.
pub(super) fn text(snapshot: &Snapshot) -> String {
    let mut out = String::new();
    let own = &snapshot.summaries.own;
    let system = &snapshot.summaries.system;
    let [players, publishers] = snapshot.clients();
    let [sent, received] = snapshot.kbps();
    let _ = writeln!(
        out,
        "ringcast {} at {}, pid {}, up {}\n\
         streams {}, players {players}, publishers {publishers}, out {}, in {}\n\
         cpu {:.1} % of one core, memory {}; machine: cpu {:.0} %, memory {:.0} %, load {:.2}",
        harmless(&own.version),
        snapshot.url,
        own.pid,
        span(own.srs_uptime),
        snapshot.streams.len(),
        rate(sent),
        rate(received),
        own.cpu_percent * 100.0,
        size(own.mem_kbyte * 1024),
        system.cpu_percent * 100.0,
        system.mem_ram_percent * 100.0,
        system.load_1m,
    );
    for alert in &snapshot.alerts {
        let (url, detail) = (harmless(&alert.url), harmless(&alert.detail));
        let _ = writeln!(out, "alert {} {url}: {detail}", harmless(&alert.alert));
    }
    let streams = snapshot.streams.iter().map(|stream| {
        [
            harmless(&stream.url),
            harmless(&stream.video_text()),
            harmless(stream.audio_text()),
            stream.players().to_string(),
            rate(stream.kbps.recv_30s as f64),
            rate(stream.kbps.send_30s as f64),
        ]
    });
    table(&mut out, ["STREAM", "VIDEO", "AUDIO", "PLAYERS", "IN", "OUT"], streams.collect());
    let clients = snapshot.clients.iter().map(|client| {
        [
            harmless(&client.address()),
            harmless(&client.kind),
            harmless(&client.url),
            span(client.alive as u64),
            rate(client.rate() as f64),
            if client.publish { "-".into() } else { lag(client.ringcast.lag_ms) },
            client.ringcast.skips.to_string(),
            harmless(&client.id),
        ]
    });
    let heads = ["CLIENT", "TYPE", "STREAM", "FOR", "RATE", "LAG", "SKIPS", "ID"];
    table(&mut out, heads, clients.collect());
    out
}

fn table<const N: usize>(out: &mut String, heads: [&str; N], rows: Vec<[String; N]>) {
    if rows.is_empty() {
        return;
    }
    let rows: Vec<[String; N]> = std::iter::once(heads.map(str::to_owned)).chain(rows).collect();
    // Columns of a terminal, which are not characters: some take two.
    let columns = |cell: &str| Span::raw(cell).width();
    let widths: [usize; N] = std::array::from_fn(|column| {
        rows.iter().map(|row| columns(&row[column])).max().unwrap_or(0)
    });
    out.push('\n');
    for row in &rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(widths) {
            let fill = width.saturating_sub(columns(cell)) + 2;
            line.extend([cell.as_str(), &" ".repeat(fill)]);
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_below_each_other() {
        let mut out = String::new();
        let rows = vec![["東京".into(), "1".into()], ["abcdef".into(), "22".into()]];
        table(&mut out, ["NAME", "N"], rows);
        assert_eq!(out, "\nNAME    N\n東京    1\nabcdef  22\n");
        table(&mut out, ["NONE"], Vec::new());
        assert!(!out.contains("NONE"));
    }
}
