//! [`SimDriver`]: the driver interface on top of a [`SimWorld`].

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::SimWorld;
use super::link::Owner;
use super::shard::{Completion, ConnState, ListenerState, Op, Receive, Shard, WakeCell, conn_of};
use super::world::{Action, World};
use crate::driver::{
    Conn, ConnectOptions, Driver, DriverStats, Event, Gather, ListenOptions, Listener, Open,
    Opening, Payload, SendMode, Wake,
};

/// A driver in a simulated world. Dropping it is the death of its process: its connections are
/// reset and its listeners are gone.
///
/// Misuse panics with "bug of the owner": a second send in flight, any use of a connection after
/// `close` (but a second `close`), and handles this driver has never given out.
pub struct SimDriver {
    world: SimWorld,
    shard: u32,
    waker: SimWaker,
}

/// Wakes a [`SimDriver`]. From another thread the wake is real but its place in the run is not
/// the seed's any more.
#[derive(Clone, Debug)]
pub struct SimWaker {
    cell: Arc<WakeCell>,
}

impl Wake for SimWaker {
    fn wake(&self) {
        self.cell.flag.store(true, Ordering::Release);
    }
}

impl SimDriver {
    pub(super) fn new(world: &SimWorld, shard: u32) -> SimDriver {
        let mut state = world.inner.borrow_mut();
        let now = state.now;
        let entry = Shard::new(shard, now);
        let waker = SimWaker { cell: entry.waker.clone() };
        let before = state.shards.insert(shard, entry);
        assert!(before.is_none(), "shard {shard} has a driver already");
        drop(state);
        SimDriver { world: world.clone(), shard, waker }
    }

    /// The number given to [`SimWorld::driver`].
    pub fn shard(&self) -> u32 {
        self.shard
    }

    /// The address a listener got, when it was bound to port 0.
    pub fn local_addr(&self, listener: Listener) -> Option<SocketAddr> {
        let world = self.world.inner.borrow();
        let entry = world.shards[&self.shard].listeners.get(listener.0 as usize)?;
        entry.as_ref().map(|entry| entry.addr)
    }

    /// Runs `f` on this driver's part of the world.
    fn with<T>(&self, f: impl FnOnce(&mut Shard) -> T) -> T {
        let mut world = self.world.inner.borrow_mut();
        f(world.shards.get_mut(&self.shard).expect("the driver is alive"))
    }

    /// Queues an operation on a connection that must be usable.
    fn submit(&self, conn: Conn, what: &str, op: Op) {
        self.with(|shard| {
            let state = checked(shard, conn, what);
            assert!(!state.connecting, "bug of the owner: {what} before Connected on {conn:?}");
            shard.submit.push_back(op);
        });
    }
}

/// The state of a connection that the owner may still use.
fn checked<'a>(shard: &'a mut Shard, conn: Conn, what: &str) -> &'a mut ConnState {
    let issued = shard.has_issued(conn);
    assert!(issued, "bug of the owner: {what} on {conn:?}, which this driver never gave out");
    match shard.get_mut(conn) {
        Some(state) if !state.closing => state,
        Some(_) => panic!("bug of the owner: {what} after close on {conn:?}"),
        None => panic!("bug of the owner: {what} on {conn:?}, which is closed"),
    }
}

impl Driver for SimDriver {
    type Waker = SimWaker;

    fn now(&self) -> u64 {
        self.with(|shard| shard.turned_at)
    }

    fn now_exact(&self) -> u64 {
        let mut world = self.world.inner.borrow_mut();
        let World { shards, random, faults, now, .. } = &mut *world;
        let shard = shards.get_mut(&self.shard).expect("the driver is alive");
        // Work takes time although the world stands still during a turn.
        let step = faults.turn.draw(random) / 4;
        shard.exact = shard.exact.max(shard.turned_at).max(*now) + step;
        shard.ready_at = shard.ready_at.max(shard.exact);
        shard.exact
    }

    fn waker(&self) -> SimWaker {
        self.waker.clone()
    }

    fn wake(&mut self, target: &SimWaker) {
        let cell = target.cell.clone();
        self.with(|shard| shard.submit.push_back(Op::Wake(cell)));
    }

    fn listen(&mut self, addr: SocketAddr, options: &ListenOptions) -> io::Result<Listener> {
        let mut world = self.world.inner.borrow_mut();
        world.listen(self.shard, addr, options.reuse_port)
    }

    fn listen_on(&mut self, socket: OwnedFd) -> io::Result<Listener> {
        // Only the address matters here; the socket itself never gets a connection.
        let addr = SocketAddr::try_from(rustix::net::getsockname(&socket)?)?;
        self.world.inner.borrow_mut().listen(self.shard, addr, true)
    }

    fn stop_listening(&mut self, listener: Listener) {
        self.world.inner.borrow_mut().stop_listening(self.shard, listener);
    }

