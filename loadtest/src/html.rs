//! A report as one HTML page that needs nothing else: the data as JSON, a script that draws it.

use crate::report::Report;

/// The page.
pub fn render(report: &Report) -> String {
    let json = serde_json::to_string(report).expect("a report has string keys only");
    // "</script>" inside a URL or a name must not end the script.
    PAGE.replace("/*DATA*/null", &json.replace('<', "\\u003c"))
}

const PAGE: &str = include_str!("report.html");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_asks_nobody_for_anything() {
        assert!(!PAGE.contains("http://") && !PAGE.contains("https://") && !PAGE.contains("src="));
        assert_eq!(PAGE.matches("/*DATA*/null").count(), 1);
    }
}
