//! Both ends against each other, in memory, and the server against what hostile peers send.

use std::net::{IpAddr, Ipv4Addr};

use super::chunk::{self, Joiner, Payload};
use super::client::{self, Client, ClientOptions, HandshakeKind, Role};
use super::message::type_id;
use super::server::{self, PublishKind, Server, ServerOptions};
use super::{Error, Limit, Malformed, Misbehaved};
use crate::limits::{CHUNK_SIZE_MAX, RTMP_PARTIAL_MAX, RTMP_REPLIES_MAX};
use crate::media::Kind;
use crate::proto::amf0::{Object, Reader, Value, put};

fn server_options() -> ServerOptions {
    ServerOptions {
        chunk_size: 60_000,
        out_ack_size: 2_500_000,
        in_ack_size: 0,
        server_ip: IpAddr::V4(Ipv4Addr::new(127, 0, 0, 1)),
        session_id: "abc123".into(),
        pid: 42,
        epoch_ms: 0x0102_0304,
        seed: 7,
    }
}

fn client_options(role: Role) -> ClientOptions {
    ClientOptions {
        tc_url: "rtmp://127.0.0.1/live".into(),
        app: "live".into(),
        stream: "livestream?token=x".into(),
        role,
        chunk_size: 4096,
        flash_ver: "LNX 9,0,124,2".into(),
        page_url: Some("http://example.com/".into()),
        handshake: HandshakeKind::Complex,
        publish_sequence: PublishKind::Fmle,
        seed: 9,
    }
}

/// An event with its payload, as text that assertions read well with.
fn server_event(event: server::Event<'_>) -> String {
    match event {
        server::Event::Connect(connect) => format!("connect {}", connect.tc_url),
        server::Event::Publish(request) => format!("publish {:?} {}", request.kind, request.stream),
        server::Event::Play(request) => format!("play {}", request.stream),
        server::Event::Message(message) => {
            format!("{:?} {} {:?}", message.kind, message.timestamp, hash(message.payload))
        }
        server::Event::Metadata { timestamp, payload } => {
            format!("metadata {timestamp} {:?}", hash(payload))
        }
        other => format!("{other:?}"),
    }
}

fn client_event(event: client::Event<'_>) -> String {
    match event {
        client::Event::Message(message) => {
            format!("{:?} {} {:?}", message.kind, message.timestamp, hash(message.payload))
        }
        client::Event::Metadata { timestamp, payload } => {
            format!("metadata {timestamp} {:?}", hash(payload))
        }
        client::Event::Status { code, .. } => format!("status {code}"),
        client::Event::Refused { code, .. } => format!("refused {code}"),
        client::Event::Redirect { url } => format!("redirect {url}"),
        other => format!("{other:?}"),
    }
}

/// Length and FNV-1a of a payload: content is compared, not only its presence.
fn hash(payload: &[u8]) -> (usize, u64) {
    let fnv = payload.iter().fold(0xCBF2_9CE4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01B3)
    });
    (payload.len(), fnv)
}

fn content(seed: u8, len: usize) -> Vec<u8> {
    (0..len).map(|index| (index as u8).wrapping_mul(31).wrapping_add(seed)).collect()
}

/// Hands `bytes` to the server in pieces of `piece` bytes, accepting whatever it asks.
fn feed_server(server: &mut Server, bytes: &[u8], piece: usize) -> Result<Vec<String>, Error> {
    let mut events = Vec::new();
    for piece in bytes.chunks(piece) {
        let mut input = piece;
        while let Some(event) = server.poll(&mut input)? {
            let (publish, play) = (
                matches!(event, server::Event::Publish(_)),
                matches!(event, server::Event::Play(_)),
            );
            events.push(server_event(event));
            if publish {
                server.accept_publish();
            } else if play {
                server.accept_play();
            }
        }
        assert!(input.is_empty(), "no event and bytes left");
    }
    Ok(events)
}

fn feed_client(client: &mut Client, bytes: &[u8], piece: usize) -> Vec<String> {
    let mut events = Vec::new();
    for piece in bytes.chunks(piece) {
        let mut input = piece;
        while let Some(event) = client.poll(&mut input).unwrap() {
            events.push(client_event(event));
        }
        assert!(input.is_empty(), "no event and bytes left");
    }
    events
}

struct Pair {
    client: Client,
    server: Server,
    piece: usize,
    client_events: Vec<String>,
    server_events: Vec<String>,
}

impl Pair {
    fn new(options: ClientOptions, piece: usize) -> Pair {
        Pair {
            client: Client::new(options),
            server: Server::new(server_options()),
            piece,
            client_events: Vec::new(),
            server_events: Vec::new(),
        }
    }

    /// Until neither has anything to say.
    fn run(&mut self) {
        loop {
            let up = std::mem::take(self.client.output());
            self.server_events.extend(feed_server(&mut self.server, &up, self.piece).unwrap());
            let down = std::mem::take(self.server.output());
            self.client_events.extend(feed_client(&mut self.client, &down, self.piece));
            if up.is_empty() && down.is_empty() {
                return;
            }
        }
    }

    fn take(&mut self) -> (Vec<String>, Vec<String>) {
        (std::mem::take(&mut self.client_events), std::mem::take(&mut self.server_events))
    }
}

fn metadata() -> Vec<u8> {
    let mut bytes = Vec::new();
    put::string(&mut bytes, "onMetaData");
    put::ecma_array(&mut bytes, 1);
    put::key(&mut bytes, "width");
    put::number(&mut bytes, 1280.0);
    put::end(&mut bytes);
    bytes
}

const PIECES: [usize; 9] = [1, 2, 3, 7, 127, 128, 129, 1000, usize::MAX];

#[test]
fn publish_by_every_sequence_in_pieces_of_every_size() {
    for piece in PIECES {
        for sequence in [PublishKind::Fmle, PublishKind::Flash, PublishKind::Haivision] {
            for handshake in [HandshakeKind::Simple, HandshakeKind::Complex] {
                let mut options = client_options(Role::Publish);
                options.publish_sequence = sequence;
                options.handshake = handshake;
                let mut pair = Pair::new(options, piece);
                pair.run();
                let (client, server) = pair.take();
                assert_eq!(client, ["Publishing"]);
                let publish = format!("publish {sequence:?} livestream?token=x");
                assert_eq!(server, ["connect rtmp://127.0.0.1/live", &publish]);

                let (video, audio) = (content(1, 70_000), content(2, 300));
                pair.client.write_metadata(0, &metadata());
                pair.client.write_message(Kind::Video, 0xFF_FFFE, &video);
                pair.client.write_message(Kind::Audio, 0xFF_FFFF, &audio);
                pair.client.write_message(Kind::Video, 0x7FFF_FFFF, &video);
                pair.client.write_message(Kind::Video, 0x8000_0001, &audio[..1]);
                pair.run();
                let (_, server) = pair.take();
                assert_eq!(
                    server,
                    [
                        format!("metadata 0 {:?}", hash(&metadata())),
                        format!("Video {} {:?}", 0xFF_FFFE, hash(&video)),
                        format!("Audio {} {:?}", 0xFF_FFFF, hash(&audio)),
                        format!("Video {} {:?}", 0x7FFF_FFFF, hash(&video)),
                        format!("Video {} {:?}", 1, hash(&audio[..1])),
                    ],
                    "timestamps are masked to 31 bits"
                );

                pair.client.unpublish();
                pair.run();
                let (client, server) = pair.take();
                assert_eq!(server, ["Unpublish"]);
                if sequence != PublishKind::Flash {
                    assert_eq!(client, ["status NetStream.Unpublish.Success"]);
                }
                pair.client.reopen("other");
                pair.run();
                let (client, server) = pair.take();
                assert_eq!(client, ["Publishing"]);
                assert_eq!(server, [format!("publish {sequence:?} other")]);
            }
        }
    }
}

