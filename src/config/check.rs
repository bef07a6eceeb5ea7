//! Rules across settings: what each row cannot see alone.

use super::{Config, ConfigError, ListenAddr, LogTank, Vhost};

/// Largest chunk size that old clients are known to cope with, in bytes.
const CHUNK_SIZE_USUAL: u32 = 65_536;

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
    if config.daemon && config.asprocess {
        errors.push(ConfigError::Together(
            "daemon and asprocess cannot both be on: in the background the parent is always gone"
                .into(),
        ));
    }
    let auth = &config.http_api.auth;
    if auth.enabled && (auth.username.is_empty() || auth.password.is_empty()) {
        errors.push(ConfigError::Together(
            "http_api.auth.enabled needs http_api.auth.username and http_api.auth.password; set \
             both, there is no default secret"
                .into(),
        ));
    }
    if config.daemon && config.log.tank == LogTank::Console {
        warnings.push(
            "daemon is on and log.tank is \"console\": the log is lost once the server is in the \
             background; set log.tank to \"file\""
                .into(),
        );
    }
    let large = config.all_vhosts().map(|(_, vhost)| vhost.chunk_size).max().unwrap_or(0);
    if large > CHUNK_SIZE_USUAL {
        warnings.push(format!(
            "vhost.chunk_size {large} is more than {CHUNK_SIZE_USUAL}; some players fail on that"
        ));
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
    add("http_api.listen", config.http_api.enabled, &config.http_api.listen);
    let mut lines = Vec::new();
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
            "http_server.listen 1935 and listen 1935 are the same port; change one of them"
        );
        assert!(with(&["listen=[\"127.0.0.1:1935\", \"127.0.0.2:1935\"]"]).is_ok());
        let off = ["http_api.listen=8080", "http_api.enabled=false"];
        assert!(with(&off).is_ok());
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
