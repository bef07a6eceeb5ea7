//! RTMP sessions: publishers and players.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;

use crate::config::{Config, DEFAULT_VHOST, TimeJitter};
use crate::hub::{ClientKind, Format, Reason, Urls};
use crate::media::name::StreamName;
use crate::proto::amf0;
use crate::proto::rtmp::metadata;
use crate::proto::rtmp::server::{
    Event, PlayRequest, PublishKind, PublishRequest, Server, ServerOptions,
};
use crate::proto::rtmp::url::Url;
use crate::version;

use super::publish::Publisher;
use super::{Closing, Env, Play, SessionId, Wish, rtmp_reason};

/// One RTMP connection.
#[derive(Debug)]
pub struct RtmpSession {
    server: Server,
    id: SessionId,
    role: Role,
    /// When its clocks were last looked at, ns.
    ticked_at: u64,
    ended: bool,
}

#[derive(Debug)]
enum Role {
    /// Handshake, connect, or between two publishes or plays.
    Undecided,
    Publisher(Box<Publisher>),
    Player,
}

impl RtmpSession {
    /// A connection that has just been accepted.
    pub fn new(config: &Config, now: u64, id: SessionId, local: IpAddr, seed: u64) -> RtmpSession {
        let vhost = config.vhost(DEFAULT_VHOST);
        let server = Server::new(ServerOptions {
            chunk_size: vhost.chunk_size,
            out_ack_size: vhost.out_ack_size,
            in_ack_size: vhost.in_ack_size,
            server_ip: local,
            session_id: id.to_string(),
            pid: std::process::id(),
            epoch_ms: (now / 1_000_000) as u32,
            seed,
        });
        RtmpSession { server, id, role: Role::Undecided, ticked_at: now, ended: false }
    }

    /// True when [`RtmpSession::tick`] is due: publishers are looked at once a second.
    pub fn wants_tick(&self, now: u64) -> bool {
        matches!(self.role, Role::Publisher(_)) && now.saturating_sub(self.ticked_at) >= SECOND_NS
    }

    /// Handles received bytes.
    pub fn receive(&mut self, out: &mut Vec<u8>, env: &mut Env<'_>, data: &[u8]) {
        let mut input = data;
        let mut wrote = false;
        while !self.ended {
            let event = match self.server.poll(&mut input) {
                Ok(Some(event)) => event,
                Ok(None) => break,
                Err(error) => {
                    self.close(env, Closing::because(rtmp_reason(&error), error));
                    break;
                }
            };
            // Media first: it is nearly all there is.
            let outcome = match event {
                Event::Message(message) => {
                    if let Role::Publisher(publisher) = &mut self.role {
                        wrote = true;
                        publisher.message(
                            env.counters,
                            message.kind,
                            message.timestamp,
                            message.payload,
                        )
                    } else {
                        env.counters.count(Reason::MessageIgnored);
                        Ok(())
                    }
                }
                Event::Metadata { timestamp, payload } => {
                    if let Role::Publisher(publisher) = &mut self.role {
                        wrote = true;
                        take_metadata(publisher, env, timestamp, payload);
                    }
                    Ok(())
                }
                Event::Connect(connect) => {
                    // Debug form: a peer must not be able to write lines of its own.
                    tracing::info!(id = %self.id, tc_url = ?connect.tc_url, "connect");
                    // A vhost that is named with the stream only is not known yet.
                    if let Ok(url) = Url::parse(&connect.tc_url, "") {
                        let vhost = env.config.vhost(&url.vhost);
                        self.server.use_windows(vhost.in_ack_size, vhost.out_ack_size);
                    }
                    Ok(())
                }
                Event::Publish(request) => self.publish(env, &request),
                Event::Play(request) => self.play(env, &request),
                Event::Pause(pause) => {
                    env.wishes.push(Wish::Pause(pause));
                    Ok(())
                }
                Event::Unpublish => {
                    self.stop(env);
                    Ok(())
                }
                Event::CloseStream => {
                    self.stop(env);
                    Ok(())
                }
            };
            if let Err(closing) = outcome {
                self.close(env, closing);
            }
        }
        if wrote && let Role::Publisher(publisher) = &self.role {
            env.touched.push(publisher.stream().clone());
        }
        // The buffer goes with the bytes: one of the handshake's size must not stay behind with
        // each of thousands of players.
        let mut output = std::mem::take(self.server.output());
        if out.is_empty() {
            *out = output;
        } else {
            out.append(&mut output);
        }
    }

    /// The publisher, when the session is one.
    pub fn publisher(&mut self) -> Option<&mut Publisher> {
        match &mut self.role {
            Role::Publisher(publisher) => Some(publisher),
            _ => None,
        }
    }

