//! Manifests and segments of DASH over HTTP.
//!
//! A manifest that a player asks for without an id has an id behind every address, and tells where
//! to find the next manifest with that id (`Location`): so the player is a viewer
//! (`session::viewers`). Where it is not known how the player reached the server it is not told
//! (players do not agree on what an address is relative to), and some do not follow it; these ask
//! as strangers again and again. Who comes from the same address with the same words is taken for
//! the same then, until the id is seen to come back.

use std::sync::Arc;

use super::files::Segment;
use super::hls::{self, Answered, Awaited, Enters, Gets, Watch};
use super::{HttpSession, Method, Request, asked_vhost, forwarded, outward};
use crate::hub::{Reason, SegmentList};
use crate::limits;
use crate::media::name::StreamName;
use crate::proto::dash::mpd;
use crate::proto::hls::Found;
use crate::proto::http::url;
use crate::remux::dash_path::{self, DashFile};
use crate::remux::{Stream, manifest};
use crate::session::viewers::{Lookup, Viewer};
use crate::session::{Closing, Env, SessionId};

/// What a path of DASH names.
#[derive(Debug)]
pub(super) struct Asks {
    name: Result<StreamName, Closing>,
    file: DashFile,
}

/// What a path names, if it is a name of DASH.
pub(super) fn find(env: &Env<'_>, request: &Request) -> Option<Asks> {
    let asked = asked_vhost(request);
    let vhost = env.config.vhost(&asked);
    if !vhost.enabled || !vhost.dash.enabled {
        return None;
    }
    let vhost_name = env.config.vhost_name(&asked);
    let path = request.path.strip_prefix('/')?;
    let (manifest, file) = dash_path::read(path)?;
    let template = hls::parsed(&vhost.dash.dash_mpd_file)?;
    let mut out = None;
    template.find(&manifest, &mut |found: &Found<'_>| {
        if found.vhost.is_some_and(|vhost| vhost != vhost_name) {
            return false;
        }
        let name = StreamName::new(vhost_name, found.app, found.stream);
        // Other names may mean something else.
        let stream = name.as_ref().ok().and_then(|name| env.streams.find(name));
        if file != DashFile::Manifest && stream.is_none_or(|stream| stream.dash().is_none()) {
            return false;
        }
        let name = name.map_err(|error| Closing::because(Reason::StreamName, error));
        out = Some(Asks { name, file });
        true
    });
    out
}

impl HttpSession {
    /// A request for something of DASH.
    pub(super) fn dash(
        &mut self,
        out: &mut Vec<u8>,
        env: &mut Env<'_>,
        request: Request,
        asks: Asks,
    ) {
        let Some(name) = self.named(out, env, &request, asks.name) else { return };
        let Some(stream) = env.streams.find(&name).filter(|stream| stream.dash().is_some()) else {
            env.counters.count(Reason::NotFound);
            return self.not_found(out, env, &request);
        };
        match asks.file {
            DashFile::Manifest => self.manifest(out, env, request, stream),
            DashFile::Clock => {
                let head = hls::playlist_head(env, &request, "text/plain");
                let now = mpd::time_of_day(env.wall_ms);
                self.reply(out, env, &request, head, Some(now.as_bytes()));
            }
            file => self.track(out, env, request, file, stream),
        }
    }

    fn manifest(
        &mut self,
        out: &mut Vec<u8>,
        env: &mut Env<'_>,
        request: Request,
        stream: Arc<Stream>,
    ) {
        // Who only asks for the head is nobody yet.
        if request.method == Method::Head {
            let head = hls::playlist_head(env, &request, MANIFEST);
            return self.reply(out, env, &request, head, None);
        }
        let viewers = &env.admission.viewers;
        let ctx = env.config.vhost(stream.name.vhost()).dash.dash_ctx;
        let told = request.param(CTX).filter(|_| ctx);
        let id = match told.map(SessionId::parse) {
            Some(None) => return self.not_found(out, env, &request),
            Some(Some(id)) => match viewers.find(id, env.now) {
                Lookup::Here(viewer) if viewer.client.stream.id == stream.id => {
                    viewer.note_return();
                    return self.watch_manifest(out, env, request, stream, Some(viewer));
                }
                // It watches something else, or may not watch any more.
                Lookup::Here(_) | Lookup::Kicked => return self.not_found(out, env, &request),
                Lookup::Unknown => id,
            },
            None if ctx => match stranger(env, &request, &stream) {
                Stranger::New(id) => id,
                Stranger::Known(viewer) => {
                    return self.watch_manifest(out, env, request, stream, Some(viewer));
                }
                Stranger::Kicked => return self.not_found(out, env, &request),
            },
            None => viewers.new_id(),
        };
        let enters = Enters { id, gets: Gets::Manifest };
        self.ask_to_watch(out, env, request, stream.name.clone(), enters);
    }

