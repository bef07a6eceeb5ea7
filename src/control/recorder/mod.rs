//! The recorder: streams as files (`vhost.dvr`).
//!
//! A recording is a reader of a feed like any player (`follow`), but on the control thread: it
//! takes whole messages by reference to the feed's blocks, puts around them what files need
//! (`packing`), and gives them to the disk (`control::disk`). Nothing of it is on the way of a
//! frame. A disk that is too slow, full or broken makes a gap in the recording, which is counted
//! and told, and is tried again until it works.

mod follow;
mod job;
mod packing;
pub mod path;
pub mod recover;
mod retention;
mod to_mp4;

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

use super::disk::Disk;
use super::hooks::Hooks;
use super::hooks::body::Happening;
use super::hooks::grumble::Grumble;
use super::upload::Uploads;
use super::wall_ms;
use crate::config::{Config, Dvr};
use crate::hub::{Counters, Recording, StreamId};
use crate::limits;
use crate::remux::{Clients, Registry, Stream};
use job::Job;
use path::Template;

/// What operators want by the API, by the keys of streams: recorded or not, whatever is configured.
/// It holds until the stream is forgotten.
#[derive(Debug, Default)]
pub struct Wishes(Mutex<HashMap<String, bool>>);

impl Wishes {
    /// Notes one. False when there are too many.
    pub fn note(&self, stream: &Stream, record: bool) -> bool {
        let mut wishes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = stream.name.key();
        let fits = wishes.len() < limits::RECORDINGS_MAX || wishes.contains_key(key);
        if fits {
            wishes.insert(key.to_owned(), record);
        }
        fits
    }

    fn of(&self, stream: &Stream) -> Option<bool> {
        let wishes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        wishes.get(stream.name.key()).copied()
    }

    fn is_empty(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// Forgets those about streams that are not there any more.
    fn forget(&self, is_there: impl Fn(&str) -> bool) {
        let mut wishes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        wishes.retain(|key, _| is_there(key));
    }
}

/// What the recorder needs of the server.
pub struct Parts {
    /// The configuration in force.
    pub config: Box<dyn Fn() -> Arc<Config>>,
    /// What is published.
    pub streams: Arc<Registry>,
    /// Who publishes it.
    pub clients: Arc<Clients>,
    /// Has a shard open the feeds of a stream that are wanted.
    pub ask_for_feed: Box<dyn Fn(usize, StreamId)>,
    /// What the control thread counts.
    pub counters: Arc<Counters>,
    /// The disks.
    pub disk: Rc<Disk>,
    /// Who is told of files.
    pub hooks: Rc<Hooks>,
    /// What operators want.
    pub wishes: Arc<Wishes>,
    /// Who takes files that are whole elsewhere.
    pub uploads: Arc<Uploads>,
    /// Media memory, bytes.
    pub media_memory: u64,
    /// What recordings keep of it that nobody else needs, bytes.
    pub backlog: Cell<u64>,
    /// Complaints about streams.
    pub grumble: Grumble,
    /// Hooks that are on their way or wait for another try.
    pub telling: Arc<Semaphore>,
    /// Files have been added since old ones were last looked for.
    pub retention_due: Cell<bool>,
}

/// The recorder of a server, on its control thread.
pub struct Recorder {
    parts: Rc<Parts>,
    running: RefCell<HashMap<StreamId, Running>>,
    stopping: Cell<bool>,
}

struct Running {
    dvr: Dvr,
    stop: Rc<Cell<bool>>,
    ended: Rc<Cell<bool>>,
}

impl Parts {
    /// What hooks are told of who publishes the stream now.
    fn about(&self, stream: &Stream) -> Option<Happening> {
        let publishes = |client: &crate::remux::Client| {
            client.kind.publishes() && client.stream.id == stream.id
        };
        let client = self.clients.page_of(0, 1, publishes).pop()?;
        Some(Happening {
            client_id: client.id.to_string(),
            ip: client.ip().to_string(),
            tc_url: client.urls.tc_url().to_owned(),
            param: client.urls.param().to_owned(),
            ..nobody(stream)
        })
    }
}

/// What hooks are told where the publisher has gone before it could be asked about.
fn nobody(stream: &Stream) -> Happening {
    Happening {
        client_id: String::new(),
        ip: String::new(),
        name: stream.name.clone(),
        tc_url: String::new(),
        param: String::new(),
    }
}

impl Recorder {
    /// Nothing is recorded yet.
    pub fn new(parts: Parts) -> Rc<Recorder> {
        let (parts, running) = (Rc::new(parts), RefCell::default());
        Rc::new(Recorder { parts, running, stopping: Cell::new(false) })
    }

