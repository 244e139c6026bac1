//! The names of modules, versions, kernels and architectures, each fit to be one path component.

use std::ffi::OsStr;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A text that cannot be the name it was given as.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} cannot be a {what}: it must be one path component, without blanks or control characters"
)]
pub struct BadName {
    /// The kind of name that was wanted, e.g. "kernel release".
    pub what: &'static str,
    /// The text as given (lossy where it is not UTF-8).
    pub text: String,
}

/// One path component that no tool in the chain misreads: not hidden, no separator, no blank
/// (dkms lists names in shell words), no control character (pacman forwards whole lines).
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
            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// Reads a name from one entry of a directory.
            ///
            /// # Errors
            /// [`BadName`] if the entry is not UTF-8 or not fit to be this kind of name.
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
    /// The name of a module as dkms knows it: `PACKAGE_NAME`, a directory of the dkms tree.
    ModuleName,
    "module name"
);
name_type!(
    /// The version of a module: `PACKAGE_VERSION`, a directory below the module's.
    ModuleVersion,
    "module version"
);
name_type!(
    /// A kernel release, what `uname -r` prints: a directory of `/usr/lib/modules`.
    KernelRelease,
    "kernel release"
);
name_type!(
    /// A machine architecture, what `uname -m` prints.
    Arch,
    "architecture"
);

impl Arch {
    /// The architecture of this machine. Arch kernels are built for the machine they run on
    /// (dkms-behaviour 1.4: `uname -m` there).
    #[must_use]
    pub fn of_this_machine() -> Self {
        Self(std::env::consts::ARCH.to_owned())
    }
}

/// A module in one version, written `name/version`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ModuleId {
    /// The module.
    pub name: ModuleName,
    /// Its version.
    pub version: ModuleVersion,
}

impl ModuleId {
    /// Reads the name of a source directory, `name-version`, as Arch's hook does: the version
    /// starts after the last dash.
    ///
    /// # Errors
    /// [`BadName`] if there is no dash, or if a part is not fit to be a name.
    pub fn from_source_dir(dir: &str) -> Result<Self, BadName> {
        let bad = || BadName { what: "source directory (name-version)", text: dir.to_owned() };
        let (name, version) = dir.rsplit_once('-').ok_or_else(bad)?;
        Ok(Self { name: name.parse()?, version: version.parse()? })
    }

    /// The name of this module's directory in the source tree.
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
    #[case::up("..", false)]
    #[case::slash("a/b", false)]
    #[case::blank("a b", false)]
    #[case::line("a\nb", false)]
    fn takes_one_component(#[case] text: &str, #[case] fits: bool) {
        assert_eq!(text.parse::<ModuleName>().is_ok(), fits);
    }

    #[rstest]
    #[case("nvidia-open-595.1", "nvidia-open", "595.1")]
    #[case("vhba-module-20260313", "vhba-module", "20260313")]
    fn splits_a_source_dir_at_its_last_dash(
        #[case] dir: &str,
        #[case] name: &str,
        #[case] version: &str,
    ) {
        let id = ModuleId::from_source_dir(dir).unwrap();
        assert_eq!((id.name.as_str(), id.version.as_str()), (name, version));
        assert_eq!(id.source_dir(), dir);
    }

    #[test]
    fn refuses_a_source_dir_without_version() {
        assert!(ModuleId::from_source_dir("linux").is_err());
        assert!(ModuleId::from_source_dir("linux-").is_err());
    }
}
