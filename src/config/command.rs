//! Command lines of programs that the server starts: words, and where their output goes. There is
//! no shell; what a client says can only ever become a part of one word.

use std::fmt;

use crate::date;

/// Variables whose value has passed the grammar of names, or is the server's own; those of the date
/// come on top.
const SAFE: &[&str] = &["vhost", "app", "stream", "port", "url", "timestamp"];
/// Variables whose value is a client's word, whatever that is.
const FREE: &[&str] = &["tcUrl", "swfUrl", "pageUrl"];

/// A program with its arguments. Words are separated by blanks; quotes, of either kind, keep blanks
/// in a word. `>file`, `1>file` and `2>file` say where its output goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandLine {
    text: String,
    /// The program and its arguments, with variables in brackets.
    pub words: Vec<String>,
    /// File that standard output is added to, with variables.
    pub stdout: Option<String>,
    /// The same for standard error.
    pub stderr: Option<String>,
}

impl CommandLine {
    /// Reads a command line.
    ///
    /// # Errors
    /// What is wrong with it, for people.
    pub fn read(text: &str) -> Result<CommandLine, String> {
        let mut line =
            CommandLine { text: text.into(), words: Vec::new(), stdout: None, stderr: None };
        let mut words = split(text)?.into_iter();
        while let Some(Word { text: word, quoted }) = words.next() {
            let redirects = [(">", false), ("1>", false), ("2>", true)];
            let redirect = redirects
                .into_iter()
                .find_map(|(sign, is_error)| Some((word.strip_prefix(sign)?, is_error)))
                .filter(|_| !quoted);
            let Some((file, is_error)) = redirect else {
                line.words.push(word);
                continue;
            };
            let file = match file.is_empty() {
                true => words.next().map(|word| word.text),
                false => Some(file.to_owned()),
            };
            let file = file.ok_or_else(|| format!("{text:?} names no file behind {word:?}"))?;
            if let Some(free) = FREE.iter().find(|name| file.contains(&format!("[{name}]"))) {
                return Err(format!("a file cannot be named by [{free}]: clients choose that"));
            }
            let slot = if is_error { &mut line.stderr } else { &mut line.stdout };
            *slot = Some(file);
        }
        match line.words.first() {
            None => Err(format!("{text:?} names no program")),
            Some(program) if program.contains('[') => {
                Err(format!("the program {program:?} cannot have a variable in its name"))
            }
            Some(_) => Ok(line),
        }
    }

    /// As it was written.
    pub fn text(&self) -> &str {
        &self.text
    }
}

struct Word {
    text: String,
    quoted: bool,
}

fn split(text: &str) -> Result<Vec<Word>, String> {
    let mut words = Vec::new();
    let mut word: Option<Word> = None;
    let mut quote = None;
    for c in text.chars() {
        match quote {
            Some(open) if c == open => quote = None,
            None if c == '"' || c == '\'' => {
                quote = Some(c);
                word.get_or_insert(Word { text: String::new(), quoted: true });
            }
            None if c.is_ascii_whitespace() => words.extend(word.take()),
            _ => word.get_or_insert(Word { text: String::new(), quoted: false }).text.push(c),
        }
    }
    words.extend(word);
    match quote {
        None => Ok(words),
        Some(_) => Err(format!("{text:?} lacks a closing quote")),
    }
}

/// Puts values into the brackets of a word; what is no variable stays as it is, for ffmpeg has
/// brackets of its own. Values are not looked at for variables.
///
/// # Errors
/// A client's word would stand at the beginning, where a program may take it for an option.
pub fn fill<'v>(word: &str, value: impl Fn(&str) -> Option<&'v str>) -> Result<String, String> {
    let mut out = String::with_capacity(word.len());
    let mut rest = word;
    while let Some(at) = rest.find('[') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let name = rest[1..].split(']').next().unwrap_or_default();
        let is_closed = rest.len() > name.len() + 1;
        let known = SAFE.contains(&name) || FREE.contains(&name) || date::digits(name).is_some();
        let known = known && is_closed;
        match value(name).filter(|_| known) {
            Some(value) => {
                if out.is_empty() && value.starts_with('-') {
                    return Err(format!("[{name}] begins with a hyphen"));
                }
                out.push_str(value);
                rest = &rest[name.len() + 2..];
            }
            None => {
                out.push('[');
                rest = &rest[1..];
            }
        }
    }
    out.push_str(rest);
    match out.contains('\0') {
        true => Err("it has a zero byte".into()),
        false => Ok(out),
    }
}

/// The command lines of one setting, in their order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CommandLines {
    /// Those that can be run.
    pub lines: Vec<CommandLine>,
    /// What could not be read; a configuration with any is refused.
    wrong: Vec<(String, String)>,
}

impl CommandLines {
    /// Reads command lines, one per text.
    pub fn read<T: AsRef<str>>(texts: impl IntoIterator<Item = T>) -> CommandLines {
        let mut out = CommandLines::default();
        for text in texts {
            match CommandLine::read(text.as_ref()) {
                Ok(line) => out.lines.push(line),
                Err(why) => out.wrong.push((text.as_ref().to_string(), why)),
            }
        }
        out
    }

    /// The first thing that is wrong.
    pub(super) fn error(&self) -> Option<&str> {
        self.wrong.first().map(|(_, why)| why.as_str())
    }

    pub(super) fn texts(&self) -> Vec<String> {
        let wrong = self.wrong.iter().map(|(text, _)| text.clone());
        self.lines.iter().map(|line| line.text.clone()).chain(wrong).collect()
    }
}

impl fmt::Display for CommandLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_quotes_and_redirections() {
        let line = CommandLine::read("./ff -i [url] 'a b'\"c\"  >out-[stream].log 2> err").unwrap();
        assert_eq!(line.words, ["./ff", "-i", "[url]", "a bc"]);
        assert_eq!(line.stdout.as_deref(), Some("out-[stream].log"));
        assert_eq!(line.stderr.as_deref(), Some("err"));
        let line = CommandLine::read("sh '>not' 1>one").unwrap();
        assert_eq!(
            (line.words, line.stdout.as_deref()),
            (vec!["sh".into(), ">not".into()], Some("one"))
        );
        assert_eq!(CommandLine::read("echo ''").unwrap().words, ["echo", ""]);
        for (bad, why) in [
            ("", "names no program"),
            (">x", "names no program"),
            ("a >", "names no file"),
            ("a 'b", "closing quote"),
            ("./[stream] x", "cannot have a variable"),
            ("a >/tmp/[tcUrl]", "clients choose"),
        ] {
            let error = CommandLine::read(bad).unwrap_err();
            assert!(error.contains(why), "{bad}: {error}");
        }
    }

    #[test]
    fn values_stay_within_their_word() {
        let value = |name: &str| match name {
            "stream" => Some("[app] x"),
            "app" => Some("live"),
            "pageUrl" => Some("-rf /"),
            _ => None,
        };
        let filled = |word: &str| fill(word, value);
        assert_eq!(filled("a[app]b[app]").unwrap(), "aliveblive");
        assert_eq!(filled("[stream]").unwrap(), "[app] x", "values are not filled again");
        assert_eq!(filled("[0:v][app]scale[x").unwrap(), "[0:v]livescale[x");
        assert_eq!(filled("[vhost][app").unwrap(), "[vhost][app");
        assert!(filled("[pageUrl]").is_err(), "it would be an option");
        assert_eq!(filled("page=[pageUrl]").unwrap(), "page=-rf /");
        assert!(fill("x[app]", |_| Some("\0")).is_err());
    }
}
