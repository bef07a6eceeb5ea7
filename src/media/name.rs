//! The one grammar of stream names, shared by all protocols.
//!
//! A stream is named by a vhost, an app of one or more levels, and a stream name. Whatever the
//! protocol, a name passes here before it becomes a key, a path, a header or a log field, so none
//! of those needs escaping of its own. The grammar is generous with letters of all scripts and
//! strict with everything that means something to a file system, a shell, HTML, a URL or a
//! terminal.
//!
//! This module knows neither URLs nor which vhosts exist; the parts arrive decoded and resolved.

use std::fmt;
use std::hash::{Hash, Hasher};

use crate::limits::{NAME_APP_LEVELS_MAX, NAME_APP_MAX, NAME_STREAM_MAX, NAME_VHOST_MAX};

/// The vhost of everything that no other vhost claims.
pub const DEFAULT_VHOST: &str = "__defaultVhost__";

/// A part of a stream's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Part {
    /// The configuration scope.
    Vhost,
    /// One or more levels, separated by `/`.
    App,
    /// What the publisher calls the stream; one level, without parameters.
    Stream,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Part::Vhost => "vhost",
            Part::App => "app",
            Part::Stream => "stream",
        })
    }
}

/// What is wrong with a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The part, or a level of it, has no characters.
    #[error("{0} name is empty or has an empty level")]
    Empty(Part),
    /// The part has more bytes than its limit.
    #[error("{0} name of {1} bytes is longer than {2}")]
    TooLong(Part, usize, usize),
    /// The app has more levels than its limit.
    #[error("app name has more than {NAME_APP_LEVELS_MAX} levels")]
    TooManyLevels,
    /// The part has a character that names do not have.
    #[error("{0} name has the character {1:?}")]
    Character(Part, char),
    /// The part, or a level of it, begins with a dot.
    #[error("{0} name begins with a dot")]
    LeadingDot(Part),
    /// The part, or a level of it, begins with a hyphen, which programs take for an option.
    #[error("{0} name begins with a hyphen")]
    LeadingHyphen(Part),
}

impl NameError {
    /// The label of the error in counters.
    pub fn reason(&self) -> &'static str {
        match self {
            NameError::Empty(_) => "name_empty",
            NameError::TooLong(..) => "name_too_long",
            NameError::TooManyLevels => "name_too_many_levels",
            NameError::Character(..) => "name_character",
            NameError::LeadingDot(_) => "name_leading_dot",
            NameError::LeadingHyphen(_) => "name_leading_hyphen",
        }
    }
}

/// Checks one part against the grammar.
///
/// # Errors
/// The first thing that is wrong with it.
pub fn check(part: Part, text: &str) -> Result<(), NameError> {
    let max = match part {
        Part::Vhost => NAME_VHOST_MAX,
        Part::App => NAME_APP_MAX,
        Part::Stream => NAME_STREAM_MAX,
    };
    if text.len() > max {
        return Err(NameError::TooLong(part, text.len(), max));
    }
    if part != Part::App {
        return check_level(part, text);
    }
    for (index, level) in text.split('/').enumerate() {
        if index == NAME_APP_LEVELS_MAX {
            return Err(NameError::TooManyLevels);
        }
        check_level(part, level)?;
    }
    Ok(())
}

fn check_level(part: Part, level: &str) -> Result<(), NameError> {
    match level.as_bytes().first() {
        None => return Err(NameError::Empty(part)),
        // Hidden files, and with them `.` and `..`.
        Some(b'.') => return Err(NameError::LeadingDot(part)),
        Some(b'-') => return Err(NameError::LeadingHyphen(part)),
        Some(_) => {}
    }
    match level.chars().find(|&c| !allowed(part, c)) {
        Some(c) => Err(NameError::Character(part, c)),
        None => Ok(()),
    }
}

fn allowed(part: Part, c: char) -> bool {
    if c.is_ascii() {
        return match part {
            // An IPv6 address is a vhost when a client names no other.
            Part::Vhost => c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':'),
            // No percent sign: `%00` and `%2e` must not wake up in a later decoding step.
            Part::App | Part::Stream => {
                c.is_ascii_alphanumeric()
                    || matches!(c, '.' | '-' | '_' | '~' | '+' | '=' | '@')
                    || matches!(c, ',' | ':' | '!' | '(' | ')')
            }
        };
    }
    !c.is_control() && !c.is_whitespace() && !invisible(c)
}

