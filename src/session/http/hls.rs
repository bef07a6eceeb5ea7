//! Playlists and segments over HTTP.
//!
//! A player first gets a master playlist, which names a playlist of its own (`hls_ctx`); with that
//! it is a viewer (`session::viewers`). Segments are sent from the blocks they lie in. Who asks for
//! what is not there yet, but about to be, waits ([`Watch`]).

use std::cell::RefCell;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::files::{Otherwise, Segment};
use super::{
    Asked, Extent, HttpSession, Method, Request, ResponseHead, State, Urls, What, asked_vhost,
    enter, forwarded, text_head, urls, with_cors,
};
use crate::config::{Hls, Vhost};
use crate::hub::segments::{Piece, bytes_of};
use crate::hub::{ClientKind, Container, Reason, SegmentList, Segments};
use crate::limits;
use crate::media::name::StreamName;
use crate::proto::hls::{Found, Master, Template, Values};
use crate::proto::http;
use crate::proto::http::file::range;
use crate::remux::segmenter::without_number;
use crate::remux::{Stream, manifest, playlist};
use crate::session::admission::{self, Entry, Stay};
use crate::session::body::Body;
use crate::session::files::{self, Place};
use crate::session::group::{self, Variant};
use crate::session::viewers::{Lookup, NewViewer, Viewer};
use crate::session::{Closing, Env, SessionId, Wish};

/// What a path of HLS names.
#[derive(Debug)]
pub(super) struct Asks {
    name: Result<StreamName, Closing>,
    file: File,
}

#[derive(Debug)]
enum File {
    Playlist,
    /// A segment, with its number if the name has it.
    Segment(Option<u64>),
    Part,
    Init,
    Key,
}

/// Who begins to watch.
#[derive(Debug)]
pub(super) struct Enters {
    pub(super) id: SessionId,
    pub(super) gets: Gets,
}

/// What it gets first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gets {
    /// The master playlist, as it has no id yet.
    Master,
    /// A playlist.
    Playlist,
    /// A manifest of DASH.
    Manifest,
}

/// A request whose answer is not there yet.
#[derive(Debug)]
pub(super) struct Watch {
    pub(super) request: Request,
    pub(super) stream: Arc<Stream>,
    pub(super) viewer: Option<Arc<Viewer>>,
    pub(super) what: Awaited,
    /// When it is answered without, ns.
    pub(super) until: u64,
}

#[derive(Debug)]
pub(super) enum Awaited {
    /// The master playlist.
    Master,
    /// The playlist, with this in it.
    Playlist(Reload),
    /// The part of that name.
    Part(String),
    /// The manifest of DASH.
    Manifest,
    /// The segment of a track with that number.
    Track(usize, u64),
}

impl Awaited {
    /// Where it will be.
    fn segments(&self, stream: &Stream) -> Option<Arc<Segments>> {
        match self {
            Awaited::Manifest | Awaited::Track(..) => stream.dash(),
            Awaited::Master | Awaited::Playlist(_) | Awaited::Part(_) => stream.segments(),
        }
    }
}

/// There was an answer already.
pub(super) struct Answered;

/// What a player wants to be in a playlist, and what not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Reload {
    number: Option<u64>,
    part: Option<u64>,
    skip: bool,
}

/// What a path names, if it is a name of HLS.
pub(super) fn find(env: &Env<'_>, request: &Request) -> Option<Asks> {
    let asked = &asked_vhost(request);
    let vhost = env.config.vhost(asked);
    if !vhost.enabled || !vhost.hls.enabled {
        return None;
    }
    let vhost_name = env.config.vhost_name(asked);
    let path = request.path.strip_prefix('/')?;
    let suffix = path.rsplit_once('.')?.1;
    let hls = &vhost.hls;
    let mut out = None;
    let mut read = |template: &str, path: &str, file: fn(Option<u64>) -> File| -> bool {
        if out.is_some() || template.rsplit_once('.').map(|(_, suffix)| suffix) != Some(suffix) {
            return false;
        }
        let Some(template) = parsed(template) else { return false };
        template.find(path, &mut |found: &Found<'_>| {
            if found.vhost.is_some_and(|vhost| vhost != vhost_name) {
                return false;
            }
            let name = StreamName::new(vhost_name, found.app, found.stream);
            let file = file(found.seq);
            // A stream that is cut has segments. Other names may be those of live streams.
            let is_playlist = matches!(file, File::Playlist);
            let stream = name.as_ref().ok().and_then(|name| env.streams.find(name));
            let is_cut = stream.is_some_and(|stream| stream.segments().is_some());
            if !is_cut && !is_playlist && is_live(env, vhost, asked, &request.path) {
                return false;
            }
            let name = name.map_err(|error| Closing::because(Reason::StreamName, error));
            out = Some(Asks { name, file });
            true
        })
    };
    read(&hls.hls_m3u8_file, path, |_| File::Playlist);
    for template in [&hls.hls_ts_file, &hls.hls_fmp4_file] {
        read(template, path, File::Segment);
        if let Some((segment, _)) = without_number(path, ".").filter(|_| !hls.hls_part.is_zero()) {
            read(template, &segment, |_| File::Part);
        }
    }
    if hls.hls_keys {
        read(&hls.hls_key_file, path, |_| File::Key);
    }
    if !read(&hls.hls_init_file, path, |_| File::Init)
        && let Some((init, _)) = without_number(path, "-")
    {
        read(&hls.hls_init_file, &init, |_| File::Init);
    }
    out
}

