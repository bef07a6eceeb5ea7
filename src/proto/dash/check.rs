//! A reader of manifests and a checker of the rules they have to keep from one load to the next
//! (ISO 23009-1 5.3 to 5.4, DASH-IF IOP 4.3). For tests and the load tester.

use std::collections::BTreeMap;

use crate::date;

/// A manifest as a player reads it. Times are seconds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Manifest {
    /// It goes on (`dynamic`).
    pub is_live: bool,
    /// `publishTime`.
    pub published: String,
    /// `minimumUpdatePeriod`.
    pub update: Option<f64>,
    /// `timeShiftBufferDepth`.
    pub depth: Option<f64>,
    /// `suggestedPresentationDelay`.
    pub delay: Option<f64>,
    /// `mediaPresentationDuration`.
    pub duration: Option<f64>,
    /// `maxSegmentDuration`.
    pub segment: f64,
    /// `Location`.
    pub location: Option<String>,
    /// `UTCTiming`: scheme and value.
    pub clock: Option<(String, String)>,
    /// The Periods.
    pub periods: Vec<Period>,
}

/// A Period.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Period {
    /// `id`.
    pub id: String,
    /// `start`.
    pub start: f64,
    /// Of all adaptation sets.
    pub representations: Vec<Representation>,
}

/// A Representation.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Representation {
    /// `id`.
    pub id: String,
    /// `contentType` of its set.
    pub content: String,
    /// All attributes.
    pub attributes: BTreeMap<String, String>,
    /// `timescale`.
    pub timescale: i64,
    /// `presentationTimeOffset`, ticks.
    pub offset: i64,
    /// Address of the initialisation segment.
    pub init: String,
    /// The segments.
    pub segments: Vec<Segment>,
}

/// A segment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Segment {
    /// Its number.
    pub number: u64,
    /// Its address.
    pub uri: String,
    /// Its begin, ticks.
    pub start: i64,
    /// How long it is, ticks.
    pub duration: i64,
}

/// An element of XML.
#[derive(Debug, Default)]
struct Element {
    name: String,
    attributes: BTreeMap<String, String>,
    text: String,
    children: Vec<Element>,
}

impl Element {
    fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Element> {
        self.children.iter().filter(move |child| child.name == name)
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.attributes.get(name).map(String::as_str)
    }

    fn need(&self, name: &str) -> Result<&str, String> {
        self.get(name).ok_or_else(|| format!("<{}> without {name}", self.name))
    }

    fn number(&self, name: &str) -> Result<Option<i64>, String> {
        let text = self.get(name);
        text.map(|text| text.parse().map_err(|_| format!("{name}={text}"))).transpose()
    }

    fn seconds(&self, name: &str) -> Result<Option<f64>, String> {
        self.get(name).map(seconds).transpose()
    }
}

/// `PT1H2M3.5S`.
fn seconds(text: &str) -> Result<f64, String> {
    let wrong = || format!("{text:?} is no duration");
    let mut rest = text.strip_prefix("PT").ok_or_else(wrong)?;
    let mut out = 0.0;
    for (unit, scale) in [('H', 3_600.0), ('M', 60.0), ('S', 1.0)] {
        if let Some((number, after)) = rest.split_once(unit) {
            out += number.parse::<f64>().map_err(|_| wrong())? * scale;
            rest = after;
        }
    }
    if rest.is_empty() { Ok(out) } else { Err(wrong()) }
}

fn plain(text: &str) -> String {
    let text = text.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"");
    text.replace("&amp;", "&")
}

/// Reads elements up to the end of the one around them.
fn elements<'t>(mut text: &'t str, out: &mut Element) -> Result<&'t str, String> {
    loop {
        let (before, inside) = text.split_once('<').ok_or("an element without end")?;
        out.text.push_str(&plain(before.trim()));
        let (tag, after) = inside.split_once('>').ok_or("a < without >")?;
        text = after;
        if let Some(name) = tag.strip_prefix('/') {
            return if name == out.name { Ok(text) } else { Err(format!("</{name}>")) };
        }
        let (tag, is_empty) = match tag.strip_suffix('/') {
            Some(tag) => (tag, true),
            None => (tag, false),
        };
        let (name, mut rest) = tag.split_once(' ').unwrap_or((tag, ""));
        let mut child = Element { name: name.into(), ..Element::default() };
        while let Some((name, value)) = rest.split_once("=\"") {
            let (value, after) = value.split_once('"').ok_or("an open quote")?;
            if child.attributes.insert(name.trim().into(), plain(value)).is_some() {
                return Err(format!("{name} twice"));
            }
            rest = after;
        }
        if !rest.trim().is_empty() {
            return Err(format!("{rest:?} in <{}>", child.name));
        }
        if !is_empty {
            text = elements(text, &mut child)?;
        }
        let is_root = child.name == "MPD";
        out.children.push(child);
        if is_root {
            return Ok(text);
        }
    }
}

