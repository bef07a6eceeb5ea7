//! Names, URLs and the configuration.

use ringcast::config;
use ringcast::limits::{NAME_APP_MAX, NAME_STREAM_MAX};
use ringcast::media::name::StreamName;
use ringcast::proto::rtmp::url::Url;

/// A tcUrl, a line end, a stream as play and publish name it.
pub fn names(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (tc_url, stream) = text.split_once('\n').unwrap_or((&text, ""));
    let Ok(url) = Url::parse(tc_url, stream) else { return };
    let Ok(name) = url.name(&url.vhost) else { return };
    check(&name);
    // A name that was taken once is taken always.
    let again = StreamName::new(name.vhost(), name.app(), name.stream());
    assert_eq!(again.as_ref(), Ok(&name));
}

fn check(name: &StreamName) {
    assert!(name.app().len() <= NAME_APP_MAX && name.stream().len() <= NAME_STREAM_MAX);
    for part in [name.vhost(), name.app(), name.stream()] {
        assert!(!part.is_empty());
        assert!(!part.split('/').any(|level| level == ".." || level == "."), "{part:?}");
        assert!(!part.starts_with('/') && !part.contains("//"), "{part:?}");
        assert!(!part.chars().any(char::is_control), "{part:?}");
        assert!(!part.contains(['<', '>', '"', '\'', '\\', '?', '#', '%', '&']), "{part:?}");
    }
}

/// A configuration file in SRS's grammar. What `ringcast import` makes of it means the same.
pub fn srs_config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match config::load_text("fuzz.conf", text) {
        Ok(loaded) => {
            let imported = config::to_short_toml(&loaded.config);
            let again = config::load_text("imported.toml", &imported);
            let again = again.unwrap_or_else(|errors| panic!("{errors}\n{imported}"));
            assert_eq!(config::to_toml(&loaded.config), config::to_toml(&again.config));
        }
        Err(errors) => assert!(!errors.0.is_empty() && !errors.to_string().is_empty()),
    }
}

/// A configuration file.
pub fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match config::load_text("fuzz.toml", text) {
        Ok(loaded) => {
            // What is printed is what was read.
            let printed = config::to_toml(&loaded.config);
            let again = config::load_text("printed.toml", &printed);
            let again = again.unwrap_or_else(|errors| panic!("{errors}\n{printed}"));
            assert_eq!(printed, config::to_toml(&again.config));
            let _ = config::to_json(&loaded.config);
        }
        Err(errors) => {
            assert!(!errors.0.is_empty());
            assert!(!errors.to_string().is_empty());
        }
    }
}
