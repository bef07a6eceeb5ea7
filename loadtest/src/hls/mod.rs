//! A viewer of HLS, without sockets: a connection that stays, playlists and pieces one after the
//! other on it.
//!
//! Plain playlists are loaded again after a target duration, or half of one when nothing was new
//! (RFC 8216 6.3.4), and every new segment once. Where the server holds requests (LL-HLS), the
//! viewer asks for the playlist that has the next part, and behind it, on the same connection, for
//! the part that is hinted at, so that both come when they are there. Most viewers count what they
//! get and keep nothing of it; those that verify look into it.

pub mod list;
pub mod media;
pub mod times;

use std::collections::VecDeque;

use ringcast::proto::hls::check;
use ringcast::proto::http::{ChunkedDecoder, Piece};

use crate::player::Failure;
use crate::record::{Found, Record};
use crate::stats::record;
use crate::target::Target;
use list::Item;
use times::{HlsStats, PartTimes};

/// How viewers use what a server offers.
#[derive(Clone, Copy, Debug)]
pub struct Habits {
    /// Parts, where there are some.
    pub parts: bool,
    /// Asks for the part that is hinted at, and not only when it is there.
    pub hints: bool,
    /// Playlists without what it knows.
    pub deltas: bool,
    /// Looks into everything.
    pub verify: bool,
}

/// What a viewer may write to while it takes in bytes.
pub struct Context<'a> {
    /// Nanoseconds on the clock.
    pub now: u64,
    /// What is counted.
    pub stats: &'a mut HlsStats,
    /// When parts were there.
    pub parts: &'a mut PartTimes,
    /// Gets every record of viewers that verify, in the publisher's order as far as it can be seen.
    pub on_record: &'a mut dyn FnMut(Found),
    /// Gets every rule that a playlist or a container breaks.
    pub on_fault: &'a mut dyn FnMut(String),
}

/// What bytes led to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// The first playlist came.
    pub started: bool,
    /// Bytes of segments and parts.
    pub media_bytes: u64,
    /// The playlist is to be loaded again then, nanoseconds.
    pub reload_at: Option<u64>,
    /// The server closes the connection; the next request needs another one.
    pub closes: bool,
}

/// Something that was asked for and not answered yet.
#[derive(Clone, Debug)]
struct Asked {
    what: What,
    path: Box<str>,
    at: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    /// The playlist; with the part that it has to have.
    Playlist(Option<(u64, u64)>),
    Init,
    /// How long it is, ms.
    Segment(u32),
    /// Which, and how long it is, ms.
    Part((u64, u64), u32),
}

/// The answer that is being read.
#[derive(Debug)]
struct Answer {
    status: u16,
    body: Body,
    close: bool,
}

#[derive(Debug)]
enum Body {
    Length(u64),
    Chunked(ChunkedDecoder),
    /// To the end of the connection.
    Rest,
}

/// One viewer.
#[derive(Debug)]
pub struct Viewer {
    habits: Habits,
    authority: String,
    /// Path of the playlist that is loaded again and again.
    playlist: String,
    output: Vec<u8>,
    head: Vec<u8>,
    answer: Option<Answer>,
    asked: VecDeque<Asked>,
    /// Answers on this connection, and when the last one ended.
    answers: u64,
    free_at: u64,
    /// The body, where it is looked into.
    body: Vec<u8>,
    started: bool,
    /// The segment and part that is to be asked for next.
    wanted: Option<(u64, u64)>,
    /// Initialisation segment, by the hash of its address.
    map: Option<u64>,
    target_ms: u32,
    failures: u32,
    /// When the beginning of what it plays was or would have been played, ns, and how much of it
    /// has come, ms.
    playing: Option<(u64, u64)>,
    inside: Option<Box<Inside>>,
}

/// What a viewer that verifies knows.
#[derive(Debug, Default)]
struct Inside {
    rules: check::Checker,
    /// Records that came before others which the publisher sent earlier.
    early: Vec<Record>,
    next: Option<(u32, u32)>,
}

