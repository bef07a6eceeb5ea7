//! A stream: its name, its publisher, its feeds, and which shards follow it.
//!
//! Everything here is shared by all shards. The only lock is on the publisher's place, taken when
//! somebody starts or stops to publish; following and writing touch atomics only.

use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, fence};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use arc_swap::ArcSwapOption;

use super::clients::Urls;
use super::feed::{Feed, Format};
use super::recording::Recording;
use super::segments::Segments;
use super::stats::Reason;
use crate::media::name::StreamName;
use crate::media::track::{AudioTrack, VideoTrack};

/// Names a stream for as long as it exists; never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamId(pub u64);

/// The stream has a publisher already.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the stream is being published by session {holder}")]
pub struct Busy {
    /// Session of the publisher that holds the stream.
    pub holder: String,
}

/// What a stream looks like from outside; replaced as a whole.
#[derive(Clone, Debug, Default)]
pub struct Tracks {
    /// Video codec and parameters, for people.
    pub video: Option<String>,
    /// Audio codec and parameters, for people.
    pub audio: Option<String>,
    /// The video track in its parts.
    pub video_track: Option<VideoTrack>,
    /// The audio track in its parts.
    pub audio_track: Option<AudioTrack>,
}

/// What is looked at to tell operators of a stream that players will have trouble with.
#[derive(Debug, Default)]
pub struct Health {
    /// Pictures whose presentation time differs from their decoding time: B-frames.
    pub reordered: AtomicU64,
    /// Stream time between the last two keyframes, ms; 0 before there are two.
    pub gop_ms: AtomicU32,
    /// Stream time of the last keyframe, ms.
    pub keyframe_ms: AtomicI64,
    /// Stream time of the last picture, ms.
    pub video_ms: AtomicI64,
    /// Stream time of the last audio frame, ms.
    pub audio_ms: AtomicI64,
    /// Timestamps that lay before the one before them, of the same track.
    pub backward: AtomicU64,
    /// Jumps of the publisher's clock that were put right.
    pub jumps: AtomicU64,
    /// Bit rate and frame rate that the metadata states, kbit/s and thousandths; 0: not stated.
    pub stated_kbps: AtomicU32,
    /// See `stated_kbps`.
    pub stated_fps: AtomicU32,
    /// The metadata asks for the publisher's own timestamps (`bravo_atc`).
    pub bravo_atc: AtomicBool,
}

/// Messages of a stream that were dropped.
#[derive(Debug, Default)]
pub struct Dropped([AtomicU64; DROPS.len()]);

/// The reasons for which messages of a stream are dropped.
pub const DROPS: [Reason; 4] = [
    Reason::MessageDroppedMemory,
    Reason::MessageDroppedUntilKeyframe,
    Reason::MessageDroppedMalformed,
    Reason::MessageDroppedTrack,
];

impl Dropped {
    /// Counts one more.
    pub fn count(&self, reason: Reason) {
        if let Some(index) = DROPS.iter().position(|&drop| drop == reason) {
            self.0[index].fetch_add(1, Relaxed);
        }
    }

    /// How many were dropped for each reason.
    pub fn counts(&self) -> impl Iterator<Item = (Reason, u64)> + '_ {
        DROPS.iter().zip(&self.0).map(|(&reason, count)| (reason, count.load(Relaxed)))
    }
}

/// Counters of one stream, written by the publisher's shard (what was sent: by all shards).
#[derive(Debug, Default)]
pub struct StreamStats {
    /// Media bytes received.
    pub bytes: AtomicU64,
    /// Bytes sent to players.
    pub bytes_sent: AtomicU64,
    /// Media messages received.
    pub messages: AtomicU64,
    /// Video messages received.
    pub video_messages: AtomicU64,
    /// Keyframe interval, clocks and faults of what is published.
    pub health: Health,
    /// Messages that were dropped, by reason.
    pub dropped: Dropped,
    /// Keyframes received.
    pub keyframes: AtomicU64,
    /// Times a publisher came back within the hold.
    pub resumed: AtomicU64,
    /// Times a player fell behind and was moved to a newer place.
    pub skips: AtomicU64,
    /// When publishing began, milliseconds since the epoch; 0: not published.
    pub published_since_ms: AtomicI64,
}

/// The publisher's place. `W` is the writer (what turns messages into feeds).
#[derive(Debug)]
struct Place<W> {
    /// Session that publishes now.
    holder: Option<String>,
    /// The writer of a publisher that left, kept for the next one during the hold.
    parked: Option<W>,
}

