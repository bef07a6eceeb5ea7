//! What one row of the settings table is: its kind, how a written value becomes a typed one, and
//! the macro that makes the typed tree and the table from the same lines.

use std::path::PathBuf;
use std::time::Duration;

use super::access::AddressRules;
use super::command::CommandLines;
use super::types::{
    ListenAddr, MediaMemory, MwLatency, Words, parse_bytes, parse_time, show_bytes, show_time,
};
use super::{Config, Vhost};
use crate::limits::SETTING_SECONDS_MAX;

/// One setting.
pub struct Row {
    /// Dotted TOML path, for example `vhost.play.gop_cache`. It is SRS's path where SRS has one.
    pub path: &'static str,
    /// What it does, line by line.
    pub doc: &'static [&'static str],
    /// What values it takes.
    pub kind: Kind,
    /// The default as TOML text.
    pub default: &'static str,
    /// Environment variables that set it with `-e`; the first that is not empty counts.
    pub env: &'static [&'static str],
    /// Whether a running server takes a new value.
    pub reload: Reload,
    pub(super) show: fn(&Config) -> Value,
    pub(super) apply: fn(&mut Config, Value),
    /// The same on one vhost, for settings that each vhost can have its own value of.
    pub(super) of_vhost: Option<OfVhost>,
}

/// How a row below `vhost` is read from and put into one vhost.
#[derive(Clone, Copy)]
pub(super) struct OfVhost {
    pub show: fn(&Vhost) -> Value,
    pub apply: fn(&mut Vhost, Value),
}

/// A table of the configuration file with its rows, in file order.
pub struct Section {
    /// Dotted TOML path; empty for the top level.
    pub path: &'static str,
    /// What the section is about, line by line.
    pub doc: &'static [&'static str],
    /// Its settings.
    pub rows: &'static [Row],
}

/// When a changed value takes effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reload {
    /// At the next start.
    Restart,
    /// On reload, for what starts after it.
    Live,
}

/// The type, unit and range of a setting.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// `true` or `false`. In the environment `on` and `off`; anything else reads as `prefer`,
    /// which is SRS's rule for its two families of switches.
    Bool {
        /// What a word other than `on` and `off` means.
        prefer: bool,
    },
    /// A whole number within a range.
    Int {
        /// Smallest value.
        min: i64,
        /// Largest value.
        max: i64,
        /// What is counted.
        unit: &'static str,
    },
    /// A size in bytes: a number, or a text such as `"64MiB"`.
    Bytes {
        /// Smallest size.
        min: u64,
        /// Largest size.
        max: u64,
        /// A word that is accepted instead.
        word: Option<&'static str>,
    },
    /// A time: a number in the setting's unit, or a text such as `"250ms"`.
    Time {
        /// The unit of a bare number.
        unit: TimeUnit,
        /// A word that is accepted instead.
        word: Option<&'static str>,
    },
    /// A number that may have a fraction, within a range.
    Ratio {
        /// Smallest value.
        min: f64,
        /// Largest value.
        max: f64,
    },
    /// One of a few words.
    Choice(&'static [&'static str]),
    /// Any text.
    Text,
    /// A path; relative ones start at the working directory.
    Path,
    /// A list of `port`, `ip:port` or `[ip6]:port`.
    Listen,
    /// A URL path with `[vhost]`, `[app]` and `[stream]` in it.
    Mount,
    /// A list of texts without blanks, such as URLs. Blanks separate them in one text, and in SRS's
    /// grammar they are the words of one directive.
    Words,
    /// A list of texts that may have blanks, such as rules. In SRS's grammar each of them is a
    /// directive of its own that may be repeated.
    Lines,
}

/// The unit of a time that is written as a bare number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeUnit {
    /// Seconds, with fraction.
    Seconds,
    /// Milliseconds.
    Millis,
}

/// A value as it was written, before it is known what it should be.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Raw {
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    List(Vec<Raw>),
    Other(&'static str),
}

/// A checked value of a setting.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Bool(bool),
    Int(i64),
    Ratio(f64),
    Bytes(u64),
    Time(Duration),
    Text(String),
    Word(&'static str),
    Listen(Vec<ListenAddr>),
    Texts(Vec<String>),
}

