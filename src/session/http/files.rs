//! Files over HTTP: those of `http_server.dir` and `http_static`, recordings among them, and
//! segments that are on disk only.
//!
//! A request names up to two places, which are looked at in their order; what is not open yet is
//! opened by the ring while the session waits. Bytes go from the file to the socket by splice.

use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

use uring::FileKind;

use super::{
    Asked, Extent, HttpSession, Request, ResponseHead, State, asked_vhost, text_head, with_cors,
};
use crate::config::Config;
use crate::hub::Reason;
use crate::proto::http::file::{self, Answer, Version};
use crate::proto::http::{date, url};
use crate::remux::Stream;
use crate::session::admission;
use crate::session::body::{Body, Part};
use crate::session::files::{Known, NoFile, OpenFile, Place, below};
use crate::session::viewers::Viewer;
use crate::session::vod::{self, Ask, From, Plan};
use crate::session::{Env, Wish};

/// A request for a file that is looked for.
#[derive(Debug)]
pub(super) struct Looking {
    request: Request,
    /// Where it may be, the next one last.
    places: Vec<Place>,
    otherwise: Otherwise,
    /// Whose segment it is.
    segment: Option<Segment>,
}

/// What a request is if there is no such file.
#[derive(Debug)]
pub(super) enum Otherwise {
    /// Nothing.
    NotFound,
    /// A player of a stream that is not there yet.
    Play(Asked),
}

/// Whom a segment is sent to.
#[derive(Clone, Debug)]
pub(super) struct Segment {
    pub(super) stream: Option<Arc<Stream>>,
    pub(super) viewer: Option<Arc<Viewer>>,
}

/// A recording that is about to be played from another place than its beginning.
#[derive(Debug)]
pub(super) struct Preparing {
    request: Request,
    file: Rc<OpenFile>,
    ask: Arc<Ask>,
}

impl Preparing {
    pub(super) fn is_ready(&self) -> bool {
        self.ask.answer().is_some()
    }
}

/// Where a path is looked for among the files of the vhost that is asked for: below the longest
/// path that something is mounted at, or in the default folder.
pub(super) fn place(config: &Config, request: &Request) -> Option<Place> {
    let asked = &asked_vhost(request);
    let own = config.vhost(asked);
    if !own.enabled {
        return None;
    }
    let rest = |mounted: &str| {
        let rest = request.path.strip_prefix(mounted)?;
        rest.starts_with('/').then(|| rest.to_owned())
    };
    let mut best: Option<(usize, PathBuf, String)> = None;
    let mine = std::iter::once((config.vhost_name(asked), own));
    let for_all = config.all_vhosts().filter(|(_, vhost)| vhost.http_static.is_for_all());
    for (name, vhost) in mine.chain(for_all).filter(|(_, vhost)| vhost.enabled) {
        let Some(path) = vhost.http_static.path() else { continue };
        let Some(rest) = rest(path) else { continue };
        if best.as_ref().is_none_or(|(len, ..)| *len < path.len()) {
            best = Some((path.len(), vhost.http_static.folder(name), rest));
        }
    }
    if let Some((_, root, rest)) = best {
        return Some(Place { root, path: below(&rest)? });
    }
    let root = &config.http_server.dir;
    // What is recorded of streams that not everybody may play is not for everybody either.
    let kept = file::is_media(file::content_type(&request.path)) && admission::has_play_rule(own);
    if root.as_os_str().is_empty() || kept {
        return None;
    }
    Some(Place { root: root.clone(), path: below(&request.path)? })
}

impl HttpSession {
    /// Looks for a file in some places, the first one first.
    pub(super) fn look_for(
        &mut self,
        out: &mut Vec<u8>,
        env: &mut Env<'_>,
        request: Request,
        mut places: Vec<Place>,
        otherwise: Otherwise,
        segment: Option<Segment>,
    ) {
        places.reverse();
        self.look(out, env, Box::new(Looking { request, places, otherwise, segment }));
    }

    fn look(&mut self, out: &mut Vec<u8>, env: &mut Env<'_>, mut looking: Box<Looking>) {
        while let Some(place) = looking.places.last() {
            match env.files.find(place, env.now) {
                Known::Open(file) => match self.found(out, env, looking, file) {
                    Some(back) => looking = back,
                    None => return,
                },
                Known::Missing => {}
                Known::Full => return self.busy(out, env, &looking.request),
                Known::Unknown => {
                    env.wishes.push(Wish::Open(place.clone()));
                    self.state = State::Opening(looking);
                    return;
                }
            }
            looking.places.pop();
        }
        let Looking { request, otherwise, .. } = *looking;
        match otherwise {
            Otherwise::Play(asked) => self.play(out, env, request, asked),
            Otherwise::NotFound => {
                env.counters.count(Reason::NotFound);
                self.not_found(out, env, &request);
            }
        }
    }

