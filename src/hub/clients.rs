//! Who publishes and plays now: one small record per client, for the API, hooks and metrics.
//!
//! A shard makes a record when a session begins to publish or play, writes its counters with
//! relaxed stores of its own, and gives it back at the end. The lock of a shard's table is taken at
//! those two moments and by readers, who never hold it for longer than [`CHUNK`] records take;
//! nothing on the way of a frame locks or allocates here.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crossbeam::queue::ArrayQueue;

use super::feed::Format;
use super::stats::Reason;
use super::stream::Stream;
use crate::limits::CLIENT_EVENTS_WAITING;

/// Short id of a session, in every log line about it: 8 characters, as in SRS.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId([u8; 8]);

impl SessionId {
    /// An id from 64 random bits.
    pub fn from_bits(mut bits: u64) -> SessionId {
        const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
        let mut id = [0; 8];
        for c in &mut id {
            *c = ALPHABET[(bits & 31) as usize];
            bits >>= 5;
        }
        SessionId(id)
    }

    /// The id that is written like this; `None` when no id is.
    pub fn parse(text: &str) -> Option<SessionId> {
        let id: [u8; 8] = text.as_bytes().try_into().ok()?;
        id.iter().all(u8::is_ascii_alphanumeric).then_some(SessionId(id))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or("????????")
    }
}

impl std::fmt::Display for SessionId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::fmt::Debug for SessionId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a client does, by which protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ClientKind {
    /// Plays by RTMP.
    RtmpPlay,
    /// Plays HTTP-FLV.
    FlvPlay,
    /// Plays FLV over a WebSocket.
    WebSocketPlay,
    /// Plays another container over HTTP or a WebSocket.
    PackedPlay(Format),
    /// Plays segments of HLS.
    HlsPlay,
    /// Plays segments of DASH.
    DashPlay,
    /// Publishes by RTMP in Flash's way.
    FlashPublish,
    /// Publishes by RTMP in the way of FMLE, OBS and ffmpeg.
    FmlePublish,
    /// Publishes by RTMP in the way of Haivision's encoders.
    HaivisionPublish,
}

impl ClientKind {
    /// The name that SRS's API has for it. Everything live over HTTP is `flv-play` there, and so is
    /// what SRS has not: WebSockets, fragmented MP4.
    pub fn srs_name(self) -> &'static str {
        match self {
            ClientKind::RtmpPlay => "rtmp-play",
            ClientKind::HlsPlay => "hls-play",
            ClientKind::DashPlay => "dash-play",
            ClientKind::FlvPlay | ClientKind::WebSocketPlay | ClientKind::PackedPlay(_) => {
                "flv-play"
            }
            ClientKind::FlashPublish => "flash-publish",
            ClientKind::FmlePublish => "fmle-publish",
            ClientKind::HaivisionPublish => "haivision-publish",
        }
    }

    /// The protocol, for people.
    pub fn protocol(self) -> &'static str {
        match self {
            ClientKind::FlvPlay => "http-flv",
            ClientKind::HlsPlay => "hls",
            ClientKind::DashPlay => "dash",
            ClientKind::WebSocketPlay => "ws-flv",
            ClientKind::PackedPlay(format) => format.protocol(),
            _ => "rtmp",
        }
    }

    /// True for who comes again and again, over any connection.
    pub fn is_viewer(self) -> bool {
        matches!(self, ClientKind::HlsPlay | ClientKind::DashPlay)
    }

    /// True for who publishes.
    pub fn publishes(self) -> bool {
        use ClientKind::*;
        matches!(self, FlashPublish | FmlePublish | HaivisionPublish)
    }
}

/// What a client said of itself. Most players of a stream say the same, so equal ones are shared.
#[derive(Debug, PartialEq, Eq, Default)]
pub struct Urls {
    /// tcUrl, pageUrl, swfUrl and the stream's parameters, one behind the other.
    text: Box<str>,
    ends: [u16; 3],
}

