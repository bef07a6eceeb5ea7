//! Tag bodies, codec headers, timestamps.

use ringcast::limits::{PICTURE_SIDE_MAX, TIMELINE_FORWARD_MS_MAX};
use ringcast::media::tag::{self, AudioCodec, Picked, TrackPicker, VideoCodec};
use ringcast::media::time::Timeline;
use ringcast::media::track::{AudioTrack, VideoTrack};
use ringcast::media::unit::{AudioClock, AudioConfig, VideoConfig};
use ringcast::media::{aac, ac3, av1, h264, h265, mp3, nal, opus, vp9};

use super::byte;

/// Bodies of audio and video messages, several of them: two bytes of length before each.
pub fn tags(data: &[u8]) {
    let mut rest = data;
    let mut pickers = [TrackPicker::default(), TrackPicker::default()];
    let mut video_track = VideoTrack::new(VideoCodec::H264);
    let mut audio_track = AudioTrack::new(AudioCodec::Aac);
    while rest.len() >= 2 {
        let video = rest[0] & 0x80 == 0;
        let len = usize::from(rest[0] & 0x7f) << 8 | usize::from(rest[1]);
        let (payload, after) = rest[2..].split_at(len.min(rest.len() - 2));
        rest = after;
        tag_of(video, payload, &mut video_track, &mut audio_track);
        if let Ok(Picked::Track(single)) = pickers[usize::from(video)].pick(payload, video) {
            tag_of(video, &single, &mut video_track, &mut audio_track);
            // One track is left; picking again has nothing to do.
            assert!(matches!(TrackPicker::default().pick(&single, video), Ok(Picked::AsIs)));
        }
        if let Ok(Some(single)) = tag::default_track(payload, video) {
            assert!(single.len() <= payload.len() + 16);
        }
    }
}

fn tag_of(video: bool, payload: &[u8], video_track: &mut VideoTrack, audio: &mut AudioTrack) {
    if video {
        if let Ok(tag) = tag::video(payload) {
            let _ = video_track.learn(&tag, payload);
            let mut fresh = VideoTrack::new(tag.codec);
            let _ = fresh.learn(&tag, payload);
            assert!(fresh.to_string().len() < 200 && video_track.to_string().len() < 200);
        }
    } else if let Ok(tag) = tag::audio(payload) {
        let _ = audio.learn(&tag, payload);
        let mut fresh = AudioTrack::new(tag.codec);
        let _ = fresh.learn(&tag, payload);
        assert!(fresh.to_string().len() < 200 && audio.to_string().len() < 200);
    }
}

fn check_size(width: u32, height: u32) {
    assert!(width <= PICTURE_SIDE_MAX && height <= PICTURE_SIDE_MAX, "{width}x{height}");
}

/// What muxers are told, out of any bytes.
fn configurations(data: &[u8]) {
    for codec in VideoCodec::ALL {
        if let Ok(config) = VideoConfig::read(codec, data) {
            assert!(matches!(config.length_size, 1 | 2 | 4));
            assert!(config.parameter_sets.len() <= 4 * data.len() + 4);
        }
    }
    let mut clock = AudioClock::default();
    for codec in AudioCodec::ALL {
        let header = AudioConfig::read(codec, data).ok();
        let frame = AudioConfig::of_frame(codec, data).ok().flatten();
        for config in header.into_iter().chain(frame) {
            let samples = config.samples(data);
            let first = clock.place(config.rate_hz, 0, samples);
            assert!(clock.place(config.rate_hz, 0, samples) > first);
        }
    }
}

