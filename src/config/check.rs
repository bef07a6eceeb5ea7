//! Rules across settings: what each row cannot see alone.

use super::settings::Dvr;
use super::{Config, ConfigError, DvrPlan, ListenAddr, LogTank, Vhost};
use crate::date;
use crate::limits::{self, JWT_SECRET_BYTES_MIN};

/// Largest chunk size that old clients are known to cope with, in bytes.
const CHUNK_SIZE_USUAL: u32 = 65_536;

/// Longest `server_id`.
const SERVER_ID_BYTES_MAX: usize = 64;

/// Finds settings that do not fit together.
pub(super) fn check(config: &Config, warnings: &mut Vec<String>, errors: &mut Vec<ConfigError>) {
    for line in overlaps(config) {
        errors.push(ConfigError::Together(line));
    }
    let live = |(_, vhost): (&str, &Vhost)| vhost.enabled && vhost.http_remux.enabled;
    if !config.http_server.enabled && config.all_vhosts().any(live) {
        warnings.push(
            "vhost.http_remux.enabled has no effect while http_server.enabled is false".into(),
        );
    }
    for (part, enabled, https) in [
        ("http_server", config.http_server.enabled, config.http_server.https.enabled),
        ("http_api", config.http_api.enabled, config.http_api.https.enabled),
    ] {
        if https && !enabled {
            errors.push(ConfigError::Together(format!(
                "{part}.https.enabled needs {part}.enabled: HTTPS is beside HTTP, not without it"
            )));
        }
    }
    let (own, api) = (&config.http_server.https, &config.http_api.https);
    if config.shares_https_port() && (&own.cert, &own.key) != (&api.cert, &api.key) {
        warnings.push(
            "http_api.https.cert and http_api.https.key are not used: its port is that of \
             http_server.https, whose certificate counts"
                .into(),
        );
    }
    if config.daemon && config.asprocess {
        errors.push(ConfigError::Together(
            "daemon and asprocess cannot both be on: in the background the parent is always gone"
                .into(),
        ));
    }
    let id = &config.server_id;
    if id.len() > SERVER_ID_BYTES_MAX || !id.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-')
    {
        errors.push(ConfigError::Together(format!(
            "server_id {id:?} may have letters, digits and hyphens only, at most \
             {SERVER_ID_BYTES_MAX}"
        )));
    }
    let auth = &config.http_api.auth;
    let named = !auth.username.is_empty() && !auth.password.is_empty();
    if auth.enabled && !named && auth.token.is_empty() {
        errors.push(ConfigError::Together(
            "http_api.auth.enabled needs http_api.auth.username and http_api.auth.password, or \
             http_api.auth.token; there is no default secret"
                .into(),
        ));
    }
    admission("vhost", &config.vhost, warnings, errors);
    for (name, vhost) in config.vhosts.iter().filter(|(_, v)| !same_admission(v, &config.vhost)) {
        admission(&format!("vhost.{name:?}"), vhost, warnings, errors);
    }
    if config.heartbeat.enabled && config.heartbeat.interval < std::time::Duration::from_secs(1) {
        errors.push(ConfigError::Together("heartbeat.interval must be at least a second".into()));
    }
    if let Some(why) = url_error(&config.heartbeat.url).filter(|_| config.heartbeat.enabled) {
        errors.push(ConfigError::Together(format!("heartbeat.url {why}")));
    }
    if config.daemon && config.log.tank == LogTank::Console {
        warnings.push(
            "daemon is on and log.tank is \"console\": the log is lost once the server is in the \
             background; set log.tank to \"file\""
                .into(),
        );
    }
    for (name, vhost) in config.all_vhosts().filter(|(_, vhost)| vhost.hls.enabled) {
        hls(name, vhost, errors);
    }
    for (name, vhost) in config.all_vhosts().filter(|(_, vhost)| vhost.group.enabled) {
        group(name, vhost, errors);
    }
    for (name, vhost) in config.all_vhosts().filter(|(_, vhost)| vhost.dash.enabled) {
        dash(name, vhost, warnings, errors);
    }
    for (name, vhost) in config.all_vhosts() {
        let known = |format: &str| matches!(format, "flv" | "ts" | "mp4" | "aac" | "mp3");
        if let Some(format) = vhost.http_remux.formats.iter().find(|format| !known(format)) {
            errors.push(ConfigError::Together(format!(
                "http_remux.formats of vhost {name} has {format:?}; it can have \"flv\", \"ts\", \
                 \"mp4\", \"aac\" and \"mp3\""
            )));
        }
    }
    for (name, vhost) in config.all_vhosts().filter(|(_, vhost)| vhost.http_static.enabled) {
        let mount = &vhost.http_static.mount;
        let rest = mount.strip_prefix("[vhost]").unwrap_or(mount);
        if !rest.starts_with('/') || rest.contains(['[', ']', '?', '#', '%']) || rest.contains("//")
        {
            errors.push(ConfigError::Together(format!(
                "http_static.mount of vhost {name} is {mount:?}; it has to be a path such as \
                 \"[vhost]/files/\", or \"/files/\" for every host"
            )));
        }
    }
    for (name, vhost) in config.all_vhosts().filter(|(_, vhost)| vhost.dvr.enabled) {
        recordings(name, &vhost.dvr, warnings, errors);
    }
    for (name, vhost) in config.all_vhosts().filter(|(_, vhost)| vhost.upload.enabled) {
        uploads(name, vhost, warnings, errors);
    }
    let large = config.all_vhosts().map(|(_, vhost)| vhost.chunk_size).max().unwrap_or(0);
    if large > CHUNK_SIZE_USUAL {
        warnings.push(format!(
            "vhost.chunk_size {large} is more than {CHUNK_SIZE_USUAL}; some players fail on that"
        ));
    }
}

