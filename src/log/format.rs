//! What a line looks like: SRS's form for people and their tools, or JSON.
//!
//! `[2026-11-22 15:34:54.183][INFO][4711][a2b3c4d5] publish stream=live/one`: time (UTC), level,
//! process, session. Lines about no session have `-` there. Warnings and errors
//! have their reason in one more pair of brackets; `ringcast explain` and the page `/errors/` say
//! more about it.

use std::fmt::{self, Write as _};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::date;

/// How lines are written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lines {
    /// JSON, one object per line, instead of text.
    pub json: bool,
    /// Warnings in yellow and errors in red, as a whole.
    pub colour: bool,
    /// Name the module that speaks.
    pub target: bool,
}

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut said = Said::default();
        event.record(&mut said);
        let level = *event.metadata().level();
        let target = self.target.then(|| event.metadata().target());
        writer.write_str(&self.line(SystemTime::now(), level, target, &said))
    }
}

/// What an event says.
#[derive(Debug, Default)]
pub(super) struct Said {
    message: String,
    /// The session.
    id: Option<String>,
    /// What `ringcast explain` knows it by.
    reason: Option<String>,
    fields: Vec<(&'static str, Value)>,
}

impl Said {
    /// A line of the log's own.
    pub fn new(message: String, reason: &str, field: &'static str, value: u64) -> Said {
        let fields = vec![(field, value.into())];
        Said { message, reason: Some(reason.into()), fields, ..Said::default() }
    }
}

impl Lines {
    /// One line with its end.
    pub fn line(
        &self,
        time: SystemTime,
        level: Level,
        target: Option<&str>,
        said: &Said,
    ) -> String {
        if self.json {
            return json(time, level, target, said);
        }
        let mut line = String::with_capacity(160);
        let pid = std::process::id();
        let id = said.id.as_deref().unwrap_or("-");
        // Writing into a string cannot fail.
        let time = date::text(wall_ms(time), ' ');
        let _ = write!(line, "[{time}][{level}][{pid}][{id}]");
        if let (Some(reason), Level::WARN | Level::ERROR) = (&said.reason, level) {
            let _ = write!(line, "[{reason}]");
        }
        line.push(' ');
        if let Some(target) = target {
            let _ = write!(line, "{target}: ");
        }
        line.push_str(&said.message);
        for (name, value) in &said.fields {
            let _ = match value {
                // Plain words stand as they are; what has blanks in it has an end in quotes.
                Value::String(text) if is_plain(text) => write!(line, " {name}={text}"),
                Value::String(text) => write!(line, " {name}={text:?}"),
                other => write!(line, " {name}={other}"),
            };
        }
        if let (Some(reason), Level::INFO | Level::DEBUG | Level::TRACE) = (&said.reason, level) {
            let _ = write!(line, " reason={reason}");
        }
        let mut line = one_line(line);
        match (self.colour, level) {
            (true, Level::ERROR) => line = format!("\u{1b}[31m{line}\u{1b}[0m"),
            (true, Level::WARN) => line = format!("\u{1b}[33m{line}\u{1b}[0m"),
            _ => {}
        }
        line.push('\n');
        line
    }
}

fn json(time: SystemTime, level: Level, target: Option<&str>, said: &Said) -> String {
    let mut object = Map::new();
    object.insert("time".into(), format!("{}Z", date::text(wall_ms(time), 'T')).into());
    object.insert("level".into(), level.as_str().into());
    object.insert("pid".into(), std::process::id().into());
    for (name, value) in [("id", &said.id), ("reason", &said.reason)] {
        if let Some(value) = value {
            object.insert(name.into(), value.as_str().into());
        }
    }
    if let Some(target) = target {
        object.insert("target".into(), target.into());
    }
    object.insert("message".into(), said.message.as_str().into());
    for (name, value) in &said.fields {
        object.insert((*name).into(), value.clone());
    }
    format!("{}\n", Value::Object(object))
}

/// Control characters are written out: whatever a peer calls its stream, it is one line, and a
/// terminal stays as it is.
fn one_line(line: String) -> String {
    if !line.chars().any(char::is_control) {
        return line;
    }
    let mut out = String::with_capacity(line.len() + 16);
    for c in line.chars() {
        match c.is_control() {
            true => out.extend(c.escape_default()),
            false => out.push(c),
        }
    }
    out
}

fn is_plain(text: &str) -> bool {
    let ends = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '"' | '=');
    !text.is_empty() && !text.contains(ends)
}

