//! Every bound of the server in one place: what it is, and what happens when it is reached.
//!
//! Nothing in the server grows by a size that a peer declares, only by bytes that have arrived,
//! and each of those growths ends at one of these constants. Settings have their ranges here as
//! well, so that a configuration can never lift a bound that the code relies on.

/// Most shards a process starts; a larger `shards` setting is a configuration error.
pub const SHARDS_MAX: u16 = 64;

/// Longest busy polling a shard can be configured for, microseconds; more is a configuration
/// error.
pub const NAPI_BUSY_POLL_US_MAX: u32 = 10_000;

/// Most connections a process can be configured for; more is a configuration error.
pub const CONNECTIONS_MAX: u32 = 4_000_000;

/// Descriptors kept free of connections: listeners, rings, log, pid file, control thread.
/// `max_connections` is lowered to the open-file limit minus this.
pub const DESCRIPTORS_RESERVED: u32 = 128;

/// Smallest RTMP chunk size accepted from a peer or a configuration, in bytes (RTMP 5.4.1).
pub const CHUNK_SIZE_MIN: u32 = 128;

/// Largest RTMP chunk size accepted, in bytes: a chunk is never longer than the longest message.
pub const CHUNK_SIZE_MAX: u32 = 16 << 20;

/// Smallest `media_memory`, in bytes: below this not even one stream's cache would fit.
pub const MEDIA_MEMORY_MIN: u64 = 16 << 20;

/// Largest `media_memory`, in bytes.
pub const MEDIA_MEMORY_MAX: u64 = 1 << 40;

/// Upper end of the default `media_memory`, in bytes.
pub const MEDIA_MEMORY_AUTO_MAX: u64 = 4 << 30;

/// Largest `gop_cache_max_frames`; more is a configuration error.
pub const GOP_FRAMES_MAX: u32 = 100_000;

/// Most messages that a merged write may wait for (SRS caps `mw_msgs` here too).
pub const MERGED_WRITE_MESSAGES_MAX: u32 = 128;

/// Longest time any setting may ask for, in seconds: one week.
pub const SETTING_SECONDS_MAX: u32 = 7 * 24 * 3600;

/// Largest configuration file, in bytes; a longer one is refused unread.
pub const CONFIG_FILE_BYTES_MAX: u64 = 1 << 20;

/// Deepest nesting of blocks in a configuration in SRS's grammar; more is an error.
pub const SRS_BLOCKS_DEPTH_MAX: usize = 16;

/// Most files of one configuration in SRS's grammar; one more is an error.
pub const SRS_FILES_MAX: usize = 256;

/// Most vhosts with a name of their own; one more is a configuration error.
pub const CONFIG_VHOSTS_MAX: usize = 10_000;

/// Most problems of one configuration that are listed before the rest is only counted.
pub const CONFIG_ERRORS_SHOWN: usize = 20;

/// Log lines that may wait for the log writer; further lines are dropped, counted and reported.
pub const LOG_LINES_WAITING: usize = 8_192;

/// Seconds that `ringcast` with `daemon` on waits for its background process to serve.
pub const DAEMON_START_SECONDS: u64 = 30;

/// Most streams at a time; one more cannot be published or waited for.
pub const STREAMS_MAX: usize = 100_000;

/// Stream names that one connection may bring into the table of streams, by playing or publishing
/// what nobody else does, in one window. One more closes the connection. Names stay for some
/// seconds after their last use, so at most twice as many of one connection are there at a time.
pub const SESSION_NAMES_MAX: u32 = 64;

/// That window, ms; longer where names stay for longer (`idle_close`, `publish.hold`).
pub const SESSION_NAMES_WINDOW_MS: u64 = 60_000;

/// Most blocks a feed offers; with one more the oldest is let go.
pub const FEED_BLOCKS_MAX: usize = 512;

/// Newest blocks a feed keeps although no newcomer starts there, for shards late by some turns.
pub const FEED_BLOCKS_RECENT: u64 = 4;

