//! Names of modules, versions, kernels and architectures, all of which are safe path components.

use std::ffi::OsStr;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The error for text that is not a valid name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "invalid {what}: {text:?} (expected one path component without blanks or control characters, \
     not starting with . or -)"
)]
pub struct BadName {
    /// The expected kind of name, e.g. "kernel release".
    pub what: &'static str,
    /// The rejected text. Bytes that are not valid UTF-8 have been replaced with U+FFFD.
    pub text: String,
}

/// Returns true if `text` is a single path component that other programs do not misread.
///
/// `text` must not start with a dot (a hidden file) or a dash (an option). It must not contain
/// blanks, because dkms separates names with blanks. It must not contain control characters,
/// because pacman passes file names to hooks line by line.
fn is_component(text: &str) -> bool {
    !text.is_empty()
        && !text.starts_with(['.', '-'])
        && !text.contains(|c: char| c == '/' || c.is_whitespace() || c.is_control())
}

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Returns the name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// Parses the name of a directory entry.
            ///
            /// # Errors
            /// [`BadName`] if the entry is not UTF-8 or not a valid name.
            pub fn from_entry(entry: &OsStr) -> Result<Self, BadName> {
                match entry.to_str() {
                    Some(text) => text.parse(),
                    None => Err(BadName { what: $what, text: entry.to_string_lossy().into() }),
                }
            }
        }

        impl FromStr for $name {
            type Err = BadName;
            fn from_str(text: &str) -> Result<Self, BadName> {
                if is_component(text) {
                    Ok(Self(text.to_owned()))
                } else {
                    Err(BadName { what: $what, text: text.to_owned() })
                }
            }
        }

        impl TryFrom<String> for $name {
            type Error = BadName;
            fn try_from(text: String) -> Result<Self, BadName> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl AsRef<std::path::Path> for $name {
            fn as_ref(&self) -> &std::path::Path {
                self.0.as_ref()
            }
        }
    };
}

name_type!(
    /// A module's name: its `PACKAGE_NAME`, and the name of its directory in the dkms tree.
    ModuleName,
    "module name"
);
name_type!(
    /// A module's version: its `PACKAGE_VERSION`, and the name of a subdirectory of the module's
    /// directory in the dkms tree.
    ModuleVersion,
    "module version"
);
name_type!(
    /// A kernel release as printed by `uname -r`. A directory in `/usr/lib/modules` has this name.
    KernelRelease,
    "kernel release"
);

impl KernelRelease {
    /// Returns true if two releases look like versions of the same kernel package.
    ///
    /// This is true of `7.2.12-arch1-1` and `7.2.13-arch1-1`, but not of `7.2.12-arch1-1` and
    /// `6.12.8-1-lts`.
    #[must_use]
    pub fn is_same_flavour(&self, other: &Self) -> bool {
        let flavour = |release: &Self| -> String {
            release.0.chars().filter(char::is_ascii_alphabetic).collect()
        };
        flavour(self) == flavour(other)
    }
}

name_type!(
    /// A machine architecture as printed by `uname -m`, such as `x86_64`.
    Arch,
    "architecture"
);

impl Arch {
    /// Returns the architecture for which this program was compiled.
    ///
    /// On Arch Linux, it is also the output of `uname -m`, which dkms uses (dkms-behaviour 1.4).
    #[must_use]
    pub fn of_this_machine() -> Self {
        Self(std::env::consts::ARCH.to_owned())
    }
}

/// A module's name and version, written `name/version`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ModuleId {
    /// The module's `PACKAGE_NAME`.
    pub name: ModuleName,
    /// The module's `PACKAGE_VERSION`.
    pub version: ModuleVersion,
}

impl ModuleId {
    /// Parses the name of a source directory, `name-version`.
    ///
    /// As in the dkms hook of Arch Linux, the version starts after the last dash. If the name is
    /// [ambiguous](Self::is_ambiguous), the directory's dkms.conf can determine another split; see
    /// [`named`](Self::named).
    ///
    /// # Errors
    /// [`BadName`] if `dir` contains no dash, or if the name or the version is not valid.
    pub fn from_source_dir(dir: &str) -> Result<Self, BadName> {
        let bad = || BadName { what: "source directory (name-version)", text: dir.to_owned() };
        let (name, version) = dir.rsplit_once('-').ok_or_else(bad)?;
        Ok(Self { name: name.parse()?, version: version.parse()? })
    }

