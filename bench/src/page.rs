//! The comparison as one HTML page that needs nothing else.

use serde_json::Value;

/// The page.
pub fn render(report: &Value) -> String {
    loadtest::html::fill(PAGE, &report.to_string())
}

const PAGE: &str = include_str!("page.html");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_asks_nobody_for_anything() {
        loadtest::html::assert_self_contained(PAGE);
    }
}