impl Visit for Said {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.take(field.name(), format!("{value:?}").into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.take(field.name(), value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.take(field.name(), value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.take(field.name(), value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        // Times in seconds: what is behind the milliseconds helps nobody.
        self.take(field.name(), ((value * 1000.0).round() / 1000.0).into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.take(field.name(), value.into());
    }
}

impl Said {
    fn take(&mut self, name: &'static str, value: Value) {
        let text = |value: Value| match value {
            Value::String(text) => text,
            other => other.to_string(),
        };
        match name {
            "message" => self.message = text(value),
            "id" => self.id = Some(text(value)),
            "reason" => self.reason = Some(text(value)),
            name => self.fields.push((name, value)),
        }
    }
}

/// Milliseconds since 1970.
fn wall_ms(time: SystemTime) -> i64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const PLAIN: Lines = Lines { json: false, colour: false, target: false };

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(seconds * 1000 + 7)
    }

    fn said(fields: &[(&'static str, Value)]) -> Said {
        let mut said = Said::default();
        for (name, value) in fields {
            said.take(name, value.clone());
        }
        said
    }

    #[test]
    fn lines_have_the_form_of_srs() {
        let pid = std::process::id();
        let said = said(&[
            ("message", "publish".into()),
            ("id", "a2b3c4d5".into()),
            ("stream", "live/one".into()),
            ("detail", "two words".into()),
            ("counts", "a=1".into()),
            ("bytes", 7.into()),
            ("reason", "stream_busy".into()),
        ]);
        let line = |level| PLAIN.line(at(0), level, None, &said);
        let head = "[1970-01-01 00:00:00.007]";
        let tail = "publish stream=live/one detail=\"two words\" counts=\"a=1\" bytes=7";
        assert_eq!(
            line(Level::INFO),
            format!("{head}[INFO][{pid}][a2b3c4d5] {tail} reason=stream_busy\n")
        );
        assert_eq!(
            line(Level::WARN),
            format!("{head}[WARN][{pid}][a2b3c4d5][stream_busy] {tail}\n")
        );
        let colour = Lines { colour: true, target: true, ..PLAIN };
        let text = Said::new("x".into(), "bug", "n", 1);
        let line = colour.line(at(0), Level::ERROR, Some("a::b"), &text);
        assert_eq!(line, format!("\u{1b}[31m{head}[ERROR][{pid}][-][bug] a::b: x n=1\u{1b}[0m\n"));
    }

    #[test]
    fn nothing_breaks_out_of_its_line() {
        let said = said(&[
            ("message", "one\ntwo \u{1b}[2J".into()),
            ("path", "a\r\n[ERROR] b".into()),
            ("id", "x\ny".into()),
        ]);
        let text = PLAIN.line(at(0), Level::INFO, None, &said);
        assert_eq!(text.chars().filter(|c| c.is_control()).count(), 1, "{text:?}");
        let json = Lines { json: true, ..PLAIN }.line(at(0), Level::INFO, None, &said);
        assert_eq!(json.lines().count(), 1);
        let parsed: Value = serde_json::from_str(&json).unwrap();
        assert_eq!(parsed["message"], "one\ntwo \u{1b}[2J");
        assert_eq!(parsed["time"], "1970-01-01T00:00:00.007Z");
    }
}