    /// A manifest, now or when the first segment is there.
    pub(super) fn watch_manifest(
        &mut self,
        out: &mut Vec<u8>,
        env: &mut Env<'_>,
        request: Request,
        stream: Arc<Stream>,
        viewer: Option<Arc<Viewer>>,
    ) {
        let until = env.now + limits::HLS_FIRST_WAIT_MS * 1_000_000;
        let watch = Watch { request, stream, viewer, what: Awaited::Manifest, until };
        self.watch(out, env, Box::new(watch));
    }

    /// The manifest, which is there.
    pub(super) fn answer_manifest(
        &mut self,
        out: &mut Vec<u8>,
        env: &mut Env<'_>,
        watch: &Watch,
        list: &SegmentList,
    ) {
        let Watch { request, stream, viewer, .. } = watch;
        let id = viewer.as_ref().map(|viewer| viewer.client.id);
        let word = hls::word(request, CTX, id);
        let origin = outward::origin(request, self.secure, env.peer);
        let location = id.zip(origin).map(|(id, origin)| location(&origin, request, id));
        let location = location.unwrap_or_default();
        let goes_on = stream.is_active();
        let text = manifest::text(list, goes_on, &location, &word);
        let id = id.as_ref().map_or("", |id| id.as_str());
        let pack = |text: &[u8]| manifest::gzip(list, goes_on, text, (id, &location, &word));
        self.reply_text(out, env, request, (MANIFEST, viewer.is_some()), &text, &pack);
    }

    fn track(
        &mut self,
        out: &mut Vec<u8>,
        env: &mut Env<'_>,
        request: Request,
        file: DashFile,
        stream: Arc<Stream>,
    ) {
        let mut viewer = None;
        if env.config.vhost(stream.name.vhost()).dash.dash_ctx {
            viewer = match self.who_watches(out, env, &request, CTX, &stream) {
                Ok(viewer) => viewer,
                Err(Answered) => return,
            };
        }
        let list = stream.dash().map(|segments| segments.list());
        match (file, list) {
            (DashFile::Segment(track, number), Some(list)) => {
                let newest = list.segments.iter().rev().find_map(|s| s.tracks[track].as_ref());
                let is_next = newest.is_some_and(|newest| newest.number + 1 == number);
                if is_next || list.track(track, number).is_some() {
                    // Clocks differ: what comes next is waited for.
                    let until = env.now + 3_000 * list.target_s * 1_000_000;
                    let what = Awaited::Track(track, number);
                    let watch = Watch { request, stream, viewer, what, until };
                    return self.watch(out, env, Box::new(watch));
                }
            }
            (DashFile::Init, Some(list)) => {
                let name = request.path.strip_prefix('/').unwrap_or_default();
                if let Some(init) = list.track_init(name) {
                    let content_type = if init.audio.is_some() { "audio/mp4" } else { "video/mp4" };
                    let head = hls::file_head(env, &request, 200, content_type);
                    return self.reply(out, env, &request, head, Some(&init.bytes));
                }
            }
            _ => {}
        }
        let name = stream.name.clone();
        let folder = env.config.vhost(name.vhost()).dash.folder(name.vhost());
        let segment = Some(Segment { stream: Some(stream), viewer });
        self.on_disk(out, env, request, (&name, folder), segment)
    }
}

/// Who asks for a manifest without an id.
enum Stranger {
    /// Nobody who is known.
    New(SessionId),
    /// Somebody who never takes its id.
    Known(Arc<Viewer>),
    /// Somebody whom an operator has sent away.
    Kicked,
}

fn stranger(env: &Env<'_>, request: &Request, stream: &Stream) -> Stranger {
    let address = forwarded(request).unwrap_or(env.peer);
    let agent = request.header("user-agent").unwrap_or_default();
    // Also the words that it was let in with.
    let credentials = (&request.query, request.header("authorization"));
    let viewers = &env.admission.viewers;
    for turn in 0..STRANGERS {
        let id = viewers.id_of((address, agent, credentials, stream.id, turn));
        match viewers.find(id, env.now) {
            Lookup::Here(viewer) if viewer.client.stream.id != stream.id => {}
            Lookup::Here(viewer) if viewer.has_returned() => {}
            Lookup::Here(viewer) => return Stranger::Known(viewer),
            Lookup::Kicked => return Stranger::Kicked,
            Lookup::Unknown => return Stranger::New(id),
        }
    }
    Stranger::New(viewers.new_id())
}

/// Viewers behind one address that are looked at to find one that never takes its id.
const STRANGERS: u32 = 8;
/// The parameter with a viewer's id.
const CTX: &str = "dash_ctx";
/// The media type of manifests.
const MANIFEST: &str = "application/dash+xml";

/// Where a viewer finds its manifest. What it has said goes on, as its token may be in it.
fn location(origin: &str, request: &Request, id: SessionId) -> String {
    let mut out = format!("{origin}{}?{CTX}={}", url::encode_path(&request.path), id.as_str());
    let clean = |part: &&str| part.chars().all(|c| c.is_ascii_graphic() && c != '#');
    let own = |part: &&str| part.split('=').next() == Some(CTX);
    for part in request.query.split('&').filter(|part| !part.is_empty() && clean(part)) {
        if !own(&part) {
            out.push('&');
            out.push_str(part);
        }
    }
    out
}