/// A template of the configuration. Each thread keeps those it has read: there are a few for each
/// vhost, and every request asks for some.
pub(super) fn parsed(text: &str) -> Option<Rc<Template>> {
    thread_local! {
        static KNOWN: RefCell<Vec<(String, Rc<Template>)>> = const { RefCell::new(Vec::new()) };
    }
    KNOWN.with_borrow_mut(|known| {
        if let Some((_, template)) = known.iter().find(|(name, _)| name == text) {
            return Some(template.clone());
        }
        let template = Rc::new(Template::parse(text).ok()?);
        // Others come with a reload.
        if known.len() >= TEMPLATES_KEPT {
            known.clear();
        }
        known.push((text.to_owned(), template.clone()));
        Some(template)
    })
}

/// Templates that a thread keeps.
const TEMPLATES_KEPT: usize = 16;

/// True when the path is that of a stream that is published and served live over HTTP.
fn is_live(env: &Env<'_>, vhost: &Vhost, asked: &str, path: &str) -> bool {
    let found = super::mount::find(env.config, asked, path).filter(|_| vhost.http_remux.enabled);
    let name = found.and_then(|found| StreamName::new(found.vhost, found.app, found.stream).ok());
    let stream = name.and_then(|name| env.streams.find(&name));
    stream.is_some_and(|stream| stream.is_active())
}

/// The folder that a file is written to, if it is.
fn folder_of(env: &Env<'_>, name: &StreamName, file: &File) -> Option<PathBuf> {
    let hls = &env.config.vhost(name.vhost()).hls;
    match file {
        File::Segment(_) | File::Init => hls.folder(name.vhost()),
        File::Key => hls.key_folder(name.vhost()),
        // A playlist that nobody goes on writing is a recording, and parts are never on disk.
        File::Playlist | File::Part => None,
    }
}

impl HttpSession {
    /// A request for something of HLS.
    pub(super) fn segments(
        &mut self,
        out: &mut Vec<u8>,
        env: &mut Env<'_>,
        request: Request,
        asks: Asks,
    ) {
        let Some(name) = self.named(out, env, &request, asks.name) else { return };
        let stream = env.streams.find(&name);
        let Some((stream, segments)) = stream.and_then(|s| Some((s.clone(), s.segments()?))) else {
            let variants = match asks.file {
                File::Playlist => group::variants(env, &name),
                _ => Vec::new(),
            };
            if !variants.is_empty() {
                return self.variants(out, env, &request, &variants);
            }
            let folder = folder_of(env, &name, &asks.file);
            return self.on_disk(out, env, request, (&name, folder), None);
        };
        match asks.file {
            File::Playlist => self.playlist(out, env, request, (stream, &segments)),
            file => self.file(out, env, request, file, (stream, &segments)),
        }
    }

