//! Paths that are joined to a base directory.

use std::path::{Component, Path, PathBuf};

/// Returns where an absolute path of a system is if that system's root is `root`.
#[must_use]
pub fn below(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

/// Returns `path` as it is below a base directory, without `.` and `..`; `None` if it leads out of
/// the base. A leading `/` does not count.
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
    #[case::back_and_forth("a/../b/..", Some(""))]
    #[case::up("../x", None)]
    #[case::up_later("a/../../x", None)]
    fn stays_below_its_base(#[case] path: &str, #[case] want: Option<&str>) {
        assert_eq!(within(Path::new(path)), want.map(PathBuf::from));
    }
}
