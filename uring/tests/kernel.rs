//! What this crate believes of the kernel, asked of the kernel itself. When one of these fails
//! on a new kernel, the code that relies on it is named in the comment.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::time::Duration;

use io_uring::{IoUring, cqueue, opcode, squeue, types};

fn ring(entries: u32, completions: u32) -> IoUring {
    IoUring::builder()
        .setup_cqsize(completions)
        .setup_submit_all()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .build(entries)
        .expect("the tests need io_uring")
}

fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let ours = TcpStream::connect(listener.local_addr().expect("bound")).expect("a connection");
    let (theirs, _) = listener.accept().expect("a connection");
    for socket in [&ours, &theirs] {
        socket.set_read_timeout(Some(Duration::from_secs(20))).expect("a socket");
    }
    (ours, theirs)
}

fn push(ring: &mut IoUring, entry: squeue::Entry, user_data: u64) {
    // SAFETY: every test keeps the buffers and sockets of its operations until their completions.
    unsafe { ring.submission().push(&entry.user_data(user_data)) }.expect("room");
}

/// Completions that are there after at most `time`.
fn wait(ring: &mut IoUring, want: usize, time: Duration) -> Vec<cqueue::Entry> {
    let time = types::Timespec::from(time);
    let _ = ring.submitter().submit_with_args(want, &types::SubmitArgs::new().timespec(&time));
    ring.completion().collect()
}

const SOON: Duration = Duration::from_millis(100);
const LONG: Duration = Duration::from_secs(20);

fn send(socket: &TcpStream, bytes: &[u8], flags: i32) -> squeue::Entry {
    opcode::Send::new(types::Fd(socket.as_raw_fd()), bytes.as_ptr(), bytes.len() as u32)
        .flags(flags | libc::MSG_NOSIGNAL)
        .build()
}

/// `ring/send.rs`: without MSG_WAITALL a full socket gives a short count at once.
#[test]
fn send_without_waitall_is_short() {
    let (ours, _theirs) = pair();
    let mut ring = ring(8, 16);
    let bytes = vec![1; 32 << 20];
    push(&mut ring, send(&ours, &bytes, 0), 1);
    let done = wait(&mut ring, 1, LONG);
    assert!(done[0].result() > 0 && (done[0].result() as usize) < bytes.len());
}

/// The other side of the same choice, and why one send at a time is enough: with MSG_WAITALL the
/// completion comes when everything is taken, and a cancel tells how much was.
#[test]
fn send_with_waitall_waits_and_cancel_tells_what_was_taken() {
    let (ours, mut theirs) = pair();
    let mut ring = ring(8, 16);
    let bytes: Vec<u8> = (0..32u32 << 20).map(|at| (at / 1000) as u8).collect();
    push(&mut ring, send(&ours, &bytes, libc::MSG_WAITALL), 1);
    assert!(wait(&mut ring, 1, SOON).is_empty());
    push(&mut ring, opcode::AsyncCancel::new(1).build(), 2);
    let mut done = wait(&mut ring, 2, LONG);
    done.sort_by_key(cqueue::Entry::user_data);
    let taken = done[0].result() as usize;
    assert!(taken > 0 && taken < bytes.len(), "{taken}");
    drop(ours);
    let mut arrived = Vec::new();
    theirs.read_to_end(&mut arrived).expect("connected");
    assert!(arrived == bytes[..taken]);
}

