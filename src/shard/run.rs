//! The loop: wait, react, spread, fan out. Events update state and mark streams as touched; sends
//! are issued in the fan-out, and all of them enter the kernel with the next wait.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use uring::{Conn, Driver, Errno, Event};

use crate::fault::Fault;
use crate::hub::{Counters, Reason};
use crate::limits;
use crate::session::Closing;

use super::fanout::Follow;
use super::lobby::Wanted;
use super::pace::{GATHER_EVENTS, GATHER_NS_BRIEF, gather_ns};
use super::{Kick, Letter, Link, Shard};

/// Time between two ticks (timeouts, housekeeping), ns.
const TICK_NS: u64 = 250_000_000;

/// How long completions are not gathered for the sake of many after somebody was in a hurry, ns.
const HURRY_NS: u64 = 500_000_000;

/// Ticks between two looks for waiting sessions that are gone.
const WATCHING_TICKS: u32 = 16;

/// More places for those who are to be answered are given back when all are.
const CALLED_KEPT: usize = 16 << 10;

/// Time between two warnings that accepting fails, ns.
const ACCEPT_WARNING_NS: u64 = 10_000_000_000;

/// What a send of a file says that has become shorter, and one that a disk does not read.
const NO_DATA: i32 = rustix::io::Errno::NODATA.raw_os_error();
const IO_ERROR: i32 = rustix::io::Errno::IO.raw_os_error();

/// Whether a shard goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// It has work or waits for some.
    Continue,
    /// It was told to stop or to drain, and nothing is left.
    Finished,
}

impl<D: Driver> Shard<D> {
    /// Runs until the shard is told to end.
    ///
    /// # Errors
    /// The ring is unusable.
    pub fn run(&mut self) -> io::Result<()> {
        while self.turn()? == Flow::Continue {}
        Ok(())
    }

    /// One pass of the loop.
    ///
    /// # Errors
    /// The ring is unusable.
    pub fn turn(&mut self) -> io::Result<Flow> {
        let deadline = self.next_deadline();
        let mut events = std::mem::take(&mut self.events);
        self.driver.turn(Some(deadline), &mut events)?;
        for event in events.drain(..) {
            self.receive_or_postpone(event);
        }
        self.events = events;
        self.read_letters();
        let now = self.driver.now();
        if self.pace.wants_sample(now) {
            let cpu = (self.clocks.thread_cpu_ns)();
            self.pace.sample(now, cpu, self.lobby.take_was_full());
            self.set_gathering();
            self.routes.tick(now, cpu);
            self.note_pace();
        }
        if now >= self.next_tick {
            self.next_tick = now + TICK_NS;
            self.tick();
        }
        self.spread();
        self.fan_out();
        self.answer_called();
        self.let_in();
        self.wake_others();
        Counters::add(&self.counters.turns, 1);
        Counters::add(&self.counters.bytes_sent, std::mem::take(&mut self.bytes_sent));
        let ending = self.stopping || self.draining;
        if ending && self.open_sessions == 0 && self.closing == 0 && self.lobby.is_empty() {
            return Ok(Flow::Finished);
        }
        Ok(Flow::Continue)
    }

    fn next_deadline(&self) -> u64 {
        if !self.touched.is_empty() || !self.lobby.is_empty() || !self.called.is_empty() {
            return 0;
        }
        let window = self.due.iter().filter_map(|&index| self.due_at(index)).min();
        let now_or_tick = if self.pace_is_up() { self.next_sample() } else { u64::MAX };
        window.unwrap_or(u64::MAX).min(self.next_tick).min(now_or_tick)
    }

    /// Looks how long completions may be gathered.
    fn set_gathering(&mut self) {
        let follows = self.follows.iter().flatten();
        let shortest = follows.map(|follow| self.window_of(follow)).min();
        let wait_ns = match shortest {
            None if self.publishing.is_empty() => 0,
            shortest => gather_ns(shortest),
        };
        let now = self.driver.now();
        let hurry = now.saturating_sub(self.hurry_at) < HURRY_NS;
        self.gather(if hurry { wait_ns.min(GATHER_NS_BRIEF) } else { wait_ns });
    }

