//! Fan-out: the players of a feed on this shard, and what each is sent next.
//!
//! A player is a cursor and a little state. In a turn every idle player that is behind gets one
//! send; a player whose send is in flight is left alone and pulls the rest when it completes, so
//! merging happens by itself under load. Nothing is queued, copied or allocated per player.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use bytes::{Buf, Bytes};
use uring::{Conn, Driver, Errno, Payload, SendMode};

use crate::hub::{Entrance, Feed, Format, Held, Mirror, Next, Position, Reason};
use crate::limits;
use crate::proto::flv::Framing;
use crate::remux::{Client, Stream, rebase, wrap};
use crate::session::{Closing, Session};

use super::route::Routes;

/// One feed as this shard's players follow it.
#[derive(Debug)]
pub struct Follow {
    /// The stream.
    pub stream: Arc<Stream>,
    /// The encoding.
    pub format: Format,
    /// The blocks, once the feed is open.
    pub mirror: Option<Mirror>,
    /// The players. Their order means nothing.
    pub players: Vec<Player>,
    /// In the shard's list of follows with news.
    pub touched: bool,
    /// When it became so, ns.
    pub touched_at: u64,
    /// When the players were last given what there was, ns.
    pub flushed_at: u64,
    /// Up to where.
    pub flushed: Position,
    /// Out chunk size of the vhost when the first player came, bytes.
    pub chunk_size: u32,
    /// Bytes sent to its players that the stream has not been told of yet.
    pub sent_bytes: u64,
    /// The feed has ended: players that have not read it to its end by then are closed, ns.
    pub ends_at: Option<u64>,
}

/// One player.
#[derive(Debug)]
pub struct Player {
    /// Its connection; the index of its session.
    pub conn: Conn,
    /// Its place in the feed.
    pub at: Position,
    /// Stream time of the feed when the send in flight was issued, ms: how far it lags.
    since: i64,
    /// What only some players have, most of the time.
    aux: Option<Box<Aux>>,
    phase: Phase,
    sending: Sending,
    /// `pause`, by the player's wish.
    pub paused: bool,
    begun: Begun,
    /// The session has replies to send at the next message boundary.
    pub has_out: bool,
    /// Fell behind; its send is being cancelled. Then it finishes its message and goes on at the
    /// newest keyframe.
    lagging: bool,
    /// Has asked to stop: leaves at the end of the message it is in.
    leaving: bool,
    /// Where zero-copy was found to pay or not.
    route: u16,
    /// Its record: what was sent to it, and how far it is.
    pub client: Arc<Client>,
}

#[derive(Debug, Default)]
struct Aux {
    /// Private bytes to send before anything else: head and prologue, replies.
    bytes: Bytes,
    /// HTTP head, sent with the first bytes of the stream.
    head: Bytes,
    /// The rest of a message after falling behind.
    held: Held,
    /// Own timestamps.
    rebase: Option<rebase::State>,
    /// Stream time at which the player has had what it asked for, and what it asked for, ms.
    duration: Option<(Option<i64>, i64)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// No feed yet, or no way to join it yet.
    Waiting,
    /// Following.
    Live,
    /// Fell behind, or leaves: finishing the message it is in, for which it holds the blocks.
    Finishing,
    /// Fell behind: sequence headers are on their way; then it goes on at the newest keyframe.
    /// Their being taken is the sign that the player reads again. Which they are: see
    /// [`Join::headers`].
    Moving { headers: u32 },
}

/// Whether a player that follows may have the feed's bytes: the first ones are many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Begun {
    No,
    Asked,
    Yes,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sending {
    Nothing,
    Private,
    Feed,
    Held,
}

/// What pumping a player led to.
#[derive(Debug)]
pub enum Pumped {
    /// A send is in flight, or there is nothing to send.
    Fine,
    /// It has been greeted and now waits for [`Player::begin`].
    Begins,
    /// It was moved to a newer place.
    Skipped,
    /// It wanted to leave, and nothing of it is left to be sent.
    Left,
    /// It has to be closed.
    Close(Closing),
}

