//! The kernels in the install tree, with their headers and configurations.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use memchr::memmem;

use crate::machine::{Trees, package_of_kernel};
use crate::names::{BadName, KernelRelease};
use crate::os::durable::FileError;
use crate::os::symlinks;

/// A kernel release and the paths of the kernel's files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kernel {
    /// The kernel release, which is also the name of its directory in the install tree.
    pub release: KernelRelease,
    /// The path of the kernel's directory, which need not exist.
    pub dir: PathBuf,
    /// Whether the kernel is installed: its directory contains `modules.order` or `kernel/`.
    /// Otherwise, the directory may still contain other files, such as those left by a removed
    /// kernel.
    pub alive: bool,
    /// The directory of the headers, usually `L/K/build`. `None` if that directory contains no
    /// `include` directory (dkms-behaviour 1.5).
    ///
    /// If the root is not `/`, an absolute link `build` is resolved below the root.
    pub headers: Option<PathBuf>,
    /// The configuration file given with `--config`, which replaces the one in the headers.
    pub config: Option<PathBuf>,
    /// The content of the file `pkgbase`. The pacman hooks of initramfs generators use it as the
    /// kernel's name. On Arch Linux, it is the name of the kernel's package.
    pub pkgbase: Option<String>,
    /// The name of the kernel's package, such as `linux-lts`: `pkgbase`, or the package that
    /// contains the kernel. The kernels of Arch Linux ARM have no `pkgbase`.
    pub package: Option<String>,
}

/// The kernels in the install tree.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Kernels {
    /// One kernel for each directory, sorted by release. Includes kernels that are not installed.
    pub all: Vec<Kernel>,
    /// The names of symbolic links to the directories of kernels, and of entries that cannot be
    /// examined. Modules are not installed through these links.
    pub links: BTreeSet<KernelRelease>,
    /// The directory names that are not valid kernel releases.
    pub problems: Vec<BadName>,
}

impl Kernels {
    /// Reads the install tree. Returns no kernels if the tree does not exist.
    ///
    /// # Errors
    /// [`FileError`] if the tree exists but cannot be listed.
    pub fn read(trees: &Trees) -> Result<Self, FileError> {
        let mut kernels = Self::default();
        let entries = match fs::read_dir(&trees.install) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(kernels),
            other => other.map_err(FileError::when("list", &trees.install))?,
        };
        for entry in entries {
            let entry = entry.map_err(FileError::when("list", &trees.install))?;
            if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                let is_kernel = exists(&entry.path().join("modules.order"));
                let release = KernelRelease::from_entry(&entry.file_name()).ok();
                kernels.links.extend(release.filter(|_| is_kernel));
                continue;
            }
            match KernelRelease::from_entry(&entry.file_name()) {
                Ok(release) => kernels.all.push(Kernel::of_release(trees, release)),
                Err(problem) => kernels.problems.push(problem),
            }
        }
        kernels.all.sort_by(|a, b| a.release.cmp(&b.release));
        kernels.problems.sort_by(|a, b| a.text.cmp(&b.text));
        Ok(kernels)
    }
}

impl Kernel {
    /// Returns the kernel with the given release, even if its directory does not exist.
    pub(crate) fn of_release(trees: &Trees, release: KernelRelease) -> Self {
        let dir = trees.kernel(&release);
        let alive = exists(&dir.join("modules.order")) || dir.join("kernel").is_dir();
        let headers = headers_at(&trees.root, &dir.join("build"));
        let pkgbase = fs::read_to_string(dir.join("pkgbase"))
            .ok()
            .map(|text| text.trim().to_owned())
            .filter(|text| !text.is_empty());
        let owner = || alive.then(|| package_of_kernel(trees, &dir)).flatten();
        let package = pkgbase.clone().or_else(owner);
        Self { release, dir, alive, headers, config: None, pkgbase, package }
    }

    /// Returns the path of the kernel's configuration file (dkms-behaviour 1.5), or `None` if there
    /// is no such file.
    #[must_use]
    pub(crate) fn config_file(&self) -> Option<PathBuf> {
        if let Some(config) = &self.config {
            return Some(config.clone());
        }
        let headers = self.headers.as_ref()?;
        let own = ["include/config/auto.conf", ".config"].iter().map(|file| headers.join(file));
        own.into_iter().find(|path| path.is_file())
    }
}

