//! A number of bytes as people write it.

use std::fmt;
use std::str::FromStr;

use bytesize::ByteSize;
use serde::de::{self, Deserialize, Deserializer, Unexpected, Visitor};
use serde::{Serialize, Serializer};

/// Bytes, written as a number or with a unit ("2GiB", "500 MB").
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

const EXPECTED: &str = "a number of bytes or a size such as \"2GiB\"";

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.parse::<ByteSize>() {
            // A size beyond 64 bits would become the largest there is.
            Ok(ByteSize(bytes)) if bytes < u64::MAX => Ok(Self(bytes)),
            _ => Err(format!("expected {EXPECTED}, found {text:?}")),
        }
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(self.0)
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnySize)
    }
}

struct AnySize;

impl Visitor<'_> for AnySize {
    type Value = Size;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(EXPECTED)
    }

    fn visit_u64<E: de::Error>(self, bytes: u64) -> Result<Size, E> {
        Ok(Size(bytes))
    }

    fn visit_i64<E: de::Error>(self, bytes: i64) -> Result<Size, E> {
        u64::try_from(bytes).map(Size).map_err(|_| E::invalid_value(Unexpected::Signed(bytes), &self))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Size, E> {
        text.parse().map_err(|_| E::invalid_value(Unexpected::Str(text), &self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_units() {
        for (text, bytes) in [
            ("0", 0),
            ("1048576", 1 << 20),
            ("2GiB", 2 << 30),
            ("2 GiB", 2 << 30),
            ("1.5MiB", 3 << 19),
            ("500 MB", 500_000_000),
        ] {
            assert_eq!(text.parse(), Ok(Size(bytes)), "{text}");
        }
    }

    #[test]
    fn what_is_no_size() {
        for text in [
            "",
            " ",
            "GiB",
            "-1",
            "-1GiB",
            "2 gb x",
            "2GiB2",
            "1..5GiB",
            "1e3",
            "0x10",
            "NaN",
            "inf",
            "999999999EiB",
            "2,5GiB",
            "٣GiB",
        ] {
            let refused = text.parse::<Size>();
            assert!(refused.as_ref().is_err_and(|error| error.contains("2GiB")), "{text}: {refused:?}");
        }
    }
}