impl Kind {
    /// Checks type and range. The error completes the sentence "`path` …".
    pub(super) fn check(&self, raw: &Raw) -> Result<Value, String> {
        let wrong = || Err(format!("must be {}, not {}", self.expected(), raw.describe()));
        match (*self, raw) {
            (Kind::Bool { .. }, Raw::Bool(on)) => Ok(Value::Bool(*on)),
            (Kind::Int { min, max, .. }, Raw::Int(n)) if (min..=max).contains(n) => {
                Ok(Value::Int(*n))
            }
            (Kind::Ratio { min, max }, Raw::Int(_) | Raw::Float(_)) => {
                let number = match raw {
                    Raw::Float(number) => *number,
                    Raw::Int(number) => *number as f64,
                    _ => f64::NAN,
                };
                if (min..=max).contains(&number) { Ok(Value::Ratio(number)) } else { wrong() }
            }
            (Kind::Choice(words), Raw::Text(text)) => match words.iter().find(|w| *w == text) {
                Some(word) => Ok(Value::Word(word)),
                None => wrong(),
            },
            (
                Kind::Bytes { word: Some(word), .. } | Kind::Time { word: Some(word), .. },
                Raw::Text(text),
            ) if text == word => Ok(Value::Word(word)),
            (Kind::Bytes { min, max, .. }, Raw::Int(_) | Raw::Text(_)) => {
                let bytes = match raw {
                    Raw::Int(n) => u64::try_from(*n).ok(),
                    Raw::Text(text) => parse_bytes(text),
                    _ => None,
                };
                match bytes.filter(|n| (min..=max).contains(n)) {
                    Some(n) => Ok(Value::Bytes(n)),
                    None => wrong(),
                }
            }
            (Kind::Time { unit, .. }, Raw::Int(_) | Raw::Float(_) | Raw::Text(_)) => {
                let number = |n: f64| Duration::try_from_secs_f64(n * unit.seconds()).ok();
                let time = match raw {
                    Raw::Int(n) => number(*n as f64),
                    Raw::Float(n) => number(*n),
                    Raw::Text(text) => parse_time(text),
                    _ => None,
                };
                match time.filter(|t| t.as_secs_f64() <= f64::from(SETTING_SECONDS_MAX)) {
                    Some(t) => Ok(Value::Time(t)),
                    None => wrong(),
                }
            }
            (Kind::Text | Kind::Path, Raw::Text(text)) => match text.contains('\0') {
                true => wrong(),
                false => Ok(Value::Text(text.clone())),
            },
            (Kind::Mount, Raw::Text(text)) => match mount_error(text) {
                Some(why) => Err(format!("{text:?} {why}")),
                None => Ok(Value::Text(text.clone())),
            },
            (Kind::Listen, Raw::Int(_) | Raw::Text(_) | Raw::List(_)) => listen(raw),
            (Kind::Words | Kind::Lines, Raw::Text(_) | Raw::List(_)) => {
                texts(raw, matches!(self, Kind::Words)).map_or_else(wrong, Ok)
            }
            _ => wrong(),
        }
    }

    /// What a value must be, for error texts and the reference.
    pub fn expected(&self) -> String {
        let or = |word: Option<&str>| word.map_or(String::new(), |w| format!("\"{w}\" or "));
        match *self {
            Kind::Bool { .. } => "true or false".into(),
            Kind::Int { min, max, unit } => format!("a whole number from {min} to {max} ({unit})"),
            Kind::Ratio { min, max } => format!("a number from {min} to {max}"),
            Kind::Bytes { min, max, word } => format!(
                "{}a size in bytes such as \"64MiB\", from {} to {}",
                or(word),
                show_bytes(min),
                show_bytes(max)
            ),
            Kind::Time { unit, word } => format!(
                "{}a number of {} or a text such as \"250ms\" or \"30s\", at most a week",
                or(word),
                unit.name()
            ),
            Kind::Choice(words) => {
                let quoted: Vec<_> = words.iter().map(|w| format!("{w:?}")).collect();
                format!("one of {}", quoted.join(", "))
            }
            Kind::Text => "a text".into(),
            Kind::Path => "a path".into(),
            Kind::Listen => "a port, an \"ip:port\", or a list of them".into(),
            Kind::Mount => "a path with [app] and [stream]".into(),
            Kind::Words => "a text or a list of texts without blanks".into(),
            Kind::Lines => "a text or a list of texts".into(),
        }
    }

