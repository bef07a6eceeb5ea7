//! What sends by page reference from a log in a memfd would win over plain sends, on loopback.
//!
//! The least that can be measured honestly: no protocol, no server. One thread on core 0 sends the
//! next bytes of a log to every connection once in each window; one on core 1 drains them unread.
//! Three ways take turns: a plain send on the ring from an arena, `sendfile(2)` from a memfd (a
//! system call each), and the ring's splice from the memfd through a pipe (on the kernel's
//! workers, which count). The log is read at places that keep to no page border, as messages do.

use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::Args;
use rustix::fs::{MemfdFlags, memfd_create, sendfile};
use rustix::net::{RecvFlags, recv, sockopt};
use rustix::thread::{CpuSet, sched_setaffinity};
use serde_json::{Value, json};

use bench::process::Cpu;
use bench::quantity::{median, range};
use bench::server::Error;
use uring::{
    Arena, ArenaOptions, BlockWriter, Conn, Driver, Event, Payload, Range, Ring, RingOptions,
    SendMode,
};

/// What is measured.
#[derive(Args, Debug)]
pub struct Options {
    /// Number of connections.
    #[arg(long, default_value_t = 500)]
    players: usize,
    /// Bytes of each send.
    #[arg(long, value_delimiter = ',', default_value = "16384,32768,49152,65536,180000")]
    sizes: Vec<usize>,
    /// Time from one round of sends to the next, ms.
    #[arg(long, default_value_t = 150)]
    window: u64,
    /// Rounds.
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// Measured seconds of each turn.
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Send,
    Sendfile,
    Splice,
}

const WAYS: [(Way, &str); 3] =
    [(Way::Send, "send"), (Way::Sendfile, "sendfile"), (Way::Splice, "splice")];
const LOG: usize = 1 << 20;
/// Name of the draining thread, whose cost is not the sender's.
const DRAIN: &str = "drain";

/// Measures all ways in turns for each size.
pub fn run(options: &Options) -> Result<Value, Error> {
    let head = super::head("page-reference");
    let mut rows = Vec::new();
    for &size in &options.sizes {
        if size == 0 || size >= LOG / 2 {
            return Err(Error::Tool(format!("a size is from 1 to {} bytes", LOG / 2)));
        }
        let mut runs: [Vec<f64>; 3] = Default::default();
        for _ in 0..options.rounds {
            for ((way, _), runs) in WAYS.iter().zip(&mut runs) {
                runs.push(turn(options, *way, size)?);
            }
        }
        let ratio = |way: usize| -> Vec<f64> {
            runs[way].iter().zip(&runs[0]).map(|(other, send)| other / send).collect()
        };
        let (file, splice) = (ratio(1), ratio(2));
        println!(
            "{size:>7} bytes: send {:.1} us, sendfile {:.1} us ({:.2}), splice {:.1} us ({:.2})",
            median(&runs[0]),
            median(&runs[1]),
            median(&file),
            median(&runs[2]),
            median(&splice)
        );
        rows.push(json!({"bytes": size, "send_us": runs[0], "sendfile_us": runs[1],
            "splice_us": runs[2],
            "sendfile_ratio": {"median": median(&file), "range": range(&file)},
            "splice_ratio": {"median": median(&splice), "range": range(&splice)}}));
    }
    let more = json!({"players": options.players, "window_ms": options.window, "rows": rows});
    Ok(super::with(head, more))
}

fn pin(core: usize) {
    let mut set = CpuSet::new();
    set.set(core);
    // On a machine with one core everything stays where it is.
    let _ = sched_setaffinity(None, &set);
}

/// CPU of one send, us.
fn turn(options: &Options, way: Way, size: usize) -> Result<f64, Error> {
    let system = Error::during("the experiment");
    let listener = TcpListener::bind("127.0.0.1:0").map_err(&system)?;
    let addr = listener.local_addr().map_err(&system)?;
    let (ends, arrived) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let players = options.players;
    let drain = {
        let (ends, arrived) = (ends.clone(), arrived.clone());
        let body = move || -> std::io::Result<()> {
            pin(1);
            let mut streams = Vec::new();
            for _ in 0..players {
                let stream = TcpStream::connect(addr)?;
                sockopt::set_socket_recv_buffer_size(&stream, 1 << 20)?;
                stream.set_nonblocking(true)?;
                streams.push(stream);
            }
            let mut unread = vec![0; 1 << 20];
            while !ends.load(Ordering::Acquire) {
                for stream in &streams {
                    if let Ok((_, bytes)) = recv(stream, &mut unread[..], RecvFlags::TRUNC) {
                        arrived.fetch_add(bytes as u64, Ordering::Relaxed);
                    }
                }
                std::thread::sleep(Duration::from_millis(5));
            }
            Ok(())
        };
        std::thread::Builder::new().name(DRAIN.into()).spawn(body).map_err(&system)?
    };
    pin(0);
    let sent = match way {
        Way::Sendfile => by_sendfile(&listener, options, size),
        Way::Send | Way::Splice => by_ring(listener, options, size, way == Way::Splice),
    };
    std::thread::sleep(Duration::from_millis(50));
    ends.store(true, Ordering::Release);
    let drained = drain.join().map_err(|_| Error::Tool("the draining thread failed".into()))?;
    drained.map_err(&system)?;
    let (cost, bytes) = sent.map_err(&system)?;
    if arrived.load(Ordering::Relaxed) != bytes {
        let arrived = arrived.load(Ordering::Relaxed);
        return Err(Error::Tool(format!("{way:?}: {arrived} of {bytes} bytes arrived")));
    }
    Ok(cost)
}

