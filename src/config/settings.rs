//! The one table: every setting with its path, type, default, environment names and text.
//!
//! A line `--- /// text / field: Type = "default", kind, [environment], Reload;` is a field of
//! the typed tree and a row of the table at once, so neither can exist without the other. Paths
//! and names are SRS's where SRS has the setting; what is ringcast's own is read from
//! `RINGCAST_*`. A row that no code reads does not belong here.

// The rows' texts are for people who read the configuration, where brackets are no links.
#![allow(rustdoc::broken_intra_doc_links)]

use std::path::PathBuf;
use std::time::Duration;

use super::access::AddressRules;
use super::command::CommandLines;
use super::row::{Kind, TimeUnit, settings};
use super::types::{
    DvrPlan, ListenAddr, LogLevel, LogTank, MediaMemory, MwLatency, OnError, Switch, TimeJitter,
};
use super::vhosts::Vhosts;
use crate::limits;

const PREFER_TRUE: Kind = Kind::Bool { prefer: true };
const PREFER_FALSE: Kind = Kind::Bool { prefer: false };
const SECONDS: Kind = Kind::Time { unit: TimeUnit::Seconds, word: None };
const MILLIS: Kind = Kind::Time { unit: TimeUnit::Millis, word: None };

const fn int(min: u32, max: u32, unit: &'static str) -> Kind {
    Kind::Int { min: min as i64, max: max as i64, unit }
}

const fn bytes(min: u64, max: u64, word: Option<&'static str>) -> Kind {
    Kind::Bytes { min, max, word }
}

