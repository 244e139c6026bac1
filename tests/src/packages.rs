//! The testbed's packages, found by an alias that stays when Debian's versions move on.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

/// The stages of the testbed that hold packages; each has an `index` (see `testbed/packages.sh`).
const STAGES: [&str; 4] = ["kernels", "modules", "stubs", "ours"];

/// More of them that few need: a story that does fails without.
const SPECIAL: [&str; 2] = ["bench-modules", "dracut"];

/// The stages that hold packages, the special ones among them if they were made.
pub(crate) fn stages() -> impl Iterator<Item = &'static str> {
    let testbed = testbed();
    let made = move |stage: &&str| testbed.join(stage).join("index").exists();
    STAGES.into_iter().chain(SPECIAL.into_iter().filter(made))
}

/// A pacman package that a story can install.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackageFile {
    /// What pacman calls it: `linux-headers`, `bbswitch-dkms`.
    pub name: String,
    /// Its full version, `0.8-1`.
    pub version: String,
    /// A kernel's release, a module's `name/version`, or nothing.
    pub content: String,
    /// Its file as seen from inside a [`Root`](crate::Root).
    pub file: String,
}

impl PackageFile {
    /// The kernel release that a kernel's or headers' package is for.
    pub fn release(&self) -> &str {
        assert!(
            !self.content.is_empty() && !self.content.contains('/'),
            "{} is no kernel",
            self.name
        );
        &self.content
    }

    /// The module that a module's package brings, as `name/version`.
    pub fn module(&self) -> &str {
        assert!(self.content.contains('/'), "{} is no module", self.name);
        &self.content
    }
}

/// The package that the testbed made under `alias`, such as `linux-1`, `linux-lts-headers-2`, `bbswitch-next`, `dkms`;
/// `alpm-dkms` is our own. The aliases are listed at the head of `testbed/kernels.sh`, `modules.sh`, `stubs.sh`
/// and `dracut.sh`.
pub fn find(alias: &str) -> PackageFile {
    let known = ALL.iter().find(|(known, _)| known == alias);
    known.unwrap_or_else(|| panic!("the testbed has no package `{alias}`")).1.clone()
}

/// Where the testbed made one of its stages.
pub fn stage(name: &str) -> PathBuf {
    let place = testbed().join(name);
    assert!(place.join("index").exists(), "the testbed has no {name}: run `make testbed` as root");
    place
}

/// Where the testbed is: `$TESTBED`, else `target/testbed` of this checkout.
pub(crate) fn testbed() -> PathBuf {
    let usual = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/testbed");
    let place = std::env::var_os("TESTBED").map_or_else(usual, PathBuf::from);
    place.canonicalize().expect("there is no testbed yet: run `make testbed` as root")
}

static ALL: LazyLock<Vec<(String, PackageFile)>> = LazyLock::new(|| {
    let testbed = testbed();
    stages().flat_map(|stage| read_index(&testbed, stage)).collect()
});

fn read_index(testbed: &Path, stage: &str) -> Vec<(String, PackageFile)> {
    let index = fs::read_to_string(testbed.join(stage).join("index"))
        .expect("the testbed is not complete: run `make testbed`");
    index.lines().map(|line| read_line(stage, line)).collect()
}

fn read_line(stage: &str, line: &str) -> (String, PackageFile) {
    let fields: Vec<&str> = line.split('\t').collect();
    let [alias, name, version, content] = fields[..] else {
        panic!("not a line of an index: {line:?}")
    };
    let file = format!("/srv/{stage}/{alias}.pkg.tar.zst");
    (
        alias.into(),
        PackageFile { name: name.into(), version: version.into(), content: content.into(), file },
    )
}
