//! Small roots and fake programs for tests, without the engine's types: the engine's own tests can
//! use them.

#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "a test root that cannot be made is a failed test"
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

/// A machine's root in a temporary directory, with the trees that DKMS works in.
///
/// It starts with empty `usr/src`, `var/lib/dkms`, `usr/lib/modules` (and the link `lib` to
/// `usr/lib`, as on Arch), `etc/dkms`, and an `os-release` that says `ID=arch`. It is gone when
/// dropped. Fake programs live beside the root, not in it, so they never show up in a listing.
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
    /// Makes the root.
    #[must_use]
    pub fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("testroot-").tempdir().expect("a temp directory");
        // What is compared with paths the kernel hands out must not lead through a link.
        let root = dir.path().canonicalize().expect("the temp directory").join("root");
        let made = Self { dir, root };
        for tree in ["usr/src", "var/lib/dkms", "usr/lib/modules", "etc/dkms"] {
            made.dir(tree);
        }
        made.link("lib", "usr/lib");
        made.write("etc/os-release", "ID=arch\nPRETTY_NAME=\"Arch Linux\"\n");
        made
    }

    /// The root: what `--root` and `Trees::under` take.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.root
    }

    /// A path below the root.
    #[must_use]
    pub fn at(&self, path: impl AsRef<Path>) -> PathBuf {
        self.root.join(path)
    }

    /// Adds a kernel without headers: its directory with `vmlinuz`, `modules.order` and one
    /// module of its own. See [`FakeKernel`] for more.
    pub fn kernel(&self, release: &str) -> FakeKernel<'_> {
        FakeKernel::add(self, release)
    }

    /// Adds the source of a module with one object of the same name that "compiles" against the
    /// headers of [`FakeKernel::headers`]. See [`FakeSource`] for more.
    pub fn source(&self, name: &str, version: &str) -> FakeSource<'_> {
        FakeSource::add(self, name, version)
    }

    /// Makes a directory with its parents.
    pub fn dir(&self, path: impl AsRef<Path>) {
        fs::create_dir_all(self.at(path)).expect("a directory in the test root");
    }

    /// Writes a file, with its parent directories.
    pub fn write(&self, path: impl AsRef<Path>, content: impl AsRef<[u8]>) {
        let path = self.at(path);
        fs::create_dir_all(path.parent().expect("a parent")).expect("the file's directory");
        fs::write(path, content).expect("a file in the test root");
    }

    /// Makes a symbolic link, with its parent directories. `target` is taken as it stands.
    pub fn link(&self, path: impl AsRef<Path>, target: impl AsRef<Path>) {
        let path = self.at(path);
        fs::create_dir_all(path.parent().expect("a parent")).expect("the link's directory");
        std::os::unix::fs::symlink(target, path).expect("a link in the test root");
    }

    /// Removes a file, a link, or a directory with all that is in it.
    pub fn remove(&self, path: impl AsRef<Path>) {
        let path = self.at(path);
        if path.symlink_metadata().is_ok_and(|found| found.is_dir()) {
            fs::remove_dir_all(path).expect("the directory to go");
        } else {
            fs::remove_file(path).expect("the file to go");
        }
    }

    /// A file's text.
    #[must_use]
    pub fn read(&self, path: impl AsRef<Path>) -> String {
        let path = self.at(path);
        fs::read_to_string(&path).unwrap_or_else(|why| panic!("{}: {why}", path.display()))
    }

    /// Whether a path exists; a dangling link does.
    #[must_use]
    pub fn exists(&self, path: impl AsRef<Path>) -> bool {
        self.at(path).symlink_metadata().is_ok()
    }

    /// All that is below `path`, a line each, sorted: directories end in `/`, links say where
    /// they lead (`ROOT` standing for the root), so that two runs give the same text.
    #[must_use]
    pub fn listing(&self, path: impl AsRef<Path>) -> String {
        listing::of(&self.root, path.as_ref())
    }
}
