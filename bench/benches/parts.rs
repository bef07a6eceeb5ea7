//! Parts without a socket: framing, parsing, the log, the arena.

use std::hint::black_box;
use std::net::Ipv4Addr;
use std::sync::Arc;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

use ringcast::hub::feed::GopLimits;
use ringcast::hub::{FeedWriter, Flags, Format, Mirror, Next};
use ringcast::media::Kind;
use ringcast::media::nal;
use ringcast::proto::amf0::{self, Reader};
use ringcast::proto::flv::Framing;
use ringcast::proto::rtmp::chunk;
use ringcast::proto::rtmp::client::{Client, ClientOptions, HandshakeKind, Role};
use ringcast::proto::rtmp::server::{Event, PublishKind, Server, ServerOptions};
use ringcast::remux::{flv, rtmp};
use uring::{Arena, ArenaOptions};

fn message(len: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..len).map(|i| (i * 7 % 251) as u8).collect();
    bytes[..5].copy_from_slice(&[0x27, 1, 0, 0, 0]);
    bytes
}

/// Both ends of a connection on which one publishes.
fn publishing(chunk_size: u32) -> (Client, Server) {
    let mut client = Client::new(ClientOptions {
        tc_url: "rtmp://127.0.0.1/live".into(),
        app: "live".into(),
        stream: "s".into(),
        role: Role::Publish,
        chunk_size,
        flash_ver: String::new(),
        page_url: None,
        handshake: HandshakeKind::Simple,
        publish_sequence: PublishKind::Flash,
        seed: 1,
    });
    let mut server = Server::new(ServerOptions {
        chunk_size,
        out_ack_size: 0,
        in_ack_size: 0,
        server_ip: Ipv4Addr::LOCALHOST.into(),
        session_id: String::new(),
        pid: 1,
        epoch_ms: 0,
        seed: 2,
    });
    for _ in 0..20 {
        let bytes = std::mem::take(client.output());
        let mut input = &bytes[..];
        while let Some(event) = server.poll(&mut input).expect("our own client") {
            if matches!(event, Event::Publish(_)) {
                server.accept_publish();
            }
        }
        let bytes = std::mem::take(server.output());
        let mut input = &bytes[..];
        while client.poll(&mut input).expect("our own server").is_some() {}
        if client.is_running() && client.output().is_empty() {
            return (client, server);
        }
    }
    panic!("the two ends do not agree");
}

fn chunks(c: &mut Criterion) {
    let mut group = c.benchmark_group("chunk");
    for (len, chunk_size) in [(300, 60_000), (3_400, 60_000), (3_400, 128), (40_960, 4_096)] {
        let payload = message(len);
        let name = format!("{len} in {chunk_size}");
        group.throughput(Throughput::Bytes(len as u64));
        group.bench_function(BenchmarkId::new("split", &name), |b| {
            let mut out = Vec::with_capacity(2 * len);
            b.iter(|| {
                out.clear();
                chunk::write_message(&mut out, chunk_size, 6, 9, 40, 1, black_box(&payload));
                out.len()
            });
        });
        let (mut client, mut server) = publishing(chunk_size);
        client.write_message(Kind::Video, 40, &payload);
        let wire = std::mem::take(client.output());
        group.bench_function(BenchmarkId::new("join", &name), |b| {
            b.iter(|| {
                let mut input = black_box(&wire[..]);
                match server.poll(&mut input).expect("well formed") {
                    Some(Event::Message(message)) => message.payload.len(),
                    other => panic!("{other:?} instead of a message"),
                }
            });
        });
    }
    group.finish();
}

fn framing(c: &mut Criterion) {
    let mut group = c.benchmark_group("mux");
    let payload = message(3_400);
    group.throughput(Throughput::Bytes(payload.len() as u64));
    for framing in [Framing::Plain, Framing::Chunked, Framing::WebSocket] {
        group.bench_function(BenchmarkId::new("flv", format!("{framing:?}")), |b| {
            let mut out = Vec::with_capacity(8_192);
            b.iter(|| {
                out.clear();
                flv::write(&mut out, framing, Flags::VIDEO, 40, black_box(&payload));
                out.len()
            });
        });
    }
    group.bench_function("rtmp", |b| {
        let mut out = Vec::with_capacity(8_192);
        b.iter(|| {
            out.clear();
            rtmp::write(&mut out, 60_000, Flags::VIDEO, 40, black_box(&payload));
            out.len()
        });
    });
    group.finish();
}