    /// Somebody waits for this shard who does not wait for a window.
    fn hurry(&mut self) {
        self.hurry_at = self.driver.now();
        if self.gathering_ns > GATHER_NS_BRIEF {
            self.gather(GATHER_NS_BRIEF);
        }
    }

    fn gather(&mut self, wait_ns: u64) {
        if wait_ns != self.gathering_ns {
            self.gathering_ns = wait_ns;
            self.driver.gather_completions(GATHER_EVENTS, wait_ns);
        }
    }

    /// While a window is open or the shard is loaded, the load is looked at in time.
    fn pace_is_up(&self) -> bool {
        !self.pace.adaptive().is_zero()
    }

    fn next_sample(&self) -> u64 {
        self.driver.now() + 100_000_000
    }

    /// Newcomers' events wait until publishers and players have been served.
    fn receive_or_postpone(&mut self, event: Event) {
        match event {
            Event::Accepted { listener, conn, peer, local } => {
                self.lobby.put(Wanted::Accepted { listener, conn, peer, local });
            }
            Event::Received { conn, data } if self.is_newcomer(conn) => {
                self.lobby.put(Wanted::Received { conn, data });
            }
            Event::ReceiveEnded { conn, ended } if self.lobby.holds(conn) => {
                self.lobby.put(Wanted::Ended { conn, ended });
            }
            event => self.react(event),
        }
    }

    fn is_newcomer(&mut self, conn: Conn) -> bool {
        self.lobby.holds(conn)
            || (self.links.get(conn.index()).is_none_or(|link| *link == Link::NONE)
                && self.session(conn).is_none_or(|session| session.publisher().is_none()))
    }

    /// Lets newcomers in, as many as the turn can afford.
    fn let_in(&mut self) {
        self.lobby.open();
        if !self.lobby.is_empty() {
            // A handshake takes some rounds; no more than the first of them is to be slow.
            self.hurry();
        }
        while let Some(wanted) = self.lobby.admit() {
            match wanted {
                Wanted::Accepted { listener, conn, peer, local } => {
                    self.react(Event::Accepted { listener, conn, peer, local });
                }
                Wanted::Received { conn, data } => self.react(Event::Received { conn, data }),
                Wanted::Ended { conn, ended } => self.react(Event::ReceiveEnded { conn, ended }),
                Wanted::Begin { conn } => {
                    if let Some(player) = self.player(conn) {
                        player.begin();
                        self.pump(conn);
                    }
                }
            }
        }
        self.lobby.close();
    }

    fn react(&mut self, event: Event) {
        match event {
            Event::Sent { conn, result } => self.sent(conn, result),
            Event::Received { conn, data } => {
                Counters::add(&self.counters.bytes_received, data.len() as u64);
                self.with_session(conn, |session, env| session.receive(env, &data));
                self.note_received(conn);
            }
            Event::Released { conn, copied } => {
                if let Some(player) = self.player(conn) {
                    let route = player.route();
                    self.routes.report(route, copied);
                }
            }
            Event::Accepted { listener, conn, peer, local } => {
                if self.draining || self.stopping {
                    self.closing += 1;
                    self.driver.close(conn);
                } else {
                    self.accepted(listener, conn, peer, local);
                }
            }
            Event::AcceptFailed { errno, turned_away, .. } => {
                self.counters.count(Reason::AcceptFailed);
                self.counters.count_many(Reason::TurnedAway, u64::from(turned_away));
                let now = self.driver.now();
                // It is tried again some times a second for as long as it takes.
                if self.accept_warned_at.is_none_or(|at| now - at >= ACCEPT_WARNING_NS) {
                    self.accept_warned_at = Some(now);
                    tracing::warn!(
                        reason = Reason::AcceptFailed.name(),
                        "accepting failed: {errno}; trying again in a moment. Raise \
                        LimitNOFILE or lower max_connections if this goes on"
                    );
                }
            }
            Event::ReceiveEnded { conn, ended } => {
                let closing = match ended {
                    uring::Ended::Eof => Closing::new(Reason::PeerClosed),
                    uring::Ended::Error(errno) => Closing::because(Reason::ConnectionError, errno),
                };
                // A client that has sent its request may close its half; what it asked for is
                // still sent unless it plays, where closing is how players leave.
                if self.player(conn).is_none()
                    && let Some(session) = self.session(conn).filter(|s| s.sending)
                {
                    session.finish.get_or_insert(closing.reason);
                    return;
                }
                self.close(conn, &closing);
            }
            Event::Opened { opening, result } => self.opened(opening, result),
            Event::HandedOver { conn, socket } => self.handed_over(conn, socket),
            Event::Closed { .. } => self.closing -= 1,
            Event::Woken => {}
            // This shard discards nothing and connects nowhere yet.
            Event::Discarded { .. } | Event::Connected { .. } => {}
        }
    }

