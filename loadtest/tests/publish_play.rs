//! ffmpeg publishes a file; ffprobe plays it by RTMP and HTTP-FLV. Every packet that a player gets
//! is the published one, byte for byte, in order, with its timestamps.

mod common;

use std::thread;
use std::time::Duration;

use common::media::{self, Media};
use common::packets;
use common::server::Server;

const STREAM: &str = "live/e2e";

/// Players leave when nothing arrives for this long (microseconds).
const READ_TIMEOUT: [&str; 2] = ["-rw_timeout", "4000000"];

/// A player that waited for a stream of audio alone starts with one of its first packets: a few
/// are published at once when the publisher connects.
const AUDIO_START: usize = 20;

fn players_get_what_was_published(medium: Media) {
    let file = medium.file();
    let published = packets::of_file(&media::as_published(&file));
    // Players are spread over shards by the kernel, which hashes their ports: of eight players
    // all on the publisher's shard there is one chance in 256. Without hold, so that they end.
    let server = Server::start(&["shards=2", "vhost.publish.hold=0"]);

    let early = packets::list(&READ_TIMEOUT, &server.rtmp(STREAM));
    thread::sleep(Duration::from_millis(500));
    let publisher = media::publish(&file, &server.rtmp(STREAM));
    server.wait_for_stream(STREAM);
    let mut players = Vec::new();
    for round in 0..2 {
        for (protocol, url) in [("RTMP", server.rtmp(STREAM)), ("FLV", server.flv(STREAM))] {
            for number in 0..2 {
                let who = format!("{medium:?}, {protocol} player {number} of round {round}");
                players.push((who, packets::list(&READ_TIMEOUT, &url)));
            }
        }
        // The second round joins in the middle of the stream.
        thread::sleep(Duration::from_millis(1700));
    }
    publisher.finish(Duration::from_secs(30)).expect_success("the publisher");

    let early = packets::finish(early, Duration::from_secs(30));
    let who = format!("{medium:?}, RTMP player before the publisher");
    let start = packets::assert_is_tail(&who, &early, &published);
    // The first keyframe, which audio may precede; of audio alone, what is there when the word of
    // the new stream has come to the player's shard.
    let first_key = published.iter().position(|packet| packet.key && packet.kind == "video");
    assert!(start <= first_key.unwrap_or(AUDIO_START), "{who}: starts with packet {start}");
    let mut starts = Vec::new();
    for (who, player) in players {
        let got = packets::finish(player, Duration::from_secs(30));
        starts.push(packets::assert_is_tail(&who, &got, &published));
    }
    let last = *starts.last().expect("players");
    assert!(last > 0, "{medium:?}: the last player did not join in the middle: {starts:?}");
    server.stop();
}

#[test]
fn h264_with_b_frames_and_aac() {
    players_get_what_was_published(Media::AvcBFramesAac);
}

#[test]
fn h264_without_b_frames_and_aac() {
    players_get_what_was_published(Media::AvcAac);
}

#[test]
fn audio_only() {
    players_get_what_was_published(Media::AacOnly);
}

#[test]
fn video_only() {
    players_get_what_was_published(Media::AvcOnly);
}

#[test]
fn h264_and_mp3() {
    players_get_what_was_published(Media::AvcMp3);
}
