//! A report as one HTML page that needs nothing else: the data as JSON, a script that draws it.

use crate::report::Report;

/// The page.
pub fn render(report: &Report) -> String {
    fill(PAGE, &serde_json::to_string(report).expect("a report has string keys only"))
}

/// Puts data (JSON) into a page whose script has a place for it.
pub fn fill(page: &str, json: &str) -> String {
    // "</script>" inside a URL or a name must not end the script.
    page.replace(PLACE, &json.replace('<', "\\u003c"))
}

/// For tests of pages.
///
/// # Panics
/// The page needs something from elsewhere, or does not have exactly one place for its data.
pub fn assert_self_contained(page: &str) {
    for address in ["http://", "https://", "src="] {
        assert!(!page.contains(address), "the page has {address}");
    }
    assert_eq!(page.matches(PLACE).count(), 1);
}

const PLACE: &str = "/*DATA*/null";

const PAGE: &str = include_str!("report.html");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_asks_nobody_for_anything() {
        assert_self_contained(PAGE);
    }
}
