//! Resolves symbolic links as if a given directory were `/`.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Component, Path, PathBuf};

/// The number of links that the kernel follows in one path before it returns ELOOP.
pub(crate) const MAX_LINKS: usize = 40;

/// Resolves every link in `path`, which must be below `root`.
///
/// The target of an absolute link is looked up below `root`. For example, `T/M/V/source` is a link
/// to `/usr/src/…`, wherever the system is mounted.
///
/// # Errors
/// An I/O error if `path` does not exist, is not below `root`, or contains a loop or too many
/// links.
pub fn resolve(root: &Path, path: &Path) -> io::Result<PathBuf> {
    let outside = || io::Error::new(ErrorKind::InvalidInput, "outside the root directory");
    let mut todo = steps(path.strip_prefix(root).map_err(|_| outside())?);
    let mut found = root.to_owned();
    let mut followed = 0;
    while let Some(step) = todo.pop_front() {
        if step == ".." {
            // `/..` is `/`.
            if found != root {
                found.pop();
            }
            continue;
        }
        let next = found.join(&step);
        if !fs::symlink_metadata(&next)?.is_symlink() {
            found = next;
            continue;
        }
        followed += 1;
        if followed > MAX_LINKS {
            return Err(io::Error::other("too many symbolic links"));
        }
        let target = fs::read_link(&next)?;
        if target.is_absolute() {
            found = root.to_owned();
        }
        let mut ahead = steps(&target);
        ahead.append(&mut todo);
        todo = ahead;
    }
    Ok(found)
}

/// Returns the target for a link to `path`: `/usr/src/zfs-2.4` for `ROOT/usr/src/zfs-2.4`.
///
/// A path outside `root` is returned unchanged.
#[must_use]
pub fn text_for(root: &Path, path: &Path) -> PathBuf {
    match path.strip_prefix(root) {
        Ok(below) => Path::new("/").join(below),
        Err(_) => path.to_owned(),
    }
}

/// Returns the components of `path`, including `..` but not `/` and `.`.
fn steps(path: &Path) -> VecDeque<OsString> {
    path.components()
        .filter(|step| matches!(step, Component::Normal(_) | Component::ParentDir))
        .map(|step| step.as_os_str().to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use std::os::unix::fs::symlink;

    #[rstest]
    #[case::no_link("usr/src/a", Some("usr/src/a"))]
    #[case::absolute("absolute", Some("usr/src/a"))]
    #[case::relative("usr/relative", Some("usr/src/a"))]
    #[case::through_a_linked_directory("lib/src/a", Some("usr/src/a"))]
    #[case::above_the_root("escape", Some("usr/src/a"))]
    #[case::dangling("dangling", None)]
    #[case::loops("loop", None)]
    fn resolves_links_inside_the_root(#[case] path: &str, #[case] want: Option<&str>) {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        fs::create_dir_all(root.join("usr/src/a")).unwrap();
        symlink("/usr/src/a", root.join("absolute")).unwrap();
        symlink("./src/b/../a", root.join("usr/relative")).unwrap();
        fs::create_dir(root.join("usr/src/b")).unwrap();
        symlink("usr", root.join("lib")).unwrap();
        symlink("../../../../../usr/src/a", root.join("escape")).unwrap();
        symlink("/usr/src/none", root.join("dangling")).unwrap();
        symlink("loop", root.join("loop")).unwrap();
        let found = resolve(root, &root.join(path)).ok();
        assert_eq!(found, want.map(|path| root.join(path)));
    }

    #[test]
    fn link_targets_start_at_the_root() {
        let text = text_for(Path::new("/mnt"), Path::new("/mnt/usr/src/a-1"));
        assert_eq!(text, Path::new("/usr/src/a-1"));
        assert_eq!(text_for(Path::new("/"), Path::new("/usr/src/a-1")), text);
        assert_eq!(text_for(Path::new("/mnt"), Path::new("/srv/a")), Path::new("/srv/a"));
    }

    #[test]
    fn refuses_a_path_outside_the_root() {
        assert!(resolve(Path::new("/mnt"), Path::new("/etc")).is_err());
    }
}
