//! The values of a conf: the elements of each directive, by index.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::directives;
use crate::os::bash::expanded;
use crate::os::digest::Digest;

/// The values of the directives of a conf. As in bash, an array can have gaps, and a plain variable
/// is element 0.
///
/// In TOML, each directive is a table with indexes as keys, such as `MAKE = { 0 = "make" }`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
pub struct Values(BTreeMap<String, BTreeMap<usize, String>>);

/// The serialised form of [`Values`]. The indexes are strings, because TOML has no other keys.
type Written = BTreeMap<String, BTreeMap<String, String>>;

impl Values {
    /// Returns the element of `directive` at `index`, or `None` if the element is unset.
    #[must_use]
    pub fn get(&self, directive: &str, index: usize) -> Option<&str> {
        self.0.get(directive)?.get(&index).map(String::as_str)
    }

    /// Returns the element of `directive` at `index`, or `None` if the element is unset or empty.
    /// dkms treats both alike.
    #[must_use]
    pub fn text(&self, directive: &str, index: usize) -> Option<&str> {
        self.get(directive, index).filter(|text| !text.is_empty())
    }

    /// Returns the index and the value of every element of `directive`, sorted by index.
    pub fn elements(&self, directive: &str) -> impl Iterator<Item = (usize, &str)> {
        let elements = self.0.get(directive).into_iter().flatten();
        elements.map(|(index, text)| (*index, text.as_str()))
    }

    /// Returns the directive, index and value of every element of every directive.
    pub fn iter(&self) -> impl Iterator<Item = (&str, usize, &str)> {
        self.0.iter().flat_map(|(name, elements)| {
            elements.iter().map(|(index, text)| (name.as_str(), *index, text.as_str()))
        })
    }

    /// Sets the element of `directive` at `index` to `text`. Ignores an unknown directive, as dkms
    /// does.
    pub fn set(&mut self, directive: &str, index: usize, text: impl Into<String>) {
        if directives::is_known(directive) {
            self.0.entry(directive.to_owned()).or_default().insert(index, text.into());
        }
    }

    /// Returns a digest of the names, indexes and values of all elements.
    #[must_use]
    pub fn digest(&self) -> Digest {
        let mut text = String::new();
        for (name, index, value) in self.iter() {
            // Without the length, two different sets of values could have the same text.
            text.push_str(&format!("{name} {index} {}\n{value}", value.len()));
        }
        Digest::of_bytes(text.as_bytes())
    }

    /// Replaces `$name` and `${name}` in all values. `name` is a key of `variables`, PACKAGE_NAME
    /// or PACKAGE_VERSION.
    ///
    /// dkms evaluates every value a second time, and some confs rely on this: `'$kernelver'` works
    /// even in single quotes. In dkms, the second evaluation also runs commands; this function does
    /// not run them. As in dkms, a backslash prevents the replacement and is removed.
    pub(super) fn expand(&mut self, variables: &BTreeMap<&str, String>) {
        let package = ["PACKAGE_NAME", "PACKAGE_VERSION"];
        // dkms evaluates these two first, and other directives can refer to them.
        for name in package {
            if let Some(text) = self.0.get_mut(name).and_then(|elements| elements.get_mut(&0)) {
                *text = expanded(text, |name| variables.get(name).map(String::as_str));
            }
        }
        let own: BTreeMap<_, _> = package
            .iter()
            .filter_map(|name| Some((*name, self.get(name, 0)?.to_owned())))
            .collect();
        let lookup = |name: &str| variables.get(name).or(own.get(name)).map(String::as_str);
        for (name, elements) in &mut self.0 {
            for (index, text) in elements {
                if *index != 0 || !package.contains(&name.as_str()) {
                    *text = expanded(text, lookup);
                }
            }
        }
    }
}