/// One stream.
#[derive(Debug)]
pub struct Stream<W> {
    /// Identity.
    pub id: StreamId,
    /// vhost, app and name.
    pub name: StreamName,
    /// Counters.
    pub stats: StreamStats,
    place: Mutex<Place<W>>,
    feeds: [ArcSwapOption<Feed>; Format::COUNT],
    /// Formats somebody waits for, one bit each.
    wanted: AtomicU32,
    /// Shard of the publisher, or `NOBODY`.
    home: AtomicU32,
    /// Shards with players, one bit each.
    followers: AtomicU64,
    players: AtomicU32,
    tracks: ArcSwapOption<Tracks>,
    /// RTMP chunk size, bytes; 0: not settled.
    chunk_size: AtomicU32,
    first_urls: OnceLock<Arc<Urls>>,
    recording: ArcSwapOption<Recording>,
    segments: ArcSwapOption<Segments>,
    dash: ArcSwapOption<Segments>,
}

const NOBODY: u32 = u32::MAX;

impl<W> Stream<W> {
    /// A stream nobody publishes or plays yet.
    pub(super) fn new(id: StreamId, name: StreamName) -> Stream<W> {
        Stream {
            id,
            name,
            stats: StreamStats::default(),
            place: Mutex::new(Place { holder: None, parked: None }),
            feeds: Default::default(),
            wanted: AtomicU32::new(0),
            home: AtomicU32::new(NOBODY),
            followers: AtomicU64::new(0),
            players: AtomicU32::new(0),
            tracks: ArcSwapOption::empty(),
            chunk_size: AtomicU32::new(0),
            first_urls: OnceLock::new(),
            recording: ArcSwapOption::empty(),
            segments: ArcSwapOption::empty(),
            dash: ArcSwapOption::empty(),
        }
    }

    /// The RTMP chunk size of the stream's log. Who asks first settles it by what it `wanted`;
    /// it stays for as long as the stream does, because players read what is written already.
    pub fn chunk_size(&self, wanted: u32) -> u32 {
        match self.chunk_size.compare_exchange(0, wanted, AcqRel, Acquire) {
            Ok(_) => wanted,
            Err(settled) => settled,
        }
    }

    /// Takes the publisher's place. The writer of a publisher that left during the hold comes
    /// with it, so that the log goes on.
    ///
    /// # Errors
    /// Somebody publishes; exactly one of several that race gets the place.
    pub fn acquire(&self, session: &str, shard: usize) -> Result<Option<W>, Busy> {
        let mut place = self.place();
        if let Some(holder) = &place.holder {
            return Err(Busy { holder: holder.clone() });
        }
        place.holder = Some(session.to_string());
        self.home.store(shard as u32, Release);
        Ok(place.parked.take())
    }

    /// Gives the place back; the writer is kept for the next publisher, or dropped by the
    /// caller when it passes `None`.
    pub fn release(&self, writer: Option<W>) {
        let mut place = self.place();
        place.holder = None;
        place.parked = writer;
        self.home.store(NOBODY, Release);
        self.stats.published_since_ms.store(0, Relaxed);
    }

    /// Ends the hold: takes the kept writer out if nobody came back and `expired` says so.
    pub fn take_parked_if(&self, expired: impl FnOnce(&W) -> bool) -> Option<W> {
        let mut place = self.place();
        if place.parked.as_ref().is_some_and(expired) { place.parked.take() } else { None }
    }

    /// True when a publisher is there or is being waited for.
    pub fn is_active(&self) -> bool {
        let place = self.place();
        place.holder.is_some() || place.parked.is_some()
    }

    /// Session of the publisher.
    pub fn holder(&self) -> Option<String> {
        self.place().holder.clone()
    }

    /// What the first client called the app, for the API.
    pub fn tc_url(&self) -> Option<String> {
        self.first_urls.get().map(|urls| urls.tc_url().to_owned())
    }

    /// Notes what a client said of itself; the first one counts.
    pub(super) fn note_urls(&self, urls: &Arc<Urls>) {
        self.first_urls.get_or_init(|| urls.clone());
    }

    /// True when a publisher is there.
    pub fn is_published(&self) -> bool {
        self.home.load(Acquire) != NOBODY
    }

    /// Shard of the publisher.
    pub fn home(&self) -> Option<usize> {
        match self.home.load(Acquire) {
            NOBODY => None,
            shard => Some(shard as usize),
        }
    }