/// From this many players on, a feed's blocks are sized for sending instead of for memory.
pub const FEED_LARGE_BLOCK_PLAYERS: u32 = 16;

/// How long a block should last when many players read it, ms: few sends cross its end.
pub const FEED_LARGE_BLOCK_MS: i64 = 2_000;

/// How long a block should last otherwise, ms: the kept GOP is not rounded up by much.
pub const FEED_SMALL_BLOCK_MS: i64 = 500;

/// Largest block chosen by bit rate, bytes: the arena's largest. At 4 Mbit/s it lasts two seconds.
pub const FEED_BLOCK_BYTES_MAX: usize = 1 << 20;

/// Bytes of a block that a message cannot use: its index entries.
pub const BLOCK_SLACK: usize = 64;

/// Looks (one a second) at which a format must have had no follower before it is closed.
pub const FEED_UNUSED_TICKS: u32 = 5;

/// Most bytes of one send to a player, so that one completion never stands for too much.
pub const SEND_BYTES_MAX: u32 = 512 << 10;

/// Bytes of unparsed input that a session takes while it waits for a decision; then its socket is
/// not read any more until the decision is there.
pub const SESSION_INPUT_PAUSE: usize = 64 << 10;

/// Most bytes of that input with what was on its way already; with more the session is closed.
pub const SESSION_INPUT_MAX: usize = 2 << 20;

/// Most bytes of replies waiting for a connection; a peer that asks for more is closed. The largest
/// file of the index page has to fit.
pub const SESSION_OUTPUT_MAX: usize = 512 << 10;

/// Time for a connection to finish its handshake and say what it wants, ms.
pub const HANDSHAKE_MS_MAX: u64 = 10_000;

/// Time an RTMP connection may spend between two publishes or plays, ms (SRS: 3 minutes).
pub const RTMP_IDLE_MS_MAX: u64 = 180_000;

/// Time an HTTP connection may be idle between requests, ms.
pub const HTTP_IDLE_MS_MAX: u64 = 15_000;

/// Time a peer may take to receive a reply that is not media before it is closed, ms.
pub const REPLY_MS_MAX: u64 = 30_000;

/// Time a player may take to receive what is left when its stream ends, ms.
pub const DRAIN_MS_MAX: u64 = 5_000;

/// The same when a new publisher's log is there already, ms.
pub const SUCCESSION_MS_MAX: u64 = 1_000;

/// Connections that wait to be accepted, per listener and shard; the kernel may allow fewer.
pub const BACKLOG: i32 = 4_096;

/// Unsent bytes the kernel may hold per connection (TCP_NOTSENT_LOWAT). Small, so that a player
/// that falls behind is known to have and its backlog stays in the shared log.
pub const NOTSENT_LOWAT: u32 = 128 << 10;

/// Bytes that newcomers of one shard may have said while they wait for their turn; with more, turns
/// are spent on newcomers until it is less.
pub const LOBBY_BYTES_MAX: usize = 8 << 20;