    fn sent(&mut self, conn: Conn, result: Result<u32, Errno>) {
        let link = self.links.get(conn.index()).copied().unwrap_or(Link::NONE);
        if link == Link::NONE {
            match result {
                Ok(bytes) => {
                    self.bytes_sent += u64::from(bytes);
                    let by = self.driver.now() + limits::REPLY_MS_MAX * 1_000_000;
                    let mut served = false;
                    if let Some(session) = self.session(conn) {
                        session.reply_sent(bytes);
                        if session.body.is_some() {
                            session.expect_by(Some((by, Reason::FellBehind)));
                        }
                        served = session.take_served();
                    }
                    match served {
                        true => self.with_session(conn, |s, env| s.served(env)),
                        false => self.flush_replies(conn),
                    }
                }
                Err(errno) => {
                    let reads = self.session(conn).and_then(|session| session.body.as_ref());
                    let of_file = reads.is_some_and(|body| body.is_file());
                    let reason = match errno.0 {
                        // The splice has found the end of the file where there was more before.
                        NO_DATA if of_file => Reason::FileChanged,
                        IO_ERROR if of_file => Reason::FileFailed,
                        _ => Reason::ConnectionError,
                    };
                    self.close(conn, &Closing::because(reason, errno));
                }
            }
            return;
        }
        let Some(follow) = self.follows[link.follow as usize].as_mut() else { return };
        let mirror = follow.mirror.as_ref();
        match follow.players[link.player as usize].sent(result, mirror) {
            Ok(bytes) => {
                self.bytes_sent += u64::from(bytes);
                follow.sent_bytes += u64::from(bytes);
                self.pump_at(link);
            }
            Err(errno) => self.close(conn, &Closing::because(Reason::ConnectionError, errno)),
        }
    }

    fn read_letters(&mut self) {
        // Bounded by the mailbox, so that a flood of letters cannot keep the shard from sending.
        for _ in 0..limits::LETTERS_MAX {
            let Some(letter) = self.shared.post.mailbox(self.index).take() else { break };
            match letter {
                Letter::Touched(id) => self.mark_due(id),
                Letter::Wanted(id) => self.open_wanted(id),
                Letter::Segments(id) => self.segments_changed(id),
                Letter::Decided(conn) => self.with_session(conn, |s, env| s.decided(env)),
                Letter::Kick(kick) => self.kick(&kick),
                Letter::Reloaded => self.take_configuration(),
                Letter::Drain => self.drain(),
                Letter::Stop => self.stop(),
            }
        }
        if self.shared.post.mailbox(self.index).take_missed() {
            self.take_configuration();
            let watched: Vec<_> = self.watching.keys().copied().collect();
            for id in watched {
                self.segments_changed(id);
            }
            for index in 0..self.follows.len() {
                self.mark_follow_due(index as u32);
            }
            let ids: Vec<_> = self.publishing.keys().copied().collect();
            for id in ids {
                self.open_wanted(id);
            }
        }
    }