/// `ring.rs`, close: closing the descriptor does not end a send; a shutdown does.
#[test]
fn shutdown_ends_a_send_and_close_does_not() {
    for shut_down in [true, false] {
        let (ours, mut theirs) = pair();
        let mut ring = ring(8, 16);
        let bytes = vec![3; 32 << 20];
        push(&mut ring, send(&ours, &bytes, libc::MSG_WAITALL), 1);
        assert!(wait(&mut ring, 1, SOON).is_empty());
        if shut_down {
            ours.shutdown(Shutdown::Both).expect("connected");
            let done = wait(&mut ring, 1, LONG);
            assert!(done[0].result() < bytes.len() as i32);
        } else {
            drop(ours);
            assert!(wait(&mut ring, 1, SOON).is_empty());
            let mut arrived = vec![0; bytes.len()];
            let reader = std::thread::spawn(move || {
                theirs.read_exact(&mut arrived).expect("all of it arrives");
                arrived
            });
            assert_eq!(wait(&mut ring, 1, LONG)[0].result(), bytes.len() as i32);
            assert!(reader.join().expect("no panic") == bytes);
        }
    }
}

/// `net.rs`: O_NONBLOCK, which file sends need, does not keep the ring's own operations from
/// waiting.
#[test]
fn operations_wait_on_nonblocking_sockets_too() {
    let (ours, mut theirs) = pair();
    ours.set_nonblocking(true).expect("a socket");
    let mut ring = ring(8, 16);
    let mut buffer = [0u8; 16];
    let fd = types::Fd(ours.as_raw_fd());
    push(&mut ring, opcode::Recv::new(fd, buffer.as_mut_ptr(), 16).build(), 1);
    let bytes = vec![3; 32 << 20];
    push(&mut ring, send(&ours, &bytes, libc::MSG_WAITALL), 2);
    assert!(wait(&mut ring, 1, SOON).is_empty());
    theirs.write_all(b"now").expect("connected");
    let done = wait(&mut ring, 1, LONG);
    assert_eq!((done[0].user_data(), done[0].result()), (1, 3));
    ours.shutdown(Shutdown::Both).expect("connected");
    assert_eq!(wait(&mut ring, 1, LONG)[0].user_data(), 2);
}

/// `hold.rs`: first the result with F_MORE, then the notification, under one number.
#[test]
fn zero_copy_result_comes_before_the_notification() {
    let (ours, mut theirs) = pair();
    let mut ring = ring(8, 16);
    let bytes = vec![5; 40_000];
    let fd = types::Fd(ours.as_raw_fd());
    let entry = opcode::SendZc::new(fd, bytes.as_ptr(), bytes.len() as u32).zc_flags(8).build();
    push(&mut ring, entry, 7);
    let mut done = wait(&mut ring, 1, LONG);
    assert_eq!((done[0].user_data(), done[0].result()), (7, 40_000));
    assert!(cqueue::more(done[0].flags()) && !cqueue::notif(done[0].flags()));
    let mut arrived = vec![0; bytes.len()];
    theirs.read_exact(&mut arrived).expect("connected");
    while done.len() < 2 {
        done.extend(wait(&mut ring, 1, LONG));
    }
    assert_eq!(done[1].user_data(), 7);
    assert!(cqueue::notif(done[1].flags()) && !cqueue::more(done[1].flags()));
    assert!((done[1].result() as u32) >> 31 == 1, "loopback copies and says so");
}

/// `ring/send.rs`: a failed zero-copy send has a notification too, when F_MORE says so.
#[test]
fn failed_zero_copy_send_is_notified_too() {
    let (ours, _theirs) = pair();
    let mut ring = ring(8, 16);
    let fd = types::Fd(ours.as_raw_fd());
    // The first page is never mapped.
    let entry = opcode::SendZc::new(fd, std::ptr::without_provenance(8), 100).build();
    push(&mut ring, entry, 7);
    let mut done = wait(&mut ring, 1, LONG);
    assert_eq!(done[0].result(), -libc::EFAULT);
    if cqueue::more(done[0].flags()) {
        while done.len() < 2 {
            done.extend(wait(&mut ring, 1, LONG));
        }
        assert!(cqueue::notif(done[1].flags()));
    }
}

