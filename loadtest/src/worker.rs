//! One thread's share of a run: a ring, its peers, and a heap of what is due when.
//!
//! A turn: wait for completions or the next due time, react to each completion, do what is due,
//! send what has piled up. Peers are spread over workers by their number, so workers share nothing.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use bytes::Bytes;
use uring::{Conn, ConnectOptions, Driver, Ended, Errno, Event, Payload, SendMode};

use crate::check::Checker;
use crate::clock;
use crate::hls::times::PartTimes;
use crate::hls::{Context, Habits, Outcome as Viewed};
use crate::job::{Job, What};
use crate::media::{Item, Kind, Script, is_sequence_header};
use crate::player::{Failure, Flow, Player, Step};
use crate::stats::{GroupStats, Live, Reason, record};
use crate::target::{Scheme, Target, expand};

/// What a worker hands back.
#[derive(Debug)]
pub struct Outcome {
    /// One per group of the job.
    pub groups: Vec<GroupStats>,
    /// CPU time of the thread over the run, nanoseconds.
    pub cpu: u64,
}

/// One worker.
pub struct Worker<D: Driver> {
    driver: D,
    job: Arc<Job>,
    live: Arc<Live>,
    peers: Vec<Peer>,
    /// By `Conn::index`: whose connection it is.
    owners: Vec<Option<(Conn, u32)>>,
    groups: Vec<GroupState>,
    due: BinaryHeap<Reverse<Due>>,
    /// Driver clock minus ours, to turn due times into deadlines.
    clock_ahead: i64,
    now: u64,
    second: usize,
    next_tick: u64,
    tick_cpu: u64,
    /// Peers whose output has to be sent in this turn.
    touched: Vec<u32>,
    scratch: Vec<u8>,
    /// When parts were there, by group and number of the stream.
    parts: HashMap<(u32, u32), PartTimes>,
    jitter: u64,
}

#[derive(Default)]
struct GroupState {
    stats: GroupStats,
    playing: u64,
    connecting: u64,
    /// Visits that may still begin (churn); `None`: no limit.
    visits_left: Option<u64>,
    /// Peers with a visit under way or planned.
    busy: u64,
}

/// An entry of the heap. Ordered by time first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Due {
    at: u64,
    peer: u32,
    visit: u32,
    action: Action,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Action {
    Connect,
    /// The connection or the handshake has taken too long.
    GiveUp,
    /// A publisher's next message.
    Publish,
    /// Unasked ping response of a player that does not parse.
    Ping,
    /// A viewer's playlist is to be loaded again.
    Reload,
    StopReading,
    ReadAgain,
    Leave,
}

/// Visit number of actions that hold for whatever visit is under way.
const ANY_VISIT: u32 = u32::MAX;
const GIVE_UP_NS: u64 = 10_000_000_000;
const SECOND_NS: u64 = 1_000_000_000;
/// No media for this long in mid-play is a stall.
const STALL_NS: u64 = 5 * SECOND_NS;
/// nginx-rtmp ends connections that do not answer its pings; a response without a request counts.
const PING_NS: u64 = 25 * SECOND_NS;
const PING_RESPONSE: &[u8] = &[2, 0, 0, 0, 0, 0, 6, 4, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0];
/// A publisher that has this much unsent gives up.
const BACKLOG_BYTES_MAX: usize = 16 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Away,
    Connecting,
    Handshake,
    Active,
}

struct Peer {
    group: u32,
    number: u32,
    visit: u32,
    state: State,
    verify: bool,
    /// Reads and throws away.
    discarding: bool,
    paused: bool,
    stalled: bool,
    conn: Option<Conn>,
    protocol: Option<Player>,
    checker: Option<Box<Checker>>,
    script: Option<Box<(Script, Item)>>,
    /// Handed to the driver; what is left when a send was short.
    sending: Bytes,
    connect_at: u64,
    active_at: u64,
    /// Messages sent before this are backlog, not latency.
    latency_from: u64,
    first_media: u64,
    last_media: u64,
    silence: u64,
    /// How much longer nothing may come before it is a stall: segments come one by one.
    patience: u64,
    bytes: u64,
}