/// Requests on the way at most.
const ASKED_MAX: usize = 16;
/// So much of a body is kept; a playlist is never longer, and of longer segments only the length
/// counts.
const BODY_BYTES_MAX: usize = 16 << 20;
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Playlists that fail one after the other until a viewer gives up.
const FAILURES_MAX: u32 = 10;
/// Segments that a viewer of a plain playlist begins before the end (RFC 8216 6.3.3).
const BEGIN_SEGMENTS: u64 = 3;
/// Loads after which the rules are looked at anew, so that nothing grows.
const RULES_LOADS: u64 = 2_000;
/// Records that may wait for an earlier one.
const EARLY_MAX: usize = 64;
const MS: u64 = 1_000_000;

impl Viewer {
    /// A viewer that just connected: it asks for the playlist.
    pub fn new(target: &Target, habits: Habits, now: u64) -> Viewer {
        let mut viewer = Viewer {
            habits,
            authority: target.authority.clone(),
            playlist: target.path.clone(),
            output: Vec::new(),
            head: Vec::new(),
            answer: None,
            asked: VecDeque::new(),
            answers: 0,
            free_at: now,
            body: Vec::new(),
            started: false,
            wanted: None,
            map: None,
            target_ms: 0,
            failures: 0,
            playing: None,
            inside: habits.verify.then(Box::default),
        };
        viewer.reload(now);
        viewer
    }

    /// Bytes to send; the caller takes them.
    pub fn output(&mut self) -> &mut Vec<u8> {
        &mut self.output
    }

    /// How long nothing may come before it is a silence, ns, beyond what it is for other players.
    pub fn patience(&self) -> u64 {
        2 * u64::from(self.target_ms) * MS
    }

    /// The connection has ended. True when that is no fault: the viewer goes on over another one.
    pub fn survives_end(&self) -> bool {
        let untouched = self.answer.is_none() && self.head.is_empty();
        untouched && (self.asked.is_empty() || self.answers > 0)
    }

    /// The last bytes of a body that lasts to the end of its connection have come.
    pub fn end(&mut self, cx: &mut Context<'_>) -> Result<Outcome, Failure> {
        let mut outcome = Outcome::default();
        if matches!(self.answer, Some(Answer { body: Body::Rest, .. })) {
            self.finish(&[], cx, &mut outcome)?;
        }
        Ok(outcome)
    }

    /// There is another connection: asks again for what was not answered.
    pub fn resume(&mut self, now: u64) {
        self.answers = 0;
        self.free_at = now;
        self.head.clear();
        self.body.clear();
        self.answer = None;
        self.output.clear();
        for asked in std::mem::take(&mut self.asked) {
            self.ask(asked.what, &asked.path, asked.at);
        }
    }

    /// Loads the playlist again: its time has come.
    pub fn reload(&mut self, now: u64) {
        if self.asked.len() < ASKED_MAX {
            let path = self.playlist.clone();
            self.ask(What::Playlist(None), &path, now);
        }
    }

    fn ask(&mut self, what: What, path: &str, now: u64) {
        for piece in ["GET ", path, " HTTP/1.1\r\nHost: ", &self.authority, USER_AGENT] {
            self.output.extend_from_slice(piece.as_bytes());
        }
        self.asked.push_back(Asked { what, path: path.into(), at: now });
    }

    /// Takes received bytes.
    pub fn input(&mut self, mut data: &[u8], cx: &mut Context<'_>) -> Result<Outcome, Failure> {
        let mut outcome = Outcome::default();
        loop {
            if self.answer.is_none() {
                if data.is_empty() || !self.read_head(&mut data)? {
                    return Ok(outcome);
                }
                if self.asked.is_empty() {
                    return Err(Failure::Protocol("an answer that nobody asked for".to_owned()));
                }
            }
            let Some(answer) = &mut self.answer else { return Ok(outcome) };
            let (piece, complete) = match &mut answer.body {
                Body::Length(left) => {
                    let take = data.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                    let piece;
                    (piece, data) = data.split_at(take);
                    *left -= take as u64;
                    (piece, *left == 0)
                }
                Body::Rest => (std::mem::take(&mut data), false),
                Body::Chunked(decoder) => {
                    let piece = decoder.decode(&mut data);
                    match piece.map_err(|e| Failure::Protocol(e.to_string()))? {
                        Piece::Data(piece) => (piece, false),
                        Piece::More => return Ok(outcome),
                        Piece::End => (&[][..], true),
                    }
                }
            };
            let status = answer.status;
            self.count(status, piece, cx, &mut outcome);
            if complete {
                self.finish(piece, cx, &mut outcome)?;
                continue;
            }
            self.keep(piece);
            if data.is_empty() {
                return Ok(outcome);
            }
        }
    }

