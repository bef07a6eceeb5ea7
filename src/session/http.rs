//! HTTP sessions on the data plane: live streams over HTTP and WebSockets, the index page.

mod dash;
mod files;
mod hls;
mod outward;

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use bytes::Bytes;

use crate::config::{Action, Config, ListenAddr};
use crate::hub::{ClientKind, Container, Format, Reason, Urls};
use crate::limits::{
    HTTP_HEAD_BYTES_MAX, SESSION_INPUT_MAX, SESSION_INPUT_PAUSE, SESSION_OUTPUT_MAX,
    WS_PLAYER_MESSAGE_BYTES_MAX,
};
use crate::media::name::StreamName;
use crate::page;
use crate::proto::flv::Framing;
use crate::proto::http::{self, Method, Request, ResponseHead};
use crate::proto::ws;
use crate::remux::wrap;

use super::admission::{self, Entry, Stay, Verdict, Visitor};
use super::body::Body;
use super::listing;
use super::mount;
use super::{Closing, Env, Play, SessionId, Wish};

/// What a player asked for.
#[derive(Debug)]
struct Asked {
    name: StreamName,
    what: What,
}

/// How it wants it.
#[derive(Debug)]
enum What {
    /// As it comes, in a container.
    Live(Container),
    /// In segments.
    Segments(hls::Enters),
}

/// One HTTP connection.
#[derive(Debug)]
pub struct HttpSession {
    id: SessionId,
    /// Bytes of a request head that is not complete yet.
    head: Vec<u8>,
    state: State,
    /// A request was answered since this was last asked.
    answered: bool,
    /// The client came by HTTPS.
    secure: bool,
    /// Why it may play, where that has to be given back or told.
    stay: Option<Box<Stay>>,
}

#[derive(Debug)]
enum State {
    /// Between requests, or inside a request head.
    Requests,
    /// It asked to play and waits for the verdict in its `stay`.
    Waiting(Box<(Request, Asked, Urls)>),
    /// It waits for a change of segments; bytes are kept.
    Watching(Box<hls::Watch>),
    /// It waits for a file to be opened; bytes are kept.
    Opening(Box<files::Looking>),
    /// It waits for what a recording is to be played with; bytes are kept.
    Preparing(Box<files::Preparing>),
    /// A body is being sent; bytes are kept.
    Serving,
    /// Playing over plain HTTP: what the peer sends does not matter any more.
    Playing(Format),
    /// Playing over a WebSocket.
    WebSocket(Box<ws::Reader>, Format),
    /// The connection is to go to the API; bytes are kept for it.
    Leaving,
    /// Nothing more is read.
    Over,
}

impl HttpSession {
    /// A connection that has just been accepted; `secure` says that it came by HTTPS.
    pub fn new(id: SessionId, secure: bool) -> HttpSession {
        let (head, state) = (Vec::new(), State::Requests);
        HttpSession { id, head, state, answered: false, secure, stay: None }
    }

