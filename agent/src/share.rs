//! A share of a whole, as people write it: `1%`, `0.05%`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

const PER_PERCENT: f64 = 10_000.0;

/// A share, kept in millionths: 0 to 100 %.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Share(u32);

impl Share {
    /// Of so many millionths.
    #[must_use]
    pub const fn millionths(millionths: u32) -> Self {
        Self(millionths)
    }

    /// As a fraction: 1 is the whole.
    #[must_use]
    pub fn fraction(self) -> f64 {
        f64::from(self.0) / 1e6
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", f64::from(self.0) / PER_PERCENT)
    }
}

impl FromStr for Share {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = text.trim().strip_suffix('%').map(|number| number.trim_end().parse::<f64>());
        match number {
            Some(Ok(percent)) if (0.0..=100.0).contains(&percent) => {
                Ok(Self((percent * PER_PERCENT).round() as u32))
            }
            _ => Err(format!("`{text}` is no share; write it as 1%, from 0% to 100%")),
        }
    }
}

impl Serialize for Share {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Share {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_read_as_they_are_written() {
        for (text, millionths) in [("1%", 10_000), ("0.05%", 500), ("100 %", 1_000_000)] {
            let share: Share = text.parse().unwrap();
            assert_eq!(share, Share::millionths(millionths), "{text}");
            assert_eq!(share.to_string().parse(), Ok(share));
        }
        assert_eq!(Share::millionths(500).to_string(), "0.05%");
        for odd in ["", "1", "%", "-1%", "101%", "nan%", "a%", "1%%"] {
            assert!(odd.parse::<Share>().is_err(), "{odd}");
        }
    }
}