    /// Short name of the type for the reference.
    pub fn name(&self) -> &'static str {
        match self {
            Kind::Bool { .. } => "bool",
            Kind::Int { .. } => "integer",
            Kind::Ratio { .. } => "number",
            Kind::Bytes { .. } => "size",
            Kind::Time { .. } => "time",
            Kind::Choice(_) => "choice",
            Kind::Text => "text",
            Kind::Path => "path",
            Kind::Mount => "mount",
            Kind::Listen => "addresses",
            Kind::Words | Kind::Lines => "texts",
        }
    }

    /// Unit of a bare number; empty when there is none.
    pub fn unit(&self) -> &'static str {
        match self {
            Kind::Int { unit, .. } => unit,
            Kind::Bytes { .. } => "bytes",
            Kind::Time { unit, .. } => unit.name(),
            _ => "",
        }
    }

    /// Reads a value from a place that has only text (`--set`, environment): a number, list or
    /// quoted text as in TOML where that fits, else the text as it stands.
    pub(super) fn raw_from_text(&self, text: &str) -> Raw {
        let text = text.trim();
        let toml = toml::de::DeValue::parse(text).ok().map(|v| Raw::from_toml(v.get_ref()));
        match (self, toml) {
            (Kind::Bool { .. }, _) if text == "on" => Raw::Bool(true),
            (Kind::Bool { .. }, _) if text == "off" => Raw::Bool(false),
            (_, Some(Raw::Text(quoted))) => Raw::Text(quoted),
            (Kind::Text | Kind::Path | Kind::Mount | Kind::Choice(_), _) => Raw::Text(text.into()),
            (_, Some(raw)) => raw,
            (_, None) => Raw::Text(text.into()),
        }
    }
}

/// Why a mount cannot be served; completes "mount …".
fn mount_error(mount: &str) -> Option<&'static str> {
    let path = mount.strip_prefix("[vhost]").unwrap_or(mount);
    let one = |word| path.matches(word).count() == 1;
    if !path.starts_with('/') {
        Some("must begin with \"[vhost]/\" or \"/\"")
    } else if ![".flv", ".ts", ".mp4", ".aac", ".mp3"].iter().any(|end| path.ends_with(end)) {
        Some("must end in .flv, .ts, .mp4, .aac or .mp3, which says what streams are packed in")
    } else if !one("[app]") || !one("[stream]") {
        Some("must contain [app] and [stream] once each")
    } else if path.contains(['?', '#', ' ']) {
        Some("must be a plain URL path")
    } else {
        None
    }
}

/// The texts of a list, or of one text; `None` when there is something else among them. An empty
/// text is no element, so that an empty value means an empty list.
fn texts(raw: &Raw, words: bool) -> Option<Value> {
    let mut list = Vec::new();
    let items = match raw {
        Raw::List(items) => items.as_slice(),
        one => std::slice::from_ref(one),
    };
    for item in items {
        match item {
            Raw::Text(text) if text.contains('\0') => return None,
            Raw::Text(text) if words => {
                list.extend(text.split_ascii_whitespace().map(str::to_string));
            }
            Raw::Text(text) => list.push(text.trim().to_string()),
            _ => return None,
        }
    }
    list.retain(|text| !text.is_empty());
    Some(Value::Texts(list))
}

/// Blanks separate several addresses in one text, as in SRS's environment lists.
fn listen(raw: &Raw) -> Result<Value, String> {
    let mut list = Vec::new();
    let mut add = |raw: &Raw| match raw {
        Raw::Int(n) => {
            let port = u16::try_from(*n).map_err(|_| format!("has no port {n} (0 to 65535)"))?;
            list.push(ListenAddr::Port(port));
            Ok(())
        }
        Raw::Text(text) => {
            for word in text.split_ascii_whitespace() {
                list.push(word.parse().map_err(|why| format!("is wrong: {why}"))?);
            }
            Ok(())
        }
        other => Err(format!("must be {}, not {}", Kind::Listen.expected(), other.describe())),
    };
    match raw {
        Raw::List(items) => items.iter().try_for_each(&mut add)?,
        one => add(one)?,
    }
    // A bare port is every address already; SRS needs both to serve both families.
    let ports: Vec<u16> = list.iter().filter(|addr| addr.dual_stack()).map(|a| a.port()).collect();
    list.retain(|addr| match addr {
        ListenAddr::Addr(addr) => !addr.ip().is_unspecified() || !ports.contains(&addr.port()),
        ListenAddr::Port(_) => true,
    });
    match list.is_empty() {
        true => Err("must name at least one port or address".into()),
        false => Ok(Value::Listen(list)),
    }
}