    /// True when a head is complete.
    fn read_head(&mut self, data: &mut &[u8]) -> Result<bool, Failure> {
        let broken = |what: &str| Failure::Protocol(what.to_owned());
        let before = self.head.len();
        let whole = if before == 0 {
            *data
        } else {
            self.head.extend_from_slice(data);
            &self.head[..]
        };
        let Some(end) = memchr::memmem::find(whole, b"\r\n\r\n") else {
            if whole.len() > HEAD_BYTES_MAX {
                return Err(broken("endless response head"));
            }
            if before == 0 {
                self.head.extend_from_slice(data);
            }
            return Ok(false);
        };
        let answer = head(&whole[..end]).ok_or_else(|| broken("a response head of no form"))?;
        *data = &data[end + 4 - before..];
        self.head = Vec::new();
        self.answer = Some(answer);
        Ok(true)
    }

    fn count(&self, status: u16, piece: &[u8], cx: &mut Context<'_>, outcome: &mut Outcome) {
        let bytes = piece.len() as u64;
        match self.asked.front().map(|asked| asked.what) {
            _ if !matches!(status, 200 | 206) => {}
            Some(What::Playlist(_)) => cx.stats.playlist_bytes += bytes,
            Some(What::Segment(..) | What::Part(..)) => {
                outcome.media_bytes += bytes;
                cx.stats.media_bytes += bytes;
            }
            Some(What::Init) | None => {}
        }
    }

    /// Keeps a piece of a body that goes on, if the body is of any use.
    fn keep(&mut self, piece: &[u8]) {
        let used = match self.asked.front().map(|asked| asked.what) {
            Some(What::Playlist(_)) => true,
            Some(What::Segment(..) | What::Part(..)) => self.inside.is_some(),
            Some(What::Init) | None => false,
        };
        if used && self.body.len() < BODY_BYTES_MAX {
            self.body.extend_from_slice(piece);
        }
    }

    /// An answer is complete, with these bytes at its end.
    fn finish(
        &mut self,
        last: &[u8],
        cx: &mut Context<'_>,
        outcome: &mut Outcome,
    ) -> Result<(), Failure> {
        let Some(answer) = self.answer.take() else { return Ok(()) };
        let Some(asked) = self.asked.pop_front() else { return Ok(()) };
        self.answers += 1;
        outcome.closes |= answer.close;
        // What is asked for behind something else is served after it.
        let took = cx.now.saturating_sub(asked.at.max(self.free_at));
        self.free_at = cx.now;
        let mut kept = std::mem::take(&mut self.body);
        let body = if kept.is_empty() {
            last
        } else {
            kept.extend_from_slice(last);
            &kept[..]
        };
        if !matches!(answer.status, 200 | 206) {
            *cx.stats.refused.entry(answer.status).or_default() += 1;
            return self.refused(&asked, answer.status, cx, outcome);
        }
        match asked.what {
            What::Playlist(place) => {
                cx.stats.playlists += 1;
                match place {
                    None => record(&mut cx.stats.playlist, took),
                    Some(place) => cx.parts.answered(place, cx.now, cx.stats),
                }
                let text = std::str::from_utf8(body);
                let text = text.map_err(|_| Failure::Protocol("a playlist of no text".into()))?;
                self.playlist(place, text, asked.at, cx, outcome)?;
            }
            What::Init => cx.stats.inits += 1,
            What::Segment(ms) => {
                cx.stats.segments += 1;
                record(&mut cx.stats.segment, took);
                self.arrived(ms, cx);
                self.look_into(body, None, cx);
            }
            What::Part(place, ms) => {
                cx.stats.parts += 1;
                record(&mut cx.stats.part, took);
                self.arrived(ms, cx);
                self.look_into(body, Some(place), cx);
            }
        }
        Ok(())
    }