/// What a pump needs beside the player.
pub struct Pump<'a, D> {
    /// The driver.
    pub driver: &'a mut D,
    /// Zero-copy decisions.
    pub routes: &'a mut Routes,
    /// The feed's blocks, when it is open.
    pub mirror: Option<&'a Mirror>,
    /// Up to where players are given messages.
    pub flushed: Position,
    /// The encoding.
    pub format: Format,
    /// Out chunk size of the vhost, bytes.
    pub chunk_size: u32,
    /// The shard's sessions, for replies; touched only when there are some.
    pub sessions: &'a mut [Option<Box<Session>>],
}

impl Player {
    /// A player that waits for its feed.
    pub fn new(
        conn: Conn,
        client: Arc<Client>,
        head: Bytes,
        rebase: bool,
        duration_ms: Option<i64>,
        route: u16,
    ) -> Player {
        let aux = Aux {
            head,
            rebase: rebase.then(rebase::State::default),
            duration: duration_ms.map(|ms| (None, ms)),
            ..Aux::default()
        };
        Player {
            conn,
            at: Position::default(),
            since: 0,
            aux: Some(Box::new(aux)),
            phase: Phase::Waiting,
            sending: Sending::Nothing,
            paused: false,
            begun: Begun::No,
            has_out: false,
            lagging: false,
            leaving: false,
            route,
            client,
        }
    }

    /// Takes over a reply of the session that is being sent: `in_flight`, or still waiting.
    pub fn take_over_reply(&mut self, reply: Bytes, in_flight: bool) {
        self.aux.get_or_insert_default().bytes = reply;
        if in_flight {
            self.sending = Sending::Private;
        }
    }

    /// Where zero-copy was found to pay or not.
    pub fn route(&self) -> u16 {
        self.route
    }

    /// From now on a new player is sent what the feed has.
    pub fn begin(&mut self) {
        self.begun = Begun::Yes;
    }

    /// The player wants to stop; it is done with when [`Pumped::Left`] says so.
    pub fn leave(&mut self) {
        self.leaving = true;
    }

    /// True when a message may begin here, so that other bytes can be sent instead.
    pub fn is_between_messages(&self, mirror: Option<&Mirror>) -> bool {
        !self.in_flight()
            && match (self.phase, mirror) {
                (Phase::Waiting, _) | (Phase::Moving { .. }, _) | (_, None) => true,
                (Phase::Finishing, _) => self.held_is_empty(),
                (Phase::Live, Some(mirror)) => {
                    !self.rebase_inside_message() && mirror.is_boundary(self.at)
                }
            }
            && self.aux.as_ref().is_none_or(|a| a.bytes.is_empty())
    }

    /// True while the kernel has a send of this player.
    pub fn in_flight(&self) -> bool {
        self.sending != Sending::Nothing
    }

    /// True when the player is in the feed (and not before it).
    pub fn started(&self) -> bool {
        self.phase != Phase::Waiting
    }

    /// Oldest block the player needs from the mirror. While its send is being cancelled it needs
    /// the block still: what is left of its message is only known when the send is done.
    pub fn needs_block(&self) -> u64 {
        if self.phase == Phase::Live { self.at.block } else { u64::MAX }
    }

    fn held_is_empty(&self) -> bool {
        self.aux.as_ref().is_none_or(|a| a.held.is_empty())
    }

    /// True when the player waits at the end of a message because it is paused.
    pub fn rests(&self, mirror: &Mirror) -> bool {
        self.paused && self.is_between_messages(Some(mirror))
    }

    /// Back to waiting: the feed is over and another one may come.
    pub fn wait_for_next_feed(&mut self) {
        self.phase = Phase::Waiting;
        self.lagging = false;
    }

    /// True when the player has everything of a feed that ended at `end`.
    pub fn has_all(&self, mirror: &Mirror, end: Position) -> bool {
        !self.in_flight()
            && self.aux.as_ref().is_none_or(|a| a.bytes.is_empty() && a.held.is_empty())
            && (self.phase != Phase::Live || self.at >= end || {
                matches!(mirror.next(self.at, 1), Next::AtEnd | Next::Gone)
            })
    }