impl Manifest {
    /// Reads a manifest.
    ///
    /// # Errors
    /// The first thing that is wrong in itself.
    pub fn parse(text: &str) -> Result<Manifest, String> {
        let body = text.strip_prefix("<?xml version=\"1.0\" encoding=\"utf-8\"?>");
        let mut root = Element::default();
        let rest = elements(body.ok_or("no XML")?, &mut root)?;
        if !rest.trim().is_empty() {
            return Err(format!("{rest:?} behind the end"));
        }
        let mpd = root.children.first().filter(|mpd| mpd.name == "MPD").ok_or("no MPD")?;
        let clock = mpd.all("UTCTiming").next();
        let clock = clock.map(|clock| {
            Ok::<_, String>((clock.need("schemeIdUri")?.into(), clock.need("value")?.into()))
        });
        if mpd.need("availabilityStartTime")? != "1970-01-01T00:00:00Z" {
            return Err("another availabilityStartTime".into());
        }
        mpd.seconds("minBufferTime")?.ok_or("no minBufferTime")?;
        Ok(Manifest {
            is_live: mpd.need("type")? == "dynamic",
            published: mpd.need("publishTime")?.into(),
            update: mpd.seconds("minimumUpdatePeriod")?,
            depth: mpd.seconds("timeShiftBufferDepth")?,
            delay: mpd.seconds("suggestedPresentationDelay")?,
            duration: mpd.seconds("mediaPresentationDuration")?,
            segment: mpd.seconds("maxSegmentDuration")?.ok_or("no maxSegmentDuration")?,
            location: mpd.all("Location").next().map(|location| location.text.clone()),
            clock: clock.transpose()?,
            periods: mpd.all("Period").map(period).collect::<Result<_, _>>()?,
        })
    }

    /// The representation of that name in the newest Period.
    pub fn newest(&self, id: &str) -> Option<&Representation> {
        self.periods.last()?.representations.iter().find(|one| one.id == id)
    }
}

fn period(element: &Element) -> Result<Period, String> {
    let mut representations = Vec::new();
    for set in element.all("AdaptationSet") {
        let content = set.need("contentType")?;
        if set.need("mimeType")? != format!("{content}/mp4") {
            return Err("another mimeType".into());
        }
        for one in set.all("Representation") {
            representations.push(representation(one, content)?);
        }
    }
    let start = element.seconds("start")?.ok_or("a Period without start")?;
    Ok(Period { id: element.need("id")?.into(), start, representations })
}

fn representation(element: &Element, content: &str) -> Result<Representation, String> {
    let template = element.all("SegmentTemplate").next().ok_or("no SegmentTemplate")?;
    let timeline = template.all("SegmentTimeline").next().ok_or("no SegmentTimeline")?;
    let media = template.need("media")?;
    let mut number = template.number("startNumber")?.unwrap_or(1).unsigned_abs();
    let (mut segments, mut next) = (Vec::new(), None);
    for entry in timeline.all("S") {
        let mut start = entry.number("t")?.or(next).unwrap_or(0);
        let duration = entry.number("d")?.ok_or("an S without d")?;
        for _ in 0..=entry.number("r")?.unwrap_or(0) {
            let uri = media.replace("$Number$", &number.to_string());
            segments.push(Segment { number, uri, start, duration });
            (number, start) = (number + 1, start + duration);
        }
        next = Some(start);
    }
    let bandwidth = element.number("bandwidth")?.ok_or("no bandwidth")?;
    if bandwidth < 1 || element.need("codecs")?.is_empty() || !media.contains("$Number$") {
        return Err(format!("{:?} tells too little", element.attributes));
    }
    Ok(Representation {
        id: element.need("id")?.into(),
        content: content.into(),
        attributes: element.attributes.clone(),
        timescale: template.number("timescale")?.unwrap_or(1),
        offset: template.number("presentationTimeOffset")?.unwrap_or(0),
        init: template.need("initialization")?.into(),
        segments,
    })
}

/// What one manifest after the other has said.
#[derive(Debug, Default)]
pub struct Checker {
    published: String,
    starts: BTreeMap<String, f64>,
    /// By Period, representation and number: begin and length, ticks.
    segments: BTreeMap<(String, String, u64), (i64, i64)>,
}

/// A second more or less: publishers' clocks, and bursts at their begin.
const SLACK: f64 = 1.5;