    fn refused(
        &mut self,
        asked: &Asked,
        status: u16,
        cx: &mut Context<'_>,
        outcome: &mut Outcome,
    ) -> Result<(), Failure> {
        match asked.what {
            What::Playlist(_) => {
                self.failures += 1;
                if !self.started || self.failures >= FAILURES_MAX {
                    return Err(Failure::Refused(format!("HTTP status {status}")));
                }
                let pause = u64::from(self.target_ms.max(1_000) / 2) * MS;
                outcome.reload_at = Some(cx.now + pause);
            }
            What::Init => {}
            What::Segment(..) | What::Part(..) => {
                cx.stats.missed += 1;
                self.playing = None;
            }
        }
        Ok(())
    }

    /// So many milliseconds of media have come.
    fn arrived(&mut self, ms: u32, cx: &mut Context<'_>) {
        let (from, come) = self.playing.get_or_insert((cx.now, 0));
        let due = *from + *come * MS;
        if cx.now > due {
            // It stands still until this comes, and goes on from there.
            cx.stats.late += 1;
            *from += cx.now - due;
        }
        *come += u64::from(ms);
    }

    fn playlist(
        &mut self,
        place: Option<(u64, u64)>,
        text: &str,
        asked_at: u64,
        cx: &mut Context<'_>,
        outcome: &mut Outcome,
    ) -> Result<(), Failure> {
        let broken = |what: &str| Failure::Protocol(what.to_owned());
        if self.wanted.is_none() && !self.begin(text)? {
            // It was a master playlist.
            self.reload(cx.now);
            return Ok(());
        }
        self.failures = 0;
        outcome.started = !std::mem::replace(&mut self.started, true);
        let before = self.wanted;
        let base = self.playlist.split('?').next().unwrap_or_default();
        let base = base[..base.rfind('/').map_or(0, |at| at + 1)].to_owned();
        let (mut full, mut parts_of, mut far) = (false, None, false);
        let look = list::read(text, &mut |item| {
            far |= !self.named(&item, &base, &mut full, &mut parts_of, cx);
        });
        let look = look.map_err(broken)?;
        if far {
            return Err(broken("an address on another host"));
        }
        self.target_ms = look.target_ms;
        cx.stats.deltas += u64::from(look.skipped > 0);
        self.check_rules(text, cx);
        if look.ended {
            if self.asked.is_empty() {
                return Err(Failure::Ended);
            }
            outcome.reload_at = Some(cx.now + MS * u64::from(look.target_ms));
            return Ok(());
        }
        let is_new = self.wanted != before;
        if full {
            self.reload(cx.now);
        } else if self.habits.parts && look.can_block && look.part_target_ms > 0 {
            let next = (look.next, look.open_parts);
            if place == Some(next) {
                // Not held, although what it asked for is not there.
                let pause = u64::from(look.part_target_ms / 2) * MS;
                outcome.reload_at = Some(cx.now + pause);
                return Ok(());
            }
            self.ask_for_next(next, &look, &base, cx.now)?;
        } else {
            let span = if is_new { look.target_ms } else { look.target_ms / 2 };
            let at = asked_at + u64::from(span) * MS;
            outcome.reload_at = Some(at.max(cx.now + 50 * MS));
        }
        Ok(())
    }