    fn connect(&mut self, addr: SocketAddr, options: &ConnectOptions) -> io::Result<Conn> {
        let mut world = self.world.inner.borrow_mut();
        let link = world.new_link(Owner::Nobody, options.source, addr);
        let shard = world.shards.get_mut(&self.shard).expect("the driver is alive");
        let mut state = ConnState::new(link, 0);
        state.connecting = true;
        let conn = shard.insert(state);
        shard.submit.push_back(Op::Connect(conn));
        let entry = world.links.get_mut(&link).expect("just made");
        entry.ends[0].owner = Owner::Conn(self.shard, conn);
        Ok(conn)
    }

    fn receive(&mut self, conn: Conn) {
        self.submit(conn, "receive", Op::Receive(conn));
    }

    fn receive_discard(&mut self, conn: Conn) {
        self.submit(conn, "receive_discard", Op::Discard(conn));
    }

    fn receive_pause(&mut self, conn: Conn) {
        self.submit(conn, "receive_pause", Op::Pause(conn));
    }

    fn send(&mut self, conn: Conn, payload: Payload, mode: SendMode) {
        self.submit(conn, "send", Op::Send(conn));
        self.world.inner.borrow_mut().issue(self.shard, conn, payload, mode);
    }

    fn send_in_flight(&self, conn: Conn) -> bool {
        self.with(|shard| shard.get(conn).is_some_and(|state| state.send.is_some()))
    }

    fn cancel_send(&mut self, conn: Conn) {
        self.submit(conn, "cancel_send", Op::Cancel(conn));
    }

    fn take_gather(&mut self) -> Box<Gather> {
        self.with(|shard| shard.gathers.pop().unwrap_or_default())
    }

    fn open_file(&mut self, what: Open) -> Opening {
        self.with(|shard| {
            let opening = Opening { slot: shard.opens_made, generation: 0 };
            shard.opens_made += 1;
            shard.submit.push_back(Op::Open(opening, what));
            opening
        })
    }

    fn close(&mut self, conn: Conn) {
        self.with(|shard| {
            let issued = shard.has_issued(conn);
            assert!(issued, "bug of the owner: close on {conn:?}, which was never given out");
            // Idempotent, also when it is closed for good.
            if let Some(state) = shard.get_mut(conn)
                && !state.closing
            {
                state.closing = true;
                shard.submit.push_back(Op::Close(conn));
            }
        });
    }

    fn turn(&mut self, deadline: Option<u64>, events: &mut Vec<Event>) -> io::Result<()> {
        self.world.inner.borrow_mut().turn(self.shard, deadline, events);
        Ok(())
    }

    fn stats(&self) -> DriverStats {
        self.with(|shard| shard.stats)
    }
}

impl Drop for SimDriver {
    fn drop(&mut self) {
        // After a panic inside the world there is nothing left to tidy.
        if let Ok(mut world) = self.world.inner.try_borrow_mut() {
            world.remove_shard(self.shard);
        }
    }
}

impl World {
    fn listen(&mut self, id: u32, addr: SocketAddr, reuse_port: bool) -> io::Result<Listener> {
        let mut addr = addr;
        let taken = |addr: SocketAddr| {
            let drivers = self.shards.values().flat_map(|shard| shard.listeners.iter().flatten());
            drivers.map(|l| (l.addr, l.reuse_port)).find(|(other, _)| *other == addr)
        };
        if addr.port() == 0 {
            let free = (40_000..=u16::MAX).find(|&port| {
                addr.set_port(port);
                taken(addr).is_none()
            });
            free.ok_or(io::ErrorKind::AddrInUse)?;
        }
        let peer = self.peer_listeners.iter().any(|l| l.open && l.addr == addr);
        if peer || taken(addr).is_some_and(|(_, shared)| !(shared && reuse_port)) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        let shard = self.shards.get_mut(&id).expect("the driver is alive");
        shard.listeners.push(Some(ListenerState { addr, reuse_port }));
        Ok(Listener(shard.listeners.len() as u32 - 1))
    }

    fn stop_listening(&mut self, id: u32, listener: Listener) {
        if let Some(shard) = self.shards.get_mut(&id)
            && let Some(entry) = shard.listeners.get_mut(listener.0 as usize)
        {
            *entry = None;
        }
        // What waits in the accept queue is reset, as the kernel does.
        self.reset_owned(|owner| owner == Owner::Queued(id, listener));
    }

    fn reset_owned(&mut self, wanted: impl Fn(Owner) -> bool) {
        let found: Vec<(u64, usize)> = self
            .links
            .iter()
            .flat_map(|(&id, link)| (0..2).map(move |side| (id, side, link.ends[side].owner)))
            .filter(|&(_, _, owner)| wanted(owner))
            .map(|(id, side, _)| (id, side))
            .collect();
        for (id, side) in found {
            self.abort(id, side);
            self.close_end(id, side);
        }
    }

    fn remove_shard(&mut self, id: u32) {
        // First the shard, so that nothing is reported to it any more.
        self.shards.remove(&id);
        self.reset_owned(
            |owner| matches!(owner, Owner::Queued(shard, _) | Owner::Conn(shard, _) if shard == id),
        );
    }