    fn playlist(
        &mut self,
        out: &mut Vec<u8>,
        env: &mut Env<'_>,
        request: Request,
        (stream, segments): (Arc<Stream>, &Segments),
    ) {
        // Who only asks for the head is nobody yet.
        if request.method == Method::Head {
            let head = playlist_head(env, &request, PLAYLIST);
            return self.reply(out, env, &request, head, None);
        }
        let vhost = env.config.vhost(stream.name.vhost());
        let hls = &vhost.hls;
        let is_variant = group::of(vhost, stream.name.stream()).is_some();
        if is_variant && hls.hls_ctx && request.param(CTX).is_none() && stream.is_active() {
            let list = segments.list();
            if list.has_begun() {
                return self.variants(out, env, &request, &[Variant { stream, list }]);
            }
        }
        let enters = match request.param(CTX).filter(|_| hls.hls_ctx) {
            None => {
                let gets = if hls.hls_ctx { Gets::Master } else { Gets::Playlist };
                Enters { id: env.admission.viewers.new_id(), gets }
            }
            Some(id) => {
                let Some(id) = SessionId::parse(id) else {
                    return self.not_found(out, env, &request);
                };
                let id = own_id(env, &stream, id);
                match env.admission.viewers.find(id, env.now) {
                    Lookup::Here(viewer) if viewer.client.stream.id == stream.id => {
                        return self.reload(out, env, request, (stream, segments), Some(viewer));
                    }
                    // It watches something else, or may not watch any more.
                    Lookup::Here(_) | Lookup::Kicked => {
                        return self.not_found(out, env, &request);
                    }
                    Lookup::Unknown => Enters { id, gets: Gets::Playlist },
                }
            }
        };
        self.ask_to_watch(out, env, request, stream.name.clone(), enters);
    }

    /// The master playlist of a group. Who plays a variant is admitted there, and is a viewer from
    /// then on; this says nothing but which there are.
    fn variants(
        &mut self,
        out: &mut Vec<u8>,
        env: &mut Env<'_>,
        request: &Request,
        variants: &[Variant],
    ) {
        let id = env.admission.viewers.new_id();
        let uris: Vec<String> = variants
            .iter()
            .map(|variant| {
                let hls = &env.config.vhost(variant.stream.name.vhost()).hls;
                let path = playlist_path(hls, &variant.stream.name);
                let path = match hls.hls_master_m3u8_path_relative {
                    true => path.rsplit_once('/').map_or(path.as_str(), |(_, file)| file),
                    false => path.as_str(),
                };
                with_query(path.to_owned(), request, if hls.hls_ctx { id.as_str() } else { "" })
            })
            .collect();
        let all = variants.iter().zip(&uris);
        let all: Vec<Master<'_>> = all.map(|(own, uri)| variant(&own.list, uri)).collect();
        let head = playlist_head(env, request, PLAYLIST);
        self.reply(out, env, request, head, Some(Master::write(&all).as_bytes()));
    }

    /// Somebody wants to watch.
    pub(super) fn ask_to_watch(
        &mut self,
        out: &mut Vec<u8>,
        env: &mut Env<'_>,
        request: Request,
        name: StreamName,
        enters: Enters,
    ) {
        let urls = urls(&request, &name, self.secure);
        match enter(env, &request, enters.id, &name, &urls) {
            Ok(Entry::Granted(stay)) => {
                self.enter_segments(out, env, request, &name, enters, (urls, stay));
            }
            Ok(Entry::Undecided(stay)) => {
                self.stay = Some(stay);
                let asked = Asked { name, what: What::Segments(enters) };
                self.state = State::Waiting(Box::new((request, asked, urls)));
                env.wishes.push(Wish::Await);
            }
            Err(closing) => self.refuse(out, env, &request, &closing),
        }
    }

    /// Somebody who may play begins to.
    pub(super) fn enter_segments(
        &mut self,
        out: &mut Vec<u8>,
        env: &mut Env<'_>,
        request: Request,
        name: &StreamName,
        enters: Enters,
        (urls, stay): (Urls, Option<Box<Stay>>),
    ) {
        let admission = env.admission;
        let end = |stay: Option<Box<Stay>>| {
            if let Some(stay) = stay {
                stay.end(&admission.desk);
            }
        };
        let is_dash = enters.gets == Gets::Manifest;
        let of = |stream: &Stream| if is_dash { stream.dash() } else { stream.segments() };
        let stream = env.streams.find(name);
        let Some((stream, segments)) = stream.and_then(|s| Some((s.clone(), of(&s)?))) else {
            end(stay);
            return self.not_found(out, env, &request);
        };
        let vhost = env.config.vhost(name.vhost());
        let (hls, dash) = (&vhost.hls, &vhost.dash);
        let has_ctx = if is_dash { dash.dash_ctx } else { hls.hls_ctx };
        if !has_ctx {
            // Nobody comes back, so it is over at once.
            end(stay);
            return match is_dash {
                true => self.watch_manifest(out, env, request, stream, None),
                false => self.reload(out, env, request, (stream, &segments), None),
            };
        }
        let target_s = segments.list().target_s;
        let timeout = if is_dash { 2 * dash.dash_update_period } else { hls.hls_window };
        let timeout = timeout.max(Duration::from_secs(3 * target_s));
        let new = NewViewer {
            id: enters.id,
            // The connection's port says nothing of who comes over many.
            peer: SocketAddr::new(forwarded(&request).unwrap_or(env.peer), 0),
            kind: if is_dash { ClientKind::DashPlay } else { ClientKind::HlsPlay },
            stream: stream.clone(),
            urls,
            stay,
            timeout_ms: (timeout.as_millis() as u64).max(limits::HLS_VIEWER_MS_MIN),
        };
        let time = (env.now, env.wall_ms);
        let viewer = match admission.viewers.join(env.clients, &admission.desk, new, time) {
            Ok(viewer) => viewer,
            Err(stay) => {
                end(stay);
                return self.refuse(out, env, &request, &Closing::new(Reason::OverLimit));
            }
        };
        if env.may_say() {
            let protocol = viewer.client.kind.protocol();
            tracing::info!(id = %viewer.client.id, peer = %env.peer, protocol,
                stream = %stream.name, "play");
        }
        match enters.gets {
            Gets::Master => {}
            Gets::Playlist => {
                return self.reload(out, env, request, (stream, &segments), Some(viewer));
            }
            Gets::Manifest => return self.watch_manifest(out, env, request, stream, Some(viewer)),
        }
        let until = env.now + limits::HLS_FIRST_WAIT_MS * 1_000_000;
        let watch = Watch { request, stream, viewer: Some(viewer), what: Awaited::Master, until };
        self.watch(out, env, Box::new(watch));
    }

