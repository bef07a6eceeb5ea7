//! The outcome of a run: as data (JSON, schema in this module's types), and judged by the plan's
//! expectations.

use std::collections::BTreeMap;

use hdrhistogram::{Counter, Histogram};
use serde::Serialize;

use crate::check::Counts;
use crate::hls::times::HlsStats;
use crate::plan::{Expect, Plan};
use crate::sample::Sample;
use crate::stats::GroupStats;

/// A whole run's outcome. `schema` rises when a field changes its meaning or goes away.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// 1.
    pub schema: u32,
    /// The plan's name.
    pub name: String,
    /// Start, seconds since 1970.
    pub started: u64,
    /// Length of the run, seconds.
    pub seconds: f64,
    /// Publishers and players.
    pub groups: Vec<GroupReport>,
    /// All play groups together, per second.
    pub series: Vec<Second>,
    /// The server, when its pid was given.
    pub server: Option<ServerReport>,
    /// The load tester itself.
    pub tester: TesterReport,
    /// Expectations that did not hold; the run failed when there are any.
    pub violations: Vec<String>,
}

/// Publisher or player group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Publishers.
    Publish,
    /// Players.
    Play,
}

/// One group's outcome.
#[derive(Clone, Debug, Serialize)]
pub struct GroupReport {
    /// The group's name.
    pub name: String,
    /// What it did.
    pub role: Role,
    /// `rtmp`, `http-flv`, `ws-flv`, `hls`.
    pub protocol: &'static str,
    /// As in the plan.
    pub url: String,
    /// Size of the group.
    pub clients: u32,
    /// Connections tried; more than clients with churn or restarts.
    pub attempts: u64,
    /// Connections made.
    pub connects: u64,
    /// Plays or publishes the server accepted.
    pub starts: u64,
    /// Visits with media.
    pub with_media: u64,
    /// Accepted visits that ended without media.
    pub without_media: u64,
    /// Most clients with media at the same time (seen at full seconds).
    pub playing_max: u64,
    /// Visits with full checking.
    pub verified: u64,
    /// Visits we ended as planned.
    pub left: u64,
    /// Visits the server ended, and connections that failed.
    pub disconnects: u64,
    /// The same by reason.
    pub disconnect_reasons: BTreeMap<String, u64>,
    /// Time to connect.
    pub connect_ms: Quantiles,
    /// Connect to first media bytes.
    pub first_frame_ms: Quantiles,
    /// Added latency publisher to player, per message with a record.
    pub latency_ms: Quantiles,
    /// Longest silence of each visit.
    pub silence_ms: Quantiles,
    /// Silences of five seconds or more in mid-play.
    pub stalls: u64,
    /// Bitrate of each visit of at least two seconds, kbit/s.
    pub bitrate_kbps: Quantiles,
    /// Media bytes received or sent.
    pub bytes: u64,
    /// What the checking players saw.
    pub checked: Counts,
    /// Sum of the errors among it.
    pub errors: u64,
    /// Messages sent (publishers).
    pub sent_messages: u64,
    /// How late publishers were with their schedule: the tester's own lag.
    pub late_ms: Quantiles,
    /// What viewers of HLS saw besides.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hls: Option<HlsReport>,
    /// The group per second.
    pub series: Vec<Second>,
}

