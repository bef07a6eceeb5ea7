//! Starts the shards, watches signals, ends the shards.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use sha2::{Digest as _, Sha256};
use uring::{Arena, ArenaOptions, Driver, Ring, RingOptions, ZeroCopy};

use crate::config::{self, Config, Current, ListenAddr, Switch, Vhost};
use crate::fault::Fault;
use crate::hub::Counters;
use crate::limits;
use crate::log::LogHandle;
use crate::remux::{Clients, Registry};
use crate::session::admission::{Admission, has_publish_rule};
use crate::shard::gate::Gate;
use crate::shard::{Clocks, Host, Letter, Post, Service, Shard, Shared};
use crate::systemd;

use super::api::Api;
use super::api::server::{self, Guests};
use super::api::stats::Refusal;
use super::client::HttpClient;
use super::disk::{Disk, DiskStats};
use super::front::Front;
use super::hooks::stats::HookStats;
use super::hooks::{self, Hooks};
use super::listen::Listeners;
use super::load::{self, Load};
use super::programs::Programs;
use super::pulse::{FileWatch, Pulse};
use super::recorder::{self, Recorder, Wishes};
use super::reload::Reloader;
use super::segments::{self, SegmentFiles};
use super::signals::Signals;
use super::summary::Summary;
use super::tls::TlsError;
use super::upload::{self, Uploads};
use super::vod;
use super::{heartbeat, wall_ms};

/// Why serving could not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// io_uring cannot be used; says why and what to do.
    #[error("{0}; {fix}", fix = .0.fix())]
    Unavailable(#[from] uring::Unavailable),
    /// An address cannot be listened on.
    #[error("cannot listen on {addr} ({setting}): {why}{hint}")]
    Listen {
        /// The address.
        addr: SocketAddr,
        /// The setting it comes from.
        setting: &'static str,
        /// What the kernel said.
        why: io::Error,
        /// What to do.
        hint: &'static str,
    },
    /// A service manager handed over a socket that is not meant for this configuration.
    #[error(
        "the service manager handed over a socket at {0}, where no `listen` setting wants to \
         listen; make them name the same address"
    )]
    Inherited(SocketAddr),
    /// The process that started this one is gone, and `asprocess` is on.
    #[error("the parent process is gone, and asprocess is on")]
    ParentGone,
    /// Media memory cannot be reserved.
    #[error("cannot reserve media memory of {bytes} bytes: {why}; lower `media_memory`")]
    Memory {
        /// The budget.
        bytes: u64,
        /// What the kernel said.
        why: io::Error,
    },
    /// HTTPS cannot be served.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Something else of the system.
    #[error("{0}: {1}")]
    System(&'static str, io::Error),
    /// A shard's ring became unusable, or a shard hit a bug.
    #[error("shard {0} failed: {1}; please report this")]
    Shard(usize, String),
}

impl ServeError {
    /// What the index of errors knows it by.
    pub fn fault(&self) -> Fault {
        match self {
            ServeError::Unavailable(_) => Fault::IoUringUnavailable,
            ServeError::Listen { .. } => Fault::ListenFailed,
            ServeError::Inherited(_) => Fault::SocketUnexpected,
            ServeError::ParentGone => Fault::ParentGone,
            ServeError::Memory { .. } => Fault::MemoryUnavailable,
            ServeError::Tls(_) => Fault::TlsUnusable,
            ServeError::System(..) => Fault::SystemFailed,
            ServeError::Shard(..) => Fault::ShardFailed,
        }
    }
}

/// What runs beside the shards.
pub struct Handle {
    /// Letters to the shards.
    pub post: Post<<Ring as Driver>::Waker>,
    /// Streams, for listings.
    pub streams: Arc<Registry>,
    /// Media memory.
    pub arena: Arena,
    /// Counters by shard.
    pub counters: Vec<Arc<Counters>>,
    /// Who publishes and plays.
    pub clients: Arc<Clients>,
    /// Connections now.
    pub gate: Arc<Gate>,
    /// Who may publish and play.
    pub admission: Arc<Admission>,
    /// What the control thread itself counts.
    pub own: Arc<Counters>,
    /// How long hooks take.
    pub hook_stats: Arc<HookStats>,
    /// What is known of disks.
    pub disk_stats: Arc<DiskStats>,
    /// What operators want recorded.
    pub record_wishes: Arc<Wishes>,
    /// What is uploaded.
    pub uploads: Arc<Uploads>,
    /// The configuration in force.
    pub config: Arc<Current>,
    /// What ends TLS for HTTP streaming.
    pub front: Option<Arc<Front>>,
    /// Reads the configuration anew.
    pub reloader: Reloader<<Ring as Driver>::Waker>,
}