    /// Lets those look again who wait for a change of a stream's segments.
    fn segments_changed(&mut self, id: crate::hub::StreamId) {
        // Who goes on waiting comes into the table again. The places stay: they are needed at once.
        self.called.extend(self.watching.get_mut(&id).into_iter().flat_map(|c| c.drain(..)));
    }

    /// Answers some of those who have waited. Thousands wait for the same: their answers enter the
    /// kernel in portions, and what else there is to do is done in between.
    fn answer_called(&mut self) {
        for _ in 0..limits::ANSWERS_PER_TURN {
            let Some(conn) = self.called.pop_front() else { break };
            self.with_session(conn, |session, env| session.segments_changed(env));
        }
        if self.called.is_empty() && self.called.capacity() > CALLED_KEPT {
            self.called = VecDeque::new();
        }
    }

    /// Viewers of HLS that do not come any more, and waiting sessions that are gone.
    fn end_viewers(&mut self, all: bool) {
        self.ticks = self.ticks.wrapping_add(1);
        if self.ticks.is_multiple_of(WATCHING_TICKS) && !self.watching.is_empty() {
            let sessions = &self.sessions;
            let waits = |conn: &Conn| {
                let session = sessions.get(conn.index()).and_then(Option::as_ref);
                session.is_some_and(|session| session.conn == *conn && session.watches())
            };
            self.watching.retain(|_, conns| {
                conns.retain(waits);
                !conns.is_empty()
            });
        }
        // The table is everybody's, so one of us looks after it.
        if self.index == 0 {
            let time = (self.driver.now(), (self.clocks.wall_ms)());
            let admission = self.shared.admission.clone();
            let clients = self.shared.clients.clone();
            let ended = admission.viewers.expire(all, &clients, &admission.desk, time);
            for stream in ended.iter().filter(|stream| stream.players() == 0) {
                self.linger(stream);
            }
        }
    }

    /// What begins from here on follows the configuration in force.
    fn take_configuration(&mut self) {
        self.shared.config = self.shared.current.load();
    }

    fn mark_due(&mut self, id: crate::hub::StreamId) {
        // By place, because marking needs the rest of the shard; nothing is taken off meanwhile.
        let mut place = 0;
        while let Some(&(_, index)) = self.follow_of.get(&id).and_then(|mine| mine.get(place)) {
            self.mark_follow_due(index);
            place += 1;
        }
    }

    fn mark_follow_due(&mut self, index: u32) {
        let now = self.driver.now();
        // Blocks are taken up at once, however long the window: the feed keeps few of them.
        if let Some(mirror) = self.follows[index as usize].as_mut().and_then(|f| f.mirror.as_mut())
        {
            mirror.refresh();
        }
        if let Some(follow) = self.follows[index as usize].as_mut()
            && !follow.touched
        {
            follow.touched = true;
            follow.touched_at = now;
            self.due.push(index);
        }
    }

    fn kick(&mut self, kick: &Kick) {
        let conns: Vec<Conn> = match *kick {
            Kick::Session { index, id } => {
                let session = self.sessions.get(index).and_then(Option::as_ref);
                session.filter(|session| session.id == id).map(|s| s.conn).into_iter().collect()
            }
            Kick::Viewer { id } => {
                let time = (self.driver.now(), (self.clocks.wall_ms)());
                let admission = self.shared.admission.clone();
                admission.viewers.kick(id, &self.shared.clients, &admission.desk, time);
                Vec::new()
            }
            Kick::Stream { stream, publishers, players } => {
                if players && self.index == 0 {
                    self.kick_viewers(stream);
                }
                let publisher = self.publishing.get(&stream).filter(|_| publishers);
                let mut conns: Vec<Conn> = publisher.iter().map(|(conn, _)| *conn).collect();
                let follows = self.follows.iter().flatten().filter(|f| f.stream.id == stream);
                if players {
                    conns.extend(follows.flat_map(|f| f.players.iter().map(|p| p.conn)));
                }
                conns
            }
        };
        for conn in conns {
            self.close(conn, &Closing::new(Reason::Kicked));
        }
    }