impl<D: Driver> Worker<D> {
    /// A worker with the peers whose number modulo `of` is `index`.
    pub fn new(driver: D, job: Arc<Job>, live: Arc<Live>, index: u32, of: u32) -> Worker<D> {
        let now = clock::now();
        let mut worker = Worker {
            clock_ahead: driver.now_exact() as i64 - now as i64,
            driver,
            live,
            peers: Vec::new(),
            owners: Vec::new(),
            groups: Vec::new(),
            due: BinaryHeap::new(),
            now,
            second: 0,
            next_tick: job.start + SECOND_NS,
            tick_cpu: 0,
            touched: Vec::new(),
            scratch: Vec::new(),
            parts: HashMap::new(),
            jitter: u64::from(index) + 1,
            job,
        };
        worker.add_peers(index, of);
        worker
    }

    fn add_peers(&mut self, index: u32, of: u32) {
        let job = Arc::clone(&self.job);
        for (g, group) in job.groups.iter().enumerate() {
            let mut state = GroupState::default();
            let (mut verify, mut stall) = (0.0, None);
            if let What::Play { group, .. } = &group.what {
                (verify, stall) = (group.verify, group.stall);
                let cycles = group.churn.map_or(0, |c| c.cycles);
                let part =
                    cycles / u64::from(of) + u64::from(u64::from(index) < cycles % u64::from(of));
                state.visits_left = (cycles > 0).then_some(part);
            }
            for number in (0..group.head.clients).filter(|n| n % of == index) {
                let delay = if group.ramp > 0.0 { f64::from(number) / group.ramp } else { 0.0 };
                let from = job.start + group.from;
                let peer = self.peers.len() as u32;
                // Spreads the verified evenly, beginning with the first.
                let up_to = |n: u32| (f64::from(n) * verify).ceil() as u64;
                self.peers.push(Peer::new(g as u32, number, up_to(number + 1) > up_to(number)));
                self.plan(from + clock::seconds(delay), peer, 0, Action::Connect);
                if let Some(to) = group.to {
                    self.plan(job.start + to, peer, ANY_VISIT, Action::Leave);
                }
                if let Some(stall) = stall {
                    let from = job.start + clock::seconds(stall.from);
                    self.plan(from, peer, ANY_VISIT, Action::StopReading);
                    if let Some(to) = stall.to {
                        let to = job.start + clock::seconds(to);
                        self.plan(to, peer, ANY_VISIT, Action::ReadAgain);
                    }
                }
                state.busy += 1;
            }
            self.groups.push(state);
        }
    }

    /// Runs to the end of the plan.
    ///
    /// # Errors
    /// Only when the ring is unusable.
    pub fn run(mut self) -> io::Result<Outcome> {
        let cpu_before = clock::thread_cpu();
        let mut events = Vec::new();
        loop {
            let next = self.due.peek().map_or(u64::MAX, |Reverse(d)| d.at);
            self.turn(next.min(self.next_tick).min(self.job.end), &mut events)?;
            if self.now >= self.job.end || self.cycles_done() {
                break;
            }
        }
        for peer in 0..self.peers.len() as u32 {
            self.leave(peer);
        }
        let until = self.now + SECOND_NS;
        while self.owners.iter().any(Option::is_some) && self.now < until {
            self.turn(until, &mut events)?;
        }
        let groups = self.groups.into_iter().map(|g| g.stats).collect();
        Ok(Outcome { groups, cpu: clock::thread_cpu() - cpu_before })
    }

    fn turn(&mut self, until: u64, events: &mut Vec<Event>) -> io::Result<()> {
        let deadline = until.saturating_add_signed(self.clock_ahead);
        self.driver.turn(Some(deadline), events)?;
        self.now = clock::now();
        let since = self.now.saturating_sub(self.job.start);
        self.second = (since / SECOND_NS) as usize;
        for event in events.drain(..) {
            self.react(event);
        }
        while let Some(Reverse(due)) = self.due.peek().copied()
            && due.at <= self.now
        {
            self.due.pop();
            self.act(due);
        }
        while self.now >= self.next_tick {
            self.tick();
            self.next_tick += SECOND_NS;
        }
        for peer in std::mem::take(&mut self.touched) {
            self.flush(peer);
        }
        Ok(())
    }

    /// All churn is over and the plan says to end then.
    fn cycles_done(&self) -> bool {
        self.job.plan.end_when_cycles_done
            && self.groups.iter().any(|g| g.visits_left.is_some())
            && self.groups.iter().all(|g| g.visits_left.is_none_or(|left| left == 0 && g.busy == 0))
    }