/// Files that one shard has open for requests; with one more that is 503 (`files_limit`). They come
/// on top of `max_connections`; where the open-file limit is reached before, that is 503, too.
pub const FILES_OPEN_MAX: usize = 1_024;
/// Files of one shard that wait to be opened; one more is 503.
pub const FILES_WAITING_MAX: usize = 256;
/// How long a file that was asked for stays open for others who ask for it, ms. So long a file that
/// was replaced may be answered with as it was.
pub const FILE_KEPT_MS: u64 = 1_000;
/// The same for the folders that files are looked for in, and for their not being there.
pub const FILE_ROOT_KEPT_MS: u64 = 2_000;
/// Time for a file to be opened, and for its head to be read where it is not played from its
/// beginning, ms; then the connection is closed.
pub const FILE_OPEN_MS_MAX: u64 = 10_000;
/// Bytes of a name in a path of a file; a longer one is not there.
pub const FILE_NAME_BYTES_MAX: usize = 255;
/// Requests to play a file from another place than its beginning that wait; one more is 503.
pub const VOD_ASKS_MAX: usize = 256;
/// Bytes of the beginning of an FLV file that are searched for metadata and sequence headers.
pub const VOD_FLV_HEAD_BYTES_MAX: usize = 2 << 20;
/// Bytes of the `moov` of an MP4 file; with more it is not played from elsewhere.
pub const VOD_MOOV_BYTES_MAX: usize = 10 << 20;
/// Such requests that are worked on at a time; more wait.
pub const VOD_WORKING_MAX: usize = 4;
/// Bytes that were made for players of such files and are not sent yet, all players together; with
/// more the next one is 503.
pub const VOD_HEADS_BYTES_MAX: usize = 128 << 20;
/// Boxes of an MP4 file that are looked at to find its `moov`, or the fragment to begin with.
pub const VOD_BOXES_MAX: usize = 1_000_000;
/// Letters that wait for a shard; with one more the shard looks at everything instead.
pub const LETTERS_MAX: usize = 4_096;

/// Streams named in one listing.
pub const LISTING_MAX: usize = 1_000;

/// Changes of clients (publish, play and their ends) that wait for the control thread; further ones
/// are not reported, only counted.
pub const CLIENT_EVENTS_WAITING: usize = 16_384;

/// Log lines about one address's faults in one window; further ones are counted and summed up.
pub const LOG_LINES_PER_PEER: u32 = 10;

/// That window, ms.
pub const LOG_PEER_WINDOW_MS: u64 = 60_000;

/// Addresses whose log lines are counted one by one; all others share one count.
pub const LOG_ADDRESSES_MAX: usize = 4_096;

/// Times one session may start to play or publish with a log line each.
pub const LOG_STARTS_PER_SESSION: u32 = 8;

/// Clients that hooks know of, and whose ends may not be delivered yet. With so many nobody new is
/// let in on a vhost with hooks: that keeps room for the end of everybody who was.
pub const HOOK_CASES_MAX: usize = 200_000;

/// Calls of hooks about beginnings that are on their way to one server at a time; more wait for
/// their turn, within their time.
pub const HOOK_ASKS_IN_FLIGHT: usize = 256;

/// The same for calls about ends, which wait for as long as it takes.
pub const HOOK_ENDS_IN_FLIGHT: usize = 64;

/// Most bytes of the answer of a hook that are read; the connection is closed on a longer one.
pub const HOOK_ANSWER_MAX: usize = 64 << 10;

/// Pause before a hook about an end is tried again, ms; it doubles up to the next number.
pub const HOOK_RETRY_MS: u64 = 1_000;

/// Longest such pause, ms.
pub const HOOK_RETRY_MS_MAX: u64 = 60_000;

/// Times that a hook about something that has happened (on_dvr) is told before it is given up.
pub const HOOK_ANNOUNCE_TRIES: u32 = 6;

/// Time for the hooks about ends that are left when the server stops, ms; then they are given up.
pub const HOOK_FLUSH_MS: u64 = 3_000;

/// Programs of `vhost.exec` that run at a time; more are not started until some have ended.
pub const PROGRAMS_MAX: usize = 1_000;

/// Programs that are started in one look, twice a second; the rest waits for the next.
pub const PROGRAM_STARTS_PER_LOOK: u32 = 16;

/// Time after which a program that has ended is started again, ms; SRS's.
pub const PROGRAM_RESTART_MS: u64 = 3_000;

/// Time for a program to end when it is told to, ms; then it is killed.
pub const PROGRAM_STOP_MS: u64 = 2_000;

/// Bytes on their way to disks, over all recordings and once more over all segments, so that a disk
/// of the ones does not hold up the others; who wants to write more waits.
pub const DISK_BYTES_WAITING_MAX: usize = 64 << 20;

/// Longest such wait, and longest time for opening, naming or removing a file, ms; then the disk is
/// taken for slow and the work is tried again later.
pub const DISK_WAIT_MS: u64 = 10_000;