impl Handle {
    /// The counters of all threads.
    pub fn all_counters(&self) -> impl Iterator<Item = &Counters> {
        self.counters.iter().map(|c| &**c).chain([&*self.own])
    }

    /// The configuration in force now. Hold it for as long as one thing is handled.
    pub fn config(&self) -> Arc<Config> {
        self.config.load()
    }
}

/// Serves until a signal says otherwise. `ready` is called when every listener accepts.
///
/// # Errors
/// Nothing could be started, or a shard failed.
pub fn serve(
    current: Arc<Current>,
    listeners: Listeners,
    log: LogHandle,
    ready: impl FnOnce(&Handle),
) -> Result<(), ServeError> {
    let config = current.load();
    uring::probe()?;
    let Listeners { shards: sockets, doors, front, addresses } = listeners;
    if let Some(id) = server_id(&config) {
        crate::version::set_server_id(id);
    }
    let arena = arena(&config)?;
    let shards = sockets.len();
    let post = Post::new(shards);
    let own = front.iter().map(|front| front.identity.clone());
    let identities = own.chain(doors.iter().filter_map(|door| door.tls.clone())).collect();
    let serving = describe(&addresses, front.as_ref().map_or(&[], |front| &front.addresses));
    let (front, front_threads) = front
        .map(|sockets| (Front::new(sockets.to, sockets.identity, current.clone()), sockets.threads))
        .unzip();
    let handle = Arc::new(Handle {
        post: post.clone(),
        streams: Arc::new(Registry::default()),
        arena: arena.clone(),
        counters: (0..shards).map(|_| Arc::default()).collect(),
        clients: Arc::new(Clients::new(shards)),
        gate: Arc::default(),
        admission: Arc::default(),
        own: Arc::default(),
        hook_stats: Arc::default(),
        disk_stats: Arc::default(),
        record_wishes: Arc::default(),
        uploads: Arc::default(),
        config: current.clone(),
        front: front.clone(),
        reloader: Reloader::new(current.clone(), post.clone(), log.clone(), identities),
    });
    let for_segments = arena.stats().limit as u64 / 100 * limits::SEGMENT_MEMORY_PERCENT;
    handle.streams.segments.set_limit(for_segments);
    let api = Arc::new(Api::new(handle.clone()));
    let api_stats = api.stats.clone();
    let (guests, mut handed) = tokio::sync::mpsc::channel(limits::HANDED_OVER_WAITING);
    let shared = Shared {
        config: config.clone(),
        current,
        streams: handle.streams.clone(),
        arena,
        clients: handle.clients.clone(),
        gate: handle.gate.clone(),
        admission: handle.admission.clone(),
        quiet: Arc::default(),
        relayed: front.as_ref().map(|front| front.relayed.clone()),
        // Without room the connection is closed: the API has more of them than it takes anyway.
        host: config.shares_http_port().then(|| {
            Host::new(move |guest| {
                if guests.try_send(guest).is_err() {
                    api_stats.refuse(Refusal::HandedOver);
                }
            })
        }),
        post,
    };
    let (started, starts) = mpsc::channel();
    let (ended, ends) = tokio::sync::mpsc::channel(usize::from(limits::SHARDS_MAX));
    let mut threads = Vec::new();
    for (index, sockets) in sockets.into_iter().enumerate() {
        let shared = shared.clone();
        let counters = handle.counters[index].clone();
        let (started, ended) = (started.clone(), ended.clone());
        let thread = std::thread::Builder::new().name(format!("shard-{index}"));
        let thread = thread
            .spawn(move || {
                let result = run_shard(index, shared, counters, sockets, &started);
                drop(started);
                // Room for every shard, so this never waits.
                let _ = ended.try_send((index, result));
            })
            .map_err(|why| ServeError::System("cannot start a thread", why))?;
        threads.push(thread);
    }
    drop((started, ended));
    for _ in 0..shards {
        match starts.recv() {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(error),
            Err(_) => return Err(ServeError::Shard(0, "it ended while starting".into())),
        }
    }
    if let (Some(front), Some(threads)) = (&front, front_threads) {
        front.start(threads)?;
    }
    // A shard that has something to send goes before whatever this thread does.
    let _ = rustix::process::nice(NICE);
    let uploader = upload::start(handle.uploads.clone(), handle.config.clone(), handle.own.clone());
    let uploader = uploader.map_err(|why| ServeError::System("cannot start a thread", why))?;
    let uploads = handle.uploads.clone();
    tokio_uring::start(async {
        let signals = Signals::new()?;
        tracing::info!(
            version = crate::version::VERSION,
            shards,
            max_connections = config.max_connections,
            media_memory = handle.arena.stats().limit,
            "serving {serving}"
        );
        say_who_may_publish(&config);
        ready(&handle);
        let guests = Arc::new(Guests::new(api.stats.clone()));
        let (watching, reporting) = (api.clone(), api.clone());
        tokio::task::spawn(async move { watching.watch().await });
        for door in doors {
            tokio::task::spawn(server::serve(door, api.clone(), guests.clone()));
        }
        tokio::task::spawn(async move {
            while let Some(guest) = handed.recv().await {
                tokio::task::spawn(server::take_over(guest, api.clone(), guests.clone()));
            }
        });
        let client = Rc::new(HttpClient::default());
        let files = Arc::new(tokio::sync::Notify::new());
        let recordings = Arc::new(tokio::sync::Notify::new());
        let notes = [files.clone(), recordings.clone()];
        let hooks = Hooks::new(hook_parts(&handle, client.clone(), notes));
        tokio_uring::spawn(vod::run(vod_parts(&handle, recordings)));
        let segment_files = SegmentFiles::new(segment_parts(&handle, files));
        tokio_uring::spawn(segment_files.clone().run());
        tokio_uring::spawn(hooks.clone().run());
        let recorder = Recorder::new(recorder_parts(&handle, hooks.clone()));
        tokio_uring::spawn(recorder.clone().run());
        let config = handle.config.clone();
        tokio_uring::spawn(heartbeat::run(
            move || config.load(),
            move || reporting.summaries(),
            client,
        ));
        let config = handle.config.clone();
        let programs = Programs::new(handle.clients.clone(), handle.own.clone());
        let (stop_programs, stopped) = tokio::sync::oneshot::channel();
        let programs = tokio_uring::spawn(programs.run(move || config.load(), stopped));
        let outcome = watch(handle, ends, log, signals).await;
        drop(stop_programs);
        // It ends by itself; a fault in it has been reported.
        let _ = programs.await;
        let left = recorder.stop(Duration::from_millis(limits::RECORD_STOP_MS)).await;
        if left > 0 {
            let reason = Fault::RecordingsUnfinished.name();
            tracing::warn!(reason, recordings = left, "recordings could not be closed in time");
        }
        let left = hooks.flush(Duration::from_millis(limits::HOOK_FLUSH_MS)).await;
        if left > 0 {
            let reason = Fault::HooksUndelivered.name();
            tracing::warn!(
                reason,
                sessions = left,
                "hooks about ends could not be delivered in time"
            );
        }
        outcome
    })?;
    // What is not uploaded stays on disk, and is after the next start.
    uploads.stop();
    let _ = uploader.join();
    for thread in threads {
        // A shard that panicked has reported itself already.
        let _ = thread.join();
    }
    if let Some(front) = front {
        front.flush();
    }
    Ok(())
}