    /// The feed of a format, while it is open.
    pub fn feed(&self, format: Format) -> Option<Arc<Feed>> {
        self.feeds[format.index()].load_full()
    }

    /// Opens or closes a format for followers; the writer's business.
    pub fn set_feed(&self, format: Format, feed: Option<Arc<Feed>>) {
        self.feeds[format.index()].store(feed);
    }

    /// Takes a feed out if it is still the one in its place: the next publisher may have put
    /// its own there already.
    pub fn clear_feed(&self, feed: &Arc<Feed>) {
        let slot = &self.feeds[feed.format().index()];
        let current = slot.load();
        if current.as_ref().is_some_and(|c| Arc::ptr_eq(c, feed)) {
            slot.compare_and_swap(&*current, None);
        }
    }

    /// Asks the publisher's shard to open a format.
    pub fn want(&self, format: Format) {
        self.wanted.fetch_or(1 << format.index(), AcqRel);
    }

    /// The formats asked for so far.
    pub fn wanted(&self) -> impl Iterator<Item = Format> {
        let bits = self.wanted.load(Acquire);
        Format::ALL.into_iter().filter(move |f| bits & (1 << f.index()) != 0)
    }

    /// Takes back the wish for a format that nobody follows any more.
    pub fn unwant(&self, format: Format) {
        self.wanted.fetch_and(!(1 << format.index()), AcqRel);
    }

    /// Counts a player on a shard in.
    pub fn player_joined(&self, shard: usize) {
        self.players.fetch_add(1, Relaxed);
        self.followers.fetch_or(1 << shard, AcqRel);
        // Pairs with the fence in `followers`: either the writer sees this shard's bit, or this
        // shard, which looks at the feed next, sees what the writer wrote.
        fence(SeqCst);
    }

    /// Counts a player out; `last_here`: it was the shard's last one of this stream.
    pub fn player_left(&self, shard: usize, last_here: bool) {
        self.players.fetch_sub(1, Relaxed);
        if last_here {
            self.followers.fetch_and(!(1 << shard), AcqRel);
        }
    }

    /// Players on all shards.
    pub fn players(&self) -> u32 {
        self.players.load(Relaxed)
    }

    /// Shards that have players of this stream, one bit each.
    pub fn followers(&self) -> u64 {
        fence(SeqCst);
        self.followers.load(Acquire)
    }

    /// What is known of its recording, while there is one.
    pub fn recording(&self) -> Option<Arc<Recording>> {
        self.recording.load_full()
    }

    /// Begins or ends to tell of a recording; the recorder's business.
    pub fn set_recording(&self, recording: Option<Arc<Recording>>) {
        self.recording.store(recording);
    }

    /// Counts somebody in (`true`) or out who plays without a connection of its own.
    pub fn count_viewer(&self, joined: bool) {
        match joined {
            true => self.players.fetch_add(1, Relaxed),
            false => self.players.fetch_sub(1, Relaxed),
        };
    }

    /// The stream in segments of HLS, if that is what it is to be had in.
    pub fn segments(&self) -> Option<Arc<Segments>> {
        self.segments.load_full()
    }

    /// Opens or lets go of the segments of HLS.
    pub fn set_segments(&self, segments: Option<Arc<Segments>>) {
        self.segments.store(segments);
    }

    /// The stream in segments of DASH; they may be the same.
    pub fn dash(&self) -> Option<Arc<Segments>> {
        self.dash.load_full()
    }

    /// Opens or lets go of the segments of DASH.
    pub fn set_dash(&self, segments: Option<Arc<Segments>>) {
        self.dash.store(segments);
    }

    /// Shards that wait for a change of the segments, if there was one.
    pub fn take_waiting(&self) -> u64 {
        let waiting = |segments: &ArcSwapOption<Segments>| {
            segments.load().as_ref().map_or(0, |segments| segments.take_waiting())
        };
        waiting(&self.segments) | waiting(&self.dash)
    }

    /// What is in the stream, as far as it is known.
    pub fn tracks(&self) -> Option<Arc<Tracks>> {
        self.tracks.load_full()
    }

    /// Says what is in the stream.
    pub fn set_tracks(&self, tracks: Tracks) {
        self.tracks.store(Some(Arc::new(tracks)));
    }

    fn place(&self) -> MutexGuard<'_, Place<W>> {
        // A panic while the place was held leaves it in one of its valid states: each change is
        // a single assignment.
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