/// What cannot be recorded so.
fn recordings(name: &str, dvr: &Dvr, warnings: &mut Vec<String>, errors: &mut Vec<ConfigError>) {
    const KNOWN: [&str; 4] = ["vhost", "app", "stream", "timestamp"];
    let mut error = |line: String| errors.push(ConfigError::Together(line));
    let path = &dvr.dvr_path;
    let words = path.split('[').skip(1).map(|rest| rest.split(']').next().unwrap_or_default());
    let words: Vec<&str> = words.collect();
    if let Some(word) = words.iter().find(|word| !KNOWN.contains(word) && !is_of_date(word)) {
        error(format!("dvr.dvr_path of vhost {name} has [{word}], which stands for nothing"));
    }
    let variable = path.find('[').map_or("", |at| &path[at..]);
    if variable.split('/').any(|part| part == "..") {
        error(format!("dvr.dvr_path of vhost {name} has .. behind a variable"));
    }
    let has_end = [".flv", ".mp4", ".ts"].iter().any(|end| path.ends_with(end));
    let dated = ["2006", "01", "02"].iter().all(|word| words.contains(word));
    let timed = !has_end || words.contains(&"timestamp") || dated;
    if dvr.dvr_plan == DvrPlan::Append && path.ends_with(".mp4") {
        error(format!(
            "dvr.dvr_plan of vhost {name} is \"append\", but nothing can be added to an MP4 file; \
             let dvr.dvr_path end in .flv or .ts"
        ));
    }
    if (dvr.keep_hours > 0 || dvr.keep_bytes > 0) && !timed {
        error(format!(
            "dvr.keep_hours and dvr.keep_bytes of vhost {name} need a dvr.dvr_path with \
             [timestamp] or a date in it, by which recordings are told from other files"
        ));
    }
    if dvr.dvr_plan == DvrPlan::Segment && dvr.dvr_duration < std::time::Duration::from_secs(1) {
        error(format!("dvr.dvr_duration of vhost {name} must be at least a second"));
    }
    if dvr.dvr_plan == DvrPlan::Append && timed {
        warnings.push(format!(
            "dvr.dvr_plan of vhost {name} is \"append\", but dvr.dvr_path has a time in it, so \
             every publish begins a file of its own"
        ));
    }
}