    /// Looks whether the player is too far behind. True when the send in flight is to be
    /// cancelled.
    pub fn check_lag(&mut self, mirror: &Mirror, queue_ms: i64) -> bool {
        if self.phase != Phase::Live || self.lagging {
            return false;
        }
        let since = match self.sending {
            Sending::Feed => self.since,
            // A reply or the headers are not taken: the log waits behind them.
            Sending::Private => mirror.time_at(self.at),
            Sending::Nothing if self.paused => mirror.time_at(self.at),
            Sending::Nothing | Sending::Held => return false,
        };
        if mirror.feed().time() - since <= queue_ms {
            return false;
        }
        if self.is_in_newest_gop(mirror) {
            return false;
        }
        if self.sending == Sending::Feed {
            self.lagging = true;
        } else {
            // Private bytes go out between messages, so there is nothing to finish.
            self.phase = Phase::Finishing;
        }
        self.lagging
    }

    /// Who is in the newest GOP cannot be moved on without a gap inside of it, and costs nothing:
    /// the feed keeps that GOP for newcomers.
    fn is_in_newest_gop(&self, mirror: &Mirror) -> bool {
        let start = mirror.feed().join().and_then(|join| join.start);
        start.is_some_and(|start| start <= self.at)
    }

    /// The send in flight is done.
    ///
    /// # Errors
    /// The connection failed.
    pub fn sent(
        &mut self,
        result: Result<u32, Errno>,
        mirror: Option<&Mirror>,
    ) -> Result<u32, Errno> {
        let sending = std::mem::replace(&mut self.sending, Sending::Nothing);
        let bytes = match result {
            Ok(bytes) => {
                self.client.add_bytes_out(bytes);
                bytes
            }
            // Only a lagging player's send is ever cancelled.
            Err(errno) if self.lagging && errno == ECANCELED => 0,
            Err(errno) => return Err(errno),
        };
        match sending {
            Sending::Feed => {
                let rebase = self.aux.as_mut().and_then(|a| a.rebase.as_mut());
                match (rebase, mirror) {
                    (Some(rebase), Some(mirror)) => self.at = rebase.sent(mirror, self.at, bytes),
                    (None, Some(mirror)) => self.at = mirror.advance(self.at, bytes),
                    (_, None) => {}
                }
            }
            Sending::Private => {
                if let Some(aux) = &mut self.aux {
                    aux.bytes.advance(bytes as usize);
                }
                self.drop_aux_if_empty();
            }
            Sending::Held => {
                if let Some(aux) = &mut self.aux {
                    aux.held.advance(bytes);
                }
            }
            Sending::Nothing => {}
        }
        Ok(bytes)
    }

    /// Issues the next send, if there is one to issue.
    pub fn pump<D: Driver>(&mut self, with: &mut Pump<'_, D>) -> Pumped {
        let mut skipped = false;
        loop {
            if self.in_flight() {
                break;
            }
            if self.aux.as_ref().is_some_and(|a| !a.bytes.is_empty()) {
                self.send_private(with.driver);
                break;
            }
            if self.leaving && matches!(self.phase, Phase::Waiting | Phase::Moving { .. }) {
                return Pumped::Left;
            }
            match self.phase {
                Phase::Waiting => {
                    // Replies go out at once, but never before an HTTP head that still waits.
                    if self.has_out && self.head_is_sent() {
                        self.take_out(with);
                    } else if !self.start(with) {
                        break;
                    }
                }
                Phase::Live => match self.pump_live(with) {
                    Step::Again => {}
                    Step::Done => break,
                    Step::Begin => return Pumped::Begins,
                    Step::Leave => return Pumped::Left,
                    Step::Close(closing) => return Pumped::Close(closing),
                },
                Phase::Finishing => {
                    let range = self.aux.as_ref().and_then(|a| a.held.front().cloned());
                    if let Some(range) = range {
                        self.sending = Sending::Held;
                        with.driver.send(self.conn, Payload::Range(range), SendMode::Copy);
                    } else if self.has_out {
                        self.take_out(with);
                    } else if self.leaving {
                        return Pumped::Left;
                    } else if self.paused {
                        break;
                    } else {
                        self.begin_moving(with);
                    }
                }
                Phase::Moving { headers } => {
                    if self.has_out {
                        self.take_out(with);
                        continue;
                    }
                    // The headers were taken: the player reads again.
                    let Some(mirror) = with.mirror.filter(|_| !self.paused) else { break };
                    let Some(entrance) = mirror.entrance() else { break };
                    if entrance.join.headers != headers {
                        // They changed while they were on their way.
                        self.begin_moving(with);
                        continue;
                    }
                    self.enter(&entrance, mirror);
                    self.begun = Begun::Yes;
                    skipped = true;
                }
            }
        }
        if skipped { Pumped::Skipped } else { Pumped::Fine }
    }

