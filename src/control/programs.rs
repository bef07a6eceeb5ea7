//! Programs that run while a stream is published (`vhost.exec`), as in SRS.
//!
//! It is looked about once a second who publishes; each publisher has the programs of its vhost.
//! One that ends is started again after a while, and all of them are ended with the publisher.
//! Programs are started by their words, never by a shell, and do not get this server's settings.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::fs::OFlags;
use rustix::process::{Pid, Signal, kill_process_group};

use super::demo::reachable;
use super::hooks::grumble::Grumble;
use super::wall_ms;
use crate::config::{CommandLine, Config, command};
use crate::date;
use crate::fault::Fault;
use crate::hub::{Counters, Place, Reason, SessionId};
use crate::limits::{PROGRAM_RESTART_MS, PROGRAM_STARTS_PER_LOOK, PROGRAM_STOP_MS, PROGRAMS_MAX};
use crate::media::name::DEFAULT_VHOST;
use crate::remux::{Client, Clients};

/// Time between two looks.
const LOOK: Duration = Duration::from_millis(500);

/// Environment that programs do not get: settings of this server, which may be secrets, and what
/// the service manager tells this process.
const WITHHELD: &[&str] = &["SRS_", "RINGCAST_", "NOTIFY_", "LISTEN_", "WATCHDOG_"];

/// The programs of a server, on its control thread.
pub struct Programs {
    clients: Arc<Clients>,
    counters: Arc<Counters>,
    grumble: Grumble,
    by_publisher: HashMap<SessionId, Vec<Program>>,
    /// Those that have been told to end.
    leaving: Vec<(Child, Instant)>,
}

/// One command line of one publisher.
struct Program {
    line: CommandLine,
    child: Option<Child>,
    /// When it is due, while it does not run.
    due: Instant,
}

impl Programs {
    /// None yet.
    pub fn new(clients: Arc<Clients>, counters: Arc<Counters>) -> Programs {
        Programs {
            clients,
            counters,
            grumble: Grumble::default(),
            by_publisher: HashMap::new(),
            leaving: Vec::new(),
        }
    }

    /// Works until `stop` says so, then ends all programs.
    pub async fn run(
        mut self,
        config: impl Fn() -> Arc<Config>,
        mut stop: tokio::sync::oneshot::Receiver<()>,
    ) {
        let mut looks = tokio::time::interval(LOOK);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = looks.tick() => self.look(&config()),
                _ = &mut stop => break,
            }
        }
        for id in self.by_publisher.keys().copied().collect::<Vec<_>>() {
            self.end(id);
        }
        while !self.leaving.is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
            self.reap();
        }
    }

    fn look(&mut self, config: &Config) {
        self.reap();
        let is_asked = config.all_vhosts().any(|(_, vhost)| vhost.exec.enabled);
        if !is_asked && self.by_publisher.is_empty() {
            return;
        }
        let publishers = if is_asked { self.publishers(config) } else { HashMap::new() };
        let gone = |(id, programs): (&SessionId, &Vec<Program>)| {
            let lines = publishers.get(id).map(|client| lines_of(config, client));
            let same = lines.is_some_and(|lines| {
                lines.len() == programs.len()
                    && lines.iter().zip(programs).all(|(line, program)| *line == program.line)
            });
            (!same).then_some(*id)
        };
        for id in self.by_publisher.iter().filter_map(gone).collect::<Vec<_>>() {
            self.end(id);
        }
        let now = Instant::now();
        let mut running =
            self.by_publisher.values().flatten().filter(|p| p.child.is_some()).count();
        let mut started = 0;
        for (id, client) in &publishers {
            let programs = self.by_publisher.entry(*id).or_insert_with(|| {
                let lines = lines_of(config, client).iter().cloned();
                lines.map(|line| Program { line, child: None, due: now }).collect()
            });
            for program in programs {
                if program.has_ended(*id) {
                    self.counters.count(Reason::ProgramEnded);
                    running -= 1;
                    program.due = now + Duration::from_millis(PROGRAM_RESTART_MS);
                }
                let is_due = program.child.is_none() && program.due <= now;
                if !is_due || started == PROGRAM_STARTS_PER_LOOK {
                    continue;
                }
                if running >= PROGRAMS_MAX {
                    self.grumble.say("limit", |more| {
                        let reason = Fault::ProgramsAtLimit.name();
                        tracing::warn!(
                            reason,
                            more,
                            "{PROGRAMS_MAX} programs run: no more are started"
                        );
                    });
                    return;
                }
                started += 1;
                match start(&program.line, config, client) {
                    Ok(child) => {
                        tracing::info!(%id, stream = %client.stream.name, pid = child.id(),
                            "program {:?} started", program.line.words[0]);
                        program.child = Some(child);
                        running += 1;
                    }
                    Err(why) => {
                        self.counters.count(Reason::ProgramEnded);
                        program.due = now + Duration::from_millis(PROGRAM_RESTART_MS);
                        self.grumble.say(program.line.text(), |more| {
                            let reason = Reason::ProgramEnded.name();
                            let name = &program.line.words[0];
                            tracing::warn!(reason, %id, more,
                                "program {name:?} cannot be started: {why}");
                        });
                    }
                }
            }
        }
    }

    /// Who publishes in a vhost that has programs.
    fn publishers(&self, config: &Config) -> HashMap<SessionId, Arc<Client>> {
        let mut found = HashMap::new();
        let mut place = Place::default();
        loop {
            let some = self.clients.read(&mut place);
            if some.is_empty() {
                return found;
            }
            let publishing = some.into_iter().filter(|client| client.kind.publishes());
            found.extend(
                publishing
                    .filter(|client| !lines_of(config, client).is_empty())
                    .map(|client| (client.id, client)),
            );
        }
    }

    /// Tells the programs of a publisher to end.
    fn end(&mut self, id: SessionId) {
        for child in self.by_publisher.remove(&id).into_iter().flatten().filter_map(|p| p.child) {
            signal(&child, Signal::TERM);
            let last = Instant::now() + Duration::from_millis(PROGRAM_STOP_MS);
            self.leaving.push((child, last));
        }
    }

    /// Looks after those that have been told to end.
    fn reap(&mut self) {
        self.leaving.retain_mut(|(child, last)| {
            if Instant::now() >= *last {
                signal(child, Signal::KILL);
            }
            matches!(child.try_wait(), Ok(None))
        });
    }
}