/// Characters that change how others are shown, or show as nothing: two names that look alike must
/// not be two streams, and no name may rewrite a log line.
fn invisible(c: char) -> bool {
    matches!(u32::from(c),
        0x00AD                  // soft hyphen
        | 0x034F | 0x061C       // grapheme joiner, Arabic letter mark
        | 0x115F | 0x1160 | 0x17B4 | 0x17B5 | 0x3164 | 0xFFA0 // fillers
        | 0x180B..=0x180F       // Mongolian variation selectors
        | 0x200B..=0x200F       // zero width, direction marks
        | 0x2028..=0x202E       // separators, direction overrides
        | 0x2060..=0x206F       // joiners, direction isolates
        | 0xFE00..=0xFE0F       // variation selectors
        | 0xFEFF                // byte order mark
        | 0xFFF0..=0xFFFF       // specials, with the mark of bytes that were not UTF-8
        | 0xE000..=0xF8FF       // private use
        | 0xE0000..             // tags, private planes
        // Fullwidth twins of what the ASCII rules forbid.
        | 0xFF0F | 0xFF3C | 0xFF05 | 0xFF1C | 0xFF1E | 0xFF02 | 0xFF07
    )
}

/// The name of a stream; every part has passed the grammar.
///
/// Two names are equal when they mean the same stream: the last extension of the stream part does
/// not count, so `live/a.flv` is `live/a`. (SRS: the same rule makes the identity of a source.)
#[derive(Debug, Clone)]
pub struct StreamName {
    /// `vhost/app/stream`, in one allocation.
    full: Box<str>,
    app_at: u16,
    stream_at: u16,
    key_end: u16,
}

impl StreamName {
    /// Checks the parts and joins them.
    ///
    /// # Errors
    /// The first thing that is wrong, vhost first.
    pub fn new(vhost: &str, app: &str, stream: &str) -> Result<StreamName, NameError> {
        check(Part::Vhost, vhost)?;
        check(Part::App, app)?;
        check(Part::Stream, stream)?;
        let app_at = vhost.len() + 1;
        let stream_at = app_at + app.len() + 1;
        // A leading dot is refused above, so what stands before the last dot is never empty.
        let key_end = stream_at + stream.rfind('.').unwrap_or(stream.len());
        // All offsets fit: the parts are bounded by limits far below 65,536 bytes.
        Ok(StreamName {
            full: format!("{vhost}/{app}/{stream}").into_boxed_str(),
            app_at: app_at as u16,
            stream_at: stream_at as u16,
            key_end: key_end as u16,
        })
    }

    /// The vhost.
    pub fn vhost(&self) -> &str {
        &self.full[..usize::from(self.app_at) - 1]
    }

    /// The app, levels separated by `/`.
    pub fn app(&self) -> &str {
        &self.full[usize::from(self.app_at)..usize::from(self.stream_at) - 1]
    }

    /// The stream as its client calls it, with an extension if it has one.
    pub fn stream(&self) -> &str {
        &self.full[usize::from(self.stream_at)..]
    }

    /// What equality goes by: `vhost/app/stream` without the stream's last extension.
    pub fn key(&self) -> &str {
        &self.full[..usize::from(self.key_end)]
    }

    /// The name as people and APIs know it: `/app/stream` on the default vhost, else
    /// `vhost/app/stream`, without the stream's last extension.
    pub fn url(&self) -> &str {
        match self.vhost() {
            DEFAULT_VHOST => &self.key()[DEFAULT_VHOST.len()..],
            _ => self.key(),
        }
    }
}

impl PartialEq for StreamName {
    fn eq(&self, other: &StreamName) -> bool {
        self.key() == other.key()
    }
}

impl Eq for StreamName {}

impl Hash for StreamName {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key().hash(state);
    }
}

impl fmt::Display for StreamName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.url())
    }
}

