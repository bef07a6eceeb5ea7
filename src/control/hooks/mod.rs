//! Hooks: callbacks to the operator's HTTP server, with SRS's JSON and rules.
//!
//! Shards leave notes at the desk (`session::admission`); here they are sorted into one line per
//! session, and a line is worked off one note after the other, so that a client's hooks come in
//! their order. Lines do not wait for each other. A beginning is asked once, within its time; an
//! end is told again and again until somebody took it.

pub mod body;
pub mod grumble;
pub mod jwt;
mod segments;
pub mod stats;

use std::cell::RefCell;
use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, Semaphore};
use uring::Conn;

use super::client::{Answer, Call, CallError, HttpClient};
use crate::config::{Config, HttpHooks};
use crate::hub::{Counters, Reason};
use crate::limits::{
    HOOK_ANNOUNCE_TRIES, HOOK_ANSWER_MAX, HOOK_ASKS_IN_FLIGHT, HOOK_ENDS_IN_FLIGHT, HOOK_RETRY_MS,
    HOOK_RETRY_MS_MAX,
};
use crate::session::SessionId;
use crate::session::admission::{Admission, Case, Note, Verdict};
use crate::version;

use body::Hook;
use grumble::Grumble;
use jwt::Keys;
use stats::HookStats;

/// What hooks need of the server.
pub struct Parts {
    /// The configuration in force.
    pub config: Box<dyn Fn() -> Arc<Config>>,
    /// Where notes come from.
    pub admission: Arc<Admission>,
    /// How a shard is told that a verdict is there.
    pub tell_shard: Box<dyn Fn(usize, Conn)>,
    /// What the control thread counts.
    pub counters: Arc<Counters>,
    /// What is known of calls.
    pub stats: Arc<HookStats>,
    /// Woken with every note, for those who look for notes of other kinds.
    pub notes: [Arc<Notify>; 2],
    /// Shared with others who call out.
    pub client: Rc<HttpClient>,
}

/// The hooks of a server, on its control thread.
pub struct Hooks {
    parts: Parts,
    keys: Keys,
    grumble: Grumble,
    /// Notes that wait for the one before them, by session. A session with an entry is worked on.
    lines: RefCell<HashMap<SessionId, VecDeque<Note>>>,
    /// How many calls go to a server at a time.
    slots: RefCell<HashMap<String, Rc<Slots>>>,
}

/// Two kinds, so that ends that nobody takes are not in the way of beginnings.
struct Slots {
    asks: Semaphore,
    ends: Semaphore,
}

impl Hooks {
    /// Hooks of a server.
    pub fn new(parts: Parts) -> Rc<Hooks> {
        let keys = Keys::new(parts.client.clone());
        Rc::new(Hooks {
            parts,
            keys,
            grumble: Grumble::default(),
            lines: RefCell::default(),
            slots: RefCell::default(),
        })
    }

    /// Works for as long as the control thread runs.
    pub async fn run(self: Rc<Self>) {
        let desk = self.parts.admission.desk.clone();
        let notify = Arc::new(Notify::new());
        let segments = Arc::new(Notify::new());
        let [files, recordings] = self.parts.notes.clone();
        let wakers = [notify.clone(), segments.clone(), files, recordings];
        desk.set_waker(move || wakers.iter().for_each(|waker| waker.notify_one()));
        tokio_uring::spawn(self.clone().tell_of_segments(segments));
        loop {
            notify.notified().await;
            desk.look();
            let mut sorted = 0;
            while let Some(note) = desk.take() {
                self.clone().sort(note);
                sorted += 1;
                if sorted % 64 == 0 {
                    tokio::task::yield_now().await;
                }
            }
        }
    }

