//! The environment overlay: SRS's variables with SRS's rules, and ringcast's own.
//!
//! A non-empty variable beats the configuration file; an empty one counts as not set. A variable
//! of SRS whose feature does not exist here yet is accepted with a warning, so that a working
//! container description can be moved over as it is.

use super::row::{Kind, Raw, Row};
use super::suggest::nearest;
use super::{Config, ConfigError, rows};

/// Set to anything, it means `-e`.
pub(super) const ENV_ONLY: &str = "SRS_ENV_ONLY";
/// Replaces the argument of `-c`.
pub(super) const CONFIG_FILE: &str = "SRS_CONFIG_FILE";
/// Prefix of ringcast's internal marks, which are not settings.
const INTERNAL: &str = "RINGCAST_INTERNAL_";

/// The variables of a process that may concern the configuration.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    vars: Vec<(String, String)>,
}

impl Environment {
    /// Takes the `SRS_*` and `RINGCAST_*` variables that are not empty.
    pub fn new(vars: impl IntoIterator<Item = (String, String)>) -> Self {
        let ours = |name: &str| {
            (name.starts_with("SRS_") || name.starts_with("RINGCAST_"))
                && !name.starts_with(INTERNAL)
        };
        let mut vars: Vec<_> =
            vars.into_iter().filter(|(name, value)| ours(name) && !value.is_empty()).collect();
        vars.sort();
        Self { vars }
    }

    /// The environment of this process.
    pub fn of_process() -> Self {
        Self::new(std::env::vars_os().filter_map(|(name, value)| {
            // What is not UTF-8 cannot be the value of any setting that has a variable.
            Some((name.into_string().ok()?, value.into_string().ok()?))
        }))
    }

    pub(super) fn var(&self, name: &str) -> Option<&str> {
        self.vars.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// What differs when the configuration comes from the environment: SRS serves RTMP only
    /// unless told otherwise, stays in the foreground and logs to the console.
    pub(super) fn defaults(config: &mut Config) {
        config.http_server.enabled = false;
        config.http_api.enabled = false;
        config.vhost.http_remux.enabled = false;
        config.daemon = false;
        config.log.tank = super::LogTank::Console;
    }

    /// Puts the variables into `config`.
    pub(super) fn apply(
        &self,
        config: &mut Config,
        warnings: &mut Vec<String>,
        errors: &mut Vec<ConfigError>,
    ) {
        for row in rows() {
            let found = row.env.iter().find_map(|name| Some((*name, self.var(name)?)));
            let Some((name, text)) = found else { continue };
            let raw = read(row, name, text, warnings);
            if let Err(why) = row.set(config, &raw) {
                errors.push(ConfigError::Env { name: name.into(), why });
            }
        }
        for (name, _) in &self.vars {
            if let Some(line) = remark(name) {
                warnings.push(line);
            }
        }
    }

    /// One line when there are settings in an environment that is not read.
    pub(super) fn unread(&self) -> Option<String> {
        let of_rows = |name: &str| rows().any(|row| row.env.contains(&name));
        let mut names = self.vars.iter().map(|(name, _)| name).filter(|name| of_rows(name));
        let first = names.next()?;
        let more = match names.count() {
            0 => String::new(),
            n => format!(" and {n} more"),
        };
        Some(format!("{first}{more} in the environment: not read, start with -e to have it read"))
    }
}

/// The written value of a row from the variable `name`.
fn read(row: &Row, name: &str, text: &str, warnings: &mut Vec<String>) -> Raw {
    match row.kind {
        Kind::Bool { prefer } => {
            if !matches!(text, "on" | "off") {
                let means = if prefer { "on" } else { "off" };
                warnings.push(format!("{name}={text} means {means}, as in SRS; write on or off"));
            }
            Raw::Bool(if prefer { text != "off" } else { text == "on" })
        }
        Kind::Choice(_) if name.ends_with("_LOG_LEVEL") => Raw::Text(old_level(text).into()),
        kind => kind.raw_from_text(text),
    }
}

/// SRS's older level names, which are one step off the usual ones.
fn old_level(text: &str) -> &str {
    match text {
        "verbose" => "trace",
        "info" => "debug",
        "trace" => "info",
        other => other,
    }
}

/// What to say about a variable that no row reads.
fn remark(name: &str) -> Option<String> {
    let special = [ENV_ONLY, CONFIG_FILE];
    if special.contains(&name) || kubernetes(name) || rows().any(|row| row.env.contains(&name)) {
        return None;
    }
    if known().any(|known| known == name) {
        return Some(format!("{name} has no effect: this version does not have the feature yet"));
    }
    let candidates = rows().flat_map(|row| row.env.iter().copied()).chain(known());
    Some(match nearest(name, candidates) {
        Some(near) => format!("{name} is not a known variable; did you mean {near}?"),
        None => format!("{name} is not a known variable and has no effect"),
    })
}

/// Kubernetes describes a service named `srs` to every container by variables of its own.
fn kubernetes(name: &str) -> bool {
    let tail = name.trim_start_matches("SRS_").trim_start_matches("RINGCAST_");
    tail.contains("SERVICE_HOST")
        || tail.contains("SERVICE_PORT")
        || tail == "PORT"
        || tail.ends_with("_PORT")
        || (tail.contains("PORT_") && (tail.contains("_TCP") || tail.contains("_UDP")))
}

/// Names of SRS variables without a row.
fn known() -> impl Iterator<Item = &'static str> {
    KNOWN.split_ascii_whitespace()
}