fn segment_parts(handle: &Handle, news: Arc<tokio::sync::Notify>) -> segments::Parts {
    let config = handle.config.clone();
    segments::Parts {
        config: Box::new(move || config.load()),
        desk: handle.admission.desk.clone(),
        counters: handle.own.clone(),
        disk: Disk::new(handle.disk_stats.clone()),
        uploads: handle.uploads.clone(),
        news,
    }
}

fn vod_parts(handle: &Handle, news: Arc<tokio::sync::Notify>) -> vod::Parts {
    let post = handle.post.clone();
    vod::Parts {
        desk: handle.admission.desk.clone(),
        disk: Disk::new(handle.disk_stats.clone()),
        // A letter that does not fit is no loss: the shard looks at its next tick.
        tell_shard: Box::new(move |shard, conn| _ = post.tell(shard, Letter::Decided(conn))),
        news,
    }
}

fn hook_parts(
    handle: &Handle,
    client: Rc<HttpClient>,
    notes: [Arc<tokio::sync::Notify>; 2],
) -> hooks::Parts {
    let (config, post) = (handle.config.clone(), handle.post.clone());
    hooks::Parts {
        config: Box::new(move || config.load()),
        admission: handle.admission.clone(),
        // A letter that does not fit is no loss: the shard looks at its next tick.
        tell_shard: Box::new(move |shard, conn| _ = post.tell(shard, Letter::Decided(conn))),
        counters: handle.own.clone(),
        stats: handle.hook_stats.clone(),
        notes,
        client,
    }
}

