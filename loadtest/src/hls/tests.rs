//! Viewers against answers that are written down here.

use super::*;

fn viewer(habits: Habits) -> Viewer {
    Viewer::new(&Target::parse("http://h:81/live/s.m3u8").unwrap(), habits, 0)
}

const ALL: Habits = Habits { parts: true, hints: true, deltas: true, verify: false };

/// The paths that were asked for.
fn asked(viewer: &mut Viewer) -> Vec<String> {
    let output = String::from_utf8(std::mem::take(viewer.output())).unwrap();
    let paths = output.split("\r\n\r\n").filter_map(|head| head.split(' ').nth(1));
    paths.map(str::to_owned).collect()
}

#[derive(Default)]
struct Seen {
    stats: HlsStats,
    parts: PartTimes,
    faults: Vec<String>,
}

impl Seen {
    fn give(&mut self, viewer: &mut Viewer, ms: u64, data: &[u8]) -> Result<Outcome, Failure> {
        let mut cx = Context {
            now: ms * MS,
            stats: &mut self.stats,
            parts: &mut self.parts,
            on_record: &mut |_| {},
            on_fault: &mut |why| self.faults.push(why),
        };
        viewer.input(data, &mut cx)
    }
}

fn answer(body: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

const HEAD: &str = "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXT-X-MEDIA-SEQUENCE:";

fn plain(first: u64, next: u64) -> Vec<u8> {
    let segments = (first..next).map(|n| format!("#EXTINF:2.0,\nseg-{n}.ts\n"));
    answer(&format!("{HEAD}{first}\n{}", segments.collect::<String>()))
}

#[test]
fn a_plain_playlist_is_loaded_again_and_every_segment_once() {
    let (mut viewer, mut seen) = (viewer(ALL), Seen::default());
    assert_eq!(asked(&mut viewer), ["/live/s.m3u8"]);
    let master = answer("#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\n/live/s.m3u8?hls_ctx=a\n");
    // In pieces, as a network may bring it.
    for byte in &master {
        let outcome = seen.give(&mut viewer, 1, std::slice::from_ref(byte)).unwrap();
        assert_eq!(outcome, Outcome::default());
    }
    assert_eq!(asked(&mut viewer), ["/live/s.m3u8?hls_ctx=a"]);
    let outcome = seen.give(&mut viewer, 2, &plain(5, 10)).unwrap();
    assert!(outcome.started);
    assert_eq!(outcome.reload_at, Some(2_001 * MS));
    assert_eq!(asked(&mut viewer), ["/live/seg-7.ts", "/live/seg-8.ts", "/live/seg-9.ts"]);
    let three = [answer("aaa"), answer("bb"), answer("c")].concat();
    assert_eq!(seen.give(&mut viewer, 10, &three).unwrap().media_bytes, 6);
    // Nothing new: half a target later.
    viewer.reload(2_001 * MS);
    assert_eq!(asked(&mut viewer).len(), 1);
    let outcome = seen.give(&mut viewer, 2_002, &plain(5, 10)).unwrap();
    assert_eq!((outcome.reload_at, outcome.started), (Some(3_001 * MS), false));
    viewer.reload(3_001 * MS);
    assert_eq!(asked(&mut viewer).len(), 1);
    seen.give(&mut viewer, 3_002, &plain(6, 11)).unwrap();
    assert_eq!(asked(&mut viewer), ["/live/seg-10.ts"]);
    seen.give(&mut viewer, 3_003, &answer("d")).unwrap();
    assert_eq!((seen.stats.late, seen.stats.missed), (0, 0));
    // It has seen eight seconds; what comes after that is late. Two have gone.
    viewer.reload(9_000 * MS);
    seen.give(&mut viewer, 9_000, &plain(13, 16)).unwrap();
    assert_eq!(asked(&mut viewer)[1..], ["/live/seg-13.ts", "/live/seg-14.ts", "/live/seg-15.ts"]);
    assert_eq!((seen.stats.missed, seen.stats.segments, seen.stats.playlists), (2, 4, 5));
    let refused = b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno";
    seen.give(&mut viewer, 9_001, refused).unwrap();
    assert_eq!((seen.stats.refused[&404], seen.stats.missed), (1, 3));
}

/// Segments of one second in parts of 0.2 s, up to `open` parts of number `next`.
fn with_parts(next: u64, open: u64) -> Vec<u8> {
    let mut text = format!(
        "#EXTM3U\n#EXT-X-VERSION:9\n#EXT-X-TARGETDURATION:1\n\
         #EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,CAN-SKIP-UNTIL=6.0,PART-HOLD-BACK=0.6\n\
         #EXT-X-PART-INF:PART-TARGET=0.2\n#EXT-X-MEDIA-SEQUENCE:{}\n\
         #EXT-X-MAP:URI=\"init.mp4\"\n",
        next - 2
    );
    for number in next - 2..=next {
        for part in 0..if number == next { open } else { 5 } {
            text += &format!("#EXT-X-PART:DURATION=0.2,URI=\"{number}.{part}\"\n");
        }
        if number < next {
            text += &format!("#EXTINF:1.0,\n{number}\n");
        }
    }
    text += &format!("#EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"{next}.{open}\"\n");
    answer(&text)
}

#[test]
fn parts_are_asked_for_together_with_the_playlist_that_names_them() {
    let (mut viewer, mut seen) = (viewer(ALL), Seen::default());
    asked(&mut viewer);
    seen.give(&mut viewer, 1, &with_parts(7, 1)).unwrap();
    let parts = (0..5).map(|part| format!("/live/6.{part}"));
    let mut expected = vec!["/live/init.mp4".to_owned()];
    expected.extend(parts);
    expected.push("/live/7.0".into());
    expected.push("/live/s.m3u8?_HLS_msn=7&_HLS_part=1&_HLS_skip=YES".into());
    expected.push("/live/7.1".into());
    assert_eq!(asked(&mut viewer), expected);
    for _ in 0..7 {
        seen.give(&mut viewer, 2, &answer("x")).unwrap();
    }
    assert_eq!((seen.stats.inits, seen.stats.parts), (1, 6));
    // The held answer comes, and with it the next pair is asked for.
    let outcome = seen.give(&mut viewer, 150, &with_parts(7, 2)).unwrap();
    assert_eq!(outcome.reload_at, None);
    let pair = ["/live/s.m3u8?_HLS_msn=7&_HLS_part=2&_HLS_skip=YES", "/live/7.2"];
    assert_eq!(asked(&mut viewer), pair);
    seen.give(&mut viewer, 150, &answer("part")).unwrap();
    // The segment is complete: the next one's first part.
    seen.give(&mut viewer, 350, &with_parts(8, 0)).unwrap();
    let asked_for = asked(&mut viewer);
    assert_eq!(asked_for.last().unwrap(), "/live/8.0");
    assert_eq!(asked_for[0], "/live/7.3");
    assert_eq!((seen.stats.late, seen.stats.missed), (0, 0));
    assert_eq!(seen.stats.reload_after_first.len(), 2);
    assert!(seen.stats.part.max() < 200_000);
}

#[test]
fn who_does_not_hold_is_not_asked_at_once_again() {
    let (mut viewer, mut seen) = (viewer(Habits { hints: false, ..ALL }), Seen::default());
    asked(&mut viewer);
    seen.give(&mut viewer, 1, &with_parts(7, 4)).unwrap();
    let paths = asked(&mut viewer);
    assert_eq!(paths.last().unwrap(), "/live/s.m3u8?_HLS_msn=7&_HLS_part=4&_HLS_skip=YES");
    for _ in 0..paths.len() - 1 {
        seen.give(&mut viewer, 2, &answer("x")).unwrap();
    }
    let outcome = seen.give(&mut viewer, 3, &with_parts(7, 4)).unwrap();
    assert_eq!(outcome.reload_at, Some(103 * MS));
    assert!(asked(&mut viewer).is_empty());
}

#[test]
fn segments_alone_where_parts_are_not_wanted() {
    let habits = Habits { parts: false, ..ALL };
    let (mut viewer, mut seen) = (viewer(habits), Seen::default());
    asked(&mut viewer);
    seen.give(&mut viewer, 1, &with_parts(7, 4)).unwrap();
    assert_eq!(asked(&mut viewer), ["/live/init.mp4", "/live/5", "/live/6"]);
}

#[test]
fn another_connection_goes_on_where_the_last_one_ended() {
    let (mut viewer, mut seen) = (viewer(ALL), Seen::default());
    asked(&mut viewer);
    assert!(!viewer.survives_end(), "the server has not answered at all");
    seen.give(&mut viewer, 2, &plain(0, 2)).unwrap();
    asked(&mut viewer);
    let closing = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1\r\n\r\nx";
    assert!(seen.give(&mut viewer, 3, closing).unwrap().closes);
    assert!(viewer.survives_end());
    viewer.resume(4 * MS);
    assert_eq!(asked(&mut viewer), ["/live/seg-1.ts"]);
    // Chunks, in pieces.
    let chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    let bytes: u64 =
        chunked.chunks(5).map(|piece| seen.give(&mut viewer, 5, piece).unwrap().media_bytes).sum();
    assert_eq!((bytes, seen.stats.segments), (3, 2));
}

#[test]
fn what_a_server_does_wrong_ends_the_visit() {
    let refused = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n";
    for (bytes, why) in [
        (refused.to_vec(), "refused: HTTP status 404"),
        (answer("<html>"), "protocol: a playlist does not begin with #EXTM3U"),
        (b"FTP/1.1 200 OK\r\n\r\n".to_vec(), "protocol: a response head of no form"),
        (
            answer(&format!("{HEAD}0\n#EXTINF:2,\nhttp://elsewhere/x.ts\n")),
            "protocol: an address on another host",
        ),
    ] {
        let error = Seen::default().give(&mut viewer(ALL), 1, &bytes).unwrap_err();
        assert_eq!(error.to_string(), why);
    }
    let mut viewer = viewer(ALL);
    let ended = answer(&format!("{HEAD}0\n#EXT-X-ENDLIST\n"));
    assert_eq!(Seen::default().give(&mut viewer, 1, &ended), Err(Failure::Ended));
}
