//! RTMP: chunks, both ends of a connection, AMF0, metadata.

use ringcast::limits::{AMF_ELEMENTS_MAX, RTMP_KEPT_BUFFER_MAX, RTMP_PARTIAL_MAX};
use ringcast::proto::amf0::Reader;
use ringcast::proto::rtmp::chunk::{Joiner, Payload};
use ringcast::proto::rtmp::client::{self, Client, ClientOptions, HandshakeKind, Role};
use ringcast::proto::rtmp::server::{self, PublishKind, Server, ServerOptions};

use super::{byte, pieces};

type Seen = (u32, u8, u32, u32, Vec<u8>);

fn join(seed: u8, keep: bool, data: &[u8]) -> (Vec<Seen>, Option<String>) {
    let mut joiner = Joiner::new();
    joiner.set_keep_media(keep);
    let mut seen = Vec::new();
    let mut received = 0;
    for piece in pieces(seed, data) {
        let mut input = piece;
        received += piece.len();
        loop {
            let joined = match joiner.next(&mut input) {
                Ok(Some(joined)) => joined,
                Ok(None) => break,
                Err(error) => return (seen, Some(error.to_string())),
            };
            let payload = match joined.payload {
                Payload::Borrowed(bytes) => bytes,
                Payload::Assembled => joiner.assembled(),
            };
            assert!(!payload.is_empty());
            assert!((2..=65_599).contains(&joined.csid));
            assert!(joined.timestamp <= 0x7fff_ffff);
            let payload = payload.to_vec();
            if joined.type_id == 1 && payload.len() >= 4 {
                let size = u32::from_be_bytes([payload[0], payload[1], payload[2], payload[3]]);
                joiner.set_chunk_size((size & 0xff_ffff).max(1));
            }
            if joined.type_id == 2 && payload.len() >= 4 {
                joiner.abort(u32::from_be_bytes([payload[0], payload[1], payload[2], payload[3]]));
            }
            seen.push((
                joined.csid,
                joined.type_id,
                joined.timestamp,
                joined.message_stream_id,
                payload,
            ));
        }
        assert!(input.is_empty(), "everything is consumed when more is needed");
        // Memory grows with what has come, whatever was declared.
        let memory = joiner.memory();
        assert!(memory <= RTMP_PARTIAL_MAX * 2 + 4 * RTMP_KEPT_BUFFER_MAX, "{memory}");
        assert!(memory <= 4 * received + 65_536, "{memory} bytes of memory for {received}");
    }
    (seen, None)
}

/// Chunks to messages.
pub fn joiner(data: &[u8]) {
    let mut data = data;
    let seed = byte(&mut data);
    let keep = seed & 0x80 == 0;
    let whole = join(0, keep, data);
    let cut = join(seed | 1, keep, data);
    assert_eq!(whole, cut);
}

/// The first bytes of a client: plain handshake, connect, createStream, and publish or play.
fn opening(mode: u8) -> Vec<u8> {
    if mode == 0 {
        return Vec::new();
    }
    let mut bytes = vec![3; 1 + 1536 + 1536];
    bytes[5..9].fill(0);
    if mode == 1 {
        return bytes;
    }
    let role = if mode == 2 { Role::Publish } else { Role::Play };
    let commands = recorded_commands(role);
    bytes.extend_from_slice(&commands);
    bytes
}

/// What our own client says after the handshake, up to publish or play.
pub fn recorded_commands(role: Role) -> Vec<u8> {
    let mut client = Client::new(client_options(role));
    let mut server = Server::new(server_options());
    let mut said = Vec::new();
    let mut to_client = Vec::new();
    for _ in 0..16 {
        let mut answer = &to_client[..];
        while let Ok(Some(_)) = client.poll(&mut answer) {}
        let sent = std::mem::take(client.output());
        said.extend_from_slice(&sent);
        let mut input = &sent[..];
        loop {
            match server.poll(&mut input) {
                Ok(Some(server::Event::Publish(_))) => server.accept_publish(),
                Ok(Some(server::Event::Play(_))) => server.accept_play(),
                Ok(Some(_)) => {}
                _ => break,
            }
        }
        to_client = std::mem::take(server.output());
    }
    said.split_off(1 + 1536 + 1536)
}

fn client_options(role: Role) -> ClientOptions {
    ClientOptions {
        tc_url: "rtmp://localhost/live".into(),
        app: "live".into(),
        stream: "fuzz".into(),
        role,
        chunk_size: 4096,
        flash_ver: "fuzz".into(),
        page_url: None,
        handshake: HandshakeKind::Simple,
        publish_sequence: PublishKind::Fmle,
        seed: 1,
    }
}

