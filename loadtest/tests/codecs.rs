//! Codecs that ffmpeg of Debian 12 cannot publish, sent by the project's own client: players of
//! every protocol get the published bytes and timestamps, from a keyframe on.

mod common;

use std::thread;
use std::time::Duration;

use common::server::Server;
use loadtest::client::{BlockingPlayer, Received, RtmpPublisher};
use loadtest::media::{Kind, is_sequence_header};

/// Milliseconds between video frames; audio frames lie in between.
const STEP: u32 = 40;
/// Frames of a GOP.
const GOP: u32 = 8;
const GOPS: u32 = 4;
/// Messages start here, to see that timestamps are not moved.
const FIRST_TIMESTAMP: u32 = 5_000;

/// How a codec's messages begin; what follows is arbitrary.
struct Codec {
    header: Vec<u8>,
    keyframe: Vec<u8>,
    frame: Vec<u8>,
}

impl Codec {
    /// Enhanced RTMP video: packet types 0 (sequence header) and `coded` (frames).
    fn enhanced_video(fourcc: &[u8; 4], config: &[u8], coded: u8) -> Codec {
        let composition: &[u8] = if coded == 1 && fourcc == b"hvc1" { &[0, 0, 80] } else { &[] };
        let head = |first: u8, rest: &[u8]| [&[first], &fourcc[..], rest].concat();
        Codec {
            header: head(0x90, config),
            keyframe: head(0x90 | coded, composition),
            frame: head(0xa0 | coded, composition),
        }
    }

    /// Enhanced RTMP audio: format 9, packet types 0 and 1.
    fn enhanced_audio(fourcc: &[u8; 4], config: &[u8]) -> Codec {
        let head = |first: u8, rest: &[u8]| [&[first], &fourcc[..], rest].concat();
        Codec { header: head(0x90, config), keyframe: head(0x91, &[]), frame: head(0x91, &[]) }
    }
}

/// HEVCDecoderConfigurationRecord of Main profile, level 3.1, without parameter sets in arrays.
const HEVC_CONFIG: &[u8] =
    &[1, 1, 0x60, 0, 0, 0, 0x90, 0, 0, 0, 0, 0, 93, 0xf0, 0, 0xfc, 0xfd, 0xf8, 0xf8, 0, 0, 0x0f, 0];
/// AV1CodecConfigurationRecord of Main profile, level 2.0, without configuration OBUs.
const AV1_CONFIG: &[u8] = &[0x81, 0x00, 0x0c, 0x00];
/// vpcC of profile 0, level 1.0, 8 bits.
const VP9_CONFIG: &[u8] = &[1, 0, 0, 0, 0, 10, 0x80, 1, 1, 1, 0, 0];
/// OpusHead: version 1, stereo, 48 kHz.
const OPUS_CONFIG: &[u8] = b"OpusHead\x01\x02\x38\x01\x80\xbb\x00\x00\x00\x00\x00";

fn h264() -> Codec {
    Codec {
        header: b"\x17\0\0\0\0\x01\x42\xc0\x1e\xff\xe1\0\x0a\x67\x42\xc0\x1e\xda\x02\x80\xbf\xe5\
            \x40\x01\0\x04\x68\xce\x3c\x80"
            .to_vec(),
        keyframe: vec![0x17, 1, 0, 0, 0],
        frame: vec![0x27, 1, 0, 0, 0],
    }
}

fn aac() -> Codec {
    let frame = vec![0xaf, 1];
    Codec { header: vec![0xaf, 0, 0x12, 0x10], keyframe: frame.clone(), frame }
}