/// What cannot be uploaded so.
fn uploads(name: &str, vhost: &Vhost, warnings: &mut Vec<String>, errors: &mut Vec<ConfigError>) {
    let upload = &vhost.upload;
    let mut error = |line: String| errors.push(ConfigError::Together(line));
    if upload.bucket.is_empty() || upload.bucket.contains('/') {
        error(format!("upload.bucket of vhost {name} must be the name of a bucket"));
    }
    let url = &upload.endpoint;
    if let Some(why) = url_error(url).filter(|_| !url.is_empty()) {
        error(format!("upload.endpoint of vhost {name} {why}"));
    }
    if url.contains('@') {
        error(format!("upload.endpoint of vhost {name} must not hold a name or a password"));
    }
    if upload.prefix.split('/').any(|part| matches!(part, "." | "..")) {
        error(format!("upload.prefix of vhost {name} has a part that is . or .."));
    }
    if upload.timeout.is_zero() {
        error(format!("upload.timeout of vhost {name} must be more than 0"));
    }
    if upload.segments && vhost.hls.folder(name).or(vhost.dash.folder(name)).is_none() {
        error(format!(
            "upload.segments of vhost {name} needs hls.hls_path or dash.dash_path: what is \
             uploaded is on disk first"
        ));
    }
    if !upload.segments && (!upload.recordings || !vhost.dvr.enabled) {
        warnings.push(format!(
            "upload is on for vhost {name}, but neither dvr nor upload.segments are: only what the \
             API has recorded is uploaded"
        ));
    }
    let keeps = vhost.dvr.keep_bytes > 0 || vhost.dvr.keep_hours > 0;
    if upload.recordings && vhost.dvr.enabled && !keeps && !upload.delete_after_upload {
        warnings.push(format!(
            "recordings of vhost {name} stay on disk after their upload: set \
             upload.delete_after_upload, dvr.keep_hours or dvr.keep_bytes"
        ));
    }
}

/// What does not fit together in `hls`.
fn hls(name: &str, vhost: &Vhost, errors: &mut Vec<ConfigError>) {
    let mut error = |line: String| {
        errors.push(ConfigError::Together(format!("{line} (vhost {name})")));
    };
    let hls = &vhost.hls;
    if vhost.http_remux.enabled && vhost.http_remux.mount.ends_with(".ts") {
        error("hls.enabled and http_remux.mount with .ts both want the same paths".into());
    }
    let within = |time: std::time::Duration, least: u64, most: u64| {
        (u128::from(least)..=u128::from(most)).contains(&time.as_millis())
    };
    if !within(hls.hls_fragment, limits::HLS_FRAGMENT_MS_MIN, limits::HLS_FRAGMENT_MS_MAX) {
        error("hls.hls_fragment must be from 0.1 s to 120 s".into());
    }
    if !within(hls.hls_window, 0, limits::HLS_WINDOW_MS_MAX) {
        error("hls.hls_window must be at most an hour".into());
    }
    if hls.hls_window.as_millis() > hls.hls_fragment.as_millis() * limits::HLS_SEGMENTS_MAX {
        let most = limits::HLS_SEGMENTS_MAX;
        error(format!("hls.hls_window must be at most {most} times hls.hls_fragment"));
    }
    if hls.hls_keys && (hls.hls_use_fmp4 || !hls.hls_part.is_zero()) {
        error("hls.hls_keys goes with neither hls.hls_use_fmp4 nor hls.hls_part".into());
    }
    if !hls.hls_key_file.contains("[seq]") {
        error("hls.hls_key_file needs [seq]".into());
    }
    let (least, most) = limits::HLS_PART_MS;
    if !hls.hls_part.is_zero() && !within(hls.hls_part, least, most) {
        error(format!("hls.hls_part must be 0 or from {least} ms to {most} ms"));
    }
    for (setting, text) in [
        ("hls_m3u8_file", &hls.hls_m3u8_file),
        ("hls_ts_file", &hls.hls_ts_file),
        ("hls_fmp4_file", &hls.hls_fmp4_file),
        ("hls_init_file", &hls.hls_init_file),
        ("hls_key_file", &hls.hls_key_file),
    ] {
        let plain = !text.starts_with('/') && !text.contains(['?', '#', ' ', '%']);
        if !plain || !text.contains("[app]") || !text.contains("[stream]") {
            error(format!("hls.{setting} must be a relative path with [app] and [stream]"));
        }
        let is_segment = setting == "hls_ts_file" || setting == "hls_fmp4_file";
        if is_segment && !text.contains("[seq]") && !text.contains("[timestamp]") {
            error(format!("hls.{setting} needs [seq] or [timestamp]"));
        }
        if is_segment && !hls.hls_part.is_zero() && text.contains("[duration]") {
            error(format!("hls.{setting} cannot have [duration] together with hls.hls_part"));
        }
        const KNOWN: [&str; 6] = ["vhost", "app", "stream", "seq", "duration", "timestamp"];
        let mut words = text.split('[').skip(1).filter_map(|rest| rest.split(']').next());
        if let Some(word) = words.find(|word| !KNOWN.contains(word) && !is_of_date(word)) {
            error(format!("hls.{setting} has [{word}], which stands for nothing"));
        }
    }
}