    fn pump_live<D: Driver>(&mut self, with: &mut Pump<'_, D>) -> Step {
        let Some(mirror) = with.mirror else { return Step::Done };
        // The send that was cancelled had reached the newest keyframe: moving on to that keyframe
        // would be going back.
        if self.lagging && self.is_in_newest_gop(mirror) {
            self.lagging = false;
        }
        // All but the last check is rare; what nearly every player needs is at the end.
        if self.paused || self.leaving || self.has_out {
            let boundary = !self.rebase_inside_message() && mirror.is_boundary(self.at);
            if boundary {
                if self.has_out {
                    self.take_out(with);
                    return Step::Again;
                }
                if self.leaving {
                    return Step::Leave;
                }
                if self.paused && !self.lagging {
                    return Step::Done;
                }
            } else if self.leaving {
                return self.finish_message(with, mirror);
            }
        }
        if self.lagging {
            return self.finish_message(with, mirror);
        }
        if self.begun != Begun::Yes {
            return match std::mem::replace(&mut self.begun, Begun::Asked) {
                Begun::No => Step::Begin,
                _ => Step::Done,
            };
        }
        if self.duration_is_over(mirror.feed()) {
            return Step::Close(Closing::new(Reason::DurationReached));
        }
        if self.at >= with.flushed {
            return Step::Done;
        }
        if mirror.has_lost(self.at) {
            // This shard slept through more than the feed keeps, which the lag rule should
            // have seen first. Whether the player is inside a message is not known any more.
            return Step::Close(Closing::new(Reason::FellBehind));
        }
        if self.aux.as_ref().is_some_and(|a| a.rebase.is_some()) {
            return self.pump_rebased(with, mirror);
        }
        // What a player is behind by when its send is issued counts from its own place.
        self.since = if self.at.block == with.flushed.block {
            mirror.feed().time()
        } else {
            mirror.time_at(self.at)
        };
        self.client.set_cursor(self.since);
        match mirror.next(self.at, limits::SEND_BYTES_MAX) {
            Next::AtEnd | Next::Gone => Step::Done,
            Next::One(range) => {
                let mode = with.routes.mode(self.route, range.end - range.start);
                self.sending = Sending::Feed;
                with.driver.send(self.conn, Payload::Range(range), mode);
                Step::Done
            }
            Next::Two(first, second) => {
                let len = first.end - first.start + second.end - second.start;
                let mode = with.routes.mode_across_blocks(self.route, len);
                let mut gather = with.driver.take_gather();
                gather.pieces.push(uring::Piece::Block(first));
                gather.pieces.push(uring::Piece::Block(second));
                self.sending = Sending::Feed;
                with.driver.send(self.conn, Payload::Gather(gather), mode);
                Step::Done
            }
        }
    }

    fn pump_rebased<D: Driver>(&mut self, with: &mut Pump<'_, D>, mirror: &Mirror) -> Step {
        self.since = mirror.time_at(self.at);
        self.client.set_cursor(self.since);
        let Some(state) = self.aux.as_mut().and_then(|a| a.rebase.as_mut()) else {
            return Step::Done;
        };
        let mut gather = with.driver.take_gather();
        if state.gather(mirror, self.at, with.format, with.chunk_size, &mut gather) {
            self.sending = Sending::Feed;
            with.driver.send(self.conn, Payload::Gather(gather), SendMode::Copy);
        }
        Step::Done
    }

