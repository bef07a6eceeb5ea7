//! Checks of the source tree that the compiler cannot make: layers, sizes, banned words.
//!
//! A finding is a line `file:line: what is wrong and what to do`. The rules are tables at the top
//! of this file; whoever needs an exception changes the table and says why.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

/// The layers of `src/`, lowest first. A module may import what stands in a line above its own;
/// modules of one line are side by side and do not know each other.
const LAYERS: &[&[&str]] = &[
    &["limits", "fault", "date"],
    &["page", "version", "media", "config"],
    &["hub", "proto", "log", "systemd"],
    &["remux"],
    &["session"],
    &["shard"],
    &["control"],
    &["top"],
    &["cli", "daemon", "doctor", "errors", "pidfile", "privileges", "sim"],
    &["main", "lib"],
];

/// Pure layers know no clock, socket, task or ring: bytes and time in, bytes and events out.
const PURE: &[&str] = &["limits", "fault", "date", "page", "media", "proto"];

/// What a pure layer does not name, and what it takes instead.
const IMPURE_WORDS: &[(&str, &str)] = &[
    ("uring::", "take the bytes as an argument"),
    ("tokio", "tokio lives in control only"),
    ("rustix::", "take what the system call returned as an argument"),
    ("TcpStream", "take the bytes as an argument"),
    ("TcpListener", "take the bytes as an argument"),
    ("UdpSocket", "take the bytes as an argument"),
    ("Instant::now", "take the time as an argument"),
    ("SystemTime::now", "take the time as an argument"),
    ("thread::sleep", "return the deadline to the caller"),
];

/// Words that no code of the workspace contains, and what to write instead.
const BANNED_WORDS: &[(&str, &str)] = &[
    ("todo!", "return a clear error for what is not done"),
    ("unimplemented!", "return a clear error for what is not done"),
    ("dbg!", "log with tracing"),
    ("unbounded", "give it a bound from limits.rs"),
];

/// Longest line of a text file, columns.
const COLUMNS_MAX: usize = 100;

/// Longest source file, lines without its tests.
const LINES_MAX: usize = 1200;

/// Roots of crates, and whether they forbid unsafe code. Only `uring` may contain it.
const CRATE_ROOTS: &[&str] =
    &["src/lib.rs", "src/main.rs", "bench/src/main.rs", "loadtest/src/main.rs"];

#[test]
fn imports_go_down_only() {
    let mut findings = String::new();
    for file in SourceFile::all(&["src"]) {
        file.check_layers(&mut findings);
    }
    assert!(findings.is_empty(), "\n{findings}");
}

#[test]
fn pure_layers_name_no_clock_socket_or_ring() {
    let mut findings = String::new();
    for file in SourceFile::all(&["src"]) {
        if PURE.contains(&file.layer()) {
            file.check_words(IMPURE_WORDS, &mut findings);
        }
    }
    assert!(findings.is_empty(), "\n{findings}");
}

#[test]
fn code_is_tidy() {
    let mut findings = String::new();
    for file in SourceFile::all(&["src", "uring", "bench", "loadtest"]) {
        file.check_words(BANNED_WORDS, &mut findings);
        file.check_size(&mut findings);
        file.check_first_sentence(&mut findings);
    }
    for path in files(&["src", "uring", "bench", "loadtest", "ci", "conf"], |path| {
        let skipped = ["vendor", "built", "node_modules"];
        let vendored = path.components().any(|part| skipped.iter().any(|s| part.as_os_str() == *s));
        let suffix = path.extension().and_then(|suffix| suffix.to_str()).unwrap_or("");
        !vendored && ["rs", "toml", "sh", "py", "js", "css", "ts", "tsx"].contains(&suffix)
    }) {
        check_columns(&path, &mut findings);
    }
    assert!(findings.is_empty(), "\n{findings}");
}

#[test]
fn unsafe_code_is_forbidden_outside_uring() {
    for path in CRATE_ROOTS {
        let text = fs::read_to_string(root().join(path)).expect("a crate root can be read");
        assert!(text.contains("#![forbid(unsafe_code)]"), "{path}: add #![forbid(unsafe_code)]");
    }
}

