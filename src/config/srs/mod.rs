//! Reading a configuration in SRS's grammar against the same table of settings as TOML.
//!
//! A directive with a row of its path is that setting. One without is refused where it asks for
//! something that this version does not have, with file and line, and passed over where it is
//! switched off or states SRS's default. Rows that only ringcast has may stand in such a file
//! as well, at their path.

mod grammar;
mod rewrite;

use std::borrow::Cow;
use std::collections::HashSet;
use std::path::{Path, PathBuf};

use super::directives::{self, Form};
use super::load::Draft;
use super::row::{Kind, Raw, Row};
use super::suggest::nearest;
use super::vhosts::{Key, classify};
use super::{Config, ConfigError, DEFAULT_VHOST, LogTank, SECTIONS, file, rows};
use grammar::{Node, Place};

/// Directives that ask for nothing that ringcast does not do anyhow, and why.
const MOOT: &[(&str, &str)] = &[
    ("empty_ip_ok", "a peer always has an address here"),
    ("ff_log_dir", "no ffmpeg is started"),
    ("ff_log_level", "no ffmpeg is started"),
    ("first_wait_for_qlv", "no version is asked for"),
    ("http_api.crossdomain", "it follows http_server.crossdomain, as in SRS"),
    ("pithy_print_ms", "summary_interval says how often there is a line of counters"),
    ("query_latest_version", "no version is asked for"),
    ("tcmalloc_release_rate", "the memory allocator is another one"),
    ("threads.interval", "there is no such thread"),
    ("utc_time", "the log is always in UTC"),
    ("vhost.play.send_min_interval", "sends are gathered by load, see mw_latency"),
    ("vhost.publish.mr", "receives are gathered by load"),
    ("vhost.publish.mr_latency", "receives are gathered by load"),
    ("vhost.publish.parse_sps", "picture sizes are always read, and a failure ends nothing"),
    ("vhost.publish.try_annexb_first", "the framing of NAL units is always recognised"),
];

/// Blocks whose directives are the arguments of another program.
const RAW_BLOCKS: &[&str] = &["perfile", "vfilter", "vparams", "aparams"];

/// How SRS differs from ringcast when a configuration says nothing: it serves RTMP only, in the
/// background, and writes a pid file and a log file.
pub(super) fn defaults(config: &mut Config) {
    config.http_server.enabled = false;
    config.http_api.enabled = false;
    config.vhost.http_remux.enabled = false;
    config.daemon = true;
    config.pid = "./objs/srs.pid".into();
    config.log.tank = LogTank::File;
    config.log.file = "./objs/srs.log".into();
}

/// What the sources say about the container that the process may run in.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::config) struct Container {
    /// It runs in one.
    pub inside: bool,
    /// It may go to the background all the same.
    pub allows_daemon: bool,
    /// The configuration is not watched although it runs in one.
    pub leaves_files: bool,
}

impl Container {
    /// Takes a directive or a variable that says something about containers; `false` for others.
    pub fn take(&mut self, path: &str, word: Option<&str>) -> bool {
        match path {
            "in_docker" => self.inside |= word == Some("on"),
            "disable_daemon_for_docker" => self.allows_daemon = word == Some("off"),
            "auto_reload_for_docker" => self.leaves_files = word == Some("off"),
            _ => return false,
        }
        true
    }
}

/// In a container SRS stays in the foreground and watches its configuration, unless told otherwise.
pub(super) fn fit_container(draft: &mut Draft) {
    let Container { inside, allows_daemon, leaves_files } = draft.container;
    draft.config.daemon &= !inside || allows_daemon;
    draft.config.config_watch |= inside && !leaves_files;
}

/// Puts the directives of a text into `draft`. Included files are looked for in `directory`, or
/// refused when there is none.
pub(super) fn apply(name: &str, text: &str, directory: Option<&Path>, draft: &mut Draft) {
    let open = |included: &str| -> Result<String, String> {
        let Some(directory) = directory else {
            return Err(format!("{included} cannot be included here"));
        };
        let path: PathBuf = directory.join(included);
        file::read(&path).map_err(|error| error.to_string())
    };
    let mut parsed = grammar::parse(name, text, &open);
    rewrite::modernize(&mut parsed.nodes);
    if let Some(directory) = directory {
        draft.files.extend(parsed.files.iter().skip(1).map(|file| directory.join(file)));
    }
    let mut reader = Reader {
        draft,
        files: &parsed.files,
        faults: std::mem::take(&mut parsed.faults),
        set: HashSet::new(),
        repeated: Vec::new(),
    };
    reader.root(&parsed.nodes);
    reader.finish();
}

/// True when a file is in SRS's grammar, by its name.
pub(super) fn is_srs(path: &Path) -> bool {
    path.extension().is_none_or(|ext| ext != "toml")
}