impl TimeUnit {
    fn seconds(self) -> f64 {
        match self {
            TimeUnit::Seconds => 1.0,
            TimeUnit::Millis => 1e-3,
        }
    }

    fn name(self) -> &'static str {
        match self {
            TimeUnit::Seconds => "seconds",
            TimeUnit::Millis => "milliseconds",
        }
    }
}

impl Raw {
    pub(super) fn from_toml(value: &toml::de::DeValue<'_>) -> Self {
        use toml::de::DeValue;
        match value {
            DeValue::Boolean(on) => Raw::Bool(*on),
            DeValue::String(text) => Raw::Text(text.to_string()),
            DeValue::Integer(n) => i64::from_str_radix(n.as_str(), n.radix())
                .map_or(Raw::Other("a number this large"), Raw::Int),
            DeValue::Float(n) => n.as_str().parse().map_or(Raw::Other("this number"), Raw::Float),
            DeValue::Array(items) => {
                Raw::List(items.iter().map(|item| Raw::from_toml(item.get_ref())).collect())
            }
            DeValue::Datetime(_) => Raw::Other("a date"),
            DeValue::Table(_) => Raw::Other("a table"),
        }
    }

    fn describe(&self) -> String {
        match self {
            Raw::Bool(on) => on.to_string(),
            Raw::Int(n) => n.to_string(),
            Raw::Float(n) => n.to_string(),
            Raw::Text(text) => format!("{text:?}"),
            Raw::List(_) => "a list".into(),
            Raw::Other(what) => (*what).into(),
        }
    }
}

impl Row {
    /// The row's value in `config`, as TOML text. For a setting of vhosts, the value that vhosts
    /// have unless they have their own.
    pub fn toml(&self, config: &Config) -> String {
        self.value_toml((self.show)(config))
    }

    /// The row's value on one vhost as TOML text; `None` when vhosts do not have the setting.
    pub fn vhost_toml(&self, vhost: &Vhost) -> Option<String> {
        self.of_vhost.map(|of| self.value_toml((of.show)(vhost)))
    }

    fn value_toml(&self, value: Value) -> String {
        let quoted = |text: &str| toml::Value::String(text.into()).to_string();
        match value {
            Value::Bool(on) => on.to_string(),
            Value::Int(n) => n.to_string(),
            Value::Ratio(n) => format!("{n:?}"),
            Value::Bytes(n) => match show_bytes(n) {
                text if text.bytes().all(|c| c.is_ascii_digit()) => text,
                text => quoted(&text),
            },
            Value::Time(time) => self.time_toml(time),
            Value::Text(text) => quoted(&text),
            Value::Word(word) => quoted(word),
            Value::Listen(list) => {
                let items: Vec<_> = list.iter().map(|a| quoted(&a.to_string())).collect();
                format!("[{}]", items.join(", "))
            }
            Value::Texts(list) => {
                let items: Vec<_> = list.iter().map(|text| quoted(text)).collect();
                format!("[{}]", items.join(", "))
            }
        }
    }

    fn time_toml(&self, time: Duration) -> String {
        match self.kind {
            Kind::Time { unit: TimeUnit::Seconds, .. } if time.subsec_nanos() == 0 => {
                time.as_secs().to_string()
            }
            Kind::Time { unit: TimeUnit::Millis, .. } => time.as_millis().to_string(),
            _ => format!("{:?}", show_time(time)),
        }
    }

    /// Checks a written value. The error names the setting.
    pub(super) fn value(&self, raw: &Raw) -> Result<Value, String> {
        self.kind.check(raw).map_err(|why| format!("{} {why}", self.path))
    }

    /// True when the value must not stand in a log.
    pub fn is_secret(&self) -> bool {
        let key = self.path.rsplit('.').next().unwrap_or(self.path);
        let words = ["password", "passphrase", "secret", "token", "keys"];
        words.iter().any(|word| key.contains(word))
    }
}