#[test]
fn top_level_is_as_designed() {
    const KNOWN: &[&str] = &[
        "Cargo.toml",
        "Cargo.lock",
        "src",
        "uring",
        "bench",
        "conf",
        "loadtest",
        "ci",
        "README.md",
        "LICENSE",
        "CHANGELOG.md",
        // Build output and run-time files, not in the repository.
        "target",
        "objs",
    ];
    let unknown: Vec<String> = fs::read_dir(root())
        .expect("the workspace can be listed")
        .map(|entry| entry.expect("entry").file_name().to_string_lossy().into_owned())
        .filter(|name| !name.starts_with('.') && !KNOWN.contains(&name.as_str()))
        .collect();
    assert!(unknown.is_empty(), "not part of the top level: {unknown:?}");
}

struct SourceFile {
    /// Relative to the workspace.
    path: PathBuf,
    text: String,
    /// `text` with comments and literals blanked out, line for line.
    code: String,
}

impl SourceFile {
    fn all(folders: &[&str]) -> Vec<SourceFile> {
        let rust = |path: &Path| path.extension().is_some_and(|suffix| suffix == "rs");
        let all: Vec<_> = files(folders, rust).into_iter().map(SourceFile::read).collect();
        assert!(!all.is_empty(), "no source file in {folders:?}: the check looks in a wrong place");
        all
    }

    fn read(path: PathBuf) -> SourceFile {
        let text = fs::read_to_string(root().join(&path)).expect("a source file is UTF-8");
        SourceFile::of(path, text)
    }

    fn of(path: PathBuf, text: String) -> SourceFile {
        let code = without_comments_and_literals(&text);
        SourceFile { path, text, code }
    }

    /// The module below the crate root that this file belongs to: `hub` for `src/hub/feed.rs`.
    fn layer(&self) -> &str {
        let mut parts = self.path.components().skip(1);
        let first = parts.next().expect("a file lies in a folder").as_os_str();
        Path::new(first).file_stem().and_then(|stem| stem.to_str()).expect("UTF-8 file name")
    }

    fn check_layers(&self, findings: &mut String) {
        let own = self.layer();
        if own == "tidy" {
            return;
        }
        let Some(own_rank) = rank(own) else {
            self.report(0, findings, &format!("module {own} has no place in LAYERS of tidy.rs"));
            return;
        };
        for (offset, target) in imports(&self.code) {
            if target == own {
                continue;
            }
            match rank(&target) {
                Some(rank) if rank < own_rank => {}
                Some(rank) if rank == own_rank => {
                    let what = format!("{own} imports {target}, which stands beside it");
                    self.report(offset, findings, &what);
                }
                Some(_) => {
                    let what = format!("{own} imports {target}, which stands above it");
                    self.report(offset, findings, &what);
                }
                // Not a module of the table: an item of the crate root.
                None => {
                    let what = format!("{own} imports {target}, which has no place in LAYERS");
                    self.report(offset, findings, &what);
                }
            }
        }
    }

    fn check_words(&self, words: &[(&str, &str)], findings: &mut String) {
        if self.layer() == "tidy" {
            return;
        }
        for (word, instead) in words {
            for (offset, _) in self.code.match_indices(word) {
                let before = self.code[..offset].chars().next_back();
                if before.is_none_or(|before| !is_word(before)) {
                    self.report(offset, findings, &format!("no `{word}` here: {instead}"));
                }
            }
        }
    }

    fn check_size(&self, findings: &mut String) {
        if self.path.ends_with("tests.rs") {
            return;
        }
        let own = self.code.find("#[cfg(test)]\nmod tests {").unwrap_or(self.code.len());
        let lines = self.code[..own].lines().count();
        // A file of tests only is as long as what it tests needs.
        if lines > LINES_MAX && !self.path.ends_with("tests.rs") {
            self.report(0, findings, &format!("{lines} lines, split it (at most {LINES_MAX})"));
        }
    }

