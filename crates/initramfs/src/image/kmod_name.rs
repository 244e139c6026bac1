//! The name of a kernel module as modprobe knows it.

use std::fmt;
use std::path::Path;

use dkms_engine::objects::ObjectName;

/// The name of a kernel module, `v4l2loopback`. `-` and `_` are the same in it, as for modprobe(8): it is kept
/// with `_`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KmodName(String);

impl KmodName {
    /// The name as written in a configuration file.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self(text.replace('-', "_"))
    }

    /// The module that is in a file of this path, compressed or not; `None` if the file is not a kernel object.
    #[must_use]
    pub fn of_file(path: &Path) -> Option<Self> {
        let name = ObjectName::parse(path.file_name()?.to_str()?)?;
        Some(Self::new(&name.module))
    }

    /// The name, with `_`.
    #[must_use]
    pub fn as_str(&self) -> &str {
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
    fn dash_and_underscore_are_the_same() {
        let name =
            KmodName::of_file(Path::new("usr/lib/modules/7.2.1/updates/dkms/hid-xpadneo.ko.zst"));
        assert_eq!(name, Some(KmodName::new("hid_xpadneo")));
        assert_eq!(KmodName::of_file(Path::new("usr/lib/modules/7.2.1/modules.dep")), None);
    }
}