/// A type that a field of the tree can have.
pub(super) trait Field: Sized {
    /// Takes a value of the field's own kind. Another kind is a mistake in the table, which the
    /// tests find because they load every default.
    fn from_value(value: Value) -> Self;
    fn to_value(&self) -> Value;
}

/// The default of a field, from its row.
pub(super) fn initial<T: Field>(kind: Kind, default: &str) -> T {
    match kind.check(&kind.raw_from_text(default)) {
        Ok(value) => T::from_value(value),
        Err(why) => panic!("the default {default} of a setting is wrong: it {why}"),
    }
}

macro_rules! field {
    ($type:ty: $value:pat => $from:expr, $this:ident => $to:expr) => {
        impl Field for $type {
            fn from_value(value: Value) -> Self {
                match value {
                    $value => $from,
                    other => panic!("a row's kind does not fit its field: {other:?}"),
                }
            }

            fn to_value(&self) -> Value {
                let $this = self;
                $to
            }
        }
    };
}

field!(bool: Value::Bool(on) => on, this => Value::Bool(*this));
field!(u16: Value::Int(n) => n as u16, this => Value::Int((*this).into()));
field!(u32: Value::Int(n) => n as u32, this => Value::Int((*this).into()));
field!(f64: Value::Ratio(n) => n, this => Value::Ratio(*this));
field!(u64: Value::Bytes(n) => n, this => Value::Bytes(*this));
field!(Duration: Value::Time(time) => time, this => Value::Time(*this));
field!(String: Value::Text(text) => text, this => Value::Text(this.clone()));
field!(PathBuf: Value::Text(text) => text.into(),
    this => Value::Text(this.to_string_lossy().into_owned()));
field!(Vec<ListenAddr>: Value::Listen(list) => list, this => Value::Listen(this.clone()));
field!(Vec<String>: Value::Texts(list) => list, this => Value::Texts(this.clone()));
field!(AddressRules: Value::Texts(list) => AddressRules::read(list),
    this => Value::Texts(this.texts()));
field!(CommandLines: Value::Texts(list) => CommandLines::read(list),
    this => Value::Texts(this.texts()));

impl Field for MwLatency {
    fn from_value(value: Value) -> Self {
        match value {
            Value::Time(time) => Self::Fixed(time),
            _ => Self::Adaptive,
        }
    }

    fn to_value(&self) -> Value {
        match self {
            Self::Fixed(time) => Value::Time(*time),
            Self::Adaptive => Value::Word("adaptive"),
        }
    }
}

impl Field for MediaMemory {
    fn from_value(value: Value) -> Self {
        match value {
            Value::Bytes(n) => Self::Bytes(n),
            _ => Self::Auto,
        }
    }

    fn to_value(&self) -> Value {
        match self {
            Self::Bytes(n) => Value::Bytes(*n),
            Self::Auto => Value::Word("auto"),
        }
    }
}

impl<T: Words + PartialEq> Field for T {
    fn from_value(value: Value) -> Self {
        let found = |word| T::WORDS.iter().find(|(w, _)| *w == word);
        match value {
            Value::Word(word) if found(word).is_some() => found(word).expect("just found").1,
            other => panic!("a row's kind does not fit its field: {other:?}"),
        }
    }

    fn to_value(&self) -> Value {
        let (word, _) = T::WORDS.iter().find(|(_, v)| v == self).expect("every variant has a word");
        Value::Word(word)
    }
}