impl Urls {
    /// The URLs of a client; an empty text stands for what it did not say.
    pub fn new(tc_url: &str, page_url: &str, swf_url: &str, param: &str) -> Urls {
        let mut text =
            String::with_capacity(tc_url.len() + page_url.len() + swf_url.len() + param.len());
        let mut ends = [0; 3];
        for (end, part) in ends.iter_mut().zip([tc_url, page_url, swf_url]) {
            text.push_str(part);
            *end = u16::try_from(text.len()).unwrap_or(0);
        }
        text.push_str(param);
        // Each part is bounded where it was received; this holds the sum.
        if text.len() > usize::from(u16::MAX) {
            return Urls::default();
        }
        Urls { text: text.into_boxed_str(), ends }
    }

    /// The URL of the app, as an RTMP client wrote it or as an HTTP request means it.
    pub fn tc_url(&self) -> &str {
        &self.text[..usize::from(self.ends[0])]
    }

    /// The page that holds the player.
    pub fn page_url(&self) -> &str {
        &self.text[usize::from(self.ends[0])..usize::from(self.ends[1])]
    }

    /// The player itself, where it is a file.
    pub fn swf_url(&self) -> &str {
        &self.text[usize::from(self.ends[1])..usize::from(self.ends[2])]
    }

    /// The parameters of the stream's URL, with the question mark.
    pub fn param(&self) -> &str {
        &self.text[usize::from(self.ends[2])..]
    }
}

/// One client. `W` is the writer of its stream. Every player has one, so every byte counts.
#[derive(Debug)]
pub struct Client<W> {
    /// Its id, the same as in the log.
    pub id: SessionId,
    /// What it publishes or plays.
    pub stream: Arc<Stream<W>>,
    /// What it said of itself.
    pub urls: Arc<Urls>,
    /// When it connected, milliseconds since the epoch.
    pub opened_ms: i64,
    /// Bytes received from it.
    bytes_in: AtomicU64,
    /// Bytes sent to it.
    bytes_out: AtomicU64,
    /// Where it is in the stream when it last got something: the low bits of the time in ms.
    cursor_ms: AtomicU32,
    /// Times it was moved to a newer place.
    skips: AtomicU32,
    /// Low bits of the bytes in and out when they were last looked at.
    sampled: [AtomicU32; 2],
    /// Rates in and out, 1/16 kbit/s, or [`NOT_SAMPLED`]; written by the sampler alone.
    kbps: [AtomicU32; 2],
    /// Index of its connection, and place in its table.
    slot: u32,
    /// An IPv4 address in its IPv6 form.
    ip: Ipv6Addr,
    port: u16,
    /// What it does.
    pub kind: ClientKind,
    shard: u8,
}

/// The sampler has not seen the client yet.
const NOT_SAMPLED: u32 = u32::MAX;

impl<W> Client<W> {
    /// Its address.
    pub fn ip(&self) -> IpAddr {
        self.ip.to_canonical()
    }

    /// Its address and port.
    pub fn peer(&self) -> SocketAddr {
        SocketAddr::new(self.ip(), self.port)
    }

    /// The shard that serves it, and the index of its connection there.
    pub fn place(&self) -> (usize, usize) {
        (usize::from(self.shard), self.slot as usize)
    }

    /// Bytes received from it so far.
    pub fn bytes_in(&self) -> u64 {
        self.bytes_in.load(Relaxed)
    }

    /// Bytes sent to it so far.
    pub fn bytes_out(&self) -> u64 {
        self.bytes_out.load(Relaxed)
    }

    /// Times it fell behind and was moved to a newer place.
    pub fn skips(&self) -> u32 {
        self.skips.load(Relaxed)
    }

    /// How far a player is behind the stream, ms of stream time; 0 for publishers and viewers. The
    /// time that messages are gathered before a send is part of it.
    pub fn lag_ms(&self) -> u32 {
        // Who plays segments is behind by choice.
        if self.kind.publishes() || self.kind.is_viewer() {
            return 0;
        }
        // The RTMP feed is always open for a published stream, and all feeds have one clock.
        let Some(feed) = self.stream.feed(Format::Rtmp) else { return 0 };
        let lag = (feed.time() as u32).wrapping_sub(self.cursor_ms.load(Relaxed));
        // A cursor that was written since the clock was read is ahead of it.
        if lag > u32::MAX / 2 { 0 } else { lag }
    }