    /// Works until it is stopped.
    pub async fn run(self: Rc<Self>) {
        let mut looks = tokio::time::interval(Duration::from_millis(limits::RECORD_LOOK_MS));
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        tokio_uring::spawn(self.clone().keep_house());
        while !self.stopping.get() {
            looks.tick().await;
            self.look(&(self.parts.config)());
        }
    }

    /// Removes what is too old. Disks may take their time for it.
    async fn keep_house(self: Rc<Self>) {
        let mut cleaned = Instant::now();
        while !self.stopping.get() {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let due = self.parts.retention_due.take();
            if due || cleaned.elapsed() > Duration::from_millis(limits::RECORD_RETENTION_MS) {
                cleaned = Instant::now();
                let there = |key: &str| {
                    self.parts.streams.page(0, 1, |stream| stream.name.key() == key).len() == 1
                };
                self.parts.wishes.forget(there);
                retention::clean(&self.parts, &(self.parts.config)()).await;
            }
        }
    }

    /// Ends all recordings. Returns how many are left after `limit`.
    pub async fn stop(&self, limit: Duration) -> usize {
        self.stopping.set(true);
        let until = Instant::now() + limit;
        for running in self.running.borrow().values() {
            running.stop.set(true);
        }
        loop {
            self.running.borrow_mut().retain(|_, running| !running.ended.get());
            let left = self.running.borrow().len();
            if left == 0 || Instant::now() >= until {
                return left;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn look(&self, config: &Config) {
        let mut running = self.running.borrow_mut();
        running.retain(|_, running| !running.ended.get());
        let asked = config.all_vhosts().any(|(_, vhost)| vhost.dvr.enabled);
        if !asked && running.is_empty() && self.parts.wishes.is_empty() {
            return;
        }
        let wanted = |stream: &Stream| {
            let dvr = &config.vhost(stream.name.vhost()).dvr;
            let configured = || dvr.records(stream.name.app(), stream.name.stream());
            self.parts.wishes.of(stream).unwrap_or_else(configured)
        };
        // During the hold nobody publishes, and the recording waits.
        let active = |stream: &Stream| stream.is_published() || stream.recording().is_some();
        let is_wanted = |stream: &Stream| active(stream) && wanted(stream);
        let streams = self.parts.streams.page(0, limits::RECORDINGS_MAX, is_wanted);
        let mut seen = HashSet::with_capacity(streams.len());
        for stream in streams {
            seen.insert(stream.id);
            let dvr = &config.vhost(stream.name.vhost()).dvr;
            match running.get(&stream.id) {
                // It is begun anew when it has ended.
                Some(job) if job.dvr != *dvr => job.stop.set(true),
                Some(_) => {}
                None if stream.is_published() => {
                    let job = self.start(stream.clone(), dvr.clone());
                    running.insert(stream.id, job);
                }
                None => {}
            }
        }
        for (_, job) in running.iter().filter(|(id, _)| !seen.contains(id)) {
            // Not wanted any more, or its stream is gone, which it has seen itself.
            job.stop.set(true);
        }
    }

    fn start(&self, stream: Arc<Stream>, dvr: Dvr) -> Running {
        let stop = Rc::new(Cell::new(false));
        let ended = Rc::new(Cell::new(false));
        let recording = Arc::new(Recording::default());
        recording.since_ms.store(wall_ms(), std::sync::atomic::Ordering::Relaxed);
        stream.set_recording(Some(recording.clone()));
        let job = Job {
            parts: self.parts.clone(),
            about: self.parts.about(&stream).unwrap_or_else(|| nobody(&stream)),
            stream,
            recording,
            template: Template::new(&dvr.dvr_path),
            dvr: dvr.clone(),
            stop: stop.clone(),
            closing: Arc::new(Semaphore::new(limits::RECORD_CLOSING_MAX)),
            root: None,
            headers: Default::default(),
            open: None,
            pending: Vec::new(),
            wait: false,
            rejoined: None,
            lost: false,
            backlog: 0,
        };
        let done = ended.clone();
        tokio_uring::spawn(async move {
            job.run().await;
            done.set(true);
        });
        Running { dvr, stop, ended }
    }
}