    /// Name in the log.
    pub fn name(&self) -> &'static str {
        match self.state {
            State::WebSocket(_, format) | State::Playing(format) => format.protocol(),
            _ => "http",
        }
    }

    /// True when the connection is to go to the API.
    pub fn is_leaving(&self) -> bool {
        matches!(self.state, State::Leaving)
    }

    /// The bytes that the API is to read.
    pub fn take_unanswered(&mut self) -> Bytes {
        Bytes::from(std::mem::take(&mut self.head))
    }

    /// True once after a request was answered and the connection waits for the next.
    pub fn take_answered(&mut self) -> bool {
        std::mem::take(&mut self.answered) && matches!(self.state, State::Requests)
    }

    /// Handles received bytes.
    pub fn receive(&mut self, out: &mut Vec<u8>, env: &mut Env<'_>, data: &[u8]) {
        match &mut self.state {
            State::Requests => self.requests(out, env, data),
            State::WebSocket(..) => self.frames(out, env, data),
            // Nothing of this means anything, but a peer could send it for as long as it likes.
            State::Waiting(_) => {
                self.head.extend_from_slice(data);
                if self.head.len() > HTTP_HEAD_BYTES_MAX {
                    env.wishes.push(Wish::Close(Closing::new(Reason::OverLimit)));
                }
            }
            // Requests that come before the answer to the one before wait for it.
            State::Watching(_) | State::Opening(_) | State::Preparing(_) | State::Serving => {
                let before = self.head.len();
                self.head.extend_from_slice(data);
                if self.head.len() > SESSION_INPUT_MAX {
                    self.over(env, Reason::OverLimit);
                } else if before <= SESSION_INPUT_PAUSE && self.head.len() > SESSION_INPUT_PAUSE {
                    env.wishes.push(Wish::Receive(false));
                }
            }
            State::Leaving if self.head.len() + data.len() > SESSION_INPUT_MAX => {
                self.over(env, Reason::OverLimit);
            }
            State::Leaving => self.head.extend_from_slice(data),
            State::Playing(_) | State::Over => {}
        }
    }

    /// True when it waits for a verdict that is there.
    pub fn is_decided(&self) -> bool {
        if let State::Preparing(preparing) = &self.state {
            return preparing.is_ready();
        }
        matches!(self.state, State::Waiting(_))
            && self.stay.as_ref().is_some_and(|stay| stay.verdict().is_some())
    }

    /// Goes on after the verdict it waited for.
    pub fn decided(&mut self, out: &mut Vec<u8>, env: &mut Env<'_>) {
        if !self.is_decided() {
            return;
        }
        if matches!(self.state, State::Preparing(_)) {
            return self.prepared(out, env);
        }
        let State::Waiting(waiting) = std::mem::replace(&mut self.state, State::Over) else {
            return;
        };
        let (request, asked, urls) = *waiting;
        let verdict = self.stay.as_ref().and_then(|stay| stay.verdict()).cloned();
        if let Some(Verdict::Refused { reason, detail }) = verdict {
            // Who was refused has not begun: there is no end to tell.
            self.stay = None;
            return self.refuse(out, env, &request, &Closing::because(reason, detail));
        }
        match asked.what {
            What::Live(container) => self.begin(out, env, &request, &asked.name, container, urls),
            What::Segments(enters) => {
                let stay = self.stay.take();
                self.state = State::Requests;
                self.enter_segments(out, env, request, &asked.name, enters, (urls, stay));
            }
        }
        let rest = std::mem::take(&mut self.head);
        if !rest.is_empty() {
            self.receive(out, env, &rest);
        }
    }

    /// The connection is over.
    pub fn end(&mut self, env: &mut Env<'_>) {
        if let Some(stay) = self.stay.take() {
            stay.end(&env.admission.desk);
        }
    }

    fn requests(&mut self, out: &mut Vec<u8>, env: &mut Env<'_>, data: &[u8]) {
        self.head.extend_from_slice(data);
        // A peer that asks again and again without reading is closed by the caller.
        while matches!(self.state, State::Requests) && out.len() <= SESSION_OUTPUT_MAX {
            match http::parse_request(&self.head) {
                Ok(None) => return,
                Ok(Some((request, _))) if is_for_api(env, &request) => {
                    self.state = State::Leaving;
                    return;
                }
                Ok(Some((request, consumed))) => {
                    self.head.drain(..consumed);
                    self.request(out, env, request);
                }
                Err(error) => {
                    env.counters.count(Reason::BadRequest);
                    out.extend_from_slice(&http::response::error(error, env.wall_ms));
                    self.over(env, Reason::BadRequest);
                }
            }
        }
        // What came behind a request that is not answered yet waits for that.
        if matches!(self.state, State::WebSocket(..)) && !self.head.is_empty() {
            let rest = std::mem::take(&mut self.head);
            self.frames(out, env, &rest);
        }
    }

    fn over(&mut self, env: &mut Env<'_>, reason: Reason) {
        self.state = State::Over;
        self.head = Vec::new();
        env.wishes.push(Wish::Finish(reason));
    }

    fn request(&mut self, out: &mut Vec<u8>, env: &mut Env<'_>, request: Request) {
        tracing::debug!(id = %self.id, method = request.method.name(), path = ?request.path,
            "request");
        // A body is never of use here; refusing it closes the door to smuggling.
        if request.has_body() {
            out.extend_from_slice(&http::response::plain(413, env.wall_ms));
            return self.over(env, Reason::BadRequest);
        }
        let cors = env.config.http_server.crossdomain;
        if request.method == Method::Options {
            // SRS answers with 200 and an empty body.
            let head = with_cors(ResponseHead::new(200), &request, cors).header("Allow", METHODS);
            return self.reply(out, env, &request, head, Some(b""));
        }
        if !matches!(request.method, Method::Get | Method::Head) {
            let head = with_cors(ResponseHead::new(405), &request, cors).header("Allow", METHODS);
            return self.reply(out, env, &request, head, Some(b"405 method not allowed\n"));
        }
        // Before HLS, whose names may be those of a stream `video` in an app with a stream's name.
        if let Some(found) = dash::find(env, &request) {
            return self.dash(out, env, request, found);
        }
        if let Some(found) = hls::find(env, &request) {
            return self.segments(out, env, request, found);
        }
        if let Some(name) = self.stream_name(env, &request) {
            return match name {
                Ok(asked) => self.play_or_file(out, env, request, asked),
                Err(closing) => {
                    if env.may_say() {
                        tracing::info!(id = %self.id, peer = %env.peer, path = ?request.path,
                            "refused: {}", closing.detail);
                    }
                    env.counters.count(closing.reason);
                    self.not_found(out, env, &request)
                }
            };
        }
        if request.path == "/streams.json" {
            let head = ResponseHead::new(200)
                .header("Content-Type", "application/json")
                .header("Cache-Control", "no-store");
            let rtmp = env.config.listen.first().map_or(0, ListenAddr::port);
            let body = listing::streams_json(env.streams, env.wall_ms, rtmp);
            let head = with_cors(head, &request, cors);
            return self.reply(out, env, &request, head, Some(body.as_bytes()));
        }
        // SRS: on the HTTP server's port too, whether or not the API has one of its own.
        if request.path == "/api/v1/versions" {
            let head = ResponseHead::new(200).header("Content-Type", "application/json");
            let head = with_cors(head, &request, cors);
            let body = crate::version::versions_json();
            return self.reply(out, env, &request, head, Some(body.as_bytes()));
        }
        let page = find_page(env.config, &request, self.secure);
        if let Page::Redirect(to) = &page {
            let head = ResponseHead::new(302).header("Location", to);
            return self.reply(out, env, &request, head, Some(b""));
        }
        if let Page::File(asset) = page {
            if request.header("if-none-match") == Some(asset.etag) {
                let head = ResponseHead::new(304).header("ETag", asset.etag);
                return self.reply(out, env, &request, head, None);
            }
            let mut head = ResponseHead::new(200)
                .header("Content-Type", asset.content_type)
                .header("Content-Security-Policy", asset.policy)
                .header("ETag", asset.etag);
            if let Some(encoding) = asset.encoding {
                head = head.header("Content-Encoding", encoding);
            }
            for (name, value) in page::HEADERS {
                head = head.header(name, value);
            }
            return self.reply(out, env, &request, head, Some(asset.body));
        }
        let places = files::place(env.config, &request).into_iter().collect();
        self.look_for(out, env, request, places, files::Otherwise::NotFound, None)
    }

    /// A path of a live mount. While nobody publishes the stream, a recording of that name is what
    /// is meant; if there is none either, the player waits for the stream.
    fn play_or_file(
        &mut self,
        out: &mut Vec<u8>,
        env: &mut Env<'_>,
        request: Request,
        asked: Asked,
    ) {
        let stream = env.streams.find(&asked.name);
        if request.wants_websocket() || stream.is_some_and(|stream| stream.is_active()) {
            return self.play(out, env, request, asked);
        }
        let places = files::place(env.config, &request).into_iter().collect();
        self.look_for(out, env, request, places, files::Otherwise::Play(asked), None)
    }

    fn not_found(&mut self, out: &mut Vec<u8>, env: &mut Env<'_>, request: &Request) {
        let head = text_head(env, request, 404);
        self.reply(out, env, request, head, Some(b"404 nothing is mounted here\n"));
    }

    /// The stream that a path names, or the answer that there is none of such a name.
    fn named(
        &mut self,
        out: &mut Vec<u8>,
        env: &mut Env<'_>,
        request: &Request,
        name: Result<StreamName, Closing>,
    ) -> Option<StreamName> {
        name.map_err(|closing| {
            env.counters.count(closing.reason);
            self.not_found(out, env, request);
        })
        .ok()
    }

    /// A reply with a body that is at hand.
    fn reply(
        &mut self,
        out: &mut Vec<u8>,
        env: &mut Env<'_>,
        request: &Request,
        head: ResponseHead,
        body: Option<&[u8]>,
    ) {
        self.answered = true;
        let keep = request.keep_alive();
        let head = head.header("Connection", if keep { "keep-alive" } else { "close" });
        let head = head.date(env.wall_ms);
        // Replies that never have a body (304) do not state a length either: RFC 9110 8.6.
        let Some(body) = body else {
            out.extend_from_slice(&head.finish());
            if !keep {
                self.over(env, Reason::PeerClosed);
            }
            return;
        };
        let head = head.content_length(body.len() as u64).finish();
        // Where a part is asked for behind a playlist, its head follows.
        out.reserve(head.len() + body.len() + REPLY_ROOM);
        out.extend_from_slice(&head);
        if request.method != Method::Head {
            out.extend_from_slice(body);
        }
        if !keep {
            self.over(env, Reason::PeerClosed);
        }
    }

    /// A reply whose body is sent from where it lies. `head` says all but how much of it that is.
    fn serve(
        &mut self,
        out: &mut Vec<u8>,
        env: &mut Env<'_>,
        request: &Request,
        head: ResponseHead,
        (extent, body): (Extent, impl FnOnce() -> Body),
    ) {
        let Extent { is_part, start, len, total } = extent;
        let mut head = head.header("Accept-Ranges", "bytes");
        if is_part {
            let last = start + len.max(1) - 1;
            head = head.header("Content-Range", &format!("bytes {start}-{last}/{total}"));
        }
        let keep = request.keep_alive();
        let head = head.header("Connection", if keep { "keep-alive" } else { "close" });
        out.extend_from_slice(&head.date(env.wall_ms).content_length(len).finish());
        self.answered = true;
        if request.method != Method::Head && len > 0 {
            env.wishes.push(Wish::Serve(Box::new(body())));
            self.state = State::Serving;
        }
        if !keep {
            self.over(env, Reason::PeerClosed);
        }
    }

    /// The stream a path names; `None` when no mount serves the path.
    fn stream_name(&self, env: &Env<'_>, request: &Request) -> Option<Result<Asked, Closing>> {
        let found = mount::find(env.config, &asked_vhost(request), &request.path)?;
        let name = StreamName::new(found.vhost, found.app, found.stream);
        let what = What::Live(found.container);
        let asked = name.map(|name| Asked { name, what });
        Some(asked.map_err(|error| Closing::because(Reason::StreamName, error)))
    }

    fn play(&mut self, out: &mut Vec<u8>, env: &mut Env<'_>, request: Request, asked: Asked) {
        let What::Live(container) = asked.what else { return };
        if request.method == Method::Head {
            let head = ok(env, &request, container).header("Connection", "close");
            out.extend_from_slice(&head.finish());
            return self.over(env, Reason::PeerClosed);
        }
        let (_, format) = format(&request, container);
        let feed = env.streams.find(&asked.name).and_then(|stream| stream.feed(format));
        if feed.is_some_and(|feed| feed.refused()) {
            env.counters.count(Reason::CodecUnsupported);
            let head = text_head(env, &request, 415);
            let body = b"415 the stream's codecs have no place in this container\n";
            return self.reply(out, env, &request, head, Some(body));
        }
        let urls = urls(&request, &asked.name, self.secure);
        match enter(env, &request, self.id, &asked.name, &urls) {
            Ok(Entry::Granted(stay)) => {
                self.stay = stay;
                self.begin(out, env, &request, &asked.name, container, urls);
            }
            Ok(Entry::Undecided(stay)) => {
                self.stay = Some(stay);
                self.state = State::Waiting(Box::new((request, asked, urls)));
                env.wishes.push(Wish::Await);
            }
            Err(closing) => self.refuse(out, env, &request, &closing),
        }
    }

    /// Tells a player that it may not.
    fn refuse(
        &mut self,
        out: &mut Vec<u8>,
        env: &mut Env<'_>,
        request: &Request,
        closing: &Closing,
    ) {
        if env.may_say() {
            tracing::info!(id = %self.id, peer = %env.peer, path = ?request.path,
                reason = closing.reason.name(), detail = closing.detail, "refused");
        }
        let (status, body) = match closing.reason {
            Reason::AddressDenied
            | Reason::ReferDenied
            | Reason::TokenRefused
            | Reason::HookRefused => (403, &b"403 you may not play this\n"[..]),
            _ => (503, &b"503 not now, try again later\n"[..]),
        };
        let head = text_head(env, request, status).header("Cache-Control", "no-store");
        let head = head.header("Connection", "close").date(env.wall_ms);
        out.extend_from_slice(&head.content_length(body.len() as u64).finish());
        out.extend_from_slice(body);
        // What closes the session is counted when it is closed.
        self.over(env, closing.reason);
    }

    fn begin(
        &mut self,
        out: &mut Vec<u8>,
        env: &mut Env<'_>,
        request: &Request,
        name: &StreamName,
        container: Container,
        urls: Urls,
    ) {
        let upgrade = match request.wants_websocket().then(|| ws::accept(request)).transpose() {
            Ok(upgrade) => upgrade,
            Err(error) => {
                env.counters.count(Reason::BadRequest);
                out.extend_from_slice(&error.response(env.wall_ms));
                return self.over(env, Reason::BadRequest);
            }
        };
        // Only who plays opens a stream: it is looked at again when its last player leaves.
        let stream = match env.streams.open(name) {
            Ok(stream) => stream,
            Err(error) => {
                if env.may_say() {
                    tracing::warn!(reason = Reason::StreamsLimit.name(), id = %self.id,
                        peer = %env.peer, "refused: {error}");
                }
                env.counters.count(Reason::StreamsLimit);
                out.extend_from_slice(&http::response::plain(503, env.wall_ms));
                return self.over(env, Reason::StreamsLimit);
            }
        };
        let (framing, format) = format(request, container);
        let head = match upgrade {
            Some(response) => {
                out.extend_from_slice(&response);
                let reader = ws::Reader::new(ws::From::Client, WS_PLAYER_MESSAGE_BYTES_MAX);
                self.state = State::WebSocket(Box::new(reader), format);
                Vec::new()
            }
            None => {
                self.state = State::Playing(format);
                let head = ok(env, request, container).header("Connection", "close");
                match framing {
                    Framing::Chunked => head.header("Transfer-Encoding", "chunked").finish(),
                    _ => head.finish(),
                }
            }
        };
        let bravo_atc = stream.stats.health.bravo_atc.load(Relaxed);
        let rebases = env.config.vhost(name.vhost()).play.rebases(bravo_atc);
        let kind = match (container, framing) {
            (Container::Flv, Framing::WebSocket) => ClientKind::WebSocketPlay,
            (Container::Flv, _) => ClientKind::FlvPlay,
            (_, _) => ClientKind::PackedPlay(format),
        };
        env.wishes.push(Wish::Play(Play {
            stream: Arc::clone(&stream),
            kind,
            urls,
            forwarded: forwarded(request),
            format,
            head: Bytes::from(head),
            // Only messages have headers that can be exchanged; in units, time lies inside.
            rebase: rebases && container.is_verbatim(),
            duration_ms: None,
        }));
    }

    /// Frames a WebSocket player sends: pings are answered, a close is answered and ends it, the
    /// rest means nothing.
    fn frames(&mut self, out: &mut Vec<u8>, env: &mut Env<'_>, data: &[u8]) {
        let State::WebSocket(reader, _) = &mut self.state else { return };
        let mut input = data;
        loop {
            match reader.poll(&mut input) {
                Ok(None) => return,
                Ok(Some(ws::Event::Ping(payload))) => out.extend(ws::pong_frame(payload)),
                Ok(Some(ws::Event::Close { code, .. })) => {
                    out.extend(ws::close_frame(code.unwrap_or(1000), ""));
                    return self.over(env, Reason::PeerClosed);
                }
                Ok(Some(_)) => {}
                Err(error) => {
                    out.extend(ws::close_frame(error.close_code(), ""));
                    if env.may_say() {
                        tracing::info!(id = %self.id, peer = %env.peer, "websocket: {error}");
                    }
                    return self.over(env, Reason::Misbehaved);
                }
            }
            if out.len() > SESSION_OUTPUT_MAX {
                return;
            }
        }
    }
}