    fn check_first_sentence(&self, findings: &mut String) {
        let first = self.text.lines().next().unwrap_or("");
        let included = first.starts_with("#![doc = include_str!(");
        if !included && (!first.starts_with("//! ") || first.len() < 12) {
            self.report(0, findings, "begin with a sentence that says what this file is (//! ...)");
        }
    }

    fn report(&self, offset: usize, findings: &mut String, what: &str) {
        let line = self.code[..offset].matches('\n').count() + 1;
        writeln!(findings, "{}:{line}: {what}", self.path.display()).expect("String");
    }
}

fn rank(module: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&module))
}

fn check_columns(path: &Path, findings: &mut String) {
    let text = fs::read_to_string(root().join(path)).expect("a text file is UTF-8");
    for (index, line) in text.lines().enumerate() {
        let columns = line.chars().count();
        if columns > COLUMNS_MAX {
            let at = format!("{}:{}", path.display(), index + 1);
            writeln!(findings, "{at}: {columns} columns (at most {COLUMNS_MAX})").expect("String");
        }
    }
}

/// The modules of the crate root that `code` names, with the offset of each mention.
fn imports(code: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for prefix in ["crate::", "super::super::"] {
        for (offset, _) in code.match_indices(prefix) {
            let before = code[..offset].chars().next_back();
            if before.is_some_and(|before| is_word(before) || before == '$') {
                continue;
            }
            let start = offset + prefix.len();
            let names = if code[start..].starts_with('{') {
                group_heads(code, start)
            } else {
                vec![(start, word_at(code, start))]
            };
            for (offset, name) in names {
                let starts_low = name.starts_with(|c: char| c.is_ascii_lowercase());
                // How deep `super` reaches is not known here, so only names of layers count.
                if starts_low && (prefix == "crate::" || rank(name).is_some()) {
                    found.push((offset, name.to_owned()));
                }
            }
        }
    }
    found
}

/// First words of the entries of the brace group that opens at `start`.
fn group_heads(code: &str, start: usize) -> Vec<(usize, &str)> {
    let mut heads = Vec::new();
    let mut depth = 0;
    let mut at_head = false;
    for (index, c) in code[start..].char_indices() {
        match c {
            '{' => {
                depth += 1;
                at_head = depth == 1;
            }
            '}' => {
                depth -= 1;
                if depth == 0 {
                    break;
                }
            }
            ',' => at_head = depth == 1,
            c if at_head && is_word(c) => {
                heads.push((start + index, word_at(code, start + index)));
                at_head = false;
            }
            _ => {}
        }
    }
    heads
}