    fn plan(&mut self, at: u64, peer: u32, visit: u32, action: Action) {
        self.due.push(Reverse(Due { at, peer, visit, action }));
    }

    fn owner(&self, conn: Conn) -> Option<u32> {
        let (owner, peer) = self.owners.get(conn.index()).copied().flatten()?;
        (owner == conn).then_some(peer)
    }

    // ------------------------------------------------------------------ what the kernel says

    fn react(&mut self, event: Event) {
        match event {
            Event::Connected { conn, result } => {
                let Some(peer) = self.owner(conn) else { return };
                match result {
                    Ok(()) => self.connected(peer, conn),
                    Err(Errno(errno)) => self.lost(peer, Reason::Connect(errno), String::new()),
                }
            }
            Event::Received { conn, data } => {
                let Some(peer) = self.owner(conn) else { return };
                self.received(peer, conn, &data);
            }
            Event::Discarded { conn, bytes } => {
                let Some(peer) = self.owner(conn) else { return };
                self.media_bytes(peer, u64::from(bytes));
            }
            Event::ReceiveEnded { conn, ended } => {
                let Some(peer) = self.owner(conn) else { return };
                if ended == Ended::Eof && self.viewer_goes_on(peer) {
                    return;
                }
                let active = self.peers[peer as usize].state == State::Active;
                let reason = match ended {
                    Ended::Eof if active => Reason::Closed,
                    Ended::Eof => Reason::ClosedInHandshake,
                    Ended::Error(Errno(errno)) => Reason::Broken(errno),
                };
                self.lost(peer, reason, String::new());
            }
            Event::Sent { conn, result } => {
                let Some(peer) = self.owner(conn) else { return };
                match result {
                    Ok(n) => {
                        let p = &mut self.peers[peer as usize];
                        let n = (n as usize).min(p.sending.len());
                        p.sending = p.sending.slice(n..);
                        self.flush(peer);
                    }
                    Err(Errno(errno)) => self.lost(peer, Reason::Broken(errno), String::new()),
                }
            }
            Event::Closed { conn } => {
                if self.owner(conn).is_some() {
                    self.owners[conn.index()] = None;
                }
            }
            Event::Accepted { .. }
            | Event::AcceptFailed { .. }
            | Event::Released { .. }
            | Event::HandedOver { .. }
            | Event::Opened { .. }
            | Event::Woken => {}
        }
    }

    fn connected(&mut self, peer: u32, conn: Conn) {
        let now = self.now;
        let job = Arc::clone(&self.job);
        let p = &mut self.peers[peer as usize];
        if let (State::Active, Some(Player::Hls(viewer))) = (p.state, &mut p.protocol) {
            viewer.resume(now);
            self.driver.receive(conn);
            self.touched.push(peer);
            return;
        }
        let group = &job.groups[p.group as usize];
        let target = p.target(&job);
        let seed = now ^ u64::from(peer) << 40;
        p.state = State::Handshake;
        p.protocol = Some(match &group.what {
            What::Publish { .. } => Player::publish(&target, seed),
            What::Play { group, .. } if target.scheme == Scheme::Hls => {
                let (parts, hints, deltas) = (group.low_latency, group.hints, group.deltas);
                Player::view(&target, Habits { parts, hints, deltas, verify: p.verify }, now)
            }
            What::Play { .. } => Player::play(&target, seed),
        });
        let connect_ns = now - p.connect_at;
        let stats = &mut self.groups[p.group as usize].stats;
        stats.connects += 1;
        stats.slice(self.second).connects += 1;
        record(&mut stats.connect, connect_ns);
        self.driver.receive(conn);
        self.touched.push(peer);
    }

