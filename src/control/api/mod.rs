//! The HTTP API: SRS's routes with SRS's names and codes, and what goes beyond them.
//!
//! A request becomes a `Route` (`route`), is allowed or not (`auth`), and is answered from what the
//! shards share (`live`, `system`, `control::sampler`). Nothing here waits for a shard, and no
//! shard waits for anything here. `server` speaks HTTP and bounds what a client can cost.

mod about;
mod auth;
pub mod events;
mod live;
mod pages;
mod reply;
mod route;
pub mod server;
mod srs;
pub mod stats;
mod system;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hyper::Method;
use serde_json::{Value, json};

use crate::hub::SessionId;
use crate::hub::clients::Place;
use crate::limits;
use crate::proto::http::Pairs;
use crate::proto::http::url::{decode_path, host_name, parse_query, percent_decode};
use crate::remux::{Client, Stream};
use crate::shard::{Kick, Letter};
use crate::version;

use super::alerts::Alerts;
use super::metrics;
use super::sampler::Sampler;
use super::serve::Handle;
use events::Journal;
use reply::{Code, Reply};
use route::Route;
use stats::{ApiStats, Refusal};
pub use system::System;

/// Everything the API answers from.
pub struct Api {
    handle: Arc<Handle>,
    /// Rates.
    pub sampler: Sampler,
    /// What happened lately.
    pub journal: Journal,
    /// What operators should look at.
    pub alerts: Alerts,
    /// Figures of the process and the machine.
    pub system: System,
    /// What was answered and refused.
    pub stats: Arc<ApiStats>,
}

/// What a request came in by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Port {
    /// A port of the API's own.
    Api,
    /// The port of HTTP streaming, which the API shares.
    Shared,
    /// The port of the exporter: metrics only.
    Exporter,
}

/// A request, as far as it matters.
#[derive(Debug)]
pub struct Ask<'a> {
    /// The port.
    pub port: Port,
    /// Who asks.
    pub peer: SocketAddr,
    /// By HTTPS.
    pub secure: bool,
    /// The method.
    pub method: &'a Method,
    /// The path as sent.
    pub path: &'a str,
    /// The query as sent.
    pub query: &'a str,
    /// The header fields.
    pub headers: &'a hyper::HeaderMap,
}

/// The request gets no answer: the connection ends. SRS: a path with `..`.
#[derive(Debug, thiserror::Error)]
#[error("the path leads out of the root")]
pub struct NoAnswer;

/// A request whose parts were looked at.
struct Request<'a> {
    ask: &'a Ask<'a>,
    method: Method,
    params: Pairs,
}

impl Request<'_> {
    fn param(&self, name: &str) -> Option<&str> {
        self.params.get(name)
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.ask.headers.get(name)?.to_str().ok()
    }

    fn changes_something(&self, route: &Route) -> bool {
        let reload = *route == Route::Raw && self.param("rpc") == Some("reload");
        reload || !matches!(self.method, Method::GET | Method::HEAD | Method::OPTIONS)
    }
}

impl Api {
    /// The API of a process.
    pub fn new(handle: Arc<Handle>) -> Api {
        handle.clients.listen();
        Api {
            sampler: Sampler::new(),
            journal: Journal::new(),
            alerts: Alerts::default(),
            system: system::System::new(),
            stats: Arc::default(),
            handle,
        }
    }

    /// Looks at everything from time to time: rates, alerts, events. Never ends.
    pub async fn watch(&self) {
        let mut turns = 0_u64;
        loop {
            self.note_events();
            if turns.is_multiple_of(SAMPLE_TURNS) {
                self.system.sample(&self.handle);
                self.sampler.sample_streams(&self.handle.streams, super::wall_ms());
                let uploads = self.handle.uploads.summaries();
                let streams = &self.handle.streams;
                self.alerts.look(streams, &uploads, &self.sampler, &self.journal);
            }
            if turns.is_multiple_of(CLIENT_TURNS) {
                self.sampler.sample_clients(&self.handle.clients).await;
            }
            turns += 1;
            tokio::time::sleep(TURN).await;
        }
    }

    fn note_events(&self) {
        // Bounded by the queue, so that a storm of players cannot keep the thread here.
        for _ in 0..limits::CLIENT_EVENTS_WAITING {
            let Some(event) = self.handle.clients.next_event() else { break };
            self.journal.add_change(&event);
        }
        self.journal.note_lost(self.handle.clients.take_events_lost());
    }

