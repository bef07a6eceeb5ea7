//! Playlists as a viewer of thousands reads them: in one pass, without a copy.

/// Something a playlist names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Item<'a> {
    /// A part; its segment may not be complete yet.
    Part {
        /// Its segment and its number in it.
        place: (u64, u64),
        /// Where it is.
        uri: &'a str,
        /// How long it is.
        ms: u32,
        /// The initialisation segment, where one has been named so far.
        map: Option<&'a str>,
    },
    /// A complete segment.
    Segment {
        /// Its number.
        number: u64,
        /// Where it is.
        uri: &'a str,
        /// How long it is.
        ms: u32,
        /// The initialisation segment, where one has been named so far.
        map: Option<&'a str>,
    },
}

/// What a playlist says besides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Look<'a> {
    /// The first media playlist that a master playlist names.
    pub variant: Option<&'a str>,
    /// The target duration.
    pub target_ms: u32,
    /// The longest part; 0: there are none.
    pub part_target_ms: u32,
    /// How far from the end a player of parts should stay.
    pub hold_back_ms: u32,
    /// The server holds a request until what it asks for is there.
    pub can_block: bool,
    /// The server leaves out what a player knows.
    pub can_skip: bool,
    /// How many segments were left out.
    pub skipped: u64,
    /// The number behind that of the last complete segment.
    pub next: u64,
    /// Parts of the segment with that number.
    pub open_parts: u64,
    /// The part that comes next.
    pub hint: Option<&'a str>,
    /// Nothing will be added.
    pub ended: bool,
}

/// Reads a playlist and shows what it names, oldest first.
///
/// # Errors
/// What is wrong with it; the server's fault.
pub fn read<'a>(text: &'a str, on: &mut dyn FnMut(Item<'a>)) -> Result<Look<'a>, &'static str> {
    let mut lines = text.lines();
    if lines.next().is_none_or(|line| line.trim_end() != "#EXTM3U") {
        return Err("a playlist does not begin with #EXTM3U");
    }
    let mut look = Look::default();
    let (mut ms, mut map, mut is_variant) = (None, None, false);
    for line in lines {
        let Some(tag) = line.strip_prefix('#') else {
            if line.trim().is_empty() {
                continue;
            }
            if is_variant {
                look.variant = look.variant.or(Some(line.trim()));
                is_variant = false;
                continue;
            }
            let ms = ms.take().ok_or("a segment without EXTINF")?;
            on(Item::Segment { number: look.next, uri: line.trim(), ms, map });
            look.next += 1;
            look.open_parts = 0;
            continue;
        };
        let (name, value) = tag.split_once(':').unwrap_or((tag, ""));
        match name {
            "EXTINF" => ms = Some(milliseconds(value.split(',').next().unwrap_or_default())?),
            "EXT-X-PART" => {
                let uri = attribute(value, "URI").ok_or("a part without an address")?;
                let ms = milliseconds(attribute(value, "DURATION").unwrap_or("0"))?;
                on(Item::Part { place: (look.next, look.open_parts), uri, ms, map });
                look.open_parts += 1;
            }
            "EXT-X-TARGETDURATION" => look.target_ms = milliseconds(value)?,
            "EXT-X-PART-INF" => {
                look.part_target_ms = milliseconds(attribute(value, "PART-TARGET").unwrap_or("0"))?;
            }
            "EXT-X-SERVER-CONTROL" => {
                look.can_block = attribute(value, "CAN-BLOCK-RELOAD") == Some("YES");
                look.can_skip = attribute(value, "CAN-SKIP-UNTIL").is_some();
                let hold_back = attribute(value, "PART-HOLD-BACK");
                look.hold_back_ms = milliseconds(hold_back.unwrap_or("0"))?;
            }
            "EXT-X-MEDIA-SEQUENCE" => look.next = number(value)?,
            "EXT-X-SKIP" => {
                look.skipped = number(attribute(value, "SKIPPED-SEGMENTS").unwrap_or_default())?;
                look.next += look.skipped;
            }
            "EXT-X-MAP" => map = attribute(value, "URI"),
            "EXT-X-PRELOAD-HINT" if attribute(value, "TYPE") == Some("PART") => {
                look.hint = attribute(value, "URI");
            }
            "EXT-X-STREAM-INF" => is_variant = true,
            "EXT-X-ENDLIST" => look.ended = true,
            _ => {}
        }
    }
    if look.target_ms == 0 && look.variant.is_none() {
        return Err("a playlist has neither a target duration nor variants");
    }
    Ok(look)
}