    fn received(&mut self, peer: u32, conn: Conn, data: &[u8]) {
        let p = &mut self.peers[peer as usize];
        if p.discarding {
            // On the way when discarding began.
            self.media_bytes(peer, data.len() as u64);
            return;
        }
        if matches!(p.protocol, Some(Player::Hls(_))) {
            return self.viewed(peer, conn, Some(data));
        }
        let Some(mut protocol) = p.protocol.take() else { return };
        let was_active = p.state == State::Active;
        let verify = p.verify;
        let publisher = matches!(self.job.groups[p.group as usize].what, What::Publish { .. });
        let (now, second) = (self.now, self.second);
        let state = &mut self.groups[p.group as usize];
        let (mut started, mut frame) = (false, false);
        let errors_before =
            p.checker.as_ref().map_or((0, 0), |c| (c.counts().errors(), c.counts().skips));
        let mut checker = p.checker.take();
        let mut latency_from = p.latency_from;
        let result = protocol.input(data, &mut |step| match step {
            Step::Started => {
                started = true;
                latency_from = now;
                if verify || publisher { Flow::Continue } else { Flow::Stop }
            }
            Step::Message { kind, timestamp, payload } => {
                frame |= kind != Kind::Data && !is_sequence_header(kind, payload);
                if let Some(checker) = &mut checker
                    && let Some(found) = checker.message(kind, timestamp, payload)
                    && found.sent >= latency_from
                {
                    state.stats.latency(second, now.saturating_sub(found.sent));
                }
                Flow::Continue
            }
        });
        p.latency_from = latency_from;
        if let Some(checker) = &checker {
            let counts = checker.counts();
            let slice = state.stats.slice(second);
            slice.errors += counts.errors() - errors_before.0;
            slice.skips += counts.skips - errors_before.1;
            self.live.errors.fetch_add(counts.errors() - errors_before.0, Relaxed);
            self.live.skips.fetch_add(counts.skips - errors_before.1, Relaxed);
        }
        p.checker = checker;
        if !protocol.output().is_empty() {
            self.touched.push(peer);
        }
        p.protocol = Some(protocol);
        match result {
            Ok(rest) => {
                if started && !was_active {
                    self.started(peer, conn);
                }
                let p = &self.peers[peer as usize];
                if verify && !publisher && (was_active || started) {
                    if frame || p.first_media != 0 {
                        self.media_bytes(peer, data.len() as u64);
                    }
                } else if rest > 0 && p.discarding {
                    self.media_bytes(peer, rest as u64);
                }
            }
            Err(failure) => self.failed(peer, &failure),
        }
    }

    fn failed(&mut self, peer: u32, failure: &Failure) {
        let reason = match failure {
            Failure::Refused(_) => Reason::Refused,
            Failure::Protocol(_) => Reason::Protocol,
            Failure::Ended => Reason::Closed,
        };
        self.lost(peer, reason, failure.to_string());
    }

    /// Bytes, or the end of them, came to a viewer of HLS.
    fn viewed(&mut self, peer: u32, conn: Conn, data: Option<&[u8]>) {
        let (now, second) = (self.now, self.second);
        let job = Arc::clone(&self.job);
        let key = self.peers[peer as usize].place(&job);
        let p = &mut self.peers[peer as usize];
        let Some(Player::Hls(viewer)) = &mut p.protocol else { return };
        let group = &mut self.groups[p.group as usize].stats;
        let mut counted = group.hls.take().unwrap_or_default();
        let mut checker = p.checker.take();
        let before = checker.as_ref().map_or((0, 0), |c| (c.counts().errors(), c.counts().skips));
        let (mut records, mut rule) = (Vec::new(), None);
        let mut faults = 0;
        let mut cx = Context {
            now,
            stats: &mut counted,
            parts: self.parts.entry(key).or_default(),
            on_record: &mut |found| records.push(found),
            on_fault: &mut |why| {
                faults += 1;
                rule = Some(why);
            },
        };
        let result = match data {
            Some(data) => viewer.input(data, &mut cx),
            None => viewer.end(&mut cx),
        };
        group.hls = Some(counted);
        group.rule = group.rule.take().or(rule);
        p.patience = viewer.patience();
        if result.as_ref().is_ok_and(|viewed| viewed.started) {
            p.latency_from = now;
        }
        if let Some(checker) = &mut checker {
            (0..faults).for_each(|_| checker.rule_broken());
            for found in records {
                if let Some(record) = checker.frame(found)
                    && record.sent >= p.latency_from
                    && p.latency_from > 0
                {
                    group.latency(second, now.saturating_sub(record.sent));
                }
            }
            let counts = checker.counts();
            let (errors, skips) = (counts.errors() - before.0, counts.skips - before.1);
            let slice = group.slice(second);
            (slice.errors, slice.skips) = (slice.errors + errors, slice.skips + skips);
            self.live.errors.fetch_add(errors, Relaxed);
            self.live.skips.fetch_add(skips, Relaxed);
        }
        p.checker = checker;
        if !viewer.output().is_empty() {
            self.touched.push(peer);
        }
        match result {
            Ok(viewed) => self.go_on_viewing(peer, conn, viewed),
            Err(failure) => self.failed(peer, &failure),
        }
    }