fn recorder_parts(handle: &Handle, hooks: Rc<Hooks>) -> recorder::Parts {
    let (config, post) = (handle.config.clone(), handle.post.clone());
    recorder::Parts {
        config: Box::new(move || config.load()),
        streams: handle.streams.clone(),
        clients: handle.clients.clone(),
        // A letter that does not fit is no loss: the recorder asks again.
        ask_for_feed: Box::new(move |shard, id| _ = post.tell(shard, Letter::Wanted(id))),
        counters: handle.own.clone(),
        disk: Disk::new(handle.disk_stats.clone()),
        hooks,
        wishes: handle.record_wishes.clone(),
        uploads: handle.uploads.clone(),
        media_memory: handle.arena.stats().limit as u64,
        backlog: Default::default(),
        grumble: Default::default(),
        telling: Arc::new(tokio::sync::Semaphore::new(limits::RECORDINGS_MAX)),
        retention_due: Default::default(),
    }
}

/// Says once where publishers are taken from this machine and its networks only.
fn say_who_may_publish(config: &Config) {
    let without = |(_, vhost): &(&str, &Vhost)| vhost.enabled && !has_publish_rule(vhost);
    let vhosts: Vec<&str> = config.all_vhosts().filter(without).map(|(name, _)| name).collect();
    if !vhosts.is_empty() {
        tracing::warn!(
            reason = Fault::ConfigDoubtful.name(),
            vhosts = vhosts[..vhosts.len().min(10)].join(" "),
            "no rule says who may publish: only loopback and private addresses may. Set \
             vhost.publish.open, or a rule (vhost.security, vhost.token, \
             vhost.http_hooks.on_publish)"
        );
    }
}

/// How much later than the shards the control thread gets its turn on a busy machine.
const NICE: i32 = 5;

type Ended = (usize, Result<(), ServeError>);

