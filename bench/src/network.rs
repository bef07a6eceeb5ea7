//! The network everything is measured in: a namespace of its own, so that all servers and players
//! have the same loopback, firewall and congestion control, whatever the machine is set to.
//!
//! The congestion control matters. BBR paces what it sends by timers, so much of the work of a send
//! is done later, in interrupts, and is accounted to whatever runs then; the cost of a server
//! cannot be told from its threads. Cubic sends at once.

use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

use crate::server::Error;

/// Set in the process that runs inside.
const INSIDE: &str = "RINGCAST_BENCH_NETWORK";
/// What connections in the namespace use.
pub const CONGESTION_CONTROL: &str = "cubic";

/// True in the process that runs inside.
pub fn is_inside() -> bool {
    std::env::var_os(INSIDE).is_some()
}

/// Replaces this process by itself in a network namespace of its own. Returns when that is not
/// possible (it takes root), with the reason.
pub fn enter() -> String {
    let mut probe = Command::new("unshare");
    probe.args(["--net", "true"]).stdout(Stdio::null()).stderr(Stdio::null());
    match probe.status() {
        Ok(status) if status.success() => {}
        Ok(_) => return "unshare --net is not permitted".into(),
        Err(why) => return format!("unshare: {why}"),
    }
    let Ok(me) = std::env::current_exe() else { return "this program has no path".into() };
    let mut command = Command::new("unshare");
    command.args(["--net", "--"]).arg(me).args(std::env::args_os().skip(1)).env(INSIDE, "1");
    format!("unshare: {}", command.exec())
}

/// Sets the namespace up, inside.
///
/// # Errors
/// `ip` is missing or refuses.
pub fn set_up() -> Result<(), Error> {
    ip("link set lo up")?;
    // The setting for all connections is the machine's; that of a route is the namespace's.
    for destination in ["127.0.0.0/8", "127.0.0.1"] {
        ip(&format!(
            "route change table local local {destination} dev lo proto kernel scope host \
             src 127.0.0.1 congctl {CONGESTION_CONTROL}"
        ))?;
    }
    Ok(())
}

/// The congestion control that a server gets which does not choose (none of those compared does).
pub fn congestion_control() -> String {
    let ask = || {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let _client = TcpStream::connect(listener.local_addr()?)?;
        let (server, _) = listener.accept()?;
        Ok::<_, std::io::Error>(rustix::net::sockopt::tcp_congestion(&server)?)
    };
    ask().unwrap_or_else(|why| format!("unknown ({why})"))
}

/// Runs `ip` with arguments separated by blanks.
///
/// # Errors
/// It is missing or refuses.
pub fn ip(args: &str) -> Result<(), Error> {
    let output = Command::new("ip")
        .args(args.split_whitespace())
        .output()
        .map_err(Error::during("ip (apt-get install iproute2)"))?;
    if output.status.success() {
        return Ok(());
    }
    let why = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(Error::Tool(format!("ip {args}: {why}")))
}
