//! Where recordings go: `dvr_path`, a template whose fixed beginning is the folder that nothing
//! leaves.

use std::path::PathBuf;

use crate::date;
use crate::hub::{Format, recording};
use crate::media::name::StreamName;

/// A template of paths.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    root: PathBuf,
    /// What follows below the root.
    rest: String,
    format: Format,
}

impl Template {
    /// Reads `dvr_path`. SRS: without the end of a format it is a folder.
    pub fn new(path: &str) -> Template {
        let known = [".flv", ".mp4", ".ts"].iter().any(|end| path.ends_with(end));
        let path = match known {
            true => path.to_owned(),
            false => format!("{}/[stream].[timestamp].flv", path.trim_end_matches('/')),
        };
        let fixed = path.find('[').unwrap_or(path.len());
        let (root, rest) = match path[..fixed].rfind('/') {
            Some(0) => ("/", &path[1..]),
            Some(slash) => (&path[..slash], &path[slash + 1..]),
            None => (".", &path[..]),
        };
        let rest = rest.trim_start_matches('/').to_owned();
        Template { root: root.into(), rest, format: recording::format(&path) }
    }

    /// The folder that nothing leaves.
    pub fn root(&self) -> &PathBuf {
        &self.root
    }

    /// The format of the files.
    pub fn format(&self) -> Format {
        self.format
    }

    /// The path below the root of a file of that stream that is begun now.
    pub fn fill(&self, name: &StreamName, wall_ms: i64) -> String {
        let (date, timestamp) = (date::words(wall_ms), wall_ms.to_string());
        let mut out = String::with_capacity(self.rest.len() + 64);
        let mut rest = self.rest.as_str();
        while let Some((before, (variable, after))) =
            rest.split_once('[').and_then(|(before, tail)| Some((before, tail.split_once(']')?)))
        {
            out.push_str(before);
            rest = after;
            out.push_str(match variable {
                "vhost" => name.vhost(),
                "app" => name.app(),
                "stream" => name.stream(),
                "timestamp" => &timestamp,
                // The configuration has no others.
                _ => {
                    date::WORDS.iter().position(|word| *word == variable).map_or("", |at| &date[at])
                }
            });
        }
        out.push_str(rest);
        out
    }

    /// True when files of different times have different names, so that old ones can be told from
    /// what is none of ours.
    pub fn has_time(&self) -> bool {
        let has = |word: &str| self.rest.contains(word);
        has("[timestamp]") || (has("[2006]") && has("[01]") && has("[02]"))
    }

    /// True when a path below the root is one that this template can give.
    pub fn matches(&self, path: &str) -> bool {
        let end = self.rest.rfind('.').unwrap_or(self.rest.len());
        let (stem, suffix) = self.rest.split_at(end);
        let Some(path) = path.strip_suffix(suffix) else { return false };
        // A name that was taken has got a number.
        let numbered = path.rsplit_once('-').filter(|(_, number)| is_number(number));
        matches(stem, path) || numbered.is_some_and(|(path, _)| matches(stem, path))
    }
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|c| c.is_ascii_digit())
}

/// True when the template can give the text.
fn matches(template: &str, text: &str) -> bool {
    let variable = template.strip_prefix('[').and_then(|rest| rest.split_once(']'));
    let Some((name, rest)) = variable else {
        let mut chars = template.chars();
        return match chars.next() {
            None => text.is_empty(),
            Some(c) => text.strip_prefix(c).is_some_and(|text| matches(chars.as_str(), text)),
        };
    };
    let (least, most) = match name {
        "timestamp" => (10, 20),
        "vhost" | "app" | "stream" => (1, text.len()),
        word => match date::digits(word) {
            Some(digits) => (digits, digits),
            None => return false,
        },
    };
    let fits = |len: &usize| {
        let Some(value) = text.get(..*len) else { return false };
        match name {
            "app" => true,
            "vhost" | "stream" => !value.contains('/'),
            _ => is_number(value),
        }
    };
    (least..=most.min(text.len())).filter(fits).any(|len| matches(rest, &text[len..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_have_a_root_and_a_rest() {
        let parts = |path: &str| {
            let template = Template::new(path);
            (template.root.to_str().unwrap().to_owned(), template.rest, template.format)
        };
        let expect = |root: &str, rest: &str, format| (root.to_owned(), rest.to_owned(), format);
        let srs = "./objs/nginx/html/[app]/[stream].[timestamp].flv";
        let rest = "[app]/[stream].[timestamp].flv";
        assert_eq!(parts(srs), expect("./objs/nginx/html", rest, Format::Flv));
        assert_eq!(parts("/x/y-[stream].mp4"), expect("/x", "y-[stream].mp4", Format::Fmp4));
        assert_eq!(parts("[app].ts"), expect(".", "[app].ts", Format::Ts));
        assert_eq!(parts("/[app].ts"), expect("/", "[app].ts", Format::Ts));
        let folder = "[stream].[timestamp].flv";
        assert_eq!(parts("/var/rec/"), expect("/var/rec", folder, Format::Flv));
    }

    #[test]
    fn variables_are_filled_in() {
        let name = StreamName::new("a.com", "live/hd", "s").unwrap();
        let path =
            "/r/[vhost]/[app]/[2006]/[01]/[02]/[stream]-[15].[04].[05].[999]_[timestamp].mp4";
        let template = Template::new(path);
        let filled = template.fill(&name, 1_700_000_000_123);
        let expected = "a.com/live/hd/2023/11/14/s-22.13.20.123_1700000000123.mp4";
        assert_eq!(filled, expected);
        assert!(template.matches(expected) && template.has_time());
    }

    #[test]
    fn only_recordings_match() {
        let template = Template::new("./html/[app]/[stream].[timestamp].flv");
        for good in ["live/s.1700000000000.flv", "a/b/s.1.1700000000000-12.flv"] {
            assert!(template.matches(good), "{good}");
        }
        for bad in [
            "index.html",
            "live/s.flv",
            "live/s.1700000000000.flv.tmp",
            "live/s.17.flv",
            "live/s.1700000000000.mp4",
            "s.1700000000000.flv",
        ] {
            assert!(!template.matches(bad), "{bad}");
        }
        assert!(!Template::new("/x/[stream].flv").has_time());
        assert!(!Template::new("/x/[2006]/[stream].flv").has_time());
    }
}
