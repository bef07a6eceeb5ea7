//! A reader of media playlists and a checker of the rules they have to keep from one load to the
//! next (RFC 8216 and draft-pantos-hls-rfc8216bis). For tests and the load tester.

use std::collections::BTreeMap;

/// A media playlist as a player reads it. Times are seconds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Playlist {
    /// EXT-X-VERSION.
    pub version: u32,
    /// EXT-X-TARGETDURATION.
    pub target: f64,
    /// PART-TARGET.
    pub part_target: Option<f64>,
    /// Attributes of EXT-X-SERVER-CONTROL.
    pub control: BTreeMap<String, String>,
    /// EXT-X-MEDIA-SEQUENCE.
    pub first: u64,
    /// EXT-X-DISCONTINUITY-SEQUENCE.
    pub discontinuities: u64,
    /// EXT-X-INDEPENDENT-SEGMENTS is there.
    pub independent: bool,
    /// EXT-X-SKIP.
    pub skipped: u64,
    /// Complete segments, those that are skipped left out.
    pub segments: Vec<Segment>,
    /// Parts of the segment that is not complete.
    pub open: Segment,
    /// URI of EXT-X-PRELOAD-HINT.
    pub hint: Option<String>,
    /// EXT-X-ENDLIST is there.
    pub ended: bool,
}

/// One segment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Segment {
    /// Its number.
    pub number: u64,
    /// Its address.
    pub uri: String,
    /// EXTINF.
    pub duration: f64,
    /// EXT-X-DISCONTINUITY stands before it.
    pub discontinuity: bool,
    /// URI of the EXT-X-MAP that holds for it.
    pub map: Option<String>,
    /// EXT-X-PROGRAM-DATE-TIME.
    pub date: Option<String>,
    /// Its parts: address, duration, independent.
    pub parts: Vec<(String, f64, bool)>,
}

/// `name=value` pairs of a tag, quotes taken off.
fn attributes(text: &str) -> BTreeMap<String, String> {
    let mut out = BTreeMap::new();
    let mut rest = text;
    while let Some((name, value)) = rest.split_once('=') {
        let (value, after) = match value.strip_prefix('"') {
            Some(quoted) => {
                let (value, after) = quoted.split_once('"').unwrap_or((quoted, ""));
                (value, after.strip_prefix(',').unwrap_or(after))
            }
            None => value.split_once(',').unwrap_or((value, "")),
        };
        out.insert(name.to_owned(), value.to_owned());
        rest = after;
    }
    out
}

fn number<T: std::str::FromStr>(text: &str, line: &str) -> Result<T, String> {
    text.trim().parse().map_err(|_| format!("no number in {line:?}"))
}

impl Playlist {
    /// Reads a media playlist.
    ///
    /// # Errors
    /// The first line that is wrong in itself.
    pub fn parse(text: &str) -> Result<Playlist, String> {
        let mut lines = text.lines();
        if lines.next() != Some("#EXTM3U") {
            return Err("does not begin with #EXTM3U".into());
        }
        let mut out = Playlist { target: -1.0, ..Playlist::default() };
        let (mut segment, mut map) = (Segment::default(), None);
        let mut duration = None;
        for line in lines {
            let (tag, value) = line.split_once(':').unwrap_or((line, ""));
            match tag {
                "" => {}
                "#EXT-X-VERSION" => out.version = number(value, line)?,
                "#EXT-X-TARGETDURATION" if out.target >= 0.0 => return Err("two targets".into()),
                "#EXT-X-TARGETDURATION" => out.target = number::<u32>(value, line)?.into(),
                "#EXT-X-SERVER-CONTROL" => out.control = attributes(value),
                "#EXT-X-PART-INF" => {
                    let target = attributes(value).remove("PART-TARGET");
                    out.part_target = Some(number(&target.unwrap_or_default(), line)?);
                }
                "#EXT-X-MEDIA-SEQUENCE" => out.first = number(value, line)?,
                "#EXT-X-DISCONTINUITY-SEQUENCE" => out.discontinuities = number(value, line)?,
                "#EXT-X-INDEPENDENT-SEGMENTS" => out.independent = true,
                "#EXT-X-SKIP" => {
                    let skipped = attributes(value).remove("SKIPPED-SEGMENTS");
                    out.skipped = number(&skipped.unwrap_or_default(), line)?;
                }
                "#EXT-X-DISCONTINUITY" => segment.discontinuity = true,
                "#EXT-X-MAP" => map = attributes(value).remove("URI"),
                "#EXT-X-PROGRAM-DATE-TIME" => segment.date = Some(value.to_owned()),
                "#EXT-X-PART" => {
                    let mut part = attributes(value);
                    let uri = part.remove("URI").ok_or(format!("no URI in {line:?}"))?;
                    let length = number(&part.remove("DURATION").unwrap_or_default(), line)?;
                    let independent = part.get("INDEPENDENT").is_some_and(|yes| yes == "YES");
                    segment.parts.push((uri, length, independent));
                }
                "#EXT-X-PRELOAD-HINT" => out.hint = attributes(value).remove("URI"),
                "#EXTINF" => {
                    let text = value.split(',').next().unwrap_or_default();
                    duration = Some(number(text, line)?);
                }
                "#EXT-X-ENDLIST" => out.ended = true,
                _ if line.starts_with('#') => {}
                _ => {
                    segment.uri = line.to_owned();
                    segment.duration = duration.take().ok_or(format!("no EXTINF for {line:?}"))?;
                    segment.map.clone_from(&map);
                    out.segments.push(std::mem::take(&mut segment));
                }
            }
        }
        if out.target < 0.0 {
            return Err("no target duration".into());
        }
        segment.map = map;
        out.open = segment;
        let first = out.first + out.skipped;
        for (number, segment) in (first..).zip(&mut out.segments) {
            segment.number = number;
        }
        out.open.number = first + out.segments.len() as u64;
        Ok(out)
    }

