//! The comparison as one HTML page that needs nothing else.

use serde_json::Value;

/// The page.
pub fn render(report: &Value) -> String {
    // "</script>" inside a name must not end the script.
    PAGE.replace("/*DATA*/null", &report.to_string().replace('<', "\\u003c"))
}

const PAGE: &str = include_str!("page.html");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_asks_nobody_for_anything() {
        assert!(!PAGE.contains("http://") && !PAGE.contains("https://") && !PAGE.contains("src="));
        assert_eq!(PAGE.matches("/*DATA*/null").count(), 1);
    }
}