    /// A file that was asked for is open, or is not there.
    pub fn file_opened(
        &mut self,
        out: &mut Vec<u8>,
        env: &mut Env<'_>,
        result: Result<Rc<OpenFile>, NoFile>,
    ) {
        if !matches!(self.state, State::Opening(_)) {
            return;
        }
        let State::Opening(mut looking) = std::mem::replace(&mut self.state, State::Requests)
        else {
            return;
        };
        match result {
            Ok(file) => {
                if let Some(mut looking) = self.found(out, env, looking, file) {
                    looking.places.pop();
                    self.look(out, env, looking);
                }
            }
            Err(NoFile::Missing) => {
                looking.places.pop();
                self.look(out, env, looking);
            }
            Err(NoFile::Full) => self.busy(out, env, &looking.request),
            Err(NoFile::Failed(errno)) => {
                env.counters.count(Reason::FileFailed);
                if env.may_say() {
                    tracing::warn!(reason = Reason::FileFailed.name(), id = %self.id,
                        path = ?looking.request.path, "a file cannot be opened: {errno}");
                }
                let body = b"500 the file cannot be read\n";
                self.refuse_file(out, env, &looking.request, (500, body));
            }
        }
        self.go_on(out, env);
    }

    fn busy(&mut self, out: &mut Vec<u8>, env: &mut Env<'_>, request: &Request) {
        env.counters.count(Reason::FilesLimit);
        self.refuse_file(out, env, request, (503, b"503 not now, try again later\n"));
    }

    fn refuse_file(
        &mut self,
        out: &mut Vec<u8>,
        env: &mut Env<'_>,
        request: &Request,
        (status, body): (u16, &[u8]),
    ) {
        let head = text_head(env, request, status).header("Cache-Control", "no-store");
        self.reply(out, env, request, head, Some(body));
    }

    /// Answers with a file. Gives the request back when it is none that is sent.
    fn found(
        &mut self,
        out: &mut Vec<u8>,
        env: &mut Env<'_>,
        looking: Box<Looking>,
        file: Rc<OpenFile>,
    ) -> Option<Box<Looking>> {
        match file.kind {
            FileKind::Regular => {}
            FileKind::Folder if looking.segment.is_none() => {
                let name = looking.request.path.rsplit('/').next().unwrap_or_default();
                // Relative, so that it leads to no other host whatever the path is.
                let mut to = format!("./{}/", url::percent_encode(name));
                if !looking.request.query.is_empty() {
                    to = format!("{to}?{}", looking.request.query);
                }
                let head = ResponseHead::new(301).header("Location", &to);
                let head = with_cors(head, &looking.request, env.config.http_server.crossdomain);
                self.reply(out, env, &looking.request, head, Some(b""));
                return None;
            }
            FileKind::Folder | FileKind::Other => return Some(looking),
        }
        let Looking { request, segment, .. } = *looking;
        match start(&request).filter(|_| segment.is_none()) {
            Some(from) => self.prepare(out, env, request, file, from),
            None => {
                let all = Plan { head: bytes::Bytes::new(), file: (0, file.len) };
                self.send_file(out, env, &request, &file, &all, segment);
            }
        }
        None
    }

    /// Asks the control thread what comes before the place that a player wants.
    fn prepare(
        &mut self,
        out: &mut Vec<u8>,
        env: &mut Env<'_>,
        request: Request,
        file: Rc<OpenFile>,
        from: From,
    ) {
        let ask = Ask::new((file.file.clone(), file.len), from, (env.shard, env.conn));
        if !env.admission.desk.ask_vod(ask.clone()) {
            return self.busy(out, env, &request);
        }
        env.wishes.push(Wish::Prepare);
        self.state = State::Preparing(Box::new(Preparing { request, file, ask }));
    }