    /// For its shard: bytes received so far.
    pub fn set_bytes_in(&self, bytes: u64) {
        self.bytes_in.store(bytes, Relaxed);
    }

    /// For its shard: bytes sent so far.
    pub fn set_bytes_out(&self, bytes: u64) {
        self.bytes_out.store(bytes, Relaxed);
    }

    /// For its shard: so many more bytes were sent. There is one writer, so this is a plain store.
    pub fn add_bytes_out(&self, bytes: u32) {
        self.bytes_out.store(self.bytes_out.load(Relaxed) + u64::from(bytes), Relaxed);
    }

    /// So many more bytes were sent, by whichever shard: for who plays over many connections.
    pub fn count_bytes_out(&self, bytes: u64) {
        self.bytes_out.fetch_add(bytes, Relaxed);
    }

    /// For its shard: the stream time that is being sent, ms.
    pub fn set_cursor(&self, stream_ms: i64) {
        self.cursor_ms.store(stream_ms as u32, Relaxed);
    }

    /// For its shard: it was moved to a newer place.
    pub fn count_skip(&self) {
        self.skips.store(self.skips.load(Relaxed).wrapping_add(1), Relaxed);
    }

    /// Rates in and out, kbit/s: a mean over about 30 s that weighs the newest most, or over the
    /// client's life at `now_ms` while that is short.
    pub fn kbps(&self, now_ms: i64) -> [u32; 2] {
        if self.is_sampled() {
            return [0, 1].map(|index| (self.kbps[index].load(Relaxed) + 8) / 16);
        }
        let ms = u64::try_from(now_ms - self.opened_ms).unwrap_or(0).max(1_000);
        [self.bytes_in(), self.bytes_out()].map(|bytes| kbps(bytes, ms))
    }

    /// For the sampler, who looks at `now_ms` since the epoch, `elapsed_ms` after the last time.
    pub fn sample(&self, now_ms: i64, elapsed_ms: u64) {
        let lifelong = self.kbps(now_ms);
        let is_first = !self.is_sampled();
        for (index, bytes) in [self.bytes_in(), self.bytes_out()].into_iter().enumerate() {
            let before = self.sampled[index].swap(bytes as u32, Relaxed);
            let new = u64::from((bytes as u32).wrapping_sub(before));
            let rate = u64::from(kbps(new * 16, elapsed_ms));
            let weight = elapsed_ms.clamp(1, RATE_WINDOW_MS);
            let mean = u64::from(self.kbps[index].load(Relaxed)) * (RATE_WINDOW_MS - weight);
            let mean = (mean + rate * weight + RATE_WINDOW_MS / 2) / RATE_WINDOW_MS;
            let lifelong = u64::from(lifelong[index]) * 16;
            let new = if is_first { lifelong } else { mean };
            self.kbps[index].store(new.min(u64::from(NOT_SAMPLED - 1)) as u32, Relaxed);
        }
    }

    fn is_sampled(&self) -> bool {
        self.kbps[0].load(Relaxed) != NOT_SAMPLED
    }
}

fn kbps(bytes: u64, ms: u64) -> u32 {
    u32::try_from(bytes.saturating_mul(8) / ms.max(1)).unwrap_or(u32::MAX)
}

/// Window of the rates, ms.
const RATE_WINDOW_MS: u64 = 30_000;

/// A client that begins.
#[derive(Debug)]
pub struct NewClient<W> {
    /// Its id.
    pub id: SessionId,
    /// Its address.
    pub peer: SocketAddr,
    /// What it does.
    pub kind: ClientKind,
    /// What it publishes or plays.
    pub stream: Arc<Stream<W>>,
    /// What it said of itself.
    pub urls: Urls,
    /// When it connected, milliseconds since the epoch.
    pub opened_ms: i64,
    /// Bytes received before.
    pub bytes_in: u64,
    /// Bytes sent before.
    pub bytes_out: u64,
}

