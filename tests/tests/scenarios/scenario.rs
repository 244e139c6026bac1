//! The scenarios: files in `tests/scenarios`, see the README there.

use std::fs;
use std::path::{Path, PathBuf};

use walkdir::WalkDir;

/// The first words of the line that names rows of the table.
const DIFFERS: &str = "# differs:";

/// Only the scenarios whose names hold one of these words are played.
const ONLY: &str = "SCENARIOS";

/// A few commands on a few small sources.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// Its path below `tests/scenarios`, without the ending.
    pub name: String,
    /// Its file.
    pub file: PathBuf,
    /// The keys of the rows of the table that it shows.
    pub differs: Vec<String>,
    /// Whether its trees change hands.
    pub switches: bool,
}

impl Scenario {
    /// The scenarios that are asked for, sorted by name.
    pub fn all() -> Vec<Self> {
        let only = std::env::var(ONLY).unwrap_or_default();
        let asked = |it: &Self| {
            only.is_empty() || only.split_whitespace().any(|word| it.name.contains(word))
        };
        Self::every_one().into_iter().filter(asked).collect()
    }

    /// All scenarios there are, sorted by name.
    pub fn every_one() -> Vec<Self> {
        let files = WalkDir::new(directory()).sort_by_file_name().into_iter().flatten();
        let files = files.map(walkdir::DirEntry::into_path);
        let mut all: Vec<Self> = files
            .filter(|file| file.extension().is_some_and(|it| it == "scenario"))
            .map(Self::read)
            .collect();
        all.sort_by(|one, other| one.name.cmp(&other.name));
        all
    }

    fn read(file: PathBuf) -> Self {
        let text = fs::read_to_string(&file).expect("read a scenario");
        let keys = text.lines().find_map(|line| line.strip_prefix(DIFFERS)).unwrap_or_default();
        let place = file.strip_prefix(directory()).expect("a scenario has its place");
        Self {
            name: place.with_extension("").display().to_string(),
            differs: keys.split_whitespace().map(str::to_owned).collect(),
            switches: text.lines().any(|line| line == "switch"),
            file,
        }
    }

    /// The ways in which it is played beside that of the real dkms alone.
    pub fn manners(&self) -> &'static [&'static str] {
        if self.switches { &["ours", "peer-ours", "ours-peer"] } else { &["ours"] }
    }

    /// Where it says how it differs from the real dkms when played in a manner.
    pub fn difference(&self, manner: &str) -> PathBuf {
        self.file.with_extension(if manner == "ours" {
            "diff".into()
        } else {
            format!("{manner}.diff")
        })
    }
}

/// Where they are.
pub fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios")
}