    /// Asks for the playlist that has the next part, and for that part.
    fn ask_for_next(
        &mut self,
        next: (u64, u64),
        look: &list::Look<'_>,
        base: &str,
        now: u64,
    ) -> Result<(), Failure> {
        let mark = if self.playlist.contains('?') { '&' } else { '?' };
        let skip = if self.habits.deltas && look.can_skip { "&_HLS_skip=YES" } else { "" };
        let (number, part) = next;
        let path = format!("{}{mark}_HLS_msn={number}&_HLS_part={part}{skip}", self.playlist);
        self.ask(What::Playlist(Some(next)), &path, now);
        if let Some(hint) = look.hint.filter(|_| self.habits.hints)
            && self.wanted == Some(next)
        {
            let path = self.resolve(hint, base);
            let path =
                path.ok_or_else(|| Failure::Protocol("an address on another host".into()))?;
            self.ask(What::Part(next, look.part_target_ms), &path, now);
            self.wanted = Some((number, part + 1));
        }
        Ok(())
    }

    /// Looks at the first playlist: where to begin. False when it names others instead.
    fn begin(&mut self, text: &str) -> Result<bool, Failure> {
        let broken = |what: &str| Failure::Protocol(what.to_owned());
        let mut pieces: VecDeque<(u64, u32)> = VecDeque::new();
        let mut open_ms = 0;
        let look = list::read(text, &mut |item| match item {
            Item::Part { ms, .. } => open_ms += ms,
            Item::Segment { number, ms, .. } => {
                open_ms = 0;
                pieces.push_back((number, ms));
            }
        });
        let look = look.map_err(broken)?;
        if let Some(variant) = look.variant {
            let base = self.playlist.split('?').next().unwrap_or_default();
            let base = base[..base.rfind('/').map_or(0, |at| at + 1)].to_owned();
            let path = self.resolve(variant, &base);
            let path = path.ok_or_else(|| broken("an address on another host"))?;
            if path == self.playlist {
                return Err(broken("a master playlist that names itself"));
            }
            self.playlist = path;
            return Ok(false);
        }
        let mut start = look.next;
        if self.habits.parts && look.part_target_ms > 0 {
            let mut behind = open_ms;
            while behind < look.hold_back_ms
                && let Some((number, ms)) = pieces.pop_back()
            {
                start = number;
                behind += ms;
            }
        } else {
            let first = pieces.front().map_or(look.next, |(number, _)| *number);
            start = first.max(look.next.saturating_sub(BEGIN_SEGMENTS));
        }
        self.wanted = Some((start, 0));
        Ok(true)
    }

    /// Asks for what a playlist names and was not asked for yet. False when it is elsewhere.
    fn named(
        &mut self,
        item: &Item<'_>,
        base: &str,
        full: &mut bool,
        parts_of: &mut Option<u64>,
        cx: &mut Context<'_>,
    ) -> bool {
        let (place, uri, map) = match *item {
            Item::Part { place, uri, map, ms } => {
                *parts_of = Some(place.0);
                // Now it is known how long the part is that was hinted at.
                let hinted = self.asked.iter_mut().find_map(|asked| match &mut asked.what {
                    What::Part(asked, ms) if *asked == place => Some(ms),
                    _ => None,
                });
                if let Some(known) = hinted {
                    *known = ms;
                }
                (place, uri, map)
            }
            Item::Segment { number, uri, map, .. } => ((number, 0), uri, map),
        };
        let Some(mut wanted) = self.wanted else { return true };
        if place.0 < wanted.0 {
            return true;
        }
        if place.0 > wanted.0 && !*full {
            cx.stats.missed += place.0 - wanted.0;
            self.playing = None;
            wanted = (place.0, 0);
        }
        let what = match *item {
            Item::Part { ms, .. } if self.habits.parts => What::Part(place, ms),
            Item::Part { .. } => return true,
            Item::Segment { .. } if *full => return true,
            Item::Segment { ms, .. } if wanted.1 == 0 => What::Segment(ms),
            Item::Segment { number, .. } => {
                // Its parts were asked for; where they are not named any more some may be missing.
                cx.stats.missed += u64::from(*parts_of != Some(number));
                self.wanted = Some((number + 1, 0));
                return true;
            }
        };
        if matches!(what, What::Part(..)) && place < wanted {
            self.wanted = Some(wanted);
            return true;
        }
        if *full || self.asked.len() + 3 > ASKED_MAX {
            *full = true;
            return true;
        }
        if let Some(map) = map {
            let hash = crate::record::hash(1, map.as_bytes());
            if self.map.replace(hash) != Some(hash) {
                let Some(path) = self.resolve(map, base) else { return false };
                self.ask(What::Init, &path, cx.now);
            }
        }
        let Some(path) = self.resolve(uri, base) else { return false };
        self.ask(what, &path, cx.now);
        self.wanted = Some(match what {
            What::Part((number, index), _) => (number, index + 1),
            _ => (place.0 + 1, 0),
        });
        true
    }

