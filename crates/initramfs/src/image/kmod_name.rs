//! Names of kernel modules, compared as modprobe compares them.

use std::fmt;
use std::path::Path;

use dkms_engine::objects::ObjectName;
use serde::{Deserialize, Serialize};

/// The name of a kernel module, such as `v4l2loopback`. `-` and `_` are equivalent, as in
/// modprobe(8); the name is stored with `_`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct KmodName(String);

impl KmodName {
    /// Creates a name from the spelling in a configuration file or listing.
    pub(crate) fn new(text: &str) -> Self {
        Self(text.replace('-', "_"))
    }

    /// Returns the module name of the kernel object at `path`, which may be compressed; `None` for
    /// other files.
    pub(crate) fn of_file(path: &Path) -> Option<Self> {
        let name = ObjectName::parse(path.file_name()?.to_str()?)?;
        Some(Self::new(&name.module))
    }

    /// Returns the name, with `_` in place of `-`.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for KmodName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dash_and_underscore_are_equivalent() {
        let name =
            KmodName::of_file(Path::new("usr/lib/modules/7.2.1/updates/dkms/hid-xpadneo.ko.zst"));
        assert_eq!(name, Some(KmodName::new("hid_xpadneo")));
        assert_eq!(KmodName::of_file(Path::new("usr/lib/modules/7.2.1/modules.dep")), None);
    }
}