/// What happened to a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientChange {
    /// It publishes from now on.
    Publish,
    /// It published.
    Unpublish(Reason),
    /// It plays from now on.
    Play,
    /// It played.
    Stop(Reason),
}

/// A change, for who listens.
#[derive(Debug)]
pub struct ClientEvent<W> {
    /// When, milliseconds since the epoch.
    pub at_ms: i64,
    /// What.
    pub change: ClientChange,
    /// To whom.
    pub client: Arc<Client<W>>,
}

/// All clients of the process, in one table per shard.
#[derive(Debug)]
pub struct Clients<W> {
    tables: Box<[Mutex<Table<W>>]>,
    now: AtomicU32,
    joined: AtomicU64,
    failed: AtomicU64,
    events: ArrayQueue<ClientEvent<W>>,
    events_wanted: AtomicBool,
    events_lost: AtomicU64,
}

#[derive(Debug)]
struct Table<W> {
    /// By index of the connection.
    slots: Vec<Option<Arc<Client<W>>>>,
    used: usize,
    /// Free slots, in the table whose clients have no connection of their own.
    free: Vec<usize>,
    /// The last few distinct URLs.
    urls: [Weak<Urls>; URLS_SHARED],
    next_url: usize,
}

/// Distinct URLs that newcomers of a shard are compared with.
const URLS_SHARED: usize = 32;

/// Records that a reader takes under one lock.
pub const CHUNK: usize = 256;

/// A place in the order of all clients, for reading them in pieces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    table: usize,
    slot: usize,
}

impl<W> Clients<W> {
    /// Empty tables for that many shards.
    pub fn new(shards: usize) -> Clients<W> {
        let table = || Table {
            slots: Vec::new(),
            used: 0,
            free: Vec::new(),
            urls: std::array::from_fn(|_| Weak::new()),
            next_url: 0,
        };
        Clients {
            // One more, of those that have no connection of their own.
            tables: (0..=shards).map(|_| Mutex::new(table())).collect(),
            now: AtomicU32::new(0),
            joined: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            events: ArrayQueue::new(CLIENT_EVENTS_WAITING),
            events_wanted: AtomicBool::new(false),
            events_lost: AtomicU64::new(0),
        }
    }

    /// For a shard: the session of a connection begins to publish or play, at `now_ms` since the
    /// epoch. It does one thing at a time, so its index is its place.
    pub fn join(
        &self,
        (shard, index): (usize, usize),
        new: NewClient<W>,
        now_ms: i64,
    ) -> Arc<Client<W>> {
        let client = {
            let mut table = self.table(shard);
            let urls = table.share(new.urls);
            new.stream.note_urls(&urls);
            let client = Arc::new(Client {
                id: new.id,
                stream: new.stream,
                urls,
                opened_ms: new.opened_ms,
                bytes_in: AtomicU64::new(new.bytes_in),
                bytes_out: AtomicU64::new(new.bytes_out),
                cursor_ms: AtomicU32::new(0),
                skips: AtomicU32::new(0),
                sampled: Default::default(),
                kbps: [NOT_SAMPLED; 2].map(AtomicU32::new),
                slot: index as u32,
                shard: shard as u8,
                ip: match new.peer.ip() {
                    IpAddr::V4(ip) => ip.to_ipv6_mapped(),
                    IpAddr::V6(ip) => ip,
                },
                port: new.peer.port(),
                kind: new.kind,
            });
            if table.slots.len() <= index {
                table.slots.resize(index + 1, None);
            }
            let before = table.slots[index].replace(client.clone());
            table.used += usize::from(before.is_none());
            client
        };
        self.now.fetch_add(1, Relaxed);
        self.joined.fetch_add(1, Relaxed);
        let publishes = client.kind.publishes();
        let change = if publishes { ClientChange::Publish } else { ClientChange::Play };
        self.tell(now_ms, change, &client);
        client
    }