    /// The path of an address; `None` when it is on another host.
    fn resolve(&self, uri: &str, base: &str) -> Option<String> {
        if let Some(rest) = uri.strip_prefix("http://") {
            let path = rest.strip_prefix(self.authority.as_str())?;
            return path.starts_with('/').then(|| path.to_owned());
        }
        if uri.contains("://") {
            return None;
        }
        Some(if uri.starts_with('/') { uri.to_owned() } else { format!("{base}{uri}") })
    }

    fn check_rules(&mut self, text: &str, cx: &mut Context<'_>) {
        let Some(inside) = &mut self.inside else { return };
        if inside.rules.loads >= RULES_LOADS {
            inside.rules = check::Checker::default();
        }
        // Whether somebody publishes is not known here.
        if let Err(why) = inside.rules.load(cx.now as f64 / 1e9, false, text) {
            (cx.on_fault)(format!("playlist: {why}"));
            inside.rules = check::Checker::default();
        }
    }

    /// Checks the frames of a piece, if this viewer does.
    fn look_into(&mut self, body: &[u8], place: Option<(u64, u64)>, cx: &mut Context<'_>) {
        let Some(inside) = &mut self.inside else { return };
        if body.len() >= BODY_BYTES_MAX {
            return;
        }
        let mut first = u64::MAX;
        let outcome = media::frames(body, &mut |_, payload| match Record::find(payload) {
            Found::Good(record) => {
                first = first.min(record.sent);
                inside.early.push(record);
            }
            other => (cx.on_record)(other),
        });
        if let Err(why) = outcome {
            (cx.on_fault)(format!("segment: {why}"));
        }
        if let Some(place) = place.filter(|_| first != u64::MAX) {
            cx.parts.began(place, first, cx.stats);
        }
        // Tracks may lie one behind the other: the publisher's order is that of the numbers.
        inside.early.sort_by_key(|record| record.sent);
        let mut take = 0;
        for (index, record) in inside.early.iter().enumerate() {
            let follows = inside.next.is_none_or(|next| next == (record.epoch, record.seq));
            if !follows && inside.early.len() - index <= EARLY_MAX {
                break;
            }
            inside.next = Some((record.epoch, record.seq.wrapping_add(1)));
            (cx.on_record)(Found::Good(*record));
            take = index + 1;
        }
        inside.early.drain(..take);
    }
}

const USER_AGENT: &str = "\r\nUser-Agent: loadtest\r\nAccept: */*\r\n\r\n";

/// Reads a response head without its empty line.
fn head(bytes: &[u8]) -> Option<Answer> {
    let text = std::str::from_utf8(bytes).ok()?;
    let mut lines = text.split("\r\n");
    let mut words = lines.next()?.splitn(3, ' ');
    let version = words.next()?.strip_prefix("HTTP/1.")?;
    let status: u16 = words.next()?.parse().ok()?;
    let mut answer = Answer { status, body: Body::Rest, close: version == "0" };
    for line in lines {
        let (name, value) = line.split_once(':')?;
        let value = value.trim();
        if name.eq_ignore_ascii_case("content-length") {
            if !matches!(answer.body, Body::Chunked(_)) {
                answer.body = Body::Length(value.parse().ok()?);
            }
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            answer.body = Body::Chunked(ChunkedDecoder::new());
        } else if name.eq_ignore_ascii_case("connection") {
            answer.close = value.eq_ignore_ascii_case("close");
        }
    }
    if matches!(status, 100..=199 | 204 | 304) {
        answer.body = Body::Length(0);
    }
    answer.close |= matches!(answer.body, Body::Rest);
    Some(answer)
}

#[cfg(test)]
mod tests;
