//! Compares versions: in dkms's order for the kernel limits in a dkms.conf, and in natural order
//! everywhere else.

use std::cmp::Ordering;

/// Returns the sort key that dkms computes for a version (`VER()`, dkms-behaviour 3.6).
///
/// Numbers are padded with zeros to three digits, and blanks are removed. Keys are compared as
/// text.
///
/// Used only for `BUILD_EXCLUSIVE_KERNEL_MIN` and `_MAX`, because module authors test their limits
/// with dkms, where a maximum of `6.12` excludes 6.12.1. Everything else uses [`compare`].
#[must_use]
pub(crate) fn key(version: &str) -> String {
    let mut key = String::with_capacity(version.len() * 2);
    for part in parts(version) {
        match part {
            Part::Number(digits) => key.push_str(&format!("{digits:0>3}")),
            Part::Other(c) if c.is_ascii_whitespace() => {}
            Part::Other(c) => key.push(c),
        }
    }
    key
}

/// Compares two versions in natural order.
///
/// Numbers are compared by value (1.9 < 1.10, 999 < 2024), and everything else as text. If one
/// version is the beginning of the other, the shorter one is less. The order is the same as
/// dkms's if no number has leading zeros or more than three digits.
///
/// Returns `Equal` only if `a` and `b` are identical: `1.01` and `1.1` are not equal.
#[must_use]
pub fn compare(a: &str, b: &str) -> Ordering {
    parts(a).cmp(parts(b)).then_with(|| a.cmp(b))
}

/// The smallest part of a version that is compared as a unit.
#[derive(Debug, Clone, Copy)]
enum Part<'a> {
    /// A maximal sequence of ASCII digits.
    Number(&'a str),
    /// Any other character.
    Other(char),
}

fn parts(version: &str) -> impl Iterator<Item = Part<'_>> {
    let mut rest = version;
    std::iter::from_fn(move || {
        let first = rest.chars().next()?;
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let (piece, after) = rest.split_at(if digits == 0 { first.len_utf8() } else { digits });
        rest = after;
        Some(if digits == 0 { Part::Other(first) } else { Part::Number(piece) })
    })
}

impl Ord for Part<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Part::Number(a), Part::Number(b)) => {
                let (a, b) = (a.trim_start_matches('0'), b.trim_start_matches('0'));
                a.len().cmp(&b.len()).then_with(|| a.cmp(b))
            }
            // A number is ordered like its digits in ASCII: after '.' and '-', before letters.
            (Part::Number(_), Part::Other(c)) => '0'.cmp(c),
            (Part::Other(c), Part::Number(_)) => c.cmp(&'0'),
            (Part::Other(a), Part::Other(b)) => a.cmp(b),
        }
    }
}

impl PartialOrd for Part<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Part<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Part<'_> {}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;

    #[rstest]
    #[case("6.12.107+deb13", "006.012.107+deb013")]
    #[case("2.6.9-1cvs200409091247", "002.006.009-001cvs200409091247")]
    #[case("7.2.12-arch1-1", "007.002.012-arch001-001")]
    #[case(" 6 . 12 ", "006.012")]
    #[case("", "")]
    #[case("0001.é9", "0001.é009")]
    fn computes_the_same_keys_as_dkms(#[case] version: &str, #[case] want: &str) {
        assert_eq!(key(version), want);
    }

    #[rstest]
    #[case::tens("1.9", "1.10")]
    #[case::years("999", "2024")]
    #[case::patch("6.12", "6.12.1")]
    #[case::pkgrel("595.1-1", "595.1-2")]
    #[case::zeros("1.1", "1.01.1")]
    #[case::only_zeros("1.01", "1.1")]
    #[case::huge("99999999999999999999999", "100000000000000000000000")]
    #[case::letters("1.2", "1.a")]
    #[case::empty("", "0")]
    fn orders_versions_naturally(#[case] older: &str, #[case] newer: &str) {
        assert_eq!(compare(older, newer), Ordering::Less);
        assert_eq!(compare(newer, older), Ordering::Greater);
    }

    proptest! {
        #[test]
        fn natural_order_is_total(
            a in "[0-9.a+~é-]{0,8}", b in "[0-9.a+~é-]{0,8}", c in "[0-9.a+~é-]{0,8}",
        ) {
            prop_assert_eq!(compare(&a, &b), compare(&b, &a).reverse());
            prop_assert_eq!(compare(&a, &b).is_eq(), a == b);
            if compare(&a, &b).is_le() && compare(&b, &c).is_le() {
                prop_assert!(compare(&a, &c).is_le());
            }
        }

        #[test]
        fn agrees_with_dkms_on_ordinary_versions(
            a in "(0|[1-9][0-9]{0,2})([.-](0|[1-9][0-9]{0,2})){0,3}(rc[1-9])?",
            b in "(0|[1-9][0-9]{0,2})([.-](0|[1-9][0-9]{0,2})){0,3}(rc[1-9])?",
        ) {
            prop_assert_eq!(compare(&a, &b), key(&a).cmp(&key(&b)));
        }

        #[test]
        fn accepts_any_text(a in any::<String>(), b in any::<String>()) {
            prop_assert_eq!(compare(&a, &b), compare(&b, &a).reverse());
            let _ = key(&a);
        }
    }
}
