//! Small roots and fake programs for tests. Uses no types of the engine, so that the engine's own
//! tests can use this crate.

#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails if its root cannot be created"
)]

mod fake_kernel;
mod fake_programs;
mod fake_source;
mod kernel_object;
mod listing;

use std::fs;
use std::path::{Path, PathBuf};

pub use fake_kernel::FakeKernel;
pub use fake_source::FakeSource;
pub use kernel_object::kernel_object;

/// The root of a test machine, in a temporary directory, with the trees that dkms works in.
///
/// A new root contains the empty directories `usr/src`, `var/lib/dkms`, `usr/lib/modules` and
/// `etc/dkms`, the link `lib` to `usr/lib` as on Arch, and an `os-release` with `ID=arch`. Dropping
/// the value deletes the root. Fake programs are stored beside the root, so they never appear in a
/// listing.
///
/// ```
/// let root = testroot::TestRoot::new();
/// root.kernel("7.2.12-arch1-1").pkgbase("linux").headers();
/// root.source("foo", "1.0");
/// assert!(root.exists("usr/src/foo-1.0/dkms.conf"));
/// ```
#[derive(Debug)]
pub struct TestRoot {
    dir: tempfile::TempDir,
    root: PathBuf,
}

impl Default for TestRoot {
    fn default() -> Self {
        Self::new()
    }
}

impl TestRoot {
    /// Creates the root.
    #[must_use]
    pub fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("testroot-").tempdir().expect("a temp directory");
        // Tests compare paths with those that the kernel returns, in which links are resolved.
        let root = dir.path().canonicalize().expect("the temp directory").join("root");
        let created = Self { dir, root };
        for tree in ["usr/src", "var/lib/dkms", "usr/lib/modules", "etc/dkms"] {
            created.dir(tree);
        }
        created.link("lib", "usr/lib");
        created.write("etc/os-release", "ID=arch\nPRETTY_NAME=\"Arch Linux\"\n");
        created
    }

    /// Returns the path of the root, for `--root` and `Trees::under`.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.root
    }

    /// Returns the absolute path for `path`, which is relative to the root.
    #[must_use]
    pub fn at(&self, path: impl AsRef<Path>) -> PathBuf {
        self.root.join(path)
    }

    /// Adds a kernel without headers. Its directory contains `vmlinuz`, `modules.order` and one
    /// module. The methods of [`FakeKernel`] add more.
    pub fn kernel(&self, release: &str) -> FakeKernel<'_> {
        FakeKernel::add(self, release)
    }

    /// Adds the source of a module. The module's only object has the name of the module and
    /// "compiles" with the headers of [`FakeKernel::headers`]. The methods of [`FakeSource`] change
    /// the source.
    pub fn source(&self, name: &str, version: &str) -> FakeSource<'_> {
        FakeSource::add(self, name, version)
    }

    /// Adds a package that owns `files` to pacman's local database. The paths are relative to the
    /// root, and those of directories end with `/`.
    pub fn package(&self, name: &str, version: &str, files: &[&str]) {
        let entry = format!("var/lib/pacman/local/{name}-{version}");
        self.write(format!("{entry}/desc"), format!("%NAME%\n{name}\n"));
        self.write(format!("{entry}/files"), format!("%FILES%\n{}\n", files.join("\n")));
    }

    /// Creates a directory and its parents.
    pub fn dir(&self, path: impl AsRef<Path>) {
        fs::create_dir_all(self.at(path)).expect("create a directory in a test root");
    }

    /// Writes a file. Creates its parent directories.
    pub fn write(&self, path: impl AsRef<Path>, content: impl AsRef<[u8]>) {
        let path = self.at(path);
        fs::create_dir_all(path.parent().expect("a parent"))
            .expect("create the directory of a file");
        fs::write(path, content).expect("write a file in a test root");
    }

    /// Creates a symbolic link and its parent directories. Stores `target` unchanged.
    pub fn link(&self, path: impl AsRef<Path>, target: impl AsRef<Path>) {
        let path = self.at(path);
        fs::create_dir_all(path.parent().expect("a parent"))
            .expect("create the directory of a link");
        std::os::unix::fs::symlink(target, path).expect("create a link in a test root");
    }

    /// Removes a file, a link, or a directory with all its contents.
    pub fn remove(&self, path: impl AsRef<Path>) {
        let path = self.at(path);
        if path.symlink_metadata().is_ok_and(|found| found.is_dir()) {
            fs::remove_dir_all(path).expect("remove a directory");
        } else {
            fs::remove_file(path).expect("remove a file");
        }
    }

    /// Returns the text of a file, which must exist.
    #[must_use]
    pub fn read(&self, path: impl AsRef<Path>) -> String {
        let path = self.at(path);
        fs::read_to_string(&path).unwrap_or_else(|why| panic!("{}: {why}", path.display()))
    }

    /// Returns true if a file, directory or link exists at `path`. The link may be dangling.
    #[must_use]
    pub fn exists(&self, path: impl AsRef<Path>) -> bool {
        self.at(path).symlink_metadata().is_ok()
    }

    /// Returns a sorted list of everything below `path`, one path per line.
    ///
    /// Directories end in `/`, and links include their targets. `ROOT` replaces the path of the
    /// root, so that two runs return the same text.
    #[must_use]
    pub fn listing(&self, path: impl AsRef<Path>) -> String {
        listing::of(&self.root, path.as_ref())
    }
}
