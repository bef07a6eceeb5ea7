//! Row 42: what the server does when the kernel does not give it what it wants. Full queues, empty
//! buffer rings and refused registrations are the ring's own tests (`uring/tests`); here the whole
//! server starts under a system call filter, and either says what is wrong or does without.

mod common;

use std::process::Command;
use std::thread;
use std::time::Duration;

use common::process::Process;
use common::server::{Server, binary};
use loadtest::client::{RtmpPlayer, RtmpPublisher};
use loadtest::media::Kind;
use rustix::process::Signal;

/// Runs a program with a filter that lets one system call fail: its number, the value of its
/// second argument (or `-` for any), and the error. For x86-64.
const FILTER: &str = r#"
import ctypes, os, sys
call, argument, errno = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
class Instruction(ctypes.Structure):
    _fields_ = [("code", ctypes.c_ushort), ("jt", ctypes.c_ubyte), ("jf", ctypes.c_ubyte),
                ("k", ctypes.c_uint)]
class Program(ctypes.Structure):
    _fields_ = [("len", ctypes.c_ushort), ("filter", ctypes.POINTER(Instruction))]
LOAD, EQUAL, RETURN = 0x20, 0x15, 0x06
lines = [(LOAD, 0, 0, 0)]
if argument == "-":
    lines += [(EQUAL, 0, 1, call)]
else:
    lines += [(EQUAL, 0, 3, call), (LOAD, 0, 0, 24), (EQUAL, 0, 1, int(argument))]
lines += [(RETURN, 0, 0, 0x00050000 | errno), (RETURN, 0, 0, 0x7fff0000)]
filter = (Instruction * len(lines))(*[Instruction(*line) for line in lines])
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, ctypes.byref(Program(len(lines), filter))) == 0
os.execv(sys.argv[4], sys.argv[4:])
"#;

const SETUP: u32 = 425;
const REGISTER: u32 = 427;
const EPERM: u32 = 1;
const ENOMEM: u32 = 12;
const EINVAL: u32 = 22;

fn filtered(call: u32, argument: &str, errno: u32) -> Command {
    let mut command = Command::new("python3");
    command.args(["-c", FILTER, &call.to_string(), argument, &errno.to_string()]);
    command.arg(binary());
    command
}

/// Without io_uring the server does not start, and says in one line why and what to do.
#[test]
fn without_io_uring_the_start_fails_with_a_remedy() {
    for (errno, said, remedy) in [
        (EPERM, "a system call filter (seccomp) forbids it", "seccomp profile"),
        (ENOMEM, "RLIMIT_MEMLOCK is too small", "ulimit -l"),
    ] {
        let mut command = filtered(SETUP, "-", errno);
        command.args(["--set", "listen=127.0.0.1:0", "--set", "http_server.enabled=false"]);
        command.args(["--set", "http_api.enabled=false"]);
        let finished = Process::start("ringcast", &mut command).finish(Duration::from_secs(20));
        assert_eq!(finished.status.code(), Some(1));
        let text = finished.stderr.join("\n");
        assert!(text.contains(said) && text.contains(remedy), "{errno}: {text}");
        assert!(!text.contains("panicked"), "{text}");
    }
}

/// What the ring can do without is done without: registered buffers, the registered ring, NAPI,
/// the limit of workers. The server serves all the same.
#[test]
fn without_registrations_the_server_serves() {
    // IORING_REGISTER_BUFFERS, _RING_FDS, _BUFFERS2, _IOWQ_MAX_WORKERS, _NAPI.
    for (operation, errno) in [(0, ENOMEM), (20, EINVAL), (15, ENOMEM), (19, EINVAL), (27, EINVAL)]
    {
        let mut server =
            Server::run(filtered(REGISTER, &operation.to_string(), errno), &["shards=2"]);
        let mut publisher = RtmpPublisher::connect(&server.rtmp("live/a")).expect("publish");
        let mut player = RtmpPlayer::connect(&server.rtmp("live/a")).expect("play");
        for number in 0..50_u8 {
            publisher
                .send(Kind::Audio, u32::from(number) * 23, &[0x2f, 0xff, number])
                .expect("send");
            thread::sleep(Duration::from_millis(5));
        }
        let frames = player.frames(20).expect("frames");
        let numbers: Vec<u8> = frames.iter().map(|frame| frame.payload[2]).collect();
        let first = numbers[0];
        let in_order: Vec<u8> = (first..first + 20).collect();
        assert_eq!(numbers, in_order, "registration {operation}");
        assert!(server.process_mut().is_running());
        server.process_mut().signal(Signal::USR1);
        server.stop();
    }
}
