//! The name of a kernel module as modprobe knows it.

use std::fmt;
use std::path::Path;

use dkms_engine::objects::ObjectName;

/// The name of a kernel module, such as `v4l2loopback`. `-` and `_` are equal, as for modprobe(8); it is stored with `_`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct KmodName(String);

impl KmodName {
    /// Parses the name as written in a configuration file.
    pub(crate) fn new(text: &str) -> Self {
        Self(text.replace('-', "_"))
    }

    /// Returns the name of the module in a kernel object, compressed or not; `None` for other files.
    pub(crate) fn of_file(path: &Path) -> Option<Self> {
        let name = ObjectName::parse(path.file_name()?.to_str()?)?;
        Some(Self::new(&name.module))
    }

    /// The name, with `_`.
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
    fn dash_and_underscore_are_the_same() {
        let name =
            KmodName::of_file(Path::new("usr/lib/modules/7.2.1/updates/dkms/hid-xpadneo.ko.zst"));
        assert_eq!(name, Some(KmodName::new("hid_xpadneo")));
        assert_eq!(KmodName::of_file(Path::new("usr/lib/modules/7.2.1/modules.dep")), None);
    }
}