    /// Answers a request.
    ///
    /// # Errors
    /// It gets no answer.
    pub async fn answer(&self, ask: &Ask<'_>) -> Result<Reply, NoAnswer> {
        let decoded = percent_decode(ask.path.as_bytes(), false).unwrap_or_default();
        if memchr::memmem::find(&decoded, b"..").is_some() {
            return Err(NoAnswer);
        }
        let Ok(path) = decode_path(ask.path) else {
            return Ok(Reply::text(400, "400 Bad Request\n"));
        };
        let Ok(params) = parse_query(ask.query) else {
            return Ok(Reply::text(400, "400 Bad Request\n"));
        };
        let config = self.handle.config();
        let cors = config.http_server.crossdomain;
        if *ask.method == Method::OPTIONS {
            // SRS: answered before anybody is asked who he is.
            return Ok(match cors {
                true => Reply::empty(200).cors(ask.headers),
                false => Reply::text(405, "405 Method Not Allowed\n"),
            });
        }
        let mut request = Request { ask, method: ask.method.clone(), params };
        let jsonp = request.param("callback").map(str::to_owned);
        if let Some(callback) = &jsonp {
            if !reply::is_callback(callback) {
                return Ok(Reply::failure(Code::HttpJsonp));
            }
            request.method = match request.param("method") {
                Some("GET") => Method::GET,
                Some("PUT") => Method::PUT,
                Some("POST") => Method::POST,
                Some("DELETE") => Method::DELETE,
                _ => request.method,
            };
        }
        if let Some(reply) = pages::find(&config, &path, &request) {
            return Ok(reply);
        }
        let route = route::find(&path, ask.port);
        let mut reply = match auth::refusal(&config, &path, &request, &route) {
            None => self.route(route, &request).await,
            Some((why, refusal)) => {
                self.stats.refuse(why);
                refusal
            }
        };
        if let Some(callback) = jsonp {
            reply = reply.wrapped(&callback);
        }
        Ok(if cors { reply.cors(ask.headers) } else { reply })
    }

    /// What `/api/v1/summaries` answers, for the heartbeat.
    pub fn summaries(&self) -> Value {
        json!({
            "code": 0,
            "server": version::server_id(),
            "service": version::service_id(),
            "pid": std::process::id().to_string(),
            "data": self.system.summaries(&self.handle),
        })
    }

    async fn route(&self, route: Route, request: &Request<'_>) -> Reply {
        let allowed = route.methods();
        if !allowed.contains(&&request.method) && request.method != Method::HEAD {
            return Reply::not_allowed(allowed);
        }
        match route {
            Route::Root => Reply::success(&[("urls", srs::root_urls())]),
            Route::Api => Reply::success(&[("urls", json!({"v1": "the api version 1.0"}))]),
            Route::V1 => srs::v1(),
            Route::Versions => Reply::json(version::versions_json().into_bytes()),
            Route::Summaries => Reply::success(&[("data", self.system.summaries(&self.handle))]),
            Route::Rusages => Reply::success(&[("data", self.system.rusages())]),
            Route::SelfProcStats => Reply::success(&[("data", self.system.self_proc_stats())]),
            Route::SystemProcStats => Reply::success(&[("data", self.system.system_proc_stats())]),
            Route::Meminfos => Reply::success(&[("data", self.system.meminfos())]),
            Route::Authors => Reply::success(&[("data", srs::authors())]),
            Route::Features => Reply::success(&[("data", srs::features(&self.handle.config()))]),
            Route::Vhosts(id) => self.vhosts(id.as_deref()),
            Route::Streams(None) => self.streams(request),
            Route::Streams(Some(id)) => self.stream(request, &id).await,
            Route::Clients(None) if request.method == Method::DELETE => {
                self.kick_by_address(request).await
            }
            Route::Clients(None) => self.clients(request),
            Route::Clients(Some(id)) => self.client(request, &id).await,
            Route::Dvrs(None) => self.dvrs(),
            Route::Dvrs(Some(id)) => self.dvr(request, &id),
            Route::Uploads => Reply::success(&[("uploads", self.uploads())]),
            Route::Raw => srs::raw(&self.handle, request),
            Route::Clusters => srs::clusters(&self.handle, request),
            Route::TestRequests => srs::echo(request),
            Route::TestErrors => Reply::code(100),
            Route::TestRedirects => Reply::redirect(301, "/api/v1/tests/errors"),
            Route::Redirect(to) => {
                let query = request.ask.query;
                let mark = if query.is_empty() { "" } else { "?" };
                Reply::redirect(302, &format!("{to}{mark}{query}"))
            }
            Route::Alerts => Reply::success(&[("alerts", self.alerts.list())]),
            Route::Server => Reply::success(&[("data", about::server(&self.handle, &self.stats))]),
            Route::Shards => Reply::success(&[("shards", self.shards())]),
            Route::Events => self.events(request),
            Route::OpenApi => Reply::json(OPEN_API.as_bytes().to_vec()),
            Route::Metrics => self.metrics(request.ask.port),
            Route::NotFound => Reply::text(404, "404 Not Found\n"),
        }
    }