    fn kick_viewers(&mut self, stream: crate::hub::StreamId) {
        let time = (self.driver.now(), (self.clocks.wall_ms)());
        let (admission, clients) = (self.shared.admission.clone(), self.shared.clients.clone());
        let of_it =
            |client: &crate::remux::Client| client.kind.is_viewer() && client.stream.id == stream;
        for client in clients.page_of(0, limits::HLS_VIEWERS_MAX, of_it) {
            admission.viewers.kick(client.id, &clients, &admission.desk, time);
        }
    }

    fn drain(&mut self) {
        self.draining = true;
        for (listener, _) in std::mem::take(&mut self.listeners) {
            self.driver.stop_listening(listener);
        }
    }

    fn stop(&mut self) {
        self.drain();
        self.stopping = true;
        self.end_viewers(true);
        let conns: Vec<Conn> = self.sessions.iter().flatten().map(|s| s.conn).collect();
        for conn in conns {
            self.close(conn, &Closing::new(Reason::Shutdown));
        }
    }

    /// Tells everybody who follows a touched stream: this shard's feeds, other shards by letter.
    fn spread(&mut self) {
        let mut touched = std::mem::take(&mut self.touched);
        for stream in touched.drain(..) {
            self.mark_due(stream.id);
            self.tell_watchers(&stream);
            let mut others = stream.followers() & !(1 << self.index);
            let vhost = || self.shared.config.vhost(stream.name.vhost());
            if others != 0 && vhost().merged_write().adaptive {
                self.hurry();
            }
            while others != 0 {
                let shard = others.trailing_zeros() as usize;
                others &= others - 1;
                self.tell(shard, Letter::Touched(stream.id));
            }
        }
        if self.touched.is_empty() {
            self.touched = touched;
        }
    }

    /// Tells those who wait for a change of a stream's segments, if there was one.
    fn tell_watchers(&mut self, stream: &crate::remux::Stream) {
        let mut shards = stream.take_waiting();
        while shards != 0 {
            let shard = shards.trailing_zeros() as usize;
            shards &= shards - 1;
            match shard == self.index {
                true => self.segments_changed(stream.id),
                false => self.tell(shard, Letter::Segments(stream.id)),
            }
        }
    }

    fn wake_others(&mut self) {
        let mut wakes = std::mem::take(&mut self.wakes);
        while wakes != 0 {
            let shard = wakes.trailing_zeros() as usize;
            wakes &= wakes - 1;
            if let Some(waker) = self.shared.post.mailbox(shard).waker() {
                self.driver.wake(waker);
            }
        }
    }

    /// How long messages of a feed are gathered here.
    fn window_of(&self, follow: &Follow) -> Duration {
        let rule = self.shared.config.vhost(follow.stream.name.vhost()).merged_write();
        self.pace.window(&rule)
    }

    /// When a follow with news is to be flushed, ns.
    fn due_at(&self, index: u32) -> Option<u64> {
        let follow = self.follows[index as usize].as_ref()?;
        let window = self.window_of(follow).as_nanos() as u64;
        Some(follow.flushed_at + window)
    }

    /// Gives the players of every feed with news what there is, where its window has passed.
    fn fan_out(&mut self) {
        let now = self.driver.now();
        let mut index = 0;
        while index < self.due.len() {
            let follow = self.due[index];
            if self.due_at(follow).is_none_or(|at| at <= now) {
                self.due.swap_remove(index);
                self.flush(follow, now);
            } else {
                index += 1;
            }
        }
        self.finish_endings(now);
    }