    /// Takes what is left of the message the player is in, so that no block is kept for it but
    /// those that hold it.
    fn finish_message<D: Driver>(&mut self, with: &Pump<'_, D>, mirror: &Mirror) -> Step {
        let aux = self.aux.get_or_insert_default();
        match &mut aux.rebase {
            Some(rebase) => {
                aux.bytes = rebase.rest_of_message(mirror, self.at, with.format, with.chunk_size);
            }
            None => aux.held = mirror.rest_of_message(self.at),
        }
        self.phase = Phase::Finishing;
        self.lagging = false;
        Step::Again
    }

    /// Sequence headers again: what comes next may need others than what came before, and their
    /// being taken says that the player reads.
    fn begin_moving<D: Driver>(&mut self, with: &Pump<'_, D>) {
        let join = with.mirror.and_then(|m| m.feed().join());
        self.phase = Phase::Moving { headers: join.as_ref().map_or(0, |join| join.headers) };
        let Some(join) = join else { return };
        let aux = self.aux.get_or_insert_default();
        let headers = join.prologue.slice(join.messages_at..);
        let time = match (join.start, with.mirror) {
            (None, Some(mirror)) => mirror.feed().time().max(join.time),
            _ => join.time,
        };
        aux.bytes = match &aux.rebase {
            Some(state) => {
                rebase::restamp(&headers, with.format, with.chunk_size, state.time(time))
            }
            None if time != join.time => {
                rebase::restamp(&headers, with.format, with.chunk_size, time)
            }
            None => headers,
        };
    }

    /// Joins the feed if it can be joined. False when there is nothing to do but wait.
    fn start<D: Driver>(&mut self, with: &Pump<'_, D>) -> bool {
        let Some(mirror) = with.mirror else { return false };
        if mirror.feed().ended() {
            return false;
        }
        let Some(entrance) = mirror.entrance() else { return false };
        self.enter(&entrance, mirror);
        let Entrance { join, time: start_time, .. } = entrance;
        self.begun = Begun::No;
        let aux = self.aux.get_or_insert_default();
        let mut prologue = join.prologue.clone();
        let mut time = start_time;
        if let Some(rebase) = &mut aux.rebase {
            rebase.begin(start_time);
            time = rebase.time(start_time);
        }
        if time != join.time {
            let headers = prologue.slice(join.messages_at..);
            let headers = rebase::restamp(&headers, with.format, with.chunk_size, time);
            prologue = [&prologue[..join.messages_at], &headers[..]].concat().into();
        }
        if let Some((end @ None, ms)) = &mut aux.duration {
            *end = Some(start_time + *ms);
        }
        let head = std::mem::take(&mut aux.head);
        aux.bytes =
            if head.is_empty() { prologue } else { [&head[..], &prologue[..]].concat().into() };
        true
    }

    /// Goes to the newest keyframe, or to the live end where none is kept.
    fn enter(&mut self, entrance: &Entrance, mirror: &Mirror) {
        self.at = entrance.at;
        self.phase = Phase::Live;
        self.lagging = false;
        self.since = mirror.feed().time();
        self.client.set_cursor(self.since);
    }

    fn send_private<D: Driver>(&mut self, driver: &mut D) {
        if let Some(aux) = &self.aux {
            self.sending = Sending::Private;
            driver.send(self.conn, Payload::Bytes(aux.bytes.clone()), SendMode::Copy);
        }
    }

    fn take_out<D>(&mut self, with: &mut Pump<'_, D>) {
        self.has_out = false;
        if let Some(session) = with.sessions[self.conn.index()].as_mut() {
            let out = std::mem::take(&mut session.out);
            self.aux.get_or_insert_default().bytes = Bytes::from(out);
        }
    }

