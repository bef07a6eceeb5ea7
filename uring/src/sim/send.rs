//! Sending: how the simulated kernel takes a payload and when it lets go of the memory.

use bytes::Bytes;
use rustix::io::pread;

use super::link::{Held, Hold, Segment};
use super::shard::{Notice, Sending, Stage};
use super::world::{Action, World};
use crate::driver::{Conn, Errno, Event, Gather, Payload, Piece, Range, SendMode};

impl World {
    /// Notes a send; the kernel sees it with the next turn.
    pub(super) fn issue(&mut self, shard: u32, conn: Conn, payload: Payload, mode: SendMode) {
        let total = checked_len(&payload);
        let shared = matches!(payload, Payload::Range(_) | Payload::Gather(_));
        let zero_copy = mode == SendMode::ZeroCopy && shared;
        let driver = self.shards.get_mut(&shard).expect("the driver is alive");
        driver.stats.sends += 1;
        driver.stats.sends_zero_copy += u64::from(zero_copy);
        let state = driver.get_mut(conn).expect("the driver checked the handle");
        assert!(state.send.is_none(), "bug of the owner: second send in flight on {conn:?}");
        state.send = Some(Sending {
            stage: Stage::Issued,
            payload: Some(payload),
            zero_copy,
            notice: None,
            total,
            taken: 0,
        });
    }

    /// The kernel sees the send.
    pub(super) fn submit_send(&mut self, shard: u32, conn: Conn) {
        let copied = self.random.chance(self.faults.zero_copy_copied);
        // Memory that cannot be registered is sent by the plain operation: no notification.
        let plain = copied && self.random.below(2) == 0;
        let reset = self.random.chance(self.faults.reset);
        let driver = self.shards.get_mut(&shard).expect("the driver is alive");
        let number = driver.notices_made;
        let Some(state) = driver.get_mut(conn) else { return };
        let link = state.link;
        let mut hold = None;
        match &mut state.send {
            Some(send) if send.stage == Stage::Issued && !state.closing => {
                send.stage = Stage::Pending;
                if send.zero_copy && !plain {
                    send.notice = Some(number);
                    hold = send.payload.take().map(Hold::new);
                }
            }
            _ => return,
        }
        if let Some(hold) = hold {
            driver.notices_made += 1;
            driver.notices.insert(number, Notice::new(conn, hold, copied));
        }
        if reset {
            self.break_link(link);
        }
        self.take(shard, conn, false);
    }

    /// Takes as much of a pending send as there is room for. `woken`: the socket was full before,
    /// and the kernel tries again only when a good part of its buffer is free.
    pub(super) fn take(&mut self, shard: u32, conn: Conn, woken: bool) {
        let Some(driver) = self.shards.get_mut(&shard) else { return };
        let Some((state, notices)) = driver.get_with_notices(conn) else { return };
        let Some(send) = &mut state.send else { return };
        if send.stage != Stage::Pending {
            return;
        }
        let (id, side) = (state.link, state.side);
        let end = match self.links.get_mut(&id) {
            Some(link) if !link.ends[side].broken => &mut link.ends[side],
            link => {
                // Bytes taken count first; the error is left for the next operation.
                let result = match link {
                    _ if send.taken > 0 => Ok(send.taken),
                    Some(link) => Err(link.ends[side].error.take().unwrap_or(libc::EPIPE)),
                    None => Err(libc::EPIPE),
                };
                self.finish(shard, conn, result.map_err(Errno));
                return;
            }
        };
        let size = self.faults.send_buffer as usize;
        let room = size.saturating_sub(end.held);
        let wanted = (send.total - send.taken) as usize;
        if wanted > 0 && (room == 0 || (woken && room < size / 3)) {
            return;
        }
        let mut len = wanted.min(room);
        let mut short = false;
        if len > 1 && self.random.chance(self.faults.short_send) {
            len = self.random.within(1, len as u64 - 1) as usize;
            short = true;
        }

        let notice = send.notice.and_then(|number| Some((number, notices.get_mut(&number)?)));
        let part = send.taken..send.taken + len as u32;
        let cut = match (&send.payload, notice) {
            (Some(payload), _) => copy(payload, part),
            (None, Some((id, notice))) => {
                let payload = notice.hold.payload();
                let payload = payload.as_ref().expect("held while its send is pending");
                if notice.copied {
                    copy(payload, part)
                } else {
                    let cut = refer(payload, part, id, &notice.hold);
                    let held = cut.iter().filter(|segment| segment.notice().is_some());
                    notice.outstanding += held.map(Segment::len).sum::<usize>();
                    if self.faults.planted_release_early {
                        check_lent(payload, self.arena.as_ref());
                    }
                    Ok(cut)
                }
            }
            (None, None) => unreachable!("a pending send has its payload or its notice"),
        };
        let segments = match cut {
            Ok(segments) => segments,
            Err(errno) => {
                let result = if send.taken > 0 { Ok(send.taken) } else { Err(errno) };
                self.finish(shard, conn, result);
                return;
            }
        };
        let got: usize = segments.iter().map(Segment::len).sum();
        send.taken += got as u32;
        let taken = send.taken;
        for segment in segments {
            end.push(segment);
        }
        // A file shorter than promised ends the send; a full socket may keep it waiting.
        let complete = taken == send.total || got < len;
        if complete || short || !self.random.chance(self.faults.held_send) {
            self.finish(shard, conn, Ok(taken));
        }
        self.transmit(id, side);
    }