    fn go_on_viewing(&mut self, peer: u32, conn: Conn, viewed: Viewed) {
        if viewed.started {
            self.started(peer, conn);
        }
        if viewed.media_bytes > 0 {
            self.media_bytes(peer, viewed.media_bytes);
        }
        if let Some(at) = viewed.reload_at {
            let visit = self.peers[peer as usize].visit;
            self.plan(at, peer, visit, Action::Reload);
        }
        if viewed.closes {
            self.connect_again(peer);
        }
    }

    /// The server has closed a viewer's connection. True when the viewer goes on over another.
    fn viewer_goes_on(&mut self, peer: u32) -> bool {
        let p = &self.peers[peer as usize];
        let (Some(conn), State::Active) = (p.conn, p.state) else { return false };
        if !matches!(p.protocol, Some(Player::Hls(_))) {
            return false;
        }
        self.viewed(peer, conn, None);
        let p = &self.peers[peer as usize];
        match &p.protocol {
            // What came with the end led to another connection already, or to the end of the visit.
            _ if p.conn != Some(conn) => true,
            Some(Player::Hls(viewer)) if viewer.survives_end() => {
                self.connect_again(peer);
                true
            }
            _ => false,
        }
    }

    /// Another connection for a viewer whose server does not want to serve longer on this one.
    fn connect_again(&mut self, peer: u32) {
        let job = Arc::clone(&self.job);
        let p = &mut self.peers[peer as usize];
        let group = &mut self.groups[p.group as usize];
        group.stats.hls.get_or_insert_default().reconnects += 1;
        if let Some(conn) = p.conn.take() {
            self.driver.close(conn);
        }
        p.sending = Bytes::new();
        self.dial(peer, &job);
    }

    /// The server has accepted to play or publish.
    fn started(&mut self, peer: u32, conn: Conn) {
        let now = self.now;
        let job = Arc::clone(&self.job);
        let jitter = self.jitter();
        let p = &mut self.peers[peer as usize];
        let visit = p.visit;
        p.state = State::Active;
        p.active_at = now;
        p.last_media = now;
        let group = &mut self.groups[p.group as usize];
        group.connecting -= 1;
        group.stats.starts += 1;
        group.stats.verified += u64::from(p.verify);
        match &job.groups[p.group as usize].what {
            What::Publish { group: settings, source, stream_base } => {
                let epoch = job.epoch_base.wrapping_add(visit);
                let mut script = Script::new(source, stream_base + p.number, epoch, 0);
                let item = script.next_item();
                if let Some(protocol) = &mut p.protocol {
                    for (kind, payload) in source.headers() {
                        protocol.write_message(*kind, settings.first_timestamp, payload);
                    }
                }
                p.script = Some(Box::new((script, item)));
                if let Some(restart) = settings.restart
                    && (restart.times == 0 || visit <= restart.times)
                {
                    self.plan(now + clock::seconds(restart.every), peer, visit, Action::Leave);
                }
                self.plan(now, peer, visit, Action::Publish);
            }
            What::Play { group: settings, .. } => {
                let views = matches!(p.protocol, Some(Player::Hls(_)));
                if !p.verify && !views {
                    p.discarding = true;
                    let rtmp = matches!(p.protocol, Some(Player::Rtmp(_)));
                    if p.protocol.as_mut().is_none_or(|x| x.output().is_empty()) {
                        p.protocol = None;
                    }
                    self.driver.receive_discard(conn);
                    if rtmp {
                        self.plan(now + PING_NS, peer, visit, Action::Ping);
                    }
                }
                if let Some(churn) = settings.churn {
                    // From half to one and a half lifetimes, so that visits do not stay in step.
                    let span = clock::seconds(churn.lifetime);
                    let span = span / 2 + ((u128::from(span) * u128::from(jitter)) >> 32) as u64;
                    self.plan(now + span, peer, visit, Action::Leave);
                }
            }
        }
    }