#[test]
fn play_in_pieces_of_every_size() {
    for piece in PIECES {
        let mut pair = Pair::new(client_options(Role::Play), piece);
        pair.run();
        let (client, server) = pair.take();
        let access = {
            let mut bytes = Vec::new();
            put::string(&mut bytes, "|RtmpSampleAccess");
            put::boolean(&mut bytes, true);
            put::boolean(&mut bytes, true);
            format!("Data 0 {:?}", hash(&bytes))
        };
        assert_eq!(client, ["status NetStream.Play.Reset", "Playing", &access]);
        assert_eq!(server, ["connect rtmp://127.0.0.1/live", "play livestream?token=x"]);
        assert_eq!(pair.server.buffer_ms(), Some(1000));

        let video = content(3, 150_000);
        let out = pair.server.output();
        chunk::write_message(out, 60_000, 4, type_id::DATA_AMF0, 0, 1, &metadata());
        chunk::write_message(out, 60_000, 6, type_id::VIDEO, 0x0100_0000, 1, &video);
        pair.run();
        assert_eq!(
            pair.take().0,
            [
                format!("metadata 0 {:?}", hash(&metadata())),
                format!("Video {} {:?}", 0x0100_0000, hash(&video))
            ]
        );

        pair.client.pause(true, 1.0);
        pair.run();
        let (client, server) = pair.take();
        assert_eq!(server, ["Pause(true)"]);
        assert_eq!(client, ["status NetStream.Pause.Notify", "StreamEof"]);
        pair.client.pause(false, 1.0);
        pair.run();
        let (client, server) = pair.take();
        assert_eq!(server, ["Pause(false)"]);
        assert_eq!(client, ["status NetStream.Unpause.Notify"]);

        pair.client.close_stream();
        pair.run();
        assert_eq!(pair.take().1, ["CloseStream"]);
        pair.client.reopen("second");
        pair.run();
        let (client, server) = pair.take();
        assert_eq!(client[1], "Playing");
        assert_eq!(server, ["play second"]);
    }
}

#[test]
fn a_player_may_publish_next() {
    let mut pair = Pair::new(client_options(Role::Play), usize::MAX);
    pair.run();
    pair.client.close_stream();
    pair.run();
    pair.take();
    let out = pair.client.output();
    command(out, 3, 0, "createStream", 5.0, &[Value::Null]);
    command(out, 5, 1, "publish", 6.0, &[Value::Null, text("x"), text("live")]);
    pair.run();
    assert_eq!(pair.take().1, ["publish Flash x"]);
}

#[test]
fn the_server_redirects_and_refuses() {
    let mut client = Client::new(client_options(Role::Play));
    let mut server = Server::new(server_options());
    loop {
        let up = std::mem::take(client.output());
        let mut input = &up[..];
        let mut asked = false;
        while !asked && let Some(event) = server.poll(&mut input).unwrap() {
            asked = matches!(event, server::Event::Play(_));
        }
        if asked {
            break;
        }
        let down = std::mem::take(server.output());
        assert_eq!(feed_client(&mut client, &down, 100), [""; 0]);
    }
    server.redirect("rtmp://other/live/s", "rtmp://other/live");
    let down = std::mem::take(server.output());
    assert_eq!(feed_client(&mut client, &down, 10), ["redirect rtmp://other/live/s"]);
}

fn text(text: &str) -> Value {
    Value::String(text.into())
}

/// Appends a command as a client sends it, in chunks of 128 bytes.
fn command(out: &mut Vec<u8>, csid: u8, msid: u32, name: &str, tid: f64, arguments: &[Value]) {
    let mut payload = Vec::new();
    put::string(&mut payload, name);
    put::number(&mut payload, tid);
    for argument in arguments {
        argument.put(&mut payload);
    }
    chunk::write_message(out, 128, csid, type_id::COMMAND_AMF0, 0, msid, &payload);
}

fn connect_object() -> Value {
    Value::Object(Object(vec![
        ("app".into(), text("live")),
        ("tcUrl".into(), text("rtmp://h/live")),
        ("objectEncoding".into(), Value::Number(3.0)),
    ]))
}

/// A server that has shaken hands, with nothing in its output.
fn shaken() -> Server {
    let mut server = Server::new(server_options());
    let mut bytes = vec![3];
    bytes.extend_from_slice(&[0; 2 * 1536]);
    assert_eq!(feed_server(&mut server, &bytes, usize::MAX), Ok(vec![]));
    server.output().clear();
    server
}

/// A server that a client has connected to.
fn connected() -> Server {
    let mut server = shaken();
    let mut bytes = Vec::new();
    command(&mut bytes, 3, 0, "connect", 1.0, &[connect_object()]);
    feed_server(&mut server, &bytes, usize::MAX).unwrap();
    server.output().clear();
    server
}

fn publishing(kind: PublishKind) -> Server {
    let mut server = connected();
    let mut bytes = Vec::new();
    if kind == PublishKind::Fmle {
        command(&mut bytes, 3, 0, "releaseStream", 2.0, &[Value::Null, text("s")]);
    }
    command(&mut bytes, 3, 0, "createStream", 3.0, &[Value::Null]);
    command(&mut bytes, 5, 1, "publish", 4.0, &[Value::Null, text("s"), text("live")]);
    let events = feed_server(&mut server, &bytes, usize::MAX).unwrap();
    assert_eq!(events, [format!("publish {kind:?} s")]);
    server.output().clear();
    server
}

fn playing() -> Server {
    let mut server = connected();
    let mut bytes = Vec::new();
    command(&mut bytes, 3, 0, "createStream", 2.0, &[Value::Null]);
    command(&mut bytes, 5, 1, "play", 3.0, &[Value::Null, text("s")]);
    feed_server(&mut server, &bytes, usize::MAX).unwrap();
    server.output().clear();
    server
}

/// Chunk stream, type, message stream, and the AMF0 values or the raw bytes.
type Sent = (u32, u8, u32, Vec<Value>, Vec<u8>);

/// What a server has sent.
fn sent(server: &mut Server, chunk_size: u32) -> Vec<Sent> {
    let bytes = std::mem::take(server.output());
    let mut joiner = Joiner::new();
    joiner.set_chunk_size(chunk_size);
    let mut input = &bytes[..];
    let mut messages = Vec::new();
    while let Some(joined) = joiner.next(&mut input).unwrap() {
        let payload = match joined.payload {
            Payload::Borrowed(bytes) => bytes.to_vec(),
            Payload::Assembled => joiner.assembled().to_vec(),
        };
        if joined.type_id == type_id::SET_CHUNK_SIZE {
            joiner.set_chunk_size(u32::from_be_bytes(payload[..].try_into().unwrap()));
        }
        let mut values = Vec::new();
        if joined.type_id >= 15 {
            let mut reader = Reader::new(&payload);
            while !reader.is_empty() {
                values.push(reader.value().unwrap());
            }
        }
        let raw = if values.is_empty() { payload } else { Vec::new() };
        messages.push((joined.csid, joined.type_id, joined.message_stream_id, values, raw));
    }
    messages
}

fn object(properties: &[(&str, &str)]) -> Value {
    Value::Object(Object(
        properties.iter().map(|(key, value)| ((*key).into(), text(value))).collect(),
    ))
}

fn number(number: f64) -> Value {
    Value::Number(number)
}