struct Reader<'d> {
    draft: &'d mut Draft,
    files: &'d [String],
    faults: Vec<(Place, String)>,
    /// What has been set, by vhost: the first one of several counts.
    set: HashSet<(Option<String>, String)>,
    /// Lines of settings whose directive may be repeated.
    repeated: Vec<(Option<String>, &'static Row, Place, Vec<Raw>)>,
}

/// Where the walk is.
#[derive(Clone, Copy)]
struct Scope<'s> {
    /// Path of the block, empty at the root.
    path: &'s str,
    /// The vhost of its own name.
    vhost: Option<&'s str>,
    /// In a block that is switched off, or whose lack has been reported: nothing asks for anything.
    quiet: bool,
}

impl Reader<'_> {
    fn fault(&mut self, at: Place, why: impl Into<String>) {
        self.faults.push((at, why.into()));
    }

    fn warn(&mut self, at: Place, why: impl std::fmt::Display) {
        self.draft.warnings.push(format!("{}:{}: {why}", self.files[at.file], at.line));
    }

    fn note(&mut self, row: &Row, at: Place, scope: Scope<'_>) {
        self.draft.note(row, scope.vhost, format!("{}:{}", self.files[at.file], at.line));
    }

    /// Errors and warnings as people read: by file, from the top.
    fn finish(mut self) {
        for (vhost, row, at, lines) in std::mem::take(&mut self.repeated) {
            if let Err(why) = self.draft.set(row, vhost.as_deref(), &Raw::List(lines)) {
                self.fault(at, why);
            }
        }
        self.faults.sort();
        let Reader { draft, files, faults, .. } = self;
        draft.errors.extend(faults.into_iter().map(|(at, why)| ConfigError::File {
            file: files[at.file].clone(),
            line: at.line,
            why,
        }));
    }

    fn root(&mut self, nodes: &[Node]) {
        let root = Scope { path: "", vhost: None, quiet: false };
        // What vhosts inherit comes first, wherever it stands.
        let others: Vec<Node> = nodes.iter().filter(|n| n.name != "vhost").cloned().collect();
        self.block(&others, root);
        let vhosts: Vec<&Node> = nodes.iter().filter(|node| node.name == "vhost").collect();
        // Where there is no other vhost, the default one is what `[vhost]` says.
        let only_default = vhosts.len() == 1 && vhosts[0].word() == Some(DEFAULT_VHOST);
        let mut seen = HashSet::new();
        for node in vhosts {
            let (Some(name), Some(children)) = (node.word(), &node.block) else {
                self.fault(node.at, "a vhost is written as: vhost its.name { … }");
                continue;
            };
            if !seen.insert(name) {
                let why = "is there already; the first one counts, as in SRS";
                self.warn(node.at, format!("the vhost {name} {why}"));
                continue;
            }
            let mut vhost = None;
            if !only_default {
                let named = match classify(name, true) {
                    Key::Name => self.draft.name_vhost(name),
                    Key::Mistake(_) => Err(format!("a vhost cannot have the name {name:?}")),
                };
                if let Err(why) = named {
                    self.fault(node.at, why);
                    continue;
                }
                vhost = Some(name);
            }
            self.block(children, Scope { path: "vhost", vhost, quiet: false });
        }
        if !seen.contains(DEFAULT_VHOST) {
            // SRS: who asks for a vhost that is not listed is refused.
            let row = rows().find(|row| row.path == "vhost.enabled").expect("a row of the table");
            if let Err(why) = self.draft.set(row, Some(DEFAULT_VHOST), &Raw::Bool(false)) {
                self.fault(Place::default(), why);
            }
        }
    }

    fn block(&mut self, nodes: &[Node], scope: Scope<'_>) {
        let mut seen = HashSet::new();
        for node in nodes {
            let again = node.block.is_some() && !seen.insert(node.name.as_str());
            if again && !REPEATABLE.contains(&node.name.as_str()) {
                self.repeated_block(node, scope);
                continue;
            }
            self.directive(node, scope, nodes);
        }
    }

    fn repeated_block(&mut self, node: &Node, scope: Scope<'_>) {
        let name = &node.name;
        if scope.path == "vhost" && name == "http_remux" {
            // The one block of which SRS refuses a second one.
            return self.fault(node.at, format!("{name} is there already; remove one of them"));
        }
        self.warn(node.at, format!("{name} is there already; the first one counts, as in SRS"));
    }

    fn directive(&mut self, node: &Node, scope: Scope<'_>, siblings: &[Node]) {
        let path = match scope.path {
            "" => node.name.clone(),
            outer => format!("{outer}.{}", node.name),
        };
        // Engines are the same wherever they stand.
        let path = path.replacen("vhost.ingest.engine.", "vhost.transcode.engine.", 1);
        let known = directives::find(&path);
        let row_path = directives::alias(&path).unwrap_or(&path);
        let row = rows().find(|row| row.path == row_path);
        match (row, &node.block) {
            (Some(row), None) => {
                // The older of two names for one setting steps back.
                let newer = path == "srs_log_level"
                    && siblings.iter().any(|n| n.name == "srs_log_level_v2" && !n.args.is_empty());
                if !newer {
                    self.setting(row, &path, node, scope);
                }
            }
            (Some(_), Some(_)) => self.fault(node.at, format!("{path} takes a value, no block")),
            (None, Some(children)) => self.inner(&path, node, children, scope, known),
            (None, None) if path == "is_full" => {
                if node.word() == Some("on") {
                    let why = "is_full marks a list of all directives, which is not to be run";
                    self.fault(node.at, why);
                }
            }
            (None, None) if self.draft.container.take(&path, node.word()) => {}
            (None, None) => match known {
                Some(known) if known.form == Form::Block => {
                    self.fault(node.at, format!("{path} takes a block: {} {{ … }}", node.name));
                }
                Some(known) => self.missing(known, node, scope, siblings),
                None => self.unknown(&path, node.at),
            },
        }
    }

    /// A block, which is no setting itself.
    fn inner(
        &mut self,
        path: &str,
        node: &Node,
        children: &[Node],
        scope: Scope<'_>,
        known: Option<&directives::Directive>,
    ) {
        let section = SECTIONS.iter().any(|section| section.path == path);
        match known.map(|known| known.form) {
            Some(Form::Block | Form::Gone) => {}
            _ if section => {}
            Some(_) => return self.fault(node.at, format!("{path} takes a value, no block")),
            None => return self.unknown(path, node.at),
        }
        if RAW_BLOCKS.contains(&node.name.as_str()) {
            return;
        }
        let mut quiet = scope.quiet;
        let below = format!("{path}.");
        if let Some(switch) = directives::find(&format!("{below}enabled")) {
            let word = node.child("enabled").and_then(Node::word);
            quiet |= match switch.form {
                Form::On => word == Some("off"),
                Form::Off => word != Some("on"),
                _ => false,
            };
            let has_rows = directives::has_rows(path);
            // What SRS does unasked is not asked for by a block without the word.
            let gone = switch.form == Form::Gone;
            if !quiet && !has_rows && word.is_some() && !gone {
                let why = format!(
                    "{path} is a feature of SRS that this version does not have yet; \
                     switch it off with `enabled off;` or remove it"
                );
                self.fault(node.at, why);
                quiet = true;
            }
        }
        self.block(children, Scope { path, vhost: scope.vhost, quiet });
    }

    /// A directive of SRS that is no setting here.
    fn missing(
        &mut self,
        known: &directives::Directive,
        node: &Node,
        scope: Scope<'_>,
        siblings: &[Node],
    ) {
        let path = known.path;
        // An empty word is SRS's default.
        let asks = node.word().is_some_and(|word| known.asks(word)) && !is_idle(path, siblings);
        if known.form == Form::Gone && !scope.quiet {
            self.warn(node.at, format!("{path} was removed from SRS and has no effect"));
        } else if let Some(why) = moot(path) {
            if asks || path == "http_server.dir" {
                self.warn(node.at, format!("{path} has no effect: {why}"));
            }
        } else if asks && !scope.quiet {
            let why = format!(
                "{path} is a directive of SRS that this version does not have yet; remove it"
            );
            self.fault(node.at, why);
        }
    }

    fn unknown(&mut self, path: &str, at: Place) {
        let outer = path.rsplit_once('.').map(|(outer, _)| outer);
        let all = || {
            let of_srs = directives::all().iter().map(|directive| directive.path);
            let sections = SECTIONS.iter().map(|section| section.path);
            of_srs.chain(rows().map(|row| row.path)).chain(sections)
        };
        let beside = all().filter(|p| p.rsplit_once('.').map(|(outer, _)| outer) == outer);
        let near = nearest(path, beside).or_else(|| nearest(path, all().filter(|p| !p.is_empty())));
        self.fault(
            at,
            match near {
                Some(near) => format!("unknown directive {path}; did you mean {near}?"),
                None => format!("unknown directive {path}"),
            },
        );
    }

    /// A directive that is a setting.
    fn setting(&mut self, row: &'static Row, path: &str, node: &Node, scope: Scope<'_>) {
        let vhost = scope.vhost.map(String::from);
        if matches!(row.kind, Kind::Lines) {
            let words: Vec<_> = node.args.iter().map(|word| quoted(word)).collect();
            let line = Raw::Text(words.join(" "));
            self.note(row, node.at, scope);
            match self.repeated.iter_mut().find(|(v, r, ..)| *v == vhost && r.path == row.path) {
                Some((.., lines)) => lines.push(line),
                None => self.repeated.push((vhost, row, node.at, vec![line])),
            }
            return;
        }
        if !self.set.insert((vhost, path.into())) {
            return self.warn(node.at, format!("{path} is there already; the first one counts"));
        }
        if node.args.is_empty() {
            return self.warn(node.at, format!("{path} says nothing: its default stays"));
        }
        let takes_all = matches!(row.kind, Kind::Listen | Kind::Words);
        if node.args.len() > 1 && !takes_all {
            let more = node.args[1..].join(" ");
            self.warn(node.at, format!("{path} takes one word: {more} has no effect"));
        }
        self.note(row, node.at, scope);
        let raw = self.raw(row, path, node);
        match raw.and_then(|raw| self.draft.set(row, scope.vhost, &raw)) {
            Ok(()) => {}
            Err(why) if scope.quiet => self.warn(node.at, format!("{why}; it is not in use")),
            Err(why) => self.fault(node.at, why),
        }
    }

    /// The written value of a setting, by SRS's rules for its kind.
    fn raw(&mut self, row: &Row, path: &str, node: &Node) -> Result<Raw, String> {
        let word = node.word().unwrap_or_default();
        Ok(match row.kind {
            Kind::Bool { prefer } => {
                if !matches!(word, "on" | "off") {
                    let means = if prefer { "on" } else { "off" };
                    let why = format!("{path} {word} means {means}, as in SRS; write on or off");
                    self.warn(node.at, why);
                }
                Raw::Bool(if prefer { word != "off" } else { word == "on" })
            }
            Kind::Listen | Kind::Words => {
                Raw::List(node.args.iter().map(|arg| Raw::Text(arg.clone())).collect())
            }
            Kind::Choice(_) if path == "srs_log_level" => Raw::Text(old_level(word).into()),
            // ringcast's own words, such as "auto", and texts with a unit where there is no rule
            // of SRS to follow.
            Kind::Time { word: Some(own), .. } | Kind::Bytes { word: Some(own), .. }
                if own == word =>
            {
                Raw::Text(word.into())
            }
            Kind::Bytes { .. } => Raw::Text(word.into()),
            Kind::Int { .. } | Kind::Ratio { .. } | Kind::Time { .. } => {
                let (number, rest) = leading_number(word);
                let Some(number) = number else {
                    return Err(format!("{path} must be a number, not {word:?}"));
                };
                if !rest.is_empty() {
                    let why = format!("{path} {word} is read as {number}, as in SRS");
                    self.warn(node.at, why);
                }
                match row.kind {
                    Kind::Int { .. } => Raw::Int(number as i64),
                    _ => Raw::Float(number),
                }
            }
            Kind::Choice(_) | Kind::Text | Kind::Path | Kind::Mount | Kind::Lines => {
                Raw::Text(word.into())
            }
        })
    }
}