/// Returns true if `path` exists. Also returns true if that cannot be determined, for example
/// because of an I/O error, since an error must not cause a removal.
fn exists(path: &Path) -> bool {
    match path.metadata() {
        Ok(_) => true,
        Err(error) => !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory),
    }
}

/// Returns the directory of the headers that the link `build` leads to. Returns `None` if that
/// directory contains no `include` directory.
///
/// An absolute link is resolved inside `root`. Returns `build` itself if the host resolves the link
/// to the same directory, and otherwise the resolved path.
fn headers_at(root: &Path, build: &Path) -> Option<PathBuf> {
    let seen_inside = symlinks::resolve(root, build).ok()?;
    if !seen_inside.join("include").is_dir() {
        return None;
    }
    let same = build
        .canonicalize()
        .is_ok_and(|path| seen_inside.canonicalize().is_ok_and(|seen| seen == path));
    Some(if same { build.to_owned() } else { seen_inside })
}

/// A kernel's configuration: the text of `.config` or `auto.conf`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KernelConfig {
    text: String,
}

impl KernelConfig {
    /// Reads a configuration file.
    ///
    /// # Errors
    /// [`io::Error`] if the file cannot be read.
    pub(crate) fn read(path: &Path) -> io::Result<Self> {
        let text = String::from_utf8(fs::read(path)?)
            .unwrap_or_else(|bad| String::from_utf8_lossy(bad.as_bytes()).into_owned());
        Ok(Self::of(text))
    }

    pub(crate) fn of(text: impl Into<String>) -> Self {
        Self { text: text.into() }
    }

    /// Returns the value of `option` (`CONFIG_…`) without quotes, or `None` if it is not set. Since
    /// Linux 6.14, `auto.conf` contains no quotes.
    #[must_use]
    pub(crate) fn value(&self, option: &str) -> Option<&str> {
        let value = self.assigned(option)?.trim();
        Some(value.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(value))
    }

    /// Returns the value of `option` as written, with its quotes, or `None` if it is not set.
    pub(crate) fn assigned(&self, option: &str) -> Option<&str> {
        // `memmem`, because a hook looks up dozens of options in 10,000 lines, and
        // `str::match_indices` is slower.
        let setting = format!("{option}=");
        let text = self.text.as_bytes();
        let starts_line = |at: usize| at == 0 || text[at - 1] == b'\n';
        let at = memmem::find_iter(text, &setting).find(|at| starts_line(*at))?;
        self.text[at + setting.len()..].lines().next().or(Some(""))
    }

    /// Returns true if `option` is `y` or `m`.
    #[must_use]
    pub(crate) fn is_enabled(&self, option: &str) -> bool {
        matches!(self.value(option), Some("y" | "m"))
    }

    /// Returns true if the kernel was compiled with clang. Its modules then need clang as well.
    ///
    /// dkms first reads the `.comment` section of `vmlinux`. The configuration contains the same
    /// information, and exists even if the headers do not include `vmlinux`.
    #[must_use]
    pub(crate) fn is_clang(&self) -> bool {
        self.is_enabled("CONFIG_CC_IS_CLANG")
    }