    /// A media playlist, now or when what the player waits for is in it.
    fn reload(
        &mut self,
        out: &mut Vec<u8>,
        env: &mut Env<'_>,
        request: Request,
        (stream, segments): (Arc<Stream>, &Segments),
        viewer: Option<Arc<Viewer>>,
    ) {
        let list = segments.list();
        let has_parts = list.part_target_ms.is_some();
        let number = |name: &str| match request.param(name).filter(|_| has_parts) {
            None => Ok(None),
            Some(text) => text.parse::<u64>().map(Some).map_err(drop),
        };
        let (Ok(number), Ok(part)) = (number("_HLS_msn"), number("_HLS_part")) else {
            return self.bad_reload(out, env, &request);
        };
        let skip = matches!(request.param("_HLS_skip"), Some("YES" | "v2"));
        let newest = list.next_number();
        // RFC 8216bis 6.2.5.2: a part needs a segment, and nobody waits for long.
        if (part.is_some() && number.is_none())
            || number.is_some_and(|number| number >= newest + limits::HLS_AHEAD_MAX)
        {
            return self.bad_reload(out, env, &request);
        }
        let reload = Reload { number, part, skip: skip && has_parts };
        let wait_ms = match list.has_begun() {
            true => 3_000 * list.target_s,
            false => limits::HLS_FIRST_WAIT_MS,
        };
        let until = env.now + wait_ms * 1_000_000;
        let what = Awaited::Playlist(reload);
        self.watch(out, env, Box::new(Watch { request, stream, viewer, what, until }));
    }

    fn bad_reload(&mut self, out: &mut Vec<u8>, env: &mut Env<'_>, request: &Request) {
        env.counters.count(Reason::BadRequest);
        let head = text_head(env, request, 400);
        let body = b"400 this playlist is not to be waited for\n";
        self.reply(out, env, request, head, Some(body));
    }

    /// Answers, or waits.
    pub(super) fn watch(&mut self, out: &mut Vec<u8>, env: &mut Env<'_>, watch: Box<Watch>) {
        let Some(segments) = watch.what.segments(&watch.stream) else {
            return self.not_found(out, env, &watch.request);
        };
        if self.answer(out, env, &watch, &segments) {
            return;
        }
        let over = env.now >= watch.until || !watch.stream.is_active();
        if over {
            return self.give_up(out, env, &watch, &segments);
        }
        // Said before looking again: what changes in between is either seen or told.
        segments.wait(env.shard);
        if self.answer(out, env, &watch, &segments) {
            return;
        }
        env.wishes.push(Wish::Watch(watch.stream.id));
        self.state = State::Watching(watch);
    }

