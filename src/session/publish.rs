//! The publishing half of a session, the same for every protocol: it holds the publisher's place
//! and the stream's writer.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use crate::config::Vhost;
use crate::fault::Fault;
use crate::hub::feed::GopLimits;
use crate::hub::stream::Health;
use crate::hub::{ClientKind, Counters, Reason, Urls, recording};
use crate::media::Kind;
use crate::proto::amf0;
use crate::remux::{Client, HttpOptions, Live, LiveOptions, Noted, Outcome, Stream};

use super::{Closing, Env, Publish, Wish};

/// A session that publishes.
#[derive(Debug)]
pub struct Publisher {
    stream: Arc<Stream>,
    live: Box<Live>,
    /// Its record, once the shard has made it.
    client: Option<Arc<Client>>,
    /// Messages seen when the timeout was last looked at.
    seen: u64,
    messages: u64,
    /// When the silence began, ns.
    quiet_since: u64,
    /// When it was last seen to have a player, ns.
    played_at: u64,
    /// When its clocks were last looked at, ns.
    ticked_at: u64,
}

const SECOND_NS: u64 = 1_000_000_000;

impl Publisher {
    /// Takes the publisher's place in a stream.
    ///
    /// # Errors
    /// Somebody publishes it.
    pub fn start(
        env: &mut Env<'_>,
        stream: Arc<Stream>,
        session: &str,
        (kind, urls): (ClientKind, Urls),
    ) -> Result<Publisher, Closing> {
        let parked = stream
            .acquire(session, env.shard)
            .map_err(|busy| Closing::because(Reason::StreamBusy, busy))?;
        let vhost = env.config.vhost(stream.name.vhost());
        let options = LiveOptions {
            chunk_size: stream.chunk_size(vhost.chunk_size),
            gop: gop_limits(vhost),
            reduce_sequence_header: vhost.play.reduce_sequence_header,
            http: HttpOptions {
                has_audio: vhost.http_remux.has_audio,
                has_video: vhost.http_remux.has_video,
                guess: vhost.http_remux.guess_has_av,
                drop_unmatched: vhost.http_remux.drop_if_not_match,
                fast_cache_ms: vhost.http_remux.fast_cache.as_millis() as i64,
            },
        };
        let mut live = match parked {
            Some(mut live) => {
                live.resume(env.now);
                live.set_options(options.gop, options.reduce_sequence_header);
                stream.stats.resumed.fetch_add(1, Relaxed);
                live
            }
            None => Box::new(Live::new(options, env.arena.clone())),
        };
        if vhost.http_remux.enabled {
            live.want_kept(&stream);
        }
        // Open from the first message on, so that the recorder has all of them.
        if vhost.dvr.records(stream.name.app(), stream.name.stream()) {
            stream.want(recording::format(&vhost.dvr.dvr_path));
        }
        live.note_wall_clock(env.wall_ms);
        live.open_wanted(&stream);
        live.attach(&stream);
        stream.stats.published_since_ms.store(env.wall_ms, Relaxed);
        env.touched.push(stream.clone());
        env.wishes.push(Wish::Published(Publish { stream: stream.clone(), kind, urls }));
        Ok(Publisher {
            stream,
            live,
            client: None,
            seen: 0,
            messages: 0,
            quiet_since: env.now,
            played_at: env.now,
            ticked_at: env.now,
        })
    }

    /// The stream.
    pub fn stream(&self) -> &Arc<Stream> {
        &self.stream
    }

    /// Gives the publisher its record among the clients.
    pub fn set_client(&mut self, client: Arc<Client>) {
        self.client = Some(client);
    }

    /// Notes what its connection has carried so far.
    pub fn note_bytes(&self, bytes_in: u64, bytes_out: u64) {
        if let Some(client) = &self.client {
            client.set_bytes_in(bytes_in);
            client.set_bytes_out(bytes_out);
        }
    }

    /// Messages received.
    pub fn messages(&self) -> u64 {
        self.messages
    }

    /// An audio or video message.
    ///
    /// # Errors
    /// The codec is not carried; the session is to be closed.
    pub fn message(
        &mut self,
        counters: &Counters,
        kind: Kind,
        timestamp: u32,
        payload: &[u8],
    ) -> Result<(), Closing> {
        self.messages += 1;
        Counters::add(&counters.messages_received, 1);
        self.stream.stats.messages.fetch_add(1, Relaxed);
        self.stream.stats.bytes.fetch_add(payload.len() as u64, Relaxed);
        if kind == Kind::Video {
            self.stream.stats.video_messages.fetch_add(1, Relaxed);
        }
        match self.live.write(kind, timestamp, payload) {
            Ok(Outcome::Written { keyframe, discontinuity }) => {
                if keyframe {
                    self.stream.stats.keyframes.fetch_add(1, Relaxed);
                }
                if discontinuity {
                    counters.count(Reason::TimestampJump);
                    self.stream.stats.health.jumps.fetch_add(1, Relaxed);
                }
            }
            Ok(Outcome::Dropped(reason)) => {
                counters.count(reason);
                self.stream.stats.dropped.count(reason);
            }
            Err(refused) => return Err(Closing::because(Reason::CodecUnsupported, refused)),
        }
        note(&self.stream.stats.health, self.live.noted());
        let skipped = self.live.take_skipped();
        if skipped > 0 {
            (0..skipped).for_each(|_| counters.count(Reason::UnitSkipped));
        }
        for (container, unfit) in self.live.take_refusals() {
            let reason = Fault::ContainerUnfit.name();
            let suffix = container.suffix();
            let stream = &self.stream.name;
            tracing::warn!(reason, %stream, "not to be had as {suffix}: {unfit}");
        }
        if let Some(tracks) = self.live.tracks_if_changed() {
            self.stream.set_tracks(tracks);
        }
        Ok(())
    }