    /// Media arrived at a player.
    fn media_bytes(&mut self, peer: u32, bytes: u64) {
        let p = &mut self.peers[peer as usize];
        let group = &mut self.groups[p.group as usize];
        if p.first_media == 0 {
            p.first_media = self.now;
            record(&mut group.stats.first_frame, self.now - p.connect_at);
            group.playing += 1;
            group.stats.with_media += 1;
        } else {
            p.silence = p.silence.max(self.now - p.last_media);
        }
        p.stalled = false;
        p.last_media = self.now;
        p.bytes += bytes;
        group.stats.bytes += bytes;
        group.stats.slice(self.second).bytes += bytes;
    }

    // ------------------------------------------------------------------ what is due

    fn act(&mut self, due: Due) {
        let p = &mut self.peers[due.peer as usize];
        if due.visit != ANY_VISIT && due.visit != p.visit {
            return;
        }
        match due.action {
            Action::Connect => self.connect(due.peer),
            Action::GiveUp if p.state != State::Active => {
                let reason = match p.state {
                    State::Connecting => Reason::ConnectTimeout,
                    _ => Reason::HandshakeTimeout,
                };
                self.lost(due.peer, reason, String::new());
            }
            Action::GiveUp => {}
            Action::Publish => self.publish(due.peer),
            Action::Ping => {
                if let Some(conn) = p.conn
                    && p.discarding
                    && p.sending.is_empty()
                {
                    p.sending = Bytes::from_static(PING_RESPONSE);
                    self.driver.send(conn, Payload::Bytes(p.sending.clone()), SendMode::Copy);
                }
                self.plan(due.at + PING_NS, due.peer, due.visit, Action::Ping);
            }
            Action::Reload => {
                if let Some(Player::Hls(viewer)) = &mut p.protocol {
                    viewer.reload(self.now);
                    self.touched.push(due.peer);
                }
            }
            Action::StopReading => {
                if let (Some(conn), State::Active) = (p.conn, p.state) {
                    p.paused = true;
                    self.driver.receive_pause(conn);
                }
            }
            Action::ReadAgain => {
                if let (Some(conn), true) = (p.conn, p.paused) {
                    p.paused = false;
                    p.last_media = self.now;
                    p.latency_from = self.now;
                    if p.discarding {
                        self.driver.receive_discard(conn);
                    } else {
                        self.driver.receive(conn);
                    }
                }
            }
            Action::Leave => {
                self.leave(due.peer);
                if due.visit != ANY_VISIT {
                    self.come_back(due.peer);
                }
            }
        }
    }

    fn connect(&mut self, peer: u32) {
        let job = Arc::clone(&self.job);
        let now = self.now;
        let p = &mut self.peers[peer as usize];
        let group = &job.groups[p.group as usize];
        let state = &mut self.groups[p.group as usize];
        if group.to.is_some_and(|to| now >= job.start + to) {
            state.busy -= 1;
            return;
        }
        match &mut state.visits_left {
            Some(0) => {
                state.busy -= 1;
                return;
            }
            Some(left) => *left -= 1,
            None => {}
        }
        p.begin_visit(now, &job);
        state.stats.attempts += 1;
        state.connecting += 1;
        let visit = p.visit;
        if self.dial(peer, &job) {
            self.plan(now + GIVE_UP_NS, peer, visit, Action::GiveUp);
        }
    }

    /// Begins a connection; false when that failed and the visit is over.
    fn dial(&mut self, peer: u32, job: &Job) -> bool {
        let p = &mut self.peers[peer as usize];
        let group = &job.groups[p.group as usize];
        let turn = p.number.wrapping_add(p.visit) as usize;
        let source = group.sources.get(turn % group.sources.len().max(1));
        let receive_buffer = match &group.what {
            What::Play { group, .. } => group.receive_buffer,
            What::Publish { .. } => 0,
        };
        let options = ConnectOptions {
            source: source.map(|ip| SocketAddr::new(*ip, 0)),
            nodelay: true,
            receive_buffer,
            ..ConnectOptions::default()
        };
        match self.driver.connect(group.address, &options) {
            Ok(conn) => {
                p.conn = Some(conn);
                if self.owners.len() <= conn.index() {
                    self.owners.resize(conn.index() + 1, None);
                }
                self.owners[conn.index()] = Some((conn, peer));
                true
            }
            Err(e) => {
                let errno = e.raw_os_error().unwrap_or(0);
                self.lost(peer, Reason::Connect(errno), e.to_string());
                false
            }
        }
    }

