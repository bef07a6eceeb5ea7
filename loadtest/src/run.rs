//! Starts the workers, watches the server, shows progress and puts the report together.

use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_setaffinity};
use uring::{Ring, RingOptions};

use crate::clock;
use crate::job::Job;
use crate::plan::{Plan, PlanError};
use crate::report::{
    GroupHead, Report, Role, TesterReport, group_report, series, server_report, violations,
};
use crate::sample::{Sample, sample};
use crate::stats::{GroupStats, Live, LiveSum};
use crate::worker::{Outcome, Worker};

/// Why a run could not be made. What the server does wrong is in the report instead.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The plan is at fault.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// io_uring cannot be used.
    #[error("{0}")]
    Ring(String),
    /// A worker's ring broke, or its thread.
    #[error("worker: {0}")]
    Worker(String),
    /// Too few descriptors, and no right to raise the limit.
    #[error(
        "{clients} clients need {needed} descriptors, the limit is {limit}: ulimit -n {needed}"
    )]
    Descriptors {
        /// Clients of the plan.
        clients: u64,
        /// What is needed.
        needed: u64,
        /// What is there.
        limit: u64,
    },
}

/// Runs a plan to its end.
pub fn run(plan: Plan) -> Result<Report, RunError> {
    let clients = plan.publish.iter().map(|g| u64::from(g.clients)).sum::<u64>()
        + plan.play.iter().map(|g| u64::from(g.clients)).sum::<u64>();
    raise_descriptor_limit(clients)?;
    let threads = plan.threads.max(1);
    let started = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let first = sample(&plan.server_pids, 0.0);
    let job = Arc::new(Job::new(plan)?);
    let live: Vec<Arc<Live>> = (0..threads).map(|_| Arc::default()).collect();
    let workers: Vec<_> = (0..threads)
        .map(|index| {
            let (job, live) = (Arc::clone(&job), Arc::clone(&live[index as usize]));
            thread::Builder::new()
                .name(format!("load-{index}"))
                .spawn(move || work(job, live, index, threads))
                .expect("a thread can be started")
        })
        .collect();
    let samples = watch(&job, &live, &workers, first);
    let mut groups: Vec<GroupStats> = job.groups.iter().map(|_| GroupStats::default()).collect();
    let mut tester = TesterReport { threads, ..TesterReport::default() };
    let seconds = samples.last().map_or(0.0, |s| s.t).max(0.001);
    for worker in workers {
        let outcome = worker.join().map_err(|_| RunError::Worker("panicked".into()))??;
        tester.cpu_percent.push(outcome.cpu as f64 / 1e7 / seconds);
        for (all, part) in groups.iter_mut().zip(outcome.groups) {
            all.merge(part);
        }
    }
    tester.late_p99_ms =
        groups.iter().map(|g| g.late.value_at_quantile(0.99) as f64 / 1000.0).fold(0.0, f64::max);
    tester.saturated = tester.cpu_percent.iter().any(|p| *p > 90.0) || tester.late_p99_ms > 50.0;
    Ok(report(&job, groups, samples, tester, started))
}

fn work(job: Arc<Job>, live: Arc<Live>, index: u32, of: u32) -> Result<Outcome, RunError> {
    if !job.plan.cpus.is_empty() {
        let mut set = CpuSet::new();
        set.set(job.plan.cpus[index as usize % job.plan.cpus.len()]);
        // A core that does not exist: measure unpinned rather than not at all.
        let _ = sched_setaffinity(None, &set);
    }
    let options = RingOptions { shard: index, receive_buffers: 1024, ..RingOptions::default() };
    let ring = Ring::new(options).map_err(|e| RunError::Ring(e.to_string()))?;
    Worker::new(ring, job, live, index, of).run().map_err(|e| RunError::Worker(e.to_string()))
}

/// Clients, the ring's own descriptors, files and what else a process has.
const SPARE_DESCRIPTORS: u64 = 256;

fn raise_descriptor_limit(clients: u64) -> Result<(), RunError> {
    let needed = clients + clients / 8 + SPARE_DESCRIPTORS;
    let limit = getrlimit(Resource::Nofile);
    let current = limit.current.unwrap_or(u64::MAX);
    if current >= needed {
        return Ok(());
    }
    let maximum = limit.maximum.unwrap_or(u64::MAX).max(needed);
    let raised = Rlimit { current: Some(needed), maximum: Some(maximum) };
    // Beyond the hard limit only with CAP_SYS_RESOURCE; then as far as allowed.
    if setrlimit(Resource::Nofile, raised).is_err() {
        let most = Rlimit { current: limit.maximum, maximum: limit.maximum };
        let _ = setrlimit(Resource::Nofile, most);
        let limit = limit.maximum.unwrap_or(u64::MAX);
        if limit < clients + 64 {
            return Err(RunError::Descriptors { clients, needed, limit });
        }
    }
    Ok(())
}