/// Paces the rounds and measures. `round` sends from the given place and returns when all is
/// taken. The result is the cost of a send (us) and the bytes sent in all.
fn paced(
    options: &Options,
    size: usize,
    mut round: impl FnMut(usize) -> std::io::Result<()>,
) -> std::io::Result<(f64, u64)> {
    let window = Duration::from_millis(options.window);
    let warm_up = (600 / options.window.max(1)).max(2);
    let measured = (options.seconds / window.as_secs_f64()).ceil().max(1.0) as u64;
    let (mut place, mut before) = (12, None);
    let mut next = Instant::now();
    for index in 0..warm_up + measured {
        if index == warm_up {
            before = Some(Cpu::of(std::process::id()));
        }
        round(place)?;
        place = (place + size + 12) % (LOG - size);
        next += window;
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    let used = Cpu::of(std::process::id()).since(&before.unwrap_or_default());
    let drained = used.threads.get(DRAIN).copied().unwrap_or(0.0);
    let sends = measured * options.players as u64;
    let bytes = (warm_up + measured) * options.players as u64 * size as u64;
    Ok(((used.total - drained) * 1e6 / sends as f64, bytes))
}

fn memfd(bytes: &[u8]) -> std::io::Result<OwnedFd> {
    let file = memfd_create("log", MemfdFlags::CLOEXEC)?;
    let mut rest = bytes;
    while !rest.is_empty() {
        let written = rustix::io::write(&file, rest)?;
        rest = &rest[written..];
    }
    Ok(file)
}

fn content() -> Vec<u8> {
    (0..LOG).map(|i| (i * 7) as u8).collect()
}

fn by_sendfile(
    listener: &TcpListener,
    options: &Options,
    size: usize,
) -> std::io::Result<(f64, u64)> {
    let file = memfd(&content())?;
    let mut streams = Vec::new();
    for _ in 0..options.players {
        let (stream, _) = listener.accept()?;
        stream.set_nodelay(true)?;
        streams.push(stream);
    }
    paced(options, size, |place| {
        for stream in &streams {
            let mut at = place as u64;
            let end = (place + size) as u64;
            while at < end {
                // Blocking where the peer does not drain in time, as a ring's send would wait.
                let left = (end - at) as usize;
                sendfile(stream, &file, Some(&mut at), left)?;
            }
        }
        Ok(())
    })
}

fn by_ring(
    listener: TcpListener,
    options: &Options,
    size: usize,
    splice: bool,
) -> std::io::Result<(f64, u64)> {
    let failed = |why: String| std::io::Error::other(why);
    let arena = Arena::new(ArenaOptions { limit: 16 << 20, huge_pages: false });
    let arena = arena.map_err(|why| failed(why.to_string()))?;
    let mut writer: BlockWriter =
        arena.writer(LOG).map_err(|why| failed(format!("an arena block: {why:?}")))?;
    writer.push(&content()[..LOG.min(writer.room())]);
    writer.publish();
    let block = Rc::new(writer.block().clone());
    let file = std::sync::Arc::new(memfd(&content())?);
    let ring = RingOptions { arena: Some(arena), ..RingOptions::default() };
    let mut ring = Ring::new(ring).map_err(|why| failed(why.to_string()))?;
    ring.listen_on(listener.into())?;
    let (mut events, mut conns): (Vec<Event>, Vec<Conn>) = (Vec::new(), Vec::new());
    while conns.len() < options.players {
        let deadline = ring.now_exact() + 1_000_000_000;
        ring.turn(Some(deadline), &mut events)?;
        for event in events.drain(..) {
            if let Event::Accepted { conn, .. } = event {
                conns.push(conn);
            }
        }
    }
    paced(options, size, |place| {
        for &conn in &conns {
            let payload = if splice {
                Payload::File { file: file.clone(), offset: place as u64, len: size as u32 }
            } else {
                let (start, end) = (place as u32, (place + size) as u32);
                Payload::Range(Range { block: block.clone(), start, end })
            };
            ring.send(conn, payload, SendMode::Copy);
        }
        let mut open = conns.len();
        while open > 0 {
            let deadline = ring.now_exact() + 1_000_000_000;
            ring.turn(Some(deadline), &mut events)?;
            for event in events.drain(..) {
                if let Event::Sent { result, .. } = event {
                    result.map_err(|why| std::io::Error::other(format!("a send: {why:?}")))?;
                    open -= 1;
                }
            }
        }
        Ok(())
    })
}
