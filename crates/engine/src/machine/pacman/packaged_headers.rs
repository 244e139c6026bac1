//! Looks up the digests of a kernel's headers in the file list of their package.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;

use super::mtree::{self, ListedFiles};
use super::{DATABASE, directory};
use crate::machine::Kernel;
use crate::os::paths;
use crate::os::stat::Stat;

/// The maximum size of a file list in bytes. The list of Arch's kernel headers has 3 MB.
const MAX_SIZE: u64 = 64 << 20;

/// The headers of a kernel as their package contains them.
#[derive(Debug)]
pub(crate) struct PackagedHeaders {
    root: PathBuf,
    /// The time at which pacman finished installing the package, in nanoseconds since the epoch.
    installed: i128,
    files: ListedFiles,
}

impl PackagedHeaders {
    /// Returns the headers that the package `KERNEL-headers` installed in the kernel's directory.
    /// `lists` is [`Trees::package_lists`](crate::machine::Trees::package_lists).
    ///
    /// Returns `None` if there is no such package, or if pacman has not finished installing it.
    pub(crate) fn find(root: &Path, lists: Option<&Path>, kernel: &Kernel) -> Option<Self> {
        let package = format!("{}-headers", kernel.package.as_ref()?);
        let usual = paths::below(root, Path::new(DATABASE));
        let read = || Self::read(root, lists.unwrap_or(&usual), kernel, &package);
        let found =
            read().inspect_err(|error| log::info!("{package}: list of files ignored: {error}"));
        found.ok().flatten().filter(|found| !found.files.is_empty())
    }

    fn read(
        root: &Path,
        database: &Path,
        kernel: &Kernel,
        package: &str,
    ) -> io::Result<Option<Self>> {
        let Some(dir) = directory(database, package)? else { return Ok(None) };
        // pacman writes this file last, and only when it installs the package.
        let installed = Stat::of(&fs::symlink_metadata(dir.join("files"))?).changed();
        let mut text = Vec::new();
        let list = MultiGzDecoder::new(File::open(dir.join("mtree"))?);
        list.take(MAX_SIZE).read_to_end(&mut text)?;
        let below = kernel.dir.strip_prefix(root).map_err(io::Error::other)?;
        let files = mtree::files(&text, below).map_err(io::Error::other)?;
        Ok(Some(Self { root: root.to_owned(), installed, files }))
    }

    /// Returns true if the directory `dir` has not changed since the package was installed.
    pub(crate) fn is_unchanged(&self, dir: &Path) -> bool {
        fs::symlink_metadata(dir).is_ok_and(|meta| Stat::of(&meta).changed() <= self.installed)
    }

    /// Returns the SHA-256 digest of the header `path`, whose metadata is `stat`.
    ///
    /// Returns `None` if the header is not in the package, or has changed since the package was
    /// installed.
    pub(crate) fn digest(&self, path: &Path, stat: &Stat) -> Option<[u8; 32]> {
        let listed = self.files.get(path.strip_prefix(&self.root).ok()?)?;
        let is_unchanged = listed.size == stat.size() && stat.changed() <= self.installed;
        is_unchanged.then_some(listed.sha256)
    }
}