/// Blocks of which there may be several beside each other.
const REPEATABLE: &[&str] = &["stream_caster", "transcode", "ingest", "engine"];

/// A word as it stands in a line of several.
fn quoted(word: &str) -> Cow<'_, str> {
    match word.is_empty() || word.contains(|c: char| c.is_ascii_whitespace()) {
        true if word.contains('"') => Cow::Owned(format!("'{word}'")),
        true => Cow::Owned(format!("\"{word}\"")),
        false => Cow::Borrowed(word),
    }
}

/// Why a directive has no effect although it may be written.
pub(super) fn moot(path: &str) -> Option<&'static str> {
    MOOT.iter().find(|(moot, _)| *moot == path).map(|(_, why)| *why)
}

/// True for a part of a feature that is not in use because of what stands beside it.
fn is_idle(path: &str, siblings: &[Node]) -> bool {
    let word = |name: &str| siblings.iter().find(|node| node.name == name).and_then(Node::word);
    match path {
        "vhost.cluster.mode" | "vhost.cluster.origin_cluster" => false,
        "vhost.cluster.coworkers" => word("origin_cluster") != Some("on"),
        _ if path.starts_with("vhost.cluster.") => word("mode") != Some("remote"),
        _ => false,
    }
}

/// SRS's older level names, which are one step off the usual ones.
pub(super) fn old_level(text: &str) -> &str {
    match text {
        "verbose" => "trace",
        "info" => "debug",
        "trace" => "info",
        other => other,
    }
}

/// The number that a word begins with, and what follows it (SRS: atof).
fn leading_number(word: &str) -> (Option<f64>, &str) {
    let mut end = 0;
    let mut dot = false;
    for (index, c) in word.char_indices() {
        match c {
            '0'..='9' => end = index + 1,
            '-' | '+' if index == 0 => {}
            '.' if !dot => dot = true,
            _ => break,
        }
    }
    let rest = word[end..].strip_prefix('.').unwrap_or(&word[end..]);
    (word[..end].parse().ok(), rest)
}

#[cfg(test)]
mod tests;