/// The vhost that a request asks for. SRS: by `?vhost=`, `?domain=`, else the host's name.
fn asked_vhost(request: &Request) -> Cow<'_, str> {
    match request.param("vhost").or_else(|| request.param("domain")) {
        Some(vhost) => Cow::Borrowed(vhost),
        None => request.host.as_deref().map(http::url::host_name).unwrap_or_default().into(),
    }
}

/// What is sent of a body, in bytes.
struct Extent {
    /// A range was asked for.
    is_part: bool,
    start: u64,
    len: u64,
    /// Of the whole body.
    total: u64,
}

/// Head of an answer in words.
fn text_head(env: &Env<'_>, request: &Request, status: u16) -> ResponseHead {
    let head = ResponseHead::new(status).header("Content-Type", "text/plain");
    with_cors(head, request, env.config.http_server.crossdomain)
}

/// What an HTTP player says of itself, in RTMP's words. SRS: the URL of the app is the request's
/// without the stream.
fn urls(request: &Request, name: &StreamName, secure: bool) -> Urls {
    let host = request.host.as_deref().unwrap_or(name.vhost());
    let scheme = if secure { "https" } else { "http" };
    let tc_url = format!("{scheme}://{host}/{}", name.app());
    let page_url = request.header("referer").unwrap_or_default();
    let param = match request.query.is_empty() {
        true => String::new(),
        false => format!("?{}", request.query),
    };
    Urls::new(&tc_url, page_url, "", &param)
}