    fn publish(&mut self, peer: u32) {
        let p = &mut self.peers[peer as usize];
        let Some(script) = &mut p.script else { return };
        let Some(protocol) = &mut p.protocol else { return };
        let group = &mut self.groups[p.group as usize];
        let (script, item) = &mut **script;
        let before = protocol.output().len();
        let mut sent = 0;
        while p.active_at + item.due <= self.now {
            record(&mut group.stats.late, self.now - (p.active_at + item.due));
            script.payload(item, clock::now(), &mut self.scratch);
            protocol.write_message(item.kind, item.timestamp, &self.scratch);
            *item = script.next_item();
            sent += 1;
        }
        let bytes = (protocol.output().len() - before) as u64;
        let backlog = protocol.output().len();
        let next = p.active_at + item.due;
        if p.first_media == 0 && sent > 0 {
            p.first_media = self.now;
            record(&mut group.stats.first_frame, self.now - p.connect_at);
            group.playing += 1;
            group.stats.with_media += 1;
        }
        p.last_media = self.now;
        p.bytes += bytes;
        group.stats.bytes += bytes;
        group.stats.sent_messages += sent;
        group.stats.slice(self.second).bytes += bytes;
        let visit = p.visit;
        if backlog > BACKLOG_BYTES_MAX {
            self.lost(peer, Reason::NotRead, String::new());
            return;
        }
        self.plan(next, peer, visit, Action::Publish);
        self.touched.push(peer);
    }

    /// Sends what the peer has to say, if nothing of it is in flight.
    fn flush(&mut self, peer: u32) {
        let p = &mut self.peers[peer as usize];
        let Some(conn) = p.conn else { return };
        if self.driver.send_in_flight(conn) {
            return;
        }
        if p.sending.is_empty() {
            let Some(protocol) = &mut p.protocol else { return };
            if protocol.output().is_empty() {
                if p.discarding {
                    p.protocol = None;
                }
                return;
            }
            p.sending = Bytes::from(std::mem::take(protocol.output()));
        }
        self.driver.send(conn, Payload::Bytes(p.sending.clone()), SendMode::Copy);
    }

    // ------------------------------------------------------------------ ends of visits

    /// We end the visit, as planned.
    fn leave(&mut self, peer: u32) {
        let p = &self.peers[peer as usize];
        if p.state == State::Away {
            return;
        }
        self.groups[p.group as usize].stats.left += 1;
        self.end_visit(peer);
    }

    /// The visit ended otherwise.
    fn lost(&mut self, peer: u32, reason: Reason, detail: String) {
        let p = &self.peers[peer as usize];
        if p.state == State::Away {
            return;
        }
        self.groups[p.group as usize].stats.disconnect(self.second, reason, || detail);
        self.live.disconnects.fetch_add(1, Relaxed);
        self.end_visit(peer);
        self.come_back(peer);
    }

    fn end_visit(&mut self, peer: u32) {
        let p = &mut self.peers[peer as usize];
        let group = &mut self.groups[p.group as usize];
        let state = std::mem::replace(&mut p.state, State::Away);
        if state != State::Active {
            group.connecting -= 1;
        } else if p.first_media == 0 {
            group.stats.without_media += 1;
        } else {
            group.playing -= 1;
            let span = self.now - p.first_media;
            if span >= 2 * SECOND_NS {
                let kbps = u128::from(p.bytes) * 8_000_000 / u128::from(span);
                group.stats.bitrate.saturating_record((kbps as u64).max(1));
            }
            if p.script.is_none() {
                record(&mut group.stats.silence, p.silence);
            }
        }
        if let Some(checker) = p.checker.take() {
            group.stats.counts.add(checker.counts());
        }
        if let Some(conn) = p.conn.take() {
            self.driver.close(conn);
        }
        p.protocol = None;
        p.script = None;
        p.sending = Bytes::new();
    }

    /// Plans the next visit, if there is to be one.
    fn come_back(&mut self, peer: u32) {
        let job = Arc::clone(&self.job);
        let p = &self.peers[peer as usize];
        let (visit, g) = (p.visit, p.group as usize);
        let pause = match &job.groups[g].what {
            What::Publish { group, .. } => group.restart.map(|r| r.away.max(0.05)),
            What::Play { group, .. } => group.churn.map(|c| c.pause).or(group.reconnect),
        };
        match pause {
            Some(pause) => {
                self.plan(self.now + clock::seconds(pause), peer, visit, Action::Connect)
            }
            None => self.groups[g].busy -= 1,
        }
    }

