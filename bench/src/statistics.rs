//! The median and the spread of a few values, and numbers as the page writes them.

/// What is told of a row of values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Summary {
    /// The least.
    pub least: f64,
    /// The middle one, or the mean of the two in the middle.
    pub median: f64,
    /// The most.
    pub most: f64,
    /// How many.
    pub count: usize,
}

impl Summary {
    /// Of these values; `None` of none.
    #[must_use]
    pub fn of(values: &[f64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (least, most) = (*sorted.first()?, *sorted.last()?);
        let middle = sorted.len() / 2;
        let median = if sorted.len() % 2 == 1 {
            sorted[middle]
        } else {
            f64::midpoint(sorted[middle - 1], sorted[middle])
        };
        Some(Self { least, median, most, count: sorted.len() })
    }
}

/// A number with three figures or so: `0.083`, `1.25`, `13.1`, `1,234`.
#[must_use]
pub fn figure(value: f64) -> String {
    match value {
        value if value < 1.0 => format!("{value:.3}"),
        value if value < 10.0 => format!("{value:.2}"),
        value if value < 100.0 => format!("{value:.1}"),
        value => grouped(&format!("{value:.0}")),
    }
}

/// A ratio: two decimals below ten, so that one is `1.00`.
#[must_use]
pub fn ratio(value: f64) -> String {
    if value < 10.0 { format!("{value:.2}") } else { figure(value) }
}

/// Bytes in the unit that suits them.
#[must_use]
pub fn bytes(value: f64) -> String {
    let mut value = value;
    for unit in ["B", "KiB", "MiB"] {
        if value.abs() < 1024.0 {
            return if unit == "B" {
                format!("{value:.0} B")
            } else {
                format!("{value:.1} {unit}")
            };
        }
        value /= 1024.0;
    }
    format!("{value:.1} GiB")
}

/// Digits in groups of three; anything else as it is.
#[must_use]
pub fn grouped(digits: &str) -> String {
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return digits.to_owned();
    }
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{Summary, bytes, figure, grouped, ratio};

    #[test]
    fn a_summary_has_the_middle_value_and_both_ends() {
        let summary = Summary { least: 1.0, median: 3.0, most: 9.0, count: 3 };
        assert_eq!(Summary::of(&[9.0, 1.0, 3.0]), Some(summary));
        let summary = Summary { least: 1.0, median: 2.5, most: 9.0, count: 4 };
        assert_eq!(Summary::of(&[9.0, 1.0, 3.0, 2.0]), Some(summary));
        assert_eq!(Summary::of(&[]), None);
    }

    #[test]
    fn numbers_are_written_with_as_many_figures_as_they_are_worth() {
        assert_eq!(
            [0.0834, 1.254, 13.09, 127.4, 1_234_567.0].map(figure),
            ["0.083", "1.25", "13.1", "127", "1,234,567"]
        );
        assert_eq!([1.0, 0.451, 81.23].map(ratio), ["1.00", "0.45", "81.2"]);
        assert_eq!(
            [0.0, 1023.0, 1536.0, 4_613_734.0, 5_368_709_120.0].map(bytes),
            ["0 B", "1023 B", "1.5 KiB", "4.4 MiB", "5.0 GiB"]
        );
        assert_eq!(
            ["1", "1000", "1000000", "start-up"].map(grouped),
            ["1", "1,000", "1,000,000", "start-up"]
        );
    }
}
