//! Replays the corpora of the fuzz targets, so that what fuzzing found once is tested always.

#[path = "../../ci/fuzz/src/targets/mod.rs"]
#[allow(dead_code)]
mod targets;

use std::fs;
use std::path::{Path, PathBuf};

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../ci/fuzz/corpus")
}

#[test]
fn every_target_takes_its_corpus() {
    for (name, run) in targets::ALL {
        let folder = corpus().join(name);
        let files =
            fs::read_dir(&folder).unwrap_or_else(|why| panic!("{}: {why}", folder.display()));
        let mut count = 0;
        for file in files {
            let path = file.expect("an entry").path();
            let data = fs::read(&path).expect("a file that can be read");
            let outcome = std::panic::catch_unwind(|| run(&data));
            assert!(outcome.is_ok(), "{} fails on {}", name, path.display());
            count += 1;
        }
        assert!(count > 0, "{} has no corpus", name);
    }
}

/// Writes the first inputs of every target:
/// `cargo test -p loadtest --test fuzz_corpora -- --ignored`. Inputs found later stay.
#[test]
#[ignore = "writes into the source tree"]
fn write_the_first_inputs() {
    for (target, name, bytes) in seeds::all() {
        let folder = corpus().join(target);
        fs::create_dir_all(&folder).expect("a folder");
        fs::write(folder.join(name), bytes).expect("a file");
    }
}

/// Small valid inputs, made by the project's own encoders, and the usual tricks.
mod seeds {
    use ringcast::media::Kind;
    use ringcast::proto::amf0::{Object, Value, put};
    use ringcast::proto::rtmp::chunk::write_message;
    use ringcast::proto::rtmp::client::Role;
    use ringcast::proto::{flv, ws};

    use super::targets::rtmp::recorded_commands;

    type Seed = (&'static str, &'static str, Vec<u8>);

    pub fn all() -> Vec<Seed> {
        let mut out = rtmp();
        out.extend(data_messages());
        out.extend(text());
        out.extend(http());
        out.extend(media());
        out.extend(whole());
        out
    }

    fn with(prefix: &[u8], rest: &[u8]) -> Vec<u8> {
        [prefix, rest].concat()
    }

    fn chunks(messages: &[(u8, u8, u32, &[u8])]) -> Vec<u8> {
        let mut out = Vec::new();
        for &(csid, type_id, time, payload) in messages {
            write_message(&mut out, 128, csid, type_id, time, 1, payload);
        }
        out
    }

    const AVC_HEADER: &[u8] = &[
        0x17, 0, 0, 0, 0, 1, 0x64, 0, 0x1f, 0xff, 0xe1, 0, 0x18, 0x67, 0x64, 0, 0x1f, 0xac, 0xd9,
        0x40, 0x50, 0x05, 0xbb, 0x01, 0x6c, 0x80, 0, 0, 3, 0, 0x80, 0, 0, 0x1e, 0x07, 0x8c, 0x18,
        0xcb, 1, 0, 4, 0x68, 0xef, 0xbc, 0xb0,
    ];
    const KEYFRAME: &[u8] = &[0x17, 1, 0, 0, 0, 0, 0, 0, 5, 0x65, 0x88, 0x84, 0, 1];
    const FRAME: &[u8] = &[0x27, 1, 0, 0, 40, 0, 0, 0, 3, 0x41, 0x9a, 1];
    const AAC_HEADER: &[u8] = &[0xaf, 0, 0x12, 0x10];
    const AAC_FRAME: &[u8] = &[0xaf, 1, 0x21, 0x10, 0x04, 0x60, 0x8c];

    fn media_chunks() -> Vec<u8> {
        let long = with(KEYFRAME, &[0x5a; 300]);
        chunks(&[
            (7, 8, 0, AAC_HEADER),
            (6, 9, 0, AVC_HEADER),
            (6, 9, 40, &long),
            (7, 8, 46, AAC_FRAME),
            (6, 9, 80, FRAME),
            (6, 9, 0x0100_0000, FRAME),
        ])
    }