const _: () = assert!(NAME_VHOST_MAX + NAME_APP_MAX + NAME_STREAM_MAX + 2 <= u16::MAX as usize);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_knows_its_parts() {
        let name = StreamName::new("ossrs.io", "live/hd", "cam 1.flv".replace(' ', "").as_str());
        let name = name.unwrap();
        assert_eq!((name.vhost(), name.app(), name.stream()), ("ossrs.io", "live/hd", "cam1.flv"));
        assert_eq!(name.key(), "ossrs.io/live/hd/cam1");
        assert_eq!(name.url(), "ossrs.io/live/hd/cam1");
        let default = StreamName::new(DEFAULT_VHOST, "live", "livestream").unwrap();
        assert_eq!(default.to_string(), "/live/livestream");
    }

    #[test]
    fn an_extension_does_not_make_another_stream() {
        let name = |stream| StreamName::new("v", "live", stream).unwrap();
        assert_eq!(name("a.flv"), name("a"));
        assert_eq!(name("a.b.flv").key(), "v/live/a.b");
        assert_ne!(name("a.b"), name("b"));
        assert_ne!(StreamName::new("v", "live/a", "b").unwrap(), name("b"));
    }

    #[test]
    fn letters_of_all_scripts_are_welcome() {
        for text in [
            "livestream",
            "Livestream_01-hd",
            "直播",
            "трансляция",
            "हिन्दी",
            "بث",
            "ไลฟ์",
            "📺",
            "a=b+c@d",
        ] {
            assert_eq!(check(Part::Stream, text), Ok(()), "{text}");
            assert_eq!(check(Part::App, text), Ok(()), "{text}");
        }
        for text in ["__defaultVhost__", "ossrs.io", "127.0.0.1", "::1", "直播.中国"] {
            assert_eq!(check(Part::Vhost, text), Ok(()), "{text}");
        }
        assert_eq!(check(Part::App, "a/b/c"), Ok(()));
    }

    #[test]
    fn dangerous_characters_are_named() {
        for c in [
            '\0', '\r', '\n', '\t', ' ', '\\', '%', '<', '>', '"', '\'', '`', '$', '&', ';', '|',
            '*',
        ]
        .into_iter()
        .chain(['?', '#', '[', ']', '{', '}', '\u{7f}', '\u{85}', '\u{a0}', '\u{200b}', '\u{202e}'])
        .chain(['\u{2028}', '\u{feff}', '\u{fffd}', '\u{ff0f}', '\u{e0001}'])
        {
            for part in [Part::Vhost, Part::App, Part::Stream] {
                let error = check(part, &format!("a{c}b"));
                assert_eq!(error, Err(NameError::Character(part, c)), "{part} {c:?}");
            }
        }
        assert_eq!(check(Part::Stream, "a/b"), Err(NameError::Character(Part::Stream, '/')));
        assert_eq!(check(Part::Vhost, "a/b"), Err(NameError::Character(Part::Vhost, '/')));
    }

    #[test]
    fn paths_cannot_climb() {
        for text in ["..", ".", ".hidden", "..%2f", "...", "../a"] {
            assert_eq!(
                check(Part::Stream, text),
                Err(NameError::LeadingDot(Part::Stream)),
                "{text}"
            );
        }
        for text in ["a/..", "a/../b", "a/./b", ".git/x"] {
            assert_eq!(check(Part::App, text), Err(NameError::LeadingDot(Part::App)), "{text}");
        }
        for text in ["", "/", "a/", "/a", "a//b"] {
            assert_eq!(check(Part::App, text), Err(NameError::Empty(Part::App)), "{text}");
        }
        assert_eq!(check(Part::Stream, "-rf"), Err(NameError::LeadingHyphen(Part::Stream)));
    }

    #[test]
    fn length_and_levels_are_bounded() {
        assert_eq!(check(Part::Stream, &"a".repeat(NAME_STREAM_MAX)), Ok(()));
        let long = "a".repeat(64 << 10);
        assert_eq!(
            check(Part::Stream, &long),
            Err(NameError::TooLong(Part::Stream, 64 << 10, NAME_STREAM_MAX))
        );
        assert!(matches!(check(Part::Vhost, &long), Err(NameError::TooLong(..))));
        assert!(matches!(check(Part::App, &long), Err(NameError::TooLong(..))));
        assert_eq!(check(Part::App, &["a"; NAME_APP_LEVELS_MAX].join("/")), Ok(()));
        assert_eq!(
            check(Part::App, &["a"; NAME_APP_LEVELS_MAX + 1].join("/")),
            Err(NameError::TooManyLevels)
        );
    }

    #[test]
    fn errors_read_well() {
        let text = check(Part::Stream, "a\0").unwrap_err().to_string();
        assert_eq!(text, "stream name has the character '\\0'");
        let text = check(Part::Vhost, "").unwrap_err().to_string();
        assert_eq!(text, "vhost name is empty or has an empty level");
    }
}