/// True for the words of templates that stand for parts of the date.
fn is_of_date(word: &str) -> bool {
    date::digits(word).is_some()
}

/// What is no group of variants.
fn group(name: &str, vhost: &Vhost, errors: &mut Vec<ConfigError>) {
    let mut error = |line: &str| {
        errors.push(ConfigError::Together(format!("{line} (vhost {name})")));
    };
    let group = &vhost.group;
    let once = |word: &str| group.pattern.matches(word).count() == 1;
    if !once("[group]") || !once("[label]") || group.pattern.matches('[').count() != 2 {
        error(
            "group.pattern must have [group] and [label], each once, and nothing else in brackets",
        );
    }
    if group.labels.is_empty() || group.labels.len() > limits::GROUP_LABELS_MAX {
        error("group.labels must name the variants, at most 16 of them");
    }
    if group.labels.iter().any(|label| label.is_empty() || label.contains(['/', '?', '#'])) {
        error("group.labels must be parts of stream names");
    }
    if !vhost.hls.enabled {
        error("group.enabled needs hls.enabled");
    }
}

/// What does not fit together in `dash`.
fn dash(name: &str, vhost: &Vhost, warnings: &mut Vec<String>, errors: &mut Vec<ConfigError>) {
    let mut error = |line: String| {
        errors.push(ConfigError::Together(format!("{line} (vhost {name})")));
    };
    let dash = &vhost.dash;
    let (least, most) = (limits::HLS_FRAGMENT_MS_MIN, limits::HLS_FRAGMENT_MS_MAX);
    let fragment_ms = dash.dash_fragment.as_millis();
    if !(u128::from(least)..=u128::from(most)).contains(&fragment_ms) {
        error("dash.dash_fragment must be from 0.1 s to 120 s".into());
    }
    if dash.dash_timeshift.as_millis() > u128::from(limits::HLS_WINDOW_MS_MAX) {
        error("dash.dash_timeshift must be at most an hour".into());
    }
    let all = dash.dash_timeshift.as_millis() / fragment_ms.max(1);
    if dash.dash_window_size == 0 && all > limits::HLS_SEGMENTS_MAX {
        let most = limits::HLS_SEGMENTS_MAX;
        error(format!("dash.dash_timeshift must be at most {most} times dash.dash_fragment"));
    }
    let file = &dash.dash_mpd_file;
    let plain = !file.starts_with('/') && !file.contains(['?', '#', ' ', '%']);
    let named = file.ends_with(".mpd") && file.contains("[app]") && file.contains("[stream]");
    let words = file.split('[').skip(1).filter_map(|rest| rest.split(']').next());
    let known = words.into_iter().all(|word| ["vhost", "app", "stream"].contains(&word));
    if !plain || !named || !known {
        error(
            "dash.dash_mpd_file must be a relative path with [app] and [stream], and no other \
               variable but [vhost], that ends in .mpd"
                .into(),
        );
    }
    if vhost.hls.enabled && vhost.hls.hls_keys {
        warnings.push(format!(
            "hls.hls_keys of vhost {name} encrypts HLS only: dash.enabled serves the same in the \
             clear"
        ));
    }
}

