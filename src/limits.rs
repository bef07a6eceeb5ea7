//! Every bound of the server in one place: what it is, and what happens when it is reached.
//!
//! Nothing in the server grows by a size that a peer declares, only by bytes that have arrived,
//! and each of those growths ends at one of these constants. Settings have their ranges here as
//! well, so that a configuration can never lift a bound that the code relies on.

/// Most shards a process starts; a larger `shards` setting is a configuration error.
pub const SHARDS_MAX: u16 = 256;

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

/// Most problems of one configuration that are listed before the rest is only counted.
pub const CONFIG_ERRORS_SHOWN: usize = 20;

/// Log lines that may wait for the log writer; further lines are dropped, counted and reported.
pub const LOG_LINES_WAITING: usize = 8_192;

/// Seconds that `ringcast` with `daemon` on waits for its background process to serve.
pub const DAEMON_START_SECONDS: u64 = 30;

const _: () = {
    assert!(CHUNK_SIZE_MIN < CHUNK_SIZE_MAX);
    assert!(MEDIA_MEMORY_MIN < MEDIA_MEMORY_AUTO_MAX);
    assert!(MEDIA_MEMORY_AUTO_MAX < MEDIA_MEMORY_MAX);
    assert!(DESCRIPTORS_RESERVED < CONNECTIONS_MAX);
};