/// Whether a request on the shared port is for the API. SRS: `/` and all else is HTTP streaming's.
fn is_for_api(env: &Env<'_>, request: &Request) -> bool {
    let path = request.path.as_str();
    let api = path == "/api" || path == "/metrics" || path.starts_with("/api/");
    api && env.config.shares_http_port()
}

/// What a path gives of the pages.
enum Page {
    File(page::Asset),
    Redirect(String),
    Nothing,
}

/// The pages, as this port has them: the console is on the API's port, unless that is this one.
fn find_page(config: &Config, request: &Request, secure: bool) -> Page {
    let (path, query) = (request.path.as_str(), request.query.as_str());
    let (asset, alias) = (page::asset(path), page::alias(path));
    if asset.is_none() && alias.is_none() {
        return Page::Nothing;
    }
    if page::home(path) == Some(page::Home::Api) && !config.shares_http_port() {
        return match (config.api_origin(secure), request.host.as_deref()) {
            (Some(origin), Some(host)) => {
                Page::Redirect(page::elsewhere(origin, host, path, query))
            }
            // Without the API it would have nothing to show.
            _ => Page::Nothing,
        };
    }
    match (asset, alias) {
        (Some(asset), _) => Page::File(asset),
        (None, Some(alias)) => Page::Redirect(page::with_query(alias, query)),
        (None, None) => Page::Nothing,
    }
}