    /// The result of a send is known.
    fn finish(&mut self, shard: u32, conn: Conn, result: Result<u32, Errno>) {
        let Some(driver) = self.shards.get_mut(&shard) else { return };
        let Some(state) = driver.get_mut(conn) else { return };
        let Some(send) = &mut state.send else { return };
        send.stage = Stage::Done;
        let notice = send.notice;
        let short = result.is_ok_and(|bytes| bytes < send.total);
        driver.stats.sends_short += u64::from(short);
        self.complete(shard, Event::Sent { conn, result }, None);
        if let Some(notice) = notice {
            let driver = self.shards.get_mut(&shard).expect("found above");
            if let Some(entry) = driver.notices.get_mut(&notice) {
                entry.complete = true;
            }
            self.settle(shard, notice);
        }
    }

    /// Cancels the send in flight, when the kernel still has it.
    pub(super) fn cancel(&mut self, shard: u32, conn: Conn) {
        let Some(state) = self.conn_mut(shard, conn) else { return };
        if let Some(send) = &state.send
            && send.stage == Stage::Pending
        {
            let taken = send.taken;
            let result = if taken > 0 { Ok(taken) } else { Err(Errno(libc::ECANCELED)) };
            self.finish(shard, conn, result);
        }
    }

    /// The network no longer refers to these bytes of these zero-copy sends.
    pub(super) fn acknowledged(&mut self, shard: u32, notices: &[(u64, usize)]) {
        for &(notice, bytes) in notices {
            if let Some(driver) = self.shards.get_mut(&shard)
                && let Some(entry) = driver.notices.get_mut(&notice)
            {
                entry.outstanding -= bytes;
                self.settle(shard, notice);
            }
        }
    }

    /// Schedules the notification when nothing refers to the memory any more.
    pub(super) fn settle(&mut self, shard: u32, notice: u64) {
        if let Some(driver) = self.shards.get_mut(&shard)
            && let Some(entry) = driver.notices.get_mut(&notice)
            && entry.complete
            && entry.outstanding == 0
            && !entry.scheduled
        {
            entry.scheduled = true;
            let delay = self.faults.release.draw(&mut self.random);
            self.schedule(self.now + delay, Action::Release { shard, notice });
        }
    }

    /// The notification: the owner hears of it through the completion queue, and only there does
    /// the driver let go of the memory. A connection that is closing has no owner to tell.
    pub(super) fn release(&mut self, shard: u32, notice: u64) {
        let Some(driver) = self.shards.get_mut(&shard) else { return };
        let Some(entry) = driver.notices.get(&notice) else { return };
        let (conn, copied) = (entry.conn, entry.copied);
        if driver.get(conn).is_some_and(|state| !state.closing) {
            self.complete(shard, Event::Released { conn, copied }, Some(notice));
        } else {
            driver.forget_notice(notice);
        }
    }
}

/// The length of a payload; panics on ranges that no kernel would survive either.
fn checked_len(payload: &Payload) -> u32 {
    match payload {
        Payload::Range(range) => range_len(range),
        Payload::Gather(gather) => {
            let pieces = gather.pieces.len();
            assert!(pieces <= Gather::PIECES_MAX, "bug of the owner: {pieces} pieces in a gather");
            gather.pieces.iter().map(|piece| piece_len(gather, piece)).sum()
        }
        Payload::Bytes(bytes) => u32::try_from(bytes.len()).expect("a send is below 4 GiB"),
        Payload::File { len, .. } => *len,
    }
}