    /// The session is over: gives back what it holds.
    pub fn stop(&mut self, env: &mut Env<'_>) {
        match std::mem::replace(&mut self.role, Role::Undecided) {
            Role::Publisher(publisher) => publisher.stop(env),
            Role::Player => env.wishes.push(Wish::StopPlaying),
            Role::Undecided => {}
        }
    }

    /// Timeouts, about once a second.
    pub fn tick(&mut self, env: &mut Env<'_>) {
        self.ticked_at = env.now;
        if let Role::Publisher(publisher) = &mut self.role {
            publisher.tick(env);
        }
    }

    fn close(&mut self, env: &mut Env<'_>, closing: Closing) {
        self.ended = true;
        env.wishes.push(Wish::Close(closing));
    }

    fn publish(&mut self, env: &mut Env<'_>, request: &PublishRequest) -> Result<(), Closing> {
        let (name, param) = self.name(env.config, &request.stream)?;
        let kind = match request.kind {
            PublishKind::Fmle => ClientKind::FmlePublish,
            PublishKind::Flash => ClientKind::FlashPublish,
            PublishKind::Haivision => ClientKind::HaivisionPublish,
        };
        let client = (kind, self.urls(&param));
        let publisher = Publisher::start(env, &name, self.id.as_str(), client)?;
        self.server.accept_publish();
        self.role = Role::Publisher(Box::new(publisher));
        Ok(())
    }

    fn play(&mut self, env: &mut Env<'_>, request: &PlayRequest) -> Result<(), Closing> {
        let (name, param) = self.name(env.config, &request.stream)?;
        let stream = env
            .streams
            .open(&name)
            .map_err(|error| Closing::because(Reason::StreamsLimit, error))?;
        let vhost = env.config.vhost(name.vhost());
        self.server.use_chunk_size(stream.chunk_size(vhost.chunk_size));
        self.server.accept_play();
        self.role = Role::Player;
        env.wishes.push(Wish::Play(Play {
            stream: Arc::clone(&stream),
            kind: ClientKind::RtmpPlay,
            urls: self.urls(&param),
            format: Format::Rtmp,
            head: Bytes::new(),
            rebase: vhost.play.time_jitter != TimeJitter::Off,
            duration_ms: request.duration_ms.filter(|d| *d > 0.0).map(|d| d as i64),
        }));
        Ok(())
    }

    /// What the client said of itself.
    fn urls(&self, param: &str) -> Urls {
        let Some(connect) = self.server.connect() else { return Urls::default() };
        let or_empty = |text: &Option<String>| text.clone().unwrap_or_default();
        let (page_url, swf_url) = (or_empty(&connect.page_url), or_empty(&connect.swf_url));
        Urls::new(&connect.tc_url, &page_url, &swf_url, param)
    }

    /// vhost, app and stream by SRS's rules, checked against the one name grammar.
    fn name(&self, config: &Config, stream: &str) -> Result<(StreamName, String), Closing> {
        let tc_url = self.server.connect().map_or("", |connect| connect.tc_url.as_str());
        let url = Url::parse(tc_url, stream)
            .map_err(|error| Closing::because(Reason::StreamName, error))?;
        if !config.vhost(&url.vhost).enabled {
            let detail = format!("no vhost serves {:?}", url.vhost);
            return Err(Closing::because(Reason::VhostUnknown, detail));
        }
        let name = url
            .name(config.vhost_name(&url.vhost))
            .map_err(|error| Closing::because(Reason::StreamName, error))?;
        Ok((name, url.param))
    }
}

/// Which tracks (audio, video) the metadata speaks of.
fn declared_tracks(payload: &[u8]) -> (bool, bool) {
    let mut reader = amf0::Reader::new(payload);
    let object = reader.string().ok().and_then(|_| reader.value().ok());
    let object = object.as_ref().and_then(amf0::Value::as_object);
    let has = |key: &str| object.is_some_and(|o| o.get(key).is_some());
    (has("audiocodecid"), has("videocodecid"))
}

const SECOND_NS: u64 = 1_000_000_000;

/// Metadata goes to players rewritten; what cannot be read is dropped, the stream goes on.
fn take_metadata(publisher: &mut Publisher, env: &Env<'_>, timestamp: u32, payload: &[u8]) {
    match metadata::rewrite(payload, version::SERVER, version::VERSION) {
        Ok(rewritten) => {
            let declared = declared_tracks(&rewritten);
            publisher.metadata(timestamp, rewritten, declared);
        }
        Err(_) => env.counters.count(Reason::MessageDroppedMalformed),
    }
}