/// True when a vhost has the rules of the template, which are checked once.
fn same_admission(vhost: &Vhost, template: &Vhost) -> bool {
    vhost.security == template.security
        && vhost.http_hooks == template.http_hooks
        && vhost.token == template.token
        && vhost.exec == template.exec
}

/// Who may publish and play: what cannot work, and what is no protection.
fn admission(path: &str, vhost: &Vhost, warnings: &mut Vec<String>, errors: &mut Vec<ConfigError>) {
    let mut error = |line: String| errors.push(ConfigError::Together(line));
    for (name, rules) in [("allow", &vhost.security.allow), ("deny", &vhost.security.deny)] {
        if let Some(why) = rules.error() {
            error(format!("{path}.security.{name} is wrong: {why}"));
        }
    }
    if let Some(why) = vhost.exec.publish.error() {
        error(format!("{path}.exec.publish is wrong: {why}"));
    }
    let hooks = &vhost.http_hooks;
    for (name, urls) in [
        ("on_connect", &hooks.on_connect),
        ("on_close", &hooks.on_close),
        ("on_publish", &hooks.on_publish),
        ("on_unpublish", &hooks.on_unpublish),
        ("on_play", &hooks.on_play),
        ("on_stop", &hooks.on_stop),
        ("on_dvr", &hooks.on_dvr),
        ("on_hls", &hooks.on_hls),
        ("on_hls_notify", &hooks.on_hls_notify),
    ] {
        if let Some(why) = urls.iter().find_map(|url| url_error(url)) {
            error(format!("{path}.http_hooks.{name} {why}"));
        }
    }
    let token = &vhost.token;
    if (token.publish || token.play) && !token.has_any() {
        error(format!(
            "{path}.token asks for a token, but there is nothing to check it with: set keys, \
             sign_secrets, jwt_secret or jwks_url"
        ));
    }
    if let Some(why) = url_error(&token.jwks_url).filter(|_| !token.jwks_url.is_empty()) {
        error(format!("{path}.token.jwks_url {why}"));
    }
    let secret = token.jwt_secret.len();
    if secret > 0 && secret < JWT_SECRET_BYTES_MIN {
        error(format!(
            "{path}.token.jwt_secret has {secret} bytes, but needs {JWT_SECRET_BYTES_MIN}: \
             `openssl rand -hex 32` makes one"
        ));
    }
    if token.keys.iter().chain(&token.sign_secrets).any(|secret| secret.len() < SECRET_USUAL) {
        warnings.push(format!(
            "{path}.token has a key or secret of less than {SECRET_USUAL} bytes, which can be \
             guessed: `openssl rand -hex 16` makes one"
        ));
    }
}

/// Bytes of a secret that nobody guesses.
const SECRET_USUAL: usize = 16;

/// Why a URL cannot be called; completes "setting …".
fn url_error(url: &str) -> Option<String> {
    let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
    let Some(rest) = rest else {
        return Some(format!("must begin with http:// or https://, not {url:?}"));
    };
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    match host.is_empty() || url.chars().any(|c| c.is_control() || c == ' ') {
        true => Some(format!("must be a URL with a host, not {url:?}")),
        false => None,
    }
}