    /// Waits until every end is told, for as long as `limit`. Returns how many sessions are left.
    pub async fn flush(&self, limit: Duration) -> usize {
        let until = Instant::now() + limit;
        loop {
            let left = self.lines.borrow().len();
            if (left == 0 && self.parts.admission.desk.is_empty()) || Instant::now() >= until {
                return left;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn sort(self: Rc<Self>, note: Note) {
        let id = note.case().id;
        match self.lines.borrow_mut().entry(id) {
            Entry::Occupied(mut line) => return line.get_mut().push_back(note),
            Entry::Vacant(line) => line.insert(VecDeque::new()),
        };
        tokio_uring::spawn(self.work(id, note));
    }

    async fn work(self: Rc<Self>, id: SessionId, first: Note) {
        let mut note = first;
        loop {
            self.handle(note).await;
            let mut lines = self.lines.borrow_mut();
            match lines.get_mut(&id).and_then(VecDeque::pop_front) {
                Some(next) => note = next,
                None => {
                    lines.remove(&id);
                    return;
                }
            }
        }
    }

    async fn handle(&self, note: Note) {
        match note {
            Note::Asked(case) => {
                let verdict = self.decide(&case).await;
                case.decide(verdict);
                (self.parts.tell_shard)(case.shard, case.conn);
            }
            // Who was let in and left before it knew is known to the hooks, too.
            Note::Ended(case) => {
                if case.verdict() == Some(&Verdict::Granted) {
                    self.tell(Hook::ending(case.action), &case).await;
                }
            }
            Note::Closed { case, bytes_in, bytes_out } if case.connects => {
                self.tell(Hook::Close(bytes_in, bytes_out), &case).await;
            }
            Note::Closed { .. } => {}
        }
    }

    async fn decide(&self, case: &Case) -> Verdict {
        let refused =
            |(reason, detail): (Reason, String)| Verdict::Refused { reason, detail: detail.into() };
        let config = (self.parts.config)();
        let vhost = config.vhost(case.name.vhost());
        if let Some(jwt) = &case.jwt {
            let checked = self.keys.check(&vhost.token, case.action, &case.name, jwt).await;
            if let Err(no) = checked {
                return refused(no);
            }
        }
        let hooks = &vhost.http_hooks;
        let connect = case.connects.then_some(Hook::Connect);
        for hook in connect.into_iter().chain([Hook::asking(case.action)]) {
            for url in urls(hooks, hook) {
                if case.has_left() {
                    return refused((Reason::PeerClosed, String::new()));
                }
                if let Err(no) = self.ask(hook, url, case, hooks).await {
                    return refused(no);
                }
            }
        }
        Verdict::Granted
    }

    /// Asks one URL.
    async fn ask(
        &self,
        hook: Hook,
        url: &str,
        case: &Case,
        hooks: &HttpHooks,
    ) -> Result<(), (Reason, String)> {
        let slots = self.slots_of(url);
        let (reason, why) = match self.call(hook, url, case, hooks, &slots.asks).await {
            Ok(answer) if body::accepts(answer.status, &answer.body) => return Ok(()),
            Ok(answer) if (200..300).contains(&answer.status) => {
                let text = excerpt(&answer.body);
                let detail = format!("{} answered {} {text:?}", hook.name(), answer.status);
                return Err((Reason::HookRefused, detail));
            }
            Ok(answer) if (400..500).contains(&answer.status) => {
                let detail = format!("{} answered {}", hook.name(), answer.status);
                return Err((Reason::HookRefused, detail));
            }
            Ok(answer) => (Reason::HookFailed, unusable(&answer)),
            Err(why @ CallError::Timeout(_)) => (Reason::HookTimeout, why.to_string()),
            Err(why) => (Reason::HookFailed, why.to_string()),
        };
        let accept = hooks.accept_on_failure;
        self.grumble.say(url, |more| {
            let done = if accept { "let in all the same" } else { "refused" };
            tracing::warn!(reason = reason.name(), id = %case.id, url = without_query(url), more,
                "{}: {why}; the client is {done}", hook.name());
        });
        if accept {
            self.parts.counters.count(Reason::HookAccepted);
            return Ok(());
        }
        Err((reason, format!("{}: {why}", hook.name())))
    }

    /// Tells every URL of a hook about an end, until each has taken it.
    async fn tell(&self, hook: Hook, case: &Case) {
        let mut told: HashSet<String> = HashSet::new();
        let mut pause = HOOK_RETRY_MS;
        loop {
            // What is in force now: a URL that was taken out is not waited for.
            let config = (self.parts.config)();
            let hooks = &config.vhost(case.name.vhost()).http_hooks;
            let mut left = false;
            for url in urls(hooks, hook) {
                if told.contains(url) {
                    continue;
                }
                match self.deliver(hook, url, case, hooks).await {
                    true => _ = told.insert(url.clone()),
                    false => left = true,
                }
            }
            if !left {
                return;
            }
            self.parts.counters.count(Reason::HookRetried);
            tokio::time::sleep(Duration::from_millis(pause)).await;
            pause = (pause * 2).min(HOOK_RETRY_MS_MAX);
        }
    }

    /// Tells one URL. True when it has taken it, whatever it thinks of it.
    async fn deliver(&self, hook: Hook, url: &str, case: &Case, hooks: &HttpHooks) -> bool {
        let slots = self.slots_of(url);
        let why = match self.call(hook, url, case, hooks, &slots.ends).await {
            Ok(answer) if body::accepts(answer.status, &answer.body) => return true,
            // It has been told; a refusal of what is over changes nothing.
            Ok(answer) if (200..500).contains(&answer.status) && !is_transient(answer.status) => {
                self.parts.counters.count(Reason::HookEndRefused);
                self.grumble.say(url, |more| {
                    let reason = Reason::HookEndRefused.name();
                    tracing::warn!(reason, id = %case.id, url = without_query(url), more,
                        status = answer.status, "{}: not the answer 0, which changes nothing",
                        hook.name());
                });
                return true;
            }
            // The status had come before the body that is too long.
            Err(CallError::TooLong(_)) => {
                self.parts.counters.count(Reason::HookEndRefused);
                return true;
            }
            Ok(answer) => unusable(&answer),
            Err(why) => why.to_string(),
        };
        self.grumble.say(url, |more| {
            let reason = Reason::HookRetried.name();
            tracing::warn!(reason, id = %case.id, url = without_query(url), more,
                "{}: {why}; it is told again", hook.name());
        });
        false
    }

    /// Tells every URL of something that has happened, several times where it has to be. Ends are
    /// in line with other ends, so that nobody waits for a beginning.
    pub async fn announce(&self, name: &'static str, urls: &[String], json: &str, of: &HttpHooks) {
        for url in urls {
            let slots = self.slots_of(url);
            let mut pause = HOOK_RETRY_MS;
            for tries in 1..=HOOK_ANNOUNCE_TRIES {
                let body = json.to_owned();
                let why = match self.post(url, body, of, &slots.ends).await {
                    Ok(answer) if body::accepts(answer.status, &answer.body) => break,
                    Ok(answer) => unusable(&answer),
                    Err(why) => why.to_string(),
                };
                let last = tries == HOOK_ANNOUNCE_TRIES;
                let reason = if last { Reason::HookGivenUp } else { Reason::HookRetried };
                self.parts.counters.count(reason);
                self.grumble.say(url, |more| {
                    tracing::warn!(
                        reason = reason.name(),
                        url = without_query(url),
                        more,
                        "{name}: {why}"
                    );
                });
                if !last {
                    tokio::time::sleep(Duration::from_millis(pause)).await;
                    pause = (pause * 2).min(HOOK_RETRY_MS_MAX);
                }
            }
        }
    }

    async fn post(
        &self,
        url: &str,
        json: String,
        hooks: &HttpHooks,
        slots: &Semaphore,
    ) -> Result<Answer, CallError> {
        let began = Instant::now();
        let turn = async {
            // Nobody closes it.
            let _slot = slots.acquire().await;
            self.request(url, Some(json), hooks, HOOK_ANSWER_MAX).await
        };
        let result = match tokio::time::timeout(hooks.timeout, turn).await {
            Ok(result) => result,
            Err(_) => Err(CallError::Timeout(hooks.timeout)),
        };
        self.parts.stats.note(began.elapsed(), result.is_ok());
        result
    }

    /// One request, with what the hooks of a vhost say of requests.
    async fn request(
        &self,
        url: &str,
        json: Option<String>,
        hooks: &HttpHooks,
        answer_max: usize,
    ) -> Result<Answer, CallError> {
        let (timeout, tls_verify) = (hooks.timeout, hooks.tls_verify);
        self.parts.client.call(Call { url, json, timeout, answer_max, tls_verify }).await
    }

    async fn call(
        &self,
        hook: Hook,
        url: &str,
        case: &Case,
        hooks: &HttpHooks,
        slots: &Semaphore,
    ) -> Result<Answer, CallError> {
        let began = Instant::now();
        let stream = version::id_of(case.name.key());
        let json = hook.body(case, Some(&stream));
        let result = self.post(url, json, hooks, slots).await;
        let (ok, ms) = (result.is_ok(), began.elapsed().as_millis() as u64);
        let url = without_query(url);
        tracing::debug!(id = %case.id, hook = hook.name(), url, ok, ms, "hook");
        result
    }

    fn slots_of(&self, url: &str) -> Rc<Slots> {
        let origin: String = url.splitn(4, '/').take(3).collect::<Vec<_>>().join("/");
        let mut slots = self.slots.borrow_mut();
        // Urls come from the configuration, so there are few; those of old ones go.
        if slots.len() > 1_000 {
            slots.clear();
        }
        let new = || {
            let asks = Semaphore::new(HOOK_ASKS_IN_FLIGHT);
            Rc::new(Slots { asks, ends: Semaphore::new(HOOK_ENDS_IN_FLIGHT) })
        };
        slots.entry(origin).or_insert_with(new).clone()
    }
}

/// The URLs of a hook while hooks are on.
fn urls(hooks: &HttpHooks, hook: Hook) -> &[String] {
    if !hooks.enabled {
        return &[];
    }
    match hook {
        Hook::Connect => &hooks.on_connect,
        Hook::Close(..) => &hooks.on_close,
        Hook::Publish => &hooks.on_publish,
        Hook::Unpublish => &hooks.on_unpublish,
        Hook::Play => &hooks.on_play,
        Hook::Stop => &hooks.on_stop,
    }
}

/// Answers that ask for another try.
fn is_transient(status: u16) -> bool {
    matches!(status, 408 | 425 | 429) || (300..400).contains(&status)
}

fn unusable(answer: &Answer) -> String {
    match &answer.location {
        Some(to) if (300..400).contains(&answer.status) => {
            let to: String = to.chars().take(100).collect();
            format!("status {} to {to:?}: redirects are not followed", answer.status)
        }
        _ => format!("status {}", answer.status),
    }
}

/// The beginning of a body, for the log.
fn excerpt(body: &[u8]) -> String {
    String::from_utf8_lossy(&body[..body.len().min(80)]).into_owned()
}

/// A URL as it may stand in a log: parameters may be secrets.
fn without_query(url: &str) -> &str {
    url.split('?').next().unwrap_or(url)
}
