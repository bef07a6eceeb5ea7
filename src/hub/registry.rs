//! The table of streams of the process. Asked when somebody starts to publish or play, never on
//! the way of a frame.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::segments::SegmentMemory;
use super::stream::{Stream, StreamId};
use crate::limits;
use crate::media::name::StreamName;

/// The table is full: no stream of a new name can start until others have ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the limit of {} streams is reached", limits::STREAMS_MAX)]
pub struct TooManyStreams;

/// Streams that are looked at under one lock.
const CHUNK: usize = 256;

/// All streams by name.
#[derive(Debug)]
pub struct Registry<W> {
    streams: Mutex<Streams<W>>,
    next_id: AtomicU64,
    /// What the segments of all streams may hold.
    pub segments: Arc<SegmentMemory>,
}

#[derive(Debug)]
struct Streams<W> {
    by_name: HashMap<StreamName, Arc<Stream<W>>>,
    /// For listings, in the order in which they came.
    by_id: BTreeMap<StreamId, Arc<Stream<W>>>,
}

impl<W> Default for Registry<W> {
    fn default() -> Self {
        let streams = Streams { by_name: HashMap::new(), by_id: BTreeMap::new() };
        Registry {
            streams: Mutex::new(streams),
            next_id: AtomicU64::new(1),
            segments: Arc::default(),
        }
    }
}

impl<W> Registry<W> {
    /// The stream of that name, made if it is not there.
    ///
    /// # Errors
    /// The table is full.
    pub fn open(&self, name: &StreamName) -> Result<Arc<Stream<W>>, TooManyStreams> {
        let mut streams = self.lock();
        if let Some(stream) = streams.by_name.get(name) {
            return Ok(stream.clone());
        }
        if streams.by_name.len() >= limits::STREAMS_MAX {
            return Err(TooManyStreams);
        }
        let id = StreamId(self.next_id.fetch_add(1, Relaxed));
        let stream = Arc::new(Stream::new(id, name.clone()));
        streams.by_name.insert(name.clone(), stream.clone());
        streams.by_id.insert(id, stream.clone());
        Ok(stream)
    }

    /// The stream of that name, if it is there.
    pub fn find(&self, name: &StreamName) -> Option<Arc<Stream<W>>> {
        self.lock().by_name.get(name).cloned()
    }

    /// Forgets a stream that nobody publishes, plays or has a handle to (beside the caller's).
    /// True when it is gone.
    pub fn forget_if_idle(&self, stream: &Arc<Stream<W>>) -> bool {
        let mut streams = self.lock();
        // Handles are only made under this lock, so the count cannot rise while we look: the
        // table's two and the caller's are those that may be left.
        let idle = Arc::strong_count(stream) <= 3 && stream.players() == 0 && !stream.is_active();
        if idle && streams.by_name.get(&stream.name).is_some_and(|s| Arc::ptr_eq(s, stream)) {
            streams.by_name.remove(&stream.name);
            streams.by_id.remove(&stream.id);
            if streams.by_name.is_empty() {
                streams.by_name.shrink_to_fit();
            }
            return true;
        }
        false
    }

    /// Number of streams.
    pub fn len(&self) -> usize {
        self.lock().by_name.len()
    }

    /// True when there is no stream.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Up to `limit` streams, for listings.
    pub fn list(&self, limit: usize) -> Vec<Arc<Stream<W>>> {
        self.page(0, limit, |_| true)
    }

    /// The streams that `filter` lets through, in the order in which they came: up to `count`,
    /// without the first `start`. The lock is given back every 256 streams.
    pub fn page(
        &self,
        start: usize,
        count: usize,
        filter: impl Fn(&Stream<W>) -> bool,
    ) -> Vec<Arc<Stream<W>>> {
        let mut out = Vec::new();
        let mut skip = start;
        let mut from = StreamId(0);
        while out.len() < count {
            let streams = self.lock();
            let mut seen = 0;
            for (id, stream) in streams.by_id.range(from..).take(CHUNK) {
                seen += 1;
                from = StreamId(id.0 + 1);
                if out.len() == count || !filter(stream) {
                    continue;
                }
                match skip.checked_sub(1) {
                    Some(left) => skip = left,
                    None => out.push(stream.clone()),
                }
            }
            if seen < CHUNK {
                break;
            }
        }
        out
    }

    /// The stream of an id.
    pub fn by_id(&self, id: StreamId) -> Option<Arc<Stream<W>>> {
        self.lock().by_id.get(&id).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, Streams<W>> {
        // Nothing under the lock can panic half way through a change of the maps.
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_in_the_order_of_coming() {
        let registry: Registry<()> = Registry::default();
        let name = |n: usize| StreamName::new("v", "live", &format!("s{n}")).unwrap();
        let all: Vec<_> = (0..700).map(|n| registry.open(&name(n)).unwrap()).collect();
        let numbers = |page: Vec<Arc<Stream<()>>>| -> Vec<u64> {
            page.iter().map(|stream| stream.id.0 - all[0].id.0).collect()
        };
        let any = |_: &Stream<()>| true;
        assert_eq!(numbers(registry.page(0, 3, any)), [0, 1, 2]);
        assert_eq!(numbers(registry.page(510, 5, any)), [510, 511, 512, 513, 514]);
        assert_eq!(numbers(registry.page(698, 5, any)), [698, 699]);
        assert!(registry.page(700, 5, any).is_empty());
        assert_eq!(registry.page(0, 1_000, any).len(), 700);
        let even = |stream: &Stream<()>| stream.id.0 % 2 == all[0].id.0 % 2;
        assert_eq!(numbers(registry.page(300, 2, even)), [600, 602]);

        assert!(registry.by_id(all[5].id).is_some_and(|found| Arc::ptr_eq(&found, &all[5])));
        assert!(registry.forget_if_idle(&all[5]) && !registry.forget_if_idle(&all[5]));
        assert!(registry.by_id(all[5].id).is_none() && registry.find(&name(5)).is_none());
        let also = all[6].clone();
        assert!(!registry.forget_if_idle(&also), "somebody has a handle");
    }
}