    /// One turn of a driver: submits, then reports what is due. Never waits: the world's owner
    /// decides when the shard runs next, see [`SimWorld::next_turn`].
    fn turn(&mut self, id: u32, deadline: Option<u64>, events: &mut Vec<Event>) {
        self.poll_wakers();
        let shard = self.shards.get_mut(&id).expect("the driver is alive");
        let ops = std::mem::take(&mut shard.submit);
        shard.stats.enters += 1;
        for op in ops {
            self.perform(id, op);
        }

        let before = events.len();
        if self.random.chance(self.faults.spurious_wake) {
            self.report(id, Event::Woken, events);
        }
        let now = self.now;
        while let Some(completion) = self.shards.get_mut(&id).and_then(|s| s.pop_due(now)) {
            self.deliver(id, completion, events);
        }

        let mut busy = self.faults.turn.draw(&mut self.random);
        if self.random.chance(self.faults.stalled_turn) {
            busy += self.faults.stall.draw(&mut self.random);
        }
        let shard = self.shards.get_mut(&id).expect("the driver is alive");
        shard.turned_at = now.max(shard.exact);
        shard.ready_at = now + busy;
        shard.deadline = deadline;
        shard.asleep = events.len() == before && deadline.is_none_or(|deadline| deadline > now);
    }

    fn perform(&mut self, id: u32, op: Op) {
        let arm = |world: &mut World, conn: Conn, mode: Receive| {
            if let Some(state) = world.conn_mut(id, conn)
                && !state.closing
            {
                state.receive = mode;
                world.pump_receive(id, conn);
            }
        };
        match op {
            Op::Receive(conn) => arm(self, conn, Receive::On),
            Op::Discard(conn) => arm(self, conn, Receive::Discard),
            Op::Pause(conn) => arm(self, conn, Receive::Off),
            Op::Send(conn) => self.submit_send(id, conn),
            Op::Cancel(conn) => self.cancel(id, conn),
            Op::Close(conn) => self.terminate(id, conn),
            Op::Connect(conn) => {
                let Some(state) = self.conn_mut(id, conn) else { return };
                let link = state.link;
                if self.random.chance(self.faults.connect_failure) {
                    self.travel(link, 0, Action::Reset { link, to: 0 });
                } else {
                    self.dial(link);
                }
            }
            Op::Open(opening, what) => {
                let result = super::files::open(&what);
                self.complete(id, Event::Opened { opening, result }, None);
            }
            Op::Wake(cell) => {
                let known = self.shards.get(&cell.shard);
                if known.is_some_and(|shard| Arc::ptr_eq(&shard.waker, &cell)) {
                    self.wake_shard(cell.shard);
                } else {
                    cell.flag.store(true, Ordering::Release);
                }
            }
        }
    }

    /// Takes a completion out of the queue: here the driver lets go of what the operation held.
    fn deliver(&mut self, id: u32, completion: Completion, events: &mut Vec<Event>) {
        let early = self.faults.planted_release_early;
        let shard = self.shards.get_mut(&id).expect("the driver is alive");
        let Completion { event, notice, .. } = completion;
        shard.stats.completions += 1;
        if matches!(event, Event::Received { .. }) {
            shard.buffers_used -= 1;
        }
        if matches!(event, Event::Woken) {
            shard.woken_queued = false;
        }
        let gone = match &event {
            Event::Accepted { listener, .. } | Event::AcceptFailed { listener, .. } => {
                !shard.listening(*listener)
            }
            _ => false,
        };
        let Some(conn) = conn_of(&event) else {
            if !gone {
                self.report(id, event, events);
            }
            return;
        };
        let Some(state) = shard.get_mut(conn) else {
            shard.stats.stale_completions += 1;
            return;
        };
        let mut quiet = state.closing;
        match &event {
            // Accepted before its listener was stopped: nobody waits for it any more.
            Event::Accepted { .. } if gone => {
                state.closing = true;
                state.unannounced = true;
                self.terminate(id, conn);
                quiet = true;
            }
            Event::Sent { .. } => {
                let send = state.send.take();
                let hold = send.as_ref().and_then(|send| send.notice).filter(|_| early);
                let hold = hold.and_then(|notice| shard.notices.get(&notice));
                let dropped = hold.and_then(|notice| notice.hold.release());
                for payload in send.and_then(|send| send.payload).into_iter().chain(dropped) {
                    shard.recycle(payload);
                }
            }
            Event::Released { .. } => {
                shard.forget_notice(notice.expect("names its send"));
            }
            Event::Closed { .. } => {
                quiet = state.unannounced;
                let state = shard.remove(conn).expect("found above");
                // A send that the close overtook never reported back.
                if let Some(payload) = state.send.and_then(|send| send.payload) {
                    shard.recycle(payload);
                }
            }
            _ => {}
        }
        if !quiet {
            self.report(id, event, events);
        }
    }

    fn report(&mut self, id: u32, event: Event, events: &mut Vec<Event>) {
        self.trace.event(self.now, id, &event);
        events.push(event);
    }
}