/// A line for each pair of enabled listeners that cannot both be bound.
fn overlaps(config: &Config) -> Vec<String> {
    let mut all: Vec<(&str, ListenAddr)> = Vec::new();
    let mut add = |name, on: bool, list: &[ListenAddr]| {
        all.extend(list.iter().filter(|_| on).map(|addr| (name, *addr)));
    };
    add("listen", true, &config.listen);
    add("http_server.listen", config.http_server.enabled, &config.http_server.listen);
    // The same value means one port for both.
    let own = config.http_api.enabled && !config.shares_http_port();
    add("http_api.listen", own, &config.http_api.listen);
    add("http_server.https.listen", config.serves_https(), &config.http_server.https.listen);
    let shared = config.shares_https_port();
    add(
        "http_api.https.listen",
        config.serves_api_https() && !shared,
        &config.http_api.https.listen,
    );
    add("exporter.listen", config.exporter.enabled, &config.exporter.listen);
    let mut lines = Vec::new();
    if shared && !config.shares_http_port() {
        lines.push(
            "http_api.https.listen and http_server.https.listen are the same, but \
             http_api.listen and http_server.listen are not; make both pairs equal, or neither"
                .into(),
        );
    }
    for (i, (name, addr)) in all.iter().enumerate() {
        for (other, with) in &all[..i] {
            if addr.overlaps(with) {
                lines.push(format!(
                    "{name} {addr} and {other} {with} are the same port; change one of them"
                ));
            }
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use crate::config::{Sources, load};

    fn with(set: &[&str]) -> Result<Vec<String>, String> {
        let set = set.iter().map(|s| s.to_string()).collect();
        load(&Sources { set, ..Sources::default() })
            .map(|loaded| loaded.warnings)
            .map_err(|errors| errors.to_string())
    }

    #[test]
    fn ports_must_differ_while_used() {
        let why = with(&["http_server.listen=1935"]).unwrap_err();
        assert_eq!(
            why,
            "--set http_server.listen: http_server.listen 1935 and listen 1935 are the same \
             port; change one of them"
        );
        assert!(with(&["listen=[\"127.0.0.1:1935\", \"127.0.0.2:1935\"]"]).is_ok());
        let off = ["http_api.listen=8080", "http_api.enabled=false"];
        assert!(with(&off).is_ok());
    }

    #[test]
    fn https_stands_beside_http() {
        let why = with(&["http_server.https.enabled=true", "http_server.enabled=false"]);
        assert!(why.unwrap_err().contains("needs http_server.enabled"));
        let why = with(&["http_api.https.enabled=true", "http_api.enabled=false"]);
        assert!(why.unwrap_err().contains("needs http_api.enabled"));
        let both = ["http_server.https.enabled=true", "http_api.https.enabled=true"];
        assert_eq!(with(&both).unwrap().len(), 0);
        let one = [&both[..], &["http_api.https.listen=8088"]].concat();
        assert!(with(&one).unwrap_err().contains("make both pairs equal"));
        let one_port = [&one[..], &["http_api.listen=8080"]].concat();
        assert_eq!(with(&one_port).unwrap().len(), 0);
        let other = [&one_port[..], &["http_api.https.cert=/x.crt"]].concat();
        assert!(with(&other).unwrap()[0].contains("are not used"));
        let why = with(&["http_server.https.enabled=true", "http_server.https.listen=1935"]);
        assert!(why.unwrap_err().contains("are the same port"));
    }

    #[test]
    fn who_may_do_what_is_checked() {
        let why = |set: &[&str]| with(set).unwrap_err();
        assert!(why(&["vhost.security.allow=[\"publish nobody\"]"]).contains("nobody"));
        assert!(why(&["vhost.exec.publish=[\"./x 'y\"]"]).contains("closing quote"));
        assert!(why(&["vhost.http_hooks.on_play=ftp://x/"]).contains("on_play must begin with"));
        assert!(why(&["vhost.http_hooks.on_play=http:///x"]).contains("with a host"));
        assert!(why(&["vhost.token.play=true"]).contains("nothing to check it with"));
        assert!(why(&["vhost.token.jwt_secret=short"]).contains("has 5 bytes"));
        assert!(why(&["heartbeat.enabled=true", "heartbeat.interval=0"]).contains("a second"));
        let short = ["vhost.token.play=true", "vhost.token.keys=abc"];
        assert!(with(&short).unwrap()[0].contains("can be guessed"));
        let good = ["vhost.token.play=true", "vhost.token.keys=0123456789abcdef"];
        assert_eq!(with(&good).unwrap().len(), 0);
        let urls = "vhost.http_hooks.on_play=http://127.0.0.1/a https://b.com:8443/c?d";
        assert_eq!(with(&[urls]).unwrap().len(), 0);
    }

    #[test]
    fn recordings_are_checked() {
        let dvr = |more: &[&str]| {
            with(&[&["vhost.dvr.enabled=true"], more].concat()).map(|warnings| warnings.len())
        };
        assert_eq!(dvr(&[]), Ok(0));
        assert!(dvr(&["vhost.dvr.dvr_path=./x/[steam].flv"]).unwrap_err().contains("[steam]"));
        assert!(dvr(&["vhost.dvr.dvr_path=./[app]/../[stream].flv"]).unwrap_err().contains(".."));
        let append = "vhost.dvr.dvr_plan=append";
        assert!(dvr(&[append, "vhost.dvr.dvr_path=./[stream].mp4"]).unwrap_err().contains("MP4"));
        assert_eq!(dvr(&[append, "vhost.dvr.dvr_path=./[stream].ts"]), Ok(0));
        assert_eq!(dvr(&[append]), Ok(1));
        let upload = |more: &[&str]| {
            let on = ["vhost.upload.enabled=true", "vhost.upload.delete_after_upload=true"];
            dvr(&[&on, more].concat())
        };
        let bucket = "vhost.upload.bucket=b";
        assert!(upload(&[]).unwrap_err().contains("upload.bucket"));
        assert_eq!(upload(&[bucket]), Ok(0));
        assert_eq!(upload(&[bucket, "vhost.upload.delete_after_upload=false"]), Ok(1));
        assert_eq!(upload(&[bucket, "vhost.upload.recordings=false"]), Ok(1));
        let segments = [bucket, "vhost.upload.segments=true"];
        for path in ["vhost.hls.hls_path=./x", "vhost.dash.dash_path=./x"] {
            assert_eq!(upload(&[&segments[..], &[path]].concat()), Ok(0), "{path}");
        }
        for (wrong, says) in [
            ("endpoint=s3.example.com", "must begin with"),
            ("endpoint=https://key:secret@s3.example.com", "password"),
            ("prefix=a/../b", ".."),
            ("segments=true", "hls_path"),
            ("timeout=0", "timeout"),
        ] {
            let why = upload(&[bucket, &format!("vhost.upload.{wrong}")]).unwrap_err();
            assert!(why.contains(says), "{wrong}: {why}");
        }
        let keep = "vhost.dvr.keep_hours=1";
        assert!(dvr(&[keep, "vhost.dvr.dvr_path=./[stream].flv"]).unwrap_err().contains("need a"));
        assert_eq!(dvr(&[keep, "vhost.dvr.dvr_path=./rec"]), Ok(0));
        assert_eq!(dvr(&[keep, "vhost.dvr.dvr_path=./[2006]-[01]-[02].ts"]), Ok(0));
    }

    #[test]
    fn doubtful_settings_warn() {
        assert!(with(&["http_server.enabled=false"]).unwrap()[0].contains("has no effect"));
        assert!(with(&["daemon=true", "asprocess=true"]).unwrap_err().contains("asprocess"));
        assert!(with(&["daemon=true"]).unwrap()[0].contains("log.tank"));
        assert!(with(&["vhost.chunk_size=70000"]).unwrap()[0].contains("some players fail"));
        assert_eq!(with(&["daemon=true", "log.tank=file"]).unwrap().len(), 0);
    }
}
