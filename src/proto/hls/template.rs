//! Names of playlists and segments by a template such as `[app]/[stream]-[seq].ts`.

use crate::date;
use crate::media::name::StreamName;

/// A parsed template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    tokens: Vec<Token>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Text(String),
    Variable(Variable),
}

/// What a template's words stand for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Variable {
    Vhost,
    App,
    Stream,
    Seq,
    Duration,
    Timestamp,
    /// A part of the date, by its place in [`date::WORDS`].
    Date(usize),
}

const VARIABLES: &[(&str, Variable)] = &[
    ("vhost", Variable::Vhost),
    ("app", Variable::App),
    ("stream", Variable::Stream),
    ("seq", Variable::Seq),
    ("duration", Variable::Duration),
    ("timestamp", Variable::Timestamp),
];

/// What is filled in.
#[derive(Clone, Copy, Debug, Default)]
pub struct Values<'a> {
    /// The vhost.
    pub vhost: &'a str,
    /// The app.
    pub app: &'a str,
    /// The stream.
    pub stream: &'a str,
    /// The segment's number.
    pub seq: u64,
    /// How long it is, ms.
    pub duration_ms: u64,
    /// `[timestamp]`: ms since 1970, or the number of the wall clock's fragment.
    pub timestamp: u64,
    /// The segment's begin, ms since 1970: the date and time.
    pub wall_ms: i64,
}

impl<'a> Values<'a> {
    /// What there is to say of a stream: enough for names that are not those of segments.
    pub fn of(name: &'a StreamName) -> Values<'a> {
        let (vhost, app, stream) = (name.vhost(), name.app(), name.stream());
        Values { vhost, app, stream, ..Values::default() }
    }
}

/// What a name says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Found<'p> {
    /// The vhost, if the template has it.
    pub vhost: Option<&'p str>,
    /// The app; empty if the template has none.
    pub app: &'p str,
    /// The stream; empty if the template has none.
    pub stream: &'p str,
    /// The segment's number, if the template has it.
    pub seq: Option<u64>,
}

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    /// A word in brackets that means nothing, named in the text.
    pub fn parse(text: &str) -> Result<Template, String> {
        let mut tokens = Vec::new();
        let mut rest = text;
        while let Some((before, inside)) = rest.split_once('[') {
            let (word, after) = inside.split_once(']').ok_or("has a [ without ]")?;
            let known = VARIABLES.iter().find(|(name, _)| *name == word).map(|known| known.1);
            let date = || date::WORDS.iter().position(|name| *name == word).map(Variable::Date);
            let variable = known
                .or_else(date)
                .ok_or_else(|| format!("has [{word}], which stands for nothing"))?;
            if !before.is_empty() {
                tokens.push(Token::Text(before.into()));
            }
            tokens.push(Token::Variable(variable));
            rest = after;
        }
        if !rest.is_empty() {
            tokens.push(Token::Text(rest.into()));
        }
        Ok(Template { tokens })
    }

    /// True when names differ by stream, and, if `numbered`, by segment.
    pub fn tells_apart(&self, numbered: bool) -> bool {
        let has = |wanted| self.tokens.contains(&Token::Variable(wanted));
        let number = has(Variable::Seq) || has(Variable::Timestamp);
        has(Variable::App) && has(Variable::Stream) && (!numbered || number)
    }

    /// True when a name depends on when the segment ends.
    pub fn needs_duration(&self) -> bool {
        self.tokens.contains(&Token::Variable(Variable::Duration))
    }

    /// The name for these values.
    pub fn fill(&self, values: &Values<'_>) -> String {
        use std::fmt::Write as _;
        let mut out = String::new();
        for token in &self.tokens {
            let _ = match token {
                Token::Text(text) => write!(out, "{text}"),
                Token::Variable(Variable::Vhost) => write!(out, "{}", values.vhost),
                Token::Variable(Variable::App) => write!(out, "{}", values.app),
                Token::Variable(Variable::Stream) => write!(out, "{}", values.stream),
                Token::Variable(Variable::Seq) => write!(out, "{}", values.seq),
                Token::Variable(Variable::Duration) => write!(out, "{}", values.duration_ms),
                Token::Variable(Variable::Timestamp) => write!(out, "{}", values.timestamp),
                Token::Variable(Variable::Date(index)) => {
                    write!(out, "{}", date::words(values.wall_ms)[*index])
                }
            };
        }
        out
    }

    /// Goes through the ways to read `path` as a name made by this template until `accept` takes
    /// one. Longer apps and streams come first.
    pub fn find<'p>(&self, path: &'p str, accept: &mut dyn FnMut(&Found<'p>) -> bool) -> bool {
        // The ways to split grow with the square of the length.
        path.len() <= PATH_BYTES_MAX && read(&self.tokens, path, Found::default(), accept)
    }
}