/// A call that takes longer than this is counted as slow, ms.
pub const DISK_SLOW_MS: u64 = 1_000;

/// Threads that open, name and remove files at a time; more work waits for them.
pub const DISK_HELPERS_MAX: usize = 8;

/// Bytes of a path below its root; a longer one is refused.
pub const DISK_PATH_BYTES_MAX: usize = 2_048;

/// Keyframes that the index of one FLV recording names; with more it is thinned out.
pub const RECORD_INDEX_MAX: usize = 4_096;

/// Samples of one MP4 recording, about 14 hours of pictures and sound; then another file is begun.
pub const RECORD_MP4_SAMPLES_MAX: usize = 4_000_000;

/// Recordings at a time; streams beyond are not recorded until others have ended.
pub const RECORDINGS_MAX: usize = 10_000;

/// Time between two looks at what is to be recorded, ms.
pub const RECORD_LOOK_MS: u64 = 100;

/// Most bytes that a recording writes at once.
pub const RECORD_WRITE_BYTES: usize = 1 << 20;

/// How far a recording may fall behind its stream, in stream time, ms; then it goes on at the
/// newest keyframe, and what is missing is counted.
pub const RECORD_LAG_MS_MAX: i64 = 30_000;

/// The same in bytes that nobody else needs any more, as a part of media memory: one recording.
pub const RECORD_BACKLOG_PART: u64 = 16;

/// The same for all recordings together.
pub const RECORD_BACKLOGS_PART: u64 = 4;

/// How much of a file's beginning is looked at to find its earliest time, in stream time, ms.
pub const RECORD_BEGIN_MS: i64 = 500;

/// Files of one recording that are being closed at a time; with more, writing waits.
pub const RECORD_CLOSING_MAX: usize = 8;

/// Pause before a disk that failed is tried again, ms; it doubles up to the next number.
pub const RECORD_RETRY_MS: u64 = 1_000;

/// Longest such pause, ms.
pub const RECORD_RETRY_MS_MAX: u64 = 10_000;

/// Time for recordings to be closed when the server stops, ms.
pub const RECORD_STOP_MS: u64 = 8_000;

/// Time between two looks for recordings that are to be removed, ms.
pub const RECORD_RETENTION_MS: u64 = 30_000;

/// Largest `keep_bytes` of recordings, bytes.
pub const RECORD_KEEP_BYTES_MAX: u64 = 1 << 50;

/// Files and folders that one such look may see; what is beyond is left alone.
pub const RECORD_RETENTION_FILES_MAX: usize = 1_000_000;

// Uploads.

/// Files of one vhost that are listed for upload. What comes on top waits on disk until half of
/// them are uploaded; the disk is looked at again then, the oldest first.
pub const UPLOADS_WAITING_MAX: usize = 10_000;
/// Files of one vhost that are uploaded at a time; others wait.
pub const UPLOADS_AT_A_TIME: usize = 4;
/// Bytes of a file that are read and sent at a time, unless the store's limit of parts needs more.
/// A smaller file is sent as a whole.
pub const UPLOAD_PART_BYTES: u64 = 8 << 20;
/// The same at most. A file that needs more is not uploaded, and said to be too large.
pub const UPLOAD_PART_BYTES_MAX: u64 = 128 << 20;
/// Parts of one object, the limit of S3.
pub const UPLOAD_PARTS_MAX: u64 = 10_000;
/// Time until a failed upload is tried again, ms; doubled each time.
pub const UPLOAD_RETRY_MS: u64 = 1_000;
/// The same at most, ms.
pub const UPLOAD_RETRY_MS_MAX: u64 = 60_000;
/// Uploads that have ended and wait until that is noted; more wait before their end.
pub const UPLOAD_ANSWERS_WAITING: usize = 1_024;
/// Files looked at below one folder for what has not been uploaded; others are found later.
pub const UPLOAD_SCAN_FILES_MAX: usize = 1_000_000;
/// Time that uploads under way may take when the server stops, ms; then they begin anew after
/// the next start.
pub const UPLOAD_STOP_MS: u64 = 2_000;
/// Most that `upload.held_bytes` can be.
pub const UPLOAD_HELD_BYTES_MAX: u64 = 1 << 50;