/// True when SRS has a setting at this dotted path that has no row here.
pub(super) fn known_path(path: &str) -> bool {
    let name = format!("SRS_{}", path.to_ascii_uppercase().replace('.', "_"));
    known().any(|known| known == name)
}

const KNOWN: &str = "
    SRS_ASPROCESS SRS_AUTO_RELOAD_FOR_DOCKER SRS_DEVICE_IP SRS_DISABLE_DAEMON_FOR_DOCKER
    SRS_EMPTY_IP_OK SRS_FF_LOG_DIR SRS_FF_LOG_LEVEL SRS_FIRST_WAIT_FOR_QLV SRS_FORCE_GRACE_QUIT
    SRS_INOTIFY_AUTO_RELOAD SRS_IN_DOCKER SRS_PITHY_PRINT_MS SRS_PLATFORM SRS_QUERY_LATEST_VERSION
    SRS_REGION SRS_SERVER_ID SRS_SOURCE SRS_TCMALLOC_RELEASE_RATE SRS_THREADS_INTERVAL
    SRS_UTC_TIME
    SRS_CIRCUIT_BREAKER_CRITICAL_PULSE SRS_CIRCUIT_BREAKER_CRITICAL_THRESHOLD
    SRS_CIRCUIT_BREAKER_DYING_PULSE SRS_CIRCUIT_BREAKER_DYING_THRESHOLD
    SRS_CIRCUIT_BREAKER_ENABLED SRS_CIRCUIT_BREAKER_HIGH_PULSE SRS_CIRCUIT_BREAKER_HIGH_THRESHOLD
    SRS_EXPORTER_ENABLED SRS_EXPORTER_LABEL SRS_EXPORTER_LISTEN SRS_EXPORTER_TAG
    SRS_HEARTBEAT_DEVICE_ID SRS_HEARTBEAT_ENABLED SRS_HEARTBEAT_INTERVAL SRS_HEARTBEAT_PORTS
    SRS_HEARTBEAT_SUMMARIES SRS_HEARTBEAT_URL
    SRS_HTTP_API_CROSSDOMAIN SRS_HTTP_API_HTTPS_CERT SRS_HTTP_API_HTTPS_ENABLED
    SRS_HTTP_API_HTTPS_KEY SRS_HTTP_API_HTTPS_LISTEN SRS_HTTP_API_RAW_API_ALLOW_RELOAD
    SRS_HTTP_API_RAW_API_ENABLED
    SRS_HTTP_SERVER_DIR SRS_HTTP_SERVER_HTTPS_CERT SRS_HTTP_SERVER_HTTPS_ENABLED
    SRS_HTTP_SERVER_HTTPS_KEY SRS_HTTP_SERVER_HTTPS_LISTEN
    SRS_RTC_SERVER_API_AS_CANDIDATES SRS_RTC_SERVER_BLACK_HOLE_ADDR
    SRS_RTC_SERVER_BLACK_HOLE_ENABLED SRS_RTC_SERVER_CANDIDATE SRS_RTC_SERVER_ECDSA
    SRS_RTC_SERVER_ENABLED SRS_RTC_SERVER_ENCRYPT SRS_RTC_SERVER_IP_FAMILY
    SRS_RTC_SERVER_KEEP_API_DOMAIN SRS_RTC_SERVER_LISTEN SRS_RTC_SERVER_MERGE_NALUS
    SRS_RTC_SERVER_PROTOCOL SRS_RTC_SERVER_RESOLVE_API_DOMAIN SRS_RTC_SERVER_REUSEPORT
    SRS_RTC_SERVER_TCP_ENABLED SRS_RTC_SERVER_TCP_LISTEN SRS_RTC_SERVER_USE_AUTO_DETECT_NETWORK_IP
    SRS_RTMPS_CERT SRS_RTMPS_ENABLED SRS_RTMPS_KEY SRS_RTMPS_LISTEN
    SRS_RTSP_SERVER_ENABLED SRS_RTSP_SERVER_LISTEN
    SRS_SRT_SERVER_CONNECT_TIMEOUT SRS_SRT_SERVER_DEFAULT_APP SRS_SRT_SERVER_ENABLED
    SRS_SRT_SERVER_LATENCY SRS_SRT_SERVER_LISTEN SRS_SRT_SERVER_MAXBW SRS_SRT_SERVER_MSS
    SRS_SRT_SERVER_PASSPHRASE SRS_SRT_SERVER_PAYLOADSIZE SRS_SRT_SERVER_PBKEYLEN
    SRS_SRT_SERVER_PEERLATENCY SRS_SRT_SERVER_PEER_IDLE_TIMEOUT SRS_SRT_SERVER_RECVBUF
    SRS_SRT_SERVER_RECVLATENCY SRS_SRT_SERVER_SEI_FILTER SRS_SRT_SERVER_SENDBUF
    SRS_SRT_SERVER_TLPKTDROP SRS_SRT_SERVER_TSBPDMODE
    SRS_TENCENTCLOUD_APM_DEBUG_LOGGING SRS_TENCENTCLOUD_APM_ENABLED SRS_TENCENTCLOUD_APM_ENDPOINT
    SRS_TENCENTCLOUD_APM_SERVICE_NAME SRS_TENCENTCLOUD_APM_TEAM SRS_TENCENTCLOUD_APM_TOKEN
    SRS_TENCENTCLOUD_CLS_DEBUG_LOGGING SRS_TENCENTCLOUD_CLS_ENABLED SRS_TENCENTCLOUD_CLS_ENDPOINT
    SRS_TENCENTCLOUD_CLS_HEARTBEAT_RATIO SRS_TENCENTCLOUD_CLS_LABEL SRS_TENCENTCLOUD_CLS_SECRET_ID
    SRS_TENCENTCLOUD_CLS_SECRET_KEY SRS_TENCENTCLOUD_CLS_STAT_HEARTBEAT
    SRS_TENCENTCLOUD_CLS_STAT_STREAMS SRS_TENCENTCLOUD_CLS_STREAMS_RATIO SRS_TENCENTCLOUD_CLS_TAG
    SRS_TENCENTCLOUD_CLS_TOPIC_ID
    SRS_VHOST_DASH_DASH_CLEANUP SRS_VHOST_DASH_DASH_DISPOSE SRS_VHOST_DASH_DASH_FRAGMENT
    SRS_VHOST_DASH_DASH_MPD_FILE SRS_VHOST_DASH_DASH_PATH SRS_VHOST_DASH_DASH_TIMESHIFT
    SRS_VHOST_DASH_DASH_UPDATE_PERIOD SRS_VHOST_DASH_DASH_WINDOW_SIZE SRS_VHOST_DASH_ENABLED
    SRS_VHOST_DVR_DVR_DURATION SRS_VHOST_DVR_DVR_PATH SRS_VHOST_DVR_DVR_PLAN
    SRS_VHOST_DVR_DVR_WAIT_KEYFRAME SRS_VHOST_DVR_ENABLED SRS_VHOST_DVR_TIME_JITTER
    SRS_VHOST_FORWARD_BACKEND SRS_VHOST_FORWARD_DESTINATION SRS_VHOST_FORWARD_ENABLED
    SRS_VHOST_HDS_ENABLED SRS_VHOST_HDS_HDS_FRAGMENT SRS_VHOST_HDS_HDS_PATH
    SRS_VHOST_HDS_HDS_WINDOW
    SRS_VHOST_HLS_ENABLED SRS_VHOST_HLS_HLS_ACODEC SRS_VHOST_HLS_HLS_AOF_RATIO
    SRS_VHOST_HLS_HLS_CLEANUP SRS_VHOST_HLS_HLS_CTX SRS_VHOST_HLS_HLS_DISPOSE
    SRS_VHOST_HLS_HLS_DTS_DIRECTLY SRS_VHOST_HLS_HLS_ENTRY_PREFIX SRS_VHOST_HLS_HLS_FMP4_FILE
    SRS_VHOST_HLS_HLS_FRAGMENT SRS_VHOST_HLS_HLS_FRAGMENTS_PER_KEY SRS_VHOST_HLS_HLS_INIT_FILE
    SRS_VHOST_HLS_HLS_KEYS SRS_VHOST_HLS_HLS_KEY_FILE SRS_VHOST_HLS_HLS_KEY_FILE_PATH
    SRS_VHOST_HLS_HLS_KEY_URL SRS_VHOST_HLS_HLS_M3U8_FILE
    SRS_VHOST_HLS_HLS_MASTER_M3U8_PATH_RELATIVE SRS_VHOST_HLS_HLS_NB_NOTIFY
    SRS_VHOST_HLS_HLS_ON_ERROR SRS_VHOST_HLS_HLS_PATH SRS_VHOST_HLS_HLS_RECOVER
    SRS_VHOST_HLS_HLS_TD_RATIO SRS_VHOST_HLS_HLS_TS_CTX SRS_VHOST_HLS_HLS_TS_FILE
    SRS_VHOST_HLS_HLS_TS_FLOOR SRS_VHOST_HLS_HLS_USE_FMP4 SRS_VHOST_HLS_HLS_VCODEC
    SRS_VHOST_HLS_HLS_WAIT_KEYFRAME SRS_VHOST_HLS_HLS_WINDOW
    SRS_VHOST_HTTP_HOOKS_ENABLED SRS_VHOST_HTTP_HOOKS_ON_CLOSE SRS_VHOST_HTTP_HOOKS_ON_CONNECT
    SRS_VHOST_HTTP_HOOKS_ON_DVR SRS_VHOST_HTTP_HOOKS_ON_HLS SRS_VHOST_HTTP_HOOKS_ON_HLS_NOTIFY
    SRS_VHOST_HTTP_HOOKS_ON_PLAY SRS_VHOST_HTTP_HOOKS_ON_PUBLISH SRS_VHOST_HTTP_HOOKS_ON_STOP
    SRS_VHOST_HTTP_HOOKS_ON_UNPUBLISH SRS_VHOST_HTTP_REMUX_DROP_IF_NOT_MATCH
    SRS_VHOST_HTTP_REMUX_FAST_CACHE SRS_VHOST_HTTP_REMUX_GUESS_HAS_AV
    SRS_VHOST_HTTP_REMUX_HAS_AUDIO SRS_VHOST_HTTP_REMUX_HAS_VIDEO SRS_VHOST_HTTP_STATIC_DIR
    SRS_VHOST_HTTP_STATIC_ENABLED SRS_VHOST_HTTP_STATIC_MOUNT
    SRS_VHOST_PLAY_ATC SRS_VHOST_PLAY_ATC_AUTO SRS_VHOST_PLAY_MIX_CORRECT
    SRS_VHOST_PLAY_SEND_MIN_INTERVAL
    SRS_VHOST_PUBLISH_KICKOFF_FOR_IDLE SRS_VHOST_PUBLISH_MR SRS_VHOST_PUBLISH_MR_LATENCY
    SRS_VHOST_PUBLISH_PARSE_SPS SRS_VHOST_PUBLISH_TRY_ANNEXB_FIRST
    SRS_VHOST_RTC_AAC_BITRATE SRS_VHOST_RTC_DROP_FOR_PT SRS_VHOST_RTC_DTLS_ROLE
    SRS_VHOST_RTC_DTLS_VERSION SRS_VHOST_RTC_ENABLED SRS_VHOST_RTC_KEEP_AVC_NALU_SEI
    SRS_VHOST_RTC_KEEP_BFRAME SRS_VHOST_RTC_NACK SRS_VHOST_RTC_NACK_NO_COPY
    SRS_VHOST_RTC_OPUS_BITRATE SRS_VHOST_RTC_PLI_FOR_RTMP SRS_VHOST_RTC_RTC_TO_RTMP
    SRS_VHOST_RTC_RTMP_TO_RTC SRS_VHOST_RTC_STUN_STRICT_CHECK SRS_VHOST_RTC_STUN_TIMEOUT
    SRS_VHOST_RTC_TWCC
    SRS_VHOST_RTSP_ENABLED SRS_VHOST_RTSP_RTMP_TO_RTSP
    SRS_VHOST_SRT_ENABLED SRS_VHOST_SRT_SRT_TO_RTMP SRS_VHOST_SRT_TO_RTMP