/// Codec headers; the first byte chooses which.
pub fn codecs(data: &[u8]) {
    let mut data = data;
    match byte(&mut data) % 16 {
        0 => {
            if let Ok(sps) = h264::sps(data) {
                check_size(sps.width, sps.height);
            }
        }
        1 => {
            if let Ok(config) = h264::config(data) {
                let _ = config.sps.first().map(|sps| h264::sps(sps));
            }
            configurations(data);
        }
        2 => {
            if let Ok(sps) = h265::sps(data) {
                check_size(sps.width, sps.height);
            }
        }
        3 => {
            if let Ok(config) = h265::config(data) {
                let _ = config.sps().map(h265::sps);
            }
        }
        4 => {
            if let Ok(config) = aac::config(data) {
                // 24 bits at most, and spectral band replication doubles it.
                assert!(config.rate_hz <= 1 << 25);
                assert!((480..=4096).contains(&config.frame_samples()));
                if let Some(header) = config.adts_header(data.len()) {
                    let (read, len) = aac::adts(&header).expect("a header of our own");
                    assert_eq!((read.core_rate_hz, len), (config.core_rate_hz, data.len() + 7));
                }
                let _ = config.profile_name();
            }
        }
        5 => {
            if let Ok((_, len)) = aac::adts(data) {
                assert!(len <= 1 << 13);
            }
        }
        6 => {
            if let Ok((_, _, obus)) = av1::config(data) {
                let _ = av1::sequence(obus);
            }
        }
        7 => {
            if let Ok(sequence) = av1::sequence(data) {
                let total: usize = av1::obus(data).flatten().map(|obu| obu.whole.len()).sum();
                assert!(total <= data.len());
                // 16 bits each in the bitstream.
                assert!(sequence.width <= 65_536 && sequence.height <= 65_536);
            }
        }
        8 => {
            let _ = vp9::config(data);
        }
        9 => {
            let _ = (vp9::vp9_size(data), vp9::vp8_size(data));
        }
        10 => {
            if let Ok(head) = opus::opus_head(data) {
                assert!(head.mapping_len <= head.mapping.len());
            }
            if let Ok(samples) = opus::opus_samples(data) {
                assert!((1..=5760).contains(&samples));
            }
        }
        11 => {
            let _ = opus::flac_info(data);
            if let Ok(samples) = opus::flac_samples(data) {
                assert!((1..=65_536).contains(&samples));
            }
        }
        12 => {
            if let Ok(header) = mp3::header(data) {
                assert!(header.samples <= 1152 && header.frame_bytes.unwrap_or(0) < 4096);
            }
        }
        13 => {
            if let Ok(frame) = ac3::frame(data) {
                assert!(frame.bytes <= 4096 && frame.channels <= 6 && frame.kbps() < 1 << 13);
            }
        }
        14 => {
            let total: usize = nal::annex_b(data).map(<[u8]>::len).sum();
            assert!(total <= data.len());
            assert!(nal::rbsp(data).len() <= data.len());
        }
        _ => {
            let size = byte(&mut data) % 5;
            let units = nal::length_prefixed(data, size);
            let total: usize = units.take(1 << 16).map_while(Result::ok).map(<[u8]>::len).sum();
            assert!(total <= data.len());
        }
    }
}

/// Timestamps of a publisher: steps of one byte, jumps, headers, reconnects.
pub fn timeline(data: &[u8]) {
    let mut data = data;
    let mut timeline = Timeline::new();
    let mut wire = 0_u32;
    let mut last: Option<i64> = None;
    while !data.is_empty() {
        let what = byte(&mut data);
        let Some((amount, rest)) = data.split_first_chunk::<4>() else { break };
        let amount = u32::from_be_bytes(*amount);
        let before = last;
        match what & 7 {
            0..=3 => wire = wire.wrapping_add(amount & 0xff),
            4 => wire = amount,
            5 => wire = wire.wrapping_add(amount),
            6 => timeline.reconnect(u64::from(amount) << (what >> 3)),
            _ => wire &= 0x7fff_ffff,
        }
        let header = what & 0x80 != 0;
        let (now, jumped) = if header {
            (timeline.map_header(wire), false)
        } else {
            let mapped = timeline.map(wire);
            (mapped.dts, mapped.discontinuity)
        };
        if let Some(before) = before {
            assert!(now >= before, "{now} after {before}");
            let step = now - before;
            // Only the time that a publisher was away may be longer.
            assert!(jumped || step <= TIMELINE_FORWARD_MS_MAX, "a step of {step} ms");
        }
        if !header || before.is_some() {
            last = Some(now);
        }
        data = rest;
    }
}