/// What viewers of HLS saw: numbers of the whole run, times from the start of the measurement on
/// (`measure_from`, after the ramps).
#[derive(Clone, Debug, Serialize)]
pub struct HlsReport {
    /// Requests answered with 200 (or 206).
    pub requests: u64,
    /// Playlists among them.
    pub playlists: u64,
    /// Playlists that left out what the viewer knew.
    pub deltas: u64,
    /// Whole segments.
    pub segments: u64,
    /// Parts.
    pub parts: u64,
    /// Initialisation segments.
    pub inits: u64,
    /// Other answers, by status.
    pub refused: BTreeMap<u16, u64>,
    /// Bytes of playlists.
    pub playlist_bytes: u64,
    /// Bytes of segments and parts.
    pub media_bytes: u64,
    /// Segments or parts that viewers could not have: gone from the playlist, or refused.
    pub missed: u64,
    /// Segments or parts that came after their turn to be played.
    pub late: u64,
    /// Times a server closed a connection between two answers.
    pub reconnects: u64,
    /// First rule that was broken, for people; how often is in `checked`.
    pub rule: Option<String>,
    /// Request to answer of playlists that are not held back.
    pub playlist_ms: Quantiles,
    /// Held playlists: from the publisher's sending of the message that ends the part to the
    /// answer that names the part. Needs a generated stream and a viewer that verifies.
    pub reload_ms: Quantiles,
    /// Held playlists: from the first viewer's answer to each other's.
    pub reload_after_first_ms: Quantiles,
    /// Request to last byte of segments.
    pub segment_ms: Quantiles,
    /// Parts: from the answer before (or the request) to the last byte.
    pub part_ms: Quantiles,
}

impl HlsReport {
    fn new(s: &HlsStats, rule: Option<&String>) -> HlsReport {
        HlsReport {
            requests: s.requests(),
            playlists: s.playlists,
            deltas: s.deltas,
            segments: s.segments,
            parts: s.parts,
            inits: s.inits,
            refused: s.refused.clone(),
            playlist_bytes: s.playlist_bytes,
            media_bytes: s.media_bytes,
            missed: s.missed,
            late: s.late,
            reconnects: s.reconnects,
            rule: rule.cloned(),
            playlist_ms: Quantiles::of(&s.playlist, 1000.0),
            reload_ms: Quantiles::of(&s.reload, 1000.0),
            reload_after_first_ms: Quantiles::of(&s.reload_after_first, 1000.0),
            segment_ms: Quantiles::of(&s.segment, 1000.0),
            part_ms: Quantiles::of(&s.part, 1000.0),
        }
    }
}

/// Quantiles of a histogram; all zero when it is empty.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Quantiles {
    /// How many values.
    pub n: u64,
    /// Least.
    pub min: f64,
    /// Median.
    pub p50: f64,
    /// 99th percentile.
    pub p99: f64,
    /// 99.9th percentile.
    pub p999: f64,
    /// Greatest.
    pub max: f64,
}

impl Quantiles {
    pub(crate) fn of<C: Counter>(h: &Histogram<C>, divisor: f64) -> Quantiles {
        if h.is_empty() {
            return Quantiles::default();
        }
        let at = |q: f64| h.value_at_quantile(q) as f64 / divisor;
        Quantiles {
            n: h.len(),
            min: h.min() as f64 / divisor,
            p50: at(0.5),
            p99: at(0.99),
            p999: at(0.999),
            max: h.max() as f64 / divisor,
        }
    }
}

/// One second.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Second {
    /// Seconds since the start, at the end of this one.
    pub t: u32,
    /// Clients with media.
    pub playing: u64,
    /// Mbit/s received (or sent, for publishers).
    pub mbps: f64,
    /// Connections made.
    pub connects: u64,
    /// Disconnects.
    pub disconnects: u64,
    /// Skips.
    pub skips: u64,
    /// Errors.
    pub errors: u64,
    /// Median added latency; `null` without messages.
    pub p50_ms: Option<f64>,
    /// 99th percentile.
    pub p99_ms: Option<f64>,
    /// Worst.
    pub max_ms: Option<f64>,
}

