//! SRS's grammar: `name words;` and `name words { … }`, comments, quotes, includes. Text in, a tree
//! with the place of every directive out; what the names mean is not known here.

use crate::limits::{SRS_BLOCKS_DEPTH_MAX, SRS_FILES_MAX};

/// One directive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Node {
    pub name: String,
    pub args: Vec<String>,
    /// What stands in its braces; `None` when it ends with a semicolon.
    pub block: Option<Vec<Node>>,
    pub at: Place,
}

/// Where something is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    /// Index in the list of files.
    pub file: usize,
    /// From 1.
    pub line: usize,
}

impl Node {
    /// A directive that is made up from another one, and so has its place.
    pub fn new(name: &str, args: &[&str], at: Place) -> Node {
        let args = args.iter().map(|arg| arg.to_string()).collect();
        Node { name: name.into(), args, block: None, at }
    }

    /// The first word behind the name.
    pub fn word(&self) -> Option<&str> {
        self.args.first().map(String::as_str)
    }

    /// The first directive of that name in the block; SRS ignores later ones.
    pub fn child(&self, name: &str) -> Option<&Node> {
        self.block.as_ref()?.iter().find(|node| node.name == name)
    }
}

/// Everything that was read.
#[derive(Debug)]
pub(super) struct Parsed {
    pub nodes: Vec<Node>,
    /// Names of the files, the main one first.
    pub files: Vec<String>,
    /// What is wrong, and where.
    pub faults: Vec<(Place, String)>,
}

/// Reads a text and what it includes; `open` gives the text of an included file or says why not.
pub(super) fn parse(
    file: &str,
    text: &str,
    open: &dyn Fn(&str) -> Result<String, String>,
) -> Parsed {
    let parsed = Parsed { nodes: Vec::new(), files: vec![file.into()], faults: Vec::new() };
    let mut parser = Parser { parsed, open, including: vec![file.into()], depth: 0 };
    let nodes = parser.file(0, text);
    Parsed { nodes, ..parser.parsed }
}

struct Parser<'o> {
    parsed: Parsed,
    open: &'o dyn Fn(&str) -> Result<String, String>,
    /// Files that are being read, each included by the one before.
    including: Vec<String>,
    /// Blocks that are open.
    depth: usize,
}

/// A token with its line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token<'t> {
    /// A word; `true` when it was quoted.
    Word(&'t str, bool),
    Semicolon,
    Open,
    Close,
    End,
}