    /// Returns true if there are several ways to split a source directory's name into the name and
    /// the version of a module.
    #[must_use]
    pub fn is_ambiguous(dir: &str) -> bool {
        Self::splits(dir).nth(1).is_some()
    }

    /// Returns the module with this name and version. Returns `None` if `dir`, the name of the
    /// source directory, is not `name` and `version` joined by a dash.
    #[must_use]
    pub fn named(dir: &str, name: &str, version: &str) -> Option<Self> {
        Self::splits(dir).find(|id| id.name.as_str() == name && id.version.as_str() == version)
    }

    fn splits(dir: &str) -> impl Iterator<Item = Self> {
        let splits = dir.match_indices('-').map(|(at, _)| (&dir[..at], &dir[at + 1..]));
        splits.filter_map(|(name, version)| {
            Some(Self { name: name.parse().ok()?, version: version.parse().ok()? })
        })
    }

    /// Returns the name of this module's directory in the source tree, `name-version`.
    #[must_use]
    pub fn source_dir(&self) -> String {
        format!("{}-{}", self.name, self.version)
    }
}

impl FromStr for ModuleId {
    type Err = BadName;
    fn from_str(text: &str) -> Result<Self, BadName> {
        let bad = || BadName { what: "module (name/version)", text: text.to_owned() };
        let (name, version) = text.split_once('/').ok_or_else(bad)?;
        Ok(Self { name: name.parse()?, version: version.parse()? })
    }
}

impl TryFrom<String> for ModuleId {
    type Error = BadName;
    fn try_from(text: String) -> Result<Self, BadName> {
        text.parse()
    }
}

impl From<ModuleId> for String {
    fn from(id: ModuleId) -> String {
        id.to_string()
    }
}

impl fmt::Display for ModuleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.name, self.version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case::plain("zfs", true)]
    #[case::dotted("7.2.12-arch1-1", true)]
    #[case::plus("6.12.107+deb13", true)]
    #[case::empty("", false)]
    #[case::hidden(".kept", false)]
    #[case::option("-rf", false)]
    #[case::parent("..", false)]
    #[case::slash("a/b", false)]
    #[case::blank("a b", false)]
    #[case::newline("a\nb", false)]
    fn accepts_only_plain_path_components(#[case] text: &str, #[case] valid: bool) {
        assert_eq!(text.parse::<ModuleName>().is_ok(), valid);
    }

    #[rstest]
    #[case("nvidia-open-595.1", "nvidia-open", "595.1")]
    #[case("vhba-module-20260313", "vhba-module", "20260313")]
    fn splits_a_source_dir_at_the_last_dash(
        #[case] dir: &str,
        #[case] name: &str,
        #[case] version: &str,
    ) {
        let id = ModuleId::from_source_dir(dir).unwrap();
        assert_eq!((id.name.as_str(), id.version.as_str()), (name, version));
        assert_eq!(id.source_dir(), dir);
    }

    #[rstest]
    #[case::last_dash("a-b-1", "a-b", "1", true)]
    #[case::other_dash("hid-v0.11-pre-64", "hid", "v0.11-pre-64", true)]
    #[case::other_package("amzn-drivers-2.13.0", "ena", "2.13.0", false)]
    #[case::other_version("a-b-1", "a-b", "2", false)]
    #[case::no_version("a-b-1", "a-b-1", "", false)]
    #[case::invalid_name("a--1", "a", "-1", false)]
    fn splits_a_source_dir_by_its_conf(
        #[case] dir: &str,
        #[case] name: &str,
        #[case] version: &str,
        #[case] fits: bool,
    ) {
        let id = ModuleId::named(dir, name, version);
        assert_eq!(id.map(|id| id.to_string()), fits.then(|| format!("{name}/{version}")));
    }

    #[test]
    fn source_dir_with_one_dash_is_unambiguous() {
        assert!(!ModuleId::is_ambiguous("zfs-2.4"));
        assert!(!ModuleId::is_ambiguous("zfs--2.4")); // a version does not begin with a dash
        assert!(ModuleId::is_ambiguous("nvidia-open-595.1"));
    }

    #[test]
    fn rejects_a_source_dir_without_a_version() {
        assert!(ModuleId::from_source_dir("linux").is_err());
        assert!(ModuleId::from_source_dir("linux-").is_err());
    }
}