/// Samples the server each second and shows progress, until all workers are done.
fn watch<T>(
    job: &Job,
    live: &[Arc<Live>],
    workers: &[thread::JoinHandle<T>],
    first: Sample,
) -> Vec<Sample> {
    let pids = &job.plan.server_pids;
    let mut samples = vec![first];
    let mut progress = Progress::new(job.plan.quiet, job.plan.seconds);
    let mut next = job.start + 1_000_000_000;
    loop {
        let now = clock::now();
        let done = workers.iter().all(|w| w.is_finished());
        if now >= next || done || now >= job.end {
            let t = now.min(job.end).saturating_sub(job.start) as f64 / 1e9;
            let taken = sample(pids, t);
            progress.show(&LiveSum::read(live), samples.last().expect("one from before"), &taken);
            samples.push(taken);
            if done || now >= job.end {
                break;
            }
            next += 1_000_000_000;
        }
        let until = next.min(job.end).saturating_sub(clock::now());
        thread::sleep(Duration::from_nanos(until).min(Duration::from_millis(100)));
    }
    progress.end();
    samples
}

/// The line that is refreshed on a terminal, or printed each second elsewhere.
struct Progress {
    quiet: bool,
    terminal: bool,
    seconds: f64,
    lines: u64,
}

impl Progress {
    fn new(quiet: bool, seconds: f64) -> Progress {
        Progress { quiet, terminal: std::io::stderr().is_terminal(), seconds, lines: 0 }
    }

    fn show(&mut self, live: &LiveSum, before: &Sample, now: &Sample) {
        let span = (now.t - before.t).max(1e-3);
        let mbps = live.bytes as f64 * 8.0 / 1e6;
        self.lines += 1;
        // A log needs less than a terminal: every fifth second.
        if self.quiet || (!self.terminal && self.lines % 5 != 1) {
            return;
        }
        let mut line = format!(
            "{:4.0}/{:.0} s  playing {}  publishing {}  connecting {}  {mbps:.1} Mbit/s",
            now.t, self.seconds, live.playing, live.publishing, live.connecting
        );
        if live.p99_us > 0 {
            line += &format!("  p99 {:.1} ms", live.p99_us as f64 / 1000.0);
        }
        line +=
            &format!("  lost {}  skips {}  errors {}", live.disconnects, live.skips, live.errors);
        if now.rss > 0 {
            let cpu = (now.user + now.system - before.user - before.system) / span * 100.0;
            line += &format!("  server {cpu:.0}% {:.0} MB", now.rss as f64 / 1048576.0);
        }
        line += &format!("  tester {:.0}%", live.busy as f64 / 10.0);
        let mut err = std::io::stderr().lock();
        let _ = if self.terminal {
            write!(err, "\r\x1b[2K{line}").and_then(|()| err.flush())
        } else {
            writeln!(err, "{line}")
        };
    }

    fn end(&self) {
        if self.terminal && !self.quiet {
            let _ = write!(std::io::stderr(), "\r\x1b[2K");
        }
    }
}

fn report(
    job: &Job,
    stats: Vec<GroupStats>,
    samples: Vec<Sample>,
    tester: TesterReport,
    started: u64,
) -> Report {
    let seconds = samples.last().map_or(0.0, |s| s.t);
    let mut all = GroupStats::default();
    let mut groups = Vec::new();
    for (group, mut stats) in job.groups.iter().zip(stats) {
        // What is still on the way at the end falls into a second that is none.
        stats.slices.truncate(seconds.ceil() as usize);
        if group.head.role == Role::Play {
            all.merge(stats.clone());
        }
        groups.push((group_report(group.head.clone(), &stats), stats));
    }
    let clients = groups.iter().filter(|(r, _)| r.role == Role::Play).map(|(r, _)| r.clients).sum();
    let head = GroupHead {
        name: "all players".to_owned(),
        role: Role::Play,
        protocol: "all",
        url: String::new(),
        clients,
    };
    let total = group_report(head, &all);
    let pids = &job.plan.server_pids;
    let server = (!pids.is_empty())
        .then(|| server_report(pids, samples, job.plan.measure_start(), &all))
        .flatten();
    let mut violations = violations(&job.plan, &groups, (&total, &all), server.as_ref());
    violations.sort();
    Report {
        schema: 1,
        name: job.plan.name.clone(),
        started,
        seconds,
        groups: groups.into_iter().map(|(report, _)| report).collect(),
        series: series(&all),
        server,
        tester,
        violations,
    }
}