    /// The answer to a request, if it is there.
    fn answer(
        &mut self,
        out: &mut Vec<u8>,
        env: &mut Env<'_>,
        watch: &Watch,
        segments: &Segments,
    ) -> bool {
        let list = segments.list();
        let Watch { request, stream, viewer, what, .. } = watch;
        let ready = match what {
            Awaited::Master => list.has_begun(),
            Awaited::Playlist(Reload { number, part, .. }) => {
                list.has_begun() && number.is_none_or(|number| list.has(number, *part))
            }
            Awaited::Part(name) => list.part(name).is_some(),
            Awaited::Manifest => manifest::listed(&list, 0).any(|s| s.period.is_some()),
            Awaited::Track(track, number) => list.track(*track, *number).is_some(),
        };
        if !ready {
            return false;
        }
        self.state = State::Requests;
        let hls = &env.config.vhost(stream.name.vhost()).hls;
        match what {
            Awaited::Master => {
                let id = viewer.as_ref().map_or("", |viewer| viewer.client.id.as_str());
                let text = master(&list, hls, request, id);
                let head = playlist_head(env, request, PLAYLIST);
                self.reply(out, env, request, head, Some(text.as_bytes()));
            }
            Awaited::Playlist(reload) => {
                // As it was told: variants of one stream share it.
                let told = request.param(CTX).and_then(SessionId::parse);
                let id = viewer.as_ref().map(|viewer| told.unwrap_or(viewer.client.id));
                let word = word(request, CTX, id.filter(|_| hls.hls_ts_ctx));
                let mut text = playlist::text(&list, reload.skip, &word);
                if list.part_target_ms.is_some() {
                    report_variants(&mut text, env, request, stream);
                }
                let id = told.filter(|_| id.is_some() && hls.hls_ts_ctx);
                let id = id.as_ref().map_or("", |id| id.as_str());
                let pack = |text: &[u8]| playlist::gzip(&list, reload.skip, text, (id, &word));
                self.reply_text(out, env, request, (PLAYLIST, viewer.is_some()), &text, &pack);
            }
            Awaited::Part(name) => {
                if let Some(part) = list.part(name).cloned() {
                    let content_type = segment_type(list.container);
                    let what = (name.as_str(), &part.pieces[..], content_type);
                    self.send(out, env, request, (stream, viewer), what);
                }
            }
            Awaited::Manifest => self.answer_manifest(out, env, watch, &list),
            Awaited::Track(track, number) => {
                if let Some((segment, of_track)) = list.track(*track, *number) {
                    if let Some(viewer) = viewer {
                        viewer.client.set_cursor(segment.start_ms + segment.duration_ms);
                    }
                    let content_type = ["video/mp4", "audio/mp4"][*track];
                    let name = request.path.strip_prefix('/').unwrap_or_default();
                    let what = (name, &of_track.pieces[..], content_type);
                    self.send(out, env, request, (stream, viewer), what);
                }
            }
        }
        true
    }

