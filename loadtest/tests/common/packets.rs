//! Lists of packets as ffprobe sees them, and what may differ between two of them: nothing.

use std::process::Command;
use std::time::Duration;

use super::process::Process;

/// One packet: everything a player can notice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// `video` or `audio`.
    pub kind: String,
    /// Presentation time, milliseconds.
    pub pts: Option<i64>,
    /// Decoding time, milliseconds.
    pub dts: Option<i64>,
    /// Bytes.
    pub size: usize,
    /// A keyframe (every audio packet is one).
    pub key: bool,
    /// SHA-256 of the payload, hexadecimal.
    pub hash: String,
}

/// Starts to list the packets of a file or URL. `args` go before the input.
pub fn list(args: &[&str], input: &str) -> Process {
    let mut command = Command::new("ffprobe");
    command
        .args(["-v", "error", "-show_packets", "-show_data_hash", "sha256"])
        .args(["-show_entries", "packet=codec_type,pts,dts,size,flags,data_hash"])
        .args(["-of", "compact=p=0"])
        .args(args)
        .arg(input);
    Process::start(&format!("ffprobe {input}"), &mut command)
}

/// The list when ffprobe has ended. A stream that just stops is an end, too: a player of RTMP
/// stays connected after the publisher has left, and ffprobe gives up after its read time-out.
pub fn finish(process: Process, limit: Duration) -> Vec<Packet> {
    let mut lines: Vec<String> = Vec::new();
    for line in process.finish(limit).stdout {
        match lines.last_mut() {
            // ffprobe breaks the line of a packet with side data (a new sequence header) in two.
            Some(open) if line.starts_with('|') => open.push_str(&line),
            _ if line.is_empty() => {}
            _ => lines.push(line),
        }
    }
    lines.iter().map(|line| parse(line)).collect()
}

/// All packets of a file.
pub fn of_file(path: &std::path::Path) -> Vec<Packet> {
    let packets = finish(list(&[], path.to_str().expect("UTF-8 path")), Duration::from_secs(30));
    assert!(packets.len() > 50, "{path:?} has only {} packets", packets.len());
    packets
}

fn parse(line: &str) -> Packet {
    let field = |name: &str| {
        let found = line.split('|').filter_map(|field| field.split_once('='));
        found.into_iter().find(|(key, _)| *key == name).map_or("", |(_, value)| value)
    };
    Packet {
        kind: field("codec_type").to_owned(),
        pts: field("pts").parse().ok(),
        dts: field("dts").parse().ok(),
        size: field("size").parse().unwrap_or_else(|_| panic!("no size in {line:?}")),
        key: field("flags").starts_with('K'),
        hash: field("data_hash").trim_start_matches("SHA256:").to_owned(),
    }
}

/// Fails unless `got` is `published` from some packet on, to its last packet, with nothing added,
/// left out, swapped or changed, and with a keyframe (or audio of a stream without video) first.
/// Returns how many packets of the stream came before.
pub fn assert_is_tail(who: &str, got: &[Packet], published: &[Packet]) -> usize {
    let first = got.first().unwrap_or_else(|| panic!("{who}: no packet at all"));
    assert!(first.key, "{who}: starts with {first:?}, which is no keyframe");
    let has_video = published.iter().any(|packet| packet.kind == "video");
    if has_video {
        assert_eq!(first.kind, "video", "{who}: starts with {first:?}, not with a picture");
    }
    let start = published
        .iter()
        .position(|packet| packet == first)
        .unwrap_or_else(|| panic!("{who}: starts with {first:?}, which was never published so"));
    let wanted = &published[start..];
    for (index, (got, wanted)) in got.iter().zip(wanted).enumerate() {
        assert_eq!(got, wanted, "{who}: packet {index} (the publisher's {})", start + index);
    }
    assert_eq!(got.len(), wanted.len(), "{who}: number of packets from the publisher's {start} on");
    assert!(
        got.iter().zip(&got[1..]).all(|(one, next)| one.dts <= next.dts),
        "{who}: decoding times go back"
    );
    start
}