impl Parser<'_> {
    fn fault(&mut self, at: Place, why: impl Into<String>) {
        self.parsed.faults.push((at, why.into()));
    }

    fn file(&mut self, file: usize, text: &str) -> Vec<Node> {
        let mut tokens = Tokens::new(text);
        let mut nodes = Vec::new();
        while self.block(file, &mut tokens, None, &mut nodes) == End::Brace {
            let at = Place { file, line: tokens.line };
            self.fault(at, "this } closes nothing; remove it, or look for a { that is missing");
        }
        nodes
    }

    /// Reads directives up to the end of a block or of the text.
    fn block(
        &mut self,
        file: usize,
        tokens: &mut Tokens<'_>,
        opened: Option<(&str, Place)>,
        nodes: &mut Vec<Node>,
    ) -> End {
        loop {
            let token = tokens.next();
            let at = Place { file, line: tokens.line };
            match token {
                Err(why) => {
                    self.fault(at, why);
                    return End::Text;
                }
                Ok(Token::Close) => return End::Brace,
                Ok(Token::End) => {
                    if let Some((name, begin)) = opened {
                        let why = format!("the block of {name} is not closed: a }} is missing");
                        self.fault(begin, why);
                    }
                    return End::Text;
                }
                Ok(Token::Semicolon) => self.fault(at, "this ; ends nothing; remove it"),
                Ok(Token::Open) => {
                    self.fault(at, "this { has no name before it");
                    if self.skip_block(tokens) == End::Text {
                        return End::Text;
                    }
                }
                Ok(Token::Word(name, _)) => {
                    let node = Node { name: name.into(), args: Vec::new(), block: None, at };
                    if self.directive(file, tokens, node, nodes) == End::Text {
                        return End::Text;
                    }
                }
            }
        }
    }

    /// Reads a directive from behind its name.
    fn directive(
        &mut self,
        file: usize,
        tokens: &mut Tokens<'_>,
        mut node: Node,
        nodes: &mut Vec<Node>,
    ) -> End {
        let mut told = false;
        loop {
            let token = match tokens.next() {
                Ok(token) => token,
                Err(why) => {
                    self.fault(Place { file, line: tokens.line }, why);
                    return End::Text;
                }
            };
            // SRS: what belongs together stands in one line.
            if tokens.line != node.at.line && !told && token != Token::End {
                let name = &node.name;
                let why = format!("{name} does not end in its line: a ; or {{ is missing there");
                self.fault(node.at, why);
                told = true;
            }
            match token {
                Token::Word("", true) => {}
                Token::Word(word, _) => node.args.push(word.into()),
                Token::Semicolon => {
                    if node.name == "include" {
                        self.include(&node, nodes);
                    } else {
                        nodes.push(node);
                    }
                    return End::Brace;
                }
                Token::Open if self.depth == SRS_BLOCKS_DEPTH_MAX => {
                    let why = format!("blocks are nested more than {SRS_BLOCKS_DEPTH_MAX} deep");
                    self.fault(node.at, why);
                    return self.skip_block(tokens);
                }
                Token::Open => {
                    self.depth += 1;
                    let mut inner = Vec::new();
                    let end = self.block(file, tokens, Some((&node.name, node.at)), &mut inner);
                    self.depth -= 1;
                    node.block = Some(inner);
                    nodes.push(node);
                    return end;
                }
                Token::Close => {
                    if !told {
                        let why = format!("{} does not end with a ;", node.name);
                        self.fault(node.at, why);
                    }
                    nodes.push(node);
                    tokens.give_back_close();
                    return End::Brace;
                }
                Token::End => {
                    let why = format!("{} does not end with a ;", node.name);
                    self.fault(node.at, why);
                    return End::Text;
                }
            }
        }
    }

    /// Passes over a block whose brace has been read.
    fn skip_block(&mut self, tokens: &mut Tokens<'_>) -> End {
        let mut depth = 1;
        while depth > 0 {
            match tokens.next() {
                Ok(Token::Open) => depth += 1,
                Ok(Token::Close) => depth -= 1,
                Ok(Token::End) | Err(_) => return End::Text,
                Ok(_) => {}
            }
        }
        End::Brace
    }

    /// Puts the directives of the named files where the `include` stands.
    fn include(&mut self, node: &Node, nodes: &mut Vec<Node>) {
        if node.args.is_empty() {
            self.fault(node.at, "include names no file");
        }
        for name in &node.args {
            if self.including.contains(name) {
                self.fault(node.at, format!("{name} includes itself"));
                continue;
            }
            if self.parsed.files.len() >= SRS_FILES_MAX {
                self.fault(node.at, format!("more than {SRS_FILES_MAX} files are included"));
                return;
            }
            match (self.open)(name) {
                Ok(text) => {
                    self.including.push(name.clone());
                    self.parsed.files.push(name.clone());
                    let inner = self.file(self.parsed.files.len() - 1, &text);
                    self.including.pop();
                    nodes.extend(inner);
                }
                Err(why) => self.fault(node.at, why),
            }
        }
    }
}

/// What ended a block or a directive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// Its own end.
    Brace,
    /// The end of the text, or something after which nothing can be understood.
    Text,
}

struct Tokens<'t> {
    rest: &'t str,
    /// Line of the last token.
    line: usize,
    /// Line of what comes next.
    next_line: usize,
    close_again: bool,
}

impl<'t> Tokens<'t> {
    fn new(text: &'t str) -> Tokens<'t> {
        let rest = text.strip_prefix('\u{feff}').unwrap_or(text);
        Tokens { rest, line: 1, next_line: 1, close_again: false }
    }

    fn give_back_close(&mut self) {
        self.close_again = true;
    }

    fn next(&mut self) -> Result<Token<'t>, String> {
        if std::mem::take(&mut self.close_again) {
            return Ok(Token::Close);
        }
        self.skip_blanks();
        self.line = self.next_line;
        let Some(first) = self.rest.chars().next() else { return Ok(Token::End) };
        let one = match first {
            ';' => Some(Token::Semicolon),
            '{' => Some(Token::Open),
            '}' => Some(Token::Close),
            _ => None,
        };
        if let Some(token) = one {
            self.rest = &self.rest[1..];
            return Ok(token);
        }
        if matches!(first, '"' | '\'') {
            let inside = &self.rest[1..];
            let end = inside.find(first).filter(|end| !inside[..*end].contains('\n'));
            let Some(end) = end else {
                return Err(format!("the text that begins with {first} does not end in its line"));
            };
            self.rest = &inside[end + 1..];
            return no_control(&inside[..end]).map(|word| Token::Word(word, true));
        }
        let end = |c: char| c.is_ascii_whitespace() || matches!(c, ';' | '{' | '}');
        let (word, rest) = self.rest.split_at(self.rest.find(end).unwrap_or(self.rest.len()));
        self.rest = rest;
        no_control(word).map(|word| Token::Word(word, false))
    }

    fn skip_blanks(&mut self) {
        loop {
            let trimmed = self.rest.trim_start_matches(|c: char| c.is_ascii_whitespace());
            let skipped = &self.rest[..self.rest.len() - trimmed.len()];
            self.next_line += skipped.matches('\n').count();
            self.rest = trimmed;
            if !trimmed.starts_with('#') {
                return;
            }
            let end = trimmed.find('\n').unwrap_or(trimmed.len());
            self.rest = &trimmed[end..];
        }
    }
}