#[test]
fn the_reply_to_connect_byte_by_byte() {
    let mut server = shaken();
    let mut bytes = Vec::new();
    // Any transaction is answered with 1.
    command(&mut bytes, 3, 0, "connect", 9.0, &[connect_object(), object(&[("srs_id", "edge")])]);
    let events = feed_server(&mut server, &bytes, usize::MAX).unwrap();
    assert_eq!(events, ["connect rtmp://h/live"]);
    let connect = server.connect().unwrap();
    assert_eq!(connect.args.as_ref().and_then(|args| args.text("srs_id")), Some("edge"));
    assert_eq!((connect.object_encoding, &connect.page_url), (3.0, &None));

    let mut expected = Vec::new();
    expected.extend_from_slice(b"\x02\0\0\0\0\0\x04\x05\0\0\0\0\0\x26\x25\xa0");
    expected.extend_from_slice(b"\x02\0\0\0\0\0\x05\x06\0\0\0\0\0\x26\x25\xa0\x02");
    expected.extend_from_slice(b"\x02\0\0\0\0\0\x04\x01\0\0\0\0\0\0\xea\x60");
    let version = env!("CARGO_PKG_VERSION");
    let mut result = Vec::new();
    result.extend_from_slice(b"\x02\0\x07_result\0\x3f\xf0\0\0\0\0\0\0");
    result.extend_from_slice(b"\x03\0\x06fmsVer\x02\0\x0dFMS/3,5,3,888");
    result.extend_from_slice(b"\0\x0ccapabilities\0\x40\x5f\xc0\0\0\0\0\0");
    result.extend_from_slice(b"\0\x04mode\0\x3f\xf0\0\0\0\0\0\0\0\0\x09");
    result.extend_from_slice(b"\x03\0\x05level\x02\0\x06status");
    result.extend_from_slice(b"\0\x04code\x02\0\x1dNetConnection.Connect.Success");
    result.extend_from_slice(b"\0\x0bdescription\x02\0\x14Connection succeeded");
    result.extend_from_slice(b"\0\x0eobjectEncoding\0\x40\x08\0\0\0\0\0\0");
    result.extend_from_slice(b"\0\x04data\x08\0\0\0\x0a");
    for (key, value) in [
        ("version", "3,5,3,888"),
        ("srs_sig", "SRS"),
        ("srs_server", &format!("ringcast/{version}")),
        ("srs_license", "MIT"),
        ("srs_url", "https://github.com/ossrs/srs"),
        ("srs_version", version),
        ("srs_authors", "ringcast"),
        ("srs_server_ip", "127.0.0.1"),
    ] {
        result.extend_from_slice(&[0, key.len() as u8]);
        result.extend_from_slice(key.as_bytes());
        result.extend_from_slice(&[2, 0, value.len() as u8]);
        result.extend_from_slice(value.as_bytes());
    }
    result.extend_from_slice(b"\0\x07srs_pid\0\x40\x45\0\0\0\0\0\0");
    result.extend_from_slice(b"\0\x06srs_id\x02\0\x06abc123\0\0\x09\0\0\x09");
    let len = result.len() as u16;
    expected.extend_from_slice(&[3, 0, 0, 0, 0, (len >> 8) as u8, len as u8, 20, 0, 0, 0, 0]);
    expected.extend_from_slice(&result);
    expected.extend_from_slice(b"\x03\0\0\0\0\0\x15\x14\0\0\0\0");
    expected.extend_from_slice(b"\x02\0\x08onBWDone\0\0\0\0\0\0\0\0\0\x05");
    assert_eq!(server.output(), &expected);
}

/// The first object of the reply to `connect`, for a client that said these things more.
fn properties_for(said: &[(&str, Value)]) -> Object {
    let Value::Object(mut object) = connect_object() else { unreachable!() };
    object.0.extend(said.iter().map(|(key, value)| ((*key).to_owned(), value.clone())));
    let (mut server, mut bytes) = (shaken(), Vec::new());
    command(&mut bytes, 3, 0, "connect", 1.0, &[Value::Object(object)]);
    feed_server(&mut server, &bytes, usize::MAX).unwrap();
    let (mut joiner, mut input) = (Joiner::new(), &server.output()[..]);
    joiner.set_chunk_size(60_000);
    while let Some(joined) = joiner.next(&mut input).unwrap() {
        if joined.type_id != type_id::COMMAND_AMF0 {
            continue;
        }
        let Payload::Borrowed(payload) = joined.payload else { panic!("it lies in one chunk") };
        let mut reader = Reader::new(payload);
        assert_eq!(reader.string().unwrap(), "_result");
        assert_eq!(reader.number(), Ok(1.0));
        return reader.value().unwrap().as_object().unwrap().clone();
    }
    panic!("no result");
}

#[test]
fn enhanced_rtmp_is_answered_in_the_form_it_was_asked_in() {
    let keys = |said: &[(&str, Value)]| {
        let keys = properties_for(said).0.into_iter().map(|(key, _)| key).skip(3);
        keys.collect::<Vec<_>>().join(" ")
    };
    let list = Value::StrictArray(vec![text("hvc1"), text("av01")]);
    let map = Value::Object(Object(vec![("*".into(), number(4.0))]));
    let array = Value::EcmaArray(Object(vec![]));
    let v2 = "videoFourCcInfoMap audioFourCcInfoMap capsEx";
    assert_eq!(keys(&[]), "");
    assert_eq!(keys(&[("fourCcList", list.clone())]), "fourCcList");
    assert_eq!(keys(&[("videoFourCcInfoMap", map.clone())]), v2);
    assert_eq!(keys(&[("audioFourCcInfoMap", array)]), v2);
    assert_eq!(keys(&[("capsEx", number(7.0))]), v2);
    let both = [("fourCcList", list), ("videoFourCcInfoMap", map)];
    assert_eq!(keys(&both), format!("fourCcList {v2}"));
    // Of another type: as if not there.
    assert_eq!(keys(&[("fourCcList", text("hvc1")), ("capsEx", text("7"))]), "");
    assert_eq!(keys(&[("videoFourCcInfoMap", number(1.0))]), "");

    let said = properties_for(&both);
    let listed = ["avc1", "hvc1", "av01", "vp08", "vp09", "mp4a", ".mp3", "Opus", "fLaC"];
    let listed = listed.into_iter().chain(["ac-3", "ec-3"]).map(text).collect();
    assert_eq!(said.get("fourCcList"), Some(&Value::StrictArray(listed)));
    let forwards = |codecs: &[&str]| {
        let flags = codecs.iter().map(|codec| ((*codec).to_owned(), number(4.0)));
        Value::Object(Object(flags.collect()))
    };
    let video = forwards(&["avc1", "hvc1", "av01", "vp08", "vp09"]);
    let audio = forwards(&["mp4a", ".mp3", "Opus", "fLaC", "ac-3", "ec-3"]);
    assert_eq!(said.get("videoFourCcInfoMap"), Some(&video));
    assert_eq!(said.get("audioFourCcInfoMap"), Some(&audio));
    assert_eq!(said.number("capsEx"), Some(4.0));
}

#[test]
fn no_window_is_announced_when_it_is_zero() {
    let mut options = server_options();
    options.out_ack_size = 0;
    let mut server = Server::new(options);
    let mut bytes = vec![3];
    bytes.extend_from_slice(&[0; 2 * 1536]);
    command(&mut bytes, 3, 0, "connect", 1.0, &[connect_object()]);
    feed_server(&mut server, &bytes, usize::MAX).unwrap();
    assert_eq!(server.output()[3073..][..8], *b"\x02\0\0\0\0\0\x05\x06");
}

