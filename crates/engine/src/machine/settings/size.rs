//! Sizes in the settings file, such as `"512M"`.

use serde::Deserialize;

/// A number of bytes, given in the file as a number or as a string such as `"512M"`. The suffixes
/// K, M, G and T are powers of 1024.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Written")]
pub(super) struct Size(pub(super) u64);

#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a number of bytes or a size such as \"512M\" or \"1G\"")]
enum Written {
    Number(u64),
    Text(String),
}

/// The error for a string that is not a size.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid size: {0:?} (expected a number of bytes or a size such as \"512M\" or \"1G\")")]
pub(super) struct BadSize(String);

impl TryFrom<Written> for Size {
    type Error = BadSize;
    fn try_from(written: Written) -> Result<Self, BadSize> {
        match written {
            Written::Number(bytes) => Ok(Self(bytes)),
            Written::Text(text) => text.parse(),
        }
    }
}

impl std::str::FromStr for Size {
    type Err = BadSize;
    fn from_str(text: &str) -> Result<Self, BadSize> {
        let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(end);
        let power = match unit.trim() {
            "" => 0,
            "K" => 1,
            "M" => 2,
            "G" => 3,
            "T" => 4,
            _ => return Err(BadSize(text.to_owned())),
        };
        let number: Option<u64> = number.parse().ok();
        let bytes = number.and_then(|number| number.checked_mul(1024_u64.pow(power)));
        bytes.map(Self).ok_or_else(|| BadSize(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("0", Some(0))]
    #[case("700", Some(700))]
    #[case("3K", Some(3 << 10))]
    #[case("512M", Some(512 << 20))]
    #[case("2 G", Some(2 << 30))]
    #[case("1T", Some(1 << 40))]
    #[case::empty("", None)]
    #[case::no_number("G", None)]
    #[case::unknown_unit("5 apples", None)]
    #[case::negative("-1", None)]
    #[case::too_large("99999999999T", None)]
    fn parses_sizes(#[case] text: &str, #[case] bytes: Option<u64>) {
        assert_eq!(text.parse().ok(), bytes.map(Size));
    }
}