/// What the server cost.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ServerReport {
    /// Processes sampled.
    pub pids: Vec<u32>,
    /// Measurement window, seconds from the start: after the ramps.
    pub window: [f64; 2],
    /// CPU in the window, percent of one core.
    pub cpu_percent: f64,
    /// In user space.
    pub user_percent: f64,
    /// In the kernel.
    pub system_percent: f64,
    /// CPU per player, microseconds per second, over the window.
    pub cpu_us_per_player: f64,
    /// Mean number of players over the window.
    pub players: f64,
    /// Resident memory before the first client, MB.
    pub rss_first_mb: f64,
    /// At the start of the window.
    pub rss_start_mb: f64,
    /// At its end.
    pub rss_end_mb: f64,
    /// Highest.
    pub rss_max_mb: f64,
    /// Threads in the window.
    pub threads: Vec<ThreadReport>,
    /// Each second.
    pub samples: Vec<Sample>,
}

/// One thread of the server.
#[derive(Clone, Debug, Serialize)]
pub struct ThreadReport {
    /// Thread id.
    pub tid: u32,
    /// Name.
    pub name: String,
    /// Percent of one core in the window, user space.
    pub user_percent: f64,
    /// Percent of one core in the window, kernel.
    pub system_percent: f64,
}

/// The tester's own cost: a tester at its limit measures itself.
#[derive(Clone, Debug, Default, Serialize)]
pub struct TesterReport {
    /// Worker threads.
    pub threads: u32,
    /// CPU of each over the whole run, percent of a core.
    pub cpu_percent: Vec<f64>,
    /// How late publishers were with their schedule, 99th percentile, milliseconds: what the
    /// machine withholds from the tester.
    pub late_p99_ms: f64,
    /// True when a worker used more than 90 % of its core, or publishers were 50 ms late: latencies
    /// are then partly the tester's own.
    pub saturated: bool,
}

const MB: f64 = 1024.0 * 1024.0;

/// What identifies a group in a report.
#[derive(Clone, Debug)]
pub struct GroupHead {
    /// Name.
    pub name: String,
    /// Role.
    pub role: Role,
    /// Protocol name.
    pub protocol: &'static str,
    /// URL template.
    pub url: String,
    /// Clients.
    pub clients: u32,
}

/// Makes a group's report.
pub fn group_report(head: GroupHead, s: &GroupStats) -> GroupReport {
    GroupReport {
        name: head.name,
        role: head.role,
        protocol: head.protocol,
        url: head.url,
        clients: head.clients,
        attempts: s.attempts,
        connects: s.connects,
        starts: s.starts,
        with_media: s.with_media,
        without_media: s.without_media,
        playing_max: s.slices.iter().map(|x| x.playing).max().unwrap_or(0),
        verified: s.verified,
        left: s.left,
        disconnects: s.disconnect_sum(),
        disconnect_reasons: s
            .disconnects
            .iter()
            .map(|(reason, n)| {
                let detail = s.details.get(reason).filter(|d| !d.is_empty());
                let text = detail.map_or(reason.to_string(), |d| format!("{reason} ({d})"));
                (text, *n)
            })
            .collect(),
        connect_ms: Quantiles::of(&s.connect, 1000.0),
        first_frame_ms: Quantiles::of(&s.first_frame, 1000.0),
        latency_ms: Quantiles::of(&s.latency, 1000.0),
        silence_ms: Quantiles::of(&s.silence, 1000.0),
        stalls: s.stalls,
        bitrate_kbps: Quantiles::of(&s.bitrate, 1.0),
        bytes: s.bytes,
        checked: s.counts,
        errors: s.counts.errors(),
        sent_messages: s.sent_messages,
        late_ms: Quantiles::of(&s.late, 1000.0),
        hls: s.hls.as_ref().map(|hls| HlsReport::new(hls, s.rule.as_ref())),
        series: series(s),
    }
}

