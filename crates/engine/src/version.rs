//! Compares versions: in dkms's order for the limits in a conf, in the natural one elsewhere.

use std::cmp::Ordering;

/// What dkms compares instead of a version (its `VER()`, dkms-behaviour 3.6): numbers of one or
/// two digits are filled up to three, longer ones stay, blanks go. Keys are compared as text.
///
/// Only for `BUILD_EXCLUSIVE_KERNEL_MIN` and `_MAX`, whose authors tried their limits with dkms:
/// `6.12` as a maximum excludes 6.12.1 there. For everything else there is [`compare`].
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

/// The natural order of versions: numbers by value (1.9 < 1.10, 999 < 2024), everything else as
/// text, and what goes on comes after what ends. Versions without zeros in front of a number and
/// with at most three digits in it are ordered as dkms orders them.
///
/// Equal only for equal texts, so that `1.01` and `1.1` have an order too.
#[must_use]
pub fn compare(a: &str, b: &str) -> Ordering {
    parts(a).cmp(parts(b)).then_with(|| a.cmp(b))
}

/// A piece of a version.
#[derive(Debug, Clone, Copy)]
enum Part<'a> {
    /// A run of digits, as long as can be.
    Number(&'a str),
    /// One other character.
    Other(char),
}

fn parts(version: &str) -> impl Iterator<Item = Part<'_>> {
    let mut rest = version;
    std::iter::from_fn(move || {
        let first = rest.chars().next()?;
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let (piece, behind) = rest.split_at(if digits == 0 { first.len_utf8() } else { digits });
        rest = behind;
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
            // A number stands where its digits stand in ASCII: after '.' and '-', before letters.
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
    fn has_the_keys_of_dkms(#[case] version: &str, #[case] want: &str) {
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
    #[case::nothing("", "0")]
    fn orders_versions_naturally(#[case] older: &str, #[case] newer: &str) {
        assert_eq!(compare(older, newer), Ordering::Less);
        assert_eq!(compare(newer, older), Ordering::Greater);
    }

    proptest! {
        #[test]
        fn is_a_total_order(
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
        fn takes_any_text(a in any::<String>(), b in any::<String>()) {
            prop_assert_eq!(compare(&a, &b), compare(&b, &a).reverse());
            let _ = key(&a);
        }
    }
}