    fn head_is_sent(&self) -> bool {
        self.aux.as_ref().is_none_or(|a| a.head.is_empty())
    }

    fn rebase_inside_message(&self) -> bool {
        self.aux.as_ref().and_then(|a| a.rebase.as_ref()).is_some_and(|r| r.inside_message())
    }

    fn duration_is_over(&self, feed: &Feed) -> bool {
        let end = self.aux.as_ref().and_then(|a| a.duration).and_then(|(end, _)| end);
        end.is_some_and(|end| feed.time() >= end)
    }

    /// Most players need no more than their cursor once they have started.
    fn drop_aux_if_empty(&mut self) {
        let empty = self.aux.as_ref().is_some_and(|a| {
            a.bytes.is_empty()
                && a.head.is_empty()
                && a.held.is_empty()
                && a.rebase.is_none()
                && a.duration.is_none()
        });
        if empty {
            self.aux = None;
        }
    }
}

enum Step {
    Again,
    Done,
    Begin,
    Leave,
    Close(Closing),
}

/// Bytes that end a player's connection in good order when its stream ends; `None`: the player
/// stays and waits for the next publisher.
pub fn tail(format: Format) -> Option<&'static [u8]> {
    match wrap::framing(format)? {
        // RFC 6455 7.4.1: a close frame, 1001 going away.
        Framing::WebSocket => Some(&[0x88, 2, 0x03, 0xe9]),
        framing => Some(framing.end()),
    }
}

/// What a player is told whose stream cannot be had in the format it asked for. A WebSocket is open
/// by then; others have not been answered yet.
pub fn refusal(format: Format) -> &'static [u8] {
    match wrap::framing(format) {
        None => b"",
        // RFC 6455 7.4.1: a close frame, 1003 unsupported data.
        Some(Framing::WebSocket) => &[0x88, 2, 0x03, 0xeb],
        Some(Framing::Plain | Framing::Chunked) => {
            b"HTTP/1.1 415 Unsupported Media Type\r\nContent-Length: 0\r\n\
                Connection: close\r\n\r\n"
        }
    }
}

/// The send was cancelled before the kernel took a byte of it.
const ECANCELED: Errno = Errno(125);

impl Follow {
    /// A feed to follow, not open yet.
    pub fn new(stream: Arc<Stream>, format: Format, chunk_size: u32) -> Follow {
        Follow {
            chunk_size,
            stream,
            format,
            mirror: None,
            players: Vec::new(),
            touched: false,
            touched_at: 0,
            flushed_at: 0,
            flushed: Position::default(),
            sent_bytes: 0,
            ends_at: None,
        }
    }

    /// Tells the stream what was sent to its players here.
    pub fn note_sent(&mut self) {
        let bytes = std::mem::take(&mut self.sent_bytes);
        if bytes > 0 {
            self.stream.stats.bytes_sent.fetch_add(bytes, Relaxed);
        }
    }

    /// Takes up the stream's feed of this format if it is open. True when it is there.
    pub fn take_up_feed(&mut self, shard: usize) -> bool {
        if self.mirror.is_some() {
            return true;
        }
        let Some(feed) = self.stream.feed(self.format) else { return false };
        if !feed.follow() {
            return false;
        }
        feed.count_players(self.players.len() as i32);
        let mirror = Mirror::of_shard(feed, shard);
        self.flushed = mirror.end();
        self.mirror = Some(mirror);
        self.ends_at = None;
        true
    }

    /// Lets go of the feed.
    pub fn let_go_of_feed(&mut self) {
        if let Some(mirror) = self.mirror.take() {
            mirror.feed().count_players(-(self.players.len() as i32));
            mirror.feed().unfollow();
        }
        self.ends_at = None;
    }

    /// Lets go of blocks that no player here needs any more.
    pub fn trim(&mut self) {
        let Some(mirror) = self.mirror.as_mut().filter(|mirror| mirror.has_old_blocks()) else {
            return;
        };
        let oldest = self.players.iter().map(Player::needs_block).min().unwrap_or(u64::MAX);
        mirror.trim(oldest);
    }
}
