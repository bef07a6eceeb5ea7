//! The signals the process answers to.

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::serve::ServeError;

/// Handlers of all of them. Without one a signal ends the process, so they are there before
/// anybody is told that it serves.
#[derive(Debug)]
pub(super) struct Signals {
    /// Stop at once.
    pub interrupt: Signal,
    /// Stop at once, or let players finish.
    pub terminate: Signal,
    /// Let players finish.
    pub quit: Signal,
    /// Open the log file again.
    pub reopen: Signal,
    /// Read the configuration again.
    pub hangup: Signal,
    /// Reserved.
    pub upgrade: Signal,
}

impl Signals {
    /// Handles them from now on.
    pub fn new() -> Result<Signals, ServeError> {
        let on = |kind| signal(kind).map_err(|why| ServeError::System("cannot watch signals", why));
        Ok(Signals {
            interrupt: on(SignalKind::interrupt())?,
            terminate: on(SignalKind::terminate())?,
            quit: on(SignalKind::quit())?,
            reopen: on(SignalKind::user_defined1())?,
            hangup: on(SignalKind::hangup())?,
            upgrade: on(SignalKind::user_defined2())?,
        })
    }
}
