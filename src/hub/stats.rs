//! Counters: one number for everything that is refused, dropped, skipped or failed, by reason.
//!
//! Each shard writes its own set, so an increment is one uncontended relaxed atomic; readers (the
//! summary line, the HTTP API) add the sets up.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $name:ident = $text:literal,)*) => {
        /// Why something was refused, dropped, skipped, closed or failed.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Reason { $($(#[doc = $doc])+ $name,)* }

        impl Reason {
            /// Every reason, in the order of the table.
            pub const ALL: &'static [Reason] = &[$(Reason::$name,)*];

            /// Name in logs and metrics.
            pub fn name(self) -> &'static str {
                match self { $(Reason::$name => $text,)* }
            }

            /// What it means, for the index of errors.
            pub fn meaning(self) -> &'static str {
                match self { $(Reason::$name => concat!($($doc),+),)* }
            }
        }
    };
}

reasons! {
    /// The peer closed the connection.
    PeerClosed = "peer_closed",
    /// The connection failed (reset, timed out in the kernel).
    ConnectionError = "connection_error",
    /// The handshake or the request did not come in time.
    HandshakeTimeout = "handshake_timeout",
    /// A connection that neither plays nor publishes was idle for too long.
    IdleTimeout = "idle_timeout",
    /// The publisher sent nothing in `publish.firstpkt_timeout`.
    FirstPacketTimeout = "first_packet_timeout",
    /// The publisher sent nothing in `publish.normal_timeout`.
    PublishTimeout = "publish_timeout",
    /// Over `max_connections`.
    ConnectionsLimit = "connections_limit",
    /// Over `max_connections_per_address`.
    AddressLimit = "address_limit",
    /// The stream has a publisher already.
    StreamBusy = "stream_busy",
    /// Nothing says that strangers may publish, and the address is not a near one.
    PublishClosed = "publish_closed",
    /// The stream name is not allowed.
    StreamName = "stream_name",
    /// Over the limit of streams.
    StreamsLimit = "streams_limit",
    /// The connection brought too many stream names into the table.
    NamesLimit = "names_limit",
    /// The vhost does not exist.
    VhostUnknown = "vhost_unknown",
    /// `vhost.security` does not let this address in.
    AddressDenied = "address_denied",
    /// The page is not on a domain of `vhost.refer`.
    ReferDenied = "refer_denied",
    /// The token is missing or not a good one.
    TokenRefused = "token_refused",
    /// The keys that JWTs are checked with could not be fetched: the client was refused.
    TokenKeysMissing = "token_keys_missing",
    /// A hook said no.
    HookRefused = "hook_refused",
    /// A hook could not be asked, so the client was refused.
    HookFailed = "hook_failed",
    /// A hook did not answer in time, so the client was refused.
    HookTimeout = "hook_timeout",
    /// Too many hooks wait for their delivery: the client was refused.
    HookBacklog = "hook_backlog",
    /// A hook could not be asked; `http_hooks.accept_on_failure` let the client in.
    HookAccepted = "hook_accepted",
    /// A hook about an end was not delivered and is tried again.
    HookRetried = "hook_retried",
    /// A hook about an end was answered with a refusal, which changes nothing.
    HookEndRefused = "hook_end_refused",
    /// A program of `exec` could not be started, or ended before its stream.
    ProgramEnded = "program_ended",
    /// A disk is full: a stream is not recorded for as long.
    RecordDiskFull = "record_disk_full",
    /// A disk fails or takes too long: a stream is not recorded for as long.
    RecordDiskFailed = "record_disk_failed",
    /// A recording fell behind its stream and went on at the newest keyframe.
    RecordSkipped = "record_skipped",
    /// A stream cannot be recorded as configured.
    RecordRefused = "record_refused",
    /// A recording was removed, because of its age or for want of room (`dvr.keep_hours`,
    /// `dvr.keep_bytes`).
    RecordRemoved = "record_removed",
    /// A file could not be uploaded; it stays on disk and is tried again.
    UploadFailed = "upload_failed",
    /// A file is not uploaded: it cannot be read, is too large, or had to make room
    /// (`dvr.keep_bytes`, `dvr.keep_hours`, `upload.held_bytes`).
    UploadGivenUp = "upload_given_up",
    /// A hook about something that has happened was given up after several tries.
    HookGivenUp = "hook_given_up",
    /// Over `limits.players` or `limits.publishers` of the vhost.
    VhostLimit = "vhost_limit",
    /// Over `limits.players_per_stream` of the vhost.
    StreamPlayersLimit = "stream_players_limit",
    /// The vhost sends more than `limits.kbps`.
    BandwidthLimit = "bandwidth_limit",
    /// The server has no time for more players.
    Overload = "overload",
    /// The publisher had no player for `publish.kickoff_for_idle`.
    KickedForIdle = "kicked_for_idle",
    /// The codec is not one this server passes on.
    CodecUnsupported = "codec_unsupported",
    /// The peer sent bytes that are not the protocol.
    Malformed = "malformed",
    /// The peer broke a rule of the protocol.
    Misbehaved = "misbehaved",
    /// The peer asked for something that is not supported.
    Unsupported = "unsupported",
    /// The peer went over a limit.
    OverLimit = "over_limit",
    /// HTTP: the path is not mounted.
    NotFound = "not_found",
    /// HTTP: the request was refused.
    BadRequest = "bad_request",
    /// The player asked for a duration and has had it.
    DurationReached = "duration_reached",
    /// The publisher ended and did not come back; HTTP players are ended.
    StreamEnded = "stream_ended",
    /// The player fell behind by more than `queue_length` and was moved to the newest keyframe.
    SkipLag = "skip_lag",
    /// The blocks the player needed were gone; it was moved to the newest keyframe.
    SkipGone = "skip_gone",
    /// The player was inside a message whose bytes were gone.
    FellBehind = "fell_behind",
    /// The media memory is used up: a message was dropped.
    MessageDroppedMemory = "message_dropped_memory",
    /// The media memory is used up: a player or publisher was refused.
    RefusedMemory = "refused_memory",
    /// A message before the next keyframe was dropped, because one before it had been.
    MessageDroppedUntilKeyframe = "message_dropped_until_keyframe",
    /// A media message that could not be understood was dropped.
    MessageDroppedMalformed = "message_dropped_malformed",
    /// A message of a track that is not the default one was dropped.
    MessageDroppedTrack = "message_dropped_track",
    /// A frame was left out of a container, because its bytes do not have the form that its codec
    /// prescribes.
    UnitSkipped = "unit_skipped",
    /// The memory for segments is used up: a stream keeps fewer than `hls_window` asks for.
    SegmentMemory = "segment_memory",
    /// Too many segments wait for hooks to be told of them: one is not told.
    SegmentNotTold = "segment_not_told",
    /// A segment or playlist of HLS could not be written to disk; live players do not notice.
    SegmentNotWritten = "segment_not_written",
    /// HLS: a player waited for something that did not come in time.
    SegmentTimeout = "segment_timeout",
    /// A file was shorter than it was when its sending began: the connection was closed.
    FileChanged = "file_changed",
    /// A file could not be opened or read, because a disk fails.
    FileFailed = "file_failed",
    /// A file was not opened, or not read, in time: the connection was closed.
    FileSlow = "file_slow",
    /// Too many files are open or wait for their disk: the request was answered with 503.
    FilesLimit = "files_limit",
    /// A recording cannot be played from where a player asked for.
    FileStart = "file_start",
    /// A command or data message that means nothing here was ignored.
    MessageIgnored = "message_ignored",
    /// The stream's timestamps jumped and were put right.
    TimestampJump = "timestamp_jump",
    /// The server stops.
    Shutdown = "shutdown",
    /// An operator closed it.
    Kicked = "kicked",
    /// The accept failed (descriptors, memory).
    AcceptFailed = "accept_failed",
    /// No descriptor was left for the connection: it was accepted and closed at once.
    TurnedAway = "turned_away",
    /// A letter did not fit its mailbox; the receiver looked at everything instead.
    LetterMissed = "letter_missed",
    /// A bug in a session's code: the session was closed, the server went on.
    Bug = "bug",
}