    /// A playlist or a manifest; in gzip, if the player takes it and `pack` gives it. What is for
    /// one viewer only (`own`) nobody keeps; of the rest a cache may ask whether it is the same.
    pub(super) fn reply_text(
        &mut self,
        out: &mut Vec<u8>,
        env: &mut Env<'_>,
        request: &Request,
        (content_type, own): (&'static str, bool),
        text: &[u8],
        pack: &dyn Fn(&[u8]) -> Option<Vec<u8>>,
    ) {
        let mut head = if own {
            playlist_head(env, request, content_type)
        } else {
            let mut hasher = DefaultHasher::new();
            text.hash(&mut hasher);
            // Weak: the same in gzip has it, too.
            let etag = format!("W/\"{:016x}\"", hasher.finish());
            let same = request.header_has("if-none-match", &etag);
            let head = ResponseHead::new(if same { 304 } else { 200 })
                .header("Content-Type", content_type)
                .header("Cache-Control", "no-cache")
                .header("ETag", &etag);
            let head = with_cors(head, request, env.config.http_server.crossdomain);
            if same {
                let head = head.header("Vary", "Accept-Encoding");
                return self.reply(out, env, request, head, None);
            }
            head
        };
        head = head.header("Vary", "Accept-Encoding");
        let packed = request.accepts_gzip().then(|| pack(text)).flatten();
        match packed {
            Some(packed) => {
                let head = head.header("Content-Encoding", "gzip");
                self.reply(out, env, request, head, Some(&packed));
            }
            None => self.reply(out, env, request, head, Some(text)),
        }
    }

    /// What was waited for does not come.
    fn give_up(
        &mut self,
        out: &mut Vec<u8>,
        env: &mut Env<'_>,
        watch: &Watch,
        segments: &Segments,
    ) {
        self.state = State::Requests;
        env.counters.count(Reason::SegmentTimeout);
        let request = &watch.request;
        let is_playlist = matches!(watch.what, Awaited::Playlist(_) | Awaited::Master);
        if !segments.list().has_begun() || !is_playlist {
            return self.not_found(out, env, request);
        }
        // RFC 8216bis 6.2.5.2: after three target durations.
        let head = text_head(env, request, 503).header("Cache-Control", "no-store");
        self.reply(out, env, request, head, Some(b"503 the stream does not go on\n"));
    }

    /// True when it waits and its time is over, or when a verdict is there.
    pub fn wants_tick(&self, now: u64) -> bool {
        match &self.state {
            State::Watching(watch) => now >= watch.until || !watch.stream.is_active(),
            // A verdict, or what a recording is to be played with.
            _ => self.is_decided(),
        }
    }

    /// True while it waits for a change of segments.
    pub fn watches(&self) -> bool {
        matches!(self.state, State::Watching(_))
    }

    /// Looks again for what it waits for.
    pub fn segments_changed(&mut self, out: &mut Vec<u8>, env: &mut Env<'_>) {
        if !self.watches() {
            return;
        }
        let State::Watching(watch) = std::mem::replace(&mut self.state, State::Requests) else {
            return;
        };
        self.watch(out, env, watch);
        self.go_on(out, env);
    }

    /// A body has been sent.
    pub fn served(&mut self, out: &mut Vec<u8>, env: &mut Env<'_>) {
        if matches!(self.state, State::Serving) {
            self.state = State::Requests;
            self.go_on(out, env);
        }
    }

    /// Reads what came while a request was being answered.
    pub(super) fn go_on(&mut self, out: &mut Vec<u8>, env: &mut Env<'_>) {
        if !matches!(self.state, State::Requests) {
            return;
        }
        if self.head.len() > limits::SESSION_INPUT_PAUSE {
            env.wishes.push(Wish::Receive(true));
        }
        if !self.head.is_empty() {
            self.requests(out, env, &[]);
        }
    }

    fn file(
        &mut self,
        out: &mut Vec<u8>,
        env: &mut Env<'_>,
        request: Request,
        file: File,
        (stream, segments): (Arc<Stream>, &Segments),
    ) {
        let vhost = env.config.vhost(stream.name.vhost());
        let hls = &vhost.hls;
        let mut viewer = None;
        if hls.hls_ctx && hls.hls_ts_ctx {
            viewer = match self.who_watches(out, env, &request, CTX, &stream) {
                Ok(viewer) => viewer,
                Err(Answered) => return,
            };
        }
        let list = segments.list();
        let name = request.path.strip_prefix('/').unwrap_or_default();
        match file {
            File::Segment(number) => {
                if let Some(segment) = list.segment(name, number) {
                    if let Some(viewer) = &viewer {
                        viewer.client.set_cursor(segment.start_ms + segment.duration_ms);
                    }
                    let what = (name, &segment.pieces[..], segment_type(list.container));
                    return self.send(out, env, &request, (&stream, &viewer), what);
                }
            }
            File::Part => {
                let is_next = list.open.as_ref().is_some_and(|open| open.hint == name);
                if is_next || list.part(name).is_some() {
                    let until = env.now + 3_000 * list.target_s * 1_000_000;
                    let what = Awaited::Part(name.to_owned());
                    let watch = Watch { request, stream, viewer, what, until };
                    return self.watch(out, env, Box::new(watch));
                }
            }
            File::Init => {
                if let Some(init) = list.init(name) {
                    let head = file_head(env, &request, 200, "video/mp4");
                    return self.reply(out, env, &request, head, Some(&init.bytes));
                }
            }
            File::Key => {
                if let Some(key) = list.key(name) {
                    let head = playlist_head(env, &request, "application/octet-stream");
                    return self.reply(out, env, &request, head, Some(&key.bytes));
                }
            }
            File::Playlist => {}
        }
        let segment = Some(Segment { stream: Some(stream.clone()), viewer });
        let folder = folder_of(env, &stream.name, &file);
        self.on_disk(out, env, request, (&stream.name, folder), segment)
    }

    /// What is in memory no more may be on disk, in the folder that segments are written to, or
    /// among the files that everybody may have. Without the stream nobody is known to be a viewer
    /// of it.
    pub(super) fn on_disk(
        &mut self,
        out: &mut Vec<u8>,
        env: &mut Env<'_>,
        request: Request,
        (name, folder): (&StreamName, Option<PathBuf>),
        segment: Option<Segment>,
    ) {
        let vhost = env.config.vhost(name.vhost());
        let path = request.path.strip_prefix('/').unwrap_or_default();
        let restricted = admission::has_play_rule(vhost);
        let known = segment.as_ref().is_some_and(|segment| segment.viewer.is_some());
        let folder = folder.filter(|_| !restricted || known);
        if let Some(root) = folder
            && files::below(&request.path).is_some()
        {
            let place = Place { root, path: path.to_owned() };
            let segment = segment.or(Some(Segment { stream: None, viewer: None }));
            return self.look_for(out, env, request, vec![place], Otherwise::NotFound, segment);
        }
        let places = super::files::place(env.config, &request).into_iter().collect();
        self.look_for(out, env, request, places, Otherwise::NotFound, None);
    }

    /// Who asks for a segment.
    pub(super) fn who_watches(
        &mut self,
        out: &mut Vec<u8>,
        env: &mut Env<'_>,
        request: &Request,
        ctx: &str,
        stream: &Arc<Stream>,
    ) -> Result<Option<Arc<Viewer>>, Answered> {
        let vhost = env.config.vhost(stream.name.vhost());
        let id = request.param(ctx).and_then(SessionId::parse);
        let id = id.map(|id| if ctx == CTX { own_id(env, stream, id) } else { id });
        match id.map(|id| env.admission.viewers.find(id, env.now)) {
            Some(Lookup::Here(viewer)) if viewer.client.stream.id == stream.id => Ok(Some(viewer)),
            Some(Lookup::Kicked | Lookup::Here(_)) => {
                self.not_found(out, env, request);
                Err(Answered)
            }
            Some(Lookup::Unknown) | None if admission::has_play_rule(vhost) => {
                env.counters.count(Reason::TokenRefused);
                let head = text_head(env, request, 403);
                let body = b"403 segments are for who has asked for the playlist\n";
                self.reply(out, env, request, head, Some(body));
                Err(Answered)
            }
            Some(Lookup::Unknown) | None => Ok(None),
        }
    }

    /// Sends ranges of blocks, or what of them is asked for.
    pub(super) fn send(
        &mut self,
        out: &mut Vec<u8>,
        env: &mut Env<'_>,
        request: &Request,
        (stream, viewer): (&Arc<Stream>, &Option<Arc<Viewer>>),
        (name, pieces, content_type): (&str, &[Piece], &'static str),
    ) {
        let total = bytes_of(pieces);
        let mut hasher = DefaultHasher::new();
        (crate::version::service_id(), stream.id, name, total).hash(&mut hasher);
        let etag = format!("\"{:016x}\"", hasher.finish());
        if request.header_has("if-none-match", &etag) {
            let head = file_head(env, request, 304, content_type).header("ETag", &etag);
            return self.reply(out, env, request, head, None);
        }
        let current = request.header("if-range").is_none_or(|range| range == etag);
        let range = request.header("range").filter(|_| current).and_then(|r| range(r, total));
        let (is_part, start, len) = match range {
            None => (false, 0, total),
            Some(Ok((start, len))) => (true, start, len),
            Some(Err(())) => {
                let head = file_head(env, request, 416, "text/plain")
                    .header("Content-Range", &format!("bytes */{total}"));
                return self.reply(out, env, request, head, Some(b"416 no such range\n"));
            }
        };
        let status = if is_part { 206 } else { 200 };
        let head = file_head(env, request, status, content_type).header("ETag", &etag);
        let extent = Extent { is_part, start, len, total };
        let body = || Body::new(pieces, (start, len), stream.clone(), viewer.clone());
        self.serve(out, env, request, head, (extent, body));
    }
}

fn segment_type(container: Container) -> &'static str {
    match container {
        Container::Ts => "video/MP2T",
        _ => "video/iso.segment",
    }
}

/// The parameter with a viewer's id.
const CTX: &str = "hls_ctx";

/// The id of a viewer of this stream that was told `id`. Who plays a group is told one for all
/// variants, and is a viewer of each that it plays.
fn own_id(env: &Env<'_>, stream: &Stream, id: SessionId) -> SessionId {
    let vhost = env.config.vhost(stream.name.vhost());
    match group::of(vhost, stream.name.stream()) {
        Some(_) => env.admission.viewers.id_of((id, stream.id)),
        None => id,
    }
}

/// Where the playlist of a stream is.
fn playlist_path(hls: &Hls, name: &StreamName) -> String {
    let template = parsed(&hls.hls_m3u8_file);
    let path = template.map(|template| template.fill(&Values::of(name))).unwrap_or_default();
    http::url::encode_path(&format!("/{path}"))
}

/// Says how far the other variants are (RFC 8216bis 4.4.5.4), in the words of the master playlist.
fn report_variants(out: &mut Vec<u8>, env: &Env<'_>, request: &Request, stream: &Stream) {
    let vhost = env.config.vhost(stream.name.vhost());
    let Some(group) = group::of(vhost, stream.name.stream()) else { return };
    let Ok(name) = StreamName::new(stream.name.vhost(), stream.name.app(), group) else { return };
    let query: Vec<&str> = clean_query(request);
    for other in group::variants(env, &name) {
        if other.stream.id == stream.id {
            continue;
        }
        let list = &other.list;
        let open = list.open.as_ref().filter(|open| !open.parts.is_empty());
        let open = open.map(|open| (open.number, open.parts.len()));
        let closed = || list.segments.back().map(|last| (last.number, last.parts.len()));
        let Some((number, parts)) = open.or_else(closed) else { continue };
        let path = playlist_path(&vhost.hls, &other.stream.name);
        let mark = if query.is_empty() { "" } else { "?" };
        let mut line = format!(
            "#EXT-X-RENDITION-REPORT:URI=\"{path}{mark}{}\",LAST-MSN={number}",
            query.join("&")
        );
        if parts > 0 {
            line += &format!(",LAST-PART={}", parts - 1);
        }
        out.extend_from_slice(line.as_bytes());
        out.push(b'\n');
    }
}

/// What a player has said, without what it wants to wait for.
fn clean_query(request: &Request) -> Vec<&str> {
    let clean = |part: &&str| {
        let graphic = |c: char| c.is_ascii_graphic() && c != '"' && c != '#';
        !part.is_empty() && part.chars().all(graphic) && !part.starts_with("_HLS_")
    };
    request.query.split('&').filter(clean).collect()
}

/// The media type of playlists.
const PLAYLIST: &str = "application/vnd.apple.mpegurl";

/// Head of what nobody but the player keeps.
pub(super) fn playlist_head(env: &Env<'_>, request: &Request, content_type: &str) -> ResponseHead {
    let head = ResponseHead::new(200)
        .header("Content-Type", content_type)
        // It is another one in a moment, and may be for one viewer only.
        .header("Cache-Control", "no-cache, no-store");
    with_cors(head, request, env.config.http_server.crossdomain)
}

/// Head of what never changes.
pub(super) fn file_head(
    env: &Env<'_>,
    request: &Request,
    status: u16,
    content_type: &str,
) -> ResponseHead {
    let head = ResponseHead::new(status)
        .header("Content-Type", content_type)
        .header("Cache-Control", "max-age=60");
    with_cors(head, request, env.config.http_server.crossdomain)
}

/// What goes behind the addresses that a viewer is given.
pub(super) fn word(request: &Request, ctx: &str, id: Option<SessionId>) -> String {
    let mut word = String::new();
    let mut add = |name: &str, value: &str| {
        let mark = if word.is_empty() { '?' } else { '&' };
        word.push(mark);
        word.push_str(name);
        word.push('=');
        word.push_str(value);
    };
    if let Some(id) = id {
        add(ctx, id.as_str());
    }
    for name in ["vhost", "domain"] {
        let value = request.param(name).unwrap_or_default();
        // A name of a host, or nothing that could be found.
        let plain = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'-' | b'_');
        if !value.is_empty() && value.bytes().all(plain) {
            add(name, value);
        }
    }
    word
}

