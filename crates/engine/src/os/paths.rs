//! Joins paths to a base directory.

use std::path::{Component, Path, PathBuf};

/// Joins `path` to `root`, even if `path` is absolute: `/usr/src` becomes `ROOT/usr/src`.
#[must_use]
pub fn below(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

/// Normalises `path`, which is relative to a base directory. Returns `None` if it leads out of that
/// directory.
///
/// A leading `/` and every `.` are removed, and every `..` is resolved.
pub(crate) fn within(path: &Path) -> Option<PathBuf> {
    let mut within = PathBuf::new();
    for step in path.components() {
        match step {
            Component::Normal(name) => within.push(name),
            Component::ParentDir if !within.pop() => return None,
            _ => {}
        }
    }
    Some(within)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case::plain("./a//b/", Some("a/b"))]
    #[case::absolute("/a/b", Some("a/b"))]
    #[case::up_and_down("a/../b/..", Some(""))]
    #[case::out("../x", None)]
    #[case::out_later("a/../../x", None)]
    fn normalises_only_paths_inside_the_base(#[case] path: &str, #[case] want: Option<&str>) {
        assert_eq!(within(Path::new(path)), want.map(PathBuf::from));
    }
}