impl Reason {
    /// True when a client that ended so ended by a fault, its own or another's.
    pub fn is_failure(self) -> bool {
        use Reason::*;
        !matches!(self, PeerClosed | DurationReached | StreamEnded | Shutdown | Kicked)
    }

    /// True for what a peer can bring about at will and by the thousand: lines about it are
    /// limited in number.
    pub fn blames_peer(self) -> bool {
        use Reason::*;
        matches!(
            self,
            HandshakeTimeout
                | IdleTimeout
                | FirstPacketTimeout
                | StreamBusy
                | StreamName
                | StreamsLimit
                | NamesLimit
                | VhostUnknown
                | AddressDenied
                | ReferDenied
                | PublishClosed
                | TokenRefused
                | TokenKeysMissing
                | HookRefused
                | HookFailed
                | HookTimeout
                | HookBacklog
                | VhostLimit
                | StreamPlayersLimit
                | BandwidthLimit
                | Overload
                | CodecUnsupported
                | Malformed
                | Misbehaved
                | Unsupported
                | OverLimit
                | NotFound
                | FileStart
                | BadRequest
        )
    }
}

/// How often something took how long, in few buckets.
#[derive(Debug, Default)]
pub struct Waits {
    buckets: [AtomicU64; WAIT_BOUNDS_US.len() + 1],
    sum_us: AtomicU64,
}