impl Program {
    /// True once, when it has ended by itself.
    fn has_ended(&mut self, id: SessionId) -> bool {
        let Some(child) = &mut self.child else { return false };
        let end = match child.try_wait() {
            Ok(None) => return false,
            Ok(Some(status)) => status.to_string(),
            Err(why) => why.to_string(),
        };
        // What it started itself must not outlive it.
        signal(child, Signal::TERM);
        tracing::info!(%id, pid = child.id(), "program {:?} ended ({end}); it is started again",
            self.line.words[0]);
        self.child = None;
        true
    }
}

fn lines_of<'c>(config: &'c Config, client: &Client) -> &'c [CommandLine] {
    let exec = &config.vhost(client.stream.name.vhost()).exec;
    if exec.enabled { &exec.publish.lines } else { &[] }
}

/// Signals a program and what it has started.
fn signal(child: &Child, signal: Signal) {
    if let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        // Gone already is as good.
        let _ = kill_process_group(pid, signal);
    }
}

fn start(line: &CommandLine, config: &Config, client: &Client) -> Result<Child, String> {
    let values = Values::new(config, client);
    let fill = |word: &String| command::fill(word, |name| values.get(name));
    let words = line.words.iter().map(fill).collect::<Result<Vec<_>, _>>()?;
    let output = |file: &Option<String>| -> Result<Stdio, String> {
        let Some(file) = file else { return Ok(Stdio::null()) };
        let path = fill(file)?;
        open(&path).map(Stdio::from).map_err(|why| format!("{path}: {why}"))
    };
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]).stdin(Stdio::null());
    command.stdout(output(&line.stdout)?).stderr(output(&line.stderr)?);
    // A group of its own: it is ended with all that it starts, and a Ctrl-C that is meant for the
    // server does not reach it before the server.
    command.process_group(0);
    for (name, _) in std::env::vars_os() {
        if WITHHELD.iter().any(|start| name.as_encoded_bytes().starts_with(start.as_bytes())) {
            command.env_remove(name);
        }
    }
    command.spawn().map_err(|why| why.to_string())
}

/// Opens a file to add to. Without waiting: a pipe that nobody reads would stop this thread.
fn open(path: &str) -> io::Result<File> {
    let flags = OFlags::NONBLOCK.bits() as i32;
    OpenOptions::new().append(true).create(true).custom_flags(flags).open(path)
}

/// What stands for the variables.
struct Values<'c> {
    client: &'c Client,
    port: String,
    url: String,
    date: [String; 7],
    timestamp: String,
}

impl<'c> Values<'c> {
    fn new(config: &Config, client: &'c Client) -> Values<'c> {
        let wall_ms = wall_ms();
        let name = &client.stream.name;
        let addr = config.listen.first().map(reachable);
        let host = addr.map_or_else(|| "127.0.0.1".to_owned(), |addr| addr.to_string());
        let vhost = match name.vhost() {
            DEFAULT_VHOST => String::new(),
            vhost => format!("?vhost={vhost}"),
        };
        Values {
            client,
            port: addr.map_or(1935, |addr| addr.port()).to_string(),
            url: format!("rtmp://{host}/{}/{}{vhost}", name.app(), name.stream()),
            date: date::words(wall_ms),
            timestamp: wall_ms.to_string(),
        }
    }

    fn get(&self, name: &str) -> Option<&str> {
        let (stream, urls) = (&self.client.stream.name, &self.client.urls);
        Some(match name {
            "vhost" => stream.vhost(),
            "app" => stream.app(),
            "stream" => stream.stream(),
            "port" => &self.port,
            "url" => &self.url,
            "tcUrl" => urls.tc_url(),
            "pageUrl" => urls.page_url(),
            "swfUrl" => urls.swf_url(),
            "timestamp" => &self.timestamp,
            _ => &self.date[date::WORDS.iter().position(|word| *word == name)?],
        })
    }
}