    /// Returns the names and values of the environment variables that select the kernel's own
    /// compiler and linker (dkms-behaviour 4.2, steps 2 to 4).
    ///
    /// Omits commands for which `exists` returns false.
    #[must_use]
    pub(crate) fn compiler_environment(
        &self,
        exists: impl Fn(&str) -> bool,
    ) -> Vec<(String, String)> {
        let version_text = self.value("CONFIG_CC_VERSION_TEXT");
        let named = version_text.and_then(|text| text.split_ascii_whitespace().next());
        let clang = self.is_clang().then_some("clang").filter(|tool| exists(tool));
        let compiler = clang.or(named.filter(|tool| exists(tool)));
        let lld = self.is_enabled("CONFIG_LD_IS_LLD").then_some("ld.lld");
        let linker = lld.filter(|tool| exists(tool));
        [("CC", compiler), ("KERNEL_CC", compiler), ("LD", linker), ("KERNEL_LD", linker)]
            .into_iter()
            .filter_map(|(name, tool)| Some((name.to_owned(), tool?.to_owned())))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use std::os::unix::fs::symlink;

    /// Creates a root with `entries` in its install tree. An entry that ends in `/` is a directory.
    /// Every other entry is an empty file.
    fn root(entries: &[&str]) -> (tempfile::TempDir, Trees) {
        let dir = tempfile::tempdir().unwrap();
        for entry in entries {
            let path = dir.path().join("usr/lib/modules").join(entry);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            if entry.ends_with('/') {
                fs::create_dir_all(path).unwrap();
            } else {
                fs::write(path, "").unwrap();
            }
        }
        let trees = Trees::under(dir.path());
        (dir, trees)
    }

    #[test]
    fn reads_valid_kernels_and_reports_invalid_names() {
        let (_dir, trees) = root(&[
            "6.1/modules.order",
            "6.1/build/include/",
            "6.2/kernel/",
            "6.3/updates/dkms/a.ko",
            "a b/",
            "file",
        ]);
        fs::write(trees.install.join("6.1/pkgbase"), "linux-lts\n").unwrap();
        symlink("6.1", trees.install.join("6.9")).unwrap();
        let kernels = Kernels::read(&trees).unwrap();
        let seen: Vec<_> = kernels
            .all
            .iter()
            .map(|k| (k.release.as_str(), k.alive, k.headers.is_some(), k.pkgbase.as_deref()))
            .collect();
        assert_eq!(
            seen,
            [
                ("6.1", true, true, Some("linux-lts")),
                ("6.2", true, false, None),
                ("6.3", false, false, None)
            ]
        );
        assert_eq!(kernels.problems.len(), 1);
        assert_eq!(kernels.problems[0].text, "a b");
    }

    #[test]
    fn root_without_install_tree_has_no_kernels() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Kernels::read(&Trees::under(dir.path())).unwrap(), Kernels::default());
    }

    #[rstest]
    #[case::relative("../../../src/headers", "usr/lib/modules/6.1/build")]
    #[case::absolute("/usr/src/headers", "usr/src/headers")]
    fn follows_links_to_headers_inside_the_root(#[case] link: &str, #[case] want: &str) {
        let (dir, trees) = root(&["6.1/modules.order"]);
        fs::create_dir_all(trees.source.join("headers/include")).unwrap();
        symlink(link, trees.install.join("6.1/build")).unwrap();
        let kernels = Kernels::read(&trees).unwrap();
        assert_eq!(kernels.all[0].headers, Some(dir.path().join(want)));
    }

    fn config(text: &str) -> KernelConfig {
        KernelConfig::of(text)
    }

    #[test]
    fn reads_values_with_and_without_quotes() {
        let config = config("CONFIG_A=\"b c\"\nCONFIG_AB=m\n# CONFIG_N is not set\nCONFIG_Q=\"\n");
        assert_eq!(config.value("CONFIG_A"), Some("b c"));
        assert_eq!(config.value("CONFIG_Q"), Some("\""));
        assert!(config.is_enabled("CONFIG_AB"));
        assert!(!config.is_enabled("CONFIG_N"));
        assert!(!config.is_enabled("CONFIG_A"));
    }

    #[rstest]
    #[case::gcc("CONFIG_CC_VERSION_TEXT=\"gcc-14 (Debian) 14.2\"", "CC=gcc-14 KERNEL_CC=gcc-14")]
    #[case::unknown("CONFIG_CC_VERSION_TEXT=\"gcc-9 9.1\"", "")]
    #[case::clang(
        "CONFIG_CC_VERSION_TEXT=\"clang version 20\"\nCONFIG_CC_IS_CLANG=y\nCONFIG_LD_IS_LLD=y",
        "CC=clang KERNEL_CC=clang LD=ld.lld KERNEL_LD=ld.lld"
    )]
    #[case::nothing("", "")]
    fn builds_use_the_kernels_compiler_and_linker(#[case] text: &str, #[case] want: &str) {
        let environment =
            config(text).compiler_environment(|tool| ["gcc-14", "clang", "ld.lld"].contains(&tool));
        let seen: Vec<_> =
            environment.iter().map(|(name, tool)| format!("{name}={tool}")).collect();
        assert_eq!(seen.join(" "), want);
    }
}