/// Upper bounds of the buckets, microseconds; what is longer is in one more.
const WAIT_BOUNDS_US: [u64; 10] =
    [100, 1_000, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000];

impl Waits {
    /// Counts one. There is one writer, so these are plain stores.
    pub fn count(&self, us: u64) {
        let at = WAIT_BOUNDS_US.partition_point(|bound| *bound < us);
        let add = |to: &AtomicU64, value| to.store(to.load(Relaxed) + value, Relaxed);
        add(&self.buckets[at], 1);
        add(&self.sum_us, us);
    }

    /// The upper bound of each bucket (none for the last) and what is in it.
    pub fn buckets(&self) -> impl Iterator<Item = (Option<u64>, u64)> + '_ {
        let bounds = WAIT_BOUNDS_US.iter().copied().map(Some).chain([None]);
        bounds.zip(self.buckets.iter().map(|count| count.load(Relaxed)))
    }

    /// All of them together, microseconds.
    pub fn sum_us(&self) -> u64 {
        self.sum_us.load(Relaxed)
    }
}

/// A set of counters; each shard has one.
#[derive(Debug)]
pub struct Counters {
    reasons: Vec<AtomicU64>,
    /// How long feeds with news waited for their merged-write window.
    pub window_waits: Waits,
    /// Connections accepted.
    pub accepted: AtomicU64,
    /// Connections open now.
    pub connections: AtomicU64,
    /// Players now.
    pub players: AtomicU64,
    /// Publishers now.
    pub publishers: AtomicU64,
    /// Bytes received.
    pub bytes_received: AtomicU64,
    /// Bytes sent.
    pub bytes_sent: AtomicU64,
    /// Media messages received from publishers.
    pub messages_received: AtomicU64,
    /// Sends issued to players.
    pub sends: AtomicU64,
    /// Turns of the loop.
    pub turns: AtomicU64,
    /// Files open now, for requests.
    pub files_open: AtomicU64,
    /// Files that wait for their disk now.
    pub files_waiting: AtomicU64,
    /// Files opened.
    pub files_opened: AtomicU64,
    /// Share of time the shard was busy over the last window, in 1/1000.
    pub busy_permille: AtomicU64,
    /// Merged-write window in force, microseconds.
    pub window_us: AtomicU64,
}

impl Default for Counters {
    fn default() -> Self {
        Counters {
            reasons: Reason::ALL.iter().map(|_| AtomicU64::new(0)).collect(),
            window_waits: Waits::default(),
            accepted: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            players: AtomicU64::new(0),
            publishers: AtomicU64::new(0),
            bytes_received: AtomicU64::new(0),
            bytes_sent: AtomicU64::new(0),
            messages_received: AtomicU64::new(0),
            sends: AtomicU64::new(0),
            turns: AtomicU64::new(0),
            files_open: AtomicU64::new(0),
            files_waiting: AtomicU64::new(0),
            files_opened: AtomicU64::new(0),
            busy_permille: AtomicU64::new(0),
            window_us: AtomicU64::new(0),
        }
    }
}

impl Counters {
    /// Counts one more of a reason.
    pub fn count(&self, reason: Reason) {
        self.count_many(reason, 1);
    }

    /// Counts a reason that came up `times` times.
    pub fn count_many(&self, reason: Reason, times: u64) {
        self.reasons[reason as usize].fetch_add(times, Relaxed);
    }

    /// How often a reason came up.
    pub fn of(&self, reason: Reason) -> u64 {
        self.reasons[reason as usize].load(Relaxed)
    }

    /// The reasons that came up, by name.
    pub fn reasons(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        Reason::ALL.iter().map(|&r| (r.name(), self.of(r))).filter(|(_, n)| *n > 0)
    }

    /// Adds to one of the plain counters.
    pub fn add(counter: &AtomicU64, value: u64) {
        counter.fetch_add(value, Relaxed);
    }

    /// Takes from one of the gauges.
    pub fn sub(counter: &AtomicU64, value: u64) {
        counter.fetch_sub(value, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_fall_into_their_buckets() {
        let waits = Waits::default();
        for us in [0, 100, 101, 350_000, 2_000_000] {
            waits.count(us);
        }
        let filled: Vec<_> = waits.buckets().filter(|(_, count)| *count > 0).collect();
        assert_eq!(filled, [(Some(100), 2), (Some(1_000), 1), (Some(500_000), 1), (None, 1)]);
        assert_eq!(waits.sum_us(), 2_350_201);
        assert_eq!(waits.buckets().count(), 11);
    }
}
