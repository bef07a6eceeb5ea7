//! Pointing from a rule across settings to the lines that break it.

use std::collections::HashMap;

/// Where each setting was given last, by vhost and path.
pub(super) type Places = HashMap<(Option<String>, &'static str), String>;

/// Puts the places of the settings that a text names into it: the first one in front, as in all
/// errors about a line, the others behind. What nobody has set has no place.
pub(super) fn point_out(text: &mut String, places: &Places) {
    let mut found: Vec<(String, &str)> = Vec::new();
    for word in words(text) {
        let Some(place) = place_of(word, places) else { continue };
        if found.iter().all(|(_, other)| *other != place) {
            found.push((word.into(), place));
        }
    }
    let mut found = found.into_iter();
    let Some((_, first)) = found.next() else { return };
    let mut pointed = format!("{first}: {text}");
    for (word, place) in found {
        pointed.push_str(&format!(" ({word}: {place})"));
    }
    *text = pointed;
}

/// The words of a text that may be the path of a setting. A vhost's name in quotes is part of it.
fn words(text: &str) -> impl Iterator<Item = &str> {
    let part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '"' | '-' | ':');
    text.split(move |c| !part(c)).map(|word| word.trim_end_matches(['.', ':']))
}

fn place_of<'p>(word: &str, places: &'p Places) -> Option<&'p str> {
    let at = |vhost: Option<&str>, path: &str| {
        let mut all = places.iter();
        all.find(|((v, p), _)| v.as_deref() == vhost && *p == path).map(|(_, at)| at.as_str())
    };
    let Some((name, inside)) = word.strip_prefix("vhost.\"").and_then(|rest| rest.split_once('"'))
    else {
        return at(None, word);
    };
    let path = format!("vhost{inside}");
    at(Some(name), &path).or_else(|| at(None, &path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_found_by_their_path() {
        let places = Places::from([
            ((None, "daemon"), "x.toml:1".into()),
            ((None, "log.tank"), "SRS_LOG_TANK".into()),
            ((Some("a.com".into()), "vhost.play.atc"), "x.toml:7".into()),
            ((None, "vhost.chunk_size"), "x.toml:9".into()),
        ]);
        let pointed = |text: &str| {
            let mut text = text.to_string();
            point_out(&mut text, &places);
            text
        };
        assert_eq!(
            pointed("daemon is on and log.tank is set; set log.tank."),
            "x.toml:1: daemon is on and log.tank is set; set log.tank. (log.tank: SRS_LOG_TANK)"
        );
        assert_eq!(
            pointed("vhost.\"a.com\".play.atc: no, vhost.\"a.com\".chunk_size too"),
            "x.toml:7: vhost.\"a.com\".play.atc: no, vhost.\"a.com\".chunk_size too \
             (vhost.\"a.com\".chunk_size: x.toml:9)"
        );
        assert_eq!(pointed("asprocess is a daemon_like thing"), "asprocess is a daemon_like thing");
    }
}