    /// Seconds of all complete segments that are not skipped.
    pub fn duration(&self) -> f64 {
        self.segments.iter().map(|segment| segment.duration).sum()
    }

    fn check(&self) -> Result<(), String> {
        for segment in &self.segments {
            let (uri, duration) = (&segment.uri, segment.duration);
            if duration.round() > self.target {
                return Err(format!("{uri} has {duration} s, the target is {} s", self.target));
            }
            if segment.parts.is_empty() {
                continue;
            }
            let sum: f64 = segment.parts.iter().map(|part| part.1).sum();
            if (sum - duration).abs() > 0.01 {
                return Err(format!("{uri} has {duration} s, its parts {sum} s"));
            }
        }
        let all = || self.segments.iter().chain([&self.open]);
        if all().any(|segment| segment.map.is_some()) && self.version < 6 {
            return Err(format!("EXT-X-MAP in version {}", self.version));
        }
        if self.skipped > 0 && self.version < 9 {
            return Err(format!("EXT-X-SKIP in version {}", self.version));
        }
        let Some(target) = self.part_target else {
            let parts = all().any(|segment| !segment.parts.is_empty()) || self.hint.is_some();
            return if parts { Err("parts without EXT-X-PART-INF".into()) } else { Ok(()) };
        };
        for segment in all() {
            for (index, (uri, duration, _)) in segment.parts.iter().enumerate() {
                let is_last = index + 1 == segment.parts.len() && !segment.uri.is_empty();
                if *duration > target + 0.000_1 {
                    return Err(format!("{uri} has {duration} s, the part target is {target} s"));
                }
                if *duration < target * 0.85 && !is_last {
                    return Err(format!("{uri} has {duration} s, less than 85% of {target} s"));
                }
            }
        }
        let control = |name: &str| {
            let value = self.control.get(name).and_then(|value| value.parse::<f64>().ok());
            value.ok_or(format!("no {name} in EXT-X-SERVER-CONTROL"))
        };
        if self.control.get("CAN-BLOCK-RELOAD").map(String::as_str) != Some("YES") {
            return Err("parts without CAN-BLOCK-RELOAD".into());
        }
        if control("PART-HOLD-BACK")? < target * 2.0 {
            return Err("PART-HOLD-BACK is less than twice the part target".into());
        }
        if control("HOLD-BACK")? < self.target * 3.0 {
            return Err("HOLD-BACK is less than three times the target".into());
        }
        if control("CAN-SKIP-UNTIL")? < self.target * 6.0 {
            return Err("CAN-SKIP-UNTIL is less than six times the target".into());
        }
        // Parts are taken out once they are three targets from the end, and are there before.
        let mut behind: f64 = self.open.parts.iter().map(|part| part.1).sum();
        for segment in self.segments.iter().rev() {
            if segment.parts.is_empty() && behind < self.target * 3.0 && behind > 0.0 {
                return Err(format!("{} has lost its parts too early", segment.uri));
            }
            behind += segment.duration;
        }
        Ok(())
    }
}

/// What was seen of a playlist that is loaded again and again.
#[derive(Clone, Debug, Default)]
pub struct Checker {
    last: Option<(f64, Playlist)>,
    segments: BTreeMap<u64, Segment>,
    /// When a segment or part last came, s.
    changed_at: f64,
    /// Loads that were checked.
    pub loads: u64,
}