fn master(list: &SegmentList, hls: &Hls, request: &Request, id: &str) -> String {
    let path = &request.path;
    let path = match hls.hls_master_m3u8_path_relative {
        true => path.rsplit_once('/').map_or(path.as_str(), |(_, file)| file),
        false => path,
    };
    let uri = with_query(http::url::encode_path(path), request, id);
    Master::write(&[variant(list, &uri)])
}

/// An address of the master playlist. SRS: what the player has said goes on, as its token may be
/// in it.
fn with_query(path: String, request: &Request, id: &str) -> String {
    let mut uri = path;
    let mut query = clean_query(request);
    query.retain(|part| !id.is_empty() || !part.starts_with("hls_ctx="));
    let own = format!("{CTX}={id}");
    if !id.is_empty() {
        query.insert(0, &own);
    }
    if !query.is_empty() {
        uri.push('?');
        uri.push_str(&query.join("&"));
    }
    uri
}

fn variant<'a>(list: &'a SegmentList, uri: &'a str) -> Master<'a> {
    let listed = || list.listed();
    let peak = listed().map(|segment| segment.bit_rate()).max().unwrap_or(0);
    let bytes: u64 = listed().map(|segment| segment.bytes).sum();
    let ms: i64 = listed().map(|segment| segment.duration_ms).sum();
    let average = bytes * 8_000 / ms.max(1).unsigned_abs();
    let content = &list.content;
    Master {
        uri,
        bandwidth: [peak, average],
        codecs: Some(&content.codecs),
        size: content.size,
        fps: content.fps,
        independent: listed().all(|segment| segment.independent),
    }
}