/// Most time from a client's request to the decision about it, ms. It is closed then.
pub const ADMISSION_MS_MAX: u64 = 600_000;

/// Bytes of a key set (JWKS); a longer one is refused.
pub const JWKS_BYTES_MAX: usize = 256 << 10;

/// Keys of a key set that are used; the rest is ignored.
pub const JWKS_KEYS_MAX: usize = 64;

/// Shortest time between two fetches of one key set, ms, whoever asks for it.
pub const JWKS_FETCH_MS_MIN: u64 = 10_000;

/// Bytes of a JWT; a longer one is refused unread.
pub const JWT_BYTES_MAX: usize = 8 << 10;

/// Shortest secret of HMAC-signed JWTs, bytes; a shorter one is a configuration error.
pub const JWT_SECRET_BYTES_MIN: usize = 32;

const _: () = {
    assert!(SESSION_INPUT_PAUSE < SESSION_INPUT_MAX);
    assert!(HOOK_RETRY_MS < HOOK_RETRY_MS_MAX);
    // A set of shards is one machine word in `hub::stream`.
    assert!(SHARDS_MAX <= 64);
    assert!(FEED_BLOCKS_RECENT < FEED_BLOCKS_MAX as u64);
    assert!(CHUNK_SIZE_MIN < CHUNK_SIZE_MAX);
    assert!(MEDIA_MEMORY_MIN < MEDIA_MEMORY_AUTO_MAX);
    assert!(MEDIA_MEMORY_AUTO_MAX < MEDIA_MEMORY_MAX);
    assert!(DESCRIPTORS_RESERVED < CONNECTIONS_MAX);
};

// RTMP and AMF0.

/// Bytes of one RTMP message, the most its 24-bit length field can say. Cannot be exceeded.
pub const RTMP_MESSAGE_MAX: u32 = 0xFF_FFFF;
/// Bytes of one RTMP command or control message. A longer one closes the connection.
pub const RTMP_COMMAND_MAX: u32 = 64 << 10;
/// Bytes of one RTMP data message (metadata). A longer one closes the connection.
pub const RTMP_DATA_MAX: u32 = 1 << 20;
/// Bytes of unfinished messages held for one connection, summed over its chunk streams.
/// One byte more closes the connection.
pub const RTMP_PARTIAL_MAX: usize = 20 << 20;
/// Chunk streams one peer may use. A further one closes the connection.
pub const RTMP_CHUNK_STREAMS_MAX: usize = 64;
/// Capacity in bytes of a message buffer that is kept for the next message. A larger buffer is
/// freed as soon as its message has been handled.
pub const RTMP_KEPT_BUFFER_MAX: usize = 64 << 10;
/// Bytes of the payload of an RTMP proxy prefix before the handshake. More closes the connection.
pub const RTMP_PROXY_PREFIX_MAX: usize = 1024;
/// Bytes of one string of a command that is kept (tcUrl, pageUrl, stream name with its
/// parameters). A longer one closes the connection.
pub const RTMP_STRING_MAX: usize = 8 << 10;
/// Bytes of replies a peer may leave unread while it keeps asking. More closes the connection.
pub const RTMP_REPLIES_MAX: usize = 1 << 20;
/// createStream commands answered before a play or publish. One more closes the connection.
pub const RTMP_CREATE_STREAMS_MAX: u32 = 3;
/// Levels of nested AMF0 values. A deeper one is an error of the message that holds it.
pub const AMF_DEPTH_MAX: u32 = 32;
/// AMF0 values in one message. One more is an error of the message that holds it.
pub const AMF_ELEMENTS_MAX: u32 = 16_384;

// Names.