/// A group's seconds.
pub fn series(s: &GroupStats) -> Vec<Second> {
    let ms = |us: u64| us as f64 / 1000.0;
    s.slices
        .iter()
        .enumerate()
        .map(|(i, x)| Second {
            t: i as u32 + 1,
            playing: x.playing,
            mbps: x.bytes as f64 * 8.0 / 1e6,
            connects: x.connects,
            disconnects: x.disconnects,
            skips: x.skips,
            errors: x.errors,
            p50_ms: x.latency.as_ref().map(|h| ms(h.value_at_quantile(0.5))),
            p99_ms: x.latency.as_ref().map(|h| ms(h.value_at_quantile(0.99))),
            max_ms: x.latency.as_ref().map(|h| ms(h.max())),
        })
        .collect()
}

/// Makes the server's report from the samples of the run.
pub fn server_report(
    pids: &[u32],
    samples: Vec<Sample>,
    from: f64,
    players: &GroupStats,
) -> Option<ServerReport> {
    let first = samples.first()?;
    let last = samples.last()?;
    let start = samples.iter().find(|s| s.t >= from).unwrap_or(first);
    let span = (last.t - start.t).max(1e-9);
    let percent = |a: f64, b: f64| (b - a).max(0.0) / span * 100.0;
    let (user, system) = (percent(start.user, last.user), percent(start.system, last.system));
    let seconds = players.slices.iter().take(last.t as usize).skip(start.t as usize);
    let (sum, n) = seconds.fold((0u64, 0u64), |(sum, n), s| (sum + s.playing, n + 1));
    let mean = sum as f64 / n.max(1) as f64;
    let threads = last
        .threads
        .iter()
        .map(|(tid, now)| {
            let then = start.threads.get(tid).cloned().unwrap_or_default();
            ThreadReport {
                tid: *tid,
                name: now.name.clone(),
                user_percent: percent(then.user, now.user),
                system_percent: percent(then.system, now.system),
            }
        })
        .collect();
    Some(ServerReport {
        pids: pids.to_vec(),
        window: [start.t, last.t],
        cpu_percent: user + system,
        user_percent: user,
        system_percent: system,
        cpu_us_per_player: if mean > 0.0 { (user + system) * 1e4 / mean } else { 0.0 },
        players: mean,
        rss_first_mb: first.rss as f64 / MB,
        rss_start_mb: start.rss as f64 / MB,
        rss_end_mb: last.rss as f64 / MB,
        rss_max_mb: samples.iter().map(|s| s.rss).max().unwrap_or(0) as f64 / MB,
        threads,
        samples,
    })
}

/// Checks all expectations of the plan. Returns what does not hold, in words.
pub fn violations(
    plan: &Plan,
    groups: &[(GroupReport, GroupStats)],
    all: (&GroupReport, &GroupStats),
    server: Option<&ServerReport>,
) -> Vec<String> {
    let mut out = Vec::new();
    judge("all", &plan.expect, all.0, all.1, server, &mut out);
    for group in &plan.play {
        if let Some((report, stats)) = groups.iter().find(|(r, _)| r.name == group.name) {
            judge(&group.name, &group.expect, report, stats, server, &mut out);
        }
    }
    out
}