    /// A client without a connection of its own begins to play, at `now_ms` since the epoch.
    pub fn join_viewer(&self, new: NewClient<W>, now_ms: i64) -> Arc<Client<W>> {
        let table = self.tables.len() - 1;
        let slot = {
            let mut table = self.table(table);
            let end = table.slots.len();
            table.free.pop().unwrap_or_else(|| {
                table.slots.push(None);
                end
            })
        };
        self.join((table, slot), new, now_ms)
    }

    /// For a shard: the client of [`Clients::join`] ends, at `now_ms` since the epoch.
    pub fn leave(&self, client: &Arc<Client<W>>, reason: Reason, now_ms: i64) {
        {
            let of_viewers = usize::from(client.shard) + 1 == self.tables.len();
            let mut table = self.table(usize::from(client.shard));
            let slot = table.slots.get_mut(client.slot as usize);
            if slot.and_then(|slot| slot.take_if(|there| Arc::ptr_eq(there, client))).is_some() {
                table.used -= 1;
                if of_viewers {
                    table.free.push(client.slot as usize);
                }
            }
            // A slot of a viewer that is neither used nor free is about to be.
            if table.used == 0 && (!of_viewers || table.free.len() == table.slots.len()) {
                (table.slots, table.free) = Default::default();
            }
        }
        self.now.fetch_sub(1, Relaxed);
        if reason.is_failure() {
            self.failed.fetch_add(1, Relaxed);
        }
        let change = match client.kind.publishes() {
            true => ClientChange::Unpublish(reason),
            false => ClientChange::Stop(reason),
        };
        self.tell(now_ms, change, client);
    }

    /// Clients now.
    pub fn len(&self) -> usize {
        self.now.load(Relaxed) as usize
    }

    /// True when there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Clients since the start.
    pub fn joined(&self) -> u64 {
        self.joined.load(Relaxed)
    }

    /// Clients since the start that ended by a fault.
    pub fn failed(&self) -> u64 {
        self.failed.load(Relaxed)
    }

    /// The next clients from `place` on, at most [`CHUNK`]; `place` moves behind them. Empty at
    /// the end. Who begins or ends in between may be missed or not.
    pub fn read(&self, place: &mut Place) -> Vec<Arc<Client<W>>> {
        self.read_some(place, CHUNK)
    }

    fn read_some(&self, place: &mut Place, most: usize) -> Vec<Arc<Client<W>>> {
        let mut out = Vec::new();
        while out.is_empty() && place.table < self.tables.len() {
            let table = self.table(place.table);
            let rest = table.slots.get(place.slot..).unwrap_or_default();
            let mut looked_at = 0;
            for slot in rest.iter().take(CHUNK) {
                looked_at += 1;
                out.extend(slot.clone());
                if out.len() == most {
                    break;
                }
            }
            place.slot += looked_at;
            if place.slot >= table.slots.len() {
                *place = Place { table: place.table + 1, slot: 0 };
            }
        }
        out
    }

    /// Up to `count` clients, without the first `start`.
    pub fn page(&self, start: usize, count: usize) -> Vec<Arc<Client<W>>> {
        let mut place = Place::default();
        let mut skip = start;
        let mut out = Vec::new();
        while out.len() < count {
            // Not more than are needed: each costs two changes of a count that shards use, too.
            let needed = skip.saturating_add(count - out.len());
            let clients = self.read_some(&mut place, needed.min(CHUNK));
            if clients.is_empty() {
                break;
            }
            let skipped = skip.min(clients.len());
            skip -= skipped;
            out.extend(clients.into_iter().skip(skipped).take(count - out.len()));
        }
        out
    }

    /// The same of those that are `wanted`.
    pub fn page_of(
        &self,
        start: usize,
        count: usize,
        wanted: impl Fn(&Client<W>) -> bool,
    ) -> Vec<Arc<Client<W>>> {
        let (mut place, mut out) = (Place::default(), Vec::new());
        let mut skip = start;
        while out.len() < count {
            let clients = self.read(&mut place);
            if clients.is_empty() {
                break;
            }
            for client in clients.into_iter().filter(|client| wanted(client)) {
                match skip.checked_sub(1) {
                    Some(rest) => skip = rest,
                    None if out.len() < count => out.push(client),
                    None => break,
                }
            }
        }
        out
    }