    fn rtmp() -> Vec<Seed> {
        let publish = recorded_commands(Role::Publish);
        let play = recorded_commands(Role::Play);
        let media = media_chunks();
        let set_chunk_size = |size: u32| chunks(&[(2, 1, 0, &size.to_be_bytes())]);
        let abort = chunks(&[(2, 2, 0, &6_u32.to_be_bytes())]);
        let interrupted = [&media[..200], &abort, &media].concat();
        // 16 MB declared on many chunk streams, nothing of it sent.
        let declared: Vec<u8> = (3..70_u8)
            .flat_map(|n| [0, n, 0, 0, 0, 0xff, 0xff, 0xff, 9, 1, 0, 0, 0, 1, 2, 3])
            .collect();
        let mut aggregate = Vec::new();
        for (kind, time, body) in [(9_u8, 0_u8, KEYFRAME), (8, 10, AAC_FRAME)] {
            aggregate.extend([kind, 0, 0, body.len() as u8, 0, 0, time, 0, 0, 0, 0]);
            aggregate.extend_from_slice(body);
            aggregate.extend((11 + body.len() as u32).to_be_bytes());
        }
        let aggregate = chunks(&[(4, 22, 5, &aggregate)]);
        let mut pause = Vec::new();
        put::string(&mut pause, "pause");
        put::number(&mut pause, 0.0);
        put::null(&mut pause);
        put::boolean(&mut pause, true);
        let pause = chunks(&[(8, 20, 0, &pause), (2, 4, 0, &[0, 6, 0, 0, 0, 1])]);
        let mut answers = Vec::new();
        put::string(&mut answers, "_result");
        put::number(&mut answers, 1.0);
        put::null(&mut answers);
        put::object(&mut answers);
        for (key, value) in [
            ("level", "status"),
            ("code", "NetConnection.Connect.Success"),
            ("description", "fine"),
        ] {
            put::key(&mut answers, key);
            put::string(&mut answers, value);
        }
        put::end(&mut answers);
        let mut created = Vec::new();
        put::string(&mut created, "_result");
        put::number(&mut created, 2.0);
        put::null(&mut created);
        put::number(&mut created, 1.0);
        let connected = chunks(&[(3, 20, 0, &answers), (3, 20, 0, &created)]);
        vec![
            ("rtmp_joiner", "media", with(&[7], &media)),
            ("rtmp_joiner", "play", with(&[1], &play)),
            ("rtmp_joiner", "interrupted", with(&[3], &interrupted)),
            ("rtmp_joiner", "declared", with(&[5], &declared)),
            ("rtmp_joiner", "chunk-sizes", [&[9][..], &set_chunk_size(4096), &media].concat()),
            ("rtmp_joiner", "chunk-size-1", [&[9][..], &set_chunk_size(1), &media].concat()),
            ("rtmp_joiner", "discarded", with(&[0x81], &media)),
            ("rtmp_server", "publish", with(&[1, 3], &publish)),
            ("rtmp_server", "play", with(&[1, 5], &play)),
            ("rtmp_server", "media", with(&[2, 7], &media)),
            ("rtmp_server", "aggregate", with(&[2, 7], &aggregate)),
            ("rtmp_server", "chunk-size-0", with(&[2, 7], &set_chunk_size(0))),
            ("rtmp_server", "chunk-size-high", with(&[2, 7], &set_chunk_size(0x8000_0000))),
            ("rtmp_server", "pause", with(&[3, 7], &pause)),
            ("rtmp_server", "declared", with(&[2, 3], &declared)),
            ("rtmp_server", "proxied", with(&[0, 3], &[0xf3, 0, 4, 10, 0, 0, 1, 3, 0, 0, 0, 0])),
            ("rtmp_client", "connected", with(&[2, 3], &connected)),
            ("rtmp_client", "media", [&[2, 5][..], &connected, &media].concat()),
            ("rtmp_client", "publisher", [&[3, 9][..], &connected, &pause].concat()),
        ]
    }

