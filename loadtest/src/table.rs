//! A report as text for a terminal.

use std::fmt::Write;

use crate::report::{GroupReport, HlsReport, Quantiles, Report, Role};

/// The whole report.
pub fn render(r: &Report) -> String {
    let mut out = String::new();
    let _ =
        writeln!(out, "{} - {:.1} s", if r.name.is_empty() { "run" } else { &r.name }, r.seconds);
    let mut rows = vec![row(&HEAD)];
    rows.extend(r.groups.iter().map(group_row));
    out += &align(&rows);
    for g in &r.groups {
        for (reason, n) in &g.disconnect_reasons {
            let _ = writeln!(out, "  {}: {n} x {reason}", g.name);
        }
        for (what, n) in errors(g) {
            let _ = writeln!(out, "  {}: {n} x {what}", g.name);
        }
        if let Some(hls) = &g.hls {
            out += &viewers(&g.name, hls);
        }
        if g.stalls > 0 {
            let _ = writeln!(out, "  {}: {} silences of 5 s or more", g.name, g.stalls);
        }
    }
    out.push('\n');
    let mut rows = vec![row(&["times, ms", "n", "min", "p50", "p99", "p99.9", "max"])];
    for g in &r.groups {
        let mut add = |what: &str, q: &Quantiles| {
            if q.n > 0 {
                rows.push(quantile_row(&format!("{} {what}", g.name), q));
            }
        };
        add("connect", &g.connect_ms);
        add("first frame", &g.first_frame_ms);
        match g.role {
            Role::Play => {
                add("latency", &g.latency_ms);
                if let Some(hls) = &g.hls {
                    add("playlist", &hls.playlist_ms);
                    add("held playlist, from the part's end", &hls.reload_ms);
                    add("held playlist, after the first", &hls.reload_after_first_ms);
                    add("segment", &hls.segment_ms);
                    add("part", &hls.part_ms);
                }
                add("longest silence", &g.silence_ms);
                add("kbit/s per player", &g.bitrate_kbps);
            }
            Role::Publish => add("behind schedule", &g.late_ms),
        }
    }
    out += &align(&rows);
    if let Some(s) = &r.server {
        let _ = writeln!(
            out,
            "\nserver, from {:.0} s to {:.0} s: {:.1} % of a core ({:.1} user, {:.1} system), \
             {:.0} us per player and second at {:.0} players",
            s.window[0],
            s.window[1],
            s.cpu_percent,
            s.user_percent,
            s.system_percent,
            s.cpu_us_per_player,
            s.players
        );
        let _ = writeln!(
            out,
            "  resident {:.1} MB before, {:.1} to {:.1} in the window, {:.1} at most; \
             TCP memory of the machine {:.1} MB at the end",
            s.rss_first_mb,
            s.rss_start_mb,
            s.rss_end_mb,
            s.rss_max_mb,
            s.samples.last().map_or(0.0, |x| x.socket_memory as f64 / 1_048_576.0)
        );
        for t in s.threads.iter().filter(|t| t.user_percent + t.system_percent >= 0.1) {
            let _ = writeln!(
                out,
                "  thread {} {}: {:.1} % user, {:.1} % system",
                t.tid, t.name, t.user_percent, t.system_percent
            );
        }
    }
    let cpu: Vec<String> = r.tester.cpu_percent.iter().map(|p| format!("{p:.0} %")).collect();
    let _ = writeln!(out, "tester: {} per worker", cpu.join(", "));
    if r.tester.saturated {
        out += "  warning: the tester or the machine was at its limit, so latencies are worse:\n";
        out += "  use more --threads, verify fewer players, or leave it more of the machine\n";
    }
    for v in &r.violations {
        let _ = writeln!(out, "VIOLATED {v}");
    }
    out
}

const HEAD: [&str; 11] = [
    "group", "protocol", "clients", "connects", "playing", "verified", "checked", "lost", "skips",
    "errors", "Mbit/s",
];

fn row(cells: &[&str]) -> Vec<String> {
    cells.iter().map(|c| (*c).to_owned()).collect()
}

fn group_row(g: &GroupReport) -> Vec<String> {
    let seconds = g.series.iter().filter(|s| s.playing > 0).count().max(1);
    let mbps = g.series.iter().map(|s| s.mbps).sum::<f64>() / seconds as f64;
    vec![
        g.name.clone(),
        g.protocol.to_owned(),
        g.clients.to_string(),
        g.connects.to_string(),
        g.playing_max.to_string(),
        g.verified.to_string(),
        g.checked.checked.to_string(),
        g.disconnects.to_string(),
        g.checked.skips.to_string(),
        g.errors.to_string(),
        format!("{mbps:.1}"),
    ]
}

/// What viewers asked for and got.
fn viewers(name: &str, hls: &HlsReport) -> String {
    let mb = |bytes: u64| bytes as f64 / 1_048_576.0;
    let mut out = format!(
        "  {name}: {} requests: {} playlists ({:.1} MB, {} of them short), {} segments, {} parts \
         ({:.1} MB)\n",
        hls.requests,
        hls.playlists,
        mb(hls.playlist_bytes),
        hls.deltas,
        hls.segments,
        hls.parts,
        mb(hls.media_bytes)
    );
    if hls.missed + hls.late + hls.reconnects > 0 {
        let (missed, late, again) = (hls.missed, hls.late, hls.reconnects);
        let _ = writeln!(out, "  {name}: {missed} missed, {late} late, {again} x connected again");
    }
    for (status, n) in &hls.refused {
        let _ = writeln!(out, "  {name}: {n} x HTTP status {status}");
    }
    if let Some(rule) = &hls.rule {
        let _ = writeln!(out, "  {name}: first rule broken: {rule}");
    }
    out
}

fn quantile_row(name: &str, q: &Quantiles) -> Vec<String> {
    let number = |v: f64| if v < 100.0 { format!("{v:.2}") } else { format!("{v:.0}") };
    let mut cells = vec![name.to_owned(), q.n.to_string()];
    cells.extend([q.min, q.p50, q.p99, q.p999, q.max].map(number));
    cells
}

fn errors(g: &GroupReport) -> Vec<(&'static str, u64)> {
    let c = &g.checked;
    let all = [
        ("gap inside a GOP", c.gaps),
        ("message repeated or reordered", c.reordered),
        ("message altered", c.altered),
        ("message of another stream", c.foreign),
        ("timestamp went back", c.timestamp_back),
        ("timestamp shifted", c.timestamp_shifted),
        ("message without a record", c.unmarked),
        ("rule of the format broken", c.rules_broken),
    ];
    all.into_iter().filter(|(_, n)| *n > 0).collect()
}

/// First column to the left, all others to the right.
fn align(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |c: usize| rows.iter().filter_map(|r| r.get(c)).map(String::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut out = String::new();
    for row in rows {
        for (i, cell) in row.iter().enumerate() {
            let w = widths[i];
            let _ = if i == 0 { write!(out, "{cell:<w$}") } else { write!(out, "  {cell:>w$}") };
        }
        out.truncate(out.trim_end().len());
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let rows = [row(&["a", "b"]), row(&["long", "1234"])];
        assert_eq!(align(&rows), "a        b\nlong  1234\n");
    }
}