fn range_len(range: &Range) -> u32 {
    let published = range.block.len();
    assert!(
        range.start <= range.end && range.end <= published,
        "bug of the owner: range {}..{} of {published} published bytes",
        range.start,
        range.end
    );
    range.end - range.start
}

fn piece_len(gather: &Gather, piece: &Piece) -> u32 {
    match piece {
        Piece::Block(range) => range_len(range),
        Piece::Head(head) => {
            assert!(
                head.start <= head.end && head.end as usize <= gather.head.len(),
                "bug of the owner: head {head:?} of {} bytes",
                gather.head.len()
            );
            head.end - head.start
        }
    }
}

/// The kernel copies that part of a payload now.
fn copy(payload: &Payload, part: std::ops::Range<u32>) -> Result<Vec<Segment>, Errno> {
    let mut bytes = Vec::with_capacity(part.len());
    match payload {
        Payload::Range(range) => {
            let start = range.start;
            bytes.extend_from_slice(range.block.bytes(start + part.start, start + part.end));
        }
        Payload::Gather(gather) => {
            for piece in cut(gather, part) {
                match piece {
                    Piece::Head(head) => {
                        bytes.extend_from_slice(
                            &gather.head[head.start as usize..head.end as usize],
                        );
                    }
                    Piece::Block(range) => {
                        bytes.extend_from_slice(range.block.bytes(range.start, range.end));
                    }
                }
            }
        }
        Payload::Bytes(all) => {
            return Ok(vec![Segment::Copied(all.slice(part.start as usize..part.end as usize))]);
        }
        Payload::File { file, offset, .. } => {
            bytes.resize(part.len(), 0);
            let mut got = 0;
            while got < bytes.len() {
                let at = offset + u64::from(part.start) + got as u64;
                match pread(file, &mut bytes[got..], at) {
                    Ok(0) => break,
                    Ok(n) => got += n,
                    Err(rustix::io::Errno::INTR) => {}
                    Err(_) if got > 0 => break,
                    Err(errno) => return Err(Errno(errno.raw_os_error())),
                }
            }
            bytes.truncate(got);
        }
    }
    Ok(vec![Segment::Copied(Bytes::from(bytes))])
}

/// The network refers to that part of a payload until it is acknowledged. Private header bytes
/// are copied: they belong to the driver.
fn refer(
    payload: &Payload,
    part: std::ops::Range<u32>,
    notice: u64,
    hold: &std::rc::Rc<Hold>,
) -> Vec<Segment> {
    let held = |range: &Range| Segment::Held(Held::new(notice, hold.clone(), range));
    match payload {
        Payload::Range(range) => {
            let (start, end) = (range.start + part.start, range.start + part.end);
            vec![held(&Range { block: range.block.clone(), start, end })]
        }
        Payload::Gather(gather) => cut(gather, part)
            .into_iter()
            .map(|piece| match piece {
                Piece::Block(range) => held(&range),
                Piece::Head(head) => Segment::Copied(Bytes::copy_from_slice(
                    &gather.head[head.start as usize..head.end as usize],
                )),
            })
            .collect(),
        Payload::Bytes(_) | Payload::File { .. } => unreachable!("always copied"),
    }
}

/// The pieces of a gather that make up `part` of its bytes.
fn cut(gather: &Gather, part: std::ops::Range<u32>) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut at = 0;
    for piece in &gather.pieces {
        let len = piece_len(gather, piece);
        let from = part.start.clamp(at, at + len) - at;
        let to = part.end.clamp(at, at + len) - at;
        at += len;
        if from == to {
            continue;
        }
        pieces.push(match piece {
            Piece::Head(head) => Piece::Head(head.start + from..head.start + to),
            Piece::Block(range) => Piece::Block(Range {
                block: range.block.clone(),
                start: range.start + from,
                end: range.start + to,
            }),
        });
    }
    pieces
}

/// Memory that is let go of early is read later: the arena must be kept for that.
fn check_lent(payload: &Payload, arena: Option<&crate::Arena>) {
    let lent = |range: &Range| arena.is_some_and(|arena| range.block.slab(arena).is_some());
    let all = match payload {
        Payload::Range(range) => lent(range),
        Payload::Gather(gather) => gather.pieces.iter().all(|piece| match piece {
            Piece::Block(range) => lent(range),
            Piece::Head(_) => true,
        }),
        Payload::Bytes(_) | Payload::File { .. } => true,
    };
    assert!(all, "planted_release_early needs SimWorld::lend_arena with the arena of every block");
}