/// The messages of a stream with these codecs, first sequence headers and then frames.
fn messages(video: Option<&Codec>, audio: Option<&Codec>) -> (Vec<Received>, Vec<Received>) {
    let message =
        |kind, timestamp, payload: &[u8]| Received { kind, timestamp, payload: payload.to_vec() };
    let mut headers = Vec::new();
    for (kind, codec) in [(Kind::Video, video), (Kind::Audio, audio)] {
        if let Some(codec) = codec.filter(|c| !c.header.is_empty()) {
            headers.push(message(kind, FIRST_TIMESTAMP, &codec.header));
        }
    }
    let mut frames = Vec::new();
    for n in 0..GOPS * GOP {
        let timestamp = FIRST_TIMESTAMP + n * STEP;
        // Sizes on both sides of every chunk and block border that is likely.
        let body: Vec<u8> = (0..50 + n * 997).map(|i| (i * 7 + n) as u8).collect();
        if let Some(codec) = video {
            let head = if n % GOP == 0 { &codec.keyframe } else { &codec.frame };
            frames.push(message(Kind::Video, timestamp, &[&head[..], &body].concat()));
        }
        if let Some(codec) = audio {
            let body = &body[..body.len().min(300)];
            let payload = [&codec.frame[..], body].concat();
            frames.push(message(Kind::Audio, timestamp + STEP / 2, &payload));
        }
    }
    (headers, frames)
}

/// Publishes `sent` and expects players of every protocol to get `expected` instead (the same,
/// mostly), from the newest keyframe at their coming on.
fn passes_through(
    stream: &str,
    sent: &(Vec<Received>, Vec<Received>),
    expected: &(Vec<Received>, Vec<Received>),
) {
    let server = Server::start(&["shards=2"]);
    let stream = format!("live/{stream}");
    let mut publisher = RtmpPublisher::connect(&server.rtmp(&stream)).expect("publish");
    for m in &sent.0 {
        publisher.send(m.kind, m.timestamp, &m.payload).expect("send");
    }
    let half = sent.1.len() / 2;
    let (first, second) = sent.1.split_at(half);
    publisher.send_paced(first, 1.0).expect("send");
    server.wait_for_stream(&stream);

    let flv = server.flv(&stream);
    let ws = flv.replacen("http://", "ws://", 1);
    let mut players = Vec::new();
    for url in [server.rtmp(&stream), flv, ws] {
        // Two of each, so that most likely some are on another shard than the publisher.
        for _ in 0..2 {
            let (url, expected) = (url.clone(), expected.clone());
            players.push(thread::spawn(move || {
                let player = BlockingPlayer::connect(&url).expect("play");
                check(&url, player, &expected);
            }));
        }
    }
    thread::sleep(Duration::from_millis(300));
    publisher.send_paced(second, 1.0).expect("send");
    for player in players {
        player.join().expect("a player that got what was published");
    }
    server.stop();
}

fn check(url: &str, mut player: BlockingPlayer, expected: &(Vec<Received>, Vec<Received>)) {
    let last = expected.1.last().expect("frames");
    let (mut headers, mut frames) = (Vec::new(), Vec::new());
    while frames.last() != Some(last) {
        let message = player.next_message().unwrap_or_else(|e| {
            panic!("{url}: {e} after {} of {} frames", frames.len(), expected.1.len())
        });
        match message.kind {
            Kind::Data => {}
            kind if is_sequence_header(kind, &message.payload) => headers.push(message),
            _ => frames.push(message),
        }
    }
    // Their order among each other is the server's business.
    let bytes = |all: &[Received]| {
        let mut all: Vec<_> = all.iter().map(|m| (m.kind as u8, m.payload.clone())).collect();
        all.sort();
        all
    };
    assert_eq!(bytes(&headers), bytes(&expected.0), "{url}: sequence headers");
    let start = expected.1.iter().position(|m| *m == frames[0]);
    let start = start.unwrap_or_else(|| panic!("{url}: the first frame was never published"));
    let half = expected.1.len() / 2;
    if expected.1.iter().any(|m| m.kind == Kind::Video) {
        assert!(start < half, "{url}: starts at {start}, not at a kept keyframe");
        assert!(frames[0].is_keyframe(), "{url}: starts inside a GOP");
    } else {
        // Audio alone has no GOP to keep: it starts where the stream is.
        assert!(start <= half, "{url}: starts at {start} only");
    }
    assert_eq!(frames.len(), expected.1.len() - start, "{url}: number of frames");
    for (n, (got, sent)) in frames.iter().zip(&expected.1[start..]).enumerate() {
        let same = (got.kind, got.timestamp, got.sha256());
        assert_eq!(same, (sent.kind, sent.timestamp, sent.sha256()), "{url}: frame {n}");
    }
}

