//! `/metrics`: SRS's metrics by their names, and ours as `ringcast_*`, in Prometheus' text format.

use std::fmt::{Display, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::alerts::Alerts;
use super::api::stats::ApiStats;
use super::api::{Api, System};
use super::front::Front;
use super::hooks::stats::{BUCKETS_MS, HookStats};
use super::serve::Handle;
use super::upload::Summary;
use crate::hub::{Counters, Reason, RecordingState};
use crate::limits;
use crate::remux::Stream;
use crate::version;

/// All metrics, as text.
pub fn text(handle: &Handle, api: &Api) -> String {
    let mut out = Text::default();
    srs(&mut out, handle, &api.system);
    own(&mut out, handle, &api.alerts);
    of_api(&mut out, &api.stats);
    if let Some(front) = &handle.front {
        of_front(&mut out, front);
    }
    out.text
}

/// What SRS's exporter has, name by name.
fn srs(out: &mut Text, handle: &Handle, system: &System) {
    let uname = rustix::system::uname();
    let name = |part: &std::ffi::CStr| part.to_string_lossy().into_owned();
    out.family("srs_node_uname_info", "gauge", "Labeled system information.");
    let labels = [
        ("sysname", name(uname.sysname())),
        ("nodename", name(uname.nodename())),
        ("release", name(uname.release())),
        ("version", name(uname.version())),
        ("machine", name(uname.machine())),
    ];
    out.value("srs_node_uname_info", &labels, 1);

    let config = handle.config();
    let mut labels = vec![
        ("server", version::server_id().to_owned()),
        ("service", version::service_id().to_owned()),
        ("pid", std::process::id().to_string()),
        // Builds are reproducible and so have no date.
        ("build_date", String::new()),
        ("major", version::VERSION.split('.').next().unwrap_or_default().to_owned()),
        ("version", version::VERSION.to_owned()),
        ("code", "ringcast".to_owned()),
    ];
    for (name, value) in [("label", &config.exporter.label), ("tag", &config.exporter.tag)] {
        if !value.is_empty() {
            labels.push((name, value.clone()));
        }
    }
    out.family("srs_build_info", "gauge", "Labeled build information.");
    out.value("srs_build_info", &labels, 1);

    let sum = |pick: fn(&Counters) -> &AtomicU64| -> u64 {
        handle.counters.iter().map(|counters| pick(counters).load(Relaxed)).sum()
    };
    out.gauge("srs_cpu_percent", "CPU time of the server, 100 is one core.", system.cpu_percent());
    out.gauge("srs_memory", "Resident memory, kB.", system.resident_kb());
    out.counter("srs_send_bytes_total", "Bytes sent.", sum(|c| &c.bytes_sent));
    out.counter("srs_receive_bytes_total", "Bytes received.", sum(|c| &c.bytes_received));
    out.gauge("srs_streams", "Streams now.", handle.streams.len());
    out.gauge("srs_clients", "Players and publishers now.", handle.clients.len());
    let clients = &handle.clients;
    out.counter("srs_clients_total", "Players and publishers since start.", clients.joined());
    let text = "Players and publishers that ended by a fault.";
    out.counter("srs_clients_errs_total", text, clients.failed());
}

fn own(out: &mut Text, handle: &Handle, alerts: &Alerts) {
    type Pick = fn(&Counters) -> &AtomicU64;
    let gauges: [(&str, &str, Pick); 7] = [
        ("ringcast_connections", "Connections now.", |c| &c.connections),
        ("ringcast_players", "Players now.", |c| &c.players),
        ("ringcast_publishers", "Publishers now.", |c| &c.publishers),
        ("ringcast_files_open", "Files open for requests now.", |c| &c.files_open),
        ("ringcast_files_waiting", "Files that wait for their disk now.", |c| &c.files_waiting),
        ("ringcast_busy_permille", "Busy part of the last window, 1/1000.", |c| &c.busy_permille),
        ("ringcast_merge_window_us", "Merged-write window, microseconds.", |c| &c.window_us),
    ];
    let counters: [(&str, &str, Pick); 7] = [
        ("ringcast_accepted_total", "Connections accepted.", |c| &c.accepted),
        ("ringcast_messages_total", "Media messages received.", |c| &c.messages_received),
        ("ringcast_sends_total", "Sends issued to players.", |c| &c.sends),
        ("ringcast_turns_total", "Turns of the shard's loop.", |c| &c.turns),
        ("ringcast_files_opened_total", "Files opened for requests.", |c| &c.files_opened),
        ("ringcast_sent_bytes_total", "Bytes sent.", |c| &c.bytes_sent),
        ("ringcast_received_bytes_total", "Bytes received.", |c| &c.bytes_received),
    ];
    let families = gauges.iter().map(|family| (family, "gauge"));
    for ((name, help, pick), kind) in families.chain(counters.iter().map(|f| (f, "counter"))) {
        out.family(name, kind, help);
        for (shard, counters) in handle.counters.iter().enumerate() {
            out.value(name, &[("shard", shard.to_string())], pick(counters).load(Relaxed));
        }
    }
    let segments = &handle.streams.segments;
    let viewers = handle.admission.viewers.len();
    out.gauge("ringcast_hls_viewers", "Viewers of HLS now.", viewers);
    out.gauge("ringcast_hls_bytes", "Media memory that segments hold.", segments.used());
    let text = "Media memory that segments may hold.";
    out.gauge("ringcast_hls_bytes_limit", text, segments.limit());
    let name = "ringcast_reasons_total";
    out.family(name, "counter", "What was refused, closed, dropped, skipped, or failed, and why.");
    for &reason in Reason::ALL {
        // All of them, so that a first time is a rise and not a new series.
        let count: u64 = handle.all_counters().map(|counters| counters.of(reason)).sum();
        out.value(name, &[("reason", reason.name().to_owned())], count);
    }
    let name = "ringcast_added_latency_seconds";
    let help = "Time that messages waited in the merged-write window before they were sent.";
    out.family(name, "histogram", help);
    for (shard, counters) in handle.counters.iter().enumerate() {
        let mut sum = 0;
        for (bound_us, count) in counters.window_waits.buckets() {
            sum += count;
            let bound = bound_us.map_or("+Inf".to_owned(), |us| (us as f64 / 1e6).to_string());
            let labels = [("shard", shard.to_string()), ("le", bound)];
            out.value(&format!("{name}_bucket"), &labels, sum);
        }
        let labels = [("shard", shard.to_string())];
        let seconds = counters.window_waits.sum_us() as f64 / 1e6;
        out.value(&format!("{name}_sum"), &labels, seconds);
        out.value(&format!("{name}_count"), &labels, sum);
    }
    hooks(out, &handle.hook_stats);
    disks(out, handle);
    uploads(out, handle);
    let arena = handle.arena.stats();
    let help = "Media memory that may be used, bytes.";
    out.gauge("ringcast_media_memory_limit_bytes", help, arena.limit);
    let help = "Media memory in use, bytes.";
    out.gauge("ringcast_media_memory_used_bytes", help, arena.used);
    let help = "Media memory held from the system, bytes.";
    out.gauge("ringcast_media_memory_reserved_bytes", help, arena.reserved);
    let help = "Connections that may be open.";
    out.gauge("ringcast_connections_limit", help, handle.config().max_connections);
    out.gauge("ringcast_streams_limit", "Streams that may be there.", limits::STREAMS_MAX);
    let (open, waiting) = (limits::FILES_OPEN_MAX, limits::FILES_WAITING_MAX);
    out.gauge("ringcast_files_open_limit", "Files that a shard may have open.", open);
    out.gauge("ringcast_files_waiting_limit", "Files of a shard that may wait.", waiting);
    out.gauge("ringcast_media_blocks", "Blocks of media memory in use.", arena.blocks);
    let name = "ringcast_alerts";
    out.family(name, "gauge", "Streams with an alert now, by alert.");
    for (alert, count) in alerts.counts() {
        out.value(name, &[("alert", alert.to_owned())], count);
    }
}

/// What is recorded, and what disks do.
fn disks(out: &mut Text, handle: &Handle) {
    let name = "ringcast_recordings";
    out.family(name, "gauge", "Streams that are to be recorded, by what becomes of it.");
    let recorded = |stream: &Stream| stream.recording().is_some();
    let streams = handle.streams.page(0, limits::RECORDINGS_MAX, recorded);
    for state in RecordingState::ALL {
        let is_so = |stream: &&Arc<Stream>| stream.recording().is_some_and(|r| r.state() == state);
        let count = streams.iter().filter(is_so).count();
        out.value(name, &[("state", state.name().to_owned())], count);
    }
    let stats = &handle.disk_stats;
    let waiting = stats.waiting_bytes.load(Relaxed);
    out.gauge("ringcast_disk_waiting_bytes", "Bytes on their way to disks.", waiting);
    // One lot for recordings, one for segments.
    let limit = 2 * limits::DISK_BYTES_WAITING_MAX;
    out.gauge("ringcast_disk_waiting_limit_bytes", "Bytes that may be on their way.", limit);
    let counters: [(&str, &str, &AtomicU64); 5] = [
        ("ringcast_disk_written_bytes_total", "Bytes written.", &stats.written_bytes),
        ("ringcast_disk_files_total", "Files finished.", &stats.files),
        ("ringcast_disk_full_total", "Calls that found a disk full.", &stats.full),
        ("ringcast_disk_failed_total", "Calls that failed otherwise.", &stats.failed),
        ("ringcast_disk_slow_total", "Calls that took longer than a second.", &stats.slow),
    ];
    for (name, help, value) in counters {
        out.counter(name, help, value.load(Relaxed));
    }
}

/// What is uploaded, by vhosts that upload.
fn uploads(out: &mut Text, handle: &Handle) {
    let all = handle.uploads.summaries();
    type Pick = fn(&Summary) -> u64;
    let families: [(&str, &str, &str, Pick); 7] = [
        ("ringcast_uploads_waiting", "gauge", "Files that wait for their upload.", |s| s.waiting),
        ("ringcast_uploads_waiting_bytes", "gauge", "Bytes of them.", |s| s.waiting_bytes),
        ("ringcast_uploads_failing", "gauge", "1 while uploads fail or are refused.", |s| {
            s.is_failure().into()
        }),
        ("ringcast_uploaded_files_total", "counter", "Files uploaded.", |s| s.files),
        ("ringcast_uploaded_bytes_total", "counter", "Bytes uploaded.", |s| s.bytes),
        ("ringcast_uploads_failed_total", "counter", "Attempts that failed.", |s| s.failed),
        ("ringcast_uploads_given_up_total", "counter", "Files not uploaded any more.", |s| {
            s.given_up
        }),
    ];
    for (name, kind, help, pick) in families {
        out.family(name, kind, help);
        for summary in &all {
            out.value(name, &[("vhost", summary.vhost.clone())], pick(summary));
        }
    }
    let limit = limits::UPLOADS_WAITING_MAX;
    out.gauge("ringcast_uploads_waiting_limit", "Files of a vhost that are listed.", limit);
}

/// What the API does and refuses.
fn of_api(out: &mut Text, stats: &ApiStats) {
    let now = stats.connections.load(Relaxed);
    out.gauge("ringcast_api_connections", "Connections of the API now.", now);
    let taken = stats.accepted.load(Relaxed);
    out.counter("ringcast_api_accepted_total", "Connections of the API that were taken.", taken);
    let name = "ringcast_api_answers_total";
    out.family(name, "counter", "Answers of the API by status.");
    for (class, count) in stats.answers() {
        out.value(name, &[("status", class)], count);
    }
    let name = "ringcast_api_refused_total";
    out.family(name, "counter", "What the API refused, and why.");
    for (why, count) in stats.refused() {
        out.value(name, &[("reason", why.to_owned())], count);
    }
}

/// What the front of HTTPS does and refuses; nothing where there is none.
fn of_front(out: &mut Text, front: &Front) {
    let (connections, most) = front.connections();
    out.gauge("ringcast_tls_connections", "Connections of HTTPS now.", connections);
    out.gauge("ringcast_tls_connections_limit", "Connections of HTTPS that may be open.", most);
    let help = "Connections of HTTPS in their handshakes now.";
    out.gauge("ringcast_tls_handshakes", help, front.handshakes());
    let stats = &front.stats;
    for (name, help, count) in [
        ("ringcast_tls_accepted_total", "Connections of HTTPS that came.", &stats.accepted),
        ("ringcast_tls_received_bytes_total", "Bytes that were decrypted.", &stats.bytes_up),
        ("ringcast_tls_sent_bytes_total", "Bytes that were encrypted.", &stats.bytes_down),
    ] {
        out.counter(name, help, count.load(Relaxed));
    }
    let name = "ringcast_tls_refused_total";
    out.family(name, "counter", "Connections of HTTPS that ended early, and why.");
    for (why, count) in stats.refused() {
        out.value(name, &[("reason", why.to_owned())], count);
    }
}

/// How long hooks take, and how many got no answer.
fn hooks(out: &mut Text, stats: &HookStats) {
    let name = "ringcast_hook_seconds";
    out.family(name, "histogram", "Time that calls of hooks took, answered or not.");
    let mut sum = 0;
    let ends = BUCKETS_MS.iter().map(|ms| (*ms as f64 / 1e3).to_string());
    for (end, count) in ends.chain(["+Inf".to_owned()]).zip(stats.buckets()) {
        sum += count;
        out.value(&format!("{name}_bucket"), &[("le", end)], sum);
    }
    out.value(&format!("{name}_sum"), &[], stats.total().as_secs_f64());
    out.value(&format!("{name}_count"), &[], sum);
    let help = "Calls of hooks that got no answer.";
    out.counter("ringcast_hook_failures_total", help, stats.failed());
}

#[derive(Default)]
struct Text {
    text: String,
}

impl Text {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a string does not fail.
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn value(&mut self, name: &str, labels: &[(&str, String)], value: impl Display) {
        self.text.push_str(name);
        for (index, (label, text)) in labels.iter().enumerate() {
            self.text.push(if index == 0 { '{' } else { ',' });
            let text = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let _ = write!(self.text, "{label}=\"{text}\"");
        }
        if !labels.is_empty() {
            self.text.push('}');
        }
        let _ = writeln!(self.text, " {value}");
    }

    fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.family(name, "gauge", help);
        self.value(name, &[], value);
    }

    fn counter(&mut self, name: &str, help: &str, value: impl Display) {
        self.family(name, "counter", help);
        self.value(name, &[], value);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn times_of_hooks() {
        let stats = HookStats::default();
        stats.note(Duration::from_millis(3), true);
        stats.note(Duration::from_secs(60), false);
        let mut out = Text::default();
        hooks(&mut out, &stats);
        for line in [
            "ringcast_hook_seconds_bucket{le=\"0.002\"} 0",
            "ringcast_hook_seconds_bucket{le=\"0.005\"} 1",
            "ringcast_hook_seconds_bucket{le=\"30\"} 1",
            "ringcast_hook_seconds_bucket{le=\"+Inf\"} 2",
            "ringcast_hook_seconds_sum 60.003",
            "ringcast_hook_seconds_count 2",
            "ringcast_hook_failures_total 1",
        ] {
            assert!(out.text.lines().any(|found| found == line), "{line} in {}", out.text);
        }
    }

    #[test]
    fn labels_are_escaped() {
        let mut out = Text::default();
        out.value("x", &[("a", "1\"2\\3\n4".into()), ("b", "c".into())], 5);
        out.value("y", &[], 0.5);
        assert_eq!(out.text, "x{a=\"1\\\"2\\\\3\\n4\",b=\"c\"} 5\ny 0.5\n");
    }
}
