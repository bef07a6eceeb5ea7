//! Medians, spreads and how numbers are shown.

/// The middle value; the mean of the two in the middle of an even number. Zero without values.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted: Vec<f64> = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => 0.0,
        n if n % 2 == 1 => sorted[n / 2],
        n => (sorted[n / 2 - 1] + sorted[n / 2]) / 2.0,
    }
}

/// Least and greatest value.
pub fn range(values: &[f64]) -> [f64; 2] {
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    let greatest = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if values.is_empty() { [0.0, 0.0] } else { [least, greatest] }
}

/// Difference of the extremes in percent of the median.
pub fn spread(values: &[f64]) -> f64 {
    let [least, greatest] = range(values);
    let middle = median(values);
    if middle == 0.0 { 0.0 } else { (greatest - least) / middle * 100.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_spreads() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(median(&[]), 0.0);
        assert_eq!(spread(&[90.0, 100.0, 120.0]), 30.0);
        assert_eq!(range(&[2.0, 1.0]), [1.0, 2.0]);
    }
}
