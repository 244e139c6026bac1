//! Finds packages of the testbed by aliases that do not depend on Debian's versions.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

/// The stages of the testbed that contain packages, listed in `index` (see `testbed/packages.sh`).
const STAGES: [&str; 4] = ["kernels", "modules", "stubs", "ours"];

/// Stages of packages that few stories and the benchmark use.
const SPECIAL: [&str; 2] = ["bench-modules", "dracut"];

/// The stage of the real mkinitcpio.
const MKINITCPIO: &str = "mkinitcpio";

/// Returns the stages that contain packages, including those of [`SPECIAL`] that exist. The kernels
/// for the real mkinitcpio come before those with the same aliases.
pub(crate) fn stages() -> impl Iterator<Item = &'static str> {
    let testbed = testbed();
    let made = move |stage: &&str| testbed.join(stage).join("index").exists();
    let first = real_mkinitcpio().map(|_| MKINITCPIO);
    first.into_iter().chain(STAGES).chain(SPECIAL.into_iter().filter(made))
}

/// Returns the stage of the real mkinitcpio if the stories use it instead of the imitation, which
/// `make check-mkinitcpio` requests with `$STORIES_MKINITCPIO`.
pub fn real_mkinitcpio() -> Option<PathBuf> {
    std::env::var_os("STORIES_MKINITCPIO").map(|_| stage(MKINITCPIO))
}

/// A pacman package that a story can install.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackageFile {
    /// The package name, such as `linux-headers` or `bbswitch-dkms`.
    pub name: String,
    /// The full version, such as `0.8-1`.
    pub version: String,
    /// The kernel release, the module id (`name/version`), or empty.
    pub content: String,
    /// The path of the file inside a [`Root`](crate::Root).
    pub file: String,
}

impl PackageFile {
    /// Returns the kernel release of a kernel or headers package. Panics for other packages.
    pub fn release(&self) -> &str {
        assert!(
            !self.content.is_empty() && !self.content.contains('/'),
            "{} is not a kernel package",
            self.name
        );
        &self.content
    }

    /// Returns the module id, `name/version`, of a module package. Panics for other packages.
    pub fn module(&self) -> &str {
        assert!(self.content.contains('/'), "{} is not a module package", self.name);
        &self.content
    }
}

/// Returns the package of the testbed with this alias, such as `linux-1`, `linux-lts-headers-2`,
/// `bbswitch-next`, `dkms`, or `alpm-dkms` for our own package.
///
/// The headers of `testbed/kernels.sh`, `modules.sh`, `stubs.sh` and `dracut.sh` list the aliases.
pub fn find(alias: &str) -> PackageFile {
    let known = ALL.iter().find(|(known, _)| known == alias);
    known.unwrap_or_else(|| panic!("the testbed has no package {alias}")).1.clone()
}

/// Returns the directory of a stage of the testbed. Panics if the stage does not exist.
pub fn stage(name: &str) -> PathBuf {
    let place = testbed().join(name);
    assert!(place.join("index").exists(), "the testbed has no {name}: run `make testbed` as root");
    place
}

/// Returns the directory of the testbed: `$TESTBED`, or `target/testbed` of this checkout.
pub(crate) fn testbed() -> PathBuf {
    let usual = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/testbed");
    let place = std::env::var_os("TESTBED").map_or_else(usual, PathBuf::from);
    place.canonicalize().expect("the testbed does not exist: run `make testbed` as root")
}

static ALL: LazyLock<Vec<(String, PackageFile)>> = LazyLock::new(|| {
    let testbed = testbed();
    stages().flat_map(|stage| read_index(&testbed, stage)).collect()
});

fn read_index(testbed: &Path, stage: &str) -> Vec<(String, PackageFile)> {
    let index = fs::read_to_string(testbed.join(stage).join("index"))
        .expect("the testbed is incomplete: run `make testbed` as root");
    index.lines().map(|line| read_line(stage, line)).collect()
}

fn read_line(stage: &str, line: &str) -> (String, PackageFile) {
    let fields: Vec<&str> = line.split('\t').collect();
    let [alias, name, version, content] = fields[..] else {
        panic!("invalid line in the index: {line:?}")
    };
    let file = format!("/srv/{stage}/{alias}.pkg.tar.zst");
    (
        alias.into(),
        PackageFile { name: name.into(), version: version.into(), content: content.into(), file },
    )
}