/// Bytes of a vhost name. A longer one is refused.
pub const NAME_VHOST_MAX: usize = 253;
/// Bytes of an app name with all its levels. A longer one is refused.
pub const NAME_APP_MAX: usize = 256;
/// Levels of an app name. One more is refused.
pub const NAME_APP_LEVELS_MAX: usize = 8;
/// Bytes of a stream name without its parameters. A longer one is refused.
pub const NAME_STREAM_MAX: usize = 256;

const _: () = assert!(RTMP_PARTIAL_MAX > RTMP_MESSAGE_MAX as usize);
const _: () = assert!(RTMP_DATA_MAX <= RTMP_MESSAGE_MAX && RTMP_COMMAND_MAX <= RTMP_DATA_MAX);
const _: () = assert!(RTMP_STRING_MAX < RTMP_COMMAND_MAX as usize);
const _: () = assert!(NAME_APP_MAX + NAME_STREAM_MAX < RTMP_STRING_MAX);

// Media: tag bodies and codec headers.

/// ModEx prefixes in one enhanced RTMP message; one more and the message is refused.
pub const MODEX_CHAIN_MAX: usize = 8;
/// Tracks in one multitrack message; one more and the message is refused.
pub const TRACKS_PER_MESSAGE_MAX: usize = 32;
/// Bytes of one SPS or VPS that are looked at; what lies behind is ignored.
pub const PARAMETER_SET_BYTES_MAX: usize = 4096;
/// Parameter sets looked at in one decoder configuration record; the rest is ignored.
pub const PARAMETER_SETS_MAX: usize = 64;
/// Picture width and height in pixels; a header that claims more is malformed.
pub const PICTURE_SIDE_MAX: u32 = 16_384;

// Media: the timeline of a stream.

/// A step forward of more than this many milliseconds is a discontinuity, not a gap.
pub const TIMELINE_FORWARD_MS_MAX: i64 = 10_000;
/// A step back of more than this many milliseconds is a discontinuity, not interleaving.
pub const TIMELINE_BACK_MS_MAX: i64 = 1_000;
/// Milliseconds between the last message before a discontinuity and the first one after it.
pub const TIMELINE_STEP_MS: i64 = 10;

// FLV.

/// Bytes of one FLV tag body that a reader takes; a bigger tag ends the reading.
pub const FLV_TAG_BYTES_MAX: usize = 0xff_ffff;
/// Bytes of an FLV file header; a file that declares more is malformed.
pub const FLV_HEADER_BYTES_MAX: usize = 64;

// HTTP.

/// Bytes of one HTTP request or response head; a longer one is answered with 431.
pub const HTTP_HEAD_BYTES_MAX: usize = 16 * 1024;
/// Header lines in one HTTP head; one more is answered with 431.
pub const HTTP_HEADERS_MAX: usize = 64;
/// Bytes of one request target; a longer one is answered with 414.
pub const HTTP_TARGET_BYTES_MAX: usize = 8 * 1024;
/// Query parameters in one URL; one more is answered with 400.
pub const HTTP_QUERY_PARAMS_MAX: usize = 64;
/// Bytes of one chunk of a chunked body; a bigger one ends the connection.
pub const HTTP_CHUNK_BYTES_MAX: u64 = 32 * 1024 * 1024;
/// Bytes of one chunk-size line with its extensions; a longer one ends the connection.
pub const HTTP_CHUNK_LINE_BYTES_MAX: usize = 256;
/// Bytes of all trailer lines of a chunked body; more end the connection.
pub const HTTP_TRAILER_BYTES_MAX: usize = 8 * 1024;

// WebSocket.

/// Bytes of one message from a WebSocket player; a longer one is closed with 1009.
pub const WS_PLAYER_MESSAGE_BYTES_MAX: usize = 64 * 1024;

// MPEG transport streams that are read.

