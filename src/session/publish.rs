//! The publishing half of a session, the same for every protocol: it holds the publisher's place
//! and the stream's writer.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use crate::config::{OnError, Vhost};
use crate::fault::Fault;
use crate::hub::feed::GopLimits;
use crate::hub::stats::Counters;
use crate::hub::stream::Health;
use crate::hub::{ClientKind, Reason, Segments, Urls, recording};
use crate::limits;
use crate::media::Kind;
use crate::proto::amf0;
use crate::proto::hls::{Rules, Template};
use crate::remux::cipher::KeyOptions;
use crate::remux::segmenter::Segmenter;
use crate::remux::{
    Client, DashOptions, HttpOptions, Live, LiveOptions, Noted, Outcome, SegmentOptions, Stream,
};
use crate::session::admission::SegmentFile;

use super::{Closing, Env, Publish, Wish, group};

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
                dts_directly: !vhost.hls.enabled || vhost.hls.hls_dts_directly,
            },
        };
        let mut live = match parked {
            Some(mut live) => {
                live.resume(env.now);
                live.set_options(options.gop, options.reduce_sequence_header);
                stream.stats.resumed.fetch_add(1, Relaxed);
                live
            }
            None => {
                let mut live = Box::new(Live::new(options, env.arena.clone()));
                cut_segments(env, &stream, &mut live, vhost);
                live
            }
        };
        for segments in [stream.segments(), stream.dash()].into_iter().flatten() {
            segments.keep();
        }
        if vhost.http_remux.enabled || !live.segmenters().is_empty() {
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
        env: &mut Env<'_>,
        kind: Kind,
        timestamp: u32,
        payload: &[u8],
    ) -> Result<(), Closing> {
        self.messages += 1;
        let counters = env.counters;
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
        if self.live.take_missing() > 0 {
            self.missing_in_hls(env)?;
        }
        self.report_segments(env);
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

    /// A frame could not be packed for HLS.
    fn missing_in_hls(&mut self, env: &Env<'_>) -> Result<(), Closing> {
        let why = "a frame cannot be packed for HLS";
        match env.config.vhost(self.stream.name.vhost()).hls.hls_on_error {
            OnError::Continue => Ok(()),
            OnError::Disconnect => Err(Closing::because(Reason::UnitSkipped, why)),
            OnError::Ignore => {
                let reason = Reason::UnitSkipped.name();
                tracing::warn!(reason, stream = %self.stream.name, "{why}: HLS of it ends");
                self.live.end_hls();
                self.stream.set_segments(None);
                Ok(())
            }
        }
    }

    /// Tells who wants to know of the segments that are complete.
    fn report_segments(&mut self, env: &Env<'_>) {
        if self.live.take_fell_back() {
            tracing::info!(stream = %self.stream.name, "segments are MP4: MPEG-TS has no place for \
                one of the codecs");
            self.live.want_kept(&self.stream);
            self.live.open_wanted(&self.stream);
        }
        let vhost = env.config.vhost(self.stream.name.vhost());
        let written = [
            (SegmentFile::Hls, !vhost.hls.hls_path.as_os_str().is_empty()),
            (SegmentFile::Dash, !vhost.dash.dash_path.as_os_str().is_empty()),
        ];
        let mut told = Vec::new();
        for segmenter in self.live.segmenters() {
            if segmenter.take_short() {
                env.counters.count(Reason::SegmentMemory);
            }
            let closed = segmenter.take_closed();
            let wanted = [segmenter.is_for_hls(), segmenter.is_for_dash()];
            for ((kind, on_disk), wanted) in written.into_iter().zip(wanted) {
                for segment in closed.iter().filter(|_| on_disk && wanted) {
                    // What waits for a slow disk holds memory that live players need.
                    let room = !env.streams.segments.is_over();
                    let file = (kind, self.stream.clone(), segment.clone());
                    if !room || !env.admission.desk.write_segment(file) {
                        env.counters.count(Reason::SegmentNotWritten);
                    }
                }
            }
            if segmenter.is_for_hls() {
                told = closed;
            }
        }
        let hooks = &vhost.http_hooks;
        let Some(client) = self.client.as_ref().filter(|_| hooks.enabled) else { return };
        if hooks.on_hls.is_empty() && hooks.on_hls_notify.is_empty() {
            return;
        }
        for segment in told {
            if !env.admission.desk.tell_of_segment(client.clone(), segment) {
                env.counters.count(Reason::SegmentNotTold);
            }
        }
    }

    /// onMetaData, already rewritten for players.
    pub fn metadata(&mut self, timestamp: u32, payload: Vec<u8>, declared: (bool, bool)) {
        self.messages += 1;
        let stated = Stated::of(&payload);
        let health = &self.stream.stats.health;
        health.stated_kbps.store(stated.kbps, Relaxed);
        health.stated_fps.store(stated.fps, Relaxed);
        health.bravo_atc.store(stated.atc, Relaxed);
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
        let mut publisher = self;
        publisher.live.end_segments();
        publisher.report_segments(env);
        let Publisher { stream, mut live, .. } = publisher;
        let vhost = env.config.vhost(stream.name.vhost());
        // Where both have the same segments, the one that keeps them longer is asked last.
        let mut ends =
            [(stream.segments(), vhost.hls.hls_dispose), (stream.dash(), vhost.dash.dash_dispose)]
                .map(|(segments, dispose)| match dispose.is_zero() {
                    true => (segments, Duration::from_secs(limits::HLS_DISPOSE_SECONDS_MAX)),
                    false => (segments, dispose),
                });
        ends.sort_by_key(|(_, dispose)| *dispose);
        for (segments, dispose) in ends {
            if let Some(segments) = segments {
                let after = vhost.publish.hold + dispose;
                segments.dispose_at(env.now.saturating_add(after.as_nanos() as u64));
            }
        }
        if vhost.publish.hold.is_zero() {
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

/// Lets a stream that begins be cut into segments, if its vhost serves HLS or DASH.
fn cut_segments(env: &Env<'_>, stream: &Arc<Stream>, live: &mut Live, vhost: &Vhost) {
    let mut hls = segment_options(vhost).filter(|_| vhost.hls.enabled);
    if let Some(hls) = &mut hls {
        hls.rules.align = group::of(vhost, stream.name.stream()).is_some();
    }
    let dash = dash_options(vhost).filter(|_| vhost.dash.enabled);
    let shares = hls.is_some() && shares_segments(vhost);
    let opened = |known: Option<Arc<Segments>>, options: &SegmentOptions| {
        known.unwrap_or_else(|| Arc::new(Segments::new(options.container())))
    };
    let mut add = |options: SegmentOptions, shared: Arc<Segments>| {
        let memory = (env.streams.segments.clone(), env.arena.clone());
        live.add_segmenter(Segmenter::new(options, stream.name.clone(), shared, memory));
    };
    let of_hls = hls.map(|mut hls| {
        if shares {
            hls.dash = dash.as_ref().and_then(|dash| dash.dash.clone());
        }
        let shared = opened(stream.segments(), &hls);
        add(hls, shared.clone());
        shared
    });
    let of_dash = dash.map(|dash| match of_hls.clone().filter(|_| shares) {
        Some(shared) => shared,
        None => {
            // What was shared until a reload goes on as the segments of HLS.
            let same =
                |one: &Arc<Segments>| of_hls.as_ref().is_some_and(|other| Arc::ptr_eq(one, other));
            let shared = opened(stream.dash().filter(|known| !same(known)), &dash);
            add(dash, shared.clone());
            shared
        }
    });
    stream.set_segments(of_hls);
    stream.set_dash(of_dash);
}

/// True when one cut serves HLS and DASH: fragmented MP4 of equal length.
fn shares_segments(vhost: &Vhost) -> bool {
    let (hls, dash) = (&vhost.hls, &vhost.dash);
    dash.enabled && hls.hls_use_fmp4 && !hls.hls_keys && hls.hls_fragment == dash.dash_fragment
}

/// What segments of a vhost are like that are for DASH alone.
fn dash_options(vhost: &Vhost) -> Option<SegmentOptions> {
    let dash = &vhost.dash;
    let ms = |time: Duration| time.as_millis() as i64;
    let fragment_ms = ms(dash.dash_fragment);
    let most = fragment_ms.saturating_mul(dash.dash_window_size.into());
    let window_ms = ms(dash.dash_timeshift).min(if most > 0 { most } else { i64::MAX });
    let name = Template::parse(&dash.dash_mpd_file).ok()?;
    let mut options = segment_options(vhost)?;
    options.rules = Rules {
        fragment_ms,
        td_ratio: 1.0,
        aof_ratio: AOF_RATIO,
        wait_keyframe: true,
        floor: false,
        align: false,
        part_ms: 0,
    };
    (options.fmp4, options.keys, options.hls) = (true, None, false);
    options.window_ms = window_ms;
    options.recover = true;
    let update_ms = ms(dash.dash_update_period);
    options.dash = Some(DashOptions { window_ms, update_ms, name });
    Some(options)
}

/// Audio ends a segment of DASH after this many fragments, if no keyframe comes (SRS's of HLS).
const AOF_RATIO: f64 = 2.1;

/// What segments of a vhost are like; `None` if the configuration was not checked.
fn segment_options(vhost: &Vhost) -> Option<SegmentOptions> {
    let hls = &vhost.hls;
    let ms = |time: Duration| time.as_millis() as i64;
    let template = |text: &str| Template::parse(text).ok();
    Some(SegmentOptions {
        rules: Rules {
            fragment_ms: ms(hls.hls_fragment),
            td_ratio: hls.hls_td_ratio,
            aof_ratio: hls.hls_aof_ratio,
            wait_keyframe: hls.hls_wait_keyframe,
            floor: hls.hls_ts_floor,
            align: false,
            part_ms: ms(hls.hls_part),
        },
        window_ms: ms(hls.hls_window),
        fmp4: hls.hls_use_fmp4,
        names: [template(&hls.hls_ts_file)?, template(&hls.hls_fmp4_file)?],
        init_name: template(&hls.hls_init_file)?,
        playlist_name: template(&hls.hls_m3u8_file)?,
        prefix: hls.hls_entry_prefix.clone(),
        keys: match hls.hls_keys {
            true => Some(KeyOptions {
                segments: hls.hls_fragments_per_key.into(),
                name: template(&hls.hls_key_file)?,
                url: hls.hls_key_url.clone(),
            }),
            false => None,
        },
        recover: hls.hls_recover,
        hls: true,
        dash: None,
    })
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

/// What metadata states.
struct Stated {
    /// Bit rate, kbit/s; 0: not stated.
    kbps: u32,
    /// Frame rate, thousandths; 0: not stated.
    fps: u32,
    /// `bravo_atc` is "true".
    atc: bool,
}

impl Stated {
    fn of(payload: &[u8]) -> Stated {
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
        let atc = object.and_then(|object| object.text("bravo_atc")) == Some("true");
        Stated {
            kbps: if stated_video { kbps } else { 0 },
            fps: (number("framerate") * 1000.0).round() as u32,
            atc,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::amf0::put;

    #[test]
    fn metadata_states_rates_and_clocks() {
        let mut payload = Vec::new();
        put::string(&mut payload, "onMetaData");
        put::object(&mut payload);
        for (key, number) in [("videodatarate", 500.0), ("audiodatarate", 64.4)] {
            put::key(&mut payload, key);
            put::number(&mut payload, number);
        }
        put::key(&mut payload, "framerate");
        put::number(&mut payload, 29.97);
        put::key(&mut payload, "bravo_atc");
        put::string(&mut payload, "true");
        put::end(&mut payload);
        let stated = Stated::of(&payload);
        assert_eq!((stated.kbps, stated.fps, stated.atc), (564, 29_970, true));
        let nothing = Stated::of(b"");
        assert_eq!((nothing.kbps, nothing.fps, nothing.atc), (0, 0, false));
    }
}