/// A path longer than this is no name: stream names are shorter.
const PATH_BYTES_MAX: usize = 1_024;

fn read<'p>(
    tokens: &[Token],
    path: &'p str,
    found: Found<'p>,
    accept: &mut dyn FnMut(&Found<'p>) -> bool,
) -> bool {
    let Some((token, tokens)) = tokens.split_first() else {
        return path.is_empty() && accept(&found);
    };
    let variable = match token {
        Token::Text(text) => {
            return path
                .strip_prefix(text.as_str())
                .is_some_and(|p| read(tokens, p, found, accept));
        }
        Token::Variable(variable) => *variable,
    };
    let most = match variable {
        Variable::App => path.len(),
        Variable::Vhost | Variable::Stream => path.find('/').unwrap_or(path.len()),
        _ => path.find(|c: char| !c.is_ascii_digit()).unwrap_or(path.len()),
    };
    for end in (1..=most).rev().filter(|end| path.is_char_boundary(*end)) {
        let (value, rest) = path.split_at(end);
        // What follows decides; most ends fail here.
        if let Some(Token::Text(text)) = tokens.first()
            && !rest.starts_with(text.as_str())
        {
            continue;
        }
        let found = match variable {
            Variable::Vhost => Found { vhost: Some(value), ..found },
            // The same word again has to stand for the same.
            Variable::App if !found.app.is_empty() && found.app != value => continue,
            Variable::Stream if !found.stream.is_empty() && found.stream != value => continue,
            Variable::App => Found { app: value, ..found },
            Variable::Stream => Found { stream: value, ..found },
            Variable::Seq => match value.parse() {
                Ok(seq) => Found { seq: Some(seq), ..found },
                Err(_) => continue,
            },
            Variable::Duration | Variable::Timestamp | Variable::Date(_) => found,
        };
        if read(tokens, rest, found, accept) {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first<'p>(template: &str, path: &'p str) -> Option<(&'p str, &'p str, Option<u64>)> {
        let mut out = None;
        let template = Template::parse(template).unwrap();
        template.find(path, &mut |found| {
            out = Some((found.app, found.stream, found.seq));
            true
        });
        out
    }

    #[test]
    fn names_are_read_as_they_are_written() {
        let ts = "[app]/[stream]-[seq].ts";
        assert_eq!(first(ts, "live/a-b-17.ts"), Some(("live", "a-b", Some(17))));
        assert_eq!(first(ts, "x/y/s-0.ts"), Some(("x/y", "s", Some(0))));
        for bad in ["live/s.ts", "live/-1.ts", "s-1.ts", "live/s-x.ts", "live/s-1.tsx"] {
            assert_eq!(first(ts, bad), None, "{bad}");
        }
        assert_eq!(first("[app]/[stream].m3u8", "a/b/c.m3u8"), Some(("a/b", "c", None)));
        let twice = "[app]/[stream]/[stream]-[seq].m4s";
        assert_eq!(first(twice, "live/s/s-2.m4s"), Some(("live", "s", Some(2))));
        assert_eq!(first(twice, "live/s/t-2.m4s"), None);
        let all = "[vhost]/[app]/[2006][01][02]/[stream]-[15][04][05].[999]-[seq]-[duration].ts";
        let template = Template::parse(all).unwrap();
        let values = Values {
            vhost: "v.com",
            app: "live",
            stream: "s",
            seq: 9,
            duration_ms: 4_000,
            timestamp: 7,
            wall_ms: 1_795_374_245_008,
        };
        let name = template.fill(&values);
        assert_eq!(name, "v.com/live/20261122/s-190405.008-9-4000.ts");
        assert_eq!(first(all, &name), Some(("live", "s", Some(9))));
        assert!(template.needs_duration() && template.tells_apart(true));
        assert!(!Template::parse("[app]/[stream].ts").unwrap().tells_apart(true));
        assert!(Template::parse("[app]/[x].ts").unwrap_err().contains("[x]"));
        assert!(Template::parse("[app").is_err());
    }

    #[test]
    fn other_ways_to_read_a_name_are_tried() {
        let template = Template::parse("[app]-[stream]-[seq].ts").unwrap();
        let mut seen = Vec::new();
        let taken = template.find("a-b-c-1.ts", &mut |found| {
            seen.push((found.app.to_owned(), found.stream.to_owned()));
            false
        });
        assert!(!taken);
        assert_eq!(seen, [("a-b".into(), "c".into()), ("a".into(), "b-c".into())]);
        let long = "a-".repeat(5_000);
        assert!(!template.find(&long, &mut |_| true));
    }
}