    /// The client of that id.
    pub fn find(&self, id: SessionId) -> Option<Arc<Client<W>>> {
        let mut place = Place::default();
        loop {
            let clients = self.read(&mut place);
            if clients.is_empty() {
                return None;
            }
            if let Some(client) = clients.into_iter().find(|client| client.id == id) {
                return Some(client);
            }
        }
    }

    /// From now on changes are kept for [`Clients::next_event`].
    pub fn listen(&self) {
        self.events_wanted.store(true, Release);
    }

    /// The next change, for the one who listens.
    pub fn next_event(&self) -> Option<ClientEvent<W>> {
        self.events.pop()
    }

    /// Changes that nobody fetched in time, since this was last asked.
    pub fn take_events_lost(&self) -> u64 {
        self.events_lost.swap(0, Relaxed)
    }

    fn tell(&self, at_ms: i64, change: ClientChange, client: &Arc<Client<W>>) {
        if self.events_wanted.load(Acquire)
            && self.events.push(ClientEvent { at_ms, change, client: client.clone() }).is_err()
        {
            self.events_lost.fetch_add(1, Relaxed);
        }
    }

    fn table(&self, shard: usize) -> MutexGuard<'_, Table<W>> {
        // Every change under the lock leaves the table in a valid state if it panics.
        self.tables[shard].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<W> Table<W> {
    fn share(&mut self, urls: Urls) -> Arc<Urls> {
        let known = self.urls.iter().filter_map(Weak::upgrade).find(|known| **known == urls);
        known.unwrap_or_else(|| {
            let urls = Arc::new(urls);
            self.urls[self.next_url] = Arc::downgrade(&urls);
            self.next_url = (self.next_url + 1) % URLS_SHARED;
            urls
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::Registry;
    use crate::media::name::StreamName;

    fn new(registry: &Registry<()>, number: u64, tc_url: &str) -> NewClient<()> {
        let name = StreamName::new("v", "live", "s").unwrap();
        NewClient {
            id: SessionId::from_bits(number),
            peer: ([192, 0, 2, 7], 4000).into(),
            kind: ClientKind::RtmpPlay,
            stream: registry.open(&name).unwrap(),
            urls: Urls::new(tc_url, "http://page/", "", "?token=1"),
            opened_ms: 1_000,
            bytes_in: 3_000,
            bytes_out: 4_000,
        }
    }

    #[test]
    fn a_record_is_small() {
        // Every player has one. With the two counts of the `Arc` it is 112 bytes.
        assert_eq!(size_of::<Client<()>>(), 96);
        assert_eq!(size_of::<Option<Arc<Client<()>>>>(), 8);
    }

    #[test]
    fn clients_come_and_go() {
        let registry = Registry::default();
        let clients = Clients::new(2);
        clients.listen();
        let all: Vec<_> = (0..1_000)
            .map(|n| {
                let place = (n as usize % 2, n as usize / 2);
                clients.join(place, new(&registry, n, "rtmp://h/live"), 1_000)
            })
            .collect();
        assert_eq!((clients.len(), clients.joined(), clients.failed()), (1_000, 1_000, 0));
        let ids = |page: Vec<Arc<Client<()>>>| -> Vec<SessionId> {
            page.iter().map(|client| client.id).collect()
        };
        let listed = ids(clients.page(0, 2_000));
        let even_then_odd: Vec<_> = (0..1_000).step_by(2).chain((1..1_000).step_by(2)).collect();
        let expected: Vec<_> = even_then_odd.into_iter().map(SessionId::from_bits).collect();
        assert_eq!(listed, expected);
        assert_eq!(ids(clients.page(490, 20)), expected[490..510]);
        assert_eq!(ids(clients.page(995, 20)), expected[995..]);
        assert!(clients.page(1_000, 20).is_empty());
        // What all said alike is there once per shard.
        assert!(Arc::ptr_eq(&all[0].urls, &all[998].urls));
        assert_eq!(all[0].urls.tc_url(), "rtmp://h/live");
        assert_eq!(all[0].urls.page_url(), "http://page/");
        assert_eq!((all[0].urls.swf_url(), all[0].urls.param()), ("", "?token=1"));

        // Those of one shard, in the order in which they came.
        let even = |start, count| ids(clients.page_of(start, count, |c| c.place().0 == 0));
        let expected: Vec<_> = all.iter().step_by(2).map(|client| client.id).collect();
        assert_eq!((even(0, 10_000), even(3, 5)), (expected.clone(), expected[3..8].to_vec()));
        assert_eq!(clients.find(SessionId::from_bits(77)).unwrap().peer(), all[77].peer());
        for (n, client) in all.iter().enumerate() {
            let reason = if n == 5 { Reason::Malformed } else { Reason::PeerClosed };
            clients.leave(client, reason, 2_000);
        }
        assert_eq!((clients.len(), clients.joined(), clients.failed()), (0, 1_000, 1));
        assert!(clients.find(SessionId::from_bits(77)).is_none());
        assert!(clients.page(0, 10).is_empty());
        let mut changes = Vec::new();
        while let Some(event) = clients.next_event() {
            changes.push((event.at_ms, event.change, event.client.id));
        }
        assert_eq!(changes.len(), 2_000);
        assert_eq!(changes[0], (1_000, ClientChange::Play, SessionId::from_bits(0)));
        let stop = ClientChange::Stop(Reason::Malformed);
        assert_eq!(changes[1_005], (2_000, stop, SessionId::from_bits(5)));
    }

    #[test]
    fn a_place_is_used_again() {
        let registry = Registry::default();
        let clients = Clients::new(1);
        let a = clients.join((0, 0), new(&registry, 1, "a"), 0);
        let b = clients.join((0, 7), new(&registry, 2, "b"), 0);
        assert_eq!((a.place(), b.place()), ((0, 0), (0, 7)));
        clients.leave(&a, Reason::PeerClosed, 0);
        let c = clients.join((0, 0), new(&registry, 3, "c"), 0);
        let ids: Vec<_> = clients.page(0, 9).iter().map(|client| client.id).collect();
        assert_eq!(ids, [c.id, b.id]);
    }

    #[test]
    fn nobody_listens_and_nothing_is_kept() {
        let registry = Registry::default();
        let clients = Clients::new(1);
        let client = clients.join((0, 0), new(&registry, 1, "a"), 0);
        assert!(clients.next_event().is_none());
        clients.listen();
        for _ in 0..CLIENT_EVENTS_WAITING + 3 {
            clients.tell(0, ClientChange::Play, &client);
        }
        assert_eq!(clients.take_events_lost(), 3);
        assert_eq!(clients.take_events_lost(), 0);
    }

    #[test]
    fn rates_follow_the_bytes() {
        let registry = Registry::default();
        let clients = Clients::new(1);
        let client = clients.join((0, 0), new(&registry, 1, "a"), 1_000);
        // Young: the mean over its life, 4,000 bytes in 2 s.
        assert_eq!(client.kbps(3_000), [12, 16]);
        client.sample(3_000, 10_000);
        assert_eq!(client.kbps(4_000), [12, 16]);
        // 1 Mbit/s for ten seconds after that, and for a long time.
        client.set_bytes_out(4_000 + 1_250_000);
        client.sample(13_000, 10_000);
        assert_eq!(client.kbps(13_000), [8, 344]);
        for second in 0..50 {
            client.set_bytes_out(client.bytes_out() + 1_250_000);
            client.sample(23_000 + second * 10_000, 10_000);
        }
        // Beyond 32 bits as well.
        assert_eq!(client.kbps(600_000), [0, 1_000]);
    }

    #[test]
    fn ids_as_text() {
        let id = SessionId::from_bits(0x1234_5678_9abc_def0);
        assert_eq!(SessionId::parse(id.as_str()), Some(id));
        for bad in ["", "abc", "abcdefgh1", "abc/defg", "äbcdefg"] {
            assert_eq!(SessionId::parse(bad), None, "{bad}");
        }
    }
}
