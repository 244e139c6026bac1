//! Reads the scenarios, which are files in `tests/scenarios`. The README there describes them.

use std::fs;
use std::path::{Path, PathBuf};

use walkdir::WalkDir;

/// The start of the line with the keys of intended differences.
const DIFFERS: &str = "# differs:";

/// The environment variable that selects scenarios by words in their names.
const ONLY: &str = "SCENARIOS";

/// A script of dkms commands.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// The path relative to `tests/scenarios`, without the extension.
    pub name: String,
    /// The path of the file.
    pub file: PathBuf,
    /// The keys of the differences that it shows.
    pub differs: Vec<String>,
    /// Whether it changes from one program to the other.
    pub switches: bool,
}

impl Scenario {
    /// Returns the selected scenarios, sorted by name.
    pub fn selected() -> Vec<Self> {
        let only = std::env::var(ONLY).unwrap_or_default();
        let is_selected = |it: &Self| {
            only.is_empty() || only.split_whitespace().any(|word| it.name.contains(word))
        };
        Self::all().into_iter().filter(is_selected).collect()
    }

    /// Returns all scenarios, sorted by name.
    pub fn all() -> Vec<Self> {
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
        let place = file.strip_prefix(directory()).expect("a path in tests/scenarios");
        Self {
            name: place.with_extension("").display().to_string(),
            differs: keys.split_whitespace().map(str::to_owned).collect(),
            switches: text.lines().any(|line| line == "switch"),
            file,
        }
    }

    /// Returns the modes in which it runs, other than `peer`.
    pub fn modes(&self) -> &'static [&'static str] {
        if self.switches { &["ours", "peer-ours", "ours-peer"] } else { &["ours"] }
    }

    /// Returns the path of the file with the expected difference from `peer` in a mode.
    pub fn difference(&self, mode: &str) -> PathBuf {
        self.file.with_extension(if mode == "ours" {
            "diff".into()
        } else {
            format!("{mode}.diff")
        })
    }
}

/// Returns the directory of the scenarios.
pub fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios")
}