    fn metadata() -> Vec<u8> {
        let mut out = Vec::new();
        put::string(&mut out, "onMetaData");
        put::ecma_array(&mut out, 3);
        put::key(&mut out, "width");
        put::number(&mut out, 1280.0);
        put::key(&mut out, "videocodecid");
        put::number(&mut out, 7.0);
        put::key(&mut out, "server");
        put::string(&mut out, "encoder");
        put::end(&mut out);
        out
    }

    fn data_messages() -> Vec<Seed> {
        let inner = Object(vec![
            ("n".into(), Value::Number(1.5)),
            ("s".into(), Value::String("text".into())),
        ]);
        let mut values = Vec::new();
        let array = Value::StrictArray(vec![Value::Null, Value::Boolean(true)]);
        let object = Object(vec![("o".into(), Value::Object(inner)), ("a".into(), array)]);
        Value::Object(object).put(&mut values);
        let nested: Vec<u8> = [3, 0, 1, b'a'].repeat(64);
        let arrays: Vec<u8> = [10, 0xff, 0xff, 0xff, 0xff].repeat(64);
        let mut set_data_frame = Vec::new();
        put::string(&mut set_data_frame, "@setDataFrame");
        set_data_frame.extend(metadata());
        vec![
            ("amf0", "values", values),
            ("amf0", "nested", nested),
            ("amf0", "arrays", arrays),
            ("amf0", "reference", vec![3, 0, 1, b'a', 7, 0, 0, 0, 0, 9]),
            ("amf0", "short-string", vec![2, 0xff, 0xff, b'a']),
            ("amf0", "date", vec![11, 0x42, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
            ("metadata", "plain", metadata()),
            ("metadata", "set-data-frame", set_data_frame),
        ]
    }

    fn text() -> Vec<Seed> {
        let names = [
            ("plain", "rtmp://localhost/live\nstream?token=1"),
            ("vhost", "rtmp://127.0.0.1:1935/live?vhost=a.example\nstream"),
            ("levels", "rtmp://host/a/b/c/_definst_\ns.flv"),
            ("v6", "rtmp://[::1]:1935/live...vhost...b.example/\ns"),
            ("dots", "rtmp://host/../live\n../../etc/passwd"),
            ("escapes", "rtmp://host/live\n%00%2e%2e<script>\r\n"),
        ];
        let names = names.map(|(name, text)| ("names", name, text.as_bytes().to_vec()));
        let config = "listen = [1935, \"[::]:1936\"]\nshards = 2\n[http_server]\nenabled = true\n\
            [vhost.play]\nqueue_length = \"30s\"\ngop_cache = true\n";
        let mut out = names.to_vec();
        out.push(("config", "plain", config.as_bytes().to_vec()));
        out.push(("config", "dotted", b"vhost.publish.hold = 3.5\nlog.level = 'debug'\n".to_vec()));
        out.push(("config", "unknown", b"shard = 2\n[vhost]\nx = {a = [1,2]}\n".to_vec()));
        out.push(("config", "sizes", b"media_memory = \"512M\"\nlog.json = true\n".to_vec()));
        let vhosts = "listen 1935 [::]:1936; # two\nvhost a.com {\n play { gop_cache off; \
            mw_latency 100; }\n hls { enabled off; hls_fragment 5; }\n}\n\
            vhost __defaultVhost__ { min_latency on; http_remux { enabled on; } }\n";
        out.push(("srs_config", "vhosts", vhosts.as_bytes().to_vec()));
        let old = "http_stream { enabled on; listen 80; }\nvhost x.y { gop_cache off; mr { \
            enabled off; latency 350; } mode local; rtc { aac transcode; } }\n";
        out.push(("srs_config", "old-names", old.as_bytes().to_vec()));
        let quotes = "pid 'a b'; srs_log_file \"x'y\"; include none.conf;\n} { ;; 'open\n";
        out.push(("srs_config", "quotes", quotes.as_bytes().to_vec()));
        let missing = "srt_server { enabled on; }\nvhost v.w { hds { enabled on; } play { atc on; \
            mw_latency 1e9x; } exec { enabled off; publish ./a -b [stream] >x; } }\n";
        out.push(("srs_config", "missing", missing.as_bytes().to_vec()));
        out
    }

    fn flv_file() -> Vec<u8> {
        let mut out = flv::file_header(true, true).to_vec();
        for (kind, time, body) in [
            (Kind::Data, 0, &metadata()[..]),
            (Kind::Video, 0, AVC_HEADER),
            (Kind::Audio, 0, AAC_HEADER),
            (Kind::Video, 0x0100_0001, KEYFRAME),
        ] {
            flv::write_tag(&mut out, kind, time, body);
        }
        out
    }

    fn http() -> Vec<Seed> {
        let upgrade = ws::client_request("host:8080", "/live/s.flv", [7; 16]);
        let mut frames = Vec::new();
        ws::client_frame(ws::Opcode::Text, b"hello", [1, 2, 3, 4], &mut frames);
        ws::client_frame(ws::Opcode::Ping, b"p", [1, 2, 3, 4], &mut frames);
        let close = ws::close_payload(1000, "bye");
        ws::client_frame(ws::Opcode::Close, &close, [0; 4], &mut frames);
        let served = ws::server_frame(ws::Opcode::Binary, &[0; 300]);
        let request = b"GET /live/a%20b.flv?vhost=x HTTP/1.1\r\nHost: h:80\r\n\
            Origin: http://o\r\nConnection: close\r\n\r\n";
        let smuggling = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\
            Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
        let negative = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: -1\r\n\r\n";
        let accepted = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
            Connection: Upgrade\r\nSec-WebSocket-Accept: x\r\n\r\n";
        let flv_answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        let body = b"5\r\nhello\r\n3;ext=\"1\"\r\nabc\r\n0\r\nTrailer: 1\r\n\r\n";
        vec![
            ("flv", "file", with(&[3], &flv_file())),
            ("flv", "video-only", with(&[1], &flv::file_header(false, true))),
            ("http_request", "get", request.to_vec()),
            ("http_request", "upgrade", upgrade.clone()),
            ("http_request", "smuggling", smuggling.to_vec()),
            ("http_request", "negative", negative.to_vec()),
            ("http_response", "upgraded", accepted.to_vec()),
            ("http_response", "flv", flv_answer.to_vec()),
            ("http_chunked", "body", with(&[3], body)),
            ("http_chunked", "large", with(&[3], b"ffffffffffffffff\r\nx")),
            ("websocket", "client", with(&[0, 3], &frames)),
            ("websocket", "server", with(&[1, 3], &served)),
            ("websocket", "huge", with(&[0, 3], &[0x82, 0xff, 0, 0, 0, 0, 0x40, 0, 0, 0, 1, 2])),
            ("session", "http", with(&[1, 0], request)),
            ("session", "upgrade", [&[1, 5][..], &upgrade, &frames].concat()),
            ("session", "frames", with(&[3, 3], &frames)),
        ]
    }

    /// A tag as the target reads it: audio or video, length, body.
    fn tag(video: bool, body: &[u8]) -> Vec<u8> {
        let len = body.len() as u16 | if video { 0 } else { 0x8000 };
        with(&len.to_be_bytes(), body)
    }

    fn media() -> Vec<Seed> {
        let avc = [tag(true, AVC_HEADER), tag(true, KEYFRAME), tag(false, AAC_HEADER)].concat();
        let hevc = tag(true, &[0x90, b'h', b'v', b'c', b'1', 1, 1, 0x60, 0, 0, 0]);
        let av1 = tag(true, &[0x90, b'a', b'v', b'0', b'1', 0x81, 5, 0x0c, 0, 0x0a, 1, 0]);
        // Enhanced RTMP v2: many tracks, one codec; then a chain of ModEx.
        let tracks = [0x96, 0x10, b'a', b'v', b'c', b'1', 0, 0, 0, 1, 9, 1, 0, 0, 1, 8];
        let modex = [0x97, 2, 0, 1, 2, 0x07, 2, 0, 1, 2, 0x01, b'a', b'v', b'c', b'1', 5];
        let opus = tag(false, &[0x90, b'O', b'p', b'u', b's', b'O', b'p', b'u', b's', b'H']);
        let sps = &AVC_HEADER[13..37];
        let mut jumps = Vec::new();
        for (what, amount) in
            [(0, 40), (0, 0), (4, 86_400_000), (5, 0u32.wrapping_sub(3_600_000)), (4, u32::MAX)]
        {
            jumps.push(what);
            jumps.extend(u32::to_be_bytes(amount));
        }
        let mut reconnects = jumps.clone();
        for what in [6, 0x80, 0x86, 7, 0] {
            reconnects.extend([what, 0, 0, 0x10, 0]);
        }
        // What it is (bit 0: audio; bits 1 and 2: a header, what newcomers get), a step in time.
        let unit = |what: u8, payload: &[u8]| {
            with(&[what, 40, payload.len().try_into().expect("a short one")], payload)
        };
        let of = |headers: [&[u8]; 2], frames: [&[u8]; 3]| {
            let mut all = vec![0];
            all.extend(unit(0, headers[0]));
            all.extend(unit(1, headers[1]));
            all.extend(unit(0b10, frames[0]));
            frames.iter().for_each(|frame| all.extend(unit(0b100, frame)));
            all.extend(unit(0b1000_0101, AAC_FRAME));
            all
        };
        let avc_aac = of([AVC_HEADER, AAC_HEADER], [KEYFRAME, FRAME, FRAME]);
        let av1_opus = of([&av1[2..], &opus[2..]], [&av1[2..], &[0xb0, 1], &opus[2..]]);
        let mut out = vec![
            ("mux", "avc-aac", avc_aac),
            ("mux", "av1-opus", av1_opus),
            ("tags", "avc-aac", avc),
            ("tags", "hevc", hevc),
            ("tags", "av1", av1),
            ("tags", "tracks", tag(true, &tracks)),
            ("tags", "modex", tag(true, &modex)),
            ("tags", "opus", opus),
            ("codecs", "h264-sps", with(&[0], sps)),
            ("codecs", "h264-config", with(&[1], &AVC_HEADER[5..])),
            ("codecs", "aac", vec![4, 0x12, 0x10]),
            ("codecs", "adts", vec![5, 0xff, 0xf1, 0x50, 0x80, 0x02, 0x1f, 0xfc]),
            ("codecs", "opus", with(&[10], b"OpusHead\x01\x02\x38\x01\x80\xbb\0\0\0\0\0")),
            ("codecs", "mp3", vec![12, 0xff, 0xfb, 0x90, 0x64]),
            ("codecs", "ac3", vec![13, 0x0b, 0x77, 0, 0, 0x1c, 0x40, 0xe1]),
            ("codecs", "annex-b", vec![14, 0, 0, 0, 1, 0x67, 0, 0, 3, 1, 0, 0, 1, 0x68]),
            ("codecs", "lengths", vec![15, 4, 0, 0, 0, 1, 0x65, 0, 0, 0, 9, 1]),
            ("timeline", "jumps", jumps),
            ("timeline", "reconnects", reconnects),
        ];
        // Beginnings of the other headers, for the fuzzer to go on with.
        for (what, name, start) in [
            (
                2,
                "h265-sps",
                &[0x42, 1, 1, 1, 0x60, 0, 0, 3, 0, 0x90, 0, 0, 3, 0, 0, 3, 0, 0x5d][..],
            ),
            (3, "h265-config", &[1, 1, 0x60, 0, 0, 0, 0x90, 0, 0, 0, 0, 0, 0x5d, 0xf0, 0, 0xfc]),
            (6, "av1-config", &[0x81, 5, 0x0c, 0, 0x0a, 0x0b, 0, 0, 0, 0x2d, 0x4c, 0xff, 0xb3]),
            (7, "av1-sequence", &[0x0a, 0x0b, 0, 0, 0, 0x2d, 0x4c, 0xff, 0xb3, 0xc0, 0xe4, 8, 1]),
            (8, "vp9-config", &[1, 0, 0, 0, 0, 31, 0x80, 2, 2, 2, 0, 0]),
            (9, "vp9-frame", &[0x82, 0x49, 0x83, 0x42, 0, 0x13, 0xf0, 0x0e, 0xf6]),
            (11, "flac", &[b'f', b'L', b'a', b'C', 0x80, 0, 0, 34, 16, 0, 16, 0, 0, 0, 0, 0, 0, 0]),
        ] {
            out.push(("codecs", name, with(&[what], start)));
        }
        out
    }

    /// A message of the target `live`: what, step, length, body.
    fn step(what: u8, time: u8, body: &[u8]) -> Vec<u8> {
        with(&[what, time, body.len() as u8], body)
    }

    /// A few pictures and audio frames, packed.
    fn transport_stream() -> Vec<u8> {
        use ringcast::hub::Container;
        use ringcast::media::Kind;
        use ringcast::remux::mux::{Muxer, Wanted};
        let mut muxer = Muxer::new(Container::Ts, Wanted { audio: true, video: true });
        // With the length that its SPS has.
        let mut header = AVC_HEADER.to_vec();
        header[12] += 1;
        muxer.learn(Kind::Video, &header);
        muxer.learn(Kind::Audio, AAC_HEADER);
        let mut out = Vec::new();
        for n in 0..8 {
            for (kind, payload) in
                [(Kind::Video, if n == 0 { KEYFRAME } else { FRAME }), (Kind::Audio, AAC_FRAME)]
            {
                muxer.message(kind, n * 40, payload, 0);
                out.extend_from_slice(muxer.bytes());
            }
        }
        assert!(out.len() > 188 * 12, "{} bytes", out.len());
        out
    }

    /// Packs of a picture and an audio frame each, as cameras send them.
    fn program_stream(with_map: bool) -> Vec<u8> {
        let pes = |id: u8, n: u8, payload: &[u8]| {
            let len = (payload.len() + 8) as u16;
            let head = [0, 0, 1, id, (len >> 8) as u8, len as u8, 0x80, 0x80, 5];
            [&head[..], &[0x21, 0, 1, n, 1], payload].concat()
        };
        let sets = [0, 0, 0, 1, 0x67, 0x42, 0, 30, 0, 0, 0, 1, 0x68, 0xce, 0, 0, 1, 0x65, 0x88];
        let adts = [0xff, 0xf1, 0x50, 0x80, 0x01, 0x7f, 0xfc, 1, 2, 3, 4];
        let mut out = Vec::new();
        for n in 0..8 {
            out.extend([0, 0, 1, 0xba, 0x44, 0, 4, n, 4, 1, 0, 0, 3, 0xf8]);
            if n == 0 && with_map {
                out.extend([0, 0, 1, 0xbb, 0, 6, 0x80, 0, 1, 0, 0, 0xff]);
                out.extend([0, 0, 1, 0xbc, 0, 18, 0xe0, 0xff, 0, 0, 0, 8]);
                out.extend([0x1b, 0xe0, 0, 0, 0x0f, 0xc0, 0, 0, 1, 2, 3, 4]);
            }
            let picture = [&sets[if n % 4 == 0 { 0 } else { 14 }..], &[n; 150]].concat();
            out.extend(pes(0xe0, n, &picture[..100]));
            out.extend(pes(0xe0, n, &picture[100..]));
            out.extend(pes(0xc0, n, &adts));
        }
        out
    }

    fn whole() -> Vec<Seed> {
        let mut live = vec![2];
        live.extend(step(2, 3, &metadata()));
        live.extend(step(3, 0, AAC_HEADER));
        live.extend(step(4, 0, AVC_HEADER));
        live.extend(step(4, 40, KEYFRAME));
        live.extend(step(0, 0, &[]));
        for time in 1..20 {
            live.extend(step(3, 5, AAC_FRAME));
            live.extend(step(4, time, FRAME));
        }
        let mut large = live.clone();
        large[0] = 0;
        // 1.3 MB: over the largest block.
        large.extend(step(0x34, 150, KEYFRAME));
        large.extend(step(4, 40, FRAME));
        let mut resumed = live.clone();
        resumed.extend(step(1, 3, &[]));
        resumed.extend(step(0xc4, 250, KEYFRAME));
        resumed.extend(step(0x84, 200, FRAME));
        let mut packed = vec![0];
        packed.extend(step(5, 0, AAC_HEADER));
        packed.extend(step(4, 0, AVC_HEADER));
        packed.extend(step(2, 40, KEYFRAME));
        for time in 1..20 {
            packed.extend(step(5, 5, AAC_FRAME));
            packed.extend(step(4, time, FRAME));
        }
        packed.extend(step(0x85, 5, &[0x2f, 0xff, 0xfb, 0x90, 0x64, 1, 2, 3]));
        packed.extend(step(0x84, 5, b"\x91vp09\xa2\x49\x83\x42\xe0\x27\xf0\x16\x70\x60"));
        packed.extend(step(0x81, 5, b"\x90OpusOpusHead\x01\x02\x38\x01\x80\xbb\0\0\0\0\0"));
        packed.extend(step(0x85, 5, b"\x91Opus\xfc\x01\x02"));
        let media = media_chunks();
        let ts = transport_stream();
        let mut damaged = ts.clone();
        damaged.drain(188 * 5..188 * 6 + 3);
        damaged[188 * 9 + 4] ^= 0xff;
        let (ps, without_map) = (program_stream(true), program_stream(false));
        let mut damaged_ps = ps.clone();
        damaged_ps.drain(300..420);
        damaged_ps[900] ^= 0xff;
        // A pack and packets as MPEG-1 has them, and the end.
        let mpeg1 = [
            &[0, 0, 1, 0xba, 0x21, 0, 1, 0, 1, 0x80, 0, 1][..],
            &[0, 0, 1, 0xe0, 0, 20, 0xff, 0x60, 0x20, 0x31, 0, 3, 0, 1, 0x11, 0, 1, 0, 1],
            &[0, 0, 1, 0x67, 1, 2, 3, 0, 0, 1, 0xe0, 0, 8, 0x0f, 0, 0, 1, 0x65, 0x88, 1, 2],
            &[0, 0, 1, 0xb9],
        ]
        .concat();
        vec![
            ("ts_demux", "h264-aac", with(&[2], &ts)),
            ("ts_demux", "damaged", with(&[8], &damaged)),
            ("ts_demux", "tables", with(&[1], &ts[..188 * 3])),
            ("ps_demux", "camera", with(&[2], &ps)),
            ("ps_demux", "no-map", with(&[7], &without_map)),
            ("ps_demux", "damaged", with(&[8], &damaged_ps)),
            ("ps_demux", "mpeg1", with(&[5], &mpeg1)),
            ("mux", "containers", packed),
            ("live", "plain", live),
            ("live", "large", large),
            ("live", "resumed", resumed),
            ("session", "publish", with(&[2, 0], &media)),
            ("session", "publish-cut", with(&[2, 7], &media)),
            ("session", "play", with(&[4, 3], &media[..200])),
        ]
    }
}