    /// Goes on once the control thread has said what comes first.
    pub(super) fn prepared(&mut self, out: &mut Vec<u8>, env: &mut Env<'_>) {
        let State::Preparing(preparing) = std::mem::replace(&mut self.state, State::Requests)
        else {
            return;
        };
        let Preparing { request, file, ask } = *preparing;
        match ask.answer() {
            Some(Ok(plan)) => self.send_file(out, env, &request, &file, plan, None),
            Some(Err(vod::Fault::Full)) => self.busy(out, env, &request),
            Some(Err(why)) => {
                env.counters.count(Reason::FileStart);
                if env.may_say() {
                    tracing::info!(id = %self.id, peer = %env.peer, path = ?request.path,
                        "not played from there: {why}");
                }
                let answer: (u16, &[u8]) = match why {
                    vod::Fault::Place => (400, b"400 nothing begins at this place\n"),
                    vod::Fault::File(_) => (415, b"415 this file has no such places\n"),
                    vod::Fault::Disk | vod::Fault::Full => (500, b"500 the file cannot be read\n"),
                };
                self.refuse_file(out, env, &request, answer);
            }
            None => {}
        }
        self.go_on(out, env);
    }

    fn send_file(
        &mut self,
        out: &mut Vec<u8>,
        env: &mut Env<'_>,
        request: &Request,
        file: &Rc<OpenFile>,
        plan: &Plan,
        segment: Option<Segment>,
    ) {
        let total = plan.head.len() as u64 + plan.file.1;
        let etag = match plan.file.0 {
            0 => file.etag.clone(),
            from => format!("{}.{from:x}\"", file.etag.trim_end_matches('"')),
        };
        let content_type = match request.path.ends_with('/') {
            true => file::content_type("index.html"),
            false => file::content_type(&request.path),
        };
        let version = Version { etag: &etag, modified: file.modified, len: total };
        // SRS: a range may stand in the query of an MP4.
        let asked = request.param("range").or_else(|| request.param("bytes"));
        let asked = asked.filter(|_| segment.is_none() && content_type == "video/mp4");
        let asked = asked.map(|range| match range.starts_with("bytes=") {
            true => range.to_owned(),
            false => format!("bytes={range}"),
        });
        let answer = file::answer(request, version, asked.as_deref());
        let (status, start, len) = match answer {
            Answer::Whole => (200, 0, total),
            Answer::Part(start, len) => (206, start, len),
            Answer::Unchanged => (304, 0, 0),
            Answer::Changed => (412, 0, 0),
            Answer::NoSuchRange => (416, 0, 0),
        };
        let is_list = file::is_list(content_type);
        let kept = if file::is_media(content_type) && !is_list { "max-age=60" } else { "no-cache" };
        let head = ResponseHead::new(status).header("Cache-Control", kept);
        let head = with_cors(head, request, env.config.http_server.crossdomain)
            .header("ETag", &etag)
            .header("Last-Modified", &date::write(file.modified));
        match answer {
            Answer::Unchanged => return self.reply(out, env, request, head, None),
            Answer::Changed => {
                let head = head.header("Content-Type", "text/plain");
                return self.reply(out, env, request, head, Some(b"412 it has changed\n"));
            }
            Answer::NoSuchRange => {
                let head = head
                    .header("Content-Type", "text/plain")
                    .header("Content-Range", &format!("bytes */{total}"));
                return self.reply(out, env, request, head, Some(b"416 no such range\n"));
            }
            Answer::Whole | Answer::Part(..) => {}
        }
        let head =
            head.header("Content-Type", content_type).header("X-Content-Type-Options", "nosniff");
        let body = || {
            let (offset, bytes) = plan.file;
            let parts = [Part::Bytes(plan.head.clone()), Part::File(file.clone(), offset, bytes)];
            let (stream, viewer) = segment.map(|s| (s.stream, s.viewer)).unwrap_or_default();
            Body::of(parts, (start, len), stream, viewer)
        };
        let extent = Extent { is_part: status == 206, start, len, total };
        self.serve(out, env, request, head, (extent, body));
    }
}

/// Where a request for a recording wants to begin, if not at its beginning.
fn start(request: &Request) -> Option<From> {
    let start = request.param("start")?;
    match file::content_type(&request.path) {
        "video/x-flv" => match start.parse() {
            Ok(0) | Err(_) => None,
            Ok(byte) => Some(From::FlvByte(byte)),
        },
        "video/mp4" | "audio/mp4" => {
            let seconds: f64 = start.parse().ok()?;
            // What is no number of seconds is the beginning, as in nginx.
            (seconds > 0.0 && seconds < 1e9).then_some(From::Mp4Ms((seconds * 1000.0) as u64))
        }
        _ => None,
    }
}