/// The value of an attribute, without quotes.
fn attribute<'a>(list: &'a str, name: &str) -> Option<&'a str> {
    let mut rest = list;
    loop {
        let (key, value) = rest.split_once('=')?;
        let (value, after) = match value.strip_prefix('"') {
            Some(quoted) => {
                let (value, after) = quoted.split_once('"')?;
                (value, after.strip_prefix(',').unwrap_or(after))
            }
            None => value.split_once(',').unwrap_or((value, "")),
        };
        if key.trim() == name {
            return Some(value);
        }
        rest = after;
    }
}

fn number(text: &str) -> Result<u64, &'static str> {
    text.trim().parse().map_err(|_| "a playlist has a number that is none")
}

/// Seconds with or without a fraction.
fn milliseconds(text: &str) -> Result<u32, &'static str> {
    let seconds: f64 = text.trim().parse().map_err(|_| "a playlist has a time that is none")?;
    if !(0.0..1e6).contains(&seconds) {
        return Err("a playlist has a time beyond reason");
    }
    Ok((seconds * 1000.0).round() as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_parts_and_what_comes_next() {
        let text = "#EXTM3U\n#EXT-X-VERSION:9\n#EXT-X-TARGETDURATION:2\n\
            #EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,CAN-SKIP-UNTIL=12.0,HOLD-BACK=6.0,\
            PART-HOLD-BACK=0.612\n#EXT-X-PART-INF:PART-TARGET=0.204\n#EXT-X-MEDIA-SEQUENCE:5\n\
            #EXT-X-SKIP:SKIPPED-SEGMENTS=3\n#EXTINF:2.000,\na-8.m4s?x\n\
            #EXT-X-MAP:URI=\"init.mp4\"\n#EXT-X-PART:DURATION=0.200,URI=\"b.0\",INDEPENDENT=YES\n\
            #EXTINF:0.2, no desc\nb.m4s\n#EXT-X-PART:DURATION=0.200,URI=\"c.0\"\n\
            #EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"c.1\"\n";
        let mut items = Vec::new();
        let look = read(text, &mut |item| items.push(item)).unwrap();
        assert_eq!((look.target_ms, look.part_target_ms, look.hold_back_ms), (2000, 204, 612));
        assert!(look.can_block && look.can_skip && !look.ended);
        assert_eq!((look.next, look.open_parts, look.skipped), (10, 1, 3));
        assert_eq!(look.hint, Some("c.1"));
        let map = Some("init.mp4");
        let expected = [
            Item::Segment { number: 8, uri: "a-8.m4s?x", ms: 2000, map: None },
            Item::Part { place: (9, 0), uri: "b.0", ms: 200, map },
            Item::Segment { number: 9, uri: "b.m4s", ms: 200, map },
            Item::Part { place: (10, 0), uri: "c.0", ms: 200, map },
        ];
        assert_eq!(items, expected);
    }

    #[test]
    fn masters_name_their_first_variant() {
        let text = "#EXTM3U\r\n#EXT-X-MEDIA:TYPE=AUDIO,URI=\"x\"\r\n\
            #EXT-X-STREAM-INF:BANDWIDTH=1,CODECS=\"a,b\"\r\n/live/s.m3u8?c=1\r\n\
            #EXT-X-STREAM-INF:BANDWIDTH=2\r\nother\r\n";
        let look = read(text, &mut |_| panic!("no segment")).unwrap();
        assert_eq!(look.variant, Some("/live/s.m3u8?c=1"));
    }

    #[test]
    fn what_is_no_playlist_says_why() {
        for (text, why) in [
            ("<html>", "EXTM3U"),
            ("#EXTM3U\n", "target"),
            ("#EXTM3U\n#EXT-X-TARGETDURATION:x\n", "time"),
            ("#EXTM3U\n#EXT-X-TARGETDURATION:2\nsegment\n", "EXTINF"),
        ] {
            let error = read(text, &mut |_| {}).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }
}