";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{LogLevel, LogTank, Sources, load};

    fn env(vars: &[(&str, &str)]) -> Sources {
        let vars = vars.iter().map(|(n, v)| (n.to_string(), v.to_string()));
        Sources { env: true, environment: Environment::new(vars), ..Sources::default() }
    }

    #[test]
    fn names_are_unique_and_follow_the_path() {
        let mut seen = std::collections::BTreeSet::new();
        for row in rows() {
            for name in row.env {
                assert!(seen.insert(*name), "{name} twice");
                assert!(!known().any(|k| k == *name), "{name} has a row");
            }
            let by_rule = format!("_{}", row.path.to_ascii_uppercase().replace('.', "_"));
            let fits = |name: &&str| name.ends_with(&by_rule);
            assert!(row.env.iter().any(fits) || row.path == "log.level", "{}", row.path);
        }
        assert!(known().count() > 180);
        assert!(known_path("vhost.hls.enabled"));
    }

    #[test]
    fn http_is_off_unless_switched_on() {
        let config = load(&env(&[])).unwrap().config;
        assert!(!config.http_server.enabled && !config.vhost.http_remux.enabled);
        assert!(!config.http_api.enabled && !config.daemon);
        assert_eq!(config.listen, Config::default().listen);
        let on = env(&[
            ("SRS_HTTP_SERVER_ENABLED", "on"),
            ("SRS_VHOST_HTTP_REMUX_ENABLED", "on"),
            ("SRS_HTTP_SERVER_LISTEN", "8081"),
            ("SRS_LISTEN", "1935 127.0.0.1:1936"),
            ("SRS_MAX_CONNECTIONS", "50"),
            ("SRS_LOG_TANK", "file"),
            ("SRS_PID", ""),
        ]);
        let loaded = load(&on).unwrap();
        let config = loaded.config;
        assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
        assert!(config.http_server.enabled && config.vhost.http_remux.enabled);
        assert_eq!(config.http_server.listen[0].to_string(), "8081");
        assert_eq!(config.listen.len(), 2);
        assert_eq!(config.max_connections, 50);
        assert_eq!(config.log.tank, LogTank::File);
        assert_eq!(config.pid, Config::default().pid);
    }

    #[test]
    fn switches_read_as_in_srs() {
        let loaded = load(&env(&[("SRS_DAEMON", "false"), ("SRS_LOG_TANK", "file")])).unwrap();
        assert!(loaded.config.daemon);
        assert!(loaded.warnings[0].contains("SRS_DAEMON=false means on"));
        let loaded = load(&env(&[("SRS_VHOST_MIN_LATENCY", "true")])).unwrap();
        assert!(!loaded.config.vhost.min_latency);
    }

    #[test]
    fn levels_have_two_spellings() {
        let old = load(&env(&[("SRS_LOG_LEVEL", "trace")])).unwrap().config;
        assert_eq!(old.log.level, LogLevel::Info);
        let both = env(&[("SRS_LOG_LEVEL", "trace"), ("SRS_LOG_LEVEL_V2", "warn")]);
        assert_eq!(load(&both).unwrap().config.log.level, LogLevel::Warn);
    }

    #[test]
    fn unknown_and_unfinished_names_are_remarked() {
        let loaded = load(&env(&[
            ("SRS_LISTN", "1"),
            ("SRS_VHOST_HLS_ENABLED", "on"),
            ("SRS_SERVICE_HOST", "10.0.0.1"),
            ("SRS_PORT_1935_TCP_ADDR", "10.0.0.1"),
            ("RINGCAST_SHARD", "2"),
        ]))
        .unwrap();
        assert_eq!(
            loaded.warnings,
            [
                "RINGCAST_SHARD is not a known variable; did you mean RINGCAST_SHARDS?",
                "SRS_LISTN is not a known variable; did you mean SRS_LISTEN?",
                "SRS_VHOST_HLS_ENABLED has no effect: this version does not have the feature yet",
            ]
        );
    }

    #[test]
    fn a_wrong_value_names_the_variable() {
        let errors = load(&env(&[("SRS_MAX_CONNECTIONS", "many")])).unwrap_err();
        assert_eq!(
            errors.to_string(),
            "SRS_MAX_CONNECTIONS: max_connections must be a whole number from 1 to 4000000 \
             (connections), not \"many\""
        );
    }

    #[test]
    fn an_unread_environment_is_pointed_out() {
        let mut sources = env(&[("SRS_LISTEN", "1"), ("SRS_PID", "x")]);
        sources.env = false;
        let loaded = load(&sources).unwrap();
        assert_eq!(loaded.config, Config::default());
        assert!(loaded.warnings[0].starts_with("SRS_LISTEN and 1 more in the environment"));
        sources.environment.vars.push((ENV_ONLY.into(), "on".into()));
        assert_eq!(load(&sources).unwrap().config.listen[0].to_string(), "1");
    }
}