    // ------------------------------------------------------------------ each second

    fn tick(&mut self) {
        // The tick at the end of second n belongs to slice n - 1.
        let ended = (self.next_tick - self.job.start) / SECOND_NS;
        let second = (ended as usize).saturating_sub(1);
        if ended == self.job.plan.measure_start().ceil() as u64 {
            // What viewers wait for while all of them come says nothing of those who watch.
            let groups = self.groups.iter_mut().filter_map(|group| group.stats.hls.as_mut());
            groups.for_each(|hls| hls.forget_times());
        }
        for p in &mut self.peers {
            let reading = p.state == State::Active && !p.paused && !p.stalled;
            let patience = STALL_NS + p.patience;
            if reading && p.first_media != 0 && self.now - p.last_media >= patience {
                p.stalled = true;
                self.groups[p.group as usize].stats.stalls += 1;
            }
        }
        let (mut playing, mut publishing, mut connecting, mut bytes, mut p99) = (0, 0, 0, 0, 0);
        for (state, group) in self.groups.iter_mut().zip(&self.job.groups) {
            let slice = state.stats.slice(second);
            slice.playing = state.playing;
            let slice_bytes = slice.bytes;
            if let Some(latency) = &slice.latency {
                p99 = p99.max(latency.value_at_quantile(0.99));
            }
            connecting += state.connecting;
            match group.what {
                What::Publish { .. } => publishing += state.playing,
                What::Play { .. } => {
                    playing += state.playing;
                    bytes += slice_bytes;
                }
            }
        }
        let cpu = clock::thread_cpu();
        self.live.playing.store(playing, Relaxed);
        self.live.publishing.store(publishing, Relaxed);
        self.live.connecting.store(connecting, Relaxed);
        self.live.bytes.store(bytes, Relaxed);
        self.live.p99_us.store(p99, Relaxed);
        self.live.busy.store((cpu - self.tick_cpu) / 1_000_000, Relaxed);
        self.tick_cpu = cpu;
    }

    /// A number below 2^32 from a small generator: spreads lifetimes.
    fn jitter(&mut self) -> u64 {
        self.jitter = self.jitter.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        self.jitter >> 32
    }
}

impl Peer {
    fn new(group: u32, number: u32, verify: bool) -> Peer {
        Peer {
            group,
            number,
            visit: 0,
            state: State::Away,
            verify,
            discarding: false,
            paused: false,
            stalled: false,
            conn: None,
            protocol: None,
            checker: None,
            script: None,
            sending: Bytes::new(),
            connect_at: 0,
            active_at: 0,
            latency_from: 0,
            first_media: 0,
            last_media: 0,
            silence: 0,
            patience: 0,
            bytes: 0,
        }
    }

    fn begin_visit(&mut self, now: u64, job: &Job) {
        *self = Peer {
            visit: self.visit + 1,
            state: State::Connecting,
            connect_at: now,
            ..Peer::new(self.group, self.number, self.verify)
        };
        if let What::Play { group, content } = &job.groups[self.group as usize].what
            && self.verify
        {
            let n = self.stream_number(job);
            let content = job.content(group, content.as_ref(), n, &self.target(job));
            self.checker = Some(Box::new(Checker::new(content)));
        }
    }

    /// What `{n}` is in this visit. Churning players go through all names.
    fn stream_number(&self, job: &Job) -> u32 {
        let group = &job.groups[self.group as usize];
        match &group.what {
            What::Publish { .. } => self.number,
            What::Play { group: settings, .. } => {
                let names = if settings.names == 0 { group.head.clients } else { settings.names };
                let visits = u64::from(self.visit.saturating_sub(1));
                let n = u64::from(self.number) + visits * u64::from(group.head.clients);
                (n % u64::from(names.max(1))) as u32
            }
        }
    }

    /// Which stream it plays among those of its group; 0 where all play the same.
    fn place(&self, job: &Job) -> (u32, u32) {
        let several = job.groups[self.group as usize].head.url.contains("{n}");
        (self.group, if several { self.stream_number(job) } else { 0 })
    }

    fn target(&self, job: &Job) -> Target {
        let url = &job.groups[self.group as usize].head.url;
        let n = self.stream_number(job);
        Target::parse(&expand(url, n)).expect("the plan's URLs were parsed when it was checked")
    }
}