/// Tracks of a program that are looked at; more are left out, and that is told as damage. Packets
/// of other identifiers leave nothing behind.
pub const TS_TRACKS_MAX: usize = 16;
/// Changes of the tables without a unit between them; more are not followed, and told as damage.
pub const TS_TABLE_CHANGES_MAX: u32 = 1_000;
/// Bytes of one PES packet. A longer one is left out, and that is told as damage.
pub const TS_UNIT_BYTES_MAX: usize = 24 << 20;

// MPEG program streams that are read.

/// Streams of a program that are looked at; packets of more are left out, and that is told as
/// damage.
pub const PS_TRACKS_MAX: usize = 16;
/// Bytes of a program stream map; a longer one is left out, and that is told as damage.
pub const PS_MAP_BYTES_MAX: usize = 1_024;
/// Changes of the map without a unit between them; more are not followed, and told as damage.
pub const PS_MAP_CHANGES_MAX: u32 = 1_000;
/// Bytes of one picture, or of a packet that does not say how long it is. What is longer is left
/// out, and that is told as damage.
pub const PS_UNIT_BYTES_MAX: usize = 8 << 20;
/// Packets that one picture comes in; the same.
pub const PS_PACKETS_PER_UNIT_MAX: usize = 16_384;
/// Bytes in which a pack is looked for after sync was lost; from there on a packet will do.
pub const PS_RESYNC_BYTES_MAX: u64 = 256 << 10;
/// Bytes of a stream that no map tells of, from which its codec is guessed. With more they are left
/// out, that is told as damage, and what comes next is looked at.
pub const PS_GUESS_BYTES_MAX: usize = 64 << 10;
/// Packets that those came in; the same.
pub const PS_GUESS_PACKETS_MAX: usize = 64;

// Both.

/// Bytes of one audio frame that goes on in the next PES packet; more is none.
pub const PES_AUDIO_FRAME_MAX: usize = 16 << 10;

// HTTP Live Streaming.

/// Share of `media_memory` that segments of all streams may hold, 1/100. Beyond it streams keep
/// fewer old segments, down to three target durations.
pub const SEGMENT_MEMORY_PERCENT: u64 = 50;
/// A shorter segment is dropped, ms (SRS's).
pub const SEGMENT_MS_MIN: i64 = 100;
/// Shortest `hls_fragment`, ms; less is a configuration error.
pub const HLS_FRAGMENT_MS_MIN: u64 = 100;
/// Longest `hls_fragment`, ms; more is a configuration error.
pub const HLS_FRAGMENT_MS_MAX: u64 = 120_000;
/// Shortest and longest `hls_part`, ms; 0 is none, others are a configuration error.
pub const HLS_PART_MS: (u64, u64) = (50, 2_000);
/// Longest `hls_window`, ms; more is a configuration error.
pub const HLS_WINDOW_MS_MAX: u64 = 3_600_000;
/// Most fragments in a window; more is a configuration error. A playlist has to fit a reply.
pub const HLS_SEGMENTS_MAX: u128 = 1_000;
/// Most labels of a group of variants; more is a configuration error. Every master playlist looks
/// each of them up.
pub const GROUP_LABELS_MAX: usize = 16;
/// Longest wait for the first segment of a stream that is published, ms; then it is 404.
pub const HLS_FIRST_WAIT_MS: u64 = 20_000;
/// How far ahead of the last whole segment a player may ask to wait for, segments; more is answered
/// with 400 (RFC 8216bis 6.2.5.2).
pub const HLS_AHEAD_MAX: u64 = 2;
/// Viewers who wait for the same change of a playlist and are answered in one turn of a shard; the
/// others are answered in the turns after it.
pub const ANSWERS_PER_TURN: usize = 128;
/// Viewers of HLS (`hls_ctx`) at a time; one more is answered with 503.
pub const HLS_VIEWERS_MAX: usize = 1_000_000;
/// Shortest time without a request after which a viewer has left, ms.
pub const HLS_VIEWER_MS_MIN: u64 = 15_000;
/// How long a viewer that was kicked is refused, ms.
pub const HLS_KICKED_MS: u64 = 300_000;
/// Kicked viewers that are remembered; with more the oldest are forgotten.
pub const HLS_KICKED_MAX: usize = 10_000;
/// Longest time that segments of an ended stream are kept, s (`hls_dispose` 0).
pub const HLS_DISPOSE_SECONDS_MAX: u64 = 24 * 3600;
/// Segments that hooks wait to be told of; further ones are not told, only counted.
pub const SEGMENT_NOTES_WAITING: usize = 10_000;
/// Segments that wait to be written to disk; further ones are not written, only counted.
pub const SEGMENT_FILES_WAITING: usize = 256;
/// Most `hls_nb_notify`, bytes.
pub const HLS_NOTIFY_BYTES_MAX: u32 = 64 << 10;

