//! Lists a directory tree as text.

use std::fs;
use std::path::Path;

/// Returns all paths below `root/path`, one per line, relative to `root` and sorted by their bytes.
pub(crate) fn of(root: &Path, path: &Path) -> String {
    let mut lines = Vec::new();
    add_entries(root, &root.join(path), &mut lines);
    lines.sort();
    lines.into_iter().map(|line| line + "\n").collect()
}

fn add_entries(root: &Path, dir: &Path, lines: &mut Vec<String>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        let name = path.strip_prefix(root).unwrap_or(&path).display().to_string();
        if let Ok(target) = fs::read_link(&path) {
            let target = target.display().to_string();
            lines
                .push(format!("{name} -> {}", target.replace(&root.display().to_string(), "ROOT")));
        } else if path.is_dir() {
            lines.push(name + "/");
            add_entries(root, &path, lines);
        } else {
            lines.push(name);
        }
    }
}