settings! {
    /// The process as a whole.
    Config at [] {
        /// The log.
        log: Log,
        /// Live streams and pages over HTTP.
        http_server: HttpServer,
        /// The HTTP API.
        http_api: HttpApi,
        /// What is left out under load.
        circuit_breaker: CircuitBreaker,
        /// Reports of this server to another one.
        heartbeat: Heartbeat,
        /// Metrics for Prometheus.
        exporter: Exporter,
        /// Figures of the process and the machine.
        stats: Stats,
        /// What holds for vhosts that say nothing else; read it through [`Config::vhost`].
        vhost: Vhost,
        /// The vhosts that have a name of their own.
        vhosts: Vhosts,
        ---
        /// RTMP addresses. A bare port means all addresses, IPv6 and IPv4.
        listen: Vec<ListenAddr> = r#"["1935"]"#, Kind::Listen,
            ["SRS_LISTEN", "SRS_RTMP_LISTEN"], Restart;
        ---
        /// The name of this server in the API and in metrics: letters, digits, hyphens. Empty
        /// means one that follows from the machine and its RTMP addresses, the same after a
        /// restart.
        server_id: String = r#""""#, Kind::Text, ["SRS_SERVER_ID"], Restart;
        ---
        /// Shards: threads that each drive a ring and serve connections. 0 means one per core.
        shards: u16 = "0", int(0, limits::SHARDS_MAX as u32, "threads"),
            ["RINGCAST_SHARDS"], Restart;
        ---
        /// Most connections at a time, all protocols together. Lowered at start, with a line in
        /// the log, to what the open-file limit allows. One more is closed without an answer.
        max_connections: u32 = "100000", int(1, limits::CONNECTIONS_MAX, "connections"),
            ["SRS_MAX_CONNECTIONS"], Live;
        ---
        /// Most connections at a time from one address; 0 means no limit of its own.
        max_connections_per_address: u32 = "0", int(0, limits::CONNECTIONS_MAX, "connections"),
            ["RINGCAST_MAX_CONNECTIONS_PER_ADDRESS"], Live;
        ---
        /// Registered memory for media of all streams, grown on demand up to this. "auto" is a
        /// quarter of the memory of the machine or container, at most 4 GiB.
        media_memory: MediaMemory = r#""auto""#,
            bytes(limits::MEDIA_MEMORY_MIN, limits::MEDIA_MEMORY_MAX, Some("auto")),
            ["RINGCAST_MEDIA_MEMORY"], Restart;
        ---
        /// Huge pages for media memory: "auto" tries them and goes on without.
        huge_pages: Switch = r#""auto""#, Kind::Choice(Switch::ALL),
            ["RINGCAST_HUGE_PAGES"], Restart;
        ---
        /// Zero-copy sends: "auto" uses them on routes where the kernel reports that it does not
        /// copy after all.
        zero_copy: Switch = r#""auto""#, Kind::Choice(Switch::ALL),
            ["RINGCAST_ZERO_COPY"], Restart;
        ---
        /// Polls network devices for up to this long before a shard sleeps (NAPI busy polling,
        /// Linux 6.9): less latency for more CPU time. 0 means off.
        napi_busy_poll: u32 = "0", int(0, limits::NAPI_BUSY_POLL_US_MAX, "microseconds"),
            ["RINGCAST_NAPI_BUSY_POLL"], Restart;
        ---
        /// The directory the server changes into at start; relative paths start there.
        work_dir: PathBuf = r#""./""#, Kind::Path, ["SRS_WORK_DIR"], Restart;
        ---
        /// File that holds the process id, locked while the server runs, so that a second server
        /// with the same file is refused. Empty means none.
        pid: PathBuf = r#""""#, Kind::Path, ["SRS_PID"], Restart;
        ---
        /// Run in the background; the command returns when the server serves or has failed.
        daemon: bool = "false", PREFER_TRUE, ["SRS_DAEMON"], Restart;
        ---
        /// User to become once the ports are bound, by name or number. Empty means none. The log
        /// file is opened as this user.
        user: String = r#""""#, Kind::Text, ["RINGCAST_USER"], Restart;
        ---
        /// Group to become with it; empty means the user's own.
        group: String = r#""""#, Kind::Text, ["RINGCAST_GROUP"], Restart;
        ---
        /// End when the process that started this one ends. Not with `daemon`.
        asprocess: bool = "false", PREFER_FALSE, ["SRS_ASPROCESS"], Live;
        ---
        /// Read the configuration anew when its file, or one that it includes, has changed.
        config_watch: bool = "false", PREFER_FALSE,
            ["RINGCAST_CONFIG_WATCH", "SRS_INOTIFY_AUTO_RELOAD"], Live;
        ---
        /// SIGTERM lets players finish, as SIGQUIT does.
        force_grace_quit: bool = "false", PREFER_FALSE, ["SRS_FORCE_GRACE_QUIT"], Live;
        ---
        /// Time between the one-line summaries of counters in the log; 0 means none.
        summary_interval: Duration = "30", SECONDS, ["RINGCAST_SUMMARY_INTERVAL"], Live;
        ---
        /// On SIGQUIT: time before the listeners are closed, so that load balancers notice.
        grace_start_wait: Duration = "2300", MILLIS, ["SRS_GRACE_START_WAIT"], Live;
        ---
        /// On SIGQUIT: time between the end of the last connection and the end of the process.
        grace_final_wait: Duration = "3200", MILLIS, ["SRS_GRACE_FINAL_WAIT"], Live;
        ---
        /// On SIGQUIT: longest time that players may go on after the listeners were closed.
        grace_drain_limit: Duration = "60", SECONDS, ["RINGCAST_GRACE_DRAIN_LIMIT"], Live;
    }

    /// The log.
    Log at [log] {
        ---
        /// Where it goes: "console" is standard error, "file" is `log.file`.
        tank: LogTank = r#""console""#, Kind::Choice(LogTank::ALL),
            ["SRS_LOG_TANK", "SRS_SRS_LOG_TANK"], Restart;
        ---
        /// The file when `log.tank` is "file". SIGUSR1 opens it anew, for rotation.
        file: PathBuf = r#""./ringcast.log""#, Kind::Path,
            ["SRS_LOG_FILE", "SRS_SRS_LOG_FILE"], Restart;
        ---
        /// How much is written.
        level: LogLevel = r#""info""#, Kind::Choice(LogLevel::ALL),
            ["SRS_LOG_LEVEL_V2", "SRS_SRS_LOG_LEVEL_V2", "SRS_LOG_LEVEL", "SRS_SRS_LOG_LEVEL"],
            Live;
        ---
        /// Write JSON, one object per line, instead of text.
        json: bool = "false", PREFER_FALSE, ["RINGCAST_LOG_JSON"], Restart;
    }

    /// Live streams and pages over HTTP.
    HttpServer at [http_server] {
        /// The same over HTTPS.
        https: HttpServerHttps,
        ---
        /// Serve HTTP. With `-e` the default is false, as in SRS.
        enabled: bool = "true", PREFER_FALSE, ["SRS_HTTP_SERVER_ENABLED"], Restart;
        ---
        /// Addresses.
        listen: Vec<ListenAddr> = r#"["8080"]"#, Kind::Listen,
            ["SRS_HTTP_SERVER_LISTEN"], Restart;
        ---
        /// Allow pages of other sites to read the answers (CORS).
        crossdomain: bool = "true", PREFER_TRUE, ["SRS_HTTP_SERVER_CROSSDOMAIN"], Live;
        ---
        /// Folder whose files are served to everybody, below everything else that has an address
        /// here. Nothing outside of it can be had, nor can names that begin with a dot or end in
        /// ".tmp". Where a vhost restricts who may play, its recordings and segments are not
        /// served from here, see `vhost.http_static`. A folder that is not there is no error;
        /// empty means no files.
        dir: PathBuf = r#""./objs/nginx/html""#, Kind::Path, ["SRS_HTTP_SERVER_DIR"], Live;
    }

    /// Live streams, pages and WebSockets over HTTPS, by TLS 1.2 and 1.3.
    HttpServerHttps at [http_server.https] {
        ---
        /// Serve all that over HTTPS, too.
        enabled: bool = "false", PREFER_FALSE, ["SRS_HTTP_SERVER_HTTPS_ENABLED"], Restart;
        ---
        /// Addresses. The same as `http_api.https.listen`, where the API shares the port of HTTP
        /// streaming, means one port for both, with this certificate.
        listen: Vec<ListenAddr> = r#"["8088"]"#, Kind::Listen,
            ["SRS_HTTP_SERVER_HTTPS_LISTEN"], Restart;
        ---
        /// The private key, a PEM file. A reload reads it again.
        key: PathBuf = r#""./conf/server.key""#, Kind::Path,
            ["SRS_HTTP_SERVER_HTTPS_KEY"], Restart;
        ---
        /// The certificate with its chain, a PEM file. A reload reads it again.
        cert: PathBuf = r#""./conf/server.crt""#, Kind::Path,
            ["SRS_HTTP_SERVER_HTTPS_CERT"], Restart;
    }

    /// The HTTP API.
    HttpApi at [http_api] {
        /// Who may use the API.
        auth: HttpApiAuth,
        /// The API over HTTPS.
        https: HttpApiHttps,
        /// What may be done to the server.
        raw_api: HttpApiRaw,
        ---
        /// Serve the API. With `-e` the default is false, as in SRS.
        enabled: bool = "true", PREFER_FALSE, ["SRS_HTTP_API_ENABLED"], Restart;
        ---
        /// Addresses. The same as `http_server.listen` means one port for both.
        listen: Vec<ListenAddr> = r#"["1985"]"#, Kind::Listen, ["SRS_HTTP_API_LISTEN"], Restart;
    }

    /// Who may use the API: a name and a password (HTTP Basic), or a token (Bearer).
    HttpApiAuth at [http_api.auth] {
        ---
        /// Ask for a name and a password below `/api/`.
        enabled: bool = "false", PREFER_FALSE, ["SRS_HTTP_API_AUTH_ENABLED"], Live;
        ---
        /// The name.
        username: String = r#""""#, Kind::Text, ["SRS_HTTP_API_AUTH_USERNAME"], Live;
        ---
        /// The password. There is no default one: with `enabled` it has to be set.
        password: String = r#""""#, Kind::Text, ["SRS_HTTP_API_AUTH_PASSWORD"], Live;
        ---
        /// A token that is as good as name and password (Authorization: Bearer). Empty means none;
        /// set, it protects the API also where `enabled` is false.
        token: String = r#""""#, Kind::Text, ["RINGCAST_HTTP_API_AUTH_TOKEN"], Live;
    }

    /// The API over HTTPS.
    HttpApiHttps at [http_api.https] {
        ---
        /// Serve the API over HTTPS, too.
        enabled: bool = "false", PREFER_FALSE, ["SRS_HTTP_API_HTTPS_ENABLED"], Restart;
        ---
        /// Addresses.
        listen: Vec<ListenAddr> = r#"["1990"]"#, Kind::Listen,
            ["SRS_HTTP_API_HTTPS_LISTEN"], Restart;
        ---
        /// The private key, a PEM file. A reload reads it again.
        key: PathBuf = r#""./conf/server.key""#, Kind::Path,
            ["SRS_HTTP_API_HTTPS_KEY"], Restart;
        ---
        /// The certificate with its chain, a PEM file. A reload reads it again.
        cert: PathBuf = r#""./conf/server.crt""#, Kind::Path,
            ["SRS_HTTP_API_HTTPS_CERT"], Restart;
    }

    /// What may be done to the server over the API, at /api/v1/raw.
    HttpApiRaw at [http_api.raw_api] {
        ---
        /// Answer there at all.
        enabled: bool = "false", PREFER_FALSE, ["SRS_HTTP_API_RAW_API_ENABLED"], Live;
        ---
        /// Allow rpc=reload: the configuration is read anew.
        allow_reload: bool = "false", PREFER_FALSE,
            ["SRS_HTTP_API_RAW_API_ALLOW_RELOAD"], Live;
    }

    /// Metrics for Prometheus.
    Exporter at [exporter] {
        ---
        /// Serve /metrics, on a port of its own and on the API's.
        enabled: bool = "false", PREFER_FALSE, ["SRS_EXPORTER_ENABLED"], Restart;
        ---
        /// Addresses of that port.
        listen: Vec<ListenAddr> = r#"["9972"]"#, Kind::Listen,
            ["SRS_EXPORTER_LISTEN"], Restart;
        ---
        /// A label of srs_build_info; empty means none.
        label: String = r#""""#, Kind::Text, ["SRS_EXPORTER_LABEL"], Live;
        ---
        /// A tag of srs_build_info; empty means none.
        tag: String = r#""""#, Kind::Text, ["SRS_EXPORTER_TAG"], Live;
    }

    /// What is left out under load, in SRS's levels. The load is that of the busiest shard, in
    /// percent of its core, once a second. At the last level no more players are let in.
    CircuitBreaker at [circuit_breaker] {
        ---
        /// Watch the load.
        enabled: bool = "true", PREFER_TRUE, ["SRS_CIRCUIT_BREAKER_ENABLED"], Live;
        ---
        /// Load above which the level is high.
        high_threshold: u32 = "90", int(1, 100, "percent"),
            ["SRS_CIRCUIT_BREAKER_HIGH_THRESHOLD"], Live;
        ---
        /// Quiet samples after which the level high is over.
        high_pulse: u32 = "2", int(1, 3600, "samples"), ["SRS_CIRCUIT_BREAKER_HIGH_PULSE"], Live;
        ---
        /// Load above which the level is critical.
        critical_threshold: u32 = "95", int(1, 100, "percent"),
            ["SRS_CIRCUIT_BREAKER_CRITICAL_THRESHOLD"], Live;
        ---
        /// Quiet samples after which the level critical is over.
        critical_pulse: u32 = "1", int(1, 3600, "samples"),
            ["SRS_CIRCUIT_BREAKER_CRITICAL_PULSE"], Live;
        ---
        /// Load above which the level is dying.
        dying_threshold: u32 = "99", int(1, 100, "percent"),
            ["SRS_CIRCUIT_BREAKER_DYING_THRESHOLD"], Live;
        ---
        /// Samples in a row above that mark before the level is dying.
        dying_pulse: u32 = "5", int(1, 3600, "samples"),
            ["SRS_CIRCUIT_BREAKER_DYING_PULSE"], Live;
    }

    /// Reports of this server to another one, by HTTP POST.
    Heartbeat at [heartbeat] {
        ---
        /// Report.
        enabled: bool = "false", PREFER_FALSE, ["SRS_HEARTBEAT_ENABLED"], Live;
        ---
        /// Time between reports; at least a second.
        interval: Duration = "10", SECONDS, ["SRS_HEARTBEAT_INTERVAL"], Live;
        ---
        /// Where to. A query is cut off, as in SRS.
        url: String = r#""http://127.0.0.1:8085/api/v1/servers""#, Kind::Text,
            ["SRS_HEARTBEAT_URL"], Live;
        ---
        /// What the receiver knows this server by.
        device_id: String = r#""""#, Kind::Text, ["SRS_HEARTBEAT_DEVICE_ID"], Live;
        ---
        /// Add the figures of process and machine that the API has at /api/v1/summaries.
        summaries: bool = "false", PREFER_FALSE, ["SRS_HEARTBEAT_SUMMARIES"], Live;
        ---
        /// Name the ports this server listens on.
        ports: bool = "false", PREFER_FALSE, ["SRS_HEARTBEAT_PORTS"], Live;
    }

    /// Figures of the process and the machine in the API: CPU, memory, network, disks.
    Stats at [stats] {
        ---
        /// Look at them every 3 s. When this is off they stay what they were, 0 after a start.
        enabled: bool = "true", PREFER_TRUE, ["RINGCAST_STATS_ENABLED"], Live;
        ---
        /// Disks, by their names in /proc/diskstats, whose sums are in the figures. Name a disk or
        /// its partitions: what is named twice is counted twice.
        disk: Vec<String> = "[]", Kind::Words, ["RINGCAST_STATS_DISK"], Live;
    }

    /// What holds for every stream. A vhost of its own has the same settings as
    /// [vhost."its.name"], with the values given here where it has none;
    /// [vhost."__defaultVhost__"] is the vhost of all names without one.
    Vhost at [vhost] {
        /// Players.
        play: Play,
        /// Publishers.
        publish: Publish,
        /// Files.
        http_static: HttpStatic,
        /// Live streams over HTTP.
        http_remux: HttpRemux,
        /// Recordings.
        dvr: Dvr,
        /// Recordings and segments to an object store.
        upload: Upload,
        /// Segments and playlists over HTTP.
        hls: Hls,
        /// Variants of one stream.
        group: Group,
        /// Segments and manifests over HTTP.
        dash: Dash,
        /// Callbacks to an HTTP server.
        http_hooks: HttpHooks,
        /// Who may do what from which address.
        security: Security,
        /// On which pages publishers and players may be.
        refer: Refer,
        /// Tokens in the parameters of streams.
        token: Token,
        /// How many, and how much.
        limits: Limits,
        /// Programs that run while a stream is published.
        exec: Exec,
        ---
        /// Serve this vhost. When it is off, whoever asks for it is refused.
        enabled: bool = "true", PREFER_TRUE, ["RINGCAST_VHOST_ENABLED"], Live;
        ---
        /// RTMP chunk size towards peers. A small one costs time on both sides.
        chunk_size: u32 = "60000",
            bytes_u32(limits::CHUNK_SIZE_MIN, limits::CHUNK_SIZE_MAX),
            ["SRS_VHOST_CHUNK_SIZE", "SRS_CHUNK_SIZE", "SRS_RTMP_CHUNK_SIZE"], Live;
        ---
        /// Acknowledge after this many received bytes; 0 means as the peer asks.
        in_ack_size: u32 = "0", bytes_u32(0, i32::MAX as u32), ["SRS_VHOST_IN_ACK_SIZE"], Live;
        ---
        /// Ask RTMP peers to acknowledge after this many bytes; 0 means not to ask.
        out_ack_size: u32 = "2500000", bytes_u32(0, i32::MAX as u32),
            ["SRS_VHOST_OUT_ACK_SIZE"], Live;
        ---
        /// Send small segments at once (TCP_NODELAY). Sends are gathered before the kernel sees
        /// them, so there is nothing to win by turning it off but fewer, later packets.
        tcp_nodelay: bool = "true", PREFER_FALSE, ["SRS_VHOST_TCP_NODELAY"], Live;
        ---
        /// Never gather messages: the merged-write window and `play.mw_msgs` are 0.
        min_latency: bool = "false", PREFER_FALSE, ["SRS_VHOST_MIN_LATENCY"], Live;
        ---
        /// Time after which a stream without publisher and player is freed.
        idle_close: Duration = "5", SECONDS, ["RINGCAST_VHOST_IDLE_CLOSE"], Live;
    }

    /// Players.
    Play at [vhost.play] {
        ---
        /// Start players at the last keyframe instead of waiting for the next one.
        gop_cache: bool = "true", PREFER_TRUE, ["SRS_VHOST_PLAY_GOP_CACHE"], Live;
        ---
        /// Longest GOP that is kept for that, in messages. A longer one is let go.
        gop_cache_max_frames: u32 = "2500", int(1, limits::GOP_FRAMES_MAX, "messages"),
            ["SRS_VHOST_PLAY_GOP_CACHE_MAX_FRAMES"], Live;
        ---
        /// Largest GOP that is kept for that. A larger one is let go.
        gop_cache_max_bytes: u64 = r#""64MiB""#,
            bytes(64 << 10, limits::MEDIA_MEMORY_MAX, None),
            ["RINGCAST_VHOST_PLAY_GOP_CACHE_MAX_BYTES"], Live;
        ---
        /// How far a player may fall behind, in stream time. Beyond it, it goes on at the newest
        /// keyframe, and the skip is counted.
        queue_length: Duration = "30", SECONDS, ["SRS_VHOST_PLAY_QUEUE_LENGTH"], Live;
        ---
        /// Merged write: how long messages are gathered before a send. Many sends cost far more
        /// than many bytes. "adaptive" waits not at all while there is time to spare and up to
        /// `mw_latency_max` under load; a number is a fixed wait, as in SRS.
        mw_latency: MwLatency = r#""adaptive""#,
            Kind::Time { unit: TimeUnit::Millis, word: Some("adaptive") },
            ["SRS_VHOST_PLAY_MW_LATENCY"], Live;
        ---
        /// Longest wait of the adaptive merged write.
        mw_latency_max: Duration = "350", MILLIS,
            ["RINGCAST_VHOST_PLAY_MW_LATENCY_MAX"], Live;
        ---
        /// With a fixed `mw_latency`: fewest messages worth a send.
        mw_msgs: u32 = "8", int(0, limits::MERGED_WRITE_MESSAGES_MAX, "messages"),
            ["SRS_VHOST_PLAY_MW_MSGS"], Live;
        ---
        /// Timestamps of players: "off" is the stream's own timeline, shared by all players;
        /// "full" is one per player that starts at 0 and never jumps; "zero" only starts at 0.
        /// The latter two cost every player its own message headers.
        time_jitter: TimeJitter = r#""off""#, Kind::Choice(TimeJitter::ALL),
            ["SRS_VHOST_PLAY_TIME_JITTER"], Live;
        ---
        /// Players get the timestamps of the publisher's clock, whatever `time_jitter` says.
        atc: bool = "false", PREFER_FALSE, ["SRS_VHOST_PLAY_ATC"], Live;
        ---
        /// The same for streams whose metadata has `bravo_atc` "true".
        atc_auto: bool = "false", PREFER_FALSE, ["SRS_VHOST_PLAY_ATC_AUTO"], Live;
        ---
        /// Do not send a sequence header again that equals the last one.
        reduce_sequence_header: bool = "false", PREFER_FALSE,
            ["SRS_VHOST_PLAY_REDUCE_SEQUENCE_HEADER"], Live;
    }

    /// Publishers.
    Publish at [vhost.publish] {
        ---
        /// Longest wait for the first media of a publisher.
        firstpkt_timeout: Duration = "20000", MILLIS,
            ["SRS_VHOST_PUBLISH_FIRSTPKT_TIMEOUT"], Live;
        ---
        /// Longest silence of a publisher after that.
        normal_timeout: Duration = "5000", MILLIS, ["SRS_VHOST_PUBLISH_NORMAL_TIMEOUT"], Live;
        ---
        /// Time that players of a lost publisher are kept. If one publishes the stream again
        /// within it, they play on. 0 ends HTTP players at once.
        hold: Duration = "10", SECONDS, ["RINGCAST_VHOST_PUBLISH_HOLD"], Live;
        ---
        /// Accept publishers from every address although no rule says who may publish. Without
        /// this and without a rule (`security`, `token.publish`, `http_hooks.on_publish`) only
        /// those from loopback and private addresses are accepted.
        open: bool = "false", PREFER_FALSE, ["RINGCAST_VHOST_PUBLISH_OPEN"], Live;
        ---
        /// Time without a player after which a publisher is closed; 0 means never.
        kickoff_for_idle: Duration = "0", SECONDS,
            ["SRS_VHOST_PUBLISH_KICKOFF_FOR_IDLE"], Live;
    }

    /// Files for a vhost, in place of those of `http_server.dir`.
    HttpStatic at [vhost.http_static] {
        ---
        /// Serve them. This holds for recordings, too, and whoever may play: files have no tokens
        /// and no hooks.
        enabled: bool = "false", PREFER_FALSE, ["SRS_VHOST_HTTP_STATIC_ENABLED"], Live;
        ---
        /// Where: a path behind [vhost], or a path for every host.
        mount: String = r#""[vhost]/""#, Kind::Text, ["SRS_VHOST_HTTP_STATIC_MOUNT"], Live;
        ---
        /// The folder with what is below that path. The word [vhost] stands for the vhost.
        dir: PathBuf = r#""./objs/nginx/html""#, Kind::Path,
            ["SRS_VHOST_HTTP_STATIC_DIR"], Live;
    }

    /// Live streams over HTTP and WebSocket.
    HttpRemux at [vhost.http_remux] {
        ---
        /// Serve live streams over HTTP. With `-e` the default is false, as in SRS.
        enabled: bool = "true", PREFER_FALSE, ["SRS_VHOST_HTTP_REMUX_ENABLED"], Live;
        ---
        /// Where. The words [vhost], [app] and [stream] stand for the stream's own.
        mount: String = r#""[vhost]/[app]/[stream].flv""#, Kind::Mount,
            ["SRS_VHOST_HTTP_REMUX_MOUNT"], Live;
        ---
        /// What else is served there, each with its own suffix: "flv", "ts" (MPEG-TS), "mp4"
        /// (fragmented MP4), "aac", "mp3". The suffix of `mount` is served in any case.
        formats: Vec<String> = r#"["flv", "ts", "mp4", "aac", "mp3"]"#, Kind::Words,
            ["RINGCAST_VHOST_HTTP_REMUX_FORMATS"], Live;
        ---
        /// Players of .aac and .mp3 get this much of the past at once. It is kept for every stream,
        /// also while nobody plays it so.
        fast_cache: Duration = "0", SECONDS, ["SRS_VHOST_HTTP_REMUX_FAST_CACHE"], Live;
        ---
        /// Find out from a stream's first messages whether it has audio and pictures. Without this,
        /// `has_audio` and `has_video` say so, and players need not wait for the second track.
        guess_has_av: bool = "true", PREFER_TRUE,
            ["SRS_VHOST_HTTP_REMUX_GUESS_HAS_AV"], Live;
        ---
        /// Streams have audio, when `guess_has_av` is off.
        has_audio: bool = "true", PREFER_TRUE, ["SRS_VHOST_HTTP_REMUX_HAS_AUDIO"], Live;
        ---
        /// Streams have pictures, when `guess_has_av` is off.
        has_video: bool = "true", PREFER_TRUE, ["SRS_VHOST_HTTP_REMUX_HAS_VIDEO"], Live;
        ---
        /// When `guess_has_av` is off: leave out of FLV what `has_audio` and `has_video` say there
        /// is not. Other containers never have a track that they do not name.
        drop_if_not_match: bool = "true", PREFER_TRUE,
            ["SRS_VHOST_HTTP_REMUX_DROP_IF_NOT_MATCH"], Live;
    }

    /// Recordings. What is being written has the name `FILE.tmp`; `ringcast recover` makes whole
    /// what a crash has left so. A file ends with its publisher, also where one that comes back
    /// within `publish.hold` goes on with the stream: what it sends is in the next file. A disk
    /// that is full or fails costs the recording what cannot be written, and nobody else
    /// anything; it goes on by itself.
    Dvr at [vhost.dvr] {
        ---
        /// Record.
        enabled: bool = "false", PREFER_FALSE, ["SRS_VHOST_DVR_ENABLED"], Live;
        ---
        /// Which streams: "all", or a list of app/stream.
        dvr_apply: Vec<String> = r#"["all"]"#, Kind::Words, ["RINGCAST_VHOST_DVR_DVR_APPLY"], Live;
        ---
        /// "session" is a file for each publish, "segment" one for every `dvr_duration`, "append"
        /// one file per stream (.flv and .ts) to which each publish is added.
        dvr_plan: DvrPlan = r#""session""#, Kind::Choice(DvrPlan::ALL),
            ["SRS_VHOST_DVR_DVR_PLAN"], Live;
        ---
        /// The files; the end is the format: .flv, .mp4 or .ts. A path without such an end is a
        /// folder for [stream].[timestamp].flv. [vhost] [app] [stream], [timestamp] (ms since 1970)
        /// and [2006] [01] [02] [15] [04] [05] [999] (date and time, UTC) are filled in. Nothing is
        /// written outside of the folder in front of the first of them. A file that is there is
        /// never overwritten: the next one gets a number.
        dvr_path: String = r#""./objs/nginx/html/[app]/[stream].[timestamp].flv""#, Kind::Text,
            ["SRS_VHOST_DVR_DVR_PATH"], Live;
        ---
        /// Length of the files of the plan "segment".
        dvr_duration: Duration = "30", SECONDS, ["SRS_VHOST_DVR_DVR_DURATION"], Live;
        ---
        /// Begin files of the plan "segment" at keyframes only.
        dvr_wait_keyframe: bool = "true", PREFER_TRUE,
            ["SRS_VHOST_DVR_DVR_WAIT_KEYFRAME"], Live;
        ---
        /// Time in FLV and MP4 files: "full" and "zero" begin each file at 0, "off" has the
        /// stream's own time. MPEG-TS always has the latter.
        time_jitter: TimeJitter = r#""full""#, Kind::Choice(TimeJitter::ALL),
            ["SRS_VHOST_DVR_TIME_JITTER"], Live;
        ---
        /// MP4 files stay fragmented, instead of getting one index at their end.
        fragmented: bool = "false", PREFER_FALSE, ["RINGCAST_VHOST_DVR_FRAGMENTED"], Live;
        ---
        /// Recordings that are older than this are removed; 0 means never. Here and for
        /// `keep_bytes` a recording is a file that `dvr_path` could have named, so that has to have
        /// [timestamp] or a date in it; other files are left alone.
        keep_hours: u32 = "0", int(0, 24 * 36_500, "hours"),
            ["RINGCAST_VHOST_DVR_KEEP_HOURS"], Live;
        ---
        /// When the recordings take more than this, the oldest are removed; 0 means no limit.
        keep_bytes: u64 = "0", bytes(0, limits::RECORD_KEEP_BYTES_MAX, None),
            ["RINGCAST_VHOST_DVR_KEEP_BYTES"], Live;
    }

    /// Upload to a store that speaks S3. What is on disk and whole is uploaded, the oldest first;
    /// what the store does not take stays on disk and is tried again, also after a restart, until
    /// it takes it. Who publishes and plays notices nothing. The access key comes from
    /// `credentials_file` or from AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN.
    Upload at [vhost.upload] {
        ---
        /// Upload.
        enabled: bool = "false", PREFER_FALSE, ["RINGCAST_VHOST_UPLOAD_ENABLED"], Live;
        ---
        /// URL of the store, such as `https://s3.example.com`. Empty means Amazon's of `region`.
        /// As with hooks, link-local addresses and those of metadata services are never called.
        endpoint: String = r#""""#, Kind::Text, ["RINGCAST_VHOST_UPLOAD_ENDPOINT"], Live;
        ---
        /// The region that requests are signed for.
        region: String = r#""us-east-1""#, Kind::Text, ["RINGCAST_VHOST_UPLOAD_REGION"], Live;
        ---
        /// The bucket. It has to be there.
        bucket: String = r#""""#, Kind::Text, ["RINGCAST_VHOST_UPLOAD_BUCKET"], Live;
        ---
        /// The bucket is a part of the host's name, instead of the path. `endpoint` has to name it
        /// then.
        virtual_hosted: bool = "false", PREFER_FALSE,
            ["RINGCAST_VHOST_UPLOAD_VIRTUAL_HOSTED"], Live;
        ---
        /// What objects are called: this, and the path of the file below the fixed part of
        /// `dvr.dvr_path` or below `hls.hls_path` or `dash.dash_path`. [vhost] is filled in.
        prefix: String = r#""""#, Kind::Text, ["RINGCAST_VHOST_UPLOAD_PREFIX"], Live;
        ---
        /// Upload recordings when they are whole.
        recordings: bool = "true", PREFER_TRUE, ["RINGCAST_VHOST_UPLOAD_RECORDINGS"], Live;
        ---
        /// Upload segments and playlists of HLS that are written to `hls.hls_path`, and segments
        /// and manifests of DASH that are written to `dash.dash_path`. A playlist goes after the
        /// segments it names; keys (`hls.hls_keys`) are not uploaded. What is in the bucket is
        /// never removed: give the bucket a rule for that.
        segments: bool = "false", PREFER_FALSE, ["RINGCAST_VHOST_UPLOAD_SEGMENTS"], Live;
        ---
        /// Remove recordings from the disk when they are uploaded. Segments go as `hls.hls_cleanup`
        /// and `dash.dash_cleanup` say, but not before they are uploaded.
        delete_after_upload: bool = "false", PREFER_FALSE,
            ["RINGCAST_VHOST_UPLOAD_DELETE_AFTER_UPLOAD"], Live;
        ---
        /// Most bytes of segments that stay on disk only because they are not uploaded yet; beyond
        /// it the oldest are removed. 0 means no limit. What recordings may take says `dvr`.
        held_bytes: u64 = r#""10GiB""#, bytes(0, limits::UPLOAD_HELD_BYTES_MAX, None),
            ["RINGCAST_VHOST_UPLOAD_HELD_BYTES"], Live;
        ---
        /// File with `aws_access_key_id = ...`, `aws_secret_access_key = ...` and perhaps
        /// `aws_session_token = ...`, each on a line. It is read again when the store refuses them.
        credentials_file: PathBuf = r#""""#, Kind::Path,
            ["RINGCAST_VHOST_UPLOAD_CREDENTIALS_FILE"], Live;
        ---
        /// Longest time for one request; large files are sent in parts of 8 MiB or more.
        timeout: Duration = "60", SECONDS, ["RINGCAST_VHOST_UPLOAD_TIMEOUT"], Live;
        ---
        /// Check the certificate of the store.
        tls_verify: bool = "true", PREFER_TRUE, ["RINGCAST_VHOST_UPLOAD_TLS_VERIFY"], Live;
    }

    /// HTTP Live Streaming: each stream as a playlist and its segments, which are kept in memory
    /// and served from there. What is said here holds for streams that begin after it. Playlists
    /// keep RFC 8216 where SRS does not: the target duration is settled by the first segment and
    /// not exceeded, so a segment may end before `hls_fragment` if the next keyframe is too late.
    Hls at [vhost.hls] {
        ---
        /// Serve HLS.
        enabled: bool = "false", PREFER_FALSE, ["SRS_VHOST_HLS_ENABLED"], Live;
        ---
        /// How long segments should be.
        hls_fragment: Duration = "10", SECONDS, ["SRS_VHOST_HLS_HLS_FRAGMENT"], Live;
        ---
        /// A segment ends at the first keyframe after this many fragments.
        hls_td_ratio: f64 = "1.0", Kind::Ratio { min: 0.1, max: 10.0 },
            ["SRS_VHOST_HLS_HLS_TD_RATIO"], Live;
        ---
        /// After this many fragments audio ends a segment, whether or not a keyframe comes.
        hls_aof_ratio: f64 = "2.1", Kind::Ratio { min: 1.0, max: 20.0 },
            ["SRS_VHOST_HLS_HLS_AOF_RATIO"], Live;
        ---
        /// How much is in a playlist; at least three target durations are.
        hls_window: Duration = "60", SECONDS, ["SRS_VHOST_HLS_HLS_WINDOW"], Live;
        ---
        /// Segments end before keyframes only.
        hls_wait_keyframe: bool = "true", PREFER_TRUE,
            ["SRS_VHOST_HLS_HLS_WAIT_KEYFRAME"], Live;
        ---
        /// Segments end where the wall clock passes a multiple of `hls_fragment`, so that several
        /// servers cut one stream at the same places. [timestamp] then is the count of those.
        hls_ts_floor: bool = "false", PREFER_FALSE, ["SRS_VHOST_HLS_HLS_TS_FLOOR"], Live;
        ---
        /// Fragmented MP4 (CMAF) instead of MPEG-TS: needed for AV1 and VP9. Where a stream has no
        /// place in MPEG-TS it is used in any case.
        hls_use_fmp4: bool = "false", PREFER_FALSE, ["SRS_VHOST_HLS_HLS_USE_FMP4"], Live;
        ---
        /// Low-Latency HLS: how long the parts of segments should be, which players get before the
        /// segment is complete. Players wait for parts at the server. 0 means no parts. Segments of
        /// two seconds or less (`hls_fragment`) and keyframes as often go with it.
        hls_part: Duration = "0", SECONDS, ["RINGCAST_VHOST_HLS_HLS_PART"], Live;
        ---
        /// Path of playlists. [vhost] [app] [stream] are filled in.
        hls_m3u8_file: String = r#""[app]/[stream].m3u8""#, Kind::Text,
            ["SRS_VHOST_HLS_HLS_M3U8_FILE"], Live;
        ---
        /// Path of MPEG-TS segments: also [seq], [duration] and [timestamp] in ms, and [2006] [01]
        /// [02] [15] [04] [05] [999] for date and time (UTC).
        hls_ts_file: String = r#""[app]/[stream]-[seq].ts""#, Kind::Text,
            ["SRS_VHOST_HLS_HLS_TS_FILE"], Live;
        ---
        /// Path of MP4 segments.
        hls_fmp4_file: String = r#""[app]/[stream]-[seq].m4s""#, Kind::Text,
            ["SRS_VHOST_HLS_HLS_FMP4_FILE"], Live;
        ---
        /// Path of the initialisation segment of MP4 segments.
        hls_init_file: String = r#""[app]/[stream]/init.mp4""#, Kind::Text,
            ["SRS_VHOST_HLS_HLS_INIT_FILE"], Live;
        ---
        /// Write playlists and segments to this folder, too, for other servers to serve or keep.
        /// [vhost] is filled in. Empty means not to: players are served from memory in any case.
        hls_path: PathBuf = r#""""#, Kind::Path, ["SRS_VHOST_HLS_HLS_PATH"], Live;
        ---
        /// Remove segments from that folder when they can be had no more, and all files of a
        /// stream after `hls_dispose`.
        hls_cleanup: bool = "true", PREFER_TRUE, ["SRS_VHOST_HLS_HLS_CLEANUP"], Live;
        ---
        /// Encrypt segments (AES-128). Keys are for viewers only where who may play is restricted.
        /// For MPEG-TS; what MPEG-TS has no place for is not served then.
        hls_keys: bool = "false", PREFER_FALSE, ["SRS_VHOST_HLS_HLS_KEYS"], Live;
        ---
        /// Segments that have one key.
        hls_fragments_per_key: u32 = "5", int(1, 1_000_000, "segments"),
            ["SRS_VHOST_HLS_HLS_FRAGMENTS_PER_KEY"], Live;
        ---
        /// Path of keys: [app] [stream] and [seq], the number of the first segment with it.
        hls_key_file: String = r#""[app]/[stream]-[seq].key""#, Kind::Text,
            ["SRS_VHOST_HLS_HLS_KEY_FILE"], Live;
        ---
        /// Folder that keys are written to when `hls_path` is set; empty means the same one.
        hls_key_file_path: PathBuf = r#""""#, Kind::Path,
            ["SRS_VHOST_HLS_HLS_KEY_FILE_PATH"], Live;
        ---
        /// What goes before `hls_key_file` in playlists, such as the URL of another server. Empty
        /// means that this server serves keys as it serves segments.
        hls_key_url: String = r#""""#, Kind::Text, ["SRS_VHOST_HLS_HLS_KEY_URL"], Live;
        ---
        /// Text before every address of a playlist, such as the URL of a CDN.
        hls_entry_prefix: String = r#""""#, Kind::Text,
            ["SRS_VHOST_HLS_HLS_ENTRY_PREFIX"], Live;
        ---
        /// Time after the end of a stream until its playlist and segments go; 0 means a day.
        hls_dispose: Duration = "120", SECONDS, ["SRS_VHOST_HLS_HLS_DISPOSE"], Live;
        ---
        /// When a stream is published again, go on with the playlist it had.
        hls_recover: bool = "true", PREFER_TRUE, ["SRS_VHOST_HLS_HLS_RECOVER"], Live;
        ---
        /// Answer the first request with a master playlist that names a playlist of the viewer's
        /// own (`hls_ctx`). Viewers then are clients: on_play, on_stop, statistics, kicks. Without
        /// it every request for a playlist is one of somebody new who wants to play.
        hls_ctx: bool = "true", PREFER_TRUE, ["SRS_VHOST_HLS_HLS_CTX"], Live;
        ---
        /// Put `hls_ctx` behind the addresses of segments, too: what viewers load is counted, and
        /// where who may play is restricted, segments are for viewers only.
        hls_ts_ctx: bool = "true", PREFER_TRUE, ["SRS_VHOST_HLS_HLS_TS_CTX"], Live;
        ---
        /// The master playlist names the other one relative to itself.
        hls_master_m3u8_path_relative: bool = "false", PREFER_FALSE,
            ["SRS_VHOST_HLS_HLS_MASTER_M3U8_PATH_RELATIVE"], Live;
        ---
        /// When a frame cannot be packed for HLS: "continue" leaves it out, "ignore" ends HLS of
        /// the stream and leaves the rest of it alone, "disconnect" ends the publish.
        hls_on_error: OnError = r#""continue""#, Kind::Choice(OnError::ALL),
            ["SRS_VHOST_HLS_HLS_ON_ERROR"], Live;
        ---
        /// Audio has the publisher's times, but for less than a frame by which it is laid end to
        /// end. Without it times follow from counting samples, for publishers whose times are poor:
        /// they are followed again only where a second is missing or too much.
        hls_dts_directly: bool = "true", PREFER_TRUE,
            ["SRS_VHOST_HLS_HLS_DTS_DIRECTLY"], Live;
        ---
        /// Bytes of the answers of on_hls_notify that are read.
        hls_nb_notify: u32 = "64", bytes_u32(0, limits::HLS_NOTIFY_BYTES_MAX),
            ["SRS_VHOST_HLS_HLS_NB_NOTIFY"], Live;
    }

    /// Streams of one encoder as variants of one (HLS), without transcoding: with the labels
    /// "1080p" and "720p", live/tv_1080p and live/tv_720p are variants of live/tv, whose master
    /// playlist is at the path of a stream of that name, while there is none. Variants come and
    /// go. Their segments end at the first keyframes behind multiples of `hls_fragment` by the
    /// publishers' timestamps, and are counted by those multiples. So they are aligned, and equal
    /// numbers are equal times, where timestamps and keyframes are the same and a whole number of
    /// GOPs makes an `hls_fragment`; otherwise each variant plays by itself, and switching may skip
    /// or repeat a little. A variant that is published again goes on counting.
    Group at [vhost.group] {
        ---
        /// Offer groups.
        enabled: bool = "false", PREFER_FALSE, ["RINGCAST_VHOST_GROUP_ENABLED"], Live;
        ---
        /// The names of variants: [group] is the name of the group, [label] one of `labels`.
        pattern: String = r#""[group]_[label]""#, Kind::Text,
            ["RINGCAST_VHOST_GROUP_PATTERN"], Live;
        ---
        /// The labels of variants, in the order of playlists. Players begin with the first.
        labels: Vec<String> = "[]", Kind::Words, ["RINGCAST_VHOST_GROUP_LABELS"], Live;
    }

    /// MPEG-DASH: each stream as a manifest and the segments of its tracks, in fragmented MP4. They
    /// are the same memory as those of HLS where `hls_use_fmp4` is on and `hls_fragment` is
    /// `dash_fragment`. Segments are beside the manifest, in a folder of its name:
    /// video-1.m4s, audio-1.m4s, video-init.mp4, audio-init.mp4. What is said here holds for
    /// streams that begin after it.
    Dash at [vhost.dash] {
        ---
        /// Serve DASH.
        enabled: bool = "false", PREFER_FALSE, ["SRS_VHOST_DASH_ENABLED"], Live;
        ---
        /// How long segments should be: they end at the first keyframe after it.
        dash_fragment: Duration = "10", SECONDS, ["SRS_VHOST_DASH_DASH_FRAGMENT"], Live;
        ---
        /// When players look for a new manifest. Not later than after the longest segment,
        /// whatever is said here: there is something new then.
        dash_update_period: Duration = "5", SECONDS,
            ["SRS_VHOST_DASH_DASH_UPDATE_PERIOD"], Live;
        ---
        /// How far back players may go, at most.
        dash_timeshift: Duration = "300", SECONDS, ["SRS_VHOST_DASH_DASH_TIMESHIFT"], Live;
        ---
        /// Segments that a manifest has, at most; 0 means as many as `dash_timeshift` takes. Three
        /// are in any case. (SRS reads this from the environment as if it were a time.)
        dash_window_size: u32 = "5", int(0, limits::HLS_SEGMENTS_MAX as u32, "segments"),
            ["SRS_VHOST_DASH_DASH_WINDOW_SIZE"], Live;
        ---
        /// Path of manifests, which ends in .mpd. [vhost] [app] [stream] are filled in.
        dash_mpd_file: String = r#""[app]/[stream].mpd""#, Kind::Text,
            ["SRS_VHOST_DASH_DASH_MPD_FILE"], Live;
        ---
        /// Write manifests and segments to this folder, too, for other servers to serve or keep.
        /// [vhost] is filled in. Empty means not to: players are served from memory in any case.
        dash_path: PathBuf = r#""""#, Kind::Path, ["SRS_VHOST_DASH_DASH_PATH"], Live;
        ---
        /// Remove segments from that folder when they can be had no more, and all files of a
        /// stream after `dash_dispose`.
        dash_cleanup: bool = "true", PREFER_TRUE, ["SRS_VHOST_DASH_DASH_CLEANUP"], Live;
        ---
        /// Time after the end of a stream until its manifest and segments go; 0 means a day. Until
        /// then the manifest is that of something that has ended.
        dash_dispose: Duration = "120", SECONDS, ["SRS_VHOST_DASH_DASH_DISPOSE"], Live;
        ---
        /// Give each viewer a manifest of its own, with its id (`dash_ctx`) behind all addresses.
        /// Behind a proxy that does not send `X-Forwarded-Host`, players of one kind that come from
        /// one address are one viewer.
        /// Viewers then are clients: on_play, on_stop, statistics, kicks; where who may play is
        /// restricted, segments are for viewers only. Without it every request for a manifest is
        /// one of somebody new who wants to play.
        dash_ctx: bool = "true", PREFER_TRUE, ["RINGCAST_VHOST_DASH_DASH_CTX"], Live;
    }

    /// Callbacks to an HTTP server, as in SRS: JSON by POST. A client is let in when the answer has
    /// status 200 or 201 and its body is `0` or a JSON object with `"code":0`. While the answer is
    /// awaited nothing of the stream is delivered. on_close, on_unpublish and on_stop are repeated
    /// until they are delivered. Redirects are not followed; link-local and cloud metadata
    /// addresses are never called.
    HttpHooks at [vhost.http_hooks] {
        ---
        /// Call hooks.
        enabled: bool = "false", PREFER_FALSE, ["SRS_VHOST_HTTP_HOOKS_ENABLED"], Live;
        ---
        /// URLs that are asked when an RTMP client wants to publish or play, before the next two.
        on_connect: Vec<String> = "[]", Kind::Words, ["SRS_VHOST_HTTP_HOOKS_ON_CONNECT"], Live;
        ---
        /// URLs that are told when such a connection is gone.
        on_close: Vec<String> = "[]", Kind::Words, ["SRS_VHOST_HTTP_HOOKS_ON_CLOSE"], Live;
        ---
        /// URLs that are asked before a client publishes, one after the other.
        on_publish: Vec<String> = "[]", Kind::Words, ["SRS_VHOST_HTTP_HOOKS_ON_PUBLISH"], Live;
        ---
        /// URLs that are told when it has ended.
        on_unpublish: Vec<String> = "[]", Kind::Words,
            ["SRS_VHOST_HTTP_HOOKS_ON_UNPUBLISH"], Live;
        ---
        /// URLs that are asked before a client plays, one after the other.
        on_play: Vec<String> = "[]", Kind::Words, ["SRS_VHOST_HTTP_HOOKS_ON_PLAY"], Live;
        ---
        /// URLs that are told when it has ended.
        on_stop: Vec<String> = "[]", Kind::Words, ["SRS_VHOST_HTTP_HOOKS_ON_STOP"], Live;
        ---
        /// URLs that are told when a recording is finished.
        on_dvr: Vec<String> = "[]", Kind::Words, ["SRS_VHOST_HTTP_HOOKS_ON_DVR"], Live;
        ---
        /// URLs that are told of every segment of HLS, once.
        on_hls: Vec<String> = "[]", Kind::Words, ["SRS_VHOST_HTTP_HOOKS_ON_HLS"], Live;
        ---
        /// URLs that are fetched (GET) for every segment of HLS, so that a CDN has it. [server_id]
        /// [service_id] [app] [stream] [ts_url] (the segment's path) and [param] are filled in.
        on_hls_notify: Vec<String> = "[]", Kind::Words,
            ["SRS_VHOST_HTTP_HOOKS_ON_HLS_NOTIFY"], Live;
        ---
        /// Longest time for one call, from connecting to the end of the answer.
        timeout: Duration = "30", SECONDS, ["RINGCAST_VHOST_HTTP_HOOKS_TIMEOUT"], Live;
        ---
        /// Let clients in when a hook cannot be asked (no connection, no answer in time, a server
        /// error). An answer that refuses always refuses.
        accept_on_failure: bool = "false", PREFER_FALSE,
            ["RINGCAST_VHOST_HTTP_HOOKS_ACCEPT_ON_FAILURE"], Live;
        ---
        /// Check the certificates of https URLs. SRS does not.
        tls_verify: bool = "true", PREFER_TRUE,
            ["RINGCAST_VHOST_HTTP_HOOKS_TLS_VERIFY"], Live;
    }

    /// Programs that run while a stream is published, as in SRS: they are started about a second
    /// after it begins, again three seconds after they end, and are ended with it. There is no
    /// shell. [vhost] [app] [stream] [port] [url] (to play it on this machine) [tcUrl] [swfUrl]
    /// [pageUrl], [timestamp] (ms since 1970) and [2006] [01] [02] [15] [04] [05] [999] (date and
    /// time, UTC) are filled in; `>file`, `1>file` and `2>file` say what output is added to. They
    /// run as the server's user, without its SRS_* and RINGCAST_* environment.
    Exec at [vhost.exec] {
        ---
        /// Run them.
        enabled: bool = "false", PREFER_FALSE, ["RINGCAST_VHOST_EXEC_ENABLED"], Live;
        ---
        /// Command lines. Blanks separate words, quotes keep them together.
        publish: CommandLines = "[]", Kind::Lines, ["RINGCAST_VHOST_EXEC_PUBLISH"], Live;
    }

    /// Who may do what from which address. Rules are texts such as "publish 10.0.0.0/8" or
    /// "play all". SRS's order: without any rule nobody may; who is denied may not; then, if there
    /// is any rule that allows, one has to be about the client.
    Security at [vhost.security] {
        ---
        /// Apply the rules. They go by the address of the connection.
        enabled: bool = "false", PREFER_FALSE, ["RINGCAST_VHOST_SECURITY_ENABLED"], Live;
        ---
        /// Who may.
        allow: AddressRules = "[]", Kind::Lines, ["RINGCAST_VHOST_SECURITY_ALLOW"], Live;
        ---
        /// Who may not.
        deny: AddressRules = "[]", Kind::Lines, ["RINGCAST_VHOST_SECURITY_DENY"], Live;
    }

    /// On which pages publishers and players may be: domains; what is below one counts as well. A
    /// client can say what it likes, so this keeps pages out, not people.
    Refer at [vhost.refer] {
        ---
        /// Check the page (RTMP: pageUrl, HTTP: Referer). An empty list means no check.
        enabled: bool = "false", PREFER_FALSE, ["RINGCAST_VHOST_REFER_ENABLED"], Live;
        ---
        /// Domains for both.
        all: Vec<String> = "[]", Kind::Words, ["RINGCAST_VHOST_REFER_ALL"], Live;
        ---
        /// Domains for publishers.
        publish: Vec<String> = "[]", Kind::Words, ["RINGCAST_VHOST_REFER_PUBLISH"], Live;
        ---
        /// Domains for players.
        play: Vec<String> = "[]", Kind::Words, ["RINGCAST_VHOST_REFER_PLAY"], Live;
    }

    /// Tokens in the parameters of streams, the same for every protocol: `?token=KEY`, `?token=JWT`
    /// or `?expires=UNIXTIME&sign=HEX`. One good one of any kind is enough. HTTP players may also
    /// send `Authorization: Bearer`.
    Token at [vhost.token] {
        ---
        /// Publishers need one.
        publish: bool = "false", PREFER_FALSE, ["RINGCAST_VHOST_TOKEN_PUBLISH"], Live;
        ---
        /// Players need one.
        play: bool = "false", PREFER_FALSE, ["RINGCAST_VHOST_TOKEN_PLAY"], Live;
        ---
        /// Static keys: texts that are good as `token`, for everything.
        keys: Vec<String> = "[]", Kind::Words, ["RINGCAST_VHOST_TOKEN_KEYS"], Live;
        ---
        /// Secrets of signed URLs: `sign` is the HMAC-SHA256 of "publish:app/stream:EXPIRES" (or
        /// "play:...") under one of them, in hexadecimal digits.
        sign_secrets: Vec<String> = "[]", Kind::Words,
            ["RINGCAST_VHOST_TOKEN_SIGN_SECRETS"], Live;
        ---
        /// Secret of JWTs with HS256, HS384 or HS512; at least 32 bytes. Empty means none.
        jwt_secret: String = r#""""#, Kind::Text, ["RINGCAST_VHOST_TOKEN_JWT_SECRET"], Live;
        ---
        /// URL of the key set (JWKS) of JWTs with RS, PS, ES or EdDSA. Empty means none. A JWT has
        /// to have `exp` and, as a text or a list, `publish` or `play`: streams such as
        /// "live/one", "live/*" or "*".
        jwks_url: String = r#""""#, Kind::Text, ["RINGCAST_VHOST_TOKEN_JWKS_URL"], Live;
        ---
        /// Time after which the key set is fetched again. A JWT that names an unknown key has it
        /// fetched sooner.
        jwks_refresh: Duration = "600", SECONDS, ["RINGCAST_VHOST_TOKEN_JWKS_REFRESH"], Live;
        ---
        /// The issuer (`iss`) that JWTs must have. Empty means any.
        jwt_issuer: String = r#""""#, Kind::Text, ["RINGCAST_VHOST_TOKEN_JWT_ISSUER"], Live;
        ---
        /// The audience (`aud`) that JWTs must have. Empty means that they must have none.
        jwt_audience: String = r#""""#, Kind::Text, ["RINGCAST_VHOST_TOKEN_JWT_AUDIENCE"], Live;
    }

    /// How many may publish and play on a vhost, and how much it may send. Who comes after a limit
    /// was set is counted.
    Limits at [vhost.limits] {
        ---
        /// Most publishers; 0 means no limit.
        publishers: u32 = "0", int(0, limits::CONNECTIONS_MAX, "publishers"),
            ["RINGCAST_VHOST_LIMITS_PUBLISHERS"], Live;
        ---
        /// Most players; 0 means no limit.
        players: u32 = "0", int(0, limits::CONNECTIONS_MAX, "players"),
            ["RINGCAST_VHOST_LIMITS_PLAYERS"], Live;
        ---
        /// Most players of one stream; 0 means no limit.
        players_per_stream: u32 = "0", int(0, limits::CONNECTIONS_MAX, "players"),
            ["RINGCAST_VHOST_LIMITS_PLAYERS_PER_STREAM"], Live;
        ---
        /// While the players of the vhost are sent more than this, no more are let in; 0 means no
        /// limit. Those who are there go on.
        kbps: u32 = "0", int(0, i32::MAX as u32, "kbit/s"),
            ["RINGCAST_VHOST_LIMITS_KBPS"], Live;
    }
}

const fn bytes_u32(min: u32, max: u32) -> Kind {
    int(min, max, "bytes")
}
