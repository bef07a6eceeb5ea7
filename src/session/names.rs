//! How many stream names one connection may bring into the table of streams.
//!
//! A name is there while somebody publishes or plays it, and some seconds longer. A connection can
//! play and close one name after the other, so without a limit of its own a single one could fill
//! the table for everybody.

use std::sync::Arc;

use crate::hub::Reason;
use crate::limits::{SESSION_NAMES_MAX, SESSION_NAMES_WINDOW_MS};
use crate::media::name::StreamName;
use crate::remux::Stream;

use super::{Closing, Env};

/// The names that a session has brought into the table of late.
#[derive(Debug, Default)]
pub struct Names {
    /// When the window began, ns.
    since: u64,
    /// Names brought in since.
    count: u32,
}

impl Names {
    /// Opens a stream. One that is there costs nothing, however often it is opened.
    ///
    /// # Errors
    /// The session has brought in too many, or the table is full.
    pub fn open(&mut self, env: &Env<'_>, name: &StreamName) -> Result<Arc<Stream>, Closing> {
        if let Some(stream) = env.streams.find(name) {
            return Ok(stream);
        }
        // The window is never shorter than a name stays after its last use.
        let vhost = env.config.vhost(name.vhost());
        let stay = vhost.idle_close.saturating_add(vhost.publish.hold).as_nanos() as u64;
        let window = stay.max(SESSION_NAMES_WINDOW_MS * 1_000_000);
        if env.now.saturating_sub(self.since) >= window {
            *self = Names { since: env.now, count: 0 };
        }
        if self.count >= SESSION_NAMES_MAX {
            let detail = format!("more than {SESSION_NAMES_MAX} new stream names");
            return Err(Closing::because(Reason::NamesLimit, detail));
        }
        self.count += 1;
        env.streams.open(name).map_err(|error| Closing::because(Reason::StreamsLimit, error))
    }
}