fn unchanged(stream: &str, video: Option<Codec>, audio: Option<Codec>) {
    let sent = messages(video.as_ref(), audio.as_ref());
    passes_through(stream, &sent, &sent);
}

#[test]
fn h265_enhanced_and_aac() {
    let video = Codec::enhanced_video(b"hvc1", HEVC_CONFIG, 1);
    unchanged("hvc1", Some(video), Some(aac()));
}

#[test]
fn h265_enhanced_without_composition_time() {
    let video = Codec::enhanced_video(b"hvc1", HEVC_CONFIG, 3);
    unchanged("hvc1x", Some(video), Some(aac()));
}

#[test]
fn h265_of_the_old_kind() {
    let video = Codec {
        header: [&[0x1c, 0, 0, 0, 0], HEVC_CONFIG].concat(),
        keyframe: vec![0x1c, 1, 0, 0, 0],
        frame: vec![0x2c, 1, 0, 0, 0],
    };
    unchanged("hevc12", Some(video), Some(aac()));
}

#[test]
fn av1_and_opus() {
    let video = Codec::enhanced_video(b"av01", AV1_CONFIG, 1);
    unchanged("av01", Some(video), Some(Codec::enhanced_audio(b"Opus", OPUS_CONFIG)));
}

#[test]
fn vp9_and_flac() {
    let video = Codec::enhanced_video(b"vp09", VP9_CONFIG, 1);
    // STREAMINFO: blocks of 4,096 samples, 44.1 kHz, stereo, 16 bits.
    let mut info = b"fLaC\x80\0\0\x22".to_vec();
    info.extend_from_slice(&[0x10, 0, 0x10, 0, 0, 0, 0, 0, 0, 0, 0x0a, 0xc4, 0x42, 0xf0]);
    info.extend_from_slice(&[0; 20]);
    unchanged("vp09", Some(video), Some(Codec::enhanced_audio(b"fLaC", &info)));
}

#[test]
fn h264_and_ac3_without_sequence_header() {
    let mut audio = Codec::enhanced_audio(b"ac-3", &[]);
    audio.header.clear();
    unchanged("ac3", Some(h264()), Some(audio));
}

#[test]
fn opus_alone() {
    unchanged("opus", None, Some(Codec::enhanced_audio(b"Opus", OPUS_CONFIG)));
}

#[test]
fn mp3_alone() {
    let frame = vec![0x2f];
    let audio = Codec { header: Vec::new(), keyframe: frame.clone(), frame };
    unchanged("mp3", None, Some(audio));
}

/// Wraps an enhanced message as one track among several: players get the default track, as the
/// message it was.
fn as_many_tracks(message: &Received) -> Received {
    let (first, rest) = (message.payload[0], &message.payload[1..]);
    let (fourcc, body) = rest.split_at(4);
    let (frame_type, packet_type) = (first & 0xf0, first & 0x0f);
    // Enhanced RTMP v2: packet type 6 (video) or 5 (audio), then "many tracks" and the inner type.
    let multitrack = if message.kind == Kind::Video { 6 } else { 5 };
    let mut payload = vec![frame_type | multitrack, 0x10 | packet_type];
    payload.extend_from_slice(fourcc);
    for (track, body) in [(0u8, body), (1, &b"another track"[..])] {
        payload.push(track);
        payload.extend_from_slice(&(body.len() as u32).to_be_bytes()[1..]);
        payload.extend_from_slice(body);
    }
    Received { payload, ..message.clone() }
}

#[test]
fn the_default_track_of_a_multitrack_stream() {
    let video = Codec::enhanced_video(b"hvc1", HEVC_CONFIG, 1);
    let audio = Codec::enhanced_audio(b"Opus", OPUS_CONFIG);
    let single = messages(Some(&video), Some(&audio));
    let many = |all: &[Received]| all.iter().map(as_many_tracks).collect::<Vec<_>>();
    let sent = (many(&single.0), many(&single.1));
    passes_through("tracks", &sent, &single);
}