/// `ring/receive.rs`: a shutdown ends an armed receive with zero, not with an error.
#[test]
fn shutdown_ends_a_receive_as_the_end_of_the_stream() {
    let (ours, _theirs) = pair();
    let mut ring = ring(8, 16);
    let mut buffer = [0u8; 16];
    let fd = types::Fd(ours.as_raw_fd());
    push(&mut ring, opcode::Recv::new(fd, buffer.as_mut_ptr(), 16).build(), 1);
    assert!(wait(&mut ring, 1, SOON).is_empty());
    ours.shutdown(Shutdown::Both).expect("connected");
    assert_eq!(wait(&mut ring, 1, LONG)[0].result(), 0);
}

/// `ring/receive.rs`: MSG_TRUNC on TCP throws away without a buffer and counts.
#[test]
fn truncating_receive_needs_no_buffer() {
    let (ours, mut theirs) = pair();
    let mut ring = ring(8, 16);
    theirs.write_all(&[9; 5000]).expect("connected");
    theirs.write_all(&[9; 5000]).expect("connected");
    std::thread::sleep(Duration::from_millis(20));
    let fd = types::Fd(ours.as_raw_fd());
    let entry = opcode::Recv::new(fd, std::ptr::null_mut(), 1 << 24).flags(libc::MSG_TRUNC);
    push(&mut ring, entry.build(), 1);
    assert_eq!(wait(&mut ring, 1, LONG)[0].result(), 10_000);
}

/// `queue.rs`: what does not fit into the completion queue is kept, and the flag says so.
#[test]
fn overflowed_completions_are_kept() {
    let mut ring = ring(8, 16);
    for number in 0..100u64 {
        push(&mut ring, opcode::Nop::new().build(), number);
        if number % 8 == 7 {
            ring.submit().expect("submitted");
        }
    }
    ring.submit().expect("submitted");
    assert!(ring.submission().cq_overflow());
    let mut seen = Vec::new();
    while seen.len() < 100 {
        let done = wait(&mut ring, 1, LONG);
        assert!(!done.is_empty());
        seen.extend(done.iter().map(cqueue::Entry::user_data));
    }
    assert_eq!(seen, (0..100).collect::<Vec<_>>());
    assert!(!ring.submission().cq_overflow());
}

/// `ring/receive.rs` arms again whenever F_MORE is missing: a full completion queue is one cause.
#[test]
fn multishot_ends_quietly_when_completions_do_not_fit() {
    let mut ring = ring(8, 8);
    let sockets: Vec<_> = (0..24).map(|_| pair()).collect();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let addr = listener.local_addr().expect("bound");
    push(&mut ring, opcode::AcceptMulti::new(types::Fd(listener.as_raw_fd())).build(), 1);
    ring.submit().expect("submitted");
    let clients: Vec<_> = (0..sockets.len())
        .map(|_| TcpStream::connect(addr).expect("the backlog has room"))
        .collect();
    let (mut accepted, mut ended) = (0, 0);
    while accepted < clients.len() {
        let done = wait(&mut ring, 1, LONG);
        assert!(!done.is_empty(), "{accepted} accepted, {ended} endings");
        for completion in done {
            assert!(completion.result() >= 0);
            accepted += 1;
            // SAFETY: a successful accept made this descriptor for us.
            drop(unsafe {
                <std::os::fd::OwnedFd as std::os::fd::FromRawFd>::from_raw_fd(completion.result())
            });
            if !cqueue::more(completion.flags()) {
                ended += 1;
                let fd = types::Fd(listener.as_raw_fd());
                push(&mut ring, opcode::AcceptMulti::new(fd).build(), 1);
            }
        }
    }
    // Whether it ended is the kernel's business; that nothing was lost is ours.
    assert_eq!(accepted, clients.len());
}

