//! The gate: how many connections there may be, in all and per address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use crate::hub::Reason;

/// Counts of the whole process. Passed when a connection is accepted and when it is gone.
#[derive(Debug, Default)]
pub struct Gate {
    total: AtomicU32,
    per_address: Mutex<HashMap<IpAddr, u32>>,
}

impl Gate {
    /// Lets a connection in, or says why not. `0` for `per_address` means no such limit.
    ///
    /// # Errors
    /// The limit that is reached.
    pub fn enter(&self, peer: IpAddr, total: u32, per_address: u32) -> Result<(), Reason> {
        if self.total.fetch_add(1, Relaxed) >= total {
            self.total.fetch_sub(1, Relaxed);
            return Err(Reason::ConnectionsLimit);
        }
        let mut counts = self.per_address.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(peer).or_insert(0);
        if per_address > 0 && *count >= per_address {
            self.total.fetch_sub(1, Relaxed);
            return Err(Reason::AddressLimit);
        }
        *count += 1;
        Ok(())
    }

    /// A connection that was let in is gone.
    pub fn leave(&self, peer: IpAddr) {
        self.total.fetch_sub(1, Relaxed);
        let mut counts = self.per_address.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&peer) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&peer);
            }
        }
        if counts.is_empty() {
            counts.shrink_to_fit();
        }
    }

    /// Connections now.
    pub fn connections(&self) -> u32 {
        self.total.load(Relaxed)
    }
}