fn word_at(code: &str, start: usize) -> &str {
    let rest = &code[start..];
    &rest[..rest.find(|c| !is_word(c)).unwrap_or(rest.len())]
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Blanks out comments, strings and character literals and keeps every line break.
fn without_comments_and_literals(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut code = String::with_capacity(text.len());
    let mut index = 0;
    while index < chars.len() {
        let end = literal_end(&chars, index);
        if end == index {
            code.push(chars[index]);
            index += 1;
        } else {
            let blank = |c: &char| if *c == '\n' { '\n' } else { ' ' };
            code.extend(chars[index..end].iter().map(blank));
            index = end;
        }
    }
    code
}

/// End of the comment or literal that starts at `start`; `start` when none does.
fn literal_end(chars: &[char], start: usize) -> usize {
    let rest = &chars[start..];
    let after_word = start > 0 && is_word(chars[start - 1]);
    let length = match rest {
        ['/', '/', ..] => rest.iter().position(|c| *c == '\n').unwrap_or(rest.len()),
        ['/', '*', ..] => block_comment_length(rest),
        ['"', ..] => string_length(rest, 1),
        ['r', '"' | '#', ..] if !after_word => raw_string_length(rest, 1),
        ['b', 'r', '"' | '#', ..] if !after_word => raw_string_length(rest, 2),
        // A quote is a lifetime unless another one closes it after one character or an escape.
        ['\'', '\\', ..] => 3 + rest[3..].iter().position(|c| *c == '\'').map_or(0, |at| at + 1),
        ['\'', _, '\'', ..] => 3,
        _ => 0,
    };
    (start + length).min(chars.len())
}

fn block_comment_length(rest: &[char]) -> usize {
    let mut depth = 0;
    let mut index = 0;
    while index + 1 < rest.len() {
        match (rest[index], rest[index + 1]) {
            ('/', '*') => depth += 1,
            ('*', '/') => depth -= 1,
            _ => {
                index += 1;
                continue;
            }
        }
        index += 2;
        if depth == 0 {
            return index;
        }
    }
    rest.len()
}

fn string_length(rest: &[char], mut index: usize) -> usize {
    while index < rest.len() && rest[index] != '"' {
        index += if rest[index] == '\\' { 2 } else { 1 };
    }
    index + 1
}

fn raw_string_length(rest: &[char], prefix: usize) -> usize {
    let hashes = rest[prefix..].iter().take_while(|c| **c == '#').count();
    let open = prefix + hashes;
    if rest.get(open) != Some(&'"') {
        // A raw identifier such as `r#type`.
        return 0;
    }
    let mut index = open + 1;
    while index < rest.len() {
        let closing = rest[index..].iter().skip(1).take(hashes);
        if rest[index] == '"' && closing.filter(|c| **c == '#').count() == hashes {
            return index + 1 + hashes;
        }
        index += 1;
    }
    rest.len()
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Files below the folders that pass the filter, relative to the workspace, sorted.
fn files(folders: &[&str], filter: impl Fn(&Path) -> bool) -> Vec<PathBuf> {
    let mut open: Vec<PathBuf> = folders.iter().map(PathBuf::from).collect();
    let mut found = Vec::new();
    while let Some(folder) = open.pop() {
        let Ok(entries) = fs::read_dir(root().join(&folder)) else { continue };
        for entry in entries {
            let entry = entry.expect("a folder can be listed");
            let path = folder.join(entry.file_name());
            if entry.file_type().expect("file type").is_dir() {
                let name = entry.file_name();
                if name != "target" && name != "corpus" && name != "artifacts" {
                    open.push(path);
                }
            } else if filter(&path) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

mod self_check {
    //! The checks above are believed only because these plants are found.

    use super::*;

    fn layer_findings(path: &str, text: &str) -> String {
        let mut findings = String::new();
        SourceFile::of(PathBuf::from(path), text.to_owned()).check_layers(&mut findings);
        findings
    }

    #[test]
    fn upward_and_sideways_imports_are_found_with_their_line() {
        let text = "//! Doc.\nuse crate::limits::X;\nuse crate::{\n    media::A,\n    \
                    session::{B, C},\n};\n";
        assert_eq!(
            layer_findings("src/hub/feed.rs", text),
            "src/hub/feed.rs:5: hub imports session, which stands above it\n"
        );
        assert_eq!(
            layer_findings("src/proto/rtmp/chunk.rs", "//! Doc.\n\nfn f() { crate::hub::f(); }\n"),
            "src/proto/rtmp/chunk.rs:3: proto imports hub, which stands beside it\n"
        );
        assert_eq!(
            layer_findings("src/media/aac.rs", "use super::super::shard::Letter;\n"),
            "src/media/aac.rs:1: media imports shard, which stands above it\n"
        );
        assert!(layer_findings("src/plugin.rs", "//! Doc.\n").contains("has no place"));
    }

    #[test]
    fn downward_imports_comments_and_strings_pass() {
        let text = "//! See [`crate::session`].\nuse crate::hub::Hub; // crate::control\n\
                    const A: &str = \"crate::control\"; /* crate::main */\n\
                    const B: char = '\"'; const C: &str = r#\"use crate::main;\"#;\n";
        assert_eq!(layer_findings("src/session/rtmp.rs", text), "");
    }

    #[test]
    fn words_count_in_code_only() {
        let text = "//! Doc, todo!() is fine here.\nfn f<'a>() { let c = '\\''; todo!() }\n";
        let mut findings = String::new();
        SourceFile::of(PathBuf::from("src/hub/x.rs"), text.to_owned())
            .check_words(BANNED_WORDS, &mut findings);
        assert_eq!(findings.lines().count(), 1);
        assert!(findings.starts_with("src/hub/x.rs:2: no `todo!` here"), "{findings}");
    }
}