/// Room for another head behind a reply.
const REPLY_ROOM: usize = 384;

const METHODS: &str = "GET, HEAD, OPTIONS";

/// How a stream goes to who asks so.
fn format(request: &Request, container: Container) -> (Framing, Format) {
    let framing = if request.wants_websocket() {
        Framing::WebSocket
    } else if request.minor_version == 0 {
        Framing::Plain
    } else {
        Framing::Chunked
    };
    (framing, wrap::format(container, framing))
}

/// The head of an answer that is a stream.
fn ok(env: &Env<'_>, request: &Request, container: Container) -> ResponseHead {
    let head = ResponseHead::with_version(request.minor_version, 200)
        .header("Content-Type", container.content_type())
        .header("Cache-Control", "no-store")
        .date(env.wall_ms);
    with_cors(head, request, env.config.http_server.crossdomain)
}

/// Asks whether who sent a request may play; `id` is the name of what it plays by.
fn enter(
    env: &mut Env<'_>,
    request: &Request,
    id: SessionId,
    name: &StreamName,
    urls: &Urls,
) -> Result<Entry, Closing> {
    let bearer = request.header("authorization").and_then(|value| value.strip_prefix("Bearer "));
    let forwarded = forwarded(request);
    let visitor = Visitor { id, name, urls, bearer, forwarded, connects: false };
    admission::enter(env, &visitor, Action::Play)
}

/// The client as proxies state it. SRS: the first of X-Forwarded-For, else X-Real-IP.
fn forwarded(request: &Request) -> Option<IpAddr> {
    let first = request.header("x-forwarded-for").and_then(|list| list.split(',').next());
    let text = first.or(request.header("x-real-ip"))?.trim();
    let without_port = || text.rsplit_once(':').and_then(|(ip, _)| ip.parse().ok());
    text.parse().ok().or_else(without_port)
}

fn with_cors(head: ResponseHead, request: &Request, enabled: bool) -> ResponseHead {
    if enabled { head.cors(request) } else { head }
}
