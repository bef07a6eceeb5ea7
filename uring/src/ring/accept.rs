//! Listeners: multishot accept, and what happens when there are no descriptors left.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

use io_uring::{cqueue, opcode, types};

use super::Ring;
use crate::driver::{Errno, Event, Listener};
use crate::net;
use crate::ops::{Op, Token};

/// How long a listener rests after an error that will not go away by itself.
const PAUSE: Duration = Duration::from_millis(100);
/// Most connections turned away at once when there are no descriptors.
const TURNED_AWAY_MAX: u32 = 128;

struct Door {
    /// None: closed.
    fd: Option<OwnedFd>,
    armed: bool,
    stopping: bool,
    /// When to accept again after an error.
    retry_at: Option<u64>,
}

/// All listeners of a driver. Numbers are not reused; there are few.
pub(super) struct Doors {
    doors: Vec<Door>,
    /// A descriptor to give up when there are none left, so that waiting connections can be taken
    /// and closed instead of being left to their timeouts.
    spare: Option<OwnedFd>,
    resting: usize,
}

impl Doors {
    pub(super) fn new() -> Doors {
        Doors { doors: Vec::new(), spare: spare(), resting: 0 }
    }

    /// When the next resting listener wants to go on.
    pub(super) fn due(&self) -> Option<u64> {
        if self.resting == 0 {
            return None;
        }
        self.doors.iter().filter_map(|door| door.retry_at).min()
    }

    pub(super) fn armed(&self) -> usize {
        self.doors.iter().filter(|door| door.armed).count()
    }

    fn turn_away(&mut self, index: usize) -> u32 {
        drop(self.spare.take());
        let fd = self.doors[index].fd.as_ref();
        let turned_away = fd.map_or(0, |fd| net::turn_away(fd, TURNED_AWAY_MAX));
        self.spare = spare();
        turned_away
    }
}

fn spare() -> Option<OwnedFd> {
    use rustix::fs::{Mode, OFlags, open};
    open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()
}

impl Ring {
    pub(super) fn open_door(&mut self, fd: OwnedFd) -> Listener {
        // For `turn_away`; the ring's accept waits all the same.
        let _ = rustix::io::ioctl_fionbio(&fd, true);
        let door = Door { fd: Some(fd), armed: false, stopping: false, retry_at: None };
        self.doors.doors.push(door);
        let index = self.doors.doors.len() as u32 - 1;
        self.arm_door(index);
        Listener(index)
    }

    fn arm_door(&mut self, index: u32) {
        let door = &mut self.doors.doors[index as usize];
        let Some(fd) = &door.fd else { return };
        if door.armed || door.stopping || self.ending {
            return;
        }
        let entry = opcode::AcceptMulti::new(types::Fd(fd.as_raw_fd()))
            .flags(libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK)
            .build()
            .user_data(Token::new(Op::Accept, index, 0).pack());
        door.armed = true;
        // SAFETY: the listener's descriptor is closed only after the last completion.
        unsafe { self.queue.push(&entry) };
    }

    pub(super) fn shut_door(&mut self, listener: Listener) {
        let Some(door) = self.doors.doors.get_mut(listener.0 as usize) else { return };
        if door.stopping {
            return;
        }
        door.stopping = true;
        if door.retry_at.take().is_some() {
            self.doors.resting -= 1;
        }
        if door.armed {
            self.cancel(Token::new(Op::Accept, listener.0, 0).pack());
        } else {
            door.fd = None;
        }
    }

    pub(super) fn shut_doors(&mut self) {
        for index in 0..self.doors.doors.len() {
            self.shut_door(Listener(index as u32));
        }
    }

    /// Arms listeners that have rested long enough.
    pub(super) fn doors_due(&mut self, now: u64) {
        if self.doors.resting == 0 {
            return;
        }
        for index in 0..self.doors.doors.len() {
            let door = &mut self.doors.doors[index];
            if door.retry_at.is_some_and(|at| at <= now) {
                door.retry_at = None;
                self.doors.resting -= 1;
                self.arm_door(index as u32);
            }
        }
    }

    pub(super) fn complete_accept(
        &mut self,
        index: u32,
        result: i32,
        flags: u32,
        events: &mut Vec<Event>,
    ) {
        // SAFETY: a successful accept hands a new descriptor to us, and to nobody else.
        let accepted = (result >= 0).then(|| unsafe { OwnedFd::from_raw_fd(result) });
        let listener = Listener(index);
        let door = &mut self.doors.doors[index as usize];
        if !cqueue::more(flags) {
            door.armed = false;
        }
        if door.stopping {
            if !door.armed {
                door.fd = None;
            }
            return;
        }
        if let Some(fd) = accepted {
            self.admit(listener, fd, events);
        } else {
            self.refused(index, -result, events);
        }
        if self.doors.doors[index as usize].retry_at.is_none() {
            self.arm_door(index);
        }
    }

    fn admit(&mut self, listener: Listener, fd: OwnedFd, events: &mut Vec<Event>) {
        // A peer that is gone already has no address; nobody needs to hear of it.
        let Ok((peer, local)) = net::addresses(&fd) else {
            self.stats.accept_errors += 1;
            return;
        };
        let Some(conn) = self.links.insert(fd) else {
            self.stats.accept_errors += 1;
            return;
        };
        events.push(Event::Accepted { listener, conn, peer, local });
    }

    fn refused(&mut self, index: u32, errno: i32, events: &mut Vec<Event>) {
        let interrupted = matches!(errno, libc::EINTR | libc::EAGAIN | libc::ECANCELED);
        if interrupted {
            return;
        }
        self.stats.accept_errors += 1;
        // accept(2): errors of the connection that was waiting, to be treated like EAGAIN.
        let transient = matches!(
            errno,
            libc::ECONNABORTED
                | libc::ENETDOWN
                | libc::EPROTO
                | libc::ENOPROTOOPT
                | libc::EHOSTDOWN
                | libc::ENONET
                | libc::EHOSTUNREACH
                | libc::ENETUNREACH
        );
        if transient {
            return;
        }
        let mut turned_away = 0;
        if matches!(errno, libc::EMFILE | libc::ENFILE) {
            turned_away = self.doors.turn_away(index as usize);
        }
        let door = &mut self.doors.doors[index as usize];
        if !door.armed && door.retry_at.is_none() {
            door.retry_at = Some(super::clock() + PAUSE.as_nanos() as u64);
            self.doors.resting += 1;
        }
        let listener = Listener(index);
        events.push(Event::AcceptFailed { listener, errno: Errno(errno), turned_away });
    }
}