impl Checker {
    /// Takes what was loaded at `now` (seconds of any clock that does not jump) while the stream
    /// was (or was not) being `published`.
    ///
    /// # Errors
    /// The rule that is broken.
    pub fn load(&mut self, now: f64, published: bool, text: &str) -> Result<Playlist, String> {
        let playlist = Playlist::parse(text)?;
        playlist.check()?;
        self.loads += 1;
        let before = self.last.replace((now, playlist.clone()));
        let Some((_, before)) = before else {
            self.changed_at = now;
            self.remember(&playlist)?;
            return Ok(playlist);
        };
        if (before.target, before.part_target) != (playlist.target, playlist.part_target) {
            return Err("a target has changed".into());
        }
        let end = |list: &Playlist| (list.open.number, list.open.parts.len());
        if playlist.first < before.first || end(&playlist) < end(&before) {
            return Err("went back".into());
        }
        // RFC 8216 6.2.1: not later than one and a half targets after the last change.
        if end(&playlist) != end(&before) {
            self.changed_at = now;
        } else if published && now - self.changed_at > playlist.target * 1.5 + 0.5 {
            return Err(format!("nothing new for {} s", now - self.changed_at));
        }
        if playlist.first > before.first
            && playlist.skipped == 0
            && playlist.duration() < playlist.target * 3.0 - 0.5 * playlist.segments.len() as f64
        {
            return Err(format!("only {} s left after a removal", playlist.duration()));
        }
        let gone = |(number, _): &(&u64, &Segment)| (before.first..playlist.first).contains(number);
        let gone = self.segments.iter().filter(gone).filter(|(_, s)| s.discontinuity).count();
        if playlist.discontinuities != before.discontinuities + gone as u64 {
            return Err(format!(
                "discontinuity sequence {}, was {} and {gone} have gone",
                playlist.discontinuities, before.discontinuities
            ));
        }
        self.remember(&playlist)?;
        Ok(playlist)
    }

    /// Every segment seen, by number.
    pub fn segments(&self) -> &BTreeMap<u64, Segment> {
        &self.segments
    }

    fn remember(&mut self, playlist: &Playlist) -> Result<(), String> {
        for segment in &playlist.segments {
            let mut compared = segment.clone();
            // After a skip the map of what was skipped is not said again.
            if playlist.skipped > 0 && compared.map.is_none() {
                let before = self.segments.range(..segment.number).next_back();
                compared.map = before.and_then(|(_, before)| before.map.clone());
            }
            let known = self.segments.entry(segment.number).or_insert_with(|| compared.clone());
            let same = |a: &Segment, b: &Segment| {
                let said = |s: &Segment| (s.uri.clone(), s.discontinuity, s.date.clone());
                said(a) == said(b) && a.duration == b.duration && (a.map == b.map)
            };
            if !same(known, &compared) {
                return Err(format!("{} has changed: {known:?}, now {segment:?}", segment.number));
            }
            if !segment.parts.is_empty() && !known.parts.is_empty() && segment.parts != known.parts
            {
                return Err(format!("the parts of {} have changed", segment.number));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:4\n";

    fn list(first: u64, discontinuities: u64, segments: &[(&str, f64)]) -> String {
        let mut out = format!("{HEAD}#EXT-X-MEDIA-SEQUENCE:{first}\n");
        out += &format!("#EXT-X-DISCONTINUITY-SEQUENCE:{discontinuities}\n");
        for (uri, duration) in segments {
            let (mark, uri) =
                uri.split_once('!').map_or(("", *uri), |(_, uri)| ("#EXT-X-DISCONTINUITY\n", uri));
            out += &format!("{mark}#EXTINF:{duration},\n{uri}\n");
        }
        out
    }

    #[test]
    fn rules_of_reloading() {
        let all = [("a", 4.0), ("!b", 4.0), ("c", 4.0), ("d", 4.0), ("e", 4.0), ("f", 4.0)];
        let load = |lists: &[(f64, String)]| {
            let mut checker = Checker::default();
            lists.iter().try_for_each(|(now, text)| checker.load(*now, true, text).map(drop))
        };
        let good = [(0.0, list(0, 0, &all[..4])), (4.0, list(1, 0, &all[1..5]))];
        load(&good).unwrap();
        load(&[good[1].clone(), (8.0, list(2, 1, &all[2..6]))]).unwrap();
        for (wrong, why) in [
            (vec![good[1].clone(), (8.0, list(2, 0, &all[2..6]))], "discontinuity sequence"),
            (vec![good[1].clone(), good[0].clone()], "went back"),
            (vec![good[0].clone(), (7.0, good[0].1.clone())], "nothing new"),
            (vec![good[0].clone(), (4.0, list(3, 1, &all[3..5]))], "only 8 s left"),
            (vec![good[0].clone(), (4.0, list(1, 0, &all[2..6]))], "has changed"),
            (vec![(0.0, list(0, 0, &[("a", 4.6)]))], "4.6 s"),
            (vec![(0.0, "#EXTM3U\n".into())], "no target"),
        ] {
            let error = load(&wrong).expect_err(why);
            assert!(error.contains(why), "{error} for {why}");
        }
        let wrong = format!("{HEAD}#EXT-X-PART:DURATION=1,URI=\"x\"\n");
        assert!(load(&[(0.0, wrong)]).unwrap_err().contains("EXT-X-PART-INF"));
    }
}
