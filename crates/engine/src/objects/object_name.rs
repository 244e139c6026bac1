//! File names of kernel objects. The suffix of a name shows the compression.

use std::fmt;
use std::path::Path;

use crate::os::process::Tools;

/// The compression of a kernel object.
///
/// The order of the variants matters: if the existing objects of a kernel are compressed in several
/// ways, dkms chooses the last of these variants (dkms-behaviour 4.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Compression {
    /// Not compressed; the suffix is `.ko`.
    None,
    /// Compressed with gzip; the suffix is `.ko.gz`.
    Gzip,
    /// Compressed with xz; the suffix is `.ko.xz`.
    Xz,
    /// Compressed with zstd; the suffix is `.ko.zst`.
    Zstd,
}

impl Compression {
    pub(crate) const ALL: [Self; 4] = [Self::None, Self::Gzip, Self::Xz, Self::Zstd];

    /// Returns the file name suffix of objects with this compression, such as `.ko.zst`.
    #[must_use]
    pub(crate) fn suffix(self) -> &'static str {
        match self {
            Self::None => ".ko",
            Self::Gzip => ".ko.gz",
            Self::Xz => ".ko.xz",
            Self::Zstd => ".ko.zst",
        }
    }

    /// Returns the program that compresses and decompresses, or `None` for [`Compression::None`].
    pub(super) fn program(self, tools: &Tools) -> Option<&Path> {
        match self {
            Self::None => None,
            Self::Gzip => Some(&tools.gzip),
            Self::Xz => Some(&tools.xz),
            Self::Zstd => Some(&tools.zstd),
        }
    }
}

/// The file name of a kernel object, such as `v4l2loopback.ko.zst`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectName {
    /// The part before `.ko` (`DEST_MODULE_NAME`), always a valid path component.
    pub module: String,
    /// The compression that the suffix indicates.
    pub compression: Compression,
}

impl ObjectName {
    /// Parses a file name. Returns `None` if it is not the name of a kernel object.
    #[must_use]
    pub fn parse(file: &str) -> Option<Self> {
        let (module, compression) = Compression::ALL
            .into_iter()
            .find_map(|kind| Some((file.strip_suffix(kind.suffix())?, kind)))?;
        let fits = !module.is_empty() && !module.starts_with('.') && !module.contains(['/', '\0']);
        fits.then(|| Self { module: module.to_owned(), compression })
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.module, self.compression.suffix())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case::plain("zfs.ko", Some(("zfs", Compression::None)))]
    #[case::zstd("v4l2loopback.ko.zst", Some(("v4l2loopback", Compression::Zstd)))]
    #[case::xz("a.b.ko.xz", Some(("a.b", Compression::Xz)))]
    #[case::gzip("a.ko.gz", Some(("a", Compression::Gzip)))]
    #[case::nameless(".ko", None)]
    #[case::hidden(".tmp-a.ko", None)]
    #[case::debug_symbols("a.ko.debug", None)]
    #[case::path("../a.ko", None)]
    #[case::symvers("Module.symvers", None)]
    fn parses_file_names(#[case] file: &str, #[case] want: Option<(&str, Compression)>) {
        let name = ObjectName::parse(file);
        assert_eq!(name.as_ref().map(|name| (name.module.as_str(), name.compression)), want);
        if let Some(name) = name {
            assert_eq!(name.to_string(), file);
        }
    }
}
