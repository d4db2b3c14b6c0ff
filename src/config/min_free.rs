//! How much space must stay free: `keep.min_free` in the configuration. Bytes, and not inodes.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer};

use crate::text::bytes_in_words;

/// How much must be free on the filesystem that holds a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MinFree {
    /// This share of it, in percent.
    Percent(u8),
    /// This many bytes.
    Bytes(u64),
}

impl MinFree {
    /// The bytes that must be free where there are `total`.
    #[must_use]
    pub fn of(self, total: u64) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes,
            // In two parts, since the whole times a hundred may not fit.
            Self::Percent(percent) => {
                let percent = u64::from(percent);
                total / 100 * percent + total % 100 * percent / 100
            }
        }
    }
}

impl fmt::Display for MinFree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Percent(percent) => write!(f, "{percent}%"),
            Self::Bytes(bytes) => f.write_str(&bytes_in_words(*bytes)),
        }
    }
}

/// What is no [`MinFree`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotASize;

impl fmt::Display for NotASize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "is neither a share, as in \"5%\" (1 to 99), nor a size, as in \"2 GiB\" (with KiB, MiB, \
             GiB or TiB)",
        )
    }
}

impl std::error::Error for NotASize {}

impl FromStr for MinFree {
    type Err = NotASize;

    fn from_str(text: &str) -> Result<Self, NotASize> {
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let number: u64 = number.parse().map_err(|_| NotASize)?;
        let shift = match unit.strip_prefix(' ').unwrap_or(unit) {
            "%" => {
                let percent = u8::try_from(number).map_err(|_| NotASize)?;
                return if (1..=99).contains(&percent) {
                    Ok(Self::Percent(percent))
                } else {
                    Err(NotASize)
                };
            }
            "KiB" => 10,
            "MiB" => 20,
            "GiB" => 30,
            "TiB" => 40,
            _ => return Err(NotASize),
        };
        number.checked_mul(1 << shift).filter(|&bytes| bytes > 0).map(Self::Bytes).ok_or(NotASize)
    }
}

impl<'de> Deserialize<'de> for MinFree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(|error| {
            serde::de::Error::custom(format!("volume.keep.min_free: {text:?} {error}"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_or_a_size_is_read() {
        assert_eq!("5%".parse(), Ok(MinFree::Percent(5)));
        assert_eq!("99 %".parse(), Ok(MinFree::Percent(99)));
        assert_eq!("2 GiB".parse(), Ok(MinFree::Bytes(2 << 30)));
        assert_eq!("512MiB".parse(), Ok(MinFree::Bytes(512 << 20)));
        assert_eq!("1 KiB".parse(), Ok(MinFree::Bytes(1024)));
        assert_eq!("3 TiB".parse(), Ok(MinFree::Bytes(3 << 40)));
    }

    #[test]
    fn anything_else_is_refused() {
        let wrong = [
            "",
            "%",
            "0%",
            "100%",
            "256%",
            "5",
            "-1%",
            "5.5%",
            "2 GB",
            "2  GiB",
            "GiB",
            "0 GiB",
            " 5%",
            "2 GiB ",
            "+2 GiB",
            "99999999999999999999 KiB",
            "16777216 TiB",
        ];
        for text in wrong {
            assert_eq!(text.parse::<MinFree>(), Err(NotASize), "{text:?}");
        }
    }

    #[test]
    fn a_share_of_the_whole_is_exact_and_cannot_overflow() {
        assert_eq!(MinFree::Percent(5).of(1000), 50);
        assert_eq!(MinFree::Percent(5).of(1019), 50);
        assert_eq!(MinFree::Percent(5).of(1020), 51);
        assert_eq!(MinFree::Percent(99).of(u64::MAX), u64::MAX / 100 * 99 + 14);
        assert_eq!(MinFree::Bytes(7).of(3), 7);
        assert_eq!(MinFree::Percent(50).of(0), 0);
    }
}
