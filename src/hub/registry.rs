//! The table of streams of the process. Asked when somebody starts to publish or play, never on
//! the way of a frame.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::stream::{Stream, StreamId};
use crate::limits;
use crate::media::name::StreamName;

/// The table is full: no stream of a new name can start until others have ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the limit of {} streams is reached", limits::STREAMS_MAX)]
pub struct TooManyStreams;

/// All streams by name.
#[derive(Debug)]
pub struct Registry<W> {
    streams: Mutex<HashMap<StreamName, Arc<Stream<W>>>>,
    next_id: AtomicU64,
}

impl<W> Default for Registry<W> {
    fn default() -> Self {
        Registry { streams: Mutex::new(HashMap::new()), next_id: AtomicU64::new(1) }
    }
}

impl<W> Registry<W> {
    /// The stream of that name, made if it is not there.
    ///
    /// # Errors
    /// The table is full.
    pub fn open(&self, name: &StreamName) -> Result<Arc<Stream<W>>, TooManyStreams> {
        let mut streams = self.lock();
        if let Some(stream) = streams.get(name) {
            return Ok(stream.clone());
        }
        if streams.len() >= limits::STREAMS_MAX {
            return Err(TooManyStreams);
        }
        let id = StreamId(self.next_id.fetch_add(1, Relaxed));
        let stream = Arc::new(Stream::new(id, name.clone()));
        streams.insert(name.clone(), stream.clone());
        Ok(stream)
    }

    /// The stream of that name, if it is there.
    pub fn find(&self, name: &StreamName) -> Option<Arc<Stream<W>>> {
        self.lock().get(name).cloned()
    }

    /// Forgets a stream that nobody publishes, plays or has a handle to (beside the caller's).
    /// True when it is gone.
    pub fn forget_if_idle(&self, stream: &Arc<Stream<W>>) -> bool {
        let mut streams = self.lock();
        // Handles are only made under this lock, so the count cannot rise while we look: the
        // table's and the caller's are the two that may be left.
        let idle = Arc::strong_count(stream) <= 2 && stream.players() == 0 && !stream.is_active();
        if idle && streams.get(&stream.name).is_some_and(|s| Arc::ptr_eq(s, stream)) {
            streams.remove(&stream.name);
            if streams.is_empty() {
                streams.shrink_to_fit();
            }
            return true;
        }
        false
    }

    /// Number of streams.
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// True when there is no stream.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Up to `limit` streams, for listings.
    pub fn list(&self, limit: usize) -> Vec<Arc<Stream<W>>> {
        self.lock().values().take(limit).cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<StreamName, Arc<Stream<W>>>> {
        // Nothing under the lock can panic half way through a change of the map.
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