    fn flush(&mut self, index: u32, now: u64) {
        let Some(follow) = self.follows[index as usize].as_mut() else { return };
        follow.touched = false;
        self.counters.window_waits.count(now.saturating_sub(follow.touched_at) / 1_000);
        follow.flushed_at = now;
        follow.note_sent();
        if !follow.take_up_feed(self.index) {
            let published = follow.stream.is_published();
            if published {
                self.ask_for_feed(index);
            }
            return;
        }
        let vhost = self.shared.config.vhost(follow.stream.name.vhost());
        let queue_ms = vhost.play.queue_length.as_millis() as i64;
        let Some(mirror) = follow.mirror.as_mut() else { return };
        mirror.refresh();
        follow.flushed = mirror.end();
        if mirror.feed().ended() && follow.ends_at.is_none() {
            follow.ends_at = Some(now + limits::DRAIN_MS_MAX * 1_000_000);
            self.ending.push(index);
        }
        // Who came first is served first: those who watch do not wait for those who join.
        let mut player = 0;
        while let Some(follow) = self.follows[index as usize].as_mut() {
            let Some(entry) = follow.players.get_mut(player) else { break };
            let conn = entry.conn;
            if let Some(mirror) = &follow.mirror
                && entry.check_lag(mirror, queue_ms)
            {
                self.driver.cancel_send(conn);
            } else if !entry.in_flight() {
                self.pump_at(Link { follow: index, player: player as u32 });
            }
            // Whoever has to be closed is replaced by the last one, who is to be served, too.
            let follow = self.follows[index as usize].as_ref();
            let stays = follow.and_then(|f| f.players.get(player)).is_some_and(|p| p.conn == conn);
            player += usize::from(stays);
        }
        if let Some(follow) = self.follows[index as usize].as_mut() {
            follow.trim();
        }
    }

    /// Feeds that have ended: who has read all of it waits for the next publisher or, over HTTP,
    /// is done; who does not read in time is closed.
    fn finish_endings(&mut self, now: u64) {
        // Taken out first: a follow whose last player leaves takes itself off the list.
        for index in std::mem::take(&mut self.ending) {
            if !self.finish_ending(index, now) {
                self.ending.push(index);
            }
        }
    }

    fn finish_ending(&mut self, index: u32, now: u64) -> bool {
        let Some(follow) = self.follows[index as usize].as_mut() else { return true };
        let (Some(mirror), Some(ends_at)) = (&follow.mirror, follow.ends_at) else { return true };
        let end = mirror.end();
        // A new publisher does not wait for long for those who do not read.
        let ends_at = match follow.stream.feed(follow.format) {
            Some(_) => ends_at.min(now + limits::SUCCESSION_MS_MAX * 1_000_000),
            None => ends_at,
        };
        follow.ends_at = Some(ends_at);
        let over = now >= ends_at;
        let tail = super::fanout::tail(follow.format);
        let mut done = Vec::new();
        let mut waiting = 0;
        // Nobody gets this stream in this format, so there is nothing to wait for.
        let refused = mirror.feed().refused();
        for player in follow.players.iter_mut().filter(|player| refused || player.started()) {
            if player.has_all(mirror, end) || (tail.is_none() && player.rests(mirror)) {
                match tail {
                    None => player.wait_for_next_feed(),
                    Some(_) if !player.started() => {
                        let refusal = super::fanout::refusal(follow.format);
                        done.push((player.conn, Some((refusal, Reason::CodecUnsupported))));
                    }
                    Some(tail) => done.push((player.conn, Some((tail, Reason::StreamEnded)))),
                }
            } else if over {
                done.push((player.conn, None));
            } else {
                waiting += 1;
            }
        }
        if waiting == 0 {
            follow.let_go_of_feed();
            // The window was for the old feed; a new one has a GOP to send at once.
            follow.flushed_at = 0;
        }
        for (conn, last_words) in done {
            match last_words {
                Some((tail, reason)) => self.finish_player(conn, tail, reason),
                None => self.close(conn, &Closing::new(Reason::FellBehind)),
            }
        }
        if waiting == 0 {
            self.mark_follow_due(index);
            return true;
        }
        false
    }

    /// A player of a format that ends with its stream: a proper end, then the connection closes.
    fn finish_player(&mut self, conn: Conn, tail: &'static [u8], reason: Reason) {
        self.stop_playing(conn, reason);
        let reply_by = self.driver.now() + limits::REPLY_MS_MAX * 1_000_000;
        if let Some(session) = self.session(conn) {
            session.out.extend_from_slice(tail);
            session.finish = Some(reason);
            session.expect_by(Some((reply_by, reason)));
        }
        self.flush_replies(conn);
    }