/// Waits for signals and for the shards to end.
async fn watch(
    handle: Arc<Handle>,
    mut ends: tokio::sync::mpsc::Receiver<Ended>,
    log: LogHandle,
    mut signals: Signals,
) -> Result<(), ServeError> {
    let mut summary = Summary::new(&handle);
    let mut running = handle.counters.len();
    let mut last_summary = Instant::now();
    let mut pulse = Pulse::new();
    let mut file_watch = FileWatch::default();
    let mut drain_step: Option<(Instant, DrainStep)> = None;
    let mut load = Load::new();
    let mut beat = tokio::time::interval(load::PERIOD);
    beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let config = handle.config.load();
        let interval = config.summary_interval;
        let summary_in = interval.saturating_sub(last_summary.elapsed());
        let drain_in = drain_step.map(|(at, _)| at.saturating_duration_since(Instant::now()));
        tokio::select! {
            _ = signals.interrupt.recv() => stop(&handle, "SIGINT"),
            _ = signals.terminate.recv() => match config.force_grace_quit {
                true => begin_drain(&mut drain_step, &config, "SIGTERM"),
                false => stop(&handle, "SIGTERM"),
            },
            _ = signals.quit.recv() => begin_drain(&mut drain_step, &config, "SIGQUIT"),
            _ = signals.reopen.recv() => log.reopen(),
            // What is wrong has been logged.
            _ = signals.hangup.recv() => drop(handle.reloader.reload("SIGHUP")),
            () = tokio::time::sleep_until(pulse.next.into()) => {
                pulse.beat(&handle);
                if config.asprocess && pulse.parent_is_gone() {
                    stop(&handle, "the parent process is gone");
                    return Err(ServeError::ParentGone);
                }
                if config.config_watch && file_watch.changed(&handle.config.files()) {
                    // What is wrong has been logged.
                    drop(handle.reloader.reload("the file has changed"));
                }
            }
            _ = signals.upgrade.recv() => tracing::info!("SIGUSR2: reserved, ignored"),
            _ = beat.tick() => {
                load.beat(&config, &handle.counters, &handle.streams, &handle.admission);
            }
            () = tokio::time::sleep(summary_in), if !interval.is_zero() => {
                summary.log(&handle);
                last_summary = Instant::now();
            }
            () = tokio::time::sleep(drain_in.unwrap_or_default()), if drain_in.is_some() => {
                drain_step = match drain_step {
                    Some((_, DrainStep::CloseListeners)) => {
                        let limit = config.grace_drain_limit;
                        tracing::info!(?limit, "listeners closed; players may finish");
                        handle.post.tell_all(&Letter::Drain);
                        handle.front.iter().for_each(|front| front.close());
                        Some((Instant::now() + limit, DrainStep::Stop))
                    }
                    Some((_, DrainStep::Stop)) => {
                        stop(&handle, "drain limit");
                        None
                    }
                    None => None,
                };
            }
            end = ends.recv() => {
                let Some((index, result)) = end else { break };
                running -= 1;
                if let Err(error) = result {
                    stop(&handle, "a shard failed");
                    tracing::error!(reason = Fault::ShardFailed.name(), shard = index, "{error}");
                    return Err(error);
                }
                if running == 0 {
                    break;
                }
            }
        }
    }
    summary.log(&handle);
    if drain_step.is_some() {
        tokio::time::sleep(handle.config.load().grace_final_wait).await;
    }
    tracing::info!("stopped");
    Ok(())
}

#[derive(Clone, Copy)]
enum DrainStep {
    CloseListeners,
    Stop,
}

fn begin_drain(step: &mut Option<(Instant, DrainStep)>, config: &Config, signal: &str) {
    systemd::notify(systemd::State::Stopping);
    let wait = config.grace_start_wait;
    tracing::info!(?wait, "{signal}: no more connections after this wait");
    step.get_or_insert((Instant::now() + wait, DrainStep::CloseListeners));
}

fn stop(handle: &Handle, why: &str) {
    systemd::notify(systemd::State::Stopping);
    tracing::info!(why, "stopping");
    handle.front.iter().for_each(|front| front.close());
    handle.post.tell_all(&Letter::Stop);
}