impl Checker {
    /// Takes the next load of a manifest, at `wall_ms` since 1970.
    ///
    /// # Errors
    /// The rule that it breaks.
    pub fn load(&mut self, wall_ms: i64, text: &str) -> Result<Manifest, String> {
        let read = Manifest::parse(text)?;
        if read.published < self.published {
            return Err(format!("published at {}, then {}", self.published, read.published));
        }
        self.published.clone_from(&read.published);
        if read.is_live != (read.update.is_some() && read.depth.is_some())
            || read.is_live == read.duration.is_some()
        {
            return Err("neither live nor ended".into());
        }
        if read.periods.is_empty() || read.clock.is_none() {
            return Err("nothing to play, or no clock".into());
        }
        let mut before_end: f64 = 0.0;
        for period in &read.periods {
            let known = *self.starts.entry(period.id.clone()).or_insert(period.start);
            if (known - period.start).abs() > 0.001 {
                return Err(format!("Period {} moved", period.id));
            }
            if period.start + 0.001 < before_end {
                return Err(format!("Period {} begins before the end of the last", period.id));
            }
            for one in &period.representations {
                before_end = before_end.max(self.representation(&read, period, one, wall_ms)?);
            }
        }
        Ok(read)
    }

    /// Gives the end of the last segment, seconds since 1970.
    fn representation(
        &mut self,
        read: &Manifest,
        period: &Period,
        one: &Representation,
        wall_ms: i64,
    ) -> Result<f64, String> {
        let what = format!("{} of Period {}", one.id, period.id);
        let mut end = None;
        for segment in &one.segments {
            let Segment { number, start, duration, .. } = segment;
            // Less than a picture, which open groups of pictures may be apart by.
            if end.is_some_and(|end| *start < end - one.timescale / 25) || *duration < 1 {
                return Err(format!("{what}: {number} overlaps the one before"));
            }
            if *start < one.offset {
                return Err(format!("{what}: {number} begins before its Period"));
            }
            if *duration as f64 / one.timescale as f64 > read.segment + 0.05 {
                return Err(format!("{what}: {number} is longer than maxSegmentDuration"));
            }
            let key = (period.id.clone(), one.id.clone(), *number);
            let known = *self.segments.entry(key).or_insert((*start, *duration));
            if known != (*start, *duration) {
                return Err(format!("{what}: {number} was {known:?}"));
            }
            end = Some(start + duration);
        }
        let end = end.ok_or_else(|| format!("{what}: no segments"))?;
        let end = period.start + (end - one.offset) as f64 / one.timescale as f64;
        // 5.3.9.5.3: a segment can be had from its end on.
        if end > wall_ms as f64 / 1_000.0 + SLACK {
            let now = date::text(wall_ms, 'T');
            return Err(format!("{what}: ends at {end}, and it is {now}"));
        }
        Ok(end)
    }

    /// All segments so far, by Period, representation and number: begin and length, ticks.
    pub fn segments(&self) -> &BTreeMap<(String, String, u64), (i64, i64)> {
        &self.segments
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(published: u32, start: u32, timeline: &str) -> String {
        format!(
            "<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<MPD type=\"dynamic\" \
             availabilityStartTime=\"1970-01-01T00:00:00Z\" publishTime=\"{published}\" \
             minBufferTime=\"PT1S\" maxSegmentDuration=\"PT2S\" minimumUpdatePeriod=\"PT1M\" \
             timeShiftBufferDepth=\"PT9S\">\n<Period id=\"0\" start=\"PT{start}S\">\
             <AdaptationSet contentType=\"video\" mimeType=\"video/mp4\"><Representation id=\"v\" \
             bandwidth=\"5\" codecs=\"x\"><SegmentTemplate timescale=\"100\" media=\"a$Number$\" \
             initialization=\"i\"><SegmentTimeline>{timeline}</SegmentTimeline></SegmentTemplate>\
             </Representation></AdaptationSet></Period>\
             <UTCTiming schemeIdUri=\"u\" value=\"v\"/></MPD>\n"
        )
    }

    #[test]
    fn what_breaks_a_rule_is_named() {
        let mut checker = Checker::default();
        let good = text(1, 5, "<S t=\"0\" d=\"200\" r=\"2\"/>");
        let read = checker.load(12_000, &good).unwrap();
        assert_eq!(
            (read.update, read.periods[0].representations[0].segments.len()),
            (Some(60.), 3)
        );
        for (manifest, wall_ms, why) in [
            (text(0, 5, "<S d=\"200\"/>"), 12_000, "published at"),
            (text(1, 6, "<S d=\"200\"/>"), 12_000, "moved"),
            (text(1, 5, "<S d=\"100\"/>"), 12_000, "was (0, 200)"),
            (text(1, 5, "<S d=\"300\"/>"), 12_000, "longer"),
            (text(1, 5, "<S d=\"200\"/><S t=\"100\" d=\"200\"/>"), 12_000, "overlaps"),
            (text(1, 5, ""), 12_000, "no segments"),
            (good.clone(), 9_000, "and it is"),
            (good.replace("codecs=\"x\"", ""), 12_000, "codecs"),
            (good.replace("</Period>", ""), 12_000, "</MPD>"),
        ] {
            let error = checker.load(wall_ms, &manifest).unwrap_err();
            assert!(error.contains(why), "{error}, not {why}");
        }
    }
}