fn judge(
    who: &str,
    e: &Expect,
    r: &GroupReport,
    stats: &GroupStats,
    server: Option<&ServerReport>,
    out: &mut Vec<String>,
) {
    let mut most = |what: &str, value: f64, limit: Option<f64>, unit: &str| {
        if let Some(limit) = limit
            && value > limit
        {
            out.push(format!("{who}: {what} {value:.1}{unit}, at most {limit}{unit} expected"));
        }
    };
    let n = |v: Option<u64>| v.map(|v| v as f64);
    most("disconnects", r.disconnects as f64, n(e.max_disconnects), "");
    most("errors", r.errors as f64, n(e.max_errors), "");
    most("gaps", r.checked.gaps as f64, n(e.max_gaps), "");
    most("skips", r.checked.skips as f64, n(e.max_skips), "");
    most("stalls", r.stalls as f64, n(e.max_stalls), "");
    most("visits without media", r.without_media as f64, n(e.max_without_media), "");
    most("latency p50", r.latency_ms.p50, e.p50_ms, " ms");
    most("latency p99", r.latency_ms.p99, e.p99_ms, " ms");
    most("latency p99.9", r.latency_ms.p999, e.p999_ms, " ms");
    most("latency max", r.latency_ms.max, e.latency_max_ms, " ms");
    most("connect p99", r.connect_ms.p99, e.connect_p99_ms, " ms");
    most("first frame p99", r.first_frame_ms.p99, e.first_frame_p99_ms, " ms");
    if let Some(hls) = &r.hls {
        most("missed segments", hls.missed as f64, n(e.max_missed), "");
        most("late segments", hls.late as f64, n(e.max_late), "");
        most("reload p99", hls.reload_ms.p99, e.reload_p99_ms, " ms");
    }
    if let Some(s) = server {
        most("server memory", s.rss_max_mb, e.server_rss_max_mb, " MB");
        let growth = s.rss_end_mb - s.rss_start_mb;
        most("growth of server memory", growth, e.server_rss_growth_mb, " MB");
        most("server CPU", s.cpu_percent, e.server_cpu_percent, " %");
    }
    if let Some(rise) = &e.p99_rise {
        let before = stats.p99_ms(rise.before[0], rise.before[1]);
        let during = stats.p99_ms(rise.during[0], rise.during[1]);
        match (before, during) {
            (Some(b), Some(d)) => most("rise of latency p99", d - b, Some(rise.max_ms), " ms"),
            _ => out.push(format!("{who}: no latencies to compare for p99_rise")),
        }
    }
    let mut least = |what: &str, value: u64, limit: Option<u64>| {
        if let Some(limit) = limit
            && value < limit
        {
            out.push(format!("{who}: {what} {value}, at least {limit} expected"));
        }
    };
    least("skips", r.checked.skips, e.min_skips);
    least("clients playing", r.playing_max, e.min_playing);
    least("checked messages", r.checked.checked, e.min_checked);
    least("connections", r.connects, e.min_connects);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::Reason;

    fn head() -> GroupHead {
        GroupHead {
            name: "g".into(),
            role: Role::Play,
            protocol: "rtmp",
            url: "rtmp://h/live/s".into(),
            clients: 2,
        }
    }

    #[test]
    fn expectations_that_do_not_hold_are_named() {
        let mut stats = GroupStats::default();
        stats.latency(0, 10_000_000);
        stats.latency(5, 80_000_000);
        stats.disconnect(1, Reason::Closed, || "x".into());
        let report = group_report(head(), &stats);
        let expect = Expect {
            max_disconnects: Some(0),
            p99_ms: Some(50.0),
            min_playing: Some(2),
            max_gaps: Some(0),
            p99_rise: Some(Rise { before: [0.0, 1.0], during: [5.0, 6.0], max_ms: 20.0 }),
            ..Expect::default()
        };
        let mut out = Vec::new();
        judge("g", &expect, &report, &stats, None, &mut out);
        assert_eq!(out.len(), 4, "{out:?}");
        assert!(out[0].contains("disconnects 1.0, at most 0"), "{out:?}");
    }

    #[test]
    fn server_cost_is_taken_from_the_window_only() {
        let at = |t: f64, user: f64, rss: u64| Sample { t, user, rss, ..Sample::default() };
        let samples = vec![at(0.0, 5.0, 100), at(4.0, 6.0, 200), at(8.0, 8.0, 300)];
        let mut players = GroupStats::default();
        for i in 0..8 {
            players.slice(i).playing = 100;
        }
        let r = server_report(&[1], samples, 4.0, &players).unwrap();
        assert_eq!((r.window, r.cpu_percent, r.players), ([4.0, 8.0], 50.0, 100.0));
        assert!((r.cpu_us_per_player - 5000.0).abs() < 1e-6, "{}", r.cpu_us_per_player);
    }

    use crate::plan::Rise;
}