/// `splice.rs`: a splice to a full socket does not wait when the socket has O_NONBLOCK.
#[test]
fn splice_to_a_full_nonblocking_socket_ends_at_once() {
    let (ours, _theirs) = pair();
    ours.set_nonblocking(true).expect("a socket");
    let mut full = &ours;
    while full.write(&[0; 65536]).is_ok() {}
    let (read, write) = rustix::pipe::pipe().expect("a pipe");
    rustix::io::write(&write, &[1; 4096]).expect("room");
    let mut ring = ring(8, 16);
    let (from, to) = (types::Fd(read.as_raw_fd()), types::Fd(ours.as_raw_fd()));
    push(&mut ring, opcode::Splice::new(from, -1, to, -1, 4096).build(), 1);
    let done = wait(&mut ring, 1, Duration::from_secs(2));
    assert_eq!(done.first().map(cqueue::Entry::result), Some(-libc::EAGAIN));
}

/// `recv.rs`: pieces lie behind one another in the order of completions, whichever socket they
/// came from; a buffer ends exactly when it is full; an end of stream uses up nothing.
#[test]
fn incremental_buffers_are_filled_in_the_order_of_completions() {
    const INCREMENTAL: u16 = 2;
    const SIZE: u32 = 1000;
    let mut ring = ring(8, 16);
    #[repr(align(4096))]
    struct Table([types::BufRingEntry; 2]);
    // SAFETY: all fields are numbers.
    let mut table: Box<Table> = Box::new(unsafe { std::mem::zeroed() });
    let memory = [vec![0u8; SIZE as usize], vec![0u8; SIZE as usize]];
    for (id, entry) in table.0.iter_mut().enumerate() {
        entry.set_addr(memory[id].as_ptr() as u64);
        entry.set_len(SIZE);
        entry.set_bid(id as u16);
    }
    // SAFETY: table and buffers live until the ring is dropped at the end.
    let registered = unsafe {
        types::BufRingEntry::tail(table.0.as_ptr()).cast_mut().write(2);
        let address = table.0.as_ptr() as u64;
        ring.submitter().register_buf_ring_with_flags(address, 2, 0, INCREMENTAL)
    };
    if registered.is_err() {
        return; // before 6.12
    }
    let (ours, mut theirs) = pair();
    let (ours_too, mut theirs_too) = pair();
    for (socket, number) in [(&ours, 1), (&ours_too, 2)] {
        push(&mut ring, opcode::RecvMulti::new(types::Fd(socket.as_raw_fd()), 0).build(), number);
    }
    assert!(wait(&mut ring, 1, SOON).is_empty());
    let next = |ring: &mut IoUring, bytes: &[u8], socket: &mut TcpStream| {
        socket.write_all(bytes).expect("connected");
        let done = wait(ring, 1, LONG);
        assert_eq!(done.len(), 1);
        let (done, flags) = (&done[0], done[0].flags());
        (done.user_data(), done.result(), cqueue::buffer_select(flags), flags)
    };
    let (from, len, id, flags) = next(&mut ring, &[1; 300], &mut theirs);
    assert_eq!((from, len, id, cqueue::buffer_more(flags)), (1, 300, Some(0), true));
    let (from, len, id, flags) = next(&mut ring, &[2; 300], &mut theirs_too);
    assert_eq!((from, len, id, cqueue::buffer_more(flags)), (2, 300, Some(0), true));
    drop(theirs_too);
    let ended = wait(&mut ring, 1, LONG);
    assert_eq!((ended[0].user_data(), ended[0].result()), (2, 0));
    let (from, len, id, flags) = next(&mut ring, &[3; 400], &mut theirs);
    assert_eq!((from, len, id, cqueue::buffer_more(flags)), (1, 400, Some(0), false));
    let (from, len, id, flags) = next(&mut ring, &[4; 10], &mut theirs);
    assert_eq!((from, len, id, cqueue::buffer_more(flags)), (1, 10, Some(1), true));
    drop(ring);
    assert!(memory[0] == [vec![1; 300], vec![2; 300], vec![3; 400]].concat());
    assert!(memory[1][..11] == [4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 0]);
}
