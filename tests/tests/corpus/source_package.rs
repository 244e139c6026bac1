//! Debian's source packages, as the testbed unpacked them (`testbed/corpus.sh`).

use std::fs;

use stories::stage;

/// Only the packages whose names hold one of these words are taken.
const ONLY: &str = "CORPUS";

/// The packages that differ on purpose, and the rows of `docs/compatibility.md` that say so.
const EXPLAINED: [(&str, &str); 0] = [];

/// What [`ONLY`] says.
pub fn only() -> Option<String> {
    std::env::var(ONLY).ok().filter(|words| !words.is_empty())
}

/// A package of Debian's that brings the source of a module.
#[derive(Debug, Clone)]
pub struct SourcePackage {
    /// What Debian calls it: `xone-dkms`.
    pub package: String,
    /// Debian's version of it.
    pub version: String,
    /// The module as Debian's installation scripts name it: `xone/0.5.8`.
    pub module: String,
    /// The stage and the directory of it that hold its files.
    pub files: String,
    /// The row of the table of differences that says how the programs differ here.
    pub differs: Option<&'static str>,
}

impl SourcePackage {
    /// The packages of a stage that are asked for, sorted by name.
    pub fn asked(stage: &str) -> Vec<Self> {
        let only = only();
        let asked = |it: &Self| {
            only.iter().all(|words| words.split_whitespace().any(|word| it.package.contains(word)))
        };
        Self::all(stage).into_iter().filter(asked).collect()
    }

    /// All packages of a stage, sorted by name.
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
            panic!("not a line of an index: {line:?}")
        };
        Self {
            package: package.into(),
            version: version.into(),
            module: module.into(),
            files: format!("{stage}/{package}"),
            differs: EXPLAINED.iter().find(|(name, _)| *name == package).map(|(_, row)| *row),
        }
    }
}