    fn metrics(&self, port: Port) -> Reply {
        if port != Port::Exporter && !self.handle.config().exporter.enabled {
            return Reply::failure(Code::ExporterDisabled);
        }
        let text = metrics::text(&self.handle, self);
        Reply::text(200, &text).header("content-type", "text/plain; charset=utf-8")
    }

    fn events(&self, request: &Request<'_>) -> Reply {
        let last = request.header("last-event-id").or(request.param("last_event_id"));
        let last = match last.map(|id| id.trim().parse::<u64>()) {
            None => None,
            Some(Ok(id)) => Some(id),
            Some(Err(_)) => return Reply::failure(Code::HttpDataInvalid),
        };
        let recent = match request.param("recent").map(|n| n.trim().parse::<u64>()) {
            None => None,
            Some(Ok(count)) => Some(count),
            Some(Err(_)) => return Reply::failure(Code::HttpDataInvalid),
        };
        match self.journal.follow(last, recent) {
            Some(follower) => Reply::events(follower),
            None => {
                self.stats.refuse(Refusal::EventReaders);
                Reply::text(503, "503 too many event streams are open\n")
            }
        }
    }

    fn vhosts(&self, id: Option<&str>) -> Reply {
        let vhosts = self.sampler.vhosts(&self.handle.streams, super::wall_ms());
        let config = self.handle.config();
        let json =
            |vhost: &super::sampler::Vhost| live::vhost_json(vhost, &config.vhost(&vhost.name).hls);
        match id {
            None => {
                let list: Vec<_> = vhosts.iter().map(json).collect();
                Reply::success(&[("vhosts", Value::Array(list))])
            }
            Some(id) => match vhosts.iter().find(|v| version::id_of(&v.name) == id) {
                Some(vhost) => Reply::success(&[("vhost", json(vhost))]),
                None => Reply::failure(Code::VhostNotFound),
            },
        }
    }

    fn streams(&self, request: &Request<'_>) -> Reply {
        let (start, count) = match page(request) {
            Ok(page) => page,
            Err(code) => return Reply::failure(code),
        };
        let streams = self.handle.streams.page(start, count, live::is_listed);
        let now_ms = super::wall_ms();
        let list: Vec<_> =
            streams.iter().map(|stream| live::stream_json(stream, &self.sampler, now_ms)).collect();
        Reply::list("streams", &list)
    }

    /// What is recorded.
    fn dvrs(&self) -> Reply {
        let recorded = |stream: &Stream| stream.recording().is_some();
        let streams = self.handle.streams.page(0, limits::RECORDINGS_MAX, recorded);
        let now_ms = super::wall_ms();
        let list: Vec<_> =
            streams.iter().filter_map(|stream| live::dvr_json(stream, now_ms)).collect();
        Reply::list("dvrs", &list)
    }

    /// What is uploaded and what waits for it, by vhosts.
    fn uploads(&self) -> Value {
        let now_ms = super::wall_ms();
        self.handle.uploads.summaries().iter().map(|summary| summary.json(now_ms)).collect()
    }

    /// The recording of a stream: looked at, begun or ended. What the API wants stands over the
    /// configuration until the stream is gone.
    fn dvr(&self, request: &Request<'_>, id: &str) -> Reply {
        let wanted =
            |stream: &Stream| live::is_listed(stream) && version::id_of(stream.name.key()) == id;
        let Some(stream) = self.handle.streams.page(0, 1, wanted).pop() else {
            return Reply::failure(Code::StreamNotFound);
        };
        if request.method == Method::POST || request.method == Method::DELETE {
            let record = request.method == Method::POST;
            if !self.handle.record_wishes.note(&stream, record) {
                return busy();
            }
            tracing::info!(stream = %stream.name, record, "the API says whether it is recorded");
            return Reply::success(&[]);
        }
        match live::dvr_json(&stream, super::wall_ms()) {
            Some(dvr) => Reply::one("dvr", &dvr),
            None => Reply::success(&[("dvr", Value::Null)]),
        }
    }