#[test]
fn the_replies_of_an_fmle_publish() {
    let mut server = connected();
    let mut bytes = Vec::new();
    command(&mut bytes, 3, 0, "releaseStream", 2.0, &[Value::Null, text("s?k=v")]);
    command(&mut bytes, 3, 0, "FCPublish", 3.0, &[Value::Null, text("s?k=v")]);
    command(&mut bytes, 3, 0, "createStream", 4.0, &[Value::Null]);
    command(&mut bytes, 5, 1, "publish", 5.0, &[Value::Null, text("ignored"), text("record")]);
    let events = feed_server(&mut server, &bytes, usize::MAX).unwrap();
    assert_eq!(events, ["publish Fmle s?k=v"]);
    let null = || Value::Null;
    let expected = vec![
        (3, 20, 0, vec![text("_result"), number(2.0), null(), Value::Undefined], vec![]),
        (3, 20, 0, vec![text("_result"), number(3.0), null(), Value::Undefined], vec![]),
        (3, 20, 0, vec![text("_result"), number(4.0), null(), number(1.0)], vec![]),
        (
            5,
            20,
            1,
            vec![
                text("onFCPublish"),
                number(0.0),
                null(),
                object(&[
                    ("code", "NetStream.Publish.Start"),
                    ("description", "Started publishing stream."),
                ]),
            ],
            vec![],
        ),
        (
            5,
            20,
            1,
            vec![
                text("onStatus"),
                number(0.0),
                null(),
                object(&[
                    ("level", "status"),
                    ("code", "NetStream.Publish.Start"),
                    ("description", "Started publishing stream."),
                    ("clientid", "ASAICiss"),
                ]),
            ],
            vec![],
        ),
    ];
    assert_eq!(sent(&mut server, 60_000), expected);

    let mut bytes = Vec::new();
    command(&mut bytes, 3, 0, "_checkbw", 6.0, &[Value::Null]);
    command(&mut bytes, 3, 0, "FCUnpublish", 7.0, &[Value::Null, text("s?k=v")]);
    let events = feed_server(&mut server, &bytes, usize::MAX).unwrap();
    assert_eq!(events, ["Unpublish"], "other commands are ignored while publishing");
    let expected = vec![
        (
            5,
            20,
            1,
            vec![
                text("onFCUnpublish"),
                number(0.0),
                null(),
                object(&[
                    ("code", "NetStream.Unpublish.Success"),
                    ("description", "Stop publishing stream."),
                ]),
            ],
            vec![],
        ),
        (3, 20, 1, vec![text("_result"), number(7.0), null(), Value::Undefined], vec![]),
        (
            5,
            20,
            1,
            vec![
                text("onStatus"),
                number(0.0),
                null(),
                object(&[
                    ("level", "status"),
                    ("code", "NetStream.Unpublish.Success"),
                    ("description", "Stream is now unpublished"),
                    ("clientid", "ASAICiss"),
                ]),
            ],
            vec![],
        ),
    ];
    assert_eq!(sent(&mut server, 60_000), expected);
}