fn server_options() -> ServerOptions {
    ServerOptions {
        chunk_size: 60_000,
        out_ack_size: 2_500_000,
        in_ack_size: 0,
        server_ip: [127, 0, 0, 1].into(),
        session_id: "fuzzfuzz".into(),
        pid: 1,
        epoch_ms: 0,
        seed: 1,
    }
}

fn serve(seed: u8, opening: &[u8], data: &[u8]) -> Vec<String> {
    let mut server = Server::new(server_options());
    let mut seen = Vec::new();
    let mut replies = 0;
    for piece in [opening].into_iter().chain(pieces(seed, data)) {
        let mut input = piece;
        loop {
            let mut accept = None;
            match server.poll(&mut input) {
                Ok(Some(event)) => {
                    match &event {
                        server::Event::Publish(_) => accept = Some(Role::Publish),
                        server::Event::Play(_) => accept = Some(Role::Play),
                        _ => {}
                    }
                    seen.push(format!("{event:?}"));
                }
                Ok(None) => break,
                Err(error) => {
                    seen.push(format!("{error} ({})", error.reason()));
                    return seen;
                }
            }
            match accept {
                Some(Role::Publish) => server.accept_publish(),
                Some(Role::Play) => server.accept_play(),
                None => {}
            }
        }
        assert!(input.is_empty());
        replies += server.output().len();
        server.output().clear();
    }
    // Whatever is asked, answers are no amplifier.
    assert!(replies <= 8192 + 40 * (opening.len() + data.len()), "{replies} bytes of replies");
    seen
}

/// The server's end, from the first byte, behind the handshake, while publishing, while playing.
pub fn server(data: &[u8]) {
    let mut data = data;
    let (mode, seed) = (byte(&mut data) & 3, byte(&mut data));
    let opening = opening(mode);
    let whole = serve(0, &opening, data);
    let cut = serve(seed | 1, &opening, data);
    assert_eq!(whole, cut);
}

fn call(seed: u8, role: Role, opening: &[u8], data: &[u8]) -> Vec<String> {
    let mut client = Client::new(client_options(role));
    let mut seen = Vec::new();
    for piece in [opening].into_iter().chain(pieces(seed, data)) {
        let mut input = piece;
        loop {
            match client.poll(&mut input) {
                Ok(Some(client::Event::Refused { code, .. })) => {
                    seen.push(code);
                    client.reopen("again");
                }
                Ok(Some(event)) => seen.push(format!("{event:?}")),
                Ok(None) => break,
                Err(error) => {
                    seen.push(error.to_string());
                    return seen;
                }
            }
        }
        assert!(input.is_empty());
        client.output().clear();
    }
    seen
}

/// The client's end, from the first byte or behind the handshake.
pub fn client(data: &[u8]) {
    let mut data = data;
    let (mode, seed) = (byte(&mut data), byte(&mut data));
    let role = if mode & 1 == 0 { Role::Play } else { Role::Publish };
    let opening = if mode & 2 == 0 { Vec::new() } else { vec![3; 1 + 1536 + 1536] };
    let whole = call(0, role, &opening, data);
    let cut = call(seed | 1, role, &opening, data);
    assert_eq!(whole, cut);
}

/// AMF0 values: reading and skipping agree, and what is written again reads the same.
pub fn amf0(data: &[u8]) {
    let mut reader = Reader::new(data);
    let mut values = 0;
    while !reader.is_empty() {
        let before = reader.rest();
        let mut skipper = Reader::new(before);
        let skipped = skipper.skip();
        let Ok(value) = reader.value() else { break };
        let skipped = skipped.expect("what can be read can be skipped");
        assert_eq!(skipped.len(), before.len() - reader.rest().len());
        let mut again = Vec::new();
        value.put(&mut again);
        let mut reread = Reader::new(&again);
        let same = reread.value().expect("what we write can be read");
        let mut third = Vec::new();
        same.put(&mut third);
        assert_eq!(again, third);
        assert!(reread.is_empty());
        values += 1;
        assert!(values <= AMF_ELEMENTS_MAX.max(data.len() as u32));
    }
    let mut reader = Reader::new(data);
    let _ = reader.string();
    if reader.open_object().is_ok() {
        while let Ok(Some(_)) = reader.property_key() {
            if reader.skip().is_err() {
                break;
            }
        }
    }
}

/// onMetaData as it is rewritten for players.
pub fn metadata(data: &[u8]) {
    use ringcast::proto::rtmp::metadata::rewrite;
    if let Ok(once) = rewrite(data, "ringcast", "1") {
        assert!(once.len() <= data.len() + 256, "{} from {}", once.len(), data.len());
        // Only what begins like metadata ever gets here.
        if matches!(Reader::new(data).string().as_deref(), Ok("onMetaData")) {
            let twice = rewrite(&once, "ringcast", "1").expect("our own metadata can be read");
            assert_eq!(once, twice);
        }
    }
}