impl TryFrom<Written> for Values {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        let mut values = Self::default();
        for (directive, elements) in written {
            if !directives::is_known(&directive) {
                return Err(format!("unknown dkms.conf directive: {directive}"));
            }
            for (index, text) in elements {
                let number =
                    index.parse().map_err(|_| format!("invalid array index: {index:?}"))?;
                values.set(&directive, number, text);
            }
        }
        Ok(values)
    }
}

impl From<Values> for Written {
    fn from(values: Values) -> Self {
        let text = |(index, text): (usize, String)| (index.to_string(), text);
        let elements = |elements: BTreeMap<usize, String>| elements.into_iter().map(text).collect();
        values.0.into_iter().map(|(name, of)| (name, elements(of))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;

    fn values(make: &[(usize, &str)]) -> Values {
        let mut values = Values::default();
        for (index, text) in make {
            values.set("MAKE", *index, *text);
        }
        values
    }

    #[rstest]
    #[case::plain("-C $kernel_source_dir", "-C /l/build")]
    #[case::braces("KVER=${kernelver}x", "KVER=7.2x")]
    #[case::package("$PACKAGE_NAME-${PACKAGE_VERSION}", "zfs-2.7.2")]
    #[case::escaped(r"\$kernelver", "$kernelver")]
    #[case::longer_name("$kernelvers $kernelver_", "$kernelvers $kernelver_")]
    #[case::other(
        "$HOME ${kernelver%%-*} $(uname) `id` $",
        "$HOME ${kernelver%%-*} $(uname) `id` $"
    )]
    #[case::unclosed("${kernelver", "${kernelver")]
    #[case::once("$arch", "$kernelver")]
    #[case::next_to_other_text("é$kernelver$kernelver€", "é7.27.2€")]
    fn expands_variables_in_values_once(#[case] text: &str, #[case] want: &str) {
        let mut values = values(&[(3, text)]);
        values.set("PACKAGE_NAME", 0, "zfs");
        values.set("PACKAGE_VERSION", 0, "2.$kernelver");
        let given = [
            ("kernelver", "7.2".to_owned()),
            ("kernel_source_dir", "/l/build".to_owned()),
            ("arch", "$kernelver".to_owned()),
        ];
        values.expand(&BTreeMap::from(given));
        assert_eq!(values.get("MAKE", 3), Some(want));
    }

    #[test]
    fn different_values_have_different_digests() {
        let digests = [
            values(&[(0, "a"), (1, "b")]),
            values(&[(0, "a\nMAKE 1 1\nb")]),
            values(&[(0, "ab")]),
            values(&[(1, "ab")]),
            Values::default(),
        ]
        .map(|values| values.digest());
        let texts = digests.iter().map(ToString::to_string);
        let different: std::collections::BTreeSet<_> = texts.collect();
        assert_eq!(different.len(), digests.len());
    }

    #[rstest]
    #[case("MAKE = { x = 'make' }")]
    #[case("source_tree = { 0 = '/' }")]
    #[case("MAKE = 'make'")]
    fn rejects_toml_with_invalid_keys_or_values(#[case] text: &str) {
        assert!(toml::from_str::<Values>(text).is_err());
    }

    proptest! {
        #[test]
        fn serialised_values_are_read_unchanged(texts in proptest::collection::vec(any::<String>(), 0..5)) {
            let mut values = Values::default();
            for (number, text) in texts.iter().enumerate() {
                values.set("POST_INSTALL", number * 7, text.as_str());
            }
            values.set("PRE_BUILD", 0, texts.join("'''\r\n\"\"\""));
            let written = toml::to_string(&values).unwrap();
            prop_assert_eq!(toml::from_str::<Values>(&written).unwrap(), values);
        }

        #[test]
        fn expands_any_text_without_panicking(text in r"([$\\{}a-c_é]|kernelver){0,12}") {
            let mut some = values(&[(0, &text)]);
            some.expand(&BTreeMap::from([("kernelver", "7".to_owned())]));
        }
    }
}
