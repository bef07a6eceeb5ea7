//! Admission: what stands between a client's wish to publish or play and its beginning.
//!
//! ```text
//!   request -> rules of the shard (page, address, token, limits, load)  -> refused
//!                 |                                   |
//!                 | nothing else is configured        | hooks or JWTs are
//!                 v                                   v
//!              begins                    a case: the control thread decides, the session waits
//!                                                     |
//!                                     verdict in the case, letter to the shard -> begins / closes
//! ```
//!
//! While a session waits it reads little more and is given nothing; other sessions do not notice.
//! A vhost without rules costs a few comparisons, and no case and no letter is made for it.
//!
//! Nothing about a case gets lost: the verdict stands in the case, so a letter that finds the
//! mailbox full only means that the shard looks at its next tick. Cases are counted from their
//! making until the last hook about them is delivered, and where there are too many nobody new is
//! let in; so there is always room for the end of whoever was let in.

mod desk;
mod quota;
mod rules;
mod token;

use std::net::IpAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;

pub use desk::{Case, Desk, FileToWrite, Note, SegmentFile, Verdict};
pub use quota::{Quotas, Seat};
pub use rules::{has_publish_rule, is_near};
pub use token::sign;

use crate::config::{Action, Vhost};
use crate::hub::{Reason, Urls};
use crate::media::name::StreamName;

use super::{Closing, Env, SessionId};

/// What all shards and the control thread share about admission.
#[derive(Debug, Default)]
pub struct Admission {
    /// Where the control thread hears of cases.
    pub desk: Arc<Desk>,
    /// Seats that are taken.
    pub quotas: Arc<Quotas>,
    /// Who watches HLS.
    pub viewers: super::viewers::Viewers,
    /// How loaded the server is.
    pub breaker: super::breaker::Breaker,
    /// Vhosts that send more than their cap just now; kept by the control thread.
    pub over_bandwidth: ArcSwap<Vec<Box<str>>>,
}

/// Who a client is and what it said, borrowed from its session.
#[derive(Debug)]
pub struct Visitor<'a> {
    /// The session.
    pub id: SessionId,
    /// The stream.
    pub name: &'a StreamName,
    /// What it said of itself, parameters of the stream included.
    pub urls: &'a Urls,
    /// Token of an `Authorization` header.
    pub bearer: Option<&'a str>,
    /// The client as a proxy in front states it; for hooks only, rules go by the connection.
    pub forwarded: Option<IpAddr>,
    /// True when the connection has a beginning and an end of its own for hooks (RTMP).
    pub connects: bool,
}

/// What the rules say.
#[derive(Debug)]
pub enum Entry {
    /// It may begin.
    Granted(Option<Box<Stay>>),
    /// The control thread has to be asked: give it the case, and wait for the verdict.
    Undecided(Box<Stay>),
}

/// What an admitted session holds for as long as it publishes or plays.
#[derive(Debug, Default)]
pub struct Stay {
    case: Option<Arc<Case>>,
    /// Given back when the session lets go of this.
    _seat: Option<Seat>,
}

impl Stay {
    /// The verdict, once there is one.
    pub fn verdict(&self) -> Option<&Verdict> {
        self.case.as_ref().and_then(|case| case.verdict())
    }

    /// The case, where hooks are told of the client.
    pub fn case(&self) -> Option<&Arc<Case>> {
        self.case.as_ref()
    }

    /// It is over, or was given up before it was decided.
    pub fn end(self, desk: &Desk) {
        if let Some(case) = self.case {
            case.leave();
            desk.put(Note::Ended(case));
        }
    }
}

/// Asks the rules of the visitor's vhost whether it may do what it wants.
///
/// # Errors
/// It may not; nobody else is asked then.
pub fn enter(env: &mut Env<'_>, visitor: &Visitor<'_>, action: Action) -> Result<Entry, Closing> {
    let vhost = env.config.vhost(visitor.name.vhost());
    rules::check(vhost, action, env.peer, visitor.urls.page_url())
        .map_err(|(reason, why)| Closing::because(reason, why))?;
    let jwt = match token::check(
        &vhost.token,
        action,
        visitor.name,
        visitor.urls.param(),
        visitor.bearer,
        env.wall_ms,
    ) {
        token::Checked::Passed => None,
        token::Checked::Jwt(jwt) => Some(jwt),
        token::Checked::Refused(why) => {
            return Err(Closing::because(Reason::TokenRefused, why));
        }
    };
    if action == Action::Play && env.admission.breaker.refuses_players() {
        return Err(Closing::new(Reason::Overload));
    }
    let seat = take_seat(env, vhost, visitor.name, action)?;
    let asks = jwt.is_some() || asks_hooks(vhost, action, visitor.connects);
    if !asks && !tells_hooks(vhost, action, visitor.connects) {
        let stay = seat.map(|seat| Box::new(Stay { case: None, _seat: Some(seat) }));
        return Ok(Entry::Granted(stay));
    }
    let (peer, shard, conn) = (env.peer, env.shard, env.conn);
    let case = env.admission.desk.open(|permit| {
        let ip = visitor.forwarded.filter(|_| is_near(peer)).unwrap_or(peer);
        Case::new(permit, visitor, action, ip, jwt, (shard, conn))
    });
    let Some(case) = case else {
        return Err(Closing::because(
            Reason::HookBacklog,
            "too many hooks wait for their delivery, so nobody is let in",
        ));
    };
    let stay = Box::new(Stay { case: Some(case.clone()), _seat: seat });
    if asks {
        env.admission.desk.put(Note::Asked(case));
        return Ok(Entry::Undecided(stay));
    }
    case.decide(Verdict::Granted);
    Ok(Entry::Granted(Some(stay)))
}

/// True when not everybody may play.
pub fn has_play_rule(vhost: &Vhost) -> bool {
    let hooks = &vhost.http_hooks;
    vhost.token.play
        || vhost.security.enabled
        || vhost.refer.enabled
        || (hooks.enabled && !hooks.on_play.is_empty())
}

fn take_seat(
    env: &Env<'_>,
    vhost: &Vhost,
    name: &StreamName,
    action: Action,
) -> Result<Option<Seat>, Closing> {
    let limits = &vhost.limits;
    if action == Action::Play
        && limits.kbps > 0
        && env.admission.over_bandwidth.load().iter().any(|over| **over == *name.vhost())
    {
        return Err(Closing::new(Reason::BandwidthLimit));
    }
    if limits.players == 0 && limits.players_per_stream == 0 && limits.publishers == 0 {
        return Ok(None);
    }
    env.admission.quotas.take(limits, action, name).map_err(Closing::new)
}

/// True when a hook decides about the client.
fn asks_hooks(vhost: &Vhost, action: Action, connects: bool) -> bool {
    let hooks = &vhost.http_hooks;
    let own = match action {
        Action::Publish => &hooks.on_publish,
        Action::Play => &hooks.on_play,
    };
    hooks.enabled && (!own.is_empty() || (connects && !hooks.on_connect.is_empty()))
}

/// True when a hook is told how it ends.
fn tells_hooks(vhost: &Vhost, action: Action, connects: bool) -> bool {
    let hooks = &vhost.http_hooks;
    let own = match action {
        Action::Publish => &hooks.on_unpublish,
        Action::Play => &hooks.on_stop,
    };
    hooks.enabled && (!own.is_empty() || (connects && !hooks.on_close.is_empty()))
}
