//! Debian's packages of module sources, unpacked by `testbed/corpus.sh`.

use std::fs;

use stories::stage;

/// The environment variable that selects packages by words in their names.
const ONLY: &str = "CORPUS";

/// The packages that differ on purpose: the package, the kernel and the key in
/// `docs/compatibility.md`.
const EXPLAINED: [(&str, &str, &str); 1] =
    [("iptables-netflow-dkms", "linux-lts-1", "kernels-directory")];

/// Returns the value of [`ONLY`], or `None` if it is unset or empty.
pub fn only() -> Option<String> {
    std::env::var(ONLY).ok().filter(|words| !words.is_empty())
}

/// A Debian package with the source of a module.
#[derive(Debug, Clone)]
pub struct SourcePackage {
    /// The package name, such as `xone-dkms`.
    pub package: String,
    /// Debian's version.
    pub version: String,
    /// The module id, such as `xone/0.5.8`.
    pub module: String,
    /// The stage and the directory in it that contain the files.
    pub files: String,
}

impl SourcePackage {
    /// Returns the selected packages of a stage, sorted by name.
    pub fn asked(stage: &str) -> Vec<Self> {
        let only = only();
        let asked = |it: &Self| {
            only.iter().all(|words| words.split_whitespace().any(|word| it.package.contains(word)))
        };
        Self::all(stage).into_iter().filter(asked).collect()
    }

    /// Returns all packages of a stage, sorted by name.
    pub fn all(name: &str) -> Vec<Self> {
        let index =
            fs::read_to_string(stage(name).join("index")).expect("read the index of a stage");
        let mut all: Vec<Self> = index.lines().map(|line| Self::read(name, line)).collect();
        all.sort_by(|one, other| one.package.cmp(&other.package));
        all
    }

    fn read(stage: &str, line: &str) -> Self {
        let fields: Vec<&str> = line.split('\t').collect();
        let [package, version, module] = fields[..] else {
            panic!("invalid line in the index: {line:?}")
        };
        Self {
            package: package.into(),
            version: version.into(),
            module: module.into(),
            files: format!("{stage}/{package}"),
        }
    }

    /// Returns the key in `docs/compatibility.md` of the intended difference for a kernel.
    pub fn difference(&self, kernel: &str) -> Option<&'static str> {
        let mut all = EXPLAINED.into_iter();
        all.find(|(package, of, _)| *package == self.package && *of == kernel).map(|it| it.2)
    }
}