fn run_shard(
    index: usize,
    shared: Shared<<Ring as Driver>::Waker>,
    counters: Arc<Counters>,
    sockets: Vec<(OwnedFd, Service)>,
    started: &mpsc::Sender<Result<(), ServeError>>,
) -> Result<(), ServeError> {
    let clocks = Clocks { wall_ms, thread_cpu_ns };
    let setup = || -> Result<Shard<Ring>, ServeError> {
        let ring = Ring::new(RingOptions {
            shard: index as u32,
            zero_copy: match shared.config.zero_copy {
                Switch::Off => ZeroCopy::Off,
                Switch::On | Switch::Auto => ZeroCopy::Registered,
            },
            arena: Some(shared.arena.clone()),
            napi_busy_poll_us: shared.config.napi_busy_poll,
            ..RingOptions::default()
        })?;
        // The same on every shard: said once.
        if let (0, Err(why)) = (index, ring.napi_busy_poll()) {
            tracing::warn!(
                reason = Fault::KernelRefused.name(),
                "the kernel refuses NAPI busy polling ({why}): the shards sleep as usual. It takes \
                 Linux 6.9 with CONFIG_NET_RX_BUSY_POLL; set napi_busy_poll to 0 to do without"
            );
        }
        let seed = wall_ms() as u64 ^ (index as u64) << 48 ^ u64::from(std::process::id()) << 20;
        let mut shard = Shard::new(index, ring, shared, counters, clocks, seed);
        for (socket, service) in sockets {
            let listener = shard.driver().listen_on(socket);
            let failed = |why| ServeError::System("a socket cannot be listened on", why);
            shard.serve(listener.map_err(failed)?, service);
        }
        Ok(shard)
    };
    let mut shard = match setup() {
        Ok(shard) => {
            let _ = started.send(Ok(()));
            shard
        }
        Err(error) => {
            let _ = started.send(Err(error));
            return Ok(());
        }
    };
    // What a shard shares with others is suspect after a panic: the process ends. Sessions have
    // their own net (see `session`).
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| shard.run()));
    match outcome {
        Ok(Ok(())) => Ok(()),
        Ok(Err(why)) => Err(ServeError::Shard(index, why.to_string())),
        Err(_) => {
            eprintln!("ringcast: bug in shard {index}; please report the message above");
            std::process::abort();
        }
    }
}

/// The id of this server: as configured, or one that a restart does not change.
fn server_id(config: &Config) -> Option<String> {
    if !config.server_id.is_empty() {
        return Some(config.server_id.clone());
    }
    let machine = std::fs::read_to_string("/etc/machine-id").ok()?;
    let listen: Vec<String> = config.listen.iter().map(ListenAddr::to_string).collect();
    // The machine's id is not for strangers, so it goes through a hash (machine-id(5)).
    let text = format!("ringcast server id {} {}", machine.trim(), listen.join(" "));
    let digest = Sha256::digest(text.as_bytes());
    let digit =
        |byte: &u8| char::from(b"0123456789abcdefghijklmnopqrstuvwxyz"[*byte as usize % 36]);
    Some(format!("vid-{}", digest.iter().take(7).map(digit).collect::<String>()))
}

fn arena(config: &Config) -> Result<Arena, ServeError> {
    let bytes = config.media_memory.bytes(config::Memory::read());
    let huge_pages = config.huge_pages != Switch::Off;
    let arena = Arena::new(ArenaOptions { limit: bytes as usize, huge_pages })
        .map_err(|why| ServeError::Memory { bytes, why })?;
    if huge_pages {
        // The first block shows whether there are any.
        drop(arena.writer(1));
        if !arena.stats().huge_pages {
            tracing::warn!(
                reason = Fault::KernelRefused.name(),
                "no huge pages for media memory: ordinary ones are used, which costs a little CPU \
                 at many streams. Reserve some with `sysctl vm.nr_hugepages={}`, or set \
                 huge_pages to \"off\"",
                bytes >> 21
            );
        }
    }
    Ok(arena)
}

/// How many shards a configuration asks for, on this machine.
pub(super) fn shard_count(config: &Config) -> usize {
    match usize::from(config.shards) {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        shards => shards,
    }
    .min(usize::from(limits::SHARDS_MAX))
}

fn describe(addresses: &[(SocketAddr, Service)], https: &[SocketAddr]) -> String {
    let list = |service| -> Vec<SocketAddr> {
        addresses.iter().filter(|(_, s)| *s == service).map(|(addr, _)| *addr).collect()
    };
    let all =
        [("RTMP", list(Service::Rtmp)), ("HTTP", list(Service::Http)), ("HTTPS", https.to_vec())];
    let served = all.iter().filter(|(_, list)| !list.is_empty()).map(|(name, list)| {
        let list: Vec<String> = list.iter().map(SocketAddr::to_string).collect();
        format!("{name} on {}", list.join(" "))
    });
    served.collect::<Vec<_>>().join(", ")
}

fn thread_cpu_ns() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32).as_nanos() as u64
}
