//! Sending a file: file -> pipe -> socket, page references only.
//!
//! Splices run on the kernel's worker threads. A stalled peer must not keep such a thread, so the
//! sockets are non-blocking, and when a splice comes back short the pipe is let go and the socket
//! polled. A waiting file send holds neither thread nor pipe.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;

use io_uring::{opcode, squeue, types};

/// Bytes asked of a pipe; the kernel may allow less.
const PIPE_SIZE: usize = 256 << 10;
/// Idle pipes kept by a driver.
const PIPES_KEPT: usize = 16;

const SPLICE_F_MORE: u32 = 4;

pub(crate) struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
    size: u32,
}

/// Pipes for file sends.
#[derive(Default)]
pub(crate) struct Pipes {
    idle: Vec<Pipe>,
}

impl Pipes {
    fn take(&mut self) -> rustix::io::Result<Pipe> {
        if let Some(pipe) = self.idle.pop() {
            return Ok(pipe);
        }
        let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        // An unprivileged process has a budget of pipe pages; a small pipe works as well.
        let _ = rustix::pipe::fcntl_setpipe_size(&write, PIPE_SIZE);
        let size = rustix::pipe::fcntl_getpipe_size(&write)? as u32;
        Ok(Pipe { read, write, size })
    }

    fn give(&mut self, pipe: Pipe) {
        if self.idle.len() < PIPES_KEPT {
            self.idle.push(pipe);
        }
    }
}

/// A file send in flight.
pub(crate) struct FileSend {
    file: Arc<OwnedFd>,
    offset: u64,
    remaining: u32,
    sent: u32,
    /// Held only between a read and the end of its write.
    pipe: Option<Pipe>,
    /// Bytes in the pipe.
    filled: u32,
    /// The owner has cancelled: the next completion is the last.
    pub(crate) cancelled: bool,
    /// What is in flight.
    pub(crate) stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    Read,
    Write,
    Poll,
}

/// What a file send does next.
pub(crate) enum Next {
    /// This operation; descriptors in it stay open while the `FileSend` lives.
    Submit(squeue::Entry),
    /// It is over: bytes taken, or the (positive) errno when there were none.
    Done(Result<u32, i32>),
}

impl FileSend {
    pub(crate) fn new(file: Arc<OwnedFd>, offset: u64, len: u32) -> FileSend {
        FileSend {
            file,
            offset,
            remaining: len,
            sent: 0,
            pipe: None,
            filled: 0,
            cancelled: false,
            stage: Stage::Read,
        }
    }

    /// Reads the next piece of the file into a pipe.
    pub(crate) fn read(&mut self, pipes: &mut Pipes) -> Next {
        if self.remaining == 0 {
            return self.finish(pipes, 0);
        }
        let pipe = match self.pipe.take().map_or_else(|| pipes.take(), Ok) {
            Ok(pipe) => pipe,
            Err(errno) => return self.finish(pipes, errno.raw_os_error()),
        };
        self.stage = Stage::Read;
        let len = self.remaining.min(pipe.size);
        let (from, to) = (types::Fd(self.file.as_raw_fd()), types::Fd(pipe.write.as_raw_fd()));
        self.pipe = Some(pipe);
        Next::Submit(opcode::Splice::new(from, self.offset as i64, to, -1, len).build())
    }

    fn write(&mut self, socket: RawFd, pipes: &mut Pipes) -> Next {
        let Some(pipe) = &self.pipe else { return self.finish(pipes, libc::EPIPE) };
        self.stage = Stage::Write;
        let (from, to) = (types::Fd(pipe.read.as_raw_fd()), types::Fd(socket));
        let more = if self.remaining > self.filled { SPLICE_F_MORE } else { 0 };
        let splice = opcode::Splice::new(from, -1, to, -1, self.filled);
        Next::Submit(splice.flags(more).build())
    }

    /// Takes the completion of the operation in flight.
    pub(crate) fn complete(&mut self, result: i32, socket: RawFd, pipes: &mut Pipes) -> Next {
        let stage = self.stage;
        if stage == Stage::Write && result > 0 {
            let taken = result as u32;
            self.sent += taken;
            self.offset += u64::from(taken);
            self.remaining -= taken;
            self.filled -= taken;
        }
        if stage == Stage::Read && result > 0 {
            self.filled = result as u32;
        }
        if self.cancelled {
            return self.finish(pipes, libc::ECANCELED);
        }
        let again = matches!(-result, libc::EAGAIN | libc::EINTR);
        match stage {
            // The file is shorter than asked for.
            Stage::Read if result == 0 => self.finish(pipes, libc::ENODATA),
            Stage::Read if again => self.read(pipes),
            Stage::Write if again || (result > 0 && self.filled > 0) => {
                // What is left in the pipe is read again from the page cache later.
                self.drop_pipe();
                self.stage = Stage::Poll;
                let poll = opcode::PollAdd::new(types::Fd(socket), libc::POLLOUT as u32);
                Next::Submit(poll.build())
            }
            _ if result < 0 => self.finish(pipes, -result),
            Stage::Read => self.write(socket, pipes),
            Stage::Write if result == 0 => self.finish(pipes, libc::EPIPE),
            Stage::Write | Stage::Poll => self.read(pipes),
        }
    }

    /// Bytes the send was given.
    pub(crate) fn given(&self) -> u32 {
        self.sent + self.remaining
    }

    fn drop_pipe(&mut self) {
        self.pipe = None;
        self.filled = 0;
    }

    /// Bytes already taken count more than the reason for stopping.
    fn finish(&mut self, pipes: &mut Pipes, errno: i32) -> Next {
        match self.pipe.take() {
            Some(pipe) if self.filled == 0 => pipes.give(pipe),
            _ => self.drop_pipe(),
        }
        match (self.sent, errno) {
            (0, errno) if errno != 0 => Next::Done(Err(errno)),
            (sent, _) => Next::Done(Ok(sent)),
        }
    }
}