fn no_control(word: &str) -> Result<&str, String> {
    match word.chars().find(|c| c.is_control() && *c != '\t') {
        Some(c) => Err(format!("the character {c:?} cannot stand here; is this a text file?")),
        None => Ok(word),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_alone(text: &str) -> Parsed {
        parse("x.conf", text, &|name| match name {
            "a.conf" => Ok("gop_cache off;\n".into()),
            "empty.conf" => Ok(String::new()),
            "loop.conf" => Ok("include loop.conf;".into()),
            "bad.conf" => Ok("\nplay { x".into()),
            other => Err(format!("cannot read {other}")),
        })
    }

    fn shown(nodes: &[Node]) -> String {
        let one = |node: &Node| {
            let mut text = node.name.clone();
            node.args.iter().for_each(|arg| text += &format!(" {arg}"));
            match &node.block {
                Some(inner) => format!("{text}{{{}}}", shown(inner)),
                None => text + ";",
            }
        };
        nodes.iter().map(one).collect()
    }

    fn good(text: &str) -> String {
        let parsed = parse_alone(text);
        assert!(parsed.faults.is_empty(), "{:?}", parsed.faults);
        shown(&parsed.nodes)
    }

    fn faults(text: &str) -> Vec<String> {
        let parsed = parse_alone(text);
        let one =
            |(at, why): &(Place, String)| format!("{}:{}: {why}", parsed.files[at.file], at.line);
        parsed.faults.iter().map(one).collect()
    }

    #[test]
    fn directives_blocks_comments_and_quotes() {
        assert_eq!(good(""), "");
        assert_eq!(good("\u{feff}# only a comment"), "");
        assert_eq!(
            good("listen 1935 19350;#x\r\n\tdaemon\toff ; "),
            "listen 1935 19350;daemon off;"
        );
        assert_eq!(good("vhost a.com{play{gop_cache off;}}"), "vhost a.com{play{gop_cache off;}}");
        assert_eq!(good("a 'x y' \"it's; {#}\" '' b#c;"), "a x y it's; {#} b#c;");
        assert_eq!(good("daemon on; pid x; v {\n}\n"), "daemon on;pid x;v{}");
    }

    #[test]
    fn lines_are_counted() {
        let parsed = parse_alone("\n# c\nlisten 1;\nvhost a {\n\n  enabled off;\n}\ndaemon on;");
        let lines: Vec<_> = parsed.nodes.iter().map(|node| node.at.line).collect();
        assert_eq!(lines, [3, 4, 8]);
        assert_eq!(parsed.nodes[1].child("enabled").unwrap().at.line, 6);
    }

    #[test]
    fn includes_stand_for_their_text() {
        assert_eq!(good("v { include a.conf empty.conf; }"), "v{gop_cache off;}");
        assert_eq!(faults("\ninclude no.conf;"), ["x.conf:2: cannot read no.conf"]);
        assert_eq!(faults("include loop.conf;"), ["loop.conf:1: loop.conf includes itself"]);
        assert_eq!(faults("include;"), ["x.conf:1: include names no file"]);
        assert_eq!(faults("include bad.conf;\nx 1;"), ["bad.conf:2: x does not end with a ;",]);
    }

    #[test]
    fn mistakes_have_their_line() {
        for (text, want) in [
            ("listen 1935", "x.conf:1: listen does not end with a ;"),
            ("listen 1935\ndaemon off;", "x.conf:1: listen does not end in its line"),
            ("\nv\n{ a b; }", "x.conf:2: v does not end in its line"),
            ("v { a b }", "x.conf:1: a does not end with a ;"),
            ("\nv {\n a b;\n", "x.conf:2: the block of v is not closed"),
            ("a b;\n}\nc d;", "x.conf:2: this } closes nothing"),
            ("a b;;", "x.conf:1: this ; ends nothing"),
            ("{ a b; }", "x.conf:1: this { has no name"),
            ("a 'b;\nc d;", "x.conf:1: the text that begins with '"),
            ("a \u{0};", "x.conf:1: the character '\\0' cannot stand here"),
        ] {
            let found = faults(text);
            assert!(found.len() == 1 && found[0].starts_with(want), "{text:?}: {found:?}");
        }
        // What follows a mistake is still read.
        assert_eq!(shown(&parse_alone("a b;\n}\nc d;").nodes), "a b;c d;");
        let deep = "a {".repeat(40) + &"}".repeat(40) + "b 1;";
        assert!(faults(&deep)[0].contains("nested more than"));
        assert!(shown(&parse_alone(&deep).nodes).ends_with("b 1;"));
    }
}