// The HTTP API.

/// Connections of the API and the exporter at a time; one more is closed.
pub const API_CONNECTIONS_MAX: usize = 2_048;
/// The same from one address.
pub const API_CONNECTIONS_PER_ADDRESS_MAX: usize = 256;
/// Bytes of a request's body; a longer one is answered with 413. No route reads one.
pub const API_BODY_BYTES_MAX: u64 = 64 * 1024;
/// Bytes of long answers that clients have not taken yet, together; with more the next long one is
/// 503 instead.
pub const API_ANSWERS_BYTES_MAX: usize = 128 << 20;
/// An answer up to this long does not count there: the limit of connections bounds them.
pub const API_ANSWER_BYTES_SHORT: usize = 16 << 10;
/// Streams or clients in one answer; a larger `count` is cut to this, `start` leads on.
pub const API_PAGE_MAX: usize = 10_000;
/// Events that are kept for readers who come back; who was away for longer is told how many are
/// missing.
pub const EVENTS_KEPT: usize = 4_096;
/// Readers of events at a time; one more is answered with 503.
pub const EVENT_STREAMS_MAX: usize = 128;
/// Connections that shards hand to the API and that wait for it; one more is closed.
pub const HANDED_OVER_WAITING: usize = 256;
/// Streams that alerts are kept for; further ones are watched once others have ended.
pub const ALERT_STREAMS_MAX: usize = 10_000;

// The front: HTTPS for HTTP streaming.

/// Connections of the front at a time, whatever `max_connections` allows; one more is closed. Each
/// takes three descriptors, so a low open-file limit lowers this, too.
pub const TLS_CONNECTIONS_MAX: u32 = 100_000;
/// Connections that are in their TLS handshake at a time; one more is closed.
pub const TLS_HANDSHAKES_MAX: u32 = 1_024;
/// The same from one address.
pub const TLS_HANDSHAKES_PER_ADDRESS_MAX: u32 = 256;
/// Time for a TLS handshake, ms; then the connection is closed.
pub const TLS_HANDSHAKE_MS_MAX: u64 = 10_000;
/// Time for a shard to take a connection that the front brings, ms; then it is closed.
pub const TLS_INTRODUCTION_MS_MAX: u64 = 10_000;
/// Time for a client to close after it got everything and was told so, ms; then the front does.
pub const TLS_FAREWELL_MS_MAX: u64 = 1_000;
/// Bytes on their way from a client through the front; it is not read before they are passed on.
pub const RELAY_UP_BYTES: usize = 4 << 10;
/// Bytes on their way to a client through the front, one TLS record: the same.
pub const RELAY_DOWN_BYTES: usize = 16 << 10;
/// Bytes that wait in TLS's own buffer, and in the socket between shard and front, each. Small, so
/// that a player that falls behind is known to have.
pub const RELAY_WAITING_BYTES: usize = 64 << 10;
/// Threads of the front; further shards share them.
pub const TLS_THREADS_MAX: usize = 4;
/// Time for the front to pass on what shards said last when the server stops, ms.
pub const TLS_STOP_MS_MAX: u64 = 500;
// `ringcast top`.

/// Bytes of one answer of the API; a longer one is an error on the screen.
pub const TOP_ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;