#[test]
fn start_is_sent_only_when_the_caller_accepts() {
    let mut server = connected();
    let mut bytes = Vec::new();
    command(&mut bytes, 3, 0, "FCPublish", 2.0, &[Value::Null, text("s")]);
    command(&mut bytes, 3, 0, "createStream", 3.0, &[Value::Null]);
    command(&mut bytes, 5, 1, "publish", 4.0, &[Value::Null, text("s"), text("live")]);
    let after = bytes.len();
    chunk::write_message(&mut bytes, 128, 6, type_id::VIDEO, 0, 1, b"x");
    let mut input = &bytes[..];
    assert!(matches!(server.poll(&mut input), Ok(Some(server::Event::Publish(_)))));
    assert_eq!(input.len(), bytes.len() - after, "what follows waits for the caller");
    let names = |server: &mut Server| {
        let sent = sent(server, 60_000).into_iter();
        sent.map(|(_, _, _, values, _)| values[0].as_text().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names(&mut server), ["_result", "_result", "onFCPublish"]);
    server.accept_publish();
    assert_eq!(names(&mut server), ["onStatus"]);
    let Ok(Some(server::Event::Message(message))) = server.poll(&mut input) else { panic!() };
    assert_eq!((message.kind, message.payload), (Kind::Video, &b"x"[..]));
}

#[test]
fn the_replies_of_a_play() {
    let mut server = connected();
    let mut bytes = Vec::new();
    command(&mut bytes, 3, 0, "createStream", 2.0, &[Value::Null]);
    let arguments = [Value::Null, text("s"), number(-2.0), number(2500.0), Value::Boolean(false)];
    command(&mut bytes, 5, 1, "play", 3.0, &arguments);
    let mut input = &bytes[..];
    let Ok(Some(server::Event::Play(request))) = server.poll(&mut input) else { panic!() };
    assert_eq!(
        request,
        server::PlayRequest {
            stream: "s".into(),
            start: -2.0,
            duration_ms: Some(2500.0),
            reset: false
        }
    );
    server.accept_play();
    let status = |code, description| {
        let info = [
            ("level", "status"),
            ("code", code),
            ("description", description),
            ("details", "stream"),
            ("clientid", "ASAICiss"),
        ];
        (5, 20, 1, vec![text("onStatus"), number(0.0), Value::Null, object(&info)], vec![])
    };
    let expected = vec![
        (3, 20, 0, vec![text("_result"), number(2.0), Value::Null, number(1.0)], vec![]),
        (2, 4, 0, vec![], vec![0, 0, 0, 0, 0, 1]),
        status("NetStream.Play.Reset", "Playing and resetting stream."),
        status("NetStream.Play.Start", "Started playing stream."),
        (
            5,
            18,
            1,
            vec![text("|RtmpSampleAccess"), Value::Boolean(true), Value::Boolean(true)],
            vec![],
        ),
    ];
    assert_eq!(sent(&mut server, 60_000), expected);
}

#[test]
fn play_needs_no_create_stream_and_no_arguments() {
    let mut server = connected();
    let mut bytes = Vec::new();
    command(&mut bytes, 5, 1, "play", 0.0, &[Value::Null, text("s"), Value::Null]);
    assert_eq!(feed_server(&mut server, &bytes, 5), Ok(vec!["play s".to_owned()]));
}

#[test]
fn calls_while_playing() {
    let mut server = playing();
    let mut bytes = Vec::new();
    for (name, tid) in [("seek", 0.0), ("receiveAudio", 4.0), ("deleteStream", 5.0), ("x", 6.0)] {
        command(&mut bytes, 3, 0, name, tid, &[Value::Null]);
    }
    command(&mut bytes, 3, 0, "pause", 7.0, &[Value::Null, Value::Boolean(true), number(0.0)]);
    assert_eq!(feed_server(&mut server, &bytes, 1), Ok(vec!["Pause(true)".to_owned()]));
    let result =
        |tid| (3, 20, 0, vec![text("_result"), number(tid), Value::Null, Value::Null], vec![]);
    let info = [
        ("level", "status"),
        ("code", "NetStream.Pause.Notify"),
        ("description", "Paused stream."),
    ];
    let expected = vec![
        result(4.0),
        result(5.0),
        result(6.0),
        (5, 20, 1, vec![text("onStatus"), number(0.0), Value::Null, object(&info)], vec![]),
        (2, 4, 0, vec![], vec![0, 1, 0, 0, 0, 1]),
    ];
    assert_eq!(sent(&mut server, 60_000), expected);
}

#[test]
fn calls_before_identification_are_answered_even_without_a_transaction() {
    let mut server = connected();
    let mut bytes = Vec::new();
    command(&mut bytes, 3, 0, "_checkbw", 0.0, &[Value::Null]);
    command(&mut bytes, 3, 0, "getStreamLength", 3.0, &[Value::Null, text("s")]);
    assert_eq!(feed_server(&mut server, &bytes, 1), Ok(vec![]));
    let result =
        |tid| (3, 20, 0, vec![text("_result"), number(tid), Value::Null, Value::Null], vec![]);
    assert_eq!(sent(&mut server, 60_000), [result(0.0), result(3.0)]);
}

#[test]
fn streams_are_created_three_times() {
    let mut server = connected();
    let mut bytes = Vec::new();
    for tid in [2.0, 3.0, 4.0] {
        command(&mut bytes, 3, 0, "createStream", tid, &[Value::Null]);
    }
    assert_eq!(feed_server(&mut server, &bytes, 9), Ok(vec![]));
    for (message, tid) in sent(&mut server, 60_000).iter().zip([2.0, 3.0, 4.0]) {
        assert_eq!(message.3, [text("_result"), number(tid), Value::Null, number(1.0)]);
    }
    let mut bytes = Vec::new();
    command(&mut bytes, 3, 0, "createStream", 5.0, &[Value::Null]);
    assert_eq!(feed_server(&mut server, &bytes, 9), Err(Limit::CreateStream.into()));
}

#[test]
fn before_connect_everything_else_is_passed_over() {
    let mut server = shaken();
    let mut bytes = Vec::new();
    command(&mut bytes, 3, 0, "createStream", 1.0, &[Value::Null]);
    chunk::write_message(&mut bytes, 128, 3, type_id::COMMAND_AMF0, 0, 0, b"\xff\xff");
    chunk::write_message(&mut bytes, 128, 6, type_id::VIDEO, 0, 1, &content(0, 5000));
    chunk::write_message(&mut bytes, 128, 4, type_id::DATA_AMF0, 0, 1, &metadata());
    assert_eq!(feed_server(&mut server, &bytes, 100), Ok(vec![]));
    assert!(server.output().is_empty());
    // AMF3 framing: one byte before the command.
    let mut payload = vec![0];
    put::string(&mut payload, "connect");
    put::number(&mut payload, 1.0);
    connect_object().put(&mut payload);
    let mut bytes = Vec::new();
    chunk::write_message(&mut bytes, 128, 3, type_id::COMMAND_AMF3, 0, 0, &payload);
    assert_eq!(feed_server(&mut server, &bytes, 100), Ok(vec!["connect rtmp://h/live".to_owned()]));
}

#[test]
fn connect_needs_a_tc_url() {
    for object in [object(&[("app", "live")]), Value::Null] {
        let mut bytes = Vec::new();
        command(&mut bytes, 3, 0, "connect", 1.0, &[object]);
        assert_eq!(feed_server(&mut shaken(), &bytes, usize::MAX), Err(Misbehaved::NoTcUrl.into()));
    }
}

#[test]
fn any_command_of_a_flash_publisher_ends_the_publish() {
    let mut server = publishing(PublishKind::Flash);
    let mut bytes = Vec::new();
    command(&mut bytes, 3, 0, "FCPublish", 8.0, &[Value::Null, text("s")]);
    command(&mut bytes, 3, 0, "closeStream", 0.0, &[Value::Null]);
    assert_eq!(feed_server(&mut server, &bytes, 3), Ok(vec!["Unpublish".to_owned()]));
    assert!(server.output().is_empty());
    let mut server = publishing(PublishKind::Flash);
    let mut bytes = Vec::new();
    command(&mut bytes, 3, 0, "createStream", 9.0, &[Value::Null]);
    command(&mut bytes, 5, 1, "publish", 0.0, &[Value::Null, text("t")]);
    assert_eq!(feed_server(&mut server, &bytes, 3).unwrap(), ["Unpublish", "publish Flash t"]);
    assert_eq!(sent(&mut server, 60_000)[0].3[1..], [number(9.0), Value::Null, number(1.0)]);
}

#[test]
fn an_fmle_publisher_may_begin_anew_without_ending() {
    let mut server = publishing(PublishKind::Fmle);
    let mut bytes = Vec::new();
    command(&mut bytes, 3, 0, "releaseStream", 8.0, &[Value::Null, text("t")]);
    command(&mut bytes, 3, 0, "createStream", 9.0, &[Value::Null]);
    command(&mut bytes, 5, 1, "publish", 0.0, &[Value::Null, text("t")]);
    assert_eq!(feed_server(&mut server, &bytes, 3).unwrap(), ["Unpublish", "publish Fmle t"]);
}

#[test]
fn data_messages() {
    let mut server = publishing(PublishKind::Fmle);
    let mut stored = Vec::new();
    put::string(&mut stored, "@setDataFrame");
    stored.extend_from_slice(&metadata());
    let amf3 = [&[0][..], &metadata()].concat();
    let mut other = Vec::new();
    put::string(&mut other, "onCuePoint");
    let mut bytes = Vec::new();
    for (type_id, payload) in [
        (type_id::DATA_AMF0, &stored),
        (type_id::DATA_AMF0, &metadata()),
        (type_id::DATA_AMF3, &amf3),
        (type_id::DATA_AMF0, &other),
        // FFmpeg's timecode track.
        (type_id::DATA_AMF0, &vec![0, 0, 0, 17]),
        (type_id::DATA_AMF0, &vec![2, 0xFF, 0xFF]),
    ] {
        chunk::write_message(&mut bytes, 128, 4, type_id, 5, 1, payload);
    }
    let expected = vec![format!("metadata 5 {:?}", hash(&metadata())); 3];
    for piece in [1, 64, usize::MAX] {
        assert_eq!(feed_server(&mut server, &bytes, piece).as_ref(), Ok(&expected));
    }
}

/// One part of an aggregate message.
fn part(out: &mut Vec<u8>, type_id: u8, time: u32, payload: &[u8]) {
    out.push(type_id);
    out.extend_from_slice(&(payload.len() as u32).to_be_bytes()[1..]);
    out.extend_from_slice(&time.to_be_bytes()[1..]);
    out.push(time.to_be_bytes()[0]);
    out.extend_from_slice(&[0, 0, 0]);
    out.extend_from_slice(payload);
    out.extend_from_slice(&(payload.len() as u32 + 11).to_be_bytes());
}

#[test]
fn aggregates_are_split_and_moved_in_time() {
    let mut parts = Vec::new();
    part(&mut parts, type_id::VIDEO, 0x0100_0000, b"video");
    part(&mut parts, type_id::AUDIO, 0x0100_0010, b"audio");
    part(&mut parts, type_id::DATA_AMF0, 0x0100_0010, b"data");
    part(&mut parts, type_id::AUDIO, 0x0100_0010, b"");
    part(&mut parts, type_id::VIDEO, 0x0100_0005, b"late");
    let mut bytes = Vec::new();
    chunk::write_message(&mut bytes, 128, 6, type_id::AGGREGATE, 1000, 1, &parts);
    chunk::write_message(&mut bytes, 128, 6, type_id::VIDEO, 1001, 1, b"next");
    let expected = [
        format!("Video 1000 {:?}", hash(b"video")),
        format!("Audio 1016 {:?}", hash(b"audio")),
        format!("Video 1005 {:?}", hash(b"late")),
        format!("Video 1001 {:?}", hash(b"next")),
    ];
    for piece in [1, 50, usize::MAX] {
        let mut server = publishing(PublishKind::Fmle);
        assert_eq!(feed_server(&mut server, &bytes, piece).unwrap(), expected);
    }
    for cut in 1..15 {
        let mut server = publishing(PublishKind::Fmle);
        let mut bytes = Vec::new();
        let parts = &parts[..parts.len() - cut];
        chunk::write_message(&mut bytes, 128, 6, type_id::AGGREGATE, 1000, 1, parts);
        assert_eq!(
            feed_server(&mut server, &bytes, usize::MAX),
            Err(Malformed::Aggregate.into()),
            "cut by {cut}"
        );
    }
}

fn control(out: &mut Vec<u8>, type_id: u8, payload: &[u8]) {
    chunk::write_message(out, 128, 2, type_id, 0, 0, payload);
}

#[test]
fn pings_are_answered_with_their_bytes() {
    let mut server = playing();
    let mut bytes = Vec::new();
    control(&mut bytes, type_id::USER_CONTROL, &[0, 6, 1, 2, 3, 4]);
    control(&mut bytes, type_id::USER_CONTROL, &[0, 3, 0, 0, 0, 1, 0, 0, 0x0b, 0xb8]);
    control(&mut bytes, type_id::ACK, &[0, 0, 0, 1]);
    control(&mut bytes, type_id::SET_PEER_BANDWIDTH, &[0, 0, 0, 1, 2]);
    for piece in [1, 2, usize::MAX] {
        assert_eq!(feed_server(&mut server, &bytes, piece), Ok(vec![]));
        assert_eq!(server.buffer_ms(), Some(3000));
        assert_eq!(sent(&mut server, 60_000), [(2, 4, 0, vec![], vec![0, 7, 1, 2, 3, 4])]);
    }
}

#[test]
fn received_bytes_are_acknowledged_at_half_of_the_window() {
    let mut server = publishing(PublishKind::Fmle);
    let mut bytes = Vec::new();
    control(&mut bytes, type_id::WINDOW_ACK_SIZE, &4000u32.to_be_bytes());
    feed_server(&mut server, &bytes, usize::MAX).unwrap();
    let first = sent(&mut server, 60_000);
    assert_eq!(first.len(), 1, "the handshake alone is more than half of it");
    let base = u32::from_be_bytes(first[0].4[..].try_into().unwrap());
    assert!(base > 3073);
    let message = |out: &mut Vec<u8>, len: usize| {
        chunk::write_message(out, 128, 6, type_id::VIDEO, 0, 1, &vec![0; len - 12])
    };
    let mut bytes = Vec::new();
    message(&mut bytes, 100);
    for _ in 0..19 {
        feed_server(&mut server, &bytes, usize::MAX).unwrap();
    }
    assert!(server.output().is_empty());
    feed_server(&mut server, &bytes, usize::MAX).unwrap();
    let ack = sent(&mut server, 60_000);
    assert_eq!(ack, [(2, 3, 0, vec![], (base + 2000).to_be_bytes().to_vec())]);
    // A window of zero is no window.
    let mut bytes = Vec::new();
    control(&mut bytes, type_id::WINDOW_ACK_SIZE, &0u32.to_be_bytes());
    assert_eq!(feed_server(&mut server, &bytes, usize::MAX), Ok(vec![]));
}

#[test]
fn a_configured_window_does_not_wait_for_the_client() {
    let mut options = server_options();
    options.in_ack_size = 2000;
    let mut server = Server::new(options);
    let mut bytes = vec![3];
    bytes.extend_from_slice(&[0; 2 * 1536]);
    command(&mut bytes, 3, 0, "x", 1.0, &[]);
    feed_server(&mut server, &bytes, usize::MAX).unwrap();
    let len = bytes.len() as u32;
    assert_eq!(server.output()[3073..][12..], len.to_be_bytes());
}

#[test]
fn chunk_sizes_outside_of_the_range_end_the_connection() {
    for size in [0, 1, 127, CHUNK_SIZE_MAX + 1, 0x7FFF_FFFF, 0x8000_0000, 0x8000_0080, u32::MAX] {
        let mut bytes = Vec::new();
        control(&mut bytes, type_id::SET_CHUNK_SIZE, &size.to_be_bytes());
        let error = feed_server(&mut connected(), &bytes, usize::MAX).unwrap_err();
        assert_eq!(error, Misbehaved::ChunkSize(size).into());
        assert_eq!(error.reason(), "misbehaved_chunk_size");
    }
    for size in [128, 65_536, 65_537, CHUNK_SIZE_MAX] {
        let mut server = publishing(PublishKind::Fmle);
        let mut bytes = Vec::new();
        control(&mut bytes, type_id::SET_CHUNK_SIZE, &size.to_be_bytes());
        let video = content(4, 200_000);
        chunk::write_message(&mut bytes, size, 6, type_id::VIDEO, 0, 1, &video);
        let events = feed_server(&mut server, &bytes, 1400).unwrap();
        assert_eq!(events, [format!("Video 0 {:?}", hash(&video))]);
    }
}

#[test]
fn short_control_messages_are_malformed() {
    for (type_id, payload) in [
        (type_id::SET_CHUNK_SIZE, &[0, 0, 1][..]),
        (type_id::ABORT, &[0]),
        (type_id::WINDOW_ACK_SIZE, &[0, 0, 1]),
        (type_id::USER_CONTROL, &[0]),
        (type_id::USER_CONTROL, &[0, 6, 1, 2, 3]),
    ] {
        let mut bytes = Vec::new();
        control(&mut bytes, type_id, payload);
        assert_eq!(
            feed_server(&mut connected(), &bytes, usize::MAX),
            Err(Malformed::Control(type_id).into())
        );
    }
}

#[test]
fn an_aborted_message_is_forgotten() {
    let mut server = publishing(PublishKind::Fmle);
    let mut bytes = Vec::new();
    let head = chunk::message_head(6, type_id::VIDEO, 10, 300, 1);
    bytes.extend_from_slice(head.as_bytes());
    bytes.extend_from_slice(&[0xAA; 128]);
    control(&mut bytes, type_id::ABORT, &6u32.to_be_bytes());
    control(&mut bytes, type_id::ABORT, &77u32.to_be_bytes());
    chunk::write_message(&mut bytes, 128, 6, type_id::VIDEO, 20, 1, &content(5, 300));
    for piece in [1, usize::MAX] {
        let events = feed_server(&mut server, &bytes, piece).unwrap();
        assert_eq!(events, [format!("Video 20 {:?}", hash(&content(5, 300)))]);
    }
}

#[test]
fn long_messages_on_many_chunk_streams_are_stopped() {
    let mut server = publishing(PublishKind::Fmle);
    let mut bytes = Vec::new();
    control(&mut bytes, type_id::SET_CHUNK_SIZE, &0x10_0000u32.to_be_bytes());
    feed_server(&mut server, &bytes, usize::MAX).unwrap();
    // Each declares 16 MB and sends 1 MB.
    let filling = vec![0; 0x10_0000];
    let mut taken = 0;
    let error = (10..64u8).find_map(|csid| {
        let mut bytes =
            chunk::message_head(csid, type_id::VIDEO, 0, 0xFF_FFFF, 1).as_bytes().to_vec();
        bytes.extend_from_slice(&filling);
        taken += filling.len();
        feed_server(&mut server, &bytes, 65_536).err()
    });
    assert_eq!(error, Some(Limit::Partial.into()));
    assert!(taken <= RTMP_PARTIAL_MAX + filling.len());

    // Declaring alone costs nothing but a place in the table, which is small.
    let mut server = publishing(PublishKind::Fmle);
    let mut error = None;
    for csid in 64..65_599u32 {
        let [low, high] = ((csid - 64) as u16).to_le_bytes();
        let mut bytes = vec![1, low, high];
        bytes.extend_from_slice(&[0, 0, 0, 0xFF, 0xFF, 0xFF, 9, 1, 0, 0, 0, 0xAA]);
        bytes.extend_from_slice(&[0; 127]);
        error = feed_server(&mut server, &bytes, usize::MAX).err();
        if error.is_some() {
            break;
        }
    }
    assert_eq!(error, Some(Limit::ChunkStreams.into()));
}

#[test]
fn long_commands_are_stopped_at_their_header() {
    for (type_id, len) in [(20, 65_537), (17, 65_537), (4, 65_537), (19, 65_537)] {
        let bytes = chunk::message_head(3, type_id, 0, len, 0);
        assert_eq!(
            feed_server(&mut connected(), bytes.as_bytes(), usize::MAX),
            Err(Limit::Message(type_id, len).into())
        );
    }
    let bytes = chunk::message_head(3, type_id::DATA_AMF0, 0, 0x10_0001, 0);
    let mut server = publishing(PublishKind::Fmle);
    assert_eq!(
        feed_server(&mut server, bytes.as_bytes(), usize::MAX),
        Err(Limit::Message(18, 0x10_0001).into())
    );
    assert_eq!(feed_server(&mut connected(), bytes.as_bytes(), usize::MAX), Ok(vec![]));
}

#[test]
fn media_of_those_who_do_not_publish_is_not_stored() {
    for mut server in [shaken(), connected(), playing()] {
        for csid in 10..40 {
            let head = chunk::message_head(csid, type_id::VIDEO, 0, 0xFF_FFFF, 1);
            let mut bytes = head.as_bytes().to_vec();
            bytes.extend_from_slice(&[0; 128]);
            for _ in 0..8000 {
                bytes.push(0xC0 | csid);
                bytes.extend_from_slice(&[0; 128]);
            }
            // 30 MB in all: more than the limit of what may be stored.
            assert_eq!(feed_server(&mut server, &bytes, usize::MAX), Ok(vec![]));
        }
    }
}

#[test]
fn hostile_amf_is_an_error_and_nothing_more() {
    let deep = |marker: &[u8], count: usize| {
        let mut payload = Vec::new();
        put::string(&mut payload, "connect");
        put::number(&mut payload, 1.0);
        for _ in 0..count {
            payload.extend_from_slice(marker);
        }
        payload
    };
    for payload in [
        deep(b"\x03\0\x01a", 10_000),
        deep(b"\x08\0\0\0\x01\0\x01a", 8000),
        deep(b"\x03\0\x01a\x0a\xff\xff\xff\xff", 5000),
        deep(b"\x03\0\xff", 1),
        deep(b"\x03\0\x05tcUrl\x02\xff\xff", 1),
        deep(b"\x03\0\x05tcUrl\x0c\xff\xff\xff\xff", 1),
        deep(b"\x03\0\x05tcUrl\x07\0\0", 1),
        deep(b"\x03\0\x05tcUrl\x11\x0a", 1),
    ] {
        let mut bytes = Vec::new();
        chunk::write_message(&mut bytes, 128, 3, type_id::COMMAND_AMF0, 0, 0, &payload);
        let error = feed_server(&mut shaken(), &bytes, usize::MAX).unwrap_err();
        assert_eq!(error.reason(), "malformed_command");
        let error = feed_server(&mut connected(), &bytes, usize::MAX).unwrap_err();
        assert_eq!(error.reason(), "malformed_command");
    }
}

#[test]
fn long_strings_are_not_kept() {
    let long = "x".repeat(60_000);
    let mut bytes = Vec::new();
    command(&mut bytes, 3, 0, "connect", 1.0, &[object(&[("tcUrl", &long)])]);
    assert_eq!(feed_server(&mut shaken(), &bytes, usize::MAX), Err(Limit::String(60_000).into()));
    for name in ["publish", "play", "releaseStream", "FCPublish"] {
        let mut bytes = Vec::new();
        command(&mut bytes, 5, 1, name, 1.0, &[Value::Null, text(&long)]);
        assert_eq!(
            feed_server(&mut connected(), &bytes, usize::MAX),
            Err(Limit::String(60_000).into())
        );
    }
}

#[test]
fn a_stream_name_that_is_not_utf_8_cannot_pass_the_grammar() {
    let mut payload = Vec::new();
    put::string(&mut payload, "play");
    put::number(&mut payload, 0.0);
    // An overlong slash.
    payload.extend_from_slice(b"\x05\x02\0\x04a\xc0\xafb");
    let mut bytes = Vec::new();
    chunk::write_message(&mut bytes, 128, 5, type_id::COMMAND_AMF0, 0, 1, &payload);
    let events = feed_server(&mut connected(), &bytes, usize::MAX).unwrap();
    let stream = events[0].strip_prefix("play ").unwrap();
    let url = super::url::Url::parse("rtmp://h/live", stream).unwrap();
    assert!(url.name("h").is_err());
}

#[test]
fn replies_that_nobody_reads_end_the_connection() {
    let mut server = connected();
    let mut bytes = Vec::new();
    command(&mut bytes, 3, 0, "x", 1.0, &[]);
    let rounds = RTMP_REPLIES_MAX / 30;
    let error = (0..rounds).find_map(|_| feed_server(&mut server, &bytes, usize::MAX).err());
    assert_eq!(error, Some(Limit::Replies.into()));
    // Pings are dropped instead: a player gets its pongs between messages only.
    let mut server = playing();
    let mut bytes = Vec::new();
    control(&mut bytes, type_id::USER_CONTROL, &[0, 6, 1, 2, 3, 4]);
    for _ in 0..rounds {
        assert_eq!(feed_server(&mut server, &bytes, usize::MAX), Ok(vec![]));
    }
    assert!(server.output().len() < RTMP_REPLIES_MAX + 64);
}

#[test]
fn timestamps_pass_as_they_are() {
    let mut server = publishing(PublishKind::Fmle);
    let mut bytes = Vec::new();
    let times = [0, 86_400_000, 82_800_000, 0x7FFF_FFFF, 0, 0, 0xFF_FFFE, 0xFF_FFFF, 0x100_0000];
    for time in times {
        chunk::write_message(&mut bytes, 128, 6, type_id::VIDEO, time, 1, &content(1, 500));
    }
    chunk::write_message(&mut bytes, 128, 6, type_id::VIDEO, u32::MAX, 1, &content(1, 500));
    let expected = times.iter().chain(&[0x7FFF_FFFF]);
    let expected: Vec<_> =
        expected.map(|time| format!("Video {time} {:?}", hash(&content(1, 500)))).collect();
    for piece in [1, 13, usize::MAX] {
        assert_eq!(feed_server(&mut server, &bytes, piece).unwrap(), expected);
    }
}

#[test]
fn every_split_of_a_publish_gives_the_same_events_and_replies() {
    let mut bytes = vec![3];
    bytes.extend_from_slice(&[0; 2 * 1536]);
    command(&mut bytes, 3, 0, "connect", 1.0, &[connect_object()]);
    command(&mut bytes, 3, 0, "releaseStream", 2.0, &[Value::Null, text("s")]);
    command(&mut bytes, 3, 0, "createStream", 3.0, &[Value::Null]);
    command(&mut bytes, 5, 1, "publish", 4.0, &[Value::Null, text("s"), text("live")]);
    control(&mut bytes, type_id::SET_CHUNK_SIZE, &256u32.to_be_bytes());
    for (time, len) in [(0xFF_FFFF, 600), (5, 1), (0x7654_3210, 513)] {
        chunk::write_message(&mut bytes, 256, 6, type_id::VIDEO, time, 1, &content(8, len));
    }
    command(&mut bytes, 3, 0, "FCUnpublish", 5.0, &[Value::Null, text("s")]);
    let run = |split: usize| {
        let mut server = Server::new(server_options());
        let mut events = feed_server(&mut server, &bytes[..split], usize::MAX).unwrap();
        events.extend(feed_server(&mut server, &bytes[split..], usize::MAX).unwrap());
        (events, std::mem::take(server.output()))
    };
    let whole = run(0);
    assert_eq!(whole.0.len(), 6);
    for split in 1..bytes.len() {
        assert_eq!(run(split), whole, "split at {split}");
    }
}

#[test]
fn a_message_in_one_piece_is_lent_not_copied() {
    let mut server = publishing(PublishKind::Fmle);
    let mut bytes = Vec::new();
    control(&mut bytes, type_id::SET_CHUNK_SIZE, &60_000u32.to_be_bytes());
    chunk::write_message(&mut bytes, 60_000, 6, type_id::VIDEO, 1, 1, &content(1, 50_000));
    chunk::write_message(&mut bytes, 60_000, 7, type_id::AUDIO, 1, 1, &content(2, 300));
    let mut input = &bytes[..];
    let within = bytes.as_ptr_range();
    let mut count = 0;
    while let Some(event) = server.poll(&mut input).unwrap() {
        let server::Event::Message(message) = event else { panic!("{event:?}") };
        assert!(within.contains(&message.payload.as_ptr()));
        count += 1;
    }
    assert_eq!(count, 2);
}

#[test]
fn large_buffers_are_given_back() {
    let mut joiner = Joiner::new();
    for len in [10_000_000, 100] {
        let mut bytes = Vec::new();
        chunk::write_message(&mut bytes, 128, 6, type_id::VIDEO, 0, 1, &vec![0; len]);
        let mut input = &bytes[..];
        assert!(
            joiner
                .next(&mut input)
                .unwrap()
                .is_some_and(|joined| { (joined.payload == Payload::Assembled) == (len > 128) })
        );
        assert_eq!(joiner.next(&mut input), Ok(None));
        assert!(joiner.memory() <= 2 * crate::limits::RTMP_KEPT_BUFFER_MAX);
    }
}

/// A client that has shaken hands and sent `connect`.
fn client_connecting(role: Role) -> Client {
    let mut client = Client::new(client_options(role));
    let mut hands = vec![3];
    hands.extend_from_slice(&[0; 2 * 1536]);
    assert_eq!(feed_client(&mut client, &hands, 100), [""; 0]);
    client
}

/// What a client has sent, by the names of its commands.
fn calls(client: &mut Client, chunk_size: u32) -> Vec<(String, u32)> {
    let mut server = Server::new(server_options());
    *server.output() = std::mem::take(client.output());
    let messages = sent(&mut server, chunk_size).into_iter();
    let commands = messages.filter(|message| message.1 == type_id::COMMAND_AMF0);
    commands.map(|message| (message.3[0].as_text().unwrap().to_owned(), message.2)).collect()
}

#[test]
fn the_client_copes_with_unusual_servers() {
    let mut client = client_connecting(Role::Play);
    client.output().drain(..2 * 1536 + 1);
    assert_eq!(calls(&mut client, 128), [("connect".to_owned(), 0)]);
    let mut bytes = Vec::new();
    control(&mut bytes, type_id::SET_CHUNK_SIZE, &7u32.to_be_bytes());
    let mut result = vec![0];
    put::string(&mut result, "_result");
    put::number(&mut result, 1.0);
    put::null(&mut result);
    chunk::write_message(&mut bytes, 7, 3, type_id::COMMAND_AMF3, 0, 0, &result);
    assert_eq!(feed_client(&mut client, &bytes, 3), [""; 0]);
    assert_eq!(calls(&mut client, 128), [("createStream".to_owned(), 0)]);

    // Message stream 5, an announcement nobody asked for, and media before the status.
    let mut bytes = Vec::new();
    let write = |bytes: &mut Vec<u8>, name: &str, tid: f64, arguments: &[Value]| {
        let mut payload = Vec::new();
        put::string(&mut payload, name);
        put::number(&mut payload, tid);
        arguments.iter().for_each(|argument| argument.put(&mut payload));
        chunk::write_message(bytes, 7, 3, type_id::COMMAND_AMF0, 0, 0, &payload);
    };
    write(&mut bytes, "onBWDone", 0.0, &[Value::Null, number(8192.0)]);
    write(&mut bytes, "_result", 2.0, &[Value::Null, number(5.0)]);
    assert_eq!(feed_client(&mut client, &bytes, 3), [""; 0]);
    assert_eq!(calls(&mut client, 4096), [("play".to_owned(), 5)]);
    let mut bytes = Vec::new();
    chunk::write_message(&mut bytes, 7, 6, type_id::VIDEO, 40, 5, b"video one");
    chunk::write_message(&mut bytes, 7, 6, type_id::VIDEO, 80, 5, b"video two");
    write(&mut bytes, "onStatus", 0.0, &[Value::Null, object(&[("code", "NetStream.Play.Start")])]);
    let expected = [
        "Playing".to_owned(),
        format!("Video 40 {:?}", hash(b"video one")),
        format!("Video 80 {:?}", hash(b"video two")),
        "status NetStream.Play.Start".to_owned(),
    ];
    assert_eq!(feed_client(&mut client, &bytes, 11), expected);
}

#[test]
fn the_client_tells_refusals_apart() {
    let error = |name: &str, tid, code: &str| {
        let mut bytes = Vec::new();
        let info = object(&[("level", "error"), ("code", code), ("description", "no")]);
        command(&mut bytes, 3, 0, name, tid, &[Value::Null, info]);
        bytes
    };
    let rejected = "NetConnection.Connect.Rejected";
    let mut client = client_connecting(Role::Publish);
    let events = feed_client(&mut client, &error("_error", 1.0, rejected), 9);
    assert_eq!(events, [format!("refused {rejected}")]);

    let mut client = client_connecting(Role::Publish);
    let mut bytes = Vec::new();
    command(&mut bytes, 3, 0, "_result", 1.0, &[Value::Null, Value::Null]);
    // The server knows no releaseStream; that refuses nothing.
    bytes.extend(error("_error", 2.0, "NetConnection.Call.Failed"));
    command(&mut bytes, 3, 0, "_result", 4.0, &[Value::Null, number(1.0)]);
    bytes.extend(error("onStatus", 0.0, "NetStream.Publish.BadName"));
    assert_eq!(feed_client(&mut client, &bytes, 9), ["refused NetStream.Publish.BadName"]);
    assert!(!client.is_running());
}

#[test]
fn the_client_answers_pings_and_acknowledges() {
    let mut client = client_connecting(Role::Play);
    client.output().clear();
    let mut bytes = Vec::new();
    control(&mut bytes, type_id::WINDOW_ACK_SIZE, &100_000u32.to_be_bytes());
    control(&mut bytes, type_id::USER_CONTROL, &[0, 6, 9, 9, 9, 9]);
    feed_client(&mut client, &bytes, 9);
    assert_eq!(client.output()[12..], [0, 7, 9, 9, 9, 9]);
    client.output().clear();
    let mut bytes = Vec::new();
    chunk::write_message(&mut bytes, 128, 6, type_id::VIDEO, 0, 1, &[0; 50_000]);
    feed_client(&mut client, &bytes, 1000);
    assert_eq!(client.output()[7], type_id::ACK);
}

proptest::proptest! {
    #[test]
    fn any_bytes_are_served_or_refused(
        bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..3000),
        csid in 2u8..10,
        type_id in 1u8..23,
        piece in 1usize..500,
    ) {
        // Once as chunks, once as the content of a message.
        let mut message = Vec::new();
        chunk::write_message(&mut message, 128, csid, type_id, 5, 1, &bytes);
        for bytes in [&bytes, &message] {
            for mut server in [shaken(), connected(), publishing(PublishKind::Flash), playing()] {
                let whole = feed_server(&mut server, bytes, usize::MAX);
                proptest::prop_assert!(server.output().len() < 100_000);
                drop(whole);
            }
            let pieces = feed_server(&mut publishing(PublishKind::Fmle), bytes, piece);
            let whole = feed_server(&mut publishing(PublishKind::Fmle), bytes, usize::MAX);
            proptest::prop_assert_eq!(pieces, whole);
        }
    }
}