    async fn stream(&self, request: &Request<'_>, id: &str) -> Reply {
        let wanted =
            |stream: &Stream| live::is_listed(stream) && version::id_of(stream.name.key()) == id;
        let Some(stream) = self.handle.streams.page(0, 1, wanted).pop() else {
            return Reply::failure(Code::StreamNotFound);
        };
        if request.method == Method::DELETE {
            let (publishers, players) = match request.param("role") {
                None => (true, true),
                Some("publish") => (true, false),
                Some("play") => (false, true),
                Some(_) => return Reply::failure(Code::HttpDataInvalid),
            };
            let kick = Kick::Stream { stream: stream.id, publishers, players };
            for shard in 0..self.handle.post.shards() {
                if !self.kick(shard, kick.clone()).await {
                    return busy();
                }
            }
            return Reply::success(&[]);
        }
        let stream = live::stream_json(&stream, &self.sampler, super::wall_ms());
        Reply::one("stream", &stream)
    }

    fn clients(&self, request: &Request<'_>) -> Reply {
        let (start, count) = match page(request) {
            Ok(page) => page,
            Err(code) => return Reply::failure(code),
        };
        let clients = match request.param("stream") {
            None => self.handle.clients.page(start, count),
            Some(id) => {
                let wanted = |stream: &Stream| version::id_of(stream.name.key()) == id;
                let Some(stream) = self.handle.streams.page(0, 1, wanted).pop() else {
                    return Reply::failure(Code::StreamNotFound);
                };
                self.handle.clients.page_of(start, count, |client| client.stream.id == stream.id)
            }
        };
        let now_ms = super::wall_ms();
        let list: Vec<_> =
            clients.iter().map(|client| live::client_json(client, &self.sampler, now_ms)).collect();
        Reply::list("clients", &list)
    }

    async fn client(&self, request: &Request<'_>, id: &str) -> Reply {
        let client = SessionId::parse(id).and_then(|id| self.handle.clients.find(id));
        let Some(client) = client else { return Reply::failure(Code::ClientNotFound) };
        if request.method == Method::DELETE {
            let kicked = self.kick_client(&client).await;
            return if kicked { Reply::success(&[]) } else { busy() };
        }
        Reply::one("client", &live::client_json(&client, &self.sampler, super::wall_ms()))
    }

    async fn kick_by_address(&self, request: &Request<'_>) -> Reply {
        let Some(Ok(ip)) = request.param("ip").map(str::parse::<IpAddr>) else {
            return Reply::failure(Code::HttpDataInvalid);
        };
        let ip = ip.to_canonical();
        let mut place = Place::default();
        loop {
            let clients = self.handle.clients.read(&mut place);
            if clients.is_empty() {
                return Reply::success(&[]);
            }
            for client in clients.iter().filter(|client| client.ip() == ip) {
                if !self.kick_client(client).await {
                    return busy();
                }
            }
        }
    }

    async fn kick_client(&self, client: &Client) -> bool {
        if client.kind.is_viewer() {
            // It has no connection that could be closed; the first shard looks after viewers.
            return self.kick(0, Kick::Viewer { id: client.id }).await;
        }
        let (shard, index) = client.place();
        self.kick(shard, Kick::Session { index, id: client.id }).await
    }

    /// Tells a shard. A letter is a hint and may find no room; this one has to arrive. False when
    /// it cannot.
    async fn kick(&self, shard: usize, kick: Kick) -> bool {
        tracing::info!(%kick, shard, "the API closes connections");
        for _ in 0..KICK_TRIES_MAX {
            if self.handle.post.tell(shard, Letter::Kick(kick.clone())) {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        false
    }

    fn shards(&self) -> Value {
        self.handle.counters.iter().map(|counters| live::shard_json(counters)).collect()
    }
}

fn busy() -> Reply {
    Reply::text(503, "503 a shard is too busy to take this; try again\n")
}

/// SRS: `start` is at least 0 and `count` at least 1; how many there are at most is ours.
fn page(request: &Request<'_>) -> Result<(usize, usize), Code> {
    let number = |name: &str| match request.param(name) {
        None => Ok(None),
        Some(text) => match text.trim().parse::<i64>() {
            Ok(number) => Ok(Some(number)),
            Err(_) => Err(Code::HttpDataInvalid),
        },
    };
    let start = number("start")?.unwrap_or(0).max(0);
    let count = number("count")?.unwrap_or(10).clamp(1, limits::API_PAGE_MAX as i64);
    Ok((usize::try_from(start).unwrap_or(usize::MAX), count as usize))
}

/// Time between two looks at what happened.
const TURN: Duration = Duration::from_millis(100);
/// Turns between two samples of streams, process and machine.
const SAMPLE_TURNS: u64 = 30;
/// Turns between two samples of clients.
const CLIENT_TURNS: u64 = 100;
/// Most tries to put a letter into a full mailbox.
const KICK_TRIES_MAX: u32 = 100;

static OPEN_API: &str = include_str!("openapi.json");