    fn tick(&mut self) {
        let now = self.driver.now();
        for index in 0..self.sessions.len() {
            let Some(session) = self.sessions[index].as_ref() else { continue };
            if session.wants_tick(now) {
                let conn = session.conn;
                self.with_session(conn, |session, env| session.tick(env));
            }
        }
        self.end_holds(now);
        self.expire_files(now);
        self.end_viewers(false);
        self.forget_idle(now);
        if let Some(why) = self.driver.take_diagnostic() {
            tracing::warn!(reason = Fault::KernelRefused.name(), shard = self.index, "{why}");
        }
        if self.index == 0 {
            for held_back in self.shared.quiet.take_over(now) {
                let peer = held_back.peer.map(|peer| peer.to_string());
                tracing::info!(
                    peer = peer.as_deref().unwrap_or("others"),
                    lines = held_back.lines,
                    "more lines like those before were held back"
                );
            }
        }
        // A follow whose feed is open nowhere asks again: letters are hints.
        for index in 0..self.follows.len() {
            let Some(follow) = &mut self.follows[index] else { continue };
            follow.note_sent();
            if follow.mirror.is_none() && follow.stream.is_published() {
                self.mark_follow_due(index as u32);
            }
        }
    }

    fn end_holds(&mut self, now: u64) {
        let mut at = 0;
        while at < self.holds.len() {
            if self.holds[at].0 > now {
                at += 1;
                continue;
            }
            let (_, stream) = self.holds.swap_remove(at);
            // A later hold of the same stream, by whichever shard, has its own entry; only the
            // last one finds the writer old enough.
            let hold = self.shared.config.vhost(stream.name.vhost()).publish.hold;
            let expired = |live: &crate::remux::Live| {
                now.saturating_sub(live.left_at()) >= hold.as_nanos() as u64
            };
            if let Some(live) = stream.take_parked_if(|live| expired(live)) {
                live.detach(&stream);
                drop(live);
                tracing::info!(stream = %stream.name, "no publisher came back: the stream ends");
                self.touched.push(stream.clone());
            }
            self.linger(&stream);
        }
    }

    fn forget_idle(&mut self, now: u64) {
        let mut at = 0;
        while at < self.lingering.len() {
            if self.lingering[at].0 > now {
                at += 1;
                continue;
            }
            let (_, stream) = self.lingering.swap_remove(at);
            let Some(stream) = stream.upgrade() else { continue };
            // Segments are there for some time after their stream.
            if !stream.is_active() {
                let ends = |segments: Option<Arc<crate::hub::Segments>>| {
                    segments.and_then(|s| s.disposes_at())
                };
                let [hls, dash] = [ends(stream.segments()), ends(stream.dash())];
                if hls.is_some_and(|at| at <= now) {
                    stream.set_segments(None);
                }
                if dash.is_some_and(|at| at <= now) {
                    stream.set_dash(None);
                }
                let later = hls.into_iter().chain(dash).filter(|at| *at > now).min();
                if let Some(at) = later {
                    self.lingering.push((at, Arc::downgrade(&stream)));
                    continue;
                }
            }
            let in_use = stream.players() > 0 || stream.is_active();
            // In use: whoever stops using it last looks again. Otherwise it goes now, or, when
            // somebody has a handle just now, in a moment.
            if !in_use && !self.shared.streams.forget_if_idle(&stream) {
                self.lingering.push((now + TICK_NS, Arc::downgrade(&stream)));
            }
        }
        if self.lingering.is_empty() && self.lingering.capacity() > 1024 {
            self.lingering = Vec::new();
        }
    }

    fn note_pace(&self) {
        use std::sync::atomic::Ordering::Relaxed;
        let counters: &Counters = &self.counters;
        counters.busy_permille.store((self.pace.load() * 1000.0) as u64, Relaxed);
        counters.window_us.store(self.pace.adaptive().as_micros() as u64, Relaxed);
        counters.sends.store(self.driver.stats().sends, Relaxed);
    }
}