fn amf(c: &mut Criterion) {
    let mut wire = Vec::new();
    amf0::put::string(&mut wire, "onMetaData");
    amf0::put::ecma_array(&mut wire, 8);
    for key in ["width", "height", "framerate", "videocodecid", "audiodatarate", "duration"] {
        amf0::put::key(&mut wire, key);
        amf0::put::number(&mut wire, 42.0);
    }
    amf0::put::key(&mut wire, "encoder");
    amf0::put::string(&mut wire, "a name of ordinary length");
    amf0::put::end(&mut wire);
    c.bench_function("amf0/read metadata", |b| {
        b.iter(|| {
            let mut reader = Reader::new(black_box(&wire));
            let mut values = 0;
            while !reader.is_empty() {
                black_box(reader.value().expect("well formed"));
                values += 1;
            }
            values
        });
    });
    let value = {
        let mut reader = Reader::new(&wire);
        reader.value().expect("the name");
        reader.value().expect("the array")
    };
    c.bench_function("amf0/write metadata", |b| {
        let mut out = Vec::with_capacity(1_024);
        b.iter(|| {
            out.clear();
            black_box(&value).put(&mut out);
            out.len()
        });
    });
}

fn nal_units(c: &mut Criterion) {
    let mut group = c.benchmark_group("nal");
    let mut annex_b = Vec::new();
    let mut prefixed = Vec::new();
    for len in [10usize, 4, 3_000, 12_000, 9_000] {
        let unit: Vec<u8> = (0..len).map(|i| (i % 250 + 1) as u8).collect();
        annex_b.extend_from_slice(&[0, 0, 0, 1]);
        annex_b.extend_from_slice(&unit);
        prefixed.extend_from_slice(&(len as u32).to_be_bytes());
        prefixed.extend_from_slice(&unit);
    }
    group.throughput(Throughput::Bytes(annex_b.len() as u64));
    group.bench_function("annex b", |b| b.iter(|| nal::annex_b(black_box(&annex_b)).count()));
    group.bench_function("length prefixed", |b| {
        b.iter(|| nal::length_prefixed(black_box(&prefixed), 4).count());
    });
    group.bench_function("rbsp", |b| b.iter(|| nal::rbsp(black_box(&annex_b)).len()));
    group.finish();
}

const GOP: GopLimits = GopLimits { enabled: true, messages: 2_500, bytes: 8 << 20 };

/// One message into a feed, and every cursor of a mirror moved over it.
fn feed(c: &mut Criterion) {
    let mut group = c.benchmark_group("feed");
    let payload = message(1_200);
    for cursors in [0usize, 1, 100, 1_000] {
        group.throughput(Throughput::Elements(cursors.max(1) as u64));
        group.bench_function(BenchmarkId::new("append, cursors", cursors), |b| {
            let options = ArenaOptions { limit: 64 << 20, huge_pages: false };
            let arena = Arena::new(options).expect("64 MiB of address space");
            let mut writer = FeedWriter::new(Format::Rtmp, arena, GOP);
            writer.feed().count_players(cursors as i32);
            let mut mirror = Mirror::new(Arc::clone(writer.feed()));
            let mut places = vec![mirror.end(); cursors];
            let mut time = 0;
            b.iter(|| {
                time += 14;
                let key = time % 2_002 == 0;
                let flags = if key { Flags::VIDEO | Flags::KEYFRAME } else { Flags::VIDEO };
                let written = rtmp::append(&mut writer, 60_000, flags, time, black_box(&payload));
                written.expect("the feed lets go of what is old");
                mirror.refresh();
                for place in &mut places {
                    let bytes = match mirror.next(*place, 512 << 10) {
                        Next::One(range) => range.end - range.start,
                        Next::Two(a, b) => a.end - a.start + b.end - b.start,
                        Next::AtEnd | Next::Gone => 0,
                    };
                    *place = mirror.advance(*place, bytes);
                }
                let oldest = places.iter().map(|p| p.block).min().unwrap_or(u64::MAX);
                mirror.trim(oldest);
            });
        });
    }
    group.finish();
}

fn arena(c: &mut Criterion) {
    let options = ArenaOptions { limit: 64 << 20, huge_pages: false };
    let arena = Arena::new(options).expect("64 MiB of address space");
    let mut group = c.benchmark_group("arena");
    for size in uring::BLOCK_SIZES {
        // One stays, so that the slab is not handed back to the system each time.
        let _kept = arena.writer(size).expect("room");
        group.bench_function(BenchmarkId::new("take and return", size), |b| {
            b.iter_batched(
                || (),
                |()| drop(black_box(arena.writer(size).expect("room"))),
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, chunks, framing, amf, nal_units, feed, arena);
criterion_main!(benches);