/// Makes the structs of the tree, their defaults and the table `SECTIONS` from one list.
macro_rules! settings {
    ($(
        $(#[doc = $doc:literal])+
        $section:ident at $path:tt {
            $(#[doc = $subdoc:literal] $sub:ident: $subtype:ty,)*
            $(---
                $(#[doc = $rowdoc:literal])+
                $field:ident: $type:ty = $default:literal, $kind:expr, $env:expr, $reload:ident;
            )+
        }
    )+) => {
        $(
            $(#[doc = $doc])+
            #[derive(Clone, Debug, PartialEq)]
            pub struct $section {
                $(#[doc = $subdoc] pub $sub: $subtype,)*
                $($(#[doc = $rowdoc])+ pub $field: $type,)+
            }

            impl Default for $section {
                fn default() -> Self {
                    Self {
                        $($sub: <$subtype>::default(),)*
                        $($field: $crate::config::row::initial($kind, $default),)+
                    }
                }
            }
        )+

        /// The settings, section by section, in the order of the configuration file.
        pub static SECTIONS: &[$crate::config::row::Section] = &[$(
            $crate::config::row::Section {
                path: settings!(@path $path),
                doc: &[$($doc),+],
                rows: &[$(
                    $crate::config::row::Row {
                        path: settings!(@path $path $field),
                        doc: &[$($rowdoc),+],
                        kind: $kind,
                        default: $default,
                        env: &$env,
                        reload: $crate::config::row::Reload::$reload,
                        show: |config| {
                            let field = settings!(@ref config $path $field);
                            $crate::config::row::Field::to_value(field)
                        },
                        apply: |config, value| {
                            *settings!(@mut config $path $field) =
                                $crate::config::row::Field::from_value(value);
                        },
                        of_vhost: settings!(@of_vhost $path $field),
                    },
                )+],
            },
        )+];
    };
    (@path []) => { "" };
    (@path [] $field:ident) => { stringify!($field) };
    (@path [$first:ident $(.$more:ident)*]) => {
        concat!(stringify!($first) $(, ".", stringify!($more))*)
    };
    (@path [$($seg:ident).+] $field:ident) => {
        concat!($(stringify!($seg), ".",)+ stringify!($field))
    };
    (@of_vhost [vhost $(.$seg:ident)*] $field:ident) => {
        Some($crate::config::row::OfVhost {
            show: |vhost| $crate::config::row::Field::to_value(&vhost$(.$seg)*.$field),
            apply: |vhost, value| {
                vhost$(.$seg)*.$field = $crate::config::row::Field::from_value(value);
            },
        })
    };
    (@of_vhost $path:tt $field:ident) => { None };
    (@ref $config:ident [$($seg:ident).*] $field:ident) => { &$config$(.$seg)*.$field };
    (@mut $config:ident [$($seg:ident).*] $field:ident) => { &mut $config$(.$seg)*.$field };
}
pub(super) use settings;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_checked() {
        for good in ["[vhost]/[app]/[stream].flv", "/[app]/[stream].flv", "/x/[app]/[stream].ts"] {
            assert_eq!(mount_error(good), None, "{good}");
        }
        for bad in ["", "[app]/[stream].flv", "/[app]/[stream].m3u8", "/[app]/x.flv", "host/[app]"]
        {
            assert!(mount_error(bad).is_some(), "{bad}");
        }
        let why = Kind::Mount.check(&Raw::Text("/x".into())).unwrap_err();
        assert!(why.contains("must end in .flv"), "{why}");
    }

    #[test]
    fn a_port_stands_for_all_its_addresses() {
        let list = |text: &str| match Kind::Listen.check(&Raw::Text(text.into())).unwrap() {
            Value::Listen(list) => list.iter().map(ToString::to_string).collect::<Vec<_>>(),
            other => panic!("{other:?}"),
        };
        assert_eq!(list("1935 [::]:1935 0.0.0.0:1935 127.0.0.1:1935"), ["1935", "127.0.0.1:1935"]);
        assert_eq!(list("1936 [::]:1935 0.0.0.0:1935"), ["1936", "[::]:1935", "0.0.0.0:1935"]);
    }

    #[test]
    fn lists_of_texts() {
        let list = |kind: Kind, raw: &Raw| {
            kind.check(raw).map(|value| match value {
                Value::Texts(list) => list,
                other => panic!("{other:?}"),
            })
        };
        let two = Raw::List(vec![Raw::Text("a b".into()), Raw::Text(" c ".into())]);
        assert_eq!(list(Kind::Words, &two).unwrap(), ["a", "b", "c"]);
        assert_eq!(list(Kind::Lines, &two).unwrap(), ["a b", "c"]);
        assert!(list(Kind::Lines, &Raw::Text(String::new())).unwrap().is_empty());
        assert!(list(Kind::Words, &Raw::List(vec![Raw::Int(3)])).is_err());
        let from_text = Kind::Words.raw_from_text("[\"x\", \"y\"]");
        assert_eq!(list(Kind::Words, &from_text).unwrap(), ["x", "y"]);
    }
}