    /// onMetaData, already rewritten for players.
    pub fn metadata(&mut self, timestamp: u32, payload: Vec<u8>, declared: (bool, bool)) {
        self.messages += 1;
        let (kbps, fps) = stated_rates(&payload);
        self.stream.stats.health.stated_kbps.store(kbps, Relaxed);
        self.stream.stats.health.stated_fps.store(fps, Relaxed);
        self.live.write_metadata(timestamp, payload, declared);
    }

    /// Says when the messages that follow have come, ms since 1970.
    pub fn note_wall_clock(&mut self, wall_ms: i64) {
        self.live.note_wall_clock(wall_ms);
    }

    /// Opens the formats players wait for. True when one was opened.
    pub fn open_wanted(&mut self) -> bool {
        self.live.open_wanted(&self.stream)
    }

    /// True when [`Publisher::tick`] is due.
    pub fn wants_tick(&self, now: u64) -> bool {
        now.saturating_sub(self.ticked_at) >= SECOND_NS
    }

    /// Closes the formats nobody follows, and sees whether the publisher is silent for too long.
    pub fn tick(&mut self, env: &mut Env<'_>) {
        self.ticked_at = env.now;
        self.live.close_unfollowed(&self.stream);
        // A reload reaches streams that are being published within a second.
        let vhost = env.config.vhost(self.stream.name.vhost());
        self.live.set_options(gop_limits(vhost), vhost.play.reduce_sequence_header);
        let idle = vhost.publish.kickoff_for_idle;
        if idle.is_zero() || self.stream.players() > 0 {
            self.played_at = env.now;
        } else if env.now.saturating_sub(self.played_at) >= idle.as_nanos() as u64 {
            return env.wishes.push(Wish::Close(Closing::new(Reason::KickedForIdle)));
        }
        if self.messages != self.seen {
            self.seen = self.messages;
            self.quiet_since = env.now;
            return;
        }
        let publish = &env.config.vhost(self.stream.name.vhost()).publish;
        let (limit, reason) = if self.messages == 0 {
            (publish.firstpkt_timeout, Reason::FirstPacketTimeout)
        } else {
            (publish.normal_timeout, Reason::PublishTimeout)
        };
        if env.now.saturating_sub(self.quiet_since) >= limit.as_nanos() as u64 {
            env.wishes.push(Wish::Close(Closing::new(reason)));
        }
    }

    /// Gives the place back. With a hold the writer stays with the stream for the next publisher.
    pub fn stop(self, env: &mut Env<'_>) {
        let Publisher { stream, mut live, .. } = self;
        if env.config.vhost(stream.name.vhost()).publish.hold.is_zero() {
            live.detach(&stream);
            drop(live);
            stream.release(None);
        } else {
            live.park(env.now);
            stream.release(Some(live));
        }
        env.touched.push(stream.clone());
        env.wishes.push(Wish::Unpublished(stream));
    }
}

fn gop_limits(vhost: &Vhost) -> GopLimits {
    GopLimits {
        enabled: vhost.play.gop_cache,
        messages: vhost.play.gop_cache_max_frames,
        bytes: vhost.play.gop_cache_max_bytes,
    }
}

fn note(health: &Health, noted: &Noted) {
    health.reordered.store(noted.reordered, Relaxed);
    health.gop_ms.store(u32::try_from(noted.gop_ms).unwrap_or(0), Relaxed);
    health.keyframe_ms.store(noted.keyframe_ms.unwrap_or(0), Relaxed);
    health.video_ms.store(noted.video_ms, Relaxed);
    health.audio_ms.store(noted.audio_ms, Relaxed);
    health.backward.store(noted.backward, Relaxed);
}

/// Bit rate in kbit/s and frame rate in thousandths that the metadata states; 0 where it does not.
fn stated_rates(payload: &[u8]) -> (u32, u32) {
    let mut reader = amf0::Reader::new(payload);
    let object = reader.string().ok().and_then(|_| reader.value().ok());
    let object = object.as_ref().and_then(amf0::Value::as_object);
    let number = |key: &str| {
        let value = object.and_then(|object| object.get(key)?.as_number());
        value.filter(|value| *value > 0.0).unwrap_or(0.0)
    };
    // A conversion to an integer is cut at its ends.
    let kbps = (number("videodatarate") + number("audiodatarate")).round() as u32;
    let stated_video = number("videodatarate") > 0.0;
    (if stated_video { kbps } else { 0 }, (number("framerate") * 1000.0).round() as u32)
}
